"""A base image for the Dockerfile where no registry can be reached: Debian with its own Python, by debootstrap.

It has what the Dockerfile counts on in the official `python:…-slim-trixie`: Debian 13, `python` on the path, pip outside
the package manager, certificates, nothing else. The check of the image builds on it where it is not given another one.
"""

import shutil
from pathlib import Path
from typing import Final

from deploy.test.image_engine import CheckFailed, call, podman

SUITE: Final = "trixie"
"""Debian 13, whose Python is 3.13, the version that the Dockerfile's own base has."""

NAME: Final = f"localhost/signalbox-base:{SUITE}"

_KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def is_there() -> bool:
    """Whether the base image has been made before."""
    return bool(podman("images", "--quiet", NAME))


def make(folder: Path) -> str:
    """Make the base image from Debian's archive, in `folder`; return its name. About a minute, once.

    Raises:
        CheckFailed: Debian's archive cannot be reached, or a step of it failed.
    """
    root = folder / "rootfs"
    shutil.rmtree(root, ignore_errors=True)  # What a broken run left would be taken for whole.
    folder.mkdir(parents=True, exist_ok=True)
    _step(
        "debootstrap",
        "--variant=minbase",
        "--include=python3,python3-venv,ca-certificates",
        f"--keyring={_KEYRING}",
        SUITE,
        str(root),
    )
    _resemble_official(root)
    archive = folder / "rootfs.tar"
    _step(
        "tar", "--create", "--numeric-owner", "--file", str(archive), "--directory", str(root), "."
    )
    podman("import", "--quiet", str(archive), NAME, seconds=300)
    archive.unlink()
    shutil.rmtree(root)
    return NAME


def _resemble_official(root: Path) -> None:
    """Put `python` and pip where the official image has them, and take out what it does not have."""
    version = next(path.name for path in (root / "usr/lib").glob("python3.*"))
    (root / "usr/lib" / version / "EXTERNALLY-MANAGED").unlink(missing_ok=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    wheel = next((root / "usr/share/python-wheels").glob("pip-*.whl"))
    inside = f"/usr/share/python-wheels/{wheel.name}"
    _step(
        *("chroot", str(root), "/usr/bin/python3", f"{inside}/pip", "install", "--quiet"),
        *("--no-index", "--root-user-action=ignore", inside),
    )
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        package.unlink()


def _step(*command: str) -> None:
    done = call(command, seconds=900)
    if done.status:
        told = "\n".join((done.err.strip() or done.out.strip()).splitlines()[-10:])
        raise CheckFailed(f"{command[0]} ended with status {done.status}:\n{told}")
