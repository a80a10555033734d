"""Slots to call back in, and when we open, in words of any language."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from hours.calendar import Calendar, CalendarError, parse_calendar
from hours.slots import callback_slots
from hours.words import Moment, moment, opening

BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def office(timezone: str = "Europe/Berlin", **changes: Any) -> Calendar:
    hours = {
        day: [["09:00", "12:00"], ["13:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")
    }
    return parse_calendar({"timezone": timezone, "hours": hours} | changes)


def slots(calendar: Calendar, after: datetime, count: int, minutes: int) -> list[str]:
    return [
        f"{slot.begin:%a %H:%M}-{slot.end:%H:%M}"
        for slot in callback_slots(calendar, after, count, minutes)
    ]


def test_slots_begin_on_the_quarter_hour_and_never_cross_a_closing() -> None:
    friday = at("2026-01-09T11:07")
    assert slots(office(), friday, 4, 30) == [
        "Fri 11:15-11:45",
        "Fri 13:00-13:30",
        "Fri 13:30-14:00",
        "Fri 14:00-14:30",
    ]


def test_after_hours_the_first_slot_is_the_next_morning_we_open() -> None:
    saturday = at("2026-01-10T20:00")
    assert slots(office(holidays=["2026-01-12"]), saturday, 2, 45) == [
        "Tue 09:00-09:45",
        "Tue 09:45-10:30",
    ]


def test_whoever_asks_after_hours_is_offered_the_same_slots_whenever_that_is() -> None:
    calendar = office()
    asked = [at("2026-01-09T17:00"), at("2026-01-11T03:20"), at("2026-01-12T08:59:59.999999")]
    assert {tuple(slots(calendar, one, 3, 30)) for one in asked} == {
        ("Mon 09:00-09:30", "Mon 09:30-10:00", "Mon 10:00-10:30")
    }


def test_slots_more_than_a_year_away_are_offered_to_those_alone_who_ask_within_it() -> None:
    once = parse_calendar(
        {"timezone": "UTC", "hours": {}, "dates": {"2027-01-12": [["09:00", "10:00"]]}}
    )
    utc = ZoneInfo("UTC")
    assert slots(once, at("2026-01-11T09:20", utc), 2, 30) == ["Tue 09:00-09:30"]
    assert slots(once, at("2026-01-11T09:40", utc), 2, 30) == [
        "Tue 09:00-09:30",
        "Tue 09:30-10:00",
    ]
    assert slots(once, at("2026-01-11T08:40", utc), 2, 30) == []


def test_a_slot_may_begin_now_and_end_at_the_closing_time() -> None:
    assert slots(office(), at("2026-01-09T16:45"), 2, 15) == ["Fri 16:45-17:00", "Mon 09:00-09:15"]
    assert slots(office(), at("2026-01-09T16:45:00.000001"), 1, 15) == ["Mon 09:00-09:15"]


def test_a_slot_longer_than_any_opening_is_never_found_and_no_loop() -> None:
    assert slots(office(), at("2026-01-09T11:00"), 3, 241) == []


def test_slots_of_a_zone_off_the_hour_are_on_its_own_quarter() -> None:
    kathmandu = office("Asia/Kathmandu")
    first = callback_slots(kathmandu, at("2026-01-09T03:20:30", ZoneInfo("UTC")), 1, 30)[0]
    assert first.begin.isoformat() == "2026-01-09T09:15:00+05:45"


def test_a_slot_in_the_night_of_the_clock_change_has_its_real_length() -> None:
    night = parse_calendar({"timezone": "Europe/Berlin", "hours": {"sun": [["01:30", "04:00"]]}})
    found = callback_slots(night, at("2026-03-29T01:00"), 2, 60)
    assert [slot.begin.isoformat() for slot in found] == [
        "2026-03-29T01:30:00+01:00",
        "2026-04-05T01:30:00+02:00",
    ]
    assert found[0].end.isoformat() == "2026-03-29T03:30:00+02:00"


def test_round_the_clock_there_is_always_a_slot() -> None:
    found = callback_slots(Calendar.always(), at("2026-01-09T23:50"), 100, 1440)
    assert len(found) == 100


@pytest.mark.parametrize(("count", "minutes"), [(0, 15), (101, 15), (1, 0), (1, 1441)])
def test_an_impossible_wish_is_refused(count: int, minutes: int) -> None:
    with pytest.raises(CalendarError):
        callback_slots(office(), at("2026-01-09T11:00"), count, minutes)


@pytest.mark.parametrize(
    ("now", "zone", "expected"),
    [
        ("2026-01-09T08:00", None, Moment("today", "09:00")),
        ("2026-01-08T20:00", None, Moment("tomorrow", "09:00")),
        ("2026-01-09T20:00", None, Moment("2026-01-12", "09:00")),
        ("2026-01-09T11:00", None, None),
        # Nine in Berlin is five in the afternoon in Tokyo, and three at night in New York.
        ("2026-01-09T20:00", "Asia/Tokyo", Moment("2026-01-12", "17:00")),
        ("2026-01-09T02:00", "America/New_York", Moment("tomorrow", "03:00")),
    ],
)
def test_when_we_open_is_said_on_the_readers_clock(
    now: str, zone: str | None, expected: Moment | None
) -> None:
    assert opening(office(), at(now), ZoneInfo(zone) if zone else None) == expected


def test_a_moment_between_two_minutes_is_said_as_the_later() -> None:
    now = at("2026-01-09T08:00")
    assert moment(at("2026-01-09T09:00:01"), now, BERLIN).time == "09:01"
    assert moment(at("2026-01-09T23:59:30"), now, BERLIN) == Moment("tomorrow", "00:00")


def test_a_calendar_whose_dates_are_over_opens_no_more() -> None:
    past = parse_calendar(
        {"timezone": "UTC", "hours": {}, "dates": {"2020-01-01": [["09:00", "10:00"]]}}
    )
    assert opening(past, at("2026-01-09T08:00")) is None
    assert callback_slots(past, at("2026-01-09T08:00"), 1, 15) == ()
