"""The two-stage pipeline that the fault tests attack: every part of the chassis, no rule of any service.

Stage A reads `inbound` (foreign events of the driver, not numbered), counts per key, and emits one event to `messages` for
each input, one to `commands` for every third, and sets a timer for every fifth, which emits to `messages` when it fires.
Stage B reads `messages` and `commands`, counts per key, and emits to `tickets`. Run as a process:
`python -m tests.faults.pipeline a|b`, with the usual `SIGNALBOX_…` variables; its schema is `pipeline_a` or `pipeline_b`.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from chassis import lifecycle
from chassis.ledger import DocumentStore
from chassis.settings import Settings
from chassis.stage import Connection, Input, Outcome, Received, Revisit, Stage, Tick
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.topics import COMMANDS, INBOUND, MESSAGES, TICKETS

SQL = Path(__file__).with_name("sql")
REVISION = "SIGNALBOX_TEST_REVISION"
"""The variable that gives stage A a revision."""

TIMER_EVERY = 5
SECOND_EVERY = 3


def visit(key: str, revision: str, walk: int) -> str:
    """Return the name of a visit in the history: a second one in the same walk could not be stored."""
    return f"visit {key} {revision} {walk}"


class Given(Payload):
    """What the driver sends: `n` numbers the inputs of all keys, from 0."""

    TYPE: ClassVar[str] = "test.given.v1"
    TOPIC: ClassVar[str] = INBOUND.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "n": 7, "padding": ""}

    key: str
    n: int
    timer_seconds: float = 2.0
    blow_up: int = 0
    padding: str = ""


class Counted(Payload):
    """Stage A has counted input `n` as the `count`-th of its key."""

    TYPE: ClassVar[str] = "test.counted.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "n": 7, "count": 1, "padding": ""}

    key: str
    n: int
    count: int
    padding: str = ""


class Thirded(Payload):
    """Every third count of a key."""

    TYPE: ClassVar[str] = "test.thirded.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "n": 7, "count": 3}

    key: str
    n: int
    count: int


class Fired(Payload):
    """A timer of stage A has fired."""

    TYPE: ClassVar[str] = "test.fired.v1"
    TOPIC: ClassVar[str] = MESSAGES.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "n": 5, "late_ms": 3.0}

    key: str
    n: int
    late_ms: float


class Summed(Payload):
    """Stage B has seen an event of stage A, the `total`-th of its key."""

    TYPE: ClassVar[str] = "test.summed.v1"
    TOPIC: ClassVar[str] = TICKETS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "k1", "kind": "counted", "n": 7, "total": 12}

    key: str
    kind: str
    n: int
    total: int


class Tally(msgspec.Struct, frozen=True):
    """How many inputs a key has had, and the last ones' numbers."""

    count: int = 0


class Applied(msgspec.Struct, frozen=True):
    """A row of the history: input `name` was applied to `key`, as the `count`-th."""

    name: str
    key: str
    count: int
    late_ms: float | None = None


class TallyStore(DocumentStore[Tally]):
    """Tallies, and a history with a unique name for each input: SQL's own guard against applying twice."""

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Append to the history."""
        await connection.execute(
            "INSERT INTO history (name, key, count, late_ms)"
            " SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::float8[])",
            [row.name for _, row in rows],
            [row.key for _, row in rows],
            [row.count for _, row in rows],
            [row.late_ms for _, row in rows],
        )


class _PipelineStage(Stage[Tally]):
    def key(self, envelope: Envelope, event: Payload) -> str:
        del envelope
        return str(event.key)  # type: ignore[attr-defined]

    def partition_key(self, event: Payload) -> str:
        return str(event.key)  # type: ignore[attr-defined]


class StageA(_PipelineStage):
    """Counts inputs; blows up as often as an input says, to show that a failing decision is parked in the end."""

    name = "pipeline_a"
    topics = (INBOUND,)
    understands = frozenset({Given.TYPE})

    def __init__(self) -> None:
        self.store = TallyStore(self.name, Tally)
        self.present_revision = os.environ.get(REVISION)

    def revision(self) -> str | None:
        """What the tests say: none unless they ask for revisits."""
        return self.present_revision

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        """Count, pass on, set timers; say of a key that it was visited."""
        tally = state or Tally()
        if isinstance(item, Revisit):
            return Outcome(
                state=tally,
                is_changed=False,
                events=(Counted(key=item.key, n=item.walk, count=tally.count),),
                rows=(Applied(visit(item.key, item.revision, item.walk), item.key, tally.count),),
            )
        if isinstance(item, Tick):
            n = int(item.name.removeprefix("fire-"))
            late = (now - item.due_at).total_seconds() * 1000
            return Outcome(
                state=tally,
                is_changed=False,
                events=(Fired(key=item.key, n=n, late_ms=late),),
                rows=(Applied(f"timer {n}", item.key, tally.count, late),),
            )
        assert isinstance(item, Received)
        event = item.event
        assert isinstance(event, Given)
        if event.blow_up:
            raise RuntimeError("the input says so")
        tally = Tally(tally.count + 1)
        events: list[Payload] = [
            Counted(key=event.key, n=event.n, count=tally.count, padding=event.padding)
        ]
        if tally.count % SECOND_EVERY == 0:
            events.append(Thirded(key=event.key, n=event.n, count=tally.count))
        timers = {}
        if event.n % TIMER_EVERY == 0:
            timers[f"fire-{event.n}"] = now + timedelta(seconds=event.timer_seconds)
        return Outcome(
            state=tally,
            events=events,
            timers=timers,
            rows=(Applied(f"input {event.n}", event.key, tally.count),),
        )


class StageB(_PipelineStage):
    """Counts what stage A says."""

    name = "pipeline_b"
    topics = (MESSAGES, COMMANDS)
    understands = frozenset({Counted.TYPE, Thirded.TYPE, Fired.TYPE})

    def __init__(self) -> None:
        self.store = TallyStore(self.name, Tally)

    def decide(self, state: Tally | None, item: Input, now: datetime) -> Outcome[Tally]:
        """Count and say so."""
        del now
        assert isinstance(item, Received)
        tally = Tally((state or Tally()).count + 1)
        event = item.event
        kind = event.TYPE.split(".")[1]
        assert isinstance(event, Counted | Thirded | Fired)
        return Outcome(
            state=tally,
            events=(Summed(key=event.key, kind=kind, n=event.n, total=tally.count),),
            rows=(Applied(f"{kind} {event.n}", event.key, tally.count),),
        )


STAGES: dict[str, type[_PipelineStage]] = {"a": StageA, "b": StageB}


def application(which: str) -> lifecycle.Application:
    """Return one stage as a service of its own."""
    stage = STAGES[which]()
    return lifecycle.Application(service=stage.name, sql=SQL, stages=(stage,))


class PipelineSettings(Settings):
    """Nothing of its own."""


def main(argv: Sequence[str]) -> int:
    """Serve one stage until told to stop."""
    return lifecycle.run(lambda _: application(argv[0]), PipelineSettings, argv[1:])


if __name__ == "__main__":
    asyncio.set_event_loop_policy(None)
    sys.exit(main(sys.argv[1:]))
