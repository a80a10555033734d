"""Our own web chat: the widget that a site embeds, as a channel. The gateway's side of it is `services.ingest.webchat`.

A delivery is what the gateway wrote of a visitor's message: the session, the widget's own id of the message, the text,
the page it was written on, and the mail address where the site's server proved one (`core.webchat`). A visitor without
such a proof is known by the session alone, and nothing they type about themselves is believed.
"""

from datetime import date, datetime, time
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from schemas.messages import Sender
from services.ingest.adapters import json_body, reading
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
)
from services.ingest.core.normalise import clean_text, clean_value

TEXT_LENGTH_MAX: Final = 4_000
"""Characters of one message; the widget says so before it is reached."""

SESSION_ID: Final = r"^[0-9a-f]{32}$"
CLIENT_ID: Final = r"^[A-Za-z0-9_-]{8,64}$"
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Language = Literal["en", "tr", "ru"]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
Origin = Annotated[str, StringConstraints(pattern=r"^(?:\*|https?://[^/\s*]+)$")]
Span = Annotated[
    str,
    StringConstraints(pattern=r"^(?:[01]\d|2[0-3]):[0-5]\d-(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)$"),
]


class Hours(BaseModel):
    """When somebody answers: spans of each weekday in `timezone`, and whole days off. A day without spans is closed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timezone: str
    mon: tuple[Span, ...] = ()
    tue: tuple[Span, ...] = ()
    wed: tuple[Span, ...] = ()
    thu: tuple[Span, ...] = ()
    fri: tuple[Span, ...] = ()
    sat: tuple[Span, ...] = ()
    sun: tuple[Span, ...] = ()
    closed: tuple[date, ...] = ()

    @field_validator("timezone")
    @classmethod
    def _exists(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is no zone of the IANA database, such as Europe/Istanbul") from None
        return value

    @field_validator(*DAYS)
    @classmethod
    def _ends_after_it_begins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for span in value:
            begins, _, ends = span.partition("-")
            if begins >= ends:
                raise ValueError(f"{span} ends before it begins; write two spans over midnight")
        return value


class Settings(ChannelSettings):
    """A widget. `secret` (and `previous_secret`) sign identity tokens; without one no visitor can be proved.

    `origins` are the sites that may embed it (`*`: any; none: only the gateway's own demo page). `offline` shows the form
    instead of the chat, whatever `hours` say. `greeting` and `title` are by language; those that are missing are the
    widget's own. `colour` is the button's and `position` its corner. `session_days` is how long a visitor's history is
    theirs, `demo` serves a page to try it on.
    """

    origins: tuple[Origin, ...] = ()
    title: dict[Language, Words] = Field(default_factory=dict)
    greeting: dict[Language, Words] = Field(default_factory=dict)
    colour: Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")] = "#0b57d0"
    position: Literal["right", "left"] = "right"
    offline: bool = False
    hours: Hours | None = None
    session_days: int = Field(default=30, ge=1, le=365)
    demo: bool = False


class Written(BaseModel):
    """A visitor's message as the gateway stored it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    session: Annotated[str, StringConstraints(pattern=SESSION_ID)]
    id: Annotated[str, StringConstraints(pattern=CLIENT_ID)]
    text: Annotated[str, StringConstraints(min_length=1, max_length=TEXT_LENGTH_MAX)]
    name: Annotated[str, StringConstraints(max_length=255)] = ""
    email: Annotated[str, StringConstraints(max_length=320)] = ""
    language: Annotated[str, StringConstraints(max_length=35)] = ""
    page: Annotated[str, StringConstraints(max_length=2_000)] = ""


def is_open(settings: Settings, now: datetime) -> bool:
    """Whether somebody is there to answer at `now`."""
    if settings.offline:
        return False
    hours = settings.hours
    if hours is None:
        return True
    local = now.astimezone(ZoneInfo(hours.timezone))
    if local.date() in hours.closed:
        return False
    spans: tuple[str, ...] = getattr(hours, DAYS[local.weekday()])
    return any(_holds(span, local.time()) for span in spans)


def _holds(span: str, at: time) -> bool:
    begins, _, ends = span.partition("-")
    return at >= time.fromisoformat(begins) and (ends == "24:00" or at < time.fromisoformat(ends))


def message_name(session_id: str, client_id: str) -> str:
    """Return the name a visitor's message goes by in events; it leads back to the session."""
    return f"{session_id}.{client_id}"


def session_of(vendor_message_id: str) -> str:
    """Return the session that a message's name belongs to; empty where it is none of ours."""
    session_id, dot, _ = vendor_message_id.partition(".")
    return session_id if dot and len(session_id) == 32 else ""


def parse(delivery: Delivery) -> Parsed:
    """Read a visitor's message.

    Raises:
        ParseError: a field is wrong, or the text says nothing; `field` names it.
    """
    written = json_body.read(delivery.body, Written)
    text = clean_text(written.text)
    if not text.strip():
        raise ParseError("invalid_field", "text: is empty", "text")
    is_proved = delivery.verified and bool(written.email)
    sender = Sender(
        name=written.name if is_proved else "",
        address=written.email if is_proved else written.session,
        kind="email" if is_proved else "vendor_id",
    )
    page = reading.link(written.page)
    return Parsed(
        messages=(
            reading.content(
                delivery,
                message_name(written.session, written.id),
                sender,
                text,
                text_new=text,
                declared_language=written.language,
                thread=written.session,
                url=page,
                fields={"page": clean_value(page)} if page else None,
            ),
        ),
        verified=is_proved,
    )


CHANNEL = Channel(
    name="webchat",
    parse=parse,
    settings=Settings,
    capability=Capability(
        reply_characters_max=100_000,
        proof="signed session token; an identity token (JWT, HS256) proves a mail address",
    ),
)
