"""Slots to call a customer back in: whole stretches of open time on the quarter hour."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from hours.calendar import Calendar, CalendarError, is_open, next_opening, windows

QUARTER: Final = timedelta(minutes=15)
LOOK_AHEAD: Final = timedelta(days=366)
"""Slots further away are not offered: nobody waits a year for a call."""
COUNT_MAX: Final = 100
MINUTES_MAX: Final = 24 * 60

MEMO_MAX: Final = 64
"""Openings whose slots a calendar remembers."""


class Slot(NamedTuple):
    """From and to, half-open, in the calendar's local time with its offset."""

    begin: datetime
    end: datetime


def callback_slots(
    calendar: Calendar, after: datetime, count: int, minutes: int
) -> tuple[Slot, ...]:
    """Return the next `count` slots of `minutes` that begin at `after` or later, one behind the other.

    Each begins when the calendar's clock shows a quarter hour, and lies in one opening: a call never runs over a lunch
    break. Fewer come back, perhaps none, where the calendar has no more within a year.

    Raises:
        CalendarError: an instant without offset, a count outside 1 to 100, or a length outside 1 to 1,440 minutes.
    """
    if not 1 <= count <= COUNT_MAX:
        raise CalendarError("count", count, f"a number of slots, 1 to {COUNT_MAX}")
    if not 1 <= minutes <= MINUTES_MAX:
        raise CalendarError("minutes", minutes, f"a length in minutes, 1 to {MINUTES_MAX}")
    opens_at = None if is_open(calendar, after) else next_opening(calendar, after)
    if opens_at is None:
        return tuple(_slots(calendar, after, count, minutes))
    # Whoever asks while nobody works is offered what there is from the opening on, whenever that is asked.
    asked = (opens_at.astimezone(UTC), count, minutes)
    found = calendar.slots_memo.get(asked)
    if found is None:
        found = tuple(_slots(calendar, opens_at, count, minutes))
        if len(calendar.slots_memo) >= MEMO_MAX:
            calendar.slots_memo.clear()
        calendar.slots_memo[asked] = found
    return tuple(slot for slot in found if slot.begin - after <= LOOK_AHEAD)


def _slots(calendar: Calendar, after: datetime, count: int, minutes: int) -> list[Slot]:
    length = timedelta(minutes=minutes)
    slots: list[Slot] = []
    for opens, closes in windows(calendar, after):
        begin = _on_the_quarter(calendar, opens)
        while closes is None or begin + length <= closes:
            if begin - after > LOOK_AHEAD:
                return slots
            end = (begin + length).astimezone(UTC)
            slots.append(Slot(begin, _local(calendar, end)))
            if len(slots) == count:
                return slots
            begin = _on_the_quarter(calendar, end)
        if opens - after > LOOK_AHEAD:
            break
    return slots


def _on_the_quarter(calendar: Calendar, at: datetime) -> datetime:
    """The first instant from `at` on at which the calendar's clock shows a quarter hour."""
    instant = at.astimezone(UTC)
    while True:
        shown = instant.astimezone(calendar.zone)
        past = timedelta(
            minutes=shown.minute % 15, seconds=shown.second, microseconds=shown.microsecond
        )
        if not past:
            return _local(calendar, instant)
        # Once, but for a clock that is put back or forward by less than a quarter on the way.
        instant += QUARTER - past


def _local(calendar: Calendar, instant: datetime) -> datetime:
    """With a fixed offset, as all answers of `hours.calendar`."""
    local = instant.astimezone(calendar.zone)
    return datetime.fromisoformat(local.isoformat())
