"""The ledger on a real PostgreSQL: who does not hold the lease changes nothing, whenever they wake up."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

import chassis.ledger
from chassis import deadletters
from chassis.clock import SystemClock
from chassis.errors import Fenced
from chassis.ledger import (
    DATABASE_ERRORS,
    AlreadyResolved,
    Ledger,
    OutboxRow,
    Overlay,
    Position,
    TimerMark,
    TimerMissing,
    TimerRow,
    Walk,
    Write,
    open_pool,
    resume,
)
from chassis.stage import Effect
from chassis.testing import at
from tests.faults.pipeline import Applied, StageA, Tally, TallyStore
from tests.integration.kit import Database, looking

STAGE = "pipeline_a"
NOW = SystemClock()


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    async with looking(database, STAGE) as one:
        yield one


@pytest.fixture
async def pool(database: str, db: Database) -> AsyncIterator[asyncpg.Pool]:
    one = await open_pool(database, STAGE, 4, "test")
    yield one
    await one.close()


@pytest.fixture
def ledger(pool: asyncpg.Pool) -> Ledger[Tally]:
    return Ledger(pool, STAGE, TallyStore(STAGE, Tally))


async def take(ledger: Ledger[Tally], task: int = 0, owner: str = "ada", topology: int = 1) -> Any:
    return await ledger.acquire(task, owner, topology)


def overlay(position: Position, n: int = 1, **fields: Any) -> Overlay[Tally]:
    """A batch that writes to every table."""
    moved = position.copy()
    moved.offsets["inbound"] = moved.offsets.get("inbound", 0) + 1
    moved.emitted["messages/0"] = moved.emitted.get("messages/0", 0) + 1
    moved.n_applied += 1
    oid, moved.next_oid = moved.next_oid, moved.next_oid + 1
    timer_id, moved.next_timer = moved.next_timer, moved.next_timer + 1
    made: Overlay[Tally] = Overlay(
        moved,
        states={f"k{n}": Tally(n)},
        rows=[Applied(f"input {n}", f"k{n}", n)],
        outbox=[OutboxRow(oid, "messages", 0, moved.emitted["messages/0"], b"k", b"[]", b"{}")],
        timers={(f"k{n}", "due"): TimerRow(f"k{n}", "due", timer_id, at("09:00"))},
        effects={f"e{n}": (oid, Effect(f"e{n}", f"k{n}", {"n": n}))},
        parked=[parked(n)],
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def parked(n: int, task: int = 0) -> deadletters.ParkedRecord:
    return deadletters.park(
        stage=STAGE,
        task=task,
        topic="inbound",
        partition=task,
        offset=n,
        key=None,
        headers=(("ce_id", None), ("x", b"\xff")),
        value=b"\x00",
        reason="invalid_envelope",
        error="type: is missing",
        state_key=f"k{n}",
        now=at("09:00"),
    )


async def everything(db: Database) -> dict[str, Any]:
    """All tables of the ledger, as they are."""
    return {
        table: [tuple(row) for row in await db.rows(f"SELECT * FROM {table} ORDER BY 1, 2, 3")]
        for table in ("lease", "state", "history", "timer", "outbox", "effect", "parked")
    }


async def test_a_commit_writes_all_of_a_batch_and_reads_back_the_same(
    ledger: Ledger[Tally], db: Database
) -> None:
    lease = await take(ledger)
    made = overlay(lease.position)
    assert await ledger.commit([Write(0, lease.epoch, made)]) == {0}
    again = await take(ledger)
    assert again.epoch == lease.epoch + 1
    assert again.position == made.position
    assert await ledger.peek_offsets(0) == {"inbound": 1}
    assert await ledger.load_outbox(0, 0, 10) == made.outbox
    assert await ledger.load_timers(0, None, at("09:00")) == list(made.timers.values())
    assert await ledger.load_effects(0) == [(Effect("e1", "k1", {"n": 1}), "waiting")]
    assert await ledger.load_parked_keys(0) == {"k1": [parked(1).id]}
    await db.connection.execute("UPDATE parked SET replay_requested_at = clock_timestamp()")
    assert await ledger.load_replays([0]) == [parked(1)]
    async with ledger.reading() as connection:
        states = await TallyStore(STAGE, Tally).load(connection, 0, ["k1", "k2"])
    assert states == {"k1": Tally(1)}


async def test_an_owner_that_was_replaced_changes_nothing(
    ledger: Ledger[Tally], db: Database
) -> None:
    old = await take(ledger, owner="ada")
    new = await take(ledger, owner="eva")
    before = await everything(db)
    with pytest.raises(Fenced) as caught:
        await ledger.commit([Write(0, old.epoch, overlay(old.position))])
    assert caught.value.tasks == (0,)
    assert await everything(db) == before
    assert await ledger.commit([Write(0, new.epoch, overlay(new.position))]) == {0}


async def test_of_two_tasks_in_one_commit_only_the_fenced_one_is_left_out(
    ledger: Ledger[Tally], db: Database
) -> None:
    first, second = await take(ledger, 0), await take(ledger, 1)
    await take(ledger, 1, owner="eva")
    mine = overlay(first.position, 1)
    theirs = overlay(second.position, 2, parked=[parked(2, 1)], acked_oid=7)
    assert await ledger.commit([Write(0, first.epoch, mine), Write(1, second.epoch, theirs)]) == {0}
    found = await everything(db)
    for table in ("state", "timer", "outbox", "effect"):
        assert [row[1] for row in found[table]] == [0], table
    assert [row[0] for row in found["history"]] == ["input 1"]
    assert await db.value("SELECT n_applied FROM lease WHERE task = 1") == 0


async def test_a_timer_that_is_not_there_ends_the_batch_whole(
    ledger: Ledger[Tally], db: Database
) -> None:
    lease = await take(ledger)
    await ledger.commit([Write(0, lease.epoch, first := overlay(lease.position))])
    before = await everything(db)
    ghost = TimerRow("k1", "due", 99, at("09:00"))
    with pytest.raises(TimerMissing):
        await ledger.commit(
            [Write(0, lease.epoch, overlay(first.position, 2, fired={("k1", "due"): ghost}))]
        )
    anew = {("k1", "due"): TimerRow("k1", "due", 100, at("10:00"))}
    with pytest.raises(TimerMissing):
        await ledger.commit(
            [
                Write(
                    0,
                    lease.epoch,
                    overlay(first.position, 2, fired={("k1", "due"): ghost}, timers=anew),
                )
            ]
        )
    assert await everything(db) == before


async def test_timers_are_read_a_page_at_a_time_though_all_are_due_at_one_instant(
    ledger: Ledger[Tally], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.ledger, "TIMER_PAGE", 10)
    await db.connection.execute(
        "INSERT INTO timer SELECT 'pipeline_a', 0, 'k' || n, 'due', n, $1::timestamptz FROM generate_series(1, 35) AS n",
        at("09:00"),
    )
    seen: list[TimerRow] = []
    mark = None
    while page := await ledger.load_timers(0, mark, at("09:01")):
        assert len(page) <= 10
        seen += page
        mark = TimerMark(page[-1].due_at, page[-1].key, page[-1].name)
    assert sorted(one.id for one in seen) == list(range(1, 36))


async def test_who_does_not_hold_the_lease_stores_no_revision(
    ledger: Ledger[Tally], db: Database
) -> None:
    stage = StageA()
    stage.present_revision = "one"
    old, new = await take(ledger), await take(ledger, owner="eva")
    await ledger.load_walk(stage, 0, old.epoch)
    assert await db.rows("SELECT * FROM revisit") == []
    assert await ledger.load_walk(stage, 0, new.epoch) == Walk("one", is_done=True)
    assert await db.value("SELECT revision FROM revisit") == "one"


async def test_a_fired_timer_is_gone_with_its_batch_and_one_set_anew_stays(
    ledger: Ledger[Tally], db: Database
) -> None:
    lease = await take(ledger)
    await ledger.commit([Write(0, lease.epoch, first := overlay(lease.position))])
    (row,) = first.timers.values()
    assert row is not None
    later = replace(row, id=2, due_at=at("10:00"))
    await ledger.commit(
        [
            Write(
                0,
                lease.epoch,
                second := overlay(
                    first.position, 2, fired={("k1", "due"): row}, timers={("k1", "due"): later}
                ),
            )
        ]
    )
    assert await ledger.load_timers(0, None, at("11:00")) == [later]
    assert await ledger.load_timers(0, TimerMark(at("10:00"), "k1", "due"), at("11:00")) == []
    cleared = overlay(second.position, 3, timers={("k1", "due"): None})
    await ledger.commit([Write(0, lease.epoch, cleared)])
    assert await ledger.load_timers(0, None, at("11:00")) == []


async def test_an_effect_is_begun_settled_and_may_be_recorded_again_with_its_settling(
    ledger: Ledger[Tally],
) -> None:
    lease = await take(ledger)
    first = overlay(lease.position)
    await ledger.commit([Write(0, lease.epoch, first)])
    begun = overlay(first.position, 2, effects={}, effects_started=["e1"])
    await ledger.commit([Write(0, lease.epoch, begun)])
    assert await ledger.load_effects(0) == [(Effect("e1", "k1", {"n": 1}), "begun")]
    again = Effect("e1", "k1", {"n": 1}, attempt=2)
    retried = overlay(begun.position, 3, effects={"e1": (9, again)}, effects_settled=["e1"])
    await ledger.commit([Write(0, lease.epoch, retried)])
    assert await ledger.load_effects(0) == [(again, "waiting")]


async def test_an_effect_is_withdrawn_only_before_it_is_begun_and_then_never_begun(
    ledger: Ledger[Tally],
) -> None:
    lease = await take(ledger)
    one, two = Effect("e1", "k1", {}), Effect("e2", "k2", {})
    made = {"e1": (1, one), "e2": (2, two)}
    first = overlay(lease.position, effects=made, effects_started=["e2"])
    await ledger.commit([Write(0, lease.epoch, first)])
    both = {"e1": None, "e2": None}
    late = overlay(first.position, 2, effects={}, effects_withdrawn=both, effects_started=["e1"])
    await ledger.commit([Write(0, lease.epoch, late)])
    assert await ledger.load_effects(0) == [(one, "withdrawn"), (two, "begun")]
    again = Effect("e1", "k1", {}, attempt=2)
    retried = overlay(late.position, 3, effects={"e1": (9, again)}, effects_settled=["e1"])
    await ledger.commit([Write(0, lease.epoch, retried)])
    assert await ledger.load_effects(0) == [(two, "begun"), (again, "waiting")]


async def test_published_rows_go_with_the_next_commit_or_when_idle_but_only_for_the_owner(
    ledger: Ledger[Tally], db: Database
) -> None:
    lease = await take(ledger)
    position = lease.position
    for n in (1, 2, 3):
        made = overlay(position, n, acked_oid=1 if n == 3 else 0)
        await ledger.commit([Write(0, lease.epoch, made)])
        position = made.position
    assert [row.oid for row in await ledger.load_outbox(0, 0, 10)] == [2, 3]
    await take(ledger, owner="eva")
    await ledger.delete_acked(0, 3, lease.epoch)
    assert [row.oid for row in await ledger.load_outbox(0, 0, 10)] == [2, 3]
    await ledger.delete_acked(0, 2, lease.epoch + 1)
    assert [row.oid for row in await ledger.load_outbox(0, 0, 10)] == [3]
    assert await ledger.load_outbox(0, 3, 10) == []


async def test_a_lease_is_free_when_its_owner_has_not_renewed_it(
    ledger: Ledger[Tally], db: Database
) -> None:
    async def try_it(owner: str, seconds: float) -> Any:
        return await ledger.acquire_if_free(0, owner, 1, seconds)

    lease = await try_it("ada", 60)
    assert lease is not None
    assert await try_it("eva", 60) is None
    assert (await try_it("ada", 60)).epoch == 2, "its owner may take it again"
    await db.connection.execute("UPDATE lease SET renewed_at = clock_timestamp() - interval '61 s'")
    assert (await try_it("eva", 60)).epoch == 3
    assert await try_it("ada", 60) is None
    await ledger.commit([Write(0, 3, Overlay(lease.position.copy()))])  # Renews it.
    assert await try_it("ada", 60) is None


async def test_an_older_topology_gets_no_lease(ledger: Ledger[Tally]) -> None:
    assert (await take(ledger, owner="new", topology=2)).epoch == 1
    assert await take(ledger, owner="old", topology=1) is None
    assert (await take(ledger, owner="new", topology=2)).epoch == 2


class _Ahead:
    """A clock that is wrong by a minute and a half."""

    def now(self) -> datetime:
        return NOW.now() + timedelta(seconds=90)


async def test_the_clock_is_compared_with_the_databases(ledger: Ledger[Tally]) -> None:
    assert await ledger.measure_skew(_Ahead()) == pytest.approx(90, abs=2)


async def test_a_transaction_that_takes_too_long_is_ended_by_the_server(
    ledger: Ledger[Tally], pool: asyncpg.Pool, db: Database
) -> None:
    await take(ledger, owner="slow")
    async with pool.acquire() as connection:
        await connection.execute("SET statement_timeout = 0")  # What is left is the transaction's.
        await connection.transaction().start()
        await connection.execute("UPDATE lease SET n_applied = 1000 WHERE task = 0")
        with pytest.raises(DATABASE_ERRORS):
            await connection.execute("SELECT pg_sleep(30)", timeout=20)
    assert await db.value("SELECT n_applied FROM lease WHERE task = 0") == 0
    assert (await take(ledger, owner="eva")).epoch == 2


async def test_an_idle_transaction_does_not_keep_the_next_owner_waiting(
    ledger: Ledger[Tally], pool: asyncpg.Pool, db: Database
) -> None:
    await take(ledger, owner="frozen")
    async with pool.acquire() as connection:
        await connection.transaction().start()
        await connection.execute("UPDATE lease SET n_applied = 1000 WHERE task = 0")
        taken = await take(ledger, owner="eva")  # Waits until the server ends the other, about 2 s.
        assert taken is not None
        with pytest.raises(DATABASE_ERRORS):
            await connection.execute("SELECT 1")
    assert await db.value("SELECT n_applied FROM lease WHERE task = 0") == 0


async def test_resume_moves_a_halted_position_behind_the_gap(
    ledger: Ledger[Tally], db: Database
) -> None:
    lease = await take(ledger)
    halted = Overlay[Tally](lease.position.copy())
    halted.position.offsets = {"messages": 5, "commands": 1}
    halted.position.applied = {"signalbox/a/0 messages": 7}
    halted.position.halted = {
        "topic": "messages",
        "source": "signalbox/a/0",
        "last": 7,
        "got": 10,
        "offset": 6,
        "reason": "sequence_gap",
    }
    await ledger.commit([Write(0, lease.epoch, halted)])
    assert await ledger.is_halted(0)
    async with ledger.reading() as connection:
        assert await resume(connection, STAGE, 0) == halted.position.halted
        assert await resume(connection, STAGE, 0) is None
    assert not await ledger.is_halted(0)
    after = (await take(ledger)).position
    assert after.offsets == {"messages": 6, "commands": 1}
    assert after.applied == {"signalbox/a/0 messages": 9}


async def test_what_commits_at_once_is_decided_by_the_epoch_and_one_of_two_loses(
    ledger: Ledger[Tally], db: Database
) -> None:
    leases = [await take(ledger, owner=owner) for owner in ("ada", "eva", "kim")]
    results = await asyncio.gather(
        *(
            ledger.commit([Write(0, lease.epoch, overlay(lease.position, n))])
            for n, lease in enumerate(leases, 1)
        ),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Fenced, Fenced, set]
    assert await db.value("SELECT array_agg(name) FROM history") == ["input 3"]


async def ask_for_replays(db: Database) -> None:
    await db.connection.execute("UPDATE parked SET replay_requested_at = clock_timestamp()")


async def test_replays_are_read_by_their_bytes_as_well_as_by_their_number(
    ledger: Ledger[Tally], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [replace(parked(n, task=n % 2), value=b"x" * 1_000) for n in range(1, 6)]
    await deadletters.insert(db.connection, records)
    await ask_for_replays(db)

    async def read() -> list[int]:
        return [record.offset for record in await ledger.load_replays([0, 1])]

    assert await read() == [1, 2, 3, 4, 5]
    monkeypatch.setattr(chassis.ledger, "PAGE_BYTES", 2_500)
    assert await read() == [1, 2, 3]
    monkeypatch.setattr(chassis.ledger, "PAGE_BYTES", 10)
    assert await read() == [1], "one that is larger than a page goes alone"
    monkeypatch.setattr(chassis.ledger, "PAGE_BYTES", 1_000_000)
    monkeypatch.setattr(chassis.ledger, "REPLAYS_MAX", 2)
    assert await read() == [1, 2]


async def test_a_replay_counts_only_while_the_dead_letter_is_open(
    ledger: Ledger[Tally], db: Database
) -> None:
    lease = await take(ledger)
    await deadletters.insert(db.connection, [parked(1), parked(2)])
    await db.connection.execute(
        "UPDATE parked SET resolved_at = clock_timestamp(), resolution = 'dropped' WHERE log_offset = 2"
    )
    before = await everything(db)
    late = overlay(
        lease.position, 7, parked=[], resolved=[(parked(n).id, "replayed") for n in (1, 2)]
    )
    with pytest.raises(AlreadyResolved):
        await ledger.commit([Write(0, lease.epoch, late)])
    assert await everything(db) == before
    open_one = overlay(lease.position, 7, parked=[], resolved=[(parked(1).id, "replayed")])
    await ledger.commit([Write(0, lease.epoch, open_one)])
    found = await db.rows("SELECT resolution FROM parked ORDER BY log_offset")
    assert [row["resolution"] for row in found] == ["replayed", "dropped"]
