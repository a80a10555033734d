"""Pacing: how many items make up a slice of work that others wait for.

What waits is timers: a slice holds the locks of its tasks from its first query to its commit. What an item costs depends
on the stage, the machine and who else is on it, so it is learnt from the last slice; what a transaction costs whatever
its size is part of that, so slices grow where there is much to do.
"""

from dataclasses import dataclass, field

GROWTH_MAX = 2
"""A slice is at most so many times as large as the last: one that happened to be quick says little of the next."""


@dataclass(slots=True)
class Pace:
    """How many items, from `least` to `most`, fit into `seconds`; `first` of them while nobody knows what they cost."""

    seconds: float
    least: int
    most: int
    first: int
    seconds_each: float = field(init=False)
    """What an item of the last slice took, with its part of what any transaction takes."""

    _last: int = field(init=False)

    def __post_init__(self) -> None:
        self._last = -(-self.first // GROWTH_MAX)
        self.seconds_each = self.seconds / self.first

    @property
    def items(self) -> int:
        """How many items the next slice has."""
        fits = round(self.seconds / self.seconds_each)
        return min(self.most, max(self.least, min(fits, GROWTH_MAX * self._last)))

    def took(self, items: int, seconds: float) -> None:
        """Learn from a slice of so many items. Smaller ones than `least` say nothing: they are mostly transaction."""
        if items < self.least:
            return
        self._last = items
        self.seconds_each = max(seconds, 0.001) / items
