"""What becomes of a delivery: a message in its conversation, a duplicate, or nothing, with the reason.

`questions` says what must be known beforehand, `decide` decides. Both are pure; `decide` changes the `Directory` it is
given, so that the next record of the batch sees what this one claimed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from schemas import ids
from schemas.customers import CustomerEvent
from schemas.inbound import InboundReceived
from schemas.messages import (
    MessageContent,
    MessageDeliveryReported,
    MessageReceived,
    MessageRevised,
)
from services.ingest.core import context, conversation, customers, dedupe, identity, receipts
from services.ingest.core.state import (
    AddressKey,
    AddressRow,
    BasisRow,
    Directory,
    InteractionRow,
    Order,
    OrderRow,
    OutcomeRow,
    Parsed,
    ParticipantRow,
    Questions,
    ReadBackRow,
    Row,
    SeenKey,
    SeenRow,
    ThreadRow,
)

WEAK_REASONS = frozenset({"subject", "no_reply_sender"})
"""Signs of automatic mail that a person's mail may show too: never answered by a machine, but never dropped."""

REPEATED = "repeated_input"
DELETED_UNSEEN = "deleted_unseen"
READ_BACK = "read_back"
"""The reason of a delivery that only hints: its content is read through the vendor's API and comes as another input."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What deciding needs besides the facts: who we are, what our tokens are made with, when a loop is one."""

    workspace: str
    secret: bytes
    automatic_max: int = 10
    automatic_window: timedelta = timedelta(hours=3)
    phone_region: str = ""


Event = MessageReceived | MessageRevised | MessageDeliveryReported | CustomerEvent

_MESSAGES = (MessageReceived, MessageRevised)


class Decision(NamedTuple):
    """What an input comes to. `ignored` is a reason of a closed set where it comes to nothing."""

    events: tuple[Event, ...]
    rows: tuple[Row, ...]
    ignored: str | None = None


def questions(
    inputs: Iterable[tuple[InboundReceived, Parsed | None]], phone_region: str = ""
) -> Questions:
    """Return what has to be read before these inputs can be decided."""
    asked = _Asked()
    for received, parsed in inputs:
        asked.input_ids.add(received.input_id)
        if parsed is None:
            continue
        for order in parsed.orders:
            asked.addresses.update(_addresses_of(order, phone_region))
        if parsed.command is not None:
            one = parsed.command
            asked.customers.update(filter(None, (one.customer_id, one.other_id)))
            asked.merges.update(filter(None, (one.merge_id,)))
            asked.erased.update(filter(None, (one.customer_id,)) if one.do == "erase" else ())
        for receipt in parsed.receipts:
            asked.references.update(conversation.thread_keys(receipts.content_of(receipt)))
        for content in parsed.messages:
            _ask(asked, parsed, content, phone_region)
    return Questions(**{name: frozenset(getattr(asked, name)) for name in Questions.__slots__})


@dataclass(slots=True)
class _Asked:
    """`Questions` in the making."""

    input_ids: set[str] = field(default_factory=set)
    seen: set[SeenKey] = field(default_factory=set)
    references: set[str] = field(default_factory=set)
    conversations: set[str] = field(default_factory=set)
    addresses: set[AddressKey] = field(default_factory=set)
    claimed: set[AddressKey] = field(default_factory=set)
    claimers: set[AddressKey] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    customers: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    merges: set[str] = field(default_factory=set)


def _ask(asked: _Asked, parsed: Parsed, content: MessageContent, region: str) -> None:
    asked.seen.add(dedupe.key_of(content))
    if content.change != "new":
        asked.seen.add(dedupe.revision_key_of(content))
        asked.references.add(_own_reference(content))
    asked.references.update(conversation.thread_keys(content))
    asked.references.update(
        conversation.reference_key(content.channel, content.account, reference)
        for reference in conversation.references_of(content)
    )
    asked.conversations.update(
        token.conversation_id for token in conversation.tokens_of(content, parsed.addressed_to)
    )
    key = identity.owner_key(content, region)
    if not key[1]:
        return
    asked.addresses.add(key)
    claims = identity.claims_of(content, region)
    orders = identity.orders_of(content)
    asked.claimed.update(claim.key for claim in claims)
    asked.addresses.update(claim.key for claim in claims)
    asked.orders.update(orders)
    if claims or orders:
        asked.claimers.add(key)


def _addresses_of(order: Order, region: str) -> tuple[AddressKey, ...]:
    return tuple(
        (kind, identity.normalise_address(kind, address, region))
        for kind, address in order.addresses
    )


def decide(
    directory: Directory, received: InboundReceived, parsed: Parsed, now: datetime, rules: Rules
) -> Decision:
    """Decide one input. An input that was decided before (a redelivery) changes nothing and says so."""
    if received.input_id in directory.outcomes:
        return Decision((), (), REPEATED)
    if parsed.command is not None:
        changed = customers.obey(directory, rules.workspace, parsed.command, now)
        done = _ignore(directory, received, changed.result, now, changed.rows)
        return done._replace(events=changed.events)
    rows: list[Row] = _orders(directory, received, parsed, now, rules)
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
    told_of_ours = receipts.reports(directory, received.input_id, parsed)
    if parsed.ignored is not None or not parsed.messages:
        nothing = parsed.ignored or ("receipt" if told_of_ours else "empty")
        done = _ignore(directory, received, nothing, now, tuple(rows))
        return done._replace(events=told_of_ours)
    events: list[Event] = [*told_of_ours]
    refused: str | None = None
    first_seen: str | None = None
    for content in parsed.messages:
        already = directory.seen.get(dedupe.key_of(content))
        made: tuple[tuple[Event, ...], tuple[Row, ...]] | str
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
            rows.extend(_tombstone(directory, received, content, made, now, rules))
            continue
        its_events, its_rows = made
        events.extend(its_events)
        rows.extend(its_rows)
    if refused is not None and not any(isinstance(one, _MESSAGES) for one in events):
        done = _ignore(directory, received, refused, now, tuple(rows))
        return done._replace(events=tuple(events))
    told = next((one for one in events if isinstance(one, _MESSAGES)), None)
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


def _tombstone(
    directory: Directory,
    received: InboundReceived,
    content: MessageContent,
    reason: str,
    now: datetime,
    rules: Rules,
) -> tuple[Row, ...]:
    """Return the row that keeps a message out which comes after its own removal: channels promise no order."""
    is_known = dedupe.key_of(content) in directory.seen
    if reason != DELETED_UNSEEN or not content.sender.address or is_known:
        return ()
    name = dedupe.name_of(content)
    message_id = ids.message_id(rules.workspace, content.channel, content.account, name)
    rows = (SeenRow(content.channel, content.account, name, message_id, received.input_id, now),)
    directory.apply(rows)
    return rows


def _orders(
    directory: Directory, received: InboundReceived, parsed: Parsed, now: datetime, rules: Rules
) -> list[Row]:
    """Return the rows of the orders told, and of addresses that an order was placed with: a little proof."""
    rows: list[Row] = []
    for told in parsed.orders:
        order = replace(told, addresses=_addresses_of(told, rules.phone_region))
        rows.append(OrderRow(received.channel, received.account, order))
        for key in order.addresses:
            known = directory.addresses.get(key)
            if known is not None and known.proof == "none" and parsed.verified:
                row = AddressRow(
                    *key, known.customer_id, known.is_verified, now, "order", known.names
                )
                directory.apply((row,))
                rows.append(row)
    return rows


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
    kind = writers[0].kind
    address = identity.address_within(content, (kind, writers[0].address))
    sender = content.sender.model_copy(update={"kind": kind, "address": address})
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
) -> tuple[tuple[Event, ...], tuple[Row, ...]] | str:
    """Return the event of an edit or a removal of a message we know, or the reason to ignore it."""
    conversation_id = directory.threads.get(_own_reference(content))
    if conversation_id is None:
        return DELETED_UNSEEN
    if message_id is None:
        content, message_id = _by_its_only_writer(
            directory, conversation_id, parsed, content, rules
        )
    if message_id is None:
        return DELETED_UNSEEN
    who = _whose(directory, content, conversation_id, message_id, parsed, now, rules)
    name = dedupe.revision_of(content)
    event = MessageRevised(
        message_id=message_id,
        conversation_id=conversation_id,
        customer_id=who.customer_id,
        input_id=received.input_id,
        content=content,
        verified=parsed.verified,
        received_at=received.received_at,
    )
    seen = SeenRow(content.channel, content.account, name, message_id, received.input_id, now)
    rows = (seen, *who.rows, *_basis(directory, who))
    directory.apply(rows)
    return (event,), rows


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
) -> tuple[tuple[Event, ...], tuple[Row, ...]] | str:
    """Return what is told and written, all of it applied, or the reason to ignore the message."""
    name = dedupe.name_of(content)
    message_id = ids.message_id(rules.workspace, content.channel, content.account, name)
    place = conversation.place(
        directory,
        rules.secret,
        rules.workspace,
        content,
        parsed.addressed_to,
        now,
        rules.phone_region,
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
    who = _whose(directory, content, conversation_id, message_id, parsed, now, rules)
    rows: tuple[Row, ...] = (
        *(
            SeenRow(content.channel, content.account, known, message_id, received.input_id, now)
            for known in (name, *([dedupe.revision_of(content)] if content.change != "new" else []))
        ),
        ThreadRow(_own_reference(content), conversation_id, now),
        *(ThreadRow(key, conversation_id, now) for key in conversation.thread_keys(content)),
        *who.rows,
        *_basis(directory, who),
        *_joining(directory, content, place, conversation_id, who, now),
        *_interaction(received, content, conversation_id, message_id, who),
    )
    directory.apply(rows)
    learned = customers.Changed()
    if who.key[1]:
        learned = customers.learn(
            directory, rules.workspace, content, who, conversation_id, now, rules.phone_region
        )
        who = who._replace(customer_id=identity.root_of(directory, who.origin_id))
    is_merged = who.origin_id != who.customer_id
    event = MessageReceived(
        message_id=message_id,
        conversation_id=conversation_id,
        customer_id=who.customer_id,
        input_id=received.input_id,
        content=content,
        verified=parsed.verified,
        suspicion=place.suspicion,
        received_at=received.received_at,
        origin_customer_id=who.origin_id if is_merged else None,
        context=context.build(directory, content, who, conversation_id, is_proved=parsed.verified),
    )
    about_ours = receipts.of_mail(content, place, received.input_id)
    return (event, *learned.events, *about_ours), (*rows, *learned.rows)


def _basis(directory: Directory, who: identity.Identified) -> tuple[BasisRow, ...]:
    """Return the rows that say on which customers' standing it rests whose message this is."""
    found: list[BasisRow] = []
    customer_id: str | None = who.origin_id
    while customer_id is not None and customer_id in directory.customers:
        one = directory.customers[customer_id]
        found.append(BasisRow(customer_id, one.version))
        customer_id = one.merged_into
    return tuple(found)


def _interaction(
    received: InboundReceived,
    content: MessageContent,
    conversation_id: str,
    message_id: str,
    who: identity.Identified,
) -> tuple[InteractionRow, ...]:
    """Return the row that remembers what a customer said. What machines and our own side wrote is nobody's word."""
    if content.kind == "bounce" or content.direction == "outbound":
        return ()
    return (
        InteractionRow(
            who.origin_id,
            message_id,
            conversation_id,
            received.input_id,
            content.channel,
            content.account,
            content.language,
            context.words_of(content),
            received.body_ref,
            tuple(sorted({one.sha256 for one in content.attachments if one.sha256})),
            content.occurred_at,
        ),
    )


def _joining(
    directory: Directory,
    content: MessageContent,
    place: conversation.Place,
    conversation_id: str,
    who: identity.Identified,
    now: datetime,
) -> tuple[Row, ...]:
    """Return the row that makes the sender a participant: whoever begins a conversation, or was written to in it."""
    kind, address = who.key
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
    return (ParticipantRow(conversation_id, kind, address, who.origin_id, now),)


def _whose(
    directory: Directory,
    content: MessageContent,
    conversation_id: str,
    message_id: str,
    parsed: Parsed,
    now: datetime,
    rules: Rules,
) -> identity.Identified:
    """Return the customer behind a message. What a mail server or our own side wrote is about the customer, not from one."""
    if content.kind == "bounce" or content.direction == "outbound":
        for one in directory.participants.get(conversation_id, ()):
            root = identity.root_of(directory, one.customer_id)
            return identity.Identified(one.customer_id, root, ("none", ""), ())
    return identity.identify(
        directory,
        rules.workspace,
        content,
        message_id,
        verified=parsed.verified,
        now=now,
        region=rules.phone_region,
    )
