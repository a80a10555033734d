"""What the service's tables know of the recipients of a batch: recent notices, wishes, dead addresses.

Owns its shape only. All conversations of a batch share one `Known`, and each notice that is asked for is counted in it at
once, so that two of one batch see each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from schemas.ids import derive
from schemas.notifications import Category, Occasion
from services.notifier.core.audience import recipient_key
from services.notifier.core.reason import category_of

HOUR: Final = timedelta(hours=1)

UNVERIFIED: Final = "unverified"
"""Counts all unproved recipients together, beside the keys of single ones, which are UUIDs."""

EVERYBODY: Final = "everybody"
"""Counts all automatic notices of the workspace."""


MAIL_PROVIDERS: Final = frozenset({"smtp", "gmail"})


def dead_name(provider: str, name: str) -> str:
    """Return what the table of dead addresses calls a recipient (`name`: what the other tables do).

    A mail address is dead whoever carries the mail. A telephone number that is not on WhatsApp still takes text messages.
    """
    return name if provider in MAIL_PROVIDERS else derive("undeliverable", provider, name)


class Told(NamedTuple):
    """An automatic notice that was asked for: when, and of which category."""

    at: datetime
    category: Category


class Wish(NamedTuple):
    """What somebody said last about one category: whether they want none of it, when they said so, and by what.

    `source` is `link`, `word`, `agent` or `vendor`.
    """

    is_out: bool
    at: datetime
    source: str = "link"


class Undeliverable(NamedTuple):
    """Why nothing reaches an address, since when, and until when that is believed (None: for good)."""

    reason: str
    at: datetime
    until: datetime | None


@dataclass(slots=True)
class Known:
    """By `audience.recipient_key`: automatic notices lately (oldest first), wishes by category; by `dead_name`: dead addresses.

    `told` has `UNVERIFIED` and, of this batch, `EVERYBODY` too. `crowded_at` is when the notice was asked for that is, from the
    newest back, as many away as the workspace's cap allows in an hour: while that is within the hour, the cap is reached.
    `surveyed` is when a recipient was asked last how it went, `consoled` when they were told last that a person looks at what made
    them unhappy.
    """

    workspace: str
    told: dict[str, list[Told]] = field(default_factory=dict)
    wishes: dict[str, Mapping[Category, Wish]] = field(default_factory=dict)
    undeliverable: dict[str, Undeliverable] = field(default_factory=dict)
    crowded_at: datetime | None = None
    surveyed: dict[str, datetime] = field(default_factory=dict)
    consoled: dict[str, datetime] = field(default_factory=dict)

    def key(self, recipient: str) -> str:
        """Return the name of a recipient in the tables."""
        return recipient_key(self.workspace, recipient)

    def count(
        self, key: str, now: datetime, window: timedelta = HOUR, category: Category | None = None
    ) -> int:
        """Return how many automatic notices were asked for within the window that ends now, of one category or of all."""
        since = now - window
        return sum(
            1
            for told in self.told.get(key, ())
            if told.at > since and category in (None, told.category)
        )

    def is_crowded(self, now: datetime, cap: int) -> bool:
        """Whether the workspace's cap for an hour is reached."""
        is_crowded = self.crowded_at is not None and self.crowded_at > now - HOUR
        return is_crowded or self.count(EVERYBODY, now) >= cap

    def remember(
        self, recipient: str, occasion: Occasion, at: datetime, *, is_verified: bool
    ) -> None:
        """Count one that was asked for just now. What an agent wrote is not counted."""
        if occasion == "answered":
            return
        told = Told(at, category_of(occasion))
        keys = [self.key(recipient), EVERYBODY] + ([] if is_verified else [UNVERIFIED])
        for key in keys:
            kept = self.told.setdefault(key, [])
            kept.append(told)
        if occasion == "survey":
            self.note_survey(self.key(recipient), at)
        if occasion == "recovery":
            self.note_recovery(self.key(recipient), at)

    def note_survey(self, key: str, at: datetime) -> None:
        """Take in that a recipient (by their name in the tables) was asked how it went."""
        self.surveyed[key] = max(at, self.surveyed.get(key, at))

    def has_been_surveyed(self, recipient: str, now: datetime, window: timedelta) -> bool:
        """Whether the recipient was asked how it went within the window that ends now."""
        asked_at = self.surveyed.get(self.key(recipient))
        return asked_at is not None and asked_at > now - window

    def note_recovery(self, key: str, at: datetime) -> None:
        """Take in that a recipient (by their name in the tables) was told that a person looks at what made them unhappy."""
        self.consoled[key] = max(at, self.consoled.get(key, at))

    def has_been_consoled(self, recipient: str, now: datetime, window: timedelta) -> bool:
        """Whether the recipient was told so within the window that ends now, in whichever case."""
        told_at = self.consoled.get(self.key(recipient))
        return told_at is not None and told_at > now - window

    def has_opted_out(self, recipient: str, category: Category) -> bool:
        """Whether the recipient wants nothing of the category."""
        wish = self.wishes.get(self.key(recipient), {}).get(category)
        return wish is not None and wish.is_out

    def has_opted_in(self, recipient: str, category: Category) -> bool:
        """Whether the recipient has asked for notices of the category.

        A word such as START or YES takes an earlier STOP back, and is no consent: it may have answered something else.
        """
        wish = self.wishes.get(self.key(recipient), {}).get(category)
        return wish is not None and not wish.is_out and wish.source != "word"
