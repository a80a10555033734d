"""`signalbox import csv`: messages out of a table, through the gateway's durable door."""

import asyncio
import csv
import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.database import spooling
from cli.errors import CommandError, UsageMistake

if TYPE_CHECKING:
    from chassis.spool import Spool
    from services.ingest.adapters.channel import Delivery
    from services.ingest.adapters.csv_rows import Settings
    from services.ingest.settings import IngestSettings

app = typer.Typer(help="Messages out of files.", no_args_is_help=True)

_AT_ONCE = 200
"""Rows handed to the spool together: they share one commit."""
_PROBLEMS_SHOWN = 20


@app.callback()
def _group() -> None:
    """Messages out of files."""


@app.command("csv")
def import_csv(
    path: Annotated[Path, typer.Argument(help="A table: its first line names the columns.")],
    account: Annotated[
        str, typer.Option(help="Account of channel `csv` in channels.yaml; it may rename columns.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Read it all and take in nothing.")
    ] = False,
    skip_wrong: Annotated[
        bool,
        typer.Option(
            "--skip-wrong", help="Take in the good rows; write the wrong ones to FILE.rejected.csv."
        ),
    ] = False,
) -> None:
    """Take in a table's rows as messages: each is in PostgreSQL when this ends.

    Every row is read before the first is taken in; wrong ones are told by line and column. Ingest need not run. A file
    that is imported again changes nothing.
    """
    from chassis.policy import load
    from cli.environment import settings
    from cli.parts import policy_files, settings_type
    from cli.places import policy_folder
    from services.ingest.adapters.channel import ParseError
    from services.ingest.adapters.csv_rows import Settings
    from services.ingest.settings import IngestSettings

    if not path.is_file():
        raise UsageMistake(f"{path} is no file.")
    channels = load(policy_folder(), policy_files("ingest"))
    found = channels.channel_accounts.get(account)
    if found is None or not isinstance(found[1], Settings):
        names = [name for name, (kind, _) in channels.channel_accounts.items() if kind == "csv"]
        raise UsageMistake(
            f"--account {account}: the csv accounts of channels.yaml are {', '.join(names) or 'none'};"
            " add `channels: {NAME: {channel: csv}}`."
        )
    try:
        header, rows = _table(path, found[1])
    except ParseError as error:
        raise CommandError(f"{path}: {error.detail}.") from None
    good, wrong = _sorted_out(header, rows, account, found[1])
    for line, problem, _ in wrong[:_PROBLEMS_SHOWN]:
        typer.echo(f"line {line}: {problem}", err=True)
    if len(wrong) > _PROBLEMS_SHOWN:
        typer.echo(f"… and {len(wrong) - _PROBLEMS_SHOWN} more", err=True)
    if check:
        typer.echo(f"{len(good)} rows are good, {len(wrong)} are wrong; nothing was taken in.")
        if wrong:
            raise typer.Exit(1)
        return
    if wrong and not skip_wrong:
        raise CommandError(
            f"{len(wrong)} of {len(good) + len(wrong)} rows are wrong, so none was taken in. Mend them, or use --skip-wrong."
        )
    if wrong:
        rejected = path.with_name(f"{path.name}.rejected.csv")
        rejected.write_text(
            "".join([_line(header), *(_line(cells) for _, _, cells in wrong)]), encoding="utf-8"
        )
        typer.echo(f"{len(wrong)} wrong rows stand in {rejected}.")
    own = settings(settings_type("ingest"))
    assert isinstance(own, IngestSettings)
    stored, repeated = asyncio.run(_store(good, account, own))
    again = f"; {repeated} had been imported before" if repeated else ""
    typer.echo(f"{stored} rows taken in for {account}{again}.")


def _table(path: Path, settings: "Settings") -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Return a table's header, and its rows with their lines."""
    from services.ingest.adapters import csv_rows
    from services.ingest.adapters.channel import ParseError

    text = csv_rows.text_of_table(path.read_bytes(), settings.charset)
    delimiter = csv_rows.delimiter_of(text.partition("\n")[0])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    filled = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
    first = next(filled, None)
    if first is None:
        raise ParseError("empty", "the table is empty", "body")
    csv_rows.columns_of(first[1], settings.columns)
    return first[1], filled


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue()


def _delivery(
    header: list[str], cells: list[str], account: str, settings: "Settings", now: datetime
) -> "Delivery":
    from dataclasses import replace

    from services.ingest.adapters.channel import Delivery

    body = (_line(header) + _line(cells)).encode()
    plain = settings.model_copy(update={"charset": ""})
    return replace(Delivery("csv", account, body, now), settings=plain)


def _sorted_out(
    header: list[str], rows: Iterator[tuple[int, list[str]]], account: str, settings: "Settings"
) -> tuple[list[tuple[bytes, str]], list[tuple[int, str, list[str]]]]:
    """Return the good rows as bodies with who wrote them, and the wrong ones with line, problem and cells."""
    from rich.progress import track

    from chassis.clock import SystemClock
    from services.ingest.adapters import csv_rows
    from services.ingest.adapters.channel import ParseError

    now = SystemClock().now()
    good: list[tuple[bytes, str]] = []
    wrong: list[tuple[int, str, list[str]]] = []
    for line, cells in track(rows, "reading", transient=True):
        delivery = _delivery(header, cells, account, settings, now)
        try:
            (message,) = csv_rows.parse(delivery).messages
        except ParseError as error:
            wrong.append((line, error.detail.partition(": ")[2] or error.detail, cells))
        else:
            good.append((delivery.body, message.sender.address))
    return good, wrong


async def _store(
    rows: list[tuple[bytes, str]], account: str, settings: "IngestSettings"
) -> tuple[int, int]:
    from rich.progress import Progress

    repeated = 0
    async with spooling(settings, "signalbox import csv") as (spool, _):
        with Progress(transient=True) as progress:
            bar = progress.add_task("taking in", total=len(rows))
            for start in range(0, len(rows), _AT_ONCE):
                group = rows[start : start + _AT_ONCE]
                results = await asyncio.gather(
                    *(_put(spool, settings.workspace, account, body, who) for body, who in group)
                )
                repeated += sum(results)
                progress.update(bar, advance=len(group))
    return len(rows) - repeated, repeated


async def _put(spool: "Spool", workspace: str, account: str, body: bytes, who: str) -> bool:
    """Store one row; return whether the very same had been imported before."""
    from chassis.clock import SystemClock
    from schemas.inbound import InboundReceived
    from services.ingest.adapters import intake

    digest = intake.digest(body)
    name = f"import/csv/{account}/{digest}"
    received = InboundReceived(
        input_id=intake.named_id("input", workspace, name, digest),
        channel="csv",
        account=account,
        method="IMPORT",
        headers={"content-type": "text/csv"},
        received_at=SystemClock().now(),
    )
    item = intake.inbound_item(received, body, who, workspace, idempotency=(name, digest))
    return (await spool.put(item)).repeated
