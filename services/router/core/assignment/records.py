"""The records of a routing domain beside its agents: what is stored, and what a domain is made of when it is read.

None of them can be part of a cycle, and a domain has hundreds of thousands, so the garbage collector does not follow them.
"""

from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from msgspec import Struct

from services.router.core.assignment.requirement import Requirement
from services.router.core.assignment.times import micros

PRESUMED_TARGET = timedelta(days=1)
"""The target of work whose own is not known, counted from entry: it places such work among the rest."""

PROMOTED_TO = 1
"""The priority of work that was promoted for having waited too long."""

Status = Literal["waiting", "offered", "assigned", "ended"]


class Lease(Struct, frozen=True, gc=False):
    """An offer that stands beside the first of the same work."""

    agent_id: str
    reservation_id: str


class RosterChange(Struct, frozen=True, gc=False):
    """What an agent can do from a version of the roster on; `place` -1: they have left."""

    version: str
    agent_id: str
    place: int
    queues: tuple[str, ...] = ()
    skills: dict[str, int] = {}
    languages: dict[str, int] = {}


class Known(Struct, frozen=True, gc=False):
    """Who took a customer's ticket last, and when."""

    customer_id: str
    agent_id: str
    at: datetime


class Work(Struct, gc=False):
    """A ticket's request for a person. `effective` is what it still asks after `step` steps and all that fell away.

    `agent_id` is the assignee while offered or assigned, and who had it last once ended. `declines` counts refused and
    missed offers by agent. Age is counted from `entered_at`, patience from `relax_from` (None: from `entered_at`); a
    requeue keeps both. `due_at` is the SLA target. While `hold_until` is set, only the preferred agent is asked.
    `promoted_at` is when it had waited too long; `is_ripe` whether someone may be kept free for it, `kept_free` who is.
    `wrap_until` is until when ended work takes its agent's capacity, `is_untold` whether its waiting was not told yet.
    Where several agents are asked at once, `others` are those beside `agent_id`; all their offers end at `expires_at`.
    `known_from` says how the preferred agent is known: "customer" from this domain's memory, "request" by the request.
    """

    work_id: str
    ticket_id: str
    conversation_id: str
    queue: str
    priority: int
    cost: int
    requirement: Requirement
    effective: Requirement
    entered_at: datetime
    relax_from: datetime | None = None
    preferred_agent_id: str | None = None
    excluded: tuple[str, ...] = ()
    rule: str = ""
    policy_version: str = ""
    status: Status = "waiting"
    relaxed: tuple[str, ...] = ()
    agent_id: str | None = None
    reservation_id: str | None = None
    expires_at: datetime | None = None
    attempts: int = 0
    declines: dict[str, int] = {}
    last_declined: str | None = None
    is_exhausted: bool = False
    is_told_unmatchable: bool = False
    ended_at: datetime | None = None
    channel: str = ""
    due_at: datetime | None = None
    hold_until: datetime | None = None
    step: int = 0
    promoted_at: datetime | None = None
    is_ripe: bool = False
    kept_free: str | None = None
    wrap_until: datetime | None = None
    is_untold: bool = False
    others: tuple[Lease, ...] = ()
    assigned_at: datetime | None = None
    customer_id: str | None = None
    known_from: str = ""
    is_overfull: bool = False

    @property
    def leases(self) -> tuple[Lease, ...]:
        """The offers or the assignment that take somebody's capacity, the best first."""
        if self.agent_id is None or self.status not in _LIVE:
            return ()
        return (Lease(self.agent_id, self.reservation_id or ""), *self.others)

    def agent_of(self, reservation_id: str) -> str | None:
        """Return to whom an offer that stands was made, or whose the assignment is; None: it does not stand."""
        if self.reservation_id == reservation_id:
            return self.agent_id
        found = (lease for lease in self.others if lease.reservation_id == reservation_id)
        return next((lease.agent_id for lease in found), None)

    @property
    def key(self) -> "WorkKey":
        """Sorts work: urgent first, then by target, then old first, then by id.

        A promotion replaces priority and target both: with its old target promoted work would stay where it was.
        """
        entered = micros(self.entered_at)
        if self.promoted_at is not None:
            return WorkKey(PROMOTED_TO, micros(self.promoted_at), entered, self.work_id)
        due = micros(self.due_at) if self.due_at is not None else entered + _PRESUMED
        return WorkKey(self.priority, due, entered, self.work_id)

    @property
    def patient_from(self) -> datetime:
        """From when the patience of the requirement counts."""
        return self.relax_from or self.entered_at

    def is_barred(self, agent_id: str, max_declines: int) -> bool:
        """Whether this work is closed to an agent whoever they are: excluded, or refused too often."""
        return agent_id in self.excluded or self.declines.get(agent_id, 0) >= max_declines

    @property
    def has_bars(self) -> bool:
        """Whether it may be closed to anyone in particular."""
        return bool(self.excluded or self.declines)


_PRESUMED = PRESUMED_TARGET // timedelta(microseconds=1)
_LIVE = frozenset({"offered", "assigned"})


class Switches(Struct):
    """Which queues borrow agents, which lend none, which are too long: what depends on how it came about, and so is stored.

    A queue is `guarding` while it is `crowded` (many wait) or `at_risk` (a target is near).
    """

    spilling: set[str] = set()
    guarding: set[str] = set()
    crowded: set[str] = set()
    at_risk: set[str] = set()
    overloaded: set[str] = set()


class WorkKey(NamedTuple):
    """Place in the one order of all waiting work; the instants are microseconds since 1970."""

    level: int
    due: int
    entered: int
    work_id: str
