"""From a delivery to the spool: how an accepted input is named, keyed and stored.

The key keeps one correspondent's deliveries in order: channel, account and the address they came from. Bodies above
`INLINE_BYTES_MAX` are stored beside the event, by their SHA-256.
"""

import base64
import hashlib
import re
from datetime import datetime
from typing import Final, Protocol
from uuid import uuid4

from chassis.spool import PutResult, SpoolItem
from schemas import ids
from schemas.envelope import Envelope
from schemas.inbound import INLINE_BYTES_MAX, InboundReceived
from schemas.payload import Payload
from schemas.topics import BY_NAME, INBOUND
from services.ingest.core.policy import Channels

SOURCE: Final = "signalbox/ingest.gateway"
KEY_LENGTH_MAX: Final = 400

_TRACEPARENT: Final = re.compile(r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


class FrontDoor(Protocol):
    """Where accepted things are made durable; `chassis.spool.Spool` is one."""

    async def put(self, item: SpoolItem) -> PutResult:
        """Store an item; return when it is durable.

        Raises:
            Unavailable: nothing may be assumed; the sender asks again.
        """
        ...


class PolicySource(Protocol):
    """Something that has the accounts in force; `chassis.policy.PolicyHolder` is one."""

    current: Channels


def new_id() -> str:
    """Return a fresh name for an input that came without one."""
    return str(uuid4())


def digest(*parts: bytes) -> str:
    """Return the SHA-256 of what a request asks, in hex; each part's length counts too."""
    made = hashlib.sha256()
    for part in parts:
        made.update(len(part).to_bytes(8, "big") + part)
    return made.hexdigest()


def named_id(kind: str, workspace: str, name: str, body_digest: str) -> str:
    """Return the id of an input that its sender named: the same name and body, the same id."""
    return ids.derive(kind, workspace, name, body_digest)


def traceparent_of(value: str | None) -> str | None:
    """Return a W3C `traceparent` if it is one."""
    return value if value is not None and _TRACEPARENT.match(value) else None


def _envelope(
    event_type: str,
    event_id: str,
    key: str,
    workspace: str,
    correlation: str,
    at: datetime,
    traceparent: str | None,
) -> Envelope:
    return Envelope(
        type=event_type,
        source=SOURCE,
        id=event_id,
        time=at,
        workspace=workspace,
        partitionkey=key,
        correlationid=correlation,
        traceparent=traceparent,
    )


def correspondent_key(channel: str, account: str, address: str) -> str:
    """Return the partition key of one correspondent's deliveries."""
    return f"{channel}/{account}/{address.strip().lower()}"[:KEY_LENGTH_MAX]


def inbound_item(
    received: InboundReceived,
    body: bytes,
    address: str,
    workspace: str,
    *,
    idempotency: tuple[str, str] | None = None,
    traceparent: str | None = None,
    correlation: str | None = None,
) -> SpoolItem:
    """Return what to spool for a delivery; `received` comes without its body, which is put in or beside here.

    `correlation` is the story it belongs to, where that began with another input.
    """
    blob: tuple[str, bytes] | None = None
    if len(body) > INLINE_BYTES_MAX:
        reference = hashlib.sha256(body).hexdigest()
        blob = (reference, body)
        whole = received.model_copy(update={"body_ref": reference})
    else:
        whole = received.model_copy(update={"body_base64": base64.b64encode(body).decode()})
    key = correspondent_key(received.channel, received.account, address)
    return SpoolItem(
        topic=INBOUND,
        key=key,
        envelope=_envelope(
            InboundReceived.TYPE,
            received.input_id,
            key,
            workspace,
            correlation or received.input_id,
            received.received_at,
            traceparent,
        ),
        value=whole.to_json(),
        blob=blob,
        idempotency=idempotency,
        answer=received.input_id,
    )


def event_item(
    event: Payload,
    event_id: str,
    key: str,
    workspace: str,
    at: datetime,
    *,
    idempotency: tuple[str, str] | None = None,
    traceparent: str | None = None,
) -> SpoolItem:
    """Return what to spool for a command or a change of the roster; `key` is also its story."""
    return SpoolItem(
        topic=BY_NAME[event.TOPIC],
        key=key,
        envelope=_envelope(event.TYPE, event_id, key, workspace, key, at, traceparent),
        value=event.to_json(),
        idempotency=idempotency,
        answer=event_id,
    )
