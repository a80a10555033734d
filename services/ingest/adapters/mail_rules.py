"""Mails that machines write in somebody's name: telephone notices and forms, read by rules on top of `email`.

Three packs. `google_voice`: voicemails, missed calls and texts that Google Voice sends on by mail. `youmail`: the same of
YouMail. Forms: POWR's and other products' notification mails, with a line `name: value` for each field.

A rule applies only to a mail whose sender is proved (DMARC passed at a receiving server that we trust) and stands in the
rule's list; or to one that comes in on a channel of the pack's own name, where it was sent on purpose, unless the mail's
first Authentication-Results say that no domain of the sender's signed it. What matches nothing stays an ordinary mail, so
nothing is lost when a vendor changes its wording. None of these formats is a contract.

What a proof is worth: DMARC proves that Google or the form product sent the mail. Whom a form's visitor says they are is
proved by nothing, so a form's message is never verified, and neither is the number of a caller, which the telephone
network does not prove either.

Sources: integrations that read such mails, since no vendor documents them. Google Voice: senders
`voice-noreply@google.com` and `<ours>.<theirs>.<tag>@txt.voice.google.com`, English subjects (`New voicemail from …`,
`Missed call from …`, `New text message from …`, `SMS from …`), the footer's first words. YouMail: sender and subjects were
not found, so `youmail.com` and general words are only a beginning, to be corrected in the account's `rules`. POWR: by its
help page the sender can be chosen, so its `senders` must be set unless they are at `powr.io`. Google Voice and YouMail
write numbers of the North American plan without their country code.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from schemas.messages import Call, CallOutcome, MessageContent, Sender
from services.ingest.adapters import addresses, calls
from services.ingest.adapters.channel import ChannelSettings, Delivery, settings_of
from services.ingest.adapters.mime import Part
from services.ingest.core import language
from services.ingest.core.normalise import clean_text, clean_value
from services.ingest.core.policy import FormMails, MailRules, Meaning, Notice, PhoneMails

VOICE_SENDERS: Final = ("voice-noreply@google.com", "txt.voice.google.com")
RELAY_DOMAIN: Final = "txt.voice.google.com"
YOUMAIL_SENDERS: Final = ("youmail.com",)
LINES_MAX: Final = 2_000
LABEL_LENGTH_MAX: Final = 60
FIELDS_MAX: Final = 50
RESULTS_LENGTH_MAX: Final = 4_000

VOICE_SUBJECTS: Final[dict[str, Notice]] = {
    "voicemail": "voicemail",
    "missed call": "missed",
    "text message": "text",
    "sms": "text",
}
YOUMAIL_SUBJECTS: Final[dict[str, Notice]] = {
    "voicemail": "voicemail",
    "new message": "voicemail",
    "missed call": "missed",
}
VOICE_CUT_AT: Final = (
    "To respond to this text message",
    "YOUR ACCOUNT",
    "play message",
    "Hear this message",
    "Sent using SMS-to-email",
)
LABELS: Final[dict[str, Meaning]] = {
    "name": "name", "full name": "name", "your name": "name", "ad soyad": "name", "adınız": "name", "имя": "name",
    "first name": "first_name", "last name": "last_name", "surname": "last_name",
    "email": "email", "e-mail": "email", "email address": "email", "your email": "email", "e-posta": "email",
    "электронная почта": "email", "почта": "email",
    "phone": "phone", "phone number": "phone", "telephone": "phone", "telefon": "phone", "телефон": "phone",
    "subject": "subject", "konu": "subject", "тема": "subject",
    "message": "message", "your message": "message", "comments": "message", "comment": "message",
    "question": "message", "mesaj": "message", "mesajınız": "message", "сообщение": "message",
    "order": "order", "order number": "order", "sipariş no": "order", "номер заказа": "order",
}  # fmt: skip
"""What a form's labels mean, in lower case, where an account says nothing else."""

_RELAY: Final = re.compile(r"^(\d{7,15})\.(\d{7,15})\.[^.@]{1,200}$")
_PHONE_IN: Final = re.compile(r"\+?\(?\d[\d ().\-\u00a0\u2011]{5,24}\d")
_FROM_IN: Final = re.compile(
    r"\bfrom\b:?\s+(.{1,200}?)(?:\s+at\s+\d{1,2}[:.]\d{2}.{0,12})?$", re.IGNORECASE
)
_LENGTH_IN: Final = re.compile(
    r"\b(?:duration|length)\s*:?\s*(?:(\d{1,3}):)?(\d{1,5})\b", re.IGNORECASE
)
_DKIM_PASS: Final = re.compile(r"\bdkim\s*=\s*pass\b")
_SIGNER: Final = re.compile(r"\bheader\.[di]\s*=\s*(?:[^\s@;]{0,64}@)?([a-z0-9.-]{1,253})")
_LINK_LINE: Final = re.compile(r"^\s*<?https?://[^\s<>]{1,2000}>?\s*$")
_PLAY_LINK: Final = re.compile(
    r"https://(?:voice\.google\.com|www\.google\.com/voice|www\.youmail\.com|youmail\.com)"
    r"/[^\s<>\"']{1,500}"
)
_HEADLINE: Final = re.compile(
    r"^\s*(?:new )?(?:voicemail|missed call|text message|sms)\b.{0,200}$", re.IGNORECASE
)
_LABEL: Final = re.compile(rf"^\s*([^:\n<>]{{1,{LABEL_LENGTH_MAX}}}?)\s*:(?:\s+(.*)|)$")


class Settings(ChannelSettings):
    """An account of a channel whose deliveries are mails. `rules` are as those of a mail account."""

    rules: MailRules = MailRules()


class Applied(NamedTuple):
    """What a mail becomes, and whether its sender is still proved."""

    content: MessageContent
    verified: bool


def apply(content: MessageContent, mail: Part, delivery: Delivery, verified: bool) -> Applied:
    """Return a mail as what it tells of, where a rule knows it; unchanged otherwise.

    `verified` is what the mail reader found out about the sender. Bounces and receipts are no rule's business.
    """
    if content.kind not in ("message", "auto_reply") or content.sender.kind != "email":
        return Applied(content, verified)
    rules = settings_of(delivery, Settings).rules
    address = content.sender.address.lower()
    packs = (
        ("google_voice", rules.google_voice, VOICE_SENDERS),
        ("youmail", rules.youmail, YOUMAIL_SENDERS),
    )
    for name, pack, built_in in packs:
        is_believed = verified or (delivery.channel == name and not _is_unsigned(mail, address))
        if is_believed and _is_among(address, pack.senders or built_in):
            made = _telephone(content, name, pack)
            return Applied(made, False) if made is not None else Applied(content, verified)
    for rule in rules.forms if verified else ():
        if _is_among(address, rule.senders) and rule.subject.lower() in content.subject.lower():
            made = _form(content, mail, rule)
            if made is not None:
                return Applied(made, False)
    return Applied(content, verified)


def _is_unsigned(mail: Part, address: str) -> bool:
    """Whether a receiving server wrote its results and they hold no DKIM pass of the sender's domain or one above it."""
    told = mail.first("authentication-results")[:RESULTS_LENGTH_MAX].lower()
    if not told.strip():
        return False
    domain = address.rpartition("@")[2]
    signers = [
        found.group(1)
        for part in told.split(";")
        if _DKIM_PASS.search(part)
        for found in _SIGNER.finditer(part)
    ]
    return not any(domain == one or domain.endswith(f".{one}") for one in signers if "." in one)


def _is_among(address: str, senders: tuple[str, ...]) -> bool:
    """Whether an address is one of those, or at one of those domains; a domain's subdomains are others."""
    domain = address.rpartition("@")[2]
    return any(address == one.lower() or domain == one.lower() for one in senders)


# ---------------------------------------------------------------------------------- telephone notices


def _telephone(content: MessageContent, pack: str, rule: PhoneMails) -> MessageContent | None:
    known = VOICE_SUBJECTS if pack == "google_voice" else YOUMAIL_SUBJECTS
    what = _what(content.subject, rule.subjects or known)
    local, _, domain = content.sender.address.lower().rpartition("@")
    relay = _RELAY.match(local) if domain == RELAY_DOMAIN else None
    if relay is not None:
        what = "text"
    if what is None:
        return None
    sender = _who(content, relay, rule.country_code)
    if not sender.address and not sender.name:
        return None  # A notice about the service itself names nobody.
    said = _said(content.text, (*rule.cut_at, *VOICE_CUT_AT))
    fields = {**content.fields, "notice_of": pack}
    if relay is not None:
        fields["reply_to"] = content.sender.address
    outcome: CallOutcome = "voicemail" if what == "voicemail" else "missed"
    call = Call(
        outcome=outcome,
        duration_seconds=_length(content.text) if what == "voicemail" else None,
        recording_url=_link(content.text) if what == "voicemail" else None,
        transcript=(said or None) if what == "voicemail" else None,
    )
    is_missed = what == "missed"
    return content.model_copy(
        update={
            "kind": {"voicemail": "voicemail", "missed": "call", "text": "message"}[what],
            "sender": sender,
            "text": "" if is_missed else said,
            "text_new": "" if is_missed else said,
            "html": None,
            "language": None if is_missed else language.detect(said),
            "call": None if what == "text" else call,
            "fields": fields,
            "is_automatic": False,
            "automatic_reason": None,
        }
    )


def _what(subject: str, subjects: Mapping[str, Notice]) -> Notice | None:
    shown = subject.lower()
    return next((what for text, what in subjects.items() if text.lower() in shown), None)


def _who(content: MessageContent, relay: re.Match[str] | None, country_code: str) -> Sender:
    """Return the caller: by the relay's address where there is one, else by what subject or name says."""
    found = _FROM_IN.search(content.subject[:400])
    named = found.group(1) if found is not None else ""
    number = calls.phone(f"+{relay.group(2)}") if relay is not None else None
    for text in (named, content.subject, content.sender.name):
        for candidate in _PHONE_IN.findall(text[:400]) if number is None else ():
            number = number or _national(candidate, country_code)
    name = clean_value(_PHONE_IN.sub("", named)).strip(" -.,()")
    if number is None:
        return Sender(name=name, address="", kind="none")
    return Sender(name=name, address=number, kind="phone")


def _national(text: str, country_code: str) -> str | None:
    digits = re.sub(r"\D", "", text)
    is_whole = text.startswith("+") or (
        bool(country_code) and digits.startswith(country_code) and len(digits) == 11
    )
    return calls.phone(f"+{digits}") if is_whole else calls.phone(digits, country_code)


def _said(text: str, cut_at: tuple[str, ...]) -> str:
    """Return what was said: without links on their own lines, a headline that repeats the subject, and the footer."""
    cuts = tuple(cut.lower() for cut in cut_at if cut)
    kept: list[str] = []
    for line in text.split("\n")[:LINES_MAX]:
        if line.strip().lower().startswith(cuts):
            break
        is_noise = _LINK_LINE.match(line[:2_100]) is not None
        is_headline = not any(kept) and _HEADLINE.match(line[:400]) is not None
        if not is_noise and not is_headline:
            kept.append(line.rstrip())
    while kept and not kept[-1].strip(" -_"):
        kept.pop()  # The line above the footer goes with it.
    return clean_text("\n".join(kept).strip())


def _length(text: str) -> int | None:
    found = _LENGTH_IN.search(text[:10_000])
    if found is None:
        return None
    return calls.seconds(str(int(found.group(1) or 0) * 60 + int(found.group(2))))


def _link(text: str) -> str | None:
    found = next(
        (
            link
            for link in _PLAY_LINK.findall(text[:50_000])
            if "message" in link or "voicemail" in link
        ),
        None,
    )
    return found.rstrip(">.,)") if found is not None else None


# -------------------------------------------------------------------------------------------- forms


def _form(content: MessageContent, mail: Part, rule: FormMails) -> MessageContent | None:
    """Return a form's message, or None where the mail names nobody who could be answered, or says nothing."""
    told, others = _pairs(content.text, _labels(rule))
    email = _address(told.get("email", ""))
    if email is None:
        answer_to = addresses.read(mail.first("reply-to"))
        own = content.sender.address.lower()
        email = next((one.address for one in answer_to if one.address.lower() != own), None)
    number = calls.phone(told.get("phone", "")) if told.get("phone", "").startswith("+") else None
    if email is None and number is None:
        return None
    names = (told.get("first_name", ""), told.get("last_name", ""))
    name = told.get("name") or " ".join(one for one in names if one)
    message = clean_text(told.get("message", ""))
    below = [f"{label}: {value}" for label, value in others.items()]
    order = told.get("order", "")
    if not message and not below:
        return None
    fields = {**others, **({"order": order} if order else {})}
    if told.get("phone"):
        fields["phone"] = told["phone"]
    shown = "\n\n".join(part for part in (message, "\n".join(below)) if part)
    return content.model_copy(
        update={
            "kind": "form",
            "sender": Sender(
                name=clean_value(name, 255),
                address=email or number or "",
                kind="email" if email is not None else "phone",
            ),
            "subject": clean_value(told.get("subject", "")) or content.subject,
            "text": clean_text(shown),
            "text_new": message or clean_text(shown),
            "html": None,
            "language": language.detect(message or shown),
            "fields": {
                **content.fields,
                **{clean_value(key, 100): clean_value(value) for key, value in fields.items()},
            },
            "is_automatic": False,
            "automatic_reason": None,
        }
    )


def _pairs(text: str, labels: Mapping[str, Meaning]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the values by meaning, and those of labels without one.

    A value goes on over the following lines up to the next label. Within the message only known labels end it, and
    the first value of a meaning counts: what a visitor writes there cannot pass for another field. A footer (`-- `, or
    a line of dashes) ends it all.
    """
    told: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    value: list[str] | None = None
    is_message = False
    for line in text.split("\n")[:LINES_MAX]:
        if re.fullmatch(r"\s*[-_=]{2,}\s*", line[:200]):
            value = None
            continue
        found = _LABEL.match(line[:2_000])
        label = clean_value(found.group(1)).lower() if found is not None else ""
        meaning = labels.get(label)
        is_new = meaning is not None and meaning not in told
        is_other = found is not None and meaning is None and not is_message
        if found is not None and (is_new or is_other) and len(others) < FIELDS_MAX:
            rest = line.partition(":")[2].strip()
            value = [rest] if rest else []
            if meaning is None:
                others.setdefault(clean_value(found.group(1)), value)
            else:
                told[meaning] = value
            is_message = meaning == "message"
        elif value is not None:
            value.append(line)
    ignored = told.pop("ignore", None)
    del ignored
    return _joined(told), _joined(others)


def _labels(rule: FormMails) -> dict[str, Meaning]:
    """Return all labels in lower case with their meanings; the account's own come first."""
    return {**LABELS, **{name.strip().lower(): what for name, what in rule.fields.items()}}


def _joined(values: Mapping[str, list[str]]) -> dict[str, str]:
    joined = {name: "\n".join(lines).strip() for name, lines in values.items()}
    return {name: value for name, value in joined.items() if value}


def _address(text: str) -> str | None:
    """Return the address that a value is; `ada@example.com <mailto:ada@example.com>` is one too."""
    first = text.strip().split("\n")[0].split(" ")[0].strip("<>,;")
    return first if addresses.is_address(first) and "@" in first else None
