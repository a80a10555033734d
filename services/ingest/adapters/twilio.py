"""Twilio's signature, fields and answers, shared by `twilio_sms` and `twilio_voice`.

Sources: Twilio's page on securing webhooks and its Python helper library (`RequestValidator`), whose rules are followed:
`X-Twilio-Signature` is base64 of HMAC-SHA1, keyed with the account's auth token, over the whole address followed by every
form field's name and value, sorted by name, a name's values without repeats and sorted. The address counts with and
without its default port. A body that is no form is covered by its SHA-256 in the address (`bodySHA256`), and only the
address is signed. No time is signed, so an old request can be sent again; the message's id makes that a duplicate.

The address must be the one that Twilio called. Behind a proxy set the gateway's public address, or `public_url` of the
account.
"""

import hmac
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qs, parse_qsl, urlsplit, urlunsplit

from pydantic import Field

from services.ingest.adapters import reading, signing
from services.ingest.adapters.channel import (
    Answer,
    ChannelSettings,
    ParseError,
    Request,
    SecretReference,
    Verdict,
)

SIGNATURE: Final = "x-twilio-signature"
BODY_HASH: Final = "bodySHA256"
PAIRS_MAX: Final = 500
"""Fields of a form; Twilio sends some thirty."""
PORTS: Final = {"https": 443, "http": 80}
MEDIA_TYPES: Final = frozenset({"application/x-www-form-urlencoded", "application/json"})
XML: Final = {"Content-Type": "text/xml; charset=utf-8"}
SILENCE: Final = Answer(200, XML, '<?xml version="1.0" encoding="UTF-8"?><Response/>')
"""TwiML that says and does nothing: a message is not answered, a call ends."""


class Settings(ChannelSettings):
    """A Twilio account. `secret` is its auth token, `previous_secret` the one before while it rotates.

    `public_url` is scheme and host that Twilio calls (`https://hooks.example.com`), where that is not the gateway's own.
    `account_sid` with the auth token reads calls through the API; `api_url` is where that is.
    """

    secret: SecretReference | None = None
    public_url: str = Field(default="", pattern=r"^(?:https?://[^/\s]+)?$")
    account_sid: str = Field(default="", pattern=r"^(?:AC[0-9a-fA-F]{32})?$")
    api_url: str = "https://api.twilio.com"


def fields_of(body: bytes) -> dict[str, str]:
    """Return a form's fields; empty where the body is JSON, which no webhook of these channels is.

    Raises:
        ParseError: it is not UTF-8, or has too many fields.
    """
    return {} if body.lstrip()[:1] in (b"{", b"[") else reading.form_of(body)


def verify(request: Request, secrets: Mapping[str, str]) -> Verdict:
    """Prove the signature over address and fields. A right one answers silence; its name is left to the channel."""
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    given = request.headers.get(SIGNATURE, "").strip()
    if not given:
        return signing.refused("missing_signature")
    address = called(request, secrets.get("public_url", ""))
    said = [_bytes(one) + _signed_fields(request.body) for one in _addresses(address)]
    if _hashes_body(request):
        said += [_bytes(one) for one in _addresses(address)]
    is_right = any(_is_signed(given, keys, text) for text in said)
    return signing.proved(answer=SILENCE) if is_right else signing.refused("bad_signature")


def _is_signed(given: str, keys: list[bytes], said: bytes) -> bool:
    return signing.signed_by_any(given, keys, lambda key: signing.base64_hmac(key, said, "sha1"))


def called(request: Request, public_url: str) -> str:
    """Return the address as Twilio called it, without a fragment, which is not signed."""
    address = request.url.partition("#")[0]
    if not public_url:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    return public_url.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _addresses(address: str) -> list[str]:
    """Return the address as it is, without its port, and with the default one: Twilio signs one of them."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return [address]
    if not host:
        return [address]
    user, at, rest = parts.netloc.rpartition("@")
    bare = rest if port is None else rest.rpartition(":")[0]
    named = port if port is not None else PORTS.get(parts.scheme)
    made = [address, urlunsplit(parts._replace(netloc=f"{user}{at}{bare}"))]
    if named is not None:
        made.append(urlunsplit(parts._replace(netloc=f"{user}{at}{bare}:{named}")))
    return list(dict.fromkeys(made))


def _signed_fields(body: bytes) -> bytes:
    """Return every field's name and value as Twilio joins them. What is no form is left as one name."""
    try:
        pairs = parse_qsl(
            body.decode("utf-8", "surrogateescape"),
            keep_blank_values=True,
            max_num_fields=PAIRS_MAX,
            errors="surrogateescape",
        )
    except ValueError:
        return body
    unique = sorted({(name, value) for name, value in pairs})
    return "".join(name + value for name, value in unique).encode("utf-8", "surrogateescape")


def _hashes_body(request: Request) -> bool:
    """Whether the address carries the body's own SHA-256, so that signing the address covers it."""
    try:
        query = parse_qs(urlsplit(request.url).query, max_num_fields=200)
    except ValueError:
        return False
    given = query.get(BODY_HASH, [""])[0].lower()
    return bool(given) and hmac.compare_digest(
        given.encode("utf-8", "surrogatepass"), signing.sha256_hex(request.body).encode()
    )


def instant(value: str | None) -> object:
    """Return a time of RFC 2822, as Twilio writes it, for `reading.instant`; other styles as they came."""
    if not value:
        return None
    try:
        at = parsedate_to_datetime(value[:100])
    except (ValueError, TypeError, IndexError, OverflowError):
        return value
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def required(fields: Mapping[str, str], *names: str) -> str:
    """Return the first of these fields that is there, as an id.

    Raises:
        ParseError: none is there; the first is named.
    """
    for name in names:
        if fields.get(name):
            return reading.identifier(fields[name], name)
    raise ParseError("invalid_field", f"{names[0]}: is missing", names[0])
