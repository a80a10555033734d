"""The rows that reports are made from, on a real PostgreSQL: what a ticket's life writes, and what is read of it."""

from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.stage import Change, Outcome, Received, Tick
from cli import sla_explain, sla_report
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.tickets import (
    TicketAnswered,
    TicketClosed,
    TicketEscalated,
    TicketMessageAdded,
    TicketOpened,
    TicketReopened,
    TicketSolved,
)
from services.sla import case_store
from services.sla.core import figures
from services.sla.core.cases import AGES
from services.sla.core.state import Conversation
from services.sla.handlers import POLICY, TIMER, SlaStage

REPOSITORY = Path(__file__).parents[2]
NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")
CONVERSATION = str(TicketOpened.EXAMPLE["conversation_id"])
TICKET = str(TicketOpened.EXAMPLE["ticket_id"])
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def stage() -> SlaStage:
    return SlaStage(PolicyHolder(REPOSITORY / "policy", POLICY))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    await migrate(database, "sla", [REPOSITORY / "services" / "sla" / "sql"])
    pool = await open_pool(database, "sla", 2, "test")
    try:
        async with pool.acquire() as one:
            yield one
    finally:
        await pool.close()


def received(kind: type[Payload], at: datetime) -> Received:
    data = kind.EXAMPLE | {"at": at, "occurred_at": at}
    if kind is TicketOpened:
        data["sla_policy"] = "urgent"
    envelope = Envelope(type=kind.TYPE, source="signalbox/router.tickets/0", id="e", time=at)
    return Received(envelope, kind.model_validate(data), CONVERSATION, "tickets", "e")


async def live(
    stage: SlaStage, connection: Any, life: list[tuple[type[Payload] | None, int]], batch: int
) -> None:
    """Let a ticket live, `batch` inputs a transaction; None is a timer that fires."""
    state: Conversation | None = None
    outcomes: list[Outcome[Conversation]] = []
    for place, (kind, minutes) in enumerate(life):
        at = NINE + minutes * MINUTE
        item = Tick(CONVERSATION, TIMER, at) if kind is None else received(kind, at)
        outcome = stage.decide(state, item, at)
        state = outcome.state if outcome.is_changed else state
        outcomes.append(outcome)
        if len(outcomes) == batch or place == len(life) - 1:
            rows = [(0, row) for one in outcomes for row in one.rows]
            async with connection.transaction():
                await stage.store.save(connection, [Change(0, CONVERSATION, state)], rows)
            outcomes = []


LIFE: list[tuple[type[Payload] | None, int]] = [
    (TicketOpened, 0),
    (None, 20),  # Its first response was due after a quarter of an hour.
    (TicketEscalated, 21),
    (TicketAnswered, 25),
    (TicketSolved, 30),
    (TicketMessageAdded, 60),
    (TicketReopened, 60),
    (TicketAnswered, 70),
    (TicketSolved, 90),
    (TicketClosed, 500),
]


@pytest.mark.parametrize("batch", [1, 3, len(LIFE)])
async def test_a_tickets_row_is_the_same_however_its_life_is_cut_into_batches(
    stage: SlaStage, connection: Any, batch: int
) -> None:
    await live(stage, connection, LIFE, batch)
    row = await connection.fetchrow("SELECT * FROM ticket_case")
    assert (row["status"], row["queue"], row["opened_queue"]) == ("closed", "service", "service")
    assert (row["reopened"], row["escalated"]) == (1, 1)
    assert row["first_answered_at"] == NINE + 25 * MINUTE
    assert row["first_response_open_us"] == 25 * 60 * 1_000_000
    assert row["solved_at"] == row["ended_at"] == NINE + 90 * MINUTE
    stretches = [(r.lower, r.upper) for r in row["open_during"]]
    assert stretches == [(NINE, NINE + 30 * MINUTE), (NINE + 60 * MINUTE, NINE + 90 * MINUTE)]


async def test_the_gauges_count_what_is_open_by_queue(stage: SlaStage, connection: Any) -> None:
    await live(stage, connection, LIFE[:2], 1)
    found = {(one.queue, one.kind): one.status for one in await case_store.open_targets(connection)}
    assert found["service", "first_response"] == "breached"
    (line,) = await case_store.backlog(connection)
    assert (line.queue, line.older[0]) == ("service", 1)
    assert len(line.older) == len(AGES)


async def test_the_gauges_read_indexes_alone(connection: Any) -> None:
    """At a million open targets a look must not read their rows."""
    await connection.execute("SET enable_seqscan = off")
    await connection.execute("SET enable_bitmapscan = off")
    for statement, index in (
        (case_store._OPEN, "target_gauge"),
        (case_store._BACKLOG, "ticket_case_open"),
    ):
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}"))
        assert f"Index Only Scan using {index}" in plan, plan


async def test_a_report_reads_what_was_written(stage: SlaStage, connection: Any) -> None:
    await live(stage, connection, LIFE, 2)
    zone = ZoneInfo("Europe/Istanbul")
    since, until = sla_report.stretch("2026-11-24", "2026-11-24", zone)
    facts = await sla_report.read(connection, since, until, zone, "")
    made = figures.report(facts, since, until, zone, "queue", until)
    assert (made.total.opened, made.total.solved, made.total.reopened) == (1, 2, 1)
    assert made.total.first_response.longest == 25 * 60
    assert (made.total.first_kept.kept, made.total.first_kept.broken) == (0, 1)
    assert made.total.backlog == 0
    assert [clock.reference for clock in made.worst] == ["SB-4K7TQ2M"]
    assert dict(made.groups)["service"].opened == 1
    only = await sla_report.read(connection, since, until, zone, "billing")
    assert not only.cases
    assert not only.clocks


async def test_orders_make_the_contact_ratio_and_a_day_given_again_is_replaced(
    stage: SlaStage, connection: Any
) -> None:
    await live(stage, connection, LIFE[:1], 1)
    day = date(2026, 11, 24)
    await case_store.put_orders(connection, [(day, "", 10), (day, "kiosk", 30)])
    await case_store.put_orders(connection, [(day, "", 20)])
    zone = ZoneInfo("UTC")
    since, until = sla_report.stretch("2026-11-20", "2026-11-25", zone)
    facts = await sla_report.read(connection, since, until, zone, "")
    made = figures.report(facts, since, until, zone, "day", until)
    assert (made.total.orders, made.total.ordered_opened) == (50, 1)
    assert made.total.contact_ratio == 0.02


async def test_explain_draws_what_was_told(stage: SlaStage, connection: Any, database: str) -> None:
    await live(stage, connection, LIFE, 2)
    (story,) = await sla_explain._read(database, "sb-4k7tq2m")
    drawn = sla_explain.lines(story, {}, NINE + 600 * MINUTE, ZoneInfo("UTC"))
    text = "\n".join("".join(piece.text for piece in line) for line in drawn)
    assert "first response  met, too late" in text
    assert "BROKEN: the deadline passed (noticed " in text
    data = sla_explain.data(story)
    assert {clock["target"] for clock in data["clocks"]} >= {"first_response", "resolution"}
