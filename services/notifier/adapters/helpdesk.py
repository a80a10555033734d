"""What the providers of helpdesks share: ids in addresses, plain words as HTML, and a message looked up by its words.

Most helpdesks know no key of ours: a reply that was interrupted can only be looked for among what was written in the
thread. Whatever our own user wrote there since the notice was made is compared by the words that a reader sees, because
helpdesks rewrite HTML. The same words are ours. Words that are nearly the same leave a doubt, and a doubt is never
repeated: a person decides. Anything else is another message.

A notice's words go as simple HTML made of its text, never as the page that a mail has: a helpdesk puts its own layout
around a reply.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from html.parser import HTMLParser
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from services.notifier.adapters.provider import Answer, Api, Problem, later, refuse, unknown
from services.notifier.core.delivery import Delivered, Failed, Unknown
from services.notifier.core.post import Post, Trouble

T = TypeVar("T")

TEXT_MAX: Final = 20_000
"""Characters of a reply (an own bound: three bytes each stay below the 64 KiB that the strictest of them names)."""

SKEW: Final = timedelta(minutes=10)
"""How far a helpdesk's clock may be behind ours where messages are looked up by their time."""

OPENING_MIN: Final = 60
"""Letters (no spaces) from which a message counts as ours that begins with our words: some helpdesks add a signature."""

ALIKE: Final = 0.8
"""The share of our words from which another message may be ours, rewritten."""

_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_ADDRESS: Final = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]")
_WORD: Final = re.compile(r"\w+")


# ------------------------------------------------------------------------------------- what is sent


def number_of(post: Post, vendor: str, what: str = "ticket") -> str:
    """Return the id of the post's thread, which is a number.

    Raises:
        Problem: it is none; the message can go nowhere.
    """
    if not _NUMBER.fullmatch(post.thread):
        refuse(Trouble.MESSAGE, f"{vendor}: the {what} to answer in is not known by its number")
    return post.thread


def fitting(post: Post, vendor: str, text_max: int = TEXT_MAX) -> str:
    """Return the post's text. It is never cut: what is too long goes back to whoever wrote it.

    Raises:
        Problem: it is empty, or longer than `text_max` characters.
    """
    if not post.text.strip():
        refuse(Trouble.MESSAGE, f"{vendor}: there are no words to send")
    if len(post.text) > text_max:
        refuse(Trouble.MESSAGE, f"{vendor}: the text is longer than {text_max} characters")
    return post.text


def html_of(text: str) -> str:
    """Return plain text as HTML: a paragraph for each block, line breaks, web addresses as links, all else escaped."""
    blocks = [block for block in re.split(r"\n[ \t]*\n", text.strip("\n")) if block.strip()]
    return "".join(
        "<p>" + "<br>".join(_linked(line) for line in block.strip("\n").split("\n")) + "</p>"
        for block in blocks
    )


def _linked(line: str) -> str:
    parts: list[str] = []
    end = 0
    for found in _ADDRESS.finditer(line):
        address = escape(found.group())
        parts += (escape(line[end : found.start()]), f'<a href="{address}">{address}</a>')
        end = found.end()
    return "".join([*parts, escape(line[end:])])


def segment(value: str) -> str:
    """Return a vendor's id as one segment of an address: it can never name another place.

    Raises:
        Problem: it is empty, or one or two dots, which lead to a place above.
    """
    if value in ("", ".", ".."):
        refuse(Trouble.MESSAGE, "an id at the vendor is none")
    return quote(value, safe="")


def bearer(token: str) -> dict[str, str]:
    """Return the header that shows an access token."""
    return {"Authorization": f"Bearer {token}"}


def refresh_form(api: Api, client_id: str) -> dict[str, str]:
    """Return the form by which a refresh token becomes an access token (RFC 6749, section 6).

    Raises:
        Problem: one of the two secrets is missing.
    """
    return {
        "grant_type": "refresh_token",
        "client_id": client_id,
        "client_secret": api.secret("client_secret"),
        "refresh_token": api.secret("refresh_token"),
    }


def answer_subject(subject: str, default: str) -> str:
    """Return the subject of an answer in a mail thread, so that the reader's mail program keeps it there."""
    subject = subject.strip()
    if not subject:
        return default
    return subject if subject.lower().startswith("re:") else f"Re: {subject}"


# --------------------------------------------------------------------------------- what is answered


def settings_of(api: Api, kind: type[T]) -> T:
    """Return the account's settings as the provider's own."""
    settings = api.settings
    if not isinstance(settings, kind):
        raise TypeError(f"{kind.__name__} expected, not {type(settings).__name__}")
    return settings


def shaped(answer: Answer, kind: type[T], vendor: str) -> T:
    """Return what a vendor answered to a question as `kind`.

    Raises:
        Problem: it has another shape. Asking had no effect.
    """
    try:
        return msgspec.convert(answer.body, kind, strict=False)
    except msgspec.ValidationError:
        later(f"{vendor}: an answer of an unexpected shape ({answer.status})")


def made(answer: Answer, kind: type[T]) -> T | None:
    """Return what a vendor answered to a call that made something; None where it says nothing that we can read.

    The vendor has taken the message either way: only its id is missing.
    """
    try:
        return msgspec.convert(answer.body, kind, strict=False)
    except msgspec.ValidationError:
        return None


def taken(answer: Answer, kind: type[T], id_in: Callable[[T], str | int | None]) -> Delivered:
    """Return that the vendor took a message; `id_in` reads the new message's id from what it says, where that can be read."""
    told = made(answer, kind)
    return Delivered("taken", id_of(id_in(told)) if told is not None else "")


def id_of(value: str | int | None) -> str:
    """Return a vendor's id as text; empty where there is none."""
    return "" if value is None else str(value).strip()


def over(reason: str) -> Failed:
    """Return the failure of an answer in a thread that takes none any more; the customer may be reached elsewhere."""
    return Failed(reason, is_recoverable=False, trouble=Trouble.WINDOW)


def instant(value: Any) -> datetime | None:
    """Return a vendor's time in UTC: ISO 8601 (without an offset: UTC), or seconds since 1970; None for anything else."""
    try:
        return _instant(value)
    except (ValueError, OverflowError, OSError):  # Beyond what a number or a date can be.
        return None


def _instant(value: Any) -> datetime | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
        return datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
    if not isinstance(value, str):
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return _instant(int(text))
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


# -------------------------------------------------------------------------------- what was sent before


@dataclass(frozen=True, slots=True)
class Written:
    """A message that stands in a thread, by our own user. `text` is as the vendor shows it, HTML or plain."""

    message_id: str
    at: datetime | None
    text: str
    is_html: bool = True


def since(post: Post) -> datetime:
    """Return the time before which the post cannot have been written, by the vendor's clock."""
    return post.date - SKEW


def is_before(at: datetime | None, post: Post) -> bool:
    """Whether a message is older than the post. One whose time is not known may be the post."""
    return at is not None and at < since(post)


def is_done(times: Sequence[Any], post: Post) -> bool:
    """Whether a page of a vendor's list ends the search: it is the newest first, and its last is older than the post."""
    told = [instant(one) for one in times]
    known = [one for one in told if one is not None]
    is_ordered = len(known) == len(told) and known == sorted(known, reverse=True)
    return bool(known) and is_ordered and known[-1] < since(post)


def sought(post: Post, written: Iterable[Written], vendor: str) -> Delivered | None:
    """Return the post among what our user wrote in its thread; None where it is surely not there.

    The same words from before the post was made are another message's, or the post's by a clock that is behind ours: nobody
    can tell.

    Raises:
        Problem: something so like it is there that only a person can tell.
    """
    begun = post.date.replace(microsecond=0)  # Most vendors tell whole seconds.
    words = visible(post.text, is_html=False)
    wanted, ours = "".join(words.split()), set(_WORD.findall(words))
    is_doubtful = False
    for one in written:
        if is_before(one.at, post):
            continue
        shown = visible(one.text, is_html=one.is_html)
        found = "".join(shown.split())
        if found == wanted or (len(wanted) >= OPENING_MIN and found.startswith(wanted)):
            if one.at is None or one.at >= begun:
                return Delivered("found in the thread", one.message_id)
            is_doubtful = True
        shared = len(ours & set(_WORD.findall(shown)))
        is_doubtful |= shared >= ALIKE * len(ours)
    if is_doubtful:
        unknown(f"{vendor}: a message much like it stands in the thread")
    return None


def not_told(vendor: str, why: str = "the thread is too long to be looked through") -> Problem:
    """Return the end of a look-up that came to none."""
    return Problem(Unknown(f"{vendor}: {why}"))


def not_shown(vendor: str) -> Problem:
    """Return the end of a look-up in a thread that is shown without the customer's own message, which must be there."""
    return not_told(vendor, "the thread is not shown as it is: the customer's message is missing")


class _Reader(HTMLParser):
    """Gathers what a reader of a piece of HTML sees."""

    HIDDEN = frozenset({"script", "style", "head", "title"})
    INLINE = frozenset({"a", "b", "i", "em", "strong", "span", "u", "code", "font", "small"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self._hidden += tag in self.HIDDEN
        if tag not in self.INLINE:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in self.HIDDEN and self._hidden > 0
        if tag not in self.INLINE:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data)


def visible(text: str, *, is_html: bool) -> str:
    """Return what a reader sees of HTML or plain text, without invisible characters, in one line."""
    if is_html:
        reader = _Reader()
        reader.feed(text)
        reader.close()
        text = "".join(reader.parts)
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(one for one in text if unicodedata.category(one) != "Cf").split())


def compact(text: str, *, is_html: bool) -> str:
    """Return what a reader sees without any space: vendors break lines and paragraphs their own way."""
    return "".join(visible(text, is_html=is_html).split())
