"""The gateway's spool: accepted means stored. Replicas insert unnumbered; one lease holder numbers and publishes.

`Spool.put` returns once the item is in PostgreSQL, together with its idempotency key and its large body. Many callers
share one transaction (group commit). The `Numberer` holds a lease per (gateway, partition), taken in PostgreSQL alone:
it moves rows from the spool to the outbox, giving each its sequence, in the same fenced transaction as everything else;
its relay publishes them. A broker that is away costs nobody a 2xx.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import msgspec
from aiokafka.errors import KafkaError

from chassis import logs, metrics, topics
from chassis.batch import partition_of
from chassis.clock import Clock, monotonic
from chassis.deadletters import pack_own_headers
from chassis.errors import Conflict, Fenced, InvalidEvent, Unavailable
from chassis.failpoints import Failpoints
from chassis.ledger import (
    ACQUIRE_SECONDS,
    DATABASE_ERRORS,
    PAGE_BYTES,
    Ledger,
    OutboxRow,
    Overlay,
    Position,
    Write,
    database_facts,
)
from chassis.relay import Relay
from chassis.settings import Settings
from chassis.stage import Change, Connection
from schemas.envelope import Envelope
from schemas.topics import Topic

GATEWAY = "ingest.gateway"
LEASE_SECONDS = 3.0
"""A holder that has not renewed for this long is taken to be gone."""

RENEW_SECONDS = 0.8
TOPOLOGY = 1
POLL_SECONDS = 0.02
BATCH_ROWS = 1_000
QUEUE_ITEMS_MAX = 5_000
"""Callers waiting for their commit; more are turned away with 503."""

GROUP_ITEMS_MAX = 500
OUTBOX_PAGE = 4_000
TOPICS_SECONDS = 3.0
"""How long after a look at the topics that found something wrong the next one follows."""

DATA_ERRORS = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
)
"""What PostgreSQL or its driver says of a value, not of the moment: U+0000, a number too large."""

IDEMPOTENCY_DAYS = 3
BLOB_DAYS = 30

WAITING = metrics.gauge(
    "signalbox_spool_waiting_requests", "Callers waiting for the spool's commit."
)
STORED = metrics.counter(
    "signalbox_spool_items_total",
    "Items handed to the spool, by result. `unavailable` ones were refused with 503, `unstorable` ones as the sender's.",
    {"result": ("stored", "repeated", "conflicting", "unavailable", "unstorable")},
)
COMMIT_SECONDS = metrics.histogram(
    "signalbox_spool_commit_seconds", "Time of one group commit of accepted items."
)
SPOOL_ROWS = metrics.gauge("signalbox_spool_rows", "Accepted items not yet numbered, as last seen.")

log = logs.get("spool")


@dataclass(frozen=True, slots=True)
class SpoolItem:
    """Something accepted. `key` decides the partition; `envelope` lacks only source task and sequence.

    `blob` is a large body as (SHA-256 in hex, bytes). `idempotency` is the sender's name of the request and a digest of
    what it asked: the same pair again changes nothing and gets `answer` back.
    """

    topic: Topic
    key: str
    envelope: Envelope
    value: bytes
    blob: tuple[str, bytes] | None = None
    idempotency: tuple[str, str] | None = None
    answer: str = ""


@dataclass(frozen=True, slots=True)
class PutResult:
    """What became of an item: stored now, repeated (`answer` is the first one's), or conflicting with another body."""

    stored: bool
    repeated: bool = False
    conflicting: bool = False
    answer: str = ""


class Spool:
    """The durable front door. One per process; `run` must be running for `put` to return."""

    def __init__(self, pool: asyncpg.Pool, settings: Settings) -> None:
        self._pool = pool
        self._partitions = settings.partitions
        self._queue: list[tuple[SpoolItem, asyncio.Future[PutResult]]] = []
        self._wake = asyncio.Event()
        self._has_stopped = False
        self.stored = asyncio.Event()
        """Set whenever something was stored; the numberer of this process waits on it."""

    async def put(self, item: SpoolItem) -> PutResult:
        """Store an item; returns when it is durable.

        Raises:
            InvalidEvent: PostgreSQL cannot hold what is in it (`unstorable`); asking again changes nothing.
            Unavailable: PostgreSQL does not answer, or too many wait. Nothing may be assumed; the sender asks again.
        """
        if self._has_stopped:
            raise Unavailable("the gateway is stopping and")
        if len(self._queue) >= QUEUE_ITEMS_MAX:
            STORED.labels("unavailable").inc()
            raise Unavailable("the database is too slow and the front door", retry_after=5.0)
        future: asyncio.Future[PutResult] = asyncio.get_running_loop().create_future()
        self._queue.append((item, future))
        WAITING.set(len(self._queue))
        self._wake.set()
        return await future

    async def run(self) -> None:
        """Commit what waits, group by group, until cancelled; waiters then get `Unavailable`."""
        self._has_stopped = False
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._queue:
                    count = group_size([item for item, _ in self._queue[:GROUP_ITEMS_MAX]])
                    group, self._queue = self._queue[:count], self._queue[count:]
                    WAITING.set(len(self._queue))
                    await self._commit(group)
        finally:
            self._has_stopped = True
            for _, future in self._queue:
                if not future.done():
                    future.set_exception(Unavailable("the gateway is stopping and"))

    async def _commit(self, group: list[tuple[SpoolItem, asyncio.Future[PutResult]]]) -> None:
        try:
            with COMMIT_SECONDS.time():
                results = await self._store([item for item, _ in group])
        except (*DATABASE_ERRORS, ValueError) as error:
            if len(group) > 1 and isinstance(error, DATA_ERRORS):
                for one in group:  # One of them cannot be stored; its neighbours can.
                    await self._commit([one])
                return
            if isinstance(error, DATA_ERRORS):
                STORED.labels("unstorable").inc()
                log.warning("spool_unstorable", error=type(error).__name__)
                for _, future in group:
                    if not future.done():
                        future.set_exception(
                            InvalidEvent("unstorable", f"cannot be stored ({type(error).__name__})")
                        )
                return
            log.warning("spool_unavailable", error=type(error).__name__, items=len(group))
            STORED.labels("unavailable").inc(len(group))
            for _, future in group:
                if not future.done():
                    future.set_exception(Unavailable("the database"))
            return
        except BaseException:
            for _, future in group:
                if not future.done():
                    future.set_exception(Unavailable("the gateway is stopping and"))
            raise
        for (_, future), result in zip(group, results, strict=True):
            STORED.labels(
                "stored" if result.stored else "repeated" if result.repeated else "conflicting"
            ).inc()
            if not future.done():
                future.set_result(result)
        self.stored.set()

    async def put_within(self, connection: Connection, items: Sequence[SpoolItem]) -> None:
        """Store items in the caller's transaction: with what else it writes, or not at all.

        They have no idempotency keys; whoever writes rows of its own knows by them what was done. Once it has committed,
        the caller sets `stored`.
        """
        assert not any(item.idempotency for item in items)
        await connection.fetch(STORE, *self._columns(items))

    def _columns(self, items: Sequence[SpoolItem]) -> tuple[list[Any], ...]:
        names = [item.idempotency or (None, None) for item in items]
        blobs = [item.blob or (None, None) for item in items]
        return (
            [item.topic.name for item in items],
            [partition_of(item.key, self._partitions) for item in items],
            [item.key.encode() for item in items],
            [msgspec.json.encode(item.envelope).decode() for item in items],
            [item.value for item in items],
            [name for name, _ in names],
            [digest for _, digest in names],
            [item.answer for item in items],
            [reference for reference, _ in blobs],
            [value for _, value in blobs],
        )

    async def _store(self, items: Sequence[SpoolItem]) -> list[PutResult]:
        """Store what is new, in one statement and so in one transaction and one way to the server and back."""
        first: dict[str, SpoolItem] = {}
        for item in items:
            if item.idempotency is not None:
                first.setdefault(item.idempotency[0], item)
        # Of a name that stands twice among them only the first is stored; the others are its repeats, or conflicts.
        wanted = [
            item for item in items if item.idempotency is None or first[item.idempotency[0]] is item
        ]
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            taken = await connection.fetch(STORE, *self._columns(wanted))
            fresh = {row["key"] for row in taken}
            old = [name for name in first if name not in fresh]
            known = {name: (first[name].idempotency or ("", ""))[1:] for name in fresh}
            answers = {name: first[name].answer for name in fresh}
            if old:
                # Whoever stored these has committed: the insertion waited for it.
                for row in await connection.fetch(
                    "SELECT key, digest, answer FROM idempotency WHERE key = ANY($1::text[])", old
                ):
                    known[row["key"]] = (row["digest"],)
                    answers[row["key"]] = row["answer"]
        return [self._result(item, first, fresh, known, answers) for item in items]

    @staticmethod
    def _result(
        item: SpoolItem,
        first: Mapping[str, SpoolItem],
        fresh: Set[str],
        known: Mapping[str, tuple[str, ...]],
        answers: Mapping[str, str],
    ) -> PutResult:
        if item.idempotency is None:
            return PutResult(stored=True, answer=item.answer)
        name, digest = item.idempotency
        if name in fresh and first[name] is item:
            return PutResult(stored=True, answer=item.answer)
        if known[name] == (digest,):
            return PutResult(stored=False, repeated=True, answer=answers[name])
        return PutResult(stored=False, conflicting=True)


def group_size(items: Sequence[SpoolItem]) -> int:
    """Return how many of `items`, from the first, share a transaction of about `PAGE_BYTES`; at least one."""
    total = 0
    for count, item in enumerate(items):
        total += len(item.value) + (len(item.blob[1]) if item.blob is not None else 0)
        if total > PAGE_BYTES and count:
            return count
    return len(items)


STORE = """
WITH given AS MATERIALIZED (
       SELECT * FROM unnest($1::text[], $2::int[], $3::bytea[], $4::jsonb[], $5::bytea[], $6::text[], $7::text[],
                            $8::text[], $9::text[], $10::bytea[])
              WITH ORDINALITY AS one (topic, part, key, envelope, value, name, digest, answer, ref, body, place)),
     named AS (
       INSERT INTO idempotency (key, digest, answer)
       SELECT name, digest, answer FROM given WHERE name IS NOT NULL ORDER BY name
           ON CONFLICT (key) DO NOTHING RETURNING key),
     fresh AS MATERIALIZED (
       SELECT * FROM given WHERE name IS NULL OR name IN (SELECT key FROM named)),
     bodies AS (
       INSERT INTO blob (ref, value)
       SELECT DISTINCT ON (ref) ref, body FROM fresh WHERE ref IS NOT NULL ORDER BY ref
           ON CONFLICT (ref) DO UPDATE SET created_at = clock_timestamp()),
     stored AS (
       INSERT INTO spool (topic, part, key, envelope, value)
       SELECT topic, part, key, envelope, value FROM fresh ORDER BY place)
SELECT key FROM named
"""
"""Stores items in their order, with their names and bodies; returns the names that are new. Names are taken in order, so
that two replicas with the same ones wait for each other in a line and not in a ring."""

TAKE = """
SELECT id, topic, part, key, envelope, value
  FROM (SELECT *, sum(octet_length(value)) OVER (ORDER BY id) - octet_length(value) AS bytes_before
          FROM (SELECT id, topic, part, key, envelope, value FROM spool WHERE part = ANY($1::int[])
                 ORDER BY id LIMIT $2) AS page) AS counted
 WHERE bytes_before < $3
 ORDER BY id
"""


class _SpoolStore:
    """The numberer has no state; its rows are the spool rows that it takes."""

    async def load(self, connection: Connection, task: int, keys: Sequence[str]) -> dict[str, Any]:
        del connection, task, keys
        return {}

    async def save(
        self,
        connection: Connection,
        changes: Sequence[Change[Any]],
        rows: Sequence[tuple[int, Any]],
    ) -> None:
        del changes
        taken = [spool_id for _, spool_id in rows]
        status = await connection.execute("DELETE FROM spool WHERE id = ANY($1::bigint[])", taken)
        if int(status.rpartition(" ")[2]) != len(taken):
            raise Conflict(f"{len(taken)} spool rows were to be numbered, {status} were there")


@dataclass(slots=True)
class _Held:
    """A lease held by this process."""

    epoch: int
    position: Position
    relay: Relay
    renewed: float


class Numberer:
    """Numbers and publishes what the spool holds, for those partitions whose lease it has."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        settings: Settings,
        clock: Clock,
        spool: Spool | None = None,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._clock = clock
        self._stored = spool.stored if spool is not None else asyncio.Event()
        self._failpoints = failpoints or Failpoints()
        self._ledger: Ledger[Any] = Ledger(pool, GATEWAY, _SpoolStore(), self._failpoints)
        # Not only host and process: two containers may share both names, and would share each other's leases.
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._held: dict[int, _Held] = {}
        self._next_try = 0.0
        self._next_sweep = monotonic() + 60
        self._share = 1.0
        """The part of a full batch that is taken in one transaction: halved by each error, full again after a success."""
        self._right_topics: set[str] = set()
        self._looks_again = asyncio.Event()
        self.topics_problem: str | None = "have not been checked yet"
        """What keeps accepted items from being numbered; None where the topics are as they should be."""
        self.last_turn = monotonic()

    async def run(self) -> None:
        """Hold leases, number and publish, until cancelled; then let go of the leases.

        Nothing is numbered before its topic is known to have as many partitions as the settings say: a number belongs to
        a partition for good.
        """
        watch = asyncio.create_task(self._watch_topics(), name="numberer topics")
        try:
            while True:
                try:
                    is_behind = await self._turn()
                except (*DATABASE_ERRORS, Fenced) as error:
                    log.warning(
                        "numberer_lost", error=type(error).__name__, **database_facts(error)
                    )
                    metrics.LOST.labels(
                        GATEWAY, "fenced" if isinstance(error, Fenced) else "database"
                    ).inc()
                    if not isinstance(error, Fenced):
                        self._share = max(self._share / 2, 1 / BATCH_ROWS)
                    await self._drop_all()
                    await asyncio.sleep(0.2)
                    continue
                if not is_behind:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await self._stored.wait()
                    self._stored.clear()
        finally:
            watch.cancel()
            await self._let_go()

    async def _watch_topics(self) -> None:
        """Learn which topics are as they should be; look again until all are, and whenever one that is not turns up."""
        while True:
            self._looks_again.clear()
            try:
                found = await topics.describe(self._settings)
            except (KafkaError, OSError, TimeoutError) as error:
                self.topics_problem = (
                    f"not checked: no answer from the broker ({type(error).__name__})"
                )
                log.warning("topics_unchecked", error=type(error).__name__)
            else:
                findings = topics.judge(found, self._settings)
                self._right_topics = set(found) - {finding.topic for finding in findings}
                self.topics_problem = "; ".join(map(str, findings)) or None
                topics.report(findings)
            self._stored.set()
            if self.topics_problem is None:
                await self._looks_again.wait()
            await asyncio.sleep(TOPICS_SECONDS)

    async def _turn(self) -> bool:
        """Number a page of what is stored; return whether more of it is known to wait."""
        self.last_turn = monotonic()
        if len(self._held) < self._settings.partitions and monotonic() >= self._next_try:
            self._next_try = monotonic() + 0.5
            await self._acquire_free()
        if not self._held:
            return False
        for held in self._held.values():
            await held.relay.page()
        open_tasks = [n for n, held in self._held.items() if not held.relay.is_long]
        most_rows = max(int(BATCH_ROWS * self._share), 1)
        most_bytes = max(int(PAGE_BYTES * self._share), 1)
        async with self._ledger.reading() as connection:
            rows = await connection.fetch(TAKE, open_tasks, most_rows, most_bytes)
        SPOOL_ROWS.set(len(rows))
        # A page with room left was all there was: what comes meanwhile sets `stored`, so no look in vain.
        is_full = len(rows) >= most_rows or sum(len(row["value"]) for row in rows) >= most_bytes
        if not {row["topic"] for row in rows} <= self._right_topics:
            self._looks_again.set()
            rows = []  # They keep; the leases are renewed all the same.
        await self._number(rows)
        if rows:
            self._share = 1.0
        self._publish_metrics()
        if monotonic() >= self._next_sweep:
            self._next_sweep = monotonic() + 600
            await self._sweep()
        return is_full and bool(rows)

    async def _number(self, rows: Sequence[asyncpg.Record]) -> None:
        overlays: dict[int, Overlay[Any]] = {}
        for row in rows:
            held = self._held[row["part"]]
            overlay = overlays.setdefault(row["part"], Overlay(held.position.copy()))
            self._number_one(overlay, row)
        now = monotonic()
        for number, held in self._held.items():
            if number not in overlays and now - held.renewed > RENEW_SECONDS:
                overlays[number] = Overlay(held.position.copy())
        if not overlays:
            return
        for number, overlay in overlays.items():
            overlay.acked_oid = self._held[number].relay.acked_oid
        ours = await self._ledger.commit(
            [Write(n, self._held[n].epoch, overlay) for n, overlay in sorted(overlays.items())]
        )
        for number, overlay in overlays.items():
            held = self._held[number]
            if number not in ours:
                raise Fenced((number,))
            held.position, held.renewed = overlay.position, now
            held.relay.append(overlay.outbox)
            held.relay.ack_noted(overlay.acked_oid)
            if overlay.outbox:
                metrics.RECORDS.labels(GATEWAY, "applied").inc(len(overlay.outbox))

    def _number_one(self, overlay: Overlay[Any], row: asyncpg.Record) -> None:
        position = overlay.position
        partition: int = row["part"]
        slot = f"{row['topic']}/{partition}"
        sequence = position.emitted.get(slot, 0) + 1
        position.emitted[slot] = sequence
        envelope = msgspec.json.decode(row["envelope"], type=Envelope)
        source = f"signalbox/{GATEWAY}/{partition}"
        if position.incarnation > 1:
            source = f"{source}#{position.incarnation}"
        envelope = replace(
            envelope,
            source=source,
            sequence=sequence,
            continues=position.continues_from(slot, sequence),
        )
        overlay.outbox.append(
            OutboxRow(
                position.next_oid,
                row["topic"],
                partition,
                sequence,
                row["key"],
                pack_own_headers(envelope.to_text_headers()),
                row["value"],
            )
        )
        position.next_oid += 1
        position.n_applied += 1
        overlay.rows.append(row["id"])

    async def _acquire_free(self) -> None:
        for number in range(self._settings.partitions):
            if number in self._held:
                continue
            lease = await self._ledger.acquire_if_free(number, self._owner, TOPOLOGY, LEASE_SECONDS)
            if lease is None:
                continue
            outbox = await self._ledger.load_outbox(number, 0, OUTBOX_PAGE)
            relay = Relay(
                stage=GATEWAY,
                task=number,
                kafka=self._settings.kafka_access,
                topic_name=self._settings.topic,
                load_page=lambda after, limit, n=number: self._ledger.load_outbox(n, after, limit),  # type: ignore[misc]
                delete_acked=lambda oid, n=number, e=lease.epoch: self._ledger.delete_acked(
                    n, oid, e
                ),  # type: ignore[misc]
                failpoints=self._failpoints,
            )
            relay.start(outbox, is_page_full=bool(outbox))
            self._held[number] = _Held(lease.epoch, lease.position, relay, monotonic())
            metrics.EPOCH.labels(GATEWAY, str(number)).set(lease.epoch)
            metrics.OWNED.labels(GATEWAY, str(number)).set(1)
            log.info(
                "task_acquired", stage=GATEWAY, task=number, epoch=lease.epoch, outbox=len(outbox)
            )

    async def _drop_all(self) -> None:
        held, self._held = self._held, {}
        for number, one in held.items():
            metrics.OWNED.labels(GATEWAY, str(number)).set(0)
            await one.relay.stop()

    async def _let_go(self) -> None:
        held, self._held = self._held, {}
        await asyncio.gather(*(one.relay.stop(3.0) for one in held.values()))
        with contextlib.suppress(*DATABASE_ERRORS):
            async with self._ledger.reading() as connection:
                await connection.execute(
                    "UPDATE lease SET renewed_at = '-infinity' WHERE stage = $1 AND owner = $2",
                    GATEWAY,
                    self._owner,
                )

    async def _sweep(self) -> None:
        """Forget answers and bodies that nobody can ask for any more."""
        async with self._ledger.reading() as connection:
            await connection.execute(
                "DELETE FROM idempotency WHERE created_at < clock_timestamp() - make_interval(days => $1)",
                IDEMPOTENCY_DAYS,
            )
            await connection.execute(
                "DELETE FROM blob WHERE created_at < clock_timestamp() - make_interval(days => $1)",
                BLOB_DAYS,
            )

    def _publish_metrics(self) -> None:
        for number, held in self._held.items():
            labels = (GATEWAY, str(number))
            metrics.OUTBOX_ROWS.labels(*labels).set(held.relay.depth)
            metrics.OUTBOX_AGE.labels(*labels).set(held.relay.age())

    @property
    def is_holding(self) -> bool:
        """Whether this process numbers for at least one partition."""
        return bool(self._held)
