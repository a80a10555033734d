"""Revisits: when what a stage decides by has changed, its keys are decided again, a slice at a time.

A walk goes through a task's keys in order, each slice one ordinary commit behind the lease that moves the cursor with
it. Between two slices timers that are due and records have their turn, and a slice is made no longer than about
`SLICE_SECONDS`: that is what a walk may add to the lateness of a timer. A kill costs the slice that was not committed;
whoever has the task next goes on at the cursor. A revision that changes in the middle begins a new walk, and so does one that
comes back, though it had been walked before: something may have been decided under the one between.
"""

from typing import Generic, TypeVar

from chassis import logs, metrics
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Task, TaskState
from chassis.clock import monotonic
from chassis.cutting import Cutting
from chassis.effects import Effects
from chassis.ledger import DRIVER_ERRORS, Ledger, Walk
from chassis.pacing import Pace
from chassis.stage import Revisit, Stage

S = TypeVar("S")

SLICE_KEYS_MAX = 500
SLICE_KEYS_MIN = 20
SLICE_KEYS_FIRST = 100
"""Nobody knows yet what a key costs: the first slice of a process is small."""

SLICE_SECONDS = 0.04
"""What a slice should take from its first query to its commit; the next one is made so large."""

TIMERS_FIRST_SECONDS = 1.0
"""For so long more timers than a turn takes keep a walk waiting; then a slice has its turn."""

REST_SECONDS = 0.1
"""How long a task rests whose slice came to nothing: its first key waits for somebody else."""

FAILED_SECONDS = 1.0
FAILED_SECONDS_MAX = 60.0
"""How long a walk rests whose revision or next keys the stage cannot tell; doubled each time that it fails again."""

log = logs.get("revisits")


class Revisits(Generic[S]):
    """The walks of one stage's tasks, one slice at a time for all of them."""

    def __init__(
        self,
        stage: Stage[S],
        assignment: Assignment[S],
        ledger: Ledger[S],
        acquisition: Acquisition[S],
        cutting: Cutting[S],
        effects: Effects[S],
    ) -> None:
        self._stage = stage
        self._assignment = assignment
        self._ledger = ledger
        self._acquisition = acquisition
        self._cutting = cutting
        self._effects = effects
        self._pace = Pace(SLICE_SECONDS, SLICE_KEYS_MIN, SLICE_KEYS_MAX, first=SLICE_KEYS_FIRST)
        self._last_number = -1
        self._last_slice = 0.0
        self._resting: dict[int, float] = {}
        self._failures: dict[int | None, int] = {}
        """By task, or None for the revision itself: how often one behind the other the stage could not tell."""
        self._revision: str | None = None
        self._next_look = 0.0
        self._strayed: set[int] = set()
        """Tasks of which another revision than that of their walk was in force since it began: it proves nothing any more."""
        self._pending: set[int] = set()

    async def turn(self, *, is_full: bool) -> bool:
        """Do one slice of one task, if any has a walk to do; say whether there is more to do.

        `is_full`: whether the turn before it has left timers over that are due. A few that have fallen due since wait for
        one slice; if they held it up, a steady trickle of them would hold it up for ever.

        Raises whatever deciding or storing raises that is nobody's fault but ours; the task is then acquired anew.
        """
        revision = self._look()
        if revision is None:
            return False
        waiting = [task for task in self._assignment.owned() if self.is_pending(task)]
        self._publish(waiting)
        if not waiting or self._effects.is_closed:
            return False  # A slice would only hold up those who wait for the tasks.
        if is_full and monotonic() - self._last_slice <= TIMERS_FIRST_SECONDS:
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

    def is_pending(self, task: Task[S]) -> bool:
        """Whether there are keys of a task that may not have been decided under the present revision, as known last."""
        is_strayed = task.number in self._strayed
        return self._revision is not None and (is_strayed or is_behind(task.walk, self._revision))

    def _look(self) -> str | None:
        """Return the present revision, and note whose walks are not towards it; None where the stage cannot tell now."""
        if monotonic() < self._next_look:
            return None
        try:
            revision = self._stage.revision()
        except Exception as error:
            log.exception("revision_unknown", stage=self._stage.name, error=type(error).__name__)
            self._next_look = monotonic() + self._failed(None)
            return None
        self._failures.pop(None, None)
        if revision is not None:
            self._revision = revision
            self._strayed.update(
                task.number for task in self._assignment.owned() if task.walk.revision != revision
            )
        return revision

    def _put_off(self, task: Task[S], error: Exception) -> None:
        """Leave a walk alone whose next keys cannot be told. Nothing was decided, so the rest of the task goes on."""
        rest = self._failed(task.number)
        self._resting[task.number] = monotonic() + rest
        log.warning(
            "revisits_put_off",
            stage=self._stage.name,
            task=task.number,
            error=type(error).__name__,
            wait_seconds=rest,
        )

    def _failed(self, number: int | None) -> float:
        """Count that the stage could not tell what is to be walked; return for how many seconds to leave it alone."""
        times = self._failures[number] = self._failures.get(number, 0) + 1
        return min(FAILED_SECONDS * 2.0 ** min(times - 1, 10), FAILED_SECONDS_MAX)

    def _may_go_on(self, task: Task[S]) -> bool:
        """Whether nothing of the task's own holds it up: what it tells would only pile up, or its next key rests."""
        relay = task.relay
        is_resting = self._resting.get(task.number, 0.0) > monotonic()
        return not (is_resting or task.is_throttled or (relay is not None and relay.is_long))

    async def _slice(self, task: Task[S], revision: str) -> None:
        began, size = monotonic(), self._pace.items
        walk = begun(task.walk, revision, is_strayed=task.number in self._strayed)
        try:
            async with self._ledger.reading() as connection:
                keys = await self._stage.revisit_keys(connection, task.number, walk.after, size)
        except DRIVER_ERRORS as error:
            self._put_off(task, error)
            return
        except Exception as error:
            log.exception("revisits_failed", stage=self._stage.name, error=type(error).__name__)
            self._put_off(task, error)
            return
        self._failures.pop(task.number, None)
        if walk.number != task.walk.number:
            log.info("revisits_begun", stage=self._stage.name, task=task.number, walk=walk.number)
        items: list[Item] = [Revisit(key, revision, walk.number) for key in keys]
        if len(keys) < size:
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
        if task.walk.number != before.number:
            self._strayed.discard(task.number)
        if len(keys) == size:
            self._pace.took(size, monotonic() - began)
        if task.walk.is_done:
            log.info("revisits_done", stage=self._stage.name, task=task.number, walk=walk.number)

    def _publish(self, waiting: list[Task[S]]) -> None:
        numbers = {task.number for task in waiting}
        for task in self._assignment.owned() if numbers != self._pending else ():
            pending = int(task.number in numbers)
            metrics.REVISIT_PENDING.labels(self._stage.name, str(task.number)).set(pending)
        self._pending = numbers


def is_behind(walk: Walk, revision: str) -> bool:
    """Whether there are keys that may not have been decided under `revision`."""
    return walk.revision != revision or not walk.is_done


def begun(walk: Walk, revision: str, *, is_strayed: bool) -> Walk:
    """Return the walk towards `revision`: the one under way, or a new one from the first key."""
    if walk.revision == revision and not is_strayed:
        return walk
    return Walk(revision, walk.number + 1)
