"""Business calendars: the promises T1 to T12, both sides of each edge, and properties."""
# ruff: noqa: N802 — T1 is the id of a promise, and written as elsewhere.

import copy
import pickle
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hours.calendar import (
    DAYS,
    HORIZON,
    Calendar,
    CalendarError,
    CalendarHorizonError,
    due,
    dues,
    elapsed,
    is_open,
    next_closing,
    next_opening,
    parse_calendar,
)
from tests.unit.hours.reference_calendar import ReferenceCalendar

BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS = DAYS[:5]
HOUR = 3600


def calendar(
    hours: dict[str, list[list[str]]], timezone: str = "Europe/Berlin", **more: Any
) -> Calendar:
    return parse_calendar({"timezone": timezone, "hours": hours} | more)


def weekly(opens: str, closes: str, days: tuple[str, ...] = WORKDAYS) -> dict[str, list[list[str]]]:
    return {day: [[opens, closes]] for day in days}


def at(text: str) -> datetime:
    """An instant: with its own offset, or on Berlin's clock."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=BERLIN)


OFFICE = calendar(weekly("09:00", "17:00"))
ROUND_THE_CLOCK = calendar(weekly("00:00", "24:00", DAYS))
NIGHTS = calendar(weekly("22:00", "06:00", DAYS))


# ------------------------------------------------------------------------------------- T1 to T12


def test_T1_friday_evening_rolls_to_monday_morning() -> None:
    assert due(OFFICE, at("2026-01-09T16:30"), HOUR) == at("2026-01-12T09:30")


def test_T1_a_monday_holiday_rolls_it_on_to_tuesday() -> None:
    with_holiday = calendar(weekly("09:00", "17:00"), holidays=["2026-01-12"])
    assert due(with_holiday, at("2026-01-09T16:30"), HOUR) == at("2026-01-13T09:30")
    assert due(with_holiday, at("2026-01-09T16:30"), HOUR // 2) == at("2026-01-09T17:00")


def test_T2_the_lunch_break_does_not_count() -> None:
    lunch = calendar({day: [["09:00", "12:00"], ["13:00", "17:00"]] for day in WORKDAYS})
    assert due(lunch, at("2026-01-14T11:30"), HOUR) == at("2026-01-14T13:30")


def test_T3_a_pause_over_night_moves_the_deadline_by_its_open_hours() -> None:
    pause = (at("2026-01-12T16:00"), at("2026-01-13T10:00"))
    assert due(OFFICE, at("2026-01-12T09:00"), 8 * HOUR, [pause]) == at("2026-01-13T11:00")


def test_T4_pauses_of_seconds_within_one_minute_count_each() -> None:
    pauses = [
        (at("2026-01-12T10:00:05"), at("2026-01-12T10:00:15")),
        (at("2026-01-12T10:00:25"), at("2026-01-12T10:00:35")),
    ]
    assert due(OFFICE, at("2026-01-12T09:00"), 2 * HOUR, pauses) == at("2026-01-12T11:00:20")


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2026-03-29T00:30", "2026-03-29T05:30:00+02:00"),
        ("2026-10-25T00:30", "2026-10-25T03:30:00+01:00"),
    ],
)
def test_T5_real_seconds_count_in_the_night_of_the_clock_change(start: str, expected: str) -> None:
    early = calendar(weekly("00:00", "06:00", DAYS))
    answer = due(early, at(start), 4 * HOUR)
    assert answer is not None
    assert answer.isoformat() == expected


def test_T5_a_day_round_the_clock_is_24_real_hours() -> None:
    answer = due(ROUND_THE_CLOCK, at("2026-03-28T12:00"), 24 * HOUR)
    assert answer is not None
    assert answer.isoformat() == "2026-03-29T13:00:00+02:00"


def test_T6_a_night_shift_runs_past_midnight() -> None:
    assert due(NIGHTS, at("2026-01-09T23:00"), 8 * HOUR) == at("2026-01-10T23:00")


def test_T6_a_holiday_removes_the_shift_of_its_date_tail_included() -> None:
    saturday_off = calendar(weekly("22:00", "06:00", DAYS), holidays=["2026-01-10"])
    assert due(saturday_off, at("2026-01-09T23:00"), 8 * HOUR) == at("2026-01-11T23:00")
    # Friday's tail reaches into the holiday and stays; Saturday's into Sunday is gone.
    assert is_open(saturday_off, at("2026-01-10T05:59:59"))
    assert not is_open(saturday_off, at("2026-01-11T05:59:59"))


def test_T7_midnight_loses_nothing_round_the_clock() -> None:
    for always in (ROUND_THE_CLOCK, Calendar.always()):
        assert due(always, at("2026-01-09T23:59:30"), 60) == at("2026-01-10T00:00:30")


def test_T8_seconds_before_closing_are_used_up_first() -> None:
    assert due(OFFICE, at("2026-01-09T16:59:45"), 30) == at("2026-01-12T09:00:15")


def test_T9_the_closing_instant_itself_is_closed() -> None:
    assert due(OFFICE, at("2026-01-09T17:00"), 15 * 60) == at("2026-01-12T09:15")
    assert not is_open(OFFICE, at("2026-01-09T17:00"))
    assert is_open(OFFICE, at("2026-01-09T16:59:59.999999"))
    assert is_open(OFFICE, at("2026-01-09T09:00"))
    assert not is_open(OFFICE, at("2026-01-09T08:59:59.999999"))


def test_T9_what_is_used_up_at_closing_is_due_at_closing() -> None:
    start = at("2026-01-09T09:00")
    assert due(OFFICE, start, 8 * HOUR) == at("2026-01-09T17:00")
    assert due(OFFICE, start, timedelta(hours=8, microseconds=1)) == at(
        "2026-01-12T09:00:00.000001"
    )
    assert due(OFFICE, start, timedelta(hours=8, microseconds=-1)) == at(
        "2026-01-09T16:59:59.999999"
    )


@pytest.mark.parametrize(
    "mapping",
    [
        {"hours": {}},
        {"hours": {"mon": [], "tue": []}},
        {"hours": {}, "dates": {"2026-01-09": []}},
        {
            "hours": {},
            "dates": {"2026-01-09": [["09:00", "12:00"]]},
            "closures": [["2026-01-09T08:00", "2026-01-09T12:00"]],
        },
        {"timezone": "Pacific/Apia", "hours": {}, "dates": {"2011-12-30": [["09:00", "17:00"]]}},
    ],
)
def test_T11_a_calendar_that_never_opens_is_refused(mapping: dict[str, Any]) -> None:
    with pytest.raises(CalendarError, match=r"calendar\.hours: .*at least one open interval"):
        parse_calendar({"timezone": "Europe/Berlin"} | mapping)


def test_T11_one_open_minute_is_enough() -> None:
    once = calendar(
        {},
        dates={"2026-01-09": [["09:00", "12:00"]]},
        closures=[["2026-01-09T08:00", "2026-01-09T11:59"]],
    )
    assert due(once, at("2026-01-01T00:00"), 60) == at("2026-01-09T12:00")


def test_T12_six_monday_holidays_are_no_reason_to_give_up() -> None:
    mondays = ["2026-01-12", "2026-01-19", "2026-01-26", "2026-02-02", "2026-02-09", "2026-02-16"]
    rare = calendar({"mon": [["09:00", "10:00"]]}, holidays=mondays)
    assert due(rare, at("2026-01-09T12:00"), 30 * 60) == at("2026-02-23T09:30")


# ------------------------------------------------------------------------- exceptions to the week


def test_listed_dates_replace_the_hours_even_on_a_holiday() -> None:
    christmas = calendar(
        weekly("09:00", "17:00"),
        holidays=["2026-12-24", "2026-12-25"],
        dates={"2026-12-24": [["09:00", "12:00"]], "2026-12-26": [["10:00", "11:00"]]},
    )
    assert due(christmas, at("2026-12-24T11:00"), HOUR) == at("2026-12-24T12:00")
    assert due(christmas, at("2026-12-24T11:00"), 2 * HOUR) == at("2026-12-26T11:00")


def test_a_listed_date_without_intervals_is_closed() -> None:
    closed = calendar(weekly("09:00", "17:00"), dates={"2026-01-12": []})
    assert due(closed, at("2026-01-09T17:00"), 60) == at("2026-01-13T09:01")


def test_a_listed_date_replaces_the_tail_past_midnight_too() -> None:
    short = calendar(weekly("22:00", "06:00", DAYS), dates={"2026-01-10": [["22:00", "23:00"]]})
    assert elapsed(short, at("2026-01-10T12:00"), at("2026-01-11T12:00")) == timedelta(hours=1)


def test_a_closure_cuts_open_time_and_the_tail_of_a_night() -> None:
    closed = calendar(
        weekly("22:00", "06:00", DAYS), closures=[["2026-01-10T23:30", "2026-01-11T01:15"]]
    )
    assert is_open(closed, at("2026-01-10T23:29:59"))
    assert not is_open(closed, at("2026-01-10T23:30"))
    assert not is_open(closed, at("2026-01-11T01:14:59"))
    assert is_open(closed, at("2026-01-11T01:15"))
    assert due(closed, at("2026-01-10T23:00"), HOUR) == at("2026-01-11T01:45")


def test_overlapping_closures_and_intervals_count_once() -> None:
    messy = calendar(
        {"mon": [["12:00", "17:00"], ["09:00", "13:00"], ["09:00", "13:00"]]},
        closures=[
            ["2026-01-12T10:00", "2026-01-12T11:00"],
            ["2026-01-12T10:30", "2026-01-12T12:00"],
        ],
    )
    monday = at("2026-01-12T00:00"), at("2026-01-13T00:00")
    assert elapsed(messy, *monday) == timedelta(hours=6)


def test_hours_may_name_seconds() -> None:
    exact = calendar({"mon": [["09:00:30", "09:00:45"]]})
    assert due(exact, at("2026-01-12T09:00"), 15) == at("2026-01-12T09:00:45")
    assert due(exact, at("2026-01-12T09:00"), 16) == at("2026-01-19T09:00:31")


# ----------------------------------------------------------------------------------------- pauses


def test_overlapping_pauses_count_once() -> None:
    pauses = [
        (at("2026-01-12T10:30"), at("2026-01-12T11:30")),
        (at("2026-01-12T10:00"), at("2026-01-12T11:00")),
        (at("2026-01-12T10:45"), at("2026-01-12T10:50")),
    ]
    assert due(OFFICE, at("2026-01-12T09:00"), 2 * HOUR, pauses) == at("2026-01-12T12:30")
    spent = elapsed(OFFICE, at("2026-01-12T09:00"), at("2026-01-12T12:00"), pauses)
    assert spent == timedelta(minutes=90)


def test_a_pause_without_end_leaves_the_deadline_unknown() -> None:
    start, paused_at = at("2026-01-12T09:00"), at("2026-01-12T10:00")
    assert due(OFFICE, start, HOUR + 1, [(paused_at, None)]) is None
    assert elapsed(OFFICE, start, at("2026-01-14T10:00"), [(paused_at, None)]) == timedelta(hours=1)


def test_a_deadline_reached_as_the_pause_begins_stands() -> None:
    start, paused_at = at("2026-01-12T09:00"), at("2026-01-12T10:00")
    assert due(OFFICE, start, HOUR, [(paused_at, None)]) == paused_at
    assert due(OFFICE, start, 0, [(start, None)]) == start


def test_a_pause_before_the_start_counts_from_the_start_only() -> None:
    start = at("2026-01-12T09:00")
    gone = (at("2026-01-08T09:00"), at("2026-01-09T09:00"))
    running = (at("2026-01-09T09:00"), at("2026-01-12T09:10"))
    assert due(OFFICE, start, 60, [gone]) == at("2026-01-12T09:01")
    assert due(OFFICE, start, 60, [gone, running]) == at("2026-01-12T09:11")


def test_a_pause_in_closed_hours_changes_nothing() -> None:
    pause = (at("2026-01-09T17:00"), at("2026-01-12T09:00"))
    assert due(OFFICE, at("2026-01-09T16:30"), HOUR, [pause]) == at("2026-01-12T09:30")


def test_a_pause_to_the_year_9999_is_a_horizon_error_not_a_loop() -> None:
    pause = (at("2026-01-12T10:00"), datetime(9999, 12, 31, tzinfo=UTC))
    with pytest.raises(CalendarHorizonError):
        due(OFFICE, at("2026-01-12T09:00"), 2 * HOUR, [pause])


def test_a_pause_that_ends_before_it_begins_is_refused() -> None:
    backwards = (at("2026-01-12T10:00"), at("2026-01-12T09:59:59"))
    with pytest.raises(CalendarError, match=r"pauses\[0\]\[1\]"):
        due(OFFICE, at("2026-01-12T09:00"), 60, [backwards])


# -------------------------------------------------------------------- nights in which clocks jump


def test_an_opening_time_that_the_clock_skips_is_the_instant_of_the_jump() -> None:
    shift = calendar({"sun": [["02:30", "06:00"]]})
    assert next_opening(shift, at("2026-03-29T00:00")) == at("2026-03-29T03:00:00+02:00")


def test_an_interval_or_closure_that_the_clock_skips_is_empty() -> None:
    skipped = calendar(
        {"sun": [["02:15", "02:45"]], "mon": [["09:00", "10:00"]]},
        closures=[["2026-03-29T02:00", "2026-03-29T03:00"]],
    )
    assert due(skipped, at("2026-03-29T00:00"), 60) == at("2026-03-30T09:01")


def test_a_time_shown_twice_opens_and_closes_at_its_first_showing() -> None:
    handover = calendar({"sun": [["00:00", "02:30"]]}), calendar({"sun": [["02:30", "06:00"]]})
    first, second = at("2026-10-25T02:30:00+02:00"), at("2026-10-25T02:30:00+01:00")
    assert next_closing(handover[0], at("2026-10-25T01:00")) == first
    assert next_opening(handover[1], at("2026-10-25T01:00")) == first
    assert not is_open(handover[0], second)
    assert is_open(handover[1], second - timedelta(minutes=20))


def test_a_date_that_the_zone_skipped_has_no_hours() -> None:
    apia = calendar(weekly("09:00", "17:00"), timezone="Pacific/Apia")
    # Friday 30 December 2011 did not take place.
    assert due(apia, at("2011-12-29T16:00:00-10:00"), 2 * HOUR) == at("2012-01-02T10:00:00+14:00")


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("America/Havana", "2026-03-08"),  # 00:00 is skipped.
        ("America/Havana", "2026-11-01"),  # 00:00 comes twice.
        ("America/Sao_Paulo", "2018-11-04"),  # 00:00 is skipped.
        ("Australia/Lord_Howe", "2026-04-05"),  # By half an hour.
    ],
)
def test_round_the_clock_has_no_gap_where_the_clock_jumps_at_midnight(zone: str, day: str) -> None:
    always = calendar(weekly("00:00", "24:00", DAYS), timezone=zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC) - timedelta(days=2)
    assert elapsed(always, begin, begin + timedelta(days=4)) == timedelta(days=4)
    assert next_opening(always, begin) is None
    assert next_closing(always, begin) is None


def test_answers_in_a_repeated_hour_equal_the_same_instant_in_utc() -> None:
    answer = due(ROUND_THE_CLOCK, at("2026-10-25T00:30"), 3 * HOUR)
    assert answer == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)
    assert answer.isoformat() == "2026-10-25T02:30:00+01:00"
    assert len({answer, datetime(2026, 10, 25, 1, 30, tzinfo=UTC)}) == 1


def test_a_pause_from_the_first_to_the_second_showing_of_an_hour_is_a_pause() -> None:
    first, second = at("2026-10-25T02:50"), at("2026-10-25T02:10").replace(fold=1)
    assert due(ROUND_THE_CLOCK, first, 60, [(first, second)]) == at("2026-10-25T02:11:00+01:00")


# ---------------------------------------------------------------------------- openings and closings


def test_next_opening_and_closing_while_closed_and_while_open() -> None:
    evening, noon = at("2026-01-09T18:00"), at("2026-01-09T12:00")
    assert next_opening(OFFICE, evening) == at("2026-01-12T09:00")
    assert next_closing(OFFICE, evening) == at("2026-01-12T17:00")
    assert next_opening(OFFICE, noon) == at("2026-01-12T09:00")
    assert next_closing(OFFICE, noon) == at("2026-01-09T17:00")


def test_next_opening_and_closing_are_later_than_the_instant_asked() -> None:
    opening, closing = at("2026-01-09T09:00"), at("2026-01-09T17:00")
    assert next_opening(OFFICE, opening) == at("2026-01-12T09:00")
    assert next_opening(OFFICE, opening - timedelta(microseconds=1)) == opening
    assert next_closing(OFFICE, closing) == at("2026-01-12T17:00")
    assert next_closing(OFFICE, closing - timedelta(microseconds=1)) == closing


def test_nights_that_meet_at_midnight_are_one_window() -> None:
    joined = calendar({"mon": [["20:00", "24:00"]], "tue": [["00:00", "04:00"]]})
    assert next_closing(joined, at("2026-01-12T21:00")) == at("2026-01-13T04:00")


def test_after_the_last_listed_date_there_is_no_opening() -> None:
    fair = calendar({}, dates={"2026-05-01": [["10:00", "18:00"]]})
    assert next_opening(fair, at("2020-01-01T00:00")) == at("2026-05-01T10:00")
    assert next_opening(fair, at("2026-05-01T10:00")) is None
    assert next_closing(fair, at("2026-05-01T10:00")) == at("2026-05-01T18:00")
    assert next_closing(fair, at("2026-05-01T18:00")) is None


def test_round_the_clock_closes_on_a_holiday_years_ahead_and_never_again() -> None:
    shop = calendar(weekly("00:00", "24:00", DAYS), holidays=["2031-12-25"])
    assert next_closing(shop, at("2026-01-01T00:00")) == at("2031-12-25T00:00")
    assert next_opening(shop, at("2026-01-01T00:00")) == at("2031-12-26T00:00")
    assert next_closing(shop, at("2031-12-26T00:00")) is None


# ----------------------------------------------------------------------------------- far and wrong


def test_answers_are_in_the_calendars_zone() -> None:
    answer = due(OFFICE, at("2026-01-09T15:30:00+00:00"), HOUR)
    assert answer is not None
    assert answer.isoformat() == "2026-01-12T09:30:00+01:00"
    start = due(OFFICE, at("2026-01-10T03:00:00+00:00"), 0)
    assert start is not None
    assert start.isoformat() == "2026-01-10T04:00:00+01:00"


def test_microseconds_are_exact_years_ahead() -> None:
    start = at("2026-01-09T12:00:00.000001")
    weeks = 261  # Five years of weeks with 40 open hours each.
    answer = due(OFFICE, start, timedelta(hours=40 * weeks))
    assert answer == at("2031-01-10T12:00:00.000001")
    assert elapsed(OFFICE, start, answer) == timedelta(hours=40 * weeks)
    assert due(OFFICE, start, 0.25) == start + timedelta(milliseconds=250)


def test_more_than_the_calendar_will_ever_open_is_a_named_error() -> None:
    fair = calendar({}, dates={"2026-05-01": [["10:00", "18:00"]]})
    start = at("2026-01-01T00:00")
    assert due(fair, start, 8 * HOUR) == at("2026-05-01T18:00")
    with pytest.raises(CalendarHorizonError, match="seconds: got 28801; give an amount"):
        due(fair, start, 8 * HOUR + 1)


def test_the_horizon_is_a_hundred_years_to_the_microsecond() -> None:
    start, moment = at("2026-01-01T00:00:00+00:00"), timedelta(microseconds=1)
    always = Calendar.always()
    assert due(always, start, HORIZON) == start + HORIZON
    assert elapsed(always, start, start + HORIZON) == HORIZON
    with pytest.raises(CalendarHorizonError):
        due(always, start, HORIZON + moment)
    with pytest.raises(CalendarHorizonError):
        elapsed(always, start, start + HORIZON + moment)


@pytest.mark.parametrize(
    "seconds",
    [-1, -0.0000001, timedelta(microseconds=-1), float("nan"), float("inf"), 1e308],
)
def test_an_amount_that_is_no_time_is_refused(seconds: float | timedelta) -> None:
    with pytest.raises(CalendarError, match=r"^seconds: "):
        due(OFFICE, at("2026-01-09T12:00"), seconds)


def test_a_giant_amount_is_a_horizon_error() -> None:
    with pytest.raises(CalendarHorizonError, match="more than 64 bits"):
        due(Calendar.always(), at("2026-01-09T12:00"), 10**5000)


def test_instants_need_an_offset_and_a_sensible_year() -> None:
    good = at("2026-01-09T12:00")
    for bad in (
        good.replace(tzinfo=None),
        good.replace(year=1899),
        datetime(2501, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    ):
        with pytest.raises(CalendarError, match=r"^start: "):
            due(OFFICE, bad, 60)
        with pytest.raises(CalendarError, match=r"^at: "):
            is_open(OFFICE, bad)
    for pause in ((good.replace(tzinfo=None), good), (good, good.replace(tzinfo=None))):
        with pytest.raises(CalendarError, match=r"^pauses\[0\]\[[01]\]: .*offset"):
            due(OFFICE, good, 60, [pause])


def test_an_end_before_the_start_is_refused() -> None:
    noon = at("2026-01-09T12:00")
    assert elapsed(OFFICE, noon, noon) == timedelta(0)
    with pytest.raises(CalendarError, match=r"^end: "):
        elapsed(OFFICE, noon, noon - timedelta(microseconds=1))


# ------------------------------------------------------------------------------------- the format


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"timezone": None}, "calendar.timezone"),
        ({"timezone": "Europe/Berlinn"}, "calendar.timezone"),
        ({"timezone": "Europe"}, "calendar.timezone"),
        ({"timezone": "../../etc/passwd"}, "calendar.timezone"),
        ({"timezone": ""}, "calendar.timezone"),
        ({"timezone": "a\0b"}, "calendar.timezone"),
        ({"timezone": 3}, "calendar.timezone"),
        ({"hours": None}, "calendar.hours"),
        ({"hours": []}, "calendar.hours"),
        ({"hours": {"monday": [["09:00", "17:00"]]}}, "calendar.hours.monday"),
        ({"hours": {"mon": "09:00-17:00"}}, "calendar.hours.mon"),
        ({"hours": {"mon": None}}, "calendar.hours.mon"),
        ({"hours": {"mon": ["09:00", "17:00"]}}, "calendar.hours.mon[0]"),
        ({"hours": {"mon": [["09:00"]]}}, "calendar.hours.mon[0]"),
        ({"hours": {"mon": [["09:00", "09:00"]]}}, "calendar.hours.mon[0]"),
        ({"hours": {"mon": [["24:00", "09:00"]]}}, "calendar.hours.mon[0][0]"),
        ({"hours": {"mon": [["9:00", "17:00"]]}}, "calendar.hours.mon[0][0]"),
        ({"hours": {"mon": [["09:00", "24:01"]]}}, "calendar.hours.mon[0][1]"),
        ({"hours": {"mon": [["09:00", "17:60"]]}}, "calendar.hours.mon[0][1]"),
        ({"hours": {"mon": [["09:00", "17:00:60"]]}}, "calendar.hours.mon[0][1]"),
        ({"hours": {"mon": [["09:00", "17:00\n"]]}}, "calendar.hours.mon[0][1]"),
        ({"hours": {"mon": [["09:00", "١٧:٠٠"]]}}, "calendar.hours.mon[0][1]"),
        ({"hours": {"mon": [[540, "17:00"]]}}, "calendar.hours.mon[0][0]"),
        ({"holidays": "2026-01-01"}, "calendar.holidays"),
        ({"holidays": ["2026-02-30"]}, "calendar.holidays[0]"),
        ({"holidays": ["2026-W01-1"]}, "calendar.holidays[0]"),
        ({"holidays": ["1899-12-31"]}, "calendar.holidays[0]"),
        ({"holidays": ["9999-12-31"]}, "calendar.holidays[0]"),
        ({"dates": []}, "calendar.dates"),
        ({"dates": {"24.12.2026": []}}, "calendar.dates.24.12.2026"),
        ({"dates": {"2026-12-24": None}}, "calendar.dates.2026-12-24"),
        ({"dates": {"2026-12-24": [["09:00", "?"]]}}, "calendar.dates.2026-12-24[0][1]"),
        ({"closures": [["2026-01-05T12:00"]]}, "calendar.closures[0]"),
        ({"closures": [["2026-01-05", "2026-01-06"]]}, "calendar.closures[0][0]"),
        ({"closures": [["2026-01-05T12:00Z", "2026-01-05T13:00"]]}, "calendar.closures[0][0]"),
        ({"closures": [["2026-01-05T12:00", "2026-01-05T12:00"]]}, "calendar.closures[0][1]"),
        ({"holiday": ["2026-01-01"]}, "calendar.holiday"),
    ],
)
def test_a_mistake_in_a_calendar_is_named_with_its_place(change: dict[str, Any], path: str) -> None:
    sound: dict[str, Any] = {"timezone": "Europe/Berlin", "hours": weekly("09:00", "17:00")}
    with pytest.raises(CalendarError) as caught:
        parse_calendar(sound | change)
    assert caught.value.path == path
    assert str(caught.value).startswith(f"{path}: got ")
    assert f"; give {caught.value.allowed}." in str(caught.value)


@pytest.mark.parametrize("mapping", [None, "Europe/Berlin", [], 3])
def test_a_calendar_that_is_no_mapping_is_refused(mapping: object) -> None:
    with pytest.raises(CalendarError, match=r"^calendars\.support: "):
        parse_calendar(mapping, path="calendars.support")


def test_a_value_nested_without_end_makes_a_short_message() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(CalendarError) as caught:
        parse_calendar({"timezone": deep, "hours": {}})
    assert len(str(caught.value)) < 300
    while deep:  # Freed step by step: not every interpreter frees such a nest at once.
        deep = deep[0]


def test_dates_that_yaml_has_already_read_are_taken() -> None:
    read = calendar(
        weekly("09:00", "17:00"),
        holidays=[date(2026, 1, 12)],
        dates={date(2026, 1, 13): [["09:00", "10:00"]]},
        closures=[[datetime.fromisoformat("2026-01-14T09:00:00"), "2026-01-14T24:00"]],
    )
    written = calendar(
        weekly("09:00", "17:00"),
        holidays=["2026-01-12"],
        dates={"2026-01-13": [["09:00", "10:00"]]},
        closures=[["2026-01-14T09:00", "2026-01-14T24:00"]],
    )
    assert read == written
    assert due(read, at("2026-01-12T09:00"), HOUR + 1) == at("2026-01-15T09:00:01")


def test_empty_sections_may_be_left_blank() -> None:
    assert calendar(weekly("09:00", "17:00"), holidays=None, dates=None, closures=None) == OFFICE


def test_equal_calendars_hash_alike_whatever_they_have_worked_out() -> None:
    fresh = calendar(weekly("09:00", "17:00"))
    assert due(OFFICE, at("2026-01-09T12:00"), 60) is not None
    assert fresh == OFFICE
    assert hash(fresh) == hash(OFFICE)
    assert hash(fresh) != hash(NIGHTS)
    for twin in (copy.deepcopy(OFFICE), pickle.loads(pickle.dumps(OFFICE))):
        assert twin == OFFICE
        assert due(twin, at("2026-01-09T16:30"), HOUR) == at("2026-01-12T09:30")


def test_the_memo_of_open_windows_stays_bounded() -> None:
    busy = calendar({"mon": [["09:00", "09:01"]]})
    for index in range(-100, 2000):
        busy.block(index)
    assert 0 < len(busy.memo) <= 2048
    assert due(busy, at("2026-01-12T08:00"), 60) == at("2026-01-12T09:01")


# ------------------------------------------------------------------------------------- properties

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/Havana",  # Jumps at midnight.
    "America/Sao_Paulo",  # The same, until 2019.
    "America/St_Johns",  # Offset with half an hour; until 2011 one minute past midnight.
    "Africa/Casablanca",  # Twice around Ramadan.
    "Africa/Cairo",
    "Asia/Tehran",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",  # By half an hour.
    "Pacific/Apia",  # Skipped a date.
    "Pacific/Chatham",
    "Antarctica/Troll",  # By two hours.
)


# Every six days from 2000 to 2040: Gaza's clock will go back and forth within seven.
SAMPLES = tuple(range(946_684_800, 2_240_524_800, 6 * 86_400))


def offset(zone: ZoneInfo, timestamp: int) -> timedelta | None:
    return datetime.fromtimestamp(timestamp, zone).utcoffset()


def samples_of(zone: ZoneInfo) -> tuple[timedelta | None, ...]:
    return tuple([offset(zone, timestamp) for timestamp in SAMPLES])


def jumps_between(zone: ZoneInfo, offsets: tuple[timedelta | None, ...]) -> list[datetime]:
    """The instants at which the zone's offset changes, from what it is at `SAMPLES`."""
    jumps = []
    for i in range(1, len(SAMPLES)):
        if offsets[i] == offsets[i - 1]:
            continue
        before, after = SAMPLES[i - 1], SAMPLES[i]
        while after - before > 1:
            middle = (before + after) // 2
            if offset(zone, middle) == offsets[i - 1]:
                before = middle
            else:
                after = middle
        jumps.append(datetime.fromtimestamp(after, UTC))
    return jumps


@cache
def jumps_of(name: str) -> list[datetime]:
    zone = ZoneInfo(name)
    return jumps_between(zone, samples_of(zone)) or [datetime(2026, 3, 29, 1, tzinfo=UTC)]


def clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


# Half of the times lie in the small hours, where the clocks jump.
minutes = st.one_of(st.integers(0, 240), st.integers(0, 1439))


@st.composite
def intervals(draw: st.DrawFn) -> list[list[str]]:
    pairs = draw(st.lists(st.tuples(minutes, st.one_of(minutes, st.just(1440))), max_size=3))
    return [[clock(opens), clock(closes)] for opens, closes in pairs if opens != closes]


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], datetime]:
    """A calendar with exceptions around a jump of its zone's clock, and an instant near it."""
    zone = draw(st.sampled_from(ZONES))
    jump = draw(st.sampled_from(jumps_of(zone)))
    local = jump.astimezone(ZoneInfo(zone)).date()
    near = st.integers(-3, 3).map(lambda days: (local + timedelta(days=days)).isoformat())
    hours = {day: draw(intervals()) for day in DAYS}
    if not any(hours.values()):
        hours["wed"] = [["01:30", "03:45"]]
    closures = [
        sorted([f"{day}T{clock(a)}", f"{other}T{clock(b)}"])
        for day, other, a, b in draw(st.lists(st.tuples(near, near, minutes, minutes), max_size=2))
        if (day, a) != (other, b)
    ]
    mapping = {
        "timezone": zone,
        "hours": hours,
        "holidays": draw(st.lists(near, max_size=2)),
        "dates": draw(st.dictionaries(near, intervals(), max_size=2)),
        "closures": closures,
    }
    start = jump + timedelta(minutes=draw(st.integers(-3 * 1440, 1440)))
    return mapping, start


@st.composite
def pauses_near(draw: st.DrawFn, start: datetime) -> list[tuple[datetime, datetime | None]]:
    spans = draw(st.lists(st.tuples(st.integers(-600, 4000), st.integers(0, 900)), max_size=3))
    return [
        (start + timedelta(minutes=begin), start + timedelta(minutes=begin + length))
        for begin, length in spans
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(case=cases(), data=st.data())
def test_T10_answers_equal_those_of_a_walk_from_minute_to_minute(
    case: tuple[dict[str, Any], datetime], data: st.DataObject
) -> None:
    mapping, start = case
    product, reference = parse_calendar(mapping), ReferenceCalendar(mapping)
    pauses = data.draw(pauses_near(start))
    end = start + timedelta(minutes=data.draw(st.integers(0, 3 * 1440)))

    expected = reference.elapsed(start, end, pauses)
    assert elapsed(product, start, end, pauses) == expected
    assert is_open(product, start) == reference.is_open(start)
    if expected:
        found = due(product, start, expected, pauses)
        assert found == reference.due(start, expected, pauses, within=timedelta(days=3))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    start=st.integers(0, 5400),
    length=st.integers(1, 3600),
    pauses=st.lists(st.tuples(st.integers(0, 5400), st.integers(0, 600)), max_size=4),
    opens=st.integers(0, 59),
)
def test_T10_answers_equal_those_of_a_walk_from_second_to_second(
    start: int, length: int, pauses: list[tuple[int, int]], opens: int
) -> None:
    mapping = {
        "timezone": "Europe/Berlin",
        "hours": {"sun": [["00:00:07", f"01:59:{opens:02d}"], [f"03:00:{opens:02d}", "05:00"]]},
    }
    product, reference = parse_calendar(mapping), ReferenceCalendar(mapping, step=1)
    begin = at("2026-03-29T00:00") + timedelta(seconds=start)
    spans = [(begin + timedelta(seconds=a), begin + timedelta(seconds=a + b)) for a, b in pauses]
    end = begin + timedelta(seconds=length)
    assert elapsed(product, begin, end, spans) == reference.elapsed(begin, end, spans)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases())
def test_T10_openings_and_closings_are_where_the_walk_finds_the_change(
    case: tuple[dict[str, Any], datetime],
) -> None:
    mapping, start = case
    product, reference = parse_calendar(mapping), ReferenceCalendar(mapping)
    until = start + timedelta(days=3)
    was_open, opening, closing = None, None, None
    for instant, now_open in reference.open_flags(start):
        if instant > until:
            break
        if was_open is False and now_open:
            opening = opening or instant
        if was_open and not now_open:
            closing = closing or instant
        was_open = now_open
    for found, expected in (
        (next_opening(product, start), opening),
        (next_closing(product, start), closing),
    ):
        if expected is None:
            assert found is None or found > until
        else:
            assert found == expected


micro = st.integers(0, 400 * HOUR * 1_000_000).map(lambda us: timedelta(microseconds=us))


@settings(max_examples=70, deadline=None, derandomize=True)
@given(case=cases(), data=st.data(), a=micro, b=micro)
def test_T10_waiting_in_two_parts_is_waiting_once(
    case: tuple[dict[str, Any], datetime], data: st.DataObject, a: timedelta, b: timedelta
) -> None:
    mapping, start = case
    product, pauses = parse_calendar(mapping), data.draw(pauses_near(start))
    middle = due(product, start, a, pauses)
    assert middle is not None
    once, twice = due(product, start, a + b, pauses), due(product, middle, b, pauses)
    # Nothing more to wait for at a closing time is due at that closing time, on either way.
    assert once == twice
    assert once is not None
    assert start <= middle <= once
    assert elapsed(product, start, once, pauses) == a + b
    assert elapsed(product, middle, once, pauses) == b


@settings(max_examples=70, deadline=None, derandomize=True)
@given(case=cases(), data=st.data(), amounts=st.lists(micro, min_size=1, max_size=4))
def test_T10_several_amounts_asked_together_are_due_when_each_is(
    case: tuple[dict[str, Any], datetime], data: st.DataObject, amounts: list[timedelta]
) -> None:
    mapping, start = case
    product, pauses = parse_calendar(mapping), data.draw(pauses_near(start))
    standing = [*pauses, (start + timedelta(days=30), None)]
    for stops in ([], pauses, standing):
        together = dues(product, start, amounts, stops)
        assert together == [due(product, start, amount, stops) for amount in amounts]
        assert all(one is None or one.tzinfo is UTC for one in together)


@settings(max_examples=70, deadline=None, derandomize=True)
@given(case=cases(), amount=micro, later=micro, more=micro)
def test_T10_a_later_start_or_a_longer_wait_is_never_due_earlier(
    case: tuple[dict[str, Any], datetime], amount: timedelta, later: timedelta, more: timedelta
) -> None:
    mapping, start = case
    product = parse_calendar(mapping)
    found = due(product, start, amount)
    delayed, longer = due(product, start + later, amount), due(product, start, amount + more)
    assert found is not None
    assert delayed is not None
    assert longer is not None
    assert found <= delayed
    assert found <= longer
    assert elapsed(product, start, start + later) <= later


def test_T10_holds_at_every_change_of_every_zones_clock_from_2000_to_2040() -> None:
    """Zones that change alike at one instant are the same case; each is tried once."""
    hours = {day: [["22:10", "00:20"], ["00:40", "04:00"]] for day in DAYS}
    clocks = {samples_of(zone): zone for zone in map(ZoneInfo, sorted(available_timezones()))}
    seen = set()
    for offsets, zone in clocks.items():
        split = parse_calendar({"timezone": zone.key, "hours": hours})
        for jump in jumps_between(zone, offsets):
            before = offset(zone, int(jump.timestamp()) - 1)
            case = jump, before, offset(zone, int(jump.timestamp()))
            if case in seen:
                continue
            seen.add(case)
            start, a, b = jump - timedelta(hours=7), timedelta(hours=3), timedelta(minutes=100)
            middle, once = due(split, start, a), due(split, start, a + b)
            assert middle is not None, case
            assert once is not None, case
            assert due(split, middle, b) == once, case
            assert elapsed(split, start, once) == a + b, case
            assert middle <= once, case
    assert len(seen) > 1_000
