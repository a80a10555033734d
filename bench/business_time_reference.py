"""Business time the slow way: a walk from minute to minute (or second to second), looking at the clock on the wall.

A second opinion on `hours.calendar`, written from its rules and sharing nothing with it: no function, no table, no idea.
The rules, in the words this module goes by:

- A calendar is open at an instant if the wall clock shows a time inside an interval of its date, or inside the part past
  midnight of an interval of the date before. Intervals hold their beginning and not their end.
- A date's intervals are those that `dates` lists for it, else none if it is a holiday, else those of its weekday.
- Between the two local times of a closure nothing is open.
- Where the clock goes back, the times it shows again count as over: the wall clock stands still at the latest time it has
  shown, until it shows a later one. Where it jumps, the times in between are never shown.
- Time that passes is counted in real minutes, whatever the clock on the wall does.

So a calendar is a list: one flag a step, open or not. Every answer is found by walking along that list.

All times must be whole numbers of steps from the walk's beginning.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

WARM_UP: Final = timedelta(hours=26)
"""The walk begins so much earlier, to know the latest time shown; since 2000 no clock has gone back by more than a day."""

Step = int
"""Counted from the walk's beginning."""


class Walk:
    """A calendar's flags over a stretch: `flags[i]` says whether it is open from step i to i + 1.

    `mapping` is the calendar as `calendars.yaml` writes it. A step is `seconds` long.
    """

    def __init__(
        self, mapping: Mapping[str, Any], begin: datetime, steps: int, seconds: int = 60
    ) -> None:
        self.begin = begin.astimezone(UTC)
        self.seconds = seconds
        self.flags = list(_flags(mapping, self.begin, steps, seconds))

    def instant(self, step: Step) -> datetime:
        """The instant at which a step begins, in UTC."""
        return self.begin + timedelta(seconds=step * self.seconds)

    def elapsed(self, start: Step, end: Step, pauses: Sequence[tuple[Step, Step | None]]) -> int:
        """Open steps from `start` to `end` that lie in no pause."""
        counted = 0
        for is_running in self._unpaused(pauses)[start:end]:
            if is_running:
                counted += 1
        return counted

    def due(
        self, start: Step, amount: int, pauses: Sequence[tuple[Step, Step | None]]
    ) -> Step | None:
        """The step at which `amount` open steps lie behind; None if the walk ends before."""
        if amount == 0:
            return start
        counted, step = 0, start
        for is_running in self._unpaused(pauses)[start:]:
            step += 1
            if is_running:
                counted += 1
                if counted == amount:
                    return step
        return None

    def _unpaused(self, pauses: Sequence[tuple[Step, Step | None]]) -> list[bool]:
        """The flags, with each step of each pause crossed out."""
        if not pauses:
            return self.flags
        flags = list(self.flags)
        for begin, end in pauses:
            for step in range(max(begin, 0), len(flags) if end is None else min(end, len(flags))):
                flags[step] = False
        return flags

    def next_opening(self, at: Step) -> Step | None:
        """The first step later than `at` that is open behind one that is not; None: not within the walk."""
        for step in range(at + 1, len(self.flags)):
            if self.flags[step] and not self.flags[step - 1]:
                return step
        return None

    def next_closing(self, at: Step) -> Step | None:
        """The first step later than `at` that is closed behind one that is open; None: not within the walk."""
        for step in range(at + 1, len(self.flags)):
            if not self.flags[step] and self.flags[step - 1]:
                return step
        return None


def _flags(mapping: Mapping[str, Any], begin: datetime, steps: int, seconds: int) -> Iterator[bool]:
    zone = ZoneInfo(mapping["timezone"])
    warm_up = int(WARM_UP.total_seconds()) // seconds
    length = timedelta(seconds=seconds)
    closures = [(_time(a), _time(b)) for a, b in mapping.get("closures", ())]
    intervals: dict[date, list[tuple[datetime, datetime]]] = {}
    latest = (begin - WARM_UP - timedelta(days=2)).replace(tzinfo=None)
    at = begin - warm_up * length
    for step in range(-warm_up, steps):
        latest = max(latest, at.astimezone(zone).replace(tzinfo=None))
        at += length
        if step < 0:
            continue
        today = latest.date()
        if today not in intervals:
            # Of the date itself, and of the date before for the parts past midnight.
            before = today - timedelta(days=1)
            intervals[today] = _on_paper(mapping, before) + _on_paper(mapping, today)
        yield any(a <= latest < b for a, b in intervals[today]) and not any(
            a <= latest < b for a, b in closures
        )


def _on_paper(mapping: Mapping[str, Any], day: date) -> list[tuple[datetime, datetime]]:
    text = day.isoformat()
    if text in mapping.get("dates", {}):
        listed = mapping["dates"][text]
    elif text in mapping.get("holidays", ()):
        listed = []
    else:
        weekday = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"][day.weekday()]
        listed = mapping["hours"].get(weekday, [])
    spans = []
    for opens, closes in listed:
        a, b = _time(f"{text}T{opens}"), _time(f"{text}T{closes}")
        spans.append((a, b if b > a else b + timedelta(days=1)))
    return spans


def _time(text: str) -> datetime:
    """A local time, "24:00" included."""
    day, clock = text.split("T")
    parts = [int(part) for part in clock.split(":")] + [0]
    return datetime.fromisoformat(day) + timedelta(
        hours=parts[0], minutes=parts[1], seconds=parts[2]
    )
