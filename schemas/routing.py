"""`routing-work` (tickets asks assignment for a person) and `routing` (assignment says who, and why)."""

from typing import Any, ClassVar, Literal

from schemas.payload import Field, Id, Instant, Part, Payload
from schemas.topics import ROUTING, ROUTING_WORK

_TICKET: dict[str, Any] = {
    "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
}


class SkillNeed(Part):
    """A skill a ticket needs and how well; after `relax_after_seconds` of waiting the need falls away (None: never)."""

    skill: Id
    level: int = Field(default=1, ge=1, le=10)
    relax_after_seconds: float | None = None


class RelaxStep(Part):
    """From `after_seconds` of waiting, or after a share (0 to 1) of the time left to the target, less is asked.

    `levels` are new, lower ones; `drop` skills asked no more; `language` whether the language is not either; `queues` whose
    agents are asked as well. A step comes after the one before it.
    """

    after_seconds: float | None = None
    share_of_time_left: float | None = Field(default=None, ge=0, le=1)
    levels: dict[str, int] = Field(default_factory=dict)
    drop: tuple[str, ...] = ()
    language: bool = False
    queues: tuple[str, ...] = ()


class Requirement(Part):
    """What the person must bring: a language (None: any) and skills at levels, and which skills they must not have.

    `also_queues` are asked beside the ticket's own. With `moves_on_miss` an offer that is declined or runs out takes the
    next of `steps` at once; the deadlines of later steps, counted from when the ticket began to wait, stay.
    """

    language: str | None = None
    language_level: int = Field(default=1, ge=1, le=10)
    language_relax_after_seconds: float | None = None
    skills: tuple[SkillNeed, ...] = ()
    forbidden: tuple[str, ...] = ()
    also_queues: tuple[Id, ...] = ()
    steps: tuple[RelaxStep, ...] = ()
    moves_on_miss: bool = False


class WorkRequested(Payload):
    """A ticket needs a person. `entered_at` is when it first began to wait; a requeue keeps it, so age is kept.

    `work_id` names this request of the ticket (one per stay in the queue), `cost` is how much of an agent's capacity
    it takes, `preferred_agent_id` who had it last. A lower `priority` number is served earlier (1 urgent … 4 low).
    Age decides the order; the patience of `requirement` is counted from `relax_from` (None: from `entered_at`), which
    is later where others are asked than before, as after an escalation, or where the customer was waited for.

    `channel` counts against the agents' limits by channel, `due_at` is the target that decides the order within a priority
    (None: a day after entry). For `hold_seconds` the ticket waits for the preferred agent alone, as long as they are there.

    Where nobody is preferred, whoever last accepted a ticket of `customer_id` in this domain, on whatever channel, is. The
    ticket waits for them alone for `known_patience_seconds`, halved for each `known_half_life_seconds` since then.
    With `transfer` it is the preferred agent's at once, whatever their queues and skills: "direct" if they are there and
    have room, else `TransferRefused` is told and it waits as any other; "forced" above their capacity too, which the
    assignment then says.
    """

    TYPE: ClassVar[str] = "work.requested.v1"
    TOPIC: ClassVar[str] = ROUTING_WORK.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "domain": "main",
        "work_id": "w1",
        "queue": "service",
        "priority": 3,
        "cost": 20,
        "requirement": {
            "language": "en",
            "skills": [{"skill": "orders", "level": 3, "relax_after_seconds": 60}],
        },
        "entered_at": "2026-11-24T08:00:01Z",
        "reason": "opened",
        "policy_version": "a1b2c3d4e5f6",
    }

    domain: Id
    work_id: Id
    ticket_id: Id
    conversation_id: Id
    queue: Id
    priority: int = Field(default=3, ge=1, le=4)
    cost: int = Field(default=10, ge=0)
    requirement: Requirement = Requirement()
    entered_at: Instant
    relax_from: Instant | None = None
    preferred_agent_id: Id | None = None
    excluded_agent_ids: tuple[Id, ...] = ()
    channel: str = ""
    due_at: Instant | None = None
    hold_seconds: float | None = Field(default=None, ge=0)
    customer_id: Id | None = None
    known_patience_seconds: float = Field(default=0, ge=0)
    known_half_life_seconds: float = Field(default=0, ge=0)
    transfer: Literal["", "direct", "forced"] = ""
    reason: str = ""
    rule: str = ""
    policy_version: str = ""


class WorkWithdrawn(Payload):
    """A ticket needs nobody any more (solved, pending on the customer, escalated): leave the queue, free the agent."""

    TYPE: ClassVar[str] = "work.withdrawn.v1"
    TOPIC: ClassVar[str] = ROUTING_WORK.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "domain": "main",
        "work_id": "w1",
        "reason": "solved",
    }

    domain: Id
    work_id: Id
    ticket_id: Id
    conversation_id: Id
    reason: str


class Excluded(Part):
    """Why an agent was not chosen: the complete set of rules that stood against them."""

    agent_id: Id
    rules: tuple[str, ...]


class DecisionRecord(Part):
    """How a choice was made: rule and policy, what was asked after relaxation, who was fit, who was not and why.

    `excluded` spells out everyone in a small domain. In a large one `codes` has a byte for each agent who could take the
    ticket but for the moment, in the order of their places, base64: 1 absent, 2 capacity, 4 wrap-up, 8 channel, 16 kept
    free for another ticket, 32 declined, 64 excluded, 128 off shift; with `codes_of` "all" a byte for each place. Who cannot take it at
    all, and why, follows from the roster of `roster_version`. `via` is "spill" where other teams were asked, `spill` whether
    they may be ("", "closed", "open"), `lenders` which they are (only with codes), `guarded` the queues that lend nobody now, `held_for` whom the ticket waits for.
    `step` steps were taken, the next comes at `next_step_at`; `promoted_at` is when the ticket had waited too long.
    `known_agent` had the customer before (`known_from`: "" named by the request, "customer" remembered here), and
    `known_agent_rules` is every rule by which the ticket does not wait for them: empty where it does or they were chosen.
    """

    rule: str = ""
    policy_version: str = ""
    queue: Id
    requirement: Requirement
    relaxed: tuple[str, ...] = ()
    candidates: tuple[str, ...] = ()
    excluded: tuple[Excluded, ...] = ()
    chosen_by: str = ""
    scores: tuple[int, ...] = ()
    via: str = "home"
    step: int = 0
    next_step_at: Instant | None = None
    promoted_at: Instant | None = None
    held_for: Id | None = None
    spill: str = ""
    lenders: tuple[Id, ...] = ()
    guarded: tuple[Id, ...] = ()
    roster_version: str = ""
    codes: str = ""
    codes_of: str = ""
    known_agent: Id | None = None
    known_from: str = ""
    known_agent_rules: tuple[str, ...] = ()


class RoutingEvent(Payload):
    """A fact about one ticket's way to a person."""

    ticket_id: Id
    conversation_id: Id
    work_id: Id


class TicketQueued(RoutingEvent):
    """A ticket waits in a queue, since nobody fit is free. `record` says why nobody."""

    TYPE: ClassVar[str] = "routing.queued.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "queue": "service",
        "at": "2026-11-24T08:00:01Z",
        "record": {
            "queue": "service",
            "requirement": {"language": "en"},
            "excluded": [{"agent_id": "ada", "rules": ["capacity"]}],
        },
    }

    queue: Id
    at: Instant
    is_matchable: bool = True
    record: DecisionRecord | None = None


class OfferMade(RoutingEvent):
    """A ticket is reserved for one agent until `expires_at`; where a queue asks several at once, each has an offer."""

    TYPE: ClassVar[str] = "routing.offered.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "domain": "main",
        "reservation_id": "6512bd43-d9ca-56e0-82c9-90b0a82652dc",
        "agent_id": "ada",
        "queue": "service",
        "offered_at": "2026-11-24T08:00:01Z",
        "expires_at": "2026-11-24T08:00:31Z",
        "waited_seconds": 0.4,
        "cost": 20,
        "record": {
            "queue": "service",
            "requirement": {"language": "en"},
            "candidates": ["ada"],
            "chosen_by": "longest_idle",
        },
    }

    domain: Id
    reservation_id: Id
    agent_id: Id
    queue: Id
    offered_at: Instant
    expires_at: Instant
    waited_seconds: float
    cost: int = 0
    record: DecisionRecord | None = None


AssignedHow = Literal["accepted", "auto", "direct", "forced"]


class TicketAssigned(RoutingEvent):
    """The ticket is an agent's: they `accepted`, or are not asked (`auto`), or it was transferred (`direct`, `forced`).

    `overfull`: it is above what the agent can carry, which only a forced transfer does.
    """

    TYPE: ClassVar[str] = "routing.assigned.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "reservation_id": "6512bd43-d9ca-56e0-82c9-90b0a82652dc",
        "agent_id": "ada",
        "queue": "service",
        "assigned_at": "2026-11-24T08:00:09Z",
    }

    reservation_id: Id
    agent_id: Id
    queue: Id
    assigned_at: Instant
    how: AssignedHow = "accepted"
    overfull: bool = False


RequeueReason = Literal[
    "offer_declined",
    "offer_expired",
    "agent_away",
    "agent_removed",
    "agent_vanished",
    "shift_ended",
]


class TicketRequeued(RoutingEvent):
    """An offer came to nothing, or the assignee is gone: the ticket waits again, at its old place."""

    TYPE: ClassVar[str] = "routing.requeued.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "queue": "service",
        "agent_id": "ada",
        "reason": "offer_expired",
        "at": "2026-11-24T08:00:31Z",
        "declines": 1,
    }

    queue: Id
    agent_id: Id
    reason: RequeueReason
    at: Instant
    declines: int = 0


WithdrawReason = Literal[
    "offer_declined",
    "offer_expired",
    "agent_away",
    "agent_removed",
    "agent_vanished",
    "shift_ended",
    "taken_by_other",
    "work_ended",
]


class OfferWithdrawn(RoutingEvent):
    """One of several offers of a ticket has ended, and the ticket does not wait because of it.

    Another agent took it (`taken_by_other`) or is still asked; `declines` is how often this agent refused or missed it.
    """

    TYPE: ClassVar[str] = "routing.offer_withdrawn.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "queue": "service",
        "agent_id": "grace",
        "reservation_id": "7647966b-7343-5048-8268-0f2f5b0f5a3e",
        "reason": "taken_by_other",
        "at": "2026-11-24T08:00:09Z",
    }

    queue: Id
    agent_id: Id
    reservation_id: Id
    reason: WithdrawReason
    at: Instant
    declines: int = 0


class OfferAnswerRefused(RoutingEvent):
    """An agent's accept or decline came too late, twice, or was not theirs to give.

    `winner_id` has the ticket now, since `winner_at`.
    """

    TYPE: ClassVar[str] = "routing.answer_refused.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "agent_id": "ada",
        "reservation_id": "6512bd43-d9ca-56e0-82c9-90b0a82652dc",
        "reason": "reservation_expired",
        "at": "2026-11-24T08:00:32Z",
        "winner_id": None,
    }

    agent_id: Id
    reservation_id: Id
    reason: Literal["reservation_expired", "reservation_unknown", "not_yours", "ticket_unknown"]
    at: Instant
    winner_id: Id | None = None
    winner_at: Instant | None = None


class WorkReleased(RoutingEvent):
    """An agent's capacity is free again, since the ticket needs them no more."""

    TYPE: ClassVar[str] = "routing.released.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "agent_id": "ada",
        "reason": "solved",
        "at": "2026-11-24T09:00:00Z",
    }

    agent_id: Id | None
    reason: str
    at: Instant


class RequirementRelaxed(RoutingEvent):
    """Nobody fit was free in time, so less is asked from now on. The ticket keeps its place."""

    TYPE: ClassVar[str] = "routing.relaxed.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "queue": "service",
        "relaxed": ["orders"],
        "at": "2026-11-24T08:01:01Z",
    }

    queue: Id
    relaxed: tuple[str, ...]
    at: Instant


class AssignmentExhausted(RoutingEvent):
    """Everyone who could take it has declined as often as is allowed: a person must look."""

    TYPE: ClassVar[str] = "routing.exhausted.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "queue": "service",
        "at": "2026-11-24T08:05:00Z",
    }

    queue: Id
    at: Instant


class TransferRefused(RoutingEvent):
    """A direct transfer to an agent was asked for and they may not have the ticket now; it waits for whoever can.

    `reason` is the first of the rules that stand against it, in the words of a record's `excluded`; `rules` all of them.
    """

    TYPE: ClassVar[str] = "routing.transfer_refused.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "queue": "service",
        "agent_id": "ada",
        "reason": "capacity",
        "rules": ["capacity"],
        "at": "2026-11-24T08:05:00Z",
    }

    queue: Id
    agent_id: Id
    reason: str
    rules: tuple[str, ...] = ()
    at: Instant


class QueueOverloaded(RoutingEvent):
    """A ticket came to wait in a queue that is too long: `length` tickets wait with it, more than `threshold`.

    Told once for each ticket that comes while it is, never for those that waited before.
    """

    TYPE: ClassVar[str] = "routing.overloaded.v1"
    TOPIC: ClassVar[str] = ROUTING.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_TICKET,
        "work_id": "w1",
        "queue": "service",
        "length": 101,
        "threshold": 100,
        "at": "2026-11-24T08:05:00Z",
    }

    queue: Id
    length: int
    threshold: int
    at: Instant
