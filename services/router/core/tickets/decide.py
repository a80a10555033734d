"""What happens to a conversation's ticket: each message, command, routing fact, clock and timer, one after another.

`decide` is total: what does not fit is refused with an event (commands) or ignored under a name (everything else).
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from msgspec import Struct, structs

from schemas import ids
from schemas import tickets as wire
from schemas.commands import (
    AnyCommand,
    Command,
    MergeTicket,
)
from schemas.customers import (
    CustomerDescribed,
    CustomerErased,
    CustomerEvent,
    CustomerLinkSuggested,
    CustomerMerged,
    CustomerUnmerged,
)
from schemas.feedback import FeedbackGiven
from schemas.merging import (
    HOPS_MAX,
    ErasureCarried,
    MergeAnswered,
    MergeAsked,
    MergeChanged,
    MergeEnded,
    MergeEvent,
    MergeUndone,
    MessageCarried,
    MessageReturned,
    NoteCarried,
    RevisionCarried,
)
from schemas.messages import MessageReceived, MessageRevised
from schemas.notifications import (
    NoticeDeferred,
    NoticeDeliveryReported,
    NoticeEvent,
    NoticeFailed,
    NoticeSuppressed,
    NoticeUnknown,
)
from schemas.payload import Payload
from schemas.routing import (
    AssignmentExhausted,
    OfferMade,
    QueueOverloaded,
    RoutingEvent,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    TransferRefused,
)
from schemas.sla import (
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
from services.router.core.policy.policy import Policy
from services.router.core.tickets import (
    absorbed,
    escalation,
    feedback,
    lifecycle,
    merge,
    orders,
)
from services.router.core.tickets.rows import ErasedRow, MessageRow, MovedRow, RevisedRow
from services.router.core.tickets.state import (
    PAST_MAX,
    SEEN_MAX,
    Assigned,
    Contact,
    Conversation,
    Into,
    Merged,
    Merging,
    Offered,
    OnHold,
    Past,
    Pending,
    Queued,
    Snoozed,
    Solved,
    Spam,
    Ticket,
)
from services.router.core.tickets.story import SIGNALBOX, Story

CLOSE: Final = "close"
"""The timer that ends the reopen window."""

WAKE: Final = "wake"
"""The timer that wakes a ticket on hold, or a snoozed one."""

RISE: Final = "rise"
"""The timer that moves a ticket up by its age."""


MERGE: Final = "merge"
"""The timer that gives up a merge whose question nobody answers."""


class CloseDue(Struct, frozen=True):
    """The reopen window may be over."""


class WakeDue(Struct, frozen=True):
    """A ticket that rests may have to wake."""


class RiseDue(Struct, frozen=True):
    """A ticket may have waited with the front line for too long."""


class MergeDue(Struct, frozen=True):
    """A question to another ticket may have stayed without an answer for too long."""


TIMERS: Final[dict[str, CloseDue | WakeDue | RiseDue | MergeDue]] = {
    CLOSE: CloseDue(),
    WAKE: WakeDue(),
    RISE: RiseDue(),
    MERGE: MergeDue(),
}
"""What each timer says when it fires."""


class Decision(NamedTuple):
    """The conversation from now on, what is told, and what is stored beside it.

    `closed` are tickets that left the state with this decision, `ignored` why the input means nothing here.
    """

    state: Conversation | None
    events: tuple[Payload, ...] = ()
    messages: tuple[MessageRow | MovedRow | RevisedRow | ErasedRow, ...] = ()
    closed: tuple[Ticket, ...] = ()
    ignored: str | None = None


NoticeTrouble = (
    NoticeFailed | NoticeUnknown | NoticeSuppressed | NoticeDeferred | NoticeDeliveryReported
)
"""What may mean that a customer has not been told what somebody believes that they were."""

Event = (
    MessageReceived
    | MessageRevised
    | CustomerEvent
    | AnyCommand
    | MergeEvent
    | RoutingEvent
    | SlaEvent
    | NoticeTrouble
    | FeedbackGiven
    | CloseDue
    | WakeDue
    | RiseDue
    | MergeDue
)


def decide(
    state: Conversation | None, event: Event, now: datetime, policy: Policy, occurred_at: datetime
) -> Decision:
    """Apply one event. `occurred_at` is when its sender acted; `now` when it is decided.

    What every change may call for is done last: somebody on call is told, and the timer of the ticket's age is set.
    """
    decision = _apply(state, event, now, policy, occurred_at)
    after = decision.state
    if after is None or after.ticket is None:
        return decision
    if state is not None and after.ticket is state.ticket:
        return decision
    story = Story(after.conversation_id, after.ticket, now)
    escalation.call_out(story, policy)
    escalation.set_timer(story, policy)
    if story.ticket is after.ticket:
        return decision
    return decision._replace(
        state=structs.replace(after, ticket=story.ticket),
        events=(*decision.events, *story.events),
    )


def _apply(
    state: Conversation | None, event: Event, now: datetime, policy: Policy, occurred_at: datetime
) -> Decision:
    match event:
        case MessageReceived():
            return _message(state or Conversation(event.conversation_id), event, now, policy)
        case MessageRevised():
            return _revised(state, event, now)
        case Command():
            return _command(state, event, now, policy, occurred_at)
        case MergeEvent():
            return _merging(state, event, now, policy)
        case CloseDue() | WakeDue() | RiseDue() | MergeDue():
            return _due(state, event, now, policy)
        case FeedbackGiven():
            return _feedback(state, event, now, policy)
        case CustomerEvent():
            return _customer(state, event, now)
        case _ if state is None or state.ticket is None:
            return Decision(state, ignored="no_open_ticket")
        case _ if event.ticket_id != state.ticket.ticket_id:
            return Decision(state, ignored="other_ticket")
    story = Story(state.conversation_id, state.ticket, now)
    match event:
        case RoutingEvent():
            ignored = _routing(story, event, policy)
        case NoticeEvent():
            ignored = _notice_lost(story, event)
        case _:
            ignored = _clock(story, event, policy)
    return _told(state, story, ignored)


def _due(
    state: Conversation | None,
    timer: CloseDue | WakeDue | RiseDue | MergeDue,
    now: datetime,
    policy: Policy,
) -> Decision:
    match timer:
        case CloseDue():
            return _close(state, now)
        case WakeDue():
            return _wake(state, now, policy)
        case RiseDue():
            return _rise(state, now, policy)
        case MergeDue():
            return _merge_unanswered(state, now)


def timers(state: Conversation | None) -> dict[str, datetime]:
    """Return when which timer fires; the ledger keeps them by these names."""
    if state is None or state.ticket is None:
        return {}
    ticket = state.ticket
    due = {} if ticket.rise_at is None else {RISE: ticket.rise_at}
    if ticket.merging is not None and ticket.merging.asked_at is not None:
        due[MERGE] = ticket.merging.asked_at + merge.PATIENCE
    match ticket.standing:
        case Solved(close_at=at) | Spam(close_at=at):
            return {**due, CLOSE: at}
        case OnHold(until=until) if until is not None:
            return {**due, WAKE: until}
        case Snoozed(until=until):
            return {**due, WAKE: until}
        case _:
            return due


def _told(state: Conversation, story: Story, ignored: str | None) -> Decision:
    if ignored is not None:
        return Decision(state, ignored=ignored)
    return Decision(structs.replace(state, ticket=story.ticket), tuple(story.events))


def _remember(state: Conversation, seen: str) -> Conversation:
    return structs.replace(state, seen=(*state.seen, seen)[-SEEN_MAX:])


# ------------------------------------------------------------------------------------------- messages


def _set_aside_reason(message: MessageReceived) -> str | None:
    content = message.content
    if content.direction == "outbound":
        return "outbound"
    if content.kind == "bounce":
        return "bounce"
    if content.is_automatic or content.kind == "auto_reply":
        return "automatic"
    return None


def _message(
    state: Conversation,
    message: MessageReceived,
    now: datetime,
    policy: Policy,
    *,
    via: str | None = None,
) -> Decision:
    """Take in a message; `via` is the merged conversation that it was written in, if it was in another than this."""
    if message.message_id in state.seen:
        return Decision(state, ignored="message_repeated")
    state = _remember(state, message.message_id)
    reason = _set_aside_reason(message)
    match state.ticket:
        case Ticket(standing=Merged()):
            return _carry(state, state.ticket, message, now)
        case Ticket(standing=Spam(close_at=close_at)) if now < close_at:
            return _set_aside(state, message, now, reason or "spam")
        case Ticket(
            standing=Queued() | Offered() | Assigned() | Pending() | OnHold() | Snoozed()
        ) if reason != "outbound":
            return _added(
                state, state.ticket, message, now, policy, is_automatic=reason is not None, via=via
            )
        case Ticket(standing=Queued() | Offered() | Assigned() | Pending() | OnHold() | Snoozed()):
            return _answered_elsewhere(state, state.ticket, message, now)
        case _ if reason is not None:
            return _set_aside(state, message, now, reason)
        case Ticket(standing=Solved(close_at=close_at)) if now < close_at:
            return _reopened(state, state.ticket, message, now, policy, via=via)
        case _:
            return _opened(state, message, now, policy)


def _row(
    message: MessageReceived, ticket_id: str | None, outcome: str, now: datetime
) -> MessageRow:
    return MessageRow(
        message.message_id,
        message.input_id,
        ticket_id,
        message.conversation_id,
        message.content.kind,
        outcome,
        now,
        lifecycle.what_is_new(message),
    )


def _answered_elsewhere(
    state: Conversation, ticket: Ticket, message: MessageReceived, now: datetime
) -> Decision:
    story = Story(state.conversation_id, ticket, now)
    lifecycle.answered_elsewhere(story, message)
    _keep(story, message)
    row = _row(message, None, "outbound", now)
    return Decision(structs.replace(state, ticket=story.ticket), tuple(story.events), (row,))


def _revised(state: Conversation | None, message: MessageRevised, now: datetime) -> Decision:
    """Tell the open case that a message changed. What is said now replaces what was kept, in any case."""
    content = message.content
    seen = f"{message.message_id}/{message.input_id}"
    if state is not None and seen in state.seen:
        return Decision(state, ignored="message_repeated")
    row = RevisedRow(message.message_id, content.text_new or content.text)
    if state is None or state.ticket is None:
        return Decision(state, (), (row,))
    story = Story(state.conversation_id, state.ticket, now)
    lifecycle.message_revised(story, message)
    if isinstance(state.ticket.standing, Merged):
        merge.carry_revision(story, message)
    state = _remember(structs.replace(state, ticket=story.ticket), seen)
    return Decision(state, tuple(story.events), (row,))


def _set_aside(
    state: Conversation, message: MessageReceived, now: datetime, reason: str
) -> Decision:
    told = wire.MessageNotTicketed(
        message_id=message.message_id,
        conversation_id=message.conversation_id,
        reason=reason,
        at=now,
    )
    return Decision(state, (told,), (_row(message, None, reason, now),))


def _keep(story: Story, message: MessageReceived) -> None:
    """A ticket that is about to be merged carries what came meanwhile after it."""
    if story.ticket.merging is not None:
        merge.keep(story, story.ticket.merging, message)


def _added(
    state: Conversation,
    ticket: Ticket,
    message: MessageReceived,
    now: datetime,
    policy: Policy,
    *,
    is_automatic: bool,
    via: str | None,
) -> Decision:
    story = Story(state.conversation_id, ticket, now)
    lifecycle.add_message(story, message, is_automatic=is_automatic, from_conversation_id=via)
    _keep(story, message)
    if not is_automatic:
        absorbed.wrote(story, ticket, message.content.occurred_at, via)
        _woken_by_customer(story, policy)
        escalation.by_silence(story, policy)
        escalation.by_words(story, message.content.fields, policy)
    return Decision(
        structs.replace(state, ticket=story.ticket),
        tuple(story.events),
        (_row(message, ticket.ticket_id, "added", now),),
    )


def _woken_by_customer(story: Story, policy: Policy) -> None:
    rules = policy.routing.life_cycle
    match story.ticket.standing:
        case Pending():
            lifecycle.resume(story, policy)
        case OnHold() if rules.customer_wakes_on_hold:
            lifecycle.wake(story, policy, "customer_replied")
        case Snoozed() if rules.customer_wakes_snoozed:
            lifecycle.wake(story, policy, "customer_replied")
        case _:
            pass


def _reopened(
    state: Conversation,
    ticket: Ticket,
    message: MessageReceived,
    now: datetime,
    policy: Policy,
    *,
    via: str | None,
) -> Decision:
    story = Story(state.conversation_id, ticket, now)
    lifecycle.add_message(story, message, is_automatic=False, from_conversation_id=via)
    absorbed.wrote(story, ticket, message.content.occurred_at, via)
    lifecycle.reopen(story, message, policy)
    escalation.by_reopening(story, policy)
    escalation.by_words(story, message.content.fields, policy)
    return Decision(
        structs.replace(state, ticket=story.ticket),
        tuple(story.events),
        (_row(message, ticket.ticket_id, "reopened", now),),
    )


def _opened(
    state: Conversation, message: MessageReceived, now: datetime, policy: Policy
) -> Decision:
    # A timer that is late must not keep a dead ticket open: the message closes it first.
    ended = _closed(state, now)
    left = ended.state or state
    before = left.past[-1] if left.past else None
    number = before.number + 1 if before is not None else 1
    story = lifecycle.open_ticket(message, number, before, now, policy)
    story.change(moved_at=now, waiting_since=message.content.occurred_at, unanswered=1)
    escalation.by_words(story, message.content.fields, policy)
    escalation.by_tags(story, story.ticket.tags, policy)
    outcome = "followed_up" if before is not None else "opened"
    return Decision(
        structs.replace(left, ticket=story.ticket),
        (*ended.events, *story.events),
        (_row(message, story.ticket.ticket_id, outcome, now),),
        ended.closed,
    )


# -------------------------------------------------------------------------------------------- merging


def _carry(
    state: Conversation,
    ticket: Ticket,
    message: MessageReceived,
    now: datetime,
    merge_id: str = "",
    hops: int = 0,
) -> Decision:
    """What is written in a merged ticket goes on to the one that it went into."""
    assert isinstance(ticket.standing, Merged)
    story = Story(state.conversation_id, ticket, now)
    merge.carry(story, message, merge_id or ticket.standing.merge_id, hops)
    match _set_aside_reason(message):
        case None:
            merge.wrote(story, message.content.occurred_at)
        case "outbound":
            merge.answered_elsewhere(story, message.content.occurred_at)
        case _:
            pass
    row = _row(message, ticket.standing.into_ticket_id, "carried", now)
    return Decision(structs.replace(state, ticket=story.ticket), tuple(story.events), (row,))


def _carried(state: Conversation, event: MessageCarried, now: datetime, policy: Policy) -> Decision:
    """Take in a message that was written in a case merged into this one. Its row stands already, under that case."""
    if event.message.message_id in state.seen:
        return Decision(state, ignored="message_repeated")
    ticket = state.ticket
    if ticket is None or ticket.ticket_id != event.ticket_id or _is_over(ticket, now):
        # A timer that is late must not keep a dead ticket open: it is closed first, and what was merged into it with it.
        ended = _closed(state, now) if ticket is not None and _is_over(ticket, now) else None
        left = state if ended is None else ended.state or state
        return Decision(
            _remember(left, event.message.message_id),
            (*(() if ended is None else ended.events), merge.give_back(event)),
            (),
            () if ended is None else ended.closed,
        )
    if isinstance(ticket.standing, Merged):
        if event.hops >= HOPS_MAX:
            # No chain that long is made; were there one, the message must still not be lost.
            return Decision(_remember(state, event.message.message_id), (merge.give_back(event),))
        remembered = _remember(state, event.message.message_id)
        carried = _carry(remembered, ticket, event.message, now, event.merge_id, event.hops + 1)
        return carried._replace(messages=())
    message = event.message.model_copy(update={"conversation_id": state.conversation_id})
    decision = _message(state, message, now, policy, via=event.from_conversation_id)
    moved = tuple(
        MovedRow((row.message_id,), row.ticket_id)
        for row in decision.messages
        if isinstance(row, MessageRow) and row.ticket_id is not None
    )
    told = tuple(one for one in decision.events if not isinstance(one, wire.MessageNotTicketed))
    return decision._replace(events=told, messages=moved)


def _is_over(ticket: Ticket, now: datetime) -> bool:
    """Whether the reopen window is over, though the timer may be late."""
    match ticket.standing:
        case Solved(close_at=close_at) | Spam(close_at=close_at):
            return now >= close_at
        case _:
            return False


def _returned(
    state: Conversation, event: MessageReturned, now: datetime, policy: Policy
) -> Decision:
    """A message that was carried from here found its target closed: it is this conversation's after all.

    Its row stands already, so that it is counted once.
    """
    message = event.message
    seen = f"returned/{event.merge_id}/{message.message_id}"
    if seen in state.seen:
        return Decision(state, ignored="message_repeated")
    known = tuple(one for one in state.seen if one != message.message_id)
    state = _remember(structs.replace(state, seen=known), seen)
    ended = Decision(state)
    ticket = state.ticket
    if (
        ticket is not None
        and isinstance(ticket.standing, Merged)
        and ticket.standing.merge_id == event.merge_id
    ):
        # What it was merged into is closed, whether we were told already or not.
        ended = _closed(state, now)
    decision = _message(ended.state or state, message, now, policy)
    moved = tuple(
        MovedRow((row.message_id,), row.ticket_id)
        for row in decision.messages
        if isinstance(row, MessageRow) and row.ticket_id is not None
    )
    return decision._replace(
        events=(*ended.events, *decision.events),
        messages=moved,
        closed=(*ended.closed, *decision.closed),
    )


def _merging(
    state: Conversation | None, event: MergeEvent, now: datetime, policy: Policy
) -> Decision:
    """Follow what another conversation's task says of a merge."""
    match event:
        case MergeAsked():
            return _asked(state, event, now, policy)
        case MessageCarried():
            return _carried(state or Conversation(event.conversation_id), event, now, policy)
        case MessageReturned():
            return _returned(state or Conversation(event.conversation_id), event, now, policy)
        case ErasureCarried():
            return _erasure_carried(state, event, now)
        case MergeAnswered():
            return _answered(state, event, now)
        case _ if state is None or state.ticket is None:
            return Decision(state, ignored="no_open_ticket")
        case MergeUndone() | MergeChanged() if event.ticket_id == state.ticket.ticket_id:
            return _brings_less(state, state.ticket, event, now, policy)
        case RevisionCarried() | NoteCarried() if event.ticket_id == state.ticket.ticket_id:
            return _word_carried(state, state.ticket, event, now)
        case MergeEnded() if event.ticket_id == state.ticket.ticket_id:
            standing = state.ticket.standing
            if not isinstance(standing, Merged) or standing.merge_id != event.merge_id:
                return Decision(state, ignored="merge_unknown")
            return _closed(state, now)
        case _:
            return Decision(state, ignored="other_ticket")


def _asked(
    state: Conversation | None, event: MergeAsked, now: datetime, policy: Policy
) -> Decision:
    ticket = None if state is None else state.ticket
    if event.conversation_id == event.from_conversation_id:
        return Decision(state, (merge.answer(event, "merge_cycle"),))
    if state is None or ticket is None or ticket.ticket_id != event.ticket_id:
        past = () if state is None else state.past
        is_past = any(one.ticket_id == event.ticket_id for one in past)
        return Decision(
            state, (merge.answer(event, "target_closed" if is_past else "target_unknown"),)
        )
    if merge.has_taken(ticket, event):
        return Decision(state, (merge.answer(event, reference=ticket.reference),))
    seen = f"merge/{event.merge_id}/{event.from_ticket_id}"
    if seen in state.seen:
        # It was refused, passed on or undone. What has come of it meanwhile must not come of it twice.
        return Decision(state, ignored="merge_repeated")
    state = _remember(state, seen)
    if isinstance(ticket.standing, Merged):
        return Decision(state, (merge.ask_further(event, ticket.standing),))
    reason = merge.objection(ticket, event)
    if reason:
        return Decision(state, (merge.answer(event, reason),))
    story = Story(state.conversation_id, ticket, now)
    merge.absorb(story, event, policy)
    story.events.append(merge.answer(event, reference=ticket.reference))
    return _told(state, story, None)


def _brings_less(
    state: Conversation,
    ticket: Ticket,
    event: MergeUndone | MergeChanged,
    now: datetime,
    policy: Policy,
) -> Decision:
    story = Story(state.conversation_id, ticket, now)
    if isinstance(event, MergeUndone):
        is_known = merge.let_go(story, event, policy)
    else:
        is_known = merge.changed(story, event, policy)
    return _told(state, story, None if is_known else "merge_unknown")


def _word_carried(
    state: Conversation, ticket: Ticket, event: RevisionCarried | NoteCarried, now: datetime
) -> Decision:
    """What came up in a merged case is told here, where it goes on; or passed on, where this one is merged too."""
    if isinstance(event, RevisionCarried):
        seen = f"{event.message.message_id}/{event.message.input_id}"
    else:
        seen = f"note/{event.note_id}"
    if seen in state.seen:
        return Decision(state, ignored="message_repeated")
    state = _remember(state, seen)
    story = Story(state.conversation_id, ticket, now)
    is_merged = isinstance(ticket.standing, Merged)
    match event:
        case _ if is_merged and event.hops >= HOPS_MAX:
            return Decision(state, ignored="carried_too_far")
        case RevisionCarried() if is_merged:
            merge.carry_revision(story, event.message, event.hops + 1)
        case RevisionCarried():
            lifecycle.message_revised(story, event.message)
        case NoteCarried() if is_merged:
            merge.carry_note(story, event.note_id, event.text, event.hops + 1)
        case NoteCarried():
            lifecycle.note(story, event.note_id, SIGNALBOX, event.text)
    return _told(state, story, None)


def _answered(state: Conversation | None, event: MergeAnswered, now: datetime) -> Decision:
    ticket = None if state is None else state.ticket
    if state is None or ticket is None or ticket.ticket_id != event.ticket_id:
        return _answered_late(state, event)
    merging = ticket.merging
    if merging is None or merging.merge_id != event.merge_id:
        standing = ticket.standing
        if isinstance(standing, Merged) and standing.merge_id == event.merge_id:
            return Decision(state, ignored="merge_unknown")
        return _answered_late(state, event)
    story = Story(state.conversation_id, ticket, now)
    if event.is_accepted:
        merge.granted(story, event, merging)
        state = merge.remembering(state, Into(event.into_conversation_id, event.into_ticket_id))
        return _told(state, story, None)
    return _not_merged(state, ticket, merging, event.reason, now)


def _answered_late(state: Conversation | None, event: MergeAnswered) -> Decision:
    """The source does not wait for this answer any more. A target that has taken it in has to let it go."""
    if not event.is_accepted:
        return Decision(state, ignored="merge_unknown")
    return Decision(state, (merge.late_yes(event),))


def _merge_unanswered(state: Conversation | None, now: datetime) -> Decision:
    """Nobody answers: the ticket is its own again, and can be worked on."""
    due = timers(state).get(MERGE)
    if state is None or state.ticket is None or due is None or now < due:
        return Decision(state, ignored="nothing_due")
    merging = state.ticket.merging
    assert merging is not None, "its timer runs"
    return _not_merged(state, state.ticket, merging, "merge_unanswered", now)


def _not_merged(
    state: Conversation, ticket: Ticket, merging: Merging, reason: str, now: datetime
) -> Decision:
    story = Story(state.conversation_id, ticket, now)
    story.change(merging=None)
    refused = MergeTicket(
        command_id=merging.merge_id,
        conversation_id=state.conversation_id,
        ticket_id=ticket.ticket_id,
        agent_id=merging.agent_id,
        into_conversation_id=merging.into_conversation_id,
        into_ticket_id=merging.into_ticket_id,
    )
    story.events.append(orders.refused(refused, reason, ticket, now))
    return _told(state, story, None)


def _erasure_carried(state: Conversation | None, event: ErasureCarried, now: datetime) -> Decision:
    """Whoever wrote in a case that was ever merged into one of these is to be forgotten: what came from that case goes.

    So it does where the case has left again, or the ticket is closed: its story is told on.
    """
    if state is None:
        return Decision(None, ignored="no_conversation")
    seen = f"erased/{event.from_conversation_id}/{event.at.isoformat()}"
    if seen in state.seen:
        return Decision(state, ignored="erasure_repeated")
    state = _remember(state, seen)
    sources = (event.from_conversation_id, *event.path)
    if state.ticket is not None:
        story = Story(state.conversation_id, state.ticket, now)
        absorbed.forget(story, sources)
        state = structs.replace(state, ticket=story.ticket)
    told = merge.carry_erasure(
        state, event.members, event.message_ids, event.by, event.at, came=event
    )
    row = ErasedRow(state.conversation_id, event.members, event.message_ids, sources)
    return Decision(state, told, (row,))


# ------------------------------------------------------------------------------------------ customers


def _customer(state: Conversation | None, event: CustomerEvent, now: datetime) -> Decision:
    """Follow what becomes of the customer, in the open case and in the closed ones that are remembered."""
    if state is None:
        return Decision(None, ignored="no_conversation")
    match event:
        case CustomerMerged() | CustomerUnmerged():
            return _renamed(state, event, now)
        case CustomerLinkSuggested():
            return _suggested(state, event, now)
        case CustomerDescribed():
            return _described(state, event, now)
        case CustomerErased():
            return _erased(state, event, now)
        case _:
            return Decision(state, ignored="not_for_tickets")


def _renamed(
    state: Conversation, event: CustomerMerged | CustomerUnmerged, now: datetime
) -> Decision:
    past = tuple(
        one
        if one.contact is None
        else structs.replace(
            one, contact=lifecycle.renamed(one.contact, event.members, event.customer_id)
        )
        for one in state.past
    )
    after = structs.replace(state, past=past)
    if state.ticket is None:
        return Decision(after, ignored=None if after != state else "other_customer")
    story = Story(state.conversation_id, state.ticket, now)
    lifecycle.change_customer(
        story,
        event.members,
        event.customer_id,
        "merged" if isinstance(event, CustomerMerged) else "unmerged",
        event.merge_id,
        event.by,
    )
    after = structs.replace(after, ticket=story.ticket)
    ignored = None if after != state else "other_customer"
    return Decision(after, tuple(story.events), ignored=ignored)


def _described(state: Conversation, event: CustomerDescribed, now: datetime) -> Decision:
    if state.ticket is None:
        return Decision(state, ignored="no_open_ticket")
    story = Story(state.conversation_id, state.ticket, now)
    is_theirs = lifecycle.describe_customer(story, event)
    return _told(state, story, None if is_theirs else "other_customer")


def _suggested(state: Conversation, event: CustomerLinkSuggested, now: datetime) -> Decision:
    if state.ticket is None:
        return Decision(state, ignored="no_open_ticket")
    story = Story(state.conversation_id, state.ticket, now)
    why = "; ".join(piece.detail for piece in event.evidence)
    lifecycle.note(
        story,
        ids.derive("note", "link", event.customer_id, event.other_id),
        SIGNALBOX,
        f"The customer may be the same person as {event.other_id} (score {event.score:.2f}): {why}."
        " Nothing was merged; `signalbox customer suggestions` asks.",
    )
    return _told(state, story, None)


def _erased(state: Conversation, event: CustomerErased, now: datetime) -> Decision:
    """Forget who it was. The case stands as it stood, and nobody can be answered in it."""
    members = event.members

    def is_theirs(contact: Contact | None) -> bool:
        return contact is not None and (contact.own_id in members or contact.customer_id in members)

    ticket = state.ticket
    if ticket is not None and is_theirs(ticket.contact):
        ticket = lifecycle.without_person(ticket)
    past = tuple(
        structs.replace(one, contact=lifecycle.nobody(one.contact))
        if one.contact is not None and is_theirs(one.contact)
        else one
        for one in state.past
    )
    told: list[Payload] = [
        wire.ConversationErased(conversation_id=state.conversation_id, by=event.by, at=now)
    ]
    told += merge.carry_erasure(state, members, event.message_ids, event.by, now)
    row = ErasedRow(state.conversation_id, members, event.message_ids)
    return Decision(structs.replace(state, ticket=ticket, past=past), tuple(told), (row,))


# ---------------------------------------------------------------------------------------------- timer


def _closed(state: Conversation, now: datetime) -> Decision:
    if state.ticket is None:
        return Decision(state)
    story = Story(state.conversation_id, state.ticket, now)
    past: Past = lifecycle.close(story)
    merge.end(story)
    left = structs.replace(state, ticket=None, past=(*state.past, past)[-PAST_MAX:])
    return Decision(left, tuple(story.events), (), (story.ticket,))


def _close(state: Conversation | None, now: datetime) -> Decision:
    due = timers(state).get(CLOSE)
    if state is None or due is None or now < due:
        return Decision(state, ignored="nothing_due")
    return _closed(state, now)


def _wake(state: Conversation | None, now: datetime, policy: Policy) -> Decision:
    due = timers(state).get(WAKE)
    if state is None or state.ticket is None or due is None or now < due:
        return Decision(state, ignored="nothing_due")
    story = Story(state.conversation_id, state.ticket, now)
    is_held = isinstance(state.ticket.standing, OnHold)
    lifecycle.wake(story, policy, "hold_over" if is_held else "snooze_over")
    return _told(state, story, None)


def _rise(state: Conversation | None, now: datetime, policy: Policy) -> Decision:
    due = timers(state).get(RISE)
    if state is None or state.ticket is None or due is None or now < due:
        return Decision(state, ignored="nothing_due")
    story = Story(state.conversation_id, state.ticket, now)
    # The policy may say something else by now than when the timer was set.
    escalation.set_timer(story, policy)
    due = story.ticket.rise_at
    if due is not None and now >= due:
        escalation.by_age(story, due, policy)
    return _told(state, story, None)


# ------------------------------------------------------------------------------------------- commands


def _command(
    state: Conversation | None,
    command: AnyCommand,
    now: datetime,
    policy: Policy,
    occurred_at: datetime,
) -> Decision:
    if state is None:
        # Nothing is kept of a conversation that nobody wrote in: whoever invents ids must not fill the store.
        return Decision(None, (orders.refused(command, "ticket_unknown", None, now),))
    seen = f"command/{command.command_id}"
    if seen in state.seen:
        return Decision(state, ignored="command_repeated")
    state = _remember(state, seen)
    ticket = state.ticket
    if ticket is None or ticket.ticket_id != command.ticket_id:
        past = next((one for one in state.past if one.ticket_id == command.ticket_id), None)
        reason = "ticket_unknown" if past is None else "closed"
        return Decision(state, (orders.refused(command, reason, past, now),))
    story = Story(state.conversation_id, ticket, now)
    refusal = orders.objection(ticket, command)
    if refusal is None:
        refusal = orders.obey(story, state, command, policy, occurred_at)
    if refusal is not None:
        return Decision(state, (orders.refused(command, refusal, ticket, now),))
    if story.ticket.merging is not None and ticket.merging is None:
        asked = story.ticket.merging
        state = merge.remembering(state, Into(asked.into_conversation_id, asked.into_ticket_id))
    ignored = None if story.events else "changes_nothing"
    back: tuple[MovedRow, ...] = ()
    if isinstance(ticket.standing, Merged) and ticket.standing.carried:
        # Unmerged: nothing else is done to a merged ticket. What was carried is its own again.
        back = (MovedRow(ticket.standing.carried, ticket.ticket_id),)
    return Decision(
        structs.replace(state, ticket=story.ticket), tuple(story.events), back, ignored=ignored
    )


# ------------------------------------------------------------------------------------------- feedback


def _feedback(
    state: Conversation | None, event: FeedbackGiven, now: datetime, policy: Policy
) -> Decision:
    """Have a low answer looked at by a person: in its case, in the one that is open now, or in a new one."""
    if state is None:
        return Decision(None, ignored="ticket_unknown")
    seen = feedback.heard(event.feedback_id)
    if seen in state.seen:
        return Decision(state, ignored="feedback_repeated")
    if feedback.is_superseded(state.seen, event):
        return Decision(state, ignored="feedback_superseded")
    ticket = state.ticket
    past = next((one for one in state.past if one.ticket_id == event.ticket_id), None)
    if past is None and (ticket is None or ticket.ticket_id != event.ticket_id):
        return Decision(state, ignored="ticket_unknown")
    is_changed = feedback.has_acted(state.seen, event)
    ignored = feedback.objection(ticket, past, event, policy, is_changed=is_changed)
    if ignored is not None:
        # Known all the same: an earlier word that comes after it is no news.
        return Decision(_remember(state, seen), ignored=ignored)
    is_known = feedback.is_looked_at(state.recovery, ticket, event, now)
    story = _after_feedback(state, past, event, now, policy, is_changed=is_changed)
    ticket_id = event.ticket_id if story is None else story.ticket.ticket_id
    recovery = feedback.after(
        state.recovery,
        event,
        ticket_id,
        now,
        is_low=feedback.is_low(event, policy),
        is_same=is_known or is_changed,
    )
    state = _remember(_remember(state, seen), feedback.acted(event))
    state = structs.replace(state, recovery=recovery)
    if story is None:
        return Decision(state, ignored="looked_at_already")
    return Decision(structs.replace(state, ticket=story.ticket), tuple(story.events))


def _after_feedback(
    state: Conversation,
    past: Past | None,
    event: FeedbackGiven,
    now: datetime,
    policy: Policy,
    *,
    is_changed: bool,
) -> Story | None:
    """Return the story of the case that is looked at, or noted in; None where a person has seen to it and all cases are closed."""
    ticket, recovery = state.ticket, state.recovery
    is_known = not is_changed and feedback.is_looked_at(recovery, ticket, event, now)
    if ticket is None:
        assert past is not None, "objection() has seen to it"
        if is_known:
            return None
        number = state.past[-1].number + 1
        return feedback.follow_up(state.conversation_id, number, past, event, now, policy)
    story = Story(state.conversation_id, ticket, now)
    if is_changed:
        feedback.tell_change(story, event, recovery, policy)
    elif is_known:
        assert recovery is not None, "is_looked_at() has seen to it"
        feedback.tell_another(story, event, recovery)
    else:
        feedback.look_again(story, event, policy)
    return story


# ------------------------------------------------------------------------- routing, clocks, notices


def _routing(story: Story, event: RoutingEvent, policy: Policy) -> str | None:
    """Follow what assignment says; return why the event means nothing here, if so."""
    ticket = story.ticket
    if event.work_id != ticket.work_id:
        return "stale_work"
    match event, ticket.standing:
        case OfferMade(), Queued() | Offered():
            standing = Offered(event.work_id, event.agent_id, event.reservation_id)
            story.move(standing, "offered", event.agent_id)
        case TicketAssigned(), Queued() | Offered():
            story.change(last_agent_id=event.agent_id, last_agent_at=story.now)
            if ticket.desk == "technical":
                story.change(technical_agent_id=event.agent_id)
            story.move(
                Assigned(event.work_id, event.agent_id),
                event.how,
                event.agent_id,
                overfull=event.overfull,
            )
        case TicketRequeued(), Offered() | Assigned():
            story.move(Queued(event.work_id), event.reason, event.agent_id)
            lifecycle.take_place(story)
        case AssignmentExhausted(), Queued():
            _exhausted(story, event, policy)
        case TransferRefused(), Queued():
            _transfer_refused(story, event)
        case QueueOverloaded(), Queued() | Offered():
            return _overloaded(story, event, policy)
        case TicketQueued() | TicketRequeued(), Queued():
            return "already_queued"
        case _:
            return "changes_no_ticket"
    return None


def _exhausted(story: Story, event: AssignmentExhausted, policy: Policy) -> None:
    ticket = story.ticket
    if ticket.delegation is not None:
        # Nobody wants the part; the case is its owner's as before.
        lifecycle.give_back(
            story,
            ids.derive("return", ticket.ticket_id, event.work_id),
            SIGNALBOX,
            "everyone who was asked for the part has declined",
            ticket.delegation,
            policy,
        )
    elif ticket.excluded:
        lifecycle.ask_again(story, policy)
    elif policy.routing.escalation.on_exhausted and escalation.can_rise(ticket):
        escalation.hand_over(
            story, policy, reason="everyone who could take it has declined", by_rule="on_exhausted"
        )
    else:
        lifecycle.note(
            story,
            ids.derive("note", "exhausted", event.work_id),
            SIGNALBOX,
            f"Everyone in the queue {event.queue} who could take this has declined it. "
            "It waits on; somebody has to look.",
        )


def _transfer_refused(story: Story, event: TransferRefused) -> None:
    why = ", ".join(rule.replace("_", " ") for rule in event.rules or (event.reason,))
    lifecycle.note(
        story,
        ids.derive("note", "transfer", event.work_id, event.agent_id),
        SIGNALBOX,
        f"It could not be given to {event.agent_id} ({why}). It waits for whoever can take it.",
    )


def _overloaded(story: Story, event: QueueOverloaded, policy: Policy) -> str | None:
    action = policy.routing.escalation.on_overload.get(event.queue)
    if action is None:
        return "no_rule"
    reason = f"{event.length} tickets wait in {event.queue}, more than {event.threshold}"
    is_told = escalation.act(story, action, f"on_overload.{event.queue}", policy, reason=reason)
    return None if is_told else "nothing_left_to_raise"


def _clock(story: Story, event: SlaEvent, policy: Policy) -> str | None:
    """Follow a clock: a deadline is a place in the queue, a risk or a breach what the policy makes of it."""
    match story.ticket.standing:
        case Solved():
            return "already_solved"
        case Spam():
            return "is_spam"
        case Merged():
            return "merged"
    match event:
        case TargetAtRisk() | TargetBreached():
            return _risk(story, event, policy)
        case _ if event.target == "resolution":
            return _resolution(story, event)
        case _ if event.target not in lifecycle.OWED:
            return "changes_no_ticket"
        case (
            TargetStarted(due_at=due_at)
            | TargetResumed(due_at=due_at)
            | TargetRetargeted(due_at=due_at)
        ):
            lifecycle.set_due(story, event.target, due_at)
            return None
        case TargetPaused() | TargetMet() | TargetCancelled():
            lifecycle.set_due(story, event.target, None)
            return None
        case _:
            return "changes_no_ticket"


def _resolution(story: Story, event: SlaEvent) -> str | None:
    """Know the deadline, which is nobody's place in a queue: where the ticket is merged, it is to be kept there."""
    match event:
        case (
            TargetStarted(due_at=due_at)
            | TargetResumed(due_at=due_at)
            | TargetRetargeted(due_at=due_at)
        ):
            resolve_by = due_at
        case TargetPaused() | TargetMet() | TargetCancelled():
            resolve_by = None
        case _:
            return "changes_no_ticket"
    if resolve_by == story.ticket.resolve_by:
        return "changes_no_ticket"
    story.change(resolve_by=resolve_by)
    return None


def _risk(story: Story, event: TargetBreached | TargetAtRisk, policy: Policy) -> str | None:
    action = escalation.action_for(event, policy)
    rule = escalation.rule_name(event)
    is_promised = event.target in lifecycle.PROMISED
    if isinstance(story.ticket.standing, Pending) and not is_promised:
        return "waits_for_customer"
    is_told = action is not None and escalation.act(story, action, rule, policy)
    if policy.routing.life_cycle.risk_wakes:
        match story.ticket.standing:
            case OnHold() | Snoozed():
                lifecycle.wake(story, policy, rule)
                is_told = True
            case Pending():
                # The customer is waited for, and hears from us first: that is promised.
                lifecycle.resume(story, policy, rule)
                is_told = True
            case _:
                pass
    if is_told:
        return None
    return "no_rule" if action is None else "nothing_left_to_raise"


_UNTOLD: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no_address": "there is no address that it could go to",
        "own_address": "the customer's address is one of our own",
        "undeliverable": "mail to that address has come back before",
        "opted_out": "the customer wants no messages there any more",
        "window_closed": "the channel lets nobody write so long after the customer's last message",
        "not_in_public": "everybody would have read it",
        "dry_run": "notices are only rehearsed (`delivery: dry_run` in notify.yaml), and nothing leaves. What was rehearsed is"
        " not sent later: answer again once notices leave",
    }
)
"""Why an agent's answer did not go out, in words. What lacks an account stands apart: it depends on the channel."""

_UNMAILABLE: Final = frozenset({"no_address", "own_address", "undeliverable"})
"""Reasons of an acknowledgement that whoever has the case should know: no answer will reach the customer there either."""

_OPENING: Final = frozenset({"received", "after_hours", "voicemail"})
"""Notices that say that a case has arrived: one of them for each."""

_SHOWN_BY_US: Final = "webchat"
"""The channel whose answers our own page shows, whether or not an account carries them."""


def _notice_lost(story: Story, event: NoticeTrouble) -> str | None:
    """Tell whoever has the case what did not reach the customer, or may not have; above all what an agent wrote."""
    about = "answer" if event.occasion == "answered" else f"notice “{event.occasion}”"
    note_id = event.notice_id
    match event:
        case NoticeFailed():
            how = f"({event.provider}, after {event.attempts} attempts): {event.reason}"
            text = f"The {about} did not reach the customer {how}"
        case NoticeUnknown():
            how = f"({event.provider}, after {event.attempts} attempts): {event.reason}"
            text = f"Nobody knows whether the {about} arrived {how}"
        case NoticeDeliveryReported(what="bounced"):
            note_id = f"{event.notice_id}/bounced"
            text = f"The {about} came back and did not reach the customer: {event.detail or 'no reason was given'}"
        case NoticeSuppressed(occasion="answered", reason=reason) if reason in _UNTOLD:
            text = f"The answer did not go out: {_UNTOLD[reason]}."
        case NoticeSuppressed(occasion="answered", reason="channel_unsupported") if (
            story.ticket.contact.channel != _SHOWN_BY_US
        ):
            text = (
                f"The answer did not go out: no account carries answers to {story.ticket.contact.channel} "
                "(`accounts` in notify.yaml). Answer again once there is one, or where the customer can be reached."
            )
        case NoticeSuppressed(occasion=occasion, reason=reason) if (
            occasion in _OPENING and reason in _UNMAILABLE
        ):
            text = f"The customer was not told that their message arrived: {_UNTOLD[reason]}."
        case NoticeDeferred(occasion="answered", reason="account_trouble"):
            note_id = f"{event.notice_id}/deferred"
            text = (
                f"The answer waits: the account {event.account} has trouble that somebody has to mend. "
                "It goes out when the account works again."
            )
        case NoticeDeferred(occasion="answered", reason="quiet_hours"):
            note_id = f"{event.notice_id}/quiet"
            text = (
                f"The answer goes out {event.until:%Y-%m-%d %H:%M} UTC or soon after: until then it is quiet hours for "
                "the customer."
            )
        case _:
            return "told_as_it_should"
    if isinstance(story.ticket.standing, Merged):
        merge.carry_note(story, note_id, text)
    lifecycle.note(story, note_id, SIGNALBOX, text)
    return None
