"""The offline commands `signalbox sla due|elapsed|open --batch`, a line at a time."""

import json
from typing import Any

import pytest

from services.sla.core.batch import due_line, elapsed_line, open_line

OFFICE = {
    "timezone": "Europe/Berlin",
    "hours": {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")},
    "holidays": ["2026-01-01"],
    "dates": {"2026-12-24": [["09:00", "12:00"]]},
    "closures": [["2026-01-05T12:00", "2026-01-05T13:00"]],
}


def line(**fields: Any) -> dict[str, Any]:
    """A line as it comes out of a JSON parser."""
    parsed: dict[str, Any] = json.loads(json.dumps({"id": "a", "calendar": OFFICE} | fields))
    return parsed


def test_due_answers_in_the_calendars_zone() -> None:
    friday = line(start="2026-01-09T15:30:00Z", seconds=3600)
    assert due_line(friday) == {"id": "a", "due": "2026-01-12T09:30:00+01:00"}


def test_due_skips_holidays_closures_and_shortened_days() -> None:
    asked = {
        "2025-12-31T16:30:00+01:00": "2026-01-02T09:30:00+01:00",
        "2026-01-05T11:30:00+01:00": "2026-01-05T13:30:00+01:00",
        "2026-12-24T11:30:00+01:00": "2026-12-25T09:30:00+01:00",
    }
    for start, expected in asked.items():
        assert due_line(line(start=start, seconds=3600)) == {"id": "a", "due": expected}


def test_due_takes_pauses_and_an_open_one_leaves_it_null() -> None:
    start = "2026-01-12T09:00:00+01:00"
    pause = ["2026-01-12T16:00:00+01:00", "2026-01-13T10:00:00+01:00"]
    paused = line(start=start, seconds=28800, pauses=[pause])
    assert due_line(paused) == {"id": "a", "due": "2026-01-13T11:00:00+01:00"}
    still_paused = line(start=start, seconds=28800, pauses=[[pause[0], None]])
    assert due_line(still_paused) == {"id": "a", "due": None}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2026-03-28T12:00:00+01:00", "2026-03-29T12:00:00+01:00"),
        ("2026-03-28T12:00:00Z", "2026-03-29T12:00:00+00:00"),
        ("2026-03-28t12:00:00z", "2026-03-29T12:00:00+00:00"),
        ("2026-03-28T12:00:00.250-03:30", "2026-03-29T12:00:00.250000-03:30"),
    ],
)
def test_without_a_calendar_every_second_counts_and_the_offset_stays(
    start: str, expected: str
) -> None:
    always = {"id": 7, "start": start, "seconds": 86400}
    assert due_line(always) == {"id": 7, "due": expected}
    assert due_line(always | {"calendar": None}) == {"id": 7, "due": expected}


def test_sub_second_digits_are_there_only_when_they_are_not_zero() -> None:
    start = "2026-01-12T09:00:00.000+01:00"
    assert due_line(line(start=start, seconds=0.5))["due"] == "2026-01-12T09:00:00.500000+01:00"
    assert due_line(line(start=start, seconds=1.0))["due"] == "2026-01-12T09:00:01+01:00"


def test_elapsed_is_a_whole_number_where_it_is_one() -> None:
    start = "2026-01-09T16:30:00+01:00"
    whole = elapsed_line(line(start=start, end="2026-01-12T09:30:00+01:00"))
    assert whole == {"id": "a", "seconds": 3600}
    assert isinstance(whole["seconds"], int)
    part = elapsed_line(line(start=start, end="2026-01-09T16:30:00.250+01:00"))
    assert part == {"id": "a", "seconds": 0.25}


def test_elapsed_counts_overlapping_pauses_once() -> None:
    pauses = [
        ["2026-01-12T10:00:00+01:00", "2026-01-12T11:00:00+01:00"],
        ["2026-01-12T10:30:00+01:00", None],
    ]
    asked = line(start="2026-01-12T09:00:00+01:00", end="2026-01-13T09:00:00+01:00", pauses=pauses)
    assert elapsed_line(asked) == {"id": "a", "seconds": 3600}


def test_open_tells_the_next_opening_while_closed() -> None:
    assert open_line(line(at="2026-01-09T16:59:59+01:00")) == {
        "id": "a",
        "open": True,
        "next": None,
    }
    assert open_line(line(at="2026-01-09T17:00:00+01:00")) == {
        "id": "a",
        "open": False,
        "next": "2026-01-12T09:00:00+01:00",
    }


def test_open_without_another_opening_has_no_next() -> None:
    fair = {"timezone": "UTC", "hours": {}, "dates": {"2026-05-01": [["10:00", "18:00"]]}}
    closed = open_line(line(calendar=fair, at="2026-05-01T18:00:00Z"))
    assert closed == {"id": "a", "open": False, "next": None}


def test_an_offset_with_seconds_has_no_form_in_rfc_3339_and_is_told_in_utc() -> None:
    old = {"timezone": "Africa/Monrovia", "hours": {"mon": [["09:00", "17:00"]]}}
    # Liberia kept 44 minutes and 30 seconds behind Greenwich until 1972.
    asked = line(calendar=old, start="1970-01-05T09:00:00Z", seconds=60)
    assert due_line(asked) == {"id": "a", "due": "1970-01-05T09:45:30+00:00"}


@pytest.mark.parametrize(
    ("handle", "change", "place"),
    [
        (due_line, {"start": None}, "start: got nothing"),
        (due_line, {"start": 1767949200}, "start: "),
        (due_line, {"start": "2026-01-09T16:30:00"}, "start: "),
        (due_line, {"start": "2026-02-30T16:30:00Z"}, "start: "),
        (due_line, {"start": "2026-01-09T16:30:00+25:00"}, "start: "),
        (due_line, {"start": "20260109T163000Z"}, "start: "),
        (due_line, {"start": "9999-12-31T23:59:59-12:00"}, "start: "),
        (due_line, {"seconds": None}, "seconds: got nothing"),
        (due_line, {"seconds": "3600"}, "seconds: "),
        (due_line, {"seconds": True}, "seconds: "),
        (due_line, {"seconds": -1}, "seconds: "),
        (due_line, {"seconds": 1e300}, "seconds: "),
        (due_line, {"seconds": 10**400}, "seconds: "),
        (due_line, {"seconds": float("nan")}, "seconds: "),
        (due_line, {"pauses": {}}, "pauses: "),
        (due_line, {"pauses": ["2026-01-12T10:00:00Z"]}, "pauses[0]: "),
        (due_line, {"pauses": [[None, None]]}, "pauses[0][0]: "),
        (due_line, {"pauses": [["2026-01-12T10:00:00Z", "soon"]]}, "pauses[0][1]: "),
        (due_line, {"calendar": "Europe/Berlin"}, "calendar: "),
        (due_line, {"calendar": OFFICE | {"timezone": "Mars/Base"}}, "calendar.timezone: "),
        (due_line, {"calendar": {"timezone": "UTC", "hours": {}}}, "calendar.hours: "),
        (elapsed_line, {"end": None}, "end: got nothing"),
        (elapsed_line, {"end": "2026-01-09T16:29:59+01:00"}, "end: "),
        (open_line, {"at": None}, "at: got nothing"),
        (open_line, {"at": "today"}, "at: "),
    ],
)
def test_a_line_that_cannot_be_handled_says_which_field_is_wrong(
    handle: Any, change: dict[str, Any], place: str
) -> None:
    sound = line(
        start="2026-01-09T16:30:00+01:00",
        end="2026-01-09T16:30:00+01:00",
        at="2026-01-09T16:30:00+01:00",
        seconds=60,
    )
    assert "error" not in handle(sound)
    answer = handle(sound | change)
    assert answer.keys() == {"id", "error"}
    assert answer["id"] == "a"
    assert answer["error"].startswith(place)


@pytest.mark.parametrize("obj", [None, [], "due", 3])
def test_a_line_that_is_no_object_is_answered_all_the_same(obj: object) -> None:
    answer = due_line(obj)
    assert answer["id"] is None
    assert str(answer["error"]).startswith("line: ")


def test_a_line_without_an_id_is_answered_without_one() -> None:
    assert due_line({"start": "2026-01-09T16:30:00Z", "seconds": 0}) == {
        "id": None,
        "due": "2026-01-09T16:30:00+00:00",
    }


def test_unknown_fields_of_a_line_are_ignored() -> None:
    asked = line(start="2026-01-12T09:00:00+01:00", seconds=60, note="from the wiki")
    assert due_line(asked) == {"id": "a", "due": "2026-01-12T09:01:00+01:00"}
