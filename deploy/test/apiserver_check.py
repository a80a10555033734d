"""What a real API server says to the chart: `python -m deploy.test.apiserver_check`, under a minute once it is built.

On a bare server: an install that asks for KEDA, Strimzi and the Prometheus operator works, and its notes say what is off.
Then with their CRDs: every object of every set is admitted, strictly; its pods are admitted in a namespace that enforces
Pod Security "restricted"; planted mistakes are refused. An upgrade with another number of partitions is refused, by the
chart's own words and, without them, by the server; one after somebody scaled by hand passes and keeps the number.

Exit code 3 where no API server is built and it was not asked to build one (`--build`).
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from deploy.helm.rendered import CHART, SETS
from deploy.test import apiserver, crds, helm_tools
from deploy.test.apiserver import ApiServer
from deploy.test.check_static import (
    Report,
    all_sets,
    example_manifests,
    known_versions,
    render,
    values_of,
)
from deploy.test.helm_tools import ToolMissing

NOT_BUILT: Final = 3
RESTRICTED: Final = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}
Objects = list[dict[str, Any]]


def prepare(server: ApiServer) -> None:
    """Make the namespace, with what a controller would make in it."""
    about = {"apiVersion": "v1", "kind": "Namespace"}
    account = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "default", "namespace": "signalbox"},
    }
    space = {**about, "metadata": {"name": "signalbox", "labels": RESTRICTED}}
    made = server.kubectl("apply", "--filename", "-", given=yaml.safe_dump_all([space, account]))
    if made.returncode:
        raise ToolMissing(made.stderr)


def helm(server: ApiServer, tool: Path, *arguments: str) -> tuple[int, str]:
    """Run Helm against the server; return its exit code and all it said."""
    done = helm_tools.run(
        [str(tool), "--kubeconfig", str(server.kubeconfig), "--namespace", "signalbox", *arguments],
        environment={"HELM_DRIVER": "secret"},
    )
    said = "\n".join(
        line
        for line in (done.stdout + done.stderr).splitlines()
        if "found symbolic link" not in line
    )
    return done.returncode, said


def check_bare(server: ApiServer, tool: Path, report: Report) -> None:
    """Install on a cluster that lacks all that is asked for."""
    values = ["--values", str(SETS / "minimal.yaml"), "--set", "defaults.autoscaling.kind=keda"]
    values += ["--set", "parts.gateway.autoscaling.kind=hpa,monitoring.monitor=podMonitor"]
    values += ["--set", "monitoring.rules=true,strimzi.enabled=true,strimzi.cluster=events"]
    status, said = helm(server, tool, "install", "bare", str(CHART), "--no-hooks", *values)
    if status:
        report.fail(f"install on a bare cluster: {said}")
    for word in (
        "Strimzi: the cluster has no",
        "KEDA: the cluster has no",
        "Prometheus operator: the cluster has no",
    ):
        if word not in said:
            report.fail(f"install on a bare cluster does not say {word!r}: {said}")
    status, said = helm(server, tool, "uninstall", "bare", "--no-hooks")
    if status:
        report.fail(f"uninstall: {said}")
    kept = server.kubectl(
        "--namespace", "signalbox", "get", "configmap", "bare-signalbox-installation"
    )
    if kept.returncode:
        report.fail("uninstall took the installation's ConfigMap with it")
    report.say(f"{tool.name}: installed on a bare cluster; what was off was said; uninstalled")


def check_installation(server: ApiServer, tool: Path, report: Report) -> None:
    """Install, upgrade, scale by hand, upgrade; and try another number of partitions."""
    name = f"it-{tool.name}"
    values = ["--values", str(SETS / "minimal.yaml"), "--no-hooks"]
    values += ["--set", "parts.gateway.autoscaling.kind=hpa"]
    steps: tuple[tuple[str, list[str]], ...] = (
        ("install", ["--set", "partitions=6"]),
        ("upgrade", ["--set", "partitions=6,log.level=debug"]),
    )
    for verb, more in steps:
        status, said = helm(server, tool, verb, name, str(CHART), *values, *more)
        if status:
            report.fail(f"{tool.name} {verb}: {said}")
    gateway = f"deployment/{name}-signalbox-gateway"
    scaled = server.kubectl("--namespace", "signalbox", "scale", gateway, "--replicas", "4")
    if scaled.returncode:
        report.fail(scaled.stderr)
    status, said = helm(
        server, tool, "upgrade", name, str(CHART), *values, "--set", "partitions=6,log.level=info"
    )
    if status:
        report.fail(f"{tool.name} upgrade after a scale by hand: {said}")
    told = server.kubectl(
        "--namespace", "signalbox", "get", gateway, "-o", "jsonpath={.spec.replicas}"
    )
    if told.stdout != "4":
        report.fail(
            f"{tool.name} upgrade changed the number of an autoscaled Deployment: {told.stdout}"
        )
    status, said = helm(
        server, tool, "upgrade", name, str(CHART), *values, "--set", "partitions=12"
    )
    wanted = 'partitions: this installation has "6", and it is fixed for its life'
    if not status or wanted not in said:
        report.fail(f"{tool.name} upgrade to 12 partitions: {said}")
    # As those do it that render elsewhere: nothing can be looked up, so the server has to say it.
    sight = helm_tools.run(
        [
            *(str(tool), "template", name, str(CHART), "--namespace", "signalbox"),
            *("--kube-version", "1.35.0", *values, "--set", "partitions=12"),
        ]
    )
    objects = [one for one in yaml.safe_load_all(sight.stdout) if one]
    about = [one for one in objects if one["metadata"]["name"].endswith("-installation")]
    refused = server.admit(yaml.safe_dump_all(about))
    if not refused.returncode or "immutable" not in refused.stderr:
        report.fail(f"12 partitions, applied without Helm: {refused.stdout}{refused.stderr}")
    report.say(
        f"{tool.name}: install, upgrade, upgrade after a scale by hand (4 kept); 12 partitions"
        " refused by the chart, and by the server"
    )


def check_admission(server: ApiServer, tool: Path, report: Report) -> None:
    """Have every object of every set judged, and its pods."""
    for name in all_sets():
        began = time.monotonic()
        rendered = render(tool, *values_of(name), more=known_versions(name))
        said = server.admit(rendered.manifest)
        if said.returncode:
            report.fail(f"{name}: {said.stderr}")
        objects = [one for one in yaml.safe_load_all(rendered.manifest) if one]
        accounts = [one for one in objects if one["kind"] == "ServiceAccount"]
        server.kubectl(
            "--namespace",
            "signalbox",
            "apply",
            "--filename",
            "-",
            given=yaml.safe_dump_all(accounts),
        )
        server.kubectl("apply", "--filename", "-", given=yaml.safe_dump(_PRIORITY))
        pods = list(pods_of(objects))
        judged = server.admit(yaml.safe_dump_all(pods))
        if judged.returncode or "Warning" in judged.stderr:
            report.fail(f"{name}: pods: {judged.stderr}")
        report.say(
            f"{name}: {len(objects)} objects and {len(pods)} pods under `restricted` admitted,"
            f" {time.monotonic() - began:.1f} s"
        )


def check_examples(server: ApiServer, report: Report) -> None:
    """Have the examples' own objects judged."""
    paths = example_manifests()
    for path in paths:
        said = server.admit(path.read_text(encoding="utf-8"))
        if said.returncode:
            report.fail(f"{path.parent.name}/{path.name}: {said.stderr}")
    report.say(f"{len(paths)} files of examples admitted")


_PRIORITY: Final = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "shop-high"},
    "value": 1000,
}


def pods_of(objects: Objects) -> Iterator[dict[str, Any]]:
    """Return the pods that controllers would make."""
    for one in objects:
        template = one["spec"].get("template") if one["kind"] in ("Deployment", "Job") else None
        if template:
            metadata = {**template["metadata"], "name": f"{one['metadata']['name']}-x"}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": metadata,
                "spec": template["spec"],
            }


def _first(objects: Objects, kind: str) -> dict[str, Any]:
    return copy.deepcopy(next(one for one in objects if one["kind"] == kind))


def planted(objects: Objects) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Return mistakes that must be refused: what it is, the object, and a word of the refusal."""
    changes: tuple[tuple[str, str, Callable[[dict[str, Any]], object], str], ...] = (
        ("partitions as text", "KafkaTopic", lambda o: o["spec"].update(partitions="24"), "spec.partitions"),
        ("an unknown field", "Deployment", lambda o: o["spec"].update(replica=2), "replica"),
        ("no scale target", "ScaledObject", lambda o: o["spec"].pop("scaleTargetRef"), "scaleTargetRef"),
        ("a threshold that is no text", "ScaledObject",
         lambda o: o["spec"]["triggers"][0]["metadata"].update(lagThreshold=500), "lagThreshold"),
        ("an operation that is none", "KafkaUser",
         lambda o: o["spec"]["authorization"]["acls"][0].update(operations=["Readd"]), "operations"),
        ("a port of another name", "Service", lambda o: o["spec"]["ports"][0].update(port="http"), "port"),
        ("two scalings in one", "HorizontalPodAutoscaler", lambda o: o["spec"].update(minReplicas=99), "maxReplicas"),
    )  # fmt: skip
    for what, kind, change, word in changes:
        one = _first(objects, kind)
        change(one)
        yield what, one, word
    pod = copy.deepcopy(next(iter(pods_of(objects))))
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    yield "a pod that may become root", pod, "PodSecurity"


def check_planted(server: ApiServer, tool: Path, report: Report) -> None:
    """Have planted mistakes refused."""
    objects = [one for one in yaml.safe_load_all(render(tool, *values_of("keda")).manifest) if one]
    count = 0
    for what, one, word in planted(objects):
        said = server.admit(yaml.safe_dump(one))
        count += 1
        if not said.returncode or word not in said.stderr:
            report.fail(f"{what}: expected a refusal with {word!r}; {said.stdout}{said.stderr}")
    report.say(f"{count} planted mistakes refused")


def install_crds(server: ApiServer) -> None:
    """Give the server the kinds of Strimzi, KEDA, the Prometheus operator and the Gateway API."""
    folder = crds.crds()
    done = server.kubectl("apply", "--server-side", "--filename", str(folder))
    if done.returncode:
        raise ToolMissing(done.stderr)
    waited = server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    if waited.returncode:
        raise ToolMissing(waited.stderr)


def main(arguments: list[str]) -> int:
    """Check all of it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.test.apiserver_check")
    parser.add_argument(
        "--build", action="store_true", help="build the API server where it is missing"
    )
    given = parser.parse_args(arguments)
    report = Report()
    if apiserver.binaries() is None and not given.build:
        report.say(
            "NOT CHECKED: no API server is built; --build builds one (some ten minutes, once)."
        )
        return NOT_BUILT
    try:
        if given.build:
            apiserver.build()
        tools = [helm_tools.fetch("helm"), helm_tools.fetch("helm3")]
        helm_tools.fetch("kubectl")
        began = time.monotonic()
        with apiserver.running() as server:
            report.say(f"API server {crds.KUBERNETES} ready, {time.monotonic() - began:.1f} s")
            prepare(server)
            check_bare(server, tools[0], report)
            install_crds(server)
            for tool in tools:
                check_installation(server, tool, report)
            check_admission(server, tools[0], report)
            check_examples(server, report)
            check_planted(server, tools[0], report)
    except ToolMissing as error:
        report.fail(str(error))
    report.say(f"{len(report.failures)} wrong" if report.failures else "The API server agrees.")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
