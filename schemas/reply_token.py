"""Signed reply tokens: how an answer to our mail finds its conversation, and how nobody else's does.

A token names a conversation and the day it was made, and carries a MAC over workspace, purpose, conversation, day and
the recipient's address. It stands in the local part of our Message-ID and of Reply-To. A reply joins a conversation
only if the MAC is right for an address that takes part in it; a ticket number in a subject proves nothing.
"""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

PURPOSE = b"signalbox reply v1"
EPOCH = date(2020, 1, 1)
LIFETIME = timedelta(days=365)
"""How long after our mail a reply to it is still believed."""

_MAC_BYTES = 10


@dataclass(frozen=True, slots=True)
class ReplyToken:
    """A token as read, not yet believed: which conversation, made on which day, with which MAC."""

    conversation_id: str
    made_on: date
    mac: bytes

    def is_for(self, secret: bytes, workspace: str, address: str, today: date) -> bool:
        """Whether the token was made for `address` and is not too old."""
        if not self.made_on <= today + timedelta(days=1) or today - self.made_on > LIFETIME:
            return False
        expected = _mac(secret, workspace, UUID(self.conversation_id), self.made_on, address)
        return hmac.compare_digest(expected, self.mac)


def _mac(secret: bytes, workspace: str, conversation: UUID, day: date, address: str) -> bytes:
    said = b"\0".join(
        [
            PURPOSE,
            workspace.encode(),
            conversation.bytes,
            str((day - EPOCH).days).encode(),
            address.strip().lower().encode(),
        ]
    )
    return hmac.new(secret, said, hashlib.sha256).digest()[:_MAC_BYTES]


def make(secret: bytes, workspace: str, conversation_id: str, address: str, now: datetime) -> str:
    """Return a token of 45 characters (lower case letters and digits) for a mail to `address`."""
    conversation = UUID(conversation_id)
    day = now.astimezone(UTC).date()
    raw = (
        conversation.bytes
        + (day - EPOCH).days.to_bytes(2, "big")
        + _mac(secret, workspace, conversation, day, address)
    )
    return base64.b32encode(raw).decode().rstrip("=").lower()


def read(text: str) -> ReplyToken | None:
    """Read a token; None where `text` is none. Nothing is believed yet: see `ReplyToken.is_for`."""
    if len(text) != 45 or not text.isascii():
        return None
    try:
        raw = base64.b32decode(text.upper() + "===")
    except (binascii.Error, ValueError):
        return None
    return ReplyToken(
        conversation_id=str(UUID(bytes=raw[:16])),
        made_on=EPOCH + timedelta(days=int.from_bytes(raw[16:18], "big")),
        mac=raw[18:],
    )


def message_id(token: str, notice_id: str, domain: str) -> str:
    """Return the Message-ID of our mail: `<sb.TOKEN.NOTICE@domain>`."""
    return f"<sb.{token}.{notice_id.replace('-', '')}@{domain}>"


def find_in_message_id(value: str) -> ReplyToken | None:
    """Read the token in one of our Message-IDs; None for anybody else's."""
    local = value.strip().strip("<>").partition("@")[0]
    parts = local.split(".")
    return read(parts[1]) if len(parts) == 3 and parts[0] == "sb" else None


def reply_address(address: str, token: str) -> str:
    """Return our address with the token in it: `support+sb.TOKEN@shop.example`."""
    local, _, domain = address.partition("@")
    return f"{local}+sb.{token}@{domain}"


def find_in_address(address: str) -> ReplyToken | None:
    """Read the token in an address made by `reply_address`; None for any other."""
    detail = address.partition("@")[0].partition("+")[2]
    return read(detail[3:]) if detail.startswith("sb.") else None
