"""The HTTP server of every service: whoever is told of its port may use it."""

import asyncio
import socket
from typing import Any

from chassis.web import serve


async def _nobody(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive, send


async def test_whoever_is_told_of_the_port_may_connect_at_once() -> None:
    stopping = asyncio.Event()
    told: list[int] = []

    def connects(port: int) -> None:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        told.append(port)
        stopping.set()

    await serve(_nobody, "127.0.0.1", 0, stopping, on_bound=connects, drain_seconds=1.0)
    assert len(told) == 1
