"""N3: quiet hours go by the customer's own clock, on the nights that clocks change too."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notifier.core.quiet import (
    DAY,
    WEEK,
    QuietHours,
    Window,
    first_overlap,
    instant,
    is_quiet_at,
    next_at,
    quiet_minutes,
    quiet_until,
    share_of,
    spread_end,
    zones_of,
)

ISTANBUL = ZoneInfo("Europe/Istanbul")
BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
EVERY_DAY = frozenset(range(7))
NIGHT = (Window(EVERY_DAY, 21 * 60, 32 * 60),)
"""From 21:00 to 08:00."""


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def until(windows: tuple[Window, ...], zone: ZoneInfo, text: str) -> str | None:
    end = quiet_until(windows, (zone,), zone, at(text))
    return None if end is None else end.strftime("%Y-%m-%d %H:%M:%S")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-24 17:59:59", None),
        ("2026-11-24 18:00:00", "2026-11-25 05:00:00"),
        ("2026-11-24 22:30:00", "2026-11-25 05:00:00"),
        ("2026-11-25 04:59:59", "2026-11-25 05:00:00"),
        ("2026-11-25 05:00:00", None),
    ],
)
def test_quiet_hours_begin_and_end_on_the_customers_clock_to_the_second(
    now: str, expected: str | None
) -> None:
    assert until(NIGHT, ISTANBUL, now) == expected


def test_the_same_instant_is_quiet_for_one_customer_and_not_for_another() -> None:
    assert until(NIGHT, ISTANBUL, "2026-11-24 19:00") == "2026-11-25 05:00:00"
    assert until(NIGHT, NEW_YORK, "2026-11-24 19:00") is None


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        # The night in March is an hour shorter, the one in October an hour longer; both end at 08:00 on the clock.
        ("2026-03-28 20:00:00", "2026-03-29 06:00:00"),
        ("2026-10-24 19:00:00", "2026-10-25 07:00:00"),
        ("2026-10-25 06:59:59", "2026-10-25 07:00:00"),
    ],
)
def test_a_night_on_which_clocks_change_ends_by_the_clock(now: str, expected: str) -> None:
    assert until(NIGHT, BERLIN, now) == expected


def test_an_end_that_is_skipped_is_the_jump_itself() -> None:
    windows = (
        Window(EVERY_DAY, 22 * 60, 24 * 60 + 150),
    )  # To 02:30, which 29 March does not have.
    assert until(windows, BERLIN, "2026-03-29 00:30") == "2026-03-29 01:00:00"
    assert until(windows, BERLIN, "2026-03-29 01:00") is None


def test_a_start_that_is_skipped_is_the_jump_itself() -> None:
    windows = (Window(EVERY_DAY, 150, 300),)  # From 02:30 to 05:00.
    assert until(windows, BERLIN, "2026-03-29 00:59:59") is None
    assert until(windows, BERLIN, "2026-03-29 01:00") == "2026-03-29 03:00:00"


def test_an_hour_that_comes_twice_is_quiet_as_a_whole() -> None:
    windows = (Window(EVERY_DAY, 22 * 60, 24 * 60 + 150),)  # To 02:30, which 25 October has twice.
    assert until(windows, BERLIN, "2026-10-25 00:29") == "2026-10-25 01:30:00"
    assert until(windows, BERLIN, "2026-10-25 00:40") == "2026-10-25 01:30:00"
    assert until(windows, BERLIN, "2026-10-25 01:30") is None


def test_an_hour_that_comes_twice_is_quiet_from_its_first_time_on() -> None:
    windows = (Window(EVERY_DAY, 150, 300),)
    assert until(windows, BERLIN, "2026-10-25 00:29:59") is None
    assert until(windows, BERLIN, "2026-10-25 00:30") == "2026-10-25 04:00:00"
    assert until(windows, BERLIN, "2026-10-25 01:10") == "2026-10-25 04:00:00"


def test_windows_that_touch_are_one_time_of_quiet() -> None:
    weekend = (Window(frozenset({4}), 21 * 60, DAY), Window(frozenset({5, 6}), 0, DAY))
    assert until(weekend, ISTANBUL, "2026-11-27 18:30") == "2026-11-29 21:00:00"


def test_overlaps_are_found_over_midnight_and_over_the_end_of_the_week() -> None:
    assert first_overlap(NIGHT) is None
    assert first_overlap((*NIGHT, Window(frozenset({2}), 7 * 60, 9 * 60))) == (0, 1)
    assert first_overlap((*NIGHT, Window(frozenset({2}), 8 * 60, 9 * 60))) is None
    sunday = Window(frozenset({6}), 22 * 60, 24 * 60 + 120)
    assert first_overlap((sunday, Window(frozenset({0}), 60, 180))) == (0, 1)
    assert first_overlap((sunday, Window(frozenset({0}), 120, 180))) is None
    assert first_overlap(()) is None


def test_the_minutes_of_a_week_are_counted() -> None:
    assert quiet_minutes(NIGHT) == 7 * 11 * 60
    assert is_quiet_at(NIGHT, 7 * 60)
    assert not is_quiet_at(NIGHT, 8 * 60)


def test_what_waited_is_spread_and_each_notice_has_its_own_place() -> None:
    quiet = QuietHours(NIGHT, spread=timedelta(minutes=30))
    end = at("2026-11-25 05:00")
    ends = {spread_end(quiet, (ISTANBUL,), ISTANBUL, end, f"n{n}") for n in range(100)}
    assert len(ends) == 100
    assert end <= min(ends) < max(ends) < end + timedelta(minutes=30)
    assert spread_end(quiet, (ISTANBUL,), ISTANBUL, end, "n1") in ends


def test_the_spread_does_not_lead_into_the_next_quiet_hours() -> None:
    quiet = QuietHours((Window(EVERY_DAY, 10, DAY),), spread=timedelta(hours=4))
    end = at("2026-11-24 21:00")  # Midnight in Istanbul: ten minutes of the day are free.
    for number in range(50):
        late = spread_end(quiet, (ISTANBUL,), ISTANBUL, end, f"n{number}")
        assert quiet_until(quiet.windows, (ISTANBUL,), ISTANBUL, late) is None


def test_a_seed_gives_a_share_below_one() -> None:
    assert all(0 <= share_of(str(number)) < 1 for number in range(1000))


@pytest.mark.parametrize(
    ("phone", "expected"),
    [
        ("+905321234567", {"Europe/Istanbul"}),
        ("+442079460000", {"Europe/London"}),
        ("+14155550100", {"America/Los_Angeles"}),
        ("+74951234567", {"Europe/Moscow"}),
        ("+888123456789", {"Europe/Istanbul"}),  # Of no country: the policy's own.
        ("", {"Europe/Istanbul"}),
        ("nonsense", {"Europe/Istanbul"}),
        ("+79161234567", {"Europe/Moscow"}),  # The policy says where Russian mobile numbers are.
    ],
)
def test_a_number_says_where_its_owner_is(phone: str, expected: set[str]) -> None:
    zones = zones_of(phone, ISTANBUL, {"RU": ZoneInfo("Europe/Moscow")})
    assert {zone.key for zone in zones} == expected


def test_where_a_number_leaves_several_zones_it_has_to_be_day_in_all_of_them() -> None:
    zones = zones_of("+61412345678", ISTANBUL)  # An Australian mobile number.
    assert {"Australia/Perth", "Australia/Sydney"} <= {zone.key for zone in zones}
    # 21:00 UTC is 08:00 in Sydney, and 05:00 in Perth.
    end = quiet_until(NIGHT, zones, ISTANBUL, at("2026-11-24 21:00"))
    # 08:00 on the Cocos Islands (UTC+6:30), the last of them.
    assert end == at("2026-11-25 01:30")


def test_zones_too_far_apart_to_have_a_day_in_common_are_as_good_as_none() -> None:
    zones = zones_of("+79161234567", BERLIN)
    assert len(zones) > 10
    windows = (Window(EVERY_DAY, 17 * 60, 33 * 60),)  # From 17:00 to 09:00.
    assert quiet_until(windows, zones, BERLIN, at("2026-11-24 20:00")) == at("2026-11-25 08:00")


def test_the_policys_own_zone_counts_where_a_number_may_be_in_it() -> None:
    assert zones_of("+61412345678", ZoneInfo("Australia/Perth")) == (ZoneInfo("Australia/Perth"),)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-24 07:59", "2026-11-24 08:00"),
        ("2026-11-24 08:00", "2026-11-25 08:00"),
        ("2026-11-24 21:30", "2026-11-25 08:00"),  # 00:30 of the next day already.
    ],
)
def test_a_digest_is_told_at_the_next_such_hour_of_the_customers_day(
    now: str, expected: str
) -> None:
    assert next_at(11 * 60, ISTANBUL, at(now)) == at(expected)


def test_a_day_whose_hour_comes_twice_has_one_digest() -> None:
    first = at("2026-10-25 00:30")
    assert next_at(150, BERLIN, at("2026-10-24 22:00")) == first
    assert next_at(150, BERLIN, first) == at("2026-10-26 01:30")
    # Skipped, it is told as the clocks jump.
    assert next_at(150, BERLIN, at("2026-03-28 22:00")) == at("2026-03-29 01:00")


# ------------------------------------------------------------------------------------- all zones

ZONES = tuple(sorted(available_timezones() - {"localtime", "Factory"}))


@cache
def _changes(zone: ZoneInfo) -> tuple[datetime, ...]:
    """The days on which the zone's clocks change, 2024 to 2030."""
    found = []
    day = datetime(2024, 1, 1, 12, tzinfo=UTC)
    while day.year < 2031:
        after = day + timedelta(days=1)
        if day.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
            found.append(day)
        day = after
    return tuple(found)


@st.composite
def instants(draw: st.DrawFn) -> tuple[ZoneInfo, datetime]:
    """A zone and an instant, half of the time of a day on which its clocks change."""
    zone = ZoneInfo(draw(st.sampled_from(ZONES)))
    seconds = draw(st.integers(0, 2 * 86_400))
    changes = _changes(zone) if draw(st.booleans()) else ()
    if changes:
        return zone, draw(st.sampled_from(changes)) + timedelta(seconds=seconds)
    days = draw(st.integers(0, 7 * 365))
    return zone, datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=days, seconds=seconds)


@st.composite
def week_windows(draw: st.DrawFn) -> tuple[Window, ...]:
    """Windows that do not overlap and leave some hours of the week."""
    edges = sorted(draw(st.lists(st.integers(0, 47), min_size=2, max_size=4, unique=True)))
    days = draw(st.frozensets(st.integers(0, 6), min_size=1))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    made = tuple(Window(days, start * 30, end * 30) for start, end in pairs)
    if draw(st.booleans()):
        made = (Window(days, edges[-1] * 30, DAY + edges[0] * 30),)
    return made if first_overlap(made) is None and quiet_minutes(made) < WEEK - 180 else NIGHT


def _shows(windows: tuple[Window, ...], zone: ZoneInfo, now: datetime) -> bool:
    """What a clock on the wall says: whether it shows a time of a window. Knows nothing of how the code finds it."""
    local = now.astimezone(zone)
    minute = local.hour * 60 + local.minute
    today, yesterday = local.weekday(), (local.weekday() - 1) % 7
    return any(
        (today in one.days and one.start <= minute < one.end)
        or (yesterday in one.days and one.start <= minute + DAY < one.end)
        for one in windows
    )


@settings(max_examples=400)
@given(instants(), week_windows())
def test_what_may_not_disturb_is_never_told_while_a_clock_shows_quiet_hours(
    place: tuple[ZoneInfo, datetime], windows: tuple[Window, ...]
) -> None:
    zone, now = place
    end = quiet_until(windows, (zone,), zone, now)
    if end is None:
        assert not _shows(windows, zone, now)
    else:
        assert end > now
        assert not _shows(windows, zone, end)
        assert quiet_until(windows, (zone,), zone, end) is None


@settings(max_examples=300)
@given(instants(), week_windows())
def test_it_is_never_quiet_longer_than_a_clock_shows_but_for_an_hour_that_comes_twice(
    place: tuple[ZoneInfo, datetime], windows: tuple[Window, ...]
) -> None:
    zone, now = place
    end = quiet_until(windows, (zone,), zone, now)
    if end is None:
        return
    # Far from a change of the clocks, the second before the end is shown as quiet.
    day = timedelta(days=1)
    if (end - day).astimezone(zone).utcoffset() == (end + day).astimezone(zone).utcoffset():
        assert _shows(windows, zone, end - timedelta(seconds=1))


@settings(max_examples=300)
@given(instants(), st.integers(0, DAY - 1))
def test_each_day_has_its_digest_once(place: tuple[ZoneInfo, datetime], minute: int) -> None:
    zone, now = place
    first = next_at(minute, zone, now)
    second = next_at(minute, zone, first)
    assert now < first < second
    assert timedelta(hours=21) <= second - first <= timedelta(hours=27)


def test_a_minute_of_a_day_is_found_in_every_zone() -> None:
    for name in ZONES:
        zone = ZoneInfo(name)
        shown = instant(date(2026, 6, 15), 12 * 60, zone).astimezone(zone)
        assert (shown.hour, shown.minute) == (12, 0)
