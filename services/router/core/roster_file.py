"""`agents.yaml` as the roster events that bring those agents to life."""

from schemas.roster import AgentSet
from services.router.core.policy_model import AgentsModel


def agent_events(roster: AgentsModel) -> tuple[AgentSet, ...]:
    """Return one `agent.set` for each agent of the file, by id. Applying them twice changes nothing."""
    return tuple(
        AgentSet(
            domain=agent.domain,
            agent_id=agent_id,
            name=agent.name,
            queues=agent.queues,
            skills=dict(sorted(agent.skills.items())),
            languages=dict(sorted(agent.languages.items())),
            capacity=agent.capacity,
        )
        for agent_id, agent in sorted(roster.agents.items())
    )
