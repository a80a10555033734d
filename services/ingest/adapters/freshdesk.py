"""Freshdesk: what customers and staff write in tickets, told of by automation rules and read back through the API.

Sources: Freshdesk's API reference (tickets, conversations, rate limits) and integrators' accounts of the action "Trigger
webhook". Its "simple" content puts chosen placeholders into `freshdesk_webhook`; its "advanced" content is a template of
our own, with the same names at the top. There is no event id, no subscription API and no signature.

Verified: nothing. The rule sends a header with a secret that we made (or the secret stands at the end of the address),
compared in constant time. With an API key every call is only a hint: the ticket and its conversations are read back, and
what was read counts as verified. Without one the call's own text becomes a message with `verified` false; there a comment
is the customer's only if the name in front of it is the contact's, since Freshdesk writes the author's name and a colon
before the HTML and says nothing else about who wrote.

Calls above the account's API rate are put off and dropped after a day, and the retry schedule is told in two ways, so the
same key also polls for tickets that changed.

Believed and not confirmed: `source` of a conversation (0 reply, 2 note) and of a ticket (10: a mail that we began), a page
size of a hundred conversations, whether public notes of customers are marked `incoming`, the order of the list of changed
tickets when `order_type=asc` is asked for. Nothing was tried against a live account.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Attachment, MessageContent, Sender
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
    ParseError,
    Request,
    SecretReference,
    Verdict,
    settings_of,
)

CONVERSATIONS_PAGE: Final = 100
"""Conversations a page (believed to be the most)."""
PAGES_MAX: Final = 10
MESSAGES_MAX: Final = 50
"""Messages taken over for one hint; the newest."""
TICKETS_PAGE: Final = 10
"""Changed tickets a look; each costs two more requests, and a trial account has fifty a minute."""
OVERLAP: Final = timedelta(minutes=5)
"""How far a poll looks back behind what it has seen: a change may show up later than it was made."""

OUTBOUND_MAIL: Final = 10
"""The `source` of a ticket that began with a mail of ours."""
NOTE: Final = 2
"""The `source` of a conversation that is a note."""

_TICKET: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]{0,19}-)?([0-9]{1,18})")
_AUTHOR: Final = re.compile(r"\s*([^<>\n:]{1,200}?) ?: ?(?=<|$)")
_PLACEHOLDER: Final = re.compile(r"\{\{.*\}\}", re.DOTALL)
_NOTHING: Final = frozenset({"", "null", "none", "--"})


class Said(reading.Struct, frozen=True):
    """What a rule's call says; every value is text made by Freshdesk's placeholders."""

    ticket_id: str | int | None = None
    ticket_subject: str | None = None
    ticket_description: str | None = None
    ticket_url: str | None = None
    ticket_status: str | None = None
    ticket_latest_public_comment: str | None = None
    ticket_contact_name: str | None = None
    ticket_contact_email: str | None = None
    ticket_updated_at: str | None = None
    triggered_event: str | None = None


class Incoming(Said, frozen=True):
    """Either form: wrapped by Freshdesk, or our own template with the same names at the top."""

    freshdesk_webhook: Said | None = None


class File(reading.Struct, frozen=True):
    """An attachment. `attachment_url` is signed and runs out."""

    id: str | int | None = None
    name: str | None = None
    content_type: str | None = None
    size: int | None = None
    attachment_url: str | None = None


class Requester(reading.Struct, frozen=True):
    """Whose ticket it is."""

    id: str | int | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None


class Ticket(reading.Struct, frozen=True):
    """A ticket as the API returns it; its description is its first message."""

    id: str | int | None = None
    subject: str | None = None
    description: str | None = None
    description_text: str | None = None
    source: int | None = None
    spam: bool | None = None
    deleted: bool | None = None
    requester_id: str | int | None = None
    responder_id: str | int | None = None
    requester: Requester | None = None
    created_at: str | None = None
    updated_at: str | None = None
    attachments: tuple[File, ...] | None = None


class Conversation(reading.Struct, frozen=True):
    """A reply or a note in a ticket."""

    id: str | int | None = None
    body: str | None = None
    body_text: str | None = None
    incoming: bool = False
    private: bool = False
    source: int | None = None
    user_id: str | int | None = None
    from_email: str | None = None
    to_emails: tuple[str, ...] | None = None
    created_at: str | None = None
    attachments: tuple[File, ...] | None = None


class Kept(reading.Struct, frozen=True):
    """One message that we read: a conversation, or the description where there is none."""

    ticket: Ticket
    conversation: Conversation | None = None


class Mark(reading.Struct, frozen=True):
    """How far a poll has come: the list begins at `since`, and no message from before `fresh` is news.

    `page` counts on while many tickets changed in the same second. In a `first` look at all there is, every message counts.
    """

    since: str
    fresh: str
    page: int = 1
    first: bool = False


class Settings(ChannelSettings):
    """A Freshdesk account. `secret` is what the rule shows; `own_ids` are user ids (agents) and mail addresses under which
    we write.

    `domain` is the account's (`https://<domain>.freshdesk.com`), `api_url` takes its place where it differs. `api_key` is an
    agent's; it reads tickets back and polls. `look_back_hours` is how old a message may be, when a rule tells of its
    ticket, to be taken as missed. `polls` turns the poll off. `start` says whether a first look takes the tickets that are
    there already.
    """

    domain: str = Field(default="", pattern=r"^(?:[a-z0-9][a-z0-9-]{0,62})?$")
    api_url: str = ""
    api_key: SecretReference | None = None
    look_back_hours: int = Field(default=24, ge=1, le=720)
    polls: bool = True
    start: Literal["new", "all"] = "new"

    @property
    def base(self) -> str:
        """The address of the account, without a slash at its end; empty where none is named."""
        given = self.api_url or (f"https://{self.domain}.freshdesk.com" if self.domain else "")
        return given.rstrip("/")

    @property
    def can_read(self) -> bool:
        """Whether tickets can be read."""
        return bool(self.base) and self.api_key is not None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:  # noqa: ARG001 - no time is shown
    """Compare the secret that the rule shows in a header, as a password, or at the end of the address."""
    return signing.only(request, "POST", "PUT") or signing.by_token(request, secrets)


def parse(delivery: Delivery) -> Parsed:
    """Read a rule's call, or a message that we read through the API.

    Raises:
        ParseError: the body is no JSON of these shapes, or an id is missing; `field` names it.
    """
    if delivery.fetched == "message":
        return _of_kept(delivery, reading.json_as(delivery.body, Kept))
    said = _said(delivery)
    ticket_id = _ticket_id(said)
    if settings_of(delivery, Settings).can_read:
        return Parsed(ignored="hint", verified=delivery.verified)
    content = _of_call(delivery, said, ticket_id)
    if content is None:
        return Parsed(ignored="hint", verified=delivery.verified)
    if content.direction == "outbound" and _is_own(
        (content.sender.name, content.sender.address), settings_of(delivery, Settings)
    ):
        return Parsed(ignored="echo", verified=delivery.verified)
    return Parsed(messages=(content,), verified=delivery.verified)


def _said(delivery: Delivery) -> Said:
    incoming = reading.json_as(delivery.body, Incoming)
    return incoming.freshdesk_webhook or incoming


def _given(value: str | int | None) -> str:
    """Return a placeholder's value; empty where Freshdesk left it in place, or had nothing to put there."""
    text = str(value if value is not None else "").strip()
    return "" if text.lower() in _NOTHING or _PLACEHOLDER.search(text) else text


def _ticket_id(said: Said) -> str:
    """Return the ticket's number without the prefix that an account may put before it (`INC-42`).

    Raises:
        ParseError: it is missing, or no number.
    """
    found = _TICKET.fullmatch(_given(said.ticket_id))
    if found is None:
        raise ParseError("invalid_field", "ticket_id: must be a ticket's number", "ticket_id")
    return found.group(1)


def _of_call(delivery: Delivery, said: Said, ticket_id: str) -> MessageContent | None:
    """Return the message that a call holds by itself; None where it only hints."""
    email = _given(said.ticket_contact_email)
    contact = _given(said.ticket_contact_name)
    customer = Sender(name=contact, address=email, kind="email")
    if not addresses.is_address(email):
        return None
    comment = _given(said.ticket_latest_public_comment)
    is_new = "ticket_action:created" in (said.triggered_event or "")
    sender = customer
    if comment and not is_new:
        author, html = _author(comment)
        digest = hashlib.sha256(comment.encode("utf-8", "replace")).hexdigest()[:16]
        name = f"{ticket_id}/{digest}"
        if author and author.casefold() != contact.casefold():
            sender = Sender(name=author, address="", kind="none")
    else:
        html, name = _given(said.ticket_description), f"ticket:{ticket_id}"
    text = reading.text_of(None, html)
    if not text:
        return None
    is_ours = sender is not customer
    return reading.content(
        delivery,
        name,
        sender,
        text,
        subject=_given(said.ticket_subject),
        occurred_at=_given(said.ticket_updated_at),
        direction="outbound" if is_ours else "inbound",
        recipients=(email,) if is_ours else (),
        thread=ticket_id,
        url=reading.link(_given(said.ticket_url)),
        fields={"status": _given(said.ticket_status)},
    )


def _author(comment: str) -> tuple[str, str]:
    """Return the author's name which Freshdesk writes before a comment's HTML, and the HTML without it."""
    found = _AUTHOR.match(comment[:400])
    return (found.group(1).strip(), comment[found.end() :]) if found is not None else ("", comment)


def _of_kept(delivery: Delivery, kept: Kept) -> Parsed:
    settings = settings_of(delivery, Settings)
    reason = _left_out(kept, settings)
    if reason is not None:
        return Parsed(ignored=reason, verified=True)
    one, ticket = kept.conversation, kept.ticket
    return Parsed(
        messages=(
            _of_ticket(delivery, ticket, settings)
            if one is None
            else _of_conversation(delivery, ticket, one, settings),
        ),
        verified=True,
    )


def _left_out(kept: Kept, settings: Settings) -> str | None:
    """Return why a message is none for us; None where it is one."""
    one, ticket = kept.conversation, kept.ticket
    if ticket.spam or ticket.deleted:
        return "spam" if ticket.spam else "not_a_message"
    if one is None:
        if ticket.source == OUTBOUND_MAIL and _is_own((str(ticket.responder_id),), settings):
            return "echo"
        has_text = bool((ticket.description_text or ticket.description or "").strip())
        return None if has_text or ticket.attachments else "empty"
    if one.private:
        return "internal_note"
    if not one.incoming and _is_own((str(one.user_id), one.from_email or ""), settings):
        return "echo"
    return None


def _is_own(names: tuple[str, ...], settings: Settings) -> bool:
    return any(mailbox_of(name) in settings.own_ids or name in settings.own_ids for name in names)


def mailbox_of(field: str) -> str:
    """Return the mail address in `Support <support@shop.example>`; the text itself where there is none."""
    found = addresses.read(field)
    return found[0].address if found else field


def _of_ticket(delivery: Delivery, ticket: Ticket, settings: Settings) -> MessageContent:
    ticket_id = reading.identifier(ticket.id, "ticket.id")
    is_ours = ticket.source == OUTBOUND_MAIL
    return reading.content(
        delivery,
        f"ticket:{ticket_id}",
        _agent(ticket.responder_id, "", "ticket.responder_id") if is_ours else _customer(ticket),
        reading.text_of(ticket.description_text, ticket.description),
        subject=ticket.subject or "",
        occurred_at=ticket.created_at,
        attachments=_files(ticket.attachments),
        direction="outbound" if is_ours else "inbound",
        recipients=_customer_address(ticket) if is_ours else (),
        thread=ticket_id,
        url=_page(settings, ticket_id),
        fields={"source": str(ticket.source or "")},
    )


def _of_conversation(
    delivery: Delivery, ticket: Ticket, one: Conversation, settings: Settings
) -> MessageContent:
    ticket_id = reading.identifier(ticket.id, "ticket.id")
    recipients = _customer_address(ticket) if not one.incoming else ()
    return reading.content(
        delivery,
        reading.identifier(one.id, "conversation.id"),
        _writer(ticket, one),
        reading.text_of(one.body_text, one.body),
        subject=ticket.subject or "",
        occurred_at=one.created_at,
        attachments=_files(one.attachments),
        direction="inbound" if one.incoming else "outbound",
        recipients=tuple(to[:254] for to in one.to_emails or ())[:50] or recipients,
        thread=ticket_id,
        url=_page(settings, ticket_id),
        fields={"source": "note" if one.source == NOTE else str(one.source or 0)},
    )


def _writer(ticket: Ticket, one: Conversation) -> Sender:
    """Return who wrote a conversation: the requester, somebody else by mail, or a user by id."""
    if not one.incoming:
        return _agent(one.user_id, one.from_email or "", "conversation.user_id")
    if one.user_id is None or str(one.user_id) == str(ticket.requester_id):
        return _customer(ticket)
    found = addresses.read(one.from_email or "")
    if found:
        return Sender(name=found[0].name, address=found[0].address, kind="email")
    return Sender(address=reading.identifier(one.user_id, "conversation.user_id"), kind="vendor_id")


def _agent(user_id: str | int | None, from_email: str, field: str) -> Sender:
    found = addresses.read(from_email)
    name = found[0].name if found else ""
    if user_id is None and found:
        return Sender(name=name, address=found[0].address, kind="email")
    if user_id is None:
        return Sender(name=name, address="", kind="none")
    return Sender(name=name, address=reading.identifier(user_id, field), kind="vendor_id")


def _customer(ticket: Ticket) -> Sender:
    person = ticket.requester or Requester()
    if person.email and addresses.is_address(person.email):
        return Sender(name=person.name or "", address=person.email, kind="email")
    user_id = person.id if person.id is not None else ticket.requester_id
    return Sender(
        name=person.name or "",
        address=reading.identifier(user_id, "ticket.requester_id"),
        kind="vendor_id",
    )


def _customer_address(ticket: Ticket) -> tuple[str, ...]:
    person = ticket.requester or Requester()
    if person.email:
        return (person.email[:254],)
    return (str(ticket.requester_id),) if ticket.requester_id is not None else ()


def _files(files: tuple[File, ...] | None) -> tuple[Attachment, ...]:
    return tuple(
        reading.attachment(file.name, file.content_type, file.size, file.attachment_url)
        for file in files or ()
    )


def _page(settings: Settings, ticket_id: str) -> str | None:
    return f"{settings.base}/a/tickets/{quote(ticket_id, safe='')}" if settings.base else None


# ------------------------------------------------------------------------------- reading back, polling


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read a ticket's recent messages, each as a delivery of its own.

    Raises:
        ApiProblem: the API could not be asked now, or the ticket is gone.
    """
    settings: Settings = api.settings
    said = _said(delivery)
    told = reading.instant(_given(said.ticket_updated_at), delivery.received_at)
    since = told - timedelta(hours=settings.look_back_hours)
    return await _messages(api, _ticket_id(said), since, delivery.received_at)


async def _messages(
    api: Api, ticket_id: str, since: datetime, now: datetime
) -> tuple[Fetched, ...]:
    settings: Settings = api.settings
    headers = _authorisation(api)
    path = f"{settings.base}/api/v2/tickets/{quote(ticket_id, safe='')}"
    ticket = shaped(await api.get(path, params={"include": "requester"}, headers=headers), Ticket)
    found = [Kept(ticket=ticket)] if reading.instant(ticket.created_at, now) >= since else []
    for number in range(1, PAGES_MAX + 1):
        params = {"per_page": str(CONVERSATIONS_PAGE), "page": str(number)}
        page = shaped(
            await api.get(f"{path}/conversations", params=params, headers=headers),
            tuple[Conversation, ...],
        )
        found += [
            Kept(ticket=ticket, conversation=one)
            for one in page
            if one.id is not None and reading.instant(one.created_at, now) >= since
        ]
        if len(page) < CONVERSATIONS_PAGE:
            break
    return tuple(
        _fetched(kept) for kept in found[-MESSAGES_MAX:] if _left_out(kept, settings) is None
    )


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    """Look for messages in tickets that changed since the cursor, those that changed longest ago first.

    Raises:
        ApiProblem: the API could not be asked now.
    """
    settings: Settings = api.settings
    if cursor is None:
        if settings.start == "new":
            return Page((), _cursor(Mark(since=now.isoformat(), fresh=now.isoformat())))
        long_ago = datetime(2000, 1, 1, tzinfo=UTC).isoformat()
        mark = Mark(since=long_ago, fresh=long_ago, first=True)
    else:
        mark = msgspec.json.decode(cursor, type=Mark)
    since, fresh = reading.instant(mark.since, now), reading.instant(mark.fresh, now)
    if not mark.first:
        # A ticket may have moved down the list while we read: what was written a while before counts once more.
        fresh = max(fresh, since - timedelta(hours=settings.look_back_hours))
    params = {
        "updated_since": since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "order_by": "updated_at",
        "order_type": "asc",
        "per_page": str(TICKETS_PAGE),
        "page": str(mark.page),
    }
    answer = await api.get(
        f"{settings.base}/api/v2/tickets", params=params, headers=_authorisation(api)
    )
    tickets = shaped(answer, tuple[Ticket, ...])
    items: list[Fetched] = []
    for ticket in tickets:
        if ticket.id is not None:
            items += await _of_changed(api, str(ticket.id), fresh, now)
    changed = [reading.instant(ticket.updated_at, now) for ticket in tickets]
    reached = max([since, *changed])
    if len(tickets) < TICKETS_PAGE:
        again = max(since, reached - OVERLAP).isoformat()
        return Page(tuple(items), _cursor(Mark(since=again, fresh=mark.fresh)))
    if reached.replace(microsecond=0) > since.replace(microsecond=0):
        following = msgspec.structs.replace(mark, since=reached.isoformat(), page=1)
    else:
        following = msgspec.structs.replace(mark, page=mark.page + 1)
    return Page(tuple(items), _cursor(following), True)


async def _of_changed(
    api: Api, ticket_id: str, since: datetime, now: datetime
) -> tuple[Fetched, ...]:
    try:
        return await _messages(api, ticket_id, since, now)
    except ApiProblem as problem:
        if problem.reason != "missing":
            raise
        return ()  # It was removed since it was listed.


def _cursor(mark: Mark) -> str:
    return msgspec.json.encode(mark).decode("utf-8")


def _fetched(kept: Kept) -> Fetched:
    ticket, one = kept.ticket, kept.conversation
    # Only what stays: the state of a ticket and the signed addresses of files change by themselves.
    about = msgspec.structs.replace(ticket, updated_at=None)
    if one is not None:
        about = msgspec.structs.replace(
            about, description=None, description_text=None, attachments=None, created_at=None
        )
    name = f"ticket:{ticket.id}" if one is None else f"conversation:{one.id}"
    return Fetched(
        kind="message",
        name=name,
        body=msgspec.json.encode(Kept(ticket=about, conversation=one)),
        correspondent=str(ticket.id or ""),
    )


def _authorisation(api: Api) -> dict[str, str]:
    key = api.secrets.get("api_key", "")
    if not key:
        raise ApiProblem("no_secret")
    pair = base64.b64encode(f"{key}:X".encode()).decode("ascii")
    return {"Authorization": f"Basic {pair}"}


CHANNEL = Channel(
    name="freshdesk",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    poll=poll,
    polls=lambda settings: isinstance(settings, Settings) and settings.can_read and settings.polls,
    capability=Capability(
        supports_attachments=True, proof="shared token in a header, read back through the API"
    ),
)
