"""`signalbox sla …`: the business calendar's arithmetic, without a broker or a database.

NDJSON on standard input, NDJSON in the same order on standard output, one line an input. A line that cannot be handled
answers `{"id": …, "error": "…"}`, and the exit code stays 0.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

import typer

app = typer.Typer(
    help="Business time: when a target is due, how much of it has passed.", no_args_is_help=True
)

Batch = Annotated[
    bool,
    typer.Option("--batch", help="Read NDJSON from standard input. There is no other way yet."),
]
LineFunction = Callable[[object], dict[str, object]]


@app.command()
def due(batch: Batch = True) -> None:
    """When is a target of so many open seconds due?

    {"id", "calendar"?, "start", "seconds", "pauses"?} → {"id", "due"}
    """
    from services.sla.core.batch import due_line

    _run(due_line, batch)


@app.command()
def elapsed(batch: Batch = True) -> None:
    """How many open seconds lie between two instants?

    {"id", "calendar"?, "start", "end", "pauses"?} → {"id", "seconds"}
    """
    from services.sla.core.batch import elapsed_line

    _run(elapsed_line, batch)


@app.command("open")
def is_open(batch: Batch = True) -> None:
    """Is the calendar open then, and if not, when does it open?

    {"id", "calendar"?, "at"} → {"id", "open", "next"}
    """
    from services.sla.core.batch import open_line

    _run(open_line, batch)


def _run(function: LineFunction, batch: bool) -> None:
    del batch
    out = sys.stdout.buffer
    for answer in answers(function, sys.stdin.buffer):
        out.write(answer + b"\n")
        out.flush()


def answers(function: LineFunction, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Answer each line that is not blank, in order."""
    import msgspec

    for raw in lines:
        line = raw.strip()
        if not line:
            continue
        try:
            asked = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield msgspec.json.encode({"id": None, "error": f"line: is not JSON ({error})"})
            continue
        yield msgspec.json.encode(function(asked))
