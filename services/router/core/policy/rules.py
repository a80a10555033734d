"""Which rule a message falls under: the first that matches, in the order of the policy, and what of it held."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.router.core.assignment.requirement import Requirement
from services.router.core.policy.condition import Condition
from services.router.core.policy.facts import Facts, facts, of_message
from services.router.core.tickets.known_agent import KnownAgent

__all__ = ["Condition", "Facts", "Match", "Rule", "facts", "first_match", "match", "of_message"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition and what it decides. `requirement` still lacks the language, which the message brings.

    `cost` is what a ticket takes of a capacity on any channel, `costs` what it takes on some; without either the channel's
    own counts. `tags` are the ticket's from the beginning. `known_agent` is who is waited for, where the rule says so.
    """

    name: str
    when: Condition
    queue: str
    priority: int
    sla_policy: str
    requirement: Requirement = field(default_factory=Requirement)
    is_language_asked: bool = True
    is_language_required: bool = False
    cost: int | None = None
    costs: Mapping[str, int] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    known_agent: KnownAgent | None = None

    def cost_on(self, channel: str) -> int | None:
        """Return what the rule says a ticket of a channel takes, or None."""
        return self.costs.get(channel, self.cost)


class Match(NamedTuple):
    """The rule that decides, which of its conditions held in words, and the queue lengths that any rule asked for."""

    rule: Rule
    held: tuple[str, ...]
    observed: dict[str, int]


def first_match(rules: Sequence[Rule], message: Facts) -> Rule:
    """Return the first rule that fits.

    Raises:
        LookupError: none does; a checked policy ends in a rule without conditions, so this is a bug.
    """
    for rule in rules:
        if rule.when.holds(message):
            return rule
    raise LookupError("no rule fits, and the policy has no last rule without conditions")


def match(rules: Sequence[Rule], message: Facts) -> Match:
    """Return the first rule that fits, and what the decision rests on.

    Raises:
        LookupError: as `first_match`.
    """
    rule = first_match(rules, message)
    return Match(rule, rule.when.says(message), dict(sorted(message.looked_at.items())))
