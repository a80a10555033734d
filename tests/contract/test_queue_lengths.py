"""Queue lengths on a real PostgreSQL: what assignment writes for rules to ask about, and what tickets read of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.stage import Change
from services.router.core.assignment.domain import Domain
from services.router.handlers import TicketsStage
from services.router.queue_lengths import Lengths, watched_of
from services.router.store import DomainStore
from tests.unit.router.stories import ROUTING_YAML, Desk, at, message, read_policy
from tests.unit.router.test_handlers import received

SQL = Path(__file__).parents[2] / "services" / "router" / "sql"
RULE = """rules:
  - name: crowded
    when: {queue_length: {queue: service, at_least: 2}}
    then: {queue: labs}
"""


@pytest.fixture
async def pool(database: str) -> AsyncIterator[Any]:
    await migrate(database, "router", [SQL])
    opened = await open_pool(database, "router", 2, "test")
    try:
        yield opened
    finally:
        await opened.close()


def policies(text: str = ROUTING_YAML.replace("rules:\n", RULE)) -> Any:
    """A holder of one policy, which a test may replace."""
    return SimpleNamespace(current=read_policy(text))


async def save(store: DomainStore, pool: Any, domain: Domain) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await store.save(connection, [Change(3, domain.name, domain)], ())


async def rows(pool: Any) -> dict[str, int]:
    found = await pool.fetch("SELECT queue, waiting FROM queue_length ORDER BY queue")
    return {row["queue"]: row["waiting"] for row in found}


async def test_only_queues_that_a_rule_asks_about_are_written_and_only_when_they_change(
    pool: Any,
) -> None:
    store = DomainStore(watched_of(policies()))
    desk = Desk().asks("t1", "09:00").asks("t2", "09:00").asks("t3", "09:00", queue="labs")
    await save(store, pool, desk.domain)
    assert await rows(pool) == {"service": 2}
    before = await pool.fetchval("SELECT xmin::text FROM queue_length")
    await save(store, pool, desk.asks("t4", "09:01", queue="labs").domain)
    assert await pool.fetchval("SELECT xmin::text FROM queue_length") == before
    await save(store, pool, desk.withdraws("t1", "09:02").domain)
    assert await rows(pool) == {"service": 1}


async def test_a_domain_that_was_loaded_anew_writes_what_a_lost_transaction_did_not(
    pool: Any,
) -> None:
    store = DomainStore(watched_of(policies()))
    desk = Desk().asks("t1", "09:00")

    async def save_and_lose() -> None:
        async with pool.acquire() as connection, connection.transaction():
            await store.save(connection, [Change(3, "main", desk.domain)], ())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await save_and_lose()
    assert await rows(pool) == {}
    await save(store, pool, desk.restart().domain)
    assert await rows(pool) == {"service": 1}


async def test_a_queue_that_nobody_asks_about_any_more_is_forgotten(pool: Any) -> None:
    held = policies()
    store = DomainStore(watched_of(held))
    desk = Desk().asks("t1", "09:00")
    await save(store, pool, desk.domain)
    held.current = read_policy()
    await save(store, pool, desk.asks("t2", "09:01").domain)
    assert await rows(pool) == {}


async def test_a_rule_that_is_new_knows_the_length_of_a_queue_in_which_nothing_happened_since(
    pool: Any,
) -> None:
    held = policies(ROUTING_YAML)
    store = DomainStore(watched_of(held))
    desk = Desk().asks("t1", "09:00").asks("t2", "09:00")
    await save(store, pool, desk.domain)
    lengths = Lengths(held)
    await lengths.read(pool)
    assert lengths.current == {}
    held.current = policies().current
    await lengths.read(pool)
    assert lengths.current == {"service": 2}
    await save(store, pool, desk.withdraws("t1", "09:01").domain)
    await lengths.read(pool)
    assert lengths.current == {"service": 1}


async def test_the_stage_of_tickets_decides_by_the_lengths_as_of_the_latest_look(pool: Any) -> None:
    held = policies()
    store, lengths = DomainStore(watched_of(held)), Lengths(held)
    stage = TicketsStage(held, lengths)

    async def rule_after(desk: Desk) -> str:
        await save(store, pool, desk.domain)
        await lengths.read(pool)
        outcome = stage.decide(None, received(stage, message(), "09:00"), at("09:00"))
        assert outcome.state is not None
        assert outcome.state.ticket is not None
        return outcome.state.ticket.rule

    desk = Desk().asks("t1", "09:00")
    assert await rule_after(desk) == "everything else"
    assert await rule_after(desk.asks("t2", "09:00")) == "crowded"
