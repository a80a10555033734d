"""`signalbox bench notifier`: agents' answers from the broker to the vendors, beside what the vendors take at most.

One notifier as a process, durable, on a real Kafka and PostgreSQL; the vendors in a process of their own, on sockets. What is
measured, one after the other:

    limits        what as many connections get taken as the notifier has, that do nothing else
    throughput    as many answers as there are, as fast as they go: keyed posts, posts without a key, mails, and posts to a vendor
                  that takes no time, which is the notifier's own limit
    latency       answers to two accounts and by mail at a fixed rate, open loop, from the planned instant of `ticket.answered` to
                  the vendor's having it: while all is well, while one of the two says 429, while that one never answers
    books         each answer at the vendor once, and told as it is

Tickets are opened before, so that what is timed is an answer and nothing else.
"""

import asyncio
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from bench import vendor_limit
from bench.notifier_world import (
    MAIL,
    PARTITIONS,
    SQL,
    UNKEYED,
    Case,
    Listener,
    Service,
    Vendor,
    World,
    books,
    write_policy,
)
from bench.report import Report, machine, percentile
from chassis.clock import monotonic, now_seconds
from chassis.local import Platform
from chassis.local.processes import free_port
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.topics import apply_topics
from services.notifier.adapters.api import SLOTS
from services.notifier.adapters.smtp import SmtpOptions

ROOT: Final = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS: Final = 180.0
LIMIT_SECONDS: Final = 4.0
WARM_SECONDS: Final = 3.0
READY_SECONDS: Final = 30.0
MAIL_CONNECTIONS: Final = SmtpOptions("127.0.0.1", 25).connections
STEADY: Final = ("one", "other", MAIL)
"""The accounts of the latency runs; the first is the one that gets into trouble."""
TROUBLES: Final = (("alone", "fine"), ("beside_429", "busy"), ("beside_a_hang", "hang"))

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NotifierOptions:
    """The load: answers of a throughput run, answers a second and account and seconds of each latency run, and what a vendor
    takes for one.
    """

    notices: int = 1_000
    rate: int = 10
    seconds: float = 15.0
    vendor_seconds: float = 0.04


@dataclass(slots=True)
class _Run:
    """One run: what it stands on, and what it has found so far."""

    options: NotifierOptions
    http_port: int
    smtp_port: int
    service: Service
    world: World
    vendor: Vendor
    listener: Listener
    report: Report
    say: Say
    late: list[float] = field(default_factory=list)
    """How late the bench itself was with the answers of the latency runs, in seconds."""

    async def open(self, account: str, count: int) -> list[Case]:
        """Open tickets, and wait until the notifier knows them."""
        opened = await self.world.open(account, count)
        await self.service.knows(len(self.world.cases), PATIENCE_SECONDS)
        return opened

    async def arrived(self, cases: Sequence[Case]) -> list[float]:
        """Wait until the vendors have what was answered in these cases; return when each came.

        Raises:
            TimeoutError: it does not come in time.
        """
        deadline = monotonic() + PATIENCE_SECONDS
        accounts = {case.account for case in cases}
        while True:
            found = {account: await self.vendor.arrivals(account) for account in accounts}
            times = [found[case.account].get(case.recipient) for case in cases]
            if None not in times:
                return [at for at in times if at is not None]
            self.service.check()
            if monotonic() > deadline:
                raise TimeoutError(
                    f"{times.count(None)} of {len(times)} answers did not arrive in {PATIENCE_SECONDS:.0f} s"
                )
            await asyncio.sleep(0.25)

    # -- phases ------------------------------------------------------------------------------------------------------

    async def limits(self) -> None:
        """Measure the vendors alone."""
        self.say("the vendors' own limits")
        limits = self.report.limits
        port, seconds = self.http_port, min(LIMIT_SECONDS, self.options.seconds)
        limits["posts_per_second"] = await vendor_limit.posts(port, "limit", SLOTS, seconds)
        limits["instant_posts_per_second"] = await vendor_limit.posts(
            port, "instant-limit", SLOTS, seconds
        )
        limits["mails_per_second"] = await vendor_limit.mails(
            self.smtp_port, MAIL_CONNECTIONS, seconds
        )

    async def throughput(self, account: str, name: str, count: int) -> None:
        """Answer as fast as it goes; the rate counts from a tenth to nine tenths of the arrivals, CPU over all of them."""
        self.say(f"{count:,} tickets of {account}")
        began, cpu = monotonic(), self.service.cpu_seconds()
        cases = await self.open(account, count)
        figures = self.report.figures
        if "tickets_opened_per_second" not in figures:
            figures["tickets_opened_per_second"] = count / (monotonic() - began)
            figures["cpu_ms_a_ticket_opened"] = (self.service.cpu_seconds() - cpu) * 1e3 / count
        self.say(f"{count:,} answers by {account}, as fast as they go")
        cpu = self.service.cpu_seconds()
        for case in cases:
            await self.world.answer(case)
        await self.world.producer.flush()
        arrived = sorted(await self.arrived(cases))
        await self._told(cases)
        figures[f"cpu_ms_{name}"] = (self.service.cpu_seconds() - cpu) * 1e3 / count
        first, last = len(arrived) // 10, len(arrived) * 9 // 10
        figures[f"{name}_per_second"] = (last - first) / max(arrived[last] - arrived[first], 1e-3)

    async def _told(self, cases: Sequence[Case]) -> None:
        """Wait until the notifier has said of all of them how they ended: what that costs belongs to them."""
        deadline = monotonic() + PATIENCE_SECONDS
        while any(case.conversation_id not in self.listener.ended for case in cases):
            self.service.check()
            if monotonic() > deadline:
                raise TimeoutError(f"notices have no end after {PATIENCE_SECONDS:.0f} s")
            await asyncio.sleep(0.1)

    async def latency(self, name: str, mode: str, seconds: float) -> None:
        """Answer at a fixed rate, open loop, while the vendor of one account behaves so."""
        per_account = int(self.options.rate * seconds)
        self.say(f"{name}: opening {per_account * len(STEADY):,} tickets")
        by_account = [await self.world.open(account, per_account) for account in STEADY]
        await self.service.knows(len(self.world.cases), PATIENCE_SECONDS)
        cases = [case for together in zip(*by_account, strict=True) for case in together]
        await self.vendor.behave(STEADY[0], mode)
        per_second = self.options.rate * len(STEADY)
        self.say(f"{name}: {per_second} answers/s for {seconds:.0f} s, open loop")
        began, planned = now_seconds(), dict[str, float]()
        for n, case in enumerate(cases):
            at = began + n / per_second
            if (early := at - now_seconds()) > 0:
                await asyncio.sleep(early)
            self.late.append(max(0.0, now_seconds() - at))
            planned[case.conversation_id] = at
            await self.world.answer(case)
        await self.world.producer.flush()
        troubled = STEADY[0] if mode != "fine" else ""
        for account in STEADY:
            if account == troubled:
                continue
            mine = [case for case in cases if case.account == account]
            times = await self.arrived(mine)
            waits = [at - planned[c.conversation_id] for c, at in zip(mine, times, strict=True)]
            called = "mail" if account == MAIL else account
            for share in (0.5, 0.99):
                key = f"{called}_p{share * 100:.0f}_ms_{name}"
                self.report.figures[key] = percentile(waits, share) * 1000
        if not troubled:
            asked = [
                self.listener.requested[case.conversation_id] - planned[case.conversation_id]
                for case in cases
                if case.conversation_id in self.listener.requested
            ]
            self.report.figures[f"taken_up_p50_ms_{name}"] = percentile(asked, 0.5) * 1000

    async def settle(self) -> None:
        """Let all vendors answer, and wait until everything that was answered has come to its end; then do the books."""
        self.say("letting all vendors answer, and waiting for what was held up")
        await self.vendor.behave(STEADY[0], "fine")
        began = monotonic()
        answered = [c for c in self.world.cases if c.conversation_id in self.world.answered]
        await self._told(answered)
        figures = self.report.figures
        figures["settled_after_seconds"] = monotonic() - began
        accounts = {case.account for case in answered}
        arrivals = {account: await self.vendor.arrivals(account) for account in accounts}
        counts = await self.vendor.counts()
        figures |= books(answered, self.listener.ended, arrivals, counts)
        figures["refused_with_429"] = counts[STEADY[0]]["refused"]
        figures["called_while_told_to_wait"] = counts[STEADY[0]]["early"]
        figures["memory_mb"] = self.service.memory_mb()


async def run(platform: Platform, options: NotifierOptions, say: Say) -> Report:
    """Measure and report; the platform must be running. What was made in it is removed again."""
    name = f"bench_{secrets.token_hex(4)}"
    settings = Settings(
        kafka=platform.kafka.bootstrap,
        database_url=SecretStr(platform.postgres.create_database(name)),
        partitions=PARTITIONS,
        topic_prefix=f"{name}.",
    )
    report = Report(
        "notifier",
        settings={
            **machine(),
            "partitions": PARTITIONS,
            "processes": 1,
            "notices": options.notices,
            "rate_per_account": options.rate,
            "vendor_seconds": options.vendor_seconds,
            "http_connections": SLOTS,
            "smtp_connections": MAIL_CONNECTIONS,
            "acks": "all",
            "fsync": "on",
        },
    )
    await migrate(settings.dsn, "notifier", [SQL])
    await apply_topics(settings)
    try:
        with tempfile.TemporaryDirectory(prefix="signalbox-bench-policy-") as folder:
            await _run(settings, options, report, say, Path(folder))
    finally:
        platform.postgres.drop_database(name)
    return report


async def _run(
    settings: Settings, options: NotifierOptions, report: Report, say: Say, folder: Path
) -> None:
    began = monotonic()
    http_port, smtp_port = free_port(), free_port()
    ports = [str(http_port), str(smtp_port)]
    vendors = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [sys.executable, "-m", "bench.vendor_sink", *ports, str(options.vendor_seconds)], cwd=ROOT
    )
    service = Service(settings, write_policy(folder, http_port), smtp_port)
    listener = Listener(settings)
    producer = AIOKafkaProducer(
        **settings.kafka_access.options(), acks="all", enable_idempotence=True, linger_ms=1
    )
    try:
        await producer.start()
        await listener.start()
        base = f"http://127.0.0.1:{http_port}"
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=30) as http:
            await _answers(http)
            say("the notifier starts")
            await service.ready()
            work = _Run(
                options,
                http_port,
                smtp_port,
                service,
                World(settings, producer),
                Vendor(http),
                listener,
                report,
                say,
            )
            await _phases(work)
    finally:
        service.stop()
        vendors.terminate()
        vendors.wait()
        await listener.stop()
        await producer.stop()
    report.figures["bench_seconds"] = monotonic() - began


async def _answers(http: httpx.AsyncClient) -> None:
    """Wait until the vendors are there.

    Raises:
        TimeoutError: they are not in time.
    """
    deadline = monotonic() + READY_SECONDS
    while True:
        try:
            (await http.get("/counts")).raise_for_status()
        except httpx.TransportError:
            if monotonic() > deadline:
                raise TimeoutError("the vendors are not there") from None
            await asyncio.sleep(0.1)
        else:
            return


async def _phases(work: _Run) -> None:
    options, figures, limits = work.options, work.report.figures, work.report.limits
    await work.limits()
    await work.throughput("keyed", "keyed", options.notices)
    await work.throughput(UNKEYED, "unkeyed", options.notices // 2)
    await work.throughput(MAIL, "mails", options.notices // 2)
    await work.throughput("instant", "instant", options.notices)
    await work.latency("warm", "fine", min(WARM_SECONDS, options.seconds))
    for key in [key for key in figures if key.endswith("_warm")]:
        del figures[key]
    work.late.clear()
    for name, mode in TROUBLES:
        await work.latency(name, mode, options.seconds)
    await work.settle()
    figures["bench_late_p99_ms"] = percentile(work.late, 0.99) * 1000
    ratios = work.report.ratios
    for name, limit in (
        ("keyed", "posts"),
        ("unkeyed", "posts"),
        ("mails", "mails"),
        ("instant", "instant_posts"),
    ):
        ratios[f"{name}_of_the_vendors_limit"] = (
            figures[f"{name}_per_second"] / limits[f"{limit}_per_second"]
        )
    for name, _ in TROUBLES[1:]:
        for account in ("other", "mail"):
            ratios[f"{account}_p99_{name}"] = (
                figures[f"{account}_p99_ms_{name}"] / figures[f"{account}_p99_ms_alone"]
            )
