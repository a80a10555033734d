"""What ingest promises of the whole way in: I1, I8, and what no single part can show alone.

A real Kafka and PostgreSQL, a real IMAP server, the gateway's application behind real HTTP with its spool and numberer,
the normaliser in the chassis' worker; what is told is read back from the topics. One test has processes of
the gateway, which it kills.

`SIGNALBOX_PROMISES=full` runs I8 in the size that its text names (1,000 malformed among 100,000; else a tenth), and a
test that kills and starts a broker of its own.
"""

import asyncio
import base64
import contextlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from imapclient import IMAPClient

from chassis.batch import partition_of
from chassis.bus import group_id
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.local.kafka import start_kafka
from chassis.local.processes import free_port
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.spool import Numberer, Spool
from chassis.task import Worker
from chassis.topics import apply_topics
from chassis.web import serve
from schemas.deadletters import DeadLetterParked
from schemas.envelope import Envelope
from schemas.inbound import InboundReceived
from schemas.messages import MessageReceived, MessageRevised
from services.ingest import webhooks
from services.ingest.adapters.accounts import PublishedKeys
from services.ingest.adapters.imap import ImapPoller
from services.ingest.adapters.secrets import Secrets
from services.ingest.api import Deps, create_app
from services.ingest.core.policy import ImapSource
from services.ingest.handlers import POLICY, NormaliserStage
from services.ingest.settings import IngestSettings
from tests.integration.kit import PARTITIONS, MakeTopic, read_topic, until

ROOT = Path(__file__).parents[2]
SQL = ROOT / "services" / "ingest" / "sql"
FIXTURES = ROOT / "tests" / "fixtures" / "ingest"
TOPICS = ("inbound", "messages", "commands", "roster", "dead-letters")
NEIGHBOUR_SECONDS = 2.0
FULL = os.environ.get("SIGNALBOX_PROMISES", "") == "full"
RECORDS, MALFORMED_EVERY = (100_000 if FULL else 10_000), 100
USER, PASSWORD = "support", "a-password-of-the-tests"

# ---------------------------------------------------------------------------------- vendors that sign


def _hmac(key: str, said: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(key.encode(), said, algorithm).digest()


def _zendesk(key: str, body: bytes) -> dict[str, str]:
    stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "X-Zendesk-Webhook-Signature": base64.b64encode(_hmac(key, stamp.encode() + body)).decode(),
        "X-Zendesk-Webhook-Signature-Timestamp": stamp,
    }


def _slack(key: str, body: bytes) -> dict[str, str]:
    stamp = str(int(time.time()))
    made = _hmac(key, f"v0:{stamp}:".encode() + body).hex()
    return {"X-Slack-Signature": f"v0={made}", "X-Slack-Request-Timestamp": stamp}


def _meta(key: str, body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={_hmac(key, body).hex()}"}


def _helpscout(key: str, body: bytes) -> dict[str, str]:
    made = base64.b64encode(_hmac(key, body, "sha1")).decode()
    return {"X-HelpScout-Signature": made, "X-HelpScout-Event": "convo.created"}


def _intercom(key: str, body: bytes) -> dict[str, str]:
    return {"X-Hub-Signature": f"sha1={_hmac(key, body, 'sha1').hex()}"}


def _discourse(key: str, body: bytes) -> dict[str, str]:
    return {
        "X-Discourse-Event-Signature": f"sha256={_hmac(key, body).hex()}",
        "X-Discourse-Event-Type": "post",
        "X-Discourse-Event": "post_created",
        "X-Discourse-Event-Id": "4711",
        "X-Discourse-Instance": "https://forum.example.com",
    }


def _telegram(key: str, body: bytes) -> dict[str, str]:
    return {"X-Telegram-Bot-Api-Secret-Token": key}


class Vendor(NamedTuple):
    """A vendor: how it signs what it sends, and a recorded delivery of one message."""

    channel: str
    case: str
    sign: Callable[[str, bytes], dict[str, str]]

    @property
    def body(self) -> Any:
        """The recorded delivery."""
        return fixture(self.channel, self.case)

    @property
    def secret(self) -> str:
        """The secret of the vendor's recorded requests."""
        cases = json.loads((FIXTURES / self.channel / "verify.json").read_text("utf-8"))
        return str(next(one["secrets"]["secret"] for one in cases if one["accepted"]))


def fixture(channel: str, case: str) -> Any:
    return json.loads((FIXTURES / channel / f"{case}.json").read_text("utf-8"))["body"]


VENDORS = {
    one.channel: one
    for one in (
        Vendor("zendesk", "comment_of_a_customer", _zendesk),
        Vendor("slack", "message", _slack),
        Vendor("whatsapp", "text_without_number", _meta),
        Vendor("messenger", "text_with_picture_in_reply", _meta),
        Vendor("helpscout", "conversation_created", _helpscout),
        Vendor("intercom", "conversation_begun_by_a_customer", _intercom),
        Vendor("discourse", "post_created", _discourse),
        Vendor("telegram", "message", _telegram),
    )
}
CHANNELS = "mail: {support: {addresses: [support@lantern-oak.example]}}\nchannels:\n" + "".join(
    f"  {name}: {{channel: {name}, secret: 'env:PROMISES_{name.upper()}'}}\n" for name in VENDORS
)


# ------------------------------------------------------------------------------------ the whole way in


@dataclass
class World:
    """Ingest in this process: what is sent to it, and what it says."""

    settings: IngestSettings
    pool: asyncpg.Pool
    spool: Spool
    http: httpx.AsyncClient
    ends: AIOKafkaConsumer | None = field(default=None, repr=False)

    async def post(
        self,
        channel: str,
        body: Any,
        headers: Mapping[str, str] | None = None,
        *,
        raw: bytes | None = None,
    ) -> int:
        """Send a delivery as its vendor would, freshly signed; return the status of the answer."""
        vendor = VENDORS[channel]
        sent = json.dumps(body).encode() if raw is None else raw
        answer = await self.http.post(
            f"/v1/channels/{channel}/{channel}",
            content=sent,
            headers={
                "content-type": "application/json",
                **vendor.sign(vendor.secret, sent),
                **(headers or {}),
            },
        )
        return answer.status_code

    async def delivered(
        self, channel: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send a delivery that is accepted."""
        assert await self.post(channel, body, headers) in (200, 202, 204), channel

    async def end_of_inbound(self) -> int:
        """How many records have been published to `inbound`."""
        if self.ends is None:
            self.ends = AIOKafkaConsumer(
                bootstrap_servers=self.settings.kafka, enable_auto_commit=False
            )
            await self.ends.start()
        topic = self.settings.topic("inbound")
        found = await self.ends.end_offsets([TopicPartition(topic, n) for n in range(PARTITIONS)])
        return sum(found.values())

    async def rest(self, seconds: float = 20.0) -> None:
        """Wait until all that was accepted is published, read, decided and told."""

        async def is_at_rest() -> bool:
            row = await self.pool.fetchrow(
                "SELECT (SELECT count(*) FROM spool) + (SELECT count(*) FROM outbox) AS owed,"
                " (SELECT coalesce(sum((offsets->>'inbound')::bigint), 0) FROM lease"
                " WHERE stage = 'ingest.normaliser') AS read"
            )
            assert row is not None
            return bool(row["owed"] == 0 and row["read"] == await self.end_of_inbound())

        await until("all is published, read and told", is_at_rest, seconds)

    async def told(self) -> list[MessageReceived | MessageRevised]:
        """What stands on `messages`, partition after partition; what was published again has the same number."""
        await self.rest()
        found: dict[tuple[str, int, int], MessageReceived | MessageRevised] = {}
        for envelope, event, record in await read_topic(self.settings, "messages"):
            assert envelope.sequence is not None
            if isinstance(event, MessageReceived | MessageRevised):
                first = found.setdefault(
                    (envelope.source, record.partition, envelope.sequence), event
                )
                assert first == event, "one number, two events"
        return list(found.values())

    async def outcomes(self) -> Counter[str]:
        rows = await self.pool.fetch("SELECT outcome, count(*) AS n FROM outcome GROUP BY outcome")
        return Counter({row["outcome"]: row["n"] for row in rows})

    async def counts(self) -> dict[str, int]:
        """The normaliser's books, over all partitions."""
        row = await self.pool.fetchrow(
            "SELECT sum(n_applied)::bigint AS applied, sum(n_duplicate)::bigint AS duplicate,"
            " sum(n_ignored)::bigint AS ignored, sum(n_parked)::bigint AS parked FROM lease"
            " WHERE stage = 'ingest.normaliser'"
        )
        assert row is not None
        return dict(row)

    async def replay(self) -> int:
        """Publish every record of `inbound` again: to the byte, and as another system would, without our sequence."""
        await self.rest()
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.kafka, acks="all")
        await consumer.start()
        await producer.start()
        topic = self.settings.topic("inbound")
        count = 0
        try:
            partitions = [TopicPartition(topic, n) for n in range(PARTITIONS)]
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            for one in partitions:
                while await consumer.position(one) < ends[one]:
                    for record in (await consumer.getmany(one, timeout_ms=500)).get(one, []):
                        if record.offset >= ends[one]:
                            continue
                        bare = [
                            (name, b"replayed" if name == "ce_source" else value)
                            for name, value in record.headers
                            if name != "ce_sequence"
                        ]
                        for headers in (list(record.headers), bare):
                            await producer.send_and_wait(
                                topic,
                                record.value,
                                key=record.key,
                                partition=record.partition,
                                headers=headers,
                            )
                        count += 1
        finally:
            await consumer.stop()
            await producer.stop()
        return count


@contextlib.asynccontextmanager
async def at_work(*parts: Any) -> AsyncIterator[None]:
    """Parts that run until the end."""
    running = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@contextlib.asynccontextmanager
async def normalising(settings: IngestSettings, policies: PolicyHolder[Any]) -> AsyncIterator[None]:
    """The normaliser at work, owning every partition."""
    pool = await open_pool(settings.dsn, "ingest", 4, "test")
    worker = Worker(NormaliserStage(policies, settings), settings, pool, SystemClock())
    try:
        await worker.start()
        await until(
            "all tasks are owned",
            lambda: (
                len(worker.tasks) == PARTITIONS
                and all(task.epoch for task in worker.tasks.values())
            ),
        )
        yield
    finally:
        await worker.stop()
        await pool.close()


@contextlib.asynccontextmanager
async def ingesting(
    bootstrap: str,
    dsn: str,
    prefix: str,
    folder: Path,
    *,
    broker_of_the_numberer: str | None = None,
) -> AsyncIterator[World]:
    """All of ingest in this process, behind HTTP."""
    await migrate(dsn, "ingest", [SQL])
    (folder / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    settings = IngestSettings(
        kafka=bootstrap,
        database_url=dsn,  # type: ignore[arg-type]
        partitions=PARTITIONS,
        topic_prefix=prefix,
        session_timeout_seconds=6.0,
        policy=folder,
        token_secret="t" * 40,  # type: ignore[arg-type]
    )
    published = settings.model_copy(update={"kafka": broker_of_the_numberer or bootstrap})
    policies = PolicyHolder(folder, POLICY)
    secrets = Secrets()
    pool = await open_pool(settings.dsn, "ingest", 8, "test")
    spool = Spool(pool, settings)
    app = create_app(Deps(spool, policies, SystemClock(), secrets))
    webhooks.mount(
        app,
        webhooks.Webhooks(
            spool=spool,
            policies=policies,
            clock=SystemClock(),
            secrets=secrets,
            keys=PublishedKeys(),
            workspace=settings.workspace,
            body_bytes_max=settings.channel_body_bytes_max,
            body_seconds=settings.gateway_body_seconds,
        ),
    )
    bound: list[int] = []
    stopping = asyncio.Event()
    serving = asyncio.create_task(serve(app, "127.0.0.1", 0, stopping, on_bound=bound.append))
    world: World | None = None
    try:
        await until("the gateway listens", lambda: bound)
        async with (
            httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{bound[0]}", timeout=20.0, trust_env=False
            ) as http,
            at_work(spool, Numberer(pool, published, SystemClock(), spool)),
            normalising(settings, policies),
        ):
            world = World(settings, pool, spool, http)
            yield world
    finally:
        if world is not None and world.ends is not None:
            await world.ends.stop()
        stopping.set()
        await serving
        await pool.close()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendors' secrets, where the policy says they are."""
    for name, vendor in VENDORS.items():
        monkeypatch.setenv(f"PROMISES_{name.upper()}", vendor.secret)
    monkeypatch.setenv("PROMISES_IMAP", PASSWORD)


@pytest.fixture
async def world(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> AsyncIterator[World]:
    for name in TOPICS:
        await make_topic(name, partitions=PARTITIONS)
    async with ingesting(bootstrap, database, topic_prefix, tmp_path) as made:
        yield made


# -------------------------------------------------------------------------------------- a real mailbox


@dataclass
class Mailbox:
    """A mailbox on an IMAP server of the test's own."""

    port: int

    def append(self, *mails: bytes) -> None:
        """Put mails into it, as a mail server would."""
        with IMAPClient("127.0.0.1", port=self.port, ssl=False) as client:
            client.login(USER, PASSWORD)
            for raw in mails:
                client.append("INBOX", raw)

    def last_uid(self) -> int:
        """The number of the last mail in it."""
        with IMAPClient("127.0.0.1", port=self.port, ssl=False) as client:
            client.login(USER, PASSWORD)
            client.select_folder("INBOX", readonly=True)
            return int(max(client.search()))


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    """A real IMAP server (pymap, in memory), with one empty mailbox."""
    port = free_port()
    process = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("pymap")),
            *("--host", "127.0.0.1", "--port", str(port), "--no-tls"),
            *("--no-service", "admin", "--no-service", "managesieve"),
            *("dict", "--demo-user", USER, "--demo-password", PASSWORD),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None, "the IMAP server has ended"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline, "the IMAP server does not listen"
            time.sleep(0.02)
        yield Mailbox(port)
    finally:
        process.terminate()
        process.wait(10)


def mail(n: int, **headers: str) -> bytes:
    lines = {
        "From": f"Customer {n} <c{n % 7}@example.com>",
        "To": "support@lantern-oak.example",
        "Subject": f"Lamp {n}",
        "Date": "Tue, 24 Nov 2026 11:00:00 +0000",
        "Message-ID": f"<mail-{n}@example.com>",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{head}\r\nWhere is lamp number {n}?\r\n".encode()


def poller_of(world: World, mailbox: Mailbox) -> ImapPoller:
    source = ImapSource(
        host="127.0.0.1",
        port=mailbox.port,
        security="none",
        user=USER,
        password="env:PROMISES_IMAP",
        start="all",
        poll_seconds=1,
    )
    return ImapPoller(
        "support",
        source,
        spool=world.spool,
        pool=world.pool,
        clock=SystemClock(),
        secrets=Secrets(),
        workspace=world.settings.workspace,
        poll_seconds=1.0,
    )


async def last_uid(pool: asyncpg.Pool) -> int:
    return int(await pool.fetchval("SELECT coalesce(max(last_uid), 0) FROM mailbox_cursor"))


@contextlib.asynccontextmanager
async def polling(poller: ImapPoller) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    running = asyncio.create_task(poller.run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(running, 20)


# ------------------------------------------------------------------------------------------------- I1


async def test_i1_one_mail_by_imap_retry_second_copy_and_replay_is_one_message(
    world: World, mailbox: Mailbox
) -> None:
    """I1: read again after a crash before the cursor moved, put into the mailbox again, and replayed from the log."""
    mailbox.append(mail(1))
    async with polling(poller_of(world, mailbox)):
        await until("the mail was read", lambda: last_uid(world.pool))
    first = await last_uid(world.pool)
    (told,) = await world.told()
    # The crash between spool and cursor: the cursor stands before the mail, which is in the log already.
    await world.pool.execute("UPDATE mailbox_cursor SET last_uid = $1", first - 1)
    async with polling(poller_of(world, mailbox)):

        async def is_read_again() -> bool:
            return await last_uid(world.pool) == first

        await until("the mail was read again", is_read_again)
    assert await world.end_of_inbound() == 1, "the same mail was taken in as another input"
    # The same mail by another road, under a number of its own.
    mailbox.append(mail(1))
    async with polling(poller_of(world, mailbox)):

        async def is_copy_read() -> bool:
            return await last_uid(world.pool) > first

        await until("the copy was read", is_copy_read)
    assert await world.replay() == 2
    assert await world.told() == [told]
    assert await world.outcomes() == {"message": 1, "duplicate": 1}
    counts = await world.counts()
    assert sum(counts.values()) == await world.end_of_inbound()
    # Applied once; the copy known by its name; two repeated to the byte, two by another's hand.
    assert counts == {"applied": 1, "duplicate": 2, "ignored": 3, "parked": 0}


async def test_i1_each_vendors_delivery_sent_three_times_written_anew_and_replayed_is_one_message(
    world: World,
) -> None:
    """I1: retries with fresh signatures, some at once, once as other bytes, and a replay of the inbound record."""
    for channel, vendor in VENDORS.items():
        body = vendor.body
        await world.delivered(channel, body)
        retries = [
            world.delivered(channel, body, {"x-slack-retry-num": str(n)}) for n in range(1, 3)
        ]
        await asyncio.gather(*retries)
        # A retry that the vendor's sender wrote anew: other bytes, the same message.
        spaced = json.dumps(body, indent=1).encode()
        assert await world.post(channel, body, raw=spaced) in (200, 202, 204), channel
    told = await world.told()
    by_channel = Counter(event.content.channel for event in told)
    assert by_channel == dict.fromkeys(VENDORS, 1)
    assert await world.replay() > len(VENDORS)
    assert [event.message_id for event in await world.told()] == [one.message_id for one in told]
    outcomes = await world.outcomes()
    assert outcomes["message"] == len(VENDORS)
    assert outcomes.keys() <= {"message", "duplicate"}
    counts = await world.counts()
    assert sum(counts.values()) == await world.end_of_inbound()
    assert counts["applied"] == len(VENDORS)
    assert counts["parked"] == 0


# --------------------------------------------------------------------------- many updates, edits, order


async def test_one_post_with_many_updates_is_many_messages_acknowledged_as_a_whole(
    world: World,
) -> None:
    """One answer for all: nothing is told of a post that was not stored, everything of one that was, once."""
    body = fixture("messenger", "batch_of_two_pages_worth_of_updates")
    broken = json.loads(json.dumps(body))
    broken["entry"][1]["messaging"][0]["message"] = {"mid": 7, "text": ["no text"]}
    broken["entry"][0]["messaging"][0]["message"]["mid"] = "m_other"
    broken["entry"][1]["messaging"][1]["postback"]["mid"] = "m_another"
    refused = await world.http.post(
        "/v1/channels/messenger/messenger",
        json=body,
        headers={"X-Hub-Signature-256": "sha256=" + "0" * 64},
    )
    assert refused.status_code in (401, 403)
    assert await world.told() == []
    for _ in range(3):
        await world.delivered("messenger", body)
    told = await world.told()
    assert sorted(event.content.vendor_message_id for event in told) == ["m_b1", "m_b2", "m_b3"]
    assert len({event.input_id for event in told}) == 1, "they came with one input"
    # One update that cannot be read keeps none of the others back, and is kept itself.
    await world.delivered("messenger", broken)
    told = await world.told()
    assert {event.content.vendor_message_id for event in told} == {
        *("m_b1", "m_b2", "m_b3", "m_other", "m_another")
    }
    (parked,) = await world.pool.fetch("SELECT reason, value FROM parked")
    assert parked["reason"] == "unparsable_body"
    inner = base64.b64decode(json.loads(parked["value"])["body_base64"])
    assert json.loads(inner)["message"]["text"] == ["no text"]


def _telegram_update(change: str, text: str, update: int) -> Any:
    body = json.loads(json.dumps(fixture("telegram", "message" if change == "new" else "edited")))
    body["update_id"] = update
    inner = body["message" if change == "new" else "edited_message"]
    inner["text"] = text
    inner["message_id"] = 31
    return body


async def test_edits_and_removals_in_and_out_of_order_are_told_once_as_revisions(
    world: World,
) -> None:
    """Slack in order, Telegram with the edit first, WhatsApp with two changes in one post; all of it sent twice."""
    for _ in range(2):
        for case in ("message", "edited", "deleted"):
            body = json.loads(json.dumps(fixture("slack", case)))
            body["event_id"] = f"Ev-{case}"
            await world.delivered("slack", body)
        await world.rest()
    slack = [event for event in await world.told() if event.content.channel == "slack"]
    assert [(type(event), event.content.change) for event in slack] == [
        (MessageReceived, "new"),
        (MessageRevised, "edited"),
        (MessageRevised, "deleted"),
    ]
    assert len({event.message_id for event in slack}) == 1
    assert len({event.conversation_id for event in slack}) == 1
    # The edit overtakes its message: the later words stand, the earlier ones are known.
    await world.delivered("telegram", _telegram_update("edited", "the later words", 2))
    await world.delivered("telegram", _telegram_update("new", "the earlier words", 1))
    await world.delivered("telegram", _telegram_update("edited", "the last words", 3))
    telegram = [event for event in await world.told() if event.content.channel == "telegram"]
    assert [(type(event), event.content.text) for event in telegram] == [
        (MessageReceived, "the later words"),
        (MessageRevised, "the last words"),
    ]
    # Changes before any message: the edit is the message, and a removal keeps out what comes after it.
    changes = fixture("whatsapp", "edit_and_removal")
    await world.delivered("whatsapp", changes)
    await world.delivered("whatsapp", fixture("whatsapp", "reply_and_forward"))
    removal = json.loads(json.dumps(changes))
    del removal["entry"][0]["changes"][0]["value"]["messages"][0]
    for _ in range(2):
        await world.delivered("whatsapp", removal)
    whatsapp = [event for event in await world.told() if event.content.channel == "whatsapp"]
    assert Counter(
        (type(event), event.content.change, event.content.vendor_message_id) for event in whatsapp
    ) == {
        (MessageReceived, "edited", "wamid.RPL"): 1,
    }


# ------------------------------------------------------------------------------------------------- I8


def _inbound(n: int, body: bytes, channel: str = "form", account: str = "contact") -> bytes:
    return InboundReceived(
        input_id=f"in-{n}",
        channel=channel,
        account=account,
        headers={"content-type": "application/json"},
        body_base64=base64.b64encode(body).decode(),
        received_at=SystemClock().now(),
    ).to_json()


def _says(n: int) -> bytes:
    text = f"Message number {n} asks for a lamp"
    return json.dumps({"email": f"c{n % 977}@example.com", "message": text}).encode()


Made = tuple[bytes | None, list[tuple[str, bytes]]]


def _poison(n: int) -> tuple[str, Made]:
    """The malformed record number `n`: the reason it is to be set aside for, and the record."""
    good = _inbound(n, _says(n))
    fine = _headers(n)

    def changed(**attributes: bytes) -> list[tuple[str, bytes]]:
        return [(name, attributes.get(name.removeprefix("ce_"), value)) for name, value in fine]

    kinds: list[tuple[str, Made]] = [
        ("unparsable_body", (_inbound(n, b"\x00\xff\xfe not json"), fine)),
        ("unparsable_body", (_inbound(n, b'{"email":"a@example.com"}'), fine)),
        ("unparsable_body", (_inbound(n, b"[" * 50_000), fine)),
        ("unparsable_body", (_inbound(n, b'{"email":1e999,"message":"m"}'), fine)),
        (
            "unparsable_body",
            (_inbound(n, b'{"email":"a@b","message":' + b"9" * 6_000 + b"}"), fine),
        ),
        ("unparsable_body", (_inbound(n, b"\x00\xff" * 40, "email", "support"), fine)),
        ("invalid_payload", (b"\x00\xff\xfe not json", fine)),
        ("invalid_payload", (good[: len(good) // 2], fine)),
        ("invalid_payload", (b"{}", fine)),
        ("invalid_payload", (good.replace(b'"received_at":"', b'"received_at":"x'), fine)),
        ("invalid_envelope", (good, [])),
        ("invalid_envelope", (good, changed(time=b"2026-02-30T25:61:61Z"))),
        ("unknown_type", (good, changed(type=b"inbound.never.v9"))),
        ("no_sequence", (good, changed(source=b"signalbox/ingest.gateway/%d"))),
    ]
    reason, (value, headers) = kinds[(n // MALFORMED_EVERY) % len(kinds)]
    return reason, (value, headers)


def _headers(n: int) -> list[tuple[str, bytes]]:
    made = Envelope(
        type=InboundReceived.TYPE,
        source="test/driver",
        id=f"e-{n}",
        time=SystemClock().now(),
        partitionkey=f"form/contact/c{n % 977}@example.com",
    )
    return [(name, value or b"") for name, value in made.to_headers()]


async def _lag(world: World) -> int:
    """How far the group's committed offsets are behind the end of `inbound`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=world.settings.kafka)
    await admin.start()
    try:
        group = group_id(world.settings.topic_prefix, "ingest.normaliser", ["inbound"])
        found = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    return await world.end_of_inbound() - sum(int(one.offset) for one in found.values())


@pytest.mark.timeout(900 if FULL else 120)
async def test_i8_malformed_records_among_good_ones_are_set_aside_with_reasons_and_keep_nobody(
    world: World,
) -> None:
    """I8 with F22: each is quarantined with its bytes and its reason, the lag returns to nothing, the books balance, and no
    neighbour waits more than two seconds from its publication to its decision.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=world.settings.kafka, acks="all", linger_ms=5, max_request_size=1_000_000
    )
    await producer.start()
    topic = world.settings.topic("inbound")
    expected: Counter[str] = Counter()
    places: dict[tuple[int, int], tuple[str, bytes | None]] = {}
    published: dict[str, datetime] = {}
    sent: Counter[str] = Counter()
    # As much at a time as keeps the normaliser busy: a queue of the test's own making is no delay of its neighbours'.
    slice_size = 250
    try:
        for start in range(0, RECORDS, slice_size):
            numbers = range(start, min(start + slice_size, RECORDS))
            waiting = []
            for n in numbers:
                key = f"form/contact/c{n % 977}@example.com"
                part = partition_of(key, PARTITIONS)
                if n % MALFORMED_EVERY == MALFORMED_EVERY // 2:
                    reason, (value, headers) = _poison(n)
                    if reason == "no_sequence":
                        headers = [
                            (name, f"signalbox/ingest.gateway/{part}".encode())
                            if name == "ce_source"
                            else (name, one)
                            for name, one in headers
                        ]
                    sent["malformed"] += 1
                elif n % 50 == 7:  # Somebody publishes it again: the same input.
                    reason, value, headers = "", _inbound(n - 1, _says(n - 1)), _headers(n)
                    sent["again"] += 1
                elif n % 50 == 9:  # An order's mail of a machine, which opens no conversation.
                    raw = mail(n, **{"Auto-Submitted": "auto-generated"})
                    reason, value, headers = "", _inbound(n, raw, "email", "support"), _headers(n)
                    sent["automatic"] += 1
                else:
                    reason, value, headers = "", _inbound(n, _says(n)), _headers(n)
                    sent["good"] += 1
                if not reason and value is not None:
                    published[f"in-{n}"] = SystemClock().now()
                if n % 50 == 7 and not reason:
                    part = partition_of(f"form/contact/c{(n - 1) % 977}@example.com", PARTITIONS)
                future = await producer.send(
                    topic, value, key=key.encode(), partition=part, headers=headers
                )
                waiting.append((future, reason, value))
            await producer.flush()
            for future, reason, value in waiting:
                record = await future
                if reason:
                    expected[reason] += 1
                    places[record.partition, record.offset] = reason, value

            async def is_read(goal: int = start + len(numbers)) -> bool:
                read = await world.pool.fetchval(
                    "SELECT coalesce(sum((offsets->>'inbound')::bigint), 0) FROM lease"
                    " WHERE stage = 'ingest.normaliser'"
                )
                return int(read) >= goal

            await until("the slice was read", is_read)
    finally:
        await producer.stop()
    await world.rest()

    parked = await world.pool.fetch("SELECT part, log_offset, reason, error, value FROM parked")
    assert {(row["part"], row["log_offset"]): row["reason"] for row in parked} == {
        place: reason for place, (reason, _) in places.items()
    }
    for row in parked:
        assert row["error"]
        assert row["value"] == places[row["part"], row["log_offset"]][1]
    letters = [event for _, event, _ in await read_topic(world.settings, "dead-letters")]
    assert Counter(one.reason for one in letters if isinstance(one, DeadLetterParked)) == expected
    assert len(letters) == sent["malformed"] == RECORDS // MALFORMED_EVERY

    async def has_no_lag() -> bool:
        return await _lag(world) == 0

    await until("the lag is nothing", has_no_lag)

    counts = await world.counts()
    outcomes = await world.outcomes()
    assert sum(counts.values()) == RECORDS == await world.end_of_inbound()
    assert counts["parked"] == sent["malformed"]
    assert counts["applied"] == outcomes["message"] == sent["good"]
    assert counts["ignored"] == sent["again"] + sent["automatic"]
    assert outcomes["ignored"] == sent["automatic"]
    told = await world.told()
    assert len(told) == len({event.message_id for event in told}) == sent["good"]

    rows = await world.pool.fetch("SELECT input_id, at FROM outcome")
    waited = {row["input_id"]: (row["at"] - published[row["input_id"]]).total_seconds()
              for row in rows}  # fmt: skip
    slowest = max(waited.values())
    print(
        f"I8: {RECORDS} records, {sent['malformed']} malformed; the slowest waited {slowest:.2f} s"
    )
    assert slowest <= NEIGHBOUR_SECONDS


# ------------------------------------------------------------------------------ Kafka away, and a kill


@pytest.fixture
async def own_kafka(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A broker of this test's own, which it may kill."""
    monkeypatch.delenv("SIGNALBOX_KAFKA", raising=False)
    monkeypatch.setenv("SIGNALBOX_DOCKER", "no")
    directory = Path(tempfile.mkdtemp(prefix="signalbox-promises-"))
    server = await asyncio.to_thread(start_kafka, directory)
    yield server
    await asyncio.to_thread(server.remove)
    shutil.rmtree(directory, ignore_errors=True)


async def _accepted_without_a_broker(world: World, numbers: range) -> None:
    for n in numbers:
        began = time.monotonic()
        await world.delivered("telegram", _telegram_message(n))
        assert time.monotonic() - began < 5.0, "an answer waited for the broker"
    owed = await world.pool.fetchval(
        "SELECT (SELECT count(*) FROM spool) + (SELECT count(*) FROM outbox)"
    )
    assert owed == len(numbers)


async def _told_in_order(world: World, count: int) -> None:
    await world.rest(60.0)
    told = await world.told()
    assert [event.content.text for event in told] == [f"Message {n}" for n in range(count)]
    assert len({event.conversation_id for event in told}) == 1
    numbers = {envelope.sequence for envelope, _, _ in await read_topic(world.settings, "inbound")}
    assert numbers == set(range(1, count + 1)), "a number was left out or given twice"


async def test_webhooks_accepted_while_no_broker_answers_are_published_in_order_afterwards(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """2xx means durable, with a broker or without one; what waited comes before what came later."""
    for name in TOPICS:
        await make_topic(name, partitions=PARTITIONS)
    nowhere = f"127.0.0.1:{free_port()}"
    async with ingesting(
        bootstrap, database, topic_prefix, tmp_path, broker_of_the_numberer=nowhere
    ) as world:
        await _accepted_without_a_broker(world, range(30))
    async with ingesting(bootstrap, database, topic_prefix, tmp_path) as world:
        await world.delivered("telegram", _telegram_message(30))
        await _told_in_order(world, 31)


@pytest.mark.skipif(not FULL, reason="SIGNALBOX_PROMISES=full kills and starts a broker of its own")
@pytest.mark.timeout(240)
async def test_webhooks_accepted_while_the_broker_is_killed_are_published_in_order_afterwards(
    own_kafka: Any, database: str, topic_prefix: str, tmp_path: Path
) -> None:
    """The same with a broker that was there, is killed under the running gateway, and comes back."""
    async with _with_topics(own_kafka.bootstrap, database, topic_prefix, tmp_path) as world:
        await world.delivered("telegram", _telegram_message(0))
        await world.rest()
        await asyncio.to_thread(own_kafka.kill)
        assert not own_kafka.is_alive()
        await _accepted_without_a_broker(world, range(1, 31))
        await asyncio.to_thread(own_kafka.start)
        await world.delivered("telegram", _telegram_message(31))
        await _told_in_order(world, 32)


def _telegram_message(n: int) -> Any:
    body = _telegram_update("new", f"Message {n}", 1000 + n)
    body["message"]["message_id"] = 100 + n
    return body


@contextlib.asynccontextmanager
async def _with_topics(bootstrap: str, dsn: str, prefix: str, folder: Path) -> AsyncIterator[World]:
    settings = IngestSettings(
        kafka=bootstrap,
        database_url=dsn,  # type: ignore[arg-type]
        partitions=PARTITIONS,
        topic_prefix=prefix,
    )
    await apply_topics(settings)
    async with ingesting(bootstrap, dsn, prefix, folder) as world:
        yield world


class Listing(BaseHTTPRequestHandler):
    """A vendor that is polled (Sprout's messages), page by page; it is slow enough to be killed in between."""

    count = 60
    page = 5
    pages_told: list[int] = []  # noqa: RUF012 - one server at a time, looked into by the test
    pause = 0.05

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        start = int(asked.get("page_cursor") or 0)
        type(self).pages_told.append(start)
        time.sleep(self.pause)
        last = min(start + self.page, self.count)
        paging = {"next_cursor": str(last)} if last < self.count else {}
        data = [self._message(n) for n in range(start, last)]
        said = json.dumps({"data": data, "paging": paging}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def _message(self, n: int) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(json.dumps(fixture("sprout", "direct_message")))
        made["guid"] = f"polled-{n}"
        made["text"] = f"Polled message {n}"
        return made

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def listing() -> Iterator[str]:
    Listing.pages_told = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Listing)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


KILLED_CHANNELS = """
mail:
  support:
    addresses: [support@lantern-oak.example]
    imap: {{host: 127.0.0.1, port: {imap}, security: none, user: {user}, password: 'env:PROMISES_IMAP', start: all, poll_seconds: 1}}
channels:
  social:
    channel: sprout
    api_token: env:PROMISES_SPROUT
    customer_id: '805215'
    group_id: 7001
    profile_ids: [111]
    start: all
    history_days: 1
    base_url: {vendor}
"""


async def test_the_cursors_of_a_mailbox_and_of_a_polled_channel_survive_a_kill(
    bootstrap: str,
    database: str,
    topic_prefix: str,
    make_topic: MakeTopic,
    tmp_path: Path,
    mailbox: Mailbox,
    listing: str,
) -> None:
    """The gateway's process is killed in the midst of both; its heir goes on, and each message comes in once."""
    for name in TOPICS:
        await make_topic(name, partitions=PARTITIONS)
    await migrate(database, "ingest", [SQL])
    mails = [mail(n) for n in range(45)]
    await asyncio.to_thread(mailbox.append, *mails)
    uids = await asyncio.to_thread(mailbox.last_uid)
    (tmp_path / "channels.yaml").write_text(
        KILLED_CHANNELS.format(imap=mailbox.port, user=USER, vendor=listing), encoding="utf-8"
    )
    environment = os.environ | {
        "SIGNALBOX_KAFKA": bootstrap,
        "SIGNALBOX_DATABASE_URL": database,
        "SIGNALBOX_PARTITIONS": str(PARTITIONS),
        "SIGNALBOX_TOPIC_PREFIX": topic_prefix,
        "SIGNALBOX_SESSION_TIMEOUT_SECONDS": "6",
        "SIGNALBOX_POLICY": str(tmp_path),
        "SIGNALBOX_TOKEN_SECRET": "t" * 40,
        "SIGNALBOX_GATEWAY_PORT": "0",
        "SIGNALBOX_HTTP_PORT": "0",
        "SIGNALBOX_SMTP_ENABLED": "false",
        "SIGNALBOX_ATTACHMENTS_URL": "off",
        "PROMISES_SPROUT": "sprout-token",
    }
    log = tmp_path / "log"

    def spawn() -> "subprocess.Popen[bytes]":
        with log.open("ab") as sink:
            return subprocess.Popen(
                [sys.executable, "-m", "services.ingest", "serve", "--stage", "gateway"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )

    settings = IngestSettings(
        kafka=bootstrap,
        database_url=database,  # type: ignore[arg-type]
        partitions=PARTITIONS,
        topic_prefix=topic_prefix,
    )
    connection = await asyncpg.connect(database, server_settings={"search_path": "ingest"})
    process = spawn()
    try:

        async def is_in_the_midst() -> bool:
            assert process.poll() is None, log.read_text("utf-8")[-4000:]
            uid = await connection.fetchval("SELECT coalesce(max(last_uid), 0) FROM mailbox_cursor")
            return bool(uid) and len(Listing.pages_told) >= 3

        await until("both are being read", is_in_the_midst, 30)
        process.kill()
        assert process.wait(5) == -signal.SIGKILL
        cursor = await connection.fetchrow("SELECT cursor FROM channel_cursor")
        uid = await connection.fetchval("SELECT last_uid FROM mailbox_cursor")
        pages = len(Listing.pages_told)
        assert pages < Listing.count // Listing.page, "it was over before the kill"
        # The dead process's leases run out in a minute or so; the test does not wait for that.
        await connection.execute("UPDATE mailbox_cursor SET lease_until = '-infinity'")
        await connection.execute(
            "UPDATE channel_cursor SET lease_until = '-infinity', due_at = '-infinity'"
        )
        process = spawn()

        async def all_published() -> bool:
            assert process.poll() is None, log.read_text("utf-8")[-4000:]
            rows = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM spool) AS spooled, (SELECT count(*) FROM outbox) AS owed,"
                " (SELECT last_uid FROM mailbox_cursor) AS uid"
            )
            assert rows is not None
            asked = Listing.pages_told[pages:]
            is_read = bool(rows["uid"] >= uids) and Listing.count - Listing.page in asked
            return is_read and rows["spooled"] == rows["owed"] == 0

        await until("both have been read to their ends and published", all_published, 40)
        assert cursor is not None
        assert cursor["cursor"], "the cursor was lost"
        assert Listing.pages_told[pages] >= Listing.page, "it began at the beginning"
        assert uid > 0
        # What the dead process may have published without noting it has the same number, which readers know it by.
        published: dict[tuple[str, int | None], str] = {}
        for envelope, event, _ in await read_topic(settings, "inbound"):
            assert isinstance(event, InboundReceived)
            name = published.setdefault((envelope.source, envelope.sequence), event.input_id)
            assert name == event.input_id
        names = Counter(published.values())
        assert set(names.values()) == {1}, "an input was taken in twice"
        assert len(names) == Listing.count + len(mails)
    finally:
        process.kill()
        process.wait(5)
        await connection.close()
