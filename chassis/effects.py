"""Effects: what is done outside PostgreSQL, once it is recorded, and what came of it, brought back as an input.

Several at once a task and lane, those of one key in order. One that goes on while its task is lost and acquired again is not
begun a second time: its result is kept until it has been recorded.
"""

import asyncio
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from chassis import logs
from chassis.assignment import Assignment
from chassis.batch import Task
from chassis.clock import monotonic
from chassis.failpoints import Failpoints
from chassis.stage import Effect, EffectDone, EffectResult, EffectStanding, Stage

S = TypeVar("S")

PERFORMED_SECONDS = 600.0
"""How long a result that nobody records is kept once its task is another process': it may come back."""

WITHDRAWN: Final = EffectResult("withdrawn")

log = logs.get("effects")


@dataclass(frozen=True, slots=True)
class _Performed:
    """What came of an effect, and when it did."""

    task: int
    result: EffectResult
    ended: float


class Effects(Generic[S]):
    """Performs the effects of one stage's tasks in this process. `wake` is set when a result has come."""

    def __init__(
        self,
        stage: Stage[S],
        assignment: Assignment[S],
        failpoints: Failpoints,
        wake: asyncio.Event,
    ) -> None:
        self._stage = stage
        self._assignment = assignment
        self._failpoints = failpoints
        self._wake = wake
        self._performed: dict[str, _Performed] = {}
        self.performing: dict[str, asyncio.Task[None]] = {}
        self.is_closed = False
        """No new ones are begun: this process is stopping, or losing its tasks."""

    def has_room(self, task: Task[S]) -> bool:
        """Whether another effect of a task may be begun."""
        return not self.is_closed and task.effects.has_any()

    def next_to_begin(self, task: Task[S]) -> list[Effect]:
        """Take those out of a task's queue that may be begun now; effects of one key keep their order."""
        return [] if self.is_closed else task.effects.take(task.effects_running)

    def begin(self, task: Task[S], effects: Sequence[Effect]) -> None:
        """Do effects whose beginning is recorded; of those that were withdrawn before, it is not, and they are only told of."""
        for effect in effects:
            if effect.id in task.effects_withdrawn:
                task.effects.release(effect.key)
                task.results.append(EffectDone(effect, WITHDRAWN))
                self._wake.set()
                continue
            self._failpoints.hit("effect_started")
            task.effects_running[effect.key] = effect.id
            name = _name(effect)
            self.performing[name] = asyncio.create_task(
                self._perform(task.number, effect), name=f"effect {name}"
            )

    async def _perform(self, number: int, effect: Effect) -> None:
        name = _name(effect)
        try:
            try:
                result = await self._stage.perform(effect)
            except Exception as error:
                log.exception("effect_failed", stage=self._stage.name, error=type(error).__name__)
                result = EffectResult("unknown", f"the provider failed: {type(error).__name__}")
            self._failpoints.hit("effect_done")
            self._performed[name] = _Performed(number, result, monotonic())
        finally:
            self.performing.pop(name, None)
        task = self._assignment.tasks.get(number)
        if task is not None and task.effects_running.get(effect.key) == effect.id:
            del task.effects_running[effect.key]
            task.effects.release(effect.key)
            task.results.append(EffectDone(effect, result))
            self._wake.set()

    def resume(self, task: Task[S], effect: Effect, standing: EffectStanding) -> None:
        """Take up an effect that the table holds: new, withdrawn, under way in this process, settled here, or nobody
        knows.
        """
        name = _name(effect)
        if name in self._performed:
            task.results.append(EffectDone(effect, self._performed[name].result))
        elif name in self.performing:
            task.effects_running[effect.key] = effect.id
            task.effects.hold(effect)
        elif standing == "withdrawn":
            task.effects_withdrawn.add(effect.id)
            task.effects.append(effect)
        elif standing == "begun" and not self._stage.is_repeatable(effect):
            task.results.append(EffectDone(effect, EffectResult("unknown", "interrupted")))
        else:
            task.effects.append(effect)

    def recorded(self, item: EffectDone) -> None:
        """Forget a result that is stored."""
        self._performed.pop(_name(item.effect), None)

    def keep_only(self, numbers: Set[int]) -> None:
        """Forget old results of tasks that are another process' now."""
        oldest = monotonic() - PERFORMED_SECONDS
        self._performed = {
            name: one
            for name, one in self._performed.items()
            if one.task in numbers or one.ended > oldest
        }

    async def drain(self, deadline: float) -> None:
        """Begin no more, and let those under way end and be recorded: another owner could only call them unknown.

        Returns when all have, and at `deadline` (of `chassis.clock.monotonic`) in any case.
        """
        self.is_closed = True
        while monotonic() < deadline and any(  # noqa: ASYNC110 - bounded, and rare
            map(self._owes, self._assignment.owned())
        ):
            await asyncio.sleep(0.01)

    def _owes(self, task: Task[S]) -> bool:
        """Whether results of a task are awaited, wait, or are just being recorded; other work in hand is not asked after."""
        if task.effects_running or task.results:
            return True
        return task.lock.locked() and any(
            one.task == task.number for one in self._performed.values()
        )


def _name(effect: Effect) -> str:
    return f"{effect.id}/{effect.attempt}"
