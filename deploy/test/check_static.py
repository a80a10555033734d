"""The chart without a cluster: `python -m deploy.test.check_static`, some ten seconds, the tools already there.

For each Helm that can be had (4 and 3): lint, and every set of values rendered for the oldest and the newest Kubernetes that
are supported; what it renders is held against strict schemas and against the goldens; every set of tests/deploy/bad is
refused with the sentence that its first line names. `--write` writes the goldens anew: read their diff like code.

Prints what was seen. What could not be checked for want of a tool is said, and is no failure where the tool needs Go or
Java; without any Helm it is one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from deploy.helm import readme, topology
from deploy.helm.rendered import CHART, GOLDENS, NAMES, SETS, shown
from deploy.test import crds, helm_tools
from deploy.test.helm_tools import ToolMissing

ROOT: Final = CHART.parents[2]
BAD: Final = ROOT / "tests" / "deploy" / "bad"
EXAMPLES: Final = ROOT / "deploy" / "examples"
SIZES: Final = tuple(sorted((CHART / "values").glob("*.yaml")))
KUBERNETES: Final = ("1.30.0", "1.35.0")
RELEASE: Final = "sb"
NAMESPACE: Final = "signalbox"


@dataclass(slots=True)
class Report:
    """What was seen, and what is wrong."""

    failures: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, flush=True)  # noqa: T201

    def fail(self, text: str) -> None:
        """Note something wrong, and print it."""
        self.failures.append(text)
        self.say(f"WRONG {text}")


@dataclass(frozen=True, slots=True)
class Rendered:
    """What Helm said: the manifest where it rendered, else why not."""

    status: int
    manifest: str
    error: str


def render(
    helm: Path, *values: Path, kubernetes: str = KUBERNETES[-1], more: tuple[str, ...] = ()
) -> Rendered:
    """Render the chart with these files of values."""
    command = [str(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    command += ["--kube-version", kubernetes, *more]
    for one in values:
        command += ["--values", str(one)]
    done = helm_tools.run(command)
    return Rendered(done.returncode, done.stdout, _without_links(done.stderr))


def _without_links(text: str) -> str:
    """Drop what Helm says of the links to policy, rules and dashboards."""
    return "\n".join(line for line in text.splitlines() if "found symbolic link" not in line)


def values_of(name: str) -> tuple[Path, ...]:
    """Return the files of a set: one of ci/, or `minimal` with a size (`size-small`) or an example (`example-strimzi`)."""
    if name.startswith("example-"):
        return (SETS / "minimal.yaml", EXAMPLES / name.removeprefix("example-") / "values.yaml")
    if name.startswith("size-"):
        return (SETS / "minimal.yaml", CHART / "values" / f"{name.removeprefix('size-')}.yaml")
    return (SETS / f"{name}.yaml",)


def known_versions(name: str) -> tuple[str, ...]:
    """Return what Helm is told that the cluster knows: for an example, the operator that it is for."""
    strimzi = ("--api-versions", "kafka.strimzi.io/v1")
    return strimzi if name == "example-strimzi" else ()


def all_sets() -> tuple[str, ...]:
    """Return the names of all sets."""
    examples = sorted(path.parent.name for path in EXAMPLES.glob("*/values.yaml"))
    return (
        *NAMES,
        *(f"size-{path.stem}" for path in SIZES),
        *(f"example-{name}" for name in examples),
    )


def example_manifests() -> tuple[Path, ...]:
    """Return the examples' own objects."""
    return tuple(sorted(p for p in EXAMPLES.glob("*/*.yaml") if p.name != "values.yaml"))


def refusals() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Return each bad set, and the sentences of which one is expected (Helm 4's and 3's schemas speak differently)."""
    for path in sorted(BAD.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        yield path, tuple(first.removeprefix("# Refused: ").split("|"))


def is_refused(rendered: Rendered, expected: tuple[str, ...]) -> bool:
    """Whether Helm refused, with one of the sentences."""
    said = " ".join(rendered.error.split())
    return rendered.status != 0 and any(" ".join(one.split()) in said for one in expected)


def check(helm: Path, report: Report, folder: Path, supported: tuple[str, ...]) -> None:
    """Lint, render for these versions of Kubernetes, and refuse, with one Helm; leave what it rendered in `folder`."""
    version = helm_tools.run([str(helm), "version", "--short"]).stdout.strip()
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        linted = list(pool.map(lambda name: _lint(helm, name), all_sets()))
        pairs = [(name, one) for name in all_sets() for one in supported]
        made = list(
            pool.map(
                lambda pair: render(
                    helm, *values_of(pair[0]), kubernetes=pair[1], more=known_versions(pair[0])
                ),
                pairs,
            )
        )
        bad = list(refusals())
        refused = list(pool.map(lambda one: render(helm, one[0]), bad))
    for text in filter(None, linted):
        report.fail(text)
    for (name, kubernetes), one in zip(pairs, made, strict=True):
        if one.status:
            report.fail(f"{name} for Kubernetes {kubernetes}: {one.error}")
        (folder / f"{name}-{kubernetes}-{helm.name}.yaml").write_text(
            one.manifest, encoding="utf-8"
        )
    for (path, expected), one in zip(bad, refused, strict=True):
        if not is_refused(one, expected):
            said = one.error or "it was rendered"
            report.fail(f"bad/{path.name}: expected {' or '.join(expected)!r}; {said}")
    report.say(
        f"Helm {version}: {len(linted)} sets linted, {len(made)} renderings, {len(bad)} bad sets"
        f" refused, {time.monotonic() - began:.1f} s"
    )


def _lint(helm: Path, name: str) -> str:
    command = [
        str(helm),
        "lint",
        "--strict",
        "--quiet",
        "--kube-version",
        KUBERNETES[-1],
        str(CHART),
    ]
    for one in values_of(name):
        command += ["--values", str(one)]
    done = helm_tools.run(command)
    return f"lint {name}: {_without_links(done.stdout + done.stderr)}" if done.returncode else ""


def check_schemas(report: Report, folder: Path) -> None:
    """Hold what was rendered against strict schemas, where they can be had."""
    began = time.monotonic()
    try:
        tool, schemas = helm_tools.fetch("kubeconform"), crds.schemas()
    except ToolMissing as error:
        report.say(f"NOT CHECKED against schemas: {error}")
        return
    location = f"{schemas}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json"
    done = helm_tools.run(
        [
            str(tool),
            "-strict",
            "-summary",
            "-n",
            "2",
            "-schema-location",
            location,
            str(folder),
            *map(str, example_manifests()),
        ]
    )
    if done.returncode:
        report.fail(done.stdout.strip())
    report.say(f"schemas: {done.stdout.strip().splitlines()[-1]}, {time.monotonic() - began:.1f} s")


def check_goldens(report: Report, folder: Path, *, is_written: bool) -> None:
    """Hold what was rendered against the goldens, or write them."""
    for name in NAMES:
        manifests = sorted(folder.glob(f"{name}-*.yaml"))
        made = {shown(path.read_text(encoding="utf-8")) for path in manifests}
        if len(made) != 1:
            report.fail(
                f"{name}: Helm 3 and 4, or two versions of Kubernetes, get different objects"
            )
        text = made.pop()
        golden = GOLDENS / f"{name}.yaml"
        if is_written:
            GOLDENS.mkdir(exist_ok=True)
            golden.write_text(text, encoding="utf-8")
        elif not golden.is_file() or golden.read_text(encoding="utf-8") != text:
            report.fail(
                f"{golden.relative_to(ROOT)} is stale: `python -m deploy.test.check_static --write`, read the diff"
            )
    report.say(f"goldens: {len(NAMES)}")


def main(arguments: list[str]) -> int:
    """Check all of it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.test.check_static")
    parser.add_argument("--write", action="store_true", help="write the goldens anew")
    given = parser.parse_args(arguments)
    report = Report()
    if topology.FILE.read_text(encoding="utf-8") != topology.text():
        report.fail("files/topology.json is stale: python -m deploy.helm.topology --write")
    if readme.FILE.read_text(encoding="utf-8") != readme.text():
        report.fail("the chart's README.md is stale: python -m deploy.helm.readme --write")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tool in ("helm", "helm3"):
            try:
                helm = helm_tools.fetch(tool)
            except ToolMissing as error:
                if tool == "helm":
                    report.fail(str(error))
                    return 1
                report.say(f"NOT CHECKED with Helm 3: {error}")
            else:
                check(helm, report, folder, KUBERNETES if tool == "helm" else KUBERNETES[-1:])
        check_goldens(report, folder, is_written=given.write)
        check_schemas(report, folder)
    report.say(f"{len(report.failures)} wrong" if report.failures else "The chart is in order.")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
