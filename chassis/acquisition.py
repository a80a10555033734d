"""Acquisition: how a task comes to hold its lease, and how it gives it up.

Ask Kafka, take the epoch, read what the database says, check that the log still reaches there, go on. After any doubt
(fenced, a database error, a lost reply to COMMIT) the task's memory is forgotten and this is done again. The order of
steps, and what breaks without each, is told in `docs/adr/0001-ledger.md`.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from chassis import logs, metrics
from chassis.assignment import Assignment
from chassis.batch import Task, TaskState
from chassis.bus import KAFKA_SECONDS, SafeConsumer
from chassis.clock import Clock, monotonic
from chassis.effects import Effects
from chassis.errors import Fenced
from chassis.failpoints import Failpoints
from chassis.gauges import forget
from chassis.lanes import EffectQueue
from chassis.ledger import (
    DATABASE_ERRORS,
    Lease,
    Ledger,
    OutboxRow,
    Overlay,
    Position,
    TimerMark,
    TimerRow,
    Walk,
    Write,
    database_facts,
    horizon_end,
)
from chassis.relay import Relay
from chassis.settings import Settings
from chassis.stage import Effect, EffectStanding, Stage
from chassis.timers import HORIZON, window_end

S = TypeVar("S")

OUTBOX_PAGE = 4_000
CLOCK_SKEW_MAX = 0.1
SUPERSEDED_SECONDS = 5.0
"""How long a process of an older release waits before it asks for a lease again."""

ACQUIRE_AGAIN_SECONDS = 1.0
"""After a lease was taken and could not be made use of."""

HALT_LOOK_SECONDS = 1.0

log = logs.get("acquisition")


@dataclass(frozen=True, slots=True)
class _Found(Generic[S]):
    """What the database holds of a task, read after its lease was taken."""

    outbox: list[OutboxRow]
    timers: list[TimerRow]
    timers_to: TimerMark
    walk: Walk
    effects: list[tuple[Effect, EffectStanding]]
    parked_keys: dict[str, list[str]]
    superseded: set[str]
    skew_seconds: float
    states: dict[str, S]


class Acquisition(Generic[S]):
    """Takes the leases of one stage's tasks for `owner`, and lets go of them."""

    def __init__(
        self,
        stage: Stage[S],
        settings: Settings,
        clock: Clock,
        assignment: Assignment[S],
        ledger: Ledger[S],
        effects: Effects[S],
        failpoints: Failpoints,
        wake: asyncio.Event,
        owner: str,
    ) -> None:
        self._stage = stage
        self._settings = settings
        self._clock = clock
        self._assignment = assignment
        self._ledger = ledger
        self._effects = effects
        self._failpoints = failpoints
        self._wake = wake
        self._owner = owner

    def begin(self, task: Task[S], after_seconds: float = 0.0) -> None:
        """Have a task acquired in the background."""
        self._assignment.tasks[task.number] = task
        self._assignment.spawn(
            self._acquire(task, after_seconds), f"acquire {self._stage.name}/{task.number}"
        )

    async def _acquire(self, task: Task[S], after_seconds: float) -> None:
        began = monotonic()
        await asyncio.sleep(after_seconds)
        backoff = 0.1
        while self._assignment.is_current(task):
            try:
                if await self._acquire_once(task):
                    metrics.ACQUIRE_SECONDS.labels(self._stage.name).observe(monotonic() - began)
                    return
            except (CommitFailedError, IllegalStateError):
                metrics.PROBE_REFUSED.labels(self._stage.name).inc()
                return  # Kafka says that it is not ours: the callbacks follow.
            except (*DATABASE_ERRORS, KafkaError, Fenced) as error:
                log.warning(
                    "acquire_failed",
                    stage=self._stage.name,
                    task=task.number,
                    error=type(error).__name__,
                    **database_facts(error),
                    wait_seconds=backoff,
                )
            except Exception as error:
                log.exception(
                    "acquire_failed",
                    stage=self._stage.name,
                    task=task.number,
                    error=type(error).__name__,
                    wait_seconds=backoff,
                )
            if task.epoch:
                # It holds a lease, and a relay that publishes: a task is never filled twice.
                self.lose(task, "acquire", ACQUIRE_AGAIN_SECONDS)
                return
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, 1.0)

    async def _acquire_once(self, task: Task[S]) -> bool:
        """Ask Kafka, take the lease, read, check, resume. False where it should be tried again."""
        consumer = self._assignment.consumer
        if consumer is None:
            return False
        if not await self._ask_kafka(task, consumer):
            return True
        self._failpoints.hit("before_epoch")
        lease = await self._ledger.acquire(task.number, self._owner, self._stage.topology)
        if lease is None:
            log.info("topology_superseded", stage=self._stage.name, task=task.number)
            await asyncio.sleep(SUPERSEDED_SECONDS)
            return False
        found = await self._read(task, lease.epoch)
        async with asyncio.timeout(KAFKA_SECONDS):
            begins = await consumer.beginning_offsets(list(task.partitions))
            ends = await consumer.end_offsets(list(task.partitions))
        if not self._assignment.is_current(task) or self._assignment.consumer is not consumer:
            return True
        # From here to `halt_at_acquire` or the end there is no await: nobody can come between.
        self._fill(task, lease, found)
        self._check_range(task, begins, ends)
        self._start_relay(task, found.outbox)
        metrics.EPOCH.labels(self._stage.name, str(task.number)).set(task.epoch)
        if task.position.halted is not None:
            await self._halt_at_acquire(task, task.position)
            return True
        for partition in task.partitions:
            consumer.seek(partition, task.position.offsets[self._assignment.plain(partition.topic)])
        task.state = TaskState.OWNED
        consumer.resume(*task.partitions)
        metrics.OWNED.labels(self._stage.name, str(task.number)).set(1)
        metrics.HALTED.labels(self._stage.name, str(task.number)).set(0)
        self._wake.set()
        log.info(
            "task_acquired",
            stage=self._stage.name,
            task=task.number,
            epoch=task.epoch,
            outbox=len(found.outbox),
            timers=len(found.timers),
        )
        return True

    async def _ask_kafka(self, task: Task[S], consumer: SafeConsumer) -> bool:
        """Commit what the lease knows: that carries member and generation, so a refusal means that we are out.

        False where meanwhile the task is not this one's any more. Raises what the refusal raises.
        """
        async with asyncio.timeout(KAFKA_SECONDS):
            begins = await consumer.beginning_offsets(list(task.partitions))
        known = await self._ledger.peek_offsets(task.number)
        offsets = {
            p: known.get(self._assignment.plain(p.topic), begins[p]) for p in task.partitions
        }
        if not self._assignment.is_current(task):
            return False
        async with asyncio.timeout(KAFKA_SECONDS):
            await consumer.commit(offsets)
        return self._assignment.is_current(task)

    async def _read(self, task: Task[S], epoch: int) -> _Found[S]:
        """Read by later statements than the one that took the lease: what the previous owner wrote last is seen."""
        number = task.number
        until = horizon_end(self._clock.now(), HORIZON.total_seconds())
        timers = await self._ledger.load_timers(number, None, until)
        return _Found(
            outbox=await self._ledger.load_outbox(number, 0, OUTBOX_PAGE),
            timers=timers,
            timers_to=window_end(timers, until),
            walk=await self._ledger.load_walk(self._stage, number, epoch),
            effects=await self._ledger.load_effects(number),
            parked_keys=await self._ledger.load_parked_keys(number),
            superseded=await self._ledger.load_superseded(number),
            skew_seconds=await self._ledger.measure_skew(self._clock),
            states=await self.load_all(number),
        )

    async def load_all(self, number: int) -> dict[str, S]:
        """Return everything that a task of a stage that `loads_all` has stored; nothing for other stages."""
        if not self._stage.loads_all:
            return {}
        async with self._ledger.reading() as connection:
            return await self._stage.load(connection, number, (), ())

    def _fill(self, task: Task[S], lease: Lease, found: _Found[S]) -> None:
        task.epoch, task.position = lease.epoch, lease.position
        task.states = found.states
        task.timers.load(found.timers, found.timers_to)
        task.walk = found.walk
        task.parked_keys = found.parked_keys
        task.superseded = found.superseded
        for effect, standing in found.effects:
            self._effects.resume(task, effect, standing)
        metrics.CLOCK_SKEW.labels(self._stage.name).set(found.skew_seconds)
        if abs(found.skew_seconds) > CLOCK_SKEW_MAX:
            log.warning("clock_skew", stage=self._stage.name, seconds=round(found.skew_seconds, 3))

    def _check_range(
        self,
        task: Task[S],
        begins: dict[TopicPartition, int],
        ends: dict[TopicPartition, int],
    ) -> None:
        """Halt where the log does not hold the next offset; a topic that is new to the lease begins at its beginning."""
        position = task.position
        task.log_start = {self._assignment.plain(p.topic): begins[p] for p in task.partitions}
        for partition in task.partitions:
            topic = self._assignment.plain(partition.topic)
            offset = position.offsets.setdefault(topic, begins[partition])
            if not begins[partition] <= offset <= ends[partition]:
                position.halted = position.halted or {
                    "topic": topic,
                    "source": None,
                    "last": offset,
                    "got": None,
                    "offset": begins[partition] if offset < begins[partition] else ends[partition],
                    "reason": "below_log_start" if offset < begins[partition] else "beyond_log_end",
                }

    def _start_relay(self, task: Task[S], outbox: list[OutboxRow]) -> None:
        task.relay = Relay(
            stage=self._stage.name,
            task=task.number,
            kafka=self._settings.kafka_access,
            topic_name=self._settings.topic,
            load_page=lambda after, limit, n=task.number: self._ledger.load_outbox(n, after, limit),  # type: ignore[misc]
            delete_acked=lambda oid, n=task.number, e=task.epoch: self._ledger.delete_acked(
                n, oid, e
            ),  # type: ignore[misc]
            failpoints=self._failpoints,
        )
        task.relay.start(outbox, is_page_full=bool(outbox))

    # -- standing still ----------------------------------------------------------------------------------------------

    async def _halt_at_acquire(self, task: Task[S], position: Position) -> None:
        """Stand still where the log does not fit the lease; the lease says so, or nobody could let the task go on."""
        assert position.halted is not None
        await self._ledger.commit([Write(task.number, task.epoch, Overlay(position.copy()))])
        if self._assignment.is_current(task):
            self.halt(task, position.halted)

    def halt(self, task: Task[S], halted: dict[str, Any]) -> None:
        """Stand still for a reason that the lease already tells, until somebody lets the task go on."""
        task.state = TaskState.HALTED
        metrics.HALTED.labels(self._stage.name, str(task.number)).set(1)
        metrics.OWNED.labels(self._stage.name, str(task.number)).set(0)
        log.error("task_halted", stage=self._stage.name, task=task.number, **halted)
        self._assignment.spawn(self._await_resume(task), f"halted {self._stage.name}/{task.number}")

    async def _await_resume(self, task: Task[S]) -> None:
        """Stand still until somebody has looked (`signalbox ledger resume`), then acquire anew.

        Meanwhile what it has told before goes on being published, the part that is still in the table too.
        """
        while self._assignment.is_current(task):
            await asyncio.sleep(HALT_LOOK_SECONDS)
            try:
                async with task.lock:
                    if task.relay is not None:
                        await task.relay.page()
                if await self._ledger.is_halted(task.number):
                    continue
            except DATABASE_ERRORS as error:
                log.info(
                    "halted_unseen",
                    stage=self._stage.name,
                    task=task.number,
                    error=type(error).__name__,
                )
                continue
            self.lose(task, "resumed", 0.0)
            return

    # -- letting go --------------------------------------------------------------------------------------------------

    def lose(self, task: Task[S], reason: str, delay: float) -> None:
        """Leave a task to itself and acquire again in `delay` seconds, while Kafka still gives it to us.

        Its memory is nobody's any more, but it is not emptied: a decision that waits for the database goes on with what
        it began with. Whatever comes of that is fenced, or was stored before the lease was taken anew.
        """
        metrics.LOST.labels(self._stage.name, reason).inc()
        log.warning(
            "task_lost", stage=self._stage.name, task=task.number, epoch=task.epoch, reason=reason
        )
        if self._assignment.is_current(task):
            self._assignment.pause(task)
            metrics.OWNED.labels(self._stage.name, str(task.number)).set(0)
            again: Task[S] = Task(
                task.number,
                task.generation,
                task.partitions,
                effects=EffectQueue(self._stage.lane),
            )
            self.begin(again, after_seconds=delay)
        task.state = TaskState.LOST
        relay, task.relay = task.relay, None
        if relay is not None:
            # The other tasks of this process need not wait until a producer has been put down: all it can do is repeat.
            self._assignment.spawn(relay.stop(), f"retire {self._stage.name}/{task.number}")

    def lose_to(self, error: BaseException, tasks: Iterable[Task[S]]) -> None:
        """Lose tasks whose commit or load ended in an error after which nothing is certain."""
        if isinstance(error, Fenced):
            reason, delay = "fenced", self.fenced_seconds
        else:
            reason, delay = "database", 0.1
            log.warning(
                "commit_failed",
                stage=self._stage.name,
                error=type(error).__name__,
                **database_facts(error),
            )
        for task in tasks:
            self.lose(task, reason, delay)

    @property
    def fenced_seconds(self) -> float:
        """A heartbeat and more: who was expelled in its sleep has to hear of it before it takes the epoch back."""
        return self._settings.session_timeout_seconds / 6

    async def close_all(self, deadline: float) -> None:
        """Drop all tasks; wait for what is in flight, at most until `deadline` (of `chassis.clock.monotonic`).

        The epoch makes the rest harmless.
        """
        tasks = self._assignment.drop()
        for task in tasks:
            forget(self._stage.name, task.number, self._assignment.topics)
        await asyncio.gather(*(self._close(task, deadline) for task in tasks))

    async def _close(self, task: Task[S], deadline: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline - monotonic()):
                async with task.lock:
                    pass  # What was in flight has ended.
        relay, task.relay = task.relay, None
        if relay is not None:
            ending = self._assignment.spawn(
                relay.stop(max(0.0, deadline - monotonic())),
                f"retire {self._stage.name}/{task.number}",
            )
            # A producer that will not be put down in time is put down behind our back: all it can do is repeat.
            await asyncio.wait({ending}, timeout=max(0.0, deadline - monotonic()))
