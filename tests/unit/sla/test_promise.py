"""Promises: rounded up to words people use, never better than the waits, never when nobody works."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hours.calendar import Calendar, due, is_open, next_closing, parse_calendar
from services.sla.core.promise import MINUTES, promise, situation, worded
from services.sla.core.promise_policy import PromisesModel
from services.sla.core.waits import (
    OUTCOMES_MAX,
    Cell,
    Correction,
    Estimates,
    corrected,
)

SHOP = parse_calendar(
    {
        "timezone": "Europe/Berlin",
        "hours": {
            **{
                day: [["09:00", "12:00"], ["13:00", "17:45"]]
                for day in ("mon", "tue", "thu", "fri")
            },
            "wed": [["09:00", "12:00"]],
        },
    }
)
ALWAYS = Calendar.always()
POLICY = PromisesModel()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def told(calendar: Calendar, when: str, minutes: float) -> tuple[str, str, int | None]:
    by, words = worded(calendar, at(when), minutes * 60)
    said = words.kind if words.kind == "within" else f"{words.day} {words.time}"
    return by.isoformat(), said, words.minutes


@pytest.mark.parametrize(
    ("minutes", "said"),
    [(1, 5), (5, 5), (5.01, 10), (16, 20), (31, 45), (46, 60), (61, 90), (100, 120), (239, 240)],
)
def test_a_length_is_rounded_up_to_one_that_people_say(minutes: float, said: int) -> None:
    begin = at("2026-03-03T10:00:00+00:00")
    by, words = worded(ALWAYS, begin, minutes * 60)
    assert (words.kind, words.minutes) == ("within", said)
    assert by - begin == timedelta(minutes=said)


@pytest.mark.parametrize(
    ("when", "minutes", "by", "said"),
    [
        # Over the lunch break, on the half hour.
        ("2026-03-03T11:50:00+01:00", 20, "2026-03-03T13:30:00+01:00", "today 13:30"),
        # Into the next day, on the hour.
        ("2026-03-03T17:30:00+01:00", 20, "2026-03-04T10:00:00+01:00", "tomorrow 10:00"),
        ("2026-03-03T17:30:00+01:00", 170, "2026-03-04T12:00:00+01:00", "tomorrow 12:00"),
        # Another day by its date: the weekend lies between.
        ("2026-03-06T17:00:00+01:00", 60, "2026-03-09T10:00:00+01:00", "2026-03-09 10:00"),
        # Rounding would leave the opening hours: the closing time.
        ("2026-03-03T13:00:00+01:00", 280, "2026-03-03T17:45:00+01:00", "today 17:45"),
        # Due exactly at a closing time.
        ("2026-03-03T12:00:00+01:00", 285, "2026-03-03T17:45:00+01:00", "today 17:45"),
        # At night: from the opening on.
        ("2026-03-03T03:00:00+01:00", 20, "2026-03-03T09:30:00+01:00", "today 09:30"),
        ("2026-03-03T22:00:00+01:00", 20, "2026-03-04T10:00:00+01:00", "tomorrow 10:00"),
    ],
)
def test_where_closing_hours_lie_between_it_is_told_when(
    when: str, minutes: float, by: str, said: str
) -> None:
    assert told(SHOP, when, minutes) == (by, said, None)


def test_after_four_hours_it_is_told_when_not_how_long() -> None:
    assert told(ALWAYS, "2026-03-03T10:10:00+00:00", 250)[1] == "today 14:30"
    assert told(ALWAYS, "2026-03-03T19:40:00+00:00", 250)[1] == "today 24:00"
    assert told(ALWAYS, "2026-03-03T20:10:00+00:00", 250)[1] == "tomorrow 01:00"


@given(
    st.integers(0, 45 * 86_400),
    st.floats(0.5, 3_000),
    st.sampled_from([SHOP, ALWAYS]),
)
def test_no_promise_is_earlier_than_the_wait_and_none_falls_when_nobody_works(
    after: int, minutes: float, calendar: Calendar
) -> None:
    begin = at("2026-03-01T00:00:00+00:00") + timedelta(seconds=after)
    by, words = worded(calendar, begin, minutes * 60)
    wait_ends = due(calendar, begin, minutes * 60)
    assert wait_ends is not None
    assert by >= wait_ends
    just_before = by - timedelta(microseconds=1)
    assert is_open(calendar, just_before)
    assert is_open(calendar, by) or next_closing(calendar, just_before) == by
    assert words.time == "24:00" or words.time == f"{by.astimezone(calendar.zone):%H:%M}"
    assert words.kind == "by" or words.minutes in MINUTES


def cell(longest: float, ahead: int = 0) -> Cell:
    return Cell(100, longest, tuple(longest * n / 45 for n in range(1, 50)), ahead)


def estimates(longest: float, factor: float = 1.0, ahead: int = 0) -> Estimates:
    return Estimates(
        version="v1",
        cells={("service", "24/7"): cell(longest, ahead)},
        corrections={"service": Correction(factor, 0.95, 400)},
    )


def promised(known: Estimates, policy: PromisesModel = POLICY, ahead: int = 0) -> float | None:
    found = situation("service", "email", "24/7", ALWAYS, at("2026-03-03T10:00:00+00:00"), ahead)
    made = promise(found, ALWAYS, policy, known)
    return None if made is None else made.seconds / 60


def test_the_promise_is_the_measured_wait_rounded_up_and_never_instant() -> None:
    assert promised(estimates(17 * 60)) == 20
    assert promised(estimates(1)) == 5
    assert promised(estimates(1), PromisesModel(floor_minutes=15)) == 15


def test_corrections_and_crowding_change_it() -> None:
    assert promised(estimates(17 * 60, factor=2.0)) == 45
    assert promised(estimates(17 * 60, factor=0.75, ahead=9), ahead=19) == 30
    assert promised(estimates(17 * 60, ahead=9), ahead=9) == 20
    assert promised(estimates(17 * 60, ahead=9), ahead=19) == 45


@pytest.mark.parametrize("ahead", [0, 9, 12, 200])
def test_no_correction_undercuts_the_wait_that_the_promised_share_was_within(ahead: int) -> None:
    """However many promises were kept: shorter than measured, fewer than nine in ten such tickets would be in time."""
    kept = corrected([True] * OUTCOMES_MAX, 0.9)
    assert kept.factor < 0.7
    known = replace(estimates(17 * 60, ahead=9), corrections={"service": kept})
    found = situation("service", "email", "24/7", ALWAYS, at("2026-03-03T10:00:00+00:00"), ahead)
    made = promise(found, ALWAYS, POLICY, known)
    assert made is not None
    assert made.seconds >= 17 * 60
    assert made.share_within >= 0.9


def test_without_an_estimate_nothing_is_told() -> None:
    assert promised(Estimates()) is None
    assert promised(estimates(float("inf"))) is None
    assert promised(estimates(10**9)) is None


def test_it_says_how_much_of_the_past_it_covers() -> None:
    found = situation("service", "email", "24/7", ALWAYS, at("2026-03-03T10:00:00+00:00"))
    made = promise(found, ALWAYS, POLICY, estimates(1200))
    assert made is not None
    assert (made.share_within, made.samples, made.basis) == (0.9, 100, "queue")


def test_after_hours_it_is_known_when_we_open() -> None:
    night = situation("service", "email", "shop", SHOP, at("2026-03-03T22:00:00+01:00"))
    assert night.opens_at == at("2026-03-04T09:00:00+01:00")
    assert (
        situation("service", "email", "shop", SHOP, at("2026-03-03T10:00:00+01:00")).opens_at
        is None
    )
