"""How much is too much: channels that come on top of others, queues that are too long, lenders whose own targets are near."""

from typing import Any

import pytest

from schemas import routing
from services.router import metrics
from services.router.core.assignment.terms import Guard, Lending, Overload
from services.router.core.policy.policy_model import OffersModel
from tests.unit.router.stories import Desk, at

SLOW = OffersModel(seconds=86_400, max_declines=3)
CALLS: dict[str, Any] = {"interrupted_by": {"email": ("voice",)}}


def _rules(desk: Desk) -> tuple[str, ...]:
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    return record.excluded[0].rules


# --------------------------------------------------------------------------------- what may come on top


def test_mail_in_hand_does_not_block_a_call_and_a_call_blocks_mail() -> None:
    desk = Desk(SLOW, **CALLS).agent("ada", capacity=100)
    for n in range(5):
        desk.asks(f"m{n}", f"09:00:0{n}", cost=20, channel="email").accepts(f"m{n}", "09:00:10")
    assert _rules(desk.asks("m5", "09:01", cost=20, channel="email")) == ("capacity",)
    desk.asks("call", "09:02", cost=100, channel="voice")
    assert desk.offered_to() == [("call", "ada")]
    assert desk.domain.agents["ada"].load == 100
    desk.accepts("call", "09:02:01").withdraws("m0", "09:03")
    # A mail less, and still no room for the next: the call takes all of it.
    assert desk.offered_to() == []
    desk.restart().withdraws("call", "09:10")
    assert desk.offered_to() == [("m5", "ada")]
    assert desk.domain.agents["ada"].load == 100


def test_a_channel_that_is_not_named_interrupts_nothing() -> None:
    desk = Desk(SLOW, **CALLS).agent("ada", capacity=100)
    desk.asks("m", "09:00", cost=20, channel="email").accepts("m", "09:00:01")
    assert _rules(desk.asks("chat", "09:01", cost=100, channel="chat")) == ("capacity",)


def test_r10_two_calls_do_not_fit_whatever_mail_lies_under_them() -> None:
    desk = Desk(SLOW, **CALLS).agent("ada", capacity=100)
    desk.asks("m", "09:00", cost=100, channel="email").accepts("m", "09:00:01")
    desk.asks("c1", "09:01", cost=60, channel="voice").accepts("c1", "09:01:01")
    assert _rules(desk.asks("c2", "09:02", cost=60, channel="voice")) == ("capacity",)


def test_a_lowered_capacity_counts_the_mail_that_lies_under_the_call() -> None:
    desk = Desk(SLOW, **CALLS).agent("ada", capacity=100)
    desk.asks("m", "09:00", cost=100, channel="email").accepts("m", "09:00:01")
    desk.asks("call", "09:01", cost=60, channel="voice").accepts("call", "09:01:01")
    desk.agent("ada", "09:02", capacity=10, presence=None)
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.ceiling) == (60, 100)
    desk.restart().withdraws("call", "09:03")
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.ceiling) == (100, 100)
    desk.withdraws("m", "09:04")
    assert (agent.load, agent.ceiling) == (0, 10)


def test_other_channels_that_may_interrupt_are_taken_up_with_the_policy() -> None:
    desk = Desk(SLOW, **CALLS).agent("ada", capacity=100)
    desk.asks("m", "09:00", cost=100, channel="email").accepts("m", "09:00:01")
    desk.asks("call", "09:01", cost=100, channel="voice").accepts("call", "09:01:01")
    desk.more = {}
    desk.tick("09:02")
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.ceiling) == (200, 200)
    desk.more = CALLS
    desk.restart().tick("09:03")
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.capacity) == (100, 100)


def test_a_forced_transfer_under_a_call_is_overfull_once_the_call_has_ended() -> None:
    desk = Desk(SLOW, **CALLS).agent("ada", capacity=100)
    desk.asks("m", "09:00", cost=100, channel="email").accepts("m", "09:00:01")
    desk.asks("call", "09:01", cost=100, channel="voice").accepts("call", "09:01:01")
    desk.asks("n", "09:02", cost=20, channel="email", preferred_agent_id="ada", transfer="forced")
    assert desk.one(routing.TicketAssigned).overfull
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.ceiling) == (100, 120)
    desk.withdraws("call", "09:03")
    assert (agent.load, agent.ceiling) == (120, 120)


def test_r9_work_that_comes_back_goes_through_the_same_check() -> None:
    desk = Desk(SLOW, **CALLS).agent("ada", capacity=100)
    desk.asks("m", "09:00", cost=100, channel="email").accepts("m", "09:00:01")
    desk.withdraws("m", "09:01", "pending").asks("call", "09:02", cost=100, channel="voice")
    desk.accepts("call", "09:02:01")
    desk.asks("m", "09:03", work_id="w-m2", cost=100, channel="email", preferred_agent_id="ada")
    assert _rules(desk) == ("capacity",)


def test_r17_whoever_the_roster_does_not_know_takes_nothing() -> None:
    desk = Desk(SLOW).presence("ada", "available", "09:00")
    assert desk.ignored == "agent_unknown"
    assert not desk.asks("t", "09:01").one(routing.TicketQueued).is_matchable


# ---------------------------------------------------------------------------------------- overload


def _overloads(desk: Desk) -> list[tuple[str, int]]:
    return [(e.ticket_id, e.length) for e in desk.told if isinstance(e, routing.QueueOverloaded)]


def test_e3_load_acts_on_the_hundred_and_first_and_not_on_the_hundred_that_wait() -> None:
    desk = Desk(SLOW, overload={"service": Overload(100, 80)}).agent("ada", presence="away")
    for n in range(100):
        desk.asks(f"t{n:03}", f"09:{n // 60:02}:{n % 60:02}")
    assert not any(isinstance(e, routing.QueueOverloaded) for e in desk.everything)
    desk.asks("t100", "09:02")
    event = desk.one(routing.QueueOverloaded)
    assert (event.ticket_id, event.length, event.threshold) == ("t100", 101, 100)
    assert _overloads(desk.asks("t101", "09:02:01")) == [("t101", 102)]


def _short(n: int, **more: Any) -> Desk:
    desk = Desk(SLOW, overload={"service": Overload(2, 1)}, **more).agent("ada", presence="away")
    for name in "abcdefg"[:n]:
        desk.asks(name, "09:00")
    return desk


def test_e3_a_length_that_goes_up_and_down_by_one_says_it_once() -> None:
    desk = _short(3)
    assert _overloads(desk) == [("c", 3)]
    for n, name in enumerate("xyz"):
        desk.withdraws("c" if n == 0 else "xyz"[n - 1], f"09:01:0{n}")
        assert _overloads(desk.restart().asks(name, f"09:02:0{n}")) == []


def test_e3_it_is_said_again_once_the_queue_had_been_short() -> None:
    desk = _short(3).withdraws("a", "09:01").withdraws("b", "09:01").asks("d", "09:02")
    assert desk.domain.switches.overloaded == {"service"}
    desk.withdraws("c", "09:03").withdraws("d", "09:03")
    assert desk.domain.switches.overloaded == set()
    desk.asks("e", "09:04").asks("f", "09:04").asks("g", "09:04")
    assert _overloads(desk) == [("g", 3)]


def test_a_ticket_that_goes_back_to_an_overlong_queue_is_not_told_again() -> None:
    desk = _short(3).presence("ada", "available", "09:01").presence("ada", "away", "09:02")
    assert [type(e) for e in desk.told] == [routing.TicketRequeued] * 3


def test_tickets_that_nobody_can_ever_take_make_no_queue_too_long() -> None:
    desk = _short(2)
    french = {"skills": [{"skill": "french"}]}
    assert _overloads(desk.asks("x", "09:01", requirement=french)) == []
    assert desk.domain.switches.overloaded == set()


def test_a_ticket_that_is_taken_at_once_makes_no_queue_too_long() -> None:
    desk = _short(2).agent("nils", "09:01", languages={"tr": 9})
    assert _overloads(desk.asks("x", "09:02", requirement={"language": "tr"})) == []


# -------------------------------------------------------------------------------- lenders at risk, R23


def _lender(**guard: Any) -> Desk:
    """Technical support helps the front line; nobody of the front line is there."""
    desk = Desk(
        SLOW,
        lending={"service": Lending(1, 0, ("technical",))},
        guards={"technical": Guard(None, 0, **guard)},
    )
    return desk.agent("nils", queues=("technical",), capacity=10, presence="away")


def test_r23_a_lender_stops_as_soon_as_its_own_target_is_near() -> None:
    desk = _lender(risk=600.0, clear=900.0)
    desk.asks("own", "09:00", queue="technical", due_at=at("10:00"), cost=20)
    desk.agent("ole", "09:00", queues=("technical",), capacity=20, presence="away")
    desk.asks("a", "09:10").asks("b", "09:11")
    assert desk.domain.next_due() == at("09:50")
    desk.tick("09:49:59.999")
    assert desk.domain.switches.at_risk == set()
    desk.restart().tick("09:50:00")
    assert desk.domain.switches.at_risk == {"technical"}
    desk.presence("nils", "available", "09:51")
    assert desk.offered_to() == []
    record = desk.asks("c", "09:52").one(routing.TicketQueued).record
    assert record is not None
    assert record.guarded == ("technical",)
    assert ("nils", ("lender_guard",)) in [(e.agent_id, e.rules) for e in record.excluded]


def test_r23_and_begins_again_when_the_targets_that_are_left_are_far_enough() -> None:
    desk = _lender(risk=600.0, clear=900.0)
    turkish = {"language": "tr"}
    desk.agent("ole", "08:00", queues=("technical",), languages={"tr": 5}, presence="away")
    desk.asks("own", "09:00", queue="technical", due_at=at("09:05"), requirement=turkish)
    later: dict[str, Any] = {"queue": "technical", "requirement": turkish}
    desk.asks("next", "09:00", due_at=at("09:14:59"), **later)
    desk.asks("a", "09:01").presence("nils", "available", "09:01")
    assert desk.domain.switches.guarding == {"technical"}
    desk.withdraws("own", "09:01")
    # Fourteen minutes are more than the ten that begin it and fewer than the fifteen that end it.
    assert (desk.offered_to(), desk.domain.switches.guarding) == ([], {"technical"})
    desk.asks("next", "09:00", due_at=at("12:00"), **later)
    assert desk.offered_to() == [("a", "nils")]
    assert desk.domain.switches.guarding == set()


def test_r23_a_target_of_work_that_nobody_can_ever_take_guards_nobody() -> None:
    desk = _lender(risk=600.0, clear=600.0)
    french = {"skills": [{"skill": "french"}]}
    desk.asks("x", "09:00", queue="technical", due_at=at("09:05"), requirement=french)
    desk.asks("a", "09:01").presence("nils", "available", "09:01")
    assert desk.offered_to() == [("a", "nils")]
    # Somebody learns it, so its target counts from now on.
    desk.agent("ole", "09:02", queues=("technical",), skills={"french": 5}, presence="away")
    assert desk.domain.switches.at_risk == {"technical"}


def test_both_guards_stand_on_their_own() -> None:
    desk = Desk(
        SLOW,
        lending={"service": Lending(1, 0, ("technical",))},
        guards={"technical": Guard(1, 0, 600.0, 600.0)},
    ).agent("nils", queues=("technical",), presence="away")
    desk.asks("own", "09:00", queue="technical", due_at=at("09:05"))
    assert (desk.domain.switches.crowded, desk.domain.switches.at_risk) == (
        {"technical"},
        {"technical"},
    )
    desk.asks("own", "09:00", queue="technical", due_at=at("12:00"))
    assert (desk.domain.switches.at_risk, desk.domain.switches.guarding) == (set(), {"technical"})
    desk.withdraws("own", "09:01")
    assert desk.domain.switches.guarding == set()


# --------------------------------------------------------------------------------------- R3, the alarm


def test_r3_work_that_nobody_can_ever_take_is_told_and_counted_in_the_decision_of_its_entry() -> (
    None
):
    desk = Desk(SLOW).agent("ada")
    before = metrics.UNMATCHABLE._value.get()
    desk.asks("t", "09:00", requirement={"skills": [{"skill": "french"}]})
    assert not desk.one(routing.TicketQueued).is_matchable
    metrics.count_routing_events(desk.told)
    assert metrics.UNMATCHABLE._value.get() == before + 1
    assert desk.domain.n_unmatchable() == {"service": 1}
    desk.agent("bo", "09:01", skills={"french": 3}, presence=None)
    assert desk.one(routing.TicketQueued).is_matchable
    assert desk.domain.n_unmatchable() == {"service": 0}


@pytest.mark.parametrize("n", [0, 1, 7])
def test_the_gauge_shows_how_many_nobody_can_ever_take_by_queue(n: int) -> None:
    desk = Desk(SLOW).agent("ada", presence="away").asks("can", "09:00")
    for m in range(n):
        desk.asks(f"t{m}", "09:00", requirement={"skills": [{"skill": "french"}]})
    metrics.show_domain("main", desk.domain.n_waiting(), 0, desk.domain.n_unmatchable())
    shown = metrics.UNMATCHABLE_NOW.labels("main", "service")._value.get()
    assert shown == n
