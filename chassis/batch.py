"""A task and a batch of its work: what the loop carries from a poll to its commit."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Generic, TypeVar

from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2

from chassis.bus import Record
from chassis.deadletters import ParkedRecord
from chassis.ledger import Overlay, Position, TimerRow
from chassis.relay import Relay
from chassis.stage import Effect, EffectDone, Input
from chassis.timers import TimerHeap

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
    parked_keys: dict[str, list[str]] = field(default_factory=dict)
    """Keys with records set aside and not resolved, and the dead letters' ids, oldest first."""
    log_start: dict[str, int] = field(default_factory=dict)
    looked_again: dict[str, int] = field(default_factory=dict)
    known_holes: dict[str, int] = field(default_factory=dict)
    """Topics with missing offsets that the log itself has left out, by the first of them."""
    is_held: bool = False
    """Whether its partitions are paused for a reason that a shorter outbox does not end."""
    relay: Relay | None = None
    effects: deque[Effect] = field(default_factory=deque)
    effects_running: dict[str, str] = field(default_factory=dict)
    """Keys with an effect under way, and which one."""
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
