"""What cannot be stored together is taken apart: neighbours go on, the input at fault is parked, nothing is tried for ever."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from aiokafka import ConsumerRecord, TopicPartition
from pydantic import SecretStr
from structlog.testing import capture_logs

import chassis.cutting
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Task, TaskState
from chassis.cutting import CONFLICTS_ALONE_MAX, Cutting
from chassis.decision import ATTEMPTS_MAX, REFUSALS_MAX
from chassis.effects import Effects
from chassis.emission import Emission
from chassis.errors import Conflict, Refused
from chassis.failpoints import Failpoints
from chassis.ledger import Position, TimerRow, Write
from chassis.settings import Settings
from chassis.settling import GIVEN_UP_MAX, Settling
from chassis.stage import Effect, EffectDone, EffectResult, Input, Outcome, Received, Tick
from chassis.standstill import Standstill
from chassis.testing import FakeClock
from chassis.tracing import Tracing
from schemas.envelope import Envelope, read_record
from tests.faults.pipeline import Given, StageA, Tally

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
SETTINGS = Settings(kafka="x:1", database_url=SecretStr("postgresql://x"), partitions=1)


def given(offset: int, n: int | None = None, key: str = "k1", blow_up: int = 0) -> Any:
    """A record of `inbound` as the client hands it over; input `n`, or that of its offset."""
    event = Given(key=key, n=offset if n is None else n, blow_up=blow_up)
    envelope = Envelope(Given.TYPE, "driver", str(offset), NOW, partitionkey=key)
    value, headers = event.to_json(), tuple(envelope.to_headers())
    return ConsumerRecord("inbound", 0, offset, 0, 0, b"k1", value, None, 2, len(value), headers)


class Table:
    """Stands in for the ledger: stores what `refuse` does not object to, whole batches only."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.parked: list[Any] = []
        self.states: dict[str, Tally] = {}
        self.tries = 0
        self.commits = 0
        self.refuse: Callable[[Write[Tally]], Exception | None] = lambda write: None

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        yield None

    async def commit(self, writes: Sequence[Write[Tally]]) -> set[int]:
        self.tries += 1
        for write in writes:
            error = self.refuse(write)
            if error is not None:
                raise error
        self.commits += 1
        for write in writes:
            self.rows += [row.name for row in write.overlay.rows]
            self.parked += write.overlay.parked
            for key, state in write.overlay.states.items():
                assert state is not None
                self.states[key] = copy.copy(state)
        return {write.task for write in writes}


class Counting(StageA):
    """Stage A on the table above; counts how often it loads and decides."""

    def __init__(self, table: Table) -> None:
        super().__init__()
        self._table = table
        self.loads = 0
        self.decided = 0

    async def load(
        self, connection: Any, task: int, inputs: Sequence[Input], missing: Sequence[str]
    ) -> dict[str, Tally]:
        self.loads += 1
        wanted = self._table.states if self.loads_all else missing
        return {key: self._table.states[key] for key in wanted if key in self._table.states}

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        self.decided += 1
        if isinstance(item, EffectDone):
            return Outcome(is_changed=False)
        return super().decide(state, item, now)


class Loop:
    """One stage's loop from a parcel to its commit, with nothing behind it."""

    def __init__(self, make_stage: Callable[[Table], Counting] = Counting) -> None:
        self.table = Table()
        self.stage = make_stage(self.table)
        self.sought: list[int] = []
        consumer = SimpleNamespace(
            assignment=lambda: {TopicPartition("inbound", 0), TopicPartition("inbound", 1)},
            pause=lambda *_: None,
            seek=lambda partition, offset: self.sought.append(offset),
            resume=lambda *_: None,
        )
        bus: Any = SimpleNamespace(consumer=consumer)
        clock, wake, failpoints = FakeClock(NOW), asyncio.Event(), Failpoints()
        ledger: Any = self.table
        self.assignment: Assignment[Tally] = Assignment(self.stage, SETTINGS, bus)
        self.effects: Effects[Tally] = Effects(self.stage, self.assignment, failpoints, wake)
        acquisition: Acquisition[Tally] = Acquisition(
            self.stage,
            SETTINGS,
            clock,
            self.assignment,
            ledger,
            self.effects,
            failpoints,
            wake,
            "o",
        )
        self.lost: list[str] = []

        def lose(task: Task[Tally], reason: str, delay: float) -> None:
            self.lost.append(reason)
            task.state = TaskState.LOST

        acquisition.lose = lose  # type: ignore[method-assign]
        standstill = Standstill(self.stage, SETTINGS, self.assignment, ledger, acquisition)
        emission: Emission[Tally] = Emission(self.stage, SETTINGS, Tracing("test"))
        self.settling: Settling[Tally] = Settling(
            self.stage, SETTINGS, clock, self.assignment, ledger, emission, self.effects,
            acquisition, standstill, wake,
        )  # fmt: skip
        self.cutting: Cutting[Tally] = Cutting(self.assignment, acquisition, self.settling)

    def task(self, number: int = 0) -> Task[Tally]:
        """A task that holds its lease."""
        known = self.assignment.tasks.get(number)
        if known is None:
            partitions = (TopicPartition("inbound", number),)
            known = Task(
                number, 0, partitions, TaskState.OWNED, 1, Position(offsets={"inbound": 0})
            )
            known.timers.load((), datetime.max.replace(tzinfo=UTC))
            self.assignment.tasks[number] = known
        return known

    async def settle(self, *items: Item) -> None:
        """Settle a parcel of the first task."""
        await self.cutting.settle([Parcel(self.task(), items)])


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No pauses, no limit of time unless a test sets one, and no tracebacks drawn on the terminal."""
    monkeypatch.setattr(chassis.cutting, "CONFLICT_SECONDS", 0.0)
    monkeypatch.setattr(chassis.cutting, "CUTTING_SECONDS", 60.0)
    with capture_logs():
        yield


def holds(write: Write[Tally], *inputs: int) -> bool:
    """Whether a batch would store one of these inputs."""
    return bool({row.name for row in write.overlay.rows} & {f"input {n}" for n in inputs})


def refused(cause: Exception) -> Refused:
    error = Refused("a batch cannot be stored")
    error.__cause__ = cause
    return error


def names(*inputs: int) -> list[str]:
    return [f"input {n}" for n in inputs]


@pytest.mark.parametrize("bad", [[250], [0], [499], [7, 8, 9], [0, 100, 200, 300, 400]])
async def test_a_batch_that_is_refused_costs_few_transactions_and_only_the_inputs_at_fault(
    bad: list[int],
) -> None:
    loop = Loop()
    loop.table.refuse = lambda write: (
        refused(asyncpg.CheckViolationError("no")) if holds(write, *bad) else None
    )
    await loop.settle(*(given(offset) for offset in range(500)))
    assert loop.table.rows == names(*(n for n in range(500) if n not in bad))
    assert [parked.offset for parked in loop.table.parked] == bad
    assert loop.table.states["k1"].count == 500 - len(bad)
    assert loop.task().position.offsets == {"inbound": 500}
    assert loop.lost == []
    # Each of three cuts adds at most seven good pieces; alone it is refused twice and then parked.
    assert loop.table.tries <= 1 + len(bad) * (3 * 8 + 3)


async def test_the_dead_letter_says_why_and_quotes_no_row() -> None:
    loop = Loop()
    cause = asyncpg.UniqueViolationError.new(
        {"S": "ERROR", "C": "23505", "M": "dup", "D": "Key (a)=(secret)", "n": "one_name"}
    )
    loop.table.refuse = lambda write: refused(cause) if holds(write, 1) else None
    await loop.settle(given(0), given(1), given(2))
    (parked,) = loop.table.parked
    assert parked.error == (
        "what was decided could not be stored 2 times: UniqueViolationError,"
        " sqlstate 23505, constraint_name one_name"
    )


async def test_nothing_is_decoded_twice_however_often_it_is_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[int] = []

    def read(headers: Any, value: Any) -> Any:
        opened.append(1)
        return read_record(headers, value)

    monkeypatch.setattr("chassis.admission.read_record", read)
    loop = Loop()
    loop.table.refuse = lambda write: refused(ValueError()) if holds(write, 3) else None
    await loop.settle(*(given(offset) for offset in range(64)))
    assert len(opened) == 64


async def test_a_state_changed_in_place_by_a_batch_that_came_to_nothing_is_read_anew() -> None:
    class InPlace(Counting):
        def decide(self, state: Any, item: Input, now: datetime) -> Outcome[Any]:
            assert isinstance(item, Received)
            self.decided += 1
            tally = state if state is not None else [0]
            tally[0] += 1
            rows = super().decide(None, item, now).rows
            return Outcome(state=tally, rows=rows)

        async def load(self, *_: Any) -> dict[str, Any]:
            return {key: list(state) for key, state in self._table.states.items()}  # type: ignore[call-overload]

    loop = Loop(InPlace)
    await loop.settle(given(0))
    loop.table.states = {"k1": [1]}  # type: ignore[dict-item]
    loop.table.refuse = lambda write: refused(ValueError()) if holds(write, 2) else None
    await loop.settle(given(1), given(2), given(3))
    stored: Any = loop.table.states
    assert stored == {"k1": [3]}


async def test_a_stage_that_is_loaded_whole_is_loaded_whole_again_after_a_refusal() -> None:
    class Whole(Counting):
        loads_all = True

    loop = Loop(Whole)
    loop.table.refuse = lambda write: refused(ValueError()) if holds(write, 4) else None
    await loop.settle(*(given(offset, key=f"k{offset % 3}") for offset in range(8)))
    assert loop.table.rows == names(0, 1, 2, 3, 5, 6, 7)
    assert {key: tally.count for key, tally in loop.task().states.items()} == {
        "k0": 3,
        "k1": 2,
        "k2": 2,
    }
    assert loop.stage.loads == 3  # Once for the whole, twice for the one alone.


async def test_a_failing_input_is_tried_alone_and_those_around_it_are_decided_hardly_more() -> None:
    loop = Loop()
    bad = {5, 6, 300}
    await loop.settle(*(given(offset, blow_up=int(offset in bad)) for offset in range(400)))
    assert loop.table.rows == names(*(n for n in range(400) if n not in bad))
    assert [parked.offset for parked in loop.table.parked] == sorted(bad)
    assert loop.lost == []
    assert loop.stage.decided <= 2 * 400 + ATTEMPTS_MAX * len(bad)


async def test_tasks_that_shared_the_transaction_go_on_before_the_fault_is_looked_for() -> None:
    loop = Loop()
    order: list[tuple[int, int]] = []

    def refuse(write: Write[Tally]) -> Exception | None:
        order.append((write.task, len(write.overlay.rows)))
        return refused(ValueError()) if holds(write, 1) else None

    loop.table.refuse = refuse
    other = [given(offset, n=100 + offset) for offset in range(2)]
    await loop.cutting.settle(
        [
            Parcel(loop.task(0), [given(0), given(1), given(2)]),
            Parcel(loop.task(1), other),
        ]
    )
    assert loop.table.rows == names(100, 101, 0, 2)
    assert order[:3] == [(0, 3), (0, 3), (1, 2)]


async def test_a_conflict_that_passes_is_tried_again_whole_and_nothing_is_parked() -> None:
    loop = Loop()
    waiting = [Conflict("taken"), Conflict("taken")]
    loop.table.refuse = lambda write: waiting.pop() if waiting else None
    await loop.settle(given(0), given(1))
    assert loop.table.rows == names(0, 1)
    assert (loop.table.tries, loop.table.parked, loop.lost) == (3, [], [])


async def test_an_input_that_conflicts_with_itself_for_ever_is_parked_with_its_cause() -> None:
    loop = Loop()
    loop.table.refuse = lambda write: Conflict("two want one") if holds(write, 3) else None
    await loop.settle(*(given(offset) for offset in range(10)))
    assert loop.table.rows == names(0, 1, 2, 4, 5, 6, 7, 8, 9)
    (parked,) = loop.table.parked
    assert parked.offset == 3
    assert parked.error.endswith(f"could not be stored {CONFLICTS_ALONE_MAX} times: Conflict")
    assert loop.lost == []


async def test_what_not_even_a_dead_letter_can_hold_is_parked_as_a_place_alone() -> None:
    loop = Loop()

    def refuse(write: Write[Tally]) -> Exception | None:
        has_bytes = any(parked.value for parked in write.overlay.parked)
        return refused(ValueError()) if has_bytes or holds(write, 1) else None

    loop.table.refuse = refuse
    await loop.settle(given(0), given(1), given(2))
    assert loop.table.rows == names(0, 2)
    (parked,) = loop.table.parked
    assert (parked.offset, parked.value) == (1, None)
    assert "lie at this offset" in parked.error


async def test_a_database_that_takes_nothing_at_all_of_an_input_stops_the_task() -> None:
    loop = Loop()
    loop.table.refuse = lambda write: refused(ValueError())
    await loop.settle(given(0))
    assert loop.lost == ["unstorable"]
    assert loop.table.tries == REFUSALS_MAX + 2


async def test_after_doubt_nothing_is_tried_again() -> None:
    loop = Loop()
    loop.table.refuse = lambda write: asyncpg.ConnectionDoesNotExistError("gone")
    await loop.settle(given(0), given(1))
    assert (loop.table.tries, loop.lost) == (1, ["database"])


async def test_doubt_in_the_middle_of_cutting_ends_it() -> None:
    loop = Loop()

    def refuse(write: Write[Tally]) -> Exception | None:
        if loop.table.tries == 1:
            return refused(ValueError())
        return OSError("gone") if loop.table.tries == 3 else None

    loop.table.refuse = refuse
    await loop.settle(*(given(offset) for offset in range(16)))
    assert (loop.table.tries, loop.lost) == (3, ["database"])
    assert loop.table.rows == names(0, 1)


async def test_after_a_while_the_rest_is_put_back_and_something_was_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chassis.cutting, "CUTTING_SECONDS", -1.0)
    loop = Loop()
    loop.table.refuse = lambda write: refused(ValueError()) if holds(write, 9) else None
    await loop.settle(*(given(offset) for offset in range(16)))
    assert loop.table.rows == names(0, 1)
    assert loop.sought == [2]
    assert loop.lost == []


async def test_results_and_effects_that_are_put_back_keep_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chassis.cutting, "CUTTING_SECONDS", -1.0)
    loop = Loop()
    task = loop.task()
    done = [EffectDone(Effect(f"e{n}", "k1", {}), EffectResult("done")) for n in range(4)]
    effect = Effect("e9", "k9", {})
    task.effects.append(Effect("e10", "k10", {}))
    loop.table.refuse = lambda write: (
        refused(ValueError()) if len(write.overlay.effects_settled) > 1 else None
    )
    await loop.settle(*done, effect)
    assert [one.effect.id for one in task.results] == ["e1", "e2", "e3"]
    assert [one.id for one in task.effects] == ["e9", "e10"]
    assert loop.sought == []


async def test_a_timer_whose_decision_cannot_be_stored_is_set_aside() -> None:
    loop = Loop()
    loop.table.refuse = lambda write: (
        refused(ValueError()) if any(row.name == "timer 5" for row in write.overlay.rows) else None
    )
    await loop.settle(TimerRow("k1", "fire-5", 1, NOW), TimerRow("k1", "fire-6", 2, NOW))
    assert loop.table.rows == ["timer 6"]
    (parked,) = loop.table.parked
    assert (parked.topic, parked.state_key) == ("tick", "k1")
    assert isinstance(parked.error, str)
    assert Tick("k1", "fire-5", NOW).cause.encode() == parked.value


async def test_where_all_fails_the_task_rests_instead_of_parking_everything() -> None:
    loop = Loop()
    await loop.settle(*(given(offset, blow_up=1) for offset in range(100)))
    assert len(loop.table.parked) == GIVEN_UP_MAX
    assert loop.lost == ["giving_up"]


async def test_a_good_input_between_failing_ones_shows_that_the_fault_is_theirs() -> None:
    loop = Loop()
    await loop.settle(*(given(offset, blow_up=offset % 2) for offset in range(100)))
    assert len(loop.table.parked) == 50
    assert loop.lost == []


async def test_a_hole_that_is_being_looked_for_is_not_believed_because_of_a_refusal() -> None:
    loop = Loop()
    loop.table.refuse = lambda write: refused(ValueError()) if holds(write, 1) else None
    await loop.settle(*(given(offset) for offset in (0, 1, 2, 7, 8, 9)))
    assert loop.table.rows == names(0, 2)
    assert loop.task().position.offsets == {"inbound": 3}
    assert loop.sought == [3]
    assert loop.assignment.background == set()


def test_admitting_in_pieces_ends_in_the_same_position_as_admitting_whole() -> None:
    loop = Loop()
    records = [given(offset) for offset in (0, 1, 2, 3, 3, 4)]
    whole = loop.settling._build(Parcel(loop.task(), records))
    task, parcel = loop.task(), Parcel(loop.task(), records)
    for start in range(0, 6, 2):
        batch = loop.settling._build(parcel.part(start, start + 2))
        task.position = batch.overlay.position
    assert task.position == whole.overlay.position
