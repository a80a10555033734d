"""What the adapters' `parse` functions share: JSON as structs, instants of every style, texts made safe.

Vendors add fields at any time, so structs take what they name and leave the rest. `Loose` types accept a number where a
text is meant, as vendors do.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from schemas.messages import Attachment, MessageContent, Sender
from services.ingest.adapters import json_body
from services.ingest.adapters.channel import Delivery, Parsed, ParseError
from services.ingest.core import language
from services.ingest.core.normalise import clean_text, clean_value, html_to_text, new_text

T = TypeVar("T")

OLDEST: Final = datetime(1995, 1, 1, tzinfo=UTC)
FUTURE_MAX: Final = timedelta(days=1)
ID_LENGTH_MAX: Final = 200
ADDRESS_LENGTH_MAX: Final = 320
URL_LENGTH_MAX: Final = 2_000
ATTACHMENTS_MAX: Final = 100
FORM_FIELDS_MAX: Final = 500

_ISO: Final = re.compile(
    r"^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}(?::\d{2})?)(?:[.,](\d{1,9})\d*)?\s*(Z|z|[+-]\d{2}:?\d{2})?$"
)


class Struct(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The base of what a vendor sends: unknown fields are left, names are the vendor's own."""


def json_as(body: bytes, kind: type[T]) -> T:
    """Return a JSON body as `kind`, bounded before it is parsed; numbers count as texts and the other way round.

    Raises:
        ParseError: no JSON, nested too deeply, or not of that shape; the path of the wrong field is said, no value.
    """
    json_body.check(body)
    try:
        return msgspec.json.decode(body, type=kind, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        field = where.rstrip("`") or "body"
        raise ParseError("invalid_field", f"{field}: {_without_values(what)}", field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ParseError("invalid_json", "body: is not JSON", "body") from None


def json_of(body: bytes) -> Any:
    """Return a JSON body as plain objects, bounded before it is parsed.

    Raises:
        ParseError: no JSON, or nested too deeply.
    """
    return json_as(body, Any)


_NAMED_VALUE: Final = re.compile(
    r"(?:Invalid enum value|Invalid value|unknown variant) .*", re.DOTALL
)


def _without_values(message: str) -> str:
    return _NAMED_VALUE.sub("is none of the known values", message)[:200]


def form_of(body: bytes) -> dict[str, str]:
    """Return the pairs of an `application/x-www-form-urlencoded` body; the first of a name counts.

    Raises:
        ParseError: it is not UTF-8, or has too many fields.
    """
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),
            keep_blank_values=True,
            max_num_fields=FORM_FIELDS_MAX,
            errors="strict",
        )
    except UnicodeDecodeError:
        raise ParseError("invalid_encoding", "body: is not UTF-8", "body") from None
    except ValueError:
        raise ParseError(
            "too_many_fields", f"body: has more than {FORM_FIELDS_MAX} fields", "body"
        ) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def instant(value: object, default: datetime) -> datetime:
    """Return a vendor's time in UTC: ISO 8601 (with nanoseconds, without offset: UTC), or a number of seconds,
    milliseconds, micro- or nanoseconds since 1970, as number or text. What is absurd or missing is `default`.
    """
    found = _instant(value)
    if found is None or not OLDEST <= found <= default + FUTURE_MAX:
        return default.astimezone(UTC)
    return found


def _instant(value: object) -> datetime | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, (int, float)):
        return _since_1970(float(value))
    if not isinstance(value, str):
        return None
    text = value.strip()
    if re.fullmatch(r"\d{1,20}(?:\.\d{1,9})?", text):
        return _since_1970(float(text))
    found = _ISO.match(text)
    if found is None:
        return None
    day, clock, fraction, zone = found.groups()
    clock = clock if len(clock) == 8 else f"{clock}:00"
    offset = (
        "+00:00" if zone in (None, "Z", "z") else zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
    )
    try:
        return datetime.fromisoformat(
            f"{day}T{clock}.{(fraction or '0')[:6].ljust(6, '0')}{offset}"
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _since_1970(number: float) -> datetime | None:
    for limit, unit in ((1e11, 1), (1e14, 1e3), (1e17, 1e6), (1e20, 1e9)):
        if 0 <= number < limit:
            try:
                return datetime.fromtimestamp(number / unit, UTC)
            except (ValueError, OverflowError, OSError):
                return None
    return None


def identifier(value: object, field: str) -> str:
    """Return a vendor's id as bounded text.

    Raises:
        ParseError: it is missing, empty, too long, or has control characters; `field` names it.
    """
    text = value if isinstance(value, str) else str(value) if isinstance(value, int) else ""
    text = text.strip()
    if not text or len(text) > ID_LENGTH_MAX or not text.isprintable():
        raise ParseError(
            "invalid_field",
            f"{field}: must be 1 to {ID_LENGTH_MAX} printable characters",
            field,
        )
    return text


def link(value: object) -> str | None:
    """Return an http(s) address that people may follow; None for anything else."""
    if not isinstance(value, str) or len(value) > URL_LENGTH_MAX:
        return None
    text = value.strip()
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
    return text if is_web and text.isprintable() and " " not in text else None


def attachment(
    name: object = "", media_type: object = "", size: object = 0, url: object = None
) -> Attachment:
    """Return what a vendor tells of a file, made safe to show."""
    kind = clean_value(media_type, 100).lower() if isinstance(media_type, str) else ""
    shown = clean_value(name, 255) if isinstance(name, str) else ""
    number = (
        int(size)
        if isinstance(size, (int, str)) and str(size).isdigit() and len(str(size)) < 16
        else 0
    )
    return Attachment(
        name=shown or (kind or "file").replace("/", "."),
        media_type=kind or "application/octet-stream",
        size=number,
        url=link(url),
    )


def text_of(text: object = None, html: object = None) -> str:
    """Return what people read, out of plain text or else out of HTML."""
    if isinstance(text, str) and text.strip():
        return clean_text(text)
    return clean_text(html_to_text(html)) if isinstance(html, str) else ""


def _safe(value: Any) -> Any:
    """Return a further field as it can stand in an event: texts on one line, without control characters."""
    if isinstance(value, str):
        return clean_value(value)
    if isinstance(value, tuple):
        return tuple(_safe(inner) for inner in value)
    return value


def recent(
    items: Iterable[T],
    created: Callable[[T], object],
    name: Callable[[T], object],
    *,
    received_at: datetime,
    hours: float,
    most: int,
) -> tuple[T, ...]:
    """Return the things that may be news, oldest first: those not much older than the newest, at the most so many."""
    dated = sorted(
        ((instant(created(one), received_at), one) for one in items),
        key=lambda pair: (pair[0], str(name(pair[1]))),
    )
    if not dated:
        return ()
    since = dated[-1][0] - timedelta(hours=hours)
    return tuple(one for at, one in dated if at >= since)[-most:]


def concluded(outcomes: Iterable[MessageContent | str], *, verified: bool) -> Parsed:
    """Return the messages of a helpdesk's delivery; where there is none, the reason that says most."""
    reasons: list[str] = []
    messages: list[MessageContent] = []
    for outcome in outcomes:
        if isinstance(outcome, str):
            reasons.append(outcome)
        else:
            messages.append(outcome)
    if messages:
        return Parsed(messages=tuple(messages), verified=verified)
    first = next((one for one in ("echo", "internal_note") if one in reasons), "not_a_message")
    return Parsed(ignored=first, verified=verified)


def content(
    delivery: Delivery,
    vendor_message_id: str,
    sender: Sender,
    text: str,
    *,
    occurred_at: object = None,
    subject: str = "",
    text_new: str | None = None,
    declared_language: str | None = None,
    attachments: tuple[Attachment, ...] = (),
    fields: dict[str, str] | None = None,
    **more: Any,
) -> MessageContent:
    """Return a message with all that is the same on every channel: clean texts, language, an honest time.

    `text` is taken through `text_of` beforehand where it may be HTML. `text_new` is told apart from quotes by us where
    the channel quotes (give None), and is the text itself where it does not (give the text). `more` are further fields
    of `MessageContent`.
    """
    more = {name: _safe(value) for name, value in more.items()}
    body = clean_text(text)
    fresh = new_text(body) if text_new is None else clean_text(text_new)
    declared = (declared_language or "")[:2].lower()
    return MessageContent(
        channel=delivery.channel,
        account=delivery.account,
        vendor_message_id=clean_value(vendor_message_id, ID_LENGTH_MAX),
        sender=sender.model_copy(
            update={
                "name": clean_value(sender.name, 255),
                "address": clean_value(sender.address, ADDRESS_LENGTH_MAX),
            }
        ),
        subject=clean_value(subject),
        text=body,
        text_new=fresh,
        language=language.detect(fresh)
        or (declared if declared.isalpha() and declared.isascii() and len(declared) == 2 else None)
        or language.detect(subject),
        attachments=attachments[:ATTACHMENTS_MAX],
        occurred_at=instant(occurred_at, delivery.received_at),
        fields={
            clean_value(name, 100): clean_value(value)
            for name, value in list((fields or {}).items())[:50]
            if value.strip()
        },
        **more,
    )
