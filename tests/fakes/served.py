"""A fake vendor on a real socket of this machine, in the test's own loop, that can hold an answer back."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn


class Served:
    """An ASGI app at `url`. While `holds` is set, an answer to a write waits once its work is done; `held` counts those."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.url = ""
        self.holds = False
        self.held = 0
        self.let_go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] == "GET" or not self.holds:
            await self._app(scope, receive, send)
            return
        kept: list[Any] = []

        async def keep(message: Any) -> None:
            kept.append(message)

        await self._app(scope, receive, keep)
        self.held += 1
        await self.let_go.wait()
        for message in kept:
            await send(message)

    def release(self) -> None:
        """Let go of what is held, and hold nothing any more."""
        self.holds = False
        self.let_go.set()
        self.let_go = asyncio.Event()


@contextlib.asynccontextmanager
async def served(app: Any) -> AsyncIterator[Served]:
    """Serve an app on a free port of this machine."""
    made = Served(app)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            made, log_level="critical", lifespan="off", access_log=False, loop="asyncio"
        )
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            yield made
        finally:
            made.release()
            server.should_exit = True
            server.force_exit = True
            await running
