"""What happens to one clock: it starts, stands, runs on, warns, is broken, and ends.

Every function takes a target and gives it back with the events that tell of the change. Verdicts
go by the instants at which things happened, never by when we heard of them: an answer at the
deadline keeps the promise, one a microsecond later does not, and what stopped the clock in time
but was heard of late takes a breach back.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from hours.calendar import Calendar, CalendarError
from schemas.ids import derive
from schemas.payload import trusted
from schemas.sla import (
    BreachRetracted,
    RetractionReason,
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
from services.sla.core.policy import TargetRule
from services.sla.core.state import (
    Breach,
    Cancelled,
    Held,
    Met,
    Paused,
    Phase,
    Running,
    Target,
    Terms,
)
from services.sla.core.stopwatch import Stopwatch

E = TypeVar("E", bound=SlaEvent)

HOLD_CAUSES: Final = ("third_party", "hold")
"""Why a ticket is on hold: it waits for somebody outside, or for one of us."""


class Subject(NamedTuple):
    """Whose clock it is, as events name it. `is_clamped`: what moves it was told with an instant in the future."""

    ticket_id: str
    conversation_id: str
    queue: str = ""
    channel: str = ""
    priority: int | None = None
    is_clamped: bool = False


class Step(NamedTuple):
    """A target after a change, and what is told of it."""

    target: Target
    events: tuple[SlaEvent, ...] = ()


def start(
    subject: Subject,
    rule: TargetRule,
    *,
    policy: str,
    policy_version: str,
    priority: int,
    number: int,
    at: datetime,
    allowed: timedelta,
    held: Sequence[Held],
    calendar: Calendar,
    is_promise: bool = False,
    not_before: datetime | None = None,
    looks: tuple[float, ...] = (),
) -> Step:
    """Start the `number`-th clock of its kind with `allowed` open time.

    `held` says when the ticket waited for somebody else: where it does, the clock is started and stands at once, or from when
    that began; where it did after `at`, that time is left out. `is_promise`: a person named the
    deadline; `not_before` is when keeping it begins to count.
    """
    watch = Stopwatch(at)
    for one in held:
        if one.until is not None and one.until > at and is_held_by(rule.pauses_on, one.cause):
            watch = watch.pause(one.cause, max(one.since, at)).resume(one.cause, one.until)
    warn_after = None if rule.warn_share is None else allowed * rule.warn_share
    due_at, warn_at, look_at = _instants(watch, calendar, allowed, warn_after, looks)
    assert due_at is not None  # A clock that nothing holds has a deadline.
    target = Target(
        target_id=derive("target", subject.ticket_id, rule.kind, str(number)),
        kind=rule.kind,
        policy=policy,
        policy_version=policy_version,
        calendar=rule.calendar,
        allowed=allowed,
        warn_after=warn_after,
        pauses_on=rule.pauses_on,
        watch=watch,
        phase=Running(due_at, warn_at),
        priority=priority,
        is_promise=is_promise,
        not_before=not_before,
        tier=rule.tier,
        looks=looks,
        look_at=look_at,
    )
    started = _told(
        TargetStarted,
        subject,
        target,
        started_at=at,
        due_at=due_at,
        warn_at=warn_at,
        seconds=allowed.total_seconds(),
    )
    events: tuple[SlaEvent, ...] = (started,)
    for one in held:
        if one.until is not None:
            continue
        since = max(one.since, at)
        step = pause(subject, target, one.cause, since, since, calendar)
        target, events = step.target, events + step.events
    return Step(target, events)


def pause(
    subject: Subject,
    target: Target,
    cause: str,
    at: datetime,
    now: datetime,
    calendar: Calendar,
) -> Step:
    """Hold an open clock for `cause` from `at`, if it is one that this cause holds.

    A breach that was told of a deadline after `at` is taken back.
    """
    if not is_held_by(target.pauses_on, cause):
        return Step(target)
    stood = target.watch.paused_at is not None
    held = replace(target, watch=target.watch.pause(cause, at))
    retracted: tuple[SlaEvent, ...] = ()
    if held.breach is not None and at < held.breach.breached_at:
        held, retracted = _retract(subject, held, at, now)
    paused = _told(TargetPaused, subject, held, paused_at=at, cause=cause)
    return Step(_timed(held, calendar), retracted if stood else (*retracted, paused))


def is_held_by(pauses_on: Sequence[str], cause: str) -> bool:
    """Whether a clock with these `pauses` stands for `cause`; `on_hold` means either cause of a hold."""
    return cause in pauses_on or (cause in HOLD_CAUSES and "on_hold" in pauses_on)


def resume(subject: Subject, target: Target, cause: str, at: datetime, calendar: Calendar) -> Step:
    """Let go of an open clock that `cause` held; it runs on once nothing else holds it."""
    if target.watch.paused_at is None:
        return Step(target)
    freed = _timed(replace(target, watch=target.watch.resume(cause, at)), calendar)
    if not isinstance(freed.phase, Running):
        return Step(freed)
    resumed = _told(
        TargetResumed,
        subject,
        freed,
        resumed_at=at,
        due_at=freed.phase.due_at,
        warn_at=freed.phase.warn_at,
    )
    return Step(freed, (resumed,))


def tell_due(subject: Subject, target: Target, now: datetime) -> Step:
    """Tell what has fallen due by `now`: the breach, or else the warning; each once.

    A warning whose deadline has passed as well is not told any more.
    """
    due_at = next_breach(target)
    if due_at is not None and due_at <= now:
        return _breach(subject, target, due_at, now)
    warn_at = next_warning(target)
    if due_at is None or warn_at is None or warn_at > now:
        return Step(target)
    assert isinstance(target.phase, Running | Paused)
    told = _told(TargetAtRisk, subject, target, at=warn_at, due_at=due_at)
    return Step(replace(target, is_warned=True, phase=replace(target.phase, warn_at=None)), (told,))


def meet(subject: Subject, target: Target, at: datetime, now: datetime, calendar: Calendar) -> Step:
    """End an open clock: what was promised was done at `at`."""
    done_at = max(at, target.watch.started_at)
    settled, told = _settle_breach(subject, target, done_at, now)
    elapsed = settled.watch.elapsed(calendar, done_at)
    met = _told(
        TargetMet,
        subject,
        settled,
        met_at=done_at,
        elapsed_seconds=elapsed.total_seconds(),
        was_breached=settled.breach is not None,
    )
    return Step(replace(settled, phase=Met(done_at, settled.due_at, elapsed)), (*told, met))


def cancel(subject: Subject, target: Target, at: datetime, now: datetime, reason: str) -> Step:
    """End an open clock at `at`: it is of no use any more."""
    ended_at = max(at, target.watch.started_at)
    settled, told = _settle_breach(subject, target, ended_at, now)
    cancelled = _told(TargetCancelled, subject, settled, at=ended_at, reason=reason)
    phase = Cancelled(ended_at, reason, settled.due_at)
    return Step(replace(settled, phase=phase), (*told, cancelled))


def revive(subject: Subject, target: Target, reason: str, at: datetime, calendar: Calendar) -> Step:
    """Let a clock run on that was ended for `reason`, as if it never had been: the time in between counts."""
    if not isinstance(target.phase, Cancelled) or target.phase.reason != reason:
        return Step(target)
    revived = _timed(replace(target, phase=Paused()), calendar)
    if not isinstance(revived.phase, Running):
        return Step(revived)
    resumed = _told(
        TargetResumed,
        subject,
        revived,
        resumed_at=at,
        due_at=revived.phase.due_at,
        warn_at=revived.phase.warn_at,
    )
    return Step(revived, (resumed,))


def retarget(
    subject: Subject,
    target: Target,
    changed: Target,
    terms: Terms,
    *,
    at: datetime,
    now: datetime,
    reason: str,
    calendar: Calendar,
    takes_back: bool = False,
) -> Step:
    """Hold an open clock to other terms: `changed` is the target with whatever else of its rule is new.

    The clock stays the same one, with its pauses. A breach that stands is history, and such a clock stays as it is;
    where `takes_back` says so, the breach is taken back if the new terms would not have been broken by then. A new
    deadline gets a warning of its own, if the instant of it is still to come.
    """
    after = replace(
        changed,
        watch=replace(changed.watch, started_at=terms.started_at),
        allowed=terms.allowed,
        warn_after=terms.warn_after,
    )
    retracted: tuple[SlaEvent, ...] = ()
    passed_at = next_breach(target)
    if passed_at is not None and passed_at < at and not takes_back:
        return _breach(
            subject, target, passed_at, now
        )  # The timer was late, and the verdict is the same.
    if target.breach is not None:
        due_at = after.watch.due_at(calendar, after.allowed)
        if not takes_back or (due_at is not None and due_at <= target.breach.breached_at):
            return Step(replace(target, own=changed.own) if after.terms == target.terms else target)
        after, retracted = _retract(subject, after, target.breach.breached_at, now, "split_off")
    if after.terms == target.terms and after.calendar == target.calendar:
        return Step(_timed(after, calendar), retracted)
    fresh = _warned_anew(target, after, max(at, now), calendar)
    told = _retargeted(subject, target, fresh, at, reason)
    return Step(fresh, (*retracted, told))


def _warned_anew(before: Target, after: Target, now: datetime, calendar: Calendar) -> Target:
    """A target under other terms, worked out: one that was warned is warned again, if the instant of it is still to come."""
    fresh = _timed(replace(after, is_warned=False), calendar)
    assert isinstance(fresh.phase, Running | Paused)
    warn_at = fresh.phase.warn_at
    if before.is_warned and warn_at is not None and warn_at <= now:
        return _timed(after, calendar)
    return fresh


def _retargeted(
    subject: Subject, before: Target, after: Target, at: datetime, reason: str
) -> TargetRetargeted:
    """Tell that a clock has another deadline: both, and what it went by before."""
    assert isinstance(after.phase, Running | Paused)
    return _told(
        TargetRetargeted,
        subject,
        after,
        at=at,
        reason=reason,
        before_due_at=before.due_at,
        before_seconds=before.allowed.total_seconds(),
        before_policy=before.policy,
        before_policy_version=before.policy_version,
        due_at=after.phase.due_at,
        warn_at=after.phase.warn_at,
        started_at=after.watch.started_at,
        seconds=after.allowed.total_seconds(),
    )


def drop(subject: Subject, target: Target, at: datetime, now: datetime, reason: str) -> Step:
    """End an open clock that turned out to be no promise of this ticket: a breach of it is taken back."""
    retracted: tuple[SlaEvent, ...] = ()
    if target.breach is not None:
        target, retracted = _retract(subject, target, target.breach.breached_at, now, "split_off")
    ended_at = max(at, target.watch.started_at)
    cancelled = _told(TargetCancelled, subject, target, at=ended_at, reason=reason)
    phase = Cancelled(ended_at, reason, target.due_at)
    return Step(replace(target, phase=phase), (*retracted, cancelled))


def reconsider(
    subject: Subject, target: Target, at: datetime, now: datetime, calendar: Calendar
) -> Step:
    """Take back the breach of a settled clock, if an answer at `at` would have kept its promise."""
    if target.breach is None or not target.watch.started_at <= at <= target.breach.breached_at:
        return Step(target)
    kept, told = _retract(subject, target, at, now)
    if isinstance(kept.phase, Met):
        kept = replace(
            kept, phase=replace(kept.phase, at=at, elapsed=kept.watch.elapsed(calendar, at))
        )
    return Step(kept, told)


def retime(subject: Subject, target: Target, now: datetime, calendar: Calendar) -> Step:
    """Work the deadline of an open clock without a breach out anew, by its calendar as it is now.

    A deadline that has moved is told; it has a warning of its own, if the instant of that is still to come. One that lies in the
    past by now is broken at once, as of its instant.
    """
    kept = _timed(target, calendar)
    if kept.due_at == target.due_at:
        return Step(kept)
    fresh = _warned_anew(target, target, now, calendar) if target.is_warned else kept
    told = _retargeted(subject, target, fresh, now, "calendar_changed")
    step = tell_due(subject, fresh, now)
    return Step(step.target, (told, *step.events))


def rejudge(subject: Subject, target: Target, now: datetime, calendar: Calendar) -> Step:
    """Judge a clock anew by its calendar as it is now, breaches that stand and promises that were kept included.

    A breach that would not be one is taken back, one that would be at another instant is told as of that; what was done after a
    deadline that is earlier by now is a breach. A cancelled clock is never found broken that was not.
    """
    if target.is_open and target.breach is None:
        return retime(subject, target, now, calendar)
    if isinstance(target.phase, Met):
        elapsed = target.watch.elapsed(calendar, target.phase.at)
        if elapsed != target.phase.elapsed:
            target = replace(target, phase=replace(target.phase, elapsed=elapsed))
    due_at = target.watch.due_at(calendar, target.allowed)
    breach, ended_at = target.breach, target.settled_at
    if breach is not None and due_at == breach.breached_at:
        return Step(target)
    if ended_at is None:
        assert breach is not None  # An open clock without one was only to be timed.
        freed, taken_back = _retract(subject, target, breach.breached_at, now, "calendar_changed")
        step = retime(subject, freed, now, calendar)
        return Step(step.target, (*taken_back, *step.events))
    is_late = due_at is not None and due_at < ended_at
    if breach is None and not (is_late and isinstance(target.phase, Met)):
        return Step(target)
    events: tuple[SlaEvent, ...] = ()
    if breach is not None:
        target, events = _retract(subject, target, breach.breached_at, now, "calendar_changed")
    assert isinstance(target.phase, Met | Cancelled)
    target = replace(target, phase=replace(target.phase, due_at=due_at))
    if due_at is None or not is_late:
        return Step(target, events)
    found = Breach(breached_at=due_at, detected_at=max(now, due_at))
    told = _told(TargetBreached, subject, target, breached_at=due_at, detected_at=found.detected_at)
    return Step(replace(target, breach=found), (*events, told))


def next_breach(target: Target) -> datetime | None:
    """The deadline that is still to be watched."""
    if target.breach is not None or not target.is_open:
        return None
    return target.phase.due_at


def next_warning(target: Target) -> datetime | None:
    """The warning that is still to be told.

    None comes after the breach, and none while the clock stands with a deadline nobody knows: it
    is told when the clock runs on.
    """
    phase = target.phase
    if target.breach is not None or not isinstance(phase, (Running, Paused)):
        return None
    return None if phase.due_at is None else phase.warn_at


def next_instant(target: Target) -> datetime | None:
    """The earliest of its breach, its warning and its look; None: nothing of it is to be watched."""
    phase = target.phase
    if target.breach is not None or not isinstance(phase, (Running, Paused)):
        return None
    due_at, warn_at = phase.due_at, phase.warn_at
    if due_at is None:
        return None
    first = due_at if warn_at is None or due_at < warn_at else warn_at
    look_at = target.look_at
    if look_at is None or target.is_warned or not isinstance(phase, Running):
        return first
    return min(first, look_at)


def next_look(target: Target) -> datetime | None:
    """When the clock's risk is to be worked out next; never once it was warned of or broken, nor while it stands."""
    if next_breach(target) is None or target.is_warned or not isinstance(target.phase, Running):
        return None
    return target.look_at


def after_look(target: Target, now: datetime, calendar: Calendar) -> Target:
    """The clock with the first of its looks that comes after `now`, if any does."""
    while target.look_at is not None and target.look_at <= now:
        target = replace(target, looks=target.looks[1:], look_at=None)
        if target.looks:
            target = replace(target, look_at=_look_at(target, calendar))
    return target


def _look_at(target: Target, calendar: Calendar) -> datetime | None:
    """The instant of its next look; None, and so no more looks, where its calendar has come to open too seldom for it."""
    try:
        return target.watch.due_at(calendar, target.allowed * target.looks[0])
    except CalendarError:
        return None


def warn(subject: Subject, target: Target, at: datetime, probability: float) -> Step:
    """Tell that a running clock is at risk, by the probability; it has then had its warning."""
    assert isinstance(target.phase, Running)
    told = _told(
        TargetAtRisk,
        subject,
        target,
        at=at,
        due_at=target.phase.due_at,
        cause="probability",
        probability=round(probability, 4),
    )
    phase = replace(target.phase, warn_at=None)
    return Step(replace(target, is_warned=True, phase=phase, looks=(), look_at=None), (told,))


def _timed(target: Target, calendar: Calendar) -> Target:
    """An open target with the deadline and warning that its stopwatch gives it now.

    A deadline that was broken stays the one that was told.
    """
    watch = target.watch
    due_at: datetime | None
    warn_at: datetime | None
    look_at: datetime | None
    if target.breach is not None:
        due_at, warn_at, look_at = target.breach.breached_at, None, None
    elif target.is_warned:
        due_at, warn_at, look_at = _instants(watch, calendar, target.allowed, None, ())
    else:
        due_at, warn_at, look_at = _instants(
            watch, calendar, target.allowed, target.warn_after, target.looks
        )
    phase: Phase
    if watch.paused_at is not None:
        phase = Paused(due_at, warn_at)
    else:
        assert due_at is not None  # Only a pause without end hides a deadline.
        phase = Running(due_at, warn_at)
    if phase == target.phase and look_at == target.look_at:
        return target
    return replace(target, phase=phase, look_at=look_at)


def _instants(
    watch: Stopwatch,
    calendar: Calendar,
    allowed: timedelta,
    warn_after: timedelta | None,
    looks: tuple[float, ...],
) -> tuple[datetime | None, datetime | None, datetime | None]:
    """The deadline, the warning and the first look that a stopwatch gives; None for what is not wanted or not known."""
    amounts = [allowed]
    if warn_after is not None:
        amounts.append(warn_after)
    if looks:
        amounts.append(allowed * looks[0])
    found = watch.dues(calendar, amounts)
    return (
        found[0],
        None if warn_after is None else found[1],
        found[-1] if looks else None,
    )


def _settle_breach(subject: Subject, target: Target, at: datetime, now: datetime) -> Step:
    """Make the breach true for a clock that ends at `at`: tell one untold, take back one wrong."""
    if target.breach is not None and at <= target.breach.breached_at:
        return _retract(subject, target, at, now)
    due_at = next_breach(target)
    if due_at is not None and due_at < at:
        return _breach(subject, target, due_at, now)
    return Step(target)


def _breach(subject: Subject, target: Target, due_at: datetime, now: datetime) -> Step:
    assert isinstance(target.phase, Running | Paused)
    # Another machine's clock may be ahead of ours: nothing is noticed before it happens.
    breach = Breach(breached_at=due_at, detected_at=max(now, due_at))
    told = _told(
        TargetBreached,
        subject,
        target,
        breached_at=breach.breached_at,
        detected_at=breach.detected_at,
    )
    return Step(replace(target, breach=breach, phase=replace(target.phase, warn_at=None)), (told,))


def _retract(
    subject: Subject,
    target: Target,
    at: datetime,
    now: datetime,
    reason: RetractionReason = "in_time",
) -> Step:
    assert target.breach is not None
    told = _told(
        BreachRetracted,
        subject,
        target,
        breached_at=target.breach.breached_at,
        answered_at=at,
        at=now,
        reason=reason,
    )
    return Step(replace(target, breach=None), (told,))


def _told(kind: type[E], subject: Subject, target: Target, **fields: Any) -> E:
    """An event about a target: the fields that every one has, and those of its own.

    All of them are values of the state and of the policy, which were checked where they came in.
    """
    return trusted(
        kind,
        {
            "ticket_id": subject.ticket_id,
            "conversation_id": subject.conversation_id,
            "target_id": target.target_id,
            "target": target.kind,
            "policy": target.policy,
            "policy_version": target.policy_version,
            "queue": subject.queue,
            "channel": subject.channel,
            "priority": subject.priority,
            "tier": target.tier,
            "is_clamped": subject.is_clamped,
            **fields,
        },
    )
