"""`sla`: the clocks. A target starts, may pause, warns, and ends met, breached or cancelled."""

from typing import Any, ClassVar, Literal

from schemas.payload import Id, Instant, Payload
from schemas.topics import SLA

TargetKind = Literal["first_response", "next_response", "resolution"]

_TARGET: dict[str, Any] = {
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "target_id": "t-1",
    "target": "first_response",
    "policy": "standard",
    "policy_version": "a1b2c3d4e5f6",
}


class SlaEvent(Payload):
    """A fact about one clock of one ticket. `target_id` stays the same through pauses and warnings."""

    ticket_id: Id
    conversation_id: Id
    target_id: Id
    target: TargetKind
    policy: Id
    policy_version: str = ""


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

    `reason` is `priority_changed` (the policy of `policy_version` has another target for the new priority), `absorbed` (a case
    with an older promise was merged into the ticket) or `split_off` (it stands on its own again). It counts from `started_at`
    and has `seconds` of open time. A deadline is None while the clock stands. One that is past is broken at once, as of its
    instant.
    """

    TYPE: ClassVar[str] = "sla.retargeted.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "at": "2026-11-24T09:00:00Z",
        "reason": "priority_changed",
        "before_due_at": "2026-11-24T12:00:00Z",
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


class TargetAtRisk(SlaEvent):
    """Most of the time is gone and nobody has answered: there is still time to act."""

    TYPE: ClassVar[str] = "sla.at_risk.v1"
    TOPIC: ClassVar[str] = SLA.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TARGET,
        "at": "2026-11-24T11:00:00Z",
        "due_at": "2026-11-24T12:00:00Z",
    }

    at: Instant
    due_at: Instant


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


class BreachRetracted(SlaEvent):
    """An answer that was given before the deadline arrived late: the breach never was.

    Nor was it this ticket's where the case whose promise was broken is split off again; `answered_at` is then the deadline.
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
)
