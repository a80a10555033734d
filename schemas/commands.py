"""`commands`: what people (and their tools) want done with a ticket. Each may be refused, with a reason."""

from typing import Annotated, Any, ClassVar

from pydantic import StringConstraints

from schemas.payload import Field, Id, Payload
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
    """Send `text` to the customer, on the channel they wrote by; `solves` ends the case with it."""

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
    """Hand the case from the front line to technical support, with what was found out so far."""

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
    """Put the case into another queue, or ask for a particular agent, who is asked first if fit and free now.

    Otherwise whoever else is fit gets it. Who there is only assignment knows, so a `to_agent_id` that nobody has is not
    refused.
    """

    TYPE: ClassVar[str] = "command.reassign.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "queue": "billing"}

    queue: Id | None = None
    to_agent_id: Id | None = None


class TagTicket(Command):
    """Add and remove tags; `add` and `remove` are sets, and adding what is there changes nothing."""

    TYPE: ClassVar[str] = "command.tag.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_WHERE, "add": ["late_by_shipper"], "remove": []}

    add: tuple[Tag, ...] = ()
    remove: tuple[Tag, ...] = ()


AnyCommand = ReplyToCustomer | AddNote | SolveTicket | EscalateTicket | ReassignTicket | TagTicket
