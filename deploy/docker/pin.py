"""The images that ours and compose stand on, by digest: `python -m deploy.docker.pin --write | --check`.

A tag can be moved, a digest cannot. `--write` asks each registry through skopeo what a tag points to now and writes
`name:tag@sha256:…` into the Dockerfile and the compose file; `--check` exits 1 and names the references that have a tag
only. A release does both; in between, tags are kept readable and are easy to raise: change the tag, drop the digest.
"""

import argparse
import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FILES: Final = (
    Path(__file__).with_name("Dockerfile"),
    Path(__file__).parents[1] / "compose" / "compose.yaml",
)

_REFERENCE: Final = re.compile(
    r"(?P<before>^ARG PYTHON_IMAGE=|^\s+image: )(?P<name>[a-z0-9][\w./-]*):(?P<tag>[\w.-]+)"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?$",
    re.MULTILINE,
)
"""A reference in one of our files; `image:` with a variable in it (our own image) is none."""


@dataclass(frozen=True, slots=True)
class Reference:
    """An image that is named somewhere: without a digest where `digest` is empty."""

    name: str
    tag: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" + (f"@{self.digest}" if self.digest else "")


def references(text: str) -> list[Reference]:
    """Return the references of a Dockerfile or a compose file, in their order."""
    return [
        Reference(found["name"], found["tag"], found["digest"] or "")
        for found in _REFERENCE.finditer(text)
    ]


def pinned(text: str, digest_of: Callable[[str], str]) -> str:
    """Return the text with a digest behind every tag; what has one already is looked up anew."""

    def pin(found: re.Match[str]) -> str:
        tagged = f"{found['name']}:{found['tag']}"
        return f"{found['before']}{tagged}@{digest_of(tagged)}"

    return _REFERENCE.sub(pin, text)


def full_name(reference: str) -> str:
    """Return a reference with its registry: a name without one is Docker Hub's, one without a slash its library's."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"


def look_up(reference: str, *options: str) -> str:
    """Return the digest that a registry has for a tag: of the list of all platforms, where there is one.

    It is the SHA-256 of the manifest's very bytes (OCI distribution specification, "Pulling manifests").

    Raises:
        SystemExit: skopeo is missing, or the registry does not answer or does not have it.
    """
    command = ["skopeo", "inspect", "--raw", *options, f"docker://{full_name(reference)}"]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)  # noqa: S603
    except FileNotFoundError:
        sys.exit("skopeo is not here; on Debian and Ubuntu: apt-get install skopeo")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{reference} cannot be looked up: {error.stderr.decode().strip()}")
    except subprocess.TimeoutExpired:
        sys.exit(f"{reference} cannot be looked up: its registry did not answer within 60 s")
    return f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"


def unpinned(paths: Iterable[Path]) -> list[str]:
    """Return a sentence for each reference that has no digest."""
    return [
        f"{path.name}: {one} has no digest"
        for path in paths
        for one in references(path.read_text(encoding="utf-8"))
        if not one.digest
    ]


def main() -> None:
    """Write the digests, or say where one is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="look every tag up and write its digest")
    what.add_argument("--check", action="store_true", help="exit 1 where a digest is missing")
    if parser.parse_args().write:
        texts = {path: pinned(path.read_text(encoding="utf-8"), look_up) for path in FILES}
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    missing = unpinned(FILES)
    if missing:
        sys.exit("\n".join(missing))


if __name__ == "__main__":
    main()
