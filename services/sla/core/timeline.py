"""Where a ticket stood, and since when: waiting in a queue, offered to somebody, in somebody's hands, or held.

Owns the record that time is attributed by, a few dozen marks a ticket. A mark is a fact with the instant at which it happened.
They are kept in the order of these instants, whatever the order they are heard of in, and where a ticket stood between two of them
is worked out when it is asked for. Marks of one instant stand in the order they were heard of.

**Bounds.** Of more than `MARKS_MAX` marks the older half is folded: what the clocks that were asked about had spent until then
becomes sums, by the calendar of that day, and is not looked at again. What is heard of later, and happened before, counts as of the
end of what was folded.

**Parallel offers and several requests.** A ticket is offered while any offer of it is open, and worked on while anybody has it. What is
told of one request for work changes nothing about another: an assignment that one domain makes while the ticket already waits in the
next is ended by that domain's release, whichever of them is heard of first.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from hours.calendar import HORIZON, Calendar, Pause, elapsed
from schemas.payload import Payload
from schemas.routing import (
    OfferMade,
    OfferWithdrawn,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    WorkReleased,
)
from schemas.tickets import TicketOpened, TicketReopened, TicketSolved, TicketStatusChanged

MARKS_MAX: Final = 48
"""Marks that are kept as they are: one stay in a queue with three offers that expire makes eight."""

WORKS_MAX: Final = 4
"""Requests for work that may be unfinished at the same time; of more, the oldest are taken as finished."""

OFFERS_MAX: Final = 16
"""Open offers of one request that are told apart."""

QUEUES_MAX: Final = 8
"""Queues that folded time is kept apart by; the rest is `OTHER`."""

OTHER: Final = "other"

HOLDING: Final = ("pending", "on_hold", "snoozed", "solved")
"""The statuses in which a ticket as a whole waits for somebody who is not ours, or for nothing."""

Where = Literal["queue", "offer", "work"]
What = Literal["queued", "offered", "assigned", "requeued", "withdrawn", "released", "status"]

_MICROSECOND: Final = timedelta(microseconds=1)


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Something that moved the ticket at `at`. `name` is the offer's reservation, or the status."""

    at: datetime
    what: What
    work: str = ""
    queue: str = ""
    name: str = ""


class Work(msgspec.Struct, frozen=True, array_like=True):
    """One request for a person: the queue it is in, whether somebody has it, and the offers that are open."""

    work: str
    queue: str
    is_taken: bool = False
    offers: tuple[str, ...] = ()


class Standing(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a ticket stands: its unfinished requests, by age, the queue it was in last, and a status that holds it."""

    queue: str = ""
    works: tuple[Work, ...] = ()
    status: str = ""

    @property
    def place(self) -> tuple[Where, str]:
        """Who has it, and in which queue: somebody, else those it is offered to, else nobody."""
        for work in reversed(self.works):
            if work.is_taken:
                return "work", work.queue
        for work in reversed(self.works):
            if work.offers:
                return "offer", work.queue
        return "queue", self.works[-1].queue if self.works else self.queue


class Share(msgspec.Struct, frozen=True, array_like=True):
    """Open, unpaused time in microseconds, by who had the ticket and in which queue."""

    where: Where
    queue: str
    micros: int


class Spent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the time of one clock went, in microseconds; `shares`, `paused` and `closed` add up to all of it."""

    shares: tuple[Share, ...] = ()
    paused: int = 0
    closed: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(one.micros for one in self.shares) + self.paused + self.closed

    def plus(self, other: "Spent") -> "Spent":
        """Both together."""
        sums: Counter[tuple[Where, str]] = Counter()
        for one in (*self.shares, *other.shares):
            sums[one.where, one.queue] += one.micros
        return Spent(_shares(sums), self.paused + other.paused, self.closed + other.closed)

    def scaled(self, total: int) -> "Spent":
        """The same shares of `total` microseconds, and their sum exactly that."""
        parts = (*(one.micros for one in self.shares), self.paused, self.closed)
        *shares, paused, closed = proportional(parts, total)
        kept = zip(self.shares, shares, strict=True)
        return Spent(
            tuple(replace(one, micros=micros) for one, micros in kept if micros), paused, closed
        )


class Folded(msgspec.Struct, frozen=True):
    """What a clock that counts from `since` had spent when the timeline was folded."""

    since: datetime
    spent: Spent


class Clock(NamedTuple):
    """A clock whose time is attributed: since when it counts, by which calendar, and when it was held."""

    name: str
    since: datetime
    calendar: Calendar
    pauses: tuple[Pause, ...]


class Timeline(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ticket's marks in order; `base` is where it stood before the first of them.

    Before `until` marks have been folded (None: never), into `folded` by the name of the clock.
    """

    marks: tuple[Mark, ...] = ()
    base: Standing = Standing()
    until: datetime | None = None
    folded: dict[str, Folded] = {}


def note(timeline: Timeline, event: Payload, at_most: datetime | None = None) -> Timeline:
    """The timeline with what `event` says of where the ticket stands; the same one where it says nothing.

    What it says happened after `at_most` counts as of that (None: it is as it was told).
    """
    if isinstance(event, TicketOpened):
        return replace(timeline, base=replace(timeline.base, queue=event.queue))
    mark = _mark(event)
    if mark is None:
        return timeline
    if at_most is not None and mark.at > at_most:
        mark = replace(mark, at=at_most)
    if timeline.until is not None and mark.at < timeline.until:
        mark = replace(mark, at=timeline.until)
    place = bisect_right(timeline.marks, mark.at, key=_at)
    return replace(timeline, marks=(*timeline.marks[:place], mark, *timeline.marks[place:]))


def is_full(timeline: Timeline) -> bool:
    """Whether the timeline is to be folded."""
    return len(timeline.marks) > MARKS_MAX


def fold(timeline: Timeline, clocks: Iterable[Clock]) -> Timeline:
    """The timeline without the older half of its marks; what `clocks` spent in it becomes sums.

    Raises:
        CalendarError: a clock counts from an instant that no calendar covers.
    """
    half = len(timeline.marks) // 2
    until = timeline.marks[half - 1].at
    folded = {
        clock.name: Folded(clock.since, limited(spent(timeline, clock, until)))
        for clock in clocks
        if clock.since < until
    }
    return Timeline(
        marks=timeline.marks[half:],
        base=_after(timeline.base, timeline.marks[:half]),
        until=until,
        folded=folded,
    )


def spent(timeline: Timeline, clock: Clock, end: datetime) -> Spent:
    """Where the time of `clock` went until `end`; the sum is exactly the time that has passed.

    Closed time goes before a pause, and a pause before whoever had the ticket. The part that was folded is taken as it is; where
    the clock ends within it, or counts from another instant by now, in its proportions.

    Raises:
        CalendarError: an instant that no calendar covers, or more than a hundred years of it.
    """
    since, until = clock.since, timeline.until
    if end <= since:
        return Spent()
    known = timeline.folded.get(clock.name)
    if known is None or until is None or until <= since:
        return _counted(timeline, clock, since, end)
    first = min(end, until)
    kept = known.spent
    if known.since != since or first != until:
        length = (first - since) // _MICROSECOND
        kept = kept.scaled(length) if kept.total else _counted(timeline, clock, since, first)
    return kept.plus(_counted(timeline, clock, first, end)) if first < end else kept


def holds(timeline: Timeline, statuses: Iterable[str]) -> tuple[Pause, ...]:
    """When the ticket had one of `statuses`, as far as that is not folded; the last may go on."""
    wanted = frozenset(statuses)
    found: list[Pause] = []
    begun: datetime | None = None
    if timeline.base.status in wanted and timeline.until is not None:
        begun = timeline.until
    for mark in timeline.marks:
        if mark.what != "status":
            continue
        if mark.name in wanted:
            begun = begun or mark.at
        elif begun is not None:
            found.append((begun, mark.at))
            begun = None
    return (*found, (begun, None)) if begun is not None else tuple(found)


def proportional(parts: Iterable[int], total: int) -> list[int]:
    """Whole numbers in the proportions of `parts` that add up to `total`; the largest remainders are rounded up.

    Equal remainders go to the earlier part. Where all parts are 0, the first has everything.
    """
    given = list(parts)
    whole = sum(given)
    if not whole:
        return [total, *([0] * (len(given) - 1))]
    shares = [divmod(part * total, whole) for part in given]
    missing = total - sum(share for share, _ in shares)
    first = sorted(range(len(given)), key=lambda i: (-shares[i][1], i))[:missing]
    return [share + (i in first) for i, (share, _) in enumerate(shares)]


def limited(spent: Spent) -> Spent:
    """The same with at most `QUEUES_MAX` queues told apart; all but those that it went through first are `OTHER`."""
    queues = list(dict.fromkeys(one.queue for one in spent.shares))
    if len(queues) <= QUEUES_MAX:
        return spent
    kept = queues[: QUEUES_MAX - 1]
    named = (one if one.queue in kept else replace(one, queue=OTHER) for one in spent.shares)
    return Spent(tuple(named), spent.paused, spent.closed).plus(Spent())


def _mark(event: Payload) -> Mark | None:
    match event:
        case TicketQueued():
            return Mark(_utc(event.at), "queued", event.work_id, event.queue)
        case TicketRequeued():
            return Mark(_utc(event.at), "requeued", event.work_id, event.queue)
        case OfferMade():
            at = _utc(event.offered_at)
            return Mark(at, "offered", event.work_id, event.queue, event.reservation_id)
        case OfferWithdrawn():
            at = _utc(event.at)
            return Mark(at, "withdrawn", event.work_id, event.queue, event.reservation_id)
        case TicketAssigned():
            return Mark(_utc(event.assigned_at), "assigned", event.work_id, event.queue)
        case WorkReleased():
            return Mark(_utc(event.at), "released", event.work_id)
        case TicketStatusChanged() if event.status in HOLDING or event.before in HOLDING:
            return Mark(_utc(event.at), "status", name=_held(event.status))
        case TicketSolved():
            return Mark(_utc(min(event.occurred_at, event.at)), "status", name="solved")
        case TicketReopened():
            return Mark(_utc(min(event.occurred_at, event.at)), "status")
        case _:
            return None


def _held(status: str) -> str:
    return status if status in HOLDING else ""


def _utc(at: datetime) -> datetime:
    return at.astimezone(UTC)


def _at(mark: Mark) -> datetime:
    return mark.at


def _moved(standing: Standing, mark: Mark) -> Standing:
    """Where the ticket stands after `mark`."""
    if mark.what == "status":
        return replace(standing, status=mark.name)
    others = tuple(one for one in standing.works if one.work != mark.work)
    known = next((one for one in standing.works if one.work == mark.work), None)
    if mark.what == "released":
        if known is None:
            return standing
        queue = standing.queue if others else known.queue
        return replace(standing, works=others, queue=queue)
    if mark.what == "withdrawn":
        if known is None or mark.name not in known.offers:
            return standing
        left = tuple(one for one in known.offers if one != mark.name)
        works = tuple(replace(one, offers=left) if one is known else one for one in standing.works)
        return replace(standing, works=works)
    work = Work(mark.work, mark.queue)
    if mark.what == "assigned":
        work = replace(work, is_taken=True)
    elif mark.what == "offered" and known is not None:
        offers = tuple(one for one in known.offers if one != mark.name)
        work = replace(work, offers=(*offers, mark.name)[-OFFERS_MAX:])
    elif mark.what == "offered":
        work = replace(work, offers=(mark.name,))
    return replace(standing, works=(*others, work)[-WORKS_MAX:], queue=mark.queue)


def _after(standing: Standing, marks: Iterable[Mark]) -> Standing:
    for mark in marks:
        standing = _moved(standing, mark)
    return standing


def _stretches(
    timeline: Timeline, start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime, Where, str]]:
    """The time from `start` to `end` in pieces, each with who had the ticket, and in which queue."""
    first = bisect_right(timeline.marks, start, key=_at)
    standing = _after(timeline.base, timeline.marks[:first])
    inside = [mark for mark in timeline.marks[first:] if mark.at < end]
    edges = [start, *(mark.at for mark in inside), end]
    for number, (begin, stop) in enumerate(pairwise(edges)):
        if begin < stop:
            yield (begin, stop, *standing.place)
        if number < len(inside):
            standing = _moved(standing, inside[number])


def _counted(timeline: Timeline, clock: Clock, start: datetime, end: datetime) -> Spent:
    """Where the time from `start` to `end` went, by the marks that are there."""
    if end - start > HORIZON:
        return Spent(closed=(end - start) // _MICROSECOND)  # No calendar counts so far.
    sums: Counter[tuple[Where, str]] = Counter()
    for begin, stop, where, queue in _stretches(timeline, start, end):
        sums[where, queue] += elapsed(clock.calendar, begin, stop, clock.pauses) // _MICROSECOND
    opened = elapsed(clock.calendar, start, end) // _MICROSECOND
    return Spent(
        _shares(sums),
        paused=opened - sum(sums.values()),
        closed=(end - start) // _MICROSECOND - opened,
    )


def _shares(sums: Counter[tuple[Where, str]]) -> tuple[Share, ...]:
    return tuple(Share(*cell, micros) for cell, micros in sums.items() if micros)
