"""Server processes: started apart from the terminal, found again by a later command, stopped whole.

A process is known by its id and its start time, so a stale state file never makes us signal a
stranger who got the same id.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from chassis.local.errors import LocalPlatformError

FREE_BYTES_MIN = 1 << 30
"""Less free space than this and neither server is started; a full disk breaks both badly."""

_PORTS = range(20_000, 32_000)
"""Below the ephemeral ranges of Linux and macOS: there, a client's outgoing connection may take
the port of a broker that was killed, and its restart then fails."""

_CREATE_TIME_SLACK_S = 2.0
_POLL_S = 0.02
_FREEZE_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Account:
    """The unprivileged user and group that a server runs as, when we ourselves are root."""

    uid: int
    gid: int


class ServerProcess:
    """One server, its children included, whether started here or by an earlier command."""

    def __init__(self, process: psutil.Process, popen: "subprocess.Popen[bytes] | None") -> None:
        self._process = process
        self._popen = popen  # Held so that a child that ended is reaped by `poll`.

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        cwd: Path,
        output: Path,
        env: Mapping[str, str],
        account: Account | None = None,
    ) -> "ServerProcess":
        """Starts `command` in a session of its own: Ctrl-C at the terminal does not reach it.

        What it prints goes to the end of the file `output`.
        """
        as_account: dict[str, Any] = (
            {}
            if account is None
            else {"user": account.uid, "group": account.gid, "extra_groups": ()}
        )
        try:
            with output.open("ab") as sink:
                popen = subprocess.Popen(
                    list(command),
                    cwd=cwd,
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    **as_account,
                )
        except OSError as error:
            raise LocalPlatformError(f"Cannot start {command[0]}: {error.strerror}.") from error
        return cls(psutil.Process(popen.pid), popen)

    @classmethod
    def find(cls, saved: Mapping[str, Any]) -> "ServerProcess | None":
        """The process that `saved` (made by `identity`) describes, or None if it has ended."""
        try:
            process = psutil.Process(int(saved["pid"]))
            age_differs = abs(process.create_time() - float(saved["started_at"]))
        except (psutil.Error, KeyError, ValueError):
            return None
        found = cls(process, None)
        return found if age_differs < _CREATE_TIME_SLACK_S and found.is_alive() else None

    @classmethod
    def current(cls) -> "ServerProcess":
        """The process that runs this code."""
        return cls(psutil.Process(), None)

    @property
    def pid(self) -> int:
        """The id of the server's first process."""
        return self._process.pid

    def identity(self) -> dict[str, Any]:
        """What `find` needs: the id, and the start time in seconds since 1970."""
        return {"pid": self.pid, "started_at": self._process.create_time()}

    def is_alive(self) -> bool:
        """Whether it runs; a frozen process does, one that ended and waits to be reaped does not."""
        if self._popen is not None and self._popen.poll() is not None:
            return False
        try:
            return self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the first process; one that has ended is no error."""
        try:
            self._process.send_signal(number)
        except psutil.NoSuchProcess:
            return

    def freeze(self) -> None:
        """Stops every process of the server at once (SIGSTOP); connections stay open, unanswered.

        A signal is sent long before the last thread on another core has taken it, so this waits until all stand.

        Raises `LocalPlatformError` when one of them runs on; then none is left standing.
        """
        self._signal_all(signal.SIGSTOP)
        if not wait_until(lambda: all(map(_stands, self._all())), _FREEZE_SECONDS_MAX):
            self.thaw()
            raise LocalPlatformError(
                f"Process {self.pid} was told to stand still and runs on; end it, or wait for its "
                "disk, which a process cannot be stopped in the middle of."
            )

    def thaw(self) -> None:
        """Lets a frozen server go on (SIGCONT)."""
        self._signal_all(signal.SIGCONT)

    def kill(self) -> None:
        """Ends every process of the server without warning (SIGKILL) and waits until they are gone."""
        processes = self._all()
        self._signal_all(signal.SIGKILL)
        if self._popen is not None:
            self._popen.wait()
        psutil.wait_procs(processes, timeout=10)

    def wait(self, timeout_s: float) -> bool:
        """Whether the server ended within `timeout_s` seconds."""
        return wait_until(lambda: not self.is_alive(), timeout_s)

    def stop(self, number: signal.Signals, timeout_s: float) -> None:
        """Asks with a signal, waits `timeout_s` seconds, then kills what is left."""
        self.thaw()
        self.send(number)
        if not self.wait(timeout_s):
            self.kill()

    def _all(self) -> list[psutil.Process]:
        try:
            return [self._process, *self._process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal_all(self, number: signal.Signals) -> None:
        for process in self._all():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


def _stands(process: psutil.Process) -> bool:
    """Whether no thread of a process runs: each is stopped, or has ended (proc(5), the state in `stat`)."""
    try:
        states = [
            stat.read_bytes().rpartition(b")")[2].split()[0]
            for stat in Path("/proc", str(process.pid), "task").glob("*/stat")
        ]
        if states:
            return all(state in b"TtZX" for state in states)
        return process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except (ProcessLookupError, FileNotFoundError, psutil.NoSuchProcess):
        return not process.is_running()  # One thread ended between the look and the question.


def wait_until(is_met: Callable[[], bool], timeout_s: float) -> bool:
    """Whether `is_met` became true within `timeout_s` seconds; asked about fifty times a second."""
    deadline = time.monotonic() + timeout_s
    while not is_met():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_S)
    return True


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    for _ in range(200):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        if is_port_free(port):
            return port
    raise LocalPlatformError(
        f"No free TCP port between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1; "
        "end some of the servers that run on this machine."
    )


def is_port_free(port: int) -> bool:
    """Whether a server could listen on the loopback address at `port`."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def make_directory(path: Path) -> Path:
    """Makes `path` with its parents; no permission, or too little space, is said in a sentence."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise LocalPlatformError(
            f"Cannot write to {path}: {error.strerror}. Give another directory, or make this one "
            "writable."
        ) from error
    if free < FREE_BYTES_MIN:
        raise LocalPlatformError(
            f"Only {free >> 20} MiB are free at {path}, and the local Kafka and PostgreSQL need "
            f"{FREE_BYTES_MIN >> 20} MiB; free some space or give a directory on another disk."
        )
    return path


def cache_dir() -> Path:
    """Where downloads are kept between runs: `$XDG_CACHE_HOME/signalbox`, by default in ~/.cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "signalbox"


def tail(path: Path, lines: int = 8) -> str:
    """The last lines of a log file, for an error message; empty when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def is_root() -> bool:
    """Whether this process may do anything; PostgreSQL refuses to run as such a user."""
    return sys.platform != "win32" and os.geteuid() == 0
