"""A slow second opinion on business calendars, for property tests.

It shares neither code nor method with the product: it reads the calendar's mapping as it stands in
`calendars.yaml`, walks from instant to instant in small steps, and at each looks at the wall clock.
The one thing it must agree on is what a local time means: the first instant at which the clock
shows it or a later time. Here that is a clock that never goes back (`_forward_clock`): while the
zone repeats an hour, it stands still.

All times must be whole multiples of the step: boundaries, offsets, starts, pauses, amounts.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

Pauses = Sequence[tuple[datetime, datetime | None]]
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class ReferenceCalendar:
    """Answers by walking; `step` is the length of one step in seconds."""

    def __init__(self, mapping: Mapping[str, Any], step: int = 60) -> None:
        self.zone = ZoneInfo(mapping["timezone"])
        self.hours = mapping["hours"]
        self.holidays = set(mapping.get("holidays", ()))
        self.dates = mapping.get("dates", {})
        self.closures = [(_local(begin), _local(end)) for begin, end in mapping.get("closures", ())]
        self.step = timedelta(seconds=step)
        self._spans: dict[date, list[tuple[datetime, datetime]]] = {}

    def open_flags(self, start: datetime) -> Iterator[tuple[datetime, bool]]:
        """Each step from `start` on, and whether it is open; without end."""
        for at, shown in self._forward_clock(start):
            yield at, self._is_open_on_paper(shown)

    def is_open(self, at: datetime) -> bool:
        return next(self.open_flags(at))[1]

    def elapsed(self, start: datetime, end: datetime, pauses: Pauses = ()) -> timedelta:
        counted = timedelta(0)
        for at, is_open in self.open_flags(start):
            if at >= end:
                return counted
            if is_open and not _is_paused(at, pauses):
                counted += self.step
        raise AssertionError("open_flags has no end")

    def due(
        self, start: datetime, amount: timedelta, pauses: Pauses = (), *, within: timedelta
    ) -> datetime | None:
        """`None` if the amount is not used up `within` that time."""
        if not amount:
            return start
        counted = timedelta(0)
        for at, is_open in self.open_flags(start):
            if at - start > within:
                return None
            if is_open and not _is_paused(at, pauses):
                counted += self.step
                if counted == amount:
                    return at + self.step
        raise AssertionError("open_flags has no end")

    def _forward_clock(self, start: datetime) -> Iterator[tuple[datetime, datetime]]:
        """Instants, and the latest wall clock shown up to each. The walk begins four hours early so
        that a repeated hour just before `start` is known; no clock goes back further these days."""
        at = start.astimezone(UTC) - timedelta(hours=4)
        latest = datetime.min  # noqa: DTZ901 — a wall clock has no zone.
        while True:
            latest = max(latest, at.astimezone(self.zone).replace(tzinfo=None))
            if at >= start:
                yield at, latest
            at += self.step

    def _is_open_on_paper(self, shown: datetime) -> bool:
        day = shown.date()
        return any(
            begin <= shown < end
            for owner in (day, day - timedelta(days=1))
            for begin, end in self._intervals(owner)
        ) and not any(begin <= shown < end for begin, end in self.closures)

    def _intervals(self, day: date) -> list[tuple[datetime, datetime]]:
        if day not in self._spans:
            listed: Iterable[Sequence[str]]
            if day.isoformat() in self.dates:
                listed = self.dates[day.isoformat()]
            elif day.isoformat() in self.holidays:
                listed = ()
            else:
                listed = self.hours.get(DAYS[day.weekday()], ())
            spans = []
            for opens, closes in listed:
                begin, end = _local(f"{day}T{opens}"), _local(f"{day}T{closes}")
                spans.append((begin, end if end > begin else end + timedelta(days=1)))
            self._spans[day] = spans
        return self._spans[day]


def _local(text: str) -> datetime:
    day, clock = text.split("T")
    numbers = [int(part) for part in clock.split(":")]
    midnight = datetime.fromisoformat(day)
    return midnight + timedelta(
        hours=numbers[0], minutes=numbers[1], seconds=numbers[2] if len(numbers) > 2 else 0
    )


def _is_paused(at: datetime, pauses: Pauses) -> bool:
    return any(begin <= at and (end is None or at < end) for begin, end in pauses)
