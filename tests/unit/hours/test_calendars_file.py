"""`calendars.yaml`: holidays of countries, feeds in files, overlaps refused, and where each closed day comes from."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import process_time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from hours.calendar import CalendarError, due, is_open
from hours.file import CalendarBook, CalendarsFile, read, read_book
from hours.ical import FeedContent, Span, WholeDays
from hours.provenance import provenance, sentence, to_come
from hours.public_holidays import days_of, parse_country
from tests.fakes.ical import calendar as ical
from tests.fakes.ical import holiday

WORKDAYS: dict[str, Any] = {
    day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")
}
BERLIN = ZoneInfo("Europe/Berlin")


def book(folder: Path | None = None, **changes: Any) -> CalendarBook:
    written = {"timezone": "Europe/Berlin", "hours": WORKDAYS} | changes
    return read_book(CalendarsFile(calendars={"office": written}), folder)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def refusal(folder: Path | None = None, **changes: Any) -> CalendarError:
    with pytest.raises(CalendarError) as caught:
        book(folder, **changes)
    return caught.value


# ------------------------------------------------------------------------------ holidays of countries


def test_a_country_holiday_rolls_the_deadline_on() -> None:
    """T1, with the date from a country."""
    office = book(holidays=[{"country": "DE"}]).calendars["office"]
    # Good Friday and Easter Monday 2026.
    assert due(office, at("2026-04-02T16:30"), 3600) == at("2026-04-07T09:30")


def test_a_part_of_a_country_has_holidays_of_its_own() -> None:
    bavaria = book(holidays=[{"country": "DE", "subdivision": "BY"}]).calendars["office"]
    germany = book(holidays=[{"country": "DE"}]).calendars["office"]
    assert date(2026, 1, 6) in bavaria.holidays
    assert date(2026, 1, 6) not in germany.holidays


@pytest.mark.parametrize("name", ["Epiphany", "Heilige Drei Könige", "epiphany"])
def test_a_holiday_can_be_left_out_by_its_name_in_either_language(name: str) -> None:
    entry = {"country": "DE", "subdivision": "BY", "except": [name]}
    office = book(holidays=[entry]).calendars["office"]
    assert date(2026, 1, 6) not in office.holidays
    assert date(2026, 1, 1) in office.holidays


def test_a_weekend_holiday_takes_its_monday_where_it_is_observed() -> None:
    entry = {"country": "GB", "subdivision": "ENG"}
    # 26 December 2026 is a Saturday.
    assert date(2026, 12, 28) in book(holidays=[entry]).calendars["office"].holidays
    unobserved = book(holidays=[entry | {"observed": False}]).calendars["office"]
    assert date(2026, 12, 28) not in unobserved.holidays


def test_hours_of_a_single_date_win_over_a_countrys_holiday() -> None:
    office = book(
        holidays=[{"country": "DE"}], dates={"2026-05-01": [["10:00", "12:00"]]}
    ).calendars["office"]
    assert is_open(office, at("2026-05-01T11:00"))


@pytest.mark.parametrize(
    ("entry", "path", "allowed"),
    [
        ({"country": "XX"}, "holidays[0].country", "DE, DJ, DK"),
        ({"country": "de"}, "holidays[0].country", "two letters"),
        ({"country": "DE", "subdivision": "XX"}, "holidays[0].subdivision", "BB, BE, BW"),
        ({"country": "TR", "subdivision": "34"}, "holidays[0].subdivision", "TR has no parts"),
        ({"country": "DE", "categories": ["bank"]}, "holidays[0].categories[0]", "catholic"),
        ({"country": "DE", "categories": []}, "holidays[0].categories", "catholic"),
        ({"country": "DE", "observed": "no"}, "holidays[0].observed", "true or false"),
        ({"country": "DE", "except": ["Eid"]}, "holidays[0].except[0]", "Ascension Day"),
        ({"country": "DE", "region": "BY"}, "holidays[0].region", "subdivision"),
        ({}, "holidays[0].country", "two letters"),
        (["2026-01-01"], "holidays[0]", "a country such as {country: TR}"),
        ("tomorrow", "holidays[0]", "YYYY-MM-DD"),
    ],
)
def test_a_mistake_in_a_holiday_is_named_with_what_is_allowed(
    entry: Any, path: str, allowed: str
) -> None:
    error = refusal(holidays=[entry])
    assert error.path == f"calendars.office.{path}"
    assert allowed in error.allowed


def test_a_countrys_holidays_are_listed_from_2000_to_2060() -> None:
    days = [day for day, _ in days_of(parse_country("holidays[0]", {"country": "DE"}))]
    assert days[0] == date(2000, 1, 1)
    assert days[-1] == date(2060, 12, 26)


def test_a_calendar_with_a_country_loads_in_little_time() -> None:
    """The first of a process pays for the library's import, and is not what is measured."""
    days_of.cache_clear()
    began = process_time()
    book(holidays=[{"country": "US"}])
    assert process_time() - began < 0.25  # 10 ms on an idle machine; the bound is for a busy one.


# ------------------------------------------------------------------------------------- overlaps


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        (
            {"hours": {"mon": [["09:00", "13:00"], ["12:00", "17:00"]]}},
            "hours.mon[1]",
        ),
        ({"hours": {"mon": [["12:00", "17:00"], ["09:00", "12:01"]]}}, "hours.mon[0]"),
        ({"hours": {"mon": [["09:00", "12:00"], ["09:00", "12:00"]]}}, "hours.mon[1]"),
        ({"hours": {"fri": [["22:00", "06:00"]], "sat": [["05:00", "12:00"]]}}, "hours.sat[0]"),
        ({"hours": {"sun": [["22:00", "06:00"]], "mon": [["05:59", "12:00"]]}}, "hours.mon[0]"),
        (
            {"dates": {"2026-12-24": [["09:00", "12:00"], ["11:00", "13:00"]]}},
            "dates.2026-12-24[1]",
        ),
        ({"dates": {"2026-12-24": [["22:00", "09:01"]]}}, "hours.fri[0]"),
        (
            {"hours": {"wed": [["22:00", "06:00"]]}, "dates": {"2026-12-24": [["05:00", "12:00"]]}},
            "dates.2026-12-24[0]",
        ),
    ],
)
def test_intervals_that_overlap_are_refused_with_both_places(
    changes: dict[str, Any], path: str
) -> None:
    error = refusal(**changes)
    assert error.path == f"calendars.office.{path}"
    assert "before the end of calendars.office." in error.allowed


@pytest.mark.parametrize(
    "changes",
    [
        {"hours": {"mon": [["09:00", "12:00"], ["12:00", "17:00"]]}},
        {"hours": {"fri": [["22:00", "06:00"]], "sat": [["06:00", "12:00"]]}},
        {
            "hours": {"wed": [["22:00", "06:00"]]},
            "holidays": ["2026-12-23"],
            "dates": {"2026-12-24": [["05:00", "12:00"]]},
        },
    ],
)
def test_intervals_that_meet_and_tails_that_a_holiday_removes_are_fine(
    changes: dict[str, Any],
) -> None:
    assert book(**changes).calendars


# ---------------------------------------------------------------------------------------- feeds


def test_a_feed_in_the_policy_folder_closes_its_dates(tmp_path: Path) -> None:
    (tmp_path / "company.ics").write_bytes(ical(holiday("20260609", "Summer party")).encode())
    made = book(tmp_path, feeds=[{"name": "company", "file": "company.ics"}])
    office = made.calendars["office"]
    assert due(office, at("2026-06-08T16:30"), 3600) == at("2026-06-10T09:30")
    told = provenance(made.origins("office"), date(2026, 6, 9), office.zone)
    assert [sentence(one) for one in told] == [
        "2026-06-09: Summer party, feed company (20260609@fake)"
    ]


def test_a_feed_in_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    feeds = [{"name": "company", "file": "company.ics"}]
    assert "No such file" in refusal(tmp_path, feeds=feeds).allowed
    (tmp_path / "company.ics").write_text("<html>")
    error = refusal(tmp_path, feeds=feeds)
    assert error.path == "calendars.office.feeds[0].file"
    assert "does not begin with BEGIN:VCALENDAR" in error.allowed


@pytest.mark.parametrize(
    ("feed", "path"),
    [
        ({"name": "a"}, "feeds[0]"),
        ({"name": "a", "url": "https://x.example/a", "file": "a.ics"}, "feeds[0]"),
        ({"name": "A", "file": "a.ics"}, "feeds[0].name"),
        ({"file": "a.ics"}, "feeds[0].name"),
        ({"name": "a", "url": "http://x.example/a.ics"}, "feeds[0].url"),
        ({"name": "a", "url": "https://user:word@x.example/a.ics"}, "feeds[0].url"),
        ({"name": "a", "url": "file:///etc/passwd"}, "feeds[0].url"),
        ({"name": "a", "url": "https://[x/a.ics"}, "feeds[0].url"),
        ({"name": "a", "file": "../a.ics"}, "feeds[0].file"),
        ({"name": "a", "file": "/etc/a.ics"}, "feeds[0].file"),
        ({"name": "a", "file": "a.txt"}, "feeds[0].file"),
        ({"name": "a", "file": "a.ics", "refresh": "6h"}, "feeds[0].refresh"),
        ({"name": "a", "url": "https://x.example/a", "refresh": "30s"}, "feeds[0].refresh"),
        ({"name": "a", "url": "https://x.example/a", "refresh": "8d"}, "feeds[0].refresh"),
        ({"name": "a", "url": "https://x.example/a", "closes": "timed"}, "feeds[0].closes"),
        ({"name": "a", "url": "https://x.example/a", "every": "6h"}, "feeds[0].every"),
        ("https://x.example/a.ics", "feeds[0]"),
    ],
)
def test_a_mistake_in_a_feed_is_named_and_its_address_is_not(
    tmp_path: Path, feed: Any, path: str
) -> None:
    error = refusal(tmp_path, feeds=[feed])
    assert error.path == f"calendars.office.{path}"
    assert "word" not in str(error)


def test_one_name_is_one_feed() -> None:
    feeds = [
        {"name": "a", "url": "https://x.example/a"},
        {"name": "a", "url": "https://x.example/b"},
    ]
    assert refusal(feeds=feeds).path == "calendars.office.feeds[1].name"


TUESDAY_NOON = datetime(2026, 6, 9, 10, tzinfo=UTC)
CONTENT = FeedContent(
    (WholeDays(date(2026, 6, 10), date(2026, 6, 11), "fair", "Trade fair"),),
    (
        Span(TUESDAY_NOON, TUESDAY_NOON + timedelta(hours=2), "move", "Moving house"),
        Span(datetime(2026, 6, 12, 9), datetime(2026, 6, 12, 11), "class", "Training"),  # noqa: DTZ001
    ),
)
ADDRESS = {"name": "company", "url": "https://calendars.example.com/company.ics"}


def test_timed_events_close_only_where_it_is_asked() -> None:
    whole = book(feeds=[ADDRESS]).with_feeds({"company": CONTENT}).calendars["office"]
    timed = book(feeds=[ADDRESS | {"closes": "all"}]).with_feeds({"company": CONTENT})
    office = timed.calendars["office"]
    for closed in ("2026-06-10T12:00", "2026-06-11T12:00"):
        assert not is_open(whole, at(closed))
        assert not is_open(office, at(closed))
    assert is_open(whole, at("2026-06-09T12:30"))
    assert not is_open(office, at("2026-06-09T12:30"))
    assert is_open(office, at("2026-06-09T14:00"))
    # Local time, since it names no zone.
    assert not is_open(office, at("2026-06-12T10:59"))
    assert is_open(office, at("2026-06-12T11:00"))


def test_a_version_changes_with_what_a_feed_closes_and_only_then() -> None:
    bare = book(feeds=[ADDRESS])
    fed = bare.with_feeds({"company": CONTENT})
    assert fed.version != bare.version
    assert fed.with_feeds({"company": CONTENT}).version == fed.version
    assert fed.with_feeds({"company": CONTENT}).calendars["office"] is fed.calendars["office"]
    assert fed.with_feeds({}).version == bare.version
    assert bare.with_feeds({"another": CONTENT}).version == bare.version


def test_every_closed_day_says_where_it_comes_from() -> None:
    made = book(
        holidays=["2026-06-15", {"country": "DE"}],
        closures=[["2026-06-16T12:00", "2026-06-16T13:00"]],
        feeds=[ADDRESS | {"closes": "all"}],
    ).with_feeds({"company": CONTENT})
    told = to_come(made.origins("office"), date(2026, 6, 9), BERLIN, 6)
    assert [sentence(one) for one in told] == [
        "2026-06-09T10:00+00:00 to 2026-06-09T12:00+00:00: Moving house, feed company (move)",
        "2026-06-10 to 2026-06-11: Trade fair, feed company (fair)",
        "2026-06-12T09:00 to 2026-06-12T11:00: Training, feed company (class)",
        "2026-06-15: calendars.yaml",
        "2026-06-16T12:00 to 2026-06-16T13:00: calendars.yaml",
        "2026-10-03: German Unity Day, country DE",
    ]


# ------------------------------------------------------------------------------- the shipped example


def test_the_shops_calendar_is_closed_on_what_was_listed_by_hand_before() -> None:
    path = Path(__file__).parents[3] / "policy" / "calendars.yaml"
    shop = read(CalendarsFile(**yaml.safe_load(path.read_text())))["shop"]
    for year in (2026, 2027):
        for day in ("01-01", "04-23", "05-01", "05-19", "07-15", "08-30", "10-29"):
            assert date.fromisoformat(f"{year}-{day}") in shop.holidays
