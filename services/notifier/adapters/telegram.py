"""Telegram: a notice as our bot's message in the customer's chat, a group's topic or a business account's chat.

Facts from the Bot API's reference: `sendMessage` (`chat_id`, `text` of 1 to 4,096 characters, `message_thread_id`,
`business_connection_id`, `reply_parameters`, `link_preview_options`), the shape of errors (`error_code`, `description`,
`parameters.retry_after`), limits of the bots' FAQ (about one message a second and chat, 20 a minute and group, 30 a second).
By a business account a bot may write only to people who wrote within the last 24 hours; Telegram says so with
`BUSINESS_PEER_USAGE_MISSING`.

No idempotency key exists, and a bot cannot read a chat back, so an interrupted send is unknown. The text goes plain, without
a parse mode: what looks like formatting stays as it is. In a group the answer refers to the customer's message, in a chat of
two it does not. Telegram has no mark for automatic messages.

Errors are told apart by their description, which is for people and is believed and not confirmed word by word. The bot's
token stands in every address. Nothing was tried against a live bot.
"""

import re
from datetime import timedelta
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

from services.notifier.adapters import helpdesk
from services.notifier.adapters.provider import Answer, Api, Provider, refuse
from services.notifier.core.accounts import AccountSettings, ApiAddress, SecretReference
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Traits, Trouble

VENDOR: Final = "Telegram"
TEXT_MAX: Final = 4_096
"""Characters of a message."""
WAIT_SECONDS_MAX: Final = 86_400

_CHAT: Final = re.compile(r"-?[0-9]{1,20}")
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_CONNECTION: Final = re.compile(r"[A-Za-z0-9_-]{1,60}")
_TOKEN: Final = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{10,100}")

_SAID: Final = (
    ("BUSINESS_PEER_USAGE_MISSING", Trouble.WINDOW, "the customer wrote more than 24 hours ago"),
    ("BUSINESS_CONNECTION", Trouble.ACCOUNT, "the business account is no longer connected"),
    ("upgraded to a supergroup", Trouble.ADDRESS, "the group is a supergroup now, with another id"),
    ("chat not found", Trouble.ADDRESS, "there is no such chat"),
    ("user not found", Trouble.ADDRESS, "there is no such person"),
    ("PEER_ID_INVALID", Trouble.ADDRESS, "the customer never began a chat with the bot"),
    ("CHAT_WRITE_FORBIDDEN", Trouble.ADDRESS, "the bot may not write there"),
    ("not enough rights", Trouble.ADDRESS, "the bot may not write there"),
    ("TOPIC_CLOSED", Trouble.WINDOW, "the topic is closed"),
    ("message thread not found", Trouble.ADDRESS, "the topic is gone"),
    ("message is too long", Trouble.MESSAGE, "the text is too long"),
)


class Settings(AccountSettings):
    """A Telegram bot."""

    EXAMPLE: ClassVar[dict[str, Any]] = {"token": "env:TELEGRAM_BOT_TOKEN"}

    token: SecretReference
    """The bot's own token, as BotFather shows it (`123456:ABC…`); not the webhook's secret token."""
    url: ApiAddress = "https://api.telegram.org"
    """The Bot API's address; another where you run its server yourself."""


TRAITS: Final = Traits(
    channels=frozenset({"telegram"}), form="text", addressing="thread", text_max=TEXT_MAX
)


class _Message(msgspec.Struct, frozen=True):
    message_id: int


class _Taken(msgspec.Struct, frozen=True):
    result: _Message


class Place(NamedTuple):
    """Where a message goes: a business account's connection (empty: none), the chat, a topic (empty: none)."""

    connection: str
    chat: str
    topic: str

    @property
    def prefix(self) -> str:
        """How the channel's ids of messages there begin."""
        return f"{self.connection}:{self.chat}" if self.connection else self.chat


def place_of(thread: str) -> Place | None:
    """Return the place that a thread of the channel names: `chat`, `chat:topic`, `connection:chat`, or all three."""
    parts = thread.split(":")
    connection = "" if _CHAT.fullmatch(parts[0]) else parts.pop(0)
    if connection and not _CONNECTION.fullmatch(connection):
        return None
    if not 1 <= len(parts) <= 2 or not _CHAT.fullmatch(parts[0]):
        return None
    topic = parts[1] if len(parts) == 2 else ""
    return Place(connection, parts[0], topic) if not topic or _NUMBER.fullmatch(topic) else None


def _body(place: Place, post: Post) -> dict[str, Any]:
    body: dict[str, Any] = {
        "chat_id": int(place.chat),
        "text": helpdesk.fitting(post, VENDOR, TEXT_MAX),
        "link_preview_options": {"is_disabled": True},
    }
    if place.connection:
        body["business_connection_id"] = place.connection
    if place.topic:
        body["message_thread_id"] = int(place.topic)
    answered = post.answers.removeprefix(f"{place.prefix}:")
    if place.chat.startswith("-") and _NUMBER.fullmatch(answered):
        body["reply_parameters"] = {
            "message_id": int(answered),
            "allow_sending_without_reply": True,
        }
    return body


def _explain(answer: Answer) -> Failed | Unknown | None:
    body = answer.body if isinstance(answer.body, dict) else {}
    said, more = body.get("description"), body.get("parameters")
    if answer.status == 429:
        wait = more.get("retry_after") if isinstance(more, dict) else None
        if isinstance(wait, int) and 0 < wait <= WAIT_SECONDS_MAX:
            after = timedelta(seconds=wait)
            return Failed(f"{VENDOR}: too many at once", True, after, Trouble.PROVIDER)
        return None
    if answer.status == 404:
        # There is no such method for a token that is none.
        return Failed(f"{VENDOR}: the bot's token is wrong", True, trouble=Trouble.ACCOUNT)
    if answer.status not in (400, 403):
        return None
    text = said if isinstance(said, str) else ""
    for words, trouble, what in _SAID:
        if words in text:
            is_recoverable = trouble is Trouble.ACCOUNT
            return Failed(f"{VENDOR}: {what}", is_recoverable, trouble=trouble)
    if answer.status == 403 and text:
        return Failed(f"{VENDOR}: the customer has blocked the bot", False, trouble=Trouble.ADDRESS)
    return None


async def send(api: Api, post: Post) -> Delivered:
    """Write the notice into the customer's chat.

    Raises:
        Problem: it was not taken, or nobody knows.
    """
    settings = helpdesk.settings_of(api, Settings)
    place = place_of(post.thread or post.to)
    if place is None:
        refuse(Trouble.ADDRESS, f"{VENDOR}: the chat to write to is not known by its number")
    token = api.secret("token")
    if not _TOKEN.fullmatch(token):
        refuse(Trouble.ACCOUNT, f"{VENDOR}: the bot's token has not the shape of one")
    answer = await api.call(
        "POST",
        f"{settings.url}/bot{token}/sendMessage",
        is_making=True,
        json=_body(place, post),
        explain=_explain,
    )
    return helpdesk.taken(answer, _Taken, lambda made: f"{place.prefix}:{made.result.message_id}")


PROVIDER: Final = Provider(
    name="telegram",
    settings=Settings,
    traits=TRAITS,
    send=send,
    renew="the bot's token (BotFather, /token), or the business account's connection to the bot",
)
