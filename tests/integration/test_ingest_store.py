"""The normaliser's tables on a real PostgreSQL: rows come back as they went in, and races are told."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.errors import Conflict
from services.ingest.core.state import (
    AddressRow,
    CustomerRow,
    Known,
    OutcomeRow,
    Participant,
    ParticipantRow,
    Questions,
    SeenRow,
    ThreadRow,
)
from services.ingest.store import DirectoryStore

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SQL = Path(__file__).resolve().parents[2] / "services" / "ingest" / "sql"


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Any]:
    made = await asyncpg.connect(database)
    for path in sorted(SQL.glob("*.sql")):
        await made.execute(path.read_text(encoding="utf-8"))
    yield made
    await made.close()


def rows(**changes: Any) -> list[tuple[int, Any]]:
    seen = SeenRow("email", "support", "<1@x>#d", "m-1", changes.get("input_id", "in-1"), NOW)
    customer = changes.get("customer_id", "c-1")
    return [
        (0, seen),
        (0, CustomerRow(customer, "Ada", NOW)),
        (0, AddressRow("email", "ada@example.com", customer, False, NOW)),
        (0, ThreadRow("<1@x>", "conv-1", NOW)),
        (0, ParticipantRow("conv-1", "email", "ada@example.com", customer, NOW)),
        (0, OutcomeRow(seen.input_id, "message", None, "m-1", "conv-1", True, NOW)),
    ]


ASKED = Questions(
    input_ids=frozenset({"in-1", "in-2"}),
    seen=frozenset({("email", "support", "<1@x>#d"), ("email", "sales", "<1@x>#d")}),
    references=frozenset({"<1@x>", "<2@x>"}),
    addresses=frozenset({("email", "ada@example.com"), ("phone", "+1")}),
)


async def test_what_is_written_answers_the_next_batch(connection: Any) -> None:
    store = DirectoryStore("default")
    await store.save(connection, [], rows())
    found = await store.directory(connection, ASKED, NOW - timedelta(hours=3))
    assert found.outcomes == {"in-1": "message"}
    assert found.seen == {("email", "support", "<1@x>#d"): "m-1"}
    assert found.threads == {"<1@x>": "conv-1"}
    assert found.addresses == {("email", "ada@example.com"): Known("c-1", False)}
    assert found.participants == {"conv-1": [Participant("email", "ada@example.com", "c-1")]}
    assert found.automatic == {"conv-1": [NOW]}
    assert (await DirectoryStore("other").directory(connection, ASKED, NOW)).seen == {}


async def test_the_same_rows_again_change_nothing(connection: Any) -> None:
    store = DirectoryStore("default")
    for _ in range(2):
        await store.save(connection, [], rows())
    assert await connection.fetchval("SELECT count(*) FROM outcome") == 1


async def test_a_name_or_an_address_claimed_meanwhile_is_a_conflict(connection: Any) -> None:
    store = DirectoryStore("default")
    await store.save(connection, [], rows())
    with pytest.raises(Conflict):
        await store.save(connection, [], rows(input_id="in-2"))
    with pytest.raises(Conflict):
        await store.save(connection, [], rows(customer_id="c-2")[1:3])
    with pytest.raises(Conflict):
        await store.save(connection, [], rows(input_id="in-8")[:1] + rows(input_id="in-9")[:1])


async def test_an_address_stays_verified_once_it_is(connection: Any) -> None:
    store = DirectoryStore("default")
    await store.save(connection, [], rows())
    for is_verified in (True, False):
        await store.save(
            connection, [], [(0, AddressRow("email", "ada@example.com", "c-1", is_verified, NOW))]
        )
    found = await store.directory(connection, ASKED, NOW)
    assert found.addresses["email", "ada@example.com"] == Known("c-1", True)


async def test_old_names_are_forgotten(connection: Any) -> None:
    store = DirectoryStore("default")
    await store.save(connection, [], rows())
    await store.forget(connection, NOW, NOW, NOW)
    assert (await store.directory(connection, ASKED, NOW)).seen != {}
    await store.forget(connection, *[NOW + timedelta(seconds=1)] * 3)
    found = await store.directory(connection, ASKED, NOW)
    assert (found.seen, found.threads) == ({}, {})


@pytest.mark.parametrize(
    "row",
    [
        OutcomeRow("i", "ignored", None, None, None, False, NOW),
        OutcomeRow("i", "message", None, None, None, False, NOW),
        OutcomeRow("i", "message", "spam", "m", "c", False, NOW),
    ],
)
async def test_an_outcome_that_says_two_things_is_refused(connection: Any, row: OutcomeRow) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await DirectoryStore("default").save(connection, [], [(0, row)])
