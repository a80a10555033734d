"""Messages as CloudEvents: over HTTP (`POST /v1/events`), or published by another system straight to `inbound`.

One type is understood, `message.submitted.v1`. Its data is the object of `message_api` without `channel` and with
`account`, `id` and `occurred_at` optional:

    {"sender": {"address": "ada@example.com"}, "text": "Where is order 1001?", "subject": "…", "id": "…", …}

Where `id` is absent the event's `source` and `id` name the message, which CloudEvents 1.0 makes unique together;
where `occurred_at` is absent the event's `time` stands in. Any other type is refused (HTTP) or parked (Kafka).

Source of the outside facts: CloudEvents 1.0.2 and its HTTP protocol binding: binary mode carries attributes as
`ce-…` headers, percent-encoded; structured mode carries the whole event in JSON as `application/cloudevents+json`; batched mode many of those in an array.
And its rules for webhooks: a sender asks first, by OPTIONS with `WebHook-Request-Origin`, whether it may deliver here; it
shows a bearer token, in the header or as `access_token` in the query. We also take Standard Webhooks signatures, which
prove the event; a token only shows that its sender knows it.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from services.ingest.adapters import json_body, jwt_proof, signing, standard_webhooks
from services.ingest.adapters.channel import (
    Answer,
    Capability,
    Channel,
    Delivery,
    MessageContent,
    Parsed,
    ParseError,
    Request,
    Verdict,
)
from services.ingest.adapters.form import media_type
from services.ingest.adapters.message_api import SubmittedMessage, content_of
from services.ingest.core.normalise import clean_value

TYPE: Final = "message.submitted.v1"
STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
BATCH_EVENTS_MAX: Final = 500
ATTRIBUTE_LENGTH_MAX: Final = 1_000
ID_LENGTH_MAX: Final = 200
ORIGIN: Final = "webhook-request-origin"
ORIGIN_LENGTH_MAX: Final = 255
RATE_PER_MINUTE: Final = 6_000
"""What a sender that asks is told it may deliver in a minute."""

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


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Answer a sender who asks first; prove a signature where there is one, else compare the token that is shown."""
    wrong = signing.only(request, "POST", "OPTIONS")
    if wrong is not None:
        return wrong
    if request.method.upper() == "OPTIONS":
        return _asked(request)
    if "webhook-signature" in request.headers:
        return standard_webhooks.verify_request(request, secrets, now)
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    # What signs is never shown, for whoever saw it could sign.
    tokens = [key for key in keys if not key.startswith(standard_webhooks.PREFIX)]
    given = [jwt_proof.bearer(request.headers), request.query.get("access_token", "")]
    if not any(given) or not tokens:
        return signing.refused("missing_signature")
    is_right = False
    for one in filter(None, given):
        for token in tokens:
            is_right |= signing.same(token, one)
    return signing.shown(answer=Answer(202)) if is_right else signing.refused("bad_token")


def _asked(request: Request) -> Verdict:
    """Grant an origin what it asks for; what it then sends has to be proved all the same."""
    origin = request.headers.get(ORIGIN, "").strip()
    if (
        not origin
        or len(origin) > ORIGIN_LENGTH_MAX
        or not (origin.isascii() and origin.isprintable())
    ):
        return signing.refused("malformed", 403)
    granted = {"Allow": "POST", "WebHook-Allowed-Origin": origin}
    if "webhook-request-rate" in request.headers:
        granted["WebHook-Allowed-Rate"] = str(RATE_PER_MINUTE)
    return signing.handshake(Answer(200, granted))


def parse(delivery: Delivery) -> Parsed:
    """Read an event, or a batch of them; one wrong event refuses its batch, and is named by its place.

    Raises:
        ParseError: it is no event of ours; `field` names what is wrong.
    """
    if media_type(delivery.headers.get("content-type")) != BATCHED:
        return Parsed(messages=(_content(delivery),), verified=delivery.verified)
    headers = {"content-type": STRUCTURED}
    messages = []
    for index, one in enumerate(split_batch(delivery.body)):
        try:
            messages.append(_content(replace(delivery, headers=headers, body=one, input_id="")))
        except ParseError as error:
            field = f"{index}.{error.field or 'event'}"
            raise ParseError(error.problem, f"{index}.{error.detail}", field) from None
    return Parsed(messages=tuple(messages), verified=delivery.verified)


def _content(delivery: Delivery) -> MessageContent:
    message = read_message(delivery.headers, delivery.body, delivery.account)
    return content_of(message, replace(delivery, account=message.account))


CHANNEL = Channel(
    name="event",
    parse=parse,
    verify=verify,
    headers_kept=frozenset(
        f"ce-{name}" for name in ("specversion", "type", "source", "id", "time")
    ),
    media_types=frozenset({"application/json", STRUCTURED, BATCHED}),
    capability=Capability(can_reply=True, proof="Standard Webhooks"),
)
