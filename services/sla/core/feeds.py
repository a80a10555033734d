"""When a calendar's feed is fetched again, and what is known of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from hours.file import Feed

FailureReason = Literal[
    "timeout", "unreachable", "status", "redirect", "wrong_type", "too_large", "unreadable"
]
"""Why a feed was not taken. `unreadable`: it came, and is not a calendar that can be read."""

RETRY_FIRST: Final = timedelta(minutes=1)
"""After a failure, doubled with each further one, up to the feed's own refresh."""


@dataclass(frozen=True, slots=True)
class FeedState:
    """What the table says of one feed. `fetched_at` is when its content was last known to be what the address gives."""

    name: str
    source: str
    digest: str | None
    etag: str | None
    modified: str | None
    fetched_at: datetime | None
    changed_at: datetime | None
    failed_at: datetime | None
    failures: int
    error: str | None
    next_at: datetime


def is_due(feed: Feed, state: FeedState | None, now: datetime) -> bool:
    """Whether to fetch it now: never fetched, another address by now, no longer fresh, or fresh for too long by now."""
    if state is None or state.source != feed.source:
        return True
    return now >= state.next_at or state.next_at - now > feed.refresh


def next_check(feed: Feed, failures: int, now: datetime) -> datetime:
    """When to fetch next, after so many failures in a row (0: it was good)."""
    if not failures:
        return now + feed.refresh
    return now + min(feed.refresh, RETRY_FIRST * (1 << min(failures - 1, 20)))
