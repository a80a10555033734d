"""`signalbox db …`: the database's tables."""

import asyncio

import typer

app = typer.Typer(help="The database's tables.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """The database's tables."""


@app.command()
def migrate() -> None:
    """Bring the database up to this release: a schema a service, in order. Running it again changes nothing."""
    from cli.environment import common

    settings = common()
    made = asyncio.run(migrate_all(settings.dsn))
    for name in made:
        typer.echo(f"applied {name}")
    typer.echo(f"{len(made)} migrations applied." if made else "The database is up to date.")


async def migrate_all(dsn: str) -> list[str]:
    """Migrate every service's schema; return what was applied."""
    from chassis.migrate import migrate as migrate_one
    from cli.parts import SERVICES, sql_folder

    made = []
    for service in SERVICES:
        made += [
            f"{one.schema}: {one.name}"
            for one in await migrate_one(dsn, service, [sql_folder(service)])
        ]
    return made
