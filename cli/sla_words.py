"""Times, lengths and calendars in words a person reads, for the commands of `signalbox sla`."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cli.errors import UsageMistake

if TYPE_CHECKING:
    from hours.calendar import Calendar

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))


def length(seconds: float) -> str:
    """Return a length in its two largest units: `2d 4h`, `1h 30m`, `45s`, `4ms`; a minus sign in front of a negative one."""
    if seconds < 0:
        return f"-{length(-seconds)}"
    if 0 < seconds < 1:
        return f"{max(1, round(seconds * 1000))}ms"
    rest = round(seconds)
    said: list[str] = []
    for size, unit in _UNITS:
        n, rest = divmod(rest, size)
        if n or said:
            said.append(f"{n}{unit}")
        if len(said) == 2:
            break
    if len(said) < 2 and (rest or not said):
        said.append(f"{rest}s")
    return " ".join(part for i, part in enumerate(said) if i == 0 or not part.startswith("0"))


def when(at: datetime, zone: tzinfo) -> str:
    """Return an instant in a zone: `Fri 9 Jan 2026 16:30`, with seconds and less where they are not zero."""
    local = at.astimezone(zone)
    return f"{day(local.date())} {local.year} {clock(local)}"


def clock(local: datetime) -> str:
    """Return a local time: `16:30`, `16:30:05`, `16:30:05.25`."""
    text = f"{local:%H:%M}"
    if local.second or local.microsecond:
        text += f":{local:%S}"
    if local.microsecond:
        text += f".{local:%f}".rstrip("0")
    return text


def day(on: date) -> str:
    """Return a date without its year: `Fri 9 Jan`."""
    return f"{on:%a} {on.day} {on:%b}"


def offset(at: datetime, zone: tzinfo) -> str:
    """Return the zone's name and its offset from UTC at an instant: `Europe/Berlin, +01:00`."""
    shown = at.astimezone(zone).strftime("%z")
    return f"{getattr(zone, 'key', zone)}, {shown[:3]}:{shown[3:5]}"


def zone(name: str) -> ZoneInfo:
    """Return the zone of that name.

    Raises:
        UsageMistake: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageMistake(
            f'--timezone: got {name!r}; give an IANA zone name such as "Europe/Istanbul".'
        ) from None


def instant(option: str, text: str, otherwise: tzinfo) -> datetime:
    """Return the instant that was typed: ISO 8601; without an offset it is local time of `otherwise`.

    Raises:
        UsageMistake: it is none.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageMistake(
            f'{option}: got {text!r}; give an instant such as "2026-01-09T16:30" (local time of the'
            ' calendar) or "2026-01-09T16:30:00+01:00".'
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=otherwise).astimezone(UTC)


def calendars(folder: Path) -> "dict[str, Calendar]":
    """Return the calendars of a policy folder by name.

    Raises:
        PolicyError: the file is missing or wrong; names path and value.
    """
    from chassis.errors import PolicyError
    from chassis.policy import parse, read_yaml
    from hours.calendar import CalendarError
    from hours.file import CALENDARS_FILE, CalendarsFile, read

    file = parse(CALENDARS_FILE, read_yaml(folder / CALENDARS_FILE), CalendarsFile)
    try:
        return dict(read(file, folder))
    except CalendarError as error:
        raise PolicyError(CALENDARS_FILE, error.path, error.value, error.allowed) from error


def windows(
    calendar: "Calendar", start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the stretches between two instants in which the calendar is open, in order."""
    from hours.calendar import windows as open_stretches

    for begin, closing in open_stretches(calendar, start):
        if begin >= end:
            return
        yield begin, end if closing is None else min(closing, end)


def without(
    stretches: Iterator[tuple[datetime, datetime]],
    cuts: "list[tuple[datetime, datetime | None]]",
) -> Iterator[tuple[datetime, datetime]]:
    """Yield the stretches less the cuts; a cut without an end goes on for ever."""
    for begin, end in stretches:
        at = begin
        for cut, until in sorted(cuts, key=lambda pair: pair[0]):
            if cut >= end or (until is not None and until <= at):
                continue
            if cut > at:
                yield at, cut
            if until is None:
                at = end
                break
            at = max(at, until)
        if at < end:
            yield at, end
