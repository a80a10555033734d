"""Who is there: programs that fall silent, times of duty, and what becomes of offers and of work in hand."""

from datetime import date
from typing import Any

import pytest

from hours.calendar import Calendar
from schemas import roster, routing
from services.router.core.assignment.capacity import Agent, Shift
from services.router.core.assignment.shifts import next_turn, on_duty
from services.router.core.policy.policy_model import OffersModel
from tests.unit.router.stories import Desk, at

SLOW = OffersModel(seconds=3600, max_declines=3)
BEATS: dict[str, Any] = {"heartbeat": 20.0}
TUESDAY = date(2026, 11, 24)


def presence_of(desk: Desk, agent_id: str = "ada") -> str:
    return desk.domain.agents[agent_id].presence


def _hours(*intervals: tuple[int, int]) -> Calendar:
    """A calendar of that Tuesday alone, in hours after midnight."""
    seconds = tuple((begin * 3600, end * 3600) for begin, end in intervals)
    return Calendar("UTC", ((),) * 7, dates=((TUESDAY, seconds),))


SHOP: dict[str, Any] = {"calendars": {"shop": _hours((9, 12), (13, 18))}}


def _shift(begin: str, end: str) -> roster.Shift:
    return roster.Shift(starts_at=at(begin), ends_at=at(end))


# -------------------------------------------------------------------------------------- heartbeats


def test_a_program_that_falls_silent_returns_its_offers_and_keeps_what_was_accepted() -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").beats("ada", "09:00:00")
    desk.asks("mine", "09:00:00").accepts("mine", "09:00:00").asks("t", "09:00:01")
    desk.tick("09:00:19.999")
    assert desk.told == ()
    desk.tick("09:00:20")
    requeued = desk.one(routing.TicketRequeued)
    assert (requeued.ticket_id, requeued.reason, requeued.declines) == ("t", "agent_vanished", 0)
    assert presence_of(desk) == "away"
    assert desk.domain.works["w-mine"].status == "assigned"


def test_silence_is_noticed_at_the_next_quarter_of_the_period() -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").beats("ada", "09:00:00.001")
    assert desk.domain.next_due() == at("09:00:25")
    desk.tick("09:00:24.999").tick("09:00:25")
    assert presence_of(desk) == "away"


def test_every_sign_of_life_begins_the_silence_anew() -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").beats("ada", "09:00:00").asks("t", "09:00:05")
    desk.beats("ada", "09:00:15")
    assert desk.domain.next_due() == at("09:00:35")
    desk.accepts("t", "09:00:30")
    assert desk.domain.next_due() == at("09:00:50")
    desk.presence("ada", "available", "09:00:45")
    assert desk.ignored == "presence_unchanged"
    assert desk.domain.next_due() == at("09:01:05")


def test_whoever_never_sent_a_heartbeat_is_believed() -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").asks("t", "09:00").accepts("t", "09:00:01")
    desk.tick("17:00")
    assert presence_of(desk) == "available"


def test_a_heartbeat_brings_back_whoever_vanished_and_what_waits_is_theirs() -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").beats("ada", "09:00").tick("09:00:20")
    desk.asks("t", "09:01")
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert record.excluded[0].rules == ("absent",)
    desk.restart().beats("ada", "09:02")
    assert desk.offered_to() == [("t", "ada")]
    assert desk.domain.agents["ada"].vanished_at is None


@pytest.mark.parametrize("presence", ["away", "offline"])
def test_a_heartbeat_makes_nobody_available_who_said_that_they_are_not(presence: str) -> None:
    desk = Desk(SLOW, **BEATS).agent("ada", presence=presence).beats("ada", "09:00")
    assert presence_of(desk) == presence
    assert desk.ignored == ("agent_offline" if presence == "offline" else None)


def test_going_away_by_word_after_vanishing_is_no_vanishing_any_more() -> None:
    desk = Desk(SLOW, **BEATS, return_assigned=60.0).agent("ada").beats("ada", "09:00")
    desk.asks("mine", "09:00").accepts("mine", "09:00").tick("09:00:20")
    desk.presence("ada", "away", "09:00:30").tick("10:00")
    assert desk.domain.works["w-mine"].status == "assigned"
    assert presence_of(desk.beats("ada", "10:01")) == "away"


def test_what_the_vanished_had_accepted_waits_again_after_a_while_if_the_policy_says_so() -> None:
    desk = Desk(SLOW, **BEATS, return_assigned=60.0).agent("ada").beats("ada", "09:00")
    desk.asks("mine", "09:00").accepts("mine", "09:00").tick("09:00:20")
    desk.agent("bo", "09:00:30").restart().tick("09:01:19.999")
    assert desk.told == ()
    desk.tick("09:01:20")
    assert desk.one(routing.TicketRequeued).reason == "agent_vanished"
    assert desk.offered_to() == [("mine", "bo")]


def test_whoever_comes_back_in_time_keeps_what_they_had_accepted() -> None:
    desk = Desk(SLOW, **BEATS, return_assigned=60.0).agent("ada").beats("ada", "09:00")
    desk.asks("mine", "09:00").accepts("mine", "09:00").tick("09:00:20").beats("ada", "09:01:19")
    desk.tick("09:01:20")
    assert desk.domain.works["w-mine"].agent_id == "ada"


def test_a_restart_gives_everybody_a_whole_period_to_be_heard() -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").beats("ada", "09:00").restart()
    desk.tick("09:30:00")
    assert presence_of(desk) == "available"
    assert desk.domain.next_due() == at("09:30:20")
    desk.tick("09:30:20")
    assert presence_of(desk) == "away"


@pytest.mark.parametrize(
    ("seen", "presence"), [("09:00:39.999", "away"), ("09:00:40", "available")]
)
def test_silence_that_is_seen_a_period_late_is_the_routers_own(seen: str, presence: str) -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").beats("ada", "09:00").tick(seen)
    assert presence_of(desk) == presence


def test_heartbeats_mean_nothing_where_the_policy_asks_for_none() -> None:
    desk = Desk(SLOW).agent("ada").beats("ada", "09:00")
    assert (desk.ignored, desk.domain.next_due()) == ("heartbeats_unused", None)
    assert desk.beats("eve", "09:00").ignored == "agent_unknown"


def test_a_thousand_heartbeats_change_no_record_and_seldom_what_is_due_next() -> None:
    desk = Desk(SLOW, **BEATS).agent("ada").beats("ada", "09:00")
    desk.domain.clear_marks()
    seen = set()
    for n in range(1_000):
        desk.beats("ada", f"09:{n // 60:02}:{n % 60:02}")
        seen.add(desk.domain.next_due())
    assert not desk.domain.is_changed()
    assert len(seen) <= 1_000 / 5 + 1


# ------------------------------------------------------------------------------------------ shifts


def test_r16_whoever_is_off_duty_is_offered_nothing_and_the_record_says_why() -> None:
    desk = Desk(SLOW, **SHOP).agent("ada", "08:00", calendar="shop").asks("t", "08:59:59")
    queued = desk.one(routing.TicketQueued)
    assert queued.is_matchable
    assert queued.record is not None
    assert queued.record.excluded[0].rules == ("off_shift",)


def test_r8_the_start_of_a_shift_offers_the_oldest_that_waits() -> None:
    desk = Desk(SLOW, **SHOP).agent("ada", "08:00", calendar="shop", capacity=10)
    desk.asks("old", "08:10").asks("new", "08:20")
    assert desk.domain.next_due() == at("09:00")
    desk.restart().tick("08:59:59.999")
    assert desk.told == ()
    desk.tick("09:00")
    assert desk.offered_to() == [("old", "ada")]


def test_as_a_shift_ends_offers_return_and_what_was_accepted_stays() -> None:
    desk = Desk(SLOW, **SHOP).agent("ada", "10:00", calendar="shop")
    desk.asks("mine", "11:00").accepts("mine", "11:01").asks("t", "11:59")
    desk.tick("12:00")
    requeued = desk.one(routing.TicketRequeued)
    assert (requeued.ticket_id, requeued.reason) == ("t", "shift_ended")
    assert desk.domain.works["w-mine"].status == "assigned"
    desk.tick("13:00")
    assert desk.offered_to() == [("t", "ada")]


def test_a_calendar_that_nobody_knows_keeps_work_away() -> None:
    desk = Desk(SLOW, **SHOP).agent("ada", "10:00", calendar="attic").asks("t", "10:00")
    assert desk.types() == ["queued"]


def test_shifts_of_ones_own_stand_beside_the_calendar() -> None:
    desk = Desk(SLOW, **SHOP)
    desk.agent("ada", "10:00", calendar="shop", shifts=(_shift("12:00", "13:00"),))
    assert desk.domain.next_due() == at("18:00")
    assert desk.asks("t", "12:30").offered_to() == [("t", "ada")]


def test_a_changed_calendar_is_live_at_the_next_event() -> None:
    desk = Desk(SLOW, **SHOP).agent("ada", "10:00", calendar="shop").asks("t", "10:00")
    desk.more = {"calendars": {"shop": _hours((14, 18))}}
    desk.tick("10:30")
    assert desk.one(routing.TicketRequeued).reason == "shift_ended"
    assert desk.domain.next_due() == at("14:00")


def test_a_calendar_that_changed_while_nobody_ran_is_live_too() -> None:
    desk = Desk(SLOW, **SHOP).agent("ada", "10:00", calendar="shop").restart()
    desk.more = {"calendars": {"shop": _hours((14, 18))}}
    assert desk.asks("t", "10:30").types() == ["queued"]


def test_fifty_people_whose_shift_begins_at_once_are_taken_in_slices() -> None:
    desk = Desk(SLOW, **SHOP)
    for n in range(50):
        desk.agent(f"a{n:02}", "08:00", calendar="shop", capacity=10)
    for n in range(10):
        desk.asks(f"t{n}", "08:30")
    told: list[tuple[str, str]] = []
    for _ in range(10):
        told += desk.tick("09:00").offered_to()
    assert len(told) == 10
    assert all(agent.on_shift for agent in desk.domain.agents.values())


@pytest.mark.parametrize(
    ("now", "is_on", "turns"),
    [
        ("08:59:59.999999", False, "09:00"),
        ("09:00", True, "12:00"),
        ("11:59:59.999999", True, "12:00"),
        ("12:00", False, "13:00"),
        ("17:59", True, "18:00"),
        ("18:00", False, None),
    ],
)
def test_duty_is_half_open(now: str, is_on: bool, turns: str | None) -> None:
    agent = Agent("ada", calendar="shop")
    assert on_duty(agent, at(now), SHOP["calendars"]) is is_on
    turn = next_turn(agent, at(now), SHOP["calendars"])
    assert turn == (None if turns is None else at(turns))


def test_shifts_that_meet_or_overlap_are_one() -> None:
    shifts = tuple(
        Shift(at(begin), at(end))
        for begin, end in (("09:00", "11:00"), ("10:00", "12:00"), ("12:00", "13:00"))
    )
    agent = Agent("ada", shifts=shifts)
    assert next_turn(agent, at("08:00"), {}) == at("09:00")
    assert next_turn(agent, at("09:00"), {}) == at("13:00")
    assert next_turn(agent, at("13:00"), {}) is None
    assert next_turn(Agent("bo", calendar="x"), at("09:00"), {"x": Calendar.always()}) is None
    assert on_duty(Agent("cy"), at("09:00"), {})


def test_presence_is_kept_over_the_end_of_a_shift_and_silence_over_night_is_away() -> None:
    desk = Desk(SLOW, **SHOP, **BEATS).agent("ada", "17:00", calendar="shop")
    desk.beats("ada", "17:59:50").tick("18:00")
    assert presence_of(desk) == "available"
    desk.tick("18:00:10")
    assert presence_of(desk) == "away"
