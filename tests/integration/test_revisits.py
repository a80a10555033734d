"""A stage whose revision changes decides its keys again: each once, in slices, with timers and records between them."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

import chassis.ledger
import chassis.pump
import chassis.revisits
import chassis.timers
from chassis import metrics
from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.errors import Conflict
from chassis.failpoints import Failpoints
from chassis.relay import Relay
from chassis.settings import Settings
from chassis.stage import Connection, Input, Outcome, Received, Revisit, Tick
from tests.faults.pipeline import Counted, Fired, StageA, Tally, TallyStore, visit
from tests.integration.kit import (
    PARTITIONS,
    Database,
    Driver,
    MakeTopic,
    crash,
    driving,
    looking,
    make_settings,
    make_topics,
    read_topic,
    running,
    until,
)

HOUR = timedelta(hours=1)


class Revising(StageA):
    """Stage A with a revision that a test sets, a key that cannot be decided, and decisions that take their time."""

    def __init__(self, revision: str | None = "one") -> None:
        super().__init__()
        self.present_revision = revision
        self.poison = ""
        self.slices: list[int] = []
        self.fired_in: list[int] = []
        self.heard_in: list[int] = []
        """After how many slices timers fired, and records were heard."""

        self.failures = 0
        """How often the next keys cannot be told."""

    async def revisit_keys(
        self, connection: Connection, task: int, after: str, limit: int
    ) -> Sequence[str]:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("nobody knows the keys")
        keys = await super().revisit_keys(connection, task, after, limit)
        self.slices.append(len(keys))
        return keys

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        if isinstance(item, Revisit) and item.key == self.poison:
            raise RuntimeError("this key cannot be decided")
        if isinstance(item, Tick):
            self.fired_in.append(len(self.slices))
        if isinstance(item, Received):
            self.heard_in.append(len(self.slices))
        return super().decide(state, item, now)


@pytest.fixture
async def settings(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic
) -> Settings:
    await make_topics(make_topic)
    return make_settings(bootstrap, database, topic_prefix)


@pytest.fixture
async def driver(settings: Settings) -> AsyncIterator[Driver]:
    async with driving(settings) as one:
        yield one


@pytest.fixture
async def db(settings: Settings) -> AsyncIterator[Database]:
    async with looking(settings.dsn, "pipeline_a") as one:
        yield one


async def keep(db: Database, n: int) -> list[str]:
    """Have `n` keys there, as a release without revisits would have left them."""
    keys = [f"k{number:04}" for number in range(n)]
    await db.connection.executemany(
        "INSERT INTO state (stage, task, key, value) VALUES ('pipeline_a', $1, $2, $3)",
        [(partition_of(key, PARTITIONS), key, '{"count": 3}') for key in keys],
    )
    return keys


async def walked(db: Database, revision: str) -> None:
    """Wait until every task says that all its keys are decided under a revision."""

    async def holds() -> bool:
        rows = await db.rows("SELECT revision FROM revisit WHERE done_at IS NOT NULL")
        return [row["revision"] for row in rows] == [revision] * PARTITIONS

    await until(f"all keys are decided under {revision}", holds)


async def visits(db: Database) -> list[str]:
    """The visits of the history, in order of their names."""
    rows = await db.rows("SELECT name FROM history WHERE name LIKE 'visit %' ORDER BY name")
    return [row["name"] for row in rows]


async def test_a_new_installation_remembers_its_revision_and_visits_nothing(
    settings: Settings, driver: Driver, db: Database
) -> None:
    stage = Revising("one")
    async with running(stage, settings):
        await driver.given(1, "k1")
        await until("it is counted", lambda: db.value("SELECT count(*) FROM state"))
        assert await visits(db) == []
    stage = Revising("one")
    async with running(stage, settings):
        await driver.given(2, "k1")
        await until(
            "it is counted",
            lambda: db.value("SELECT 1 FROM state WHERE value::jsonb @> '{\"count\": 2}'"),
        )
        assert await visits(db) == []


async def test_a_revision_that_is_known_only_after_the_start_is_held_against_the_one_remembered(
    settings: Settings, driver: Driver, db: Database
) -> None:
    keys = await keep(db, 30)
    async with running(Revising("one"), settings):
        await walked(db, "one")
    stage = Revising(None)
    async with running(stage, settings):
        await driver.given(1, "k1")
        await until(
            "it is counted", lambda: db.value("SELECT count(*) FROM state WHERE key = 'k1'")
        )
        stage.present_revision = "one"
        await driver.given(2, "k1")
        await until(
            "it is counted",
            lambda: db.value("SELECT 1 FROM state WHERE value::jsonb @> '{\"count\": 2}'"),
        )
        assert await visits(db) == sorted(visit(key, "one", 1) for key in keys)
        stage.present_revision = "two"
        await walked(db, "two")
    assert len(await visits(db)) == 61


async def test_a_changed_revision_visits_every_key_once_and_tells_of_each(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_FIRST", 20)
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_MAX", 20)
    keys = await keep(db, 130)
    stage = Revising("one")
    before = metrics.REVISITS.labels("pipeline_a")._value.get()
    async with running(stage, settings):
        await walked(db, "one")
        stage.present_revision = "two"
        await walked(db, "two")
        stage.present_revision = "one"
        await walked(db, "one")
        assert max(stage.slices) == 20
        assert await db.rows("SELECT DISTINCT walk FROM revisit") == [(3,)]
        await until("all is published", _is_published(db))
    wanted = [visit(key, *walk) for key in keys for walk in (("one", 1), ("two", 2), ("one", 3))]
    assert await visits(db) == sorted(wanted)
    events = [event for _, event, _ in await read_topic(settings, "messages")]
    assert len({envelope.id for envelope, _, _ in await read_topic(settings, "messages")}) == 390
    assert sorted((e.key, e.n) for e in events if isinstance(e, Counted)) == sorted(
        (key, walk) for key in keys for walk in (1, 2, 3)
    )
    assert metrics.REVISITS.labels("pipeline_a")._value.get() - before == 390
    for number in range(PARTITIONS):
        assert metrics.REVISIT_PENDING.labels("pipeline_a", str(number))._value.get() == 0


def _is_published(db: Database) -> Any:
    async def holds() -> bool:
        return not await db.value("SELECT count(*) FROM outbox")

    return holds


async def test_a_walk_goes_on_where_its_last_commit_ended_whatever_happens_to_its_worker(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit whose outcome nobody knows, and a worker that is gone in the middle."""
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_FIRST", 10)
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_MAX", 10)
    keys = await keep(db, 200)
    points = Failpoints("before_commit=raise:3,after_commit=raise:6")
    async with running(Revising("two"), settings, failpoints=points) as worker:
        await until(
            "some were visited",
            lambda: db.value("SELECT count(*) > 60 FROM history WHERE name LIKE 'visit %'"),
        )
        await crash(worker)
    n = len(await visits(db))
    assert n < 200, "the walk was over before the worker was gone"
    async with running(Revising("two"), settings):
        await walked(db, "two")
    assert await visits(db) == sorted(visit(key, "two", 1) for key in keys)


async def test_a_revision_that_changes_in_the_middle_begins_anew(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_FIRST", 10)
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_MAX", 10)
    keys = await keep(db, 200)
    stage = Revising("two")
    async with running(stage, settings):
        await until(
            "some were visited",
            lambda: db.value("SELECT count(*) > 30 FROM history WHERE name LIKE 'visit %'"),
        )
        stage.present_revision = "three"
        await walked(db, "three")
    under = [name.split()[2] for name in await visits(db)]
    assert 0 < under.count("two") < 200
    assert under.count("three") == len(keys)


async def test_a_key_that_cannot_be_decided_is_set_aside_and_the_walk_goes_on(
    settings: Settings, db: Database
) -> None:
    keys = await keep(db, 60)
    stage = Revising("two")
    stage.poison = keys[17]
    async with running(stage, settings):
        await walked(db, "two")
        visited = [visit(key, "two", 1) for key in keys if key != keys[17]]
        assert await visits(db) == sorted(visited)
        (parked,) = await db.rows("SELECT topic, state_key, reason FROM parked")
        assert tuple(parked) == ("revisit", keys[17], "handler_failed")
        await db.connection.execute("UPDATE parked SET replay_requested_at = clock_timestamp()")
        await until(
            "a replay is refused by name",
            lambda: db.value("SELECT error LIKE '%a revisit is no record%' FROM parked"),
        )


async def test_a_key_that_somebody_else_holds_is_waited_for_and_none_behind_it_is_left_out(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await keep(db, 60)
    stage, n_conflicts = Revising("two"), 0
    store = stage.store
    assert isinstance(store, TallyStore)
    save = store.save_rows

    async def save_rows(connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        nonlocal n_conflicts
        if any(row.key == keys[20] for _, row in rows) and n_conflicts < 12:
            n_conflicts += 1
            raise Conflict("somebody else has it")
        await save(connection, rows)

    monkeypatch.setattr(store, "save_rows", save_rows)
    async with running(stage, settings):
        await walked(db, "two")
    assert n_conflicts == 12
    assert await visits(db) == sorted(visit(key, "two", 1) for key in keys)
    assert await db.value("SELECT count(*) FROM parked") == 0


async def test_timers_that_fall_due_and_records_that_come_have_their_turn_between_slices(
    settings: Settings, driver: Driver, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_FIRST", 10)
    monkeypatch.setattr(chassis.revisits, "SLICE_KEYS_MAX", 10)
    keys = await keep(db, 600)
    now = SystemClock().now()
    await db.connection.executemany(
        "INSERT INTO timer (stage, task, key, name, id, due_at) VALUES ('pipeline_a', $1, $2, $3, 0, $4)",
        [
            (partition_of(key, PARTITIONS), key, f"fire-{n}", now + timedelta(milliseconds=20 * n))
            for n, key in enumerate(keys[::3])
        ],
    )
    stage = Revising("two")
    async with running(stage, settings):
        for n in range(1_001, 1_021):
            await driver.given(n, f"new{n}", timer_seconds=3600)
        await walked(db, "two")
    visited = [name for name in await visits(db) if " k" in name]
    assert visited == sorted(visit(key, "two", 1) for key in keys)
    for turns in (stage.fired_in, stage.heard_in):
        assert len([n for n in turns if 0 < n < len(stage.slices)]) >= 5, (
            "nothing of a kind was decided while the walk was under way"
        )
    late = await db.rows(
        "SELECT late_ms FROM history WHERE name LIKE 'timer %' AND applied_at - late_ms * interval '1 ms' >"
        " (SELECT min(applied_at) FROM history WHERE name LIKE 'visit %') ORDER BY late_ms"
    )
    assert late[len(late) // 2]["late_ms"] < 500
    assert late[-1]["late_ms"] < 2_000


def pending() -> list[float]:
    """What the gauge says of every task."""
    return [
        metrics.REVISIT_PENDING.labels("pipeline_a", str(number))._value.get()
        for number in range(PARTITIONS)
    ]


async def test_a_revision_that_comes_back_before_its_successors_first_slice_is_walked_through_again(
    settings: Settings, driver: Driver, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decided under the one between was decided under the wrong one."""
    keys = await keep(db, 40)
    stage = Revising("one")
    async with running(stage, settings):
        await walked(db, "one")
        with monkeypatch.context() as held:
            held.setattr(Relay, "is_long", property(lambda _: True))  # No slice is begun.
            stage.present_revision = "two"
            await until("the tasks are behind", lambda: pending() == [1] * PARTITIONS)
            stage.present_revision = "one"
        await until(
            "all is walked a second time",
            lambda: db.value("SELECT bool_and(walk = 2 AND done_at IS NOT NULL) FROM revisit"),
        )
        await until("nothing is left", lambda: pending() == [0] * PARTITIONS)
        assert await db.rows("SELECT DISTINCT revision, walk FROM revisit") == [("one", 2)]
    wanted = [visit(key, "one", walk) for key in keys for walk in (1, 2)]
    assert await visits(db) == sorted(wanted)


async def test_keys_that_cannot_be_told_put_the_walk_off_and_hold_up_nothing_else(
    settings: Settings, driver: Driver, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.revisits, "FAILED_SECONDS", 0.05)
    keys = await keep(db, 40)
    stage = Revising(None)
    async with running(stage, settings) as worker:
        epochs = {number: task.epoch for number, task in worker.tasks.items()}
        stage.failures = 1_000_000
        stage.present_revision = "two"
        await until("it fails", lambda: stage.failures < 999_998)
        await driver.given(1, "new")
        await until(
            "it is counted", lambda: db.value("SELECT 1 FROM history WHERE name = 'input 1'")
        )
        assert pending() == [1] * PARTITIONS
        stage.failures = 0
        await walked(db, "two")
        assert {number: task.epoch for number, task in worker.tasks.items()} == epochs
    visited = [name for name in await visits(db) if " k" in name]
    assert visited == sorted(visit(key, "two", 1) for key in keys)


async def test_no_slice_is_begun_while_the_tasks_are_being_given_up(
    settings: Settings, db: Database
) -> None:
    await keep(db, 40)
    stage = Revising(None)
    async with running(stage, settings) as worker:
        worker.effects.is_closed = True
        stage.present_revision = "two"
        await until("it is known", lambda: pending() == [1] * PARTITIONS)
        last_turn = worker.last_turn
        await until("the pump came round", lambda: worker.last_turn > last_turn)
        assert stage.slices == []
        worker.effects.is_closed = False
        await walked(db, "two")


@pytest.mark.parametrize("is_in_pages", [False, True])
async def test_a_burst_of_timers_over_two_tasks_with_ties_fires_each_once(
    settings: Settings, db: Database, monkeypatch: pytest.MonkeyPatch, is_in_pages: bool
) -> None:
    if is_in_pages:
        monkeypatch.setattr(chassis.ledger, "TIMER_PAGE", 10)
        monkeypatch.setattr(chassis.timers, "TIMER_PAGE", 10)
        monkeypatch.setattr(chassis.timers, "LOADED_MAX", 20)
    monkeypatch.setattr(chassis.pump, "TURN_ITEMS", 14)
    monkeypatch.setattr(chassis.pump, "TURN_ITEMS_MIN", 7)
    ago = SystemClock().now() - timedelta(hours=1)
    timers = [
        ("pipeline_a", task, f"k{task}-{n}", f"fire-{100 * task + n}", n, ago + n // 12 * HOUR / 10)
        for task in range(PARTITIONS)
        for n in range(35)
    ]
    await db.connection.copy_records_to_table("timer", records=timers)
    async with running(Revising(None), settings):
        await until("all have fired", lambda: db.value("SELECT count(*) = 0 FROM timer"))
    fired = [row["name"] for row in await db.rows("SELECT name FROM history")]
    assert sorted(fired) == sorted(f"timer {100 * t + n}" for t in range(2) for n in range(35))
    told = [e.n for _, e, _ in await read_topic(settings, "messages") if isinstance(e, Fired)]
    assert sorted(told) == sorted(100 * t + n for t in range(2) for n in range(35))
