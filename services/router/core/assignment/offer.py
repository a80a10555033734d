"""An offer's answer: taken, turned down, or too late. Exactly one of them, and the loser is told which."""

from typing import Literal, NamedTuple

from schemas import ids
from schemas.roster import OfferAccepted, OfferDeclined
from services.router.core.assignment.domain import Work

Refusal = Literal["reservation_expired", "reservation_unknown", "not_yours", "ticket_unknown"]


class Verdict(NamedTuple):
    """What an answer comes to: it stands, it repeats what is known, or it is refused for a reason."""

    stands: bool = False
    repeats: bool = False
    refusal: Refusal | None = None


def reservation_id(work_id: str, attempt: int) -> str:
    """Name the `attempt`-th offer (from 1) of a piece of work."""
    return ids.derive("reservation", work_id, str(attempt))


def judge(work: Work, answer: OfferAccepted | OfferDeclined) -> Verdict:
    """Hold an answer against the work as it is, after everything that fell due before it has been done."""
    asked = work.agent_of(answer.reservation_id)
    is_current = asked is not None
    is_theirs = asked == answer.agent_id
    match answer, work.status:
        case _, "offered" if is_current:
            return Verdict(stands=True) if is_theirs else Verdict(refusal="not_yours")
        case OfferAccepted(), "assigned" if is_current and is_theirs:
            return Verdict(repeats=True)
        case OfferDeclined(), _ if work.last_declined == answer.reservation_id:
            return Verdict(repeats=True)
        case _, "ended":
            return Verdict(refusal="ticket_unknown")
        case _ if _was_offered(work, answer.reservation_id):
            return Verdict(refusal="reservation_expired")
        case _:
            return Verdict(refusal="reservation_unknown")


def _was_offered(work: Work, asked: str) -> bool:
    # The names of earlier offers follow from their numbers, so none has to be stored.
    return any(
        reservation_id(work.work_id, attempt) == asked for attempt in range(work.attempts, 0, -1)
    )
