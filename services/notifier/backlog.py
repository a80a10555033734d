"""What waits: for a person, for its time, for a provider. Looked at every half minute, and whether anything leaves at all.

Owns the gauges of what is open, from the table of notices, and the loud word of a dry run: in the log when it begins, goes on
and ends, at `/health/ready`, and as a series.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Final

from chassis import logs
from chassis.clock import monotonic, pause
from chassis.ledger import DATABASE_ERRORS
from chassis.lifecycle import Runtime
from chassis.stage import Connection
from services.notifier.core.policy import Policy
from services.notifier.metrics import DRY_RUN, OLDEST_UNSENT, OVERDUE, UNRESOLVED

LOOK_SECONDS: Final = 30.0
"""How often the table is looked at."""

REMIND_SECONDS: Final = 900.0
"""How often the log repeats that nothing leaves."""

UNRESOLVED_FOR: Final = timedelta(days=3)
"""So long a notice of unknown fate counts as waiting for a person; after that nobody will send it again."""

_UNRESOLVED: Final = """
SELECT status, count(*) AS count FROM notice
 WHERE status IN ('failed', 'unknown') AND settled_at > clock_timestamp() - $1::interval GROUP BY status
"""
_OVERDUE: Final = """
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - deferred_until)), 0)::float8 AS oldest, count(*) AS count
  FROM notice WHERE deferred_until < clock_timestamp() - interval '1 minute'
"""
_UNSENT: Final = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - min(requested_at)), 0)::float8
  FROM notice WHERE status = 'requested' AND deferred_until IS NULL
"""

log = logs.get("notifier.backlog")


class Backlog:
    """Keeps the gauges, and says what is rehearsed. `policy` returns the one in force."""

    def __init__(self, policy: Callable[[], Policy]) -> None:
        self._policy = policy
        self._rehearsed: tuple[str, ...] = ()
        self._reminded = 0.0

    async def watch(self, runtime: Runtime) -> None:
        """Look until the process stops."""
        runtime.health.add_note("delivery", self.note)
        while not runtime.stopping.is_set():
            self.tell()
            try:
                async with runtime.pool.acquire() as connection:
                    await show(connection)
            except DATABASE_ERRORS as error:
                log.warning("backlog_not_read", error=type(error).__name__)
            await pause(runtime.stopping, LOOK_SECONDS)

    def note(self) -> str | None:
        """Return what `/health/ready` says of it; None where everything is live."""
        found = self._policy().rehearsals()
        if not found:
            return None
        return f"DRY RUN, nothing leaves: {', '.join(found)}"

    def tell(self) -> None:
        """Say that a dry run has begun, that it goes on, or that it is over."""
        found = self._policy().rehearsals()
        DRY_RUN.set(float(bool(found)))
        is_news = found != self._rehearsed
        if found and (is_news or monotonic() - self._reminded >= REMIND_SECONDS):
            self._reminded = monotonic()
            log.warning(
                "dry_run",
                rehearsed=list(found),
                follows="notices are decided, put into words and recorded, and none of these leaves",
                cure="set `delivery: live` in notify.yaml",
            )
        elif is_news:
            log.warning(
                "dry_run_over",
                follows="notices leave from now on; those that were rehearsed do not",
            )
        self._rehearsed = found


async def show(connection: Connection) -> None:
    """Set the gauges by the table as it is."""
    counts = {
        row["status"]: row["count"] for row in await connection.fetch(_UNRESOLVED, UNRESOLVED_FOR)
    }
    for status in ("failed", "unknown"):
        UNRESOLVED.labels(status).set(counts.get(status, 0))
    overdue = await connection.fetchrow(_OVERDUE)
    assert overdue is not None, "an aggregate has a row"
    OVERDUE.set(overdue["count"])
    OLDEST_UNSENT.labels("deferred").set(overdue["oldest"])
    OLDEST_UNSENT.labels("requested").set(await connection.fetchval(_UNSENT))
