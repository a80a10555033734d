"""`commands`, as far as customers themselves are heard: their answer to a survey, and which notices they do not want.

Owns the three scales and what counts as low on each. The gateway writes these when a signed link is used; nothing in them
names a person beyond the ids, but for a comment's own words.
"""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

from pydantic import StringConstraints

from schemas.ids import derive
from schemas.notifications import Category
from schemas.payload import Field, Id, Instant, Payload
from schemas.topics import COMMANDS

SurveyKind = Literal["csat", "ces", "nps"]
"""Satisfaction with a case (CSAT), how easy it was (CES), whether one would recommend us (NPS)."""

Level = Literal["low", "middle", "high"]

COMMENT_LENGTH_MAX: Final = 4_000

LATE_AFTER: Final = timedelta(days=14)
"""An answer that comes later than this after the question is kept and marked as late: memory has worked on it."""

CHANGE_WITHIN: Final = timedelta(hours=24)
"""For how long after their answer somebody may change their mind."""


class Scale(NamedTuple):
    """The scores that a survey knows, from `least` to `most`; up to `low_max` is low, from `high_min` on high."""

    least: int
    most: int
    low_max: int
    high_min: int

    def level(self, score: int) -> Level:
        """Return which of three a score is. For NPS these are detractors, passives and promoters."""
        if score <= self.low_max:
            return "low"
        return "high" if score >= self.high_min else "middle"


SCALES: Final[Mapping[SurveyKind, Scale]] = MappingProxyType(
    {
        "csat": Scale(1, 5, 2, 4),
        "ces": Scale(1, 7, 3, 5),
        # Reichheld, "The One Number You Need to Grow" (2003): 0-6 detractors, 7-8 passives, 9-10 promoters.
        "nps": Scale(0, 10, 6, 9),
    }
)
"""CSAT counts 4 and 5 of 5 as satisfied; CES is the seven-point form, 5 to 7 as easy."""


def survey_id(ticket_id: str, kind: SurveyKind) -> str:
    """Name the survey of a ticket: one of each kind, however often it is asked or answered."""
    return derive("survey", ticket_id, kind)


def feedback_id(survey: str, revision: int) -> str:
    """Name an answer to a survey, or its correction."""
    return derive("feedback", survey, str(revision))


_WHERE: dict[str, Any] = {
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "occurred_at": "2026-11-25T09:30:00Z",
}


class FeedbackGiven(Payload):
    """A customer answered a survey, at `occurred_at`; it was asked at `asked_at`.

    `revision` counts from 1; a later one is a changed mind, and `corrects` names the answer that it replaces. `may_share`: they
    agreed that whoever works on their case sees score and comment. Without it the two are for reports alone.
    """

    TYPE: ClassVar[str] = "feedback.given.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "feedback_id": "f-1",
        "survey_id": "s-1",
        "ticket_id": "3c59dc04-8e88-5024-9be8-079a5c74d079",
        "kind": "csat",
        "score": 2,
        "comment": "It took three mails.",
        "language": "en",
        "asked_at": "2026-11-25T08:00:00Z",
        "may_share": True,
    }

    feedback_id: Id
    survey_id: Id
    conversation_id: Id
    ticket_id: Id
    kind: SurveyKind
    score: int = Field(ge=0, le=10)
    comment: Annotated[str, StringConstraints(max_length=COMMENT_LENGTH_MAX)] = ""
    language: str | None = None
    asked_at: Instant
    occurred_at: Instant
    may_share: bool = False
    revision: int = Field(default=1, ge=1)
    corrects: Id | None = None

    @property
    def level(self) -> Level:
        """Which of three the score is."""
        return SCALES[self.kind].level(self.score)

    @property
    def is_late(self) -> bool:
        """Whether it came so long after the question that it is told apart."""
        return self.occurred_at - self.asked_at > LATE_AFTER


WishSource = Literal["link", "one_click", "word", "agent"]
"""How a wish was said: on the page behind a link, by a mail program's button, by a word such as STOP, to an agent."""


class WishEvent(Payload):
    """What a customer wants to be told, by category. `recipient` names their address without saying it.

    `wish_id` names the request: the same again changes nothing.
    """

    wish_id: Id
    conversation_id: Id
    recipient: Id
    category: Category
    source: WishSource
    occurred_at: Instant


class ContactOptedOut(WishEvent):
    """They want no more notices of that category."""

    TYPE: ClassVar[str] = "contact.opted_out.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "wish_id": "w-1",
        "recipient": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "category": "follow_up",
        "source": "one_click",
    }


class ContactOptedIn(WishEvent):
    """They want notices of that category (again)."""

    TYPE: ClassVar[str] = "contact.opted_in.v1"
    TOPIC: ClassVar[str] = COMMANDS.name
    EXAMPLE: ClassVar[dict[str, Any]] = {
        **_WHERE,
        "wish_id": "w-2",
        "recipient": "4b7c2d9e-3b0e-5a51-8a44-7a5d3f2f4a10",
        "category": "follow_up",
        "source": "link",
    }


AnyFeedbackEvent = FeedbackGiven | ContactOptedOut | ContactOptedIn
