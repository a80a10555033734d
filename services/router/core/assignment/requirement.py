"""What a ticket asks of a person, how that shrinks with waiting, and where a person falls short of it.

All instants are counted from when the ticket began to wait, so they are absolute: an offer that stands meanwhile moves none
of them. Needs may fall away one by one (`relax_after`), and in **steps**, which lower levels, drop needs, or ask other queues
too. A step comes after the one before it, whatever its own instant. What neither names stays required.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from msgspec import Struct, structs

from schemas import routing as wire

LANGUAGE = "language"
"""Name of the language's step among the relaxed ones, and of the rule that excludes for it."""


class SkillNeed(Struct, frozen=True, cache_hash=True, gc=False):
    """A skill at a level (1 to 10); after `relax_after` seconds of waiting it is asked no more (None: always)."""

    skill: str
    level: int = 1
    relax_after: float | None = None


class Step(Struct, frozen=True, cache_hash=True, gc=False):
    """From `after` seconds of waiting, or after `share` of the time that was left to the target, less is asked.

    `levels` are the new, lower ones of skills; `drop` skills asked no more; `language` whether the language is not either;
    `queues` whose agents are asked as well. With `share` and no known target, `after` counts; without that the step
    comes only when an offer is missed.
    """

    after: float | None = None
    share: float | None = None
    levels: tuple[tuple[str, int], ...] = ()
    drop: tuple[str, ...] = ()
    language: bool = False
    queues: tuple[str, ...] = ()


class Requirement(Struct, frozen=True, omit_defaults=True, cache_hash=True, gc=False):
    """A language (None: any), skills, each with its level and its patience in seconds, and skills that must be missing.

    `queues` are asked beside the ticket's own. With `moves_on_miss` an offer that is declined or runs out takes the next
    step at once; the deadlines of later steps stay.
    """

    language: str | None = None
    language_level: int = 1
    language_relax_after: float | None = None
    skills: tuple[SkillNeed, ...] = ()
    forbidden: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    moves_on_miss: bool = False


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
        tuple(sorted(set(asked.forbidden))),
        tuple(dict.fromkeys(asked.also_queues)),
        tuple(map(step_from_wire, asked.steps)),
        asked.moves_on_miss,
    )


def step_from_wire(step: wire.RelaxStep) -> Step:
    """Return a step of a requirement that an event carries."""
    return Step(
        step.after_seconds,
        step.share_of_time_left,
        tuple(sorted(step.levels.items())),
        tuple(sorted(set(step.drop))),
        step.language,
        tuple(dict.fromkeys(step.queues)),
    )


@lru_cache(maxsize=65_536)
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
        forbidden=asked.forbidden,
        also_queues=asked.queues,
        steps=tuple(
            wire.RelaxStep(
                after_seconds=step.after,
                share_of_time_left=step.share,
                levels=dict(step.levels),
                drop=step.drop,
                language=step.language,
                queues=step.queues,
            )
            for step in asked.steps
        ),
        moves_on_miss=asked.moves_on_miss,
    )


def _step_times(
    asked: Requirement, since: datetime, target_at: datetime | None
) -> Iterator[datetime | None]:
    """Yield when each step comes; None from the first on that time alone never brings."""
    latest = since
    is_reached = True
    for step in asked.steps:
        at: datetime | None = None
        if step.share is not None and target_at is not None:
            at = since + max(target_at - since, timedelta()) * step.share
        elif step.after is not None:
            at = since + timedelta(seconds=step.after)
        is_reached = is_reached and at is not None
        if at is not None:
            latest = max(latest, at)
        yield latest if is_reached else None


def steps_done(
    asked: Requirement, since: datetime, target_at: datetime | None, now: datetime
) -> int:
    """Return how many steps time has brought by `now`."""
    if not asked.steps:
        return 0
    return sum(at is not None and at <= now for at in _step_times(asked, since, target_at))


def next_step_at(
    asked: Requirement, done: int, since: datetime, target_at: datetime | None
) -> datetime | None:
    """Return when the step after the first `done` comes by itself (None: never)."""
    offsets = _step_offsets(asked)
    if offsets is not None:
        offset = offsets[done] if done < len(offsets) else None
        return since + offset if offset is not None else None
    for n, at in enumerate(_step_times(asked, since, target_at)):
        if n == done:
            return at
    return None


@lru_cache(maxsize=65_536)
def _step_offsets(asked: Requirement) -> tuple[timedelta | None, ...] | None:
    """Return how long after the beginning each step comes; None where that depends on the target."""
    if any(step.share is not None for step in asked.steps):
        return None
    since = datetime(1970, 1, 1, tzinfo=UTC)
    return tuple(None if at is None else at - since for at in _step_times(asked, since, None))


@lru_cache(maxsize=65_536)
def shortest_patience(asked: Requirement) -> float | None:
    """Return after how many seconds of waiting the first single need of `asked` falls away (None: none does)."""
    patience = [need.relax_after for need in asked.skills if need.relax_after is not None]
    if asked.language is not None and asked.language_relax_after is not None:
        patience.append(asked.language_relax_after)
    return min(patience, default=None)


def relaxed_at(
    asked: Requirement, since: datetime, now: datetime, done: int = 0
) -> tuple[Requirement, tuple[str, ...]]:
    """Return what is still asked at `now` of what is asked `since`, after the first `done` steps, and the names of what
    has fallen away: a skill's, `language`, `level:<skill>:<level>` for a lower level, `queue:<name>` for one asked as well.
    """
    if not asked.steps and shortest_patience(asked) is None:
        return asked, ()

    def is_over(patience: float | None) -> bool:
        return patience is not None and since + timedelta(seconds=patience) <= now

    taken = asked.steps[:done]
    dropped = {skill for step in taken for skill in step.drop}
    lowered = {skill: level for step in taken for skill, level in step.levels}
    left: list[SkillNeed] = []
    gone: list[str] = []
    lower: list[str] = []
    for need in asked.skills:
        if need.skill in dropped or is_over(need.relax_after):
            gone.append(need.skill)
            continue
        level = min(need.level, lowered.get(need.skill, need.level))
        if level < need.level:
            lower.append(f"level:{need.skill}:{level}")
        left.append(need if level == need.level else structs.replace(need, level=level))
    speaks = asked.language is None or not (
        is_over(asked.language_relax_after) or any(step.language for step in taken)
    )
    if not speaks:
        gone.append(LANGUAGE)
    more = [queue for step in taken for queue in step.queues if queue not in asked.queues]
    queues = (*asked.queues, *dict.fromkeys(more))
    names = (*gone, *lower, *(f"queue:{queue}" for queue in dict.fromkeys(more)))
    return (
        Requirement(
            asked.language if speaks else None,
            asked.language_level if speaks else 1,
            asked.language_relax_after if speaks else None,
            tuple(left),
            asked.forbidden,
            queues,
            asked.steps[done:],
            asked.moves_on_miss,
        ),
        names,
    )


def required_for_ever(asked: Requirement) -> Requirement:
    """Return the part of `asked` that never falls away, and every queue that is ever asked."""
    dropped = {skill for step in asked.steps for skill in step.drop}
    lowered = {skill: level for step in asked.steps for skill, level in step.levels}
    skills = tuple(
        structs.replace(need, level=min(need.level, lowered.get(need.skill, need.level)))
        for need in asked.skills
        if need.relax_after is None and need.skill not in dropped
    )
    is_language_kept = asked.language_relax_after is None and not any(
        step.language for step in asked.steps
    )
    return Requirement(
        asked.language if is_language_kept else None,
        asked.language_level if is_language_kept else 1,
        None,
        skills,
        asked.forbidden,
        tuple(dict.fromkeys((*asked.queues, *(q for step in asked.steps for q in step.queues)))),
    )


def shortfalls(
    asked: Requirement, languages: Mapping[str, int], skills: Mapping[str, int]
) -> tuple[str, ...]:
    """Return every rule by which a person falls short of `asked`. Empty: none.

    `language`, `skill:<name>` where it is missing, `level:<name>` where it is too low, `forbidden:<name>` where they have
    what must be missing.
    """
    found: list[str] = []
    if asked.language is not None and languages.get(asked.language, 0) < asked.language_level:
        found.append(LANGUAGE)
    for need in asked.skills:
        level = skills.get(need.skill, 0)
        if level < need.level:
            found.append(f"level:{need.skill}" if level else f"skill:{need.skill}")
    found.extend(f"forbidden:{name}" for name in asked.forbidden if name in skills)
    return tuple(found)
