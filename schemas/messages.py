"""`messages`: what a person wrote (or a machine did in their name), whatever channel it came by."""

from typing import Any, ClassVar, Literal

from schemas.customers import CustomerContext
from schemas.payload import Field, Id, Instant, Part, Payload
from schemas.topics import MESSAGES

MessageKind = Literal[
    "message",
    "comment",
    "review",
    "call",
    "voicemail",
    "callback",
    "form",
    "bounce",
    "auto_reply",
]
"""What it is: a written message (mail, chat, direct message, post), a comment or review for all to read, a call, a
recorded message, a request to be called back, a form, or what a machine sent."""

Direction = Literal["inbound", "outbound"]
"""`outbound`: our side wrote it by the vendor's own means, and the channel told us so."""

Visibility = Literal["public", "private"]
"""`public`: anybody may read it (a review, a comment, a post). `private`: between the customer and us."""

Change = Literal["new", "edited", "deleted"]
CallOutcome = Literal["answered", "missed", "voicemail", "busy", "failed", "abandoned", "unknown"]

DeliveryWord = Literal["delivered", "read", "bounced"]
"""What became of a message of ours: it arrived, it was read, or it did not arrive."""


class Sender(Part):
    """Who wrote: the name they gave, the address it came from, and what kind of address that is."""

    name: str = ""
    address: str
    kind: Literal["email", "phone", "vendor_id", "none"] = "email"


class Attachment(Part):
    """A file that came along. `size` is in bytes, 0 where the channel did not say.

    `url` is where the vendor keeps it, `sha256` names our own stored copy, `refused` why there is none.
    """

    name: str
    media_type: str
    size: int = 0
    url: str | None = None
    sha256: str | None = None
    refused: str | None = None


class Call(Part):
    """What is known of a call. `duration_seconds` is talk time where the vendor parts it from ringing.

    `direction` is the call's own: we may have called the customer. `recording_url` needs the vendor's credentials.
    """

    direction: Direction = "inbound"
    outcome: CallOutcome = "unknown"
    duration_seconds: int | None = None
    recording_url: str | None = None
    transcript: str | None = None


class Review(Part):
    """A review's verdict: `rating` of `rating_max` stars."""

    rating: float | None = None
    rating_max: int = 5


class Bounce(Part):
    """A report that our mail did not arrive: whose address, and the enhanced status code (RFC 3463)."""

    recipient: str | None
    status: str | None


class MessageContent(Part):
    """What a channel's adapter makes of a delivery; all that `signalbox normalize` prints of a message.

    `text` is all of it, `text_new` only what the writer added this time (no quotes, no signature). `language` is an
    ISO 639-1 code or None where nobody can tell. `references` are the ids of earlier messages, oldest first. `thread`
    is the vendor's name for the thread it stands in, where it has one. `change` tells news from an edit or a removal of
    the message of that `vendor_message_id`. `url` leads people to it, `fields` holds what the channel knows besides (an
    order's number, the page a form stood on).
    """

    channel: Id
    account: Id
    vendor_message_id: Id
    direction: Direction = "inbound"
    kind: MessageKind = "message"
    visibility: Visibility = "private"
    change: Change = "new"
    sender: Sender
    recipients: tuple[str, ...] = ()
    subject: str = ""
    text: str = ""
    text_new: str = ""
    html: str | None = None
    language: str | None = None
    attachments: tuple[Attachment, ...] = ()
    thread: str | None = None
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    occurred_at: Instant
    is_automatic: bool = False
    automatic_reason: str | None = None
    bounce: Bounce | None = None
    call: Call | None = None
    review: Review | None = None
    url: str | None = None
    fields: dict[str, str] = Field(default_factory=dict)


_CONTENT: dict[str, Any] = {
    "channel": "email",
    "account": "support",
    "vendor_message_id": "<CAF1@mail.example.com>",
    "direction": "inbound",
    "kind": "message",
    "visibility": "private",
    "sender": {"name": "Ada Lovelace", "address": "ada@example.com", "kind": "email"},
    "recipients": ["support@lantern-oak.example"],
    "subject": "My lamp never arrived",
    "text": "Where is order 1001?",
    "text_new": "Where is order 1001?",
    "language": "en",
    "occurred_at": "2026-11-24T08:00:00Z",
}


class MessageReceived(Payload):
    """A customer's message with its place: the person behind it and the conversation it belongs to.

    `verified` tells whether the channel proved the sender; `suspicion` says in words why a message that claims to belong
    to a conversation was not believed, or was joined with care. `input_id` names the delivery it came from.
    `origin_customer_id` is the customer whose address it came from, before any merge; missing where it is the same.
    `context` is what is known of the customer besides.
    """

    TYPE: ClassVar[str] = "message.received.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "message_id": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "input_id": "0f0c6f1e-6a0b-5c7e-9a59-0c2b8b6d9e55",
        "content": _CONTENT,
        "verified": False,
    }

    message_id: Id
    conversation_id: Id
    customer_id: Id
    input_id: Id
    content: MessageContent
    verified: bool = False
    suspicion: str | None = None
    received_at: Instant | None = None
    origin_customer_id: Id | None = None
    context: CustomerContext | None = None


class MessageRevised(Payload):
    """A message was edited or removed by its writer, at the channel; `content.change` says which.

    `message_id` is the one of the message as first received. An edit's content is the whole new text; a removal's holds
    no text.
    """

    TYPE: ClassVar[str] = "message.revised.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "message_id": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
        "customer_id": "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11",
        "input_id": "0f0c6f1e-6a0b-5c7e-9a59-0c2b8b6d9e56",
        "content": {**_CONTENT, "change": "edited", "text": "Where is order 1002?"},
        "verified": False,
    }

    message_id: Id
    conversation_id: Id
    customer_id: Id
    input_id: Id
    content: MessageContent
    verified: bool = False
    received_at: Instant | None = None


class MessageDeliveryReported(Payload):
    """A vendor, or a mail server, says what became of a message of ours.

    `vendor_message_id` is what the provider called the message when it took it (a Message-ID in its brackets, a message's
    SID). `detail` is the reason's code where it bounced: an enhanced status code (RFC 3463) for mail, the vendor's own
    otherwise. `is_permanent` says that the address itself is the reason, so that another message to it would fare alike.
    `conversation_id` is missing where the report does not lead to one. `input_id` names the delivery it came with.
    """

    TYPE: ClassVar[str] = "message.delivery_reported.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "vendor_message_id": "SM00000000000000000000000000000042",
        "channel": "twilio_sms",
        "account": "sms",
        "what": "bounced",
        "detail": "30005",
        "is_permanent": True,
        "occurred_at": "2026-11-24T08:00:09Z",
        "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
        "input_id": "0f0c6f1e-6a0b-5c7e-9a59-0c2b8b6d9e57",
    }

    vendor_message_id: Id
    channel: Id
    account: Id
    what: DeliveryWord
    detail: str = ""
    is_permanent: bool = False
    occurred_at: Instant
    conversation_id: Id | None = None
    input_id: Id
