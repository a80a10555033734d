"""Timers in memory: those of the next minute in a heap, all of them in the table.

After an outage a million may be due at once: they are read a page at a time, and no more while many are in memory.
`due_at` is kept in microseconds; an entry counts only while the id it carries is the one set last for its name, so
changing and clearing a timer costs nothing in the heap.
"""

import heapq
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from chassis.ledger import TIMER_PAGE, TimerMark, TimerRow

HORIZON = timedelta(seconds=60)
RELOAD = timedelta(seconds=20)
"""The window is extended this often, well before its end."""

DUE_MAX = 500
"""Timers of one task handed to one commit."""

LOADED_MAX = 2 * TIMER_PAGE
"""With so many in memory the window is not extended: all of them come before those that are not in it."""


class TimerHeap:
    """The timers of one task that are due up to `loaded_to`."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, int, str, str]] = []
        self._current: dict[tuple[str, str], TimerRow] = {}
        self.loaded_to: TimerMark | None = None
        """Where the next page begins; of those due at that very instant some may be here and some not."""

    def __len__(self) -> int:
        return len(self._current)

    def load(self, rows: Iterable[TimerRow], to: TimerMark) -> None:
        """Take over rows read from the table, all those up to `to` from where the last page ended."""
        for row in rows:
            # One set at the mark's own instant may be here already.
            if self._current.get((row.key, row.name)) != row:
                self._put(row)
        self.loaded_to = to

    def needs_load(self, now: datetime) -> bool:
        """Whether the window should be extended."""
        if len(self._current) >= LOADED_MAX:
            return False
        return self.loaded_to is None or self.loaded_to.due_at - now < HORIZON - RELOAD

    def get(self, key: str, name: str) -> TimerRow | None:
        """Return the timer of that name if it is in the window."""
        return self._current.get((key, name))

    def apply(self, changes: Iterable[tuple[tuple[str, str], TimerRow | None]]) -> None:
        """Take over what a commit has set, cleared or fired (None)."""
        for reference, row in changes:
            if row is None or self.loaded_to is None or row.due_at > self.loaded_to.due_at:
                self._current.pop(reference, None)
            else:
                self._put(row)

    def due(self, now: datetime, limit: int = DUE_MAX) -> list[TimerRow]:
        """Return, without removing them, the timers due at `now`, earliest first; never one before its time."""
        found: list[TimerRow] = []
        popped: list[tuple[datetime, int, str, str]] = []
        while self._heap and self._heap[0][0] <= now and len(found) < limit:
            entry = heapq.heappop(self._heap)
            row = self._current.get((entry[2], entry[3]))
            if row is not None and row.id == entry[1]:
                found.append(row)
                popped.append(entry)
        for entry in popped:
            heapq.heappush(self._heap, entry)
        return found

    def is_due(self, now: datetime) -> bool:
        """Whether the earliest entry is due: cheap, and may be wrong about entries set anew."""
        return bool(self._heap) and self._heap[0][0] <= now

    def earliest(self) -> datetime | None:
        """Return when the next timer is due, stale entries aside; None where there is none."""
        while self._heap:
            due_at, identity, key, name = self._heap[0]
            row = self._current.get((key, name))
            if row is not None and row.id == identity:
                return due_at
            heapq.heappop(self._heap)
        return None

    def rows(self) -> list[TimerRow]:
        """Return the timers in the window, earliest first."""
        return sorted(self._current.values(), key=lambda row: (row.due_at, row.id))

    def _put(self, row: TimerRow) -> None:
        self._current[row.key, row.name] = row
        heapq.heappush(self._heap, (row.due_at, row.id, row.key, row.name))


def window_end(rows: Sequence[TimerRow], until: datetime) -> TimerMark:
    """Return up to where the timers are known after a page of them was read that was asked for up to `until`."""
    if len(rows) < TIMER_PAGE:
        return TimerMark(until)
    last = rows[-1]
    return TimerMark(last.due_at, last.key, last.name)
