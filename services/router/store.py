"""State ↔ rows.

Conversations are documents in the ledger's `state` table, with `ticket`, `ticket_event` and `ticket_message` beside
them. A domain is its agents and its work, a row each; only rows that changed are written, and all of a task's are read
when it is acquired.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from chassis.ledger import DocumentStore
from chassis.stage import Change, Connection
from schemas.routing import RoutingEvent
from schemas.tickets import CommandRefused, TicketEvent, TicketStatus
from services.router import metrics
from services.router.core.assignment.capacity import Agent, Shift
from services.router.core.assignment.domain import Domain, Known, Switches, Work
from services.router.core.assignment.stored import Profile, StoredReader
from services.router.core.tickets.rows import ErasedRow, MessageRow, MovedRow, RevisedRow
from services.router.core.tickets.state import Conversation, Merged, OnHold, Queued, Snoozed, Ticket
from services.router.queue_lengths import LengthWriter, Watched, nobody_asks
from services.router.roster_history import note

# In the order of their numbers: a conversation's closed ticket goes before its follow-up, or the unique index of open
# tickets would see two.
_PUT_ALL: Final = """
WITH tickets AS (
INSERT INTO ticket (
    ticket_id, conversation_id, number, reference, status, queue, desk, priority, agent_id, subject,
    customer_id, language, tags, opened_at, updated_at, version, cause, owner_id, until_at, merged_into
)
SELECT ticket_id, conversation_id, number, reference, status, queue, desk, priority, agent_id, subject,
       customer_id, language, string_to_array(tags, ' '), opened_at, updated_at, version,
       cause, owner_id, until_at, merged_into
FROM unnest(
    $1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[], $8::int[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::timestamptz[],
    $15::timestamptz[], $16::bigint[], $17::text[], $18::text[], $19::timestamptz[], $20::text[]
) AS given (
    ticket_id, conversation_id, number, reference, status, queue, desk, priority, agent_id, subject,
    customer_id, language, tags, opened_at, updated_at, version, cause, owner_id, until_at, merged_into
)
ORDER BY number
ON CONFLICT (ticket_id) DO UPDATE SET
    status = excluded.status, queue = excluded.queue, desk = excluded.desk,
    priority = excluded.priority, agent_id = excluded.agent_id, customer_id = excluded.customer_id,
    language = excluded.language, tags = excluded.tags, updated_at = excluded.updated_at,
    subject = excluded.subject, version = excluded.version, opened_at = excluded.opened_at,
    cause = excluded.cause, owner_id = excluded.owner_id, until_at = excluded.until_at,
    merged_into = excluded.merged_into
), events AS (
INSERT INTO ticket_event (ticket_id, version, conversation_id, type, at, data)
SELECT * FROM unnest(
    $21::text[], $22::bigint[], $23::text[], $24::text[], $25::timestamptz[], $26::jsonb[]
))
INSERT INTO ticket_message (
    message_id, input_id, ticket_id, conversation_id, kind, outcome, at, text
)
SELECT * FROM unnest(
    $27::text[], $28::text[], $29::text[], $30::text[], $31::text[], $32::text[],
    $33::timestamptz[], $34::text[]
)
ON CONFLICT (message_id) DO NOTHING
"""

_MOVE_MESSAGES: Final = """
UPDATE ticket_message AS kept SET ticket_id = told.ticket_id
  FROM unnest($1::text[], $2::text[]) AS told (message_id, ticket_id)
 WHERE kept.message_id = told.message_id AND kept.ticket_id IS NOT NULL
"""

_REVISE_MESSAGES: Final = """
UPDATE ticket_message AS kept SET text = told.text
  FROM unnest($1::text[], $2::text[]) AS told (message_id, text)
 WHERE kept.message_id = told.message_id
"""
# Words and whatever names the customer go; ids, instants and what was decided stay, so that counts still balance.
_ERASE_MESSAGES: Final = """
UPDATE ticket_message SET text = ''
 WHERE message_id = ANY($1::text[])
    OR ticket_id IN (SELECT ticket_id FROM ticket WHERE conversation_id = ANY($2::text[]) AND customer_id = ANY($3::text[]))
"""
_ERASE_EVENTS: Final = """
UPDATE ticket_event AS e
   SET data = (e.data - 'context' - 'suspicion')
              || CASE WHEN e.data ? 'text' THEN '{"text": ""}'::jsonb ELSE '{}' END
              || CASE WHEN e.data ? 'subject' THEN '{"subject": ""}'::jsonb ELSE '{}' END
              || CASE WHEN e.data ? 'facts' THEN '{"facts": {}}'::jsonb ELSE '{}' END
              || CASE WHEN e.data ? 'detail' THEN '{"detail": "", "waiting_on": ""}'::jsonb ELSE '{}' END
              || CASE WHEN e.data ? 'task' THEN '{"task": ""}'::jsonb ELSE '{}' END
              || CASE WHEN e.data ? 'note' THEN '{"note": ""}'::jsonb ELSE '{}' END
              || CASE WHEN e.type IN ('ticket.escalated.v1', 'ticket.returned.v1', 'ticket.prioritised.v1')
                      THEN '{"reason": ""}'::jsonb ELSE '{}' END
              || CASE WHEN e.data ? 'vendor_message_id' THEN '{"vendor_message_id": ""}'::jsonb ELSE '{}' END
              || CASE WHEN jsonb_typeof(e.data -> 'contact') = 'object'
                      THEN jsonb_build_object('contact', (e.data -> 'contact')
                           || '{"name": "", "address": "", "address_kind": "none"}'::jsonb) ELSE '{}' END
  FROM ticket t
 WHERE t.ticket_id = e.ticket_id AND t.conversation_id = ANY($1::text[]) AND t.customer_id = ANY($2::text[])
"""
# What a ticket took over from cases that were merged into it.
_ERASE_ABSORBED: Final = """
UPDATE ticket_event SET data = data || '{"facts": {}}'::jsonb
 WHERE conversation_id = ANY($1::text[]) AND type = 'ticket.absorbed.v1'
   AND data ->> 'from_conversation_id' = ANY($2::text[])
"""
_ERASE_TICKETS: Final = """
UPDATE ticket SET subject = '', language = NULL
 WHERE conversation_id = ANY($1::text[]) AND customer_id = ANY($2::text[])
"""
_ERASE_PARKED: Final = """
UPDATE parked SET value = NULL, is_cut = true WHERE state_key = ANY($1::text[])
"""

_PUT_WORKS: Final = """
INSERT INTO assignment_work (
    domain, work_id, task, ticket_id, conversation_id, queue, priority, status, agent_id,
    reservation_id, cost, entered_at, expires_at, body
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::int[], $8::text[],
    $9::text[], $10::text[], $11::int[], $12::timestamptz[], $13::timestamptz[], $14::jsonb[]
)
ON CONFLICT (domain, work_id) DO UPDATE SET
    task = excluded.task, priority = excluded.priority, status = excluded.status,
    agent_id = excluded.agent_id, reservation_id = excluded.reservation_id,
    expires_at = excluded.expires_at, body = excluded.body
"""

_DROP_AGENTS: Final = """
DELETE FROM assignment_agent AS a USING unnest($1::text[], $2::text[]) AS gone (domain, agent_id)
WHERE a.domain = gone.domain AND a.agent_id = gone.agent_id
"""

_PUT_SWITCHES: Final = """
INSERT INTO assignment_switches (domain, task, spilling, guarding, crowded, at_risk, overloaded)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (domain) DO UPDATE SET
    task = excluded.task, spilling = excluded.spilling, guarding = excluded.guarding,
    crowded = excluded.crowded, at_risk = excluded.at_risk, overloaded = excluded.overloaded
"""

_PUT_KNOWN: Final = """
INSERT INTO assignment_known (domain, customer_id, task, agent_id, at)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::timestamptz[])
ON CONFLICT (domain, customer_id) DO UPDATE SET
    task = excluded.task, agent_id = excluded.agent_id, at = excluded.at
"""

_DROP_KNOWN: Final = """
DELETE FROM assignment_known AS k USING unnest($1::text[], $2::text[]) AS gone (domain, customer_id)
WHERE k.domain = gone.domain AND k.customer_id = gone.customer_id
"""

_DROP_WORKS: Final = """
DELETE FROM assignment_work AS w USING unnest($1::text[], $2::text[]) AS gone (domain, work_id)
WHERE w.domain = gone.domain AND w.work_id = gone.work_id
"""

_PUT_AGENTS: Final = """
INSERT INTO assignment_agent (
    domain, agent_id, task, name, presence, capacity, load, ceiling, profile, last_assigned_at, misses,
    duty
)
SELECT * FROM unnest(
    $1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::int[], $7::int[],
    $8::int[], $9::jsonb[], $10::timestamptz[], $11::int[], $12::jsonb[]
)
ON CONFLICT (domain, agent_id) DO UPDATE SET
    task = excluded.task, name = excluded.name, presence = excluded.presence,
    capacity = excluded.capacity, load = excluded.load, ceiling = excluded.ceiling,
    profile = excluded.profile, last_assigned_at = excluded.last_assigned_at,
    misses = excluded.misses, duty = excluded.duty
"""

# What is offered and held, what its holders carry, and what was told of it: one way to the server for all that an offer
# changes. What an agent can do is not among it: it is by far the longest of a row, and an offer leaves it as it is.
_PUT_ALL_ROUTING: Final = f"""
WITH works AS ({_PUT_WORKS}), agents AS (
UPDATE assignment_agent AS a SET
    load = given.load, ceiling = given.ceiling, last_assigned_at = given.last_assigned_at,
    misses = given.misses
  FROM unnest(
    $15::text[], $16::text[], $17::int[], $18::int[], $19::timestamptz[], $20::int[]
  ) AS given (domain, agent_id, load, ceiling, last_assigned_at, misses)
 WHERE a.domain = given.domain AND a.agent_id = given.agent_id
)
INSERT INTO routing_event (ticket_id, work_id, type, at, data)
SELECT ticket_id, work_id, type, at, data FROM unnest(
    $21::text[], $22::text[], $23::text[], $24::timestamptz[], $25::jsonb[]
) WITH ORDINALITY AS given (ticket_id, work_id, type, at, data, place)
ORDER BY place
"""  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True)
class TicketRow:
    """A ticket as it stands after a decision; `status` is its standing's, or closed."""

    conversation_id: str
    ticket: Ticket
    status: TicketStatus


class TicketStore(DocumentStore[Conversation]):
    """The store of the stage `router.tickets`."""

    def __init__(self) -> None:
        super().__init__("router.tickets", Conversation)

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write tickets as they stand last, their events, and what became of messages."""
        tickets: dict[str, TicketRow] = {}
        events: list[TicketEvent] = []
        messages: list[MessageRow] = []
        revised: dict[str, str] = {}
        moved: dict[str, str] = {}
        erased: list[ErasedRow] = []
        for _, row in rows:
            match row:
                case ErasedRow():
                    erased.append(row)
                case TicketRow():
                    tickets[row.ticket.ticket_id] = row
                case TicketEvent():
                    events.append(row)
                    metrics.count_ticket_event(row)
                case MovedRow():
                    moved |= dict.fromkeys(row.message_ids, row.ticket_id)
                case MessageRow():
                    messages.append(row)
                    metrics.MESSAGES.labels(row.outcome).inc()
                case RevisedRow():
                    revised[row.message_id] = row.text
                case CommandRefused():
                    metrics.count_ticket_event(row)
                case _:
                    raise TypeError(f"no table for {type(row).__name__}")
        if tickets or events or messages:
            await connection.execute(
                _PUT_ALL,
                *_ticket_columns(list(tickets.values())),
                *_event_columns(events),
                *_message_columns(messages),
            )
        if moved:
            await connection.execute(_MOVE_MESSAGES, list(moved), list(moved.values()))
        if revised:
            await connection.execute(_REVISE_MESSAGES, list(revised), list(revised.values()))
        if erased:
            await _erase(connection, erased)


async def _erase(connection: Connection, rows: Sequence[ErasedRow]) -> None:
    """Remove words and names, last in the transaction: what came in the same batch goes too, if it was there before.

    What a customer wrote after they were forgotten comes in a later event of their conversation, and may be of the same
    batch; its words are then kept by Kafka alone until they expire, which errs on the side of whoever asked.
    """
    messages = sorted({name for row in rows for name in row.message_ids})
    conversations = sorted({row.conversation_id for row in rows})
    members = sorted({name for row in rows for name in row.members})
    await connection.execute(_ERASE_MESSAGES, messages, conversations, members)
    await connection.execute(_ERASE_EVENTS, conversations, members)
    sources = sorted({name for row in rows for name in row.sources})
    if sources:
        await connection.execute(_ERASE_ABSORBED, conversations, sources)
    await connection.execute(_ERASE_TICKETS, conversations, members)
    await connection.execute(_ERASE_PARKED, conversations)


def _agent_of(ticket: Ticket) -> str | None:
    standing = ticket.standing
    return ticket.last_agent_id if isinstance(standing, Queued) else standing.agent_id


def _until(ticket: Ticket) -> datetime | None:
    standing = ticket.standing
    return standing.until if isinstance(standing, OnHold | Snoozed) else None


def _merged_into(row: TicketRow) -> str | None:
    """A merged ticket that was closed with its target is no longer merged."""
    standing = row.ticket.standing
    if not isinstance(standing, Merged) or row.status != "merged":
        return None
    return standing.into_ticket_id


def _ticket_columns(rows: Sequence[TicketRow]) -> tuple[list[Any], ...]:
    tickets = [row.ticket for row in rows]
    return (
        [ticket.ticket_id for ticket in tickets],
        [row.conversation_id for row in rows],
        [ticket.number for ticket in tickets],
        [ticket.reference for ticket in tickets],
        [row.status for row in rows],
        [ticket.queue for ticket in tickets],
        [ticket.desk for ticket in tickets],
        [ticket.priority for ticket in tickets],
        [_agent_of(ticket) for ticket in tickets],
        [ticket.subject for ticket in tickets],
        [ticket.contact.customer_id for ticket in tickets],
        [ticket.contact.language for ticket in tickets],
        [" ".join(ticket.tags) for ticket in tickets],
        [ticket.opened_at for ticket in tickets],
        [ticket.updated_at for ticket in tickets],
        [ticket.version for ticket in tickets],
        [ticket.cause for ticket in tickets],
        [None if ticket.delegation is None else ticket.delegation.owner_id for ticket in tickets],
        [_until(ticket) for ticket in tickets],
        [_merged_into(row) for row in rows],
    )


def _event_columns(events: Sequence[TicketEvent]) -> tuple[list[Any], ...]:
    return (
        [event.ticket_id for event in events],
        [event.version for event in events],
        [event.conversation_id for event in events],
        [event.TYPE for event in events],
        [event.at for event in events],
        [event.to_json().decode() for event in events],
    )


def _message_columns(messages: Sequence[MessageRow]) -> tuple[list[Any], ...]:
    if not messages:
        return tuple([] for _ in MessageRow._fields)
    return tuple(list(column) for column in zip(*messages, strict=True))


@dataclass(frozen=True, slots=True)
class RoutingRow:
    """A fact of assignment, and when it was decided."""

    event: RoutingEvent
    at: datetime


class _Duty(msgspec.Struct, omit_defaults=True):
    calendar: str | None = None
    shifts: tuple[Shift, ...] = ()
    auto_accept: bool = False
    on_shift: bool = True
    turns_at: datetime | None = None
    beats: bool = False
    vanished_at: datetime | None = None


_DUTY: Final = msgspec.json.Decoder(_Duty)


class DomainStore:
    """The store of the stage `router.assignment`. Writes what a domain marked as changed, and clears the marks.

    A transaction that fails leaves them cleared, and the domain is read anew after it, so nothing is missed.
    """

    def __init__(self, watched: Watched = nobody_asks) -> None:
        self._lengths = LengthWriter(watched)

    async def load(
        self, connection: Connection, task: int, keys: Sequence[str]
    ) -> dict[str, Domain]:
        """Return all domains of the task, whatever the keys."""
        del keys
        agents = await connection.fetch("SELECT * FROM assignment_agent WHERE task = $1", task)
        works = await connection.fetch(
            "SELECT domain, body FROM assignment_work WHERE task = $1", task
        )
        switches = await connection.fetch(
            """
            SELECT domain, spilling, guarding, crowded, at_risk, overloaded
              FROM assignment_switches WHERE task = $1
            """,
            task,
        )
        known = await connection.fetch(
            "SELECT domain, customer_id, agent_id, at FROM assignment_known WHERE task = $1", task
        )
        switches_of = {
            domain: Switches(*map(set, names)) for domain, *names in map(tuple, switches)
        }
        logged = await connection.fetch(
            """
            SELECT domain FROM (SELECT DISTINCT domain FROM assignment_agent WHERE task = $1) AS d
             WHERE EXISTS (SELECT FROM assignment_roster r WHERE r.domain = d.domain)
            """,
            task,
        )
        # A large domain takes seconds, in which the broker must go on hearing from us.
        return await asyncio.to_thread(
            _domains, agents, works, switches_of, known, {row["domain"] for row in logged}
        )

    async def save(
        self,
        connection: Connection,
        changes: Sequence[Change[Domain]],
        rows: Sequence[tuple[int, Any]],
    ) -> None:
        """Write the changed agents and works of each domain, and what was told of them."""
        domains = [(change.task, change.state) for change in changes if change.state is not None]
        for task, domain in domains:
            await _drop(connection, domain)
            if domain.is_switched:
                names = domain.switches
                await connection.execute(
                    _PUT_SWITCHES,
                    domain.name,
                    task,
                    sorted(names.spilling),
                    sorted(names.guarding),
                    sorted(names.crowded),
                    sorted(names.at_risk),
                    sorted(names.overloaded),
                )
            if domain.roster_changes:
                await note(connection, domain.name, domain.roster_changes)
            if domain.changed_known:
                known = [domain.known[name] for name in sorted(domain.changed_known)]
                await connection.execute(
                    _PUT_KNOWN,
                    [domain.name] * len(known),
                    [entry.customer_id for entry in known],
                    [task] * len(known),
                    [entry.agent_id for entry in known],
                    [entry.at for entry in known],
                )
        works = [
            (task, domain.name, domain.works[work_id])
            for task, domain in domains
            for work_id in sorted(domain.changed_works)
        ]
        known_anew = [
            (task, domain.name, domain.agents[agent_id])
            for task, domain in domains
            for agent_id in sorted(domain.changed_agents)
        ]
        carrying = [
            (domain.name, domain.agents[agent_id])
            for _, domain in domains
            for agent_id in sorted(domain.changed_loads - domain.changed_agents)
        ]
        routed = [row for _, row in rows if isinstance(row, RoutingRow)]
        # Whatever ended or waits again first: one ticket's old reservation must be gone before its new one comes.
        live = [work for work in works if work[2].status in _LIVE]
        if len(live) < len(works):
            rest = [work for work in works if work[2].status not in _LIVE]
            await connection.execute(_PUT_WORKS, *_work_columns(rest))
        if known_anew:
            await connection.execute(_PUT_AGENTS, *_agent_columns(known_anew), _duties(known_anew))
        if live or carrying or routed:
            await connection.execute(
                _PUT_ALL_ROUTING,
                *_work_columns(live),
                *_load_columns(carrying),
                *_routing_columns(routed),
            )
            metrics.count_routing_events(row.event for row in routed)
        for _, domain in domains:
            await self._lengths.write(connection, domain)
            domain.clear_marks()
            n_available = domain.people.available.bit_count()
            metrics.show_domain(
                domain.name, domain.n_waiting(), n_available, domain.n_unmatchable()
            )


_LIVE: Final = frozenset({"offered", "assigned"})


def _domains(
    agents: Sequence[Any],
    works: Sequence[Any],
    switches_of: Mapping[str, Switches],
    known: Sequence[Any],
    logged: Collection[str],
) -> dict[str, Domain]:
    """Make the domains of their rows. Those whose roster was never `logged` by version note all of it."""
    known_of: dict[str, list[Known]] = {}
    for domain, *entry in map(tuple, known):
        known_of.setdefault(domain, []).append(Known(*entry))
    reader = StoredReader()
    agents_of: dict[str, list[Agent]] = {}
    works_of: dict[str, list[Work]] = {}
    for row in agents:
        agents_of.setdefault(row["domain"], []).append(agent_of(row, reader))
    for row in works:
        works_of.setdefault(row["domain"], []).append(reader.work(row["body"]))
    domains = {
        name: Domain(
            name,
            agents_of.get(name, ()),
            works_of.get(name, ()),
            switches_of.get(name),
            known_of.get(name, ()),
        )
        for name in sorted({*agents_of, *works_of, *known_of})
    }
    for name in agents_of.keys() - logged:
        domains[name].log_roster()
    return domains


async def _drop(connection: Connection, domain: Domain) -> None:
    if domain.gone_agents:
        gone = sorted(domain.gone_agents)
        await connection.execute(_DROP_AGENTS, [domain.name] * len(gone), gone)
    if domain.gone_works:
        gone = sorted(domain.gone_works)
        await connection.execute(_DROP_WORKS, [domain.name] * len(gone), gone)
    if domain.gone_known:
        gone = sorted(domain.gone_known)
        await connection.execute(_DROP_KNOWN, [domain.name] * len(gone), gone)


def agent_of(row: Any, reader: StoredReader) -> Agent:
    """Return the agent of a row of their table."""
    profile, duty = reader.profile(row["profile"]), _DUTY.decode(row["duty"])
    return Agent(
        agent_id=row["agent_id"],
        name=row["name"],
        queues=profile.queues,
        skills=profile.skills,
        languages=profile.languages,
        limits=profile.limits,
        place=profile.place,
        capacity=row["capacity"],
        presence=row["presence"],
        load=row["load"],
        ceiling=row["ceiling"],
        last_assigned_at=row["last_assigned_at"],
        misses=row["misses"],
        calendar=duty.calendar,
        shifts=duty.shifts,
        auto_accept=duty.auto_accept,
        on_shift=duty.on_shift,
        turns_at=duty.turns_at,
        beats=duty.beats,
        vanished_at=duty.vanished_at,
    )


def _json(values: Iterable[Any]) -> list[str]:
    return [msgspec.json.encode(value).decode() for value in values]


def _agent_columns(rows: Sequence[tuple[int, str, Agent]]) -> tuple[list[Any], ...]:
    agents = [agent for _, _, agent in rows]
    return (
        [domain for _, domain, _ in rows],
        [agent.agent_id for agent in agents],
        [task for task, _, _ in rows],
        [agent.name for agent in agents],
        [agent.presence for agent in agents],
        [agent.capacity for agent in agents],
        [agent.load for agent in agents],
        [agent.ceiling for agent in agents],
        _json(
            Profile(agent.queues, agent.skills, agent.languages, agent.limits, agent.place)
            for agent in agents
        ),
        [agent.last_assigned_at for agent in agents],
        [agent.misses for agent in agents],
    )


def _load_columns(rows: Sequence[tuple[str, Agent]]) -> tuple[list[Any], ...]:
    agents = [agent for _, agent in rows]
    return (
        [domain for domain, _ in rows],
        [agent.agent_id for agent in agents],
        [agent.load for agent in agents],
        [agent.ceiling for agent in agents],
        [agent.last_assigned_at for agent in agents],
        [agent.misses for agent in agents],
    )


def _duties(rows: Sequence[tuple[int, str, Agent]]) -> list[str]:
    return _json(
        _Duty(
            agent.calendar,
            agent.shifts,
            agent.auto_accept,
            agent.on_shift,
            agent.turns_at,
            agent.beats,
            agent.vanished_at,
        )
        for _, _, agent in rows
    )


def _work_columns(rows: Sequence[tuple[int, str, Work]]) -> tuple[list[Any], ...]:
    works = [work for _, _, work in rows]
    return (
        [domain for _, domain, _ in rows],
        [work.work_id for work in works],
        [task for task, _, _ in rows],
        [work.ticket_id for work in works],
        [work.conversation_id for work in works],
        [work.queue for work in works],
        [work.priority for work in works],
        [work.status for work in works],
        [work.agent_id for work in works],
        [work.reservation_id for work in works],
        [work.cost for work in works],
        [work.entered_at for work in works],
        [work.expires_at for work in works],
        _json(works),
    )


def _routing_columns(rows: Sequence[RoutingRow]) -> tuple[list[Any], ...]:
    return (
        [row.event.ticket_id for row in rows],
        [row.event.work_id for row in rows],
        [row.event.TYPE for row in rows],
        [row.at for row in rows],
        [row.event.to_json().decode() for row in rows],
    )
