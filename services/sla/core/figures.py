"""A report's figures: how many tickets, how long they waited, what was kept of what was promised, where the time went.

Owns the definitions. All are of a stretch of time `[since, until)`, and each thing counts when it
happened: a ticket when it was opened, a solution when it was given, an answer when it was given, a
promise when its verdict fell (kept: when it was met; broken: at its deadline, answered since or not).
Waits are open, unpaused time, as the clocks count it. Nothing is rounded here.

A quantile is the smallest value that so many of the values do not exceed (nearest rank): one that occurred.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from typing import Final, Literal
from zoneinfo import ZoneInfo

By = Literal["queue", "channel", "priority", "day"]

PARTS: Final = ("queue", "offer", "work", "pause", "closed")
"""Where time goes, in the order of a ticket's life."""

RESPONSES: Final = ("first_response", "next_response", "later_response")
"""The targets that an answer to the customer meets."""

STEPS: Final = (300, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 86_400, 3 * 86_400)
"""The upper ends of the bars of first responses, in seconds; the last bar is what is longer."""

WORST_MAX: Final = 10
"""How many of the latest answers a report names."""


@dataclass(frozen=True, slots=True)
class Case:
    """A ticket. `stretches` are when it was open; `status` where it stands now."""

    ticket_id: str
    opened_queue: str
    queue: str
    channel: str
    priority: int
    status: str
    opened_at: datetime
    stretches: tuple[tuple[datetime, datetime | None], ...]


@dataclass(frozen=True, slots=True)
class Clock:
    """A target. `breached_at` is there while the breach stands, `elapsed` (seconds, open and unpaused) once it was met."""

    kind: str
    ticket_id: str
    reference: str
    queue: str
    channel: str
    priority: int | None
    status: str
    started_at: datetime
    settled_at: datetime | None
    breached_at: datetime | None
    elapsed: float | None


@dataclass(frozen=True, slots=True)
class Retraction:
    """A breach that was taken back at `at`."""

    queue: str
    channel: str
    priority: int | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Spent:
    """Where the time to a first response went, in milliseconds by `PARTS`; `at` is when it was over."""

    queue: str
    channel: str
    priority: int | None
    at: datetime
    ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """A wait that a customer was told of, and whether it was kept; `at` is when that was known."""

    queue: str
    channel: str
    priority: int | None
    at: datetime
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is made from. `orders` are those of days in the report's zone that are known.

    `openings` are the tickets again, as they are grouped by where they were opened (none given: as `cases`).
    """

    cases: Sequence[Case] = ()
    openings: Sequence[Case] | None = None
    clocks: Sequence[Clock] = ()
    retractions: Sequence[Retraction] = ()
    spent: Sequence[Spent] = ()
    told: Sequence[Told] = ()
    orders: Mapping[date, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waits:
    """Waits in seconds; None where there were none."""

    n: int = 0
    average: float | None = None
    median: float | None = None
    p90: float | None = None
    longest: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Promises whose verdict fell: kept, broken (and not taken back); `retracted` breaches are told apart."""

    kept: int = 0
    broken: int = 0
    retracted: int = 0

    @property
    def share(self) -> float | None:
        """The share that was kept; None where no verdict fell."""
        n = self.kept + self.broken
        return self.kept / n if n else None


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a stretch of time, whole or of one group."""

    opened: int
    solved: int
    reopened: int
    spam: int
    first_response: Waits
    first_kept: Kept
    responses_kept: Kept
    resolution: Waits
    resolution_kept: Kept
    backlog: int
    backlog_unanswered: int
    backlog_median: float | None
    backlog_oldest: float | None
    spent_ms: tuple[int, ...]
    told: int
    told_kept: int
    orders: int
    ordered_opened: int

    @property
    def reopen_rate(self) -> float | None:
        """Reopenings for each solution."""
        return self.reopened / self.solved if self.solved else None

    @property
    def told_share(self) -> float | None:
        """The share of the times that customers were told and that were kept."""
        return self.told_kept / self.told if self.told else None

    @property
    def contact_ratio(self) -> float | None:
        """Tickets for each order, over the days whose orders are known."""
        return self.ordered_opened / self.orders if self.orders else None

    def share_of(self, part: str) -> float | None:
        """The share of the time to a first response that went to a part of `PARTS`."""
        total = sum(self.spent_ms)
        return self.spent_ms[PARTS.index(part)] / total if total else None


@dataclass(frozen=True, slots=True)
class Day:
    """One day of the report's zone: tickets opened and solved in it, and open at its end."""

    day: date
    opened: int
    solved: int
    backlog: int
    kept: Kept


@dataclass(frozen=True, slots=True)
class Report:
    """All figures. `hours` has, by weekday and hour of the opening, first promises kept and broken; `bars` first responses by `STEPS`."""

    since: datetime
    until: datetime
    zone: str
    by: By
    total: Figures
    groups: tuple[tuple[str, Figures], ...]
    days: tuple[Day, ...]
    hours: Mapping[tuple[int, int], Kept]
    bars: tuple[int, ...]
    worst: tuple[Clock, ...]


def quantile(values: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile of sorted values; None of none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


def waits(values: Iterable[float]) -> Waits:
    """What is said of a number of waits."""
    ordered = sorted(values)
    if not ordered:
        return Waits()
    return Waits(
        len(ordered),
        math.fsum(ordered) / len(ordered),
        quantile(ordered, 0.5),
        quantile(ordered, 0.9),
        ordered[-1],
    )


def report(
    facts: Facts, since: datetime, until: datetime, zone: ZoneInfo, by: By, now: datetime
) -> Report:
    """Work out the report. What is open is looked at when the stretch ends, or `now` where that is later."""
    ends_at = min(until, now)
    days = _days(since, ends_at, zone)
    total = _figures(facts, since, until, ends_at, zone)
    groups = _groups(facts, since, until, ends_at, zone, by, days)
    clocks = [c for c in facts.clocks if c.kind == "first_response"]
    return Report(
        since=since,
        until=until,
        zone=zone.key,
        by=by,
        total=total,
        groups=groups,
        days=_by_day(facts, days, since, until, ends_at, zone),
        hours=_hours(clocks, since, until, zone),
        bars=_bars(_answered(clocks, since, until)),
        worst=_worst(facts.clocks, since, until, ends_at),
    )


def _figures(
    facts: Facts, since: datetime, until: datetime, ends_at: datetime, zone: ZoneInfo
) -> Figures:
    openings = facts.cases if facts.openings is None else facts.openings
    opened = [case for case in openings if since <= case.opened_at < until]
    left = [case for case in facts.cases if _is_open(case, ends_at)]
    ages = sorted((ends_at - case.opened_at).total_seconds() for case in left)
    unanswered = {c.ticket_id for c in facts.clocks if _is_owed(c, ends_at)}
    firsts = [c for c in facts.clocks if c.kind == "first_response"]
    resolutions = [c for c in facts.clocks if c.kind == "resolution"]
    spent = [one.ms for one in facts.spent if since <= one.at < until]
    told = [one for one in facts.told if since <= one.at < until]
    orders = {day: n for day, n in facts.orders.items() if since <= _midnight(day, zone) < until}
    return Figures(
        opened=len(opened),
        solved=sum(1 for _ in _solutions(facts.cases, since, until)),
        reopened=_reopened(facts.cases, since, until),
        spam=sum(case.status == "spam" for case in opened),
        first_response=waits(_answered(firsts, since, until)),
        first_kept=_kept(firsts, facts.retractions, since, until),
        responses_kept=_kept([c for c in facts.clocks if c.kind in RESPONSES], (), since, until),
        resolution=waits(_answered(resolutions, since, until)),
        resolution_kept=_kept(resolutions, (), since, until),
        backlog=len(left),
        backlog_unanswered=sum(case.ticket_id in unanswered for case in left),
        backlog_median=quantile(ages, 0.5),
        backlog_oldest=ages[-1] if ages else None,
        spent_ms=tuple(sum(parts) for parts in zip(*spent, strict=True)) or (0,) * len(PARTS),
        told=len(told),
        told_kept=sum(one.is_kept for one in told),
        orders=sum(orders.values()),
        ordered_opened=sum(case.opened_at.astimezone(zone).date() in orders for case in opened),
    )


def _groups(
    facts: Facts,
    since: datetime,
    until: datetime,
    ends_at: datetime,
    zone: ZoneInfo,
    by: By,
    days: Sequence[date],
) -> tuple[tuple[str, Figures], ...]:
    if by == "day":
        return tuple(
            (day.isoformat(), _figures(facts, *_bounds(day, zone, ends_at), zone)) for day in days
        )
    named: list[Case | Clock] = [*facts.cases, *facts.clocks]
    names = {_name(one, by) for one in named}
    if by == "queue":
        names |= {one.opened_queue or "unknown" for one in facts.cases}
    return tuple(
        (name, _figures(_only(facts, by, name), since, until, ends_at, zone))
        for name in sorted(names)
    )


def _only(facts: Facts, by: By, name: str) -> Facts:
    """The facts of one group. Orders belong to no queue, channel or priority."""
    opened_here = [one for one in facts.cases if (one.opened_queue or "unknown") == name]
    return Facts(
        cases=[one for one in facts.cases if _name(one, by) == name],
        openings=opened_here if by == "queue" else None,
        clocks=[one for one in facts.clocks if _name(one, by) == name],
        retractions=[one for one in facts.retractions if _name(one, by) == name],
        spent=[one for one in facts.spent if _name(one, by) == name],
        told=[one for one in facts.told if _name(one, by) == name],
    )


def _name(one: Case | Clock | Retraction | Spent | Told, by: By) -> str:
    """The group that something belongs to; a ticket's queue is where it stands now, or stood last."""
    match by:
        case "channel":
            return one.channel or "unknown"
        case "priority":
            return "unknown" if one.priority is None else str(one.priority)
        case _:
            return one.queue or "unknown"


def _is_open(case: Case, at: datetime) -> bool:
    return any(begin < at and (end is None or at <= end) for begin, end in case.stretches)


def _is_owed(clock: Clock, at: datetime) -> bool:
    """Whether a first response was still owed just before `at`."""
    return (
        clock.kind == "first_response"
        and clock.started_at < at
        and (clock.settled_at is None or at <= clock.settled_at)
    )


def _solutions(cases: Iterable[Case], since: datetime, until: datetime) -> Iterator[datetime]:
    """When solutions were given: ends of stretches, other than those that a merge or spam is."""
    for case in cases:
        last = len(case.stretches) - 1
        for place, (_, end) in enumerate(case.stretches):
            is_aside = place == last and case.status in ("spam", "merged")
            if end is not None and since <= end < until and not is_aside:
                yield end


def _reopened(cases: Iterable[Case], since: datetime, until: datetime) -> int:
    return sum(since <= begin < until for case in cases for begin, _ in case.stretches[1:])


def _answered(clocks: Iterable[Clock], since: datetime, until: datetime) -> list[float]:
    return [
        clock.elapsed
        for clock in clocks
        if clock.status == "met"
        and clock.elapsed is not None
        and clock.settled_at is not None
        and since <= clock.settled_at < until
    ]


def _verdict(clock: Clock) -> tuple[datetime, bool] | None:
    """When a promise's verdict fell, and whether it was kept; None: it has none yet, or ended without one."""
    if clock.breached_at is not None:
        return clock.breached_at, False
    if clock.status == "met" and clock.settled_at is not None:
        return clock.settled_at, True
    return None


def _kept(
    clocks: Iterable[Clock], retractions: Iterable[Retraction], since: datetime, until: datetime
) -> Kept:
    verdicts = [found for clock in clocks if (found := _verdict(clock)) is not None]
    inside = [is_kept for at, is_kept in verdicts if since <= at < until]
    retracted = sum(since <= one.at < until for one in retractions)
    return Kept(sum(inside), len(inside) - sum(inside), retracted)


def _hours(
    clocks: Iterable[Clock], since: datetime, until: datetime, zone: ZoneInfo
) -> dict[tuple[int, int], Kept]:
    """First promises by the weekday and the hour in which the customer wrote."""
    found: dict[tuple[int, int], Kept] = {}
    for clock in clocks:
        verdict = _verdict(clock)
        if verdict is None or not since <= verdict[0] < until:
            continue
        local = clock.started_at.astimezone(zone)
        before = found.get((local.weekday(), local.hour), Kept())
        found[local.weekday(), local.hour] = Kept(
            before.kept + verdict[1], before.broken + (not verdict[1])
        )
    return found


def _bars(values: Iterable[float]) -> tuple[int, ...]:
    bars = [0] * (len(STEPS) + 1)
    for value in values:
        bars[next((i for i, step in enumerate(STEPS) if value <= step), len(STEPS))] += 1
    return tuple(bars)


def _worst(
    clocks: Iterable[Clock], since: datetime, until: datetime, ends_at: datetime
) -> tuple[Clock, ...]:
    """The broken responses that were, or still are, the latest; ties by ticket."""
    broken = [
        (lateness(clock, ends_at), clock)
        for clock in clocks
        if clock.kind in RESPONSES
        and clock.breached_at is not None
        and since <= clock.breached_at < until
    ]
    broken.sort(key=lambda pair: (-pair[0].total_seconds(), pair[1].ticket_id, pair[1].kind))
    return tuple(clock for _, clock in broken[:WORST_MAX])


def lateness(clock: Clock, ends_at: datetime) -> timedelta:
    """How long after its deadline a broken promise was answered, or has not been, by the clock on the wall."""
    assert clock.breached_at is not None
    return max(timedelta(0), (clock.settled_at or ends_at) - clock.breached_at)


def _days(since: datetime, ends_at: datetime, zone: ZoneInfo) -> list[date]:
    first = since.astimezone(zone).date()
    last = (ends_at - timedelta(microseconds=1)).astimezone(zone).date()
    return [first + timedelta(days=i) for i in range((last - first).days + 1)]


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


def _bounds(day: date, zone: ZoneInfo, ends_at: datetime) -> tuple[datetime, datetime, datetime]:
    begin, end = _midnight(day, zone), _midnight(day + timedelta(days=1), zone)
    return begin, end, min(end, ends_at)


def _by_day(
    facts: Facts,
    days: Sequence[date],
    since: datetime,
    until: datetime,
    ends_at: datetime,
    zone: ZoneInfo,
) -> tuple[Day, ...]:
    def day_of(at: datetime) -> date:
        return at.astimezone(zone).date()

    opened = Counter(day_of(c.opened_at) for c in facts.cases if since <= c.opened_at < until)
    solved = Counter(day_of(at) for at in _solutions(facts.cases, since, until))
    kept: Counter[tuple[date, bool]] = Counter()
    for clock in facts.clocks:
        verdict = _verdict(clock) if clock.kind == "first_response" else None
        if verdict is not None and since <= verdict[0] < until:
            kept[day_of(verdict[0]), verdict[1]] += 1
    # Each stretch is in the backlog of the days whose ends it covers; the sums of its edges say how many are.
    ends = [_bounds(day, zone, ends_at)[2] for day in days]
    edges = [0] * (len(ends) + 1)
    for case in facts.cases:
        for begin, end in case.stretches:
            edges[bisect_right(ends, begin)] += 1
            edges[len(ends) if end is None else bisect_right(ends, end)] -= 1
    return tuple(
        Day(day, opened[day], solved[day], backlog, Kept(kept[day, True], kept[day, False]))
        for day, backlog in zip(days, accumulate(edges), strict=False)
    )
