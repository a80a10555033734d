"""Whether the process lives and whether it is ready, from what its loops do and not from what they promise.

Live: every loop has turned within `LOOP_SECONDS`; neither the database's nor the broker's absence makes a process dead.
Ready: each stage holds the leases of what Kafka gave it, its position moves while there is lag, the database answers,
the broker too, and nothing stands at a gap.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
from aiokafka.errors import KafkaError

from chassis import metrics
from chassis.auth import Permission, anybody
from chassis.batch import TaskState
from chassis.clock import monotonic
from chassis.ledger import DATABASE_ERRORS
from chassis.task import Worker
from chassis.web import Receive, Scope, Send, respond

LOOP_SECONDS = 30.0
STUCK_SECONDS = 15.0
PING_SECONDS = 2.0

READY = metrics.gauge("signalbox_ready", "1 while the process says that it is ready.")

PATHS: Final[Mapping[str, Permission]] = {
    "/health/live": anybody(
        "names of loops and how long they stand still; a probe can show no key"
    ),
    "/health/ready": anybody("names of parts and kinds of errors; a probe can show no key"),
    "/metrics": anybody("numbers under labels of closed sets, no id and no text of anybody"),
}
"""What this port answers, and what each needs. It binds to this machine unless `http_host` says otherwise, and is for the
inner network only (docs/security.md)."""

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong, in a few words, or None."""


@dataclass(slots=True)
class _Progress:
    position: int = -1
    moved: float = field(default_factory=monotonic)


class Health:
    """Answers the paths of `PATHS`; everything else is 404."""

    def __init__(self, service: str, pool: asyncpg.Pool | None = None) -> None:
        self._service = service
        self._pool = pool
        self.database_wait: str | None = None
        """What the process still waits for before it opens its pool; None where it does not."""
        self._workers: list[Worker[Any]] = []
        self._turns: dict[str, Callable[[], float]] = {}
        self._checks: dict[str, Check] = {}
        self._notes: dict[str, Callable[[], str | None]] = {}
        self._progress: dict[str, _Progress] = {}

    def use_pool(self, pool: asyncpg.Pool) -> None:
        """Ask this pool from now on whether the database answers."""
        self._pool, self.database_wait = pool, None

    def add_worker(self, worker: Worker[Any]) -> None:
        """Watch a stage's loop."""
        self._workers.append(worker)
        self._turns[f"{worker.stage.name} pump"] = lambda: worker.last_turn
        self._turns[f"{worker.stage.name} poll"] = lambda: (
            worker.consumer.last_poll if worker.consumer is not None else monotonic()
        )

    @property
    def workers(self) -> tuple[Worker[Any], ...]:
        """The stages that run in this process."""
        return tuple(self._workers)

    def add_turn(self, name: str, last: Callable[[], float]) -> None:
        """Watch another loop, by when it last came round (monotonic seconds)."""
        self._turns[name] = last

    def add_check(self, name: str, check: Check) -> None:
        """Make readiness depend on something more."""
        self._checks[name] = check

    def add_note(self, name: str, note: Callable[[], str | None]) -> None:
        """Have readiness say something that keeps nobody from being ready, while `note` returns it."""
        self._notes[name] = note

    def dead(self) -> dict[str, str]:
        """Return the loops that have stopped turning."""
        now = monotonic()
        return {
            name: f"has not turned for {now - last():.0f} s"
            for name, last in self._turns.items()
            if now - last() > LOOP_SECONDS
        }

    async def unready(self) -> dict[str, str]:
        """Return what keeps the process from being ready, by part."""
        problems = self.dead()
        if self.database_wait is not None:
            problems["database"] = self.database_wait
        if self._pool is not None:
            problem = await self._ping()
            if problem is not None:
                problems["database"] = problem
        problem = await self._ask_broker()
        if problem is not None:
            problems["broker"] = problem
        for worker in self._workers:
            problems.update(self._stage_problems(worker))
        for name, check in self._checks.items():
            said = await check()
            if said is not None:
                problems[name] = said
        READY.set(0 if problems else 1)
        return problems

    async def _ping(self) -> str | None:
        assert self._pool is not None
        try:
            async with asyncio.timeout(PING_SECONDS):
                async with self._pool.acquire() as connection:
                    await connection.fetchval("SELECT 1")
        except DATABASE_ERRORS as error:
            return f"does not answer ({type(error).__name__})"
        return None

    async def _ask_broker(self) -> str | None:
        """Ask the broker for its metadata: positions and lag stand still without a sign when it is gone."""
        consumer = next((w.consumer for w in self._workers if w.consumer is not None), None)
        if consumer is None:
            return None
        try:
            async with asyncio.timeout(PING_SECONDS):
                await consumer.topics()
        except (KafkaError, OSError, TimeoutError) as error:
            return f"does not answer ({type(error).__name__})"
        return None

    def _stage_problems(self, worker: Worker[Any]) -> dict[str, str]:
        name = worker.stage.name
        if worker.consumer is None:
            return {name: "has not joined its group yet"}
        problems = {}
        states = {task.number: task.state for task in worker.tasks.values()}
        waiting = sorted(n for n, state in states.items() if state is not TaskState.OWNED)
        halted = sorted(n for n, state in states.items() if state is TaskState.HALTED)
        if halted:
            problems[name] = f"tasks {halted} stand at a gap; see `signalbox ledger show`"
        elif waiting:
            problems[name] = f"tasks {waiting} have no lease yet"
        elif worker.incomplete:
            problems[name] = f"tasks {sorted(worker.incomplete)} lack topics"
        lag = worker.lag() or 0
        position = sum(sum(task.position.offsets.values()) for task in worker.tasks.values())
        progress = self._progress.setdefault(name, _Progress())
        if lag == 0 or position != progress.position:
            progress.position, progress.moved = position, monotonic()
        elif monotonic() - progress.moved > STUCK_SECONDS:
            problems.setdefault(name, f"{lag} records behind and not moving")
        return problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        if scope["type"] != "http":
            return
        del receive
        path = scope["path"]
        if path == "/metrics":
            await respond(
                send, 200, metrics.exposition(), "text/plain; version=0.0.4; charset=utf-8"
            )
        elif path == "/health/live":
            await self._answer(send, self.dead())
        elif path == "/health/ready":
            await self._answer(send, await self.unready())
        else:
            await respond(send, 404, b'{"title":"not found"}', "application/problem+json")

    async def _answer(self, send: Send, problems: dict[str, str]) -> None:
        body: dict[str, Any] = {
            "service": self._service,
            "status": "failing" if problems else "ok",
            "problems": problems,
        }
        notes = {name: said for name, note in self._notes.items() if (said := note())}
        if notes:
            body["notes"] = notes
        await respond(send, 503 if problems else 200, json.dumps(body).encode())
