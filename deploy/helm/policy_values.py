"""A policy folder as values of the chart: `python -m deploy.helm.policy_values FOLDER > policy-values.yaml`.

Then `helm upgrade … -f policy-values.yaml` brings the folder into the cluster. The services take a change over in place.
"""

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import yaml

BYTES_MAX: Final = 1_000_000
"""What the chart takes of a folder, below the 1 MiB that a ConfigMap holds (kubernetes.io/docs/concepts/configuration/configmap)."""
_NAME: Final = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_-]*/)*[-._A-Za-z0-9]+")


class _Blocks(yaml.SafeDumper):
    """Texts of several lines as blocks, so that a change is read line by line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Blocks.add_representer(str, _text)


def values(folder: Path) -> dict[str, Any]:
    """Return the values: path → text of every file in `folder`, hidden ones left out.

    Raises:
        ValueError: a name that a ConfigMap cannot hold, a file that is no text, or more than it takes.
    """
    files: dict[str, str] = {}
    for found in sorted(folder.rglob("*")):
        inside = found.relative_to(folder)
        if not found.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        if not _NAME.fullmatch(inside.as_posix()):
            raise ValueError(
                f"{inside}: no ConfigMap can hold it; letters, digits, -, _ and . alone"
            )
        try:
            files[inside.as_posix()] = found.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{inside}: is no text") from None
    sizes = Counter[str]()
    for path, text in files.items():
        sizes[path.rpartition("/")[0]] += len(text.encode())
    for part, size in sizes.items():
        if size > BYTES_MAX:
            raise ValueError(f"{folder / part}: {size} bytes, and a ConfigMap holds {BYTES_MAX}")
    if not files:
        raise ValueError(f"{folder}: holds no files")
    return {"policy": {"files": files}}


def main(arguments: list[str]) -> int:
    """Write the values of the folder that was named to standard output."""
    if len(arguments) != 1:
        print("usage: python -m deploy.helm.policy_values FOLDER", file=sys.stderr)  # noqa: T201
        return 2
    try:
        made = values(Path(arguments[0]))
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    yaml.dump(made, sys.stdout, Dumper=_Blocks, allow_unicode=True, sort_keys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
