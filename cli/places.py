"""Where the policy and the samples lie: as told, else in the folder where the command is run, else beside the code."""

import os
from pathlib import Path

from cli.errors import CommandError

ROOT = Path(__file__).resolve().parent.parent


def policy_folder() -> Path:
    """Return the policy folder: SIGNALBOX_POLICY, else `policy` here, else the example's."""
    given = os.environ.get("SIGNALBOX_POLICY", "").strip()
    if given:
        return Path(given).expanduser()
    return _nearest("policy", "set SIGNALBOX_POLICY to your policy folder")


def samples_folder() -> Path:
    """Return the folder with the demo's messages."""
    return _nearest("samples", "run the demo in Signalbox' own folder")


def _nearest(name: str, cure: str) -> Path:
    for folder in (Path.cwd() / name, ROOT / name):
        if folder.is_dir():
            return folder
    raise CommandError(f"There is no folder {name!r} here; {cure}.")
