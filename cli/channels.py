"""`signalbox normalize` and `signalbox verify`: what a channel's adapter makes of bytes, without a broker or an account."""

import sys
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer

from cli.batch import run
from cli.errors import UsageMistake

Batch = Annotated[bool, typer.Option("--batch", help="Read NDJSON, write NDJSON, line by line.")]


def normalize(
    batch: Batch = False,
    channel: Annotated[
        str, typer.Option("--channel", help="Read one delivery's bytes of this channel instead.")
    ] = "",
    account: Annotated[str, typer.Option("--account", help="The account it came to.")] = "default",
) -> None:
    """What message is this?

    One file: `signalbox normalize --channel email < FILE.eml`. Many: {"id", "channel", "method", "url", "headers",
    "body_base64", "account"?, "received_at"?} → {"id", "messages", "ignored"}
    """
    import msgspec

    from services.ingest import offline
    from services.ingest.adapters.channel import ParseError

    now = datetime.now(UTC)
    if batch:
        run(partial(offline.normalize_line, now=now))
        return
    if not channel:
        raise UsageMistake("say which channel: --channel email, or --batch for NDJSON")
    try:
        made = offline.normalize(channel, sys.stdin.buffer.read(), now, account=account)
    except ParseError as error:
        raise UsageMistake(error.detail) from None
    text = msgspec.json.format(msgspec.json.encode(made), indent=2)
    sys.stdout.buffer.write(text + b"\n")


def verify(batch: Batch = True) -> None:
    """Would the gateway let this request in, and what would it answer?

    {"id", "channel", "method", "url", "headers", "body_base64", "secrets": {"secret"}, "now"?}
    → {"id", "accepted", "reason", "respond": {"status", "headers", "body"}}
    """
    from services.ingest import offline

    del batch  # There is no other way yet.
    run(partial(offline.verify_line, now=datetime.now(UTC)))
