"""A changed policy is in force within two seconds while the router works on, and a broken one changes nothing."""

import asyncio
import contextlib
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis import metrics
from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from schemas import roster
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.topics import BY_NAME, TOPICS
from services.router.handlers import POLICY, AssignmentStage, TicketsStage
from services.router.queue_lengths import Lengths
from tests.integration.kit import (
    PARTITIONS,
    Driver,
    MakeTopic,
    driving,
    make_settings,
    running,
    until,
)
from tests.unit.router.stories import ROUTING_YAML, message

SQL = Path(__file__).parents[2] / "services" / "router" / "sql"
LIVE_WITHIN = timedelta(seconds=2)
EVERY = 0.03
FIRST = ROUTING_YAML
SECOND = ROUTING_YAML.replace(
    "rules:\n", "rules:\n  - {name: lamps, when: {contains: [lamp]}, then: {queue: service}}\n"
)
THIRD = SECOND.replace("name: lamps,", "name: lamps again,")
BROKEN = SECOND.replace("then: {queue: service}}", "then: {queue: servicee}}")


class Shop:
    """Customers who write all the time, an agent who could take everything, and the folder of the policy."""

    def __init__(self, driver: Driver, folder: Path) -> None:
        self._driver = driver
        self._folder = folder
        self._sequences: dict[Any, Iterator[int]] = defaultdict(lambda: itertools.count(1))

    async def send(self, event: Payload, key: str) -> None:
        topic = BY_NAME[event.TOPIC]
        partition = partition_of(key, PARTITIONS)
        sequence = next(self._sequences[topic.name, partition])
        envelope = Envelope(
            event.TYPE,
            f"signalbox/{topic.writer}/{partition}",
            f"{topic.name}-{partition}-{sequence}",
            SystemClock().now(),
            partitionkey=key,
            sequence=sequence,
        )
        await self._driver.event(topic.name, envelope, event)

    async def open(self) -> None:
        await self.send(
            roster.AgentSet(
                domain="main",
                agent_id="ada",
                queues=("service",),
                skills={"orders": 9},
                languages={"en": 9},
                capacity=100_000,
            ),
            "main",
        )
        await self.send(
            roster.PresenceSet(domain="main", agent_id="ada", presence="available"), "main"
        )

    async def customers(self) -> None:
        for n in itertools.count():
            key = f"live-{n}"
            await self.send(message(f"m{n}", conversation_id=key, text="a lamp"), key)
            await asyncio.sleep(EVERY)

    def decree(self, text: str) -> datetime:
        """Write the policy as careful tools do; return when."""
        written = self._folder / "routing.yaml.new"
        written.write_text(text, encoding="utf-8")
        written.replace(self._folder / "routing.yaml")
        return SystemClock().now()


@contextlib.asynccontextmanager
async def background(*parts: Any) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), f"ended by itself: {outcome!r}"


@contextlib.asynccontextmanager
async def looking(database: str) -> AsyncIterator[Any]:
    pool = await open_pool(database, "router", 2, "test")
    try:
        yield pool
    finally:
        await pool.close()


def reloads(result: str) -> float:
    return float(metrics.POLICY_RELOADS.labels(result)._value.get())


@pytest.mark.slow
async def test_a_changed_policy_is_live_within_two_seconds_without_a_pause_and_a_broken_one_never(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> None:
    for topic in TOPICS:
        await make_topic(topic.name, partitions=PARTITIONS)
    await migrate(database, "router", [SQL])
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "routing.yaml").write_text(FIRST, encoding="utf-8")
    policies = PolicyHolder(folder, POLICY)
    settings = make_settings(bootstrap, database, topic_prefix)
    async with (
        running(TicketsStage(policies, Lengths(policies)), settings, schema="router"),
        running(AssignmentStage(policies), settings, schema="router"),
        driving(settings) as driver,
        looking(database) as pool,
    ):
        shop = Shop(driver, folder)

        async def opened_by(rule: str) -> int:
            return int(
                await pool.fetchval(
                    "SELECT count(*) FROM router.ticket_event"
                    " WHERE type = 'ticket.opened.v1' AND data->>'rule' = $1",
                    rule,
                )
            )

        async def has_opened(rule: str, n: int) -> bool:
            return await opened_by(rule) >= n

        await shop.open()
        async with background(policies.watch(), shop.customers()):
            await until("the first policy decides", lambda: has_opened("everything else", 20))

            changed_at = shop.decree(SECOND)
            await until("the second policy decides", lambda: has_opened("lamps", 50))
            first_at, last_old_at = await pool.fetchrow(
                "SELECT min(at) FILTER (WHERE data->>'rule' = 'lamps'),"
                " max(at) FILTER (WHERE data->>'rule' = 'everything else')"
                " FROM router.ticket_event WHERE type = 'ticket.opened.v1'"
            )
            assert first_at - changed_at <= LIVE_WITHIN
            assert last_old_at - changed_at <= LIVE_WITHIN

            refused, version = reloads("refused"), policies.current.version
            shop.decree(BROKEN)
            await until("the broken policy is refused", lambda: reloads("refused") == refused + 1)
            n = await opened_by("lamps")
            await until("the old policy decides on", lambda: has_opened("lamps", n + 20))
            assert policies.current.version == version

            mended_at = shop.decree(THIRD)
            await until("the mended policy decides", lambda: has_opened("lamps again", 20))
            mended_first = await pool.fetchval(
                "SELECT min(at) FROM router.ticket_event"
                " WHERE type = 'ticket.opened.v1' AND data->>'rule' = 'lamps again'"
            )
            assert mended_first - mended_at <= LIVE_WITHIN

        offered = [
            row["at"]
            for row in await pool.fetch(
                "SELECT at FROM router.routing_event WHERE type = 'routing.offered.v1' ORDER BY at"
            )
        ]
        assert len(offered) >= 100
        pauses = [(b - a).total_seconds() for a, b in itertools.pairwise(offered)]
        assert max(pauses) < 1, sorted(pauses, reverse=True)[:5]
