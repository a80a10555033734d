"""How many automatic notices go out: whoever writes in another's name must not flood them, nor many others through us."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.notifier.core.policy import Policy

WINDOW = timedelta(hours=1)

UNVERIFIED = "unverified"
"""Counts all unproved recipients together, beside the keys of single ones, which are UUIDs."""


@dataclass(frozen=True, slots=True)
class Recent:
    """When automatic notices were requested lately, newest last, by `audience.recipient_key` or `UNVERIFIED`."""

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


def is_over_total(policy: Policy, recent: Recent) -> bool:
    """Whether one more automatic notice to an unproved address would pass the workspace's cap for all of them."""
    return recent.count(UNVERIFIED) >= policy.unverified_total_per_hour
