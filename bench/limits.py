"""The limits: what the parts can do alone, on this machine, in this run."""

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from bench.hop_stage import BenchCounted, BenchGiven, HopStage
from chassis.admission import Admission
from chassis.batch import Batch, Task
from chassis.clock import SystemClock, monotonic
from chassis.decision import Deciding
from chassis.emission import Emission
from chassis.ledger import Overlay
from chassis.settings import Settings
from chassis.tracing import Tracing
from schemas.envelope import Envelope, read_record

COPY_ROWS = 20_000
COPY_BATCH = 500


async def bare_pass_through(settings: Settings, count: int) -> float:
    """Return events/s of a bare aiokafka consume, validate and produce: nothing durable, nothing decided."""
    consumer = AIOKafkaConsumer(
        settings.topic("inbound"),
        **settings.kafka_access.options(),
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        enable_auto_commit=False,
        group_id=None,
    )
    producer = AIOKafkaProducer(
        **settings.kafka_access.options(),
        acks="all",
        enable_idempotence=True,
        max_batch_size=262_144,
    )
    await consumer.start()
    await producer.start()
    seen = 0
    try:
        began = monotonic()
        while seen < count:
            futures: list[asyncio.Future[Any]] = []
            for records in (await consumer.getmany(timeout_ms=500, max_records=500)).values():
                for record in records:
                    _, data = read_record(record.headers, record.value)
                    event = BenchGiven.model_validate_json(data)
                    answer = BenchCounted(
                        key=event.key, n=event.n, sent_at=event.sent_at, count=1, text=event.text
                    )
                    futures.append(
                        await producer.send(
                            settings.topic("sla"),
                            answer.to_json(),
                            key=record.key,
                            headers=list(record.headers),
                        )
                    )
                    seen += 1
            await asyncio.gather(*futures)
        return seen / (monotonic() - began)
    finally:
        await consumer.stop()
        await producer.stop()


async def copy_in_batches(dsn: str) -> float:
    """Return rows/s of COPY in batches of 500 rows of about 900 bytes, each batch committed."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "CREATE TEMP TABLE limit_copy (n bigint, key bytea, headers bytea, value bytea)"
        )
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS limit_copy (n bigint, key bytea, headers bytea, value bytea)"
        )
        rows = [
            (n, b"k" * 12, secrets.token_bytes(300), secrets.token_bytes(600))
            for n in range(COPY_BATCH)
        ]
        began = monotonic()
        for _ in range(COPY_ROWS // COPY_BATCH):
            await connection.copy_records_to_table("limit_copy", schema_name="public", records=rows)
        return COPY_ROWS / (monotonic() - began)
    finally:
        await connection.execute("DROP TABLE IF EXISTS public.limit_copy")
        await connection.close()


def core_in_a_loop(settings: Settings, count: int) -> float:
    """Return events/s of admission, decision and emission alone: all that is ours in Python, and no I/O."""
    stage = HopStage()
    emission: Emission[Any] = Emission(stage, settings, Tracing("bench"))
    admission: Admission[Any] = Admission(stage, settings, SystemClock(), emission, lambda *_: None)
    deciding: Deciding[Any] = Deciding(stage, admission, emission)
    task: Task[Any] = Task(0, 1, (TopicPartition(settings.topic("inbound"), 0),))
    records = [make_record(settings, n, 0) for n in range(count)]
    began = monotonic()
    for start in range(0, count, 500):
        batch: Batch[Any] = Batch(task, Overlay(task.position.copy()))
        admission.admit(batch, records[start : start + 500])
        deciding.decide(batch, {}, datetime.now(UTC))
        task.position = batch.overlay.position
        task.states.update({k: v for k, v in batch.overlay.states.items() if v is not None})
    return count / (monotonic() - began)


def make_input(n: int, sent_at: float) -> tuple[str, list[tuple[str, bytes]], bytes]:
    """Return key, headers and value of the `n`-th input: about 600 bytes."""
    key = f"customer-{n % 997}"
    event = BenchGiven(
        key=key, n=n, sent_at=sent_at, text="The parcel came, the lamp in it did not. " * 12
    )
    envelope = Envelope(
        type=BenchGiven.TYPE,
        source="bench/driver",
        id=str(n),
        time=datetime.now(UTC),
        partitionkey=key,
    )
    return key, list(envelope.to_headers()), event.to_json()


def make_record(settings: Settings, n: int, partition: int) -> ConsumerRecord:
    """Return the `n`-th input as the client would hand it over."""
    key, headers, value = make_input(n, 0.0)
    return ConsumerRecord(
        settings.topic("inbound"),
        partition,
        n,
        0,
        0,
        key.encode(),
        value,
        None,
        len(key),
        len(value),
        tuple(headers),
    )
