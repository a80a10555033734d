"""Who a customer is: the context that travels with a message, and what changes when two customers turn out to be one.

A customer keeps their own id for ever. Merging lets one lead to another; taking it back lets it lead to nobody. These
events are told once for each conversation concerned, on `messages`, so that readers get them in a conversation's order.
"""

from typing import Any, ClassVar, Literal

from schemas.payload import Field, Id, Instant, Part, Payload
from schemas.topics import MESSAGES

AddressKind = Literal["email", "phone", "vendor_id"]

Proof = Literal[
    "none",
    "order",
    "vendor",
    "vendor_verified",
    "signed_channel",
    "dmarc",
    "identity_token",
    "operator",
]
"""How an address was proved to be a customer's, from nothing up: an order was placed with it; another system names it;
a vendor says that it has checked it; the channel itself carries the id and signs; DMARC passed; the company's own site
signed a token for it; a person of ours said so. Nothing below `vendor_verified` merges anybody."""

EvidenceKind = Literal[
    "attested_mail",
    "attested_phone",
    "claimed_mail",
    "claimed_phone",
    "same_claim",
    "order_and_name",
    "same_order",
    "same_name",
    "operator",
]
"""Why two customers may be one: an address that one of them proved, and that a source we trust attests for the other; an
address that was only typed; the same address typed by both; the same order and the same name; the same order; the same
name; a person of ours said so."""


class Evidence(Part):
    """One reason to take two customers for one. `detail` explains it to people; addresses in it are masked."""

    kind: EvidenceKind
    weight: float = Field(ge=0, le=1)
    is_proved: bool = False
    detail: str = ""


class Interaction(Part):
    """What a customer said in another conversation: `words` are its subject, or its first words (at most 120 characters)."""

    conversation_id: Id
    channel: Id
    at: Instant
    words: str = Field(default="", max_length=120)


class OrderNote(Part):
    """An order of the customer, as the shop told it last."""

    number: str = Field(max_length=100)
    status: str = Field(default="", max_length=50)
    total: str = Field(default="", max_length=40)
    currency: str = Field(default="", max_length=10)
    placed_at: Instant | None = None


class CustomerContext(Part):
    """What is known of a customer beside this conversation, so that nobody asks twice; at most 4 kB.

    `conversations` counts their other conversations (100 means: or more). `is_proved` tells whether this message proved
    that it is theirs: where it did not, whoever wrote may be somebody else who knows the address, and must not be told
    what stands here. `language` is an ISO 639-1 code, `tier` the company's own name for how important they are to it,
    `contract` its own name for what they bought of its service.
    """

    conversations: int = Field(default=0, ge=0)
    interactions: tuple[Interaction, ...] = Field(default=(), max_length=5)
    orders: tuple[OrderNote, ...] = Field(default=(), max_length=5)
    language: str | None = None
    address_kinds: tuple[str, ...] = ()
    is_proved: bool = False
    tier: str | None = Field(default=None, max_length=100)
    contract: str | None = Field(default=None, max_length=100)


class CustomerEvent(Payload):
    """A fact about the customer of one conversation. `by` is who decided: `signalbox`, or a person's name."""

    conversation_id: Id
    by: str
    at: Instant


_EVENT: dict[str, Any] = {
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "by": "signalbox",
    "at": "2026-11-24T08:00:01Z",
}
_EVIDENCE: dict[str, Any] = {
    "kind": "attested_phone",
    "weight": 0.97,
    "is_proved": True,
    "detail": "telegram attests +44…456, which whatsapp proved",
}


class CustomerMerged(CustomerEvent):
    """From now on `merged_id` leads to `customer_id`.

    `members` are all ids that led to `merged_id`, its own included: whoever wrote under one of them is now
    `customer_id`. `merge_id` names the merge, for taking it back.
    """

    TYPE: ClassVar[str] = "customer.merged.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_EVENT,
        "merge_id": "8b1f5e0c-6f2e-5d0a-8c39-5a0f1c4a9e77",
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "merged_id": "45c48cce-2e2d-5fbd-ba1a-fc51c7c6ad26",
        "members": ["45c48cce-2e2d-5fbd-ba1a-fc51c7c6ad26"],
        "score": 0.97,
        "evidence": [_EVIDENCE],
    }

    merge_id: Id
    customer_id: Id
    merged_id: Id
    members: tuple[Id, ...]
    score: float = Field(ge=0, le=1)
    evidence: tuple[Evidence, ...] = ()


class CustomerUnmerged(CustomerEvent):
    """A merge was taken back: `customer_id` leads to itself again, and no more to `left_id`.

    Whoever wrote under one of `members` is `customer_id` again.
    """

    TYPE: ClassVar[str] = "customer.unmerged.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_EVENT,
        "by": "ada",
        "merge_id": "8b1f5e0c-6f2e-5d0a-8c39-5a0f1c4a9e77",
        "customer_id": "45c48cce-2e2d-5fbd-ba1a-fc51c7c6ad26",
        "left_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "members": ["45c48cce-2e2d-5fbd-ba1a-fc51c7c6ad26"],
    }

    merge_id: Id
    customer_id: Id
    left_id: Id
    members: tuple[Id, ...]


class CustomerDescribed(CustomerEvent):
    """The company thinks otherwise of a customer: their `tier` and `contract` are these from now on (None: none).

    `members` are all ids that lead to `customer_id`, its own included.
    """

    TYPE: ClassVar[str] = "customer.described.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_EVENT,
        "by": "ada",
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "members": ["8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11"],
        "tier": "gold",
        "contract": None,
    }

    customer_id: Id
    members: tuple[Id, ...]
    tier: str | None = Field(default=None, max_length=100)
    contract: str | None = Field(default=None, max_length=100)


class CustomerLinkSuggested(CustomerEvent):
    """`customer_id` and `other_id` may be one person; a person of ours should say. Nothing was changed.

    `objection` is why proof alone did not merge them: `shared_address`, `too_many`, `not_proved`.
    """

    TYPE: ClassVar[str] = "customer.link_suggested.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_EVENT,
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "other_id": "45c48cce-2e2d-5fbd-ba1a-fc51c7c6ad26",
        "score": 0.6,
        "evidence": [
            {"kind": "claimed_mail", "weight": 0.6, "detail": "a…@example.com was typed in webchat"}
        ],
        "objection": "not_proved",
    }

    customer_id: Id
    other_id: Id
    score: float = Field(ge=0, le=1)
    evidence: tuple[Evidence, ...] = ()
    objection: str = ""


class CustomerErased(CustomerEvent):
    """A customer is to be forgotten: readers remove what they keep of the `members` in this conversation.

    `message_ids` are the messages they wrote in it; ids stay, so that counts still balance.
    """

    TYPE: ClassVar[str] = "customer.erased.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_EVENT,
        "by": "ada",
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "members": ["8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11"],
        "message_ids": ["4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10"],
    }

    customer_id: Id
    members: tuple[Id, ...]
    message_ids: tuple[Id, ...] = ()
