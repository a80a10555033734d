"""The normaliser's tables: read set by set for a batch, written in the batch's transaction.

All tasks share them, so nothing is cached between batches. Rows go in sorted, one statement a table, and each statement
returns whose row stands there now: where it is not the one decided on, another task was first, and `Conflict` has the
batch read and decided again.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from chassis.errors import Conflict
from chassis.stage import Change, Connection
from services.ingest.core.state import (
    Directory,
    OrderRow,
    OutcomeRow,
    Participant,
    ParticipantRow,
    Questions,
    ReadBackRow,
    SeenRow,
    ThreadRow,
)
from services.ingest.customer_store import CustomerStore, segments

SELECT_BLOBS: Final = "SELECT ref, value FROM blob WHERE ref = ANY($1::text[])"
SELECT_OUTCOMES: Final = "SELECT input_id, outcome FROM outcome WHERE input_id = ANY($1::text[])"
SELECT_SEEN: Final = """
    SELECT s.channel, s.account, s.name, s.message_id
      FROM unnest($2::text[], $3::text[], $4::text[]) AS asked (channel, account, name)
      JOIN seen s ON s.workspace = $1 AND (s.channel, s.account, s.name) = (asked.channel, asked.account, asked.name)
"""
SELECT_THREADS: Final = """
    SELECT reference, conversation_id FROM thread_ref WHERE workspace = $1 AND reference = ANY($2::text[])
"""
SELECT_PARTICIPANTS: Final = """
    SELECT conversation_id, kind, address, customer_id FROM participant
     WHERE workspace = $1 AND conversation_id = ANY($2::text[])
     ORDER BY conversation_id, at, kind, address
"""
SELECT_AUTOMATIC: Final = """
    SELECT conversation_id, at FROM outcome
     WHERE is_automatic AND conversation_id = ANY($1::text[]) AND at > $2
"""
INSERT_SEEN: Final = """
    INSERT INTO seen (workspace, channel, account, name, message_id, input_id, at)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[])
    ON CONFLICT (workspace, channel, account, name) DO UPDATE SET message_id = seen.message_id
    RETURNING channel, account, name, input_id
"""
INSERT_THREADS: Final = """
    INSERT INTO thread_ref (workspace, reference, conversation_id, at)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::timestamptz[])
    ON CONFLICT (workspace, reference) DO NOTHING
"""
INSERT_PARTICIPANTS: Final = """
    INSERT INTO participant (workspace, conversation_id, kind, address, customer_id, at)
    SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
    ON CONFLICT (workspace, conversation_id, kind, address) DO NOTHING
"""
INSERT_OUTCOMES: Final = """
    INSERT INTO outcome (input_id, outcome, reason, message_id, conversation_id, is_automatic, at)
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::boolean[], $7::timestamptz[])
    ON CONFLICT (input_id) DO NOTHING
"""
INSERT_READ_BACKS: Final = """
    INSERT INTO read_back (input_id, channel, account, delivery, created_at)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::timestamptz[])
    ON CONFLICT (input_id) DO NOTHING
"""
INSERT_ORDERS: Final = """
    INSERT INTO customer_order (workspace, channel, account, order_id, number, status, total, currency, addresses,
                                placed_at, updated_at)
    SELECT $1, channel, account, order_id, number, status, total, currency, string_to_array(addresses, E'\n'),
           placed_at, updated_at
      FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                  $10::timestamptz[], $11::timestamptz[])
        AS told (channel, account, order_id, number, status, total, currency, addresses, placed_at, updated_at)
    ON CONFLICT (workspace, channel, account, order_id) DO UPDATE
       SET number = excluded.number, status = excluded.status, total = excluded.total, currency = excluded.currency,
           addresses = excluded.addresses, updated_at = excluded.updated_at
     WHERE customer_order.updated_at < excluded.updated_at
"""
FORGET_SEEN: Final = "DELETE FROM seen WHERE at < $1"
FORGET_THREADS: Final = "DELETE FROM thread_ref WHERE at < $1"

R = TypeVar("R")


class DirectoryStore:
    """The shared tables of ingest. `load` of the `Store` protocol has no meaning here; see `directory`."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self._customers = CustomerStore(workspace)

    async def load(
        self, connection: Connection, task: int, keys: Sequence[str]
    ) -> dict[str, Directory]:
        """Return nothing: a directory answers a batch's questions, which keys alone do not tell."""
        del connection, task, keys
        return {}

    async def blobs(self, connection: Connection, refs: Iterable[str]) -> dict[str, bytes]:
        """Return the stored bodies that are there, by their SHA-256."""
        wanted = sorted(set(refs))
        rows = await connection.fetch(SELECT_BLOBS, wanted) if wanted else []
        return {row["ref"]: bytes(row["value"]) for row in rows}

    async def directory(
        self, connection: Connection, asked: Questions, automatic_since: datetime
    ) -> Directory:
        """Read all that a batch asks about, in one statement a table."""
        made = Directory()
        rows = await connection.fetch(SELECT_OUTCOMES, sorted(asked.input_ids))
        made.outcomes = {row["input_id"]: row["outcome"] for row in rows}
        conversations = set(asked.conversations)
        if asked.seen:
            seen = sorted(asked.seen)
            rows = await connection.fetch(SELECT_SEEN, self._workspace, *_columns(seen, 3))
            made.seen = {(r["channel"], r["account"], r["name"]): r["message_id"] for r in rows}
        if asked.references:
            rows = await connection.fetch(SELECT_THREADS, self._workspace, sorted(asked.references))
            made.threads = {row["reference"]: row["conversation_id"] for row in rows}
            conversations.update(made.threads.values())
        if conversations:
            wanted = sorted(conversations)
            for row in await connection.fetch(SELECT_PARTICIPANTS, self._workspace, wanted):
                one = Participant(row["kind"], row["address"], row["customer_id"])
                made.participants.setdefault(row["conversation_id"], []).append(one)
            for row in await connection.fetch(SELECT_AUTOMATIC, wanted, automatic_since):
                made.automatic.setdefault(row["conversation_id"], []).append(row["at"])
        await self._customers.read(connection, asked, made)
        return made

    async def save(
        self,
        connection: Connection,
        changes: Sequence[Change[Directory]],
        rows: Sequence[tuple[int, Any]],
    ) -> None:
        """Write a batch's rows.

        Raises:
            Conflict: a name, an address or a customer's standing was changed by another task since it was read.
        """
        del changes  # A directory is a view, not a state.
        await self._customers.begin(connection, rows)
        for index, segment in enumerate(segments([row for _, row in rows])):
            await self._save_segment(connection, segment, is_after_erasure=index > 0)

    async def _save_segment(
        self, connection: Connection, plain: Sequence[Any], *, is_after_erasure: bool
    ) -> None:
        await self._save_seen(connection, _of(plain, SeenRow))
        threads: dict[str, ThreadRow] = {}
        for thread in _of(plain, ThreadRow):
            threads.setdefault(thread.reference, thread)
        if threads:
            await connection.execute(
                INSERT_THREADS,
                self._workspace,
                *_columns(
                    [(t.reference, t.conversation_id, t.at) for _, t in sorted(threads.items())], 3
                ),
            )
        participants = {
            (p.conversation_id, p.kind, p.address): p for p in _of(plain, ParticipantRow)
        }
        if participants:
            await connection.execute(
                INSERT_PARTICIPANTS,
                self._workspace,
                *_columns(
                    [(*key, p.customer_id, p.at) for key, p in sorted(participants.items())], 5
                ),
            )
        await self._customers.save(connection, plain, is_after_erasure=is_after_erasure)
        await self._save_read_backs(connection, _of(plain, ReadBackRow))
        await self._save_orders(connection, _of(plain, OrderRow))
        outcomes = {row.input_id: row for row in _of(plain, OutcomeRow)}
        if outcomes:
            await connection.execute(
                INSERT_OUTCOMES,
                *_columns(
                    [
                        (
                            o.input_id,
                            o.outcome,
                            o.reason,
                            o.message_id,
                            o.conversation_id,
                            o.is_automatic,
                            o.at,
                        )
                        for _, o in sorted(outcomes.items())
                    ],
                    7,
                ),
            )

    async def _save_read_backs(self, connection: Connection, rows: Sequence[ReadBackRow]) -> None:
        if rows:
            await connection.execute(
                INSERT_READ_BACKS,
                *_columns(
                    [
                        (row.input_id, row.channel, row.account, row.delivery, row.at)
                        for row in sorted(rows, key=lambda row: row.input_id)
                    ],
                    5,
                ),
            )

    async def _save_orders(self, connection: Connection, rows: Sequence[OrderRow]) -> None:
        latest: dict[tuple[str, str, str], OrderRow] = {}
        for row in rows:
            key = (row.channel, row.account, row.order.vendor_order_id)
            before = latest.get(key)
            if before is None or before.order.updated_at <= row.order.updated_at:
                latest[key] = row
        if latest:
            await connection.execute(
                INSERT_ORDERS,
                self._workspace,
                *_columns(
                    [
                        (
                            *key,
                            row.order.number,
                            row.order.status,
                            row.order.total,
                            row.order.currency,
                            "\n".join(f"{kind}:{address}" for kind, address in row.order.addresses),
                            row.order.placed_at,
                            row.order.updated_at,
                        )
                        for key, row in sorted(latest.items())
                    ],
                    10,
                ),
            )

    async def _save_seen(self, connection: Connection, rows: Sequence[SeenRow]) -> None:
        wanted: dict[tuple[str, str, str], SeenRow] = {}
        for row in rows:
            if wanted.setdefault(row.key, row).input_id != row.input_id:
                raise Conflict(f"two tasks want {row.channel}/{row.account} {row.name[:60]}")
        if not wanted:
            return
        standing = await connection.fetch(
            INSERT_SEEN,
            self._workspace,
            *_columns(
                [(*key, r.message_id, r.input_id, r.at) for key, r in sorted(wanted.items())], 6
            ),
        )
        for there in standing:
            mine = wanted[there["channel"], there["account"], there["name"]]
            if mine.input_id != there["input_id"]:
                raise Conflict(
                    f"{mine.channel}/{mine.account} {mine.name[:60]} was taken in meanwhile"
                )

    async def erased_files(self, connection: Connection) -> list[tuple[str, tuple[str, ...]]]:
        """Return the erasures whose files are still to be deleted, and which these are."""
        return await self._customers.erased_files(connection)

    async def files_removed(self, connection: Connection, erasure_id: str) -> None:
        """Note that an erasure's files are gone."""
        await self._customers.files_removed(connection, erasure_id)

    async def forget(
        self,
        connection: Connection,
        seen_before: datetime,
        threads_before: datetime,
        said_before: datetime,
    ) -> None:
        """Delete names and references that are too old to be met again, and what customers said too long ago."""
        await connection.execute(FORGET_SEEN, seen_before)
        await connection.execute(FORGET_THREADS, threads_before)
        await self._customers.forget(connection, said_before)


def _of(rows: Sequence[Any], kind: type[R]) -> list[R]:
    return [row for row in rows if isinstance(row, kind)]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Return rows as columns, for UNNEST."""
    return (
        [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]
    )
