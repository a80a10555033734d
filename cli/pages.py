"""`signalbox pages …`: who is called, what fires, what was sent, and whether a receiver can be reached."""

import asyncio
import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from services.sla.core.alerts import Alert
    from services.sla.core.paging import Page

app = typer.Typer(help="Calls to people: what fires, what was sent, a test.", no_args_is_help=True)

ALERTS_SHOWN = 50


@app.command("list")
def list_pages(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the alerts that fire, the oldest first, and what each receiver was told of which group."""
    if as_json:
        asyncio.run(_stream())
        return
    alerts, count, pages = asyncio.run(_read())
    typer.echo(f"{count} alerts fire." if count != 1 else "1 alert fires.")
    for alert, _ in alerts:
        typer.echo(_alert_line(alert))
    if count > len(alerts):
        typer.echo(f"… and {count - len(alerts)} more.")
    if pages:
        typer.echo("\nWhat receivers were told:")
    for page in pages:
        typer.echo(_page_line(page))


def _json(kind: str, value: Any, **more: Any) -> str:
    import msgspec

    return json.dumps({"kind": kind, **msgspec.to_builtins(value), **more}, default=str)


def _alert_line(alert: "Alert") -> str:
    from cli.story import utc

    ticket = f"#{alert.number}" if alert.number is not None else alert.ticket_id
    where = "  ".join(
        f"{name}={alert.labels[name]}"
        for name in ("target", "queue", "priority")
        if alert.labels.get(name)
    )
    told = ", ".join(alert.receivers)
    return f"  {alert.severity:8} {alert.event:11} {ticket}  {where}  since {utc(alert.since)}  route {alert.route}: {told}"


def _page_line(page: "Page") -> str:
    from cli.story import utc

    group = " ".join(f"{name}={value}" for name, value in sorted(page.group.items()) if value)
    state = f"firing {page.told_firing}, {page.severity}" if page.is_told else "nothing open"
    sent = f", last told {utc(page.sent_at)}" if page.sent_at is not None else ", never told"
    due = f", next look {utc(page.due_at)}" if page.due_at is not None else ""
    trouble = ""
    if page.problem:
        trouble = f"\n    NOT DELIVERED ({page.attempts} attempts): {page.problem}"
    return f"  {page.receiver}  {page.family} {group}: {state}{sent}{due}{trouble}"


async def _connect() -> Any:
    import asyncpg

    from cli.environment import common

    return await asyncpg.connect(common().dsn, timeout=5, server_settings={"search_path": "sla"})


async def _stream() -> None:
    """Write all alerts that fire and all pages, however many they are."""
    from services.sla import page_store

    connection = await _connect()
    try:
        async for alert, fired_at in page_store.all_standing(connection):
            typer.echo(_json("alert", alert, fired_at=fired_at))
        for page in await page_store.all_pages(connection):
            typer.echo(_json("page", page))
    finally:
        await connection.close()


async def _read() -> "tuple[list[tuple[Alert, Any]], int, list[Page]]":
    from services.sla import page_store

    connection = await _connect()
    try:
        alerts, count = await page_store.standing(connection, ALERTS_SHOWN)
        return alerts, count, await page_store.all_pages(connection)
    finally:
        await connection.close()


@app.command()
def test(
    receiver: Annotated[str, typer.Argument(help="Its name in pages.yaml.")],
) -> None:
    """Send a receiver a page that says it is a test, and end it at once. Exit code 1 where it did not arrive."""
    from cli.errors import CommandError
    from cli.places import policy_folder
    from services.sla.adapters.sending import Delivered, Failed, Refused

    pages = _pages(policy_folder())
    known = pages.receivers.get(receiver)
    if known is None:
        names = ", ".join(sorted(pages.receivers)) or "none yet"
        raise CommandError(f"pages.yaml has no receiver {receiver!r}; it has: {names}.")
    for what, attempted in asyncio.run(_test(receiver, known)):
        match attempted:
            case Delivered(remark=remark):
                typer.echo(f"{receiver}: {what} arrived{f' ({remark})' if remark else ''}.")
            case Failed(reason=reason):
                raise CommandError(f"{receiver}: {what} did not arrive: {reason}.")
            case Refused(reason=reason, cure=cure):
                raise CommandError(f"{receiver}: {what} was refused: {reason}. To cure it: {cure}.")


def _pages(folder: Any) -> Any:
    from chassis.policy import load
    from cli.parts import policy_files

    return load(folder, policy_files("sla")).pages


async def _test(name: str, receiver: Any) -> list[tuple[str, Any]]:
    from msgspec.structs import replace

    from chassis.clock import SystemClock
    from cli.environment import adopt
    from services.sla.adapters.sending import Delivered, Outside, new_client
    from services.sla.core.page_text import trial
    from services.sla.core.paging import Saying
    from services.sla.pager import attempt

    adopt()
    workspace = os.environ.get("SIGNALBOX_WORKSPACE") or "default"
    now = SystemClock().now()
    async with new_client() as client:
        outside = Outside(client)
        message = trial(Saying.TRIGGER, name, workspace, now)
        told = await attempt(message, receiver, outside)
        results: list[tuple[str, Any]] = [("the test page", told)]
        if isinstance(told, Delivered):
            page = replace(message.page, is_told=True, number=1, ref=told.ref, severity="info")
            over = trial(Saying.RESOLVE, name, workspace, SystemClock().now(), page)
            results.append(("its end", await attempt(over, receiver, outside)))
        return results
