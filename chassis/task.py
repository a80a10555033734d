"""The loop: batch → decide → one transaction → relay; and who may run it: assignment, lease, revocation, drain.

A `Worker` runs one stage in one process. For each partition number it owns it has a `Task`, which belongs to one epoch
of one lease and dies with it: after any doubt (fenced, a database error, a lost reply to COMMIT) the task's memory is
forgotten and a new one made from what the database says. The order of steps, and what breaks without each, is told in
`docs/adr/0001-ledger.md`.
"""

import asyncio
import contextlib
import os
import socket
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

import asyncpg
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from chassis import logs, metrics
from chassis.admission import Admission
from chassis.batch import Batch, Reread, Task, TaskState
from chassis.bus import Bus, Record, SafeConsumer, group_id
from chassis.clock import Clock, monotonic
from chassis.deadletters import ParkedRecord
from chassis.decision import Deciding, Suspect
from chassis.emission import Emission
from chassis.errors import Conflict, Fenced
from chassis.failpoints import FailpointError, Failpoints
from chassis.ledger import (
    Ledger,
    Overlay,
    Position,
    TimerMissing,
    Write,
    database_facts,
    horizon_end,
)
from chassis.relay import QUEUE_ROWS_MAX, QUEUE_ROWS_RESUME, Relay
from chassis.restore import forgotten_ids
from chassis.settings import Settings
from chassis.stage import Effect, EffectDone, EffectResult, Input, Stage, Tick
from chassis.timers import DUE_MAX, HORIZON
from chassis.tracing import Tracing

S = TypeVar("S")

PUMP_SECONDS = 0.02
"""How often timers, effects and replays are looked at."""

REPLAY_SECONDS = 1.0
LAG_COMMIT_SECONDS = 1.5
KAFKA_SECONDS = 3.0
REVOKE_COMMIT_SECONDS = 2.0
REVOKE_RELAY_SECONDS = 1.0
STOP_EFFECTS_SECONDS = 5.0
EFFECTS_AT_ONCE = 8
LOADS_AT_ONCE = 3
"""Connections that one batch reads by, at most: half of a process' pool by default."""

OUTBOX_PAGE = 4_000
CLOCK_SKEW_MAX = 0.1

DATABASE_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # What the driver says of a connection that the server ended in mid-transaction.
    OSError,
    TimeoutError,
    Conflict,
    TimerMissing,
    FailpointError,
)
"""After any of these a commit's outcome may be unknown: forget, and read again. Never retry the batch."""

REFUSALS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
)
"""Of those, what the database would say again and again of the same batch: one of its inputs is at fault."""

PIECES = 16
"""A refused batch is taken again in this many pieces, a refused piece record by record."""

log = logs.get("task")


class Worker(Generic[S]):
    """Runs one stage in this process. All work of all its tasks goes through `_settle`."""

    def __init__(
        self,
        stage: Stage[S],
        settings: Settings,
        pool: asyncpg.Pool,
        clock: Clock,
        *,
        failpoints: Failpoints | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.stage = stage
        self._settings = settings
        self._clock = clock
        self._failpoints = failpoints or Failpoints()
        self._ledger: Ledger[S] = Ledger(pool, stage.name, stage.store, self._failpoints)
        self._topics = [topic.name for topic in stage.topics]
        self._emission: Emission[S] = Emission(stage, settings, tracing or Tracing(stage.name))
        self._admission: Admission[S] = Admission(
            stage, settings, clock, self._emission, self._seek
        )
        self._deciding: Deciding[S] = Deciding(stage, self._admission, self._emission)
        self._owner = f"{socket.gethostname()}:{os.getpid()}"
        self._generation = 0
        self._background: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._careful: dict[int, list[tuple[int, int]]] = {}
        """Tasks whose batch was refused: how many inputs are taken in smaller pieces, and how many make a piece; where a
        piece was refused too, its own entry behind."""
        self._is_draining = False
        self._performing: dict[str, asyncio.Task[None]] = {}
        self._performed: dict[str, EffectResult] = {}
        self._next_replay = 0.0
        self._pump_task: asyncio.Task[None] | None = None
        self._lag_task: asyncio.Task[None] | None = None
        self.tasks: dict[int, Task[S]] = {}
        self.last_turn = monotonic()
        """When the pump last came round: the loop turns as long as this moves."""
        self.incomplete: dict[int, list[str]] = {}
        """Partition numbers assigned without all their topics: they stay paused."""
        self.bus = Bus(
            bootstrap=settings.kafka,
            group=group_id(settings.topic_prefix, stage.name, self._topics),
            topics=[settings.topic(name) for name in self._topics],
            reader=self,
            session_seconds=settings.session_timeout_seconds,
            max_records=settings.batch_records,
            client_id=f"{stage.name}@{self._owner}",
        )

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the group and begin. Raises what the broker's absence raises; the caller backs off and tries again."""
        if self._pump_task is None:
            self._pump_task = asyncio.create_task(self._pump(), name=f"pump {self.stage.name}")
            self._lag_task = asyncio.create_task(
                self._commit_for_lag(), name=f"lag {self.stage.name}"
            )
        await self.bus.start()

    async def rejoin(self) -> None:
        """Leave the group with a client that does not work any more, and join with a new one.

        Raises what `start` raises; calling it again is safe.
        """
        await self.on_revoked(set())
        await self.bus.stop()
        await self._close_all(relay_seconds=0.0)  # What the old client was given meanwhile.
        await self.bus.start()

    async def stop(self) -> None:
        """Stop intake, finish what is in hand, flush, leave the group."""
        self._is_draining = True
        consumer = self.bus.consumer
        if consumer is not None and consumer.assignment():
            with contextlib.suppress(IllegalStateError):
                consumer.pause(*consumer.assignment())
        await self._drain_effects(STOP_EFFECTS_SECONDS)
        self._is_stopping = True
        await self._close_all(relay_seconds=3.0)
        for runner in (self._pump_task, self._lag_task):
            if runner is not None:
                runner.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await runner
        for background in [*self._background, *self._performing.values()]:
            background.cancel()
        await self.bus.stop()

    @property
    def consumer(self) -> SafeConsumer | None:
        """The live consumer, once there is one."""
        return self.bus.consumer

    # -- assignment --------------------------------------------------------------------------------------------------

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each partition of the tasks that are owned."""
        return {
            TopicPartition(self._settings.topic(topic), task.number): offset
            for task in self.tasks.values()
            if task.state is TaskState.OWNED
            for topic, offset in task.position.offsets.items()
        }

    def on_assigned(self, partitions: set[TopicPartition]) -> None:
        """Make a task of each number that has all its topics, and acquire it in the background."""
        self._generation += 1
        by_number: dict[int, list[TopicPartition]] = defaultdict(list)
        for partition in partitions:
            by_number[partition.partition].append(partition)
        self.incomplete = {}
        for number, owned in sorted(by_number.items()):
            if len(owned) < len(self._topics):
                self.incomplete[number] = sorted(p.topic for p in owned)
                log.error(
                    "task_incomplete",
                    stage=self.stage.name,
                    task=number,
                    topics=self.incomplete[number],
                )
                continue
            self._begin(Task(number, self._generation, tuple(sorted(owned))))
        self._failpoints.hit("in_assign")

    async def on_revoked(self, partitions: set[TopicPartition]) -> None:
        """Drop all tasks; wait a little for what is in flight. The epoch makes the rest harmless."""
        del partitions
        self._is_draining = True
        await self._drain_effects(REVOKE_COMMIT_SECONDS)
        await self._close_all(relay_seconds=REVOKE_RELAY_SECONDS)
        self._is_draining = False

    async def _drain_effects(self, seconds: float) -> None:
        """Let effects under way end and be recorded: another owner could only call them unknown."""
        deadline = monotonic() + seconds
        while monotonic() < deadline and any(  # noqa: ASYNC110 - bounded, and rare
            task.effects_running or task.results or task.lock.locked()
            for task in self.tasks.values()
            if task.state is TaskState.OWNED
        ):
            await asyncio.sleep(0.01)

    async def _close_all(self, relay_seconds: float) -> None:
        self._generation += 1
        tasks, self.tasks = list(self.tasks.values()), {}
        for task in tasks:
            task.state = TaskState.CLOSED
        await asyncio.gather(*(self._close(task, relay_seconds) for task in tasks))

    async def _close(self, task: Task[S], relay_seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REVOKE_COMMIT_SECONDS):
                async with task.lock:
                    pass  # What was in flight has ended.
        await self._retire(task, relay_seconds)

    async def _retire(self, task: Task[S], relay_seconds: float = 0.0) -> None:
        if task.relay is not None:
            relay, task.relay = task.relay, None
            await relay.stop(relay_seconds)
        label = str(task.number)
        self._forget_gauges(label)
        task.states.clear()

    def _forget_gauges(self, label: str) -> None:
        """What a task was is no news once somebody else may have it."""
        for gauge in (
            metrics.OWNED,
            metrics.HALTED,
            metrics.OUTBOX_ROWS,
            metrics.OUTBOX_AGE,
            metrics.EFFECTS_OPEN,
            metrics.TIMERS_LOADED,
        ):
            gauge.labels(self.stage.name, label).set(0)
        for topic in self._topics:
            metrics.LAG.labels(self.stage.name, label, topic).set(0)

    def _begin(self, task: Task[S], after_seconds: float = 0.0) -> None:
        self.tasks[task.number] = task
        self._spawn(self._acquire(task, after_seconds), f"acquire {self.stage.name}/{task.number}")

    def _spawn(self, work: Any, name: str) -> None:
        running = asyncio.create_task(self._watched(work, name), name=name)
        self._background.add(running)
        running.add_done_callback(self._background.discard)

    async def _watched(self, work: Any, name: str) -> None:
        try:
            await work
        except Exception as error:
            log.exception("background_failed", part_name=name, error=type(error).__name__)

    def _is_current(self, task: Task[S]) -> bool:
        return (
            task.generation == self._generation
            and self.tasks.get(task.number) is task
            and not self._is_stopping
        )

    async def _acquire(self, task: Task[S], after_seconds: float) -> None:
        began = monotonic()
        await asyncio.sleep(after_seconds)
        backoff = 0.1
        while self._is_current(task):
            try:
                if await self._acquire_once(task):
                    metrics.ACQUIRE_SECONDS.labels(self.stage.name).observe(monotonic() - began)
                    return
            except (CommitFailedError, IllegalStateError):
                metrics.PROBE_REFUSED.labels(self.stage.name).inc()
                return  # Kafka says that it is not ours: the callbacks follow.
            except (*DATABASE_ERRORS, KafkaError) as error:
                log.warning(
                    "acquire_failed",
                    stage=self.stage.name,
                    task=task.number,
                    error=type(error).__name__,
                    **database_facts(error),
                    wait_seconds=backoff,
                )
            except Exception as error:
                log.exception(
                    "acquire_failed",
                    stage=self.stage.name,
                    task=task.number,
                    error=type(error).__name__,
                    wait_seconds=backoff,
                )
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, 1.0)

    async def _acquire_once(self, task: Task[S]) -> bool:
        """Ask Kafka, take the lease, read, check, resume. False where it should be tried again."""
        consumer = self.consumer
        if consumer is None:
            return False
        async with asyncio.timeout(KAFKA_SECONDS):
            begins = await consumer.beginning_offsets(list(task.partitions))
        known = await self._ledger.peek_offsets(task.number)
        offsets = {p: known.get(self._plain(p.topic), begins[p]) for p in task.partitions}
        if not self._is_current(task):
            return True
        async with asyncio.timeout(KAFKA_SECONDS):
            # Carries member and generation: a refusal means that we are out.
            await consumer.commit(offsets)
        if not self._is_current(task):
            return True
        self._failpoints.hit("before_epoch")
        lease = await self._ledger.acquire(task.number, self._owner, self.stage.topology)
        if lease is None:
            log.info("topology_superseded", stage=self.stage.name, task=task.number)
            await asyncio.sleep(5)
            return False
        now = self._clock.now()
        until = horizon_end(now, HORIZON.total_seconds())
        outbox = await self._ledger.load_outbox(task.number, 0, OUTBOX_PAGE)
        timers = await self._ledger.load_timers(task.number, None, until)
        effects = await self._ledger.load_effects(task.number)
        parked_keys = await self._ledger.load_parked_keys(task.number)
        superseded = await self._ledger.load_superseded(task.number)
        skew = await self._ledger.measure_skew(self._clock)
        states: dict[str, S] = {}
        if self.stage.loads_all:
            async with self._ledger.reading() as connection:
                states = await self.stage.load(connection, task.number, (), ())
        async with asyncio.timeout(KAFKA_SECONDS):
            begins = await consumer.beginning_offsets(list(task.partitions))
            ends = await consumer.end_offsets(list(task.partitions))
        if not self._is_current(task) or self.consumer is not consumer:
            return True
        # From here to the end there is no await: nobody can come between.
        position = lease.position
        task.epoch, task.position = lease.epoch, position
        task.log_start = {self._plain(p.topic): begins[p] for p in task.partitions}
        for partition in task.partitions:
            topic = self._plain(partition.topic)
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
        task.states = states
        task.timers.load(timers, until)
        task.parked_keys = parked_keys
        task.superseded = superseded
        for effect, was_started in effects:
            self._resume_effect(task, effect, was_started)
        self._note_skew(skew)
        task.relay = Relay(
            stage=self.stage.name,
            task=task.number,
            bootstrap=self._settings.kafka,
            topic_name=self._settings.topic,
            load_page=lambda after, limit, n=task.number: self._ledger.load_outbox(n, after, limit),  # type: ignore[misc]
            delete_acked=lambda oid, n=task.number, e=task.epoch: self._ledger.delete_acked(
                n, oid, e
            ),  # type: ignore[misc]
            failpoints=self._failpoints,
        )
        task.relay.start(outbox, is_page_full=bool(outbox))
        metrics.EPOCH.labels(self.stage.name, str(task.number)).set(task.epoch)
        if position.halted is not None:
            await self._halt_at_acquire(task, position)
            return True
        for partition in task.partitions:
            consumer.seek(partition, position.offsets[self._plain(partition.topic)])
        task.state = TaskState.OWNED
        consumer.resume(*task.partitions)
        metrics.OWNED.labels(self.stage.name, str(task.number)).set(1)
        metrics.HALTED.labels(self.stage.name, str(task.number)).set(0)
        self._wake.set()
        log.info(
            "task_acquired",
            stage=self.stage.name,
            task=task.number,
            epoch=task.epoch,
            outbox=len(outbox),
            timers=len(timers),
        )
        return True

    def _resume_effect(self, task: Task[S], effect: Effect, was_started: bool) -> None:
        """Take up an effect that the table holds: new, under way in this process, settled here, or nobody knows."""
        name = _effect_name(effect)
        if name in self._performed:
            task.results.append(EffectDone(effect, self._performed[name]))
        elif name in self._performing:
            task.effects_running[effect.key] = effect.id
        elif was_started and not self.stage.is_repeatable(effect):
            task.results.append(EffectDone(effect, EffectResult("unknown", "interrupted")))
        else:
            task.effects.append(effect)

    def _note_skew(self, seconds: float) -> None:
        metrics.CLOCK_SKEW.labels(self.stage.name).set(seconds)
        if abs(seconds) > CLOCK_SKEW_MAX:
            log.warning("clock_skew", stage=self.stage.name, seconds=round(seconds, 3))

    def _seek(self, number: int, topic: str, offset: int) -> None:
        consumer = self.consumer
        partition = TopicPartition(self._settings.topic(topic), number)
        if consumer is not None and partition in consumer.assignment():
            consumer.seek(partition, offset)

    def _plain(self, topic: str) -> str:
        return topic.removeprefix(self._settings.topic_prefix)

    async def _halt_at_acquire(self, task: Task[S], position: Position) -> None:
        """Stand still where the log does not fit the lease; the lease says so, or nobody could let the task go on."""
        assert position.halted is not None
        await self._ledger.commit([Write(task.number, task.epoch, Overlay(position.copy()))])
        if self._is_current(task):
            self._halt(task, position.halted)

    def _halt(self, task: Task[S], halted: dict[str, Any]) -> None:
        task.state = TaskState.HALTED
        metrics.HALTED.labels(self.stage.name, str(task.number)).set(1)
        metrics.OWNED.labels(self.stage.name, str(task.number)).set(0)
        log.error("task_halted", stage=self.stage.name, task=task.number, **halted)
        self._spawn(self._await_resume(task), f"halted {self.stage.name}/{task.number}")

    async def _await_resume(self, task: Task[S]) -> None:
        """Stand still until somebody has looked (`signalbox ledger resume`), then acquire anew."""
        while self._is_current(task):
            await asyncio.sleep(1.0)
            try:
                if await self._ledger.is_halted(task.number):
                    continue
            except DATABASE_ERRORS:
                continue
            await self._lose(task, "resumed", 0.0)
            return

    async def _lose(self, task: Task[S], reason: str, delay: float) -> None:
        """Forget the task's memory and acquire again, while Kafka still gives it to us."""
        metrics.LOST.labels(self.stage.name, reason).inc()
        log.warning(
            "task_lost", stage=self.stage.name, task=task.number, epoch=task.epoch, reason=reason
        )
        was_current = self._is_current(task)
        task.state = TaskState.LOST
        consumer = self.consumer
        if was_current and consumer is not None:
            mine = [p for p in task.partitions if p in consumer.assignment()]
            if mine:
                consumer.pause(*mine)
            self._begin(Task(task.number, task.generation, task.partitions), after_seconds=delay)
        relay, task.relay = task.relay, None
        metrics.OWNED.labels(self.stage.name, str(task.number)).set(0)
        task.states.clear()
        if relay is not None:
            # The other tasks of this process need not wait until a producer has been put down: all it can do is repeat.
            self._spawn(relay.stop(), f"retire {self.stage.name}/{task.number}")

    # -- records -----------------------------------------------------------------------------------------------------

    async def on_records(self, records: Sequence[Record]) -> None:
        """Handle one poll: all its tasks in one transaction."""
        by_number: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            by_number[record.partition].append(record)
        try:
            async with self._locked(by_number) as tasks:
                batches = []
                for task in tasks:
                    if task.number in self._careful:
                        await self._take_in_pieces(task, by_number[task.number])
                        continue
                    batch = Batch(task, Overlay(task.position.copy()))
                    self._admission.admit(batch, by_number[task.number])
                    batches.append(batch)
                metrics.BATCH_RECORDS.labels(self.stage.name).observe(len(records))
                await self._settle(batches)
        except Exception as error:
            log.exception("batch_failed", stage=self.stage.name, error=type(error).__name__)
            for number in by_number:
                task = self.tasks.get(number)
                if task is not None and task.state is TaskState.OWNED:
                    await self._lose(task, "bug", 1.0)

    async def _take_in_pieces(self, task: Task[S], records: Sequence[Record]) -> None:
        """Give small pieces a transaction each, in the end single records, until what the database refuses stands alone."""
        taken = 0
        while taken < len(records) and task.state is TaskState.OWNED:
            size = self._piece(task, len(records))
            batch = Batch(task, Overlay(task.position.copy()))
            self._admission.admit(batch, records[taken : taken + size])
            taken += size
            await self._settle([batch])
            if batch.halt is not None or batch.reread is not None:
                return

    @contextlib.asynccontextmanager
    async def _locked(self, numbers: Iterable[int]) -> Any:
        """Hold the locks of those of the tasks that are owned now, in the order of their numbers."""
        async with contextlib.AsyncExitStack() as stack:
            held = []
            for number in sorted(numbers):
                task = self.tasks.get(number)
                if task is None or task.state is not TaskState.OWNED:
                    continue
                await stack.enter_async_context(task.lock)
                held.append(task)
            yield [
                task for task in held if task.state is TaskState.OWNED and self._is_current(task)
            ]

    # -- deciding and committing -------------------------------------------------------------------------------------

    async def _settle(self, batches: list[Batch[S]]) -> None:
        """Load, decide, commit, take over. The one place where anything changes."""
        live = [batch for batch in batches if self._has_work(batch)]
        if not live:
            return
        began = monotonic()
        now = self._clock.now()
        try:
            loaded = await self._load(live)
        except DATABASE_ERRORS as error:
            if isinstance(error, REFUSALS):
                self._note_refusal(live)
            await self._lose_all(live, error)
            return
        except Exception:
            # A store that cannot read for one input must not hold up the others for ever.
            self._note_refusal(live)
            raise
        decided = await self._decide(live, loaded, now)
        if not decided:
            return
        for batch in decided:
            batch.overlay.acked_oid = (
                batch.task.relay.acked_oid if batch.task.relay is not None else 0
            )
        try:
            ours = await self._ledger.commit(
                [Write(batch.task.number, batch.task.epoch, batch.overlay) for batch in decided]
            )
        except asyncio.CancelledError:
            for batch in decided:
                batch.task.state = TaskState.LOST
            raise
        except (*DATABASE_ERRORS, Fenced) as error:
            if isinstance(error, REFUSALS):
                self._note_refusal(decided)
            await self._lose_all(decided, error)
            return
        except Exception:
            self._note_refusal(decided)
            raise
        metrics.BATCH_SECONDS.labels(self.stage.name).observe(monotonic() - began)
        for batch in decided:
            if batch.task.number in ours:
                self._take_over(batch)
            else:
                await self._lose(batch.task, "fenced", self._settings.session_timeout_seconds / 6)

    async def _decide(
        self, batches: Sequence[Batch[S]], loaded: dict[int, dict[str, S]], now: datetime
    ) -> list[Batch[S]]:
        """Decide batch by batch; those with an input that fails are lost, the others returned."""
        decided = []
        for batch in batches:
            try:
                self._deciding.decide(batch, loaded[batch.task.number], now)
            except Suspect as suspect:
                await self._lose(batch.task, "handler_failed", 0.05)
                log.error(  # noqa: TRY400 - the cause carries the traceback
                    "handler_failed",
                    stage=self.stage.name,
                    task=batch.task.number,
                    cause=suspect.cause,
                    attempts=suspect.attempts,
                    error=suspect.error,
                    exc_info=suspect.__cause__,
                )
            else:
                decided.append(batch)
        return decided

    def _note_refusal(self, batches: Sequence[Batch[S]]) -> None:
        """A batch cannot be stored for what is in it: look for the input at fault, and count it once it stands alone."""
        if len(batches) == 1 and len(batches[0].inputs) == 1:
            self._deciding.refused(batches[0])
        for batch in batches:
            count = max(len(batch.inputs), 1)
            self._careful.setdefault(batch.task.number, []).append((count, max(count // PIECES, 1)))

    def _note_settled(self, batch: Batch[S]) -> None:
        self._deciding.settled(batch)
        if batch.task.number in self._careful:
            done = len(batch.inputs)
            left = [
                (n - done, size) for n, size in self._careful.pop(batch.task.number) if n > done
            ]
            if left:
                self._careful[batch.task.number] = left

    def _piece(self, task: Task[S], most: int) -> int:
        """Return how many inputs of a task may share a transaction."""
        careful = self._careful.get(task.number)
        return careful[-1][1] if careful else most

    @staticmethod
    def _has_work(batch: Batch[S]) -> bool:
        overlay = batch.overlay
        return bool(
            batch.inputs
            or overlay.parked
            or batch.halt
            or batch.reread
            or batch.hole
            or overlay.effects_started
            or overlay.position != batch.task.position
        )

    async def _lose_all(self, batches: Sequence[Batch[S]], error: BaseException) -> None:
        if isinstance(error, Fenced):
            reason, delay = "fenced", self._settings.session_timeout_seconds / 6
        elif isinstance(error, Conflict):
            reason, delay = "conflict", 0.02
        else:
            reason, delay = "database", 0.1
            log.warning(
                "commit_failed",
                stage=self.stage.name,
                error=type(error).__name__,
                **database_facts(error),
            )
        for batch in batches:
            await self._lose(batch.task, reason, delay)

    async def _load(self, batches: Sequence[Batch[S]]) -> dict[int, dict[str, S]]:
        loaded: dict[int, dict[str, S]] = {}
        wanted: list[tuple[Batch[S], list[Input], list[str]]] = []
        for batch in batches:
            inputs = self._deciding.worth_loading(batch)
            keys = dict.fromkeys(item.key for item in inputs)
            if self.stage.loads_all:
                missing: list[str] = []
            elif self.stage.keeps_state:
                missing = [key for key in keys if key not in batch.task.states]
            else:
                missing = list(keys)
            loaded[batch.task.number] = {}
            if missing:
                wanted.append((batch, inputs, missing))

        async def load(lane: Sequence[tuple[Batch[S], list[Input], list[str]]]) -> None:
            async with self._ledger.reading() as connection:
                for batch, inputs, missing in lane:
                    loaded[batch.task.number] = await self.stage.load(
                        connection, batch.task.number, inputs, missing
                    )

        # Side by side: a load may be a dozen ways to the server and back, and one task need not wait for another's. All
        # of them end before a failure is passed on, since the task's memory is then forgotten.
        lanes = [wanted[n::LOADS_AT_ONCE] for n in range(min(LOADS_AT_ONCE, len(wanted)))]
        for failed in await asyncio.gather(*map(load, lanes), return_exceptions=True):
            if isinstance(failed, BaseException):
                raise failed
        return loaded

    def _take_over(self, batch: Batch[S]) -> None:
        """The commit stands: memory follows."""
        task, overlay = batch.task, batch.overlay
        self._note_settled(batch)
        self._count(task.position, overlay.position)
        task.position = overlay.position
        self._remember(task, overlay)
        now = self._clock.now()
        for fired in overlay.fired.values():
            metrics.TIMER_LATENESS.labels(self.stage.name).observe(
                (now - fired.due_at).total_seconds()
            )
        task.timers.apply((reference, None) for reference in overlay.fired)
        task.timers.apply(overlay.timers.items())
        for parked in overlay.parked:
            if parked.state_key is not None:
                known = task.parked_keys.setdefault(parked.state_key, [])
                if parked.id not in known:
                    known.append(parked.id)
        resolved = {parked_id for parked_id, _ in overlay.resolved}
        if resolved:
            task.parked_keys = {
                key: left
                for key, known in task.parked_keys.items()
                if (left := [one for one in known if one not in resolved])
            }
        task.effects.extend(effect for _, effect in overlay.effects.values())
        if overlay.effects:
            self._wake.set()
        for item, _ in batch.inputs:
            if isinstance(item, EffectDone):
                self._performed.pop(_effect_name(item.effect), None)
        if task.relay is not None:
            task.relay.append(overlay.outbox)
            task.relay.ack_noted(overlay.acked_oid)
            self._throttle(task)
        if batch.hole is not None:
            self._spawn(
                self._look_at_hole(task, *batch.hole), f"hole {self.stage.name}/{task.number}"
            )
        if batch.reread is not None:
            self._spawn(
                self._read_back(task, batch.reread), f"restore {self.stage.name}/{task.number}"
            )
        if batch.halt is not None:
            self._spawn(
                self._record_halt(task, batch.halt), f"halt {self.stage.name}/{task.number}"
            )

    def _count(self, before: Position, after: Position) -> None:
        """Count what became of the records, once it is true."""
        for outcome in ("applied", "duplicate", "ignored", "parked"):
            change = getattr(after, f"n_{outcome}") - getattr(before, f"n_{outcome}")
            if change > 0:
                metrics.RECORDS.labels(self.stage.name, outcome).inc(change)

    def _hold(self, task: Task[S]) -> None:
        """Pause a task's partitions until it is acquired anew."""
        task.is_held = True
        consumer = self.consumer
        if consumer is not None and self._is_current(task):
            consumer.pause(*(p for p in task.partitions if p in consumer.assignment()))

    async def _look_at_hole(self, task: Task[S], topic: str, expected: int, got: int) -> None:
        """Offsets of an open topic are not there: markers of somebody's transactions, or records deleted unread?"""
        consumer = self.consumer
        if consumer is None or not self._is_current(task):
            return
        partition = TopicPartition(self._settings.topic(topic), task.number)
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                begin = (await consumer.beginning_offsets([partition]))[partition]
        except (KafkaError, TimeoutError) as error:
            log.warning("hole_not_seen", error=type(error).__name__)
            self._seek(task.number, topic, expected)
            return
        if begin <= expected:
            task.known_holes[topic] = expected
            self._seek(task.number, topic, expected)
            return
        await self._record_halt(
            task,
            {
                "topic": topic,
                "source": None,
                "last": expected,
                "got": got,
                "offset": begin,
                "reason": "below_log_start",
            },
        )

    def on_out_of_range(self, partitions: Iterable[TopicPartition]) -> None:
        """The log does not reach to where we are: acquire anew, which looks at its range and halts."""
        for number in {partition.partition for partition in partitions}:
            task = self.tasks.get(number)
            if task is not None and task.state is TaskState.OWNED:
                self._spawn(
                    self._lose(task, "out_of_range", 0.5), f"range {self.stage.name}/{number}"
                )

    async def _read_back(self, task: Task[S], reread: Reread) -> None:
        """A source was restored: learn which ids it has forgotten, then go on."""
        self._hold(task)
        log.warning(
            "source_restored", stage=self.stage.name, task=task.number, stream=reread.stream
        )
        partition = TopicPartition(self._settings.topic(reread.topic), task.number)
        try:
            found = await forgotten_ids(
                self._settings.kafka,
                partition,
                task.position.offsets[reread.topic],
                reread.forgotten,
            )
        except Exception as error:
            log.exception("read_back_failed", error=type(error).__name__)
            await self._lose(task, "restore", 5.0)
            return
        async with task.lock:
            if task.state is not TaskState.OWNED or not self._is_current(task):
                return
            overlay: Overlay[S] = Overlay(task.position.copy(), superseded=sorted(found))
            overlay.position.applied[reread.stream] = 0
            try:
                await self._ledger.commit([Write(task.number, task.epoch, overlay)])
            except (*DATABASE_ERRORS, Fenced) as error:
                log.warning("read_back_not_recorded", error=type(error).__name__)
            # Either way memory is read anew, and the record that began this is met again.
            await self._lose(task, "restore", 0.0)

    def _remember(self, task: Task[S], overlay: Overlay[S]) -> None:
        """Keep the states just written, the youngest last; drop the oldest above the limit."""
        if not self.stage.keeps_state:
            return
        for key, state in overlay.states.items():
            task.states.pop(key, None)
            if state is not None:
                task.states[key] = state
        if not self.stage.loads_all:
            while len(task.states) > self._settings.cached_keys:
                task.states.pop(next(iter(task.states)))

    async def _record_halt(self, task: Task[S], halt: dict[str, Any]) -> None:
        self._hold(task)
        async with task.lock:
            if task.state is not TaskState.OWNED or not self._is_current(task):
                return
            overlay: Overlay[S] = Overlay(task.position.copy())
            overlay.position.halted = halt
            try:
                ours = await self._ledger.commit([Write(task.number, task.epoch, overlay)])
            except (*DATABASE_ERRORS, Fenced) as error:
                log.warning("halt_not_recorded", error=type(error).__name__)
                await self._lose(task, "database", 0.1)
                return
            if task.number not in ours:
                await self._lose(task, "fenced", 1.0)
                return
            task.position = overlay.position
            self._halt(task, halt)

    def _throttle(self, task: Task[S]) -> None:
        """Pause a task's input while its outbox is long; resume when it is short again."""
        consumer, relay = self.consumer, task.relay
        if consumer is None or relay is None or task.state is not TaskState.OWNED or task.is_held:
            return
        mine = [p for p in task.partitions if p in consumer.assignment()]
        if not task.is_throttled and (
            relay.depth > QUEUE_ROWS_MAX or not (relay.is_drained or relay.depth)
        ):
            task.is_throttled = True
            consumer.pause(*mine)
            log.warning(
                "task_throttled", stage=self.stage.name, task=task.number, outbox=relay.depth
            )
        elif task.is_throttled and relay.depth < QUEUE_ROWS_RESUME:
            task.is_throttled = False
            consumer.resume(*mine)

    # -- the pump: timers, effects, replays --------------------------------------------------------------------------

    async def _pump(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PUMP_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            self.last_turn = monotonic()
            try:
                await self._turn()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.exception("pump_failed", stage=self.stage.name, error=type(error).__name__)
                await asyncio.sleep(0.5)

    async def _turn(self) -> None:
        now = self._clock.now()
        replays = await self._replays()
        busy = [
            task.number
            for task in self.tasks.values()
            if task.state is TaskState.OWNED
            and (
                task.timers.is_due(now)
                or task.results
                or task.number in replays
                or task.timers.needs_load(now)
                or (
                    task.effects
                    and not self._is_draining
                    and len(task.effects_running) < EFFECTS_AT_ONCE
                )
                or (task.relay is not None and not task.relay.is_drained and not task.relay.depth)
                or task.is_throttled
            )
        ]
        if not busy:
            return
        async with self._locked(busy) as tasks:
            try:
                batches = [
                    await self._collect(task, replays.get(task.number, []), now) for task in tasks
                ]
                alone = {task.number for task in tasks} & self._careful.keys()
                for one in batches:
                    if one is not None and one.task.number in alone:
                        await self._settle([one])
                await self._settle([b for b in batches if b and b.task.number not in alone])
                for batch in batches:
                    if batch is not None and batch.task.state is TaskState.OWNED:
                        self._start_effects(batch.task, batch.started)
            except Exception:
                # What was taken in hand is in no queue any more: memory is read anew.
                for task in tasks:
                    if task.state is TaskState.OWNED:
                        await self._lose(task, "bug", 1.0)
                raise

    async def _collect(
        self, task: Task[S], replays: list[ParkedRecord], now: datetime
    ) -> "Batch[S] | None":
        """Gather what a task has to do besides its records."""
        batch = Batch(task, Overlay(task.position.copy()))
        try:
            if task.timers.needs_load(now):
                until = horizon_end(now, HORIZON.total_seconds())
                task.timers.load(
                    await self._ledger.load_timers(task.number, task.timers.loaded_until, until),
                    until,
                )
            if task.relay is not None:
                await task.relay.page()
        except DATABASE_ERRORS as error:
            await self._lose_all([batch], error)
            return None
        self._throttle(task)
        most = self._piece(task, DUE_MAX)
        for row in task.timers.due(now, most):
            batch.inputs.append((Tick(row.key, row.name, row.due_at), row))
        while task.results and len(batch.inputs) < most:
            batch.inputs.append((task.results.popleft(), None))
        for parked in replays[: most - len(batch.inputs)]:
            self._admission.readmit(batch, parked)
        free = 0 if self._is_draining else EFFECTS_AT_ONCE - len(task.effects_running)
        busy_keys = set(task.effects_running)
        waiting: deque[Effect] = deque()
        while task.effects:
            effect = task.effects.popleft()
            if free > 0 and effect.key not in busy_keys:
                batch.started.append(effect)
                batch.overlay.effects_started.append(effect.id)
                free -= 1
            else:
                waiting.append(effect)
            busy_keys.add(effect.key)  # Effects of one key keep their order.
        task.effects = waiting
        return batch

    def _start_effects(self, task: Task[S], effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._failpoints.hit("effect_started")
            task.effects_running[effect.key] = effect.id
            name = _effect_name(effect)
            self._performing[name] = asyncio.create_task(
                self._perform(task.number, effect), name=f"effect {name}"
            )

    async def _perform(self, number: int, effect: Effect) -> None:
        name = _effect_name(effect)
        try:
            try:
                result = await self.stage.perform(effect)
            except Exception as error:
                log.exception("effect_failed", stage=self.stage.name, error=type(error).__name__)
                result = EffectResult("unknown", f"the provider failed: {type(error).__name__}")
            self._failpoints.hit("effect_done")
            self._performed[name] = result
        finally:
            self._performing.pop(name, None)
        task = self.tasks.get(number)
        if task is not None and task.effects_running.get(effect.key) == effect.id:
            del task.effects_running[effect.key]
            task.results.append(EffectDone(effect, result))
            self._wake.set()

    async def _replays(self) -> dict[int, list[ParkedRecord]]:
        if monotonic() < self._next_replay:
            return {}
        self._next_replay = monotonic() + REPLAY_SECONDS
        owned = [t.number for t in self.tasks.values() if t.state is TaskState.OWNED]
        if not owned:
            return {}
        try:
            records = await self._ledger.load_replays(owned)
        except DATABASE_ERRORS as error:
            log.info("replays_unread", stage=self.stage.name, error=type(error).__name__)
            return {}
        found: dict[int, list[ParkedRecord]] = defaultdict(list)
        for record in records:
            found[record.task].append(record)
        return found

    # -- looking -----------------------------------------------------------------------------------------------------

    async def _commit_for_lag(self) -> None:
        """Tell Kafka where we are, for those who look at lag. It decides nothing, so any refusal is passed over."""
        while True:
            await asyncio.sleep(LAG_COMMIT_SECONDS)
            self.publish_metrics()
            consumer, offsets = self.consumer, dict(self.expected_offsets())
            if consumer is None or not offsets:
                continue
            with contextlib.suppress(KafkaError, IllegalStateError, TimeoutError):
                async with asyncio.timeout(KAFKA_SECONDS):
                    owned = {p: o for p, o in offsets.items() if p in consumer.assignment()}
                    if owned:
                        await consumer.commit(owned)

    def lag(self) -> int | None:
        """Return the records behind the ends of the logs over all owned tasks; None where nobody knows yet."""
        consumer = self.consumer
        if consumer is None:
            return None
        total = 0
        for partition, offset in self.expected_offsets().items():
            if partition in consumer.assignment():
                high = consumer.highwater(partition)
                total += max(0, (high or offset) - offset)
        return total

    def publish_metrics(self) -> None:
        """Set the gauges of all tasks; called every second or so, never per record."""
        consumer = self.consumer
        for task in list(self.tasks.values()):
            labels = (self.stage.name, str(task.number))
            if task.relay is not None:
                metrics.OUTBOX_ROWS.labels(*labels).set(task.relay.depth)
                metrics.OUTBOX_AGE.labels(*labels).set(task.relay.age())
            metrics.TIMERS_LOADED.labels(*labels).set(len(task.timers))
            metrics.EFFECTS_OPEN.labels(*labels).set(len(task.effects) + len(task.effects_running))
            for stream, sequence in task.position.applied.items():
                source, _, topic = stream.partition(" ")
                metrics.APPLIED_SEQUENCE.labels(*labels, source, topic).set(sequence)
            for slot, sequence in task.position.emitted.items():
                topic, _, partition = slot.rpartition("/")
                metrics.EMITTED_SEQUENCE.labels(*labels, topic, partition).set(sequence)
            if consumer is None or task.state is not TaskState.OWNED:
                continue
            for tp in task.partitions:
                if tp in consumer.assignment():
                    topic = self._plain(tp.topic)
                    offset = task.position.offsets.get(topic, 0)
                    high = consumer.highwater(tp)
                    metrics.LAG.labels(*labels, topic).set(max(0, (high or offset) - offset))


def _effect_name(effect: Effect) -> str:
    return f"{effect.id}/{effect.attempt}"
