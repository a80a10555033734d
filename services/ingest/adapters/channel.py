"""What every channel's adapter is given and gives back.

An adapter module stands in this order: docstring with the source of its facts, limits, `parse`, and one `CHANNEL`.
`parse` is pure: a delivery in, messages or the reason for none out. It raises `ParseError`, and nothing else, for what
cannot be read.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from schemas.inbound import InboundReceived
from services.ingest.core.state import Parsed, ParseError

__all__ = ["Channel", "Delivery", "ParseError", "Parsed", "delivery_of"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery as it came: raw bytes, how they arrived, and what we know of ourselves there.

    `own_addresses` are our mailboxes, in lower case: what they send is ours and no customer's. `trusted_servers` are
    the names of receiving servers whose Authentication-Results count. Both may be empty (offline use).
    """

    channel: str
    account: str
    body: bytes
    received_at: datetime
    method: str = "POST"
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    verified: bool = False
    input_id: str = ""
    envelope_from: str | None = None
    envelope_to: tuple[str, ...] = ()
    own_addresses: frozenset[str] = frozenset()
    trusted_servers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel: its name in every event, and how its deliveries are read."""

    name: str
    parse: Callable[[Delivery], Parsed]


def delivery_of(
    received: InboundReceived,
    stored: bytes | None = None,
    *,
    own_addresses: frozenset[str] = frozenset(),
    trusted_servers: frozenset[str] = frozenset(),
) -> Delivery:
    """Return the delivery that an event tells of; `stored` is the body where the event only refers to it.

    Raises:
        ParseError: the body is no base64, or was stored apart and is not there any more.
    """
    if received.body_ref is not None:
        if stored is None:
            raise ParseError(
                "body_missing", f"the stored body {received.body_ref[:12]}… is gone", "body_ref"
            )
        body = stored
    else:
        try:
            body = base64.b64decode(received.body_base64, validate=True)
        except (binascii.Error, ValueError):
            raise ParseError("invalid_base64", "is not base64", "body_base64") from None
    return Delivery(
        channel=received.channel,
        account=received.account,
        body=body,
        received_at=received.received_at,
        method=received.method,
        url=received.url,
        headers=received.headers,
        verified=received.verified,
        input_id=received.input_id,
        envelope_from=received.envelope_from,
        envelope_to=received.envelope_to,
        own_addresses=own_addresses,
        trusted_servers=trusted_servers,
    )
