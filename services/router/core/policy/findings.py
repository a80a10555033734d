"""How mistakes in policy files are told: as a refusal that names what exists, or as a finding."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal, NamedTuple

from services.router.core.policy.policy_model import PolicyMistake


class Finding(NamedTuple):
    """Something `check` found. `level` is `error` (refused at start) or `warning`."""

    level: Literal["error", "warning"]
    file: str
    path: str
    message: str


def known(file: str, path: str, value: str, allowed: Iterable[str], what: str) -> None:
    """Refuse a name that does not exist.

    Raises:
        PolicyMistake: says which names do, and which of them is the nearest.
    """
    names = sorted(allowed)
    if value not in names:
        raise PolicyMistake(
            file, path, value, f"no such {what}; known: {', '.join(names)}{nearest(value, names)}"
        )


def nearest(value: str, names: Iterable[str]) -> str:
    """Return a question after the name that `value` is likely to be meant for, or an empty text."""
    close = get_close_matches(value, sorted(names), n=1, cutoff=0.6)
    return f". Is {close[0]!r} meant?" if close else ""
