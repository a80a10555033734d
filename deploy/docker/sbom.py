"""What the image is made of, as a CycloneDX document: our Python packages, the interpreter, Debian's packages.

Run in the image's build, with the standard library and the locked `cyclonedx-bom` of its build tools only:
`python sbom.py --python VENV/bin/python --pyproject pyproject.toml --output FILE`.

`cyclonedx-py environment` reads what is really installed (not what a lock says should be), with licences and who needs
whom. It knows nothing below Python, so Debian's packages are added from dpkg's own list, which the base image brings and
no later step of the build changes. CycloneDX rather than SPDX: its tool for Python reads environments, and Grype,
Trivy and Dependency-Track take the document as it is. The document has no serial number and no time, so that the same
sources give the same bytes.
"""

import argparse
import importlib
import json
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

SPEC_VERSION: Final = "1.6"
DPKG_STATUS: Final = Path("/var/lib/dpkg/status")
OS_RELEASE: Final = Path("/etc/os-release")


def python_packages(python: str, pyproject: str) -> dict[str, Any]:
    """Return the document of a Python environment, with the project that `pyproject` describes as its subject."""
    made = subprocess.run(  # noqa: S603 - the build's own words
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"),
            *(
                "--spec-version",
                SPEC_VERSION,
                "--output-format",
                "JSON",
                "--mc-type",
                "application",
            ),
            *("--pyproject", pyproject, "--output-file", "-", python),
        ],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    document: dict[str, Any] = json.loads(made.stdout)
    return document


def installed_debian(status: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each installed package in dpkg's status file (deb822, one paragraph a package)."""
    for paragraph in status.split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line and not line[0].isspace()]
        fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if fields.get("Status", "").endswith(" installed"):
            yield fields


def debian_component(fields: Mapping[str, str], release: str) -> dict[str, Any]:
    """Return one Debian package as a component; its purl is what scanners look up (purl-spec, type `deb`)."""
    name, version = fields["Package"], fields["Version"]
    quoted = quote(version, safe=".-~")
    purl = f"pkg:deb/debian/{name}@{quoted}?arch={fields['Architecture']}&distro=debian-{release}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "properties": [{"name": "debian:source", "value": fields.get("Source", name).split()[0]}],
    }


def interpreter_component() -> dict[str, Any]:
    """Return the interpreter; the official image compiles it itself, so dpkg does not know it."""
    version = platform.python_version()
    purl = f"pkg:generic/python@{version}"
    return {
        "type": "platform",
        "bom-ref": purl,
        "name": "python",
        "version": version,
        "purl": purl,
        "cpe": f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*",
    }


def with_components(document: Mapping[str, Any], more: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the document with more components, in a fixed order."""
    components = [*document.get("components", ()), *more]
    return {**document, "components": sorted(components, key=lambda one: str(one["bom-ref"]))}


def release_of(os_release: str) -> str:
    """Return VERSION_ID of an os-release file, such as `13`."""
    line = next(one for one in os_release.splitlines() if one.startswith("VERSION_ID="))
    return line.partition("=")[2].strip('"')


def faults(text: str) -> str | None:
    """Return what CycloneDX' own schema finds wrong with a document, None where nothing is."""
    # By name: the library is in the image's build, and nowhere else.
    schema = importlib.import_module("cyclonedx.schema").SchemaVersion.from_version(SPEC_VERSION)
    validator = importlib.import_module("cyclonedx.validation.json").JsonStrictValidator(schema)
    found = validator.validate_str(text)
    return None if found is None else str(found)


def main() -> None:
    """Write the document, or end with what is wrong with it."""
    parser = argparse.ArgumentParser(description="Write what the image is made of.")
    for name in ("--python", "--pyproject", "--output"):
        parser.add_argument(name, required=True)
    arguments = parser.parse_args()
    release = release_of(OS_RELEASE.read_text(encoding="utf-8"))
    debian = installed_debian(DPKG_STATUS.read_text(encoding="utf-8"))
    document = with_components(
        python_packages(arguments.python, arguments.pyproject),
        [interpreter_component(), *(debian_component(fields, release) for fields in debian)],
    )
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    wrong = faults(text)
    if wrong is not None:
        sys.exit(f"the list of what is in the image breaks CycloneDX' schema: {wrong}")
    Path(arguments.output).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
