"""`python -m deploy.grafana.build` writes `dashboards/<uid>.json` from the boards; `--check` compares.

The library is Grafana's own (grafana-foundation-sdk); Grafana reads the files by provisioning, or as ConfigMaps that its sidecar finds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana import boards
from deploy.grafana.panels import as_grafana

FOLDER: Final = Path(__file__).parent / "dashboards"


def files() -> dict[str, str]:
    """Return the files: name → text."""
    return {
        f"{board.uid}.json": json.dumps(
            as_grafana(board), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False
        )
        + "\n"
        for board in boards.ALL
    }


def main() -> int:
    """Write the files, or with `--check` say which are not as they would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    wanted = files()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if parser.parse_args().check:
        differ = sorted(
            name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)
        )
        sys.stderr.writelines(
            f"{name} is not what `python -m deploy.grafana.build` writes\n" for name in differ
        )
        return 1 if differ else 0
    FOLDER.mkdir(exist_ok=True)
    for name in there.keys() - wanted.keys():
        (FOLDER / name).unlink()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
