"""Whoever had the customer last is waited for before others are asked, and the less so the longer ago that was."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """How long a ticket waits for its known agent: `patience`, halved for each `half_life` since they had it last.

    A wait below `at_least` is none: nobody is to be held up for a moment that helps nobody.
    """

    patience: timedelta
    half_life: timedelta
    at_least: timedelta

    def hold(self, last_at: datetime | None, now: datetime) -> float | None:
        """Return for how many seconds a ticket waits for the agent who had it at `last_at`; None: it does not."""
        if last_at is None:
            return None
        age = max(now - last_at, timedelta())
        # Beyond a thousand half-lives nothing is left, and the power would underflow.
        halvings = min(age / self.half_life, 1000.0)
        wait = self.patience.total_seconds() * 0.5**halvings
        floor = self.at_least.total_seconds()
        return round(wait, 3) if wait > 0 and wait >= floor else None
