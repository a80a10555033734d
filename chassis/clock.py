"""The one place that asks what time it is, and where a part waits for a while or for its end."""

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time, in UTC."""

    def now(self) -> datetime:
        """Return the present instant, with its offset."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the present instant in UTC."""
        return datetime.now(UTC)


def monotonic() -> float:
    """Seconds on a clock that never goes back: for waiting and measuring, never for facts."""
    return time.monotonic()


def now_seconds() -> float:
    """Seconds since 1970, for log lines that a test compares; facts use `Clock.now`."""
    return time.time()


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait until `stopping` is set, or for so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()
