"""`routing.yaml` and `agents.yaml`: their form, what must fit together in them, and the policy made of both. Of `sla.yaml`,
which is not ours, only the names of its policies are read.

`assemble` refuses what names something that does not exist; `check` looks for what exists and cannot work; `build`,
which the service uses, refuses the errors among those too. Warnings never keep a service from starting.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.messages import MessageKind
from schemas.sla import TargetKind
from schemas.tickets import Desk
from services.router.core import requirement as requirements
from services.router.core.requirement import Requirement, SkillNeed
from services.router.core.rules import Condition, Rule, fold, spaced_words
from services.router.core.terms import Drain, Guard, Lending, Strategy, Terms, Weights

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


class Finding(NamedTuple):
    """Something `check` found. `level` is `error` (refused at start) or `warning`."""

    level: Literal["error", "warning"]
    file: str
    path: str
    message: str


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


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy in force. `version` is what every decision records."""

    version: str
    routing: RoutingModel
    rules: tuple[Rule, ...]
    agents: Mapping[str, AgentModel] | None = None
    escalation_skills: tuple[SkillNeed, ...] | None = None
    reopen_window: timedelta = field(default=timedelta())
    terms: Terms = field(default_factory=lambda: Terms(offer_seconds=30))
    """What assignment goes by."""

    @property
    def offers(self) -> OffersModel:
        """How offers are made."""
        return self.routing.offers

    def queue(self, name: str) -> QueueModel | None:
        """Return a queue's desk and domain, or None where there is no such queue."""
        return self.routing.queues.get(name)

    def cost(self, channel: str) -> int:
        """Return how much of a capacity a ticket of this channel takes."""
        costs = self.routing.costs
        return costs.get(channel, costs["default"])

    def language(self, detected: str | None) -> str:
        """Return the language to answer in: the detected one if it is served, else the default."""
        return detected if detected in self.routing.languages else self.routing.default_language

    def agent_name(self, agent_id: str) -> str:
        """Return the name to sign with, empty where the roster's file has none."""
        known = (self.agents or {}).get(agent_id)
        return known.name if known is not None else ""


def build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    """Make the policy of the parsed files.

    Raises:
        PolicyMistake: something is named that does not exist, or cannot work.
    """
    del folder
    policy = assemble(parsed, version)
    sla: SlaNamesModel | None = parsed.get(SLA_FILE)
    if sla is not None:
        _check_sla_names(policy.routing, sla)
    for finding in check(policy):
        if finding.level == "error":
            value = finding.path.rpartition(".")[2]
            raise PolicyMistake(finding.file, finding.path, value, finding.message)
    return policy


def assemble(parsed: Mapping[str, Any], version: str) -> Policy:
    """Make a policy whose names all resolve, be it useful or not.

    Raises:
        PolicyMistake: something is named that does not exist.
    """
    routing: RoutingModel = parsed[ROUTING_FILE]
    roster: AgentsModel | None = parsed.get(AGENTS_FILE)
    _check_names(routing)
    if roster is not None:
        _check_agents(routing, roster)
    skills = routing.escalation.skills
    return Policy(
        version=version,
        routing=routing,
        rules=tuple(_compile(rule, routing) for rule in routing.rules),
        agents=roster.agents if roster is not None else None,
        escalation_skills=None if skills is None else _needs(skills, routing),
        reopen_window=timedelta(hours=routing.reopen.window_hours),
        terms=terms(routing.offers, routing.assignment),
    )


def terms(offers: OffersModel, assignment: AssignmentModel) -> Terms:
    """Return what assignment goes by."""
    drain = assignment.drain
    weights = assignment.weights
    return Terms(
        offer_seconds=offers.seconds,
        max_declines=offers.max_declines,
        away_after_misses=offers.away_after_misses,
        strategy=assignment.strategy,
        strategies=dict(assignment.strategies),
        weights=Weights(weights.load, weights.levels, weights.scarcity),
        aging=dict(assignment.aging_seconds),
        lending={
            queue: Lending(model.open_at, model.close_at, model.lenders)
            for queue, model in assignment.lending.items()
        },
        guards={
            queue: Guard(model.on_at, model.off_at) for queue, model in assignment.guards.items()
        },
        drain=None if drain is None else Drain(drain.cost, drain.after_seconds),
        wrap_up=dict(assignment.wrap_up_seconds),
    )


def _known(file: str, path: str, value: str, allowed: Iterable[str], what: str) -> None:
    if value not in allowed:
        raise PolicyMistake(
            file, path, value, f"no such {what}; known: {', '.join(sorted(allowed))}"
        )


def _check_names(routing: RoutingModel) -> None:
    _known(
        ROUTING_FILE, "default_language", routing.default_language, routing.languages, "language"
    )
    if "default" not in routing.costs:
        raise PolicyMistake(
            ROUTING_FILE, "costs.default", None, "is required: other channels cost this"
        )
    for name, queue in routing.queues.items():
        _known(ROUTING_FILE, f"queues.{name}.domain", queue.domain, routing.domains, "domain")
    _check_assignment(routing)
    for skill in routing.relaxation.skill_seconds:
        path = f"relaxation.skill_seconds.{skill}"
        _known(ROUTING_FILE, path, skill, routing.skills, "skill")
    names: set[str] = set()
    for index, rule in enumerate(routing.rules):
        _check_rule(routing, f"rules.{index}", rule, names)
    escalation = routing.escalation
    _known(ROUTING_FILE, "escalation.to_queue", escalation.to_queue, routing.queues, "queue")
    for skill in escalation.skills or {}:
        _known(ROUTING_FILE, f"escalation.skills.{skill}", skill, routing.skills, "skill")


def _check_assignment(routing: RoutingModel) -> None:
    assignment = routing.assignment
    for queue in assignment.strategies:
        path = f"assignment.strategies.{queue}"
        _known(ROUTING_FILE, path, queue, routing.queues, "queue")
    for queue in assignment.guards:
        _known(ROUTING_FILE, f"assignment.guards.{queue}", queue, routing.queues, "queue")
    for queue, lending in assignment.lending.items():
        path = f"assignment.lending.{queue}"
        _known(ROUTING_FILE, path, queue, routing.queues, "queue")
        for lender in lending.lenders:
            _known(ROUTING_FILE, f"{path}.lenders", lender, routing.queues, "queue")
            if lender == queue or routing.queues[lender].domain != routing.queues[queue].domain:
                raise PolicyMistake(
                    ROUTING_FILE,
                    f"{path}.lenders",
                    lender,
                    f"must be another queue of the domain {routing.queues[queue].domain}",
                )


def _check_rule(routing: RoutingModel, path: str, rule: RuleModel, names: set[str]) -> None:
    if rule.name in names:
        raise PolicyMistake(ROUTING_FILE, f"{path}.name", rule.name, "is the name of two rules")
    names.add(rule.name)
    _known(ROUTING_FILE, f"{path}.then.queue", rule.then.queue, routing.queues, "queue")
    for skill in rule.then.skills:
        _known(ROUTING_FILE, f"{path}.then.skills.{skill}", skill, routing.skills, "skill")
    for language in rule.when.language:
        _known(ROUTING_FILE, f"{path}.when.language", language, routing.languages, "language")


def _check_sla_names(routing: RoutingModel, sla: SlaNamesModel) -> None:
    for index, rule in enumerate(routing.rules):
        path = f"rules.{index}.then.sla_policy"
        _known(ROUTING_FILE, path, rule.then.sla_policy, sla.policies, f"policy in {SLA_FILE}")


def _check_agents(routing: RoutingModel, roster: AgentsModel) -> None:
    for agent_id, agent in roster.agents.items():
        path = f"agents.{agent_id}"
        _known(AGENTS_FILE, f"{path}.domain", agent.domain, routing.domains, "domain")
        for queue in agent.queues:
            _known(AGENTS_FILE, f"{path}.queues", queue, routing.queues, "queue")
            if routing.queues[queue].domain != agent.domain:
                raise PolicyMistake(
                    AGENTS_FILE,
                    f"{path}.queues",
                    queue,
                    f"belongs to the domain {routing.queues[queue].domain}, the agent to {agent.domain}",
                )
        for skill in agent.skills:
            _known(AGENTS_FILE, f"{path}.skills.{skill}", skill, routing.skills, "skill")
        for language in agent.languages:
            path_language = f"{path}.languages.{language}"
            _known(AGENTS_FILE, path_language, language, routing.languages, "language")


def _needs(skills: Mapping[str, SkillModel], routing: RoutingModel) -> tuple[SkillNeed, ...]:
    defaults = routing.relaxation.skill_seconds
    return tuple(
        SkillNeed(
            name,
            asked.level,
            None if asked.required else asked.relax_after_seconds or defaults.get(name),
        )
        for name, asked in sorted(skills.items())
    )


def _compile(rule: RuleModel, routing: RoutingModel) -> Rule:
    when, then = rule.when, rule.then
    return Rule(
        name=rule.name,
        when=Condition(
            channel=frozenset(when.channel),
            account=frozenset(when.account),
            language=frozenset(when.language),
            kind=frozenset(when.kind),
            is_verified=when.verified,
            is_automatic=when.is_automatic,
            subject_contains=tuple(map(fold, when.subject_contains)),
            text_contains=tuple(map(fold, when.text_contains)),
            contains=tuple(map(fold, when.contains)),
            words=tuple(spaced_words(fold(words)) for words in when.words),
        ),
        queue=then.queue,
        priority=then.priority,
        sla_policy=then.sla_policy,
        requirement=Requirement(
            language_level=then.language.level,
            language_relax_after=(
                then.language.relax_after_seconds or routing.relaxation.language_seconds
            ),
            skills=_needs(then.skills, routing),
        ),
        is_language_asked=then.language.asked,
        cost=then.cost,
    )


def check(policy: Policy) -> tuple[Finding, ...]:
    """Return what cannot work (errors) or will hardly be meant (warnings), in the order of the files."""
    return (
        *_check_order(policy),
        *_check_patience(policy),
        *_check_escalation(policy),
        *(() if policy.agents is None else _check_roster(policy, policy.agents)),
    )


def _check_order(policy: Policy) -> Iterable[Finding]:
    for index, rule in enumerate(policy.rules):
        path = f"rules.{index}"
        before = next((r for r in policy.rules[:index] if r.when.covers(rule.when)), None)
        if before is not None and before.when.is_catch_all:
            yield Finding(
                "error",
                ROUTING_FILE,
                path,
                f"{rule.name!r} is never reached: {before.name!r} before it has no conditions",
            )
        elif before is not None:
            yield Finding(
                "warning",
                ROUTING_FILE,
                path,
                f"{rule.name!r} is never reached: {before.name!r} matches all that it does",
            )
        kinds = rule.when.kind
        if rule.when.is_automatic or (kinds and kinds <= {"auto_reply", "bounce"}):
            yield Finding(
                "warning",
                ROUTING_FILE,
                path,
                f"{rule.name!r} is never reached: automatic messages open no tickets",
            )
    if not policy.rules[-1].when.is_catch_all:
        yield Finding(
            "error",
            ROUTING_FILE,
            f"rules.{len(policy.rules) - 1}",
            "the last rule must have no conditions, so that every message goes somewhere",
        )


def _patience_of(rule: Rule) -> Iterable[tuple[str, float]]:
    for need in rule.requirement.skills:
        if need.relax_after is not None:
            yield f"skills.{need.skill}", need.relax_after
    if rule.is_language_asked and rule.requirement.language_relax_after is not None:
        yield "language", rule.requirement.language_relax_after


def _check_patience(policy: Policy) -> Iterable[Finding]:
    for index, rule in enumerate(policy.rules):
        for what, seconds in _patience_of(rule):
            if seconds < policy.offers.seconds:
                yield Finding(
                    "warning",
                    ROUTING_FILE,
                    f"rules.{index}.then.{what}",
                    f"relaxes after {seconds:g} s, before one offer of {policy.offers.seconds:g} s has ended",
                )


def _check_escalation(policy: Policy) -> Iterable[Finding]:
    target = policy.routing.queues[policy.routing.escalation.to_queue]
    if target.desk != "technical":
        yield Finding(
            "error",
            ROUTING_FILE,
            "escalation.to_queue",
            "is not a queue of the technical desk, so an escalation would not go up",
        )


def _can_take(agent: AgentModel, queue: str, asked: Requirement, cost: int) -> bool:
    return (
        queue in agent.queues
        and agent.capacity >= cost
        and not requirements.shortfalls(asked, agent.languages, agent.skills)
    )


def _check_roster(policy: Policy, agents: Mapping[str, AgentModel]) -> Iterable[Finding]:
    for queue in policy.routing.queues:
        if not any(queue in agent.queues for agent in agents.values()):
            yield Finding(
                "warning", ROUTING_FILE, f"queues.{queue}", "nobody in agents.yaml serves it"
            )
    for skill in policy.routing.skills:
        if not any(skill in agent.skills for agent in agents.values()):
            yield Finding(
                "warning", ROUTING_FILE, f"skills.{skill}", "nobody in agents.yaml has it"
            )
    largest = max((agent.capacity for agent in agents.values()), default=0)
    for channel, cost in policy.routing.costs.items():
        if cost > largest:
            yield Finding(
                "warning",
                ROUTING_FILE,
                f"costs.{channel}",
                f"costs {cost}, more than anyone in agents.yaml can carry ({largest})",
            )
    for index, rule in enumerate(policy.rules):
        cost = _dearest(policy, rule)
        lacking = [
            language
            for language in (policy.routing.languages if rule.is_language_asked else ("",))
            if not any(
                _can_take(agent, rule.queue, _hardest(rule, language or None), cost)
                for agent in agents.values()
            )
        ]
        if lacking:
            where = f" in {', '.join(lacking)}" if rule.is_language_asked else ""
            yield Finding(
                "warning",
                ROUTING_FILE,
                f"rules.{index}",
                f"nobody in agents.yaml could ever take a ticket of {rule.name!r}{where}",
            )


def _dearest(policy: Policy, rule: Rule) -> int:
    if rule.cost is not None:
        return rule.cost
    return max(policy.cost(channel) for channel in rule.when.channel or ("default",))


def _hardest(rule: Rule, language: str | None) -> Requirement:
    asked = Requirement(
        language,
        rule.requirement.language_level,
        rule.requirement.language_relax_after,
        rule.requirement.skills,
    )
    return requirements.required_for_ever(asked)
