"""Two tickets of different conversations become one, and two again: each task changes its own, and tells the other.

The source asks; the target takes it in or says why not; then the source is merged, and what is written in it is carried.
No circle can come of it: a ticket that is merged, or has asked to be, takes nobody in, so whichever merge of a would-be
circle was granted last was asked of a ticket that had itself asked. Every step may come twice and changes nothing then.
What a ticket has of its own and what of others is kept by `absorbed`.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from schemas import ids
from schemas import tickets as wire
from schemas.commands import MergeTicket, UnmergeTicket
from schemas.merging import (
    ASKED_BYTES_MAX,
    HOPS_MAX,
    ErasureCarried,
    MergeAnswered,
    MergeAsked,
    MergeChanged,
    MergeEnded,
    MergeUndone,
    MessageCarried,
    MessageReturned,
    NoteCarried,
    RevisionCarried,
)
from schemas.messages import MessageReceived, MessageRevised
from schemas.sla import TargetKind
from services.router.core.policy.policy import Policy
from services.router.core.tickets import absorbed, lifecycle
from services.router.core.tickets.state import (
    ABSORBED_MAX,
    CARRIED_MAX,
    INTO_MAX,
    Absorbed,
    Conversation,
    Into,
    Merged,
    Merging,
    Offered,
    OnHold,
    Pending,
    Queued,
    Snoozed,
    Solved,
    Spam,
    Ticket,
)
from services.router.core.tickets.story import SIGNALBOX, Story, next_work_id

HELD_MAX = 20
"""How many messages that come while a merge is asked for are carried after it; more stay with the source, and a note says so."""

PATIENCE: Final = timedelta(minutes=10)
"""How long the source waits for an answer before it is its own again: the question may be parked, or its target's task down."""


# ------------------------------------------------------------------------------------------- the source


def refusal(ticket: Ticket, conversation: Conversation, command: MergeTicket) -> str | None:
    """Return why a merge is not even asked for, or None."""
    if command.into_ticket_id == ticket.ticket_id:
        return "same_ticket"
    if command.into_conversation_id == conversation.conversation_id:
        is_past = any(past.ticket_id == command.into_ticket_id for past in conversation.past)
        return "target_closed" if is_past else "target_unknown"
    if absorbed.size(ticket.tags, ticket.facts) > ASKED_BYTES_MAX:
        return "merge_too_large"
    return None


def ask(story: Story, command: MergeTicket) -> None:
    """Ask the other conversation. Until its answer the ticket stays what it is, and takes no orders."""
    ticket = story.ticket
    story.change(
        merging=Merging(
            command.command_id,
            command.agent_id,
            command.into_conversation_id,
            command.into_ticket_id,
            asked_at=story.now,
        )
    )
    story.events.append(
        MergeAsked(
            conversation_id=command.into_conversation_id,
            ticket_id=command.into_ticket_id,
            merge_id=command.command_id,
            agent_id=command.agent_id,
            from_conversation_id=story.conversation_id,
            from_ticket_id=ticket.ticket_id,
            from_reference=ticket.reference,
            customer_id=ticket.contact.customer_id,
            allow_other_customer=command.allow_other_customer,
            opened_at=ticket.opened_at,
            waiting_since=ticket.waiting_since,
            priority=ticket.priority,
            tags=ticket.tags,
            facts=ticket.facts,
            unanswered=ticket.unanswered,
            dues=_deadlines(ticket),
            depth=absorbed.depth(ticket),
        )
    )


def _deadlines(ticket: Ticket) -> dict[TargetKind, datetime]:
    """Return the deadlines of the ticket's clocks that run."""
    found = {kind: ticket.dues[kind] for kind in lifecycle.OWED if kind in ticket.dues}
    if ticket.resolve_by is not None:
        found["resolution"] = ticket.resolve_by
    return found


def remembering(state: Conversation, into: Into) -> Conversation:
    """Return a conversation that knows where a ticket of it went, or may go."""
    if into in state.merged_into:
        return state
    return structs.replace(state, merged_into=(*state.merged_into, into)[-INTO_MAX:])


def keep(story: Story, merging: Merging, message: MessageReceived) -> None:
    """A message came while the answer is out: it is the source's, and carried too if the answer is yes."""
    if len(merging.messages) < HELD_MAX:
        kept = (*merging.messages, message.model_dump_json())
        story.change(merging=structs.replace(merging, messages=kept))
        return
    story.change(merging=structs.replace(merging, left=merging.left + 1))
    if merging.left == 0:
        lifecycle.note(
            story,
            ids.derive("note", "merging", merging.merge_id),
            SIGNALBOX,
            f"More than {HELD_MAX} messages came while the merge was asked for. "
            "The later ones stay with this ticket: whoever has the other one must look here too.",
        )


def late_yes(event: MergeAnswered) -> MergeUndone:
    """Return what the target is told whose yes came when the source was its own again."""
    return MergeUndone(
        conversation_id=event.into_conversation_id,
        ticket_id=event.into_ticket_id,
        merge_id=event.merge_id,
        agent_id=SIGNALBOX,
        from_conversation_id=event.conversation_id,
        from_ticket_id=event.ticket_id,
    )


def granted(story: Story, event: MergeAnswered, merging: Merging) -> None:
    """The target took it in: nobody is needed here any more."""
    before = story.ticket.standing.status
    story.withdraw_work("merged")
    story.change(
        standing=Merged(
            merging.agent_id, merging.merge_id, event.into_conversation_id, event.into_ticket_id
        ),
        merging=None,
        delegation=None,
        dues={},
        resolve_by=None,
        rise_at=None,
    )
    story.tell(
        wire.TicketMerged,
        command_id=merging.merge_id,
        merge_id=merging.merge_id,
        agent_id=merging.agent_id,
        into_conversation_id=event.into_conversation_id,
        into_ticket_id=event.into_ticket_id,
        into_reference=event.into_reference,
        before=before,
    )
    for message in merging.messages:
        carry(story, MessageReceived.model_validate_json(message), merging.merge_id)


def wrote(story: Story, at: datetime) -> None:
    """The customer wrote in the merged case: it is answered where it goes on, or here if the merge is undone."""
    standing = story.ticket.standing
    assert isinstance(standing, Merged)
    since = min(standing.wrote_since or at, at)
    story.change(
        standing=structs.replace(standing, wrote_since=since, wrote=standing.wrote + 1),
        customer_wrote_at=max(story.ticket.customer_wrote_at or at, at),
    )


def answered_elsewhere(story: Story, at: datetime) -> None:
    """Somebody of ours answered in the merged case itself: what was written there before is owed no more."""
    standing = story.ticket.standing
    assert isinstance(standing, Merged)
    wrote_at = story.ticket.customer_wrote_at
    if wrote_at is None or at >= wrote_at:
        story.change(
            standing=structs.replace(standing, wrote_since=None, wrote=0),
            waiting_since=None,
            unanswered=0,
        )


def carry(story: Story, message: MessageReceived, merge_id: str, hops: int = 0) -> None:
    """Send a message on to the ticket that this one was merged into; `merge_id` is of the case where it was written."""
    standing = story.ticket.standing
    assert isinstance(standing, Merged)
    story.events.append(
        MessageCarried(
            conversation_id=standing.into_conversation_id,
            ticket_id=standing.into_ticket_id,
            from_conversation_id=story.conversation_id,
            from_ticket_id=story.ticket.ticket_id,
            message=message,
            hops=hops,
            merge_id=merge_id,
        )
    )
    carried = (*standing.carried, message.message_id)[-CARRIED_MAX:]
    story.change(standing=structs.replace(standing, carried=carried))
    story.tell(
        wire.TicketMessageCarried,
        message_id=message.message_id,
        into_conversation_id=standing.into_conversation_id,
        into_ticket_id=standing.into_ticket_id,
    )


def undo(story: Story, command: UnmergeTicket, standing: Merged, policy: Policy) -> None:
    """Stand on one's own again, with the messages that were written here meanwhile; whoever had it last is asked first."""
    ticket = story.ticket
    story.events.append(
        MergeUndone(
            conversation_id=standing.into_conversation_id,
            ticket_id=standing.into_ticket_id,
            merge_id=standing.merge_id,
            agent_id=command.agent_id,
            from_conversation_id=story.conversation_id,
            from_ticket_id=ticket.ticket_id,
        )
    )
    waiting = [at for at in (ticket.waiting_since, standing.wrote_since) if at is not None]
    if ticket.waiting_since is None and standing.wrote_since is not None:
        # Everything was answered when it was merged; the present wait began with what came after.
        story.change(entered_at=max(standing.wrote_since, ticket.opened_at))
    story.change(
        standing=Queued(next_work_id(ticket)),
        waiting_since=min(waiting, default=None),
        unanswered=ticket.unanswered + standing.wrote,
    )
    ticket = story.ticket
    story.tell(
        wire.TicketUnmerged,
        command_id=command.command_id,
        merge_id=standing.merge_id,
        agent_id=command.agent_id,
        from_conversation_id=standing.into_conversation_id,
        from_ticket_id=standing.into_ticket_id,
        queue=ticket.queue,
        opened_at=ticket.opened_at,
        waiting_since=ticket.waiting_since,
        message_ids=standing.carried,
    )
    story.request_work("unmerged", policy, relax_from=story.now, preferred=ticket.last_agent_id)


def carry_revision(story: Story, message: MessageRevised, hops: int = 0) -> None:
    """Tell the ticket that this one was merged into that a message changed."""
    standing = story.ticket.standing
    assert isinstance(standing, Merged)
    story.events.append(
        RevisionCarried(
            conversation_id=standing.into_conversation_id,
            ticket_id=standing.into_ticket_id,
            from_conversation_id=story.conversation_id,
            from_ticket_id=story.ticket.ticket_id,
            message=message,
            hops=hops,
        )
    )


def carry_note(story: Story, note_id: str, text: str, hops: int = 0) -> None:
    """Tell whoever goes on with the case what they have to know."""
    standing = story.ticket.standing
    assert isinstance(standing, Merged)
    story.events.append(
        NoteCarried(
            conversation_id=standing.into_conversation_id,
            ticket_id=standing.into_ticket_id,
            from_conversation_id=story.conversation_id,
            from_ticket_id=story.ticket.ticket_id,
            note_id=note_id,
            text=text,
            hops=hops,
        )
    )


def carry_erasure(
    state: Conversation,
    members: tuple[str, ...],
    message_ids: tuple[str, ...],
    by: str,
    at: datetime,
    came: ErasureCarried | None = None,
) -> tuple[ErasureCarried, ...]:
    """Let all tickets forget the customer that one of this conversation was ever merged into, or asked to be.

    One that is merged now, asks to be, stands alone again or is closed: what was told there is there still. `came` is the
    erasure that is passed on, if it came from another conversation itself; it is not sent back along its way.
    """
    path = () if came is None else (*came.path, came.from_conversation_id)
    hops = 0 if came is None else came.hops + 1
    if hops > HOPS_MAX:
        return ()
    known = state.ticket.ticket_id if state.ticket is not None else ""
    from_ticket_id = known or (state.past[-1].ticket_id if state.past else state.conversation_id)
    return tuple(
        ErasureCarried(
            conversation_id=into.conversation_id,
            ticket_id=into.ticket_id,
            from_conversation_id=state.conversation_id,
            from_ticket_id=from_ticket_id,
            members=members,
            message_ids=message_ids,
            by=by,
            at=at,
            hops=hops,
            path=path,
        )
        for into in state.merged_into
        if into.conversation_id not in path
    )


# ------------------------------------------------------------------------------------------- the target


def answer(event: MergeAsked, reason: str = "", reference: str = "") -> MergeAnswered:
    """Return the answer to a question: no, for `reason`; yes without one."""
    return MergeAnswered(
        conversation_id=event.from_conversation_id,
        ticket_id=event.from_ticket_id,
        merge_id=event.merge_id,
        is_accepted=not reason,
        reason=reason,
        into_conversation_id=event.conversation_id,
        into_ticket_id=event.ticket_id,
        into_reference=reference,
    )


def ask_further(event: MergeAsked, standing: Merged) -> MergeAsked | MergeAnswered:
    """The ticket asked is merged itself: ask the one that it went into, unless that leads back or too far."""
    if standing.into_conversation_id == event.from_conversation_id:
        return answer(event, "merge_cycle")
    if event.hops >= HOPS_MAX:
        return answer(event, "merge_chain_too_long")
    return event.model_copy(
        update={
            "conversation_id": standing.into_conversation_id,
            "ticket_id": standing.into_ticket_id,
            "hops": event.hops + 1,
        }
    )


def objection(ticket: Ticket, event: MergeAsked) -> str:
    """Return why the ticket cannot take the other in; empty if it can."""
    contact = ticket.contact
    if ticket.merging is not None:
        return "target_merge_underway"
    match ticket.standing:
        case Solved():
            return "target_solved"
        case Spam():
            return "target_spam"
        case _ if len(ticket.absorbed) >= ABSORBED_MAX:
            return "target_full"
        case _ if event.depth > HOPS_MAX:
            return "merge_chain_too_long"
        case _ if _is_too_large(ticket, event):
            return "merge_too_large"
        case _ if not event.allow_other_customer and event.customer_id not in (
            contact.customer_id,
            contact.own_id,
        ):
            return "other_customer"
        case _:
            return ""


def _is_too_large(ticket: Ticket, event: MergeAsked) -> bool:
    """Whether what both have would no longer fit into what is told of it."""
    tags = {*ticket.tags, *event.tags}
    return absorbed.size(tags, {**event.facts, **ticket.facts}) > ASKED_BYTES_MAX


def absorb(story: Story, event: MergeAsked, policy: Policy) -> None:
    """Take another case in: as old as the older, as urgent as the more urgent, with the tags and facts of both."""
    ticket = story.ticket
    story.change(**absorbed.taken_in(ticket, event, event.from_reference))
    _tell_absorbed(story, event, event.from_reference, event.dues)
    _take_place(story, ticket, event, policy)


def _take_place(story: Story, before: Ticket, event: MergeAsked, policy: Policy) -> None:
    """Wait where the older and more urgent of both belongs; what rested wakes, if the other's customer waits for us."""
    ticket = story.ticket
    match ticket.standing:
        case Pending() | OnHold() | Snoozed() as rested if event.waiting_since is not None:
            assert ticket.own is not None, "it has just taken another in"
            story.change(own=structs.replace(ticket.own, rested=rested))
            lifecycle.wake(story, policy, "absorbed", event.agent_id)
        case Queued() if ticket.entered_at < before.entered_at:
            # A request keeps the age that it was made with, so another one is made.
            story.withdraw_work("absorbed")
            story.request_work(
                "absorbed", policy, relax_from=ticket.relax_from, preferred=ticket.last_agent_id
            )
        case _ if ticket.work_id is not None and ticket.priority < before.priority:
            story.repeat_work(ticket.work_id, "priority_changed")
        case _:
            pass


def let_go(story: Story, event: MergeUndone, policy: Policy) -> bool:
    """Give back what came from the other case, and owe nothing for it any more; return whether anything had come."""
    before = absorbed.settled(story.ticket)
    gone = _of(before, event.merge_id, event.from_ticket_id)
    if gone is None:
        return False
    story.change(**absorbed.let_go(before, gone))
    after = story.ticket
    story.tell(
        wire.TicketSplitOff,
        merge_id=gone.merge_id,
        agent_id=event.agent_id,
        from_conversation_id=gone.conversation_id,
        from_ticket_id=gone.ticket_id,
        opened_at=after.opened_at,
        priority=after.priority,
        tags=after.tags,
    )
    _after_less(story, before, event.agent_id, policy)
    return True


def changed(story: Story, event: MergeChanged, policy: Policy) -> bool:
    """A case that was merged into this one brings less than it did; return whether it is one of this ticket's."""
    before = absorbed.settled(story.ticket)
    gone = _of(before, event.merge_id, event.from_ticket_id)
    if gone is None:
        return False
    if gone.waiting_since is None:
        # What was owed for it has been answered here, whatever the other ticket knows of that.
        event = event.model_copy(update={"waiting_since": None})
    left = structs.replace(before, **absorbed.let_go(before, gone))
    fields = absorbed.taken_in(left, event, gone.reference)
    assert before.own is not None, "it has taken another in"
    own = structs.replace(fields["own"], rested=before.own.rested)
    story.change(**absorbed.let_go(before, gone))
    story.change(**fields)
    story.change(own=own)
    _tell_absorbed(story, event, gone.reference)
    _after_less(story, before, event.agent_id, policy)
    return True


def _tell_absorbed(
    story: Story,
    event: MergeAsked | MergeChanged,
    reference: str,
    dues: dict[TargetKind, datetime] | None = None,
) -> None:
    """Tell what the ticket is now with what another brings."""
    ticket = story.ticket
    story.tell(
        wire.TicketAbsorbed,
        merge_id=event.merge_id,
        agent_id=event.agent_id,
        from_conversation_id=event.from_conversation_id,
        from_ticket_id=event.from_ticket_id,
        from_reference=reference,
        opened_at=ticket.opened_at,
        other_opened_at=event.opened_at,
        waiting_since=event.waiting_since,
        priority=ticket.priority,
        tags=ticket.tags,
        facts=ticket.facts,
        dues=dues,
    )


def _of(ticket: Ticket, merge_id: str, from_ticket_id: str) -> Absorbed | None:
    """Return what a ticket has of another by a merge. The name of a merge alone is no proof: it is its writer's."""
    for one in ticket.absorbed:
        if (one.merge_id, one.ticket_id) == (merge_id, from_ticket_id):
            return one
    return None


def has_taken(ticket: Ticket, event: MergeAsked) -> bool:
    """Whether a question was answered with yes already."""
    return _of(ticket, event.merge_id, event.from_ticket_id) is not None


def _after_less(story: Story, before: Ticket, agent_id: str, policy: Policy) -> None:
    """Take the place that is left, after another case went or brought less."""
    ticket = story.ticket
    rested = None if before.own is None else before.own.rested
    match ticket.standing:
        case Merged() as standing:
            story.events.append(_brings(story, standing, agent_id))
        case Queued() | Offered() if (
            rested is not None and before.waiting_since is not None and ticket.waiting_since is None
        ):
            # Only the other one's customer waited for us: it rests where it rested.
            story.withdraw_work("split_off")
            story.move(rested, "split_off", agent_id)
        case Queued() if ticket.entered_at != before.entered_at:
            story.withdraw_work("split_off")
            story.request_work(
                "split_off",
                policy,
                relax_from=ticket.relax_from,
                preferred=ticket.last_agent_id,
                excluded=ticket.excluded,
            )
        case _ if ticket.work_id is not None and ticket.priority != before.priority:
            story.repeat_work(ticket.work_id, "priority_changed")
        case _:
            pass


def _brings(story: Story, standing: Merged, agent_id: str) -> MergeChanged:
    """Return what a merged ticket brings to the one that it went into, as it is now."""
    ticket = story.ticket
    waiting = [at for at in (ticket.waiting_since, standing.wrote_since) if at is not None]
    return MergeChanged(
        conversation_id=standing.into_conversation_id,
        ticket_id=standing.into_ticket_id,
        merge_id=standing.merge_id,
        agent_id=agent_id,
        from_conversation_id=story.conversation_id,
        from_ticket_id=ticket.ticket_id,
        opened_at=ticket.opened_at,
        waiting_since=min(waiting, default=None),
        unanswered=ticket.unanswered + standing.wrote,
        priority=ticket.priority,
        tags=ticket.tags,
        facts=ticket.facts,
        depth=absorbed.depth(ticket),
    )


def give_back(event: MessageCarried) -> MessageReturned:
    """Return a carried message to where it was written: the ticket that it was carried to is closed."""
    return MessageReturned(
        conversation_id=event.message.conversation_id,
        merge_id=event.merge_id,
        from_conversation_id=event.conversation_id,
        from_ticket_id=event.ticket_id,
        message=event.message,
    )


def end(story: Story) -> None:
    """The ticket is closed: so are those that were merged into it."""
    for one in story.ticket.absorbed:
        story.events.append(
            MergeEnded(
                conversation_id=one.conversation_id, ticket_id=one.ticket_id, merge_id=one.merge_id
            )
        )
