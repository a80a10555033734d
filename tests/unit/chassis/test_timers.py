"""Timers in memory: due when they are due, once, and only as they were set last."""

import random
from datetime import datetime, timedelta

from chassis.batch import Parcel, Task
from chassis.ledger import TIMER_PAGE, TimerMark, TimerRow
from chassis.pump import _has_more
from chassis.stage import Effect, EffectDone, EffectResult
from chassis.testing import at
from chassis.timers import DUE_MAX, HORIZON, LOADED_MAX, RELOAD, TimerHeap, window_end


def row(key: str, due_at: datetime, identity: int = 1, name: str = "due") -> TimerRow:
    return TimerRow(key, name, identity, due_at)


def heap(*rows: TimerRow, until: datetime | None = None) -> TimerHeap:
    made = TimerHeap()
    made.load(rows, TimerMark(until or at("10:00")))
    return made


def set_timer(timers: TimerHeap, one: TimerRow) -> None:
    timers.apply([((one.key, one.name), one)])


def clear_timer(timers: TimerHeap, key: str, name: str = "due") -> None:
    timers.apply([((key, name), None)])


def test_a_timer_is_due_at_its_instant_and_not_a_microsecond_before() -> None:
    timers = heap(row("a", at("09:00:30")))
    before = at("09:00:30") - timedelta(microseconds=1)
    assert timers.due(before) == []
    assert not timers.is_due(before)
    assert timers.due(at("09:00:30")) == [row("a", at("09:00:30"))]
    assert timers.is_due(at("09:00:30"))


def test_due_timers_come_earliest_first_and_stay_until_a_commit_says_that_they_fired() -> None:
    late, early = row("late", at("09:02")), row("early", at("09:01"))
    timers = heap(late, early)
    assert timers.due(at("09:03")) == [early, late]
    assert timers.due(at("09:03")) == [early, late], "nothing was committed"
    clear_timer(timers, "early")
    assert timers.due(at("09:03")) == [late]


def test_a_timer_set_anew_fires_only_at_its_new_time() -> None:
    timers = heap(row("a", at("09:01"), 1))
    set_timer(timers, row("a", at("09:05"), 2))
    assert timers.due(at("09:04:59")) == []
    assert timers.due(at("09:05")) == [row("a", at("09:05"), 2)]
    set_timer(timers, row("a", at("09:02"), 3))
    assert timers.due(at("09:06")) == [row("a", at("09:02"), 3)], "once, as it was set last"


def test_a_cleared_timer_never_fires() -> None:
    timers = heap(row("a", at("09:01")), row("a", at("09:01"), 2, "other"))
    clear_timer(timers, "a")
    assert timers.due(at("09:30")) == [row("a", at("09:01"), 2, "other")]
    assert len(timers) == 1
    assert timers.get("a", "due") is None


def test_what_is_due_behind_the_window_stays_in_the_table_until_the_window_moves() -> None:
    timers = heap(until=at("09:01"))
    set_timer(timers, row("soon", at("09:01")))
    set_timer(timers, row("later", at("09:01:01"), 2))
    assert timers.get("later", "due") is None
    assert timers.due(at("09:30")) == [row("soon", at("09:01"))]
    timers.load([row("later", at("09:01:01"), 2)], TimerMark(at("09:02")))
    assert timers.due(at("09:30"))[1:] == [row("later", at("09:01:01"), 2)]


def test_moving_a_timer_out_of_the_window_takes_it_out_of_memory() -> None:
    timers = heap(row("a", at("09:00:30")), until=at("09:01"))
    set_timer(timers, row("a", at("11:00"), 2))
    assert timers.due(at("09:01")) == []
    assert timers.rows() == []


def test_the_window_is_extended_well_before_its_end() -> None:
    assert TimerHeap().needs_load(at("09:00")), "nothing has been read yet"
    timers = heap(until=at("09:00") + HORIZON)
    assert not timers.needs_load(at("09:00"))
    assert not timers.needs_load(at("09:00") + RELOAD)
    assert timers.needs_load(at("09:00") + RELOAD + timedelta(microseconds=1))


def test_a_mass_of_timers_comes_in_portions_and_none_is_forgotten() -> None:
    rows = [row(f"k{n}", at("09:00"), n) for n in range(1_200)]
    timers = heap(*rows)
    seen: list[TimerRow] = []
    while found := timers.due(at("09:00")):
        assert len(found) <= DUE_MAX
        seen += found
        timers.apply(((one.key, one.name), None) for one in found)
    assert seen == rows


def test_the_earliest_live_timer_is_known_stale_ones_aside() -> None:
    timers = heap(row("a", at("09:01")), row("b", at("09:02"), 2))
    assert timers.earliest() == at("09:01")
    clear_timer(timers, "a")
    assert timers.earliest() == at("09:02")
    clear_timer(timers, "b")
    assert timers.earliest() is None


def test_any_history_fires_each_timer_as_it_was_set_last() -> None:
    chance = random.Random(7)
    for _ in range(50):
        timers, expected = heap(), dict[str, TimerRow]()
        for identity in range(60):
            key = f"k{chance.randrange(8)}"
            if chance.random() < 0.3:
                clear_timer(timers, key)
                expected.pop(key, None)
            else:
                one = row(key, at("09:00") + timedelta(seconds=chance.randrange(600)), identity)
                set_timer(timers, one)
                expected[key] = one
        now = at("09:00") + timedelta(seconds=chance.randrange(600))
        due = sorted(
            (one for one in expected.values() if one.due_at <= now),
            key=lambda one: (one.due_at, one.id),
        )
        assert timers.due(now) == due


def test_after_an_outage_the_window_ends_where_the_page_did_and_grows_when_there_is_room() -> None:
    now, until = at("09:00"), at("09:01")
    overdue = [
        row(f"k{n}", now - timedelta(hours=1) + timedelta(milliseconds=n), n)
        for n in range(LOADED_MAX)
    ]
    timers, page = TimerHeap(), overdue[:TIMER_PAGE]
    assert window_end(page[:-1], until) == TimerMark(until), "there are no more of them"
    timers.load(page, window_end(page, until))
    assert timers.loaded_to == TimerMark(page[-1].due_at, page[-1].key, "due")
    assert timers.needs_load(now)
    rest = overdue[TIMER_PAGE:]
    timers.load(rest, window_end(rest, until))
    assert not timers.needs_load(now), "so many are enough for now"
    for one in timers.due(now):
        clear_timer(timers, one.key)
    assert timers.needs_load(now)
    assert timers.due(now)[0] == overdue[DUE_MAX]


def test_a_timer_set_at_the_instant_between_two_pages_is_due_once_though_both_have_it() -> None:
    timers, instant = heap(row("a", at("08:59"))), at("09:00")
    timers.load([row("b", instant, 2)], TimerMark(instant, "b", "due"))
    set_timer(timers, row("c", instant, 3))
    timers.load([row("c", instant, 3), row("d", instant, 4)], TimerMark(at("09:01")))
    assert [one.key for one in timers.due(at("09:30"))] == ["a", "b", "c", "d"]


def test_a_full_turn_is_followed_at_once_only_where_it_came_on_and_more_is_due() -> None:
    """Timers that conflict rest in their places: the pump would turn without an end, and settle nothing."""
    task: Task[None] = Task(0, 1, ())
    rows = [row(f"k{n}", at("09:00"), n) for n in range(3)]
    task.timers.load(rows, TimerMark(at("10:00")))
    parcel = Parcel(task, rows[:2])
    assert not _has_more(parcel, at("09:01")), "nothing of it was settled"
    clear_timer(task.timers, "k0")
    assert _has_more(parcel, at("09:01"))
    clear_timer(task.timers, "k1")
    clear_timer(task.timers, "k2")
    assert not _has_more(parcel, at("09:01")), "nothing is left"


def test_a_result_that_was_put_back_is_no_reason_to_turn_at_once() -> None:
    task: Task[None] = Task(0, 1, ())
    results = [EffectDone(Effect(f"e{n}", "k1", {}), EffectResult("done")) for n in range(2)]
    task.results.extend(results)
    assert not _has_more(Parcel(task, results), at("09:01"))
    task.results.popleft()
    assert _has_more(Parcel(task, results), at("09:01"))
