"""The engine against the oracle over more than 100,000 steps, each checked for what is told and for what is so afterwards.

A step is an event that both hear, a waking at the very instant something falls due (or a millisecond before), or a restart in
which the engine forgets all but its records. Every world has a seed, so a failure names the one to look at, and the step.
"""

import random
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from services.router.core.assignment import (
    assign,
    matching,
)
from services.router.core.assignment.domain import Domain, Switches
from tests.unit.router.duel import START, World, event_from, instant, plain, terms_from
from tests.unit.router.oracle import Oracle
from tests.unit.router.stories import restored

PARTS = 8
WORLDS = 263
STEPS = 40
CHECK_EVERY = 20
"""Every so many steps all records are compared, and the next waking; what is told and the switches at each."""

MILLISECOND = timedelta(milliseconds=1)
FOREVER = 10**8

# What the engine decides by size is forced both ways, as small worlds would never come to the other way.
WAYS = ((10**9, 16), (-1, 16), (10**9, 0), (-1, 0))


class Machine:
    """A world, the model of it, and the engine."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.world = World(seed)
        self.dice = random.Random(~seed)
        self.oracle = Oracle(self.world.terms)
        self.domain = Domain("main")
        self.terms = terms_from(self.world.terms)
        self.n_steps = 0
        self.n_offers = 0
        for told in self.world.first_events():
            self.hear(told)

    def step(self) -> None:
        """One step of any kind."""
        match self.dice.choices(("hear", "wake", "too early", "restart"), (78, 12, 4, 6))[0]:
            case "restart":
                self.domain = restored(self.domain)
                self.oracle.restarts()
                self.n_steps += 1
            case "hear":
                self.hear(self.world.next(self.oracle.works))
            case how:
                due = self.next_due()
                if due is not None:
                    self.world.now = max(self.world.now, due if how == "wake" else due - 1)
                self.hear({"what": "tick"})

    def next_due(self) -> int | None:
        """When the engine asks to be woken, in milliseconds, rounded up."""
        due_at = self.domain.next_due()
        return None if due_at is None else -((START - due_at) // MILLISECOND)

    def hear(self, told: dict[str, Any]) -> None:
        """Tell both, and hold one against the other."""
        now = self.world.now
        expected, expected_ignored = self.oracle.hears(told, now)
        self.oracle.remember_hope()
        said = assign.decide(self.domain, event_from(told), instant(now), self.terms)
        self.n_steps += 1
        where = f"seed {self.seed}, step {self.n_steps} at {now}: {told}"
        assert [plain(event) for event in said.events] == expected, where
        assert said.ignored == expected_ignored, where
        oracle = self.oracle
        assert self.domain.switches == Switches(
            oracle.spilling, oracle.guarding, oracle.crowded, oracle.at_risk, oracle.overloaded
        ), where
        self.n_offers += sum(line[0] == "offered" for line in expected)
        if not self.n_steps % CHECK_EVERY:
            self.compare_records(where)
            self.look_for_a_missing_timer(where)

    def compare_records(self, where: str) -> None:
        """What is so afterwards, not only what was told of it."""
        domain, oracle = self.domain, self.oracle
        kept = domain.works[domain.drain] if domain.drain is not None else None
        assert (None if kept is None else (kept.work_id, kept.kept_free)) == oracle.kept, where
        assert domain.agents.keys() == oracle.agents.keys(), where
        for agent_id, agent in domain.agents.items():
            assert agent.load == oracle.load(agent_id), where
            assert agent.presence == oracle.agents[agent_id]["presence"], where
        for work_id, work in domain.works.items():
            model = oracle.works[work_id]
            said = (work.status, work.agent_id, work.declines, work.step, work.relaxed)
            names = ("status", "agent", "declines", "step", "relaxed")
            assert said == tuple(model[name] for name in names), where

    def look_for_a_missing_timer(self, where: str) -> None:
        """Nothing may fall due in the model before the engine asks to be woken."""
        due = self.next_due()
        until = FOREVER if due is None else due - 1
        if until < self.world.now:
            return  # It asks to be woken at once.
        before, after = self.oracle, deepcopy(self.oracle)
        told, _ = after.hears({"what": "tick"}, until)
        assert told == [], where
        for name in ("works", "agents", "kept", "spilling", "guarding"):
            assert getattr(after, name) == getattr(before, name), where


@pytest.mark.parametrize("part", range(PARTS))
def test_model_and_engine_agree_at_each_of_a_hundred_thousand_steps(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_above, few = WAYS[part % len(WAYS)]
    monkeypatch.setattr(assign, "SWEEP_ABOVE", sweep_above)
    monkeypatch.setattr(matching, "FEW", few)
    n_steps = n_offers = 0
    for seed in range(50_000 + part * WORLDS, 50_000 + (part + 1) * WORLDS):
        machine = Machine(seed)
        for _ in range(STEPS):
            machine.step()
        n_steps += machine.n_steps
        n_offers += machine.n_offers
    assert n_steps >= 100_000 / PARTS
    assert n_offers > n_steps / 15, "the worlds are too quiet to prove anything"


@pytest.mark.parametrize("seed", range(90_000, 90_004))
def test_they_agree_over_long_lives(seed: int) -> None:
    machine = Machine(seed)
    for _ in range(300):
        machine.step()
