"""What is wrong with the escalation part of `routing.yaml`: names that do not exist, and ways that do not lead up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from services.router.core.policy.findings import Finding, known, nearest
from services.router.core.policy.policy_model import ROUTING_FILE, RoutingModel

if TYPE_CHECKING:
    from services.router.core.policy.policy import Policy

_TAG: Final = re.compile(r"[a-z0-9_]{1,64}")
"""What a tag looks like, as commands and rules may give them."""


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
        if queue not in routing.assignment.overload:
            yield Finding(
                "error",
                ROUTING_FILE,
                path,
                f"never happens: nothing says when {queue} is too long. Add, for example,"
                f" assignment.overload.{queue}: {{at: 100, clear_below: 80}}",
            )
        if action.escalate and routing.queues[queue].desk == "technical":
            yield Finding(
                "warning", ROUTING_FILE, path, "its tickets are with the technical desk already"
            )
    yield from _find_in_tags(policy)


def _find_in_tags(policy: Policy) -> Iterable[Finding]:
    """Return the tags of on-call levels that no ticket can ever have."""
    by_rules = {tag for rule in policy.rules for tag in rule.tags}
    for name, level in policy.routing.escalation.on_call.items():
        for tag in level.tags:
            path = f"escalation.on_call.{name}.tags"
            if tag in by_rules:
                continue
            if policy.causes is not None and tag not in policy.causes.tags:
                known_tags = {*by_rules, *policy.causes.tags}
                yield Finding(
                    "error",
                    ROUTING_FILE,
                    path,
                    f"{tag!r}: no rule gives this tag, and causes.yaml does not know it, so no ticket"
                    f" ever has it{nearest(tag, known_tags)}",
                )
            elif not _TAG.fullmatch(tag):
                yield Finding(
                    "error",
                    ROUTING_FILE,
                    path,
                    f"{tag!r}: no ticket can have this tag; tags are of a-z, 0-9 and _, at most 64",
                )
