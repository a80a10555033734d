"""Business calendars: when the SLA clocks run, and the arithmetic of open time.

Owns the calendar's format (`parse_calendar`), the one mapping from local times to instants, and the
functions `due`, `elapsed`, `is_open`, `next_opening` and `next_closing`. All are pure: aware
datetimes in, the calendar's local time with its offset out, exact to the microsecond. The offset is
a fixed one: datetimes that carry a `ZoneInfo` compare by the wall clock among themselves, and in a
repeated hour equal no other datetime at all (PEP 495), which no deadline may depend on.

**Real time counts.** Sums are made over UTC instants, so an hour is 3,600 elapsed seconds, also in
the night in which the clock jumps. Windows are half-open: a calendar that closes at 17:00 is open
at 16:59:59.999999 and closed at 17:00:00.

**Local times.** A local time means the first instant at which the zone's clock shows it *or a later
time*. A time that the clock skips in spring is therefore the instant of the jump (hours from 02:30
begin at 03:00 summer time), a time shown twice in autumn is its first showing (hours to 02:30 end
before the clock goes back, hours from 02:30 begin before it and run on), and a date that the zone
skipped as a whole (Pacific/Apia, 2011-12-30) has no hours. The rule is the same for openings and
closings, and it never swaps two times; so intervals that meet on paper meet in time, with neither
hole nor overlap, and open time adds up. For repeated times RFC 5545 (3.3.5) chooses the same
instant; for skipped ones it takes the offset before the jump, which would let hours from 02:30
begin at 03:30 and turn the interval 02:30-03:00 around.

Errors:
    ValueError
    └── CalendarError             a calendar, instant, amount or pause that cannot be used
        └── CalendarHorizonError  an answer further away than `HORIZON`
"""

import math
import re
import reprlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Self
from zoneinfo import ZoneInfo

HORIZON: Final = timedelta(days=36_525)
"""A hundred years: no answer lies further from its start, so that every search ends."""

YEARS: Final = range(1900, 2501)
"""The years whose dates and instants are taken; others are slips of the pen or of a program."""

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
"""The keys of `hours`, in the order of `date.weekday()`."""

Interval = tuple[int, int]
"""Opening and closing in seconds after the local midnight; past 86,400 is the next date."""

LocalTime = tuple[date, int]
"""A date and the seconds after its local midnight, 0 to 86,400."""

Pause = tuple[datetime, datetime | None]
"""From and to, aware; `None` where nobody has resumed yet."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL: Final = _EPOCH.toordinal()
_SECOND: Final = 1_000_000  # All sums are in microseconds after the epoch: exact, and fast.
_DAY_SECONDS: Final = 86_400
_DAY: Final = _DAY_SECONDS * _SECOND
_BLOCK_DAYS: Final = 32
_BLOCK: Final = _BLOCK_DAYS * _DAY
_HORIZON: Final = HORIZON.days * _DAY
_EARLIEST: Final = (date(YEARS[0], 1, 1).toordinal() - _EPOCH_ORDINAL) * _DAY
_LATEST: Final = (date(YEARS[-1] + 1, 1, 1).toordinal() - _EPOCH_ORDINAL) * _DAY
_UNENDING: Final = 1 << 62
_MEMO_BLOCKS: Final = 2_048  # The horizon has 1,142; a block is 3 KB at one window a day.

_TIME: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?", re.ASCII)
_MIDNIGHT: Final = re.compile(r"24:00(?::00)?")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

_SECTIONS: Final = ("timezone", "hours", "holidays", "dates", "closures")
_A_ZONE: Final = 'an IANA zone name such as "Europe/Berlin"'
_A_TIME: Final = 'a local time in quotes, "HH:MM" or "HH:MM:SS", with "24:00" for the end of a day'
_A_DATE: Final = f'a date "YYYY-MM-DD" from {YEARS[0]} to {YEARS[-1]}'
_A_LOCAL_TIME: Final = (
    f'a local time without offset, "YYYY-MM-DDTHH:MM[:SS]", from {YEARS[0]} to {YEARS[-1]}'
)
_INTERVALS: Final = 'a list of [open, close] pairs such as [["09:00", "17:00"]]; [] is closed'
_AN_INSTANT: Final = f"an instant with its offset from UTC, from {YEARS[0]} to {YEARS[-1]}"

_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


class CalendarError(ValueError):
    """What was given cannot be used. `path` says where, `value` what stood there (`None`: nothing),
    `allowed` what may stand there; the text is all three in one sentence.
    """

    def __init__(self, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{path}: got {_shown(value)}; give {allowed}.")
        self.path = path
        self.value = value
        self.allowed = allowed


class CalendarHorizonError(CalendarError):
    """The answer lies more than `HORIZON` after the start: the calendar opens too seldom for the
    amount asked, or never again.
    """


def _shown(value: object) -> str:
    """A short form of any value; deep nesting and giant numbers included."""
    if value is None:
        return "nothing"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    if isinstance(value, (date, timedelta)):
        return str(value)
    return _REPR.repr(value)


# ------------------------------------------------------------------------------ windows and blocks

_Window = tuple[int, int]  # UTC microseconds, half-open.


def _union(windows: Iterable[_Window]) -> list[_Window]:
    """The same time as sorted windows that neither touch nor overlap; empty ones fall away."""
    merged: list[_Window] = []
    for start, end in sorted(windows):
        if end <= start:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _without(windows: Iterable[_Window], cuts: Sequence[_Window]) -> Iterator[_Window]:
    """`windows` less `cuts`; both sorted and disjoint."""
    for start, end in windows:
        opening = start
        i = bisect_right(cuts, start, key=itemgetter(1))  # The first cut that ends after `start`.
        while i < len(cuts) and cuts[i][0] < end:
            if opening < cuts[i][0]:
                yield opening, cuts[i][0]
            opening = cuts[i][1]
            i += 1
        if opening < end:
            yield opening, end


@dataclass(frozen=True, slots=True)
class _Block:
    """The open windows of one stretch of `_BLOCK` microseconds, clipped to it, in order; with
    sums of open time, so that any question about the stretch is one bisection.
    """

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    before: tuple[int, ...]  # The block's open microseconds before each window.
    total: int

    @classmethod
    def of(cls, windows: Iterable[_Window]) -> Self:
        starts: list[int] = []
        ends: list[int] = []
        before: list[int] = []
        total = 0
        for start, end in windows:
            starts.append(start)
            ends.append(end)
            before.append(total)
            total += end - start
        return cls(tuple(starts), tuple(ends), tuple(before), total)

    def is_open(self, at: int) -> bool:
        i = bisect_right(self.starts, at) - 1
        return i >= 0 and at < self.ends[i]

    def open_until(self, at: int) -> int:
        """Open microseconds from the block's beginning to `at`."""
        i = bisect_right(self.starts, at) - 1
        if i < 0:
            return 0
        return self.before[i] + min(at, self.ends[i]) - self.starts[i]

    def instant_after(self, amount: int) -> int:
        """The first instant with `amount` open microseconds behind it; 0 < amount <= total."""
        i = bisect_left(self.before, amount) - 1
        return self.starts[i] + amount - self.before[i]


# ------------------------------------------------------------------------------------ the calendar


@dataclass(frozen=True, slots=True)
class Calendar:
    """When clocks run, in one zone. Equal calendars are open at the same instants, and hash alike.

    `hours` holds the intervals of Monday to Sunday. An interval belongs to the date on which it
    starts, with its tail past midnight: a holiday removes the intervals of its date, and leaves the
    tail that the evening before reaches into it. `dates` replaces the hours of a date, holiday or
    not. `closures` cuts out whatever is open between two local times, `shut` between two instants
    (events of a feed, which come with zones of their own).

    Open windows are worked out 32 days at a time and kept in `memo`, at most 2,048 of them. The
    memo changes no answer and takes no part in comparison; nor does `slots_memo`, which belongs to `hours.slots`.
    """

    timezone: str
    hours: tuple[tuple[Interval, ...], ...]
    holidays: frozenset[date] = frozenset()
    dates: tuple[tuple[date, tuple[Interval, ...]], ...] = ()
    closures: tuple[tuple[LocalTime, LocalTime], ...] = ()
    shut: tuple[tuple[datetime, datetime], ...] = ()
    zone: ZoneInfo = field(init=False, compare=False, repr=False)
    exceptions: Mapping[date, tuple[Interval, ...]] = field(init=False, compare=False, repr=False)
    cuts: tuple[_Window, ...] = field(init=False, compare=False, repr=False)
    settled_at: int = field(init=False, compare=False, repr=False)
    memo: dict[int, _Block] = field(init=False, compare=False, repr=False)
    slots_memo: dict[tuple[datetime, int, int], Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.hours) != len(DAYS):
            raise CalendarError("hours", self.hours, "the intervals of seven days")
        zone = ZoneInfo(self.timezone)
        exceptions = dict.fromkeys(self.holidays, ()) | dict(self.dates)
        cuts = _union(
            chain(
                ((_instant(zone, *begin), _instant(zone, *end)) for begin, end in self.closures),
                ((_micros(begin), _micros(end)) for begin, end in self.shut),
            )
        )
        # After the last exception's tail only the week repeats; offsets are below a day.
        last = max((day.toordinal() + 3 for day in exceptions), default=0) - _EPOCH_ORDINAL
        derived = {
            "zone": zone,
            "exceptions": exceptions,
            "cuts": tuple(cuts),
            "settled_at": max(last * _DAY, cuts[-1][1] if cuts else _EARLIEST),
            "memo": {},
            "slots_memo": {},
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @staticmethod
    @cache
    def always() -> "Calendar":
        """Open at every instant; its zone is UTC."""
        return Calendar("UTC", (((0, _DAY_SECONDS),),) * len(DAYS))

    def never_opens(self) -> bool:
        """Whether no instant at all is open. Weekly hours outlast every exception."""
        if any(self.hours):
            return False
        windows = _union(w for day, _ in self.dates for w in self._windows_of(day))
        return next(_without(windows, self.cuts), None) is None

    def block(self, index: int) -> _Block:
        """The open windows from `index` * 32 days after the epoch, for 32 days."""
        known = self.memo.get(index)
        if known is None:
            known = self._make_block(index)
            if len(self.memo) >= _MEMO_BLOCKS:
                self.memo.clear()
            self.memo[index] = known
        return known

    def _make_block(self, index: int) -> _Block:
        begin, end = index * _BLOCK, (index + 1) * _BLOCK
        # A window starts at most two days and an offset before the instants it covers.
        first = index * _BLOCK_DAYS - 3
        offsets = [_offset(self.zone, day) for day in range(first - 1, first + _BLOCK_DAYS + 9)]
        windows: list[_Window] = []
        for i in range(_BLOCK_DAYS + 5):
            day = date.fromordinal(_EPOCH_ORDINAL + first + i)
            # The midnights around a date and its tail. Since 1900 no zone has changed its offset
            # twice within three days (tz database 2026), so equal ends of a day mean no change.
            around = offsets[i : i + 5]
            if around.count(around[0]) == len(around):
                midnight = (first + i) * _DAY - around[0]
                windows.extend(
                    (midnight + opens * _SECOND, midnight + closes * _SECOND)
                    for opens, closes in self._intervals_of(day)
                )
            else:
                windows.extend(self._windows_of(day))
        clipped = ((max(opens, begin), min(closes, end)) for opens, closes in windows)
        merged = _union(clipped)
        return _Block.of(_without(merged, self.cuts) if self.cuts else merged)

    def _windows_of(self, day: date) -> Iterator[_Window]:
        """What belongs to the local date `day`, tails included, closures not yet cut out."""
        for opens, closes in self._intervals_of(day):
            yield _instant(self.zone, day, opens), _instant(self.zone, day, closes)

    def _intervals_of(self, day: date) -> tuple[Interval, ...]:
        return self.exceptions.get(day, self.hours[day.weekday()])


def _offset(zone: ZoneInfo, day: int) -> int:
    """The zone's offset in microseconds at UTC midnight, `day` days after the epoch."""
    offset = (_EPOCH + timedelta(days=day)).astimezone(zone).utcoffset()
    return 0 if offset is None else (offset.days * _DAY_SECONDS + offset.seconds) * _SECOND


def _instant(zone: ZoneInfo, day: date, seconds: int) -> int:
    """The first instant at which the zone's clock shows `seconds` after midnight of `day`, or a
    later time: see the module's docstring for what that means on the nights of a jump.
    """
    wall = datetime.combine(day, time(), zone) + timedelta(seconds=seconds)
    first, second = _micros(wall), _micros(wall.replace(fold=1))
    if first <= second:
        return first
    # Skipped by the clock (PEP 495: only then does fold=1 come first). The jump lies after `second`
    # and not after `first`; halving finds it.
    shown = wall.replace(tzinfo=None)
    while first - second > 1:
        middle = (first + second) // 2
        if _moment(zone, middle).replace(tzinfo=None) < shown:
            second = middle
        else:
            first = middle
    return first


def _micros(at: datetime) -> int:
    since = at - _EPOCH
    return (since.days * _DAY_SECONDS + since.seconds) * _SECOND + since.microseconds


def _moment(zone: ZoneInfo, micros: int) -> datetime:
    local = (_EPOCH + timedelta(microseconds=micros)).astimezone(zone)
    return local.replace(tzinfo=timezone(local.utcoffset() or timedelta(0)), fold=0)


# ------------------------------------------------------------------------- questions to a calendar


def due(
    calendar: Calendar,
    start: datetime,
    seconds: float | timedelta,
    pauses: Iterable[Pause] = (),
) -> datetime | None:
    """The first instant at which `seconds` of open, unpaused time have passed since `start`.

    `None` if a pause without end begins before that: nobody can say yet. An amount that is used up
    exactly at a closing time is due at that closing time, one used up exactly as a pause begins is
    due there; nothing to wait for is due at `start`, open or not. Pauses may overlap (time counts
    once), come in any order and lie before `start`. Fractions of a second count to the microsecond.

    Raises `CalendarError` for an instant without offset or out of `YEARS`, a negative amount and a
    pause that ends before it begins; `CalendarHorizonError` for an answer beyond `HORIZON`.
    """
    at = _checked("start", start)
    left = _amount(seconds)
    found = _due(calendar, at, left, _spans(pauses), seconds)
    return None if found is None else _moment(calendar.zone, found)


def dues(
    calendar: Calendar,
    start: datetime,
    amounts: Sequence[timedelta],
    pauses: Sequence[Pause] = (),
) -> list[datetime | None]:
    """`due` of each amount, as instants in UTC: what a clock asks together costs one look at its start and its pauses.

    Raises what `due` raises, for the first amount that has no answer.
    """
    at = _checked("start", start)
    left = [_amount(one) for one in amounts]
    spans = _spans(pauses) if pauses else []
    instants: list[datetime | None] = []
    for micros, amount in zip(left, amounts, strict=True):
        found = _due(calendar, at, micros, spans, amount)
        instants.append(None if found is None else _EPOCH + timedelta(microseconds=found))
    return instants


def elapsed(
    calendar: Calendar, start: datetime, end: datetime, pauses: Iterable[Pause] = ()
) -> timedelta:
    """The open, unpaused time from `start` to `end`. A pause without end lasts to `end`.

    Raises `CalendarError` as `due` does, and for an `end` before `start`; `CalendarHorizonError`
    where they lie further apart than `HORIZON`.
    """
    at, until = _checked("start", start), _checked("end", end)
    if until < at:
        raise CalendarError("end", end, f"an instant not before the start, {start}")
    if until - at > _HORIZON:
        raise CalendarHorizonError("end", end, f"an instant within {HORIZON.days} days of start")
    total = 0
    for pause_begin, pause_end in _spans(pauses):
        if pause_begin >= until:
            break
        if pause_begin > at:
            total += _opened(calendar, at, pause_begin)
        at = max(at, min(pause_end, until))
    return timedelta(microseconds=total + _opened(calendar, at, until))


def is_open(calendar: Calendar, at: datetime) -> bool:
    """Whether the clocks run at `at`: open at an opening time, closed at a closing time."""
    micros = _checked("at", at)
    return calendar.block(micros // _BLOCK).is_open(micros)


def next_opening(calendar: Calendar, at: datetime) -> datetime | None:
    """The first opening later than `at`; while open, the one after the next closing. `None` if
    there is none: always open from now on, or only dates listed and all of them past.
    """
    micros = _checked("at", at)
    for start, _ in _windows_from(calendar, micros):
        if start > micros:
            return _moment(calendar.zone, start)
    return None


def next_closing(calendar: Calendar, at: datetime) -> datetime | None:
    """The first closing later than `at`; while closed, the one after the next opening. `None` if
    there is none: always open from now on, or only dates listed and all of them past.
    """
    micros = _checked("at", at)
    for _, end in _windows_from(calendar, micros):
        return None if end == _UNENDING else _moment(calendar.zone, end)
    return None


def windows(calendar: Calendar, at: datetime) -> Iterator[tuple[datetime, datetime | None]]:
    """The open stretches that end after `at`, in order, each from its beginning (the first from `at`
    if it began before) to its end; `None` where nothing follows but open time.

    There may be many thousands: take as many as you need.
    """
    micros = _checked("at", at)
    for start, end in _windows_from(calendar, micros):
        opening = _moment(calendar.zone, max(start, micros))
        yield opening, None if end == _UNENDING else _moment(calendar.zone, end)


def _windows_from(calendar: Calendar, at: int) -> Iterator[_Window]:
    """Open windows that end after `at`, joined across blocks, the first perhaps without its past.
    One still open when nothing but full weeks can follow ends at `_UNENDING`.
    """
    index = at // _BLOCK
    # A block holds four weeks: what two of them after the last exception do not show never comes.
    last = min(max(at, calendar.settled_at), at + _HORIZON) // _BLOCK + 2
    pending: _Window | None = None
    while index <= last:
        block = calendar.block(index)
        for start, end in zip(block.starts, block.ends, strict=True):
            if pending is not None and pending[1] == start:
                pending = (pending[0], end)
                continue
            if pending is not None and pending[1] > at:
                yield pending
            pending = (start, end)
        index += 1
    if pending is not None and pending[1] > at:
        yield (pending[0], _UNENDING if pending[1] == index * _BLOCK else pending[1])


def _due(
    calendar: Calendar, at: int, left: int, spans: Iterable[_Window], asked: float | timedelta
) -> int | None:
    """`due` in microseconds; `spans` are the pauses, sorted and joined, `asked` is the amount as it was given."""
    limit = at + _HORIZON
    for begin, end in spans:
        if left == 0 or begin >= limit:
            break
        if end <= at:
            continue
        if begin > at:
            opened = _opened(calendar, at, begin)
            if left <= opened:
                break
            left -= opened
        if end == _UNENDING:
            return None
        at = end
    found = _advance(calendar, at, left, limit) if left else at
    if found is None:
        raise CalendarHorizonError(
            "seconds",
            asked,
            f"an amount for which the calendar is open within {HORIZON.days} days of the start",
        )
    return found


def _opened(calendar: Calendar, start: int, end: int) -> int:
    """Open microseconds from `start` to `end`; `start` <= `end`."""
    index, last = start // _BLOCK, end // _BLOCK
    opened = -calendar.block(index).open_until(start)
    while index < last:
        opened += calendar.block(index).total
        index += 1
    return opened + calendar.block(last).open_until(end)


def _advance(calendar: Calendar, at: int, amount: int, limit: int) -> int | None:
    """The first instant with `amount` > 0 open microseconds since `at`; `None` if after `limit`."""
    if at > limit:
        return None
    index = at // _BLOCK
    block = calendar.block(index)
    amount += block.open_until(at)
    while amount > block.total:
        amount -= block.total
        index += 1
        if index * _BLOCK > limit:
            return None
        block = calendar.block(index)
    found = block.instant_after(amount)
    return found if found <= limit else None


# --------------------------------------------------------------------------- arguments, made exact


def _checked(path: str, at: datetime) -> int:
    if at.tzinfo is not UTC and at.utcoffset() is None:
        raise CalendarError(path, at, _AN_INSTANT)
    micros = _micros(at)
    if not _EARLIEST <= micros < _LATEST:
        raise CalendarError(path, at, _AN_INSTANT)
    return micros


def _amount(seconds: float | timedelta) -> int:
    if isinstance(seconds, timedelta):
        micros = (seconds.days * _DAY_SECONDS + seconds.seconds) * _SECOND + seconds.microseconds
    elif isinstance(seconds, int):
        micros = seconds * _SECOND
    elif math.isfinite(seconds * _SECOND):
        micros = round(seconds * _SECOND) if seconds >= 0 else -1
    else:
        raise CalendarError("seconds", seconds, "a finite number of seconds, 0 or more")
    if micros < 0:
        raise CalendarError("seconds", seconds, "a number of seconds, 0 or more")
    return micros


def _spans(pauses: Iterable[Pause]) -> list[_Window]:
    """The pauses, sorted and joined. Far ends are no error here: many write 9999 for "open"."""
    spans: list[_Window] = []
    for i, (begin, end) in enumerate(pauses):
        if begin.utcoffset() is None:
            raise CalendarError(f"pauses[{i}][0]", begin, "an instant with its offset from UTC")
        if end is not None and end.utcoffset() is None:
            raise CalendarError(f"pauses[{i}][1]", end, "an instant with its offset from UTC")
        span = _micros(begin), _UNENDING if end is None else _micros(end)
        if span[1] < span[0]:
            raise CalendarError(f"pauses[{i}][1]", end, f"an instant not before {begin}")
        spans.append(span)
    return _union(spans)


# -------------------------------------------------------------------------------------- the format


def parse_calendar(mapping: object, path: str = "calendar") -> Calendar:
    """A calendar from its form in `calendars.yaml` and in `signalbox sla`.

    `timezone`: IANA name · `hours`: mon … sun, each a list of [open, close]; a day left out is
    closed · `holidays`: dates · `dates`: date to intervals · `closures`: pairs of local times.
    The first two are required. (`hours.file` takes countries and feeds besides.) Times are "HH:MM[:SS]", "24:00" ends a day; a closing time that is
    not later than its opening time is the next date's. Intervals may overlap: time counts once.
    Dates may also be the `date` objects that YAML makes of them. Raises `CalendarError` naming the
    place below `path`; also for a calendar that never opens.
    """
    given = _mapping(path, mapping, f"a mapping with {', '.join(_SECTIONS)}")
    for key in given:
        if key not in _SECTIONS:
            raise CalendarError(f"{path}.{_key(key)}", given[key], f"only {', '.join(_SECTIONS)}")
    calendar = Calendar(
        timezone=_parse_zone(f"{path}.timezone", given.get("timezone")),
        hours=_parse_hours(f"{path}.hours", given.get("hours")),
        holidays=frozenset(
            parse_date(f"{path}.holidays[{i}]", day)
            for i, day in enumerate(_optional_list(f"{path}.holidays", given.get("holidays")))
        ),
        dates=_parse_dates(f"{path}.dates", given.get("dates")),
        closures=tuple(
            sorted(
                _parse_closure(f"{path}.closures[{i}]", closure)
                for i, closure in enumerate(
                    _optional_list(f"{path}.closures", given.get("closures"))
                )
            )
        ),
    )
    if calendar.never_opens():
        raise CalendarError(
            f"{path}.hours",
            given["hours"],
            "at least one open interval, here or in dates, that no closure cuts away",
        )
    return calendar


def _parse_zone(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise CalendarError(path, value, _A_ZONE)
    try:
        return ZoneInfo(value).key
    except (KeyError, ValueError, OSError) as error:  # Unknown; not a name; a folder of zones.
        raise CalendarError(path, value, _A_ZONE) from error


def _parse_hours(path: str, value: object) -> tuple[tuple[Interval, ...], ...]:
    given = _mapping(path, value, f"a mapping from {', '.join(DAYS)} to lists of [open, close]")
    for key in given:
        if key not in DAYS:
            raise CalendarError(
                f"{path}.{_key(key)}", given[key], f"only the days {', '.join(DAYS)}"
            )
    return tuple(_parse_intervals(f"{path}.{day}", given.get(day, ())) for day in DAYS)


def _parse_dates(path: str, value: object) -> tuple[tuple[date, tuple[Interval, ...]], ...]:
    if value is None:
        return ()
    given = _mapping(path, value, "a mapping from dates to lists of [open, close]")
    days: dict[date, tuple[Interval, ...]] = {}
    for key, intervals in given.items():
        place = f"{path}.{_key(key)}"
        days[parse_date(place, key)] = _parse_intervals(place, intervals)
    return tuple(sorted(days.items()))


def _parse_intervals(path: str, value: object) -> tuple[Interval, ...]:
    pairs = enumerate(_list(path, value, _INTERVALS))
    return tuple(sorted({parse_interval(f"{path}[{i}]", pair) for i, pair in pairs}))


def parse_interval(path: str, value: object) -> Interval:
    """One [open, close] of a day. Raises `CalendarError` as `parse_calendar` does."""
    opens, closes = _pair(path, value, 'a pair [open, close] such as ["09:00", "17:00"]')
    begin = _parse_time(f"{path}[0]", opens)
    end = _parse_time(f"{path}[1]", closes)
    if begin == _DAY_SECONDS:
        raise CalendarError(f"{path}[0]", opens, 'an opening time before "24:00"')
    if begin == end:
        raise CalendarError(
            path, value, 'a closing time that differs from the opening; "24:00" ends a day'
        )
    return begin, end if end > begin else end + _DAY_SECONDS


def _parse_closure(path: str, value: object) -> tuple[LocalTime, LocalTime]:
    begins, ends = _pair(path, value, "a pair [from, to] of local times")
    begin = _parse_local_time(f"{path}[0]", begins)
    end = _parse_local_time(f"{path}[1]", ends)
    if end <= begin:
        raise CalendarError(f"{path}[1]", ends, f"a local time later than {_shown(begins)}")
    return begin, end


def _parse_local_time(path: str, value: object) -> LocalTime:
    if isinstance(value, datetime) and value.tzinfo is None and not value.microsecond:
        value = value.isoformat()
    if not isinstance(value, str):
        raise CalendarError(path, value, _A_LOCAL_TIME)
    day, _, clock = value.partition("T")
    try:
        return parse_date(path, day), _parse_time(path, clock)
    except CalendarError as error:
        raise CalendarError(path, value, _A_LOCAL_TIME) from error


def _parse_time(path: str, value: object) -> int:
    """Seconds after midnight, 0 to 86,400."""
    if not isinstance(value, str):
        raise CalendarError(path, value, _A_TIME)
    if _MIDNIGHT.fullmatch(value):
        return _DAY_SECONDS
    match = _TIME.fullmatch(value)
    if match is None:
        raise CalendarError(path, value, _A_TIME)
    hour, minute, second = match.groups("0")
    return int(hour) * 3600 + int(minute) * 60 + int(second)


def parse_date(path: str, value: object) -> date:
    """A date "YYYY-MM-DD", or one that YAML has read. Raises `CalendarError` as `parse_calendar`."""
    if isinstance(value, date) and not isinstance(value, datetime):
        day = value
    elif isinstance(value, str) and _DATE.fullmatch(value):
        try:
            day = date.fromisoformat(value)
        except ValueError as error:  # 30 February.
            raise CalendarError(path, value, _A_DATE) from error
    else:
        raise CalendarError(path, value, _A_DATE)
    if day.year not in YEARS:
        raise CalendarError(path, value, _A_DATE)
    return day


def _mapping(path: str, value: object, allowed: str) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise CalendarError(path, value, allowed)
    return value


def _list(path: str, value: object, allowed: str) -> Sequence[object]:
    if not isinstance(value, (list, tuple)):
        raise CalendarError(path, value, allowed)
    return value


def _optional_list(path: str, value: object) -> Sequence[object]:
    return () if value is None else _list(path, value, "a list")


def _pair(path: str, value: object, allowed: str) -> tuple[object, object]:
    items = _list(path, value, allowed)
    if len(items) != 2:
        raise CalendarError(path, value, allowed)
    return items[0], items[1]


def _key(key: object) -> str:
    """A mapping's key as a part of a path: bare if it is a word or a date."""
    return key if isinstance(key, str) and len(key) <= 40 else _shown(key)
