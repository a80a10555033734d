"""The table of API keys: added and revoked by the command line, read by every gateway every two seconds.

A row is never deleted, so who made a key and who took it back can be told for good.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import asyncpg

from chassis import logs
from chassis.auth_keys import KeyRing, StoredKey
from chassis.clock import monotonic, pause
from chassis.ledger import DRIVER_ERRORS

LOOK_SECONDS: Final = 2.0
"""How soon a gateway knows of a key that was added or revoked."""
USED_SECONDS: Final = 60.0
"""How often it is written down when keys were used."""

_ADD: Final = """
INSERT INTO api_key (key_id, workspace, name, digest, scopes, domains, agent_id, created_at, created_by, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
"""
_IN_FORCE: Final = """
SELECT key_id, name, digest, scopes, domains, agent_id, expires_at FROM api_key
 WHERE workspace = $1 AND revoked_at IS NULL
"""
_LIST: Final = """
SELECT key_id, name, scopes, domains, agent_id, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by
  FROM api_key WHERE workspace = $1 AND ($2 OR revoked_at IS NULL) ORDER BY name, created_at
"""
_REVOKE: Final = """
UPDATE api_key SET revoked_at = $3, revoked_by = $4
 WHERE workspace = $1 AND key_id = $2 AND revoked_at IS NULL
"""
_USED: Final = """
UPDATE api_key AS k SET last_used_at = u.at
  FROM unnest($1::text[], $2::timestamptz[]) AS u(key_id, at)
 WHERE k.key_id = u.key_id AND (k.last_used_at IS NULL OR k.last_used_at < u.at)
"""

log = logs.get("ingest.keys")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is listed; its digest stays in the table."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    domains: tuple[str, ...]
    agent_id: str | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None


async def add(
    connection: asyncpg.Connection, workspace: str, key: StoredKey, by: str, now: datetime
) -> None:
    """Put a key in force."""
    await connection.execute(
        _ADD,
        key.key_id,
        workspace,
        key.name,
        key.digest,
        list(key.scopes),
        list(key.domains),
        key.agent_id,
        now,
        by,
        key.expires_at,
    )


async def listed(
    connection: asyncpg.Connection, workspace: str, *, with_revoked: bool = False
) -> list[KeyRow]:
    """Return the keys of a workspace, in the order of their names."""
    rows = await connection.fetch(_LIST, workspace, with_revoked)
    return [
        KeyRow(**{**row, "scopes": tuple(row["scopes"]), "domains": tuple(row["domains"])})
        for row in rows
    ]


async def revoke(
    connection: asyncpg.Connection, workspace: str, key_id: str, by: str, now: datetime
) -> bool:
    """Take a key back, for good; False where none of this id is in force."""
    done: str = await connection.execute(_REVOKE, workspace, key_id, now, by)
    return done == "UPDATE 1"


async def in_force(connection: Any, workspace: str) -> list[StoredKey]:
    """Return the keys that were not taken back; whether one has expired, its user finds out."""
    rows = await connection.fetch(_IN_FORCE, workspace)
    return [
        StoredKey(
            row["key_id"],
            row["name"],
            row["digest"],
            tuple(row["scopes"]),
            tuple(row["domains"]),
            row["agent_id"],
            row["expires_at"],
        )
        for row in rows
    ]


async def write_used(connection: Any, used: Mapping[str, datetime]) -> None:
    """Write down when keys were last used."""
    await connection.execute(_USED, list(used), list(used.values()))


class KeyWatch:
    """Keeps a ring of keys as the table has them. While the database is away the ring stays as it is."""

    def __init__(self, pool: asyncpg.Pool, workspace: str, ring: KeyRing) -> None:
        self._pool = pool
        self._workspace = workspace
        self._ring = ring
        self._written_at = monotonic()

    async def look(self, *, is_last: bool = False) -> None:
        """Read the table once, and write down what was used when it is time.

        Raises:
            OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError: the database does not answer.
        """
        async with self._pool.acquire(timeout=3) as connection:
            self._ring.load(await in_force(connection, self._workspace))
            if is_last or monotonic() - self._written_at >= USED_SECONDS:
                self._written_at = monotonic()
                used = self._ring.take_used()
                if used:
                    await write_used(connection, used)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look every two seconds until the process stops."""
        while True:
            is_last = stopping.is_set()
            try:
                await self.look(is_last=is_last)
            except DRIVER_ERRORS as error:
                log.warning("keys_not_read", error=type(error).__name__)
            if is_last:
                return
            await pause(stopping, LOOK_SECONDS)
