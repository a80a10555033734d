"""A clock that can stand still: when it was started, when it stood, and what still holds it.

Owns the record of one clock's pauses and nothing about deadlines being told. Several causes may
hold a clock at the same time; the time they share is left out once. Instants may arrive in any
order: what counts is the time that the pauses cover together, to the microsecond.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from hours import calendar as business_calendar
from hours.calendar import Calendar, Pause

Span = tuple[datetime, datetime]
"""A finished pause: from, to."""


class Stopwatch(msgspec.Struct, frozen=True, omit_defaults=True):
    """A started clock.

    `spans` are finished pauses, in order, disjoint. `holds` are the causes that hold the clock
    now, by name, each with the instant at which it began. A clock is held at most a few times in
    its life, each time by a person's act, so the record is kept whole.
    """

    started_at: datetime
    spans: tuple[Span, ...] = ()
    holds: tuple[tuple[str, datetime], ...] = ()

    @property
    def paused_at(self) -> datetime | None:
        """Since when the clock stands; `None` while it runs."""
        if not self.holds:
            return None
        return min(begun_at for _, begun_at in self.holds)

    def pause(self, cause: str, at: datetime) -> "Stopwatch":
        """The clock, held by `cause` from `at`. A cause that holds it already changes nothing."""
        if any(held == cause for held, _ in self.holds):
            return self
        return msgspec.structs.replace(self, holds=tuple(sorted((*self.holds, (cause, at)))))

    def resume(self, cause: str, at: datetime) -> "Stopwatch":
        """The clock without `cause` from `at`; it runs once no cause is left.

        A cause that does not hold it changes nothing. One that ends before it began held it for no
        time at all.
        """
        begun_at = next((begun for held, begun in self.holds if held == cause), None)
        if begun_at is None:
            return self
        return msgspec.structs.replace(
            self,
            spans=_joined((*self.spans, (begun_at, max(at, begun_at)))),
            holds=tuple(hold for hold in self.holds if hold[0] != cause),
        )

    def pauses(self) -> tuple[Pause, ...]:
        """All pauses in the calendar's form; one that goes on has no end."""
        paused_at = self.paused_at
        return self.spans if paused_at is None else (*self.spans, (paused_at, None))

    def paused_time(self, until: datetime) -> timedelta:
        """How long the clock stood from its start to `until`, by the wall."""
        standing = () if self.paused_at is None else ((self.paused_at, max(until, self.paused_at)),)
        return sum(
            (
                max(min(end, until) - max(begin, self.started_at), timedelta(0))
                for begin, end in _joined((*self.spans, *standing))
            ),
            timedelta(0),
        )

    def due_at(self, calendar: Calendar, amount: timedelta) -> datetime | None:
        """When `amount` of open time will have been counted (UTC).

        `None` while the clock stands before that.
        """
        return self.dues(calendar, (amount,))[0]

    def dues(self, calendar: Calendar, amounts: Sequence[timedelta]) -> list[datetime | None]:
        """`due_at` of each amount."""
        return business_calendar.dues(calendar, self.started_at, amounts, self.pauses())

    def elapsed(self, calendar: Calendar, until: datetime) -> timedelta:
        """The open time counted up to `until`; none before the start."""
        end = max(until, self.started_at)
        return business_calendar.elapsed(calendar, self.started_at, end, self.pauses())


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """The same time as sorted spans that neither touch nor overlap; empty ones fall away."""
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if begin == end:
            continue
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return tuple(joined)
