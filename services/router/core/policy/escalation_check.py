"""What is wrong with the escalation part of `routing.yaml`: names that do not exist, and ways that do not lead up.

With what an escalated ticket asks for, since whoever checks a policy must know that too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import structs

from services.router.core.assignment.requirement import Requirement, SkillNeed
from services.router.core.policy.findings import Finding, known
from services.router.core.policy.policy_model import ROUTING_FILE, RoutingModel

if TYPE_CHECKING:
    from services.router.core.policy.policy import Policy


def check_escalation(routing: RoutingModel) -> None:
    """Refuse queues, skills and rules that do not exist.

    Raises:
        PolicyMistake: the first of them.
    """
    escalation = routing.escalation
    named = [("to_queue", escalation.to_queue)]
    named += [("return_to", escalation.return_to)] if escalation.return_to else []
    named += [(f"required_facts_by_queue.{q}", q) for q in escalation.required_facts_by_queue]
    named += [(f"on_overload.{q}", q) for q in escalation.on_overload]
    for name, level in escalation.on_call.items():
        named += [(f"on_call.{name}.queue", level.queue)] if level.queue else []
        named += [(f"on_call.{name}.queues", queue) for queue in level.queues]
    for path, queue in named:
        known(ROUTING_FILE, f"escalation.{path}", queue, routing.queues, "queue")
    for skill in escalation.skills or {}:
        known(ROUTING_FILE, f"escalation.skills.{skill}", skill, routing.skills, "skill")
    rules = [rule.name for rule in routing.rules]
    for name, level in escalation.on_call.items():
        for rule in level.rules:
            known(ROUTING_FILE, f"escalation.on_call.{name}.rules", rule, rules, "rule")


def find_in_escalation(policy: Policy) -> Iterable[Finding]:
    """Return what exists and does not lead where it should."""
    routing = policy.routing
    escalation = routing.escalation
    if routing.queues[escalation.to_queue].desk != "technical":
        yield Finding(
            "error",
            ROUTING_FILE,
            "escalation.to_queue",
            "is not a queue of the technical desk, so an escalation would not go up",
        )
    back = escalation.return_to
    if back is not None and routing.queues[back].desk != "service":
        yield Finding(
            "error",
            ROUTING_FILE,
            "escalation.return_to",
            f"{back!r} is a queue of the technical desk, so a return would not go back to the front line",
        )
    for queue in escalation.required_facts_by_queue:
        if routing.queues[queue].desk != "technical":
            yield Finding(
                "warning",
                ROUTING_FILE,
                f"escalation.required_facts_by_queue.{queue}",
                "is no queue of the technical desk, so nothing is ever handed over to it",
            )
    for queue, action in escalation.on_overload.items():
        path = f"escalation.on_overload.{queue}"
        if action.escalate and routing.queues[queue].desk == "technical":
            yield Finding(
                "warning", ROUTING_FILE, path, "its tickets are with the technical desk already"
            )


def with_skills(
    own: Requirement, skills: tuple[SkillNeed, ...], *, replaces: bool = False
) -> Requirement:
    """Add skills to what a ticket asks; of one that it asks already the higher level counts, and the longer patience."""
    if replaces:
        return structs.replace(own, skills=skills)
    needs = {need.skill: need for need in own.skills}
    for added in skills:
        known = needs.get(added.skill)
        needs[added.skill] = added if known is None else _harder(known, added)
    return structs.replace(own, skills=tuple(needs[name] for name in sorted(needs)))


def _harder(one: SkillNeed, other: SkillNeed) -> SkillNeed:
    stays = None in (one.relax_after, other.relax_after)
    patience = None if stays else max(one.relax_after or 0, other.relax_after or 0)
    return SkillNeed(one.skill, max(one.level, other.level), patience)
