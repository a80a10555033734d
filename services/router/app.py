"""Composition root: settings in, running parts out."""

from collections.abc import Sequence
from pathlib import Path

from chassis.lifecycle import Application, run
from chassis.policy import PolicyHolder
from services.router import elsewhere
from services.router.handlers import POLICY, AssignmentStage, TicketsStage
from services.router.queue_lengths import Lengths
from services.router.settings import Settings


def application(settings: Settings) -> Application:
    """Put the service together.

    Raises:
        PolicyError: `routing.yaml` is missing, or it, `agents.yaml` or a name of `sla.yaml` is wrong.
    """
    policies = PolicyHolder(settings.policy, POLICY)
    lengths = Lengths(policies)
    told_elsewhere, follower = elsewhere.stages(policies, settings.vendor_seconds)
    return Application(
        service="router",
        sql=Path(__file__).with_name("sql"),
        stages=(TicketsStage(policies, lengths), AssignmentStage(policies), *told_elsewhere),
        policies=policies,
        background=(follower, lengths.keep),
    )


def main(argv: Sequence[str]) -> int:
    """Run the service from the command line; return the exit code."""
    return run(application, Settings, argv)
