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
from services.sla import metrics, page_store, pager
from services.sla.adapters import SENDERS
from services.sla.adapters.sending import Attempted, Outside
from services.sla.core import alerts, paging
from services.sla.core.page_text import Message
from services.sla.core.pages import Pages, PagesFile, When, build
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
    """It hangs, then has trouble of its own, then takes what there is."""
    world.duty.hang(is_done=False)
    world.start()
    await world.tell(breached(1))
    await heard_and_waited(world)
    await asyncio.wait_for(world.duty.hung.wait(), 20)
    await until("the other was told", lambda: world.other.firing(world.clock.now()))
    await world.tell(breached(2, "other"))
    await heard_and_waited(world)
    await until("of the next too", lambda: len(world.other.firing(world.clock.now())) == 2)
    assert not world.duty.open
    for _ in range(3):
        world.duty.refuse_write(503)
    await world.kill(world.tasks.pop())
    world.clock.on(paging.ATTEMPT.total_seconds())
    world.start()

    async def told_by_now() -> bool:
        world.clock.on(1)
        await world.wake()
        return len(world.duty.open) == 2

    await until("it was told", told_by_now)
    assert not world.duty.write_trouble
    assert world.duty.incidents == 2


async def test_a_message_that_cannot_be_sent_holds_up_no_other_of_its_receiver(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours with the messages of one group."""
    plain = SENDERS["pagerduty"]

    async def send(message: Message, receiver: Any, outside: Outside) -> Attempted:
        if message.page.group["queue"] == "bad":
            raise ValueError("no words for it")
        return await plain(message, receiver, outside)

    monkeypatch.setitem(SENDERS, "pagerduty", send)
    world.start()
    await world.tell(breached(1, "bad"))
    await until("the changes are folded", world.folded)
    world.clock.on(1)
    await world.tell(breached(2, "good"))
    await heard_and_waited(world, 30)
    await until("the other group was told", lambda: world.duty.open)
    assert world.duty.incidents == 1


async def test_a_breach_that_is_folded_while_a_message_is_on_its_way_is_told(world: World) -> None:
    hold, held = asyncio.Event(), asyncio.Event()
    plain = world.duty.server()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        held.set()
        await hold.wait()
        await plain(scope, receive, send)

    world.pages = Pages({"duty": world.pages.receivers["duty"]}, world.pages.routes)
    world.start(slow)
    await world.tell(breached(1))
    await heard_and_waited(world)
    await asyncio.wait_for(held.wait(), 20)
    world.clock.on(1)
    await world.tell(breached(2))
    await until("the second is folded", world.folded)
    world.clock.on(1)
    hold.set()
    await until("the first was told", lambda: world.duty.events)
    await until("it is known to be told", lambda: _is_told(world, "duty"))
    world.clock.on(61)
    await world.wake()
    await until("the second was told", lambda: len(world.duty.events) == 2)
    assert world.duty.events[1]["payload"]["custom_details"]["firing"] == 2


async def test_a_receiver_that_is_put_back_is_told_what_stands(world: World) -> None:
    world.start()
    await world.tell(breached(1))
    await heard_and_waited(world)
    await until("it was told", lambda: len(world.duty.events) == 1)
    await until("it is known to be told", lambda: _is_told(world))
    everybody = world.pages
    world.pages = Pages({"other": everybody.receivers["other"]}, everybody.routes)
    await world.wake()

    async def is_forgotten() -> bool:
        return all(page.receiver != "duty" for page in await world.all_pages())

    await until("its pages are forgotten", is_forgotten)
    await until("so is its age", lambda: _oldest("duty") is None)
    world.pages = everybody
    await world.wake()
    await until("its page is there", lambda: _is_due(world, "duty"))
    await until("its age is there", lambda: _oldest("duty") == 0)
    world.clock.on(30)
    await world.wake()
    await until("it was told again", lambda: len(world.duty.events) == 2)


def _oldest(receiver: str) -> float | None:
    return REGISTRY.get_sample_value(
        "signalbox_sla_page_undelivered_seconds", {"receiver": receiver}
    )


async def _is_due(world: World, receiver: str) -> bool:
    pages = await world.all_pages()
    return any(page.receiver == receiver and page.due_at is not None for page in pages)


async def test_a_risk_that_becomes_somebody_elses_breach_is_moved_and_not_resolved(
    world: World,
) -> None:
    both = world.pages.routes[0]
    risks = both.model_copy(
        update={"name": "risks", "when": When(event=("at_risk",)), "receivers": ("duty",)}
    )
    world.pages = Pages(
        world.pages.receivers, (risks, both.model_copy(update={"receivers": ("other",)}))
    )
    world.start()
    await world.tell(over(TargetAtRisk, 1))
    await heard_and_waited(world)
    await until("the risk was told", lambda: world.duty.open)
    await until("it is known to be told", lambda: _is_told(world))
    await world.tell(breached(1))
    await heard_and_waited(world, 61)
    await until("the incident is closed", lambda: world.duty.closed)
    said = world.duty.events[-1]["payload"]
    assert said["summary"].startswith("[MOVED]")
    assert "now broken, told to other" in said["custom_details"]["text"]


async def test_a_change_that_nobody_folds_shows_its_age(world: World) -> None:
    async with world.pool.acquire() as connection:
        assert await page_store.oldest_change(connection) is None
        await world.tell(breached(1))
        world.clock.on(60)
        await world.tell(breached(2))
        assert await page_store.oldest_change(connection) == NOON
    metrics.show_unread(NOON, world.clock.now())
    assert _sample("signalbox_sla_page_unread_seconds") == 60
    metrics.show_unread(None, world.clock.now())


async def test_pages_that_were_never_told_are_forgotten(world: World) -> None:
    await world.tell(breached(1))
    async with world.pool.acquire() as connection:
        await page_store.fold(connection, world.pages, NOON, 100)
        await world.tell(over(TargetMet, 1))
        await page_store.fold(connection, world.pages, NOON, 100)
        for page in await page_store.all_pages(connection):
            seen = await page_store.seen(connection, page)
            rule = paging.rule_of(world.pages, page)
            await page_store.put_page(connection, paging.look(page, seen, rule, NOON).page)
        assert len(await page_store.all_pages(connection)) == 2
        await page_store.tidy(connection, NOON)
        assert await page_store.all_pages(connection) == []


async def test_all_that_fires_can_be_listed_however_much_it_is(world: World) -> None:
    await world.tell(*(breached(n) for n in range(1_200)))
    async with world.pool.acquire() as connection:
        await page_store.fold(connection, world.pages, NOON, 2_000)
        found = [alert.alert_key async for alert, _ in page_store.all_standing(connection)]
    assert len(set(found)) == 1_200


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


async def _is_told(world: World, *receivers: str) -> bool:
    pages = [one for one in await world.all_pages() if one.receiver in receivers or not receivers]
    return bool(pages) and all(page.is_told and not page.is_begun for page in pages)


async def test_a_sender_whose_connection_is_cut_stops_and_somebody_sends_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    pagers = [world.start(), world.start()]
    await until("somebody sends", lambda: any(one.is_sender for one in pagers))
    stopped = asyncio.Event()
    letting_go = pager._Sender.close

    async def close(sender: Any) -> None:
        stopped.set()
        await letting_go(sender)

    monkeypatch.setattr(pager._Sender, "close", close)
    cut = await world.pool.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'signalbox sla pager' AND datname = current_database()"
    )
    assert cut
    await world.wake()
    await asyncio.wait_for(stopped.wait(), 20)
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
    page, moved = Page(group_key="", receiver="duty", family="sla", group={}, route="all"), 0
    async with world.pool.acquire() as connection:
        for step in range(12):
            await world.tell(*(breached(n) for n in range(step * 2, step * 2 + 3)))
            await world.tell(*(over(TargetMet, n) for n in range(step, step + 2)))
            if step == 5:
                # Some get worse for others than they were told to: here, of another desk.
                elsewhere = (breached(n, "elsewhere") for n in range(7, 9))
                await world.tell(*(over(BreachRetracted, n) for n in range(7, 9)), *elsewhere)
            if step == 8:
                await world.tell(over(TargetAtRisk, 100), over(BreachRetracted, 12))
            await page_store.fold(connection, world.pages, world.clock.now(), 1_000)
            rows = await connection.fetch("SELECT alert_key FROM page_alert")
            states = await page_store.alerts_of(connection, [row["alert_key"] for row in rows])
            (page,) = [
                one
                for one in await page_store.all_pages(connection)
                if one.receiver == "duty" and one.group["queue"] == "service"
            ]
            moved += 0 if step != 5 else (await page_store.seen(connection, page)).moved
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
                        "",
                    ),
                )
    assert states
    assert moved == 2
