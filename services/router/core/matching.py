"""Who gets what: the best waiting work for an agent, the best agent for waiting work.

One order for work (priority, age, id) and one for agents: the preferred agent if they are fit, then whoever declined this
ticket less often, then whoever has been idle longest, then by id. Nothing depends on names' or maps' order.
"""

from datetime import datetime
from heapq import nsmallest
from typing import NamedTuple

from services.router.core.capacity import Agent
from services.router.core.domain import Bucket, Domain, Work, WorkKey

CANDIDATES_MAX = 5
"""How many candidates a decision records, best first."""


class Choice(NamedTuple):
    """The agents fit for a ticket now, best first (at most `CANDIDATES_MAX`), and what decided for the first."""

    candidates: tuple[str, ...]
    chosen_by: str


def is_fit_now(agent: Agent, work: Work, max_declines: int) -> bool:
    """Whether an agent who is eligible for the work's bucket can take it at this moment."""
    return (
        agent.is_available
        and agent.can_carry(work.cost)
        and not work.is_barred(agent.agent_id, max_declines)
    )


def best_work(domain: Domain, agent: Agent, max_declines: int) -> WorkKey | None:
    """Return the first of all waiting work that the agent can take now.

    Heads that the agent declined or is excluded from are passed over; nobody else's work waits behind them.
    """
    if not agent.is_available:
        return None
    best: WorkKey | None = None
    for slot in domain.slots[agent.agent_id]:
        bucket = domain.buckets[slot]
        if not bucket.keys or not agent.can_carry(slot.cost):
            continue
        if best is not None and bucket.keys[0] > best:
            continue
        first = _first_open(domain, bucket, agent.agent_id, max_declines)
        if first is not None and (best is None or first < best):
            best = first
    return best


def _first_open(domain: Domain, bucket: Bucket, agent_id: str, max_declines: int) -> WorkKey | None:
    return next(
        (
            key
            for key in bucket.keys
            if not domain.works[key.work_id].is_barred(agent_id, max_declines)
        ),
        None,
    )


def best_agents(domain: Domain, work: Work, max_declines: int) -> Choice | None:
    """Return who is fit for waiting work now, best first, or None where nobody is."""
    fit = [
        agent
        for agent_id in domain.bucket(work).eligible
        if is_fit_now(agent := domain.agents[agent_id], work, max_declines)
    ]
    if not fit:
        return None

    def rank(agent: Agent) -> tuple[bool, int, datetime, str]:
        is_other = agent.agent_id != work.preferred_agent_id
        return (is_other, work.declines.get(agent.agent_id, 0), *agent.idle_key)

    best = nsmallest(CANDIDATES_MAX, fit, key=rank)
    return Choice(tuple(agent.agent_id for agent in best), _chosen_by(work, best))


def _chosen_by(work: Work, best: list[Agent]) -> str:
    first = best[0].agent_id
    if first == work.preferred_agent_id:
        return "preferred"
    if len(best) == 1:
        return "only_candidate"
    if work.declines.get(first, 0) < work.declines.get(best[1].agent_id, 0):
        return "fewest_declines"
    return "longest_idle"


def could_ever(domain: Domain, work: Work) -> list[str]:
    """Return who could take waiting work if they were there, free and asked long enough, declines apart."""
    return [agent_id for agent_id in domain.bucket(work).ever if agent_id not in work.excluded]
