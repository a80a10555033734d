"""What a decision means for promises to customers: one is made at an opening, and one ends with its clock.

Owns which clock measures a promise, the first response of a ticket that is opened or the next response of one that is
reopened, and the rows that tell of it. Pure; `promise` has the arithmetic.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from hours.calendar import Calendar
from hours.slots import callback_slots
from schemas.payload import Payload
from schemas.sla import CallbackSlot, TargetKind, TargetStarted, WaitPromised
from schemas.tickets import TicketOpened, TicketReopened
from services.sla.core.book import Changed, Decision
from services.sla.core.policy import Policy
from services.sla.core.promise import Situation, promise, situation
from services.sla.core.state import Cancelled, Met
from services.sla.core.waits import Estimates

MEASURED: Final[tuple[TargetKind, ...]] = ("first_response", "next_response")
"""The clocks that may measure a promise."""


@dataclass(frozen=True, slots=True)
class WaitOpened:
    """A wait that begins, what was told of it, and what it will be compared by."""

    told: WaitPromised
    calendar: str
    priority: int
    situation: Situation


@dataclass(frozen=True, slots=True)
class WaitStands:
    """How a clock that may measure a wait stands now: answered, with the open time it took, or ended, or neither."""

    target_id: str
    answered_at: datetime | None = None
    waited: timedelta | None = None
    ended_at: datetime | None = None


def opened(
    heard: Payload, decision: Decision, policy: Policy, estimates: Estimates
) -> WaitOpened | WaitPromised | None:
    """What is promised after an opening or a reopening; without a clock to measure it by, that nothing is.

    None for any other event, for one that changed nothing, and for a reopening after which no answer is owed.
    """
    if decision.ignored is not None:
        return None
    match heard:
        case TicketOpened():
            kind: TargetKind = "first_response"
        case TicketReopened():
            kind = "next_response"
        case _:
            return None
    started = next(
        (one for one in decision.events if isinstance(one, TargetStarted) and one.target == kind),
        None,
    )
    if started is not None:
        changed = next(one for one in decision.changed if one.target.target_id == started.target_id)
        return _told(started, changed, policy, estimates)
    return _nothing(heard, policy, estimates) if isinstance(heard, TicketOpened) else None


def standing(changed: Iterable[Changed]) -> list[WaitStands]:
    """How those of the changed clocks stand that may measure a wait."""
    found = []
    for one in changed:
        if one.target.kind not in MEASURED:
            continue
        match one.target.phase:
            case Met(at=at, elapsed=elapsed):
                found.append(WaitStands(one.target.target_id, at, elapsed or timedelta(0)))
            case Cancelled(at=at):
                found.append(WaitStands(one.target.target_id, ended_at=at))
            case _:
                found.append(WaitStands(one.target.target_id))
    return found


def _told(
    started: TargetStarted, changed: Changed, policy: Policy, estimates: Estimates
) -> WaitOpened:
    name = changed.target.calendar
    calendar, at = policy.calendar(name), started.started_at
    priority = changed.target.priority or started.priority or 4
    queue, channel = changed.facts.queue, changed.facts.channel
    state = estimates.queues.get(queue)
    ahead = 0 if state is None else state.ahead(priority, at)
    found = situation(queue, channel, calendar, at, ahead)
    made = promise(found, calendar, policy.promises, estimates)
    told = WaitPromised(
        ticket_id=started.ticket_id,
        conversation_id=started.conversation_id,
        target_id=started.target_id,
        at=at,
        queue=queue,
        channel=channel,
        by=None if made is None else made.by,
        seconds=None if made is None else made.seconds,
        wording=None if made is None else made.wording,
        kept_share=0.0 if made is None else made.share_within,
        samples=0 if made is None else made.samples,
        share=policy.promises.share,
        basis="none" if made is None else made.basis,
        is_after_hours=found.place.is_after_hours,
        opens_at=found.opens_at,
        callback_slots=_slots(found, calendar, policy),
        estimates_version=estimates.version,
        policy_version=policy.version,
    )
    return WaitOpened(told, name, priority, found)


def _slots(found: Situation, calendar: Calendar, policy: Policy) -> tuple[CallbackSlot, ...]:
    """The times in which we can call whoever writes while nobody works."""
    wanted = policy.promises.callback_slots
    if not found.place.is_after_hours or not wanted:
        return ()
    slots = callback_slots(calendar, found.at, wanted, policy.promises.callback_minutes)
    return tuple(CallbackSlot(starts_at=slot.begin, ends_at=slot.end) for slot in slots)


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
