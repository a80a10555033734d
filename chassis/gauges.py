"""Gauges: where the tasks stand, for those who look; and the offsets that Kafka is told for their sake.

None of it decides anything: offsets live in the lease.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from aiokafka.errors import IllegalStateError, KafkaError

from chassis import metrics
from chassis.assignment import Assignment
from chassis.batch import Task, TaskState
from chassis.bus import KAFKA_SECONDS

S = TypeVar("S")
LAG_COMMIT_SECONDS = 1.5


class Gauges(Generic[S]):
    """Tells where the tasks of one stage stand."""

    def __init__(
        self, stage: str, assignment: Assignment[S], is_pending: Callable[[Task[S]], bool]
    ) -> None:
        """`is_pending`: whether a task has a walk to do (`chassis.revisits`)."""
        self._stage = stage
        self._assignment = assignment
        self._is_pending = is_pending

    async def run(self) -> None:
        """Set the gauges and commit offsets to Kafka, again and again. Any refusal is passed over."""
        while True:
            await asyncio.sleep(LAG_COMMIT_SECONDS)
            self.publish()
            consumer, offsets = self._assignment.consumer, self._assignment.expected_offsets()
            if consumer is None or not offsets:
                continue
            with contextlib.suppress(KafkaError, IllegalStateError, TimeoutError):
                async with asyncio.timeout(KAFKA_SECONDS):
                    owned = {p: o for p, o in offsets.items() if p in consumer.assignment()}
                    if owned:
                        await consumer.commit(owned)

    def lag(self) -> int | None:
        """Return the records behind the ends of the logs over all owned tasks; None where nobody knows yet."""
        consumer = self._assignment.consumer
        if consumer is None:
            return None
        total = 0
        for partition, offset in self._assignment.expected_offsets().items():
            if partition in consumer.assignment():
                high = consumer.highwater(partition)
                total += max(0, (high or offset) - offset)
        return total

    def publish(self) -> None:
        """Set the gauges of all tasks; called every second or so, never per record."""
        consumer = self._assignment.consumer
        for task in list(self._assignment.tasks.values()):
            labels = (self._stage, str(task.number))
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
            if task.state in (TaskState.OWNED, TaskState.HALTED):
                metrics.REVISIT_PENDING.labels(*labels).set(int(self._is_pending(task)))
            if consumer is None or task.state is not TaskState.OWNED:
                continue
            for tp in task.partitions:
                if tp in consumer.assignment():
                    topic = self._assignment.plain(tp.topic)
                    offset = task.position.offsets.get(topic, 0)
                    high = consumer.highwater(tp)
                    metrics.LAG.labels(*labels, topic).set(max(0, (high or offset) - offset))


def forget(stage: str, number: int, topics: Iterable[str]) -> None:
    """Set a task's gauges to nothing: what it was is no news once somebody else may have it."""
    label = str(number)
    for gauge in (
        metrics.OWNED,
        metrics.HALTED,
        metrics.OUTBOX_ROWS,
        metrics.OUTBOX_AGE,
        metrics.EFFECTS_OPEN,
        metrics.TIMERS_LOADED,
        metrics.REVISIT_PENDING,
    ):
        gauge.labels(stage, label).set(0)
    for topic in topics:
        metrics.LAG.labels(stage, label, topic).set(0)
