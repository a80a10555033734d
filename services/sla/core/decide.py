"""What each fact about a ticket does to its clocks.

Owns the branching: which events start, hold, meet and end which targets. What they do stands by subject: `responses` (who wrote,
who answered), `commitments` (what a person promised), `offers` (the way to a person), `tiers` (the operational agreement), `holds`
(pauses, spam), `terms` (merged, split, other rules), `recount` (other hours); what a change does to one clock in `targets`.

- `first_response` runs from the opening message to the first answer.
- `next_response` runs from the oldest message that nobody has answered to the next answer, one
  clock for however many messages; never while a first response is owed. After the first such clock `later_response` takes its
  place, where the policy promises that apart.
- `resolution` runs from the opening message to the solution, and again from a reopening.
- `periodic_update` and `callback` keep what a person said, `time_to_offer` and `time_to_accept` what assignment does, `tier` a
  desk's budget.
- A ticket that is spam or merged into another owes nothing; restored or unmerged, its clocks run on as if nothing had been.
- A ticket that takes another in keeps the earliest promise of both: its clocks are held to the other one's deadlines
  where those are earlier. When the other is split off, it is held to its own again, and owes nothing for the other's words;
  a breach that was only the other's is taken back, since the other's own clock tells it.
- Another priority, queue, customer's tier or contract, or tags may mean other targets: the clocks that run are held to them,
  with the time spent kept. A clock whose deadline has passed keeps its breach.
- Solving with an answer is an answer. Solving without one cancels the responses that are owed, and
  no first response is owed afterwards.

**Instants.** What counts is when a thing happened (`occurred_at`), not when we heard of it. What
lies in the future by our clock is taken as of the moment we heard of it, and what is told of it says so. A
customer's message is never taken as older than its ticket; those of a case that was merged into it may be.
"""

from datetime import datetime, timedelta
from functools import partial
from typing import Final

from msgspec.structs import replace

from schemas.payload import Payload
from schemas.routing import RoutingEvent
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketCalled,
    TicketClosed,
    TicketCustomerDescribed,
    TicketEscalated,
    TicketEvent,
    TicketMerged,
    TicketMessageAdded,
    TicketNoteAdded,
    TicketOpened,
    TicketPrioritised,
    TicketPromised,
    TicketReopened,
    TicketReturned,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from services.sla.core import commitments, early, offers, targets, tiers
from services.sla.core.attribution import accounted
from services.sla.core.book import (
    Book,
    Decision,
    Ignored,
    Remark,
    Tick,
    Turn,
    and_then,
    cancelled,
    concluded,
    differences,
    each,
    instant,
    is_clamped,
    put,
    started,
    subject_of,
    then,
)
from services.sla.core.holds import HOLDING, aside, cause_of, freed, held, let_go, revived
from services.sla.core.looks import looked
from services.sla.core.policy import Policy
from services.sla.core.recount import Recount, recounted
from services.sla.core.responses import answered, customer_wrote, still_owed
from services.sla.core.state import KINDS, PROMISES, RESPONSES, Conversation, Facts, Target, Ticket
from services.sla.core.targets import Step, Subject
from services.sla.core.terms import (
    absorbed,
    as_now,
    moved_to,
    prioritised,
    redescribed,
    split_off,
    unmerged,
)
from services.sla.core.waits import NOTHING_KNOWN, Estimates

ENDED: Final = ("solved", "closed")

UNROUTED: Final = (*HOLDING, "snoozed", "spam", "merged", *ENDED)
"""The statuses in which nobody is sought for a ticket."""


def decide(
    state: Conversation | None,
    event: Payload | Tick | Recount,
    now: datetime,
    policy: Policy,
    estimates: Estimates = NOTHING_KNOWN,
) -> Decision:
    """Apply one event, the passing of time, or a change of hours or policy, at `now`.

    `estimates` are what is known of waits, for the risk of clocks.

    Raises:
        CalendarError: an instant that no calendar covers, or a deadline beyond its horizon.
    """
    match event:
        case Tick():
            return _ticked(state, now, policy, estimates)
        case Recount():
            return recounted(state, event, now, policy)
        case TicketOpened():
            return _opened(state, event, now, policy)
        case TicketEvent():
            ticket = None if state is None else state.ticket(event.ticket_id)
            if state is None or ticket is None:
                return Decision(state, ignored=Ignored.TICKET_UNKNOWN)
            book = Book(ticket, event.conversation_id, now, policy, is_clamped(event, now))
            return _decided(state, book, accounted(book, event, _turn(book, event)), event)
        case RoutingEvent():
            ticket = None if state is None else state.ticket(event.ticket_id)
            if state is None or ticket is None or _is_early(state, ticket, event):
                return early.kept(state, event, now)
            book = Book(ticket, event.conversation_id, now, policy, is_clamped(event, now))
            return _decided(state, book, accounted(book, event, offers.routed(book, event)), event)
        case _:
            return Decision(state, ignored=Ignored.NOT_OURS)


def next_due(state: Conversation | None) -> datetime | None:
    """When `decide` next wants a `Tick`: the earliest warning or deadline still to be told, or what came early to be forgotten."""
    if state is None:
        return None
    due = [
        at
        for ticket in state.tickets
        for target in ticket.targets
        if (at := targets.next_instant(target)) is not None
    ]
    due += [one.until for one in state.early]
    return min(due, default=None)


def _decided(state: Conversation, book: Book, turn: Turn, event: Payload) -> Decision:
    """The decision on a ticket that is known; what assignment told too early follows once it is wanted."""
    if turn.ignored is None and (
        book.ticket.unrouted_at is not None and turn.ticket.unrouted_at is None
    ):
        state, turn = _with_early(state, book, turn)
    return concluded(state, book.ticket, turn, event, book.now, book.policy)


def _is_early(state: Conversation, ticket: Ticket, event: RoutingEvent) -> bool:
    """Whether a fact of assignment is to wait for the ticket, as what it follows does."""
    if not offers.is_ahead(ticket, event):
        return False
    return offers.begins_stay(event) or early.follows(state, event)


def _with_early(state: Conversation, book: Book, turn: Turn) -> tuple[Conversation, Turn]:
    state, waiting = early.taken(state, turn.ticket.ticket_id)
    for event in waiting:
        here = book._replace(ticket=turn.ticket, is_clamped=is_clamped(event, book.now))
        turn = then(turn, accounted(here, event, offers.routed(here, event)))
    return state, turn


def _turn(book: Book, event: TicketEvent) -> Turn:
    """All branching on what happened to a ticket that is known."""
    now = book.now
    match event:
        case TicketAnswered() | TicketAnsweredElsewhere():
            return _answered(book, event, instant(event.occurred_at, now))
        case TicketMessageAdded() if event.is_automatic:
            return Turn(book.ticket, ignored=Ignored.AUTOMATIC)
        case TicketMessageAdded() if event.status in ENDED:
            return Turn(book.ticket, ignored=Ignored.TICKET_SOLVED)  # Reopening is told apart.
        case TicketMessageAdded():
            written_at = instant(event.occurred_at, now)
            return customer_wrote(book, written_at, event.from_conversation_id)
        case TicketPromised():
            return commitments.promised(book, event, instant(event.at, now))
        case TicketCalled():
            return commitments.called(book, event, instant(event.occurred_at, now))
        case TicketStatusChanged() | TicketMerged() | TicketUnmerged():
            return _moved(book, event, instant(event.at, now))
        case TicketEscalated() | TicketReturned():
            return _handed_on(book, event.to_queue, instant(event.at, now))
        case (
            TicketAbsorbed()
            | TicketSplitOff()
            | TicketPrioritised()
            | TicketTagged()
            | TicketCustomerDescribed()
        ):
            return _changed_terms(book, event, instant(event.at, now))
        case TicketSolved():
            told_at = instant(event.at, now)
            return _solved(book, instant(event.occurred_at, now), told_at, event.with_answer)
        case TicketReopened():
            return _reopened(book, event.queue, instant(event.occurred_at, now))
        case TicketClosed():
            return cancelled(book, KINDS, instant(event.at, now), "closed")
        case TicketNoteAdded():
            return Turn(book.ticket, ignored=Ignored.PRIVATE_NOTE)
        case _:
            return Turn(book.ticket, ignored=Ignored.NOT_OURS)


def _moved(
    book: Book, event: TicketStatusChanged | TicketMerged | TicketUnmerged, at: datetime
) -> Turn:
    """What the ticket's new standing does to its clocks."""
    match event:
        case TicketMerged():
            return _set_aside(book, at, "merged")
        case TicketUnmerged():
            turn = unmerged(book, event, at)
            return _back(book._replace(ticket=turn.ticket), turn, event.queue, at, "split_off")
        case TicketStatusChanged(status="spam"):
            return _set_aside(book, at, "spam")
        case TicketStatusChanged(before="spam"):
            turn = revived(book, "spam", at)
            return _back(book._replace(ticket=turn.ticket), turn, event.queue, at)
        case TicketStatusChanged(status="merged" | "solved" | "closed"):
            return Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)  # Told by events of their own.
    turn = Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)
    if event.queue != book.ticket.queue:
        turn = moved_to(book, event.queue, at)
    now_unrouted = event.status in UNROUTED
    if now_unrouted:
        here = book._replace(ticket=turn.ticket)
        turn = then(turn, offers.unrouted(here, at, event.status, at))
    elif turn.ticket.unrouted_at is not None:
        turn = Turn(replace(turn.ticket, unrouted_at=None), turn.events)
    here = book._replace(ticket=turn.ticket)
    if event.status in HOLDING:
        return then(turn, held(here, cause_of(event, book.policy), at))
    if here.ticket.causes:
        return then(turn, freed(here, here.ticket.causes, at))
    return turn


def _set_aside(book: Book, at: datetime, reason: str) -> Turn:
    """It owes nothing from now on."""
    here = aside(book._replace(ticket=tiers.with_spent(book, at)))
    turn = offers.unrouted(here, at, reason, at)
    return then(turn, cancelled(here._replace(ticket=turn.ticket), KINDS, at, reason))


def _back(book: Book, turn: Turn, queue: str, at: datetime, reason: str = "") -> Turn:
    """The ticket of `turn` is somebody's to answer again, in `queue`; its clocks go by what it has become meanwhile."""
    turn = Turn(replace(turn.ticket, unrouted_at=None), turn.events)
    turn = then(turn, moved_to(book._replace(ticket=turn.ticket), queue, at))
    turn = then(turn, as_now(book._replace(ticket=turn.ticket), at, reason))
    return then(turn, tiers.entered(book._replace(ticket=turn.ticket), at))


def _handed_on(book: Book, queue: str, at: datetime) -> Turn:
    if queue == book.ticket.queue or book.ticket.is_aside:
        return Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)  # Coming back tells the queue.
    return moved_to(book, queue, at)


def _changed_terms(
    book: Book,
    event: TicketAbsorbed
    | TicketSplitOff
    | TicketPrioritised
    | TicketTagged
    | TicketCustomerDescribed,
    at: datetime,
) -> Turn:
    """What makes a ticket's clocks count for more, or for less, than they did."""
    facts = book.ticket.facts
    match event:
        case TicketAbsorbed():
            return absorbed(book, event, at)
        case TicketSplitOff():
            return split_off(book, event, at)
        case TicketPrioritised():
            return prioritised(book, event.priority, at, "priority_changed")
        case TicketTagged():
            tagged = replace(facts, tags=event.tags)
            return _or_ignored(book, redescribed(book, tagged, at, "tags_changed"))
        case TicketCustomerDescribed():
            described = replace(
                facts, customer_tier=event.tier or "", contract=event.contract or ""
            )
            return _or_ignored(book, redescribed(book, described, at, "customer_changed"))


def _or_ignored(book: Book, turn: Turn) -> Turn:
    """A change that tells of nothing new is no change."""
    if turn.ticket == book.ticket:
        return Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)
    return turn


def _opened(
    state: Conversation | None, event: TicketOpened, now: datetime, policy: Policy
) -> Decision:
    if state is not None and state.ticket(event.ticket_id) is not None:
        return Decision(state, ignored=Ignored.ALREADY_OPEN)
    at = instant(event.occurred_at, now)
    ticket = Ticket(
        ticket_id=event.ticket_id,
        number=event.number,
        policy=event.sla_policy,
        priority=event.priority,
        opened_at=at,
        facts=_facts(event),
    )
    book = Book(ticket, event.conversation_id, now, policy, is_clamped(event, now))
    turn = Turn(ticket)
    for kind in ("first_response", "resolution"):
        turn = then(turn, started(book.of(turn.ticket), kind, at))
    turn = then(turn, tiers.entered(book.of(turn.ticket), at))
    turn = accounted(book, event, turn)
    before = state or Conversation(conversation_id=event.conversation_id, tickets=())
    before, turn = _with_early(before, book, turn)
    return concluded(before, ticket, turn, event, now, policy)


def _facts(event: TicketOpened) -> Facts:
    contact, context = event.contact, event.context
    return Facts(
        queue=event.queue,
        channel=contact.channel,
        account=contact.account,
        language=contact.language or "",
        customer_tier=(context.tier if context is not None else None) or "",
        contract=(context.contract if context is not None else None) or "",
        desk=event.desk,
        tags=event.tags,
    )


def _answered(book: Book, event: TicketAnswered | TicketAnsweredElsewhere, at: datetime) -> Turn:
    """An answer of ours: what waited for one is met, and so is what was promised in its stead."""
    if isinstance(event, TicketAnswered):
        channel, next_update_by = book.ticket.channel, event.next_update_by
    else:
        channel, next_update_by = event.channel, None
    turn = answered(book, at)
    here = book._replace(ticket=turn.ticket)
    return then(turn, commitments.answered(here, at, channel, next_update_by))


def _solved(book: Book, at: datetime, told_at: datetime, with_answer: bool) -> Turn:
    """Ends every clock; the time that the ticket was held until now is not counted."""
    if with_answer:
        turn = answered(book._replace(ticket=still_owed(book.ticket, None)), at)
        here = book._replace(ticket=turn.ticket)
        turn = then(turn, commitments.kept_by_answer(here, at, book.ticket.channel))
    else:
        turn = Turn(replace(still_owed(book.ticket, None), is_first_settled=True))
    # What an answer has not met (the message came after it) is stopped all the same.
    stopped = (*RESPONSES, *PROMISES)
    turn = then(turn, cancelled(book._replace(ticket=turn.ticket), stopped, at, "solved"))
    turn = then(turn, offers.unrouted(book._replace(ticket=turn.ticket), at, "solved", told_at))
    turn = then(turn, tiers.left(book._replace(ticket=turn.ticket), at))
    spent = turn.ticket.spent
    resolution = turn.ticket.open_target("resolution")
    if resolution is not None:
        calendar = book.policy.calendar(resolution.calendar)
        step = targets.meet(book.subject, resolution, at, book.now, calendar)
        spent += resolution.watch.elapsed(calendar, at)
        turn = Turn(put(turn.ticket, step.target), turn.events + step.events)
    ticket = let_go(turn.ticket, turn.ticket.causes, at)
    ticket = replace(ticket, causes=(), spent=spent, is_aside=True)
    return turn._replace(ticket=ticket)


def _reopened(book: Book, queue: str, at: datetime) -> Turn:
    """The resolution is owed again, and the message that reopened is waiting."""
    before = book.ticket.latest("resolution")
    # The message may be older than the solution, and until then the time was counted.
    ends = (None if before is None else before.settled_at, book.ticket.unrouted_at)
    since = max((at, *(one for one in ends if one is not None)))
    is_whole = book.rule.reopen == "restart"
    ticket = replace(book.ticket, is_aside=False, unrouted_at=None)
    turn = Turn(replace(ticket, tier_spent={}) if is_whole else ticket)
    rule = book.target_rule("resolution")
    book = book._replace(ticket=turn.ticket)
    if rule is not None and book.ticket.open_target("resolution") is None:
        left = max(rule.allowed - book.ticket.spent, timedelta(0))
        if is_whole:
            turn = started(book, "resolution", since)
        elif before is None or before.breach is None:  # A promise is broken once, not twice.
            turn = started(book, "resolution", since, left)
    turn = then(turn, customer_wrote(book._replace(ticket=turn.ticket), at, reopens=True))
    return _back(book._replace(ticket=turn.ticket), turn, queue, since)


def _ticked(
    state: Conversation | None, now: datetime, policy: Policy, estimates: Estimates
) -> Decision:
    if state is None:
        return Decision(None, ignored=Ignored.NOTHING_DUE)
    turns = [
        each(
            ticket,
            partial(
                _told,
                subject_of(ticket, state.conversation_id),
                ticket.facts,
                now,
                policy,
                estimates,
            ),
        )
        for ticket in state.tickets
    ]
    changed = [
        change
        for ticket, turn in zip(state.tickets, turns, strict=True)
        for change in differences(ticket, turn.ticket)
    ]
    kept = early.forgotten(state, now)
    if not changed and kept is state:
        return Decision(state, ignored=Ignored.NOTHING_DUE)
    after = replace(kept, tickets=tuple(turn.ticket for turn in turns))
    return Decision(
        state=after if after.tickets or after.early else None,
        events=tuple(event for turn in turns for event in turn.events),
        changed=tuple(changed),
        remarks=() if kept is state else (Remark.EARLY_FORGOTTEN,),
    )


def _told(
    subject: Subject,
    facts: Facts,
    now: datetime,
    policy: Policy,
    estimates: Estimates,
    target: Target,
) -> Step:
    first = targets.next_instant(target)
    if first is None or first > now:
        return Step(target)
    step = targets.tell_due(subject, target, now)
    return and_then(step, looked(subject, step.target, facts, now, policy, estimates))
