#!/usr/bin/python3
"""An OCI runtime for machines whose root may not raise limits: runc, without what it would be refused.

Inside some sandboxes root lacks CAP_SYS_RESOURCE. runc then ends with "operation not permitted" at the rlimits and the
oom_score_adj that podman always asks for. Called like runc, this takes both out of what is to be started and hands over. `image_engine` uses it only where the capability is missing.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RUNC = "/usr/sbin/runc"
"""Debian's. Its crun 1.8 refuses a machine that has cgroup v1 and v2 side by side."""


def file_to_mend(words: Sequence[str]) -> Path | None:
    """Return the file that says how the process is to be started, where one is: a container's or one more in it."""
    if {"create", "run"} & set(words):
        return Path(_option(words, "--bundle", "-b") or "", "config.json")
    process = _option(words, "--process", "-p") if "exec" in words else None
    return Path(process) if process else None


def _option(words: Sequence[str], *names: str) -> str | None:
    for index, word in enumerate(words):
        name, is_joined, value = word.partition("=")
        if name in names:
            return value if is_joined else words[index + 1]
    return None


def mended(told: dict[str, Any], own_score: int) -> dict[str, Any]:
    """Return a container's configuration, or a process alone, without what we may not ask for.

    That is every rlimit, and an oom_score_adj below `own_score`, our own.
    """
    if "process" in told:
        return {**told, "process": mended(told["process"], own_score)}
    process = {name: value for name, value in told.items() if name != "rlimits"}
    process["oomScoreAdj"] = max(int(process.get("oomScoreAdj", own_score)), own_score)
    return process


def main() -> None:
    """Mend what is to be started, if anything is, and become runc."""
    path = file_to_mend(sys.argv[1:])
    if path is not None:
        own_score = int(Path("/proc/self/oom_score_adj").read_text())
        path.write_text(json.dumps(mended(json.loads(path.read_text()), own_score)))
    os.execv(RUNC, [RUNC, *sys.argv[1:]])  # noqa: S606 - the whole purpose


if __name__ == "__main__":
    main()
