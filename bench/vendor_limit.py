"""The vendors' own limits: what connections get taken that do nothing but hand messages over.

Bare sockets, one request after the other on each connection, everything made beforehand: whoever does more than that for a
message can reach these figures and not exceed them.
"""

import asyncio
from collections.abc import Awaitable, Callable

from chassis.clock import monotonic

TEXT = "Your lamp left our house this morning. " * 16
"""About what a notice weighs."""

Once = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]
"""Hands the n-th message over on an open connection."""


async def posts(port: int, account: str, connections: int, seconds: float) -> float:
    """Return the keyed posts a second that an account answers on so many connections."""

    async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        body = f'{{"type":"notice.answered","data":{{"to":"limit-{n}","text":"{TEXT}"}}}}'.encode()
        head = (
            f"POST /{account} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"webhook-id: limit-{n}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(answer.partition(b"\r\n")[0].decode("latin-1"))
        length = answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))

    return await _rate(port, connections, seconds, post, greets=False)


async def mails(port: int, connections: int, seconds: float) -> float:
    """Return the mails a second that the mail server takes on so many connections."""

    async def mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, n: int) -> None:
        for line, code in (
            (b"MAIL FROM:<limit@shop.example>\r\n", b"250"),
            (f"RCPT TO:<limit-{n}@mail.example>\r\n".encode(), b"250"),
            (b"DATA\r\n", b"354"),
            (f"Subject: limit\r\n\r\n{TEXT}\r\n.\r\n".encode(), b"250"),
        ):
            writer.write(line)
            answer = await reader.readline()
            if not answer.startswith(code):
                raise ConnectionError(answer.decode("latin-1"))

    return await _rate(port, connections, seconds, mail, greets=True)


async def _rate(port: int, connections: int, seconds: float, once: Once, *, greets: bool) -> float:
    began, done = monotonic(), 0

    async def connection() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            if greets:
                await reader.readline()
            while monotonic() - began < seconds:
                done += 1
                await once(reader, writer, done)
        finally:
            writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return done / (monotonic() - began)
