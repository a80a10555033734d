"""Workers that start in no time: one process imports what they run once and forks whoever is asked for.

The fault tests kill and start some hundred workers; importing the same modules for each would take longer than the faults.
A forked worker is a process like any other: it has its own id, loop, connections, log and end. The nursery reaps it and
tells its exit code, minus the signal's number where a signal ended it.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.01


class Nursery:
    """The tests' end: asks for workers and remembers how they ended."""

    def __init__(self, output: Path) -> None:
        with output.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.nursery"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,  # Ctrl-C ends the tests, and they end this in good order.
            )
        self._exits: dict[int, int] = {}
        self._born: list[int] = []
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, name="nursery", daemon=True)
        self._listener.start()

    def bear(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Start a worker and return its process id."""
        order = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "log": str(log),
        }
        assert self._process.stdin is not None
        with self._news:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            if not self._news.wait_for(lambda: self._born, 60):
                raise RuntimeError("the nursery does not answer")
            return self._born.pop()

    def exit_code(self, pid: int) -> int | None:
        """How a worker ended; None while it lives."""
        return self._exits.get(pid)

    def close(self) -> None:
        """End it, and with it every worker that is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._listener.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told: dict[str, int] = json.loads(line)
            with self._news:
                if "exit" in told:
                    self._exits[told["pid"]] = told["exit"]
                else:
                    self._exits.pop(told["pid"], None)
                    self._born.append(told["pid"])
                self._news.notify_all()


ROUTER = "router"
NOTIFIER = "notifier"
"""What an order's first argument says that asks for a service; else it names a stage of the pipeline."""


def _what_runs(order: Mapping[str, Any]) -> Callable[[Sequence[str]], int]:
    """Return what a worker runs. It is called before the fork, so that modules are imported once."""
    if order["arguments"][0] == ROUTER:
        from services.router.app import main as router

        return lambda arguments: router(arguments[1:])
    if order["arguments"][0] == NOTIFIER:
        from services.notifier.app import main as notifier

        return lambda arguments: notifier(arguments[1:])
    from tests.faults import pipeline

    return pipeline.main


def _become(order: Mapping[str, Any], run: Callable[[Sequence[str]], int]) -> NoReturn:
    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["environment"])
        code = run(order["arguments"])
    except BaseException:  # noqa: BLE001 - whatever it is, it goes into the worker's log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _reap(living: set[int], news: BinaryIO) -> None:
    while living:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        living.discard(pid)
        _tell(news, {"pid": pid, "exit": os.waitstatus_to_exitcode(status)})


def _tell(news: BinaryIO, what: Mapping[str, int]) -> None:
    news.write(json.dumps(what).encode() + b"\n")
    news.flush()


def main() -> None:
    """The other end: fork for each line read, tell of each birth and each end, until the tests are gone."""
    import tests.faults.pipeline  # noqa: F401 - imported once, here, for all that will be forked

    living: set[int] = set()
    news = os.fdopen(os.dup(1), "wb")
    rest = b""
    while True:
        _reap(living, news)
        if not select.select([0], [], [], POLL_SECONDS)[0]:
            continue
        data = os.read(0, 65_536)
        if not data:
            break
        *orders, rest = (rest + data).split(b"\n")
        for line in orders:
            order = json.loads(line)
            run = _what_runs(order)
            pid = os.fork()
            if pid == 0:
                news.close()
                _become(order, run)
            living.add(pid)
            _tell(news, {"pid": pid})
    for pid in living:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
