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
from services.notifier.core.render import Words
from services.notifier.core.state import Mail

PROVIDER = "smtp"
REFERENCES_MAX = 12
"""Ids kept of a thread: the first and the newest. Every one of ours is about 110 characters, a header line holds 998."""

RETRY_AFTER_MAX = timedelta(days=1)
"""A provider that asks for a longer wait is asked again after this one."""

_MESSAGE_ID = re.compile(r"<[!-;=?A-~]{1,120}@[!-;=?A-~]{1,120}>")


@dataclass(frozen=True, slots=True)
class SendNotice:
    """Hand `mail` to the provider. `notice_id` stays the same over all attempts, which count from 1."""

    notice_id: str
    attempt: int
    provider: str
    mail: Mail


@dataclass(frozen=True, slots=True)
class Delivered:
    """The provider took it; `detail` is what it said."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Failed:
    """It was certainly not taken. `retry_after` is the provider's own wish."""

    reason: str
    is_recoverable: bool
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been taken: the answer never came."""

    reason: str


Attempted = Delivered | Failed | Unknown


@dataclass(frozen=True, slots=True)
class SendSettled:
    """An attempt has ended; back in `decide` like any other input."""

    send: SendNotice
    result: Attempted


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
) -> Mail:
    """Return the mail that carries `words` to `to_address` within the conversation's thread.

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
        headers=automatic_headers(occasion),
    )


def automatic_headers(occasion: Occasion) -> tuple[tuple[str, str], ...]:
    """Return the headers that tell machines not to answer; none on what an agent wrote.

    RFC 3834 section 5: `auto-replied` answers a message, `auto-generated` comes by itself. The other two are read by
    Exchange and by mail filters that know no RFC 3834.
    """
    if occasion == "answered":
        return ()
    kind = "auto-replied" if occasion == "received" else "auto-generated"
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


def retry_at(policy: Policy, send: SendNotice, failed: Failed, now: datetime) -> datetime | None:
    """Return when to try again, or None where that was the last attempt.

    The schedule's delay is stretched by up to the policy's jitter, by a share that the notice and the attempt fix, so
    that the mails an outage held up do not come back all at once. A provider's wish counts where it is longer.
    """
    if not failed.is_recoverable or send.attempt >= policy.attempts_max:
        return None
    digest = hashlib.sha256(f"{send.notice_id}/{send.attempt}".encode()).digest()
    share = int.from_bytes(digest[:4], "big") / 2**32
    delay = policy.retry_delays[send.attempt - 1] * (1 + policy.retry_jitter * share)
    wished = min(failed.retry_after or timedelta(0), RETRY_AFTER_MAX)
    return now + max(delay, wished)
