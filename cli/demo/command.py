"""`signalbox demo`: its options, and the order in which a demo begins and ends."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Leave everything running at the end, and say where to look."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object in the last line.")
    ] = False,
    rate: Annotated[float, typer.Option(min=0.2, max=50, help="Messages a second.")] = 3.0,
    kill: Annotated[
        bool,
        typer.Option("--kill", help="Kill the services (kill -9) again and again while it runs."),
    ] = False,
    kill_seed: Annotated[int, typer.Option(help="Which services are killed, and when.")] = 1,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            help="Where servers and services keep their data; else SIGNALBOX_DATA_DIR.",
        ),
    ] = None,
) -> None:
    """Play a day of a small shop: mail and forms become tickets, agents answer, clocks run, customers are told.

    Kafka and PostgreSQL are real ones: those that SIGNALBOX_KAFKA and SIGNALBOX_DATABASE_URL name, else servers of its
    own. Exit code 0 when the sums of the summary come out.
    """
    from cli.demo.run import Options, play
    from cli.up import data_folder

    options = Options(
        data_dir=data_folder(data_dir),
        keep=keep,
        as_json=as_json,
        rate=rate,
        kill=kill,
        kill_seed=kill_seed,
    )
    raise typer.Exit(play(options))
