"""Waits ↔ rows: what promises are made from, written with each decision and read by the keeper of the estimates.

Owns the table `wait`. Reads are bounded: by the window, by so many rows a queue and a page, and by indexes made for them.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from chassis.stage import Connection
from hours.calendar import Calendar, elapsed, is_open
from services.sla import metrics
from services.sla.core.promised import WaitOpened, WaitStands
from services.sla.core.waits import OUTCOMES_MAX, QueueState, Wait

SLICE: Final = 500
"""Rows that one statement settles or deletes: short, whatever has piled up."""

WAITS_MAX: Final = 300_000
"""Newest waits that estimates are made from, of all queues; no further page is read beyond it."""

PAGE: Final = 5_000
"""Waits that one statement reads: some milliseconds, in which nothing else is decided."""

QUEUES_MAX: Final = 1_000
"""Queues that anything is known of."""

WAITING_MAX: Final = 5_000
"""Waiting tickets of a queue that are looked at; whoever has more ahead hears of so many."""

PACE: Final = timedelta(hours=1)
"""Over which the pace of a queue is measured."""

_ADD: Final = """
INSERT INTO wait (
    target_id, ticket_id, opened_queue, queue, channel, priority, calendar, hour_of_week, is_after_hours,
    ahead, opened_at, promised_by, promised_seconds, is_told, estimates_version
)
SELECT target_id, ticket_id, queue, queue, channel, priority, calendar, hour_of_week, is_after_hours,
    ahead, opened_at, promised_by, promised_seconds, is_told, estimates_version
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::text[], $7::smallint[],
    $8::boolean[], $9::int[], $10::timestamptz[], $11::timestamptz[], $12::float8[], $13::boolean[],
    $14::text[]
) AS one (target_id, ticket_id, queue, channel, priority, calendar, hour_of_week, is_after_hours,
    ahead, opened_at, promised_by, promised_seconds, is_told, estimates_version)
ON CONFLICT (target_id) DO NOTHING
"""

_STAND: Final = """
WITH given AS (
    SELECT * FROM unnest(
        $1::text[], $2::text[], $3::smallint[], $4::timestamptz[], $5::bigint[], $6::timestamptz[]
    ) AS one (target_id, queue, priority, answered_at, waited_us, ended_at)
), judged AS (
    SELECT w.target_id, w.kept AS before, given.answered_at, given.waited_us, given.ended_at,
        w.answered_at IS NULL AND w.ended_at IS NULL AS is_open, given.queue, given.priority,
        CASE WHEN w.promised_by IS NULL THEN NULL
             WHEN given.answered_at IS NOT NULL THEN given.answered_at <= w.promised_by
             WHEN given.ended_at <= w.promised_by THEN NULL
             WHEN given.ended_at IS NOT NULL THEN false
             ELSE w.kept END AS kept
    FROM given JOIN wait AS w USING (target_id)
    WHERE (w.answered_at, w.ended_at) IS DISTINCT FROM (given.answered_at, given.ended_at)
        OR (w.answered_at IS NULL AND w.ended_at IS NULL
            AND (w.queue, w.priority) IS DISTINCT FROM (given.queue, given.priority))
)
UPDATE wait AS w SET
    answered_at = judged.answered_at, waited_us = judged.waited_us, ended_at = judged.ended_at,
    kept = judged.kept,
    queue = CASE WHEN judged.is_open THEN judged.queue ELSE w.queue END,
    priority = CASE WHEN judged.is_open THEN judged.priority ELSE w.priority END,
    settled_at = CASE WHEN judged.kept THEN judged.answered_at
                      WHEN NOT judged.kept THEN w.promised_by END
FROM judged WHERE w.target_id = judged.target_id
RETURNING w.opened_queue, w.is_told, w.kept, judged.before
"""

_EXPIRE: Final = """
WITH due AS (
    SELECT target_id FROM wait
    WHERE kept IS NULL AND answered_at IS NULL AND ended_at IS NULL AND promised_by < $1
    ORDER BY promised_by LIMIT $2 FOR UPDATE SKIP LOCKED
)
UPDATE wait AS w SET kept = false, settled_at = w.promised_by
FROM due WHERE w.target_id = due.target_id RETURNING w.opened_queue, w.is_told
"""

_FORGET: Final = """
WITH old AS (
    SELECT target_id FROM wait WHERE opened_at < $1 ORDER BY opened_at LIMIT $2
    FOR UPDATE SKIP LOCKED
)
DELETE FROM wait AS w USING old WHERE w.target_id = old.target_id
"""

_PAGE: Final = """
SELECT channel, calendar, hour_of_week, is_after_hours, opened_at, waited_us, ahead, target_id
FROM wait
WHERE opened_queue = $1 AND opened_at >= $2 AND (opened_at, target_id) < ($3, $4) AND ended_at IS NULL
ORDER BY opened_at DESC, target_id DESC LIMIT $5
"""

# From one queue to the next in an index: as many steps as there are queues, however many rows they have.
_QUEUES: Final = """
WITH RECURSIVE opened (queue) AS (
    (SELECT opened_queue FROM wait ORDER BY opened_queue LIMIT 1)
    UNION ALL
    SELECT (SELECT w.opened_queue FROM wait AS w WHERE w.opened_queue > opened.queue
            ORDER BY w.opened_queue LIMIT 1)
    FROM opened WHERE opened.queue IS NOT NULL
), waiting (queue) AS (
    (SELECT queue FROM wait WHERE answered_at IS NULL AND ended_at IS NULL ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT w.queue FROM wait AS w
            WHERE w.queue > waiting.queue AND w.answered_at IS NULL AND w.ended_at IS NULL
            ORDER BY w.queue LIMIT 1)
    FROM waiting WHERE waiting.queue IS NOT NULL
)
SELECT queue FROM (SELECT queue FROM opened UNION SELECT queue FROM waiting) AS known
WHERE queue IS NOT NULL ORDER BY queue LIMIT $1
"""

_VERDICTS: Final = """
SELECT q.queue, v.kept FROM unnest($1::text[]) AS q (queue) CROSS JOIN LATERAL (
    SELECT kept, settled_at, target_id FROM wait AS w
    WHERE w.opened_queue = q.queue AND kept IS NOT NULL
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
SELECT queue, date_trunc('minute', answered_at) AS minute, count(*)::int AS n FROM wait
WHERE answered_at > $1 AND answered_at <= $2 GROUP BY queue, minute
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
            [one.situation.place.calendar for one in begun],
            [one.situation.place.hour for one in begun],
            [one.situation.place.is_after_hours for one in begun],
            [one.situation.ahead for one in begun],
            [one.told.at for one in begun],
            [None if one.made is None else one.made.by for one in begun],
            [None if one.made is None else one.made.seconds for one in begun],
            [one.is_told for one in begun],
            [one.told.estimates_version for one in begun],
        )
    latest = {one.target_id: one for one in stands}
    if latest:
        found = list(latest.values())
        microsecond = timedelta(microseconds=1)
        rows = await connection.fetch(
            _STAND,
            [one.target_id for one in found],
            [one.queue for one in found],
            [one.priority for one in found],
            [one.answered_at for one in found],
            [None if one.waited is None else one.waited // microsecond for one in found],
            [one.ended_at for one in found],
        )
        for row in rows:
            if row["is_told"] and row["kept"] is not None and row["kept"] != row["before"]:
                metrics.count_promise(row["opened_queue"], is_kept=row["kept"])


async def settle(connection: Connection, now: datetime) -> int:
    """Call promises broken whose instant has passed unanswered, at most `SLICE`; return how many."""
    rows = await connection.fetch(_EXPIRE, now, SLICE)
    for row in rows:
        if row["is_told"]:
            metrics.count_promise(row["opened_queue"], is_kept=False)
    return len(rows)


async def forget(connection: Connection, before: datetime) -> int:
    """Delete waits that began before an instant, at most `SLICE`; return how many."""
    done = await connection.execute(_FORGET, before, SLICE)
    return int(done.rpartition(" ")[2])


async def read_waits(
    connection: Connection,
    queues: Iterable[str],
    since: datetime,
    now: datetime,
    calendars: Mapping[str, Calendar],
) -> list[Wait]:
    """The newest waits of some queues that began since an instant; those that still last as long as they have lasted.

    Queues take turns, a page each, until all are read or `WAITS_MAX` are: a queue with very many leaves the others theirs. The
    loop goes on between two pages, and rows become waits in a thread. One whose calendar is gone counts around the clock, as
    its clock does.
    """
    waits: list[Wait] = []
    # Where each queue's next page begins, just behind (opened_at, target_id).
    places = {queue: (now + timedelta(microseconds=1), "") for queue in queues}
    while places and len(waits) < WAITS_MAX:
        for queue, place in list(places.items()):
            rows = await connection.fetch(_PAGE, queue, since, *place, PAGE)
            waits += await asyncio.to_thread(_waits, queue, rows, now, calendars)
            if len(rows) < PAGE:
                del places[queue]
            else:
                places[queue] = rows[-1]["opened_at"], rows[-1]["target_id"]
    return waits


def _waits(
    queue: str, rows: Sequence[Any], now: datetime, calendars: Mapping[str, Calendar]
) -> list[Wait]:
    always = Calendar.always()
    waits = []
    for row in rows:
        name, opened_at, waited_us = row["calendar"], row["opened_at"], row["waited_us"]
        if waited_us is None:
            seconds = elapsed(calendars.get(name, always), opened_at, now).total_seconds()
        else:
            seconds = waited_us / 1e6
        waits.append(
            Wait(
                queue,
                row["channel"],
                name,
                row["hour_of_week"],
                row["is_after_hours"],
                opened_at,
                seconds,
                waited_us is not None,
                row["ahead"],
            )
        )
    return waits


async def read_queues(connection: Connection) -> list[str]:
    """The queues that tickets were opened in within the window, or wait in now."""
    return [row["queue"] for row in await connection.fetch(_QUEUES, QUEUES_MAX)]


async def read_verdicts(connection: Connection, queues: Iterable[str]) -> dict[str, list[bool]]:
    """Whether the latest promises of each queue were kept, oldest first."""
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for row in await connection.fetch(_VERDICTS, list(queues), OUTCOMES_MAX):
        found[row["queue"]].append(row["kept"])
    return dict(found)


async def read_states(
    connection: Connection, queues: Iterable[str], calendars: Mapping[str, Calendar], now: datetime
) -> dict[tuple[str, str], QueueState]:
    """Who waits in each queue, and by each calendar how many were answered in what was open of the last hour."""
    rows = await connection.fetch(_PACE, now - PACE, now)
    # Also those that tickets only ever move to, and where nobody waits at the moment.
    names = sorted({*queues, *(row["queue"] for row in rows)})
    waiting: defaultdict[str, list[tuple[int, datetime]]] = defaultdict(list)
    for row in await connection.fetch(_WAITING, names, WAITING_MAX):
        waiting[row["queue"]].append((row["priority"], row["opened_at"]))
    minutes = {row["minute"] for row in rows}
    in_order = {queue: tuple(sorted(waiting[queue])) for queue in names}
    states = {}
    for name, calendar in calendars.items():
        # An answer given while a calendar is closed says nothing of the pace in its hours.
        counted = {minute for minute in minutes if is_open(calendar, minute)}
        answers: Counter[str] = Counter()
        for row in rows:
            if row["minute"] in counted:
                answers[row["queue"]] += row["n"]
        seconds = elapsed(calendar, now - PACE, now).total_seconds()
        for queue in names:
            states[queue, name] = QueueState(in_order[queue], answers[queue], seconds)
    return states
