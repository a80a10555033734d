"""What holds a ticket's clocks, what lets them go, and what sets the whole ticket aside."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from schemas.tickets import TicketStatusChanged
from services.sla.core import targets
from services.sla.core.book import Book, Turn, each, each_open, then
from services.sla.core.policy import Policy
from services.sla.core.state import KINDS, PASSING, Held, Target, Ticket
from services.sla.core.targets import Step

HOLDING: Final = ("pending", "on_hold")
"""The statuses that hold clocks."""

HELD_MAX: Final = 32
"""Times at which a ticket was held that are known for clocks that begin or come back late; of more, the latest."""


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
    turn = each_open(_noted(replace(book.ticket, causes=causes), cause, at), hold)
    return then(turn, freed(book._replace(ticket=turn.ticket), before, at)) if before else turn


def freed(book: Book, freed_of: Iterable[str], at: datetime) -> Turn:
    """The ticket waits no more for those whom `freed_of` names; its clocks run on once nobody is left."""
    gone = tuple(freed_of)
    causes = tuple(cause for cause in book.ticket.causes if cause not in gone)
    turn = Turn(replace(let_go(book.ticket, gone, at), causes=causes))
    for cause in gone:

        def free(target: Target, cause: str = cause) -> Step:
            calendar = book.policy.calendar(target.calendar)
            return targets.resume(book.subject, target, cause, at, calendar)

        turn = then(turn, each_open(turn.ticket, free))
    return turn


def let_go(ticket: Ticket, causes: Iterable[str], at: datetime) -> Ticket:
    """The ticket with an end to what `causes` held; its clocks are not touched."""
    gone = tuple(causes)
    held = tuple(
        replace(one, until=max(at, one.since)) if one.until is None and one.cause in gone else one
        for one in ticket.held
    )
    return replace(ticket, held=held)


def _noted(ticket: Ticket, cause: str, at: datetime) -> Ticket:
    if any(one.cause == cause and one.until is None for one in ticket.held):
        return ticket
    return replace(ticket, held=(*ticket.held, Held(cause, at))[-HELD_MAX:])


def stood_meanwhile(target: Target, held: Iterable[Held], pauses_on: Iterable[str]) -> Target:
    """A clock that had ended, with the pauses that it would have had since; what held it then is over where it is over."""
    gone_at, watch = target.settled_at, target.watch
    assert gone_at is not None  # Only what has ended comes back.
    known = tuple(held)
    for cause, since in watch.holds:
        covering = next(
            (
                one
                for one in known
                if one.cause == cause and (one.until is None or one.until >= since)
            ),
            None,
        )
        if covering is None or covering.until is not None:
            ended_at = gone_at if covering is None else covering.until
            watch = watch.resume(cause, ended_at or gone_at)
    wanted = tuple(pauses_on)
    for one in known:
        begun_at = max(one.since, gone_at)
        if targets.is_held_by(wanted, one.cause) and (one.until is None or one.until > begun_at):
            watch = watch.pause(one.cause, begun_at)
            watch = watch if one.until is None else watch.resume(one.cause, one.until)
    return replace(target, watch=watch)


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
