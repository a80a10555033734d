"""`inbound`, from outside: the one event that other systems may publish there themselves."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from schemas.payload import Field, Instant, Part, Payload
from schemas.topics import INBOUND

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]


def _absent(schema: dict[str, Any]) -> None:
    """A field may be left out; null is refused, so the schema names no default."""
    del schema["default"]


class SubmittedSender(Part):
    """Who wrote: a name, an address, and what kind of address that is."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, StringConstraints(max_length=255)] = ""
    address: Word
    kind: Literal["email", "phone", "vendor_id"] = "email"


class MessageSubmitted(Payload):
    """Another system hands over a customer's message: published on `inbound`, or POSTed to `/v1/events`.

    Where `id` is absent, the event's `source` and `id` name the message; where `occurred_at` is absent, the event's
    `time` stands in; where `account` is absent, it is `kafka` on the topic. `in_reply_to` and `references` name ids of
    the same account. Unlike in our own events, an unknown field is refused: it is a mistake in a program.
    """

    model_config = ConfigDict(extra="forbid")

    TYPE: ClassVar[str] = "message.submitted.v1"
    TOPIC: ClassVar[str] = INBOUND.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "account": "kiosk",
        "id": "case-17/3",
        "sender": {"name": "Ada", "address": "ada@example.com"},
        "subject": "My lamp never arrived",
        "text": "Where is order 1001?",
        "language": "en",
        "occurred_at": "2026-11-24T08:00:00Z",
    }

    account: Name | SkipJsonSchema[None] = Field(default=None, json_schema_extra=_absent)
    id: Word | SkipJsonSchema[None] = Field(default=None, json_schema_extra=_absent)
    sender: SubmittedSender
    subject: Annotated[str, StringConstraints(max_length=998)] = ""
    text: Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
    language: Annotated[str, StringConstraints(max_length=35)] = ""
    occurred_at: Instant | None = None
    in_reply_to: Word | SkipJsonSchema[None] = Field(default=None, json_schema_extra=_absent)
    references: tuple[Word, ...] = Field(default=(), max_length=50)

    def to_json(self) -> bytes:
        """Return the payload as UTF-8 JSON, without what is absent."""
        return self.__pydantic_serializer__.to_json(self, exclude_none=True)
