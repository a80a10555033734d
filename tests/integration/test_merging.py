"""A merge on a real Kafka and a real PostgreSQL: the router is killed between its steps, and each is done once all the same."""

from pathlib import Path
from typing import Any

import asyncpg

from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from schemas import commands, merging
from schemas import tickets as wire
from schemas.envelope import Envelope
from schemas.payload import Payload
from services.router.handlers import POLICY, TicketsStage
from tests.integration.kit import (
    PARTITIONS,
    Driver,
    MakeTopic,
    crash,
    driving,
    make_settings,
    read_topic,
    running,
    until,
)
from tests.unit.router.stories import message

REPOSITORY = Path(__file__).resolve().parents[2]
TOPICS = (
    "messages", "commands", "routing", "sla", "notifications", "tickets", "routing-work", "dead-letters",
)  # fmt: skip


class Writers:
    """The normaliser and the gateway, as far as the router knows them."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._told: dict[str, int] = {}

    async def tells(self, payload: Payload, key: str) -> None:
        stage = "ingest.normaliser" if payload.TOPIC == "messages" else "ingest.gateway"
        source = f"signalbox/{stage}/{partition_of(key, PARTITIONS)}"
        self._told[source] = self._told.get(source, 0) + 1
        envelope = Envelope(
            type=payload.TYPE,
            source=source,
            id=f"{source}/{self._told[source]}",
            time=SystemClock().now(),
            partitionkey=key,
            sequence=self._told[source],
        )
        await self._driver.event(payload.TOPIC, envelope, payload)


def threads() -> tuple[str, str]:
    """The names of two conversations that are different tasks'."""
    found: dict[int, str] = {}
    for n in range(100):
        found.setdefault(partition_of(f"thread-{n}", PARTITIONS), f"thread-{n}")
    return found[0], found[1]


async def test_a_merge_outlives_a_router_that_dies_between_its_steps(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic
) -> None:
    for name in TOPICS:
        await make_topic(name, partitions=PARTITIONS)
    settings = make_settings(bootstrap, database, topic_prefix)
    await migrate(database, "router", [REPOSITORY / "services" / "router" / "sql"])
    policies = PolicyHolder(REPOSITORY / "policy", POLICY)
    a, b = threads()
    tables = await asyncpg.connect(database, server_settings={"search_path": "router"})

    async def statuses() -> dict[str, str]:
        rows = await tables.fetch("SELECT conversation_id, status FROM ticket")
        return {row["conversation_id"]: row["status"] for row in rows}

    async def are(**wanted: str) -> bool:
        told = await statuses()
        return all(told.get(name) == status for name, status in wanted.items())

    async def has_event(conversation: str, kind: type[Payload]) -> bool:
        found = "SELECT count(*) FROM ticket_event WHERE conversation_id = $1 AND type = $2"
        return bool(await tables.fetchval(found, conversation, kind.TYPE))

    async def has_asked() -> bool:
        found = "SELECT count(*) FROM state WHERE value::jsonb -> 'ticket' -> 'merging' <> 'null'"
        return bool(await tables.fetchval(found)) or await are(**{a: "merged"})

    try:
        async with driving(settings) as driver:
            writers = Writers(driver)
            async with running(TicketsStage(policies), settings, schema="router") as worker:
                for name in (a, b):
                    await writers.tells(message(f"m-{name}", conversation_id=name), name)
                await until("both are open", lambda: are(**{a: "queued", b: "queued"}))
                ids = {
                    row["conversation_id"]: row["ticket_id"]
                    for row in await tables.fetch("SELECT conversation_id, ticket_id FROM ticket")
                }
                merge = commands.MergeTicket(
                    command_id="k1",
                    conversation_id=a,
                    ticket_id=ids[a],
                    agent_id="ada",
                    into_conversation_id=b,
                    into_ticket_id=ids[b],
                )
                await writers.tells(merge, a)
                await until("the source has asked", has_asked)
                await crash(worker)
            async with running(TicketsStage(policies), settings, schema="router") as worker:
                await until("the source is merged", lambda: are(**{a: "merged"}))
                await writers.tells(message("m3", conversation_id=a), a)
                await until("it is carried", lambda: has_event(a, wire.TicketMessageCarried))
                await crash(worker)
            async with running(TicketsStage(policies), settings, schema="router") as worker:
                await until("the target has it", lambda: has_event(b, wire.TicketMessageAdded))
                undo = commands.UnmergeTicket(
                    command_id="k2", conversation_id=a, ticket_id=ids[a], agent_id="ada"
                )
                await writers.tells(undo, a)
                await until("the source stands alone", lambda: are(**{a: "queued"}))
                await crash(worker)
            async with running(TicketsStage(policies), settings, schema="router"):
                await until("the target let go", lambda: has_event(b, wire.TicketSplitOff))
        await _check(settings, tables, ids, a, b)
    finally:
        await tables.close()


async def _check(settings: Any, tables: Any, ids: dict[str, str], a: str, b: str) -> None:
    """Each step is told once, by whoever decides it, and each message has one row."""
    counts = await tables.fetch("SELECT type, count(*) AS n FROM ticket_event GROUP BY type")
    told = {row["type"]: row["n"] for row in counts}
    once = (
        wire.TicketMerged, wire.TicketAbsorbed, wire.TicketMessageCarried, wire.TicketMessageAdded, wire.TicketUnmerged,
        wire.TicketSplitOff,
    )  # fmt: skip
    assert {kind.TYPE: told[kind.TYPE] for kind in once} == {kind.TYPE: 1 for kind in once}
    rows = await tables.fetch("SELECT message_id, outcome, ticket_id FROM ticket_message")
    assert {row["message_id"]: (row["outcome"], row["ticket_id"]) for row in rows} == {
        f"m-{a}": ("opened", ids[a]),
        f"m-{b}": ("opened", ids[b]),
        "m3": ("carried", ids[a]),
    }
    assert await tables.fetchval("SELECT count(*) FROM lease WHERE halted IS NOT NULL") == 0
    assert await tables.fetchval("SELECT count(*) FROM parked") == 0
    asked = [event for _, event, _ in await read_topic(settings, "commands")]
    assert sum(isinstance(event, merging.MergeAnswered) for event in asked) >= 1
