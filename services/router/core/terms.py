"""The terms of assignment: everything that the policy says about who gets what, in the form that decisions read.

Seconds are seconds, costs are parts of an agent's capacity, counts are tickets. Two terms are equal where they say the same,
so a domain sees whether it was settled under other ones.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

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
    """A queue lends nobody from when `on_at` of its own tickets wait until no more than `off_at` do."""

    on_at: int
    off_at: int


class Drain(Struct, frozen=True):
    """Tickets of at least `cost` that waited `after` seconds have one agent kept free of other work, one at a time."""

    cost: int
    after: float


class Terms(Struct, frozen=True, kw_only=True):
    """The terms. `aging` maps a priority to the seconds after which its tickets are promoted, `wrap_up` a channel to its own."""

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

    def strategy_of(self, queue: str) -> Strategy:
        """Return how agents are chosen for a queue's tickets."""
        return self.strategies.get(queue, self.strategy)
