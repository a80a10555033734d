"""Tidio: what customers write in tickets, by webhook (Plus and Premium plans).

Sources: Tidio's page on webhooks (header, envelope), two independent integrations that cite its page on signatures (the
formula), its OpenAPI as used by integrations (replying).

Verified: `x-tidio-signature: t=<seconds>,s=<hex>[,s=<hex>…]`, HMAC-SHA256 over the raw body, `_` and `t`; several `s` stand
there while a secret rotates, and one must be right. Other repositories use other formulas and look guessed; the formula
is believed. Tidio documents no window: 300 s is ours.

The text of live chats is not in webhooks, as far as seen; only tickets become messages, and what an API would give of a
chat has no documented shape, so it is not read. Topics are named differently in different places and are matched by their
beginnings. Nothing was tried against a live account.
"""

from collections.abc import Mapping
from datetime import datetime
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
    ParseError,
    Request,
    Verdict,
)

SIGNATURE: Final = "x-tidio-signature"
WINDOW_SECONDS: Final = 300
"""Our choice; Tidio documents none."""
SIGNATURES_MAX: Final = 10
"""Signatures looked at in one header; a rotation needs two."""


class TicketMessage(reading.Struct, frozen=True):
    """A message of a ticket."""

    message_id: str | None = None
    author_type: str | None = None
    author_id: str | None = None
    message_content: str | None = None
    message_type: str | None = None
    created_at: str | int | None = None


class Content(reading.Struct, frozen=True):
    """What an event is about."""

    id: str | int | None = None
    contact_id: str | None = None
    subject: str | None = None
    message: TicketMessage | None = None


class Event(reading.Struct, frozen=True):
    """The envelope of every topic."""

    topic: str
    webhook_id: str | None = None
    created_at: str | int | None = None
    content: Content | None = None


class _Named(reading.Struct, frozen=True):
    webhook_id: str | None = None


class Settings(ChannelSettings):
    """A project: `secret` is the webhook's signing secret; `own_ids` are the operators whose replies are our own."""


def _signatures(header: str) -> tuple[str, list[str]]:
    """Return the stamp and the signatures of a header `t=…,s=…,s=…`."""
    stamp = ""
    found: list[str] = []
    for part in header.split(",", SIGNATURES_MAX + 1)[: SIGNATURES_MAX + 1]:
        name, _, value = part.strip().partition("=")
        if name == "t" and not stamp:
            stamp = value
        elif name == "s" and value:
            found.append(value)
    return stamp, found


def signature_of(secret: bytes, body: bytes, stamp: str) -> str:
    """Return the signature of a body at a stamp: the one place that knows the formula."""
    return signing.hex_hmac(secret, body + b"_" + stamp.encode("utf-8", "surrogatepass"))


def _name(body: bytes) -> str | None:
    try:
        name = msgspec.json.decode(body, type=_Named).webhook_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # What is no event is refused by `parse`, with its reason.
    return name if name and len(name) <= reading.ID_LENGTH_MAX and name.isprintable() else None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether one of the signatures is right and its stamp fresh; the name is the signed `webhook_id`."""
    refused = signing.only(request, "POST")
    if refused is not None:
        return refused
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    header = request.headers.get(SIGNATURE, "").strip()
    if not header:
        return signing.refused("missing_signature")
    stamp, given = _signatures(header)
    is_right = False
    for one in given:
        is_right |= signing.signed_by_any(
            one, keys, lambda key: signature_of(key, request.body, stamp)
        )
    if not stamp or not is_right:
        return signing.refused("bad_signature")
    if not signing.is_fresh(stamp, now, WINDOW_SECONDS):
        return signing.refused("stale")
    return signing.proved(_name(request.body))


def _ignored(topic: str) -> str | None:
    """Return why a topic is no message, by its name alone; None where its message decides."""
    if topic.startswith("ticket."):
        if "internal_note" in topic:
            return "internal_note"
        return None if "repl" in topic or "message" in topic or "created" in topic else "status"
    if topic.startswith("conversation."):
        return "not_a_message"
    return "not_a_message" if topic.startswith("contact.") else "unknown_event"


def parse(delivery: Delivery) -> Parsed:
    """Read an event: a contact's reply inbound, an operator's outbound, notes and all else left out.

    Raises:
        ParseError: it is no event, or a message without its id or author.
    """
    event = reading.json_as(delivery.body, Event)
    ignored = _ignored(event.topic)
    message = event.content.message if event.content is not None else None
    if ignored is not None:
        return Parsed(ignored=ignored, verified=delivery.verified)
    if event.content is None or message is None:
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    if message.message_type == "internal":
        return Parsed(ignored="internal_note", verified=delivery.verified)
    text = reading.text_of(message.message_content)
    author = message.author_id or ""
    is_ours = message.author_type != "contact"
    if is_ours and author in delivery.settings.own_ids:
        return Parsed(ignored="echo", verified=delivery.verified)
    if not text or (is_ours and message.author_type != "operator"):
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    contact = event.content.contact_id or ("" if is_ours else author)
    if not contact:
        raise ParseError("invalid_field", "content.contact_id: is missing", "content.contact_id")
    customer = reading.identifier(contact, "content.contact_id")
    made = reading.content(
        delivery,
        reading.identifier(message.message_id, "content.message.message_id"),
        Sender(address=(author or "tidio") if is_ours else customer, kind="vendor_id"),
        text,
        text_new=text,
        occurred_at=message.created_at if message.created_at is not None else event.created_at,
        subject=event.content.subject or "",
        thread=reading.identifier(event.content.id, "content.id"),
        direction="outbound" if is_ours else "inbound",
        recipients=(customer,) if is_ours else (),
    )
    return Parsed((made,), verified=delivery.verified)


CHANNEL = Channel(
    name="tidio",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(can_reply=True, proof="HMAC-SHA256 over body and time"),
)
