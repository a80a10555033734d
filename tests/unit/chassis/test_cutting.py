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
from chassis import metrics
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Task, TaskState
from chassis.cutting import CONFLICTS_MAX, CONTEST_SECONDS, CONTEST_TRIES_MIN, Cutting
from chassis.deadletters import ParkedRecord, Reason, park
from chassis.decision import ATTEMPTS_MAX, REFUSALS_MAX, TIMER_AGAIN, TIMER_AGAIN_MAX
from chassis.effects import Effects
from chassis.emission import Emission
from chassis.errors import Conflict, Refused
from chassis.failpoints import Failpoints
from chassis.ledger import Position, TimerMark, TimerRow, Write
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
        self.paused: list[int] = []
        consumer = SimpleNamespace(
            assignment=lambda: {TopicPartition("inbound", 0), TopicPartition("inbound", 1)},
            pause=lambda *partitions: self.paused.extend(p.partition for p in partitions),
            seek=lambda partition, offset: self.sought.append(offset),
            resume=lambda *_: None,
        )
        bus: Any = SimpleNamespace(consumer=consumer)
        self.clock = clock = FakeClock(NOW)
        wake, failpoints = asyncio.Event(), Failpoints()
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
        self.acquisition = acquisition
        self.really_lose = acquisition.lose
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
            known.timers.load((), TimerMark(datetime.max.replace(tzinfo=UTC)))
            self.assignment.tasks[number] = known
        return known

    def set_timers(self, *rows: TimerRow) -> None:
        """Have the first task know of timers."""
        self.task().timers.apply(((row.key, row.name), row) for row in rows)

    async def settle(self, *items: Item) -> None:
        """Settle a parcel of the first task."""
        await self.cutting.settle([Parcel(self.task(), items)])

    async def settle_due(self) -> None:
        """Settle the timers of the first task that are due."""
        await self.settle(*self.task().timers.due(self.clock.now()))

    async def poll(self, *offsets: int) -> None:
        """Settle those of these records that are not behind the first task, as the client hands them out after a seek."""
        position = self.task().position.offsets["inbound"]
        await self.settle(*(given(offset) for offset in offsets if offset >= position))


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


class Stopwatch:
    """What the cutting takes for the time that passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 100.0
        monkeypatch.setattr(chassis.cutting, "monotonic", lambda: self.seconds)


async def test_an_input_that_meets_conflicts_is_put_back_and_parked_only_after_they_have_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, loop = Stopwatch(monkeypatch), Loop()
    loop.table.refuse = lambda write: Conflict("two want one") if holds(write, 3) else None
    began = watch.seconds
    await loop.poll(*range(10))
    assert loop.table.rows == names(0, 1, 2)
    assert (loop.sought, loop.paused, loop.table.parked) == ([3], [0], [])
    polls = 0
    while not loop.table.parked:
        watch.seconds += 1.0
        before = loop.table.tries
        await loop.poll(*range(3, 10))
        assert (
            loop.table.tries - before <= 3
        )  # It alone; at the end its dead letter and what is behind it.
        polls += 1
    assert watch.seconds - began >= CONTEST_SECONDS
    assert polls == CONTEST_SECONDS
    assert loop.table.rows == names(0, 1, 2, 4, 5, 6, 7, 8, 9)
    (parked,) = loop.table.parked
    assert parked.offset == 3
    tries = CONFLICTS_MAX + polls
    assert tries >= CONTEST_TRIES_MIN
    assert parked.error.endswith(f"could not be stored {tries} times: Conflict")
    assert loop.lost == []


async def test_a_conflict_that_passes_after_seconds_costs_no_input_and_starts_from_zero(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, loop = Stopwatch(monkeypatch), Loop()
    is_held = True
    loop.table.refuse = lambda write: Conflict("held") if is_held and holds(write, 1) else None
    for _ in range(9):
        await loop.poll(0, 1, 2)
        watch.seconds += 1.0
    is_held = False
    watch.seconds += 60.0
    await loop.poll(0, 1, 2)
    assert loop.table.rows == names(0, 1, 2)
    assert (loop.table.parked, loop.lost) == ([], [])
    assert loop.cutting._contests == {}


async def test_while_an_input_rests_it_is_not_tried_and_other_tasks_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Stopwatch(monkeypatch)
    loop = Loop()
    loop.table.refuse = lambda write: Conflict("held") if holds(write, 0) else None
    await loop.poll(0)
    before = loop.table.tries
    await loop.cutting.settle(
        [Parcel(loop.task(0), [given(0), given(1)]), Parcel(loop.task(1), [given(0, n=100)])]
    )
    assert loop.table.rows == names(100)
    assert loop.table.tries == before + 1


async def test_a_timer_that_meets_conflicts_holds_up_none_but_those_of_its_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, loop = Stopwatch(monkeypatch), Loop()
    is_held = True
    loop.table.refuse = lambda write: (
        Conflict("held")
        if is_held and "timer 1" in [row.name for row in write.overlay.rows]
        else None
    )
    keys = {1: "k1", 2: "k2", 3: "k1", 4: "k4"}
    loop.set_timers(*(TimerRow(key, f"fire-{n}", n, NOW) for n, key in keys.items()))
    await loop.settle_due()
    assert loop.table.rows == ["timer 2", "timer 4"]
    is_held = False
    watch.seconds += 1.0
    await loop.settle_due()
    assert loop.table.rows == ["timer 2", "timer 4", "timer 1", "timer 3"]
    assert (loop.table.parked, loop.lost) == ([], [])


async def test_conflicts_all_over_end_with_the_turn_and_hold_the_locks_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chassis.cutting, "CUTTING_SECONDS", -1.0)
    loop = Loop()
    loop.table.refuse = lambda write: Conflict("held")
    loop.set_timers(*(TimerRow(f"k{n}", f"fire-{n}", n, NOW) for n in range(64)))
    await loop.settle_due()
    # The whole, a piece, a piece of that which is one input: it is known now, whatever the next turn finds time for.
    assert loop.table.tries == CONFLICTS_MAX + 2
    assert len(loop.cutting._contests) == 1
    assert (loop.table.parked, loop.lost) == ([], [])


async def test_one_that_conflicts_for_ever_is_found_and_parked_though_each_try_takes_the_whole_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch, loop = Stopwatch(monkeypatch), Loop()
    monkeypatch.setattr(chassis.cutting, "CUTTING_SECONDS", 0.5)

    def refuse(write: Write[Tally]) -> Exception | None:
        watch.seconds += 0.6
        return Conflict("held") if holds(write, 40) else None

    loop.table.refuse = refuse
    for _ in range(100):
        await loop.poll(*range(64))
        watch.seconds += 0.1
    assert loop.table.rows == names(*(n for n in range(64) if n != 40))
    assert [parked.offset for parked in loop.table.parked] == [40]
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
    loop.set_timers(TimerRow("k1", "fire-5", 1, NOW), TimerRow("k1", "fire-6", 2, NOW))
    await loop.settle_due()
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


# -- a task that is lost under a decision ----------------------------------------------------------------------------


class Waiting(Counting):
    """Something happens while it loads."""

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self.meanwhile: Callable[[], Any] = lambda: None

    async def load(
        self, connection: Any, task: int, inputs: Sequence[Input], missing: Sequence[str]
    ) -> dict[str, Tally]:
        self.meanwhile()
        await asyncio.sleep(0)
        return await super().load(connection, task, inputs, missing)


@pytest.mark.parametrize("end", ["lost", "revoked"])
async def test_a_decision_that_waits_for_the_database_keeps_its_states_whatever_becomes_of_the_task(
    end: str,
) -> None:
    loop = Loop(Waiting)
    stage, task = loop.stage, loop.task()
    assert isinstance(stage, Waiting)
    await loop.settle(*(given(offset) for offset in range(5)))
    assert loop.table.states["k1"].count == 5

    def meanwhile() -> None:
        if end == "lost":
            loop.really_lose(task, "out_of_range", 60.0)
        else:
            loop.assignment.spawn(loop.acquisition.close_all(0.0), "revoked")

    stage.meanwhile = meanwhile
    await loop.settle(given(5), given(6, key="k2"))
    # Its lease is nobody else's yet, so what it commits counts: then it must be right.
    assert loop.table.states["k1"].count == 6
    await asyncio.sleep(0)
    assert task.states, "nobody empties what another may be looking at"


async def test_parcels_of_a_task_that_is_not_at_work_any_more_are_left_alone() -> None:
    class Whole(Counting):
        loads_all = True

    loop = Loop(Whole)
    task = loop.task()
    task.state = TaskState.LOST
    await loop.settle(given(0))
    assert (loop.table.tries, loop.stage.decided) == (0, 0)
    assert loop.task().position.offsets == {"inbound": 0}


async def test_a_task_that_is_lost_while_another_is_cut_is_not_cut_itself() -> None:
    loop = Loop()
    first, second = loop.task(0), loop.task(1)

    def refuse(write: Write[Tally]) -> Exception | None:
        if loop.table.tries > 3:  # Both together, and each for itself.
            second.state = TaskState.LOST
            return None
        return refused(ValueError())

    loop.table.refuse = refuse
    await loop.cutting.settle(
        [Parcel(first, [given(0), given(1)]), Parcel(second, [given(0, n=100)])]
    )
    assert loop.table.rows == names(0, 1)
    assert second.position.offsets == {"inbound": 0}
    assert loop.settling.deciding._refused == {}


async def test_a_task_whose_states_are_read_anew_is_lost_where_that_is_cut_off() -> None:
    class Whole(Counting):
        loads_all = True

        async def load(self, *_: Any) -> dict[str, Tally]:
            raise asyncio.CancelledError

    loop = Loop(Whole)
    loop.table.refuse = lambda write: refused(ValueError())
    with pytest.raises(asyncio.CancelledError):
        await loop.settle(given(0))
    assert loop.task().state is TaskState.LOST


# -- what fails behind a decision ------------------------------------------------------------------------------------


class Untold(Counting):
    """What input 1 decides cannot be told."""

    fault = ""

    def partition_key(self, event: Any) -> str:
        if event.n == 1 and self.fault == "partition_key":
            raise AttributeError("no such field")
        return super().partition_key(event)

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        outcome = super().decide(state, item, now)
        if isinstance(item, Received) and isinstance(item.event, Given) and item.event.n == 1:
            if self.fault == "outcome":
                return None  # type: ignore[return-value]
            if self.fault == "events":
                outcome.events = ("not an event",)  # type: ignore[assignment]
            if self.fault == "park":
                outcome.park = ("only a reason",)  # type: ignore[assignment]
        return outcome


@pytest.mark.parametrize("fault", ["partition_key", "outcome", "events", "park"])
async def test_what_fails_behind_a_decision_is_parked_as_a_failing_decision_is(fault: str) -> None:
    loop = Loop(Untold)
    assert isinstance(loop.stage, Untold)
    loop.stage.fault = fault
    await loop.settle(*(given(offset) for offset in range(4)))
    assert loop.table.rows == names(0, 2, 3)
    (parked,) = loop.table.parked
    assert (parked.offset, parked.reason) == (1, Reason.HANDLER_FAILED)
    assert loop.lost == []
    assert loop.settling.deciding._suspects == {}


def replay(record: Any, value: bytes | None = None) -> ParkedRecord:
    """A record that was parked, and that somebody wants tried again."""
    return park(
        stage="pipeline_a",
        task=0,
        topic="inbound",
        partition=0,
        offset=record.offset,
        key=record.key,
        headers=record.headers,
        value=record.value if value is None else value,
        reason=Reason.HANDLER_FAILED,
        error="the handler failed",
        state_key="k1",
        now=NOW,
    )


async def test_a_replay_that_surprises_us_is_parked_again_and_its_neighbours_are_replayed() -> None:
    class Surprised(Counting):
        def key(self, envelope: Envelope, event: Any) -> str:
            if event.n == 7:
                raise KeyError("nobody thought of this")
            return super().key(envelope, event)

    loop = Loop(Surprised)
    await loop.settle(replay(given(7)), replay(given(8)))
    assert loop.table.rows == names(8)
    (again,) = loop.table.parked
    assert (again.offset, again.reason) == (7, Reason.UNREADABLE_RECORD)
    assert again.error == "it could not be read: KeyError"
    assert loop.lost == []


async def test_a_dead_letter_is_told_in_words_that_the_database_can_hold() -> None:
    class Odd(Counting):
        def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
            return Outcome(park=("odd", "a\x00b\ud800c"))

    loop = Loop(Odd)
    await loop.settle(replay(given(7)))
    (again,) = loop.table.parked
    assert again.error == "a\ufffdb?c"


# -- timers ----------------------------------------------------------------------------------------------------------

DUE = "due"


class Domain(Counting):
    """Loaded whole, and woken by one timer, which it sets again itself only while its decisions go well."""

    loads_all = True
    is_broken = True

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        if isinstance(item, Tick):
            if self.is_broken:
                raise RuntimeError("not mended yet")
            return Outcome(is_changed=False, timers={DUE: now + TIMER_AGAIN / 10})
        return Outcome(is_changed=False)


async def test_a_timer_that_is_given_up_comes_back_later_and_later_and_fires_once_it_is_mended() -> (
    None
):
    loop = Loop(Domain)
    assert isinstance(loop.stage, Domain)
    timers = loop.task().timers
    loop.set_timers(TimerRow("billing", DUE, 0, NOW))
    waits = []
    for _ in range(6):
        before = loop.clock.now()
        await loop.settle_due()
        known = timers.get("billing", DUE)
        assert known is not None
        waits.append(known.due_at - before)
        loop.clock.move(to=known.due_at)
    assert waits[:3] == [TIMER_AGAIN, 2 * TIMER_AGAIN, 4 * TIMER_AGAIN]
    assert waits[-1] == TIMER_AGAIN_MAX
    assert len({parked.id for parked in loop.table.parked}) == 6
    loop.stage.is_broken = False
    await loop.settle_due()
    known = timers.get("billing", DUE)
    assert known is not None
    assert known.due_at == loop.clock.now() + TIMER_AGAIN / 10
    assert loop.settling.deciding._timers_given_up == {}
    assert loop.lost == []


async def test_a_timer_that_a_piece_before_has_set_anew_does_not_fire_as_it_was() -> None:
    class Setting(Counting):
        def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
            outcome = super().decide(state, item, now)
            if isinstance(item, Tick) and item.name == "fire-1":
                outcome.timers = {"fire-9": now + TIMER_AGAIN}
            return outcome

    loop = Loop(Setting)
    fired: list[int] = []

    def refuse(write: Write[Tally]) -> Exception | None:
        if len(write.overlay.rows) > 1:
            return refused(ValueError())
        fired.extend(row.id for row in write.overlay.fired.values())
        return None

    loop.table.refuse = refuse
    loop.set_timers(*(TimerRow("k1", f"fire-{n}", n, NOW) for n in (1, 9, 2)))
    rows = loop.task().timers.due(NOW)
    await loop.settle(*sorted(rows, key=lambda row: (1, 9, 2).index(row.id)))
    assert fired == [1, 2]
    known = loop.task().timers.get("k1", "fire-9")
    assert known is not None
    assert known.due_at == NOW + TIMER_AGAIN


# -- holes -----------------------------------------------------------------------------------------------------------


async def test_a_hole_that_was_looked_for_in_vain_is_looked_at_although_its_batch_was_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = Loop()
    looked: list[tuple[str, int, int]] = []
    monkeypatch.setattr(
        Standstill, "see_to", lambda _, batch: looked.append(batch.hole) if batch.hole else None
    )
    loop.task().looked_again["inbound"] = 3
    loop.table.refuse = lambda write: refused(ValueError()) if holds(write, 1) else None
    await loop.settle(*(given(offset) for offset in (0, 1, 2, 7, 8, 9)))
    assert loop.table.rows == names(0, 2)
    assert looked == [("inbound", 3, 7)]


# -- what is counted and kept ----------------------------------------------------------------------------------------


async def test_a_result_is_counted_once_however_often_its_batch_was_refused() -> None:
    def value() -> float:
        return float(metrics.EFFECTS.labels("pipeline_a", "done")._value.get())

    loop = Loop()
    before, left = value(), [refused(ValueError()), refused(ValueError())]
    loop.table.refuse = lambda write: left.pop() if left else None
    await loop.settle(EffectDone(Effect("e1", "k1", {}), EffectResult("done")), given(0))
    assert value() == before + 1


async def test_what_follows_a_dead_letter_is_counted_once_however_often_it_was_refused() -> None:
    def value() -> float:
        return float(metrics.AFTER_PARKED.labels("pipeline_a")._value.get())

    loop = Loop()
    loop.task().parked_keys["k1"] = ["d1"]
    before, left = value(), [refused(ValueError())]
    loop.table.refuse = lambda write: left.pop() if left else None
    await loop.settle(given(0), given(1))
    assert value() == before + 2


async def test_of_tasks_that_moved_away_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    Stopwatch(monkeypatch)
    loop = Loop()
    loop.table.refuse = lambda write: Conflict("held")
    await loop.poll(0)
    deciding = loop.settling.deciding
    deciding._suspects[0, "a"] = deciding._suspects[1, "a"] = 1
    deciding._refused[0, "b"] = deciding._refused[1, "b"] = (1, "")
    loop.cutting.keep_only({1})
    assert loop.cutting._contests == {}
    assert set(deciding._suspects) == {(1, "a")}
    assert set(deciding._refused) == {(1, "b")}
