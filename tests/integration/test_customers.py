"""Customers on a real PostgreSQL: what one batch writes the next one reads, races are told, and the erased are gone."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.errors import Conflict
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.spool import Spool
from chassis.stage import Change
from cli import customer as command_line
from schemas import ids
from schemas.commands import PromiseCustomer
from schemas.customers import CustomerDescribed, CustomerErased, CustomerMerged, CustomerUnmerged
from schemas.inbound import InboundReceived
from schemas.messages import Attachment, MessageReceived
from schemas.registry import REGISTRY
from schemas.tickets import ConversationErased
from services.ingest.core import decide as core
from services.ingest.core.decide import Decision
from services.ingest.core.state import IdentityCommand, Order, Parsed
from services.ingest.handlers import POLICY as INGEST_POLICY
from services.ingest.handlers import read_delivery
from services.ingest.settings import IngestSettings
from services.ingest.store import DirectoryStore
from services.router.handlers import POLICY, TicketsStage
from tests.unit.ingest.test_identity import (
    NOW,
    PHONE,
    RULES,
    customer_of,
    events_of,
    mail,
    message_of,
    said,
    telegram,
    whatsapp,
)
from tests.unit.router.test_handlers import received as router_received

REPOSITORY = Path(__file__).resolve().parents[2]
CANARY = "kanarienvogel"


def folder(service: str) -> Path:
    return REPOSITORY / "services" / service / "sql"


class Ingest:
    """Batches against the tables: read, decided, written in a transaction."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.store = DirectoryStore("default")
        self.count = 0

    async def read(self, *parsed: Parsed, body_ref: str | None = None) -> tuple[Any, list[Any]]:
        inputs = []
        for one in parsed:
            self.count += 1
            at = NOW + timedelta(minutes=self.count)
            channel = one.messages[0].channel if one.messages else "identity"
            received = InboundReceived(
                input_id=f"in-{self.count}",
                channel=channel,
                account="a",
                received_at=at,
                body_ref=body_ref,
            )
            inputs.append((received, one))
        asked = core.questions(inputs, RULES.phone_region)
        async with self.pool.acquire() as connection:
            directory = await self.store.directory(connection, asked, NOW)
        return directory, inputs

    def decide(self, directory: Any, inputs: list[Any]) -> list[Decision]:
        return [
            core.decide(directory, received, parsed, received.received_at, RULES)
            for received, parsed in inputs
        ]

    async def write(self, *decisions: Decision, task: int = 0) -> None:
        rows = [(task, row) for decision in decisions for row in decision.rows]
        async with self.pool.acquire() as connection, connection.transaction():
            await self.store.save(connection, [], rows)

    async def batch(self, *parsed: Parsed, body_ref: str | None = None) -> list[Decision]:
        directory, inputs = await self.read(*parsed, body_ref=body_ref)
        decisions = self.decide(directory, inputs)
        await self.write(*decisions)
        return decisions

    async def says(self, content: Any, *, verified: bool = True, **more: Any) -> Decision:
        (made,) = await self.batch(Parsed(messages=(content,), verified=verified), **more)
        return made

    async def decides(self, do: Any, *ids: str, merge_id: str = "") -> Decision:
        one, other = (*ids, "", "")[:2]
        (made,) = await self.batch(Parsed(command=IdentityCommand(do, "ada", one, other, merge_id)))
        return made


@pytest.fixture
async def pools(database: str) -> AsyncIterator[dict[str, Any]]:
    made = {}
    for service in ("ingest", "router", "notifier"):
        await migrate(database, service, [folder(service)])
        made[service] = await open_pool(database, service, 3, "test")
    yield made
    for pool in made.values():
        await pool.close()


@pytest.fixture
def ingest(pools: dict[str, Any]) -> Ingest:
    return Ingest(pools["ingest"])


async def merged(ingest: Ingest) -> tuple[str, str, Decision]:
    first = customer_of(await ingest.says(whatsapp()))
    second = customer_of(await ingest.says(telegram()))
    return first, second, await ingest.says(telegram(phone=PHONE))


async def test_a_merge_by_proof_is_written_read_and_undone(ingest: Ingest) -> None:
    first, second, decision = await merged(ingest)
    event = message_of(decision)
    assert (event.customer_id, event.origin_customer_id) == (first, second)
    assert event.context is not None
    assert [one.channel for one in event.context.interactions] == ["whatsapp"]
    assert customer_of(await ingest.says(telegram())) == first
    (told,) = events_of(decision, CustomerMerged)
    undone = await ingest.decides("undo", merge_id=told.merge_id)
    assert [e.customer_id for e in events_of(undone, CustomerUnmerged)] == [second]
    again = await ingest.says(telegram(phone=PHONE))
    assert (customer_of(again), events_of(again, CustomerMerged)) == (second, [])
    assert customer_of(await ingest.says(whatsapp())) == first
    row = await ingest.pool.fetchrow("SELECT * FROM customer_merge")
    assert (row["by"], row["undone_by"]) == ("signalbox", "ada")
    kept = await ingest.pool.fetch("SELECT merged_into FROM customer")
    assert [one["merged_into"] for one in kept] == [None, None]


async def test_a_whole_story_in_one_batch_is_the_same_as_in_many(ingest: Ingest) -> None:
    decisions = await ingest.batch(
        Parsed(messages=(whatsapp(),), verified=True),
        Parsed(messages=(telegram(),), verified=True),
        Parsed(messages=(telegram(phone=PHONE),), verified=True),
    )
    (told,) = events_of(decisions[2], CustomerMerged)
    (undone,) = await ingest.batch(
        Parsed(command=IdentityCommand("undo", "ada", merge_id=told.merge_id))
    )
    assert undone.ignored == "customers_unmerged"


async def test_a_message_decided_before_a_merge_and_written_after_it_is_decided_again(
    ingest: Ingest,
) -> None:
    first = customer_of(await ingest.says(whatsapp()))
    second = customer_of(await ingest.says(telegram()))
    directory, inputs = await ingest.read(Parsed(messages=(telegram(),), verified=True))
    late = ingest.decide(directory, inputs)
    await ingest.decides("merge", first, second)
    with pytest.raises(Conflict):
        await ingest.write(*late, task=1)
    directory, inputs = await ingest.read(inputs[0][1])
    again = ingest.decide(directory, inputs)
    await ingest.write(*again, task=1)
    assert customer_of(again[0]) == first


async def test_a_merge_that_does_not_know_a_new_conversation_is_decided_again(
    ingest: Ingest,
) -> None:
    first = customer_of(await ingest.says(mail("a@example.com")))
    second = customer_of(await ingest.says(mail("b@example.com")))
    merge = Parsed(command=IdentityCommand("merge", "ada", first, second))
    directory, inputs = await ingest.read(merge)
    late = ingest.decide(directory, inputs)
    await ingest.says(mail("b@example.com"))
    with pytest.raises(Conflict):
        await ingest.write(*late)
    again = await ingest.decides("merge", first, second)
    assert len(events_of(again, CustomerMerged)) == 2


async def test_two_people_who_decide_at_once_cannot_both(ingest: Ingest) -> None:
    first = customer_of(await ingest.says(mail("a@example.com")))
    second = customer_of(await ingest.says(mail("b@example.com")))
    views = [
        await ingest.read(Parsed(command=IdentityCommand(do, "ada", one, other)))
        for do, one, other in (("merge", first, second), ("unlink", second, first))
    ]
    decisions = [ingest.decide(*view) for view in views]
    await ingest.write(*decisions[0])
    with pytest.raises(Conflict):
        await ingest.write(*decisions[1])


async def test_two_tasks_of_one_transaction_do_not_decide_about_one_customer(
    ingest: Ingest,
) -> None:
    first = customer_of(await ingest.says(mail("a@example.com")))
    second = customer_of(await ingest.says(mail("b@example.com")))
    merge = ingest.decide(
        *await ingest.read(Parsed(command=IdentityCommand("merge", "ada", first, second)))
    )
    message = ingest.decide(*await ingest.read(Parsed(messages=(mail("b@example.com"),))))
    rows = [(0, row) for row in merge[0].rows] + [(1, row) for row in message[0].rows]
    async with ingest.pool.acquire() as connection:
        with pytest.raises(Conflict):
            async with connection.transaction():
                await ingest.store.save(connection, [], rows)


async def test_a_question_stands_among_the_suggestions_with_its_reasons(ingest: Ingest) -> None:
    await ingest.says(mail())
    await ingest.says(said("chatra", "c-1", fields={"email": "ada@example.com"}), verified=False)
    row = await ingest.pool.fetchrow("SELECT * FROM customer_link")
    assert row["status"] == "suggested"
    kinds = [piece["kind"] for piece in json.loads(row["evidence"])]
    assert kinds == ["claimed_mail", "same_name"]
    assert "ada@example.com" not in row["evidence"]


async def test_orders_are_found_by_every_address_of_a_merged_customer(ingest: Ingest) -> None:
    await merged(ingest)
    order = Order("1", "1001", (("phone", PHONE),), "paid", NOW, NOW, "10", "EUR")
    await ingest.batch(Parsed(ignored="order", orders=(order,), verified=True))
    context = message_of(await ingest.says(telegram())).context
    assert context is not None
    assert [(one.number, one.total) for one in context.orders] == [("1001", "10")]


async def test_rings_and_wrong_proofs_are_refused_by_the_tables(ingest: Ingest) -> None:
    await ingest.says(mail())
    for statement in (
        "UPDATE customer SET merged_into = customer_id",
        "UPDATE customer_address SET proof = 'hearsay'",
        "UPDATE customer SET merged_into = 'nobody'",
    ):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await ingest.pool.execute(statement)


# ----------------------------------------------------------------------------------------- erasure


async def canaries(pool: Any) -> list[str]:
    """Every table that still has the canary in any column, as text or in stored bytes."""
    tables = await pool.fetch(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = current_schema()"
    )
    needle = base64.b64encode(CANARY.encode()).decode()[:12]
    found = []
    for table in tables:
        name = table["name"]
        rows = await pool.fetch(f'SELECT t::text AS row, to_jsonb(t) AS doc FROM "{name}" t')
        for row in rows:
            whole = (row["row"] + str(row["doc"])).lower()
            if CANARY in whole or needle.lower() in whole or CANARY.encode().hex() in whole:
                found.append(name)
    return sorted(set(found))


async def test_the_erased_are_in_no_table_of_ingest_and_counts_still_balance(
    ingest: Ingest,
) -> None:
    pool = ingest.pool
    ref = "f" * 64
    await pool.execute(
        "INSERT INTO blob (ref, value) VALUES ($1, $2)", ref, f"body of {CANARY}".encode()
    )
    file = Attachment(name=f"{CANARY}.pdf", media_type="application/pdf", sha256="a" * 64)
    own = mail(f"{CANARY}@example.com", name=CANARY, subject=CANARY, attachments=(file,))
    who = customer_of(await ingest.says(own, body_ref=ref))
    await ingest.says(
        said("chatra", CANARY, fields={"email": f"{CANARY}@example.com"}, name=CANARY),
        verified=False,
    )
    chat = customer_of(await ingest.says(said("webchat", f"{CANARY}-session", name=CANARY)))
    await ingest.decides("merge", who, chat)
    order = Order("1", "1", (("email", f"{CANARY}@example.com"),), "paid", NOW, NOW)
    await ingest.batch(Parsed(ignored="order", orders=(order,), verified=True))
    await pool.execute(
        "INSERT INTO webchat_session (session_id, workspace, account, created_at, seen_at)"
        " VALUES ($1, 'default', 'a', $2, $2)",
        f"{CANARY}-session",
        NOW,
    )
    await pool.execute(
        "INSERT INTO webchat_message (session_id, n, direction, name, text, at) VALUES ($1, 1, 'in', 'x', $1, $2)",
        f"{CANARY}-session",
        NOW,
    )
    await pool.execute(
        "INSERT INTO parked (id, stage, task, topic, part, log_offset, key, headers, value, reason, error, state_key)"
        " VALUES ('p', 'ingest.normaliser', 0, 'inbound', 0, 1, $1, $1, $1, 'unparsable_body', 'x', $2)",
        CANARY.encode(),
        f"email/support/{CANARY}@example.com",
    )
    bystander = customer_of(await ingest.says(mail("bob@example.com")))
    assert len(await canaries(pool)) >= 9
    erased = await ingest.decides("erase", chat)
    # The visitor of the chat at another vendor only typed the address: they are somebody else until a person says so.
    other = await pool.fetchval(
        "SELECT customer_id FROM customer_address WHERE address = $1", f"chatra/a/{CANARY}"
    )
    await ingest.decides("erase", other)
    assert await canaries(pool) == []
    assert erased.ignored == "customer_erased"
    assert {e.customer_id for e in events_of(erased, CustomerErased)} == {who}
    assert await pool.fetchval("SELECT count(*) FROM outcome") == ingest.count
    rows = await pool.fetch("SELECT customer_id, name, erased_at FROM customer")
    assert {row["customer_id"] for row in rows if row["erased_at"] is None} == {bystander}
    kept = await pool.fetchrow("SELECT * FROM customer_erasure WHERE customer_id = $1", who)
    assert (kept["messages"], kept["by"], kept["files"]) == (2, "ada", ["a" * 64])
    async with pool.acquire() as connection:
        (left, *_) = await ingest.store.erased_files(connection)
        assert left == (kept["erasure_id"], ("a" * 64,))
        await ingest.store.files_removed(connection, left[0])
        assert await ingest.store.erased_files(connection) == []


async def test_who_comes_back_after_erasure_begins_anew_even_in_the_same_batch(
    ingest: Ingest,
) -> None:
    who = customer_of(await ingest.says(mail(name="Old Name")))
    decisions = await ingest.batch(
        Parsed(messages=(mail(name="Old Name"),), verified=True),
        Parsed(command=IdentityCommand("erase", "ada", who)),
        Parsed(messages=(mail(name="New Name"),), verified=True),
    )
    assert [e.message_ids for e in events_of(decisions[1], CustomerErased)][-1]
    assert message_of(decisions[2]).context is None
    row = await ingest.pool.fetchrow("SELECT * FROM customer")
    assert (row["customer_id"], row["name"], row["erased_at"]) == (who, "New Name", None)
    names = await ingest.pool.fetchval("SELECT names FROM customer_address")
    assert names == ["new name"]
    assert await ingest.pool.fetchval("SELECT count(*) FROM customer_interaction") == 1
    later = await ingest.says(mail(name="New Name"))
    assert customer_of(later) == who


@pytest.mark.parametrize("what", ["tier", "contract"])
async def test_what_is_said_of_a_customer_is_kept_told_with_messages_and_gone_with_them(
    ingest: Ingest, what: Any
) -> None:
    statement = f"SELECT {what}, {what}_by, {what}_at FROM customer"
    first = await ingest.says(mail())
    who = customer_of(first)
    said = {what: "gold"}
    (decision,) = await ingest.batch(Parsed(command=IdentityCommand(what, "ada", who, **said)))
    (told,) = events_of(decision, CustomerDescribed)
    assert (told.conversation_id, getattr(told, what)) == (
        message_of(first).conversation_id,
        "gold",
    )
    context = message_of(await ingest.says(mail())).context
    assert context is not None
    assert getattr(context, what) == "gold"
    word, by, when = await ingest.pool.fetchrow(statement)
    assert (word, by, when is None) == ("gold", "ada", False)
    await ingest.batch(Parsed(command=IdentityCommand("erase", "ada", who)))
    assert tuple(await ingest.pool.fetchrow(statement)) == ("", "", None)


async def test_the_erased_are_in_no_table_of_router(pools: dict[str, Any]) -> None:
    stage = TicketsStage(PolicyHolder(REPOSITORY / "policy", POLICY))
    pool = pools["router"]
    content = mail(
        f"{CANARY}@example.com", name=CANARY, subject=CANARY, text=CANARY, text_new=CANARY,
        vendor_message_id=f"<{CANARY}@x>",
    )  # fmt: skip
    message = MessageReceived(
        message_id="m-1", conversation_id="c-1", customer_id="k-1", input_id="in-1", content=content
    )
    more = message.model_copy(update={"message_id": "m-2", "input_id": "in-2"})
    erased = CustomerErased(
        conversation_id="c-1",
        customer_id="k-1",
        members=("k-1",),
        message_ids=("m-1", "m-2"),
        by="ada",
        at=NOW,
    )
    promise = PromiseCustomer(
        command_id="k1",
        conversation_id="c-1",
        ticket_id=ids.ticket_id("c-1", 1),
        agent_id="ada",
        what="callback",
        by=NOW + timedelta(days=1),
        note=CANARY,
    )
    state = None
    outcomes = []
    for event in (message, more, promise, erased):
        outcome = stage.decide(state, router_received(stage, event, "12:00"), NOW)
        state = outcome.state
        outcomes.append(outcome)
    for outcome in outcomes:
        async with pool.acquire() as connection, connection.transaction():
            await stage.store.save(
                connection,
                [Change(0, "c-1", outcome.state)],
                [(0, row) for row in outcome.rows],
            )
    assert await canaries(pool) == []
    assert [type(event) for event in outcomes[-1].events] == [ConversationErased]
    assert await pool.fetchval("SELECT count(*) FROM ticket_message") == 2
    row = await pool.fetchrow("SELECT * FROM ticket_event WHERE version = 1")
    REGISTRY[row["type"]].model_validate_json(row["data"])


async def test_an_export_holds_what_all_services_keep(
    ingest: Ingest, pools: dict[str, Any], database: str
) -> None:
    await merged(ingest)
    own = IngestSettings(kafka="k:1", database_url=database, token_secret="k" * 32)  # type: ignore[arg-type]
    connection = await asyncpg.connect(database)
    try:
        who = await command_line.find(connection, own, "+90 532 123 45 67")
        found = await command_line.read_all(connection, own, who)
    finally:
        await connection.close()
    assert found["customers"][0]["customer_id"] == who
    assert {one["kind"] for one in found["addresses"]} == {"phone", "vendor_id"}
    assert len(found["merges"]) == 1
    assert len(found["interactions"]) == 3
    assert json.dumps(found, default=command_line._plain)
    lines = command_line.story(found)
    assert any("attested_phone" in line for line in lines)


async def test_a_command_goes_through_the_spool_and_is_read_as_it_was_given(
    ingest: Ingest, database: str
) -> None:
    own = IngestSettings(kafka="k:1", database_url=database, token_secret="k" * 32)  # type: ignore[arg-type]
    spool = Spool(ingest.pool, own)
    running = asyncio.create_task(spool.run())
    command = IdentityCommand("merge", "ada", "c-1", "c-2")
    try:
        input_id = await command_line.put(spool, "default", command)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    stored = await ingest.pool.fetchrow("SELECT topic, value FROM spool")
    received = InboundReceived.model_validate_json(stored["value"])
    assert (stored["topic"], received.input_id) == ("inbound", input_id)
    policy = PolicyHolder(REPOSITORY / "policy", INGEST_POLICY).current
    read = read_delivery(received, None, policy)
    assert isinstance(read, Parsed)
    assert read.command == command
    posted = received.model_copy(update={"method": "POST"})
    assert not isinstance(read := read_delivery(posted, None, policy), Parsed) or not read.command
