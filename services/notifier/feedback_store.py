"""Surveys and their answers as rows: who was asked, with which chance, and the one answer that counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from chassis.ledger import DocumentStore
from chassis.stage import Connection
from schemas.feedback import FeedbackGiven, SurveyKind
from schemas.tickets import ConversationErased
from services.notifier.metrics import FEEDBACK, SURVEYS

STAGE: Final = "notifier.feedback"

_ASKED: Final = """
INSERT INTO survey (survey_id, notice_id, ticket_id, conversation_id, kind, channel, queue, language, outcome, cause,
                    probability, asked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT DO NOTHING
"""
_SETTLED: Final = "UPDATE survey SET status = $2 WHERE notice_id = $1"
_GIVEN: Final = """
INSERT INTO feedback AS f (survey_id, feedback_id, ticket_id, conversation_id, kind, score, comment, language, may_share,
                           revision, asked_at, first_at, given_at, is_late)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $13)
ON CONFLICT (survey_id) DO UPDATE
   SET feedback_id = excluded.feedback_id, score = excluded.score,
       comment = CASE excluded.comment WHEN '' THEN f.comment ELSE excluded.comment END,
       may_share = excluded.may_share, revision = excluded.revision,
       given_at = greatest(f.first_at, excluded.given_at)
 WHERE excluded.revision > f.revision
RETURNING xmax = 0 AS is_new
"""
"""One answer a survey. A repeat of an older revision changes nothing; lateness is that of the first answer.

Another score without a comment takes nothing back that was written: the page says so. The consent is what was said last.
"""

_ERASE: Final = "UPDATE feedback SET comment = '' WHERE conversation_id = $1"


class Asking(msgspec.Struct, frozen=True):
    """A ticket, as far as it matters to whom its customer is among those who were asked."""

    channel: str
    language: str
    queue: str
    answers: int = 0
    is_reopened: bool = False
    cause: str | None = None

    @property
    def outcome(self) -> str:
        """How the case went, in one word."""
        if self.is_reopened:
            return "reopened"
        return "at_once" if self.answers <= 1 else "after_more"


class Cases(msgspec.Struct, frozen=True):
    """A conversation's tickets, by id, the latest last."""

    tickets: dict[str, Asking] = {}


@dataclass(frozen=True, slots=True)
class AskedRow:
    """Somebody is asked. `probability` is None where nobody said with which chance."""

    survey_id: str
    notice_id: str
    ticket_id: str
    conversation_id: str
    kind: SurveyKind
    asking: Asking | None
    language: str
    channel: str
    probability: float | None
    at: datetime


@dataclass(frozen=True, slots=True)
class SettledRow:
    """What became of the notice that asks."""

    notice_id: str
    status: str


class FeedbackStore(DocumentStore[Cases]):
    """Writes rows in the transaction of the batch that tells of them."""

    def __init__(self) -> None:
        super().__init__(STAGE, Cases)

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write what was asked, what became of asking, and what was answered, in order."""
        for _, row in rows:
            match row:
                case AskedRow():
                    await _asked(connection, row)
                case SettledRow():
                    await connection.execute(_SETTLED, row.notice_id, row.status)
                case FeedbackGiven():
                    await _given(connection, row)
                case ConversationErased():
                    await connection.execute(_ERASE, row.conversation_id)
                case _:
                    raise TypeError(f"feedback has no table for {type(row).__name__}")


async def _asked(connection: Connection, row: AskedRow) -> None:
    asking = row.asking
    status = await connection.execute(
        _ASKED,
        row.survey_id,
        row.notice_id,
        row.ticket_id,
        row.conversation_id,
        row.kind,
        row.channel if asking is None else asking.channel,
        "" if asking is None else asking.queue,
        row.language,
        "unknown" if asking is None else asking.outcome,
        None if asking is None else asking.cause,
        row.probability,
        row.at,
    )
    if status.endswith(" 1"):
        SURVEYS.labels(row.kind).inc()


async def _given(connection: Connection, event: FeedbackGiven) -> None:
    written = await connection.fetchrow(
        _GIVEN,
        event.survey_id,
        event.feedback_id,
        event.ticket_id,
        event.conversation_id,
        event.kind,
        event.score,
        event.comment,
        event.language or "",
        event.may_share,
        event.revision,
        event.asked_at,
        event.occurred_at,
        event.is_late,
    )
    if written is not None and written["is_new"]:
        FEEDBACK.labels(event.kind, event.level).inc()
