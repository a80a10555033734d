"""Our own web form: `POST /v1/forms/{key}`, as JSON or as a browser's `application/x-www-form-urlencoded`.

Fields: `name`, `email`, `subject`, `message`, `language` (ISO 639-1), `order`, and `extra`, an object of further names
and values. A browser's form may hold any other field too; those become `extra`. JSON with an unknown field is refused,
for it is a mistake in a program. A server may also send the fields as an event, `{"type": "ticket.submitted", "data":
{…}}`, and there `data` may hold further names as a browser's form may.

The origin proves nothing about the address somebody types, so a form's message is never verified, unless the form's own
server signed it (Standard Webhooks), and then it proves the server.
"""

import hashlib
import re
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl

import msgspec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from schemas.messages import MessageContent, Sender
from services.ingest.adapters import addresses, json_body, standard_webhooks
from services.ingest.adapters.channel import Capability, Channel, Delivery, Parsed, ParseError
from services.ingest.adapters.reading import instant
from services.ingest.core import language
from services.ingest.core.normalise import clean_text, clean_value

FIELDS_MAX: Final = 60
MESSAGE_LENGTH_MAX: Final = 100_000
KNOWN: Final = ("name", "email", "subject", "message", "language", "order")
LANGUAGE: Final = re.compile(r"^[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*$")

Short = Annotated[str, StringConstraints(max_length=998)]


class FormFields(BaseModel):
    """What a form holds. `email` must be one address; `message` must say something."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(max_length=255)] = ""
    email: Annotated[str, StringConstraints(max_length=320)]
    subject: Short = ""
    message: Annotated[str, StringConstraints(max_length=MESSAGE_LENGTH_MAX)]
    language: Annotated[str, StringConstraints(max_length=35)] = ""
    order: Annotated[str, StringConstraints(max_length=100)] = ""
    extra: dict[
        Annotated[str, StringConstraints(max_length=100)],
        Annotated[str, StringConstraints(max_length=5_000)],
    ] = Field(default_factory=dict, max_length=50)

    @field_validator("email")
    @classmethod
    def _one_address(cls, value: str) -> str:
        if not addresses.is_address(value.strip()):
            raise ValueError("is not one mail address")
        return value.strip()

    @field_validator("message")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not clean_text(value).strip():
            raise ValueError("is empty")
        return value

    @field_validator("language")
    @classmethod
    def _is_a_code(cls, value: str) -> str:
        if value and not LANGUAGE.match(value):
            raise ValueError("is not a language code such as `en` or `pt-BR`")
        return value


def media_type(headers: object) -> str:
    """Return the bare media type out of a Content-Type value, in lower case."""
    return str(headers or "").partition(";")[0].strip().lower()


def _unwrapped(body: bytes) -> bytes:
    """Return the fields of a form that a server sends as an event, `{"type": …, "data": {…}}`; others as they are.

    In an event the data's other names are the form's own, as in a browser's post.
    """
    json_body.check(body)
    try:
        whole = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        if "data" not in whole or "type" not in whole:
            return body
        data = msgspec.json.decode(whole["data"], type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body  # The reader of fields says what is wrong with it.
    if "locale" in data:
        data.setdefault("language", data.pop("locale"))
    given = data.pop("extra", {})
    extra = dict(given) if isinstance(given, dict) else {}
    for name in [name for name in data if name not in KNOWN]:
        value = data.pop(name)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            extra.setdefault(name, str(value))
    return msgspec.json.encode({**data, **({"extra": extra} if extra else {})})


def read_fields(body: bytes, content_type: str) -> FormFields:
    """Return a form's fields.

    Raises:
        ParseError: the body cannot be read, or a field is wrong; `field` names it.
    """
    if media_type(content_type) != "application/x-www-form-urlencoded":
        return json_body.read(_unwrapped(body), FormFields)
    try:
        pairs = parse_qsl(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"
        )
    except UnicodeDecodeError:
        raise ParseError("invalid_encoding", "body: is not UTF-8", "body") from None
    except ValueError:
        raise ParseError(
            "too_many_fields", f"body: has more than {FIELDS_MAX} fields", "body"
        ) from None
    fields: dict[str, object] = {}
    extra: dict[str, str] = {}
    for name, value in pairs:
        if name in KNOWN:
            fields.setdefault(name, value)
        else:
            extra.setdefault(name, value)
    try:
        return FormFields.model_validate({**fields, "extra": extra})
    except ValidationError as error:
        field, message = json_body.field_of(error)
        raise ParseError("invalid_field", f"{field}: {message}", field) from None


def _sent_at(delivery: Delivery) -> object:
    """Return the time that an event around a form's fields tells; None where there is none."""
    if media_type(delivery.headers.get("content-type")) == "application/x-www-form-urlencoded":
        return None
    try:
        whole = msgspec.json.decode(delivery.body, type=dict[str, msgspec.Raw])
        if "data" not in whole or "type" not in whole or "timestamp" not in whole:
            return None
        return msgspec.json.decode(whole["timestamp"], type=str | int | float)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _name_of(delivery: Delivery) -> str:
    """Return a form's name where nothing has named its input: the sender's own, or what was written."""
    return delivery.headers.get("webhook-id") or hashlib.sha256(delivery.body).hexdigest()[:32]


def parse(delivery: Delivery) -> Parsed:
    """Read a form. Its order number and further fields stand below the message, one a line, for people to see."""
    fields = read_fields(delivery.body, delivery.headers.get("content-type", ""))
    sender = Sender(name=clean_value(fields.name, 255), address=fields.email, kind="email")
    if sender.address.lower() in delivery.own_addresses:
        return Parsed(ignored="loop")
    message = clean_text(fields.message)
    below = [("order", fields.order), *sorted(fields.extra.items())]
    told = [
        f"{clean_value(name, 100)}: {clean_value(value)}" for name, value in below if value.strip()
    ]
    declared = fields.language[:2].lower()
    return Parsed(
        messages=(
            MessageContent(
                channel=delivery.channel,
                account=delivery.account,
                vendor_message_id=delivery.input_id or _name_of(delivery),
                kind="form",
                sender=sender,
                subject=clean_value(fields.subject),
                text="\n\n".join([message, "\n".join(told)]) if told else message,
                text_new=message,
                language=language.detect(message) or declared or language.detect(fields.subject),
                occurred_at=instant(_sent_at(delivery), delivery.received_at),
            ),
        ),
        verified=delivery.verified,
    )


CHANNEL = Channel(
    name="form",
    parse=parse,
    verify=standard_webhooks.verify_request,
    capability=Capability(can_reply=True, proof="Standard Webhooks"),
)
