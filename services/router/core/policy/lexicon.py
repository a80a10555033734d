"""The words that rules look for, and finding all of them in a message at one go.

Owns how texts are compared: without regard to case, accents' spelling (NFKC) or the dot of the Turkish i. What rules look
for is compiled once a policy into two automata of RE2, one for plain parts of words and one for patterns, each of which
reads a text once, however many rules there are. RE2 takes time linear in the text whatever the pattern and the text are,
so no message can make matching slow; it has no lookaround and no backreferences, which cannot be had at that price.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias

import re2

TEXT_CHARACTERS_MAX: Final = 20_000
"""How much of a message's text the rules look at. Longer mails repeat themselves."""

SUBJECT_CHARACTERS_MAX: Final = 1_000

PATTERN_BYTES_MAX: Final = 1 << 20
"""Memory that one pattern may take, compiled."""

SET_BYTES_MAX: Final = 32 << 20
"""Memory that an automaton may take, states that it remembers included; it takes as much as texts make it need."""

Place: TypeAlias = Literal["subject", "text", "both"]
"""Where a part of a word is looked for."""

_WORD: Final = re.compile(r"\w+")

_ALWAYS: Final = r"\A"
"""A pattern that fits every text; see `_Automaton.found`."""

_TOKENS: Final = re.compile(
    r"\\Q.*?(?:\\E|\Z)|\\[pP](?:\{[^}]*\}|.)|\\x(?:\{[^}]*\}|[0-9a-fA-F]{2})|\\."
    r"|\[\[:\^?\w+:\]|\[:\^?\w+:\]|\(\?P?<\w+>|\(\?P=\w*\)|\(\?[a-zA-Z-]+[:)]|.",
    re.DOTALL,
)
"""The pieces of a pattern: escapes, classes by name, the heads of groups, and single characters."""

_CURES: Final = (
    (
        "invalid perl operator: (?<=",
        "looking behind is not possible: match the text before it as well",
    ),
    (
        "invalid perl operator: (?<!",
        "looking behind is not possible: use `not:` with a second condition",
    ),
    (
        "invalid perl operator: (?=",
        "looking ahead is not possible: match the text after it as well",
    ),
    (
        "invalid perl operator: (?!",
        "looking ahead is not possible: use `not:` with a second condition",
    ),
    ("invalid perl operator: (?>", "atomic groups are not needed here: write (?:…)"),
    (
        "invalid perl operator: (?P",
        "referring back to a group is not possible: list the texts, (?:aa|bb)",
    ),
    ("invalid perl operator", "write a plain group (?:…)"),
    ("invalid named capture group", "write a plain group (?:…)"),
    ("invalid escape sequence: \\Z", "the end of the text is \\z"),
    (
        "invalid escape sequence: \\1",
        "referring back to a group is not possible: list the texts, (?:aa|bb)",
    ),
    ("invalid escape sequence", "a backslash of its own is written \\\\"),
    ("bad repetition operator", "write one of * + ? {2,5}; a possessive ++ is not needed here"),
    (
        "invalid repetition size",
        "repetitions go up to 1000, nested ones together, such as [0-9]{4,12}",
    ),
    ("no argument for repetition", "put what is repeated before it, such as .*lamp or \\*lamp"),
    ("missing ]", "close the class, such as [0-9], or write \\["),
    ("missing )", "close the group, such as (?:lamp|desk), or write \\("),
    ("unexpected )", "open the group before it, such as (?:lamp|desk), or write \\)"),
    ("pattern too large", "it takes more than a megabyte compiled: repeat less, or use `contains`"),
    ("invalid character class range", "a class is written [a-zа-я0-9] or \\p{Cyrillic}"),
)


class PatternMistake(ValueError):
    """A regular expression that cannot be used; the text says why and what would do."""


def fold(text: str) -> str:
    """Return `text` as it is compared: İade, IADE and iade are the same."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return folded.replace("\u0307", "").replace("ı", "i")


def spaced_words(folded: str) -> str:
    """Return the words of folded text with single spaces between and around, for whole-word search."""
    return f" {' '.join(_WORD.findall(folded))} "


def fold_pattern(pattern: str) -> str:
    """Return a regular expression that finds in folded text what `pattern` means: its letters folded, its operators kept."""
    return "".join(map(_fold_token, _TOKENS.findall(pattern)))


def _fold_token(token: str) -> str:
    if token.startswith("\\Q"):
        return str(re2.escape(fold(token[2:].removesuffix("\\E"))))
    if len(token) > 1:
        return token
    folded = fold(token)
    # A character that folds into several, such as an ellipsis, must not become operators.
    return folded if len(folded) == 1 else str(re2.escape(folded))


def _options(bytes_max: int) -> Any:
    options = re2.Options()
    options.max_mem = bytes_max
    options.log_errors = False
    options.never_capture = True
    return options


def compile_pattern(pattern: str) -> str:
    """Return `pattern` folded, if RE2 can use it.

    Raises:
        PatternMistake: it cannot, or would take too much memory; says what would do.
    """
    folded = fold_pattern(pattern)
    try:
        re2.compile(folded, _options(PATTERN_BYTES_MAX))
    except re2.error as error:
        said = error.args[0] if error.args else ""
        reason = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        cure = next((cure for known, cure in _CURES if reason.startswith(known)), "")
        raise PatternMistake(
            f"is no pattern of RE2 ({reason})" + (f": {cure}" if cure else "")
        ) from None
    return folded


class _Automaton:
    """Finds which of many patterns fit a text, reading it once."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = tuple(patterns)
        self._set = re2.Set.SearchSet(_options(SET_BYTES_MAX))
        for pattern in (_ALWAYS, *self._patterns):
            self._set.Add(pattern)
        try:
            self._set.Compile()
        except re2.error:
            raise PatternMistake(
                f"the {len(self._patterns)} of the file are together too large: repeat less, or use `contains`"
            ) from None

    @cached_property
    def _one_by_one(self) -> tuple[Any, ...]:
        return tuple(re2.compile(one, _options(PATTERN_BYTES_MAX)) for one in self._patterns)

    def found(self, text: bytes) -> frozenset[int]:
        """Return the numbers, from 1, of the patterns that fit, and 0.

        The automaton forgets states when its memory is full, and gives up when that happens again and again; it then
        says the same as if nothing fitted (https://github.com/google/re2/issues/136). `_ALWAYS` tells the two apart:
        without it each pattern is asked by itself, which is slower and always ends.
        """
        hits = self._set.Match(text)
        if hits:
            return frozenset(hits)
        return frozenset(
            (0, *(n for n, one in enumerate(self._one_by_one, 1) if one.search(text) is not None))
        )


@dataclass(slots=True)
class Text:
    """A message's words, folded once, and what was found in them so far, by the search that looked."""

    subject: str
    body: str
    hits: dict["Search", frozenset[int]] = field(default_factory=dict)
    _both: str | None = None
    _spaced: str | None = None

    @property
    def both(self) -> str:
        """Subject and text, a line each."""
        if self._both is None:
            self._both = f"{self.subject}\n{self.body}"
        return self._both

    @property
    def spaced(self) -> str:
        """The words of both with single spaces between and around."""
        if self._spaced is None:
            self._spaced = spaced_words(self.both)
        return self._spaced

    def at(self, place: Place) -> str:
        """Return the text at a place."""
        match place:
            case "subject":
                return self.subject
            case "text":
                return self.body
            case "both":
                return self.both

    def has_words(self, phrase: str) -> bool:
        """Whether a phrase, words with single spaces between, stands in both as whole words."""
        if " " in phrase:
            return f" {phrase} " in self.spaced
        text, length = self.both, len(phrase)
        at = text.find(phrase)
        while at >= 0:
            if not (is_word(text[at - 1 : at]) or is_word(text[at + length : at + length + 1])):
                return True
            at = text.find(phrase, at + 1)
        return False


def is_word(character: str) -> bool:
    """Whether a character belongs to a word, as regular expressions have it; the empty one does not."""
    return character.isalnum() or character == "_"


def text_of(subject: str, text: str) -> Text:
    """Fold a message's words, for all rules at once."""
    return Text(fold(subject[:SUBJECT_CHARACTERS_MAX]), fold(text[:TEXT_CHARACTERS_MAX]))


class Search:
    """What all rules of a policy look for at one place. Filled with `add`, then closed; then it finds."""

    def __init__(self, place: Place, *, is_literal: bool = True) -> None:
        self._place: Place = place
        self._is_literal = is_literal
        self._numbers: dict[str, int] = {}
        self._automaton: _Automaton | None = None

    def add(self, wanted: Iterable[str]) -> tuple[int, ...]:
        """Take in folded parts of words, or patterns; return their numbers."""
        numbers = self._numbers
        return tuple(numbers.setdefault(one, len(numbers) + 1) for one in wanted)

    def close(self) -> None:
        """Compile what was taken in.

        Raises:
            PatternMistake: all of it together takes too much memory.
        """
        wanted = list(self._numbers)
        self._automaton = _Automaton(
            [re2.escape(one) for one in wanted] if self._is_literal else wanted
        )

    def found_in(self, text: Text) -> frozenset[int]:
        """Return the numbers of what stands in a text at this search's place. It looks once a text."""
        hits = text.hits.get(self)
        if hits is None:
            assert self._automaton is not None, "the lexicon was not closed"
            # A lone surrogate has no bytes in UTF-8; no rule looks for one either.
            hits = self._automaton.found(text.at(self._place).encode(errors="replace"))
            text.hits[self] = hits
        return hits


class Lexicon:
    """Everything that a policy's rules look for, by place; the patterns look at subject and text."""

    def __init__(self) -> None:
        self.parts: dict[Place, Search] = {
            "subject": Search("subject"),
            "text": Search("text"),
            "both": Search("both"),
        }
        self.patterns = Search("both", is_literal=False)

    def close(self) -> None:
        """Compile what was taken in.

        Raises:
            PatternMistake: all of it together takes too much memory.
        """
        for search in (*self.parts.values(), self.patterns):
            search.close()
