"""From front-line service to technical support: when it is refused, and what is handed over."""

from collections.abc import Mapping

from msgspec import structs

from schemas import tickets as wire
from schemas.commands import EscalateTicket
from schemas.sla import TargetAtRisk, TargetBreached
from services.router.core.lifecycle import Story, move_to_queue, next_work_id
from services.router.core.policy import Policy
from services.router.core.policy_model import TargetAction
from services.router.core.state import Queued, Ticket


def missing_facts(known: Mapping[str, str], policy: Policy) -> tuple[str, ...]:
    """Return which of the facts that technical support needs are not there, or blank, in the policy's order."""
    required = policy.routing.escalation.required_facts
    return tuple(name for name in required if not known.get(name, "").strip())


def refusal(ticket: Ticket, command: EscalateTicket, policy: Policy) -> str | None:
    """Return why the command cannot be done, or None. Facts handed over earlier count."""
    to_queue = command.queue or policy.routing.escalation.to_queue
    queue = policy.queue(to_queue)
    if queue is None:
        return f"queue_unknown: {to_queue}"
    if queue.desk != "technical":
        return f"queue_not_technical: {to_queue}"
    if ticket.queue == to_queue or (command.queue is None and ticket.desk == "technical"):
        return "already_there"
    missing = missing_facts({**ticket.facts, **command.facts}, policy)
    if missing:
        return f"facts_missing: {', '.join(missing)}"
    return None


def can_rise(ticket: Ticket) -> bool:
    """Whether a rule may escalate the ticket: it is still with the front line."""
    return ticket.desk == "service"


def hand_over(
    story: Story,
    policy: Policy,
    *,
    reason: str,
    to_queue: str | None = None,
    command_id: str | None = None,
    agent_id: str | None = None,
    facts: Mapping[str, str] | None = None,
    by_rule: str | None = None,
) -> None:
    """Move the case up. It keeps its age, its customer and all that is known; its clocks run on.

    The patience of what it asks begins anew: it is asked of others, who have not been waited for yet.
    """
    rules = policy.routing.escalation
    from_queue = story.ticket.queue
    target = to_queue or rules.to_queue
    story.withdraw_work("escalated")
    move_to_queue(story, target, policy)
    ticket = story.ticket
    asked = ticket.requirement
    if policy.escalation_skills is not None:
        asked = structs.replace(asked, skills=policy.escalation_skills)
    story.change(
        facts={**ticket.facts, **(facts or {})},
        priority=min(ticket.priority, rules.raise_priority_to or ticket.priority),
        requirement=asked,
        last_agent_id=ticket.assignee_id or ticket.last_agent_id,
    )
    story.tell(
        wire.TicketEscalated,
        command_id=command_id,
        agent_id=agent_id,
        from_queue=from_queue,
        to_queue=target,
        reason=reason,
        facts=story.ticket.facts,
        by_rule=by_rule,
    )
    if not isinstance(ticket.standing, Queued):
        story.move(Queued(next_work_id(ticket)), "escalated", agent_id)
    story.request_work("escalated", policy, relax_from=story.now)


def raise_priority(story: Story, priority: int, reason: str) -> bool:
    """Make the ticket more urgent; return whether it was less. A wait that stands keeps its age."""
    ticket = story.ticket
    if ticket.priority <= priority:
        return False
    story.change(priority=priority)
    story.move(ticket.standing, f"priority_raised_to_{priority}: {reason}", ticket.assignee_id)
    if ticket.work_id is not None:
        story.repeat_work(ticket.work_id, "priority_raised")
    return True


def action_for(event: TargetBreached | TargetAtRisk, policy: Policy) -> TargetAction | None:
    """Return what the policy says of a clock's event, or None."""
    rules = policy.routing.escalation
    table = rules.on_breach if isinstance(event, TargetBreached) else rules.on_risk
    return table.get(event.target)


def rule_name(event: TargetBreached | TargetAtRisk) -> str:
    """Return the name under which an escalation by a clock is recorded."""
    what = "breach" if isinstance(event, TargetBreached) else "risk"
    return f"on_{what}.{event.target}"
