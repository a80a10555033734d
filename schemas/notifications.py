"""`notifications`: what customers were told, what they were not told and why, and what nobody can know."""

from typing import Any, ClassVar, Literal

from schemas.payload import Id, Instant, Payload
from schemas.topics import NOTIFICATIONS

Occasion = Literal["received", "answered", "escalated", "solved"]

_NOTICE: dict[str, Any] = {
    "notice_id": "n-1",
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "occasion": "received",
    "at": "2026-11-24T08:00:02Z",
}


class NoticeEvent(Payload):
    """A fact about one notice. `notice_id` is derived from its cause: the same cause never makes two."""

    notice_id: Id
    ticket_id: Id
    conversation_id: Id
    occasion: Occasion
    at: Instant


class NoticeRequested(NoticeEvent):
    """Someone shall be told: rendered, recorded, about to be handed to a provider.

    `is_verified` says whether anybody had proved that the recipient's address is theirs.
    """

    TYPE: ClassVar[str] = "notice.requested.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_NOTICE,
        "channel": "email",
        "recipient": "ada@example.com",
        "language": "en",
        "subject": "Re: My lamp never arrived",
        "is_verified": True,
    }

    channel: Id
    recipient: str
    language: str
    subject: str
    is_verified: bool = False


class NoticeSent(NoticeEvent):
    """The provider took it. `provider_message_id` is what it will be called in bounces and replies."""

    TYPE: ClassVar[str] = "notice.sent.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_NOTICE,
        "provider": "smtp",
        "provider_message_id": "<sb.x@example.com>",
        "attempts": 1,
    }

    provider: Id
    provider_message_id: str
    attempts: int


class NoticeFailed(NoticeEvent):
    """The provider refused it for good, or retries are used up."""

    TYPE: ClassVar[str] = "notice.failed.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_NOTICE,
        "provider": "smtp",
        "reason": "550 no such user",
        "attempts": 1,
    }

    provider: Id
    reason: str
    attempts: int


class NoticeUnknown(NoticeEvent):
    """We handed it over and never learned what became of it; it is not sent again by itself."""

    TYPE: ClassVar[str] = "notice.unknown.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_NOTICE,
        "provider": "smtp",
        "reason": "interrupted",
        "attempts": 1,
    }

    provider: Id
    reason: str
    attempts: int


class NoticeSuppressed(NoticeEvent):
    """Someone could have been told and was not, for `reason`."""

    TYPE: ClassVar[str] = "notice.suppressed.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_NOTICE, "reason": "automatic_message"}

    reason: str


AnyNoticeEvent = NoticeRequested | NoticeSent | NoticeFailed | NoticeUnknown | NoticeSuppressed
