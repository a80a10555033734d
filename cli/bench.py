"""`signalbox bench …`: measure on this machine, beside the limits of the same run."""

import asyncio
import tempfile
from pathlib import Path

import typer
from rich.console import Console

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
    from chassis.local import start_platform

    errors = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="signalbox-bench-") as folder:
        Path(folder).chmod(0o755)
        with errors.status("starting Kafka and PostgreSQL") as status:
            platform = start_platform(Path(folder))
            try:
                options = HopOptions(events=events, seconds=seconds)
                report = asyncio.run(run(platform, options, lambda text: status.update(text)))
                report.settings["platform"] = platform.description
            finally:
                platform.remove()
    if json:
        typer.echo(report.to_json())
    else:
        report.show(Console())
