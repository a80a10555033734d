"""`dead-letters`: what could not be handled, with its bytes and the cause."""

from typing import Any, ClassVar

from schemas.payload import Id, Instant, Payload
from schemas.topics import DEAD_LETTERS


class DeadLetterParked(Payload):
    """A record was set aside. `value_base64` is cut where it would not fit; the rest lies at the offset named.

    `reason` is one of a closed set (see `chassis.deadletters.Reason`), `error` the sentence for people.
    """

    TYPE: ClassVar[str] = "deadletter.parked.v1"
    TOPIC: ClassVar[str] = DEAD_LETTERS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "dead_letter_id": "d-1",
        "service": "router.tickets",
        "task": 3,
        "topic": "messages",
        "partition": 3,
        "offset": 812,
        "key_base64": "YjFjOQ==",
        "value_base64": "e30=",
        "is_cut": False,
        "reason": "invalid_payload",
        "error": "message_id: Field required",
        "parked_at": "2026-11-24T08:00:01Z",
    }

    dead_letter_id: Id
    service: Id
    task: int
    topic: Id
    partition: int
    offset: int
    key_base64: str
    value_base64: str
    is_cut: bool = False
    reason: str
    error: str
    parked_at: Instant
