"""The view's tables: where tickets stand, what became of offers, and of the requests that came by HTTP.

The stage writes them in its batches' transactions, in sets; the gateway reads them and writes down what is asked before it
stores it. Requests that somebody waits for are announced on `CHANNEL` by PostgreSQL itself, at commit, to all replicas.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from chassis.ledger import DocumentStore
from chassis.stage import Connection
from services.ingest.core.ticket_view import (
    Answerable,
    Moved,
    Offered,
    Offers,
    Over,
    Promised,
    Settled,
    Standing,
    Taken,
    Trace,
    folded,
)

STAGE: Final = "ingest.tickets"
CHANNEL: Final = "signalbox_requests"
"""The NOTIFY channel. A payload is a request's id, or `VIEW`."""

VIEW: Final = "view"
"""What is announced when tasks are found up to date."""

REQUEST_HOURS: Final = 24
"""How long what became of a request is kept, and an offer that ended."""

TICKET_DAYS: Final = 30
"""How long a ticket that has ended is kept in view."""

CURRENT_SECONDS: Final = 3.0
"""A view that is not known to hold all that was published up to so long ago judges nothing."""

IN_FLIGHT_SECONDS: Final = 30.0
"""A request that nothing is known of counts as under way while it is younger. If it is older the router or the broker lags,
or the request changed nothing: the ticket may have moved on unseen either way."""

PASSED_SECONDS: Final = 60.0
"""Commands reach the router in the order in which they were stored. So once the outcome of a command is known that was asked
so much later, nothing more comes of an earlier one; the margin is far more than storing takes."""

FORGET_ROWS: Final = 5_000
"""Rows deleted by one statement, which has to end within the pool's time limit."""

_MOVE: Final = """
INSERT INTO ticket_view AS t (ticket_id, conversation_id, version, status, assignee_id, queue, priority, since,
                              changed_at, into_conversation_id, into_ticket_id, delegated_by)
SELECT ticket_id, conversation_id, version, status, assignee_id, queue, priority, at, at, into_conversation_id,
       into_ticket_id, delegated_by
  FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::text[], $6::text[], $7::text[], $8::smallint[],
              $9::text[], $10::text[], $11::text[])
       AS u (ticket_id, conversation_id, version, at, status, assignee_id, queue, priority, into_conversation_id,
             into_ticket_id, delegated_by)
    ON CONFLICT (ticket_id) DO UPDATE
   SET version = excluded.version, status = excluded.status, assignee_id = excluded.assignee_id,
       queue = coalesce(excluded.queue, t.queue), priority = coalesce(excluded.priority, t.priority),
       since = CASE WHEN (t.status, t.assignee_id) IS NOT DISTINCT FROM (excluded.status, excluded.assignee_id)
                    THEN t.since ELSE excluded.since END,
       changed_at = excluded.changed_at, into_conversation_id = excluded.into_conversation_id,
       into_ticket_id = excluded.into_ticket_id, delegated_by = coalesce(excluded.delegated_by, t.delegated_by)
 WHERE t.version < excluded.version
"""
"""What moved, where the event says where to."""

_TOUCH: Final = """
UPDATE ticket_view AS t
   SET version = u.version, queue = coalesce(u.queue, t.queue), priority = coalesce(u.priority, t.priority),
       changed_at = u.at, delegated_by = coalesce(u.delegated_by, t.delegated_by)
  FROM unnest($1::text[], $2::bigint[], $3::text[], $4::smallint[], $5::timestamptz[], $6::text[])
       AS u (ticket_id, version, queue, priority, at, delegated_by)
 WHERE t.ticket_id = u.ticket_id AND t.version < u.version
"""
"""What changed without moving; of a ticket that never came into view nothing is known."""

_PROMISE: Final = """
UPDATE ticket_view AS t
   SET update_by = u.update_by, callback_by = u.callback_by, callback_not_before = u.callback_not_before
  FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[])
       AS u (ticket_id, update_by, callback_by, callback_not_before)
 WHERE t.ticket_id = u.ticket_id
"""
_OFFER: Final = """
INSERT INTO ticket_offer (reservation_id, agent_id, ticket_id, work_id, offered_at, expires_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])
    ON CONFLICT (reservation_id, agent_id) DO NOTHING
"""
_TAKE: Final = """
UPDATE ticket_offer AS o SET taken_at = u.at
  FROM unnest($1::text[], $2::text[], $3::timestamptz[]) AS u (reservation_id, agent_id, at)
 WHERE o.reservation_id = u.reservation_id AND o.agent_id = u.agent_id AND o.taken_at IS NULL
"""
_END: Final = """
UPDATE ticket_offer AS o SET ended_at = u.at, end_reason = u.reason
  FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS u (reservation_id, agent_id, reason, at)
 WHERE o.reservation_id = u.reservation_id AND o.agent_id = u.agent_id AND o.ended_at IS NULL
"""
_SETTLE: Final = """
UPDATE ticket_request AS r
   SET outcome = CASE WHEN u.reason IS NULL THEN 'done' ELSE 'refused' END, reason = u.reason, state = u.state,
       settled_at = u.at, winner_id = u.winner_id, winner_at = u.winner_at
  FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
              $9::timestamptz[]) AS u (request_id, ticket_id, at, reason, state, agent_id, action, winner_id, winner_at)
 WHERE r.request_id = u.request_id AND r.ticket_id = u.ticket_id AND r.outcome IS NULL
   AND r.agent_id = coalesce(u.agent_id, r.agent_id) AND r.action = coalesce(u.action, r.action)
"""
_ANNOUNCE: Final = f"""
SELECT pg_notify('{CHANNEL}', request_id) FROM ticket_request
 WHERE is_awaited AND ticket_id = ANY($1::text[])
   AND asked_at > clock_timestamp() - make_interval(secs => {IN_FLIGHT_SECONDS})
"""  # noqa: S608 - constants of this module
_CURRENT: Final = """
INSERT INTO ticket_view_task AS t (task, current_at)
SELECT task, clock_timestamp() - make_interval(secs => age) FROM unnest($1::int[], $2::float8[]) AS u (task, age)
    ON CONFLICT (task) DO UPDATE SET current_at = greatest(t.current_at, excluded.current_at)
"""

_STANDING: Final = """
SELECT ticket_id, conversation_id, status, version, assignee_id, queue, priority, since, into_conversation_id,
       into_ticket_id, delegated_by, update_by, callback_by, callback_not_before
  FROM ticket_view WHERE ticket_id = $1
"""
_CURRENT_AT: Final = f"""
SELECT current_at FROM ticket_view_task
 WHERE task = $1 AND current_at > clock_timestamp() - make_interval(secs => {CURRENT_SECONDS})
"""  # noqa: S608 - constants of this module
_OPEN: Final = f"""
SELECT CASE WHEN max(r.asked_at) > clock_timestamp() - make_interval(secs => {IN_FLIGHT_SECONDS})
            THEN 'in_flight' ELSE 'behind' END
  FROM ticket_request r
 WHERE r.ticket_id = $1 AND r.outcome IS NULL
   AND CASE WHEN r.reservation_id IS NOT NULL
            THEN NOT EXISTS (SELECT FROM ticket_offer o
                              WHERE (o.reservation_id, o.agent_id) = (r.reservation_id, r.agent_id)
                                AND (o.taken_at IS NOT NULL OR o.ended_at IS NOT NULL))
            ELSE r.action = 'merge' OR NOT EXISTS (
                 SELECT FROM ticket_request l
                  WHERE l.ticket_id = r.ticket_id AND l.reservation_id IS NULL
                    AND l.outcome IS NOT NULL AND NOT l.is_refused_here
                    AND l.asked_at > r.asked_at + make_interval(secs => {PASSED_SECONDS})) END
HAVING count(*) > 0
"""  # noqa: S608 - constants of this module
"""Why requests of a ticket leave open where it stands; no row where none does.

Nothing more comes of an answer to an offer that is known as taken or ended, nor of a command that a later one has passed;
a merge is passed by none, since the other ticket is asked in between.
"""

_TRACES: Final = """
SELECT agent_id, taken_at IS NOT NULL, ended_at IS NOT NULL FROM ticket_offer WHERE ticket_id = $1
"""
_REQUEST: Final = """
SELECT digest, outcome, is_refused_here, reason, state, settled_at, winner_id, winner_at
  FROM ticket_request WHERE request_id = $1 OR name = $2
 ORDER BY request_id = $1 DESC LIMIT 1
"""
_IS_NAMED: Final = "SELECT digest FROM idempotency WHERE key = $1"
_ANSWERABLE: Final = """
SELECT o.reservation_id, o.agent_id, o.ticket_id, o.expires_at, o.taken_at, o.ended_at, o.end_reason,
       w.agent_id AS winner_id, w.taken_at AS winner_at
  FROM ticket_offer o
  LEFT JOIN LATERAL (
       SELECT agent_id, taken_at FROM ticket_offer
        WHERE work_id = o.work_id AND taken_at IS NOT NULL AND (ended_at IS NULL OR end_reason = 'released')
        ORDER BY taken_at DESC LIMIT 1) AS w ON true
 WHERE o.reservation_id = $1
 ORDER BY o.agent_id = $2 DESC, o.offered_at DESC LIMIT 1
"""
_ASK: Final = """
INSERT INTO ticket_request (request_id, name, digest, ticket_id, agent_id, action, reservation_id, asked_at, is_awaited,
                            outcome, is_refused_here, reason, state, settled_at, winner_id, winner_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), $8, $9::text, $9::text IS NOT NULL, $10, $11, $12, $13, $14)
    ON CONFLICT DO NOTHING
"""
_ASK_AGAIN: Final = """
UPDATE ticket_request
   SET asked_at = clock_timestamp(), is_awaited = $2, outcome = $3::text, is_refused_here = $3::text IS NOT NULL,
       reason = $4, state = $5, settled_at = $6, winner_id = $7, winner_at = $8
 WHERE request_id = $1 AND is_refused_here
"""
_REPEAT: Final = """
UPDATE ticket_request SET asked_at = clock_timestamp(), is_awaited = is_awaited OR $2
 WHERE request_id = $1 AND outcome IS NULL
"""
_FORGET: Final = (
    """
DELETE FROM ticket_request WHERE request_id IN (
       SELECT request_id FROM ticket_request
        WHERE asked_at < $1::timestamptz AND (outcome IS NOT NULL OR asked_at < $2::timestamptz)
        LIMIT $3)
""",
    """
DELETE FROM ticket_offer WHERE (reservation_id, agent_id) IN (
       SELECT reservation_id, agent_id FROM ticket_offer
        WHERE offered_at < $1::timestamptz
          AND (offered_at < $2::timestamptz OR ended_at < $1 OR (ended_at IS NULL AND taken_at IS NULL))
        LIMIT $3)
""",
    """
DELETE FROM ticket_view WHERE ticket_id IN (
       SELECT ticket_id FROM ticket_view
        WHERE status IN ('closed', 'merged') AND changed_at < least($1::timestamptz, $2::timestamptz)
        LIMIT $3)
""",
)
"""What is older than a day ($1) or than a month ($2), $3 rows at most. What nobody knows the outcome of is kept for the month:
the router may not have come to it yet."""


class Request(NamedTuple):
    """What is known of a request: `outcome` is done or refused, or None as long as nobody knows."""

    digest: str
    outcome: str | None
    is_refused_here: bool
    reason: str | None
    state: str | None
    settled_at: datetime | None
    winner_id: str | None
    winner_at: datetime | None


class Asked(NamedTuple):
    """A request as it comes: whose, for which ticket, under which name of its sender's, if any."""

    request_id: str
    name: str | None
    digest: str
    ticket_id: str
    conversation_id: str
    agent_id: str
    action: str
    reservation_id: str | None = None


class TicketViewStore(DocumentStore[Offers]):
    """The stage's side: standing offers as documents, everything else as rows."""

    def __init__(self) -> None:
        super().__init__(STAGE, Offers)

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write what was told, each kind in one statement, and announce what somebody waits for."""
        moved: dict[str, list[Moved]] = {}
        offered: list[Offered] = []
        taken: list[Taken] = []
        over: list[Over] = []
        promised: dict[str, Promised] = {}
        settled: dict[tuple[str, str | None, str | None], Settled] = {}
        for _, row in rows:
            match row:
                case Moved():
                    moved.setdefault(row.ticket_id, []).append(row)
                case Offered():
                    offered.append(row)
                case Taken():
                    taken.append(row)
                case Over():
                    over.append(row)
                case Promised():
                    promised[row.ticket_id] = row
                case Settled():
                    # The first consequence stands; the others are its repeats.
                    settled.setdefault((row.request_id, row.agent_id, row.action), row)
                case _:
                    raise TypeError(f"the ticket view has no table for {type(row).__name__}")
        await _move(connection, [folded(changes) for changes in moved.values()])
        if promised:
            await connection.execute(_PROMISE, *_columns(promised.values(), 4))
        if offered:
            unique = {(one.reservation_id, one.agent_id): one for one in reversed(offered)}
            await connection.execute(_OFFER, *_columns(unique.values(), 6))
        if taken:
            await connection.execute(_TAKE, *_columns(taken, 3))
        if over:
            await connection.execute(_END, *_columns(over, 4))
        if settled:
            await connection.execute(_SETTLE, *_columns(settled.values(), 9))
        touched = {*moved, *(one.ticket_id for one in settled.values())}
        if touched:
            await connection.execute(_ANNOUNCE, sorted(touched))


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    columns: list[list[Any]] = [[] for _ in range(width)]
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return columns


async def _move(connection: Connection, changes: list[Moved]) -> None:
    moves = [one for one in changes if one.status is not None]
    touches = [
        (one.ticket_id, one.version, one.queue, one.priority, one.at, one.delegated_by)
        for one in changes
        if one.status is None
    ]
    if moves:
        await connection.execute(_MOVE, *_columns(moves, 11))
    if touches:
        await connection.execute(_TOUCH, *_columns(touches, 6))


async def mark_current(connection: Connection, ages: Mapping[int, float]) -> None:
    """Write down up to when these tasks' views hold all that was published: so many seconds ago, by the database's clock."""
    await connection.execute(_CURRENT, list(ages), list(ages.values()))
    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, VIEW)


async def forget(connection: Connection, now: datetime, rows: int = FORGET_ROWS) -> None:
    """Delete requests and offers of more than a day ago, and tickets that ended long ago, `rows` at a time."""
    day, month = now - timedelta(hours=REQUEST_HOURS), now - timedelta(days=TICKET_DAYS)
    for statement in _FORGET:
        while await connection.execute(statement, day, month, rows) == f"DELETE {rows}":
            pass


# ----------------------------------------------------------------------------------------- for the gateway


async def standing(connection: Connection, ticket_id: str) -> Standing | None:
    """Return where a ticket stands, None where it is not in view."""
    row = await connection.fetchrow(_STANDING, ticket_id)
    return None if row is None else Standing(*row)


async def answerable(
    connection: Connection, reservation_id: str, agent_id: str
) -> Answerable | None:
    """Return an offer as an agent's answer to it finds it, None where it is not in view."""
    row = await connection.fetchrow(_ANSWERABLE, reservation_id, agent_id)
    return None if row is None else Answerable(*row)


async def now(connection: Connection) -> datetime:
    """Return what time it is by the database's clock."""
    found: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return found


async def current_at(connection: Connection, task: int) -> datetime | None:
    """Return up to when a task's view holds all that was published; None where that is too long ago to count."""
    found: datetime | None = await connection.fetchval(_CURRENT_AT, task)
    return found


async def unsure(connection: Connection, ticket_id: str) -> str | None:
    """Return why requests leave open where a ticket stands, `in_flight` or `behind`; None where none does."""
    found: str | None = await connection.fetchval(_OPEN, ticket_id)
    return found


async def traces(connection: Connection, ticket_id: str) -> list[Trace]:
    """Return what is known of a ticket's offers."""
    return [Trace(*row) for row in await connection.fetch(_TRACES, ticket_id)]


async def request(
    connection: Connection, request_id: str, name: str | None = None
) -> Request | None:
    """Return what is known of a request, by its id or by its sender's name of it."""
    row = await connection.fetchrow(_REQUEST, request_id, name)
    return None if row is None else Request(*row)


async def digest_of(connection: Connection, name: str) -> str | None:
    """Return the digest of what was stored under an idempotency key, None where nothing was."""
    found: str | None = await connection.fetchval(_IS_NAMED, name)
    return found


async def ask(
    connection: Connection, asked: Asked, refused: Settled | None, *, is_awaited: bool
) -> bool:
    """Write down a request that goes on to the router, or one that is refused here; False where it is known already."""
    status: str = await connection.execute(
        _ASK,
        asked.request_id,
        asked.name,
        asked.digest,
        asked.ticket_id,
        asked.agent_id,
        asked.action,
        asked.reservation_id,
        is_awaited,
        *_outcome(refused),
    )
    return status == "INSERT 0 1"


async def ask_again(
    connection: Connection, request_id: str, refused: Settled | None, *, is_awaited: bool
) -> None:
    """Write over that a request was refused here: it goes on to the router now, or is refused for another reason."""
    await connection.execute(_ASK_AGAIN, request_id, is_awaited, *_outcome(refused))


def _outcome(refused: Settled | None) -> tuple[Any, ...]:
    if refused is None:
        return (None,) * 6
    return (
        "refused",
        refused.reason,
        refused.state,
        refused.at,
        refused.winner_id,
        refused.winner_at,
    )


async def repeat(connection: Connection, request_id: str, *, is_awaited: bool) -> None:
    """Write down that a request whose outcome nobody knows is asked again: it may be stored only now."""
    await connection.execute(_REPEAT, request_id, is_awaited)
