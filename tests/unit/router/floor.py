"""A floor of agents in simulated time, with times in seconds: the one of the evidence, for stories about waiting."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.floor import SECOND, Call, Floor, agent
from services.router.core.assignment.terms import Terms


@dataclass(frozen=True, slots=True)
class Caller:
    """A ticket that comes `at` seconds after the start."""

    at: float
    queue: str
    priority: int = 3
    cost: int = 100


def poisson(
    dice: random.Random, rate: float, until: float, queue: str, **more: Any
) -> list[Caller]:
    """Callers at `rate` a second until a time."""
    found, now = [], 0.0
    while (now := now + dice.expovariate(rate)) < until:
        found.append(Caller(round(now, 3), queue, **more))
    return found


def waits(
    callers: Iterable[Caller],
    agents: Mapping[str, tuple[str, ...]],
    handling: Callable[[str, Caller], float],
    terms: Terms,
) -> list[tuple[Caller, float]]:
    """Let them come to agents (id → queues, the first their own), and return how long each waited, in order of service."""
    of_call: dict[int, Caller] = {}
    calls: list[Call] = []
    for caller in sorted(callers, key=lambda caller: caller.at):
        call = Call(round(caller.at * SECOND), 0, caller.queue, caller.priority, caller.cost)
        of_call[id(call)] = caller
        calls.append(call)

    def spent(agent_id: str, call: Call) -> int:
        return round(handling(agent_id, of_call[id(call)]) * SECOND)

    floor = Floor([agent(name, queues) for name, queues in agents.items()], terms, handling=spent)
    return [(of_call[id(done.call)], done.wait / SECOND) for done in floor.run(calls)]
