"""Messages as CloudEvents: over HTTP (`POST /v1/events`), or published by another system straight to `inbound`.

One type is understood, `message.submitted.v1`. Its data is the object of `message_api` without `channel` and with
`account`, `id` and `occurred_at` optional:

    {"sender": {"address": "ada@example.com"}, "text": "Where is order 1001?", "subject": "…", "id": "…", …}

Where `id` is absent the event's `source` and `id` name the message, which CloudEvents 1.0 makes unique together;
where `occurred_at` is absent the event's `time` stands in. Any other type is refused (HTTP) or parked (Kafka).

Source of the outside facts: CloudEvents 1.0.2 and its HTTP protocol binding: binary mode carries attributes as
`ce-…` headers, percent-encoded; structured mode carries the whole event in JSON as `application/cloudevents+json`; batched mode many of those in an array.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from services.ingest.adapters import json_body, standard_webhooks
from services.ingest.adapters.channel import Capability, Channel, Delivery, Parsed, ParseError
from services.ingest.adapters.form import media_type
from services.ingest.adapters.message_api import SubmittedMessage, content_of
from services.ingest.core.normalise import clean_value

TYPE: Final = "message.submitted.v1"
STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
BATCH_EVENTS_MAX: Final = 500
ATTRIBUTE_LENGTH_MAX: Final = 1_000
ID_LENGTH_MAX: Final = 200

_QUOTED_PAIR: Final = re.compile(r"\\(.)", re.DOTALL)
_INSTANT: Final[TypeAdapter[Any]] = TypeAdapter(AwareDatetime)


def split_batch(body: bytes) -> list[bytes]:
    """Return the events of a batch, each as the body of one in structured mode.

    Raises:
        ParseError: it is no array of objects, or holds too many.
    """
    json_body.check(body)
    try:
        events = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ParseError("invalid_json", "body: is not a JSON array", "body") from None
    if not 1 <= len(events) <= BATCH_EVENTS_MAX:
        raise ParseError("invalid_field", f"body: must hold 1 to {BATCH_EVENTS_MAX} events", "body")
    return [bytes(event) for event in events]


def header_value(name: str, value: str) -> str:
    """Return an attribute out of a header: quotes undone, then percent-decoded once (HTTP binding, 3.1.3.2).

    Raises:
        ParseError: what was encoded is not UTF-8.
    """
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        value = _QUOTED_PAIR.sub(r"\1", value[1:-1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise ParseError("invalid_attribute", f"{name}: is not UTF-8", name) from None


def attributes_of(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """Return an event's attributes and the bytes of its data, from either mode.

    Raises:
        ParseError: it is no CloudEvent; `field` names the attribute.
    """
    if media_type(headers.get("content-type")) == STRUCTURED:
        json_body.check(body)
        try:
            whole = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            data = bytes(whole.pop("data", msgspec.Raw(b"null")))
            found = {name: msgspec.json.decode(raw) for name, raw in whole.items()}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ParseError("invalid_json", "body: is not a JSON object", "body") from None
    else:
        data = body
        found = {
            name[3:]: header_value(name, value)
            for name, value in headers.items()
            if name.startswith("ce-")
        }
    for name in ("specversion", "type", "source", "id"):
        value = found.get(name)
        if not isinstance(value, str) or not value or len(value) > ATTRIBUTE_LENGTH_MAX:
            raise ParseError("invalid_attribute", f"{name}: is missing, empty or too long", name)
    if found["specversion"] != "1.0":
        raise ParseError("invalid_attribute", "specversion: only 1.0 is understood", "specversion")
    return {name: value for name, value in found.items() if isinstance(value, str)}, data


def _named(source: str, event_id: str) -> str:
    name = clean_value(f"{source}#{event_id}")
    if len(name) <= ID_LENGTH_MAX:
        return name
    return f"{name[:120]}…{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def read_message(headers: Mapping[str, str], body: bytes, account: str) -> SubmittedMessage:
    """Return the message that an event submits.

    Raises:
        ParseError: it is no event, of another type, or its data does not fit; `field` names what is wrong.
    """
    attributes, data = attributes_of(headers, body)
    if attributes["type"] != TYPE:
        raise ParseError("unknown_type", f"type: only {TYPE} is understood here", "type")
    json_body.check(data)
    try:
        given = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ParseError("invalid_json", "data: is not a JSON object", "data") from None
    given.setdefault("id", _named(attributes["source"], attributes["id"]))
    given.setdefault("account", account)
    if "channel" in given:
        raise ParseError(
            "invalid_field",
            "data.channel: is not known here; events come by the channel `event`",
            "data.channel",
        )
    if "time" in attributes and given.get("occurred_at") is None:
        try:
            given["occurred_at"] = _INSTANT.validate_python(attributes["time"]).isoformat()
        except ValidationError:
            raise ParseError(
                "invalid_attribute", "time: is not an RFC 3339 instant with its offset", "time"
            ) from None
    try:
        # Through JSON again, so that both ways in obey the same rules of what a value may be.
        return SubmittedMessage.model_validate_json(
            msgspec.json.encode({"channel": "event", **given})
        )
    except ValidationError as error:
        field, message = json_body.field_of(error)
        raise ParseError("invalid_field", f"data.{field}: {message}", f"data.{field}") from None


def parse(delivery: Delivery) -> Parsed:
    """Read an event."""
    message = read_message(delivery.headers, delivery.body, delivery.account)
    placed = replace(delivery, account=message.account)
    return Parsed(messages=(content_of(message, placed),), verified=delivery.verified)


CHANNEL = Channel(
    name="event",
    parse=parse,
    verify=standard_webhooks.verify_request,
    capability=Capability(can_reply=True, proof="Standard Webhooks"),
)
