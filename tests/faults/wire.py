"""Records that no client library would write: a Produce request made by hand.

Source of the outside facts: the Kafka protocol guide (record batch format, magic 2; Produce request, version 3).
"""

import socket
import struct
from collections.abc import Sequence

from aiokafka.record.util import calc_crc32c, encode_varint

RawHeaders = Sequence[tuple[bytes, bytes | None]]

_PRODUCE, _VERSION, _SECONDS = 0, 3, 10.0


def record_batch(
    key: bytes | None, value: bytes | None, headers: RawHeaders, timestamp_ms: int
) -> bytes:
    """Return a batch of one record, whose header keys may be any bytes."""
    body = bytearray(b"\x00")  # No attributes.

    def put(data: bytes | None) -> None:
        encode_varint(-1 if data is None else len(data), body.append)
        body.extend(data or b"")

    encode_varint(0, body.append)  # Timestamp delta.
    encode_varint(0, body.append)  # Offset delta.
    put(key)
    put(value)
    encode_varint(len(headers), body.append)
    for name, content in headers:
        put(name)
        put(content)
    record = bytearray()
    encode_varint(len(body), record.append)
    record += body
    no_producer = (-1, -1, -1)
    guarded = struct.pack(">hiqqqhii", 0, 0, timestamp_ms, timestamp_ms, *no_producer, 1)
    guarded += bytes(record)
    head = struct.pack(">ibI", -1, 2, calc_crc32c(guarded))
    return struct.pack(">qi", 0, len(head) + len(guarded)) + head + guarded


def publish_raw(
    bootstrap: str,
    topic: str,
    partition: int,
    *,
    key: bytes | None,
    value: bytes | None,
    headers: RawHeaders,
    timestamp_ms: int,
) -> int:
    """Append one record and return its offset.

    Raises:
        OSError: the broker does not answer, or refuses the record.
    """
    batch = record_batch(key, value, headers, timestamp_ms)
    name, client = topic.encode(), b"signalbox-raw"
    request = (
        struct.pack(">hhih", _PRODUCE, _VERSION, 1, len(client))
        + client
        + struct.pack(">hhi", -1, -1, int(_SECONDS * 1000))
        + struct.pack(">ih", 1, len(name))
        + name
        + struct.pack(">iii", 1, partition, len(batch))
        + batch
    )
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    with socket.create_connection((host, int(port)), _SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.makefile("rb")
        (length,) = struct.unpack(">i", answer.read(4))
        body = answer.read(length)
    at = 4 + 4 + 2 + len(name) + 4  # Correlation id, topics, the topic's name, partitions.
    _, error, offset = struct.unpack_from(">ihq", body, at)
    if error:
        raise OSError(f"the broker refused the record: error {error}")
    return int(offset)
