"""How many tickets wait in the queues that rules ask about: written by assignment, read by tickets each second.

Both stages may run in processes of their own, so the number goes through a table, a row a queue. A decision takes it as
it was at the latest look, about a second ago, and says what it took (`observed` in `ticket.opened`).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final
from weakref import WeakKeyDictionary

import asyncpg

from chassis import logs
from chassis.lifecycle import Runtime
from chassis.policy import PolicyHolder
from chassis.stage import Connection
from services.router.core.assignment.domain import Domain
from services.router.core.policy.policy import Policy

READ_SECONDS: Final = 1.0

Watched = Callable[[str], frozenset[str]]
"""The queues of a domain whose lengths are wanted."""

_PUT: Final = """
WITH gone AS (
    DELETE FROM queue_length WHERE domain = $1 AND NOT queue = ANY($2::text[])
)
INSERT INTO queue_length (domain, queue, waiting, at)
SELECT $1, queue, waiting, now() FROM unnest($2::text[], $3::int[]) AS given (queue, waiting)
ON CONFLICT (domain, queue) DO UPDATE SET waiting = excluded.waiting, at = excluded.at
 WHERE queue_length.waiting <> excluded.waiting
"""
_READ: Final = "SELECT queue, waiting FROM queue_length WHERE queue = ANY($1::text[])"
_COUNT: Final = """
SELECT queue, count(*)::int AS waiting FROM assignment_work
 WHERE status = 'waiting' AND queue = ANY($1::text[]) GROUP BY queue
"""

log = logs.get("queue_lengths")


class LengthWriter:
    """Writes the lengths of watched queues where they changed. Part of the store of assignment.

    What was written is remembered for as long as the domain is in memory: after a failed transaction both are forgotten.
    """

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._written: WeakKeyDictionary[Domain, dict[str, int]] = WeakKeyDictionary()

    async def write(self, connection: Connection, domain: Domain) -> None:
        """Write what changed of a domain since the last time. The first time, what nobody asks for any more goes."""
        waiting = domain.n_waiting()
        lengths = {queue: waiting.get(queue, 0) for queue in sorted(self._watched(domain.name))}
        if self._written.get(domain) == lengths:
            return
        await connection.execute(_PUT, domain.name, list(lengths), list(lengths.values()))
        self._written[domain] = lengths


def nobody_asks(domain: str) -> frozenset[str]:
    """Watch no queue."""
    del domain
    return frozenset()


def watched_of(policies: PolicyHolder[Policy]) -> Watched:
    """Return what tells which queues of a domain the rules in force ask about."""

    def watched(domain: str) -> frozenset[str]:
        policy = policies.current
        queues = policy.routing.queues
        return frozenset(name for name in policy.watched if queues[name].domain == domain)

    return watched


class Lengths:
    """The lengths as of the latest look. `current` is replaced as a whole."""

    def __init__(self, policies: PolicyHolder[Policy]) -> None:
        self.current: Mapping[str, int] = {}
        self._policies = policies
        self._counted: dict[str, int] = {}

    async def keep(self, runtime: Runtime) -> None:
        """Look each second until the service stops. While the database does not answer, the last look stands."""
        while not runtime.stopping.is_set():
            try:
                await self.read(runtime.pool)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("queue_lengths_unread", error=type(error).__name__)
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await runtime.stopping.wait()
            except TimeoutError:
                continue

    async def read(self, pool: asyncpg.Pool) -> None:
        """Look once."""
        watched = self._policies.current.watched
        if not watched:
            self.current, self._counted = {}, {}
            return
        rows = await pool.fetch(_READ, sorted(watched))
        lengths = {row["queue"]: int(row["waiting"]) for row in rows}
        unwritten = watched - lengths.keys()
        if unwritten - self._counted.keys():
            # A rule asks for a queue in which nothing has happened since: its tickets are counted, once.
            found = await pool.fetch(_COUNT, sorted(unwritten))
            counts = {row["queue"]: int(row["waiting"]) for row in found}
            self._counted = {queue: counts.get(queue, 0) for queue in unwritten}
        self._counted = {queue: self._counted[queue] for queue in unwritten}
        self.current = {**self._counted, **lengths}
