"""A small HTTP server in the process: health, metrics, and the gateway where there is one."""

import asyncio
import contextlib
import errno
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from chassis.errors import ConfigurationError

WEBSOCKET_BYTES_MAX = 64 * 1024
"""The largest message of a WebSocket; a larger one ends its connection (1009)."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has one owner of signals, `chassis.lifecycle`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def serve(
    app: AsgiApp,
    host: str,
    port: int,
    stopping: asyncio.Event,
    *,
    on_bound: Callable[[int], None] | None = None,
    drain_seconds: float = 5.0,
) -> None:
    """Serve `app` until `stopping` is set; requests under way get `drain_seconds`. `on_bound` is told the port taken.

    Raises:
        ConfigurationError: the port is in use or not allowed; says which.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        http="httptools",
        ws_max_size=WEBSOCKET_BYTES_MAX,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=int(drain_seconds),
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    try:
        listener = config.bind_socket() if port == 0 else _bind(host, port)
    except OSError as error:
        what = (
            "is in use"
            if error.errno == errno.EADDRINUSE
            else f"cannot be bound ({error.strerror})"
        )
        raise ConfigurationError(
            f"port {port} on {host} {what}; choose another, or stop what holds it"
        ) from None
    listener.listen(config.backlog)  # Whoever is told of the port may connect at once.
    if on_bound is not None:
        on_bound(listener.getsockname()[1])
    running = asyncio.create_task(server.serve(sockets=[listener]))
    stopped = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopped.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(running, drain_seconds + 2)
        listener.close()


def _bind(host: str, port: int) -> Any:
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


async def respond(
    send: Send, status: int, body: bytes, content_type: str = "application/json"
) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
