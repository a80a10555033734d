"""Deciding: the inputs of a batch, one after the other, against the states as the earlier ones left them."""

from collections.abc import Set
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from chassis import deadletters, logs
from chassis.admission import Admission
from chassis.batch import Batch
from chassis.deadletters import ParkedRecord, Reason
from chassis.emission import Emission
from chassis.ledger import TimerRow
from chassis.stage import EffectDone, Input, Outcome, Received, Revisit, Stage, Tick

S = TypeVar("S")
ATTEMPTS_MAX = 3
"""A record whose decision fails is tried this often, then parked."""

REFUSALS_MAX = 2
"""An input whose decision cannot be stored, though it stands alone, is tried this often: its batch has shown it before.
One that meets conflicts is tried longer (`chassis.cutting`), and then counts as refused this often."""

TIMER_AGAIN = timedelta(minutes=5)
"""A timer whose decision is given up is set again this much later: its key may have nothing else to wake it. Each time
that it is given up once more doubles the wait, up to `TIMER_AGAIN_MAX`."""

TIMER_AGAIN_MAX = timedelta(hours=1)

log = logs.get("decision")


class Suspect(Exception):
    """A decision failed on one input of its batch, the one at `index`; `cause` names it."""

    def __init__(self, index: int, cause: str, attempts: int, error: str) -> None:
        super().__init__(cause)
        self.index = index
        self.cause = cause
        self.attempts = attempts
        self.error = error


class Deciding(Generic[S]):
    """Runs one stage's `decide` and puts what it answers into the overlay."""

    def __init__(self, stage: Stage[S], admission: Admission[S], emission: Emission[S]) -> None:
        self.stage = stage
        self._admission = admission
        self._emission = emission
        self._suspects: dict[tuple[int, str], int] = {}
        """By task and cause: how often the decision has failed."""
        self._refused: dict[tuple[int, str], tuple[int, str]] = {}
        """By task and cause: how often, and what was said the last time."""
        self._timers_given_up: dict[tuple[int, str, str], int] = {}
        """By task, key and name: how often one behind the other."""

    def refused(self, batch: Batch[S], why: str = "", times: int = 1) -> None:
        """Count that nothing could be read or stored for the one input of a batch, and `why`: never with its contents."""
        place = (batch.task.number, batch.inputs[0][0].cause)
        self._refused[place] = (self._refused.get(place, (0, ""))[0] + times, why)

    def settled(self, batch: Batch[S]) -> int:
        """Forget the failures of inputs that are stored, applied or parked; a replay is tried as often again.

        Not before the commit: where two inputs of a batch fail, each would set back the count of the other. Returns how
        many of the inputs were given up, and parked for that.
        """
        given_up = 0
        if not (self._suspects or self._refused or self._timers_given_up):
            return given_up
        number = batch.task.number
        for item, _ in batch.inputs:
            is_given_up = self._why_given_up(number, item) is not None
            given_up += is_given_up
            self._suspects.pop((number, item.cause), None)
            self._refused.pop((number, item.cause), None)
            if isinstance(item, Tick):
                timer = (number, item.key, item.name)
                times = self._timers_given_up.pop(timer, 0)
                if is_given_up:
                    self._timers_given_up[timer] = times + 1
        return given_up

    def keep_only(self, numbers: Set[int]) -> None:
        """Forget the failures of tasks that are another process' now."""
        self._suspects = {at: n for at, n in self._suspects.items() if at[0] in numbers}
        self._refused = {at: n for at, n in self._refused.items() if at[0] in numbers}
        self._timers_given_up = {
            at: n for at, n in self._timers_given_up.items() if at[0] in numbers
        }

    def worth_loading(self, batch: Batch[S]) -> list[Input]:
        """Return the inputs that will be decided; the others are parked as they are."""
        if not self._refused:
            return [item for item, _ in batch.inputs]
        number = batch.task.number
        return [item for item, _ in batch.inputs if self._why_given_up(number, item) is None]

    def _why_given_up(self, number: int, item: Input) -> str | None:
        """Return why an input is to be parked undecided; None where it is to be decided."""
        if self._suspects.get((number, item.cause), 0) >= ATTEMPTS_MAX:
            return f"the handler failed {ATTEMPTS_MAX} times"
        times, why = self._refused.get((number, item.cause), (0, ""))
        if times < REFUSALS_MAX:
            return None
        told = f": {why}" if why else ""
        return f"what was decided could not be stored {times} times{told}"

    def decide(self, batch: Batch[S], loaded: dict[str, S], now: datetime) -> None:
        """Decide the inputs of a batch in order, each on what the earlier ones left.

        Raises:
            Suspect: one of them cannot be decided, or what was decided cannot be told: nothing of the batch may be
                stored. After a few times it is parked instead.
        """
        task, overlay = batch.task, batch.overlay
        for index, (item, origin) in enumerate(batch.inputs):
            batch.deciding = index
            if isinstance(item, Tick):
                assert isinstance(origin, TimerRow)
                if (item.key, item.name) in overlay.timers:
                    continue  # An earlier input of this batch has set or cleared it.
                overlay.fired[item.key, item.name] = origin
            if isinstance(item, EffectDone):
                overlay.effects_settled.append(item.effect.id)
                overlay.effects_withdrawn.pop(item.effect.id, None)
            if self._suspects or self._refused:
                why = self._why_given_up(task.number, item)
                if why is not None:
                    # Not among what may fail and be tried again: that would never end.
                    self._give_up(batch, item, origin, why, now)
                    continue
            key = item.key
            if key in overlay.states:
                state = overlay.states[key]
            else:
                found = task.states.get(key)
                state = found if found is not None else loaded.get(key)
            try:
                outcome = self.stage.decide(state, item, now)
                self._apply(batch, index, item, origin, outcome, now)
                if outcome.is_changed and outcome.park is None:
                    overlay.states[key] = outcome.state
            except Exception as error:
                place = (task.number, item.cause)
                self._suspects[place] = times = self._suspects.get(place, 0) + 1
                raise Suspect(index, item.cause, times, type(error).__name__) from error

    def _give_up(self, batch: Batch[S], item: Input, origin: Any, why: str, now: datetime) -> None:
        self._park_outcome(batch, item, origin, (Reason.HANDLER_FAILED, why), now)
        if isinstance(item, Tick):
            times = self._timers_given_up.get((batch.task.number, item.key, item.name), 0)
            wait = min(TIMER_AGAIN * 2 ** min(times, 10), TIMER_AGAIN_MAX)
            self._emission.set_timer(batch, item.key, item.name, now + wait)

    def _apply(
        self,
        batch: Batch[S],
        index: int,
        item: Input,
        origin: Any,
        outcome: Outcome[S],
        now: datetime,
    ) -> None:
        overlay = batch.overlay
        position = overlay.position
        if outcome.park is not None:
            self._park_outcome(batch, item, origin, outcome.park, now)
            return
        replayed = batch.resolves.get(index)
        if isinstance(item, Received):
            if replayed is not None:
                overlay.resolved.append((replayed, "replayed"))
                position.n_parked -= 1
            if outcome.ignored is not None:
                position.n_ignored += 1
            else:
                position.n_applied += 1
        overlay.rows.extend(outcome.rows)
        if outcome.events:
            self._emission.emit_all(batch, item, outcome.events, now)
        for name, due_at in outcome.timers.items():
            self._emission.set_timer(batch, item.key, name, due_at)
        for effect in outcome.effects:
            overlay.effects[effect.id] = (position.next_oid, effect)
            position.next_oid += 1
        overlay.effects_withdrawn.update(dict.fromkeys(outcome.withdrawn))

    def _park_outcome(
        self,
        batch: Batch[S],
        item: Input,
        origin: Any,
        park: tuple[str, str],
        now: datetime,
    ) -> None:
        reason, detail = park
        if isinstance(origin, ParkedRecord):
            self._emission.park(batch, deadletters.park_again(origin, reason, detail, now))
        elif isinstance(item, Received):
            assert origin is not None
            self._admission.park_record(
                batch, item.topic, origin, reason, detail, item.envelope, item.key
            )
        else:
            log.critical(
                "input_dropped",
                stage=self.stage.name,
                task=batch.task.number,
                cause=item.cause,
                reason=reason,
                detail=detail,
            )
            batch.overlay.parked.append(
                deadletters.park(
                    identity=item.cause,
                    stage=self.stage.name,
                    task=batch.task.number,
                    topic=_kind(item),
                    partition=batch.task.number,
                    offset=batch.overlay.position.next_oid,
                    key=item.key.encode(),
                    headers=(),
                    value=item.cause.encode(),
                    reason=reason,
                    error=detail,
                    state_key=item.key,
                    now=now,
                )
            )


def _kind(item: Input) -> str:
    """Return what stands for a topic where an input that is no record is set aside."""
    match item:
        case Tick():
            return "tick"
        case Revisit():
            return "revisit"
        case _:
            return "effect"
