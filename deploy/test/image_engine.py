"""podman, as the checks of the image use it: one place where it is called, with a sentence for what fails.

Rootful podman, since the checks also make a base image with debootstrap. No registry is asked for anything.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = (
    "podman",
    "buildah",
    "runc",
    "conmon",
    "containernetworking-plugins",
    "debootstrap",
)
"""What the checks need beside the project's own environment, by their names in Debian."""

CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
"""The machine's authorities. Mounted for a build, since a company's proxy may sign with one of its own; never copied."""

_CAP_SYS_RESOURCE: Final = 24
"""Its bit in /proc/self/status; capabilities(7), linux/capability.h."""

_SHIM: Final = Path(__file__).with_name("image_oci_runtime.py")


class CheckFailed(Exception):
    """What was not as it should be, in a sentence; the check ends with it."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left behind: its exit status and both its outputs."""

    status: int
    out: str
    err: str


def missing_packages() -> list[str]:
    """Return those of `PACKAGES` whose command is not here."""
    found = {name: name for name in PACKAGES} | {"containernetworking-plugins": ""}
    missing = [name for name, command in found.items() if command and not shutil.which(command)]
    if not any(Path(folder, "bridge").exists() for folder in ("/usr/lib/cni", "/opt/cni/bin")):
        missing.append("containernetworking-plugins")
    return missing


def may_raise_limits() -> bool:
    """Whether we have CAP_SYS_RESOURCE, without which runc needs our shim."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(one for one in status.splitlines() if one.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)


def call(
    command: Sequence[str], *, seconds: float = 60.0, environment: Mapping[str, str] | None = None
) -> Result:
    """Run a command to its end; a status other than 0 is the caller's to judge.

    Raises:
        CheckFailed: it did not end within `seconds`.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own command lines
            list(command),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"`{' '.join(command)}` did not end within {seconds:g} s") from None
    return Result(done.returncode, done.stdout, done.stderr)


def podman(*words: str, seconds: float = 60.0) -> str:
    """Run podman and return what it printed.

    Raises:
        CheckFailed: it failed; with its last lines.
    """
    done = call(podman_command(*words), seconds=seconds)
    if done.status:
        told = "\n".join((done.err or done.out).strip().splitlines()[-15:])
        raise CheckFailed(f"podman {words[0]} ended with status {done.status}:\n{told}")
    return done.out.strip()


def podman_command(*words: str) -> list[str]:
    """Return podman's command line, with our runtime where this machine needs it."""
    runtime = [] if may_raise_limits() else ["--runtime", str(_SHIM)]
    return ["podman", *runtime, *words]
