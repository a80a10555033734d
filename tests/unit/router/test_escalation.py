"""From the front line to technical support: by command with the facts, by clocks, by exhaustion."""

from typing import Any

import pytest

from schemas import commands, notifications, routing, sla
from schemas import tickets as wire
from tests.unit.router.stories import ROUTING_YAML, Case, Desk, at, message, read_policy

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


def test_skills_named_for_escalations_replace_the_tickets_own() -> None:
    yaml = ROUTING_YAML.replace(
        "to_queue: technical", "to_queue: technical\n  skills: {api: {level: 3}}"
    )
    case = Case(read_policy(yaml)).hears(message(), "09:00")
    work = escalate(case, facts=FACTS).one(routing.WorkRequested)
    assert [(need.skill, need.level) for need in work.requirement.skills] == [("api", 3)]
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
    moved = case.one(wire.TicketStatusChanged)
    assert moved.reason == "priority_raised_to_1: on_breach.first_response"
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
    assert [need.skill for need in desk.domain.works[work.work_id].effective.skills] == ["api"]


def test_a_pending_tickets_customer_is_not_counted_against_the_patience_of_an_escalation() -> None:
    case = held().commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    work = escalate(case, "2026-11-25T09:00:00", facts=FACTS).one(routing.WorkRequested)
    assert work.relax_from == at("2026-11-25T09:00:00")


def test_a_raised_priority_leaves_the_patience_of_the_request_as_it_was() -> None:
    case = escalate(held(), "10:00", facts=FACTS)
    case.clocked(sla.TargetBreached, "11:00", "first_response")
    assert case.one(routing.WorkRequested).relax_from == at("10:00")
