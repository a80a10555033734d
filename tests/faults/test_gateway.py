"""Through the real front door: duplicate, reordered, simultaneous and poisonous requests, and a killed replica.

Two processes of ingest, each with its gateway and its normaliser, on the fault tests' own servers. Whatever a sender does
with one idempotency key or one message id, it comes to one message; whatever is wrong is refused, or parked with its
bytes and a cause; and what was answered 2xx is there.
"""

import asyncio
import base64
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from chassis.batch import partition_of
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from schemas.envelope import Envelope
from services.ingest.adapters.standard_webhooks import sign
from tests.faults.conftest import REPORT, keep
from tests.faults.harness import (
    PARTITIONS,
    InvalidRun,
    Log,
    Servers,
    read_ends,
    read_log,
    until,
    wall,
)
from tests.faults.poison import envelope
from tests.faults.wire import publish_raw

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"a webhook secret of the fault tests").decode()
API_KEY = "an-api-key-of-the-fault-tests"
CONNECTIONS = 8
INPUTS = 90
COPIES_MAX = 5
NEIGHBOUR_SECONDS = 2.0
NOISE = 2.0

CHANNELS = """
domain: main
mail: {}
forms:
  contact:
    origins: []
messages:
  kiosk:
    channel: kiosk
events:
  shop:
    secrets: [env:FAULTS_WEBHOOK_SECRET]
api_keys:
  - name: systems
    secret: env:FAULTS_API_KEY
    scopes: [messages, events]
"""


@dataclass(frozen=True, slots=True)
class Call:
    """A request to the gateway; the same call again is a repeat."""

    path: str
    body: bytes
    headers: dict[str, str]
    says: str
    """What the message's text begins with: no two inputs say the same."""


@dataclass
class Replica:
    """A process of ingest."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Log

    @property
    def url(self) -> str | None:
        """Where its gateway listens, once it does."""
        lines = self.log.events("gateway_listening")
        return f"http://127.0.0.1:{lines[-1]['port']}" if lines else None


@dataclass
class Installation:
    """Ingest with two replicas, a database and topics of its own."""

    servers: Servers
    name: str
    directory: Path
    rng: random.Random
    replicas: dict[str, Replica] = field(default_factory=dict)
    evidence: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefix = f"{self.name}."
        self.dsn = self.servers.postgres.dsn(f"faults_{self.name}")
        self.settings = Settings(
            kafka=self.servers.kafka.bootstrap,
            database_url=SecretStr(self.dsn),
            partitions=PARTITIONS,
            topic_prefix=self.prefix,
        )
        self.client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=CONNECTIONS), timeout=20.0, trust_env=False
        )

    async def start(self) -> None:
        """Both replicas answer and own their share of the tasks."""
        await asyncio.to_thread(self.servers.postgres.create_database, f"faults_{self.name}")
        policy = self.directory / "policy"
        policy.mkdir()
        (policy / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
        await apply_topics(self.settings)
        await migrate(self.dsn, "ingest", [ROOT / "services" / "ingest" / "sql"])
        for name in ("one", "two"):
            self.spawn(name)
        await until(lambda: all(r.url for r in self.replicas.values()), 90, "both gateways listen")
        await until(lambda: self._owners() == PARTITIONS, 90, "every task has an owner")

    def _owners(self) -> int:
        return len(
            {
                event["task"]
                for replica in self.replicas.values()
                for event in replica.log.events("task_acquired")
                if event["stage"] == "ingest.normaliser"
            }
        )

    def spawn(self, name: str) -> Replica:
        """Start a replica; its log begins anew."""
        log = self.directory / f"{name}.{len(list(self.directory.iterdir()))}.log"
        environment = {
            **os.environ,
            "SIGNALBOX_KAFKA": self.servers.kafka.bootstrap,
            "SIGNALBOX_DATABASE_URL": self.dsn,
            "SIGNALBOX_PARTITIONS": str(PARTITIONS),
            "SIGNALBOX_TOPIC_PREFIX": self.prefix,
            "SIGNALBOX_SESSION_TIMEOUT_SECONDS": "3",
            "SIGNALBOX_POLICY": str(self.directory / "policy"),
            "SIGNALBOX_TOKEN_SECRET": "t" * 40,
            "SIGNALBOX_GATEWAY_PORT": "0",
            "SIGNALBOX_SMTP_ENABLED": "false",
            "FAULTS_WEBHOOK_SECRET": WEBHOOK_SECRET,
            "FAULTS_API_KEY": API_KEY,
        }
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.ingest", "serve"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        self.replicas[name] = Replica(name, process, Log(log))
        return self.replicas[name]

    def kill(self, name: str) -> None:
        """SIGKILL a replica; its exit code is the proof."""
        process = self.replicas[name].process
        process.kill()
        if process.wait(5) != -signal.SIGKILL:
            raise InvalidRun(f"replica {name} ended with {process.returncode}")
        self.evidence.append(f"replica {name} ended with exit code -9 while it answered")

    async def send(self, call: Call) -> httpx.Response:
        """Send a call to any replica that answers, until one has: a lost answer is asked for again."""
        deadline = wall() + 60
        while wall() < deadline:
            replica = self.rng.choice(list(self.replicas.values()))
            if replica.url is None or replica.process.poll() is not None:
                await asyncio.sleep(0.02)
                continue
            with suppress(httpx.TransportError):
                response = await self.client.post(
                    replica.url + call.path, content=call.body, headers=call.headers
                )
                if response.status_code != 503:
                    return response
            await asyncio.sleep(0.05)
        raise AssertionError(f"nobody has answered {call.path} for a minute")

    async def messages(self) -> list[dict[str, Any]]:
        """Return the data of each message on `messages`, first occurrences only."""
        log = await read_log(self.servers.kafka.bootstrap, self.prefix, ["messages"])
        seen = set()
        found = []
        for records in log.values():
            for record in records:
                name = (record.source, record.partition, record.sequence)
                if name not in seen:
                    seen.add(name)
                    found.append(json.loads(record.value))
        return found

    async def rest(self, seconds: float = 45.0) -> None:
        """Wait until the spool and the outboxes are empty and every delivery has been read."""
        connection = await asyncpg.connect(self.dsn, timeout=5)
        deadline = wall() + seconds
        query = (
            "SELECT (SELECT count(*) FROM ingest.spool), (SELECT count(*) FROM ingest.outbox),"
            " (SELECT coalesce(sum((offsets->>'inbound')::bigint), 0) FROM ingest.lease"
            " WHERE stage = 'ingest.normaliser')"
        )
        try:
            while True:
                row = await connection.fetchrow(query)
                assert row is not None
                spooled, owed, read = row
                ends = await read_ends(self.servers.kafka.bootstrap, self.prefix, ["inbound"])
                if not spooled and not owed and read == sum(ends.values()):
                    return
                if wall() > deadline:
                    left = f"{spooled} in the spool, {owed} to publish, {read} read"
                    raise AssertionError(f"not at rest after {seconds:g} s: {left}")
                await asyncio.sleep(0.1)
        finally:
            await connection.close()

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """Ask the database."""
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def stop(self) -> None:
        """End both replicas, however the test has ended."""
        await self.client.aclose()
        for replica in self.replicas.values():
            replica.process.kill()
            replica.process.wait(10)


Install = Callable[[str], Awaitable[Installation]]


@pytest.fixture
async def install(
    servers: Servers, seed: str, request: pytest.FixtureRequest
) -> AsyncIterator[Install]:
    """`installation = await install("webhooks")` gives ingest with two replicas; its end is reported."""
    begun: list[Installation] = []

    async def begin(name: str) -> Installation:
        directory = servers.directory / "runs" / name
        directory.mkdir(parents=True)
        begun.append(Installation(servers, name, directory, random.Random(f"{seed}/{name}")))
        await begun[-1].start()
        return begun[-1]

    yield begin
    for installation in begun:
        await installation.stop()
        keep(installation.directory, installation.name)
        lines = [*installation.figures, *installation.evidence]
        request.config.stash.setdefault(REPORT, []).append(
            f"{installation.name}\n" + "".join(f"    {line}\n" for line in lines)
        )


def _form(n: int, says: str) -> Call:
    body = {"email": f"c{n % 7}@example.com", "subject": "A lamp", "message": says}
    return Call(
        "/v1/forms/contact",
        json.dumps(body).encode(),
        {"content-type": "application/json", "idempotency-key": f"form-{n}"},
        says,
    )


def _message(n: int, says: str) -> Call:
    body = {
        "channel": "kiosk",
        "account": "kiosk",
        "id": f"case-{n}",
        "sender": {"address": f"c{n % 7}@example.com"},
        "text": says,
    }
    return Call(
        "/v1/messages",
        json.dumps(body).encode(),
        {
            "content-type": "application/json",
            "authorization": f"Bearer {API_KEY}",
            "idempotency-key": f"message-{n}",
        },
        says,
    )


def _webhook(n: int, says: str) -> Call:
    body = json.dumps({"sender": {"address": f"c{n % 7}@example.com"}, "text": says}).encode()
    stamp = int(wall())
    return Call(
        "/v1/events",
        body,
        {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            "ce-type": "message.submitted.v1",
            "ce-source": "shop",
            "ce-id": f"e{n}",
            "webhook-id": f"w{n}",
            "webhook-timestamp": str(stamp),
            "webhook-signature": sign(WEBHOOK_SECRET.encode(), f"w{n}", stamp, body),
        },
        says,
    )


def _says(message: dict[str, Any]) -> str:
    return str(message["content"]["text"]).splitlines()[0]


async def test_duplicate_reordered_and_simultaneous_webhooks_come_to_one_message_each(
    install: Install,
) -> None:
    installation = await install("webhooks")
    rng = installation.rng
    make = (_form, _message, _webhook)
    calls = [make[n % 3](n, f"Input number {n} asks for a lamp") for n in range(INPUTS)]
    sendings = [n for n in range(INPUTS) for _ in range(rng.randint(1, COPIES_MAX))]
    rng.shuffle(sendings)
    answers: dict[int, list[httpx.Response]] = defaultdict(list)
    waiting = iter(enumerate(sendings))
    kill_at = rng.randint(len(sendings) // 4, len(sendings) // 2)

    async def connection() -> None:
        for index, n in waiting:
            if index == kill_at:
                installation.kill("one")
                installation.spawn("one")
            answers[n].append(await installation.send(calls[n]))

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    # All copies of one more input in the same instant.
    at_once = _form(INPUTS, "Input of the same instant")
    answers[INPUTS] = await asyncio.gather(
        *(installation.send(at_once) for _ in range(CONNECTIONS))
    )
    calls.append(at_once)
    installation.evidence.append(
        f"{len(sendings)} sendings of {INPUTS} inputs, shuffled, on {CONNECTIONS} connections"
    )
    for n, given in answers.items():
        assert {answer.status_code for answer in given} == {202}, f"input {n}"
        assert len({answer.json()["id"] for answer in given}) == 1, f"input {n} has several ids"

    # The same key with another body is refused; the same message under another key is no second message.
    for n in rng.sample(range(INPUTS), 12):
        other = make[n % 3](n, "Something else under the same key")
        refused = await installation.send(other)
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
    again = [n for n in range(INPUTS) if n % 3 == 1][:5]
    for n in again:
        headers = {**calls[n].headers, "idempotency-key": f"another-{n}"}
        repeated = await installation.send(
            Call(calls[n].path, calls[n].body, headers, calls[n].says)
        )
        assert repeated.status_code == 202

    await installation.rest()
    found = Counter(_says(message) for message in await installation.messages())
    assert found == Counter(call.says for call in calls)
    accepted = {answer.json()["id"] for given in answers.values() for answer in given}
    outcomes = await installation.rows("SELECT input_id, outcome FROM ingest.outcome")
    assert accepted <= {row["input_id"] for row in outcomes if row["outcome"] == "message"}
    told = Counter(row["outcome"] for row in outcomes)
    assert told == {"message": INPUTS + 1, "duplicate": len(again)}
    assert not await installation.rows("SELECT 1 FROM ingest.parked")
    installation.figures.append(
        f"{len(accepted)} inputs accepted, {told['message']} messages, {told['duplicate']} known"
    )


NESTED = b"[" * 100_000 + b"]" * 100_000
POISON: dict[str, bytes] = {
    "garbage": b"\x00\xff\xfe not json",
    "empty": b"",
    "no object": b'"a text"',
    "NUL in the text": b'{"email":"a@example.com","message":"\\u0000"}',
    "lone surrogate": b'{"email":"a@example.com","message":"\\ud800"}',
    "10^5 deep": b'{"email":"a@example.com","message":"m","extra":' + NESTED + b"}",
    "1e999": b'{"email":"a@example.com","message":1e999}',
    "6,000 digits": b'{"email":"a@example.com","message":' + b"9" * 6_000 + b"}",
    "not UTF-8": b'{"email":"a@example.com","message":"\xff"}',
    "no such address": b'{"email":"a@b@c","message":"m"}',
    "an unknown field": b'{"email":"a@example.com","message":"m","is_admin":true}',
    "too large": b'{"email":"a@example.com","message":"' + b"m" * 300_000 + b'"}',
}


def _poison_in_the_log(rng: random.Random) -> dict[str, tuple[bytes | None, list[Any]]]:
    """Records that anybody with access to the broker could write to `inbound`."""

    def named(kind: bytes) -> list[Any]:
        return envelope(type=kind, id=f"p{rng.randrange(10**9)}".encode())

    def delivery(body: bytes) -> bytes:
        return json.dumps(
            {
                "input_id": f"poison-{rng.randrange(10**9)}",
                "channel": "form",
                "account": "contact",
                "headers": {"content-type": "application/json"},
                "body_base64": base64.b64encode(body).decode(),
                "received_at": "2026-11-24T08:00:00Z",
            }
        ).encode()

    received, submitted = b"inbound.received.v1", b"message.submitted.v1"
    found: dict[str, tuple[bytes | None, list[Any]]] = {
        f"delivered {what}": (delivery(body), named(received))
        for what, body in POISON.items()
        if what not in {"NUL in the text", "lone surrogate", "too large"}
    }
    found |= {f"submitted {what}": (body, named(submitted)) for what, body in POISON.items()}
    found["null value"] = (None, named(received))
    found["no headers"] = (delivery(b"{}"), [])
    found["no base64"] = (
        delivery(b"{}").replace(b'"e30="', b'"%%%"'),
        named(received),
    )
    found["no such stored body"] = (
        delivery(b"").replace(b'"body_base64": ""', b'"body_ref": "beef"'),
        named(received),
    )
    found["NUL in an id"] = (
        delivery(b'{"email":"a@example.com","message":"m"}').replace(b"poison-", b"\\u0000"),
        named(received),
    )
    found["a channel unknown"] = (
        delivery(b"{}").replace(b'"form"', b'"pigeon"'),
        named(received),
    )
    return found


async def test_poisonous_requests_are_refused_and_poisonous_records_parked_beside_good_ones(
    install: Install,
) -> None:
    installation = await install("poisoned")
    rng = installation.rng
    calls = [_form(n, f"Good input number {n}") for n in range(60)]
    producer = AIOKafkaProducer(
        bootstrap_servers=installation.servers.kafka.bootstrap,
        acks="all",
        enable_idempotence=True,
        max_request_size=1_040_000,
    )
    await producer.start()
    accepted: dict[str, float] = {}
    places: dict[tuple[int, int], tuple[str, bytes | None]] = {}
    topic = installation.prefix + "inbound"
    refused: Counter[str] = Counter()

    async def good() -> None:
        for call in calls:
            answer = await installation.send(call)
            assert answer.status_code == 202
            accepted[answer.json()["id"]] = wall()
            await asyncio.sleep(rng.uniform(0.01, 0.08))

    async def bad_requests() -> None:
        for what, body in POISON.items():
            call = Call("/v1/forms/contact", body, {"content-type": "application/json"}, "")
            answer = await installation.send(call)
            assert 400 <= answer.status_code < 500, f"{what}: {answer.status_code}"
            assert answer.headers["content-type"] == "application/problem+json", what
            assert answer.json()["field"], what
            refused[what] += 1

    async def bad_records() -> None:
        for what, (value, headers) in _poison_in_the_log(rng).items():
            # Beside good ones: under the key of a correspondent who also sends good forms.
            key = f"poison-{rng.randrange(100)}"
            number = partition_of(key, PARTITIONS)
            sent = await producer.send_and_wait(
                topic, value, key=key.encode(), partition=number, headers=headers
            )
            places[number, sent.offset] = what, value
            await asyncio.sleep(rng.uniform(0.02, 0.12))
        number = rng.randrange(PARTITIONS)
        offset = await asyncio.to_thread(
            publish_raw,
            installation.servers.kafka.bootstrap,
            topic,
            number,
            key=b"k",
            value=b"v",
            headers=[(b"\xff\xfe", b"x")],
            timestamp_ms=int(wall() * 1000),
        )
        places[number, offset] = "a header key not UTF-8", None

    try:
        await asyncio.gather(good(), bad_requests(), bad_records())
        event = Envelope(
            type="message.submitted.v1", source="shop", id="good", time=datetime.now(UTC)
        )
        await producer.send_and_wait(
            topic,
            b'{"sender":{"address":"ada@example.com"},"text":"A good event among poison"}',
            partition=0,
            headers=list(event.to_headers()),
        )
    finally:
        await producer.stop()
    installation.evidence.append(
        f"{sum(refused.values())} poisonous requests refused, {len(places)} poisonous records sent"
    )
    await installation.rest()

    says = Counter(_says(message) for message in await installation.messages())
    assert says == Counter([*(call.says for call in calls), "A good event among poison"])
    parked = {
        (row["part"], row["log_offset"]): row
        for row in await installation.rows("SELECT * FROM ingest.parked")
    }
    assert {place: what for place, (what, _) in places.items() if place not in parked} == {}
    assert set(parked) == set(places), "a good record was parked"
    for place, (what, value) in places.items():
        assert parked[place]["value"] == value or what == "a header key not UTF-8", what
        assert parked[place]["reason"], what
        assert parked[place]["error"], what
    rows = await installation.rows(
        "SELECT input_id, extract(epoch FROM at)::float8 AS at FROM ingest.outcome"
    )
    waited = max(
        row["at"] - accepted[row["input_id"]] for row in rows if row["input_id"] in accepted
    )
    installation.figures.append(
        f"{len(calls)} good inputs beside {len(places)} poisonous records: decided"
        f" {waited:.2f} s after their 202 at most"
    )
    assert waited <= NEIGHBOUR_SECONDS * NOISE
