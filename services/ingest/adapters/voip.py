"""Calls from any telephone system: our own JSON, posted by a PBX, a script beside it, or an automation step.

The schema is ours (`docs/channels/voip.md`). A call's end is one message, named by `call_id`; a voicemail another, named
by `call_id` and `:voicemail`; a wish to be called back a third (`:callback`). What comes later (`event` of `recording` or
`transcript`) is an edit of the message that the same `call_id` and `disposition` name.

Verified, one of three: a Standard Webhooks signature (`webhook-id`, `webhook-timestamp`, `webhook-signature`); our shorter
`X-Ticket-Signature: t=<seconds>,v1=<hex>`, HMAC-SHA256 over the time, a full stop and the raw body; both within five
minutes. Or, for systems that cannot sign, the account's secret shown as a token, which proves nothing. A request that
carries a signature is judged by it alone. `recording_url` is passed on as a link and not fetched.

PBXs differ in what they can send: Asterisk and FreeSWITCH need a small script, hosted ones a webhook with a template.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec
from pydantic import Field

from schemas.messages import Call, CallOutcome, Change, MessageKind
from services.ingest.adapters import calls, reading, signing, standard_webhooks
from services.ingest.adapters.channel import (
    Answer,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Request,
    SecretReference,
    Verdict,
    settings_of,
)

SIGNATURE: Final = "x-ticket-signature"
SIGNATURES_MAX: Final = 20
ACCEPTED: Final = Answer(202)

_OUTCOMES: Final[dict[str, CallOutcome]] = {
    "answered": "answered",
    "missed": "missed",
    "voicemail": "voicemail",
    "busy": "busy",
    "failed": "failed",
    "abandoned": "abandoned",
    "callback": "missed",
}
_UNDERWAY: Final = frozenset({"ringing", "in_progress", "queued"})
_KINDS: Final[dict[str, MessageKind]] = {
    "voicemail": "voicemail",
    "callback": "callback",
}


class CallEvent(reading.Struct, frozen=True):
    """What a telephone system posts. `from` and `to` are numbers in E.164, or SIP addresses; empty where withheld."""

    call_id: str | int
    disposition: str
    event: str = "call"
    direction: str = "inbound"
    caller: str | None = msgspec.field(default=None, name="from")
    callee: str | None = msgspec.field(default=None, name="to")
    from_name: str | None = None
    started_at: str | int | float | None = None
    duration_s: int | float | None = None
    recording_url: str | None = None
    transcript: str | None = None
    language: str | None = None
    queue: str | None = None
    agent: str | None = None


class Settings(ChannelSettings):
    """A telephone system. `secret` signs its posts (`whsec_…` for Standard Webhooks, any text for `X-Ticket-Signature`),
    or is the token that it shows. `own_ids` are our own numbers in E.164.

    `accept` says what is let in: `signed` only, or `token` as well. `country_code` (digits, without a plus) completes
    numbers that are written without one.
    """

    secret: SecretReference | None = None
    accept: Literal["signed", "token"] = "token"
    country_code: str = Field(default="", pattern=r"^[0-9]{0,3}$")


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove a signature of either kind, or take a shown token where the account accepts one."""
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    if "webhook-signature" in request.headers:
        return _standard(request, keys, now)
    if SIGNATURE in request.headers:
        return _ticket(request, keys, now)
    if secrets.get("accept", "token") != "token":
        return signing.refused("missing_signature")
    verdict = signing.by_token(request, secrets)
    return signing.shown(answer=ACCEPTED) if verdict.accepted else verdict


def _standard(request: Request, keys: list[bytes], now: datetime) -> Verdict:
    headers = {
        name.encode("ascii", "replace"): value.encode("utf-8", "surrogatepass")
        for name, value in request.headers.items()
        if name.startswith("webhook-")
    }
    try:
        _, name = standard_webhooks.verify(headers, request.body, {"account": keys}, now)
    except standard_webhooks.SignatureRefused as refusal:
        return signing.refused("stale" if refusal.reason == "stale" else "bad_signature")
    return signing.proved(name, ACCEPTED)


def _ticket(request: Request, keys: list[bytes], now: datetime) -> Verdict:
    stamp, given = "", []
    for part in request.headers[SIGNATURE].split(",")[:SIGNATURES_MAX]:
        name, _, value = part.strip().partition("=")
        if name == "t" and not stamp:
            stamp = value.strip()
        elif name == "v1":
            given.append(value.strip())
    if not stamp or not given:
        return signing.refused("missing_signature")
    said = stamp.encode("utf-8", "surrogatepass") + b"." + request.body
    is_right = any(
        signing.signed_by_any(one, keys, lambda key: signing.hex_hmac(key, said)) for one in given
    )
    if not is_right:
        return signing.refused("bad_signature")
    if not signing.is_fresh(stamp, now):
        return signing.refused("stale")
    return signing.proved(_name_of(request.body), ACCEPTED)


def _name_of(body: bytes) -> str | None:
    """Return what a repetition repeats: the call, what became of it, and what is told."""
    try:
        said = reading.json_as(body, CallEvent)
    except ParseError:
        return None
    return f"{said.call_id}:{said.disposition}:{said.event}"[:200]


def parse(delivery: Delivery) -> Parsed:
    """Read a call event.

    Raises:
        ParseError: the body is not of the schema; `field` names what is wrong.
    """
    said = reading.json_as(delivery.body, CallEvent)
    call_id = reading.identifier(said.call_id, "call_id")
    settings = settings_of(delivery, Settings)
    _check(said)
    if said.disposition in _UNDERWAY:
        return Parsed(ignored="status", verified=delivery.verified)
    change: Change = "new" if said.event == "call" else "edited"
    is_outbound = said.direction == "outbound"
    recording = reading.link(said.recording_url)
    if said.recording_url and recording is None:
        raise ParseError(
            "invalid_field", "recording_url: must be an http or https address", "recording_url"
        )
    kind: MessageKind = _KINDS.get(said.disposition, "call")
    content = calls.message(
        delivery,
        call_id if kind == "call" else reading.identifier(f"{call_id}:{kind}", "call_id"),
        calls.caller(said.caller or "", said.from_name or "", settings.country_code),
        Call(
            direction="outbound" if is_outbound else "inbound",
            outcome=_OUTCOMES[said.disposition],
            duration_seconds=_duration(said.duration_s),
            recording_url=recording,
            transcript=said.transcript,
        ),
        kind=kind,
        thread=call_id,
        recipient=calls.caller(said.callee or "", "", settings.country_code),
        change=change,
        occurred_at=said.started_at,
        language=said.language,
        fields={"queue": said.queue or "", "agent": said.agent or ""},
    )
    if content.sender.address and content.sender.address in settings.own_ids:
        content = content.model_copy(update={"direction": "outbound"})
    return Parsed(messages=(content,), verified=delivery.verified)


def _check(said: CallEvent) -> None:
    known = {
        "disposition": (said.disposition, {*_OUTCOMES, *_UNDERWAY}),
        "event": (said.event, {"call", "recording", "transcript"}),
        "direction": (said.direction, {"inbound", "outbound"}),
    }
    for field, (value, allowed) in known.items():
        if value not in allowed:
            raise ParseError(
                "invalid_field", f"{field}: must be one of {', '.join(sorted(allowed))}", field
            )
    if said.duration_s is not None and not 0 <= said.duration_s <= calls.SECONDS_MAX:
        raise ParseError(
            "invalid_field",
            f"duration_s: must be 0 to {calls.SECONDS_MAX} seconds",
            "duration_s",
        )
    if said.event == "transcript" and not (said.transcript or "").strip():
        raise ParseError("invalid_field", "transcript: is missing", "transcript")


def _duration(value: float | None) -> int | None:
    return None if value is None else int(value)


CHANNEL = Channel(
    name="voip",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(
        can_reply=False,
        proof="Standard Webhooks or X-Ticket-Signature (HMAC-SHA256 over time and body); or a token",
    ),
)
