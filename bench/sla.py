"""`signalbox bench sla`: a million open targets behind a real Kafka, a real PostgreSQL, ledger and relay.

The service runs as a process, as it would. What is measured, one after the other:

    arming      tickets are opened through the loop, as fast as it takes them
    detection   deadlines pass at a fixed rate while other targets are moved: from the deadline to its being noticed (the
                event's own `detected_at`), and to its being read from the topic
    recount     a calendar changes; the targets that go by it are moved while deadlines pass
    restart     from the start of the process to ready
    burst       a hundred thousand deadlines within one second: until the last of them was read from the topic

Beside it stand the limits of the same run: COPY, bare arming and bare firing, which are the statements without a service.
"""

import asyncio
import math
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import psutil
from pydantic import SecretStr

from bench.limits import copy_in_batches
from bench.report import Report, machine, percentile
from bench.sla_core import measure as cpu_of_inputs
from bench.sla_world import (
    MOVED,
    PARTITIONS,
    SQL,
    STANDING,
    WITHIN,
    Fire,
    Listener,
    Mass,
    Sender,
    opened,
    prioritised,
    seed,
    write_policy,
)
from chassis.clock import monotonic
from chassis.local import Platform
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.stage import Stage
from chassis.topics import apply_topics
from schemas.sla import TargetBreached, TargetRetargeted, TargetStarted
from services.sla.handlers import SlaStage

TARGETS_EACH: Final = 2
"""Open targets of a conversation of the mass: a first response and a resolution."""

TEMPLATES: Final = 500
FIRES_PER_SECOND: Final = 200
MOVES_PER_SECOND: Final = 400
AHEAD_SECONDS: Final = 8.0
"""How long before their deadlines the tickets of a phase are opened, and more."""

ARMED_PER_SECOND: Final = 1_000.0
"""Targets that the service arms in a second, where that was not measured."""

SLACK: Final = 2.0
"""How much longer the tickets of a phase may take than those that were opened as fast as they go."""

BURST_AHEAD_SECONDS: Final = 30.0
FILLED_PER_SECOND: Final = 3_000
"""Conversations that the bench itself writes in a second, on a slow day."""

CPU_INPUTS: Final = 500
LIMIT_ROWS: Final = 20_000
ARM_BATCH: Final = 500
FIRE_BATCH: Final = 1_000
PATIENCE_SECONDS: Final = 240.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SlaOptions:
    """How large: open targets that stand, deadlines of the burst, targets of the calendar that changes, tickets opened
    as fast as they go, and for how many seconds deadlines pass one by one.
    """

    targets: int = 1_000_000
    burst: int = 100_000
    moved: int = 100_000
    opened: int = 10_000
    seconds: float = 20.0


class _Service:
    """The service as a process."""

    def __init__(self, settings: Settings, policy: Path) -> None:
        self._port = 0
        self._settings = settings
        self._policy = policy
        self._process: subprocess.Popen[bytes] | None = None

    def _launch(self) -> "subprocess.Popen[bytes]":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        environment = {
            **os.environ,
            "SIGNALBOX_KAFKA": self._settings.kafka,
            "SIGNALBOX_DATABASE_URL": self._settings.dsn,
            "SIGNALBOX_PARTITIONS": str(self._settings.partitions),
            "SIGNALBOX_TOPIC_PREFIX": self._settings.topic_prefix,
            "SIGNALBOX_POLICY": str(self._policy),
            "SIGNALBOX_HTTP_PORT": str(self._port),
            "SIGNALBOX_LOG_LEVEL": "warning",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.sla", "serve"], env=environment
        )
        return self._process

    async def start(self) -> float:
        """Start it and wait until it is ready; return the seconds from its start."""
        began = monotonic()
        mine = f":{self._launch().pid}"
        async with _looking(self._settings) as connection, httpx.AsyncClient() as client:
            while True:
                self.check()
                if monotonic() - began > PATIENCE_SECONDS:
                    raise TimeoutError("the service does not become ready")
                owners = await connection.fetch("SELECT owner FROM lease WHERE stage = 'sla'")
                n_owned = sum(row["owner"].endswith(mine) for row in owners)
                if n_owned == PARTITIONS and await self._is_ready(client):
                    return monotonic() - began
                await asyncio.sleep(0.01)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(f"http://127.0.0.1:{self._port}/health/ready")
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def check(self) -> None:
        """Raise `RuntimeError` where the process has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            raise RuntimeError(f"the service has ended with {self._process.returncode}")

    def stop(self) -> None:
        """End it in good order, and wait for that."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def memory(self) -> float:
        """Return its resident memory in megabytes."""
        assert self._process is not None
        return float(psutil.Process(self._process.pid).memory_info().rss) / 1e6

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        assert self._process is not None
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)


class _looking:  # noqa: N801 - used like a function
    """A connection of the bench's own into the service's schema."""

    def __init__(self, settings: Settings) -> None:
        self._dsn = settings.dsn
        self._connection: Any = None

    async def __aenter__(self) -> Any:
        self._connection = await asyncpg.connect(self._dsn, server_settings={"search_path": "sla"})
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()


@dataclass(slots=True)
class _Run:
    """One run: what it stands on, and what it has found so far."""

    options: SlaOptions
    settings: Settings
    policy: Path
    service: _Service
    sender: Sender
    listener: Listener
    report: Report
    say: Say

    async def until(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Wait until something holds.

        Raises:
            TimeoutError: it does not within `seconds`.
        """
        deadline = monotonic() + seconds
        while not holds():
            self.service.check()
            if monotonic() > deadline:
                raise TimeoutError(f"after {seconds:.0f} s still not: {what}")
            await asyncio.sleep(0.02)

    # -- phases ------------------------------------------------------------------------------------------------------

    async def limits(self) -> None:
        """Measure what the parts can do alone."""
        self.say("the service's own code, without servers")
        self.report.figures |= await asyncio.to_thread(cpu_of_inputs, CPU_INPUTS)
        self.say("limits: COPY, bare arming, bare firing")
        limits = self.report.limits
        limits["copy_rows_per_second"] = await copy_in_batches(self.settings.dsn)
        limits["bare_arm_per_second"], limits["bare_fire_per_second"] = await _bare_timers(
            self.settings
        )

    async def fill(self) -> None:
        """Have the standing mass there.

        Before it comes, the service runs once and writes down that nothing is to be decided again: it would take the mass
        for one that was decided before there were revisits, and walk through it all the while.
        """
        await self.service.start()
        await self._walked()
        self.service.stop()
        began, now = monotonic(), datetime.now(UTC)
        n = self.options.targets // TARGETS_EACH
        n_moved = min(n, self.options.moved // TARGETS_EACH)
        # From a quarter of an hour after now to the end of the day that all of them have: none falls due in the run.
        step = (WITHIN - timedelta(minutes=15)) / TEMPLATES
        dues = [now + timedelta(minutes=15) + k * step for k in range(TEMPLATES)]
        for mass in (
            Mass("standing", STANDING, n - n_moved, dues),
            Mass("moved", MOVED, n_moved, dues),
        ):
            await seed(self.settings.dsn, self.policy, mass, self.say)
        self.say("looking over the tables")
        async with _looking(self.settings) as connection:
            await connection.execute("ANALYZE")
            sizes = await connection.fetchrow(
                "SELECT pg_total_relation_size('state') / 1e6 AS state, pg_total_relation_size('timer') / 1e6 AS timer,"
                " pg_total_relation_size('target') / 1e6 AS target"
            )
            open_ = await connection.fetchval(
                "SELECT count(*) FROM target WHERE status IN ('running', 'paused', 'breached')"
            )
        self.report.figures["open_targets"] = open_
        for table in ("state", "timer", "target"):
            self.report.figures[f"{table}_table_mb"] = float(sizes[table])
        self.report.figures["fill_seconds"] = monotonic() - began

    async def restart(self) -> None:
        """Start, stop in good order and start again: the second start is the one that counts."""
        self.say("restarting the service")
        await self.service.start()
        self.service.stop()
        self.report.figures["restart_seconds"] = await self.service.start()
        self.report.limits["imports_seconds"] = _imports()

    async def arm(self) -> None:
        """Open tickets as fast as they go; count targets by when the service commits them."""
        n, now = self.options.opened, datetime.now(UTC)
        self.say(f"opening {n:,} tickets as fast as they go")
        self.service.stop()
        for k in range(n):
            await self.sender.send(opened(f"armed-{k:07}", STANDING, now))
        await self.sender.flush()
        await self.service.start()
        key = ("armed", TargetStarted.TYPE)
        wanted = n * TARGETS_EACH
        warm = wanted // 5
        await self.until("tickets are opened", lambda: self.listener.counts[key] >= warm, 120)
        began, first, cpu = monotonic(), self.listener.counts[key], self.service.cpu_seconds()
        await self.until("all are opened", lambda: self.listener.counts[key] >= wanted, 240)
        seconds = monotonic() - began
        figures = self.report.figures
        figures["arm_per_second"] = (wanted - first) / seconds
        figures["arm_cpu_us"] = (self.service.cpu_seconds() - cpu) * 1e6 / (wanted - first)

    async def detect(self) -> None:
        """Let deadlines pass at a fixed rate, with other targets moved beside."""
        seconds = self.options.seconds
        n = int(FIRES_PER_SECOND * seconds)
        self.say(f"detection: {FIRES_PER_SECOND}/s for {seconds:.0f} s, {MOVES_PER_SECOND}/s moved")
        begin = await self._arm_fires("detected", n)
        standing = self.options.targets // TARGETS_EACH - self.options.moved // TARGETS_EACH
        for k in range(int(MOVES_PER_SECOND * seconds)):
            at = begin + timedelta(seconds=k / MOVES_PER_SECOND)
            if (early := (at - datetime.now(UTC)).total_seconds()) > 0:
                await asyncio.sleep(early)
            name = f"standing-{k * 37 % max(standing, 1):07}"
            await self.sender.send(prioritised(name, 2, 2, datetime.now(UTC)))
        await self.sender.flush()
        fires = await self._fired("detected", n)
        figures = self.report.figures
        for what, values in (
            ("detection", [fire.detected for fire in fires]),
            ("told", [fire.told for fire in fires]),
        ):
            figures[f"{what}_p50_ms"] = percentile(values, 0.5) * 1000
            figures[f"{what}_p99_ms"] = percentile(values, 0.99) * 1000

    async def recount(self) -> None:
        """Change a calendar and see the targets that go by it moved, while deadlines pass."""
        if SlaStage.revision is Stage.revision:
            self.say("recount: this service decides nothing again when a calendar changes")
            return
        n, seconds = self.options.moved, max(self.options.seconds, 30.0)
        self.say(f"recount: a calendar changes under {n:,} targets, {FIRES_PER_SECOND}/s beside")
        begin = await self._arm_fires("beside", int(FIRES_PER_SECOND * seconds))
        await asyncio.sleep(max(0.0, (begin - datetime.now(UTC)).total_seconds()))
        changed = datetime.now(UTC)
        later = changed.replace(second=0, microsecond=0) + timedelta(minutes=5)
        write_policy(self.policy, (later, later + timedelta(minutes=5)))
        key = ("moved", TargetRetargeted.TYPE)
        await self.until("all are moved", lambda: self.listener.counts[key] >= n, PATIENCE_SECONDS)
        ended = self.listener.last[key]
        walk = await self._walked()
        fires = await self._fired("beside", int(FIRES_PER_SECOND * seconds))
        figures = self.report.figures
        figures["rearm_seconds"] = ended - walk["began"]
        figures["rearm_seen_after_seconds"] = walk["began"] - changed.timestamp()
        figures["revisit_walk_seconds"] = walk["done"] - walk["began"]
        beside = [fire for fire in fires if self._is_between(fire, walk)]
        figures["rearm_fires"] = len(beside)
        figures["rearm_fire_delay_ms"] = percentile([f.detected for f in beside], 0.99) * 1000
        figures["rearm_fire_delay_max_ms"] = (
            max((f.detected for f in beside), default=math.nan) * 1000
        )

    async def burst(self) -> None:
        """Let a hundred thousand deadlines pass within one second."""
        n = self.options.burst
        self.say(f"burst: {n:,} deadlines within one second")
        self.service.stop()
        begin = datetime.now(UTC) + timedelta(seconds=n / FILLED_PER_SECOND + BURST_AHEAD_SECONDS)
        dues = [begin + timedelta(milliseconds=k) for k in range(min(1_000, n))]
        await seed(self.settings.dsn, self.policy, Mass("burst", STANDING, n, dues), self.say)
        figures = self.report.figures
        figures["restart_before_burst_seconds"] = await self.service.start()
        left = (begin - datetime.now(UTC)).total_seconds()
        if left < 0:
            self.say("burst: the deadlines had begun to pass before the service was ready")
        figures["burst_ready_ahead_seconds"] = left
        cpu = self.service.cpu_seconds()
        fires = await self._fired("burst", n)
        figures["burst_seconds"] = self.listener.last["burst", TargetBreached.TYPE] - max(
            begin.timestamp(), begin.timestamp() - left if left < 0 else 0.0
        )
        figures["burst_p50_ms"] = percentile([fire.detected for fire in fires], 0.5) * 1000
        figures["burst_cpu_us"] = (self.service.cpu_seconds() - cpu) * 1e6 / n
        figures["memory_mb"] = self.service.memory()

    # -- parts of them -----------------------------------------------------------------------------------------------

    async def _arm_fires(self, name: str, n: int) -> datetime:
        """Open tickets whose first responses fall due one by one; return when the first does."""
        rate = self.report.figures.get("arm_per_second", ARMED_PER_SECOND) / TARGETS_EACH
        seconds = AHEAD_SECONDS + SLACK * n / rate
        begin = datetime.now(UTC) + timedelta(seconds=seconds)
        for k in range(n):
            due = begin + timedelta(seconds=k / FIRES_PER_SECOND)
            await self.sender.send(opened(f"{name}-{k:07}", STANDING, due - WITHIN))
        await self.sender.flush()
        key = (name, TargetStarted.TYPE)
        await self.until(
            "they are opened", lambda: self.listener.counts[key] >= n * TARGETS_EACH, 120
        )
        if datetime.now(UTC) > begin:
            self.say("the first deadlines had passed before all tickets were opened")
        return begin

    async def _fired(self, name: str, n: int) -> list[Fire]:
        key = (name, TargetBreached.TYPE)
        await self.until(
            f"{n} breaches of {name} are told",
            lambda: self.listener.counts[key] >= n,
            PATIENCE_SECONDS,
        )
        return self.listener.fires[name]

    async def _walked(self) -> dict[str, float]:
        """Wait until every task has been walked through; return when the first began and the last was done."""
        deadline = monotonic() + PATIENCE_SECONDS
        async with _looking(self.settings) as connection:
            while True:
                rows = await connection.fetch(
                    "SELECT extract(epoch FROM began_at)::float8 AS began,"
                    " extract(epoch FROM done_at)::float8 AS done FROM revisit WHERE stage = 'sla'"
                )
                if len(rows) == PARTITIONS and all(row["done"] is not None for row in rows):
                    return {
                        "began": min(row["began"] for row in rows),
                        "done": max(row["done"] for row in rows),
                    }
                if monotonic() > deadline:
                    raise TimeoutError("the walk does not end")
                await asyncio.sleep(0.1)

    @staticmethod
    def _is_between(fire: Fire, walk: dict[str, float]) -> bool:
        return walk["began"] <= fire.due <= walk["done"]


async def run(platform: Platform, options: SlaOptions, say: Say) -> Report:
    """Measure and report; the platform must be running. What was made in it is removed again."""
    name = f"bench_{secrets.token_hex(4)}"
    settings = Settings(
        kafka=platform.kafka.bootstrap,
        database_url=SecretStr(platform.postgres.create_database(name)),
        partitions=PARTITIONS,
        topic_prefix=f"{name}.",
    )
    report = Report(
        "sla",
        settings={
            **machine(),
            "partitions": PARTITIONS,
            "processes": 1,
            "burst": options.burst,
            "fires_per_second": FIRES_PER_SECOND,
            "moves_per_second": MOVES_PER_SECOND,
            "acks": "all",
            "fsync": "on",
        },
    )
    await migrate(settings.dsn, "sla", [SQL])
    await apply_topics(settings)
    try:
        with tempfile.TemporaryDirectory(prefix="signalbox-bench-policy-") as folder:
            policy = Path(folder) / "policy"
            write_policy(policy)
            service = _Service(settings, policy)
            sender, listener = Sender(settings), Listener(settings)
            work = _Run(options, settings, policy, service, sender, listener, report, say)
            try:
                await sender.start()
                await listener.start()
                await _phases(work)
            finally:
                service.stop()
                await listener.stop()
                await sender.stop()
    finally:
        platform.postgres.drop_database(name)
    return report


async def _phases(work: _Run) -> None:
    began = monotonic()
    await work.limits()
    await work.fill()
    await work.restart()
    await work.arm()
    await work.detect()
    await work.recount()
    await work.burst()
    figures, limits = work.report.figures, work.report.limits
    figures["early"] = work.listener.n_early
    figures["told_twice"] = work.listener.n_double
    figures["bench_seconds"] = monotonic() - began
    work.report.ratios = {
        "arm_of_bare": figures["arm_per_second"] / limits["bare_arm_per_second"],
        "arm_of_copy": figures["arm_per_second"] / limits["copy_rows_per_second"],
        "burst_of_bare": work.options.burst
        / figures["burst_seconds"]
        / limits["bare_fire_per_second"],
    }


def _imports() -> float:
    """Return the seconds that Python takes to start and to import the service, of those that a restart takes."""
    began = monotonic()
    subprocess.run([sys.executable, "-c", "import services.sla.app"], check=True)
    return monotonic() - began


async def _bare_timers(settings: Settings) -> tuple[float, float]:
    """Return timers a second armed by bare upserts, and fired by a bare loop: deleted, with an outbox row for each."""
    async with _looking(settings) as connection:
        await connection.execute(
            "CREATE TABLE limit_timer (LIKE timer INCLUDING ALL);"
            "CREATE TABLE limit_outbox (LIKE outbox INCLUDING ALL)"
        )
        try:
            due = datetime.now(UTC)
            keys = [secrets.token_hex(12) for _ in range(LIMIT_ROWS)]
            began = monotonic()
            for start in range(0, LIMIT_ROWS, ARM_BATCH):
                numbers = range(start, start + ARM_BATCH)
                await connection.execute(
                    "INSERT INTO limit_timer (stage, task, key, name, id, due_at)"
                    " SELECT 'sla', 0, u.key, 'due', u.id, $3 FROM unnest($1::text[], $2::bigint[]) AS u(key, id)"
                    " ON CONFLICT (stage, task, key, name) DO UPDATE SET id = excluded.id, due_at = excluded.due_at",
                    keys[start : start + ARM_BATCH],
                    list(numbers),
                    due,
                )
            armed = LIMIT_ROWS / (monotonic() - began)
            await connection.execute("ANALYZE limit_timer")
            began = monotonic()
            for start in range(0, LIMIT_ROWS, FIRE_BATCH):
                await _fire_bare(connection, keys[start : start + FIRE_BATCH], start)
            return armed, LIMIT_ROWS / (monotonic() - began)
        finally:
            await connection.execute("DROP TABLE limit_timer; DROP TABLE limit_outbox")


async def _fire_bare(connection: Any, keys: Sequence[str], start: int) -> None:
    async with connection.transaction():
        await connection.execute(
            "DELETE FROM limit_timer AS t USING unnest($1::text[]) AS u(key)"
            " WHERE t.stage = 'sla' AND t.task = 0 AND t.key = u.key AND t.name = 'due'",
            keys,
        )
        await connection.execute(
            "INSERT INTO limit_outbox (stage, task, oid, topic, part, seq, key, headers, value)"
            " SELECT 'sla', 0, u.oid, 'sla', 0, u.oid, $2, $3, $4 FROM unnest($1::bigint[]) AS u(oid)",
            list(range(start, start + len(keys))),
            b"k" * 36,
            b"h" * 500,
            b"v" * 400,
        )
