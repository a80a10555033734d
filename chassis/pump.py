"""The pump: what a task has to do besides its records. Timers that are due, results of effects, replays, effects to begin.

It also keeps the relays supplied from the table and the input flowing again. Every turn takes the tasks' locks, so that
nothing of a task is ever decided side by side.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from chassis import logs
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Task, TaskState
from chassis.clock import Clock, monotonic
from chassis.cutting import Cutting
from chassis.deadletters import ParkedRecord
from chassis.effects import Effects
from chassis.ledger import DATABASE_ERRORS, Ledger, TimerRow, horizon_end
from chassis.revisits import Revisits
from chassis.stage import Stage
from chassis.timers import DUE_MAX, HORIZON, window_end

S = TypeVar("S")

PUMP_SECONDS = 0.02
"""How often effects, replays and walks are looked at; timers are when they are due."""

REPLAY_SECONDS = 1.0

TURN_ITEMS = 1_000
"""What is no record and is settled in one turn, in all and about: small commits are told sooner, and take less in all."""

TURN_ITEMS_MIN = 50
"""Of which every task that has something to do may have so many."""

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
        self.revisits: Revisits[S] = Revisits(
            stage, assignment, ledger, acquisition, cutting, effects
        )
        self._next_replay = 0.0
        self._looked_at = clock.now()
        self._is_full = False
        """Whether the last turn left some task with more to do."""
        self.last_turn = monotonic()
        """When the pump last came round: the loop turns as long as this moves."""

    async def run(self) -> None:
        """Turn until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle_seconds()):
                    await self._wake.wait()
            self._wake.clear()
            self.last_turn = monotonic()
            try:
                await self._turn()
                if await self.revisits.turn(is_full=self._is_full):
                    self._wake.set()  # What fell due meanwhile comes first.
            except asyncio.CancelledError:
                raise
            except Exception as error:
                log.exception("pump_failed", stage=self._stage.name, error=type(error).__name__)
                await asyncio.sleep(0.5)

    def _idle_seconds(self) -> float:
        """Return how long nothing is to be done, as far as it is known: until the next timer, at most `PUMP_SECONDS`."""
        earliest = [
            at for task in self._assignment.owned() if (at := task.timers.earliest()) is not None
        ]
        if not earliest:
            return PUMP_SECONDS
        first = min(earliest)
        if first <= self._looked_at:
            return PUMP_SECONDS  # The last turn has left it over, so it rests.
        return min(PUMP_SECONDS, max(0.0, (first - self._clock.now()).total_seconds()))

    async def _turn(self) -> None:
        self._looked_at = now = self._clock.now()
        replays = await self._replays()
        busy = [
            task.number
            for task in self._assignment.owned()
            if task.number in replays or self._has_work(task, now)
        ]
        if not busy:
            self._is_full = False
            return
        room = min(DUE_MAX, max(TURN_ITEMS_MIN, TURN_ITEMS // len(busy)))
        self._is_full = False
        self._is_full = await self._settle(busy, replays, now, room)
        if self._is_full:
            self._wake.set()  # There is hardly an end to it yet.

    async def _settle(
        self,
        numbers: Sequence[int],
        replays: Mapping[int, list[ParkedRecord]],
        now: datetime,
        room: int,
    ) -> bool:
        """Do what these tasks have to do, up to `room` items of each; say whether more can be done at once."""
        async with self._assignment.locked(numbers) as tasks:
            try:
                collected = [
                    await self._collect(task, replays.get(task.number, []), now, room)
                    for task in tasks
                ]
                parcels = [one for one in collected if one is not None]
                await self._cutting.settle(parcels)
            except Exception:
                # What was taken in hand is in no queue any more: memory is read anew.
                for task in tasks:
                    if task.state is TaskState.OWNED:
                        self._acquisition.lose(task, "bug", 1.0)
                raise
            now = self._clock.now()
            return any(len(one.items) >= room and _has_more(one, now) for one in parcels)

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
        self, task: Task[S], replays: list[ParkedRecord], now: datetime, room: int
    ) -> Parcel[S] | None:
        """Gather what a task has to do; None where its memory could not be kept up."""
        try:
            if task.timers.needs_load(now):
                until = horizon_end(now, HORIZON.total_seconds())
                rows = await self._ledger.load_timers(task.number, task.timers.loaded_to, until)
                task.timers.load(rows, window_end(rows, until))
            if task.relay is not None:
                await task.relay.page()
        except DATABASE_ERRORS as error:
            self._acquisition.lose_to(error, [task])
            return None
        self._assignment.throttle(task)
        items: list[Item] = [*task.timers.due(now, room)]
        while task.results and len(items) < room:
            items.append(task.results.popleft())
        items += replays[: room - len(items)]
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


def _has_more(parcel: Parcel[Any], now: datetime) -> bool:
    """Whether a task has come on with a full parcel, and has more to do. What was only put back rests, and needs no turn."""
    task = parcel.task
    waiting = {id(result) for result in task.results}
    has_moved = any(
        task.timers.get(item.key, item.name) != item
        if isinstance(item, TimerRow)
        else id(item) not in waiting
        for item in parcel.items
    )
    earliest = task.timers.earliest()
    return has_moved and bool(task.results or (earliest is not None and earliest <= now))
