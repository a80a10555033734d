"""The steps of a ticket's life, each a straight line: what changes, and what is told of it."""

from datetime import datetime
from typing import Final, Literal

from msgspec import structs

from schemas import ids
from schemas import tickets as wire
from schemas.customers import CustomerDescribed
from schemas.messages import MessageReceived, MessageRevised
from schemas.sla import TargetKind
from services.router.core.policy import rules
from services.router.core.policy.policy import Policy
from services.router.core.tickets.state import (
    ELSEWHERE,
    Contact,
    Delegation,
    OnHold,
    Past,
    Pending,
    Queued,
    Snoozed,
    Solved,
    Spam,
    Ticket,
)
from services.router.core.tickets.story import (
    SIGNALBOX,
    Story,
    asked_in,
    next_work_id,
    own_requirement,
)

PROMISED: Final[tuple[TargetKind, ...]] = ("periodic_update", "callback")
"""The clocks of what an agent promised: they run while the customer is waited for, too."""

OWED: Final[tuple[TargetKind, ...]] = (
    "first_response",
    "next_response",
    "later_response",
    *PROMISED,
)
"""The clocks of what the customer is owed next: a ticket takes its place in the queue by the earliest of them."""


def contact_of(message: MessageReceived) -> Contact:
    """Return where the writer of a message can be answered."""
    content = message.content
    return Contact(
        message.customer_id,
        content.sender.name,
        content.sender.address,
        content.sender.kind,
        content.channel,
        content.account,
        content.language,
        message.verified,
        message.origin_customer_id or "",
    )


def _contact_for(message: MessageReceived, follows: Past | None) -> Contact:
    """Return where a new case is answered. A message whose place is doubted leaves that where it was."""
    if message.suspicion and follows is not None and follows.contact is not None:
        return follows.contact
    return contact_of(message)


def what_is_new(message: MessageReceived) -> str:
    """Return what the writer added this time, or all of it where that cannot be told."""
    return message.content.text_new or message.content.text


def open_ticket(
    message: MessageReceived, number: int, follows: Past | None, now: datetime, policy: Policy
) -> Story:
    """Open the conversation's `number`-th case, as the first rule that fits decides."""
    content = message.content
    facts = rules.of_message(
        message,
        what_is_new(message),
        previous_tickets=number - 1,
        reopens=0 if follows is None else follows.reopen_count,
        now=now,
        lengths=policy.lengths,
    )
    rule, matched, observed = rules.match(policy.rules, facts)
    own = own_requirement(rule, content.language, policy)
    cost = rule.cost_on(content.channel)
    queue = policy.routing.queues[rule.queue]
    ticket_id = ids.ticket_id(message.conversation_id, number)
    work_id = ids.derive("work", ticket_id, "1")
    ticket = Ticket(
        ticket_id=ticket_id,
        number=number,
        reference=ids.ticket_reference(ticket_id),
        version=0,
        standing=Queued(work_id),
        queue=rule.queue,
        desk=queue.desk,
        domain=queue.domain,
        priority=rule.priority,
        sla_policy=rule.sla_policy,
        rule=rule.name,
        policy_version=policy.version,
        cost=policy.cost(content.channel) if cost is None else cost,
        contact=_contact_for(message, follows),
        subject=content.subject,
        opened_at=now,
        entered_at=now,
        updated_at=now,
        customer_wrote_at=content.occurred_at,
        tags=rule.tags,
        **asked_in(rule.queue, own, rule.name, policy),
    )
    story = Story(message.conversation_id, ticket, now)
    story.tell(
        wire.TicketOpened,
        number=number,
        reference=ticket.reference,
        message_id=message.message_id,
        contact=ticket.contact.to_wire(),
        subject=ticket.subject,
        desk=ticket.desk,
        queue=ticket.queue,
        priority=ticket.priority,
        sla_policy=ticket.sla_policy,
        rule=ticket.rule,
        policy_version=ticket.policy_version,
        occurred_at=content.occurred_at,
        follows=follows.ticket_id if follows is not None else None,
        vendor_message_id=content.vendor_message_id,
        vendor_thread=content.thread or "",
        suspicion=message.suspicion,
        context=message.context,
        matched=matched,
        observed=observed,
        tags=ticket.tags,
    )
    if follows is None:
        story.request_work("opened", policy)
    else:
        story.request_work(
            "follow_up",
            policy,
            preferred=follows.last_agent_id,
            preferred_at=follows.last_agent_at or follows.closed_at,
        )
    return story


def add_message(
    story: Story,
    message: MessageReceived,
    *,
    is_automatic: bool,
    from_conversation_id: str | None = None,
) -> None:
    """Add a message to the case. One whose place is doubted, or that was carried, does not change where answers go."""
    content = message.content
    keeps = is_automatic or message.suspicion or from_conversation_id is not None
    contact = None if keeps else contact_of(message)
    if contact is not None:
        language = contact.language or story.ticket.contact.language
        story.change(contact=structs.replace(contact, language=language))
    if not is_automatic:
        ticket = story.ticket
        wrote_at = content.occurred_at
        story.change(
            customer_wrote_at=max(ticket.customer_wrote_at or wrote_at, wrote_at),
            waiting_since=min(ticket.waiting_since or wrote_at, wrote_at),
            unanswered=ticket.unanswered + 1,
        )
    story.tell(
        wire.TicketMessageAdded,
        message_id=message.message_id,
        kind=content.kind,
        is_automatic=is_automatic,
        occurred_at=content.occurred_at,
        status=story.ticket.standing.status,
        vendor_message_id=content.vendor_message_id,
        contact=None if contact is None else story.ticket.contact.to_wire(),
        from_conversation_id=from_conversation_id,
    )


def resume(
    story: Story, policy: Policy, reason: str = "customer_replied", agent_id: str | None = None
) -> None:
    """The customer is waited for no more: a new wait begins, and whoever answered last is asked first."""
    story.change(entered_at=story.now)
    wake(story, policy, reason, agent_id)


def wake(story: Story, policy: Policy, reason: str, agent_id: str | None = None) -> None:
    """A ticket that rested waits for us again, at its age. Whoever had it is asked first, if they have room for it."""
    preferred = story.ticket.assignee_id or story.ticket.last_agent_id
    story.move(Queued(next_work_id(story.ticket)), reason, agent_id)
    story.request_work(reason, policy, relax_from=story.now, preferred=preferred)


def hold(story: Story, agent_id: str, reason: str, waiting_on: str, until: datetime | None) -> None:
    """A third party has to act first; nobody's capacity is taken meanwhile."""
    ticket = story.ticket
    story.withdraw_work("on_hold")
    keeper = ticket.assignee_id or agent_id
    story.change(last_agent_id=keeper)
    story.move(
        OnHold(keeper, waiting_on, until),
        "on_hold",
        keeper,
        waiting_on=waiting_on,
        until=until,
        detail=reason,
    )


def snooze(story: Story, agent_id: str, until: datetime) -> None:
    """Put the ticket away until an instant; the clocks run on."""
    story.withdraw_work("snoozed")
    story.change(last_agent_id=agent_id)
    story.move(Snoozed(agent_id, until), "snoozed", agent_id, until=until)


def set_aside_as_spam(story: Story, agent_id: str, reason: str, policy: Policy) -> None:
    """It is no customer's. It can be restored as long as a solved ticket can be reopened."""
    ticket = story.ticket
    spam = Spam(agent_id, story.now + policy.reopen_window, ticket.waiting_since, ticket.unanswered)
    story.withdraw_work("spam")
    # What was owed to a customer is owed to nobody.
    story.change(delegation=None, waiting_since=None, unanswered=0, dues={}, paged=())
    story.move(spam, "spam", agent_id, detail=reason)


def restore(story: Story, agent_id: str, spam: Spam, policy: Policy) -> None:
    """It was a customer after all: the ticket waits again, and owes what it owed; at its age, if it owed anything."""
    story.change(waiting_since=spam.waiting_since, unanswered=spam.unanswered)
    if not spam.unanswered:
        story.change(entered_at=story.now)
    story.move(Queued(next_work_id(story.ticket)), "restored", agent_id)
    story.request_work(
        "restored", policy, relax_from=story.now, preferred=story.ticket.last_agent_id
    )


def delegate(
    story: Story, command_id: str, owner_id: str, to_agent_id: str, task: str, policy: Policy
) -> None:
    """A colleague does a part; the owner stays responsible, and does not get it back by chance."""
    story.withdraw_work("delegated")
    story.change(delegation=Delegation(owner_id, task), last_agent_id=owner_id)
    story.tell(
        wire.TicketDelegated,
        command_id=command_id,
        owner_id=owner_id,
        to_agent_id=to_agent_id,
        task=task,
    )
    story.move(Queued(next_work_id(story.ticket)), "delegated", owner_id)
    story.request_work(
        "delegated",
        policy,
        relax_from=story.ticket.relax_from,
        preferred=to_agent_id,
        excluded=(owner_id,),
    )


def give_back(
    story: Story,
    command_id: str,
    agent_id: str,
    reason: str,
    delegation: Delegation,
    policy: Policy,
) -> None:
    """What was delegated goes back to its owner, through assignment: they are asked first, if they have room."""
    owner_id = delegation.owner_id
    queue = story.ticket.queue
    story.withdraw_work("returned")
    story.change(delegation=None, last_agent_id=owner_id)
    story.tell(
        wire.TicketReturned,
        command_id=command_id,
        agent_id=agent_id,
        to_agent_id=owner_id,
        from_queue=queue,
        to_queue=queue,
        what="delegation",
        reason=reason,
        returns=story.ticket.returns,
    )
    if not isinstance(story.ticket.standing, Queued):
        story.move(Queued(next_work_id(story.ticket)), "returned", agent_id)
    story.request_work("returned", policy, relax_from=story.ticket.relax_from, preferred=owner_id)


def ask_again(story: Story, policy: Policy) -> None:
    """Everyone but those who were not to be asked has declined: ask them too, before anything else is made of it."""
    left_out = ", ".join(story.ticket.excluded)
    note(
        story,
        ids.derive("note", "asked_again", story.ticket.work_id or ""),
        SIGNALBOX,
        f"Everyone but {left_out}, who gave it away, has declined. All are asked again.",
    )
    story.withdraw_work("exhausted")
    story.request_work("exhausted", policy, relax_from=story.ticket.relax_from)


def set_due(story: Story, target: str, due_at: datetime | None) -> None:
    """A response clock runs until `due_at`, or runs no more. A ticket that waits takes its new place by it."""
    dues = {kind: at for kind, at in story.ticket.dues.items() if kind != target}
    if due_at is not None:
        dues[target] = due_at
    if dues != story.ticket.dues:
        story.change(dues=dues)
    take_place(story)


def take_place(story: Story) -> None:
    """Tell assignment the deadline of a ticket that waits, where that is another than it was told with the request."""
    ticket = story.ticket
    if isinstance(ticket.standing, Queued) and ticket.due_at not in (None, ticket.asked_due_at):
        story.repeat_work(ticket.standing.work_id, "due_changed")


def reopen(
    story: Story,
    message: MessageReceived,
    policy: Policy,
) -> None:
    """The customer wrote in a solved case: it waits again, from now."""
    story.change(
        reopen_count=story.ticket.reopen_count + 1,
        entered_at=story.now,
        standing=Queued(next_work_id(story.ticket)),
    )
    story.tell(
        wire.TicketReopened,
        message_id=message.message_id,
        queue=story.ticket.queue,
        reopen_count=story.ticket.reopen_count,
        occurred_at=message.content.occurred_at,
    )
    story.request_work(
        "reopened", policy, relax_from=story.now, preferred=story.ticket.last_agent_id
    )


def close(story: Story) -> Past:
    """The reopen window is over."""
    story.tell(wire.TicketClosed)
    ticket = story.ticket
    return Past(
        ticket.ticket_id,
        ticket.number,
        ticket.last_agent_id,
        story.now,
        ticket.contact,
        ticket.last_agent_at,
        ticket.reopen_count,
    )


def answer(
    story: Story,
    command_id: str,
    agent_id: str,
    text: str,
    language: str,
    name: str,
    occurred_at: datetime,
    next_update_by: datetime | None = None,
) -> None:
    """The assignee answers the customer, and may promise that they hear again by an instant."""
    story.change(
        answers=story.ticket.answers + 1,
        last_agent_id=agent_id,
        last_agent_at=story.now,
        waiting_since=None,
        unanswered=0,
    )
    story.tell(
        wire.TicketAnswered,
        command_id=command_id,
        agent_id=agent_id,
        agent_name=name,
        text=text,
        language=language,
        occurred_at=occurred_at,
        is_first=story.ticket.answers == 1,
        next_update_by=next_update_by,
    )


def answered_elsewhere(story: Story, message: MessageReceived) -> None:
    """Our side answered by the channel's own means: until the customer writes, nobody is to be bothered.

    An answer that is older than the customer's latest words (channels promise no order) leaves the case where it is.
    """
    story.tell(
        wire.TicketAnsweredElsewhere,
        message_id=message.message_id,
        channel=message.content.channel,
        author=message.content.sender.name,
        occurred_at=message.content.occurred_at,
    )
    wrote_at = story.ticket.customer_wrote_at
    if wrote_at is None or message.content.occurred_at >= wrote_at:
        story.change(waiting_since=None, unanswered=0)
        ticket = story.ticket
        wait_for_customer(story, ticket.assignee_id or ticket.last_agent_id or ELSEWHERE)


def message_revised(story: Story, message: MessageRevised) -> None:
    """A message of the case was edited or removed."""
    story.tell(
        wire.TicketMessageRevised,
        message_id=message.message_id,
        change=message.content.change,
        occurred_at=message.content.occurred_at,
    )


def wait_for_customer(story: Story, agent_id: str) -> None:
    """An answer is out: until the customer writes, nobody's capacity is taken. What waits for a third party goes on to.

    A ticket that nobody of ours had goes to whoever answers it first.
    """
    match story.ticket.standing:
        case OnHold():
            return
        case Pending(agent_id=before) if before != ELSEWHERE or agent_id == ELSEWHERE:
            return
    story.withdraw_work("pending")
    story.move(Pending(agent_id), "answered", agent_id)


def solve(
    story: Story,
    command_id: str,
    agent_id: str,
    cause: str | None,
    occurred_at: datetime,
    policy: Policy,
    *,
    with_answer: bool,
) -> None:
    """The case is done, and closes when the reopen window ends. It is its owner's, whoever did a part of it."""
    story.withdraw_work("solved")
    delegation = story.ticket.delegation
    owner_id = agent_id if delegation is None else delegation.owner_id
    story.change(
        standing=Solved(agent_id, story.now, story.now + policy.reopen_window),
        last_agent_id=owner_id,
        delegation=None,
        waiting_since=None,
        unanswered=0,
        dues={},
        paged=(),
        last_agent_at=story.now,
        cause=cause or story.ticket.cause,
    )
    story.tell(
        wire.TicketSolved,
        command_id=command_id,
        agent_id=agent_id,
        cause=cause,
        occurred_at=occurred_at,
        with_answer=with_answer,
    )


def note(story: Story, command_id: str, agent_id: str, text: str) -> None:
    """Write something down for colleagues."""
    story.tell(wire.TicketNoteAdded, command_id=command_id, agent_id=agent_id, text=text)


def move_to_queue(story: Story, name: str, policy: Policy) -> None:
    """Put the ticket into another queue, with the desk that queue belongs to. The next request names its domain.

    What its rule asks goes with it; what the old queue asked beside that gives way to what the new one does.
    """
    ticket = story.ticket
    story.change(queue=name, desk=policy.routing.queues[name].desk)
    if name != ticket.queue:
        story.change(**asked_in(name, ticket.asked or ticket.requirement, ticket.rule, policy))


def renamed(contact: Contact, members: tuple[str, ...], customer_id: str) -> Contact:
    """Return a contact under the id that its customer has now, if they are one of `members`."""
    if contact.own_id not in members or contact.customer_id == customer_id:
        return contact
    return structs.replace(contact, customer_id=customer_id, origin_id=contact.own_id)


def change_customer(
    story: Story,
    members: tuple[str, ...],
    customer_id: str,
    reason: Literal["merged", "unmerged"],
    merge_id: str,
    by: str,
) -> None:
    """The ticket's customer turned out to be another's self, or not to be; where answers go stays."""
    before = story.ticket.contact
    after = renamed(before, members, customer_id)
    if after == before:
        return
    story.change(contact=after)
    story.tell(
        wire.TicketCustomerChanged,
        before=before.customer_id,
        customer_id=customer_id,
        reason=reason,
        merge_id=merge_id,
        by=by,
    )


def describe_customer(story: Story, event: CustomerDescribed) -> bool:
    """Tell what the company thinks of the ticket's customer from now on; return whether it is they who are meant."""
    contact = story.ticket.contact
    if contact.customer_id not in event.members and contact.own_id not in event.members:
        return False
    story.tell(
        wire.TicketCustomerDescribed,
        customer_id=contact.customer_id,
        tier=event.tier,
        contract=event.contract,
    )
    return True


def without_person(ticket: Ticket) -> Ticket:
    """Return a ticket whose customer is forgotten: it can be worked on, and nobody can be answered."""
    kept = structs.replace(ticket, contact=nobody(ticket.contact), subject="", facts={})
    # What is on its way to a merge is the customer's own words, and what a colleague was asked may name them.
    if kept.merging is not None:
        kept = structs.replace(kept, merging=structs.replace(kept.merging, messages=()))
    bare = tuple(structs.replace(one, facts={}) for one in kept.absorbed)
    kept = structs.replace(kept, absorbed=bare)
    if kept.delegation is not None:
        kept = structs.replace(kept, delegation=structs.replace(kept.delegation, task=""))
    if isinstance(kept.standing, OnHold):
        kept = structs.replace(kept, standing=structs.replace(kept.standing, waiting_on=""))
    return kept


def nobody(contact: Contact) -> Contact:
    """Return a contact without name and address."""
    return structs.replace(contact, name="", address="", address_kind="none", is_verified=False)
