"""Hootsuite Inbox 2.0 (formerly Sparkcentral): a virtual agent's webhooks, the one way its customers' messages get out.

Facts from Hootsuite's Inbox 2.0 API documentation (events, shared secret, answers) and its help page on connecting a bot.
Hootsuite's platform webhooks tell of publishing only and bring no customer's message; they are not taken here.

Proved: HMAC-SHA256 over the raw body in `X-Hootsuite-Signature`, in hex. The key is the secret's *decoded* hex, not its
text. The body's own `timestamp` must be within five minutes, as Hootsuite advises; a body without one is refused, since
its age cannot be told.

Messages come only while the conversation is assigned to our virtual agent, and private conversations only. Of a contact
nothing but the id is documented, of attachments nothing at all: a message of pictures only has an empty text and leads to
the inbox. Whether and how often a delivery is repeated is not documented; a message's id tells a repeat. Whether
`CONVERSATION_STARTED` and `CONVERSATION_DELEGATED` carry the message they began with is not documented either: where one
does, it is read, and its id keeps it from counting twice.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

import msgspec

from schemas.messages import Sender
from services.ingest.adapters import reading, signing
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    Request,
    Verdict,
    settings_of,
)
from services.ingest.adapters.reading import Struct
from services.ingest.core.normalise import clean_value

SIGNATURE_HEADER: Final = "x-hootsuite-signature"
WINDOW_SECONDS: Final = 300
"""How old a body's `timestamp` may be (Hootsuite's advice)."""
CONTACT_SECONDS_MAX: Final = 23 * 3600
"""The longest a contact may stay silent before Hootsuite hands the conversation on, and our answer is refused."""

MESSAGE_EVENTS: Final = frozenset(
    {"INBOUND_MESSAGE_RECEIVED", "CONVERSATION_STARTED", "CONVERSATION_DELEGATED"}
)

Id = int | str | None


class Message(Struct, frozen=True, rename="camel"):
    """What the contact wrote."""

    message_id: Id = None
    text: str | None = None


class Inbox(Struct, frozen=True):
    """The connected account the conversation came by."""

    id: Id = None
    name: str | None = None


class Contact(Struct, frozen=True):
    """Who wrote; Hootsuite tells no more than an id."""

    id: Id = None


class Data(Struct, frozen=True, rename="camel"):
    """What an event is about."""

    conversation_id: Id = None
    message: Message | None = None
    conversation_topics: tuple[str, ...] | None = None
    channel: Inbox | None = None
    contact_profile: Contact | None = None


class Event(Struct, frozen=True):
    """The body of a delivery."""

    type: str
    timestamp: int | str | None = None
    data: Data | None = None


class Stamp(Struct, frozen=True):
    """The part of a body that says how old it is."""

    timestamp: int | str | None = None


class Settings(ChannelSettings):
    """A virtual agent of Hootsuite Inbox 2.0. `secret` is its shared secret, in hex as it was entered there.

    `own_ids` are contact profile ids of ours (test contacts): what they write is left out.
    """


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove a delivery: HMAC-SHA256 in hex with the hex-decoded secret, and a `timestamp` of the last five minutes.

    A secret that is no hex is as good as none (`no_secret`).
    """
    if (wrong := signing.only(request, "POST")) is not None:
        return wrong
    keys = [key for key in map(_decoded, signing.secrets_of(secrets)) if key]
    if not keys:
        return signing.refused("no_secret")
    given = request.headers.get(SIGNATURE_HEADER, "").strip().lower()
    if not given:
        return signing.refused("missing_signature")
    if not signing.signed_by_any(given, keys, lambda key: signing.hex_hmac(key, request.body)):
        return signing.refused("bad_signature")
    if not _is_fresh(request.body, now):
        return signing.refused("stale")
    return signing.proved()


def _decoded(secret: bytes) -> bytes:
    try:
        return bytes.fromhex(secret.decode("ascii").strip())
    except ValueError:
        return b""


def _is_fresh(body: bytes, now: datetime) -> bool:
    try:
        stamp = msgspec.json.decode(body, type=Stamp, strict=False).timestamp
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    # What is missing, unreadable or further ahead than the window is read as a day old.
    long_ago = now - reading.FUTURE_MAX + timedelta(seconds=WINDOW_SECONDS)
    return abs((now - reading.instant(stamp, long_ago)).total_seconds()) <= WINDOW_SECONDS


def parse(delivery: Delivery) -> Parsed:
    """Read an event of a virtual agent.

    Raises:
        ParseError: no JSON, or not of that shape.
    """
    event = reading.json_as(delivery.body, Event)
    if event.type not in MESSAGE_EVENTS:
        return Parsed(ignored="unknown_event", verified=delivery.verified)
    data = event.data or Data()
    said = data.message
    if said is None or said.message_id is None:
        if event.type == "INBOUND_MESSAGE_RECEIVED":
            reading.identifier(None, "data.message.messageId")
        return Parsed(ignored="status", verified=delivery.verified)
    conversation = reading.identifier(data.conversation_id, "data.conversationId")
    contact = data.contact_profile.id if data.contact_profile else None
    # A private conversation is one contact's, so its id stands for a contact that was not told.
    who = reading.identifier(conversation if contact is None else contact, "data.contactProfile.id")
    if who in settings_of(delivery, Settings).own_ids:
        return Parsed(ignored="echo", verified=delivery.verified)
    inbox = data.channel or Inbox()
    text = said.text or ""
    message = reading.content(
        delivery,
        reading.identifier(said.message_id, "data.message.messageId"),
        Sender(address=who, kind="vendor_id"),
        text,
        text_new=text,
        thread=conversation,
        recipients=(clean_value(str(inbox.id)),) if inbox.id is not None else (),
        occurred_at=event.timestamp,
        fields={
            "inbox": inbox.name or "",
            "topics": ", ".join(data.conversation_topics or ()),
        },
    )
    return Parsed((message,), verified=delivery.verified)


CHANNEL = Channel(
    name="hootsuite",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(
        can_reply=True,
        reply_window_seconds=CONTACT_SECONDS_MAX,
        proof="HMAC-SHA256 over the body",
    ),
)
