"""What a service plugs into the loop: a `Stage` decodes, keys, loads, decides and stores; the loop does the rest.

    records ─▶ decode ─▶ key ─▶ load the states ─▶ decide, one after the other ─▶ one transaction ─▶ relay

A stage holds no clock, no connection and no memory of its own. Its `decide` calls the service's pure core and turns the
answer into an `Outcome`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import asyncpg
from pydantic import ValidationError

from chassis.errors import InvalidEvent
from schemas.envelope import Envelope
from schemas.registry import REGISTRY, Payload
from schemas.topics import Topic

S = TypeVar("S")
Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
"""A connection inside the batch's transaction, or one for reading before it."""

REVISIT_KEYS = """
SELECT key FROM state WHERE stage = $1 AND task = $2 AND key > $3 ORDER BY key LIMIT $4
"""

_ESCAPED_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""U+0000 in a JSON string; an even number of backslashes before it are text."""


@dataclass(frozen=True, slots=True)
class Received:
    """A record of a topic, decoded. `cause` names it for derived ids: the event's id, or where it lies in the log."""

    envelope: Envelope
    event: Payload
    key: str
    topic: str
    cause: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A timer is due. `due_at` is when it was meant to fire; `now` of the decision may be later, never earlier.

    One whose decision was given up comes again with a later `due_at`, unless its key has set or cleared it meanwhile.
    """

    key: str
    name: str
    due_at: datetime

    @property
    def cause(self) -> str:
        """The timer's name for derived ids."""
        return f"tick/{self.key}/{self.name}/{self.due_at.isoformat()}"


@dataclass(frozen=True, slots=True)
class Effect:
    """Something to do outside Postgres (a mail, a vendor's call), recorded before it is tried.

    `id` is the idempotency key: the same intent has the same id over all retries. `key` is the state it answers to;
    effects of one key are done in order. `payload` is JSON. `attempt` counts from 1.
    """

    id: str
    key: str
    payload: Mapping[str, Any]
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class EffectResult:
    """What came of an effect: `done`, `failed` (with `is_recoverable`), `unknown` (begun, never heard of again) or `withdrawn`.

    `ref` is the other side's name for what was made, `trouble` the stage's word for what kind of failure it was.
    """

    status: str
    detail: str = ""
    is_recoverable: bool = False
    retry_after: float | None = None
    ref: str = ""
    trouble: str = ""


EffectStanding = Literal["waiting", "begun", "withdrawn"]
"""How an effect stands that is recorded and not settled."""


@dataclass(frozen=True, slots=True)
class EffectDone:
    """An effect's result comes back as an input like any other."""

    effect: Effect
    result: EffectResult

    @property
    def key(self) -> str:
        """The state this belongs to."""
        return self.effect.key

    @property
    def cause(self) -> str:
        """The effect's name for derived ids."""
        return f"effect/{self.effect.id}/{self.effect.attempt}"


@dataclass(frozen=True, slots=True)
class Revisit:
    """What the stage decides by has changed since this key was last decided: decide again what it still depends on.

    `revision` is the stage's present one. A key that was decided under it already is revisited too, and a revision that
    comes back is walked through again: a decision that changes nothing says so. `walk` counts the task's walks.
    """

    key: str
    revision: str
    walk: int = 0

    @property
    def cause(self) -> str:
        """The visit's name for derived ids: no key is visited twice in one walk."""
        return f"revisit/{self.key}/{self.revision}/{self.walk}"


Input = Received | Tick | EffectDone | Revisit


@dataclass(slots=True)
class Outcome(Generic[S]):
    """What an input changed.

    `state` replaces the key's state (None forgets it), unless `is_changed` is false, which saves the write. `events` are
    published in order; their topic is the payload's, their partition key what `Stage.partition_key` says. `timers`
    sets (an instant) or clears (None) the key's timers by name; a timer that fired is gone unless set again. `effects`
    are recorded with the batch and done after it. `withdrawn` names effects that are no longer wanted: one that was not
    begun before is never done, and comes back as `withdrawn`; one that was begun goes on. `rows` go to `Store.save` as they are. `park` sets the record aside
    instead (reason, detail), with everything else in this outcome dropped. `ignored` counts an input that is
    understood and means nothing here, by its reason.
    """

    state: S | None = None
    is_changed: bool = True
    events: Sequence[Payload] = ()
    timers: Mapping[str, datetime | None] = field(default_factory=dict)
    effects: Sequence[Effect] = ()
    withdrawn: Sequence[str] = ()
    rows: Sequence[Any] = ()
    park: tuple[str, str] | None = None
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class Change(Generic[S]):
    """A key's state after the batch (None: forget it), for the store to write."""

    task: int
    key: str
    state: S | None


class Store(Protocol[S]):
    """State ↔ rows. Called inside the batch's transaction for writing, outside it for reading."""

    async def load(self, connection: Connection, task: int, keys: Sequence[str]) -> dict[str, S]:
        """Return the states of those of `keys` that exist."""
        ...

    async def save(
        self, connection: Connection, changes: Sequence[Change[S]], rows: Sequence[tuple[int, Any]]
    ) -> None:
        """Write changed states, and the outcomes' `rows` as (task, row), in order.

        Raises:
            Conflict: a shared row was claimed by another task meanwhile.
        """
        ...


class Stage(Generic[S]):
    """One kind of task of a service. Subclass it in `handlers.py`; see `services/sla/handlers.py` for the shortest one."""

    name: ClassVar[str]
    """`service.stage` or `service`: names the consumer group, the leases and the source of events."""

    topics: ClassVar[tuple[Topic, ...]]
    """What it reads: partition n of each belongs to task n."""

    understands: ClassVar[frozenset[str]]
    """Event types it applies. Others on the same topics are counted as ignored."""

    keeps_state: ClassVar[bool] = True
    """Whether states may be kept in memory between batches: false where rows are shared with other tasks."""

    loads_all: ClassVar[bool] = False
    """Whether `load` is asked once, at acquisition, with no keys, for everything the task has."""

    topology: ClassVar[int] = 1
    """Raised by a release that changes `topics`: processes of the older release then get no lease any more."""

    store: Store[S]

    @property
    def source(self) -> str:
        """The CloudEvents source without the task's number."""
        return f"signalbox/{self.name}"

    def understands_type(self, topic: str, event_type: str) -> bool:
        """Whether an event of that type is for this stage. Foreign types on an open topic may be: override it there."""
        del topic
        return event_type in self.understands

    def decode(self, envelope: Envelope, data: bytes) -> Payload:
        """Read the data of an event of a type in `understands`.

        Raises:
            InvalidEvent: it does not fit the schema; the first wrong field is named, its value never. Or it holds
                U+0000, which PostgreSQL can store in no text and no JSON: the batch could never be committed.
        """
        try:
            event = REGISTRY[envelope.type].model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "data"
            raise InvalidEvent("invalid_payload", f"{where}: {first['msg']}") from None
        if b"\\u0000" in data and _ESCAPED_NUL.search(data):
            where = next((n for n, v in event if "\\x00" in repr(v)), "data")
            raise InvalidEvent("invalid_payload", f"{where}: contains U+0000")
        return event

    def key(self, envelope: Envelope, event: Payload) -> str:
        """Return the key of the state that `event` changes: the conversation's id unless overridden."""
        return str(getattr(event, "conversation_id", "") or envelope.partitionkey)

    def partition_key(self, event: Payload) -> str:
        """Return the key that an emitted event is partitioned by: the conversation's id unless overridden."""
        return str(event.conversation_id)  # type: ignore[attr-defined]

    def revision(self) -> str | None:
        """Return the name of what decisions depend on besides state and input: of a policy, say. None: of nothing yet.

        When it changes, every key that `revisit_keys` names is given to `decide` as a `Revisit`, in slices between
        timers and records. It is asked for often, so it must be cheap; it may contain anything but U+0000.
        """
        return None

    async def revisit_keys(
        self, connection: Connection, task: int, after: str, limit: int
    ) -> Sequence[str]:
        """Return the next keys to revisit: at most `limit`, in order, each greater than `after`; empty at the end.

        By default all documents of the task. A stage that keeps its state elsewhere, or knows which keys a change can
        concern, says so here. The order is the database's own, which alone ever compares two keys.
        """
        rows = await connection.fetch(REVISIT_KEYS, self.name, task, after, limit)
        return [row["key"] for row in rows]

    async def load(
        self, connection: Connection, task: int, inputs: Sequence[Input], missing: Sequence[str]
    ) -> dict[str, S]:
        """Return the states of `missing` keys, read outside the transaction. `inputs` is the whole batch."""
        del inputs
        return await self.store.load(connection, task, missing)

    def decide(self, state: S | None, item: Input, now: datetime) -> Outcome[S]:
        """Apply one input. Pure but for `state`, which may be changed in place where `keeps_state` holds."""
        raise NotImplementedError

    async def perform(self, effect: Effect) -> EffectResult:
        """Do an effect. Answer every way it can end as a result; raise only for bugs."""
        raise NotImplementedError

    def lane(self, effect: Effect) -> str:
        """Return the name of what an effect shares its fate with: the account it goes to, say.

        A task has so many effects of a lane under way at once, and those of a lane that hangs hold up no others. By default all
        are in one.
        """
        del effect
        return ""

    def is_repeatable(self, effect: Effect) -> bool:
        """Whether an effect that was begun and never heard of may be done again (the provider drops repeats by id)."""
        del effect
        return False
