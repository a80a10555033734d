"""What is wrong with policy files: what names things that do not exist, and what exists and cannot work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from msgspec import structs

from schemas.feedback import SCALES
from services.router.core.assignment import requirement as requirements
from services.router.core.assignment.requirement import Requirement
from services.router.core.policy.condition import OneOf
from services.router.core.policy.escalation_check import check_escalation, find_in_escalation
from services.router.core.policy.escalation_skills import with_skills
from services.router.core.policy.findings import Finding
from services.router.core.policy.findings import known as _known
from services.router.core.policy.policy_model import (
    AGENTS_FILE,
    ROUTING_FILE,
    SLA_FILE,
    AgentModel,
    AgentsModel,
    FeedbackModel,
    PolicyMistake,
    RoutingModel,
    SlaNamesModel,
)
from services.router.core.policy.rule_check import check_rules, find_in_patience, find_in_rules
from services.router.core.policy.rules import Rule
from services.router.core.tickets.causes import find_in_causes

if TYPE_CHECKING:
    from services.router.core.policy.policy import Policy


def check_names(
    routing: RoutingModel,
    roster: AgentsModel | None,
    sla: SlaNamesModel | None,
    calendars: Iterable[str] | None = None,
) -> None:
    """Refuse what names something that does not exist. `calendars` are those of `calendars.yaml`, None without one.

    Raises:
        PolicyMistake: the first such name.
    """
    _check_names(routing)
    check_rules(routing, calendars)
    if roster is not None:
        _check_agents(routing, roster)
    if sla is not None:
        _check_sla_names(routing, sla)


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
    check_escalation(routing)
    if routing.feedback is not None:
        _check_feedback(routing, routing.feedback)


def _check_feedback(routing: RoutingModel, feedback: FeedbackModel) -> None:
    _known(ROUTING_FILE, "feedback.queue", feedback.queue, routing.queues, "queue")
    if routing.queues[feedback.queue].desk != "service":
        raise PolicyMistake(
            ROUTING_FILE,
            "feedback.queue",
            feedback.queue,
            "must be a queue with desk: service: an unhappy customer is no technical escalation",
        )
    for kind, low in feedback.low.items():
        scale = SCALES[kind]
        if not scale.least <= low < scale.most:
            raise PolicyMistake(
                ROUTING_FILE,
                f"feedback.low.{kind}",
                low,
                f"must be from {scale.least} to {scale.most - 1}: the highest score is never low",
            )


def _check_assignment(routing: RoutingModel) -> None:
    assignment = routing.assignment
    for queue in assignment.strategies:
        path = f"assignment.strategies.{queue}"
        _known(ROUTING_FILE, path, queue, routing.queues, "queue")
    for path, queues in (
        ("assignment.guards", assignment.guards),
        ("assignment.overload", assignment.overload),
        ("offers.parallel", routing.offers.parallel),
        ("offers.auto_accept", routing.offers.auto_accept),
    ):
        for queue in queues:
            _known(ROUTING_FILE, f"{path}.{queue}", queue, routing.queues, "queue")
    for channel, model in assignment.interruptible.items():
        if channel in model.interrupted_by:
            raise PolicyMistake(
                ROUTING_FILE,
                f"assignment.interruptible.{channel}.interrupted_by",
                channel,
                "is the channel itself, whose tickets would be without limit; name others, such as voice",
            )
    for queue in routing.offers.parallel:
        if queue in routing.offers.auto_accept:
            raise PolicyMistake(
                ROUTING_FILE,
                f"offers.parallel.{queue}",
                queue,
                "is in offers.auto_accept, where nobody is asked: leave it out of one of them",
            )
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
        *find_in_rules(policy),
        *find_in_patience(policy),
        *find_in_escalation(policy),
        *(() if policy.causes is None else find_in_causes(policy.causes, policy.routing)),
        *(() if policy.agents is None else _check_roster(policy, policy.agents)),
    )


def _can_take(agent: AgentModel, queues: Iterable[str], asked: Requirement, cost: int) -> bool:
    return (
        any(queue in agent.queues for queue in queues)
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
        if skill not in _forbidden(policy) and not any(
            skill in agent.skills for agent in agents.values()
        ):
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
        lacking = _unmatchable(
            policy, agents, rule.queue, rule.requirement, _dearest(policy, rule), rule
        )
        if lacking:
            where = f" in {', '.join(lacking)}" if rule.is_language_asked else ""
            yield Finding(
                "warning",
                ROUTING_FILE,
                f"rules.{index}",
                f"nobody in agents.yaml could ever take a ticket of {rule.name!r}{where}",
            )
    yield from _check_escalated(policy, agents)


def _forbidden(policy: Policy) -> frozenset[str]:
    """Skills that something asks to be missing: nobody needs to have them."""
    presets = (preset.requirement for preset in policy.presets.values())
    asked = (*presets, *(rule.requirement for rule in policy.rules))
    return frozenset(skill for one in asked for skill in one.forbidden)


def _check_escalated(policy: Policy, agents: Mapping[str, AgentModel]) -> Iterable[Finding]:
    """An escalated ticket asks what its rule asks and `escalation.skills` beside it, of those who serve the queue above."""
    escalation = policy.routing.escalation
    for rule in policy.rules:
        if policy.routing.queues[rule.queue].desk != "service":
            continue
        asked = with_skills(
            rule.requirement, policy.escalation_skills or (), replaces=escalation.replace_skills
        )
        cost = _dearest(policy, rule)
        lacking = _unmatchable(policy, agents, escalation.to_queue, asked, cost, rule)
        if lacking:
            where = f" in {', '.join(lacking)}" if rule.is_language_asked else ""
            yield Finding(
                "warning",
                ROUTING_FILE,
                "escalation.skills" if policy.escalation_skills else "escalation.to_queue",
                f"nobody in agents.yaml could ever take an escalated ticket of {rule.name!r}{where}",
            )


def _unmatchable(
    policy: Policy,
    agents: Mapping[str, AgentModel],
    queue: str,
    own: Requirement,
    cost: int,
    rule: Rule | None,
) -> list[str]:
    """Return the languages of which nobody could ever take such a ticket, however long it waits and whoever is lent."""
    lending = policy.terms.lending.get(queue)
    is_asked = rule is None or rule.is_language_asked
    found = []
    for language in policy.routing.languages if is_asked else ("",):
        asked = policy.asked_in(
            queue,
            structs.replace(own, language=language or None),
            rule.name if rule is not None else "",
        )
        hardest = requirements.required_for_ever(asked)
        queues = (queue, *hardest.queues, *(lending.lenders if lending is not None else ()))
        if not any(_can_take(agent, queues, hardest, cost) for agent in agents.values()):
            found.append(language)
    return found


def _dearest(policy: Policy, rule: Rule) -> int:
    """Return the most that a ticket of a rule may cost, as far as its conditions name channels."""
    channels = next(
        (
            tuple(str(channel) for channel in test.allowed)
            for test in rule.when.tests
            if isinstance(test, OneOf) and test.what == "channel"
        ),
        (),
    )
    costs = [
        policy.cost(channel) if own is None else own
        for channel, own in ((one, rule.cost_on(one)) for one in channels or ("default",))
    ]
    return max(costs)
