"""What holds a ticket's clocks, what lets them go, and what sets the whole ticket aside."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from schemas.tickets import TicketStatusChanged
from services.sla.core import targets
from services.sla.core.book import Book, Turn, each, each_open, then
from services.sla.core.policy import Policy
from services.sla.core.state import KINDS, PASSING, Target
from services.sla.core.targets import Step

HOLDING: Final = ("pending", "on_hold")
"""The statuses that hold clocks."""


def cause_of(event: TicketStatusChanged, policy: Policy) -> str:
    """Whom a ticket in a holding status waits for: `pending` the customer, `hold` one of us, `third_party` somebody else.

    `on_hold` where a hold does not say.
    """
    if event.status == "pending":
        return "pending"
    whom = event.waiting_on.strip().lower()
    if not whom:
        return "on_hold"
    return "hold" if whom in policy.internal_waits else "third_party"


def held(book: Book, cause: str, at: datetime) -> Turn:
    """The ticket waits for somebody else, whom `cause` names; what held it before does no more."""
    before = tuple(one for one in book.ticket.causes if one != cause)

    def hold(target: Target) -> Step:
        calendar = book.policy.calendar(target.calendar)
        return targets.pause(book.subject, target, cause, at, book.now, calendar)

    causes = tuple(sorted({*book.ticket.causes, cause}))
    turn = each_open(replace(book.ticket, causes=causes), hold)
    return then(turn, freed(book._replace(ticket=turn.ticket), before, at)) if before else turn


def freed(book: Book, freed_of: Iterable[str], at: datetime) -> Turn:
    """The ticket waits no more for those whom `freed_of` names; its clocks run on once nobody is left."""
    gone = tuple(freed_of)
    causes = tuple(cause for cause in book.ticket.causes if cause not in gone)
    turn = Turn(replace(book.ticket, causes=causes))
    for cause in gone:

        def free(target: Target, cause: str = cause) -> Step:
            calendar = book.policy.calendar(target.calendar)
            return targets.resume(book.subject, target, cause, at, calendar)

        turn = then(turn, each_open(turn.ticket, free))
    return turn


def revived(book: Book, ended: str, at: datetime) -> Turn:
    """What was ended for `ended` was not: the clocks run on, and nothing holds the ticket any more.

    Those of a stay somewhere do not: the ticket comes back by a stay of its own.
    """
    latest = [
        book.ticket.latest(kind)
        for kind in KINDS
        if kind not in PASSING and book.ticket.open_target(kind) is None
    ]

    def revive(target: Target) -> Step:
        if target not in latest:
            return Step(target)
        calendar = book.policy.calendar(target.calendar)
        return targets.revive(book.subject, target, ended, at, calendar)

    turn = each(replace(book.ticket, is_aside=False), revive)
    return then(turn, freed(book._replace(ticket=turn.ticket), turn.ticket.causes, at))


def aside(book: Book) -> Book:
    """The ticket with nothing owed at present."""
    return book._replace(ticket=replace(book.ticket, is_aside=True))
