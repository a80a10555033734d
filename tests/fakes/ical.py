"""A server of iCalendar feeds: real HTTP on a port of this machine, well-behaved until it is told otherwise."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Trouble = Literal[
    "500", "slow", "silent", "huge", "broken", "cut", "redirect", "loop", "away", "html", "gzip",
    "closed",
]  # fmt: skip
"""`away` redirects to plain http in the world; `cut` ends half-way; `closed` hangs up without a word."""


def calendar(*events: Iterable[str]) -> str:
    """A calendar of events, each the lines between BEGIN and END."""
    body = "".join(
        "BEGIN:VEVENT\r\n" + "".join(f"{line}\r\n" for line in event) + "END:VEVENT\r\n"
        for event in events
    )
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//fake//EN\r\n{body}END:VCALENDAR\r\n"


def holiday(day: str, summary: str = "Closed", uid: str | None = None) -> list[str]:
    """The lines of an all-day event on a date "YYYYMMDD"."""
    return [f"UID:{uid or day}@fake", f"DTSTART;VALUE=DATE:{day}", f"SUMMARY:{summary}"]


@dataclass
class IcalServer:
    """What it gives, what it was asked for, and which troubles come first, in order."""

    content: str = field(default_factory=calendar)
    etag: str = '"1"'
    troubles: deque[Trouble] = field(default_factory=deque)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        """The feed's address, with something in it that must not be told."""
        return f"http://127.0.0.1:{self.port}/secret-key/holidays.ics"

    def change(self, content: str) -> None:
        """Give another calendar from now on."""
        self.content = content
        self.etag = f'"{int(self.etag.strip(chr(34))) + 1}"'

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
            path = head[0].split(" ")[1]
            self.asked.append((path, headers))
            await self._answer(path, headers, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The client has gone.
        finally:
            writer.close()

    async def _answer(
        self, path: str, headers: dict[str, str], writer: asyncio.StreamWriter
    ) -> None:
        trouble = self.troubles.popleft() if self.troubles else None
        body = self.content.encode()
        match trouble:
            case "500":
                await self._say(writer, 500, b"down")
            case "html":
                await self._say(writer, 200, b"<html>Please log in</html>", "text/html")
            case "broken":
                await self._say(writer, 200, b"BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nDTSTART:soon\r\n")
            case "gzip":
                await self._say(writer, 200, body, more="Content-Encoding: gzip\r\n")
            case "redirect":
                await self._say(writer, 302, b"", more="Location: /moved/holidays.ics\r\n")
            case "loop":
                self.troubles.appendleft("loop")
                await self._say(writer, 302, b"", more=f"Location: {path}\r\n")
            case "away":
                await self._say(writer, 302, b"", more="Location: http://example.com/a.ics\r\n")
            case "huge":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\n\r\n")
                for _ in range(64):
                    writer.write(b"X" * 65_536)
                    await writer.drain()
            case "slow":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/calendar\r\n\r\n")
                while True:
                    writer.write(b"X")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            case "silent":
                await asyncio.sleep(3600)
            case "cut":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nBEGIN:VCALENDAR")
                await writer.drain()
            case "closed":
                return
            case _ if headers.get("if-none-match") == self.etag:
                await self._say(writer, 304, b"")
            case _:
                await self._say(writer, 200, body)

    async def _say(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        body: bytes,
        kind: str = "text/calendar; charset=utf-8",
        more: str = "",
    ) -> None:
        self.statuses.append(status)
        writer.write(
            f"HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            f"ETag: {self.etag}\r\nConnection: close\r\n{more}\r\n".encode()
            + body
        )
        await writer.drain()


@asynccontextmanager
async def serving(content: str = "") -> AsyncIterator[IcalServer]:
    """A server on a free port; its open answers end with it."""
    fake = IcalServer(content or calendar())
    tasks: set[asyncio.Task[None]] = set()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await fake._serve(reader, writer)

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
