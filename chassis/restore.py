"""After a database was restored to an earlier point: a new incarnation of the source, and what its readers do.

The restored source numbers again from 1 under a new incarnation (`signalbox/sla/7#1764000000`), and its first event in
each partition says which old event it still knows of (`continues`). What it told after that it has forgotten and may
tell again, with the same ids, since ids derive from causes. Readers read the forgotten part of their own partition back,
keep its ids, and drop those when they come again.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition

from chassis.kafka_access import KafkaAccess
from schemas.envelope import EnvelopeError, read_record

EPOCHS = 2**20
"""How far epochs are raised, so that no process of the lost future matches."""

READ_SECONDS = 60.0

BEGIN_INCARNATION = """
UPDATE lease
   SET epoch = epoch + $1,
       continues = continues || coalesce(
           (SELECT jsonb_object_agg(slot, incarnation || ':' || last) FROM jsonb_each_text(emitted) AS e(slot, last)),
           '{}'),
       incarnation = greatest(incarnation + 1, $2),
       emitted = '{}'
RETURNING stage, task, incarnation
"""


@dataclass(frozen=True, slots=True)
class Begun:
    """A lease whose source has a new incarnation."""

    stage: str
    task: int
    incarnation: int


async def begin_incarnation(dsn: str, schema: str, now: datetime) -> list[Begun]:
    """Give every source of a service a new incarnation. Stop all its processes first.

    The incarnation is the present time in seconds: the lost future may have used any number counted from the restored
    one, but none that was not yet.
    """
    connection = await asyncpg.connect(dsn, timeout=5, server_settings={"search_path": schema})
    try:
        rows = await connection.fetch(BEGIN_INCARNATION, EPOCHS, int(now.timestamp()))
        return [Begun(row["stage"], row["task"], row["incarnation"]) for row in rows]
    finally:
        await connection.close()


async def forgotten_ids(
    kafka: KafkaAccess, partition: TopicPartition, end_offset: int, forgotten: dict[str, int]
) -> set[str]:
    """Return the ids, before `end_offset`, of events of the sources in `forgotten` above the sequence named there.

    Raises:
        KafkaError, OSError, TimeoutError: the broker does not answer; ask again.
    """
    # "earliest", not a seek: the client's own first reset may come after a seek, and skip everything.
    consumer = AIOKafkaConsumer(
        **kafka.options(), enable_auto_commit=False, auto_offset_reset="earliest"
    )
    found: set[str] = set()
    async with asyncio.timeout(READ_SECONDS):
        await consumer.start()
        try:
            consumer.assign([partition])
            position = await consumer.position(partition)
            while position < end_offset:
                batches = await consumer.getmany(partition, timeout_ms=1_000)
                for record in batches.get(partition, []):
                    if record.offset >= end_offset:
                        break
                    found.update(_forgotten_id(record.headers, record.value, forgotten))
                position = await consumer.position(partition)
        finally:
            await consumer.stop()
    return found


def _forgotten_id(
    headers: tuple[tuple[str, bytes | None], ...], value: bytes | None, forgotten: dict[str, int]
) -> tuple[str, ...]:
    try:
        envelope, _ = read_record(headers, value)
    except EnvelopeError:
        return ()  # It was parked when it came; no source of ours wrote it.
    told = forgotten.get(envelope.source)
    if told is None or envelope.sequence is None or envelope.sequence <= told:
        return ()
    return (envelope.id,)
