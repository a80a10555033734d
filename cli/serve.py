"""`signalbox serve`: one service in the foreground, with settings from the environment."""

import importlib
from typing import Annotated

import typer

from cli.errors import UsageMistake
from cli.parts import SERVICES


def serve(
    service: Annotated[str, typer.Argument(help=f"Which one: {', '.join(SERVICES)}.")],
    stage: Annotated[
        str, typer.Option(help="Run only this stage of it, such as `gateway` or `tickets`.")
    ] = "all",
) -> None:
    """Run one service in the foreground; SIGTERM or Ctrl-C ends it in order."""
    if service not in SERVICES:
        raise UsageMistake(f"There is no service {service!r}; there are {', '.join(SERVICES)}.")
    from cli.environment import adopt

    adopt()
    module = importlib.import_module(f"services.{service}.app")
    raise typer.Exit(module.main(["serve", "--stage", stage]))
