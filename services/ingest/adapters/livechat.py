"""LiveChat (text.com): what is written in chats, by webhook.

Sources: text.com's pages on webhooks (envelope, actions) and on data structures (events of a chat, `visibility`).

Verified: nothing is signed. Every body carries the `secret_key` that was set when the webhook was registered; it is
compared in constant time and taken out of the body before anything is stored. It proves that the sender knows the key and
nothing about the content, so `verified` stays false.

Believed and not confirmed: that agents go by mail addresses and customers by UUIDs, `custom_id` as the mark of our own
events, `event_deleted` as a webhook, retries and time-outs (none found). Nothing was tried against a live account.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from schemas.messages import Attachment, Change, MessageContent, Sender
from services.ingest.adapters import addresses, json_body, reading, signing
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Request,
    Verdict,
    settings_of,
)

SECRET: Final = "secret_key"  # noqa: S105 - a field's name
EVENTS_MAX: Final = 500
"""Events of a chat's first thread that are read."""
FORM_FIELDS_MAX: Final = 50

_STATUS: Final = frozenset({
    "chat_access_updated", "chat_deactivated", "chat_properties_deleted", "chat_properties_updated",
    "chat_transferred", "customer_updated", "events_marked_as_seen", "event_properties_deleted",
    "event_properties_updated", "routing_status_set", "thread_properties_deleted", "thread_properties_updated",
    "thread_tagged", "thread_untagged", "user_added_to_chat", "user_removed_from_chat",
})  # fmt: skip


class FormField(reading.Struct, frozen=True):
    """A field of a pre-chat or offline form that was filled in; the answer has several shapes."""

    label: str | None = None
    value: Any = None
    answer: Any = None
    answers: Any = None


class Event(reading.Struct, frozen=True):
    """An event of a chat."""

    id: str | None = None
    custom_id: str | None = None
    type: str | None = None
    author_id: str | None = None
    created_at: str | None = None
    text: str | None = None
    visibility: str | None = None
    recipients: str | None = None
    name: str | None = None
    url: str | None = None
    content_type: str | None = None
    size: int | None = None
    fields: tuple[FormField, ...] | None = None


class User(reading.Struct, frozen=True):
    """Who takes part in a chat."""

    id: str | None = None
    type: str | None = None
    name: str | None = None
    email: str | None = None


class Thread(reading.Struct, frozen=True):
    """A thread, with the events it began with."""

    id: str | None = None
    events: tuple[Event, ...] | None = None


class Chat(reading.Struct, frozen=True):
    """A chat, as it comes in."""

    id: str | None = None
    users: tuple[User, ...] | None = None
    thread: Thread | None = None


class Payload(reading.Struct, frozen=True):
    """What an action is about."""

    chat_id: str | None = None
    thread_id: str | None = None
    event_id: str | None = None
    event: Event | None = None
    chat: Chat | None = None


class Webhook(reading.Struct, frozen=True):
    """The envelope of every action; the key in it is not read here."""

    action: str
    webhook_id: str | None = None
    payload: Payload = Payload()


class _Shown(reading.Struct, frozen=True):
    secret_key: str | None = None
    action: str | None = None
    payload: Payload = Payload()


class Settings(ChannelSettings):
    """A licence: `secret` is the `secret_key` of the webhook's registration; `own_ids` are agents and bots we write as."""

    own_custom_id_prefix: str = "signalbox"
    """How the `custom_id` of events begins that we sent ourselves."""


def _name(shown: _Shown) -> str | None:
    event = shown.payload.event
    if event is None or not event.id or not shown.action:
        return None
    name = f"{shown.action}/{event.id}"
    # An edited event keeps its id; which edit it is, the body says.
    is_once = shown.action == "incoming_event"
    return name if is_once and len(name) <= reading.ID_LENGTH_MAX and name.isprintable() else None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether the body shows the registration's key."""
    del now
    refused = signing.only(request, "POST")
    if refused is not None:
        return refused
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    try:
        json_body.check(request.body)
        shown = msgspec.json.decode(request.body, type=_Shown)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ParseError):
        return signing.refused("malformed", 400)
    if not shown.secret_key:
        return signing.refused("missing_signature")
    given = shown.secret_key
    is_right = False
    for key in keys:
        is_right |= signing.same(key, given)
    return signing.shown(_name(shown)) if is_right else signing.refused("bad_token")


def scrub(body: bytes) -> bytes:
    """Return a body without its key; one that is no JSON object as it is, for it never was let in."""
    try:
        document = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body
    if SECRET not in document:
        return body
    del document[SECRET]
    return msgspec.json.encode(document)


def _answers(field: FormField) -> str:
    """Return what was answered: a text, an option with its label, or several of them."""
    given = [one for one in (field.answer, field.value, field.answers) if one not in (None, "")]
    values = given[0] if given else ""
    shown = [
        value.get("label") if isinstance(value, dict) else value
        for value in (values if isinstance(values, list) else [values])[:FORM_FIELDS_MAX]
    ]
    return ", ".join(str(value) for value in shown if isinstance(value, (str, int, float)))


def _text(event: Event) -> str:
    if event.type == "filled_form":
        told = [
            f"{field.label or ''}: {_answers(field)}"
            for field in (event.fields or ())[:FORM_FIELDS_MAX]
            if _answers(field)
        ]
        return reading.text_of("\n".join(told))
    return reading.text_of(event.text)


def _files(event: Event) -> tuple[Attachment, ...]:
    if event.type != "file":
        return ()
    return (reading.attachment(event.name, event.content_type, event.size or 0, event.url),)


def _is_agent(author: str, users: Mapping[str, User]) -> bool:
    """Whether somebody of ours wrote: the chat says so, or else they go by a mail address."""
    known = users.get(author)
    if known is not None and known.type:
        return known.type != "customer"
    return "@" in author


def _read(
    delivery: Delivery,
    event: Event,
    chat: str,
    users: Mapping[str, User],
    change: Change,
) -> MessageContent | str:
    """Return an event as a message, or why it is none."""
    settings = settings_of(delivery, Settings)
    if event.type == "system_message":
        return "status"
    if "agents" in (event.visibility, event.recipients):
        return "internal_note"
    text, files = _text(event), _files(event)
    if not text and not files:
        return "not_a_message"
    author = reading.identifier(event.author_id, "event.author_id")
    prefix = settings.own_custom_id_prefix
    is_marked = bool(prefix) and (event.custom_id or "").startswith(prefix)
    if author in settings.own_ids:
        return "echo"
    is_ours = _is_agent(author, users)
    if is_ours and is_marked:
        return "echo"
    user = users.get(author) or User()
    customers = [one for one, known in users.items() if known.type == "customer"]
    email = (user.email or "").strip()
    return reading.content(
        delivery,
        reading.identifier(event.id, "event.id"),
        Sender(name=user.name or "", address=author, kind="vendor_id"),
        text,
        text_new=text,
        occurred_at=event.created_at,
        attachments=files,
        thread=chat,
        change=change,
        kind="form" if event.type == "filled_form" else "message",
        direction="outbound" if is_ours else "inbound",
        recipients=tuple(customers[:10]) if is_ours else (),
        fields={"email": email if addresses.is_address(email) and not is_ours else ""},
    )


def _events(webhook: Webhook) -> tuple[tuple[Event, ...], str | None, dict[str, User]]:
    payload = webhook.payload
    if webhook.action == "incoming_chat":
        chat = payload.chat or Chat()
        users = {user.id: user for user in chat.users or () if user.id}
        thread = chat.thread or Thread()
        return (thread.events or ())[:EVENTS_MAX], chat.id, users
    return (payload.event,) if payload.event is not None else (), payload.chat_id, {}


def _deleted(delivery: Delivery, payload: Payload) -> Parsed:
    gone = reading.content(
        delivery,
        reading.identifier(payload.event_id, "payload.event_id"),
        Sender(address="", kind="none"),
        "",
        text_new="",
        thread=reading.identifier(payload.chat_id, "payload.chat_id"),
        change="deleted",
    )
    return Parsed((gone,), verified=delivery.verified)


def parse(delivery: Delivery) -> Parsed:
    """Read an action: what customers write inbound, what agents write outbound; notes, our own and the rest left out.

    Raises:
        ParseError: it is no webhook of LiveChat, or an event without id or author.
    """
    webhook = reading.json_as(delivery.body, Webhook)
    if webhook.action == "event_deleted":
        return _deleted(delivery, webhook.payload)
    if webhook.action not in ("incoming_chat", "incoming_event", "event_updated"):
        known = "status" if webhook.action in _STATUS else "unknown_event"
        return Parsed(ignored=known, verified=delivery.verified)
    events, chat_id, users = _events(webhook)
    if not events:
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    chat = reading.identifier(chat_id, "payload.chat_id")
    change: Change = "edited" if webhook.action == "event_updated" else "new"
    read = [_read(delivery, event, chat, users, change) for event in events]
    messages = tuple(one for one in read if isinstance(one, MessageContent))
    if messages:
        return Parsed(messages, verified=delivery.verified)
    reasons = [one for one in read if isinstance(one, str)]
    return Parsed(ignored="echo" if "echo" in reasons else reasons[0], verified=delivery.verified)


CHANNEL = Channel(
    name="livechat",
    parse=parse,
    settings=Settings,
    verify=verify,
    scrub=scrub,
    capability=Capability(
        can_reply=True, supports_attachments=True, proof="shared key in the body"
    ),
)
