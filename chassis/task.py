"""The loop: batch → decide → one transaction → relay; and who may run it: assignment, lease, revocation, drain.

A `Worker` runs one stage in one process. For each partition number it owns it has a `Task`, which belongs to one epoch
of one lease and dies with it. What the worker is made of, each a module:

    assignment    which tasks are ours, and what the client does with their partitions
    acquisition   how a task comes to hold its lease, and how it gives it up
    intake        the records of a poll, in slices while timers are near
    settling      parcels become batches, batches are decided, one transaction stores them
    cutting       what cannot be stored together is taken apart, down to the input at fault
    standstill    what stops a task before a record, and how it may go on
    effects       what is done outside PostgreSQL
    pump          timers, results, replays: all that is no record
    revisits      keys decided again, a slice at a time, when what a stage decides by has changed
    pacing        how large a slice is
    gauges        where the tasks stand, for those who look

The order of steps, and what breaks without each, is told in `docs/adr/0001-ledger.md`.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import asyncpg
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from chassis import logs, metrics
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Task, TaskState
from chassis.bus import Bus, Record, SafeConsumer, group_id
from chassis.clock import Clock, monotonic
from chassis.cutting import Cutting
from chassis.effects import Effects
from chassis.emission import Emission
from chassis.failpoints import Failpoints
from chassis.gauges import Gauges
from chassis.intake import Intake
from chassis.ledger import Ledger
from chassis.pump import Pump
from chassis.settings import Settings
from chassis.settling import Settling
from chassis.stage import Stage
from chassis.standstill import Standstill
from chassis.tracing import Tracing

S = TypeVar("S")

REVOKE_SHARE = 0.5
"""The part of a session that giving up the tasks may take in all: the whole group waits for it."""

REVOKE_EFFECTS_SHARE = 2 / 3
"""The part of that which effects under way are given; the rest is for commits in flight and acknowledgements."""

STOP_EFFECTS_SECONDS = 5.0
STOP_RELAY_SECONDS = 5.0
STOP_BACKGROUND_SECONDS = 2.0
OUT_OF_RANGE_SECONDS = 0.5
BUG_SECONDS = 1.0

log = logs.get("task")


class Worker(Generic[S]):
    """Runs one stage in this process."""

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
        self._session_seconds = settings.session_timeout_seconds
        self._is_ending = False
        """Told to stop: no effect is begun any more, whatever the group does meanwhile."""
        self._failpoints = failpoints or Failpoints()
        owner = f"{socket.gethostname()}:{os.getpid()}"
        names = [topic.name for topic in stage.topics]
        self.bus = Bus(
            kafka=settings.kafka_access,
            group=group_id(settings.topic_prefix, stage.name, names),
            topics=[settings.topic(name) for name in names],
            reader=self,
            session_seconds=settings.session_timeout_seconds,
            max_records=settings.batch_records,
            client_id=f"{stage.name}@{owner}",
        )
        wake = asyncio.Event()
        self.ledger: Ledger[S] = Ledger(pool, stage.name, stage.store, self._failpoints)
        emission: Emission[S] = Emission(stage, settings, tracing or Tracing(stage.name))
        self.assignment: Assignment[S] = Assignment(stage, settings, self.bus)
        self.effects: Effects[S] = Effects(stage, self.assignment, self._failpoints, wake)
        self._acquisition: Acquisition[S] = Acquisition(
            stage,
            settings,
            clock,
            self.assignment,
            self.ledger,
            self.effects,
            self._failpoints,
            wake,
            owner,
        )
        standstill: Standstill[S] = Standstill(
            stage, settings, self.assignment, self.ledger, self._acquisition
        )
        settling: Settling[S] = Settling(
            stage,
            settings,
            clock,
            self.assignment,
            self.ledger,
            emission,
            self.effects,
            self._acquisition,
            standstill,
            wake,
        )
        self.cutting: Cutting[S] = Cutting(self.assignment, self._acquisition, settling)
        self._intake: Intake[S] = Intake(clock, self.assignment, self.cutting)
        self._pump: Pump[S] = Pump(
            stage,
            clock,
            self.assignment,
            self.ledger,
            self.effects,
            self._acquisition,
            self.cutting,
            wake,
        )
        self._gauges: Gauges[S] = Gauges(
            stage.name, self.assignment, self._pump.revisits.is_pending
        )
        self.runners: list[asyncio.Task[None]] = []
        """What goes on from start to stop."""

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Join the group and begin. Raises what the broker's absence raises; the caller backs off and tries again."""
        if not self.runners:
            self.runners = [
                asyncio.create_task(self._pump.run(), name=f"pump {self.stage.name}"),
                asyncio.create_task(self._gauges.run(), name=f"lag {self.stage.name}"),
            ]
        await self.bus.start()

    async def rejoin(self) -> None:
        """Leave the group with a client that does not work any more, and join with a new one.

        Raises what `start` raises; calling it again is safe.
        """
        await self.on_revoked(set())
        await self.bus.stop()
        await self._acquisition.close_all(monotonic())  # What the old client was given meanwhile.
        await self.bus.start()

    async def stop(self) -> None:
        """Stop intake, finish what is in hand, flush, leave the group."""
        self._is_ending = True
        self._close_intake()
        await self.effects.drain(monotonic() + STOP_EFFECTS_SECONDS)
        self.assignment.is_stopping = True
        await self._acquisition.close_all(monotonic() + STOP_RELAY_SECONDS)
        for runner in self.runners:
            runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await runner
        behind = [*self.assignment.background, *self.effects.performing.values()]
        for one in behind:
            one.cancel()
        if behind:
            await asyncio.wait(behind, timeout=STOP_BACKGROUND_SECONDS)
        await self.bus.stop()

    def _close_intake(self) -> None:
        """Have the client hand out no more records of ours, and keep it so until the tasks are gone."""
        with contextlib.suppress(IllegalStateError):
            for task in self.assignment.owned():
                self.assignment.hold(task)
            consumer = self.bus.consumer
            if consumer is not None and consumer.assignment():
                consumer.pause(*consumer.assignment())

    # -- what the bus says -------------------------------------------------------------------------------------------

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each partition of the tasks that are owned."""
        return self.assignment.expected_offsets()

    def on_assigned(self, partitions: set[TopicPartition]) -> None:
        """Make a task of each number that has all its topics, and acquire it in the background."""
        tasks = self.assignment.take(partitions)
        numbers = {task.number for task in tasks}
        self.cutting.keep_only(numbers)
        self.effects.keep_only(numbers)
        for task in tasks:
            self._acquisition.begin(task)
        self._failpoints.hit("in_assign")

    async def on_revoked(self, partitions: set[TopicPartition]) -> None:
        """Drop all tasks; wait a little for what is in flight, half a session in all.

        The epoch makes the rest harmless.
        """
        del partitions
        log.info(
            "tasks_let_go",
            stage=self.stage.name,
            tasks=sorted(task.number for task in self.assignment.owned()),
        )
        began, seconds = monotonic(), self._session_seconds * REVOKE_SHARE
        self._close_intake()
        await self.effects.drain(began + seconds * REVOKE_EFFECTS_SHARE)
        await self._acquisition.close_all(began + seconds)
        self.effects.is_closed = self._is_ending

    def on_out_of_range(self, partitions: Iterable[TopicPartition]) -> None:
        """The log does not reach to where we are: acquire anew, which looks at its range and halts."""
        for number in {partition.partition for partition in partitions}:
            task = self.tasks.get(number)
            if task is not None and task.state is TaskState.OWNED:
                self._acquisition.lose(task, "out_of_range", OUT_OF_RANGE_SECONDS)

    async def on_records(self, records: Sequence[Record]) -> None:
        """Handle one poll: all its tasks in one transaction, or in slices of it."""
        metrics.BATCH_RECORDS.labels(self.stage.name).observe(len(records))
        try:
            await self._intake.take(records)
        except Exception as error:
            log.exception("batch_failed", stage=self.stage.name, error=type(error).__name__)
            for number in {record.partition for record in records}:
                task = self.tasks.get(number)
                if task is not None and task.state is TaskState.OWNED:
                    self._acquisition.lose(task, "bug", BUG_SECONDS)

    # -- looking -----------------------------------------------------------------------------------------------------

    @property
    def consumer(self) -> SafeConsumer | None:
        """The live consumer, once there is one."""
        return self.bus.consumer

    @property
    def tasks(self) -> dict[int, Task[S]]:
        """The tasks of the present assignment, by number."""
        return self.assignment.tasks

    @property
    def incomplete(self) -> dict[int, list[str]]:
        """Partition numbers assigned without all their topics: they stay paused."""
        return self.assignment.incomplete

    @property
    def last_turn(self) -> float:
        """When the pump last came round: the loop turns as long as this moves."""
        return self._pump.last_turn

    def lag(self) -> int | None:
        """Return the records behind the ends of the logs over all owned tasks; None where nobody knows yet."""
        return self._gauges.lag()
