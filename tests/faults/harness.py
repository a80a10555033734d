"""The stand for the attacks: own servers, worker processes under a supervisor, a driver, and injectors that prove.

A fault that did not happen proves nothing: each injector returns evidence (an exit code, a process state, a closed port,
a failpoint's line on disk, a lease row read back, a log line of a rebalance) or raises `InvalidRun`.
"""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import SecretStr

from chassis.batch import partition_of
from chassis.bus import SafeConsumer, UndecodableRecord
from chassis.local.kafka import JavaKafka, answers_metadata
from chassis.local.postgres import EmbeddedPostgres
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from schemas.envelope import Envelope
from schemas.topics import INBOUND, TOPICS
from tests.faults.checkers import (
    READ,
    Fate,
    HistoryRow,
    LeaseRow,
    LogRecord,
    ParkedRow,
    Run,
    Sent,
    StageRows,
    violations,
)
from tests.faults.nursery import Nursery
from tests.faults.pipeline import SQL, Given
from tests.faults.poison import Odd, Poison
from tests.faults.wire import publish_raw

PARTITIONS = 4
KEYS = 48
RATE = 200.0
"""Inputs a second, whatever the pipeline does: an open loop."""

SESSION_SECONDS = 3.0
RECOVERY_SECONDS = 4.0
"""What a killed process may cost: its session, the others' heartbeat, the join, the leases."""

PLANNED_SECONDS = 1.5
"""What a planned stop may cost."""

NOISE = 2.0
"""How much slower than promised a busy machine may be before a test fails; the figure itself is always told."""

REST_SECONDS = 45.0
FAILPOINT_SECONDS = 90.0
"""A worker that joins to die needs its start first, which is slow where the machine is shared."""
DRIVER_PATIENCE_MS = 120_000


class InvalidRun(AssertionError):
    """The fault did not happen as planned, so the run shows nothing, neither good nor bad."""


def wall() -> float:
    """Seconds since 1970, comparable with PostgreSQL's and the failpoints' clock on this machine."""
    return time.time()


async def until(is_met: Callable[[], Any], seconds: float, what: str, every: float = 0.02) -> Any:
    """Wait for a condition and return what it returned; `InvalidRun` where it never comes."""
    deadline = time.monotonic() + seconds
    while not (met := is_met()):
        if time.monotonic() > deadline:
            raise InvalidRun(f"not seen within {seconds:g} s: {what}")
        await asyncio.sleep(every)
    return met


@dataclass
class Servers:
    """A broker and a database of our own, which may be killed and frozen."""

    kafka: JavaKafka
    postgres: EmbeddedPostgres
    nursery: Nursery
    directory: Path

    @classmethod
    def start(cls) -> "Servers":
        """Start both side by side, and the nursery that workers come from."""
        directory = Path(tempfile.mkdtemp(prefix="signalbox-faults-"))
        directory.chmod(0o755)  # Run as root, PostgreSQL has to reach its data as another user.
        servers = cls(
            JavaKafka(directory / "kafka"),
            EmbeddedPostgres(directory / "postgres"),
            Nursery(directory / "nursery.log"),
            directory,
        )

        async def both() -> None:
            await asyncio.gather(
                asyncio.to_thread(servers.kafka.start), asyncio.to_thread(servers.postgres.start)
            )

        try:
            asyncio.run(both())
        except BaseException:
            servers.remove()
            raise
        return servers

    def remove(self) -> None:
        """Stop all of them and delete their data."""
        self.nursery.close()
        self.kafka.remove()
        self.postgres.remove()
        shutil.rmtree(self.directory, ignore_errors=True)


class Log:
    """A process's log: one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._events: list[dict[str, Any]] = []

    def events(self, name: str | None = None, since: float = 0.0) -> list[dict[str, Any]]:
        """Return the lines, those named `name` and not older than `since`."""
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole, _, _ = data.rpartition(b"\n")
        self._read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                stamp = datetime.fromisoformat(event["timestamp"])
                self._events.append({**event, "at": stamp.timestamp()})
        return [
            event
            for event in self._events
            if event["at"] >= since and (name is None or event.get("event") == name)
        ]


class Member:
    """A worker process of one stage, in a slot that the supervisor keeps filled, with its log."""

    def __init__(
        self,
        nursery: Nursery,
        stage: str,
        slot: str,
        serial: int,
        environment: Mapping[str, str],
        directory: Path,
    ) -> None:
        self.stage = stage
        self.slot = slot
        self.name = f"{slot}.{serial}" if "+" not in slot else slot
        self.is_expected_to_end = False
        self._log = Log(directory / f"{self.name}.log")
        self._log.path.touch()
        self._nursery = nursery
        self.pid = nursery.bear([stage, "serve"], environment, self._log.path)
        self._exit_code: int | None = None

    @property
    def exit_code(self) -> int | None:
        """What `waitpid` said; minus the signal's number where a signal ended it."""
        if self._exit_code is None:
            self._exit_code = self._nursery.exit_code(self.pid)
        return self._exit_code

    @property
    def is_frozen(self) -> bool:
        """Whether the kernel says that it is stopped (state T)."""
        try:
            return bool(psutil.Process(self.pid).status() == psutil.STATUS_STOPPED)
        except psutil.NoSuchProcess:
            return False

    @property
    def has_work(self) -> bool:
        """Whether it has ever owned a task."""
        return bool(self.events("task_acquired"))

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a process that has ended gets none."""
        if self.exit_code is None:
            os.kill(self.pid, number)

    def events(self, name: str | None = None, since: float = 0.0) -> list[dict[str, Any]]:
        """Return its log lines, those named `name` and not older than `since`."""
        return self._log.events(name, since)


class Driver:
    """Sends numbered inputs at a steady rate from one coroutine, and writes down what became of each.

    One sending coroutine, because concurrent senders that wait for room may be woken in any order. The first record to
    each partition is sent alone: a producer that has had no answer from it might leave a hole there.
    """

    def __init__(self, bootstrap: str, prefix: str, rng: random.Random, history: Path) -> None:
        self.rate = RATE
        self.sent: list[Sent] = []
        self.maybe: set[int] = set()
        self.surprise: Callable[[int, str], Poison | Odd | None] | None = None
        """Asked by the sending coroutine for each number and key: what to send instead of a plain input, if anything."""
        self._bootstrap = bootstrap
        self._topic = prefix + INBOUND.name
        self._rng = rng
        self._history = history.open("a", encoding="utf-8")
        self._open: set[asyncio.Future[Any]] = set()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._warm: set[int] = set()
        self.n = 0
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=2,
            max_batch_size=1_040_000,
            max_request_size=1_040_000,
            retry_backoff_ms=50,
            request_timeout_ms=DRIVER_PATIENCE_MS,
        )

    async def start(self) -> None:
        """Begin to send."""
        await self._producer.start()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop sending, wait for every answer."""
        self._stop.set()
        if self._task is not None:
            await self._task
        if self._open:
            await asyncio.wait(self._open)
        await self._producer.stop()
        self._history.close()

    async def _run(self) -> None:
        began = time.monotonic()
        while not self._stop.is_set():
            due = began + self.n / self.rate
            if (early := due - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), early)
                continue
            await self._send_next()

    async def _send_next(self) -> None:
        n, self.n = self.n, self.n + 1
        key = f"k{self._rng.randrange(KEYS)}"
        match self.surprise(n, key) if self.surprise is not None else None:
            case Poison() as poison:
                await self.send_poison(poison)
            case Odd() as odd:
                await self.send_given(
                    odd.given,
                    kind=odd.kind,
                    fate=odd.fate,
                    headers=odd.headers,
                    is_too_large=odd.is_too_large,
                )
            case None:
                seconds = round(self._rng.uniform(0.2, 3.0), 3)
                await self.send_given(Given(key=key, n=n, timer_seconds=seconds))

    async def send_given(
        self,
        given: Given,
        *,
        kind: str = "given",
        fate: Fate = Fate.APPLY,
        headers: Iterable[tuple[str, bytes | None]] = (),
        is_too_large: bool = False,
    ) -> None:
        """Send an input, by the one coroutine that sends."""
        envelope = Envelope(
            type=Given.TYPE,
            source="driver",
            id=f"{given.n}",
            time=datetime.now(UTC),
            partitionkey=given.key,
        )
        partition = partition_of(given.key, PARTITIONS)
        value = given.to_json()
        sent = Sent(
            kind,
            INBOUND.name,
            partition,
            -1,
            fate,
            given.n,
            given.key,
            given.timer_seconds,
            is_too_large,
            value if fate is Fate.PARK else None,
        )
        await self._publish(
            self._topic, sent, given.key.encode(), value, [*envelope.to_headers(), *headers]
        )

    async def send_poison(self, poison: Poison) -> None:
        """Send a record that cannot be applied."""
        topic = self._topic.removesuffix(INBOUND.name) + poison.topic
        sent = Sent(
            poison.kind, poison.topic, poison.partition, -1, poison.fate, value=poison.value
        )
        await self._publish(topic, sent, poison.key, poison.value, list(poison.headers))

    async def send_undecodable(self, poison: Poison, header_key: bytes) -> None:
        """Send a record with a header key that is not UTF-8, which no client library would."""
        offset = await asyncio.to_thread(
            publish_raw,
            self._bootstrap,
            self._topic.removesuffix(INBOUND.name) + poison.topic,
            poison.partition,
            key=poison.key,
            value=poison.value,
            headers=[(header_key, b"x")],
            timestamp_ms=int(wall() * 1000),
        )
        self.note(Sent("a header key not UTF-8", poison.topic, poison.partition, offset, Fate.PARK))

    def note(self, sent: Sent) -> None:
        """Take over a record that was published by other means."""
        self._write("sent", sent, 0)
        self._write("acknowledged", sent, sent.offset)
        self.sent.append(sent)

    async def _publish(
        self, topic: str, sent: Sent, key: bytes, value: bytes | None, headers: list[Any]
    ) -> None:
        self._write("sent", sent, None)
        future = await self._producer.send(
            topic, value, key=key, partition=sent.partition, headers=headers
        )
        self._open.add(future)
        future.add_done_callback(lambda done: self._answered(sent, done))
        if topic == self._topic and sent.partition not in self._warm:
            await asyncio.wait([future])
            self._warm.add(sent.partition)

    def _answered(self, sent: Sent, future: "asyncio.Future[Any]") -> None:
        self._open.discard(future)
        if future.cancelled() or future.exception() is not None:
            self._write("unknown", sent, None)
            if sent.fate is not Fate.APPLY:
                raise InvalidRun(f"nobody knows where the {sent.kind} record lies")
            self.maybe.add(sent.n)
            return
        offset = future.result().offset
        self._write("acknowledged", sent, offset)
        self.sent.append(
            Sent(
                sent.kind,
                sent.topic,
                sent.partition,
                offset,
                sent.fate,
                sent.n,
                sent.key,
                sent.timer_seconds,
                sent.is_too_large,
                sent.value,
            )
        )

    def _write(self, what: str, sent: Sent, offset: int | None) -> None:
        self._history.write(
            f"{wall():.6f} {what} {sent.kind} {sent.n} {sent.topic}/{sent.partition} {offset}\n"
        )


@dataclass
class Pipeline:
    """Both stages under attack, in a database and under a topic prefix of their own."""

    servers: Servers
    name: str
    seed: str
    directory: Path
    members: dict[str, Member] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    exits: list[tuple[str, int]] = field(default_factory=list)
    restart_seconds: tuple[float, float] = (0.3, 4.0)
    """The supervisor waits this long (least, most) before it replaces a process that has ended."""
    past: list[Member] = field(default_factory=list)
    _serial: int = 0
    _due: dict[str, float] = field(default_factory=dict)
    _supervisor: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.seed}/{self.name}")
        self.prefix = f"{self.name}."
        self.database = f"faults_{self.name}".replace("-", "_")
        self.dsn = self.servers.postgres.dsn(self.database)
        self.failpoint_log = self.directory / "failpoints.log"
        self.driver = Driver(
            self.servers.kafka.bootstrap, self.prefix, self.rng, self.directory / "history.log"
        )
        self.settings = Settings(
            kafka=self.servers.kafka.bootstrap,
            database_url=SecretStr(self.dsn),
            partitions=PARTITIONS,
            topic_prefix=self.prefix,
        )

    # -- life ------------------------------------------------------------------------------------------------

    async def start(self, failpoints: str = "") -> None:
        """Two workers a stage, all tasks owned, the driver sending; `failpoints` arms each worker of the first shift."""
        await asyncio.to_thread(self.servers.postgres.create_database, self.database)
        for stage in "ab":
            for index in (1, 2):
                self.spawn(stage, f"{stage}{index}", failpoints)
        # Workers wait for their migrations, so the topics are there before the first of them joins.
        await apply_topics(self.settings)
        for name in READ:
            await migrate(self.dsn, name, [SQL])
        self._supervisor = asyncio.create_task(self._supervise())
        await self.staffed()
        await self.driver.start()
        await until(lambda: self.driver.n > RATE / 2, 20, "the driver sends")

    @property
    def is_staffed(self) -> bool:
        """Whether every slot has a living worker that owns something, and every task an owner."""
        return all(
            member.exit_code is None and member.has_work for member in self.members.values()
        ) and all(len(self.owners(stage)) == PARTITIONS for stage in "ab")

    async def staffed(self) -> None:
        """Wait until `is_staffed`: what was killed is back at work."""
        await until(lambda: self.is_staffed, 90, "every slot has a worker that owns a task")

    def spawn(self, stage: str, slot: str, failpoints: str = "") -> Member:
        """Start a worker in a slot."""
        self._serial += 1
        environment = {
            "SIGNALBOX_KAFKA": self.servers.kafka.bootstrap,
            "SIGNALBOX_DATABASE_URL": self.dsn,
            "SIGNALBOX_PARTITIONS": str(PARTITIONS),
            "SIGNALBOX_TOPIC_PREFIX": self.prefix,
            "SIGNALBOX_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "SIGNALBOX_FAILPOINTS": failpoints,
            "SIGNALBOX_FAILPOINT_LOG": str(self.failpoint_log),
        }
        member = Member(
            self.servers.nursery, stage, slot, self._serial, environment, self.directory
        )
        self.members[slot] = member
        return member

    async def join(self, stage: str, failpoints: str = "", *, is_kept: bool = False) -> Member:
        """Let one more worker into a stage and see it own a task, unless its failpoint comes before that."""
        member = self.spawn(stage, f"{stage}+{self._serial + 1}", failpoints)
        member.is_expected_to_end = not is_kept
        if not failpoints:
            await until(lambda: member.has_work, 90, f"{member.name} has joined and owns a task")
            self.proves(
                f"{member.name} joined and owns {len(member.events('task_acquired'))} tasks"
            )
        return member

    async def _supervise(self) -> None:
        """Fill each slot again some time after its process has ended."""
        while True:
            for slot, member in list(self.members.items()):
                if member.exit_code is None:
                    continue
                if slot not in self._due:
                    self.exits.append((member.name, member.exit_code))
                    if member.is_expected_to_end:
                        self.past.append(self.members.pop(slot))
                        continue
                    self._due[slot] = wall() + self.rng.uniform(*self.restart_seconds)
                elif wall() >= self._due[slot]:
                    del self._due[slot]
                    self.past.append(member)
                    self.spawn(member.stage, slot)
            await asyncio.sleep(0.02)

    async def finish(self) -> Run:
        """Stop the driver, wait until nothing moves any more, stop the workers in good order, read everything."""
        await self.driver.stop()
        for member in self.members.values():
            member.send(signal.SIGCONT)
        is_at_rest = await self._rest(REST_SECONDS)
        await self._stop_members()
        run = await self.read()
        self._measure(run, is_at_rest)
        return run

    async def _stop_members(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
        for member in self.members.values():
            member.send(signal.SIGTERM)
        members = list(self.members.values())
        await until(lambda: all(m.exit_code is not None for m in members), 40, "workers stop")
        self.exits += [(m.name, m.exit_code or 0) for m in members]

    async def abandon(self) -> None:
        """End every process that is left, however the test has ended."""
        if self._supervisor is not None:
            self._supervisor.cancel()
        for member in self.members.values():
            member.send(signal.SIGKILL)
        self.driver._stop.set()
        with contextlib.suppress(InvalidRun):
            members = list(self.members.values())
            await until(lambda: all(m.exit_code is not None for m in members), 10, "all are gone")
        if self.servers.postgres.is_alive() and self.servers.kafka.is_alive():
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.driver._producer.stop(), 2)

    async def _rest(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, asyncpg.PostgresError, KafkaError, TimeoutError):
                if await self._is_at_rest():
                    return True
            await asyncio.sleep(0.2)
        return False

    async def _is_at_rest(self) -> bool:
        ends = await read_ends(self.servers.kafka.bootstrap, self.prefix)
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            for stage, topics in READ.items():
                rows = await connection.fetch(f"SELECT task, offsets FROM {stage}.lease")
                if len(rows) < PARTITIONS or any(
                    json.loads(row["offsets"]).get(topic, 0) != ends[topic, row["task"]]
                    for row in rows
                    for topic in topics
                ):
                    return False
                for table in ("outbox", "timer"):
                    if await connection.fetchval(f"SELECT count(*) FROM {stage}.{table}"):
                        return False
        finally:
            await connection.close()
        return True

    # -- looking ---------------------------------------------------------------------------------------------

    def proves(self, evidence: str) -> None:
        """Write down that a fault happened."""
        self.evidence.append(evidence)

    def of_stage(self, stage: str) -> list[Member]:
        """The living members of a stage that own something, in the order of their slots."""
        return [
            member
            for slot, member in sorted(self.members.items())
            if member.stage == stage and member.exit_code is None
        ]

    def pick(self, stage: str) -> Member:
        """One living member of a stage's regular slots, by chance: joiners have a fate of their own."""
        return self.rng.choice([m for m in self.of_stage(stage) if "+" not in m.slot])

    def owners(self, stage: str) -> dict[int, str]:
        """Who has acquired each task last, by the members' logs."""
        found: dict[int, tuple[int, str]] = {}
        for member in [*self.past, *self.members.values()]:
            if member.stage != stage:
                continue
            for event in member.events("task_acquired"):
                known = found.get(event["task"], (0, ""))
                found[event["task"]] = max(known, (event["epoch"], member.name))
        return {task: name for task, (_, name) in found.items()}

    def acquired_since(self, stage: str, at: float, but: Member | None = None) -> int:
        """How many tasks members of a stage have acquired since an instant."""
        return sum(
            len(member.events("task_acquired", at))
            for member in [*self.past, *self.members.values()]
            if member.stage == stage and member is not but
        )

    def lost(self, reason: str, since: float = 0.0) -> int:
        """How often a task's memory was forgotten for that reason."""
        return sum(
            event["reason"] == reason
            for member in [*self.past, *self.members.values()]
            for event in member.events("task_lost", since)
        )

    def count(self, event: str, since: float = 0.0) -> int:
        """How often the members have logged an event."""
        return sum(
            len(member.events(event, since)) for member in [*self.past, *self.members.values()]
        )

    async def lease_owner(self, stage: str, task: int) -> tuple[int, str]:
        """Read a lease row: its epoch, and the process id of its owner."""
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            row = await connection.fetchrow(
                f"SELECT epoch, owner FROM pipeline_{stage}.lease WHERE task = $1", task
            )
        finally:
            await connection.close()
        assert row is not None
        return row["epoch"], row["owner"].rpartition(":")[2]

    def failpoint_line(self, member: Member, name: str) -> float | None:
        """When a member wrote down that it passed an armed failpoint, if it did."""
        if not self.failpoint_log.exists():
            return None
        for line in self.failpoint_log.read_text(encoding="utf-8").splitlines():
            point, _, pid, at = line.split(" ")
            if point == name and int(pid) == member.pid:
                return float(at)
        return None

    async def silence(self, stage: str, since: float) -> float:
        """The longest time that any task of a stage has applied nothing, from shortly before `since` until now."""
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            rows = await connection.fetch(
                "SELECT key, extract(epoch FROM applied_at)::float8 AS at"
                f" FROM pipeline_{stage}.history"
                " WHERE applied_at > to_timestamp($1) ORDER BY applied_at",
                since - 0.5,
            )
        finally:
            await connection.close()
        now, longest = wall(), 0.0
        last = dict.fromkeys(range(PARTITIONS), since - 0.5)
        for row in rows:
            task = partition_of(row["key"], PARTITIONS)
            longest = max(longest, row["at"] - last[task])
            last[task] = row["at"]
        return max(longest, now - min(last.values()))

    async def works_again(self, stage: str, since: float, within: float = 30.0) -> float:
        """Wait until every task of a stage has applied something decided after `since`; return that instant."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, asyncpg.PostgresError, TimeoutError):
                connection = await asyncpg.connect(self.dsn, timeout=2)
                try:
                    rows = await connection.fetch(
                        "SELECT key, extract(epoch FROM min(applied_at))::float8 AS at FROM"
                        f" pipeline_{stage}.history WHERE applied_at > to_timestamp($1) GROUP BY key",
                        since,
                    )
                finally:
                    await connection.close()
                first: dict[int, float] = {}
                for row in rows:
                    task = partition_of(row["key"], PARTITIONS)
                    first[task] = min(first.get(task, row["at"]), row["at"])
                if len(first) == PARTITIONS:
                    return max(first.values())
            await asyncio.sleep(0.1)
        raise AssertionError(f"stage {stage} does not work again within {within:g} s")

    # -- faults ----------------------------------------------------------------------------------------------

    async def kill(self, member: Member) -> float:
        """SIGKILL; the exit code is the proof. Returns the instant."""
        at = wall()
        member.send(signal.SIGKILL)
        await until(lambda: member.exit_code is not None, 5, f"{member.name} ends")
        if member.exit_code != -signal.SIGKILL:
            raise InvalidRun(f"{member.name} ended with {member.exit_code} before it was killed")
        self.proves(f"{member.name} ended with exit code -9")
        return at

    async def freeze(self, member: Member) -> float:
        """SIGSTOP; the process state is the proof. Returns the instant."""
        at = wall()
        member.send(signal.SIGSTOP)
        await until(lambda: member.is_frozen, 3, f"{member.name} is in state T")
        self.proves(f"{member.name} is in state T")
        return at

    async def thaw(self, member: Member) -> float:
        """SIGCONT. Returns the instant."""
        if not member.is_frozen:
            raise InvalidRun(f"{member.name} was not in state T to the end of its freeze")
        at = wall()
        member.send(signal.SIGCONT)
        await until(lambda: not member.is_frozen, 3, f"{member.name} goes on")
        return at

    async def stop_in_good_order(self, member: Member) -> float:
        """SIGTERM; exit code 0 is the proof. Returns the instant."""
        at = wall()
        member.send(signal.SIGTERM)
        await until(lambda: member.exit_code is not None, 30, f"{member.name} stops")
        if member.exit_code != 0:
            raise AssertionError(f"{member.name} was told to stop and left with {member.exit_code}")
        self.proves(f"{member.name} left with exit code 0 after {wall() - at:.2f} s")
        return at

    async def passes(self, member: Member, failpoint: str, action: str) -> float:
        """Wait until a member has passed its failpoint and the action is seen; the line on disk gives the instant."""
        at: float = await until(
            lambda: self.failpoint_line(member, failpoint),
            FAILPOINT_SECONDS,
            f"{member.name} passes {failpoint}",
        )
        if action == "kill":
            await until(lambda: member.exit_code is not None, 5, f"{member.name} ends")
            if member.exit_code != -signal.SIGKILL:
                raise InvalidRun(f"{member.name} ended with {member.exit_code}, not by {failpoint}")
            self.proves(f"{member.name} wrote {failpoint} to disk and ended with exit code -9")
        elif action == "stop":
            await until(lambda: member.is_frozen, 3, f"{member.name} is in state T")
            self.proves(f"{member.name} wrote {failpoint} to disk and is in state T")
        else:
            self.proves(f"{member.name} wrote {failpoint} to disk and raised")
        return at

    async def others_take_over(self, member: Member, since: float, within: float = 30.0) -> None:
        """Wait until the group has gone on without a member: the others' logs show that they took tasks."""
        await until(
            lambda: self.acquired_since(member.stage, since, but=member) > 0,
            within,
            f"others take over from {member.name}",
        )
        self.proves(
            f"without {member.name} the others took"
            f" {self.acquired_since(member.stage, since, but=member)} tasks"
        )

    async def kill_broker(self) -> float:
        """End the broker at once; the closed port is the proof. Returns the instant."""
        at = wall()
        await asyncio.to_thread(self.servers.kafka.kill)
        host, _, port = self.servers.kafka.bootstrap.rpartition(":")
        try:
            with socket.create_connection((host, int(port)), 1):
                raise InvalidRun("the broker's port is still open")
        except ConnectionRefusedError:
            self.proves("the broker was killed and its port is closed")
        return at

    async def freeze_server(self, server: JavaKafka | EmbeddedPostgres, seconds: float) -> float:
        """Stop every process of a server for a while; state T and its silence are the proof. Returns the thaw."""
        pid = server.pid
        assert pid is not None
        await asyncio.to_thread(server.suspend)
        try:
            process = psutil.Process(pid)
            await until(
                lambda: process.status() == psutil.STATUS_STOPPED,
                3,
                f"{server.description} is in state T",
            )
            began = time.monotonic()
            if isinstance(server, JavaKafka):
                if await asyncio.to_thread(answers_metadata, server.bootstrap):
                    raise InvalidRun("the frozen broker answers")
            else:
                try:
                    await asyncpg.connect(self.dsn, timeout=1)
                except TimeoutError:
                    pass
                else:
                    raise InvalidRun("the frozen database answers")
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
        finally:
            await asyncio.to_thread(server.resume)
        at = wall()
        name = "the broker" if isinstance(server, JavaKafka) else "PostgreSQL"
        self.proves(f"{name} was in state T and silent for {seconds:.1f} s")
        return at

    async def crash_postgres(self, away_seconds: float) -> float:
        """Stop the database without a checkpoint, start it again; refused connections are the proof."""
        await asyncio.to_thread(self.servers.postgres.stop_immediate)
        try:
            await asyncpg.connect(self.dsn, timeout=2)
        except (OSError, asyncpg.PostgresError):
            self.proves(f"PostgreSQL was stopped at once and is away {away_seconds:.1f} s")
        else:
            raise InvalidRun("the stopped database lets us in")
        await asyncio.sleep(away_seconds)
        await asyncio.to_thread(self.servers.postgres.start)
        return wall()

    # -- the end ---------------------------------------------------------------------------------------------

    async def read(self) -> Run:
        """Read both stages and all topics."""
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            a, b = [await _read_stage(connection, name) for name in READ]
        finally:
            await connection.close()
        return Run(
            PARTITIONS,
            self.driver.sent,
            frozenset(self.driver.maybe),
            await read_log(self.servers.kafka.bootstrap, self.prefix),
            a,
            b,
        )

    def _measure(self, run: Run, is_at_rest: bool) -> None:
        records = sum(len(rows) for rows in run.records.values())
        repeats = sum(lease.n_duplicate for lease in run.b.leases)
        parked = len(run.a.parked) + len(run.b.parked)
        lost = {
            reason: count
            for reason in ("fenced", "database", "conflict", "handler_failed", "bug", "refused")
            if (count := self.lost(reason))
        }
        self.figures.append(
            f"{len(run.sent)} acknowledged, {len(run.maybe)} unknown, {records} records,"
            f" {repeats} duplicates dropped by stage B, {parked} parked,"
            f" {sum(lease.epoch for s in (run.a, run.b) for lease in s.leases)} epochs, lost {lost}"
        )
        if not is_at_rest:
            self.figures.append(f"NOT at rest after {REST_SECONDS:g} s")

    def verdict(self, run: Run) -> None:
        """Fail where a check does not hold, a process ended by itself, or nothing was proven."""
        if not self.evidence:
            raise InvalidRun("no fault was proven")
        wrong = violations(run)
        odd = [f"{name}: {code}" for name, code in self.exits if code not in (0, -signal.SIGKILL)]
        if odd:
            wrong["processes_end_only_when_told"] = odd
        bugs = [
            f"{member.name}: {event['event']} {event.get('error', '')}"
            for member in [*self.past, *self.members.values()]
            for event in member.events()
            if event.get("event") in {"batch_failed", "pump_failed", "input_dropped"}
        ]
        if bugs:
            wrong["no_bug_was_logged"] = bugs[:5]
        if wrong:
            lines = [f"{check}:\n    " + "\n    ".join(found) for check, found in wrong.items()]
            raise AssertionError(
                f"seed {self.seed}: after {'; '.join(self.evidence)}\n  " + "\n  ".join(lines)
            )


class _Reader:
    """Knows how far the reading of the whole log has come."""

    def __init__(self) -> None:
        self.next: dict[TopicPartition, int] = {}

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        return dict(self.next)

    def on_out_of_range(self, partitions: set[TopicPartition]) -> None:
        raise AssertionError(f"{partitions}: the log was cut")


ALL_TOPICS = tuple(topic.name for topic in TOPICS)


@contextlib.asynccontextmanager
async def _reading(
    bootstrap: str, prefix: str, topics: Iterable[str]
) -> AsyncIterator[tuple[SafeConsumer, _Reader, dict[TopicPartition, int]]]:
    guard = _Reader()
    consumer = SafeConsumer(bootstrap_servers=bootstrap, guard=guard, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [
            TopicPartition(prefix + topic, number)
            for topic in topics
            for number in range(PARTITIONS)
        ]
        consumer.assign(partitions)
        yield consumer, guard, await consumer.end_offsets(partitions)
    finally:
        await consumer.stop()


async def read_ends(
    bootstrap: str, prefix: str, topics: Iterable[str] = ALL_TOPICS
) -> dict[tuple[str, int], int]:
    """Return where each partition of the topics ends."""
    async with _reading(bootstrap, prefix, topics) as (_, _, ends):
        return {(p.topic.removeprefix(prefix), p.partition): end for p, end in ends.items()}


async def read_log(
    bootstrap: str, prefix: str, topics: Iterable[str] = ALL_TOPICS
) -> dict[tuple[str, int], list[LogRecord]]:
    """Return every record of every partition of the topics, those that no client can decode too."""
    found: dict[tuple[str, int], list[LogRecord]] = {}
    async with _reading(bootstrap, prefix, topics) as (consumer, guard, ends):
        for partition in ends:
            found[partition.topic.removeprefix(prefix), partition.partition] = []
        guard.next = {partition: 0 for partition, end in ends.items() if end}
        consumer.unsubscribe()
        consumer.assign(list(guard.next))
        for partition in guard.next:
            consumer.seek(partition, 0)
        while guard.next:
            for partition, records in (await consumer.getmany()).items():
                rows = found[partition.topic.removeprefix(prefix), partition.partition]
                rows += [_log_record(prefix, record) for record in records]
                guard.next[partition] = records[-1].offset + 1
                if guard.next[partition] >= ends[partition]:
                    del guard.next[partition]
                    consumer.pause(partition)
    return found


def _log_record(prefix: str, record: Any) -> LogRecord:
    topic = record.topic.removeprefix(prefix)
    if isinstance(record, UndecodableRecord):
        return LogRecord(topic, record.partition, record.offset, is_readable=False)
    return LogRecord(
        topic, record.partition, record.offset, dict(record.headers), record.value or b""
    )


async def _read_stage(connection: asyncpg.Connection, name: str) -> StageRows:
    stamp = "extract(epoch FROM applied_at)::float8 AS applied_at"
    history = await connection.fetch(
        f"SELECT name, key, count, late_ms, {stamp} FROM {name}.history"
    )
    leases = await connection.fetch(f"SELECT * FROM {name}.lease ORDER BY task")
    parked = await connection.fetch(f"SELECT * FROM {name}.parked")
    states = await connection.fetch(f"SELECT key, value FROM {name}.state")
    counts = {
        table: await connection.fetchval(f"SELECT count(*) FROM {name}.{table}")
        for table in ("outbox", "timer", "effect")
    }
    return StageRows(
        name,
        [HistoryRow(*row.values()) for row in history],
        [
            LeaseRow(
                row["task"],
                row["epoch"],
                json.loads(row["offsets"]),
                json.loads(row["emitted"]),
                json.loads(row["applied"]),
                row["n_applied"],
                row["n_duplicate"],
                row["n_ignored"],
                row["n_parked"],
                row["halted"],
            )
            for row in leases
        ],
        [
            ParkedRow(
                row["id"],
                row["task"],
                row["topic"],
                row["part"],
                row["log_offset"],
                row["value"],
                row["reason"],
                row["error"],
            )
            for row in parked
        ],
        {row["key"]: json.loads(row["value"])["count"] for row in states},
        counts["outbox"],
        counts["timer"],
        counts["effect"],
    )
