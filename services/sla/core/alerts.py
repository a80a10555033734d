"""What of a decision is somebody's alarm, and what ends one.

Owns the way from facts to alerts. An alert is a clock's (its key is the target's id: a risk that becomes a breach is the same
alert, only worse) or a ticket's (`ticket/event`). Ends are told of whatever may have fired, and returns of whatever may have
ended; the store drops those of alerts that never did.
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
    TargetResumed,
    TargetRetargeted,
    TargetStarted,
)
from schemas.tickets import (
    TicketClosed,
    TicketMerged,
    TicketOwnerForced,
    TicketPaged,
    TicketSolved,
    TicketStatusChanged,
    TicketUnmerged,
)
from services.sla.core.pages import Event, Pages, Severity, group_key
from services.sla.core.state import Conversation, Running, Target, Ticket

CLOCKS: Final = "sla"
"""The family of the alerts of clocks: breaches and risks of one group are told in one message."""

WAITING: Final[tuple[Event, ...]] = ("exhausted", "overloaded", "unmatchable")
"""The alerts of a ticket that waits; they end when somebody has it."""

LASTING: Final[tuple[Event, ...]] = ("paged", "owner_forced")
"""The alerts of a ticket that come back with it, when it turns out not to be spam or its merge is undone."""

OF_TICKETS: Final[tuple[Event, ...]] = (*LASTING, *WAITING)

SPAM: Final = "spam"
MERGED: Final = "merged into another case"
"""The notes of the two ends that can be undone."""

UNDERSTOOD: Final = frozenset(
    kind.TYPE
    for kind in (
        TicketPaged,
        TicketOwnerForced,
        TicketSolved,
        TicketClosed,
        TicketMerged,
        TicketUnmerged,
        TicketStatusChanged,
        AssignmentExhausted,
        QueueOverloaded,
        TicketQueued,
        TicketAssigned,
        WorkReleased,
    )
)
"""The event types that fire or end an alert of a ticket."""

_QUIET: Final = frozenset({TargetStarted})
"""What is told of a clock, and neither fires nor ends an alert."""


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


class Return(msgspec.Struct, frozen=True, kw_only=True, tag="return"):
    """An alert is there again, if it ended with the note `ended_by`: what ended it was undone."""

    alert_key: str
    at: datetime
    ended_by: str


Change = Fire | End | Return


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
        if type(one) not in _QUIET:
            found += _of_clock(pages, one, ticket(one.ticket_id), now)
    if event is not None and event.TYPE in UNDERSTOOD:
        ticket_id = str(getattr(event, "ticket_id", ""))
        found += _of_ticket(pages, event, ticket_id, ticket(ticket_id), now)
    return tuple(found)


def settled(all_changes: Iterable[Change]) -> tuple[Change, ...]:
    """Many changes in order without those that change nothing, whatever the alert was: ends of what has just ended.

    What a batch says again of an alert that has ended is common (solved, then closed) and would be a row each.
    """
    kept: list[Change] = []
    ended: set[str] = set()
    for change in all_changes:
        key = change.alert_key
        if not isinstance(change, End):
            ended.discard(key)
        elif key in ended:
            continue
        elif change.only is None:
            ended.add(key)
        kept.append(change)
    return tuple(kept)


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
        case TargetResumed():
            yield from _again(pages, event, ticket, now)
        case TargetRetargeted():
            stands = tuple(_again(pages, event, ticket, now))
            yield from stands
            if not stands:
                yield End(alert_key=key, at=now, note="held to another deadline", only="at_risk")


def _again(pages: Pages, event: SlaEvent, ticket: Ticket | None, now: datetime) -> Iterator[Change]:
    """What a clock that goes on is called for: the breach that stands, or the warning that was told of it.

    Its alert may have ended with what held the clock (a pause, spam, a merge); one that did not is told nothing new.
    """
    target = _target_of(ticket, event.target_id)
    if target is None or not target.is_open:
        return
    if target.breach is not None:
        since = target.breach.breached_at
        yield from _clock_fires(pages, event, "breached", since, ticket, now)
    elif target.is_warned and isinstance(target.phase, Running):
        yield from _clock_fires(pages, event, "at_risk", now, ticket, now)


def _target_of(ticket: Ticket | None, target_id: str) -> Target | None:
    targets = () if ticket is None else ticket.targets
    return next((one for one in targets if one.target_id == target_id), None)


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
) -> Iterator[Change]:
    fired: tuple[Fire, ...] = ()
    if pages.calls(what):
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
        fired = tuple(_fire(pages, event.target_id, what, labels, ticket, since, now))
    yield from fired
    if what == "breached" and not fired and _may_be_warned(ticket, event.target_id):
        # Who was told of the risk must not be left with it.
        note = "broken by now; no route tells of that"
        yield End(alert_key=event.target_id, at=now, note=note, only="at_risk")


def _may_be_warned(ticket: Ticket | None, target_id: str) -> bool:
    """Whether somebody may have been called for the risk of a clock; of one that is not known, anybody may."""
    target = _target_of(ticket, target_id)
    return target is None or target.is_warned


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
        case _:
            yield from _undone(event, ticket_id, now)
    if what is not None:
        labels["event"] = what
        labels["queue"] = str(getattr(event, "queue", "")) or labels["queue"]
        since = getattr(event, "at", None) or now
        yield from _fire(pages, f"{ticket_id}/{what}", what, labels, ticket, min(since, now), now)


def _undone(event: Payload, ticket_id: str, now: datetime) -> Iterator[Change]:
    """What an event ends of a ticket's alerts, or has come back."""
    match event:
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
            yield from _ends(ticket_id, OF_TICKETS, now, MERGED)
        case TicketUnmerged():
            yield from _returns(ticket_id, now, MERGED)
        case TicketStatusChanged(status="spam"):
            yield from _ends(ticket_id, OF_TICKETS, now, SPAM)
        case TicketStatusChanged(before="spam"):
            yield from _returns(ticket_id, now, SPAM)


def _ends(ticket_id: str, events: Iterable[Event], now: datetime, note: str) -> Iterator[End]:
    for event in events:
        yield End(alert_key=f"{ticket_id}/{event}", at=now, note=note)


def _returns(ticket_id: str, now: datetime, ended_by: str) -> Iterator[Return]:
    for event in LASTING:
        yield Return(alert_key=f"{ticket_id}/{event}", at=now, ended_by=ended_by)


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
    if route is None or not route.receivers:
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
