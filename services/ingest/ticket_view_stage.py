"""Tickets and offers → the gateway's view of them, and what became of the requests that came by HTTP.

Reads `tickets`, where a conversation's events stand in order, and `routing`, where its offers do. Between the two there is
no order, so an offer may be known as accepted a moment before its ticket is known as assigned.
"""

import asyncio
import contextlib
from datetime import datetime
from typing import Any, ClassVar, Final

from chassis import logs
from chassis.batch import TaskState
from chassis.clock import monotonic
from chassis.lifecycle import Runtime
from chassis.stage import Input, Outcome, Received, Stage
from chassis.task import Worker
from schemas.registry import REGISTRY
from schemas.routing import RoutingEvent
from schemas.tickets import CommandRefused, TicketEvent
from schemas.topics import ROUTING, TICKETS, Topic
from services.ingest.core import ticket_view
from services.ingest.core.ticket_view import Offers
from services.ingest.ticket_view_store import (
    DATABASE_ERRORS,
    STAGE,
    TicketViewStore,
    forget,
    mark_current,
)

BEHIND_MAX: Final = 50
"""Records that a view may be behind by and still count as up to date, as long as it moves: what a busy second brings."""

LOOK_SECONDS: Final = 2.0
FORGET_SECONDS: Final = 600.0

log = logs.get(STAGE)


class TicketViewStage(Stage[Offers]):
    """One task of the view; the state's key is the conversation."""

    name: ClassVar[str] = STAGE
    topics: ClassVar[tuple[Topic, ...]] = (TICKETS, ROUTING)
    understands: ClassVar[frozenset[str]] = frozenset(
        name
        for name, kind in REGISTRY.items()
        if issubclass(kind, TicketEvent | RoutingEvent | CommandRefused)
        and kind.TOPIC in (TICKETS.name, ROUTING.name)
    )

    def __init__(self) -> None:
        self.store: TicketViewStore = TicketViewStore()

    def decide(self, state: Offers | None, item: Input, now: datetime) -> Outcome[Offers]:
        """Take over what one event says."""
        del now
        assert isinstance(item, Received), "the view asks for no timers and no effects"
        before = state if state is not None else Offers()
        after, rows = ticket_view.read(before, item.event, item.envelope.causationid)
        return Outcome(
            state=after if after.live else None,
            is_changed=after != before,
            rows=rows,
            ignored=None if rows else "says_nothing_of_where_it_stands",
        )


class Lookout:
    """Says over and over which tasks are up to date, as long as they are; and deletes what is too old.

    A stage that stands still, or has much to catch up with, says nothing, and then the gateway judges nothing by its view.
    """

    def __init__(self) -> None:
        self._was_near = False
        self._position = -1

    async def __call__(self, runtime: Runtime) -> None:
        """Look until the process stops."""
        next_forget = monotonic()
        while not runtime.stopping.is_set():
            worker = next((w for w in runtime.health.workers if w.stage.name == STAGE), None)
            try:
                if worker is not None:
                    await self.look(worker, runtime.pool)
                if monotonic() >= next_forget:
                    next_forget = monotonic() + FORGET_SECONDS
                    async with runtime.pool.acquire() as connection:
                        await forget(connection, runtime.clock.now())
            except DATABASE_ERRORS as error:
                log.warning("view_look_put_off", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(runtime.stopping.wait(), LOOK_SECONDS)

    async def look(self, worker: Worker[Any], pool: Any) -> bool:
        """Look once; return whether the view was found up to date, twice running."""
        lag = worker.lag()
        position = sum(sum(task.position.offsets.values()) for task in worker.tasks.values())
        has_moved, self._position = position != self._position, position
        is_near = lag == 0 or (lag is not None and lag <= BEHIND_MAX and has_moved)
        # Right after joining nobody knows yet how much there is to read.
        is_current, self._was_near = is_near and self._was_near, is_near
        tasks = [n for n, task in worker.tasks.items() if task.state is TaskState.OWNED]
        if is_current and tasks:
            async with pool.acquire() as connection:
                await mark_current(connection, tasks)
        return is_current and bool(tasks)
