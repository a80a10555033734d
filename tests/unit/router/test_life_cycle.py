"""The whole life of a ticket: what rests and wakes, what is delegated and given back, and every command in every standing."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import commands, merging, routing, sla
from schemas import tickets as wire
from services.router.core.tickets import decide
from services.router.core.tickets.decide import CloseDue, RiseDue, WakeDue, timers
from services.router.core.tickets.state import Assigned, Merged, Offered, Queued
from tests.unit.router.stories import ROUTING_YAML, Case, at, message, read_policy

FACTS = {"tried": "two browsers", "impact": "cannot order"}
PAGE = Path(__file__).parents[3] / "docs" / "tickets.md"
INTO = {"into_conversation_id": "c2", "into_ticket_id": "t2"}

COMMANDS: Final[dict[str, tuple[type[commands.Command], dict[str, Any]]]] = {
    "reply": (commands.ReplyToCustomer, {"text": "Soon."}),
    "note": (commands.AddNote, {"text": "Called the carrier."}),
    "tag": (commands.TagTicket, {"add": ["late"]}),
    "solve": (commands.SolveTicket, {}),
    "escalate": (commands.EscalateTicket, {"reason": "needs logs", "facts": FACTS}),
    "reassign": (commands.ReassignTicket, {"to_agent_id": "bo"}),
    "hold": (commands.HoldTicket, {"reason": "they look for it", "waiting_on": "carrier"}),
    "snooze": (commands.SnoozeTicket, {"until": "2026-11-25T08:00:00Z"}),
    "resume": (commands.ResumeTicket, {}),
    "delegate": (commands.DelegateTicket, {"to_agent_id": "bo", "task": "the refund"}),
    "return": (commands.ReturnTicket, {"reason": "a wrong key"}),
    "spam": (commands.MarkTicketAsSpam, {"reason": "sells rank"}),
    "restore": (commands.RestoreTicket, {}),
    "merge": (commands.MergeTicket, INTO),
    "unmerge": (commands.UnmergeTicket, {}),
    "promise": (commands.PromiseCustomer, {"what": "callback", "by": "2026-11-28T10:00:00Z"}),
    "called": (commands.CallMade, {"outcome": "reached", "occurred_at": "2026-11-24T09:08:00Z"}),
    "prioritise": (commands.PrioritiseTicket, {"priority": 1, "reason": "a wedding"}),
}
STANDINGS: Final = (
    "unknown", "queued", "offered", "assigned", "pending", "on_hold", "snoozed", "solved", "spam", "merging", "merged",
    "closed",
)  # fmt: skip


def held() -> Case:
    return Case().hears(message(), "09:00").held_by("ada")


def does(case: Case, name: str, now: str = "09:10", **fields: Any) -> Case:
    kind, known = COMMANDS[name]
    return case.commands(kind, now, **(known | fields))


def answer(case: Case, reason: str = "") -> Case:
    merge = case.ticket.merging
    assert merge is not None
    event = merging.MergeAnswered(
        conversation_id="c1",
        ticket_id=case.ticket.ticket_id,
        merge_id=merge.merge_id,
        is_accepted=not reason,
        reason=reason,
        into_conversation_id="c2",
        into_ticket_id="t2",
        into_reference="SB-2M7QT4K",
    )
    return case.hears(event, "09:06")


def standing(name: str) -> Case:
    """A ticket of ada's that stands so."""
    match name:
        case "unknown":
            return Case()
        case "queued":
            return Case().hears(message(), "09:00")
        case "offered":
            return (
                Case().hears(message(), "09:00").routed(routing.OfferMade, "09:01", agent_id="ada")
            )
        case "assigned":
            return held()
        case "pending":
            return does(held(), "reply", "09:05")
        case "on_hold":
            return does(held(), "hold", "09:05")
        case "snoozed":
            return does(held(), "snooze", "09:05")
        case "solved":
            return does(held(), "solve", "09:05")
        case "spam":
            return does(held(), "spam", "09:05")
        case "merging":
            return does(held(), "merge", "09:05")
        case "merged":
            return answer(does(held(), "merge", "09:05"))
        case _:
            case = does(held(), "solve", "09:05")
            ticket_id = case.ticket.ticket_id
            case.hears(CloseDue(), "2026-11-27T09:05:00")
            case.closed_id = ticket_id  # type: ignore[attr-defined]
            return case


def outcome(status: str, name: str) -> str:
    """What a command comes to: where the ticket stands afterwards, or why it is refused."""
    case = standing(status)
    before = case.state
    closed_id = getattr(case, "closed_id", None)
    more = {} if closed_id is None else {"ticket_id": closed_id}
    does(case, name, "2026-11-24T09:10:00" if closed_id is None else "2026-11-28T09:10:00", **more)
    refused = [event for event in case.told if isinstance(event, wire.CommandRefused)]
    if refused:
        assert len(case.told) == 1
        assert refused[0].state == {"merging": "assigned"}.get(status, status)
        if before is not None and before.ticket is not None:
            assert case.ticket == before.ticket, "a refused command changes nothing"
            assert refused[0].version == case.ticket.version
            assert refused[0].since == case.ticket.moved_at
        return refused[0].reason
    assert case.told, "what is done is told"
    return f"→ {'merging' if case.ticket.merging else case.status}"


def matrix() -> list[str]:
    """Every command in every standing, as the page shows it."""
    lines = [
        f"| command | {' | '.join(name.replace('_', ' ') for name in STANDINGS)} |",
        f"|---|{'---|' * len(STANDINGS)}",
    ]
    lines += [
        f"| **{name}** | {' | '.join(outcome(status, name) for status in STANDINGS)} |"
        for name in COMMANDS
    ]
    return lines


def test_every_command_has_an_outcome_in_every_standing_and_the_page_says_which() -> None:
    page = PAGE.read_text("utf-8")
    assert "\n".join(matrix()) in page, "docs/tickets.md: print matrix() of this test into it"


def test_every_command_of_the_contract_is_in_the_table() -> None:
    """What is for the notifier alone changes no ticket."""
    kinds = {kind for kind, _ in COMMANDS.values()} | {commands.ResendNotice}
    assert kinds == set(commands.Command.__subclasses__())


def test_the_page_names_every_refusal_that_is_counted() -> None:
    from services.router.metrics import REFUSALS

    page = PAGE.read_text("utf-8")
    assert [reason for reason in REFUSALS if f"`{reason}" not in page] == []


# -------------------------------------------------------------------------------------------- resting


def test_a_ticket_on_hold_takes_nobodys_capacity_and_says_whom_it_waits_for() -> None:
    case = does(held(), "hold", until="2026-11-26T08:00:00Z")
    assert case.types() == ["work.withdrawn.v1", "ticket.status_changed.v1"]
    moved = case.one(wire.TicketStatusChanged)
    assert (moved.status, moved.waiting_on, moved.detail) == (
        "on_hold",
        "carrier",
        "they look for it",
    )
    assert moved.until == at("2026-11-26T08:00:00")
    assert moved.command_id == "k1"
    assert timers(case.state) == {"wake": at("2026-11-26T08:00:00")}


def test_a_hold_without_an_end_sets_no_timer() -> None:
    assert timers(does(held(), "hold").state) == {}


def test_a_ticket_on_hold_wakes_at_its_instant_and_not_before_and_asks_who_had_it() -> None:
    case = does(held(), "hold", until="2026-11-26T08:00:00Z")
    assert case.hears(WakeDue(), "2026-11-26T07:59:59").last.ignored == "nothing_due"
    case.hears(WakeDue(), "2026-11-26T08:00:00")
    assert case.one(wire.TicketStatusChanged).reason == "hold_over"
    work = case.one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.transfer, work.excluded_agent_ids) == ("ada", "", ())
    assert work.entered_at == at("09:00")
    assert work.relax_from == at("2026-11-26T08:00:00")


def test_a_snoozed_ticket_wakes_at_its_instant() -> None:
    case = does(held(), "snooze")
    assert timers(case.state) == {"wake": at("2026-11-25T08:00:00")}
    case.hears(WakeDue(), "2026-11-25T08:00:00")
    assert (case.status, case.one(wire.TicketStatusChanged).reason) == ("queued", "snooze_over")


def test_r9_whoever_comes_back_to_a_ticket_goes_through_assignment_and_takes_it_over_nowhere() -> (
    None
):
    for name in ("hold", "snooze", "reply"):
        case = does(does(held(), name, "09:05"), "resume", "09:20")
        assert case.status == "queued"
        work = case.one(routing.WorkRequested)
        assert (work.preferred_agent_id, work.transfer) == ("ada", "")


@pytest.mark.parametrize("name", ["hold", "snooze"])
def test_a_customers_message_wakes_what_rests_unless_the_policy_lets_it_sleep(name: str) -> None:
    case = does(held(), name, "09:05").hears(message("m2"), "09:30")
    assert (case.status, case.one(routing.WorkRequested).preferred_agent_id) == ("queued", "ada")
    yaml = f"{ROUTING_YAML}life_cycle: {{customer_wakes_on_hold: false, customer_wakes_snoozed: false}}"
    case = does(Case(read_policy(yaml)).hears(message(), "09:00").held_by("ada"), name, "09:05")
    resting = case.status
    case.hears(message("m2"), "09:30")
    assert case.types() == ["ticket.message_added.v1"]
    assert case.status == resting


def test_an_automatic_message_wakes_nothing() -> None:
    case = does(held(), "snooze", "09:05").hears(message("m2", is_automatic=True), "09:30")
    assert case.status == "snoozed"


def test_a_reply_leaves_a_ticket_on_hold_that_waits_for_a_third_party() -> None:
    case = does(does(held(), "hold", "09:05"), "reply", "09:10")
    assert (case.status, case.types()) == ("on_hold", ["ticket.answered.v1"])


@pytest.mark.parametrize(
    ("until", "reason"),
    [
        ("2026-11-24T09:10:00Z", "until_past"),
        ("2026-11-24T09:10:01Z", None),
        ("2027-11-25T09:10:00Z", None),
        ("2027-11-25T09:10:01Z", "until_too_far"),
    ],
)
@pytest.mark.parametrize("name", ["hold", "snooze"])
def test_an_instant_must_lie_ahead_and_not_too_far(
    name: str, until: str, reason: str | None
) -> None:
    case = does(held(), name, "09:10", until=until)
    told = [event.reason for event in case.told if isinstance(event, wire.CommandRefused)]
    assert told == ([] if reason is None else [reason])


def test_a_snooze_is_ones_own_and_a_hold_is_for_whoever_finds_the_ticket_lying() -> None:
    case = Case().hears(message(), "09:00")
    assert does(case, "snooze").one(wire.CommandRefused).reason == "not_assignee"
    assert does(case, "hold", agent="eve").status == "on_hold"
    assert case.ticket.assignee_id == "eve"


def test_a_clock_at_risk_wakes_a_ticket_that_was_put_away_unless_it_goes_up() -> None:
    case = does(held(), "snooze", "09:05").clocked(sla.TargetAtRisk, "09:30", "first_response")
    assert (case.status, case.ticket.priority) == ("queued", 2)
    assert case.one(wire.TicketStatusChanged).reason == "on_risk.first_response"
    case = does(held(), "hold", "09:05").clocked(sla.TargetBreached, "12:00", "resolution")
    assert case.one(wire.TicketEscalated).by_rule == "on_breach.resolution"
    assert len([e for e in case.told if isinstance(e, routing.WorkRequested)]) == 1


def test_reassigning_what_rests_changes_who_will_have_it_and_it_rests_on() -> None:
    case = does(does(held(), "hold", "09:05"), "reassign", "09:10")
    assert (case.status, case.ticket.assignee_id) == ("on_hold", "bo")
    assert (
        does(case, "resume", "09:20", agent="bo").one(routing.WorkRequested).preferred_agent_id
        == "bo"
    )


# --------------------------------------------------------------------------------- delegating, giving


def test_a_delegated_part_goes_to_the_colleague_and_not_back_by_chance() -> None:
    case = does(held(), "delegate")
    told = case.one(wire.TicketDelegated)
    assert (told.owner_id, told.to_agent_id, told.task) == ("ada", "bo", "the refund")
    work = case.one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.excluded_agent_ids) == ("bo", ("ada",))


def test_nobody_but_the_owner_answers_the_customer_of_a_part_that_waits_for_a_colleague() -> None:
    case = does(held(), "delegate")
    for name in ("reply", "solve", "hold", "spam"):
        assert does(case, name, agent="eve").one(wire.CommandRefused).reason == "not_assignee"
    assert does(case, "reply", agent="ada").one(wire.TicketAnswered).agent_id == "ada"


def test_a_part_that_everyone_has_declined_goes_back_to_its_owner_and_not_up() -> None:
    case = does(held(), "delegate").routed(routing.AssignmentExhausted, "09:20")
    told = case.one(wire.TicketReturned)
    assert (told.what, told.agent_id, told.to_agent_id) == ("delegation", "signalbox", "ada")
    work = case.one(routing.WorkRequested)
    assert (work.queue, work.preferred_agent_id, work.excluded_agent_ids) == ("service", "ada", ())
    assert case.ticket.delegation is None
    case.routed(routing.AssignmentExhausted, "09:40")
    assert case.one(wire.TicketEscalated).by_rule == "on_exhausted"


def test_a_ticket_given_away_is_offered_to_its_giver_too_before_it_goes_up() -> None:
    case = does(held(), "reassign").routed(routing.AssignmentExhausted, "09:20")
    work = case.one(routing.WorkRequested)
    assert (work.queue, work.reason, work.excluded_agent_ids) == ("service", "exhausted", ())
    assert "but ada, who gave it away" in case.one(wire.TicketNoteAdded).text
    assert case.ticket.work_id == work.work_id
    case.routed(routing.AssignmentExhausted, "09:40")
    assert case.one(wire.TicketEscalated).by_rule == "on_exhausted"


def answered_elsewhere() -> Case:
    """A ticket that our side answered at the channel before anybody of the roster had it."""
    return (
        Case()
        .hears(message(), "09:00")
        .hears(message("o1", direction="outbound", occurred_at="2026-11-24T09:05:00Z"), "09:05")
    )


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("reply", "pending"),
        ("solve", "solved"),
        ("hold", "on_hold"),
        ("spam", "spam"),
        ("escalate", "queued"),
    ],
)
def test_a_ticket_answered_at_the_channel_before_anyone_had_it_is_nobodys_and_anyone_may_act(
    name: str, status: str
) -> None:
    case = answered_elsewhere()
    assert (case.status, case.ticket.assignee_id) == ("pending", None)
    assert does(case, name, agent="bo").status == status
    assert not any(isinstance(event, wire.CommandRefused) for event in case.told)


def test_whoever_answers_what_was_answered_elsewhere_has_it_from_then_on() -> None:
    case = does(answered_elsewhere(), "reply", agent="bo")
    assert case.ticket.assignee_id == "bo"
    assert case.one(wire.TicketStatusChanged).agent_id == "bo"
    assert (
        does(case, "solve", "09:20", agent="eve").one(wire.CommandRefused).reason == "not_assignee"
    )


def test_nobody_is_preferred_for_a_ticket_that_only_somebody_elsewhere_has_answered() -> None:
    case = answered_elsewhere().hears(message("m2", occurred_at="2026-11-24T09:30:00Z"), "09:30")
    assert case.one(routing.WorkRequested).preferred_agent_id is None
    case = does(answered_elsewhere(), "reassign", to_agent_id=None, queue="service")
    assert case.one(wire.CommandRefused).reason == "already_there"
    assert case.ticket.last_agent_id is None


def test_the_owner_stays_responsible_and_may_act_while_a_colleague_does_a_part() -> None:
    case = does(held(), "delegate").held_by("bo", "09:15")
    assert does(case, "reply", "09:20", agent="ada").one(wire.TicketAnswered).agent_id == "ada"
    case = does(held(), "delegate").held_by("bo", "09:15")
    does(case, "solve", "09:20", agent="bo")
    assert case.ticket.last_agent_id == "ada"
    assert case.hears(message("m2"), "10:00").one(routing.WorkRequested).preferred_agent_id == "ada"


def test_a_delegated_part_is_given_back_to_its_owner_through_assignment() -> None:
    case = does(held(), "delegate").held_by("bo", "09:15")
    does(case, "return", "09:20", agent="bo")
    told = case.one(wire.TicketReturned)
    assert (told.what, told.agent_id, told.to_agent_id) == ("delegation", "bo", "ada")
    assert case.one(routing.WorkRequested).preferred_agent_id == "ada"
    assert case.ticket.delegation is None
    case.held_by("ada", "09:21")
    assert does(case, "return", "09:22").one(wire.CommandRefused).reason == "nothing_to_return"


def test_a_part_is_delegated_once_and_not_to_oneself() -> None:
    case = does(held(), "delegate", to_agent_id="ada")
    assert case.one(wire.CommandRefused).reason == "already_there"
    case = does(held(), "delegate").held_by("bo", "09:15")
    does(case, "delegate", "09:20", agent="bo", to_agent_id="cy")
    assert case.one(wire.CommandRefused).reason == "already_delegated"


@pytest.mark.parametrize(
    ("given", "sent"), [("ask", ""), ("direct", "direct"), ("forced", "forced")]
)
def test_a_transfer_says_how_firmly_and_assignment_does_it(given: str, sent: str) -> None:
    work = does(held(), "reassign", transfer=given).one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.transfer) == ("bo", sent)


def test_a_firm_transfer_needs_somebody_to_go_to() -> None:
    case = held().commands(commands.ReassignTicket, "09:10", queue="labs", transfer="forced")
    assert case.one(wire.CommandRefused).reason == "agent_missing"


def test_a_transfer_that_assignment_refuses_becomes_a_note_and_the_ticket_waits() -> None:
    case = does(held(), "reassign", transfer="direct")
    case.routed(routing.TransferRefused, "09:11", agent_id="bo", rules=["capacity", "absent"])
    assert "bo (capacity, absent)" in case.one(wire.TicketNoteAdded).text
    assert case.status == "queued"


def test_an_assignment_above_somebodys_capacity_says_so() -> None:
    case = does(held(), "reassign", transfer="forced")
    case.routed(
        routing.TicketAssigned,
        "09:11",
        agent_id="bo",
        how="forced",
        overfull=True,
        reservation_id="r",
    )
    moved = case.one(wire.TicketStatusChanged)
    assert (moved.reason, moved.overfull, moved.agent_id) == ("forced", True, "bo")


# ----------------------------------------------------------------------------------------------- spam


def test_spam_asks_for_nobody_and_what_its_sender_writes_is_counted_and_set_aside() -> None:
    case = does(held(), "spam", "09:05")
    assert case.types() == ["work.withdrawn.v1", "ticket.status_changed.v1"]
    case.hears(message("m2"), "09:30")
    assert case.one(wire.MessageNotTicketed).reason == "spam"
    assert [row.outcome for row in case.last.messages] == ["spam"]  # type: ignore[union-attr]


def test_spam_can_be_restored_and_waits_at_its_age() -> None:
    case = does(does(held(), "spam", "09:05"), "restore", "10:00")
    assert case.one(wire.TicketStatusChanged).reason == "restored"
    work = case.one(routing.WorkRequested)
    assert (work.entered_at, work.preferred_agent_id) == (at("09:00"), "ada")


def test_what_was_answered_before_it_was_called_spam_owes_nothing_when_it_is_restored() -> None:
    case = does(does(does(held(), "reply", "09:05"), "spam", "09:10"), "restore", "10:00")
    assert (case.ticket.waiting_since, case.ticket.unanswered) == (None, 0)
    assert case.one(routing.WorkRequested).entered_at == at("10:00")
    case = does(does(held(), "spam", "09:05"), "restore", "10:00")
    assert case.ticket.waiting_since is not None
    assert case.ticket.unanswered == 1


def test_spam_closes_when_a_solved_ticket_would_and_a_late_message_is_a_new_case() -> None:
    case = does(held(), "spam", "09:05")
    assert timers(case.state) == {"close": at("2026-11-27T09:05:00")}
    case.hears(message("m2"), "2026-11-27T09:05:00")
    assert case.types()[:2] == ["ticket.closed.v1", "ticket.opened.v1"]


# ------------------------------------------------------------------------------- priority, the queue


def test_a_priority_by_command_moves_the_request_in_its_queue() -> None:
    case = does(Case().hears(message(), "09:00"), "prioritise")
    told = case.one(wire.TicketPrioritised)
    assert (told.before, told.priority, told.agent_id, told.by_rule) == (3, 1, "ada", None)
    work = case.one(routing.WorkRequested)
    assert (work.work_id, work.priority) == (case.ticket.work_id, 1)
    assert does(case, "prioritise").one(wire.CommandRefused).reason == "priority_unchanged"


def started(case: Case, target: str, due: str, now: str = "09:00:30") -> Case:
    event = sla.TargetStarted.model_validate(
        sla.TargetStarted.EXAMPLE
        | {"ticket_id": case.ticket.ticket_id, "conversation_id": "c1", "target": target}
        | {"due_at": at(due)}
    )
    return case.hears(event, now)


def test_a_deadline_gives_a_waiting_ticket_its_place_once() -> None:
    case = started(Case().hears(message(), "09:00"), "first_response", "13:00")
    work = case.one(routing.WorkRequested)
    assert (work.due_at, work.reason, work.work_id) == (
        at("13:00"),
        "due_changed",
        case.ticket.work_id,
    )
    assert started(case, "first_response", "13:00").told == ()


def test_a_ticket_that_is_offered_or_held_takes_its_place_when_it_waits_again() -> None:
    case = Case().hears(message(), "09:00").routed(routing.OfferMade, "09:00", agent_id="ada")
    assert started(case, "first_response", "13:00").told == ()
    case.routed(routing.TicketRequeued, "09:01", agent_id="ada", reason="offer_expired")
    assert case.one(routing.WorkRequested).due_at == at("13:00")


def test_a_resolution_decides_no_place() -> None:
    case = started(Case().hears(message(), "09:00"), "resolution", "13:00")
    assert case.told == ()


def test_a_met_response_is_no_deadline_any_more() -> None:
    case = started(held(), "first_response", "13:00")
    case.clocked(sla.TargetMet, "09:20", "first_response")
    assert case.ticket.due_at is None
    assert does(case, "reassign", "09:30").one(routing.WorkRequested).due_at is None


# ------------------------------------------------------------------------------------ what must hold

STEPS = st.one_of(
    st.tuples(
        st.just("command"), st.sampled_from(sorted(COMMANDS)), st.sampled_from(["ada", "bo"])
    ),
    st.tuples(st.just("message"), st.booleans(), st.just("")),
    st.tuples(
        st.just("routing"),
        st.sampled_from(["offer", "assign", "requeue", "exhaust", "refuse", "overload"]),
        st.sampled_from(["ada", "bo"]),
    ),
    st.tuples(
        st.just("clock"),
        st.sampled_from(["started", "met", "risk", "breach"]),
        st.sampled_from(["first_response", "next_response", "resolution"]),
    ),
    st.tuples(st.just("answer"), st.booleans(), st.just("")),
    st.tuples(st.just("timer"), st.sampled_from(["close", "wake", "rise"]), st.just("")),
    st.tuples(st.just("carried"), st.just(""), st.just("")),
    st.tuples(st.just("asked"), st.just(""), st.just("")),
    st.tuples(st.just("undone"), st.just(""), st.just("")),
)
FULL = (ROUTING_YAML + "assignment: {overload: {service: {at: 100, clear_below: 80}}}\n").replace(
    "  on_exhausted: true\n",
    "  on_exhausted: true\n"
    "  on_reopens: {at: 2, escalate: true}\n"
    "  on_unanswered: {messages: 3, raise_priority_to: 2}\n"
    "  on_overload: {service: {escalate: true}}\n"
    "  after: {hours: 3, escalate: true}\n"
    "  on_call: {urgent: {priorities: [1], queue: labs}}\n",
)
EVENTS: dict[str, type[routing.RoutingEvent]] = {
    "offer": routing.OfferMade,
    "assign": routing.TicketAssigned,
    "requeue": routing.TicketRequeued,
    "exhaust": routing.AssignmentExhausted,
    "refuse": routing.TransferRefused,
    "overload": routing.QueueOverloaded,
}
CLOCKS: dict[str, type[sla.SlaEvent]] = {
    "started": sla.TargetStarted,
    "met": sla.TargetMet,
    "risk": sla.TargetAtRisk,
    "breach": sla.TargetBreached,
}


class Life(Case):
    """A case that is checked after every event, and is told things at ever later instants."""

    def __init__(self) -> None:
        super().__init__(read_policy(FULL))
        self.minutes = 0
        self.live: set[str] = set()
        self.versions: dict[str, int] = {}
        self.merge_ids: list[str] = []

    def step(self, kind: str, what: Any, who: str) -> None:
        self.minutes += 17
        self.told = ()
        now = f"2026-11-{24 + self.minutes // 1440:02d}T{self.minutes // 60 % 24:02d}:{self.minutes % 60:02d}:00"
        if kind == "message" or self.state is None or self.state.ticket is None:
            is_automatic = kind == "message" and bool(what)
            self.hears(message(f"m{self.minutes}", is_automatic=is_automatic), now)
        elif kind == "command":
            fields: dict[str, Any] = {}
            if what in ("hold", "snooze"):
                fields = {"until": at(now) + timedelta(minutes=40)}
            does(self, what, now, agent=who, **fields)
        elif kind == "routing":
            fields = {"reason": "offer_expired"} if what == "requeue" else {}
            if what == "overload":
                fields = {"queue": self.ticket.queue}
            self.routed(EVENTS[what], now, agent_id=who, reservation_id="r", **fields)
        elif kind == "clock":
            self.clocked(CLOCKS[what], now, who)
        elif kind == "answer" and self.ticket.merging is not None:
            answer_at = answer(self, "" if what else "target_closed")
            assert answer_at.ticket.merging is None
        elif kind == "timer":
            due = timers(self.state).get(what)
            if due is not None and due > at(now):
                return
            self.hears(decide.TIMERS[what], now)
        elif kind == "carried":
            event = merging.MessageCarried(
                conversation_id="c1",
                ticket_id=self.ticket.ticket_id,
                from_conversation_id="c9",
                from_ticket_id="t9",
                message=message(f"x{self.minutes}", conversation_id="c9"),
            )
            self.hears(event, now)
        elif kind == "asked":
            asked = merging.MergeAsked.model_validate(
                merging.MergeAsked.EXAMPLE
                | {"conversation_id": "c1", "ticket_id": self.ticket.ticket_id}
                | {
                    "merge_id": f"g{self.minutes}",
                    "from_conversation_id": "c9",
                    "customer_id": "k1",
                }
            )
            self.merge_ids.append(asked.merge_id)
            self.hears(asked, now)
        elif kind == "undone" and self.merge_ids:
            self.hears(
                merging.MergeUndone(
                    conversation_id="c1",
                    ticket_id=self.ticket.ticket_id,
                    merge_id=self.merge_ids.pop(),
                    agent_id=who or "ada",
                    from_conversation_id="c9",
                    from_ticket_id="t9",
                ),
                now,
            )
        self.check()

    def check(self) -> None:
        for event in self.told:
            if isinstance(event, wire.TicketEvent):
                before = self.versions.get(event.ticket_id, 0)
                assert event.version == before + 1, "versions have no gap"
                self.versions[event.ticket_id] = event.version
            if isinstance(event, routing.WorkRequested):
                self.live.add(event.work_id)
            if isinstance(event, routing.WorkWithdrawn):
                self.live.discard(event.work_id)
        if self.state is None or self.state.ticket is None:
            assert not self.live
            return
        ticket = self.ticket
        assert ticket.version == self.versions[ticket.ticket_id]
        waits = isinstance(ticket.standing, Queued | Offered | Assigned)
        assert self.live == ({ticket.work_id} if waits else set()), "one live request, or none"
        assert 1 <= ticket.priority <= 4
        assert not (isinstance(ticket.standing, Merged) and (ticket.merging or ticket.delegation))
        assert ticket.rise_at is None or (ticket.desk == "service" and not ticket.has_aged)
        told_unknown = [e for e in self.last.messages if getattr(e, "outcome", "x") == ""]
        assert not told_unknown


@settings(max_examples=120, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=40))
def test_whatever_happens_a_ticket_has_one_live_request_or_none_and_its_versions_no_gap(
    steps: list[tuple[str, Any, str]],
) -> None:
    life = Life()
    life.hears(message("m0"), "2026-11-24T00:00:00")
    life.check()
    for step in steps:
        life.step(*step)


def test_a_timer_that_is_not_due_does_nothing_in_any_standing() -> None:
    for name in STANDINGS[1:-1]:
        case = standing(name)
        for timer in (CloseDue(), WakeDue(), RiseDue()):
            assert case.hears(timer, "09:11").last.ignored == "nothing_due"


def test_statuses_of_the_contract_are_those_that_a_ticket_can_have() -> None:
    shown = {standing(name).status for name in STANDINGS if name not in ("unknown", "closed")}
    assert shown | {"closed"} == set(wire.TicketStatus.__args__)  # type: ignore[attr-defined]
    assert all(re.fullmatch(r"[a-z_]+", name) for name in shown)


def test_an_escalated_part_comes_back_to_the_owner_and_not_to_whoever_did_a_part() -> None:
    case = does(does(held(), "delegate").held_by("bo", "09:15"), "escalate", "09:20", agent="bo")
    case.held_by("nils", "09:21")
    does(case, "return", "09:30", agent="nils")
    assert case.one(wire.TicketReturned).to_agent_id == "ada"
