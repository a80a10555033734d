"""The Helm chart against the product: what it renders is what the services read, and what it says of them is true.

Rendered by the real Helm, where one is here (`python -m deploy.test.helm_tools` fetches it); `make check-deploy` does what
takes longer, and asks an API server.
"""

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.bus import group_id
from chassis.policy import folder_version, load
from chassis.settings import load_settings
from cli.parts import SERVICES, policy_files, settings_type
from deploy.helm import policy_values, readme, topology
from deploy.helm.rendered import CHART, GOLDENS, NAMES, SETS, shown
from deploy.test import check_static, helm_tools
from deploy.test.apiserver_check import pods_of
from schemas.topics import TOPICS
from services.ingest.handlers import NormaliserStage
from services.ingest.ticket_view_stage import TicketViewStage
from services.ingest.webchat_stage import WebchatStage
from services.notifier.feedback_stage import FeedbackStage
from services.notifier.handlers import NotifierStage
from services.router.elsewhere import ElsewhereStage
from services.router.handlers import AssignmentStage, TicketsStage
from services.sla.handlers import SlaStage

ROOT = Path(__file__).parents[2]
STAGES = {
    stage.name: stage
    for stage in (
        NormaliserStage, TicketViewStage, WebchatStage, FeedbackStage, NotifierStage, ElsewhereStage, AssignmentStage,
        TicketsStage, SlaStage,
    )
}  # fmt: skip
SECRETS = {
    "SIGNALBOX_DATABASE_URL": "postgresql://signalbox:canary@db:5432/signalbox",
    "SIGNALBOX_TOKEN_SECRET": "x" * 32,
}
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def helm() -> Path:
    found = helm_tools.found("helm")
    if found is None:
        pytest.skip("helm is not here; `python -m deploy.test.helm_tools` fetches it")
    return found


@cache
def rendered(name: str, *more: str) -> str:
    tool = helm_tools.found("helm")
    assert tool is not None
    made = check_static.render(tool, *check_static.values_of(name), more=more)
    assert made.status == 0, made.error
    return made.manifest


def objects(name: str, *more: str) -> Objects:
    return [one for one in yaml.safe_load_all(rendered(name, *more)) if one]


def of_kind(kind: str, name: str, *more: str) -> dict[str, dict[str, Any]]:
    """Objects of a kind by what follows the release's name."""
    return {
        one["metadata"]["name"].removeprefix("sb-signalbox").lstrip("-"): one
        for one in objects(name, *more)
        if one["kind"] == kind
    }


def container(deployment: dict[str, Any]) -> dict[str, Any]:
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(only)


# ------------------------------------------------------------------------------------------------ the product


def test_the_chart_knows_the_topics_the_groups_and_the_settings_that_there_are() -> None:
    assert topology.FILE.read_text(encoding="utf-8") == topology.text(), (
        "run: python -m deploy.helm.topology --write"
    )


def test_each_stage_reads_in_the_chart_what_it_reads_in_code_under_the_same_group() -> None:
    known = topology.document()["stages"]
    assert set(known) == set(STAGES)
    for name, stage in STAGES.items():
        topics = [topic.name for topic in stage.topics]
        assert sorted(known[name]["topics"]) == sorted(topics)
        assert known[name]["group"] == group_id("", name, topics)


def test_every_stage_runs_in_one_part_and_every_service_in_some() -> None:
    parts = topology.document()["parts"]
    running = [stage for part in parts.values() for stage in part["stages"]]
    assert sorted(running) == sorted(STAGES)
    assert {part["service"] for part in parts.values()} == set(SERVICES)


@pytest.mark.parametrize("name", [*check_static.all_sets()])
def test_each_service_begins_with_the_settings_that_it_is_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable is one of its settings, and together they are accepted."""
    for part, deployment in of_kind("Deployment", name).items():
        service = topology.PARTS[part][0]
        own = {f"SIGNALBOX_{field.upper()}" for field in settings_type(service).model_fields}
        given = environment(container(deployment), tmp_path)
        shared = set(yaml.safe_load((CHART / "ci" / "full.yaml").read_text("utf-8"))["settings"])
        names = {
            variable.removesuffix("_FILE") if variable not in own else variable
            for variable in given
        }
        assert {n for n in names if n.startswith("SIGNALBOX_")} <= own | shared
        with monkeypatch.context() as patch:
            for variable, value in given.items():
                patch.setenv(variable, value)
            settings = load_settings(settings_type(service))
        assert settings.http_port == 9100
        assert settings.dsn.startswith("postgresql://signalbox")
        grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        stop = container(deployment).get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
        assert grace > settings.grace_seconds + stop["sleep"]["seconds"]


def environment(one: dict[str, Any], folder: Path) -> dict[str, str]:
    """A container's variables, with files of ours where it has mounted ones."""
    found = {}
    for variable in one["env"]:
        name = variable["name"]
        if "valueFrom" in variable:
            found[name] = SECRETS.get(name, "canary-of-a-secret")
            continue
        value = variable["value"]
        if value.startswith("/run/secrets/signalbox/"):
            path = folder / value.removeprefix("/run/secrets/signalbox/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(SECRETS.get(name.removesuffix("_FILE"), "canary"), encoding="utf-8")
            value = str(path)
        found[name] = value
    return found


def test_the_arguments_are_those_of_the_command_line() -> None:
    from services.ingest.app import STAGES as KNOWN

    for part, deployment in of_kind("Deployment", "minimal").items():
        service, stage, _ = topology.PARTS[part]
        assert container(deployment)["args"][:2] == ["serve", service]
        if stage != "all":
            assert container(deployment)["args"][2:] == ["--stage", stage]
            assert stage in KNOWN


@pytest.mark.parametrize(
    "path", [CHART / "templates" / "NOTES.txt", ROOT / "docs" / "install-kubernetes.md", CHART / "UPGRADING.md"],
    ids=lambda path: path.name,
)  # fmt: skip
def test_every_command_that_an_operator_is_told_is_one(path: Path) -> None:
    from typer.main import get_command

    from cli.main import app

    told = re.findall(r"(?:-- |`)signalbox ((?:[a-z]+ ?)+)", path.read_text(encoding="utf-8"))
    assert told
    for words in told:
        command: Any = get_command(app)
        for word in words.split():
            if not hasattr(command, "commands"):
                break  # What follows is an argument.
            assert word in command.commands, f"signalbox {words}"
            command = command.commands[word]


# ------------------------------------------------------------------------------------------------- the policy


def mount(part: str, made: Objects, folder: Path, moment: str) -> None:
    """Lay a part's policy out as the kubelet does: each ConfigMap below `..<moment>`, `..data` leading to it, a link a file.

    Source: AtomicWriter in k8s.io/kubernetes/pkg/volume/util/atomic_writer.go. A first path component that is a folder would be
    a link as well.
    """
    maps = {one["metadata"]["name"]: one["data"] for one in made if one["kind"] == "ConfigMap"}
    (deployment,) = [
        one
        for one in made
        if one["kind"] == "Deployment" and one["metadata"]["name"] == f"sb-signalbox-{part}"
    ]
    spec = deployment["spec"]["template"]["spec"]
    volumes = {one["name"]: one["configMap"] for one in spec["volumes"] if "configMap" in one}
    for one in container(deployment)["volumeMounts"]:
        if one["name"] in volumes:
            where = folder / Path(one["mountPath"]).relative_to("/etc/signalbox/policy")
            volume = volumes[one["name"]]
            assert set(volume) == {"name"}, "a whole ConfigMap: an added file needs no new pod"
            where.mkdir(parents=True, exist_ok=True)
            (where / f"..{moment}").mkdir()
            for name, text in maps[volume["name"]].items():
                (where / f"..{moment}" / name).write_text(text, encoding="utf-8")
                if not (where / name).is_symlink():
                    (where / name).symlink_to(f"..data/{name}")
            (where / "..new").symlink_to(f"..{moment}")
            (where / "..new").rename(where / "..data")


def test_the_policy_that_is_mounted_is_the_folder_and_every_service_takes_it(
    tmp_path: Path,
) -> None:
    made = objects("minimal")
    for part, (service, _, _) in topology.PARTS.items():
        mount(part, made, tmp_path / part, "first")
        assert texts(tmp_path / part) == texts(ROOT / "policy")
        assert folder_version(tmp_path / part) == folder_version(ROOT / "policy")
        load(tmp_path / part, policy_files(service))


@pytest.mark.parametrize(
    "changed", ["routing.yaml", "templates/en/received.j2", "articles/en/new.md"]
)
def test_a_change_in_any_folder_is_seen_by_a_running_service(changed: str, tmp_path: Path) -> None:
    key = changed.replace(".", "\\.")
    mount("notifier", objects("minimal"), tmp_path, "first")
    before = folder_version(tmp_path)
    again = objects("minimal", "--set-string", f"policy.files.{key}=another")
    mount("notifier", again, tmp_path, "second")
    assert folder_version(tmp_path) != before


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
        and not any(one.startswith("..") for one in path.relative_to(folder).parts)
    }


def test_a_folder_becomes_values_and_comes_out_as_it_was(tmp_path: Path) -> None:
    values = tmp_path / "policy-values.yaml"
    made = helm_tools.run(
        [sys.executable, "-m", "deploy.helm.policy_values", str(ROOT / "policy")], folder=ROOT
    )
    values.write_text(made.stdout, encoding="utf-8")
    again = objects("minimal", "--values", str(values), "--set", "policy.example=false")
    mount("sla", again, tmp_path / "sla", "first")
    assert texts(tmp_path / "sla") == texts(ROOT / "policy")


def test_a_folder_that_a_configmap_cannot_hold_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a b.yaml").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a b.yaml: no ConfigMap can hold it"):
        policy_values.values(tmp_path)
    (tmp_path / "a b.yaml").rename(tmp_path / "ab.yaml")
    (tmp_path / "ab.yaml").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"ab.yaml: is no text"):
        policy_values.values(tmp_path)
    (tmp_path / "ab.yaml").write_text("x" * 1_000_001, encoding="utf-8")
    with pytest.raises(ValueError, match="a ConfigMap holds 1000000"):
        policy_values.values(tmp_path)


def test_a_changed_policy_restarts_nobody_unless_it_is_asked_for() -> None:
    def annotations(*more: str) -> list[dict[str, str]]:
        return [
            one["spec"]["template"]["metadata"]["annotations"]
            for one in of_kind("Deployment", "minimal", *more).values()
        ]

    other = ("--set-string", "policy.files.note\\.yaml=other")
    assert annotations() == annotations(*other)
    restarting = ("--set", "policy.onChange=restart")
    assert all(
        one["checksum/policy"] != two["checksum/policy"]
        for one, two in zip(annotations(*restarting), annotations(*restarting, *other), strict=True)
    )


def test_no_policy_is_mounted_by_subpath_which_would_never_change() -> None:
    for name in NAMES:
        assert "subPath" not in rendered(name)


# ------------------------------------------------------------------------------------------------- operation


@pytest.mark.parametrize("name", [*check_static.all_sets()])
def test_nobody_sets_the_number_of_processes_that_a_scaler_sets(name: str) -> None:
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]
        for one in objects(name)
        if one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    }
    count = sum(one["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") for one in objects(name))
    assert len(scaled) == count, "two scalers on one Deployment fight"
    for one in objects(name):
        if one["kind"] == "Deployment":
            assert ("replicas" in one["spec"]) == (one["metadata"]["name"] not in scaled)


def test_keda_looks_at_each_topic_of_a_part_in_its_group_and_keeps_at_least_one() -> None:
    for part, one in of_kind("ScaledObject", "keda").items():
        stages = [s for s in topology.PARTS[part][2] if s != "router.elsewhere"]
        wanted = {
            (group_id("", s, [t.name for t in STAGES[s].topics]), t.name)
            for s in stages
            for t in STAGES[s].topics
        }
        metadata = [trigger["metadata"] for trigger in one["spec"]["triggers"]]
        assert {(m["consumerGroup"], m["topic"]) for m in metadata} == wanted
        assert all(isinstance(value, str) for m in metadata for value in m.values())
        # A task that has no offset yet begins where the log begins (chassis/acquisition.py).
        assert {m["offsetResetPolicy"] for m in metadata} == {"earliest"}
        assert one["spec"]["minReplicaCount"] >= 1
        assert one["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_the_health_of_kafka_and_postgresql_restarts_nobody() -> None:
    """Liveness asks whether the loops turn; `/health/ready` is what asks the servers."""
    for name in NAMES:
        for deployment in of_kind("Deployment", name).values():
            one = container(deployment)
            paths = {
                probe: one[probe]["httpGet"]["path"] for probe in one if probe.endswith("Probe")
            }
            assert paths == {
                "startupProbe": "/health/live",
                "livenessProbe": "/health/live",
                "readinessProbe": "/health/ready",
            }


def test_a_rollout_never_takes_a_process_away_before_another_is_ready() -> None:
    for deployment in of_kind("Deployment", "full").values():
        assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    gateway = of_kind("Deployment", "minimal")["gateway"]
    assert container(gateway)["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


def test_every_deployment_can_be_drained_one_pod_at_a_time() -> None:
    budgets = of_kind("PodDisruptionBudget", "minimal")
    assert set(budgets) == set(topology.PARTS)
    for part, deployment in of_kind("Deployment", "minimal").items():
        spec = budgets[part]["spec"]
        assert spec["selector"] == deployment["spec"]["selector"]
        assert (spec["maxUnavailable"], spec["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")


@pytest.mark.parametrize("name", [*NAMES])
def test_what_runs_before_the_chart_needs_nothing_that_the_chart_makes(name: str) -> None:
    made = {
        (one["kind"], one["metadata"]["name"])
        for one in objects(name)
        if "helm.sh/hook" not in one["metadata"].get("annotations", {})
    }
    for job in of_kind("Job", name).values():
        spec = job["spec"]["template"]["spec"]
        assert ("ServiceAccount", spec["serviceAccountName"]) not in made
        for kind, word in (("ConfigMap", "configMap"), ("Secret", "secret")):
            for named in re.findall(
                r'"(?:name|secretName|secretKeyRef)": "([^"]+)"', json.dumps(spec)
            ):
                assert (kind, named) not in made, word


def test_the_topics_are_looked_at_before_the_tables_are_changed() -> None:
    jobs = of_kind("Job", "minimal")
    weights = {
        name: int(job["metadata"]["annotations"]["helm.sh/hook-weight"])
        for name, job in jobs.items()
    }
    assert weights["topics"] < weights["migrate"]
    spec = jobs["topics"]["spec"]["template"]["spec"]
    assert [one["args"] for one in spec["initContainers"] + spec["containers"]] == [
        ["topics", "apply"],
        ["topics", "check"],
    ]
    assert container(jobs["migrate"])["args"] == ["db", "migrate"]


def test_a_migration_beside_the_release_is_another_job_for_another_image() -> None:
    """A Job's template cannot be changed: an upgrade under the same name would fail."""

    def named(*more: str) -> set[str]:
        return {
            name
            for name in of_kind("Job", "minimal", "--set", "migrations.mode=job", *more)
            if "migrate" in name
        }

    assert named() == named()
    assert not named() & named("--set", "image.tag=0.2.0")
    assert not of_kind("Job", "minimal", "--set", "migrations.mode=none,topics.mode=none")


@pytest.mark.parametrize("name", [*NAMES])
def test_every_pod_keeps_to_the_restricted_standard(name: str) -> None:
    """And has no token of the API server, no writable root, and limits to its memory."""
    pods = [one["spec"] for one in objects(name) if one["kind"] == "Pod"]
    for spec in [*pods, *(one["spec"] for one in pods_of(objects(name)))]:
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in [*spec.get("initContainers", ()), *spec["containers"]]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in one["resources"]["limits"]
            assert "cpu" not in one["resources"]["limits"]


def test_secrets_are_mounted_and_none_stands_in_the_environment() -> None:
    for name in ("minimal", "strimzi", "keda"):
        for one in objects(name):
            assert "secretKeyRef" not in json.dumps(one)
    assert "secretKeyRef" in rendered("full")  # By choice.


def test_a_digest_goes_before_the_tag() -> None:
    assert {container(one)["image"] for one in of_kind("Deployment", "full").values()} == {
        f"images.example.com/signalbox@sha256:{'0123456789abcdef' * 4}"
    }


def test_what_the_database_is_asked_for_in_each_size_is_as_its_file_says() -> None:
    for size, said in (("medium", 252), ("large", 456)):
        parts = [
            yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["defaults"]["autoscaling"]
            | (values := yaml.safe_load((CHART / "values" / f"{size}.yaml").read_text("utf-8")))["defaults"]["autoscaling"]
            | values["parts"].get(part, {}).get("autoscaling", {})
            for part in topology.PARTS
        ]  # fmt: skip
        assert sum(part["max"] for part in parts) * 6 == said
        assert str(said) in (CHART / "values" / f"{size}.yaml").read_text("utf-8")


# --------------------------------------------------------------------------------------------------- Strimzi


def test_strimzi_makes_the_topics_as_the_schemas_have_them_and_keeps_them() -> None:
    made = of_kind("KafkaTopic", "strimzi")
    assert set(made) == {topic.name for topic in TOPICS}
    for topic in TOPICS:
        one = made[topic.name]
        assert one["spec"]["topicName"] == topic.name
        assert one["spec"]["partitions"] == 24
        assert one["spec"]["config"]["retention.ms"] == topic.retention.total_seconds() * 1000
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_the_sizes_of_topics_are_written_as_whole_numbers() -> None:
    """`2.592e+09` is what YAML makes of a large number that went through a float; Strimzi refuses it."""
    assert "retention.ms: 2592000000" in rendered("strimzi")


def test_each_service_may_read_what_it_reads_write_what_it_writes_and_no_more() -> None:
    from schemas.asyncapi import stages
    from schemas.json_schema import writers_of

    for service in SERVICES:
        acls = of_kind("KafkaUser", "strimzi")[service]["spec"]["authorization"]["acls"]
        rights = {
            (one["resource"]["name"], operation)
            for one in acls
            if one["resource"]["type"] == "topic"
            for operation in one["operations"]
        }
        ours = [stage for stage in stages() if stage.partition(".")[0] == service]
        wanted = {(topic.name, "Describe") for topic in TOPICS}
        wanted |= {(t.name, "Read") for s in ours if s in STAGES for t in STAGES[s].topics}
        wanted |= {
            (t.name, "Write")
            for t in TOPICS
            for s in ours
            if s in writers_of(t) or t.writer == "all"
        }
        assert rights == wanted
        groups = [one["resource"]["name"] for one in acls if one["resource"]["type"] == "group"]
        for stage in ours:
            if stage in STAGES:
                group = group_id("", stage, [t.name for t in STAGES[stage].topics])
                assert any(group.startswith(prefix) for prefix in groups)


def test_each_part_comes_to_kafka_as_its_own_service() -> None:
    for part, deployment in of_kind("Deployment", "strimzi").items():
        given = {one["name"]: one.get("value") for one in container(deployment)["env"]}
        assert given["SIGNALBOX_KAFKA"] == "events-kafka-bootstrap.signalbox.svc:9093"
        assert given["SIGNALBOX_KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
        assert given["SIGNALBOX_KAFKA_USERNAME"] == f"sb-signalbox-{topology.PARTS[part][0]}"


# ------------------------------------------------------------------------------------------------- the network


def test_the_network_policy_is_complete_where_it_is_on() -> None:
    """It holds every pod in both directions, and lets out to each address that the pods are told of."""
    policies = of_kind("NetworkPolicy", "full")
    whole = policies[""]["spec"]
    assert whole["policyTypes"] == ["Ingress", "Egress"]
    chosen = whole["podSelector"]["matchLabels"].items()
    for pod in [*pods_of(objects("full")), *(o for o in objects("full") if o["kind"] == "Pod")]:
        assert chosen <= pod["metadata"]["labels"].items(), pod["metadata"]["name"]
    out = {(one["protocol"], one["port"]) for rule in whole["egress"] for one in rule["ports"]}
    for deployment in of_kind("Deployment", "full").values():
        given = {one["name"]: one.get("value", "") for one in container(deployment)["env"]}
        told = [
            given["SIGNALBOX_KAFKA"],
            given["SIGNALBOX_DATABASE_URL"],
            given["SIGNALBOX_OTLP_ENDPOINT"],
        ]
        ports = {int(port) for text in told for port in re.findall(r":(\d+)", text)}
        ports |= {int(given["SIGNALBOX_SMTP_PORT"])} if "SIGNALBOX_SMTP_PORT" in given else set()
        assert {("TCP", port) for port in ports | {53, 443}} | {("UDP", 53)} <= out
    into = {one["port"] for rule in whole["ingress"] for one in rule["ports"]}
    front = {one["port"] for one in policies["gateway"]["spec"]["ingress"][0]["ports"]}
    gateway = container(of_kind("Deployment", "full")["gateway"])
    assert {one["containerPort"] for one in gateway["ports"]} == into | front


# ------------------------------------------------------------------------------------------- what is wrong


def test_a_refusal_counts_only_with_the_sentence_that_is_expected(helm: Path) -> None:
    """All of tests/deploy/bad is tried by `make check-deploy`, under Helm 4 and 3."""
    path, expected = next(iter(check_static.refusals()))
    refused = check_static.render(helm, path)
    assert check_static.is_refused(refused, expected), refused.error
    assert not check_static.is_refused(refused, ("another sentence",))
    assert not check_static.is_refused(check_static.Rendered(0, rendered("minimal"), ""), expected)
    assert all(len(sentences[0]) > 10 for _, sentences in check_static.refusals())


def test_all_that_is_wrong_is_said_at_once(helm: Path, tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("{}", encoding="utf-8")
    said = check_static.render(helm, tmp_path / "none.yaml").error
    for key in ("kafka.bootstrapServers", "database.secret", "tokenSecret.secret", "policy"):
        assert f"- {key}: " in said


# ------------------------------------------------------------------------------------------------ packaging


@pytest.mark.parametrize("name", NAMES)
def test_what_is_rendered_is_what_was_reviewed(name: str) -> None:
    assert (GOLDENS / f"{name}.yaml").read_text(encoding="utf-8") == shown(rendered(name)), (
        "run: python -m deploy.test.check_static --write, and read the diff"
    )


def test_the_readme_has_every_value_with_its_default() -> None:
    assert readme.FILE.read_text(encoding="utf-8") == readme.text(), (
        "run: python -m deploy.helm.readme --write"
    )


def test_every_default_is_in_the_schema_and_every_key_of_the_schema_has_a_default() -> None:
    def compare(schema: Any, values: Any, path: str) -> None:
        if "properties" not in schema or path == "parts.":
            return
        missing = (
            set(schema["properties"]) - set(values) - {"initialDelaySeconds", "successThreshold"}
        )
        assert not missing, f"{path}: {missing}"
        for name, about in schema["properties"].items():
            if isinstance(values.get(name), dict):
                compare(about, values[name], f"{path}{name}.")

    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    compare(schema, yaml.safe_load((CHART / "values.yaml").read_text("utf-8")), "")


def test_the_package_is_whole_and_fits_into_a_release(helm: Path, tmp_path: Path) -> None:
    """The files behind the links come along; Helm keeps a release in a Secret, which holds 1 MiB."""
    made = helm_tools.run([str(helm), "package", str(CHART), "--destination", str(tmp_path)])
    (package,) = tmp_path.glob("*.tgz")
    assert made.returncode == 0
    assert package.stat().st_size < 400_000
    for name in NAMES:
        values = str(SETS / f"{name}.yaml")
        command = [
            str(helm),
            "template",
            "sb",
            str(package),
            "--namespace",
            "signalbox",
            "--values",
            values,
        ]
        again = helm_tools.run([*command, "--kube-version", "1.35.0"])
        assert again.stdout == rendered(name)


def test_the_version_of_the_image_is_that_of_the_project() -> None:
    import tomllib

    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert chart["appVersion"] == project["project"]["version"]
