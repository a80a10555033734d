"""Hours that change under running clocks, on a real broker and database: moved once, also through a kill, and as ordered."""
# ruff: noqa: N802 — T20 is the id of a promise, and written as elsewhere.

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from schemas.envelope import Envelope
from schemas.sla import BreachRetracted, TargetBreached, TargetRetargeted
from schemas.tickets import TicketOpened
from schemas.topics import TOPICS
from services.sla import recount_orders
from services.sla.handlers import POLICY, SlaStage
from tests.integration.kit import (
    PARTITIONS,
    Driver,
    MakeTopic,
    crash,
    driving,
    make_settings,
    read_topic,
    running,
    until,
)

SQL = Path(__file__).parents[2] / "services" / "sla" / "sql"
TICKETS = 60
SLA = """
default: standard
policies:
  standard:
    calendar: shop
    warn_at: null
    first_response: {within: 1h}
    resolution: {within: 30h}
"""
CALENDARS = """
calendars:
  shop:
    timezone: UTC
    hours: {mon: &day [["00:00", "24:00"]], tue: *day, wed: *day, thu: *day, fri: *day, sat: *day, sun: *day}
"""


def closed(begin: datetime, end: datetime) -> str:
    """The calendars with a closure, to the minute."""
    return f'{CALENDARS}    closures: [["{begin:%Y-%m-%dT%H:%M}", "{end:%Y-%m-%dT%H:%M}"]]\n'


@contextlib.asynccontextmanager
async def watching(pool: Any, stage: SlaStage) -> AsyncIterator[None]:
    """The service's own look at the orders."""
    runtime: Any = SimpleNamespace(pool=pool, stopping=asyncio.Event())
    watch = asyncio.ensure_future(recount_orders.watch(runtime, stage.take_orders))
    try:
        yield
    finally:
        runtime.stopping.set()
        await watch


async def send(driver: Driver, opened_at: datetime) -> None:
    """Open the tickets, half of them on each partition or so."""
    sequences = [itertools.count(1) for _ in range(PARTITIONS)]
    for number in range(TICKETS):
        key = f"c{number}"
        partition = partition_of(key, PARTITIONS)
        sequence = next(sequences[partition])
        fields = {"ticket_id": f"t{number}", "conversation_id": key, "number": number + 1}
        opened = TicketOpened.model_validate(
            TicketOpened.EXAMPLE | fields | {"at": opened_at, "occurred_at": opened_at}
        )
        envelope = Envelope(
            TicketOpened.TYPE,
            f"signalbox/router.tickets/{partition}",
            f"e{number}",
            SystemClock().now(),
            partitionkey=key,
            sequence=sequence,
        )
        await driver.event("tickets", envelope, opened)


@pytest.mark.slow
async def test_T20_a_changed_calendar_moves_every_open_deadline_once_and_breaches_by_order_only(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> None:
    for topic in TOPICS:
        await make_topic(topic.name, partitions=PARTITIONS)
    await migrate(database, "sla", [SQL])
    (tmp_path / "sla.yaml").write_text(SLA, encoding="utf-8")
    (tmp_path / "calendars.yaml").write_text(CALENDARS, encoding="utf-8")
    policies = PolicyHolder(tmp_path, POLICY)
    settings = make_settings(bootstrap, database, topic_prefix)
    pool = await open_pool(database, "sla", 2, "test")

    async def shifted(hours: int) -> int:
        return int(
            await pool.fetchval(
                "SELECT count(*) FROM target WHERE kind = 'resolution' AND due_at = started_at + $1::interval",
                timedelta(hours=30 + hours),
            )
        )

    async def walked(stage: SlaStage) -> bool:
        return (
            int(
                await pool.fetchval(
                    "SELECT count(*) FROM revisit WHERE revision = $1 AND done_at IS NOT NULL",
                    stage.revision(),
                )
            )
            == PARTITIONS
        )

    now = SystemClock().now()
    opened_at = now - timedelta(hours=3)
    try:
        stage = SlaStage(policies)
        async with (
            driving(settings) as driver,
            watching(pool, stage),
            running(stage, settings, schema="sla") as worker,
        ):
            await send(driver, opened_at)

            async def all_broken() -> bool:
                return bool(await pool.fetchval("SELECT count(*) = $1 FROM breach", TICKETS))

            await until("every first response is broken", all_broken)

            calendars = closed(now + timedelta(hours=1), now + timedelta(hours=3))
            (tmp_path / "calendars.yaml").write_text(calendars, encoding="utf-8")
            assert policies.reload()
            await until("some deadline has moved", lambda: shifted(2))
            await crash(worker)  # In the middle, or just after it.

        stage = SlaStage(policies)
        async with watching(pool, stage), running(stage, settings, schema="sla"):

            async def all_moved() -> bool:
                return await shifted(2) == TICKETS

            await until("every deadline has moved by the two hours", all_moved)
            await until("all keys are walked", lambda: walked(stage))
            assert await all_broken()

            # It turns out that nobody was there when the tickets came.
            calendars = closed(opened_at - timedelta(minutes=2), now - timedelta(minutes=2))
            (tmp_path / "calendars.yaml").write_text(calendars, encoding="utf-8")
            assert policies.reload()
            await until("all keys are walked again", lambda: walked(stage))
            assert await all_broken()
            assert (
                await pool.fetchval("SELECT count(*) FROM breach WHERE retracted_at IS NOT NULL")
                == 0
            )

            ordered_at = SystemClock().now()
            async with pool.acquire() as connection:
                await recount_orders.give(connection, includes_breaches=True)
            await until("the order is noticed", lambda: (stage.revision() or "").endswith(".1"))
            assert SystemClock().now() - ordered_at < timedelta(seconds=2)
            await until("the order is carried out", lambda: walked(stage))
            assert (
                await pool.fetchval("SELECT count(*) FROM breach WHERE retracted_at IS NULL") == 0
            )

            async def all_published() -> bool:
                return not await pool.fetchval("SELECT count(*) FROM outbox")

            await until("everything is published", all_published)
        # What was sent and not yet acknowledged when the worker was killed is on the wire twice, under one id.
        sent = await read_topic(settings, "sla")
        events = list({envelope.id: event for envelope, event, _ in sent}.values())
    finally:
        await pool.close()
    told = Counter(
        (type(event), event.target_id)
        for event in events
        if isinstance(event, TargetBreached | BreachRetracted)
    )
    assert len(told) == 2 * TICKETS
    assert set(told.values()) == {1}
    moved = Counter(
        (event.target_id, event.before_due_at, event.due_at)
        for event in events
        if isinstance(event, TargetRetargeted)
    )
    assert set(moved.values()) == {1}
    # Twice each resolution, by the closure to come and by that of the past; each first response with the order.
    assert len(moved) == 3 * TICKETS
