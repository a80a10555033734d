"""Estimates of waits: which waits count, how conservative they are, and what promises teach."""

import math
import pickle
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hours.calendar import Calendar, parse_calendar
from services.sla.core.waits import (
    CELL_MAX,
    FACTOR_MAX,
    FACTOR_MIN,
    OUTCOMES_MAX,
    Cell,
    Correction,
    Estimates,
    Place,
    QueueState,
    Wait,
    cells_of,
    corrected,
    keys,
    part_of_week,
    place_of,
    quantiles,
    snapshot,
)

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)  # A Monday.
EIGHT_WEEKS = timedelta(weeks=8)
OFFICE = parse_calendar(
    {
        "timezone": "Europe/Berlin",
        "hours": {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed", "thu", "fri")},
    }
)


def wait(
    seconds: float,
    *,
    queue: str = "service",
    channel: str = "email",
    calendar: str = "office",
    hour: int = 10,
    is_after_hours: bool = False,
    days_ago: float = 1,
    is_answered: bool = True,
    ahead: int = 0,
) -> Wait:
    opened_at = NOW - timedelta(days=days_ago)
    return Wait(
        queue, channel, calendar, hour, is_after_hours, opened_at, seconds, is_answered, ahead
    )


def cells(waits: list[Wait], share: float = 0.9) -> dict[tuple[str, ...], Cell]:
    return cells_of(waits, NOW, share=share, min_samples=30, window=EIGHT_WEEKS)


@pytest.mark.parametrize(("n", "rank"), [(30, 28), (99, 90), (100, 91), (9, 9), (8, None)])
def test_the_promised_wait_is_the_order_statistic_that_holds_for_one_more_ticket(
    n: int, rank: int | None
) -> None:
    """ceil((n + 1) * 0.9): of 99 waits the 90th; eight waits can promise nothing with that certainty."""
    (found,) = quantiles([(float(k), False, 1.0, 0) for k in range(1, n + 1)], (0.9,))
    assert found == (math.inf if rank is None else rank)


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=60), st.sampled_from([0.5, 0.8, 0.9]))
def test_without_open_tickets_and_with_equal_weights_it_is_that_order_statistic(
    waits: list[float], share: float
) -> None:
    (found,) = quantiles([(one, False, 0.25, 0) for one in waits], (share,))
    rank = math.ceil((len(waits) + 1) * share - 1e-9)
    assert found == (sorted(waits)[rank - 1] if rank <= len(waits) else math.inf)


def test_one_more_ticket_is_answered_in_time_at_least_so_often() -> None:
    """The coverage that the order statistic promises, over 4,000 samples of 40 waits and a fresh one each."""
    draw = random.Random(7)
    kept = 0
    for _ in range(4_000):
        *known, fresh = (draw.lognormvariate(6, 1) for _ in range(41))
        (found,) = quantiles([(one, False, 1.0, 0) for one in known], (0.9,))
        kept += fresh <= found
    assert kept / 4_000 >= 0.89
    assert kept / 4_000 <= 0.94


@given(
    st.lists(st.tuples(st.floats(1, 1e5), st.booleans()), min_size=1, max_size=50),
    st.integers(0, 49),
)
def test_a_ticket_that_still_waits_never_makes_the_promise_shorter(
    waits: list[tuple[float, bool]], n: int
) -> None:
    """An answer is compared with not having heard of it yet: nobody looks faster by not answering."""
    n %= len(waits)
    with_answer = [(s, (w and k != n), 1.0, 0) for k, (s, w) in enumerate(waits)]
    without = [(s, w or k == n, 1.0, 0) for k, (s, w) in enumerate(waits)]
    for one, other in zip(
        quantiles(with_answer, (0.5, 0.9)), quantiles(without, (0.5, 0.9)), strict=True
    ):
        assert one <= other


def test_a_queue_that_answers_only_the_easy_half_promises_nothing() -> None:
    waits = [wait(60) for _ in range(50)] + [wait(90_000, is_answered=False) for _ in range(50)]
    assert cells(waits)["service", "office"].longest == math.inf


def test_the_narrowest_cell_with_enough_waits_is_asked() -> None:
    waits = [wait(600, hour=10) for _ in range(30)]
    waits += [wait(1200, hour=11) for _ in range(29)]
    waits += [wait(60, channel="chat", hour=30) for _ in range(29)]
    found = Estimates(cells=cells(waits))
    ten = found.cell(Place("service", "email", "office", 10, False))
    eleven = found.cell(Place("service", "email", "office", 11, False))
    evening = found.cell(Place("service", "email", "office", 20, False))
    chat = found.cell(Place("service", "chat", "office", 30, False))
    assert ten is not None
    assert (ten[0], ten[1].longest, ten[1].samples) == ("hour", 600, 30)
    assert eleven is not None
    assert (eleven[0], eleven[1].samples) == ("part", 59)
    assert evening is not None
    assert evening[0] == "channel"
    assert chat is not None
    assert (chat[0], chat[1].samples) == ("queue", 88)
    assert found.cell(Place("returns", "email", "office", 10, False)) is None


def test_recent_waits_count_more_than_old_ones() -> None:
    old = [wait(600, days_ago=50) for _ in range(60)]
    new = [wait(3600, days_ago=2) for _ in range(60)]
    cell = cells([*old, *new])["service", "office"]
    assert cell.longest == 3600
    assert cell.share_within(600) < 0.2


def test_waits_outside_the_window_and_of_the_future_do_not_count() -> None:
    waits = [wait(600, days_ago=57) for _ in range(40)] + [wait(600, days_ago=-1)] * 40
    assert cells(waits) == {}


def test_after_hours_tickets_are_compared_with_each_other() -> None:
    monday_three = datetime(2026, 3, 2, 2, 30, tzinfo=UTC)
    place = place_of("service", "email", "office", OFFICE, monday_three)
    assert place == Place("service", "email", "office", 3, True)
    assert part_of_week(place) == "closed"
    assert part_of_week(Place("service", "email", "office", 10, False)) == "weekday-1"
    assert part_of_week(Place("service", "email", "office", 5 * 24 + 13, False)) == "weekend-2"
    assert [basis for basis, _ in keys(place)] == ["hour", "part", "channel", "queue"]


def test_waits_of_another_calendar_say_nothing() -> None:
    """A quarter of an hour in opening hours is a night around the clock: what is promised there must not be better than true."""
    waits = [wait(900) for _ in range(200)]
    waits += [wait(50_000, calendar="24/7") for _ in range(40)]
    found = Estimates(cells=cells(waits))
    office = found.cell(Place("service", "email", "office", 10, False))
    always = found.cell(Place("service", "email", "24/7", 10, False))
    assert office is not None
    assert (office[1].samples, office[1].longest) == (200, 900)
    assert always is not None
    assert (always[1].samples, always[1].longest) == (40, 50_000)
    assert found.cell(Place("service", "email", "shop", 10, False)) is None


def test_of_very_many_waits_the_newest_are_taken_answered_or_not() -> None:
    """Many old tickets that nobody ever answered do not push out what was answered since."""
    waits = [wait(1, days_ago=40) for _ in range(CELL_MAX)]
    waits += [wait(9, days_ago=55, is_answered=False) for _ in range(CELL_MAX)]
    waits += [wait(2, days_ago=1) for _ in range(CELL_MAX - 1)]
    waits += [wait(3, days_ago=0.5, is_answered=False)]
    cell = cells(waits)["service", "office"]
    assert set(cell.waits[:-1]) == {2}


def test_more_tickets_ahead_than_usual_lengthen_the_promise_in_proportion() -> None:
    cell = cells([wait(600, ahead=k % 10) for k in range(100)])["service", "office"]
    assert cell.ahead == 8
    assert cell.crowding(8) == cell.crowding(0) == 1
    assert cell.crowding(17) == 2


def test_a_broken_promise_lengthens_the_next_ones_and_kept_ones_bring_them_back() -> None:
    usual = corrected([True] * 19 + [False], 0.9)
    worse = corrected([True] * 19 + [False] * 5, 0.9)
    assert 1 < usual.factor < worse.factor
    assert corrected([False] * 5 + [True] * 100, 0.9).factor == pytest.approx(1, abs=0.2)
    assert (usual.kept_share, usual.n) == (0.95, 20)
    assert corrected([], 0.9) == Correction(1.0, 1.0, 0)


@given(st.lists(st.booleans(), max_size=600))
def test_a_correction_stays_within_its_bounds_and_looks_at_the_latest_only(
    outcomes: list[bool],
) -> None:
    found = corrected(outcomes, 0.9)
    assert FACTOR_MIN - 1e-9 <= found.factor <= FACTOR_MAX + 1e-9
    assert found == corrected(outcomes[-OUTCOMES_MAX:], 0.9)


def test_between_the_aims_nothing_is_corrected() -> None:
    """95 % kept, one broken in twenty: the factor hovers about one, whatever side it comes from."""
    outcomes = ([True] * 19 + [False]) * 20
    assert corrected(outcomes, 0.9).factor == pytest.approx(1, abs=0.05)


def test_the_queue_serves_the_urgent_first_and_then_the_oldest() -> None:
    early, late = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
    state = QueueState(waiting=((1, late), (3, early), (3, late)))
    assert state.ahead(1, early) == 0
    assert state.ahead(3, early) == 1
    assert state.ahead(3, NOW) == 3


def test_the_same_waits_make_the_same_snapshot_and_version() -> None:
    waits = [wait(600 + k) for k in range(40)]
    one = snapshot(NOW, cells(waits), {"service": corrected([True], 0.9)}, {})
    two = snapshot(NOW, cells(waits[::-1]), {"service": corrected([True], 0.9)}, {})
    other = snapshot(NOW, cells(waits), {"service": corrected([False], 0.9)}, {})
    crowded = [one._replace(ahead=3) for one in waits]
    crowd = snapshot(NOW, cells(crowded), {"service": corrected([True], 0.9)}, {})
    assert one == two
    assert len(one.version) == 12
    assert one.version != crowd.version
    assert one.version != other.version
    assert pickle.loads(pickle.dumps(one)) == one


def test_around_the_clock_nothing_is_after_hours() -> None:
    assert not place_of("service", "chat", "24/7", Calendar.always(), NOW).is_after_hours
