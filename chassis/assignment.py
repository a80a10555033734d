"""Assignment: which tasks are this process' own for now, and what the client does with their partitions.

A task belongs to one generation of the assignment and one epoch of its lease. What was started for a task of the past
finds that it is not current any more, and does nothing.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, Generic, TypeVar

from aiokafka import TopicPartition

from chassis import logs
from chassis.batch import Task, TaskState
from chassis.bus import Bus, SafeConsumer
from chassis.lanes import EffectQueue
from chassis.settings import Settings
from chassis.stage import Stage

S = TypeVar("S")
log = logs.get("assignment")


class Assignment(Generic[S]):
    """The tasks of one stage that this process has, and the work that goes on for them in the background."""

    def __init__(self, stage: Stage[S], settings: Settings, bus: Bus) -> None:
        self.bus = bus
        self.topics = [topic.name for topic in stage.topics]
        self.generation = 0
        self.is_stopping = False
        self.tasks: dict[int, Task[S]] = {}
        self.incomplete: dict[int, list[str]] = {}
        """Partition numbers assigned without all their topics: they stay paused."""
        self.background: set[asyncio.Task[None]] = set()
        self._stage = stage
        self._settings = settings

    @property
    def consumer(self) -> SafeConsumer | None:
        """The live consumer, once there is one."""
        return self.bus.consumer

    def take(self, partitions: Iterable[TopicPartition]) -> list[Task[S]]:
        """Begin a generation; return a task for each number that has all its topics."""
        self.generation += 1
        by_number: dict[int, list[TopicPartition]] = defaultdict(list)
        for partition in partitions:
            by_number[partition.partition].append(partition)
        self.incomplete = {}
        tasks: list[Task[S]] = []
        for number, mine in sorted(by_number.items()):
            if len(mine) < len(self.topics):
                self.incomplete[number] = sorted(p.topic for p in mine)
                log.error(
                    "task_incomplete",
                    stage=self._stage.name,
                    task=number,
                    topics=self.incomplete[number],
                )
                continue
            effects = EffectQueue(self._stage.lane)
            tasks.append(Task(number, self.generation, tuple(sorted(mine)), effects=effects))
        return tasks

    def drop(self) -> list[Task[S]]:
        """End the generation; return its tasks, closed: nothing is begun for them any more."""
        self.generation += 1
        tasks, self.tasks = list(self.tasks.values()), {}
        for task in tasks:
            task.state = TaskState.CLOSED
        return tasks

    def is_current(self, task: Task[S]) -> bool:
        """Whether a task object is still the one that stands for its number."""
        return (
            task.generation == self.generation
            and self.tasks.get(task.number) is task
            and not self.is_stopping
        )

    def is_at_work(self, task: Task[S]) -> bool:
        """Whether a task holds its lease, as far as we know, and may be given work."""
        return task.state is TaskState.OWNED and self.is_current(task)

    def owned(self) -> list[Task[S]]:
        """Return the tasks that hold their leases."""
        return [task for task in self.tasks.values() if task.state is TaskState.OWNED]

    @contextlib.asynccontextmanager
    async def locked(self, numbers: Iterable[int]) -> AsyncIterator[list[Task[S]]]:
        """Hold the locks of those of the tasks that are at work now, in the order of their numbers."""
        async with contextlib.AsyncExitStack() as stack:
            held = []
            for number in sorted(numbers):
                task = self.tasks.get(number)
                if task is None or task.state is not TaskState.OWNED:
                    continue
                await stack.enter_async_context(task.lock)
                held.append(task)
            yield [task for task in held if self.is_at_work(task)]

    # -- the client's partitions -------------------------------------------------------------------------------------

    def plain(self, topic: str) -> str:
        """Return a topic's name without this installation's prefix."""
        return topic.removeprefix(self._settings.topic_prefix)

    def partition(self, number: int, topic: str) -> TopicPartition:
        """Return a task's partition of a topic, by its plain name."""
        return TopicPartition(self._settings.topic(topic), number)

    def expected_offsets(self) -> dict[TopicPartition, int]:
        """Return the next offset of each partition of the tasks that are owned."""
        return {
            self.partition(task.number, topic): offset
            for task in self.owned()
            for topic, offset in task.position.offsets.items()
        }

    def seek(self, number: int, topic: str, offset: int) -> None:
        """Have the client go on at an offset of a task's topic, if it still reads it."""
        consumer, partition = self.consumer, self.partition(number, topic)
        if consumer is not None and partition in consumer.assignment():
            consumer.seek(partition, offset)

    def pause(self, task: Task[S]) -> None:
        """Have the client hand out nothing of a task for now."""
        consumer = self.consumer
        if consumer is not None and self.is_current(task):
            consumer.pause(*(p for p in task.partitions if p in consumer.assignment()))

    def hold(self, task: Task[S]) -> None:
        """Pause a task's partitions until it is acquired anew."""
        task.is_held = True
        self.pause(task)

    def rest(self, task: Task[S], seconds: float) -> None:
        """Have the client hand out nothing of a task for a while; what is no record goes on."""
        self.pause(task)
        self.spawn(self._rest(task, seconds), f"rest {self._stage.name}/{task.number}")

    async def _rest(self, task: Task[S], seconds: float) -> None:
        await asyncio.sleep(seconds)
        consumer = self.consumer
        if consumer is None or not self.is_at_work(task) or task.is_held or task.is_throttled:
            return
        consumer.resume(*(p for p in task.partitions if p in consumer.assignment()))

    def throttle(self, task: Task[S]) -> None:
        """Pause a task's input while its outbox is long; resume when it is short again."""
        consumer, relay = self.consumer, task.relay
        if consumer is None or relay is None or task.state is not TaskState.OWNED or task.is_held:
            return
        if not task.is_throttled and relay.is_long:
            task.is_throttled = True
            self.pause(task)
            log.warning(
                "task_throttled",
                stage=self._stage.name,
                task=task.number,
                outbox=relay.depth,
                outbox_bytes=relay.bytes_waiting,
            )
        elif task.is_throttled and relay.is_short:
            task.is_throttled = False
            consumer.resume(*(p for p in task.partitions if p in consumer.assignment()))

    # -- what goes on behind -----------------------------------------------------------------------------------------

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Have something done in the background; whatever it raises is told. Return it, for who wants to wait."""
        running = asyncio.create_task(self._watched(work, name), name=name)
        self.background.add(running)
        running.add_done_callback(self.background.discard)
        return running

    async def _watched(self, work: Coroutine[Any, Any, None], name: str) -> None:
        try:
            await work
        except Exception as error:
            log.exception("background_failed", part_name=name, error=type(error).__name__)
