"""`signalbox bench …`: measure on this machine, beside the limits of the same run."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from bench.report import Report
    from chassis.local import Platform

Work = Callable[["Platform", Callable[[str], None]], Coroutine[Any, Any, "Report"]]

app = typer.Typer(
    help="Measure: each figure beside the limit of the same run.", no_args_is_help=True
)


@app.callback()
def bench() -> None:
    """Measure on this machine; needs nothing prepared."""


@app.command()
def hop(
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    events: int = typer.Option(60_000, min=2_000, help="Events of the throughput run."),
    seconds: float = typer.Option(12.0, min=2, help="Seconds at each rate of the latency runs."),
) -> None:
    """One service, broker to broker, durable: events a second, latency, CPU an event."""
    from bench.hop import HopOptions, run

    options = HopOptions(events=events, seconds=seconds)
    _measure(lambda platform, say: run(platform, options, say), as_json=json)


@app.command()
def path(
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    rate: int = typer.Option(200, min=1, help="Messages a second."),
    seconds: float = typer.Option(20.0, min=2, help="For how long."),
    hops: bool = typer.Option(
        False, "--hops", help="Also each leg of the way, and each process' share of a processor."
    ),
) -> None:
    """A customer's message accepted → offered to a person, through all services, at a fixed rate."""
    from bench.path import PathOptions, run

    options = PathOptions(rate=rate, seconds=seconds, hops=hops)
    _measure(lambda platform, say: run(platform, options, say), as_json=json)


@app.command()
def gateway(
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    requests: int = typer.Option(30_000, min=1_000, help="Requests of each run at full speed."),
    connections: int = typer.Option(256, min=1, max=1_000, help="Connections that stay open."),
    rate: int = typer.Option(500, min=1, help="Requests a second of the latency run."),
    seconds: float = typer.Option(20.0, min=2, help="For how long."),
) -> None:
    """The front door, durable, beside a bare echo of the same server: requests a second, latency, CPU a request."""
    from bench.gateway import GatewayOptions, run

    options = GatewayOptions(requests, connections, rate, seconds)
    _measure(lambda platform, say: run(platform, options, say), as_json=json)


@app.command()
def normalize(
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    mails: int = typer.Option(2_000, min=100, help="Mails of 5 to 50 kB, made from the seed."),
    seed: int = typer.Option(20_261_124, help="The same seed makes the same mails."),
) -> None:
    """Raw mails to messages on one core, beside the standard library's reader on the same mails."""
    from bench.normalize import NormalizeOptions, run

    with Console(stderr=True).status(f"reading {mails} mails"):
        report = run(NormalizeOptions(count=mails, seed=seed))
    _print(report, as_json=json)


@app.command()
def router(
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    agents: int = typer.Option(10_000, min=50, max=100_000, help="Agents of the domain."),
    waiting: int = typer.Option(200_000, min=100, help="Tickets that wait."),
    queues: int = typer.Option(1_000, min=4, help="Queues."),
    requirements: int = typer.Option(1_500, min=10, help="Different requirements."),
    decisions: int = typer.Option(20_000, min=500, help="Tickets that are finished or come."),
    teams: bool = typer.Option(
        False, "--teams", help="Agents belong to teams that lend each other people."
    ),
    curve: bool = typer.Option(
        True, help="Also smaller domains, to show what the cost grows with."
    ),
    durable: bool = typer.Option(
        True, help="Also a router process on a real Kafka and PostgreSQL, with a domain that large."
    ),
    rate: int = typer.Option(500, min=1, help="Inputs a second of the durable latency run."),
) -> None:
    """Assignment with its record: the core's decisions in CPU time, memory and load; then durable, broker to broker."""
    from bench.router import RouterOptions, run
    from bench.router_durable import measure

    options = RouterOptions(
        agents, waiting, queues, requirements, decisions, teams, curve, durable_rate=rate
    )
    with Console(stderr=True).status("making the domain") as status:
        report = run(options, status.update)
    if not durable:
        _print(report, as_json=json)
        return

    async def whole(platform: "Platform", say: Callable[[str], None]) -> "Report":
        report.figures |= await measure(platform, options, say)
        return report

    _measure(whole, as_json=json)


@app.command()
def sla(
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    targets: int = typer.Option(1_000_000, min=2_000, help="Open targets that stand."),
    burst: int = typer.Option(100_000, min=100, help="Deadlines within one second."),
    moved: int = typer.Option(
        100_000, min=100, help="Targets, of those that stand, whose calendar changes."
    ),
    opened: int = typer.Option(10_000, min=100, help="Tickets opened as fast as they go."),
    seconds: float = typer.Option(20.0, min=2, help="For how long deadlines pass one by one."),
) -> None:
    """A million open targets, durable: detection, a burst, a restart, a changed calendar. About 2 GB of disk."""
    from bench.sla import SlaOptions, run

    options = SlaOptions(targets, burst, moved, opened, seconds)
    _measure(lambda platform, say: run(platform, options, say), as_json=json)


@app.command()
def notifier(
    json: bool = typer.Option(False, "--json", help="Print one JSON object and nothing else."),
    notices: int = typer.Option(1_000, min=100, help="Answers that go out as fast as they go."),
    rate: int = typer.Option(10, min=1, help="Answers a second and account of the latency runs."),
    seconds: float = typer.Option(15.0, min=2, help="Seconds of each latency run."),
    vendor_seconds: float = typer.Option(0.04, min=0.001, help="What a vendor takes for one."),
) -> None:
    """Answers to vendors and by mail, beside the vendors' own limits; and what one that hangs costs the others."""
    from bench.notifier import NotifierOptions, run

    options = NotifierOptions(notices, rate, seconds, vendor_seconds)
    _measure(lambda platform, say: run(platform, options, say), as_json=json)


def _measure(work: Work, *, as_json: bool) -> None:
    from chassis.local import start_platform

    errors = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="signalbox-bench-") as folder:
        Path(folder).chmod(0o755)  # Run as root, PostgreSQL has to reach its data as another user.
        with errors.status("starting Kafka and PostgreSQL") as status:
            platform = start_platform(Path(folder))
            try:
                report = asyncio.run(work(platform, status.update))
                report.settings["platform"] = platform.description
            finally:
                platform.remove()
    _print(report, as_json=as_json)


def _print(report: "Report", *, as_json: bool) -> None:
    if as_json:
        typer.echo(report.to_json())
    else:
        report.show(Console())
