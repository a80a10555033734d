"""Numbered SQL files, applied once each, in order, in the service's own schema.

Plain files rather than a migration framework: each service owns a schema, the ledger's files come first in each, and
a file that was applied must never change (its digest is kept and compared).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from chassis.errors import ConfigurationError

LEDGER = Path(__file__).with_name("sql")
VERSION_MIN = 170_000
"""PostgreSQL 17: `transaction_timeout` frees the lease row of a process frozen inside its transaction."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A file that was applied just now."""

    schema: str
    name: str


def _files(folders: Sequence[Path]) -> list[tuple[str, str]]:
    found = []
    for folder in folders:
        prefix = "ledger" if folder == LEDGER else "service"
        found += [
            (f"{prefix}/{path.name}", path.read_text(encoding="utf-8"))
            for path in sorted(folder.glob("[0-9]*.sql"))
        ]
    return found


async def migrate(dsn: str, schema: str, folders: Sequence[Path] = ()) -> list[Migration]:
    """Bring `schema` up to date: the ledger's files, then those of `folders`. Several callers may come at once.

    Raises:
        ConfigurationError: the server is too old, or an applied file has changed.
    """
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        if connection.get_server_version()[0] * 10_000 < VERSION_MIN:
            raise ConfigurationError(
                f"PostgreSQL {connection.get_server_version()[0]} is too old: Signalbox needs 17 or later"
            )
        applied = []
        async with connection.transaction():
            await connection.execute(
                "SELECT pg_advisory_xact_lock(hashtext($1))", f"signalbox migrate {schema}"
            )
            await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            await connection.execute(f'SET LOCAL search_path TO "{schema}"')
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY, digest text NOT NULL,"
                " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
            known = {
                row["name"]: row["digest"]
                for row in await connection.fetch("SELECT name, digest FROM migration")
            }
            for name, text in _files([LEDGER, *folders]):
                digest = hashlib.sha256(text.encode()).hexdigest()
                if name in known:
                    if known[name] != digest:
                        raise ConfigurationError(
                            f"schema {schema}: {name} was applied and has changed since; put changes into a new file"
                        )
                    continue
                await connection.execute(text)
                await connection.execute(
                    "INSERT INTO migration (name, digest) VALUES ($1, $2)", name, digest
                )
                applied.append(Migration(schema, name))
        return applied
    finally:
        await connection.close()


async def is_current(dsn: str, schema: str, folders: Sequence[Path] = ()) -> bool:
    """Whether every file has been applied."""
    connection = await asyncpg.connect(dsn, timeout=5)
    try:
        rows = await connection.fetch(
            "SELECT to_regclass($1) IS NOT NULL AS there", f'"{schema}".migration'
        )
        if not rows[0]["there"]:
            return False
        known = {
            row["name"]
            for row in await connection.fetch(
                f'SELECT name FROM "{schema}".migration'  # noqa: S608 - one of our own names
            )
        }
        return all(name in known for name, _ in _files([LEDGER, *folders]))
    finally:
        await connection.close()
