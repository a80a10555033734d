"""The command `signalbox`: its groups in one place, and errors as one sentence.

A command imports what it needs when it runs, so that `signalbox --help` is there at once.
"""

import asyncio
import logging
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli import (
    articles,
    bench,
    customer,
    db,
    deadletters,
    feedback,
    imports,
    keys,
    ledger,
    mail,
    notify,
    pages,
    policy,
    roster,
    route,
    sla,
    templates,
    ticket,
    topics,
)
from cli.announce import announce
from cli.channels import normalize, verify
from cli.demo.command import demo
from cli.doctor import doctor
from cli.errors import FAILED, INTERRUPTED, MISTYPED, UsageMistake, sentence, unexpected
from cli.serve import serve
from cli.tail import tail
from cli.up import down, up

app = typer.Typer(
    name="signalbox",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Customer messages in, answered tickets out.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(is_asked: bool) -> None:
    if is_asked:
        print(f"signalbox {version('signalbox')}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", is_eager=True)
    ] = False,
    is_version_asked: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Say which version this is, and end.",
            is_eager=True,
            callback=_tell_version,
        ),
    ] = False,
) -> None:
    """Customer messages in, answered tickets out."""
    del is_version_asked
    del debug  # `main` has seen it already, wherever it stood.


app.command()(demo)
app.command()(up)
app.command()(down)
app.command()(serve)
app.add_typer(topics.app, name="topics")
app.add_typer(db.app, name="db")
app.add_typer(policy.app, name="policy")
app.add_typer(templates.app, name="templates")
app.add_typer(roster.app, name="roster")
app.add_typer(route.app, name="route")
app.add_typer(mail.app, name="mail")
app.add_typer(imports.app, name="import")
app.add_typer(ticket.app, name="ticket")
app.add_typer(customer.app, name="customer")
app.command()(tail)
app.add_typer(deadletters.app, name="deadletters")
app.add_typer(ledger.app, name="ledger")
app.add_typer(keys.app, name="keys")
app.command()(doctor)
app.command()(normalize)
app.command()(verify)
app.add_typer(sla.app, name="sla")
app.add_typer(pages.app, name="pages")
app.add_typer(feedback.app, name="feedback")
notify.app.command()(announce)
app.add_typer(notify.app, name="notify")
app.add_typer(articles.app, name="articles")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run what was typed; an error becomes one sentence on standard error and an exit code."""
    is_debug = "--debug" in sys.argv[1:]
    sys.argv[1:] = [word for word in sys.argv[1:] if word != "--debug"]
    # The sentence says it; a library's log line before it would only be in the way.
    logging.getLogger("aiokafka").addHandler(logging.NullHandler())
    try:
        app()
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(INTERRUPTED)
    except Exception as error:
        if is_debug:
            raise
        text = sentence(error)
        if text is None:
            text = unexpected(error)
        if text:
            typer.echo(f"signalbox: {text}", err=True)
        sys.exit(MISTYPED if isinstance(error, UsageMistake) else FAILED)


if __name__ == "__main__":
    main()
