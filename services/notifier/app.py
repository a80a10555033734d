"""The notifier's composition root: settings in, running parts out."""

from collections.abc import Sequence
from pathlib import Path

from chassis.lifecycle import Application, Runtime, run
from chassis.policy import PolicyHolder
from services.notifier.adapters.smtp import SmtpOptions, SmtpProvider
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.settings import NotifierSettings


def application(settings: NotifierSettings) -> Application:
    """Put the notifier together.

    Raises:
        PolicyError: the policy folder cannot be used.
    """
    policies = PolicyHolder(settings.policy, POLICY)
    provider = SmtpProvider(smtp_options(settings))

    async def say_goodbye(runtime: Runtime) -> None:
        """Keep no connection to the mail server beyond the process' own end."""
        await runtime.stopping.wait()
        await provider.close()

    return Application(
        service="notifier",
        sql=Path(__file__).with_name("sql"),
        stages=(NotifierStage(policies, settings, provider),),
        policies=policies,
        background=(say_goodbye,),
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
