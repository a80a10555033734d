"""Waits and promises on a real PostgreSQL: written with the decision, settled once, read back as estimates."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.stage import Change, Outcome, Received
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.sla import WaitPromised
from schemas.tickets import TicketAnswered, TicketOpened, TicketReopened, TicketSolved
from services.sla import metrics, wait_store
from services.sla.core.state import Conversation
from services.sla.core.waits import NOTHING_KNOWN, Estimates
from services.sla.estimates import EstimatesKeeper
from services.sla.handlers import POLICY, SlaStage

REPOSITORY = Path(__file__).parents[2]
SQL = REPOSITORY / "services" / "sla" / "sql"
NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")  # Noon in Istanbul, a Tuesday.
POLICIES = PolicyHolder(REPOSITORY / "policy", POLICY)


class StandingClock:
    """Shows what it is told."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    await migrate(database, "sla", [SQL])
    pool = await open_pool(database, "sla", 2, "test")
    try:
        async with pool.acquire() as one:
            yield one
    finally:
        await pool.close()


def stage(estimates: Estimates = NOTHING_KNOWN) -> SlaStage:
    made = SlaStage(POLICIES)
    made.take_estimates(lambda: estimates)
    return made


def received(kind: type[Payload], at: datetime, name: str = "c1", **fields: Any) -> Received:
    data = kind.EXAMPLE | {"at": at, "conversation_id": name, "ticket_id": f"t-{name}"}
    if "occurred_at" in kind.model_fields:
        data["occurred_at"] = at
    envelope = Envelope(type=kind.TYPE, source="signalbox/router.tickets/0", id=name, time=at)
    return Received(envelope, kind.model_validate(data | fields), name, "tickets", name)


async def write(
    connection: Any,
    by: SlaStage,
    state: Conversation | None,
    item: Received,
    now: datetime | None = None,
) -> Outcome[Conversation]:
    outcome = by.decide(state, item, now or item.envelope.time)
    async with connection.transaction():
        await by.store.save(
            connection, [Change(0, item.key, outcome.state)], [(0, row) for row in outcome.rows]
        )
    return outcome


async def past(connection: Any, now: datetime, n: int = 40, minutes: float = 18) -> None:
    """Tickets of the hours before, each answered after so many minutes."""
    for k in range(n):
        opened_at = now - timedelta(days=1 + k % 5, minutes=k)
        opened = await write(
            connection,
            stage(),
            None,
            received(TicketOpened, opened_at, f"p{k}", sla_policy="urgent"),
        )
        answer = received(TicketAnswered, opened_at + timedelta(minutes=minutes), f"p{k}")
        await write(connection, stage(), opened.state, answer)


async def row(connection: Any, name: str) -> Any:
    return await connection.fetchrow(
        "SELECT * FROM wait WHERE ticket_id = $1 ORDER BY opened_at DESC", f"t-{name}"
    )


def promise_of(outcome: Outcome[Conversation]) -> WaitPromised:
    return next(event for event in outcome.events if isinstance(event, WaitPromised))


def count(kept: str) -> float:
    return float(metrics.PROMISES.labels(metrics.labels().queue("service"), kept)._value.get())


async def learned(connection: Any, now: datetime) -> EstimatesKeeper:
    keeper = EstimatesKeeper(lambda: POLICIES.current, StandingClock(now))
    await keeper.refresh(connection)
    return keeper


async def test_measured_waits_become_the_promise_of_the_next_ticket(connection: Any) -> None:
    await past(connection, NINE)
    keeper = await learned(connection, NINE)
    outcome = await write(
        connection,
        stage(keeper.current),
        None,
        received(TicketOpened, NINE, sla_policy="urgent"),
    )
    told = promise_of(outcome)
    assert told.wording is not None
    assert (told.wording.kind, told.wording.minutes) == ("within", 20)
    assert told.by == NINE + timedelta(minutes=20)
    assert (told.samples, told.estimates_version) == (40, keeper.current.version)
    kept = await row(connection, "c1")
    assert (kept["promised_by"], kept["promised_seconds"], kept["kept"]) == (told.by, 1200, None)
    assert kept["hour_of_week"] == 24 + 9


@pytest.mark.parametrize(("minutes", "is_kept"), [(20, True), (21, False)])
async def test_a_promise_is_judged_by_the_instant_of_the_answer(
    connection: Any, minutes: int, *, is_kept: bool
) -> None:
    await past(connection, NINE)
    by = stage((await learned(connection, NINE)).current)
    opened = await write(connection, by, None, received(TicketOpened, NINE, sla_policy="urgent"))
    before = count("yes"), count("no")
    answered_at = NINE + timedelta(minutes=minutes)
    await write(connection, by, opened.state, received(TicketAnswered, answered_at))
    found = await row(connection, "c1")
    assert found["kept"] is is_kept
    assert found["settled_at"] == min(answered_at, NINE + timedelta(minutes=20))
    assert found["waited_us"] == minutes * 60_000_000
    assert (count("yes") - before[0], count("no") - before[1]) == (is_kept, not is_kept)


async def test_one_that_passes_unanswered_is_broken_once_and_a_late_word_puts_it_right(
    connection: Any,
) -> None:
    await past(connection, NINE)
    by = stage((await learned(connection, NINE)).current)
    opened = await write(connection, by, None, received(TicketOpened, NINE, sla_policy="urgent"))
    later = NINE + timedelta(minutes=30)
    before = count("no")
    keeper = EstimatesKeeper(lambda: POLICIES.current, StandingClock(later))
    await keeper.tidy(connection)
    await keeper.tidy(connection)
    found = await row(connection, "c1")
    assert (found["kept"], found["settled_at"]) == (False, NINE + timedelta(minutes=20))
    assert count("no") == before + 1
    await keeper.refresh(connection)
    assert keeper.current.correction("service").factor > 1

    answer = received(TicketAnswered, NINE + timedelta(minutes=19))
    await write(connection, by, opened.state, answer, later)
    found = await row(connection, "c1")
    assert (found["kept"], found["settled_at"]) == (True, NINE + timedelta(minutes=19))


async def test_what_is_solved_without_an_answer_has_neither_kept_nor_broken_it(
    connection: Any,
) -> None:
    await past(connection, NINE)
    by = stage((await learned(connection, NINE)).current)
    opened = await write(connection, by, None, received(TicketOpened, NINE, sla_policy="urgent"))
    solved = received(TicketSolved, NINE + timedelta(minutes=3), with_answer=False)
    await write(connection, by, opened.state, solved)
    found = await row(connection, "c1")
    assert (found["kept"], found["answered_at"]) == (None, None)
    assert found["ended_at"] == NINE + timedelta(minutes=3)


async def test_a_reopened_ticket_is_promised_anew(connection: Any) -> None:
    await past(connection, NINE)
    by = stage((await learned(connection, NINE)).current)
    state = (
        await write(connection, by, None, received(TicketOpened, NINE, sla_policy="urgent"))
    ).state
    solved = received(TicketSolved, NINE + timedelta(minutes=3), with_answer=True)
    state = (await write(connection, by, state, solved)).state
    again = NINE + timedelta(hours=1)
    told = promise_of(await write(connection, by, state, received(TicketReopened, again)))
    assert (told.at, told.by) == (again, again + timedelta(minutes=20))
    assert await connection.fetchval("SELECT count(*) FROM wait WHERE ticket_id = 't-c1'") == 2


async def test_the_state_of_the_queues_is_read_and_old_waits_go(connection: Any) -> None:
    await past(connection, NINE)
    await write(connection, stage(), None, received(TicketOpened, NINE, sla_policy="urgent"))
    now = NINE + timedelta(minutes=10)
    keeper = await learned(connection, now)
    state = keeper.current.queues["service"]
    assert (state.waiting, state.answers, state.open_seconds) == (((3, NINE),), 0, 3600)
    assert await wait_store.forget(connection, NINE - timedelta(days=3)) == 24
    assert await connection.fetchval("SELECT count(*) FROM wait") == 17


async def test_two_processes_learn_the_same(connection: Any) -> None:
    await past(connection, NINE)
    one, two = await learned(connection, NINE), await learned(connection, NINE)
    assert one.current == two.current


async def test_a_ticket_without_a_past_is_told_nothing(connection: Any) -> None:
    told = promise_of(await write(connection, stage(), None, received(TicketOpened, NINE)))
    assert (told.by, told.seconds, told.wording, told.basis) == (None, None, None, "none")
