"""`signalbox up` and `signalbox down`: everything on this machine, until stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from chassis.local import Platform
    from cli.installation import Installation

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="Where servers and services keep their data; else SIGNALBOX_DATA_DIR."
    ),
]


def up(data_dir: DataDir = None) -> None:
    """Start Kafka, PostgreSQL and the four services on this machine; they go on until `signalbox down`.

    What it takes in is kept: `up` after `down` goes on where it was. The agents of the policy are set once.
    """
    import asyncio

    from rich.console import Console

    from cli import installation
    from cli.errors import CommandError

    console = Console(highlight=False, soft_wrap=True)
    folder = data_folder(data_dir)
    for one in installation.running(folder):
        if one.name == "up":
            typer.echo("It runs already.")
            typer.echo(where_to_look(one))
            return
        raise CommandError("The demo is still running here; end it with `signalbox down` first.")
    platform = start_platform(folder, console, is_kept=True)
    try:
        made = start_services(platform, folder, console, name="up")
        asyncio.run(_apply_roster(made))
    except BaseException:
        found = installation.Installation.load(folder / "up")
        if found is not None:
            found.stop()
        if not platform.is_reused:
            platform.stop()
        raise
    console.print(where_to_look(made), markup=False)


async def _apply_roster(made: "Installation") -> None:
    from cli.gateway import Gateway
    from cli.roster import roster_of, set_agents

    agents = roster_of(Path(made.environment["SIGNALBOX_POLICY"]))
    async with Gateway(made.gateway_url, made.console_key) as gateway:
        await set_agents(gateway, agents, None)


def down(data_dir: DataDir = None) -> None:
    """Stop what `signalbox up` or `signalbox demo --keep` left running.

    What `up` took in stays for the next `up`; a demo's database and topics are removed, its mails and logs stay.
    """
    from chassis.local import Platform
    from cli import installation

    folder = data_folder(data_dir)
    platform = Platform.load(folder) if folder.is_dir() else None
    stopped = []
    for name in installation.NAMES:
        found = installation.Installation.load(folder / name)
        if found is not None:
            found.stop()
            stopped.append(f"the services of `{name}`")
            if platform is not None and name == "demo":
                discard(platform, found.database, found.environment["SIGNALBOX_TOPIC_PREFIX"])
    if platform is not None:
        platform.stop()
        stopped.append("Kafka and PostgreSQL")
    typer.echo(f"Stopped {' and '.join(stopped)}." if stopped else "Nothing runs here.")


def data_folder(given: Path | None) -> Path:
    """Return where data go: as told, else SIGNALBOX_DATA_DIR, else the user's state directory."""
    from chassis.local import default_data_dir

    return given.expanduser().absolute() if given is not None else default_data_dir()


@contextmanager
def waiting(console: Any, text: str) -> Iterator[Any]:
    """Show that something takes a moment: a spinner on a terminal, one line elsewhere."""
    if console.is_terminal:
        with console.status(text) as status:
            yield status.update
    else:
        console.print(text, markup=False)
        yield lambda _: None


def start_platform(data_dir: Path, console: Any, *, is_kept: bool) -> "Platform":
    """Find or start Kafka and PostgreSQL, and say in a line what was taken."""
    from chassis.local import start_platform as start

    with waiting(console, "Looking for Kafka and PostgreSQL …") as update:

        def fetched(done: int, total: int) -> None:
            update(f"Fetching Kafka for the first run: {done} of {total} files …")

        platform = start(data_dir, keep=is_kept, progress=fetched)
    console.print(f"Using {platform.description}.", markup=False)
    return platform


def start_services(
    platform: "Platform",
    data_dir: Path,
    console: Any,
    *,
    name: str,
    database: str = "",
    topic_prefix: str = "",
    owner: int | None = None,
) -> "Installation":
    """Make topics and tables, start the services, and wait until all are ready."""
    import asyncio

    from chassis.local.kafka import GivenKafka
    from chassis.settings import Settings
    from chassis.topics import apply_topics
    from cli import installation
    from cli.db import migrate_all
    from cli.places import policy_folder

    # A broker that was given may not allow sessions shorter than its default.
    session_seconds = 6.0 if isinstance(platform.kafka, GivenKafka) else 3.0
    made = installation.create(
        name,
        data_dir,
        platform.environment(database or None),
        policy_folder(),
        topic_prefix=topic_prefix,
        database=database,
        session_seconds=session_seconds,
    )
    settings = Settings(
        kafka=made.environment["SIGNALBOX_KAFKA"],
        database_url=made.environment["SIGNALBOX_DATABASE_URL"],  # type: ignore[arg-type]
        partitions=int(made.environment["SIGNALBOX_PARTITIONS"]),
        topic_prefix=topic_prefix,
    )
    with waiting(console, "Making topics and tables …"):
        asyncio.run(apply_topics(settings))
        asyncio.run(migrate_all(settings.dsn))
    with waiting(console, "Starting the services …") as update:
        if name == "demo":
            made.clear()
        made.start(owner)
        installation.wait_ready(
            made, lambda names: update(f"Starting the services: {', '.join(names)} …")
        )
    return made


def discard(platform: "Platform", database: str, topic_prefix: str) -> None:
    """Remove a demo's database and topics; a server that does not answer any more keeps them."""
    import asyncio
    from contextlib import suppress

    import asyncpg
    from aiokafka.errors import KafkaError

    from chassis.local import LocalPlatformError

    with suppress(KafkaError, OSError, TimeoutError):
        asyncio.run(_delete_topics(platform.kafka.bootstrap, topic_prefix))
    with suppress(LocalPlatformError, OSError, TimeoutError, asyncpg.PostgresError):
        platform.postgres.drop_database(database)


async def _delete_topics(bootstrap: str, topic_prefix: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient

    from schemas.topics import TOPICS

    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    await client.start()
    try:
        await client.delete_topics([topic_prefix + topic.name for topic in TOPICS])
    finally:
        await client.close()


def where_to_look(made: "Installation") -> str:
    """Tell where everything is, and how to end it."""
    ports = ", ".join(f"{name} {port}" for name, port in made.health_ports.items())
    is_demo = made.name == "demo"
    return "\n".join(
        (
            "",
            f"  gateway    {made.gateway_url}   (a form: POST /v1/forms/contact)",
            f"  mail in    127.0.0.1:{made.smtp_port}   (SMTP, to support@lantern-oak.example)",
            f"  mail out   {made.mailbox}   (what was sent, one file each)",
            f"  database   {made.environment['SIGNALBOX_DATABASE_URL']}",
            f"  Kafka      {made.environment['SIGNALBOX_KAFKA']}"
            + (f", topics {made.environment['SIGNALBOX_TOPIC_PREFIX']}…" if is_demo else ""),
            f"  metrics    http://127.0.0.1:PORT/metrics and /health/ready: {ports}",
            f"  logs       {made.logs}",
            "",
            "  signalbox tail            events as they flow",
            "  signalbox ticket show …   a ticket's story",
            "  signalbox ledger show     who works on what, and how far",
            "  signalbox down            stop all of it",
        )
    )
