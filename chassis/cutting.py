"""Cutting: what cannot be stored together is taken apart, until the input at fault stands alone and can be parked.

It is done at once, on the records in hand and under the lease that is held: nothing is read from Kafka again, and
neighbours wait for a few transactions, not for the task to be acquired anew. Why that is safe, though a batch is never
retried otherwise, is told in `docs/adr/0001-ledger.md`.
"""

import asyncio
from collections.abc import Hashable, Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

from aiokafka import ConsumerRecord

from chassis import logs
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Place, Task
from chassis.bus import UndecodableRecord
from chassis.clock import monotonic
from chassis.deadletters import ParkedRecord
from chassis.decision import REFUSALS_MAX
from chassis.ledger import TimerRow, Walk
from chassis.settling import Refusal, Settling
from chassis.stage import Effect, EffectDone, Revisit

S = TypeVar("S")

PIECES = 8
"""A parcel that is refused is taken again in this many pieces, each of them in its turn. Two would need no more
transactions; but each refusal makes a stage that is loaded whole load again, and those are fewer so."""

CUTTING_SECONDS = 0.5
"""After this long the rest is put back, so that the other tasks of the process have their turn."""

CONFLICTS_MAX = 3
"""A parcel that meets a conflict is tried this often before it is cut, its pieces once each, and an input that is left
alone again this often before it is put back."""

CONFLICT_SECONDS = 0.01
"""How long is waited between such tries, doubled each time: most conflicts are over by then."""

REST_SECONDS = 0.1
"""How long an input that was put back for a conflict rests before it is tried again, alone; doubled each time."""

REST_SECONDS_MAX = 1.0

CONTEST_SECONDS = 10.0
"""Conflicts are about timing, hardly about the input: not before they have gone on for so long is it parked for them."""

CONTEST_TRIES_MIN = 8
"""Nor before it has been tried this often: a task that stood still meanwhile has not tried."""

CONTESTS_KEPT = 1_000
CONTEST_KEPT_SECONDS = 600.0
"""How many contests are remembered at least, and how long any that has not gone on: its input is gone."""

UNSTORABLE_SECONDS = 1.0

log = logs.get("cutting")

Name = tuple[int, Hashable]
"""Which input it is, over all parcels that it comes in: its task, and what the task knows it by."""


@dataclass(slots=True)
class _Contest:
    """An input that meets conflicts though it stands alone: since when, how often, and until when it rests."""

    since: float
    tries: int = 0
    rests: int = 0
    rests_until: float = 0.0


class Cutting(Generic[S]):
    """Settles parcels, whole where that can be done, and in pieces where not."""

    def __init__(
        self, assignment: Assignment[S], acquisition: Acquisition[S], settling: Settling[S]
    ) -> None:
        self._assignment = assignment
        self._acquisition = acquisition
        self._settling = settling
        self._contests: dict[Name, _Contest] = {}

    async def settle(self, parcels: Sequence[Parcel[S]]) -> None:
        """Settle what tasks have to do, whose locks are held: together first, then each as far as it goes."""
        deadline = monotonic() + CUTTING_SECONDS
        together: list[Parcel[S]] = []
        apart: list[list[Parcel[S]]] = []
        for parcel in parcels:
            parts = self._parts(parcel)
            if len(parts) > 1 or self._is_contested(parcel):
                apart.append(parts)
            else:
                together.append(parcel)
        refusals: list[Refusal[S]] = []
        for first in await self._attempt(together):
            # Those who only shared the transaction go on before anything is looked for.
            refusals += await self._attempt([first.parcel]) if first.is_shared else [first]
        for refusal in refusals:
            if self._assignment.is_at_work(refusal.parcel.task):
                await self._settle_in_pieces(await self._cut(refusal), deadline)
        for parts in apart:
            await self._settle_in_pieces(parts, deadline)

    def keep_only(self, numbers: Set[int]) -> None:
        """Forget what is remembered of the inputs of tasks that are another process' now."""
        self._contests = {name: one for name, one in self._contests.items() if name[0] in numbers}
        self._settling.keep_only(numbers)

    async def _attempt(self, parcels: Sequence[Parcel[S]]) -> list[Refusal[S]]:
        refused = await self._settling.attempt(parcels)
        if self._contests:
            failed = {id(refusal.parcel) for refusal in refused}
            for parcel in parcels:
                if id(parcel) not in failed and self._assignment.is_at_work(parcel.task):
                    for item in parcel.items:
                        self._contests.pop(self._name(parcel.task, item), None)
        return refused

    async def _settle_in_pieces(self, pieces: Sequence[Parcel[S]], deadline: float) -> None:
        """Settle parts of one task's parcel in order, as far as the time goes, and put back what is left."""
        if not pieces:
            return
        task = pieces[0].task
        stack = list(pieces[::-1])
        resting: list[Parcel[S]] = []
        keys: set[str | None] = set()
        has_moved = False
        while stack and self._assignment.is_at_work(task):
            piece = stack.pop()
            if keys:
                piece, behind = _without(piece, keys)
                resting.append(behind)
                if not piece.items:
                    continue
            if self._rests(piece):
                resting.append(piece)
                if self._places(piece.items) or isinstance(piece.items[0], Revisit | Walk):
                    break  # Records and walks keep their order: what lies behind it rests too.
                keys.add(_key_of(piece.items[0]))
                continue
            refused = await self._attempt([piece])
            if refused and self._assignment.is_at_work(task):
                stack += (await self._cut(refused[0]))[::-1]
            elif piece.is_ended:
                return  # It stopped before a record; what lies behind that is not its turn.
            has_moved |= not refused
            # Looking for the one at fault ends by itself, and has to get there; what waits for others need not end.
            is_waiting = bool(refused) and refused[0].is_conflict and len(piece.items) == 1
            if monotonic() > deadline and (has_moved or is_waiting):
                break
        left = resting + stack[::-1]
        if any(piece.items for piece in left) and self._assignment.is_at_work(task):
            self._put_back(task, left)
            if stack:
                log.info("parcel_put_back", task=task.number, items=sum(len(p.items) for p in left))

    async def _cut(self, refusal: Refusal[S]) -> list[Parcel[S]]:
        """Return what to try next, in order: parts of a parcel, or once more the whole of it."""
        parcel = refusal.parcel
        is_alone = len(parcel.items) == 1
        if refusal.failing is not None:
            return _around(parcel, _place_of(refusal)) if not is_alone else [parcel]
        if refusal.is_conflict:
            parcel.conflicts += 1
            contest = self._contest(parcel) if is_alone else None
            if contest is not None and contest.tries >= CONTEST_TRIES_MIN:
                lasted = monotonic() - contest.since
                if lasted >= CONTEST_SECONDS:
                    return self._give_up(refusal, contest.tries)
            if parcel.conflicts < _conflicts_max(parcel, contest):
                await asyncio.sleep(CONFLICT_SECONDS * 2 ** (parcel.conflicts - 1))
                return [parcel]
            if contest is not None:
                rest = min(REST_SECONDS * 2 ** min(contest.rests, 10), REST_SECONDS_MAX)
                contest.rests += 1
                contest.rests_until = monotonic() + rest
                return [parcel]
        if not is_alone:
            size = -(-len(parcel.items) // PIECES)
            return [parcel.part(start, start + size) for start in range(0, len(parcel.items), size)]
        return self._give_up(refusal)

    def _give_up(self, refusal: Refusal[S], conflicts: int = 0) -> list[Parcel[S]]:
        """Bring an input that stands alone nearer to its end: parked with its bytes, then without, then nothing more."""
        parcel, batch = refusal.parcel, refusal.batch
        is_known = parcel.refusals >= REFUSALS_MAX
        parcel.refusals += 1
        if conflicts:
            parcel.refusals = max(parcel.refusals, REFUSALS_MAX)  # It has been tried often enough.
        if batch.inputs and not is_known:
            self._settling.deciding.refused(batch, refusal.why, conflicts or 1)
        if parcel.refusals <= REFUSALS_MAX:
            return [parcel]
        if parcel.refusals == REFUSALS_MAX + 1:
            parcel.notes.bare |= self._places(parcel.items)
            return [parcel]
        log.critical("unstorable", task=parcel.task.number, error=refusal.why)
        self._acquisition.lose(parcel.task, "unstorable", UNSTORABLE_SECONDS)
        return []

    # -- conflicts ---------------------------------------------------------------------------------------------------

    def _contest(self, parcel: Parcel[S]) -> _Contest:
        """Note one more conflict of the one input of a parcel."""
        name = self._name(parcel.task, parcel.items[0])
        contest = self._contests.get(name)
        if contest is None:
            now = monotonic()
            if len(self._contests) >= CONTESTS_KEPT:
                self._contests = {
                    known: one
                    for known, one in self._contests.items()
                    if now - max(one.since, one.rests_until) < CONTEST_KEPT_SECONDS
                }
            contest = self._contests[name] = _Contest(now)
        contest.tries += 1
        return contest

    def _is_contested(self, parcel: Parcel[S]) -> bool:
        return bool(
            self._contests
            and len(parcel.items) == 1
            and self._name(parcel.task, parcel.items[0]) in self._contests
        )

    def _rests(self, piece: Parcel[S]) -> bool:
        """Whether a piece is one input that is to be left alone for now."""
        if not self._contests or len(piece.items) != 1:
            return False
        contest = self._contests.get(self._name(piece.task, piece.items[0]))
        return contest is not None and contest.rests_until > monotonic()

    def _parts(self, parcel: Parcel[S]) -> list[Parcel[S]]:
        """Return a parcel's inputs that are known to meet conflicts, each alone, and what lies between, in order."""
        if not self._contests:
            return [parcel]
        parts: list[Parcel[S]] = []
        begin = 0
        for place, item in enumerate(parcel.items):
            if self._name(parcel.task, item) in self._contests:
                parts += [parcel.part(begin, place), parcel.part(place, place + 1)]
                begin = place + 1
        parts.append(parcel.part(begin, len(parcel.items)))
        return [part for part in parts if part.items]

    def _name(self, task: Task[S], item: Item) -> Name:
        match item:
            case TimerRow(key=key, name=name, id=identity):
                return task.number, (key, name, identity)
            case EffectDone(effect=effect) | (Effect() as effect):
                return task.number, (effect.id, effect.attempt, isinstance(item, EffectDone))
            case ParkedRecord(id=identity):
                return task.number, identity
            case Revisit(key=key, walk=walk) | Walk(after=key, number=walk):
                return task.number, ("walk", walk, key, isinstance(item, Walk))
            case record:
                return task.number, (self._assignment.plain(record.topic), record.offset)

    # -- putting back ------------------------------------------------------------------------------------------------

    def _put_back(self, task: Task[S], pieces: Sequence[Parcel[S]]) -> None:
        """Leave what is not done for the next turn: timers, replays and walks are still where they were, the rest goes back."""
        items = [item for piece in pieces for item in piece.items]
        task.results.extendleft([item for item in items if isinstance(item, EffectDone)][::-1])
        task.effects.extendleft([item for item in items if isinstance(item, Effect)][::-1])
        if self._places(items):
            for topic, offset in task.position.offsets.items():
                self._assignment.seek(task.number, topic, offset)
            contest = self._contests.get(self._name(task, items[0]))
            if contest is not None and contest.rests_until > monotonic():
                self._assignment.rest(task, contest.rests_until - monotonic())

    def _places(self, items: Sequence[Item]) -> set[Place]:
        return {
            (self._assignment.plain(item.topic), item.offset)
            for item in items
            if isinstance(item, ConsumerRecord | UndecodableRecord)
        }


def _conflicts_max(parcel: Parcel[S], contest: _Contest | None) -> int:
    if contest is not None:
        return 1 if contest.rests else CONFLICTS_MAX
    return 1 if parcel.is_piece else CONFLICTS_MAX


def _key_of(item: Item) -> str | None:
    """Return the key that an item which is no record belongs to."""
    match item:
        case TimerRow(key=key) | EffectDone(effect=Effect(key=key)) | Effect(key=key):
            return key
        case Revisit(key=key):
            return key
        case ParkedRecord(state_key=state_key):
            return state_key
        case _:
            return None


def _without(parcel: Parcel[S], keys: Set[str | None]) -> tuple[Parcel[S], Parcel[S]]:
    """Return what of a parcel belongs to none of these keys, and what does."""

    def part(is_wanted: bool) -> Parcel[S]:
        items = [item for item in parcel.items if (_key_of(item) in keys) is is_wanted]
        return Parcel(parcel.task, items, parcel.notes, is_piece=True)

    return part(False), part(True)


def _around(parcel: Parcel[S], place: int) -> list[Parcel[S]]:
    """Return what lies before one item, the item alone, and what lies behind it."""
    parts = (
        parcel.part(0, place),
        parcel.part(place, place + 1),
        parcel.part(place + 1, len(parcel.items)),
    )
    return [part for part in parts if part.items]


def _place_of(refusal: Refusal[S]) -> int:
    """Return which of a parcel's items became the input that fails."""
    assert refusal.failing is not None
    item, origin = refusal.batch.inputs[refusal.failing]
    sought = origin if origin is not None else item
    return next(n for n, one in enumerate(refusal.parcel.items) if one is sought)
