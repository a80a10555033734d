"""`python -m schemas.check`: are the generated files those of this code, and does it keep what was released?"""

import json
import sys
from pathlib import Path

from schemas.compatibility import incompatibilities, snapshot
from schemas.export import RELEASED, ROOT, files, superfluous, version
from schemas.registry import REGISTRY
from schemas.topics import TOPICS

_CURE = "run `make golden`, read the difference, and commit it"


def stale(root: Path = ROOT) -> list[str]:
    """Return a sentence for each generated file that is missing, differs, or should not be there."""
    problems = []
    for path, content in files(root).items():
        target = root / path
        if not target.exists():
            problems.append(f"{path} is missing: {_CURE}.")
        elif target.read_text(encoding="utf-8") != content:
            problems.append(f"{path} is not what schemas/ says now: {_CURE}.")
    problems += [f"{path} belongs to no event type: {_CURE}." for path in superfluous(root)]
    return problems


def broken(root: Path = ROOT) -> list[str]:
    """Return a sentence for each promise of the last release that this code breaks; none before the first."""
    path = root / RELEASED
    if not path.exists():
        return []
    try:
        released = json.loads(path.read_text(encoding="utf-8"))
        found = incompatibilities(released, snapshot(version(root)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{RELEASED} cannot be read ({error!r}); take it back from git, edit it never."]
    return [f"Incompatible with release {released['version']}: {sentence}" for sentence in found]


def main() -> int:
    """Print every problem and return 1, or one line and 0."""
    problems = [*stale(), *broken()]
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return 1
    against = (
        "keeps what was released"
        if (ROOT / RELEASED).exists()
        else f"nothing released yet to compare with ({RELEASED})"
    )
    sys.stdout.write(
        f"schemas: {len(REGISTRY)} event types on {len(TOPICS)} topics, files current, {against}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
