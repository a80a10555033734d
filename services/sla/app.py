"""Composition root: settings in, running parts out."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import asyncpg

from chassis import logs
from chassis.clock import pause
from chassis.lifecycle import Application, Runtime, run
from chassis.policy import PolicyHolder
from services.sla import metrics, store
from services.sla.core.state import KINDS
from services.sla.handlers import POLICY, SlaStage
from services.sla.settings import Settings

log = logs.get("sla")


def application(settings: Settings) -> Application:
    """Put the service together.

    Raises:
        PolicyError: `sla.yaml` or `calendars.yaml` says something that cannot work.
    """
    policies = PolicyHolder(settings.policy, POLICY)

    async def watch_open_targets(runtime: Runtime) -> None:
        await _watch_open_targets(runtime, settings.sla_gauge_seconds)

    return Application(
        service="sla",
        sql=Path(__file__).with_name("sql"),
        stages=(SlaStage(policies),),
        policies=policies,
        background=(watch_open_targets,),
    )


async def _watch_open_targets(runtime: Runtime, seconds: float) -> None:
    """Keep the gauge of open targets up to date until the process stops.

    A database that does not answer leaves the last figures: the loop, which needs it more, says so.
    """
    while not runtime.stopping.is_set():
        try:
            async with runtime.pool.acquire() as connection:
                found = await store.open_targets(connection)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            log.warning("open_targets_not_counted", error=type(error).__name__)
        else:
            for kind, status in product(KINDS, metrics.OPEN_STATUSES):
                metrics.OPEN_TARGETS.labels(kind, status).set(found.get((kind, status), 0))
        await pause(runtime.stopping, seconds)


def main(argv: Sequence[str]) -> int:
    """Run the command that `argv` names, `serve` or `check`; return the process' exit code."""
    return run(application, Settings, argv)
