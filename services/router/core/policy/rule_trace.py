"""Why a message fell under its rule and under none before it: which conditions held, and which did not."""

from collections.abc import Sequence
from typing import NamedTuple

from services.router.core.policy.condition import (
    AnyOf,
    Between,
    Condition,
    Contains,
    HasWords,
    InHours,
    Matches,
    Not,
    OneOf,
    Share,
    Test,
    plain,
    test_names,
)
from services.router.core.policy.facts import Facts
from services.router.core.policy.rules import Rule

LISTED_MAX = 6
"""How many of the values that a condition allows are named."""


class Unmet(NamedTuple):
    """A condition that did not hold, by its name in the policy: what it wants, and what was found (never the text)."""

    condition: str
    wants: str
    found: str


class Passed(NamedTuple):
    """A rule that came before the one that decided, and all its conditions that did not hold."""

    rule: str
    unmet: tuple[Unmet, ...]


class Trace(NamedTuple):
    """The rule that decides, the conditions of it that held, and the rules before it."""

    rule: str
    held: tuple[str, ...]
    passed: tuple[Passed, ...]


def trace(rules: Sequence[Rule], message: Facts) -> Trace:
    """Go through the rules up to the first that fits.

    Raises:
        LookupError: none does; a checked policy ends in a rule without conditions, so this is a bug.
    """
    passed: list[Passed] = []
    for rule in rules:
        if rule.when.holds(message):
            return Trace(rule.name, rule.when.says(message), tuple(passed))
        passed.append(Passed(rule.name, unmet(rule.when, message)))
    raise LookupError("no rule fits, and the policy has no last rule without conditions")


def unmet(condition: Condition, message: Facts) -> tuple[Unmet, ...]:
    """Return every test of a condition that does not hold."""
    return tuple(
        Unmet(test_names(Condition((test,)))[0], _wants(test), _found(test, message))
        for test in condition.tests
        if not test.holds(message)
    )


def _wants(test: Test) -> str:
    match test:
        case OneOf(allowed=allowed):
            return _one_of(sorted(map(plain, allowed)))
        case Between(queue=queue):
            return f"{test.bounds} in {queue}" if queue else test.bounds
        case Share(percent=percent):
            return f"{percent:g} of a hundred conversations"
        case InHours(name=name, is_open=is_open):
            return f"{name} {'open' if is_open else 'closed'}"
        case Contains(parts=texts) | HasWords(phrases=texts) | Matches(patterns=texts):
            return _one_of(texts)
        case Not(condition=inner):
            return f"not {', '.join(test_names(inner)) or 'everything'}"
        case AnyOf(conditions=conditions):
            return " or ".join(" and ".join(test_names(one)) or "anything" for one in conditions)


def _one_of(texts: Sequence[str]) -> str:
    more = len(texts) - LISTED_MAX
    return ", ".join(texts[:LISTED_MAX]) + (f" and {more} more" if more > 0 else "")


def _found(test: Test, message: Facts) -> str:
    match test:
        case OneOf(what=what):
            return plain(message.names.get(what))
        case Between():
            n = test.number(message)
            return "unknown" if n is None else f"{n:g}"
        case Share():
            return test.says(message).removeprefix("percent: ")
        case InHours(is_open=is_open):
            return "closed" if is_open else "open"
        case Contains() | HasWords() | Matches():
            return "not in the message"
        case Not(condition=inner):
            return "; ".join(inner.says(message))
        case AnyOf():
            return "none of them"
