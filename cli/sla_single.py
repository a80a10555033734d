"""One question to a calendar of the policy, answered for a person: `signalbox sla due|elapsed|open` without `--batch`.

Owns the answers' form: an object for `--json`, and a few lines that show how the answer comes about.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cli import sla_words as words
from cli.errors import UsageMistake

if TYPE_CHECKING:
    from hours.calendar import Calendar

Stretch = tuple[datetime, datetime]
Pause = tuple[datetime, datetime | None]

ROWS_MAX: Final = 14
"""Open stretches that an answer shows; of more, the first and the last."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found: `data` for machines, `lines` for people."""

    data: dict[str, object]
    lines: tuple[str, ...]


def chosen(folder: Path, name: str) -> "Calendar":
    """Return the calendar of that name.

    Raises:
        UsageMistake: there is none; names those that there are.
        PolicyError: the file is missing or wrong.
    """
    found = words.calendars(folder)
    if name not in found:
        raise UsageMistake(f"--calendar: got {name!r}; give one of {', '.join(sorted(found))}.")
    return found[name]


def amount(text: str) -> timedelta:
    """Return the length that was typed.

    Raises:
        UsageMistake: it is none.
    """
    from services.sla.core.policy import parse_duration

    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageMistake(f"--within: got {text!r}; it {error}.") from None


def pauses(given: Sequence[str], zone: ZoneInfo) -> list[Pause]:
    """Return the pauses that were typed, each an interval of ISO 8601, `FROM/TO`; with nothing behind the stroke it goes on.

    Raises:
        UsageMistake: one is none, or ends before it begins.
    """
    found: list[Pause] = []
    for text in given:
        begin, stroke, end = text.partition("/")
        if not stroke:
            raise UsageMistake(
                f'--pause: got {text!r}; give FROM/TO, such as "2026-01-09T12:00/2026-01-09T13:00".'
            )
        since = words.instant("--pause", begin, zone)
        until = words.instant("--pause", end, zone) if end.strip() else None
        if until is not None and until < since:
            raise UsageMistake(f"--pause: {end} is before {begin}; give FROM before TO.")
        found.append((since, until))
    return found


def due(
    name: str, calendar: "Calendar", start: datetime, within: timedelta, held: Sequence[Pause]
) -> Answer:
    """When is a target of so much open time due, and how does that come about?"""
    from hours.calendar import due as due_at

    at = due_at(calendar, start, within, held)
    zone = calendar.zone
    data: dict[str, object] = {
        "calendar": name,
        "timezone": zone.key,
        "start": _iso(start, zone),
        "seconds": _number(within),
        "due": None if at is None else _iso(at, zone),
    }
    head = f"{_spoken(within)} on {name}, from {words.when(start, zone)}"
    if at is None:
        return Answer(
            data, (head, "Nobody can say when it is due: a pause without an end begins before.")
        )
    counted = list(words.without(words.windows(calendar, start, at), list(held)))
    return Answer(
        data,
        (head, *_rows(counted, zone), f"due {words.when(at, zone)}  ({words.offset(at, zone)})"),
    )


def elapsed(
    name: str, calendar: "Calendar", start: datetime, end: datetime, held: Sequence[Pause]
) -> Answer:
    """How much open, unpaused time lies between two instants?"""
    from hours.calendar import elapsed as open_between

    spent = open_between(calendar, start, end, held)
    zone = calendar.zone
    data: dict[str, object] = {
        "calendar": name,
        "timezone": zone.key,
        "start": _iso(start, zone),
        "end": _iso(end, zone),
        "seconds": _number(spent),
    }
    head = f"{name}, from {words.when(start, zone)} to {words.when(end, zone)}"
    counted = list(words.without(words.windows(calendar, start, end), list(held)))
    wall = end - start
    share = "" if wall <= timedelta(0) else f" of {_spoken(wall)} by the clock on the wall"
    return Answer(
        data, (head, *_rows(counted, zone), f"{_spoken(spent)} of open time{share}  ({zone.key})")
    )


def is_open(name: str, calendar: "Calendar", at: datetime) -> Answer:
    """Is the calendar open then, until when, and if not, when does it open?"""
    from hours.calendar import is_open as open_at
    from hours.calendar import next_closing, next_opening

    zone = calendar.zone
    is_now = open_at(calendar, at)
    change = next_closing(calendar, at) if is_now else next_opening(calendar, at)
    data: dict[str, object] = {
        "calendar": name,
        "timezone": zone.key,
        "at": _iso(at, zone),
        "open": is_now,
        "closes" if is_now else "opens": None if change is None else _iso(change, zone),
    }
    if change is None:
        text = "open, and it closes no more" if is_now else "closed, and it opens no more"
    else:
        verb = "open until" if is_now else "closed until"
        text = f"{verb} {words.when(change, zone)}, in {_spoken(change - at)}"
    place = words.offset(at, zone)
    return Answer(data, (f"{name}, {words.when(at, zone)}  ({place})", text))


def _rows(stretches: Sequence[Stretch], zone: ZoneInfo) -> Iterable[str]:
    """Yield a line a stretch with the sum so far: the arithmetic that a person would do on paper."""
    total = timedelta(0)
    left_out = len(stretches) - ROWS_MAX
    for place, (begin, end) in enumerate(stretches):
        total += end - begin
        if left_out > 0 and ROWS_MAX - 3 <= place < len(stretches) - 3:
            if place == ROWS_MAX - 3:
                yield f"  … {len(stretches) - ROWS_MAX} more stretches"
            continue
        first, last = begin.astimezone(zone), end.astimezone(zone)
        until = words.clock(last)
        if last.date() != first.date():
            until = "24:00" if until == "00:00" else f"{words.day(last.date())} {until}"
        span = f"{words.day(first.date()):<10}  {words.clock(first)}-{until}"
        yield f"  {span:<32}{_spoken(end - begin):>10}   {_spoken(total):>10}"


def _spoken(span: timedelta) -> str:
    """Return a length whole, in hours, minutes and seconds: sums of it can be checked by eye."""
    rest, micros = divmod(span // timedelta(microseconds=1), 1_000_000)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    said = [f"{hours}h"] if hours else []
    said += [f"{minutes}m"] if minutes else []
    said += [f"{seconds}{fraction}s"] if seconds or micros or not said else []
    return " ".join(said)


def _number(span: timedelta) -> float | int:
    whole, rest = divmod(span, timedelta(seconds=1))
    return span.total_seconds() if rest else whole


def _iso(at: datetime, zone: ZoneInfo) -> str:
    local = at.astimezone(zone)
    moved = local.utcoffset()
    if moved is not None and moved % timedelta(minutes=1):
        local = at.astimezone(UTC)  # Local mean time has no form in RFC 3339.
    return local.isoformat()
