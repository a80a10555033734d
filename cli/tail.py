"""`signalbox tail`: events as they flow, one readable line each."""

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import CommandError, UsageMistake

if TYPE_CHECKING:
    from chassis.settings import Settings


def tail(
    topic: Annotated[
        list[str] | None, typer.Option("--topic", "-t", help="Only this topic; can be given again.")
    ] = None,
    ticket: Annotated[
        str,
        typer.Option(
            help="Only this ticket: its reference (SB-…) or its id, or a conversation's id."
        ),
    ] = "",
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Begin with the oldest event that is kept.")
    ] = False,
    until_end: Annotated[
        bool,
        typer.Option(
            "--until-end", help="Stop at what is the end now, instead of waiting for more."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One CloudEvent in JSON a line.")] = False,
) -> None:
    """Print events as they flow. It only looks: no group is joined and nothing is committed."""
    from cli.environment import common
    from schemas.topics import BY_NAME

    names = topic or list(BY_NAME)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise UsageMistake(f"There is no topic {unknown[0]!r}; there are {', '.join(BY_NAME)}.")
    settings = common()
    wanted = asyncio.run(_conversation(settings, ticket)) if ticket else None
    try:
        asyncio.run(_follow(settings, names, wanted, from_start, until_end, as_json))
    except KeyboardInterrupt:
        return


async def _conversation(settings: "Settings", ticket: str) -> set[str]:
    """Return the ids by which events of a ticket are known."""
    import asyncpg

    from cli.ticket import FIND

    connection = await asyncpg.connect(settings.dsn, timeout=5)
    try:
        rows = await connection.fetch(FIND, ticket)
    finally:
        await connection.close()
    found = {ticket}
    for row in rows:
        found |= {row["ticket_id"], row["conversation_id"]}
    return found


async def _follow(
    settings: "Settings",
    names: list[str],
    wanted: set[str] | None,
    from_start: bool,
    until_end: bool,
    as_json: bool,
) -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition
    from rich.console import Console

    from chassis.topics import describe

    counts = await describe(settings)
    partitions = [
        TopicPartition(settings.topic(name), number)
        for name in names
        for number in range(counts.get(name, 0))
    ]
    if not partitions:
        raise CommandError("None of these topics exists; run `signalbox topics apply`.")
    consumer = AIOKafkaConsumer(**settings.kafka_access.options(), enable_auto_commit=False)
    console = Console(highlight=False, soft_wrap=True)
    await consumer.start()
    try:
        consumer.assign(partitions)
        if from_start:
            await consumer.seek_to_beginning()
        else:
            await consumer.seek_to_end()
        ends = await consumer.end_offsets(partitions)
        while True:
            found = await consumer.getmany(timeout_ms=500)
            # Partitions come one after the other; readers want what happened in its order.
            for record in sorted(chain(*found.values()), key=lambda one: one.timestamp):
                _print(console, settings.topic_prefix, record, wanted, as_json)
            if until_end:
                behind = [p for p in partitions if await consumer.position(p) < ends[p]]
                if not behind:
                    return
    finally:
        await consumer.stop()


def _print(console: Any, prefix: str, record: Any, wanted: set[str] | None, as_json: bool) -> None:
    """Print one record, unless it is about another ticket."""
    import msgspec
    from pydantic import ValidationError
    from rich.markup import escape

    from cli.story import instant_of, local_time, style_of, tell
    from schemas.envelope import EnvelopeError, format_time, read_record
    from schemas.registry import REGISTRY

    topic = record.topic.removeprefix(prefix)
    place = f"{topic}/{record.partition}@{record.offset}"
    try:
        envelope, data = read_record(record.headers, record.value)
        kind = REGISTRY.get(envelope.type)
        event = None if kind is None else kind.model_validate_json(data)
    except (EnvelopeError, ValidationError) as error:
        if wanted is None:
            problem = str(error).splitlines()[0]
            console.print(f"[red]{escape(f'{place}  cannot be read: {problem}')}[/red]")
        return
    if wanted is not None and not _is_about(event, envelope, wanted):
        return
    if as_json:
        whole = {
            "specversion": "1.0",
            **{
                name: getattr(envelope, name)
                for name in (
                    "type", "source", "id", "subject", "workspace", "partitionkey", "correlationid", "causationid",
                    "traceparent", "sequence", "afterparked",
                )
                if getattr(envelope, name) not in (None, "")
            },
            "time": format_time(envelope.time),
            "data": msgspec.Raw(data or b"null"),
        }  # fmt: skip
        typer.echo(msgspec.json.encode(whole).decode())
        return
    if event is None:
        console.print(
            f"[dim]{escape(f'{place}  {envelope.type} (not known to this release)')}[/dim]"
        )
        return
    style = style_of(event)
    subject = str(getattr(event, "ticket_id", "") or getattr(event, "conversation_id", "") or "")
    head = f"{local_time(instant_of(event, envelope.time))}  {topic:13} {subject[:8]:8}  "
    line = escape(head + tell(event))
    console.print(f"[{style}]{line}[/{style}]" if style else line)


def _is_about(event: Any, envelope: Any, wanted: set[str]) -> bool:
    names = (
        getattr(event, "ticket_id", None),
        getattr(event, "conversation_id", None),
        getattr(event, "reference", None),
        envelope.partitionkey,
        envelope.correlationid,
    )
    return any(name in wanted for name in names if name)
