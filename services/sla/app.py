"""Composition root: settings in, running parts out."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from chassis import logs
from chassis.clock import pause
from chassis.ledger import ACQUIRE_SECONDS, DRIVER_ERRORS
from chassis.lifecycle import Application, Runtime, run
from chassis.policy import PolicyHolder
from services.sla import case_store, labels, metrics, page_store, recount_orders
from services.sla.calendar_feeds import FedPolicies, FeedFetcher, FeedReader
from services.sla.estimates import EstimatesKeeper
from services.sla.handlers import POLICY, SlaStage
from services.sla.pager import Pager, PolicySource
from services.sla.settings import Settings

log = logs.get("sla")


def application(settings: Settings) -> Application:
    """Put the service together.

    Raises:
        PolicyError: `sla.yaml` or `calendars.yaml` says something that cannot work.
    """
    policies = PolicyHolder(settings.policy, POLICY)
    fed = FedPolicies(policies)
    stage = SlaStage(fed)
    keeper = EstimatesKeeper(lambda: fed.current)
    stage.take_estimates(lambda: keeper.current)

    metrics.use(labels.read(settings.policy))

    async def watch_orders(runtime: Runtime) -> None:
        await recount_orders.watch(runtime, stage.take_orders)

    async def watch_open_targets(runtime: Runtime) -> None:
        await _watch_open_targets(runtime, settings.policy, settings.sla_gauge_seconds)

    async def send_pages(runtime: Runtime) -> None:
        await _pager(runtime, settings, lambda: policies.current.pages).run(runtime.stopping)

    return Application(
        service="sla",
        sql=Path(__file__).with_name("sql"),
        stages=(stage,),
        policies=policies,
        prelude=keeper.first_look,
        background=(
            watch_open_targets,
            watch_orders,
            send_pages,
            keeper.keep_estimates,
            FeedReader(fed).read_calendar_feeds,
            FeedFetcher(fed).fetch_calendar_feeds,
        ),
    )


def _pager(runtime: Runtime, settings: Settings, pages: PolicySource) -> Pager:
    return Pager(
        dsn=settings.dsn,
        pages=pages,
        clock=runtime.clock,
        workspace=settings.workspace,
        console_url=settings.console_url,
    )


async def _watch_open_targets(runtime: Runtime, policy: Path, seconds: float) -> None:
    """Keep the gauges of what is open up to date until the process stops, with the policy's names.

    A database that does not answer leaves the last figures: the loop, which needs it more, says so.
    """
    gauges = metrics.OpenGauges()
    while not runtime.stopping.is_set():
        known = await asyncio.to_thread(labels.read, policy)
        if known != metrics.labels():
            metrics.use(known)
        try:
            async with runtime.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                targets = await case_store.open_targets(connection)
                backlog = await case_store.backlog(connection)
                contacts = await case_store.contacts(connection)
                unread = await page_store.oldest_change(connection)
        except DRIVER_ERRORS as error:
            log.warning("open_targets_not_counted", error=type(error).__name__)
        else:
            gauges.show(targets, backlog)
            metrics.show_contacts(contacts)
            metrics.show_unread(unread, runtime.clock.now())
        await pause(runtime.stopping, seconds)


def main(argv: Sequence[str]) -> int:
    """Run the command that `argv` names, `serve` or `check`; return the process' exit code."""
    return run(application, Settings, argv)
