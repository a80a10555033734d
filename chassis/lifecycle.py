"""A service's life: settings in, running parts out, and a clean end.

SIGTERM or SIGINT: stop intake, finish what is in hand, flush the relay, leave the group, exit 0 within the grace time.
A database or a broker that is away is waited for, never exited over.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import asyncpg
import uvloop
from aiokafka.errors import KafkaError

from chassis import logs
from chassis.clock import Clock, SystemClock, monotonic, pause
from chassis.errors import ConfigurationError, PolicyError, SignalboxError
from chassis.failpoints import Failpoints
from chassis.health import Check, Health
from chassis.ledger import DRIVER_ERRORS, open_pool
from chassis.migrate import is_current
from chassis.policy import PolicyHolder
from chassis.settings import Settings, load_settings
from chassis.stage import Stage
from chassis.task import Worker
from chassis.topics import TopicFinding, check_topics, report
from chassis.tracing import Tracing
from chassis.web import AsgiApp, Receive, Scope, Send, serve

WATCH_SECONDS = 1.0
"""How often a stage's client is looked at."""

TOPICS_SECONDS = 3.0
RETRY_AFTER_SECONDS = 5

T = TypeVar("T", bound=Settings)
log = logs.get("lifecycle")


@dataclass(slots=True)
class Runtime:
    """What a running service shares with its background parts."""

    settings: Any
    pool: asyncpg.Pool
    clock: Clock
    health: Health
    failpoints: Failpoints
    tracing: Tracing
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def add_readiness(self, name: str, check: Check) -> None:
        """Make readiness depend on `check`, which returns what is wrong or None."""
        self.health.add_check(name, check)


Background = Callable[[Runtime], Awaitable[None]]
"""A part that runs for the process' life. It ends by itself soon after `runtime.stopping` is set; one that fails is
started again after a pause."""


@dataclass(frozen=True, slots=True)
class Application:
    """A service: its schema and SQL, its stages, its policy, and what else runs beside them."""

    service: str
    sql: Path
    stages: Sequence[Stage[Any]]
    policies: PolicyHolder[Any] | None = None
    background: Sequence[Background] = ()
    prelude: Background | None = None
    """Awaited once, when the backgrounds have begun and before any stage joins: it bounds its own time, and fails nothing."""
    waiting_ports: Sequence[tuple[str, int]] = ()
    """Addresses that answer 503 while the database is awaited, so that senders are told to come again."""


def run(build: Callable[[T], Application], settings_type: type[T], argv: Sequence[str]) -> int:
    """Run a service from the command line: `serve [--stage NAME]` or `check`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m services.<name>")
    parser.add_argument("command", choices=("serve", "check"), nargs="?", default="serve")
    parser.add_argument(
        "--stage", default="all", help="run only this stage of the service (default: all)"
    )
    arguments = parser.parse_args(list(argv))
    try:
        settings = load_settings(settings_type)
        logs.configure("signalbox", settings.log_format, settings.log_level)
        application = build(settings)
        logs.name_service(application.service)
        if arguments.command == "check":
            print("settings and policy are in order")  # noqa: T201 - the answer to a person who asked
            return 0
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            _leave(runner.run(_serve(application, settings, arguments.stage)))
    except PolicyError as error:
        print(f"policy refused: {error}", file=sys.stderr)  # noqa: T201
    except (ConfigurationError, SignalboxError) as error:
        print(str(error), file=sys.stderr)  # noqa: T201
    return 2


def _leave(code: int) -> NoReturn:
    """End the process now that all is flushed and closed.

    Whatever still runs in a thread is not waited for: a resolver that hangs (the broker's name is gone) would hold the loop's and
    the interpreter's ends for as long as it likes, past the grace time.
    """
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # Nobody reads any more; there is nothing left to tell.
            stream.flush()
    os._exit(code)


async def _serve(application: Application, settings: Settings, stage: str) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    health = Health(application.service)
    # First of all: a process that waits for its database lives, and says what it waits for.
    serving = asyncio.create_task(
        _supervise("health_server", lambda: _health_server(health, settings, stopping), stopping)
    )
    try:
        pool = await _open_database(application, settings, stopping, health)
    except BaseException:
        serving.cancel()
        raise
    if pool is None:
        await asyncio.wait([serving], timeout=settings.grace_seconds / 4)
        return 0
    health.use_pool(pool)
    log_path = settings.failpoint_log
    failpoints = Failpoints(settings.failpoints, Path(log_path) if log_path else None)
    runtime = Runtime(
        settings,
        pool,
        SystemClock(),
        health,
        failpoints,
        Tracing(application.service, settings.otlp_endpoint),
        stopping,
    )
    workers = [
        Worker(one, settings, pool, runtime.clock, failpoints=failpoints, tracing=runtime.tracing)
        for one in application.stages
        if stage in ("all", one.name, one.name.rpartition(".")[2])
    ]
    for worker in workers:
        health.add_worker(worker)
    backgrounds = [asyncio.create_task(_part(part, runtime)) for part in application.background]
    backgrounds.append(serving)
    if application.prelude is not None:
        await application.prelude(runtime)
    endless = [asyncio.create_task(_join(worker, settings, health, stopping)) for worker in workers]
    if application.policies is not None:
        endless.append(asyncio.create_task(application.policies.watch()))
    # What has been imported and built by now stays for good: the collector need not walk through it again and again.
    gc.collect()
    gc.freeze()
    log.info("started", stages=[worker.stage.name for worker in workers])
    await stopping.wait()
    return await _stop(runtime, workers, endless, backgrounds)


async def _open_database(
    application: Application, settings: Settings, stopping: asyncio.Event, health: Health
) -> asyncpg.Pool | None:
    """Wait for a database with all migrations; None where the process is told to stop first.

    Raises:
        ConfigurationError: the DSN cannot be read at all.
    """
    wait = 0.2
    doors: list[asyncio.Task[None]] = []
    is_open = asyncio.Event()
    health.database_wait = "does not answer yet"
    try:
        while not stopping.is_set():
            try:
                if await is_current(settings.dsn, application.service, (application.sql,)):
                    return await open_pool(
                        settings.dsn,
                        application.service,
                        settings.database_pool,
                        f"signalbox {application.service}",
                    )
                health.database_wait = "lacks migrations; run `signalbox db migrate`"
                log.warning(
                    "migrations_missing", cure="run `signalbox db migrate`", wait_seconds=wait
                )
            except (asyncpg.exceptions.ClientConfigurationError, ValueError):
                # Without the driver's own words: they quote parts of it, and it holds a password.
                raise ConfigurationError(
                    "SIGNALBOX_DATABASE_URL cannot be read: write it as postgresql://user:password@host:5432/database"
                ) from None
            except DRIVER_ERRORS as error:
                health.database_wait = f"does not answer yet ({type(error).__name__})"
                log.warning("database_unreachable", error=type(error).__name__, wait_seconds=wait)
            if not doors:
                doors = [
                    asyncio.create_task(_turn_away(host, port, is_open))
                    for host, port in application.waiting_ports
                    if port
                ]
            await pause(stopping, wait)
            wait = min(wait * 2, 5.0)
        return None
    finally:
        # The ports must be free before the parts that they belong to begin.
        is_open.set()
        await asyncio.gather(*doors)


async def _turn_away(host: str, port: int, is_open: asyncio.Event) -> None:
    await _supervise(
        "waiting_port", lambda: serve(_not_yet, host, port, is_open, drain_seconds=1.0), is_open
    )


async def _not_yet(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request that the database is awaited."""
    del receive
    if scope["type"] != "http":
        return
    body = json.dumps(
        {
            "type": "urn:signalbox:problem:unavailable",
            "title": "Not now",
            "status": 503,
            "detail": "The request could not be stored now; please send it again",
        }
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(RETRY_AFTER_SECONDS).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _join(
    worker: Worker[Any], settings: Settings, health: Health, stopping: asyncio.Event
) -> None:
    """Join the group once the topics are right, and join anew whenever the client does not work any more."""
    name = worker.stage.name
    findings: list[TopicFinding] | None = None

    async def topics_problem() -> str | None:
        if findings is None:
            return "have not been checked yet"
        return "; ".join(map(str, findings)) or None

    health.add_check(f"topics: {name}", topics_problem)
    needed = {topic.name for topic in worker.stage.topics}
    wait = 0.2
    has_joined = False
    while not stopping.is_set():
        try:
            if findings is None or findings:
                findings = await check_topics(settings, needed)
            if findings:
                report(findings)
                await pause(stopping, TOPICS_SECONDS)
                continue
            await (worker.rejoin() if has_joined else worker.start())
        except Exception as error:  # noqa: BLE001 - whatever it is, a stage that has not joined must go on trying
            log.warning(
                "broker_unreachable"
                if isinstance(error, (KafkaError, OSError, TimeoutError))
                else "join_failed",
                stage=name,
                error=type(error).__name__,
                wait_seconds=wait,
            )
            await pause(stopping, wait)
            wait = min(wait * 2, 5.0)
            continue
        has_joined, wait = True, 0.2
        while not stopping.is_set() and not worker.bus.is_broken:
            await pause(stopping, WATCH_SECONDS)
        if not stopping.is_set():
            log.error("client_broken", stage=name, cure="joins with a new one")


async def _part(part: Background, runtime: Runtime) -> None:
    name = getattr(part, "__name__", type(part).__name__)
    await _supervise(name, lambda: part(runtime), runtime.stopping)


async def _supervise(
    name: str, part: Callable[[], Awaitable[None]], stopping: asyncio.Event
) -> None:
    wait = 0.2
    while not stopping.is_set():
        began = monotonic()
        try:
            await part()
            if stopping.is_set():
                return
            log.error("background_ended", part_name=name)
        except asyncio.CancelledError:
            raise
        except ConfigurationError as error:
            log.error("background_refused", part_name=name, problem=str(error))  # noqa: TRY400 - a sentence is enough
        except Exception as error:
            log.exception("background_failed", part_name=name, error=type(error).__name__)
        wait = 0.2 if monotonic() - began > 30 else min(wait * 2, 10.0)
        await pause(stopping, wait)


async def _health_server(app: AsgiApp, settings: Settings, stopping: asyncio.Event) -> None:
    await serve(
        app,
        settings.http_host,
        settings.http_port,
        stopping,
        on_bound=lambda port: log.info("health_listening", host=settings.http_host, port=port),
        drain_seconds=1.0,
    )


async def _stop(
    runtime: Runtime,
    workers: Sequence[Worker[Any]],
    endless: Sequence[asyncio.Task[None]],
    backgrounds: Sequence[asyncio.Task[Any]],
) -> int:
    """Intake first, then the loops, then the pool; each within its part of the grace time, whatever the others do."""
    began = monotonic()
    grace = runtime.settings.grace_seconds
    log.info("stopping", grace_seconds=grace)
    for one in endless:
        one.cancel()
    if backgrounds:
        await asyncio.wait(backgrounds, timeout=grace / 4)
    in_time = await _finish("background", [*backgrounds, *endless], grace / 20, is_cancelled=True)
    # What is left, but for what the steps behind need.
    left = grace * 0.85 - (monotonic() - began)
    stops = [asyncio.create_task(worker.stop()) for worker in workers]
    in_time &= await _finish("worker", stops, max(left, grace / 10))
    await _close_tracing(runtime.tracing, grace / 20)
    try:
        async with asyncio.timeout(grace / 20):
            await runtime.pool.close()
    except Exception as error:  # noqa: BLE001 - a connection that does not end by asking is cut
        log.warning("pool_terminated", error=type(error).__name__)
        runtime.pool.terminate()
    seconds = round(monotonic() - began, 2)
    if not in_time:
        log.error("stop_took_too_long", seconds=seconds)
        return 1
    log.info("stopped", seconds=seconds)
    return 0


async def _finish(
    what: str, tasks: Sequence[asyncio.Task[Any]], seconds: float, *, is_cancelled: bool = False
) -> bool:
    """Let tasks end within `seconds`, cancelled first or in the end; say what failed. False where one does not end."""
    if not tasks:
        return True
    if is_cancelled:
        for task in tasks:
            task.cancel()
    done, late = await asyncio.wait(tasks, timeout=seconds)
    for task in late:
        task.cancel()
    for task in done:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("stop_failed", part_name=what, error=type(error).__name__, exc_info=error)
    if late:
        log.error("stop_cut_short", part_name=what, tasks=sorted(task.get_name() for task in late))
    return not late


async def _close_tracing(tracing: Tracing, seconds: float) -> None:
    """Send the last spans, if the collector takes them in time. In a daemon thread: a pool's thread would be waited for."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    def close() -> None:
        try:
            tracing.close()
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=close, name="tracing close", daemon=True).start()
    try:
        async with asyncio.timeout(seconds):
            await closed.wait()
    except TimeoutError:
        log.warning("traces_lost", seconds=seconds)
