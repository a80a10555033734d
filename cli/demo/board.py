"""The live board: queues, agents, clocks, notices and what happens, as the topics tell it."""

from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.story import short, span, style_of, tell, until
from schemas.tickets import TicketAnswered, TicketOpened

if TYPE_CHECKING:
    from cli.demo.feed import Feed
    from cli.demo.world import World

OPEN = ("running", "at risk", "breached")
NEWS_LINES = 12
CLOCK_LINES = 6


def progress_line(world: "World", feed: "Feed") -> str:
    """Return the day so far in one line, for where there is no terminal."""
    statuses = Counter(ticket.status for ticket in world.tickets.values())
    sent = Counter(status for _, status in world.notices.values())["sent"]
    settled = statuses["pending"] + statuses["solved"] + statuses["closed"]
    return (
        f"{len(feed.deliveries)} of {len(feed.samples)} sent, {len(world.tickets)} tickets: {statuses['queued']} wait,"
        f" {statuses['offered']} offered, {statuses['assigned']} in work, {settled} answered; {sent} notices sent"
    )


def render(
    world: "World", feed: "Feed", notes: list[str], now: datetime, title: str, height: int
) -> RenderableType:
    """Return the board as it stands at `now`, for a terminal of `height` lines."""
    top = Table.grid(expand=True, padding=(0, 1))
    top.add_column(ratio=5)
    top.add_column(ratio=6)
    top.add_row(Group(_queues(world, now), _notices(world), _clocks(world, now)), _agents(world))
    lines = max(4, min(NEWS_LINES, height - 30))
    return Group(
        Text(f" {title}   {progress_line(world, feed)}", style="bold reverse"),
        top,
        _news(world, notes, lines),
    )


def _table(*columns: str) -> Table:
    table = Table(box=None, expand=True, header_style="dim", padding=(0, 1))
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def _queues(world: "World", now: datetime) -> Panel:
    table = _table("queue", "wait", "offered", "in work", "pending", "solved", "oldest")
    for queue in sorted({ticket.queue for ticket in world.tickets.values()}):
        mine = [ticket for ticket in world.tickets.values() if ticket.queue == queue]
        count = Counter(ticket.status for ticket in mine)
        waits = [ticket.waits_since for ticket in mine if ticket.waits_since is not None]
        oldest = span((now - min(waits)).total_seconds()) if waits else ""
        table.add_row(
            queue,
            *(
                str(count[name] or "")
                for name in ("queued", "offered", "assigned", "pending", "solved")
            ),
            oldest,
        )
    return Panel(table, title="queues", border_style="green", title_align="left")


def _agents(world: "World") -> Panel:
    table = _table("agent", "queues", "now", "answered", "works on")
    for agent in sorted(world.agents.values(), key=lambda one: (one.queues, one.agent_id)):
        if agent.presence != "available":
            state = agent.presence
        else:
            state = "offer" if agent.offered else "works" if agent.holds else "free"
        held = [
            world.tickets[name].reference
            for name in sorted(agent.offered | agent.holds)
            if name in world.tickets
        ]
        table.add_row(
            agent.name or agent.agent_id,
            "+".join(agent.queues),
            state,
            str(agent.answered or ""),
            short(" ".join(held), 34),
            style="" if agent.presence == "available" else "dim",
        )
    return Panel(table, title="agents", border_style="magenta", title_align="left")


def _clocks(world: "World", now: datetime) -> Panel:
    statuses = Counter(clock.status for clock in world.clocks.values())
    table = _table("clock", "ticket", "state", "due")
    running = sorted(
        (clock for clock in world.clocks.values() if clock.status in OPEN),
        key=lambda one: one.due_at,
    )
    for clock in running[:CLOCK_LINES]:
        ticket = world.tickets.get(clock.ticket_id)
        table.add_row(
            clock.target.replace("_", " "),
            ticket.reference if ticket else "",
            clock.status,
            until(clock.due_at, now),
            style={"at risk": "yellow", "breached": "bold red"}.get(clock.status, ""),
        )
    title = f"clocks: {', '.join(f'{count} {name}' for name, count in sorted(statuses.items())) or 'none yet'}"
    return Panel(table, title=title, border_style="yellow", title_align="left")


def _notices(world: "World") -> Panel:
    by_occasion: dict[str, Counter[str]] = {}
    for occasion, status in world.notices.values():
        by_occasion.setdefault(occasion, Counter())[status] += 1
    table = _table("notice", "asked", "sent", "not sent", "failed", "unknown")
    for occasion in sorted(by_occasion):
        count = by_occasion[occasion]
        table.add_row(
            occasion,
            *(
                str(count[name] or "")
                for name in ("requested", "sent", "suppressed", "failed", "unknown")
            ),
        )
    return Panel(table, title="notices", border_style="bright_blue", title_align="left")


def _news(world: "World", notes: list[str], lines: int) -> Panel:
    telling = [
        f"[{style}]{escape(_said(world, event))}[/]"
        if (style := style_of(event))
        else escape(_said(world, event))
        for event in list(world.news)[-lines:]
    ]
    said = [f"[bold red]{escape(note)}[/]" for note in notes[-3:]]
    text = "\n".join([*telling, *said])
    return Panel(
        Text.from_markup(text, overflow="ellipsis"),
        title="what happens",
        border_style="cyan",
        title_align="left",
    )


def _said(world: "World", event: object) -> str:
    ticket = world.tickets.get(str(getattr(event, "ticket_id", "")))
    reference = "" if ticket is None or isinstance(event, TicketOpened) else f"{ticket.reference} "
    text = tell(event)  # type: ignore[arg-type]
    return short(f"{reference}{text}", 150 if not isinstance(event, TicketAnswered) else 120)
