"""What the README promises of the demo: every message has a fate, every ticket an answer, whoever is killed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chassis.local import Platform
from cli.places import samples_folder

KEYS = [
    "accepted", "messages", "duplicates", "ignored", "parked", "tickets", "offered", "answered", "escalated",
    "breached", "notices", "unaccounted",
]  # fmt: skip
SECONDS_MAX = 280.0


@dataclass(frozen=True)
class Played:
    """A demo that is over."""

    code: int
    out: str
    told: str

    @property
    def sums(self) -> dict[str, Any]:
        """The object in its last line."""
        found: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return found


def play(data_dir: Path, *options: str, **environment: str) -> Played:
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", "demo", "--json", "--data-dir", str(data_dir), *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    return Played(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="signalbox-demo-"))
    folder.chmod(0o755)  # Run as root, PostgreSQL has to reach its data as another user.
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def day(data_dir: Path) -> Played:
    """A day on servers that the demo finds or starts itself."""
    return play(data_dir, "--rate", "6")


@pytest.fixture(scope="module")
def stormy_day(platform: Platform, data_dir: Path) -> Played:
    """A day on servers that were given, with every service killed twice."""
    return play(data_dir, "--kill", "--kill-seed", "7", "--rate", "4", **platform.environment())


def assert_the_sums_come_out(played: Played) -> None:
    assert played.code == 0, played.told[-3000:]
    sums = played.sums
    assert list(sums) == KEYS
    assert sums["unaccounted"] == 0
    assert sums["accepted"] == (
        sums["messages"] + sums["duplicates"] + sums["ignored"] + sums["parked"]
    )


@pytest.mark.timeout(300)
def test_every_message_of_the_day_has_a_fate(day: Played) -> None:
    assert_the_sums_come_out(day)
    assert day.sums["accepted"] == len(list(samples_folder().glob("*/[0-9]*")))
    assert "not as the manifest expects" not in day.told


@pytest.mark.timeout(300)
def test_every_ticket_is_offered_and_answered_and_the_customer_is_told(day: Played) -> None:
    sums = day.sums
    assert sums["tickets"] == sums["offered"] == sums["answered"] > 0
    assert sums["escalated"] > 0
    assert sums["notices"] >= 2 * sums["tickets"]


@pytest.mark.timeout(300)
def test_killing_every_service_loses_nothing_and_doubles_nothing(
    day: Played, stormy_day: Played
) -> None:
    assert_the_sums_come_out(stormy_day)
    killed = re.findall(r"kill -9 \d+: (\w+)", stormy_day.told)
    assert sorted(set(killed)) == ["ingest", "notifier", "router", "sla"]
    assert len(killed) == 8
    # A mail whose 250 was lost is sent again and known as a duplicate; all else is as on a quiet day.
    for name in ("messages", "ignored", "parked", "tickets", "offered", "answered", "escalated"):
        assert stormy_day.sums[name] == day.sums[name], name
    assert stormy_day.sums["accepted"] >= day.sums["accepted"]
    assert "sent twice" not in stormy_day.told
