"""One Kafka broker on this machine: given, in a container, or as a Java process.

All three answer to `LocalKafka`. Its data outlive `kill`, `stop` and `start`; the address stays.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import uuid
from abc import ABC, abstractmethod
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chassis.local.errors import LocalPlatformError, NotOurs
from chassis.local.jars import JarLock, Progress, fetch_jars
from chassis.local.java import Java, find_java
from chassis.local.processes import (
    ServerProcess,
    free_port,
    is_port_free,
    make_directory,
    tail,
    wait_until,
)

READY_SECONDS_MAX = 90.0
"""How long a start may take before it counts as failed; a cold Java on a busy machine is slow."""

STOP_SECONDS_MAX = 20.0
"""How long an orderly stop may take before the broker is killed."""

DOCKER_IMAGE = "apache/kafka:4.3.1"

_DOCKER_TIMEOUT_S = 300.0
_PROBE_TIMEOUT_S = 2.0

BROKER_SETTINGS: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    # A topic is declared in schemas/topics.py or it does not exist.
    "auto.create.topics.enable": "false",
    # Groups form at once, and a dead member is noticed within seconds, as fault tests need it.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "3000",
    # A killed broker may register again only when its old session has ended (default 9 s).
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # One broker holds one replica of everything.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    # Small: two cores and half a gigabyte are shared with everything else here.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "log.segment.bytes": str(64 << 20),
}

_LOG_CONFIG = """\
status = error
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {directory}/broker.log
appender.file.filePattern = {directory}/broker.log.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}} %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 20MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
"""


class LocalKafka(ABC):
    """A broker: its address, where it came from, and its life.

    `bootstrap` is `host:port`, or several with commas; `description` a phrase for people.
    """

    bootstrap: str
    description: str
    is_ours: bool = True
    """Whether it may be stopped, killed and frozen; a broker that was given may not."""

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The process id, or None where there is no process to be seen."""

    @abstractmethod
    def start(self) -> None:
        """Starts it, on the same address and data as before, and waits until it answers."""

    @abstractmethod
    def stop(self) -> None:
        """An orderly stop; the data stay. Stopping what does not run is no error."""

    @abstractmethod
    def kill(self) -> None:
        """Ends it without warning, as a power cut does to a process; the data stay."""

    @abstractmethod
    def suspend(self) -> None:
        """Freezes it: connections stay open and nothing answers."""

    @abstractmethod
    def resume(self) -> None:
        """Lets a frozen broker go on."""

    @abstractmethod
    def remove(self) -> None:
        """Stops it and drops what it kept, the data included."""

    @abstractmethod
    def is_alive(self) -> bool:
        """Whether it is there at all, frozen or not; says nothing about its being ready."""

    @abstractmethod
    def save(self) -> dict[str, Any]:
        """What `load_kafka` needs to find it again from another command."""

    def wait_ready(self, timeout: float = READY_SECONDS_MAX) -> None:
        """Waits at most `timeout` seconds for the broker to name itself in its metadata.

        Raises `LocalPlatformError` when it ended, or did not answer in time.
        """
        ended = False

        def is_decided() -> bool:
            nonlocal ended
            ended = not self.is_alive()
            return ended or answers_metadata(self.bootstrap)

        if wait_until(is_decided, timeout) and not ended:
            return
        what = "ended while it started" if ended else f"did not answer within {timeout:.0f} seconds"
        raise LocalPlatformError(f"Kafka at {self.bootstrap} {what}.{self._last_words()}")

    def _last_words(self) -> str:
        return ""


class GivenKafka(LocalKafka):
    """A broker that somebody else runs; used as it is, never stopped."""

    is_ours = False

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = _checked_bootstrap(bootstrap)
        self.description = f"Kafka at {self.bootstrap}, as SIGNALBOX_KAFKA says"

    @property
    def pid(self) -> int | None:
        return None

    def start(self) -> None:
        if not wait_until(lambda: answers_metadata(self.bootstrap), 10.0):
            raise LocalPlatformError(
                f"No Kafka broker answers at {self.bootstrap}, which SIGNALBOX_KAFKA names; start "
                "it, correct the address, or unset SIGNALBOX_KAFKA to run one here."
            )

    def stop(self) -> None:
        return

    def remove(self) -> None:
        return

    def kill(self) -> None:
        raise self._not_ours("killed")

    def suspend(self) -> None:
        raise self._not_ours("frozen")

    def resume(self) -> None:
        raise self._not_ours("thawed")

    def is_alive(self) -> bool:
        return True

    def save(self) -> dict[str, Any]:
        return {"kind": "given", "bootstrap": self.bootstrap}

    def _not_ours(self, deed: str) -> NotOurs:
        return NotOurs(
            f"The broker at {self.bootstrap} was given by SIGNALBOX_KAFKA and cannot be {deed} "
            "from here; unset the variable to run one that can."
        )


class JavaKafka(LocalKafka):
    """Apache Kafka as a Java process in KRaft mode, broker and controller in one.

    Everything it keeps is below `directory`: `data/`, `broker.log`, `server.properties`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        progress: Progress | None = None,
        process: ServerProcess | None = None,
    ) -> None:
        self.directory = directory
        self._is_port_asked_for = port is not None
        self._port = port or free_port()
        self._controller_port = controller_port or free_port()
        self._progress = progress
        self._process = process
        self._lock = JarLock.load()
        self.description = f"Apache Kafka {self._lock.kafka_version}"

    @property
    def bootstrap(self) -> str:  # type: ignore[override]
        """The address of the broker."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self.is_alive() else None

    def start(self) -> None:
        if self.is_alive():
            self.wait_ready()
            return
        make_directory(self.directory)
        java = find_java()
        jars = fetch_jars(self._lock, self._progress)
        self.description = f"Apache Kafka {self._lock.kafka_version} on {java.origin}"
        self._claim_ports()
        self._write_config()
        if not (self.directory / "data" / "meta.properties").exists():
            self._format(java, jars)
        self._process = self._spawn(java, jars)
        try:
            self.wait_ready()
        except LocalPlatformError:
            self._process.kill()
            raise

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(signal.SIGTERM, STOP_SECONDS_MAX)
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
            self._process.kill()
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def save(self) -> dict[str, Any]:
        return {
            "kind": "java",
            "directory": str(self.directory),
            "port": self._port,
            "controller_port": self._controller_port,
            "description": self.description,
            "process": None if self._process is None else self._process.identity(),
        }

    def _own_settings(self) -> Mapping[str, str]:
        """What a broker of another kind sets besides, or otherwise: listeners that ask who comes, for one."""
        return {}

    def _own_format_options(self) -> tuple[str, ...]:
        """What is told to the tool that lays out the log directory besides."""
        return ()

    def _running(self) -> ServerProcess:
        if self._process is None or not self._process.is_alive():
            raise LocalPlatformError(f"No broker runs on {self.directory}; start it first.")
        return self._process

    def _claim_ports(self) -> None:
        """A port that was asked for, or that clients know already, must be free; others move."""
        has_data = (self.directory / "data").exists()
        if not is_port_free(self._port):
            if self._is_port_asked_for or has_data:
                raise LocalPlatformError(
                    f"Port {self._port}, on which Kafka is to listen, is in use; end what listens "
                    "there (`ss -ltnp` shows it), or choose another port."
                )
            self._port = free_port()
        if not is_port_free(self._controller_port) or self._controller_port == self._port:
            self._controller_port = free_port()

    def _write_config(self) -> None:
        settings = {
            **BROKER_SETTINGS,
            "listeners": (
                f"PLAINTEXT://127.0.0.1:{self._port},CONTROLLER://127.0.0.1:{self._controller_port}"
            ),
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "log.dirs": str(self.directory / "data"),
            **self._own_settings(),
        }
        lines = "".join(f"{name}={_escaped(value)}\n" for name, value in settings.items())
        (self.directory / "server.properties").write_text(lines, encoding="utf-8")
        (self.directory / "log4j2.properties").write_text(
            _LOG_CONFIG.format(directory=self.directory), encoding="utf-8"
        )

    def _format(self, java: Java, jars: tuple[Path, ...]) -> None:
        """Lays out the log directory, as KRaft wants it before the first start."""
        cluster_id = urlsafe_b64encode(uuid.UUID(bytes=secrets.token_bytes(16)).bytes)
        answer = subprocess.run(
            [
                *self._command(java, jars, "-XX:TieredStopAtLevel=1"),
                "kafka.tools.StorageTool",
                "format",
                # One word: an id may begin with a dash, which would be taken for an option.
                f"--cluster-id={cluster_id.decode().rstrip('=')}",
                "--config",
                str(self.directory / "server.properties"),
                "--ignore-formatted",
                *self._own_format_options(),
            ],
            cwd=self.directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=READY_SECONDS_MAX,
            check=False,
        )
        if answer.returncode != 0:
            said = (answer.stderr or answer.stdout).strip()[-600:]
            raise LocalPlatformError(
                f"Kafka could not lay out its data directory {self.directory / 'data'}: {said}"
            )

    def _spawn(self, java: Java, jars: tuple[Path, ...]) -> ServerProcess:
        return ServerProcess.spawn(
            [
                *self._command(java, jars, "-Xms256m", "-Xmx512m", "-XX:+ExitOnOutOfMemoryError"),
                "kafka.Kafka",
                str(self.directory / "server.properties"),
            ],
            cwd=self.directory,
            output=self.directory / "console.log",
            env=_environment(),
        )

    def _command(self, java: Java, jars: tuple[Path, ...], *options: str) -> list[str]:
        return [
            str(java.executable),
            *options,
            "-XX:-UsePerfData",  # No file in the temporary directory for tools that nobody runs.
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={(self.directory / 'log4j2.properties').as_uri()}",
            "-cp",
            os.pathsep.join(str(jar) for jar in jars),
        ]

    def _last_words(self) -> str:
        words = "\n".join(
            text
            for text in (
                tail(self.directory / "console.log"),
                tail(self.directory / "broker.log"),
            )
            if text
        )
        return f" Its last words, from {self.directory}:\n{words}" if words else ""


class DockerKafka(LocalKafka):
    """Apache Kafka in a container of the official image; its data live in the container."""

    def __init__(self, *, port: int | None = None, container: str | None = None) -> None:
        self._port = port or free_port()
        self._is_port_asked_for = port is not None
        self._is_made = container is not None
        self.container = container or f"signalbox-kafka-{secrets.token_hex(4)}"
        self.bootstrap = f"127.0.0.1:{self._port}"
        self.description = f"{DOCKER_IMAGE} in the container {self.container}"

    @property
    def pid(self) -> int | None:
        answer = _docker("inspect", "--format", "{{.State.Pid}}", self.container, check=False)
        return int(answer) if answer.isdigit() and int(answer) > 0 else None

    def start(self) -> None:
        if self._is_made:
            _docker("start", self.container)
        else:
            if not is_port_free(self._port):
                raise LocalPlatformError(
                    f"Port {self._port}, on which Kafka is to listen, is in use; end what listens "
                    "there, or choose another port."
                )
            _docker("run", "--detach", "--name", self.container, *self._options(), DOCKER_IMAGE)
            self._is_made = True
        self.wait_ready()

    def stop(self) -> None:
        if self._is_made and self.is_alive():
            _docker("stop", "--time", f"{STOP_SECONDS_MAX:.0f}", self.container)

    def kill(self) -> None:
        _docker("kill", self.container)

    def suspend(self) -> None:
        _docker("pause", self.container)

    def resume(self) -> None:
        _docker("unpause", self.container)

    def remove(self) -> None:
        if self._is_made:
            _docker("rm", "--force", "--volumes", self.container)
            self._is_made = False

    def is_alive(self) -> bool:
        return self.pid is not None

    def save(self) -> dict[str, Any]:
        return {"kind": "docker", "container": self.container, "port": self._port}

    def _options(self) -> list[str]:
        settings = {
            **BROKER_SETTINGS,
            "listeners": f"PLAINTEXT://0.0.0.0:{self._port},CONTROLLER://localhost:19093",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self._port}",
            "controller.quorum.voters": "1@localhost:19093",
        }
        options = ["--publish", f"127.0.0.1:{self._port}:{self._port}"]
        for name, value in settings.items():
            variable = "KAFKA_" + name.replace(".", "_").upper()  # As the image's README says.
            options += ["--env", f"{variable}={value}"]
        return [*options, "--env", "KAFKA_HEAP_OPTS=-Xms256m -Xmx512m"]

    def _last_words(self) -> str:
        words = _docker("logs", "--tail", "8", self.container, check=False)
        return f" Its last words:\n{words}" if words else ""


def start_kafka(
    data_dir: Path, *, port: int | None = None, progress: Progress | None = None
) -> LocalKafka:
    """A broker that answers: the one given, else a container, else a Java process.

    `data_dir` takes the Java process's data in `kafka/`; `port` fixes the port of a broker that
    is started here. Without a network, the first run cannot fetch the jars, and says so.
    """
    given = os.environ.get("SIGNALBOX_KAFKA", "").strip()
    if given:
        kafka: LocalKafka = GivenKafka(given)
        kafka.start()
        return kafka
    refusal = ""
    if _docker_answers():
        container = DockerKafka(port=port)
        try:
            container.start()
        except LocalPlatformError as error:
            container.remove()
            refusal = f" (Docker answers, but: {str(error).splitlines()[0]})"
        else:
            return container
    kafka = JavaKafka(data_dir / "kafka", port=port, progress=progress)
    kafka.start()
    kafka.description += refusal
    return kafka


def load_kafka(saved: Mapping[str, Any]) -> LocalKafka | None:
    """The broker that `saved` describes, if it is still there."""
    kafka: LocalKafka
    match saved.get("kind"):
        case "given":
            kafka = GivenKafka(saved["bootstrap"])
        case "docker":
            kafka = DockerKafka(port=saved["port"], container=saved["container"])
        case "java":
            process = ServerProcess.find(saved["process"] or {})
            kafka = JavaKafka(
                Path(saved["directory"]),
                port=saved["port"],
                controller_port=saved["controller_port"],
                process=process,
            )
            kafka.description = saved["description"]
        case other:
            raise LocalPlatformError(f"A saved broker of an unknown kind: {other!r}.")
    return kafka if kafka.is_alive() else None


def answers_metadata(bootstrap: str) -> bool:
    """Whether a broker at one of the addresses knows at least one broker of its cluster.

    Speaks the wire protocol itself (Metadata request, version 1, no topics), so that it can be
    asked from anywhere, with no event loop and no client's retries in between.
    """
    return any(_names_a_broker(address) for address in bootstrap.split(","))


def _names_a_broker(address: str) -> bool:
    host, _, port = address.strip().rpartition(":")
    client = b"signalbox-probe"
    header = struct.pack(">hhih", 3, 1, 1, len(client)) + client
    request = header + struct.pack(">i", 0)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT_S) as wire:
            wire.sendall(struct.pack(">i", len(request)) + request)
            (length,) = struct.unpack(">i", _exactly(wire, 4))
            _, brokers = struct.unpack(">ii", _exactly(wire, length)[:8])
    except (OSError, struct.error):
        return False
    return bool(brokers > 0)


def _exactly(wire: socket.socket, size: int) -> bytes:
    if not 0 <= size <= 1 << 20:
        raise OSError("not a Kafka broker")
    received = b""
    while len(received) < size:
        chunk = wire.recv(size - len(received))
        if not chunk:
            raise OSError("closed early")
        received += chunk
    return received


def _checked_bootstrap(bootstrap: str) -> str:
    addresses = [address.strip() for address in bootstrap.split(",")]
    for address in addresses:
        if not re.fullmatch(r"(\[[0-9A-Fa-f:]+\]|[^\s:/]+):[0-9]{1,5}", address):
            raise LocalPlatformError(
                f"SIGNALBOX_KAFKA has {address!r} where an address such as broker.example:9092 is "
                "wanted; several are separated by commas."
            )
    return ",".join(addresses)


def _docker_answers() -> bool:
    """Whether a Docker engine may be asked for a container; SIGNALBOX_DOCKER=no declines."""
    if os.environ.get("SIGNALBOX_DOCKER", "").strip().lower() in {"no", "off", "false", "0"}:
        return False
    is_likely = "DOCKER_HOST" in os.environ or Path("/var/run/docker.sock").exists()
    if not is_likely or shutil.which("docker") is None:
        return False
    try:
        answer = subprocess.run(
            ["docker", "version", "--format", "{{json .Server.Version}}"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        return answer.returncode == 0 and bool(json.loads(answer.stdout))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return False


def _docker(*arguments: str, check: bool = True) -> str:
    try:
        answer = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DOCKER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LocalPlatformError(f"docker {arguments[0]} failed: {error}.") from error
    if check and answer.returncode != 0:
        said = answer.stderr.strip() or answer.stdout.strip()
        raise LocalPlatformError(f"docker {arguments[0]} failed: {said[-300:]}")
    return answer.stdout.strip()


def _environment() -> dict[str, str]:
    """Ours without the variables by which a Java or a Kafka set up elsewhere would speak up."""
    unwanted = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")
    return {name: value for name, value in os.environ.items() if name not in unwanted}


def _escaped(value: str) -> str:
    """A value as Java's properties format wants it."""
    return value.replace("\\", "\\\\").encode("ascii", "backslashreplace").decode("ascii")
