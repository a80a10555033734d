"""`sla.yaml` and `calendars.yaml`: what they may say, and how a mistake is named."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.errors import PolicyError
from chassis.policy import load, parse
from hours.file import CalendarsFile
from services.sla.core.policy import (
    Policy,
    PolicyMistake,
    SlaFile,
    build,
    parse_duration,
    policy_names,
)
from services.sla.handlers import POLICY

REPOSITORY = Path(__file__).parents[3]
ALL_WEEK = {day: [["00:00", "24:00"]] for day in ("mon", "tue", "wed", "thu", "fri", "sat", "sun")}
ALWAYS = {"timezone": "UTC", "hours": ALL_WEEK}


def policy(standard: dict[str, Any], **calendars: Any) -> Policy:
    sla = {"default": "standard", "policies": {"standard": {"calendar": "always"} | standard}}
    return build(
        {
            "sla.yaml": parse("sla.yaml", sla, SlaFile),
            "calendars.yaml": parse(
                "calendars.yaml", {"calendars": {"always": ALWAYS} | calendars}, CalendarsFile
            ),
        },
        Path("policy"),
        "v1",
    )


# --------------------------------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("4h", 14_400),
        ("1h30m", 5_400),
        ("90m", 5_400),
        ("45s", 45),
        ("1h1s", 3_601),
        ("27h", 97_200),
    ],
)
def test_a_duration_is_hours_minutes_and_seconds(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",
        "4 h",
        "h",
        "4H",
        "1d",
        "30m1h",
        "1.5h",
        "-4h",
        "4h ",
        "１h",
        "4h4h",
        4,
        4.0,
        None,
        True,
        [],
    ],
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match='such as "4h"'):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0h", "0m0s", "00s"])
def test_a_target_of_zero_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than zero"):
        parse_duration(text)


# -------------------------------------------------------------------------------------------- rules


def test_a_targets_own_word_counts_before_its_policys() -> None:
    made = policy(
        {
            "warn_at": 0.5,
            "first_response": {"within": "4h"},
            "next_response": {"seconds": 90, "warn_at": 0.9, "calendar": "late"},
            "resolution": {"within": "8h", "warn_at": None, "pauses": ["pending"]},
        },
        late={"timezone": "UTC", "hours": {"mon": [["20:00", "24:00"]]}},
    )
    first = made.target("standard", 3, "first_response")
    following = made.target("standard", 3, "next_response")
    resolution = made.target("standard", 3, "resolution")
    assert first is not None
    assert following is not None
    assert resolution is not None
    assert (first.allowed, first.calendar, first.warn_share) == (timedelta(hours=4), "always", 0.5)
    assert (following.allowed, following.calendar) == (timedelta(seconds=90), "late")
    assert following.warn_share == 0.9
    assert (resolution.warn_share, resolution.pauses_on) == (None, ("pending",))


def test_a_priority_overrides_what_it_names_and_keeps_the_rest() -> None:
    made = policy(
        {
            "first_response": {"within": "4h", "warn_at": 0.7},
            "priorities": {1: {"first_response": {"seconds": 300}, "resolution": {"within": "2h"}}},
        }
    )
    urgent = made.target("standard", 1, "first_response")
    assert urgent is not None
    assert (urgent.allowed, urgent.warn_share) == (timedelta(minutes=5), 0.7)
    assert made.target("standard", 1, "resolution") is not None
    assert made.target("standard", 2, "resolution") is None
    ordinary = made.target("standard", 2, "first_response")
    assert ordinary is not None
    assert ordinary.allowed == timedelta(hours=4)


def test_a_policy_nobody_knows_is_served_by_the_default() -> None:
    made = policy({"first_response": {"within": "4h"}})
    assert made.rule("gold").name == "standard"
    assert policy_names(made) == {"standard"}


def test_a_calendar_that_was_taken_away_is_always_open() -> None:
    made = policy({"first_response": {"within": "4h"}})
    assert made.calendar("gone").never_opens() is False
    assert made.calendar("gone").timezone == "UTC"


# ----------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("standard", "path", "allowed"),
    [
        ({"calendar": "shop"}, "policies.standard.calendar", "always"),
        (
            {"first_response": {"within": "4h", "calendar": "shop"}},
            "policies.standard.first_response.calendar",
            "one of calendars.yaml",
        ),
        ({"first_response": {}}, "policies.standard.first_response.within", "is required"),
        (
            {"priorities": {1: {"resolution": {"warn_at": 0.5}}}},
            "policies.standard.priorities.1.resolution.within",
            "is required",
        ),
        (
            {"first_response": {"within": "200000h"}},
            "policies.standard.first_response.within",
            "520 weeks",
        ),
    ],
)
def test_what_only_shows_across_files_is_named(
    standard: dict[str, Any], path: str, allowed: str
) -> None:
    with pytest.raises(PolicyMistake) as caught:
        policy(standard)
    assert (caught.value.file, caught.value.path) == ("sla.yaml", path)
    assert allowed in caught.value.allowed


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_warning_outside_the_time_is_refused(share: float) -> None:
    with pytest.raises(PolicyError) as caught:
        policy({"first_response": {"within": "4h", "warn_at": share}})
    assert caught.value.path == "policies.standard.first_response.warn_at"


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_a_warning_inside_the_time_is_taken(share: float) -> None:
    rule = policy({"first_response": {"within": "4h", "warn_at": share}}).target(
        "standard", 3, "first_response"
    )
    assert rule is not None
    assert rule.warn_share == share


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ({"within": "4h", "seconds": 60}, ""),
        ({"within": "1d"}, ".within"),
        ({"seconds": 0}, ".seconds"),
        ({"within": "4h", "pauses": ["queued"]}, ".pauses.0"),
        ({"within": "4h", "minutes": 3}, ".minutes"),
    ],
)
def test_a_target_with_a_mistake_is_named_with_its_path(target: dict[str, Any], path: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy({"first_response": target})
    assert caught.value.file == "sla.yaml"
    assert caught.value.path == f"policies.standard.first_response{path}"


def test_an_unknown_key_is_answered_with_the_known_ones() -> None:
    with pytest.raises(PolicyError, match="known here: calendar, pauses, seconds, warn_at, within"):
        policy({"first_response": {"minutes": 3}})


def test_a_fifth_priority_does_not_exist() -> None:
    with pytest.raises(PolicyError, match="priorities"):
        policy({"priorities": {5: {"first_response": {"within": "4h"}}}})


def test_T11_a_calendar_that_never_opens_is_refused_with_file_and_path() -> None:  # noqa: N802
    with pytest.raises(PolicyMistake) as caught:
        policy({}, shut={"timezone": "UTC", "hours": {}})
    assert (caught.value.file, caught.value.path) == ("calendars.yaml", "calendars.shut.hours")


def test_a_calendar_of_single_dates_runs_out_and_serves_no_target() -> None:
    fair = {"timezone": "UTC", "hours": {}, "dates": {"2026-05-01": [["09:00", "17:00"]]}}
    with pytest.raises(PolicyMistake, match="weekly hours"):
        policy({"first_response": {"within": "4h", "calendar": "fair"}}, fair=fair)


def test_an_unknown_default_is_refused() -> None:
    sla = {"default": "gold", "policies": {"standard": {"calendar": "always"}}}
    with pytest.raises(PolicyMistake, match="one of standard"):
        build(
            {
                "sla.yaml": parse("sla.yaml", sla, SlaFile),
                "calendars.yaml": parse(
                    "calendars.yaml", {"calendars": {"always": ALWAYS}}, CalendarsFile
                ),
            },
            Path("policy"),
            "v1",
        )


# ------------------------------------------------------------------------------------- on the disk


def test_the_example_policy_is_good_and_promises_more_to_the_urgent() -> None:
    made = load(REPOSITORY / "policy", POLICY)
    assert policy_names(made) == {"standard", "urgent"}
    for name in sorted(policy_names(made)):
        for kind in ("first_response", "next_response", "resolution"):
            lengths = []
            for priority in (1, 2, 3, 4):
                rule = made.target(name, priority, kind)
                assert rule is not None
                lengths.append(rule.allowed)
            assert lengths == sorted(lengths)


def test_a_mistake_in_a_file_is_told_with_file_path_and_value(tmp_path: Path) -> None:
    for name in ("sla.yaml", "calendars.yaml"):
        text = (REPOSITORY / "policy" / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("calendar: shop", "calendar: shpo"), "utf-8")
    with pytest.raises(PolicyError) as caught:
        load(tmp_path, POLICY)
    assert (caught.value.file, caught.value.path) == ("sla.yaml", "policies.standard.calendar")
    assert caught.value.value == "shpo"
    assert "shop" in caught.value.allowed
