"""`signalbox sla …`: the business calendar's arithmetic, without a broker or a database.

NDJSON on standard input, NDJSON in the same order on standard output, one line an input. A line that cannot be handled
answers `{"id": …, "error": "…"}`, and the exit code stays 0.
"""

from typing import Annotated

import typer

from cli.batch import run

app = typer.Typer(
    help="Business time: when a target is due, how much of it has passed.", no_args_is_help=True
)

Batch = Annotated[
    bool,
    typer.Option("--batch", help="Read NDJSON from standard input. There is no other way yet."),
]


@app.command()
def due(batch: Batch = True) -> None:
    """When is a target of so many open seconds due?

    {"id", "calendar"?, "start", "seconds", "pauses"?} → {"id", "due"}
    """
    from services.sla.core.batch import due_line

    del batch
    run(due_line)


@app.command()
def elapsed(batch: Batch = True) -> None:
    """How many open seconds lie between two instants?

    {"id", "calendar"?, "start", "end", "pauses"?} → {"id", "seconds"}
    """
    from services.sla.core.batch import elapsed_line

    del batch
    run(elapsed_line)


@app.command("open")
def is_open(batch: Batch = True) -> None:
    """Is the calendar open then, and if not, when does it open?

    {"id", "calendar"?, "at"} → {"id", "open", "next"}
    """
    from services.sla.core.batch import open_line

    del batch
    run(open_line)
