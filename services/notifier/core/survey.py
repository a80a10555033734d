"""Who is asked how it went, and what: a sample whose chances are known, so that its answers can be weighed.

Owns the draw; `notify.yaml` says which share of the cases it takes. The draw is made of the ticket's id: a replay asks the
same people the same question, and nobody chooses whom to ask.
"""

import hashlib
from dataclasses import dataclass

from schemas.feedback import SurveyKind
from services.notifier.core.policy import SurveyPolicy

_PARTS = 2**64


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a ticket's customer is asked, and the chance (0 to 1) that they were drawn: its inverse is their weight."""

    kind: SurveyKind
    probability: float


def choose(survey: SurveyPolicy, ticket_id: str, channel: str) -> Chosen | None:
    """Return what the customer of a solved ticket is asked; None where they are not drawn.

    Each ticket is drawn for itself, so a share of 0.3 takes about, not exactly, three in ten. A share that is raised keeps
    all whom the smaller one drew.
    """
    share = survey.share_of(channel)
    return Chosen(survey.kind, share) if place_of(ticket_id) < share else None


def place_of(ticket_id: str) -> float:
    """Return where from 0 up to but not including 1 a ticket stands in the draw; it depends on nothing but its id."""
    digest = hashlib.sha256(b"survey\x1f" + ticket_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") / _PARTS
