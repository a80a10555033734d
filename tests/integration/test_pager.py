"""The sender of pages on a real PostgreSQL: one among many, at least once, and nobody held up by a receiver that is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from chassis.ledger import open_pool
from chassis.metrics import REGISTRY
from chassis.migrate import migrate
from schemas.sla import BreachRetracted, SlaEvent, TargetAtRisk, TargetBreached, TargetMet
from services.sla import page_store
from services.sla.adapters.sending import Outside
from services.sla.core import alerts, paging
from services.sla.core.pages import Pages, PagesFile, build
from services.sla.core.paging import AlertState, Page
from services.sla.pager import Pager
from tests.fakes import desk
from tests.fakes.alertmanager import Alertmanager
from tests.fakes.pagerduty import PagerDuty
from tests.integration.kit import until

REPOSITORY = Path(__file__).parents[2]
NOON = datetime.fromisoformat("2026-11-24T12:00:00+00:00")


@dataclass
class Hands:
    """A clock that a test moves."""

    at: datetime = NOON

    def now(self) -> datetime:
        return self.at

    def on(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class World:
    """The table, the fakes, and the processes that would send."""

    dsn: str
    pool: asyncpg.Pool
    pages: Pages
    clock: Hands = field(default_factory=Hands)
    duty: PagerDuty = field(default_factory=PagerDuty)
    other: Alertmanager = field(default_factory=Alertmanager)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, app: Any = None) -> Pager:
        client = desk.client(app) if app is not None else self._everywhere()
        pager = Pager(
            dsn=self.dsn,
            pages=lambda: self.pages,
            clock=self.clock,
            workspace="lantern",
            outside=Outside(client),
        )
        self.tasks.append(asyncio.create_task(pager.run(asyncio.Event())))
        return pager

    def _everywhere(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            mounts={
                "http://duty.invalid": httpx.ASGITransport(app=self.duty.server()),
                "http://other.invalid": httpx.ASGITransport(app=self.other.server()),
            }
        )

    async def kill(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def tell(self, *events: SlaEvent) -> None:
        changes = alerts.changes(self.pages, None, events, None, self.clock.now())
        async with self.pool.acquire() as connection, connection.transaction():
            await page_store.add_changes(connection, changes)

    async def all_pages(self) -> list[Page]:
        async with self.pool.acquire() as connection:
            return await page_store.all_pages(connection)

    async def folded(self) -> bool:
        return not await self.pool.fetchval("SELECT count(*) FROM page_change")

    async def wake(self) -> None:
        """Let the sender look at the clock that was moved."""
        await self.pool.execute("SELECT pg_notify($1, '')", page_store.CHANNEL)


def breached(number: int, queue: str = "service") -> TargetBreached:
    found = TargetBreached.EXAMPLE | {"target_id": f"t-{number}", "queue": queue}
    return TargetBreached.model_validate(found)


def over(kind: Any, number: int) -> Any:
    return kind.model_validate(kind.EXAMPLE | {"target_id": f"t-{number}"})


@pytest.fixture
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("DUTY_KEY", "R" * 32)
    await migrate(database, "sla", [REPOSITORY / "services" / "sla" / "sql"])
    file = PagesFile.model_validate(
        {
            "receivers": {
                "duty": {
                    "kind": "pagerduty",
                    "routing_key": "env:DUTY_KEY",
                    "url": "http://duty.invalid/v2/enqueue",
                },
                "other": {"kind": "alertmanager", "urls": ["http://other.invalid"]},
            },
            "routes": [
                {
                    "name": "all",
                    "severity": "critical",
                    "receivers": ["duty", "other"],
                    "group_by": ["queue"],
                    "group_wait": "30s",
                    "group_interval": "60s",
                }
            ],
        }
    )
    pool = await open_pool(database, "sla", 4, "test")
    made = World(database, pool, build({"pages.yaml": file}))
    try:
        yield made
    finally:
        for task in made.tasks:
            await made.kill(task)
        await pool.close()


async def heard_and_waited(world: World, seconds: float = 30) -> None:
    """Have what was told folded, and the wait pass."""
    await until("the changes are folded", world.folded)
    world.clock.on(seconds)
    await world.wake()


async def test_a_breach_is_told_everywhere_and_its_retraction_ends_it_everywhere(
    world: World,
) -> None:
    """T16: the correction of a page that went out."""
    world.start()
    await world.tell(breached(1))
    await heard_and_waited(world)
    await until("both were told", lambda: world.duty.open and world.other.firing(world.clock.now()))
    await world.tell(over(BreachRetracted, 1))
    await heard_and_waited(world, 61)
    await until("the incident is closed", lambda: world.duty.closed)
    await until("the alert is over", lambda: not world.other.firing(world.clock.now()))
    said = world.duty.events[-1]["payload"]["custom_details"]["text"]
    assert "retracted: answered in time" in said
    assert world.duty.incidents == 1


async def test_a_risk_that_becomes_a_breach_is_one_incident(world: World) -> None:
    world.start()
    await world.tell(over(TargetAtRisk, 1))
    await heard_and_waited(world)
    await until("the risk was told", lambda: world.duty.open)
    await world.tell(breached(1))
    await heard_and_waited(world, 61)
    await until("the breach was told", lambda: len(world.duty.events) == 2)
    assert world.duty.incidents == 1
    async with world.pool.acquire() as connection:
        standing, count = await page_store.standing(connection, 10)
    assert (count, standing[0][0].event) == (1, "breached")


async def test_a_storm_becomes_few_messages(world: World) -> None:
    pager = world.start()
    await until("somebody sends", lambda: pager.is_sender)
    for start in range(0, 20_000, 2_000):
        await world.tell(*(breached(n, f"q{n % 3}") for n in range(start, start + 2_000)))
    await heard_and_waited(world)
    await until("all groups were told", lambda: len(world.duty.open) == 3)
    assert len(world.duty.events) == 3
    assert sum(one["payload"]["custom_details"]["firing"] for one in world.duty.events) == 20_000
    assert all(len(str(one)) < 6_000 for one in world.duty.events)


async def test_a_receiver_that_is_away_holds_up_no_other_and_is_told_when_it_is_back(
    world: World,
) -> None:
    for _ in range(3):
        world.duty.refuse_write(503)
    world.start()
    await world.tell(breached(1))
    await heard_and_waited(world)
    await until("the other was told", lambda: world.other.firing(world.clock.now()))
    assert not world.duty.open

    async def told_by_now() -> bool:
        world.clock.on(1)
        await world.wake()
        return bool(world.duty.open)

    await until("it was told", told_by_now)
    assert not world.duty.write_trouble
    assert world.duty.incidents == 1


async def test_of_two_senders_one_sends_and_the_other_takes_over_what_was_begun(
    world: World,
) -> None:
    """A sender that is killed while a receiver has the message: nothing is lost, and the incident is still one."""
    first = world.start()
    await until("the first sends", lambda: first.is_sender)
    second = world.start()
    world.duty.hang(is_done=True)
    await world.tell(breached(1))
    await heard_and_waited(world)
    await asyncio.wait_for(world.duty.hung.wait(), 20)
    assert not second.is_sender
    await world.kill(world.tasks[0])
    await until("the second sends", lambda: second.is_sender)
    world.clock.on(paging.ATTEMPT.total_seconds())
    await world.wake()
    await until("it was told again", lambda: len(world.duty.events) == 2)
    await until("it is known to be told", lambda: _is_told(world))
    assert world.duty.incidents == 1


async def _is_told(world: World) -> bool:
    return all(page.is_told and not page.is_begun for page in await world.all_pages())


async def test_a_sender_whose_connection_is_cut_stops_and_somebody_sends_again(
    world: World,
) -> None:
    pagers = [world.start(), world.start()]
    await until("somebody sends", lambda: any(one.is_sender for one in pagers))
    await world.pool.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'signalbox sla pager' AND datname = current_database()"
    )
    await world.tell(breached(1))
    await heard_and_waited(world)
    await until("it was told", lambda: world.duty.open)
    assert world.duty.incidents == 1


async def test_a_receiver_that_refuses_for_good_is_told_again_when_the_policy_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUTY_KEY", "wrong")
    world.start()
    await world.tell(breached(1))
    await heard_and_waited(world)

    async def refused() -> bool:
        return any("routing_key" in page.problem for page in await world.all_pages())

    await until("it was refused", refused)
    assert _sample("signalbox_sla_pages_total", receiver="duty", outcome="refused") >= 1
    monkeypatch.setenv("DUTY_KEY", "R" * 32)
    world.pages = Pages(dict(world.pages.receivers), world.pages.routes)
    await world.wake()
    await until("it was told", lambda: world.duty.open)


def _sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_ends_of_what_nobody_was_called_for_leave_no_row(world: World) -> None:
    await world.tell(over(TargetMet, 1))
    assert await world.folded()
    await world.tell(breached(2))
    await world.tell(over(TargetMet, 2))
    assert await world.pool.fetchval("SELECT count(*) FROM page_change") == 2


async def test_the_database_sees_in_a_group_what_the_rules_see(world: World) -> None:
    """The store's questions, and `paging.seen_of` on the same alerts."""
    states: dict[str, AlertState] = {}
    page = Page(group_key="", receiver="duty", family="sla", group={}, route="all")
    async with world.pool.acquire() as connection:
        for step in range(12):
            await world.tell(*(breached(n) for n in range(step * 2, step * 2 + 3)))
            await world.tell(*(over(TargetMet, n) for n in range(step, step + 2)))
            if step == 8:
                await world.tell(over(TargetAtRisk, 100), over(BreachRetracted, 12))
            await page_store.fold(connection, world.pages, world.clock.now(), 1_000)
            rows = await connection.fetch("SELECT alert_key FROM page_alert")
            states = await page_store.alerts_of(connection, [row["alert_key"] for row in rows])
            (page,) = [
                one for one in await page_store.all_pages(connection) if one.receiver == "duty"
            ]
            found = await page_store.seen(connection, page)
            assert found == paging.seen_of(page, states.values())
            if step in (3, 6):
                await page_store.put_page(
                    connection,
                    paging.delivered(
                        page,
                        paging.Saying.UPDATE,
                        found,
                        paging.DEFAULT_RULE,
                        world.clock.now(),
                        world.clock.now(),
                        "",
                    ),
                )
    assert states
