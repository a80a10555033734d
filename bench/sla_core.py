"""What the service's own code costs for each kind of input: the processor time of decisions and of what they write.

Without Kafka and without PostgreSQL: the stage decides, its store puts the rows together for a connection that takes them and
does nothing, and what is told becomes JSON, as the loop would have it. So the figures move with the code of the service alone,
and hardly with what else the machine does.
"""

import asyncio
import gc
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

from bench.sla_world import MOVED, STANDING, WITHIN, opening, write_policy
from chassis.policy import PolicyHolder
from chassis.stage import Change, Connection, Input, Revisit, Tick
from services.sla.core.state import Conversation
from services.sla.handlers import POLICY, TIMER, SlaStage
from services.sla.recount_orders import Orders

BATCH: Final = 250
"""Inputs of one transaction."""

ROUNDS: Final = 9
"""Each figure is the least of so many: the others are what the machine did beside."""

NOW: Final = datetime(2026, 11, 24, 10, tzinfo=UTC)
"""A Tuesday on which the shipped calendars are open."""

_VALUES: Final = re.compile(r"UPDATE|INSERT|DELETE")


class _Sink:
    """A connection that takes every statement, and says that it did as many rows as it was given."""

    async def execute(self, sql: str, *columns: Any) -> str:
        what = _VALUES.search(sql)
        return f"{what.group() if what else 'SELECT'} {len(columns[0]) if columns else 0}"

    async def executemany(self, sql: str, rows: Iterable[Any]) -> None:
        del sql, rows

    async def fetch(self, sql: str, *columns: Any) -> list[Any]:
        del sql, columns
        return []

    async def copy_records_to_table(self, table: str, **given: Any) -> str:
        del table
        return f"COPY {len(given['records'])}"


def measure(count: int = 1_000, policy: str = STANDING) -> dict[str, float]:
    """Return microseconds of processor time for a ticket that opens, a deadline that passes, an open conversation that a changed
    calendar moves and one that it leaves alone, by `policy` of the bench's or the shipped folder.
    """
    with tempfile.TemporaryDirectory(prefix="signalbox-bench-policy-") as name:
        folder = Path(name) / "policy"
        write_policy(folder)
        stage = SlaStage(PolicyHolder(folder, POLICY))
        later = NOW + timedelta(minutes=5)
        write_policy(folder, (later, later + timedelta(minutes=5)))
        changed = SlaStage(PolicyHolder(folder, POLICY))
    for one in (stage, changed):
        one.take_orders(Orders())
    return _measured(stage, changed, count, policy)


def _measured(stage: SlaStage, changed: SlaStage, count: int, policy: str) -> dict[str, float]:
    now = NOW
    openings = [opening(f"open-{n:06}", policy, now) for n in range(count)]
    moved = [opening(f"move-{n:06}", MOVED, now - timedelta(hours=1)) for n in range(count)]
    opened_in, states = _least(stage, openings, dict, now)
    _, running = _run(stage, moved, {}, now - timedelta(hours=1))
    after = now + WITHIN + timedelta(hours=4)
    ticks: list[Input] = [Tick(key, TIMER, after) for key in states]
    fire, _ = _least(stage, ticks, lambda: dict(states), after)
    visits: list[Input] = [Revisit(key, "changed") for key in running]
    moving, _ = _least(changed, visits, lambda: dict(running), now)
    staying, _ = _least(stage, visits, lambda: dict(running), now)
    return {
        "cpu_us_open": opened_in,
        "cpu_us_fire": fire,
        "cpu_us_recount": moving,
        "cpu_us_recount_unmoved": staying,
    }


def _least(
    stage: SlaStage,
    inputs: Sequence[Input],
    states: Callable[[], dict[str, Conversation]],
    now: datetime,
) -> tuple[float, dict[str, Conversation]]:
    found = [_run(stage, inputs, states(), now) for _ in range(ROUNDS)]
    return min(found, key=lambda pair: pair[0])


def _run(
    stage: SlaStage, inputs: Sequence[Input], states: dict[str, Conversation], now: datetime
) -> tuple[float, dict[str, Conversation]]:
    """Decide and write the inputs in batches; return the microseconds each, and the states afterwards."""

    async def go() -> None:
        sink = cast(Connection, _Sink())
        for start in range(0, len(inputs), BATCH):
            rows: list[tuple[int, Any]] = []
            changes: dict[str, Change[Conversation]] = {}
            for item in inputs[start : start + BATCH]:
                outcome = stage.decide(states.get(item.key), item, now)
                for event in outcome.events:
                    event.to_json()
                rows.extend((0, row) for row in outcome.rows)
                if outcome.is_changed and outcome.state is not None:
                    states[item.key] = outcome.state
                    changes[item.key] = Change(0, item.key, outcome.state)
            await stage.store.save(sink, list(changes.values()), rows)

    # As in the service, which does not have the collector walk through what it has built at its start.
    gc.collect()
    gc.freeze()
    began = time.process_time()
    asyncio.run(go())
    spent = time.process_time() - began
    gc.unfreeze()
    return spent * 1e6 / len(inputs), states
