"""A clock that can stand still: pauses, their causes, and time to the microsecond."""
# ruff: noqa: N802 — T4 is the id of a promise, and written as elsewhere.

from datetime import UTC, datetime, timedelta

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from hours.calendar import Calendar, parse_calendar
from services.sla.core.stopwatch import Stopwatch

DAYS = ("mon", "tue", "wed", "thu", "fri")
OFFICE = parse_calendar(
    {"timezone": "Europe/Berlin", "hours": {day: [["09:00", "17:00"]] for day in DAYS}}
)
ALWAYS = Calendar.always()
HOUR = timedelta(hours=1)


def at(text: str) -> datetime:
    """An instant of Monday, 12 January 2026, by Berlin's clock; or one with its own date."""
    return datetime.fromisoformat(text if "T" in text else f"2026-01-12T{text}+01:00")


def test_a_clock_that_nothing_holds_is_due_after_its_open_time() -> None:
    watch = Stopwatch(at("2026-01-09T16:30+01:00"))
    assert watch.due_at(OFFICE, HOUR) == at("09:30")
    assert watch.paused_at is None


def test_T3_a_pause_over_night_costs_only_its_open_hours() -> None:
    watch = Stopwatch(at("09:00")).pause("pending", at("16:00"))
    assert watch.due_at(OFFICE, 8 * HOUR) is None
    watch = watch.resume("pending", at("2026-01-13T10:00+01:00"))
    assert watch.due_at(OFFICE, 8 * HOUR) == at("2026-01-13T11:00+01:00")


def test_T4_pauses_of_ten_seconds_are_kept_apart() -> None:
    watch = Stopwatch(at("09:00"))
    for begin, end in (("10:00:05", "10:00:15"), ("10:00:25", "10:00:35")):
        watch = watch.pause("pending", at(begin)).resume("pending", at(end))
    assert watch.due_at(OFFICE, 2 * HOUR) == at("11:00:20")
    assert watch.paused_time(at("12:00")) == timedelta(seconds=20)


def test_a_pause_of_a_microsecond_moves_the_deadline_by_one() -> None:
    watch = Stopwatch(at("09:00")).pause("pending", at("10:00:00.000001"))
    watch = watch.resume("pending", at("10:00:00.000002"))
    assert watch.due_at(OFFICE, 2 * HOUR) == at("11:00:00.000001")


def test_T19_overlapping_pauses_of_two_causes_count_once() -> None:
    watch = Stopwatch(at("09:00")).pause("pending", at("10:00")).pause("on_hold", at("10:30"))
    watch = watch.resume("pending", at("11:00"))
    assert watch.paused_at == at("10:30")
    assert watch.due_at(OFFICE, 2 * HOUR) is None
    watch = watch.resume("on_hold", at("12:00"))
    assert watch.paused_at is None
    assert watch.spans == ((at("10:00"), at("12:00")),)
    assert watch.due_at(OFFICE, 2 * HOUR) == at("13:00")


def test_T19_a_clock_stopped_while_it_stands_has_counted_up_to_the_pause() -> None:
    watch = Stopwatch(at("09:00")).pause("pending", at("10:00"))
    assert watch.elapsed(OFFICE, at("15:00")) == HOUR
    assert watch.elapsed(OFFICE, at("09:30")) == HOUR / 2
    assert watch.elapsed(OFFICE, at("08:00")) == timedelta(0)


def test_the_same_cause_twice_holds_once() -> None:
    once = Stopwatch(at("09:00")).pause("pending", at("10:00"))
    assert once.pause("pending", at("10:05")) == once
    assert once.resume("on_hold", at("10:05")) == once


def test_a_pause_that_ends_before_it_began_takes_no_time() -> None:
    watch = Stopwatch(at("09:00")).pause("pending", at("10:00")).resume("pending", at("09:50"))
    assert watch == Stopwatch(at("09:00"))


def test_a_pause_is_due_where_the_time_was_used_up_before_it() -> None:
    watch = Stopwatch(at("09:00")).pause("pending", at("10:00"))
    assert watch.due_at(OFFICE, HOUR) == at("10:00")
    assert watch.due_at(OFFICE, HOUR + timedelta(microseconds=1)) is None


def test_it_survives_its_json() -> None:
    watch = Stopwatch(at("09:00").astimezone(UTC)).pause("pending", at("10:00").astimezone(UTC))
    watch = watch.resume("pending", at("10:00:00.000007").astimezone(UTC))
    watch = watch.pause("on_hold", at("11:00").astimezone(UTC))
    assert msgspec.json.decode(msgspec.json.encode(watch), type=Stopwatch) == watch


BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_SECONDS = st.integers(0, 400)
_ACTS = st.lists(
    st.tuples(
        st.sampled_from(("pause", "resume")), st.sampled_from(("pending", "on_hold")), _SECONDS
    ),
    max_size=12,
)


@given(acts=_ACTS, until=st.integers(400, 500))
def test_the_pauses_and_the_counted_time_make_up_the_whole(
    acts: list[tuple[str, str, int]], until: int
) -> None:
    """Walked second by second: a second is counted unless a cause held the clock in it."""
    watch = Stopwatch(BEGIN)
    held: dict[str, int] = {}
    standing: set[int] = set()
    for what, cause, second in acts:
        instant = BEGIN + timedelta(seconds=second)
        if what == "pause":
            watch = watch.pause(cause, instant)
            held.setdefault(cause, second)
        else:
            watch = watch.resume(cause, instant)
            standing |= set(range(held.pop(cause, second), second))
    for second in held.values():
        standing |= set(range(second, until))
    end = BEGIN + timedelta(seconds=until)
    assert watch.paused_time(end) == timedelta(seconds=len(standing))
    assert watch.elapsed(ALWAYS, end) + watch.paused_time(end) == end - BEGIN
