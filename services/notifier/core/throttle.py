"""How many automatic notices one recipient gets: whoever fills in a form with another's address must not flood them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.notifier.core.policy import Policy

WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Recent:
    """When automatic notices to recipients were requested lately, newest last, by `audience.recipient_key`."""

    now: datetime
    told_at: Mapping[str, list[datetime]] = field(default_factory=dict)

    def count(self, recipient: str) -> int:
        """Return how many the recipient got within the window that ends now."""
        return sum(1 for at in self.told_at.get(recipient, ()) if at > self.now - WINDOW)


def is_over_cap(policy: Policy, recent: Recent, recipient: str, is_verified: bool) -> bool:
    """Whether one more automatic notice would pass the recipient's cap."""
    cap = (
        policy.verified_recipient_per_hour if is_verified else policy.unverified_recipient_per_hour
    )
    return recent.count(recipient) >= cap
