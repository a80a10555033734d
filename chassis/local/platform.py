"""Kafka and PostgreSQL together: started side by side, found again, stopped in order.

A platform belongs to one data directory. Its state file there lets a later command find what an
earlier one kept running, and clear away what a killed one left behind.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from chassis.local.errors import LocalPlatformError
from chassis.local.jars import Progress
from chassis.local.kafka import LocalKafka, answers_metadata, load_kafka, start_kafka
from chassis.local.postgres import LocalPostgres, load_postgres, start_postgres
from chassis.local.processes import ServerProcess, make_directory

STATE_FILE = "platform.json"

_STATE_VERSION = 1


@dataclass
class Platform:
    """A broker and a database server that answer.

    As a context manager it stops both at the end, unless they are to be kept or were kept by an
    earlier command.
    """

    kafka: LocalKafka
    postgres: LocalPostgres
    data_dir: Path
    is_kept: bool = False
    is_reused: bool = False

    @property
    def description(self) -> str:
        """One line for people: what was taken."""
        line = f"{self.kafka.description}; {self.postgres.description}"
        return f"{line} (kept from an earlier run)" if self.is_reused else line

    def environment(self, database: str | None = None) -> dict[str, str]:
        """The settings with which a child process finds this platform."""
        return {
            "SIGNALBOX_KAFKA": self.kafka.bootstrap,
            "SIGNALBOX_DATABASE_URL": self.postgres.dsn(database),
        }

    def save(self) -> None:
        """Writes the state file, whole or not at all."""
        state = {
            "version": _STATE_VERSION,
            "is_kept": self.is_kept,
            "owner": ServerProcess.current().identity(),
            "kafka": self.kafka.save(),
            "postgres": self.postgres.save(),
        }
        path = self.data_dir / STATE_FILE
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(state, indent=2), encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, data_dir: Path) -> "Platform | None":
        """The platform that an earlier command kept on `data_dir`, if both servers still answer."""
        state = _read_state(data_dir)
        if state is None or not state["is_kept"]:
            return None
        kafka, postgres = load_kafka(state["kafka"]), load_postgres(state["postgres"])
        if kafka is None or postgres is None or not answers_metadata(kafka.bootstrap):
            return None
        return cls(kafka, postgres, data_dir, is_kept=True, is_reused=True)

    def stop(self) -> None:
        """Stops what is ours, in order, and forgets it; the data stay."""
        self.kafka.stop()
        self.postgres.stop()
        (self.data_dir / STATE_FILE).unlink(missing_ok=True)

    def remove(self) -> None:
        """Stops what is ours and deletes its data."""
        self.kafka.remove()
        self.postgres.remove()
        (self.data_dir / STATE_FILE).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.is_kept:
            self.stop()


def default_data_dir() -> Path:
    """Where the platform's data go: `SIGNALBOX_DATA_DIR`, else below the user's state directory."""
    given = os.environ.get("SIGNALBOX_DATA_DIR", "").strip()
    if given:
        return Path(given).expanduser().absolute()
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    home = base if base.is_absolute() else Path.home() / ".local" / "state"
    return home / "signalbox"


def start_platform(
    data_dir: Path, keep: bool = False, *, progress: Progress | None = None
) -> Platform:
    """Kafka and PostgreSQL, both answering; those kept on `data_dir` by an earlier command first.

    With `keep`, they go on after this process. `progress` is told how many of Kafka's jars are
    at hand while the first run fetches them. Blocks for seconds: call it from a thread where an
    event loop runs. Raises `LocalPlatformError` with a sentence that says what to do.
    """
    data_dir = make_directory(data_dir.absolute())
    with _only_one_starts(data_dir):
        kept = Platform.load(data_dir)
        if kept is not None:
            return kept
        _clear_leftovers(data_dir)
        platform = _start_both(data_dir, keep, progress)
        platform.save()
        return platform


def _start_both(data_dir: Path, keep: bool, progress: Progress | None) -> Platform:
    """Side by side, since each waits most of the time; if one fails, the other is stopped."""
    with ThreadPoolExecutor(2) as pool:
        starting_kafka = pool.submit(start_kafka, data_dir, progress=progress)
        starting_postgres = pool.submit(start_postgres, data_dir)
        failures = [starting_kafka.exception(), starting_postgres.exception()]
    if starting_kafka.exception() is None and starting_postgres.exception() is None:
        return Platform(starting_kafka.result(), starting_postgres.result(), data_dir, is_kept=keep)
    if starting_kafka.exception() is None:
        starting_kafka.result().stop()
    if starting_postgres.exception() is None:
        starting_postgres.result().stop()
    raise next(failure for failure in failures if failure is not None)


def _clear_leftovers(data_dir: Path) -> None:
    """Stops what a command that was killed left running here; a living owner is an error."""
    state = _read_state(data_dir)
    if state is None:
        return
    owner = ServerProcess.find(state["owner"])
    if owner is not None and not state["is_kept"] and owner.pid != os.getpid():
        raise LocalPlatformError(
            f"Another signalbox command (process {owner.pid}) runs its servers on {data_dir}; end "
            "it first, or set SIGNALBOX_DATA_DIR to another directory."
        )
    for leftover in (load_kafka(state["kafka"]), load_postgres(state["postgres"])):
        if leftover is not None:
            leftover.stop()
    (data_dir / STATE_FILE).unlink(missing_ok=True)


def _read_state(data_dir: Path) -> Mapping[str, Any] | None:
    path = data_dir / STATE_FILE
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LocalPlatformError(
            f"The state file {path} cannot be read ({error}); delete it and start again."
        ) from error
    if not isinstance(state, dict) or state.get("version") != _STATE_VERSION:
        raise LocalPlatformError(
            f"The state file {path} was written by another version of signalbox; stop the servers "
            "it names, delete it and start again."
        )
    return state


@contextmanager
def _only_one_starts(data_dir: Path) -> Iterator[None]:
    """Two commands at once on one directory: the second waits until the first has started."""
    with (data_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
