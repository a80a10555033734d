"""Quiet hours on the customer's own clock, and the hour at which small news are gathered.

Owns the arithmetic of local times that clocks skip or show twice, and which zones a telephone number may be in. A window
begins at the first instant at which its start is shown, and ends at the last at which its end is: an hour that comes twice is
quiet as a whole, and of one that is skipped nothing is left over.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import phonenumbers
from phonenumbers.timezone import time_zones_for_number

from schemas.notifications import Category, Occasion

DAY: Final = 24 * 60
"""Minutes of a day, as clocks count them."""
WEEK: Final = 7 * DAY

_STEPS_MAX: Final = 200
"""Windows in a row that are followed; a week in forty zones has fewer that touch each other."""


@dataclass(frozen=True, slots=True)
class Window:
    """Quiet from minute `start` of a day that begins one of `days` (Monday is 0) to minute `end`, from 1441 on of the next."""

    days: frozenset[int]
    start: int
    end: int

    def minutes(self) -> Iterator[tuple[int, int]]:
        """Yield the window as minutes of the week; the last may end in the next one."""
        for day in sorted(self.days):
            yield day * DAY + self.start, day * DAY + self.end


@dataclass(frozen=True, slots=True)
class QuietHours:
    """When customers are left in peace, and what breaks it.

    `awake`: whoever wrote less than this ago is up, and what answers them is no disturbance. `silent` are providers whose
    messages wake nobody. What waited goes out over `spread`, not all at once.
    """

    windows: tuple[Window, ...] = ()
    categories: frozenset[Category] = frozenset({"security"})
    occasions: frozenset[Occasion] = frozenset({"answered"})
    priorities: frozenset[int] = frozenset()
    silent: frozenset[str] = frozenset()
    awake: timedelta = timedelta(0)
    spread: timedelta = timedelta(0)


def first_overlap(windows: tuple[Window, ...]) -> tuple[int, int] | None:
    """Return the positions of two windows that overlap (of one with itself, the same twice), or None."""
    parts = sorted(
        (start % WEEK, start % WEEK + end - start, index)
        for index, window in enumerate(windows)
        for start, end in window.minutes()
    )
    if not parts:
        return None
    first = parts[0]
    for (_, end, index), (start, _, other) in zip(
        parts, [*parts[1:], (first[0] + WEEK, first[1] + WEEK, first[2])], strict=True
    ):
        if start < end:
            return min(index, other), max(index, other)
    return None


def quiet_minutes(windows: tuple[Window, ...]) -> int:
    """Return how many minutes of a week are quiet, of windows that do not overlap."""
    return sum(end - start for window in windows for start, end in window.minutes())


def is_quiet_at(windows: tuple[Window, ...], minute: int) -> bool:
    """Whether the minute of a day is quiet on any day of the week."""
    return any(
        start <= (day * DAY + minute + shift) < end
        for day in range(7)
        for shift in (0, WEEK)
        for window in windows
        for start, end in window.minutes()
    )


def quiet_until(
    windows: tuple[Window, ...], zones: tuple[ZoneInfo, ...], default: ZoneInfo, now: datetime
) -> datetime | None:
    """Return when it ceases to be quiet in all of `zones` for somebody who may be in any of them; None if it is not quiet now.

    Zones so far apart that it is always quiet in one of them are as good as none: then `default` counts.
    """
    end = _until(windows, zones, now)
    if end is None and len(zones) > 1:
        end = _until(windows, (default,), now)
    assert end is not None, "the policy's check has seen to it that quiet hours end"
    return None if end == now else end


def _until(
    windows: tuple[Window, ...], zones: tuple[ZoneInfo, ...], now: datetime
) -> datetime | None:
    """Return the first instant from `now` on that is quiet in none of the zones; None if there is none in sight."""
    at = now
    for _ in range(_STEPS_MAX):
        ends = [
            end for zone in zones for start, end in _around(windows, zone, at) if start <= at < end
        ]
        if not ends:
            return at
        at = max(ends)
    return None


def _around(
    windows: tuple[Window, ...], zone: ZoneInfo, at: datetime
) -> Iterator[tuple[datetime, datetime]]:
    today = at.astimezone(zone).date()
    for ahead in (-2, -1, 0, 1):
        day = today + timedelta(days=ahead)
        for window in windows:
            if day.weekday() in window.days:
                yield (
                    instant(day, window.start, zone),
                    instant(day, window.end, zone, is_last=True),
                )


def instant(day: date, minute: int, zone: ZoneInfo, *, is_last: bool = False) -> datetime:
    """Return when clocks in `zone` show the minute of the day (1440 and more: of the next), in UTC.

    Shown twice, it is the first time, or with `is_last` the last. Skipped, it is the instant of the jump.
    """
    local = datetime.combine(day, datetime.min.time()) + timedelta(minutes=minute)
    before = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    after = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if before <= after:
        return after if is_last else before
    return _jump(after, before, zone)


def _jump(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the second at which the offset changes between two instants (PEP 495 has them on both sides of a gap)."""
    old = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
        if middle.astimezone(zone).utcoffset() == old:
            low = middle
        else:
            high = middle
    return high


def spread_end(
    quiet: QuietHours,
    zones: tuple[ZoneInfo, ...],
    default: ZoneInfo,
    until: datetime,
    seed: str,
) -> datetime:
    """Return the instant at which a notice that waited goes out: `until` and a share of the spread that `seed` fixes.

    Where the time between two quiet windows is shorter than that, it is `until` itself.
    """
    late = until + quiet.spread * share_of(seed)
    return late if quiet_until(quiet.windows, zones, default, late) is None else until


def share_of(seed: str) -> float:
    """Return a number from 0 to below 1 that `seed` fixes."""
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") / 2**32


def next_at(minute: int, zone: ZoneInfo, now: datetime) -> datetime:
    """Return the next instant after `now` at which clocks in `zone` show the minute of a day; once a day, however clocks go."""
    today = now.astimezone(zone).date()
    for ahead in range(-1, 4):
        at = instant(today + timedelta(days=ahead), minute, zone)
        if at > now:
            return at
    raise AssertionError("a day has every minute within two days")


def zones_of(
    phone: str, default: ZoneInfo, by_country: Mapping[str, ZoneInfo] = MappingProxyType({})
) -> tuple[ZoneInfo, ...]:
    """Return the zones in which the owner of a number (E.164) may be; `default` alone where the number says nothing.

    A number of a country with several zones may be in any of them (a Russian mobile number in sixteen), unless its area code
    says more, or `by_country` (ISO 3166-1 alpha-2) says where its people are.
    """
    names, country = _places(phone)
    known = tuple(dict.fromkeys(one for name in names if (one := _zone(name)) is not None))
    if not known:
        return (default,)
    if len(known) > 1 and country in by_country:
        return (by_country[country],)
    if len(known) > 1 and default in known:
        return (default,)
    return known


@lru_cache(maxsize=4096)
def _places(phone: str) -> tuple[tuple[str, ...], str]:
    try:
        number = phonenumbers.parse(phone)
    except phonenumbers.NumberParseException:
        return (), ""
    return (
        tuple(time_zones_for_number(number)),
        phonenumbers.region_code_for_number(number) or "",
    )


def _zone(name: str) -> ZoneInfo | None:
    """Return a zone by its name, None for one that is none (`Etc/Unknown` is what the numbers' data say of satellites)."""
    if name == "Etc/Unknown":
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
