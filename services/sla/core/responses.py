"""What customers wrote and what they were answered: the clocks of responses."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from services.sla.core import targets
from services.sla.core.book import Book, Turn, each, started, then
from services.sla.core.state import RESPONSES, Target, Ticket
from services.sla.core.targets import Step

WAITING_MAX: Final = 100
"""Unanswered messages whose instants are kept; of more than that, the oldest and the latest."""

LENT_WAITING_MAX: Final = 20
"""The same for each case that was merged into the ticket: there may be many of those."""


def answered(book: Book, at: datetime) -> Turn:
    """An answer meets what it can, and takes back breaches that it proves wrong."""

    def answer(target: Target) -> Step:
        given_at = max(at, book.ticket.opened_at) if target.kind == "first_response" else at
        if not target.is_open:
            calendar = book.policy.calendar(target.calendar)
            return targets.reconsider(book.subject, target, given_at, book.now, calendar)
        if given_at < target.watch.started_at:
            return Step(target)  # Given before the message that is waiting: they crossed.
        calendar = book.policy.calendar(target.calendar)
        return targets.meet(book.subject, target, given_at, book.now, calendar)

    turn = each(book.ticket, answer, RESPONSES)
    latest_at = max(at, turn.ticket.answered_at or at)
    ticket = replace(still_owed(turn.ticket, at), is_first_settled=True, answered_at=latest_at)
    return then(turn, next_started(book._replace(ticket=ticket)))


def still_owed(ticket: Ticket, answered_at: datetime | None) -> Ticket:
    """The ticket with the messages only that were written after an answer; with none, if the answer is None."""

    def after(waiting: Iterable[datetime]) -> tuple[datetime, ...]:
        return tuple(one for one in waiting if answered_at is not None and one > answered_at)

    sources = tuple(replace(one, waiting=after(one.waiting)) for one in ticket.sources)
    return replace(ticket, waiting=after(ticket.waiting), sources=sources)


def customer_wrote(
    book: Book, at: datetime, from_conversation_id: str | None = None, *, reopens: bool = False
) -> Turn:
    """A message waits; one that was carried here is owed on behalf of the case that it was written in.

    One that is heard of after an answer that was given later counts as answered, as it would have been in the other order; but
    what brings a case back is owed an answer, whenever it was written.
    """
    ticket = book.ticket
    if all(one.conversation_id != from_conversation_id for one in ticket.sources):
        written_at = max(at, ticket.opened_at)
        if not reopens and ticket.answered_at is not None and written_at <= ticket.answered_at:
            return next_started(book)
        waiting = with_message(ticket.waiting, written_at, WAITING_MAX)
        return next_started(book._replace(ticket=replace(ticket, waiting=waiting)))
    sources = tuple(
        replace(one, waiting=with_message(one.waiting, at, LENT_WAITING_MAX))
        if one.conversation_id == from_conversation_id
        else one
        for one in ticket.sources
    )
    return next_started(book._replace(ticket=replace(ticket, sources=sources)))


def with_message(
    waiting: Iterable[datetime], written_at: datetime, at_most: int
) -> tuple[datetime, ...]:
    """The instants with one more, in order; of too many, the oldest and the latest."""
    kept = sorted({*waiting, written_at})
    if len(kept) > at_most:
        del kept[at_most - 1 : -1]
    return tuple(kept)


def next_started(book: Book) -> Turn:
    """Start the clock of the oldest unanswered message, unless a response is owed already, or nothing is at present.

    After the first of these clocks they go by what is promised of later responses, where that is promised apart.
    """
    ticket = book.ticket
    owed = any(ticket.open_target(kind) is not None for kind in RESPONSES)
    if owed or ticket.is_aside or not ticket.owed or not ticket.is_first_settled:
        return Turn(ticket)
    is_later = ticket.counts.get("next_response") and book.target_rule("later_response")
    return started(book, "later_response" if is_later else "next_response", ticket.owed[0])
