"""`notifications`: what customers were told, what they were not told and why, and what nobody can know."""

from typing import Any, ClassVar, Literal

from schemas.payload import Id, Instant, Payload
from schemas.topics import NOTIFICATIONS

Occasion = Literal[
    "received",
    "after_hours",
    "voicemail",
    "escalated",
    "need_info",
    "still_on_it",
    "delayed",
    "answered",
    "solved",
    "reopened",
    "outage_known",
    "outage_over",
    "callback_booked",
    "callback_missed",
    "security",
    "next_issue",
    "recovery",
    "check_in",
    "survey",
    "digest",
    "help",
]
"""What a customer can be told of. All but `answered`, which an agent wrote, are automatic. `help` answers the word HELP."""

Category = Literal["service", "outage", "follow_up", "security"]
"""What kind of notice it is, for opting out and for caps. `service`: about a case that the customer opened."""

_NOTICE: dict[str, Any] = {
    "notice_id": "n-1",
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "occasion": "received",
    "at": "2026-11-24T08:00:02Z",
}


class NoticeEvent(Payload):
    """A fact about one notice. `notice_id` is derived from its cause: the same cause never makes two.

    One that is about no ticket (an outage told to somebody who has not written) has the conversation's id for `ticket_id`.
    """

    notice_id: Id
    ticket_id: Id
    conversation_id: Id
    occasion: Occasion
    at: Instant


class NoticeRequested(NoticeEvent):
    """Someone shall be told: rendered, recorded, about to be handed to a provider.

    `is_verified` says whether anybody had proved that the recipient's address is theirs. `provider` and `account` are the way
    that it goes first; `recipient` is the address there. One that asks how it went says with which question, and the chance that
    this case was drawn.
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
    provider: str = ""
    account: str = ""
    category: Category = "service"
    survey_kind: Literal["csat", "ces", "nps"] | None = None
    survey_probability: float | None = None


class NoticeDeferred(NoticeEvent):
    """Someone is told later: not before `until`, for `reason` (`quiet_hours`, `digest`, `account_trouble` and the like).

    The words are made then, and only if there is still a reason to say them. `account` is the one whose trouble it is.
    """

    TYPE: ClassVar[str] = "notice.deferred.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_NOTICE,
        "until": "2026-11-25T05:00:00Z",
        "reason": "quiet_hours",
    }

    until: Instant
    reason: str
    category: Category = "service"
    account: str = ""


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
    account: str = ""


class NoticeFailed(NoticeEvent):
    """The provider refused it for good, or retries are used up.

    `trouble` says whose it is: `message`, `address` (nobody can be reached there), `account`, `provider`, `window`; empty where
    it came to no attempt.
    """

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
    trouble: str = ""
    account: str = ""


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
    account: str = ""


class NoticeSuppressed(NoticeEvent):
    """Someone could have been told and was not, for `reason`."""

    TYPE: ClassVar[str] = "notice.suppressed.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {**_NOTICE, "reason": "automatic_message"}

    reason: str


class NoticeDeliveryReported(NoticeEvent):
    """What became of a notice after it was sent, as far as anybody tells: `delivered`, `read`, or `bounced`.

    `is_permanent`: it bounced for good, and nothing is sent to that address any more.
    """

    TYPE: ClassVar[str] = "notice.delivery_reported.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_NOTICE,
        "what": "bounced",
        "detail": "5.1.1",
        "is_permanent": True,
    }

    what: Literal["delivered", "read", "bounced"]
    detail: str = ""
    is_permanent: bool = False
    provider: str = ""
    account: str = ""


class NoticeResendDecided(NoticeEvent):
    """Somebody (`agent_id`) asked for a notice to be sent again, and it is (`resent`), or it is not (`refused`), for `reason`.

    `is_anew`: its words are made anew, and a `notice.requested` follows; else the same message goes again under the same key.
    What the earlier attempts may have done stays as it is: who asked answers for a second copy.
    """

    TYPE: ClassVar[str] = "notice.resend_decided.v1"
    TOPIC: ClassVar[str] = NOTIFICATIONS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_NOTICE,
        "command_id": "c-2f5d",
        "agent_id": "ada",
        "outcome": "resent",
    }

    command_id: Id
    agent_id: Id
    outcome: Literal["resent", "refused"]
    reason: str = ""
    is_anew: bool = False


AnyNoticeEvent = (
    NoticeRequested
    | NoticeDeferred
    | NoticeSent
    | NoticeFailed
    | NoticeUnknown
    | NoticeSuppressed
    | NoticeDeliveryReported
    | NoticeResendDecided
)
