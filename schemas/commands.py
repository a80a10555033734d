"""`commands`: what people (and their tools) want done with a ticket. Each may be refused, with a reason."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import StringConstraints

from schemas.notifications import Occasion
from schemas.payload import Field, Id, Instant, Part, Payload
from schemas.tickets import Contact
from schemas.topics import COMMANDS

Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]

_WHERE: dict[str, Any] = {
    "command_id": "c-2f5d",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "agent_id": "ada",
}


class Command(Payload):
    """Who wants something of which ticket. `command_id` is the sender's name for the request (idempotency key)."""

    command_id: Id
    conversation_id: Id
    ticket_id: Id
    agent_id: Id


class ReplyToCustomer(Command):
    """Send `text` to the customer, on the channel they wrote by; `solves` ends the case with it, for `cause`.

    `next_update_by` is when the text says that the customer hears again: a promise, whose clock runs until the next answer.
    """

    TYPE: ClassVar[str] = "command.reply.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "text": "Your lamp left our house this morning.",
        "solves": False,
    }

    text: Text
    language: str | None = None
    solves: bool = False
    cause: Tag | None = None
    next_update_by: Instant | None = None


class AddNote(Command):
    """Write something down for colleagues; the customer never sees it."""

    TYPE: ClassVar[str] = "command.note.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "text": "Called the carrier, they will look for it.",
    }

    text: Text


class SolveTicket(Command):
    """End the case; `cause` is one of the tags that say why it arose."""

    TYPE: ClassVar[str] = "command.solve.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "cause": "late_by_shipper"}

    cause: Tag | None = None


class EscalateTicket(Command):
    """Hand the case from the front line to technical support, with what was found out so far.

    A ticket keeps at most 32 `facts` over all hand-overs, each with its name of at most 2,000 characters.
    """

    TYPE: ClassVar[str] = "command.escalate.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "reason": "needs someone who reads API logs",
        "facts": {"request_id": "req_81", "tried": "new key"},
    }

    reason: Text
    facts: dict[str, str] = Field(default_factory=dict)
    queue: Id | None = None


class ReassignTicket(Command):
    """Put the case into another queue, or give it to a particular agent.

    Into another desk's queue it is an escalation or a return, with the same conditions; facts count that were handed over
    earlier.

    `transfer` says how firmly. `ask`: they are asked first if fit and free now, else whoever is. `direct`: they get it
    without being asked if they have room for it, else it waits for whoever has, and a note says so. `forced`: they get it
    even above their capacity, and the assignment says that too. Who there is only assignment knows, so a `to_agent_id` that
    nobody has is not refused here.
    """

    TYPE: ClassVar[str] = "command.reassign.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "queue": "billing"}

    queue: Id | None = None
    to_agent_id: Id | None = None
    transfer: Literal["ask", "direct", "forced"] = "ask"


class TagTicket(Command):
    """Add and remove tags; `add` and `remove` are sets, and adding what is there changes nothing. A ticket has at most 100."""

    TYPE: ClassVar[str] = "command.tag.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "add": ["late_by_shipper"], "remove": []}

    add: tuple[Tag, ...] = ()
    remove: tuple[Tag, ...] = ()


class HoldTicket(Command):
    """Wait for a third party (`waiting_on`: the carrier, the bank), at the longest until `until`; nobody's capacity is taken."""

    TYPE: ClassVar[str] = "command.hold.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "reason": "the carrier looks for the parcel",
        "waiting_on": "carrier",
        "until": "2026-11-26T08:00:00Z",
    }

    reason: Text
    waiting_on: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    until: Instant | None = None


class SnoozeTicket(Command):
    """Put the case away until an instant, for oneself. The clocks run on; nobody's capacity is taken meanwhile."""

    TYPE: ClassVar[str] = "command.snooze.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "until": "2026-11-25T08:00:00Z"}

    until: Instant


class ResumeTicket(Command):
    """Take up a case that rests (on hold, snoozed, pending) now: it is offered to whoever had it, if they have room."""

    TYPE: ClassVar[str] = "command.resume.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE}


class DelegateTicket(Command):
    """Let a colleague do a part (`task`). Who delegates stays its owner, and `return` brings it back to them."""

    TYPE: ClassVar[str] = "command.delegate.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "to_agent_id": "bo",
        "task": "check whether the refund went out",
    }

    to_agent_id: Id
    task: Text


class ReturnTicket(Command):
    """Give the case back: a delegated one to its owner, one with technical support to the front line it came from."""

    TYPE: ClassVar[str] = "command.return.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "reason": "no fault of ours: a wrong key"}

    reason: Text


class MarkTicketAsSpam(Command):
    """Set the case aside as no customer's: its clocks end, and what else its sender writes meanwhile goes with it."""

    TYPE: ClassVar[str] = "command.spam.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "reason": "sells search engine rank"}

    reason: Text


class RestoreTicket(Command):
    """It was a customer after all: the case waits again, at its age."""

    TYPE: ClassVar[str] = "command.restore.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE}


class MergeTicket(Command):
    """The case is the same as another one: go on there. What its customer writes from then on is carried to that ticket.

    Answers go where the other ticket's go, so both must be the same customer's, unless `allow_other_customer`.
    """

    TYPE: ClassVar[str] = "command.merge.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "into_conversation_id": "7d793037-a076-5d9c-8f0a-1d2b0d6f1a11",
        "into_ticket_id": "c20ad4d7-6fe9-5759-aa27-a0c99bff6710",
    }

    into_conversation_id: Id
    into_ticket_id: Id
    allow_other_customer: bool = False


class UnmergeTicket(Command):
    """Undo the merge of this (merged) ticket: it waits again with its own messages, and the other one is what it was."""

    TYPE: ClassVar[str] = "command.unmerge.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE}


class PromiseCustomer(Command):
    """Note that the customer was promised an answer (`update`) or a call (`callback`) until `by`, not before `not_before`.

    It tells the customer nothing: they were told, or chose the time themselves. A later promise of the same kind takes the
    place of an earlier one. `note` is for colleagues.
    """

    TYPE: ClassVar[str] = "command.promise.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "what": "callback",
        "by": "2026-11-25T10:00:00Z",
        "not_before": "2026-11-25T09:00:00Z",
        "note": "wants to hear it from a person",
    }

    what: Literal["update", "callback"]
    by: Instant
    not_before: Instant | None = None
    note: Annotated[str, StringConstraints(max_length=2_000)] = ""


class CallMade(Command):
    """Note that the customer was called at `occurred_at`, and what came of it. Only `reached` keeps the promise of a call."""

    TYPE: ClassVar[str] = "command.called.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "outcome": "reached",
        "occurred_at": "2026-11-25T09:20:00Z",
    }

    outcome: Literal["reached", "no_answer", "voicemail"]
    occurred_at: Instant


class PrioritiseTicket(Command):
    """Make the case more or less urgent: 1 urgent … 4 low."""

    TYPE: ClassVar[str] = "command.prioritise.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "priority": 1, "reason": "a wedding tomorrow"}

    priority: int = Field(ge=1, le=4)
    reason: Text


class HelpArticle(Part):
    """An article that may help: its title, its address, and a sentence about it."""

    title: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    url: Annotated[str, StringConstraints(pattern=r"^https://[^\s<>\"]+$", max_length=2_000)]
    summary: Annotated[str, StringConstraints(max_length=1_000)] = ""


class NotifyCustomer(Payload):
    """Tell this conversation's customer something that no event of a ticket says: an outage, a security notice, and the like.

    Somebody who never wrote is told by `contact`, under a conversation's id (a UUID) that the sender makes for them; where the
    conversation has a contact already, that one counts. `about` names the outage: of each it is told once that it is known and
    once that it is over. `title` and `text` are the sender's own words, in `language`; `since` and `until` frame an outage,
    `call_from` and `call_until` a call. After `expires_at` it is not told any more. `is_urgent` lets it go out at night where
    the policy allows that.
    """

    TYPE: ClassVar[str] = "command.notify.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "command_id": "c-2f5d",
        "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
        "agent_id": "ada",
        "occasion": "outage_known",
        "about": "payments-2026-11-24",
        "title": "Payments by card",
        "text": "Cards are refused at the moment. Your order is kept.",
        "since": "2026-11-24T07:40:00Z",
    }

    command_id: Id
    conversation_id: Id
    agent_id: Id
    occasion: Literal[
        "outage_known",
        "outage_over",
        "security",
        "need_info",
        "callback_booked",
        "callback_missed",
        "next_issue",
        "recovery",
        "check_in",
    ]
    ticket_id: Id | None = None
    contact: Contact | None = None
    about: Annotated[str, StringConstraints(max_length=200)] = ""
    title: Annotated[str, StringConstraints(max_length=300)] = ""
    text: Annotated[str, StringConstraints(max_length=10_000)] = ""
    language: Annotated[str, StringConstraints(max_length=35)] | None = None
    since: Instant | None = None
    until: Instant | None = None
    call_from: Instant | None = None
    call_until: Instant | None = None
    articles: tuple[HelpArticle, ...] = Field(default=(), max_length=5)
    expires_at: Instant | None = None
    is_urgent: bool = False


class ResendNotice(Command):
    """Send a notice again that failed, bounced, or of which nobody knows whether it arrived. Who asks answers for it.

    `occasion` and `ticket_id` say which notice is meant, should the notifier know nothing of it any more. `text`, `language` and
    `agent_name` are those of an agent's answer: the notifier does not keep what it has sent.
    """

    TYPE: ClassVar[str] = "command.resend_notice.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "notice_id": "n-1",
        "occasion": "received",
    }

    notice_id: Id
    occasion: Occasion
    text: Annotated[str, StringConstraints(max_length=100_000)] = ""
    language: Annotated[str, StringConstraints(max_length=35)] | None = None
    agent_name: Annotated[str, StringConstraints(max_length=200)] = ""


AnyCommand = (
    ReplyToCustomer
    | AddNote
    | SolveTicket
    | EscalateTicket
    | ReassignTicket
    | TagTicket
    | HoldTicket
    | SnoozeTicket
    | ResumeTicket
    | DelegateTicket
    | ReturnTicket
    | MarkTicketAsSpam
    | RestoreTicket
    | MergeTicket
    | UnmergeTicket
    | PromiseCustomer
    | CallMade
    | PrioritiseTicket
)
