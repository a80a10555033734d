"""What `signalbox bench notifier` stands on: a policy, tickets and their answers, the service as a process, and who listens.

Every answer is the only message to its recipient, so the vendors can say by themselves what came twice and what never came.
"""

import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import msgspec
import psutil
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chassis.batch import partition_of
from chassis.clock import monotonic
from chassis.local.processes import free_port
from chassis.settings import Settings
from schemas import ids, tickets
from schemas.envelope import Envelope
from schemas.notifications import (
    NoticeFailed,
    NoticeRequested,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
)
from schemas.payload import Payload
from schemas.topics import NOTIFICATIONS

ROOT: Final = Path(__file__).resolve().parent.parent
SQL: Final = ROOT / "services/notifier/sql"
PARTITIONS: Final = 4
SOURCE: Final = "signalbox/router.tickets"
READY_SECONDS: Final = 120.0
HOOK_SECRET: Final = "whsec_" + b64encode(b"bench-of-the-notifiers-webhooks").decode()
BOT_TOKEN: Final = "1:" + "bench-" * 6

KEYED: Final = ("keyed", "instant", "one", "other")
"""Accounts of signed webhooks: three that share nothing, and one whose vendor takes no time."""
UNKEYED: Final = "unkeyed"
"""An account of Telegram, which knows no keys."""
MAIL: Final = "mail"
"""Our own mail server."""
RETRY: Final = {"delays_seconds": [20] * 12, "jitter": 0.2}
"""Sooner than what is shipped (a minute, then longer): what was held up comes to its end within the bench."""

ENDS: Final = {
    kind.TYPE.encode(): name
    for kind, name in (
        (NoticeSent, "sent"),
        (NoticeFailed, "failed"),
        (NoticeUnknown, "unknown"),
        (NoticeSuppressed, "suppressed"),
    )
}


def write_policy(folder: Path, vendor_port: int) -> Path:
    """Copy the example policy below `folder`, with accounts at the vendor, where nothing but answers is told."""
    copy = folder / "policy"
    shutil.copytree(ROOT / "policy", copy)
    path = copy / "notify.yaml"
    policy = yaml.safe_load(path.read_text(encoding="utf-8"))
    base = f"http://127.0.0.1:{vendor_port}"
    policy["occasions"] = dict.fromkeys(policy["occasions"], False)
    policy["digest"] = {"occasions": []}
    policy["articles"] = {"source": "none"}
    policy["fall_back"] = []
    policy["retry"] = RETRY
    policy["accounts"] = {
        name: {
            "provider": "outgoing_webhook",
            "url": f"{base}/{name}",
            "secret": "env:SIGNALBOX_BENCH_HOOK",
        }
        for name in KEYED
    }
    policy["accounts"][UNKEYED] = {
        "provider": "telegram",
        "url": f"{base}/{UNKEYED}",
        "token": "env:SIGNALBOX_BENCH_BOT",
    }
    path.write_text(yaml.safe_dump(policy, allow_unicode=True), encoding="utf-8")
    return copy


@dataclass(frozen=True, slots=True)
class Case:
    """A ticket with one answer to come; `recipient` is what the vendor calls the customer."""

    account: str
    conversation_id: str
    recipient: str


@dataclass(slots=True)
class World:
    """Tells the notifier of tickets and answers, as the router would: numbered without gaps."""

    settings: Settings
    producer: AIOKafkaProducer
    cases: list[Case] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    """Conversations whose answer was told."""
    _sequences: Counter[int] = field(default_factory=Counter)

    async def open(self, account: str, count: int) -> list[Case]:
        """Open so many tickets of customers who wrote by an account."""
        opened = []
        for _ in range(count):
            number = len(self.cases) + 1
            conversation_id = str(uuid.uuid4())
            recipient = {MAIL: f"c{number}", UNKEYED: str(number)}.get(account, conversation_id)
            case = Case(account, conversation_id, recipient)
            self.cases.append(case)
            opened.append(case)
            await self._tell(self._opened(case, number), conversation_id)
        await self.producer.flush()
        return opened

    async def answer(self, case: Case) -> None:
        """Let an agent answer; the record is under way when this returns."""
        now = datetime.now(UTC).isoformat()
        self.answered.add(case.conversation_id)
        answered = {
            **tickets.TicketAnswered.EXAMPLE, **_about(case, now), "version": 2, "occurred_at": now,
        }  # fmt: skip
        await self._tell(tickets.TicketAnswered.model_validate(answered), case.conversation_id)

    @staticmethod
    def _opened(case: Case, number: int) -> Payload:
        now = datetime.now(UTC).isoformat()
        address, kind, channel, account = {
            MAIL: (f"{case.recipient}@mail.example", "email", "email", "support"),
            UNKEYED: (case.recipient, "vendor_id", "telegram", UNKEYED),
        }.get(case.account, (case.recipient, "vendor_id", "kiosk", case.account))
        contact = {
            "customer_id": f"customer-{number}", "name": "Ada", "address": address,
            "address_kind": kind, "channel": channel, "account": account, "language": "en",
            "is_verified": True,
        }  # fmt: skip
        opened = {
            **tickets.TicketOpened.EXAMPLE, **_about(case, now), "version": 1, "number": number,
            "message_id": str(uuid.uuid4()), "contact": contact, "occurred_at": now,
            "vendor_thread": case.recipient if case.account == UNKEYED else "",
        }  # fmt: skip
        return tickets.TicketOpened.model_validate(opened)

    async def _tell(self, event: Payload, key: str) -> None:
        partition = partition_of(key, PARTITIONS)
        self._sequences[partition] += 1
        at = self._sequences[partition]
        envelope = Envelope(
            type=event.TYPE,
            source=f"{SOURCE}/{partition}",
            id=ids.derive("bench", str(partition), str(at)),
            time=datetime.now(UTC),
            partitionkey=key,
            sequence=at,
        )
        await self.producer.send(
            self.settings.topic(event.TOPIC),
            event.to_json(),
            key=key.encode(),
            headers=list(envelope.to_headers()),
            partition=partition,
        )


def _about(case: Case, now: str) -> dict[str, Any]:
    return {
        "ticket_id": f"t-{case.conversation_id}",
        "conversation_id": case.conversation_id,
        "at": now,
    }


@dataclass(slots=True)
class Listener:
    """Reads the topic `notifications` from now on: what was asked for, and how it ended, by conversation."""

    settings: Settings
    requested: dict[str, float] = field(default_factory=dict)
    """When an answer's batch was begun that asks for its notice, in seconds since 1970."""
    ended: dict[str, list[str]] = field(default_factory=dict)
    _seen: set[bytes] = field(default_factory=set)
    _consumer: Any = None
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._consumer = AIOKafkaConsumer(
            **self.settings.kafka_access.options(), enable_auto_commit=False
        )
        await self._consumer.start()
        topic = self.settings.topic(NOTIFICATIONS.name)
        self._consumer.assign([TopicPartition(topic, n) for n in range(PARTITIONS)])
        await self._consumer.seek_to_beginning()
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _listen(self) -> None:
        while True:
            found = await self._consumer.getmany(timeout_ms=1000)
            for record in (record for records in found.values() for record in records):
                self.hear(dict(record.headers), _TOLD.decode(record.value))

    def hear(self, headers: Mapping[str, bytes], told: "Told") -> None:
        """Note one event of an answer; one that is told again after a restart counts once."""
        if told.occasion != "answered" or headers["ce_id"] in self._seen:
            return
        self._seen.add(headers["ce_id"])
        kind = headers["ce_type"]
        if kind == NoticeRequested.TYPE.encode():
            self.requested[told.conversation_id] = told.at.timestamp()
        elif kind in ENDS:
            self.ended.setdefault(told.conversation_id, []).append(ENDS[kind])


class Told(msgspec.Struct, frozen=True):
    """What the bench reads of an event about a notice."""

    conversation_id: str
    occasion: str
    at: datetime


_TOLD: Final = msgspec.json.Decoder(Told)


class Vendor:
    """Asks the vendors what they have taken."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def arrivals(self, account: str) -> dict[str, float]:
        """Return when each recipient's message arrived first."""
        found: dict[str, float] = (await self._http.get(f"/arrivals/{account}")).json()
        return found

    async def counts(self) -> dict[str, dict[str, int]]:
        """Return each account's counts."""
        found: dict[str, dict[str, int]] = (await self._http.get("/counts")).json()
        return found

    async def behave(self, account: str, mode: str) -> None:
        """Have an account's vendor behave so from now on."""
        (await self._http.post(f"/mode/{account}/{mode}")).raise_for_status()


def books(
    cases: Iterable[Case],
    ended: Mapping[str, list[str]],
    arrivals: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, Mapping[str, int]],
) -> dict[str, float]:
    """Hold what was answered against what the vendors have and what the notifier says of it.

    `lost`: answers that no vendor has. `twice`: recipients who have theirs twice. `told_wrong`: notices whose one end is not the
    truth: `sent` that never arrived, anything but `sent` that did, none at all, or more than one.
    """
    n_answers, lost, wrong = 0, 0, 0
    ends: Counter[str] = Counter()
    for case in cases:
        has_arrived = case.recipient in arrivals.get(case.account, {})
        said = ended.get(case.conversation_id, [])
        ends.update(said)
        n_answers += 1
        lost += not has_arrived
        wrong += len(said) != 1 or (said[0] == "sent") != has_arrived
    return {
        "answers": n_answers,
        "sent": ends["sent"],
        "lost": lost,
        "twice": sum(one["twice"] for one in counts.values()),
        "told_wrong": wrong,
        "unknown": ends["unknown"],
        "repeats_dropped_by_key": sum(one["repeats"] for one in counts.values()),
    }


class Service:
    """The notifier as a process."""

    def __init__(self, settings: Settings, policy: Path, smtp_port: int) -> None:
        self._settings = settings
        self._port = free_port()
        environment = {
            **os.environ,
            "SIGNALBOX_KAFKA": settings.kafka,
            "SIGNALBOX_DATABASE_URL": settings.dsn,
            "SIGNALBOX_PARTITIONS": str(PARTITIONS),
            "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix,
            "SIGNALBOX_POLICY": str(policy),
            "SIGNALBOX_TOKEN_SECRET": secrets.token_hex(32),
            "SIGNALBOX_BENCH_HOOK": HOOK_SECRET,
            "SIGNALBOX_BENCH_BOT": BOT_TOKEN,
            "SIGNALBOX_INNER_HOSTS": "127.0.0.1",
            "SIGNALBOX_SMTP_HOST": "127.0.0.1",
            "SIGNALBOX_SMTP_PORT": str(smtp_port),
            "SIGNALBOX_SMTP_TLS": "none",
            "SIGNALBOX_HTTP_PORT": str(self._port),
            "SIGNALBOX_LOG_LEVEL": "error",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "services.notifier", "serve"], env=environment
        )

    async def ready(self) -> None:
        """Wait until it is.

        Raises:
            TimeoutError: it is not in time.
            RuntimeError: it has ended.
        """
        deadline = monotonic() + READY_SECONDS
        async with httpx.AsyncClient(trust_env=False) as client:
            while not await self._is_ready(client):
                self.check()
                if monotonic() > deadline:
                    raise TimeoutError(f"the notifier is not ready after {READY_SECONDS:.0f} s")
                await asyncio.sleep(0.1)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            answer = await client.get(f"http://127.0.0.1:{self._port}/health/ready")
        except httpx.TransportError:
            return False
        return answer.is_success

    async def knows(self, count: int, seconds: float) -> None:
        """Wait until it remembers so many conversations.

        Raises:
            TimeoutError: it does not in time.
            RuntimeError: it has ended.
        """
        deadline = monotonic() + seconds
        connection = await asyncpg.connect(self._settings.dsn)
        try:
            while (
                found := await connection.fetchval(
                    "SELECT count(*) FROM notifier.state WHERE stage = 'notifier'"
                )
            ) < count:
                self.check()
                if monotonic() > deadline:
                    raise TimeoutError(f"{found} of {count} tickets known after {seconds:.0f} s")
                await asyncio.sleep(0.1)
        finally:
            await connection.close()

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            RuntimeError: it has ended by itself.
        """
        if self._process.poll() is not None:
            raise RuntimeError(f"the notifier has ended with {self._process.returncode}")

    def stop(self) -> None:
        """End it in good order, and wait for that."""
        self._process.terminate()
        self._process.wait()

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def memory_mb(self) -> float:
        """Return its resident memory."""
        return float(psutil.Process(self._process.pid).memory_info().rss) / 1e6
