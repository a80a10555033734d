"""Where the time of a ticket went: waiting in a queue, offered, in somebody's hands, held, or outside opening hours.

Owns what is told of it and when: for each clock of `ATTRIBUTED` that ends, and for a solved ticket as a whole. The record it is
worked out from is `timeline`'s. The shares add up to the time between start and end exactly, in microseconds inside and in
milliseconds outside, where the largest remainders are rounded up.
"""

from datetime import datetime
from typing import Any, Final

from msgspec.structs import replace

from schemas.payload import Payload
from schemas.sla import QueueTime, TargetKind, TimeAttributed
from schemas.tickets import TicketSolved
from services.sla.core import timeline
from services.sla.core.book import Book, Turn, instant
from services.sla.core.state import Met, Target, Ticket
from services.sla.core.timeline import Clock, Spent

ATTRIBUTED: Final[tuple[TargetKind, ...]] = ("first_response", "resolution")
"""The targets whose time is told: the others run within these, and would double the topic."""

ALWAYS: Final = "always"
"""The calendar of a ticket as a whole that was promised nothing: around the clock."""

_MILLISECOND: Final = 1_000


def accounted(book: Book, event: Payload, turn: Turn) -> Turn:
    """The turn with the event noted in the ticket's timeline, and with the time of what it ended.

    `book` has the ticket as it was, `turn` what the event did to it. An event that moves the ticket and none of its clocks is
    not an ignored one.

    Raises:
        CalendarError: an instant that no calendar covers.
    """
    noted = timeline.note(turn.ticket.timeline, event, book.now if book.is_clamped else None)
    if turn.ignored is not None and noted is turn.ticket.timeline:
        return turn
    ticket = turn.ticket
    if noted is not ticket.timeline:
        ticket = replace(ticket, timeline=noted)
    turn = with_time(book, Turn(ticket, turn.events))
    after = book.of(turn.ticket)
    whole = _whole(book, after, event) if isinstance(event, TicketSolved) else ()
    if timeline.is_full(noted):
        folded = timeline.fold(noted, _clocks(after))
        after = after._replace(ticket=replace(after.ticket, timeline=folded))
    return Turn(after.ticket, (*turn.events, *whole))


def with_time(book: Book, turn: Turn) -> Turn:
    """The turn with the time of the clocks that it ended, or ended at another instant; `book` has the ticket as it was."""
    after = book.of(turn.ticket)
    ended = tuple(
        attributed(after, target)
        for target in turn.ticket.targets
        if not target.is_open and target.kind in ATTRIBUTED and _has_ended(book.ticket, target)
    )
    return turn._replace(events=(*turn.events, *ended)) if ended else turn


def attributed(book: Book, target: Target) -> TimeAttributed:
    """Where the time of a settled target went."""
    assert target.settled_at is not None
    clock = _clock(book, target)
    return _told(
        book,
        clock,
        target.settled_at,
        target=target.kind,
        policy=target.policy,
        policy_version=target.policy_version,
        calendar=target.calendar,
        outcome="met" if isinstance(target.phase, Met) else "cancelled",
        was_breached=target.breach is not None,
    )


def in_milliseconds(spent: Spent) -> dict[str, Any]:
    """The shares as the event has them: whole milliseconds that add up to `elapsed_ms`."""
    kept = timeline.limited(spent)
    total = kept.total // _MILLISECOND
    parts = (*(share.micros for share in kept.shares), kept.paused, kept.closed)
    *shares, pause_ms, closed_ms = timeline.proportional(parts, total)
    queues: dict[str, dict[str, int]] = {}
    for share, milliseconds in zip(kept.shares, shares, strict=True):
        of_queue = queues.setdefault(share.queue, {"queue": 0, "offer": 0, "work": 0})
        of_queue[share.where] += milliseconds
    sums = {
        f"{where}_ms": sum(one[where] for one in queues.values())
        for where in ("queue", "offer", "work")
    }
    return {
        **sums,
        "pause_ms": pause_ms,
        "closed_ms": closed_ms,
        "elapsed_ms": total,
        "by_queue": tuple(
            QueueTime(
                queue=queue, queue_ms=one["queue"], offer_ms=one["offer"], work_ms=one["work"]
            )
            for queue, one in queues.items()
        ),
    }


def _has_ended(before: Ticket, target: Target) -> bool:
    """Whether a target is settled that was not, or was otherwise: at another instant, in other hours, with or without a breach."""
    if target.settled_at is None:
        return False
    known = next((one for one in before.targets if one.target_id == target.target_id), None)
    if known is None:
        return True
    return (known.settled_at, known.elapsed, known.breach is None) != (
        target.settled_at,
        target.elapsed,
        target.breach is None,
    )


def _whole(before: Book, book: Book, event: TicketSolved) -> tuple[TimeAttributed, ...]:
    """The time of the whole ticket, unless its resolution has just told the same."""
    ticket = book.ticket
    solved_at = instant(event.occurred_at, book.now)
    resolution = ticket.latest("resolution")
    if (
        resolution is not None
        and resolution.watch.started_at == ticket.opened_at
        and _has_ended(before.ticket, resolution)
    ):
        return ()
    told = _told(
        book,
        _clock_of_ticket(book),
        max(solved_at, ticket.opened_at),
        target="ticket",
        policy=book.rule.name,
        policy_version=book.policy.version,
        calendar=_calendar_of_ticket(ticket),
        outcome="solved",
    )
    return (told,)


def _told(book: Book, clock: Clock, ended_at: datetime, **of_target: Any) -> TimeAttributed:
    ticket = book.ticket
    spent = timeline.spent(ticket.timeline, clock, ended_at)
    fields: dict[str, Any] = {
        "ticket_id": ticket.ticket_id,
        "conversation_id": book.conversation_id,
        "target_id": clock.name,
        "queue": ticket.queue,
        "channel": ticket.channel,
        "priority": ticket.priority,
        "started_at": clock.since,
        "ended_at": ended_at,
        **of_target,
        **in_milliseconds(spent),
    }
    return TimeAttributed(**fields)


def _clocks(book: Book) -> tuple[Clock, ...]:
    """Every clock whose time may still be asked for."""
    targets = (one for one in book.ticket.targets if one.kind in ATTRIBUTED)
    return (_clock_of_ticket(book), *(_clock(book, target) for target in targets))


def _clock(book: Book, target: Target) -> Clock:
    watch = target.watch
    calendar = book.policy.calendar(target.calendar)
    return Clock(target.target_id, watch.started_at, calendar, watch.pauses())


def _clock_of_ticket(book: Book) -> Clock:
    """The ticket as a whole: held in every status in which it waits for nobody of ours."""
    ticket = book.ticket
    calendar = book.policy.calendar(_calendar_of_ticket(ticket))
    pauses = timeline.holds(ticket.timeline, timeline.HOLDING)
    return Clock(ticket.ticket_id, ticket.opened_at, calendar, pauses)


def _calendar_of_ticket(ticket: Ticket) -> str:
    """The calendar of its latest resolution, else of its latest target."""
    latest = ticket.latest("resolution") or next(reversed(ticket.targets), None)
    return ALWAYS if latest is None else latest.calendar
