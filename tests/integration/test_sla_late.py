"""Clocks on a real broker and database when the news is late, or the service was: T16 and T17.

The service runs by a clock of the test's own, the machine's put forward. So minutes pass when the test says so.
"""
# ruff: noqa: N802 — T16 and T17 are ids of promises, and written as elsewhere.

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import chassis.pump
from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.settings import Settings
from chassis.task import Worker
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.sla import BreachRetracted, TargetBreached, TargetMet
from schemas.tickets import TicketAnswered, TicketOpened
from schemas.topics import TOPICS
from services.sla import metrics
from services.sla.handlers import POLICY, SlaStage
from services.sla.recount_orders import Orders
from tests.integration.kit import (
    PARTITIONS,
    Driver,
    MakeTopic,
    crash,
    driving,
    make_settings,
    read_topic,
    until,
)

pytestmark = pytest.mark.slow

SQL = Path(__file__).parents[2] / "services" / "sla" / "sql"
WITHIN = timedelta(hours=1)
SLA = """
default: standard
policies:
  standard: {calendar: always, warn_at: null, first_response: {within: 1h}}
"""
CALENDARS = """
calendars:
  always:
    timezone: UTC
    hours: {mon: &day [["00:00", "24:00"]], tue: *day, wed: *day, thu: *day, fri: *day, sat: *day, sun: *day}
"""


@dataclass
class Ahead:
    """The machine's clock, put forward."""

    by: timedelta = timedelta(0)

    def now(self) -> datetime:
        return SystemClock().now() + self.by


@dataclass
class Stand:
    """The service's database and topics, and who tells it of tickets."""

    settings: Settings
    pool: asyncpg.Pool
    driver: Driver
    policies: PolicyHolder[Any]
    clock: Ahead = field(default_factory=Ahead)
    _sequences: defaultdict[int, Iterator[int]] = field(
        default_factory=lambda: defaultdict(lambda: itertools.count(1))
    )

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Worker[Any]]:
        """The stage at work by this stand's clock."""
        stage = SlaStage(self.policies)
        stage.take_orders(Orders())
        pool = await open_pool(self.settings.dsn, "sla", 4, "test")
        worker = Worker(stage, self.settings, pool, self.clock)
        try:
            await worker.start()
            await until(
                "all tasks are owned",
                lambda: (
                    len(worker.tasks) == PARTITIONS
                    and all(task.epoch for task in worker.tasks.values())
                ),
                60,
            )
            yield worker
        finally:
            await worker.stop()
            await pool.close()

    async def tell(self, event: Payload, key: str) -> None:
        partition = partition_of(key, PARTITIONS)
        sequence = next(self._sequences[partition])
        envelope = Envelope(
            event.TYPE,
            f"signalbox/router.tickets/{partition}",
            f"e{partition}-{sequence}",
            self.clock.now(),
            partitionkey=key,
            sequence=sequence,
        )
        await self.driver.event("tickets", envelope, event)

    async def open(self, n: int, due: datetime) -> None:
        """Open ticket `n` so that its first response is due at an instant."""
        fields = {"ticket_id": f"t{n}", "conversation_id": f"c{n}", "number": 1}
        opened = TicketOpened.EXAMPLE | fields | {"at": due - WITHIN, "occurred_at": due - WITHIN}
        await self.tell(TicketOpened.model_validate(opened), f"c{n}")

    async def holds(self, what: str, query: str, wanted: int) -> None:
        async def is_so() -> bool:
            return bool(await self.pool.fetchval(query) == wanted)

        await until(what, is_so, 60)

    async def told(self, kind: type[Payload]) -> list[Any]:
        """What was told of a kind, each event once: a repeat after a restart has the same id."""
        await self.holds("all is published", "SELECT count(*) FROM outbox", 0)
        sent = await read_topic(self.settings, "sla")
        once = {envelope.id: event for envelope, event, _ in sent}
        return [event for event in once.values() if isinstance(event, kind)]


@pytest.fixture
async def stand(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> AsyncIterator[Stand]:
    for topic in TOPICS:
        await make_topic(topic.name, partitions=PARTITIONS)
    await migrate(database, "sla", [SQL])
    (tmp_path / "sla.yaml").write_text(SLA, encoding="utf-8")
    (tmp_path / "calendars.yaml").write_text(CALENDARS, encoding="utf-8")
    settings = make_settings(bootstrap, database, topic_prefix)
    pool = await open_pool(database, "sla", 2, "test")
    try:
        async with driving(settings) as driver:
            yield Stand(settings, pool, driver, PolicyHolder(tmp_path, POLICY))
    finally:
        await pool.close()


def counted(outcome: str) -> float:
    """First responses with an outcome, as the metric has counted them in this process."""
    return sum(
        sample.value
        for family in metrics.TARGETS.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
        and sample.labels["target"] == "first_response"
        and sample.labels["outcome"] == outcome
    )


async def test_T16_an_answer_from_before_the_deadline_that_arrives_ten_minutes_late_takes_the_breach_back(
    stand: Stand,
) -> None:
    before = {outcome: counted(outcome) for outcome in ("breached", "retracted", "met")}
    due = stand.clock.now() + timedelta(minutes=5)
    async with stand.serving():
        await stand.open(1, due)
        await stand.holds(
            "the clock runs", "SELECT count(*) FROM target WHERE status = 'running'", 1
        )
        stand.clock.by = timedelta(minutes=6)
        await stand.holds(
            "it is broken", "SELECT count(*) FROM breach WHERE retracted_at IS NULL", 1
        )
        stand.clock.by = timedelta(minutes=15)
        answered_at = due - timedelta(seconds=30)
        fields = {"ticket_id": "t1", "conversation_id": "c1", "occurred_at": answered_at}
        answer = TicketAnswered.EXAMPLE | fields | {"at": stand.clock.now(), "version": 2}
        await stand.tell(TicketAnswered.model_validate(answer), "c1")
        await stand.tell(TicketAnswered.model_validate(answer | {"version": 3}), "c1")
        await stand.holds(
            "it is taken back", "SELECT count(*) FROM breach WHERE retracted_at IS NULL", 0
        )
        (breached,) = await stand.told(TargetBreached)
        (retracted,) = await stand.told(BreachRetracted)
        met = await stand.told(TargetMet)
    assert breached.breached_at == due
    assert retracted.target_id == breached.target_id
    assert (retracted.breached_at, retracted.answered_at) == (due, answered_at)
    assert retracted.at - due > timedelta(minutes=9)
    assert [event.was_breached for event in met] == [False]
    assert await stand.pool.fetchval("SELECT count(*) FROM breach") == 1
    assert {name: counted(name) - was for name, was in before.items()} == {
        "breached": 1,
        "retracted": 1,
        "met": 1,
    }


async def test_T17_a_service_that_was_down_over_a_hundred_deadlines_dates_every_breach_at_its_deadline(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Down for seven minutes, back, gone again in the middle of catching up, and back once more."""
    monkeypatch.setattr(chassis.pump, "TURN_ITEMS", 4)
    monkeypatch.setattr(
        chassis.pump, "TURN_ITEMS_MIN", 2
    )  # Many turns, so that the end comes between two.
    n = 100
    begin = stand.clock.now() + timedelta(minutes=5)
    dues = {f"c{k}": begin + k * timedelta(minutes=7) / n for k in range(n)}
    async with stand.serving() as worker:
        for k in range(n):
            await stand.open(k, dues[f"c{k}"])
        await stand.holds(
            "all clocks run", "SELECT count(*) FROM target WHERE status = 'running'", n
        )
        assert await stand.pool.fetchval("SELECT count(*) FROM breach") == 0
        await crash(worker)
    stand.clock.by = timedelta(minutes=12, seconds=1)
    back_at = stand.clock.now()
    async with stand.serving() as worker:
        await until(
            "some breach is stored", lambda: stand.pool.fetchval("SELECT count(*) FROM breach"), 60
        )
        await crash(worker)
        assert 0 < await stand.pool.fetchval("SELECT count(*) FROM breach") < n
    async with stand.serving():
        await stand.holds("every breach is stored", "SELECT count(*) FROM breach", n)
        breaches = await stand.told(TargetBreached)
    async with stand.serving():  # Nothing of it is left to be told.
        assert await stand.pool.fetchval("SELECT count(*) FROM timer") == 0
        assert len(await stand.told(TargetBreached)) == n
    assert Counter(event.conversation_id for event in breaches) == Counter(dict.fromkeys(dues, 1))
    for event in breaches:
        assert event.breached_at == dues[event.conversation_id]
        assert event.detected_at >= back_at
    rows = await stand.pool.fetch(
        "SELECT t.conversation_id, b.breached_at, b.detected_at FROM breach AS b JOIN target AS t USING (target_id)"
    )
    assert {row["conversation_id"]: row["breached_at"] for row in rows} == dues
    assert all(row["detected_at"] > row["breached_at"] for row in rows)
