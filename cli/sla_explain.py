"""`signalbox sla explain`: the life of a ticket's clocks, from the tables that the service writes beside its decisions."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.errors import CommandError

if TYPE_CHECKING:
    from cli.sla_clock import Life, Line
    from hours.calendar import Calendar

_FIND: Final = """
SELECT ticket_id, conversation_id, reference, queue, channel, priority, status, opened_at FROM sla.ticket_case
 WHERE reference = upper($1) OR ticket_id = $1 OR conversation_id = $1 OR ticket_id LIKE replace($1, '%', '') || '%'
 ORDER BY conversation_id, opened_at LIMIT 20
"""
_EVENTS: Final = "SELECT type, data FROM sla.clock_event WHERE ticket_id = $1 ORDER BY event_id"
_TARGETS: Final = "SELECT target_id, calendar FROM sla.target WHERE ticket_id = $1"
_SPENT: Final = """
SELECT target_id, queue_ms, offer_ms, work_ms, pause_ms, closed_ms FROM sla.attribution WHERE ticket_id = $1
"""


@dataclass(frozen=True, slots=True)
class Story:
    """A ticket, and what was written of its clocks."""

    ticket: Any
    events: Sequence[Any]
    targets: Sequence[Any]
    spent: Sequence[Any]


def explain(
    ticket: Annotated[
        str,
        typer.Argument(
            metavar="REFERENCE|ID",
            help="SB-…, a ticket's id or its beginning, or a conversation's id.",
        ),
    ],
    timezone: Annotated[
        str, typer.Option("--timezone", help="Of the times shown; left out: each calendar's own.")
    ] = "",
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", metavar="DIR", help="Where calendars.yaml is; it shades closed hours."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a ticket instead of a drawing.")
    ] = False,
) -> None:
    """Draw the life of a ticket's clocks: pauses, other deadlines, warnings, breach, and where the time went."""
    from cli import sla_words
    from cli.environment import common
    from cli.places import policy_folder

    zone = sla_words.zone(timezone) if timezone else None
    stories = asyncio.run(_read(common().dsn, ticket))
    calendars = _calendars(policy_folder() if policy is None else policy)
    now = datetime.now(UTC)
    for story in stories:
        if as_json:
            typer.echo(json.dumps(data(story)))
        else:
            _show(lines(story, calendars, now, zone))


async def _read(dsn: str, ticket: str) -> list[Story]:
    import asyncpg

    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        rows = await connection.fetch(_FIND, ticket)
        if not rows:
            raise CommandError(f"There is no ticket {ticket} that the sla service has heard of.")
        if len({row["conversation_id"] for row in rows}) > 1:
            raise CommandError(f"{ticket} names several tickets; give more of the id.")
        return [
            Story(
                row,
                await connection.fetch(_EVENTS, row["ticket_id"]),
                await connection.fetch(_TARGETS, row["ticket_id"]),
                await connection.fetch(_SPENT, row["ticket_id"]),
            )
            for row in rows
        ]
    finally:
        await connection.close()


def _calendars(folder: Path) -> "dict[str, Calendar]":
    """Return the calendars, or none where they cannot be read: the drawing then has no shade, and nothing else is lost."""
    from chassis.errors import PolicyError
    from cli.sla_words import calendars

    try:
        return calendars(folder)
    except PolicyError as error:
        typer.echo(f"Closed hours are not shaded: {error}", err=True)
        return {}


def _lives(story: Story, zone: tzinfo) -> "list[Life]":
    from cli.sla_clock import lives
    from schemas.registry import REGISTRY
    from schemas.sla import SlaEvent

    told = [REGISTRY[row["type"]].model_validate_json(row["data"]) for row in story.events]
    found = lives([event for event in told if isinstance(event, SlaEvent)], zone)
    names = {row["target_id"]: row["calendar"] or "" for row in story.targets}
    spent = {
        row["target_id"]: {
            part: row[f"{part}_ms"] for part in ("queue", "offer", "work", "pause", "closed")
        }
        for row in story.spent
    }
    for life in found:
        life.calendar = names.get(life.target_id, "")
        life.spent_ms = spent.get(life.target_id, {})
    return found


def data(story: Story) -> dict[str, Any]:
    """Return a ticket's clocks as an object; texts in it have instants in UTC."""
    from cli.sla_clock import as_data

    ticket = story.ticket
    return {
        "ticket_id": ticket["ticket_id"],
        "conversation_id": ticket["conversation_id"],
        "reference": ticket["reference"],
        "queue": ticket["queue"],
        "channel": ticket["channel"],
        "priority": ticket["priority"],
        "status": ticket["status"],
        "opened_at": ticket["opened_at"].isoformat(),
        "clocks": [as_data(life) for life in _lives(story, UTC)],
    }


def lines(
    story: Story, calendars: "dict[str, Calendar]", now: datetime, zone: tzinfo | None
) -> "list[Line]":
    """Return the drawing of a ticket's clocks."""
    from cli.sla_clock import LEGEND, Piece, draw
    from cli.sla_words import offset, when

    ticket = story.ticket
    kept = [
        calendars[row["calendar"]].zone for row in story.targets if row["calendar"] in calendars
    ]
    shown = zone or (kept[0] if kept else UTC)
    said = (
        f"{ticket['status']}, queue {ticket['queue']}, by {ticket['channel']}, priority {ticket['priority']},"
        f" opened {when(ticket['opened_at'], shown)}  ({offset(ticket['opened_at'], shown)})"
    )
    drawn: list[Line] = [(Piece(ticket["reference"], "bold"),), (Piece(said),), ()]
    found = _lives(story, shown)
    for life in found:
        drawn += draw(life, now, shown, calendars.get(life.calendar))
        drawn.append(())
    if not found:
        drawn.append(
            (
                Piece(
                    "No clock was started: its policy promises nothing, or it is older than this table."
                ),
            )
        )
    else:
        drawn.append((Piece(LEGEND, "dim"),))
    return drawn


def _show(drawn: "Sequence[Line]") -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for line in drawn:
        console.print(Text.assemble(*((piece.text, piece.style) for piece in line)))
