"""A bare echo on the gateway's own server: what the machine, the loop and the HTTP server leave to an application.

`python -m bench.echo PORT` answers every request with its own body, and holds nothing.
"""

import asyncio
import sys

import uvloop

from chassis.web import Receive, Scope, Send, respond, serve


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body that came."""
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    await respond(send, 200, body)


async def _serve(port: int) -> None:
    await serve(echo, "127.0.0.1", port, asyncio.Event())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1])))
