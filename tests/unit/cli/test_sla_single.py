"""`signalbox sla due|elapsed|open` for a person, and the orders that the contact ratio is made from."""

import json
from datetime import date
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.errors import UsageMistake
from cli.main import app
from cli.sla_report import parse_orders, stretch
from cli.sla_words import length
from services.sla.core.policy import parse_duration

CALENDARS = """
calendars:
  desk:
    timezone: Europe/Berlin
    hours:
      mon: [["09:00", "17:00"]]
      fri: [["09:00", "12:00"], ["13:00", "17:00"]]
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "calendars.yaml").write_text(CALENDARS, encoding="utf-8")
    return tmp_path


def answer(policy: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["sla", *words, "--calendar", "desk", "--policy", str(policy)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


def test_t1_due_shows_how_it_comes_about(policy: Path) -> None:
    """T1, as a person would write it down."""
    said = answer(policy, "due", "--start", "2026-01-09T16:30", "--within", "1h").splitlines()
    assert said == [
        "1h on desk, from Fri 9 Jan 2026 16:30",
        "  Fri 9 Jan   16:30-17:00                30m          30m",
        "  Mon 12 Jan  09:00-09:30                30m           1h",
        "due Mon 12 Jan 2026 09:30  (Europe/Berlin, +01:00)",
    ]


def test_due_takes_pauses_and_answers_in_json(policy: Path) -> None:
    said = answer(
        policy, "due", "--start", "2026-01-09T09:00:00+01:00", "--within", "2h", "--json",
        "--pause", "2026-01-09T10:00:05/2026-01-09T10:00:15",
        "--pause", "2026-01-09T10:00:25/2026-01-09T10:00:35",
    )  # fmt: skip
    assert json.loads(said) == {
        "calendar": "desk",
        "timezone": "Europe/Berlin",
        "start": "2026-01-09T09:00:00+01:00",
        "seconds": 7200,
        "due": "2026-01-09T11:00:20+01:00",
    }


def test_a_pause_without_an_end_leaves_it_open(policy: Path) -> None:
    said = answer(
        policy,
        "due",
        "--start",
        "2026-01-09T09:00",
        "--within",
        "2h",
        "--pause",
        "2026-01-09T10:00/",
    )
    assert "Nobody can say when it is due" in said


def test_elapsed_leaves_lunch_and_the_weekend_out(policy: Path) -> None:
    said = answer(policy, "elapsed", "--start", "2026-01-09T11:30", "--end", "2026-01-12T09:15")
    assert said.splitlines()[-1] == (
        "4h 45m of open time of 69h 45m by the clock on the wall  (Europe/Berlin)"
    )


def test_open_says_until_when(policy: Path) -> None:
    assert "open until Fri 9 Jan 2026 12:00, in 1h" in answer(
        policy, "open", "--at", "2026-01-09T11:00"
    )
    assert "closed until Mon 12 Jan 2026 09:00" in answer(
        policy, "open", "--at", "2026-01-09T17:00"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("due", "--start", "soon", "--within", "1h"), "--start: got 'soon'"),
        (("due", "--start", "2026-01-09T09:00", "--within", "0h"), "--within: got '0h'"),
        (("due", "--start", "2026-01-09T09:00"), "--within missing"),
        (
            ("due", "--start", "2026-01-09T09:00", "--within", "1h", "--pause", "2026-01-09T09:00"),
            "give FROM/TO",
        ),
    ],
)
def test_what_cannot_be_used_is_named(policy: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageMistake, match=said):
        answer(policy, *words)


def test_an_unknown_calendar_is_answered_with_those_there_are(policy: Path) -> None:
    words = ["sla", "open", "--calendar", "shop", "--policy", str(policy)]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UsageMistake)
    assert "give one of desk" in str(result.exception)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0s"),
        (0.004, "4ms"),
        (59, "59s"),
        (3_600, "1h"),
        (3_661, "1h 1m"),
        (90_000, "1d 1h"),
        (-60, "-1m"),
    ],
)
def test_lengths_are_said_in_their_two_largest_units(seconds: float, said: str) -> None:
    assert length(seconds) == said


def test_the_lengths_that_are_typed_are_those_of_the_policy() -> None:
    assert parse_duration("1h30m").total_seconds() == 5_400


# --------------------------------------------------------------------------------- orders


def test_orders_are_read_by_day_and_shop() -> None:
    text = "day,orders,shop\n2026-11-23,12,lamps\n\n2026-11-23,3,desks\n"
    assert parse_orders(text, "orders.csv") == {
        (date(2026, 11, 23), "lamps"): 12,
        (date(2026, 11, 23), "desks"): 3,
    }


def test_every_line_that_cannot_be_used_is_named_and_none_is_taken() -> None:
    text = "day,orders\n2026-11-23,12\n23.11.2026,4\n2026-11-24,-1\n2026-11-23,5\n2026-11-25\n"
    with pytest.raises(UsageMistake) as found:
        parse_orders(text, "orders.csv")
    said = str(found.value)
    assert said.startswith("orders.csv: nothing was taken in.")
    assert "line 3: day: got '23.11.2026'" in said
    assert "line 4: orders: got '-1'" in said
    assert "line 5: day: 2026-11-23 stands twice" in said
    assert "line 6: has 1 fields; give 2" in said


def test_a_file_with_another_head_is_refused() -> None:
    with pytest.raises(UsageMistake, match="line 1: got date;count"):
        parse_orders("date;count\n", "orders.csv")


def test_a_report_of_days_the_wrong_way_round_is_refused() -> None:
    from zoneinfo import ZoneInfo

    with pytest.raises(UsageMistake, match="--to: 2026-11-01 is before --from 2026-11-02"):
        stretch("2026-11-02", "2026-11-01", ZoneInfo("UTC"))
