"""What people want done with a ticket: done, or refused with a named reason and nothing changed.

First what rules a command out by where the ticket stands (`objection`), then what each command asks for (`obey`). Between
them every command has an outcome in every standing.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import structs

from schemas import tickets as wire
from schemas.commands import (
    AddNote,
    AnyCommand,
    CallMade,
    Command,
    DelegateTicket,
    EscalateTicket,
    HoldTicket,
    MarkTicketAsSpam,
    MergeTicket,
    PrioritiseTicket,
    PromiseCustomer,
    ReassignTicket,
    ReplyToCustomer,
    RestoreTicket,
    ResumeTicket,
    ReturnTicket,
    SnoozeTicket,
    SolveTicket,
    TagTicket,
    UnmergeTicket,
)
from services.router.core.policy.policy import Policy
from services.router.core.tickets import (
    escalation,
    lifecycle,
    merge,
)
from services.router.core.tickets.state import (
    Conversation,
    Merged,
    OnHold,
    Past,
    Pending,
    Queued,
    Resting,
    Snoozed,
    Solved,
    Spam,
    Ticket,
)
from services.router.core.tickets.story import Story, next_work_id

UNTIL_MAX: Final = timedelta(days=366)
"""How far ahead a ticket may be put away."""

PROMISE_MAX: Final = timedelta(days=90)
"""How far ahead a customer may be promised something."""

WINDOW_AGE_MAX: Final = timedelta(days=1)
"""How long ago the time for a call may have begun: it may be told while it runs, and a mistyped year is none."""

CALL_SKEW_MAX: Final = timedelta(minutes=5)
"""How far the clock of whoever calls may be off ours."""

TAGS_MAX: Final = 100
"""How many tags a ticket may have by command."""


def refused(
    command: Command, reason: str, about: Ticket | Past | None, now: datetime
) -> wire.CommandRefused:
    """Say that a command does not fit, and where the ticket stands, as far as that is known."""
    stands: dict[str, object] = {"state": "unknown"}
    match about:
        case Past():
            stands = {
                "state": "closed",
                "since": about.closed_at,
                "assignee_id": about.last_agent_id,
            }
        case Ticket(standing=standing):
            stands = {
                "state": standing.status,
                "version": about.version,
                "since": about.moved_at,
                "assignee_id": about.assignee_id,
            }
            if isinstance(standing, Merged):
                stands["into_conversation_id"] = standing.into_conversation_id
                stands["into_ticket_id"] = standing.into_ticket_id
        case None:
            pass
    return wire.CommandRefused.model_validate(
        {
            "command_id": command.command_id,
            "command": command.TYPE,
            "ticket_id": command.ticket_id,
            "conversation_id": command.conversation_id,
            "agent_id": command.agent_id,
            "reason": reason,
            "at": now,
            **stands,
        }
    )


def objection(ticket: Ticket, command: AnyCommand) -> str | None:
    """Return why where the ticket stands rules the command out, whoever gives it."""
    match command, ticket.standing:
        case UnmergeTicket(), Merged():
            return None
        case _, Merged():
            return "merged"
        case (AddNote() | TagTicket(), _) | (RestoreTicket(), Spam()):
            return None
        case _, Spam():
            return "is_spam"
        case RestoreTicket(), _:
            return "not_spam"
        case UnmergeTicket(), _:
            return "not_merged"
        case CallMade(), Solved():
            return None  # It was made, whatever has become of the case.
        case _, Solved():
            return "already_solved"
        case PrioritiseTicket(), _:
            return None
        case _ if ticket.merging is not None:
            return "merge_underway"
        case _:
            return None


def obey(
    story: Story,
    state: Conversation,
    command: AnyCommand,
    policy: Policy,
    occurred_at: datetime,
) -> str | None:
    """Do what is asked; return why not, if not."""
    story.command_id = command.command_id
    match command:
        case AddNote():
            lifecycle.note(story, command.command_id, command.agent_id, command.text)
            return None
        case TagTicket():
            return _tag(story, command, policy)
        case ReplyToCustomer():
            return _reply(story, command, policy, occurred_at)
        case SolveTicket():
            return _solve(story, command, policy, occurred_at)
        case EscalateTicket():
            return _escalate(story, command, policy)
        case ReassignTicket():
            return _reassign(story, command, policy)
        case _:
            return _obey_further(story, state, command, policy)


def _obey_further(
    story: Story,
    state: Conversation,
    command: HoldTicket
    | SnoozeTicket
    | ResumeTicket
    | DelegateTicket
    | ReturnTicket
    | MarkTicketAsSpam
    | RestoreTicket
    | MergeTicket
    | UnmergeTicket
    | PromiseCustomer
    | CallMade
    | PrioritiseTicket,
    policy: Policy,
) -> str | None:
    match command:
        case HoldTicket():
            return _hold(story, command)
        case SnoozeTicket():
            return _snooze(story, command)
        case ResumeTicket():
            return _resume(story, command, policy)
        case DelegateTicket():
            return _delegate(story, command, policy)
        case ReturnTicket():
            return _return(story, command, policy)
        case MarkTicketAsSpam():
            return _spam(story, command, policy)
        case RestoreTicket():
            return _restore(story, command, policy)
        case MergeTicket():
            return _merge(story, state, command)
        case UnmergeTicket():
            return _unmerge(story, command, policy)
        case PromiseCustomer():
            return _promise(story, command)
        case CallMade():
            return _called(story, command)
        case PrioritiseTicket():
            return _prioritise(story, command)


def _may_act(ticket: Ticket, agent_id: str) -> bool:
    """Whoever has the ticket acts on it, and whoever delegated it; while it is nobody's, anyone may."""
    delegation = ticket.delegation
    if delegation is not None and delegation.owner_id == agent_id:
        return True
    if ticket.assignee_id is None:
        return delegation is None
    return ticket.assignee_id == agent_id


def _may_answer(ticket: Ticket, agent_id: str) -> bool:
    """As `_may_act`, but for a ticket that waits for somebody of ours: two might answer it at once."""
    if ticket.work_id is not None and ticket.assignee_id is None and ticket.delegation is None:
        return False
    return _may_act(ticket, agent_id)


def _reply(
    story: Story, command: ReplyToCustomer, policy: Policy, occurred_at: datetime
) -> str | None:
    ticket = story.ticket
    if not _may_answer(ticket, command.agent_id):
        return "not_assignee"
    refusal = _cause_refusal(ticket, command.cause, policy) if command.solves else None
    if refusal is None and command.next_update_by is not None:
        refusal = _next_update_refusal(command, command.next_update_by, story.now)
    if refusal is not None:
        return refusal
    lifecycle.answer(
        story,
        command.command_id,
        command.agent_id,
        command.text,
        command.language or policy.language(ticket.contact.language),
        policy.agent_name(command.agent_id),
        occurred_at,
        command.next_update_by,
    )
    if command.solves:
        lifecycle.solve(
            story,
            command.command_id,
            command.agent_id,
            command.cause,
            occurred_at,
            policy,
            with_answer=True,
        )
    else:
        lifecycle.wait_for_customer(story, command.agent_id)
    return None


def _solve(story: Story, command: SolveTicket, policy: Policy, occurred_at: datetime) -> str | None:
    if not _may_act(story.ticket, command.agent_id):
        return "not_assignee"
    refusal = _cause_refusal(story.ticket, command.cause, policy)
    if refusal is not None:
        return refusal
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
    refusal = escalation.refusal(story.ticket, command.queue, command.facts, policy)
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


def _cause_refusal(ticket: Ticket, cause: str | None, policy: Policy) -> str | None:
    """Return why a ticket cannot be solved with this cause, or None. One that was named earlier counts."""
    causes = policy.causes
    if causes is None:
        return None
    if cause is not None:
        return causes.unknown_cause(cause)
    known = ticket.cause is not None or any(map(causes.is_cause, ticket.tags))
    return "cause_required" if causes.is_required and not known else None


def _reassign(story: Story, command: ReassignTicket, policy: Policy) -> str | None:
    """Put the ticket elsewhere. Agents are not known here, so any `to_agent_id` goes on to assignment.

    From desk to desk that is an escalation or a return like any other, with the same conditions.
    """
    ticket = story.ticket
    queue = command.queue or ticket.queue
    refusal = _reassign_refusal(ticket, command, queue, policy)
    if refusal is not None:
        return refusal
    match ticket.desk, policy.routing.queues[queue].desk:
        case "service", "technical":
            return _reassign_up(story, command, queue, policy)
        case "technical", "service":
            escalation.give_back(
                story,
                command.command_id,
                command.agent_id,
                "reassigned",
                policy,
                to_queue=queue,
                to_agent_id=command.to_agent_id,
                transfer=_transfer(command),
            )
        case _ if isinstance(ticket.standing, Resting):
            _reassign_resting(story, ticket.standing, command, queue, policy)
        case _:
            _reassign_waiting(story, command, queue, policy)
    return None


def _transfer(command: ReassignTicket) -> Literal["", "direct", "forced"]:
    return "" if command.transfer == "ask" else command.transfer


def _reassign_up(story: Story, command: ReassignTicket, queue: str, policy: Policy) -> str | None:
    refusal = escalation.refusal(story.ticket, queue, {}, policy)
    if refusal is not None:
        return refusal
    owner_id = escalation.forced_owner(story.ticket, policy)
    if owner_id is not None and command.to_agent_id not in (None, owner_id):
        return "owner_forced"
    escalation.hand_over(
        story,
        policy,
        reason="reassigned",
        to_queue=queue,
        command_id=command.command_id,
        agent_id=command.agent_id,
        to_agent_id=command.to_agent_id,
        transfer=_transfer(command),
    )
    return None


def _reassign_resting(
    story: Story,
    standing: Pending | OnHold | Snoozed,
    command: ReassignTicket,
    queue: str,
    policy: Policy,
) -> None:
    """It rests on, and is somebody else's, or with another queue of the desk."""
    lifecycle.move_to_queue(story, queue, policy)
    story.change(delegation=None)
    heir = command.to_agent_id or standing.agent_id
    if command.to_agent_id is not None:
        story.change(last_agent_id=heir)
        if story.ticket.desk == "technical":
            story.change(technical_agent_id=heir)
    story.move(structs.replace(standing, agent_id=heir), "reassigned", heir)
    escalation.change_owner(story, command.to_agent_id)


def _reassign_waiting(story: Story, command: ReassignTicket, queue: str, policy: Policy) -> None:
    ticket = story.ticket
    # Whoever gives a ticket away within a queue must not be the one it comes back to.
    giver = ticket.assignee_id
    excluded = (giver,) if giver is not None and queue == ticket.queue else ()
    story.withdraw_work("reassigned")
    lifecycle.move_to_queue(story, queue, policy)
    story.change(delegation=None)
    story.move(Queued(next_work_id(ticket)), "reassigned", command.agent_id)
    escalation.change_owner(story, command.to_agent_id)
    # A colleague in the same queue is asked for the same: what fell away stays away.
    relax_from = ticket.relax_from if queue == ticket.queue else story.now
    story.request_work(
        "reassigned",
        policy,
        relax_from=relax_from,
        preferred=command.to_agent_id,
        excluded=excluded,
        transfer=_transfer(command),
    )


def _reassign_refusal(
    ticket: Ticket, command: ReassignTicket, queue: str, policy: Policy
) -> str | None:
    known = policy.queue(queue)
    if command.queue is None and command.to_agent_id is None:
        return "nothing_asked"
    if command.transfer != "ask" and command.to_agent_id is None:
        return "agent_missing"
    if known is None:
        return f"queue_unknown: {queue}"
    if queue == ticket.queue and command.to_agent_id in (None, ticket.assignee_id):
        return "already_there"
    if ticket.forced_owner_id is not None and not _names_owner(ticket, command, queue, known.desk):
        return "owner_forced"
    return None


def _names_owner(ticket: Ticket, command: ReassignTicket, queue: str, desk: wire.Desk) -> bool:
    """Whether a command leaves a forced ticket with its owner, or makes somebody else of the desk its owner by force."""
    if command.to_agent_id == ticket.forced_owner_id and queue == ticket.queue:
        return True
    return desk == "technical" and command.transfer == "forced"


def _until_refusal(until: datetime | None, now: datetime) -> str | None:
    if until is None:
        return None
    if until <= now:
        return "until_past"
    return "until_too_far" if until > now + UNTIL_MAX else None


def _hold(story: Story, command: HoldTicket) -> str | None:
    if not _may_act(story.ticket, command.agent_id):
        return "not_assignee"
    refusal = _until_refusal(command.until, story.now)
    if refusal is None:
        lifecycle.hold(story, command.agent_id, command.reason, command.waiting_on, command.until)
    return refusal


def _snooze(story: Story, command: SnoozeTicket) -> str | None:
    if story.ticket.assignee_id != command.agent_id:
        return "not_assignee"
    refusal = _until_refusal(command.until, story.now)
    if refusal is None:
        lifecycle.snooze(story, command.agent_id, command.until)
    return refusal


def _resume(story: Story, command: ResumeTicket, policy: Policy) -> str | None:
    """Anyone may: nothing is taken from whoever has it, since it is offered to them first."""
    if not isinstance(story.ticket.standing, Resting):
        return "not_resting"
    if isinstance(story.ticket.standing, Pending):
        lifecycle.resume(story, policy, "resumed", command.agent_id)
    else:
        lifecycle.wake(story, policy, "resumed", command.agent_id)
    return None


def _delegate(story: Story, command: DelegateTicket, policy: Policy) -> str | None:
    ticket = story.ticket
    if ticket.assignee_id != command.agent_id:
        return "not_assignee"
    if ticket.delegation is not None:
        return "already_delegated"
    if command.to_agent_id == command.agent_id:
        return "already_there"
    lifecycle.delegate(
        story, command.command_id, command.agent_id, command.to_agent_id, command.task, policy
    )
    return None


def _return(story: Story, command: ReturnTicket, policy: Policy) -> str | None:
    ticket = story.ticket
    if not _may_act(ticket, command.agent_id):
        return "not_assignee"
    if ticket.delegation is not None:
        lifecycle.give_back(
            story, command.command_id, command.agent_id, command.reason, ticket.delegation, policy
        )
        return None
    refusal = escalation.return_refusal(ticket, policy)
    if refusal is None:
        escalation.give_back(story, command.command_id, command.agent_id, command.reason, policy)
    return refusal


def _spam(story: Story, command: MarkTicketAsSpam, policy: Policy) -> str | None:
    if not _may_act(story.ticket, command.agent_id):
        return "not_assignee"
    lifecycle.set_aside_as_spam(story, command.agent_id, command.reason, policy)
    return None


def _restore(story: Story, command: RestoreTicket, policy: Policy) -> str | None:
    standing = story.ticket.standing
    assert isinstance(standing, Spam), "objection() has seen to it"
    lifecycle.restore(story, command.agent_id, standing, policy)
    return None


def _merge(story: Story, state: Conversation, command: MergeTicket) -> str | None:
    if not _may_act(story.ticket, command.agent_id):
        return "not_assignee"
    refusal = merge.refusal(story.ticket, state, command)
    if refusal is None:
        merge.ask(story, command)
    return refusal


def _unmerge(story: Story, command: UnmergeTicket, policy: Policy) -> str | None:
    standing = story.ticket.standing
    assert isinstance(standing, Merged), "objection() has seen to it"
    merge.undo(story, command, standing, policy)
    return None


def _next_update_refusal(command: ReplyToCustomer, by: datetime, now: datetime) -> str | None:
    """Return why an answer cannot promise another one by `by`, or None."""
    if command.solves:
        return "promise_with_solution"
    return _promise_refusal(by, now)


def _promise_refusal(by: datetime, now: datetime) -> str | None:
    """Return why nothing can be promised for `by`: a clock that has run out before it begins measures nothing."""
    if by <= now:
        return "promise_not_in_the_future"
    return "promise_too_far" if by > now + PROMISE_MAX else None


def _promise(story: Story, command: PromiseCustomer) -> str | None:
    if not _may_act(story.ticket, command.agent_id):
        return "not_assignee"
    refusal = _promise_refusal(command.by, story.now)
    if refusal is not None:
        return refusal
    if command.not_before is not None:
        if command.not_before >= command.by:
            return "promise_window_empty"
        if command.not_before < story.now - WINDOW_AGE_MAX:
            return "promise_window_past"
    story.tell(
        wire.TicketPromised,
        command_id=command.command_id,
        agent_id=command.agent_id,
        what=command.what,
        by=command.by,
        not_before=command.not_before,
        note=command.note,
    )
    return None


def _called(story: Story, command: CallMade) -> str | None:
    """Anyone may say so: a call that was made is a fact like a note."""
    if command.occurred_at > story.now + CALL_SKEW_MAX:
        return "called_in_the_future"
    if command.occurred_at < story.ticket.opened_at - CALL_SKEW_MAX:
        return "called_before_ticket"
    story.tell(
        wire.TicketCalled,
        command_id=command.command_id,
        agent_id=command.agent_id,
        outcome=command.outcome,
        occurred_at=command.occurred_at,
    )
    return None


def _prioritise(story: Story, command: PrioritiseTicket) -> str | None:
    if story.ticket.priority == command.priority:
        return "priority_unchanged"
    escalation.set_priority(
        story,
        command.priority,
        command.reason,
        command_id=command.command_id,
        agent_id=command.agent_id,
    )
    return None


def _tag(story: Story, command: TagTicket, policy: Policy) -> str | None:
    before = story.ticket.tags
    if policy.causes is not None:
        refusal = policy.causes.unknown_tags(tag for tag in command.add if tag not in before)
        if refusal is not None:
            return refusal
    after = tuple(sorted((set(before) | set(command.add)) - set(command.remove)))
    if len(after) > max(TAGS_MAX, len(before)):
        return f"tags_too_many: at most {TAGS_MAX}"
    if after != before:
        story.change(tags=after)
        story.tell(
            wire.TicketTagged, command_id=command.command_id, agent_id=command.agent_id, tags=after
        )
        if not isinstance(story.ticket.standing, Solved | Spam):
            escalation.by_tags(story, [tag for tag in after if tag not in before], policy)
    return None
