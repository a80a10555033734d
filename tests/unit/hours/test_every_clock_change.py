"""T10 at every change of every zone's clock from 2000 to 2040, a day before and after it, with random calendars.

Covered is each name of `zoneinfo.available_timezones()`: zones whose offsets have been the same through all those years are
one case, so each of their changes is tried at least once. Changes are found by looking every three days: no zone has two
within that (tz database 2026).
"""
# ruff: noqa: N802 — T10 is the id of a promise, and written as elsewhere.

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest

from hours.calendar import DAYS, Calendar, due, elapsed, is_open, next_opening, parse_calendar

SAMPLES = range(946_684_800, 2_240_611_200, 3 * 86_400)
DAY = timedelta(days=1)


def offset(zone: ZoneInfo, timestamp: int) -> timedelta | None:
    return datetime.fromtimestamp(timestamp, zone).utcoffset()


@cache
def histories() -> dict[tuple[timedelta | None, ...], list[str]]:
    """The zones by their offsets at all samples."""
    found: dict[tuple[timedelta | None, ...], list[str]] = {}
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        found.setdefault(tuple([offset(zone, at) for at in SAMPLES]), []).append(name)
    return found


def changes(zone: ZoneInfo, offsets: tuple[timedelta | None, ...]) -> Iterator[datetime]:
    for i in range(1, len(offsets)):
        if offsets[i] == offsets[i - 1]:
            continue
        before, after = SAMPLES[i - 1], SAMPLES[i]
        while after - before > 1:
            middle = (before + after) // 2
            if offset(zone, middle) == offsets[i - 1]:
                before = middle
            else:
                after = middle
        yield datetime.fromtimestamp(after, UTC)


def clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def some_calendar(chance: random.Random, zone: str, change: datetime) -> Calendar:
    """Open and shut around the hour of the change, with single dates and a closure beside it."""
    local = (change - timedelta(seconds=1)).astimezone(ZoneInfo(zone))
    about = local.hour * 60 + local.minute

    def time() -> str:
        return clock((about + chance.randint(-120, 150)) % 1440)

    def intervals() -> list[list[str]]:
        pairs = [[time(), time()] for _ in range(chance.randint(1, 2))]
        if chance.random() < 0.3:
            pairs.append([time(), "24:00"])
        return [pair for pair in pairs if pair[0] != pair[1]]

    near = [(local.date() + timedelta(days=i)).isoformat() for i in (-1, 0, 1)]
    begin, end = sorted(f"{chance.choice(near)}T{time()}" for _ in range(2))
    mapping: dict[str, Any] = {
        "timezone": zone,
        "hours": {day: intervals() for day in DAYS} | {"wed": [["01:30", "04:15"]]},
        "holidays": chance.sample(near, chance.randint(0, 1)),
        "dates": {near[0]: intervals()} if chance.random() < 0.3 else {},
        "closures": [[begin, end]] if begin != end and chance.random() < 0.3 else [],
    }
    return parse_calendar(mapping)


@pytest.mark.slow
def test_T10_holds_a_day_around_every_change_of_every_zones_clock() -> None:
    chance = random.Random(2040)
    tried, zones = 0, 0
    for offsets, names in histories().items():
        zone = ZoneInfo(names[0])
        zones += len(names)
        for change in changes(zone, offsets):
            calendar = some_calendar(chance, chance.choice(names), change)
            _check(calendar, change, chance)
            tried += 1
    assert zones == len(available_timezones())
    assert tried > 5_000


def _check(calendar: Calendar, change: datetime, chance: random.Random) -> None:
    case = calendar, change
    start = change + timedelta(minutes=chance.randint(-1440, 1440))
    later = start + timedelta(minutes=chance.randint(0, 720))
    a, b = (timedelta(seconds=chance.randint(0, 36_000)) for _ in range(2))

    middle, once = due(calendar, start, a), due(calendar, start, a + b)
    assert middle is not None
    assert once is not None
    # Additivity.
    assert due(calendar, middle, b) == once, case
    # What is due after x has x behind it.
    assert elapsed(calendar, start, middle) == a, case
    assert elapsed(calendar, start, once) == a + b, case
    # Monotone in the amount and in the start.
    assert start <= middle <= once, case
    delayed = due(calendar, later, a)
    assert delayed is not None
    assert middle <= delayed, case
    # Open time adds up across the change itself, and no more passes than the day has.
    before, after = change - DAY, change + DAY
    halves = elapsed(calendar, before, change) + elapsed(calendar, change, after)
    assert elapsed(calendar, before, after) == halves <= 2 * DAY, case
    # An opening is where it is open, and was not.
    opening = next_opening(calendar, before)
    assert opening is not None
    assert is_open(calendar, opening), case
    assert not is_open(calendar, opening - timedelta(microseconds=1)), case
