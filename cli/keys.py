"""`signalbox keys …`: keys that open the gateway, made, listed and taken back. Only a digest of each is kept."""

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.errors import CommandError, UsageMistake

if TYPE_CHECKING:
    from services.ingest.key_store import KeyRow

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DAYS: Final = re.compile(r"([1-9][0-9]{0,3})d")
_ID: Final = re.compile(r"[0-9a-f]{12}")
NEVER: Final = "never"

app = typer.Typer(help="Keys that open the gateway.", no_args_is_help=True)

By = Annotated[
    str, typer.Option(help="Who gives this command; the user of this machine if left out.")
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is, such as a system's name.")],
    scope: Annotated[
        list[str],
        typer.Option(
            "--scope",
            help="What it opens: ingest, agent, lead, admin, or one right; can be given again.",
        ),
    ],
    expires: Annotated[
        str, typer.Option(help="When it ends: `90d`, an instant, or `never`.")
    ] = "365d",
    agent: Annotated[
        str | None, typer.Option(help="The one agent that it may speak as; any if left out.")
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="With the scope scim alone: domain that it may provision."),
    ] = None,
    by: By = "",
) -> None:
    """Make a key, and show it once.

    The key alone goes to standard output, so `signalbox keys add helpdesk --scope ingest > key` keeps it out of sight. A
    gateway knows it within two seconds. To put another key in the place of one, add it under the same name, hand it out,
    and revoke the old one by its id.
    """
    from chassis.auth_keys import StoredKey, new_key
    from cli.environment import common
    from cli.typed import user

    _check(name, scope, domain or [], agent)
    now = datetime.now(UTC)
    until = _end(expires, now)
    who = user(by)
    settings = common()
    key_id, shown, digest = new_key()
    key = StoredKey(
        key_id, name, digest, tuple(sorted(set(scope))), tuple(domain or ()), agent, until
    )
    asyncio.run(_add(settings.dsn, settings.workspace, key, who, now))
    typer.echo(
        f"Key {key_id} of {name}: {', '.join(key.scopes)}; ends {_day(until)}. It is shown this once:",
        err=True,
    )
    typer.echo(shown)


@app.command("list")
def list_keys(
    with_all: Annotated[bool, typer.Option("--all", help="Also those taken back.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the keys: whose, what they open, until when, last used when. The keys themselves nobody can show."""
    from cli.environment import common

    settings = common()
    rows = asyncio.run(_listed(settings.dsn, settings.workspace, with_all))
    if as_json:
        for row in rows:
            typer.echo(json.dumps(_told(row)))
        return
    if not rows:
        typer.echo("There are no keys; `signalbox keys add` makes one.")
    now = datetime.now(UTC)
    for row in rows:
        typer.echo(_line(row, now))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, or its name where it has only one.")],
    by: By = "",
) -> None:
    """Take a key back, for good. Gateways refuse it within two seconds."""
    from cli.environment import common
    from cli.typed import user

    who = user(by)
    settings = common()
    row = asyncio.run(_revoke(settings.dsn, settings.workspace, key, who))
    typer.echo(f"Key {row.key_id} of {row.name} opens nothing any more.")


def _check(name: str, scopes: list[str], domains: list[str], agent: str | None) -> None:
    from schemas.scopes import SCOPES

    if not _NAME.fullmatch(name):
        raise UsageMistake(
            f"{name!r} cannot name a key: small letters, digits, _ and -, a letter first, at most 64."
        )
    if agent is not None and not agent.strip():
        # An empty variable of a script would else make a key that speaks as anybody.
        raise UsageMistake("--agent is empty; leave it out for a key that may speak as anybody.")
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise UsageMistake(f"There is no scope {unknown[0]!r}; there are {', '.join(SCOPES)}.")
    if domains and set(scopes) != {"scim"}:
        raise UsageMistake(
            "--domain bounds the scope scim alone; make the other scopes a key of their own."
        )


def _end(given: str, now: datetime) -> datetime | None:
    from cli.typed import instant

    if given == NEVER:
        return None
    days = _DAYS.fullmatch(given)
    until = now + timedelta(days=int(days[1])) if days else instant("--expires", given)
    if until is None or until <= now:
        raise UsageMistake(f"--expires {given}: must lie ahead, as 90d does, or be `never`.")
    return until


async def _add(dsn: str, workspace: str, key: Any, who: str, now: datetime) -> None:
    from cli.database import connected
    from services.ingest import key_store

    async with connected(dsn, "ingest") as connection:
        await key_store.add(connection, workspace, key, who, now)


async def _listed(dsn: str, workspace: str, with_revoked: bool) -> "list[KeyRow]":
    from cli.database import connected
    from services.ingest import key_store

    async with connected(dsn, "ingest") as connection:
        return await key_store.listed(connection, workspace, with_revoked=with_revoked)


async def _revoke(dsn: str, workspace: str, key: str, who: str) -> "KeyRow":
    from cli.database import connected
    from services.ingest import key_store

    async with connected(dsn, "ingest") as connection:
        rows = await key_store.listed(connection, workspace)
        found = [row for row in rows if row.key_id == key] or [r for r in rows if r.name == key]
        if not found:
            what = "id" if _ID.fullmatch(key) else "name"
            raise CommandError(
                f"No key of the {what} {key} is in force; `signalbox keys list` shows them."
            )
        if len(found) > 1:
            ids = ", ".join(row.key_id for row in found)
            raise UsageMistake(f"{key} has {len(found)} keys ({ids}); say which by its id.")
        if not await key_store.revoke(
            connection, workspace, found[0].key_id, who, datetime.now(UTC)
        ):
            raise CommandError(f"Key {found[0].key_id} was taken back by somebody else just now.")
        return found[0]


def _day(at: datetime | None) -> str:
    return "never" if at is None else at.strftime("%Y-%m-%d %H:%M")


def _line(row: "KeyRow", now: datetime) -> str:
    notes = []
    if row.agent_id:
        notes.append(f"speaks as {row.agent_id}")
    if row.domains:
        notes.append(f"domains {', '.join(row.domains)}")
    if row.revoked_at is not None:
        notes.append(f"TAKEN BACK {_day(row.revoked_at)} by {row.revoked_by}")
    elif row.expires_at is not None and row.expires_at <= now:
        notes.append("EXPIRED")
    return "  ".join(
        (
            row.key_id,
            f"{row.name:20}",
            f"{', '.join(row.scopes):24}",
            f"ends {_day(row.expires_at):16}",
            f"used {_day(row.last_used_at):16}",
            f"made {_day(row.created_at)} by {row.created_by}",
            *notes,
        )
    )


def _told(row: "KeyRow") -> dict[str, Any]:
    import dataclasses

    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in dataclasses.asdict(row).items()
    }
