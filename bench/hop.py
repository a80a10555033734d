"""`signalbox bench hop`: one service, broker to broker, durable, beside its limits and a handler-per-message twin."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import SecretStr

from bench import limits
from bench.hop_stage import SERVICE, BenchCounted
from bench.report import Report, machine, percentile
from chassis.batch import partition_of
from chassis.clock import monotonic, now_seconds
from chassis.local import Platform
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics

PARTITIONS = 4
WARM_UP_SHARE = 0.2
TWIN_EVENTS = 1_500
PATIENCE_SECONDS = 240.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class HopOptions:
    """How much to load: events of the throughput run, and seconds at each rate of the latency runs."""

    events: int = 60_000
    rates: tuple[int, ...] = (200, 1_000)
    seconds: float = 12.0


async def run(platform: Platform, options: HopOptions, say: Say) -> Report:
    """Measure and report; the platform must be running."""
    name = f"bench_{secrets.token_hex(4)}"
    dsn = platform.postgres.create_database(name)
    settings = Settings(
        kafka=platform.kafka.bootstrap,
        database_url=SecretStr(dsn),
        partitions=PARTITIONS,
        topic_prefix=f"{name}.",
    )
    report = Report(
        "hop",
        settings={
            **machine(),
            "events": options.events,
            "event_bytes": len(limits.make_input(0, 0.0)[2]),
            "partitions": PARTITIONS,
            "batch_records": settings.batch_records,
            "acks": "all",
            "fsync": "on",
        },
    )
    await migrate(dsn, SERVICE, [Path(__file__).with_name("sql")])
    await apply_topics(settings)
    say("limits: the core in a loop, COPY in batches")
    report.limits["core_events_per_second"] = limits.core_in_a_loop(settings, 20_000)
    report.limits["copy_rows_per_second"] = await limits.copy_in_batches(dsn)
    say(f"loading {options.events} events")
    await _load(settings, options.events)
    say("limit: bare consume, validate, produce")
    report.limits["bare_events_per_second"] = await limits.bare_pass_through(
        settings, options.events
    )
    say("one service, durable, as fast as it can")
    service = _start(settings, "bench.hop_stage", "serve")
    try:
        rate, cpu = await _throughput(settings, "tickets", options.events, service.pid)
        report.figures["events_per_second"] = rate
        report.figures["cpu_microseconds_per_event"] = cpu
        for per_second in options.rates:
            say(f"latency at {per_second}/s for {options.seconds:.0f} s, open loop")
            lateness = await _latency(settings, per_second, options.seconds, options.events)
            for label, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
                report.figures[f"latency_{label}_ms_at_{per_second}"] = (
                    percentile(lateness, share) * 1000
                )
    finally:
        service.terminate()
        service.wait()
    say("the twin: one handler call and one transaction a message")
    twin = _start(settings, "bench.twin")
    try:
        report.figures["twin_events_per_second"], _ = await _throughput(
            settings, "notifications", TWIN_EVENTS, twin.pid
        )
    finally:
        twin.terminate()
        twin.wait()
    slowest = min(report.limits.values())
    rate = report.figures["events_per_second"]
    report.ratios = {
        "of_slowest_limit": rate / slowest,
        "of_bare": rate / report.limits["bare_events_per_second"],
        "of_twin": rate / report.figures["twin_events_per_second"],
    }
    return report


def _start(settings: Settings, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "SIGNALBOX_KAFKA": settings.kafka,
        "SIGNALBOX_DATABASE_URL": settings.dsn,
        "SIGNALBOX_PARTITIONS": str(settings.partitions),
        "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix,
        "SIGNALBOX_LOG_LEVEL": "warning",
    }
    return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment)


def _producer(settings: Settings) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        **settings.kafka_access.options(),
        acks="all",
        enable_idempotence=True,
        linger_ms=1,
        max_batch_size=262_144,
    )


async def _load(settings: Settings, count: int) -> None:
    producer = _producer(settings)
    await producer.start()
    try:
        futures = []
        for n in range(count):
            key, headers, value = limits.make_input(n, 0.0)
            futures.append(
                await producer.send(
                    settings.topic("inbound"),
                    value,
                    key=key.encode(),
                    headers=headers,
                    partition=partition_of(key, settings.partitions),
                )
            )
            if len(futures) >= 5_000:
                await asyncio.gather(*futures)
                futures.clear()
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _throughput(settings: Settings, topic: str, count: int, pid: int) -> tuple[float, float]:
    """Return events/s and CPU µs an event between the first fifth and the end, by what stands in the topic."""
    consumer = AIOKafkaConsumer(**settings.kafka_access.options())
    await consumer.start()
    partitions = [TopicPartition(settings.topic(topic), n) for n in range(settings.partitions)]
    before = sum((await consumer.end_offsets(partitions)).values())
    deadline = monotonic() + PATIENCE_SECONDS
    warm: tuple[float, int, float] | None = None
    try:
        while True:
            done = sum((await consumer.end_offsets(partitions)).values()) - before
            now = monotonic()
            if warm is None and done >= count * WARM_UP_SHARE:
                warm = (now, done, cpu_seconds(pid))
            if done >= count and warm is not None:
                events = max(1, done - warm[1])
                return events / max(now - warm[0], 1e-3), (
                    cpu_seconds(pid) - warm[2]
                ) * 1e6 / events
            if now > deadline:
                raise TimeoutError(
                    f"only {done} of {count} events came out in {PATIENCE_SECONDS:.0f} s"
                )
            await asyncio.sleep(0.02)
    finally:
        await consumer.stop()


async def _latency(settings: Settings, per_second: int, seconds: float, first: int) -> list[float]:
    """Return seconds from the planned instant of each input to its answer being read, at a fixed arrival rate."""
    consumer = AIOKafkaConsumer(
        **settings.kafka_access.options(),
        fetch_max_wait_ms=10,
        enable_auto_commit=False,
    )
    producer = _producer(settings)
    await consumer.start()
    await producer.start()
    partitions = [TopicPartition(settings.topic("tickets"), n) for n in range(settings.partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    for partition in partitions:
        await consumer.position(partition)
    total = int(per_second * seconds)
    found: dict[int, float] = {}

    async def read() -> None:
        while len(found) < total:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                arrived = now_seconds()
                for record in records:
                    event = BenchCounted.model_validate_json(record.value)
                    if event.sent_at:
                        found[event.n] = arrived - event.sent_at

    reading = asyncio.create_task(read())
    try:
        began = now_seconds()
        futures = []
        for index in range(total):
            due = began + index / per_second
            delay = due - now_seconds()
            if delay > 0:
                await asyncio.sleep(delay)
            key, headers, value = limits.make_input(first + index + per_second * 1_000_000, due)
            futures.append(
                await producer.send(
                    settings.topic("inbound"),
                    value,
                    key=key.encode(),
                    headers=headers,
                    partition=partition_of(key, settings.partitions),
                )
            )
        await asyncio.gather(*futures)
        await asyncio.wait_for(reading, PATIENCE_SECONDS)
    finally:
        reading.cancel()
        await consumer.stop()
        await producer.stop()
    ordered = [found[n] for n in sorted(found)]
    return ordered[int(len(ordered) * WARM_UP_SHARE / 2) :]
