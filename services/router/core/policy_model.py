"""The form of `routing.yaml` and `agents.yaml`, and of `sla.yaml`, which is not ours, as far as rules name what stands in it."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.messages import MessageKind
from schemas.sla import TargetKind
from schemas.tickets import Desk
from services.router.core.terms import Strategy

ROUTING_FILE = "routing.yaml"
AGENTS_FILE = "agents.yaml"
SLA_FILE = "sla.yaml"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
Level = Annotated[int, Field(ge=1, le=10)]
Priority = Annotated[int, Field(ge=1, le=4)]
Seconds = Annotated[float, Field(gt=0, le=30 * 86_400)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class PolicyMistake(ValueError):
    """A policy file cannot work. Says which file, which path in it, which value, and what is allowed."""

    def __init__(self, file: str, path: str, value: object, allowed: str) -> None:
        super().__init__(f"{file}: {path}: {value!r}: {allowed}")
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DomainModel(_Model):
    """A set of people and queues that share work; one task decides for it."""

    description: str = ""


class QueueModel(_Model):
    """Where tickets wait: which desk's, in which domain."""

    desk: Desk
    domain: Name = "main"
    description: str = ""


class SkillModel(_Model):
    """A skill asked for. It falls away after `relax_after_seconds`, else as `relaxation` says, unless `required`."""

    level: Level = 1
    relax_after_seconds: Seconds | None = None
    required: bool = False

    @model_validator(mode="after")
    def _one_of_them(self) -> "SkillModel":  # noqa: N804 - mode "after" gets the instance
        if self.required and self.relax_after_seconds is not None:
            raise ValueError(
                "a required skill never relaxes: leave out relax_after_seconds or required"
            )
        return self


class LanguageModel(_Model):
    """How the ticket's language is asked for; `asked: false` lets anyone answer."""

    asked: bool = True
    level: Level = 1
    relax_after_seconds: Seconds | None = None


class WhenModel(_Model):
    """A rule's conditions: all that stand here must hold; of a list, one entry is enough."""

    channel: tuple[Name, ...] = ()
    account: tuple[Text, ...] = ()
    language: tuple[Language, ...] = ()
    kind: tuple[MessageKind, ...] = ()
    verified: bool | None = None
    is_automatic: bool | None = None
    subject_contains: tuple[Text, ...] = ()
    text_contains: tuple[Text, ...] = ()
    contains: tuple[Text, ...] = ()
    words: tuple[Text, ...] = ()


class ThenModel(_Model):
    """What a rule decides. Without `cost` the channel's cost counts."""

    queue: Name
    priority: Priority = 3
    sla_policy: Name = "standard"
    language: LanguageModel = LanguageModel()
    skills: dict[Name, SkillModel] = Field(default_factory=dict)
    cost: Annotated[int, Field(ge=0, le=100_000)] | None = None


class RuleModel(_Model):
    """A named rule; the first that matches decides."""

    name: Text
    when: WhenModel = WhenModel()
    then: ThenModel


class OffersModel(_Model):
    """Offers: how long they stand, how often one agent may refuse one ticket, when misses make an agent away."""

    seconds: Annotated[float, Field(gt=0, le=86_400)]
    max_declines: Annotated[int, Field(ge=1, le=100)] = 3
    away_after_misses: Annotated[int, Field(ge=1, le=100)] | None = 3


class RelaxationModel(_Model):
    """After how many seconds of waiting a skill or the language falls away, where a rule does not say otherwise."""

    skill_seconds: dict[Name, Seconds] = Field(default_factory=dict)
    language_seconds: Seconds | None = None


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
    """A queue lends nobody from when `on_at` of its own tickets wait until `off_at` or fewer do."""

    on_at: Annotated[Count, Field(ge=1)]
    off_at: Count

    @model_validator(mode="after")
    def _lifts_below(self) -> "GuardModel":  # noqa: N804 - mode "after" gets the instance
        if self.off_at >= self.on_at:
            raise ValueError("off_at must be below on_at, or the guard flaps: try off_at: 0")
        return self


class DrainModel(_Model):
    """Tickets that cost `cost` or more and waited `after_seconds` have one agent at a time kept free of other work."""

    cost: Annotated[int, Field(ge=1, le=100_000)]
    after_seconds: Seconds = 60


class AssignmentModel(_Model):
    """Who gets what: how agents are chosen, what waiting too long does, who helps whom, what a channel takes afterwards.

    `aging_seconds` maps a priority to how long its tickets wait before they are promoted to the most urgent. Without it, low
    priorities may wait for ever beside a flood of urgent ones.
    """

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


class TargetAction(_Model):
    """What a clock's event does: hand the ticket to technical support, raise its priority, or both."""

    escalate: bool = False
    raise_priority_to: Priority | None = None

    @model_validator(mode="after")
    def _does_something(self) -> "TargetAction":  # noqa: N804 - mode "after" gets the instance
        if not self.escalate and self.raise_priority_to is None:
            raise ValueError("does nothing: give escalate: true or raise_priority_to")
        return self


class EscalationModel(_Model):
    """From the front line to technical support: where to, what must be known, and when a rule does it.

    Without `skills` the ticket keeps what it asked for; with them, they replace it (the language stays).
    """

    to_queue: Name
    required_facts: tuple[Name, ...] = ()
    raise_priority_to: Priority | None = None
    skills: dict[Name, SkillModel] | None = None
    on_breach: dict[TargetKind, TargetAction] = Field(default_factory=dict)
    on_risk: dict[TargetKind, TargetAction] = Field(default_factory=dict)
    on_exhausted: bool = False


class ReopenModel(_Model):
    """How long a customer's message reopens a solved ticket; later it opens a follow-up."""

    window_hours: Annotated[float, Field(gt=0, le=24 * 365)]


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
    assignment: AssignmentModel = AssignmentModel()
    rules: Annotated[tuple[RuleModel, ...], Field(min_length=1)]
    escalation: EscalationModel
    reopen: ReopenModel


class AgentModel(_Model):
    """An agent as the roster starts with them."""

    name: str = ""
    domain: Name = "main"
    queues: Annotated[tuple[Name, ...], Field(min_length=1)]
    skills: dict[Name, Level] = Field(default_factory=dict)
    languages: dict[Language, Level] = Field(default_factory=dict)
    capacity: Annotated[int, Field(ge=0, le=100_000)]


class AgentsModel(_Model):
    """`agents.yaml`: the roster to start with. Later changes come as events, and those decide."""

    agents: dict[Annotated[str, StringConstraints(pattern=r"^\S{1,200}$")], AgentModel]


class SlaNamesModel(BaseModel):
    """`sla.yaml`, as far as rules name what stands in it. What else it holds is for its owner to judge."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    policies: dict[str, Any]
