"""How likely two customers are one person, why, and what follows.

Each kind of evidence counts once, with its weight, the chance that it alone is right. Together they are right unless all
of them are wrong: `score = 1 - product of (1 - weight)`. The order in which evidence comes does not matter.

- `MERGE` or more, with a proof of both sides among the evidence, and nothing against it: they are merged at once.
- `SUGGEST` or more: a person is asked. This is also the most that evidence without proof of both sides can do.
- below: it is noted, and counts when more comes.

A person's "not the same" stands against any evidence.
"""

import math
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from schemas.customers import Evidence, EvidenceKind
from services.ingest.core.state import AddressKey

WEIGHTS: Final[dict[EvidenceKind, float]] = {
    "attested_mail": 0.97,
    "attested_phone": 0.97,
    "claimed_mail": 0.6,
    "claimed_phone": 0.55,
    "order_and_name": 0.65,
    "same_claim": 0.4,
    "same_order": 0.3,
    "same_name": 0.2,
    "operator": 1.0,
}
"""What each kind is worth. Numbers of judgement, not of measurement: `signalbox customer suggestions` shows what they do."""

MERGE: Final = 0.95
SUGGEST: Final = 0.5

NAMES_SHARED: Final = 3
"""An address under which so many names write is a family's or an office's."""

MEMBERS_MAX: Final = 10
"""More than this many customers are never one without a person's word."""

ROLE_NAMES: Final = frozenset({
    "abuse", "accounting", "accounts", "admin", "billing", "buchhaltung", "contabilidad", "contact", "destek",
    "enquiries", "finance", "hello", "help", "helpdesk", "hr", "iletisim", "info", "infos", "inquiries", "invoice",
    "invoices", "it", "kontakt", "mail", "mailbox", "marketing", "muhasebe", "no-reply", "noreply", "office", "orders",
    "postmaster", "press", "procurement", "purchasing", "reception", "sales", "satis", "security", "service", "shop",
    "staff", "support", "team", "webmaster",
})  # fmt: skip
"""What stands before the @ of addresses that belong to an office and not to a person."""

Verdict = Literal["merge", "suggest", "note"]
Objection = Literal["", "not_proved", "shared_address", "too_many"]


class Judgement(NamedTuple):
    """What follows from the evidence, how sure it is, and what kept it from being more."""

    verdict: Verdict
    score: float
    objection: Objection = ""


def evidence(kind: EvidenceKind, detail: str, *, is_proved: bool = False) -> Evidence:
    """Return a piece of evidence of a kind's weight."""
    return Evidence(kind=kind, weight=WEIGHTS[kind], is_proved=is_proved, detail=detail[:200])


def combine(pieces: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Return the best piece of each kind, in the order of the kinds' weights: the same for any order of `pieces`."""
    best: dict[str, Evidence] = {}
    for piece in pieces:
        before = best.get(piece.kind)
        if before is None or _rank(piece) > _rank(before):
            best[piece.kind] = piece
    return tuple(sorted(best.values(), key=lambda one: (-one.weight, one.kind)))


def _rank(piece: Evidence) -> tuple[bool, float, str]:
    return (piece.is_proved, piece.weight, piece.detail)


def score(pieces: Iterable[Evidence]) -> float:
    """Return how likely they are right: 1 unless all are wrong, rounded to four digits."""
    return round(1 - math.prod(1 - piece.weight for piece in combine(pieces)), 4)


def judge(
    pieces: Iterable[Evidence],
    *,
    is_refused: bool = False,
    is_shared: bool = False,
    members: int = 2,
) -> Judgement:
    """Return what follows. `is_refused`: a person said no. `is_shared`: the address that links them is several people's.

    `members` is how many customers would then be one.
    """
    best = combine(pieces)
    sure = score(best)
    if is_refused or sure < SUGGEST:
        return Judgement("note", sure)
    if sure < MERGE or not any(piece.is_proved for piece in best):
        return Judgement("suggest", sure, "not_proved")
    if is_shared:
        return Judgement("suggest", sure, "shared_address")
    if members > MEMBERS_MAX:
        return Judgement("suggest", sure, "too_many")
    return Judgement("merge", sure)


def is_shared(key: AddressKey, names: Iterable[str]) -> bool:
    """Whether an address is one that several people use: an office's, or one under which several names write."""
    kind, address = key
    local = address.partition("@")[0].partition("+")[0]
    return (kind == "email" and local in ROLE_NAMES) or len(set(names)) >= NAMES_SHARED


def pair(one: str, other: str) -> tuple[str, str]:
    """Return two ids with the smaller first: the key of their link."""
    return (one, other) if one < other else (other, one)


def masked(key: AddressKey) -> str:
    """Return an address as it may stand in an explanation: recognised by who knows it, learnt by nobody."""
    kind, address = key
    if kind == "email":
        local, _, domain = address.rpartition("@")
        return f"{local[:1]}…@{domain}"
    if kind == "phone":
        return f"{address[:3]}…{address[-3:]}"
    channel, _, rest = address.partition("/")
    return f"{channel}/…{rest[-3:]}"
