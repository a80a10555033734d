"""Where each closed date and hour comes from: the file itself, a country, or a feed, with the name it bears there.

For people who ask why nobody worked on the 29th; the clocks never ask.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Origin:
    """Why a calendar is closed for a while.

    `first` and `last` are the local dates of a holiday (both included), or the ends of a closure: UTC instants, or local
    times without offset. `source` is `calendars.yaml`, `country TR` or `feed NAME`; `name` what is celebrated there, and
    `uid` the feed's event. Empty where the source says nothing.
    """

    kind: Literal["holiday", "closure"]
    first: date
    last: date
    source: str
    name: str = ""
    uid: str = ""

    def begins_at(self, zone: ZoneInfo) -> datetime:
        """Its beginning as an instant, for putting origins in order."""
        return _instant(self.first, zone)

    def touches(self, day: date, zone: ZoneInfo) -> bool:
        """Whether it closes something of a local date."""
        first, last = (_local_date(one, zone) for one in (self.first, self.last))
        return first <= day <= last


def provenance(origins: Iterable[Origin], day: date, zone: ZoneInfo) -> tuple[Origin, ...]:
    """Return why something of `day`, a local date of `zone`, is closed; all reasons, in order."""
    return to_come((one for one in origins if one.touches(day, zone)), date.min, zone, None)


def to_come(
    origins: Iterable[Origin], since: date, zone: ZoneInfo, count: int | None
) -> tuple[Origin, ...]:
    """Return the next `count` origins (None: all) that end on `since` or later, in order of time."""
    ahead = [one for one in origins if _local_date(one.last, zone) >= since]
    ahead.sort(key=lambda one: (one.begins_at(zone), one.source, one.name, one.uid))
    return tuple(ahead[:count])


def _local_date(at: date, zone: ZoneInfo) -> date:
    if not isinstance(at, datetime):
        return at
    return (at if at.tzinfo is None else at.astimezone(zone)).date()


def _instant(at: date, zone: ZoneInfo) -> datetime:
    if isinstance(at, datetime):
        return at.replace(tzinfo=zone).astimezone(UTC) if at.tzinfo is None else at
    return datetime(at.year, at.month, at.day, tzinfo=zone).astimezone(UTC)


def sentence(origin: Origin) -> str:
    """One line for a person: the dates, the name, the source."""
    ends = _written(origin.first), _written(origin.last)
    when = ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"
    named = f"{origin.name}, " if origin.name else ""
    return f"{when}: {named}{origin.source}" + (f" ({origin.uid})" if origin.uid else "")


def _written(at: date) -> str:
    return at.isoformat(timespec="minutes") if isinstance(at, datetime) else at.isoformat()
