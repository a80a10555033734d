"""When an agent is on duty: within their calendar, or within a shift of their own; whoever has neither always is.

A calendar that the policy does not know is one that never opens, so a slip of the pen keeps work away and loses none.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from hours.calendar import Calendar, is_open, next_closing, next_opening
from services.router.core.assignment.capacity import Agent


def has_hours(agent: Agent) -> bool:
    """Whether there are times at which an agent is not on duty."""
    return agent.calendar is not None or bool(agent.shifts)


def on_duty(agent: Agent, now: datetime, calendars: Mapping[str, Calendar]) -> bool:
    """Whether an agent is on duty at `now`. Both times are half-open: on duty as it begins, off as it ends."""
    if not has_hours(agent):
        return True
    return _is_within(agent, now, calendars) or any(
        shift.starts_at <= now < shift.ends_at for shift in agent.shifts
    )


def _is_within(agent: Agent, at: datetime, calendars: Mapping[str, Calendar]) -> bool:
    calendar = calendars.get(agent.calendar) if agent.calendar is not None else None
    return calendar is not None and is_open(calendar, at)


def next_turn(agent: Agent, now: datetime, calendars: Mapping[str, Calendar]) -> datetime | None:
    """Return when an agent next goes on or off duty after `now`, in UTC; None where they never do."""
    if not has_hours(agent):
        return None
    calendar = calendars.get(agent.calendar) if agent.calendar is not None else None
    if not on_duty(agent, now, calendars):
        begins = [
            shift.starts_at for shift in agent.shifts if now < shift.starts_at < shift.ends_at
        ]
        opening = next_opening(calendar, now) if calendar is not None else None
        if opening is not None:
            begins.append(opening)
        return min((at.astimezone(UTC) for at in begins), default=None)
    at = now
    while True:
        # Times that meet or overlap are one: go to the end of the longest that covers this instant.
        ends = [shift.ends_at for shift in agent.shifts if shift.starts_at <= at < shift.ends_at]
        if calendar is not None and is_open(calendar, at):
            closing = next_closing(calendar, at)
            if closing is None:
                return None
            ends.append(closing)
        if not ends:
            return at.astimezone(UTC)
        at = max(ends)
