"""What becomes of a delivery: a message in its conversation, a duplicate, or nothing, with the reason.

`questions` says what must be known beforehand, `decide` decides. Both are pure; `decide` changes the `Directory` it is
given, so that the next record of the batch sees what this one claimed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from schemas import ids
from schemas.inbound import InboundReceived
from schemas.messages import MessageContent, MessageReceived, MessageRevised
from services.ingest.core import conversation, dedupe, identity
from services.ingest.core.state import (
    Directory,
    OrderRow,
    OutcomeRow,
    Parsed,
    ParticipantRow,
    Questions,
    ReadBackRow,
    Row,
    SeenRow,
    ThreadRow,
)

WEAK_REASONS = frozenset({"subject", "no_reply_sender"})
"""Signs of automatic mail that a person's mail may show too: never answered by a machine, but never dropped."""

REPEATED = "repeated_input"
READ_BACK = "read_back"
"""The reason of a delivery that only hints: its content is read through the vendor's API and comes as another input."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What deciding needs besides the facts: who we are, what our tokens are made with, when a loop is one."""

    workspace: str
    secret: bytes
    automatic_max: int = 10
    automatic_window: timedelta = timedelta(hours=3)


class Decision(NamedTuple):
    """What an input comes to. `ignored` is a reason of a closed set where it comes to nothing."""

    events: tuple[MessageReceived | MessageRevised, ...]
    rows: tuple[Row, ...]
    ignored: str | None = None


def questions(inputs: Iterable[tuple[InboundReceived, Parsed | None]]) -> Questions:
    """Return what has to be read before these inputs can be decided."""
    input_ids: set[str] = set()
    seen: set[tuple[str, str, str]] = set()
    references: set[str] = set()
    conversations: set[str] = set()
    addresses: set[tuple[str, str]] = set()
    for received, parsed in inputs:
        input_ids.add(received.input_id)
        for content in parsed.messages if parsed is not None else ():
            seen.add(dedupe.key_of(content))
            if content.change != "new":
                seen.add(dedupe.revision_key_of(content))
                references.add(_own_reference(content))
            references.update(conversation.thread_keys(content))
            references.update(
                conversation.reference_key(content.channel, content.account, reference)
                for reference in conversation.references_of(content)
            )
            conversations.update(
                token.conversation_id
                for token in conversation.tokens_of(content, parsed.addressed_to if parsed else ())
            )
            addresses.add(identity.address_key(content.sender))
    return Questions(
        frozenset(input_ids),
        frozenset(seen),
        frozenset(references),
        frozenset(conversations),
        frozenset(addresses),
    )


def decide(
    directory: Directory, received: InboundReceived, parsed: Parsed, now: datetime, rules: Rules
) -> Decision:
    """Decide one input. An input that was decided before (a redelivery) changes nothing and says so."""
    if received.input_id in directory.outcomes:
        return Decision((), (), REPEATED)
    rows: list[Row] = [
        OrderRow(received.channel, received.account, order) for order in parsed.orders
    ]
    if parsed.ignored == READ_BACK:
        rows.append(
            ReadBackRow(
                received.input_id,
                received.channel,
                received.account,
                received.to_json().decode(),
                now,
            )
        )
    if parsed.ignored is not None or not parsed.messages:
        return _ignore(directory, received, parsed.ignored or "empty", now, tuple(rows))
    events: list[MessageReceived | MessageRevised] = []
    refused: str | None = None
    first_seen: str | None = None
    for content in parsed.messages:
        already = directory.seen.get(dedupe.key_of(content))
        made: tuple[MessageReceived | MessageRevised, tuple[Row, ...]] | str
        if content.change != "new" and (already is not None or content.change == "deleted"):
            revised = directory.seen.get(dedupe.revision_key_of(content))
            if revised is not None:
                first_seen = first_seen or revised
                continue
            made = _revised(directory, received, parsed, content, already, now, rules)
        elif already is not None:
            first_seen = first_seen or already
            continue
        else:
            made = _one(directory, received, parsed, content, now, rules)
        if isinstance(made, str):
            refused = refused or made
            continue
        event, its_rows = made
        directory.apply(its_rows)
        events.append(event)
        rows.extend(its_rows)
    if not events and refused is not None:
        return _ignore(directory, received, refused, now, tuple(rows))
    told = events[0] if events else None
    outcome = OutcomeRow(
        input_id=received.input_id,
        outcome="message" if told else "duplicate",
        reason=None,
        message_id=told.message_id if told else first_seen,
        conversation_id=told.conversation_id if told else None,
        is_automatic=told is not None and told.content.is_automatic,
        at=now,
    )
    directory.apply((outcome,))
    return Decision(tuple(events), (*rows, outcome), None if told else "duplicate")


def _ignore(
    directory: Directory,
    received: InboundReceived,
    reason: str,
    now: datetime,
    rows: tuple[Row, ...] = (),
) -> Decision:
    row = OutcomeRow(received.input_id, "ignored", reason, None, None, False, now)
    directory.apply((row,))
    return Decision((), (*rows, row), reason)


def _own_reference(content: MessageContent) -> str:
    return conversation.reference_key(content.channel, content.account, content.vendor_message_id)


def _by_its_only_writer(
    directory: Directory,
    conversation_id: str,
    parsed: Parsed,
    content: MessageContent,
    rules: Rules,
) -> tuple[MessageContent, str | None]:
    """Return a removal as its writer's, and the message it removes, where the channel proved it and did not say whose it
    was: there is only one who may have written it.
    """
    writers = directory.participants.get(conversation_id, ())
    if content.sender.address or not parsed.verified or len(writers) != 1:
        return content, None
    sender = content.sender.model_copy(
        update={"kind": writers[0].kind, "address": writers[0].address}
    )
    named = content.model_copy(update={"sender": sender})
    name = dedupe.name_of(named)
    return named, ids.message_id(rules.workspace, content.channel, content.account, name)


def _revised(
    directory: Directory,
    received: InboundReceived,
    parsed: Parsed,
    content: MessageContent,
    message_id: str | None,
    now: datetime,
    rules: Rules,
) -> tuple[MessageRevised, tuple[Row, ...]] | str:
    """Return the event of an edit or a removal of a message we know, or the reason to ignore it."""
    conversation_id = directory.threads.get(_own_reference(content))
    if conversation_id is None:
        return "deleted_unseen"
    if message_id is None:
        content, message_id = _by_its_only_writer(
            directory, conversation_id, parsed, content, rules
        )
    if message_id is None:
        return "deleted_unseen"
    customer_id, rows = _whose(directory, content, conversation_id, message_id, parsed, now, rules)
    name = dedupe.revision_of(content)
    event = MessageRevised(
        message_id=message_id,
        conversation_id=conversation_id,
        customer_id=customer_id,
        input_id=received.input_id,
        content=content,
        verified=parsed.verified,
        received_at=received.received_at,
    )
    seen = SeenRow(content.channel, content.account, name, message_id, received.input_id, now)
    return event, (seen, *rows)


def _is_loop(directory: Directory, conversation_id: str, now: datetime, rules: Rules) -> bool:
    since = now - rules.automatic_window
    lately = sum(at > since for at in directory.automatic.get(conversation_id, ()))
    return lately >= rules.automatic_max


def _one(
    directory: Directory,
    received: InboundReceived,
    parsed: Parsed,
    content: MessageContent,
    now: datetime,
    rules: Rules,
) -> tuple[MessageReceived, tuple[Row, ...]] | str:
    """Return the event and its rows, or the reason to ignore the message."""
    name = dedupe.name_of(content)
    message_id = ids.message_id(rules.workspace, content.channel, content.account, name)
    place = conversation.place(
        directory, rules.secret, rules.workspace, content, parsed.addressed_to, now
    )
    if place.conversation_id is None:
        if content.kind == "bounce":
            return "bounce_unmatched"
        if content.is_automatic and content.automatic_reason not in WEAK_REASONS:
            return "automatic_unmatched"
        if content.direction == "outbound":
            return "outbound_unmatched"
    elif content.is_automatic and _is_loop(directory, place.conversation_id, now, rules):
        return "loop"
    conversation_id = place.conversation_id or ids.conversation_id(message_id)
    customer_id, rows = _whose(directory, content, conversation_id, message_id, parsed, now, rules)
    event = MessageReceived(
        message_id=message_id,
        conversation_id=conversation_id,
        customer_id=customer_id,
        input_id=received.input_id,
        content=content,
        verified=parsed.verified,
        suspicion=place.suspicion,
        received_at=received.received_at,
    )
    return event, (
        SeenRow(content.channel, content.account, name, message_id, received.input_id, now),
        ThreadRow(_own_reference(content), conversation_id, now),
        *(ThreadRow(key, conversation_id, now) for key in conversation.thread_keys(content)),
        *rows,
        *_joining(directory, content, place, conversation_id, customer_id, now),
    )


def _joining(
    directory: Directory,
    content: MessageContent,
    place: conversation.Place,
    conversation_id: str,
    customer_id: str,
    now: datetime,
) -> tuple[Row, ...]:
    """Return the row that makes the sender a participant: whoever begins a conversation, or was written to in it."""
    kind, address = identity.address_key(content.sender)
    is_believed = place.conversation_id is None or place.suspicion is None
    if (
        not address
        or content.kind == "bounce"
        or content.direction == "outbound"
        or not is_believed
    ):
        return ()
    known = directory.participants.get(conversation_id, ())
    if any((one.kind, one.address) == (kind, address) for one in known):
        return ()
    return (ParticipantRow(conversation_id, kind, address, customer_id, now),)


def _whose(
    directory: Directory,
    content: MessageContent,
    conversation_id: str,
    message_id: str,
    parsed: Parsed,
    now: datetime,
    rules: Rules,
) -> tuple[str, tuple[Row, ...]]:
    """Return the customer behind a message. What a mail server or our own side wrote is about the customer, not from one."""
    if content.kind == "bounce" or content.direction == "outbound":
        for participant in directory.participants.get(conversation_id, ()):
            return participant.customer_id, ()
    made = identity.identify(
        directory,
        rules.workspace,
        content.sender,
        message_id,
        verified=parsed.verified,
        now=now,
    )
    return made.customer_id, made.rows
