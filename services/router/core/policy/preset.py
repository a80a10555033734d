"""What a queue asks of whoever serves it, laid under what a ticket's rule asks.

The rule goes first: its level of a skill, its patience and its steps stand where both name them, and no step of a preset
touches what the rule asks. Skills to be missing and queues to be asked as well add up.
"""

from dataclasses import dataclass

from msgspec import structs

from services.router.core.assignment.requirement import Requirement, SkillNeed, Step


@dataclass(frozen=True, slots=True)
class Preset:
    """A queue's own requirement, which names no language: the ticket's is meant, at `language_level` or above."""

    requirement: Requirement
    is_language_required: bool = False


def under(
    preset: Preset | None, own: Requirement, queue: str, *, is_language_required: bool
) -> Requirement:
    """Return what a ticket that asks `own` asks in `queue`, whose preset is given.

    With `is_language_required` the rule says that the language never relaxes; a preset may say so too.
    """
    if preset is None:
        return own
    given = preset.requirement
    needs: dict[str, SkillNeed] = {need.skill: need for need in (*given.skills, *own.skills)}
    keeps_language = is_language_required or preset.is_language_required
    steps = own.steps or _steps_beside(given.steps, own, keeps_language=is_language_required)
    return Requirement(
        own.language,
        max(own.language_level, given.language_level) if own.language is not None else 1,
        None if keeps_language else own.language_relax_after,
        tuple(needs[name] for name in sorted(needs)),
        tuple(sorted({*own.forbidden, *given.forbidden})),
        tuple(dict.fromkeys(q for q in (*own.queues, *given.queues) if q != queue)),
        steps,
        own.moves_on_miss or given.moves_on_miss,
    )


def _steps_beside(
    steps: tuple[Step, ...], own: Requirement, *, keeps_language: bool
) -> tuple[Step, ...]:
    """Return a preset's steps without what would take away from what the rule asks."""
    asked = {need.skill for need in own.skills}
    left = (
        structs.replace(
            step,
            levels=tuple((skill, level) for skill, level in step.levels if skill not in asked),
            drop=tuple(skill for skill in step.drop if skill not in asked),
            language=step.language and not keeps_language,
        )
        for step in steps
    )
    return tuple(step for step in left if step.levels or step.drop or step.language or step.queues)
