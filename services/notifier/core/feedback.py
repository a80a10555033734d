"""What surveys say: not an average, but who was asked, who answered, how low, and how far that can be believed.

Owns the definitions. A survey counts in the stretch in which it was asked, with whatever was answered by now; one that never
arrived was not asked. A share comes with its 95 % interval after Wilson. Where answers are fewer than `FEW`, that is said.

Those who answer differ from those who were asked. `Slant` shows how, and the weighted shares make up for it as far as it can be
seen: an answer weighs the inverse of the chance to be asked (the draw) times the chance to answer (the rate of its like).
Neither knows what made the others silent.

Sources: Wilson (1927) for one share; Newcombe (1998) for the NPS, the difference of two shares of one sample, whose intervals
are squared and added with their correlation; Kish (1965) for the number of answers that weighted ones are worth; Fisher (1935)
for a group against the others, with Bonferroni's correction for how many groups are looked at.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from schemas.feedback import SCALES, Level, SurveyKind

FEW: Final = 30
"""Below so many answers a figure is told as resting on few."""

Z: Final = 1.959963984540054
"""The standard normal quantile of a two-sided interval of 95 %."""

CHANCE: Final = 0.05
"""How often a report may name any group although all answer alike."""

LIKE_MIN: Final = 5
"""Answers that a group must have before its own rate is believed; a smaller one takes the rate of its channel, or of all."""

By = Literal["kind", "channel", "queue", "language", "outcome", "cause", "day"]

UNCLASSIFIED: Final = "unclassified"
"""A comment that has the words of no cause."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered. `causes` are those whose words the comment has; `has_comment` whether there is one."""

    score: int
    is_late: bool
    is_changed: bool
    has_comment: bool
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Survey:
    """Somebody who was asked. `probability` is the chance that their case was drawn (None: not known)."""

    kind: SurveyKind
    channel: str
    queue: str
    language: str
    outcome: str
    cause: str
    day: str
    probability: float | None
    asked_at: datetime
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A share with its 95 % interval; `of` is what it is a share of, or what weighted answers are worth."""

    value: float
    least: float
    most: float
    of: float


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one kind of question, whole or of one group.

    `scores` has the number of each score of the scale, `levels` of low, middle and high. `low`, `high` and `response` are
    shares, None of nothing. `nps` is from -1 to 1 and only for that kind. `weighted_low` makes up for who was asked and who
    answered; `unweighted` counts the answers that have no weight.
    """

    kind: SurveyKind
    asked: int
    answered: int
    late: int
    changed: int
    commented: int
    scores: Mapping[int, int]
    levels: Mapping[Level, int]
    response: Share | None
    low: Share | None
    high: Share | None
    mean: float | None
    median: int | None
    nps: Share | None
    weighted_low: Share | None
    unweighted: int

    @property
    def is_few(self) -> bool:
        """Whether the figures rest on few answers."""
        return self.answered < FEW


@dataclass(frozen=True, slots=True)
class Slant:
    """How one group answers, against all others who were asked.

    `verdict`: `more`, `less`, or `as_all` where chance may explain it among as many groups as the report looks at.
    """

    dimension: str
    group: str
    asked_share: float
    answered_share: float
    response: Share
    verdict: Literal["more", "less", "as_all"]


@dataclass(frozen=True, slots=True)
class CauseCount:
    """How many comments have the words of a cause, and how many of those came with a low score."""

    cause: str
    comments: int
    low: int


@dataclass(frozen=True, slots=True)
class Report:
    """All figures, by kind of question. `groups` are by `by`, each with its figures."""

    since: datetime
    until: datetime
    zone: str
    by: By
    totals: tuple[Figures, ...]
    groups: tuple[tuple[str, Figures], ...]
    slants: tuple[Slant, ...]
    causes: tuple[CauseCount, ...]


_DIMENSIONS: Final[tuple[tuple[str, Callable[[Survey], str]], ...]] = (
    ("channel", lambda one: one.channel),
    ("queue", lambda one: one.queue),
    ("language", lambda one: one.language),
    ("outcome", lambda one: one.outcome),
)


def wilson(n: float, of: float) -> Share | None:
    """Return a share with its interval after Wilson; None of nothing. `of` may be a fraction: what weighted answers are worth."""
    if of <= 0:
        return None
    p, square = n / of, Z * Z
    middle = (p + square / (2 * of)) / (1 + square / of)
    half = Z / (1 + square / of) * math.sqrt(p * (1 - p) / of + square / (4 * of * of))
    # Where all or nothing is counted the bound is exact, and rounding must not move it.
    least = 0.0 if n == 0 else max(0.0, middle - half)
    most = 1.0 if n == of else min(1.0, middle + half)
    return Share(p, least, most, of)


def net(high: int, low: int, of: int) -> Share | None:
    """Return the share of promoters less that of detractors, with an interval made of Wilson's for both; None of nothing."""
    up, down = wilson(high, of), wilson(low, of)
    if up is None or down is None:
        return None
    spread = (1 - up.value) * (1 - down.value)
    # The shares of two answers that exclude each other: where one rises, the other falls.
    together = -math.sqrt(up.value * down.value / spread) if spread > 0 else 0.0
    value = up.value - down.value

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * together * a * b + b * b))

    least = value - reach(up.value - up.least, down.most - down.value)
    most = value + reach(up.most - up.value, down.value - down.least)
    return Share(value, max(-1.0, least), min(1.0, most), of)


def report(
    surveys: Sequence[Survey], since: datetime, until: datetime, zone: str, by: By
) -> Report:
    """Work out the report of the surveys asked in a stretch."""
    totals, groups = [], []
    for kind in SCALES:
        of_kind = [one for one in surveys if one.kind == kind]
        if not of_kind:
            continue
        weights = weights_of(of_kind)
        totals.append(_figures(kind, of_kind, weights))
        for name, places in _grouped(of_kind, by):
            here = [of_kind[place] for place in places]
            groups.append((name, _figures(kind, here, [weights[place] for place in places])))
    return Report(
        since,
        until,
        zone,
        by,
        tuple(totals),
        tuple(groups),
        tuple(_slants(surveys)),
        tuple(_causes(surveys)),
    )


def _grouped(surveys: Sequence[Survey], by: By) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for place, one in enumerate(surveys):
        found.setdefault(str(getattr(one, by)) or "-", []).append(place)
    return sorted(found.items())


def weights_of(surveys: Sequence[Survey]) -> list[float | None]:
    """Return what each answer weighs; None for who did not answer, and where the chance to be asked is not known."""
    alike = (
        _rates(surveys, lambda one: (one.channel, one.queue, one.language, one.outcome)),
        _rates(surveys, lambda one: (one.channel,)),
        _rates(surveys, lambda _: ()),
    )
    weights: list[float | None] = []
    for one in surveys:
        if one.answer is None or one.probability is None:
            weights.append(None)
            continue
        keys = ((one.channel, one.queue, one.language, one.outcome), (one.channel,), ())
        rate = next(
            (
                rates[key].rate
                for rates, key in zip(alike, keys, strict=True)
                if rates[key].answered >= LIKE_MIN
            ),
            alike[-1][()].rate,
        )
        weights.append(1 / (one.probability * rate))
    return weights


@dataclass(slots=True)
class _Rate:
    """How many of a group answered; those asked are weighed by their chance to be asked."""

    answered: int = 0
    asked_weight: float = 0.0
    answered_weight: float = 0.0

    @property
    def rate(self) -> float:
        return self.answered_weight / self.asked_weight


def _rates(
    surveys: Iterable[Survey], key: Callable[[Survey], tuple[str, ...]]
) -> dict[tuple[str, ...], _Rate]:
    found: dict[tuple[str, ...], _Rate] = {}
    for one in surveys:
        if one.probability is None:
            continue
        rate = found.setdefault(key(one), _Rate())
        rate.asked_weight += 1 / one.probability
        if one.answer is not None:
            rate.answered += 1
            rate.answered_weight += 1 / one.probability
    return found


def _figures(
    kind: SurveyKind, surveys: Sequence[Survey], weights: Sequence[float | None]
) -> Figures:
    scale = SCALES[kind]
    answers = [one.answer for one in surveys if one.answer is not None]
    scores = Counter(answer.score for answer in answers)
    levels: Counter[Level] = Counter(scale.level(answer.score) for answer in answers)
    ordered = sorted(answer.score for answer in answers)
    n = len(answers)
    return Figures(
        kind=kind,
        asked=len(surveys),
        answered=n,
        late=sum(answer.is_late for answer in answers),
        changed=sum(answer.is_changed for answer in answers),
        commented=sum(answer.has_comment for answer in answers),
        scores={score: scores[score] for score in range(scale.least, scale.most + 1)},
        levels={"low": levels["low"], "middle": levels["middle"], "high": levels["high"]},
        response=wilson(n, len(surveys)),
        low=wilson(levels["low"], n),
        high=wilson(levels["high"], n),
        mean=math.fsum(ordered) / n if n else None,
        median=ordered[(n - 1) // 2] if n else None,
        nps=net(levels["high"], levels["low"], n) if kind == "nps" else None,
        weighted_low=_weighted_low(kind, surveys, weights),
        unweighted=n - sum(weight is not None for weight in weights),
    )


def _weighted_low(
    kind: SurveyKind, surveys: Sequence[Survey], weights: Sequence[float | None]
) -> Share | None:
    """Return the share of low ratings among all who were asked or could have been, as far as the weights reach."""
    scale = SCALES[kind]
    low = whole = squares = 0.0
    for one, weight in zip(surveys, weights, strict=True):
        if one.answer is None or weight is None:
            continue
        whole += weight
        squares += weight * weight
        if scale.level(one.answer.score) == "low":
            low += weight
    if not whole:
        return None
    worth = whole * whole / squares
    return wilson(low / whole * worth, worth)


def _slants(surveys: Sequence[Survey]) -> Iterable[Slant]:
    answered = sum(one.answer is not None for one in surveys)
    if not answered:
        return
    groups = [len({key(one) or "-" for one in surveys}) for _, key in _DIMENSIONS]
    # Of two groups, one against the other is one question.
    looks = sum(n if n > 2 else 1 for n in groups if n > 1)
    for dimension, key in _DIMENSIONS:
        asked = Counter(key(one) or "-" for one in surveys)
        said = Counter(key(one) or "-" for one in surveys if one.answer is not None)
        if len(asked) < 2:
            continue
        for group, n in sorted(asked.items()):
            rate = wilson(said[group], n)
            assert rate is not None, "a group has somebody in it"
            yield Slant(
                dimension,
                group,
                n / len(surveys),
                said[group] / answered,
                rate,
                _verdict(said[group], n, answered, len(surveys), CHANCE / looks),
            )


def _verdict(
    said: int, asked: int, answered: int, of: int, chance: float
) -> Literal["more", "less", "as_all"]:
    """Say whether a group, `said` of `asked`, differs from the others in `answered` of `of`: Fisher's exact test, two-sided."""
    least, most = max(0, asked - (of - answered)), min(asked, answered)
    whole = _log_choose(of, answered)

    def tail(numbers: range) -> float:
        return math.fsum(
            math.exp(_log_choose(asked, k) + _log_choose(of - asked, answered - k) - whole)
            for k in numbers
        )

    if said * of > answered * asked:
        return "more" if 2 * tail(range(said, most + 1)) < chance else "as_all"
    return "less" if 2 * tail(range(least, said + 1)) < chance else "as_all"


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _causes(surveys: Sequence[Survey]) -> Iterable[CauseCount]:
    """Count causes that comments name; one that names several counts for each, and one that names none is said so."""
    comments: Counter[str] = Counter()
    low: Counter[str] = Counter()
    for one in surveys:
        if one.answer is None or not one.answer.has_comment:
            continue
        is_low = SCALES[one.kind].level(one.answer.score) == "low"
        for cause in one.answer.causes or (UNCLASSIFIED,):
            comments[cause] += 1
            low[cause] += is_low
    ordered = sorted(
        comments.items(), key=lambda item: (item[0] == UNCLASSIFIED, -item[1], item[0])
    )
    return [CauseCount(cause, n, low[cause]) for cause, n in ordered]
