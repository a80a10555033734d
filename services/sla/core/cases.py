"""One row a ticket, for reports and gauges: how each event changes it.

Owns the shape of a change and how several changes of one ticket come to one. A change is told by the
event alone, without the row: so nothing has to be read before it is written, and a batch writes each
ticket once. The rows decide nothing.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol

import msgspec

from schemas.payload import Payload
from schemas.sla import SlaEvent, TargetMet
from schemas.tickets import (
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketClosed,
    TicketCustomerDescribed,
    TicketEscalated,
    TicketEvent,
    TicketMerged,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketReturned,
    TicketSolved,
    TicketStatusChanged,
    TicketUnmerged,
)

CaseStatus = Literal["open", "solved", "closed", "spam", "merged"]

ASIDE: Final = frozenset({"spam", "merged"})
"""Where a ticket ended without being solved; closing it afterwards does not change that."""

Stretch = tuple[datetime, datetime | None]
"""Open from, and until; None: still open."""


AGES: Final = ("0", "1h", "4h", "1d", "3d", "7d", "30d")
"""The ages that the backlog is counted above."""


class OpenTargets(NamedTuple):
    """The open targets of a queue, a kind and a status; `longest` is the oldest one's age in seconds."""

    queue: str
    kind: str
    status: str
    n: int
    longest: float


class Backlog(NamedTuple):
    """A queue's open tickets: the oldest one's age in seconds, and how many are older than each of `AGES`."""

    queue: str
    oldest: float
    older: tuple[int, ...]


class _Dated(Protocol):
    """An event of a ticket that tells when it happened, and when that was told."""

    @property
    def occurred_at(self) -> datetime: ...
    @property
    def at(self) -> datetime: ...


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket's row as it is made."""

    reference: str
    queue: str
    channel: str
    account: str
    priority: int
    language: str | None
    customer_tier: str | None
    opened_at: datetime


class CaseChange(msgspec.Struct, frozen=True, kw_only=True):
    """What one event, or several in order, change of a ticket's row. None leaves a field as it is.

    `cut_at` ends the stretch that was open before, `stretches` are those that begin in the change.
    """

    ticket_id: str
    conversation_id: str
    opening: Opening | None = None
    queue: str | None = None
    priority: int | None = None
    is_described: bool = False
    customer_tier: str | None = None
    status: CaseStatus | None = None
    first_answered_at: datetime | None = None
    first_response_open_us: int | None = None
    solved_at: datetime | None = None
    is_unsolved: bool = False
    closed_at: datetime | None = None
    reopened: int = 0
    escalated: int = 0
    cut_at: datetime | None = None
    stretches: tuple[Stretch, ...] = ()

    @property
    def is_patch(self) -> bool:
        """Whether it changes a row beyond making it."""
        bare = CaseChange(
            ticket_id=self.ticket_id,
            conversation_id=self.conversation_id,
            opening=self.opening,
        )
        return self != bare


_CHANGING: Final = frozenset(
    {
        TicketOpened,
        TicketAnswered,
        TicketAnsweredElsewhere,
        TargetMet,
        TicketEscalated,
        TicketReturned,
        TicketPrioritised,
        TicketCustomerDescribed,
        TicketSolved,
        TicketReopened,
        TicketClosed,
        TicketMerged,
        TicketUnmerged,
        TicketStatusChanged,
    }
)
"""The events that may change a row: most of what is heard and told does not, and is not looked at further."""


def change_of(event: Payload) -> CaseChange | None:
    """What an event of a ticket changes of its row; None: nothing."""
    if type(event) not in _CHANGING:
        return None
    change = _change(event)
    return change if change is None or change.opening is not None or change.is_patch else None


def _change(event: Payload) -> CaseChange | None:
    match event:
        case TicketOpened():
            return _of(event, opening=_opening(event))
        case TicketAnswered() | TicketAnsweredElsewhere():
            return _of(event, first_answered_at=_when(event))
        case TargetMet(target="first_response"):
            open_us = round(event.elapsed_seconds * 1_000_000)
            return _of(event, first_answered_at=event.met_at, first_response_open_us=open_us)
        case TicketEscalated():
            return _of(event, queue=event.to_queue, escalated=1)
        case TicketReturned():
            return _of(event, queue=event.to_queue)
        case TicketPrioritised():
            return _of(event, priority=event.priority)
        case TicketCustomerDescribed():
            return _of(event, is_described=True, customer_tier=event.tier)
        case _:
            return _standing(event)


def _standing(event: Payload) -> CaseChange | None:
    """What an event changes of whether the ticket is open."""
    match event:
        case TicketSolved():
            return _ended(event, _when(event), "solved", solved_at=_when(event))
        case TicketReopened():
            return _begun(event, _when(event), queue=event.queue, reopened=1)
        case TicketClosed():
            return _of(event, status="closed", closed_at=event.at, cut_at=event.at)
        case TicketMerged():
            return _ended(event, event.at, "merged")
        case TicketUnmerged():
            return _begun(event, event.at, queue=event.queue)
        case TicketStatusChanged(status="spam"):
            return _ended(event, event.at, "spam", queue=event.queue)
        case TicketStatusChanged(before="spam"):
            return _begun(event, event.at, queue=event.queue)
        case TicketStatusChanged():
            return _of(event, queue=event.queue)
        case _:
            return None


def _of(event: TicketEvent | SlaEvent, **fields: Any) -> CaseChange:
    return CaseChange(ticket_id=event.ticket_id, conversation_id=event.conversation_id, **fields)


def _ended(event: TicketEvent, at: datetime, status: CaseStatus, **fields: Any) -> CaseChange:
    return _of(event, status=status, cut_at=at, **fields)


def _begun(event: TicketEvent, at: datetime, **fields: Any) -> CaseChange:
    return _of(event, status="open", is_unsolved=True, stretches=((at, None),), **fields)


def _when(event: _Dated) -> datetime:
    """When it happened; an instant in the future counts as when it was told, as it does for the clocks."""
    return min(event.occurred_at, event.at)


def _opening(event: TicketOpened) -> Opening:
    return Opening(
        reference=event.reference,
        queue=event.queue,
        channel=event.contact.channel,
        account=event.contact.account,
        priority=event.priority,
        language=event.contact.language,
        customer_tier=None if event.context is None else event.context.tier,
        opened_at=_when(event),
    )


def folded(changes: Iterable[CaseChange]) -> list[CaseChange]:
    """The changes with those of one ticket made one, in the order of the tickets' first ones."""
    by_ticket: dict[str, CaseChange] = {}
    for change in changes:
        before = by_ticket.get(change.ticket_id)
        by_ticket[change.ticket_id] = change if before is None else _after(before, change)
    return list(by_ticket.values())


def _after(first: CaseChange, then: CaseChange) -> CaseChange:
    """What `first` and then `then` come to."""
    status = then.status or first.status
    if then.status == "closed" and first.status in ASIDE:
        status = first.status
    cut_at, stretches = first.cut_at, first.stretches
    if then.cut_at is not None:
        cut_at = then.cut_at if cut_at is None else min(cut_at, then.cut_at)
        stretches = tuple(_cut(stretches, then.cut_at))
    return CaseChange(
        ticket_id=first.ticket_id,
        conversation_id=first.conversation_id,
        opening=first.opening or then.opening,
        queue=then.queue or first.queue,
        priority=then.priority or first.priority,
        is_described=then.is_described or first.is_described,
        customer_tier=then.customer_tier if then.is_described else first.customer_tier,
        status=status,
        first_answered_at=_earlier(first.first_answered_at, then.first_answered_at),
        first_response_open_us=_or(then.first_response_open_us, first.first_response_open_us),
        solved_at=None if then.is_unsolved else then.solved_at or first.solved_at,
        is_unsolved=then.is_unsolved or (first.is_unsolved and then.solved_at is None),
        closed_at=then.closed_at or first.closed_at,
        reopened=first.reopened + then.reopened,
        escalated=first.escalated + then.escalated,
        cut_at=cut_at,
        stretches=(*stretches, *then.stretches),
    )


def _cut(stretches: Iterable[Stretch], at: datetime) -> Iterable[Stretch]:
    for begin, end in stretches:
        if begin < at:
            yield begin, at if end is None else min(end, at)


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    known = [at for at in (one, other) if at is not None]
    return min(known, default=None)


def _or(one: int | None, other: int | None) -> int | None:
    return other if one is None else one
