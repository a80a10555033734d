"""The offline commands `signalbox sla due|elapsed|open --batch`, a line at a time.

Owns the form of their answers. Each function takes the object of one input line and returns the
object of its output line; what cannot be handled answers `{"id", "error"}` with one sentence that
names the field. Unknown fields of a line are ignored, those of a calendar refused. Instants are
RFC 3339 with an offset, in the calendar's zone, or in the offset of the question where no calendar
was given; sub-second digits are there only when they are not zero.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from hours.calendar import (
    Calendar,
    CalendarError,
    Pause,
    due,
    elapsed,
    is_open,
    next_opening,
    parse_calendar,
)

Answer = dict[str, object]

_INSTANT: Final = re.compile(
    r"\d{4}-\d\d-\d\dT([01]\d|2[0-3]):\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_AN_INSTANT: Final = 'an RFC 3339 instant with an offset, such as "2026-01-09T16:30:00+01:00"'
_PAUSES: Final = "a list of [from, to] pairs of instants; null for a pause that goes on"


def due_line(obj: object) -> Answer:
    """`{"id", "calendar"?, "start", "seconds", "pauses"?}` → `{"id", "due"}`.

    `due` is null if a pause without end (`[from, null]`) begins before the time has passed.
    """
    return _answer(obj, _due)


def elapsed_line(obj: object) -> Answer:
    """`{"id", "calendar"?, "start", "end", "pauses"?}` → `{"id", "seconds"}`.

    A whole number of seconds where it is one.
    """
    return _answer(obj, _elapsed)


def open_line(obj: object) -> Answer:
    """`{"id", "calendar"?, "at"}` → `{"id", "open", "next"}`.

    `next` is the next opening while closed; null while open, and if the calendar opens no more.
    """
    return _answer(obj, _open)


def _answer(obj: object, handle: Callable[[Mapping[str, object]], Answer]) -> Answer:
    if not isinstance(obj, Mapping):
        return {"id": None, "error": str(CalendarError("line", obj, "a JSON object"))}
    try:
        return {"id": obj.get("id")} | handle(obj)
    except CalendarError as error:
        return {"id": obj.get("id"), "error": str(error)}


def _due(line: Mapping[str, object]) -> Answer:
    start = _instant("start", line.get("start"))
    calendar, zone = _calendar(line, start)
    found = due(calendar, start, _seconds(line.get("seconds")), _pauses(line.get("pauses")))
    return {"due": None if found is None else _rfc3339(found, zone)}


def _elapsed(line: Mapping[str, object]) -> Answer:
    start = _instant("start", line.get("start"))
    end = _instant("end", line.get("end"))
    calendar, _ = _calendar(line, start)
    spent = elapsed(calendar, start, end, _pauses(line.get("pauses")))
    whole, rest = divmod(spent, timedelta(seconds=1))
    return {"seconds": spent.total_seconds() if rest else whole}


def _open(line: Mapping[str, object]) -> Answer:
    at = _instant("at", line.get("at"))
    calendar, zone = _calendar(line, at)
    if is_open(calendar, at):
        return {"open": True, "next": None}
    opening = next_opening(calendar, at)
    return {"open": False, "next": None if opening is None else _rfc3339(opening, zone)}


def _calendar(line: Mapping[str, object], asked_at: datetime) -> tuple[Calendar, tzinfo]:
    """The line's calendar, and the zone to answer in."""
    given = line.get("calendar")
    if given is None:
        return Calendar.always(), asked_at.tzinfo or UTC
    calendar = _shared(parse_calendar(given))
    return calendar, calendar.zone


@lru_cache(maxsize=256)
def _shared(calendar: Calendar) -> Calendar:
    """The first of equal calendars, with the open windows it has worked out already: a batch tends
    to repeat a few calendars on thousands of lines.
    """
    return calendar


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CalendarError("seconds", value, "a number of seconds, 0 or more")
    return value


def _pauses(value: object) -> list[Pause]:
    if value is None:
        return []
    if not isinstance(value, (list, tuple)):
        raise CalendarError("pauses", value, _PAUSES)
    pauses: list[Pause] = []
    for i, pair in enumerate(value):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise CalendarError(f"pauses[{i}]", pair, "a pair [from, to] of instants")
        begin, end = pair
        pauses.append(
            (
                _instant(f"pauses[{i}][0]", begin),
                None if end is None else _instant(f"pauses[{i}][1]", end),
            )
        )
    return pauses


def _instant(path: str, value: object) -> datetime:
    """Seconds may be left out; digits past the microsecond are cut off."""
    text = value.upper() if isinstance(value, str) else ""
    if not _INSTANT.fullmatch(text):
        raise CalendarError(path, value, _AN_INSTANT)
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:  # 30 February; an offset of a day.
        raise CalendarError(path, value, _AN_INSTANT) from error


def _rfc3339(at: datetime, zone: tzinfo) -> str:
    local = at.astimezone(zone)
    offset = local.utcoffset()
    if offset is not None and offset % timedelta(minutes=1):
        # Local mean time, such as Amsterdam's +00:19:32 of 1930, has no form in RFC 3339.
        local = at.astimezone(UTC)
    return local.isoformat()
