"""What other places are told: documents for deciding, rows for people, and events in the story of a ticket.

Rows outlive the documents by `KEPT`, for whoever asks afterwards, and then go.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from chassis.ledger import DocumentStore
from chassis.stage import Connection
from schemas.elsewhere import AnyElsewhereEvent, AssignmentElsewhereDone
from services.router.core.elsewhere.state import Calling, Conversation, Item, Resting, Waiting
from services.router.metrics import ELSEWHERE, ELSEWHERE_FAILED

STAGE: Final = "router.elsewhere"
KEPT: Final = timedelta(days=7)
"""How long rows of a ticket are kept after it was closed."""
SLICE: Final = 1000
"""Rows that are deleted in one statement: none holds locks for long."""

_ITEMS: Final = """
INSERT INTO elsewhere_item (item_id, conversation_id, ticket_id, place, vendor, slot, says, agent_id, status, reason,
                            attempt, retry_at, handle, changed_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                     $9::text[], $10::text[], $11::int[], $12::timestamptz[], $13::text[], $14::timestamptz[])
    ON CONFLICT (item_id) DO UPDATE
   SET says = excluded.says, agent_id = excluded.agent_id, status = excluded.status, reason = excluded.reason,
       attempt = excluded.attempt, retry_at = excluded.retry_at, handle = excluded.handle, changed_at = excluded.changed_at
"""

_LET_GO: Final = """
UPDATE elsewhere_item AS item SET closed_at = gone.at
  FROM unnest($1::text[], $2::timestamptz[]) AS gone (ticket_id, at)
 WHERE item.ticket_id = gone.ticket_id
"""

_SWEEP: Final = """
DELETE FROM elsewhere_item
 WHERE item_id IN (SELECT item_id FROM elsewhere_item WHERE closed_at < $1 ORDER BY closed_at LIMIT $2
                      FOR UPDATE SKIP LOCKED)
"""

_STORY: Final = """
INSERT INTO routing_event (ticket_id, work_id, type, at, data)
SELECT s.ticket_id, '', s.type, s.at, s.data
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::jsonb[]) WITH ORDINALITY
       AS s(ticket_id, type, at, data, place)
 ORDER BY s.place
"""


@dataclass(frozen=True, slots=True)
class ItemRow:
    """An item that changed, as it stands now."""

    conversation_id: str
    item_id: str
    item: Item
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class SupersededRow:
    """A saying that a newer one took the place of, before the place was told it."""

    vendor: str


@dataclass(frozen=True, slots=True)
class LetGoRow:
    """A closed ticket that no place is told anything about any more."""

    ticket_id: str
    at: datetime


class ElsewhereStore(DocumentStore[Conversation]):
    """Writes items' rows and what became of them, in the transaction that publishes it."""

    def __init__(self) -> None:
        super().__init__(STAGE, Conversation)

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write rows; of an item that changed more than once in a batch, the last."""
        items = {row.item_id: row for _, row in rows if isinstance(row, ItemRow)}
        events: list[AnyElsewhereEvent] = [
            row for _, row in rows if not isinstance(row, ItemRow | SupersededRow | LetGoRow)
        ]
        let_go = [row for _, row in rows if isinstance(row, LetGoRow)]
        if items:
            await self._save_items(connection, list(items.values()))
        if let_go:
            await connection.execute(
                _LET_GO, [row.ticket_id for row in let_go], [row.at for row in let_go]
            )
        if events:
            await connection.execute(
                _STORY,
                [event.ticket_id for event in events],
                [event.TYPE for event in events],
                [event.at for event in events],
                [event.to_json().decode() for event in events],
            )
        _count(events, [row.vendor for _, row in rows if isinstance(row, SupersededRow)])

    async def _save_items(self, connection: Connection, rows: Sequence[ItemRow]) -> None:
        items = [row.item for row in rows]
        standings = [_standing(item) for item in items]
        await connection.execute(
            _ITEMS,
            [row.item_id for row in rows],
            [row.conversation_id for row in rows],
            [item.ticket_id for item in items],
            [item.place for item in items],
            [item.vendor for item in items],
            [item.slot for item in items],
            [item.wanted.what for item in items],
            [item.wanted.agent_id or None for item in items],
            [status for status, _, _, _ in standings],
            [reason for _, reason, _, _ in standings],
            [attempt for _, _, attempt, _ in standings],
            [retry_at for _, _, _, retry_at in standings],
            [item.handle or None for item in items],
            [row.changed_at for row in rows],
        )


async def sweep(pool: asyncpg.Pool, now: datetime) -> int:
    """Delete the rows of tickets that were closed longer ago than they are kept; return how many.

    Raises:
        asyncpg.PostgresError: the database refused. What was deleted by then stays deleted.
    """
    gone = 0
    while True:
        said = await pool.execute(_SWEEP, now - KEPT, SLICE)
        deleted = int(said.rpartition(" ")[2])
        gone += deleted
        if deleted < SLICE:
            return gone


def _standing(item: Item) -> tuple[str, str | None, int, datetime | None]:
    """Return an item's status, reason, attempt and when it is tried again."""
    match item.standing:
        case Calling(attempt=attempt):
            return "calling", None, attempt, None
        case Waiting(attempt=attempt, retry_at=retry_at, reason=reason):
            return "retrying", reason, attempt, retry_at
        case Resting(reason=""):
            is_shown = item.shown is not None and item.shown.serial == item.wanted.serial
            return "shown" if is_shown else "idle", None, 0, None
        case Resting(reason=reason):
            return "failed", reason, 0, None


def _count(events: Sequence[AnyElsewhereEvent], superseded: Sequence[str]) -> None:
    """Count what this transaction says. One that is rolled back is counted again: rates, not books."""
    for event in events:
        if isinstance(event, AssignmentElsewhereDone):
            ELSEWHERE.labels(event.vendor, "done" if event.is_changed else "unchanged").inc()
        else:
            ELSEWHERE.labels(event.vendor, "failed").inc()
            ELSEWHERE_FAILED.labels(event.reason).inc()
    for vendor in superseded:
        ELSEWHERE.labels(vendor, "superseded").inc()
