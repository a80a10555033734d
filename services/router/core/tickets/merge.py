"""Two tickets of different conversations become one, and two again: each task changes its own, and tells the other.

The source asks; the target takes it in or says why not; then the source is merged, and what is written in it is carried.
No circle can come of it: a ticket that is merged, or has asked to be, takes nobody in, so whichever merge of a would-be
circle was granted last was asked of a ticket that had itself asked. Every step may come twice and changes nothing then.
"""

from datetime import datetime

from msgspec import structs

from schemas import tickets as wire
from schemas.commands import MergeTicket, UnmergeTicket
from schemas.merging import (
    HOPS_MAX,
    ErasureCarried,
    MergeAnswered,
    MergeAsked,
    MergeEnded,
    MergeUndone,
    MessageCarried,
)
from schemas.messages import MessageReceived
from services.router.core.policy.policy import Policy
from services.router.core.tickets import lifecycle
from services.router.core.tickets.lifecycle import Story
from services.router.core.tickets.state import (
    ABSORBED_MAX,
    CARRIED_MAX,
    Absorbed,
    Conversation,
    Merged,
    Merging,
    OnHold,
    Pending,
    Queued,
    Snoozed,
    Solved,
    Spam,
    Ticket,
)

HELD_MAX = 20
"""How many messages that come while a merge is asked for are carried after it; more stay with the source."""


# ------------------------------------------------------------------------------------------- the source


def refusal(ticket: Ticket, conversation: Conversation, command: MergeTicket) -> str | None:
    """Return why a merge is not even asked for, or None."""
    if command.into_ticket_id == ticket.ticket_id:
        return "same_ticket"
    if command.into_conversation_id == conversation.conversation_id:
        is_past = any(past.ticket_id == command.into_ticket_id for past in conversation.past)
        return "target_closed" if is_past else "target_unknown"
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
        )
    )


def keep(story: Story, merging: Merging, message: MessageReceived) -> None:
    """A message came while the answer is out: it is the source's, and carried too if the answer is yes."""
    if len(merging.messages) < HELD_MAX:
        kept = (*merging.messages, message.model_dump_json())
        story.change(merging=structs.replace(merging, messages=kept))


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
        carry(story, MessageReceived.model_validate_json(message))


def carry(story: Story, message: MessageReceived, hops: int = 0) -> None:
    """Send a message on to the ticket that this one was merged into."""
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
    story.change(standing=Queued(lifecycle.next_work_id(ticket)))
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


def carry_erasure(
    story: Story,
    members: tuple[str, ...],
    message_ids: tuple[str, ...],
    by: str,
    at: datetime,
    hops: int = 0,
) -> None:
    """Let the ticket that this one was merged into forget the customer as well."""
    standing = story.ticket.standing
    assert isinstance(standing, Merged)
    story.events.append(
        ErasureCarried(
            conversation_id=standing.into_conversation_id,
            ticket_id=standing.into_ticket_id,
            from_conversation_id=story.conversation_id,
            from_ticket_id=story.ticket.ticket_id,
            members=members,
            message_ids=message_ids,
            by=by,
            at=at,
            hops=hops,
        )
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
        case _ if not event.allow_other_customer and event.customer_id not in (
            contact.customer_id,
            contact.own_id,
        ):
            return "other_customer"
        case _:
            return ""


def absorb(story: Story, event: MergeAsked, policy: Policy) -> None:
    """Take another case in: as old as the older, as urgent as the more urgent, with the tags and facts of both."""
    ticket = story.ticket
    facts = {name: value for name, value in event.facts.items() if not ticket.facts.get(name)}
    taken = Absorbed(
        merge_id=event.merge_id,
        conversation_id=event.from_conversation_id,
        ticket_id=event.from_ticket_id,
        reference=event.from_reference,
        opened_at=event.opened_at,
        tags=tuple(tag for tag in event.tags if tag not in ticket.tags),
        facts=tuple(sorted(facts)),
        priority=ticket.priority if event.priority < ticket.priority else None,
    )
    story.change(
        absorbed=(*ticket.absorbed, taken),
        own_opened_at=ticket.own_opened_at or ticket.opened_at,
        opened_at=min(ticket.opened_at, event.opened_at),
        priority=min(ticket.priority, event.priority),
        tags=tuple(sorted({*ticket.tags, *event.tags})),
        facts={**ticket.facts, **facts},
    )
    if event.waiting_since is not None:
        story.change(
            waiting_since=min(ticket.waiting_since or event.waiting_since, event.waiting_since),
            unanswered=ticket.unanswered + 1,
            entered_at=min(ticket.entered_at, event.opened_at),
        )
    after = story.ticket
    story.tell(
        wire.TicketAbsorbed,
        merge_id=event.merge_id,
        agent_id=event.agent_id,
        from_conversation_id=event.from_conversation_id,
        from_ticket_id=event.from_ticket_id,
        from_reference=event.from_reference,
        opened_at=after.opened_at,
        other_opened_at=event.opened_at,
        waiting_since=event.waiting_since,
        priority=after.priority,
        tags=after.tags,
        facts=after.facts,
    )
    _take_place(story, ticket, event, policy)


def _take_place(story: Story, before: Ticket, event: MergeAsked, policy: Policy) -> None:
    """Wait where the older and more urgent of both belongs; what rested wakes, if the other's customer waits for us."""
    ticket = story.ticket
    match ticket.standing:
        case Pending() | OnHold() | Snoozed() if event.waiting_since is not None:
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


def let_go(story: Story, event: MergeUndone) -> bool:
    """Give back what came from the other case; return whether anything had."""
    ticket = story.ticket
    gone = next((one for one in ticket.absorbed if one.merge_id == event.merge_id), None)
    if gone is None:
        return False
    rest = tuple(one for one in ticket.absorbed if one is not gone)
    opened = [one.opened_at for one in rest]
    priority = ticket.priority
    if gone.priority is not None and priority < gone.priority and not _raised_by(rest):
        priority = gone.priority
    story.change(
        absorbed=rest,
        opened_at=min([ticket.own_opened_at or ticket.opened_at, *opened]),
        priority=priority,
        tags=tuple(tag for tag in ticket.tags if tag not in gone.tags),
        facts={name: value for name, value in ticket.facts.items() if name not in gone.facts},
    )
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
    if after.work_id is not None and after.priority != ticket.priority:
        story.repeat_work(after.work_id, "priority_changed")
    return True


def _raised_by(absorbed: tuple[Absorbed, ...]) -> bool:
    """Whether one of these made the ticket more urgent, so that it stays that."""
    return any(one.priority is not None for one in absorbed)


def forget(story: Story, conversation_id: str) -> tuple[str, ...]:
    """Drop the facts that came from a conversation's case; return the names of those."""
    gone = {
        name
        for one in story.ticket.absorbed
        if one.conversation_id == conversation_id
        for name in one.facts
    }
    if gone:
        story.change(
            facts={name: value for name, value in story.ticket.facts.items() if name not in gone}
        )
    return tuple(sorted(gone))


def end(story: Story) -> None:
    """The ticket is closed: so are those that were merged into it."""
    for one in story.ticket.absorbed:
        story.events.append(
            MergeEnded(
                conversation_id=one.conversation_id, ticket_id=one.ticket_id, merge_id=one.merge_id
            )
        )
