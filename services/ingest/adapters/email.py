"""Mail: a raw message (RFC 5322, MIME) becomes what a person wrote, or a report, or a reason to leave it.

Sources of the outside facts: RFC 5322 (fields, threading), RFC 2045 to 2049, 2231 (MIME), RFC 8601
(Authentication-Results). What machines write is told apart in `automatic` and `bounces`, the shapes of mail in `mime`,
wrapped mail in `tnef`, calendars in `invitations`, quotes in `core.quotes`.

Verified means: a receiving server that we trust says in its Authentication-Results that DMARC passed for the address in
From. Without such a server (`trusted_servers` empty) no mail is verified, and it is answered all the same. What that
server found stands in the message's `fields` as `auth_spf`, `auth_dkim` and `auth_dmarc`.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from html import escape
from typing import Final

import nh3

from schemas import reply_token
from schemas.messages import Attachment, MessageContent, MessageKind, Sender
from services.ingest.adapters import (
    addresses,
    automatic,
    bounces,
    invitations,
    mail_rules,
    mime,
    tnef,
)
from services.ingest.adapters.channel import Capability, Channel, Delivery, Parsed, ParseError
from services.ingest.adapters.mime import Part
from services.ingest.core import identity, language
from services.ingest.core.normalise import (
    QUOTE_CLASSES,
    QUOTE_IDS,
    TEXT_LENGTH_MAX,
    clean_lines,
    clean_text,
    clean_value,
    html_lines,
)
from services.ingest.core.quotes import Mark, is_forward, new_lines

ID_LENGTH_MAX: Final = 200
"""Characters of a vendor's id in our events; longer Message-IDs are shortened by a digest."""
HTML_CHARACTERS_MAX: Final = 500_000
HTML_TAGS_MAX: Final = 30_000
HTML_ENTITIES_MAX: Final = 30_000
HTML_DEPTH_MAX: Final = 400
HTML_TAG_LENGTH_MAX: Final = 10_000
"""Past any of these the text is taken without the tags: a tree that deep or wide is no letter, and parsers are slow on it."""
HTML_KEPT_MAX: Final = 200_000
CONTENT_BYTES_MAX: Final = 750_000
"""Bytes of a message's content as JSON, so that its event fits into a record with room to spare."""
BYTES_A_CHARACTER: Final = 6
"""The most that one character takes in JSON."""
ATTACHMENTS_MAX: Final = 100
REFERENCES_MAX: Final = 100
PASSED_ON_MAX: Final = 2
"""Mails within a mail that are opened for their text, where the outer one has none."""
OLDEST_DATE: Final = datetime(1995, 1, 1, tzinfo=UTC)
FUTURE_MAX: Final = timedelta(days=1)
DIGESTED_AT_A_TIME: Final = 1024 * 1024

_KNOWN_FIELDS: Final = frozenset({
    "from", "to", "date", "subject", "message-id", "received", "return-path", "mime-version", "content-type",
    "sender", "reply-to", "delivered-to", "cc",
})  # fmt: skip
_ID_IN: Final = re.compile(r"<\s*([^<>\s]{1,998})\s*>")
_ADDRESS_IN: Final = re.compile(r"<([^<>\s@]{1,64}@[^<>\s@]{1,189})>")
_TAG: Final = re.compile(r"<[^<>]{0,10000}>")
_LONG_TAG: Final = re.compile(rf"<[^<>]{{{HTML_TAG_LENGTH_MAX}}}")
# Tags that HTML closes by itself, or that hold nothing, nest nothing.
_NESTING: Final = re.compile(
    r"<(/?)(?!(?:p|li|td|tr|th|dd|dt|option|br|hr|img|meta|link|input|col|wbr|area|base|source)\b)[a-z]",
    re.IGNORECASE,
)
_METHOD: Final = re.compile(r"\b(spf|dkim|dmarc)\s*=\s*([a-z]{2,12})\b([^;]*)")
_DMARC_FROM: Final = re.compile(r"\bheader\.from\s*=\s*([^\s;]+)")
_SILENCED: Final = {"script", "style", "title", "template", "noscript"}
_CLEANER: Final = nh3.Cleaner(
    tags={
        "a", "abbr", "b", "blockquote", "br", "caption", "center", "code", "col", "dd", "div", "dl", "dt", "em", "h1",
        "h2", "h3", "h4", "h5", "h6", "hr", "i", "li", "ol", "p", "pre", "s", "small", "span", "strike", "strong",
        "sub", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "tt", "u", "ul",
    },
    attributes={"a": {"href"}, "td": {"colspan", "rowspan"}, "th": {"colspan", "rowspan"}},
    # The marks by which mail programs tell quotes apart: whoever shows the mail can fold them away.
    allowed_classes={tag: {*QUOTE_CLASSES, "gmail_quote"} for tag in ("div", "blockquote", "span", "p", "table")},
    tag_attribute_values={
        "div": {"id": set(QUOTE_IDS)},
        "p": {"id": set(QUOTE_IDS)},
        "span": {"id": set(QUOTE_IDS)},
        "blockquote": {"type": {"cite"}},
    },
    clean_content_tags=_SILENCED,
    url_schemes={"http", "https", "mailto", "tel"},
    link_rel="noopener noreferrer nofollow",
)  # fmt: skip


# ------------------------------------------------------------------------------------------- texts


def _is_monstrous(raw: str) -> bool:
    """Whether HTML is made to be slow: measured in one pass, before any parser sees it."""
    if (
        len(raw) > HTML_CHARACTERS_MAX
        or raw.count("<") > HTML_TAGS_MAX
        or raw.count("&") > HTML_ENTITIES_MAX
        or _LONG_TAG.search(raw) is not None
    ):
        return True
    if raw.count("<") <= HTML_DEPTH_MAX:
        return False
    depth = 0
    for found in _NESTING.finditer(raw):
        depth = max(0, depth + (-1 if found.group(1) else 1))
        if depth > HTML_DEPTH_MAX:
            return True
    return False


def _clean_html(raw: str) -> str:
    """Return HTML of an allow-list of tags: no scripts, no styles, no pictures, nothing that calls home."""
    if _is_monstrous(raw):
        bare = _TAG.sub(" ", raw[:HTML_CHARACTERS_MAX]).replace("&", " ")
        return f"<pre>{nh3.clean_text(bare)}</pre>"
    return _CLEANER.clean(raw).replace(' class=""', "").replace("\x00", "")


@dataclass(slots=True)
class _Body:
    """One stretch of a mail's text, in plain, in HTML, or in both."""

    plain: str = ""
    html: str = ""


def _is_shown(part: Part) -> bool:
    return part.disposition != "attachment" and not part.filename


def _bodies(part: Part) -> list[_Body]:
    """Return the texts that a reader is shown, in order; of alternatives both forms stand in one."""
    if not part.children:
        if part.media_type == "text/plain" and _is_shown(part):
            return [_Body(plain=part.text())]
        if part.media_type == "text/html" and _is_shown(part):
            return [_Body(html=part.text())]
        return []
    inner = [body for child in part.children for body in _bodies(child)]
    if part.media_type != "multipart/alternative":
        return inner
    plain = next((body.plain for body in inner if body.plain.strip()), "")
    html = "\n".join(body.html for body in inner if body.html)
    return [_Body(plain, html)] if plain or html else []


@dataclass(slots=True)
class _Text:
    """A mail's text: all of it, what is new in it, and its cleaned HTML."""

    whole: str
    fresh: str
    html: str | None


def _text_of(bodies: list[_Body], *, forward: bool) -> _Text:
    lines: list[str] = []
    marks: list[Mark] = []
    cleaned: list[str] = []
    has_html = any(body.html for body in bodies)
    alternative: tuple[list[str], list[Mark]] | None = None
    for body in bodies:
        html = _clean_html(body.html) if body.html else ""
        if html:
            cleaned.append(html)
        elif has_html and body.plain.strip():
            cleaned.append(f"<pre>{escape(clean_text(body.plain), quote=False)}</pre>")
        if body.plain.strip():
            more = clean_text(body.plain).split("\n")
            more_marks = [Mark.OWN] * len(more)
            if html and len(bodies) == 1 and not forward and _has_marks(html):
                alternative = html_lines(html)
        else:
            more, more_marks = html_lines(html) if html else ([], [])
            more = clean_lines(more)
        if not any(line.strip() for line in more):
            continue
        if lines:
            lines.append("")
            marks.append(Mark.OWN)
        lines += more
        marks += more_marks
    whole = "\n".join(lines)[:TEXT_LENGTH_MAX].strip("\n").rstrip()
    fresh = new_lines(lines, marks, is_forward=forward)[:TEXT_LENGTH_MAX]
    if alternative is not None and fresh == whole.strip():
        # No wording told what is quoted, and the markup does.
        marked = clean_text(new_lines(*alternative))
        fresh = marked if marked.strip() and len(marked) < 0.9 * len(fresh) else fresh
    html = "\n".join(cleaned)
    return _Text(whole, fresh, html if html and len(html) <= HTML_KEPT_MAX else None)


def _has_marks(html: str) -> bool:
    return "<blockquote" in html or ' class="' in html or ' id="' in html


def _wrapped(mail: Part) -> tnef.Unwrapped | None:
    """Return what stands in the first `winmail.dat`, where there is one that can be read."""
    for leaf in mail.leaves():
        if tnef.is_tnef(leaf.media_type, leaf.filename):
            found = tnef.read(leaf.payload())
            if found is not None:
                return found
    return None


def _invitation(mail: Part) -> invitations.Invitation | None:
    for leaf in mail.leaves():
        if leaf.media_type in invitations.MEDIA_TYPES:
            return invitations.read(leaf.text(), leaf.parameters.get("method", ""))
    return None


def _other_bodies(
    mail: Part, wrapped: tnef.Unwrapped | None, invited: invitations.Invitation | None, depth: int
) -> list[_Body]:
    """Return the text of a mail that shows none: out of its envelope, its calendar, a file, or the mail it carries."""
    if wrapped is not None and (wrapped.text.strip() or wrapped.html.strip()):
        return [_Body(wrapped.text, wrapped.html)]
    if invited is not None:
        return [_Body(invited.text)]
    for leaf in mail.leaves():
        if leaf.media_type in ("text/plain", "text/html") and leaf.disposition == "inline":
            text = leaf.text()
            return [_Body(text) if leaf.media_type == "text/plain" else _Body(html=text)]
    carried = bounces.find(mail, "message/rfc822", "message/global")
    if carried is None or depth >= PASSED_ON_MAX:
        return []
    try:
        inner = mime.read(carried.payload())
    except ParseError:
        return []
    shown = [
        f"{name.title()}: {clean_value(mime.decode_words(inner.first(name)))}"
        for name in ("from", "date", "subject")
        if inner.first(name)
    ]
    bodies = _bodies(inner)
    if not any(body.plain.strip() or body.html.strip() for body in bodies):
        bodies = _other_bodies(inner, _wrapped(inner), _invitation(inner), depth + 1)
    return [_Body("\n".join(shown)), *bodies] if shown else bodies


# ------------------------------------------------------------------------------------- attachments


@dataclass(frozen=True, slots=True)
class Attached:
    """A file in a mail. `data` gives its bytes, which are decoded only then."""

    name: str
    media_type: str
    size: int
    data: Callable[[], bytes]


_NAMES: Final = {"message/rfc822": "message.eml", "text/calendar": "invite.ics"}
_UNLISTED: Final = frozenset({
    "message/delivery-status", "message/global-delivery-status", "text/rfc822-headers",
    "message/disposition-notification", "message/global-disposition-notification", "message/feedback-report",
})  # fmt: skip


def _holding(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def _attached(mail: Part) -> Iterator[Attached]:
    """Return the files of a mail in order; those in a `winmail.dat` in its place."""
    for leaf in mail.leaves():
        is_text = leaf.media_type in {"text/plain", "text/html"}
        if leaf.media_type in _UNLISTED or (is_text and _is_shown(leaf)):
            continue
        name = leaf.filename
        if tnef.is_tnef(leaf.media_type, name):
            wrapped = tnef.read(leaf.payload())
            if wrapped is not None:
                for file in wrapped.files:
                    shown = file.name or file.media_type.replace("/", ".")
                    yield Attached(shown, file.media_type, len(file.data), _holding(file.data))
                continue
        if not name and leaf.media_type == "message/rfc822":
            name = _name_of_carried(leaf)
        name = name or _NAMES.get(leaf.media_type) or leaf.media_type.replace("/", ".")
        yield Attached(name, leaf.media_type, leaf.size(), leaf.payload)


def _name_of_carried(leaf: Part) -> str:
    try:
        fields = mime.read_fields(mime.header_of(leaf.head(mime.HEADER_BYTES_MAX)))
    except ParseError:
        return ""
    subject = next((value for name, value in fields if name == "subject"), "")
    shown = re.sub(r"[\\/:*?\"<>|]", "_", clean_value(mime.decode_words(subject), 100)).strip()
    return f"{shown}.eml" if shown else ""


def attached(raw: bytes) -> list[Attached]:
    """Return the files of a mail, in the order in which `parse` lists them; none where it cannot be read."""
    try:
        mail = mime.read(raw)
    except ParseError:
        return []
    return _limited(_attached(mail))


def _limited(files: Iterator[Attached]) -> list[Attached]:
    return [file for _, file in zip(range(ATTACHMENTS_MAX), files, strict=False)]


# ------------------------------------------------------------------------------------------ fields


def message_ids(field: str) -> list[str]:
    """Return the ids a field names, each as `<id>`; bare words count where there are no brackets at all."""
    text = clean_value(field, 40_000)
    found = [f"<{word}>" for word in _ID_IN.findall(text)]
    if not found and "<" not in text:
        found = [f"<{word}>" for word in text.split() if "@" in word]
    return list(dict.fromkeys(found))


def _shortened(identifier: str) -> str:
    if len(identifier) <= ID_LENGTH_MAX:
        return identifier
    digest = hashlib.sha256(identifier.encode("utf-8", "replace")).hexdigest()[:32]
    return f"{identifier[:120]}…{digest}>"


def _own_id(mail: Part, raw: bytes) -> str:
    """Return the Message-ID; where there is none that can be read, one made of what does not change on the way."""
    for field in mail.all("message-id"):
        found = message_ids(field)
        if found:
            return _shortened(found[0])
        bare = clean_value(field).strip("<>").replace(" ", "")
        if bare:
            return _shortened(f"<{bare}>")
    digest = hashlib.sha256()
    for name in ("from", "to", "cc", "date", "subject"):
        digest.update("\x1f".join(mail.all(name)).encode("utf-8", "replace") + b"\x1e")
    body = len(mime.header_of(raw)) + (len(raw) - len(raw.lstrip(b"\r\n")))
    for at in range(body, len(raw), DIGESTED_AT_A_TIME):
        digest.update(raw[at : at + DIGESTED_AT_A_TIME].translate(None, b"\r\n\t "))
    return f"<{digest.hexdigest()[:40]}@no-message-id.invalid>"


def _date(mail: Part, received_at: datetime) -> datetime:
    """Return the Date, or the time of receipt where that is missing or absurd."""
    try:
        at = parsedate_to_datetime(mail.first("date")[:200])
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        at = at.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return received_at
    return at if OLDEST_DATE <= at <= received_at + FUTURE_MAX else received_at


def _sender(mail: Part, delivery: Delivery) -> Sender:
    for field in ("from", "sender"):
        for mailbox in addresses.read(mail.first(field)):
            return Sender(name=mailbox.name, address=mailbox.address, kind="email")
    paths = [*_ADDRESS_IN.findall(mail.first("return-path")), delivery.envelope_from or ""]
    for address in paths:
        if addresses.is_address(address):
            name = clean_value(mime.decode_words(mail.first("from")), 255)
            return Sender(name=name, address=address, kind="email")
    return Sender(
        name=clean_value(mime.decode_words(mail.first("from")), 255), address="", kind="none"
    )


def sender_address(raw: bytes, envelope_from: str | None = None) -> str:
    """Return the normalised address a mail is from, by its header alone; empty where there is none.

    It is the key that keeps one correspondent's mails in order, and no more than that.
    """
    try:
        fields = mime.read_fields(mime.header_of(raw))
    except ParseError:
        fields = ()
    for wanted in ("from", "sender"):
        for name, value in fields:
            if name == wanted:
                for mailbox in addresses.read(value):
                    return identity.normalise_address("email", mailbox.address)
    return identity.normalise_address("email", envelope_from or "")


def _trusted_results(mail: Part, delivery: Delivery) -> str:
    """Return what the topmost field of a trusted server says: anybody may have written those below it."""
    if not delivery.trusted_servers:
        return ""
    for field in mail.all("authentication-results"):
        server, _, results = clean_value(field, 4_000).lower().partition(";")
        if server.split()[:1] and server.split()[0] in delivery.trusted_servers:
            return results
    return ""


def _is_verified(results: str, sender: Sender) -> bool:
    domain = sender.address.rpartition("@")[2].lower()
    for method, verdict, rest in _METHOD.findall(results):
        if method == "dmarc" and verdict == "pass":
            named = _DMARC_FROM.search(rest)
            return named is not None and named.group(1).rpartition("@")[2] == domain
    return False


def _authentication(results: str) -> dict[str, str]:
    """Return the results as fields; of several signatures one that passed speaks for all."""
    found: dict[str, str] = {}
    for method, verdict, _ in _METHOD.findall(results):
        name = f"auth_{method}"
        if name not in found or verdict == "pass":
            found[name] = verdict
    return found


# --------------------------------------------------------------------------------------------- parse


def _why_ignored(mail: Part, delivery: Delivery, sender: Sender, own_id: str) -> str | None:
    if mail.first("x-spam-flag").strip().lower().startswith("yes"):
        return "spam"
    own = delivery.own_addresses
    is_own = identity.without_detail(sender.address) in own
    loops = any(identity.without_detail(field.strip("<> ")) in own for field in mail.all("x-loop"))
    if (own and (is_own or loops)) or reply_token.find_in_message_id(own_id) is not None:
        return "loop"
    return None


def _fitted(content: MessageContent) -> MessageContent:
    """Return the content so that it fits into an event: first without HTML, then with less text."""
    characters = len(content.text) + len(content.text_new) + len(content.html or "")
    if (characters + 20_000) * BYTES_A_CHARACTER <= CONTENT_BYTES_MAX and len(
        content.recipients
    ) < 50:
        return content
    if len(content.__pydantic_serializer__.to_json(content)) <= CONTENT_BYTES_MAX:
        return content
    less = content.model_copy(update={"html": None})
    if len(less.__pydantic_serializer__.to_json(less)) <= CONTENT_BYTES_MAX:
        return less
    return less.model_copy(
        update={
            "text": less.text[:20_000],
            "text_new": less.text_new[:20_000],
            "references": less.references[-10:],
            "recipients": less.recipients[:50],
        }
    )


@dataclass(slots=True)
class _Said:
    """What a mail says and of which kind it is."""

    subject: str
    text: _Text
    kind: MessageKind
    automatic: str | None
    report: bounces.Report | None
    fields: dict[str, str]


def _said(mail: Part, delivery: Delivery, sender: Sender) -> _Said:
    wrapped, invited = _wrapped(mail), _invitation(mail)
    subject = clean_value(mime.decode_words(mail.first("subject")))
    if not subject and wrapped is not None:
        subject = wrapped.subject
    bodies = _bodies(mail)
    text = _text_of(bodies, forward=is_forward(subject))
    if not text.whole.strip():
        bodies = _other_bodies(mail, wrapped, invited, 0)
        text = _text_of(bodies, forward=is_forward(subject)) if bodies else text
    own = delivery.own_addresses
    reason = automatic.reason(
        mail, sender.address, subject, envelope_from=delivery.envelope_from, own_addresses=own
    )
    report = bounces.read(
        mail,
        sender.address,
        subject,
        text.whole,
        own_addresses=own,
        is_null_path=automatic.is_null_path(mail, delivery.envelope_from),
    )
    kind: MessageKind = "message"
    if report is not None:
        kind = "bounce" if report.bounce is not None else "auto_reply"
        reason = reason or report.reason
    elif reason in automatic.ANSWERING:
        kind = "auto_reply"
    fields = {**(invited.fields if invited else {}), **(report.fields if report else {})}
    return _Said(subject, text, kind, reason, report, fields)


def parse(delivery: Delivery) -> Parsed:
    """Read a mail.

    Raises:
        ParseError: it has no header that a mail has, or breaks a limit of `mime`.
    """
    raw = delivery.body
    mail = mime.read(raw)
    if not any(name in _KNOWN_FIELDS for name, _ in mail.fields):
        raise ParseError("no_header", "has none of the header fields of a mail", "header")
    sender = _sender(mail, delivery)
    own_id = _own_id(mail, raw)
    ignored = _why_ignored(mail, delivery, sender, own_id)
    if ignored is not None:
        return Parsed(ignored=ignored)
    said = _said(mail, delivery, sender)
    results = _trusted_results(mail, delivery)
    answers_to = [i for field in mail.all("in-reply-to") for i in message_ids(field)]
    references = [i for field in mail.all("references") for i in message_ids(field)]
    if said.report is not None and said.report.original is not None:
        answers_to.insert(0, said.report.original)
    content = MessageContent(
        channel=delivery.channel,
        account=delivery.account,
        vendor_message_id=own_id,
        kind=said.kind,
        sender=sender,
        recipients=_named(mail, "to", "cc"),
        subject=said.subject,
        text=said.text.whole,
        text_new=said.text.fresh,
        html=said.text.html,
        language=language.detect(said.text.fresh)
        or language.detect(f"{said.subject}\n{said.text.whole}"),
        attachments=tuple(
            Attachment(name=file.name, media_type=file.media_type, size=file.size)
            for file in _limited(_attached(mail))
        ),
        in_reply_to=answers_to[0] if answers_to else None,
        references=tuple(dict.fromkeys((*references, *answers_to[1:])))[-REFERENCES_MAX:],
        occurred_at=_date(mail, delivery.received_at),
        is_automatic=said.automatic is not None,
        automatic_reason=said.automatic,
        bounce=said.report.bounce if said.report is not None else None,
        fields={**said.fields, **_authentication(results), **_reply_to(mail, sender)},
    )
    is_verified = delivery.verified or _is_verified(results, sender)
    content, is_verified = mail_rules.apply(content, mail, delivery, is_verified)
    return Parsed(
        messages=(_fitted(content),),
        verified=is_verified,
        addressed_to=_addressed_to(mail, delivery),
    )


def _named(mail: Part, *names: str) -> tuple[str, ...]:
    """Return the addresses that fields name, each once."""
    found = (
        mailbox.address
        for name in names
        for field in mail.all(name)
        for mailbox in addresses.read(field)
    )
    return tuple(dict.fromkeys(found))[: addresses.ADDRESSES_MAX]


def _reply_to(mail: Part, sender: Sender) -> dict[str, str]:
    """Return where the writer wants answers, where that is another address than the one they wrote from."""
    for address in _named(mail, "reply-to"):
        if address.lower() != sender.address.lower():
            return {"reply_to": address}
    return {}


def _addressed_to(mail: Part, delivery: Delivery) -> tuple[str, ...]:
    named = _named(mail, "delivered-to", "x-original-to", "envelope-to")
    return tuple(dict.fromkeys((*delivery.envelope_to, *named)))[: addresses.ADDRESSES_MAX]


CHANNEL = Channel(
    name="email",
    parse=parse,
    capability=Capability(
        proof="the sender by DMARC, where a receiving server that we trust checked it"
    ),
)
