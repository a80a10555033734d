"""The keeper of the estimates: reads measured waits from the database, and holds the snapshot that promises are made from.

Every process keeps its own; the same rows give the same one. One process at a time, by an advisory lock, also settles
promises that passed unanswered and deletes waits that are too old, in slices.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from chassis import logs
from chassis.clock import Clock, SystemClock, pause
from chassis.lifecycle import Runtime
from chassis.stage import Connection
from services.sla import metrics, wait_store
from services.sla.core.policy import Policy
from services.sla.core.state import WALL
from services.sla.core.waits import (
    NOTHING_KNOWN,
    Cell,
    Correction,
    Estimates,
    cells_of,
    corrected,
    snapshot,
)

SLICES_MAX: Final = 40
"""Slices that one round settles or deletes: what is left waits for the next."""

FIRST_SECONDS: Final = 3.0
"""How long the stage waits for the first look: with small tables it takes a few milliseconds, with large ones it can wait."""

BACKOFF_MAX: Final = 12
"""Failures after which the pause between two readings grows no further."""

GRACE: Final = timedelta(seconds=5)
"""After a promise's instant before it is called broken: an answer in time may be on its way to us."""

_TRY_LOCK: Final = (
    "SELECT pg_try_advisory_xact_lock(hashtextextended('waits of ' || current_schema(), 0))"
)

log = logs.get("estimates")


class EstimatesKeeper:
    """Holds the latest snapshot; `current` is replaced as a whole, between two decisions."""

    def __init__(self, policy: Callable[[], Policy], clock: Clock | None = None) -> None:
        self.current: Estimates = NOTHING_KNOWN
        self._policy = policy
        self._clock = clock or SystemClock()
        self._cells: Mapping[tuple[str, ...], Cell] = {}
        self._queues: Sequence[str] = ()
        self._built: tuple[datetime, object] | None = None
        self._failures = 0
        self._not_before: datetime | None = None
        self._first = asyncio.Event()

    async def keep_estimates(self, runtime: Runtime) -> None:
        """Look again and again until the service stops. While the database does not answer, the last look stands."""
        while not runtime.stopping.is_set():
            try:
                async with runtime.pool.acquire() as connection:
                    await self.refresh(connection)
                    self._first.set()
                    await self.tidy(connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("estimates_not_refreshed", error=type(error).__name__)
            finally:
                self._first.set()
            await pause(runtime.stopping, self._policy().promises.refresh_seconds)

    async def first_look(self, runtime: Runtime) -> None:
        """Wait until the table has been read once, or could not be, for `FIRST_SECONDS` at most.

        Whatever is opened, and each look at a clock, in the first moments of a process would otherwise find nothing known.
        """
        first = asyncio.create_task(self._first.wait())
        stopping = asyncio.create_task(runtime.stopping.wait())
        await asyncio.wait(
            {first, stopping}, timeout=FIRST_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        first.cancel()
        stopping.cancel()

    async def refresh(self, connection: Connection) -> None:
        """Look once: the waits where they were read long ago, the corrections and the queues always."""
        policy, now = self._policy(), self._clock.now()
        model = policy.promises
        if self._is_stale(now, policy):
            await self._rebuild(connection, policy, now)
        verdicts = await wait_store.read_verdicts(connection, self._queues)
        corrections = {
            queue: corrected(outcomes, model.share) for queue, outcomes in verdicts.items()
        }
        calendars = {name: policy.calendar(name) for name in {*policy.calendars, WALL}}
        states = await wait_store.read_states(connection, self._queues, calendars, now)
        self.current = snapshot(now, self._cells, corrections, states)
        _show(corrections, now)

    async def _rebuild(self, connection: Connection, policy: Policy, now: datetime) -> None:
        """Read the waits anew. One that fails leaves those read before, and is tried again the later the oftener it fails."""
        model = policy.promises
        window = timedelta(weeks=model.window_weeks)
        wait = min(model.refresh_seconds * 2**self._failures, model.rebuild_seconds)
        self._not_before = now + timedelta(seconds=wait)
        self._failures = min(self._failures + 1, BACKOFF_MAX)
        self._queues = await wait_store.read_queues(connection)
        waits = await wait_store.read_waits(
            connection, self._queues, now - window, now, policy.calendars
        )
        # Seconds of arithmetic where there are many: decisions go on meanwhile.
        self._cells = await asyncio.to_thread(
            cells_of,
            waits,
            now,
            share=model.share,
            min_samples=model.min_samples,
            window=window,
        )
        self._built, self._failures, self._not_before = (now, model), 0, None

    async def tidy(self, connection: Connection) -> None:
        """Settle what passed unanswered and delete what is too old, unless another process is at it."""
        now = self._clock.now()
        window = timedelta(weeks=self._policy().promises.window_weeks)
        for _ in range(SLICES_MAX):
            async with connection.transaction():
                if not await connection.fetchval(_TRY_LOCK):
                    return
                settled = await wait_store.settle(connection, now - GRACE)
                gone = await wait_store.forget(connection, now - window)
            if max(settled, gone) < wait_store.SLICE:
                return

    def _is_stale(self, now: datetime, policy: Policy) -> bool:
        """Whether the waits are to be read: never yet, too long ago, or for another policy; after failures not at once."""
        if self._not_before is not None and now < self._not_before:
            return False
        if self._built is None or self._built[1] != policy.promises:
            return True
        return now - self._built[0] >= timedelta(seconds=policy.promises.rebuild_seconds)


def _show(corrections: Mapping[str, Correction], at: datetime) -> None:
    metrics.show_estimates(
        {
            queue: (round(one.kept_share * one.n), one.n, one.factor)
            for queue, one in corrections.items()
        },
        at,
    )
