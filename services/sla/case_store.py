"""The tables `ticket_case`, `clock_event` and `order_volume`: what reports and gauges are made from.

Owns their SQL. Cases and clock events are written in the batch's transaction, a statement each for the
rows that are made, the rows that change and the events. The gauges are two looks over indexes of what
is open, and one over the days that orders are known for.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Final

from chassis.stage import Connection
from schemas.sla import (
    BreachRetracted,
    SlaEvent,
    TargetBreached,
    TargetMet,
    TargetPaused,
    TargetResumed,
    TargetStarted,
)
from services.sla import metrics
from services.sla.core.cases import Backlog, CaseChange, OpenTargets, Stretch, folded

_ADD_CASES: Final = """
INSERT INTO ticket_case (
    ticket_id, conversation_id, reference, opened_queue, queue, channel, account, priority, language,
    customer_tier, opened_at, open_during
)
SELECT ticket_id, conversation_id, reference, queue, queue, channel, account, priority, language,
       customer_tier, opened_at, tstzmultirange(tstzrange(opened_at, NULL))
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::text[],
    $9::text[], $10::timestamptz[]
) AS given (
    ticket_id, conversation_id, reference, queue, channel, account, priority, language, customer_tier,
    opened_at
)
ON CONFLICT (ticket_id) DO NOTHING
"""

_CHANGE_CASES: Final = """
UPDATE ticket_case AS c SET
    queue = coalesce(given.queue, c.queue),
    priority = coalesce(given.priority, c.priority),
    customer_tier = CASE WHEN given.is_described THEN given.customer_tier ELSE c.customer_tier END,
    status = CASE WHEN given.status = 'closed' AND c.status IN ('spam', 'merged') THEN c.status
                  ELSE coalesce(given.status, c.status) END,
    first_answered_at = CASE WHEN given.first_answered_at IS NULL THEN c.first_answered_at
        ELSE least(c.first_answered_at, greatest(given.first_answered_at, c.opened_at)) END,
    first_response_open_us = coalesce(given.first_response_open_us, c.first_response_open_us),
    solved_at = CASE WHEN given.is_unsolved THEN NULL ELSE coalesce(given.solved_at, c.solved_at) END,
    closed_at = coalesce(given.closed_at, c.closed_at),
    reopened = c.reopened + given.reopened,
    escalated = c.escalated + given.escalated,
    open_during = c.open_during * tstzmultirange(tstzrange(NULL, given.cut_at))
        + given.stretches::tstzmultirange
FROM unnest(
    $1::text[], $2::text[], $3::smallint[], $4::boolean[], $5::text[], $6::text[], $7::timestamptz[],
    $8::bigint[], $9::timestamptz[], $10::boolean[], $11::timestamptz[], $12::integer[], $13::integer[],
    $14::timestamptz[], $15::text[]
) AS given (
    ticket_id, queue, priority, is_described, customer_tier, status, first_answered_at,
    first_response_open_us, solved_at, is_unsolved, closed_at, reopened, escalated, cut_at, stretches
)
WHERE c.ticket_id = given.ticket_id
RETURNING c.ticket_id, c.queue, c.channel
"""

_ADD_EVENTS: Final = """
INSERT INTO clock_event (ticket_id, type, at, data)
SELECT ticket_id, type, at, data::json
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[])
    WITH ORDINALITY AS given (ticket_id, type, at, data, place)
ORDER BY place
"""

_OPEN: Final = """
SELECT queue, kind,
       CASE WHEN status = 'running' AND is_warned THEN 'at_risk' ELSE status END AS status,
       count(*) AS n, extract(epoch FROM now() - min(started_at))::float8 AS longest
FROM target WHERE status IN ('running', 'paused', 'breached') GROUP BY 1, 2, 3
"""

_BACKLOG: Final = """
SELECT queue, extract(epoch FROM now() - min(opened_at))::float8 AS oldest,
       ARRAY[
           count(*),
           count(*) FILTER (WHERE opened_at <= now() - interval '1 hour'),
           count(*) FILTER (WHERE opened_at <= now() - interval '4 hours'),
           count(*) FILTER (WHERE opened_at <= now() - interval '1 day'),
           count(*) FILTER (WHERE opened_at <= now() - interval '3 days'),
           count(*) FILTER (WHERE opened_at <= now() - interval '7 days'),
           count(*) FILTER (WHERE opened_at <= now() - interval '30 days')
       ] AS older
FROM ticket_case WHERE ended_at IS NULL GROUP BY queue
"""

CONTACT_DAYS: Final = 28
"""The days that the contact ratio's gauge is over: four weeks, so that weekends weigh as they do."""

_CONTACTS: Final = """
WITH day AS (
    SELECT day, sum(orders) AS orders FROM order_volume
    WHERE day >= (now() AT TIME ZONE 'UTC')::date - $1::integer AND day < (now() AT TIME ZONE 'UTC')::date
    GROUP BY day
)
SELECT sum(orders)::bigint AS orders, sum((
    SELECT count(*) FROM ticket_case
    WHERE opened_at >= day.day::timestamp AT TIME ZONE 'UTC'
      AND opened_at < (day.day + 1)::timestamp AT TIME ZONE 'UTC'
))::bigint AS tickets
FROM day
"""

_PUT_ORDERS: Final = """
INSERT INTO order_volume (day, shop, orders)
SELECT * FROM unnest($1::date[], $2::text[], $3::integer[])
ON CONFLICT (day, shop) DO UPDATE SET orders = excluded.orders
"""


async def save(
    connection: Connection, changes: Sequence[CaseChange], events: Sequence[SlaEvent]
) -> None:
    """Write what a batch changes of its tickets' rows, and what it told of their clocks; count both."""
    merged = folded(changes)
    opened = [change for change in merged if change.opening is not None]
    if opened:
        await _add(connection, opened)
    patches = [change for change in merged if change.is_patch]
    if patches:
        _count(changes, await _change(connection, patches))
    for opening in (change.opening for change in opened):
        assert opening is not None
        metrics.count_case(opening.queue, opening.channel, "opened")
    if events:
        await connection.execute(
            _ADD_EVENTS,
            [event.ticket_id for event in events],
            [event.TYPE for event in events],
            [instant_of(event) for event in events],
            [event.to_json().decode() for event in events],
        )


async def _add(connection: Connection, changes: Iterable[CaseChange]) -> None:
    rows = [
        (
            change.ticket_id,
            change.conversation_id,
            opening.reference,
            opening.queue,
            opening.channel,
            opening.account,
            opening.priority,
            opening.language,
            opening.customer_tier,
            opening.opened_at,
        )
        for change in changes
        if (opening := change.opening) is not None
    ]
    await connection.execute(_ADD_CASES, *(list(column) for column in zip(*rows, strict=True)))


async def _change(
    connection: Connection, changes: Iterable[CaseChange]
) -> dict[str, tuple[str, str]]:
    """Write the changes; return the queue and the channel of each ticket that has a row."""
    rows = [
        (
            change.ticket_id,
            change.queue,
            change.priority,
            change.is_described,
            change.customer_tier,
            change.status,
            change.first_answered_at,
            change.first_response_open_us,
            change.solved_at,
            change.is_unsolved,
            change.closed_at,
            change.reopened,
            change.escalated,
            change.cut_at,
            _multirange(change.stretches),
        )
        for change in changes
    ]
    columns = (list(column) for column in zip(*rows, strict=True))
    found = await connection.fetch(_CHANGE_CASES, *columns)
    return {row["ticket_id"]: (row["queue"], row["channel"]) for row in found}


def _count(changes: Iterable[CaseChange], places: Mapping[str, tuple[str, str]]) -> None:
    for change in changes:
        place = places.get(change.ticket_id)
        if place is None:
            continue
        queue, channel = place
        for what, n in (
            ("solved", int(change.solved_at is not None)),
            ("closed", int(change.closed_at is not None)),
            ("reopened", change.reopened),
            ("escalated", change.escalated),
        ):
            if n:
                metrics.count_case(queue, channel, what, n)


def _multirange(stretches: Iterable[Stretch]) -> str:
    parts = (
        f"[{begin.isoformat()},{'' if end is None else end.isoformat()})"
        for begin, end in stretches
    )
    return f"{{{','.join(parts)}}}"


def instant_of(event: SlaEvent) -> datetime:
    """When what the event tells of was so: a breach at its deadline, a clock at its start."""
    match event:
        case TargetStarted():
            return event.started_at
        case TargetPaused():
            return event.paused_at
        case TargetResumed():
            return event.resumed_at
        case TargetBreached():
            return event.breached_at
        case TargetMet():
            return event.met_at
        case BreachRetracted():
            return event.at
        case _:
            at: datetime = getattr(event, "at")  # noqa: B009 - every other event has it
            return at


async def open_targets(connection: Connection) -> list[OpenTargets]:
    """How many targets are open, by queue, kind and status (`at_risk`: running, and warned of).

    One scan of an index that holds the open targets alone and everything that is asked for.
    """
    rows = await connection.fetch(_OPEN)
    return [OpenTargets(r["queue"], r["kind"], r["status"], r["n"], r["longest"]) for r in rows]


async def backlog(connection: Connection) -> list[Backlog]:
    """The open tickets by queue and age; one scan of an index that holds these alone."""
    rows = await connection.fetch(_BACKLOG)
    return [Backlog(r["queue"], r["oldest"], tuple(r["older"])) for r in rows]


async def contacts(connection: Connection) -> tuple[int, int] | None:
    """Tickets opened and orders made on those of the last `CONTACT_DAYS` days (UTC) whose orders are known.

    None where no orders are known.
    """
    row = await connection.fetchrow(_CONTACTS, CONTACT_DAYS)
    if row is None or not row["orders"]:
        return None
    return row["tickets"], row["orders"]


async def put_orders(connection: Connection, rows: Iterable[tuple[date, str, int]]) -> None:
    """Write orders of days (day, shop, orders); a day and shop that is there already is replaced."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    if columns:
        await connection.execute(_PUT_ORDERS, *columns)
