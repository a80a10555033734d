"""The envelope of every event: CloudEvents 1.0 attributes, ours among them, and the Kafka binding.

Source of the outside facts: the CloudEvents specification 1.0.2 and its Kafka protocol binding 1.0.2 (binary mode:
attributes travel as headers prefixed `ce_`, `datacontenttype` as `content-type`; structured mode: the whole event is
the value, with content type `application/cloudevents+json`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
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
    dead letter's id where an earlier record of the same key was parked before this one was handled. `continues` stands
    on the first event of a source's new incarnation in a partition: `incarnation:sequence` of the last old event that
    the source still knows of.
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
    continues: str | None = None

    def to_headers(self) -> Headers:
        """Return the Kafka headers of binary mode, in a fixed order."""
        return tuple((name, value.encode()) for name, value in self.to_text_headers())

    def to_text_headers(self) -> list[tuple[str, str]]:
        """Return the same headers before they are encoded as UTF-8."""
        pairs = [
            ("ce_specversion", SPEC_VERSION),
            ("ce_type", self.type),
            ("ce_source", self.source),
            ("ce_id", self.id),
            ("ce_time", format_time(self.time)),
            ("content-type", CONTENT_TYPE),
            ("ce_workspace", self.workspace),
            ("ce_partitionkey", self.partitionkey),
            ("ce_correlationid", self.correlationid),
            ("ce_causationid", self.causationid),
        ]
        if self.subject is not None:
            pairs.append(("ce_subject", self.subject))
        if self.traceparent is not None:
            pairs.append(("ce_traceparent", self.traceparent))
        if self.sequence is not None:
            pairs.append(("ce_sequence", str(self.sequence)))
        if self.continues is not None:
            pairs.append(("ce_continues", self.continues))
        if self.afterparked is not None:
            pairs.append(("ce_afterparked", self.afterparked))
        return pairs


@lru_cache(maxsize=1024)
def format_time(at: datetime) -> str:
    """Return `at` as RFC 3339 in UTC, as precise as it is."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


@lru_cache(maxsize=1024)
def parse_time(text: str, field: str = "time") -> datetime:
    """Read an RFC 3339 instant; a missing offset is refused, since nobody can know what it meant."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise EnvelopeError(field, "not an RFC 3339 instant") from None
    if at.tzinfo is None:
        raise EnvelopeError(field, "has no offset from UTC")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise EnvelopeError(field, "lies outside the years 1 to 9999") from None


def _decoded(headers: Iterable[tuple[str, bytes | None]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in headers:
        if value is None or not (name.startswith("ce_") or name == "content-type"):
            continue  # Foreign headers, and null ones, are legal Kafka and none of our business.
        try:
            found[name.removeprefix("ce_")] = value.decode()
        except UnicodeDecodeError:
            raise EnvelopeError(name, "is not UTF-8") from None
    return found


def _envelope_of(attributes: Mapping[str, Any]) -> Envelope:
    for name in _REQUIRED:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise EnvelopeError(name, "is missing or empty")
    for name in _OPTIONAL:
        if not isinstance(attributes.get(name), str | None):
            raise EnvelopeError(name, "must be a string")
    if attributes["specversion"] != SPEC_VERSION:
        raise EnvelopeError("specversion", f"only {SPEC_VERSION} is understood")
    get = attributes.get
    if not _OWN_SOURCE.fullmatch(attributes["source"]):
        raise EnvelopeError("source", "is none that Signalbox gives itself")
    if not _CONTINUES.fullmatch(get("continues") or "1:0"):
        raise EnvelopeError("continues", "must be incarnation:sequence")
    sequence = get("sequence")
    return Envelope(
        type=attributes["type"],
        source=attributes["source"],
        id=attributes["id"],
        time=parse_time(attributes["time"]),
        subject=get("subject") or None,
        workspace=get("workspace") or "default",
        partitionkey=get("partitionkey") or "",
        correlationid=get("correlationid") or "",
        causationid=get("causationid") or "",
        traceparent=get("traceparent") or None,
        sequence=None if sequence is None else read_sequence(sequence),
        afterparked=get("afterparked") or None,
        continues=get("continues") or None,
    )


_OWN_SOURCE = re.compile(
    rf"(?!{OWN_SOURCE_PREFIX}).*|{OWN_SOURCE_PREFIX}[a-z_.]{{1,64}}/\d{{1,6}}(#\d{{1,18}})?",
    re.DOTALL,
)
"""Any foreign source, or one of ours: `signalbox/<stage>/<task>`, with `#<incarnation>` after a restore."""

_CONTINUES = re.compile(r"\d{1,18}:\d{1,18}")
_REQUIRED = ("specversion", "type", "source", "id", "time")
_OPTIONAL = (
    "subject",
    "workspace",
    "partitionkey",
    "correlationid",
    "causationid",
    "traceparent",
    "afterparked",
    "continues",
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
    attributes = _decoded(headers)
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
