"""Waits ↔ rows: what promises are made from, written with each decision and read by the keeper of the estimates.

Owns the table `wait`. Reads are bounded: by the window, by so many rows a queue, and by indexes made for them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from chassis.stage import Connection
from hours.calendar import Calendar, elapsed
from services.sla import metrics
from services.sla.core.promised import WaitOpened, WaitStands
from services.sla.core.waits import OUTCOMES_MAX, QueueState, Wait

SLICE: Final = 500
"""Rows that one statement settles or deletes: short, whatever has piled up."""

WAITS_MAX: Final = 300_000
"""Newest waits that estimates are made from."""

WAITING_MAX: Final = 5_000
"""Waiting tickets of a queue that are looked at; whoever has more ahead hears of so many."""

PACE: Final = timedelta(hours=1)
"""Over which the pace of a queue is measured."""

_ADD: Final = """
INSERT INTO wait (
    target_id, ticket_id, queue, channel, priority, calendar, hour_of_week, is_after_hours, ahead,
    opened_at, promised_by, promised_seconds, estimates_version
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::smallint[],
    $8::boolean[], $9::int[], $10::timestamptz[], $11::timestamptz[], $12::float8[], $13::text[]
)
ON CONFLICT (target_id) DO NOTHING
"""

_STAND: Final = """
WITH given AS (
    SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::bigint[], $4::timestamptz[])
        AS one (target_id, answered_at, waited_us, ended_at)
), judged AS (
    SELECT w.target_id, w.kept AS before, given.answered_at, given.waited_us, given.ended_at,
        CASE WHEN w.promised_by IS NULL THEN NULL
             WHEN given.answered_at IS NOT NULL THEN given.answered_at <= w.promised_by
             WHEN given.ended_at <= w.promised_by THEN NULL
             WHEN given.ended_at IS NOT NULL THEN false
             ELSE w.kept END AS kept
    FROM given JOIN wait AS w USING (target_id)
    WHERE (w.answered_at, w.ended_at) IS DISTINCT FROM (given.answered_at, given.ended_at)
)
UPDATE wait AS w SET
    answered_at = judged.answered_at, waited_us = judged.waited_us, ended_at = judged.ended_at,
    kept = judged.kept,
    settled_at = CASE WHEN judged.kept THEN judged.answered_at
                      WHEN NOT judged.kept THEN w.promised_by END
FROM judged WHERE w.target_id = judged.target_id
RETURNING w.queue, w.kept, judged.before
"""

_EXPIRE: Final = """
WITH due AS (
    SELECT target_id FROM wait
    WHERE kept IS NULL AND answered_at IS NULL AND ended_at IS NULL AND promised_by < $1
    ORDER BY promised_by LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE wait AS w SET kept = false, settled_at = w.promised_by
FROM due WHERE w.target_id = due.target_id RETURNING w.queue
"""

_FORGET: Final = """
WITH old AS (
    SELECT target_id FROM wait WHERE opened_at < $1 ORDER BY opened_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM wait AS w USING old WHERE w.target_id = old.target_id
"""

_WAITS: Final = """
SELECT queue, channel, hour_of_week, is_after_hours, opened_at, waited_us, calendar, ahead
FROM wait WHERE opened_at >= $1 AND opened_at <= $2 AND ended_at IS NULL
ORDER BY opened_at DESC LIMIT $3
"""

_QUEUES: Final = """
SELECT DISTINCT ON (queue) queue, calendar FROM wait WHERE opened_at >= $1 ORDER BY queue, opened_at DESC
"""

_VERDICTS: Final = """
SELECT q.queue, v.kept FROM unnest($1::text[]) AS q (queue) CROSS JOIN LATERAL (
    SELECT kept, settled_at, target_id FROM wait AS w
    WHERE w.queue = q.queue AND kept IS NOT NULL
    ORDER BY settled_at DESC, target_id DESC LIMIT $2
) AS v
ORDER BY q.queue, v.settled_at, v.target_id
"""

_WAITING: Final = """
SELECT q.queue, o.priority, o.opened_at FROM unnest($1::text[]) AS q (queue) CROSS JOIN LATERAL (
    SELECT priority, opened_at FROM wait AS w
    WHERE w.queue = q.queue AND answered_at IS NULL AND ended_at IS NULL
    ORDER BY priority, opened_at LIMIT $2
) AS o
"""

_PACE: Final = """
SELECT queue, count(*)::int AS n FROM wait
WHERE answered_at > $1 AND answered_at <= $2 GROUP BY queue
"""


async def save(
    connection: Connection, begun: Sequence[WaitOpened], stands: Sequence[WaitStands]
) -> None:
    """Write the waits that begin, then how they stand; count the promises that were kept or broken by it."""
    if begun:
        await connection.execute(
            _ADD,
            [one.told.target_id for one in begun],
            [one.told.ticket_id for one in begun],
            [one.told.queue for one in begun],
            [one.told.channel for one in begun],
            [one.priority for one in begun],
            [one.calendar for one in begun],
            [one.situation.place.hour for one in begun],
            [one.situation.place.is_after_hours for one in begun],
            [one.situation.ahead for one in begun],
            [one.told.at for one in begun],
            [one.told.by for one in begun],
            [one.told.seconds for one in begun],
            [one.told.estimates_version for one in begun],
        )
    latest = {one.target_id: one for one in stands}
    if latest:
        found = list(latest.values())
        microsecond = timedelta(microseconds=1)
        rows = await connection.fetch(
            _STAND,
            [one.target_id for one in found],
            [one.answered_at for one in found],
            [None if one.waited is None else one.waited // microsecond for one in found],
            [one.ended_at for one in found],
        )
        for row in rows:
            if row["kept"] is not None and row["kept"] != row["before"]:
                metrics.count_promise(row["queue"], is_kept=row["kept"])


async def settle(connection: Connection, now: datetime) -> int:
    """Call promises broken whose instant has passed unanswered, at most `SLICE`; return how many."""
    rows = await connection.fetch(_EXPIRE, now, SLICE)
    for row in rows:
        metrics.count_promise(row["queue"], is_kept=False)
    return len(rows)


async def forget(connection: Connection, before: datetime) -> int:
    """Delete waits that began before an instant, at most `SLICE`; return how many."""
    done = await connection.execute(_FORGET, before, SLICE)
    return int(done.rpartition(" ")[2])


async def read_waits(
    connection: Connection, since: datetime, now: datetime, calendars: Mapping[str, Calendar]
) -> list[Wait]:
    """The waits that began since an instant, newest first; those that still last as long as they have lasted.

    One whose calendar is gone counts around the clock, as its clock does.
    """
    rows = await connection.fetch(_WAITS, since, now, WAITS_MAX)
    always = Calendar.always()
    waits = []
    for row in rows:
        if row["waited_us"] is None:
            calendar = calendars.get(row["calendar"], always)
            seconds = elapsed(calendar, row["opened_at"], now).total_seconds()
        else:
            seconds = row["waited_us"] / 1e6
        waits.append(
            Wait(
                row["queue"],
                row["channel"],
                row["hour_of_week"],
                row["is_after_hours"],
                row["opened_at"],
                seconds,
                row["waited_us"] is not None,
                row["ahead"],
            )
        )
    return waits


async def read_queues(connection: Connection, since: datetime) -> dict[str, str]:
    """The queues with a wait that began since an instant, and the calendar of the latest."""
    return {row["queue"]: row["calendar"] for row in await connection.fetch(_QUEUES, since)}


async def read_verdicts(connection: Connection, queues: Iterable[str]) -> dict[str, list[bool]]:
    """Whether the latest promises of each queue were kept, oldest first."""
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for row in await connection.fetch(_VERDICTS, list(queues), OUTCOMES_MAX):
        found[row["queue"]].append(row["kept"])
    return dict(found)


async def read_states(
    connection: Connection, queues: Mapping[str, Calendar], now: datetime
) -> dict[str, QueueState]:
    """Who waits in each queue, and how many were answered in the last hour, as far as that was open."""
    waiting: defaultdict[str, list[tuple[int, datetime]]] = defaultdict(list)
    for row in await connection.fetch(_WAITING, list(queues), WAITING_MAX):
        waiting[row["queue"]].append((row["priority"], row["opened_at"]))
    rows = await connection.fetch(_PACE, now - PACE, now)
    answers = {row["queue"]: row["n"] for row in rows}
    return {
        queue: QueueState(
            tuple(sorted(waiting[queue])),
            answers.get(queue, 0),
            elapsed(calendar, now - PACE, now).total_seconds(),
        )
        for queue, calendar in queues.items()
    }
