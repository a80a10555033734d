"""Which conversation a message belongs to, and why one that claims to belong is not believed.

In this order: our signed reply token (in a Message-ID it answers, or in the address it was sent to), then a Message-ID
of the conversation together with a sender who takes part in it, then a new conversation. A ticket's number in a
subject proves nothing. What is claimed and not believed is said in `suspicion`, so that people can look.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from typing import NamedTuple

from schemas import reply_token
from schemas.messages import MessageContent
from schemas.reply_token import ReplyToken
from services.ingest.core import dedupe, identity
from services.ingest.core.state import Directory, Participant

TICKET_REFERENCE = re.compile(r"\bSB-[A-Z2-7]{7}\b")
REFERENCES_MAX = 50
"""References looked at, newest first; chains longer than that are made by machines."""

OTHER_RECIPIENT = "answers a mail that we sent to another participant of this conversation"
FORGED_TOKEN = "carries a reply token that is not valid for its sender"  # noqa: S105 - a sentence
FOREIGN_REFERENCE = "names a message of a conversation in which its sender takes no part"
QUOTED_TICKET = "quotes a ticket's number, which proves nothing"


class Place(NamedTuple):
    """Where a message belongs: a conversation that exists, or None for a new one; and what is suspicious about it."""

    conversation_id: str | None
    suspicion: str | None = None


def reference_key(channel: str, account: str, reference: str) -> str:
    """Return the key of a reference: a Message-ID counts in all mailboxes, a vendor's id in its account only."""
    return reference if channel in dedupe.MAIL else f"{channel}/{account}/{reference}"


def thread_keys(content: MessageContent) -> list[str]:
    """Return the keys of the thread a message stands in, the surest first: its sender's own place in it, then all of it.

    Where the channel names no thread, a phone number or a vendor's id is one: a chat has no other. A public thread is
    one conversation for each who writes there, for each asks for themselves; a private one is shared by all the vendor
    put into it.
    """
    whose = [content.sender]
    thread = content.thread
    if content.direction == "outbound":
        whose = [
            content.sender.model_copy(update={"address": address}) for address in content.recipients
        ]
    if thread is None and content.visibility == "private":
        chats = [one.address for one in whose if one.kind in ("vendor_id", "phone") and one.address]
        return [_thread_key(content, f"chat:{address}") for address in chats]
    if thread is None:
        return []
    own = [
        _thread_key(content, f"thread:{thread}/{one.kind}:{identity.address_key(one)[1]}")
        for one in whose
        if one.address
    ]
    if content.visibility == "private":
        own.append(_thread_key(content, f"thread:{thread}"))
    return own


def _thread_key(content: MessageContent, name: str) -> str:
    return f"{content.channel}/{content.account}/{name}"


def references_of(content: MessageContent) -> list[str]:
    """Return what a message answers to, the nearest first: In-Reply-To, then References from the newest."""
    named = [*([content.in_reply_to] if content.in_reply_to else []), *reversed(content.references)]
    return list(dict.fromkeys(named))[:REFERENCES_MAX]


def tokens_of(content: MessageContent, addressed_to: Iterable[str]) -> Iterator[ReplyToken]:
    """Return the reply tokens a message carries, read and not yet believed."""
    for reference in references_of(content):
        token = reply_token.find_in_message_id(reference)
        if token is not None:
            yield token
    for address in dict.fromkeys((*addressed_to, *content.recipients)):
        token = reply_token.find_in_address(address)
        if token is not None:
            yield token


def _by_token(
    directory: Directory,
    secret: bytes,
    workspace: str,
    tokens: list[ReplyToken],
    addresses: list[str],
    today: date,
) -> Place | None:
    for token in tokens:
        if any(token.is_for(secret, workspace, address, today) for address in addresses):
            return Place(token.conversation_id)
    for token in tokens:
        others = directory.participants.get(token.conversation_id, ())
        if any(token.is_for(secret, workspace, other.address, today) for other in others):
            return Place(token.conversation_id, OTHER_RECIPIENT)
    return None


def _takes_part(participants: Iterable[Participant], keys: set[tuple[str, str]]) -> bool:
    return any((participant.kind, participant.address) in keys for participant in participants)


def place(
    directory: Directory,
    secret: bytes,
    workspace: str,
    content: MessageContent,
    addressed_to: Iterable[str],
    now: datetime,
    region: str = "",
) -> Place:
    """Find the conversation a message belongs to.

    A bounce speaks for the address that our mail did not reach; all other messages for their sender. Without a
    `secret` no token is believed. `region` is where phone numbers without a country code are from.
    """
    own = identity.owner_key(content, region)
    keys = {own} if own[1] else set()
    if content.bounce is not None and content.bounce.recipient:
        keys.add(("email", identity.normalise_address("email", content.bounce.recipient)))
    tokens = list(tokens_of(content, addressed_to))
    if secret and tokens:
        believed = _by_token(
            directory, secret, workspace, tokens, [key[1] for key in sorted(keys)], now.date()
        )
        if believed is not None:
            return believed
    named = [
        directory.threads[reference]
        for found in references_of(content)
        if (reference := reference_key(content.channel, content.account, found))
        in directory.threads
    ]
    for key in thread_keys(content):
        if key in directory.threads:
            return Place(directory.threads[key])
    for conversation_id in named:
        if content.direction == "outbound" or _takes_part(
            directory.participants.get(conversation_id, ()), keys
        ):
            return Place(conversation_id)
    if tokens:
        return Place(None, FORGED_TOKEN)
    if named:
        return Place(None, FOREIGN_REFERENCE)
    if TICKET_REFERENCE.search(content.subject):
        return Place(None, QUOTED_TICKET)
    return Place(None)
