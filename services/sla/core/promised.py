"""What a decision means for promises to customers: one is made at an opening, and one ends with its clock.

Owns which clock measures a promise, the first response of a ticket that is opened or the next or a later response of one
that is reopened, and the rows that tell of it. Pure; `promise` has the arithmetic.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from hours.calendar import Calendar
from hours.slots import callback_slots
from schemas.payload import Payload, trusted
from schemas.sla import CallbackSlot, TargetKind, TargetStarted, WaitPromised
from schemas.tickets import TicketOpened, TicketReopened
from services.sla.core.book import Changed, Decision
from services.sla.core.policy import Policy
from services.sla.core.promise import Promise, Situation, promise, situation
from services.sla.core.state import Cancelled, Met
from services.sla.core.waits import Estimates

MEASURED: Final[tuple[TargetKind, ...]] = ("first_response", "next_response", "later_response")
"""The clocks that may measure a promise."""

_ON_OPENING: Final[tuple[TargetKind, ...]] = ("first_response",)
_ON_REOPENING: Final[tuple[TargetKind, ...]] = ("next_response", "later_response")


@dataclass(frozen=True, slots=True)
class WaitOpened:
    """A wait that begins, what was told of it, and what it will be compared by.

    `made` is the promise that it is measured against; where `is_told` is false nobody heard of it.
    """

    told: WaitPromised
    priority: int
    situation: Situation
    made: Promise | None
    is_told: bool


class WaitStands(NamedTuple):
    """How a clock that may measure a wait stands now: answered, with the open time it took, or ended, or neither.

    `queue` and `priority` are the ticket's now: that is where it is served.
    """

    target_id: str
    queue: str
    priority: int
    answered_at: datetime | None = None
    waited: timedelta | None = None
    ended_at: datetime | None = None


def opened(
    heard: Payload, decision: Decision, policy: Policy, estimates: Estimates, now: datetime
) -> WaitOpened | WaitPromised | None:
    """What is promised at `now` after an opening or a reopening; without a clock to measure it by, that nothing is.

    None for any other event, for one that changed nothing, and for a reopening after which no answer is owed.
    """
    if decision.ignored is not None:
        return None
    match heard:
        case TicketOpened():
            kinds = _ON_OPENING
        case TicketReopened():
            kinds = _ON_REOPENING
        case _:
            return None
    started = next(
        (one for one in decision.events if isinstance(one, TargetStarted) and one.target in kinds),
        None,
    )
    if started is not None:
        changed = next(one for one in decision.changed if one.target.target_id == started.target_id)
        return _told(started, changed, policy, estimates, now)
    return _nothing(heard, policy, estimates) if isinstance(heard, TicketOpened) else None


def standing(changed: Iterable[Changed]) -> list[WaitStands]:
    """How those of the changed clocks stand that may measure a wait."""
    found = []
    for one in changed:
        if one.target.kind not in MEASURED:
            continue
        stands = WaitStands(one.target.target_id, one.facts.queue, one.target.priority or 4)
        match one.target.phase:
            case Met(at=at, elapsed=elapsed):
                stands = stands._replace(answered_at=at, waited=elapsed or timedelta(0))
            case Cancelled(at=at):
                stands = stands._replace(ended_at=at)
        found.append(stands)
    return found


def _told(
    started: TargetStarted,
    changed: Changed,
    policy: Policy,
    estimates: Estimates,
    now: datetime,
) -> WaitOpened:
    name = changed.target.calendar
    calendar, at = policy.calendar(name), started.started_at
    priority = changed.target.priority or started.priority or 4
    queue, channel = changed.facts.queue, changed.facts.channel
    state = estimates.queues.get((queue, name))
    ahead = 0 if state is None else state.ahead(priority, at)
    found = situation(queue, channel, name, calendar, at, ahead)
    made = promise(found, calendar, policy.promises, estimates)
    if made is not None and made.by - now < (made.by - at) / 2:
        # Heard of late. Nobody is told what is half over, and it would measure our lag, not the queue's waits.
        made = None
    is_told = policy.promises.is_told(queue)
    said = made if is_told else None
    told = trusted(
        WaitPromised,
        {
            "ticket_id": started.ticket_id,
            "conversation_id": started.conversation_id,
            "target_id": started.target_id,
            "at": at,
            "queue": queue,
            "channel": channel,
            "by": None if said is None else said.by,
            "seconds": None if said is None else said.seconds,
            "wording": None if said is None else said.wording,
            "kept_share": 0.0 if said is None else said.share_within,
            "samples": 0 if said is None else said.samples,
            "share": policy.promises.share,
            "basis": "none" if said is None else said.basis,
            "ahead": ahead,
            "factor": 1.0 if said is None else said.factor,
            "is_after_hours": found.place.is_after_hours,
            "opens_at": found.opens_at,
            "callback_slots": _slots(found, calendar, policy),
            "estimates_version": estimates.version,
            "policy_version": policy.version,
        },
    )
    return WaitOpened(told, priority, found, made, is_told)


def _slots(found: Situation, calendar: Calendar, policy: Policy) -> tuple[CallbackSlot, ...]:
    """The times in which we can call whoever writes while nobody works."""
    wanted = policy.promises.callback_slots
    if not found.place.is_after_hours or not wanted:
        return ()
    slots = callback_slots(calendar, found.at, wanted, policy.promises.callback_minutes)
    return tuple(
        trusted(CallbackSlot, {"starts_at": slot.begin, "ends_at": slot.end}) for slot in slots
    )


def _nothing(heard: TicketOpened, policy: Policy, estimates: Estimates) -> WaitPromised:
    return WaitPromised(
        ticket_id=heard.ticket_id,
        conversation_id=heard.conversation_id,
        at=heard.at,
        queue=heard.queue,
        channel=heard.contact.channel,
        by=None,
        seconds=None,
        wording=None,
        kept_share=0.0,
        samples=0,
        share=policy.promises.share,
        is_after_hours=False,
        opens_at=None,
        estimates_version=estimates.version,
        policy_version=policy.version,
    )
