"""Tags that say *why* a case arose: the form of `causes.yaml`, what is wrong with one, and which names it knows.

A cause is what a case is counted under; it has words for people in each language, a category above it (another cause), and
the desk that usually answers it. Without the file any tag goes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from schemas.commands import Tag
from schemas.tickets import Desk
from services.router.core.policy.findings import Finding, known, nearest
from services.router.core.policy.lexicon import fold
from services.router.core.policy.policy_model import PolicyMistake, RoutingModel
from services.router.core.policy.rule_model import Language, Model

CAUSES_FILE: Final = "causes.yaml"

NEAREST_MAX: Final = 3
"""How many known names a refusal names."""

Words = Annotated[str, StringConstraints(min_length=1, max_length=300, strip_whitespace=True)]


class CauseModel(Model):
    """One reason why customers write. `description` has its words by language, `parent` names the cause above it.

    `words` are further ways in which customers say it: a comment that has all telling words of one of them is counted under it.
    """

    description: Annotated[dict[Language, Words], Field(min_length=1)] = Field(
        examples=["description: {en: The carrier was late}"]
    )
    parent: Tag | None = None
    desk: Desk | None = None
    words: dict[Language, tuple[Words, ...]] = Field(
        default_factory=dict, examples=["words: {en: [where is my refund, money back]}"]
    )


class CausesModel(Model):
    """`causes.yaml`. `require_cause` lets nobody solve a ticket without one; `tags` may be put beside causes."""

    require_cause: bool = False
    causes: Annotated[dict[Tag, CauseModel], Field(min_length=1)]
    tags: dict[Tag, Words] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Causes:
    """The causes in force. `tags` are all names that may be put on a ticket, causes among them."""

    model: CausesModel
    tags: frozenset[str]

    @property
    def is_required(self) -> bool:
        """Whether a ticket is solved only with a cause."""
        return self.model.require_cause

    def is_cause(self, name: str) -> bool:
        """Whether there is such a cause."""
        return name in self.model.causes

    def unknown_cause(self, name: str) -> str | None:
        """Return the refusal of a cause that is not known, with the nearest that are; None for one that is."""
        if self.is_cause(name):
            return None
        return f"cause_unknown: {name}{_hint(name, self.model.causes)}"

    def unknown_tags(self, names: Iterable[str]) -> str | None:
        """Return the refusal of the first tag that is not known, with the nearest that are; None if all are."""
        for name in names:
            if name not in self.tags:
                return f"tag_unknown: {name}{_hint(name, self.tags)}"
        return None

    def desk_of(self, name: str) -> Desk | None:
        """Return the desk that usually answers a cause: its own, or that of the nearest above it that names one."""
        desks = (self.model.causes[one].desk for one in self.with_parents(name))
        return next((desk for desk in desks if desk is not None), None)

    def with_parents(self, name: str) -> tuple[str, ...]:
        """Return a cause and those above it, the nearest first."""
        found: list[str] = []
        at: str | None = name
        while at is not None and at in self.model.causes:
            found.append(at)
            at = self.model.causes[at].parent
        return tuple(found)


def _hint(name: str, names: Iterable[str]) -> str:
    """Return the known names that are nearest to `name`; where none is near, the first in the order of names."""
    ordered = sorted(names)
    close = get_close_matches(name, ordered, n=NEAREST_MAX, cutoff=0.5)
    return f"; nearest known: {', '.join(close or ordered[:NEAREST_MAX])}"


def build(model: CausesModel) -> Causes:
    """Make the causes of the parsed file.

    Raises:
        PolicyMistake: a parent is not there, or stands above itself; a tag is named twice.
    """
    for name, cause in model.causes.items():
        if cause.parent is not None:
            known(CAUSES_FILE, f"causes.{name}.parent", cause.parent, model.causes, "cause")
            _check_is_tree(model.causes, name)
    for name in model.tags:
        if name in model.causes:
            raise PolicyMistake(
                CAUSES_FILE, f"tags.{name}", name, "is a cause already: leave it out of tags"
            )
    return Causes(model, frozenset({*model.causes, *model.tags}))


def _check_is_tree(causes: Mapping[str, CauseModel], name: str) -> None:
    seen = [name]
    at = causes[name].parent
    while at is not None and at in causes:
        if at in seen:
            raise PolicyMistake(
                CAUSES_FILE,
                f"causes.{name}.parent",
                causes[name].parent,
                f"goes round in a circle ({' → '.join([*seen, at])}): leave one parent out",
            )
        seen.append(at)
        at = causes[at].parent


def find_in_causes(causes: Causes, routing: RoutingModel) -> Iterable[Finding]:
    """Return what will hardly be meant: a cause without words in a language we answer in, one that no policy knows."""
    for name, cause in causes.model.causes.items():
        lacking = [one for one in routing.languages if one not in cause.description]
        if lacking:
            yield Finding(
                "warning",
                CAUSES_FILE,
                f"causes.{name}.description",
                f"has no words in {', '.join(lacking)}, which routing.yaml answers in",
            )
    for index, name in enumerate(routing.escalation.on_causes):
        if not any(fold(name) == fold(cause) for cause in causes.model.causes):
            yield Finding(
                "error",
                "routing.yaml",
                f"escalation.on_causes.{index}",
                f"{name!r}: no such cause in {CAUSES_FILE}{nearest(name, causes.model.causes)}",
            )
