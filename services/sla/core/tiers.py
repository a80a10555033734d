"""The operational agreement: each tier's budget of the time that the customer was promised.

A clock runs while the ticket is in one of the tier's queues. Leaving meets it; coming back goes on with what was left. A budget
that was broken is broken once: the tier has no clock for this ticket any more.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from services.sla.core import targets
from services.sla.core.book import Book, Turn, put, started
from services.sla.core.state import Ticket


def entered(book: Book, at: datetime) -> Turn:
    """The ticket is in its queue from `at`: the clock of that queue's tier runs, if it has one."""
    ticket = book.ticket
    tier = book.policy.tiers.get(ticket.queue)
    if tier is None or ticket.open_target("tier") is not None or ticket.is_aside:
        return Turn(ticket)
    rule = book.target_rule("tier", tier)
    if rule is None or any(one.tier == tier and one.breach is not None for one in ticket.targets):
        return Turn(ticket)
    left = max(rule.allowed - ticket.tier_spent.get(tier, timedelta(0)), timedelta(0))
    return started(book, "tier", at, left, tier=tier)


def left(book: Book, at: datetime) -> Turn:
    """The ticket leaves its queue at `at`: the tier did its part."""
    target = book.ticket.open_target("tier")
    if target is None:
        return Turn(book.ticket)
    ticket = with_spent(book, at)
    calendar = book.policy.calendar(target.calendar)
    step = targets.meet(book.subject, target, at, book.now, calendar)
    return Turn(put(ticket, step.target), step.events)


def with_spent(book: Book, at: datetime) -> Ticket:
    """The ticket with what the running clock has used of its tier's budget until `at`."""
    target = book.ticket.open_target("tier")
    if target is None:
        return book.ticket
    elapsed = target.watch.elapsed(book.policy.calendar(target.calendar), at)
    spent = book.ticket.tier_spent
    before = spent.get(target.tier, timedelta(0))
    return replace(book.ticket, tier_spent={**spent, target.tier: before + elapsed})
