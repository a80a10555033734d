"""The table `recount_order`: what people order to be worked out anew, and the watch that notices it.

Owns its SQL. An order is a row that nobody changes: `signalbox sla recount` writes it, and every process of the service reads the
latest ones once a second.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chassis import logs
from chassis.clock import pause
from chassis.ledger import ACQUIRE_SECONDS, DRIVER_ERRORS
from chassis.lifecycle import Runtime
from chassis.stage import Connection

WATCH_SECONDS: Final = 1.0
"""Between two looks: an order is noticed within two seconds, and the look is one row of an index."""

_LATEST: Final = """
SELECT coalesce(max(order_id), 0) AS latest,
       (SELECT o.order_id FROM recount_order AS o WHERE o.includes_breaches ORDER BY o.order_id DESC LIMIT 1) AS judging,
       (SELECT o.ordered_at FROM recount_order AS o WHERE o.includes_breaches ORDER BY o.order_id DESC LIMIT 1) AS judging_at
FROM recount_order
"""

log = logs.get("sla")


@dataclass(frozen=True, slots=True)
class Orders:
    """The latest order (0: none yet), and the latest that includes breaches with the instant at which it was given."""

    latest: int = 0
    judging: int = 0
    judging_at: datetime | None = None


async def read(connection: Connection) -> Orders:
    """Return the orders as they stand."""
    row = await connection.fetchrow(_LATEST)
    assert row is not None  # An aggregate always has a row.
    return Orders(row["latest"], row["judging"] or 0, row["judging_at"])


async def give(connection: Connection, includes_breaches: bool) -> int:
    """Order that open deadlines be worked out anew, and breaches judged anew where that is asked; return the order's number."""
    number = await connection.fetchval(
        "INSERT INTO recount_order (includes_breaches) VALUES ($1) RETURNING order_id",
        includes_breaches,
    )
    return int(number)


async def watch(runtime: Runtime, take: Callable[[Orders], None]) -> None:
    """Give the orders to `take`, now and whenever there is a new one, until the process stops.

    A database that does not answer is asked again: the loop, which needs it more, says so.
    """
    known: Orders | None = None
    while not runtime.stopping.is_set():
        try:
            async with runtime.pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                found = await read(connection)
        except DRIVER_ERRORS as error:
            log.warning("recount_orders_not_read", error=type(error).__name__)
        else:
            if found != known:
                take(found)
            if known is not None and found != known:
                log.info("recount_ordered", order=found.latest, judging=found.judging)
            known = found
        await pause(runtime.stopping, WATCH_SECONDS)
