"""How two tickets of different conversations become one, and two again: what their tasks tell each other on `commands`.

    source ── merge.asked ──▶ target          the target takes it in, or says why not; a merged target asks on its behalf
    source ◀── merge.answered ── target       the source is merged from here on, or its command is refused
    source ── message.carried ──▶ target      each message written in the source from then on
    source ◀── message.returned ── target     the target is closed: the message is the source's after all
    source ── message.revision_carried ──▶ target  a message was edited or removed where it was written
    source ── merge.note_carried ──▶ target   what colleagues have to know of the source
    source ── merge.erasure_carried ──▶ target     the source's customer is to be forgotten
    source ── merge.changed ──▶ target        the source, merged itself, let go of a case: it brings less from here on
    source ── merge.undone ──▶ target         the source stands on its own again; also the answer to a yes that came too late
    source ◀── merge.ended ── target          the target is closed, so the source closes

All are addressed by `conversation_id`, the conversation that is to act. Each may come twice and changes nothing then.
"""

from typing import Any, ClassVar

from schemas.messages import MessageReceived, MessageRevised
from schemas.payload import Field, Id, Instant, Payload
from schemas.sla import TargetKind
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

ASKED_BYTES_MAX = 200_000
"""How large a question may be as JSON, and what a ticket has of all others: far below the largest value of a topic."""


class MergeEvent(Payload):
    """Something that one of two conversations tells the other. `conversation_id` is the one that is to act."""

    WRITER: ClassVar[str] = "router.tickets"

    conversation_id: Id


class MergeAsked(MergeEvent):
    """May the ticket `from_ticket_id` be merged into `ticket_id`? With what the target takes over.

    `waiting_since` is when the oldest words were written that nobody has answered; None: all are. `unanswered` counts the
    messages since then. `dues` are the deadlines of its clocks that run, by kind; None: not known. `depth` is through how many
    tickets a message comes at most before it reaches this one.
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
    unanswered: int = Field(default=1, ge=0)
    dues: dict[TargetKind, Instant] | None = None
    depth: int = Field(default=0, ge=0)


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
    """A message that was written in a merged case, for the ticket that the case was merged into.

    `merge_id` is the merge of the case that it was written in, however many it goes on through.
    """

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
    merge_id: str = ""


class MessageReturned(MergeEvent):
    """A carried message found its target closed. It goes back to the conversation that it was written in."""

    TYPE: ClassVar[str] = "message.returned.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "conversation_id": _SOURCE["from_conversation_id"],
        "merge_id": "c-2f5d",
        "from_conversation_id": _TARGET["conversation_id"],
        "from_ticket_id": _TARGET["ticket_id"],
        "message": MessageReceived.EXAMPLE,
    }

    merge_id: str
    from_conversation_id: Id
    from_ticket_id: Id
    message: MessageReceived


class RevisionCarried(MergeEvent):
    """A message of a merged case was edited or removed by its writer."""

    TYPE: ClassVar[str] = "message.revision_carried.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        **_SOURCE,
        "message": MessageRevised.EXAMPLE,
    }

    ticket_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    message: MessageRevised
    hops: int = Field(default=0, ge=0)


class NoteCarried(MergeEvent):
    """Something that colleagues have to know came up in a merged case, such as a notice that did not arrive."""

    TYPE: ClassVar[str] = "merge.note_carried.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        **_SOURCE,
        "note_id": "n-1",
        "text": "The notice “answered” did not reach the customer.",
    }

    ticket_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    note_id: Id
    text: str
    hops: int = Field(default=0, ge=0)


class MergeChanged(MergeEvent):
    """What a merged ticket brings is this now: a case that it had taken in itself stands on its own again."""

    TYPE: ClassVar[str] = "merge.changed.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        **_SOURCE,
        "merge_id": "c-2f5d",
        "agent_id": "ada",
        "opened_at": "2026-11-24T08:00:00Z",
        "waiting_since": "2026-11-24T08:00:00Z",
        "unanswered": 1,
        "priority": 3,
        "tags": ["late_by_shipper"],
        "facts": {"order": "1007"},
    }

    ticket_id: Id
    merge_id: Id
    agent_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    opened_at: Instant
    waiting_since: Instant | None = None
    unanswered: int = Field(default=1, ge=0)
    priority: int = Field(ge=1, le=4)
    tags: tuple[str, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict)
    depth: int = Field(default=0, ge=0)


class ErasureCarried(MergeEvent):
    """The customer of a merged case is to be forgotten: what the target has from that case goes as well.

    `members` are all ids of the customer, `message_ids` their messages in any conversation. `path` are the conversations
    that it came through before `from_conversation_id`. It goes to every ticket that the case was merged into in its life.
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
    path: tuple[Id, ...] = ()


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
    MergeAsked
    | MergeAnswered
    | MessageCarried
    | MessageReturned
    | RevisionCarried
    | NoteCarried
    | MergeChanged
    | ErasureCarried
    | MergeUndone
    | MergeEnded
)
