"""The SLA store on a real PostgreSQL: what it writes, and what its constraints refuse."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.stage import Change, Outcome, Received, Tick
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.sla import BreachRetracted, TargetBreached
from schemas.tickets import TicketAnswered, TicketMessageAdded, TicketOpened
from services.sla.case_store import open_targets
from services.sla.core.state import KINDS, Breach, Conversation, Facts, Met, Running, Target
from services.sla.handlers import POLICY, TIMER, SlaStage
from services.sla.store import TargetRow

REPOSITORY = Path(__file__).parents[2]
SQL = REPOSITORY / "services" / "sla" / "sql"
NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")
DUE = NINE + timedelta(minutes=15)
CONVERSATION = str(TicketOpened.EXAMPLE["conversation_id"])


@pytest.fixture(scope="module")
def stage() -> SlaStage:
    return SlaStage(PolicyHolder(REPOSITORY / "policy", POLICY))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    await migrate(database, "sla", [SQL])
    pool = await open_pool(database, "sla", 2, "test")
    try:
        async with pool.acquire() as one:
            yield one
    finally:
        await pool.close()


def received(kind: type[Payload], occurred_at: datetime, heard_at: datetime) -> Received:
    data = kind.EXAMPLE | {"at": heard_at, "occurred_at": occurred_at}
    if kind is TicketOpened:
        data["sla_policy"] = "urgent"
    envelope = Envelope(type=kind.TYPE, source="signalbox/router.tickets/0", id="e", time=heard_at)
    return Received(envelope, kind.model_validate(data), CONVERSATION, "tickets", "e")


async def save(stage: SlaStage, connection: Any, *outcomes: Outcome[Conversation]) -> None:
    """One batch, as the loop writes it."""
    rows = [(0, row) for outcome in outcomes for row in outcome.rows]
    async with connection.transaction():
        change = Change(0, CONVERSATION, outcomes[-1].state)
        await stage.store.save(connection, [change], rows)


async def counted(connection: Any) -> dict[tuple[str, str], int]:
    return {(found.kind, found.status): found.n for found in await open_targets(connection)}


async def target(connection: Any, kind: str = "first_response") -> Any:
    return await connection.fetchrow("SELECT * FROM target WHERE kind = $1", kind)


async def test_a_conversation_is_read_as_it_was_written(stage: SlaStage, connection: Any) -> None:
    opened = stage.decide(None, received(TicketOpened, NINE, NINE), NINE)
    await save(stage, connection, opened)
    loaded = await stage.store.load(connection, 0, [CONVERSATION, "another"])
    assert loaded == {CONVERSATION: opened.state}
    assert await counted(connection) == {
        ("first_response", "running"): 1,
        ("resolution", "running"): 1,
    }


async def test_a_breach_and_its_retraction_are_kept_and_the_board_is_put_right(
    stage: SlaStage, connection: Any
) -> None:
    opened = stage.decide(None, received(TicketOpened, NINE, NINE), NINE)
    await save(stage, connection, opened)
    found = DUE + timedelta(minutes=7)
    broken = stage.decide(opened.state, Tick(CONVERSATION, TIMER, DUE), found)
    await save(stage, connection, broken)
    row = await target(connection)
    assert (row["status"], row["breached_at"], row["detected_at"]) == ("breached", DUE, found)

    answered_at = DUE - timedelta(minutes=1)
    heard_at = DUE + timedelta(minutes=10)
    answer = received(TicketAnswered, answered_at, heard_at)
    await save(stage, connection, stage.decide(broken.state, answer, heard_at))
    row = await target(connection)
    assert (row["status"], row["breached_at"], row["settled_at"]) == ("met", None, answered_at)
    breach = await connection.fetchrow("SELECT * FROM breach")
    assert (breach["breached_at"], breach["answered_at"], breach["retracted_at"]) == (
        DUE,
        answered_at,
        heard_at,
    )


async def test_one_batch_may_hold_the_whole_life_of_two_clocks_of_a_kind(
    stage: SlaStage, connection: Any
) -> None:
    state: Conversation | None = None
    outcomes = []
    minute = timedelta(minutes=1)
    life: tuple[type[Payload], ...] = (
        TicketOpened,
        TicketAnswered,
        TicketMessageAdded,
        TicketAnswered,
        TicketMessageAdded,
    )
    for index, kind in enumerate(life):
        at = NINE + index * minute
        outcomes.append(stage.decide(state, received(kind, at, at), at))
        state = outcomes[-1].state
    await save(stage, connection, *outcomes)
    rows = await connection.fetch(
        "SELECT status FROM target WHERE kind = 'next_response' ORDER BY started_at"
    )
    assert [row["status"] for row in rows] == ["met", "running"]
    assert await counted(connection) == {
        ("next_response", "running"): 1,
        ("resolution", "running"): 1,
    }


async def test_a_breach_told_twice_fails_the_transaction(stage: SlaStage, connection: Any) -> None:
    opened = stage.decide(None, received(TicketOpened, NINE, NINE), NINE)
    await save(stage, connection, opened)
    broken = stage.decide(opened.state, Tick(CONVERSATION, TIMER, DUE), DUE)
    await save(stage, connection, broken)
    assert any(isinstance(event, TargetBreached) for event in broken.events)
    with pytest.raises(asyncpg.UniqueViolationError, match="breach_standing"):
        await save(stage, connection, broken)
    assert await connection.fetchval("SELECT count(*) FROM breach") == 1


async def test_a_retraction_of_what_does_not_stand_fails_the_transaction(
    stage: SlaStage, connection: Any
) -> None:
    retraction = BreachRetracted.model_validate(BreachRetracted.EXAMPLE)
    with pytest.raises(RuntimeError, match="UPDATE 0"):
        await save(stage, connection, Outcome(rows=(retraction,)))


async def test_two_open_clocks_of_one_kind_fail_the_transaction(
    stage: SlaStage, connection: Any
) -> None:
    opened = stage.decide(None, received(TicketOpened, NINE, NINE), NINE)
    await save(stage, connection, opened)
    row = opened.rows[0]
    assert isinstance(row, TargetRow)
    second = TargetRow(row.ticket_id, row.conversation_id, replace(row.target, target_id="second"))
    with pytest.raises(asyncpg.UniqueViolationError, match="target_one_open"):
        await save(stage, connection, Outcome(state=opened.state, rows=(second,)))


async def test_a_breach_that_is_not_the_deadline_is_refused(
    stage: SlaStage, connection: Any
) -> None:
    opened = stage.decide(None, received(TicketOpened, NINE, NINE), NINE)
    row = opened.rows[0]
    assert isinstance(row, TargetRow)
    late = DUE + timedelta(microseconds=1)
    for breach in (Breach(late, late), Breach(DUE, DUE - timedelta(microseconds=1))):
        wrong = replace(row.target, breach=breach, phase=Running(DUE))
        changed = TargetRow(row.ticket_id, row.conversation_id, wrong)
        with pytest.raises(asyncpg.CheckViolationError):
            await save(stage, connection, Outcome(state=opened.state, rows=(changed,)))


async def test_every_kind_of_clock_has_a_row_with_what_reports_ask_of_it(
    stage: SlaStage, connection: Any
) -> None:
    opened = stage.decide(None, received(TicketOpened, NINE, NINE), NINE)
    first = next(row for row in opened.rows if isinstance(row, TargetRow))
    facts = Facts(queue="service", channel="email", customer_tier="gold")
    rows = tuple(
        TargetRow(
            first.ticket_id,
            first.conversation_id,
            replace(
                first.target, target_id=kind, kind=kind, tier="front" if kind == "tier" else ""
            ),
            facts,
        )
        for kind in KINDS
    )
    await save(stage, connection, Outcome(state=opened.state, rows=rows))
    answered_at = NINE + timedelta(minutes=3, microseconds=7)
    met = replace(first.target, phase=Met(answered_at, DUE, answered_at - NINE))
    await save(
        stage,
        connection,
        Outcome(
            state=opened.state,
            rows=(
                replace_row(rows[0], replace(met, target_id=KINDS[0], kind=KINDS[0])),
                replace_row(rows[7], rows[7].target, Facts(queue="technical")),
            ),
        ),
    )
    found = {row["kind"]: row for row in await connection.fetch("SELECT * FROM target")}
    assert set(found) == set(KINDS)
    row = found["first_response"]
    assert (row["elapsed_us"], row["seconds"]) == (180_000_007, 900.0)
    assert (row["channel"], row["priority"], row["customer_tier"]) == ("email", 3, "gold")
    assert (row["calendar"], row["tier"], row["queue"]) == ("always", "", "service")
    assert (found["tier"]["tier"], found["tier"]["queue"]) == ("front", "technical")
    assert found["tier"]["elapsed_us"] is None


def replace_row(row: TargetRow, target: Target, facts: Facts | None = None) -> TargetRow:
    return TargetRow(row.ticket_id, row.conversation_id, target, facts or row.facts)


async def test_a_tiers_clock_without_its_tier_is_refused(stage: SlaStage, connection: Any) -> None:
    opened = stage.decide(None, received(TicketOpened, NINE, NINE), NINE)
    row = next(row for row in opened.rows if isinstance(row, TargetRow))
    nameless = replace_row(row, replace(row.target, kind="tier"))
    with pytest.raises(asyncpg.CheckViolationError, match="target_tier_is_named"):
        await save(stage, connection, Outcome(state=opened.state, rows=(nameless,)))
