"""What customers want to hear of: the words by which they end and resume notices, and the headers that let a mail client do so.

Owns the words in English, Turkish and Russian. Who wants what stands in tables (`known.py`); nothing is looked up here.
"""

import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from schemas.notifications import Category

PHONE_CHANNELS: Final = frozenset({"sms", "twilio_sms"})
"""Channels of text messages, on which carriers ask that STOP ends everything."""

CHAT_CHANNELS: Final = frozenset(
    {
        "whatsapp",
        "messenger",
        "instagram",
        "telegram",
        "apple_messages",
        "slack",
        "x",
        "webchat",
        "chatra",
        "livechat",
        "tidio",
    }
)
"""Channels of short messages, on which a word alone is understood as one."""

OPTIONAL: Final[frozenset[Category]] = frozenset({"outage", "follow_up"})
"""Categories that one can have no more of by a link or a word."""

WORD_LENGTH_MAX: Final = 40


class Word(StrEnum):
    """What a customer's message asks of notices."""

    STOP = "stop"
    START = "start"
    HELP = "help"


_HELP: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"en": ("help",), "tr": ("yardım", "yardim"), "ru": ("помощь",)}
)
_HELP_ON_PHONES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"en": ("info",), "tr": ("bilgi",), "ru": ("инфо",)}
)
"""The words for help, by the language that they are of."""

_EDGES: Final = re.compile(r"^[\s\W_]+|[\s\W_]+$")


def _plain(text: str) -> str:
    small = unicodedata.normalize("NFC", text.replace("İ", "i")).lower()
    # A Turkish "ÇIK" and "YARDIM" are lowered with dots that they do not have; so none are told apart by dots.
    return " ".join(_EDGES.sub("", small).split()).replace("\u0307", "").replace("ı", "i")


def _all(words: tuple[str, ...], meaning: Word) -> dict[str, Word]:
    return {_plain(word): meaning for word in words}


# The carriers' words in the United States, which Twilio acts on by itself too (docs: "Twilio support for opt-out keywords"),
# with those that Turkish commercial messages name (RET) and what Russian speakers write.
_ANYWHERE: Final[Mapping[str, Word]] = MappingProxyType(
    _all(
        ("stop", "stopall", "stop all", "unsubscribe", "optout", "opt out", "dur", "ret", "abonelikten çık",
         "abonelikten cik", "стоп", "отписаться", "отписка", "отпишите"),
        Word.STOP,
    )
    | _all(
        ("start", "unstop", "subscribe", "başla", "basla", "abone ol", "старт", "подписаться"), Word.START
    )
    | _all(tuple(word for words in _HELP.values() for word in words), Word.HELP)
)  # fmt: skip

# In a chat these are about an order, a call or a question; in a text message carriers take them at their word.
_ON_PHONES: Final[Mapping[str, Word]] = MappingProxyType(
    _all(("cancel", "end", "quit", "revoke", "iptal", "çık", "cik", "отмена"), Word.STOP)
    | _all(("yes",), Word.START)
    | _all(tuple(word for words in _HELP_ON_PHONES.values() for word in words), Word.HELP)
)


def word_in(text: str, channel: str) -> Word | None:
    """Return what a message asks of notices, where it is nothing but one of the words; None otherwise, and by mail or form.

    Case, marks around the word and Turkish dots do not matter: "İPTAL!" is "iptal".
    """
    is_phone = channel in PHONE_CHANNELS
    if not is_phone and channel not in CHAT_CHANNELS:
        return None
    if len(text) > WORD_LENGTH_MAX:
        return None
    word = _plain(text)
    found = _ANYWHERE.get(word)
    return found if found is not None or not is_phone else _ON_PHONES.get(word)


def help_language(text: str) -> str | None:
    """Return the language of a word for help; None of any other text."""
    word = _plain(text)
    for words in (_HELP, _HELP_ON_PHONES):
        for language, several in words.items():
            if word in map(_plain, several):
                return language
    return None


def categories_of(word: Word, channel: str) -> frozenset[Category]:
    """Return the categories that a word ends or resumes. A text message's STOP ends notices of one's own cases as well.

    Security is never ended: a carrier that blocks a number blocks that too, and says so as a failure.
    """
    if word is Word.HELP:
        return frozenset()
    return OPTIONAL | ({"service"} if channel in PHONE_CHANNELS else frozenset())


def unsubscribe_headers(category: Category, url: str) -> tuple[tuple[str, str], ...]:
    """Return the headers for one-click unsubscribing (RFC 8058), none for a category that one cannot have no more of.

    `url` is the signed link of this recipient and category; it must take a POST without any further question. Mail clients
    believe it only if the mail's DKIM signature covers both headers, which the mail server has to see to.

    Raises:
        ValueError: the link is no https address of printable ASCII, or too long for a header line.
    """
    if category not in OPTIONAL:
        return ()
    if not re.fullmatch(r"https://[!-;=?-~]{1,900}", url):
        raise ValueError(
            "List-Unsubscribe: the link must be https (RFC 8058, section 3.1), in ASCII without spaces and angle brackets,"
            " of at most 900 characters"
        )
    return (
        ("List-Unsubscribe", f"<{url}>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    )
