"""What a ticket is by itself and what it has of others: kept apart, so that any of them can leave again.

Owns the sums: age, place, urgency, tags, facts and debts of a ticket are its own and those of all that are merged into it,
taken together. Other steps of a ticket's life change the sum alone; what such a change means is found out when it is next
needed (`settled`): a priority that is not the sum's was decided since, and a debt that is older than the oldest open one was
paid.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import structs

from schemas.merging import MergeAsked, MergeChanged
from services.router.core.tickets.state import Absorbed, Own, Ticket
from services.router.core.tickets.story import Story


def settled(ticket: Ticket) -> Ticket:
    """Return a ticket whose parts say what its sums say."""
    own = ticket.own
    if own is None:
        return ticket
    absorbed = ticket.absorbed
    urgency = min([own.priority, *(one.priority for one in absorbed if one.priority is not None)])
    if ticket.priority != urgency:
        own = structs.replace(own, priority=ticket.priority)
    if ticket.priority > urgency:
        # Somebody thought it less urgent than what came in made it.
        absorbed = tuple(structs.replace(one, priority=None) for one in absorbed)
    entered = [one.entered_at for one in absorbed if one.entered_at is not None]
    if ticket.entered_at != min([own.entered_at, *entered]):
        # It has waited anew since.
        own = structs.replace(own, entered_at=ticket.entered_at)
        absorbed = tuple(structs.replace(one, entered_at=None) for one in absorbed)
    if _is_paid(own.waiting_since, ticket):
        own = structs.replace(own, waiting_since=None, unanswered=0)
    absorbed = tuple(
        structs.replace(one, waiting_since=None, unanswered=0)
        if _is_paid(one.waiting_since, ticket)
        else one
        for one in absorbed
    )
    return structs.replace(ticket, own=own, absorbed=absorbed)


def _is_paid(since: datetime | None, ticket: Ticket) -> bool:
    return since is not None and (ticket.waiting_since is None or since < ticket.waiting_since)


def wrote(story: Story, before: Ticket, at: datetime, from_conversation_id: str | None) -> None:
    """A message of the customer was added to `before` and stands in the sum: say whose it is."""
    ticket = settled(before)
    if ticket.own is None:
        return
    own, absorbed = ticket.own, ticket.absorbed
    if any(one.conversation_id == from_conversation_id for one in absorbed):
        absorbed = tuple(
            structs.replace(
                one,
                waiting_since=min(one.waiting_since or at, at),
                unanswered=one.unanswered + 1,
            )
            if one.conversation_id == from_conversation_id
            else one
            for one in absorbed
        )
    else:
        own = structs.replace(
            own, waiting_since=min(own.waiting_since or at, at), unanswered=own.unanswered + 1
        )
    story.change(own=own, absorbed=absorbed)


def taken_in(ticket: Ticket, event: MergeAsked | MergeChanged, reference: str) -> dict[str, Any]:
    """Return the fields of a ticket that takes another in."""
    ticket = settled(ticket)
    own = ticket.own or Own(
        ticket.opened_at,
        ticket.entered_at,
        ticket.priority,
        ticket.waiting_since,
        ticket.unanswered,
    )
    own_tags = set(ticket.tags) - {tag for one in ticket.absorbed for tag in one.tags}
    own_facts = {
        name: value
        for name, value in ticket.facts.items()
        if value and all(one.facts.get(name) != value for one in ticket.absorbed)
    }
    since = event.waiting_since
    taken = Absorbed(
        merge_id=event.merge_id,
        conversation_id=event.from_conversation_id,
        ticket_id=event.from_ticket_id,
        reference=reference,
        opened_at=event.opened_at,
        tags=tuple(tag for tag in event.tags if tag not in own_tags),
        facts={name: value for name, value in event.facts.items() if name not in own_facts},
        priority=event.priority,
        # The wait there is not older than its case, whatever a channel says of its messages.
        entered_at=None if since is None else max(since, event.opened_at),
        waiting_since=since,
        unanswered=0 if since is None else max(event.unanswered, 1),
        depth=event.depth,
    )
    facts = {name: value for name, value in taken.facts.items() if not ticket.facts.get(name)}
    return {
        **_sums(own, (*ticket.absorbed, taken)),
        "tags": tuple(sorted({*ticket.tags, *taken.tags})),
        "facts": {**ticket.facts, **facts},
    }


def let_go(ticket: Ticket, gone: Absorbed) -> dict[str, Any]:
    """Return the fields of a ticket that one of the others leaves; `gone` is as the settled ticket has it."""
    assert ticket.own is not None, "a ticket that took others in knows what it is itself"
    rest = tuple(one for one in ticket.absorbed if one is not gone)
    kept_tags = {tag for one in rest for tag in one.tags}
    facts = {}
    for name, value in ticket.facts.items():
        heirs = [one.facts[name] for one in rest if name in one.facts]
        if gone.facts.get(name) != value:
            facts[name] = value
        elif heirs:
            facts[name] = heirs[0]
    return {
        **_sums(ticket.own, rest),
        "own": ticket.own if rest else None,
        "tags": tuple(tag for tag in ticket.tags if tag not in gone.tags or tag in kept_tags),
        "facts": facts,
    }


def _sums(own: Own, absorbed: tuple[Absorbed, ...]) -> dict[str, Any]:
    entered = [one.entered_at for one in absorbed if one.entered_at is not None]
    urgency = [one.priority for one in absorbed if one.priority is not None]
    debts = [own.waiting_since, *(one.waiting_since for one in absorbed)]
    waiting = [since for since in debts if since is not None]
    return {
        "own": own,
        "absorbed": absorbed,
        "opened_at": min([own.opened_at, *(one.opened_at for one in absorbed)]),
        "entered_at": min([own.entered_at, *entered]),
        "priority": min([own.priority, *urgency]),
        "waiting_since": min(waiting, default=None),
        "unanswered": own.unanswered + sum(one.unanswered for one in absorbed),
    }


def forget(story: Story, conversation_ids: Iterable[str]) -> None:
    """Drop the facts that came from the cases of some conversations, from what others bring too."""
    sources = frozenset(conversation_ids)
    ticket = story.ticket
    gone = {name for one in ticket.absorbed if one.conversation_id in sources for name in one.facts}
    if gone:
        story.change(
            facts={name: value for name, value in ticket.facts.items() if name not in gone},
            absorbed=tuple(
                structs.replace(one, facts={}) if one.conversation_id in sources else one
                for one in ticket.absorbed
            ),
        )


def depth(ticket: Ticket) -> int:
    """Return through how many tickets a message comes at most before it reaches this one."""
    return max((one.depth + 1 for one in ticket.absorbed), default=0)


def size(tags: Iterable[str], facts: Mapping[str, str]) -> int:
    """Return how many bytes tags and facts take as JSON."""
    return len(json.dumps([list(tags), dict(facts)], ensure_ascii=False).encode())
