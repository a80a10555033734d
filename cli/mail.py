"""`signalbox mail import`: mails out of files, through the gateway's durable door."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.database import spooling
from cli.errors import CommandError, UsageMistake

if TYPE_CHECKING:
    from chassis.spool import Spool

app = typer.Typer(help="Mail out of files.", no_args_is_help=True)

_AT_ONCE = 50
"""Mails handed to the spool together: they share one commit."""


@app.callback()
def _group() -> None:
    """Mail out of files."""


@app.command("import")
def import_mails(
    path: Annotated[Path, typer.Argument(help="An .eml file, an mbox, or a folder of both.")],
    account: Annotated[
        str,
        typer.Option(help="Mail account of channels.yaml; needed only where there are several."),
    ] = "",
) -> None:
    """Take in mails, as if they had come by SMTP: each is in PostgreSQL when this ends.

    Ingest need not run. A file that is imported again changes nothing.
    """
    from chassis.policy import load
    from cli.environment import settings
    from cli.parts import policy_files, settings_type
    from cli.places import policy_folder

    if not path.exists():
        raise UsageMistake(f"{path} does not exist.")
    channels = load(policy_folder(), policy_files("ingest"))
    names = sorted(channels.file.mail)
    if not account and len(names) == 1:
        account = names[0]
    if account not in channels.file.mail:
        raise UsageMistake(
            f"--account {account or 'is needed'}: the mail accounts of channels.yaml are {', '.join(names) or 'none'}."
        )
    stored, repeated = asyncio.run(_import(path, account, settings(settings_type("ingest"))))
    again = f"; {repeated} had been imported before" if repeated else ""
    typer.echo(f"{stored} mails taken in for {account}{again}.")


async def _import(path: Path, account: str, settings: object) -> tuple[int, int]:
    from rich.progress import Progress

    from services.ingest.adapters.mail_import import ImportProblem, mails
    from services.ingest.settings import IngestSettings

    assert isinstance(settings, IngestSettings)
    stored = repeated = 0
    try:
        async with spooling(settings, "signalbox mail import") as (spool, _):
            with Progress(transient=True) as progress:
                bar = progress.add_task("mails", total=None)
                group = []
                found = mails(path)
                while True:
                    mail = next(found, None)
                    if mail is not None:
                        group.append(_store(spool, settings.workspace, account, mail.raw))
                    if group and (mail is None or len(group) >= _AT_ONCE):
                        for is_repeat in await asyncio.gather(*group):
                            repeated += is_repeat
                            stored += not is_repeat
                        progress.update(bar, advance=len(group))
                        group = []
                    if mail is None:
                        return stored, repeated
    except ImportProblem as problem:
        raise CommandError(f"{problem}. {stored + repeated} mails before it are in.") from None


async def _store(spool: "Spool", workspace: str, account: str, raw: bytes) -> bool:
    """Store one mail; return whether the very same bytes had been imported before."""
    import hashlib
    import re

    from chassis.clock import SystemClock
    from schemas.inbound import InboundReceived
    from services.ingest.adapters import email, intake

    body = re.sub(rb"\r(?!\n)|(?<!\r)\n", b"\r\n", raw)
    digest = hashlib.sha256(body).hexdigest()
    name = f"import/{account}/{digest}"
    received = InboundReceived(
        input_id=intake.named_id("input", workspace, name, digest),
        channel="email",
        account=account,
        method="IMPORT",
        received_at=SystemClock().now(),
    )
    result = await spool.put(
        intake.inbound_item(
            received,
            body,
            email.sender_address(body),
            workspace,
            idempotency=(name, digest),
        )
    )
    return result.repeated
