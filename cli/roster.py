"""`signalbox roster …`: the agents."""

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import UsageMistake

if TYPE_CHECKING:
    from cli.gateway import Gateway
    from schemas.roster import AgentSet

app = typer.Typer(help="The agents.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The agents."""


@app.command()
def apply(
    folder: Annotated[
        Path | None, typer.Argument(help="The policy folder with agents.yaml.")
    ] = None,
    gateway: Annotated[
        str, typer.Option(help="The gateway's address; of the running installation if left out.")
    ] = "",
    available: Annotated[
        bool, typer.Option("--available", help="Also say of each agent that they take work now.")
    ] = False,
) -> None:
    """Tell the router of the agents in agents.yaml, through the gateway.

    The key comes from SIGNALBOX_API_KEY_CONSOLE, or from the installation that runs here. Applying it again sets the
    same agents to what the file says; agents that are not in it stay as they are.
    """
    from cli.environment import adopt
    from cli.gateway import Gateway
    from cli.places import policy_folder

    found = adopt()
    key = os.environ.get("SIGNALBOX_API_KEY_CONSOLE", "") or (found.console_key if found else "")
    url = gateway or (found.gateway_url if found else "http://127.0.0.1:8080")
    if not key:
        raise UsageMistake(
            "SIGNALBOX_API_KEY_CONSOLE is not set, and nothing runs on this machine; set it to the gateway's key of"
            " scopes `agents` and `roster`."
        )
    agents = roster_of(folder or policy_folder())

    async def post() -> None:
        async with Gateway(url, key) as client:
            await set_agents(client, agents, "available" if available else None)

    asyncio.run(post())
    typer.echo(f"{len(agents)} agents set: {', '.join(agent.agent_id for agent in agents)}.")


def roster_of(folder: Path) -> "tuple[AgentSet, ...]":
    """Return the agents of a policy folder, as events.

    Raises:
        PolicyError: routing.yaml or agents.yaml has a mistake.
    """
    from chassis.errors import PolicyError
    from chassis.policy import load
    from cli.parts import policy_files
    from services.router.core.policy_model import AGENTS_FILE, AgentsModel
    from services.router.core.roster_file import agent_events

    policy = load(folder, policy_files("router"))
    if policy.agents is None:
        raise PolicyError(AGENTS_FILE, "file", str(folder / AGENTS_FILE), "does not exist")
    return agent_events(AgentsModel(agents=dict(policy.agents)))


async def set_agents(
    gateway: "Gateway", agents: "tuple[AgentSet, ...]", presence: str | None
) -> None:
    """Set each agent, and their presence where one is given."""
    for agent in agents:
        body = agent.model_dump(mode="json", exclude={"agent_id"})
        await gateway.send("PUT", f"/v1/agents/{agent.agent_id}", body)
        if presence is not None:
            await gateway.send(
                "POST",
                f"/v1/agents/{agent.agent_id}/presence",
                {"presence": presence, "domain": agent.domain},
            )
