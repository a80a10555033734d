"""Stored agents and work → records, with what thousands have in common read once.

A requirement of a few skills and steps takes longer to read than the rest of the work that asks it, and the names of a
thousand queues longer than the rest of their agent. Few different ones lie in a domain, so their text is looked up first.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from services.router.core.assignment.records import Work
from services.router.core.assignment.requirement import Requirement

T = TypeVar("T")


class Profile(msgspec.Struct, gc=False):
    """What the roster says an agent can do, as it is stored; `place` is their number in sets of agents."""

    queues: tuple[str, ...]
    skills: dict[str, int]
    languages: dict[str, int]
    limits: dict[str, int] = {}
    place: int = -1


class _UnreadProfile(Profile, gc=False):
    queues: msgspec.Raw  # type: ignore[assignment]


class _UnreadWork(Work, gc=False):
    requirement: msgspec.Raw  # type: ignore[assignment]
    effective: msgspec.Raw  # type: ignore[assignment]


class StoredReader:
    """Reads the records of one domain, and shares what is the same in them."""

    def __init__(self) -> None:
        self._profiles = msgspec.json.Decoder(_UnreadProfile)
        self._works = msgspec.json.Decoder(_UnreadWork)
        self._queues = _once(msgspec.json.Decoder(tuple[str, ...]).decode)
        self._requirement = _once(msgspec.json.Decoder(Requirement).decode)

    def profile(self, text: str | bytes) -> Profile:
        """Read what an agent can do.

        Raises:
            msgspec.ValidationError: it is none.
        """
        unread = self._profiles.decode(text)
        unread.queues = self._queues(bytes(unread.queues))  # type: ignore[assignment]
        unread.__class__ = Profile  # type: ignore[assignment]
        return unread

    def work(self, text: str | bytes) -> Work:
        """Read a work.

        Raises:
            msgspec.ValidationError: it is none.
        """
        unread = self._works.decode(text)
        unread.requirement = self._requirement(bytes(unread.requirement))  # type: ignore[assignment]
        unread.effective = self._requirement(bytes(unread.effective))  # type: ignore[assignment]
        # Every field is what a work's is now, and the layouts are one; copying the fields would take as long as reading them.
        unread.__class__ = Work  # type: ignore[assignment]
        return unread


def _once(read: Callable[[bytes], T]) -> Callable[[bytes], T]:
    """Let the same text be read once."""
    known: dict[bytes, T] = {}

    def look_up(text: bytes) -> T:
        found = known.get(text)
        if found is None:
            found = known[text] = read(text)
        return found

    return look_up
