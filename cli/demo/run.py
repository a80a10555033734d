"""One demo from beginning to end: servers, services, customers, agents, board, books, and order restored.

Each run has a database and topics of its own, so that its numbers are its own, whatever else lives on the servers.
"""

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import asyncpg
from rich.console import Console
from rich.live import Live
from rich.table import Table

from chassis.clock import SystemClock, monotonic
from chassis.local import Platform
from chassis.settings import Settings
from cli import installation, mailbox
from cli.demo import summary
from cli.demo.agents import Cast
from cli.demo.board import progress_line, render
from cli.demo.feed import Feed
from cli.demo.killer import Killer
from cli.demo.samples import Sample, load
from cli.demo.world import World, watch
from cli.errors import CommandError
from cli.gateway import Gateway
from cli.installation import Installation
from cli.places import policy_folder, samples_folder
from cli.roster import roster_of, set_agents
from cli.up import discard, start_platform, start_services, where_to_look

SETTLE_SECONDS_MAX: Final = 150.0
"""How long after the last message everything may take to come to rest."""

QUIET_LOOKS: Final = 3
"""So many looks in a row must find nothing open."""

LOOK_SECONDS: Final = 0.4
LINE_SECONDS: Final = 3.0
NOTE_SECONDS: Final = 8.0
SEED: Final = 20261124


@dataclass(frozen=True, slots=True)
class Options:
    """What the command was told."""

    data_dir: Path
    keep: bool = False
    as_json: bool = False
    rate: float = 3.0
    kill: bool = False
    kill_seed: int = 1


class Notes:
    """What happened beside the events, for as long as it is news."""

    def __init__(self) -> None:
        self._said: list[tuple[float, str]] = []

    def add(self, text: str) -> None:
        """Note something."""
        self._said.append((monotonic(), text))

    def fresh(self) -> list[str]:
        """Return what was noted a moment ago."""
        since = monotonic() - NOTE_SECONDS
        return [text for at, text in self._said if at > since]


@dataclass(slots=True)
class Result:
    """The books of a day that is over."""

    sums: summary.Balance
    books: summary.Books
    left_open: dict[str, int]
    surprises: list[str]
    refused: list[str]
    doubled: list[str]
    mails: int
    repeats: int
    kills: dict[str, int]
    seconds: float
    first_ticket_seconds: float | None

    @property
    def problems(self) -> list[str]:
        """Why the demo failed, a sentence each; empty when the sums come out."""
        found = [*self.sums.missing, *self.refused]
        if not self.sums.is_even and not self.sums.missing:
            found.append("the sums do not come out")
        found += [f"{count} {what}" for what, count in self.left_open.items()]
        found += [f"a mail was sent twice: {name}" for name in self.doubled]
        return found


def play(options: Options) -> int:
    """Play the day; return the exit code."""
    # With --json, standard output is for the one line.
    console = Console(stderr=options.as_json, highlight=False, soft_wrap=True)
    samples = load(samples_folder())
    roster = roster_of(policy_folder())
    began = monotonic()
    signal.signal(signal.SIGTERM, _terminated)
    for one in installation.running(options.data_dir):
        if one.name == "demo":
            raise CommandError("A demo is still running here; end it with `signalbox down` first.")
    platform = start_platform(options.data_dir, console, is_kept=options.keep)
    run_id = secrets.token_hex(4)
    database, prefix = f"signalbox_demo_{run_id}", f"demo-{run_id}."
    is_kept, made, is_worth_a_look = False, None, False
    try:
        platform.postgres.create_database(database)
        made = start_services(
            platform,
            options.data_dir,
            console,
            name="demo",
            database=database,
            topic_prefix=prefix,
            owner=None if options.keep else os.getpid(),
        )
        result = asyncio.run(_day(options, console, made, samples, roster, began))
        is_worth_a_look = bool(result.problems)
        show(console, result)
        if options.keep:
            is_kept = True
            console.print("\nEverything goes on:", markup=False)
            console.print(where_to_look(made), markup=False)
        if options.as_json:
            print(summary.to_json(result.sums, result.books), flush=True)
        return 1 if result.problems else 0
    except Exception:
        is_worth_a_look = True
        raise
    finally:
        if not is_kept:
            _put_away(platform, options, made, database, prefix, console, is_worth_a_look)


def _terminated(number: int, frame: object) -> None:
    """Take SIGTERM as the end of the day: what was started is stopped on the way out."""
    del frame
    raise SystemExit(128 + number)


def _put_away(
    platform: Platform,
    options: Options,
    made: Installation | None,
    database: str,
    prefix: str,
    console: Console,
    is_worth_a_look: bool,
) -> None:
    """Stop what was started, and remove its database and topics, unless somebody will want to look into them."""
    found = made or installation.Installation.load(options.data_dir / "demo")
    if found is not None:
        found.stop()
    if not is_worth_a_look:
        discard(platform, database, prefix)
    elif found is not None:
        console.print(
            f"The database {database} and the logs in {found.logs} are kept, to look into.",
            markup=False,
        )
    # Servers that were running before, or that `up` keeps, go on.
    if not platform.is_reused:
        platform.stop()


async def _day(
    options: Options,
    console: Console,
    made: Installation,
    samples: tuple[Sample, ...],
    roster: tuple[object, ...],
    began: float,
) -> Result:
    settings = Settings(
        kafka=made.environment["SIGNALBOX_KAFKA"],
        database_url=made.environment["SIGNALBOX_DATABASE_URL"],  # type: ignore[arg-type]
        partitions=int(made.environment["SIGNALBOX_PARTITIONS"]),
        topic_prefix=made.environment["SIGNALBOX_TOPIC_PREFIX"],
    )
    world, notes = World(), Notes()
    first_ticket: list[float] = []

    def note(text: str) -> None:
        notes.add(text)
        if not console.is_terminal:
            console.print(f"  {text}", markup=False)

    def first(event: object) -> None:
        if world.tickets and not first_ticket:
            first_ticket.append(monotonic() - began)
        del event

    async with Gateway(made.gateway_url, made.console_key) as gateway:
        cast = Cast(world, gateway, SEED, note)
        feed = Feed(samples, world, gateway, made.smtp_port, options.rate, _now, note)
        world.hearers += [first, cast.hear]
        killer = Killer(made, options.kill_seed, note) if options.kill else None
        watching = asyncio.create_task(watch(world, settings))
        await set_agents(gateway, roster, "available")  # type: ignore[arg-type]
        feeding = asyncio.create_task(feed.run())
        killing = asyncio.create_task(killer.run()) if killer is not None else None
        doing = [task for task in (watching, feeding, killing) if task is not None]
        try:
            async with _shown(console, world, feed, notes, options):
                for task in doing[1:]:
                    await task
                left_open = await _settle(settings.dsn, world)
            return await _account(
                settings, world, feed, made, left_open, killer, began, first_ticket
            )
        finally:
            await cast.stop()
            for task in doing:
                task.cancel()
            await asyncio.gather(*doing, return_exceptions=True)


def _now() -> datetime:
    return SystemClock().now().astimezone(UTC)


@contextlib.asynccontextmanager
async def _shown(
    console: Console, world: World, feed: Feed, notes: Notes, options: Options
) -> AsyncIterator[None]:
    """Show the day while it happens: a board on a terminal, a line every few seconds elsewhere."""
    title = "Lantern & Oak, with services being killed" if options.kill else "Lantern & Oak"

    async def board(live: Live) -> None:
        while True:
            live.update(
                render(world, feed, notes.fresh(), _now(), title, console.height), refresh=True
            )
            await asyncio.sleep(0.25)

    async def lines() -> None:
        last = ""
        while True:
            line = progress_line(world, feed)
            if line != last:
                console.print(line, markup=False)
            last = line
            await asyncio.sleep(LINE_SECONDS)

    if console.is_terminal:
        with Live(console=console, auto_refresh=False, screen=False) as live:
            showing = asyncio.create_task(board(live))
            try:
                yield
            finally:
                live.update(
                    render(world, feed, notes.fresh(), _now(), title, console.height), refresh=True
                )
                showing.cancel()
                await asyncio.gather(showing, return_exceptions=True)
    else:
        showing = asyncio.create_task(lines())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)


async def _settle(dsn: str, world: World) -> dict[str, int]:
    """Wait until nothing is under way any more; return what still is when the time is over."""
    deadline = monotonic() + SETTLE_SECONDS_MAX
    quiet, left_open = 0, {"tasks not looked at": 1}
    connection: asyncpg.Connection | None = None
    try:
        while quiet < QUIET_LOOKS and monotonic() < deadline:
            try:
                if connection is None:
                    connection = await asyncpg.connect(dsn, timeout=5)
                left_open = await summary.still_open(connection)
                undecided = await _undecided(connection, world)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
                connection, quiet = None, 0
                await asyncio.sleep(LOOK_SECONDS)
                continue
            if undecided:
                left_open["inputs not decided"] = undecided
            if "halted tasks" in left_open:
                return left_open
            quiet = 0 if left_open else quiet + 1
            await asyncio.sleep(LOOK_SECONDS)
        return left_open
    finally:
        if connection is not None:
            await connection.close()


async def _undecided(connection: asyncpg.Connection, world: World) -> int:
    books = await summary.read(connection)
    return summary.balance(world.inputs, (), {}, 0, books).unaccounted


async def _account(
    settings: Settings,
    world: World,
    feed: Feed,
    made: Installation,
    left_open: dict[str, int],
    killer: Killer | None,
    began: float,
    first_ticket: list[float],
) -> Result:
    connection = await asyncpg.connect(settings.dsn, timeout=10)
    try:
        books = await summary.read(connection)
    finally:
        await connection.close()
    repeated = [one.number for one in feed.deliveries if one.is_repeat]
    inputs_of = {one.number: world.inputs_by_digest.get(one.digest, []) for one in feed.deliveries}
    mails = await asyncio.to_thread(mailbox.headers, made.mailbox)
    own = [mail["message_id"] for mail in mails]
    return Result(
        sums=summary.balance(world.inputs, feed.input_ids, feed.promised, feed.repeats, books),
        books=books,
        left_open=left_open,
        surprises=summary.surprises(feed.samples, inputs_of, repeated, books),
        refused=feed.refused,
        doubled=summary.doubled_mails(own),
        mails=len(mails),
        repeats=world.repeats,
        kills=dict(killer.kills) if killer is not None else {},
        seconds=monotonic() - began,
        first_ticket_seconds=first_ticket[0] if first_ticket else None,
    )


def show(console: Console, result: Result) -> None:
    """Print the summary."""
    sums, books = result.sums, result.books
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column(justify="right", style="bold")
    table.add_column()
    reasons = ", ".join(f"{count} {reason}" for reason, count in sums.ignored.items())
    rows = [
        (sums.accepted, "accepted: 2xx or 250 was said, or it was stored all the same"),
        (sums.messages, "= messages in tickets"),
        (sums.duplicates, "+ duplicates"),
        (sum(sums.ignored.values()), f"+ ignored{f': {reasons}' if reasons else ''}"),
        (sums.parked, "+ parked as dead letters"),
        (sums.unaccounted, "+ unaccounted (must be 0)"),
    ]
    for count, text in rows:
        table.add_row(str(count), text)
    console.print()
    console.print(table)
    notices = ", ".join(f"{count} {status}" for status, count in books.notices.items()) or "none"
    clocks = ", ".join(f"{count} {status}" for status, count in books.clocks.items()) or "none"
    console.print(
        f"\n{books.tickets} tickets: {books.offered} offered, {books.answered} answered, {books.solved} solved,"
        f" {books.escalated} escalated.\nClocks: {clocks}; {books.breached} breached."
        f"\nNotices: {notices}; {result.mails} mails in the mailbox, {len(result.doubled)} of them twice.",
        markup=False,
    )
    if result.kills or books.repeats_dropped:
        killed = sum(result.kills.values())
        names = ", ".join(f"{name} {count}" for name, count in sorted(result.kills.items()))
        console.print(
            f"{f'{killed} kills ({names}); ' if killed else ''}{books.repeats_dropped} repeated events came over Kafka and"
            " were dropped by their sequence.",
            markup=False,
        )
    when = (
        f", the first ticket after {result.first_ticket_seconds:.0f} s"
        if result.first_ticket_seconds
        else ""
    )
    console.print(f"It took {result.seconds:.0f} s{when}.", markup=False)
    for surprise in result.surprises:
        console.print(f"  not as the manifest expects: {surprise}", markup=False)
    for problem in result.problems:
        console.print(f"  [red]wrong:[/red] {problem}", markup=True)
    console.print(
        "[green]The sums come out.[/green]"
        if not result.problems
        else "[bold red]The sums do NOT come out.[/bold red]"
    )
