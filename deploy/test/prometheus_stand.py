"""A real Prometheus on this machine, with our rules, that scrapes the services of a `signalbox` installation found by its folder.

Needs the binary `prometheus` (Debian's package of that name). Groups of rules are evaluated every few seconds here instead of every
minute or two, so that a demo of two minutes is enough to see what they record; `for` stays as it is.
"""

import contextlib
import math
import shutil
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

from chassis.local.processes import ServerProcess, free_port, wait_until
from deploy.prometheus.lint import RULES

SCRAPE_SECONDS: Final = 2
"""The demo is over soon; two scrapes must lie within Prometheus' shortest windows."""

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0


class StandError(Exception):
    """The stand cannot be put up, or something did not happen in time; the text says what."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What Prometheus says to a query over a time: labels, and points of (instant in seconds, value)."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


class Prometheus:
    """A running Prometheus, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    def _ask(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=parameters)
        body = answer.json()
        if body["status"] != "success":
            raise StandError(f"Prometheus refuses: {body['error']}")
        return body["data"]

    def is_ready(self) -> bool:
        """Return whether it answers."""
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False

    def over(self, expr: str, begin: float, end: float, step: float) -> tuple[Answers, ...]:
        """Return the query's answers from `begin` to `end`, without points that are no number."""
        data = self._ask(
            "query_range", query=expr, start=f"{begin:.3f}", end=f"{end:.3f}", step=f"{step:g}"
        )
        found = []
        for series in data["result"]:
            points = tuple(
                (float(at), float(value))
                for at, value in series["values"]
                if not math.isnan(float(value))
            )
            if points:
                found.append(Answers(series["metric"], points))
        return tuple(found)

    def firing(self) -> tuple[Mapping[str, str], ...]:
        """Return the labels of the alerts that fire."""
        alerts = self._ask("alerts")["alerts"]
        return tuple(alert["labels"] for alert in alerts if alert["state"] == "firing")

    def targets_down(self) -> tuple[str, ...]:
        """Return the targets that could not be scraped, with what was wrong."""
        active = self._ask("targets")["activeTargets"]
        return tuple(
            f"{one['scrapeUrl']}: {one['lastError'] or one['health']}"
            for one in active
            if one["health"] != "up"
        )


def quick_rules(into: Path, seconds: int) -> None:
    """Write our rules into a folder, with each group looked at every so many seconds."""
    into.mkdir(parents=True, exist_ok=True)
    for path in RULES.glob("*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in content["groups"]:
            group["interval"] = f"{seconds}s"
        (into / path.name).write_text(yaml.safe_dump(content, width=4096), encoding="utf-8")


def configuration(folder: Path, targets: Mapping[str, int]) -> dict[str, Any]:
    """Return Prometheus' configuration: job → port on this machine."""
    return {
        "global": {
            "scrape_interval": f"{SCRAPE_SECONDS}s",
            "scrape_timeout": f"{SCRAPE_SECONDS}s",
            "evaluation_interval": f"{SCRAPE_SECONDS}s",
        },
        "rule_files": [str(folder / "rules" / "*.yaml")],
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in targets.items()
        ],
    }


@contextlib.contextmanager
def prometheus(folder: Path, targets: Mapping[str, int]) -> Iterator[Prometheus]:
    """Run Prometheus in `folder` until the block ends."""
    binary = shutil.which("prometheus")
    if binary is None:
        raise StandError("There is no `prometheus` here; on Debian: apt-get install prometheus.")
    quick_rules(folder / "rules", SCRAPE_SECONDS)
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump(configuration(folder, targets)), encoding="utf-8")
    port = free_port()
    process = ServerProcess.spawn(
        [
            binary,
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        cwd=folder,
        output=folder / "prometheus.log",
        env={},
    )
    made = Prometheus(f"http://127.0.0.1:{port}")
    try:
        if not wait_until(made.is_ready, START_SECONDS):
            raise StandError(f"Prometheus did not come up; see {folder / 'prometheus.log'}.")
        yield made
    finally:
        made.close()
        process.stop(signal.SIGTERM, STOP_SECONDS)
