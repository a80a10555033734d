"""The steps of a ticket's life, each a straight line: what changes, and what is told of it."""

from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from msgspec import structs

from schemas import ids
from schemas import tickets as wire
from schemas.messages import MessageReceived, MessageRevised
from schemas.payload import Payload
from schemas.routing import WorkRequested, WorkWithdrawn
from services.router.core import requirement as requirements
from services.router.core import rules
from services.router.core.policy import Policy
from services.router.core.state import Contact, Past, Pending, Queued, Solved, Standing, Ticket

SIGNALBOX = "signalbox"
"""Who writes a note that no person wrote."""


class MessageRow(NamedTuple):
    """What became of a message: `outcome` is opened, followed_up, added, reopened, or why it was set aside."""

    message_id: str
    input_id: str
    ticket_id: str | None
    conversation_id: str
    kind: str
    outcome: str
    at: datetime
    text: str


class ErasedRow(NamedTuple):
    """What is kept of `members` in a conversation is to be removed: their messages, and all of their tickets."""

    conversation_id: str
    members: tuple[str, ...]
    message_ids: tuple[str, ...]


class RevisedRow(NamedTuple):
    """What a message says now; empty where its writer took it back."""

    message_id: str
    text: str


ELSEWHERE: Final = "elsewhere"
"""Who answered, where nobody of the roster did: somebody at the channel itself."""


class Story:
    """One ticket within one decision: it changes step by step, and what is told is numbered on the way."""

    def __init__(self, conversation_id: str, ticket: Ticket, now: datetime) -> None:
        self.conversation_id = conversation_id
        self.ticket = ticket
        self.now = now
        self.events: list[Payload] = []

    def change(self, **fields: Any) -> None:
        """Replace fields of the ticket."""
        self.ticket = structs.replace(self.ticket, **fields)

    def tell(self, kind: type[wire.TicketEvent], /, **fields: Any) -> None:
        """Tell a fact about the ticket, under its next version."""
        self.change(version=self.ticket.version + 1, updated_at=self.now)
        self.events.append(
            kind(
                ticket_id=self.ticket.ticket_id,
                conversation_id=self.conversation_id,
                version=self.ticket.version,
                at=self.now,
                **fields,
            )
        )

    def move(self, standing: Standing, reason: str, agent_id: str | None = None) -> None:
        """Move the ticket on and say so."""
        before = self.ticket.standing.status
        self.change(standing=standing)
        self.tell(
            wire.TicketStatusChanged,
            before=before,
            status=standing.status,
            reason=reason,
            agent_id=agent_id,
            queue=self.ticket.queue,
        )

    def request_work(
        self,
        reason: str,
        policy: Policy,
        *,
        relax_from: datetime | None = None,
        preferred: str | None = None,
        excluded: tuple[str, ...] = (),
    ) -> None:
        """Ask for a person: the ticket stands queued under a new work id, in the domain that its queue has now.

        `relax_from` is when the patience of what it asks begins (None: when it entered).
        """
        work_id = next_work_id(self.ticket)
        queue = policy.queue(self.ticket.queue)
        self.change(
            works=self.ticket.works + 1,
            standing=Queued(work_id),
            domain=self.ticket.domain if queue is None else queue.domain,
            relax_from=relax_from,
        )
        self._ask(work_id, reason, preferred, excluded)

    def repeat_work(self, work_id: str, reason: str) -> None:
        """Tell assignment of a new priority for the request that stands, whose place changes and nothing else."""
        self._ask(work_id, reason, None, ())

    def _ask(
        self, work_id: str, reason: str, preferred: str | None, excluded: tuple[str, ...]
    ) -> None:
        ticket = self.ticket
        self.events.append(
            WorkRequested(
                domain=ticket.domain,
                work_id=work_id,
                ticket_id=ticket.ticket_id,
                conversation_id=self.conversation_id,
                queue=ticket.queue,
                priority=ticket.priority,
                cost=ticket.cost,
                requirement=requirements.to_wire(ticket.requirement),
                entered_at=ticket.entered_at,
                relax_from=ticket.relax_from,
                preferred_agent_id=preferred,
                excluded_agent_ids=excluded,
                reason=reason,
                rule=ticket.rule,
                policy_version=ticket.policy_version,
            )
        )

    def withdraw_work(self, reason: str) -> None:
        """Tell assignment that nobody is needed any more, if somebody was."""
        work_id = self.ticket.work_id
        if work_id is not None:
            self.events.append(
                WorkWithdrawn(
                    domain=self.ticket.domain,
                    work_id=work_id,
                    ticket_id=self.ticket.ticket_id,
                    conversation_id=self.conversation_id,
                    reason=reason,
                )
            )


def next_work_id(ticket: Ticket) -> str:
    """Name the ticket's next request for a person."""
    return ids.derive("work", ticket.ticket_id, str(ticket.works + 1))


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
    rule = rules.first_match(
        policy.rules,
        rules.facts(
            channel=content.channel,
            account=content.account,
            language=content.language,
            kind=content.kind,
            is_verified=message.verified,
            is_automatic=content.is_automatic,
            subject=content.subject,
            text=what_is_new(message),
        ),
    )
    language = policy.language(content.language) if rule.is_language_asked else None
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
        cost=policy.cost(content.channel) if rule.cost is None else rule.cost,
        requirement=structs.replace(rule.requirement, language=language),
        contact=_contact_for(message, follows),
        subject=content.subject,
        opened_at=now,
        entered_at=now,
        updated_at=now,
        customer_wrote_at=content.occurred_at,
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
        suspicion=message.suspicion,
        context=message.context,
    )
    if follows is None:
        story.request_work("opened", policy)
    else:
        story.request_work("follow_up", policy, preferred=follows.last_agent_id)
    return story


def add_message(story: Story, message: MessageReceived, *, is_automatic: bool) -> None:
    """Add a message to the case. One whose place is doubted does not change where answers go."""
    content = message.content
    contact = None if is_automatic or message.suspicion else contact_of(message)
    if contact is not None:
        language = contact.language or story.ticket.contact.language
        story.change(contact=structs.replace(contact, language=language))
    if not is_automatic:
        known = story.ticket.customer_wrote_at
        story.change(customer_wrote_at=max(known or content.occurred_at, content.occurred_at))
    story.tell(
        wire.TicketMessageAdded,
        message_id=message.message_id,
        kind=content.kind,
        is_automatic=is_automatic,
        occurred_at=content.occurred_at,
        status=story.ticket.standing.status,
        vendor_message_id=content.vendor_message_id,
        contact=None if contact is None else story.ticket.contact.to_wire(),
    )


def resume(story: Story, policy: Policy) -> None:
    """The customer answered what we waited for: back to the queue, to whoever answered last if they are free."""
    story.change(entered_at=story.now)
    story.move(Queued(next_work_id(story.ticket)), "customer_replied")
    story.request_work(
        "customer_replied",
        policy,
        relax_from=story.now,
        preferred=story.ticket.last_agent_id,
    )


def reopen(story: Story, message: MessageReceived, policy: Policy) -> None:
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
    return Past(ticket.ticket_id, ticket.number, ticket.last_agent_id, story.now, ticket.contact)


def answer(
    story: Story,
    command_id: str,
    agent_id: str,
    text: str,
    language: str,
    name: str,
    occurred_at: datetime,
) -> None:
    """The assignee answers the customer."""
    story.change(answers=story.ticket.answers + 1, last_agent_id=agent_id)
    story.tell(
        wire.TicketAnswered,
        command_id=command_id,
        agent_id=agent_id,
        agent_name=name,
        text=text,
        language=language,
        occurred_at=occurred_at,
        is_first=story.ticket.answers == 1,
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
    """An answer is out: until the customer writes, nobody's capacity is taken."""
    if isinstance(story.ticket.standing, Pending):
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
    """The case is done, and closes when the reopen window ends."""
    story.withdraw_work("solved")
    story.change(
        standing=Solved(agent_id, story.now, story.now + policy.reopen_window),
        last_agent_id=agent_id,
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
    """Put the ticket into another queue, with the desk that queue belongs to. The next request names its domain."""
    story.change(queue=name, desk=policy.routing.queues[name].desk)


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


def without_person(ticket: Ticket) -> Ticket:
    """Return a ticket whose customer is forgotten: it can be worked on, and nobody can be answered."""
    return structs.replace(ticket, contact=nobody(ticket.contact), subject="", facts={})


def nobody(contact: Contact) -> Contact:
    """Return a contact without name and address."""
    return structs.replace(contact, name="", address="", address_kind="none", is_verified=False)
