"""Cutting: what cannot be stored together is taken apart, until the input at fault stands alone and can be parked.

It is done at once, on the records in hand and under the lease that is held: nothing is read from Kafka again, and
neighbours wait for a few transactions, not for the task to be acquired anew. Why that is safe, though a batch is never
retried otherwise, is told in `docs/adr/0001-ledger.md`.
"""

import asyncio
from collections.abc import Sequence
from typing import Generic, TypeVar

from aiokafka import ConsumerRecord

from chassis import logs
from chassis.acquisition import Acquisition
from chassis.assignment import Assignment
from chassis.batch import Item, Parcel, Place
from chassis.bus import UndecodableRecord
from chassis.clock import monotonic
from chassis.decision import REFUSALS_MAX
from chassis.settling import Refusal, Settling
from chassis.stage import Effect, EffectDone

S = TypeVar("S")

PIECES = 8
"""A parcel that is refused is taken again in this many pieces, each of them in its turn. Two would need no more
transactions; but each refusal makes a stage that is loaded whole load again, and those are fewer so."""

CUTTING_SECONDS = 0.5
"""After this long the rest is put back, so that the other tasks of the process have their turn."""

CONFLICTS_MAX = 3
"""A parcel that meets a conflict is tried this often before it is cut; its pieces once each."""

CONFLICTS_ALONE_MAX = 8
"""An input that meets a conflict though it stands alone is tried this often, then parked."""

CONFLICT_SECONDS = 0.01
CONFLICT_SECONDS_MAX = 0.1
UNSTORABLE_SECONDS = 1.0

log = logs.get("task")


class Cutting(Generic[S]):
    """Settles parcels, whole where that can be done, and in pieces where not."""

    def __init__(
        self, assignment: Assignment[S], acquisition: Acquisition[S], settling: Settling[S]
    ) -> None:
        self._assignment = assignment
        self._acquisition = acquisition
        self._settling = settling

    async def settle(self, parcels: Sequence[Parcel[S]]) -> None:
        """Settle what tasks have to do, whose locks are held: together first, then each as far as it goes."""
        deadline = monotonic() + CUTTING_SECONDS
        refusals: list[Refusal[S]] = []
        for first in await self._settling.attempt(parcels):
            # Those who only shared the transaction go on before anything is looked for.
            refusals += await self._settling.attempt([first.parcel]) if first.is_shared else [first]
        for refusal in refusals:
            await self._settle_in_pieces(refusal, deadline)

    async def _settle_in_pieces(self, refusal: Refusal[S], deadline: float) -> None:
        task = refusal.parcel.task
        stack = (await self._cut(refusal))[::-1]
        while stack and self._assignment.is_at_work(task):
            piece = stack.pop()
            refused = await self._settling.attempt([piece])
            if refused:
                stack += (await self._cut(refused[0]))[::-1]
                continue
            if piece.is_ended:
                return  # It stopped before a record; what lies behind that is not its turn.
            if stack and monotonic() > deadline and self._assignment.is_at_work(task):
                self._put_back(stack[::-1])
                return

    async def _cut(self, refusal: Refusal[S]) -> list[Parcel[S]]:
        """Return what to try next, in order: parts of a parcel, or once more the whole of it."""
        parcel = refusal.parcel
        is_alone = len(parcel.items) == 1
        if refusal.failing is not None:
            return _around(parcel, _place_of(refusal)) if not is_alone else [parcel]
        if refusal.is_conflict:
            wait = min(CONFLICT_SECONDS * 2**parcel.conflicts, CONFLICT_SECONDS_MAX)
            parcel.conflicts += 1
            if parcel.conflicts < _conflicts_max(parcel):
                await asyncio.sleep(wait)
                return [parcel]
        if not is_alone:
            size = -(-len(parcel.items) // PIECES)
            return [parcel.part(start, start + size) for start in range(0, len(parcel.items), size)]
        return self._give_up(refusal)

    def _give_up(self, refusal: Refusal[S]) -> list[Parcel[S]]:
        """Bring an input that stands alone nearer to its end: parked with its bytes, then without, then nothing more."""
        parcel, batch = refusal.parcel, refusal.batch
        parcel.refusals += 1
        times = 1
        if refusal.is_conflict:
            parcel.refusals = max(parcel.refusals, REFUSALS_MAX)  # It has been tried often enough.
            times = CONFLICTS_ALONE_MAX
        if batch.inputs:
            self._settling.deciding.refused(batch, refusal.why, times)
        if parcel.refusals <= REFUSALS_MAX:
            return [parcel]
        if parcel.refusals == REFUSALS_MAX + 1:
            parcel.notes.bare |= self._places(parcel.items)
            return [parcel]
        log.critical("unstorable", task=parcel.task.number, error=refusal.why)
        self._acquisition.lose(parcel.task, "unstorable", UNSTORABLE_SECONDS)
        return []

    def _put_back(self, pieces: Sequence[Parcel[S]]) -> None:
        """Leave what is not done for the next turn: timers and replays are still where they were, the rest goes back."""
        items = [item for piece in pieces for item in piece.items]
        task = pieces[0].task
        task.results.extendleft([item for item in items if isinstance(item, EffectDone)][::-1])
        task.effects.extendleft([item for item in items if isinstance(item, Effect)][::-1])
        if self._places(items):
            for topic, offset in task.position.offsets.items():
                self._assignment.seek(task.number, topic, offset)
        log.info("parcel_put_back", task=task.number, items=len(items))

    def _places(self, items: Sequence[Item]) -> set[Place]:
        return {
            (self._assignment.plain(item.topic), item.offset)
            for item in items
            if isinstance(item, ConsumerRecord | UndecodableRecord)
        }


def _conflicts_max(parcel: Parcel[S]) -> int:
    if len(parcel.items) == 1:
        return CONFLICTS_ALONE_MAX
    return 1 if parcel.is_piece else CONFLICTS_MAX


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
