"""Calls by Twilio: their end, voicemails with recording and transcript, and wishes to be called back.

Sources: Twilio's pages on `<Record>`, `<Gather>`, `<Dial>`, call status callbacks, recording callbacks and the Calls
resource; field names as integrations know them. Verified: see `twilio`.

One call makes several callbacks, in any order:

- The call's end (`CallStatus` completed, no-answer, busy, failed, canceled): one message, named by `CallSid`.
- `<Dial>`'s result (`DialCallStatus`): whether a person answered. It corrects the call's message, so it is an edit.
- A recording (`<Record>`'s action, or the recording callback): a voicemail, named by `RecordingSid`. One made by anything
  else than `<Record>` belongs to the call and corrects its message.
- A transcript (`TranscriptionStatus` completed): an edit of its voicemail.
- A key pressed in `<Gather>` (`Digits`): a wish to be called back, named by `CallSid` and `:callback`.
- A key pressed in a call that we placed ourselves to connect one of our people with a customer: no message. The customer's
  number stands in the address that the notifier gave (`connect`), which Twilio signs with the rest; the answer dials it.

An edit of what is not known yet counts as new, and the later original is then a repetition, so the order does not matter.
The recording callback does not say who called: with `account_sid` the call is read through the API. Without, such a
voicemail has no known caller, so use `<Record>`'s action, as our own `greeting` does.

`completed` is Twilio's word for a call that was answered, by whatever; where our own greeting answers, it says nothing
about a person, and the outcome is unknown.

Believed and not confirmed: `DialCallStatus`, `ParentCallSid`, `Direction` and `RecordingStartTime` in callbacks, the
Calls resource's field names, TwiML's relative order of a callback and a call's end. Nothing was tried against a live
account.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import msgspec
from pydantic import Field

from schemas.messages import Call, CallOutcome, Change, MessageContent, Sender
from services.ingest.adapters import calls, reading, twilio
from services.ingest.adapters.api import ApiProblem
from services.ingest.adapters.channel import (
    Answer,
    Api,
    Capability,
    Channel,
    Delivery,
    Fetched,
    Parsed,
    ParseError,
    Request,
    Verdict,
    settings_of,
)

RECORD_SECONDS_MAX: Final = 120
"""Seconds of a voicemail that our greeting records: Twilio transcribes no longer ones."""
KEY_SECONDS: Final = 4
"""Seconds that our greeting waits for a key."""

_ENDED: Final[dict[str, CallOutcome]] = {
    "completed": "answered",
    "no-answer": "missed",
    "busy": "busy",
    "failed": "failed",
    "canceled": "abandoned",
}
_DIALLED: Final[dict[str, CallOutcome]] = {**_ENDED, "answered": "answered"}
_UNDERWAY: Final = frozenset({"queued", "initiated", "ringing", "in-progress", "answered"})
_RECORDED_BY_CALLER: Final = frozenset({"", "recordverb"})
_CONNECT: Final = re.compile(r"[?&]connect=%2B([0-9]{3,15})(?:&|$)")
_E164: Final = re.compile(r"\+[0-9]{3,15}")
_RECORDING_IN: Final = re.compile(r"/Recordings/(RE[0-9A-Za-z]{1,64})")


class Settings(twilio.Settings):
    """A Twilio number for calls. `secret` is the account's auth token; `own_ids` are our own numbers in E.164.

    `greeting` is what our answer to an incoming call says, in the language `voice_language` (as `<Say>` names it), before
    it records a voicemail; empty: your own TwiML does that, and we say nothing. `transcribe` asks Twilio for a transcript
    (English only). `callback_digit` is the key by which a caller asks to be called back, empty for none; `callback_said`
    is what is said then. `public_url` is scheme and host that Twilio calls, where that is not the gateway's own.
    `account_sid` with the auth token reads who called, where a callback does not say; `api_url` is where that is.
    """

    greeting: str = Field(default="", max_length=1_000)
    voice_language: str = Field(default="en-US", pattern=r"^[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*$")
    transcribe: Literal["yes", "no"] = "no"
    callback_digit: str = Field(default="1", pattern=r"^[0-9*#]?$")
    callback_said: str = Field(default="Thank you. We will call you back.", max_length=1_000)


class Kept(reading.Struct, frozen=True):
    """A recording with the call it belongs to, as we read it back: the callback's fields, and the call's."""

    recording: dict[str, str]
    call: dict[str, str]


# ------------------------------------------------------------------------------------ proof and answer


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove the signature over address and fields; no time is signed. Answer with what the call is to do next."""
    del now
    verdict = twilio.verify(request, secrets)
    if not verdict.accepted:
        return verdict
    try:
        fields = twilio.fields_of(request.body)
    except ParseError:
        return verdict
    address = twilio.called(request, secrets.get("public_url", ""))
    return replace(verdict, name=_name_of(fields), respond=_answer(fields, secrets, address))


def _name_of(fields: Mapping[str, str]) -> str | None:
    """Return what a retry repeats: the ids and states of the callback, all of them signed."""
    if not fields.get("CallSid"):
        return None
    named = (
        "CallSid", "RecordingSid", "RecordingStatus", "TranscriptionSid", "DialCallStatus", "CallStatus", "Digits",
    )  # fmt: skip
    return ":".join(fields.get(name, "") for name in named)[:200]


def _answer(fields: Mapping[str, str], secrets: Mapping[str, str], address: str) -> Answer:
    if is_our_call(fields):
        return _connected(fields, address)
    greeting = secrets.get("greeting", "")
    digit = secrets.get("callback_digit", "1")
    if not greeting or not fields:
        return twilio.SILENCE
    language = quoteattr(secrets.get("voice_language", "en-US"))
    if _is_callback(fields, digit):
        thanks = escape(secrets.get("callback_said", ""))
        said = f"<Say language={language}>{thanks}</Say>" if thanks else ""
        return _twiml(f"{said}<Hangup/>")
    if fields.get("RecordingUrl") or "TranscriptionStatus" in fields or "RecordingStatus" in fields:
        return _twiml("<Hangup/>")
    has_spoken = _DIALLED.get(fields.get("DialCallStatus", "")) == "answered"
    if has_spoken or fields.get("CallStatus", "") not in _UNDERWAY:
        return twilio.SILENCE
    return _twiml(_greeting(secrets, greeting, digit, language, quoteattr(address), fields))


def is_our_call(fields: Mapping[str, str]) -> bool:
    """Whether a callback belongs to a call that we placed by the API, which reaches one of our own people."""
    return fields.get("Direction", "") == "outbound-api"


def _connected(fields: Mapping[str, str], address: str) -> Answer:
    """Dial the customer whom the address names, once our person has pressed a key; whatever else comes ends the call.

    The customer sees the number that the call was placed from.
    """
    found = _CONNECT.search(address)
    if found is None or not fields.get("Digits") or not _E164.fullmatch(fields.get("From", "")):
        return _twiml("<Hangup/>")
    ours = quoteattr(fields["From"])
    return _twiml(
        f'<Dial callerId={ours} answerOnBridge="true"><Number>+{found[1]}</Number></Dial>'
    )


def _greeting(
    secrets: Mapping[str, str],
    greeting: str,
    digit: str,
    language: str,
    address: str,
    fields: Mapping[str, str],
) -> str:
    said = f"<Say language={language}>{escape(greeting)}</Say>"
    if digit and "Digits" not in fields:
        said = (
            f'<Gather action={address} method="POST" numDigits="1" timeout="{KEY_SECONDS}">{said}'
            "</Gather>"
        )
    transcript = (
        f' transcribe="true" transcribeCallback={address}'
        if secrets.get("transcribe") == "yes"
        else ""
    )
    record = (
        f'<Record action={address} method="POST" maxLength="{RECORD_SECONDS_MAX}" playBeep="true"'
        f"{transcript}/>"
    )
    return f"{said}{record}<Hangup/>"


def _twiml(inner: str) -> Answer:
    return Answer(
        200, twilio.XML, f'<?xml version="1.0" encoding="UTF-8"?><Response>{inner}</Response>'
    )


def _is_callback(fields: Mapping[str, str], digit: str) -> bool:
    is_other = any(fields.get(name) for name in ("RecordingUrl", "RecordingSid", "DialCallStatus"))
    return bool(digit) and fields.get("Digits") == digit and not is_other


# ---------------------------------------------------------------------------------------------- parse


def parse(delivery: Delivery) -> Parsed:
    """Read a callback's form, or a recording that we read back with its call.

    Raises:
        ParseError: the body is not UTF-8, or an id is missing; `field` names it.
    """
    if delivery.fetched == "recording":
        kept = reading.json_as(delivery.body, Kept)
        return _of_form(delivery, {**kept.call, **kept.recording}, is_whole=True)
    fields = twilio.fields_of(delivery.body)
    if not fields:
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    return _of_form(delivery, fields)


def _of_form(delivery: Delivery, fields: Mapping[str, str], *, is_whole: bool = False) -> Parsed:
    is_proved = delivery.verified or is_whole
    settings = settings_of(delivery, Settings)
    twilio.required(fields, "CallSid")
    if fields.get("ParentCallSid"):
        return Parsed(ignored="call_leg", verified=is_proved)
    if is_our_call(fields) and "Digits" in fields:
        return Parsed(ignored="echo", verified=is_proved)
    if "TranscriptionEvent" in fields:
        return Parsed(ignored="live_transcript", verified=is_proved)
    if "TranscriptionStatus" in fields or "TranscriptionText" in fields:
        made = _transcript(delivery, fields)
    elif "DialCallStatus" in fields:
        made = _dialled(delivery, fields)
    elif "RecordingStatus" in fields or fields.get("RecordingUrl"):
        made = _recording(delivery, fields, settings, is_whole=is_whole)
    elif _is_callback(fields, settings.callback_digit):
        made = _made(delivery, fields, f"{fields['CallSid']}:callback", "unknown", kind="callback")
    elif "Digits" in fields:
        made = "status"
    else:
        made = _ended(delivery, fields, settings)
    if isinstance(made, str):
        return Parsed(ignored=made, verified=is_proved)
    if made.sender.address and made.sender.address in settings.own_ids:
        made = made.model_copy(update={"direction": "outbound"})
    return Parsed(messages=(made,), verified=is_proved)


def _transcript(delivery: Delivery, fields: Mapping[str, str]) -> MessageContent | str:
    text = fields.get("TranscriptionText", "").strip()
    if fields.get("TranscriptionStatus", "completed") != "completed" or not text:
        return "no_transcript"
    return _made(
        delivery,
        fields,
        _recording_sid(fields),
        "voicemail",
        kind="voicemail",
        change="edited",
        transcript=text,
    )


def _dialled(delivery: Delivery, fields: Mapping[str, str]) -> MessageContent | str:
    outcome = _DIALLED.get(fields["DialCallStatus"])
    if outcome is None:
        return "unknown_event"
    return _made(
        delivery,
        fields,
        fields["CallSid"],
        outcome,
        change="edited",
        duration=fields.get("DialCallDuration"),
    )


def _recording(
    delivery: Delivery, fields: Mapping[str, str], settings: Settings, *, is_whole: bool
) -> MessageContent | str:
    status = fields.get("RecordingStatus", "completed")
    if status == "absent":
        return "no_recording"
    if status != "completed":
        return "status"
    sid = _recording_sid(fields)
    if not fields.get("From") and not is_whole and _reads_back(settings):
        return "hint"
    duration = fields.get("RecordingDuration")
    if fields.get("RecordingSource", "").lower() in _RECORDED_BY_CALLER:
        return _made(delivery, fields, sid, "voicemail", kind="voicemail", duration=duration)
    return _made(
        delivery, fields, fields["CallSid"], "answered", change="edited", duration=duration
    )


def _ended(
    delivery: Delivery, fields: Mapping[str, str], settings: Settings
) -> MessageContent | str:
    status = fields.get("CallStatus", "")
    if not status:
        raise ParseError("invalid_field", "CallStatus: is missing", "CallStatus")
    if status in _UNDERWAY:
        return "status"
    outcome = _ENDED.get(status)
    if outcome is None:
        return "unknown_event"
    if outcome == "answered" and settings.greeting:
        outcome = "unknown"
    return _made(delivery, fields, fields["CallSid"], outcome, duration=fields.get("CallDuration"))


def _recording_sid(fields: Mapping[str, str]) -> str:
    """Return the recording's id, which is in its address too."""
    if not fields.get("RecordingSid"):
        found = _RECORDING_IN.search(fields.get("RecordingUrl", "")[: reading.URL_LENGTH_MAX])
        if found is not None:
            return found.group(1)
    return twilio.required(fields, "RecordingSid")


def _made(
    delivery: Delivery,
    fields: Mapping[str, str],
    name: str,
    outcome: CallOutcome,
    *,
    kind: Literal["call", "voicemail", "callback"] = "call",
    change: Change = "new",
    duration: str | None = None,
    transcript: str | None = None,
) -> MessageContent:
    is_outbound = fields.get("Direction", "inbound").startswith("outbound")
    begun = fields.get("RecordingStartTime") or fields.get("Timestamp") or fields.get("StartTime")
    return calls.message(
        delivery,
        reading.identifier(name, "CallSid"),
        _party(fields.get("From"), fields.get("CallerName")),
        Call(
            direction="outbound" if is_outbound else "inbound",
            outcome=outcome,
            duration_seconds=calls.seconds(duration),
            recording_url=reading.link(fields.get("RecordingUrl")),
            transcript=transcript,
        ),
        kind=kind,
        thread=reading.identifier(fields["CallSid"], "CallSid"),
        recipient=_party(fields.get("To"), None),
        change=change,
        occurred_at=twilio.instant(begun),
        fields={"forwarded_from": fields.get("ForwardedFrom", "")},
    )


def _party(address: str | None, name: str | None) -> Sender:
    return calls.caller(address or "", name or "")


# ------------------------------------------------------------------------------------------ read back


def _reads_back(settings: Settings) -> bool:
    return bool(settings.account_sid) and settings.secret is not None


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read the call that a recording belongs to, for who called. A call that is gone leaves a caller nobody knows."""
    settings: Settings = api.settings
    fields = twilio.fields_of(delivery.body)
    call_sid = twilio.required(fields, "CallSid")
    sid = _recording_sid(fields)
    account, token = settings.account_sid, api.secrets.get("secret", "")
    if not token:
        raise ApiProblem("no_secret")
    login = base64.b64encode(f"{account}:{token}".encode()).decode()
    told: Any = await api.get(
        f"{settings.api_url.rstrip('/')}/2010-04-01/Accounts/{quote(account, safe='')}"
        f"/Calls/{quote(call_sid, safe='')}.json",
        headers={"Authorization": f"Basic {login}"},
        missing=True,
    )
    known = told if isinstance(told, dict) else {}
    named = {"from": "From", "to": "To", "direction": "Direction", "caller_name": "CallerName"}
    call = {
        ours: known[theirs] for theirs, ours in named.items() if isinstance(known.get(theirs), str)
    }
    body = msgspec.json.encode(Kept(recording=fields, call=call))
    return (Fetched("recording", sid, body, call_sid),)


CHANNEL = Channel(
    name="twilio_voice",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=_reads_back,
    media_types=twilio.MEDIA_TYPES,
    capability=Capability(
        can_reply=False,
        proof="HMAC-SHA1 over the address and all fields (X-Twilio-Signature)",
    ),
)
