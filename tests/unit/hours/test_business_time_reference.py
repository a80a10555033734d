"""The calendar against the slow walk: 20,000 questions, and the proof that a mistake would be noticed."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, time, timedelta
from operator import itemgetter
from typing import Any

import pytest

from bench.business_time import compare
from hours import calendar as fast
from hours.calendar import Calendar, Interval

CASES = 20_000
CASES_FOR_AN_ERROR = 40_000
"""By then each error below has shown itself; most do within some hundreds."""


@pytest.mark.slow
def test_the_calendar_answers_as_a_walk_from_minute_to_minute_does() -> None:
    outcome = compare(CASES, seed=20_260_109)
    assert outcome.shown == []
    assert outcome.cases == CASES
    assert len(outcome.zones) > 30
    assert len(outcome.changes) > 8


Plant = Callable[[pytest.MonkeyPatch], None]


def closes_a_moment_late(patch: pytest.MonkeyPatch) -> None:
    def is_open(self: Any, at: int) -> bool:
        i = bisect_right(self.starts, at) - 1
        return i >= 0 and at <= self.ends[i]

    patch.setattr(fast._Block, "is_open", is_open)


def due_at_the_next_opening(patch: pytest.MonkeyPatch) -> None:
    def instant_after(self: Any, amount: int) -> int:
        i = bisect_right(self.before, amount) - 1
        return int(self.starts[i] + amount - self.before[i])

    patch.setattr(fast._Block, "instant_after", instant_after)


def second_showing_of_a_repeated_hour(patch: pytest.MonkeyPatch) -> None:
    right = fast._instant

    def instant(zone: Any, day: Any, seconds: int) -> int:
        wall = datetime.combine(day, time(), zone) + timedelta(seconds=seconds)
        return max(right(zone, day, seconds), fast._micros(wall.replace(fold=1)))

    patch.setattr(fast, "_instant", instant)


def skipped_times_by_the_offset_before(patch: pytest.MonkeyPatch) -> None:
    def instant(zone: Any, day: Any, seconds: int) -> int:
        return fast._micros(datetime.combine(day, time(), zone) + timedelta(seconds=seconds))

    patch.setattr(fast, "_instant", instant)


def days_are_24_hours_long(patch: pytest.MonkeyPatch) -> None:
    def windows_of(self: Calendar, day: Any) -> Iterator[tuple[int, int]]:
        midnight = fast._instant(self.zone, day, 0)
        for opens, closes in self._intervals_of(day):
            yield midnight + opens * 1_000_000, midnight + closes * 1_000_000

    patch.setattr(Calendar, "_windows_of", windows_of)


def shared_time_counts_twice(patch: pytest.MonkeyPatch) -> None:
    def union(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        return sorted(window for window in windows if window[0] < window[1])

    patch.setattr(fast, "_union", union)


def windows_that_touch_swallow_the_later(patch: pytest.MonkeyPatch) -> None:
    def union(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        merged: list[tuple[int, int]] = []
        for start, end in sorted(windows):
            if start < end and not (merged and start <= merged[-1][1]):
                merged.append((start, end))
        return merged

    patch.setattr(fast, "_union", union)


def closures_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fast, "_without", lambda windows, _cuts: iter(windows))


def a_closure_ends_the_window(patch: pytest.MonkeyPatch) -> None:
    def without(windows: Iterable[tuple[int, int]], cuts: Any) -> Iterator[tuple[int, int]]:
        for start, end in windows:
            i = bisect_right(cuts, start, key=itemgetter(1))
            if i == len(cuts) or cuts[i][0] >= end:
                yield start, end
            elif start < cuts[i][0]:
                yield start, cuts[i][0]

    patch.setattr(fast, "_without", without)


def holidays_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    def intervals_of(self: Calendar, day: Any) -> tuple[Interval, ...]:
        return dict(self.dates).get(day, self.hours[day.weekday()])

    patch.setattr(Calendar, "_intervals_of", intervals_of)


def a_holiday_wins_over_the_dates(patch: pytest.MonkeyPatch) -> None:
    def intervals_of(self: Calendar, day: Any) -> tuple[Interval, ...]:
        return () if day in self.holidays else dict(self.dates).get(day, self.hours[day.weekday()])

    patch.setattr(Calendar, "_intervals_of", intervals_of)


def nights_end_at_midnight(patch: pytest.MonkeyPatch) -> None:
    right = Calendar._intervals_of

    def intervals_of(self: Calendar, day: Any) -> tuple[Interval, ...]:
        return tuple((opens, min(closes, 86_400)) for opens, closes in right(self, day))

    patch.setattr(Calendar, "_intervals_of", intervals_of)


def weeks_begin_on_sunday(patch: pytest.MonkeyPatch) -> None:
    def intervals_of(self: Calendar, day: Any) -> tuple[Interval, ...]:
        return self.exceptions.get(day, self.hours[(day.weekday() + 1) % 7])

    patch.setattr(Calendar, "_intervals_of", intervals_of)


def pauses_are_taken_in_the_order_given(patch: pytest.MonkeyPatch) -> None:
    def spans(pauses: Any) -> list[tuple[int, int]]:
        return [
            (fast._micros(a), fast._UNENDING if b is None else fast._micros(b)) for a, b in pauses
        ]

    patch.setattr(fast, "_spans", spans)


def pauses_without_end_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    right = fast._spans
    patch.setattr(fast, "_spans", lambda pauses: right(p for p in pauses if p[1] is not None))


def the_offset_of_the_first_midnight_holds(patch: pytest.MonkeyPatch) -> None:
    right = fast._offset
    patch.setattr(fast, "_offset", lambda zone, day: right(zone, day - day % 32))


def openings_at_midnight_are_openings(patch: pytest.MonkeyPatch) -> None:
    right = fast._windows_from

    def windows_from(calendar: Calendar, at: int) -> Iterator[tuple[int, int]]:
        day = 86_400 * 1_000_000
        for start, end in right(calendar, at):
            midnight = (start // day + 1) * day
            if midnight < end < fast._UNENDING:
                yield start, midnight
                yield midnight, end
            else:
                yield start, end

    patch.setattr(fast, "_windows_from", windows_from)


ERRORS: tuple[Plant, ...] = (
    closes_a_moment_late,
    due_at_the_next_opening,
    second_showing_of_a_repeated_hour,
    skipped_times_by_the_offset_before,
    days_are_24_hours_long,
    shared_time_counts_twice,
    windows_that_touch_swallow_the_later,
    closures_are_forgotten,
    a_closure_ends_the_window,
    holidays_are_forgotten,
    a_holiday_wins_over_the_dates,
    nights_end_at_midnight,
    weeks_begin_on_sunday,
    pauses_are_taken_in_the_order_given,
    pauses_without_end_are_forgotten,
    the_offset_of_the_first_midnight_holds,
    openings_at_midnight_are_openings,
)


@pytest.mark.parametrize("plant", ERRORS, ids=lambda plant: plant.__name__)
def test_an_error_planted_in_the_calendar_is_noticed(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    try:
        outcome = compare(CASES_FOR_AN_ERROR, seed=3, stops_at_first=True)
    except (IndexError, ValueError):
        return  # The error broke an invariant that the calendar stands on: noticed, too.
    assert outcome.mismatches == 1, f"{outcome.cases} cases say nothing of {plant.__name__}"
