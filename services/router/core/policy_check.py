"""What is wrong with policy files: what names things that do not exist, and what exists and cannot work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from services.router.core import requirement as requirements
from services.router.core.policy_model import (
    AGENTS_FILE,
    ROUTING_FILE,
    SLA_FILE,
    AgentModel,
    AgentsModel,
    PolicyMistake,
    RoutingModel,
    RuleModel,
    SlaNamesModel,
)
from services.router.core.requirement import Requirement
from services.router.core.rules import Rule

if TYPE_CHECKING:
    from services.router.core.policy import Policy


class Finding(NamedTuple):
    """Something `check` found. `level` is `error` (refused at start) or `warning`."""

    level: Literal["error", "warning"]
    file: str
    path: str
    message: str


def check_names(
    routing: RoutingModel, roster: AgentsModel | None, sla: SlaNamesModel | None
) -> None:
    """Refuse what names something that does not exist.

    Raises:
        PolicyMistake: the first such name.
    """
    _check_names(routing)
    if roster is not None:
        _check_agents(routing, roster)
    if sla is not None:
        _check_sla_names(routing, sla)


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
