"""What an escalated ticket asks for: its own skills, and those that the policy wants of whoever handles escalations."""

from msgspec import structs

from services.router.core.assignment.requirement import Requirement, SkillNeed


def with_skills(
    own: Requirement, skills: tuple[SkillNeed, ...], *, replaces: bool = False
) -> Requirement:
    """Add skills to what a ticket asks; of one that it asks already the higher level counts, and the longer patience."""
    if replaces:
        return structs.replace(own, skills=skills)
    needs = {need.skill: need for need in own.skills}
    for added in skills:
        known = needs.get(added.skill)
        needs[added.skill] = added if known is None else _harder(known, added)
    return structs.replace(own, skills=tuple(needs[name] for name in sorted(needs)))


def _harder(one: SkillNeed, other: SkillNeed) -> SkillNeed:
    stays = None in (one.relax_after, other.relax_after)
    patience = None if stays else max(one.relax_after or 0, other.relax_after or 0)
    return SkillNeed(one.skill, max(one.level, other.level), patience)
