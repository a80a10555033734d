"""The kinds that the chart may render, as the projects that define them publish them: CRDs, and strict JSON schemas.

No cluster is needed and no download site: Kubernetes' own schemas, KEDA's, the Prometheus operator's and the Gateway API's
CRDs lie in their Go modules; Strimzi publishes a generator as a jar, which needs Java 21 and Maven. What cannot be had is
left out, and said.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.test.helm_tools import ToolMissing, run, state

KUBERNETES: Final = "v1.35.4"
STRIMZI: Final = "1.2.0"


@dataclass(frozen=True, slots=True)
class Module:
    """A Go module whose files are CRDs."""

    name: str
    folder: str
    patterns: tuple[str, ...]


MODULES: Final = (
    Module(
        "github.com/kedacore/keda/v2@v2.21.0",
        "config/crd/bases",
        ("keda.sh_scaledobjects.yaml", "keda.sh_triggerauthentications.yaml"),
    ),
    # Later versions publish Go types alone.
    Module(
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
        ("*_podmonitors.yaml", "*_servicemonitors.yaml", "*_prometheusrules.yaml"),
    ),
    Module("sigs.k8s.io/gateway-api@v1.4.0", "config/crd/standard", ("*_httproutes.yaml",)),
    # Of the examples.
    Module(
        "github.com/cloudnative-pg/cloudnative-pg@v1.27.0",
        "config/crd/bases",
        ("postgresql.cnpg.io_clusters.yaml",),
    ),
    Module(
        "github.com/external-secrets/external-secrets@v0.20.1",
        "config/crds/bases",
        ("external-secrets.io_externalsecrets.yaml",),
    ),
)

_MODEL: Final = "io.strimzi.api.kafka.model"
_STRIMZI_KINDS: Final = {
    "kafkatopic": f"{_MODEL}.topic.KafkaTopic",
    "kafkauser": f"{_MODEL}.user.KafkaUser",
    "kafka": f"{_MODEL}.kafka.Kafka",
    "kafkanodepool": f"{_MODEL}.nodepool.KafkaNodePool",
}
_POM: Final = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>x</groupId><artifactId>x</artifactId><version>1</version><dependencies>
<dependency><groupId>io.strimzi</groupId><artifactId>api</artifactId><version>{v}</version></dependency>
<dependency><groupId>io.strimzi</groupId><artifactId>crd-generator</artifactId><version>{v}</version></dependency>
</dependencies></project>
"""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 has a value `=` of its own kind; in a CRD it is a word like others."""


def _word(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_Loader.add_constructor("tag:yaml.org,2002:value", _word)


def crds() -> Path:
    """Return the folder with the CRDs, fetched where it is missing.

    Raises:
        ToolMissing: one of them could not be had.
    """
    folder = state() / f"crds-{_version()}"
    if folder.is_dir():
        return folder
    made = Path(tempfile.mkdtemp(dir=_parent(folder)))
    for module in MODULES:
        source = module_folder(module.name) / module.folder
        for path in sorted(p for pattern in module.patterns for p in source.glob(pattern)):
            (made / path.name).write_bytes(path.read_bytes())
    _strimzi(made)
    made.rename(folder)
    return folder


def schemas() -> Path:
    """Return the folder with a strict JSON schema for each kind, `<kind>-<group>-<version>.json`, made where it is missing.

    Raises:
        ToolMissing: what they are made of could not be had.
    """
    folder = state() / f"schemas-{_version()}"
    if folder.is_dir():
        return folder
    swagger = module_folder(f"k8s.io/kubernetes@{KUBERNETES}") / "api/openapi-spec/swagger.json"
    made = Path(tempfile.mkdtemp(dir=_parent(folder)))
    _write_builtin(json.loads(swagger.read_text(encoding="utf-8"))["definitions"], made)
    for path in sorted(crds().glob("*.yaml")):
        _write_custom(path, made)
    made.rename(folder)
    return folder


def _version() -> str:
    """Return a name for what is fetched, so that another list is fetched anew."""
    listed = "\n".join([KUBERNETES, STRIMZI, *map(repr, MODULES)])
    return hashlib.sha256(listed.encode()).hexdigest()[:12]


def module_folder(module: str) -> Path:
    """Return where Go keeps a module's files.

    Raises:
        ToolMissing: there is no Go, or it cannot have the module.
    """
    if shutil.which("go") is None:
        raise ToolMissing(f"{module} is fetched by Go, and there is no go")
    with tempfile.TemporaryDirectory() as name:
        Path(name, "go.mod").write_text("module x\n\ngo 1.24\n", encoding="utf-8")
        done = _run(["go", "mod", "download", "-json", module], Path(name))
    return Path(json.loads(done)["Dir"])


def _strimzi(folder: Path) -> None:
    java = _java()
    if shutil.which("mvn") is None or java is None:
        raise ToolMissing("Strimzi's CRDs are generated by Maven and Java 21 or newer")
    with tempfile.TemporaryDirectory() as name:
        inside = Path(name)
        (inside / "pom.xml").write_text(_POM.format(v=STRIMZI), encoding="utf-8")
        _run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DoutputDirectory=lib"], inside)
        _run(
            [java, "-cp", "lib/*", "io.strimzi.crdgenerator.CrdGenerator", "--target-kube", "1.25+"]
            + [
                "--crd-api-version",
                "v1",
                "--api-versions",
                "v1",
                "--storage-version",
                "v1",
                "--yaml",
            ]
            + [
                f"{kind}={folder / f'strimzi-{short}.yaml'}"
                for short, kind in _STRIMZI_KINDS.items()
            ],
            inside,
        )


def _java() -> str | None:
    """Return a Java that runs class files of 21: JAVA_HOME's, one that Debian or Adoptium installs, or the path's."""
    home = os.environ.get("JAVA_HOME")
    known = sorted(Path("/usr/lib/jvm").glob("*2[1-9]*/bin/java"))
    candidates = [*([f"{home}/bin/java"] if home else []), *map(str, known), "java"]
    return next((one for one in candidates if _java_version(one) >= 21), None)


def _java_version(java: str) -> int:
    """Return the first part of the version that a Java names, 0 where there is none: `openjdk version "25.0.1" …`."""
    if shutil.which(java) is None:
        return 0
    words = run([java, "-version"]).stderr.split('"')
    first = words[1].partition(".")[0] if len(words) > 1 else ""
    return int(first) if first.isdecimal() else 0


def _run(command: list[str], folder: Path) -> str:
    done = run(command, folder=folder)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-400:]
        raise ToolMissing(f"`{' '.join(command[:4])} …` failed: {said}")
    return done.stdout


def _parent(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent


# ----------------------------------------------------------------------------------------------------- schemas


def _write_builtin(definitions: dict[str, Any], folder: Path) -> None:
    for name, one in definitions.items():
        if name.endswith((".Quantity", ".IntOrString")):
            # The published schema says "string" of both; the API server takes numbers as well.
            one.clear()
            one["anyOf"] = [{"type": "string"}, {"type": "number"}]
        elif "JSONSchemaProps" in name:
            one.clear()  # Recursive, and only in CRDs, of which the chart has none.
    _make_strict(definitions)
    whole = json.dumps({"definitions": definitions}).replace(
        "#/definitions/", "_definitions.json#/definitions/"
    )
    (folder / "_definitions.json").write_text(whole, encoding="utf-8")
    for name, one in definitions.items():
        for kind in one.get("x-kubernetes-group-version-kind", ()):
            _write(folder, kind["kind"], kind["group"] or kind["version"], kind["version"],
                   {"$ref": f"_definitions.json#/definitions/{name}"})  # fmt: skip


def _write_custom(path: Path, folder: Path) -> None:
    for crd in _documents(path):
        spec = crd["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            known = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
            schema.setdefault("properties", {}).update({**known, "metadata": {"type": "object"}})
            _make_strict(schema)
            _write(folder, spec["names"]["kind"], spec["group"], version["name"], schema)


def _documents(path: Path) -> Iterator[Any]:
    for one in yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader):
        if one and one.get("kind") == "CustomResourceDefinition":
            yield one


def _write(folder: Path, kind: str, group: str, version: str, schema: Any) -> None:
    name = f"{kind}-{group}-{version}.json".lower()
    (folder / name).write_text(json.dumps(schema), encoding="utf-8")


def _make_strict(node: Any) -> None:
    """Refuse fields that a schema does not know, as the API server does when it is asked strictly."""
    if isinstance(node, list):
        for one in node:
            _make_strict(one)
    elif isinstance(node, dict):
        is_open = "additionalProperties" in node or node.get("x-kubernetes-preserve-unknown-fields")
        if isinstance(node.get("properties"), dict) and not is_open:
            node["additionalProperties"] = False
        if node.pop("x-kubernetes-int-or-string", None) or node.get("format") == "int-or-string":
            node.pop("type", None)
            node.pop("format", None)
            node.setdefault("anyOf", [{"type": "string"}, {"type": "integer"}])
        for one in list(node.values()):
            _make_strict(one)


if __name__ == "__main__":
    print(crds(), schemas(), sep="\n")  # noqa: T201
    sys.exit(0)
