"""What the rules may know of a message: the message itself, its writer's history, the clock, and how long queues are.

Build it with `facts`, or of an event with `of_message`; either folds the words once for all rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas.customers import CustomerContext
from schemas.messages import MessageReceived, Review
from services.router.core.policy.lexicon import Text, fold, text_of

CLASSIFIED: Final = ("intent", "category", "cause", "desk")
"""What may stand in a message's `fields` under these keys, as whoever classified it says. Conditions of the same names
read them; the message's own channel never asks a customer for them."""

TIER_FIELD: Final = "customer_tier"
CONTRACT_FIELD: Final = "customer_contract"
"""The keys of a message's `fields` under which a channel that proved its sender tells the customer's tier and contract."""

STARS: Final = 5
"""Ratings are compared on this scale, whatever the vendor's own is."""

NUMBERS_MAX: Final[Mapping[str, int]] = {"conversations": 100, "orders": 5}
"""Where counting ends: more is not told (see `schemas.customers.CustomerContext`)."""

Named = str | bool | None


@dataclass(slots=True)
class Facts:
    """What is known of a message. `names` and `numbers` go by the names of the conditions that read them.

    A number that is not known is missing, and no condition on it holds. `lengths` are the tickets that wait in queues;
    `looked_at` is filled with those that a rule asked for, so that it can be told what a decision rests on.
    """

    names: Mapping[str, Named]
    numbers: Mapping[str, float]
    words: Text
    conversation_id: str = ""
    now: datetime | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)
    looked_at: dict[str, int] = field(default_factory=dict)

    def length(self, queue: str) -> int | None:
        """Return how many tickets wait in a queue, if that is known, and note that it was asked."""
        n = self.lengths.get(queue)
        if n is not None:
            self.looked_at[queue] = n
        return n


def facts(
    *,
    channel: str,
    account: str,
    language: str | None,
    kind: str,
    is_verified: bool,
    is_automatic: bool,
    subject: str,
    text: str,
    visibility: str = "private",
    address_kind: str = "email",
    fields: Mapping[str, str] | None = None,
    tier: str | None = None,
    contract: str | None = None,
    conversations: int = 0,
    orders: int = 0,
    is_proved: bool = False,
    rating: float | None = None,
    previous_tickets: int = 0,
    reopens: int = 0,
    conversation_id: str = "",
    now: datetime | None = None,
    lengths: Mapping[str, int] | None = None,
) -> Facts:
    """Prepare a message for the rules. `rating` is in stars of `STARS`; `fields` are looked through for `CLASSIFIED`."""
    told = fields or {}
    names: dict[str, Named] = {
        "channel": channel,
        "account": account,
        "language": language,
        "kind": kind,
        "verified": is_verified,
        "is_automatic": is_automatic,
        "visibility": visibility,
        "address_kind": address_kind,
        "customer.tier": fold(tier.strip()) if tier else None,
        "customer.contract": fold(contract.strip()) if contract else None,
        "customer.is_proved": is_proved,
    }
    names.update((key, fold(told[key].strip())) for key in CLASSIFIED if told.get(key))
    numbers: dict[str, float] = {
        "customer.conversations": conversations,
        "customer.orders": orders,
        "previous_tickets": previous_tickets,
        "reopens": reopens,
    }
    if rating is not None:
        numbers["rating"] = rating
    return Facts(names, numbers, text_of(subject, text), conversation_id, now, lengths or {})


def of_message(
    message: MessageReceived,
    text: str,
    *,
    previous_tickets: int,
    reopens: int,
    now: datetime,
    lengths: Mapping[str, int],
) -> Facts:
    """Prepare a message that opens a case. `text` is what its writer added this time."""
    content = message.content
    context = message.context or CustomerContext(is_proved=message.verified)
    proved = content.fields if message.verified else {}
    return facts(
        channel=content.channel,
        account=content.account,
        language=content.language,
        kind=content.kind,
        is_verified=message.verified,
        is_automatic=content.is_automatic,
        subject=content.subject,
        text=text,
        visibility=content.visibility,
        address_kind=content.sender.kind,
        fields=content.fields,
        tier=context.tier or proved.get(TIER_FIELD) or None,
        contract=context.contract or proved.get(CONTRACT_FIELD) or None,
        conversations=context.conversations,
        orders=len(context.orders),
        is_proved=context.is_proved,
        rating=stars(content.review),
        previous_tickets=previous_tickets,
        reopens=reopens,
        conversation_id=message.conversation_id,
        now=now,
        lengths=lengths,
    )


def stars(review: Review | None) -> float | None:
    """Return a review's rating in stars of `STARS`, or None where it has none."""
    if review is None or review.rating is None or review.rating_max <= 0:
        return None
    return review.rating * STARS / review.rating_max
