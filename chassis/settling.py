"""Settling: parcels become batches, batches are decided, and one transaction stores them all.

The one place where anything changes. Memory follows the commit and never precedes it, with one exception: a decision may
change a state in place. So whatever comes to nothing leaves the states it was decided on to be read anew.
"""

import asyncio
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from chassis import logs, metrics
from chassis.acquisition import Acquisition
from chassis.admission import Admission
from chassis.assignment import Assignment
from chassis.batch import Batch, Parcel, Task, TaskState
from chassis.bus import Record
from chassis.clock import Clock, monotonic
from chassis.deadletters import ParkedRecord
from chassis.decision import Deciding, Suspect
from chassis.effects import Effects
from chassis.emission import Emission
from chassis.errors import Conflict, Fenced, Refused
from chassis.ledger import (
    DATABASE_ERRORS,
    REFUSALS,
    Ledger,
    Overlay,
    Position,
    TimerRow,
    Walk,
    Write,
    database_facts,
)
from chassis.settings import Settings
from chassis.stage import Effect, EffectDone, Input, Revisit, Stage, Tick
from chassis.standstill import Standstill

S = TypeVar("S")

LOADS_AT_ONCE = 3
"""Connections that one batch reads by, at most: half of a process' pool by default."""

GIVEN_UP_MAX = 16
"""Inputs given up one behind the other, with nothing good between them: from here on the trouble is hardly theirs."""

GIVEN_UP_SECONDS = 1.0
"""How long the task then rests, after each of them."""

log = logs.get("settling")


@dataclass(frozen=True, slots=True)
class Refusal(Generic[S]):
    """A parcel of which nothing was stored, for certain; its task's memory is as before it."""

    parcel: Parcel[S]
    batch: Batch[S]
    why: str
    """What may be told: the error's class and constraint, never a row."""

    is_conflict: bool = False
    failing: int | None = None
    """Which of the batch's inputs could not be decided; None where nobody can tell."""

    is_shared: bool = False
    """Whether other parcels were in the transaction, any of which may be at fault."""


class Settling(Generic[S]):
    """Settles the parcels of one stage's tasks."""

    def __init__(
        self,
        stage: Stage[S],
        settings: Settings,
        clock: Clock,
        assignment: Assignment[S],
        ledger: Ledger[S],
        emission: Emission[S],
        effects: Effects[S],
        acquisition: Acquisition[S],
        standstill: Standstill[S],
        wake: asyncio.Event,
    ) -> None:
        self._stage = stage
        self._settings = settings
        self._clock = clock
        self._assignment = assignment
        self._ledger = ledger
        self._emission = emission
        self._effects = effects
        self._acquisition = acquisition
        self._standstill = standstill
        self._wake = wake
        self._admission: Admission[S] = Admission(stage, settings, clock, emission, assignment.seek)
        self.deciding: Deciding[S] = Deciding(stage, self._admission, emission)
        self._given_up: dict[int, int] = {}
        """By task: inputs given up since one was good."""

    async def attempt(self, parcels: Sequence[Parcel[S]]) -> list[Refusal[S]]:
        """Load, decide, commit, take over: all in one transaction. Return those of which nothing is stored, for certain.

        A task whose outcome is not certain is lost, and says so by its state. Parcels of tasks that are not at work any
        more are left alone: whoever has the lease now reads all of it again.
        """
        made = [
            (parcel, self._build(parcel))
            for parcel in parcels
            if self._assignment.is_at_work(parcel.task)
        ]
        live = [(parcel, batch) for parcel, batch in made if _has_work(batch)]
        if not live:
            return []
        try:
            return await self._settle(live)
        except asyncio.CancelledError:
            # Decided upon in place, or stored and not known to be: neither memory is any good.
            for _, batch in live:
                batch.task.state = TaskState.LOST
            raise

    def keep_only(self, numbers: Set[int]) -> None:
        """Forget what is remembered of the inputs of tasks that are another process' now."""
        self.deciding.keep_only(numbers)
        self._given_up = {n: count for n, count in self._given_up.items() if n in numbers}

    async def _settle(self, live: Sequence[tuple[Parcel[S], Batch[S]]]) -> list[Refusal[S]]:
        began = monotonic()
        now = self._clock.now()
        loaded = await self._load_or_refuse(live)
        if not isinstance(loaded, dict):
            return loaded
        decided, refused = await self._decide(live, loaded, now)
        if not decided:
            return refused
        ours = await self._commit_or_refuse(decided)
        if not isinstance(ours, set):
            return refused + ours
        metrics.BATCH_SECONDS.labels(self._stage.name).observe(monotonic() - began)
        for parcel, batch in decided:
            if batch.task.number in ours:
                parcel.is_ended = batch.halt is not None or batch.reread is not None
                self._take_over(batch)
            else:
                self._acquisition.lose(batch.task, "fenced", self._acquisition.fenced_seconds)
        return refused

    def _build(self, parcel: Parcel[S]) -> Batch[S]:
        """Make a fresh batch of what a parcel holds."""
        batch = Batch(parcel.task, Overlay(parcel.task.position.copy()))
        records: list[Record] = []
        for item in parcel.items:
            match item:
                case TimerRow():
                    if parcel.task.timers.get(item.key, item.name) != item:
                        continue  # A piece before this one has set or cleared it.
                    batch.inputs.append((Tick(item.key, item.name, item.due_at), item))
                case EffectDone():
                    batch.inputs.append((item, None))
                case ParkedRecord():
                    self._admission.readmit(batch, item)
                case Effect():
                    batch.started.append(item)
                    batch.overlay.effects_started.append(item.id)
                case Revisit():
                    batch.inputs.append((item, None))
                    # In order, so whatever is stored of a slice leaves the cursor behind its last key.
                    batch.overlay.walk = Walk(item.revision, item.walk, item.key)
                case Walk():
                    batch.overlay.walk = item
                case record:
                    records.append(record)
        self._admission.admit(batch, records, parcel.notes)
        return batch

    # -- loading -----------------------------------------------------------------------------------------------------

    async def _load_or_refuse(
        self, live: Sequence[tuple[Parcel[S], Batch[S]]]
    ) -> dict[int, dict[str, S]] | list[Refusal[S]]:
        try:
            return await self._load([batch for _, batch in live])
        except DATABASE_ERRORS as error:
            if not isinstance(error, REFUSALS):
                self._acquisition.lose_to(error, [batch.task for _, batch in live])
                return []
            return await self._refuse(live, error)
        except Exception as error:
            # A store that cannot read for one input must not hold up the others for ever.
            log.exception("load_failed", stage=self._stage.name, error=type(error).__name__)
            return await self._refuse(live, error)

    async def _load(self, batches: Sequence[Batch[S]]) -> dict[int, dict[str, S]]:
        loaded: dict[int, dict[str, S]] = {}
        wanted: list[tuple[Batch[S], list[Input], list[str]]] = []
        for batch in batches:
            inputs = self.deciding.worth_loading(batch)
            keys = dict.fromkeys(item.key for item in inputs)
            if self._stage.loads_all:
                missing: list[str] = []
            elif self._stage.keeps_state:
                missing = [key for key in keys if key not in batch.task.states]
            else:
                missing = list(keys)
            loaded[batch.task.number] = {}
            if missing:
                wanted.append((batch, inputs, missing))

        async def load(lane: Sequence[tuple[Batch[S], list[Input], list[str]]]) -> None:
            async with self._ledger.reading() as connection:
                for batch, inputs, missing in lane:
                    loaded[batch.task.number] = await self._stage.load(
                        connection, batch.task.number, inputs, missing
                    )

        # Side by side: a load may be a dozen ways to the server and back, and one task need not wait for another's. All
        # of them end before a failure is passed on, since what they read for is then begun anew.
        lanes = [wanted[n::LOADS_AT_ONCE] for n in range(min(LOADS_AT_ONCE, len(wanted)))]
        failures = [
            failed
            for failed in await asyncio.gather(*map(load, lanes), return_exceptions=True)
            if isinstance(failed, BaseException)
        ]
        if failures:
            raise _gravest(failures)
        return loaded

    # -- deciding ----------------------------------------------------------------------------------------------------

    async def _decide(
        self,
        live: Sequence[tuple[Parcel[S], Batch[S]]],
        loaded: dict[int, dict[str, S]],
        now: datetime,
    ) -> tuple[list[tuple[Parcel[S], Batch[S]]], list[Refusal[S]]]:
        """Decide batch by batch; return those that went well, and those with an input that fails."""
        decided: list[tuple[Parcel[S], Batch[S]]] = []
        refused: list[Refusal[S]] = []
        for parcel, batch in live:
            try:
                self.deciding.decide(batch, loaded[batch.task.number], now)
            except Suspect as suspect:
                metrics.RETRIED.labels(self._stage.name, "handler_failed").inc()
                log.error(  # noqa: TRY400 - the cause carries the traceback
                    "handler_failed",
                    stage=self._stage.name,
                    task=batch.task.number,
                    cause=suspect.cause,
                    attempts=suspect.attempts,
                    error=suspect.error,
                    exc_info=suspect.__cause__,
                )
                if await self._restore(batch):
                    refused.append(Refusal(parcel, batch, suspect.error, failing=suspect.index))
            else:
                relay = batch.task.relay
                batch.overlay.acked_oid = relay.acked_oid if relay is not None else 0
                decided.append((parcel, batch))
        return decided, refused

    # -- committing --------------------------------------------------------------------------------------------------

    async def _commit_or_refuse(
        self, decided: Sequence[tuple[Parcel[S], Batch[S]]]
    ) -> set[int] | list[Refusal[S]]:
        try:
            return await self._ledger.commit(
                [Write(batch.task.number, batch.task.epoch, batch.overlay) for _, batch in decided]
            )
        except (Refused, Conflict) as error:
            return await self._refuse(decided, error)
        except (*DATABASE_ERRORS, Fenced) as error:
            self._acquisition.lose_to(error, [batch.task for _, batch in decided])
            return []

    async def _refuse(
        self, live: Sequence[tuple[Parcel[S], Batch[S]]], error: Exception
    ) -> list[Refusal[S]]:
        """Say of all parcels of a transaction or a load that nothing of them is stored, and make good their memory."""
        cause = error.__cause__ if error.__cause__ is not None else error
        facts = database_facts(error)
        is_conflict = isinstance(error, Conflict)
        metrics.RETRIED.labels(self._stage.name, "conflict" if is_conflict else "refused").inc()
        log.warning(
            "batch_refused",
            stage=self._stage.name,
            tasks=[batch.task.number for _, batch in live],
            inputs=sum(len(batch.inputs) for _, batch in live),
            error=type(cause).__name__,
            **facts,
        )
        if isinstance(error, Refused) and not isinstance(cause, REFUSALS):
            log.error("store_failed", stage=self._stage.name, exc_info=cause)
        told = [type(cause).__name__, *(f"{name} {value}" for name, value in facts.items())]
        return [
            Refusal(parcel, batch, ", ".join(told), is_conflict, is_shared=len(live) > 1)
            for parcel, batch in live
            if await self._restore(batch)
        ]

    async def _restore(self, batch: Batch[S]) -> bool:
        """Leave a task's memory as it was before a batch; false where the task is lost instead.

        Position, timers, parked keys and queues have not moved. States may have been changed in place: those that the
        batch was decided on are forgotten, and the next load reads what the database says. Of a stage that is loaded
        whole there is no part, so it is loaded whole again.
        """
        task = batch.task
        if not self._stage.loads_all:
            for item, _ in batch.inputs:
                task.states.pop(item.key, None)
            return True
        if batch.deciding is None:
            return True  # Nothing was decided.
        try:
            task.states = await self._acquisition.load_all(task.number)
        except DATABASE_ERRORS as error:
            self._acquisition.lose_to(error, [task])
            return False
        return True

    # -- taking over -------------------------------------------------------------------------------------------------

    def _take_over(self, batch: Batch[S]) -> None:
        """The commit stands: memory follows."""
        task, overlay = batch.task, batch.overlay
        given_up = self.deciding.settled(batch)
        self._count(task.position, overlay.position)
        self._emission.tell_parked(batch)
        task.position = overlay.position
        self._remember(task, overlay)
        self._apply_timers(task, overlay)
        if overlay.walk is not None:
            task.walk = overlay.walk
            visits = sum(isinstance(item, Revisit) for item, _ in batch.inputs)
            metrics.REVISITS.labels(self._stage.name).inc(visits)
        self._apply_parked(task, overlay)
        task.effects.extend(effect for _, effect in overlay.effects.values())
        if overlay.effects:
            self._wake.set()
        for item, _ in batch.inputs:
            if isinstance(item, EffectDone):
                metrics.EFFECTS.labels(self._stage.name, item.result.status).inc()
                self._effects.recorded(item)
                task.effects_withdrawn.discard(item.effect.id)
        task.effects_withdrawn.update(overlay.effects_unbegun)
        if task.relay is not None:
            task.relay.append(overlay.outbox)
            task.relay.ack_noted(overlay.acked_oid)
            self._assignment.throttle(task)
        self._effects.begin(task, batch.started)
        self._standstill.see_to(batch)
        self._rest_after(batch, given_up)

    def _count(self, before: Position, after: Position) -> None:
        """Count what became of the records, once it is true."""
        for outcome in ("applied", "duplicate", "ignored", "parked"):
            change = getattr(after, f"n_{outcome}") - getattr(before, f"n_{outcome}")
            if change > 0:
                metrics.RECORDS.labels(self._stage.name, outcome).inc(change)

    def _remember(self, task: Task[S], overlay: Overlay[S]) -> None:
        """Keep the states just written, the youngest last; drop the oldest above the limit."""
        if not self._stage.keeps_state:
            return
        for key, state in overlay.states.items():
            task.states.pop(key, None)
            if state is not None:
                task.states[key] = state
        if not self._stage.loads_all:
            while len(task.states) > self._settings.cached_keys:
                task.states.pop(next(iter(task.states)))

    def _apply_timers(self, task: Task[S], overlay: Overlay[S]) -> None:
        now = self._clock.now()
        for fired in overlay.fired.values():
            metrics.TIMER_LATENESS.labels(self._stage.name).observe(
                (now - fired.due_at).total_seconds()
            )
        task.timers.apply((reference, None) for reference in overlay.fired)
        task.timers.apply(overlay.timers.items())

    @staticmethod
    def _apply_parked(task: Task[S], overlay: Overlay[S]) -> None:
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

    def _rest_after(self, batch: Batch[S], given_up: int) -> None:
        """Where input after input has to be given up, something else is broken: park no faster than somebody can look."""
        number = batch.task.number
        if given_up < len(batch.inputs):
            self._given_up.pop(number, None)
        elif given_up:
            self._given_up[number] = self._given_up.get(number, 0) + given_up
            if self._given_up[number] >= GIVEN_UP_MAX:
                self._acquisition.lose(batch.task, "giving_up", GIVEN_UP_SECONDS)


def _has_work(batch: Batch[S]) -> bool:
    overlay = batch.overlay
    return bool(
        batch.inputs
        or overlay.parked
        or batch.halt
        or batch.reread
        or batch.hole
        or overlay.effects_started
        or overlay.walk is not None
        or overlay.position != batch.task.position
    )


def _gravest(failures: Iterable[BaseException]) -> BaseException:
    """Return the failure that says most against going on: the end of the loop, then doubt, then a refusal."""

    def weight(error: BaseException) -> int:
        if not isinstance(error, Exception):
            return 2
        return int(isinstance(error, DATABASE_ERRORS) and not isinstance(error, REFUSALS))

    return max(failures, key=weight)
