"""The chart's own commands, as processes, before a broker that lets each service do only what its KafkaUser says.

The broker is a real one with an authorizer; users, passwords and rights are those of the rendered KafkaUsers; environment and
arguments are those of the rendered pods, with addresses and files of this machine. What a helm test would ask is asked by the
chart's own scripts.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest

from chassis.kafka_access import KafkaAccess
from chassis.local.kafka import JavaKafka
from chassis.local.postgres import run, start_postgres
from chassis.local.processes import free_port
from cli.parts import SERVICES
from deploy.helm.rendered import CHART
from deploy.test import check_static, helm_tools
from schemas.topics import TOPICS

ROOT = Path(__file__).parents[2]
PROBES = CHART / "files" / "probe"
TOKEN = "reply-tokens-of-the-chart-" + "x" * 16
# Kafka's own numbers (org.apache.kafka.common.acl.AclOperation, …resource.ResourceType and PatternType).
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
RESOURCES = {"topic": 2, "group": 3, "cluster": 4}
PATTERNS = {"literal": 3, "prefix": 4}
ALLOW = 3


class GuardedKafka(JavaKafka):
    """The broker, where whoever logs in may do nothing that was not allowed; only this machine's own listener may do all."""

    def __init__(self, directory: Path, users: tuple[str, ...]) -> None:
        super().__init__(directory)
        self._users = users
        self._login_port = free_port()
        self.login = f"localhost:{self._login_port}"

    def _own_settings(self) -> Mapping[str, str]:
        own, login = f"127.0.0.1:{self._port}", f"127.0.0.1:{self._login_port}"
        controller = f"CONTROLLER://127.0.0.1:{self._controller_port}"
        return {
            "listeners": f"PLAINTEXT://{own},LOGIN://{login},{controller}",
            "advertised.listeners": f"PLAINTEXT://{own},LOGIN://{self.login}",
            "listener.security.protocol.map": (
                "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.login.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.login.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        }

    def _own_format_options(self) -> tuple[str, ...]:
        return tuple(
            word
            for user in self._users
            for word in ("--add-scram", f"SCRAM-SHA-512=[name={user},password={password(user)}]")
        )


def password(user: str) -> str:
    return f"canary-of-{user}"


@dataclass(frozen=True)
class Stand:
    """What the chart would find: the broker, the database, and what it renders for them."""

    kafka: GuardedKafka
    dsn: str
    objects: list[dict[str, Any]]
    folder: Path

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        return {
            one["metadata"]["name"].removeprefix("sb-signalbox-"): one
            for one in self.objects
            if one["kind"] == kind
        }

    def environment(self, container: dict[str, Any], **changed: str) -> dict[str, str]:
        """A container's variables, with what is mounted in it as files of this machine."""
        found = {
            name: value for name, value in os.environ.items() if not name.startswith("SIGNALBOX_")
        }
        given = {one["name"]: one["value"] for one in container["env"]}
        user = given.get("SIGNALBOX_KAFKA_USERNAME", "")
        texts = {
            "SIGNALBOX_DATABASE_URL_FILE": self.dsn,
            "SIGNALBOX_TOKEN_SECRET_FILE": TOKEN,
            "SIGNALBOX_KAFKA_PASSWORD_FILE": password(user),
        }
        for name, text in texts.items():
            if name in given:
                path = self.folder / f"{name}-{user}"
                path.write_text(text, encoding="utf-8")
                given[name] = str(path)
        given["SIGNALBOX_POLICY"] = str(ROOT / "policy")
        # The chart's is TLS as well; which rights somebody has is not decided by it.
        if "SIGNALBOX_KAFKA_SECURITY_PROTOCOL" in given:
            given["SIGNALBOX_KAFKA_SECURITY_PROTOCOL"] = "SASL_PLAINTEXT"
            given["SIGNALBOX_KAFKA_CA_FILE"] = ""
        return found | given | changed


def render(kafka: str, *more: str) -> list[dict[str, Any]]:
    tool = helm_tools.found("helm")
    assert tool is not None
    given = f"partitions=2,kafka.bootstrapServers={kafka}"
    made = check_static.render(
        tool, *check_static.values_of("minimal"), more=("--set", given, *more)
    )
    assert made.status == 0, made.error
    return [one for one in yaml.safe_load_all(made.manifest) if one]


STRIMZI = (
    *("--api-versions", "kafka.strimzi.io/v1"),
    *("--set", "strimzi.enabled=true,strimzi.cluster=events"),
)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    if helm_tools.found("helm") is None:
        pytest.skip("helm is not here; `python -m deploy.test.helm_tools` fetches it")
    folder = tmp_path_factory.mktemp("chart")
    folder.chmod(0o755)
    users = tuple(f"sb-signalbox-{name}" for name in (*SERVICES, "operator"))
    with ExitStack() as ends:
        kafka = GuardedKafka(folder / "kafka", users)
        kafka.start()
        ends.callback(kafka.remove)
        postgres = start_postgres(folder / "postgres")
        ends.callback(postgres.remove)
        database = postgres.create_database("chart")
        made = Stand(kafka, database, render(kafka.login, *STRIMZI), folder)
        # As the hooks do it where no Strimzi is; nobody else may make a topic.
        hooks = Stand(kafka, database, render(kafka.bootstrap), folder)
        for job in hooks.of_kind("Job").values():
            spec = job["spec"]["template"]["spec"]
            for container in [*spec.get("initContainers", ()), *spec["containers"]]:
                done = signalbox(container["args"], hooks.environment(container))
                assert done.returncode == 0, done.stderr
        run(allow(kafka.bootstrap, made.of_kind("KafkaUser")))
        yield made


def signalbox(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


async def allow(bootstrap: str, users: dict[str, dict[str, Any]]) -> None:
    """Give each user the rights that Strimzi's operator would make of its KafkaUser."""
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        for name, user in users.items():
            for acl in user["spec"]["authorization"]["acls"]:
                resource = acl["resource"]
                for operation in acl["operations"]:
                    request = CreateAclsRequest(
                        RESOURCES[resource["type"]],
                        resource.get("name", "kafka-cluster"),
                        PATTERNS[resource.get("patternType", "literal")],
                        f"User:sb-signalbox-{name}",
                        "*",
                        OPERATIONS[operation],
                        ALLOW,
                    )
                    (answer,) = (await client._send_to_controller(request)).creation_responses
                    assert answer[0] == 0, answer
    finally:
        await client.close()


@pytest.fixture
def pods(stand: Stand) -> Iterator[dict[str, tuple[subprocess.Popen[bytes], int, Path]]]:
    """Every part's process with its port of health and its log; all are ended in the end."""
    running: dict[str, tuple[subprocess.Popen[bytes], int, Path]] = {}
    gateway = free_port()
    try:
        for part, deployment in stand.of_kind("Deployment").items():
            (container,) = deployment["spec"]["template"]["spec"]["containers"]
            port, log = free_port(), stand.folder / f"{part}.log"
            environment = stand.environment(
                container,
                SIGNALBOX_HTTP_PORT=str(port),
                **({"SIGNALBOX_GATEWAY_PORT": str(gateway)} if part == "gateway" else {}),
            )
            with log.open("wb") as sink:
                process = subprocess.Popen(
                    [sys.executable, "-m", "cli.main", *container["args"]],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=sink,
                )
            running[part] = (process, port, log)
        running["front door"] = (running["gateway"][0], gateway, running["gateway"][2])
        yield running
    finally:
        for process, _, _ in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def probe(script: str, environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", (PROBES / script).read_text(encoding="utf-8"), *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_message_goes_its_whole_way_with_no_more_rights_than_the_chart_gives(
    stand: Stand, pods: dict[str, tuple[subprocess.Popen[bytes], int, Path]]
) -> None:
    door = pods.pop("front door")[1]
    for part, (process, port, log) in pods.items():
        assert process.poll() is None, log.read_text(encoding="utf-8")
        said = probe("ready.py", dict(os.environ), f"http://127.0.0.1:{port}/health/ready", "90")
        assert '"status": "ok"' in said, part
    given = {**os.environ, "SIGNALBOX_KAFKA": "unused:9092", "SIGNALBOX_DATABASE_URL": stand.dsn}
    said = probe("end_to_end.py", given, f"http://127.0.0.1:{door}/v1/forms/contact", "60")
    assert " in " in said
    apply_roster(stand, door)
    for process, _, _ in pods.values():
        process.send_signal(signal.SIGTERM)
    for part, (process, _, log) in pods.items():
        assert process.wait(60) == 0, f"{part}: {log.read_text(encoding='utf-8')[-2000:]}"
        refused = [
            line
            for line in log.read_text(encoding="utf-8").splitlines()
            if "Authorization" in line or "unreachable" in line or "join_failed" in line
        ]
        assert not refused, f"{part}: {refused[:3]}"


def apply_roster(stand: Stand, door: int) -> None:
    """As the notes after an install have it, in the gateway's pod."""
    pod = stand.of_kind("Deployment")["gateway"]["spec"]["template"]["spec"]["containers"][0]
    environment = stand.environment(pod)
    key = signalbox(["keys", "add", "console", "--scope", "lead"], environment)
    assert key.returncode == 0, key.stderr
    environment["SIGNALBOX_API_KEY_CONSOLE"] = key.stdout.strip()
    url = f"http://127.0.0.1:{door}"
    told = signalbox(["roster", "apply", "--gateway", url], environment)
    assert told.returncode == 0, told.stderr
    assert "agents set" in told.stdout


async def test_a_service_writes_to_no_topic_that_is_not_its_own(stand: Stand) -> None:
    producer = AIOKafkaProducer(
        **access(stand, "sla").options(), request_timeout_ms=8_000, enable_idempotence=True
    )
    await producer.start()
    try:
        await producer.send_and_wait("dead-letters", b"allowed", partition=0)
        for topic in ("tickets", "messages"):
            with pytest.raises(TopicAuthorizationFailedError):
                await producer.send_and_wait(topic, b"not allowed", partition=0)
    finally:
        await producer.stop()


async def test_no_service_makes_a_topic(stand: Stand) -> None:
    for name in (*SERVICES, "operator"):
        client = AIOKafkaAdminClient(**access(stand, name).options())
        await client.start()
        try:
            made = await client.create_topics([NewTopic("theirs", 1, 1)])
            assert [entry[1] for entry in made.topic_errors] == [29], (
                name
            )  # TOPIC_AUTHORIZATION_FAILED
        finally:
            await client.close()


async def test_the_operators_user_sees_all_that_the_doctor_asks_about(stand: Stand) -> None:
    one = stand.of_kind("Deployment")["router"]["spec"]["template"]["spec"]["containers"][0]
    environment = stand.environment(
        one,
        SIGNALBOX_KAFKA_USERNAME="sb-signalbox-operator",
        SIGNALBOX_KAFKA_PASSWORD=password("sb-signalbox-operator"),
        SIGNALBOX_KAFKA_PASSWORD_FILE="",
    )
    said = await asyncio.to_thread(signalbox, ["doctor"], environment)
    assert "Kafka does not answer" not in said.stdout
    assert not [
        topic.name for topic in TOPICS if f"topic {topic.name} does not exist" in said.stdout
    ]


def access(stand: Stand, service: str) -> KafkaAccess:
    user = f"sb-signalbox-{service}"
    return KafkaAccess(stand.kafka.login, "SASL_PLAINTEXT", username=user, password=password(user))
