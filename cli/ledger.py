"""`signalbox ledger …`: who works for which partition, how far they are, and what stands still."""

import asyncio
import json
from typing import Annotated, Any

import typer

from cli.errors import CommandError, UsageMistake

app = typer.Typer(help="Leases, positions, and tasks that stand at a gap.", no_args_is_help=True)

_COUNTS = {
    "applied": "n_applied",
    "repeats": "n_duplicate",
    "ignored": "n_ignored",
    "parked": "n_parked",
    "outbox": "outbox",
}
_LEASES = """
SELECT l.stage, l.task, l.epoch, l.owner, l.incarnation, l.n_applied, l.n_duplicate, l.n_ignored, l.n_parked, l.offsets,
       l.halted, extract(epoch FROM clock_timestamp() - l.renewed_at)::float8 AS age,
       (SELECT count(*) FROM outbox o WHERE o.stage = l.stage AND o.task = l.task) AS outbox
  FROM lease l ORDER BY l.stage, l.task
"""


@app.command()
def show() -> None:
    """Show each task: its owner and epoch, what it has counted, its lag, and whether it stands."""
    from cli.environment import common

    rows, ends = asyncio.run(_read(common()))
    lines = [("task", "epoch", *_COUNTS, "lag", "renewed", "owner")]
    halts = []
    for row in rows:
        offsets = json.loads(row["offsets"])
        lag = sum(
            max(0, ends.get((topic, row["task"]), offset) - offset)
            for topic, offset in offsets.items()
        )
        halted = json.loads(row["halted"]) if row["halted"] is not None else None
        if halted is not None:
            halts.append((row["stage"], row["task"], halted))
        lines.append(
            (
                f"{row['stage']}/{row['task']}",
                str(row["epoch"]),
                *(str(row[name]) for name in _COUNTS.values()),
                str(lag),
                f"{row['age']:.0f} s ago",
                f"{row['owner']}{'  STANDS' if halted is not None else ''}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *middle, last in lines:
        cells = [text.rjust(width) for text, width in zip(middle, widths[1:-1], strict=True)]
        typer.echo("  ".join((first.ljust(widths[0]), *cells, last)))
    for stage, task, halted in halts:
        typer.echo(f"\n{stage}/{task} stands: {describe(halted)}")
    if halts:
        typer.echo(
            "\nFind the cause first; then `signalbox ledger resume STAGE TASK --accept-loss`."
        )
        raise typer.Exit(1)


@app.command()
def resume(
    stage: Annotated[str, typer.Argument(help="The stage, such as `router.tickets`.")],
    task: Annotated[int, typer.Argument(help="The task's number.")],
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Say that you know what is missing, and that it will stay missing.",
        ),
    ] = False,
) -> None:
    """Let a task that stands at a gap go on behind it. What is missing stays missing."""
    from cli.environment import common

    halted = asyncio.run(_resume(common(), stage, task, accept_loss))
    if halted is None:
        raise CommandError(f"{stage}/{task} does not stand; see `signalbox ledger show`.")
    typer.echo(f"{stage}/{task} stood: {describe(halted)}")
    if not accept_loss:
        raise UsageMistake(
            "Nothing was changed; add --accept-loss to go on without what is missing."
        )
    typer.echo("It goes on behind the gap; its owner notices within a second.")


@app.command()
def restored(
    service: Annotated[str, typer.Argument(help="ingest, router, sla or notifier.")],
    processes_are_stopped: Annotated[
        bool,
        typer.Option(
            "--processes-are-stopped", help="Say that no process of the service runs anywhere."
        ),
    ] = False,
) -> None:
    """After restoring a service's database from a backup: let its sources begin anew, before it starts."""
    from chassis.clock import SystemClock
    from chassis.restore import begin_incarnation
    from cli.environment import common
    from cli.parts import SERVICES

    if service not in SERVICES:
        raise UsageMistake(f"There is no service {service!r}; there are {', '.join(SERVICES)}.")
    if not processes_are_stopped:
        raise UsageMistake(
            "Nothing was changed: stop every process of the service, then add --processes-are-stopped."
        )
    begun = asyncio.run(begin_incarnation(common().dsn, service, SystemClock().now()))
    for one in begun:
        typer.echo(f"{one.stage}/{one.task} begins incarnation {one.incarnation}")
    typer.echo(
        f"{len(begun)} sources begin anew. Start the service: it numbers from 1, and readers drop what it tells again."
    )


def describe(halted: dict[str, Any]) -> str:
    """Say in a sentence why a task stands, and what is missing."""
    topic, last, got, offset = (halted.get(name) for name in ("topic", "last", "got", "offset"))
    match halted.get("reason"):
        case "sequence_gap" if isinstance(last, int) and isinstance(got, int):
            missing = (
                f"number {last + 1}" if got == last + 2 else f"numbers {last + 1} to {got - 1}"
            )
            return (
                f"on {topic}, offset {offset}, {halted.get('source')} sent number {got} after {last}; {missing}"
                " never came"
            )
        case "below_log_start":
            return f"{topic} begins at offset {offset}, and the next to read was {last}: records were deleted unread"
        case "beyond_log_end":
            return f"{topic} ends at offset {offset}, and {last} had been read before: the log lost its end"
        case "offsets_missing":
            return f"on {topic} the offsets {last} to {offset} are not there"
        case other:
            return f"{other} on {topic} at offset {offset}"


async def _resume(settings: Any, stage: str, task: int, is_accepted: bool) -> dict[str, Any] | None:
    from chassis.ledger import open_pool
    from chassis.ledger import resume as resume_task
    from cli.parts import SERVICES

    service = stage.partition(".")[0]
    if service not in SERVICES:
        raise UsageMistake(f"There is no stage {stage!r}; `signalbox ledger show` lists them.")
    pool = await open_pool(settings.dsn, service, 2, "signalbox ledger")
    try:
        async with pool.acquire() as connection:
            if is_accepted:
                return await resume_task(connection, stage, task)
            found = await connection.fetchval(
                "SELECT halted FROM lease WHERE stage = $1 AND task = $2", stage, task
            )
            return None if found is None else json.loads(found)
    finally:
        await pool.close()


async def _read(settings: Any) -> tuple[list[Any], dict[tuple[str, int], int]]:
    import asyncpg

    from cli.parts import SERVICES

    connection = await asyncpg.connect(settings.dsn, timeout=5)
    rows: list[Any] = []
    try:
        for service in SERVICES:
            await connection.execute(f'SET search_path TO "{service}"')
            rows += await connection.fetch(_LEASES)
    finally:
        await connection.close()
    topics = {topic for row in rows for topic in json.loads(row["offsets"])}
    return rows, await _ends(settings, topics)


async def _ends(settings: Any, topics: set[str]) -> dict[tuple[str, int], int]:
    """Return where each partition's log ends; nothing where Kafka does not answer, so that leases can be seen."""
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from aiokafka.errors import KafkaError

    consumer = AIOKafkaConsumer(**settings.kafka_access.options())
    try:
        async with asyncio.timeout(10):
            await consumer.start()
            ends = await consumer.end_offsets(
                [
                    TopicPartition(settings.topic(topic), number)
                    for topic in sorted(topics)
                    for number in range(settings.partitions)
                ]
            )
    except (KafkaError, OSError, TimeoutError):
        typer.echo("Kafka does not answer: lag is not known.", err=True)
        return {}
    finally:
        await consumer.stop()
    prefix = settings.topic_prefix
    return {(p.topic.removeprefix(prefix), p.partition): end for p, end in ends.items()}
