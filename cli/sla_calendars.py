"""`signalbox sla calendars`: when each calendar opens next, which holidays come and where from, and how its feeds are."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.places import policy_folder

if TYPE_CHECKING:
    from hours.file import CalendarBook, Feed
    from hours.ical import FeedContent
    from services.sla.core.feeds import FeedState

OPENINGS_SHOWN: Final = 3
HOLIDAYS_SHOWN: Final = 8


def calendars(
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy", metavar="DIR", help="The policy folder; else as for every command."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Without the database: what the files say, no feeds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a calendar.")] = False,
) -> None:
    """When does each calendar open, what closes it, and how fresh are its feeds?"""
    from chassis.policy import load
    from cli.environment import common
    from cli.parts import policy_files

    folder = policy or policy_folder()
    loaded: Any = load(folder, policy_files("sla"))
    book: CalendarBook = loaded.book
    states: Mapping[str, FeedState] = {}
    if book.feeds and not offline:
        states, contents = asyncio.run(_read(common().dsn, sorted(book.feeds)))
        book = book.with_feeds(contents)
    now = datetime.now(UTC).replace(microsecond=0)
    for name in sorted(book.calendars):
        told = describe(book, name, states, now, is_offline=offline)
        if as_json:
            typer.echo(json.dumps({"calendar": name, **told}, ensure_ascii=False))
            continue
        for line in _lines(name, told):
            typer.echo(line)


async def _read(
    dsn: str, names: list[str]
) -> "tuple[dict[str, FeedState], dict[str, FeedContent]]":
    import asyncpg

    from services.sla.calendar_feeds import states, stored

    connection = await asyncpg.connect(dsn, timeout=5, server_settings={"search_path": "sla"})
    try:
        found = await states(connection, names)
        return found, await stored(connection, found)
    finally:
        await connection.close()


def describe(
    book: "CalendarBook",
    name: str,
    states: "Mapping[str, FeedState]",
    now: datetime,
    *,
    is_offline: bool = False,
) -> dict[str, Any]:
    """Return what there is to say of a calendar at `now`, ready for JSON."""
    from itertools import islice

    from hours.calendar import is_open, windows
    from hours.provenance import sentence, to_come

    calendar = book.calendars[name]
    today = now.astimezone(calendar.zone).date()
    return {
        "timezone": calendar.timezone,
        "open": is_open(calendar, now),
        "openings": [
            [opens.isoformat(), None if closes is None else closes.isoformat()]
            for opens, closes in islice(windows(calendar, now), OPENINGS_SHOWN)
        ],
        "closed": [
            sentence(one)
            for one in to_come(book.origins(name), today, calendar.zone, HOLIDAYS_SHOWN)
        ],
        "feeds": [
            _feed(feed, None if is_offline else states.get(feed.name), now, is_offline=is_offline)
            for feed in book.entries[name].feeds
        ],
    }


def _feed(
    feed: "Feed", state: "FeedState | None", now: datetime, *, is_offline: bool
) -> dict[str, Any]:
    if is_offline:
        return {"feed": feed.name, "state": "not asked"}
    if state is None:
        return {"feed": feed.name, "state": "never fetched: is the sla service running?"}
    fetched = state.fetched_at
    if fetched is None:
        said = f"NEVER GOOD, {state.failures} failures: {state.error}; the calendar works without"
    elif state.failures:
        said = (
            f"FAILING, {state.failures} times: {state.error};"
            f" works by what was good {_age(now - fetched)} ago"
        )
    else:
        said = f"good {_age(now - fetched)} ago"
    return {
        "feed": feed.name,
        "state": said,
        "fetched_at": None if fetched is None else fetched.isoformat(),
        "changed_at": None if state.changed_at is None else state.changed_at.isoformat(),
        "next_at": state.next_at.isoformat(),
        "failures": state.failures,
        "error": state.error,
    }


def _age(length: timedelta) -> str:
    from cli.sla_words import length as in_words

    return in_words(max(0.0, length.total_seconds()))


def _lines(name: str, told: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name}  {told['timezone']}  {'open' if told['open'] else 'closed'} now"
    for opens, closes in told["openings"]:
        yield f"  opens   {opens} to {closes or 'without end'}"
    if not told["openings"]:
        yield "  opens   never again"
    for one in told["closed"]:
        yield f"  closed  {one}"
    for feed in told["feeds"]:
        yield f"  feed    {feed['feed']}: {feed['state']}"
