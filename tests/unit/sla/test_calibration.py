"""Calibration: over simulated weeks, promises made from what was known at each instant are kept as often as they say."""

from functools import cache

import pytest

from bench.promise_weeks import ABRUPT, ALWAYS, BIG, ORDINARY, Story, Ticket, kept_share, simulate

STORIES = {"ordinary": ORDINARY, "abrupt": ABRUPT}


@cache
def weeks(story: str) -> list[Ticket]:
    return simulate(20261125, STORIES[story])


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("queue", [None, *BIG])
def test_promises_are_kept_between_90_and_97_percent(story: str, queue: str | None) -> None:
    """Eight weeks with a drift, people who come and go and a bad day, or work that grows by a fifth over a weekend."""
    assert 0.90 <= kept_share(weeks(story), queue) <= 0.97


@pytest.mark.slow
def test_nearly_every_ticket_gets_a_promise_once_there_are_waits() -> None:
    later = weeks("ordinary")[2_000:]
    assert sum(one.by is not None for one in later) > 0.98 * len(later)


def test_the_same_seed_gives_the_same_weeks() -> None:
    short = Story(weeks=1)
    assert simulate(3, short) == simulate(3, short)


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES)
def test_so_are_those_of_tickets_counted_around_the_clock_beside_others(story: str) -> None:
    """In one queue, with the same people: their waits are nights long, and those of opening hours must not stand for them."""
    assert 0.90 <= kept_share(weeks(story), calendar=ALWAYS) <= 0.97
