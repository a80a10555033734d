"""The audit: who did what with which right, and what came of it, as lines of the log that no log level silences.

Each request that a right opens is a line of its own (`access_used`), and so is each one that is turned away
(`access_refused`). Systems that post messages and events by the thousand are counted instead, and told of once a minute
(`access_counted`): each of their inputs is an event with its source already. Those turned away are lines up to a number in a
minute, and counted beyond it, so that nobody can fill a disk by knocking. No line has a secret, a query or a body.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

from chassis.auth import Caller
from chassis.clock import monotonic, pause
from schemas.scopes import Right

COUNTED: Final[frozenset[Right]] = frozenset({"messages", "events"})
"""Rights whose use is counted."""
COUNT_SECONDS: Final = 60.0
REFUSED_PER_MINUTE: Final = 300
PATH_LENGTH_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the audit knows it: `route` as it was declared, `path` as it was asked for, without its query."""

    method: str
    route: str
    path: str
    client: str
    right: Right


def _unfiltered() -> Any:
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(0),
        part="audit",
    )


class Audit:
    """Writes the audit of one process. `say` writes a line: an event's name, and its fields."""

    def __init__(
        self,
        workspace: str,
        say: Callable[..., Any] | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._workspace = workspace
        self._say = say if say is not None else _unfiltered().info
        self._now = now
        self._counts: Counter[tuple[str, str, Right, str, str, int]] = Counter()
        self._since = now()
        self._refused = 0
        self._silent = 0

    def used(self, caller: Caller, asked: Asked, status: int) -> None:
        """A right was used; `status` is what was answered."""
        self._look()
        if asked.right in COUNTED and status < 400:
            key = (caller.kind, caller.subject, asked.right, asked.method, asked.route, status)
            self._counts[key] += 1
            return
        if status in (401, 403):
            self.refused(asked, status, "object", caller)
            return
        self._say(
            "access_used",
            workspace=self._workspace,
            by=caller.kind,
            subject=caller.subject,
            right=asked.right,
            method=asked.method,
            route=asked.route,
            path=asked.path[:PATH_LENGTH_MAX],
            status=status,
        )

    def refused(self, asked: Asked, status: int, reason: str, caller: Caller | None = None) -> None:
        """Somebody was turned away; `caller` is known where only the right was lacking."""
        self._look()
        self._refused += 1
        if self._refused > REFUSED_PER_MINUTE:
            self._silent += 1
            return
        self._say(
            "access_refused",
            workspace=self._workspace,
            by=caller.kind if caller is not None else "unknown",
            subject=caller.subject if caller is not None else "",
            client=asked.client,
            right=asked.right,
            method=asked.method,
            route=asked.route,
            path=asked.path[:PATH_LENGTH_MAX],
            status=status,
            reason=reason,
        )

    def _look(self) -> None:
        if self._now() - self._since >= COUNT_SECONDS:
            self.flush()

    async def run(self, stopping: asyncio.Event) -> None:
        """Tell once a minute of what was counted, also where nothing more is asked, until the process stops."""
        while not stopping.is_set():
            await pause(stopping, COUNT_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Tell of what was counted; once a minute, and at the end."""
        counts, self._counts = self._counts, Counter()
        for (kind, subject, right, method, route, status), count in sorted(counts.items()):
            self._say(
                "access_counted",
                workspace=self._workspace,
                by=kind,
                subject=subject,
                right=right,
                method=method,
                route=route,
                status=status,
                count=count,
            )
        if self._silent:
            self._say("access_refused_more", workspace=self._workspace, count=self._silent)
        self._since, self._refused, self._silent = self._now(), 0, 0
