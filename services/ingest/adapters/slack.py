"""Slack: what customers write in channels and direct messages that our app sees, by the Events API.

Facts from Slack's own pages: verifying requests (`v0` signatures), the Events API's envelope, `url_verification` and its
retries, the events `message`, `message_changed` and `message_deleted`, formatting of message text, and the file object.

Proved: HMAC-SHA256 over `v0:{timestamp}:{raw body}`, and a timestamp within 300 seconds. The first challenge is signed like
everything else and is answered only then. Slack repeats a delivery after about 0, 1 and 5 minutes with the same `event_id`,
which names it here; the repeat's own headers are not signed and decide nothing.

A message's identity is its channel and its `ts` together, so ids here are `C0CCC3:1767225599.000200`. A channel's thread is
its first message's id; a direct conversation is one thread as a whole. Slack sends no display name with most messages.

Believed, not confirmed: `authorizations[].user_id` and a message's `app_id` as signs of our own app (both widely used), and
the subtype `tombstone` of a removed message that has answers. Slash commands and buttons come form-encoded under the same
signature; they are let in and left out as `command` and `interaction`.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal

import msgspec

from schemas.messages import Attachment, MessageContent, Sender
from services.ingest.adapters import reading, signing
from services.ingest.adapters.channel import (
    Answer,
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
from services.ingest.adapters.reading import Struct

SIGNATURE_HEADER: Final = "x-slack-signature"
TIME_HEADER: Final = "x-slack-request-timestamp"
WINDOW_SECONDS: Final = 300
"""How far a request's time may be away from now (Slack's page on verifying requests)."""
CHALLENGE_LENGTH_MAX: Final = 1_000
TEXT_LENGTH_ADVISED: Final = 4_000
"""Characters that Slack advises a message's text to stay below; it cuts at 40,000."""

MESSAGE_SUBTYPES: Final = frozenset(
    {"file_share", "thread_broadcast", "me_message", "bot_message", "file_comment"}
)
"""Subtypes that say something; a message without one does too."""

SILENT_EVENTS: Final = frozenset(
    {
        "app_home_opened",
        "channel_archive",
        "channel_created",
        "channel_deleted",
        "channel_rename",
        "channel_unarchive",
        "emoji_changed",
        "file_created",
        "file_shared",
        "link_shared",
        "member_joined_channel",
        "member_left_channel",
        "pin_added",
        "pin_removed",
        "reaction_added",
        "reaction_removed",
        "team_join",
        "user_change",
    }
)

# Each alternative begins and ends with its own bracket and holds none, so that reading stays linear.
MARKED: Final = re.compile(r"<([^<>|]{1,3000})(?:\|([^<>]{0,3000}))?>")

Id = int | str | None


class File(Struct, frozen=True):
    """A file that was shared. `mode` is `tombstone` or `hidden_by_limit` where Slack keeps it back."""

    name: str | None = None
    title: str | None = None
    mimetype: str | None = None
    size: int | None = None
    url_private: str | None = None
    mode: str | None = None


class Block(Struct, frozen=True):
    """An older attachment block: what bots say when their text is empty."""

    fallback: str | None = None
    text: str | None = None


class Profile(Struct, frozen=True):
    """Names of the writer, where Slack sends them along."""

    display_name: str | None = None
    real_name: str | None = None
    name: str | None = None


class Edited(Struct, frozen=True):
    """When a message was edited."""

    ts: str | None = None


class Message(Struct, frozen=True):
    """A `message` or `app_mention`, also inside of a change."""

    type: str | None = None
    subtype: str | None = None
    channel: str | None = None
    channel_type: str | None = None
    user: str | None = None
    bot_id: str | None = None
    app_id: str | None = None
    username: str | None = None
    user_profile: Profile | None = None
    text: str | None = None
    ts: str | None = None
    thread_ts: str | None = None
    event_ts: str | None = None
    deleted_ts: str | None = None
    edited: Edited | None = None
    files: tuple[File, ...] | None = None
    attachments: tuple[Block, ...] | None = None
    message: "Message | None" = None
    previous_message: "Message | None" = None


class Authorization(Struct, frozen=True):
    """For whom the event was sent; our bot's user, where it is one."""

    user_id: str | None = None
    is_bot: bool | None = None


class Envelope(Struct, frozen=True):
    """The body of a delivery. The event is read once its type is known."""

    type: str
    api_app_id: str | None = None
    event: msgspec.Raw = msgspec.Raw()
    authorizations: tuple[Authorization, ...] | None = None


class Kind(Struct, frozen=True):
    """The part of an event that says what it is."""

    type: str = ""


class Head(Struct, frozen=True):
    """What `verify` needs of a body whose signature is right."""

    type: str | None = None
    challenge: str | None = None
    event_id: str | None = None


class Settings(ChannelSettings):
    """A Slack app. `secret` is its signing secret.

    `own_ids` are the user and bot ids of our app (`U…`, `B…`): what they post is an echo. Our app is also known by the
    app's id in the envelope. `agent_ids` are the user ids of our people: what they write in a customer's channel is our
    side of the conversation. `app_id` names our app where another app of ours posts as well.
    """

    agent_ids: tuple[str, ...] = ()
    app_id: str = ""


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove a delivery by its `v0` signature and its time, and answer the challenge of `url_verification`."""
    if (wrong := signing.only(request, "POST")) is not None:
        return wrong
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    given = request.headers.get(SIGNATURE_HEADER, "").strip()
    stamp = request.headers.get(TIME_HEADER, "").strip()
    if not given or not stamp:
        return signing.refused("missing_signature")
    said = b"v0:" + stamp.encode("utf-8", "surrogatepass") + b":" + request.body
    if not signing.signed_by_any(given, keys, lambda key: "v0=" + signing.hex_hmac(key, said)):
        return signing.refused("bad_signature")
    if not signing.is_fresh(stamp, now, WINDOW_SECONDS):
        return signing.refused("stale")
    head = _head(request.body)
    if head.type != "url_verification":
        return signing.proved(head.event_id or None)
    challenge = head.challenge or ""
    if not 0 < len(challenge) <= CHALLENGE_LENGTH_MAX or not challenge.isprintable():
        return signing.refused("malformed", 400)
    return signing.handshake(Answer(200, {"Content-Type": "text/plain"}, challenge))


def _head(body: bytes) -> Head:
    try:
        return msgspec.json.decode(body, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Head()  # A form, or something that `parse` will refuse by name.


def parse(delivery: Delivery) -> Parsed:
    """Read a delivery: an event, a command or an interaction.

    Raises:
        ParseError: neither JSON nor a form of Slack's, or not of that shape.
    """
    if delivery.body.lstrip()[:1] != b"{":
        return _form(delivery)
    envelope = reading.json_as(delivery.body, Envelope)
    if envelope.type != "event_callback":
        known = {"url_verification": "handshake", "app_rate_limited": "status"}
        return _ignored(delivery, known.get(envelope.type, "unknown_event"))
    raw = bytes(envelope.event)
    if not raw:
        raise ParseError("invalid_field", "event: is missing", "event")
    kind = reading.json_as(raw, Kind).type
    if kind not in ("message", "app_mention"):
        return _ignored(delivery, "not_a_message" if kind in SILENT_EVENTS else "unknown_event")
    found = _message(delivery, envelope, reading.json_as(raw, Message))
    if isinstance(found, str):
        return _ignored(delivery, found)
    return Parsed((found,), verified=delivery.verified)


def _form(delivery: Delivery) -> Parsed:
    fields = reading.form_of(delivery.body)
    for name, reason in (("payload", "interaction"), ("command", "command"), ("ssl_check", "ping")):
        if name in fields:
            return _ignored(delivery, reason)
    raise ParseError("invalid_json", "body: is neither JSON nor one of Slack's forms", "body")


def _ignored(delivery: Delivery, reason: str) -> Parsed:
    return Parsed(ignored=reason, verified=delivery.verified)


def _message(delivery: Delivery, envelope: Envelope, event: Message) -> MessageContent | str:
    """Return what a message event says, or the reason why it says nothing."""
    if event.subtype == "message_changed":
        now = event.message or Message()
        before = event.previous_message or Message()
        if now.subtype == "tombstone":
            return _content(delivery, envelope, event, before, "deleted", at=event.ts)
        if now.edited is None and event.previous_message is not None and now.text == before.text:
            return "not_a_message"  # A preview was added, or a language was recognised.
        at = now.edited.ts if now.edited else event.ts
        return _content(delivery, envelope, event, now, "edited", at=at)
    if event.subtype == "message_deleted":
        gone = event.previous_message or Message()
        return _content(delivery, envelope, event, gone, "deleted", at=event.event_ts or event.ts)
    if event.subtype is not None and event.subtype not in MESSAGE_SUBTYPES:
        return "status"
    return _content(delivery, envelope, event, event, "new", at=event.ts)


def _content(
    delivery: Delivery,
    envelope: Envelope,
    event: Message,
    message: Message,
    change: Literal["new", "edited", "deleted"],
    *,
    at: str | None,
) -> MessageContent | str:
    settings = settings_of(delivery, Settings)
    if _is_ours(settings, envelope, message):
        return "echo"
    sender = message.user or message.bot_id or ""
    if not sender:
        return "deleted_unseen" if change == "deleted" else "not_a_message"
    channel = reading.identifier(event.channel, "event.channel")
    ts = reading.identifier(
        message.ts or (event.deleted_ts if change == "deleted" else None), "event.ts"
    )
    root = reading.identifier(message.thread_ts or ts, "event.thread_ts")
    is_direct = event.channel_type in ("im", "mpim")
    is_bot = message.bot_id is not None or message.subtype == "bot_message"
    text = "" if change == "deleted" else _text_of(message)
    return reading.content(
        delivery,
        reading.identifier(f"{channel}:{ts}", "event.ts"),
        Sender(
            name=_name_of(message),
            address=reading.identifier(sender, "event.user"),
            kind="vendor_id",
        ),
        text,
        text_new=text,
        direction="outbound" if message.user in settings.agent_ids else "inbound",
        change=change,
        recipients=(channel,),
        thread=channel if is_direct else f"{channel}:{root}",
        in_reply_to=f"{channel}:{root}" if root != ts else None,
        attachments=() if change == "deleted" else _files_of(message),
        occurred_at=at,
        is_automatic=is_bot,
        automatic_reason="bot" if is_bot else None,
    )


def _is_ours(settings: Settings, envelope: Envelope, message: Message) -> bool:
    """Whether our own app posted it: by its ids, by the app's id, or by the bot user the event was sent for."""
    ids = {message.user, message.bot_id} - {None}
    if ids & set(settings.own_ids):
        return True
    apps = {settings.app_id, envelope.api_app_id} - {"", None}
    if message.bot_id is not None and message.app_id in apps:
        return True
    if any(one.is_bot and one.user_id in ids for one in envelope.authorizations or ()):
        return True
    # Where nothing tells whose bot it is, a loop would be worse than a machine's words left out.
    is_told = bool(settings.own_ids or settings.app_id or message.app_id or envelope.authorizations)
    return message.bot_id is not None and not is_told


def _name_of(message: Message) -> str:
    profile = message.user_profile or Profile()
    return message.username or profile.display_name or profile.real_name or profile.name or ""


def _text_of(message: Message) -> str:
    if message.text and message.text.strip():
        return plain(message.text)
    blocks = (block.text or block.fallback or "" for block in message.attachments or ())
    return plain("\n".join(text for text in blocks if text))


def _files_of(message: Message) -> tuple[Attachment, ...]:
    return tuple(
        reading.attachment(file.name or file.title, file.mimetype, file.size or 0, file.url_private)
        for file in message.files or ()
        if file.mode not in ("tombstone", "hidden_by_limit")
    )


def plain(text: str) -> str:
    """Return Slack's marked text as people read it: links, names and channels told, escapes undone."""
    shown = MARKED.sub(_shown, text)
    return shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _shown(found: re.Match[str]) -> str:
    what, label = found[1], found[2] or ""
    sign, rest = what[:1], what[1:]
    if sign in ("@", "#"):
        return sign + (label or rest)
    if sign == "!":
        return label if rest.startswith("date^") or label[:1] == "@" else f"@{label or rest}"
    if what.startswith("mailto:") or not label or label == what:
        return label or what
    return f"{label} ({what})"


CHANNEL = Channel(
    name="slack",
    parse=parse,
    settings=Settings,
    verify=verify,
    media_types=frozenset({"application/json", "application/x-www-form-urlencoded"}),
    capability=Capability(
        can_reply=True,
        reply_characters_max=TEXT_LENGTH_ADVISED,
        supports_attachments=True,
        proof="HMAC-SHA256 over time and body",
    ),
)
