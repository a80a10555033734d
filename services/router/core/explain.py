"""The record of a decision: what was asked, who was fit, and for everyone else the complete set of rules against them."""

from schemas.routing import DecisionRecord, Excluded
from services.router.core.capacity import Agent
from services.router.core.domain import Domain, Work, static_rules
from services.router.core.matching import Choice
from services.router.core.requirement import to_wire

AGENTS_MAX = 50
"""In a larger domain only those who serve the queue are explained, and at most this many of them."""


def record(domain: Domain, work: Work, choice: Choice | None, max_declines: int) -> DecisionRecord:
    """Explain a choice among agents for waiting work, or that there was none. Call it before the choice takes effect."""
    candidates = choice.candidates if choice is not None else ()
    excluded = tuple(
        Excluded(agent_id=agent_id, rules=rules)
        for agent_id in _asked_about(domain, work)
        if agent_id not in candidates and (rules := _rules(domain, work, agent_id, max_declines))
    )
    return DecisionRecord(
        rule=work.rule,
        policy_version=work.policy_version,
        queue=work.queue,
        requirement=to_wire(work.effective),
        relaxed=work.relaxed,
        candidates=candidates,
        excluded=excluded,
        chosen_by=choice.chosen_by if choice is not None else "",
    )


def excluding_rules(
    agent: Agent, work: Work, static: tuple[str, ...], max_declines: int
) -> tuple[str, ...]:
    """Return every rule that stands between an agent and the work; lifting all of them, and no fewer, makes them fit."""
    found = static if agent.is_available else ("absent", *static)
    if not agent.can_carry(work.cost):
        found = (*found, "capacity")
    if work.declines.get(agent.agent_id, 0) >= max_declines:
        found = (*found, "declined")
    if agent.agent_id in work.excluded:
        found = (*found, "excluded")
    return found


def _rules(domain: Domain, work: Work, agent_id: str, max_declines: int) -> tuple[str, ...]:
    agent = domain.agents.get(agent_id)
    if agent is None:
        return ("unknown",)  # The preferred agent has left the roster.
    cache = domain.bucket(work).static_rules
    static = cache.get(agent_id)
    if static is None:
        static = cache[agent_id] = static_rules(agent, domain.bucket_key(work))
    return excluding_rules(agent, work, static, max_declines)


def _asked_about(domain: Domain, work: Work) -> list[str]:
    if len(domain.roster) <= AGENTS_MAX:
        found = list(domain.roster)
    else:
        serving = (i for i in domain.roster if work.queue in domain.agents[i].queues)
        found = [agent_id for agent_id, _ in zip(serving, range(AGENTS_MAX), strict=False)]
    if work.preferred_agent_id is not None and work.preferred_agent_id not in found:
        found.append(work.preferred_agent_id)
    return found
