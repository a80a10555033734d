"""A task, its work in a parcel, and a batch of it: what the loop carries from a poll to its commit."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar

from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2

from chassis.bus import Record
from chassis.deadletters import ParkedRecord
from chassis.errors import InvalidEvent
from chassis.lanes import EffectQueue
from chassis.ledger import Overlay, Position, TimerRow, Walk
from chassis.relay import Relay
from chassis.stage import Effect, EffectDone, Input, Revisit
from chassis.timers import TimerHeap
from schemas.envelope import Envelope, EnvelopeError
from schemas.payload import Payload

S = TypeVar("S")


@lru_cache(maxsize=65_536)
def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a key, as Kafka's own clients choose it (murmur2)."""
    return (int(murmur2(key.encode())) & 0x7FFFFFFF) % partitions


class TaskState(StrEnum):
    """Where a task is in its short life."""

    ACQUIRING = "acquiring"
    OWNED = "owned"
    HALTED = "halted"
    LOST = "lost"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Task(Generic[S]):
    """Partition n of the stage's topics, in one epoch."""

    number: int
    generation: int
    partitions: tuple[TopicPartition, ...]
    state: TaskState = TaskState.ACQUIRING
    epoch: int = 0
    position: Position = field(default_factory=Position)
    states: dict[str, S] = field(default_factory=dict)
    timers: TimerHeap = field(default_factory=TimerHeap)
    walk: Walk = field(default_factory=Walk)
    parked_keys: dict[str, list[str]] = field(default_factory=dict)
    """Keys with records set aside and not resolved, and the dead letters' ids, oldest first."""
    log_start: dict[str, int] = field(default_factory=dict)
    looked_again: dict[str, int] = field(default_factory=dict)
    known_holes: dict[str, int] = field(default_factory=dict)
    """Topics with missing offsets that the log itself has left out, by the first of them."""
    is_held: bool = False
    """Whether its partitions are paused for a reason that a shorter outbox does not end."""
    relay: Relay | None = None
    effects: EffectQueue = field(default_factory=EffectQueue)
    effects_running: dict[str, str] = field(default_factory=dict)
    """Keys with an effect under way, and which one."""
    effects_withdrawn: set[str] = field(default_factory=set)
    """Of those that wait: when their turn comes they are not done."""
    results: deque[EffectDone] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    is_throttled: bool = False
    superseded: set[str] = field(default_factory=set)
    """Ids that sources told and forgot by a restore; told again, they are duplicates."""


@dataclass(frozen=True, slots=True)
class Reread:
    """A source has begun a new incarnation on `topic`; of its old ones, what lies above these sequences is forgotten."""

    topic: str
    stream: str
    forgotten: dict[str, int]


Item: TypeAlias = Record | TimerRow | EffectDone | ParkedRecord | Effect | Revisit | Walk
"""A record to admit, a timer that is due, an effect's result, a parked record to replay, an effect to begin, a key to
decide again, and how far that has come."""

Place: TypeAlias = tuple[str, int]
"""Where a record lies in its partition: plain topic and offset."""


@dataclass(slots=True)
class Notes:
    """What admitting records has shown, for when they are admitted again in pieces."""

    opened: dict[Place, tuple[Envelope, bytes] | EnvelopeError] = field(default_factory=dict)
    decoded: dict[Place, tuple[Payload, str] | InvalidEvent] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    """Topics with an offset missing, and the first one behind it: it is being asked for again."""
    holes: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    """Of those, the ones that were asked for again in vain: the log itself is to be looked at."""
    bare: set[Place] = field(default_factory=set)
    """Records that not even a dead letter can hold: only where they lie is written down."""


@dataclass(slots=True, eq=False)
class Parcel(Generic[S]):
    """What a task is to do now, as it came; `batch` of it may be made more than once, and of parts of it."""

    task: Task[S]
    items: Sequence[Item]
    notes: Notes = field(default_factory=Notes)
    is_piece: bool = False
    is_ended: bool = False
    """Whether its batch stopped before a record: at a gap, or at a source that was restored."""
    refusals: int = 0
    conflicts: int = 0
    """How often it came to nothing as it is."""

    def part(self, start: int, end: int) -> "Parcel[S]":
        """Return a part of it, which is a parcel too."""
        return Parcel(self.task, self.items[start:end], self.notes, is_piece=True)


@dataclass(slots=True)
class Batch(Generic[S]):
    """One task's part of a poll or of a turn of the pump."""

    task: Task[S]
    overlay: Overlay[S]
    inputs: list[tuple[Input, Record | ParkedRecord | TimerRow | None]] = field(
        default_factory=list
    )
    halt: dict[str, Any] | None = None
    reread: Reread | None = None
    hole: tuple[str, int, int] | None = None
    deciding: int | None = None
    """Which of the inputs is being decided; None while records are admitted."""
    parked_keys: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Keys with a record set aside in this very batch: the first input behind it, and the dead letter's id."""
    resolves: dict[int, str] = field(default_factory=dict)
    started: list[Effect] = field(default_factory=list)
    n_after_parked: int = 0
    """Inputs whose events follow a record set aside; counted for good once the batch is stored."""
