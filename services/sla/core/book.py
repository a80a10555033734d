"""A ticket in hand: what its rules need to know, what a decision is made of, and the straight helpers.

Owns no branching on events. Whoever adds a rule works on a `Book`, gives back a `Turn`, and chains turns with `then`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec.structs import replace

from hours.calendar import CalendarError
from schemas.payload import Payload
from schemas.routing import RoutingEvent
from schemas.sla import SlaEvent, TargetKind
from schemas.tickets import TicketClosed, TicketEvent, TicketOpened
from services.sla.core import targets
from services.sla.core.policy import Policy, PolicyRule, TargetRule
from services.sla.core.state import KINDS, Conversation, Facts, Target, Ticket
from services.sla.core.targets import Step, Subject

BROKEN_MAX: Final = 20
"""Settled clocks with a breach that a late answer may still take back; older ones are final."""

SKEW: Final = timedelta(seconds=1)
"""How far another machine's clock may be ahead of ours before what it tells counts as the future."""

_INSTANTS: Final = ("at", "occurred_at", "offered_at", "assigned_at")
"""The fields that say when something happened."""


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
    NOTHING_MOVED = "nothing_moved"
    NOT_OURS = "not_ours"
    TOO_MANY_EARLY = "too_many_early"
    STAY_PAST = "stay_past"
    PROMISE_PAST = "promise_past"
    CALL_TOO_EARLY = "call_too_early"
    CALL_DOES_NOT_COUNT = "call_does_not_count"


class Remark(StrEnum):
    """What a person should know about a decision that was made all the same."""

    FUTURE_INSTANT = "future_instant"
    UNKNOWN_POLICY = "unknown_policy"
    UNKNOWN_CALENDAR = "unknown_calendar"
    EARLY_FORGOTTEN = "early_forgotten"
    EARLY_LOST = "early_lost"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: tell what fell due."""


class Changed(NamedTuple):
    """A target that is not what it was, or whose ticket is not, and what the ticket is now."""

    ticket_id: str
    target: Target
    facts: Facts = Facts()


class Decision(NamedTuple):
    """The state afterwards (`None`: nothing is left to remember) and what is told.

    `changed` are the targets that are not what they were, those of forgotten tickets included;
    `ignored` says why nothing happened.
    """

    state: Conversation | None
    events: tuple[Payload, ...] = ()
    changed: tuple[Changed, ...] = ()
    ignored: Ignored | None = None
    remarks: tuple[Remark, ...] = ()


class Turn(NamedTuple):
    """A ticket after a change, and what is told of it; or why nothing changed."""

    ticket: Ticket
    events: tuple[Payload, ...] = ()
    ignored: Ignored | None = None


class Book(NamedTuple):
    """A ticket, and what its rules need to know."""

    ticket: Ticket
    conversation_id: str
    now: datetime
    policy: Policy
    is_clamped: bool = False

    def of(self, ticket: Ticket) -> "Book":
        """The same with the ticket as it is by now."""
        return Book(ticket, self.conversation_id, self.now, self.policy, self.is_clamped)

    @property
    def subject(self) -> Subject:
        """Whose clocks these are."""
        return subject_of(self.ticket, self.conversation_id, is_clamped=self.is_clamped)

    @property
    def rule(self) -> PolicyRule:
        """The policy that the ticket's next clocks start under."""
        ticket = self.ticket
        return self.policy.select(ticket.policy, ticket.facts, ticket.priority)

    def target_rule(self, kind: TargetKind, tier: str = "") -> TargetRule | None:
        """What is promised of `kind`, of `tier` where that is the kind."""
        return self.rule.target(self.ticket.priority, kind, tier)

    def rule_of(self, target: Target) -> TargetRule | None:
        """What is promised now where `target` was; None: nothing, or a person's word alone."""
        return self.target_rule(target.kind, target.tier)


def subject_of(ticket: Ticket, conversation_id: str, *, is_clamped: bool = False) -> Subject:
    """Whose clocks a ticket's are, as events name it."""
    return Subject(
        ticket.ticket_id,
        conversation_id,
        ticket.facts.queue,
        ticket.facts.channel,
        ticket.priority,
        is_clamped,
    )


def started(
    book: Book,
    kind: TargetKind,
    at: datetime,
    allowed: timedelta | None = None,
    *,
    tier: str = "",
    rule: TargetRule | None = None,
    is_promise: bool = False,
    not_before: datetime | None = None,
) -> Turn:
    """Start a clock of `kind`, where the policy promises one; with less time where some is spent.

    A person's promise brings its own `rule`; `not_before` is when keeping it begins to count.
    """
    ticket, chosen = book.ticket, book.rule
    rule = rule or chosen.target(ticket.priority, kind, tier)
    if rule is None:
        return Turn(ticket)
    number = ticket.counts.get(kind, 0) + 1
    step = targets.start(
        book.subject,
        rule,
        policy=chosen.name,
        policy_version=book.policy.version,
        priority=ticket.priority,
        number=number,
        at=at,
        allowed=rule.allowed if allowed is None else allowed,
        held=ticket.held,
        calendar=book.policy.calendar(rule.calendar),
        is_promise=is_promise,
        not_before=not_before,
        looks=book.policy.at_risk.looks if kind == "first_response" else (),
    )
    counts = {**ticket.counts, kind: number}
    return Turn(
        replace(ticket, counts=counts, targets=_placed(ticket.targets, step.target)), step.events
    )


def cancelled(book: Book, kinds: Iterable[TargetKind], at: datetime, reason: str) -> Turn:
    """End the open clocks of `kinds` at `at`: they are of no use any more."""

    def stop(target: Target) -> Step:
        return targets.cancel(book.subject, target, at, book.now, reason)

    return each_open(book.ticket, stop, kinds)


def each(
    ticket: Ticket, act: Callable[[Target], Step], kinds: Iterable[TargetKind] = KINDS
) -> Turn:
    """The ticket with `act` applied to its targets of `kinds`, in the order of their start."""
    wanted = tuple(kinds)
    kept: list[Target] = []
    events: list[SlaEvent] = []
    is_other = False
    for target in ticket.targets:
        if target.kind not in wanted:
            kept.append(target)
            continue
        step = act(target)
        kept.append(step.target)
        events += step.events
        is_other = is_other or step.target is not target
    return Turn(replace(ticket, targets=tuple(kept)) if is_other else ticket, tuple(events))


def each_open(
    ticket: Ticket, act: Callable[[Target], Step], kinds: Iterable[TargetKind] = KINDS
) -> Turn:
    """The ticket with `act` applied to its open targets of `kinds`."""
    return each(ticket, lambda target: act(target) if target.is_open else Step(target), kinds)


def then(first: Turn, second: Turn) -> Turn:
    """Two changes, one after the other; the second was made to the first one's ticket."""
    return Turn(second.ticket, first.events + second.events)


def and_then(first: Step, second: Step) -> Step:
    """Two changes of one target; the second was made to the first one's target."""
    return Step(second.target, first.events + second.events)


def put(ticket: Ticket, target: Target) -> Ticket:
    """The ticket with a new target, or with one replaced in its place."""
    return replace(ticket, targets=_placed(ticket.targets, target))


def _placed(known: tuple[Target, ...], target: Target) -> tuple[Target, ...]:
    for here, one in enumerate(known):
        if one.target_id == target.target_id:
            return (*known[:here], target, *known[here + 1 :])
    return (*known, target)


def differences(before: Ticket, after: Ticket) -> list[Changed]:
    """The targets that are not what they were; the open ones of a ticket that is not what it was as well."""
    if before is after:
        return []
    known = {target.target_id: target for target in before.targets}
    is_other = before.facts != after.facts
    found = []
    for target in after.targets:
        one = known.get(target.target_id)
        if (one is not target and one != target) or (is_other and target.is_open):
            found.append(Changed(after.ticket_id, target, after.facts))
    return found


def instant(at: datetime, now: datetime) -> datetime:
    """When a thing happened, in UTC; what lies in the future by our clock counts as the present.

    Raises:
        CalendarError: it lies at the very end of what can be said, where UTC has no name for it.
    """
    try:
        return (at if at <= now + SKEW else now).astimezone(UTC)
    except OverflowError as error:
        raise CalendarError("occurred_at", at, "an instant from 1900 to 2500") from error


def is_clamped(event: Payload, now: datetime) -> bool:
    """Whether an event of a ticket or of assignment tells of an instant that lies in the future by our clock."""
    if not isinstance(event, TicketEvent | RoutingEvent):
        return False
    for name in _INSTANTS:
        at = getattr(event, name, None)
        if at is not None and at > now + SKEW:
            return True
    return False


def concluded(
    state: Conversation,
    before: Ticket,
    turn: Turn,
    event: Payload,
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
    changed = tuple(differences(before, turn.ticket))
    return Decision(
        state=after if after.tickets or after.early else None,
        events=turn.events,
        changed=changed,
        ignored=Ignored.NOTHING_RUNS if after == state else None,
        remarks=_remarks(turn.ticket, changed, event, now, policy),
    )


def _remarks(
    ticket: Ticket,
    changed: Iterable[Changed],
    event: Payload,
    now: datetime,
    policy: Policy,
) -> tuple[Remark, ...]:
    found = []
    if is_clamped(event, now):
        found.append(Remark.FUTURE_INSTANT)
    if ticket.policy not in policy.policies and isinstance(event, TicketOpened):
        found.append(Remark.UNKNOWN_POLICY)
    if not all(policy.knows_calendar(change.target.calendar) for change in changed):
        found.append(Remark.UNKNOWN_CALENDAR)
    return tuple(found)


def _pruned(ticket: Ticket) -> Ticket:
    """The ticket without clocks that can matter no more: settled ones with a later of their kind
    and no breach to take back, and the oldest of those that have one, where they are many.
    """
    if len({target.kind for target in ticket.targets}) == len(ticket.targets):
        return ticket  # Each is the latest of its kind.
    latest = [ticket.latest(kind) for kind in KINDS]
    broken = [t for t in ticket.targets if t.breach is not None and t not in latest][-BROKEN_MAX:]
    return replace(ticket, targets=tuple(t for t in ticket.targets if t in latest or t in broken))
