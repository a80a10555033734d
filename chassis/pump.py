"""The pump: what a task has to do besides its records. Timers that are due, results of effects, replays, effects to begin.

It also keeps the relays supplied from the table and the input flowing again. Every turn takes the tasks' locks, so that
nothing of a task is ever decided side by side.
"""

import asyncio
import contextlib
from collections import defaultdict
from datetime import datetime
from typing import Generic, TypeVar

from chassis import logs
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Task, TaskState
from chassis.clock import Clock, monotonic
from chassis.cutting import Cutting
from chassis.deadletters import ParkedRecord
from chassis.effects import Effects
from chassis.ledger import DATABASE_ERRORS, Ledger, horizon_end
from chassis.stage import Stage
from chassis.timers import DUE_MAX, HORIZON

S = TypeVar("S")

PUMP_SECONDS = 0.02
"""How often timers, effects and replays are looked at."""

REPLAY_SECONDS = 1.0

log = logs.get("pump")


class Pump(Generic[S]):
    """Turns for one stage's tasks, every `PUMP_SECONDS` and whenever `wake` is set."""

    def __init__(
        self,
        stage: Stage[S],
        clock: Clock,
        assignment: Assignment[S],
        ledger: Ledger[S],
        effects: Effects[S],
        acquisition: Acquisition[S],
        cutting: Cutting[S],
        wake: asyncio.Event,
    ) -> None:
        self._stage = stage
        self._clock = clock
        self._assignment = assignment
        self._ledger = ledger
        self._effects = effects
        self._acquisition = acquisition
        self._cutting = cutting
        self._wake = wake
        self._next_replay = 0.0
        self.last_turn = monotonic()
        """When the pump last came round: the loop turns as long as this moves."""

    async def run(self) -> None:
        """Turn until cancelled."""
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
                log.exception("pump_failed", stage=self._stage.name, error=type(error).__name__)
                await asyncio.sleep(0.5)

    async def _turn(self) -> None:
        now = self._clock.now()
        replays = await self._replays()
        busy = [
            task.number
            for task in self._assignment.owned()
            if task.number in replays or self._has_work(task, now)
        ]
        if not busy:
            return
        async with self._assignment.locked(busy) as tasks:
            try:
                parcels = [
                    await self._collect(task, replays.get(task.number, []), now) for task in tasks
                ]
                await self._cutting.settle([one for one in parcels if one is not None])
            except Exception:
                # What was taken in hand is in no queue any more: memory is read anew.
                for task in tasks:
                    if task.state is TaskState.OWNED:
                        self._acquisition.lose(task, "bug", 1.0)
                raise

    def _has_work(self, task: Task[S], now: datetime) -> bool:
        relay = task.relay
        return bool(
            task.timers.is_due(now)
            or task.results
            or task.timers.needs_load(now)
            or (task.effects and self._effects.has_room(task))
            or (relay is not None and not relay.is_drained and not relay.depth)
            or task.is_throttled
        )

    async def _collect(
        self, task: Task[S], replays: list[ParkedRecord], now: datetime
    ) -> Parcel[S] | None:
        """Gather what a task has to do; None where its memory could not be kept up."""
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
            self._acquisition.lose_to(error, [task])
            return None
        self._assignment.throttle(task)
        items: list[Item] = [*task.timers.due(now, DUE_MAX)]
        while task.results and len(items) < DUE_MAX:
            items.append(task.results.popleft())
        items += replays[: DUE_MAX - len(items)]
        items += self._effects.next_to_begin(task)
        return Parcel(task, items)

    async def _replays(self) -> dict[int, list[ParkedRecord]]:
        """Return the parked records that somebody wants tried again, by task; asked for every `REPLAY_SECONDS`."""
        if monotonic() < self._next_replay:
            return {}
        self._next_replay = monotonic() + REPLAY_SECONDS
        owned = [task.number for task in self._assignment.owned()]
        if not owned:
            return {}
        try:
            records = await self._ledger.load_replays(owned)
        except DATABASE_ERRORS as error:
            log.info("replays_unread", stage=self._stage.name, error=type(error).__name__)
            return {}
        found: dict[int, list[ParkedRecord]] = defaultdict(list)
        for record in records:
            found[record.task].append(record)
        return found
