"""Standstill: what stops a task before a record, and how it is found out whether it may go on.

A gap in a numbered stream halts: the lease says so until somebody has looked. Missing offsets of an open topic are looked
at in the log. A source that has begun a new incarnation is read back for what it has forgotten.
"""

import asyncio
from typing import Any, Generic, TypeVar

from aiokafka.errors import KafkaError

from chassis import logs
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Batch, Reread, Task
from chassis.bus import KAFKA_SECONDS
from chassis.errors import Fenced
from chassis.ledger import DATABASE_ERRORS, Ledger, Overlay, Write
from chassis.restore import forgotten_ids
from chassis.settings import Settings
from chassis.stage import Stage

S = TypeVar("S")
RESTORE_RETRY_SECONDS = 5.0

log = logs.get("standstill")


class Standstill(Generic[S]):
    """Sees to what stopped a batch, once all before it is committed."""

    def __init__(
        self,
        stage: Stage[S],
        settings: Settings,
        assignment: Assignment[S],
        ledger: Ledger[S],
        acquisition: Acquisition[S],
    ) -> None:
        self._stage = stage
        self._settings = settings
        self._assignment = assignment
        self._ledger = ledger
        self._acquisition = acquisition

    def see_to(self, batch: Batch[S]) -> None:
        """Begin, in the background, what a committed batch has stopped for."""
        task = batch.task
        of_task = f"{self._stage.name}/{task.number}"
        if batch.hole is not None:
            self._assignment.spawn(self._look_at_hole(task, *batch.hole), f"hole {of_task}")
        if batch.reread is not None:
            self._assignment.spawn(self._read_back(task, batch.reread), f"restore {of_task}")
        if batch.halt is not None:
            self._assignment.spawn(self._record_halt(task, batch.halt), f"halt {of_task}")

    async def _look_at_hole(self, task: Task[S], topic: str, expected: int, got: int) -> None:
        """Offsets of an open topic are not there: markers of somebody's transactions, or records deleted unread?"""
        consumer = self._assignment.consumer
        if consumer is None or not self._assignment.is_current(task):
            return
        partition = self._assignment.partition(task.number, topic)
        try:
            async with asyncio.timeout(KAFKA_SECONDS):
                begin = (await consumer.beginning_offsets([partition]))[partition]
        except (KafkaError, TimeoutError) as error:
            log.warning("hole_not_seen", error=type(error).__name__)
            self._assignment.seek(task.number, topic, expected)
            return
        if begin <= expected:
            task.known_holes[topic] = expected
            self._assignment.seek(task.number, topic, expected)
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

    async def _read_back(self, task: Task[S], reread: Reread) -> None:
        """A source was restored: learn which ids it has forgotten, then go on."""
        self._assignment.hold(task)
        log.warning(
            "source_restored", stage=self._stage.name, task=task.number, stream=reread.stream
        )
        try:
            found = await forgotten_ids(
                self._settings.kafka_access,
                self._assignment.partition(task.number, reread.topic),
                task.position.offsets[reread.topic],
                reread.forgotten,
            )
        except Exception as error:
            log.exception("read_back_failed", error=type(error).__name__)
            self._acquisition.lose(task, "restore", RESTORE_RETRY_SECONDS)
            return
        async with task.lock:
            if not self._assignment.is_at_work(task):
                return
            overlay: Overlay[S] = Overlay(task.position.copy(), superseded=sorted(found))
            overlay.position.applied[reread.stream] = 0
            try:
                await self._ledger.commit([Write(task.number, task.epoch, overlay)])
            except (*DATABASE_ERRORS, Fenced) as error:
                log.warning("read_back_not_recorded", error=type(error).__name__)
            # Either way memory is read anew, and the record that began this is met again.
            self._acquisition.lose(task, "restore", 0.0)

    async def _record_halt(self, task: Task[S], halt: dict[str, Any]) -> None:
        self._assignment.hold(task)
        async with task.lock:
            if not self._assignment.is_at_work(task):
                return
            overlay: Overlay[S] = Overlay(task.position.copy())
            overlay.position.halted = halt
            try:
                ours = await self._ledger.commit([Write(task.number, task.epoch, overlay)])
            except (*DATABASE_ERRORS, Fenced) as error:
                log.warning("halt_not_recorded", error=type(error).__name__)
                self._acquisition.lose(task, "database", 0.1)
                return
            if task.number not in ours:
                self._acquisition.lose(task, "fenced", self._acquisition.fenced_seconds)
                return
            task.position = overlay.position
            self._acquisition.halt(task, halt)
