"""What Meta's channels share: the handshake, the signature, the loops over entries, and direct messages.

Facts: Meta for Developers, "Webhooks" (getting started, pages, Instagram), "Messenger Platform: webhook events" and
"Instagram Platform: webhook notification examples". The handshake, the signature, both loops and the ids are the
vendor's own documentation; that a callback carries up to 1000 updates, and what becomes of failed ones, is what
operators tell. The signature is over the bytes as sent, in which Meta escapes all but ASCII: a body that was
parsed and written again does not match any more. The older SHA-1 header is no proof. There is no time in the
signature, so a copy of a delivery is let in and known again by its messages' ids.

An app has one callback for each object (`page`, `instagram`, `whatsapp_business_account`), so entries for several pages
or numbers may arrive at one address; `page_id` leaves out those that are not the account's. Believed and unconfirmed:
the dashboard's test button sends entries with the id `0`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, TypeVar

import msgspec
from pydantic import Field

from schemas.messages import Attachment, MessageContent, Sender
from services.ingest.adapters import signing
from services.ingest.adapters.channel import (
    Answer,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Receipt,
    Request,
    SecretReference,
    Verdict,
)
from services.ingest.adapters.reading import Struct, attachment, content, identifier, json_as

SIGNATURE: Final = "x-hub-signature-256"
PROOF: Final = "HMAC-SHA256 over the body"
REPLY_WINDOW_SECONDS: Final = 86_400
"""How long after a person's message we may answer freely, on Messenger, Instagram and WhatsApp alike (documented)."""

INBOXES: Final = frozenset({"263902037430900", "1217981644879628"})
"""The apps by which people write in Meta's own inbox, for Pages and for Instagram. Seen in third parties' code."""

TEST_ENTRY: Final = "0"

_CHALLENGE: Final = re.compile(r"[ -~]{1,200}")
_NO_CHALLENGE: Final = re.compile(r"[<>\"'`&]")
_PLAIN: Final = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
_EXTENSIONS: Final = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "m4a": "audio/mp4",
    "pdf": "application/pdf",
}

T = TypeVar("T")
Id = str | int
Outcome = MessageContent | Receipt | str | ParseError
"""A message, or the reason why an update is none, or why it cannot be read."""


# ------------------------------------------------------------------------------- what a callback holds


class Change(Struct, frozen=True):
    """An update of a field; what `value` holds depends on the field."""

    field: str = ""
    value: Any = None


class Party(Struct, frozen=True):
    """Who writes or is written to. `user_ref` stands for a person who has not written yet."""

    id: Id | None = None
    user_ref: Id | None = None


class Story(Struct, frozen=True):
    """A story that a person answers to."""

    id: Id | None = None
    url: str | None = None


class ReplyTo(Struct, frozen=True):
    """What a message answers to: another message, or a story."""

    mid: str | None = None
    story: Story | None = None


class QuickReply(Struct, frozen=True):
    """What our button says to our programs; its label is the message's text."""

    payload: str | None = None


class Attached(Struct, frozen=True):
    """A file, a place, or something shared. Links carry their title and address beside the payload."""

    type: str = ""
    payload: Any = None
    title: str | None = None
    url: str | None = None


class Referral(Struct, frozen=True):
    """What led a person here: a link's `ref`, or an advertisement."""

    ref: str | None = None
    source: str | None = None
    ad_id: Id | None = None


class Direct(Struct, frozen=True):
    """A direct message. `app_id` and `metadata` stand in echoes only, and tell who sent it."""

    mid: str | None = None
    text: str | None = None
    attachments: list[Attached] | None = None
    reply_to: ReplyTo | None = None
    quick_reply: QuickReply | None = None
    referral: Referral | None = None
    is_echo: bool = False
    is_self: bool = False
    is_deleted: bool = False
    is_unsupported: bool = False
    app_id: Id | None = None
    metadata: str | None = None


class Postback(Struct, frozen=True):
    """A pressed button. In standby its payload is left out."""

    mid: str | None = None
    title: str | None = None
    payload: str | None = None
    referral: Referral | None = None


class Edited(Struct, frozen=True):
    """A message's text after an edit."""

    mid: str | None = None
    text: str | None = None


class Event(Struct, frozen=True):
    """One thing that happened in a direct conversation. `timestamp` is in milliseconds."""

    sender: Party | None = None
    recipient: Party | None = None
    timestamp: Id | None = None
    is_self: bool = False
    message: Direct | None = None
    postback: Postback | None = None
    message_edit: Edited | None = None
    reaction: Any = None
    delivery: Any = None
    read: Any = None
    optin: Any = None
    referral: Any = None
    pass_thread_control: Any = None
    take_thread_control: Any = None
    request_thread_control: Any = None
    app_roles: Any = None


class Entry(Struct, frozen=True):
    """The updates of one page, account or business, each to be read by itself: `messaging` and `standby` hold events.

    Instagram also puts a change's `field` and `value` here, without `changes`.
    """

    id: Id | None = None
    time: Id | None = None
    messaging: list[Any] | None = None
    standby: list[Any] | None = None
    changes: list[Any] | None = None
    field: str | None = None
    value: Any = None


class Callback(Struct, frozen=True):
    """A callback's body."""

    object: str
    entry: list[Entry]


_CALLBACKS: Final[Any] = Callback | list[Callback]


# ------------------------------------------------------------------------------------------- settings


class MetaSettings(ChannelSettings):
    """What every Meta account has. `secret` is the app secret, which signs; it is no access token."""

    verify_token: SecretReference | None = Field(
        default=None,
        description="The text that the dashboard asks for beside the callback's address. Without one, the app secret"
        " counts in its place.",
    )


class DirectSettings(MetaSettings):
    """What accounts with direct messages have."""

    page_id: str | None = Field(
        default=None,
        pattern=r"^\d{1,40}$",
        description="Id of the Page or the Instagram account. Entries for another are left out.",
    )
    app_id: str | None = Field(
        default=None,
        pattern=r"^\d{1,40}$",
        description="Id of our app, whose echoes are our own replies. Without it every app's are, but for the apps of"
        " Meta's own inbox.",
    )
    metadata_prefix: str = Field(
        default="signalbox",
        max_length=100,
        description="What the `metadata` of our own replies begins with; empty: nothing is told by it.",
    )
    standby: Literal["take", "ignore"] = Field(
        default="take",
        description="What becomes of messages in conversations that another app handles: taken and marked, or left"
        " out.",
    )


# --------------------------------------------------------------------------------------------- origin


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether a request is Meta's: the challenge answered, or the body's HMAC with the app secret.

    Nothing is signed but the body, so there is no time to be stale.
    """
    del now
    wrong = signing.only(request, "GET", "POST")
    if wrong is not None:
        return wrong
    if request.method.upper() == "GET":
        return _challenged(request, secrets)
    return signing.by_body_hmac(request, secrets, SIGNATURE, prefix="sha256=")


def _challenged(request: Request, secrets: Mapping[str, str]) -> Verdict:
    query = request.query
    keys = signing.secrets_of(secrets, "verify_token") or signing.secrets_of(secrets)
    if query.get("hub.mode") != "subscribe":
        return signing.refused("malformed", 403)
    if not keys:
        return signing.refused("no_secret", 403)
    is_right = False
    for key in keys:
        is_right |= signing.same(key, query.get("hub.verify_token", ""))
    if not is_right:
        return signing.refused("bad_token", 403)
    challenge = query.get("hub.challenge", "")
    # Only what a challenge can be is said back, so that nobody makes us say a page of theirs.
    if not _CHALLENGE.fullmatch(challenge) or _NO_CHALLENGE.search(challenge):
        return signing.refused("malformed", 403)
    return signing.handshake(Answer(200, _PLAIN, challenge))


# --------------------------------------------------------------------------------------------- loops


def each(
    delivery: Delivery,
    named: str,
    own: str | None,
    read: Callable[[Entry], Iterable[Outcome]],
) -> Iterator[Outcome]:
    """Return what each entry of a callback comes to, in order; `named` is the object this channel reads.

    `own` is the id of the account's page, where it is known: entries for another come to `other_account`.

    Raises:
        ParseError: the body is no callback.
    """
    found: Callback | list[Callback] = json_as(delivery.body, _CALLBACKS)
    for callback in found if isinstance(found, list) else [found]:
        if callback.object != named:
            yield "other_channel"
            continue
        for entry in callback.entry:
            if str(entry.id) == TEST_ENTRY:
                yield "ping"
            elif own is not None and str(entry.id) != own:
                yield "other_account"
            else:
                yield from read(entry)


def concluded(delivery: Delivery, outcomes: Iterable[Outcome]) -> Parsed:
    """Return the messages of a callback; the first reason where nothing in it is one.

    An update that cannot be read is told apart where others can (`Parsed.unread`): refusing it would refuse those with
    it, and Meta would send them all again until it gives up.

    Raises:
        ParseError: nothing in it is a message, and something cannot be read.
    """
    messages: list[MessageContent] = []
    receipts: list[Receipt] = []
    reason: str | None = None
    unread: list[ParseError] = []
    for outcome in outcomes:
        if isinstance(outcome, str):
            reason = reason or outcome
        elif isinstance(outcome, Receipt):
            receipts.append(outcome)
        elif isinstance(outcome, ParseError):
            unread.append(outcome)
        else:
            messages.append(outcome)
    if messages:
        parts = tuple((str(one), one.part) for one in unread)
        return Parsed(
            messages=tuple(messages),
            verified=delivery.verified,
            unread=parts,
            receipts=tuple(receipts),
        )
    if unread and not receipts:
        raise unread[0]
    parts = tuple((str(one), one.part) for one in unread)
    return Parsed(
        ignored=reason or ("status" if receipts else "empty"),
        verified=delivery.verified,
        unread=parts,
        receipts=tuple(receipts),
    )


def each_of(
    values: Iterable[object] | None,
    kind: type[T],
    field: str,
    read: Callable[[T], Iterable[Outcome]],
) -> Iterator[Outcome]:
    """Return what each of a list of updates comes to, in order; one that cannot be read comes to its error."""
    for value in values or ():
        try:
            yield from read(shaped(value, kind, field))
        except ParseError as error:
            error.part = msgspec.json.encode(value)
            yield error


def shaped(value: object, kind: type[T], field: str) -> T:
    """Return a part of a callback as `kind`.

    Raises:
        ParseError: it has another shape; the field's path is said, no value.
    """
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        _, _, where = str(error).partition(" - at `$")
        path = f"{field}{where.rstrip('`')}"
        raise ParseError("invalid_field", f"{path}: has the wrong type", path) from None


def is_own(who: Id | None, entry: Entry, *own: str | None) -> bool:
    """Whether an id is one under which we write ourselves: the entry's page or account, or one of `own`."""
    return who is not None and (str(who) in own or str(who) == str(entry.id))


def told(**facts: object) -> dict[str, str]:
    """Return further facts as a message's fields; what is not there is left out."""
    return {name: str(fact) for name, fact in facts.items() if fact is not None and fact != ""}


# ------------------------------------------------------------------------------------- direct messages


def directs(delivery: Delivery, settings: DirectSettings, entry: Entry) -> Iterator[Outcome]:
    """Return what the direct messages of an entry come to, in order."""

    def owned(event: Event) -> list[Outcome]:
        return [direct(delivery, settings, entry, event)]

    def beside(event: Event) -> list[Outcome]:
        return [direct(delivery, settings, entry, event, is_standby=True)]

    if entry.messaging:
        yield from each_of(entry.messaging, Event, "messaging", owned)
    if entry.standby:
        yield from each_of(entry.standby, Event, "standby", beside)


def in_change(
    delivery: Delivery, settings: DirectSettings, entry: Entry, change: Change
) -> Outcome:
    """Return what a direct message comes to that came as a change, as the dashboard's test button sends them."""
    event = shaped(change.value, Event, "value")
    return direct(delivery, settings, entry, event, is_standby=change.field == "standby")


def is_direct(change: Change) -> bool:
    """Whether a change holds a direct conversation's event."""
    return isinstance(change.value, dict) and "sender" in change.value


def direct(
    delivery: Delivery,
    settings: DirectSettings,
    entry: Entry,
    event: Event,
    *,
    is_standby: bool = False,
) -> Outcome:
    """Return what one event of a direct conversation comes to.

    A message that a person of ours wrote in Meta's inbox, or another app sent, is `outbound`; what our own app sent
    comes to `echo`.

    Raises:
        ParseError: a message without its id, or without who wrote it.
    """
    said, pressed, edited = event.message, event.postback, event.message_edit
    if said is None and pressed is None and edited is None:
        return _not_said(event)
    if is_standby and settings.standby == "ignore":
        return "standby"
    writer = event.sender or Party()
    is_ours = (said is not None and said.is_echo) or is_own(
        writer.id, entry, settings.page_id, *settings.own_ids
    )
    if event.is_self or (said is not None and (said.is_self or _is_our_reply(settings, said))):
        return "echo"
    sender, recipients = _between(event, is_ours)
    common: dict[str, Any] = {
        "occurred_at": event.timestamp or entry.time,
        "direction": "outbound" if is_ours else "inbound",
        "recipients": recipients,
    }
    marks = told(standby="true" if is_standby else None)
    if said is not None:
        return _said(delivery, said, sender, marks, common)
    if pressed is not None:
        return _pressed(delivery, pressed, event, sender, marks, common)
    assert edited is not None
    if edited.text is None:
        # Instagram tells of some edits without saying what the text became.
        return "hint"
    return content(
        delivery,
        identifier(edited.mid, "message_edit.mid"),
        sender,
        edited.text,
        text_new=edited.text,
        change="edited",
        fields=marks,
        **common,
    )


def _not_said(event: Event) -> str:
    if event.delivery is not None or event.read is not None:
        return "receipt"
    if event.reaction is not None:
        return "reaction"
    if event.optin is not None:
        return "optin"
    if event.referral is not None:
        return "referral"
    handed_over = (
        event.pass_thread_control,
        event.take_thread_control,
        event.request_thread_control,
        event.app_roles,
    )
    return "handover" if any(one is not None for one in handed_over) else "unknown_event"


def _is_our_reply(settings: DirectSettings, said: Direct) -> bool:
    if not said.is_echo:
        return False
    prefix = settings.metadata_prefix
    if prefix and (said.metadata or "").startswith(prefix):
        return True
    if said.app_id is None:
        return False
    app = str(said.app_id)
    if settings.app_id is not None:
        return app == settings.app_id or app in settings.own_ids
    return app not in INBOXES


def _between(event: Event, is_ours: bool) -> tuple[Sender, tuple[str, ...]]:
    writer, reader = event.sender or Party(), event.recipient or Party()
    if writer.id is None and writer.user_ref is not None and not is_ours:
        # Somebody who pressed a button on a website, and has no id with us before they write.
        sender = Sender(address="", kind="none")
    else:
        sender = Sender(address=identifier(writer.id, "sender.id"), kind="vendor_id")
    if is_ours or reader.id is not None:
        return sender, (identifier(reader.id, "recipient.id"),)
    return sender, ()


def _said(
    delivery: Delivery,
    said: Direct,
    sender: Sender,
    marks: dict[str, str],
    common: dict[str, Any],
) -> MessageContent:
    name = identifier(said.mid, "message.mid")
    if said.is_deleted:
        return content(
            delivery, name, sender, "", text_new="", change="deleted", fields=marks, **common
        )
    files, places = _attached(said.attachments or [])
    text = "\n".join(part for part in (said.text or "", *places) if part)
    story = said.reply_to.story if said.reply_to is not None else None
    says_nothing = not text and not files
    marks |= told(
        payload=said.quick_reply.payload if said.quick_reply is not None else None,
        story_id=story.id if story is not None else None,
        story_url=story.url if story is not None else None,
        story_mention="true" if _is_mention(said) else None,
        unsupported="true" if said.is_unsupported or says_nothing else None,
        **_led(said.referral),
    )
    return content(
        delivery,
        name,
        sender,
        text,
        text_new=text,
        attachments=files,
        in_reply_to=_answered(said),
        fields=marks,
        **common,
    )


def _pressed(
    delivery: Delivery,
    pressed: Postback,
    event: Event,
    sender: Sender,
    marks: dict[str, str],
    common: dict[str, Any],
) -> MessageContent:
    name = pressed.mid or f"postback:{sender.address}:{event.timestamp}"
    text = pressed.title or ""
    marks |= told(payload=pressed.payload, **_led(pressed.referral))
    return content(
        delivery,
        identifier(name, "postback.mid"),
        sender,
        text,
        text_new=text,
        fields=marks,
        **common,
    )


def _answered(said: Direct) -> str | None:
    mid = said.reply_to.mid if said.reply_to is not None else None
    return identifier(mid, "message.reply_to.mid") if mid else None


def _is_mention(said: Direct) -> bool:
    return any(one.type == "story_mention" for one in said.attachments or ())


def _led(referral: Referral | None) -> dict[str, object]:
    if referral is None:
        return {}
    return {
        "referral": referral.ref,
        "referral_source": referral.source,
        "ad_id": referral.ad_id,
    }


def _attached(parts: list[Attached]) -> tuple[tuple[Attachment, ...], list[str]]:
    """Return files and shared things, and places as text."""
    files: list[Attachment] = []
    places: list[str] = []
    for part in parts:
        payload = part.payload if isinstance(part.payload, dict) else {}
        spot = payload.get("coordinates")
        if part.type == "location" and isinstance(spot, dict):
            places.append(place(spot.get("lat"), spot.get("long"), part.title))
            continue
        url = payload.get("url") or part.url
        title = payload.get("title") or part.title
        files.append(file(part.type or "file", url, title))
    return tuple(files), places


def place(latitude: object, longitude: object, *names: str | None) -> str:
    """Return a place as lines of text: its names, and its coordinates where both are numbers."""
    lines = [name for name in names if name]
    numbers = [
        one
        for one in (latitude, longitude)
        if isinstance(one, (int, float)) and not isinstance(one, bool)
    ]
    if len(numbers) == 2:
        lines.append(f"{numbers[0]}, {numbers[1]}")
    return "\n".join(lines)


def file(kind: str, url: object, title: object = None) -> Attachment:
    """Return an attachment of which Meta tells a kind (`image`, `video`, `share`, …) and an address, seldom a name."""
    last = url.partition("?")[0].rpartition("/")[2] if isinstance(url, str) else ""
    media_type = _EXTENSIONS.get(last.rpartition(".")[2].lower(), "") if "." in last else ""
    named = title if isinstance(title, str) and title.strip() else last if media_type else kind
    return attachment(named, media_type, url=url)
