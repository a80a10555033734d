"""From front-line service to technical support and back: when it is refused, what is handed over, who is paged."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

from schemas import ids
from schemas import tickets as wire
from schemas.sla import TargetAtRisk, TargetBreached
from services.router.core.policy.escalation_model import OnCallModel, TargetAction
from services.router.core.policy.escalation_skills import with_skills
from services.router.core.policy.lexicon import fold
from services.router.core.policy.policy import Policy
from services.router.core.tickets.lifecycle import move_to_queue, note
from services.router.core.tickets.state import Assigned, Offered, Queued, Ticket
from services.router.core.tickets.story import SIGNALBOX, Story, asked_in, next_work_id

FACTS_MAX: Final = 32
"""How many facts a ticket keeps."""

FACT_LENGTH_MAX: Final = 2_000
"""How many characters one of them may have, its name included."""


def required_facts(queue: str, policy: Policy) -> tuple[str, ...]:
    """Return which facts whoever serves `queue` must be handed."""
    rules = policy.routing.escalation
    return rules.required_facts_by_queue.get(queue, rules.required_facts)


def missing_facts(known: Mapping[str, str], queue: str, policy: Policy) -> tuple[str, ...]:
    """Return which of the facts that `queue` needs are not there, or blank, in the policy's order."""
    return tuple(name for name in required_facts(queue, policy) if not known.get(name, "").strip())


def _are_too_large(facts: Mapping[str, str]) -> bool:
    return len(facts) > FACTS_MAX or any(
        len(name) + len(value) > FACT_LENGTH_MAX for name, value in facts.items()
    )


def refusal(
    ticket: Ticket, asked_queue: str | None, facts: Mapping[str, str], policy: Policy
) -> str | None:
    """Return why the ticket cannot be handed over (to the policy's queue, for None), or None. Earlier facts count."""
    to_queue = asked_queue or policy.routing.escalation.to_queue
    queue = policy.queue(to_queue)
    if queue is None:
        return f"queue_unknown: {to_queue}"
    if queue.desk != "technical":
        return f"queue_not_technical: {to_queue}"
    if ticket.queue == to_queue or (asked_queue is None and ticket.desk == "technical"):
        return "already_there"
    if ticket.forced_owner_id is not None:
        return "owner_forced"
    known = {**ticket.facts, **facts}
    missing = missing_facts(known, to_queue, policy)
    if missing:
        return f"facts_missing: {', '.join(missing)}"
    if facts and _are_too_large(known):
        return (
            f"facts_too_large: a ticket keeps at most {FACTS_MAX} facts,"
            f" each with its name of at most {FACT_LENGTH_MAX} characters"
        )
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
    due_at: datetime | None = None,
    to_agent_id: str | None = None,
    transfer: Literal["", "direct", "forced"] = "",
) -> None:
    """Move the case up. It keeps its age, its customer, what it asks for and all that is known; its clocks run on.

    The patience of what it asks begins anew: it is asked of others, who have not been waited for yet. One that went to and
    fro too often goes to whoever of technical support had it last, and stays with them; else `to_agent_id` is asked first, or
    has it by `transfer`. `due_at` is when a timer should have done it.
    """
    rules = policy.routing.escalation
    before = story.ticket
    target = to_queue or rules.to_queue
    story.withdraw_work("escalated")
    _go_up(story, target, policy)
    story.change(
        facts={**before.facts, **(facts or {})},
        last_agent_id=before.keeper_id,
        delegation=None,
        rise_at=None,
    )
    if before.desk == "service":
        story.change(
            front_queue=before.queue,
            front_agent_id=story.ticket.last_agent_id,
            front_asked=before.asked or before.requirement,
        )
    story.tell(
        wire.TicketEscalated,
        command_id=command_id,
        agent_id=agent_id,
        from_queue=before.queue,
        to_queue=target,
        reason=reason,
        facts=story.ticket.facts,
        by_rule=by_rule,
        due_at=due_at,
        late_seconds=0 if due_at is None else max((story.now - due_at).total_seconds(), 0.0),
    )
    if rules.raise_priority_to is not None and rules.raise_priority_to < before.priority:
        _change_priority(
            story,
            rules.raise_priority_to,
            "escalated",
            command_id=command_id,
            agent_id=agent_id,
            by_rule=by_rule,
        )
    owner_id = forced_owner(before, policy)
    if owner_id is not None:
        _force_owner(story, owner_id)
    if not isinstance(before.standing, Queued):
        story.move(Queued(next_work_id(before)), "escalated", agent_id)
    story.request_work(
        "escalated",
        policy,
        relax_from=story.now,
        preferred=owner_id or to_agent_id,
        transfer=transfer if owner_id is None else "forced",
    )


def _go_up(story: Story, target: str, policy: Policy) -> None:
    """Put the ticket into the queue above, which is asked for what the policy wants of whoever handles escalations."""
    own = story.ticket.asked or story.ticket.requirement
    move_to_queue(story, target, policy)
    if policy.escalation_skills is not None:
        asked = with_skills(
            own,
            policy.escalation_skills,
            replaces=policy.routing.escalation.replace_skills,
        )
        story.change(**asked_in(target, asked, story.ticket.rule, policy))


def forced_owner(ticket: Ticket, policy: Policy) -> str | None:
    """Return who keeps a ticket that technical support gave back as often as is allowed, if it came up again now."""
    if ticket.desk != "service" or ticket.returns < policy.routing.escalation.forced_owner_after:
        return None
    return ticket.technical_agent_id


def _force_owner(story: Story, owner_id: str) -> None:
    story.change(forced_owner_id=owner_id)
    ticket = story.ticket
    story.tell(
        wire.TicketOwnerForced, owner_id=owner_id, queue=ticket.queue, returns=ticket.returns
    )


def change_owner(story: Story, agent_id: str | None) -> None:
    """Make somebody else the owner of a ticket whose owner is forced, and say so."""
    owner_id = story.ticket.forced_owner_id
    if owner_id is not None and agent_id not in (None, owner_id):
        assert agent_id is not None
        _force_owner(story, agent_id)


# ---------------------------------------------------------------------------------------- back again


def return_refusal(ticket: Ticket, policy: Policy) -> str | None:
    """Return why technical support cannot give the ticket back, or None."""
    if ticket.desk != "technical":
        return "nothing_to_return"
    if ticket.forced_owner_id is not None:
        return "owner_forced"
    queue = policy.queue(front_queue(ticket, policy) or "")
    return None if queue is not None else "nowhere_to_return"


def front_queue(ticket: Ticket, policy: Policy) -> str | None:
    """Return the queue of the front line that a ticket goes back to: the one it came from, else the policy's."""
    came_from = ticket.front_queue
    if came_from is not None and policy.queue(came_from) is not None:
        return came_from
    return policy.routing.escalation.return_to


def give_back(
    story: Story,
    command_id: str,
    agent_id: str,
    reason: str,
    policy: Policy,
    *,
    to_queue: str | None = None,
    to_agent_id: str | None = None,
    transfer: Literal["", "direct", "forced"] = "",
) -> None:
    """Put the ticket back with the front line. It keeps its age; its clocks run on; what was asked above falls away.

    It goes to the queue that it came from, or to `to_queue`; whoever had it there is asked first, or `to_agent_id`.
    """
    before = story.ticket
    target = to_queue or front_queue(before, policy)
    assert target is not None, "return_refusal has seen to it"
    front_agent_id = to_agent_id or before.front_agent_id
    story.withdraw_work("returned")
    if before.front_asked is not None:
        story.change(requirement=before.front_asked, asked=None)
    move_to_queue(story, target, policy)
    story.change(
        technical_agent_id=_technical_agent(before, agent_id),
        returns=before.returns + 1,
        last_agent_id=front_agent_id or before.last_agent_id,
        delegation=None,
        front_asked=None,
    )
    story.tell(
        wire.TicketReturned,
        command_id=command_id,
        agent_id=agent_id,
        to_agent_id=front_agent_id,
        from_queue=before.queue,
        to_queue=target,
        what="escalation",
        reason=reason,
        returns=story.ticket.returns,
    )
    if not isinstance(before.standing, Queued):
        story.move(Queued(next_work_id(before)), "returned", agent_id)
    story.request_work(
        "returned", policy, relax_from=story.now, preferred=front_agent_id, transfer=transfer
    )


def _technical_agent(ticket: Ticket, agent_id: str) -> str | None:
    """Return who of technical support had the ticket last: whoever took it, else whoever gives it back unseen."""
    if ticket.technical_agent_id is not None:
        return ticket.technical_agent_id
    # The front line may take back what nobody above has taken; that makes nobody there its owner.
    giver = ticket.assignee_id or agent_id
    return None if giver == ticket.front_agent_id else giver


# ------------------------------------------------------------------------------------------- by rule


def raise_priority(story: Story, priority: int, rule: str) -> bool:
    """Make the ticket more urgent; return whether it was less. A wait that stands keeps its age."""
    if story.ticket.priority <= priority:
        return False
    set_priority(story, priority, rule, by_rule=rule)
    return True


def set_priority(
    story: Story,
    priority: int,
    reason: str,
    *,
    command_id: str | None = None,
    agent_id: str | None = None,
    by_rule: str | None = None,
) -> None:
    """Give the ticket a priority, and its request for a person a new place."""
    _change_priority(
        story, priority, reason, command_id=command_id, agent_id=agent_id, by_rule=by_rule
    )
    if story.ticket.work_id is not None:
        story.repeat_work(story.ticket.work_id, "priority_changed")


def _change_priority(
    story: Story,
    priority: int,
    reason: str,
    *,
    command_id: str | None,
    agent_id: str | None,
    by_rule: str | None,
) -> None:
    before = story.ticket.priority
    story.change(priority=priority)
    story.tell(
        wire.TicketPrioritised,
        before=before,
        priority=priority,
        reason=reason,
        command_id=command_id,
        agent_id=agent_id,
        by_rule=by_rule,
    )


def act(
    story: Story,
    action: TargetAction,
    rule: str,
    policy: Policy,
    *,
    reason: str | None = None,
    due_at: datetime | None = None,
) -> bool:
    """Do what a rule says; return whether anything was left to do."""
    is_told = False
    if action.escalate and can_rise(story.ticket):
        hand_over(
            story,
            policy,
            reason=reason or rule.replace(".", ": "),
            by_rule=rule,
            due_at=due_at,
        )
        is_told = True
    if action.raise_priority_to is not None:
        is_told |= raise_priority(story, action.raise_priority_to, rule)
    return is_told


UP = TargetAction(escalate=True)
"""Hand over, and nothing else."""


def by_words(story: Story, fields: Mapping[str, str], policy: Policy) -> None:
    """Hand a case over that a message is classified as one of technical support's."""
    rules = policy.routing.escalation
    for kind, names in (("intent", rules.on_intents), ("cause", rules.on_causes)):
        said = fold(fields.get(kind, "").strip())
        name = next((name for name in names if said and fold(name) == said), None)
        if name is not None and can_rise(story.ticket):
            act(story, UP, f"on_{kind}s.{name}", policy)


def by_tags(story: Story, tags: Iterable[str], policy: Policy) -> None:
    """Hand a case over that was tagged with a cause of technical support's."""
    folded = {fold(tag) for tag in tags}
    for name in policy.routing.escalation.on_causes:
        if fold(name) in folded and can_rise(story.ticket):
            act(story, UP, f"on_causes.{name}", policy)


def by_reopening(story: Story, policy: Policy) -> None:
    """A case that comes back again and again needs somebody else."""
    rule = policy.routing.escalation.on_reopens
    if rule is not None and story.ticket.reopen_count >= rule.at:
        act(story, rule, "on_reopens", policy)


def by_silence(story: Story, policy: Policy) -> None:
    """A customer who writes again and again without an answer needs somebody else."""
    rule = policy.routing.escalation.on_unanswered
    if rule is not None and story.ticket.unanswered >= rule.messages:
        act(story, rule, "on_unanswered", policy)


def set_timer(story: Story, policy: Policy) -> None:
    """Set, move or clear the instant at which time alone moves the ticket up. While it rests no time passes for it."""
    rule = policy.routing.escalation.after
    ticket = story.ticket
    waits = isinstance(ticket.standing, Queued | Offered | Assigned)
    if rule is None or ticket.has_aged or not can_rise(ticket) or not waits:
        rise_at = None
    else:
        rise_at = ticket.entered_at + ticket.rested + timedelta(hours=rule.hours)
    if rise_at != ticket.rise_at:
        story.change(rise_at=rise_at)


def by_age(story: Story, due_at: datetime, policy: Policy) -> bool:
    """Time is over; return whether anything was left to do. It happens once in a ticket's life."""
    story.change(has_aged=True, rise_at=None)
    rule = policy.routing.escalation.after
    if rule is None:
        return False
    return act(story, rule, "after", policy, reason=f"after {rule.hours:g} h", due_at=due_at)


def action_for(event: TargetBreached | TargetAtRisk, policy: Policy) -> TargetAction | None:
    """Return what the policy says of a clock's event, or None."""
    rules = policy.routing.escalation
    table = rules.on_breach if isinstance(event, TargetBreached) else rules.on_risk
    return table.get(event.target)


def rule_name(event: TargetBreached | TargetAtRisk) -> str:
    """Return the name under which an escalation by a clock is recorded."""
    what = "breach" if isinstance(event, TargetBreached) else "risk"
    return f"on_{what}.{event.target}"


# ------------------------------------------------------------------------------------------- on call


def call_out(story: Story, policy: Policy) -> None:
    """Put a ticket that somebody on call must see before them: once for each level, while the ticket is open."""
    for name, level in policy.routing.escalation.on_call.items():
        why = _falls_under(story.ticket, level)
        if why is None or name in story.ticket.paged:
            continue
        story.change(paged=(*story.ticket.paged, name))
        is_free = story.ticket.forced_owner_id is None
        if is_free and level.queue is not None and level.queue != story.ticket.queue:
            _move_to_call(story, level.queue, name, policy)
        if level.page:
            _page(story, name, why)


def _falls_under(ticket: Ticket, level: OnCallModel) -> str | None:
    """Return why a ticket is for this level, or None."""
    if not isinstance(ticket.standing, Queued | Offered | Assigned):
        return None
    tags = [tag for tag in level.tags if tag in ticket.tags]
    asked: tuple[tuple[bool, bool, str], ...] = (
        (bool(level.rules), ticket.rule in level.rules, f"rule: {ticket.rule}"),
        (bool(level.queues), ticket.queue in level.queues, f"queue: {ticket.queue}"),
        (
            bool(level.priorities),
            ticket.priority in level.priorities,
            f"priority: {ticket.priority}",
        ),
        (bool(level.tags), bool(tags), f"tags: {' '.join(tags)}"),
    )
    if not all(holds for is_asked, holds, _ in asked if is_asked):
        return None
    return ", ".join(words for is_asked, _, words in asked if is_asked)


def _move_to_call(story: Story, queue: str, level: str, policy: Policy) -> None:
    """Put the ticket into the queue of those on call. From the front line that is an escalation like any other."""
    desk = policy.routing.queues[queue].desk
    if desk == "technical" and can_rise(story.ticket):
        hand_over(
            story, policy, reason=f"on call: {level}", to_queue=queue, by_rule=f"on_call.{level}"
        )
        return
    before = story.ticket
    story.withdraw_work("on_call")
    move_to_queue(story, queue, policy)
    story.move(Queued(next_work_id(before)), "on_call")
    story.request_work("on_call", policy, relax_from=story.now)


def _page(story: Story, name: str, why: str) -> None:
    ticket = story.ticket
    story.tell(
        wire.TicketPaged, on_call=name, queue=ticket.queue, priority=ticket.priority, reason=why
    )
    note(
        story,
        ids.derive("note", "paged", name, ticket.ticket_id, str(story.ticket.version)),
        SIGNALBOX,
        f"Whoever is on call for {name} is to be paged ({why}).",
    )
