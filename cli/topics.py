"""`signalbox topics …`: the topics on the broker."""

import asyncio
from typing import Annotated

import typer

app = typer.Typer(help="The topics on the broker.", no_args_is_help=True)


@app.command()
def apply(
    replication: Annotated[
        int | None,
        typer.Option(
            min=1, help="Copies of each topic; else three, or as many as there are brokers."
        ),
    ] = None,
) -> None:
    """Make the topics that are missing. One that exists is never changed."""
    from chassis.topics import apply_topics
    from cli.environment import common

    changes = asyncio.run(apply_topics(common(), replication))
    for change in changes:
        typer.echo(
            f"{'made   ' if change.is_new else 'exists '} {change.name} ({change.partitions} partitions)"
        )


@app.command()
def check() -> None:
    """Compare the topics with what is needed; exit code 1 where something is wrong."""
    from chassis.topics import check_topics
    from cli.environment import common

    findings = asyncio.run(check_topics(common()))
    for finding in findings:
        typer.echo(f"{finding.topic}: {finding.problem}. {finding.cure}.")
    if findings:
        raise typer.Exit(1)
    typer.echo("All topics are there, with the right number of partitions.")
