"""`signalbox bench gateway`: what the front door accepts, durable, beside a bare echo on the same server in the same run.

One process of ingest with its gateway alone, as in production, on a real PostgreSQL and Kafka; one process that echoes,
served by the same `chassis.web`. A client of its own process sends callbacks of Messenger, each signed and each another
one, and web forms. What is accepted is also numbered and published meanwhile: that is the gateway's work too.
"""

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from bench.hop import cpu_seconds
from bench.http_load import Load, Outcome, drive
from bench.report import Report, machine, percentile
from chassis.clock import monotonic
from chassis.local import Platform
from chassis.local.processes import free_port
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from services.ingest.adapters import signing

ROOT: Final = Path(__file__).resolve().parent.parent
READY_SECONDS: Final = 60.0
PARTITIONS: Final = 4
SECRET: Final = secrets.token_hex(16)
CHANNELS: Final = """\
channels:
  page: {channel: messenger, secret: 'env:BENCH_SECRET', page_id: '1029384756'}
forms:
  contact: {}
"""
WEBHOOKS: Final = "/v1/channels/messenger/page"
FORMS: Final = "/v1/forms/contact"
UNLIMITED: Final = str(10**9)
"""Requests a minute: the paces are not what is measured."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """The load: requests as fast as it goes, over how many connections; then at a fixed rate, for how many seconds."""

    requests: int = 30_000
    connections: int = 256
    rate: int = 500
    seconds: float = 20.0


async def run(platform: Platform, options: GatewayOptions, say: Say) -> Report:
    """Measure and report; the platform must be running.

    Raises:
        RuntimeError: an answer was no 2xx.
    """
    name = f"gateway_{secrets.token_hex(4)}"
    settings = Settings(
        kafka=platform.kafka.bootstrap,
        database_url=SecretStr(platform.postgres.create_database(name)),
        partitions=PARTITIONS,
        topic_prefix=f"{name}.",
    )
    await migrate(settings.dsn, "ingest", [ROOT / "services" / "ingest" / "sql"])
    await apply_topics(settings)
    report = Report(
        "gateway",
        settings={
            **machine(),
            "load_before": round(os.getloadavg()[0], 2),
            "requests": options.requests,
            "connections": options.connections,
            "rate": options.rate,
            "seconds": options.seconds,
            "request_bytes": len(callback(0)),
            "partitions": PARTITIONS,
            "fsync": "on",
        },
    )
    with tempfile.TemporaryDirectory(prefix="signalbox-bench-policy-") as folder:
        (Path(folder) / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
        with _echoing() as echo, _gateway(settings, Path(folder)) as gateway:
            for part in (echo, gateway):
                await part.is_open()
            await _measure(report, echo, gateway, options, say)
    return report


async def _measure(
    report: Report, echo: "_Part", gateway: "_Part", options: GatewayOptions, say: Say
) -> None:
    count, figures = options.requests, report.figures
    say("limit: the echo, as fast as it goes")
    callbacks = [callback(n) for n in range(count)]
    limit = await _loaded(report, "echo", echo, Load(echo.port, callbacks, options.connections))
    report.limits["echo_per_second"] = limit.per_second
    say("callbacks of Messenger, as fast as it goes")
    commits = gateway.commits()
    took = await _loaded(
        report, "webhooks", gateway, Load(gateway.port, callbacks, options.connections)
    )
    figures["webhooks_per_second"] = took.per_second
    figures["requests_per_commit"] = count / max(1, gateway.commits() - commits)
    say("web forms, as fast as it goes")
    forms = [form(n) for n in range(count)]
    took = await _loaded(report, "forms", gateway, Load(gateway.port, forms, options.connections))
    figures["forms_per_second"] = took.per_second
    report.ratios = {
        "webhooks_of_echo": figures["webhooks_per_second"] / limit.per_second,
        "forms_of_echo": figures["forms_per_second"] / limit.per_second,
    }
    await gateway.has_published()
    total = int(options.rate * options.seconds)
    for what, part, first in (("echo", echo, count), ("webhooks", gateway, count + total)):
        say(f"{what} at {options.rate}/s for {options.seconds:.0f} s, open loop")
        steady = [callback(n) for n in range(first, first + total)]
        label = f"{what}_at_{options.rate}"
        took = await _loaded(
            report, label, part, Load(part.port, steady, options.connections, options.rate)
        )
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999)):
            where = report.limits if part is echo else figures
            where[f"{label}_{name}_ms"] = percentile(took.latencies, share) * 1000


async def _loaded(report: Report, label: str, part: "_Part", load: Load) -> Outcome:
    """Send a load; note the processor time that the server needed for a request of it."""
    before = cpu_seconds(part.pid)
    outcome = await drive(load)
    cpu = (cpu_seconds(part.pid) - before) * 1e6 / len(load.requests)
    (report.limits if label.startswith("echo") else report.figures)[f"{label}_cpu_us"] = cpu
    wrong = {status: n for status, n in outcome.statuses.items() if not 200 <= status < 300}
    if wrong:
        raise RuntimeError(f"{label}: answers that are no 2xx, by status: {wrong}")
    return outcome


# ------------------------------------------------------------------------------------------- the requests


def callback(n: int) -> bytes:
    """Return the `n`-th request: a signed callback of Messenger with one message."""
    said = {
        "sender": {"id": f"77001{n % 997:05d}"},
        "recipient": {"id": "1029384756"},
        "timestamp": 1_796_000_000_000 + n,
        "message": {
            "mid": f"m_bench_{n}",
            "text": f"Hello! I ordered a brass lamp last week, number {n}, and the shade came broken. "
            "Could you send another one before Friday, please? It is a present for my mother.",
        },
    }
    entry = {"id": "1029384756", "time": 1_796_000_000_000 + n, "messaging": [said]}
    body = json.dumps({"object": "page", "entry": [entry]}).encode()
    signature = signing.hex_hmac(SECRET.encode(), body)
    return _request(WEBHOOKS, body, f"X-Hub-Signature-256: sha256={signature}\r\n")


def form(n: int) -> bytes:
    """Return the `n`-th request: a web form."""
    body = json.dumps(
        {
            "name": f"Customer {n}",
            "email": f"customer-{n % 997}@example.com",
            "subject": "Where is my lamp",
            "message": f"I ordered a lamp last week, number {n}, and it is not here yet.",
            "language": "en",
        }
    ).encode()
    return _request(FORMS, body, f"Idempotency-Key: bench-{n}\r\n")


def _request(path: str, body: bytes, headers: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: in.example.com\r\nUser-Agent: bench\r\n{headers}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# -------------------------------------------------------------------------------------------- the servers


@dataclass(frozen=True, slots=True)
class _Part:
    """A server: its process, its port, and the port of its metrics where it has some."""

    process: "subprocess.Popen[bytes]"
    port: int
    health: int = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    async def is_open(self) -> None:
        """Come back when it answers; the gateway not before it has its leases, and so publishes."""
        deadline = monotonic() + READY_SECONDS
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.process.args!r} ended with {self.process.returncode}")
            try:
                if self.health:
                    if self._metric("signalbox_task_owned") == PARTITIONS:
                        return
                else:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
            except OSError:
                pass  # Not yet.
            if monotonic() > deadline:
                raise TimeoutError(f"no answer within {READY_SECONDS:.0f} s")
            await asyncio.sleep(0.1)

    async def has_published(self) -> None:
        """Come back when everything accepted is numbered and published."""
        deadline = monotonic() + READY_SECONDS
        while self._metric("signalbox_spool_rows") + self._metric("signalbox_outbox_rows"):
            if monotonic() > deadline:
                raise TimeoutError(f"not all was published within {READY_SECONDS:.0f} s")
            await asyncio.sleep(0.2)

    def commits(self) -> int:
        """Return how many groups the spool has committed."""
        return int(self._metric("signalbox_spool_commit_seconds_count"))

    def _metric(self, name: str) -> float:
        address = f"http://127.0.0.1:{self.health}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            text = answer.read().decode()
        return sum(map(float, re.findall(rf"(?m)^{name}(?:\{{.*\}})? (\S+)$", text)))


@contextmanager
def _echoing() -> Iterator[_Part]:
    port = free_port()
    with _running([sys.executable, "-m", "bench.echo", str(port)], dict(os.environ)) as process:
        yield _Part(process, port)


@contextmanager
def _gateway(settings: Settings, policy: Path) -> Iterator[_Part]:
    port, health = free_port(), free_port()
    environment = {
        **os.environ,
        "SIGNALBOX_KAFKA": settings.kafka,
        "SIGNALBOX_DATABASE_URL": settings.dsn,
        "SIGNALBOX_PARTITIONS": str(settings.partitions),
        "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix,
        "SIGNALBOX_POLICY": str(policy),
        "SIGNALBOX_TOKEN_SECRET": secrets.token_hex(32),
        "SIGNALBOX_GATEWAY_PORT": str(port),
        "SIGNALBOX_HTTP_PORT": str(health),
        "SIGNALBOX_SMTP_ENABLED": "false",
        "SIGNALBOX_CHANNEL_PER_MINUTE": UNLIMITED,
        "SIGNALBOX_GATEWAY_FORM_PER_MINUTE": UNLIMITED,
        "SIGNALBOX_LOG_LEVEL": "error",
        "BENCH_SECRET": SECRET,
    }
    command = [sys.executable, "-m", "services.ingest", "serve", "--stage", "gateway"]
    with _running(command, environment) as process:
        yield _Part(process, port, health)


@contextmanager
def _running(
    command: list[str], environment: dict[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
