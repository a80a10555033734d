"""The durable half of `signalbox bench router`: the same domain behind a real Kafka, a real PostgreSQL, ledger and relay.

A router process reads the domain from its tables, as it does after a restart. Then agents finish tickets and new ones
come, first as fast as the router takes them, then at a fixed rate, open loop. A **decision** is one of these inputs,
committed; the time of an offer runs from the planned instant of the input that caused it to its being read from `routing`.
"""

import asyncio
import os
import random
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
import psutil
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from pydantic import SecretStr

from bench.report import percentile
from bench.router import RouterOptions, Run, World, load, make_world
from chassis.batch import partition_of
from chassis.clock import monotonic, now_seconds
from chassis.local import Platform
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.stage import Change
from chassis.topics import apply_topics
from schemas.envelope import Envelope, read_record
from schemas.payload import Payload
from schemas.routing import OfferMade, WorkWithdrawn
from schemas.topics import ROUTING, ROUTING_WORK
from services.router.core.assignment.domain import Domain
from services.router.store import DomainStore

DOMAIN: Final = "main"
PARTITIONS: Final = 4
SOURCE: Final = "signalbox/bench.world/0"
SQL: Final = Path(__file__).resolve().parent.parent / "services/router/sql"
WARM_UP_SHARE: Final = 0.2
PATIENCE_SECONDS: Final = 300.0
LATENCY_SECONDS: Final = 10.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Stand:
    """What the measurement stands on."""

    settings: Settings
    world: World
    task: int


async def measure(platform: Platform, options: RouterOptions, say: Say) -> dict[str, float]:
    """Return the durable figures; the platform must be running."""
    name = f"durable_{secrets.token_hex(4)}"
    settings = Settings(
        kafka=platform.kafka.bootstrap,
        database_url=SecretStr(platform.postgres.create_database(name)),
        partitions=PARTITIONS,
        topic_prefix=f"{name}.",
    )
    await migrate(settings.dsn, "router", [SQL])
    await apply_topics(settings)
    say("durable: making the domain and writing it down")
    world = make_world(replace(options, noon=datetime.now(UTC)))
    domain = load(world)
    run = Run(world, domain)
    run.fill()
    stand = _Stand(settings, world, partition_of(DOMAIN, PARTITIONS))
    await _write_down(stand, domain)
    inputs = _inputs(world, run.held, random.Random(options.seed + 2))
    del run, domain
    with tempfile.TemporaryDirectory(prefix="signalbox-bench-policy-") as folder:
        _write_policy(world, Path(folder))
        say("durable: starting a router, which reads the domain")
        began = monotonic()
        process = _start(settings, Path(folder))
        sender = _Sender(settings)
        try:
            await sender.start()
            await _has_read(stand, sender, process)
            figures = {"durable_load_seconds": monotonic() - began}
            figures |= await _figures(stand, sender, inputs, process, say)
        finally:
            await sender.stop()
            process.terminate()
            process.wait()
    return figures


async def _figures(
    stand: _Stand,
    sender: "_Sender",
    inputs: Iterator[Payload],
    process: "subprocess.Popen[bytes]",
    say: Say,
) -> dict[str, float]:
    options = stand.world.options
    n = options.durable_decisions
    say(f"durable: {n} inputs as fast as the router takes them")
    for _ in range(n):
        await sender.send(next(inputs))
    await sender.flush()
    figures = await _throughput(stand, n, process.pid)
    rate = options.durable_rate
    say(f"durable: {rate}/s for {LATENCY_SECONDS:.0f} s, open loop")
    seconds = await _latency(stand, sender, inputs, rate)
    figures["offer_p50_ms"] = percentile(seconds, 0.5) * 1000
    figures["offer_p99_ms"] = percentile(seconds, 0.99) * 1000
    figures["offers_timed"] = len(seconds)
    figures["durable_memory_mb"] = psutil.Process(process.pid).memory_info().rss / 1e6
    return figures


def _inputs(world: World, held: Sequence[str], dice: random.Random) -> Iterator[Payload]:
    """Yield tickets that are finished and new ones, as in the core's run."""
    left = list(held)
    dice.shuffle(left)
    while True:
        if left and dice.random() < 0.55:
            number = left.pop().removeprefix("work-")
            yield WorkWithdrawn(
                domain=DOMAIN,
                work_id=f"work-{number}",
                ticket_id=f"ticket-{number}",
                conversation_id=f"conversation-{number}",
                reason="solved",
            )
        else:
            yield world.request(datetime.now(UTC))


def _write_policy(world: World, folder: Path) -> None:
    """Write the terms of the run as the policy that says the same."""
    terms = world.terms
    queues = {f"q{n}": {"desk": "service"} for n in range(world.options.queues)}
    policy = {
        "default_language": "en",
        "languages": ["en"],
        "domains": {DOMAIN: {}},
        "queues": {**queues, "technical": {"desk": "technical"}},
        "costs": {"default": 10},
        "offers": {
            "seconds": 3600,
            "max_declines": terms.max_declines,
            "away_after_misses": terms.away_after_misses,
        },
        "assignment": {
            "strategies": dict(terms.strategies),
            "aging_seconds": dict(terms.aging),
            "drain": {"cost": terms.drain.cost, "after_seconds": terms.drain.after}
            if terms.drain is not None
            else None,
            "wrap_up_seconds": dict(terms.wrap_up),
        },
        "rules": [{"name": "everything", "then": {"queue": "q0", "language": {"asked": False}}}],
        "escalation": {"to_queue": "technical"},
        "reopen": {"window_hours": 72},
    }
    (folder / "routing.yaml").write_text(yaml.safe_dump(policy), encoding="utf-8")


async def _write_down(stand: _Stand, domain: Domain) -> None:
    """Store the domain as the router would have."""
    domain.log_roster()
    for work_id in domain.works:
        domain.touch_work(work_id)
    connection = await asyncpg.connect(
        stand.settings.dsn, server_settings={"search_path": "router"}
    )
    try:
        async with connection.transaction():
            await DomainStore().save(connection, [Change(stand.task, DOMAIN, domain)], [])
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def _start(settings: Settings, policy: Path) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        "SIGNALBOX_KAFKA": settings.kafka,
        "SIGNALBOX_DATABASE_URL": settings.dsn,
        "SIGNALBOX_PARTITIONS": str(settings.partitions),
        "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix,
        "SIGNALBOX_POLICY": str(policy),
        "SIGNALBOX_LOG_LEVEL": "warning",
    }
    return subprocess.Popen([sys.executable, "-m", "services.router", "serve"], env=environment)


async def _value(stand: _Stand, query: str) -> int:
    connection = await asyncpg.connect(
        stand.settings.dsn, server_settings={"search_path": "router"}
    )
    try:
        return int(await connection.fetchval(query, stand.task) or 0)
    finally:
        await connection.close()


async def _committed(stand: _Stand) -> int:
    return await _value(
        stand,
        "SELECT n_applied + n_ignored FROM lease WHERE stage = 'router.assignment' AND task = $1",
    )


async def _has_read(stand: _Stand, sender: "_Sender", process: "subprocess.Popen[bytes]") -> None:
    """Wait until the router has read the domain: it counts an input that means nothing."""
    await sender.send(
        WorkWithdrawn(
            domain=DOMAIN, work_id="none", ticket_id="none", conversation_id="none", reason=""
        )
    )
    await sender.flush()
    await _counts(stand, 1, process)


async def _counts(stand: _Stand, n: int, process: "subprocess.Popen[bytes] | None" = None) -> None:
    """Wait until the router has committed `n` inputs."""
    deadline = monotonic() + PATIENCE_SECONDS
    while (seen := await _committed(stand)) < n:
        if monotonic() > deadline or (process is not None and process.poll() is not None):
            raise TimeoutError(f"the router has committed {seen} of {n} inputs")
        await asyncio.sleep(0.05)


async def _throughput(stand: _Stand, n: int, pid: int) -> dict[str, float]:
    """Return inputs committed a second after the first fifth of `n`, and what they cost the router's process."""
    before = 1  # The input that meant nothing.
    await _counts(stand, before + int(n * WARM_UP_SHARE))
    began, first, spent = monotonic(), await _committed(stand), _cpu_seconds(pid)
    await _counts(stand, before + n)
    ended = monotonic()
    done = before + n - first
    cpu = _cpu_seconds(pid) - spent
    await _relayed(stand)
    return {
        "durable_decisions_per_second": done / (ended - began),
        "durable_cpu_ms_per_decision": cpu * 1000 / done,
        "relay_behind_seconds": monotonic() - ended,
    }


async def _relayed(stand: _Stand) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while await _value(stand, "SELECT count(*) FROM outbox WHERE task = $1"):
        if monotonic() > deadline:
            raise TimeoutError("the outbox is not empty")
        await asyncio.sleep(0.02)


def _cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


async def _latency(
    stand: _Stand, sender: "_Sender", inputs: Iterator[Payload], rate: int
) -> list[float]:
    """Return the seconds from each input's planned instant to the reading of the offer that it caused."""
    planned: dict[str, float] = {}
    taken: list[float] = []
    is_sent = asyncio.Event()
    consumer = AIOKafkaConsumer(
        **stand.settings.kafka_access.options(), enable_auto_commit=False, fetch_max_wait_ms=10
    )
    await consumer.start()
    partitions = [TopicPartition(stand.settings.topic(ROUTING.name), n) for n in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    for partition in partitions:
        await consumer.position(partition)

    async def read() -> None:
        is_quiet = False
        while not (is_sent.is_set() and is_quiet):
            found = await consumer.getmany(timeout_ms=1000)
            is_quiet = not found
            arrived = now_seconds()
            for record in (record for records in found.values() for record in records):
                envelope, _ = read_record(record.headers, record.value)
                due = planned.get(envelope.causationid)
                if envelope.type == OfferMade.TYPE and due is not None:
                    taken.append(arrived - due)

    reading = asyncio.create_task(read())
    try:
        began = now_seconds()
        for n in range(int(rate * LATENCY_SECONDS)):
            due = began + n / rate
            if (early := due - now_seconds()) > 0:
                await asyncio.sleep(early)
            planned[sender.next_id] = due
            await sender.send(next(inputs))
        await sender.flush()
        is_sent.set()
        await asyncio.wait_for(reading, PATIENCE_SECONDS)
    finally:
        reading.cancel()
        await consumer.stop()
    return taken[int(len(taken) * WARM_UP_SHARE / 2) :]


class _Sender:
    """Writes to `routing-work` as the stage before would, numbered without gaps."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic(ROUTING_WORK.name)
        self._partition = partition_of(DOMAIN, PARTITIONS)
        self._n = 0
        self._open: set[asyncio.Future[object]] = set()
        self._producer = AIOKafkaProducer(
            **settings.kafka_access.options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=1,
            max_batch_size=262_144,
        )

    @property
    def next_id(self) -> str:
        """The id of the next event."""
        return f"bench-{self._n + 1}"

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    async def send(self, event: Payload) -> None:
        """Send the next event."""
        envelope = Envelope(
            type=event.TYPE,
            source=SOURCE,
            id=self.next_id,
            time=datetime.now(UTC),
            partitionkey=DOMAIN,
            sequence=self._n + 1,
        )
        self._n += 1
        future = await self._producer.send(
            self._topic,
            event.to_json(),
            key=DOMAIN.encode(),
            headers=list(envelope.to_headers()),
            partition=self._partition,
        )
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        if self._n == 1:
            await self.flush()

    async def flush(self) -> None:
        """Wait until the broker has all of it.

        Raises:
            KafkaError: it has not.
        """
        if self._open:
            await asyncio.gather(*self._open)
