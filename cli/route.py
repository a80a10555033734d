"""`signalbox route explain`: who would get a ticket, and why nobody else, from the policy alone.

One question is answered as tables for people, `--batch` as NDJSON in the same order. It needs neither broker nor database:
the policy is read once, and the router's own core answers.
"""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.batch import run
from cli.errors import UsageMistake

if TYPE_CHECKING:
    from rich.console import Console

    from schemas.routing import Requirement
    from services.router.core.policy.policy import Policy
    from services.router.core.what_if import Answer

app = typer.Typer(help="Who would get a ticket, and why.", no_args_is_help=True)

PASSED_MAX = 25
"""How many of the rules that were passed over are shown, the latest ones."""


@app.callback()
def _group() -> None:
    """Who would get a ticket, and why."""


@app.command()
def explain(
    folder: Annotated[
        Path | None,
        typer.Option(
            "--policy", help="The policy folder; SIGNALBOX_POLICY or ./policy if left out."
        ),
    ] = None,
    batch: Annotated[
        bool,
        typer.Option("--batch", help="Read NDJSON from standard input, write NDJSON in its order."),
    ] = False,
    ticket: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with a ticket, or with a whole question: ticket, agents, now."
        ),
    ] = None,
    agents: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file with the agents; those of agents.yaml if left out, all available and idle."
        ),
    ] = None,
    now: Annotated[
        str, typer.Option(help="The instant, RFC 3339 with an offset; the present one if left out.")
    ] = "",
    channel: Annotated[str, typer.Option(help="The message's channel.")] = "email",
    account: Annotated[str, typer.Option(help="The account that it came to.")] = "support",
    language: Annotated[str, typer.Option(help="Its language, ISO 639-1; none: unknown.")] = "",
    subject: Annotated[str, typer.Option(help="Its subject.")] = "",
    text: Annotated[str, typer.Option(help="Its text.")] = "",
    kind: Annotated[str, typer.Option(help="message, review, comment, voicemail …")] = "message",
    verified: Annotated[
        bool, typer.Option("--verified", help="The channel proved who wrote.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the answer as one line of JSON.")
    ] = False,
) -> None:
    """Explain where a ticket would go: the rule, what is asked, who is fit, and everything against the others.

    {"id", "ticket", "agents"?, "now"?, "waiting"?, "spilling"?, "guarding"?} → {"id", … decision record}; a line that
    cannot be handled answers {"id", "error"}. docs/routing.md describes the fields.
    """
    policy = load_policy(folder)
    if batch:
        from services.router.core.what_if import answer_line

        run(partial(answer_line, policy=policy, now=datetime.now(UTC)))
        return
    question = _question(ticket, agents)
    if ticket is None:
        question["ticket"] = {
            "channel": channel,
            "account": account,
            "language": language or None,
            "subject": subject,
            "text": text,
            "kind": kind,
            "is_verified": verified,
        }
    if now:
        question["now"] = now
    from services.router.core.what_if import Unanswerable, answer

    try:
        found = answer(question, policy, datetime.now(UTC))
    except Unanswerable as mistake:
        raise UsageMistake(f"{mistake}") from None
    if as_json:
        typer.echo(json.dumps(found.to_line(question.get("id")), ensure_ascii=False))
    else:
        show(found, policy, folder)


def load_policy(folder: Path | None) -> "Policy":
    """Return the router's policy of a folder, as the service itself would read it."""
    from chassis.policy import load
    from cli.parts import policy_files
    from cli.places import policy_folder

    found: Policy = load(folder or policy_folder(), policy_files("router"))
    return found


def _question(ticket: Path | None, agents: Path | None) -> dict[str, Any]:
    question: dict[str, Any] = {}
    if ticket is not None:
        given = _json_of(ticket)
        if not isinstance(given, dict):
            raise UsageMistake(
                f"{ticket}: must be a JSON object: a ticket, or a question with one."
            )
        question = given if "ticket" in given else {"ticket": given}
    if agents is not None:
        question["agents"] = _json_of(agents)
    return question


def _json_of(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UsageMistake(f"{path}: is not JSON ({error}).") from None


# ------------------------------------------------------------------------------------------------ show


def show(found: "Answer", policy: "Policy", folder: Path | None) -> None:
    """Print an answer for people."""
    from rich.console import Console

    console = Console(highlight=False)
    _show_rules(console, found)
    _show_request(console, found, policy, folder)
    _show_people(console, found)
    _show_future(console, found)


def _show_rules(console: "Console", found: "Answer") -> None:
    from rich.markup import escape

    if not found.record.rule:
        return
    held = f" ({'; '.join(found.held)})" if found.held else " (it has no conditions)"
    console.print(f"[bold]rule[/bold]       {escape(found.record.rule + held)}")
    passed = found.passed[-PASSED_MAX:]
    if not passed:
        return
    table = _table("passed over, in order", "because of", "wanted", "found")
    for rule in passed:
        for n, unmet in enumerate(rule.unmet):
            table.add_row(
                *map(
                    escape, (rule.rule if not n else "", unmet.condition, unmet.wants, unmet.found)
                )
            )
    console.print(table)
    if len(found.passed) > len(passed):
        console.print(f"… and {len(found.passed) - len(passed)} rules before these.", style="dim")


def _show_request(
    console: "Console", found: "Answer", policy: "Policy", folder: Path | None
) -> None:
    from rich.markup import escape

    from cli.story import utc

    request, record = found.request, found.record
    queue = policy.routing.queues[request.queue]
    lines = [
        f"{request.queue} ({queue.desk} desk, domain {request.domain}), priority {request.priority}, cost {request.cost}"
    ]
    lines.append(f"{wanted(record.requirement)}, since {utc(request.entered_at)}")
    if record.relaxed:
        lines[-1] += f"; no longer: {', '.join(record.relaxed)}"
    names = ["queue", "asks for"]
    if found.sla_policy is not None:
        names.append("promises")
        lines.append(f"{found.sla_policy}{_promises(found, folder)}")
    names.append("agents")
    lines.append(found.agents_from)
    for name, line in zip(names, lines, strict=True):
        console.print(f"[bold]{name:10}[/bold] {escape(line)}")


def _promises(found: "Answer", folder: Path | None) -> str:
    from chassis.errors import PolicyError
    from chassis.policy import load
    from cli.parts import policy_files
    from cli.places import policy_folder
    from cli.policy import promises
    from services.sla.core.state import Facts

    where = folder or policy_folder()
    if not (where / "sla.yaml").is_file():
        return ""
    try:
        sla: Any = load(where, policy_files("sla"))
    except PolicyError as error:
        return f" (sla.yaml cannot be read: {error})"
    request = found.request
    facts = Facts(queue=request.queue, channel=request.channel)
    told = list(promises(sla, found.sla_policy or "", request.priority, facts))
    return f": {', '.join(told)}" if told else ""


def wanted(asked: "Requirement") -> str:
    """Say what a requirement asks for, and what falls away of it by waiting."""
    said: list[str] = []
    if asked.language is not None:
        level = f" {asked.language_level}" if asked.language_level > 1 else ""
        said.append(
            f"language {asked.language}{level}{_patience(asked.language_relax_after_seconds)}"
        )
    said += [
        f"{need.skill} {need.level}{_patience(need.relax_after_seconds)}" for need in asked.skills
    ]
    said += [f"without {name}" for name in asked.forbidden]
    said += [f"also of queue {queue}" for queue in asked.also_queues]
    return ", ".join(said) or "anybody"


def _patience(seconds: float | None) -> str:
    return "" if seconds is None else f" (for {seconds:g} s)"


def _show_people(console: "Console", found: "Answer") -> None:
    from rich.markup import escape

    record = found.record
    console.print()
    if found.chosen is not None:
        via = ", lent to the queue" if record.via == "spill" else ""
        names = ", ".join(found.offered_to)
        console.print(
            f"[bold green]{found.outcome} to {escape(names)}[/bold green], chosen by {record.chosen_by}{via}"
        )
        table = _table("fit, best first", "score (lower is better)")
        for n, agent_id in enumerate(record.candidates):
            score = str(record.scores[n]) if n < len(record.scores) else "–"
            table.add_row(escape(agent_id), score)
        console.print(table)
        if found.also_fit:
            console.print(f"fit as well: {escape(', '.join(found.also_fit))}")
    else:
        why = "nobody can take it now" if found.is_matchable else "NOBODY CAN EVER TAKE IT"
        style = "yellow" if found.is_matchable else "bold red"
        console.print(f"[{style}]waits: {why}[/{style}]")
        if found.is_exhausted:
            console.print("[bold red]everybody who could take it has declined it[/bold red]")
        if record.held_for is not None:
            console.print(f"it waits for {escape(record.held_for)} alone")
    if found.excluded:
        table = _table("not chosen", "first against them", "and besides")
        for one in found.excluded:
            table.add_row(*map(escape, (one.agent_id, one.rules[0], ", ".join(one.rules[1:]))))
        console.print(table)


def _show_future(console: "Console", found: "Answer") -> None:
    from rich.markup import escape

    from cli.story import utc

    if found.relaxations:
        table = _table("less is asked at", "no longer asked", "lets in")
        for one in found.relaxations:
            admits = ", ".join(one.admits) or "nobody else"
            table.add_row(utc(one.at), escape(", ".join(one.relaxed)), escape(admits))
        console.print(table)
    elif found.chosen is None:
        console.print("Waiting changes nothing of what is asked.")
    if found.next_offer is not None:
        console.print(
            f"If nothing happened but time, {escape(found.next_offer.agent_id)} would be offered it at"
            f" {utc(found.next_offer.at)}."
        )


def _table(*columns: str) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
