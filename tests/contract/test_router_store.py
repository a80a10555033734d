"""The router's stores on a real PostgreSQL: what they write and read, and what the constraints refuse."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.stage import Change, Outcome
from schemas import commands, roster, routing
from services.router.core.domain import Domain
from services.router.handlers import POLICY, TicketsStage
from services.router.store import DomainStore, RoutingRow
from tests.unit.router.stories import Desk, at, message
from tests.unit.router.test_handlers import received

REPOSITORY = Path(__file__).parents[2]
SQL = REPOSITORY / "services" / "router" / "sql"


@pytest.fixture(scope="module")
def stage() -> TicketsStage:
    return TicketsStage(PolicyHolder(REPOSITORY / "policy", POLICY))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    await migrate(database, "router", [SQL])
    pool = await open_pool(database, "router", 2, "test")
    try:
        async with pool.acquire() as one:
            yield one
    finally:
        await pool.close()


async def save(stage: TicketsStage, connection: Any, *outcomes: Outcome[Any]) -> None:
    """One batch, as the loop writes it."""
    rows = [(0, row) for outcome in outcomes for row in outcome.rows]
    async with connection.transaction():
        await stage.store.save(connection, [Change(0, "c1", outcomes[-1].state)], rows)


async def test_a_whole_life_in_one_batch_is_stored_and_read_as_it_was(
    stage: TicketsStage, connection: Any
) -> None:
    opened = stage.decide(
        None, received(stage, message(text="Where\x00?", text_new=""), "09:00"), at("09:00")
    )
    assert opened.state is not None
    assert opened.state.ticket is not None
    ticket_id = opened.state.ticket.ticket_id
    solve = commands.SolveTicket(
        command_id="k", conversation_id="c1", ticket_id=ticket_id, agent_id="ada", cause="late"
    )
    tag = commands.TagTicket(
        command_id="k2", conversation_id="c1", ticket_id=ticket_id, agent_id="ada", add=("a", "b")
    )
    tagged = stage.decide(opened.state, received(stage, tag, "09:04"), at("09:04"))
    solved = stage.decide(tagged.state, received(stage, solve, "09:05"), at("09:05"))
    late = "2026-11-28T09:00:00"
    followed = stage.decide(solved.state, received(stage, message("m2"), late), at(late))
    bounced = stage.decide(
        followed.state,
        received(stage, message("m3", direction="outbound", occurred_at=at(late)), late),
        at(late),
    )
    await save(stage, connection, opened, tagged, solved, followed, bounced)

    assert (await stage.store.load(connection, 0, ["c1", "other"])) == {"c1": bounced.state}
    tickets = await connection.fetch("SELECT * FROM ticket ORDER BY number")
    assert [(t["status"], t["agent_id"], t["tags"]) for t in tickets] == [
        ("closed", "ada", ["a", "b"]),
        ("pending", "elsewhere", []),
    ]
    events = await connection.fetch(
        "SELECT * FROM ticket_event WHERE ticket_id = $1 ORDER BY version", ticket_id
    )
    kinds = [event["type"].split(".")[1] for event in events]
    assert kinds == ["opened", "tagged", "solved", "closed"]
    assert json.loads(events[0]["data"])["ticket_id"] == ticket_id
    messages = await connection.fetch("SELECT * FROM ticket_message ORDER BY message_id")
    assert [(m["outcome"], m["ticket_id"] is None) for m in messages] == [
        ("opened", False),
        ("followed_up", False),
        ("outbound", True),
    ]
    assert messages[0]["text"] == "Where\ufffd?"


async def store(connection: Any, domain: Domain, told: Any = ()) -> None:
    rows = [(3, RoutingRow(event, at("09:00"))) for event in told]
    async with connection.transaction():
        await DomainStore().save(connection, [Change(3, domain.name, domain)], rows)


async def load(connection: Any, task: int = 3) -> dict[str, Domain]:
    return await DomainStore().load(connection, task, ())


async def test_a_domain_is_read_as_it_was_written_step_by_step(connection: Any) -> None:
    desk = Desk().agent("ada", capacity=10).agent("bo", skills={"x": 3}, capacity=10)
    await store(connection, desk.domain)
    assert not desk.domain.is_changed()
    desk.asks("t1", "09:00").asks("t2", "09:00").asks("t3", "09:00")
    await store(connection, desk.domain, desk.everything)
    desk.declines("t1", "09:00:01").accepts("t2", "09:00:02").withdraws("t2", "09:00:03")
    # One ticket's old work ends and its new one is offered, in one batch.
    desk.asks("t1", "09:00:04", work_id="w-t1b", priority=1)
    await store(connection, desk.domain)
    loaded = await load(connection)
    assert list(loaded) == ["main"]
    assert loaded["main"].agents == desk.domain.agents
    assert loaded["main"].works == desk.domain.works
    assert loaded["main"].next_due() == desk.domain.next_due()
    assert await load(connection, 4) == {}
    told = await connection.fetch("SELECT type, data FROM routing_event ORDER BY id")
    assert [t["type"] for t in told] == [
        "routing.offered.v1",
        "routing.offered.v1",
        "routing.queued.v1",
    ]
    assert json.loads(told[0]["data"])["record"]["chosen_by"] == "longest_idle"


async def test_agents_who_leave_and_work_that_is_forgotten_are_deleted(connection: Any) -> None:
    desk = Desk().agent("ada").asks("t", "09:00").withdraws("t", "09:00:01")
    await store(connection, desk.domain)
    desk.hears(roster.AgentRemoved(domain="main", agent_id="ada"), "09:30")
    desk.asks("u", "09:30").withdraws("u", "09:30:01")
    await store(connection, desk.domain)
    loaded = (await load(connection))["main"]
    assert loaded.agents == {}
    assert list(loaded.works) == ["w-u"]


async def test_a_lowered_capacity_can_be_stored_and_an_overload_cannot(connection: Any) -> None:
    desk = Desk().agent("ada", capacity=20).asks("t1", "09:00").asks("t2", "09:00")
    desk.agent("ada", "09:00:01", capacity=10, presence=None)
    await store(connection, desk.domain)
    agent = desk.domain.agents["ada"]
    agent.load += 1
    desk.domain.touch_agent("ada")
    with pytest.raises(asyncpg.CheckViolationError, match="not_overloaded"):
        await store(connection, desk.domain)


async def test_a_ticket_cannot_be_held_twice(connection: Any) -> None:
    desk = Desk().agent("ada").asks("t", "09:00").asks("u", "09:00")
    desk.domain.works["w-u"].ticket_id = "t"
    with pytest.raises(asyncpg.UniqueViolationError, match="one_live"):
        await store(connection, desk.domain)


async def test_a_ticket_on_its_way_to_another_domain_may_be_live_in_both(connection: Any) -> None:
    main, east = Desk().agent("ada").asks("t", "09:00"), Desk().agent("nils")
    east.domain.name = "east"
    east.asks("t", "09:01", work_id="w-t2", domain="east")
    await store(connection, main.domain)
    await store(connection, east.domain)
    loaded = await load(connection)
    assert {name: domain.live for name, domain in loaded.items()} == {
        "main": {"t": "w-t"},
        "east": {"t": "w-t2"},
    }


async def test_many_domains_and_an_empty_batch_are_no_trouble(connection: Any) -> None:
    await store(connection, Domain("quiet"))
    assert await load(connection) == {}
    offer = routing.OfferMade.model_validate(routing.OfferMade.EXAMPLE)
    await store(connection, Domain("quiet"), [offer])
    assert await connection.fetchval("SELECT count(*) FROM routing_event") == 1
