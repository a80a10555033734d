"""What happens to a conversation's ticket: each message, command, routing fact, clock and timer, one after another.

`decide` is total: what does not fit is refused with an event (commands) or ignored under a name (everything else).
"""

from datetime import datetime
from typing import NamedTuple

from msgspec import Struct, structs

from schemas import ids
from schemas import tickets as wire
from schemas.commands import (
    AddNote,
    AnyCommand,
    Command,
    EscalateTicket,
    ReassignTicket,
    ReplyToCustomer,
    SolveTicket,
    TagTicket,
)
from schemas.customers import (
    CustomerErased,
    CustomerEvent,
    CustomerLinkSuggested,
    CustomerMerged,
    CustomerUnmerged,
)
from schemas.messages import MessageReceived, MessageRevised
from schemas.notifications import NoticeFailed, NoticeUnknown
from schemas.payload import Payload
from schemas.routing import (
    AssignmentExhausted,
    OfferMade,
    RoutingEvent,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
)
from schemas.sla import TargetAtRisk, TargetBreached
from services.router.core import escalation, lifecycle
from services.router.core.lifecycle import SIGNALBOX, ErasedRow, MessageRow, RevisedRow, Story
from services.router.core.policy import Policy
from services.router.core.state import (
    PAST_MAX,
    SEEN_MAX,
    Assigned,
    Contact,
    Conversation,
    Offered,
    Past,
    Pending,
    Queued,
    Solved,
    Ticket,
)

CLOSE = "close"
"""The timer that ends the reopen window."""


class CloseDue(Struct, frozen=True):
    """The reopen window may be over."""


class Decision(NamedTuple):
    """The conversation from now on, what is told, and what is stored beside it.

    `closed` are tickets that left the state with this decision, `ignored` why the input means nothing here.
    """

    state: Conversation | None
    events: tuple[Payload, ...] = ()
    messages: tuple[MessageRow | RevisedRow | ErasedRow, ...] = ()
    closed: tuple[Ticket, ...] = ()
    ignored: str | None = None


Event = (
    MessageReceived
    | MessageRevised
    | CustomerEvent
    | AnyCommand
    | RoutingEvent
    | TargetBreached
    | TargetAtRisk
    | NoticeFailed
    | NoticeUnknown
    | CloseDue
)


def decide(
    state: Conversation | None, event: Event, now: datetime, policy: Policy, occurred_at: datetime
) -> Decision:
    """Apply one event. `occurred_at` is when its sender acted; `now` when it is decided."""
    match event:
        case MessageReceived():
            return _message(state or Conversation(event.conversation_id), event, now, policy)
        case MessageRevised():
            return _revised(state, event, now)
        case Command():
            return _command(
                state or Conversation(event.conversation_id), event, now, policy, occurred_at
            )
        case CloseDue():
            return _close(state, now)
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
        case NoticeFailed() | NoticeUnknown():
            ignored = _notice_lost(story, event)
        case _:
            ignored = _clock(story, event, policy)
    return _told(state, story, ignored)


def next_due(state: Conversation | None) -> datetime | None:
    """When a solved ticket closes; the ledger keeps it as the timer `close`."""
    if state is None or state.ticket is None or not isinstance(state.ticket.standing, Solved):
        return None
    return state.ticket.standing.close_at


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
    state: Conversation, message: MessageReceived, now: datetime, policy: Policy
) -> Decision:
    if message.message_id in state.seen:
        return Decision(state, ignored="message_repeated")
    state = _remember(state, message.message_id)
    reason = _set_aside_reason(message)
    match state.ticket:
        case Ticket(standing=Queued() | Offered() | Assigned() | Pending()) if reason != "outbound":
            return _added(
                state, state.ticket, message, now, policy, is_automatic=reason is not None
            )
        case Ticket(standing=Queued() | Offered() | Assigned() | Pending()):
            return _answered_elsewhere(state, state.ticket, message, now)
        case _ if reason is not None:
            return _set_aside(state, message, now, reason)
        case Ticket(standing=Solved(close_at=close_at)) if now < close_at:
            return _reopened(state, state.ticket, message, now, policy)
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


def _added(
    state: Conversation,
    ticket: Ticket,
    message: MessageReceived,
    now: datetime,
    policy: Policy,
    *,
    is_automatic: bool,
) -> Decision:
    story = Story(state.conversation_id, ticket, now)
    lifecycle.add_message(story, message, is_automatic=is_automatic)
    if isinstance(ticket.standing, Pending) and not is_automatic:
        lifecycle.resume(story, policy)
    return Decision(
        structs.replace(state, ticket=story.ticket),
        tuple(story.events),
        (_row(message, ticket.ticket_id, "added", now),),
    )


def _reopened(
    state: Conversation, ticket: Ticket, message: MessageReceived, now: datetime, policy: Policy
) -> Decision:
    story = Story(state.conversation_id, ticket, now)
    lifecycle.add_message(story, message, is_automatic=False)
    lifecycle.reopen(story, message, policy)
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
    outcome = "followed_up" if before is not None else "opened"
    return Decision(
        structs.replace(left, ticket=story.ticket),
        (*ended.events, *story.events),
        (_row(message, story.ticket.ticket_id, outcome, now),),
        ended.closed,
    )


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
    told = wire.ConversationErased(conversation_id=state.conversation_id, by=event.by, at=now)
    row = ErasedRow(state.conversation_id, members, event.message_ids)
    return Decision(structs.replace(state, ticket=ticket, past=past), (told,), (row,))


# ---------------------------------------------------------------------------------------------- timer


def _closed(state: Conversation, now: datetime) -> Decision:
    if state.ticket is None:
        return Decision(state)
    story = Story(state.conversation_id, state.ticket, now)
    past: Past = lifecycle.close(story)
    left = structs.replace(state, ticket=None, past=(*state.past, past)[-PAST_MAX:])
    return Decision(left, tuple(story.events), (), (story.ticket,))


def _close(state: Conversation | None, now: datetime) -> Decision:
    due = next_due(state)
    if state is None or due is None or now < due:
        return Decision(state, ignored="nothing_due")
    return _closed(state, now)


# ------------------------------------------------------------------------------------------- commands


def _command(
    state: Conversation, command: AnyCommand, now: datetime, policy: Policy, occurred_at: datetime
) -> Decision:
    seen = f"command/{command.command_id}"
    if seen in state.seen:
        return Decision(state, ignored="command_repeated")
    state = _remember(state, seen)
    ticket = state.ticket
    if ticket is None or ticket.ticket_id != command.ticket_id:
        is_past = any(past.ticket_id == command.ticket_id for past in state.past)
        reason, stands = ("closed", "closed") if is_past else ("ticket_unknown", "unknown")
        return Decision(state, (_refused(command, reason, stands, now),))
    story = Story(state.conversation_id, ticket, now)
    refusal = _obey(story, command, policy, occurred_at)
    if refusal is not None:
        return Decision(state, (_refused(command, refusal, ticket.standing.status, now),))
    ignored = None if story.events else "changes_nothing"
    return Decision(
        structs.replace(state, ticket=story.ticket), tuple(story.events), ignored=ignored
    )


def _refused(command: Command, reason: str, stands: str, now: datetime) -> wire.CommandRefused:
    return wire.CommandRefused(
        command_id=command.command_id,
        command=command.TYPE,
        ticket_id=command.ticket_id,
        conversation_id=command.conversation_id,
        agent_id=command.agent_id,
        reason=reason,
        state=stands,
        at=now,
    )


def _obey(story: Story, command: AnyCommand, policy: Policy, occurred_at: datetime) -> str | None:
    """Do what is asked; return why not, if not."""
    match command, story.ticket.standing:
        case AddNote(), _:
            lifecycle.note(story, command.command_id, command.agent_id, command.text)
            return None
        case TagTicket(), _:
            _tag(story, command)
            return None
        case _, Solved():
            return "already_solved"
        case ReplyToCustomer(), _:
            return _reply(story, command, policy, occurred_at)
        case SolveTicket(), _:
            return _solve(story, command, policy, occurred_at)
        case EscalateTicket(), _:
            return _escalate(story, command, policy)
        case ReassignTicket(), _:
            return _reassign(story, command, policy)


def _may_act(ticket: Ticket, agent_id: str) -> bool:
    """Whoever holds the ticket acts on it alone; while nobody does, anyone may."""
    return ticket.assignee_id in (None, agent_id)


def _reply(
    story: Story, command: ReplyToCustomer, policy: Policy, occurred_at: datetime
) -> str | None:
    ticket = story.ticket
    if ticket.assignee_id != command.agent_id:
        return "not_assignee"
    lifecycle.answer(
        story,
        command.command_id,
        command.agent_id,
        command.text,
        command.language or policy.language(ticket.contact.language),
        policy.agent_name(command.agent_id),
        occurred_at,
    )
    if command.solves:
        lifecycle.solve(
            story, command.command_id, command.agent_id, None, occurred_at, policy, with_answer=True
        )
    else:
        lifecycle.wait_for_customer(story, command.agent_id)
    return None


def _solve(story: Story, command: SolveTicket, policy: Policy, occurred_at: datetime) -> str | None:
    if not _may_act(story.ticket, command.agent_id):
        return "not_assignee"
    lifecycle.solve(
        story,
        command.command_id,
        command.agent_id,
        command.cause,
        occurred_at,
        policy,
        with_answer=False,
    )
    return None


def _escalate(story: Story, command: EscalateTicket, policy: Policy) -> str | None:
    if not _may_act(story.ticket, command.agent_id):
        return "not_assignee"
    refusal = escalation.refusal(story.ticket, command, policy)
    if refusal is not None:
        return refusal
    escalation.hand_over(
        story,
        policy,
        reason=command.reason,
        to_queue=command.queue,
        command_id=command.command_id,
        agent_id=command.agent_id,
        facts=command.facts,
    )
    return None


def _reassign(story: Story, command: ReassignTicket, policy: Policy) -> str | None:
    """Put the ticket elsewhere. Agents are not known here, so any `to_agent_id` goes on as a preference."""
    ticket = story.ticket
    queue = command.queue or ticket.queue
    if command.queue is None and command.to_agent_id is None:
        return "nothing_asked"
    if policy.queue(queue) is None:
        return f"queue_unknown: {queue}"
    if queue == ticket.queue and command.to_agent_id in (None, ticket.assignee_id):
        return "already_there"
    if isinstance(ticket.standing, Pending):
        lifecycle.move_to_queue(story, queue, policy)
        heir = command.to_agent_id or ticket.standing.agent_id
        story.change(last_agent_id=heir)
        story.move(Pending(heir), "reassigned", heir)
        return None
    # Whoever gives a ticket away within a queue must not be the one it comes back to.
    giver = ticket.assignee_id
    excluded = (giver,) if giver is not None and queue == ticket.queue else ()
    story.withdraw_work("reassigned")
    lifecycle.move_to_queue(story, queue, policy)
    story.move(Queued(lifecycle.next_work_id(ticket)), "reassigned", command.agent_id)
    # A colleague in the same queue is asked for the same: what fell away stays away.
    relax_from = ticket.relax_from if queue == ticket.queue else story.now
    story.request_work(
        "reassigned",
        policy,
        relax_from=relax_from,
        preferred=command.to_agent_id,
        excluded=excluded,
    )
    return None


def _tag(story: Story, command: TagTicket) -> None:
    before = story.ticket.tags
    after = tuple(sorted((set(before) | set(command.add)) - set(command.remove)))
    if after != before:
        story.change(tags=after)
        story.tell(
            wire.TicketTagged, command_id=command.command_id, agent_id=command.agent_id, tags=after
        )


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
            story.change(last_agent_id=event.agent_id)
            story.move(Assigned(event.work_id, event.agent_id), "accepted", event.agent_id)
        case TicketRequeued(), Offered() | Assigned():
            story.move(Queued(event.work_id), event.reason, event.agent_id)
        case AssignmentExhausted(), Queued():
            _exhausted(story, event, policy)
        case TicketQueued() | TicketRequeued(), Queued():
            return "already_queued"
        case _:
            return "changes_no_ticket"
    return None


def _exhausted(story: Story, event: AssignmentExhausted, policy: Policy) -> None:
    if policy.routing.escalation.on_exhausted and escalation.can_rise(story.ticket):
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


def _clock(story: Story, event: TargetBreached | TargetAtRisk, policy: Policy) -> str | None:
    action = escalation.action_for(event, policy)
    if action is None:
        return "no_rule"
    if isinstance(story.ticket.standing, Solved):
        return "already_solved"
    if isinstance(story.ticket.standing, Pending):
        return "waits_for_customer"
    rule = escalation.rule_name(event)
    is_told = False
    if action.escalate and escalation.can_rise(story.ticket):
        escalation.hand_over(story, policy, reason=rule.replace(".", ": "), by_rule=rule)
        is_told = True
    if action.raise_priority_to is not None:
        is_told |= escalation.raise_priority(story, action.raise_priority_to, rule)
    return None if is_told else "nothing_left_to_raise"


def _notice_lost(story: Story, event: NoticeFailed | NoticeUnknown) -> str | None:
    how = f"({event.provider}, after {event.attempts} attempts): {event.reason}"
    if isinstance(event, NoticeFailed):
        text = f"The notice “{event.occasion}” did not reach the customer {how}"
    else:
        text = f"Nobody knows whether the notice “{event.occasion}” arrived {how}"
    lifecycle.note(story, event.notice_id, SIGNALBOX, text)
    return None
