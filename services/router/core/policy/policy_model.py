"""The form of `routing.yaml` and `agents.yaml`, and of `sla.yaml`, which is not ours, as far as rules name what stands in it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.feedback import SurveyKind
from schemas.roster import Shift
from schemas.tickets import Desk
from services.router.core.assignment.terms import Strategy
from services.router.core.policy.escalation_model import (
    EscalationModel,
    LifeCycleModel,
    ReopenModel,
)
from services.router.core.policy.rule_model import (
    KnownAgentModel,
    Language,
    Level,
    Name,
    Priority,
    RequirementModel,
    RuleModel,
    Seconds,
)
from services.router.core.policy.rule_model import Model as _Model

ROUTING_FILE = "routing.yaml"
AGENTS_FILE = "agents.yaml"
SLA_FILE = "sla.yaml"


class PolicyMistake(ValueError):
    """A policy file cannot work. Says which file, which path in it, which value, and what is allowed."""

    def __init__(self, file: str, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{file}: {path}: {value!r}: {allowed}")
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


class DomainModel(_Model):
    """A set of people and queues that share work; one task decides for it."""

    description: str = ""


class QueueModel(_Model):
    """Where tickets wait: which desk's, in which domain. `preset` is asked of whoever serves it, beside what a rule asks."""

    desk: Desk
    domain: Name = "main"
    description: str = ""
    preset: RequirementModel | None = Field(
        default=None, examples=["preset: {skills: {api: {level: 3}}, forbidden: [trainee]}"]
    )


class OffersModel(_Model):
    """Offers: how long they stand, how often one agent may refuse one ticket, when misses make an agent away."""

    seconds: Annotated[float, Field(gt=0, le=86_400)]
    max_declines: Annotated[int, Field(ge=1, le=100)] = 3
    away_after_misses: Annotated[int, Field(ge=1, le=100)] | None = 3
    auto_accept: tuple[Name, ...] = Field(default=(), examples=["auto_accept: [service]"])
    parallel: dict[Name, Annotated[int, Field(ge=2, le=5)]] = Field(
        default_factory=dict, examples=["parallel: {technical: 3}"]
    )


class RelaxationModel(_Model):
    """After how many seconds of waiting a skill or the language falls away, where a rule does not say otherwise.

    What is merely `preferred` is asked for `preference_seconds`.
    """

    skill_seconds: dict[Name, Seconds] = Field(default_factory=dict)
    language_seconds: Seconds | None = None
    preference_seconds: Seconds = Field(default=5, examples=["preference_seconds: 5"])


Factor = Annotated[int, Field(ge=0, le=15)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]


class WeightsModel(_Model):
    """What the strategy `weighted` adds up, each times its weight: load in thousandths, lacking levels, scarce skills."""

    load: Factor = 1
    levels: Factor = 10
    scarcity: Factor = 1


class LendingModel(_Model):
    """A queue borrows agents of other queues from when `open_at` of its tickets wait until `close_at` or fewer do."""

    open_at: Annotated[Count, Field(ge=1)]
    close_at: Count
    lenders: Annotated[tuple[Name, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _closes_below(self) -> "LendingModel":  # noqa: N804 - mode "after" gets the instance
        if self.close_at >= self.open_at:
            raise ValueError("close_at must be below open_at, or borrowing flaps: try open_at: 10")
        return self


class GuardModel(_Model):
    """A queue lends nobody from when `on_at` of its own tickets wait until `off_at` or fewer do.

    Nor from when one of them has `risk_seconds` or less left to its target until all have more than `clear_seconds`.
    """

    on_at: Annotated[Count, Field(ge=1)] | None = None
    off_at: Count = 0
    risk_seconds: Seconds | None = None
    clear_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _lifts_below(self) -> "GuardModel":  # noqa: N804 - mode "after" gets the instance
        if self.on_at is None and self.risk_seconds is None:
            raise ValueError("guards nothing: give on_at, risk_seconds or both, such as on_at: 10")
        if self.on_at is not None and self.off_at >= self.on_at:
            raise ValueError("off_at must be below on_at, or the guard flaps: try off_at: 0")
        if self.clear_seconds is not None and (
            self.risk_seconds is None or self.clear_seconds < self.risk_seconds
        ):
            raise ValueError(
                "clear_seconds must be risk_seconds or more, or the guard flaps: "
                "try risk_seconds: 600 with clear_seconds: 900"
            )
        return self


class OverloadModel(_Model):
    """A queue is too long from when more than `at` of its tickets wait until fewer than `clear_below` do.

    Tickets that could ever be taken are counted; each that comes while it is too long is told to say so.
    """

    at: Count
    clear_below: Count

    @model_validator(mode="after")
    def _clears_below(self) -> "OverloadModel":  # noqa: N804 - mode "after" gets the instance
        if self.clear_below > self.at:
            raise ValueError("clear_below must not be above at: try at: 100 with clear_below: 80")
        return self


class InterruptibleModel(_Model):
    """A channel whose tickets may be laid aside: those of the channels named may come on top of a full capacity."""

    interrupted_by: Annotated[tuple[Name, ...], Field(min_length=1)]


class PresenceModel(_Model):
    """Whose program sends heartbeats and has been silent for `heartbeat_seconds` is away, and their offers go to others.

    `return_assigned_after_seconds` later, what they had accepted waits again too; without it, it stays theirs.
    """

    heartbeat_seconds: Annotated[float, Field(ge=1, le=86_400)] | None = Field(
        default=None, examples=["heartbeat_seconds: 30"]
    )
    return_assigned_after_seconds: Seconds | None = None

    @model_validator(mode="after")
    def _hears_before(self) -> "PresenceModel":  # noqa: N804 - mode "after" gets the instance
        if self.return_assigned_after_seconds is not None and self.heartbeat_seconds is None:
            raise ValueError(
                "nobody is missed without heartbeats: give heartbeat_seconds: 30, "
                "or leave out return_assigned_after_seconds"
            )
        return self


class DrainModel(_Model):
    """Tickets that cost `cost` or more and waited `after_seconds` have one agent at a time kept free of other work."""

    cost: Annotated[int, Field(ge=1, le=100_000)]
    after_seconds: Seconds = 60


class AssignmentModel(_Model):
    """Who gets what: how agents are chosen, what waiting too long does, who helps whom, what a channel takes afterwards.

    `aging_seconds` maps a priority to how long its tickets wait before they are promoted to the most urgent. Without it, low
    priorities may wait for ever beside a flood of urgent ones. `on_policy_change` says whether open cases keep what they ask
    (`pin`) or ask what their rule asks now (`reevaluate`).
    """

    on_policy_change: Literal["pin", "reevaluate"] = Field(
        default="pin", examples=["on_policy_change: pin"]
    )
    strategy: Strategy = "longest_idle"
    strategies: dict[Name, Strategy] = Field(default_factory=dict)
    weights: WeightsModel = WeightsModel()
    aging_seconds: dict[Priority, Seconds] = Field(
        default_factory=lambda: {2: 4 * 3600.0, 3: 24 * 3600.0, 4: 72 * 3600.0}
    )
    lending: dict[Name, LendingModel] = Field(default_factory=dict)
    guards: dict[Name, GuardModel] = Field(default_factory=dict)
    drain: DrainModel | None = None
    wrap_up_seconds: dict[Name, Annotated[float, Field(ge=0, le=900)]] = Field(default_factory=dict)
    overload: dict[Name, OverloadModel] = Field(
        default_factory=dict, examples=["overload: {service: {at: 100, clear_below: 80}}"]
    )
    interruptible: dict[Name, InterruptibleModel] = Field(
        default_factory=dict,
        max_length=8,
        examples=["interruptible: {email: {interrupted_by: [voice]}}"],
    )


class FeedbackModel(_Model):
    """What a low answer to a survey does: its case waits in `queue` for a personal look, at least as urgent as `priority`.

    `low` says up to which score an answer is low, where that is another than usual (CSAT 2 of 5, CES 3 of 7, NPS 6 of 10).
    """

    queue: Name
    priority: Priority = 2
    low: dict[SurveyKind, Annotated[int, Field(ge=0, le=10)]] = Field(default_factory=dict)


class RoutingModel(_Model):
    """`routing.yaml`."""

    default_language: Language
    languages: Annotated[tuple[Language, ...], Field(min_length=1)]
    domains: Annotated[dict[Name, DomainModel], Field(min_length=1)]
    queues: Annotated[dict[Name, QueueModel], Field(min_length=1)]
    skills: tuple[Name, ...] = ()
    costs: dict[Name, Annotated[int, Field(ge=0, le=100_000)]]
    offers: OffersModel
    relaxation: RelaxationModel = RelaxationModel()
    known_agent: KnownAgentModel | None = Field(
        default=None, examples=["known_agent: {patience_seconds: 120, half_life_hours: 72}"]
    )
    assignment: AssignmentModel = AssignmentModel()
    presence: PresenceModel = PresenceModel()
    rules: Annotated[tuple[RuleModel, ...], Field(min_length=1)]
    escalation: EscalationModel
    reopen: ReopenModel
    life_cycle: LifeCycleModel = LifeCycleModel()
    feedback: FeedbackModel | None = Field(
        default=None, examples=["feedback: {queue: leads, priority: 2}"]
    )


class AgentModel(_Model):
    """An agent as the roster starts with them."""

    name: Annotated[str, StringConstraints(max_length=200)] = ""
    domain: Name = "main"
    queues: tuple[Name, ...]
    """May be empty, for somebody who comes later; it has to be said."""
    skills: dict[Name, Level] = Field(default_factory=dict)
    languages: dict[Language, Level] = Field(default_factory=dict)
    capacity: Annotated[int, Field(ge=0, le=100_000)]
    channel_limits: dict[Name, Annotated[int, Field(ge=0, le=100_000)]] = Field(
        default_factory=dict
    )
    calendar: Name | None = None
    shifts: tuple[Shift, ...] = ()
    auto_accept: bool = False


class AgentsModel(_Model):
    """`agents.yaml`: the roster to start with. Later changes come as events, and those decide."""

    agents: dict[Annotated[str, StringConstraints(pattern=r"^\S{1,200}$")], AgentModel]


class SlaNamesModel(BaseModel):
    """`sla.yaml`, as far as rules name what stands in it. What else it holds is for its owner to judge."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    policies: dict[str, Any]
