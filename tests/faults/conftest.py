"""Fixtures of the fault tests: the seed, servers of their own, a pipeline, and a report at the end."""

import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.harness import Pipeline, Servers

SEED = os.environ.get("SEED", "").strip() or str(secrets.randbelow(1_000_000))
REPORT: pytest.StashKey[list[str]] = pytest.StashKey()

Attack = Callable[..., Awaitable[Pipeline]]


def pytest_report_header() -> str:
    """Say the seed before anything else."""
    return f"faults: SEED={SEED}"


def keep(directory: Path, name: str) -> None:
    """Copy a run's logs to the directory that `SIGNALBOX_FAULTS_KEEP` names, if it names one."""
    kept = os.environ.get("SIGNALBOX_FAULTS_KEEP", "").strip()
    if kept:
        shutil.copytree(directory, Path(kept) / name, dirs_exist_ok=True)
        broker_log = directory.parents[1] / "kafka" / "broker.log"
        shutil.copy(broker_log, Path(kept) / name)


@pytest.fixture(scope="session")
def seed() -> str:
    """What decides the times, the targets and the contents; `make faults SEED=…` repeats it."""
    return SEED


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A broker and a database of the fault tests' own, whatever else runs on this machine."""
    running = Servers.start()
    yield running
    running.remove()


@pytest.fixture
async def attacked(
    servers: Servers, seed: str, request: pytest.FixtureRequest
) -> AsyncIterator[Attack]:
    """`pipeline = await attacked("kill")` gives a running pipeline; its end is reported and its processes are gone."""
    begun: list[Pipeline] = []
    began = time.monotonic()

    async def begin(name: str, failpoints: str = "") -> Pipeline:
        directory = servers.directory / "runs" / name
        directory.mkdir(parents=True)
        pipeline = Pipeline(servers, name, seed, directory)
        begun.append(pipeline)
        await pipeline.start(failpoints)
        return pipeline

    yield begin
    for pipeline in begun:
        await pipeline.abandon()
        keep(pipeline.directory, pipeline.name)
        request.config.stash.setdefault(REPORT, []).append(
            f"{pipeline.name} ({time.monotonic() - began:.0f} s)\n"
            + "".join(f"    {line}\n" for line in [*pipeline.figures, *pipeline.evidence])
        )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Tell what was proven and measured, attack by attack."""
    told = config.stash.get(REPORT, [])
    if told:
        terminalreporter.section(f"attacks, SEED={SEED}")
        terminalreporter.write("".join(told))
