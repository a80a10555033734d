"""`signalbox deadletters …`: records that were set aside, and the way back."""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from cli.errors import CommandError

app = typer.Typer(help="Records that were set aside.", no_args_is_help=True)

_LIST = """
SELECT id, stage, task, topic, part, log_offset, reason, error, attempts, parked_at, resolved_at, resolution,
       replay_requested_at
  FROM parked WHERE ($1 OR resolved_at IS NULL) ORDER BY parked_at, id
"""
_FIND = "SELECT * FROM parked WHERE id LIKE $1 || '%' LIMIT 2"
_ASK = """
UPDATE parked SET replay_requested_at = clock_timestamp()
 WHERE id = $1 AND resolved_at IS NULL RETURNING attempts
"""
_STANDS = "SELECT attempts, replay_requested_at, resolved_at, resolution, reason, error FROM parked WHERE id = $1"


@app.command("list")
def list_parked(
    show_all: Annotated[
        bool, typer.Option("--all", help="Also those that were let back in.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List what is parked, oldest first."""
    from cli.story import local_time, short

    rows = asyncio.run(_each_service(_LIST, show_all))
    for row in rows:
        if as_json:
            typer.echo(json.dumps(dict(row), default=str))
            continue
        attempts = f" ({row['attempts']} attempts)" if row["attempts"] > 1 else ""
        state = f" [{row['resolution'] or 'resolved'}]" if row["resolved_at"] else ""
        waits = (
            " [replay asked for]" if row["replay_requested_at"] and not row["resolved_at"] else ""
        )
        typer.echo(
            f"{row['id'][:8]}  {local_time(row['parked_at'], with_date=True)}  {row['stage']}/{row['task']}"
            f"  {row['topic']}/{row['part']}@{row['log_offset']}  {row['reason']}: {short(row['error'], 100)}"
            f"{attempts}{state}{waits}"
        )
    if not rows and not as_json:
        typer.echo("Nothing is parked.")


@app.command()
def show(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="The id, or its beginning.")],
    raw: Annotated[
        bool,
        typer.Option(
            "--raw", help="Write the record's bytes to standard output, and nothing else."
        ),
    ] = False,
) -> None:
    """Show one record: where it came from, what was wrong, its headers and bytes.

    It shows what customers wrote: share it with as much care as a mailbox.
    """
    from chassis.deadletters import unpack_headers
    from cli.story import utc

    _, row = asyncio.run(_find(identifier))
    if raw:
        import sys

        sys.stdout.buffer.write(row["value"] or b"")
        return
    for name in (
        "id",
        "stage",
        "task",
        "topic",
        "part",
        "log_offset",
        "reason",
        "error",
        "attempts",
        "state_key",
    ):
        typer.echo(f"{name:12} {row[name]}")
    typer.echo(f"{'parked_at':12} {utc(row['parked_at'])}")
    if row["resolved_at"]:
        typer.echo(f"{'resolved_at':12} {utc(row['resolved_at'])} ({row['resolution']})")
    for name, value in unpack_headers(row["headers"]):
        typer.echo(f"header       {name}: {None if value is None else _readable(value, 200)}")
    cut = " (only its beginning was kept)" if row["is_cut"] else ""
    typer.echo(f"value{cut}:\n{_readable(row['value'] or b'', 20_000)}")


def _readable(value: bytes, length: int) -> str:
    text = value.decode("utf-8", errors="backslashreplace")
    kept = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return (
        kept
        if len(kept) <= length
        else f"{kept[:length]}… ({len(value)} bytes in all; --raw shows them)"
    )


@app.command()
def replay(
    identifiers: Annotated[
        list[str], typer.Argument(metavar="ID…", help="Ids, or their beginnings.")
    ],
    seconds: Annotated[float, typer.Option(min=1, help="How long to wait for the outcome.")] = 30.0,
) -> None:
    """Let records back in, after the cause is mended; wait until each went through or failed again.

    The task that owned the record takes it, in order with everything else it does.
    """
    failed = 0
    for identifier in identifiers:
        outcome, is_good = asyncio.run(_replay(identifier, seconds))
        typer.echo(outcome)
        failed += not is_good
    if failed:
        raise typer.Exit(1)


async def _each_service(query: str, *arguments: Any) -> list[Any]:
    import asyncpg

    from cli.environment import common
    from cli.parts import SERVICES

    connection = await asyncpg.connect(common().dsn, timeout=5)
    rows: list[Any] = []
    try:
        for service in SERVICES:
            await connection.execute(f'SET search_path TO "{service}"')
            rows += await connection.fetch(query, *arguments)
    finally:
        await connection.close()
    return sorted(rows, key=lambda row: (row["parked_at"], row["id"]))


async def _find(identifier: str) -> tuple[str, Any]:
    """Return the service and the row that an id (or its beginning) names."""
    wanted = identifier.replace("%", "").replace("_", "")
    rows: Sequence[Any] = await _each_service(_FIND, wanted) if wanted else []
    if not rows:
        raise CommandError(
            f"No dead letter has the id {identifier}; see `signalbox deadletters list --all`."
        )
    if len(rows) > 1:
        raise CommandError(f"{identifier} names several dead letters; give more of the id.")
    return rows[0]["stage"].partition(".")[0], rows[0]


async def _replay(identifier: str, seconds: float) -> tuple[str, bool]:
    import asyncpg

    from cli.environment import common

    service, row = await _find(identifier)
    name = row["id"]
    connection = await asyncpg.connect(common().dsn, timeout=5)
    try:
        await connection.execute(f'SET search_path TO "{service}"')
        attempts = await connection.fetchval(_ASK, name)
        if attempts is None:
            return f"{name}: was let back in before ({row['resolution']}).", True
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            now = await connection.fetchrow(_STANDS, name)
            assert now is not None
            if now["resolved_at"] is not None:
                return f"{name}: {now['resolution'] or 'went through'}.", True
            if now["attempts"] > attempts:
                return f"{name}: failed again: {now['reason']}: {now['error']}", False
            await asyncio.sleep(0.2)
        return (
            f"{name}: nobody has taken it within {seconds:g} s; it is asked for, and happens when {service} runs"
            f" and owns task {row['task']}.",
            False,
        )
    finally:
        await connection.close()
