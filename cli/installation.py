"""A Signalbox on this machine: its settings, ports and secrets, in one file that later commands find it by.

An installation lives in a folder of its own below the data directory (`up`, `demo`). `installation.json` there has all
that its services are started with, `processes.json` the processes that `cli.keeper` has started last. Both are readable
by their owner only, since the keys of the gateway stand in them.
"""

import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from chassis.local.processes import ServerProcess, free_port, is_port_free, make_directory
from cli.errors import CommandError
from cli.parts import SERVICES
from schemas.topics import LAPTOP_PARTITIONS

STATE: Final = "installation.json"
PROCESSES: Final = "processes.json"
NAMES: Final = ("demo", "up")
STOP_SECONDS: Final = 30.0
READY_SECONDS: Final = 90.0

_GATEWAY_PORT: Final = 8080
_SMTP_PORT: Final = 8025


@dataclass
class Installation:
    """What one Signalbox on this machine is made of. `environment` is what every service gets."""

    name: str
    folder: Path
    environment: dict[str, str]
    gateway_port: int
    smtp_port: int
    mailbox_port: int
    health_ports: dict[str, int]
    console_key: str
    systems_key: str
    database: str = ""
    keeper: dict[str, Any] = field(default_factory=dict)

    @property
    def gateway_url(self) -> str:
        """Where the gateway answers."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def mailbox(self) -> Path:
        """The folder with what was sent."""
        return self.folder / "mailbox"

    @property
    def logs(self) -> Path:
        """The folder with the services' logs."""
        return self.folder / "logs"

    def service_environment(self, service: str) -> dict[str, str]:
        """Return the settings that one service's process gets besides the process' own environment."""
        own = {"SIGNALBOX_HTTP_PORT": str(self.health_ports[service])}
        match service:
            case "ingest":
                own |= {
                    "SIGNALBOX_GATEWAY_PORT": str(self.gateway_port),
                    "SIGNALBOX_SMTP_LISTEN_PORT": str(self.smtp_port),
                    "SIGNALBOX_API_KEY_CONSOLE": self.console_key,
                    "SIGNALBOX_API_KEY_SYSTEMS": self.systems_key,
                }
            case "notifier":
                own |= {
                    "SIGNALBOX_SMTP_HOST": "127.0.0.1",
                    "SIGNALBOX_SMTP_PORT": str(self.mailbox_port),
                    "SIGNALBOX_SMTP_TLS": "none",
                }
        return self.environment | own

    def save(self) -> None:
        """Write the file, whole or not at all."""
        write_private(self.folder / STATE, {**asdict(self), "folder": str(self.folder)})

    @classmethod
    def load(cls, folder: Path) -> "Installation | None":
        """Return the installation of `folder`, or None where there is none."""
        found = read_private(folder / STATE)
        if found is None:
            return None
        try:
            return cls(**{**found, "folder": Path(found["folder"])})
        except (TypeError, KeyError):
            raise CommandError(
                f"{folder / STATE} was written by another version of signalbox; run that version's `signalbox down`,"
                " or delete the file."
            ) from None

    def keeper_process(self) -> ServerProcess | None:
        """Return the process that keeps the services running, if it lives."""
        return ServerProcess.find(self.keeper) if self.keeper else None

    def processes(self) -> dict[str, int]:
        """Return the id of each service's process, as last started."""
        found = read_private(self.folder / PROCESSES) or {}
        return {name: int(pid) for name, pid in found.get("pids", {}).items()}

    def restarts(self) -> dict[str, int]:
        """Return how often each service was started again."""
        found = read_private(self.folder / PROCESSES) or {}
        return {name: int(count) for name, count in found.get("restarts", {}).items()}

    def start(self, owner: int | None) -> None:
        """Start the services and the local mailbox, apart from this terminal.

        They end when the process `owner` does; with None they go on until `signalbox down`.
        """
        (self.folder / PROCESSES).unlink(missing_ok=True)
        for folder in (self.folder, self.mailbox, self.logs):
            make_directory(folder)
        self.save()
        command = [sys.executable, "-m", "cli.keeper", str(self.folder)]
        if owner is not None:
            command += ["--owner", str(owner)]
        keeper = ServerProcess.spawn(
            command, cwd=self.folder, output=self.logs / "keeper.log", env=os.environ
        )
        self.keeper = keeper.identity()
        self.save()

    def clear(self) -> None:
        """Delete the mails and logs of an earlier run."""
        for folder in (self.mailbox, self.logs):
            shutil.rmtree(folder, ignore_errors=True)

    def stop(self) -> None:
        """Stop the services and the mailbox, and forget the installation; what was sent and the logs stay."""
        keeper = self.keeper_process()
        if keeper is not None:
            keeper.stop(signal.SIGTERM, STOP_SECONDS)
        for name in (STATE, PROCESSES):
            (self.folder / name).unlink(missing_ok=True)


def create(
    name: str,
    data_dir: Path,
    platform: Mapping[str, str],
    policy: Path,
    *,
    topic_prefix: str = "",
    database: str = "",
    session_seconds: float = 6.0,
) -> Installation:
    """Return a new installation with free ports and fresh keys; nothing is started or written.

    A former one of the same name leaves its keys behind, so that its mails' reply tokens stay good.
    """
    folder = data_dir / name
    if not policy.is_dir():
        raise CommandError(
            f"The policy folder {policy} does not exist; run this in Signalbox' own folder, or set SIGNALBOX_POLICY."
        )
    keys = _keys(folder)
    common = {
        "SIGNALBOX_POLICY": str(policy.absolute()),
        "SIGNALBOX_PARTITIONS": os.environ.get("SIGNALBOX_PARTITIONS", str(LAPTOP_PARTITIONS)),
        "SIGNALBOX_TOPIC_PREFIX": topic_prefix,
        "SIGNALBOX_TOKEN_SECRET": keys["token"],
        "SIGNALBOX_SESSION_TIMEOUT_SECONDS": f"{session_seconds:g}",
    }
    return Installation(
        name=name,
        folder=folder,
        environment={**platform, **common},
        gateway_port=_port(_GATEWAY_PORT),
        smtp_port=_port(_SMTP_PORT),
        mailbox_port=free_port(),
        health_ports={service: free_port() for service in SERVICES},
        console_key=keys["console"],
        systems_key=keys["systems"],
        database=database,
    )


def _port(wished: int) -> int:
    return wished if is_port_free(wished) else free_port()


def _keys(folder: Path) -> dict[str, str]:
    path = folder / "keys.json"
    found = read_private(path)
    if found is None:
        make_directory(folder)
        found = {name: secrets.token_hex(32) for name in ("token", "console", "systems")}
        write_private(path, found)
    return {name: str(value) for name, value in found.items()}


def running(data_dir: Path) -> list[Installation]:
    """Return the installations of `data_dir` whose services are being kept running."""
    found = (Installation.load(data_dir / name) for name in NAMES)
    return [one for one in found if one is not None and one.keeper_process() is not None]


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that only its owner may read, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file, indent=2)
    draft.replace(path)


def read_private(path: Path) -> dict[str, Any] | None:
    """Return a file that `write_private` wrote, or None where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read ({error}); delete it and start again.") from None
    return found if isinstance(found, dict) else None


def wait_ready(installation: Installation, tell: Any = None) -> None:
    """Wait until every service says that it is ready; `tell` gets the names of those that are not yet.

    Raises:
        CommandError: one cannot start, with its last words, or it takes too long.
    """
    waiting = list(SERVICES)
    deadline = time.monotonic() + READY_SECONDS
    while waiting:
        waiting = [name for name in waiting if not is_ready(installation.health_ports[name])]
        if tell is not None:
            tell(waiting)
        if not waiting:
            return
        keeper = installation.keeper_process()
        if keeper is None:
            raise CommandError(
                f"The services could not be started: {last_words(installation, 'keeper')}"
            )
        for name in waiting:
            if installation.restarts().get(name, 0) >= 3:
                raise CommandError(f"{name} cannot start: {last_words(installation, name)}")
        if time.monotonic() > deadline:
            raise CommandError(
                f"{', '.join(waiting)} did not get ready within {READY_SECONDS:g} s: "
                f"{last_words(installation, waiting[0])}"
            )
        time.sleep(0.1)


def is_ready(port: int) -> bool:
    """Whether the service with that health port says that it is ready."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def last_words(installation: Installation, name: str) -> str:
    """Return the last line of a log, and where the rest is."""
    path = installation.logs / f"{name}.log"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"{lines[-1][:400] if lines else 'it said nothing'} (all of it: {path})"
