"""A floor of agents in simulated time: tickets come, are offered, taken at once, worked on and solved.

The engine is the production one; only arrivals and handling times are drawn, from a seed.
"""

import heapq
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from schemas import roster, routing
from services.router.core import assign
from services.router.core.domain import Domain
from services.router.core.terms import Terms
from tests.unit.router.stories import at

START = at("00:00")


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
    domain = Domain("main")
    everyone = sorted(callers, key=lambda caller: caller.at)
    events: list[tuple[float, int, int]] = [(c.at, n, 0) for n, c in enumerate(everyone)]
    heapq.heapify(events)
    found: list[tuple[Caller, float]] = []

    def tell(event: assign.Event, now: float) -> None:
        instant = START + timedelta(seconds=now)
        said = assign.decide(domain, event, instant, terms).events
        domain.clear_marks()
        for told in said:
            if isinstance(told, routing.OfferMade):
                n = int(told.ticket_id)
                taken = roster.OfferAccepted(
                    domain="main",
                    agent_id=told.agent_id,
                    ticket_id=told.ticket_id,
                    reservation_id=told.reservation_id,
                )
                assign.decide(domain, taken, instant, terms)
                found.append((everyone[n], now - everyone[n].at))
                spent = handling(told.agent_id, everyone[n])
                heapq.heappush(events, (round(now + spent, 3), n, 1))

    for agent_id, queues in agents.items():
        known: dict[str, Any] = {"domain": "main", "agent_id": agent_id}
        tell(roster.AgentSet(**known, queues=queues, capacity=100), 0)
        tell(roster.PresenceSet(**known, presence="available"), 0)
    while events:
        now, n, is_end = heapq.heappop(events)
        caller = everyone[n]
        if is_end:
            tell(
                routing.WorkWithdrawn(
                    domain="main",
                    work_id=f"w{n}",
                    ticket_id=str(n),
                    conversation_id="c",
                    reason="solved",
                ),
                now,
            )
        else:
            tell(
                routing.WorkRequested(
                    domain="main",
                    work_id=f"w{n}",
                    queue=caller.queue,
                    priority=caller.priority,
                    cost=caller.cost,
                    entered_at=START + timedelta(seconds=now),
                    ticket_id=str(n),
                    conversation_id="c",
                ),
                now,
            )
    return found
