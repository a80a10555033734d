"""A world without servers: real stages, wired by their topics, on a simulated clock.

Admission, decision and emission are the loop's own (`chassis.admission`, `.decision`, `.emission`): sequence checks,
duplicates, parking, derived ids, numbering and partitions are what they are in production. In memory instead are the
topics (a list a partition), the ledger (positions, states, timers, effects, parked records) and the relay (what a batch
emits is on the topics at once). A batch is all or nothing here too.

    world = World([TicketsStage(policies), SlaStage(policies)], partitions=4, start=at("09:00:00"))
    world.accept(MessageReceived(…), key=conversation_id)
    world.advance(to=at("09:15:00"))
    assert world.events(SLA, TargetBreached)

Nothing here waits and nothing is random: the same calls give the same events, to the byte.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar, overload

from pydantic import SecretStr

from chassis.admission import Admission
from chassis.batch import Batch, Reread, Task, TaskState, partition_of
from chassis.deadletters import ParkedRecord, unpack_own_headers
from chassis.decision import Deciding, Suspect
from chassis.effects import WITHDRAWN
from chassis.emission import Emission
from chassis.ledger import Overlay, Position, TimerMark, past_the_gap
from chassis.settings import Settings
from chassis.spool import GATEWAY
from chassis.stage import Effect, EffectDone, EffectResult, Input, Stage, Tick
from chassis.testing.instants import FakeClock
from chassis.tracing import Tracing
from schemas import ids
from schemas.envelope import Envelope, EnvelopeError, read_record
from schemas.registry import REGISTRY, Payload
from schemas.topics import BY_NAME, LAPTOP_PARTITIONS, Topic

S = TypeVar("S")
P = TypeVar("P", bound=Payload)

BATCH_RECORDS = 500
STEPS_MAX = 1_000_000
"""Batches at one instant after which the stages are taken to feed each other for ever."""

_FOREVER = datetime.max.replace(tzinfo=UTC)


class WorldError(Exception):
    """The world was used in a way that the real platform could not be, or its stages never come to rest."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record of a topic, as a consumer would get it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the records a stage has read, over all its tasks."""

    read: int
    applied: int
    duplicate: int
    ignored: int
    parked: int

    @property
    def is_complete(self) -> bool:
        """Whether every record read is accounted for."""
        return self.read == self.applied + self.duplicate + self.ignored + self.parked


@dataclass(slots=True)
class Memory(Generic[S]):
    """What a stage has stored: the states of each task, and the rows its outcomes wrote, as (task, row), in order."""

    states: dict[int, dict[str, S]] = field(default_factory=lambda: defaultdict(dict))
    rows: list[tuple[int, Any]] = field(default_factory=list)


class Loader(Protocol):
    """Stands in for a stage's `load` where that reads more than states: answers from what is in `memory`."""

    def __call__(
        self, memory: Memory[Any], task: int, inputs: Sequence[Input], missing: Sequence[str]
    ) -> Mapping[str, Any]:
        """Return the states of the `missing` keys that exist."""
        ...


Perform = Callable[[Effect], EffectResult]
"""Does an effect, or pretends to."""


class _Runner(Generic[S]):
    """One stage with all its tasks."""

    def __init__(
        self, stage: Stage[S], settings: Settings, clock: FakeClock, loader: Loader | None
    ) -> None:
        self.stage = stage
        self.memory: Memory[S] = Memory()
        self.loader = loader
        self.emission: Emission[S] = Emission(stage, settings, Tracing(stage.name))
        self.admission: Admission[S] = Admission(
            stage, settings, clock, self.emission, lambda *_: None
        )
        self.deciding: Deciding[S] = Deciding(stage, self.admission, self.emission)
        self.tasks: list[Task[S]] = [
            Task(number, 1, (), TaskState.OWNED, epoch=1) for number in range(settings.partitions)
        ]
        for task in self.tasks:
            task.timers.load((), TimerMark(_FOREVER))

    def load(self, batch: Batch[S], is_strict: bool) -> dict[str, S]:
        """Return the states that a batch needs; copies where a failed decision has to leave no trace."""
        number = batch.task.number
        keys = list(dict.fromkeys(item.key for item, _ in batch.inputs))
        if self.loader is not None:
            inputs = [item for item, _ in batch.inputs]
            found = dict(self.loader(self.memory, number, inputs, keys))
        else:
            states = self.memory.states[number]
            found = {key: states[key] for key in keys if key in states}
        return found if is_strict else copy.deepcopy(found)


class World:
    """Runs `stages` against each other, one batch at a time, in the order they are given.

    `loaders` and `perform` are by stage name: how to load a stage's states where its own `load` reads tables of its
    own, and how to do its effects (without an entry the stage's own `perform` is run; it must not really wait).
    A decision that raises is raised here too; with `is_strict=False` it is tried again and then parked, as the loop does.
    """

    def __init__(
        self,
        stages: Sequence[Stage[Any]],
        *,
        partitions: int = LAPTOP_PARTITIONS,
        start: datetime | None = None,
        workspace: str = "default",
        loaders: Mapping[str, Loader] | None = None,
        perform: Mapping[str, Perform] | None = None,
        is_strict: bool = True,
    ) -> None:
        self.clock = FakeClock(start)
        self.partitions = partitions
        self._workspace = workspace
        self._perform = dict(perform or {})
        self._is_strict = is_strict
        settings = Settings(
            kafka="in memory",
            database_url=SecretStr("in memory"),
            partitions=partitions,
            workspace=workspace,
            topic_prefix="",
        )
        known = dict(loaders or {})
        self._runners: dict[str, _Runner[Any]] = {
            stage.name: _Runner(stage, settings, self.clock, known.pop(stage.name, None))
            for stage in stages
        }
        if len(self._runners) != len(stages):
            raise WorldError("two stages have the same name")
        unknown = sorted({*known, *(self._perform.keys() - self._runners.keys())})
        if unknown:
            raise WorldError(f"no stage is called {', '.join(unknown)}")
        self._logs: dict[str, list[list[LogRecord]]] = defaultdict(
            lambda: [[] for _ in range(partitions)]
        )
        self._order: dict[str, list[LogRecord]] = defaultdict(list)
        self._accepted: dict[tuple[str, int], int] = defaultdict(int)
        self._parked: dict[str, ParkedRecord] = {}
        self._replays: list[ParkedRecord] = []

    # -- putting things in -------------------------------------------------------------------------------------------

    def publish(
        self, topic: Topic | str, envelope: Envelope, payload: Payload, *, key: str | None = None
    ) -> LogRecord:
        """Publish an event as it is, numbered or not: as a foreign system does, or to repeat what was there.

        It goes to the partition of `key`, or of the envelope's `partitionkey`.
        """
        chosen = key or envelope.partitionkey
        if not chosen:
            raise WorldError("an event needs a key: set the envelope's partitionkey, or give key=")
        return self.publish_raw(
            topic,
            key=chosen.encode(),
            headers=envelope.to_headers(),
            value=payload.to_json(),
            partition=partition_of(chosen, self.partitions),
        )

    def publish_raw(
        self,
        topic: Topic | str,
        *,
        key: bytes | None,
        headers: Iterable[tuple[str, bytes | None]],
        value: bytes | None,
        partition: int = 0,
    ) -> LogRecord:
        """Publish any bytes: junk, nulls, what no writer of ours would send."""
        name = _topic_name(topic)
        log = self._logs[name][partition]
        record = LogRecord(name, partition, len(log), key, tuple(headers), value)
        log.append(record)
        self._order[name].append(record)
        return record

    def accept(
        self,
        payload: Payload,
        *,
        key: str,
        occurred_at: datetime | None = None,
        correlation: str | None = None,
    ) -> Envelope:
        """Publish to the payload's topic as the gateway does: numbered, from `signalbox/ingest.gateway`."""
        partition = partition_of(key, self.partitions)
        slot = (payload.TOPIC, partition)
        self._accepted[slot] += 1
        sequence = self._accepted[slot]
        envelope = Envelope(
            type=payload.TYPE,
            source=f"signalbox/{GATEWAY}/{partition}",
            id=ids.derive("accepted", payload.TOPIC, str(partition), str(sequence)),
            time=occurred_at or self.clock.now(),
            workspace=self._workspace,
            partitionkey=key,
            correlationid=correlation if correlation is not None else key,
            sequence=sequence,
        )
        self.publish(payload.TOPIC, envelope, payload, key=key)
        return envelope

    def repeat(self, record: LogRecord) -> LogRecord:
        """Publish a record once more, as a relay does that died between an ack and its note of it."""
        return self.publish_raw(
            record.topic,
            key=record.key,
            headers=record.headers,
            value=record.value,
            partition=record.partition,
        )

    # -- running -----------------------------------------------------------------------------------------------------

    def run_until_idle(self) -> None:
        """Handle everything there is at this instant: records, due timers, effects, replays.

        Raises:
            WorldError: the stages feed each other without end.
        """
        for _ in range(STEPS_MAX):
            if not self._round():
                return
        raise WorldError(
            f"no rest after {STEPS_MAX} rounds at {self.clock.now().isoformat()}: a timer set for now, or events in a circle"
        )

    def advance(self, to: datetime | None = None, by: timedelta | None = None) -> None:
        """Move the clock to an instant or by a duration; each timer on the way fires exactly when it is due."""
        target = self.clock.now() + by if by is not None and to is None else to
        if target is None or (to is not None and by is not None):
            raise WorldError("say where to or by how much, not both")
        self.run_until_idle()
        while (due_at := self.next_due()) is not None and due_at <= target:
            self.clock.move(to=max(due_at, self.clock.now()))
            self.run_until_idle()
        self.clock.move(to=target)

    def next_due(self) -> datetime | None:
        """Return when the next timer of any stage is due."""
        return min(
            (
                due_at
                for runner in self._runners.values()
                for task in runner.tasks
                if task.state is TaskState.OWNED and (due_at := task.timers.earliest()) is not None
            ),
            default=None,
        )

    def replay(self, parked_id: str) -> None:
        """Let a parked record in again at the next run."""
        if parked_id not in self._parked:
            raise WorldError(f"no record is parked as {parked_id}")
        self._replays.append(self._parked[parked_id])

    def resume(self, stage: Stage[Any] | str, task: int) -> None:
        """Let a task that stands at a gap go on behind it."""
        found = self._runner(stage).tasks[task]
        if found.state is not TaskState.HALTED:
            raise WorldError(f"task {task} does not stand at a gap")
        found.position = past_the_gap(found.position)
        found.state = TaskState.OWNED

    def _round(self) -> bool:
        is_busy = False
        for runner in self._runners.values():
            for task in runner.tasks:
                if task.state is TaskState.OWNED:
                    is_busy |= self._read(runner, task)
                if task.state is TaskState.OWNED:
                    is_busy |= self._turn(runner, task)
        return is_busy

    def _read(self, runner: _Runner[S], task: Task[S]) -> bool:
        """Handle the next records of a task, topic after topic."""
        records: list[Any] = []
        for topic in runner.stage.topics:
            log = self._logs[topic.name][task.number]
            offset = task.position.offsets.get(topic.name, 0)
            records += log[offset : offset + BATCH_RECORDS]
        if not records:
            return False
        batch: Batch[S] = Batch(task, Overlay(task.position.copy()))
        runner.admission.admit(batch, records)
        self._settle(runner, batch)
        return True

    def _turn(self, runner: _Runner[S], task: Task[S]) -> bool:
        """Handle what a task has besides records: timers, results of effects, replays; then do its effects."""
        batch: Batch[S] = Batch(task, Overlay(task.position.copy()))
        for row in task.timers.due(self.clock.now()):
            batch.inputs.append((Tick(row.key, row.name, row.due_at), row))
        results = list(task.results)
        batch.inputs += [(done, None) for done in results]
        mine = [
            one
            for one in self._replays
            if one.stage == runner.stage.name and one.task == task.number
        ]
        for parked in mine:
            runner.admission.readmit(batch, parked)
        is_busy = bool(batch.inputs or batch.overlay.parked)
        if is_busy and self._settle(runner, batch):
            for _ in results:
                task.results.popleft()
            self._replays = [one for one in self._replays if one not in mine]
        while task.effects:
            is_busy = True
            effect = task.effects.popleft()
            task.effects_running[effect.id] = effect.key
            if effect.id in task.effects_withdrawn:
                task.results.append(EffectDone(effect, WITHDRAWN))
                continue
            task.results.append(EffectDone(effect, self._do(runner.stage, effect)))
        return is_busy

    def _do(self, stage: Stage[S], effect: Effect) -> EffectResult:
        perform = self._perform.get(stage.name)
        try:
            return (
                perform(effect) if perform is not None else _without_waiting(stage.perform(effect))
            )
        except WorldError:
            raise
        except Exception as error:
            if self._is_strict:
                raise
            return EffectResult("unknown", f"the provider failed: {type(error).__name__}")

    def _settle(self, runner: _Runner[S], batch: Batch[S]) -> bool:
        """Decide a batch and store it whole; false where nothing of it stands and it will be tried again."""
        loaded = runner.load(batch, self._is_strict)
        try:
            runner.deciding.decide(batch, loaded, self.clock.now())
        except Suspect as suspect:
            if self._is_strict and suspect.__cause__ is not None:
                raise suspect.__cause__ from None
            return False
        self._commit(runner, batch)
        return True

    def _commit(self, runner: _Runner[S], batch: Batch[S]) -> None:
        task, overlay, number = batch.task, batch.overlay, batch.task.number
        runner.deciding.settled(batch)
        task.position = overlay.position
        states = runner.memory.states[number]
        for key, state in sorted(overlay.states.items()):
            if state is None:
                states.pop(key, None)
            else:
                states[key] = state
        runner.memory.rows += [(number, row) for row in overlay.rows]
        task.timers.apply((reference, None) for reference in overlay.fired)
        task.timers.apply(overlay.timers.items())
        for parked in overlay.parked:
            self._parked[parked.id] = parked
        for parked_id, _ in overlay.resolved:
            self._parked.pop(parked_id, None)
        if overlay.parked or overlay.resolved:
            task.parked_keys = self._parked_keys(runner.stage.name, number)
        for effect_id in overlay.effects_settled:
            task.effects_running.pop(effect_id, None)
            task.effects_withdrawn.discard(effect_id)
        for _, effect in overlay.effects.values():
            if effect.id in task.effects_running or any(e.id == effect.id for e in task.effects):
                raise WorldError(f"effect {effect.id} is recorded while it is still open")
            task.effects.append(effect)
        waiting = {effect.id for effect in task.effects}
        task.effects_withdrawn.update(overlay.effects_withdrawn.keys() & waiting)
        for row in overlay.outbox:
            self.publish_raw(
                row.topic,
                key=row.key,
                headers=unpack_own_headers(row.headers),
                value=row.value,
                partition=row.partition,
            )
        if batch.reread is not None:
            self._read_back(task, batch.reread)
        if batch.halt is not None:
            task.position.halted = batch.halt
            task.state = TaskState.HALTED

    def _read_back(self, task: Task[S], reread: Reread) -> None:
        """A source was restored: learn which ids it has forgotten, as the loop does from the log."""
        end = task.position.offsets.get(reread.topic, 0)
        for record in self._logs[reread.topic][task.number][:end]:
            try:
                envelope, _ = read_record(record.headers, record.value)
            except EnvelopeError:
                continue  # It was parked when it came; no source of ours wrote it.
            told = reread.forgotten.get(envelope.source)
            if told is not None and (envelope.sequence or 0) > told:
                task.superseded.add(envelope.id)
        task.position.applied[reread.stream] = 0

    def _parked_keys(self, stage: str, task: int) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for one in self._parked.values():
            if one.state_key is not None and (one.stage, one.task) == (stage, task):
                found[one.state_key].append(one.id)
        return dict(found)

    # -- looking -----------------------------------------------------------------------------------------------------

    def log(self, topic: Topic | str) -> list[LogRecord]:
        """Return the records of a topic in the order they were published, over all partitions."""
        return list(self._order[_topic_name(topic)])

    def read(self, topic: Topic | str) -> list[tuple[Envelope, Payload]]:
        """Return a topic's events in the order they were published; what cannot be read is left out."""
        found = []
        for record in self._order[_topic_name(topic)]:
            try:
                envelope, data = read_record(record.headers, record.value)
                kind = REGISTRY[envelope.type]
                found.append((envelope, kind.model_validate_json(data)))
            except (EnvelopeError, KeyError, ValueError):
                continue  # Published by a test to see it parked.
        return found

    @overload
    def events(self, topic: Topic | str) -> list[Payload]: ...

    @overload
    def events(self, topic: Topic | str, kind: type[P]) -> list[P]: ...

    def events(
        self, topic: Topic | str, kind: type[Payload] = Payload
    ) -> list[Payload] | list[Any]:
        """Return the payloads of a topic in the order they were published, of one type where `kind` says so."""
        return [payload for _, payload in self.read(topic) if isinstance(payload, kind)]

    @property
    def parked(self) -> list[ParkedRecord]:
        """The records that are set aside and not resolved, in the order they were parked."""
        return list(self._parked.values())

    @property
    def halted(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The tasks that stand at a gap, by stage and number, and what each has met."""
        return {
            (name, task.number): dict(task.position.halted or {})
            for name, runner in self._runners.items()
            for task in runner.tasks
            if task.state is TaskState.HALTED
        }

    def states(self, stage: Stage[Any] | str) -> dict[str, Any]:
        """Return the states of a stage by key, over all its tasks."""
        return {
            key: state
            for _, states in sorted(self._runner(stage).memory.states.items())
            for key, state in states.items()
        }

    def rows(self, stage: Stage[Any] | str) -> list[Any]:
        """Return the rows that a stage's outcomes have written, in the order of their commits."""
        return [row for _, row in self._runner(stage).memory.rows]

    def timers(self, stage: Stage[Any] | str) -> dict[tuple[str, str], datetime]:
        """Return a stage's timers, by key and name, and when each is due."""
        return {
            (row.key, row.name): row.due_at
            for task in self._runner(stage).tasks
            for row in task.timers.rows()
        }

    def position(self, stage: Stage[Any] | str, task: int) -> Position:
        """Return how far a task has come."""
        return self._runner(stage).tasks[task].position.copy()

    def counts(self, stage: Stage[Any] | str) -> Counts:
        """Return what became of the records that a stage has read."""
        positions = [task.position for task in self._runner(stage).tasks]
        return Counts(
            read=sum(sum(p.offsets.values()) for p in positions),
            applied=sum(p.n_applied for p in positions),
            duplicate=sum(p.n_duplicate for p in positions),
            ignored=sum(p.n_ignored for p in positions),
            parked=sum(p.n_parked for p in positions),
        )

    def _runner(self, stage: Stage[Any] | str) -> _Runner[Any]:
        name = stage if isinstance(stage, str) else stage.name
        if name not in self._runners:
            raise WorldError(f"no stage is called {name}; there are {', '.join(self._runners)}")
        return self._runners[name]


def _topic_name(topic: Topic | str) -> str:
    name = topic if isinstance(topic, str) else topic.name
    if name not in BY_NAME:
        raise WorldError(f"no topic is called {name}")
    return name


def _without_waiting(work: Coroutine[Any, Any, EffectResult]) -> EffectResult:
    """Run a coroutine that never waits for anything, as a fake provider's does."""
    why: BaseException | None = None
    try:
        work.send(None)
    except StopIteration as end:
        result: EffectResult = end.value
        return result
    except RuntimeError as error:
        if "event loop" not in str(error):
            raise
        why = error
    finally:
        work.close()
    raise WorldError(
        "the stage's perform waits for something outside; give the world a `perform` of your own for it"
    ) from why
