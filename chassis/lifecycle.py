"""A service's life: settings in, running parts out, and a clean end.

SIGTERM or SIGINT: stop intake, finish what is in hand, flush the relay, leave the group, exit 0 within the grace time.
A database or a broker that is away is waited for, never exited over.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import uvloop
from aiokafka.errors import KafkaError

from chassis import logs
from chassis.clock import Clock, SystemClock, monotonic
from chassis.errors import ConfigurationError, PolicyError, SignalboxError
from chassis.failpoints import Failpoints
from chassis.health import Check, Health
from chassis.ledger import open_pool
from chassis.migrate import is_current
from chassis.policy import PolicyHolder
from chassis.settings import Settings, load_settings
from chassis.stage import Stage
from chassis.task import Worker
from chassis.tracing import Tracing
from chassis.web import serve

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
            return runner.run(_serve(application, settings, arguments.stage))
    except PolicyError as error:
        print(f"policy refused: {error}", file=sys.stderr)  # noqa: T201
    except (ConfigurationError, SignalboxError) as error:
        print(str(error), file=sys.stderr)  # noqa: T201
    return 2


async def _serve(application: Application, settings: Settings, stage: str) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    pool = await _open_database(application, settings, stopping)
    if pool is None:
        return 0
    log_path = settings.failpoint_log
    failpoints = Failpoints(settings.failpoints, Path(log_path) if log_path else None)
    health = Health(application.service, pool)
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
    backgrounds = [
        asyncio.create_task(_supervise(part, runtime)) for part in application.background
    ]
    backgrounds.append(asyncio.create_task(_supervise(_health_server, runtime)))
    endless = [asyncio.create_task(_join(worker, stopping)) for worker in workers]
    if application.policies is not None:
        endless.append(asyncio.create_task(application.policies.watch()))
    log.info("started", stages=[worker.stage.name for worker in workers])
    await stopping.wait()
    return await _stop(runtime, workers, endless, backgrounds)


async def _open_database(
    application: Application, settings: Settings, stopping: asyncio.Event
) -> asyncpg.Pool | None:
    """Wait for a database with all migrations; None where the process is told to stop first."""
    wait = 0.2
    while not stopping.is_set():
        try:
            if await is_current(settings.dsn, application.service, (application.sql,)):
                return await open_pool(
                    settings.dsn,
                    application.service,
                    settings.database_pool,
                    f"signalbox {application.service}",
                )
            log.warning("migrations_missing", cure="run `signalbox db migrate`", wait_seconds=wait)
        except (asyncpg.PostgresError, OSError, TimeoutError) as error:
            log.warning("database_unreachable", error=type(error).__name__, wait_seconds=wait)
        await _pause(stopping, wait)
        wait = min(wait * 2, 5.0)
    return None


async def _join(worker: Worker[Any], stopping: asyncio.Event) -> None:
    wait = 0.2
    while not stopping.is_set():
        try:
            await worker.start()
        except (KafkaError, OSError, TimeoutError) as error:
            log.warning(
                "broker_unreachable",
                stage=worker.stage.name,
                error=type(error).__name__,
                wait_seconds=wait,
            )
            await _pause(stopping, wait)
            wait = min(wait * 2, 5.0)
        else:
            return


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return


async def _supervise(part: Background, runtime: Runtime) -> None:
    name = getattr(part, "__name__", type(part).__name__)
    wait = 0.2
    while not runtime.stopping.is_set():
        began = monotonic()
        try:
            await part(runtime)
            if runtime.stopping.is_set():
                return
            log.error("background_ended", part_name=name)
        except asyncio.CancelledError:
            raise
        except ConfigurationError as error:
            log.error("background_refused", part_name=name, problem=str(error))  # noqa: TRY400 - a sentence is enough
        except Exception as error:
            log.exception("background_failed", part_name=name, error=type(error).__name__)
        wait = 0.2 if monotonic() - began > 30 else min(wait * 2, 10.0)
        await _pause(runtime.stopping, wait)


async def _health_server(runtime: Runtime) -> None:
    settings: Settings = runtime.settings
    await serve(
        runtime.health,
        settings.http_host,
        settings.http_port,
        runtime.stopping,
        on_bound=lambda port: log.info("health_listening", host=settings.http_host, port=port),
        drain_seconds=1.0,
    )


async def _stop(
    runtime: Runtime,
    workers: Sequence[Worker[Any]],
    endless: Sequence[asyncio.Task[None]],
    backgrounds: Sequence[asyncio.Task[Any]],
) -> int:
    """Intake first, then the loops, then the pool; bounded by the grace time."""
    began = monotonic()
    log.info("stopping", grace_seconds=runtime.settings.grace_seconds)
    try:
        async with asyncio.timeout(runtime.settings.grace_seconds):
            for one in endless:
                one.cancel()
            await asyncio.wait(backgrounds, timeout=runtime.settings.grace_seconds / 3)
            for background in backgrounds:
                background.cancel()
            await asyncio.gather(*backgrounds, *endless, return_exceptions=True)
            await asyncio.gather(*(worker.stop() for worker in workers))
            runtime.tracing.close()
            await runtime.pool.close()
    except TimeoutError:
        log.exception("stop_took_too_long", seconds=round(monotonic() - began, 1))
        return 1
    log.info("stopped", seconds=round(monotonic() - began, 2))
    return 0
