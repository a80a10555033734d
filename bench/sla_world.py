"""What `signalbox bench sla` stands on: a policy, a standing mass of open targets, who tells and who listens.

The mass is made by the service's own stage and store: some hundreds of conversations are opened as the service would
open them, and their rows are then copied with other ids. So the bench knows no column of the tables but the three ids.
"""

import asyncio
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from chassis.batch import partition_of
from chassis.clock import now_seconds
from chassis.policy import PolicyHolder
from chassis.settings import Settings
from chassis.stage import Change, Received
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.sla import TargetBreached, TargetRetargeted, TargetStarted
from schemas.tickets import Contact, TicketOpened, TicketPrioritised
from schemas.topics import SLA, TICKETS
from services.sla.handlers import POLICY, SlaStage

PARTITIONS: Final = 4
SOURCE: Final = "signalbox/bench.world"
REPOSITORY: Final = Path(__file__).resolve().parent.parent
SQL: Final = REPOSITORY / "services/sla/sql"
COPY_ROWS: Final = 5_000
WITHIN: Final = timedelta(hours=24)
"""What the bench's policies allow for a first response."""

STANDING, MOVED = "bench", "moved"
"""The policies: one whose calendar stays as it is, and one whose calendar changes in the run."""

TABLES: Final = (
    ("state", "key"),
    ("timer", "key"),
    ("target", "ticket_id"),
    ("ticket_case", "ticket_id"),
)
"""What a conversation that stands has rows in, and the column that names it or its ticket. What was told of it is no part of
the mass."""

GIVEN_COLUMNS: Final = """
SELECT array_agg(quote_ident(column_name) ORDER BY ordinal_position) FROM information_schema.columns
 WHERE table_schema = 'sla' AND table_name = $1 AND is_generated = 'NEVER' AND is_identity = 'NO'
"""
"""The columns of a table that a row is given, and that the database does not work out itself."""

ALL_DAY: Final = [["00:00", "24:00"]]
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def write_policy(folder: Path, closed: tuple[datetime, datetime] | None = None) -> None:
    """Write the shipped policy with the bench's two added; `closed` cuts a time out of the calendar of one."""
    if not folder.exists():
        shutil.copytree(REPOSITORY / "policy", folder)
    shipped = REPOSITORY / "policy"
    calendars = yaml.safe_load((shipped / "calendars.yaml").read_text(encoding="utf-8"))
    promises = yaml.safe_load((shipped / "sla.yaml").read_text(encoding="utf-8"))
    # What is measured is deadlines: nobody looks at these clocks before, as the shipped policy would have it.
    promises["at_risk"] = {"looks": []}
    for name in (STANDING, MOVED):
        calendars["calendars"][name] = {"timezone": "UTC", "hours": dict.fromkeys(DAYS, ALL_DAY)}
        promises["policies"][name] = {
            "calendar": name,
            "warn_at": None,
            "reopen": "continue",
            "first_response": {"within": "24h"},
            "resolution": {"within": "720h"},
            "priorities": {
                2: {"first_response": {"within": "25h"}, "resolution": {"within": "700h"}},
                4: {"first_response": {"within": "26h"}, "resolution": {"within": "710h"}},
            },
        }
    if closed is not None:
        begin, end = (f"{instant:%Y-%m-%dT%H:%M}" for instant in closed)
        calendars["calendars"][MOVED]["closures"] = [[begin, end]]
    for name, content in (("sla.yaml", promises), ("calendars.yaml", calendars)):
        part = folder / f"{name}.part"
        part.write_text(yaml.safe_dump(content), encoding="utf-8")
        part.replace(folder / name)


def opened(name: str, policy: str, at: datetime) -> TicketOpened:
    """Return what the router tells of a new ticket whose customer wrote at an instant."""
    return TicketOpened(
        ticket_id=f"ticket-{name}",
        conversation_id=f"conversation-{name}",
        version=1,
        at=at,
        number=1,
        reference="SB-BENCH01",
        message_id=f"message-{name}",
        contact=Contact(
            customer_id=f"customer-{name}",
            name="Ada",
            address="ada@example.com",
            channel="email",
            account="support",
            language="en",
        ),
        desk="service",
        queue="service",
        priority=3,
        sla_policy=policy,
        rule="everything else",
        policy_version="bench",
        occurred_at=at,
    )


def opening(name: str, policy: str, at: datetime) -> Received:
    """A ticket's opening as the loop hands it over."""
    event = opened(name, policy, at)
    envelope = Envelope(
        type=event.TYPE,
        source=f"{SOURCE}/0",
        id=name,
        time=event.at,
        partitionkey=event.conversation_id,
        sequence=1,
    )
    return Received(envelope, event, event.conversation_id, TICKETS.name, name)


def prioritised(name: str, version: int, priority: int, at: datetime) -> TicketPrioritised:
    """Return another priority of a ticket, which moves both its targets."""
    return TicketPrioritised(
        ticket_id=f"ticket-{name}",
        conversation_id=f"conversation-{name}",
        version=version,
        at=at,
        before=3,
        priority=priority,
        reason="bench",
        command_id=f"command-{name}-{version}",
        agent_id="ada",
    )


@dataclass(frozen=True, slots=True)
class Mass:
    """Conversations to be there: `name` begins their ids, `dues` are the deadlines of their first responses, in turn."""

    name: str
    policy: str
    count: int
    dues: Sequence[datetime]

    def names(self) -> Iterator[str]:
        """Yield the part of the ids that tells the conversations apart."""
        return (f"{self.name}-{n:07}" for n in range(self.count))


_Piece = str | int
"""Text that stays, or the place of a new name: 0 of the conversation, from 1 on of its targets."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a template: its values, and which of them hold names, cut into pieces around these."""

    values: tuple[Any, ...]
    named: tuple[tuple[int, tuple[_Piece, ...]], ...]

    def renamed(self, names: Sequence[str]) -> list[Any]:
        """Return the values with other names."""
        values = list(self.values)
        for column, pieces in self.named:
            values[column] = "".join(
                [names[piece] if isinstance(piece, int) else piece for piece in pieces]
            )
        return values


@dataclass(frozen=True, slots=True)
class _Template:
    """The rows of one conversation, by table, with its columns."""

    name: str
    n_targets: int
    tables: Mapping[str, tuple[tuple[str, ...], tuple[_Row, ...]]]


async def seed(dsn: str, policy: Path, mass: Mass, say: Callable[[str], None]) -> None:
    """Have a mass of conversations in the service's tables, as if it had opened each of them. The service must not run."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "sla"})
    try:
        await connection.execute("SET synchronous_commit = off")
        stage = SlaStage(PolicyHolder(policy, POLICY))
        templates = [
            await _template(connection, stage, f"template-{mass.name}-{n:04}", mass.policy, due)
            for n, due in enumerate(mass.dues)
        ]
        await _forget(connection, [template.name for template in templates])
        names = list(mass.names())
        for start in range(0, len(names), COPY_ROWS):
            some = names[start : start + COPY_ROWS]
            await _copy(connection, templates, some, start)
            say(f"{mass.name}: {start + len(some):,} of {len(names):,} conversations are there")
    finally:
        await connection.close()


async def _template(
    connection: Any, stage: SlaStage, name: str, policy: str, due: datetime
) -> _Template:
    """Open one conversation by the stage and store it; return its rows as they then are."""
    item = opening(name, policy, due - WITHIN)
    key = item.key
    outcome = stage.decide(None, item, datetime.now(UTC))
    async with connection.transaction():
        await stage.store.save(
            connection, [Change(0, key, outcome.state)], [(0, row) for row in outcome.rows]
        )
        for timer, due_at in outcome.timers.items():
            await connection.execute(
                "INSERT INTO timer (stage, task, key, name, id, due_at) VALUES ('sla', 0, $1, $2, 0, $3)",
                key,
                timer,
                due_at,
            )
    found = {}
    for table, column in TABLES:
        given = await connection.fetchval(GIVEN_COLUMNS, table)
        rows = await connection.fetch(
            f"SELECT {', '.join(given)} FROM {table} WHERE {column} = $1",  # noqa: S608 - names of the catalogue
            _key_in(column, name),
        )
        found[table] = (tuple(given), [tuple(row.values()) for row in rows])
    columns, rows = found["target"]
    names = [name, *(row[columns.index("target_id")] for row in rows)]
    tables = {
        table: (columns, tuple(_cut(row, names) for row in rows))
        for table, (columns, rows) in found.items()
    }
    return _Template(name, len(names) - 1, tables)


def _cut(values: tuple[Any, ...], names: Sequence[str]) -> _Row:
    """Look up once where a row holds names: a mass has hundreds of thousands of copies of it."""
    named = []
    for column, value in enumerate(values):
        pieces: list[_Piece] = [value] if isinstance(value, str) else []
        for place, name in enumerate(names):
            pieces = [
                part
                for piece in pieces
                for part in ([piece] if isinstance(piece, int) else _around(piece, name, place))
            ]
        if any(isinstance(piece, int) for piece in pieces):
            named.append((column, tuple(pieces)))
    return _Row(values, tuple(named))


def _around(text: str, name: str, place: int) -> list[_Piece]:
    first, *others = text.split(name)
    pieces: list[_Piece] = [first]
    for other in others:
        pieces += [place, other]
    return pieces


async def _forget(connection: Any, names: Sequence[str]) -> None:
    for table, column in TABLES:
        await connection.execute(
            f"DELETE FROM {table} WHERE {column} = ANY($1::text[])",  # noqa: S608 - our own names
            [_key_in(column, name) for name in names],
        )


def _key_in(column: str, name: str) -> str:
    return f"ticket-{name}" if column == "ticket_id" else f"conversation-{name}"


async def _copy(
    connection: Any, templates: Sequence[_Template], names: Sequence[str], start: int
) -> None:
    for table, _ in TABLES:
        columns = templates[0].tables[table][0]
        place = columns.index("task") if "task" in columns else None
        records = []
        for n, name in enumerate(names):
            template = templates[(start + n) % len(templates)]
            task = partition_of(f"conversation-{name}", PARTITIONS)
            new = [name, *(f"{name}/{k}" for k in range(template.n_targets))]
            for row in template.tables[table][1]:
                values = row.renamed(new)
                if place is not None:
                    values[place] = task
                records.append(values)
        await connection.copy_records_to_table(table, columns=columns, records=records)


class _Told(msgspec.Struct):
    conversation_id: str
    breached_at: datetime | None = None
    detected_at: datetime | None = None


@dataclass(slots=True)
class Fire:
    """A breach that was told: its deadline in seconds since 1970, and seconds from there to its being noticed, and to its
    being read from the topic.
    """

    due: float
    detected: float
    told: float


@dataclass(slots=True)
class Listener:
    """Reads the topic `sla` from now on, and keeps what it says by the name of the mass it says it of.

    `n_early` are breaches told before their deadlines, `n_double` those told of a target that had broken already.
    """

    settings: Settings
    fires: dict[str, list[Fire]] = field(default_factory=dict)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    last: dict[tuple[str, str], float] = field(default_factory=dict)
    n_early: int = 0
    n_double: int = 0
    _seen: set[bytes] = field(default_factory=set)
    _broken: set[str] = field(default_factory=set)
    _consumer: Any = None
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to listen."""
        self._consumer = AIOKafkaConsumer(
            **self.settings.kafka_access.options(), enable_auto_commit=False, fetch_max_wait_ms=10
        )
        await self._consumer.start()
        partitions = [TopicPartition(self.settings.topic(SLA.name), n) for n in range(PARTITIONS)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            await self._consumer.position(partition)
        self._task = asyncio.create_task(self._listen())

    async def stop(self) -> None:
        """Listen no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _listen(self) -> None:
        decoder = msgspec.json.Decoder(_Told)
        wanted = {kind.TYPE.encode() for kind in (TargetBreached, TargetRetargeted, TargetStarted)}
        while True:
            found = await self._consumer.getmany(timeout_ms=1000)
            arrived = now_seconds()
            for record in (record for records in found.values() for record in records):
                # Looked at and not read as a service would: it shares its processors with what is measured.
                headers = dict(record.headers)
                if headers["ce_type"] not in wanted:
                    continue
                if headers["ce_id"] in self._seen:
                    continue  # After a restart what was told last may be told again: readers count and drop it.
                self._seen.add(headers["ce_id"])
                told = decoder.decode(record.value)
                key = told.conversation_id.split("-")[1], headers["ce_type"].decode()
                name = key[0]
                self.counts[key] += 1
                self.last[key] = arrived
                if told.breached_at is not None and told.detected_at is not None:
                    self.n_double += told.conversation_id in self._broken
                    self._broken.add(told.conversation_id)
                    due = told.breached_at.timestamp()
                    detected = (told.detected_at - told.breached_at).total_seconds()
                    self.n_early += detected < 0
                    self.fires.setdefault(name, []).append(Fire(due, detected, arrived - due))


class Sender:
    """Writes to `tickets` as the router would, numbered without gaps in each partition."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sequences: Counter[int] = Counter()
        self._open: deque[asyncio.Future[object]] = deque()
        self._producer = AIOKafkaProducer(
            **settings.kafka_access.options(),
            acks="all",
            enable_idempotence=True,
            linger_ms=1,
            max_batch_size=262_144,
        )

    async def start(self) -> None:
        """Connect."""
        await self._producer.start()

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    @property
    def n_sent(self) -> int:
        """How many events were sent."""
        return self._sequences.total()

    async def send(self, event: TicketOpened | TicketPrioritised) -> None:
        """Send the next event."""
        key = event.conversation_id
        partition = partition_of(key, PARTITIONS)
        self._sequences[partition] += 1
        sequence = self._sequences[partition]
        future = await self._producer.send(
            self._settings.topic(TICKETS.name),
            event.to_json(),
            key=key.encode(),
            headers=_headers(event, key, partition, sequence),
            partition=partition,
        )
        self._open.append(future)
        if sequence == 1:
            await self.flush()
        while self._open and self._open[0].done():
            self._open.popleft().result()

    async def flush(self) -> None:
        """Wait until the broker has all of it.

        Raises:
            KafkaError: it has not.
        """
        if self._open:
            await asyncio.gather(*self._open)
            self._open.clear()


def _headers(event: Payload, key: str, partition: int, sequence: int) -> list[tuple[str, bytes]]:
    envelope = Envelope(
        type=event.TYPE,
        source=f"{SOURCE}/{partition}",
        id=f"bench-{partition}-{sequence}",
        time=datetime.now(UTC),
        partitionkey=key,
        sequence=sequence,
    )
    return list(envelope.to_headers())
