"""Rules as they stand in `routing.yaml` made ready to decide by: texts folded and compiled, defaults worked in."""

from collections.abc import Iterator, Mapping
from datetime import timedelta

from hours.calendar import Calendar
from schemas.routing import RelaxStep
from services.router.core.assignment.requirement import Requirement, SkillNeed, step_from_wire
from services.router.core.policy.condition import (
    PLACES,
    AnyOf,
    Between,
    Condition,
    Contains,
    HasWords,
    InHours,
    Matches,
    Not,
    OneOf,
    Share,
    Test,
    WordsIn,
)
from services.router.core.policy.facts import CLASSIFIED
from services.router.core.policy.lexicon import (
    Lexicon,
    PatternMistake,
    compile_pattern,
    fold,
    spaced_words,
)
from services.router.core.policy.policy_model import ROUTING_FILE, PolicyMistake, RoutingModel
from services.router.core.policy.preset import Preset
from services.router.core.policy.rule_model import (
    BoundsModel,
    KnownAgentModel,
    RequirementModel,
    RuleModel,
    SkillModel,
    WhenModel,
)
from services.router.core.policy.rules import Rule
from services.router.core.tickets.known_agent import KnownAgent


def compile_rules(routing: RoutingModel, calendars: Mapping[str, Calendar]) -> tuple[Rule, ...]:
    """Return the rules in their order. Every name in them is known to exist.

    Raises:
        PolicyMistake: a pattern cannot be used, or all of them together are too large.
    """
    lexicon = Lexicon()
    rules = tuple(
        _rule(f"rules.{n}", rule, routing, calendars, lexicon)
        for n, rule in enumerate(routing.rules)
    )
    try:
        lexicon.close()
    except PatternMistake as mistake:
        raise PolicyMistake(ROUTING_FILE, "rules", "matches", str(mistake)) from None
    return rules


def _rule(
    path: str,
    rule: RuleModel,
    routing: RoutingModel,
    calendars: Mapping[str, Calendar],
    lexicon: Lexicon,
) -> Rule:
    then = rule.then
    return Rule(
        name=rule.name,
        when=_Compiler(rule.name, calendars, lexicon).condition(rule.when, f"{path}.when"),
        queue=then.queue,
        priority=then.priority,
        sla_policy=then.sla_policy,
        requirement=requirement(then, routing),
        is_language_asked=then.language.asked,
        is_language_required=then.language.required,
        cost=then.cost,
        costs=then.costs,
        tags=tuple(sorted(set(then.tags))),
        known_agent=known_agent(then.known_agent),
    )


def requirement(asked: RequirementModel, routing: RoutingModel) -> Requirement:
    """Return a requirement with the defaults of `relaxation` worked in; its language is the ticket's to say."""
    language = asked.language
    patience = language.relax_after_seconds or routing.relaxation.language_seconds
    preferred = (
        SkillNeed(name, level, routing.relaxation.preference_seconds)
        for name, level in asked.preferred.items()
    )
    return Requirement(
        language_level=language.level,
        language_relax_after=None if language.required else patience,
        skills=tuple(
            sorted((*needs(asked.skills, routing), *preferred), key=lambda need: need.skill)
        ),
        forbidden=tuple(sorted(set(asked.forbidden))),
        queues=tuple(dict.fromkeys(asked.also_queues)),
        steps=tuple(step_from_wire(RelaxStep(**step.model_dump())) for step in asked.steps),
        moves_on_miss=asked.moves_on_miss,
    )


def needs(skills: Mapping[str, SkillModel], routing: RoutingModel) -> tuple[SkillNeed, ...]:
    """Return skills asked for, by name, each with its patience."""
    defaults = routing.relaxation.skill_seconds
    return tuple(
        SkillNeed(
            name,
            asked.level,
            None if asked.required else asked.relax_after_seconds or defaults.get(name),
        )
        for name, asked in sorted(skills.items())
    )


def preset(asked: RequirementModel | None, routing: RoutingModel) -> Preset | None:
    """Return what a queue asks, or None where it asks nothing."""
    if asked is None:
        return None
    return Preset(requirement(asked, routing), asked.language.required)


def known_agent(model: KnownAgentModel | None) -> KnownAgent | None:
    """Return how long known agents are waited for, or None where nothing is said."""
    if model is None:
        return None
    return KnownAgent(
        timedelta(seconds=model.patience_seconds),
        timedelta(hours=model.half_life_hours),
        timedelta(seconds=model.at_least_seconds),
    )


class _Compiler:
    """Makes the conditions of one rule."""

    def __init__(self, rule: str, calendars: Mapping[str, Calendar], lexicon: Lexicon) -> None:
        self._rule = rule
        self._calendars = calendars
        self._lexicon = lexicon

    def condition(self, when: WhenModel, path: str) -> Condition:
        """Return a condition whose tests stand in the order of what they cost."""
        return Condition(
            (
                *self._names(when),
                *self._numbers(when),
                *self._clock(when),
                *self._words(when),
                *self._patterns(when, path),
                *self._groups(when, path),
            )
        )

    def _names(self, when: WhenModel) -> Iterator[Test]:
        for name in ("channel", "account", "language", "kind", "visibility", "address_kind"):
            allowed: tuple[str, ...] = getattr(when, name)
            if allowed:
                yield OneOf(name, frozenset(allowed))
        for name in ("verified", "is_automatic"):
            wanted: bool | None = getattr(when, name)
            if wanted is not None:
                yield OneOf(name, frozenset({wanted}))
        for name in CLASSIFIED:
            told: tuple[str, ...] = getattr(when, name)
            if told:
                yield OneOf(name, frozenset(map(fold, told)))
        customer = when.customer
        if customer is not None and customer.tier:
            yield OneOf("customer.tier", frozenset(map(fold, customer.tier)))
        if customer is not None and customer.contract:
            yield OneOf("customer.contract", frozenset(map(fold, customer.contract)))
        if customer is not None and customer.is_proved is not None:
            yield OneOf("customer.is_proved", frozenset({customer.is_proved}))

    def _numbers(self, when: WhenModel) -> Iterator[Test]:
        asked: list[tuple[str, BoundsModel | None]] = [
            ("previous_tickets", when.previous_tickets),
            ("reopens", when.reopens),
            ("rating", when.rating),
        ]
        if when.customer is not None:
            asked.append(("customer.conversations", when.customer.conversations))
            asked.append(("customer.orders", when.customer.orders))
        for what, bounds in asked:
            if bounds is not None:
                yield Between(what, bounds.at_least, bounds.at_most)

    def _clock(self, when: WhenModel) -> Iterator[Test]:
        if when.percent is not None and when.percent < 100:
            yield Share(self._rule, when.percent)
        if when.queue_length is not None:
            asked = when.queue_length
            yield Between(f"queue_length {asked.queue}", asked.at_least, asked.at_most, asked.queue)
        if when.hours is not None:
            name = when.hours.calendar
            yield InHours(name, self._calendars[name], when.hours.open)

    def _words(self, when: WhenModel) -> Iterator[Test]:
        if when.words:
            search = self._lexicon.parts["both"]
            phrases = tuple(spaced_words(fold(words)).strip() for words in when.words)
            ids = search.add(phrase.partition(" ")[0] for phrase in phrases)
            yield HasWords(phrases, search, ids, frozenset(ids))
        given: tuple[tuple[WordsIn, tuple[str, ...]], ...] = (
            ("subject_contains", when.subject_contains),
            ("text_contains", when.text_contains),
            ("contains", when.contains),
        )
        for what, texts in given:
            if texts:
                parts = tuple(map(fold, texts))
                search = self._lexicon.parts[PLACES[what]]
                yield Contains(what, parts, search, frozenset(search.add(parts)))

    def _patterns(self, when: WhenModel, path: str) -> Iterator[Test]:
        if not when.matches:
            return
        folded: list[str] = []
        for n, pattern in enumerate(when.matches):
            try:
                folded.append(compile_pattern(pattern))
            except PatternMistake as mistake:
                raise PolicyMistake(
                    ROUTING_FILE, f"{path}.matches.{n}", pattern, str(mistake)
                ) from None
        search = self._lexicon.patterns
        yield Matches(when.matches, search, search.add(folded))

    def _groups(self, when: WhenModel, path: str) -> Iterator[Test]:
        if when.any_:
            yield AnyOf(
                tuple(self.condition(one, f"{path}.any.{n}") for n, one in enumerate(when.any_))
            )
        if when.not_ is not None:
            yield Not(self.condition(when.not_, f"{path}.not"))
