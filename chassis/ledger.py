"""The ledger: one batch, one transaction, behind the lease's epoch.

Rows, all keyed by (stage, task): `lease` (epoch, owner, offsets, counters), `state`, `timer`, `outbox`, `effect`,
`parked`. Whoever holds the lease's epoch may write; anybody else changes nothing, whenever they wake up. Several tasks
of one poll share a transaction and are fenced one by one.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar

import asyncpg
import msgspec

from chassis import deadletters
from chassis.clock import Clock
from chassis.deadletters import ParkedRecord
from chassis.errors import Conflict, Fenced, Refused, SignalboxError
from chassis.failpoints import FailpointError, Failpoints
from chassis.stage import Change, Connection, Effect, EffectStanding, Stage, Store

S = TypeVar("S")

SESSION: dict[str, str] = {
    "transaction_timeout": "4s",
    "statement_timeout": "4s",
    "lock_timeout": "3s",
    "idle_in_transaction_session_timeout": "2s",
    "synchronous_commit": "on",
}
"""Bounds of every session: a process frozen inside its transaction is ended by the server before its group moves on.
`transaction_timeout` needs PostgreSQL 17."""

ACQUIRE_SECONDS = 3.0
COMMAND_SECONDS = 5.0
PAGE_BYTES = 8 * 1024 * 1024
"""Bytes that one statement or transaction reads or writes, about: what passes through within `transaction_timeout` on a
slow day. One row may be more; then it goes alone."""

TIMER_PAGE = 10_000
"""Timers read at once. More of them than that may be due after an outage, and nobody need know them all to begin."""

REPLAYS_MAX = 200
"""Parked records that one look for replays brings, at most."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event to publish, ready to send: numbered, keyed, small enough."""

    oid: int
    topic: str
    partition: int
    sequence: int
    key: bytes
    headers: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class TimerRow:
    """A timer: `id` changes each time it is set, so that a stale one in memory is never taken for it."""

    key: str
    name: str
    id: int
    due_at: datetime


class TimerMark(NamedTuple):
    """Up to where timers were read, in the order of the table. With no key it stands before all that are due at the instant."""

    due_at: datetime
    key: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Walk:
    """How far a task's keys are decided under `revision`: up to `after`, all once it `is_done`. `number` counts walks."""

    revision: str | None = None
    number: int = 0
    after: str = ""
    is_done: bool = False


@dataclass(slots=True)
class Position:
    """How far a task has come: all of it lives in the lease row and moves only in its transaction."""

    incarnation: int = 1
    offsets: dict[str, int] = field(default_factory=dict)
    emitted: dict[str, int] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)
    next_oid: int = 1
    next_timer: int = 1
    n_applied: int = 0
    n_duplicate: int = 0
    n_ignored: int = 0
    n_parked: int = 0
    halted: dict[str, Any] | None = None
    continues: dict[str, str] = field(default_factory=dict)
    """"topic/partition" -> `incarnation:sequence` of the last event of an earlier incarnation; set by a restore."""

    def continues_from(self, slot: str, sequence: int) -> str | None:
        """Return what the first event of a new incarnation says of the old one; None for all others."""
        if self.incarnation == 1 or sequence != 1:
            return None
        return self.continues.get(slot, "1:0")

    def copy(self) -> "Position":
        """Return an independent copy, for a batch that may come to nothing."""
        return replace(
            self, offsets=dict(self.offsets), emitted=dict(self.emitted), applied=dict(self.applied)
        )


@dataclass(slots=True)
class Overlay(Generic[S]):
    """Everything a batch changes. Memory takes it over only after COMMIT."""

    position: Position
    states: dict[str, S | None] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)
    outbox: list[OutboxRow] = field(default_factory=list)
    fired: dict[tuple[str, str], TimerRow] = field(default_factory=dict)
    timers: dict[tuple[str, str], TimerRow | None] = field(default_factory=dict)
    effects: dict[str, tuple[int, Effect]] = field(default_factory=dict)
    effects_started: list[str] = field(default_factory=list)
    effects_settled: list[str] = field(default_factory=list)
    effects_withdrawn: dict[str, None] = field(default_factory=dict)
    """Of the task's effects as they are after this batch; in order."""
    effects_unbegun: set[str] = field(default_factory=set)
    """Of those withdrawn, what the table lets withdraw: one that was ever begun goes on, and its own result is told."""
    parked: list[ParkedRecord] = field(default_factory=list)
    resolved: list[tuple[str, str]] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    acked_oid: int = 0
    walk: Walk | None = None


@dataclass(frozen=True, slots=True)
class Write(Generic[S]):
    """One task's part of a commit."""

    task: int
    epoch: int
    overlay: Overlay[S]


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease just taken."""

    epoch: int
    position: Position


ACQUIRE = """
INSERT INTO lease AS l (stage, task, epoch, owner, topology)
VALUES ($1, $2, 1, $3, $4)
ON CONFLICT (stage, task) DO UPDATE
   SET epoch = l.epoch + 1, owner = excluded.owner, topology = excluded.topology, renewed_at = clock_timestamp()
 WHERE l.topology <= excluded.topology
RETURNING *
"""

ACQUIRE_IF_FREE = """
INSERT INTO lease AS l (stage, task, epoch, owner, topology)
VALUES ($1, $2, 1, $3, $4)
ON CONFLICT (stage, task) DO UPDATE
   SET epoch = l.epoch + 1, owner = excluded.owner, topology = excluded.topology, renewed_at = clock_timestamp()
 WHERE l.topology <= excluded.topology
   AND (l.owner = excluded.owner OR l.renewed_at < clock_timestamp() - make_interval(secs => $5))
RETURNING *
"""

_ADVANCE = """
ours AS (
UPDATE lease AS l
   SET offsets = u.offsets, emitted = u.emitted, applied = u.applied, next_oid = u.next_oid,
       next_timer = u.next_timer, n_applied = u.n_applied, n_duplicate = u.n_duplicate, n_ignored = u.n_ignored,
       n_parked = u.n_parked, halted = u.halted, renewed_at = clock_timestamp()
  FROM unnest($2::int[], $3::bigint[], $4::jsonb[], $5::jsonb[], $6::jsonb[], $7::bigint[], $8::bigint[],
              $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::jsonb[])
       AS u(task, epoch, offsets, emitted, applied, next_oid, next_timer, n_applied, n_duplicate, n_ignored, n_parked,
            halted)
 WHERE l.stage = $1 AND l.task = u.task AND l.epoch = u.epoch
RETURNING l.task)"""

_DELETE_ACKED = """
acked AS (
DELETE FROM outbox AS o USING unnest($14::int[], $15::bigint[]) AS u(task, oid)
 WHERE o.stage = $1 AND o.task = u.task AND o.oid <= u.oid AND u.task IN (SELECT task FROM ours))"""

_INSERT_OUTBOX = """
told AS (
INSERT INTO outbox (stage, task, oid, topic, part, seq, key, headers, value)
SELECT $1, u.* FROM unnest($16::int[], $17::bigint[], $18::text[], $19::int[], $20::bigint[], $21::bytea[],
                           $22::bytea[], $23::bytea[]) AS u(task, oid, topic, part, seq, key, headers, value)
 WHERE u.task IN (SELECT task FROM ours))"""

MOVE = f"WITH{_ADVANCE},{_DELETE_ACKED},{_INSERT_OUTBOX}\nSELECT task FROM ours"
"""The leases of a commit, and what those still ours have had acknowledged and have to tell: one statement, because each is
a way to the server and back. Who is fenced is not in `ours`, and nothing of theirs is touched."""

DELETE_FIRED = """
DELETE FROM timer AS t
 USING unnest($2::int[], $3::text[], $4::text[], $5::bigint[]) AS u(task, key, name, id)
 WHERE t.stage = $1 AND t.task = u.task AND t.key = u.key AND t.name = u.name AND t.id = u.id
"""

MOVE_FIRED = """
UPDATE timer AS t SET id = u.new_id, due_at = u.due_at
  FROM unnest($2::int[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::timestamptz[])
       AS u(task, key, name, id, new_id, due_at)
 WHERE t.stage = $1 AND t.task = u.task AND t.key = u.key AND t.name = u.name AND t.id = u.id
"""
"""A timer that fired and is set again: one new row version instead of a dead row and a new one."""

CLEAR_TIMERS = """
DELETE FROM timer AS t USING unnest($2::int[], $3::text[], $4::text[]) AS u(task, key, name)
 WHERE t.stage = $1 AND t.task = u.task AND t.key = u.key AND t.name = u.name
"""

SET_TIMERS = """
INSERT INTO timer (stage, task, key, name, id, due_at)
SELECT $1, * FROM unnest($2::int[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[])
ON CONFLICT (stage, task, key, name) DO UPDATE SET id = excluded.id, due_at = excluded.due_at
"""

LOAD_OUTBOX = """
SELECT oid, topic, part, seq, key, headers, value
  FROM (SELECT *, sum(octet_length(value) + octet_length(headers)) OVER (ORDER BY oid)
                  - octet_length(value) - octet_length(headers) AS bytes_before
          FROM (SELECT oid, topic, part, seq, key, headers, value FROM outbox
                 WHERE stage = $1 AND task = $2 AND oid > $3 ORDER BY oid LIMIT $4) AS page) AS counted
 WHERE bytes_before < $5
 ORDER BY oid
"""

DELETE_ACKED_IDLE = """
DELETE FROM outbox WHERE stage = $1 AND task = $2 AND oid <= $3
   AND EXISTS (SELECT FROM lease WHERE stage = $1 AND task = $2 AND epoch = $4)
"""

INSERT_EFFECTS = """
INSERT INTO effect (stage, task, id, key, attempt, payload, ordinal)
SELECT $1, * FROM unnest($2::int[], $3::text[], $4::text[], $5::int[], $6::jsonb[], $7::bigint[])
"""

WITHDRAW_EFFECTS = """
UPDATE effect AS e SET withdrawn_at = clock_timestamp() FROM unnest($2::int[], $3::text[]) AS u(task, id)
 WHERE e.stage = $1 AND e.task = u.task AND e.id = u.id AND e.started_at IS NULL
RETURNING e.task, e.id
"""

START_EFFECTS = """
UPDATE effect AS e SET started_at = clock_timestamp() FROM unnest($2::int[], $3::text[]) AS u(task, id)
 WHERE e.stage = $1 AND e.task = u.task AND e.id = u.id AND e.withdrawn_at IS NULL
"""

SETTLE_EFFECTS = """
DELETE FROM effect AS e USING unnest($2::int[], $3::text[]) AS u(task, id)
 WHERE e.stage = $1 AND e.task = u.task AND e.id = u.id
"""

RESOLVE_PARKED = """
UPDATE parked AS p SET resolved_at = clock_timestamp(), resolution = u.resolution
  FROM unnest($1::text[], $2::text[]) AS u(id, resolution) WHERE p.id = u.id AND p.resolved_at IS NULL
"""

LOAD_TIMERS = """
SELECT key, name, id, due_at FROM timer
 WHERE stage = $1 AND task = $2 AND due_at <= $3
   AND (due_at, key, name) > (coalesce($4, '-infinity'::timestamptz), $5::text, $6::text)
 ORDER BY due_at, key, name LIMIT $7
"""
"""Never more than a page: a million may be due at the same instant, and the next page begins between two of them."""

MARK_WALKS = """
INSERT INTO revisit (stage, task, revision, walk, after_key, done_at)
SELECT $1, u.task, u.revision, u.walk, u.after_key, CASE WHEN u.is_done THEN clock_timestamp() END
  FROM unnest($2::int[], $3::text[], $4::bigint[], $5::text[], $6::bool[])
       AS u(task, revision, walk, after_key, is_done)
ON CONFLICT (stage, task) DO UPDATE
   SET revision = excluded.revision, walk = excluded.walk, after_key = excluded.after_key, done_at = excluded.done_at,
       began_at = CASE WHEN revisit.walk = excluded.walk THEN revisit.began_at ELSE excluded.began_at END
"""

FIRST_WALK = """
INSERT INTO revisit (stage, task, revision, walk, done_at)
SELECT stage, task, $4, 0, clock_timestamp() FROM lease WHERE stage = $1 AND task = $2 AND epoch = $3
ON CONFLICT DO NOTHING
"""

LOAD_REPLAYS = """
SELECT *
  FROM (SELECT *, sum(size) OVER (ORDER BY parked_at, log_offset, id) - size AS bytes_before
          FROM (SELECT *, octet_length(headers) + coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0)
                          AS size
                  FROM parked
                 WHERE stage = $1 AND task = ANY($2::int[]) AND resolved_at IS NULL
                   AND replay_requested_at IS NOT NULL
                 ORDER BY parked_at, log_offset, id LIMIT $3) AS page) AS counted
 WHERE bytes_before < $4
 ORDER BY parked_at, log_offset, id
"""


RESUME = """
UPDATE lease SET halted = NULL, offsets = $3::jsonb, applied = $4::jsonb WHERE stage = $1 AND task = $2
"""


INSERT_SUPERSEDED = """
INSERT INTO superseded (stage, task, id) SELECT $1, * FROM unnest($2::int[], $3::text[]) ON CONFLICT DO NOTHING
"""


class TimerMissing(Exception):
    """A fired timer's row is gone: memory and table differ, so memory is dropped and read again."""


class AlreadyResolved(Exception):
    """A dead letter that was replayed is resolved by somebody else: nothing of the replay may count."""


DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # What the driver says of a connection that the server ended in mid-transaction.
    OSError,
    TimeoutError,
)
"""What a database raises that is away, too slow or shutting down."""

DATABASE_ERRORS = (
    *DRIVER_ERRORS,
    Conflict,
    Refused,
    TimerMissing,
    AlreadyResolved,
    FailpointError,
)
"""What reading and committing may raise. But for `Conflict` and `Refused` a commit's outcome may be unknown after them:
forget, and read again. Never retry the batch."""

REFUSALS = (
    asyncpg.DataError,  # SQLSTATE class 22; the driver raises it too, of a parameter that it cannot encode.
    asyncpg.IntegrityConstraintViolationError,  # Class 23.
    asyncpg.ProgramLimitExceededError,  # Class 54: a row too large for its index.
)
"""What the database would say again and again of the same batch: one of its inputs is at fault."""


class Ledger(Generic[S]):
    """The ledger of one stage, on a pool whose search path is the service's schema."""

    def __init__(
        self, pool: asyncpg.Pool, stage: str, store: Store[S], failpoints: Failpoints | None = None
    ) -> None:
        self._pool = pool
        self._stage = stage
        self._store = store
        self._failpoints = failpoints or Failpoints()

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Lend a connection for reading outside the batch's transaction."""
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            yield connection

    async def peek_offsets(self, task: int) -> dict[str, int]:
        """Return the offsets that the lease holds, without taking it; empty where there is no lease yet."""
        async with self.reading() as connection:
            raw = await connection.fetchval(
                "SELECT offsets FROM lease WHERE stage = $1 AND task = $2", self._stage, task
            )
        return json.loads(raw) if raw is not None else {}

    async def acquire(self, task: int, owner: str, topology: int) -> Lease | None:
        """Take the lease: epoch + 1, committed by itself. None where a newer topology holds it.

        Waits for any transaction of the previous owner, whose row lock it needs.
        """
        async with self.reading() as connection:
            row = await connection.fetchrow(ACQUIRE, self._stage, task, owner, topology)
        return None if row is None else _lease_of(row)

    async def measure_skew(self, clock: Clock) -> float:
        """Return this process' clock minus the database's, in seconds, taken midway between asking and answer."""
        async with self.reading() as connection:
            before = clock.now()
            theirs: datetime = await connection.fetchval("SELECT clock_timestamp()")
            after = clock.now()
        return (before + (after - before) / 2 - theirs).total_seconds()

    async def acquire_if_free(
        self, task: int, owner: str, topology: int, lease_seconds: float
    ) -> Lease | None:
        """Take a lease that PostgreSQL alone decides: None while another owner has renewed it of late."""
        async with self.reading() as connection:
            row = await connection.fetchrow(
                ACQUIRE_IF_FREE, self._stage, task, owner, topology, lease_seconds
            )
        return None if row is None else _lease_of(row)

    async def load_timers(
        self, task: int, after: TimerMark | None, until: datetime
    ) -> list[TimerRow]:
        """Return the timers behind `after` (None: from the beginning) and due up to `until`, earliest first.

        At most `TIMER_PAGE` of them; where so many come, there may be more.
        """
        due_at, key, name = after or (None, "", "")
        async with self.reading() as connection:
            rows = await connection.fetch(
                LOAD_TIMERS, self._stage, task, until, due_at, key, name, TIMER_PAGE
            )
        return [TimerRow(row["key"], row["name"], row["id"], row["due_at"]) for row in rows]

    async def load_walk(self, stage: Stage[S], task: int, epoch: int) -> Walk:
        """Return how far the task's keys are decided under which revision.

        Where nothing is stored of it and the task has no key, nothing was decided under another revision: the present one
        is as good as walked, and that is stored if the lease is still ours. With keys and nothing stored they are from
        before there were revisits, or from before the revision could be told, and are all walked.
        """
        if type(stage).revision is Stage.revision:
            return Walk()
        revision = stage.revision()
        async with self.reading() as connection:
            row = await connection.fetchrow(
                "SELECT revision, walk, after_key, done_at FROM revisit WHERE stage = $1 AND task = $2",
                self._stage,
                task,
            )
            if row is not None:
                return Walk(
                    row["revision"], row["walk"], row["after_key"], row["done_at"] is not None
                )
            if revision is None or await stage.revisit_keys(connection, task, "", 1):
                return Walk()
            await connection.execute(FIRST_WALK, self._stage, task, epoch, revision)
        return Walk(revision, is_done=True)

    async def load_outbox(self, task: int, after_oid: int, limit: int) -> list[OutboxRow]:
        """Return a page of the outbox behind `after_oid`, in order: at most `limit` rows and about `PAGE_BYTES`.

        Only an empty page means that there are no more rows.
        """
        async with self.reading() as connection:
            rows = await connection.fetch(
                LOAD_OUTBOX, self._stage, task, after_oid, limit, PAGE_BYTES
            )
        return [
            OutboxRow(
                row["oid"],
                row["topic"],
                row["part"],
                row["seq"],
                row["key"],
                row["headers"],
                row["value"],
            )
            for row in rows
        ]

    async def load_effects(self, task: int) -> list[tuple[Effect, EffectStanding]]:
        """Return the effects not settled, in the order they were recorded, and how each stands."""
        async with self.reading() as connection:
            rows = await connection.fetch(
                "SELECT id, key, attempt, payload, started_at, withdrawn_at FROM effect"
                " WHERE stage = $1 AND task = $2 ORDER BY ordinal",
                self._stage,
                task,
            )
        return [
            (
                Effect(row["id"], row["key"], json.loads(row["payload"]), row["attempt"]),
                _standing_of(row),
            )
            for row in rows
        ]

    async def load_parked_keys(self, task: int) -> dict[str, list[str]]:
        """Return the keys that have records parked and not resolved, each with the dead letters' ids, oldest first."""
        async with self.reading() as connection:
            rows = await connection.fetch(
                "SELECT state_key, array_agg(id ORDER BY parked_at, log_offset) AS ids FROM parked WHERE stage = $1 AND task = $2 AND resolved_at IS NULL"
                " AND state_key IS NOT NULL GROUP BY state_key",
                self._stage,
                task,
            )
        return {row["state_key"]: row["ids"] for row in rows}

    async def load_superseded(self, task: int) -> set[str]:
        """Return the ids of events that a source told in a past it has lost; told again, they are duplicates."""
        async with self.reading() as connection:
            rows = await connection.fetch(
                "SELECT id FROM superseded WHERE stage = $1 AND task = $2", self._stage, task
            )
        return {row["id"] for row in rows}

    async def load_replays(self, tasks: Sequence[int]) -> list[ParkedRecord]:
        """Return parked records of `tasks` that someone asked to try again, oldest first: about `PAGE_BYTES` at most."""
        async with self.reading() as connection:
            rows = await connection.fetch(
                LOAD_REPLAYS, self._stage, list(tasks), REPLAYS_MAX, PAGE_BYTES
            )
        return [
            ParkedRecord(
                row["id"],
                row["stage"],
                row["task"],
                row["topic"],
                row["part"],
                row["log_offset"],
                row["key"],
                row["headers"],
                row["value"],
                row["is_cut"],
                row["reason"],
                row["error"],
                row["state_key"],
                row["parked_at"],
            )
            for row in rows
        ]

    async def is_halted(self, task: int) -> bool:
        """Whether the lease still says that the task stands at a gap."""
        async with self.reading() as connection:
            return bool(
                await connection.fetchval(
                    "SELECT halted IS NOT NULL FROM lease WHERE stage = $1 AND task = $2",
                    self._stage,
                    task,
                )
            )

    async def delete_acked(self, task: int, oid: int, epoch: int) -> None:
        """Drop published rows while nothing else is committed. A lost delete costs a duplicate, so it need not wait."""
        async with self.reading() as connection, connection.transaction():
            await connection.execute("SET LOCAL synchronous_commit = off")
            await connection.execute(DELETE_ACKED_IDLE, self._stage, task, oid, epoch)

    async def commit(self, writes: Sequence[Write[S]]) -> set[int]:
        """Write the batches of several tasks in one transaction; return the tasks whose lease we still hold.

        A task that is not in the answer is fenced: nothing of its batch was written.

        Raises:
            Fenced: no task was ours.
            TimerMissing: a fired timer had no row.
            AlreadyResolved: a replayed record was no open dead letter any more.
            Conflict: a shared row was claimed elsewhere; nothing was written.
            Refused: what the batches hold cannot be stored; nothing was written.
            asyncpg.PostgresError, OSError, TimeoutError: the outcome may be unknown; never retry, acquire again.
        """
        is_complete = False
        async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            try:
                async with connection.transaction():
                    ours = await self._move(connection, writes)
                    if not ours:
                        raise Fenced(tuple(write.task for write in writes))
                    self._failpoints.hit("in_txn")
                    await self._write([write for write in writes if write.task in ours], connection)
                    self._failpoints.hit("before_commit")
                    is_complete = True
            except Exception as error:
                # Where the ROLLBACK had failed too, it would be that failure that comes here.
                _raise_if_undone(error, is_complete)
                raise
            self._failpoints.hit("commit_ack")
        self._failpoints.hit("after_commit")
        return ours

    async def _move(self, connection: Connection, writes: Sequence[Write[S]]) -> set[int]:
        positions = [write.overlay.position for write in writes]
        acked = [(w.task, w.overlay.acked_oid) for w in writes if w.overlay.acked_oid]
        out = [(w.task, row) for w in writes for row in w.overlay.outbox]
        rows = await connection.fetch(
            MOVE,
            self._stage,
            [write.task for write in writes],
            [write.epoch for write in writes],
            [_json(p.offsets) for p in positions],
            [_json(p.emitted) for p in positions],
            [_json(p.applied) for p in positions],
            [p.next_oid for p in positions],
            [p.next_timer for p in positions],
            [p.n_applied for p in positions],
            [p.n_duplicate for p in positions],
            [p.n_ignored for p in positions],
            [p.n_parked for p in positions],
            [None if p.halted is None else _json(p.halted) for p in positions],
            [task for task, _ in acked],
            [oid for _, oid in acked],
            [task for task, _ in out],
            [row.oid for _, row in out],
            [row.topic for _, row in out],
            [row.partition for _, row in out],
            [row.sequence for _, row in out],
            [row.key for _, row in out],
            [row.headers for _, row in out],
            [row.value for _, row in out],
        )
        return {row["task"] for row in rows}

    async def _write(self, writes: Sequence[Write[S]], connection: Connection) -> None:
        changes = [
            Change(write.task, key, state)
            for write in writes
            for key, state in sorted(write.overlay.states.items())
        ]
        rows = [(write.task, row) for write in writes for row in write.overlay.rows]
        if changes or rows:
            await self._store.save(connection, changes, rows)
        await self._write_timers(connection, writes)
        await self._write_effects(connection, writes)
        walks = [(w.task, w.overlay.walk) for w in writes if w.overlay.walk is not None]
        if walks:
            await connection.execute(
                MARK_WALKS,
                self._stage,
                [task for task, _ in walks],
                [walk.revision for _, walk in walks],
                [walk.number for _, walk in walks],
                [walk.after for _, walk in walks],
                [walk.is_done for _, walk in walks],
            )
        parked = [record for write in writes for record in write.overlay.parked]
        if parked:
            await deadletters.insert(connection, parked)
        resolved = [item for write in writes for item in write.overlay.resolved]
        superseded = [(w.task, event_id) for w in writes for event_id in w.overlay.superseded]
        if superseded:
            await connection.execute(
                INSERT_SUPERSEDED,
                self._stage,
                [t for t, _ in superseded],
                [i for _, i in superseded],
            )
        if resolved:
            status = await connection.execute(
                RESOLVE_PARKED, [i for i, _ in resolved], [r for _, r in resolved]
            )
            if int(status.rpartition(" ")[2]) != len(resolved):
                raise AlreadyResolved(f"{len(resolved)} records replayed, {status} were open")

    async def _write_timers(self, connection: Connection, writes: Sequence[Write[S]]) -> None:
        fired, again = [], []
        for write in writes:
            timers = write.overlay.timers
            for name, row in write.overlay.fired.items():
                anew = timers.get(name)
                if anew is None:
                    fired.append((write.task, row))
                else:
                    again.append((write.task, row, anew))
        if fired:
            status = await connection.execute(
                DELETE_FIRED,
                self._stage,
                [t for t, _ in fired],
                [r.key for _, r in fired],
                [r.name for _, r in fired],
                [r.id for _, r in fired],
            )
            if int(status.rpartition(" ")[2]) != len(fired):
                raise TimerMissing(f"{len(fired)} timers fired, {status} rows were there")
        if again:
            status = await connection.execute(
                MOVE_FIRED,
                self._stage,
                [t for t, _, _ in again],
                [r.key for _, r, _ in again],
                [r.name for _, r, _ in again],
                [r.id for _, r, _ in again],
                [anew.id for _, _, anew in again],
                [anew.due_at for _, _, anew in again],
            )
            if int(status.rpartition(" ")[2]) != len(again):
                raise TimerMissing(f"{len(again)} timers fired, {status} rows were there")
        cleared = [
            (w.task, *name)
            for w in writes
            for name, row in w.overlay.timers.items()
            if row is None and name not in w.overlay.fired
        ]
        if cleared:
            await connection.execute(
                CLEAR_TIMERS,
                self._stage,
                [c[0] for c in cleared],
                [c[1] for c in cleared],
                [c[2] for c in cleared],
            )
        placed = [
            (w.task, row)
            for w in writes
            for name, row in w.overlay.timers.items()
            if row is not None and name not in w.overlay.fired
        ]
        if placed:
            await connection.execute(
                SET_TIMERS,
                self._stage,
                [t for t, _ in placed],
                [r.key for _, r in placed],
                [r.name for _, r in placed],
                [r.id for _, r in placed],
                [r.due_at for _, r in placed],
            )

    async def _write_effects(self, connection: Connection, writes: Sequence[Write[S]]) -> None:
        settled = [(w.task, effect_id) for w in writes for effect_id in w.overlay.effects_settled]
        if settled:
            await connection.execute(
                SETTLE_EFFECTS, self._stage, [t for t, _ in settled], [i for _, i in settled]
            )
        made = [
            (w.task, ordinal, effect)
            for w in writes
            for ordinal, effect in w.overlay.effects.values()
        ]
        if made:
            await connection.execute(
                INSERT_EFFECTS,
                self._stage,
                [t for t, _, _ in made],
                [e.id for _, _, e in made],
                [e.key for _, _, e in made],
                [e.attempt for _, _, e in made],
                [_json(dict(e.payload)) for _, _, e in made],
                [ordinal for _, ordinal, _ in made],
            )
        withdrawn = [
            (w.task, effect_id) for w in writes for effect_id in w.overlay.effects_withdrawn
        ]
        if withdrawn:
            # Before any is begun: one that this very batch withdraws is not.
            rows = await connection.fetch(
                WITHDRAW_EFFECTS, self._stage, [t for t, _ in withdrawn], [i for _, i in withdrawn]
            )
            for write in writes:
                write.overlay.effects_unbegun = {
                    row["id"] for row in rows if row["task"] == write.task
                }
        started = [(w.task, effect_id) for w in writes for effect_id in w.overlay.effects_started]
        if started:
            await connection.execute(
                START_EFFECTS, self._stage, [t for t, _ in started], [i for _, i in started]
            )


def _standing_of(row: asyncpg.Record) -> EffectStanding:
    if row["withdrawn_at"] is not None:
        return "withdrawn"
    return "waiting" if row["started_at"] is None else "begun"


def past_the_gap(position: Position) -> Position:
    """Return a halted position as it is behind what halted it: the next record is the one that could not be admitted."""
    moved = position.copy()
    if moved.halted is None:
        return moved
    halted, moved.halted = moved.halted, None
    moved.offsets[halted["topic"]] = halted["offset"]
    if halted["source"] is not None:
        moved.applied[f"{halted['source']} {halted['topic']}"] = halted["got"] - 1
    return moved


async def resume(connection: Connection, stage: str, task: int) -> dict[str, Any] | None:
    """Let a task that stands at a gap go on behind it; return what had halted it, None where nothing had.

    What was lost stays lost: call it for a person who has looked. The owner notices within a second.
    """
    async with connection.transaction():
        row = await connection.fetchrow(
            "SELECT offsets, applied, halted FROM lease WHERE stage = $1 AND task = $2"
            " AND halted IS NOT NULL FOR UPDATE",
            stage,
            task,
        )
        if row is None:
            return None
        halted: dict[str, Any] = json.loads(row["halted"])
        moved = past_the_gap(
            Position(
                offsets=json.loads(row["offsets"]),
                applied=json.loads(row["applied"]),
                halted=halted,
            )
        )
        await connection.execute(RESUME, stage, task, _json(moved.offsets), _json(moved.applied))
    return halted


def _lease_of(row: asyncpg.Record) -> Lease:
    return Lease(
        epoch=row["epoch"],
        position=Position(
            incarnation=row["incarnation"],
            offsets=json.loads(row["offsets"]),
            emitted=json.loads(row["emitted"]),
            applied=json.loads(row["applied"]),
            next_oid=row["next_oid"],
            next_timer=row["next_timer"],
            n_applied=row["n_applied"],
            n_duplicate=row["n_duplicate"],
            n_ignored=row["n_ignored"],
            n_parked=row["n_parked"],
            halted=json.loads(row["halted"]) if row["halted"] is not None else None,
            continues=json.loads(row["continues"]),
        ),
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _raise_if_undone(error: Exception, was_commit_sent: bool) -> None:
    """Say so where a transaction that failed is undone for certain, and for a reason that is in its rows.

    The server's own words are certain whenever they come, in answer to COMMIT too. An error of the store's code is so
    only where COMMIT had not been sent.

    Raises:
        Conflict: the server ended it for another transaction's sake.
        Refused: it would fail again in the same way.
    """
    if isinstance(error, asyncpg.TransactionRollbackError) and not isinstance(
        error, asyncpg.StatementCompletionUnknownError
    ):
        raise Conflict("another transaction stood in the way") from error
    is_a_bug = not isinstance(error, (*DATABASE_ERRORS, SignalboxError))
    if isinstance(error, REFUSALS) or (is_a_bug and not was_commit_sent):
        raise Refused("a batch cannot be stored") from error


def database_facts(error: BaseException) -> dict[str, str]:
    """Return what a log line may say of a database error: its message would quote the rows."""
    if isinstance(error, Refused | Conflict) and error.__cause__ is not None:
        error = error.__cause__
    names = ("sqlstate", "schema_name", "table_name", "column_name", "constraint_name")
    return {name: str(value) for name in names if (value := getattr(error, name, None))}


class DocumentStore(Generic[S]):
    """State as one JSON document a key in the ledger's `state` table; `kind` is a msgspec type or a union of them.

    Subclass it and override `save_rows` where a service has tables besides.
    """

    def __init__(self, stage: str, kind: Any) -> None:
        self._stage = stage
        self._decoder: msgspec.json.Decoder[S] = msgspec.json.Decoder(kind)
        self._encoder = msgspec.json.Encoder()

    async def load(self, connection: Connection, task: int, keys: Sequence[str]) -> dict[str, S]:
        """Return the documents of those of `keys` that exist."""
        if not keys:
            return {}
        rows = await connection.fetch(
            "SELECT key, value FROM state WHERE stage = $1 AND task = $2 AND key = ANY($3::text[])",
            self._stage,
            task,
            list(keys),
        )
        return {row["key"]: self._decoder.decode(row["value"]) for row in rows}

    async def save(
        self, connection: Connection, changes: Sequence[Change[S]], rows: Sequence[tuple[int, Any]]
    ) -> None:
        """Write documents (one statement for all), then the service's own rows."""
        kept = [change for change in changes if change.state is not None]
        gone = [change for change in changes if change.state is None]
        if kept:
            await connection.execute(
                "INSERT INTO state (stage, task, key, value)"
                " SELECT $1, * FROM unnest($2::int[], $3::text[], $4::json[])"
                " ON CONFLICT (stage, task, key) DO UPDATE SET value = excluded.value",
                self._stage,
                [c.task for c in kept],
                [c.key for c in kept],
                [self._encoder.encode(c.state).decode() for c in kept],
            )
        if gone:
            await connection.execute(
                "DELETE FROM state AS s USING unnest($2::int[], $3::text[]) AS u(task, key)"
                " WHERE s.stage = $1 AND s.task = u.task AND s.key = u.key",
                self._stage,
                [c.task for c in gone],
                [c.key for c in gone],
            )
        if rows:
            await self.save_rows(connection, rows)

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write the outcomes' own rows. A store that has none refuses them, so that none is dropped in silence."""
        raise NotImplementedError(
            f"{type(self).__name__} got {len(rows)} rows and has no table for them"
        )


class _PooledConnection(asyncpg.Connection):
    """A connection that goes back to its pool as it is: nothing of ours changes a session but `SET LOCAL`.

    The driver's own clean-up (locks, cursors, listeners, settings) would be a way to the server and back for each use.
    """

    def get_reset_query(self) -> str:
        """Return nothing to be said to the server; a transaction left open is rolled back all the same."""
        return ""


async def open_pool(dsn: str, schema: str, size: int, application: str) -> asyncpg.Pool:
    """Open a pool on `schema` with the ledger's time limits.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError: the database does not answer.
    """
    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=size,
        timeout=3,
        command_timeout=COMMAND_SECONDS,
        server_settings={**SESSION, "search_path": schema, "application_name": application},
        max_inactive_connection_lifetime=60,
        connection_class=_PooledConnection,
    )


def horizon_end(now: datetime, seconds: float) -> datetime:
    """Return the end of the window of timers that are kept in memory."""
    return now + timedelta(seconds=seconds)
