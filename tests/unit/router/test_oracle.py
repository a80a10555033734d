"""The engine says what looking at everybody and everything says: offers, candidates in order, every rule in every record.

Each world has a seed, so a failure names the one to look at.
"""

import pytest

from services.router.core.assignment import (
    assign,
    matching,
)
from tests.unit.router.duel import duel

INSTANCES = 2_000
EVENTS = 28
PARTS = 8

# What the engine decides by size is forced both ways, since small worlds would never come to the other way.
WAYS = {
    "agents one by one, candidates compared": (10**9, 16),
    "buckets always, candidates compared": (-1, 16),
    "agents one by one, candidates by sets": (10**9, 0),
    "buckets always, candidates by sets": (-1, 0),
}


@pytest.mark.parametrize("part", range(PARTS))
def test_the_engine_and_the_oracle_say_the_same(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_above, few = list(WAYS.values())[part % len(WAYS)]
    monkeypatch.setattr(assign, "SWEEP_ABOVE", sweep_above)
    monkeypatch.setattr(matching, "FEW", few)
    size = INSTANCES // PARTS
    n_offers = sum(duel(seed, EVENTS) for seed in range(part * size, (part + 1) * size))
    assert n_offers > 4 * size, "the worlds are too quiet to prove anything"


@pytest.mark.parametrize("seed", range(20_000, 20_040))
def test_it_does_so_when_it_forgets_all_but_its_records_before_every_event(seed: int) -> None:
    duel(seed, EVENTS, restarts=True)


@pytest.mark.parametrize("seed", range(30_000, 30_010))
def test_it_does_so_over_long_stories(seed: int) -> None:
    duel(seed, 150)
