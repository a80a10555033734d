"""A message in our own words: `POST /v1/messages`, for systems that have a channel we have no adapter for.

    {"channel": "kiosk", "account": "sales", "id": "case-17/3",
     "sender": {"name": "Ada", "address": "ada@example.com", "kind": "email"},
     "subject": "…", "text": "…", "language": "en", "occurred_at": "2026-11-24T08:00:00Z", "in_reply_to": "case-17/2"}

`id` is the system's own and names the message for ever: the same id is the same message. `in_reply_to` (and
`references`) name ids of the same account; a sender who takes part in that message's conversation joins it. The channel
and account must be in `channels.yaml` under `messages`. The sender is as verified as the key that posts is trusted.
"""

from datetime import UTC, timedelta
from typing import Annotated, Final, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
)

from schemas.messages import MessageContent, Sender
from services.ingest.adapters import addresses, json_body
from services.ingest.adapters.channel import Channel, Delivery, Parsed
from services.ingest.adapters.form import LANGUAGE
from services.ingest.core import language
from services.ingest.core.normalise import clean_text, clean_value, new_text

TEXT_LENGTH_MAX: Final = 100_000
FUTURE_MAX: Final = timedelta(days=1)

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]


class SubmittedSender(BaseModel):
    """Who wrote: a name, an address, and what kind of address that is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(max_length=255)] = ""
    address: Word
    kind: Literal["email", "phone", "vendor_id"] = Field(default="email", validate_default=True)

    @field_validator("kind")
    @classmethod
    def _fits(cls, value: str, info: ValidationInfo) -> str:
        if value == "email" and not addresses.is_address(info.data.get("address", "")):
            raise ValueError("is `email`, and the address is not one mail address")
        return value


class SubmittedMessage(BaseModel):
    """A message as another system submits it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channel: Name
    account: Name
    id: Word
    sender: SubmittedSender
    subject: Annotated[str, StringConstraints(max_length=998)] = ""
    text: Annotated[str, StringConstraints(max_length=TEXT_LENGTH_MAX)]
    language: Annotated[str, StringConstraints(max_length=35)] = ""
    occurred_at: AwareDatetime | None = None
    in_reply_to: Word | None = None
    references: tuple[Word, ...] = Field(default=(), max_length=50)

    @field_validator("text")
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


def content_of(message: SubmittedMessage, delivery: Delivery) -> MessageContent:
    """Return the message in the form that all channels share."""
    text = clean_text(message.text)
    fresh = new_text(text)
    at = message.occurred_at or delivery.received_at
    return MessageContent(
        channel=delivery.channel,
        account=delivery.account,
        vendor_message_id=message.id,
        sender=Sender(
            name=clean_value(message.sender.name, 255),
            address=message.sender.address,
            kind=message.sender.kind,
        ),
        subject=clean_value(message.subject),
        text=text,
        text_new=fresh,
        language=language.detect(fresh)
        or message.language[:2].lower()
        or language.detect(message.subject),
        in_reply_to=message.in_reply_to,
        references=message.references,
        occurred_at=at.astimezone(UTC)
        if at <= delivery.received_at + FUTURE_MAX
        else delivery.received_at,
    )


def parse(delivery: Delivery) -> Parsed:
    """Read a submitted message.

    Raises:
        ParseError: a field is wrong; `field` names it.
    """
    message = json_body.read(delivery.body, SubmittedMessage)
    return Parsed(messages=(content_of(message, delivery),), verified=delivery.verified)


CHANNEL = Channel(name="message", parse=parse)
