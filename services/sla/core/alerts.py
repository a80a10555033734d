"""What of a decision is somebody's alarm, and what ends one.

Owns the way from facts to alerts. An alert is a clock's (its key is the target's id: a risk that becomes a breach is the same
alert, only worse) or a ticket's (`ticket/event`). Ends are told of whatever may have fired; the store drops those of alerts
that never did.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec

from schemas.payload import Payload
from schemas.routing import (
    AssignmentExhausted,
    QueueOverloaded,
    TicketAssigned,
    TicketQueued,
    WorkReleased,
)
from schemas.sla import (
    BreachRetracted,
    SlaEvent,
    TargetAtRisk,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetPaused,
    TargetRetargeted,
)
from schemas.tickets import (
    TicketClosed,
    TicketMerged,
    TicketOwnerForced,
    TicketPaged,
    TicketSolved,
    TicketStatusChanged,
)
from services.sla.core.pages import Event, Pages, Severity, group_key
from services.sla.core.state import Conversation, Ticket

CLOCKS: Final = "sla"
"""The family of the alerts of clocks: breaches and risks of one group are told in one message."""

WAITING: Final[tuple[Event, ...]] = ("exhausted", "overloaded", "unmatchable")
"""The alerts of a ticket that waits; they end when somebody has it."""

OF_TICKETS: Final[tuple[Event, ...]] = ("paged", "owner_forced", *WAITING)

UNDERSTOOD: Final = frozenset(
    kind.TYPE
    for kind in (
        TicketPaged,
        TicketOwnerForced,
        TicketSolved,
        TicketClosed,
        TicketMerged,
        TicketStatusChanged,
        AssignmentExhausted,
        QueueOverloaded,
        TicketQueued,
        TicketAssigned,
        WorkReleased,
    )
)
"""The event types that fire or end an alert of a ticket."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person should know of: what, since when, whose, and in which group it is told to whom.

    `labels` are all that it can be grouped by, `group` those that it is. `number` is the ticket's, where it is known.
    """

    alert_key: str
    event: Event
    severity: Severity
    route: str
    receivers: tuple[str, ...]
    group_key: str
    group: dict[str, str]
    labels: dict[str, str]
    ticket_id: str
    number: int | None
    since: datetime

    @property
    def family(self) -> str:
        """What is told together, beside the labels: both alerts of clocks, and each other event by itself."""
        return family_of(self.event)


class Fire(msgspec.Struct, frozen=True, kw_only=True, tag="fire"):
    """An alert is there, or is worse than it was; noticed `at`."""

    alert: Alert
    at: datetime

    @property
    def alert_key(self) -> str:
        """Whose change this is."""
        return self.alert.alert_key


class End(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """An alert is over; `note` says why. With `only`, if it is still about that event."""

    alert_key: str
    at: datetime
    note: str
    only: Event | None = None


Change = Fire | End


def family_of(event: Event) -> str:
    """The family of an event's alerts."""
    return CLOCKS if event in ("breached", "at_risk") else event


def changes(
    pages: Pages,
    event: Payload | None,
    told: Iterable[SlaEvent],
    state: Conversation | None,
    now: datetime,
) -> tuple[Change, ...]:
    """What an event, and what was told of it, fires and ends. `state` is where its tickets can be looked up."""

    def ticket(ticket_id: str) -> Ticket | None:
        return None if state is None else state.ticket(ticket_id)

    found: list[Change] = []
    for one in told:
        found += _of_clock(pages, one, ticket(one.ticket_id), now)
    if event is not None:
        ticket_id = str(getattr(event, "ticket_id", ""))
        found += _of_ticket(pages, event, ticket_id, ticket(ticket_id), now)
    return tuple(found)


def settled(all_changes: Iterable[Change]) -> tuple[Change, ...]:
    """What is left of many changes in order: one an alert, the last word on it.

    The first of several ends is the reason. An end for one event alone leaves what fired since about another.
    """
    last: dict[str, Change] = {}
    for change in all_changes:
        before = last.get(change.alert_key)
        match before, change:
            case End(only=None), End():
                continue
            case Fire(), End(only=only) if only is not None and only != before.alert.event:
                continue
            case Fire(), Fire() if is_milder(change.alert.event, before.alert.event):
                continue
        last[change.alert_key] = change
    return tuple(last.values())


def is_milder(event: Event, before: Event) -> bool:
    """Whether an alert is told as less than it is: a warning that is heard of after the breach."""
    return event == "at_risk" and before == "breached"


# ------------------------------------------------------------------------------------------ clocks


def _of_clock(
    pages: Pages, event: SlaEvent, ticket: Ticket | None, now: datetime
) -> Iterator[Change]:
    key = event.target_id
    match event:
        case TargetBreached():
            yield from _clock_fires(pages, event, "breached", event.breached_at, ticket, now)
        case TargetAtRisk():
            yield from _clock_fires(pages, event, "at_risk", event.at, ticket, now)
        case BreachRetracted():
            yield End(alert_key=key, at=now, note=_retracted(event))
        case TargetMet():
            late = ", late" if event.was_breached else ""
            yield End(alert_key=key, at=now, note=f"kept at {clock(event.met_at)}{late}")
        case TargetCancelled():
            reason = event.reason.replace("_", " ")
            yield End(alert_key=key, at=now, note=f"not owed any more: {reason}")
        case TargetPaused():
            cause = event.cause.replace("_", " ")
            yield End(alert_key=key, at=now, note=f"the clock stands: {cause}", only="at_risk")
        case TargetRetargeted():
            yield End(alert_key=key, at=now, note="held to another deadline", only="at_risk")


def _retracted(event: BreachRetracted) -> str:
    if event.answered_at < event.breached_at:
        return f"retracted: answered in time at {clock(event.answered_at)}"
    return "retracted: the promise was not broken"


def _clock_fires(
    pages: Pages,
    event: SlaEvent,
    what: Event,
    since: datetime,
    ticket: Ticket | None,
    now: datetime,
) -> Iterator[Fire]:
    labels = {
        **_about(ticket),
        "event": what,
        "target": event.target,
        "policy": event.policy,
        "tier": event.tier,
        "ticket": event.ticket_id,
    }
    told = {"queue": event.queue, "channel": event.channel}
    labels |= {name: value for name, value in told.items() if value}
    if event.priority is not None:
        labels["priority"] = str(event.priority)
    yield from _fire(pages, event.target_id, what, labels, ticket, since, now)


# ----------------------------------------------------------------------------------------- tickets


def _of_ticket(
    pages: Pages, event: Payload, ticket_id: str, ticket: Ticket | None, now: datetime
) -> Iterator[Change]:
    what: Event | None = None
    labels = {**_about(ticket), "target": "", "tier": "", "ticket": ticket_id}
    match event:
        case TicketPaged():
            what = "paged"
            labels |= {
                "queue": event.queue,
                "priority": str(event.priority),
                "policy": event.on_call,
            }
        case TicketOwnerForced():
            what = "owner_forced"
        case AssignmentExhausted():
            what = "exhausted"
        case QueueOverloaded():
            what = "overloaded"
        case TicketQueued(is_matchable=False):
            what = "unmatchable"
        case TicketQueued():
            yield from _ends(ticket_id, ("unmatchable",), now, "somebody could take it again")
        case TicketAssigned():
            yield from _ends(ticket_id, WAITING, now, "somebody has it")
        case WorkReleased():
            yield from _ends(ticket_id, WAITING, now, "nobody is needed any more")
        case TicketSolved():
            yield from _ends(ticket_id, OF_TICKETS, now, "solved")
        case TicketClosed():
            yield from _ends(ticket_id, OF_TICKETS, now, "closed")
        case TicketMerged():
            yield from _ends(ticket_id, OF_TICKETS, now, "merged into another case")
        case TicketStatusChanged(status="spam"):
            yield from _ends(ticket_id, OF_TICKETS, now, "spam")
    if what is not None:
        labels["event"] = what
        labels["queue"] = str(getattr(event, "queue", "")) or labels["queue"]
        since = getattr(event, "at", None) or now
        yield from _fire(pages, f"{ticket_id}/{what}", what, labels, ticket, min(since, now), now)


def _ends(ticket_id: str, events: Iterable[Event], now: datetime, note: str) -> Iterator[End]:
    for event in events:
        yield End(alert_key=f"{ticket_id}/{event}", at=now, note=note)


def _about(ticket: Ticket | None) -> dict[str, str]:
    """What is known of a ticket by its clocks; empty where it has none."""
    if ticket is None:
        return dict.fromkeys(("queue", "channel", "priority", "customer_tier", "policy"), "")
    return {
        "queue": ticket.queue,
        "channel": ticket.channel,
        "priority": str(ticket.priority),
        "customer_tier": ticket.facts.customer_tier,
        "policy": ticket.policy,
    }


def _fire(
    pages: Pages,
    key: str,
    event: Event,
    labels: dict[str, str],
    ticket: Ticket | None,
    since: datetime,
    now: datetime,
) -> Iterator[Fire]:
    route = pages.route(labels)
    if route is None:
        return
    group = {str(name): labels[name] for name in route.group_by}
    alert = Alert(
        alert_key=key,
        event=event,
        severity=route.severity,
        route=route.name,
        receivers=route.receivers,
        group_key=group_key(family_of(event), group),
        group=group,
        labels=labels,
        ticket_id=labels["ticket"],
        number=None if ticket is None else ticket.number,
        since=since,
    )
    yield Fire(alert=alert, at=now)


def clock(at: datetime) -> str:
    """An instant as people on call read it: to the second, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
