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
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition
from pydantic import SecretStr

from bench.report import Report, machine, percentile
from chassis.clock import monotonic, now_seconds
from chassis.local import Platform
from chassis.local.processes import free_port
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from schemas.envelope import parse_time
from schemas.messages import MessageReceived
from schemas.routing import OfferMade

SERVICES = ("ingest", "router", "sla", "notifier")
ROOT = Path(__file__).resolve().parent.parent
AGENTS = 50
READY_SECONDS = 90.0
SETTLE_SECONDS = 60.0
WARM_UP_SECONDS = 5.0
WARM_UP_SHARE = 0.05
ROSTER_PARALLEL = 10
CONNECTIONS = 24
WAY = ("inbound", "messages", "routing-work", "routing")
"""The topics that an event caused by a message passes, in order, until it is an offer."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class PathOptions:
    """The load: messages a second, for how many seconds, and whether to look into it."""

    rate: int = 200
    seconds: float = 20.0
    hops: bool = False
    """Whether to report each hop's times and each process' share of a processor besides."""


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
    console, systems = secrets.token_hex(20), secrets.token_hex(20)
    gateway_port, mail_port = free_port(), free_port()
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
        "SIGNALBOX_SMTP_HOST": "127.0.0.1",
        "SIGNALBOX_SMTP_PORT": str(mail_port),
        "SIGNALBOX_SMTP_TLS": "none",
    }
    say("starting the four services")
    health_ports = {service: free_port() for service in SERVICES}
    processes = _start_processes(environment, health_ports, mail_port)
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{gateway_port}",
            headers={"Authorization": f"Bearer {console}"},
            timeout=30,
            limits=httpx.Limits(max_connections=64),
        ) as client:
            await _wait_ready(client, health_ports)
            await _staff(client, say)
            say(f"warming up: {WARM_UP_SECONDS:.0f} s at the same rate, thrown away")
            warming = _Watch(settings, hops=False)
            await warming.start()
            try:
                warm = await _load(gateway_port, systems, options.rate, WARM_UP_SECONDS, "warm")
                await warming.settle(len(warm))
            finally:
                await warming.stop()
            say(f"{options.rate} messages/s for {options.seconds:.0f} s, open loop")
            watch = _Watch(settings, hops=options.hops)
            await watch.start()
            names = {process.pid: name for name, process in processes.items()}
            names[os.getpid()] = "driver"
            servers = {platform.kafka.pid: "kafka", platform.postgres.pid: "postgres"}
            names |= {pid: name for pid, name in servers.items() if pid is not None}
            before, began = cpu_by_process(names), monotonic()
            try:
                accepted = await _load(
                    gateway_port, systems, options.rate, options.seconds, "bench"
                )
                loaded, loading = cpu_by_process(names), monotonic() - began
                await watch.settle(len(accepted))
                settled = cpu_by_process(names)
            finally:
                await watch.stop()
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()
    report = _report(options, accepted, watch)
    if options.hops:
        for name in sorted(settled):
            during = loaded.get(name, 0.0) - before.get(name, 0.0)
            report.figures[f"cpu_percent_{name}"] = during / loading * 100
            whole = settled[name] - before.get(name, 0.0)
            report.figures[f"cpu_ms_a_message_{name}"] = whole / max(len(accepted), 1) * 1000
        _report_hops(report, accepted, watch)
    return report


def _start_processes(
    environment: dict[str, str], health_ports: dict[str, int], mail_port: int
) -> dict[str, subprocess.Popen[bytes]]:
    started = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"services.{name}", "serve"],
            env={**environment, "SIGNALBOX_HTTP_PORT": str(port)},
        )
        for name, port in health_ports.items()
    }
    started["mail_sink"] = subprocess.Popen(
        [sys.executable, "-m", "bench.mail_sink", str(mail_port)], env=environment
    )
    return started


def cpu_by_process(names: dict[int, str]) -> dict[str, float]:
    """Return the CPU seconds used so far, by the names of processes (or of their parents); all others' as `others`."""
    used: dict[str, float] = defaultdict(float)
    for process in psutil.process_iter():
        try:
            times, parent = process.cpu_times(), process.ppid()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        name = names.get(process.pid) or (names.get(parent) if parent != os.getpid() else None)
        # Of a server process that has ended, its parent knows.
        ended = times.children_user + times.children_system if name == "postgres" else 0.0
        if name is not None:
            used[name] += times.user + times.system + ended
    machine_times = psutil.cpu_times()
    busy = machine_times.user + machine_times.system + machine_times.nice
    return {**used, "others": busy - sum(used.values())}


async def _wait_ready(client: httpx.AsyncClient, ports: dict[str, int]) -> None:
    """Wait until each service says that it works: what it has to read first is none of the path."""
    deadline = monotonic() + READY_SECONDS
    for service, port in ports.items():
        while True:
            try:
                answer = await client.get(f"http://127.0.0.1:{port}/health/ready")
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.is_success:
                break
            if monotonic() > deadline:
                said = "no answer" if answer is None else answer.text
                raise TimeoutError(f"{service} was not ready within {READY_SECONDS:.0f} s: {said}")
            await asyncio.sleep(0.1)


async def _staff(client: httpx.AsyncClient, say: Say) -> None:
    """Give the router agents enough to be offered everything."""
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


async def _load(
    port: int, key: str, rate: int, seconds: float, name: str
) -> dict[str, tuple[float, float]]:
    """Post at the fixed rate; return the planned and the answered instant of each accepted message, by its id.

    Plain connections instead of an HTTP client: on two cores the client would be what is measured.
    """
    accepted: dict[str, tuple[float, float]] = {}
    waiting: asyncio.Queue[tuple[int, float] | None] = asyncio.Queue()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (item := await waiting.get()) is not None:
            n, due = item
            writer.write(_request(f"{name}-{n}", key))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 202"):
                raise RuntimeError(f"the gateway answered {head[:40]!r}")
            accepted[f"{name}-{n}"] = (due, now_seconds())
        writer.close()

    connections = [asyncio.create_task(connection()) for _ in range(CONNECTIONS)]
    began = now_seconds()
    for n in range(int(rate * seconds)):
        due = began + n / rate
        delay = due - now_seconds()
        if delay > 0:
            await asyncio.sleep(delay)
        waiting.put_nowait((n, due))
    for _ in connections:
        waiting.put_nowait(None)
    await asyncio.gather(*connections)
    return accepted


def _request(vendor_id: str, key: str) -> bytes:
    body = json.dumps(
        {
            "channel": "kiosk",
            "account": "kiosk",
            "id": vendor_id,
            "sender": {
                "name": f"Customer {vendor_id}",
                "address": f"customer-{vendor_id}@example.com",
            },
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


class _Content(msgspec.Struct):
    vendor_message_id: str


class _Received(msgspec.Struct):
    conversation_id: str
    content: _Content


class _Offered(msgspec.Struct):
    conversation_id: str


_RECEIVED = msgspec.json.Decoder(_Received)
_OFFERED = msgspec.json.Decoder(_Offered)


class Stamp(NamedTuple):
    """An event's instants, in seconds: decided (its envelope's time), handed to the broker, read here; and its cause."""

    causation: str
    decided: float
    published: float
    read: float


class _Watch:
    """Reads `messages` and `routing` as they come: which conversation a message began, and when it was offered.

    With `hops` it also keeps the instants of every event on the way.
    """

    def __init__(self, settings: Settings, *, hops: bool) -> None:
        self._settings = settings
        self._hops = hops
        self.stamps: dict[str, Stamp] = {}
        self.offer_of: dict[str, str] = {}
        self._consumer = AIOKafkaConsumer(
            **settings.kafka_access.options(), fetch_max_wait_ms=10, enable_auto_commit=False
        )
        self._reading: asyncio.Task[None] | None = None
        self.conversations: dict[str, str] = {}
        self.offered: dict[str, float] = {}

    async def start(self) -> None:
        """Read from the present ends on."""
        await self._consumer.start()
        partitions = [
            TopicPartition(self._settings.topic(topic), n)
            for topic in (WAY if self._hops else ("messages", "routing"))
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
                    headers = dict(record.headers)
                    kind = headers.get("ce_type", b"").decode()
                    if self._hops:
                        self.stamps[headers["ce_id"].decode()] = Stamp(
                            headers["ce_causationid"].decode(),
                            parse_time(headers["ce_time"].decode()).timestamp(),
                            record.timestamp / 1000,
                            arrived,
                        )
                    if kind == MessageReceived.TYPE:
                        message = _RECEIVED.decode(record.value)
                        self.conversations[message.content.vendor_message_id] = (
                            message.conversation_id
                        )
                    elif kind == OfferMade.TYPE:
                        conversation = _OFFERED.decode(record.value).conversation_id
                        self.offered.setdefault(conversation, arrived)
                        self.offer_of.setdefault(conversation, headers["ce_id"].decode())

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


def _report_hops(report: Report, accepted: dict[str, tuple[float, float]], watch: _Watch) -> None:
    """Add how long each leg of the way took, following each offer back along its causes.

    An event is decided at its envelope's time and published at its record's timestamp, which is whole milliseconds: what
    lies between is the commit and the relay's queue; from there to the next decision, the broker and the reader's queue.
    """
    legs: dict[str, list[float]] = {}
    vendor_ids = sorted(accepted, key=lambda vendor_id: accepted[vendor_id][0])
    for vendor_id in vendor_ids[int(len(vendor_ids) * WARM_UP_SHARE) :]:
        due, answered = accepted[vendor_id]
        way: list[Stamp] = []
        event_id = watch.offer_of.get(watch.conversations.get(vendor_id, ""), "")
        while (stamp := watch.stamps.get(event_id)) is not None and len(way) <= len(WAY):
            way.insert(0, stamp)
            event_id = stamp.causation
        if len(way) != len(WAY):
            continue
        legs.setdefault("01_request_to_gateway", []).append(way[0].decided - due)
        legs.setdefault("02_gateway_to_answer", []).append(answered - way[0].decided)
        for place, (topic, stamp) in enumerate(zip(WAY, way, strict=True)):
            if place:
                waited = stamp.decided - way[place - 1].published
                legs.setdefault(f"{place + 3:02}b_read_to_{topic}_decided", []).append(waited)
            written = stamp.published - stamp.decided
            legs.setdefault(f"{place + 3:02}c_{topic}_decided_to_published", []).append(written)
        legs.setdefault("08_published_to_read_here", []).append(way[-1].read - way[-1].published)
    for name, values in sorted(legs.items()):
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            report.figures[f"leg_{name}_{label}_ms"] = percentile(values, share) * 1000
