"""From words to a mail, and what to do after each attempt.

Owns the addresses and ids of our mail (a signed token names the conversation), its place in the customer's thread, the
marks of automatic mail (RFC 3834), the ways an attempt can end and the retry schedule.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas import reply_token
from schemas.notifications import Occasion
from services.notifier.core.policy import Policy, Sender
from services.notifier.core.post import Post, Trouble, VendorTemplate
from services.notifier.core.reason import OPENING
from services.notifier.core.render import Words
from services.notifier.core.state import Mail, Message

REFERENCES_MAX = 12
"""Ids kept of a thread: the first and the newest. Every one of ours is about 110 characters, a header line holds 998."""

RETRY_AFTER_MAX = timedelta(days=1)
"""A provider that asks for a longer wait is asked again after this one."""

KEY_LIFE = timedelta(hours=1)
"""How long after a doubtful attempt the same key is still relied on: vendors forget keys, the soonest of ours after two hours."""

LOOK_DELAYS = (timedelta(minutes=1), timedelta(minutes=10), timedelta(hours=1))
"""When a doubtful attempt is looked up, each time after the one before: what was taken may show a little later, and a vendor
that could not answer is asked again."""

_REPLIES = OPENING | {"help"}
"""What answers a message of the customer's by itself, whatever words their channel and the hour gave it."""

_MESSAGE_ID = re.compile(r"<[!-;=?A-~]{1,120}@[!-;=?A-~]{1,120}>")


@dataclass(frozen=True, slots=True)
class SendNotice:
    """Hand `message` to an account of the provider, or ask there whether it was taken (`is_lookup`).

    `notice_id` stays the same over all attempts, which count from 1; lookups count by themselves. `asked_at` is when the core
    asked for it. `account` is empty where the provider has none (mail goes by the policy's senders). `about_attempt` is the attempt
    that a lookup asks about.
    """

    notice_id: str
    attempt: int
    provider: str
    message: Message
    account: str = ""
    is_lookup: bool = False
    asked_at: datetime | None = None
    about_attempt: int = 0


@dataclass(frozen=True, slots=True)
class Delivered:
    """The provider took it; `detail` is what it said, `message_id` its own id of the message, where it has one."""

    detail: str = ""
    message_id: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """It was certainly not taken. `retry_after` is the provider's own wish, `trouble` says whose trouble it is."""

    reason: str
    is_recoverable: bool
    retry_after: timedelta | None = None
    trouble: Trouble = Trouble.MESSAGE


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been taken: the answer never came."""

    reason: str


@dataclass(frozen=True, slots=True)
class Absent:
    """A lookup found that the provider surely has no such message."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """It was not handed over: the policy has a dry run."""


@dataclass(frozen=True, slots=True)
class Unsent:
    """It was not handed over: when its turn came it was superseded, untrue by then, or under a key not relied on any more."""


Attempted = Delivered | Failed | Unknown
"""What can come of a send."""

Ended = Attempted | Absent
"""What a provider can say: to a lookup, `Delivered` is that it was found, and the other two that it cannot be told now."""


@dataclass(frozen=True, slots=True)
class SendSettled:
    """An attempt has ended; back in `decide` like any other input."""

    send: SendNotice
    result: Ended | Rehearsed | Unsent


def compose(
    *,
    secret: bytes,
    workspace: str,
    conversation_id: str,
    notice_id: str,
    occasion: Occasion,
    sender: Sender,
    to_address: str,
    language: str,
    words: Words,
    in_reply_to: str | None,
    references: tuple[str, ...],
    now: datetime,
    way_out: tuple[tuple[str, str], ...] = (),
) -> Mail:
    """Return the mail that carries `words` to `to_address` within the conversation's thread; `way_out` are the headers by which
    one ends notices of the kind.

    Raises:
        ValueError: `conversation_id` is no UUID.
    """
    token = reply_token.make(secret, workspace, conversation_id, to_address, now)
    reply_to = reply_token.reply_address(sender.address, token)
    bounces = {"token": reply_to, "address": sender.address, "nobody": ""}
    return Mail(
        from_name=sender.from_name,
        from_address=sender.address,
        to_address=to_address,
        envelope_from=bounces[sender.bounces_to],
        reply_to=reply_to,
        subject=words.subject,
        text=words.text,
        html=words.html,
        language=language,
        date=now,
        message_id=reply_token.message_id(token, notice_id, sender.message_id_domain),
        in_reply_to=in_reply_to,
        references=references,
        headers=(*automatic_headers(occasion), *way_out),
    )


def compose_post(
    *,
    notice_id: str,
    occasion: Occasion,
    route_provider: str,
    route_account: str,
    to: str,
    thread: str,
    answers: str,
    language: str,
    words: Words,
    html: bool,
    public: bool,
    template: VendorTemplate | None,
    now: datetime,
) -> Post:
    """Return the post that carries `words` by a vendor's API: the whole text with `html`, else its short form.

    In a public place it carries the words for it alone.
    """
    text = words.public if public else (words.text if html else words.short or words.text)
    return Post(
        key=notice_id,
        provider=route_provider,
        account=route_account,
        occasion=occasion,
        to=to,
        thread=thread,
        answers=answers,
        subject="" if public else words.subject,
        text=text.strip("\n"),
        html=words.html if html and not public else "",
        language=language,
        date=now,
        is_automatic=occasion != "answered",
        template=template,
    )


def automatic_headers(occasion: Occasion) -> tuple[tuple[str, str], ...]:
    """Return the headers that tell machines not to answer; none on what an agent wrote.

    RFC 3834 section 5: `auto-replied` answers a message, `auto-generated` comes by itself. The other two are read by
    Exchange and by mail filters that know no RFC 3834.
    """
    if occasion == "answered":
        return ()
    kind = "auto-replied" if occasion in _REPLIES else "auto-generated"
    return (
        ("Auto-Submitted", kind),
        ("X-Auto-Response-Suppress", "All"),
        ("Precedence", "auto_reply"),
    )


def thread_id(channel: str, vendor_message_id: str) -> str | None:
    """Return the Message-ID that a reply can refer to, in its brackets; None where a message has none."""
    if channel != "email":
        return None
    bare = vendor_message_id.strip().removeprefix("<").removesuffix(">")
    found = _MESSAGE_ID.fullmatch(f"<{bare}>")
    return found.group() if found else None


def extend(references: tuple[str, ...], *ids: str | None) -> tuple[str, ...]:
    """Return the thread with `ids` at its end: each once, the first kept, the middle dropped when it grows long."""
    thread = dict.fromkeys((*references, *(one for one in ids if one)))
    kept = tuple(thread)
    return kept if len(kept) <= REFERENCES_MAX else (kept[0], *kept[1 - REFERENCES_MAX :])


def retry_at(
    policy: Policy, notice_id: str, attempt: int, failed: Failed, now: datetime
) -> datetime | None:
    """Return when to try again after `attempt` attempts that count, or None where that was the last one.

    The schedule's delay is stretched by up to the policy's jitter, by a share that the notice and the attempt fix, so
    that the mails an outage held up do not come back all at once. A provider's wish counts where it is longer.
    """
    if not failed.is_recoverable or attempt >= policy.attempts_max:
        return None
    digest = hashlib.sha256(f"{notice_id}/{attempt}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    delay = policy.retry_delays[attempt - 1] * (1 + policy.retry_jitter * share)
    return now + max(delay, wished(failed))


def wished(failed: Failed) -> timedelta:
    """Return how long the provider wishes to be left alone, as far as it is obeyed."""
    return min(failed.retry_after or timedelta(0), RETRY_AFTER_MAX)
