"""The table that lets a survey be answered once, however many post at the same moment, and changed for a while."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from chassis.stage import Connection
from schemas.feedback import CHANGE_WITHIN

REVISIONS_MAX: Final = 10
"""How often somebody's mind may change; then the answer stands."""

_RECORD: Final = """
INSERT INTO survey_answer AS a (survey_id, revision, digest, score, first_at, answered_at)
VALUES ($1, 1, $2, $3, $4, $4)
ON CONFLICT (survey_id) DO UPDATE
   SET revision = a.revision + 1, digest = $2, score = $3, answered_at = greatest(a.answered_at, $4)
 WHERE a.digest <> $2 AND a.first_at > $5 AND a.revision < $6
RETURNING revision, answered_at, first_at
"""
_KNOWN: Final = (
    "SELECT revision, digest, score, first_at, answered_at FROM survey_answer WHERE survey_id = $1"
)
_FORGET: Final = "DELETE FROM survey_answer WHERE answered_at < $1"


@dataclass(frozen=True, slots=True)
class Answer:
    """A survey's answer as it stands. `revision` counts changed minds from 1."""

    revision: int
    score: int
    first_at: datetime
    answered_at: datetime

    def may_change(self, now: datetime) -> bool:
        """Whether another answer would still take its place."""
        return now - self.first_at < CHANGE_WITHIN and self.revision < REVISIONS_MAX


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a post came to. `taken`: it is the answer now; `same`: it was already; `closed`: another one stands."""

    outcome: Literal["taken", "same", "closed"]
    answer: Answer


async def record(
    connection: Connection, survey_id: str, digest: str, score: int, now: datetime
) -> Recorded:
    """Make this the survey's answer, unless another one stands that may not be changed any more."""
    row = await connection.fetchrow(
        _RECORD, survey_id, digest, score, now, now - CHANGE_WITHIN, REVISIONS_MAX
    )
    if row is not None:
        answer = Answer(row["revision"], score, row["first_at"], row["answered_at"])
        return Recorded("taken", answer)
    known = await connection.fetchrow(_KNOWN, survey_id)
    assert known is not None, "an insert that changed nothing met a row"
    answer = Answer(known["revision"], known["score"], known["first_at"], known["answered_at"])
    return Recorded("same" if known["digest"] == digest else "closed", answer)


async def answer_of(connection: Connection, survey_id: str) -> Answer | None:
    """Return a survey's answer; None where there is none yet."""
    row = await connection.fetchrow(_KNOWN, survey_id)
    if row is None:
        return None
    return Answer(row["revision"], row["score"], row["first_at"], row["answered_at"])


async def forget(connection: Connection, before: datetime) -> None:
    """Delete what is older than any link that could still be used."""
    await connection.execute(_FORGET, before)
