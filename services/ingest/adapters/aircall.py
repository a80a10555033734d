"""Aircall: calls, voicemails and text messages, by webhook.

Sources: Aircall's page on webhooks and its webhook events, by way of a careful integration guide and of typed clients
that quote the reference. Aircall signs nothing: each delivery carries, in its body, the token that was shown when the
webhook was made. It is compared in constant time and taken out before anything is stored. There is no signature header,
whatever some guides say. So a delivery shows that it knows the token and proves nothing: `verified` is false.

One call makes several events, unordered and at least once. Its end (`call.ended`) is one message, named by the call's id;
its voicemail (`call.voicemail_left`) another, named by the id and `:voicemail`. A recording that comes later
(`call.comm_assets_generated`) is an edit of either. Links to recordings live about an hour.

Weak: the fields of `message.received` (one third party's), read tolerantly; the shape of `transcription.created` is not
known, so a transcript is not taken. Everything here comes from third parties. Nothing was tried against a live account.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from schemas.messages import Call, CallOutcome, Change, MessageContent, Sender
from services.ingest.adapters import calls, reading, signing
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Request,
    Verdict,
    settings_of,
)

ANONYMOUS: Final = "anonymous"
_NOTES: Final = frozenset({"call.commented"})
_CALL_STATES: Final = frozenset({
    "call.created", "call.ringing_on_agent", "call.agent_declined", "call.answered", "call.transferred",
    "call.external_transferred", "call.unsuccessful_transfer", "call.hungup", "call.assigned", "call.unassigned",
    "call.archived", "call.unarchived", "call.tagged", "call.untagged", "call.hold", "call.unhold",
    "call.ivr_option_selected", "transcription.created", "summary.created", "sentiment.created", "topics.created",
    "message.sent", "message.status_updated",
})  # fmt: skip
_OTHER_RESOURCES: Final = ("number.", "user.", "contact.", "integration.")


class Line(reading.Struct, frozen=True):
    """One of our numbers. `e164_digits` is written in events only."""

    name: str | None = None
    digits: str | None = None
    e164_digits: str | None = None


class Person(reading.Struct, frozen=True):
    """A contact or a user of Aircall."""

    id: str | int | None = None
    name: str | None = None
    first_name: str | None = None
    last_name: str | None = None


class Text(reading.Struct, frozen=True):
    """A text message, as far as it is known how it looks."""

    id: str | int | None = None
    direction: str | None = None
    body: str | None = None
    content: str | None = None
    external_number: str | None = None
    raw_digits: str | None = None
    number: Line | None = None
    contact: Person | None = None
    sent_at: str | int | float | None = None
    created_at: str | int | float | None = None
    media_url: tuple[str, ...] | None = None


class Data(reading.Struct, frozen=True):
    """A call, or a text message (`message` where it is wrapped once more)."""

    id: str | int | None = None
    direct_link: str | None = None
    direction: str | None = None
    status: str | None = None
    missed_call_reason: str | None = None
    started_at: str | int | float | None = None
    answered_at: str | int | float | None = None
    ended_at: str | int | float | None = None
    duration: str | int | float | None = None
    voicemail: str | None = None
    recording: str | None = None
    asset: str | None = None
    raw_digits: str | None = None
    number: Line | None = None
    user: Person | None = None
    contact: Person | None = None
    message: Text | None = None
    body: str | None = None
    content: str | None = None
    external_number: str | None = None
    sent_at: str | int | float | None = None
    created_at: str | int | float | None = None
    media_url: tuple[str, ...] | None = None


class Event(reading.Struct, frozen=True):
    """The envelope. `timestamp` is in seconds."""

    event: str
    resource: str | None = None
    timestamp: str | int | float | None = None
    data: Data | None = None


class Token(reading.Struct, frozen=True):
    """Where the token stands, and what names a delivery."""

    token: str = ""
    event: str = ""
    timestamp: str | int | float = 0
    data: dict[str, object] = msgspec.field(default_factory=dict)


class Settings(ChannelSettings):
    """An Aircall webhook. `secret` is the token that was shown when the webhook was made; `own_ids` are our numbers.

    `calls` says which ended calls become messages: `all`, or `missed` for those that nobody answered.
    """

    calls: Literal["all", "missed"] = "all"


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Compare the body's token. Nothing is signed, so what is let in has shown a token and proved nothing."""
    del now
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    try:
        told = reading.json_as(request.body, Token)
    except ParseError:
        return signing.refused("bad_token")
    if not told.token:
        return signing.refused("missing_signature")
    if not signing.signed_by_any(
        told.token, keys, lambda key: key.decode("utf-8", "surrogateescape")
    ):
        return signing.refused("bad_token")
    name = f"{told.event}:{told.data.get('id', '')}:{told.timestamp}"
    return signing.shown(name[:200] if told.event else None)


def scrub(body: bytes) -> bytes:
    """Return the body without its token. A body that cannot be read has nothing worth keeping."""
    try:
        told = reading.json_of(body)
    except ParseError:
        return b"{}"
    if not isinstance(told, dict):
        return b"{}"
    return msgspec.json.encode({name: value for name, value in told.items() if name != "token"})


def parse(delivery: Delivery) -> Parsed:
    """Read an event.

    Raises:
        ParseError: the body is no event, or an id is missing; `field` names it.
    """
    said = reading.json_as(delivery.body, Event)
    event = said.event
    if event in _NOTES:
        return _ignored(delivery, "internal_note")
    if event in _CALL_STATES or event.startswith(_OTHER_RESOURCES):
        return _ignored(delivery, "status")
    data = said.data
    if event == "message.received":
        if data is None:
            raise ParseError("invalid_field", "data: is missing", "data")
        return _text(delivery, said, data)
    if event not in ("call.ended", "call.voicemail_left", "call.comm_assets_generated"):
        return _ignored(delivery, "unknown_event")
    if data is None:
        raise ParseError("invalid_field", "data: is missing", "data")
    return _call(delivery, said, data)


def _ignored(delivery: Delivery, reason: str) -> Parsed:
    return Parsed(ignored=reason, verified=delivery.verified)


def _call(delivery: Delivery, said: Event, data: Data) -> Parsed:
    settings = settings_of(delivery, Settings)
    call_id = reading.identifier(data.id, "data.id")
    outcome = _outcome(data)
    if said.event == "call.voicemail_left":
        return _one(delivery, _made(delivery, said, data, call_id, "voicemail", "new"))
    if said.event == "call.comm_assets_generated":
        if data.voicemail:
            return _one(delivery, _made(delivery, said, data, call_id, "voicemail", "edited"))
        if not data.recording or (settings.calls == "missed" and outcome == "answered"):
            return _ignored(delivery, "status")
        return _one(delivery, _made(delivery, said, data, call_id, outcome, "edited"))
    if settings.calls == "missed" and outcome == "answered":
        return _ignored(delivery, "status")
    return _one(delivery, _made(delivery, said, data, call_id, outcome, "new", is_end=True))


def _one(delivery: Delivery, content: MessageContent) -> Parsed:
    return Parsed(messages=(content,), verified=delivery.verified)


def _outcome(data: Data) -> CallOutcome:
    if data.answered_at:
        return "answered"
    if data.voicemail:
        return "voicemail"
    reason = data.missed_call_reason or ""
    if "abandoned" in reason:
        return "abandoned"
    if reason or (data.direction != "outbound" and data.status == "done"):
        return "missed"
    return "unknown"


def _made(
    delivery: Delivery,
    said: Event,
    data: Data,
    call_id: str,
    outcome: CallOutcome,
    change: Change,
    *,
    is_end: bool = False,
) -> MessageContent:
    is_outbound = data.direction == "outbound"
    is_voicemail = outcome == "voicemail" and not is_end
    customer = calls.caller(data.raw_digits or "", _name(data.contact))
    ours = _line(data.number, data.user)
    link = data.voicemail if outcome == "voicemail" else data.recording
    begun, ended = _seconds(data.answered_at or data.started_at), _seconds(data.ended_at)
    length = int(ended - begun) if begun is not None and ended is not None else None
    return calls.message(
        delivery,
        f"{call_id}:voicemail" if is_voicemail else call_id,
        ours if is_outbound else customer,
        Call(
            direction="outbound" if is_outbound else "inbound",
            outcome=outcome,
            duration_seconds=calls.seconds(length) if length is not None else _whole(data.duration),
            recording_url=reading.link(link),
        ),
        kind="voicemail" if is_voicemail else "call",
        thread=call_id,
        recipient=customer if is_outbound else ours,
        change=change,
        occurred_at=said.timestamp or data.ended_at,
        fields={
            "line": (data.number.name if data.number is not None else None) or "",
            "agent": _name(data.user),
            "missed_call_reason": data.missed_call_reason or "",
        },
    )


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return found if 0 < found < 1e11 else None


def _whole(value: object) -> int | None:
    return calls.seconds(int(value) if isinstance(value, float) and abs(value) < 1e9 else value)


def _name(person: Person | None) -> str:
    if person is None:
        return ""
    parts = (person.first_name, person.last_name)
    return person.name or " ".join(part for part in parts if part)


def _line(number: Line | None, user: Person | None) -> Sender:
    digits = (number.e164_digits or number.digits or "") if number is not None else ""
    return calls.caller(digits, _name(user) or (number.name if number is not None else "") or "")


def _text(delivery: Delivery, said: Event, data: Data) -> Parsed:
    """Read a text message, wrapped in `message` or not."""
    inner = data.message or Text(
        id=data.id,
        direction=data.direction,
        body=data.body,
        content=data.content,
        external_number=data.external_number,
        raw_digits=data.raw_digits,
        number=data.number,
        contact=data.contact,
        sent_at=data.sent_at,
        created_at=data.created_at,
        media_url=data.media_url,
    )
    if (inner.direction or data.direction) == "outbound":
        return _ignored(delivery, "echo")
    sender = calls.caller(inner.external_number or inner.raw_digits or "", _name(inner.contact))
    if sender.address in settings_of(delivery, Settings).own_ids and sender.address:
        return _ignored(delivery, "echo")
    text = inner.body or inner.content or ""
    files = tuple(
        reading.attachment(url=url) for url in (inner.media_url or ())[: reading.ATTACHMENTS_MAX]
    )
    if not text.strip() and not files:
        return _ignored(delivery, "empty")
    own = _line(inner.number, None)
    name = inner.id if inner.id is not None else data.id
    content = reading.content(
        delivery,
        reading.identifier(name, "data.id"),
        sender,
        text,
        text_new=text,
        occurred_at=inner.sent_at or inner.created_at or said.timestamp,
        attachments=files,
        recipients=(own.address,) if own.address else (),
    )
    return _one(delivery, content)


CHANNEL = Channel(
    name="aircall",
    parse=parse,
    settings=Settings,
    verify=verify,
    scrub=scrub,
    capability=Capability(can_reply=False, proof="a shared token in the body; nothing is signed"),
)
