"""`messages`: what a person wrote (or a machine did in their name), whatever channel it came by."""

from typing import Any, ClassVar, Literal

from schemas.payload import Id, Instant, Part, Payload
from schemas.topics import MESSAGES

MessageKind = Literal[
    "message", "comment", "review", "call", "voicemail", "form", "bounce", "auto_reply"
]
Direction = Literal["inbound", "outbound"]
Visibility = Literal["public", "private"]


class Sender(Part):
    """Who wrote: the name they gave, the address it came from, and what kind of address that is."""

    name: str = ""
    address: str
    kind: Literal["email", "phone", "vendor_id", "none"] = "email"


class Attachment(Part):
    """A file that came along; the bytes stay with the raw delivery."""

    name: str
    media_type: str
    size: int


class Bounce(Part):
    """A report that our mail did not arrive: whose address, and the enhanced status code (RFC 3463)."""

    recipient: str | None
    status: str | None


class MessageContent(Part):
    """What a channel's adapter makes of a delivery; all that `signalbox normalize` prints of a message.

    `text` is all of it, `text_new` only what the writer added this time (no quotes, no signature). `language` is an
    ISO 639-1 code or None where nobody can tell. `references` are the ids of earlier messages, oldest first.
    """

    channel: Id
    account: Id
    vendor_message_id: Id
    direction: Direction = "inbound"
    kind: MessageKind = "message"
    visibility: Visibility = "public"
    sender: Sender
    recipients: tuple[str, ...] = ()
    subject: str = ""
    text: str = ""
    text_new: str = ""
    html: str | None = None
    language: str | None = None
    attachments: tuple[Attachment, ...] = ()
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    occurred_at: Instant
    is_automatic: bool = False
    automatic_reason: str | None = None
    bounce: Bounce | None = None


_CONTENT: dict[str, Any] = {
    "channel": "email",
    "account": "support",
    "vendor_message_id": "<CAF1@mail.example.com>",
    "direction": "inbound",
    "kind": "message",
    "visibility": "public",
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
