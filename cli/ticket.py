"""`signalbox ticket show`: a ticket's whole story, from all services' tables."""

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from cli.errors import CommandError

if TYPE_CHECKING:
    from schemas.customers import CustomerContext, Interaction

app = typer.Typer(help="Tickets.", no_args_is_help=True)

FIND: Final = """
SELECT ticket_id, conversation_id FROM router.ticket
 WHERE reference = upper($1) OR ticket_id = $1 OR conversation_id = $1 OR ticket_id LIKE replace($1, '%', '') || '%'
 ORDER BY conversation_id, number LIMIT 20
"""
_TICKET: Final = "SELECT * FROM router.ticket WHERE ticket_id = $1"
_MESSAGES: Final = """
SELECT m.*, o.at AS accepted_at FROM router.ticket_message m LEFT JOIN ingest.outcome o USING (input_id)
 WHERE m.ticket_id = $1 ORDER BY m.at
"""
_EVENTS: Final = (
    "SELECT type, at, data FROM router.ticket_event WHERE ticket_id = $1 ORDER BY version"
)
_ROUTING: Final = "SELECT type, at, data FROM router.routing_event WHERE ticket_id = $1 ORDER BY id"
_TARGETS: Final = "SELECT * FROM sla.target WHERE ticket_id = $1 ORDER BY started_at, kind"
_CASES: Final = """
SELECT DISTINCT ON (conversation_id) conversation_id, reference, status FROM router.ticket
 WHERE conversation_id = ANY($1::text[]) ORDER BY conversation_id, number DESC
"""
_NOTICES: Final = """
SELECT * FROM notifier.notice WHERE ticket_id = $1 ORDER BY coalesce(requested_at, settled_at, deferred_until)
"""


@app.callback()
def _group() -> None:
    """Tickets."""


class Line(NamedTuple):
    """One thing that happened."""

    at: datetime
    who: str
    text: str
    style: str


@app.command()
def show(
    ticket: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE|ID",
            help="SB-…, a ticket's id or its beginning, or a conversation's id.",
        ),
    ],
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Also why each agent was chosen or not.")
    ] = False,
    messages: Annotated[
        bool, typer.Option("--messages", help="Also the text of messages and answers, whole.")
    ] = False,
) -> None:
    """Tell a ticket's story in the order in which it happened."""
    from rich.console import Console

    from cli.environment import common

    console = Console(highlight=False, soft_wrap=True)
    for found in asyncio.run(_read(common().dsn, ticket, decisions)):
        _print(console, found, decisions, messages)


async def _read(dsn: str, ticket: str, with_decisions: bool) -> list[dict[str, Any]]:
    import asyncpg

    from cli.reasons import spelled_out

    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        rows = await connection.fetch(FIND, ticket)
        if not rows:
            raise CommandError(f"There is no ticket {ticket}.")
        if len({row["conversation_id"] for row in rows}) > 1:
            raise CommandError(f"{ticket} names several tickets; give more of the id.")
        stories = []
        for row in rows:
            name = row["ticket_id"]
            events = await connection.fetch(_EVENTS, name)
            elsewhere = [one.conversation_id for one in _interactions(events)]
            routing = await connection.fetch(_ROUTING, name)
            stories.append(
                {
                    "ticket": await connection.fetchrow(_TICKET, name),
                    "messages": await connection.fetch(_MESSAGES, name),
                    "events": events,
                    "cases": await connection.fetch(_CASES, elsewhere) if elsewhere else [],
                    "routing": routing,
                    "spelled": await spelled_out(connection, routing) if with_decisions else {},
                    "targets": await connection.fetch(_TARGETS, name),
                    "notices": await connection.fetch(_NOTICES, name),
                }
            )
        return stories
    finally:
        await connection.close()


def _context(events: Any) -> "CustomerContext | None":
    from schemas.tickets import TicketOpened

    for row in events:
        if row["type"] == TicketOpened.TYPE:
            return TicketOpened.model_validate_json(row["data"]).context
    return None


def _interactions(events: Any) -> "tuple[Interaction, ...]":
    context = _context(events)
    return context.interactions if context is not None else ()


def context_lines(found: dict[str, Any]) -> list[str]:
    """Return what was known of the customer when the case was opened, with how their other cases stand now."""
    from cli.story import short, utc

    context = _context(found["events"])
    if context is None:
        return []
    cases = {row["conversation_id"]: row for row in found.get("cases", ())}
    more = "+" if context.conversations >= 100 else ""
    said = [f"{context.conversations}{more} other conversations"]
    said += [f"writes {context.language}"] if context.language else []
    said += [f"known by {', '.join(context.address_kinds)}"] if context.address_kinds else []
    if not context.is_proved:
        said.append("NOT PROVED to be them: tell nothing of this to whoever wrote")
    lines = [f"customer: {'; '.join(said)}"]
    for one in context.interactions:
        case = cases.get(one.conversation_id)
        stands = f" [{case['reference']} {case['status']}]" if case is not None else ""
        lines.append(f"  {utc(one.at)}  {one.channel:12} {short(one.words, 90)}{stands}")
    lines += [
        f"  order {order.number}: {order.status} {order.total} {order.currency}".rstrip()
        for order in context.orders
    ]
    return lines


def _print(console: Any, found: dict[str, Any], with_decisions: bool, with_messages: bool) -> None:
    from rich.markup import escape

    from cli.story import utc

    ticket = found["ticket"]
    console.print(
        f"[bold]{escape(ticket['reference'])}  {escape(ticket['subject'] or '(no subject)')}[/bold]"
    )
    console.print(
        escape(
            f"{ticket['status']}, queue {ticket['queue']}, priority {ticket['priority']}"
            f"{', agent ' + ticket['agent_id'] if ticket['agent_id'] else ''}"
            f"{', language ' + ticket['language'] if ticket['language'] else ''}"
            f"{', tags ' + ' '.join(ticket['tags']) if ticket['tags'] else ''}"
        )
    )
    for text in standing_lines(ticket):
        console.print(escape(text))
    console.print(
        escape(
            f"ticket {ticket['ticket_id']}, conversation {ticket['conversation_id']}, opened {utc(ticket['opened_at'])}"
        )
    )
    for text in context_lines(found):
        console.print(f"[magenta]{escape(text)}[/magenta]")
    console.print()
    for line in timeline(found, with_decisions, with_messages):
        text = escape(f"{utc(line.at)}  {line.who:9} {line.text}")
        console.print(f"[{line.style}]{text}[/{line.style}]" if line.style else text)
    if found["targets"]:
        console.print()
        for target in found["targets"]:
            console.print(escape(_clock(target)))
    console.print()


def standing_lines(ticket: Any) -> list[str]:
    """Return what a ticket's row says beyond its status, in plain words."""
    from cli.story import utc

    lines = []
    if ticket["until_at"] is not None:
        why = "it waits for a third party" if ticket["status"] == "on_hold" else "it is put away"
        lines.append(f"{why} until {utc(ticket['until_at'])}, or until somebody takes it up")
    if ticket["owner_id"]:
        lines.append(f"{ticket['owner_id']} stays responsible while a colleague does a part of it")
    if ticket["merged_into"]:
        lines.append(f"goes on in ticket {ticket['merged_into']}: see there")
    if ticket["cause"]:
        lines.append(f"cause {ticket['cause']}")
    return lines


def timeline(
    found: dict[str, Any], with_decisions: bool = False, with_messages: bool = False
) -> list[Line]:
    """Return what happened, in order; events of one instant keep the order of their service."""
    from cli.story import short, style_of, tell
    from schemas.registry import REGISTRY

    lines: list[Line] = []
    for row in found["messages"]:
        text = row["text"] if with_messages else short(row["text"], 100)
        kind = "" if row["kind"] == "message" else f" ({row['kind']})"
        lines.append(Line(row["at"], "customer", f"{text}{kind}", "cyan"))
    for who, rows in (("router", found["events"]), ("routing", found["routing"])):
        for place, row in enumerate(rows):
            event = REGISTRY[row["type"]].model_validate_json(row["data"])
            answer = getattr(event, "text", "")
            text = f"{tell(event)}\n{answer}" if with_messages and answer else tell(event)
            lines.append(Line(row["at"], who, text, style_of(event)))
            record = getattr(event, "record", None)
            if with_decisions and record is not None:
                spelled = found.get("spelled", {}).get(place, ()) if who == "routing" else ()
                said = (*_decision(record), *spelled)
                lines += [Line(row["at"], "", text, "dim") for text in said]
    for target in found["targets"]:
        lines += _target_lines(target)
    lines += [_notice_line(row) for row in found["notices"]]
    return sorted(lines, key=lambda line: line.at)


def _decision(record: Any) -> list[str]:
    asked = record.requirement
    needs = [f"{need.skill} {need.level}" for need in asked.skills]
    said = [
        f"  asked for: {', '.join([*([asked.language] if asked.language else []), *needs]) or 'anybody'}"
    ]
    if record.relaxed:
        said.append(f"  no longer asked for: {', '.join(record.relaxed)}")
    if record.candidates:
        said.append(f"  fit, best first: {', '.join(record.candidates)} (by {record.chosen_by})")
    said += [f"  {agent.agent_id}: {', '.join(agent.rules)}" for agent in record.excluded]
    return said


def _target_lines(target: Any) -> list[Line]:
    name = target["kind"].replace("_", " ")
    lines = [
        Line(target["started_at"], "sla", f"clock {name} starts ({target['policy']})", "yellow")
    ]
    if target["breached_at"] is not None:
        lines.append(Line(target["breached_at"], "sla", f"clock {name} BREACHED", "bold red"))
    if target["settled_at"] is not None:
        lines.append(
            Line(target["settled_at"], "sla", f"clock {name} {target['status']}", "yellow")
        )
    return lines


def _notice_line(row: Any) -> Line:
    why = f": {row['reason']}" if row["reason"] else ""
    style = "bold red" if row["status"] in ("failed", "unknown") else "bright_blue"
    return Line(
        row["settled_at"] or row["requested_at"] or row["deferred_until"],
        "notifier",
        f"notice.{row['status']} '{row['occasion']}'{why}",
        style,
    )


def _clock(target: Any) -> str:
    from cli.story import utc

    due = f", due {utc(target['due_at'])}" if target["due_at"] else ""
    late = f", breached {utc(target['breached_at'])}" if target["breached_at"] else ""
    return f"clock {target['kind'].replace('_', ' ')}: {target['status']}{due}{late}"
