"""Wishes, dead addresses and counts on a real PostgreSQL: what a batch knows of its recipients."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import asyncpg
import msgspec
import pytest
from msgspec import structs

from chassis.policy import load
from schemas.notifications import Category
from services.notifier.audience_store import concerned
from services.notifier.consent_store import ConsentStore, FoundDead, WishSaid, remember
from services.notifier.core.announce import NO_RECORD, Announcement, choose
from services.notifier.core.audience import recipient_key
from services.notifier.core.known import UNVERIFIED, Known, Undeliverable
from services.notifier.core.plan import CONSOLED_WITHIN
from services.notifier.core.policy import CategoryCap, OutageAudience, Policy
from services.notifier.core.state import Case, Contact, Conversation
from services.notifier.core.throttle import over_cap
from services.notifier.handlers import POLICY

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ADA = "ada@example.com"
BOB = "+905321234567"


@pytest.fixture(scope="module")
def policy() -> Policy:
    caps: dict[Category, CategoryCap] = {"follow_up": CategoryCap(2, timedelta(days=30))}
    return replace(load(ROOT / "policy", POLICY), category_caps=MappingProxyType(caps))


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connected = await asyncpg.connect(database)
    await connected.execute((ROOT / "chassis/sql/0001_ledger.sql").read_text())
    for script in sorted((ROOT / "services/notifier/sql").glob("*.sql")):
        await connected.execute(script.read_text())
    yield connected
    await connected.close()


@pytest.fixture
def store() -> ConsentStore:
    return ConsentStore("default")


async def _noted(
    connection: asyncpg.Connection,
    recipient: str,
    occasion: str,
    at: datetime,
    *,
    to_unverified: bool = False,
) -> None:
    await connection.execute(
        "INSERT INTO notice (notice_id, ticket_id, conversation_id, occasion, status, recipient_hash, requested_at,"
        " to_unverified) VALUES (gen_random_uuid()::text, 't1', 'c1', $1, 'requested', $2, $3, $4)",
        occasion,
        recipient_key("default", recipient),
        at,
        to_unverified,
    )


async def test_what_was_said_last_counts_in_whatever_order_it_comes(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    hour = timedelta(hours=1)
    out = WishSaid(ADA, "follow_up", True, NOW, "link")
    back = WishSaid(ADA, "follow_up", False, NOW + hour, "link")
    await store.save(connection, [back], [])
    await store.save(connection, [out], [])
    known = await store.load(connection, policy, [ADA])
    assert known.has_opted_in(ADA, "follow_up")
    await store.save(connection, [replace(out, at=NOW + 2 * hour), back], [])
    known = await store.load(connection, policy, [ADA, BOB])
    assert known.has_opted_out(ADA, "follow_up")
    assert not known.has_opted_out(ADA, "outage")
    assert not known.has_opted_out(BOB, "follow_up")


async def test_start_takes_a_stop_back_and_is_no_consent(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    hour = timedelta(hours=1)
    stop = WishSaid(BOB, "follow_up", True, NOW, "word")
    start = WishSaid(BOB, "follow_up", False, NOW + hour, "word")
    asked = WishSaid(ADA, "follow_up", False, NOW, "link")
    await store.save(connection, [stop, asked], [])
    await store.save(connection, [start, replace(start, recipient=ADA)], [])
    known = await store.load(connection, policy, [ADA, BOB])
    assert not known.has_opted_out(BOB, "follow_up")
    assert not known.has_opted_in(BOB, "follow_up")
    # Whoever has asked for them and says START has still asked for them.
    assert known.has_opted_in(ADA, "follow_up")
    of_batch = Known("default")
    for said in (stop, asked, start, replace(start, recipient=ADA)):
        remember(of_batch, said)
    assert of_batch.wishes == known.wishes


async def test_no_address_stands_in_the_tables_and_security_is_no_wish(
    connection: asyncpg.Connection, store: ConsentStore
) -> None:
    await store.save(
        connection,
        [WishSaid(ADA, "security", True, NOW, "word"), WishSaid(BOB, "service", True, NOW, "word")],
        [FoundDead(ADA, "550 no such user", NOW, None)],
    )
    rows = [
        *await connection.fetch("SELECT recipient_hash, category FROM opt_out"),
        *await connection.fetch("SELECT recipient_hash, reason FROM undeliverable"),
    ]
    assert [tuple(row) for row in rows] == [
        (recipient_key("default", BOB), "service"),
        (recipient_key("default", ADA), "550 no such user"),
    ]


async def test_dead_for_good_stays_so_and_of_two_times_the_later_counts(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    day = timedelta(days=1)
    full = FoundDead(BOB, "452 mailbox full", NOW, NOW + 3 * day)
    await store.save(connection, [], [full, replace(full, until=NOW + day)])
    await store.save(connection, [], [replace(full, at=NOW + day, until=NOW + 2 * day)])
    known = await store.load(connection, policy, [BOB])
    assert list(known.undeliverable.values()) == [
        Undeliverable("452 mailbox full", NOW + day, NOW + 3 * day)
    ]
    await store.save(connection, [], [FoundDead(BOB, "550 gone", NOW + day, None), full])
    known = await store.load(connection, policy, [BOB])
    assert list(known.undeliverable.values()) == [Undeliverable("550 gone", NOW + day, None)]


async def test_when_somebody_was_told_last_that_a_person_looks_at_it_is_known_of_all_their_cases(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    await _noted(connection, ADA, "recovery", NOW - timedelta(days=6))
    for minutes in range(40):
        await _noted(connection, ADA, "solved", NOW - timedelta(minutes=minutes))
    bare = replace(policy, category_caps=MappingProxyType({}))
    known = await store.load(connection, bare, [ADA, BOB])
    assert known.has_been_consoled(ADA, NOW, CONSOLED_WITHIN)
    assert not known.has_been_consoled(BOB, NOW, CONSOLED_WITHIN)


async def test_a_category_is_counted_as_far_back_as_its_cap_however_much_else_was_told(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    for days in (29, 20):
        await _noted(connection, ADA, "survey", NOW - timedelta(days=days))
    for minutes in range(40):
        await _noted(connection, ADA, "solved", NOW - timedelta(minutes=minutes))
    known = await store.load(connection, policy, [ADA])
    key = known.key(ADA)
    assert known.count(key, NOW, timedelta(days=30), "follow_up") == 2
    # When somebody was asked last is known without any cap of the category.
    bare = replace(policy, category_caps=MappingProxyType({}), occasions_off=frozenset())
    asked = await store.load(connection, bare, [ADA])
    assert asked.has_been_surveyed(ADA, NOW, timedelta(days=21))
    assert not asked.has_been_surveyed(ADA, NOW, timedelta(days=20))
    # No more than a cap counts is read, and nothing is counted twice.
    assert known.count(key, NOW) == policy.verified_recipient_per_hour
    quiet = replace(policy, verified_recipient_per_hour=1000)
    assert over_cap(quiet, known, ADA, "follow_up", True, NOW) == "category_limit"
    assert over_cap(quiet, known, ADA, "service", True, NOW) is None
    both = replace(
        policy,
        category_caps=MappingProxyType(
            {
                "follow_up": CategoryCap(5, timedelta(days=30)),
                "service": CategoryCap(30, timedelta(days=1)),
            }
        ),
    )
    known = await store.load(connection, both, [ADA])
    assert known.count(key, NOW, timedelta(days=30), "follow_up") == 2
    assert known.count(key, NOW, timedelta(days=1), "service") == 30


async def test_unproved_addresses_and_the_workspace_are_counted_together(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    for number in range(3):
        at = NOW - timedelta(minutes=number)
        await _noted(connection, f"c{number}@example.com", "received", at, to_unverified=True)
    await _noted(connection, ADA, "answered", NOW)
    small = replace(policy, unverified_total_per_hour=3, automatic_total_per_hour=3)
    known = await store.load(connection, small, [ADA])
    assert known.count(UNVERIFIED, NOW) == 3
    assert known.is_crowded(NOW, 3)
    assert not known.is_crowded(NOW + timedelta(hours=1), 3)
    assert over_cap(small, known, ADA, "service", False, NOW) == "unverified_total"
    assert over_cap(small, known, ADA, "service", True, NOW) == "workspace_limit"
    larger = await store.load(
        connection, replace(small, automatic_total_per_hour=4), [ADA], with_unverified=False
    )
    assert not larger.is_crowded(NOW, 4)
    assert larger.count(UNVERIFIED, NOW) == 0


async def test_how_crowded_it_is_takes_the_last_hour_alone_and_only_where_somebody_is_told(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    for minutes in (0, 59, 60, 61):
        at = NOW - timedelta(minutes=minutes)
        await _noted(connection, f"c{minutes}@example.com", "received", at)
    capped = replace(policy, automatic_total_per_hour=2)
    assert (await store.load(connection, capped, [ADA])).crowded_at == NOW - timedelta(minutes=59)
    assert (await store.load(connection, capped, [])).crowded_at is None
    capped = replace(policy, automatic_total_per_hour=3)
    assert (await store.load(connection, capped, [ADA])).crowded_at is None


async def test_all_that_a_batch_knows_is_read_in_one_statement(
    connection: asyncpg.Connection, store: ConsentStore, policy: Policy
) -> None:
    """Every batch waits for it twice a notice, however busy the server is."""
    await _noted(connection, ADA, "survey", NOW)
    await _noted(connection, BOB, "received", NOW, to_unverified=True)
    hour = timedelta(hours=1)
    wish, dead = WishSaid(ADA, "outage", True, NOW, "link"), FoundDead(BOB, "452", NOW, NOW + hour)
    await store.save(connection, [wish], [dead])
    await store.load(
        connection, policy, []
    )  # The driver asks what the parameters' types are, once.
    statements: list[str] = []
    with connection.query_logger(lambda logged: statements.append(logged.query)):
        known = await store.load(
            connection, replace(policy, automatic_total_per_hour=2), [ADA, BOB]
        )
    assert known.count(known.key(ADA), NOW, hour, "follow_up") == 1
    assert known.count(UNVERIFIED, NOW) == 1
    assert known.has_opted_out(ADA, "outage")
    assert known.crowded_at == NOW
    # The bare statement reads nothing for nobody.
    nobody = replace(policy, automatic_total_per_hour=0)
    assert await store.load(connection, nobody, [], with_unverified=False) == Known("default")
    assert len(statements) == 1  # The driver tells its loggers a little later.


def test_later_inputs_of_a_batch_know_what_earlier_ones_said() -> None:
    known = Known("default")
    remember(known, WishSaid(ADA, "outage", True, NOW, "word"))
    remember(known, WishSaid(ADA, "outage", False, NOW - timedelta(hours=1), "link"))
    assert known.has_opted_out(ADA, "outage")
    remember(known, FoundDead(ADA, "550", NOW, None))
    assert known.key(ADA) in known.undeliverable


async def test_an_outage_concerns_conversations_of_all_tasks_page_by_page(
    connection: asyncpg.Connection,
) -> None:
    open_case = Case("SB-1", NOW)
    states = {
        f"c{number:04}": Conversation(
            contact=Contact(
                "", f"p{number % 700}@example.com", "email", "email", "support", None, True
            ),
            cases={
                "t1": open_case if number % 2 else structs.replace(open_case, standing="solved")
            },
        )
        for number in range(1400)
    }
    await connection.executemany(
        "INSERT INTO state (stage, task, key, value) VALUES ('notifier', $1, $2, $3)",
        [
            (index % 3, key, msgspec.json.encode(state).decode())
            for index, (key, state) in enumerate(states.items())
        ],
    )
    outage = Announcement("default", "outage_known", "cards-1")
    found = await concerned(connection, "notifier", outage, OutageAudience("open"), NOW)
    assert sorted(one.conversation_id for one in found.places) == [
        f"c{number:04}" for number in range(1, 1400, 2)
    ]
    assert len(choose(outage, found.places, NO_RECORD, {}).places) == 350
    nobody = await concerned(connection, "notifier", outage, OutageAudience("named"), NOW)
    assert nobody.places == []
