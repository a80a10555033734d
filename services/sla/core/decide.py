"""What each fact about a ticket does to its clocks.

Owns the branching: which events start, hold, meet and end which targets. What a change does to one
clock stands in `targets`.

- `first_response` runs from the opening message to the first answer.
- `next_response` runs from the oldest message that nobody has answered to the next answer, one
  clock for however many messages; never while a first response is owed.
- `resolution` runs from the opening message to the solution, and again from a reopening.
- A ticket that is spam or merged into another owes nothing; restored or unmerged, its clocks run on as if nothing had been.
- A ticket that takes another in keeps the earliest promise of both: its clocks are held to the other one's deadlines
  where those are earlier. When the other is split off, it is held to its own again, and owes nothing for the other's words;
  a breach that was only the other's is taken back, since the other's own clock tells it.
- Another priority means other targets: the clocks that run are held to them, with the time spent kept. A clock whose
  deadline has passed keeps its breach.
- Solving with an answer is an answer. Solving without one cancels the responses that are owed, and
  no first response is owed afterwards.

**Instants.** What counts is when a thing happened (`occurred_at`), not when we heard of it. What
lies in the future, by the router's clock and by ours, is taken as of the later of the two. A
customer's message is never taken as older than its ticket; those of a case that was merged into it may be.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Final, NamedTuple

from msgspec.structs import replace

from hours.calendar import CalendarError, elapsed
from schemas.payload import Payload
from schemas.sla import SlaEvent, TargetKind
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketClosed,
    TicketEscalated,
    TicketEvent,
    TicketMerged,
    TicketMessageAdded,
    TicketNoteAdded,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from services.sla.core import targets
from services.sla.core.policy import Policy, PolicyRule, TargetRule
from services.sla.core.state import KINDS, RESPONSES, Conversation, Source, Target, Terms, Ticket
from services.sla.core.targets import Step, Subject

HOLDING: Final = ("pending", "on_hold")
"""The statuses that hold clocks, and the names of those causes."""

ENDED: Final = ("solved", "closed")

WAITING_MAX: Final = 100
"""Unanswered messages whose instants are kept; of more than that, the oldest and the latest."""

LENT_WAITING_MAX: Final = 20
"""The same for each case that was merged into the ticket: there may be many of those."""

BROKEN_MAX: Final = 20
"""Settled clocks with a breach that a late answer may still take back; older ones are final."""


class Ignored(StrEnum):
    """Why an event changes no clock."""

    TICKET_UNKNOWN = "ticket_unknown"
    ALREADY_OPEN = "already_open"
    AUTOMATIC = "automatic"
    TICKET_SOLVED = "ticket_solved"
    PRIVATE_NOTE = "private_note"
    CLOCKS_RUN_ON = "clocks_run_on"
    NOTHING_RUNS = "nothing_runs"
    NOTHING_DUE = "nothing_due"
    NOT_OURS = "not_ours"


class Remark(StrEnum):
    """What a person should know about a decision that was made all the same."""

    FUTURE_INSTANT = "future_instant"
    UNKNOWN_POLICY = "unknown_policy"
    UNKNOWN_CALENDAR = "unknown_calendar"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: tell what fell due."""


class Changed(NamedTuple):
    """A target that is not what it was, and its ticket."""

    ticket_id: str
    target: Target


class Decision(NamedTuple):
    """The state afterwards (`None`: nothing is left to remember) and what is told.

    `changed` are the targets that are not what they were, those of forgotten tickets included;
    `ignored` says why nothing happened.
    """

    state: Conversation | None
    events: tuple[SlaEvent, ...] = ()
    changed: tuple[Changed, ...] = ()
    ignored: Ignored | None = None
    remarks: tuple[Remark, ...] = ()


class Turn(NamedTuple):
    """A ticket after a change, and what is told of it; or why nothing changed."""

    ticket: Ticket
    events: tuple[SlaEvent, ...] = ()
    ignored: Ignored | None = None


def decide(
    state: Conversation | None, event: Payload | Tick, now: datetime, policy: Policy
) -> Decision:
    """Apply one event, or the passing of time, at `now`.

    Raises:
        CalendarError: an instant that no calendar covers, or a deadline beyond its horizon.
    """
    match event:
        case Tick():
            return _ticked(state, now)
        case TicketOpened():
            return _opened(state, event, now, policy)
        case TicketEvent():
            ticket = None if state is None else state.ticket(event.ticket_id)
            if state is None or ticket is None:
                return Decision(state, ignored=Ignored.TICKET_UNKNOWN)
            turn = _turn(Book(ticket, event.conversation_id, now, policy), event)
            return _decision(state, ticket, turn, event, now, policy)
        case _:
            return Decision(state, ignored=Ignored.NOT_OURS)


def next_due(state: Conversation | None) -> datetime | None:
    """When `decide` next wants a `Tick`: the earliest warning or deadline still to be told."""
    due = (
        at
        for ticket in (state.tickets if state is not None else ())
        for target in ticket.targets
        for at in (targets.next_warning(target), targets.next_breach(target))
        if at is not None
    )
    return min(due, default=None)


class Book(NamedTuple):
    """A ticket, and what its rules need to know."""

    ticket: Ticket
    conversation_id: str
    now: datetime
    policy: Policy

    @property
    def subject(self) -> Subject:
        """Whose clocks these are."""
        return Subject(self.ticket.ticket_id, self.conversation_id)

    @property
    def rule(self) -> PolicyRule:
        """The policy that the ticket's next clocks start under."""
        return self.policy.rule(self.ticket.policy)

    def target_rule(self, kind: TargetKind) -> TargetRule | None:
        """What is promised of `kind`."""
        return self.policy.target(self.ticket.policy, self.ticket.priority, kind)


def _turn(book: Book, event: TicketEvent) -> Turn:
    """All branching on what happened to a ticket that is known."""
    now = book.now
    match event:
        case TicketAnswered() | TicketAnsweredElsewhere():
            return _answered(book, _instant(event.occurred_at, event.at, now))
        case TicketMessageAdded() if event.is_automatic:
            return Turn(book.ticket, ignored=Ignored.AUTOMATIC)
        case TicketMessageAdded() if event.status in ("solved", "closed"):
            return Turn(book.ticket, ignored=Ignored.TICKET_SOLVED)  # Reopening is told apart.
        case TicketMessageAdded():
            written_at = _instant(event.occurred_at, event.at, now)
            return _customer_wrote(book, written_at, event.from_conversation_id)
        case TicketStatusChanged() | TicketMerged() | TicketUnmerged():
            return _moved(book, event, _instant(event.at, event.at, now))
        case TicketAbsorbed() | TicketSplitOff() | TicketPrioritised():
            return _changed_terms(book, event, _instant(event.at, event.at, now))
        case TicketSolved():
            return _solved(book, _instant(event.occurred_at, event.at, now), event.with_answer)
        case TicketReopened():
            return _reopened(book, _instant(event.occurred_at, event.at, now))
        case TicketClosed():
            return _cancelled(book, KINDS, _instant(event.at, event.at, now), "closed")
        case TicketNoteAdded():
            return Turn(book.ticket, ignored=Ignored.PRIVATE_NOTE)
        case TicketEscalated() | TicketTagged():
            return Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)
        case _:
            return Turn(book.ticket, ignored=Ignored.NOT_OURS)


def _moved(
    book: Book, event: TicketStatusChanged | TicketMerged | TicketUnmerged, at: datetime
) -> Turn:
    """What the ticket's new standing does to its clocks."""
    match event:
        case TicketMerged():
            return _cancelled(_aside(book), KINDS, at, "merged")
        case TicketUnmerged():
            return _unmerged(book, event, at)
        case TicketStatusChanged(status="spam"):
            return _cancelled(_aside(book), KINDS, at, "spam")
        case TicketStatusChanged(before="spam"):
            return _revived(book, "spam", at)
        case TicketStatusChanged() if event.status in HOLDING:
            return _held(book, event.status, at)
        case TicketStatusChanged() if book.ticket.causes and event.status not in ENDED:
            return _freed(book, book.ticket.causes, at)
        case _:  # Solved and closed are told by events of their own.
            return Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)


def _changed_terms(
    book: Book, event: TicketAbsorbed | TicketSplitOff | TicketPrioritised, at: datetime
) -> Turn:
    """What makes a ticket's clocks count for more, or for less, than they did."""
    match event:
        case TicketAbsorbed():
            return _absorbed(book, event, at)
        case TicketSplitOff():
            return _split_off(book, event, at)
        case TicketPrioritised():
            return _prioritised(book, event.priority, at, "priority_changed")


# -------------------------------------------------------------------------- what happens to tickets


def _opened(
    state: Conversation | None, event: TicketOpened, now: datetime, policy: Policy
) -> Decision:
    if state is not None and state.ticket(event.ticket_id) is not None:
        return Decision(state, ignored=Ignored.ALREADY_OPEN)
    at = _instant(event.occurred_at, event.at, now)
    ticket = Ticket(
        ticket_id=event.ticket_id,
        number=event.number,
        policy=event.sla_policy,
        priority=event.priority,
        opened_at=at,
    )
    turn = Turn(ticket)
    for kind in ("first_response", "resolution"):
        turn = _then(
            turn, _started(Book(turn.ticket, event.conversation_id, now, policy), kind, at)
        )
    before = state or Conversation(conversation_id=event.conversation_id, tickets=())
    return _decision(before, ticket, turn, event, now, policy)


def _answered(book: Book, at: datetime) -> Turn:
    """An answer meets what it can, and takes back breaches that it proves wrong."""

    def answer(target: Target) -> Step:
        given_at = max(at, book.ticket.opened_at) if target.kind == "first_response" else at
        if not target.is_open:
            return targets.reconsider(book.subject, target, given_at, book.now)
        if given_at < target.watch.started_at:
            return Step(target)  # Given before the message that is waiting: they crossed.
        calendar = book.policy.calendar(target.calendar)
        return targets.meet(book.subject, target, given_at, book.now, calendar)

    turn = _each(book.ticket, answer, RESPONSES)
    ticket = replace(_still_owed(turn.ticket, at), is_first_settled=True)
    return _then(turn, _next_started(book._replace(ticket=ticket)))


def _still_owed(ticket: Ticket, answered_at: datetime | None) -> Ticket:
    """The ticket with the messages only that were written after an answer; with none, if the answer is None."""

    def after(waiting: Iterable[datetime]) -> tuple[datetime, ...]:
        return tuple(one for one in waiting if answered_at is not None and one > answered_at)

    sources = tuple(replace(one, waiting=after(one.waiting)) for one in ticket.sources)
    return replace(ticket, waiting=after(ticket.waiting), sources=sources)


def _customer_wrote(book: Book, at: datetime, from_conversation_id: str | None = None) -> Turn:
    """A message waits; one that was carried here is owed on behalf of the case that it was written in."""
    ticket = book.ticket
    if all(one.conversation_id != from_conversation_id for one in ticket.sources):
        written_at = max(at, ticket.opened_at)
        waiting = _with(ticket.waiting, written_at, WAITING_MAX)
        return _next_started(book._replace(ticket=replace(ticket, waiting=waiting)))
    sources = tuple(
        replace(one, waiting=_with(one.waiting, at, LENT_WAITING_MAX))
        if one.conversation_id == from_conversation_id
        else one
        for one in ticket.sources
    )
    return _next_started(book._replace(ticket=replace(ticket, sources=sources)))


def _with(waiting: Iterable[datetime], written_at: datetime, at_most: int) -> tuple[datetime, ...]:
    kept = sorted({*waiting, written_at})
    if len(kept) > at_most:
        del kept[at_most - 1 : -1]
    return tuple(kept)


def _next_started(book: Book) -> Turn:
    """Start the clock of the oldest unanswered message, unless a response is owed already."""
    ticket = book.ticket
    owed = any(ticket.open_target(kind) is not None for kind in RESPONSES)
    if owed or not ticket.owed or not ticket.is_first_settled:
        return Turn(ticket)
    return _started(book, "next_response", ticket.owed[0])


def _held(book: Book, cause: str, at: datetime) -> Turn:
    """The ticket waits for somebody else, whom `cause` names; what held it before does no more."""
    before = tuple(one for one in book.ticket.causes if one != cause)

    def hold(target: Target) -> Step:
        calendar = book.policy.calendar(target.calendar)
        return targets.pause(book.subject, target, cause, at, book.now, calendar)

    causes = tuple(sorted({*book.ticket.causes, cause}))
    turn = _each_open(replace(book.ticket, causes=causes), hold)
    return _then(turn, _freed(book._replace(ticket=turn.ticket), before, at)) if before else turn


def _freed(book: Book, freed: Iterable[str], at: datetime) -> Turn:
    gone = tuple(freed)
    causes = tuple(cause for cause in book.ticket.causes if cause not in gone)
    turn = Turn(replace(book.ticket, causes=causes))
    for cause in gone:

        def free(target: Target, cause: str = cause) -> Step:
            calendar = book.policy.calendar(target.calendar)
            return targets.resume(book.subject, target, cause, at, calendar)

        turn = _then(turn, _each_open(turn.ticket, free))
    return turn


def _revived(book: Book, ended: str, at: datetime) -> Turn:
    """What was ended for `ended` was not: the clocks run on, and nothing holds the ticket any more."""
    latest = [book.ticket.latest(kind) for kind in KINDS if book.ticket.open_target(kind) is None]

    def revive(target: Target) -> Step:
        if target not in latest:
            return Step(target)
        calendar = book.policy.calendar(target.calendar)
        return targets.revive(book.subject, target, ended, at, calendar)

    turn = _each(replace(book.ticket, is_aside=False), revive)
    return _then(turn, _freed(book._replace(ticket=turn.ticket), turn.ticket.causes, at))


def _aside(book: Book) -> Book:
    return book._replace(ticket=replace(book.ticket, is_aside=True))


def _unmerged(book: Book, event: TicketUnmerged, at: datetime) -> Turn:
    """It stands on its own: what was owed is owed again, and so is what was written in it meanwhile."""
    ticket = book.ticket
    since = event.waiting_since
    if since is not None:
        written_at = max(_instant(since, event.at, book.now), ticket.opened_at)
        if ticket.is_first_settled or written_at > ticket.opened_at:
            waiting = _with(ticket.waiting, written_at, WAITING_MAX)
            ticket = replace(ticket, waiting=waiting)
    turn = _revived(book._replace(ticket=ticket), "merged", at)
    # What was merged into this one may have been split off again while it was merged itself.
    turn = _then(turn, _own_again(book._replace(ticket=turn.ticket), at))
    turn = _then(turn, _by_priority(book._replace(ticket=turn.ticket), at, "split_off"))
    return _then(turn, _next_started(book._replace(ticket=turn.ticket)))


# ----------------------------------------------------------------- other terms: merged, split, priority


def _absorbed(book: Book, event: TicketAbsorbed, at: datetime) -> Turn:
    """Another case's promises are this ticket's too: the earliest of both is kept."""
    since = event.waiting_since
    waiting = () if since is None else (_instant(since, event.at, book.now),)
    source = Source(
        merge_id=event.merge_id, conversation_id=event.from_conversation_id, waiting=waiting
    )
    told_before = [one for one in book.ticket.sources if one.merge_id == event.merge_id]
    if told_before:
        book = book._replace(ticket=_without(book.ticket, event.merge_id))
    ticket = replace(book.ticket, sources=(*book.ticket.sources, source))
    turn = Turn(ticket)
    if told_before:
        turn = _recounted(book._replace(ticket=ticket), at)
    turn = _then(
        turn, _prioritised(book._replace(ticket=turn.ticket), event.priority, at, "absorbed")
    )
    turn = _then(turn, _next_started(book._replace(ticket=turn.ticket)))
    lent = {
        target.target_id: terms
        for target in turn.ticket.targets
        if target.is_open
        for terms in _lent(book, target, event, waiting, at)
    }
    kept = replace(source, lent=lent)
    sources = tuple(kept if one == source else one for one in turn.ticket.sources)
    ticket = replace(turn.ticket, sources=sources)
    held = _held_to_earliest(
        book._replace(ticket=ticket), at, "absorbed", takes_back=bool(told_before)
    )
    return _then(turn, held)


def _lent(
    book: Book, target: Target, event: TicketAbsorbed, waiting: tuple[datetime, ...], at: datetime
) -> list[Terms]:
    """The terms that an absorbed case's promise comes to for this clock; none where it has no such promise.

    Where its deadline is told, that is what is kept. Where it is not, the clock counts from its instant. A resolution
    whose deadlines are told without one stands, so it has none.
    """
    dues = event.dues
    if target.kind == "resolution":
        if dues is not None and "resolution" not in dues:
            return []
        since = _instant(event.other_opened_at, event.at, book.now)
        due_at = None if dues is None else dues["resolution"]
    elif waiting:
        since = waiting[0]
        told = [] if dues is None else [dues[kind] for kind in RESPONSES if kind in dues]
        due_at = min(told, default=None)
    else:
        return []
    calendar = book.policy.calendar(target.calendar)
    own = target.own_terms
    started_at = min(own.started_at, since)
    allowed = own.allowed
    if due_at is not None:
        watch = replace(target.watch, started_at=started_at)
        allowed = watch.elapsed(calendar, min(at, due_at))
        if due_at > at:
            allowed += elapsed(calendar, at, due_at)
    warn_after = None
    if own.warn_after is not None and own.allowed:
        warn_after = allowed * (own.warn_after / own.allowed)
    return [Terms(started_at, allowed, warn_after)]


def _without(ticket: Ticket, merge_id: str) -> Ticket:
    return replace(ticket, sources=tuple(one for one in ticket.sources if one.merge_id != merge_id))


def _split_off(book: Book, event: TicketSplitOff, at: datetime) -> Turn:
    """A case that was merged into this one is owed what it was owed by itself again, and by this one no more."""
    turn = Turn(book.ticket)
    if any(one.merge_id == event.merge_id for one in book.ticket.sources):
        turn = _own_again(book._replace(ticket=_without(book.ticket, event.merge_id)), at)
    ticket = replace(turn.ticket, priority=event.priority)
    # Also where the priority stays: a clock whose breach was taken back has missed what became of it meanwhile.
    return _then(turn, _by_priority(book._replace(ticket=ticket), at, "split_off"))


def _own_again(book: Book, at: datetime) -> Turn:
    """After a source is gone: each clock is held to what is left."""
    turn = _recounted(book, at)
    held = _held_to_earliest(book._replace(ticket=turn.ticket), at, "split_off", takes_back=True)
    return _then(turn, held)


def _recounted(book: Book, at: datetime) -> Turn:
    """The next response counts from the oldest words that are still owed; without any, it ends."""
    turn = Turn(book.ticket)
    target = book.ticket.open_target("next_response")
    if target is not None and not book.ticket.owed:
        step = targets.drop(book.subject, target, at, book.now, "split_off")
        turn = Turn(_put(book.ticket, step.target), step.events)
    elif target is not None:
        own = target.own_terms
        own = replace(own, started_at=max(own.started_at, book.ticket.owed[0]))
        turn = Turn(_put(book.ticket, replace(target, own=own)))
    return turn


def _held_to_earliest(
    book: Book,
    at: datetime,
    reason: str,
    *,
    takes_back: bool = False,
    kinds: Iterable[TargetKind] = KINDS,
) -> Turn:
    """Hold each clock to the terms that leave it the least time: its own, or a source's."""

    def hold(target: Target) -> Step:
        calendar = book.policy.calendar(target.calendar)

        def left(terms: Terms) -> timedelta:
            watch = replace(target.watch, started_at=terms.started_at)
            return terms.allowed - watch.elapsed(calendar, at)

        own = target.own_terms
        lent = [
            one.lent[target.target_id]
            for one in book.ticket.sources
            if target.target_id in one.lent
        ]
        terms = min((own, *lent), key=left)
        return targets.retarget(
            book.subject,
            target,
            replace(target, own=None if terms == own else own),
            terms,
            at=at,
            now=book.now,
            reason=reason,
            calendar=calendar,
            takes_back=takes_back,
        )

    return _each_open(book.ticket, hold, kinds)


def _prioritised(book: Book, priority: int, at: datetime, reason: str) -> Turn:
    if book.ticket.priority == priority:
        return Turn(book.ticket)
    return _by_priority(book._replace(ticket=replace(book.ticket, priority=priority)), at, reason)


def _by_priority(book: Book, at: datetime, reason: str) -> Turn:
    """Hold the clocks to what is promised at the ticket's priority; start those that only it promises."""
    if book.ticket.is_aside:
        return Turn(book.ticket)  # It owes nothing now; its clocks are looked at when it does.

    def apply(target: Target) -> Step:
        rule = book.target_rule(target.kind)
        if not target.is_open:
            is_latest = target == book.ticket.latest(target.kind)
            if rule is None or not is_latest:
                return Step(target)
            calendar = book.policy.calendar(target.calendar)
            back = targets.revive(book.subject, target, "priority_changed", at, calendar)
            return (
                back
                if back.target is target
                else _and(back, _by_rule(book, back.target, rule, at, reason))
            )
        if target.priority == book.ticket.priority or target.breach is not None:
            return Step(target)
        if rule is None:
            return targets.cancel(book.subject, target, at, book.now, "priority_changed")
        return _by_rule(book, target, rule, at, reason)

    turn = _each(book.ticket, apply)
    for kind in ("first_response", "resolution"):
        ticket = turn.ticket
        is_owed = kind == "resolution" or not ticket.is_first_settled
        if is_owed and not ticket.counts.get(kind):
            started = _started(book._replace(ticket=ticket), kind, ticket.opened_at)
            turn = _then(turn, started)
    return _then(turn, _next_started(book._replace(ticket=turn.ticket)))


def _by_rule(book: Book, target: Target, rule: TargetRule, at: datetime, reason: str) -> Step:
    """The clock under the rule of the ticket's priority. What was spent is kept, also under another calendar."""
    calendar = book.policy.calendar(rule.calendar)
    own = target.own_terms
    allowed = rule.allowed
    if target.kind == "resolution" and book.rule.reopen == "continue":
        allowed = max(allowed - book.ticket.spent, timedelta(0))
    if rule.calendar != target.calendar:
        watch = replace(target.watch, started_at=own.started_at)
        spent = watch.elapsed(book.policy.calendar(target.calendar), at)
        allowed = max(watch.elapsed(calendar, at) + allowed - spent, timedelta(0))
    warn_after = None if rule.warn_share is None else allowed * rule.warn_share
    own = Terms(own.started_at, allowed, warn_after)
    lent = [
        one.lent[target.target_id] for one in book.ticket.sources if target.target_id in one.lent
    ]

    def left(terms: Terms) -> timedelta:
        watch = replace(target.watch, started_at=terms.started_at)
        return terms.allowed - watch.elapsed(calendar, at)

    terms = min((own, *lent), key=left)
    changed = replace(
        target,
        policy=book.rule.name,
        policy_version=book.policy.version,
        priority=book.ticket.priority,
        calendar=rule.calendar,
        pauses_on=rule.pauses_on,
        own=None if terms == own else own,
    )
    step = targets.retarget(
        book.subject,
        target,
        changed,
        terms,
        at=at,
        now=book.now,
        reason=reason,
        calendar=calendar,
    )
    for held, _ in target.watch.holds:
        if held not in rule.pauses_on:
            step = _and(step, targets.resume(book.subject, step.target, held, at, calendar))
    for cause in book.ticket.causes:
        step = _and(step, targets.pause(book.subject, step.target, cause, at, book.now, calendar))
    return step


def _and(first: Step, second: Step) -> Step:
    return Step(second.target, first.events + second.events)


def _solved(book: Book, at: datetime, with_answer: bool) -> Turn:
    """Ends every clock; the time that the ticket was held until now is not counted."""
    if with_answer:
        turn = _answered(book._replace(ticket=_still_owed(book.ticket, None)), at)
    else:
        turn = Turn(replace(_still_owed(book.ticket, None), is_first_settled=True))
    # What an answer has not met (the message came after it) is stopped all the same.
    turn = _then(turn, _cancelled(book._replace(ticket=turn.ticket), RESPONSES, at, "solved"))
    spent = turn.ticket.spent
    resolution = turn.ticket.open_target("resolution")
    if resolution is not None:
        calendar = book.policy.calendar(resolution.calendar)
        step = targets.meet(book.subject, resolution, at, book.now, calendar)
        spent += resolution.watch.elapsed(calendar, at)
        turn = Turn(_put(turn.ticket, step.target), turn.events + step.events)
    ticket = replace(turn.ticket, causes=(), spent=spent, is_aside=True)
    return turn._replace(ticket=ticket)


def _reopened(book: Book, at: datetime) -> Turn:
    """The resolution is owed again, and the message that reopened is waiting."""
    before = book.ticket.latest("resolution")
    turn = Turn(replace(book.ticket, is_aside=False))
    rule = book.target_rule("resolution")
    book = book._replace(ticket=turn.ticket)
    if rule is not None and book.ticket.open_target("resolution") is None:
        left = max(rule.allowed - book.ticket.spent, timedelta(0))
        if book.rule.reopen == "restart":
            turn = _started(book, "resolution", at)
        elif before is None or before.breach is None:  # A promise is broken once, not twice.
            turn = _started(book, "resolution", at, left)
    return _then(turn, _customer_wrote(book._replace(ticket=turn.ticket), at))


def _cancelled(book: Book, kinds: Iterable[TargetKind], at: datetime, reason: str) -> Turn:
    def stop(target: Target) -> Step:
        return targets.cancel(book.subject, target, at, book.now, reason)

    return _each_open(book.ticket, stop, kinds)


def _started(book: Book, kind: TargetKind, at: datetime, allowed: timedelta | None = None) -> Turn:
    """Start a clock of `kind`, where the policy promises one; with less time where some is spent."""
    rule = book.target_rule(kind)
    if rule is None:
        return Turn(book.ticket)
    number = book.ticket.counts.get(kind, 0) + 1
    step = targets.start(
        book.subject,
        rule,
        policy=book.rule.name,
        policy_version=book.policy.version,
        priority=book.ticket.priority,
        number=number,
        at=at,
        allowed=rule.allowed if allowed is None else allowed,
        causes=book.ticket.causes,
        calendar=book.policy.calendar(rule.calendar),
    )
    counts = {**book.ticket.counts, kind: number}
    return Turn(_put(replace(book.ticket, counts=counts), step.target), step.events)


def _ticked(state: Conversation | None, now: datetime) -> Decision:
    if state is None:
        return Decision(None, ignored=Ignored.NOTHING_DUE)
    turns = [
        _each_open(ticket, partial(_told, Subject(ticket.ticket_id, state.conversation_id), now))
        for ticket in state.tickets
    ]
    changed = [
        change
        for ticket, turn in zip(state.tickets, turns, strict=True)
        for change in _differences(ticket, turn.ticket)
    ]
    if not changed:
        return Decision(state, ignored=Ignored.NOTHING_DUE)
    return Decision(
        state=replace(state, tickets=tuple(turn.ticket for turn in turns)),
        events=tuple(event for turn in turns for event in turn.events),
        changed=tuple(changed),
    )


def _told(subject: Subject, now: datetime, target: Target) -> Step:
    return targets.tell_due(subject, target, now)


# ------------------------------------------------------------------------------- straight helpers


def _decision(
    state: Conversation,
    before: Ticket,
    turn: Turn,
    event: TicketEvent,
    now: datetime,
    policy: Policy,
) -> Decision:
    """Put the changed ticket in its place; a closed one is forgotten."""
    if turn.ignored is not None:
        return Decision(state, ignored=turn.ignored)
    others = tuple(t for t in state.tickets if t.ticket_id != before.ticket_id)
    kept = _pruned(turn.ticket)
    tickets = others if isinstance(event, TicketClosed) else (*others, kept)
    after = replace(state, tickets=tuple(sorted(tickets, key=lambda t: (t.number, t.ticket_id))))
    changed = tuple(_differences(before, turn.ticket))
    return Decision(
        state=after if after.tickets else None,
        events=turn.events,
        changed=changed,
        ignored=Ignored.NOTHING_RUNS if after == state else None,
        remarks=_remarks(turn.ticket, changed, event, now, policy),
    )


def _remarks(
    ticket: Ticket,
    changed: Iterable[Changed],
    event: TicketEvent,
    now: datetime,
    policy: Policy,
) -> tuple[Remark, ...]:
    occurred_at = getattr(event, "occurred_at", event.at)
    found = {
        Remark.FUTURE_INSTANT: occurred_at > max(event.at, now),
        Remark.UNKNOWN_POLICY: ticket.policy not in policy.policies
        and isinstance(event, TicketOpened),
        Remark.UNKNOWN_CALENDAR: any(
            change.target.calendar not in policy.calendars for change in changed
        ),
    }
    return tuple(remark for remark, is_true in found.items() if is_true)


def _each(
    ticket: Ticket, act: Callable[[Target], Step], kinds: Iterable[TargetKind] = KINDS
) -> Turn:
    """The ticket with `act` applied to its targets of `kinds`, in the order of their start."""
    wanted = tuple(kinds)
    steps = [act(t) if t.kind in wanted else Step(t) for t in ticket.targets]
    events: tuple[SlaEvent, ...] = ()
    for step in steps:
        events += step.events
    return Turn(replace(ticket, targets=tuple(step.target for step in steps)), events)


def _each_open(
    ticket: Ticket, act: Callable[[Target], Step], kinds: Iterable[TargetKind] = KINDS
) -> Turn:
    return _each(ticket, lambda target: act(target) if target.is_open else Step(target), kinds)


def _then(first: Turn, second: Turn) -> Turn:
    """Two changes, one after the other; the second was made to the first one's ticket."""
    return Turn(second.ticket, first.events + second.events)


def _put(ticket: Ticket, target: Target) -> Ticket:
    """The ticket with a new target, or with one replaced in its place."""
    ids = [known.target_id for known in ticket.targets]
    if target.target_id not in ids:
        return replace(ticket, targets=(*ticket.targets, target))
    here = ids.index(target.target_id)
    return replace(ticket, targets=(*ticket.targets[:here], target, *ticket.targets[here + 1 :]))


def _pruned(ticket: Ticket) -> Ticket:
    """The ticket without clocks that can matter no more: settled ones with a later of their kind
    and no breach to take back, and the oldest of those that have one, where they are many.
    """
    latest = [ticket.latest(kind) for kind in KINDS]
    broken = [t for t in ticket.targets if t.breach is not None and t not in latest][-BROKEN_MAX:]
    return replace(ticket, targets=tuple(t for t in ticket.targets if t in latest or t in broken))


def _differences(before: Ticket, after: Ticket) -> list[Changed]:
    known = {target.target_id: target for target in before.targets}
    return [
        Changed(after.ticket_id, target)
        for target in after.targets
        if known.get(target.target_id) != target
    ]


def _instant(occurred_at: datetime, told_at: datetime, now: datetime) -> datetime:
    """When a thing happened, in UTC; the future counts as the present.

    Raises:
        CalendarError: it lies at the very end of what can be said, where UTC has no name for it.
    """
    try:
        return min(occurred_at, max(told_at, now)).astimezone(UTC)
    except OverflowError as error:
        raise CalendarError("occurred_at", occurred_at, "an instant from 1900 to 2500") from error
