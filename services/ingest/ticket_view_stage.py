"""Tickets and offers → the gateway's view of them, and what became of the requests that came by HTTP.

Reads `tickets`, where a conversation's events stand in order, and `routing`, where its offers do. Between the two there is
no order, so an offer may be known as accepted a moment before its ticket is known as assigned.
"""

from datetime import datetime
from typing import Any, ClassVar, Final

from chassis import logs
from chassis.batch import Task, TaskState
from chassis.clock import monotonic, now_seconds, pause
from chassis.ledger import DRIVER_ERRORS
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
    CURRENT_SECONDS,
    STAGE,
    TicketViewStore,
    forget,
    mark_current,
)

LOOK_SECONDS: Final = 0.5
"""How often it is looked whether all is in view; a command that seems not to fit is held back for about as long."""

FORGET_SECONDS: Final = 600.0

CLOCK_STEP_SECONDS: Final = 0.1
"""A fetch that seems to come later from now than this tells that the machine's clock was set back."""

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
            state=None if after.is_empty else after,
            is_changed=after != before,
            rows=rows,
            ignored=None if rows else "says_nothing_of_where_it_stands",
        )


class Lookout:
    """Says over and over up to when each task's view holds all that was published; and deletes what is too old.

    Of a task that stands still, has anything left to read, or hears nothing from the broker it says nothing, and then the
    gateway judges nothing by its view.
    """

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
            except DRIVER_ERRORS as error:
                log.warning("view_look_put_off", error=type(error).__name__)
            await pause(runtime.stopping, LOOK_SECONDS)

    async def look(self, worker: Worker[Any], pool: Any) -> dict[int, float]:
        """Look once; return the tasks that hold all that was published, and how many seconds ago that was seen."""
        ages = {
            number: age
            for number, task in list(worker.tasks.items())
            if (age := _age_of(worker, task)) is not None
        }
        if ages:
            async with pool.acquire() as connection:
                await mark_current(connection, ages)
        return ages


def _age_of(worker: Worker[Any], task: Task[Any]) -> float | None:
    """Return how many seconds ago the broker last said of all of a task's partitions that there is nothing more to read.

    None where there is more, where nobody knows yet, or where the broker has not answered for too long: while it is away, the
    end of the log is not where it was last seen.
    """
    consumer = worker.consumer
    if consumer is None or task.state is not TaskState.OWNED:
        return None
    now, oldest = now_seconds(), 0.0
    for partition in task.partitions:
        if partition not in consumer.assignment():
            return None
        end, fetched_ms = consumer.highwater(partition), consumer.last_poll_timestamp(partition)
        if end is None or fetched_ms is None:
            return None  # Nothing was fetched since it was assigned.
        if task.position.offsets.get(worker.assignment.plain(partition.topic), 0) < end:
            return None
        age = now - fetched_ms / 1000
        if not -CLOCK_STEP_SECONDS <= age <= CURRENT_SECONDS:
            return None
        oldest = max(oldest, age)
    return oldest
