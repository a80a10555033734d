"""What agents promise a customer: given, replaced, kept, refused, and not forgotten while the ticket waits for its customer."""

from typing import Any

import pytest

from schemas import commands, customers, routing, sla
from schemas import tickets as wire
from schemas.merging import MergeAsked
from services.router.core.tickets import decide
from services.router.core.tickets.decide import timers
from tests.unit.router.stories import ROUTING_YAML, Case, at, message, read_policy

BY = "2026-11-24T15:00:00Z"


def held() -> Case:
    return Case().hears(message(), "09:00").held_by("ada")


def replies(case: Case, now: str = "09:10", **fields: Any) -> Case:
    return case.commands(
        commands.ReplyToCustomer,
        now,
        **{"text": "I write by three.", "next_update_by": BY} | fields,
    )


def promises(case: Case, now: str = "09:10", **fields: Any) -> Case:
    return case.commands(
        commands.PromiseCustomer, now, **{"what": "callback", "by": "2026-11-25T10:00:00Z"} | fields
    )


def runs(case: Case, now: str, target: str, due_at: str) -> Case:
    event = sla.TargetStarted.model_validate(
        sla.TargetStarted.EXAMPLE
        | {"ticket_id": case.ticket.ticket_id, "target": target, "due_at": due_at}
    )
    return case.hears(event, now)


def refusal(case: Case) -> str | None:
    return next((e.reason for e in case.told if isinstance(e, wire.CommandRefused)), None)


def test_n5_an_answer_says_by_when_the_customer_hears_again() -> None:
    case = replies(held())
    answered = case.one(wire.TicketAnswered)
    assert (answered.next_update_by, case.status) == (at("15:00"), "pending")


def test_an_answer_without_a_promise_promises_nothing() -> None:
    case = replies(held(), next_update_by=None)
    assert case.one(wire.TicketAnswered).next_update_by is None


def test_a_promise_is_told_with_its_window_and_moves_the_ticket_nowhere() -> None:
    case = promises(held(), not_before="2026-11-25T09:00:00Z", note="prefers the mobile number")
    told = case.one(wire.TicketPromised)
    assert case.types() == ["ticket.promised.v1"]
    assert (told.what, told.by, told.not_before, told.note, told.agent_id, told.command_id) == (
        "callback",
        at("2026-11-25T10:00:00"),
        at("2026-11-25T09:00:00"),
        "prefers the mobile number",
        "ada",
        "k1",
    )
    assert case.status == "assigned"


@pytest.mark.parametrize(
    ("by", "reason"),
    [
        ("2026-11-24T09:10:00Z", "promise_not_in_the_future"),
        ("2026-11-24T09:10:01Z", None),
        ("2027-02-22T09:10:00Z", None),
        ("2027-02-22T09:10:01Z", "promise_too_far"),
    ],
)
def test_what_is_promised_must_lie_ahead_and_not_too_far(by: str, reason: str | None) -> None:
    assert refusal(promises(held(), by=by)) == reason
    case = held()
    before = case.ticket
    assert refusal(replies(case, next_update_by=by)) == reason
    assert (case.ticket == before) == (reason is not None), "a refused answer does not go out"


@pytest.mark.parametrize("not_before", ["2026-11-25T10:00:00Z", "2026-11-25T11:00:00Z"])
def test_a_window_in_which_nobody_can_call_is_refused(not_before: str) -> None:
    assert refusal(promises(held(), not_before=not_before)) == "promise_window_empty"


def test_an_answer_that_solves_the_case_promises_no_further_one() -> None:
    assert refusal(replies(held(), solves=True)) == "promise_with_solution"


def test_a_promise_that_is_over_when_the_router_reads_it_is_refused_and_whoever_gave_it_hears_so() -> (
    None
):
    """Given at 09:10 for 09:30, read at 10:00: no clock can keep it, and an answer that says so must not go out."""
    case = held()
    command = commands.PromiseCustomer.model_validate(
        commands.PromiseCustomer.EXAMPLE
        | {"ticket_id": case.ticket.ticket_id, "by": "2026-11-24T09:30:00Z", "not_before": None}
    )
    decision = decide.decide(case.state, command, at("10:00"), case.policy, at("09:10"))
    (told,) = decision.events
    assert isinstance(told, wire.CommandRefused)
    assert told.reason == "promise_not_in_the_future"


def test_only_who_has_the_ticket_promises_and_anyone_while_it_is_nobodys() -> None:
    assert refusal(promises(held(), agent="eve")) == "not_assignee"
    assert refusal(promises(Case().hears(message(), "09:00"), agent="eve")) is None


def test_a_call_is_told_by_whoever_made_it() -> None:
    case = held().commands(
        commands.CallMade,
        "09:20",
        agent="eve",
        outcome="no_answer",
        occurred_at="2026-11-24T09:19:00Z",
    )
    told = case.one(wire.TicketCalled)
    assert (told.outcome, told.occurred_at, told.agent_id) == ("no_answer", at("09:19"), "eve")
    assert case.status == "assigned"


@pytest.mark.parametrize(("minute", "reason"), [(25, None), (26, "called_in_the_future")])
def test_a_call_from_the_future_is_refused_beyond_what_clocks_differ(
    minute: int, reason: str | None
) -> None:
    case = held().commands(
        commands.CallMade,
        "09:20",
        outcome="reached",
        occurred_at=f"2026-11-24T09:{minute}:00Z",
    )
    assert refusal(case) == reason


@pytest.mark.parametrize(
    ("occurred_at", "reason"),
    [
        ("2026-11-24T08:55:00Z", None),
        ("2026-11-24T08:54:59Z", "called_before_ticket"),
        ("0001-01-01T00:00:00+14:00", "called_before_ticket"),
    ],
)
def test_a_call_before_there_was_a_ticket_is_refused_beyond_what_clocks_differ(
    occurred_at: str, reason: str | None
) -> None:
    """Opened at 09:00. A date that a tool left empty must not reach the clocks either."""
    case = held().commands(commands.CallMade, "09:20", outcome="reached", occurred_at=occurred_at)
    assert refusal(case) == reason


@pytest.mark.parametrize(
    ("not_before", "reason"),
    [
        ("2026-11-23T09:20:00Z", None),
        ("2026-11-23T09:19:59Z", "promise_window_past"),
        ("0001-01-01T00:00:00+14:00", "promise_window_past"),
    ],
)
def test_a_time_for_a_call_that_began_more_than_a_day_ago_is_refused(
    not_before: str, reason: str | None
) -> None:
    case = held().commands(
        commands.PromiseCustomer,
        "09:20",
        what="callback",
        by="2026-11-24T12:00:00Z",
        not_before=not_before,
    )
    assert refusal(case) == reason


@pytest.mark.parametrize("target", ["periodic_update", "callback"])
def test_a_promise_at_risk_wakes_a_ticket_that_waits_for_its_customer(target: str) -> None:
    case = replies(held()).clocked(sla.TargetAtRisk, "14:30", target)
    moved = case.one(wire.TicketStatusChanged)
    work = case.one(routing.WorkRequested)
    assert (moved.before, moved.status, moved.reason) == ("pending", "queued", f"on_risk.{target}")
    assert (work.preferred_agent_id, work.entered_at) == ("ada", at("14:30"))
    assert work.transfer == ""


def test_what_the_customer_owes_an_answer_to_sleeps_on_though_a_response_clock_is_at_risk() -> None:
    case = replies(held()).clocked(sla.TargetAtRisk, "14:30", "resolution")
    assert case.last.ignored == "waits_for_customer"


def test_a_promise_wakes_nothing_where_the_policy_lets_tickets_sleep() -> None:
    policy = read_policy(f"{ROUTING_YAML}life_cycle: {{risk_wakes: false}}")
    case = replies(Case(policy).hears(message(), "09:00").held_by("ada"))
    case.clocked(sla.TargetAtRisk, "14:30", "periodic_update")
    assert (case.status, case.last.ignored) == ("pending", "no_rule")


@pytest.mark.parametrize("target", ["later_response", "periodic_update", "callback"])
def test_what_is_owed_gives_a_ticket_its_place(target: str) -> None:
    case = runs(Case().hears(message(), "09:00"), "09:01", target, BY)
    assert (case.ticket.due_at, case.one(routing.WorkRequested).due_at) == (
        at("15:00"),
        at("15:00"),
    )


@pytest.mark.parametrize("target", ["time_to_offer", "time_to_accept", "tier"])
def test_our_own_agreements_are_nobodys_place_in_the_queue(target: str) -> None:
    case = runs(Case().hears(message(), "09:00"), "09:01", target, BY)
    assert (case.last.ignored, case.ticket.due_at) == ("changes_no_ticket", None)


def test_t22_a_merge_lends_the_deadlines_of_promises_too() -> None:
    case = runs(held(), "09:01", "first_response", "2026-11-24T12:00:00Z")
    runs(case, "09:02", "callback", "2026-11-25T10:00:00Z")
    runs(case, "09:03", "periodic_update", BY)
    case.commands(commands.MergeTicket, "09:10", into_conversation_id="c2", into_ticket_id="t2")
    assert case.one(MergeAsked).dues == {
        "first_response": at("12:00"),
        "callback": at("2026-11-25T10:00:00"),
        "periodic_update": at("15:00"),
    }


# ------------------------------------------------------------------------------- tier and contract


def described(members: list[str], **fields: Any) -> customers.CustomerDescribed:
    return customers.CustomerDescribed.model_validate(
        customers.CustomerDescribed.EXAMPLE
        | {"conversation_id": "c1", "members": members, "tier": "gold", "contract": "premium"}
        | fields
    )


@pytest.mark.parametrize("status", ["assigned", "pending", "solved"])
def test_t18_an_open_ticket_tells_that_its_customer_is_described_anew(status: str) -> None:
    case = held()
    if status == "pending":
        replies(case)
    if status == "solved":
        case.commands(commands.SolveTicket, "09:10")
    customer_id = case.ticket.contact.customer_id
    case.hears(described(["somebody", customer_id]), "10:00")
    told = case.one(wire.TicketCustomerDescribed)
    assert (told.customer_id, told.tier, told.contract, told.at) == (
        customer_id,
        "gold",
        "premium",
        at("10:00"),
    )
    assert case.status == status


def test_a_description_of_somebody_else_in_the_conversation_changes_nothing() -> None:
    case = held()
    version = case.ticket.version
    case.hears(described(["somebody"]), "10:00")
    assert (case.last.ignored, case.ticket.version) == ("other_customer", version)


def test_a_promise_sets_no_timer_here_since_its_clock_is_elsewhere() -> None:
    assert timers(promises(held()).state) == timers(held().state)
