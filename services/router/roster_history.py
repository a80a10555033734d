"""What agents could do, change by change: a record of a decision names a version of the roster, and this finds it again."""

from collections.abc import Sequence
from typing import Final

import msgspec

from chassis.stage import Connection
from schemas.routing import DecisionRecord
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.domain import RosterChange
from services.router.core.assignment.explain import StaticReasons, reasons_of
from services.router.core.assignment.requirement import from_wire

_NOTE: Final = """
INSERT INTO assignment_roster (domain, version, agent_id, place, profile)
SELECT domain, version, agent_id, place, profile FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::int[], $5::jsonb[]
) WITH ORDINALITY AS given (domain, version, agent_id, place, profile, n)
ORDER BY n
"""

_ROSTER_AT: Final = """
WITH asked AS (SELECT domain, max(id) AS id FROM assignment_roster WHERE version = $1 GROUP BY domain)
SELECT DISTINCT ON (r.agent_id) r.agent_id, r.place, r.profile
  FROM assignment_roster r JOIN asked ON r.domain = asked.domain AND r.id <= asked.id
 ORDER BY r.agent_id, r.id DESC
"""


class _Could(msgspec.Struct):
    """What an agent could do at a time."""

    queues: tuple[str, ...]
    skills: dict[str, int]
    languages: dict[str, int]


_COULD: Final = msgspec.json.Decoder(_Could)


async def note(connection: Connection, domain: str, changes: Sequence[RosterChange]) -> None:
    """Write what changed in a domain's roster, in its order."""
    could = [_Could(change.queues, change.skills, change.languages) for change in changes]
    await connection.execute(
        _NOTE,
        [domain] * len(changes),
        [change.version for change in changes],
        [change.agent_id for change in changes],
        [change.place for change in changes],
        [msgspec.json.encode(one).decode() for one in could],
    )


async def static_reasons_at(connection: Connection, record: DecisionRecord) -> StaticReasons | None:
    """Return what the roster of a record's version says about everyone, for `explain.expand`.

    None where that roster is not known: the record spells everybody out, or is older than the roster's history. The tables
    are looked for in the connection's search path.
    """
    if not record.roster_version:
        return None
    rows = await connection.fetch(_ROSTER_AT, record.roster_version)
    if not rows:
        return None
    agents: dict[str, Agent] = {}
    for row in rows:
        if row["place"] >= 0:
            could = _COULD.decode(row["profile"])
            agents[row["agent_id"]] = Agent(
                row["agent_id"],
                queues=could.queues,
                skills=could.skills,
                languages=could.languages,
                place=row["place"],
            )
    places: list[str | None] = [None] * (1 + max((a.place for a in agents.values()), default=-1))
    for agent in agents.values():
        places[agent.place] = agent.agent_id
    return reasons_of(
        agents,
        tuple(places),
        record.roster_version,
        record.queue,
        from_wire(record.requirement),
        record.lenders,
    )
