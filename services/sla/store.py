"""State ↔ rows: the conversation as a document, each target and each breach as a row of its own.

Owns the tables `target` and `breach`. Rows are written in the batch's transaction: one statement a
table, and one more for each time that a target is broken again within one batch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NamedTuple

from chassis.ledger import DocumentStore
from chassis.stage import Connection
from schemas.sla import BreachRetracted, SlaEvent, TargetBreached, TimeAttributed
from services.sla import attribution_store, case_store, metrics, page_store, wait_store
from services.sla.core.alerts import Change, End, Fire, Return
from services.sla.core.cases import CaseChange
from services.sla.core.promised import WaitOpened, WaitStands
from services.sla.core.state import Conversation, Facts, Target

_PUT_TARGETS: Final = """
INSERT INTO target (
    target_id, ticket_id, conversation_id, kind, status, policy, policy_version,
    started_at, due_at, settled_at, breached_at, detected_at, is_warned,
    queue, channel, priority, customer_tier, tier, calendar, elapsed_us, seconds
)
SELECT target_id, ticket_id, conversation_id, kind, status, policy, policy_version,
       started_at, due_at, settled_at, breached_at, detected_at, is_warned,
       queue, channel, priority, customer_tier, tier, calendar, elapsed_us, seconds
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::timestamptz[], $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],
    $13::boolean[], $14::text[], $15::text[], $16::smallint[], $17::text[], $18::text[], $19::text[],
    $20::bigint[], $21::double precision[]
) WITH ORDINALITY AS given (
    target_id, ticket_id, conversation_id, kind, status, policy, policy_version,
    started_at, due_at, settled_at, breached_at, detected_at, is_warned,
    queue, channel, priority, customer_tier, tier, calendar, elapsed_us, seconds, place
)
ORDER BY place
ON CONFLICT (target_id) DO UPDATE SET
    status = excluded.status, policy = excluded.policy, policy_version = excluded.policy_version,
    started_at = excluded.started_at, due_at = excluded.due_at, settled_at = excluded.settled_at,
    breached_at = excluded.breached_at, detected_at = excluded.detected_at, is_warned = excluded.is_warned,
    queue = excluded.queue, channel = excluded.channel, priority = excluded.priority,
    customer_tier = excluded.customer_tier, calendar = excluded.calendar, elapsed_us = excluded.elapsed_us,
    seconds = excluded.seconds
"""

_MICROSECOND: Final = timedelta(microseconds=1)

_ADD_BREACHES: Final = """
INSERT INTO breach (target_id, breached_at, detected_at)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[])
"""

_RETRACT_BREACHES: Final = """
UPDATE breach AS b SET answered_at = given.answered_at, retracted_at = given.retracted_at
FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[])
    AS given (target_id, answered_at, retracted_at)
WHERE b.target_id = given.target_id AND b.retracted_at IS NULL
"""


class TargetRow(NamedTuple):
    """A target as it stands after a decision, and what its ticket is."""

    ticket_id: str
    conversation_id: str
    target: Target
    facts: Facts = Facts()


Row = TargetRow | SlaEvent | CaseChange | TimeAttributed
"""What the handlers give to be written: targets that changed, what was told of them, and what changed of a ticket's row."""


class SlaStore(DocumentStore[Conversation]):
    """The store of the stage `sla`."""

    def __init__(self) -> None:
        super().__init__("sla", Conversation)

    async def save_rows(self, connection: Connection, rows: Sequence[tuple[int, Any]]) -> None:
        """Write the targets as they stand last, and the breaches in the order they were told.

        Raises:
            KeyError: a row is of a kind that there is no table for.
            asyncpg.IntegrityConstraintViolationError: a target would be open twice, or a breach
                told twice; the transaction fails with it.
            RuntimeError: a breach would be taken back that does not stand.
        """
        given = _sorted(rows)
        if given.targets:
            await _put_targets(connection, given.targets.values())
        for breaches, retractions in _waves(given.events):
            await _put_breaches(connection, breaches, retractions)
        await case_store.save(connection, given.cases, given.events)
        await attribution_store.save(connection, given.attributions)
        if given.calls:
            await page_store.add_changes(connection, given.calls)
        await wait_store.save(connection, given.begun, given.stands)
        metrics.count_all(given.events)


@dataclass(slots=True)
class _Given:
    """The rows of a batch by what they are; of a target, only how it stands last."""

    targets: dict[str, TargetRow] = field(default_factory=dict)
    events: list[SlaEvent] = field(default_factory=list)
    cases: list[CaseChange] = field(default_factory=list)
    attributions: list[TimeAttributed] = field(default_factory=list)
    calls: list[Change] = field(default_factory=list)
    begun: list[WaitOpened] = field(default_factory=list)
    stands: list[WaitStands] = field(default_factory=list)


def _sorted(rows: Iterable[tuple[int, Any]]) -> _Given:
    given = _Given()
    lists: dict[type[Any], list[Any]] = {
        **dict.fromkeys(metrics.OUTCOMES, given.events),
        CaseChange: given.cases,
        TimeAttributed: given.attributions,
        Fire: given.calls,
        End: given.calls,
        Return: given.calls,
        WaitOpened: given.begun,
        WaitStands: given.stands,
    }
    for _, row in rows:
        if isinstance(row, TargetRow):
            given.targets[row.target.target_id] = row
        else:
            lists[type(row)].append(row)
    return given


async def _put_targets(connection: Connection, rows: Iterable[TargetRow]) -> None:
    # Settled ones first: a ticket's old clock must be gone before its next of that kind arrives.
    settled: list[tuple[Any, ...]] = []
    still_open: list[tuple[Any, ...]] = []
    for row in rows:
        (still_open if row.target.is_open else settled).append(_columns(row))
    columns = [list(column) for column in zip(*settled, *still_open, strict=True)]
    await connection.execute(_PUT_TARGETS, *columns)


def _columns(row: TargetRow) -> tuple[Any, ...]:
    """The values of a target's row, in the order of `_PUT_TARGETS`."""
    target, facts, breach = row.target, row.facts, row.target.breach
    return (
        target.target_id,
        row.ticket_id,
        row.conversation_id,
        target.kind,
        target.status,
        target.policy,
        target.policy_version,
        target.watch.started_at,
        target.due_at,
        target.settled_at,
        None if breach is None else breach.breached_at,
        None if breach is None else breach.detected_at,
        target.is_warned,
        facts.queue,
        facts.channel,
        target.priority,
        facts.customer_tier,
        target.tier,
        target.calendar,
        _microseconds(target.elapsed),
        target.allowed.total_seconds(),
    )


def _microseconds(length: timedelta | None) -> int | None:
    return None if length is None else length // _MICROSECOND


async def _put_breaches(
    connection: Connection,
    breaches: Sequence[TargetBreached],
    retractions: Sequence[BreachRetracted],
) -> None:
    if breaches:
        await connection.execute(
            _ADD_BREACHES,
            [event.target_id for event in breaches],
            [event.breached_at for event in breaches],
            [event.detected_at for event in breaches],
        )
    if retractions:
        done = await connection.execute(
            _RETRACT_BREACHES,
            [event.target_id for event in retractions],
            [event.answered_at for event in retractions],
            [event.at for event in retractions],
        )
        if done != f"UPDATE {len(retractions)}":
            raise RuntimeError(
                f"{len(retractions)} breaches were to be taken back, the table says: {done}"
            )


def _waves(
    events: Iterable[SlaEvent],
) -> list[tuple[list[TargetBreached], list[BreachRetracted]]]:
    """The breaches and retractions in groups to be written one after the other.

    In a group a target is broken at most once, and whatever is taken back in it is so afterwards.
    """
    waves: defaultdict[int, tuple[list[TargetBreached], list[BreachRetracted]]]
    waves = defaultdict(lambda: ([], []))
    broken: Counter[str] = Counter()
    for event in events:
        if isinstance(event, TargetBreached):
            broken[event.target_id] += 1
            waves[broken[event.target_id]][0].append(event)
        elif isinstance(event, BreachRetracted):
            waves[broken[event.target_id]][1].append(event)
    return [waves[number] for number in sorted(waves)]
