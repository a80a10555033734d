"""What the voice channels share: who called, under which kind of address, and a call as a message.

A call's end is one message and a voicemail another, for one can be without the other; a transcript that comes later is an
edit of its voicemail. All of one call carry the call's id as their thread. The subject is a few English words for lists of
tickets; the text is what was said, as far as somebody wrote it down.
"""

import re
from typing import Any, Final

from schemas.messages import Call, CallOutcome, Change, MessageContent, MessageKind, Sender
from services.ingest.adapters import reading
from services.ingest.adapters.channel import Delivery
from services.ingest.core.normalise import clean_value

PHONE_DIGITS: Final = (3, 15)
"""Digits of a number: short codes have three or more, ITU-T E.164 allows fifteen."""
ADDRESS_LENGTH_MAX: Final = 200
SECONDS_MAX: Final = 7 * 86_400
"""A longer call is a mistake, not a call."""

WITHHELD: Final = frozenset({
    "", "anonymous", "blocked", "private", "restricted", "unavailable", "unknown", "withheld", "+266696687",
    "+7378742833", "+2562533", "+8656696", "+86282452253",
})  # fmt: skip
"""What stands in place of a number that the caller hides. Those of digits spell such words on a phone's keys."""

_NUMBER: Final = re.compile(r"\+?[0-9(][0-9 ().\-/\u00a0\u2010-\u2015]{1,40}[0-9]")
_NOT_DIGITS: Final = re.compile(r"[^0-9]+")
_SPOKEN: Final[dict[CallOutcome, str]] = {
    "answered": "Call",
    "missed": "Missed call",
    "voicemail": "Call",
    "busy": "Call to a busy line",
    "failed": "Failed call",
    "abandoned": "Abandoned call",
    "unknown": "Call",
}


def phone(text: object, country_code: str = "") -> str | None:
    """Return a number in E.164 with its plus sign, or None where `text` is none.

    A number without a plus is taken as international where `country_code` is empty, else as one of that country.
    """
    if not isinstance(text, str) or len(text) > 64:
        return None
    shown = text.strip()
    if not _NUMBER.fullmatch(shown):
        return None
    digits = _NOT_DIGITS.sub("", shown)
    if shown.startswith("00"):
        digits = digits[2:]
    elif country_code and not shown.startswith("+"):
        digits = country_code + digits.removeprefix("0")
    if not PHONE_DIGITS[0] <= len(digits) <= PHONE_DIGITS[1]:
        return None
    return f"+{digits}"


def caller(address: object, name: object = "", country_code: str = "") -> Sender:
    """Return who is at the other end: a number, a SIP or vendor's address, or nobody known where it is withheld."""
    shown = clean_value(name, 255) if isinstance(name, str) else ""
    text = clean_value(address, ADDRESS_LENGTH_MAX) if isinstance(address, str) else ""
    if text.lower() in WITHHELD:
        return Sender(name=shown, address="", kind="none")
    number = phone(text, country_code)
    if number is not None:
        return Sender(name=shown, address=number, kind="phone")
    return Sender(name=shown, address=text, kind="vendor_id")


def seconds(value: object) -> int | None:
    """Return a duration in whole seconds; None for what is none."""
    if isinstance(value, bool) or value is None:
        return None
    text = str(value).strip()
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        return None
    return min(int(text), SECONDS_MAX)


def message(
    delivery: Delivery,
    vendor_message_id: str,
    sender: Sender,
    call: Call,
    *,
    kind: MessageKind = "call",
    thread: str | None = None,
    recipient: Sender | None = None,
    change: Change = "new",
    text: str = "",
    occurred_at: object = None,
    language: str | None = None,
    fields: dict[str, str] | None = None,
    **more: Any,
) -> MessageContent:
    """Return a call, voicemail or wish to be called back. `sender` is who called, `recipient` who was called.

    A transcript in `call` is the text where there is no other.
    """
    said = text or call.transcript or ""
    content = reading.content(
        delivery,
        vendor_message_id,
        sender,
        said,
        text_new=said,
        occurred_at=occurred_at,
        subject=_subject(kind, call),
        declared_language=language,
        fields=fields,
        kind=kind,
        direction=call.direction,
        change=change,
        thread=thread,
        recipients=(recipient.address,) if recipient is not None and recipient.address else (),
        call=call.model_copy(update={"transcript": reading.text_of(call.transcript) or None}),
        **more,
    )
    if (
        not said and not language
    ):  # The subject is ours and tells nothing about the caller's language.
        content = content.model_copy(update={"language": None})
    return content


def _subject(kind: MessageKind, call: Call) -> str:
    if kind == "callback":
        return "Asks to be called back"
    name = "Voicemail" if kind == "voicemail" else _SPOKEN[call.outcome]
    length = call.duration_seconds
    if not length or not (kind == "voicemail" or call.outcome in ("answered", "unknown")):
        return name  # How long somebody waited in vain is no length of a call.
    minutes, rest = divmod(length, 60)
    return f"{name}, {minutes}:{rest:02} min"
