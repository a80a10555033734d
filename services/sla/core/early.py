"""Facts of assignment that are heard before the ticket that they are about.

The two come on topics of their own, and either may be ahead. An early fact that begins a stay, and what follows it, is kept
until the ticket is heard of, for `KEPT_FOR` at the longest and `EARLY_MAX` to a conversation. What comes of nothing, such as a
fact about a ticket that was closed long ago, is forgotten then, and said to be.
"""

import json
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from schemas.payload import REGISTRY
from schemas.routing import OfferMade, RoutingEvent, TicketQueued
from services.sla.core.book import Decision, Ignored, Remark
from services.sla.core.offers import happened_at
from services.sla.core.state import Conversation, Early

EARLY_MAX: Final = 16
"""Early facts of one conversation: a stay with three offers that expire tells of ten."""

KEPT_FOR: Final = timedelta(minutes=10)
"""How long a topic may lag behind the other before facts are lost; ticket and assignment are moments apart when all is well."""


def kept(state: Conversation | None, event: RoutingEvent, now: datetime) -> Decision:
    """The state with a fact kept for its ticket, or why it is not."""
    known = () if state is None else state.early
    is_next = any(one.ticket_id == event.ticket_id for one in known)
    if not is_next and not isinstance(event, TicketQueued | OfferMade):
        return Decision(state, ignored=Ignored.TICKET_UNKNOWN)
    if len(known) >= EARLY_MAX:
        return Decision(state, ignored=Ignored.TOO_MANY_EARLY, remarks=(Remark.EARLY_LOST,))
    one = Early(
        type=event.TYPE,
        ticket_id=event.ticket_id,
        at=happened_at(event),
        data=json.dumps(
            event.model_dump(mode="json", exclude={"record"}), separators=(",", ":"), sort_keys=True
        ),
        until=now + KEPT_FOR,
    )
    if any((e.type, e.data) == (one.type, one.data) for e in known):
        return Decision(state, ignored=Ignored.NOTHING_RUNS)
    before = state or Conversation(conversation_id=event.conversation_id, tickets=())
    early = tuple(sorted((*known, one), key=lambda e: (e.at, e.until)))
    return Decision(replace(before, early=early))


def follows(state: Conversation, event: RoutingEvent) -> bool:
    """Whether a fact of the same stay waits already."""
    return any(
        one.ticket_id == event.ticket_id and _event(one).work_id == event.work_id
        for one in state.early
    )


def taken(state: Conversation, ticket_id: str) -> tuple[Conversation, tuple[RoutingEvent, ...]]:
    """The state without what was kept for a ticket, and that, in the order in which it happened."""
    mine = [one for one in state.early if one.ticket_id == ticket_id]
    if not mine:
        return state, ()
    events = tuple(_event(one) for one in mine)
    rest = tuple(one for one in state.early if one.ticket_id != ticket_id)
    return replace(state, early=rest), events


def forgotten(state: Conversation, now: datetime) -> Conversation:
    """The state without what nobody came for in time."""
    rest = tuple(one for one in state.early if one.until > now)
    return state if len(rest) == len(state.early) else replace(state, early=rest)


def _event(one: Early) -> RoutingEvent:
    event = REGISTRY[one.type].model_validate_json(one.data)
    assert isinstance(event, RoutingEvent)  # Only such are kept.
    return event
