"""The collector on a real PostgreSQL: what a look brings is spooled before the cursor moves, and hints are read back."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.spool import Spool
from schemas.inbound import InboundReceived
from schemas.messages import Sender
from services.ingest import adapters
from services.ingest.adapters.channel import (
    FETCHED,
    Api,
    Channel,
    ChannelSettings,
    Delivery,
    Fetched,
    Page,
    Parsed,
    SecretReference,
    delivery_of,
)
from services.ingest.adapters.reading import content, json_of
from services.ingest.collector import Collector
from services.ingest.core.policy import Channels, ChannelsFile
from tests.integration.kit import make_settings

SQL = Path(__file__).resolve().parents[2] / "services" / "ingest" / "sql"
VENDOR = "https://vendor.example"


class Settings(ChannelSettings):
    """A vendor of these tests; `token` opens its API."""

    token: SecretReference | None = None


@dataclass
class Vendor:
    """A vendor's API: messages to list, and answers to give instead while there are any."""

    messages: list[str] = field(default_factory=list)
    instead: list[httpx.Response] = field(default_factory=list)
    asked: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if self.instead:
            return self.instead.pop(0)
        if request.headers.get("authorization") != "Bearer t0ken":
            return httpx.Response(401)
        if request.url.path == "/messages":
            since = int(request.url.params["since"])
            return httpx.Response(200, json={"messages": self.messages[since : since + 2]})
        name = request.url.path.rpartition("/")[2]
        if name not in self.messages:
            return httpx.Response(404)
        return httpx.Response(200, json={"id": name, "text": f"text of {name}"})


def _bearer(api: Api) -> dict[str, str]:
    return {"Authorization": f"Bearer {api.secrets['token']}"}


async def poll(api: Api, cursor: str | None, now: datetime) -> Page:
    del now
    since = int(cursor or 0)
    told = await api.get(f"{VENDOR}/messages", params={"since": str(since)}, headers=_bearer(api))
    items = tuple(
        Fetched(
            "message", name, json.dumps({"id": name, "text": f"text of {name}"}).encode(), "u-1"
        )
        for name in told["messages"]
    )
    return Page(items, str(since + len(items)), more=len(items) == 2)


async def read_back(api: Api, delivery: Delivery) -> tuple[Fetched, ...]:
    name = json_of(delivery.body)["id"]
    found = await api.get(f"{VENDOR}/messages/{name}", headers=_bearer(api))
    return (Fetched("message", name, json.dumps(found).encode(), "u-1"),)


def parse(delivery: Delivery) -> Parsed:
    body = json_of(delivery.body)
    if "text" not in body:
        return Parsed(ignored="hint")
    sender = Sender(address="u-1", kind="vendor_id")
    return Parsed((content(delivery, body["id"], sender, body["text"]),), verified=True)


LANTERN = Channel(
    name="lantern",
    parse=parse,
    settings=Settings,
    poll=poll,
    polls=lambda settings: settings.token is not None,
    read_back=read_back,
    reads_back=lambda settings: settings.token is not None,
)


class Known:
    """Secrets by reference."""

    def get(self, reference: str) -> bytes | None:
        return {"env:TOKEN": b"t0ken"}.get(reference)


class Policies:
    """A policy with one account."""

    current = Channels("v1", ChannelsFile(), {}, {"main": ("lantern", Settings(token="env:TOKEN"))})


@pytest.fixture
async def pool(bootstrap: str, database: str, topic_prefix: str) -> AsyncIterator[asyncpg.Pool]:
    await migrate(database, "ingest", [SQL])
    made = await open_pool(
        make_settings(bootstrap, database, topic_prefix).dsn, "ingest", 6, "test"
    )
    yield made
    await made.close()


@dataclass
class World:
    """A spool that runs, a vendor, and collectors of as many processes as one likes."""

    pool: asyncpg.Pool
    spool: Spool
    vendor: Vendor

    def collector(self) -> Collector:
        return Collector(
            spool=self.spool,
            pool=self.pool,
            policies=Policies(),
            clock=SystemClock(),
            secrets=Known(),
            workspace="default",
            client=httpx.AsyncClient(transport=httpx.MockTransport(self.vendor)),
        )

    async def spooled(self) -> list[InboundReceived]:
        rows = await self.pool.fetch("SELECT value FROM spool ORDER BY id")
        return [InboundReceived.model_validate_json(row["value"]) for row in rows]

    async def texts(self) -> list[str]:
        return [
            adapters.parse(delivery_of(one)).messages[0].text
            for one in await self.spooled()
            if one.headers.get(FETCHED) == "message"
        ]

    async def cursor(self) -> Any:
        return await self.pool.fetchrow("SELECT * FROM channel_cursor")

    async def hint(self, name: str, created_at: datetime | None = None) -> None:
        received = InboundReceived(
            input_id=f"hint-{name}",
            channel="lantern",
            account="main",
            body_base64=base64.b64encode(json.dumps({"id": name}).encode()).decode(),
            received_at=SystemClock().now(),
        )
        await self.pool.execute(
            "INSERT INTO read_back (input_id, channel, account, delivery, created_at) VALUES ($1, 'lantern', 'main', $2, $3)",
            received.input_id,
            received.to_json().decode(),
            created_at or SystemClock().now(),
        )

    async def hints(self) -> list[Any]:
        return list(await self.pool.fetch("SELECT * FROM read_back ORDER BY input_id"))


@pytest.fixture
async def world(
    pool: asyncpg.Pool,
    bootstrap: str,
    database: str,
    topic_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[World]:
    monkeypatch.setitem(adapters.CHANNELS, "lantern", LANTERN)
    spool = Spool(pool, make_settings(bootstrap, database, topic_prefix))
    running = asyncio.create_task(spool.run())
    yield World(pool, spool, Vendor())
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_look_takes_in_what_is_new_page_by_page_and_moves_the_cursor(world: World) -> None:
    world.vendor.messages = ["m1", "m2", "m3"]
    await world.collector().turn()
    assert await world.texts() == ["text of m1", "text of m2", "text of m3"]
    assert all(one.verified for one in await world.spooled())
    row = await world.cursor()
    assert (row["cursor"], row["failures"], row["problem"]) == ("3", 0, None)


async def test_a_crash_between_spool_and_cursor_repeats_and_doubles_nothing(world: World) -> None:
    world.vendor.messages = ["m1", "m2", "m3"]
    await world.collector().turn()
    await world.pool.execute(
        "UPDATE channel_cursor SET cursor = NULL, due_at = '-infinity', lease_until = '-infinity'"
    )
    await world.collector().turn()
    assert await world.texts() == ["text of m1", "text of m2", "text of m3"]
    assert (await world.cursor())["cursor"] == "3"


async def test_one_process_at_a_time_looks_into_an_account(world: World) -> None:
    world.vendor.messages = ["m1"]
    first, second = world.collector(), world.collector()
    await first.turn()
    await world.pool.execute("UPDATE channel_cursor SET due_at = '-infinity'")
    asked = len(world.vendor.asked)
    await second.turn()
    assert len(world.vendor.asked) == asked
    await world.pool.execute("UPDATE channel_cursor SET lease_until = '-infinity'")
    await second.turn()
    assert len(world.vendor.asked) == asked + 1


@pytest.mark.parametrize(
    ("response", "problem", "seconds"),
    [
        (httpx.Response(429, headers={"Retry-After": "120"}), "throttled", 120),
        (httpx.Response(503), "failed", 5),
        (httpx.Response(200, content=b"<html>"), "bad_answer", 5),
        (httpx.Response(401), "unauthorized", 5),
    ],
)
async def test_a_vendor_that_fails_is_asked_again_later_and_loses_nothing(
    world: World, response: httpx.Response, problem: str, seconds: int
) -> None:
    world.vendor.messages, world.vendor.instead = ["m1"], [response]
    collector = world.collector()
    await collector.turn()
    row = await world.cursor()
    assert (row["problem"], row["failures"], row["cursor"]) == (problem, 1, None)
    pause = row["due_at"] - SystemClock().now()
    assert timedelta(seconds=seconds - 3) < pause <= timedelta(seconds=seconds)
    await world.pool.execute("UPDATE channel_cursor SET due_at = '-infinity'")
    await collector.turn()
    assert await world.texts() == ["text of m1"]
    assert (await world.cursor())["failures"] == 0


async def test_a_hint_is_read_back_and_belongs_to_its_story(world: World) -> None:
    world.vendor.messages = ["m1"]
    await world.pool.execute(
        "INSERT INTO channel_cursor (channel, account, due_at) VALUES ('lantern', 'main', 'infinity')"
    )
    await world.hint("m1")
    await world.collector().turn()
    assert await world.texts() == ["text of m1"]
    assert await world.hints() == []
    envelope = json.loads(await world.pool.fetchval("SELECT envelope FROM spool"))
    assert envelope["correlationid"] == "hint-m1"


async def test_a_hint_waits_out_a_vendors_failure_and_is_not_lost(world: World) -> None:
    world.vendor.messages = ["m1"]
    await world.pool.execute(
        "INSERT INTO channel_cursor (channel, account, due_at) VALUES ('lantern', 'main', 'infinity')"
    )
    await world.hint("m1")
    collector = world.collector()
    for response in (httpx.Response(500), httpx.Response(403)):
        world.vendor.instead = [response]
        await collector.turn()
        await world.pool.execute("UPDATE read_back SET due_at = '-infinity'")
    (row,) = await world.hints()
    assert (row["attempts"], row["problem"]) == (2, "forbidden")
    await collector.turn()
    assert await world.texts() == ["text of m1"]


async def test_what_is_gone_at_the_vendor_ends_as_such_and_is_counted(world: World) -> None:
    await world.hint("m9")
    await world.collector().turn()
    assert await world.hints() == []
    (told,) = await world.spooled()
    assert adapters.parse(delivery_of(told)) == Parsed(ignored="gone")


async def test_what_could_not_be_read_for_a_week_is_parked_with_its_bytes(world: World) -> None:
    await world.hint("m1", SystemClock().now() - timedelta(days=8))
    world.vendor.instead = [httpx.Response(500), httpx.Response(500)]
    await world.collector().turn()
    (told,) = await world.spooled()
    assert delivery_of(told).body == b'{"id": "m1"}'
    with pytest.raises(adapters.ParseError, match="not_read_back"):
        adapters.parse(delivery_of(told))
