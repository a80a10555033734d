"""The envelope of every event: CloudEvents 1.0 attributes, ours among them, and the Kafka binding.

Source of the outside facts: the CloudEvents specification 1.0.2 and its Kafka protocol binding 1.0.2 (binary mode:
attributes travel as headers prefixed `ce_`, `datacontenttype` as `content-type`; structured mode: the whole event is
the value, with content type `application/cloudevents+json`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

SPEC_VERSION = "1.0"
CONTENT_TYPE = "application/json"
STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"
OWN_SOURCE_PREFIX = "signalbox/"
"""Sources that begin so are ours: their events must carry a `sequence`."""

Headers = tuple[tuple[str, bytes], ...]


class EnvelopeError(ValueError):
    """A record does not carry a readable envelope. `field` names the attribute, `problem` says what is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who says what about whom, when, and because of what.

    `type` names the fact and its version (`ticket.opened.v1`); `source` the writer, with its task; `id` stays the same
    over retries; `time` is when it happened; `partitionkey` decides the partition; `correlationid` is the whole
    story (the conversation), `causationid` the id of the event before; `sequence` counts without gaps per
    (source, topic, partition) and is absent only on events that foreign systems publish; `afterparked` is set to a
    dead letter's id where an earlier record of the same key was parked before this one was handled.
    """

    type: str
    source: str
    id: str
    time: datetime
    subject: str | None = None
    workspace: str = "default"
    partitionkey: str = ""
    correlationid: str = ""
    causationid: str = ""
    traceparent: str | None = None
    sequence: int | None = None
    afterparked: str | None = None

    def to_headers(self) -> Headers:
        """Return the Kafka headers of binary mode, in a fixed order."""
        pairs: list[tuple[str, bytes]] = [
            ("ce_specversion", b"1.0"),
            ("ce_type", self.type.encode()),
            ("ce_source", self.source.encode()),
            ("ce_id", self.id.encode()),
            ("ce_time", format_time(self.time).encode()),
            ("content-type", b"application/json"),
            ("ce_workspace", self.workspace.encode()),
            ("ce_partitionkey", self.partitionkey.encode()),
            ("ce_correlationid", self.correlationid.encode()),
            ("ce_causationid", self.causationid.encode()),
        ]
        if self.subject is not None:
            pairs.append(("ce_subject", self.subject.encode()))
        if self.traceparent is not None:
            pairs.append(("ce_traceparent", self.traceparent.encode()))
        if self.sequence is not None:
            pairs.append(("ce_sequence", str(self.sequence).encode()))
        if self.afterparked is not None:
            pairs.append(("ce_afterparked", self.afterparked.encode()))
        return tuple(pairs)


def format_time(at: datetime) -> str:
    """Return `at` as RFC 3339 in UTC, as precise as it is."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def parse_time(text: str, field: str = "time") -> datetime:
    """Read an RFC 3339 instant; a missing offset is refused, since nobody can know what it meant."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise EnvelopeError(field, "not an RFC 3339 instant") from None
    if at.tzinfo is None:
        raise EnvelopeError(field, "has no offset from UTC")
    return at.astimezone(UTC)


def _decoded(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        if not (name.startswith("ce_") or name == "content-type") or value is None:
            continue  # Foreign headers, and null ones, are legal Kafka and none of our business.
        try:
            found[name.removeprefix("ce_")] = value.decode("utf-8")
        except UnicodeDecodeError:
            raise EnvelopeError(name, "is not UTF-8") from None
    return found


def _envelope_of(attributes: Mapping[str, Any]) -> Envelope:
    def required(name: str) -> str:
        value = attributes.get(name)
        if not isinstance(value, str) or not value:
            raise EnvelopeError(name, "is missing or empty")
        return value

    def optional(name: str) -> str | None:
        value = attributes.get(name)
        if value is not None and not isinstance(value, str):
            raise EnvelopeError(name, "must be a string")
        return value or None

    if required("specversion") != SPEC_VERSION:
        raise EnvelopeError("specversion", f"only {SPEC_VERSION} is understood")
    sequence = attributes.get("sequence")
    return Envelope(
        type=required("type"),
        source=required("source"),
        id=required("id"),
        time=parse_time(required("time")),
        subject=optional("subject"),
        workspace=optional("workspace") or "default",
        partitionkey=optional("partitionkey") or "",
        correlationid=optional("correlationid") or "",
        causationid=optional("causationid") or "",
        traceparent=optional("traceparent"),
        sequence=None if sequence is None else read_sequence(sequence),
        afterparked=optional("afterparked"),
    )


def read_sequence(value: object) -> int:
    """Read a `sequence`: digits, from 1 up to 2^63-1; anything else is refused."""
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or not 1 <= int(text) < 2**63:
        raise EnvelopeError("sequence", "must be a whole number from 1")
    return int(text)


def read_record(
    headers: Iterable[tuple[str, bytes | None]], value: bytes | None
) -> tuple[Envelope, bytes]:
    """Read a record in binary or structured mode and return its envelope and the bytes of its data.

    Raises:
        EnvelopeError: an attribute is missing or unreadable.
    """
    attributes: dict[str, Any] = dict(_decoded(headers))
    content_type = attributes.get("content-type", "")
    if not content_type.startswith(STRUCTURED_CONTENT_TYPE):
        return _envelope_of(attributes), value or b""
    try:
        whole = msgspec.json.decode(value or b"", type=dict[str, msgspec.Raw])
        data = bytes(whole.pop("data", msgspec.Raw(b"null")))
        structured = {name: msgspec.json.decode(raw) for name, raw in whole.items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise EnvelopeError("value", "is not a structured CloudEvent in JSON") from error
    return _envelope_of(structured), data
