"""The services' database as commands use it: a connection or an answer to look by, and ingest's spool to hand something over to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chassis.spool import Spool
    from services.ingest.settings import IngestSettings


@contextlib.asynccontextmanager
async def connected(dsn: str, schema: str = "") -> AsyncIterator[Any]:
    """A connection for as long as the block runs; names without a schema are of `schema`, where one is given.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError: the database does not answer.
    """
    import asyncpg

    options = {"search_path": schema} if schema else {}
    connection = await asyncpg.connect(dsn, timeout=5, server_settings=options)
    try:
        yield connection
    finally:
        await connection.close()


async def fetch(dsn: str, query: str, *values: Any) -> list[Any]:
    """Return the rows of one query.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError: the database does not answer.
    """
    async with connected(dsn) as connection:
        return list(await connection.fetch(query, *values))


@contextlib.asynccontextmanager
async def spooling(own: "IngestSettings", command: str) -> AsyncIterator[tuple["Spool", Any]]:
    """Ingest's spool, taking in for as long as the block runs, and the pool that it stores by.

    `command` is what the database calls us. What was put and not yet stored when the block ends is not taken in.

    Raises:
        OSError, asyncpg.PostgresError, TimeoutError: the database does not answer.
    """
    from chassis.ledger import open_pool
    from chassis.spool import Spool

    pool = await open_pool(own.dsn, "ingest", 2, command)
    spool = Spool(pool, own)
    running = asyncio.create_task(spool.run())
    try:
        yield spool, pool
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.close()
