"""Apple Messages for Business (formerly Business Chat), for companies that Apple has approved as a messaging provider.

Sources: Apple's Messages for Business pages (preconditions, `/message`, types, headers, authentication, status codes) and
public connectors (gzip bodies, routing by `destination-id`, `group` and `intent`, the mark of an attachment in a text).

Verified: `Authorization: Bearer` with a JWT signed HS256 with the *decoded* API secret; `aud` must be the provider's id
where `msp_id` is set (some audience must always be there), and `iat` no older than an hour (our bound; Apple's tokens have no `exp`). The token covers itself and
not the body, and there is no API to read a message back: TLS, the token and the destination are all the proof there is.
Apple's own rule for answers: 401 without a token, 403 for a wrong one (a stale one too), 404 for a destination that is not
ours, 400 for a body that cannot be read.

Bodies may be compressed (`Content-Encoding: gzip`); they are decompressed within a bound. Attachments lie encrypted at
Apple, and the link to them needs a signed request and a key: name, type and size are taken over, the file is not. An
interactive reply (a picker's choice) becomes a message with the reply's title, as far as the payload has one; large ones
come as a reference that expires and are named in `fields`. Believed and not confirmed: the shape of interactive replies,
whether Apple repeats a delivery. Nothing was tried against a live account: that needs Apple's approval.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from schemas.messages import Attachment, Sender
from services.ingest.adapters import jwt_proof, reading, signing
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

BODY_BYTES_MAX: Final = 2 * 1024 * 1024
"""Bytes of a decompressed body; Apple sends data beyond 10 kB as a reference."""
AGE_SECONDS_MAX: Final = 3_600.0
"""How old a token may be (our bound)."""
GZIP: Final = b"\x1f\x8b"
ATTACHMENT_MARK: Final = "\ufffc"
"""Stands in a text where an attachment was."""


class AppleAttachment(
    reading.Struct, frozen=True, rename={"mime_type": "mimeType", "dashed_type": "mime-type"}
):
    """A file, encrypted at Apple; the key that came with it is not taken over."""

    name: str | None = None
    mime_type: str | None = None
    dashed_type: str | None = None
    size: str | int | None = None


class Reference(reading.Struct, frozen=True, rename="camel"):
    """Interactive data too large for the message."""

    title: str | None = None
    bid: str | None = None


class ReplyMessage(reading.Struct, frozen=True, rename="camel"):
    """What an interactive message shows once it has been answered."""

    title: str | None = None
    subtitle: str | None = None


class InteractiveData(reading.Struct, frozen=True, rename="camel"):
    """The part of interactive data that people can read."""

    reply_message: ReplyMessage | None = None


class Interactive(reading.Struct, frozen=True, rename="camel"):
    """Interactive data."""

    bid: str | None = None
    data: InteractiveData | None = None


class Message(reading.Struct, frozen=True, rename="camel"):
    """What Apple posts."""

    type: str
    id: str | None = None
    source_id: str | None = None
    destination_id: str | None = None
    body: str | None = None
    locale: str | None = None
    group: str | None = None
    intent: str | None = None
    attachments: tuple[AppleAttachment, ...] | None = None
    interactive_data: Interactive | None = None
    interactive_data_ref: Reference | None = None


class Settings(ChannelSettings):
    """A business: `secret` is the provider's API secret, in base64 as Apple shows it."""

    msp_id: str | None = None
    """The provider's id, which the token must be meant for."""
    business_id: str | None = None
    """The business's id; deliveries to another destination are answered 404."""


def _decoded(secret: bytes) -> bytes:
    """Return the key inside the secret; empty where it is no base64, so that nothing is ever signed with it."""
    try:
        return base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        return b""


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether Apple's token is right, and the destination ours. The name is the message's id, which is unsigned."""
    refused = signing.only(request, "POST")
    if refused is not None:
        return refused
    keys = [key for key in map(_decoded, signing.secrets_of(secrets)) if key]
    if not keys:
        return signing.refused("no_secret")
    if not request.headers.get("authorization", "").strip():
        return signing.refused("missing_signature")
    claims = jwt_proof.check_hs256(
        jwt_proof.bearer(request.headers),
        keys,
        audience=secrets.get("msp_id") or secrets.get("audience") or None,
        now=now,
        age_max=AGE_SECONDS_MAX,
    )
    if isinstance(claims, str):
        return signing.refused("bad_signature" if claims == "missing_signature" else claims, 403)
    if not claims.get("aud"):
        # Tokens of ours for Apple are signed with the same key, and have `iss` in its place: they must not come back.
        return signing.refused("bad_token", 403)
    business = secrets.get("business_id", "")
    if business and not signing.same(business, request.headers.get("destination-id", "").strip()):
        return signing.refused("malformed", 404)
    name = request.headers.get("id", "").strip()
    is_name = name and name.isascii() and name.isprintable() and len(name) <= reading.ID_LENGTH_MAX
    return signing.proved(name if is_name else None)


def _plain(delivery: Delivery) -> bytes:
    """Return the body, decompressed where it is gzip; bounded, so that a small body cannot become a giant one.

    Raises:
        ParseError: it is damaged, has something behind its end, or is too large.
    """
    is_gzip = delivery.headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
    if not is_gzip and not delivery.body.startswith(GZIP):
        return delivery.body
    if not delivery.body.startswith(GZIP):
        return delivery.body  # Somebody on the way decompressed it and left the header.
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(delivery.body, BODY_BYTES_MAX + 1)
    except zlib.error:
        raise ParseError("invalid_gzip", "body: is damaged gzip", "body") from None
    if len(plain) > BODY_BYTES_MAX:
        raise ParseError("too_large", f"body: is more than {BODY_BYTES_MAX} bytes", "body")
    if not inflater.eof or inflater.unused_data:
        raise ParseError("invalid_gzip", "body: ends too early or too late", "body")
    return plain


def _files(message: Message) -> tuple[Attachment, ...]:
    return tuple(
        reading.attachment(file.name, file.mime_type or file.dashed_type, file.size or 0)
        for file in (message.attachments or ())[: reading.ATTACHMENTS_MAX]
    )


def _text(message: Message) -> str:
    text = reading.text_of((message.body or "").replace(ATTACHMENT_MARK, "")).strip()
    if text or message.type != "interactive":
        return text
    data = message.interactive_data.data if message.interactive_data is not None else None
    reply = (data.reply_message if data is not None else None) or ReplyMessage()
    lines = [line for line in (reply.title, reply.subtitle) if line]
    return reading.text_of("\n".join(lines))


def _fields(message: Message) -> dict[str, str]:
    reference = message.interactive_data_ref
    return {
        "group": message.group or "",
        "intent": message.intent or "",
        "interactive": "yes" if message.type == "interactive" else "",
        "interactive_reference": (reference.title or "without a title") if reference else "",
    }


def parse(delivery: Delivery) -> Parsed:
    """Read a message. Typing and closing are told by Apple as well, and are no messages.

    Raises:
        ParseError: it is damaged, too large, no message of Apple's, or lacks its id or sender.
    """
    message = reading.json_as(_plain(delivery), Message)
    if message.type in ("typing_start", "typing_end"):
        return Parsed(ignored="typing", verified=delivery.verified)
    if message.type == "close":
        return Parsed(ignored="closed", verified=delivery.verified)
    if message.type not in ("text", "interactive"):
        return Parsed(ignored="unknown_event", verified=delivery.verified)
    given: Mapping[str, Any] = delivery.headers
    source = reading.identifier(message.source_id or given.get("source-id"), "sourceId")
    destination = message.destination_id or given.get("destination-id") or ""
    if source in delivery.settings.own_ids or source == destination:
        return Parsed(ignored="echo", verified=delivery.verified)
    text, files = _text(message), _files(message)
    if not text and not files and message.type == "text":
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    made = reading.content(
        delivery,
        reading.identifier(message.id or given.get("id"), "id"),
        Sender(address=source, kind="vendor_id"),
        text,
        text_new=text,
        declared_language=message.locale,
        attachments=files,
        recipients=(destination,) if destination else (),
        thread=source,
        fields=_fields(message),
    )
    return Parsed((made,), verified=delivery.verified)


CHANNEL = Channel(
    name="apple_messages",
    parse=parse,
    settings=Settings,
    verify=verify,
    headers_kept=frozenset(
        {"id", "source-id", "destination-id", "capability-list", "content-encoding", "device-agent"}
    ),
    capability=Capability(
        can_reply=True, supports_attachments=True, proof="JWT (HS256), which covers no body"
    ),
)
