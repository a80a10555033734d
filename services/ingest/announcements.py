"""PostgreSQL's announcements (LISTEN), heard on one connection of a process for as long as it lives.

An announcement only says where to look; one that is lost, while a connection is gone, costs whoever waits the time until
they look by themselves.
"""

import asyncio
from typing import Any, Final, Protocol

import asyncpg

from chassis.clock import pause
from chassis.ledger import DRIVER_ERRORS

LISTEN_SECONDS: Final = 5.0
"""How often the connection that listens is asked whether it lives."""


class Audience(Protocol):
    """Whoever waits for announcements in this process."""

    is_closed: bool

    def hear(self, announced: str) -> None:
        """Take an announcement."""
        ...

    def wake_all(self) -> None:
        """Have everybody look."""
        ...


async def listen(
    dsn: str, channel: str, audience: Audience, stopping: asyncio.Event, log: Any, deaf: str
) -> None:
    """Listen until the process stops, with a new connection whenever the old one is gone; then let everybody go.

    `log` is the logger of whoever listens, `deaf` its line for the time without a connection.
    """
    wait = 0.2
    while not stopping.is_set():
        try:
            connection = await asyncpg.connect(dsn, timeout=3, command_timeout=5)
            try:
                await connection.add_listener(channel, lambda *heard: audience.hear(str(heard[3])))
                audience.wake_all()  # Whatever was announced meanwhile.
                wait = 0.2
                while not stopping.is_set():
                    await pause(stopping, LISTEN_SECONDS)
                    await connection.execute("SELECT 1")
            finally:
                connection.terminate()
        except DRIVER_ERRORS as error:
            log.warning(deaf, error=type(error).__name__, wait_seconds=wait)
            await pause(stopping, wait)
            wait = min(wait * 2, 5.0)
    audience.is_closed = True
    audience.wake_all()
