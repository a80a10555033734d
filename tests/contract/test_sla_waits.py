"""Waits and promises on a real PostgreSQL: written with the decision, settled once, read back as estimates."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.stage import Change, Outcome, Received
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.sla import WaitPromised
from schemas.tickets import (
    TicketAnswered,
    TicketEscalated,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketSolved,
)
from services.sla import estimates, metrics, wait_store
from services.sla.core.promise_policy import PromisesModel, QueuePromises
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


def stage(known: Estimates = NOTHING_KNOWN) -> SlaStage:
    made = SlaStage(POLICIES)
    made.take_estimates(lambda: known)
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
    state = keeper.current.queues["service", "always"]
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


async def test_a_ticket_that_moves_is_ahead_of_others_where_it_went(connection: Any) -> None:
    """Its wait, and the promise, stay with the queue that it was opened in."""
    await past(connection, NINE)
    by = stage((await learned(connection, NINE)).current)
    opened = await write(connection, by, None, received(TicketOpened, NINE, sla_policy="urgent"))
    at = NINE + timedelta(minutes=2)
    moved = received(TicketEscalated, at, from_queue="service", to_queue="technical")
    escalated = await write(connection, by, opened.state, moved)
    states = (await learned(connection, at)).current.queues
    assert states["service", "always"].waiting == ()
    assert states["technical", "always"].waiting == ((3, NINE),)

    raised = received(TicketPrioritised, at, priority=1)
    urgent = await write(connection, by, escalated.state, raised)
    states = (await learned(connection, at)).current.queues
    assert states["technical", "always"].waiting == ((1, NINE),)

    later = NINE + timedelta(minutes=25)
    await write(connection, by, urgent.state, received(TicketAnswered, later))
    found = await row(connection, "c1")
    assert (found["opened_queue"], found["queue"], found["kept"]) == ("service", "technical", False)
    keeper = await learned(connection, later)
    assert keeper.current.queues["technical", "always"].answers == 1
    assert keeper.current.correction("service").n == 1
    assert keeper.current.correction("technical").n == 0


async def test_the_pace_by_a_calendar_is_that_of_its_open_minutes(connection: Any) -> None:
    """The shop opens at 09:00 in Istanbul: what was answered before says nothing of its hours, and counts around the clock."""
    opening = NINE - timedelta(hours=3)
    for minutes in (-20, -10, 5):
        name, at = f"m{minutes}", opening + timedelta(minutes=minutes)
        item = received(TicketOpened, at - timedelta(minutes=1), name, sla_policy="urgent")
        opened = await write(connection, stage(), None, item)
        await write(connection, stage(), opened.state, received(TicketAnswered, at, name))
    keeper = await learned(connection, opening + timedelta(minutes=10))
    always, shop = (keeper.current.queues["service", name] for name in ("always", "shop"))
    assert (always.answers, always.open_seconds) == (3, 3600)
    assert (shop.answers, shop.open_seconds) == (1, 600)


async def test_a_quiet_queue_is_measured_and_not_counted_as_told(connection: Any) -> None:
    await past(connection, NINE)
    quiet = PromisesModel(queues={"service": QueuePromises(is_told=False)})
    by = SlaStage(SimpleNamespace(current=replace(POLICIES.current, promises=quiet)))
    known = (await learned(connection, NINE)).current
    by.take_estimates(lambda: known)
    before = count("yes"), count("no")
    opened = await write(connection, by, None, received(TicketOpened, NINE, sla_policy="urgent"))
    answer = received(TicketAnswered, NINE + timedelta(minutes=30))
    await write(connection, by, opened.state, answer)
    found = await row(connection, "c1")
    assert promise_of(opened).by is None
    assert (found["is_told"], found["kept"]) == (False, False)
    assert (count("yes"), count("no")) == before
    keeper = await learned(connection, NINE + timedelta(hours=1))
    assert keeper.current.correction("service").factor > 1


async def test_what_is_heard_of_too_late_is_no_promise_to_be_broken(connection: Any) -> None:
    await past(connection, NINE)
    keeper = await learned(connection, NINE)
    late = received(TicketOpened, NINE, sla_policy="urgent")
    outcome = await write(
        connection, stage(keeper.current), None, late, NINE + timedelta(minutes=15)
    )
    assert promise_of(outcome).by is None
    after = EstimatesKeeper(lambda: POLICIES.current, StandingClock(NINE + timedelta(hours=1)))
    await after.tidy(connection)
    assert (await row(connection, "c1"))["kept"] is None


async def test_waits_are_read_in_pages_and_queues_take_turns(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest of each queue, whatever its neighbour has; nothing is left out or read twice at the edge of a page."""
    await past(connection, NINE)
    await connection.execute(
        "UPDATE wait SET opened_queue = 'returns' WHERE ticket_id IN ('t-p1', 't-p7', 't-p12')"
    )
    calendars = POLICIES.current.calendars
    since = NINE - timedelta(weeks=8)
    whole = await wait_store.read_waits(connection, ["returns", "service"], since, NINE, calendars)
    monkeypatch.setattr(wait_store, "PAGE", 4)
    paged = await wait_store.read_waits(connection, ["returns", "service"], since, NINE, calendars)
    assert sorted(paged) == sorted(whole)
    assert len(paged) == 40
    monkeypatch.setattr(wait_store, "WAITS_MAX", 10)
    few = await wait_store.read_waits(connection, ["returns", "service"], since, NINE, calendars)
    assert Counter(wait.queue for wait in few) == {"returns": 3, "service": 8}
    newest = sorted((wait.opened_at for wait in whole if wait.queue == "service"), reverse=True)
    assert [wait.opened_at for wait in few if wait.queue == "service"] == newest[:8]
    assert await wait_store.read_queues(connection) == ["returns", "service"]


async def test_a_reading_that_fails_is_tried_again_the_later_the_oftener_it_fails(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has become too much to read in time must not be read every minute; corrections and queues still are."""
    await past(connection, NINE)
    tries: list[datetime] = []
    clock = StandingClock(NINE)

    async def fails(*_: Any) -> list[Any]:
        tries.append(clock.at)
        raise TimeoutError

    whole = wait_store.read_waits
    monkeypatch.setattr(wait_store, "read_waits", fails)
    keeper = EstimatesKeeper(lambda: POLICIES.current, clock)
    for minute in range(16):
        clock.at = NINE + timedelta(minutes=minute)
        with suppress(TimeoutError):
            await keeper.refresh(connection)
    assert [(at - NINE) // timedelta(minutes=1) for at in tries] == [0, 1, 3, 7, 15]
    assert keeper.current.made_at == NINE + timedelta(minutes=14)

    monkeypatch.setattr(wait_store, "read_waits", whole)
    clock.at = NINE + timedelta(minutes=31)
    await keeper.refresh(connection)
    assert keeper.current.cells


async def test_the_stage_waits_for_the_first_look_but_not_for_ever(
    connection: Any, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is opened in the first moments of a process would find nothing known."""
    await past(connection, NINE)
    pool = await open_pool(database, "sla", 1, "test")
    runtime: Any = SimpleNamespace(pool=pool, stopping=asyncio.Event())
    keeper = EstimatesKeeper(lambda: POLICIES.current, StandingClock(NINE))
    keeping = asyncio.create_task(keeper.keep_estimates(runtime))
    try:
        await keeper.first_look(runtime)
        assert keeper.current.cells
    finally:
        runtime.stopping.set()
        await keeping
        await pool.close()
    monkeypatch.setattr(estimates, "FIRST_SECONDS", 0.01)
    idle: Any = SimpleNamespace(stopping=asyncio.Event())
    await EstimatesKeeper(lambda: POLICIES.current).first_look(idle)
