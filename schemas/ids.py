"""Derived identifiers: the same input always names the same things.

Every id below is a UUIDv5 (RFC 9562) of the facts that make the thing what it is, so that handling an input twice,
on another machine or after a crash, arrives at the same ids and the second time changes nothing.
"""

import base64
import hashlib
from uuid import NAMESPACE_URL, UUID, uuid5

NAMESPACE = uuid5(NAMESPACE_URL, "https://signalbox.example/ids")
"""Root of all derived ids. Changing it renames everything that was ever stored."""

_NAMESPACE_BYTES = NAMESPACE.bytes


def derive(*parts: str) -> str:
    """Return the UUIDv5 of `parts` (at least one), joined so that no two different lists collide.

    The separator (U+001F) within a part is escaped by U+001E, and U+001E by itself: parts may come from outside.
    """
    # What `uuid.uuid5` does, without the object: this runs once for every event.
    name = "\x1f".join(
        [_escaped(part) if "\x1e" in part or "\x1f" in part else part for part in parts]
    )
    digest = hashlib.sha1(_NAMESPACE_BYTES + name.encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"


def _escaped(part: str) -> str:
    return part.replace("\x1e", "\x1e\x1e").replace("\x1f", "\x1e\x1f")


def message_id(workspace: str, channel: str, account: str, vendor_message_id: str) -> str:
    """Name a customer's message by where it came from and what the vendor calls it."""
    return derive("message", workspace, channel, account, vendor_message_id)


def conversation_id(first_message_id: str) -> str:
    """Name a conversation by the message that began it."""
    return derive("conversation", first_message_id)


def customer_id(workspace: str, address_kind: str, address: str) -> str:
    """Name a customer by the first address they were seen under."""
    return derive("customer", workspace, address_kind, address)


def ticket_id(conversation: str, number: int) -> str:
    """Name the `number`-th case (from 1) within a conversation."""
    return derive("ticket", conversation, str(number))


def event_id(stage: str, cause: str, index: int, event_type: str) -> str:
    """Name an emitted event by its cause and its place among that cause's events, never by a counter or a clock."""
    return derive("event", stage, cause, str(index), event_type)


def ticket_reference(ticket: str) -> str:
    """Return the short name people read aloud, such as `SB-4K7TQ2M`: 35 bits of the id in base 32."""
    digest = hashlib.sha256(UUID(ticket).bytes).digest()
    return "SB-" + base64.b32encode(digest[:5]).decode().rstrip("=")[:7]
