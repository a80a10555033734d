"""The table `attribution`: where the time of ended clocks went, a row a clock.

Owns its SQL. Rows are written in the batch's transaction, in one statement; the last word on a clock is what stays.
"""

import json
from collections.abc import Sequence
from typing import Final

from chassis.stage import Connection
from schemas.sla import TimeAttributed

_COLUMNS: Final[dict[str, str]] = {
    "target_id": "text",
    "ticket_id": "text",
    "conversation_id": "text",
    "target": "text",
    "policy": "text",
    "queue": "text",
    "channel": "text",
    "priority": "smallint",
    "calendar": "text",
    "outcome": "text",
    "was_breached": "boolean",
    "started_at": "timestamptz",
    "ended_at": "timestamptz",
    "queue_ms": "bigint",
    "offer_ms": "bigint",
    "work_ms": "bigint",
    "pause_ms": "bigint",
    "closed_ms": "bigint",
    "elapsed_ms": "bigint",
}
"""The columns that the event has as they are, and their types."""

_ARRAYS: Final = ", ".join(f"${n}::{kind}[]" for n, kind in enumerate(_COLUMNS.values(), 1))

_PUT: Final = f"""
INSERT INTO attribution ({", ".join(_COLUMNS)}, by_queue)
SELECT * FROM unnest({_ARRAYS}, ${len(_COLUMNS) + 1}::jsonb[])
ON CONFLICT (target_id) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name != "target_id")},
    by_queue = excluded.by_queue
"""  # noqa: S608 - the names are ours


async def save(connection: Connection, told: Sequence[TimeAttributed]) -> None:
    """Write what was told of ended clocks; of several words on one clock in a batch, the last.

    Raises:
        asyncpg.IntegrityConstraintViolationError: shares that do not add up; the transaction fails with it.
    """
    latest = list({event.target_id: event for event in told}.values())
    if not latest:
        return
    columns = [[getattr(event, name) for event in latest] for name in _COLUMNS]
    splits = [json.dumps([part.model_dump() for part in event.by_queue]) for event in latest]
    await connection.execute(_PUT, *columns, splits)
