"""`inbound`: what came in, as it came in, before anybody has made sense of it."""

from typing import Any, ClassVar

from schemas.payload import Field, Id, Instant, Payload
from schemas.topics import INBOUND


class InboundReceived(Payload):
    """One delivery of a channel, accepted and durable: raw bytes and how they arrived.

    `body_base64` holds the bytes unless they are larger than `INLINE_BYTES_MAX`; then `body_ref` names the stored copy
    (SHA-256 in hex) and `body_base64` is empty. `verified` tells whether the origin was proved (a signature, a secret),
    `input_id` is what the sender was given with the 2xx and what every account of losses is kept by.
    """

    TYPE: ClassVar[str] = "inbound.received.v1"
    TOPIC: ClassVar[str] = INBOUND.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "input_id": "0f0c6f1e-6a0b-5c7e-9a59-0c2b8b6d9e55",
        "channel": "form",
        "account": "contact",
        "method": "POST",
        "url": "/v1/forms/contact",
        "headers": {"content-type": "application/json"},
        "body_base64": "eyJlbWFpbCI6ImFkYUBleGFtcGxlLmNvbSIsIm1lc3NhZ2UiOiJXaGVyZSBpcyBteSBsYW1wPyJ9",
        "received_at": "2026-11-24T08:00:00Z",
        "verified": False,
    }

    input_id: Id
    channel: Id
    account: Id
    method: str = "POST"
    url: str = ""
    headers: dict[str, str] = Field(default_factory=dict)
    body_base64: str = ""
    body_ref: str | None = None
    received_at: Instant
    verified: bool = False
    envelope_from: str | None = None
    envelope_to: tuple[str, ...] = ()


INLINE_BYTES_MAX = 200_000
"""Bodies above this many bytes are stored beside the event and referred to."""
