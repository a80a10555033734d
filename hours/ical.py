"""iCalendar feeds (RFC 5545): which dates and hours somebody else's calendar closes.

Owns the way from a feed's bytes to its closures. All-day events are whole local dates; timed events close between two
instants, or between two local times where they name no zone. Cancelled events, and those marked as leaving one free
(`TRANSP:TRANSPARENT`), close nothing. Everything is bounded: bytes, events, repetitions and how far ahead they run.

A feed is read whole or not at all. An event that cannot be understood refuses the feed, and whoever reads it keeps the
last good one: a holiday that silently is none would be told to customers as a deadline.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from hours.calendar import YEARS

BYTES_MAX: Final = 1_048_576
EVENTS_MAX: Final = 10_000
OCCURRENCES_MAX: Final = 20_000
"""Dates and hours in all: half a century of closed days, or 4,000 a year of the five that are looked ahead."""
RULES_MAX: Final = 1_000
YEARS_AHEAD: Final = 5
SPAN_MAX: Final = timedelta(days=366)
"""A timed event lasts at most so long; a longer one is a slip, and would close a calendar for good."""

_BACK_TO: Final = date(2000, 1, 1)
"""Repetitions that ended before it are left out: no open clock looks back so far."""
_FREQUENCIES: Final = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_TEXT_MAX: Final = 200
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class FeedError(ValueError):
    """A feed that cannot be read. One sentence, with the event's UID where it is one event's fault."""


@dataclass(frozen=True, slots=True, order=True)
class WholeDays:
    """An all-day event: the local dates from `first` to `last`, both included."""

    first: date
    last: date
    uid: str
    summary: str

    def dates(self) -> Iterator[date]:
        """Each of its dates."""
        for i in range((self.last - self.first).days + 1):
            yield self.first + timedelta(days=i)


@dataclass(frozen=True, slots=True)
class Span:
    """A timed event, half-open: both ends in UTC, or both without offset (local time of the calendar that reads it)."""

    begin: datetime
    end: datetime
    uid: str
    summary: str


@dataclass(frozen=True, slots=True)
class FeedContent:
    """What a feed closes, in order of time. Equal contents close the same."""

    days: tuple[WholeDays, ...] = ()
    spans: tuple[Span, ...] = ()


def horizon(at: date) -> date:
    """Up to when repetitions are worked out for a feed that was good at `at`: five years on, from the year's beginning.

    It moves once a year, so that what a feed closes does not change from day to day.
    """
    return date(at.year + YEARS_AHEAD, 1, 1)


def read_feed(raw: bytes, until: date) -> FeedContent:
    """Read a feed; rules that repeat without end are followed up to `until`.

    Raises:
        FeedError: too large, not iCalendar, or with an event that nobody can understand.
    """
    if len(raw) > BYTES_MAX:
        raise FeedError(f"has more than {BYTES_MAX} bytes")
    events = _events(raw)
    if len(events) > EVENTS_MAX:
        raise FeedError(f"has {len(events)} events, more than {EVENTS_MAX}")
    if sum(1 for event in events if "RRULE" in event) > RULES_MAX:
        raise FeedError(f"has more than {RULES_MAX} events that repeat")
    days: list[WholeDays] = []
    spans: list[Span] = []
    left = OCCURRENCES_MAX
    for series in _series(events):
        for found in series.closures(until, left):
            if isinstance(found, WholeDays):
                days.append(found)
                left -= (found.last - found.first).days + 1
            else:
                spans.append(found)
                left -= 1
            if left < 0:
                raise FeedError(f"closes more than {OCCURRENCES_MAX} dates and hours in all")
    return FeedContent(
        tuple(sorted(set(days))),
        tuple(sorted(set(spans), key=lambda s: (s.begin.isoformat(), s.end.isoformat(), s.uid))),
    )


def _events(raw: bytes) -> list[Any]:
    from icalendar import Calendar

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise FeedError("is not UTF-8") from None
    if not text.lstrip().upper().startswith("BEGIN:VCALENDAR"):
        raise FeedError("is not an iCalendar file: it does not begin with BEGIN:VCALENDAR")
    try:
        calendars = Calendar.from_ical(text, multiple=True)
        if not calendars or not text.rstrip().upper().endswith("END:VCALENDAR"):
            raise FeedError("is cut off: END:VCALENDAR is missing")
        if any(str(one.name) != "VCALENDAR" for one in calendars):
            raise FeedError("is not an iCalendar file")
        return [event for one in calendars for event in one.walk("VEVENT")]
    except FeedError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # The parser's own errors derive from ValueError; the others are its slips on odd input.
        raise FeedError(f"cannot be read as iCalendar ({type(error).__name__})") from error


# ------------------------------------------------------------------------------- events and series

_Moment = date | datetime
"""A date (all day), a datetime in a zone, or one without (floating)."""


@dataclass(frozen=True, slots=True)
class _Event:
    """One VEVENT, with its times understood."""

    uid: str
    summary: str
    begin: _Moment
    length: timedelta
    sequence: int
    replaces: _Moment | None
    """The repetition that it stands for; None: it is the series itself."""
    closes: bool
    rules: tuple[Any, ...]
    more: tuple[tuple[_Moment, timedelta | None], ...]
    fewer: frozenset[_Moment]

    def closure(self, begin: _Moment, length: timedelta | None = None) -> WholeDays | Span | None:
        """What it closes if it begins then; None for no time at all, and for times nobody can ask about."""
        lasts = self.length if length is None else length
        if isinstance(begin, datetime):
            end = begin + lasts if begin.tzinfo is None else begin.astimezone(UTC) + lasts
            first, last = begin.date() - timedelta(days=1), end.date() + timedelta(days=1)
            if not lasts or first.year not in YEARS or last.year not in YEARS:
                return None
            start = begin if begin.tzinfo is None else begin.astimezone(UTC)
            return Span(start, end, self.uid, self.summary)
        last = begin + lasts - timedelta(days=1)
        if last < begin or begin.year not in YEARS or last.year not in YEARS:
            return None
        return WholeDays(begin, last, self.uid, self.summary)


@dataclass(frozen=True, slots=True)
class _Series:
    """What bears one UID: the series, and the repetitions that were changed or cancelled one by one."""

    masters: tuple[_Event, ...]
    overrides: tuple[_Event, ...]

    def closures(self, until: date, most: int) -> Iterator[WholeDays | Span]:
        """Everything it closes; repetitions up to `until`."""
        replaced = {_key(one.replaces) for one in self.overrides if one.replaces is not None}
        for master in self.masters:
            if not master.closes:
                continue
            for begin, length in _occurrences(master, until, most):
                if _key(begin) not in replaced and (made := master.closure(begin, length)):
                    yield made
        for one in self.overrides:
            if one.closes and (made := one.closure(one.begin)):
                yield made


def _series(events: Iterable[Any]) -> Iterator[_Series]:
    """The events by UID; of the same one twice, that with the higher SEQUENCE counts."""
    found: dict[str, dict[Any, _Event]] = {}
    for i, event in enumerate(events):
        read = _event(event, f"event-{i + 1}")
        # Two events without UID, or with the same by mistake and other times, both stand.
        key = ("at", read.begin) if read.replaces is None else _key(read.replaces)
        by_key = found.setdefault(read.uid, {})
        if key not in by_key or by_key[key].sequence <= read.sequence:
            by_key[key] = read
    for by_key in found.values():
        every = tuple(by_key.values())
        yield _Series(
            tuple(one for one in every if one.replaces is None),
            tuple(one for one in every if one.replaces is not None),
        )


def _key(moment: _Moment | None) -> Any:
    """Equal for equal repetitions, however their zone is written."""
    if isinstance(moment, datetime) and moment.tzinfo is not None:
        return moment.astimezone(UTC)
    return moment


def _event(event: Any, fallback: str) -> _Event:
    uid = _text(event.get("UID")) or fallback
    try:
        return _understood(event, uid)
    except FeedError:
        raise
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise FeedError(f"event {uid!r} cannot be understood ({type(error).__name__})") from error


def _understood(event: Any, uid: str) -> _Event:
    broken = [str(name) for name, _ in event.errors if name in _MATTERS]
    if broken:
        raise FeedError(f"event {uid!r}: {broken[0]} cannot be read")
    if "DTSTART" not in event:
        raise FeedError(f"event {uid!r} has no DTSTART")
    begin = _moment(event["DTSTART"], uid)
    replaces = event.get("RECURRENCE-ID")
    if replaces is not None and "RANGE" in replaces.params:
        raise FeedError(f"event {uid!r}: RECURRENCE-ID with RANGE is not understood")
    is_free = str(event.get("TRANSP", "OPAQUE")).upper() == "TRANSPARENT"
    is_cancelled = str(event.get("STATUS", "")).upper() == "CANCELLED"
    return _Event(
        uid=uid,
        summary=_text(event.get("SUMMARY")),
        begin=begin,
        length=_length(event, begin, uid),
        sequence=int(event.get("SEQUENCE", 0)),
        replaces=None if replaces is None else _moment(replaces, uid),
        closes=not is_free and not is_cancelled,
        rules=tuple(_many(event.get("RRULE"))),
        more=tuple(_added(event, uid)),
        fewer=frozenset(
            _key(_moment(one, uid)) for listed in _many(event.get("EXDATE")) for one in listed.dts
        ),
    )


_MATTERS: Final = frozenset(
    {
        "UID", "DTSTART", "DTEND", "DURATION", "RRULE", "RDATE", "EXDATE", "RECURRENCE-ID",
        "STATUS", "TRANSP", "SEQUENCE",
    }
)  # fmt: skip
"""Properties whose mistakes change what is closed; those of others do not matter here."""


def _many(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list) else (value,)


def _text(value: object) -> str:
    """A feed's text, fit to be shown in one line."""
    return _CONTROL.sub(" ", str(value)).strip()[:_TEXT_MAX] if value is not None else ""


def _moment(prop: Any, uid: str) -> _Moment:
    at = prop.dt
    if not isinstance(at, date):
        raise FeedError(f"event {uid!r}: {at!r:.60} is neither a date nor a time")
    if isinstance(at, datetime) and at.tzinfo is None and "TZID" in prop.params:
        zone = _text(prop.params["TZID"])
        raise FeedError(f"event {uid!r}: zone {zone!r} is unknown, and the feed does not define it")
    return at


def _length(event: Any, begin: _Moment, uid: str) -> timedelta:
    whole = not isinstance(begin, datetime)
    if "DTEND" in event:
        end = _moment(event["DTEND"], uid)
        if isinstance(end, datetime) == whole:
            raise FeedError(f"event {uid!r}: DTSTART and DTEND are not both dates or both times")
        length = _between(begin, end)
    elif "DURATION" in event:
        length = event["DURATION"].dt
        if whole and length % timedelta(days=1):
            raise FeedError(f"event {uid!r}: a DURATION that is not whole days")
    else:
        length = timedelta(days=1) if whole else timedelta(0)
    if length < timedelta(0):
        raise FeedError(f"event {uid!r} ends before it begins")
    if not whole and length > SPAN_MAX:
        raise FeedError(f"event {uid!r} lasts more than {SPAN_MAX.days} days")
    return timedelta(days=max(length.days, 1)) if whole else length


def _between(begin: _Moment, end: _Moment) -> timedelta:
    if isinstance(begin, datetime) and isinstance(end, datetime):
        if (begin.tzinfo is None) != (end.tzinfo is None):
            raise ValueError("one end with a zone and one without")
        # In UTC: two datetimes of one ZoneInfo would be subtracted by the wall clock.
        return end - begin if begin.tzinfo is None else end.astimezone(UTC) - begin.astimezone(UTC)
    return timedelta(days=end.toordinal() - begin.toordinal())


def _added(event: Any, uid: str) -> Iterator[tuple[_Moment, timedelta | None]]:
    """RDATE: single times, or periods with a length of their own."""
    for listed in _many(event.get("RDATE")):
        for one in listed.dts:
            at = one.dt
            if isinstance(at, tuple):
                begin, end = at
                yield begin, end if isinstance(end, timedelta) else _between(begin, end)
            else:
                yield _moment(one, uid), None


# --------------------------------------------------------------------------------------- repetition


def _occurrences(
    master: _Event, until: date, most: int
) -> Iterator[tuple[_Moment, timedelta | None]]:
    """When a series takes place, by its first event, its rules and its further dates, less the exceptions."""
    seen: set[Any] = set()
    given: list[tuple[_Moment, timedelta | None]] = [(master.begin, None), *master.more]
    for rule in master.rules:
        given.extend((at, None) for at in _repeated(master, rule, until, most))
    for at, length in given:
        key = _key(at)
        if key not in master.fewer and key not in seen:
            seen.add(key)
            yield at, length


def _repeated(master: _Event, rule: Any, until: date, most: int) -> Iterator[_Moment]:
    """The repetitions by one rule, in local time, so that ten o'clock stays ten o'clock in summer."""
    from dateutil.rrule import rrulestr

    begin = master.begin
    is_timed = isinstance(begin, datetime)
    wall = begin.replace(tzinfo=None) if isinstance(begin, datetime) else _midnight(begin)
    zone = begin.tzinfo if isinstance(begin, datetime) else None
    n = 0
    for at in rrulestr(_rule_text(master, rule), dtstart=wall, ignoretz=True):
        if at.date() >= until:
            return
        n += 1
        if n > most + 1:
            raise FeedError(
                f"event {master.uid!r} repeats more than {OCCURRENCES_MAX} times before {until};"
                " give its rule an end"
            )
        if at.date() < _BACK_TO:
            continue
        yield at.replace(tzinfo=zone) if is_timed else at.date()


def _rule_text(master: _Event, rule: Any) -> str:
    """The rule with UNTIL on the wall clock of its event, refused where working it out could go on and on."""
    parts = {str(name).upper(): list(_many(value)) for name, value in rule.items()}
    frequency = str(parts.get("FREQ", [""])[0]).upper()
    if frequency not in _FREQUENCIES:
        raise FeedError(
            f"event {master.uid!r} repeats {frequency or 'without FREQ'};"
            f" read are {', '.join(_FREQUENCIES)}"
        )
    finer = {"BYHOUR", "BYMINUTE", "BYSECOND", "BYYEARDAY", "BYWEEKNO"} & parts.keys()
    impossible = {"BYMONTH", "BYMONTHDAY"} <= parts.keys() and frequency in ("DAILY", "WEEKLY")
    if (finer and frequency != "YEARLY") or impossible:
        raise FeedError(f"event {master.uid!r} repeats by a rule too odd to be followed")
    changed = type(rule)(rule)
    if "UNTIL" in parts:
        changed["UNTIL"] = [_wall_until(master.begin, parts["UNTIL"][0])]
    return str(changed.to_ical().decode())


def _wall_until(begin: _Moment, until: _Moment) -> datetime:
    if not isinstance(until, datetime):
        return datetime.combine(until, time(23, 59, 59))
    if not isinstance(begin, datetime):
        return datetime.combine(until.date(), time(23, 59, 59))
    if until.tzinfo is not None and begin.tzinfo is not None:
        return until.astimezone(begin.tzinfo).replace(tzinfo=None)
    return until.replace(tzinfo=None)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time())
