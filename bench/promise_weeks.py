"""Simulated weeks of a support team, and the promises made in them from what was known at each instant only.

The team is a model of its own: tickets come by a weekly pattern, at night too; several people work one queue, first come
first served, in opening hours; they fall ill, the work grows, somebody leaves, one day goes wrong. Only arrivals and
handling times are drawn, from the seed. Promises and their corrections are the production code of `services/sla/core`.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple

from hours.calendar import Calendar, due, elapsed, parse_calendar
from services.sla.core.promise import Situation, promise, situation
from services.sla.core.promise_policy import PromisesModel
from services.sla.core.waits import (
    OUTCOMES_MAX,
    Cell,
    Correction,
    Estimates,
    Wait,
    cells_of,
    corrected,
)

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
"""A Monday; the clock does not change where the team works."""

WEEKDAY: Final = [["09:00", "18:00"]]
CALENDAR: Final = parse_calendar(
    {
        "timezone": "Europe/Istanbul",
        "hours": dict.fromkeys(("mon", "tue", "wed", "thu", "fri"), WEEKDAY)
        | {"sat": [["10:00", "14:00"]]},
    }
)

OFFICE, ALWAYS = "office", "24/7"
CALENDARS: Final = {OFFICE: CALENDAR, ALWAYS: Calendar.always()}
"""By which a ticket's wait is counted. The team works by the first; some tickets are promised by the second all the same."""

BY_HOUR: Final = {9: 1.5, 10: 1.4, 11: 1.1, 12: 0.8, 13: 0.8, 14: 1.0, 15: 1.0, 16: 0.9, 17: 0.6}
"""Arrivals by the local hour, as a multiple of the queue's mean; other hours have `NIGHT`."""

NIGHT: Final = 0.12
SATURDAY, SUNDAY = 0.6, 0.08
CHANNELS: Final = ("email", "chat")
EMAIL: Final = 0.6
SPREAD: Final = 0.8
"""Standard deviation of the logarithm of handling times."""


@dataclass(frozen=True, slots=True)
class Team:
    """Who works a queue: tickets an hour, people, the mean handling time in minutes, and the share counted around the clock."""

    queue: str
    per_hour: float
    people: int
    minutes: float
    always: float = 0.0


TEAMS: Final = (
    Team("service", 16.0, 6, 12.0, always=0.15),
    Team("returns", 9.0, 5, 15.0),
    Team("press", 0.8, 1, 20.0),
)
BIG: Final = ("service", "returns")
"""The queues with enough tickets for a share of their own."""


@dataclass(frozen=True, slots=True)
class Story:
    """What happens to the teams. Weeks count from 0.

    Handling times grow by `drift` a week from the third on. `illness` is the probability, for each person and day, that
    they are missing. On `bad_day` half of the people are, and a fifth more tickets come. From `leaves_week` on a queue of more
    than two has a person less, from `returns_week` on they are as many again. From `change_week` on handling takes `change`
    times as long, with a person more where `is_staffed`.
    """

    weeks: int = 8
    drift: float = 0.01
    illness: float = 0.06
    bad_day: int | None = 4 * 7 + 2
    leaves_week: int | None = 3
    returns_week: int | None = 5
    change_week: int | None = None
    change: float = 1.0


STEADY: Final = Story(drift=0.0, bad_day=None, leaves_week=None)
ORDINARY: Final = Story()
"""Drift, a person who leaves and one who comes, and a bad day."""

ABRUPT: Final = Story(bad_day=None, leaves_week=None, change_week=4, change=1.2)
"""From one Monday on all work takes 20 % longer, and nobody comes to help."""


class Ticket(NamedTuple):
    """One simulated ticket and what was promised. Instants are real, `waited` is seconds open by its calendar."""

    queue: str
    calendar: str
    opened_at: datetime
    answered_at: datetime
    waited: float
    by: datetime | None
    promised: float | None
    factor: float

    @property
    def is_kept(self) -> bool | None:
        """Whether the promise was kept; None: there was none."""
        return None if self.by is None else self.answered_at <= self.by


class _Came(NamedTuple):
    found: Situation
    answered_at: datetime
    opened: float
    done: float

    @property
    def calendar(self) -> str:
        return self.found.place.calendar

    def waited(self, now: datetime, opened: float) -> float:
        """How long it had waited by its calendar at `now`, `opened` open seconds of the team after the start."""
        if self.calendar == ALWAYS:
            return (min(self.answered_at, now) - self.found.at).total_seconds()
        return min(self.done, opened) - self.opened


def simulate(
    seed: int,
    story: Story = ORDINARY,
    policy: PromisesModel | None = None,
    *,
    adapts: bool = True,
) -> list[Ticket]:
    """Return the tickets of some weeks in the order they came. The same seed gives the same tickets.

    The waits are read anew every night, so that promises rest on what was known then; the outcomes of promises are
    heard of as they fall. Without `adapts` neither those nor the tickets ahead change a promise: for comparison.
    """
    model = policy or PromisesModel()
    came = sorted(
        (
            one
            for team in TEAMS
            for one in _work(
                random.Random(f"{seed}/{team.queue}"),
                random.Random(f"{seed}/{team.queue}/calendars"),
                team,
                story,
            )
        ),
        key=lambda one: (one.found.at, one.found.place.queue),
    )
    made: list[Ticket] = []
    outcomes: dict[str, list[bool]] = {team.queue: [] for team in TEAMS}
    corrections: dict[str, Correction] = {}
    settling: list[tuple[datetime, int, str, bool]] = []
    cells: dict[tuple[str, ...], Cell] = {}
    read_on: int | None = None
    for n, one in enumerate(came):
        now, queue = one.found.at, one.found.place.queue
        day = (now - START).days
        if day != read_on:
            read_on = day
            cells = _read(came[:n], now, model)
        while settling and settling[0][0] <= now:
            _, _, settled, is_kept = heappop(settling)
            outcomes[settled] = [*outcomes[settled][1 - OUTCOMES_MAX :], is_kept]
            corrections.pop(settled, None)
        if queue not in corrections and adapts:
            corrections[queue] = corrected(outcomes[queue], model.share)
        estimates = Estimates(made_at=now, cells=cells, corrections=corrections)
        found = one.found if adapts else one.found._replace(ahead=0)
        told = promise(found, CALENDARS[one.calendar], model, estimates)
        factor = estimates.correction(queue).factor
        by, seconds = (None, None) if told is None else (told.by, told.seconds)
        waited = one.waited(one.answered_at, one.done)
        made.append(Ticket(queue, one.calendar, now, one.answered_at, waited, by, seconds, factor))
        if by is not None:
            is_kept = one.answered_at <= by
            heappush(settling, (min(one.answered_at, by), n, queue, is_kept))
    return made


def _read(came: list[_Came], now: datetime, model: PromisesModel) -> dict[tuple[str, ...], Cell]:
    """Make the estimates of what was known at `now`: waits that had ended, and how long the others had lasted."""
    window = timedelta(weeks=model.window_weeks)
    opened = elapsed(CALENDAR, START, now).total_seconds()
    waits = [
        Wait(
            *one.found.place,
            one.found.at,
            one.waited(now, opened),
            one.done <= opened,
            one.found.ahead,
        )
        for one in came
        if one.found.at >= now - window
    ]
    return cells_of(waits, now, share=model.share, min_samples=model.min_samples, window=window)


def _work(
    draw: random.Random, calendars: random.Random, team: Team, story: Story
) -> Iterator[_Came]:
    """Yield a queue's tickets: several people, first come first served, in open time."""
    free: list[float] = [0.0] * team.people
    heapify(free)
    staffed_day = -1
    unanswered: list[float] = []
    for at, is_bad in _arrivals(draw, team, story):
        opened = elapsed(CALENDAR, START, at).total_seconds()
        day = (at.astimezone(CALENDAR.zone) - START.astimezone(CALENDAR.zone)).days
        if day != staffed_day:
            staffed_day = day
            _staff(free, _people(draw, team, story, day // 7, is_bad=is_bad), opened)
        begins = max(opened, free[0])
        done = begins + _handling(draw, team, story, day // 7)
        heapreplace(free, done)
        answered_at = due(CALENDAR, START, done)
        assert answered_at is not None
        channel = CHANNELS[draw.random() >= EMAIL]
        while unanswered and unanswered[0] <= opened:
            heappop(unanswered)
        name = ALWAYS if calendars.random() < team.always else OFFICE
        found = situation(team.queue, channel, name, CALENDARS[name], at, len(unanswered))
        heappush(unanswered, done)
        yield _Came(found, answered_at, opened, done)


def _arrivals(draw: random.Random, team: Team, story: Story) -> Iterator[tuple[datetime, bool]]:
    """Yield instants by thinning a Poisson process, and whether it is the bad day."""
    most = team.per_hour * max(BY_HOUR.values()) * 1.5
    at, end = START, START + timedelta(weeks=story.weeks)
    while True:
        at += timedelta(hours=draw.expovariate(most))
        if at >= end:
            return
        local = at.astimezone(CALENDAR.zone)
        is_bad = (at - START).days == story.bad_day
        share = BY_HOUR.get(local.hour, NIGHT) * {5: SATURDAY, 6: SUNDAY}.get(local.weekday(), 1.0)
        if draw.random() * most < team.per_hour * share * (1.2 if is_bad else 1.0):
            yield at, is_bad


def _people(draw: random.Random, team: Team, story: Story, week: int, *, is_bad: bool) -> int:
    has_left = story.leaves_week is not None and week >= story.leaves_week
    has_come = story.returns_week is not None and week >= story.returns_week
    n = team.people - (has_left and not has_come and team.people > 2)
    ill = sum(draw.random() < story.illness for _ in range(n))
    return max(1, n // 2 if is_bad else n - ill)


def _staff(free: list[float], n: int, opened: float) -> None:
    """Let people come, or go once they have finished what they do."""
    while len(free) < n:
        heappush(free, opened)
    while len(free) > n:
        heappop(free)


def _handling(draw: random.Random, team: Team, story: Story, week: int) -> float:
    grown = 1 + story.drift * max(0, week - 2)
    if story.change_week is not None and week >= story.change_week:
        grown *= story.change
    mean = team.minutes * 60 * grown
    return draw.lognormvariate(math.log(mean) - SPREAD**2 / 2, SPREAD)


def kept_share(
    tickets: list[Ticket],
    queue: str | None = None,
    from_week: int = 2,
    calendar: str | None = None,
) -> float:
    """Return the share of promises that were kept, of tickets opened from that week on, in a queue and by a calendar."""
    begin = START + timedelta(weeks=from_week)
    kept = [
        one.is_kept
        for one in tickets
        if one.is_kept is not None
        and one.opened_at >= begin
        and (queue is None or one.queue == queue)
        and (calendar is None or one.calendar == calendar)
    ]
    return sum(kept) / len(kept) if kept else math.nan
