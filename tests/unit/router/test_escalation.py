"""From the front line to technical support: by command with the facts, by clocks, by exhaustion."""

from typing import Any

import pytest
from msgspec import structs

from chassis.errors import PolicyError
from schemas import commands, notifications, routing, sla
from schemas import tickets as wire
from services.router.core.policy.policy import assemble, build
from services.router.core.policy.policy_check import check
from services.router.core.policy.policy_model import PolicyMistake
from services.router.core.tickets.causes import CAUSES_FILE, CausesModel
from services.router.core.tickets.decide import RiseDue, WakeDue, timers
from services.router.core.tickets.state import Conversation
from tests.unit.router.stories import (
    FOLDER,
    ROUTING_YAML,
    Case,
    Desk,
    at,
    message,
    parsed,
    read_policy,
)

FACTS = {"tried": "two browsers", "impact": "cannot order"}


def held() -> Case:
    return Case().hears(message(), "09:00").held_by("ada")


def escalate(case: Case, now: str = "09:05", **fields: Any) -> Case:
    return case.commands(commands.EscalateTicket, now, reason="needs logs", **fields)


def test_e1_an_escalation_keeps_age_customer_and_skills_and_hands_over_the_facts() -> None:
    case = escalate(held(), facts=FACTS)
    assert case.types() == [
        "work.withdrawn.v1",
        "ticket.escalated.v1",
        "ticket.prioritised.v1",
        "ticket.status_changed.v1",
        "work.requested.v1",
    ]
    told = case.one(wire.TicketEscalated)
    assert (told.from_queue, told.to_queue, told.facts) == ("service", "technical", FACTS)
    assert (told.agent_id, told.by_rule) == ("ada", None)
    work = case.one(routing.WorkRequested)
    assert (work.queue, work.entered_at, work.priority) == ("technical", at("09:00"), 2)
    assert [need.skill for need in work.requirement.skills] == ["orders"]
    assert work.excluded_agent_ids == ()
    assert case.ticket.contact.address == "ada@example.com"
    raised = case.one(wire.TicketPrioritised)
    assert (raised.before, raised.priority, raised.reason, raised.agent_id) == (
        3,
        2,
        "escalated",
        "ada",
    )


@pytest.mark.parametrize("status", ["assigned", "pending"])
def test_e1_a_reassignment_to_technical_support_is_an_escalation_with_all_its_conditions(
    status: str,
) -> None:
    yaml = ROUTING_YAML.replace(
        "to_queue: technical", "to_queue: technical\n  skills: {api: {level: 3}}"
    )
    case = Case(read_policy(yaml)).hears(message(), "09:00").held_by("ada")
    if status == "pending":
        case.commands(commands.ReplyToCustomer, "09:02", text="Soon.")
    case.commands(commands.ReassignTicket, "09:05", queue="technical")
    assert case.one(wire.CommandRefused).reason == "facts_missing: tried, impact"
    assert (case.status, case.ticket.desk) == (status, "service")
    case.state = knowing(case, FACTS)
    case.commands(
        commands.ReassignTicket, "09:07", queue="labs", to_agent_id="nils", transfer="direct"
    )
    told = case.one(wire.TicketEscalated)
    assert (told.to_queue, told.reason, told.agent_id) == ("labs", "reassigned", "ada")
    work = case.one(routing.WorkRequested)
    assert (work.queue, work.priority, work.preferred_agent_id, work.transfer) == (
        "labs",
        2,
        "nils",
        "direct",
    )
    assert [need.skill for need in work.requirement.skills] == ["api", "orders"]
    assert (case.status, case.ticket.front_agent_id) == ("queued", "ada")
    assert case.ticket.technical_agent_id is None


@pytest.mark.parametrize(
    ("facts", "missing"),
    [({}, "tried, impact"), ({"tried": "x"}, "impact"), ({"tried": " ", "impact": "y"}, "tried")],
)
def test_e1_a_hand_over_without_the_required_facts_is_refused_with_the_list(
    facts: dict[str, str], missing: str
) -> None:
    case = escalate(held(), facts=facts)
    assert case.one(wire.CommandRefused).reason == f"facts_missing: {missing}"
    assert case.status == "assigned"


def knowing(case: Case, facts: dict[str, str]) -> Conversation:
    """The conversation, with facts that were handed over earlier."""
    assert case.state is not None
    return structs.replace(case.state, ticket=structs.replace(case.ticket, facts=facts))


@pytest.mark.parametrize(
    "facts",
    [
        {**FACTS, "log": "x" * 1_998},
        {**FACTS, **{f"f{n}": "x" for n in range(31)}},
    ],
)
def test_more_facts_than_a_ticket_keeps_are_refused_by_name(facts: dict[str, str]) -> None:
    reason = escalate(held(), facts=facts).one(wire.CommandRefused).reason
    assert reason.startswith("facts_too_large: a ticket keeps at most 32 facts")
    assert "x" * 10 not in reason


def test_facts_are_counted_over_all_that_was_handed_over() -> None:
    case = held()
    case.state = knowing(case, {f"f{n}": "x" for n in range(30)})
    assert escalate(case, facts=FACTS).one(wire.TicketEscalated).facts.keys() > FACTS.keys()
    case = held()
    case.state = knowing(case, {f"f{n}": "x" for n in range(31)})
    reason = escalate(case, facts=FACTS).one(wire.CommandRefused).reason
    assert reason.startswith("facts_too_large")


def test_facts_that_were_handed_over_once_count_the_next_time() -> None:
    case = escalate(held(), facts=FACTS).commands(commands.ReassignTicket, "09:06", queue="service")
    escalate(case, "09:10", facts={"request_id": "req_81"})
    assert case.one(wire.TicketEscalated).facts == {**FACTS, "request_id": "req_81"}


def test_a_ticket_that_is_with_technical_support_already_stays_there() -> None:
    case = escalate(escalate(held(), facts=FACTS), "09:06", facts=FACTS)
    assert case.one(wire.CommandRefused).reason == "already_there"


@pytest.mark.parametrize(
    ("queue", "reason"),
    [("attic", "queue_unknown: attic"), ("service", "queue_not_technical: service")],
)
def test_an_escalation_goes_up_or_nowhere(queue: str, reason: str) -> None:
    case = escalate(held(), facts=FACTS, queue=queue)
    assert case.one(wire.CommandRefused).reason == reason


def test_one_technical_queue_may_hand_on_to_another() -> None:
    case = escalate(escalate(held(), facts=FACTS), "09:06", queue="labs")
    assert case.one(wire.TicketEscalated).to_queue == "labs"


def test_an_escalated_pending_ticket_waits_for_technical_support_and_no_more_for_the_customer() -> (
    None
):
    case = held().commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    escalate(case, "09:06", facts=FACTS)
    moved = case.one(wire.TicketStatusChanged)
    assert (moved.before, moved.status) == ("pending", "queued")


def with_skills(more: str = "") -> Case:
    yaml = ROUTING_YAML.replace(
        "to_queue: technical", f"to_queue: technical\n  skills: {{api: {{level: 3}}}}{more}"
    )
    return escalate(Case(read_policy(yaml)).hears(message(), "09:00"), facts=FACTS)


def test_e1_skills_named_for_escalations_are_asked_beside_the_tickets_own() -> None:
    work = with_skills().one(routing.WorkRequested)
    assert [(n.skill, n.level) for n in work.requirement.skills] == [("api", 3), ("orders", 2)]
    assert work.requirement.language == "en"


def test_a_policy_may_replace_the_skills_instead() -> None:
    work = with_skills("\n  replace_skills: true").one(routing.WorkRequested)
    assert [(n.skill, n.level) for n in work.requirement.skills] == [("api", 3)]
    assert work.requirement.language == "en"


def test_a_breached_resolution_escalates_by_rule_once() -> None:
    case = held().clocked(sla.TargetBreached, "12:00", "resolution")
    told = case.one(wire.TicketEscalated)
    assert (told.by_rule, told.command_id, told.agent_id) == ("on_breach.resolution", None, None)
    case.clocked(sla.TargetBreached, "12:01", "resolution")
    assert (case.told, case.last.ignored) == ((), "nothing_left_to_raise")


def test_a_breached_first_response_makes_the_waiting_ticket_more_urgent_in_its_place() -> None:
    case = Case().hears(message(), "09:00")
    work_id = case.ticket.work_id
    case.clocked(sla.TargetAtRisk, "09:30", "first_response")
    assert case.ticket.priority == 2
    case.clocked(sla.TargetBreached, "10:00", "first_response")
    raised = case.one(wire.TicketPrioritised)
    assert (raised.before, raised.priority, raised.by_rule) == (2, 1, "on_breach.first_response")
    work = case.one(routing.WorkRequested)
    assert (work.work_id, work.priority, work.entered_at) == (work_id, 1, at("09:00"))


def test_a_clock_without_a_rule_changes_nothing() -> None:
    assert held().clocked(sla.TargetAtRisk, "12:00", "resolution").last.ignored == "no_rule"


def test_clocks_of_solved_and_pending_tickets_escalate_nothing() -> None:
    case = held().commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    assert (
        case.clocked(sla.TargetBreached, "12:00", "resolution").last.ignored == "waits_for_customer"
    )
    case.commands(commands.SolveTicket, "12:01")
    assert case.clocked(sla.TargetBreached, "12:02", "resolution").last.ignored == "already_solved"


def test_a_ticket_that_all_have_declined_goes_up() -> None:
    case = Case().hears(message(), "09:00").routed(routing.AssignmentExhausted, "09:20")
    assert case.one(wire.TicketEscalated).by_rule == "on_exhausted"


def test_a_ticket_that_all_have_declined_and_that_cannot_go_up_gets_a_note() -> None:
    case = (
        Case().hears(message(subject="API"), "09:00").routed(routing.AssignmentExhausted, "09:20")
    )
    assert case.one(wire.TicketNoteAdded).agent_id == "signalbox"
    assert case.status == "queued"


def test_an_offer_an_assignment_and_a_requeue_are_followed() -> None:
    case = Case().hears(message(), "09:00").routed(routing.OfferMade, "09:00", agent_id="ada")
    assert case.status == "offered"
    case.routed(routing.TicketAssigned, "09:01", agent_id="ada")
    assert (case.status, case.ticket.assignee_id) == ("assigned", "ada")
    case.routed(routing.TicketRequeued, "09:02", agent_id="ada", reason="agent_removed")
    assert (case.status, case.one(wire.TicketStatusChanged).reason) == ("queued", "agent_removed")
    assert case.routed(routing.TicketQueued, "09:02").last.ignored == "already_queued"


def test_what_assignment_says_of_work_that_is_withdrawn_is_stale() -> None:
    case = held()
    work_id = case.ticket.work_id
    case.commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    case.routed(routing.TicketAssigned, "09:06", work_id=work_id)
    assert case.last.ignored == "stale_work"


def test_events_of_unknown_and_of_other_tickets_are_ignored_by_name() -> None:
    event = routing.TicketQueued.model_validate(routing.TicketQueued.EXAMPLE)
    assert Case().hears(event, "09:00").last.ignored == "no_open_ticket"
    assert held().hears(event, "09:00").last.ignored == "other_ticket"


def test_a_notice_that_failed_for_good_becomes_a_note() -> None:
    case = held()
    event = notifications.NoticeFailed.model_validate(
        notifications.NoticeFailed.EXAMPLE | {"ticket_id": case.ticket.ticket_id}
    )
    note = case.hears(event, "09:05").one(wire.TicketNoteAdded)
    assert note.agent_id == "signalbox"
    assert "550 no such user" in note.text


def test_a_notice_of_which_nobody_knows_becomes_a_note_that_says_so() -> None:
    case = held()
    event = notifications.NoticeUnknown.model_validate(
        notifications.NoticeUnknown.EXAMPLE | {"ticket_id": case.ticket.ticket_id}
    )
    note = case.hears(event, "09:05").one(wire.TicketNoteAdded)
    assert note.agent_id == "signalbox"
    assert note.text.startswith("Nobody knows whether the notice")
    assert "interrupted" in note.text


def _noticed(case: Case, kind: type[notifications.NoticeEvent], **changes: object) -> Case:
    facts = kind.EXAMPLE | {"ticket_id": case.ticket.ticket_id, "occasion": "answered"} | changes
    event: Any = kind.model_validate(facts)
    return case.hears(event, "09:05")


def test_an_answer_that_came_back_becomes_a_note_for_whoever_wrote_it() -> None:
    case = _noticed(held(), notifications.NoticeDeliveryReported)
    assert case.one(wire.TicketNoteAdded).text == (
        "The answer came back and did not reach the customer: 5.1.1"
    )


def test_an_answer_that_cannot_go_out_at_all_becomes_a_note_in_words() -> None:
    case = _noticed(held(), notifications.NoticeSuppressed, reason="no_address")
    assert case.one(wire.TicketNoteAdded).text == (
        "The answer did not go out: there is no address that it could go to."
    )


def test_an_answer_that_a_dry_run_keeps_here_becomes_a_note_that_says_so() -> None:
    case = _noticed(held(), notifications.NoticeSuppressed, reason="dry_run")
    text = case.one(wire.TicketNoteAdded).text
    assert text.startswith("The answer did not go out: notices are only rehearsed")
    assert "answer again once notices leave" in text


def test_an_answer_that_waits_for_an_account_becomes_a_note_that_names_it() -> None:
    case = _noticed(
        held(), notifications.NoticeDeferred, reason="account_trouble", account="shop-whatsapp"
    )
    assert "shop-whatsapp" in case.one(wire.TicketNoteAdded).text


def test_an_answer_that_waits_for_the_customers_morning_becomes_a_note_that_says_when() -> None:
    case = _noticed(held(), notifications.NoticeDeferred, until="2026-11-25T05:00:00Z")
    assert "2026-11-25 05:00 UTC" in case.one(wire.TicketNoteAdded).text


def _held_on(channel: str) -> Case:
    return Case().hears(message(channel=channel), "09:00").held_by("ada")


@pytest.mark.parametrize("channel", ["telegram", "whatsapp", "messenger", "twilio_sms"])
def test_an_answer_that_no_account_carries_becomes_a_note_that_names_the_channel(
    channel: str,
) -> None:
    case = _noticed(_held_on(channel), notifications.NoticeSuppressed, reason="channel_unsupported")
    text = case.one(wire.TicketNoteAdded).text
    assert text.startswith(f"The answer did not go out: no account carries answers to {channel} ")


def test_an_answer_that_our_own_chat_shows_needs_no_account_and_leaves_no_note() -> None:
    case = _noticed(
        _held_on("webchat"), notifications.NoticeSuppressed, reason="channel_unsupported"
    )
    assert case.last.ignored == "told_as_it_should"


@pytest.mark.parametrize("occasion", ["received", "after_hours", "voicemail"])
@pytest.mark.parametrize("reason", ["no_address", "own_address", "undeliverable"])
def test_an_acknowledgement_for_an_address_that_takes_none_is_said_to_whoever_has_the_case(
    reason: str, occasion: str
) -> None:
    case = _noticed(held(), notifications.NoticeSuppressed, occasion=occasion, reason=reason)
    text = case.one(wire.TicketNoteAdded).text
    assert text.startswith("The customer was not told that their message arrived: ")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (notifications.NoticeSuppressed, {"reason": "superseded"}),
        (notifications.NoticeSuppressed, {"occasion": "received", "reason": "channel_unsupported"}),
        (notifications.NoticeSuppressed, {"occasion": "survey", "reason": "no_address"}),
        (notifications.NoticeDeferred, {"occasion": "solved"}),
        (notifications.NoticeDeliveryReported, {"what": "read"}),
    ],
)
def test_what_is_as_it_should_be_leaves_no_note(
    kind: type[notifications.NoticeEvent], changes: dict[str, object]
) -> None:
    assert _noticed(held(), kind, **changes).last.ignored == "told_as_it_should"


def test_an_escalated_ticket_is_as_old_as_before_and_its_new_needs_are_as_patient_as_ever() -> None:
    text = ROUTING_YAML.replace(
        "to_queue: technical",
        "to_queue: technical\n  skills: {api: {level: 3, relax_after_seconds: 60}}",
    )
    case = escalate(Case(read_policy(text)).hears(message(), "09:00"), "11:00", facts=FACTS)
    work = case.one(routing.WorkRequested)
    assert (work.entered_at, work.relax_from) == (at("09:00"), at("11:00"))
    desk = Desk().hears(work, "11:00:01")
    assert desk.domain.next_due() == at("11:01")
    assert [need.skill for need in desk.domain.works[work.work_id].effective.skills] == [
        "api",
        "orders",
    ]


def test_a_pending_tickets_customer_is_not_counted_against_the_patience_of_an_escalation() -> None:
    case = held().commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    work = escalate(case, "2026-11-25T09:00:00", facts=FACTS).one(routing.WorkRequested)
    assert work.relax_from == at("2026-11-25T09:00:00")


def test_a_raised_priority_leaves_the_patience_of_the_request_as_it_was() -> None:
    case = escalate(held(), "10:00", facts=FACTS)
    case.clocked(sla.TargetBreached, "11:00", "first_response")
    assert case.one(routing.WorkRequested).relax_from == at("10:00")


# ------------------------------------------------------------------------------------- back, and forced


def returned(case: Case, now: str, agent: str = "nils", **fields: Any) -> Case:
    return case.commands(commands.ReturnTicket, now, agent=agent, reason="a wrong key", **fields)


def up(case: Case, now: str) -> Case:
    """The front line's ada hands it up, and technical support's nils takes it."""
    return escalate(case, now, facts=FACTS).held_by("nils", now)


def test_technical_support_gives_a_case_back_to_whoever_had_it() -> None:
    case = returned(up(held(), "09:05"), "09:10")
    told = case.one(wire.TicketReturned)
    assert (told.what, told.from_queue, told.to_queue) == ("escalation", "technical", "service")
    assert (told.agent_id, told.to_agent_id, told.returns) == ("nils", "ada", 1)
    work = case.one(routing.WorkRequested)
    assert (work.queue, work.preferred_agent_id, work.entered_at) == ("service", "ada", at("09:00"))
    assert case.ticket.desk == "service"
    assert case.ticket.facts == FACTS


def test_e2_a_case_that_bounced_twice_stays_with_its_last_agent_of_technical_support() -> None:
    case = returned(up(held(), "09:05"), "09:10").held_by("ada", "09:11")
    case = returned(up(case, "09:20"), "09:25").held_by("ada", "09:26")
    assert not any(isinstance(event, wire.TicketOwnerForced) for event in case.everything)
    escalate(case, "09:30", facts=FACTS)
    forced = case.one(wire.TicketOwnerForced)
    assert (forced.owner_id, forced.returns, forced.queue) == ("nils", 2, "technical")
    work = case.one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.transfer) == ("nils", "forced")
    case.held_by("nils", "09:31")
    returned(case, "09:40")
    assert case.one(wire.CommandRefused).reason == "owner_forced"
    case.commands(commands.ReassignTicket, "09:41", agent="nils", queue="service")
    assert case.one(wire.CommandRefused).reason == "owner_forced"


def forced() -> Case:
    """A case that bounced twice and is nils' now."""
    case = returned(up(held(), "09:05"), "09:10").held_by("ada", "09:11")
    case = returned(up(case, "09:20"), "09:25").held_by("ada", "09:26")
    return escalate(case, "09:30", facts=FACTS).held_by("nils", "09:31")


def test_e2_reassignments_count_like_escalations_and_returns_and_force_an_owner() -> None:
    case = held()
    case.state = knowing(case, FACTS)
    for n in range(3):
        case.commands(commands.ReassignTicket, f"1{n}:00", queue="technical")
        case.held_by("nils", f"1{n}:10")
        case.commands(commands.ReassignTicket, f"1{n}:20", agent="nils", queue="service")
        if n < 2:
            told = case.one(wire.TicketReturned)
            assert (told.to_agent_id, told.returns) == ("ada", n + 1)
            case.held_by("ada", f"1{n}:30")
    assert case.one(wire.CommandRefused).reason == "owner_forced"
    assert case.ticket.forced_owner_id == "nils"


def test_a_forced_owner_is_not_walked_round_by_reassigning_upwards_to_somebody_else() -> None:
    case = returned(up(held(), "09:05"), "09:10").held_by("ada", "09:11")
    case = returned(up(case, "09:20"), "09:25").held_by("ada", "09:26")
    case.commands(commands.ReassignTicket, "09:30", queue="technical", to_agent_id="tom")
    assert case.one(wire.CommandRefused).reason == "owner_forced"


@pytest.mark.parametrize(
    "fields",
    [{"queue": "labs"}, {"to_agent_id": "tom"}, {"to_agent_id": "tom", "transfer": "direct"}],
)
def test_e2_a_forced_owner_is_not_lost_within_the_desk(fields: dict[str, str]) -> None:
    case = forced().commands(commands.ReassignTicket, "09:40", agent="nils", **fields)
    assert case.one(wire.CommandRefused).reason == "owner_forced"
    assert escalate(case, "09:41", queue="labs").one(wire.CommandRefused).reason == "not_assignee"
    case.commands(commands.EscalateTicket, "09:42", agent="nils", reason="x", queue="labs")
    assert case.one(wire.CommandRefused).reason == "owner_forced"
    assert case.ticket.assignee_id == "nils"


def test_a_supervisor_makes_somebody_else_the_owner_by_a_forced_transfer_and_it_is_told() -> None:
    case = forced().commands(
        commands.ReassignTicket, "09:40", agent="eve", to_agent_id="tom", transfer="forced"
    )
    assert case.one(wire.TicketOwnerForced).owner_id == "tom"
    assert case.ticket.forced_owner_id == "tom"
    work = case.one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.transfer) == ("tom", "forced")


def test_the_front_line_taking_back_what_nobody_above_took_makes_nobody_an_owner() -> None:
    case = escalate(held(), facts=FACTS)
    returned(case, "09:10", agent="ada")
    assert case.ticket.technical_agent_id is None


def test_what_was_asked_of_technical_support_is_not_asked_of_the_front_line_again() -> None:
    case = with_skills().held_by("nils", "09:06")
    work = returned(case, "09:10").one(routing.WorkRequested)
    assert [need.skill for need in work.requirement.skills] == ["orders"]


def test_e2_the_customer_is_told_once_however_often_a_case_moves() -> None:
    from services.notifier.core.reason import cause_of

    case = returned(up(held(), "09:05"), "09:10").held_by("ada", "09:11")
    case = returned(up(case, "09:20"), "09:25").held_by("ada", "09:26")
    escalate(case, "09:30", facts=FACTS)
    moves = [event for event in case.everything if isinstance(event, wire.TicketEscalated)]
    assert len(moves) == 3
    assert len({cause_of(event).notice_id for event in moves}) == 1


def test_a_reassignment_back_to_the_front_line_counts_as_a_return() -> None:
    case = up(held(), "09:05")
    case.commands(commands.ReassignTicket, "09:10", agent="nils", queue="service")
    assert (case.ticket.returns, case.ticket.technical_agent_id) == (1, "nils")


def test_a_case_that_never_was_with_the_front_line_goes_back_only_where_the_policy_says_to() -> (
    None
):
    case = Case().hears(message(subject="API"), "09:00").held_by("nils")
    assert returned(case, "09:05").one(wire.CommandRefused).reason == "nowhere_to_return"
    yaml = ROUTING_YAML.replace("to_queue: technical", "to_queue: technical\n  return_to: service")
    case = Case(read_policy(yaml)).hears(message(subject="API"), "09:00").held_by("nils")
    assert returned(case, "09:05").one(wire.TicketReturned).to_queue == "service"


# ---------------------------------------------------------------------------------------------- by rule


def with_rule(rule: str, more: str = "") -> Case:
    yaml = ROUTING_YAML.replace("  on_exhausted: true\n", f"  {rule}\n")
    return Case(read_policy(yaml + more))


def test_facts_may_differ_by_the_queue_that_needs_them() -> None:
    case = with_rule("required_facts_by_queue: {labs: [serial, photo]}")
    case.hears(message(), "09:00").held_by("ada")
    escalate(case, queue="labs", facts={"photo": "p", "serial": "  "})
    assert case.one(wire.CommandRefused).reason == "facts_missing: serial"
    assert escalate(case, queue="labs", facts={"photo": "p", "serial": "7"}).ticket.queue == "labs"


def test_the_third_reopening_hands_a_case_up_and_the_second_does_not() -> None:
    case = with_rule("on_reopens: {at: 3, escalate: true, raise_priority_to: 2}")
    case.hears(message(), "09:00")
    for n in range(1, 4):
        case.held_by("ada", f"{9 + n}:00").commands(commands.SolveTicket, f"{9 + n}:10")
        case.hears(message(f"r{n}"), f"{9 + n}:20")
        assert case.ticket.desk == ("technical" if n == 3 else "service")
    assert case.one(wire.TicketEscalated).by_rule == "on_reopens"
    assert case.ticket.priority == 2


def test_a_customer_who_writes_again_and_again_without_an_answer_is_handed_up() -> None:
    case = with_rule("on_unanswered: {messages: 3, escalate: true}")
    case.hears(message(), "09:00").held_by("ada").hears(message("m2"), "09:10")
    assert case.ticket.desk == "service"
    assert case.hears(message("m3"), "09:20").one(wire.TicketEscalated).by_rule == "on_unanswered"


def test_an_answer_begins_the_count_of_unanswered_messages_anew() -> None:
    case = with_rule("on_unanswered: {messages: 3, escalate: true}")
    case.hears(message(), "09:00").held_by("ada").hears(message("m2"), "09:10")
    case.commands(commands.ReplyToCustomer, "09:15", text="Soon.")
    case.hears(message("m3"), "09:20").hears(message("m4"), "09:25")
    assert (case.ticket.desk, case.ticket.unanswered) == ("service", 2)


def test_automatic_messages_are_not_counted_as_unanswered() -> None:
    case = with_rule("on_unanswered: {messages: 3, escalate: true}").hears(message(), "09:00")
    for n in range(5):
        case.hears(message(f"a{n}", is_automatic=True), "09:10")
    assert case.ticket.desk == "service"


@pytest.mark.parametrize(
    ("rule", "fields", "by_rule"),
    [
        ("on_intents: [outage]", {"intent": "outage"}, "on_intents.outage"),
        ("on_causes: [api_down]", {"cause": "api_down"}, "on_causes.api_down"),
        ("on_intents: [outage]", {"intent": "praise"}, None),
        ("on_intents: [outage]", {"intent": "Outage "}, "on_intents.outage"),
        ("on_intents: [İade]", {"intent": "iade"}, "on_intents.İade"),
        ("on_causes: [API_down]", {"cause": "api_down"}, "on_causes.API_down"),
    ],
)
def test_what_a_message_is_about_hands_its_case_up(
    rule: str, fields: dict[str, str], by_rule: str | None
) -> None:
    case = with_rule(rule).hears(message(fields=fields), "09:00")
    told = [event.by_rule for event in case.told if isinstance(event, wire.TicketEscalated)]
    assert told == ([] if by_rule is None else [by_rule])


def test_a_tag_that_is_technical_supports_hands_the_case_up() -> None:
    case = with_rule("on_causes: [api_down]").hears(message(), "09:00").held_by("ada")
    case.commands(commands.TagTicket, "09:10", add=["late"])
    assert case.ticket.desk == "service"
    case.commands(commands.TagTicket, "09:11", add=["api_down"])
    assert case.one(wire.TicketEscalated).by_rule == "on_causes.api_down"


def test_a_tag_that_the_rule_itself_gives_hands_the_case_up_as_it_is_opened() -> None:
    yaml = ROUTING_YAML.replace(
        "then: {queue: service,", "then: {queue: service, tags: [api_down],"
    ).replace("  on_exhausted: true\n", "  on_causes: [api_down]\n")
    case = Case(read_policy(yaml)).hears(message(), "09:00")
    assert case.one(wire.TicketEscalated).by_rule == "on_causes.api_down"
    assert case.ticket.desk == "technical"


OVERLOAD = "assignment: {overload: {service: {at: 100, clear_below: 80}}}\n"


def test_e3_the_ticket_that_makes_a_queue_too_long_goes_up_and_those_before_it_stay() -> None:
    case = with_rule("on_overload: {service: {escalate: true}}", OVERLOAD)
    case.hears(message(), "09:00")
    case.routed(routing.QueueOverloaded, "09:00", queue="service", length=101, threshold=100)
    told = case.one(wire.TicketEscalated)
    assert told.by_rule == "on_overload.service"
    assert told.reason == "101 tickets wait in service, more than 100"
    case = Case().hears(message(), "09:00")
    case.routed(routing.QueueOverloaded, "09:00", queue="service", length=101, threshold=100)
    assert case.last.ignored == "no_rule"


def aged(hours: str = "1") -> Case:
    return with_rule(f"after: {{hours: {hours}, escalate: true, raise_priority_to: 2}}")


def test_e4_a_timer_that_fires_five_minutes_late_fires_once_and_says_so() -> None:
    case = aged().hears(message(), "09:00")
    assert timers(case.state) == {"rise": at("10:00")}
    assert case.hears(RiseDue(), "09:59:59").last.ignored == "nothing_due"
    case.hears(RiseDue(), "10:05")
    told = case.one(wire.TicketEscalated)
    assert (told.by_rule, told.due_at, told.late_seconds) == ("after", at("10:00"), 300)
    assert timers(case.state) == {}
    assert case.hears(RiseDue(), "10:06").last.ignored == "nothing_due"


def test_a_timer_on_time_is_not_late() -> None:
    case = aged().hears(message(), "09:00").hears(RiseDue(), "10:00")
    assert case.one(wire.TicketEscalated).late_seconds == 0


def test_time_does_not_pass_while_the_customer_is_waited_for_and_begins_with_their_words() -> None:
    case = aged().hears(message(), "09:00").held_by("ada")
    case.commands(commands.ReplyToCustomer, "09:30", text="Soon.")
    assert timers(case.state) == {}
    case.hears(message("m2"), "2026-11-25T11:00:00")
    assert timers(case.state) == {"rise": at("2026-11-25T12:00:00")}


def test_a_case_that_is_taken_up_again_has_waited_since_then_only() -> None:
    case = aged().hears(message(), "09:00").held_by("ada")
    case.commands(commands.ReplyToCustomer, "09:30", text="Soon.")
    case.commands(commands.ResumeTicket, "2026-11-25T11:00:00")
    assert case.one(routing.WorkRequested).entered_at == at("2026-11-25T11:00:00")
    assert timers(case.state) == {"rise": at("2026-11-25T12:00:00")}


def test_time_does_not_pass_while_a_case_is_on_hold_or_snoozed() -> None:
    case = aged("24").hears(message(), "09:00").held_by("ada")
    until = "2026-11-28T09:00:00"
    case.commands(
        commands.HoldTicket, "10:00", reason="they look", waiting_on="carrier", until=f"{until}Z"
    )
    assert timers(case.state) == {"wake": at(until)}
    assert case.hears(RiseDue(), "2026-11-25T09:00:00").last.ignored == "nothing_due"
    case.hears(WakeDue(), until)
    # An hour had passed before the hold, so 23 are left.
    assert timers(case.state) == {"rise": at("2026-11-29T08:00:00")}
    case.held_by("ada", "2026-11-28T10:00:00")
    case.commands(commands.SnoozeTicket, "2026-11-28T11:00:00", until="2026-11-28T12:00:00Z")
    case.hears(WakeDue(), "2026-11-28T12:00:00")
    assert timers(case.state) == {"rise": at("2026-11-29T09:00:00")}


def test_time_spent_pending_before_a_hold_is_not_counted_either() -> None:
    case = aged().hears(message(), "09:00").held_by("ada")
    case.commands(commands.ReplyToCustomer, "09:30", text="Soon.")
    case.commands(
        commands.HoldTicket, "10:30", reason="r", waiting_on="w", until="2026-11-24T11:30:00Z"
    )
    case.hears(WakeDue(), "11:30")
    assert timers(case.state) == {"rise": at("12:00")}


def test_a_timer_that_was_set_by_an_older_policy_goes_by_the_present_one() -> None:
    case = aged("24").hears(message(), "09:00")
    case.policy = aged("48").policy
    case.hears(RiseDue(), "2026-11-25T09:00:00")
    assert case.told == ()
    assert timers(case.state) == {"rise": at("2026-11-26T09:00:00")}
    case.hears(RiseDue(), "2026-11-26T09:00:00")
    assert case.one(wire.TicketEscalated).due_at == at("2026-11-26T09:00:00")
    case = aged("24").hears(message(), "09:00")
    case.policy = with_rule("on_exhausted: true").policy
    case.hears(RiseDue(), "2026-11-25T09:00:00")
    assert (case.told, timers(case.state)) == ((), {})


def test_time_moves_a_case_up_once_in_its_life() -> None:
    case = aged().hears(message(), "09:00").hears(RiseDue(), "10:00").held_by("nils", "10:01")
    returned(case, "10:10")
    assert (case.ticket.desk, timers(case.state)) == ("service", {})


def test_a_case_with_technical_support_has_no_such_timer() -> None:
    assert timers(aged().hears(message(subject="API"), "09:00").state) == {}


# ---------------------------------------------------------------------------------------------- on call


def on_call(level: str) -> Case:
    return with_rule(f"on_call: {{security: {level}}}")


def test_whoever_is_on_call_is_paged_once_while_the_case_is_open() -> None:
    case = on_call("{rules: [API]}").hears(message(subject="API down"), "09:00")
    told = case.one(wire.TicketPaged)
    assert (told.on_call, told.queue, told.priority) == ("security", "technical", 2)
    assert told.reason == "rule: API"
    note = case.one(wire.TicketNoteAdded).text
    assert note == "Whoever is on call for security is to be paged (rule: API)."
    case.held_by("nils").hears(message("m2"), "09:10")
    assert sum(isinstance(event, wire.TicketPaged) for event in case.everything) == 1
    case.commands(commands.SolveTicket, "09:20", agent="nils").hears(message("m3"), "10:00")
    assert case.one(wire.TicketPaged).on_call == "security"


def test_an_on_call_level_takes_the_case_to_its_queue() -> None:
    case = on_call("{priorities: [1], queue: labs}").hears(message(), "09:00").held_by("ada")
    case.commands(commands.PrioritiseTicket, "09:10", priority=1, reason="leaked key")
    assert case.one(wire.TicketEscalated).by_rule == "on_call.security"
    assert case.one(wire.TicketPaged).queue == "labs"
    work = [event for event in case.told if isinstance(event, routing.WorkRequested)][-1]
    assert (work.queue, work.work_id) == ("labs", case.ticket.work_id)


def test_all_conditions_of_a_level_must_hold() -> None:
    case = on_call("{priorities: [1], queues: [technical], page: true}").hears(message(), "09:00")
    case.commands(commands.PrioritiseTicket, "09:10", priority=1, reason="x")
    assert not any(isinstance(event, wire.TicketPaged) for event in case.told)


def test_an_owner_that_was_forced_keeps_a_case_that_somebody_on_call_is_paged_for() -> None:
    yaml = ROUTING_YAML.replace(
        "  on_exhausted: true\n", "  on_call: {security: {priorities: [1], queue: labs}}\n"
    )
    case = Case(read_policy(yaml))
    case.state = forced().state
    case.commands(commands.PrioritiseTicket, "10:00", command_id="p1", priority=1, reason="leak")
    assert case.one(wire.TicketPaged).queue == "technical"
    assert (case.ticket.queue, case.ticket.assignee_id) == ("technical", "nils")


def test_a_tag_of_an_on_call_level_that_no_rule_gives_and_no_cause_is_is_a_mistake() -> None:
    yaml = ROUTING_YAML.replace("  on_exhausted: true\n", "  on_call: {s: {tags: [api_dwn]}}\n")
    causes = CausesModel.model_validate({"causes": {"api_down": {"description": {"en": "API"}}}})
    with pytest.raises(PolicyMistake) as told:
        build({**parsed(yaml), CAUSES_FILE: causes}, FOLDER, "v1")
    assert told.value.path == "escalation.on_call.s.tags"
    assert "Is 'api_down' meant?" in told.value.allowed
    build({**parsed(yaml.replace("api_dwn", "api_down")), CAUSES_FILE: causes}, FOLDER, "v1")
    given = yaml.replace("then: {queue: service,", "then: {queue: service, tags: [api_dwn],")
    assert [
        one.path
        for one in check(assemble({**parsed(given), CAUSES_FILE: causes}, "v1"))
        if "on_call" in one.path
    ] == []


@pytest.mark.parametrize(
    ("rule", "path", "allowed"),
    [
        ("on_call: {s: {page: true}}", "escalation.on_call.s", "give rules, queues"),
        ("on_call: {s: {rules: [nope]}}", "escalation.on_call.s.rules", "no such rule"),
        ("on_call: {s: {queues: [attic]}}", "escalation.on_call.s.queues", "no such queue"),
        ("on_call: {s: {rules: [API], queue: attic}}", "escalation.on_call.s.queue", "no such queue"),
        ("on_overload: {attic: {escalate: true}}", "escalation.on_overload.attic", "no such queue"),
        ("on_overload: {service: {escalate: true}}", "escalation.on_overload.service", "assignment.overload.service"),
        ("on_call: {s: {tags: [Typo!]}}", "escalation.on_call.s.tags", "no ticket can have this tag"),
        ("on_overload: {service: {}}", "escalation.on_overload.service", "does nothing"),
        ("return_to: labs", "escalation.return_to", "would not go back to the front line"),
        ("return_to: attic", "escalation.return_to", "no such queue"),
        ("required_facts_by_queue: {attic: [x]}", "escalation.required_facts_by_queue.attic", "no such queue"),
        ("on_reopens: {at: 0, escalate: true}", "escalation.on_reopens.at", "greater than or equal to 1"),
        ("on_reopens: {at: 3}", "escalation.on_reopens", "does nothing"),
        ("after: {hours: 0, escalate: true}", "escalation.after.hours", "greater than 0"),
    ],
)  # fmt: skip
def test_an_escalation_that_cannot_work_is_refused_by_its_path(
    rule: str, path: str, allowed: str
) -> None:
    with pytest.raises((PolicyMistake, PolicyError)) as told:
        with_rule(rule)
    mistake: Any = told.value
    assert mistake.path == path
    assert allowed in mistake.allowed
