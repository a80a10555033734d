"""`python -m deploy.test.check_dashboards` plays the demo beside a real Prometheus and asks it every query of every dashboard.

Prints what each board's panels have to show, and exits 1 where one is empty without saying why (`quiet` in deploy/grafana/boards.py).
`--pictures FOLDER` draws the boards from the answers. `--stop SERVICE` then freezes a service until its alert fires, lets it go on until
the alert ends, and says how long both took.

Needs Debian's `prometheus`; pictures need a Chromium too. Three minutes, and five more with `--stop`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from chassis.clock import SystemClock, monotonic
from chassis.local.processes import ServerProcess, wait_until
from cli.installation import Installation
from cli.parts import SERVICES
from deploy.grafana import boards
from deploy.grafana.panels import Board, Panel, Query
from deploy.prometheus.lint import as_grafana_sends
from deploy.test import draw_dashboards
from deploy.test.prometheus_stand import SCRAPE_SECONDS, Answers, Prometheus, StandError, prometheus

ROOT: Final = Path(__file__).resolve().parents[2]
BEGIN_SECONDS: Final = 120.0
DEMO_SECONDS: Final = 300.0
RECORDED_SECONDS: Final = 60.0
ALERT_SECONDS: Final = 300.0
LAST_RECORDED: Final = 'signalbox_slo:bad:share_30d{slo="offers"}'
"""Among the last that rules record: once it is there, so is what the boards read."""

REST: Final = "abs(signalbox:sequence:behind)"
"""At rest every reader has applied what every writer has given out, so this is 0; else the alert on a lost end of a log would be wrong."""

MISSING: Final = "SignalboxServiceMissing"


@dataclass(frozen=True, slots=True)
class Seen:
    """A panel and what its queries answered, in their order."""

    panel: Panel
    answers: tuple[tuple[Query, tuple[Answers, ...]], ...]

    @property
    def empty(self) -> tuple[Query, ...]:
        """Queries without any answer."""
        return tuple(query for query, answers in self.answers if not answers)

    @property
    def is_missing(self) -> bool:
        """Whether something is empty that should not be."""
        return bool(self.empty) and not self.panel.quiet


@contextmanager
def demo(folder: Path, rate: float) -> Iterator[tuple[Installation, ServerProcess]]:
    """Begin a demo, and end everything that it left running when the block ends."""
    folder.mkdir()
    folder.chmod(0o755)  # Run as root, PostgreSQL has to reach its data as another user.
    command = [sys.executable, "-m", "cli.main"]
    process = ServerProcess.spawn(
        [*command, "demo", "--keep", "--rate", f"{rate:g}", "--data-dir", str(folder)],
        cwd=ROOT,
        output=folder / "demo.log",
        env=os.environ,
    )
    try:
        if not wait_until(lambda: Installation.load(folder / "demo") is not None, BEGIN_SECONDS):
            raise StandError(f"The demo did not begin; see {folder / 'demo.log'}.")
        found = Installation.load(folder / "demo")
        assert found is not None, "it has just been loaded"
        yield found, process
    finally:
        process.kill()
        subprocess.run(  # noqa: S603 - our own command
            [*command, "down", "--data-dir", str(folder)], cwd=ROOT, check=False, stdout=sys.stderr
        )


def at_rest(asked: Prometheus) -> bool:
    """Return whether all that was given out is applied, as far as Prometheus has seen."""
    now = _now()
    found = asked.over(REST, now, now, SCRAPE_SECONDS)
    return bool(found) and all(value == 0 for one in found for _, value in one.points)


def look(asked: Prometheus, board: Board, begin: float, end: float) -> tuple[Seen, ...]:
    """Ask all queries of a board."""
    return tuple(
        Seen(
            panel,
            tuple(
                (
                    query,
                    asked.over(
                        as_grafana_sends(query.expr, rate="30s"), begin, end, SCRAPE_SECONDS
                    ),
                )
                for query in panel.queries
            ),
        )
        for panel in board.panels
    )


def report(board: Board, seen: Iterable[Seen]) -> Iterator[str]:
    """Yield a line for the board and one for each panel that has nothing to show."""
    found = list(seen)
    n_queries = sum(len(one.answers) for one in found)
    n_empty = sum(len(one.empty) for one in found)
    yield f"{board.uid}: {len(found)} panels, {n_queries} queries, {n_queries - n_empty} with data"
    for one in found:
        for query in one.empty:
            why = one.panel.quiet or "EMPTY, and nothing says why"
            yield f"  {one.panel.title}: {why}" + (f"\n    {query.expr}" if one.is_missing else "")


def freeze(asked: Prometheus, installation: Installation, service: str) -> Iterator[str]:
    """Freeze a service until its alert fires, let it go on until the alert ends; yield how long both took."""
    found = ServerProcess(psutil.Process(installation.processes()[service]), None)

    def fires() -> bool:
        return any(
            labels["alertname"] == MISSING and labels["service"] == service
            for labels in asked.firing()
        )

    began = monotonic()
    found.freeze()
    try:
        if not wait_until(fires, ALERT_SECONDS):
            raise StandError(f"{MISSING} did not fire for {service} within {ALERT_SECONDS:g} s.")
        yield f"{MISSING} of {service} fires {monotonic() - began:.0f} s after it was frozen"
    finally:
        found.thaw()
    began = monotonic()
    if not wait_until(lambda: not fires(), ALERT_SECONDS):
        raise StandError(f"{MISSING} did not end for {service} within {ALERT_SECONDS:g} s.")
    yield f"and ends {monotonic() - began:.0f} s after it goes on"


def _now() -> float:
    return SystemClock().now().timestamp()


def ports(installation: Installation) -> Mapping[str, int]:
    """Return where each service shows its series."""
    return {f"signalbox-{service}": installation.health_ports[service] for service in SERVICES}


def check(folder: Path, rate: float, pictures: Path | None, stop: str | None) -> int:
    """Play, ask, draw; return the exit code."""
    say = sys.stdout.write
    with demo(folder / "demo", rate) as (installation, process):
        (folder / "prometheus").mkdir()
        begin = _now()
        with prometheus(folder / "prometheus", ports(installation)) as asked:
            if not process.wait(DEMO_SECONDS):
                raise StandError(f"The demo did not end; see {folder / 'demo' / 'demo.log'}.")
            if not wait_until(
                lambda: bool(asked.over(LAST_RECORDED, begin, _now(), SCRAPE_SECONDS)),
                RECORDED_SECONDS,
            ):
                raise StandError(f"Nothing has recorded {LAST_RECORDED}.")
            if not wait_until(lambda: at_rest(asked), RECORDED_SECONDS):
                raise StandError("All is done, and readers have not applied what writers gave out.")
            end = _now()
            say(
                f"The demo took {end - begin:.0f} s. Targets down: {asked.targets_down() or 'none'}\n"
            )
            is_good = not asked.targets_down()
            for board in boards.ALL:
                seen = look(asked, board, begin, end)
                say("".join(f"{line}\n" for line in report(board, seen)))
                is_good = is_good and not any(one.is_missing for one in seen)
                if pictures is not None:
                    answers = {one.panel.title: dict(one.answers) for one in seen}
                    path = pictures / f"dashboard-{board.uid.removeprefix('signalbox-')}.png"
                    draw_dashboards.draw(board, answers, (begin, end), path)
            fired = sorted({labels["alertname"] for labels in asked.firing()})
            say(f"Alerts that fire: {', '.join(fired) or 'none'}\n")
            if stop is not None:
                for line in freeze(asked, installation, stop):
                    say(f"{line}\n")
                    sys.stdout.flush()
    return 0 if is_good else 1


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--rate", type=float, default=1.5, help="messages a second")
    parser.add_argument("--pictures", type=Path, help="draw the boards into this folder")
    parser.add_argument("--stop", choices=SERVICES, help="freeze a service until its alert fires")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="signalbox-dashboards-") as made:
        Path(made).chmod(0o755)
        try:
            return check(Path(made), options.rate, options.pictures, options.stop)
        except StandError as error:
            sys.stderr.write(f"{error}\n")
            return 2


if __name__ == "__main__":
    sys.exit(main())
