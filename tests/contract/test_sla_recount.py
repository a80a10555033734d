"""Attributions, orders to recount, and what `sla diff` reads, on a real PostgreSQL."""
# ruff: noqa: N802 — T20 is the id of a promise, and written as elsewhere.

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.stage import Change, Input, Received, Revisit
from cli.main import app
from cli.sla_recount import _states
from schemas.envelope import Envelope
from schemas.sla import QueueTime, TimeAttributed
from schemas.tickets import TicketAnswered, TicketOpened
from services.sla import attribution_store, recount_orders
from services.sla.core.state import Conversation
from services.sla.handlers import POLICY, SlaStage
from services.sla.recount_orders import Orders
from services.sla.store import SlaStore

SQL = Path(__file__).parents[2] / "services" / "sla" / "sql"
EXAMPLE = TimeAttributed.model_validate(TimeAttributed.EXAMPLE)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    await migrate(database, "sla", [SQL])
    pool = await open_pool(database, "sla", 2, "test")
    try:
        async with pool.acquire() as one:
            yield one
    finally:
        await pool.close()


async def test_an_attribution_is_a_row_and_the_last_word_on_a_clock_stays(connection: Any) -> None:
    later = EXAMPLE.model_copy(
        update={
            "queue_ms": 120_000,
            "elapsed_ms": 780_000,
            "ended_at": EXAMPLE.ended_at + timedelta(minutes=1),
            "by_queue": (
                QueueTime(queue="service", queue_ms=120_000, offer_ms=9_000, work_ms=591_000),
            ),
        }
    )
    await attribution_store.save(connection, [EXAMPLE])
    await attribution_store.save(connection, [EXAMPLE, later])
    await attribution_store.save(connection, [])
    (row,) = await connection.fetch("SELECT *, by_queue->0->>'work_ms' AS work FROM attribution")
    assert (row["target_id"], row["queue_ms"], row["elapsed_ms"], row["work"]) == (
        "t-1",
        120_000,
        780_000,
        "591000",
    )
    assert (row["target"], row["channel"], row["priority"]) == ("first_response", "email", 3)


async def test_shares_that_do_not_add_up_are_refused(connection: Any) -> None:
    wrong = EXAMPLE.model_copy(update={"pause_ms": 1})
    with pytest.raises(asyncpg.CheckViolationError, match="attribution_adds_up"):
        await attribution_store.save(connection, [wrong])


async def test_the_latest_order_is_read_and_the_latest_that_judges_breaches(
    connection: Any,
) -> None:
    assert await recount_orders.read(connection) == Orders()
    first = await recount_orders.give(connection, includes_breaches=True)
    second = await recount_orders.give(connection, includes_breaches=False)
    found = await recount_orders.read(connection)
    assert (found.latest, found.judging) == (second, first)
    assert found.judging_at is not None
    assert second > first


async def test_every_state_is_read_once_page_after_page(
    connection: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.sla_recount.PAGE", 3)
    changes = [
        Change(task, f"c{number}", Conversation(conversation_id=f"c{number}", tickets=()))
        for task in (0, 1)
        for number in range(task, 8, 2)
    ]
    async with connection.transaction():
        await SlaStore().save(connection, changes, [])

    class Where:
        dsn = database

    found = [state.conversation_id async for state in _states(Where())]
    assert sorted(found) == [f"c{number}" for number in range(8)]
    assert len(found) == len(set(found))


SLA = """
default: standard
policies:
  standard: {calendar: shop, warn_at: null, first_response: {within: 30h}, resolution: {within: 60h}}
"""
CALENDARS = """
calendars:
  shop:
    timezone: UTC
    hours: {mon: &day [["00:00", "24:00"]], tue: *day, wed: *day, thu: *day, fri: *day, sat: *day, sun: *day}
"""


def write(folder: Path, calendars: str) -> Path:
    folder.mkdir()
    (folder / "sla.yaml").write_text(SLA, encoding="utf-8")
    (folder / "calendars.yaml").write_text(calendars, encoding="utf-8")
    return folder


async def fill(database: str, folder: Path, now: datetime) -> None:
    """Two tickets of now, in one conversation each, as the service keeps them."""
    await migrate(database, "sla", [SQL])
    stage = SlaStage(PolicyHolder(folder, POLICY))
    pool = await open_pool(database, "sla", 1, "test")
    try:
        for key in ("c1", "c2"):
            data = TicketOpened.EXAMPLE | {"at": now, "occurred_at": now}
            opened = TicketOpened.model_validate(
                data | {"conversation_id": key, "ticket_id": f"t-{key}"}
            )
            envelope = Envelope(TicketOpened.TYPE, "signalbox/router.tickets/0", key, now)
            outcome = stage.decide(None, Received(envelope, opened, key, "tickets", key), now)
            async with pool.acquire() as connection, connection.transaction():
                rows = [(0, row) for row in outcome.rows]
                await stage.store.save(connection, [Change(0, key, outcome.state)], rows)
    finally:
        await pool.close()


def test_a_diff_shows_what_another_folder_would_move_and_changes_nothing(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SystemClock().now()
    today = write(tmp_path / "today", CALENDARS)
    asyncio.run(fill(database, today, now))
    begin, end = now + timedelta(hours=1), now + timedelta(hours=5)
    closure = f'    closures: [["{begin:%Y-%m-%dT%H:%M}", "{end:%Y-%m-%dT%H:%M}"]]\n'
    planned = write(tmp_path / "planned", CALENDARS + closure)
    monkeypatch.setattr("cli.environment.common", lambda: SimpleNamespace(dsn=database))

    same = CliRunner().invoke(app, ["sla", "diff", "--policy", str(today)])
    assert same.output.splitlines()[0] == "No open deadline would move."
    for _ in range(2):
        shown = CliRunner().invoke(app, ["sla", "diff", "--policy", str(planned), "--json"])
        found = json.loads(shown.output)
        assert found["conversations"] == 2
        assert [(one["queue"], one["target"], one["moved"]) for one in found["groups"]] == [
            ("service", "first_response", 2),
            ("service", "resolution", 2),
        ]
        assert {one["shift_median_s"] for one in found["groups"]} == {4 * 3600.0}
        assert {one["past"] for one in found["groups"]} == {0}
    table = CliRunner().invoke(app, ["sla", "diff", "--policy", str(planned)])
    assert "+4:00:00" in table.output
    assert "4 clocks of 2 conversations" in table.output


def test_an_order_is_written_and_read_back(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(migrate(database, "sla", [SQL]))
    monkeypatch.setattr("cli.environment.common", lambda: SimpleNamespace(dsn=database))
    given = CliRunner().invoke(app, ["sla", "recount", "--breaches", "--yes"])
    assert given.exit_code == 0
    assert given.output.startswith(
        "Order 1: 0 open deadlines are worked out anew, and 0 open breaches"
    )


async def test_T20_a_kept_promise_that_is_judged_anew_and_back_passes_every_constraint(
    connection: Any, tmp_path: Path
) -> None:
    """The hours were wrong, and then they were right after all."""
    begin = datetime.fromisoformat("2026-11-23T09:00:00+00:00")
    closure = '    closures: [["2026-11-23T09:00", "2026-11-24T09:00"]]\n'
    folder = write(tmp_path / "policy", CALENDARS + closure)
    policies = PolicyHolder(folder, POLICY)
    stage = SlaStage(policies)
    state: Conversation | None = None

    async def take(item: Input, now: datetime) -> None:
        nonlocal state
        outcome = stage.decide(state, item, now)
        state = outcome.state
        async with connection.transaction():
            rows = [(0, row) for row in outcome.rows]
            await stage.store.save(connection, [Change(0, "c1", state)], rows)

    async def first() -> tuple[str, bool, int]:
        row = await connection.fetchrow(
            "SELECT status, breached_at IS NOT NULL AS is_broken,"
            " (SELECT count(*) FROM breach WHERE retracted_at IS NULL) AS standing"
            " FROM target WHERE kind = 'first_response'"
        )
        return row["status"], row["is_broken"], row["standing"]

    for kind, hours in ((TicketOpened, 0), (TicketAnswered, 39)):
        at = begin + timedelta(hours=hours)
        event = kind.model_validate(
            kind.EXAMPLE
            | {"at": at, "occurred_at": at, "conversation_id": "c1", "ticket_id": "t1"}
            | ({"sla_policy": "standard"} if kind is TicketOpened else {})
        )
        envelope = Envelope(kind.TYPE, "signalbox/router.tickets/0", kind.TYPE, at)
        await take(Received(envelope, event, "c1", "tickets", kind.TYPE), at)
    assert await first() == ("met", False, 0)
    now = begin + timedelta(hours=40)
    for order, calendars, expected in (
        (1, CALENDARS, ("met", True, 1)),
        (2, CALENDARS + closure, ("met", False, 0)),
    ):
        (folder / "calendars.yaml").write_text(calendars, encoding="utf-8")
        assert policies.reload()
        stage.take_orders(Orders(order, order, now))
        await take(Revisit("c1", "r", order), now)
        assert await first() == expected
        await take(Revisit("c1", "r", order), now)
        assert await first() == expected
    assert await connection.fetchval("SELECT count(*) FROM attribution") == 1
