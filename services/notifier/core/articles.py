"""Articles that may answer a customer before a person does: which are worth naming, and how sure that is.

Owns the articles' file format, what of a message is asked, the score of an article for a question, and the floor below which
none is named. An article never replaces the ticket: it stands in the acknowledgement, beside it.

The score is the share of the question's weight that the article knows. A word weighs the more the fewer articles have it, and
one that no article has weighs most, so that a question about something else scores low however long it is. A word in the
title counts whole, one in the text alone less. What score is enough is measured, not guessed: see `thresholds`.
"""

import hashlib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.notifier.core.accounts import AccountSettings
from services.notifier.core.feedback import wilson
from services.notifier.core.text import clean_line

QUESTION_LENGTH_MAX: Final = 300
"""Characters of a message that are asked. What a message is about stands at its beginning."""

NAMED_MAX: Final = 3
"""Articles that one notice names at most."""

IN_TEXT: Final = 0.7
"""What a word counts that stands in an article's text and not in its title."""

SUMMARY_LENGTH_MAX: Final = 160
TITLE_LENGTH_MAX: Final = 120

_ADDRESS = re.compile(r"\S+@\S+|https?://\S+|www\.\S+", re.IGNORECASE)
_NUMBER = re.compile(r"[#№]?\b[A-Z]{0,4}-?\d[\d\-./ ]*\b")
_FRONT = re.compile(r"\A---\n(?P<front>.*?)\n---\n(?P<body>.*)\Z", re.DOTALL)
_FIELD = re.compile(r"^(?P<name>[a-z_]+):\s*(?P<value>.*)$")
_MARKS = re.compile(
    r"!?\[([^\]]*)\]\([^)]*\)|[*_`]+|^[ \t]*(?:[>#]+|[-+]|\d+\.)[ \t]+", re.MULTILINE
)
_TAGS = re.compile(r"<[^<>]{0,500}>")


class ArticleMistake(ValueError):
    """An article that cannot be used. `field` is what is wrong with it, `allowed` what would be right."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        super().__init__(f"{field}: {value!r}: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Article:
    """An article of our own. `keywords` are words that customers use and the text does not; they count as the title's."""

    article_id: str
    language: str
    title: str
    url: str
    keywords: str
    summary: str
    text: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An article that a search brought: its words as the language's dictionary has them, the title's apart."""

    article_id: str
    title: str
    url: str
    summary: str
    title_words: frozenset[str]
    text_words: frozenset[str]


class Suggestion(msgspec.Struct, frozen=True):
    """An article that is worth naming, and how sure that is: the score, from 0 to 1."""

    title: str
    url: str
    summary: str
    score: float


@dataclass(frozen=True, slots=True)
class Search:
    """Look for articles that answer `question`, for the notice that is held for them."""

    notice_id: str
    question: str
    language: str


@dataclass(frozen=True, slots=True)
class ArticlesFound:
    """A search has ended: what is worth naming, or nothing."""

    notice_id: str
    articles: tuple[Suggestion, ...] = ()


def parse(article_id: str, language: str, source: str) -> Article:
    """Read an article: Markdown below a head of `title`, `url` and, if wanted, `keywords`.

    Raises:
        ArticleMistake: the head is missing, or a field of it is wrong.
    """
    found = _FRONT.match(source.replace("\r\n", "\n"))
    if found is None:
        raise ArticleMistake("head", None, "begin with ---, then title: … and url: …, then ---")
    fields: dict[str, str] = {}
    for line in found["front"].splitlines():
        given = _FIELD.match(line.strip())
        if given is None or given["name"] not in ("title", "url", "keywords"):
            raise ArticleMistake(
                "head", line.strip()[:80], "a line `title: …`, `url: …` or `keywords: …`"
            )
        fields[given["name"]] = given["value"].strip()
    title = clean_line(fields.get("title", ""), TITLE_LENGTH_MAX)
    if not title:
        raise ArticleMistake("title", fields.get("title"), "a line of words")
    url = fields.get("url", "")
    if not re.fullmatch(r"https://[^\s<>\"']{3,500}", url):
        raise ArticleMistake("url", url, "an https address that customers can open")
    text = _MARKS.sub(lambda mark: mark[1] or "", _TAGS.sub("", found["body"]))
    paragraphs = [one for one in (clean_line(part, 2_000) for part in text.split("\n\n")) if one]
    if not paragraphs:
        raise ArticleMistake("text", None, "at least one paragraph below the head")
    return Article(
        article_id=article_id,
        language=language,
        title=title,
        url=url,
        keywords=clean_line(fields.get("keywords", ""), 500),
        summary=clean_line(paragraphs[0], SUMMARY_LENGTH_MAX),
        text="\n".join(paragraphs),
    )


def question(subject: str, text: str) -> str:
    """Return what is asked of a search: the beginning of a message without addresses and numbers; empty where nothing is left.

    Order numbers and addresses are the customer's own: no article has them, and no help centre is to be told.
    """
    words = _NUMBER.sub(" ", _ADDRESS.sub(" ", f"{subject}\n{text[: QUESTION_LENGTH_MAX * 4]}"))
    asked = clean_line(words, QUESTION_LENGTH_MAX).strip("… ")
    return asked if any(char.isalpha() for char in asked) else ""


def folded(text: str, language: str) -> str:
    """Return a text in lower case as its language has it: Turkish I and İ differ, Russian ё is often written as е.

    PostgreSQL lowers letters by the database's locale, which knows none of this.
    """
    if language == "tr":
        text = text.replace("İ", "i").replace("I", "ı")
    lowered = text.lower()
    return lowered.replace("ё", "е") if language == "ru" else lowered


def weight(documents: int, of: int) -> float:
    """Return how much a word weighs that `documents` of all `of` articles have."""
    return math.log(1 + (of + 1) / (documents + 0.5))


def score(asked: Mapping[str, float], candidate: Candidate) -> float:
    """Return the share, from 0 to 1, of the question's weight (`asked`, by word) that an article knows."""
    whole = sum(asked.values())
    if whole <= 0:
        return 0.0
    known = sum(
        size * (1.0 if word in candidate.title_words else IN_TEXT)
        for word, size in asked.items()
        if word in candidate.title_words or word in candidate.text_words
    )
    return known / whole


def choose(
    asked: Mapping[str, float],
    candidates: Iterable[Candidate],
    floor: float,
    limit: int = NAMED_MAX,
) -> tuple[Suggestion, ...]:
    """Return the articles that are worth naming, the surest first; none below `floor`. Equal scores go by title."""
    scored = sorted(
        ((score(asked, one), one) for one in candidates),
        key=lambda pair: (-pair[0], pair[1].title, pair[1].url),
    )
    kept: dict[str, Suggestion] = {}
    for sure, one in scored:
        if sure >= floor and one.url not in kept:
            kept[one.url] = Suggestion(one.title, one.url, one.summary, round(sure, 4))
    return tuple(kept.values())[:limit]


@dataclass(frozen=True, slots=True)
class Judged:
    """An article for a question that people have labelled: its score, and whether it was the right one.

    `place` counts from 0, the best; a question's next ones are judged too where a notice would name them. A question has one
    right article; one that no article answers is labelled so, and any article for it is wrong.
    """

    score: float
    is_right: bool
    place: int = 0


@dataclass(frozen=True, slots=True)
class Threshold:
    """What a floor would mean: how many of the questions get an article, how many are named for them, how many are right.

    `sure` is the lower end of Wilson's interval at 95 %, for the few questions that a team has labelled.
    """

    floor: float
    named: int
    right: int
    asked: int
    sure: float
    helped: int

    @property
    def precision(self) -> float:
        """The share of named articles that are right."""
        return self.right / self.named if self.named else 0.0

    @property
    def coverage(self) -> float:
        """The share of questions that get an article."""
        return self.helped / self.asked if self.asked else 0.0


def thresholds(judged: Sequence[Judged]) -> tuple[Threshold, ...]:
    """Return what each possible floor means, from the lowest: one for each score that occurs."""
    found = []
    asked = sum(one.place == 0 for one in judged)
    for floor in sorted({one.score for one in judged}):
        above = [one for one in judged if one.score >= floor]
        right = sum(one.is_right for one in above)
        helped = sum(one.place == 0 for one in above)
        sure = wilson(right, len(above))
        least = 0.0 if sure is None else sure.least
        found.append(Threshold(floor, len(above), right, asked, least, helped))
    return tuple(found)


def lowest_floor(judged: Sequence[Judged], sure: float) -> Threshold | None:
    """Return the lowest floor above which named articles are surely right with a share of at least `sure`; None: no floor.

    "Surely" is the lower end of the interval, so that few questions prove little: ten right of ten are sure of 72 % only.
    """
    return next((one for one in thresholds(judged) if one.sure >= sure), None)


# ------------------------------------------------------------------------------------- the policy


class GuideFile(BaseModel):
    """A help centre as written: its kind, and the settings that the kind takes."""

    model_config = ConfigDict(extra="allow", frozen=True)

    vendor: str


class ArticlesFile(BaseModel):
    """`articles:` of `notify.yaml`.

    `source` is `folder` (the Markdown below `articles/` of the policy), the name of one of `guides`, or `none`. `floor` is the
    score, by language, from which on an article is named: `signalbox articles measure` says what each floor is worth. A
    language without a floor gets no articles: how sure is sure enough nobody can choose for you.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str = "none"
    floor: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    named_max: int = Field(default=2, ge=1, le=NAMED_MAX)
    guides: dict[str, GuideFile] = Field(default_factory=dict, max_length=20)


@dataclass(frozen=True, slots=True)
class ArticlesPolicy:
    """The rules on articles in force, and the folder's articles where these are the source. `version` names their state."""

    source: str = "none"
    floor: Mapping[str, float] = field(default_factory=dict)
    named_max: int = 2
    vendor: str = ""
    settings: AccountSettings | None = None
    shelf: tuple[Article, ...] = ()
    version: str = ""

    def is_asked(self, language: str) -> bool:
        """Whether a question in that language is asked of anything."""
        return self.source != "none" and language in self.floor


NO_ARTICLES: Final = ArticlesPolicy()


def build_articles(
    file: ArticlesFile,
    sources: Mapping[str, str],
    languages: Collection[str],
    guides: Mapping[str, type[AccountSettings]],
) -> ArticlesPolicy:
    """Check `articles:` with the folder's files (`sources` by `<language>/<id>.md`) and the kinds of help centres.

    Raises:
        ArticleMistake: the first thing that cannot work; `field` is its path in `notify.yaml`, or the article's file.
    """
    for language in file.floor:
        if language not in languages:
            raise ArticleMistake(
                f"articles.floor.{language}",
                language,
                f"one of the languages: {', '.join(sorted(languages))}",
            )
    made: dict[str, tuple[str, AccountSettings]] = {}
    for name, guide in file.guides.items():
        kind = guides.get(guide.vendor)
        if kind is None:
            raise ArticleMistake(
                f"articles.guides.{name}.vendor",
                guide.vendor,
                f"one of {', '.join(sorted(guides))}",
            )
        try:
            settings = kind.model_validate(guide.model_extra or {})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ArticleMistake(f"articles.guides.{name}.{where}", None, first["msg"]) from None
        made[name] = (guide.vendor, settings)
    shelf = _shelf(sources)
    if file.source == "folder":
        if not shelf:
            raise ArticleMistake(
                "articles.source", "folder", "needs articles: <language>/<name>.md below articles/"
            )
        digest = hashlib.sha256(repr(shelf).encode()).hexdigest()[:16]
        return ArticlesPolicy("folder", file.floor, file.named_max, shelf=shelf, version=digest)
    if file.source == "none":
        return NO_ARTICLES
    if file.source not in made:
        raise ArticleMistake(
            "articles.source",
            file.source,
            f"folder, none, or one of the guides: {', '.join(sorted(made))}",
        )
    vendor, settings = made[file.source]
    return ArticlesPolicy(file.source, file.floor, file.named_max, vendor, settings)


def _shelf(sources: Mapping[str, str]) -> tuple[Article, ...]:
    shelf = []
    for path, source in sorted(sources.items()):
        language, _, name = path.partition("/")
        try:
            shelf.append(parse(name.removesuffix(".md"), language, source))
        except ArticleMistake as mistake:
            raise ArticleMistake(
                f"articles/{path}: {mistake.field}", mistake.value, mistake.allowed
            ) from None
    return tuple(shelf)
