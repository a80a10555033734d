"""Which conversations a walk has to visit: after a change of calendars alone, those with an open clock by one that changed.

Owns the comparison of what was in force one after the other in this process, and the SQL that finds the keys. Whatever is not
known for certain is visited: a walk that another process began, a revision that was in force before this process started, other
rules, an order.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from chassis.stage import REVISIT_KEYS, Connection

HISTORY_MAX: Final = 64
"""Revisions that are remembered, in the order in which they were in force; before that everything is visited."""

_WALK: Final = """
SELECT revision, walk, done_at IS NOT NULL AS is_done FROM revisit WHERE stage = $1 AND task = $2
"""

_BY_CALENDAR: Final = """
SELECT DISTINCT found.key FROM unnest($5::text[]) AS changed (calendar) CROSS JOIN LATERAL (
    SELECT DISTINCT t.conversation_id AS key FROM target AS t
    WHERE t.calendar = changed.calendar AND t.status IN ('running', 'paused', 'breached') AND t.conversation_id > $3
      AND EXISTS (
          SELECT FROM state AS s
          WHERE s.stage = $1 AND s.task = $2 AND s.key = t.conversation_id AND s.key > $3
      )
    ORDER BY t.conversation_id LIMIT $4
) AS found
ORDER BY found.key LIMIT $4
"""


class Parts(NamedTuple):
    """What a revision is made of: a digest of each calendar by name, and of everything else that recounting depends on."""

    calendars: Mapping[str, str]
    rest: str


class _Walk(NamedTuple):
    """A walk that began in this process, and the calendars that it is about; None: about everything."""

    revision: str
    number: int
    calendars: frozenset[str] | None


class Scope:
    """What this process knows of the revisions it has decided under, and of the walks of its tasks."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._history: list[tuple[str, Parts]] = []
        self._walks: dict[int, _Walk] = {}

    def in_force(self, revision: str, parts: Parts) -> None:
        """Note that decisions are made under `revision` from now on."""
        if not self._history or self._history[-1][0] != revision:
            self._history = [*self._history[1 - HISTORY_MAX :], (revision, parts)]

    async def keys(
        self, connection: Connection, task: int, after: str, limit: int
    ) -> Sequence[str]:
        """Return the next keys of a task's walk to the present revision, as `Stage.revisit_keys` has to."""
        row = await connection.fetchrow(_WALK, self._stage, task)
        calendars = (
            None
            if row is None
            else self._calendars(task, _Walk(row[0], row[1], None), row[2], is_new=not after)
        )
        if calendars is None:
            rows = await connection.fetch(REVISIT_KEYS, self._stage, task, after, limit)
        elif calendars:
            rows = await connection.fetch(
                _BY_CALENDAR, self._stage, task, after, limit, sorted(calendars)
            )
        else:
            rows = []
        return [row["key"] for row in rows]

    def _calendars(
        self, task: int, stored: _Walk, is_done: bool, *, is_new: bool
    ) -> frozenset[str] | None:
        """The calendars that the walk is about; `stored` is the walk that the task did last, or is in the middle of.

        A walk that begins may be towards the same revision as one left in the middle: another was in force between.
        """
        revision = self._history[-1][0] if self._history else ""
        known = self._walks.get(task)
        mine = known if known is not None and known[:2] == stored[:2] else None
        if not is_new:
            return None if mine is None else mine.calendars
        calendars = self._changed_since(stored.revision)
        if not is_done:
            # Left in the middle: what it was about is done in part, and owed as well.
            left = None if mine is None else mine.calendars
            calendars = None if calendars is None or left is None else calendars | left
        self._walks[task] = _Walk(revision, stored.number + 1, calendars)
        return calendars

    def _changed_since(self, revision: str) -> frozenset[str] | None:
        """The calendars that differ between any two that followed each other since `revision` was first in force."""
        names = [name for name, _ in self._history]
        if revision not in names:
            return None
        since = [parts for _, parts in self._history[names.index(revision) :]]
        if any(parts.rest != since[0].rest for parts in since):
            return None
        every = {name for parts in since for name in parts.calendars}
        return frozenset(
            name for name in every if len({parts.calendars.get(name) for parts in since}) > 1
        )
