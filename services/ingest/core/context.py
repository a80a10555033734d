"""What a customer said elsewhere and what they ordered, to travel with each of their messages: so nobody asks twice."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from schemas.customers import CustomerContext, Interaction, OrderNote
from schemas.messages import MessageContent
from services.ingest.core.identity import Identified, members_of
from services.ingest.core.normalise import clean_value
from services.ingest.core.state import Directory

INTERACTIONS_MAX: Final = 5
ORDERS_MAX: Final = 5
WORDS_MAX: Final = 120
CONVERSATIONS_MAX: Final = 100
"""Counting ends here."""

BYTES_MAX: Final = 4_000


def words_of(content: MessageContent) -> str:
    """Return what a message is about: its subject, or its first words."""
    text = content.subject.strip() or (content.text_new or content.text)[: WORDS_MAX * 4]
    line = " ".join(clean_value(text, WORDS_MAX * 4).split())
    return line if len(line) <= WORDS_MAX else line[: WORDS_MAX - 1] + "…"


class Description(NamedTuple):
    """What the company says of a customer; None: nothing."""

    tier: str | None
    contract: str | None


def described(directory: Directory, members: Iterable[str]) -> Description:
    """Return what is said of a customer, who comes first among `members`, or of the first of the others."""
    rows = [one for one in map(directory.customers.get, members) if one is not None]
    return Description(
        next((one.tier for one in rows if one.tier), None),
        next((one.contract for one in rows if one.contract), None),
    )


def build(
    directory: Directory,
    content: MessageContent,
    who: Identified,
    conversation_id: str,
    *,
    is_proved: bool,
) -> CustomerContext | None:
    """Return what is known of the customer besides this conversation, newest first; None where that is nothing."""
    if not who.key[1] or content.direction == "outbound" or content.kind == "bounce":
        return None
    members = members_of(directory, who.customer_id)
    said = sorted(
        (one for member in members for one in directory.said.get(member, ())),
        key=lambda one: (one.at, one.message_id),
        reverse=True,
    )
    latest = {one.conversation_id: one for one in reversed(said)}  # The newest of each stays.
    latest.pop(conversation_id, None)
    elsewhere = [one for one in said if latest.get(one.conversation_id) is one]
    keys = {key for member in members for key in directory.addresses_of.get(member, ())}
    orders = sorted(
        directory.orders_of(keys),
        key=lambda one: (one.placed_at, one),
        reverse=True,
    )
    description = described(directory, members)
    if not elsewhere and not orders and not any(description):
        return None
    count = sum(directory.conversation_counts.get(member, 0) for member in members)
    here = any(
        one.customer_id in members for one in directory.participants.get(conversation_id, ())
    )
    made = CustomerContext(
        conversations=min(
            CONVERSATIONS_MAX,
            max(count - here, len(elsewhere)),
        ),
        interactions=tuple(
            Interaction(
                conversation_id=one.conversation_id,
                channel=one.channel,
                at=one.at,
                words=one.words,
            )
            for one in elsewhere[:INTERACTIONS_MAX]
        ),
        orders=tuple(
            OrderNote(
                number=one.number[:100],
                status=one.status[:50],
                total=one.total[:40],
                currency=one.currency[:10],
                placed_at=one.placed_at,
            )
            for one in orders[:ORDERS_MAX]
        ),
        language=next((one.language for one in said if one.language), None),
        address_kinds=tuple(sorted({kind for kind, _ in keys})),
        is_proved=is_proved,
        tier=description.tier,
        contract=description.contract,
    )
    return _fitting(made)


def _fitting(context: CustomerContext) -> CustomerContext:
    """Return a context of at most `BYTES_MAX` bytes as JSON: the oldest interactions go first."""
    while len(context.model_dump_json().encode()) > BYTES_MAX and context.interactions:
        context = context.model_copy(update={"interactions": context.interactions[:-1]})
    while len(context.model_dump_json().encode()) > BYTES_MAX and context.orders:
        context = context.model_copy(update={"orders": context.orders[:-1]})
    return context
