"""`calendars.yaml`: business calendars by name, one file for every service that reads the clock by them.

Owns what the file says beyond a plain calendar (`hours.calendar`): holidays of countries, iCal feeds, and the refusal of
intervals that overlap. `read_book` makes a `CalendarBook`; feeds with an address are fetched elsewhere, and what they
say is laid over the book with `with_feeds`. `dates` win over every holiday, wherever it comes from.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from hours.calendar import (
    Calendar,
    CalendarError,
    LocalTime,
    parse_calendar,
    parse_date,
)
from hours.ical import FeedContent, FeedError, read_feed
from hours.overlaps import refuse_overlaps
from hours.provenance import Origin
from hours.public_holidays import AN_ENTRY, YEARS_LISTED, days_of, is_country, parse_country

CALENDARS_FILE: Final = "calendars.yaml"

REFRESH: Final = timedelta(hours=6)
REFRESH_MIN: Final = timedelta(minutes=1)
REFRESH_MAX: Final = timedelta(days=7)

FILES_UNTIL: Final = date(YEARS_LISTED[-1] + 1, 1, 1)
"""Rules of a feed in the policy folder are followed as far as countries' holidays: the same folder says the same, whenever
it is read."""

_NAME: Final = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_FEED_KEYS: Final = ("name", "url", "file", "closes", "refresh")
_CLOSES: Final = ("all_day", "all")
_REFRESH: Final = re.compile(r"(\d{1,5})([mhd])", re.ASCII)
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_A_FEED: Final = (
    "a feed such as {name: company, url: https://…} or {name: company, file: company.ics}, with"
    " closes and refresh where they are wanted"
)
_AN_ADDRESS: Final = "an https:// address (http:// only for this machine itself)"
_A_FILE: Final = "the name of an .ics file inside the policy folder"
_A_REFRESH: Final = 'a time from "1m" to "7d", such as "6h"'

Name = Annotated[str, Field(pattern=_NAME)]


class CalendarsFile(BaseModel):
    """`calendars.yaml`: business calendars by name, in the form that `read_book` reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calendars: dict[Name, dict[str, Any]] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Feed:
    """Another's calendar that closes ours: at an address, or in a file of the policy folder.

    `closes`: `all_day`, whole dates only; `all`, timed events too. `refresh`: how long what was fetched stays fresh.
    An address may hold a secret, so it is shown nowhere; `source` stands for it.
    """

    name: str
    url: str | None = field(default=None, repr=False)
    file: str | None = None
    closes: Literal["all_day", "all"] = "all_day"
    refresh: timedelta = REFRESH

    @property
    def source(self) -> str:
        """A digest of where it comes from: another one is fetched at once, and until then the last good one stands."""
        return hashlib.sha256(f"{self.url}\0{self.file}".encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Entry:
    """One calendar of the file: as it is without feeds with an address, those feeds, and where its holidays come from."""

    base: Calendar
    feeds: tuple[Feed, ...] = ()
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class CalendarBook:
    """All calendars of the file. `calendars` are what clocks run by; `contents` what feeds with an address say, by name."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    contents: Mapping[str, FeedContent] = field(default_factory=dict)
    calendars: Mapping[str, Calendar] = field(default_factory=dict)

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """The feeds with an address, each once, by name."""
        return {feed.name: feed for entry in self.entries.values() for feed in entry.feeds}

    def with_feeds(self, contents: Mapping[str, FeedContent]) -> "CalendarBook":
        """The book with what its feeds say. Calendars that a feed does not change stay the same objects."""
        known = {name: contents[name] for name in sorted(self.feeds) if name in contents}
        calendars = {}
        for name, entry in self.entries.items():
            made = entry.base
            for feed in entry.feeds:
                if feed.name in known:
                    made = _closed(made, known[feed.name], feed.closes)
            before = self.calendars.get(name)
            calendars[name] = before if before is not None and before == made else made
        return CalendarBook(self.entries, known, calendars)

    @property
    def version(self) -> str:
        """12 hex digits over everything that clocks run by; another one means that deadlines may have moved."""
        digest = hashlib.sha256()
        for name, one in sorted(self.calendars.items()):
            parts = (
                one.timezone,
                one.hours,
                sorted(one.holidays),
                one.dates,
                one.closures,
                one.shut,
            )
            digest.update(f"{name}\0{parts!r}\0".encode())
        return digest.hexdigest()[:12]

    def origins(self, name: str) -> tuple[Origin, ...]:
        """Where the holidays and closures of a calendar come from, feeds included."""
        entry = self.entries[name]
        found = list(entry.origins)
        for feed in entry.feeds:
            if feed.name in self.contents:
                found.extend(_feed_origins(feed, self.contents[feed.name]))
        return tuple(found)


def read(file: CalendarsFile, folder: Path | None = None) -> dict[str, Calendar]:
    """Return the calendars by name, without what feeds with an address say.

    Raises:
        CalendarError: as `read_book`.
    """
    return dict(read_book(file, folder).calendars)


def read_book(file: CalendarsFile, folder: Path | None = None) -> CalendarBook:
    """Return everything the file says; `folder` is where the files of feeds lie.

    Raises:
        CalendarError: the first thing that cannot be used, with its path in the file, the value and what is allowed.
    """
    feeds: dict[str, tuple[Feed, str]] = {}
    entries = {
        name: _entry(f"calendars.{name}", mapping, folder, feeds)
        for name, mapping in file.calendars.items()
    }
    calendars = {name: entry.base for name, entry in entries.items()}
    return CalendarBook(entries, {}, calendars)


def _entry(
    path: str, written: Mapping[str, Any], folder: Path | None, named: dict[str, tuple[Feed, str]]
) -> Entry:
    days, origins = _holidays(f"{path}.holidays", written.get("holidays"))
    plain = {key: value for key, value in written.items() if key != "feeds"}
    calendar = parse_calendar(plain | {"holidays": days}, path)
    origins.extend(_closures(calendar))
    fetched = []
    for feed, place in _feeds(f"{path}.feeds", written.get("feeds"), named):
        if feed.file is None:
            fetched.append(feed)
            continue
        content = _of_file(f"{place}.file", feed.file, folder)
        calendar = _closed(calendar, content, feed.closes)
        origins.extend(_feed_origins(feed, content))
    refuse_overlaps(path, plain, calendar)
    return Entry(calendar, tuple(fetched), tuple(origins))


def _holidays(path: str, value: object) -> tuple[list[date], list[Origin]]:
    """The dates that an entry of `holidays` stands for, each with its origin."""
    if value is None:
        return [], []
    if not isinstance(value, (list, tuple)):
        raise CalendarError(path, value, f"a list, each {AN_ENTRY}")
    origins: list[Origin] = []
    for i, one in enumerate(value):
        place = f"{path}[{i}]"
        if is_country(one):
            country = parse_country(place, one)
            origins.extend(
                Origin("holiday", day, day, str(country), name) for day, name in days_of(country)
            )
        elif isinstance(one, (str, date)):
            day = parse_date(place, one)
            origins.append(Origin("holiday", day, day, CALENDARS_FILE))
        else:
            raise CalendarError(place, one, AN_ENTRY)
    return [origin.first for origin in origins], origins


def _closures(calendar: Calendar) -> Iterator[Origin]:
    """The closures that the file itself lists, as origins."""
    for begin, end in calendar.closures:
        yield Origin("closure", _wall(begin), _wall(end), CALENDARS_FILE)


def _wall(at: LocalTime) -> datetime:
    midnight = datetime(at[0].year, at[0].month, at[0].day)  # noqa: DTZ001 - a local time
    return midnight + timedelta(seconds=at[1])


# ------------------------------------------------------------------------------------------- feeds


def _feeds(
    path: str, value: object, named: dict[str, tuple[Feed, str]]
) -> Iterator[tuple[Feed, str]]:
    if value is None:
        return
    if not isinstance(value, (list, tuple)):
        raise CalendarError(path, value, f"a list, each {_A_FEED}")
    for i, one in enumerate(value):
        place = f"{path}[{i}]"
        feed = _feed(place, one)
        other, where = named.setdefault(feed.name, (feed, place))
        if (other.source, other.refresh) != (feed.source, feed.refresh):
            raise CalendarError(
                f"{place}.name",
                feed.name,
                f"a name of its own, or the address and refresh of {where}: one name, one feed",
            )
        yield feed, place


def _feed(path: str, value: object) -> Feed:
    if not isinstance(value, Mapping):
        raise CalendarError(path, value, _A_FEED)
    for key in value:
        if key not in _FEED_KEYS:
            raise CalendarError(f"{path}.{key}", value[key], f"only {', '.join(_FEED_KEYS)}")
    name, closes = value.get("name"), value.get("closes", "all_day")
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise CalendarError(f"{path}.name", name, "a name of small letters, digits, - and _")
    if closes not in _CLOSES:
        raise CalendarError(f"{path}.closes", closes, f"one of {', '.join(_CLOSES)}")
    url, file = value.get("url"), value.get("file")
    if (url is None) == (file is None):
        raise CalendarError(path, sorted(map(str, value)), "either url or file, one of the two")
    if url is not None:
        _check_url(f"{path}.url", url)
    elif not _is_inside(file):
        raise CalendarError(f"{path}.file", file, _A_FILE)
    elif "refresh" in value:
        raise CalendarError(
            f"{path}.refresh", value["refresh"], "nothing: a file is read whenever it changes"
        )
    return Feed(name, url, file, closes, _refresh(f"{path}.refresh", value.get("refresh", "6h")))


def is_allowed(url: str) -> bool:
    """Whether a feed may be fetched there: https, or http on this machine. Redirections are asked, too."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.username is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _check_url(path: str, value: object) -> None:
    if not isinstance(value, str) or not is_allowed(value):
        # Without the value: an address is often the key to a private calendar.
        shown = "an address" if isinstance(value, str) else value
        raise CalendarError(path, shown, _AN_ADDRESS)


def _is_inside(value: object) -> bool:
    if not isinstance(value, str) or not value.endswith(".ics") or "\0" in value:
        return False
    path = Path(value)
    return not path.is_absolute() and ".." not in path.parts


def _refresh(path: str, value: object) -> timedelta:
    match = _REFRESH.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise CalendarError(path, value, _A_REFRESH)
    length = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if not REFRESH_MIN <= length <= REFRESH_MAX:
        raise CalendarError(path, value, _A_REFRESH)
    return length


def _of_file(path: str, name: str, folder: Path | None) -> FeedContent:
    if folder is None:
        raise CalendarError(path, name, "no file here: there is no policy folder to read it from")
    try:
        return read_feed((folder / name).read_bytes(), FILES_UNTIL)
    except OSError as error:
        raise CalendarError(path, name, f"{_A_FILE} ({error.strerror})") from error
    except FeedError as error:
        raise CalendarError(
            path, name, f"an iCalendar file that can be read: it {error}"
        ) from error


def _closed(
    calendar: Calendar, content: FeedContent, closes: Literal["all_day", "all"]
) -> Calendar:
    """The calendar with what a feed closes."""
    holidays = calendar.holidays | {day for one in content.days for day in one.dates()}
    if closes == "all_day" or not content.spans:
        return calendar if holidays == calendar.holidays else replace(calendar, holidays=holidays)
    floating = [one for one in content.spans if one.begin.tzinfo is None]
    fixed = {(one.begin, one.end) for one in content.spans if one.begin.tzinfo is not None}
    local = {(_local(one.begin), _local(one.end)) for one in floating}
    return replace(
        calendar,
        holidays=holidays,
        closures=tuple(sorted({*calendar.closures, *local})),
        shut=tuple(sorted({*calendar.shut, *fixed})),
    )


def _local(at: datetime) -> LocalTime:
    return at.date(), at.hour * 3600 + at.minute * 60 + at.second


def _feed_origins(feed: Feed, content: FeedContent) -> Iterator[Origin]:
    source = f"feed {feed.name}"
    for one in content.days:
        yield Origin("holiday", one.first, one.last, source, one.summary, one.uid)
    if feed.closes == "all":
        for span in content.spans:
            yield Origin("closure", span.begin, span.end, source, span.summary, span.uid)
