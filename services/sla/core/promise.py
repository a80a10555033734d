"""What a customer can honestly be told about the wait, in words people use.

Owns the way from measured waits (`waits`) to a promise: which estimate, which correction, which words. Pure.

- The promise is the open time within which at least `share` of such tickets were answered, by what was known at that
  instant, times the correction of the queue; never less than the floor.
- Where more tickets are ahead of this one than that share of the measured ones found, it grows in proportion.
- It is rounded **up**: to 5, 10, 15, 20, 30 or 45 minutes, 1, 1½, 2, 3 or 4 hours where all of that is ahead without a
  closing time; else to a clock time on the calendar, the half hour today and the full hour on other days.
- It is never a time at which nobody works: rounding that would leave the opening hours stops at the closing time.
- Without an estimate nothing is told.
"""

import math
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from hours.calendar import (
    Calendar,
    CalendarHorizonError,
    due,
    elapsed,
    is_open,
    next_closing,
    next_opening,
)
from schemas.sla import PromiseWording
from services.sla.core.promise_policy import PromisesModel
from services.sla.core.waits import Basis, Estimates, Place, place_of

MINUTES: Final = (5, 10, 15, 20, 30, 45, 60, 90, 120, 180, 240)
"""The lengths people say; after four hours they say when."""

OPEN_SECONDS_MAX: Final = 400 * 86_400.0
"""Beyond that no calendar is asked: a wait of more than a year is none to promise."""


class Promise(NamedTuple):
    """A promise made at an instant: `seconds` is the open time up to `by`, `share_within` that of past waits it covers.

    `factor` is the queue's correction that is worked in.
    """

    by: datetime
    seconds: float
    wording: PromiseWording
    share_within: float
    samples: int
    basis: Basis
    factor: float


class Situation(NamedTuple):
    """A ticket at its opening: when, where it is compared, when anybody works again (None: now), and the tickets ahead."""

    at: datetime
    place: Place
    opens_at: datetime | None
    ahead: int = 0


def situation(
    queue: str, channel: str, name: str, calendar: Calendar, at: datetime, ahead: int = 0
) -> Situation:
    """Where a ticket stands that is opened at `at`; `name` is the calendar's, `opens_at` only while nobody works."""
    place = place_of(queue, channel, name, calendar, at)
    opens_at = next_opening(calendar, at) if place.is_after_hours else None
    return Situation(at, place, opens_at, ahead)


def promise(
    found: Situation, calendar: Calendar, policy: PromisesModel, estimates: Estimates
) -> Promise | None:
    """What can be promised, told or not; None where too little is known."""
    known = estimates.cell(found.place)
    if known is None:
        return None
    basis, cell = known
    factor = estimates.correction(found.place.queue).factor
    # What was measured is never undercut: a factor below one takes back from the tickets ahead alone.
    seconds = cell.longest * max(factor * cell.crowding(found.ahead), 1.0)
    if not seconds <= OPEN_SECONDS_MAX:
        return None
    seconds = max(seconds, policy.floor_minutes * 60)
    try:
        by, wording = worded(calendar, found.at, seconds)
    except CalendarHorizonError:
        return None  # Open so seldom that nobody lives to see it.
    told = elapsed(calendar, found.at, by).total_seconds()
    return Promise(by, told, wording, cell.share_within(told), cell.samples, basis, factor)


def worded(calendar: Calendar, at: datetime, seconds: float) -> tuple[datetime, PromiseWording]:
    """The instant and the words for `seconds` of open time from `at`, rounded up; `at` is finite and within the calendar."""
    minutes = next((m for m in MINUTES if m * 60 >= seconds), None)
    if minutes is not None and is_open(calendar, at):
        by = due(calendar, at, minutes * 60)
        if by is not None and by - at == timedelta(minutes=minutes):
            return by, _words(calendar, at, by, minutes)
    # Whole seconds, so that a wait is never rounded down on its way to the clock.
    reached = due(calendar, at, math.ceil(seconds))
    assert reached is not None  # Only a pause without end hides a deadline, and there is none.
    by = _on_the_clock(calendar, at, reached)
    return by, _words(calendar, at, by, None)


def _on_the_clock(calendar: Calendar, at: datetime, reached: datetime) -> datetime:
    """The first clock time people name that is not before `reached`, or the closing time before it."""
    local = reached.astimezone(calendar.zone)
    is_today = local.date() == at.astimezone(calendar.zone).date()
    step = 30 if is_today else 60
    past = timedelta(
        minutes=local.minute % step, seconds=local.second, microseconds=local.microsecond
    )
    # The sum is made over instants: an hour that the clock shows twice is not skipped.
    rounded = reached + (timedelta(minutes=step) - past) if past else reached
    if not is_open(calendar, reached):
        return reached  # Due at a closing time.
    closes_at = next_closing(calendar, reached)
    return rounded if closes_at is None or rounded <= closes_at else closes_at


def _words(calendar: Calendar, at: datetime, by: datetime, minutes: int | None) -> PromiseWording:
    here, there = at.astimezone(calendar.zone), by.astimezone(calendar.zone)
    day, time = there.date(), f"{there:%H:%M}"
    if time == "00:00" and day > here.date():
        day, time = day - timedelta(days=1), "24:00"  # The end of a day, not the next one's start.
    days = (day - here.date()).days
    return PromiseWording(
        kind="by" if minutes is None else "within",
        minutes=minutes,
        day={0: "today", 1: "tomorrow"}.get(days, day.isoformat()),
        time=time,
        timezone=calendar.timezone,
    )
