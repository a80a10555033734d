"""Telegram: what people write to our bot, in groups it is in, and to business accounts it is connected to.

Facts from the Bot API's reference: `setWebhook`, `Update`, `Message` and its content types, `BusinessMessagesDeleted`.

Telegram signs nothing. It shows the `secret_token` of `setWebhook` in the header `X-Telegram-Bot-Api-Secret-Token`; that is
compared in constant time and answered with 403 where it is wrong. What is let in is `shown`, not proved: whoever knows the
token can write in anybody's name.

Ids: a message's number counts within its chat, so a message is `55501:31` here, and `{connection}:{chat}:{number}` where it
came by a business account. A chat is one thread, a group's topic another. In a business account's chat, what the customer
did not write is our side's; what our bot sent there is an echo.

Believed, not confirmed: how long and how often Telegram repeats what was not answered with 2xx; that `update_id` repeats
(nothing rests on it: a message's own id tells a repeat). Files are told by name, kind and size and by the `file_id` field;
their addresses hold the bot's token and are therefore never stored.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal

from schemas.messages import Attachment, MessageContent, Sender
from services.ingest.adapters import reading, signing
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    Request,
    Verdict,
    settings_of,
)
from services.ingest.adapters.reading import Struct
from services.ingest.core.normalise import clean_value

TOKEN_HEADER: Final = "x-telegram-bot-api-secret-token"  # noqa: S105 - a header's name
TEXT_LENGTH_MAX: Final = 4_096
"""Characters of one message that the bot can send (`sendMessage`)."""
KEY_LENGTH_MAX: Final = 60
"""Characters of one of Telegram's ids kept; three of them make one of ours."""
DELETED_MAX: Final = 1_000
"""Messages that one update may remove; the reference names no number."""

SILENT: Final = {
    "business_connection": "status",
    "my_chat_member": "status",
    "chat_member": "status",
    "chat_join_request": "status",
    "chat_boost": "status",
    "removed_chat_boost": "status",
    "callback_query": "interaction",
    "inline_query": "interaction",
    "chosen_inline_result": "interaction",
    "message_reaction": "reaction",
    "message_reaction_count": "reaction",
    "poll": "not_a_message",
    "poll_answer": "not_a_message",
    "channel_post": "own_post",
    "edited_channel_post": "own_post",
    "shipping_query": "not_a_message",
    "pre_checkout_query": "not_a_message",
    "purchased_paid_media": "not_a_message",
}
"""Updates that say nothing a customer wrote. A channel's posts are ours: we are its administrators."""

Id = int | str | None


class User(Struct, frozen=True):
    """A person or a bot."""

    id: Id = None
    is_bot: bool | None = None
    first_name: str | None = None
    last_name: str | None = None
    username: str | None = None
    language_code: str | None = None


class Chat(Struct, frozen=True):
    """Where a message stands. A private chat has its person's id."""

    id: Id = None
    type: str | None = None
    title: str | None = None
    username: str | None = None
    first_name: str | None = None
    last_name: str | None = None


class File(Struct, frozen=True):
    """A file of any kind, as far as it is told."""

    file_id: str | None = None
    file_name: str | None = None
    mime_type: str | None = None
    file_size: int | None = None
    emoji: str | None = None


class Contact(Struct, frozen=True):
    """An address-book entry that was shared; `user_id` is whose it is."""

    phone_number: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    user_id: Id = None


class Location(Struct, frozen=True):
    """A point on the map."""

    latitude: float | None = None
    longitude: float | None = None


class Venue(Struct, frozen=True):
    """A place with a name."""

    title: str | None = None
    address: str | None = None


class Poll(Struct, frozen=True):
    """A poll that was posted."""

    question: str | None = None


class Replied(Struct, frozen=True):
    """The message that is answered."""

    message_id: Id = None


class Message(Struct, frozen=True, rename={"from_": "from"}):
    """A message of any kind."""

    chat: Chat
    message_id: Id = None
    date: int | None = None
    edit_date: int | None = None
    from_: User | None = None
    sender_chat: Chat | None = None
    sender_business_bot: User | None = None
    business_connection_id: str | None = None
    message_thread_id: Id = None
    is_topic_message: bool | None = None
    is_automatic_forward: bool | None = None
    reply_to_message: Replied | None = None
    media_group_id: str | None = None
    text: str | None = None
    caption: str | None = None
    photo: tuple[File, ...] | None = None
    document: File | None = None
    animation: File | None = None
    audio: File | None = None
    video: File | None = None
    video_note: File | None = None
    voice: File | None = None
    sticker: File | None = None
    contact: Contact | None = None
    location: Location | None = None
    venue: Venue | None = None
    poll: Poll | None = None


class Removed(Struct, frozen=True):
    """Messages removed from a business account's chat."""

    business_connection_id: str
    chat: Chat
    message_ids: tuple[Id, ...]


class Update(Struct, frozen=True):
    """The body of a delivery: one number and one of many kinds."""

    update_id: int
    message: Message | None = None
    edited_message: Message | None = None
    business_message: Message | None = None
    edited_business_message: Message | None = None
    deleted_business_messages: Removed | None = None


class Settings(ChannelSettings):
    """A Telegram bot. `secret` is the `secret_token` of `setWebhook`, not the bot's own token.

    `own_ids` are numeric ids of bots of ours: what they write is an echo. `agent_ids` are the numeric ids of our people:
    what they write in a group is our side of the conversation.
    """

    agent_ids: tuple[str, ...] = ()


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Let in who shows the secret token in Telegram's header; 403 for everybody else."""
    del now  # Nothing here has a time that somebody vouches for.
    if (wrong := signing.only(request, "POST")) is not None:
        return wrong
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret", 403)
    given = request.headers.get(TOKEN_HEADER, "").strip()
    is_right = signing.signed_by_any(given, keys, lambda key: key.decode("utf-8", "replace"))
    return signing.shown() if given and is_right else signing.refused("bad_token", 403)


def parse(delivery: Delivery) -> Parsed:
    """Read an update.

    Raises:
        ParseError: no JSON, or not of that shape.
    """
    update = reading.json_as(delivery.body, Update)
    removed = update.deleted_business_messages
    if removed is not None:
        return Parsed(tuple(_removals(delivery, removed)), verified=delivery.verified)
    found: MessageContent | str
    if update.message is not None:
        found = _message(delivery, update.message, "new")
    elif update.edited_message is not None:
        found = _message(delivery, update.edited_message, "edited")
    elif update.business_message is not None:
        found = _message(delivery, update.business_message, "new")
    elif update.edited_business_message is not None:
        found = _message(delivery, update.edited_business_message, "edited")
    else:
        whole: dict[str, Any] = reading.json_of(delivery.body)
        found = next((SILENT[name] for name in whole if name in SILENT), "unknown_event")
    if isinstance(found, str):
        return Parsed(ignored=found, verified=delivery.verified)
    return Parsed((found,), verified=delivery.verified)


def _message(
    delivery: Delivery, message: Message, change: Literal["new", "edited"]
) -> MessageContent | str:
    """Return what a message says, or the reason why it says nothing to us."""
    settings = settings_of(delivery, Settings)
    author = message.from_ or User()
    chat = reading.identifier(_key(message.chat.id), "message.chat.id")
    who = _key(author.id)
    if message.sender_business_bot is not None or who in settings.own_ids:
        return "echo"
    if message.is_automatic_forward:
        return "own_post"
    text, files, fields = _content_of(message)
    if not text and not files:
        return "status"  # Somebody joined, a title changed, a group moved.
    if change == "edited" and message.location is not None:
        return "location"  # A live location moves on; each step is no news.
    if message.chat.type == "private" and text.split(" ")[0] == "/start":
        return "start"  # The button that opens the chat, not something a person wrote.
    is_business = message.business_connection_id is not None
    is_ours = who in settings.agent_ids or (is_business and who != chat)
    is_anonymous = message.sender_chat is not None and not is_business
    place = message.sender_chat if is_anonymous and message.sender_chat else message.chat
    key = _prefix(message.business_connection_id, chat)
    number = reading.identifier(_key(message.message_id), "message.message_id")
    topic = _key(message.message_thread_id) if message.is_topic_message else ""
    answered = _key(message.reply_to_message.message_id) if message.reply_to_message else ""
    is_public = bool(message.chat.username) and message.chat.type != "private"
    sender = Sender(
        name=_name(place) if is_anonymous or not who else _name(author),
        address=_key(place.id) if is_anonymous or not who else who,
        kind="vendor_id",
    )
    return reading.content(
        delivery,
        f"{key}:{number}",
        sender,
        text,
        text_new=text,
        direction="outbound" if is_ours else "inbound",
        visibility="public" if is_public else "private",
        change=change,
        recipients=(chat,),
        thread=f"{key}:{topic}" if topic else key,
        in_reply_to=f"{key}:{answered}" if answered else None,
        attachments=files,
        occurred_at=message.edit_date if change == "edited" else message.date,
        declared_language=author.language_code,
        is_automatic=bool(author.is_bot) and not is_anonymous,
        automatic_reason="bot" if author.is_bot and not is_anonymous else None,
        url=reading.link(f"https://t.me/{message.chat.username}/{number}") if is_public else None,
        fields={"username": author.username or "", "album": message.media_group_id or "", **fields},
    )


def _removals(delivery: Delivery, removed: Removed) -> list[MessageContent]:
    chat = reading.identifier(_key(removed.chat.id), "deleted_business_messages.chat.id")
    key = _prefix(removed.business_connection_id, chat)
    return [
        reading.content(
            delivery,
            f"{key}:{reading.identifier(_key(number), 'deleted_business_messages.message_ids')}",
            Sender(name=_name(removed.chat), address=chat, kind="vendor_id"),
            "",
            text_new="",
            change="deleted",
            thread=key,
        )
        for number in removed.message_ids[:DELETED_MAX]
    ]


def _content_of(message: Message) -> tuple[str, tuple[Attachment, ...], dict[str, str]]:
    """Return a message's text, its file and what else it tells."""
    text = message.text or message.caption or ""
    fields: dict[str, str] = {}
    files: tuple[Attachment, ...] = ()
    if (file := _file_of(message)) is not None:
        found, kind, name = file
        fields["file_id"] = found.file_id or ""
        files = (
            reading.attachment(
                found.file_name or name, found.mime_type or kind, found.file_size or 0
            ),
        )
        text = text or found.emoji or ""
    lines = [text] if text else []
    if message.contact is not None:
        lines.append(_contact_of(message.contact, message.from_, fields))
    if message.venue is not None:
        lines += [value for value in (message.venue.title, message.venue.address) if value]
    point = message.location
    if point is not None and point.latitude is not None and point.longitude is not None:
        fields["location"] = f"{point.latitude},{point.longitude}"
        lines.append(fields["location"])
    if message.poll is not None:
        lines.append(message.poll.question or "")
    return "\n".join(line for line in lines if line), files, fields


def _contact_of(contact: Contact, author: User | None, fields: dict[str, str]) -> str:
    number = (contact.phone_number or "").strip()
    number = f"+{number}" if number.isascii() and number.isdigit() else number
    if author is not None and _key(contact.user_id) and _key(contact.user_id) == _key(author.id):
        fields["phone"] = number  # Telegram itself vouches that the number is the sender's.
    return " ".join(part for part in (contact.first_name, contact.last_name, number) if part)


def _file_of(message: Message) -> tuple[File, str, str] | None:
    """Return a message's file with the kind and the name it has where Telegram tells none."""
    if message.photo:
        return max(message.photo, key=lambda size: size.file_size or 0), "image/jpeg", "photo.jpg"
    # An animation comes as a document once more, so it stands first.
    for file, kind, name in (
        (message.animation, "video/mp4", "animation.mp4"),
        (message.document, "", "document"),
        (message.video, "video/mp4", "video.mp4"),
        (message.video_note, "video/mp4", "video.mp4"),
        (message.voice, "audio/ogg", "voice.ogg"),
        (message.audio, "audio/mpeg", "audio.mp3"),
        (message.sticker, "image/webp", "sticker.webp"),
    ):
        if file is not None:
            return file, kind, name
    return None


def _key(value: Id) -> str:
    return "" if value is None else clean_value(str(value), KEY_LENGTH_MAX)


def _prefix(connection: str | None, chat: str) -> str:
    return f"{_key(connection)}:{chat}" if connection else chat


def _name(one: User | Chat) -> str:
    full = " ".join(part for part in (one.first_name, one.last_name) if part)
    return full or (one.title if isinstance(one, Chat) and one.title else "") or one.username or ""


CHANNEL = Channel(
    name="telegram",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(
        can_reply=True,
        reply_characters_max=TEXT_LENGTH_MAX,
        supports_attachments=True,
        proof="shared token in a header",
    ),
)
