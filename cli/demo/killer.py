"""`--kill`: services are killed without warning while the day is played, and the sums must come out all the same."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from typing import Final

from chassis.clock import monotonic
from cli.installation import Installation, is_ready
from cli.parts import SERVICES

PAUSE_SECONDS: Final = (1.0, 4.0)
"""Between two kills, at least and at most, besides waiting for the next victim to be at work."""

ROUNDS: Final = 2
"""How often each service is killed."""

READY_SECONDS_MAX: Final = 20.0


class Killer:
    """Kills in a seeded order: every service in each round, at seeded moments, each while it is at work.

    One that is still starting is waited for: killing it then would interrupt nothing, and a service that is never left
    to start proves nothing either.
    """

    def __init__(self, installation: Installation, seed: int, tell: Callable[[str], None]) -> None:
        self._installation = installation
        self._chance = random.Random(seed)  # noqa: S311 - a fault that can be repeated
        self._tell = tell
        self.kills: Counter[str] = Counter()

    async def run(self) -> None:
        """Kill each service `ROUNDS` times."""
        for _ in range(ROUNDS):
            order = list(SERVICES)
            self._chance.shuffle(order)
            for service in order:
                await asyncio.sleep(self._chance.uniform(*PAUSE_SECONDS))
                await self._wait_at_work(service)
                self._kill(service)

    async def _wait_at_work(self, service: str) -> None:
        deadline = monotonic() + READY_SECONDS_MAX
        port = self._installation.health_ports[service]
        while not await asyncio.to_thread(is_ready, port):
            if monotonic() > deadline:
                return
            await asyncio.sleep(0.1)

    def _kill(self, service: str) -> None:
        pid = self._installation.processes().get(service)
        if pid is None:
            return
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # It ended by itself, and is being started again.
        self.kills[service] += 1
        self._tell(f"kill -9 {pid}: {service}")
