"""How two tickets of different conversations become one, and two again: what their tasks tell each other on `commands`.

    source ── merge.asked ──▶ target          the target takes it in, or says why not; a merged target asks on its behalf
    source ◀── merge.answered ── target       the source is merged from here on, or its command is refused
    source ── message.carried ──▶ target      each message written in the source from then on
    source ── merge.erasure_carried ──▶ target     the source's customer is to be forgotten
    source ── merge.undone ──▶ target         the source stands on its own again
    source ◀── merge.ended ── target          the target is closed, so the source closes

All are addressed by `conversation_id`, the conversation that is to act. Each may come twice and changes nothing then.
"""

from typing import Any, ClassVar

from schemas.messages import MessageReceived
from schemas.payload import Field, Id, Instant, Payload
from schemas.topics import COMMANDS

_SOURCE = {
    "from_conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "from_ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
}
_TARGET = {
    "conversation_id": "7d793037-a076-5d9c-8f0a-1d2b0d6f1a11",
    "ticket_id": "c20ad4d7-6fe9-5759-aa27-a0c99bff6710",
}

HOPS_MAX = 20
"""Through how many merged tickets a question or a message goes on at most."""


class MergeEvent(Payload):
    """Something that one of two conversations tells the other. `conversation_id` is the one that is to act."""

    WRITER: ClassVar[str] = "router.tickets"

    conversation_id: Id


class MergeAsked(MergeEvent):
    """May the ticket `from_ticket_id` be merged into `ticket_id`? With what the target takes over.

    `waiting_since` is when the oldest words were written that nobody has answered; None: all are.
    """

    TYPE: ClassVar[str] = "merge.asked.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        **_SOURCE,
        "merge_id": "c-2f5d",
        "agent_id": "ada",
        "from_reference": "SB-4K7TQ2M",
        "customer_id": "8f14e45f",
        "opened_at": "2026-11-24T08:00:00Z",
        "waiting_since": "2026-11-24T08:00:00Z",
        "priority": 3,
        "tags": ["late_by_shipper"],
        "facts": {"order": "1007"},
    }

    ticket_id: Id
    merge_id: Id
    agent_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    from_reference: str
    customer_id: Id
    allow_other_customer: bool = False
    opened_at: Instant
    waiting_since: Instant | None = None
    priority: int = Field(ge=1, le=4)
    tags: tuple[str, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict)
    hops: int = Field(default=0, ge=0)


class MergeAnswered(MergeEvent):
    """The target's answer: taken in, or not and why. `into_*` is the ticket that took it, at the end of a chain."""

    TYPE: ClassVar[str] = "merge.answered.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "conversation_id": _SOURCE["from_conversation_id"],
        "ticket_id": _SOURCE["from_ticket_id"],
        "merge_id": "c-2f5d",
        "is_accepted": True,
        "into_conversation_id": _TARGET["conversation_id"],
        "into_ticket_id": _TARGET["ticket_id"],
        "into_reference": "SB-2M7QT4K",
    }

    ticket_id: Id
    merge_id: Id
    is_accepted: bool
    reason: str = ""
    into_conversation_id: Id
    into_ticket_id: Id
    into_reference: str = ""


class MessageCarried(MergeEvent):
    """A message that was written in a merged case, for the ticket that the case was merged into."""

    TYPE: ClassVar[str] = "message.carried.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        **_SOURCE,
        "message": MessageReceived.EXAMPLE,
    }

    ticket_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    message: MessageReceived
    hops: int = Field(default=0, ge=0)


class ErasureCarried(MergeEvent):
    """The customer of a merged case is to be forgotten: what the target has from that case goes as well.

    `members` are all ids of the customer, `message_ids` their messages in any conversation.
    """

    TYPE: ClassVar[str] = "merge.erasure_carried.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        **_SOURCE,
        "members": ["8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11"],
        "message_ids": ["4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10"],
        "by": "ada",
        "at": "2026-11-24T08:00:01Z",
    }

    ticket_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    members: tuple[Id, ...]
    message_ids: tuple[Id, ...] = ()
    by: str
    at: Instant
    hops: int = Field(default=0, ge=0)


class MergeUndone(MergeEvent):
    """The merge was undone: the target lets go of what it had from the source."""

    TYPE: ClassVar[str] = "merge.undone.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        **_SOURCE,
        "merge_id": "c-2f5d",
        "agent_id": "ada",
    }

    ticket_id: Id
    merge_id: Id
    agent_id: Id
    from_conversation_id: Id
    from_ticket_id: Id


class MergeEnded(MergeEvent):
    """The ticket that took the case in is closed, and so is the case."""

    TYPE: ClassVar[str] = "merge.ended.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "conversation_id": _SOURCE["from_conversation_id"],
        "ticket_id": _SOURCE["from_ticket_id"],
        "merge_id": "c-2f5d",
    }

    ticket_id: Id
    merge_id: Id


AnyMergeEvent = (
    MergeAsked | MergeAnswered | MessageCarried | ErasureCarried | MergeUndone | MergeEnded
)
