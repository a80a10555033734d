"""`sla`: the clocks. A target starts, may pause, warns, and ends met, breached or cancelled."""

from typing import Any, ClassVar, Literal, cast

from pydantic import ConfigDict

from schemas.payload import Field, Id, Instant, Part, Payload
from schemas.topics import SLA

TargetKind = Literal[
    "first_response",
    "next_response",
    "later_response",
    "periodic_update",
    "callback",
    "time_to_offer",
    "time_to_accept",
    "tier",
    "resolution",
]
"""What is promised, in the order in which it is told."""

_TARGET: dict[str, Any] = {
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "target_id": "t-1",
    "target": "first_response",
    "policy": "standard",
    "policy_version": "a1b2c3d4e5f6",
    "queue": "service",
    "channel": "email",
    "priority": 3,
}


class SlaEvent(Payload):
    """A fact about one clock of one ticket. `target_id` stays the same through pauses and warnings.

    `queue`, `channel` and `priority` are the ticket's as they were told last (empty and None: not known), `tier` names the
    tier of the operational agreement that the clock is for, with the target `tier` alone. `is_clamped`: an instant in the
    future was heard of, and what it did is dated when it was heard of.
    """

    __slots__ = ("_json",)

    ticket_id: Id
    conversation_id: Id
    target_id: Id
    target: TargetKind
    policy: Id
    policy_version: str = ""
    queue: str = ""
    channel: str = ""
    priority: int | None = None
    tier: str = ""
    is_clamped: bool = False

    def to_json(self) -> bytes:
        """Return the payload as UTF-8 JSON; made once, since the topic has it and the history of the clock as well."""
        try:
            return cast(bytes, object.__getattribute__(self, "_json"))
        except AttributeError:
            made = super().to_json()
            # The event is frozen, and this is no field of it: what is equal stays equal.
            object.__setattr__(self, "_json", made)
            return made


class TargetStarted(SlaEvent):
    """A clock runs: due at `due_at` if nothing pauses it, with a warning at `warn_at`."""

    TYPE: ClassVar[str] = "sla.started.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "started_at": "2026-11-24T08:00:00Z",
        "due_at": "2026-11-24T12:00:00Z",
        "warn_at": "2026-11-24T11:00:00Z",
        "seconds": 14400.0,
    }

    started_at: Instant
    due_at: Instant
    warn_at: Instant | None
    seconds: float


class TargetPaused(SlaEvent):
    """The clock stands, waiting on someone else."""

    TYPE: ClassVar[str] = "sla.paused.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "paused_at": "2026-11-24T09:00:00Z",
        "cause": "pending",
    }

    paused_at: Instant
    cause: str


class TargetResumed(SlaEvent):
    """The clock runs again; the new deadline keeps the time spent."""

    TYPE: ClassVar[str] = "sla.resumed.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "resumed_at": "2026-11-24T10:00:00Z",
        "due_at": "2026-11-24T13:00:00Z",
        "warn_at": None,
    }

    resumed_at: Instant
    due_at: Instant
    warn_at: Instant | None


class TargetRetargeted(SlaEvent):
    """The clock is held to another deadline from now on; the time spent is kept, and it is the same clock.

    `reason` is `priority_changed`, `queue_changed`, `customer_changed` or `tags_changed` (the rules of `policy_version` have
    another target for the ticket as it is now), `promise_changed` (a person named another instant), `absorbed` (a case with an
    older promise was merged into the ticket) or `split_off` (it stands on its own again), `calendar_changed` or
    `policy_changed`. It counts from `started_at` and has `seconds` of open time; what it was held to before stands in
    `before_due_at`, `before_seconds`, `before_policy` and `before_policy_version`. A deadline is None while the clock stands. One that is past is broken at once, as of its
    instant.
    """

    TYPE: ClassVar[str] = "sla.retargeted.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "at": "2026-11-24T09:00:00Z",
        "reason": "priority_changed",
        "before_due_at": "2026-11-24T12:00:00Z",
        "before_seconds": 14400.0,
        "before_policy": "standard",
        "before_policy_version": "a1b2c3d4e5f6",
        "due_at": "2026-11-24T10:00:00Z",
        "warn_at": "2026-11-24T09:36:00Z",
        "started_at": "2026-11-24T08:00:00Z",
        "seconds": 7200.0,
    }

    at: Instant
    reason: str
    before_due_at: Instant | None
    due_at: Instant | None
    warn_at: Instant | None
    started_at: Instant
    seconds: float
    before_seconds: float | None = None
    before_policy: str = ""
    before_policy_version: str = ""


class TargetAtRisk(SlaEvent):
    """The promise is in danger, and there is still time to act.

    `cause`: a `share` of the time is gone, or the `probability` that the answer comes after the deadline, worked out from
    the state of the queue and from past waits, is what the policy takes for a risk.
    """

    TYPE: ClassVar[str] = "sla.at_risk.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "at": "2026-11-24T11:00:00Z",
        "due_at": "2026-11-24T12:00:00Z",
    }

    at: Instant
    due_at: Instant
    cause: Literal["share", "probability"] = "share"
    probability: float | None = Field(default=None, ge=0, le=1)


class TargetBreached(SlaEvent):
    """The deadline passed without the answer. `breached_at` is the deadline, `detected_at` when we saw it."""

    TYPE: ClassVar[str] = "sla.breached.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "breached_at": "2026-11-24T12:00:00Z",
        "detected_at": "2026-11-24T12:00:00.004Z",
    }

    breached_at: Instant
    detected_at: Instant


class TargetMet(SlaEvent):
    """The answer came; `elapsed_seconds` is open, unpaused time; `was_breached` if it came too late."""

    TYPE: ClassVar[str] = "sla.met.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "met_at": "2026-11-24T08:12:00Z",
        "elapsed_seconds": 720.0,
        "was_breached": False,
    }

    met_at: Instant
    elapsed_seconds: float
    was_breached: bool


class TargetCancelled(SlaEvent):
    """The clock is of no use any more (solved without an answer owed, closed, not promised at the new priority)."""

    TYPE: ClassVar[str] = "sla.cancelled.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "at": "2026-11-24T09:00:00Z",
        "reason": "solved",
    }

    at: Instant
    reason: str


RetractionReason = Literal["in_time", "split_off", "calendar_changed"]


class BreachRetracted(SlaEvent):
    """An answer that was given before the deadline arrived late: the breach never was.

    Nor was it this ticket's where the case whose promise was broken is split off again; `answered_at` is then the deadline.
    Where a recomputation was ordered that takes in breaches (`calendar_changed`), the deadline is another one by the calendar as
    it is now, and `answered_at` is the old one, too.
    """

    TYPE: ClassVar[str] = "sla.breach_retracted.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "breached_at": "2026-11-24T12:00:00Z",
        "answered_at": "2026-11-24T11:58:00Z",
        "at": "2026-11-24T12:03:00Z",
    }

    breached_at: Instant
    answered_at: Instant
    at: Instant
    reason: RetractionReason = "in_time"


class QueueTime(Part):
    """How a target's time that was neither closed nor paused was spent in one queue, in milliseconds."""

    queue: str
    queue_ms: int = Field(ge=0)
    offer_ms: int = Field(ge=0)
    work_ms: int = Field(ge=0)


class TimeAttributed(Payload):
    """Where the time between `started_at` and `ended_at` went; told when a first response or a resolution has ended.

    A ticket that is solved is told as a whole as well (`target` is `ticket`, `target_id` the ticket's), from its opening, unless
    its resolution ran as long. The five shares add up to `elapsed_ms`: `closed_ms` outside opening hours (of `calendar`), else
    `pause_ms` while the clock was held, else `work_ms` while somebody had the ticket, `offer_ms` while it was offered
    and nobody had taken it, `queue_ms` while it waited for either. `by_queue` splits the last three; all but the first queues of a
    ticket that went through many are one entry, `other`. A clock that ran on after it was cancelled is told again when it ends.
    """

    TYPE: ClassVar[str] = "sla.attributed.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "calendar": "shop",
        "outcome": "met",
        "was_breached": False,
        "started_at": "2026-11-24T08:00:00Z",
        "ended_at": "2026-11-24T08:12:00Z",
        "queue_ms": 60000,
        "offer_ms": 9000,
        "work_ms": 591000,
        "pause_ms": 60000,
        "closed_ms": 0,
        "elapsed_ms": 720000,
        "by_queue": [{"queue": "service", "queue_ms": 60000, "offer_ms": 9000, "work_ms": 591000}],
    }

    ticket_id: Id
    conversation_id: Id
    target_id: Id
    target: Literal[TargetKind, "ticket"]
    policy: Id
    policy_version: str = ""
    queue: str = ""
    channel: str = ""
    priority: int | None = None
    calendar: str = ""
    outcome: Literal["met", "cancelled", "solved"]
    was_breached: bool = False
    started_at: Instant
    ended_at: Instant
    queue_ms: int = Field(ge=0)
    offer_ms: int = Field(ge=0)
    work_ms: int = Field(ge=0)
    pause_ms: int = Field(ge=0)
    closed_ms: int = Field(ge=0)
    elapsed_ms: int = Field(ge=0)
    by_queue: tuple[QueueTime, ...] = ()


class PromiseWording(Part):
    """A promise in the words people use, for any language: `within` so many `minutes`, or `by` a `time` of a `day`.

    `minutes` is given with `within` alone. `day` is "today", "tomorrow" or a local date ("2026-11-27"), `time` a local time
    "HH:MM" in `timezone`: "12:00" is noon, "24:00" the end of the day. Both are given with `within` too, for those who would rather say the hour.
    """

    kind: Literal["within", "by"]
    minutes: int | None = Field(default=None, ge=1)
    day: str
    time: str
    timezone: str = ""


class CallbackSlot(Part):
    """A stretch of opening hours in which we can call, from `from` to before `to`."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", serialize_by_alias=True, validate_by_name=True
    )

    starts_at: Instant = Field(alias="from")
    ends_at: Instant = Field(alias="to")


class WaitPromised(Payload):
    """What a customer can honestly be told about the wait: by `by`, `share` of such tickets were answered.

    Told once when a ticket is opened, and again when it is reopened. `seconds` is open time on the calendar, measured waits
    rounded up to words people use; without enough of them `by`, `seconds` and `wording` are None and nothing is to be said.
    `kept_share` is the share of the measured waits (`samples` of them) that ended within `seconds`, 0 without a promise;
    `basis` says which waits those were, `estimates_version` which snapshot. `ahead` tickets were to be served first, and the
    queue's correction is `factor`. `is_after_hours`: it came while nobody works, and `opens_at` is when they do again;
    `callback_slots` are then on offer. `target_id` is the clock that measures it.
    """

    TYPE: ClassVar[str] = "sla.promised.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
        "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
        "target_id": "t-1",
        "at": "2026-11-24T08:00:00Z",
        "queue": "service",
        "channel": "email",
        "by": "2026-11-24T08:45:00Z",
        "seconds": 2700.0,
        "wording": {
            "kind": "within",
            "minutes": 45,
            "day": "today",
            "time": "11:45",
            "timezone": "Europe/Istanbul",
        },
        "kept_share": 0.93,
        "samples": 212,
        "share": 0.9,
        "basis": "hour",
        "ahead": 4,
        "factor": 1.06,
        "is_after_hours": False,
        "opens_at": None,
        "callback_slots": [],
        "estimates_version": "5b1d0c7e9a42",
        "policy_version": "a1b2c3d4e5f6",
    }

    ticket_id: Id
    conversation_id: Id
    target_id: str = ""
    at: Instant
    queue: str
    channel: str
    by: Instant | None
    seconds: float | None
    wording: PromiseWording | None
    kept_share: float = Field(ge=0, le=1)
    samples: int = Field(ge=0)
    share: float = Field(default=0.9, gt=0, lt=1)
    basis: Literal["hour", "part", "channel", "queue", "none"] = "none"
    ahead: int = Field(default=0, ge=0)
    factor: float = Field(default=1.0, gt=0)
    is_after_hours: bool
    opens_at: Instant | None
    callback_slots: tuple[CallbackSlot, ...] = ()
    estimates_version: str = ""
    policy_version: str = ""


AnySlaEvent = (
    TargetStarted
    | TargetPaused
    | TargetResumed
    | TargetRetargeted
    | TargetAtRisk
    | TargetBreached
    | TargetMet
    | TargetCancelled
    | BreachRetracted
    | TimeAttributed
)
