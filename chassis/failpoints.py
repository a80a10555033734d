"""Named points in the loop where a test may kill, stop or fail the process. Off in production: one `if` each.

`SIGNALBOX_FAILPOINTS=before_commit=kill:2,after_ack=stop` arms them: at the second passage of `before_commit` the
process ends by SIGKILL, at the first of `after_ack` it stops (SIGSTOP). `raise` raises `FailpointError` there,
`exit` leaves with status 137. Each prints a line to the file named by `SIGNALBOX_FAILPOINT_LOG` before it acts,
so that a test can prove that the fault happened.
"""

import os
import signal
from pathlib import Path

from chassis.clock import now_seconds
from chassis.errors import ConfigurationError, SignalboxError

NAMES = frozenset(
    {
        "before_epoch",
        "in_assign",
        "in_txn",
        "before_commit",
        "commit_ack",
        "after_commit",
        "before_relay",
        "mid_relay",
        "after_ack",
        "effect_started",
        "effect_done",
    }
)
ACTIONS = frozenset({"kill", "stop", "raise", "exit"})


class FailpointError(SignalboxError):
    """Raised where a failpoint is armed with `raise`."""


class Failpoints:
    """The armed points of this process: name → (action, passages left)."""

    def __init__(self, spec: str = "", log: Path | None = None) -> None:
        self._armed: dict[str, tuple[str, int]] = {}
        self._log = log
        for item in filter(None, (part.strip() for part in spec.split(","))):
            name, _, rest = item.partition("=")
            action, _, count = rest.partition(":")
            if name not in NAMES or action not in ACTIONS or (count and not count.isdigit()):
                raise ConfigurationError(
                    f"SIGNALBOX_FAILPOINTS: {item!r} is not name=action[:count] with a name of {sorted(NAMES)} and an"
                    f" action of {sorted(ACTIONS)}"
                )
            self._armed[name] = (action, int(count or 1))

    def hit(self, name: str) -> None:
        """Pass a point."""
        if not self._armed:
            return
        armed = self._armed.get(name)
        if armed is None:
            return
        action, left = armed
        if left > 1:
            self._armed[name] = (action, left - 1)
            return
        del self._armed[name]
        self._prove(f"{name} {action} {os.getpid()}")
        if action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif action == "exit":
            os._exit(137)
        else:
            raise FailpointError(name)

    def _prove(self, line: str) -> None:
        if self._log is None:
            return
        with self._log.open("a", encoding="utf-8") as file:
            file.write(f"{line} {now_seconds():.6f}\n")
            file.flush()
            os.fsync(file.fileno())
