"""Which causes a comment speaks of, by the words that `causes.yaml` describes them with.

A cause is found where a comment has all telling words of one of its descriptions, in any language; endings are let go of, since
Turkish and Russian put theirs at the end. It is a rule that a person can follow and correct by adding words, and it leaves what
it does not know unclassified, which is counted too.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FILE: Final = "causes.yaml"

STEM_LENGTH: Final = 5
"""Letters of a long word that must be the same; shorter words must be the same whole."""

_WORD: Final = re.compile(r"[^\W\d_]+")
_SMALL_WORDS: Final = (
    "a an and are at by for how i in is it its of on or our the their they to too was we were with you your"
    " bir bu da de için ile mi mu mı ne o olarak şu ve ya"
    " в во и к на не но о об от по при с со у я мы вы из за для это что как"
)
"""They stand in every other sentence and tell nothing about it."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause's name, and for each way to say it the stems that must all be there."""

    name: str
    sayings: tuple[frozenset[str], ...]


def causes_of(
    descriptions: Mapping[str, Sequence[str]],
) -> tuple[Cause, ...]:
    """Return the causes by name with their ways to be said; a description without a telling word says nothing."""
    return tuple(
        Cause(name, tuple(found for text in texts if (found := stems(text))))
        for name, texts in descriptions.items()
    )


def stems(text: str) -> frozenset[str]:
    """Return the telling words of a text, without case, accents and endings."""
    words = _WORD.findall(_folded(text))
    return frozenset(word[:STEM_LENGTH] for word in words if word not in _TELL_NOTHING)


def _folded(text: str) -> str:
    # Turkish has a dotted and a dotless i, and people type either: both are i here. Й and Ё lose their marks as people drop them.
    plain = text.replace("İ", "i").replace("I", "i").replace("ı", "i").casefold()
    apart = unicodedata.normalize("NFKD", plain)
    return "".join(char for char in apart if not unicodedata.combining(char))


_TELL_NOTHING: Final = frozenset(_WORD.findall(_folded(_SMALL_WORDS)))


def classify(comment: str, causes: Sequence[Cause], parents: Mapping[str, str]) -> tuple[str, ...]:
    """Return the causes that a comment speaks of, in the file's order; one that stands above another found one is left out.

    `parents` names the cause above each.
    """
    said = stems(comment)
    found = [cause.name for cause in causes if any(saying <= said for saying in cause.sayings)]
    above = {parents[name] for name in found if name in parents}
    return tuple(name for name in found if name not in above)
