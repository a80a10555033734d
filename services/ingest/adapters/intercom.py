"""Intercom: conversations of the Messenger and the shared inbox, by signed notifications.

Sources: Intercom's developer pages on webhooks, topics and conversations. A notification holds the conversation as it is;
the first message is its `source`, later ones are `conversation_parts`, HTML both.

Verified: `X-Hub-Signature` is `sha1=` and the hex HMAC-SHA1 of the raw body with the app's client secret (seen in consistent
guides and code, not on the vendor's page). There is no timestamp, so an old delivery can be sent again; its `id` and the
messages' ids make that harmless. The header of the Fin Agent API is another one and is not taken.

A part that does not come with the notification is read through the API where an access token is configured.

Believed and not confirmed: the answer to a HEAD request when an address is saved (we say 200), that the parts in a
notification are only the new ones, the shape of `conversation_part.redacted`, that a 410 unsubscribes (we never answer it),
the ids of first messages (`source.id`, and where it is missing the conversation's id). Tickets (`ticket.*`) are left out,
for their payload is not known here. Nothing was tried against a live account.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import quote

import msgspec
from pydantic import Field

from schemas.messages import Attachment, Change, MessageContent, Sender
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

SIGNATURE: Final = "x-hub-signature"
PARTS_MAX: Final = 500
"""Parts looked at in one conversation, as many as the API returns."""

_STARTED: Final = frozenset({"conversation.user.created", "conversation.admin.single.created"})
_REPLIED: Final = frozenset({
    "conversation.user.replied", "conversation.admin.replied", "conversation.admin.closed",
    "conversation.admin.snoozed", "conversation.admin.opened", "conversation.admin.assigned",
    "conversation.operator.replied",
})  # fmt: skip
_MUST_HAVE_PARTS: Final = frozenset({"conversation.user.replied", "conversation.admin.replied"})
_NOTED: Final = frozenset({"conversation.admin.noted"})
_REDACTED: Final = "conversation_part.redacted"
_KNOWN_AREAS: Final = frozenset(
    {
        "conversation",
        "conversation_part",
        "contact",
        "company",
        "ticket",
        "admin",
        "user",
        "visitor",
    }
)
_CUSTOMERS: Final = frozenset({"user", "lead", "contact", "visitor"})


class Author(reading.Struct, frozen=True):
    """Who wrote: `type` is `user`, `lead` or `contact` for customers, `admin`, `bot` or `team` for our side."""

    type: str | None = None
    id: str | int | None = None
    name: str | None = None
    email: str | None = None


class File(reading.Struct, frozen=True):
    """An attachment."""

    name: str | None = None
    url: str | None = None
    content_type: str | None = None
    filesize: str | int | None = None


class Part(reading.Struct, frozen=True):
    """A part of a conversation: a comment (a message), a note, or a change of its state, with text or without."""

    id: str | int | None = None
    part_type: str | None = None
    body: str | None = None
    created_at: str | int | float | None = None
    author: Author | None = None
    attachments: tuple[File, ...] | None = None
    redacted: bool | None = None


class Source(reading.Struct, frozen=True):
    """What a conversation began with."""

    id: str | int | None = None
    type: str | None = None
    delivered_as: str | None = None
    subject: str | None = None
    body: str | None = None
    author: Author | None = None
    attachments: tuple[File, ...] | None = None
    url: str | None = None
    redacted: bool | None = None


class Parts(reading.Struct, frozen=True):
    """The list of parts in a conversation."""

    conversation_parts: tuple[Part, ...] | None = None


class Contact(reading.Struct, frozen=True):
    """A customer in a conversation."""

    id: str | int | None = None


class Contacts(reading.Struct, frozen=True):
    """The customers in a conversation."""

    contacts: tuple[Contact, ...] | None = None


class Links(reading.Struct, frozen=True):
    """Addresses for people."""

    conversation_web: str | None = None


class Conversation(reading.Struct, frozen=True):
    """A conversation as notifications and the API show it."""

    type: str | None = None
    id: str | int | None = None
    created_at: str | int | float | None = None
    title: str | None = None
    source: Source | None = None
    contacts: Contacts | None = None
    user: Contact | None = None
    conversation_parts: Parts | None = None
    links: Links | None = None


class Data(reading.Struct, frozen=True):
    """What a notification is about."""

    item: Conversation | None = None


class Notification(reading.Struct, frozen=True):
    """A notification. `id` is the same in every attempt."""

    type: str | None = None
    id: str | int | None = None
    app_id: str | None = None
    topic: str | None = None
    created_at: str | int | float | None = None
    data: Data | None = None


class Kept(reading.Struct, frozen=True):
    """One part that we read back, in its conversation."""

    conversation: Conversation
    part: Part


class Settings(ChannelSettings):
    """An Intercom account. `secret` is the app's client secret; `own_ids` are the admin ids under which we write.

    `app_id` is the workspace's: notifications of others are left out, for one app may be installed in several.
    `access_token` reads conversations; `api_url` is the region's address (`api.eu.intercom.io`, `api.au.intercom.io`) and
    `api_version` what we ask for in the `Intercom-Version` header. `look_back_minutes` is how old a part may be, when a
    notification came without any, to be taken as missed.
    """

    app_id: str = ""
    access_token: SecretReference | None = None
    api_url: str = "https://api.intercom.io"
    api_version: str = Field(default="2.11", pattern=r"^[0-9A-Za-z.]{1,20}$")
    look_back_minutes: int = Field(default=60, ge=1, le=10_080)

    @property
    def base(self) -> str:
        """The API's address, without a slash at its end."""
        return self.api_url.rstrip("/")

    @property
    def can_read(self) -> bool:
        """Whether conversations can be read."""
        return self.access_token is not None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:  # noqa: ARG001 - no time is signed
    """Prove the signature over the body. A HEAD request, which asks whether the address is there, is answered."""
    if request.method.upper() == "HEAD":
        return signing.handshake(Answer(200))
    wrong = signing.only(request, "POST")
    if wrong is not None:
        return wrong
    verdict = signing.by_body_hmac(request, secrets, SIGNATURE, prefix="sha1=", algorithm="sha1")
    return signing.proved(_name_of(request.body)) if verdict.accepted else verdict


def _name_of(body: bytes) -> str | None:
    """Return the notification's id, which every attempt repeats; it is part of what is signed."""
    try:
        return reading.identifier(reading.json_as(body, Notification).id, "id")
    except ParseError:
        return None


def parse(delivery: Delivery) -> Parsed:
    """Read a notification, or a part that we read back.

    Raises:
        ParseError: the body is no notification, or an id is missing; `field` names it.
    """
    if delivery.fetched == "part":
        kept = reading.json_as(delivery.body, Kept)
        return _parsed(delivery, kept.conversation, (kept.part,))
    said = reading.json_as(delivery.body, Notification)
    topic = said.topic or ""
    if not topic:
        raise ParseError("invalid_field", "topic: is missing", "topic")
    settings = settings_of(delivery, Settings)
    reason = _ignored(said, topic, settings)
    if reason is not None:
        return Parsed(ignored=reason, verified=delivery.verified)
    conversation = _conversation(said)
    if topic in _STARTED:
        first = _first(conversation, said.created_at)
        if first is None:
            is_hint = settings.can_read
            return Parsed(ignored="hint" if is_hint else "empty", verified=delivery.verified)
        return _parsed(delivery, conversation, (first,))
    parts = _parts(conversation)
    if topic == _REDACTED:
        gone = tuple(part for part in parts if part.redacted) or (parts if len(parts) == 1 else ())
        return _parsed(delivery, conversation, gone, change="deleted")
    if topic in _MUST_HAVE_PARTS and not parts:
        return Parsed(ignored="hint" if settings.can_read else "empty", verified=delivery.verified)
    return _parsed(delivery, conversation, parts)


def _ignored(said: Notification, topic: str, settings: Settings) -> str | None:
    """Return why a notification is no message whatever it holds; None where it may be one."""
    if topic == "ping":
        return "ping"
    if settings.app_id and said.app_id != settings.app_id:
        return "other_account"
    if topic in _NOTED:
        return "internal_note"
    if topic in _STARTED | _REPLIED or topic == _REDACTED:
        return None
    return "status" if topic.partition(".")[0] in _KNOWN_AREAS else "unknown_event"


def _conversation(said: Notification) -> Conversation:
    item = said.data.item if said.data is not None else None
    if item is None:
        raise ParseError("invalid_field", "data.item: is missing", "data.item")
    return item


def _parts(conversation: Conversation) -> tuple[Part, ...]:
    held = conversation.conversation_parts
    return ((held.conversation_parts if held is not None else None) or ())[:PARTS_MAX]


def _first(conversation: Conversation, told_at: str | float | None = None) -> Part | None:
    """Return what a conversation began with as a part; None where nothing of it is there."""
    source = conversation.source
    if source is None or (not (source.body or "").strip() and not source.attachments):
        return None
    conversation_id = reading.identifier(conversation.id, "data.item.id")
    return Part(
        id=source.id if source.id is not None else f"conversation:{conversation_id}",
        part_type="comment",
        body=source.body,
        created_at=conversation.created_at or told_at,
        author=source.author,
        attachments=source.attachments,
        redacted=source.redacted,
    )


def _parsed(
    delivery: Delivery, conversation: Conversation, parts: tuple[Part, ...], change: Change = "new"
) -> Parsed:
    is_verified = delivery.verified or delivery.fetched is not None
    settings = settings_of(delivery, Settings)
    reasons: list[str] = []
    found: list[MessageContent] = []
    for part in parts:
        reason = _left_out(part, settings, change)
        if reason is not None:
            reasons.append(reason)
        else:
            found.append(_content(delivery, conversation, part, change))
    if found:
        return Parsed(messages=tuple(found), verified=is_verified)
    first = next(
        (one for one in ("echo", "internal_note", "not_a_message") if one in reasons), None
    )
    return Parsed(ignored=first or "status", verified=is_verified)


def _left_out(part: Part, settings: Settings, change: Change) -> str | None:
    """Return why a part is no message; None where it is one."""
    if part.part_type in ("note", "note_and_reopen"):
        return "internal_note"
    author = part.author or Author()
    if (
        author.type not in _CUSTOMERS
        and author.id is not None
        and str(author.id) in settings.own_ids
    ):
        return "echo"
    if change == "deleted":
        return None
    if part.redacted:
        return "not_a_message"
    has_text = bool((part.body or "").strip()) or bool(part.attachments)
    return None if has_text else "status"


def _content(
    delivery: Delivery, conversation: Conversation, part: Part, change: Change
) -> MessageContent:
    author = part.author or Author()
    is_theirs = author.type in _CUSTOMERS
    source = conversation.source or Source()
    is_gone = change == "deleted"
    web = conversation.links.conversation_web if conversation.links is not None else None
    return reading.content(
        delivery,
        reading.identifier(part.id, "conversation_parts.id"),
        _sender(author),
        "" if is_gone else reading.text_of(None, part.body),
        subject=reading.text_of(None, source.subject) or (conversation.title or ""),
        occurred_at=part.created_at,
        attachments=() if is_gone else tuple(_file(one) for one in part.attachments or ()),
        direction="inbound" if is_theirs else "outbound",
        recipients=() if is_theirs else _customers(conversation),
        change=change,
        thread=reading.identifier(conversation.id, "data.item.id"),
        is_automatic=author.type == "bot",
        automatic_reason="bot" if author.type == "bot" else None,
        url=reading.link(web),
        fields={"delivered_as": source.delivered_as or "", "page": source.url or ""},
    )


def _sender(author: Author) -> Sender:
    if author.email and addresses.is_address(author.email):
        return Sender(name=author.name or "", address=author.email, kind="email")
    return Sender(
        name=author.name or "",
        address=reading.identifier(author.id, "author.id"),
        kind="vendor_id",
    )


def _customers(conversation: Conversation) -> tuple[str, ...]:
    """Return the customer of a conversation: by the address the conversation began with, else by contact ids."""
    author = conversation.source.author if conversation.source is not None else None
    if author is not None and author.type in _CUSTOMERS and author.email:
        return (author.email[:254],)
    held = conversation.contacts.contacts if conversation.contacts is not None else None
    named = held or ((conversation.user,) if conversation.user is not None else ())
    return tuple(str(one.id) for one in named if one.id is not None)[:50]


def _file(file: File) -> Attachment:
    return reading.attachment(file.name, file.content_type, file.filesize, file.url)


# ------------------------------------------------------------------------------------------ reading back


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    """Read what a conversation began with, or its newest parts.

    Raises:
        ApiProblem: the API could not be asked now, or the conversation is gone.
    """
    settings: Settings = api.settings
    said = reading.json_as(delivery.body, Notification)
    topic = said.topic or ""
    if topic not in _STARTED | _REPLIED or _ignored(said, topic, settings) is not None:
        return ()
    token = api.secrets.get("access_token", "")
    if not token:
        raise ApiProblem("no_secret")
    conversation_id = reading.identifier(_conversation(said).id, "data.item.id")
    answer = await api.get(
        f"{settings.base}/conversations/{quote(conversation_id, safe='')}",
        headers={"Authorization": f"Bearer {token}", "Intercom-Version": settings.api_version},
    )
    conversation = shaped(answer, Conversation)
    if topic in _STARTED:
        first = _first(conversation, said.created_at)
        parts: tuple[Part, ...] = (first,) if first is not None else ()
    else:
        told = reading.instant(said.created_at, delivery.received_at)
        since = told - timedelta(minutes=settings.look_back_minutes)
        parts = tuple(
            part
            for part in _parts(conversation)
            if reading.instant(part.created_at, delivery.received_at) >= since
        )
    about = msgspec.structs.replace(conversation, conversation_parts=None, title=None)
    return tuple(
        Fetched(
            kind="part",
            name=f"part:{part.id}",
            body=msgspec.json.encode(Kept(conversation=about, part=part)),
            correspondent=conversation_id,
        )
        for part in parts
        if part.id is not None and _left_out(part, settings, "new") is None
    )


CHANNEL = Channel(
    name="intercom",
    parse=parse,
    settings=Settings,
    verify=verify,
    read_back=read_back,
    reads_back=lambda settings: isinstance(settings, Settings) and settings.can_read,
    capability=Capability(supports_attachments=True, proof="HMAC-SHA1 over the body"),
)
