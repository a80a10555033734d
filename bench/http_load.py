"""A light HTTP client that loads a server from a process of its own: closed loop for the most it can do, open loop for latency.

It speaks just enough HTTP/1.1 for answers with a `Content-Length`, on connections that stay open. Requests are made
before the clock starts. In the open loop a request's time counts from its planned instant, so that one that had to wait
for a connection has waited.
"""

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import cast

import uvloop

from chassis.clock import monotonic

WARM_UP_SHARE = 0.2
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What to send where: whole requests, over how many connections; `rate` a second, or None for as fast as it goes."""

    port: int
    requests: Sequence[bytes]
    connections: int
    rate: float | None = None


@dataclass(slots=True)
class Outcome:
    """Answers a second behind the warm-up, seconds each of those took, and how many there were of each status."""

    per_second: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


async def drive(load: Load) -> Outcome:
    """Send `load` from a process of its own.

    Raises:
        TimeoutError: it was not all answered within two minutes.
        ConnectionError: the server closed a connection.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, _drive, load)


def _drive(load: Load) -> Outcome:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_driven(load))


async def _driven(load: Load) -> Outcome:
    return await _Driver(load).run()


class _Driver:
    """Hands requests to free connections, and notes when each was answered."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._due: deque[tuple[bytes, float]] = deque()
        self._free: list[_Connection] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answered: list[tuple[float, float]] = []
        self._statuses: Counter[int] = Counter()

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        opened = await asyncio.gather(
            *(
                loop.create_connection(lambda: _Connection(self), "127.0.0.1", self._load.port)
                for _ in range(self._load.connections)
            )
        )
        self._free = [connection for _, connection in opened]
        requests = self._load.requests
        async with asyncio.timeout(PATIENCE_SECONDS):
            if self._load.rate is None:
                now = monotonic()
                self._due.extend(zip(requests, itertools.repeat(now)))
                self._hand_out()
            else:
                await self._send_at(self._load.rate)
            await self._done
        for transport, _ in opened:
            transport.close()
        return self._outcome()

    async def _send_at(self, rate: float) -> None:
        began = monotonic()
        for number, request in enumerate(self._load.requests):
            due = began + number / rate
            wait = due - monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self._due.append((request, due))
            self._hand_out()

    def _hand_out(self) -> None:
        while self._due and self._free:
            request, due = self._due.popleft()
            # As fast as it goes, a request is due when a connection is free for it.
            self._free.pop().send(request, due if self._load.rate is not None else monotonic())

    def answered(self, connection: "_Connection", status: int, due: float) -> None:
        """Note an answer, and use its connection for the next request."""
        self._answered.append((due, monotonic()))
        self._statuses[status] += 1
        self._free.append(connection)
        self._hand_out()
        if len(self._answered) == len(self._load.requests) and not self._done.done():
            self._done.set_result(None)

    def failed(self, error: Exception) -> None:
        """End the run."""
        if not self._done.done():
            self._done.set_exception(error)

    def _outcome(self) -> Outcome:
        counted = self._answered[int(len(self._answered) * WARM_UP_SHARE) :]
        seconds = counted[-1][1] - counted[0][1]
        return Outcome(
            per_second=(len(counted) - 1) / seconds if seconds > 0 else 0.0,
            latencies=[answered - due for due, answered in counted],
            statuses=self._statuses,
        )


class _Connection(asyncio.Protocol):
    """One connection that stays open, with one request under way."""

    def __init__(self, driver: _Driver) -> None:
        self._driver = driver
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the same methods, and another ancestor.
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes, due: float) -> None:
        """Send a whole request."""
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(rest) < int(length or b"0"):
            return
        self._buffer = b""
        self._driver.answered(self, int(head[9:12]), self._due)

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.failed(exc or ConnectionError("the server closed a connection"))
