"""iCalendar feeds: what closes, what does not, repetition, and what is refused."""

from datetime import date, datetime

import pytest

from hours.ical import EVENTS_MAX, FeedError, horizon, read_feed
from tests.fakes.ical import calendar, holiday

UNTIL = date(2031, 1, 1)


def days(*events: list[str]) -> list[str]:
    content = read_feed(calendar(*events).encode(), UNTIL)
    return [f"{one.first} {one.last} {one.summary}".strip() for one in content.days]


def spans(*events: list[str]) -> list[str]:
    content = read_feed(calendar(*events).encode(), UNTIL)
    return [f"{one.begin.isoformat()} {one.end.isoformat()}" for one in content.spans]


def refused(*lines: str) -> str:
    with pytest.raises(FeedError) as caught:
        read_feed(calendar(["UID:odd", *lines]).encode(), UNTIL)
    return str(caught.value)


def test_an_all_day_event_is_its_dates_and_its_end_is_not_one_of_them() -> None:
    several = ["UID:b", "DTSTART;VALUE=DATE:20261224", "DTEND;VALUE=DATE:20261227", "SUMMARY:Xmas"]
    assert days(holiday("20260609", "Party"), several) == [
        "2026-06-09 2026-06-09 Party",
        "2026-12-24 2026-12-26 Xmas",
    ]


def test_a_timed_event_closes_between_two_instants_whatever_its_zone() -> None:
    berlin = [
        "UID:a",
        "DTSTART;TZID=Europe/Berlin:20260609T100000",
        "DTEND;TZID=Europe/Berlin:20260609T113000",
    ]
    utc = ["UID:b", "DTSTART:20260610T080000Z", "DURATION:PT2H"]
    floating = ["UID:c", "DTSTART:20260611T090000", "DTEND:20260611T100000"]
    assert spans(berlin, utc, floating) == [
        "2026-06-09T08:00:00+00:00 2026-06-09T09:30:00+00:00",
        "2026-06-10T08:00:00+00:00 2026-06-10T10:00:00+00:00",
        "2026-06-11T09:00:00 2026-06-11T10:00:00",
    ]


def test_a_zone_that_the_feed_defines_itself_is_understood() -> None:
    text = calendar(
        ["UID:a", "DTSTART;TZID=Office:20260609T100000", "DTEND;TZID=Office:20260609T110000"]
    ).replace(
        "BEGIN:VEVENT",
        "BEGIN:VTIMEZONE\r\nTZID:Office\r\nBEGIN:STANDARD\r\nDTSTART:19700101T000000\r\n"
        "TZOFFSETFROM:+0300\r\nTZOFFSETTO:+0300\r\nEND:STANDARD\r\nEND:VTIMEZONE\r\nBEGIN:VEVENT",
    )
    content = read_feed(text.encode(), UNTIL)
    assert content.spans[0].begin == datetime.fromisoformat("2026-06-09T07:00:00+00:00")


@pytest.mark.parametrize("line", ["STATUS:CANCELLED", "TRANSP:TRANSPARENT", "status:cancelled"])
def test_cancelled_and_transparent_events_close_nothing(line: str) -> None:
    assert days([*holiday("20260609"), line]) == []


def test_a_yearly_rule_is_followed_to_the_horizon() -> None:
    found = days([*holiday("20240501", "May Day"), "RRULE:FREQ=YEARLY"])
    assert [one[:10] for one in found] == [f"{year}-05-01" for year in range(2024, 2031)]
    assert horizon(date(2026, 6, 9)) == UNTIL
    assert horizon(date(2026, 12, 31)) == UNTIL


def test_ten_oclock_stays_ten_oclock_in_summer() -> None:
    weekly = [
        "UID:a",
        "DTSTART;TZID=Europe/Berlin:20260322T100000",
        "DURATION:PT1H",
        "RRULE:FREQ=WEEKLY;UNTIL=20260405T080000Z",
    ]
    assert spans(weekly) == [
        "2026-03-22T09:00:00+00:00 2026-03-22T10:00:00+00:00",
        "2026-03-29T08:00:00+00:00 2026-03-29T09:00:00+00:00",
        "2026-04-05T08:00:00+00:00 2026-04-05T09:00:00+00:00",
    ]


def test_exceptions_additions_and_moved_repetitions_are_followed() -> None:
    series = [
        "UID:a",
        "DTSTART;VALUE=DATE:20260601",
        "RRULE:FREQ=WEEKLY;COUNT=4",
        "EXDATE;VALUE=DATE:20260608",
        "RDATE;VALUE=DATE:20260610",
    ]
    moved = ["UID:a", "RECURRENCE-ID;VALUE=DATE:20260615", "DTSTART;VALUE=DATE:20260616"]
    gone = ["UID:a", "RECURRENCE-ID;VALUE=DATE:20260622", "DTSTART;VALUE=DATE:20260622"]
    assert [one[:10] for one in days(series, moved, [*gone, "STATUS:CANCELLED"])] == [
        "2026-06-01",
        "2026-06-10",
        "2026-06-16",
    ]


def test_the_later_version_of_an_event_counts() -> None:
    first = [*holiday("20260609", uid="a"), "SEQUENCE:0"]
    second = [*holiday("20260609", uid="a"), "SEQUENCE:1", "STATUS:CANCELLED"]
    assert days(first, second) == days(second, first) == []


def test_what_a_summary_holds_fits_in_one_line() -> None:
    found = days(holiday("20260609", "a\\nb\\, c" + "x" * 500))[0]
    assert "\n" not in found
    assert "a b, c" in found
    assert len(found) < 250


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["SUMMARY:x"], "has no DTSTART"),
        (["DTSTART:soon"], "DTSTART cannot be read"),
        (["DTSTART;TZID=Nowhere/X:20260101T100000"], "zone 'Nowhere/X' is unknown"),
        (["DTSTART;VALUE=DATE:20260105", "DTEND;VALUE=DATE:20260101"], "ends before it begins"),
        (["DTSTART;VALUE=DATE:20260105", "DTEND:20260106T100000Z"], "not both dates"),
        (["DTSTART:20260101T100000Z", "DURATION:P367D"], "more than 366 days"),
        (["DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=SECONDLY"], "repeats SECONDLY"),
        (["DTSTART;VALUE=DATE:20260101", "RRULE:NONSENSE"], "repeats without FREQ"),
        (["DTSTART;VALUE=DATE:19010101", "RRULE:FREQ=DAILY"], "more than 20000 times"),
        (
            ["DTSTART;VALUE=DATE:20260101", "RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30"],
            "too odd to be followed",
        ),
        (
            ["DTSTART;VALUE=DATE:20260101", "RECURRENCE-ID;RANGE=THISANDFUTURE:20260101"],
            "RANGE is not understood",
        ),
    ],
)
def test_an_event_that_nobody_understands_refuses_the_feed_and_is_named(
    lines: list[str], problem: str
) -> None:
    text = refused(*lines)
    assert problem in text
    assert text.startswith("event 'odd'")


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "does not begin with BEGIN:VCALENDAR"),
        (b"<html>", "does not begin with BEGIN:VCALENDAR"),
        (b"\xff\xfeB", "is not UTF-8"),
        (b"BEGIN:VCALENDAR\r\n", "END:VCALENDAR is missing"),
        (calendar(holiday("20260609")).encode()[:80], "END:VCALENDAR is missing"),
        (b"x" * 1_048_577, "more than 1048576 bytes"),
    ],
)
def test_what_is_no_calendar_is_refused(raw: bytes, problem: str) -> None:
    with pytest.raises(FeedError, match=problem):
        read_feed(raw, UNTIL)


def test_a_feed_of_too_many_events_is_refused() -> None:
    body = "BEGIN:VEVENT\r\nDTSTART;VALUE=DATE:20260101\r\nEND:VEVENT\r\n" * (EVENTS_MAX + 1)
    raw = f"BEGIN:VCALENDAR\r\n{body}END:VCALENDAR\r\n".encode()
    with pytest.raises(FeedError, match="10001 events"):
        read_feed(raw, UNTIL)


def test_an_empty_calendar_closes_nothing() -> None:
    content = read_feed(calendar().encode(), UNTIL)
    assert (content.days, content.spans) == ((), ())
