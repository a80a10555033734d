"""What the database refuses is undone for certain and says so; all else that goes wrong with a commit stays doubtful."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from chassis.errors import Conflict, Refused
from chassis.failpoints import FailpointError, Failpoints
from chassis.ledger import Ledger, Overlay, Position, Write, open_pool
from chassis.stage import Connection
from tests.faults.pipeline import Applied, Tally, TallyStore
from tests.integration.kit import Database, looking

STAGE = "pipeline_a"


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    async with looking(database, STAGE) as one:
        yield one


@pytest.fixture
async def pool(database: str, db: Database) -> AsyncIterator[asyncpg.Pool]:
    one = await open_pool(database, STAGE, 1, "test")
    yield one
    await one.close()


class Store(TallyStore):
    """Says something to the server besides, or stumbles over itself."""

    def __init__(self, statement: str = "", error: Exception | None = None) -> None:
        super().__init__(STAGE, Tally)
        self._statement = statement
        self._error = error

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        await super().save_rows(connection, rows)
        if self._statement:
            await connection.execute(self._statement)
        if self._error is not None:
            raise self._error


async def _write(ledger: Ledger[Tally], *rows: Applied) -> Position:
    """Take a lease and commit rows with it; return the position that this was to reach."""
    lease = await ledger.acquire(0, "ada", 1)
    assert lease is not None
    position = lease.position.copy()
    position.n_applied += 1
    await ledger.commit([Write(0, lease.epoch, Overlay(position, rows=list(rows)))])
    return position


GOOD = Applied("input 1", "k1", 1)


@pytest.mark.parametrize(
    ("rows", "store", "cause"),
    [
        ([Applied("input 1", "k1", 2**40)], Store(), asyncpg.DataError),
        ([Applied("input \x00", "k1", 1)], Store(), asyncpg.DataError),
        ([Applied("input \ud800", "k1", 1)], Store(), asyncpg.DataError),
        ([GOOD, GOOD], Store(), asyncpg.UniqueViolationError),
        ([Applied("input 1", "k1", 1, -1.0)], Store(), asyncpg.CheckViolationError),
        ([GOOD], Store(error=KeyError("a bug")), KeyError),
        ([GOOD], Store("SELECT 1 / 0"), asyncpg.DivisionByZeroError),
    ],
    ids=["too large", "NUL", "surrogate", "twice", "check", "bug", "arithmetic"],
)
async def test_what_a_batch_holds_is_refused_and_the_connection_goes_on(
    pool: asyncpg.Pool,
    db: Database,
    rows: Sequence[Applied],
    store: Store,
    cause: type[Exception],
) -> None:
    with pytest.raises(Refused) as caught:
        await _write(Ledger(pool, STAGE, store), *rows)
    assert isinstance(caught.value.__cause__, cause)
    assert await db.value("SELECT n_applied FROM lease") == 0
    assert await db.value("SELECT count(*) FROM history") == 0
    # The pool has one connection: it is the same one, and nothing is open on it.
    await _write(Ledger(pool, STAGE, Store()), GOOD)
    assert await db.value("SELECT n_applied FROM lease") == 1


async def test_a_constraint_that_speaks_at_the_commit_refuses_too(
    pool: asyncpg.Pool, db: Database
) -> None:
    await db.connection.execute(
        "ALTER TABLE history ADD CONSTRAINT once UNIQUE (key, count) DEFERRABLE INITIALLY DEFERRED"
    )
    with pytest.raises(Refused) as caught:
        await _write(Ledger(pool, STAGE, Store()), GOOD, Applied("input 2", "k1", 1))
    assert isinstance(caught.value.__cause__, asyncpg.UniqueViolationError)
    assert await db.value("SELECT n_applied FROM lease") == 0


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
async def test_what_the_server_ended_for_anothers_sake_is_a_conflict(
    pool: asyncpg.Pool, db: Database, sqlstate: str
) -> None:
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$"
    with pytest.raises(Conflict):
        await _write(Ledger(pool, STAGE, Store(statement)), GOOD)
    assert await db.value("SELECT n_applied FROM lease") == 0


@pytest.mark.parametrize(
    ("store", "error"),
    [
        (Store("SELECT pg_terminate_backend(pg_backend_pid())"), asyncpg.InterfaceError),
        (Store("DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40003'; END $$"), asyncpg.PostgresError),
        (Store("SELECT no_such_column FROM history"), asyncpg.UndefinedColumnError),
        (Store(error=OSError("the network")), OSError),
    ],
    ids=["connection", "unknown completion", "wrong schema", "network"],
)  # fmt: skip
async def test_all_else_stays_in_doubt(
    pool: asyncpg.Pool, store: Store, error: type[Exception], db: Database
) -> None:
    with pytest.raises(error) as caught:
        await _write(Ledger(pool, STAGE, store), GOOD)
    assert not isinstance(caught.value, Refused | Conflict)


async def test_an_error_behind_the_commit_is_never_taken_for_a_refusal(
    pool: asyncpg.Pool, db: Database
) -> None:
    class Stumbling(Failpoints):
        def hit(self, name: str) -> None:
            if name == "commit_ack":
                raise FailpointError("the reply is lost")

    with pytest.raises(FailpointError):
        await _write(Ledger(pool, STAGE, Store(), Stumbling()), GOOD)
    assert await db.value("SELECT n_applied FROM lease") == 1
