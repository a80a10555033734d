"""Gorgias: what customers and staff write in tickets, by HTTP integration, read back through the API, and by poll.

Sources: Gorgias' developer pages on integrations, tickets, messages and rate limits. The body of an HTTP integration is a
template of our own; every value in it arrives as text (`"True"`, `"None"`), and an unknown placeholder may stand there as
it was written. We ask for ids only, and read the ticket back.

Verified: nothing. Gorgias documents no signature for these calls (a field `hmac_secret` exists, but neither its header nor
its encoding is public, so none is guessed). The integration sends a header with a secret that we made, compared in constant
time; a message counts as verified once it was read back through the API, and never before.

Gorgias documents no retry either: a call that we cannot take is lost. That is what the poll is for; it needs the same
credentials. Both bring the same message ids, so nothing comes twice.

Believed and not confirmed: triggers are spelled with hyphens (underscores are read as well), which of the channel names are
public, that a ticket's answer holds all of its messages. Nothing was tried against a live account.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Attachment, MessageContent, MessageKind, Sender
from services.ingest.adapters import addresses, reading, signing
from services.ingest.adapters.api import ApiProblem, shaped
from services.ingest.adapters.channel import (
    Api,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
    Parsed,
    Request,
    SecretReference,
    Verdict,
    settings_of,
)
from services.ingest.core.normalise import clean_value

MESSAGES_MAX: Final = 50
"""Messages taken over for one hint; the newest."""
PAGE_SIZE: Final = 100
"""Messages a page of the API, the most there are."""
OVERLAP: Final = timedelta(minutes=10)
"""How far a poll looks back behind what it has seen: a message may show up later than it was made."""
RECIPIENTS_MAX: Final = 50

_NEWS: Final = frozenset({"ticket-created", "ticket-message-created", "ticket-handed-over"})
_CHANGES: Final = frozenset({
    "ticket-updated", "ticket-self-unsnoozed", "ticket-message-failed", "ticket-assignment-updated",
    "ticket-status-updated",
})  # fmt: skip
_COMMENTS: Final = frozenset({
    "facebook", "facebook-comment", "facebook-post", "facebook-mention", "instagram-comment", "instagram-ad-comment",
    "instagram-mention", "instagram-mention-comment", "twitter",
})  # fmt: skip
_REVIEWS: Final = frozenset({
    "facebook-recommendations", "facebook-review", "facebook-review-comment", "yotpo-review",
})  # fmt: skip
_CALLS: Final = frozenset({"phone", "aircall"})


class Person(reading.Struct, frozen=True):
    """A customer or a user of the helpdesk."""

    id: str | int | None = None
    name: str | None = None
    email: str | None = None


class End(reading.Struct, frozen=True):
    """An address on the channel that a message took."""

    address: str | None = None
    name: str | None = None


class Source(reading.Struct, frozen=True):
    """The way a message took."""

    type: str | None = None
    from_: End | None = msgspec.field(default=None, name="from")
    to: tuple[End, ...] | None = None


class File(reading.Struct, frozen=True):
    """A message's file."""

    url: str | None = None
    name: str | None = None
    content_type: str | None = None
    size: int | None = None


class Message(reading.Struct, frozen=True):
    """A message as the API returns it. Its times have no offset and are UTC."""

    id: str | int | None = None
    ticket_id: str | int | None = None
    external_id: str | None = None
    public: bool = True
    channel: str | None = None
    via: str | None = None
    source: Source | None = None
    sender: Person | None = None
    receiver: Person | None = None
    from_agent: bool = False
    subject: str | None = None
    body_text: str | None = None
    body_html: str | None = None
    attachments: tuple[File, ...] | None = None
    failed_datetime: str | None = None
    created_datetime: str | None = None


class Ticket(reading.Struct, frozen=True):
    """A ticket as the API returns it."""

    id: str | int | None = None
    subject: str | None = None
    channel: str | None = None
    customer: Person | None = None
    messages: tuple[Message, ...] | None = None


class Incoming(reading.Struct, frozen=True):
    """Our template, or a ticket or message that somebody's template holds whole (`tojson`)."""

    trigger: str | None = None
    ticket_id: str | int | None = None
    last_message_datetime: str | None = None
    ticket: Ticket | None = None
    message: Message | None = None


class Kept(reading.Struct, frozen=True):
    """A message that we read back, with what it needs of its ticket."""

    ticket: Ticket
    message: Message


class Settings(ChannelSettings):
    """A Gorgias account. `secret` is what its integration's header shows; `own_ids` are user ids under which we reply.

    `domain` is the account's (`https://<domain>.gorgias.com`); `api_url` takes its place where it differs. `api_user` and
    `api_key` are the address and key of the REST API; a key without a user is an OAuth access token. Our own replies carry
    an `external_id` that begins with `own_prefix`. `look_back_hours` is how much older than the newest message of a ticket
    another one may be, to be taken as missed. `start` says what a first poll takes, `poll_seconds` how long it is from one
    poll to the next.
    """

    domain: str = Field(default="", pattern=r"^(?:[a-z0-9][a-z0-9-]{0,62})?$")
    api_url: str = ""
    api_user: str = ""
    api_key: SecretReference | None = None
    own_prefix: str = Field(default="signalbox:", min_length=1)
    look_back_hours: int = Field(default=24, ge=1, le=720)
    start: Literal["new", "all"] = "new"
    poll_seconds: int = Field(default=120, ge=5, le=86_400)

    @property
    def base(self) -> str:
        """The address of the account, without a slash at its end; empty where none is named."""
        given = self.api_url or (f"https://{self.domain}.gorgias.com" if self.domain else "")
        return given.rstrip("/")

    @property
    def can_read(self) -> bool:
        """Whether tickets can be read back."""
        return bool(self.base) and self.api_key is not None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Compare the secret that the integration shows; nothing is signed."""
    del now
    return signing.only(request, "POST") or signing.by_token(request, secrets)


def parse(delivery: Delivery) -> Parsed:
    """Read our template's call, or a message that we read back.

    Raises:
        ParseError: the body is no JSON object of these, or the ticket's id is missing; `field` names it.
    """
    if delivery.fetched == "message":
        kept = reading.json_as(delivery.body, Kept)
        return _parsed(delivery, kept.ticket, (kept.message,))
    said = reading.json_as(delivery.body, Incoming)
    trigger = _trigger(said)
    if trigger in _CHANGES:
        return Parsed(ignored="status", verified=delivery.verified)
    if trigger and trigger not in _NEWS:
        return Parsed(ignored="unknown_event", verified=delivery.verified)
    ticket, messages = _whole(said)
    reading.identifier(_ticket_id(said), "ticket_id")
    if not messages:
        return Parsed(ignored="hint", verified=delivery.verified)
    return _parsed(delivery, ticket, _recent(messages, delivery))


def _trigger(said: Incoming) -> str:
    return _given(said.trigger).lower().replace("_", "-")


def _given(value: str | int | None) -> str:
    """Return a template's value; empty where it is missing (`None`) or the placeholder was left in place."""
    text = str(value if value is not None else "").strip()
    return "" if text == "None" or ("{{" in text and "}}" in text) else text


def _ticket_id(said: Incoming) -> str:
    inner = said.ticket.id if said.ticket is not None else None
    outer = said.message.ticket_id if said.message is not None else None
    return _given(said.ticket_id) or _given(inner) or _given(outer)


def _whole(said: Incoming) -> tuple[Ticket, tuple[Message, ...]]:
    """Return the ticket and messages that a call holds whole, where it does."""
    ticket = said.ticket or Ticket(id=_ticket_id(said))
    found = (said.message,) if said.message is not None else (ticket.messages or ())
    return ticket, tuple(one for one in found if one.id is not None)


def _recent(messages: tuple[Message, ...], delivery: Delivery) -> tuple[Message, ...]:
    return reading.recent(
        messages,
        lambda one: one.created_datetime,
        lambda one: one.id,
        received_at=delivery.received_at,
        hours=settings_of(delivery, Settings).look_back_hours,
        most=MESSAGES_MAX,
    )


def _parsed(delivery: Delivery, ticket: Ticket, messages: tuple[Message, ...]) -> Parsed:
    settings = settings_of(delivery, Settings)
    return reading.concluded(
        (_left_out(one, settings) or _content(delivery, ticket, one) for one in messages),
        verified=delivery.verified or delivery.fetched is not None,
    )


def _left_out(message: Message, settings: Settings) -> str | None:
    """Return why a message is none for us; None where it is one."""
    if not message.public or message.channel == "internal-note":
        return "internal_note"
    if message.from_agent:
        writer = message.sender
        is_own = writer is not None and {str(writer.id), writer.email} & set(settings.own_ids)
        if is_own or (message.external_id or "").startswith(settings.own_prefix):
            return "echo"
        if message.failed_datetime is not None:
            return "not_a_message"
    return None


def _content(delivery: Delivery, ticket: Ticket, message: Message) -> MessageContent:
    settings = settings_of(delivery, Settings)
    ticket_id = reading.identifier(message.ticket_id or ticket.id, "ticket_id")
    channel = message.channel or ticket.channel or ""
    is_review, is_comment = channel in _REVIEWS, channel in _COMMENTS
    return reading.content(
        delivery,
        reading.identifier(message.id, "message.id"),
        _sender(message, ticket),
        reading.text_of(message.body_text, message.body_html),
        subject=message.subject or ticket.subject or "",
        occurred_at=message.created_datetime,
        attachments=tuple(_file(one) for one in message.attachments or ()),
        direction="outbound" if message.from_agent else "inbound",
        kind=_kind(channel, is_review=is_review, is_comment=is_comment),
        visibility="public" if is_review or is_comment else "private",
        recipients=_recipients(message, ticket),
        thread=ticket_id,
        url=f"{settings.base}/app/ticket/{quote(ticket_id, safe='')}" if settings.base else None,
        fields={"channel": channel, "via": message.via or ""},
    )


def _kind(channel: str, *, is_review: bool, is_comment: bool) -> MessageKind:
    if is_review:
        return "review"
    if is_comment:
        return "comment"
    return "call" if channel in _CALLS else "message"


def _sender(message: Message, ticket: Ticket) -> Sender:
    person = message.sender or (Person() if message.from_agent else ticket.customer or Person())
    if person.email and addresses.is_address(person.email):
        return Sender(name=person.name or "", address=person.email, kind="email")
    end = message.source.from_ if message.source is not None else None
    if person.id is None and end is not None and end.address and addresses.is_address(end.address):
        return Sender(name=end.name or "", address=end.address, kind="email")
    return Sender(
        name=person.name or "",
        address=reading.identifier(person.id, "message.sender.id"),
        kind="vendor_id",
    )


def _recipients(message: Message, ticket: Ticket) -> tuple[str, ...]:
    """Return whom a reply went to, or at which of our addresses a customer wrote."""
    ends = (message.source.to or ()) if message.source is not None else ()
    named = tuple(clean_value(end.address, 320) for end in ends[:RECIPIENTS_MAX] if end.address)
    if named or not message.from_agent:
        return named
    customer = message.receiver or ticket.customer or Person()
    told = clean_value(str(customer.email or customer.id or ""), 320)
    return (told,) if told else ()


def _file(file: File) -> Attachment:
    return reading.attachment(file.name, file.content_type, file.size, file.url)


# ------------------------------------------------------------------------------- reading back, polling


class PageMeta(reading.Struct, frozen=True):
    """Where the next page begins."""

    next_cursor: str | None = None


class MessagePage(reading.Struct, frozen=True):
    """A page of all messages, newest first."""

    data: tuple[Message, ...] = ()
    meta: PageMeta | None = None


class Mark(reading.Struct, frozen=True):
    """How far a poll has come. `next_page` and `reached` are set while it is still walking back from the newest."""

    since: str
    next_page: str | None = None
    reached: str | None = None


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read a ticket's recent messages, each as a delivery of its own.

    Raises:
        ApiProblem: the API could not be asked now, or the ticket is gone.
    """
    said = reading.json_as(delivery.body, Incoming)
    trigger = _trigger(said)
    if trigger and trigger not in _NEWS:
        return ()
    settings: Settings = api.settings
    ticket_id = reading.identifier(_ticket_id(said), "ticket_id")
    answer = await api.get(
        f"{settings.base}/api/tickets/{quote(ticket_id, safe='')}", headers=_authorisation(api)
    )
    ticket = shaped(answer, Ticket)
    return tuple(
        _fetched(ticket, message)
        for message in _recent(ticket.messages or (), delivery)
        if _left_out(message, settings) is None
    )


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Look for messages made since the cursor, newest first, a page at a time.

    Raises:
        ApiProblem: the API could not be asked now.
    """
    settings: Settings = api.settings
    if cursor is None:
        since = datetime(2000, 1, 1, tzinfo=UTC) if settings.start == "all" else now
        mark = Mark(since=since.isoformat())
        if settings.start == "new":
            return Page((), _cursor(mark))
    else:
        mark = _mark(cursor)
    since = reading.instant(mark.since, now)
    reached = mark.reached or max(since, now - OVERLAP).isoformat()
    params = {"limit": str(PAGE_SIZE), "order_by": "created_datetime:desc"}
    if mark.next_page is not None:
        params["cursor"] = mark.next_page
    try:
        answer = await api.get(
            f"{settings.base}/api/messages", params=params, headers=_authorisation(api)
        )
    except ApiProblem as problem:
        if mark.next_page is None or not problem.is_final:
            raise
        # The page's own cursor is refused: begin again at the newest message; what comes twice is known by its id.
        return Page((), _cursor(Mark(since=mark.since)), True)
    page = shaped(answer, MessagePage)
    news = [one for one in page.data if reading.instant(one.created_datetime, now) >= since]
    items = tuple(
        _fetched(Ticket(id=one.ticket_id), one)
        for one in reversed(news)
        if one.id is not None and _left_out(one, settings) is None
    )
    next_page = page.meta.next_cursor if page.meta is not None else None
    if next_page is None or not page.data or len(news) < len(page.data):
        return Page(items, _cursor(Mark(since=reached)))
    return Page(items, _cursor(Mark(since=mark.since, next_page=next_page, reached=reached)), True)


def _cursor(mark: Mark) -> str:
    return msgspec.json.encode(mark).decode("utf-8")


def _mark(cursor: str) -> Mark:
    return msgspec.json.decode(cursor, type=Mark)


def _fetched(ticket: Ticket, message: Message) -> Fetched:
    about = Ticket(
        id=ticket.id, subject=ticket.subject, channel=ticket.channel, customer=ticket.customer
    )
    person = (message.receiver if message.from_agent else message.sender) or ticket.customer
    return Fetched(
        kind="message",
        name=f"message:{message.id}",
        body=msgspec.json.encode(Kept(ticket=about, message=message)),
        correspondent=(person.email or str(person.id or "")) if person is not None else "",
    )


def _authorisation(api: Api) -> dict[str, str]:
    settings: Settings = api.settings
    key = api.secrets.get("api_key", "")
    if not key:
        raise ApiProblem("no_secret")
    if not settings.api_user:
        return {"Authorization": f"Bearer {key}"}
    pair = f"{settings.api_user}:{key}".encode()
    return {"Authorization": f"Basic {base64.b64encode(pair).decode('ascii')}"}


CHANNEL = Channel(
    name="gorgias",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    poll=poll,
    polls=lambda settings: isinstance(settings, Settings) and settings.can_read,
    capability=Capability(
        supports_attachments=True, proof="shared token in a header, read back through the API"
    ),
)
