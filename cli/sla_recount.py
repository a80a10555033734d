"""`signalbox sla recount` and `signalbox sla diff`: what a change of hours or promises does to deadlines that run.

`diff` reads the states that the service decides from, a page at a time, and asks its core what another policy folder would change:
nothing is written. `recount` writes an order, which every running process notices within two seconds.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from cli.errors import UsageMistake

if TYPE_CHECKING:
    from services.sla.core.policy import Policy
    from services.sla.core.recount import Move
    from services.sla.core.state import Conversation

PAGE: Final = 2_000
"""Conversations that are read at a time."""

_STATES: Final = """
SELECT task, key, value FROM sla.state
WHERE stage = 'sla' AND (task, key) > ($1, $2) ORDER BY task, key LIMIT $3
"""

_OPEN: Final = """
SELECT count(*) FILTER (WHERE status IN ('running', 'paused')) AS open,
       count(*) FILTER (WHERE status = 'breached') AS breached
FROM sla.target WHERE status IN ('running', 'paused', 'breached')
"""


class Group(NamedTuple):
    """What would happen to the clocks of one queue and target.

    `moved` have another deadline, `ended` would be promised no more, `past` be broken at once. The shifts are those of the moved, in
    seconds: below 0 is earlier. They are None where no clock has a deadline before and after.
    """

    queue: str
    target: str
    moved: int
    ended: int
    past: int
    shift_earliest_s: float | None
    shift_median_s: float | None
    shift_largest_s: float | None


def recount(
    breaches: Annotated[
        bool,
        typer.Option("--breaches", help="Also judge breaches and kept promises of open tickets."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Give the order without asking.")] = False,
) -> None:
    """Work out every open deadline anew; with --breaches judge what was told of open tickets, too.

    A change of calendars does the first by itself. The second is for a mistake in them: breaches are taken back, or
    told, by the calendars as they are now. Closed tickets never change.
    """
    from cli.environment import common

    settings = common()
    is_open, breached = asyncio.run(_counts(settings))
    what = f"{is_open} open deadlines are worked out anew"
    if breaches:
        what += f", and {breached} open breaches and all promises kept on open tickets judged anew"
    if not yes and not typer.confirm(f"{what}. Go on?"):
        raise UsageMistake("Nothing was ordered.")
    number = asyncio.run(_give(settings, breaches))
    typer.echo(
        f"Order {number}: {what}. Running processes notice within two seconds;"
        " signalbox_revisit_pending falls to 0 when it is done."
    )


def diff(
    policy: Annotated[
        Path,
        typer.Option("--policy", metavar="DIR", help="The policy folder that would be in force."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of a table.")
    ] = False,
) -> None:
    """Show which open deadlines a policy folder would move, and by how much, before it is in force.

    Nothing is changed. Policies with `policy_change: pin`, as they are if they do not say, hold for clocks that start later:
    of those, only changed calendars move what runs.
    """
    from chassis.clock import SystemClock
    from chassis.policy import load
    from cli.environment import common
    from services.sla.handlers import POLICY

    settings = common()
    now = SystemClock().now()
    found, conversations = asyncio.run(_moves(settings, load(policy, POLICY), now))
    groups = grouped(found)
    if as_json:
        answer = {
            "at": now.isoformat(),
            "conversations": conversations,
            "groups": [one._asdict() for one in groups],
        }
        typer.echo(json.dumps(answer, ensure_ascii=False))
        return
    typer.echo("\n".join(table(groups)))
    typer.echo(f"{len(found)} clocks of {conversations} conversations with open tickets.")


def grouped(moves: Iterable["Move"]) -> list[Group]:
    """The moves by queue and target, both in order."""
    by: defaultdict[tuple[str, str], list[Move]] = defaultdict(list)
    for move in moves:
        by[move.queue, move.target].append(move)
    return [_group(queue, target, found) for (queue, target), found in sorted(by.items())]


def table(groups: Iterable[Group]) -> list[str]:
    """The lines of a table for people; one sentence where there is nothing to show."""
    rows = [
        (
            one.queue or "(no queue)",
            one.target,
            str(one.moved),
            _shift(one.shift_earliest_s),
            _shift(one.shift_median_s),
            _shift(one.shift_largest_s),
            str(one.past),
            str(one.ended),
        )
        for one in groups
    ]
    if not rows:
        return ["No open deadline would move."]
    head = ("queue", "target", "moved", "earliest", "median", "largest", "past at once", "ended")
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _group(queue: str, target: str, moves: list["Move"]) -> Group:
    shifts = [
        (move.after - move.before).total_seconds()
        for move in moves
        if not move.ends and move.before is not None and move.after is not None
    ]
    return Group(
        queue,
        target,
        moved=sum(not move.ends for move in moves),
        ended=sum(move.ends for move in moves),
        past=sum(move.is_past for move in moves),
        shift_earliest_s=min(shifts, default=None),
        shift_median_s=median(shifts) if shifts else None,
        shift_largest_s=max(shifts, default=None),
    )


def _shift(seconds: float | None) -> str:
    """`+1 day, 2:00:00`, `-0:30:00`, or a dash."""
    if seconds is None:
        return "-"
    return f"{'-' if seconds < 0 else '+'}{timedelta(seconds=round(abs(seconds)))}"


async def _counts(settings: Any) -> tuple[int, int]:
    connection = await _connect(settings)
    try:
        row = await connection.fetchrow(_OPEN)
        return int(row["open"]), int(row["breached"])
    finally:
        await connection.close()


async def _give(settings: Any, includes_breaches: bool) -> int:
    from services.sla.recount_orders import give

    connection = await _connect(settings)
    try:
        await connection.execute('SET search_path TO "sla"')
        return await give(connection, includes_breaches)
    finally:
        await connection.close()


async def _moves(settings: Any, policy: "Policy", now: datetime) -> tuple[list["Move"], int]:
    from services.sla.core.recount import moves

    found: list[Move] = []
    conversations = 0
    policy = await _with_feeds(settings, policy)
    async for state in _states(settings):
        conversations += 1
        found += moves(state, now, policy)
    return found, conversations


async def _with_feeds(settings: Any, policy: "Policy") -> "Policy":
    """The policy with what its calendars' feeds last said, as the service would have it."""
    from services.sla.calendar_feeds import states, stored

    feeds = policy.book.feeds
    if not feeds:
        return policy
    connection = await _connect(settings)
    try:
        await connection.execute('SET search_path TO "sla"')
        return policy.with_feeds(await stored(connection, await states(connection, sorted(feeds))))
    finally:
        await connection.close()


async def _states(settings: Any) -> AsyncIterator["Conversation"]:
    """Every conversation that the service knows, page after page: no long transaction, and no more than a page in memory."""
    import msgspec

    from services.sla.core.state import Conversation

    decoder = msgspec.json.Decoder(Conversation)
    connection = await _connect(settings)
    try:
        task, key = -1, ""
        while True:
            rows = await connection.fetch(_STATES, task, key, PAGE)
            for row in rows:
                yield decoder.decode(row["value"])
            if len(rows) < PAGE:
                return
            task, key = rows[-1]["task"], rows[-1]["key"]
    finally:
        await connection.close()


async def _connect(settings: Any) -> Any:
    import asyncpg

    return await asyncpg.connect(settings.dsn, timeout=5)
