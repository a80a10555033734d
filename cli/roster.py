"""`signalbox roster …`: the agents: out of files, through the gateway, and back into files.

Who is there is read from the router's tables; what is to change goes through the gateway's durable door like every other
change of the roster.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from cli.errors import CommandError, UsageMistake

if TYPE_CHECKING:
    from cli.gateway import Gateway
    from schemas.roster import AgentSet
    from services.router.core.policy.policy_model import RoutingModel
    from services.router.core.roster_file import Change, Key

MISTAKES_SHOWN: Final = 50
AT_ONCE: Final = 16
"""Changes on their way to the gateway at a time: they share commits."""
WAIT_SECONDS: Final = 15.0
"""How long an import waits for the router to have applied it."""
_LOOK_SECONDS: Final = 0.1

_PRESENT: Final = (
    "SELECT domain, agent_id, name, capacity, profile, duty FROM router.assignment_agent"
)
_PROVISIONED: Final = """
SELECT domain, agent_id FROM ingest.scim_user WHERE workspace = $1
"""

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
    from cli.gateway import Gateway
    from cli.places import policy_folder

    url, key = _door(gateway)
    agents = roster_of(folder or policy_folder())

    async def post() -> None:
        async with Gateway(url, key) as client:
            await set_agents(client, agents, "available" if available else None)

    asyncio.run(post())
    typer.echo(f"{len(agents)} agents set: {', '.join(agent.agent_id for agent in agents)}.")


def _door(gateway: str) -> tuple[str, str]:
    """Return the gateway's address and the key to it, of the environment or of what runs here."""
    from cli.environment import adopt

    found = adopt()
    key = os.environ.get("SIGNALBOX_API_KEY_CONSOLE", "") or (found.console_key if found else "")
    if not key:
        raise UsageMistake(
            "SIGNALBOX_API_KEY_CONSOLE is not set, and nothing runs on this machine; set it to the gateway's key of"
            " scopes `agents` and `roster`."
        )
    return gateway or (found.gateway_url if found else "http://127.0.0.1:8080"), key


@app.command("import")
def import_file(
    file: Annotated[
        Path, typer.Argument(help="A table (.csv) or a file like agents.yaml (.yaml, .yml).")
    ],
    domain: Annotated[
        str | None,
        typer.Option(help="The routing domain: of lines that name none, and the only one allowed."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    remove_missing: Annotated[
        bool,
        typer.Option(
            "--remove-missing",
            help="Also remove agents of the file's domains that are not in it; not those of SCIM.",
        ),
    ] = False,
    policy: Annotated[
        Path | None, typer.Option(help="The policy folder, whose routing.yaml knows the names.")
    ] = None,
    gateway: Annotated[
        str, typer.Option(help="The gateway's address; of the running installation if left out.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Change it without asking.")] = False,
) -> None:
    """Make the roster what a file says, after showing the difference.

    All of the file is read first: one cell that cannot be, and nothing is sent. Agents that the file does not name stay as
    they are. Importing a file again changes nothing.
    """
    from cli.environment import common
    from cli.places import policy_folder
    from services.router.core.roster_file import compare

    folder = policy or policy_folder()
    routing = _routing(folder)
    settings = common()
    present, provisioned = asyncio.run(_present(settings.dsn, settings.workspace))
    wanted = _wanted(file, routing, domain, present)
    covered = {domain} if domain is not None else {agent.domain for agent in wanted}
    if remove_missing and not wanted:
        raise UsageMistake(
            f"{file} names nobody, and --remove-missing would remove everybody; that is hardly meant."
        )
    changes = compare(present, wanted, remove_from=covered if remove_missing else ())
    kept = [c for c in changes if c.kind == "removed" and c.key in provisioned]
    changes = tuple(c for c in changes if c not in kept)
    _refuse_provisioned(changes, provisioned)
    _show(changes, kept)
    due = [change for change in changes if change.kind != "unchanged"]
    if not due or dry_run:
        if dry_run and due:
            typer.echo("Nothing was changed (--dry-run).")
        return
    if not yes:
        typer.confirm("Change the roster?", abort=True)
    url, key = _door(gateway)
    asyncio.run(_send(url, key, due))
    if asyncio.run(_is_applied(settings.dsn, settings.workspace, due)):
        typer.echo(f"{len(due)} changes sent, and the router has them.")
    else:
        typer.echo(
            f"{len(due)} changes sent; the router has not applied all of them yet. `signalbox roster export` shows what it"
            " has, `signalbox doctor` what keeps it."
        )


@app.command()
def export(
    as_csv: Annotated[bool, typer.Option("--csv", help="As a table.")] = False,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As agents.yaml has it.")] = False,
    domain: Annotated[str | None, typer.Option(help="Only this routing domain.")] = None,
) -> None:
    """Write the roster as the router has it; `signalbox roster import` reads it to the same."""
    from cli.environment import common
    from services.router.core.roster_file import to_document, to_table

    if as_csv == as_yaml:
        raise UsageMistake("Say which: --csv or --yaml.")
    settings = common()
    present, _ = asyncio.run(_present(settings.dsn, settings.workspace))
    agents = [agent for agent in present.values() if domain in (None, agent.domain)]
    if as_csv:
        typer.echo(to_table(agents), nl=False)
        return
    import yaml

    try:
        document = to_document(agents)
    except ValueError as error:
        raise CommandError(f"{error}.") from None
    typer.echo(
        yaml.safe_dump(document, allow_unicode=True, sort_keys=False, default_flow_style=None),
        nl=False,
    )


def _routing(folder: Path) -> "RoutingModel":
    from chassis.policy import parse, read_yaml
    from services.router.core.policy.policy_model import ROUTING_FILE, RoutingModel

    found: RoutingModel = parse(ROUTING_FILE, read_yaml(folder / ROUTING_FILE), RoutingModel)
    return found


def _wanted(
    file: Path, routing: "RoutingModel", domain: str | None, present: "Mapping[Key, AgentSet]"
) -> "tuple[AgentSet, ...]":
    """Return the agents that a file means.

    Raises:
        CommandError: something in it cannot be; all of that has been told.
    """
    from services.router.core.roster_file import agents_of, read_table

    if not file.is_file():
        raise UsageMistake(f"{file} is no file.")
    if domain is not None and domain not in routing.domains:
        raise UsageMistake(
            f"--domain {domain}: no such domain in routing.yaml; known: {', '.join(sorted(routing.domains))}."
        )
    match file.suffix.lower():
        case ".csv":
            rows, wrong = read_table(_text_of(file), file.name, routing, domain)
            agents, lacking = agents_of(rows, file.name, present)
            mistakes = [str(one) for one in sorted([*wrong, *lacking], key=lambda one: one.line)]
        case ".yaml" | ".yml":
            agents, mistakes = _of_yaml(file, routing, domain)
        case _:
            raise UsageMistake(f"{file}: must end in .csv, .yaml or .yml.")
    if mistakes:
        for one in mistakes[:MISTAKES_SHOWN]:
            typer.echo(one, err=True)
        if len(mistakes) > MISTAKES_SHOWN:
            typer.echo(f"… and {len(mistakes) - MISTAKES_SHOWN} more", err=True)
        raise CommandError(f"{file.name}: {len(mistakes)} things are wrong, so nothing was sent.")
    return agents


def _text_of(file: Path) -> str:
    raw = file.read_bytes()
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise CommandError(
            f"{file.name}: line {line} is not UTF-8; save the table as “CSV UTF-8”."
        ) from None


def _of_yaml(
    file: Path, routing: "RoutingModel", domain: str | None
) -> "tuple[tuple[AgentSet, ...], list[str]]":
    from chassis.policy import parse, read_yaml
    from services.router.core.policy.policy_model import AgentsModel
    from services.router.core.roster_file import agent_events, name_mistakes

    content = read_yaml(file)
    named = content.get("agents") if isinstance(content, dict) else None
    if domain is not None and isinstance(named, dict):
        for agent in named.values():
            if isinstance(agent, dict):
                agent.setdefault("domain", domain)
    agents = agent_events(parse(file.name, content, AgentsModel))
    mistakes = list(name_mistakes(agents, file.name, routing))
    mistakes += [
        f"{file.name}: agents.{agent.agent_id}.domain: {agent.domain!r}: only {domain} is imported (--domain)"
        for agent in agents
        if domain is not None and agent.domain != domain
    ]
    return agents, mistakes


async def _present(dsn: str, workspace: str) -> "tuple[dict[Key, AgentSet], set[Key]]":
    """Return the agents that the router knows, and which of them an identity provider looks after."""
    import asyncpg

    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(_PRESENT)
        provisioned = await connection.fetch(_PROVISIONED, workspace)
    finally:
        await connection.close()
    return (
        {(row["domain"], row["agent_id"]): agent_of_row(dict(row)) for row in rows},
        {(row["domain"], row["agent_id"]) for row in provisioned},
    )


def agent_of_row(row: Mapping[str, Any]) -> "AgentSet":
    """Return an agent out of the router's table, as the roster said it last."""
    import json

    from schemas.roster import AgentSet

    profile, duty = json.loads(row["profile"]), json.loads(row["duty"])
    known = {name: duty[name] for name in ("calendar", "shifts", "auto_accept") if name in duty}
    return AgentSet(
        domain=row["domain"],
        agent_id=row["agent_id"],
        name=row["name"],
        capacity=row["capacity"],
        queues=profile["queues"],
        skills=dict(sorted(profile["skills"].items())),
        languages=dict(sorted(profile["languages"].items())),
        channel_limits=dict(sorted(profile.get("limits", {}).items())),
        **known,
    )


def _refuse_provisioned(changes: "Sequence[Change]", provisioned: "set[Key]") -> None:
    theirs = [
        change.key[1]
        for change in changes
        if change.kind in ("added", "changed") and change.key in provisioned
    ]
    if theirs:
        raise CommandError(
            f"{', '.join(theirs[:10])}{' …' if len(theirs) > 10 else ''}: an identity provider looks after them (SCIM) and"
            " would change them back; change them there, or leave them out of the file."
        )


def _show(changes: "Sequence[Change]", kept: "Sequence[Change]") -> None:
    """Print what changes, as a table, and how much stays."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    counts = Counter(change.kind for change in changes)
    console = Console(highlight=False)
    if counts.total() > counts["unchanged"]:
        table = Table("", "domain", "agent", "what", box=None, pad_edge=False)
        signs = {
            "added": "[green]+ added[/]",
            "changed": "[yellow]~ changed[/]",
            "removed": "[red]- removed[/]",
        }
        for change in changes:
            if change.kind != "unchanged":
                what = "; ".join(change.details) or change.agent.name
                table.add_row(
                    signs[change.kind], change.key[0], escape(change.key[1]), escape(what)
                )
        console.print(table)
    console.print(
        ", ".join(f"{counts[kind]} {kind}" for kind in ("added", "changed", "removed", "unchanged"))
        + "."
    )
    if kept:
        console.print(
            f"{len(kept)} agents that are not in the file stay: an identity provider looks after them (SCIM)."
        )


async def _send(url: str, key: str, due: "Iterable[Change]") -> None:
    from cli.gateway import Gateway

    turns = asyncio.Semaphore(AT_ONCE)
    async with Gateway(url, key) as client:

        async def one(change: "Change") -> None:
            domain, agent_id = change.key
            path = f"/v1/agents/{quote(agent_id, safe='')}"
            async with turns:
                if change.kind == "removed":
                    await client.send("DELETE", path, {"domain": domain})
                else:
                    body = change.agent.model_dump(mode="json", exclude={"agent_id"})
                    await client.send("PUT", path, body)

        await asyncio.gather(*(one(change) for change in due))


async def _is_applied(dsn: str, workspace: str, due: "Sequence[Change]") -> bool:
    """Wait until the router has the changes; return whether it came to have them."""
    import time

    from services.router.core.roster_file import compare

    wanted = [change.agent for change in due if change.kind != "removed"]
    removed = {change.key for change in due if change.kind == "removed"}
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        present, _ = await _present(dsn, workspace)
        rest = [change for change in compare(present, wanted) if change.kind != "unchanged"]
        if not rest and not removed & set(present):
            return True
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)


def roster_of(folder: Path) -> "tuple[AgentSet, ...]":
    """Return the agents of a policy folder, as events.

    Raises:
        PolicyError: routing.yaml or agents.yaml has a mistake.
    """
    from chassis.errors import PolicyError
    from chassis.policy import load
    from cli.parts import policy_files
    from services.router.core.policy.policy_model import AGENTS_FILE, AgentsModel
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
        path = f"/v1/agents/{quote(agent.agent_id, safe='')}"
        await gateway.send("PUT", path, body)
        if presence is not None:
            await gateway.send(
                "POST",
                f"{path}/presence",
                {"presence": presence, "domain": agent.domain},
            )
