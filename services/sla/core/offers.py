"""A ticket's way to a person: how long until somebody is asked, and how long until they take it.

- `time_to_offer` runs from when the ticket begins to wait, and again from when an offer came to nothing, to the offer.
- `time_to_accept` runs from the offer to the assignment. Of several offers at once the oldest has the clock; when the last of
  them is over it ends, for the reason that was told.

Assignment tells of this on a topic of its own, so its facts and those of the ticket may cross. What counts is when they happened.
A stay is a request for work; what is heard of an earlier one changes nothing. While the ticket waits for somebody else, or for
nobody, no clock is left open: what is heard late ends when that began, and what is heard too early waits (`is_ahead`).
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec.structs import replace

from hours.calendar import CalendarError
from schemas.routing import (
    OfferMade,
    OfferWithdrawn,
    RoutingEvent,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    WorkReleased,
)
from schemas.sla import TargetKind
from services.sla.core import targets
from services.sla.core.book import Book, Ignored, Turn, cancelled, each, instant, started, then
from services.sla.core.state import ROUTING_KINDS, Cancelled, Offer, Target, Ticket, Work
from services.sla.core.targets import Step

WAITED_MAX: Final = timedelta(days=3650)
"""The longest wait for an offer that is believed; a ticket's opening bounds it more closely."""

STAYS_MAX: Final = 4
"""Earlier stays of a ticket whose stragglers are known for what they are."""

OFFERS_MAX: Final = 16
"""Offers of one stay that are told apart; of more, the oldest are."""


def happened_at(event: RoutingEvent) -> datetime:
    """When it happened, by assignment's clock, in UTC.

    Raises:
        CalendarError: it lies at the very end of what can be said, where UTC has no name for it.
    """
    match event:
        case OfferMade():
            at = event.offered_at
        case TicketAssigned():
            at = event.assigned_at
        case TicketQueued() | TicketRequeued() | OfferWithdrawn() | WorkReleased():
            at = event.at
        case _:
            at = getattr(event, "at", datetime.max.replace(tzinfo=UTC))
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise CalendarError("at", at, "an instant from 1900 to 2500") from error


def is_ahead(ticket: Ticket, event: RoutingEvent) -> bool:
    """Whether an event happened after the last that was heard of the ticket itself, by which nobody is sought for it.

    So it is where a customer's message brings a solved ticket back, and assignment is heard of first. What begins a stay then, and
    all that follows in it, waits: the ticket's side may be told in a moment.
    """
    since = ticket.unrouted_at
    return since is not None and happened_at(event) > since


def begins_stay(event: RoutingEvent) -> bool:
    """Whether an event may be the first of a stay."""
    return isinstance(event, TicketQueued | OfferMade)


def routed(book: Book, event: RoutingEvent) -> Turn:
    """What assignment did with a ticket that is known."""
    at = instant(happened_at(event), book.now)
    if isinstance(event, WorkReleased):
        return Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)
    if not isinstance(
        event, TicketQueued | TicketRequeued | OfferMade | TicketAssigned | OfferWithdrawn
    ):
        return Turn(book.ticket, ignored=Ignored.NOT_OURS)
    work = book.ticket.work
    is_other = work is not None and work.work_id != event.work_id
    if work is not None and is_other and (event.work_id in work.past or at < work.since):
        return Turn(book.ticket, ignored=Ignored.STAY_PAST)
    turn = _in_stay(book, event.work_id, at)
    turn = then(turn, _went_on(book._replace(ticket=turn.ticket), event, at))
    since = turn.ticket.unrouted_at
    if since is None:
        return turn
    # Heard after the ticket moved on: what it began ended then, and its verdict is what it would have been.
    here = book._replace(ticket=turn.ticket)
    return then(turn, cancelled(here, ROUTING_KINDS, since, "moved_on"))


def _went_on(
    book: Book,
    event: TicketQueued | TicketRequeued | OfferMade | TicketAssigned | OfferWithdrawn,
    at: datetime,
) -> Turn:
    """What happened in the ticket's present stay."""
    match event:
        case TicketQueued():
            return _waits(book, at)
        case TicketRequeued():
            return _waits_again(book, event.reason, at)
        case OfferMade():
            return _offered(book, event.agent_id, _waited(event.waited_seconds), at)
        case TicketAssigned():
            return _taken(book, at)
        case OfferWithdrawn():
            return _withdrawn(book, event.agent_id, event.reason, at)


def unrouted(book: Book, at: datetime, reason: str, told_at: datetime) -> Turn:
    """Nobody is sought for the ticket from `at` on.

    A stay that began after that was told, at `told_at`, and was heard of first, is a later one: it goes on.
    """
    work = book.ticket.work
    if work is not None and work.began is not None and work.began > told_at:
        return _over(book, ROUTING_KINDS, at, reason, since=work.began)
    turn = _over(book, ROUTING_KINDS, at, reason)
    work = turn.ticket.work
    if work is not None:
        work = replace(work, offers=())
    return turn._replace(ticket=replace(turn.ticket, unrouted_at=at, work=work))


def _in_stay(book: Book, work_id: str, at: datetime) -> Turn:
    """The ticket in the stay of `work_id`, which is a new one where it is not the present one."""
    work = book.ticket.work
    if work is not None and work.work_id == work_id:
        began = None if work.began is None else min(work.began, at)
        kept = replace(work, since=max(work.since, at), began=began)
        return Turn(replace(book.ticket, work=kept))
    past = () if work is None else (*work.past, work.work_id)[-STAYS_MAX:]
    turn = _over(book, ROUTING_KINDS, at, "moved")
    return turn._replace(ticket=replace(turn.ticket, work=Work(work_id, at, began=at, past=past)))


def _waits(book: Book, at: datetime) -> Turn:
    work = book.ticket.work
    assert work is not None  # `_in_stay` saw to it.
    if work.has_waited or work.is_taken:
        return Turn(book.ticket, ignored=Ignored.NOTHING_RUNS)  # Heard late: it was offered since.
    return started(book._replace(ticket=_with(book.ticket, has_waited=True)), "time_to_offer", at)


def _waits_again(book: Book, reason: str, at: datetime) -> Turn:
    turn = _over(book, ("time_to_accept",), at, reason)
    ticket = _with(turn.ticket, has_waited=True, is_taken=False, offers=())
    turn = turn._replace(ticket=ticket)
    is_over = ticket.unrouted_at is not None and ticket.unrouted_at <= at
    if is_over or ticket.open_target("time_to_offer") is not None:
        return turn
    return then(turn, started(book._replace(ticket=ticket), "time_to_offer", at))


def _offered(book: Book, agent_id: str, waited: timedelta, at: datetime) -> Turn:
    work = book.ticket.work
    assert work is not None  # `_in_stay` saw to it.
    if work.is_taken:
        return Turn(book.ticket, ignored=Ignored.NOTHING_RUNS)  # Heard late: it was taken since.
    turn = Turn(book.ticket)
    if not work.has_waited:
        # Somebody was free at once, so nobody was told that it waits. In a later stay it did not wait for this offer.
        is_first = not book.ticket.counts.get("time_to_offer")
        since = max(at - waited, book.ticket.opened_at) if is_first else at
        book = book._replace(ticket=_with(book.ticket, has_waited=True))
        turn = started(book, "time_to_offer", min(since, at))
        book = book._replace(ticket=turn.ticket)
    turn = then(turn, _met(book, "time_to_offer", at))
    others = (one for one in work.offers if one.agent_id != agent_id)
    offers = sorted((*others, Offer(agent_id, at)), key=lambda one: (one.offered_at, one.agent_id))
    ticket = _with(turn.ticket, offers=tuple(offers[:OFFERS_MAX]))
    if ticket.open_target("time_to_accept") is not None:
        return turn._replace(ticket=ticket)
    return then(turn, started(book._replace(ticket=ticket), "time_to_accept", at))


def _waited(seconds: float) -> timedelta:
    """A wait as it was told; what no clock can have counted is the nearest that one can."""
    if not seconds > 0:
        return timedelta(0)
    return timedelta(seconds=min(seconds, WAITED_MAX.total_seconds()))


def _taken(book: Book, at: datetime) -> Turn:
    turn = _met(book, "time_to_offer", at)  # Where nobody is asked, the offer is the assignment.
    turn = then(turn, _met(book._replace(ticket=turn.ticket), "time_to_accept", at))
    ticket = _with(turn.ticket, has_waited=True, is_taken=True, offers=())
    return turn._replace(ticket=ticket)


def _withdrawn(book: Book, agent_id: str, reason: str, at: datetime) -> Turn:
    work = book.ticket.work
    assert work is not None  # `_in_stay` saw to it.
    offers = tuple(one for one in work.offers if one.agent_id != agent_id)
    turn = Turn(_with(book.ticket, offers=offers))
    if reason == "taken_by_other" or (offers and reason != "work_ended"):
        return turn  # The assignment meets it; or somebody is still asked.
    kinds = ROUTING_KINDS if reason == "work_ended" else ROUTING_KINDS[1:]
    return _over(book._replace(ticket=turn.ticket), kinds, at, reason)


def _met(book: Book, kind: str, at: datetime) -> Turn:
    latest = next((one for one in reversed(book.ticket.targets) if one.kind == kind), None)

    def meet(target: Target) -> Step:
        if target is not latest or at < target.watch.started_at:
            return Step(target)
        calendar = book.policy.calendar(target.calendar)
        if not target.is_open:
            return targets.reconsider(book.subject, target, at, book.now, calendar)
        return targets.meet(book.subject, target, at, book.now, calendar)

    return each(book.ticket, meet)


def _over(
    book: Book,
    kinds: Iterable[TargetKind],
    at: datetime,
    reason: str,
    since: datetime | None = None,
) -> Turn:
    """End the open clocks of `kinds` at `at`, but those that were started at `since` or later.

    One that has ended already did so by what happened later and was heard of first: if it was found broken by that, it was not.
    """

    def stop(target: Target) -> Step:
        if since is not None and target.watch.started_at >= since:
            return Step(target)
        if target.is_open:
            return targets.cancel(book.subject, target, at, book.now, reason)
        if not isinstance(target.phase, Cancelled):
            return Step(target)
        calendar = book.policy.calendar(target.calendar)
        return targets.reconsider(book.subject, target, at, book.now, calendar)

    return each(book.ticket, stop, kinds)


def _with(ticket: Ticket, **changes: object) -> Ticket:
    assert ticket.work is not None  # `_in_stay` saw to it.
    return replace(ticket, work=replace(ticket.work, **changes))
