"""`signalbox sla …`: business time, what became of promises, and why.

`due`, `elapsed` and `open` need neither a broker nor a database. With `--batch` they read NDJSON on standard input and
write NDJSON in the same order on standard output, one line an input: a line that cannot be handled answers
`{"id": …, "error": "…"}`, and the exit code stays 0. Without, they answer one question about a calendar of the policy.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import sla_calendars, sla_explain, sla_recount, sla_report
from cli.batch import run
from cli.errors import UsageMistake
from cli.places import policy_folder

if TYPE_CHECKING:
    from cli.sla_single import Answer

app = typer.Typer(
    help="What was promised: business time, reports, the life of a clock.", no_args_is_help=True
)

app.command()(sla_report.report)
app.command()(sla_explain.explain)
app.command()(sla_calendars.calendars)
app.command()(sla_recount.recount)
app.command()(sla_recount.diff)
app.add_typer(sla_report.orders, name="orders")

Batch = Annotated[
    bool,
    typer.Option("--batch", help="Read NDJSON from standard input, a question a line."),
]
CalendarName = Annotated[str, typer.Option("--calendar", help="A calendar of calendars.yaml.")]
PolicyFolder = Annotated[
    Path | None,
    typer.Option("--policy", metavar="DIR", help="The policy folder; else as for every command."),
]
Pauses = Annotated[
    list[str] | None,
    typer.Option(
        "--pause", metavar="FROM/TO", help="The clock stood then; `FROM/`: it still stands."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of words.")]
Start = Annotated[
    str,
    typer.Option("--start", metavar="INSTANT", help="Local time of the calendar, or with offset."),
]


@app.command()
def due(
    batch: Batch = False,
    calendar: CalendarName = "",
    policy: PolicyFolder = None,
    start: Start = "",
    within: Annotated[
        str, typer.Option("--within", metavar="LENGTH", help="Open time: 4h, 1h30m, 45s.")
    ] = "",
    pause: Pauses = None,
    as_json: AsJson = False,
) -> None:
    """When is a target of so much open time due?

    --batch: {"id", "calendar"?, "start", "seconds", "pauses"?} → {"id", "due"}
    """
    if _is_batch(batch, calendar, start, within):
        from services.sla.core.batch import due_line

        run(due_line)
        return
    from cli import sla_single, sla_words

    _needed({"--calendar": calendar, "--start": start, "--within": within})
    found = sla_single.chosen(_folder(policy), calendar)
    _answer(
        sla_single.due(
            calendar,
            found,
            sla_words.instant("--start", start, found.zone),
            sla_single.amount(within),
            sla_single.pauses(pause or (), found.zone),
        ),
        as_json,
    )


@app.command()
def elapsed(
    batch: Batch = False,
    calendar: CalendarName = "",
    policy: PolicyFolder = None,
    start: Start = "",
    end: Annotated[
        str, typer.Option("--end", metavar="INSTANT", help="As --start; left out: now.")
    ] = "",
    pause: Pauses = None,
    as_json: AsJson = False,
) -> None:
    """How much open time lies between two instants?

    --batch: {"id", "calendar"?, "start", "end", "pauses"?} → {"id", "seconds"}
    """
    if _is_batch(batch, calendar, start, end):
        from services.sla.core.batch import elapsed_line

        run(elapsed_line)
        return
    from cli import sla_single, sla_words

    _needed({"--calendar": calendar, "--start": start})
    found = sla_single.chosen(_folder(policy), calendar)
    until = (
        sla_words.instant("--end", end, found.zone)
        if end
        else datetime.now(UTC).replace(microsecond=0)
    )
    _answer(
        sla_single.elapsed(
            calendar,
            found,
            sla_words.instant("--start", start, found.zone),
            until,
            sla_single.pauses(pause or (), found.zone),
        ),
        as_json,
    )


@app.command("open")
def is_open(
    batch: Batch = False,
    calendar: CalendarName = "",
    policy: PolicyFolder = None,
    at: Annotated[
        str, typer.Option("--at", metavar="INSTANT", help="As --start of `due`; left out: now.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Is the calendar open then, and when does that change?

    --batch: {"id", "calendar"?, "at"} → {"id", "open", "next"}
    """
    if _is_batch(batch, calendar, at):
        from services.sla.core.batch import open_line

        run(open_line)
        return
    from cli import sla_single, sla_words

    _needed({"--calendar": calendar})
    found = sla_single.chosen(_folder(policy), calendar)
    moment = (
        sla_words.instant("--at", at, found.zone)
        if at
        else datetime.now(UTC).replace(microsecond=0)
    )
    _answer(sla_single.is_open(calendar, found, moment), as_json)


def _is_batch(asked: bool, *given: str) -> bool:
    """Whether to read standard input: asked for, or nothing else was said and something is piped in."""
    return asked or (not any(given) and not sys.stdin.isatty())


def _needed(options: dict[str, str]) -> None:
    missing = [name for name, value in options.items() if not value]
    if missing:
        raise UsageMistake(
            f"{', '.join(missing)} missing; give {', '.join(options)}, or --batch with NDJSON on standard input."
        )


def _folder(given: Path | None) -> Path:
    return policy_folder() if given is None else given


def _answer(answer: "Answer", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer.data))
        return
    for line in answer.lines:
        typer.echo(line)
