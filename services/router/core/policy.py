"""The policy made of `routing.yaml` and `agents.yaml`, ready to decide by.

`assemble` refuses what names something that does not exist; `check` looks for what exists and cannot work; `build`,
which the service uses, refuses the errors among those too. Warnings never keep a service from starting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from services.router.core.policy_check import check, check_names
from services.router.core.policy_model import (
    AGENTS_FILE,
    ROUTING_FILE,
    SLA_FILE,
    AgentModel,
    AgentsModel,
    AssignmentModel,
    OffersModel,
    PolicyMistake,
    QueueModel,
    RoutingModel,
    RuleModel,
    SkillModel,
    SlaNamesModel,
)
from services.router.core.requirement import Requirement, SkillNeed
from services.router.core.rules import Condition, Rule, fold, spaced_words
from services.router.core.terms import Drain, Guard, Lending, Terms, Weights


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
    sla: SlaNamesModel | None = parsed.get(SLA_FILE)
    check_names(routing, roster, sla)
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
