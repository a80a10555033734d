"""Conditions of rules: what must hold of a message, and what can be said of conditions without one.

A condition is a row of tests, all of which must hold, the cheap ones first. A test knows whether it holds, how to say so,
whether another test implies it (so that a rule that is never reached can be found), and whether it can hold at all.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

from hours.calendar import Calendar, is_open, next_closing
from services.router.core.policy.facts import NUMBERS_MAX, Facts, Named
from services.router.core.policy.lexicon import Place, Search

SAID_MAX: Final = 12
"""How many of the tests that held are told."""

SAID_CHARACTERS_MAX: Final = 120

_LONG_AGO: Final = datetime(2000, 1, 3, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class OneOf:
    """A fact is one of those allowed."""

    what: str
    allowed: frozenset[Named]

    def holds(self, message: Facts) -> bool:
        return message.names.get(self.what) in self.allowed

    def says(self, message: Facts) -> str:
        return f"{self.what}: {plain(message.names.get(self.what))}"

    def follows_from(self, other: "Test") -> bool:
        return (
            isinstance(other, OneOf) and other.what == self.what and other.allowed <= self.allowed
        )


@dataclass(frozen=True, slots=True)
class Between:
    """A number is known and lies between two, both included. `queue` asks for a queue's length instead."""

    what: str
    at_least: float | None = None
    at_most: float | None = None
    queue: str = ""

    def number(self, message: Facts) -> float | None:
        """Return the number that is asked for."""
        return message.length(self.queue) if self.queue else message.numbers.get(self.what)

    def holds(self, message: Facts) -> bool:
        n = self.number(message)
        return (
            n is not None
            and (self.at_least is None or n >= self.at_least)
            and (self.at_most is None or n <= self.at_most)
        )

    def says(self, message: Facts) -> str:
        return f"{self.what}: {self.number(message) or 0:g} ({self.bounds})"

    @property
    def bounds(self) -> str:
        """The bounds as people write them."""
        least = "" if self.at_least is None else f"at least {self.at_least:g}"
        most = "" if self.at_most is None else f"at most {self.at_most:g}"
        return ", ".join(filter(None, (least, most)))

    def follows_from(self, other: "Test") -> bool:
        return (
            isinstance(other, Between)
            and other.what == self.what
            and (
                self.at_least is None
                or (other.at_least is not None and other.at_least >= self.at_least)
            )
            and (
                self.at_most is None
                or (other.at_most is not None and other.at_most <= self.at_most)
            )
        )


@dataclass(frozen=True, slots=True)
class Share:
    """The conversation is among so many per cent, by a hash of the rule's name and its id: it stays on its side.

    Who is in at five per cent is in at ten. Rules of different names choose independently of each other.
    """

    rule: str
    percent: float

    def holds(self, message: Facts) -> bool:
        return place_of(self.rule, message.conversation_id) < self.percent

    def says(self, message: Facts) -> str:
        return f"percent: {place_of(self.rule, message.conversation_id):.2f} of {self.percent:g}"

    def follows_from(self, other: "Test") -> bool:
        return (
            isinstance(other, Share) and other.rule == self.rule and other.percent <= self.percent
        )


def place_of(rule: str, conversation_id: str) -> float:
    """Return where a conversation stands for a rule, from 0 to below 100."""
    digest = hashlib.blake2b(f"{rule}\0{conversation_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:6]) * 100 / (1 << 48)


@dataclass(frozen=True, slots=True)
class InHours:
    """It is within a calendar's hours, or outside of them."""

    name: str
    calendar: Calendar
    is_open: bool

    def holds(self, message: Facts) -> bool:
        return message.now is not None and is_open(self.calendar, message.now) is self.is_open

    def says(self, message: Facts) -> str:
        del message
        return f"hours: {self.name} {'open' if self.is_open else 'closed'}"

    def follows_from(self, other: "Test") -> bool:
        return (
            isinstance(other, InHours) and other.name == self.name and other.is_open is self.is_open
        )


WordsIn: TypeAlias = Literal["subject_contains", "text_contains", "contains"]

PLACES: Final[dict[WordsIn, Place]] = {
    "subject_contains": "subject",
    "text_contains": "text",
    "contains": "both",
}
"""Where each condition on parts of words looks."""


@dataclass(frozen=True, slots=True)
class Contains:
    """One of the folded `parts` stands in the subject, the text, or either. `ids` are their numbers in the search."""

    what: WordsIn
    parts: tuple[str, ...]
    search: Search = field(compare=False, repr=False)
    ids: frozenset[int] = field(compare=False, repr=False)

    def holds(self, message: Facts) -> bool:
        return not self.ids.isdisjoint(self.search.found_in(message.words))

    def says(self, message: Facts) -> str:
        text = message.words.at(PLACES[self.what])
        return f"{self.what}: {next((part for part in self.parts if part in text), '')}"

    def follows_from(self, other: "Test") -> bool:
        # Whoever contains the longer text contains each part of it, and a word's parts stand where the word does.
        match other:
            case Contains():
                is_there = self.what in ("contains", other.what)
                return is_there and all(_any_in(self.parts, theirs) for theirs in other.parts)
            case HasWords():
                return self.what == "contains" and all(
                    " " not in theirs and _any_in(self.parts, theirs) for theirs in other.phrases
                )
            case _:
                return False


@dataclass(frozen=True, slots=True)
class HasWords:
    """One of the folded `phrases`, words with single spaces between, stands in subject or text as whole words.

    The search finds their first words, be they parts of others or not (`ids`); most messages end there.
    """

    phrases: tuple[str, ...]
    search: Search = field(compare=False, repr=False)
    ids: tuple[int, ...] = field(compare=False, repr=False)
    any_ids: frozenset[int] = field(compare=False, repr=False)

    def holds(self, message: Facts) -> bool:
        hits = self.search.found_in(message.words)
        return not self.any_ids.isdisjoint(hits) and self._found(message, hits) is not None

    def _found(self, message: Facts, hits: frozenset[int]) -> str | None:
        for phrase, number in zip(self.phrases, self.ids, strict=True):
            if number in hits and message.words.has_words(phrase):
                return phrase
        return None

    def says(self, message: Facts) -> str:
        return f"words: {self._found(message, self.search.found_in(message.words)) or ''}"

    def follows_from(self, other: "Test") -> bool:
        return isinstance(other, HasWords) and all(
            _any_in([f" {mine} " for mine in self.phrases], f" {theirs} ")
            for theirs in other.phrases
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """One of the `patterns`, as they stand in the policy, fits somewhere in subject or text."""

    patterns: tuple[str, ...]
    search: Search = field(compare=False, repr=False)
    ids: tuple[int, ...] = field(compare=False, repr=False)

    def holds(self, message: Facts) -> bool:
        return not self.search.found_in(message.words).isdisjoint(self.ids)

    def says(self, message: Facts) -> str:
        found = self.search.found_in(message.words)
        hits = (p for p, number in zip(self.patterns, self.ids, strict=True) if number in found)
        return f"matches: {next(hits, '')}"

    def follows_from(self, other: "Test") -> bool:
        return isinstance(other, Matches) and set(other.patterns) <= set(self.patterns)


@dataclass(frozen=True, slots=True)
class Not:
    """A condition does not hold."""

    condition: "Condition"

    def holds(self, message: Facts) -> bool:
        return not self.condition.holds(message)

    def says(self, message: Facts) -> str:
        del message
        return f"not: {', '.join(test_names(self.condition)) or 'everything'}"

    def follows_from(self, other: "Test") -> bool:
        return isinstance(other, Not) and other.condition.covers(self.condition)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one of several conditions holds."""

    conditions: tuple["Condition", ...]

    def holds(self, message: Facts) -> bool:
        return any(one.holds(message) for one in self.conditions)

    def says(self, message: Facts) -> str:
        held = next((one for one in self.conditions if one.holds(message)), None)
        return f"any: {'; '.join(held.says(message)) if held is not None else ''}"

    def follows_from(self, other: "Test") -> bool:
        return any(one.covers(Condition((other,))) for one in self.conditions)


Test: TypeAlias = OneOf | Between | Share | InHours | Contains | HasWords | Matches | Not | AnyOf


@dataclass(frozen=True, slots=True)
class Condition:
    """All tests must hold; without any, every message fits."""

    tests: tuple[Test, ...] = ()

    @property
    def is_catch_all(self) -> bool:
        """Whether every message fits."""
        return not self.tests

    def holds(self, message: Facts) -> bool:
        """Whether `message` fits."""
        for test in self.tests:  # noqa: SIM110 - the plain loop is the hot path, and a generator costs half of it again
            if not test.holds(message):
                return False
        return True

    def says(self, message: Facts) -> tuple[str, ...]:
        """Say which tests held of a message that fits, in short, in the policy's own words and never in the message's."""
        said = [test.says(message) for test in self.tests[:SAID_MAX]]
        return tuple(
            one if len(one) <= SAID_CHARACTERS_MAX else one[: SAID_CHARACTERS_MAX - 1] + "…"
            for one in said
        )

    def covers(self, other: "Condition") -> bool:
        """Whether whatever fits `other` surely fits this too. False may also mean that it cannot be told."""
        return all(_follows(test, other) for test in self.tests)


def _follows(test: Test, condition: Condition) -> bool:
    """Whether a test holds wherever a condition does."""
    if any(test.follows_from(given) for given in condition.tests):
        return True
    if isinstance(test, AnyOf) and any(one.covers(condition) for one in test.conditions):
        return True
    return any(
        all(_follows(test, branch) for branch in given.conditions)
        for given in condition.tests
        if isinstance(given, AnyOf)
    )


def why_never(condition: Condition) -> str | None:
    """Return why no message can ever fit, or None where that cannot be told."""
    for reason in (_why_never(test) for test in condition.tests):
        if reason is not None:
            return reason
    return _contradiction(condition.tests)


def _why_never(test: Test) -> str | None:
    match test:
        case OneOf(allowed=allowed) if not allowed:
            return f"{test.what} is none of the ones allowed"
        case Between(what=what, at_least=least, at_most=most):
            if least is not None and most is not None and least > most:
                return f"{what} cannot be {test.bounds}"
            ceiling = NUMBERS_MAX.get(what.rpartition(".")[2])
            if least is not None and ceiling is not None and least > ceiling:
                return f"{what} is counted to {ceiling} only"
        case Share(percent=percent) if percent <= 0:
            return "0 per cent is nobody"
        # A calendar that never opens is refused by its own file.
        case InHours(name=name, calendar=calendar, is_open=False) if never_closes(calendar):
            return f"the calendar {name} never closes"
        case Not(condition=inner) if inner.is_catch_all:
            return "not of everything is nothing"
        case AnyOf(conditions=conditions):
            reasons = [why_never(one) for one in conditions]
            if all(reason is not None for reason in reasons):
                return next(filter(None, reasons))
        case _:
            pass
    return None


def never_closes(calendar: Calendar) -> bool:
    """Whether a calendar is open without end, as far as can be seen."""
    return is_open(calendar, _LONG_AGO) and next_closing(calendar, _LONG_AGO) is None


def _contradiction(tests: Sequence[Test]) -> str | None:
    for n, test in enumerate(tests):
        for other in tests[n + 1 :]:
            if _excludes(test, other):
                return f"{_name(test)} cannot be both"
        if isinstance(test, Not) and all(
            _follows(inner, Condition(tuple(tests))) for inner in test.condition.tests
        ):
            return f"it asks for what `not` forbids: {', '.join(test_names(test.condition))}"
    return None


def _excludes(test: Test, other: Test) -> bool:
    match test, other:
        case OneOf(), OneOf():
            return test.what == other.what and test.allowed.isdisjoint(other.allowed)
        case InHours(), InHours():
            return test.name == other.name and test.is_open is not other.is_open
        case Between(), Between() if test.what == other.what:
            return _above(test, other) or _above(other, test)
        case _:
            return False


def _above(test: Between, other: Between) -> bool:
    return test.at_least is not None and other.at_most is not None and test.at_least > other.at_most


def queues_asked(condition: Condition) -> Iterator[str]:
    """Yield the queues whose lengths a condition asks for."""
    for test in condition.tests:
        match test:
            case Between(queue=queue) if queue:
                yield queue
            case Not(condition=inner):
                yield from queues_asked(inner)
            case AnyOf(conditions=conditions):
                for one in conditions:
                    yield from queues_asked(one)
            case _:
                pass


def channels_asked(condition: Condition) -> Iterator[str]:
    """Yield the channels that a condition names."""
    for test in condition.tests:
        match test:
            case OneOf(what="channel", allowed=allowed):
                yield from sorted(str(name) for name in allowed)
            case Not(condition=inner):
                yield from channels_asked(inner)
            case AnyOf(conditions=conditions):
                for one in conditions:
                    yield from channels_asked(one)
            case _:
                pass


def test_names(condition: Condition) -> tuple[str, ...]:
    """Return the names of a condition's tests, as the policy writes them."""
    return tuple(dict.fromkeys(_name(test) for test in condition.tests))


def _name(test: Test) -> str:
    match test:
        case OneOf(what=what) | Between(what=what) | Contains(what=what):
            return what
        case Share():
            return "percent"
        case InHours():
            return "hours"
        case HasWords():
            return "words"
        case Matches():
            return "matches"
        case Not():
            return "not"
        case AnyOf():
            return "any"


def _any_in(wanted: Sequence[str], text: str) -> bool:
    return any(part in text for part in wanted)


def plain(value: Named) -> str:
    """Return a value of a condition in words."""
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case str():
            return value
