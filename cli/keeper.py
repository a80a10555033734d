"""`python -m cli.keeper FOLDER`: keeps an installation's services running, and its local mailbox.

A service that ends is started again at once; one that ends again within a second waits a little longer each time, up
to five seconds. It ends on SIGTERM, or when the process that it works for is gone.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chassis.clock import monotonic
from cli import mailbox
from cli.installation import PROCESSES, Installation, write_private
from cli.parts import SERVICES

GRACE_SECONDS: Final = 22.0
OWNER_LOOK_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 5.0


class Keeper:
    """The services of one installation, as child processes."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._restarts = dict.fromkeys(SERVICES, 0)
        self.stopping = asyncio.Event()

    async def keep(self, service: str) -> None:
        """Run one service until told to stop, starting it again whenever it ends."""
        pause = 0.0
        while not self.stopping.is_set():
            began = monotonic()
            process = await self._start(service)
            self._running[service] = process
            self._write_down()
            code = await process.wait()
            if self.stopping.is_set():
                return
            self._restarts[service] += 1
            self._say(f"{service} ({process.pid}) ended with {code}; starting it again")
            pause = (
                0.0
                if monotonic() - began > 1.0 and code < 0
                else min(pause * 2 + 0.2, PAUSE_SECONDS_MAX)
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause or 0.001)

    async def _start(self, service: str) -> asyncio.subprocess.Process:
        environment = {**os.environ, **self._installation.service_environment(service)}
        with (self._installation.logs / f"{service}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{service}",
                "serve",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def _write_down(self) -> None:
        write_private(
            self._installation.folder / PROCESSES,
            {
                "pids": {name: process.pid for name, process in self._running.items()},
                "restarts": self._restarts,
            },
        )

    async def stop(self) -> None:
        """Ask every service to end, and kill what has not within the grace time."""
        self.stopping.set()
        living = [one for one in self._running.values() if one.returncode is None]
        for process in living:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await asyncio.gather(*(process.wait() for process in living))
        except TimeoutError:
            for process in living:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await asyncio.gather(*(process.wait() for process in living))

    def _say(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


async def _watch_owner(owner: int, stopping: asyncio.Event) -> None:
    """Set `stopping` when the process `owner` is gone."""
    while not stopping.is_set():
        try:
            os.kill(owner, 0)
        except ProcessLookupError:
            stopping.set()
            return
        except PermissionError:
            pass  # It lives, as another user.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), OWNER_LOOK_SECONDS)


async def run(installation: Installation, owner: int | None) -> int:
    """Keep everything running until SIGTERM."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = await mailbox.listen(installation.mailbox, installation.mailbox_port)
    keeper = Keeper(installation)
    keeping = [asyncio.create_task(keeper.keep(service)) for service in SERVICES]
    watching = [] if owner is None else [asyncio.create_task(_watch_owner(owner, stopping))]
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([stopped, *keeping], return_when=asyncio.FIRST_COMPLETED)
    await keeper.stop()
    server.close()
    for task in (*keeping, *watching, stopped):
        task.cancel()
    results = await asyncio.gather(*keeping, return_exceptions=True)
    failed = [r for r in results if isinstance(r, Exception)]
    if failed:
        raise failed[0]
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Keep the installation of a folder running."""
    parser = argparse.ArgumentParser(prog="python -m cli.keeper", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--owner", type=int, help="end when this process does")
    arguments = parser.parse_args(argv)
    installation = Installation.load(arguments.folder)
    if installation is None:
        parser.error(f"no installation in {arguments.folder}")
    return asyncio.run(run(installation, arguments.owner))


if __name__ == "__main__":
    sys.exit(main())
