"""`tickets`: the life of each case, as the router decides it."""

from typing import Any, ClassVar, Literal

from schemas.customers import CustomerContext
from schemas.messages import Change, MessageKind
from schemas.payload import Field, Id, Instant, Part, Payload
from schemas.sla import TargetKind
from schemas.topics import TICKETS

TicketStatus = Literal[
    "queued",
    "offered",
    "assigned",
    "pending",
    "on_hold",
    "snoozed",
    "solved",
    "spam",
    "merged",
    "closed",
]
Desk = Literal["service", "technical"]
OpenedBy = Literal["message", "feedback"]

_TICKET: dict[str, Any] = {
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "version": 1,
    "at": "2026-11-24T08:00:01Z",
}


class Contact(Part):
    """Where the customer can be answered, and whether that address was proved to be theirs."""

    customer_id: Id
    name: str = ""
    address: str
    address_kind: Literal["email", "phone", "vendor_id", "none"] = "email"
    channel: Id
    account: Id
    language: str | None = None
    is_verified: bool = False


class TicketEvent(Payload):
    """A fact about one ticket. `version` counts the ticket's events from 1 without gaps."""

    ticket_id: Id
    conversation_id: Id
    version: int = Field(ge=1)
    at: Instant


class TicketOpened(TicketEvent):
    """A new case. `priority` 1 urgent … 4 low; `sla_policy` names the targets; `follows` the solved case before it.

    `context` is what was known of the customer besides when the case was opened, `vendor_thread` the vendor's own name for
    the ticket or conversation that the message stands in, empty where the channel has none.

    `matched` says which conditions of `rule` held, in the policy's words; `observed` how many tickets waited in the queues
    that a rule asked for, so that the same decision can be made again. `tags` are those that the rule gives.

    `by` is what opened it: a customer's message, or `feedback`, a low answer to a survey about a case that was closed already; then
    `message_id` names that answer, and nobody is owed an acknowledgement.
    """

    TYPE: ClassVar[str] = "ticket.opened.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "number": 1,
        "reference": "SB-4K7TQ2M",
        "message_id": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "contact": {
            "customer_id": "8f14e45f",
            "name": "Ada",
            "address": "ada@example.com",
            "channel": "email",
            "account": "support",
            "language": "en",
        },
        "subject": "My lamp never arrived",
        "desk": "service",
        "queue": "service",
        "priority": 3,
        "sla_policy": "standard",
        "rule": "everything else",
        "policy_version": "a1b2c3d4e5f6",
        "occurred_at": "2026-11-24T08:00:00Z",
    }

    number: int = Field(ge=1)
    reference: str
    message_id: Id
    contact: Contact
    subject: str = ""
    desk: Desk
    queue: Id
    priority: int = Field(ge=1, le=4)
    sla_policy: Id
    rule: str
    policy_version: str
    occurred_at: Instant
    follows: Id | None = None
    vendor_message_id: str = ""
    vendor_thread: str = ""
    suspicion: str | None = None
    context: CustomerContext | None = None
    matched: tuple[str, ...] = ()
    observed: dict[str, int] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    by: OpenedBy = "message"


class TicketMessageAdded(TicketEvent):
    """A customer wrote in an open case (or a machine did: see `kind`, `is_automatic`).

    The message that opens a ticket is told by `ticket.opened` and is not repeated here. One that was written in a case
    merged into this one names that conversation in `from_conversation_id`.
    """

    TYPE: ClassVar[str] = "ticket.message_added.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "message_id": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "kind": "message",
        "is_automatic": False,
        "occurred_at": "2026-11-24T08:10:00Z",
        "status": "assigned",
        "vendor_message_id": "<CAF2@mail.example.com>",
    }

    message_id: Id
    kind: MessageKind
    is_automatic: bool
    occurred_at: Instant
    status: TicketStatus
    vendor_message_id: str = ""
    contact: Contact | None = None
    from_conversation_id: Id | None = None


class TicketReopened(TicketEvent):
    """A customer wrote in a solved case within the reopen window. Follows the message that did it.

    Or, `by` feedback, they gave a low answer to a survey about it: `message_id` names that, and the case waits for a person's look.
    """

    TYPE: ClassVar[str] = "ticket.reopened.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "message_id": "4b7c2d9e",
        "queue": "service",
        "reopen_count": 1,
        "occurred_at": "2026-11-24T10:00:00Z",
    }

    message_id: Id
    queue: Id
    reopen_count: int
    occurred_at: Instant
    by: OpenedBy = "message"


class TicketAnswered(TicketEvent):
    """An agent's public answer: `text` goes to the customer. `occurred_at` is when the agent gave it.

    `next_update_by` is when it promises that the customer hears again; None: it promises nothing of the kind.
    """

    TYPE: ClassVar[str] = "ticket.answered.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "text": "Your lamp left our house this morning.",
        "occurred_at": "2026-11-24T08:12:00Z",
        "is_first": True,
    }

    command_id: Id
    agent_id: Id
    agent_name: str = ""
    text: str
    language: str | None = None
    occurred_at: Instant
    is_first: bool
    next_update_by: Instant | None = None


class TicketAnsweredElsewhere(TicketEvent):
    """Our side answered the customer by the channel's own means (the page's inbox, the helpdesk), and the channel said so.

    It stops the response clocks like any answer; nobody has to send it.
    """

    TYPE: ClassVar[str] = "ticket.answered_elsewhere.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "message_id": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a12",
        "channel": "messenger",
        "author": "Lantern & Oak",
        "occurred_at": "2026-11-24T08:12:00Z",
    }

    message_id: Id
    channel: Id
    author: str
    occurred_at: Instant


class TicketMessageRevised(TicketEvent):
    """The customer edited or removed a message of the case; the words are in `message.revised`."""

    TYPE: ClassVar[str] = "ticket.message_revised.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "message_id": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "change": "edited",
        "occurred_at": "2026-11-24T08:11:00Z",
    }

    message_id: Id
    change: Change
    occurred_at: Instant


class TicketNoteAdded(TicketEvent):
    """A note for colleagues."""

    TYPE: ClassVar[str] = "ticket.note_added.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "text": "Called the carrier.",
    }

    command_id: Id
    agent_id: Id
    text: str


class TicketStatusChanged(TicketEvent):
    """The ticket moved on in its life cycle, for `reason`.

    `until` is when a ticket on hold or snoozed wakes by itself, `waiting_on` whom one on hold waits for, `detail` what the
    agent said of it. `overfull`: it was forced on its assignee above what they can carry. `command_id` is there where a
    command moved it.
    """

    TYPE: ClassVar[str] = "ticket.status_changed.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "before": "offered",
        "status": "assigned",
        "reason": "accepted",
        "agent_id": "ada",
        "queue": "service",
    }

    before: TicketStatus
    status: TicketStatus
    reason: str
    agent_id: Id | None = None
    queue: Id
    until: Instant | None = None
    waiting_on: str = ""
    detail: str = ""
    overfull: bool = False
    command_id: Id | None = None


class TicketEscalated(TicketEvent):
    """The case moved from the front line to technical support with what is known. Clocks run on.

    One that a timer moved says when that was due and how many seconds later it was done.
    """

    TYPE: ClassVar[str] = "ticket.escalated.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "from_queue": "service",
        "to_queue": "technical",
        "reason": "needs someone who reads API logs",
        "facts": {"request_id": "req_81"},
        "by_rule": None,
    }

    command_id: Id | None
    agent_id: Id | None
    from_queue: Id
    to_queue: Id
    reason: str
    facts: dict[str, str] = Field(default_factory=dict)
    by_rule: str | None = None
    due_at: Instant | None = None
    late_seconds: float = Field(default=0, ge=0)


class TicketSolved(TicketEvent):
    """The case is done, as far as the agent can tell; the customer may reopen it within the window."""

    TYPE: ClassVar[str] = "ticket.solved.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "cause": "late_by_shipper",
        "occurred_at": "2026-11-24T08:12:00Z",
        "with_answer": True,
    }

    command_id: Id
    agent_id: Id
    cause: str | None = None
    occurred_at: Instant
    with_answer: bool = False


class TicketClosed(TicketEvent):
    """The reopen window has passed; the next message of this conversation opens a follow-up."""

    TYPE: ClassVar[str] = "ticket.closed.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_TICKET}


class TicketTagged(TicketEvent):
    """The ticket's tags after a change."""

    TYPE: ClassVar[str] = "ticket.tagged.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "tags": ["late_by_shipper"],
    }

    command_id: Id
    agent_id: Id
    tags: tuple[str, ...]


class TicketReturned(TicketEvent):
    """The case went back: a delegated one to its owner, an escalated one to the front line. Clocks run on.

    `returns` counts how often technical support gave this case back.
    """

    TYPE: ClassVar[str] = "ticket.returned.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "nils",
        "to_agent_id": "ada",
        "from_queue": "technical",
        "to_queue": "service",
        "what": "escalation",
        "reason": "no fault of ours: a wrong key",
        "returns": 1,
    }

    command_id: Id
    agent_id: Id
    to_agent_id: Id | None = None
    from_queue: Id
    to_queue: Id
    what: Literal["delegation", "escalation"]
    reason: str
    returns: int = 0


class TicketOwnerForced(TicketEvent):
    """The case went to and fro between the desks; `owner_id` of technical support keeps it now. A supervisor should look."""

    TYPE: ClassVar[str] = "ticket.owner_forced.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "owner_id": "nils",
        "queue": "technical",
        "returns": 2,
    }

    owner_id: Id
    queue: Id
    returns: int


class TicketPaged(TicketEvent):
    """Somebody on call should look at once: the case falls under `on_call` of the policy. Told once while it is open."""

    TYPE: ClassVar[str] = "ticket.paged.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "on_call": "security",
        "queue": "on_call",
        "priority": 1,
        "reason": "rule: a secret got out",
    }

    on_call: Id
    queue: Id
    priority: int = Field(ge=1, le=4)
    reason: str


class TicketPrioritised(TicketEvent):
    """The case is more or less urgent than `before`: by an agent's word, or by a rule."""

    TYPE: ClassVar[str] = "ticket.prioritised.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "before": 3,
        "priority": 1,
        "reason": "a wedding tomorrow",
        "command_id": "c-2f5d",
        "agent_id": "ada",
    }

    before: int = Field(ge=1, le=4)
    priority: int = Field(ge=1, le=4)
    reason: str
    command_id: Id | None = None
    agent_id: Id | None = None
    by_rule: str | None = None


class TicketDelegated(TicketEvent):
    """A colleague is asked to do a part of the case, `task`; `owner_id` stays responsible for it."""

    TYPE: ClassVar[str] = "ticket.delegated.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "owner_id": "ada",
        "to_agent_id": "bo",
        "task": "check whether the refund went out",
    }

    command_id: Id
    owner_id: Id
    to_agent_id: Id
    task: str


class TicketPromised(TicketEvent):
    """The customer was promised an answer (`update`) or a call (`callback`) until `by`, not before `not_before`.

    It takes the place of an open promise of the same kind. What an answer promises stands in `ticket.answered` alone.
    """

    TYPE: ClassVar[str] = "ticket.promised.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "what": "callback",
        "by": "2026-11-25T10:00:00Z",
        "not_before": "2026-11-25T09:00:00Z",
        "note": "wants to hear it from a person",
    }

    command_id: Id
    agent_id: Id
    what: Literal["update", "callback"]
    by: Instant
    not_before: Instant | None = None
    note: str = ""


class TicketCalled(TicketEvent):
    """The customer was called at `occurred_at`. Only `reached` keeps the promise of a call."""

    TYPE: ClassVar[str] = "ticket.called.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "outcome": "reached",
        "occurred_at": "2026-11-25T09:20:00Z",
    }

    command_id: Id
    agent_id: Id
    outcome: Literal["reached", "no_answer", "voicemail"]
    occurred_at: Instant


class TicketMerged(TicketEvent):
    """The case goes on in another ticket; this one's status is `merged`, and what is written here is carried there."""

    TYPE: ClassVar[str] = "ticket.merged.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-2f5d",
        "merge_id": "c-2f5d",
        "agent_id": "ada",
        "into_conversation_id": "7d793037-a076-5d9c-8f0a-1d2b0d6f1a11",
        "into_ticket_id": "c20ad4d7-6fe9-5759-aa27-a0c99bff6710",
        "into_reference": "SB-2M7QT4K",
        "before": "assigned",
    }

    command_id: Id
    merge_id: Id
    agent_id: Id
    into_conversation_id: Id
    into_ticket_id: Id
    into_reference: str
    before: TicketStatus


class TicketAbsorbed(TicketEvent):
    """Another case was merged into this one, which is now as old and as urgent as the older and the more urgent of both.

    `opened_at`, `priority`, `tags` and `facts` are this ticket's after it; `other_opened_at`, `waiting_since` (the oldest
    words of that customer that nobody has answered) and `dues` (the deadlines of its clocks that ran; None: not known) are
    the other one's. It is told again, with the same `merge_id`, where the other one lets go of a case that it had taken in.
    """

    TYPE: ClassVar[str] = "ticket.absorbed.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "merge_id": "c-2f5d",
        "agent_id": "ada",
        "from_conversation_id": "7d793037-a076-5d9c-8f0a-1d2b0d6f1a11",
        "from_ticket_id": "c20ad4d7-6fe9-5759-aa27-a0c99bff6710",
        "from_reference": "SB-2M7QT4K",
        "opened_at": "2026-11-24T07:00:00Z",
        "other_opened_at": "2026-11-24T07:00:00Z",
        "waiting_since": "2026-11-24T07:00:00Z",
        "priority": 2,
        "tags": ["late_by_shipper"],
        "facts": {"order": "1007"},
        "dues": None,
    }

    merge_id: Id
    agent_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    from_reference: str
    opened_at: Instant
    other_opened_at: Instant
    waiting_since: Instant | None = None
    priority: int = Field(ge=1, le=4)
    tags: tuple[str, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict)
    dues: dict[TargetKind, Instant] | None = None


class TicketUnmerged(TicketEvent):
    """A merge was undone: the case waits again on its own, with the messages that were written in it meanwhile.

    `opened_at` and `waiting_since` are its own, so that its clocks can run on as if it had never been merged;
    `waiting_since` counts the messages written in it meanwhile, which are owed an answer here from now on.
    """

    TYPE: ClassVar[str] = "ticket.unmerged.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "command_id": "c-3a01",
        "merge_id": "c-2f5d",
        "agent_id": "ada",
        "from_conversation_id": "7d793037-a076-5d9c-8f0a-1d2b0d6f1a11",
        "from_ticket_id": "c20ad4d7-6fe9-5759-aa27-a0c99bff6710",
        "queue": "service",
        "opened_at": "2026-11-24T08:00:00Z",
        "waiting_since": "2026-11-24T08:00:00Z",
        "message_ids": ["4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10"],
    }

    command_id: Id
    merge_id: Id
    agent_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    queue: Id
    opened_at: Instant
    waiting_since: Instant | None = None
    message_ids: tuple[Id, ...] = ()


class TicketSplitOff(TicketEvent):
    """A case that had been merged into this one stands on its own again; `priority`, `tags`, `opened_at` are what is left."""

    TYPE: ClassVar[str] = "ticket.split_off.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "merge_id": "c-2f5d",
        "agent_id": "ada",
        "from_conversation_id": "7d793037-a076-5d9c-8f0a-1d2b0d6f1a11",
        "from_ticket_id": "c20ad4d7-6fe9-5759-aa27-a0c99bff6710",
        "opened_at": "2026-11-24T08:00:00Z",
        "priority": 3,
        "tags": [],
    }

    merge_id: Id
    agent_id: Id
    from_conversation_id: Id
    from_ticket_id: Id
    opened_at: Instant
    priority: int = Field(ge=1, le=4)
    tags: tuple[str, ...] = ()


class TicketMessageCarried(TicketEvent):
    """A message was written in a merged case, and went on to the ticket that it was merged into."""

    TYPE: ClassVar[str] = "ticket.message_carried.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "message_id": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "into_conversation_id": "7d793037-a076-5d9c-8f0a-1d2b0d6f1a11",
        "into_ticket_id": "c20ad4d7-6fe9-5759-aa27-a0c99bff6710",
    }

    message_id: Id
    into_conversation_id: Id
    into_ticket_id: Id


class CommandRefused(Payload):
    """A command did not fit; nothing changed. `state` is where the ticket stands, for whoever asked.

    `version` counts its events so far, `since` is when it moved to `state`, `assignee_id` who has it; of a merged ticket
    `into_conversation_id` and `into_ticket_id` say where it goes on. What is not known is left out.
    """

    TYPE: ClassVar[str] = "command.refused.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "command_id": "c-2f5d",
        "command": "command.reply.v1",
        "ticket_id": "3c59dc04",
        "conversation_id": "b1c9f1c2",
        "agent_id": "ada",
        "reason": "not_assignee",
        "state": "assigned",
        "at": "2026-11-24T08:00:01Z",
    }

    command_id: Id
    command: str
    ticket_id: Id
    conversation_id: Id
    agent_id: Id
    reason: str
    state: str
    at: Instant
    version: int | None = None
    since: Instant | None = None
    assignee_id: Id | None = None
    into_conversation_id: Id | None = None
    into_ticket_id: Id | None = None


class MessageNotTicketed(Payload):
    """A message that opens no ticket, and why (`automatic`, `bounce`, `spam`). It is counted, so that the books balance."""

    TYPE: ClassVar[str] = "ticket.message_set_aside.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "message_id": "4b7c2d9e",
        "conversation_id": "b1c9f1c2",
        "reason": "automatic",
        "at": "2026-11-24T08:00:01Z",
    }

    message_id: Id
    conversation_id: Id
    reason: str
    at: Instant


class TicketCustomerChanged(TicketEvent):
    """The ticket's customer goes by another id: customers were merged (`merged`), or parted again (`unmerged`).

    Where answers go does not change, and no clock: targets belong to the ticket.
    """

    TYPE: ClassVar[str] = "ticket.customer_changed.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "before": "45c48cce-2e2d-5fbd-ba1a-fc51c7c6ad26",
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "reason": "merged",
        "merge_id": "8b1f5e0c-6f2e-5d0a-8c39-5a0f1c4a9e77",
        "by": "signalbox",
    }

    before: Id
    customer_id: Id
    reason: Literal["merged", "unmerged"]
    merge_id: Id
    by: str


class TicketCustomerDescribed(TicketEvent):
    """The company thinks otherwise of the ticket's customer: their `tier` or `contract` is this from now on (None: none).

    What was promised may depend on it. The ticket stays in its queue, at its priority.
    """

    TYPE: ClassVar[str] = "ticket.customer_described.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "tier": "gold",
        "contract": None,
    }

    customer_id: Id
    tier: str | None = None
    contract: str | None = None


class ConversationErased(Payload):
    """A conversation's customer was erased: readers remove names, addresses and words that they keep of it."""

    TYPE: ClassVar[str] = "conversation.erased.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
        "by": "ada",
        "at": "2026-11-24T08:00:01Z",
    }

    conversation_id: Id
    by: str
    at: Instant
