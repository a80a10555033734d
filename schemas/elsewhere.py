"""`routing`, as far as it tells what became of telling others: helpdesks, chat tools and boards that show who has a ticket."""

from typing import Any, ClassVar, Literal

from schemas.payload import Field, Id, Instant, Payload
from schemas.topics import ROUTING

Saying = Literal["offered", "assigned", "waiting", "escalated", "solved"]
"""What a place is told of a ticket: it is offered to an agent, an agent has it, nobody has it, it moved up, it is done."""

_TOLD: dict[str, Any] = {
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "place": "desk",
    "vendor": "zendesk",
    "says": "assigned",
    "agent_id": "ada",
    "attempts": 1,
    "at": "2026-11-24T08:00:10Z",
}


class ElsewhereEvent(Payload):
    """What became of telling one place of `elsewhere.yaml` one thing about a ticket.

    `says` is the thing, `agent_id` whom it is about (empty: nobody), `attempts` how many calls it took.
    """

    WRITER: ClassVar[str] = "router.elsewhere"

    ticket_id: Id
    conversation_id: Id
    place: Id
    vendor: Id
    says: Saying
    agent_id: str = ""
    attempts: int = Field(ge=0)
    at: Instant


class AssignmentElsewhereDone(ElsewhereEvent):
    """The place shows it. `is_changed` is false where it had shown it before anything was written."""

    TYPE: ClassVar[str] = "assignment_elsewhere.done.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_TOLD, "is_changed": True}

    is_changed: bool = True


class AssignmentElsewhereFailed(ElsewhereEvent):
    """The place does not show it and is not asked again, until there is something newer to say.

    `reason` is a name (`agent_unmapped`, `missing`, `unauthorized`, …), `detail` the vendor's status or error code, where
    there is one; never what a vendor wrote in words.
    """

    TYPE: ClassVar[str] = "assignment_elsewhere.failed.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_TOLD, "reason": "missing", "detail": "404"}

    reason: str
    detail: str = ""


AnyElsewhereEvent = AssignmentElsewhereDone | AssignmentElsewhereFailed
