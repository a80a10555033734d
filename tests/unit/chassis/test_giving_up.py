"""How a task is taken, given up and left: in bounded time, with nothing left running and nothing said of others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from pydantic import SecretStr
from structlog.testing import capture_logs

import chassis.acquisition
import chassis.effects
import chassis.task
from chassis import metrics
from chassis.batch import Task, TaskState
from chassis.clock import SystemClock, monotonic
from chassis.ledger import Lease, Position, Walk, Write
from chassis.settings import Settings
from chassis.stage import Effect, EffectDone, EffectResult, EffectStanding
from chassis.task import Worker
from tests.faults.pipeline import StageA, Tally

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SETTINGS = Settings(kafka="x:1", database_url=SecretStr("postgresql://x"), partitions=1)
HERE = TopicPartition("inbound", 0)
HALT = {"topic": "inbound", "source": None, "last": 5, "got": None, "offset": 9, "reason": "x"}


class Consumer:
    """Remembers what it is told to hand out."""

    def __init__(self) -> None:
        self.paused: set[TopicPartition] = set()

    def assignment(self) -> set[TopicPartition]:
        return {HERE}

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused -= set(partitions)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        return

    async def commit(self, offsets: Any) -> None:
        return

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[Any, int]:
        return dict.fromkeys(partitions, 100)


class Ledger:
    """Holds one lease of a halted task, and fails to commit as often as it is told to."""

    def __init__(self) -> None:
        self.epoch = 0
        self.halted: dict[str, Any] | None = dict(HALT)
        self.failures: list[Exception] = []
        self.looks = 0

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        yield None

    async def peek_offsets(self, task: int) -> dict[str, int]:
        return {}

    async def acquire(self, task: int, owner: str, topology: int) -> Lease:
        self.epoch += 1
        return Lease(self.epoch, Position(offsets={"inbound": 5}, halted=self.halted))

    async def load_outbox(self, *_: Any) -> list[Any]:
        return []

    async def load_walk(self, *_: Any) -> Walk:
        return Walk()

    async def load_timers(self, *_: Any) -> list[Any]:
        return []

    async def load_effects(self, task: int) -> list[tuple[Effect, EffectStanding]]:
        return [(Effect("e1", "k1", {}), "waiting")]

    async def load_parked_keys(self, task: int) -> dict[str, list[str]]:
        return {}

    async def load_superseded(self, task: int) -> set[str]:
        return set()

    async def measure_skew(self, clock: Any) -> float:
        return 0.0

    async def is_halted(self, task: int) -> bool:
        self.looks += 1
        return self.halted is not None

    async def commit(self, writes: Sequence[Write[Any]]) -> set[int]:
        if self.failures:
            raise self.failures.pop()
        return {write.task for write in writes}


class Relay:
    """Stands in for the real one: counts its lives, and stops when it is let."""

    made: list["Relay"]

    def __init__(self, **_: Any) -> None:
        self.is_running = False
        self.pages = 0
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self.lock_when_paged: Callable[[], bool] = lambda: False
        self.acked_oid = 0
        Relay.made.append(self)

    def start(self, *_: Any, **__: Any) -> None:
        self.is_running = True

    async def stop(self, drain_seconds: float = 0.0) -> None:
        await self.may_stop.wait()
        self.is_running = False

    async def page(self) -> None:
        self.pages += 1
        assert self.lock_when_paged()


@pytest.fixture(autouse=True)
def in_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Relay.made = []
    monkeypatch.setattr(chassis.acquisition, "Relay", Relay)
    with capture_logs():
        yield


@pytest.fixture
async def worker() -> AsyncIterator[Worker[Tally]]:
    """A worker on the things above; its background work ends with the test."""
    pool: Any = None
    one = Worker(StageA(), SETTINGS, pool, SystemClock())
    ledger: Any = Ledger()
    one.ledger = one._acquisition._ledger = ledger
    consumer = Consumer()
    one.assignment.bus = one.bus = SimpleNamespace(consumer=consumer, stop=_nothing)  # type: ignore[assignment]
    yield one
    one.assignment.is_stopping = True
    for running in list(one.assignment.background):
        running.cancel()
    await asyncio.gather(*one.assignment.background, return_exceptions=True)


async def _nothing() -> None:
    return


def ledger_of(worker: Worker[Tally]) -> Ledger:
    found: Any = worker._acquisition._ledger
    assert isinstance(found, Ledger)
    return found


def own(worker: Worker[Tally]) -> Task[Tally]:
    """Give the worker a task that holds its lease and has a relay."""
    task: Task[Tally] = Task(0, worker.assignment.generation, (HERE,), TaskState.OWNED, 1)
    relay: Any = Relay()
    relay.start()
    task.relay = relay
    worker.assignment.tasks[0] = task
    metrics.OWNED.labels("pipeline_a", "0").set(1)
    return task


def owned_gauge() -> float:
    return float(metrics.OWNED.labels("pipeline_a", "0")._value.get())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0)


# -- taking ----------------------------------------------------------------------------------------------------------


async def test_an_acquisition_that_halts_and_cannot_say_so_leaves_no_relay_and_fills_no_task_twice(
    worker: Worker[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.acquisition, "ACQUIRE_AGAIN_SECONDS", 0.0)
    ledger_of(worker).failures = [OSError("the network"), OSError("the network")]
    worker.on_assigned({HERE})
    first = worker.tasks[0]
    await until(lambda: worker.tasks[0].state is TaskState.HALTED)
    await until(lambda: sum(relay.is_running for relay in Relay.made) == 1)
    assert len(Relay.made) == 3
    assert worker.tasks[0] is not first
    assert first.state is TaskState.LOST
    assert [effect.id for effect in worker.tasks[0].effects] == ["e1"]


async def test_a_halted_task_goes_on_publishing_what_is_still_in_the_table(
    worker: Worker[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.acquisition, "HALT_LOOK_SECONDS", 0.0)
    worker.on_assigned({HERE})
    await until(lambda: worker.tasks[0].state is TaskState.HALTED)
    task = worker.tasks[0]
    relay: Any = task.relay
    relay.lock_when_paged = task.lock.locked
    await until(lambda: relay.pages >= 3)
    assert task.state is TaskState.HALTED
    ledger_of(worker).halted = None
    await until(lambda: worker.tasks[0] is not task)


# -- letting go ------------------------------------------------------------------------------------------------------


async def test_a_task_of_the_past_that_is_lost_says_nothing_of_the_one_in_its_place(
    worker: Worker[Tally],
) -> None:
    past = own(worker)
    own(worker)
    worker._acquisition.lose(past, "bug", 0.0)
    assert owned_gauge() == 1
    assert past.state is TaskState.LOST


async def test_giving_up_the_tasks_takes_half_a_session_at_most_whatever_hangs(
    worker: Worker[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_session_seconds", 0.2)
    task = own(worker)
    relay: Any = task.relay
    relay.may_stop.clear()
    task.effects_running["k1"] = "e1"
    began = monotonic()
    async with task.lock:  # A commit that does not end.
        await worker.on_revoked({HERE})
    assert monotonic() - began < 1.0
    assert worker.tasks == {}
    assert owned_gauge() == 0
    relay.may_stop.set()
    await until(lambda: not relay.is_running)  # Behind our back, but to its end.


async def test_whoever_waits_for_effects_waits_for_no_other_work_of_their_tasks(
    worker: Worker[Tally],
) -> None:
    task, effects = own(worker), worker.effects
    result = EffectDone(Effect("e1", "k1", {}), EffectResult("done"))
    async with task.lock:  # A slice of a walk, or of a burst.
        began = monotonic()
        await effects.drain(began + 5.0)
        assert monotonic() - began < 1.0
        effects._performed["e1/1"] = chassis.effects._Performed(0, result.result, began)
        draining = asyncio.create_task(effects.drain(monotonic() + 5.0))
        await asyncio.sleep(0.05)
        assert not draining.done(), "a result is being recorded"
        effects.recorded(result)
        await asyncio.wait_for(draining, 1.0)


async def test_the_intake_is_closed_before_anything_is_waited_for(
    worker: Worker[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = own(worker)
    task.is_throttled = True
    consumer: Any = worker.consumer
    seen: list[tuple[bool, bool]] = []

    async def drain(deadline: float) -> None:
        worker.assignment.throttle(task)  # The outbox is short again.
        seen.append((HERE in consumer.paused, worker.assignment.is_at_work(task)))

    relay: Any = task.relay
    relay.is_long, relay.is_short = False, True
    monkeypatch.setattr(worker.effects, "drain", drain)
    await worker.on_revoked({HERE})
    assert seen == [(True, True)]


async def test_effects_are_begun_again_after_a_rebalance_but_not_while_the_process_ends(
    worker: Worker[Tally],
) -> None:
    await worker.on_revoked({HERE})
    assert not worker.effects.is_closed

    async def stop() -> None:
        await worker.on_revoked({HERE})  # The group rebalances in that very moment.

    worker.bus.stop = stop  # type: ignore[method-assign]
    await worker.stop()
    assert worker.effects.is_closed


async def test_results_nobody_records_are_forgotten_once_their_task_is_long_gone(
    worker: Worker[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    effects = worker.effects

    async def perform(effect: Effect) -> EffectResult:
        return EffectResult("done")

    monkeypatch.setattr(worker.stage, "perform", perform)
    effect = Effect("e1", "k1", {})
    effects.begin(own(worker), [effect])
    await until(lambda: not effects.performing)
    worker.assignment.drop()
    worker.on_assigned(set())
    assert len(effects._performed) == 1  # It may come back at once.
    monkeypatch.setattr(chassis.effects, "PERFORMED_SECONDS", 0.0)
    worker.on_assigned(set())
    assert effects._performed == {}


async def test_a_result_of_a_task_that_is_still_ours_is_kept_however_old(
    worker: Worker[Tally], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.effects, "PERFORMED_SECONDS", 0.0)

    async def perform(effect: Effect) -> EffectResult:
        return EffectResult("done")

    monkeypatch.setattr(worker.stage, "perform", perform)
    effect = Effect("e1", "k1", {})
    worker.effects.begin(own(worker), [effect])
    await until(lambda: not worker.effects.performing)
    worker.effects.keep_only({0})
    task: Task[Tally] = Task(0, 0, (HERE,))
    worker.effects.resume(task, effect, "begun")
    assert list(task.results) == [EffectDone(effect, EffectResult("done"))]


# -- resting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["", "is_held", "is_throttled"])
async def test_a_task_that_has_rested_reads_on_unless_it_is_paused_for_something_else(
    worker: Worker[Tally], why: str
) -> None:
    task = own(worker)
    consumer: Any = worker.consumer
    worker.assignment.rest(task, 0.0)
    assert HERE in consumer.paused
    if why:
        setattr(task, why, True)
    await until(lambda: not worker.assignment.background)
    assert (HERE in consumer.paused) == bool(why)
