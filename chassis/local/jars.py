"""Kafka's jars: named and pinned by `deploy/kafka/jars.lock.toml`, fetched once, checked each time.

`python -m chassis.local 4.3.1` writes the lock anew for another version of Kafka.
"""

import hashlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chassis.local.errors import LocalPlatformError
from chassis.local.processes import cache_dir, make_directory

LOCK_FILE = Path(__file__).parents[2] / "deploy" / "kafka" / "jars.lock.toml"

_CONNECTIONS = 6
_TIMEOUT_S = 60

Progress = Callable[[int, int], None]
"""Called with the number of jars at hand and the number of all jars."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One artifact by its Maven coordinates, and the SHA-256 of its bytes in hexadecimal."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """The name it has in a Maven repository."""
        return f"{self.artifact}-{self.version}.jar"

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


@dataclass(frozen=True, slots=True)
class JarLock:
    """Every jar that a broker of one Kafka version needs."""

    kafka_version: str
    jars: tuple[Jar, ...]

    @classmethod
    def load(cls, path: Path = LOCK_FILE) -> "JarLock":
        """Reads the lock file; one that is missing or damaged is a `LocalPlatformError`."""
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
            jars = tuple(Jar(**entry) for entry in content["jars"])
            return cls(str(content["kafka_version"]), jars)
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise LocalPlatformError(
                f"The list of Kafka's jars at {path} cannot be read ({error}); restore it from "
                "the repository, or write it anew with `make lock`."
            ) from error


def fetch_jars(lock: JarLock, progress: Progress | None = None) -> tuple[Path, ...]:
    """The jars on disk, each with the locked checksum; what is missing or damaged is fetched.

    Raises `LocalPlatformError` when a jar cannot be had or is not the one that was locked.
    """
    directory = make_directory(cache_dir() / f"kafka-{lock.kafka_version}")
    paths = tuple(directory / jar.file_name for jar in lock.jars)
    missing = [jar for jar, path in zip(lock.jars, paths, strict=True) if not _is_whole(jar, path)]
    at_hand = len(lock.jars) - len(missing)
    if missing:
        with (
            tempfile.TemporaryDirectory(prefix=".fetch-", dir=directory) as staging,
            ThreadPoolExecutor(_CONNECTIONS) as pool,
        ):
            jobs = [pool.submit(_fetch, jar, Path(staging), directory) for jar in missing]
            for job in jobs:
                try:
                    job.result()
                except LocalPlatformError:
                    pool.shutdown(cancel_futures=True)
                    raise
                at_hand += 1
                if progress is not None:
                    progress(at_hand, len(lock.jars))
    return paths


def are_jars_at_hand(lock: JarLock) -> bool:
    """Whether `fetch_jars` would need no network."""
    directory = cache_dir() / f"kafka-{lock.kafka_version}"
    return all((directory / jar.file_name).is_file() for jar in lock.jars)


def write_lock(kafka_version: str, path: Path = LOCK_FILE) -> JarLock:
    """Resolves Kafka's server jar with all it needs at run time and writes the lock file.

    The log binding is resolved apart from Kafka: beside it, its parent's dependency management
    would pull Kafka's own libraries to other versions.
    """
    with tempfile.TemporaryDirectory(prefix="signalbox-lock-") as staging:
        context = _maven(Path(staging))
        kafka = context.create_dependency(f"org.apache.kafka:kafka_2.13:{kafka_version}")
        _, needed = context.resolver.get_dependency_list([kafka])
        artifacts = [kafka.artifact, *(node.dep.artifact for node in needed)]
        logging = next(found for found in artifacts if found.artifactId == "log4j-core")
        # slf4j-api 1.7 looks for a binding of its own generation; without one nothing is logged.
        artifacts.append(
            context.project("org.apache.logging.log4j", "log4j-slf4j-impl")
            .at_version(logging.version)
            .artifact()
        )
        jars = tuple(
            Jar(found.groupId, found.artifactId, found.version, _sha256(found.resolve()))
            for found in artifacts
        )
    lock = JarLock(kafka_version, tuple(sorted(jars, key=str)))
    path.write_text(_as_toml(lock), encoding="utf-8")
    return lock


def _fetch(jar: Jar, staging: Path, directory: Path) -> None:
    import requests  # Only a first run needs it; it comes with jgo.

    artifact = _maven(staging).project(jar.group, jar.artifact).at_version(jar.version).artifact()
    try:
        path = artifact.resolve()
    except (OSError, RuntimeError, requests.RequestException) as error:
        raise LocalPlatformError(
            f"Cannot fetch {jar}, one of Kafka's jars ({type(error).__name__}). They are fetched "
            f"once, into {directory}: connect this machine to the network for the first run, or "
            "set SIGNALBOX_KAFKA to a broker you have."
        ) from error
    found = _sha256(path)
    if found != jar.sha256:
        raise LocalPlatformError(
            f"{jar} came with the SHA-256 {found} where {LOCK_FILE.name} has {jar.sha256}; it was "
            "not kept. Try again, and if it comes so again, do not trust the network's mirror."
        )
    shutil.move(path, directory / jar.file_name)


def _maven(repository: Path) -> Any:
    """A resolver that keeps what it fetches below `repository`, and asks nothing else on disk."""
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise LocalPlatformError(
            "Kafka's jars are fetched with the package jgo, which is not installed; run "
            "`pip install 'signalbox[local]'`, or set SIGNALBOX_KAFKA to a broker you have."
        ) from error
    mirror = os.environ.get("SIGNALBOX_MAVEN_MIRROR")
    return MavenContext(
        repo_cache=repository,
        local_repos=[],
        remote_repos={"mirror": mirror.rstrip("/")} if mirror else None,
        timeout=_TIMEOUT_S,
    )


def _is_whole(jar: Jar, path: Path) -> bool:
    return path.is_file() and _sha256(path) == jar.sha256


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_toml(lock: JarLock) -> str:
    head = (
        "# The jars of the local Kafka broker, by Maven coordinates and SHA-256.\n"
        "# Written by `python -m chassis.local <Kafka version>`.\n"
        f'kafka_version = "{lock.kafka_version}"\n'
    )
    entries = (
        f'\n[[jars]]\ngroup = "{jar.group}"\nartifact = "{jar.artifact}"\n'
        f'version = "{jar.version}"\nsha256 = "{jar.sha256}"\n'
        for jar in lock.jars
    )
    return head + "".join(entries)
