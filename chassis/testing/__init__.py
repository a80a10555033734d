"""What tests of services stand on: given/when/then for a core, a clock told what to say, a world without servers.

`given` tests one decision after the other (`chassis.testing.given`); `World` runs whole stages, wired by their topics,
on a simulated clock (`chassis.testing.world`); `at` and `FakeClock` tell the time. All of it is deterministic: the same
calls in the same order give the same events, ids included. What `World` promises of the real loop is held by
`tests/integration/test_world_matches_reality.py`.
"""

from chassis.testing.given import Case, given
from chassis.testing.instants import FakeClock, at
from chassis.testing.world import Counts, LogRecord, Memory, World, WorldError

__all__ = [
    "Case",
    "Counts",
    "FakeClock",
    "LogRecord",
    "Memory",
    "World",
    "WorldError",
    "at",
    "given",
]
