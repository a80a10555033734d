"""What the service remembers of a conversation: its tickets, and each ticket's clocks.

Owns the shape of the state and its invariants; the rules stand in `targets` and `decide`. All
instants are UTC.
"""

from datetime import datetime, timedelta
from typing import Final, get_args

import msgspec

from schemas.sla import TargetKind
from services.sla.core.stopwatch import Stopwatch
from services.sla.core.timeline import Timeline

KINDS: Final[tuple[TargetKind, ...]] = get_args(TargetKind)
"""The targets, in the order in which they are started and told."""

RESPONSES: Final[tuple[TargetKind, ...]] = ("first_response", "next_response", "later_response")
"""The targets of messages that wait for an answer."""

PROMISES: Final[tuple[TargetKind, ...]] = ("periodic_update", "callback")
"""The targets that a person's word may set, to an instant of its own."""

ROUTING_KINDS: Final[tuple[TargetKind, ...]] = ("time_to_offer", "time_to_accept")
"""The targets of a ticket's way to a person."""

PASSING: Final[tuple[TargetKind, ...]] = (*ROUTING_KINDS, "tier")
"""The targets of one stay somewhere: where it ended, another stay has a clock of its own."""

WALL: Final = "24/7"
"""The calendar of calendar time: open at every instant, and there without being written down."""


class Running(msgspec.Struct, frozen=True, tag="running"):
    """The clock runs. `warn_at` is gone once the warning was told, or where none is wanted."""

    due_at: datetime
    warn_at: datetime | None = None


class Paused(msgspec.Struct, frozen=True, tag="paused"):
    """The clock stands. `due_at` and `warn_at` are there only if they fell before the pause."""

    due_at: datetime | None = None
    warn_at: datetime | None = None


class Met(msgspec.Struct, frozen=True, tag="met"):
    """What was promised was done at `at`, before the deadline or after it; `elapsed` is the open time that it took."""

    at: datetime
    due_at: datetime | None
    elapsed: timedelta | None = None


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """The promise was of no use any more at `at`, for `reason`."""

    at: datetime
    reason: str
    due_at: datetime | None


Phase = Running | Paused | Met | Cancelled

_OPEN: Final = (Running, Paused)
"""The phases of a clock whose promise is still to be kept; a pair, since a union is made anew whenever it is asked."""


class Breach(msgspec.Struct, frozen=True):
    """A breach that was told and stands: the deadline, and when it was noticed."""

    breached_at: datetime
    detected_at: datetime


class Terms(msgspec.Struct, frozen=True):
    """What a clock is held to: since when it counts, the open time it has, the part that makes a warning."""

    started_at: datetime
    allowed: timedelta
    warn_after: timedelta | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a ticket owes for a case that was merged into it.

    `waiting` are the instants of that case's messages that nobody has answered, in order; `lent` the terms that the
    case's own promises come to, by the clock of this ticket that has to keep them as well; `begun` the clocks that were
    started here for that case's promises alone.
    """

    merge_id: str
    conversation_id: str
    waiting: tuple[datetime, ...] = ()
    lent: dict[str, Terms] = {}
    begun: tuple[str, ...] = ()


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One clock. Its identity stays the same through its life.

    `allowed` is the open time it has, `warn_after` the part of it that makes a warning. `pauses_on`
    names the causes that hold it. `priority` is the one whose rule it goes by (None: started before that was kept).
    `own` are the terms that it would have without the cases that were merged into the ticket (None: it has those).
    `is_promise`: a person named its deadline, and no rule moves it; `not_before` is when keeping it begins to count.
    `tier` is the tier whose budget it measures. `carried` is how much more (or less) open time its calendar has counted than was
    spent: other calendars counted before it. `looks` are the shares of its time at which its risk is still to be worked
    out, `look_at` the instant of the first.
    """

    target_id: str
    kind: TargetKind
    policy: str
    policy_version: str
    calendar: str
    allowed: timedelta
    warn_after: timedelta | None
    pauses_on: tuple[str, ...]
    watch: Stopwatch
    phase: Phase
    is_warned: bool = False
    breach: Breach | None = None
    priority: int | None = None
    own: Terms | None = None
    is_promise: bool = False
    not_before: datetime | None = None
    tier: str = ""
    carried: timedelta = timedelta(0)
    looks: tuple[float, ...] = ()
    look_at: datetime | None = None

    @property
    def elapsed(self) -> timedelta | None:
        """The open time that it took to do what was promised; None where it was not done."""
        return self.phase.elapsed if isinstance(self.phase, Met) else None

    @property
    def terms(self) -> Terms:
        """What it is held to now."""
        return Terms(self.watch.started_at, self.allowed, self.warn_after)

    @property
    def own_terms(self) -> Terms:
        """What it would be held to for the ticket alone."""
        return self.own or self.terms

    @property
    def is_open(self) -> bool:
        """Whether the promise is still to be kept, in time or late."""
        return isinstance(self.phase, _OPEN)

    @property
    def status(self) -> str:
        """`running`, `paused`, `breached` (and still open), `met` or `cancelled`."""
        phase = self.phase
        if isinstance(phase, _OPEN):
            if self.breach is not None:
                return "breached"
            return "running" if isinstance(phase, Running) else "paused"
        return "met" if isinstance(phase, Met) else "cancelled"

    @property
    def due_at(self) -> datetime | None:
        """The deadline: of an open target as things stand, of a settled one as it was."""
        return self.phase.due_at

    @property
    def settled_at(self) -> datetime | None:
        """When it was met or cancelled."""
        phase = self.phase
        return None if isinstance(phase, _OPEN) else phase.at


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the rules of `sla.yaml` may ask of a ticket, as it was told last; empty where nothing was told.

    `desk` is the one that the ticket was opened at: its queue says where it is now.
    """

    queue: str = ""
    channel: str = ""
    account: str = ""
    language: str = ""
    customer_tier: str = ""
    contract: str = ""
    desk: str = ""
    tags: tuple[str, ...] = ()


class Held(msgspec.Struct, frozen=True, array_like=True):
    """The ticket waited for somebody else, whom `cause` names, from `since` to `until` (None: it does)."""

    cause: str
    since: datetime
    until: datetime | None = None


class Offer(msgspec.Struct, frozen=True, array_like=True):
    """An agent who is asked, and since when."""

    agent_id: str
    offered_at: datetime


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ticket's present stay on its way to a person.

    `began` is the earliest instant that was told of it (None: that was not kept), `since` the latest; `offers` are those that stand, by instant. `has_waited`: its time to the
    first offer was counted, or is. `is_taken`: somebody has it. `past` names the stays before, whose stragglers change nothing.
    """

    work_id: str
    since: datetime
    began: datetime | None = None
    has_waited: bool = False
    is_taken: bool = False
    offers: tuple[Offer, ...] = ()
    past: tuple[str, ...] = ()


class Early(msgspec.Struct, frozen=True, kw_only=True):
    """A fact of assignment that came before the ticket that it is about, and how long it is kept for it.

    `type` is the event's, `data` its payload as JSON, without the record of how the choice was made.
    """

    type: str
    ticket_id: str
    at: datetime
    data: str
    until: datetime


class Ticket(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One case.

    `policy` is the one that routing named; it, `priority` and `facts` choose the rules of every clock that is yet to start. `waiting` holds
    the instants of the customer's messages that nobody has answered, in order, without the one
    that opened the ticket and without those of `sources`, the cases that were merged into it.
    `is_first_settled` says that a first response is no longer owed: given, or the case was solved without. `is_aside`
    says that nothing is owed at present: it is solved, spam or merged. `causes` hold the ticket now, `held` says which did and
    when, the latest few dozen, so that a clock that begins or comes back late stands where it would have stood. `answered_at` is
    the instant of the latest answer. `spent` is the
    resolution time of finished clocks, `tier_spent` what each tier has used of its budget. `work` is its way to a person,
    `unrouted_at` since when nobody is sought for it (None: somebody is, or has it). `targets` are the latest of each kind and all whose breach stands, by start.
    `timeline` says where it stood and since when.
    """

    ticket_id: str
    number: int
    policy: str
    priority: int
    opened_at: datetime
    is_first_settled: bool = False
    answered_at: datetime | None = None
    is_aside: bool = False
    causes: tuple[str, ...] = ()
    held: tuple[Held, ...] = ()
    waiting: tuple[datetime, ...] = ()
    spent: timedelta = timedelta(0)
    counts: dict[str, int] = {}
    targets: tuple[Target, ...] = ()
    sources: tuple[Source, ...] = ()
    facts: Facts = Facts()
    tier_spent: dict[str, timedelta] = {}
    work: Work | None = None
    unrouted_at: datetime | None = None
    timeline: Timeline = Timeline()

    def __post_init__(self) -> None:
        kinds: set[str] = set()
        for target in self.targets:
            if not isinstance(target.phase, _OPEN):
                continue
            if target.kind in kinds:
                raise ValueError(f"ticket {self.ticket_id} has two open clocks of one kind")
            kinds.add(target.kind)

    @property
    def queue(self) -> str:
        """Where it waits, or waited last; empty where that was not told."""
        return self.facts.queue

    @property
    def channel(self) -> str:
        """The channel of the message that opened it; empty where that was not told."""
        return self.facts.channel

    @property
    def owed(self) -> tuple[datetime, ...]:
        """The instants of all messages that nobody has answered, its own and its sources', in order."""
        lent = (at for source in self.sources for at in source.waiting)
        return tuple(sorted({*self.waiting, *lent}))

    def open_target(self, kind: TargetKind) -> Target | None:
        """The target of `kind` that is still to be kept."""
        for target in self.targets:
            if target.kind == kind and isinstance(target.phase, _OPEN):
                return target
        return None

    def latest(self, kind: TargetKind) -> Target | None:
        """The target of `kind` that was started last."""
        for target in reversed(self.targets):
            if target.kind == kind:
                return target
        return None


class Conversation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The tickets of a conversation that are not closed, by number; and what came early, by its instant.

    `recounted` is the number of the last order to recount breaches that was carried out here (0: none).
    """

    conversation_id: str
    tickets: tuple[Ticket, ...]
    early: tuple[Early, ...] = ()
    recounted: int = 0

    def ticket(self, ticket_id: str) -> Ticket | None:
        """The ticket of that id."""
        for ticket in self.tickets:
            if ticket.ticket_id == ticket_id:
                return ticket
        return None
