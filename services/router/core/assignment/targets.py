"""The targets of what waits, kept in order for the queues that lend nobody while one of theirs is near, and for no others."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from heapq import heappop, heappush

from services.router.core.assignment.bits import Line
from services.router.core.assignment.times import instant, micros


class Targets:
    """For each queue that is watched, the targets of its work, and when the nearest of them comes near."""

    __slots__ = ("_coming", "_entry_of", "_lines", "_near")

    def __init__(self) -> None:
        self._near: dict[str, float] = {}
        self._lines: dict[str, Line] = {}
        self._entry_of: dict[str, tuple[int, str]] = {}
        self._coming: list[tuple[datetime, str]] = []
        """When queues' targets come near; entries whose target has gone are passed over."""

    def watch(self, near: Mapping[str, float]) -> None:
        """From now on, watch these queues: how many seconds before it a target is near. What was kept is forgotten."""
        self._near = dict(near)
        self._lines = {queue: Line() for queue in near}
        self._entry_of.clear()
        self._coming.clear()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __contains__(self, queue: str) -> bool:
        return queue in self._lines

    def add(self, queue: str, work_id: str, due_at: datetime | None) -> None:
        """Work with a target (None: without one) waits in a queue, watched or not."""
        line = self._lines.get(queue)
        if line is None or due_at is None:
            return
        entry = self._entry_of[work_id] = (micros(due_at), work_id)
        line.add(entry)
        if line.first == entry:
            self.expect(queue)

    def drop(self, queue: str, work_id: str) -> None:
        """Work waits in a queue no more, or its target does not count any more."""
        entry = self._entry_of.pop(work_id, None)
        if entry is not None:
            self._lines[queue].remove(entry)

    def nearest(self, queue: str) -> datetime | None:
        """Return the earliest target of a queue."""
        line = self._lines.get(queue)
        first = line.first if line is not None else None
        return None if first is None else instant(first[0])

    def near_at(self, queue: str) -> datetime | None:
        """Return from when the earliest target of a queue is near."""
        target = self.nearest(queue)
        return None if target is None else target - timedelta(seconds=self._near[queue])

    def expect(self, queue: str) -> None:
        """Wait for when the nearest target of a queue comes near."""
        at = self.near_at(queue)
        if at is not None:
            heappush(self._coming, (at, queue))

    def come_near(self, now: datetime, known: Collection[str]) -> list[str]:
        """Return the queues of which a target has come near by `now`, but for those `known` to have one. Each is told once."""
        found: list[str] = []
        while self._coming and self._coming[0][0] <= now:
            _, queue = heappop(self._coming)
            at = self.near_at(queue)
            if at is None or queue in known:
                continue
            if at <= now:
                found.append(queue)
            else:
                heappush(self._coming, (at, queue))
        return found

    def next_at(self, known: Collection[str]) -> datetime | None:
        """Return when a target comes near next, but for the queues `known` to have one that is."""
        while self._coming:
            at, queue = self._coming[0]
            later = self.near_at(queue) if queue not in known else None
            if later == at:
                return at
            heappop(self._coming)
            if later is not None and later > at:
                heappush(self._coming, (later, queue))  # The one that was nearest has gone.
        return None
