"""Intake: the records of one poll, settled in one transaction, or in slices where timers fall due meanwhile.

A poll after a pause holds hundreds of records, and one transaction of them takes as long as a timer may be late at all.
So a slice is made no longer than about `SLICE_SECONDS`, with the tasks' locks let go between two: who waits for them,
timers first, has its turn. Where no timer falls due within the time that the rest takes, the rest is one transaction,
because each has its price. A poll in slices is to its tasks what several smaller polls would be, except that the client
stands behind all of it: whatever puts it back makes an end of that task's slices.

Where more is to be done than there is time for, timers would leave records hardly any: so a slice may take as long as its
tasks had to wait for it.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from aiokafka import ConsumerRecord

from chassis.assignment import Assignment
from chassis.batch import Parcel
from chassis.bus import Record, UndecodableRecord
from chassis.clock import Clock, monotonic
from chassis.cutting import Cutting
from chassis.pacing import Pace

S = TypeVar("S")

SLICE_SECONDS: Final = 0.03
"""What a slice should take from its first query to its commit, while timers are near."""

SLICE_RECORDS_MIN: Final = 16
"""Fewer are hardly quicker: the transaction takes most of the time."""

SLICE_RECORDS_MAX: Final = 5_000
SLICE_RECORDS_FIRST: Final = 50


class Intake(Generic[S]):
    """Settles the polls of one stage, one after the other."""

    def __init__(self, clock: Clock, assignment: Assignment[S], cutting: Cutting[S]) -> None:
        self._clock = clock
        self._assignment = assignment
        self._cutting = cutting
        self._pace = Pace(
            SLICE_SECONDS, SLICE_RECORDS_MIN, SLICE_RECORDS_MAX, first=SLICE_RECORDS_FIRST
        )

    async def take(self, records: Sequence[Record]) -> None:
        """Settle a poll as far as it goes. What is left of a task that was put back, halted or lost is dropped.

        Whoever does one of these has the client read on from where the task stands, so nothing is missed.
        """
        by_number: dict[int, list[Record]] = defaultdict(list)
        for record in records:
            by_number[record.partition].append(record)
        left: dict[int, Parcel[S]] = {
            number: Parcel(task, by_number[number])
            for number in sorted(by_number)
            if (task := self._assignment.tasks.get(number)) is not None
        }
        while left:
            asked = monotonic()
            async with self._assignment.locked(left) as tasks:
                self._pace.seconds = max(SLICE_SECONDS, monotonic() - asked)
                at_work = {task.number for task in tasks if left[task.number].task is task}
                left = {number: rest for number, rest in left.items() if number in at_work}
                left = await self._slice(left)

    async def _slice(self, left: dict[int, Parcel[S]]) -> dict[int, Parcel[S]]:
        """Settle the next slice of the tasks whose locks are held; return what is left of those that may go on."""
        began = monotonic()
        each = self._records_each(left)
        slices = {number: _begun(rest, each) for number, rest in left.items()}
        await self._cutting.settle(list(slices.values()))
        self._pace.took(sum(len(one.items) for one in slices.values()), monotonic() - began)
        return {
            number: rest
            for number, whole in left.items()
            if self._has_passed(slices[number])
            and (rest := Parcel(whole.task, whole.items[each:], whole.notes)).items
        }

    def _records_each(self, left: dict[int, Parcel[S]]) -> int:
        """Return how many records of each task the next slice has, at most."""
        longest = max((len(rest.items) for rest in left.values()), default=0)
        in_all = sum(len(rest.items) for rest in left.values())
        end = self._clock.now() + timedelta(seconds=in_all * self._pace.seconds_each)
        if in_all <= self._pace.items or not self._is_due_by(end):
            return longest
        return max(1, self._pace.items // len(left))

    def _is_due_by(self, end: datetime) -> bool:
        """Whether a timer of any task of ours falls due up to an instant."""
        dues = (task.timers.earliest() for task in self._assignment.owned())
        return any(due is not None and due <= end for due in dues)

    def _has_passed(self, parcel: Parcel[S]) -> bool:
        """Whether a task has come behind all records of a slice, and so may be given those behind them.

        A topic with a hole is asked for again from there, and the parcel's notes say so: none of it is admitted.
        """
        task = parcel.task
        if parcel.is_ended or not self._assignment.is_at_work(task):
            return False
        offsets: dict[str, int] = {}
        for item in parcel.items:
            assert isinstance(item, ConsumerRecord | UndecodableRecord)
            offsets[self._assignment.plain(item.topic)] = item.offset + 1
        return all(
            topic in parcel.notes.skipped or task.position.offsets.get(topic, 0) >= offset
            for topic, offset in offsets.items()
        )


def _begun(rest: Parcel[S], size: int) -> Parcel[S]:
    """Return the first records of what is left of a poll. It shares the notes: what was skipped stays so."""
    return Parcel(rest.task, rest.items[:size], rest.notes)
