"""Revisits: when what a stage decides by has changed, its keys are decided again, a slice at a time.

A walk goes through a task's keys in order, each slice one ordinary commit behind the lease that moves the cursor with
it. Between two slices timers that are due and records have their turn, and a slice is made no longer than about
`SLICE_SECONDS`: that is what a walk may add to the lateness of a timer. A kill costs the slice that was not committed;
whoever has the task next goes on at the cursor. A revision that changes in the middle begins a new walk.
"""

from typing import Generic, TypeVar

from chassis import logs, metrics
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Task, TaskState
from chassis.clock import Clock, monotonic
from chassis.cutting import Cutting
from chassis.ledger import DATABASE_ERRORS, Ledger, Walk
from chassis.stage import Revisit, Stage

S = TypeVar("S")

SLICE_KEYS_MAX = 500
SLICE_KEYS_MIN = 10
SLICE_KEYS_FIRST = 100
"""Nobody knows yet what a key costs: the first slice of a process is small."""

SLICE_SECONDS = 0.05
"""What a slice should take from its first query to its commit; the next one is made so large."""

TIMERS_FIRST_SECONDS = 1.0
"""For so long timers that are due keep a walk waiting, however many there are; then a slice has its turn."""

REST_SECONDS = 0.1
"""How long a task rests whose slice came to nothing: its first key waits for somebody else."""

log = logs.get("revisits")


class Revisits(Generic[S]):
    """The walks of one stage's tasks, one slice at a time for all of them."""

    def __init__(
        self,
        stage: Stage[S],
        clock: Clock,
        assignment: Assignment[S],
        ledger: Ledger[S],
        acquisition: Acquisition[S],
        cutting: Cutting[S],
    ) -> None:
        self._stage = stage
        self._clock = clock
        self._assignment = assignment
        self._ledger = ledger
        self._acquisition = acquisition
        self._cutting = cutting
        self._keys = SLICE_KEYS_FIRST
        self._last_number = -1
        self._last_slice = 0.0
        self._resting: dict[int, float] = {}
        self._pending: set[int] = set()

    async def turn(self) -> bool:
        """Do one slice of one task, if any has a walk to do and no timer is waiting; say whether there is more to do.

        Raises whatever deciding or storing raises that is nobody's fault but ours; the task is then acquired anew.
        """
        revision = self._stage.revision()
        if revision is None:
            return False
        waiting = [task for task in self._assignment.owned() if is_behind(task.walk, revision)]
        self._publish(waiting)
        if not waiting:
            return False
        now, is_late = self._clock.now(), monotonic() - self._last_slice > TIMERS_FIRST_SECONDS
        if not is_late and any(task.timers.is_due(now) for task in self._assignment.owned()):
            return True
        ready = [task for task in waiting if self._may_go_on(task)]
        if not ready:
            return False  # The pump comes round by itself.
        number = min(
            (task.number for task in ready), key=lambda n: (n <= self._last_number, n)
        )  # In turn.
        self._last_number = number
        async with self._assignment.locked([number]) as tasks:
            for task in tasks:
                await self._slice(task, revision)
        self._last_slice = monotonic()
        return True

    def _may_go_on(self, task: Task[S]) -> bool:
        """Whether nothing of the task's own holds it up: what it tells would only pile up, or its next key rests."""
        relay = task.relay
        is_resting = self._resting.get(task.number, 0.0) > monotonic()
        return not (is_resting or task.is_throttled or (relay is not None and relay.is_long))

    async def _slice(self, task: Task[S], revision: str) -> None:
        began, walk = monotonic(), begun(task.walk, revision)
        try:
            async with self._ledger.reading() as connection:
                keys = await self._stage.revisit_keys(
                    connection, task.number, walk.after, self._keys
                )
        except DATABASE_ERRORS as error:
            self._acquisition.lose_to(error, [task])
            return
        if walk.number != task.walk.number:
            log.info("revisits_begun", stage=self._stage.name, task=task.number, walk=walk.number)
        items: list[Item] = [Revisit(key, revision, walk.number) for key in keys]
        if len(keys) < self._keys:
            last = keys[-1] if keys else walk.after
            items.append(Walk(revision, walk.number, last, is_done=True))
        before = task.walk
        try:
            await self._cutting.settle([Parcel(task, items)])
        except Exception:
            if task.state is TaskState.OWNED:
                self._acquisition.lose(task, "bug", 1.0)
            raise
        if not self._assignment.is_at_work(task):
            return
        if task.walk == before:
            self._resting[task.number] = monotonic() + REST_SECONDS
            return
        self._resting.pop(task.number, None)
        if len(keys) == self._keys:
            self._adapt(len(keys), monotonic() - began)
        if task.walk.is_done:
            log.info("revisits_done", stage=self._stage.name, task=task.number, walk=walk.number)

    def _adapt(self, done: int, seconds: float) -> None:
        """Make the next slice as large as fits into its time, at most twice the last."""
        fits = round(done * SLICE_SECONDS / max(seconds, 0.001))
        self._keys = max(SLICE_KEYS_MIN, min(SLICE_KEYS_MAX, fits, 2 * self._keys))

    def _publish(self, waiting: list[Task[S]]) -> None:
        numbers = {task.number for task in waiting}
        for task in self._assignment.owned() if numbers != self._pending else ():
            pending = int(task.number in numbers)
            metrics.REVISIT_PENDING.labels(self._stage.name, str(task.number)).set(pending)
        self._pending = numbers


def is_behind(walk: Walk, revision: str) -> bool:
    """Whether there are keys that may not have been decided under `revision`."""
    return walk.revision != revision or not walk.is_done


def begun(walk: Walk, revision: str) -> Walk:
    """Return the walk towards `revision`: the one under way, or a new one from the first key."""
    return walk if walk.revision == revision else Walk(revision, walk.number + 1)
