"""Help Scout: what customers and staff write in an inbox, by webhook, completed through the Inbox API 2.0.

Sources: Help Scout's developer pages on webhooks, the v2 conversation and thread objects, listing threads and OAuth.
The body of a webhook is the conversation; the event's name stands in the header `X-HelpScout-Event`.

Verified: `X-HelpScout-Signature` is base64 of HMAC-SHA1 over the raw body. There is no timestamp and no delivery id, so an
old delivery that is sent again cannot be told from a new one: a delivery goes by its event, its conversation and a digest
of its body, and a message by its thread's id, which makes a second one harmless. The event's header is not signed; it
decides only whether there is a message to look for, and each thread says itself who wrote it.

Believed and not confirmed: that and in which order threads are embedded (where none are, they are read back), the shape of
Beacon chats' threads, a timeout of 10 s. Never answered with 410, which turns the webhook off at once; after ten events
that could not be delivered Help Scout turns it off as well. Nothing was tried against a live account.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Attachment, MessageContent, Sender
from services.ingest.adapters import addresses, reading, signing
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
from services.ingest.core.normalise import clean_value

SIGNATURE: Final = "x-helpscout-signature"
EVENT: Final = "x-helpscout-event"

PAGES_MAX: Final = 4
"""Pages of threads read; a conversation takes a hundred threads at most and a page holds at least 25."""
THREADS_MAX: Final = 50
"""Threads taken over for one delivery; the newest."""

_EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_WITH_THREADS: Final = frozenset({
    "convo.created", "convo.customer.reply.created", "convo.agent.reply.created",
    "beacon.chat.created", "beacon.chat.customer.replied",
})  # fmt: skip
_IGNORED: Final[Mapping[str, str]] = {
    "helpscout.test": "ping",
    "convo.note.created": "internal_note",
    "satisfaction.ratings": "rating",
    "message.survey.response.received": "rating",
}
_CHANGES: Final = re.compile(
    r"convo\.(?:assigned|moved|merged|status|tags|custom-fields|deleted)"
    r"|(?:customer|tag|organization)\..+"
)
_CUSTOMERS: Final = frozenset({"customer"})
_OURS: Final = frozenset({"message"})
_EITHER: Final = frozenset({"chat", "beaconchat", "phone"})
"""Threads whose `createdBy` says which side wrote them."""


class Person(reading.Struct, frozen=True, rename="camel"):
    """A customer or a user of the account; `type` tells which."""

    id: str | int | None = None
    type: str | None = None
    first: str | None = None
    last: str | None = None
    email: str | None = None


class File(reading.Struct, frozen=True, rename="camel"):
    """A thread's file. Its content is behind the API's login."""

    id: str | int | None = None
    filename: str | None = None
    mime_type: str | None = None
    size: int | None = None


class ThreadEmbedded(reading.Struct, frozen=True, rename="camel"):
    """What stands inside of a thread."""

    attachments: tuple[File, ...] | None = None


class Thread(reading.Struct, frozen=True, rename="camel"):
    """One entry of a conversation: a customer's message, a reply, a note, or a line about what was done."""

    id: str | int | None = None
    type: str | None = None
    state: str | None = None
    body: str | None = None
    customer: Person | None = None
    created_by: Person | None = None
    created_at: str | None = None
    embedded: ThreadEmbedded | None = msgspec.field(default=None, name="_embedded")


class Embedded(reading.Struct, frozen=True, rename="camel"):
    """What stands inside of a conversation or a page."""

    threads: tuple[Thread, ...] | None = None


class Conversation(reading.Struct, frozen=True, rename="camel"):
    """A conversation. `*.deleted` bodies and a webhook set to notify only hold little more than its id."""

    id: str | int | None = None
    number: int | None = None
    subject: str | None = None
    mailbox_id: int | None = None
    primary_customer: Person | None = None
    user_updated_at: str | None = None
    embedded: Embedded | None = msgspec.field(default=None, name="_embedded")


class Kept(reading.Struct, frozen=True, rename="camel"):
    """A thread that we read back, with what it needs of its conversation."""

    conversation: Conversation
    thread: Thread


class Settings(ChannelSettings):
    """A Help Scout account. `secret` is the webhook's; `own_ids` are the user ids under which we reply.

    `client_id` and `client_secret` are those of an OAuth application of the account; with them threads are read back.
    `api_url` and `web_url` are where the API and people find conversations. `look_back_hours` is how much older than the
    newest thread of a delivery another one may be, to be taken as missed.
    """

    client_id: str = ""
    client_secret: SecretReference | None = None
    api_url: str = "https://api.helpscout.net"
    web_url: str = "https://secure.helpscout.net"
    look_back_hours: int = Field(default=24, ge=1, le=720)

    @property
    def can_read(self) -> bool:
        """Whether threads can be read back."""
        return bool(self.client_id) and self.client_secret is not None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove the signature over the body. Nothing in a request tells its age."""
    del now
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    verdict = signing.by_body_hmac(request, secrets, SIGNATURE, algorithm="sha1", encoding="base64")
    return signing.proved(_name_of(request)) if verdict.accepted else verdict


def _name_of(request: Request) -> str:
    """Return what a retry repeats: event, conversation, and a digest of the body."""
    try:
        found = reading.json_as(request.body, Conversation).id
        conversation = reading.identifier(found, "id")
    except ParseError:
        conversation = ""
    return f"{_event(request.headers)}:{conversation}:{signing.sha256_hex(request.body)[:32]}"


def _event(headers: Mapping[str, str]) -> str:
    """Return the event's name; empty where there is none of that form."""
    given = headers.get(EVENT, "").strip().lower()
    return given if _EVENT_NAME.fullmatch(given) else ""


def parse(delivery: Delivery) -> Parsed:
    """Read a webhook's conversation, or a thread that we read back.

    Raises:
        ParseError: the body is no JSON object of these, or an id is missing; `field` names it.
    """
    if delivery.fetched == "thread":
        kept = reading.json_as(delivery.body, Kept)
        return _parsed(delivery, kept.conversation, (kept.thread,))
    event = _event(delivery.headers)
    conversation = reading.json_as(delivery.body, Conversation)
    reason = _IGNORED.get(event) or ("status" if _CHANGES.fullmatch(event) else None)
    if reason is not None:
        return Parsed(ignored=reason, verified=delivery.verified)
    if event and event not in _WITH_THREADS:
        return Parsed(ignored="unknown_event", verified=delivery.verified)
    reading.identifier(conversation.id, "id")
    threads = _threads(conversation)
    if event == "convo.agent.reply.created":
        # What the customer wrote before is told again here, and is no news.
        threads = tuple(one for one in threads if not _is_customers(one))
    if not threads:
        return Parsed(ignored="hint", verified=delivery.verified)
    return _parsed(delivery, conversation, _recent(threads, delivery))


def _threads(conversation: Conversation) -> tuple[Thread, ...]:
    return (conversation.embedded.threads or ()) if conversation.embedded is not None else ()


def _recent(threads: tuple[Thread, ...], delivery: Delivery) -> tuple[Thread, ...]:
    return reading.recent(
        threads,
        lambda one: one.created_at,
        lambda one: one.id,
        received_at=delivery.received_at,
        hours=settings_of(delivery, Settings).look_back_hours,
        most=THREADS_MAX,
    )


def _parsed(delivery: Delivery, conversation: Conversation, threads: tuple[Thread, ...]) -> Parsed:
    own_ids = settings_of(delivery, Settings).own_ids
    return reading.concluded(
        (_left_out(one, own_ids) or _content(delivery, conversation, one) for one in threads),
        verified=delivery.verified or delivery.fetched is not None,
    )


def _left_out(thread: Thread, own_ids: tuple[str, ...]) -> str | None:
    """Return why a thread is no message; None where it is one."""
    if thread.type == "note":
        return "internal_note"
    if thread.type not in _CUSTOMERS | _OURS | _EITHER or thread.state not in (None, "published"):
        return "not_a_message"
    writer = thread.created_by
    is_own = writer is not None and str(writer.id) in own_ids and not _is_customers(thread)
    return "echo" if is_own else None


def _is_customers(thread: Thread) -> bool:
    if thread.type in _EITHER:
        return thread.created_by is None or thread.created_by.type == "customer"
    return thread.type in _CUSTOMERS


def _content(delivery: Delivery, conversation: Conversation, thread: Thread) -> MessageContent:
    settings = settings_of(delivery, Settings)
    conversation_id = reading.identifier(conversation.id, "id")
    customer = thread.customer or conversation.primary_customer or Person()
    is_customers = _is_customers(thread)
    writer = customer if is_customers else (thread.created_by or Person())
    files = (thread.embedded.attachments or ()) if thread.embedded is not None else ()
    return reading.content(
        delivery,
        reading.identifier(thread.id, "thread.id"),
        _sender(writer),
        reading.text_of(None, thread.body),
        subject=conversation.subject or "",
        occurred_at=thread.created_at or conversation.user_updated_at,
        attachments=tuple(_file(one) for one in files),
        direction="inbound" if is_customers else "outbound",
        recipients=() if is_customers else _recipients(customer),
        thread=conversation_id,
        url=f"{settings.web_url.rstrip('/')}/conversation/{quote(conversation_id, safe='')}",
        fields={
            "number": str(conversation.number or ""),
            "mailbox": str(conversation.mailbox_id or ""),
        },
    )


def _sender(person: Person) -> Sender:
    name = " ".join(part for part in (person.first, person.last) if part)
    if person.email and addresses.is_address(person.email):
        return Sender(name=name, address=person.email, kind="email")
    return Sender(
        name=name, address=reading.identifier(person.id, "thread.customer.id"), kind="vendor_id"
    )


def _recipients(customer: Person) -> tuple[str, ...]:
    told = clean_value(str(customer.email or customer.id or ""), 320)
    return (told,) if told else ()


def _file(file: File) -> Attachment:
    return reading.attachment(file.filename, file.mime_type, file.size)


# ------------------------------------------------------------------------------------------ reading back


class PageNumbers(reading.Struct, frozen=True, rename="camel"):
    """Where a page stands; the first is number 1."""

    number: int = 1
    total_pages: int = 1


class ThreadPage(reading.Struct, frozen=True, rename="camel"):
    """A page of a conversation's threads, newest first."""

    embedded: Embedded | None = msgspec.field(default=None, name="_embedded")
    page: PageNumbers | None = None


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read a conversation's recent threads, each as a delivery of its own.

    Raises:
        ApiProblem: the API could not be asked now, or the conversation is gone.
    """
    event = _event(delivery.headers)
    if event and event not in _WITH_THREADS:
        return ()
    settings: Settings = api.settings
    told = reading.json_as(delivery.body, Conversation)
    conversation_id = reading.identifier(told.id, "id")
    headers = await _authorisation(api)
    path = f"{settings.api_url.rstrip('/')}/v2/conversations/{quote(conversation_id, safe='')}"
    if told.subject is None or told.primary_customer is None:
        told = shaped(await api.get(path, headers=headers), Conversation)
    threads: list[Thread] = []
    for number in range(1, PAGES_MAX + 1):
        answer = await api.get(f"{path}/threads", params={"page": str(number)}, headers=headers)
        page = shaped(answer, ThreadPage)
        threads += (page.embedded.threads or ()) if page.embedded is not None else ()
        if page.page is None or number >= page.page.total_pages:
            break
    about = Conversation(
        id=conversation_id,
        number=told.number,
        subject=told.subject,
        mailbox_id=told.mailbox_id,
        primary_customer=told.primary_customer,
    )
    return tuple(
        _fetched(Kept(conversation=about, thread=thread))
        for thread in _recent(tuple(threads), delivery)
        if _left_out(thread, settings.own_ids) is None
    )


def _fetched(kept: Kept) -> Fetched:
    customer = kept.thread.customer or kept.conversation.primary_customer or Person()
    return Fetched(
        kind="thread",
        name=f"thread:{kept.thread.id}",
        body=msgspec.json.encode(kept),
        correspondent=customer.email or str(customer.id or ""),
    )


async def _authorisation(api: Api) -> dict[str, str]:
    settings: Settings = api.settings
    if not api.secrets.get("client_secret"):
        raise ApiProblem("no_secret")
    token = await api.token(
        f"{settings.api_url.rstrip('/')}/v2/oauth2/token",
        {
            "grant_type": "client_credentials",
            "client_id": settings.client_id,
            "client_secret": api.secrets["client_secret"],
        },
    )
    return {"Authorization": f"Bearer {token}"}


CHANNEL = Channel(
    name="helpscout",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    headers_kept=frozenset({EVENT}),
    # Any answer but 2xx is repeated, up to ten times; 410 would turn the webhook off.
    unavailable=Answer(503, {"Retry-After": "5"}),
    capability=Capability(supports_attachments=True, proof="HMAC-SHA1 over the body"),
)
