"""Records set aside: why, with which bytes, and the way back.

A parked record is a row (`parked`) and an event on `dead-letters`, both in the batch's transaction. Its followers of
the same key go on and are marked (`afterparked`), never reordered. `signalbox deadletters replay` asks the task that
owns it to try again, in order with everything else it does.
"""

import base64
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from chassis.stage import Connection
from schemas import ids
from schemas.deadletters import DeadLetterParked

KEPT_BYTES_MAX = 600_000
"""Bytes of a value that a dead letter keeps: base64 makes four of three, and the event must fit into a record."""

ERROR_LENGTH_MAX = 500
STATE_KEY_LENGTH_MAX = 1_000
TOLD_KEY_BYTES_MAX = 4_096
"""Bytes of a record's key that the event tells of; the row has all of them."""


NO_TOPICS = frozenset({"tick", "revisit", "effect"})
"""What stands for a topic where an input that is no record was set aside: there is nothing to let back in."""


class Reason(StrEnum):
    """Why a record was parked."""

    UNREADABLE_RECORD = "unreadable_record"
    INVALID_ENVELOPE = "invalid_envelope"
    NO_SEQUENCE = "no_sequence"
    UNKNOWN_TYPE = "unknown_type"
    INVALID_PAYLOAD = "invalid_payload"
    UNPARSABLE_BODY = "unparsable_body"
    TOO_LARGE = "too_large"
    HANDLER_FAILED = "handler_failed"


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A record as it was found, and what was wrong with it."""

    id: str
    stage: str
    task: int
    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: bytes
    value: bytes | None
    is_cut: bool
    reason: str
    error: str
    state_key: str | None
    parked_at: datetime

    def to_event(self) -> DeadLetterParked:
        """Return the event that tells of it."""
        return DeadLetterParked(
            dead_letter_id=self.id,
            service=self.stage,
            task=self.task,
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            key_base64=base64.b64encode((self.key or b"")[:TOLD_KEY_BYTES_MAX]).decode(),
            value_base64=base64.b64encode(self.value or b"").decode(),
            is_cut=self.is_cut,
            reason=self.reason,
            error=self.error,
            parked_at=self.parked_at,
        )


def pack_headers(headers: Any) -> bytes:
    """Return Kafka headers as bytes that keep null values and any encoding."""
    return msgspec.json.encode(
        [
            [
                name if isinstance(name, str) else repr(name),
                None if value is None else base64.b64encode(value).decode(),
            ]
            for name, value in headers or ()
        ]
    )


def unpack_headers(raw: bytes) -> tuple[tuple[str, bytes | None], ...]:
    """Undo `pack_headers`."""
    return tuple(
        (name, None if value is None else base64.b64decode(value))
        for name, value in msgspec.json.decode(raw, type=list[tuple[str, str | None]])
    )


def pack_own_headers(headers: list[tuple[str, str]]) -> bytes:
    """Return headers that we made (`Envelope.to_text_headers`) as compact JSON for the outbox."""
    return msgspec.json.encode(headers)


_OWN_HEADERS = msgspec.json.Decoder(list[tuple[str, str]])


def unpack_own_headers(raw: bytes) -> list[tuple[str, bytes]]:
    """Undo `pack_own_headers`."""
    return [(name, value.encode()) for name, value in _OWN_HEADERS.decode(raw)]


def park(
    *,
    stage: str,
    task: int,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    headers: Any,
    value: bytes | None,
    reason: str,
    error: str,
    state_key: str | None,
    now: datetime,
    identity: str | None = None,
) -> ParkedRecord:
    """Make the parked form of a record; bytes over `KEPT_BYTES_MAX` are cut, and the offset says where the rest lies."""
    is_cut = value is not None and len(value) > KEPT_BYTES_MAX
    return ParkedRecord(
        id=ids.derive("parked", stage, identity)
        if identity is not None
        else ids.derive("parked", stage, topic, str(partition), str(offset)),
        stage=stage,
        task=task,
        topic=topic,
        partition=partition,
        offset=offset,
        key=key,
        headers=pack_headers(headers),
        value=value[:KEPT_BYTES_MAX] if is_cut and value is not None else value,
        is_cut=is_cut,
        reason=str(reason),
        error=_storable(error, ERROR_LENGTH_MAX),
        state_key=None if state_key is None else _storable(state_key, STATE_KEY_LENGTH_MAX),
        parked_at=now,
    )


def _storable(text: str, length: int) -> str:
    """Return text that a row and a header can hold, whatever a record said: no U+0000, valid UTF-8, short enough."""
    return text[:length].replace("\x00", "\ufffd").encode(errors="replace").decode()


def park_again(parked: ParkedRecord, reason: str, error: str, now: datetime) -> ParkedRecord:
    """Return a parked record whose replay failed: the same one, with what was wrong this time."""
    return replace(
        parked, reason=str(reason), error=_storable(error, ERROR_LENGTH_MAX), parked_at=now
    )


INSERT = """
INSERT INTO parked (id, stage, task, topic, part, log_offset, key, headers, value, is_cut, reason, error, state_key,
                    parked_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::int[], $6::bigint[], $7::bytea[], $8::bytea[],
                     $9::bytea[], $10::bool[], $11::text[], $12::text[], $13::text[], $14::timestamptz[])
ON CONFLICT (id) DO UPDATE
   SET attempts = parked.attempts + 1, reason = excluded.reason, error = excluded.error,
       replay_requested_at = NULL, resolved_at = NULL, resolution = NULL
"""


async def insert(connection: Connection, records: list[ParkedRecord]) -> None:
    """Write parked records; one that was replayed and failed again counts one attempt more."""
    unique = list({record.id: record for record in records}.values())
    await connection.execute(
        INSERT,
        [r.id for r in unique],
        [r.stage for r in unique],
        [r.task for r in unique],
        [r.topic for r in unique],
        [r.partition for r in unique],
        [r.offset for r in unique],
        [r.key for r in unique],
        [r.headers for r in unique],
        [r.value for r in unique],
        [r.is_cut for r in unique],
        [r.reason for r in unique],
        [r.error for r in unique],
        [r.state_key for r in unique],
        [r.parked_at for r in unique],
    )
