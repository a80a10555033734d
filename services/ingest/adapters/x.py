"""X (formerly Twitter): direct messages, and posts that mention, answer or quote us.

Facts from docs.x.com: webhooks (challenge, signature), the X Activity API with its payload examples, and the older
Account Activity API, which X calls deprecated. Both envelopes are read; `account_activity: false` refuses the older one.

Proved: the challenge is answered as X asks, and each delivery's HMAC-SHA256 over the raw body (`x-twitter-webhooks-
signature`). X signs no time, so a repeat is told by the ids inside. The challenge signs a text of the asker's choice with
the very key and form of a delivery's signature; therefore only what looks like a token is signed, and never anything that
could be a delivery's JSON.

Believed, not confirmed: the inner shape of `post.reply.create` and `post.quote.create` (X shows the mention's only), and
`source_app_id` of direct messages in the newer envelope. How often X repeats a delivery is not published; its replay job
is the way back. Encrypted chat cannot be read by anybody but X's own library, and is left out as `encrypted`.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

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
from services.ingest.core.normalise import clean_value

SIGNATURE_HEADER: Final = "x-twitter-webhooks-signature"
CHALLENGE: Final = re.compile(r"^[A-Za-z0-9_.~+/=: -]{1,256}$")
"""What is signed as a challenge: tokens as X sends them, and nothing that begins like JSON."""

HANDLE: Final = re.compile(r"^[A-Za-z0-9_]{1,50}$")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
OLD_TIME: Final = re.compile(
    r"^[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{1,2}) (\d{2}):(\d{2}):(\d{2}) ([+-])(\d{2})(\d{2}) (\d{4})$"
)

MEDIA_TYPES: Final = {
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "gif": "image/gif",
    "mp4": "video/mp4",
}
"""Media types by an address's ending; X tells none."""

POST_EVENTS: Final = frozenset(
    {"post.mention.create", "post.reply.create", "post.quote.create", "post.create"}
)
DIRECT_EVENTS: Final = frozenset({"dm.received", "dm.sent"})
SILENT_EVENTS: Final = {"dm.read": "receipt", "dm.indicate_typing": "typing"}
OTHER_FAMILIES: Final = {
    "chat": "encrypted",
    "like": "not_a_message",
    "follow": "not_a_message",
    "profile": "not_a_message",
    "mute": "not_a_message",
    "block": "not_a_message",
    "spaces": "not_a_message",
    "news": "not_a_message",
    "oauth": "status",
}
OLD_SILENT: Final = {
    "direct_message_mark_read_events": "receipt",
    "direct_message_indicate_typing_events": "typing",
    "favorite_events": "not_a_message",
    "follow_events": "not_a_message",
    "unfollow_events": "not_a_message",
    "block_events": "not_a_message",
    "unblock_events": "not_a_message",
    "mute_events": "not_a_message",
    "unmute_events": "not_a_message",
    "user_event": "status",
}

Id = int | str | None


class User(Struct, frozen=True):
    """Who wrote, in either API's names. `data` holds the same once more where X wraps it."""

    id: Id = None
    id_str: Id = None
    name: str | None = None
    username: str | None = None
    screen_name: str | None = None
    data: "User | None" = None

    @property
    def bare(self) -> "User":
        """The user out of X's wrapping."""
        return self.data if self.data is not None else self

    @property
    def key(self) -> str:
        """The user's id as text; empty where there is none."""
        return _text(self.id_str) or _text(self.id)

    @property
    def handle(self) -> str:
        """The name behind the @."""
        return self.username or self.screen_name or ""


class Media(Struct, frozen=True):
    """A picture or film."""

    id_str: Id = None
    media_key: str | None = None
    type: str | None = None
    url: str | None = None
    media_url_https: str | None = None


class DirectAttachment(Struct, frozen=True):
    """What came with a direct message."""

    type: str | None = None
    media: Media | None = None


class MessageData(Struct, frozen=True):
    """A direct message's content."""

    text: str | None = None
    attachment: DirectAttachment | None = None


class Target(Struct, frozen=True):
    """Whom a direct message goes to."""

    recipient_id: Id = None


class MessageCreate(Struct, frozen=True):
    """A direct message."""

    target: Target | None = None
    sender_id: Id = None
    source_app_id: Id = None
    message_data: MessageData | None = None


class DirectEvent(Struct, frozen=True):
    """Something in a direct conversation."""

    type: str | None = None
    id: Id = None
    created_timestamp: Id = None
    message_create: MessageCreate | None = None


class Referenced(Struct, frozen=True):
    """A post that a post answers, quotes or repeats."""

    type: str | None = None
    id: Id = None


class MediaKeys(Struct, frozen=True):
    """Which of the included media belong to a post."""

    media_keys: tuple[str, ...] | None = None


class Entities(Struct, frozen=True):
    """Media of an older post object."""

    media: tuple[Media, ...] | None = None


class LongText(Struct, frozen=True):
    """The whole text of an older post object that was cut."""

    full_text: str | None = None
    extended_entities: Entities | None = None


class Post(Struct, frozen=True):
    """A post, in the newer names (`author_id`) and the older ones (`user`, `id_str`)."""

    id: Id = None
    id_str: Id = None
    text: str | None = None
    full_text: str | None = None
    extended_tweet: LongText | None = None
    author_id: Id = None
    user: User | None = None
    created_at: str | None = None
    timestamp_ms: Id = None
    conversation_id: Id = None
    lang: str | None = None
    referenced_tweets: tuple[Referenced, ...] | None = None
    edit_history_tweet_ids: tuple[Id, ...] | None = None
    attachments: MediaKeys | None = None
    extended_entities: Entities | None = None
    in_reply_to_status_id_str: Id = None
    retweeted_status: Any = None


class Includes(Struct, frozen=True):
    """Users and media that an event speaks of."""

    users: tuple[User, ...] | None = None
    media: tuple[Media, ...] | None = None


class Filter(Struct, frozen=True):
    """Whose events were asked for: our account."""

    user_id: Id = None


class Payload(Struct, frozen=True):
    """What happened: a post's own fields, or direct messages with their users."""

    direct_message_events: tuple[DirectEvent, ...] | None = None
    users: dict[str, User] | None = None


class Activity(Struct, frozen=True):
    """An event of the X Activity API. The payload is read once its type is known."""

    event_type: str = ""
    filter: Filter | None = None
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    includes: Includes | None = None


class Envelope(Struct, frozen=True):
    """The body of a delivery of the X Activity API."""

    data: Activity
    includes: Includes | None = None


class DeletedStatus(Struct, frozen=True):
    """A removed post, older form."""

    id: Id = None
    user_id: Id = None


class Deletion(Struct, frozen=True):
    """A post was removed, older form."""

    status: DeletedStatus | None = None
    timestamp_ms: Id = None


class OldEnvelope(Struct, frozen=True):
    """The body of a delivery of the Account Activity API."""

    for_user_id: Id = None
    tweet_create_events: tuple[Post, ...] | None = None
    tweet_delete_events: tuple[Deletion, ...] | None = None
    direct_message_events: tuple[DirectEvent, ...] | None = None
    users: dict[str, User] | None = None


class Settings(ChannelSettings):
    """An X account.

    `secret` is the app's consumer secret (API key secret). `own_ids` are the numeric ids of our accounts; the one that
    is subscribed counts by itself. `app_id` is the numeric id of our app: with it, a direct message that a person of ours
    wrote in X's own apps is told from a reply of ours. `account_activity` takes the older API's deliveries as well.
    """

    app_id: str = ""
    account_activity: bool = True


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Answer the challenge (GET with `crc_token`), or prove a delivery by its HMAC-SHA256 in base64."""
    del now  # X signs no time.
    if (wrong := signing.only(request, "GET", "POST")) is not None:
        return wrong
    if request.method.upper() == "GET":
        return _challenged(request, secrets)
    return signing.by_body_hmac(
        request, secrets, SIGNATURE_HEADER, prefix="sha256=", encoding="base64"
    )


def _challenged(request: Request, secrets: Mapping[str, str]) -> Verdict:
    token = request.query.get("crc_token", "")
    if not CHALLENGE.match(token):
        return signing.refused("malformed", 400)
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    answer = {"response_token": "sha256=" + signing.base64_hmac(keys[0], token.encode("ascii"))}
    body = json.dumps(answer, separators=(",", ":"))
    return signing.handshake(Answer(200, {"Content-Type": "application/json"}, body))


def parse(delivery: Delivery) -> Parsed:
    """Read a delivery of either API.

    Raises:
        ParseError: no JSON, not of that shape, or the older API's while `account_activity` is off.
    """
    whole = reading.json_of(delivery.body)
    if not isinstance(whole, dict):
        raise ParseError("invalid_field", "body: must be an object", "body")
    if "data" in whole:
        return _activity(delivery, reading.json_as(delivery.body, Envelope))
    if not settings_of(delivery, Settings).account_activity:
        raise ParseError(
            "not_accepted", "for_user_id: the Account Activity API is off (`account_activity`)"
        )
    return _account_activity(delivery, whole)


class _Reader:
    """One delivery's common ground: who we are, who the others are, and what was found."""

    def __init__(self, delivery: Delivery, us: str) -> None:
        settings = settings_of(delivery, Settings)
        self.delivery = delivery
        self.us = us
        self.own = frozenset((*settings.own_ids, us)) - {""}
        self.app_id = settings.app_id
        self.users: dict[str, User] = {}
        self.media: dict[str, Media] = {}
        self.messages: list[MessageContent] = []
        self.reasons: list[str] = []

    def know(
        self,
        users: Mapping[str, User] | None = None,
        includes: Includes | None = None,
    ) -> None:
        """Remember people and media by their ids."""
        for key, user in (users or {}).items():
            self.users[key] = user.bare
        for user in (includes.users or ()) if includes else ():
            self.users[user.bare.key] = user.bare
        for media in (includes.media or ()) if includes else ():
            self.media[media.media_key or ""] = media

    def result(self) -> Parsed:
        """Return what came of it; the first reason where nothing is a message."""
        verified = self.delivery.verified
        if self.messages:
            return Parsed(tuple(self.messages), verified=verified)
        return Parsed(
            ignored=self.reasons[0] if self.reasons else "not_a_message", verified=verified
        )

    def sender(self, key: str) -> Sender:
        """Return a person by id, named where X told the name."""
        user = self.users.get(key)
        return Sender(
            name=(user.name or user.handle) if user else "", address=key, kind="vendor_id"
        )

    def handle(self, key: str) -> str:
        """Return a person's @-name, empty where it is not known or is none."""
        user = self.users.get(key)
        return user.handle if user and HANDLE.match(user.handle) else ""

    def direct(self, event: DirectEvent) -> None:
        """Take a direct message."""
        said = event.message_create
        if event.type != "message_create" or said is None:
            self.reasons.append("not_a_message")
            return
        sender = reading.identifier(said.sender_id, "message_create.sender_id")
        recipient = _text(said.target.recipient_id if said.target else None)
        app = _text(said.source_app_id)
        is_ours = sender in self.own
        if is_ours and not (self.app_id and app and app != self.app_id):
            self.reasons.append("echo")
            return
        data = said.message_data or MessageData()
        text = _plain(data.text)
        self.messages.append(
            reading.content(
                self.delivery,
                reading.identifier(event.id, "direct_message_events.id"),
                self.sender(sender),
                text,
                text_new=text,
                direction="outbound" if is_ours else "inbound",
                recipients=(recipient,) if recipient else (),
                thread=_conversation(sender, recipient),
                attachments=_attached(data.attachment.media if data.attachment else None),
                occurred_at=_text(event.created_timestamp),
                fields={"username": self.handle(sender)},
            )
        )

    def post(self, post: Post) -> None:
        """Take a post for all to read."""
        if post.user is not None:
            self.know(users={post.user.bare.key: post.user})
        author = _text(post.author_id) or (post.user.bare.key if post.user else "")
        author = reading.identifier(author, "author_id")
        refers = {ref.type: _text(ref.id) for ref in post.referenced_tweets or ()}
        if author in self.own:
            self.reasons.append("echo")
            return
        if post.retweeted_status is not None or "retweeted" in refers:
            self.reasons.append("repost")
            return
        key = reading.identifier(_text(post.id_str) or _text(post.id), "id")
        versions = [_text(version) for version in post.edit_history_tweet_ids or ()]
        first = versions[0] if len(versions) > 1 and versions[0] else key
        handle = self.handle(author)
        text = _plain(_whole_text(post))
        answers = refers.get("replied_to") or _text(post.in_reply_to_status_id_str)
        self.messages.append(
            reading.content(
                self.delivery,
                first,
                self.sender(author),
                text,
                text_new=text,
                kind="comment",
                visibility="public",
                change="edited" if first != key else "new",
                recipients=(self.us,) if self.us else (),
                thread=_text(post.conversation_id) or None,
                in_reply_to=answers or None,
                attachments=self._media_of(post),
                occurred_at=_text(post.timestamp_ms) or _old_time(post.created_at),
                declared_language=post.lang if post.lang not in ("und", "zxx", "qme") else None,
                url=f"https://x.com/{handle or 'i/web'}/status/{key}" if key.isdigit() else None,
                fields={"username": handle, "quotes": refers.get("quoted", "")},
            )
        )

    def removed(self, key: Id, author: Id, at: Id = None) -> None:
        """Take a post's removal."""
        who = _text(author)
        if not who or who in self.own:
            self.reasons.append("echo" if who else "not_a_message")
            return
        self.messages.append(
            reading.content(
                self.delivery,
                reading.identifier(_text(key), "id"),
                self.sender(who),
                "",
                text_new="",
                kind="comment",
                visibility="public",
                change="deleted",
                recipients=(self.us,) if self.us else (),
                occurred_at=_text(at),
            )
        )

    def _media_of(self, post: Post) -> tuple[Attachment, ...]:
        long = post.extended_tweet.extended_entities if post.extended_tweet else None
        old = long or post.extended_entities
        keys = (post.attachments.media_keys or ()) if post.attachments else ()
        found = [self.media[key] for key in keys if key in self.media]
        found += (old.media or ()) if old else ()
        return tuple(part for media in found for part in _attached(media))


def _activity(delivery: Delivery, envelope: Envelope) -> Parsed:
    event = envelope.data
    reader = _Reader(delivery, _text(event.filter.user_id if event.filter else None))
    reader.know(includes=envelope.includes)
    reader.know(includes=event.includes)
    if event.event_type in DIRECT_EVENTS:
        payload = reading.json_as(bytes(event.payload), Payload)
        reader.know(users=payload.users)
        for direct in payload.direct_message_events or ():
            reader.direct(direct)
    elif event.event_type in POST_EVENTS:
        reader.post(reading.json_as(bytes(event.payload), Post))
    elif event.event_type == "post.delete":
        post = reading.json_as(bytes(event.payload), Post)
        reader.removed(post.id, post.author_id)
    else:
        family = event.event_type.partition(".")[0]
        reader.reasons.append(
            SILENT_EVENTS.get(event.event_type) or OTHER_FAMILIES.get(family, "unknown_event")
        )
    return reader.result()


def _account_activity(delivery: Delivery, whole: Mapping[str, Any]) -> Parsed:
    envelope = reading.json_as(delivery.body, OldEnvelope)
    reader = _Reader(delivery, _text(envelope.for_user_id))
    reader.know(users=envelope.users)
    for post in envelope.tweet_create_events or ():
        reader.post(post)
    for direct in envelope.direct_message_events or ():
        reader.direct(direct)
    for deletion in envelope.tweet_delete_events or ():
        if deletion.status is not None:
            reader.removed(deletion.status.id, deletion.status.user_id, deletion.timestamp_ms)
    reader.reasons += [OLD_SILENT[name] for name in OLD_SILENT if name in whole]
    if not reader.messages and not reader.reasons:
        if "for_user_id" not in whole and "direct_message_events" not in whole:
            raise ParseError("invalid_field", "body: has neither `data` nor `for_user_id`", "body")
        reader.reasons.append("unknown_event")
    return reader.result()


def _text(value: Id) -> str:
    return "" if value is None else clean_value(str(value), reading.ID_LENGTH_MAX)


def _plain(text: str | None) -> str:
    """Undo the three escapes that X puts into texts."""
    return (text or "").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _whole_text(post: Post) -> str | None:
    cut = post.extended_tweet.full_text if post.extended_tweet else None
    return cut or post.full_text or post.text


def _conversation(one: str, other: str) -> str | None:
    """Return the name of a conversation of two: both ids, the smaller first, as X names it in its API."""
    if not one or not other:
        return None
    return "-".join(sorted((one, other), key=lambda key: (len(key), key)))


def _attached(media: Media | None) -> tuple[Attachment, ...]:
    if media is None:
        return ()
    url = media.media_url_https or media.url or ""
    return (
        reading.attachment(
            name=media.type or "media",
            media_type=MEDIA_TYPES.get(url.partition("?")[0].rpartition(".")[2].lower(), ""),
            url=url,
        ),
    )


def _old_time(text: str | None) -> datetime | str | None:
    """Return the older API's time (`Thu Jan 01 00:00:00 +0000 2026`) as an instant; anything else as it came."""
    found = OLD_TIME.match(text or "")
    if found is None or found[1] not in MONTHS:
        return text
    month, day, hour, minute, second, sign, hours, minutes, year = found.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1)
    try:
        return datetime(
            int(year),
            MONTHS.index(month) + 1,
            int(day),
            int(hour),
            int(minute),
            int(second),
            tzinfo=timezone(offset),
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


CHANNEL = Channel(
    name="x",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(
        can_reply=True,
        supports_attachments=True,
        proof="HMAC-SHA256 over the body",
    ),
)
