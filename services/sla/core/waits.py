"""How long customers waited for a first answer: measured waits, and the estimates made from them.

Owns `Estimates`, the immutable snapshot that promises and risks are worked out from, and its making (`cells_of`,
`corrected`, `snapshot`). Pure: rows and an instant in, a snapshot out; the same rows give the same snapshot and version.

**Which waits.** A wait is open time on the calendar of the ticket's first response, by the queue and channel the ticket
was opened with, that calendar and the local hour of the week at that instant. Waits of different calendars are never
compared: a second around the clock is another one than a second of opening hours. Where a cell has fewer than `min_samples` answered tickets
the next wider one is asked: hour of the week, part of the week, channel, queue. Where none has, nothing is known.

**Open tickets count.** One that still waits has waited at least so long: leaving it out would make a queue look the
faster the more of its tickets nobody answers. So the estimate is Kaplan and Meier's (1958), which counts it among those
at risk until its present age.

**Conservative.** The next ticket is one more that nobody has measured: it is kept at risk to the end, as a wait without
end. Without open tickets and with equal weights this is the order statistic `ceil((n + 1) * share)`, which a further
wait of the same kind is within with at least that probability, whatever the distribution (Vovk, Gammerman, Shafer 2005).

**Recent waits count more.** A wait's weight halves every quarter of the window. Weights are scaled to sum up to the number
of equal samples that would know as much (Kish 1965), so that old waits give wide estimates, not sure ones.
"""

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from operator import itemgetter
from typing import Final, Literal, NamedTuple

from hours.calendar import Calendar, is_open

HOURS: Final = 168
"""Hours of a week; 0 is Monday's first, local to the calendar."""

LEVELS: Final = tuple(n / 50 for n in range(1, 50))
"""The shares whose waits a cell keeps."""

CELL_MAX: Final = 2_000
"""Newest waits that a cell is made of, answered or not: more would not change it, and costs time."""

HALF_LIVES: Final = 4
"""How often a wait's weight halves within the window."""

STEP: Final = 0.03
"""How far one promise moves the correction, in logarithms: a broken one adds 3 %."""

FACTOR_MIN, FACTOR_MAX = 0.5, 4.0
"""No correction goes further. One below 1 only takes back what tickets ahead add: see `promise`."""

OUTCOMES_MAX: Final = 400
"""The latest promises of a queue that its correction is worked out from."""

AIMS: Final = (0.35, 0.6)
"""Parts of the way from the promised share to certainty: promises are made longer while fewer are kept than the first
says (93.5 % where 90 % is promised), and shorter while more are than the second says (96 %).
"""

Basis = Literal["hour", "part", "channel", "queue"]

_Weighed = tuple[float, bool, float, int]
"""Open seconds, whether it still waits, its weight (larger for newer ones), and the tickets ahead of it."""


class Wait(NamedTuple):
    """One ticket's wait: `seconds` of open time until it was answered, or until now where it still waits.

    `ahead` is how many unanswered tickets its queue would serve before it when it was opened.
    """

    queue: str
    channel: str
    calendar: str
    hour: int
    is_after_hours: bool
    opened_at: datetime
    seconds: float
    is_answered: bool
    ahead: int = 0


class Place(NamedTuple):
    """What a ticket's wait is compared with. `calendar` is the name of the one that its open time is counted on."""

    queue: str
    channel: str
    calendar: str
    hour: int
    is_after_hours: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """The waits of one kind of ticket: how many answered ones, and by which wait each of `LEVELS` was answered.

    `longest` is the wait of the share that is promised. Infinite: so many were not answered at all. `ahead` is how many
    tickets that share of them found before them, at most.
    """

    samples: int
    longest: float
    waits: tuple[float, ...]
    ahead: int = 0

    def crowding(self, ahead: int) -> float:
        """How much more is ahead than the promised share of these tickets found; 1 if it is not more."""
        return max(1.0, (ahead + 1) / (self.ahead + 1))

    def share_within(self, seconds: float) -> float:
        """The share answered within `seconds`, to two hundredths, rounded down."""
        n = bisect_right(self.waits, seconds)
        return LEVELS[n - 1] if n else 0.0

    def share_before(self, seconds: float) -> float:
        """The share answered in less than `seconds`, to two hundredths, rounded down."""
        n = bisect_left(self.waits, seconds)
        return LEVELS[n - 1] if n else 0.0


@dataclass(frozen=True, slots=True)
class Correction:
    """What the promises of a queue have taught: the factor on its waits, and the share of `n` that was kept."""

    factor: float = 1.0
    kept_share: float = 1.0
    n: int = 0


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue at the snapshot's instant, as a calendar counts.

    `waiting` are its unanswered tickets as (priority, opened at), in the order in which they are served, whatever calendar
    they go by; `answers` were given, to any of them, in those seconds of the last hour in which the calendar was open:
    `open_seconds`.
    """

    waiting: tuple[tuple[int, datetime], ...] = ()
    answers: int = 0
    open_seconds: float = 3600.0

    def ahead(self, priority: int, opened_at: datetime) -> int:
        """How many tickets are served before one of that priority and age."""
        return bisect_left(self.waiting, (priority, opened_at))


@dataclass(frozen=True, slots=True)
class Estimates:
    """All that is known of waits, as of `made_at`. `version` names it in what was decided with it.

    `queues` is by queue and calendar.
    """

    version: str = ""
    made_at: datetime | None = None
    cells: Mapping[tuple[str, ...], Cell] = field(default_factory=dict)
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    queues: Mapping[tuple[str, str], QueueState] = field(default_factory=dict)

    def cell(self, place: Place) -> tuple[Basis, Cell] | None:
        """The narrowest cell that holds enough waits like this one."""
        for basis, key in keys(place) if self.cells else ():
            found = self.cells.get(key)
            if found is not None:
                return basis, found
        return None

    def correction(self, queue: str) -> Correction:
        """What the queue's promises have taught so far; nothing, where there were none."""
        return self.corrections.get(queue) or Correction()


NOTHING_KNOWN: Final = Estimates()
"""The estimates of an installation without a past."""


def place_of(queue: str, channel: str, name: str, calendar: Calendar, opened_at: datetime) -> Place:
    """The cell of a ticket that was opened at `opened_at`; `name` is the calendar's."""
    local = opened_at.astimezone(calendar.zone)
    hour = local.weekday() * 24 + local.hour
    return Place(queue, channel, name, hour, not is_open(calendar, opened_at))


def part_of_week(place: Place) -> str:
    """The wider stretch an hour belongs to: closed, or a quarter of a working day or of a day at the weekend."""
    if place.is_after_hours:
        return "closed"
    day, hour = divmod(place.hour, 24)
    return f"{'weekend' if day >= 5 else 'weekday'}-{hour // 6}"


def keys(place: Place) -> tuple[tuple[Basis, tuple[str, ...]], ...]:
    """The cells that a place belongs to, the narrowest first."""
    queue, channel, calendar = place.queue, place.channel, place.calendar
    state = "closed" if place.is_after_hours else "open"
    return (
        ("hour", (queue, calendar, channel, "hour", f"{place.hour:03d}", state)),
        ("part", (queue, calendar, channel, "part", part_of_week(place))),
        ("channel", (queue, calendar, channel)),
        ("queue", (queue, calendar)),
    )


# ------------------------------------------------------------------------------- making estimates


def cells_of(
    waits: Iterable[Wait], now: datetime, *, share: float, min_samples: int, window: timedelta
) -> dict[tuple[str, ...], Cell]:
    """The cells with at least `min_samples` answered tickets opened within `window` before `now`."""
    groups: defaultdict[tuple[str, ...], list[_Weighed]] = defaultdict(list)
    known: dict[tuple[str, str, str, int, bool], tuple[list[_Weighed], ...]] = {}
    half_life = window / HALF_LIVES / timedelta(seconds=1)
    newest = window / timedelta(seconds=1)
    for wait in waits:
        queue, channel, calendar, hour, is_after_hours, opened_at, seconds, is_answered, ahead = (
            wait
        )
        age = (now - opened_at).total_seconds()
        if not 0 <= age <= newest:
            continue
        place = (queue, channel, calendar, hour, is_after_hours)
        found = known.get(place)
        if found is None:
            found = known[place] = tuple(groups[key] for _, key in keys(Place(*place)))
        weight = math.exp2(-age / half_life)
        one = (seconds, not is_answered, weight, ahead)
        for group in found:
            group.append(one)
    made = {}
    for key in sorted(groups):
        samples = sum(not one[1] for one in groups[key])
        if samples >= min_samples:
            taken = _newest(groups[key])
            *levels, longest = quantiles(taken, (*LEVELS, share))
            crowd = sorted(map(itemgetter(3), taken))[math.ceil(len(taken) * share) - 1]
            made[key] = Cell(samples, longest, tuple(levels), crowd)
    return made


def _newest(waits: list[_Weighed]) -> list[_Weighed]:
    """The newest waits by their opening, where there are very many.

    Answered or not: the open ones alone would make a queue look slower than any of its weeks was.
    """
    if len(waits) <= CELL_MAX:
        return waits
    # Not sorted whole: one sort of very many would stop the process, whatever thread it is in.
    return heapq.nlargest(CELL_MAX, waits, key=itemgetter(2, 0, 1))


def quantiles(waits: Iterable[_Weighed], levels: Sequence[float]) -> tuple[float, ...]:
    """The waits within which each of `levels` was answered; infinite where fewer ever were.

    `waits` are (seconds, still waiting, weight > 0, tickets ahead). The product-limit estimate with one further ticket at risk to the end.
    """
    ordered = sorted(waits)
    total = math.fsum(map(itemgetter(2), ordered))
    if not total:
        return (math.inf,) * len(levels)
    # As many equal samples as know what these do.
    scale = total / math.fsum(weight * weight for _, _, weight, _ in ordered)
    at_risk, unanswered = total * scale + 1.0, 1.0
    wanted = sorted((level, n) for n, level in enumerate(levels))
    found = [math.inf] * len(levels)
    reached, below = 0, 1.0
    for seconds, is_waiting, weight, _ in ordered:
        weight *= scale
        if not is_waiting:
            unanswered *= 1 - weight / at_risk
            if unanswered <= below:
                # Sums of weights are rounded: a share that is reached exactly must count as reached.
                while reached < len(wanted) and 1 - unanswered >= wanted[reached][0] - 1e-9:
                    found[wanted[reached][1]] = seconds
                    reached += 1
                if reached == len(wanted):
                    break
                below = 1 - wanted[reached][0] + 1e-9
        at_risk -= weight
    return tuple(found)


def corrected(outcomes: Sequence[bool], share: float) -> Correction:
    """What a queue's latest promises (kept or not, oldest first) say of its waits.

    Adaptive conformal inference in its quantile-tracking form (Gibbs and Candès 2021; Angelopoulos, Candès and Tibshirani
    2023), on the logarithm of the wait: every broken promise makes the next ones longer, every kept one a little shorter, so
    that in the long run the aimed share is kept whatever the waits do. Between the two aims nothing is corrected: above one
    the factor falls back to one, below one it rises back to one. Below one it goes only while nearly every promise is
    kept: then it is the old waits that are not true any more.
    """
    latest = outcomes[-OUTCOMES_MAX:]
    if not latest:
        return Correction()
    low, high = (STEP * (1 - share) * (1 - aim) for aim in AIMS)
    least, most = math.log(FACTOR_MIN), math.log(FACTOR_MAX)
    shift = 0.0
    for is_kept in latest:
        down = low if shift > 0 else high
        shift = max(shift - down, least) if is_kept else min(shift + STEP - down, most)
    return Correction(math.exp(shift), sum(latest) / len(latest), len(latest))


def snapshot(
    now: datetime,
    cells: Mapping[tuple[str, ...], Cell],
    corrections: Mapping[str, Correction],
    queues: Mapping[tuple[str, str], QueueState],
) -> Estimates:
    """Put a snapshot together and name it by what promises are made from."""
    digest = sha256()
    for key in sorted(cells):
        cell = cells[key]
        digest.update(repr((key, cell.samples, cell.longest, cell.ahead)).encode())
    for queue in sorted(corrections):
        digest.update(repr((queue, corrections[queue].factor)).encode())
    return Estimates(digest.hexdigest()[:12], now, cells, corrections, queues)
