"""What is wrong with rules and requirements: names that do not exist, what contradicts itself, what can never hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from services.router.core.policy.condition import why_never
from services.router.core.policy.findings import Finding, known, nearest
from services.router.core.policy.lexicon import fold, spaced_words
from services.router.core.policy.policy_model import ROUTING_FILE, PolicyMistake, RoutingModel
from services.router.core.policy.rule_model import (
    WHEN_DEPTH_MAX,
    RequirementModel,
    RuleModel,
    SkillModel,
    StepModel,
    WhenModel,
)

if TYPE_CHECKING:
    from services.router.core.policy.policy import Policy
    from services.router.core.policy.rules import Rule


def check_rules(routing: RoutingModel, calendars: Iterable[str] | None) -> None:
    """Refuse rules and presets that name what does not exist, or contradict themselves. `calendars` None: no file.

    Raises:
        PolicyMistake: the first of them.
    """
    for name, queue in routing.queues.items():
        if queue.preset is not None:
            _check_preset(routing, name, queue.preset)
    names: set[str] = set()
    for index, rule in enumerate(routing.rules):
        path = f"rules.{index}"
        if rule.name in names:
            raise PolicyMistake(
                ROUTING_FILE, f"{path}.name", rule.name, "is the name of two rules: change one"
            )
        names.add(rule.name)
        _check_when(routing, f"{path}.when", rule.when, calendars, 1)
        _check_then(routing, f"{path}.then", rule)


def _check_then(routing: RoutingModel, path: str, rule: RuleModel) -> None:
    then = rule.then
    known(ROUTING_FILE, f"{path}.queue", then.queue, routing.queues, "queue")
    check_requirement(routing, path, then, then.queue)


def _check_preset(routing: RoutingModel, queue: str, preset: RequirementModel) -> None:
    path = f"queues.{queue}.preset"
    if not preset.language.asked:
        raise PolicyMistake(
            ROUTING_FILE,
            f"{path}.language.asked",
            False,
            "whether a language is asked for is a rule's to say: leave it out here",
        )
    check_requirement(routing, path, preset, queue)


def _check_when(
    routing: RoutingModel, path: str, when: WhenModel, calendars: Iterable[str] | None, depth: int
) -> None:
    if depth > WHEN_DEPTH_MAX:
        raise PolicyMistake(
            ROUTING_FILE,
            path,
            None,
            f"`any` and `not` stand in each other {WHEN_DEPTH_MAX} deep at most: make two rules of it",
        )
    for language in when.language:
        known(ROUTING_FILE, f"{path}.language", language, routing.languages, "language")
    for field in ("words", "contains", "subject_contains", "text_contains"):
        for text in getattr(when, field):
            found = spaced_words(fold(text)).strip() if field == "words" else fold(text)
            if not found:
                raise PolicyMistake(
                    ROUTING_FILE,
                    f"{path}.{field}",
                    text,
                    f"has nothing to look for: give letters or digits, such as {field}: [refund]",
                )
    if when.queue_length is not None:
        asked = when.queue_length.queue
        known(ROUTING_FILE, f"{path}.queue_length.queue", asked, routing.queues, "queue")
    if when.hours is not None:
        _check_calendar(f"{path}.hours.calendar", when.hours.calendar, calendars)
    for n, one in enumerate(when.any_):
        _check_when(routing, f"{path}.any.{n}", one, calendars, depth + 1)
    if when.not_ is not None:
        _check_when(routing, f"{path}.not", when.not_, calendars, depth + 1)


def _check_calendar(path: str, name: str, calendars: Iterable[str] | None) -> None:
    if calendars is None:
        raise PolicyMistake(
            ROUTING_FILE, path, name, "no such calendar: the policy has no calendars.yaml; add one"
        )
    known(ROUTING_FILE, path, name, calendars, "calendar in calendars.yaml")


# --------------------------------------------------------------------------------------- requirements


def check_requirement(
    routing: RoutingModel, path: str, asked: RequirementModel, queue: str
) -> None:
    """Refuse a requirement of a queue's tickets that names what does not exist, or contradicts itself.

    Raises:
        PolicyMistake: the first thing wrong.
    """
    for field, names in (
        ("skills", asked.skills),
        ("preferred", asked.preferred),
        ("forbidden", asked.forbidden),
    ):
        for skill in names:
            where = f"{path}.{field}" if field == "forbidden" else f"{path}.{field}.{skill}"
            known(ROUTING_FILE, where, skill, routing.skills, "skill")
    for skill in asked.preferred:
        if skill in asked.skills:
            raise PolicyMistake(
                ROUTING_FILE,
                f"{path}.preferred.{skill}",
                skill,
                "stands among `skills` as well: a skill is either asked for or preferred",
            )
    for skill in asked.forbidden:
        if skill in asked.skills or skill in asked.preferred:
            raise PolicyMistake(
                ROUTING_FILE,
                f"{path}.forbidden",
                skill,
                "is asked for as well, so nobody could take such a ticket: leave out one",
            )
    _check_queues(routing, f"{path}.also_queues", asked.also_queues, queue)
    _check_steps(routing, f"{path}.steps", asked, queue)


def _check_queues(routing: RoutingModel, path: str, queues: Iterable[str], own: str) -> None:
    domain = routing.queues[own].domain
    for queue in queues:
        known(ROUTING_FILE, path, queue, routing.queues, "queue")
        if queue == own or routing.queues[queue].domain != domain:
            others = [
                name
                for name, model in routing.queues.items()
                if name != own and model.domain == domain
            ]
            raise PolicyMistake(
                ROUTING_FILE,
                path,
                queue,
                f"must be another queue of the domain {domain}: {', '.join(sorted(others)) or 'it has none'}",
            )


def _check_steps(routing: RoutingModel, path: str, asked: RequirementModel, queue: str) -> None:
    skills: dict[str, SkillModel] = {
        **asked.skills,
        **{name: SkillModel(level=level) for name, level in asked.preferred.items()},
    }
    levels = {name: model.level for name, model in skills.items()}
    latest = 0.0
    for n, step in enumerate(asked.steps):
        where = f"{path}.{n}"
        latest = _check_when_step_comes(where, step, latest, is_on_miss=asked.moves_on_miss)
        for skill, level in step.levels.items():
            _check_step_skill(f"{where}.levels.{skill}", skill, skills)
            if level >= levels[skill]:
                raise PolicyMistake(
                    ROUTING_FILE,
                    f"{where}.levels.{skill}",
                    level,
                    f"is not less than the {levels[skill]} that is asked before: give 1 to {levels[skill] - 1}"
                    if levels[skill] > 1
                    else f"cannot be less than the 1 that is asked before: use drop: [{skill}]",
                )
            levels[skill] = level
        for skill in step.drop:
            _check_step_skill(f"{where}.drop", skill, skills)
        if step.language and (asked.language.required or not asked.language.asked):
            raise PolicyMistake(
                ROUTING_FILE,
                f"{where}.language",
                True,
                "the language is required and never relaxes: leave out one of the two"
                if asked.language.required
                else "the language is not asked for, so nothing falls away: leave it out",
            )
        _check_queues(routing, f"{where}.queues", step.queues, queue)


def _check_when_step_comes(path: str, step: StepModel, latest: float, *, is_on_miss: bool) -> float:
    """Refuse a step that never comes or comes before the one before it; return when the next may come."""
    if step.after_seconds is None and step.share_of_time_left is None and not is_on_miss:
        raise PolicyMistake(
            ROUTING_FILE,
            path,
            step.model_dump(exclude_defaults=True),
            "never comes: give after_seconds: 120, share_of_time_left: 0.5, or moves_on_miss: true beside the steps",
        )
    if step.after_seconds is None:
        return latest
    if step.after_seconds < latest:
        raise PolicyMistake(
            ROUTING_FILE,
            f"{path}.after_seconds",
            step.after_seconds,
            f"counts from entry, so it is at least the {latest:g} of the step before it",
        )
    return step.after_seconds


def _check_step_skill(path: str, skill: str, skills: Mapping[str, SkillModel]) -> None:
    known(ROUTING_FILE, path, skill, skills, "skill among those asked for here")
    if skills[skill].required:
        raise PolicyMistake(
            ROUTING_FILE,
            path,
            skill,
            "is required, and what is required never relaxes: leave out `required` or this",
        )


# ------------------------------------------------------------------------------------------- findings


def find_in_rules(policy: Policy) -> Iterable[Finding]:
    """Yield what is wrong with the order of the rules, and with conditions that can never hold or always do."""
    for index, rule in enumerate(policy.rules):
        path = f"rules.{index}"
        yield from _find_before(policy, index, rule)
        kinds = policy.routing.rules[index].when.kind
        if policy.routing.rules[index].when.is_automatic or (
            kinds and set(kinds) <= {"auto_reply", "bounce"}
        ):
            yield _warning(
                path, f"{rule.name!r} is never reached: automatic messages open no tickets"
            )
        never = why_never(rule.when)
        if never is not None:
            yield _warning(f"{path}.when", f"{rule.name!r} never matches: {never}")
        if policy.routing.rules[index].when.percent == 100:
            yield _warning(
                f"{path}.when.percent",
                f"{rule.name!r} takes everybody: the trial is over, leave `percent` out",
            )
        yield from _find_unknown_causes(policy, path, policy.routing.rules[index])
        yield from _find_in_groups(f"{path}.when", rule, policy.routing.rules[index].when)
    if not policy.rules[-1].when.is_catch_all:
        yield Finding(
            "error",
            ROUTING_FILE,
            f"rules.{len(policy.rules) - 1}",
            "the last rule must have no conditions, so that every message goes somewhere: add"
            " {name: everything else, then: {queue: service}}",
        )


def _find_before(policy: Policy, index: int, rule: Rule) -> Iterable[Finding]:
    before = next((r for r in policy.rules[:index] if r.when.covers(rule.when)), None)
    path = f"rules.{index}"
    if before is None:
        return
    if before.when.is_catch_all:
        yield Finding(
            "error",
            ROUTING_FILE,
            path,
            f"{rule.name!r} is never reached: {before.name!r} before it has no conditions",
        )
    else:
        yield _warning(
            path, f"{rule.name!r} is never reached: {before.name!r} matches all that it does"
        )


def _find_unknown_causes(policy: Policy, path: str, rule: RuleModel) -> Iterable[Finding]:
    """Where there is a file of causes, tags and conditions are to name what stands in it."""
    causes = policy.causes
    if causes is None:
        return
    for tag in rule.then.tags:
        if tag not in causes.tags:
            yield Finding(
                "error",
                ROUTING_FILE,
                f"{path}.then.tags",
                f"{tag!r} does not stand in causes.yaml, among its causes or tags{nearest(tag, causes.tags)}",
            )
    for field in ("cause", "category"):
        for name in getattr(rule.when, field):
            if not causes.is_cause(name):
                yield _warning(
                    f"{path}.when.{field}",
                    f"{name!r} is no cause of causes.yaml{nearest(name, causes.model.causes)}",
                )


def _find_in_groups(path: str, rule: Rule, when: WhenModel) -> Iterable[Finding]:
    for n, one in enumerate(when.any_):
        if one == WhenModel():
            yield _warning(
                f"{path}.any.{n}", f"{rule.name!r}: an empty group always holds, so `any` does"
            )
    if when.not_ is not None and when.not_ == WhenModel():
        yield _warning(f"{path}.not", f"{rule.name!r}: an empty group always holds, `not` never")


def find_in_patience(policy: Policy) -> Iterable[Finding]:
    """Yield what relaxes before one offer has ended: the next best would be asked while the best is still thinking."""
    offer = policy.offers.seconds
    for index, rule in enumerate(policy.rules):
        asked = policy.routing.rules[index].then
        for what, seconds in _patience_of(rule, asked):
            if seconds < offer:
                yield _warning(
                    f"rules.{index}.then.{what}",
                    f"relaxes after {seconds:g} s, before one offer of {offer:g} s has ended",
                )
        known_agent = rule.known_agent
        if known_agent is not None:
            yield from _find_in_known_agent(f"rules.{index}.then.known_agent", asked.known_agent)
    yield from _find_in_known_agent("known_agent", policy.routing.known_agent)


def _find_in_known_agent(path: str, model: object) -> Iterable[Finding]:
    patience = getattr(model, "patience_seconds", 0.0)
    least = getattr(model, "at_least_seconds", 0.0)
    if 0 < patience < least:
        yield _warning(
            f"{path}.at_least_seconds",
            f"{least:g} s is more than the whole patience of {patience:g} s, so nobody is ever waited for",
        )


def _patience_of(rule: Rule, asked: RequirementModel) -> Iterable[tuple[str, float]]:
    for need in rule.requirement.skills:
        # What is preferred gives way on purpose.
        if need.relax_after is not None and need.skill not in asked.preferred:
            yield f"skills.{need.skill}", need.relax_after
    if rule.is_language_asked and rule.requirement.language_relax_after is not None:
        yield "language", rule.requirement.language_relax_after
    before = 0.0
    for n, step in enumerate(rule.requirement.steps):
        if step.after is not None:
            yield f"steps.{n}.after_seconds", step.after - before
            before = step.after


def _warning(path: str, message: str) -> Finding:
    return Finding("warning", ROUTING_FILE, path, message)
