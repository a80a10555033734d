"""The terms of assignment: everything that the policy says about who gets what, in the form that decisions read.

Seconds are seconds, costs are parts of an agent's capacity, counts are tickets. Two terms are equal where they say the same,
so a domain sees whether it was settled under other ones.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

from hours.calendar import Calendar
from services.router.core.assignment.requirement import Requirement

Strategy: TypeAlias = Literal["longest_idle", "least_loaded", "best_skilled", "thrift", "weighted"]
"""How an agent is chosen among those who can take a ticket. Equals are told apart by who has been idle longest, then by id.

`longest_idle` nothing else counts · `least_loaded` the smallest part of the capacity in use · `best_skilled` the highest sum of
levels in what is asked · `thrift` whoever has the least of scarce skills, so that the rare stay free · `weighted` a sum.
"""


class Weights(Struct, frozen=True):
    """What the strategy `weighted` adds up, each times its weight (0 to 15): load in thousandths, lacking levels, scarcity."""

    load: int = 1
    levels: int = 10
    scarcity: int = 1


class Lending(Struct, frozen=True):
    """A queue borrows the agents of `lenders` from when `open_at` of its tickets wait until no more than `close_at` do."""

    open_at: int
    close_at: int
    lenders: tuple[str, ...]


class Guard(Struct, frozen=True):
    """A queue lends nobody while either of two things holds; each begins and ends at different points, so that neither flaps.

    From when `on_at` of its own tickets wait until no more than `off_at` do (None: however many). From when one of them has
    no more than `risk` seconds left to its target until all have more than `clear` (None: however little).
    """

    on_at: int | None
    off_at: int = 0
    risk: float | None = None
    clear: float = 0.0


class Drain(Struct, frozen=True):
    """Tickets of at least `cost` that waited `after` seconds have one agent kept free of other work, one at a time."""

    cost: int
    after: float


class Overload(Struct, frozen=True):
    """A queue is too long from when more than `at` of its tickets wait until fewer than `clear_below` do."""

    at: int
    clear_below: int


class RuleAsk(Struct, frozen=True):
    """What the tickets of a rule ask in its queue, whose preset is in it. Its language stands for the ticket's own."""

    queue: str
    requirement: Requirement


class Terms(Struct, frozen=True, kw_only=True):
    """The terms. `aging` maps a priority to the seconds after which its tickets are promoted, `wrap_up` a channel to its own.

    `parallel` maps a queue to how many agents are asked at once, `auto_accept` names the queues whose agents are not asked.
    `interrupted_by` maps a channel to those whose tickets may come on top of its own. After `heartbeat` seconds of silence
    whoever sent heartbeats is away, and `return_assigned` seconds later what they had accepted waits again (None: never).
    `asks` maps a rule to what its tickets ask by the policy of `version`; empty where open work keeps what it asks.
    """

    offer_seconds: float
    max_declines: int = 3
    away_after_misses: int | None = 3
    strategy: Strategy = "longest_idle"
    strategies: dict[str, Strategy] = {}
    weights: Weights = Weights()
    aging: dict[int, float] = {}
    lending: dict[str, Lending] = {}
    guards: dict[str, Guard] = {}
    drain: Drain | None = None
    wrap_up: dict[str, float] = {}
    auto_accept: tuple[str, ...] = ()
    parallel: dict[str, int] = {}
    interrupted_by: dict[str, tuple[str, ...]] = {}
    overload: dict[str, Overload] = {}
    heartbeat: float | None = None
    return_assigned: float | None = None
    calendars: Mapping[str, Calendar] = {}
    asks: dict[str, RuleAsk] = {}
    version: str = ""

    def strategy_of(self, queue: str) -> Strategy:
        """Return how agents are chosen for a queue's tickets."""
        return self.strategies.get(queue, self.strategy)
