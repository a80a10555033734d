"""Zoho Desk: what customers and staff write in tickets, by webhook, read back through the API.

Sources: Zoho Desk's API documentation (webhooks, tickets, threads, the headers that every call needs) and integrators' code.
A webhook holds an array of events with the object as it is; a ticket's messages are its *threads*. What Zoho calls comments
are internal notes.

Verified: `X-ZDesk-JWT`, RS256, with a key that Zoho publishes for each data centre; `iss` is `orgId:<id>` and `aud` is
`webhookId:<id>`. Every Zoho customer can have such a token made, so an account names its organisation (and the webhook, as
soon as its id is known); without either the token shows only that some Zoho customer sent it, and the request counts as
unproved. `exp` and `iat` are told in milliseconds by the documentation and seen in seconds: both are read.

Not verified: the body, which the token does not cover. With API credentials every event is therefore only a hint and the
thread is read back; without them its own text becomes a message with `verified` false.

Zoho takes exactly 200 for an answer (202 and 204 count as failures), within five seconds; before it saves a webhook it asks
the address by GET. A 410, which ends the subscription, is never given.

A ticket's first message may come with `Ticket_Add` (as `firstThread`) and as a thread event; both carry the thread's id, so
it counts once. A ticket without a first thread is its description, under `ticket:<id>`.

Believed and not confirmed: where the keys of data centres other than the first are, the path of the token endpoint, that
`firstThread` holds an id in every edition, that threads are listed newest first. Nothing was tried against a live account.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Attachment, MessageContent, Sender
from services.ingest.adapters import addresses, jwt_proof, reading, signing
from services.ingest.adapters.api import ApiProblem, shaped
from services.ingest.adapters.channel import (
    Answer,
    Api,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Parsed,
    ParseError,
    Request,
    SecretReference,
    Verdict,
    settings_of,
)

TOKEN: Final = "x-zdesk-jwt"  # noqa: S105 - a header's name
EVENTS_MAX: Final = 500
"""Events taken from one delivery (an own bound)."""
THREADS_MAX: Final = 100
"""Threads read back for one delivery."""
THREADS_PAGE: Final = 100
"""Threads asked for when a ticket's first one is looked for."""

_THREAD_EVENTS: Final = frozenset({"Ticket_Thread_Add"})
_TICKET_EVENTS: Final = frozenset({"Ticket_Add"})
_NOTE_EVENTS: Final = frozenset({"Ticket_Comment_Add", "Ticket_Comment_Update"})
_KNOWN_AREAS: Final = frozenset(
    {"Ticket", "Contact", "Account", "Task", "Agent", "Department", "Call", "Event", "Article"}
)
_STAFF: Final = frozenset({"AGENT"})
_NOT_SENT: Final = frozenset({"DRAFT", "FAILED", "PENDING"})


class Author(reading.Struct, frozen=True, rename="camel"):
    """Who wrote a thread: `END_USER` or `AGENT`."""

    type: str | None = None
    id: str | int | None = None
    name: str | None = None
    email: str | None = None


class File(reading.Struct, frozen=True, rename="camel"):
    """An attachment; `href` needs the API's credentials."""

    id: str | int | None = None
    name: str | None = None
    size: str | int | None = None
    href: str | None = None


class Thread(reading.Struct, frozen=True, rename="camel"):
    """A message in a ticket."""

    id: str | int | None = None
    ticket_id: str | int | None = None
    channel: str | None = None
    direction: str | None = None
    visibility: str | None = None
    status: str | None = None
    content_type: str | None = None
    content: str | None = None
    plain_text: str | None = None
    summary: str | None = None
    author: Author | None = None
    responder_id: str | int | None = None
    from_email_address: str | None = None
    to: str | None = None
    created_time: str | int | None = None
    attachments: tuple[File, ...] | None = None


class Contact(reading.Struct, frozen=True, rename="camel"):
    """Whose ticket it is."""

    id: str | int | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None

    @property
    def name(self) -> str:
        """First and last name."""
        return " ".join(one for one in (self.first_name, self.last_name) if one)


class Ticket(reading.Struct, frozen=True, rename="camel"):
    """A ticket; events of threads hold no more of it than its id."""

    id: str | int | None = None
    ticket_number: str | int | None = None
    subject: str | None = None
    description: str | None = None
    email: str | None = None
    channel: str | None = None
    contact_id: str | int | None = None
    contact: Contact | None = None
    created_time: str | int | None = None
    web_url: str | None = None
    is_spam: bool | None = None
    first_thread: Thread | None = None


class Event(reading.Struct, frozen=True, rename="camel"):
    """One event; what `payload` is depends on `eventType`."""

    event_type: str | None = None
    event_time: str | int | None = None
    org_id: str | int | None = None
    payload: msgspec.Raw = msgspec.Raw(b"")


class Kept(reading.Struct, frozen=True, rename="camel"):
    """One message: a thread, or a ticket's description where there is none."""

    ticket: Ticket
    thread: Thread | None = None


class Threads(reading.Struct, frozen=True, rename="camel"):
    """A list of threads, without their texts."""

    data: tuple[Thread, ...] = ()


class Settings(ChannelSettings):
    """A Zoho Desk account. `own_ids` are agents' ids and mail addresses under which we write.

    `secret`, where one is given, has to stand at the end of the address besides the token. `org_id` and `webhook_id` are what
    the token must name. `api_url` is the data centre's address (`https://desk.zoho.eu`, …), `accounts_url` where tokens are
    had there; `keys_url` takes the place of the data centre's own keys. `client_id`, `client_secret` and `refresh_token` are
    a self client's, with the scope `Desk.tickets.READ`.
    """

    org_id: str = Field(default="", pattern=r"^[0-9]{0,30}$")
    webhook_id: str = Field(default="", pattern=r"^[0-9]{0,30}$")
    api_url: str = "https://desk.zoho.com"
    accounts_url: str = "https://accounts.zoho.com"
    keys_url: str = ""
    client_id: str = ""
    client_secret: SecretReference | None = None
    refresh_token: SecretReference | None = None

    @property
    def base(self) -> str:
        """The API's address, without a slash at its end."""
        return self.api_url.rstrip("/")

    @property
    def keys(self) -> str:
        """The address of the published keys."""
        return self.keys_url or f"{self.base}/.well-known/jwks.json"

    @property
    def can_read(self) -> bool:
        """Whether threads can be read back."""
        has_client = bool(self.client_id) and self.client_secret is not None
        return bool(self.org_id) and has_client and self.refresh_token is not None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Answer the GET before a webhook is saved; prove the token, and where the account has a secret, that it is shown."""
    if request.method.upper() in ("GET", "HEAD"):
        return signing.handshake(Answer(200))
    wrong = signing.only(request, "GET", "HEAD", "POST")
    if wrong is not None:
        return wrong
    if not secrets.get("jwks"):
        return signing.refused("no_secret")
    org_id, webhook_id = secrets.get("org_id", ""), secrets.get("webhook_id", "")
    claims = jwt_proof.check_rs256(
        request.headers.get(TOKEN, "").strip(),
        secrets["jwks"],
        issuers=[f"orgId:{org_id}"] if org_id else None,
        audience=f"webhookId:{webhook_id}" if webhook_id else None,
        now=now,
    )
    if isinstance(claims, str):
        return signing.refused(claims)
    if signing.secrets_of(secrets):
        is_shown = signing.by_token(request, secrets)
        if not is_shown.accepted:
            return is_shown
    name = _name_of(request.body)
    return signing.proved(name) if org_id or webhook_id else signing.shown(name)


def _name_of(body: bytes) -> str | None:
    """Return what a retry repeats: each event's type, object and time. It only names what was proved otherwise."""
    try:
        events = _events(body)
        parts = [
            f"{event.event_type}/{_object_id(event)}/{event.event_time}"
            for event in events
            if event.event_time is not None
        ]
    except ParseError:
        return None
    if not parts or len(parts) < len(events):
        return None
    digest = hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()
    return f"events:{digest[:32]}"


def _object_id(event: Event) -> str:
    return str(reading.json_as(_payload(event), Ticket).id)


def parse(delivery: Delivery) -> Parsed:
    """Read a webhook's events, or a thread or description that we read back.

    Raises:
        ParseError: the body is no JSON of these shapes, or an id is missing; `field` names it.
    """
    settings = settings_of(delivery, Settings)
    if delivery.fetched is not None:
        kept = [reading.json_as(delivery.body, Kept)]
        reasons: list[str] = []
    else:
        kept, reasons = _told(_events(delivery.body), settings)
        if settings.can_read and any(_left_out(one, settings) is None for one in kept):
            return Parsed(ignored="hint", verified=False)
    found: list[MessageContent] = []
    for one in kept:
        reason = _left_out(one, settings)
        if reason is not None:
            reasons.append(reason)
        else:
            found.append(_content(delivery, one))
    # The token does not cover the body: what was only told is never proved.
    is_verified = delivery.fetched is not None
    if found:
        return Parsed(messages=tuple(found), verified=is_verified)
    order = ("hint", "echo", "internal_note", "not_a_message", "spam", "other_account", "status")
    first = next((one for one in order if one in reasons), None)
    return Parsed(
        ignored=first or ("unknown_event" if reasons else "empty"), verified=delivery.verified
    )


def _events(body: bytes) -> tuple[Event, ...]:
    if not body.lstrip().startswith(b"["):
        return (reading.json_as(body, Event),)
    events = reading.json_as(body, tuple[Event, ...])
    if len(events) > EVENTS_MAX:
        raise ParseError("too_many_events", f"body: has more than {EVENTS_MAX} events", "body")
    return events


def _told(events: tuple[Event, ...], settings: Settings) -> tuple[list[Kept], list[str]]:
    """Return the messages that events hold, and why the others hold none."""
    kept: list[Kept] = []
    reasons: list[str] = []
    for event in events:
        kind = event.event_type or ""
        org_id = str(event.org_id if event.org_id is not None else "")
        if settings.org_id and org_id and org_id != settings.org_id:
            reasons.append("other_account")
        elif kind in _THREAD_EVENTS:
            thread = reading.json_as(_payload(event), Thread)
            ticket_id = reading.identifier(thread.ticket_id, "payload.ticketId")
            kept.append(Kept(ticket=Ticket(id=ticket_id), thread=thread))
        elif kind in _TICKET_EVENTS:
            ticket = reading.json_as(_payload(event), Ticket)
            kept.append(_first_of(ticket))
        elif kind in _NOTE_EVENTS:
            reasons.append("internal_note")
        else:
            is_known = kind.partition("_")[0] in _KNOWN_AREAS
            reasons.append("status" if is_known else "unknown_event")
    return kept, reasons


def _payload(event: Event) -> bytes:
    if not bytes(event.payload):
        raise ParseError("invalid_field", "payload: is missing", "payload")
    return bytes(event.payload)


def _first_of(ticket: Ticket) -> Kept:
    """Return a new ticket's first message: its first thread where that has an id, else the ticket itself."""
    ticket_id = reading.identifier(ticket.id, "payload.id")
    first = ticket.first_thread
    about = msgspec.structs.replace(ticket, first_thread=None)
    if first is None or first.id is None:
        return Kept(ticket=about)
    whole = msgspec.structs.replace(
        first,
        ticket_id=ticket_id,
        content=first.content or ticket.description or first.summary,
        created_time=first.created_time or ticket.created_time,
    )
    return Kept(ticket=about, thread=whole)


def _left_out(kept: Kept, settings: Settings) -> str | None:
    """Return why a message is none for us; None where it is one."""
    thread, ticket = kept.thread, kept.ticket
    if ticket.is_spam:
        return "spam"
    if thread is None:
        return None if (ticket.description or ticket.subject or "").strip() else "empty"
    if (thread.visibility or "public").lower() == "private":
        return "internal_note"
    if _is_ours(thread):
        if (thread.status or "").upper() in _NOT_SENT:
            return "not_a_message"
        author = thread.author or Author()
        sender = _mailbox(thread.from_email_address)[1]
        names = {str(author.id), str(thread.responder_id), author.email or "", sender}
        if names & set(settings.own_ids):
            return "echo"
    return None


def _is_ours(thread: Thread) -> bool:
    if thread.direction:
        return thread.direction.lower() == "out"
    return thread.author is not None and (thread.author.type or "").upper() in _STAFF


def _mailbox(field: str | None) -> tuple[str, str]:
    """Return the name and address in a field such as `"Ada"<ada@shop.example>`; empty where there is none."""
    found = addresses.read(field or "")
    return (found[0].name, found[0].address) if found else ("", "")


def _content(delivery: Delivery, kept: Kept) -> MessageContent:
    thread, ticket = kept.thread, kept.ticket
    ticket_id = reading.identifier(ticket.id, "ticketId")
    if thread is None:
        return reading.content(
            delivery,
            f"ticket:{ticket_id}",
            _customer(ticket),
            reading.text_of(None, ticket.description) or reading.text_of(ticket.subject),
            subject=ticket.subject or "",
            occurred_at=ticket.created_time,
            thread=ticket_id,
            url=reading.link(ticket.web_url),
            fields={
                "channel": ticket.channel or "",
                "ticket_number": str(ticket.ticket_number or ""),
            },
        )
    is_ours = _is_ours(thread)
    return reading.content(
        delivery,
        reading.identifier(thread.id, "payload.id"),
        _sender(thread, ticket, is_ours=is_ours),
        _text(thread),
        subject=ticket.subject or "",
        occurred_at=thread.created_time,
        attachments=tuple(_file(one) for one in thread.attachments or ()),
        direction="outbound" if is_ours else "inbound",
        recipients=tuple(one.address for one in addresses.read(thread.to or ""))[:50],
        thread=ticket_id,
        url=reading.link(ticket.web_url),
        fields={
            "channel": thread.channel or ticket.channel or "",
            "ticket_number": str(ticket.ticket_number or ""),
        },
    )


def _text(thread: Thread) -> str:
    is_html = "html" in (thread.content_type or "text/html").lower()
    if thread.content and is_html:
        return reading.text_of(None, thread.content)
    return reading.text_of(thread.content or thread.plain_text or thread.summary)


def _sender(thread: Thread, ticket: Ticket, *, is_ours: bool) -> Sender:
    author = thread.author or Author()
    name, address = _mailbox(thread.from_email_address)
    shown = author.name or name
    if author.email and addresses.is_address(author.email):
        return Sender(name=shown, address=author.email, kind="email")
    if address:
        return Sender(name=shown, address=address, kind="email")
    if author.id is not None:
        return Sender(
            name=shown, address=reading.identifier(author.id, "author.id"), kind="vendor_id"
        )
    if is_ours:
        return Sender(name=shown, address="", kind="none")
    customer = _customer(ticket)
    return customer.model_copy(update={"name": shown or customer.name})


def _customer(ticket: Ticket) -> Sender:
    contact = ticket.contact or Contact()
    for one in (contact.email, ticket.email):
        if one and addresses.is_address(one):
            return Sender(name=contact.name, address=one, kind="email")
    contact_id = contact.id if contact.id is not None else ticket.contact_id
    if contact_id is None:
        return Sender(name=contact.name, address="", kind="none")
    return Sender(
        name=contact.name, address=reading.identifier(contact_id, "contactId"), kind="vendor_id"
    )


def _file(file: File) -> Attachment:
    return reading.attachment(file.name, "", file.size, file.href)


# ------------------------------------------------------------------------------------------ reading back


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read each thread that a delivery tells of, and each new ticket's first one.

    Raises:
        ApiProblem: the API could not be asked now.
    """
    settings: Settings = api.settings
    kept, _ = _told(_events(delivery.body), settings)
    headers = await _authorisation(api)
    tickets: dict[str, Ticket | None] = {}
    found: dict[str, Fetched] = {}
    for one in kept[:THREADS_MAX]:
        ticket_id = str(one.ticket.id)
        if ticket_id not in tickets:
            tickets[ticket_id] = await _ticket(api, ticket_id, headers)
        ticket = tickets[ticket_id]
        if ticket is None:
            continue  # It was removed since.
        thread_id = str(one.thread.id) if one.thread is not None else None
        whole = await _whole(api, ticket, ticket_id, thread_id, headers)
        if whole is not None and _left_out(whole, settings) is None:
            item = _fetched(whole)
            found[item.name] = item
    return tuple(found.values())


async def _ticket(api: Api, ticket_id: str, headers: Mapping[str, str]) -> Ticket | None:
    settings: Settings = api.settings
    answer = await api.get(
        f"{settings.base}/api/v1/tickets/{quote(ticket_id, safe='')}",
        params={"include": "contacts"},
        headers=headers,
        missing=True,
    )
    return shaped(answer, Ticket) if answer is not None else None


async def _whole(
    api: Api, ticket: Ticket, ticket_id: str, thread_id: str | None, headers: Mapping[str, str]
) -> Kept | None:
    """Return a thread with its text, or the ticket's first one; the ticket itself where it has none."""
    settings: Settings = api.settings
    path = f"{settings.base}/api/v1/tickets/{quote(ticket_id, safe='')}/threads"
    if thread_id is None:
        answer = await api.get(
            path, params={"limit": str(THREADS_PAGE)}, headers=headers, missing=True
        )
        threads = shaped(answer, Threads).data if answer is not None else ()
        first = min(
            (one for one in threads if one.id is not None),
            key=lambda one: str(one.created_time or ""),
            default=None,
        )
        if first is None:
            return Kept(ticket=ticket)
        thread_id = str(first.id)
    answer = await api.get(f"{path}/{quote(thread_id, safe='')}", headers=headers, missing=True)
    if answer is None:
        return None
    thread = shaped(answer, Thread)
    return Kept(ticket=ticket, thread=msgspec.structs.replace(thread, ticket_id=ticket_id))


def _fetched(kept: Kept) -> Fetched:
    thread, ticket = kept.thread, kept.ticket
    about = msgspec.structs.replace(
        ticket, first_thread=None, description=ticket.description if thread is None else None
    )
    contact = ticket.contact_id or (ticket.contact.id if ticket.contact is not None else None)
    return Fetched(
        kind="thread" if thread is not None else "ticket",
        name=f"thread:{thread.id}" if thread is not None else f"ticket:{ticket.id}",
        body=msgspec.json.encode(Kept(ticket=about, thread=thread)),
        correspondent=str(contact or ticket.id or ""),
    )


async def _authorisation(api: Api) -> dict[str, str]:
    settings: Settings = api.settings
    if not api.secrets.get("refresh_token") or not api.secrets.get("client_secret"):
        raise ApiProblem("no_secret")
    token = await api.token(
        f"{settings.accounts_url.rstrip('/')}/oauth/v2/token",
        {
            "grant_type": "refresh_token",
            "client_id": settings.client_id,
            "client_secret": api.secrets["client_secret"],
            "refresh_token": api.secrets["refresh_token"],
        },
    )
    return {"Authorization": f"Zoho-oauthtoken {token}", "orgId": settings.org_id}


CHANNEL = Channel(
    name="zoho",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    keys_url=lambda settings: settings.keys if isinstance(settings, Settings) else None,
    capability=Capability(
        supports_attachments=True,
        proof="JWT RS256 of the organisation and webhook (not of the body); read back",
    ),
)
