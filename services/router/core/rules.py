"""Which rule a message falls under: the first that matches, in the order of the policy.

Text is compared without regard to case, accents' spelling (NFKC) or the dot of the Turkish i, by plain substrings and
whole words only, so that no message can make matching slow.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.router.core.requirement import Requirement

TEXT_CHARACTERS_MAX = 20_000
"""How much of a message's text the rules look at. Longer mails repeat themselves."""

_WORD = re.compile(r"\w+")


def fold(text: str) -> str:
    """Return `text` as it is compared: İade, IADE and iade are the same."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded.replace("\u0307", "").replace("ı", "i")


def spaced_words(folded: str) -> str:
    """Return the words of folded text with single spaces between and around, for whole-word search."""
    return f" {' '.join(_WORD.findall(folded))} "


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules may know of a message. Build it with `facts`, which prepares the text once for all rules."""

    channel: str
    account: str
    language: str | None
    kind: str
    is_verified: bool
    is_automatic: bool
    subject: str
    text: str
    both: str
    words: str


def facts(
    *,
    channel: str,
    account: str,
    language: str | None,
    kind: str,
    is_verified: bool,
    is_automatic: bool,
    subject: str,
    text: str,
) -> Facts:
    """Prepare a message for the rules."""
    subject, text = fold(subject[:1000]), fold(text[:TEXT_CHARACTERS_MAX])
    both = f"{subject}\n{text}"
    return Facts(
        channel,
        account,
        language,
        kind,
        is_verified,
        is_automatic,
        subject,
        text,
        both,
        spaced_words(both),
    )


@dataclass(frozen=True, slots=True)
class Condition:
    """All that is given must hold; of a list, one entry is enough. Texts are folded, words spaced, when compiled."""

    channel: frozenset[str] = frozenset()
    account: frozenset[str] = frozenset()
    language: frozenset[str] = frozenset()
    kind: frozenset[str] = frozenset()
    is_verified: bool | None = None
    is_automatic: bool | None = None
    subject_contains: tuple[str, ...] = ()
    text_contains: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def is_catch_all(self) -> bool:
        """Whether every message fits."""
        return self == Condition()

    def holds(self, message: Facts) -> bool:
        """Whether `message` fits."""
        return self._fits_origin(message) and self._fits_text(message)

    def _fits_origin(self, message: Facts) -> bool:
        return (
            (not self.channel or message.channel in self.channel)
            and (not self.account or message.account in self.account)
            and (not self.language or message.language in self.language)
            and (not self.kind or message.kind in self.kind)
            and self.is_verified in (None, message.is_verified)
            and self.is_automatic in (None, message.is_automatic)
        )

    def _fits_text(self, message: Facts) -> bool:
        return (
            _any_in(self.subject_contains, message.subject)
            and _any_in(self.text_contains, message.text)
            and _any_in(self.contains, message.both)
            and _any_in(self.words, message.words)
        )

    def covers(self, other: "Condition") -> bool:
        """Whether whatever fits `other` surely fits this too. False may also mean that it cannot be told."""
        sets = ("channel", "account", "language", "kind")
        texts = ("subject_contains", "text_contains", "contains", "words")
        flags = ("is_verified", "is_automatic")
        return (
            all(_covers_set(getattr(self, name), getattr(other, name)) for name in sets)
            and all(_covers_text(getattr(self, name), getattr(other, name)) for name in texts)
            and all(getattr(self, name) in (None, getattr(other, name)) for name in flags)
        )


def _any_in(wanted: Sequence[str], text: str) -> bool:
    return not wanted or any(part in text for part in wanted)


def _covers_set(mine: frozenset[str], theirs: frozenset[str]) -> bool:
    return not mine or bool(theirs and theirs <= mine)


def _covers_text(mine: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    # Whoever contains the longer text contains each part of it.
    return not mine or bool(theirs and all(_any_in(mine, their) for their in theirs))


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition and what it decides. `requirement` still lacks the language, which the message brings."""

    name: str
    when: Condition
    queue: str
    priority: int
    sla_policy: str
    requirement: Requirement = field(default_factory=Requirement)
    is_language_asked: bool = True
    cost: int | None = None


def first_match(rules: Sequence[Rule], message: Facts) -> Rule:
    """Return the first rule that fits.

    Raises:
        LookupError: none does; a checked policy ends in a rule without conditions, so this is a bug.
    """
    for rule in rules:
        if rule.when.holds(message):
            return rule
    raise LookupError("no rule fits, and the policy has no last rule without conditions")
