"""Signed links: what a customer may do by following one, sealed so that nobody makes, changes or reads it.

A token says what it is for (a survey's score, a category to opt out of), about whom, in which language, since when and
for how long. It is encrypted under its own MAC, as a synthetic initialisation vector (the construction of RFC 5297, with
HMAC-SHA256): the same link is always the same text, a changed one opens to nothing, and the text tells a proxy's log
nothing. A right token proves that its bearer has the link and no more: use must be harmless however often it is repeated.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, get_args
from uuid import UUID

from schemas.feedback import SCALES, SurveyKind
from schemas.notifications import Category

PURPOSE: Final = b"signalbox link v1"
TOKEN_LENGTH: Final = 78
SURVEY_LIFETIME: Final = timedelta(days=180)
"""How long an answer to a survey is taken; late ones are marked."""

WISH_LIFETIME: Final = timedelta(days=1_095)
"""How long a link out of a kind of notices works: mails are kept for years, and a wish to hear no more is never wrong."""

LANGUAGES: Final = ("en", "tr", "ru")
"""The languages of the pages behind the links."""

Refusal = Literal["malformed", "forged", "expired"]

_MAC_BYTES: Final = 16
_FIELDS: Final = struct.Struct(">BBBBIH16s16s")
_VERSION: Final = 1
_NO_SCORE: Final = 255
_KINDS: Final[tuple[SurveyKind, ...]] = get_args(SurveyKind)
_CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)
_WISH: Final = 100
"""The purpose of a link out of a category; surveys are numbered from 1."""

_SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class SurveyLink:
    """Answers a ticket's survey; `score` is the one that the link stands for, None where it asks first."""

    conversation_id: str
    ticket_id: str
    kind: SurveyKind
    score: int | None
    language: str
    made_at: datetime
    lifetime: timedelta = SURVEY_LIFETIME


@dataclass(frozen=True, slots=True)
class WishLink:
    """Lets a recipient (named by a UUID, never by an address) choose about a category of notices."""

    conversation_id: str
    recipient: str
    category: Category
    language: str
    made_at: datetime
    lifetime: timedelta = WISH_LIFETIME


Link = SurveyLink | WishLink


class LinkRefused(ValueError):
    """A token that opens nothing. `reason` says why; the text never repeats the token."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason: Refusal = reason


@lru_cache(maxsize=8)
def _keys(secret: bytes, workspace: str) -> tuple[bytes, bytes]:
    """Return the key that signs and the key that hides; each of an installation's workspaces has its own."""
    said = PURPOSE + b"\0" + workspace.encode() + b"\0"
    return (
        hmac.new(secret, said + b"sign", hashlib.sha256).digest(),
        hmac.new(secret, said + b"hide", hashlib.sha256).digest(),
    )


def _hidden(key: bytes, mac: bytes, text: bytes) -> bytes:
    """Put the key stream that belongs to `mac` over a text, or take it off: the two are one."""
    stream = b"".join(
        hmac.new(key, mac + bytes([block]), hashlib.sha256).digest() for block in range(2)
    )
    return bytes(a ^ b for a, b in zip(text, stream, strict=False))


def _said(link: Link) -> tuple[int, int, str]:
    """Return purpose, value and subject of a link."""
    if isinstance(link, WishLink):
        return _WISH, _CATEGORIES.index(link.category), link.recipient
    if link.score is None:
        return _KINDS.index(link.kind) + 1, _NO_SCORE, link.ticket_id
    scale = SCALES[link.kind]
    if not scale.least <= link.score <= scale.most:
        raise ValueError(f"score: {link.kind} goes from {scale.least} to {scale.most}")
    return _KINDS.index(link.kind) + 1, link.score, link.ticket_id


def make(secret: bytes, workspace: str, link: Link) -> str:
    """Return the token of a link: 78 characters that need no escaping in an address.

    Raises:
        ValueError: an id is no UUID, or a score is none of the survey's.
    """
    purpose, value, subject = _said(link)
    language = LANGUAGES.index(link.language) if link.language in LANGUAGES else 0
    text = _FIELDS.pack(
        _VERSION,
        purpose,
        value,
        language,
        int(link.made_at.timestamp()),
        link.lifetime.days,
        UUID(link.conversation_id).bytes,
        UUID(subject).bytes,
    )
    signing, hiding = _keys(secret, workspace)
    mac = hmac.new(signing, text, hashlib.sha256).digest()[:_MAC_BYTES]
    return base64.urlsafe_b64encode(mac + _hidden(hiding, mac, text)).decode().rstrip("=")


def read(secret: bytes, workspace: str, token: str, now: datetime) -> Link:
    """Open a token.

    Raises:
        LinkRefused: it is none, was not made with this secret for this workspace, or its time is over.
    """
    if len(token) != TOKEN_LENGTH or not token.isascii():
        raise LinkRefused("malformed")
    try:
        raw = base64.b64decode(token + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise LinkRefused("malformed") from None
    # The last character has bits to spare: one link has one text.
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != token:
        raise LinkRefused("malformed")
    signing, hiding = _keys(secret, workspace)
    mac = raw[:_MAC_BYTES]
    text = _hidden(hiding, mac, raw[_MAC_BYTES:])
    expected = hmac.new(signing, text, hashlib.sha256).digest()[:_MAC_BYTES]
    if not hmac.compare_digest(expected, mac):
        raise LinkRefused("forged")
    version, purpose, value, language, made, days, conversation, subject = _FIELDS.unpack(text)
    if version != _VERSION:
        raise LinkRefused("malformed")
    made_at, lifetime = datetime.fromtimestamp(made, UTC), timedelta(days=days)
    if not made_at - _SKEW <= now < made_at + lifetime:
        raise LinkRefused("expired")
    spoken = LANGUAGES[language] if language < len(LANGUAGES) else LANGUAGES[0]
    where, about = str(UUID(bytes=conversation)), str(UUID(bytes=subject))
    if purpose == _WISH:
        return WishLink(where, about, _CATEGORIES[value], spoken, made_at, lifetime)
    score = None if value == _NO_SCORE else value
    return SurveyLink(where, about, _KINDS[purpose - 1], score, spoken, made_at, lifetime)
