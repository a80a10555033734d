"""What the stands for one service's own attacks share: its database and topics, its processes, and the events it is told.

The events of the services before it are written to their topics as those would, numbered without gaps. What the service
believes is read in its tables.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import asyncpg
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from chassis.batch import partition_of
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from schemas import ids
from schemas.envelope import Envelope
from schemas.payload import Payload
from tests.faults.harness import PARTITIONS, SESSION_SECONDS, Member, Servers
from tests.integration.kit import until

ROOT = Path(__file__).parents[2]


@dataclass
class Stand:
    """A service, its broker and database, and what it was told."""

    SERVICE: ClassVar[str]
    """The service's name, which its process, its schema and its folder have too."""
    SOURCE: ClassVar[str]
    """The source of what it is told; `{partition}` stands for the partition."""
    END_SECONDS: ClassVar[float] = 30.0
    """How long a process may take until it is gone."""

    servers: Servers
    name: str
    rng: random.Random
    directory: Path
    _sequences: Counter[tuple[str, int]] = field(default_factory=Counter)
    _serial: int = 0

    def __post_init__(self) -> None:
        self.prefix = f"{self.name}."
        self.database = f"{self.SERVICE}s_{self.name}".replace("-", "_")
        self.dsn = self.servers.postgres.dsn(self.database)
        self.failpoint_log = self.directory / "failpoints.log"
        self.policy = self.directory / "policy"
        self.settings = Settings(
            kafka=self.servers.kafka.bootstrap,
            database_url=SecretStr(self.dsn),
            partitions=PARTITIONS,
            topic_prefix=self.prefix,
        )

    @contextlib.asynccontextmanager
    async def _prepared(self) -> AsyncIterator[None]:
        """The topics, the tables, and a way to tell events; no process yet."""
        await asyncio.to_thread(self.servers.postgres.create_database, self.database)
        await apply_topics(self.settings)
        await migrate(self.dsn, self.SERVICE, [ROOT / "services" / self.SERVICE / "sql"])
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.servers.kafka.bootstrap, acks="all", enable_idempotence=True
        )
        await self._producer.start()
        try:
            yield
        finally:
            await self._producer.stop()

    def _born(self, slot: str, failpoints: str, **more: str) -> Member:
        """Start a process of the service in a slot; `more` is what its environment has beside what every service needs."""
        self._serial += 1
        environment = {
            "SIGNALBOX_KAFKA": self.servers.kafka.bootstrap,
            "SIGNALBOX_DATABASE_URL": self.dsn,
            "SIGNALBOX_PARTITIONS": str(PARTITIONS),
            "SIGNALBOX_TOPIC_PREFIX": self.prefix,
            "SIGNALBOX_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "SIGNALBOX_POLICY": str(self.policy),
            "SIGNALBOX_FAILPOINTS": failpoints,
            "SIGNALBOX_FAILPOINT_LOG": str(self.failpoint_log),
            **more,
        }
        return Member(
            self.servers.nursery, self.SERVICE, slot, self._serial, environment, self.directory
        )

    async def _gone(self, member: Member) -> None:
        """Wait until a process has ended."""
        await until(f"{member.name} ends", lambda: member.exit_code is not None, self.END_SECONDS)

    async def _tell(self, event: Payload, key: str) -> "asyncio.Future[Any]":
        """Write an event as the service would whose it is; what is returned is done when the broker has it."""
        partition = partition_of(key, PARTITIONS)
        self._sequences[event.TOPIC, partition] += 1
        at = self._sequences[event.TOPIC, partition]
        envelope = Envelope(
            type=event.TYPE,
            source=self.SOURCE.format(partition=partition),
            id=ids.derive("test", event.TOPIC, str(partition), str(at)),
            time=datetime.now(UTC),
            partitionkey=key,
            sequence=at,
        )
        written: asyncio.Future[Any] = await self._producer.send(
            self.prefix + event.TOPIC,
            event.to_json(),
            key=key.encode(),
            headers=list(envelope.to_headers()),
            partition=partition,
        )
        return written

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Look into the service's schema."""
        connection = await asyncpg.connect(
            self.dsn, timeout=10, server_settings={"search_path": self.SERVICE}
        )
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()
