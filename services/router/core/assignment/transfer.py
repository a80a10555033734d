"""Whether work that is transferred to a person becomes theirs: what hinders it, and what of that force lifts.

Whoever names a person has judged what they can do, so skills, languages and queues do not count here; what is so at the
moment does. Force lifts what concerns their room and nothing else: nobody who is not there is given anything.
"""

from collections.abc import Iterable
from typing import Final

ROOM: Final = frozenset({"capacity", "wrap_up", "channel"})
"""Rules about how much somebody carries: work that comes to them all the same makes them overfull."""

_MOMENT: Final = frozenset(
    {"unknown", "absent", "off_shift", *ROOM, "draining", "declined", "excluded"}
)
_LIFTED: Final = frozenset({*ROOM, "draining"})

NOBODY: Final = "nobody"
"""Whom a transfer goes to that names nobody: somebody unknown, as any name that the roster does not have."""


def judge(rules: Iterable[str], *, is_forced: bool) -> tuple[str, ...]:
    """Return which of the rules that stand between a person and the work hinder its transfer; none: it is theirs."""
    return tuple(rule for rule in rules if rule in _MOMENT and not (is_forced and rule in _LIFTED))
