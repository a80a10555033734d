"""A stage whose revision changes decides its keys again: each once, in slices, with timers and records between them."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

import chassis.revisits
from chassis import metrics
from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.errors import Conflict
from chassis.failpoints import Failpoints
from chassis.settings import Settings
from chassis.stage import Connection, Input, Outcome, Revisit
from tests.faults.pipeline import Counted, StageA, Tally, TallyStore, visit
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


class Revising(StageA):
    """Stage A with a revision that a test sets, a key that cannot be decided, and decisions that take their time."""

    def __init__(self, revision: str | None = "one") -> None:
        super().__init__()
        self.present_revision = revision
        self.poison = ""
        self.slices: list[int] = []
        self.fired_in: list[int] = []

    async def revisit_keys(
        self, connection: Connection, task: int, after: str, limit: int
    ) -> Sequence[str]:
        keys = await super().revisit_keys(connection, task, after, limit)
        self.slices.append(len(keys))
        return keys

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        if isinstance(item, Revisit) and item.key == self.poison:
            raise RuntimeError("this key cannot be decided")
        if not isinstance(item, Revisit):
            self.fired_in.append(len(self.slices))
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
            "it is counted", lambda: db.value("SELECT 1 FROM state WHERE value @> '{\"count\": 2}'")
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
            "it is counted", lambda: db.value("SELECT 1 FROM state WHERE value @> '{\"count\": 2}'")
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
    assert await visits(db) == sorted(visit(key, "two", 1) for key in keys if key != keys[17])
    (parked,) = await db.rows("SELECT topic, state_key, reason FROM parked")
    assert tuple(parked) == ("revisit", keys[17], "handler_failed")


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
    assert len([n for n in stage.fired_in if 0 < n < len(stage.slices)]) > 20, (
        "nothing else was decided while the walk was under way"
    )
