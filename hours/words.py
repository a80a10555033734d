"""When we open, in a form that any language can put into words: a day and a time on the reader's clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from hours.calendar import Calendar, is_open, next_opening


@dataclass(frozen=True, slots=True)
class Moment:
    """`day`: `today`, `tomorrow` or a date "YYYY-MM-DD"; `time`: "HH:MM", both on one zone's clock."""

    day: Literal["today", "tomorrow"] | str
    time: str


def moment(at: datetime, now: datetime, zone: ZoneInfo) -> Moment:
    """Say `at` as somebody in `zone` would who reads it at `now`. Seconds are rounded up: a promise is kept by then."""
    local = at.astimezone(zone)
    short = timedelta(seconds=local.second, microseconds=local.microsecond)
    if short:
        # From the instant, not from the clock: the minute may lie behind a jump.
        local = (at + (timedelta(minutes=1) - short)).astimezone(zone)
    today = now.astimezone(zone).date()
    ahead = (local.date() - today).days
    day = {0: "today", 1: "tomorrow"}.get(ahead, local.date().isoformat())
    return Moment(day, f"{local:%H:%M}")


def opening(calendar: Calendar, now: datetime, zone: ZoneInfo | None = None) -> Moment | None:
    """When the calendar opens next, on the clock of `zone` (None: its own); None while it is open, and if it never does.

    Raises:
        CalendarError: an instant without offset, or out of the years that calendars know.
    """
    if is_open(calendar, now):
        return None
    opens_at = next_opening(calendar, now)
    return None if opens_at is None else moment(opens_at, now, zone or calendar.zone)
