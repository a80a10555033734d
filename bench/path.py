"""`signalbox bench path`: a customer's message accepted → offered to a person, through all of it, at a fixed rate.

Starts the four services as they are in production, one process each, gives them agents enough, posts messages to the
gateway open loop, and reads the offers. The time counts from the planned instant of the request to the offer being read
from `routing`: spool, numbering, three services, their commits and relays, and Kafka between them.
"""

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from bench.report import Report, machine, percentile
from chassis.clock import monotonic, now_seconds
from chassis.local import Platform
from chassis.local.processes import free_port
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from schemas.messages import MessageReceived
from schemas.routing import OfferMade

SERVICES = ("ingest", "router", "sla", "notifier")
ROOT = Path(__file__).resolve().parent.parent
AGENTS = 50
READY_SECONDS = 90.0
SETTLE_SECONDS = 60.0
WARM_UP_SHARE = 0.15
ROSTER_PARALLEL = 10
CONNECTIONS = 24

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PathOptions:
    """The load: messages a second, for how many seconds."""

    rate: int = 200
    seconds: float = 20.0


async def run(platform: Platform, options: PathOptions, say: Say) -> Report:
    """Measure and report; the platform must be running."""
    with tempfile.TemporaryDirectory(prefix="signalbox-bench-policy-") as folder:
        return await _run(platform, options, say, Path(folder))


def _patient_policy(folder: Path) -> Path:
    """Copy the example policy, with offers that outlast the run: nobody answers them here."""
    copy = folder / "policy"
    shutil.copytree(ROOT / "policy", copy)
    routing = copy / "routing.yaml"
    text = routing.read_text(encoding="utf-8")
    routing.write_text(text.replace("\n  seconds: 30\n", "\n  seconds: 3600\n"), encoding="utf-8")
    return copy


async def _run(platform: Platform, options: PathOptions, say: Say, folder: Path) -> Report:
    name = f"path_{secrets.token_hex(4)}"
    settings = Settings(
        kafka=platform.kafka.bootstrap,
        database_url=SecretStr(platform.postgres.create_database(name)),
        partitions=4,
        topic_prefix=f"{name}.",
    )
    for service in SERVICES:
        await migrate(settings.dsn, service, [ROOT / "services" / service / "sql"])
    await apply_topics(settings)
    console, systems, gateway_port = secrets.token_hex(20), secrets.token_hex(20), free_port()
    environment = {
        **os.environ,
        "SIGNALBOX_KAFKA": settings.kafka,
        "SIGNALBOX_DATABASE_URL": settings.dsn,
        "SIGNALBOX_PARTITIONS": str(settings.partitions),
        "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix,
        "SIGNALBOX_POLICY": str(_patient_policy(folder)),
        "SIGNALBOX_TOKEN_SECRET": secrets.token_hex(32),
        "SIGNALBOX_API_KEY_CONSOLE": console,
        "SIGNALBOX_API_KEY_SYSTEMS": systems,
        "SIGNALBOX_GATEWAY_PORT": str(gateway_port),
        "SIGNALBOX_SMTP_ENABLED": "false",
        "SIGNALBOX_LOG_LEVEL": "error",
        # Notices go nowhere in this measurement: a port that nobody listens on, retried later.
        "SIGNALBOX_SMTP_HOST": "127.0.0.1",
        "SIGNALBOX_SMTP_PORT": str(free_port()),
        "SIGNALBOX_SMTP_TLS": "none",
    }
    say("starting the four services")
    processes = _start_services(environment)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{gateway_port}",
            headers={"Authorization": f"Bearer {console}"},
            timeout=30,
            limits=httpx.Limits(max_connections=64),
        ) as client:
            await _staff(client, say)
            say(f"{options.rate} messages/s for {options.seconds:.0f} s, open loop")
            watch = _Watch(settings)
            await watch.start()
            try:
                accepted = await _load(gateway_port, systems, options)
                await watch.settle(len(accepted))
            finally:
                await watch.stop()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
    return _report(options, accepted, watch)


def _start_services(environment: dict[str, str]) -> list[subprocess.Popen[bytes]]:
    return [
        subprocess.Popen([sys.executable, "-m", f"services.{service}", "serve"], env=environment)
        for service in SERVICES
    ]


async def _staff(client: httpx.AsyncClient, say: Say) -> None:
    """Wait for the gateway, then give the router agents enough to be offered everything."""
    deadline = monotonic() + READY_SECONDS
    while True:
        try:
            answer = await client.get("/health/live")
        except httpx.TransportError:
            answer = None
        if answer is not None:
            break
        if monotonic() > deadline:
            raise TimeoutError(f"the gateway did not open within {READY_SECONDS:.0f} s")
        await asyncio.sleep(0.1)
    say(f"{AGENTS} agents come on duty")
    skills = dict.fromkeys(("orders", "payments", "delivery", "api", "accounts"), 9)
    for start in range(0, AGENTS, ROSTER_PARALLEL):
        await asyncio.gather(
            *(
                _come_on_duty(client, f"agent-{n}", skills)
                for n in range(start, start + ROSTER_PARALLEL)
            )
        )


async def _come_on_duty(client: httpx.AsyncClient, agent: str, skills: dict[str, int]) -> None:
    body = {
        "name": agent,
        "queues": ["service", "technical"],
        "skills": skills,
        "languages": {"en": 9},
        "capacity": 100_000,
    }
    (await client.put(f"/v1/agents/{agent}", json=body)).raise_for_status()
    presence = {"presence": "available"}
    (await client.post(f"/v1/agents/{agent}/presence", json=presence)).raise_for_status()


async def _load(port: int, key: str, options: PathOptions) -> dict[str, tuple[float, float]]:
    """Post at the fixed rate; return the planned and the answered instant of each accepted message, by its id.

    Plain connections instead of an HTTP client: on two cores the client would be what is measured.
    """
    accepted: dict[str, tuple[float, float]] = {}
    waiting: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (item := await waiting.get()) is not None:
            n, due = item
            writer.write(_request(n, key))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"the gateway answered {head[:40]!r}")
            accepted[f"bench-{n}"] = (due, now_seconds())
        writer.close()

    connections = [asyncio.create_task(connection()) for _ in range(CONNECTIONS)]
    began = now_seconds()
    for n in range(int(options.rate * options.seconds)):
        due = began + n / options.rate
        delay = due - now_seconds()
        if delay > 0:
            await asyncio.sleep(delay)
        waiting.put_nowait((n, due))
    for _ in connections:
        waiting.put_nowait(None)
    await asyncio.gather(*connections)
    return accepted


def _request(n: int, key: str) -> bytes:
    body = json.dumps(
        {
            "channel": "kiosk",
            "account": "kiosk",
            "id": f"bench-{n}",
            "sender": {"name": f"Customer {n}", "address": f"customer-{n}@example.com"},
            "subject": "Where is my lamp",
            "text": "I ordered a lamp last week and it is not here yet.",
            "language": "en",
        }
    ).encode()
    head = (
        f"POST /v1/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Watch:
    """Reads `messages` and `routing` as they come: which conversation a message began, and when it was offered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka, fetch_max_wait_ms=10, enable_auto_commit=False
        )
        self._reading: asyncio.Task[None] | None = None
        self.conversations: dict[str, str] = {}
        self.offered: dict[str, float] = {}

    async def start(self) -> None:
        """Read from the present ends on."""
        await self._consumer.start()
        partitions = [
            TopicPartition(self._settings.topic(topic), n)
            for topic in ("messages", "routing")
            for n in range(self._settings.partitions)
        ]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            await self._consumer.position(partition)
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while True:
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                arrived = now_seconds()
                for record in records:
                    kind = dict(record.headers).get("ce_type", b"").decode()
                    if kind == MessageReceived.TYPE:
                        message = MessageReceived.model_validate_json(record.value)
                        self.conversations[message.content.vendor_message_id] = (
                            message.conversation_id
                        )
                    elif kind == OfferMade.TYPE:
                        offer = OfferMade.model_validate_json(record.value)
                        self.offered.setdefault(offer.conversation_id, arrived)

    async def settle(self, expected: int) -> None:
        """Wait until everything accepted was offered, or no longer than `SETTLE_SECONDS`."""
        deadline = monotonic() + SETTLE_SECONDS
        while len(self.offered) < expected and monotonic() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
        await self._consumer.stop()


def _report(
    options: PathOptions, accepted: dict[str, tuple[float, float]], watch: _Watch
) -> Report:
    ordered = sorted(accepted, key=lambda vendor_id: accepted[vendor_id][0])
    counted = ordered[int(len(ordered) * WARM_UP_SHARE) :]
    whole, behind, answers, missing = [], [], [], 0
    for vendor_id in counted:
        due, answered = accepted[vendor_id]
        offered = watch.offered.get(watch.conversations.get(vendor_id, ""))
        answers.append(answered - due)
        if offered is None:
            missing += 1
            continue
        whole.append(offered - due)
        behind.append(offered - answered)
    report = Report(
        "path",
        settings={
            **machine(),
            "rate": options.rate,
            "seconds": options.seconds,
            "agents": AGENTS,
            "partitions": 4,
        },
    )
    report.figures["accepted"] = len(accepted)
    report.figures["not_offered"] = missing
    for label, values in (
        ("request_to_offer", whole),
        ("accepted_to_offer", behind),
        ("request_to_answer", answers),
    ):
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            report.figures[f"{label}_{name}_ms"] = percentile(values, share) * 1000
    report.limits["goal_p50_ms"], report.limits["goal_p99_ms"] = 100.0, 400.0
    report.ratios["p50_of_goal"] = report.figures["accepted_to_offer_p50_ms"] / 100.0
    report.ratios["p99_of_goal"] = report.figures["accepted_to_offer_p99_ms"] / 400.0
    return report
