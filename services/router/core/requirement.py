"""What a ticket asks of a person, how that shrinks with waiting, and where a person falls short of it."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from msgspec import Struct, structs

from schemas import routing as wire

LANGUAGE = "language"
"""Name of the language's step among the relaxed ones, and of the rule that excludes for it."""


class SkillNeed(Struct, frozen=True):
    """A skill at a level (1 to 10); after `relax_after` seconds of waiting it is asked no more (None: always)."""

    skill: str
    level: int = 1
    relax_after: float | None = None


class Requirement(Struct, frozen=True):
    """A language (None: any) and skills, each with its level and its patience in seconds."""

    language: str | None = None
    language_level: int = 1
    language_relax_after: float | None = None
    skills: tuple[SkillNeed, ...] = ()


def from_wire(asked: wire.Requirement) -> Requirement:
    """Return the requirement that an event carries, its skills in a stable order."""
    return Requirement(
        asked.language,
        asked.language_level,
        asked.language_relax_after_seconds,
        tuple(
            SkillNeed(need.skill, need.level, need.relax_after_seconds)
            for need in sorted(asked.skills, key=lambda need: need.skill)
        ),
    )


def to_wire(asked: Requirement) -> wire.Requirement:
    """Return the requirement as events carry it."""
    return wire.Requirement(
        language=asked.language,
        language_level=asked.language_level,
        language_relax_after_seconds=asked.language_relax_after,
        skills=tuple(
            wire.SkillNeed(skill=need.skill, level=need.level, relax_after_seconds=need.relax_after)
            for need in asked.skills
        ),
    )


def deadlines(asked: Requirement, since: datetime) -> tuple[datetime, ...]:
    """Return the instants at which something of `asked` falls away, counted from `since` and so absolute."""
    patience = [need.relax_after for need in asked.skills]
    if asked.language is not None:
        patience.append(asked.language_relax_after)
    return tuple(
        sorted(since + timedelta(seconds=seconds) for seconds in patience if seconds is not None)
    )


def relaxed_at(
    asked: Requirement, since: datetime, now: datetime
) -> tuple[Requirement, tuple[str, ...]]:
    """Return what is still asked at `now` of what is asked `since`, and the names of what has fallen away."""

    def is_over(patience: float | None) -> bool:
        return patience is not None and since + timedelta(seconds=patience) <= now

    gone = tuple(need.skill for need in asked.skills if is_over(need.relax_after))
    left = structs.replace(
        asked, skills=tuple(need for need in asked.skills if not is_over(need.relax_after))
    )
    if asked.language is not None and is_over(asked.language_relax_after):
        left = structs.replace(left, language=None, language_level=1, language_relax_after=None)
        gone = (*gone, LANGUAGE)
    return left, gone


def required_for_ever(asked: Requirement) -> Requirement:
    """Return the part of `asked` that never falls away."""
    left = structs.replace(
        asked, skills=tuple(need for need in asked.skills if need.relax_after is None)
    )
    if asked.language_relax_after is not None:
        left = structs.replace(left, language=None, language_level=1, language_relax_after=None)
    return left


def shortfalls(
    asked: Requirement, languages: Mapping[str, int], skills: Mapping[str, int]
) -> tuple[str, ...]:
    """Return every rule by which a person falls short of `asked`: `language`, `skill:<name>`. Empty: none."""
    found = tuple(
        f"skill:{need.skill}" for need in asked.skills if skills.get(need.skill, 0) < need.level
    )
    if asked.language is not None and languages.get(asked.language, 0) < asked.language_level:
        return (LANGUAGE, *found)
    return found
