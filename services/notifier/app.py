"""The notifier's composition root: settings in, running parts out."""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chassis import logs
from chassis.lifecycle import Application, Runtime, run
from chassis.policy import PolicyHolder
from chassis.vendor_guard import Guard
from services.notifier.adapters.api import AccountApi, client
from services.notifier.adapters.sending import Sending
from services.notifier.adapters.smtp import SmtpOptions, SmtpProvider
from services.notifier.backlog import Backlog
from services.notifier.core.links import without_way_out
from services.notifier.feedback_stage import FeedbackStage
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.settings import NotifierSettings
from services.notifier.suggesting import SEARCH_SECONDS, Suggesting

FOLLOW_SECONDS: Final = 5.0
"""How long an account that has left the policy keeps its connections."""

log = logs.get("notifier")


def application(settings: NotifierSettings) -> Application:
    """Put the notifier together.

    Raises:
        PolicyError: the policy folder cannot be used.
    """
    policies = PolicyHolder(settings.policy, POLICY)
    lacking = without_way_out(policies.current, settings.public_url)
    if lacking:
        log.warning(
            "no_way_out",
            occasions=lacking,
            reason="SIGNALBOX_PUBLIC_URL is no https address, so mails have no List-Unsubscribe",
            cure="set it to the gateway's address, or turn these occasions off in notify.yaml",
        )
    guard = Guard(settings.inner_host_names)
    sending = Sending(
        SmtpProvider(smtp_options(settings)),
        lambda: policies.current.accounts,
        lambda: client(settings.provider_seconds, guard),
        seconds=settings.provider_seconds,
    )

    suggesting = Suggesting(
        lambda: policies.current.articles,
        lambda given: AccountApi(given, client(SEARCH_SECONDS, guard), seconds=SEARCH_SECONDS),
    )

    async def follow(runtime: Runtime) -> None:
        """Keep no connection for an account that has left the policy, and none at all beyond the process' own end."""
        while not runtime.stopping.is_set():
            await sending.follow_policy()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_SECONDS):
                    await runtime.stopping.wait()
        await sending.close()

    return Application(
        service="notifier",
        sql=Path(__file__).with_name("sql"),
        stages=(NotifierStage(policies, settings, sending, suggesting), FeedbackStage()),
        policies=policies,
        background=(follow, suggesting.keep_shelf, Backlog(lambda: policies.current).watch),
    )


def smtp_options(settings: NotifierSettings) -> SmtpOptions:
    """Return how to reach the mail server."""
    return SmtpOptions(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        user=settings.smtp_user,
        password=settings.smtp_password.get_secret_value(),
        helo=settings.smtp_helo,
        connections=settings.smtp_connections,
        connect_seconds=settings.smtp_connect_seconds,
        command_seconds=settings.smtp_command_seconds,
        accept_seconds=settings.smtp_accept_seconds,
        idle_seconds=settings.smtp_idle_seconds,
    )


def main(argv: Sequence[str]) -> int:
    """Run the notifier; return the process' exit code."""
    return run(application, NotifierSettings, argv)
