"""Risk by probability: the formula, its two witnesses, and the looks at a running clock."""

import math
from datetime import datetime, timedelta

import pytest

from services.sla.core.risk import late_by_queue, late_by_waits, poisson_at_most, probability_late
from services.sla.core.waits import Cell, QueueState

# Half are answered within 25 minutes, 98 % within 49: a minute for each two hundredths.
CELL = Cell(200, 45 * 60.0, tuple(n * 60.0 for n in range(1, 50)))
BUSY = QueueState(answers=30, open_seconds=3600)


@pytest.mark.parametrize("mean", [0.1, 3.0, 40.0, 900.0, 20_000.0])
def test_the_poisson_sum_is_right(mean: float) -> None:
    """Against a plain sum of every term in logarithms, about the mean and far from it."""
    spread = math.ceil(math.sqrt(mean))
    for n in sorted({0, 1, 5, max(0, round(mean) - 2 * spread), round(mean), round(mean) + spread}):
        terms = (math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(n + 1))
        assert poisson_at_most(n, mean) == pytest.approx(math.fsum(terms), abs=1e-9)
    assert poisson_at_most(int(mean * 3) + 20, mean) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("mean", [900.0, 20_000.0])
def test_the_median_of_a_poisson_count_is_its_mean(mean: float) -> None:
    assert poisson_at_most(round(mean), mean) == pytest.approx(0.5, abs=0.02)


def test_a_long_queue_costs_no_more_than_the_terms_that_can_be_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five thousand ahead where three answers are expected: certain, without a sum over all of them."""
    terms: list[float] = []
    lgamma = math.lgamma

    def counted(x: float) -> float:
        terms.append(x)
        return lgamma(x)

    monkeypatch.setattr(math, "lgamma", counted)
    assert poisson_at_most(5_000, 3.0) == 1.0
    assert terms == []
    assert poisson_at_most(5_000, 5_000.0) == pytest.approx(0.5, abs=0.01)
    assert len(terms) < 1_000


def test_past_waits_speak_of_those_that_waited_as_long() -> None:
    """Of the tickets that waited 25 minutes, half of all, those that took more than 40 are two fifths."""
    assert late_by_waits(CELL, 0, 40 * 60) == pytest.approx(0.2)
    assert late_by_waits(CELL, 25 * 60 + 1, 15 * 60 - 1) == pytest.approx(0.4)
    assert late_by_waits(CELL, 3600, 600) is None


def test_the_queue_speaks_of_those_ahead_and_its_pace() -> None:
    """Thirty answers an hour: with fourteen ahead and half an hour left it is about even."""
    assert late_by_queue(BUSY, 1800, 14) == pytest.approx(0.466, abs=0.01)
    near, far = late_by_queue(BUSY, 1800, 2), late_by_queue(BUSY, 1800, 40)
    assert near is not None
    assert far is not None
    assert near < 0.001 < 0.999 < far
    assert late_by_queue(QueueState(answers=0), 1800, 5) is None
    assert late_by_queue(QueueState(answers=3, open_seconds=0), 1800, 5) is None


def test_the_queue_counts_for_more_the_more_it_answered() -> None:
    waits, queue = late_by_waits(CELL, 0, 1800), late_by_queue(BUSY, 1800, 40)
    assert waits is not None
    assert queue is not None
    both = probability_late(0, 1800, CELL, BUSY, 40)
    assert both == pytest.approx(0.75 * queue + 0.25 * waits)
    assert probability_late(0, 1800, CELL, None, 0) == waits
    assert probability_late(0, 1800, None, BUSY, 40) == queue
    assert probability_late(0, 1800, None, QueueState(), 40) is None
    assert probability_late(100, 0, None, None, 0) == 1


def test_more_ahead_and_less_time_are_never_better() -> None:
    for ahead in range(60):
        one = probability_late(60, 1800, CELL, BUSY, ahead)
        more = probability_late(60, 1800, CELL, BUSY, ahead + 1)
        shorter = probability_late(60, 1500, CELL, BUSY, ahead)
        assert one is not None
        assert more is not None
        assert shorter is not None
        assert 0 <= one <= min(more, shorter) <= 1


def test_an_old_open_ticket_of_the_queue_is_served_first() -> None:
    noon = datetime.fromisoformat("2026-03-03T12:00:00+00:00")
    queue = QueueState(waiting=tuple((3, noon + timedelta(minutes=k)) for k in range(10)))
    assert queue.ahead(3, noon) == 0
    assert queue.ahead(4, noon) == 10
