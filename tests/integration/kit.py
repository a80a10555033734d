"""What the tests of the loop share: settings, a driver, stages running in this process, and waiting on conditions."""

import asyncio
import contextlib
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import SecretStr

from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.stage import Stage
from chassis.task import Worker
from schemas.envelope import Envelope, read_record
from schemas.payload import REGISTRY, Payload
from tests.faults import pipeline

PARTITIONS = 2
SQL = Path(pipeline.__file__).with_name("sql")
SECONDS = 20.0


def make_settings(bootstrap: str, database: str, prefix: str, **given: Any) -> Settings:
    """Settings for a stage on the test's own topics and database."""
    return Settings(
        **{
            "kafka": bootstrap,
            "database_url": SecretStr(database),
            "partitions": PARTITIONS,
            "topic_prefix": prefix,
            "session_timeout_seconds": 6.0,
            **given,
        }
    )


async def until(what: str, holds: Callable[[], Any], seconds: float = SECONDS) -> None:
    """Come back as soon as a condition holds; it may be a coroutine function."""
    deadline = time.monotonic() + seconds
    while True:
        result = holds()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        await asyncio.sleep(0.01)


class Database:
    """The schema of one stage, to look into."""

    def __init__(self, connection: Any, schema: str) -> None:
        self.connection = connection
        self.schema = schema

    async def rows(self, query: str, *values: Any) -> list[Any]:
        return list(await self.connection.fetch(query, *values))

    async def value(self, query: str, *values: Any) -> Any:
        return await self.connection.fetchval(query, *values)

    async def counts(self) -> dict[str, int]:
        row = await self.connection.fetchrow(
            "SELECT coalesce(sum(n_applied), 0) AS applied, coalesce(sum(n_duplicate), 0) AS duplicate,"
            " coalesce(sum(n_ignored), 0) AS ignored, coalesce(sum(n_parked), 0) AS parked FROM lease"
        )
        return {name: int(value) for name, value in row.items()}


@contextlib.asynccontextmanager
async def looking(dsn: str, schema: str) -> AsyncIterator[Database]:
    """A connection of the test's own into a schema with all migrations."""
    await migrate(dsn, schema, [SQL])
    connection = await asyncpg.connect(dsn, server_settings={"search_path": schema})
    try:
        yield Database(connection, schema)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def running(
    stage: Stage[Any], settings: Settings, *, schema: str | None = None, **options: Any
) -> AsyncIterator[Worker[Any]]:
    """A stage at work in this process, all its tasks owned; stopped as planned at the end."""
    pool = await open_pool(settings.dsn, schema or stage.name, 4, "test")
    worker = Worker(stage, settings, pool, SystemClock(), **options)
    try:
        await worker.start()
        await until(
            "all tasks are owned or halted",
            lambda: (
                len(worker.tasks) == settings.partitions
                and all(task.epoch for task in worker.tasks.values())
            ),
        )
        yield worker
    finally:
        await worker.stop()
        await pool.close()


async def crash(worker: Worker[Any]) -> None:
    """End a worker as a kill does, as far as one process can: nothing is drained, nothing is recorded."""
    worker.assignment.is_stopping = True
    tasks = [
        *worker.assignment.background,
        *worker.effects.performing.values(),
        *worker.runners,
    ]
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in worker.tasks.values():
        if task.relay is not None:
            await task.relay.stop()
    worker.tasks.clear()


class Driver:
    """Publishes to the test's topics: foreign events, own ones, junk."""

    def __init__(self, producer: AIOKafkaProducer, settings: Settings) -> None:
        self._producer = producer
        self._settings = settings

    async def raw(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int = 0,
    ) -> Any:
        return await self._producer.send_and_wait(
            self._settings.topic(topic), value, key=key, headers=list(headers), partition=partition
        )

    async def event(self, topic: str, envelope: Envelope, payload: Payload) -> Any:
        key = envelope.partitionkey
        return await self.raw(
            topic,
            payload.to_json(),
            key=key.encode(),
            headers=envelope.to_headers(),
            partition=partition_of(key, self._settings.partitions),
        )

    async def given(self, n: int, key: str = "k1", **fields: Any) -> Envelope:
        """Send stage A its input number `n`."""
        envelope = foreign(n, key)
        await self.event("inbound", envelope, pipeline.Given(key=key, n=n, **fields))
        return envelope


def foreign(n: int, key: str) -> Envelope:
    """The envelope of the driver's input number `n`."""
    return Envelope(
        type=pipeline.Given.TYPE,
        source="test/driver",
        id=str(n),
        time=SystemClock().now(),
        partitionkey=key,
    )


@contextlib.asynccontextmanager
async def driving(settings: Settings) -> AsyncIterator[Driver]:
    """A driver for the time of a test."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka, acks="all", max_request_size=1_048_000
    )
    await producer.start()
    try:
        yield Driver(producer, settings)
    finally:
        await producer.stop()


async def read_topic(settings: Settings, topic: str) -> list[tuple[Envelope, Payload, Any]]:
    """Everything on a topic now, partition after partition: envelope, payload and the record itself."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    await consumer.start()
    found = []
    try:
        partitions = [
            TopicPartition(settings.topic(topic), number) for number in range(settings.partitions)
        ]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            while await consumer.position(partition) < ends[partition]:
                got = await consumer.getmany(partition, timeout_ms=500)
                for record in got.get(partition, []):
                    envelope, data = read_record(record.headers, record.value)
                    kind = REGISTRY[envelope.type]
                    found.append((envelope, kind.model_validate_json(data), record))
    finally:
        await consumer.stop()
    return found


MakeTopic = Callable[..., Awaitable[str]]


async def make_topics(make_topic: MakeTopic) -> None:
    """The topics of the pipeline, and those its stages may write to."""
    for name in ("inbound", "messages", "commands", "tickets", "dead-letters"):
        await make_topic(name, partitions=PARTITIONS)
