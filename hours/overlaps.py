"""Whether a calendar counts the same time twice on paper: intervals of one day that overlap, or a tail past midnight
that reaches into the next day's hours.

The arithmetic counts shared time once whatever is written, so nothing breaks; but whoever wrote it meant something
else, and a policy is the place to say so. Intervals that meet (to 12:00, from 12:00) are one opening, and fine.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

from hours.calendar import DAYS, Calendar, CalendarError, Interval, parse_date, parse_interval

_DAY_SECONDS: Final = 86_400

_Placed = tuple[Interval, str, object]
"""An interval, where it stands, and how it is written."""


def refuse_overlaps(path: str, written: Mapping[str, Any], calendar: Calendar) -> None:
    """Compare each interval of `written` with those of its date and the tail of the date before.

    `calendar` is what `parse_calendar` made of it, holidays of countries and files included.

    Raises:
        CalendarError: the first interval that begins before an earlier one has ended; names both.
    """
    weekly = [_placed(f"{path}.hours.{day}", written["hours"].get(day, ())) for day in DAYS]
    for i, today in enumerate(weekly):
        _refuse(weekly[i - 1], today)
    dates = {
        parse_date(f"{path}.dates.{key}", key): _placed(f"{path}.dates.{key}", pairs)
        for key, pairs in (written.get("dates") or {}).items()
    }

    def placed(day: date) -> Sequence[_Placed]:
        if day in dates:
            return dates[day]
        return () if day in calendar.holidays else weekly[day.weekday()]

    for day in sorted(dates):
        for later in (day, day + timedelta(days=1)):
            _refuse(placed(later - timedelta(days=1)), placed(later))


def _placed(path: str, pairs: Sequence[object]) -> list[_Placed]:
    return [
        (parse_interval(f"{path}[{i}]", pair), f"{path}[{i}]", pair) for i, pair in enumerate(pairs)
    ]


def _refuse(yesterday: Sequence[_Placed], today: Sequence[_Placed]) -> None:
    ended, by = -1, ""
    for (opens, closes), path, written in sorted(_tails(yesterday), key=_opening) + sorted(
        today, key=_opening
    ):
        if opens < ended:
            raise CalendarError(path, written, f"an opening that is not before the end of {by}")
        if closes > ended:
            ended, by = closes, path


def _opening(placed: _Placed) -> tuple[Interval, str]:
    return placed[0], placed[1]


def _tails(yesterday: Sequence[_Placed]) -> Iterator[_Placed]:
    for (_, closes), path, written in yesterday:
        if closes > _DAY_SECONDS:
            yield (0, closes - _DAY_SECONDS), path, written
