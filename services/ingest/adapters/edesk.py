"""eDesk (formerly xSellco): what customers write on marketplaces and shops, by message-rule webhook and by poll.

Sources: eDesk's API reference (tickets, messages, pagination, rate limit) and its help page on message rules. The body of a
message rule's call is reported by integrators to hold metadata only: which message of which ticket. The message is read
through the API.

Verified: nothing about the call. eDesk signs nothing and lets no header be set, so the address holds a long random last
segment, compared in constant time. A message counts as verified once it was read through the API, and never before; the
mail address in a call is only a claim and is kept as one (`fields`), while a sender is known by eDesk's consumer id.

Not known: the call's headers, time-out, retries and duplicates; hence the poll, which alone is enough. The date filter of
the ticket list knows days in the account's time zone, while times are UTC: polls look a day further back and known messages
are dropped by their id. A message's id is unique within its type only, so it goes by both. There is no call that lists
a ticket's messages: each one costs a request, and 60 a minute are allowed.

Believed and not confirmed: `order_by`'s value (a setting), the meaning of `from_user`. Nothing was tried against a live
account.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Sender
from services.ingest.adapters import reading, signing
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

TICKETS_PAGE: Final = 10
"""Tickets a page: what one look can read within the quota of 60 requests a minute."""
REQUESTS_MAX: Final = 36
"""Requests after which one look takes up no further ticket; the rest of the page waits for the next."""
TICKET_MESSAGES_MAX: Final = 20
"""Messages of one ticket read in one look; the newest."""
OLD_IN_A_ROW: Final = 2
"""Messages older than what is looked for, before a ticket's earlier ones are left unread. More than one, because ids of
different types do not grow together."""
MESSAGE_AGE: Final = timedelta(hours=24)
"""How long before its ticket changed a message may have been written: marketplaces hand them over late."""
OVERLAP: Final = timedelta(minutes=10)
DONE_MAX: Final = 200

_MESSAGES: Final = frozenset({"Message", "ExternalMessage"})


class File(reading.Struct, frozen=True):
    """A message's file. `link` is a path inside of eDesk's own site."""

    name: str | None = None
    mime: str | None = None
    link: str | None = None


class Message(reading.Struct, frozen=True):
    """A message as the API returns it. `type` has some 35 values, two of which are messages."""

    id: str | int | None = None
    external_id: str | int | None = None
    ticket_id: str | int | None = None
    type: str | None = None
    direction: str | None = None
    subject: str | None = None
    body: str | None = None
    created_at: str | int | None = None
    from_consumer_id: str | int | None = None
    from_user: Any = None
    attachments: tuple[File, ...] | None = None


class Ticket(reading.Struct, frozen=True):
    """A ticket as the API returns it."""

    id: str | int | None = None
    subject: str | None = None
    type: str | None = None
    channel_id: str | int | None = None
    contact_id: str | int | None = None
    sales_order_id: str | int | None = None
    external_order_id: str | int | None = None
    last_updated_at: str | int | None = None
    messages_ids: tuple[str | int, ...] | None = None


class Incoming(reading.Struct, frozen=True):
    """A message rule's call: metadata, or somebody's own relay of a whole message (`data`)."""

    email: str | None = None
    name: str | None = None
    channel_title: str | None = None
    ticket_id: str | int | None = None
    message_id: str | int | None = None
    data: Message | None = None


class Kept(reading.Struct, frozen=True):
    """A message that we read, with what it needs of its ticket, and what the call claimed about the sender."""

    message: Message
    ticket: Ticket | None = None
    name: str | None = None
    email: str | None = None
    channel_title: str | None = None


class Settings(ChannelSettings):
    """An eDesk account. `secret` is the last segment of the address in the message rule; `own_ids` are our user ids.

    `api_token` comes from eDesk's dashboard and is needed for a call to become a message; `api_url` is where it counts.
    `poll` turns polling on, `poll_seconds` is how long it is from one poll to the next, `start` says what a first look
    takes, `order_by` is the name by which the ticket list is sorted.
    """

    api_url: str = "https://api.edesk.com/v1"
    api_token: SecretReference | None = None
    poll: bool = True
    poll_seconds: int = Field(default=120, ge=5, le=86_400)
    start: Literal["new", "all"] = "new"
    order_by: str = Field(default="last_updated_at", pattern=r"^[a-z_]{1,64}$")

    @property
    def can_read(self) -> bool:
        """Whether messages can be read through the API."""
        return self.api_token is not None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Compare the secret in the address; nothing is signed."""
    del now
    return signing.only(request, "POST") or signing.by_token(request, secrets)


def parse(delivery: Delivery) -> Parsed:
    """Read a message rule's call, or a message that we read through the API.

    Raises:
        ParseError: the body is no JSON object of these, or an id is missing; `field` names it.
    """
    if delivery.fetched == "message":
        return _of_kept(delivery, reading.json_as(delivery.body, Kept))
    said = reading.json_as(delivery.body, Incoming)
    if said.data is None:
        reading.identifier(said.message_id, "message_id")
        return Parsed(ignored="hint", verified=delivery.verified)
    reading.identifier(said.data.id, "data.id")
    return _of_kept(delivery, Kept(message=said.data, name=said.name, email=said.email))


def _of_kept(delivery: Delivery, kept: Kept) -> Parsed:
    is_verified = delivery.verified or delivery.fetched is not None
    reason = _left_out(kept.message, settings_of(delivery, Settings))
    if reason is not None:
        return Parsed(ignored=reason, verified=is_verified)
    message, ticket = kept.message, kept.ticket or Ticket()
    is_theirs = message.direction == "Incoming"
    consumer = message.from_consumer_id or ticket.contact_id
    content = reading.content(
        delivery,
        f"{message.type}:{reading.identifier(message.id, 'message.id')}",
        Sender(
            name=(kept.name or "") if is_theirs else "",
            address=reading.identifier(
                consumer if is_theirs else _user_of(message), "message.from_consumer_id"
            ),
            kind="vendor_id",
        ),
        reading.text_of(*_text_or_html(message.body)),
        subject=message.subject or ticket.subject or "",
        occurred_at=message.created_at,
        attachments=tuple(
            reading.attachment(one.name, one.mime, 0, one.link) for one in message.attachments or ()
        ),
        direction="inbound" if is_theirs else "outbound",
        recipients=() if is_theirs or consumer is None else (clean_value(str(consumer), 200),),
        thread=reading.identifier(message.ticket_id or ticket.id, "message.ticket_id"),
        fields=_fields(kept, ticket),
    )
    return Parsed(messages=(content,), verified=is_verified)


def _left_out(message: Message, settings: Settings) -> str | None:
    """Return why this is no message for us; None where it is one."""
    if message.type == "Note":
        return "internal_note"
    if message.type == "AutoReply":
        return "auto_reply"
    if message.type not in _MESSAGES or message.direction not in ("Incoming", "Outgoing"):
        return "not_a_message"
    if message.direction == "Outgoing":
        user = _user_of(message)
        if user is not None and user in settings.own_ids:
            return "echo"
        if user is None:
            return "not_a_message"  # Sent by a rule or by the marketplace: nobody of ours wrote it.
    return None


def _user_of(message: Message) -> str | None:
    """Return the id of the user who wrote it: a number, a text, or an object that has one."""
    user = message.from_user
    if isinstance(user, dict):
        user = user.get("id")
    is_id = isinstance(user, (int, str)) and not isinstance(user, bool)
    return str(user) if is_id and str(user).strip() else None


def _text_or_html(body: str | None) -> tuple[str | None, str | None]:
    """Return the body as text or as HTML; eDesk hands over both in one field, as the marketplace sent it."""
    text = (body or "").strip()
    is_html = text.startswith("<") or "</" in text or "<br" in text.lower()
    return (None, body) if is_html else (body, None)


def _fields(kept: Kept, ticket: Ticket) -> dict[str, str]:
    return {
        "order": str(ticket.external_order_id or ""),
        "sales_order_id": str(ticket.sales_order_id or ""),
        "ticket_type": ticket.type or "",
        "marketplace": kept.channel_title or "",
        "email": kept.email or "",
    }


# ------------------------------------------------------------------------------- reading back, polling


class MessageAnswer(reading.Struct, frozen=True):
    """One message."""

    data: Message


class TicketAnswer(reading.Struct, frozen=True):
    """One ticket."""

    data: Ticket


class Paginator(reading.Struct, frozen=True, rename="camel"):
    """Where a page stands; the first is number 1."""

    current_page: int = 1
    items_per_page: int = TICKETS_PAGE
    total_items_count: int = 0


class TicketPage(reading.Struct, frozen=True):
    """A page of tickets, the last changed first."""

    data: tuple[Ticket, ...] = ()
    paginator: Paginator | None = None


class Mark(reading.Struct, frozen=True):
    """How far a poll has come: it looks for what changed since `since`, began at `began`, and stands on `page`.

    `done` are tickets of this page that were read already, `floor` is where the first look began: nothing older is taken.
    A pass goes from the last changed ticket backwards, so what
    changes meanwhile moves to the front, where the next pass finds it.
    """

    since: str
    floor: str
    began: str | None = None
    page: int = 1
    done: tuple[str, ...] = ()


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read the message a call names, and its ticket.

    Raises:
        ApiProblem: the API could not be asked now, or the message is gone.
    """
    said = reading.json_as(delivery.body, Incoming)
    told = said.message_id if said.data is None else said.data.id
    message = await _message(api, reading.identifier(told, "message_id"))
    if _left_out(message, api.settings) is not None:
        return ()
    ticket = await _ticket(api, message.ticket_id or said.ticket_id)
    return (_fetched(message, ticket, said),)


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Look for messages of tickets that changed since the cursor; within the quota, the rest another time.

    Raises:
        ApiProblem: the API could not be asked now.
    """
    settings: Settings = api.settings
    if cursor is None:
        since = datetime(2000, 1, 1, tzinfo=UTC) if settings.start == "all" else now
        mark = Mark(since=since.isoformat(), floor=since.isoformat())
        return Page((), _cursor(mark), settings.start == "all")
    mark = msgspec.json.decode(cursor, type=Mark)
    since, floor = reading.instant(mark.since, now), reading.instant(mark.floor, now)
    began = mark.began or now.isoformat()
    page = await _tickets(api, mark.page, since)
    changed = [one for one in page.data if reading.instant(one.last_updated_at, now) >= since]
    items: list[Fetched] = []
    done = list(mark.done)
    requests = 1
    for ticket in changed:
        if str(ticket.id) in done:
            continue
        if requests >= REQUESTS_MAX:
            rest = msgspec.structs.replace(mark, began=began, done=tuple(done[-DONE_MAX:]))
            return Page(tuple(items), _cursor(rest), True)
        found, asked = await _news(api, ticket, max(floor, since - MESSAGE_AGE), now)
        items += found
        requests += asked
        done.append(str(ticket.id))
    if _is_last(page, mark.page, now, since):
        since = max(since, reading.instant(began, now) - OVERLAP)
        return Page(tuple(items), _cursor(Mark(since=since.isoformat(), floor=mark.floor)))
    following = msgspec.structs.replace(mark, began=began, page=mark.page + 1, done=())
    return Page(tuple(items), _cursor(following), True)


def _is_last(page: TicketPage, number: int, now: datetime, since: datetime) -> bool:
    """Whether nothing newer than `since` stands behind this page: it is the last, or sorted and already older."""
    size = page.paginator.items_per_page if page.paginator is not None else TICKETS_PAGE
    total = page.paginator.total_items_count if page.paginator is not None else 0
    if not page.data or number * max(1, size) >= total:
        return True
    times = [reading.instant(one.last_updated_at, now) for one in page.data]
    return times == sorted(times, reverse=True) and times[-1] < since


async def _news(
    api: Api, listed: Ticket, since: datetime, now: datetime
) -> tuple[list[Fetched], int]:
    """Return a ticket's messages since an instant, oldest first, and how many requests that took."""
    ticket = await _ticket(api, listed.id)
    if ticket is None:
        return [], 1
    found: list[Fetched] = []
    asked, old = 1, 0
    for message_id in sorted(ticket.messages_ids or (), key=_order, reverse=True):
        if old >= OLD_IN_A_ROW or asked > TICKET_MESSAGES_MAX:
            break
        asked += 1
        answer = await api.get(
            _url(api, "messages", message_id), headers=_headers(api), missing=True
        )
        if answer is None:
            continue
        message = shaped(answer, MessageAnswer).data
        if reading.instant(message.created_at, now) < since:
            old += 1
            continue
        old = 0
        if _left_out(message, api.settings) is None:
            found.append(_fetched(message, ticket, Incoming()))
    return found[::-1], asked


def _order(message_id: str | int) -> tuple[int, str]:
    text = str(message_id)
    return (int(text), "") if text.isascii() and text.isdigit() and len(text) < 20 else (0, text)


async def _tickets(api: Api, number: int, since: datetime) -> TicketPage:
    settings: Settings = api.settings
    day = (since - timedelta(days=1)).date()
    params = {
        "page": str(number),
        "itemsPerPage": str(TICKETS_PAGE),
        "order_by": settings.order_by,
        "order_direction": "desc",
        "filter_last_updated_at_gte": day.isoformat(),
    }
    url = f"{settings.api_url.rstrip('/')}/tickets"
    return shaped(await api.get(url, params=params, headers=_headers(api)), TicketPage)


async def _message(api: Api, message_id: str) -> Message:
    answer = await api.get(_url(api, "messages", message_id), headers=_headers(api))
    return shaped(answer, MessageAnswer).data


async def _ticket(api: Api, ticket_id: str | int | None) -> Ticket | None:
    if ticket_id is None:
        return None
    answer = await api.get(_url(api, "tickets", ticket_id), headers=_headers(api), missing=True)
    return shaped(answer, TicketAnswer).data if answer is not None else None


def _url(api: Api, what: str, name: str | int) -> str:
    settings: Settings = api.settings
    return f"{settings.api_url.rstrip('/')}/{what}/{quote(str(name), safe='')}"


def _headers(api: Api) -> dict[str, str]:
    token = api.secrets.get("api_token", "")
    if not token:
        raise ApiProblem("no_secret")
    return {"Authorization": f"Bearer {token}"}


def _fetched(message: Message, ticket: Ticket | None, said: Incoming) -> Fetched:
    about = None
    if ticket is not None:
        about = Ticket(
            id=ticket.id,
            subject=ticket.subject,
            type=ticket.type,
            contact_id=ticket.contact_id,
            sales_order_id=ticket.sales_order_id,
            external_order_id=ticket.external_order_id,
        )
    kept = Kept(
        message=message,
        ticket=about,
        name=said.name,
        email=said.email,
        channel_title=said.channel_title,
    )
    return Fetched(
        kind="message",
        name=f"{message.type}:{message.id}",
        body=msgspec.json.encode(kept),
        correspondent=str(message.from_consumer_id or message.ticket_id or ""),
    )


def _cursor(mark: Mark) -> str:
    return msgspec.json.encode(mark).decode("utf-8")


CHANNEL = Channel(
    name="edesk",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    poll=poll,
    polls=lambda settings: isinstance(settings, Settings) and settings.can_read and settings.poll,
    capability=Capability(
        supports_attachments=True, proof="secret in the address, read back through the API"
    ),
)
