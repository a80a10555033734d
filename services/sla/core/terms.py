"""Other terms for clocks that run: cases merged and split off, and a ticket that is not what it was to the rules."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from hours.calendar import elapsed
from schemas.sla import TargetKind
from schemas.tickets import TicketAbsorbed, TicketSplitOff, TicketUnmerged
from services.sla.core import commitments, targets, tiers
from services.sla.core.book import (
    Book,
    Turn,
    and_then,
    each,
    each_open,
    instant,
    put,
    started,
    then,
)
from services.sla.core.holds import revived, stood_meanwhile
from services.sla.core.policy import TargetRule
from services.sla.core.responses import WAITING_MAX, next_started, with_message
from services.sla.core.state import (
    KINDS,
    PROMISES,
    RESPONSES,
    Cancelled,
    Facts,
    Source,
    Target,
    Terms,
    Ticket,
)
from services.sla.core.targets import Step

RETERMED: Final = (
    "priority_changed",
    "queue_changed",
    "customer_changed",
    "tags_changed",
    "policy_changed",
)
"""Why a clock ends that is not promised to the ticket as it is now; it runs on if that comes back."""

_OF_THE_CASE: Final[tuple[TargetKind, ...]] = (*RESPONSES, "resolution")
"""The targets that are owed or not by what has happened in the case, whatever was promised meanwhile."""


def absorbed(book: Book, event: TicketAbsorbed, at: datetime) -> Turn:
    """Another case's promises are this ticket's too: the earliest of both is kept."""
    if event.dues:
        dues = {kind: commitments.in_utc(due_at) for kind, due_at in event.dues.items()}
        event = event.model_copy(update={"dues": dues})
    since = event.waiting_since
    waiting = () if since is None else (instant(since, book.now),)
    source = Source(
        merge_id=event.merge_id, conversation_id=event.from_conversation_id, waiting=waiting
    )
    told_before = [one for one in book.ticket.sources if one.merge_id == event.merge_id]
    begun = tuple(name for one in told_before for name in one.begun)
    if told_before:
        book = book._replace(ticket=_without(book.ticket, event.merge_id))
    ticket = replace(book.ticket, sources=(*book.ticket.sources, source))
    turn = Turn(ticket)
    if told_before:
        turn = _recounted(book._replace(ticket=ticket), at)
    turn = then(
        turn, prioritised(book._replace(ticket=turn.ticket), event.priority, at, "absorbed")
    )
    turn = then(turn, next_started(book._replace(ticket=turn.ticket)))
    taken, begun = _promises_taken_over(book._replace(ticket=turn.ticket), event, begun, at)
    turn = then(turn, taken)
    lent = {
        target.target_id: terms
        for target in turn.ticket.targets
        if target.is_open and target.target_id not in begun
        for terms in _lent(book, target, event, waiting, at)
    }
    kept = replace(source, lent=lent, begun=begun)
    sources = tuple(kept if one == source else one for one in turn.ticket.sources)
    ticket = replace(turn.ticket, sources=sources)
    kept_to = held_to_earliest(
        book._replace(ticket=ticket), at, "absorbed", takes_back=bool(told_before)
    )
    turn = then(turn, kept_to)
    facts = replace(turn.ticket.facts, tags=event.tags)
    return then(turn, redescribed(book._replace(ticket=turn.ticket), facts, at, "absorbed"))


def _promises_taken_over(
    book: Book, event: TicketAbsorbed, begun: tuple[str, ...], at: datetime
) -> tuple[Turn, tuple[str, ...]]:
    """What the other case's customer was promised by a person is owed here, and by which clocks alone for that."""
    turn = Turn(book.ticket)
    kept: tuple[str, ...] = ()
    for kind in PROMISES:
        book = book._replace(ticket=turn.ticket)
        due_at = (event.dues or {}).get(kind)
        target = book.ticket.open_target(kind)
        is_begun = target is not None and target.target_id in begun
        if due_at is None or due_at <= at:
            # None, or one that is broken where it was made: its own clock tells that.
            if target is not None and is_begun:
                step = targets.drop(book.subject, target, at, book.now, "split_off")
                turn = then(turn, Turn(put(book.ticket, step.target), step.events))
            continue
        if target is None or is_begun:
            made = commitments.promised_by(book, kind, at, due_at, None, "absorbed")
            turn = then(turn, made)
            latest = turn.ticket.open_target(kind)
            kept += () if latest is None else (latest.target_id,)
    return turn, kept


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
        since = instant(event.other_opened_at, book.now)
        due_at = None if dues is None else dues["resolution"]
    elif target.kind in PROMISES:
        if dues is None or target.kind not in dues or dues[target.kind] <= at:
            return []
        since, due_at = target.own_terms.started_at, dues[target.kind]
    elif waiting and target.kind in RESPONSES:
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


def split_off(book: Book, event: TicketSplitOff, at: datetime) -> Turn:
    """A case that was merged into this one is owed what it was owed by itself again, and by this one no more."""
    turn = Turn(book.ticket)
    gone = [one for one in book.ticket.sources if one.merge_id == event.merge_id]
    if gone:
        begun = tuple(name for one in gone for name in one.begun)
        without = book._replace(ticket=_without(book.ticket, event.merge_id))

        def end(target: Target) -> Step:
            if target.target_id not in begun:
                return Step(target)
            return targets.drop(book.subject, target, at, book.now, "split_off")

        turn = each_open(without.ticket, end, PROMISES)
        turn = then(turn, own_again(book._replace(ticket=turn.ticket), at))
    ticket = replace(turn.ticket, priority=event.priority)
    # Also where the priority stays: a clock whose breach was taken back has missed what became of it meanwhile.
    turn = then(turn, by_priority(book._replace(ticket=ticket), at, "split_off"))
    facts = replace(turn.ticket.facts, tags=event.tags)
    return then(turn, redescribed(book._replace(ticket=turn.ticket), facts, at, "split_off"))


def unmerged(book: Book, event: TicketUnmerged, at: datetime) -> Turn:
    """It stands on its own: what was owed is owed again, and so is what was written in it meanwhile."""
    ticket = book.ticket
    since = event.waiting_since
    if since is not None:
        written_at = max(instant(since, book.now), ticket.opened_at)
        if ticket.is_first_settled or written_at > ticket.opened_at:
            waiting = with_message(ticket.waiting, written_at, WAITING_MAX)
            ticket = replace(ticket, waiting=waiting)
    turn = revived(book._replace(ticket=ticket), "merged", at)
    # What was merged into this one may have been split off again while it was merged itself.
    turn = then(turn, own_again(book._replace(ticket=turn.ticket), at))
    return then(turn, next_started(book._replace(ticket=turn.ticket)))


def own_again(book: Book, at: datetime) -> Turn:
    """After a source is gone: each clock is held to what is left."""
    turn = _recounted(book, at)
    kept_to = held_to_earliest(book._replace(ticket=turn.ticket), at, "split_off", takes_back=True)
    return then(turn, kept_to)


def _recounted(book: Book, at: datetime) -> Turn:
    """The next response counts from the oldest words that are still owed; without any, it ends."""
    turn = Turn(book.ticket)
    target = book.ticket.open_target("next_response") or book.ticket.open_target("later_response")
    if target is not None and not book.ticket.owed:
        step = targets.drop(book.subject, target, at, book.now, "split_off")
        turn = Turn(put(book.ticket, step.target), step.events)
    elif target is not None:
        own = target.own_terms
        own = replace(own, started_at=max(own.started_at, book.ticket.owed[0]))
        turn = Turn(put(book.ticket, replace(target, own=own)))
    return turn


def held_to_earliest(
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

    return each_open(book.ticket, hold, kinds)


def prioritised(book: Book, priority: int, at: datetime, reason: str) -> Turn:
    """The ticket is more or less urgent than it was."""
    if book.ticket.priority == priority:
        return Turn(book.ticket)
    return by_priority(book._replace(ticket=replace(book.ticket, priority=priority)), at, reason)


def by_priority(book: Book, at: datetime, reason: str) -> Turn:
    """Hold the clocks to what is promised at the ticket's priority; start those that only it promises."""
    return _by_terms(book, at, reason, lambda one: one.priority != book.ticket.priority)


def as_now(book: Book, at: datetime, reason: str) -> Turn:
    """Hold the clocks to what is promised to the ticket as it is now: it may be another one than when it was set aside."""
    rule, priority = book.rule, book.ticket.priority
    is_other = any(one.is_open and one.priority != priority for one in book.ticket.targets)
    reason = reason or ("priority_changed" if is_other else "customer_changed")
    return _by_terms(
        book, at, reason, lambda one: one.policy != rule.name or one.priority != priority
    )


def redescribed(book: Book, facts: Facts, at: datetime, reason: str) -> Turn:
    """The ticket is something else to the rules: hold the clocks to what is promised to such a one.

    Where the rules make no difference nothing moves, also if the policy was edited meanwhile: clocks keep what they were
    started with.
    """
    after = book._replace(ticket=replace(book.ticket, facts=facts))
    before_rule, rule = book.rule, after.rule
    if before_rule is rule:
        return Turn(after.ticket)

    def differs(target: Target) -> bool:
        return before_rule.name != rule.name or book.rule_of(target) != after.rule_of(target)

    return _by_terms(after, at, reason, differs)


def moved_to(book: Book, queue: str, at: datetime) -> Turn:
    """The ticket waits in `queue`, or is worked on from there: other people's hours, another tier's budget."""
    before = book.ticket.queue
    if queue == before:
        return Turn(book.ticket)
    facts = replace(book.ticket.facts, queue=queue)
    turn = tiers.left(book, at) if _is_other_tier(book, before, queue) else Turn(book.ticket)
    turn = then(turn, redescribed(book._replace(ticket=turn.ticket), facts, at, "queue_changed"))
    return then(turn, tiers.entered(book._replace(ticket=turn.ticket), at))


def _is_other_tier(book: Book, before: str, queue: str) -> bool:
    return book.policy.tiers.get(before) != book.policy.tiers.get(queue)


def _by_terms(book: Book, at: datetime, reason: str, differs: Callable[[Target], bool]) -> Turn:
    """Hold the clocks for which the terms differ to those of now; start those that only these promise."""
    if book.ticket.is_aside:
        return Turn(book.ticket)  # It owes nothing now; its clocks are looked at when it does.
    ended = reason if reason in RETERMED else "priority_changed"
    tier = book.ticket.open_target("tier")
    if tier is not None and tier.breach is None and book.rule_of(tier) is None and differs(tier):
        book = book._replace(ticket=tiers.with_spent(book, at))  # No budget is given twice.

    def apply(target: Target) -> Step:
        rule = book.rule_of(target)
        if not target.is_open:
            return promised_again(book, target, rule, at, reason)
        if target.is_promise or target.breach is not None or not differs(target):
            return Step(target)
        if rule is None:
            return targets.cancel(book.subject, target, at, book.now, ended)
        return by_rule(book, target, rule, at, reason)

    turn = each(book.ticket, apply)
    for kind in _OPENED_WITH:
        ticket = turn.ticket
        is_owed = kind == "resolution" or not ticket.is_first_settled
        if is_owed and not ticket.counts.get(kind):
            turn = then(turn, started(book._replace(ticket=ticket), kind, ticket.opened_at))
    turn = then(turn, next_started(book._replace(ticket=turn.ticket)))
    return then(turn, tiers.entered(book._replace(ticket=turn.ticket), at))


_OPENED_WITH: Final[tuple[TargetKind, ...]] = ("first_response", "resolution")
"""The targets that a ticket starts with."""


def promised_again(
    book: Book, target: Target, rule: TargetRule | None, at: datetime, reason: str
) -> Step:
    """The clock of the case that ended since it was promised no more, and is again; if it is still owed.

    It has stood meanwhile when the ticket was held, and what held it then and is over holds it no more.
    """
    is_owed = {
        "first_response": not book.ticket.is_first_settled,
        "resolution": True,
    }.get(target.kind, bool(book.ticket.owed))
    if (
        rule is None
        or not is_owed
        or target.kind not in _OF_THE_CASE
        or not isinstance(target.phase, Cancelled)
        or target.phase.reason not in RETERMED
        or target != book.ticket.latest(target.kind)
    ):
        return Step(target)
    calendar = book.policy.calendar(target.calendar)
    ended_for = target.phase.reason
    stood = stood_meanwhile(target, book.ticket.held, rule.pauses_on)
    back = targets.revive(book.subject, stood, ended_for, at, calendar)
    return and_then(back, by_rule(book, back.target, rule, at, reason))


def by_rule(book: Book, target: Target, rule: TargetRule, at: datetime, reason: str) -> Step:
    """The clock under another rule. What was spent is kept, also under another calendar."""
    calendar = book.policy.calendar(rule.calendar)
    own = target.own_terms
    allowed = rule.allowed
    if target.kind == "resolution" and book.rule.reopen == "continue":
        allowed = max(allowed - book.ticket.spent, timedelta(0))
    if target.kind == "tier":
        allowed = max(allowed - book.ticket.tier_spent.get(target.tier, timedelta(0)), timedelta(0))
    carried = target.carried
    if rule.calendar != target.calendar:
        watch = replace(target.watch, started_at=own.started_at)
        spent = watch.elapsed(book.policy.calendar(target.calendar), at) - carried
        carried = watch.elapsed(calendar, at) - spent
    allowed = max(allowed + carried, timedelta(0))
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
        carried=carried,
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
        if not targets.is_held_by(rule.pauses_on, held):
            step = and_then(step, targets.resume(book.subject, step.target, held, at, calendar))
    for cause in book.ticket.causes:
        step = and_then(
            step, targets.pause(book.subject, step.target, cause, at, book.now, calendar)
        )
    return step
