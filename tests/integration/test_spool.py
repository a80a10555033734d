"""The spool on a real PostgreSQL and a real Kafka: what was accepted is stored, numbered once, and published."""

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

import chassis.ledger
import chassis.spool
from chassis import metrics
from chassis.clock import SystemClock
from chassis.errors import InvalidEvent, Unavailable
from chassis.ledger import open_pool
from chassis.local.postgres import LocalPostgres, start_postgres
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.spool import GATEWAY, Numberer, PutResult, Spool, SpoolItem
from schemas.envelope import Envelope
from schemas.topics import COMMANDS, INBOUND, Topic
from tests.faults.pipeline import Given
from tests.integration.kit import PARTITIONS, MakeTopic, make_settings, read_topic, until


@pytest.fixture
async def settings(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic
) -> Settings:
    for name in ("inbound", "commands"):
        await make_topic(name, partitions=PARTITIONS)
    await migrate(database, "ingest")
    return make_settings(bootstrap, database, topic_prefix)


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[asyncpg.Pool]:
    one = await open_pool(settings.dsn, "ingest", 6, "test")
    yield one
    await one.close()


R = TypeVar("R", Spool, Numberer)


@contextlib.asynccontextmanager
async def at_work(part: R) -> AsyncIterator[R]:
    """A spool or a numberer that runs."""
    work = asyncio.create_task(part.run())
    try:
        yield part
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


@pytest.fixture
async def spool(pool: asyncpg.Pool, settings: Settings) -> AsyncIterator[Spool]:
    async with at_work(Spool(pool, settings)) as one:
        yield one


def item(n: int, key: str | None = None, topic: Topic = INBOUND, **fields: Any) -> SpoolItem:
    name = key or f"k{n % 5}"
    envelope = Envelope(
        type=Given.TYPE,
        source="set by the numberer",
        id=f"id-{n}",
        time=SystemClock().now(),
        partitionkey=name,
        correlationid=name,
    )
    value = Given(key=name, n=n).to_json()
    return SpoolItem(topic, name, envelope, value, **{"answer": f"answer {n}", **fields})


def commits() -> float:
    value = metrics.REGISTRY.get_sample_value("signalbox_spool_commit_seconds_count")
    assert value is not None
    return value


async def test_many_callers_share_a_transaction_and_each_is_stored(
    spool: Spool, pool: asyncpg.Pool
) -> None:
    before = commits()
    results = await asyncio.gather(*(spool.put(item(n)) for n in range(300)))
    assert all(result.stored for result in results)
    assert [result.answer for result in results[:2]] == ["answer 0", "answer 1"]
    assert await pool.fetchval("SELECT count(*) FROM spool") == 300
    assert commits() - before < 30


async def test_the_same_request_again_gets_the_first_answer_and_another_one_is_refused(
    spool: Spool, pool: asyncpg.Pool
) -> None:
    first = await spool.put(item(1, idempotency=("order-1", "digest a")))
    again = await spool.put(item(2, idempotency=("order-1", "digest a")))
    other = await spool.put(item(3, idempotency=("order-1", "digest b")))
    assert first == PutResult(stored=True, answer="answer 1")
    assert again == PutResult(stored=False, repeated=True, answer="answer 1")
    assert other == PutResult(stored=False, conflicting=True)
    assert await pool.fetchval("SELECT count(*) FROM spool") == 1


async def test_repeats_within_one_transaction_are_seen_too(
    spool: Spool, pool: asyncpg.Pool
) -> None:
    results = await asyncio.gather(
        *(spool.put(item(n, idempotency=("order-1", "same"))) for n in range(20))
    )
    assert [result.stored for result in results].count(True) == 1
    assert {result.answer for result in results} == {"answer 0"}
    assert await pool.fetchval("SELECT count(*) FROM spool") == 1


async def test_two_gateways_at_once_store_a_request_once(
    pool: asyncpg.Pool, settings: Settings
) -> None:
    async with at_work(Spool(pool, settings)) as one, at_work(Spool(pool, settings)) as other:
        results = await asyncio.gather(
            *(
                gateway.put(item(n, idempotency=(f"order-{n % 10}", "same")))
                for n in range(40)
                for gateway in (one, other)
            )
        )
    assert [result.stored for result in results].count(True) == 10
    assert await pool.fetchval("SELECT count(*) FROM spool") == 10


async def test_a_large_body_is_kept_once_under_its_digest(spool: Spool, pool: asyncpg.Pool) -> None:
    body = b"\x00\xff" * 500_000
    ref = hashlib.sha256(body).hexdigest()
    await asyncio.gather(*(spool.put(item(n, blob=(ref, body))) for n in range(3)))
    await spool.put(item(4, blob=(ref, body)))
    assert await pool.fetchval("SELECT count(*) FROM blob") == 1
    assert await pool.fetchval("SELECT value FROM blob WHERE ref = $1", ref) == body


async def test_one_item_that_cannot_be_stored_costs_its_neighbours_nothing(
    spool: Spool, pool: asyncpg.Pool
) -> None:
    results = await asyncio.gather(
        *(spool.put(item(n, key="k\x00" if n == 3 else None)) for n in range(8)),
        return_exceptions=True,
    )
    assert [n for n, result in enumerate(results) if isinstance(result, InvalidEvent)] == [3]
    assert await pool.fetchval("SELECT count(*) FROM spool") == 7


async def test_an_item_that_cannot_be_stored_alone_is_the_senders_fault_and_not_the_databases(
    spool: Spool,
) -> None:
    with pytest.raises(InvalidEvent, match="unstorable") as caught:
        await spool.put(item(1, key="k\x00"))
    assert "k\x00" not in str(caught.value)


async def test_what_waits_is_numbered_in_transactions_bounded_by_bytes(
    spool: Spool, pool: asyncpg.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.spool, "PAGE_BYTES", 100_000)
    big = [replace(item(n), value=Given(key="k", n=n).to_json() + b" " * 40_000) for n in range(9)]
    await asyncio.gather(*(spool.put(one) for one in big))
    numberer = Numberer(pool, settings, SystemClock(), spool)
    taken: list[int] = []
    number = numberer._number

    async def counting(rows: Sequence[Any]) -> None:
        if rows:
            taken.append(len(rows))
        await number(rows)

    monkeypatch.setattr(numberer, "_number", counting)
    async with at_work(numberer):
        check_numbers(await _published(settings, 9))
    assert sum(taken) == 9
    assert max(taken) == 3


async def test_the_outbox_is_read_in_pages_bounded_by_bytes_and_to_its_end(
    spool: Spool, pool: asyncpg.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.ledger, "PAGE_BYTES", 1)
    async with at_work(Numberer(pool, settings, SystemClock(), spool)) as one:
        await until("it holds all", lambda: len(one._held) == PARTITIONS)
        for held in one._held.values():
            await held.relay.stop()
        await asyncio.gather(*(spool.put(item(n)) for n in range(20)))

        async def is_numbered() -> bool:
            return await pool.fetchval("SELECT count(*) FROM outbox") == 20

        await until("all are numbered", is_numbered)
        ledger = one._ledger
        assert len(await ledger.load_outbox(0, 0, 100)) == 1
    async with at_work(Numberer(pool, settings, SystemClock(), spool)):
        check_numbers(await _published(settings, 20))


async def test_nothing_is_numbered_while_the_topics_have_another_size(
    spool: Spool, pool: asyncpg.Pool, settings: Settings
) -> None:
    wrong = settings.model_copy(update={"partitions": PARTITIONS + 1})
    async with at_work(Numberer(pool, wrong, SystemClock(), spool)) as one:
        await spool.put(item(1))
        await until("it holds all", lambda: len(one._held) == PARTITIONS + 1)
        await until("it has looked", lambda: "has 2 partitions" in (one.topics_problem or ""))
        turn = one.last_turn
        await until("it has come round again", lambda: one.last_turn > turn + 0.1)
        assert await pool.fetchval("SELECT count(*) FROM spool") == 1
        assert await pool.fetchval("SELECT count(*) FROM outbox") == 0


async def _published(settings: Settings, count: int) -> list[Any]:
    found: list[Any] = []

    async def all_there() -> bool:
        found[:] = await read_topic(settings, "inbound")
        return len({event.n for _, event, _ in found}) == count

    await until(f"{count} items are published", all_there)
    return found


def check_numbers(found: list[Any]) -> None:
    """First occurrences count from 1 without a gap, per partition; each input has one number."""
    for number in range(PARTITIONS):
        seen: dict[int, int] = {}
        for envelope, event, record in found:
            if record.partition == number:
                assert envelope.source == f"signalbox/{GATEWAY}/{number}"
                assert seen.setdefault(envelope.sequence, event.n) == event.n
        assert list(seen) == list(range(1, len(seen) + 1))
        assert len(set(seen.values())) == len(seen)


async def test_two_numberers_number_each_item_once_without_a_gap_and_in_order(
    spool: Spool, pool: asyncpg.Pool, settings: Settings
) -> None:
    async with (
        at_work(Numberer(pool, settings, SystemClock(), spool)) as one,
        at_work(Numberer(pool, settings, SystemClock())) as other,
    ):
        for start in range(0, 200, 20):
            await asyncio.gather(*(spool.put(item(n)) for n in range(start, start + 20)))
        found = await _published(settings, 200)
        held = [sorted(numberer._held) for numberer in (one, other)]
        assert sorted(n for numbers in held for n in numbers) == [0, 1], "each lease has one holder"
    check_numbers(found)
    assert len(found) == 200
    for key in ("k0", "k1", "k2", "k3", "k4"):
        mine = [event.n // 20 for _, event, _ in found if event.key == key]
        assert mine == sorted(mine)
    assert await pool.fetchval("SELECT count(*) FROM spool") == 0


async def test_topics_have_numbers_of_their_own(
    spool: Spool, pool: asyncpg.Pool, settings: Settings
) -> None:
    async with at_work(Numberer(pool, settings, SystemClock(), spool)):
        for n in range(6):
            await spool.put(item(n, key="k1", topic=COMMANDS if n % 2 else INBOUND))
        await _published(settings, 3)
        found = await read_topic(settings, "inbound") + await read_topic(settings, "commands")
    assert sorted((r.topic.rpartition(".")[2], e.sequence) for e, _, r in found) == [
        *(("commands", n) for n in (1, 2, 3)),
        *(("inbound", n) for n in (1, 2, 3)),
    ]


async def test_another_numberer_takes_over_when_the_holder_is_gone(
    spool: Spool, pool: asyncpg.Pool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = Numberer(pool, settings, SystemClock(), spool)

    async def die() -> None:
        for held in holder._held.values():
            await held.relay.stop()

    monkeypatch.setattr(holder, "_let_go", die)
    async with at_work(holder):
        await asyncio.gather(*(spool.put(item(n)) for n in range(50)))
        await until("the first one holds all leases", lambda: len(holder._held) == PARTITIONS)
    await asyncio.gather(*(spool.put(item(n)) for n in range(50, 100)))
    async with at_work(Numberer(pool, settings, SystemClock(), spool)) as heir:
        found = await _published(settings, 100)
        assert len(heir._held) == PARTITIONS
        assert all(held.epoch == 2 for held in heir._held.values())
    check_numbers(found)


async def test_a_numberer_that_stops_as_planned_hands_over_at_once(
    spool: Spool, pool: asyncpg.Pool, settings: Settings
) -> None:
    async with at_work(Numberer(pool, settings, SystemClock(), spool)) as one:
        await until("it holds all", lambda: len(one._held) == PARTITIONS)
    async with at_work(Numberer(pool, settings, SystemClock(), spool)) as other:
        await until("the next one holds all", lambda: len(other._held) == PARTITIONS, seconds=2.0)


async def test_a_numberer_whose_lease_was_taken_numbers_nothing_more(
    spool: Spool, pool: asyncpg.Pool, settings: Settings
) -> None:
    async with at_work(Numberer(pool, settings, SystemClock(), spool)) as one:
        await until("it holds all", lambda: len(one._held) == PARTITIONS)
        await pool.execute("UPDATE lease SET epoch = epoch + 1, owner = 'a thief'")
        await spool.put(item(1, "k1"))
        await until("it has noticed", lambda: len(one._held) < PARTITIONS)
        assert await pool.fetchval("SELECT count(*) FROM outbox") == 0
        found = await _published(settings, 1)  # The thief never renews, so it comes back.
    check_numbers(found)


async def test_a_waiting_caller_is_told_when_the_gateway_stops(
    pool: asyncpg.Pool, settings: Settings
) -> None:
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE spool")
        async with at_work(Spool(pool, settings)) as spool:
            waiting = [asyncio.create_task(spool.put(item(n))) for n in range(3)]
            await until("the first group is on its way", lambda: pool.get_size() == 2)
            waiting.append(asyncio.create_task(spool.put(item(9))))
            await until("one more waits behind it", lambda: spool._queue)
    for one in waiting:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(one, 5)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(spool.put(item(10)), 5)


@pytest.fixture
def own_postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPostgres]:
    """A server of this test's own, which it may stop."""
    monkeypatch.delenv("SIGNALBOX_DATABASE_URL", raising=False)
    directory = Path(tempfile.mkdtemp(prefix="signalbox-spool-"))
    directory.chmod(0o755)
    server = start_postgres(directory)
    yield server
    server.remove()
    shutil.rmtree(directory, ignore_errors=True)


async def test_nothing_is_accepted_while_the_database_is_away_and_all_is_well_afterwards(
    own_postgres: LocalPostgres, bootstrap: str, topic_prefix: str
) -> None:
    dsn = own_postgres.create_database("away")
    await migrate(dsn, "ingest")
    settings = make_settings(bootstrap, dsn, topic_prefix)
    pool = await open_pool(dsn, "ingest", 4, "test")
    try:
        async with at_work(Spool(pool, settings)) as spool:
            assert (await spool.put(item(1))).stored
            await asyncio.to_thread(own_postgres.stop_immediate)
            with pytest.raises(Unavailable) as caught:
                await spool.put(item(2))
            assert caught.value.retry_after > 0
            assert "k2" not in str(caught.value)
            await asyncio.to_thread(own_postgres.start)

            async def accepts_again() -> bool:
                try:
                    return (await spool.put(item(3, idempotency=("three", "d")))).stored
                except Unavailable:
                    return False

            await until("it accepts again", accepts_again)
        stored = await pool.fetch("SELECT envelope->>'id' AS id FROM spool ORDER BY id")
        assert [row["id"] for row in stored] == ["id-1", "id-3"]
    finally:
        await pool.close()
