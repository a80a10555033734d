"""The day's books: what was accepted, what became of each input, and whether the sums come out.

    accepted = messages + duplicates + ignored (each with its reason) + parked

Inputs are compared by their ids, not by their number. `balance` is the arithmetic, `read` fetches what it needs from the
databases, `surprises` compares the day with what the samples' manifest expects.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg
import msgspec

from chassis.deadletters import unpack_headers
from cli.demo.samples import Sample
from cli.parts import SERVICES

TICKETED: Final = frozenset({"opened", "followed_up", "added", "reopened"})

_OPEN: Final = """
SELECT (SELECT count(*) FROM ingest.spool) AS "accepted and not yet published",
       (SELECT count(*) FROM ingest.outbox) + (SELECT count(*) FROM router.outbox)
       + (SELECT count(*) FROM sla.outbox) + (SELECT count(*) FROM notifier.outbox) AS "events not yet published",
       (SELECT count(*) FROM notifier.effect) AS "mails being sent",
       (SELECT count(*) FROM router.ticket WHERE status NOT IN ('pending', 'solved', 'closed'))
           AS "tickets not answered",
       (SELECT count(*) FROM notifier.notice WHERE status = 'requested') AS "notices under way",
       (SELECT count(*) FROM ingest.lease WHERE halted IS NOT NULL)
       + (SELECT count(*) FROM router.lease WHERE halted IS NOT NULL)
       + (SELECT count(*) FROM sla.lease WHERE halted IS NOT NULL)
       + (SELECT count(*) FROM notifier.lease WHERE halted IS NOT NULL) AS "halted tasks"
"""
_REPEATS: Final = """
SELECT sum(n_duplicate)::bigint FROM (
    SELECT n_duplicate FROM ingest.lease UNION ALL SELECT n_duplicate FROM router.lease
    UNION ALL SELECT n_duplicate FROM sla.lease UNION ALL SELECT n_duplicate FROM notifier.lease) AS leases
"""


@dataclass(frozen=True, slots=True)
class Books:
    """What the databases say. Ids are those of inputs."""

    outcomes: Mapping[str, tuple[str, str | None]]
    messages: Mapping[str, str]
    conversations: Mapping[str, str]
    desks: Mapping[str, str]
    parked: Mapping[str, str]
    tickets: int = 0
    offered: int = 0
    answered: int = 0
    solved: int = 0
    escalated: int = 0
    clocks: Mapping[str, int] = field(default_factory=dict)
    breached: int = 0
    notices: Mapping[str, int] = field(default_factory=dict)
    repeats_dropped: int = 0
    parked_elsewhere: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """The sums. `missing` are inputs of which nobody knows what became of them, or why they must exist."""

    accepted: int
    messages: int
    duplicates: int
    ignored: Mapping[str, int]
    parked: int
    missing: tuple[str, ...]

    @property
    def unaccounted(self) -> int:
        """How many accepted inputs have no outcome: must be 0."""
        return len(self.missing)

    @property
    def is_even(self) -> bool:
        """Whether the sums come out."""
        known = self.messages + self.duplicates + sum(self.ignored.values()) + self.parked
        return not self.missing and self.accepted == known


def balance(
    inputs: Mapping[str, str],
    named: Iterable[str],
    promised: Mapping[str, int],
    repeats: int,
    books: Books,
) -> Balance:
    """Add up what became of everything that was accepted.

    `inputs` are the inputs on the topic `inbound`, each with the digest of its body; `named` those that the gateway
    named in a 202; `promised` says how often a body was answered with 250, by its digest; `repeats` are requests that
    the gateway answered with an earlier one's id. An input that was promised and is not there is missing.
    """
    accepted = {**inputs, **{name: inputs.get(name, "") for name in named}}
    there = Counter(inputs.values())
    missing = [
        f"a mail that was accepted is not there (digest {name[:12]})"
        for name, count in promised.items()
        for _ in range(count - there[name])
    ]
    lost = len(missing)
    messages, duplicates, parked = 0, repeats, 0
    ignored: Counter[str] = Counter()
    for input_id in sorted(accepted):
        outcome, reason = books.outcomes.get(input_id, (None, None))
        became = books.messages.get(input_id)
        if outcome == "duplicate":
            duplicates += 1
        elif outcome == "ignored":
            ignored[reason or "no reason given"] += 1
        elif outcome == "message" and became in TICKETED:
            messages += 1
        elif outcome == "message" and became is not None:
            ignored[became] += 1
        elif input_id in books.parked:
            parked += 1
        else:
            missing.append(f"input {input_id}: {outcome or 'never decided'}")
    return Balance(
        accepted=len(accepted) + repeats + lost,
        messages=messages,
        duplicates=duplicates,
        ignored=dict(sorted(ignored.items())),
        parked=parked,
        missing=tuple(missing),
    )


async def still_open(connection: asyncpg.Connection) -> dict[str, int]:
    """Return what is not finished, by what it is; empty when the day is over."""
    row = await connection.fetchrow(_OPEN)
    assert row is not None
    return {what: count for what, count in row.items() if count}


async def read(connection: asyncpg.Connection) -> Books:
    """Read the books."""
    outcomes = await connection.fetch("SELECT input_id, outcome, reason FROM ingest.outcome")
    rows = await connection.fetch(
        "SELECT m.input_id, m.outcome, m.conversation_id, t.ticket_id FROM router.ticket_message m"
        " LEFT JOIN router.ticket t USING (ticket_id)"
    )
    opened = await connection.fetch(
        "SELECT ticket_id, data FROM router.ticket_event WHERE type = 'ticket.opened.v1'"
    )
    desks = {row["ticket_id"]: json.loads(row["data"])["desk"] for row in opened}
    parked, elsewhere = await _parked(connection)
    fetch = connection.fetchval
    events = "SELECT count(DISTINCT ticket_id) FROM router.ticket_event WHERE type = $1"
    return Books(
        outcomes={row["input_id"]: (row["outcome"], row["reason"]) for row in outcomes},
        messages={row["input_id"]: row["outcome"] for row in rows},
        conversations={row["input_id"]: row["conversation_id"] for row in rows},
        desks={row["input_id"]: desks.get(row["ticket_id"], "") for row in rows},
        parked=parked,
        tickets=await fetch("SELECT count(*) FROM router.ticket"),
        offered=await fetch(
            "SELECT count(DISTINCT ticket_id) FROM router.routing_event WHERE type = 'routing.offered.v1'"
        ),
        answered=await fetch(events, "ticket.answered.v1"),
        solved=await fetch(events, "ticket.solved.v1"),
        escalated=await fetch(events, "ticket.escalated.v1"),
        clocks={
            row["status"]: row["count"]
            for row in await connection.fetch(
                "SELECT status, count(*) FROM sla.target GROUP BY status ORDER BY status"
            )
        },
        breached=await fetch("SELECT count(*) FROM sla.target WHERE breached_at IS NOT NULL"),
        notices={
            row["status"]: row["count"]
            for row in await connection.fetch(
                "SELECT status, count(*) FROM notifier.notice GROUP BY status ORDER BY status"
            )
        },
        repeats_dropped=await fetch(_REPEATS) or 0,
        parked_elsewhere=elsewhere,
    )  # fmt: skip


async def _parked(connection: asyncpg.Connection) -> tuple[dict[str, str], int]:
    """Return the inputs that were parked, by ingest or as messages by the router, with the reason; and other records."""
    found: dict[str, str] = {}
    others = 0
    for service in SERVICES:
        rows = await connection.fetch(
            f"SELECT topic, headers, value, reason FROM {service}.parked WHERE resolved_at IS NULL"  # noqa: S608 - one of our own names
        )
        for row in rows:
            input_id = _input_of(row)
            if input_id is None:
                others += 1
            else:
                found[input_id] = row["reason"]
    return found, others


def _input_of(row: Any) -> str | None:
    """Return the input that a parked record belongs to: what its data say, else what its envelope is called."""
    if row["topic"] not in ("inbound", "messages"):
        return None
    try:
        data = msgspec.json.decode(row["value"] or b"")
    except msgspec.DecodeError:
        data = None
    if isinstance(data, dict) and isinstance(data.get("input_id"), str):
        return str(data["input_id"])
    headers = dict(unpack_headers(row["headers"]))
    named = headers.get("ce_id")
    return named.decode("utf-8", "replace") if named and row["topic"] == "inbound" else None


def surprises(
    samples: Sequence[Sample],
    inputs_of: Mapping[str, Sequence[str]],
    repeated: Iterable[str],
    books: Books,
) -> list[str]:
    """Return a sentence for each sample that became something else than its manifest expects.

    `inputs_of` are the inputs of each sample by its number (samples that are equal to the byte share theirs),
    `repeated` the numbers of those that the gateway knew already.
    """
    known_repeats = set(repeated)
    found = []
    for sample in samples:
        became = {_fate(input_id, books) for input_id in inputs_of.get(sample.number, ())}
        if sample.number in known_repeats:
            became.add("duplicate")
        expected = f"ignored: {sample.about}" if sample.fate == "ignored" else sample.fate
        if expected not in became:
            what = ", ".join(sorted(became)) or "nothing"
            found.append(f"{sample.file} was to be {expected} and became {what}")
            continue
        if sample.joins is not None:
            mine = _conversations(inputs_of.get(sample.number, ()), books)
            theirs = _conversations(inputs_of.get(sample.joins, ()), books)
            if not mine & theirs:
                found.append(f"{sample.file} was to join {sample.joins} and went elsewhere")
        elif sample.fate == "ticket":
            desks = {books.desks.get(i, "") for i in inputs_of.get(sample.number, ())} - {""}
            if sample.desk and desks and sample.desk not in desks:
                found.append(
                    f"{sample.file} was to go to the {sample.desk} desk and went to {', '.join(sorted(desks))}"
                )
    return found


def _conversations(inputs: Iterable[str], books: Books) -> set[str]:
    return {books.conversations[i] for i in inputs if i in books.conversations}


def _fate(input_id: str, books: Books) -> str:
    outcome, reason = books.outcomes.get(input_id, (None, None))
    became = books.messages.get(input_id)
    if outcome == "message" and became in ("opened", "followed_up"):
        return "ticket"
    if outcome == "message" and became in TICKETED:
        return "joins"
    if outcome == "message":
        return f"ignored: {became}" if became else "undecided"
    if outcome == "ignored":
        return f"ignored: {reason}"
    return outcome or ("parked" if input_id in books.parked else "undecided")


def doubled_mails(message_ids: Sequence[str]) -> list[str]:
    """Return the Message-IDs that the mailbox got more than once."""
    return sorted(name for name, count in Counter(message_ids).items() if count > 1)


def to_json(sums: Balance, books: Books) -> str:
    """Return the summary's one line."""
    return json.dumps(
        {
            "accepted": sums.accepted,
            "messages": sums.messages,
            "duplicates": sums.duplicates,
            "ignored": sum(sums.ignored.values()),
            "parked": sums.parked,
            "tickets": books.tickets,
            "offered": books.offered,
            "answered": books.answered,
            "escalated": books.escalated,
            "breached": books.breached,
            "notices": books.notices.get("sent", 0),
            "unaccounted": sums.unaccounted,
        }
    )
