"""A notifier as a process, a vendor that knows keys, one that knows none, and a mail server: the stand for the notifier's attacks.

The tickets' events are written to their topic as the router would, numbered without gaps. What left is read where it arrived: at
the vendors, which are on sockets of the test's own process and outlive every kill. What the notifier believes is read in its table.
"""

import asyncio
import base64
import contextlib
import random
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import yaml
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from chassis.batch import partition_of
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from schemas import ids, tickets
from schemas.envelope import Envelope
from schemas.payload import Payload
from tests.fakes.receiver import Receiver
from tests.fakes.served import Served, served
from tests.fakes.telegram import Telegram
from tests.faults.harness import PARTITIONS, SESSION_SECONDS, Member, Servers
from tests.faults.nursery import NOTIFIER
from tests.integration.kit import until

ROOT: Final = Path(__file__).parents[2]
SQL: Final = ROOT / "services/notifier/sql"
SOURCE: Final = "signalbox/router.tickets/0"
STAGE: Final = "notifier"
CHAT: Final = 55501

KEYED, UNKEYED, MAIL = "outgoing_webhook", "telegram", "smtp"
PROVIDERS: Final = (KEYED, UNKEYED, MAIL)


@dataclass
class Mails:
    """A mail server that takes every mail. While `holds` is set, the answer to a mail's content waits."""

    texts: list[str] = field(default_factory=list)
    holds: bool = False
    held: int = 0
    port: int = 0
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        writer.write(b"220 mx.example\r\n")
        content: list[str] | None = None
        with contextlib.suppress(ConnectionError):
            while raw := await reader.readline():
                line = raw.decode().rstrip("\r\n")
                if content is not None:
                    if line != ".":
                        content.append(line)
                        continue
                    self.texts.append("\n".join(content))
                    content = None
                    if self.holds:
                        self.held += 1
                        await self.let_go.wait()
                    writer.write(b"250 2.0.0 queued\r\n")
                    continue
                verb = line[:4].upper()
                content = [] if verb == "DATA" else None
                said = {"DATA": b"354 go on\r\n", "QUIT": b"221 bye\r\n"}
                writer.write(said.get(verb, b"250 fine\r\n"))
                if verb == "QUIT":
                    break
        writer.close()

    def release(self) -> None:
        """Let go of what is held, and hold nothing any more."""
        self.holds = False
        self.let_go.set()
        self.let_go = asyncio.Event()


@dataclass
class Case:
    """A conversation with one answer to it, by one provider; `words` are found in nothing else."""

    provider: str
    conversation_id: str
    ticket_id: str
    words: str


@dataclass
class Notifiers:
    """The slot of the notifier, its broker and database, its vendors, and what was asked of it."""

    servers: Servers
    name: str
    rng: random.Random
    directory: Path
    mails: Mails = field(default_factory=Mails)
    receiver: Receiver = field(default_factory=Receiver)
    telegram: Telegram = field(default_factory=Telegram)
    cases: list[Case] = field(default_factory=list)
    _sequences: Counter[tuple[str, int]] = field(default_factory=Counter)
    _serial: int = 0
    _member: Member | None = None

    def __post_init__(self) -> None:
        self.prefix = f"{self.name}."
        self.database = f"notifiers_{self.name}"
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
    async def running(self) -> AsyncIterator["Notifiers"]:
        """The vendors, the topics and the tables; no notifier yet."""
        await asyncio.to_thread(self.servers.postgres.create_database, self.database)
        await apply_topics(self.settings)
        await migrate(self.dsn, "notifier", [SQL])
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.servers.kafka.bootstrap, acks="all", enable_idempotence=True
        )
        await self._producer.start()
        listener = await asyncio.start_server(self.mails.serve, "127.0.0.1", 0)
        self.mails.port = listener.sockets[0].getsockname()[1]
        try:
            async with (
                served(self.receiver.server()) as self.hook,
                served(self.telegram.server()) as self.bot,
            ):
                self._write_policy()
                yield self
        finally:
            self.mails.release()
            listener.close()
            await self._producer.stop()
            if self._member is not None:
                self._member.send(signal.SIGKILL)
                await self.ended()

    def _write_policy(self) -> None:
        """The example policy with two accounts, where nothing but an agent's answer is told."""
        shutil.copytree(ROOT / "policy", self.policy)
        path = self.policy / "notify.yaml"
        policy = yaml.safe_load(path.read_text(encoding="utf-8"))
        policy["occasions"] = {
            name: name == "answered" for name in [*policy.get("occasions", {}), "answered"]
        }
        policy["occasions"].pop("answered", None)
        policy["digest"] = {"occasions": []}
        policy["articles"] = {"source": "none"}
        policy["accounts"] = {
            "shop": {
                "provider": KEYED,
                "url": f"{self.hook.url}/signalbox",
                "secret": "env:SIGNALBOX_TEST_HOOK",
            },
            "bot": {"provider": UNKEYED, "url": self.bot.url, "token": "env:SIGNALBOX_TEST_BOT"},
        }
        policy["fall_back"] = []
        path.write_text(yaml.safe_dump(policy, allow_unicode=True), encoding="utf-8")

    # -- the process -----------------------------------------------------------------------------------------

    @property
    def member(self) -> Member:
        """The notifier that was started last."""
        assert self._member is not None
        return self._member

    def start(self, failpoints: str = "") -> Member:
        """Start a notifier; the last one is gone."""
        self._serial += 1
        environment = {
            "SIGNALBOX_KAFKA": self.servers.kafka.bootstrap,
            "SIGNALBOX_DATABASE_URL": self.dsn,
            "SIGNALBOX_PARTITIONS": str(PARTITIONS),
            "SIGNALBOX_TOPIC_PREFIX": self.prefix,
            "SIGNALBOX_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
            "SIGNALBOX_POLICY": str(self.policy),
            "SIGNALBOX_TOKEN_SECRET": base64.b64encode(bytes(range(33))).decode(),
            "SIGNALBOX_SMTP_HOST": "127.0.0.1",
            "SIGNALBOX_SMTP_PORT": str(self.mails.port),
            "SIGNALBOX_SMTP_TLS": "none",
            "SIGNALBOX_INNER_HOSTS": "127.0.0.1",
            "SIGNALBOX_TEST_HOOK": self.receiver.secret,
            "SIGNALBOX_TEST_BOT": self.telegram.token,
            "SIGNALBOX_FAILPOINTS": failpoints,
            "SIGNALBOX_FAILPOINT_LOG": str(self.failpoint_log),
        }
        self._member = Member(
            self.servers.nursery, NOTIFIER, "only", self._serial, environment, self.directory
        )
        return self._member

    async def ended(self) -> None:
        """Wait until the notifier's process is gone."""
        member = self.member
        await until(f"{member.name} ends", lambda: member.exit_code is not None, 60)

    async def staffed(self) -> None:
        """Wait until every task of the notices belongs to the notifier that was started last."""

        async def is_owner() -> bool:
            assert self.member.exit_code is None, "the notifier has ended"
            rows = await self.rows("SELECT owner FROM lease WHERE stage = $1", STAGE)
            owners = {row["owner"].rpartition(":")[2] for row in rows}
            return len(rows) == PARTITIONS and owners == {str(self.member.pid)}

        await until("every task belongs to the notifier", is_owner, 90)

    # -- the world -------------------------------------------------------------------------------------------

    async def answer(self, provider: str) -> Case:
        """Let a customer have a ticket on a provider's channel, and an agent answer it."""
        number = len(self.cases) + 1
        case = Case(
            provider=provider,
            conversation_id=str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
            ticket_id=f"t-{number}",
            words=f"Answer number {number} is here.",
        )
        self.cases.append(case)
        now = datetime.now(UTC).isoformat()
        about = {"ticket_id": case.ticket_id, "conversation_id": case.conversation_id, "at": now}
        opened = {
            **tickets.TicketOpened.EXAMPLE, **about, "version": 1, "reference": f"SB-{number:07}",
            "message_id": str(uuid.UUID(int=number)), "occurred_at": now,
            "contact": self._contact(provider, number), "vendor_thread": str(CHAT),
        }  # fmt: skip
        answered = {
            **tickets.TicketAnswered.EXAMPLE, **about, "version": 2, "command_id": f"c-{number}",
            "text": case.words, "occurred_at": now,
        }  # fmt: skip
        await self._tell(tickets.TicketOpened.model_validate(opened))
        await self._tell(tickets.TicketAnswered.model_validate(answered))
        return case

    def _contact(self, provider: str, number: int) -> dict[str, Any]:
        channel, account, kind, address = {
            KEYED: ("kiosk", "shop", "vendor_id", f"customer-{number}"),
            UNKEYED: ("telegram", "bot", "vendor_id", str(CHAT)),
            MAIL: ("email", "support", "email", f"customer-{number}@example.com"),
        }[provider]
        return {
            "customer_id": f"customer-{number}", "name": "Ada", "address": address,
            "address_kind": kind, "channel": channel, "account": account, "language": "en",
            "is_verified": True,
        }  # fmt: skip

    async def _tell(self, event: Payload) -> None:
        key = str(event.conversation_id)  # type: ignore[attr-defined]
        partition = partition_of(key, PARTITIONS)
        self._sequences[event.TOPIC, partition] += 1
        at = self._sequences[event.TOPIC, partition]
        envelope = Envelope(
            type=event.TYPE,
            source=SOURCE.rpartition("/")[0] + f"/{partition}",
            id=ids.derive("test", event.TOPIC, str(partition), str(at)),
            time=datetime.now(UTC),
            partitionkey=key,
            sequence=at,
        )
        await self._producer.send_and_wait(
            self.prefix + event.TOPIC,
            event.to_json(),
            key=key.encode(),
            headers=list(envelope.to_headers()),
            partition=partition,
        )

    # -- looking ---------------------------------------------------------------------------------------------

    def arrived(self, case: Case) -> int:
        """Return how often an answer has arrived where it was sent."""
        match case.provider:
            case "outgoing_webhook":
                return sum(case.words in one.text for one in self.receiver.sent)
            case "telegram":
                return sum(case.words in one.text for one in self.telegram.sent)
            case _:
                return sum(case.words in text for text in self.mails.texts)

    async def statuses(self) -> dict[str, str]:
        """Return what the notifier believes of each ticket's answer."""
        rows = await self.rows("SELECT ticket_id, status FROM notice WHERE occasion = 'answered'")
        return {row["ticket_id"]: row["status"] for row in rows}

    async def settled(self, seconds: float = 90.0) -> dict[str, str]:
        """Wait until every answer has come to an end, and return which."""

        async def are() -> bool:
            found = await self.statuses()
            return len(found) == len(self.cases) and "requested" not in found.values()

        await until("every answer has come to an end", are, seconds)
        return await self.statuses()

    async def rows(self, query: str, *values: Any) -> list[Any]:
        """Look into the notifier's schema."""
        connection = await asyncpg.connect(
            self.dsn, timeout=10, server_settings={"search_path": "notifier"}
        )
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    def hold(self, provider: str) -> None:
        """Let a vendor take messages and say nothing."""
        self._vendor(provider).holds = True

    def held(self, provider: str) -> int:
        """Return how many answers a vendor holds back, or has."""
        return self._vendor(provider).held

    def release(self) -> None:
        """Let every vendor answer again."""
        for provider in PROVIDERS:
            self._vendor(provider).release()

    def _vendor(self, provider: str) -> Served | Mails:
        vendors: dict[str, Served | Mails] = {
            KEYED: self.hook, UNKEYED: self.bot, MAIL: self.mails,
        }  # fmt: skip
        return vendors[provider]
