"""The compose file: what can be known of it without Docker. Every name in it leads somewhere, and nothing is open."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from chassis.settings import PREFIX, Settings, load_settings
from cli.main import app
from cli.parts import SERVICES, settings_type
from deploy.compose import make_keys
from tests.deploy.test_image_files import instructions

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
PARTS: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: part for name, part in PARTS.items() if part["image"].startswith("${SIGNALBOX_IMAGE")}
OTHERS = {name: part for name, part in PARTS.items() if name not in OURS}
TYPED = {name: part for name, part in OURS.items() if "command" in part}
"""What is started by a command of ours."""

KEYS_FOLDER = "/run/signalbox"

# What we use of the Compose specification (compose-spec, 05-services.md); a misspelt key is in none of these.
SERVICE_KEYS = {
    *("build", "cap_drop", "command", "depends_on", "entrypoint", "environment", "healthcheck"),
    *("image", "mem_limit", "network_mode", "ports", "read_only", "restart", "security_opt"),
    *("stop_grace_period", "tmpfs", "volumes"),
}
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
ONCE = {"service_completed_successfully"}
CONDITIONS = {"service_started", "service_healthy", *ONCE}
DURATION = re.compile(r"(?:\d+(?:ms|s|m|h))+")

by_name = pytest.mark.parametrize("name", PARTS)
of_ours = pytest.mark.parametrize("name", OURS)


def seconds(duration: str) -> float:
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(
        int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", duration)
    )


def dependencies(name: str) -> dict[str, str]:
    return {on: one["condition"] for on, one in PARTS[name].get("depends_on", {}).items()}


def mounts(name: str) -> Iterator[tuple[str, str, str]]:
    for one in PARTS[name].get("volumes", ()):
        source, target, *mode = one.split(":")
        yield source, target, mode[0] if mode else "rw"


def image_environment() -> dict[str, str]:
    words = " ".join(instructions("ENV"))
    return dict(re.findall(r"(SIGNALBOX_\w+)=(\S+)", words))


# ------------------------------------------------------------------------------------------------ its form


def test_only_what_the_specification_knows_stands_at_the_top() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "volumes"}


@by_name
def test_a_part_is_written_in_the_words_of_the_specification(name: str) -> None:
    part = PARTS[name]
    assert set(part) <= SERVICE_KEYS
    health = part.get("healthcheck", {})
    assert set(health) <= HEALTH_KEYS
    if health:
        assert health["test"][0] == "CMD", "no shell is needed to look"
    durations = [health[key] for key in health if key not in {"test", "retries"}]
    assert all(DURATION.fullmatch(one) for one in [*durations, *_grace(part)])
    for value in part.get("environment", {}).values():
        assert isinstance(value, str), "a number or a boolean would be read as YAML likes"


def _grace(part: Mapping[str, Any]) -> list[str]:
    return [part["stop_grace_period"]] if "stop_grace_period" in part else []


@by_name
def test_a_part_waits_for_what_can_come_true(name: str) -> None:
    for on, condition in dependencies(name).items():
        assert condition in CONDITIONS
        if condition == "service_healthy":
            assert "healthcheck" in PARTS[on], f"{on} never says that it is healthy"
        assert (condition in ONCE) == (PARTS[on]["restart"] == "no"), f"{on} ends or it does not"


@by_name
def test_no_part_waits_for_itself(name: str) -> None:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        further = dependencies(waiting.pop()).keys() - seen
        assert name not in further
        seen |= further
        waiting += further


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_begins_when_topics_and_tables_are_there(service: str) -> None:
    assert dependencies(service).items() >= {
        ("topics", "service_completed_successfully"),
        ("migrate", "service_completed_successfully"),
    }
    assert dependencies("topics")["kafka"] == "service_healthy"
    assert dependencies("migrate")["postgres"] == "service_healthy"


# ----------------------------------------------------------------------------------------- what it may touch


@by_name
def test_what_is_mounted_is_there_and_belongs_to_the_repository(name: str) -> None:
    for source, target, mode in mounts(name):
        assert target.startswith("/")
        if source.startswith("."):
            path = (FOLDER / source).resolve()
            assert path.exists()
            assert path.is_relative_to(ROOT), "no path of a machine"
            assert mode == "ro"
        else:
            assert source in COMPOSE["volumes"]


def test_every_volume_is_used() -> None:
    used = {source for name in PARTS for source, _, _ in mounts(name)}
    assert set(COMPOSE["volumes"]) <= used


def test_every_port_is_this_machine_s_own_and_nobody_else_s() -> None:
    ports = [port for part in PARTS.values() for port in part.get("ports", ())]
    assert all(re.fullmatch(r"127\.0\.0\.1:(\d+|\$\{\w+:-\d+\}):\d+", port) for port in ports)
    published = [re.findall(r"\d+", port)[4] for port in ports]
    assert len(set(published)) == len(published)


@of_ours
def test_our_containers_can_change_nothing_but_what_they_keep(name: str) -> None:
    part = OURS[name]
    assert part["read_only"] is True
    assert part["cap_drop"] == ["ALL"]
    assert part["security_opt"] == ["no-new-privileges:true"]
    written = {target for _, target, mode in mounts(name) if mode == "rw"}
    assert written <= {image_environment()["SIGNALBOX_DATA_DIR"]}


@pytest.mark.parametrize("name", OTHERS)
def test_an_image_of_others_has_a_version_of_its_own(name: str) -> None:
    assert re.fullmatch(
        r"[a-z0-9./-]+:v?\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", OTHERS[name]["image"]
    )


# ----------------------------------------------------------------------------------------- what it starts


def test_all_four_services_are_started_and_stopped_in_their_own_time() -> None:
    served = {part["command"][1]: part for part in TYPED.values() if part["command"][0] == "serve"}
    assert set(served) == set(SERVICES)
    grace = Settings.model_fields["grace_seconds"].default
    assert all(seconds(part["stop_grace_period"]) > grace for part in served.values())


@pytest.mark.parametrize("name", TYPED)
def test_every_command_is_one_of_ours_with_options_that_it_has(name: str) -> None:
    words = [str(word) for word in TYPED[name]["command"]]
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    while isinstance(command, TyperGroup):
        assert words[0] in command.commands
        command = command.commands[words.pop(0)]
    given = list(words)  # What is parsed is taken out of the list.
    with command.make_context(name, words) as context:
        assert not context.args
    if command.name == "serve":
        assert given[0] in SERVICES


def test_one_part_builds_the_image_that_all_of_ours_run() -> None:
    (builder,) = [part for part in PARTS.values() if "build" in part]
    assert (FOLDER / builder["build"]["context"]).resolve() == ROOT
    assert (ROOT / builder["build"]["dockerfile"]).is_file()
    assert {part["image"] for part in OURS.values()} == {builder["image"]}


@pytest.mark.parametrize("name", TYPED)
def test_every_variable_is_a_setting_and_its_value_is_one_that_the_setting_takes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = TYPED[name]["command"]
    kind = settings_type(command[1]) if command[0] == "serve" else Settings
    for variable in (one for one in os.environ if one.startswith(PREFIX)):
        monkeypatch.delenv(variable)
    make_keys.make_keys(tmp_path)
    given = image_environment() | TYPED[name]["environment"]
    for variable, value in given.items():
        setting = variable.removeprefix(PREFIX).removesuffix("_FILE").lower()
        known = kind.model_fields.keys() | settings_type("ingest").model_fields.keys()
        assert setting in known | {"data_dir"}, f"{variable} is no setting"
        plain = re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
        monkeypatch.setenv(variable, plain.replace(KEYS_FOLDER, str(tmp_path)))
    settings = load_settings(kind)
    assert settings.kafka == "kafka:9092"
    assert settings.dsn.startswith("postgresql://signalbox:")
    assert settings.dsn.endswith("@postgres:5432/signalbox")
    assert len(settings.token_secret.get_secret_value()) >= 32


def test_health_is_asked_where_the_image_answers() -> None:
    port = image_environment()["SIGNALBOX_HTTP_PORT"]
    for service in SERVICES:
        assert f"127.0.0.1:{port}/health/ready" in PARTS[service]["healthcheck"]["test"][-1]


# ------------------------------------------------------------------------------------------------- its keys


def test_every_key_that_is_read_is_made() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    read = set(re.findall(rf"{KEYS_FOLDER}/([\w-]+)", text))
    assert read == {*make_keys.NAMES, "database-url"}
    readers = [name for name, part in PARTS.items() if KEYS_FOLDER + "/" in str(part)]
    for name in readers:
        assert ("keys", KEYS_FOLDER, "ro") in set(mounts(name))


def test_the_gateway_gets_every_key_that_the_policy_asks_the_environment_for() -> None:
    policy = yaml.safe_load((ROOT / "policy" / "channels.yaml").read_text(encoding="utf-8"))
    wanted = {one["secret"].removeprefix("env:") for one in policy["api_keys"]}
    script = PARTS["ingest"]["entrypoint"][2]
    assert wanted == set(re.findall(r"(SIGNALBOX_API_KEY_\w+)=", script))
    assert script.rstrip().endswith('&& exec signalbox "$$@"'), "a shell would keep SIGTERM"


def test_keys_are_made_once_and_each_anew(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir(mode=0o700)
        assert make_keys.make_keys(folder) == [*make_keys.NAMES, "database-url"]
    before = {path.name: path.read_text() for path in first.iterdir()}
    assert make_keys.make_keys(first) == []
    assert {path.name: path.read_text() for path in first.iterdir()} == before
    assert before["database-password"] in before["database-url"]
    secrets = {*before.values(), *(path.read_text() for path in second.iterdir())}
    assert len(secrets) == 2 * len(before)


def test_another_user_s_server_can_read_its_password_and_nobody_can_change_it(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    make_keys.make_keys(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o444}


# ------------------------------------------------------------------------------------- what looks at it


def test_prometheus_scrapes_every_service_and_reads_our_rules() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    port = image_environment()["SIGNALBOX_HTTP_PORT"]
    targets = [target for one in job["static_configs"] for target in one["targets"]]
    assert targets == [f"{service}:{port}" for service in SERVICES]
    folders = {target: source for source, target, _ in mounts("prometheus")}
    (pattern,) = config["rule_files"]
    rules = FOLDER / folders[str(Path(pattern).parent)]
    assert list(rules.glob(Path(pattern).name))
    told = dict(word.lstrip("-").split("=") for word in PARTS["prometheus"]["command"])
    assert told["config.file"] in folders
    assert folders[told["storage.tsdb.path"]] == "prometheus"


def test_grafana_has_our_dashboards_and_the_prometheus_that_scrapes() -> None:
    folders = {target: source for source, target, _ in mounts("grafana")}
    provided = yaml.safe_load((FOLDER / "grafana" / "dashboards.yaml").read_text(encoding="utf-8"))
    (provider,) = provided["providers"]
    path = provider["options"]["path"]
    home = Path(PARTS["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == path
    assert (FOLDER / folders[path] / home.name).is_file()
    sources = yaml.safe_load((FOLDER / "grafana" / "datasources.yaml").read_text(encoding="utf-8"))
    (source,) = sources["datasources"]
    port = PARTS["prometheus"]["ports"][0].rpartition(":")[2]
    assert source["url"] == f"http://prometheus:{port}"
    assert source["isDefault"] is True


def test_mails_go_to_the_mailbox_and_nowhere_else() -> None:
    environment = PARTS["notifier"]["environment"]
    assert environment["SIGNALBOX_SMTP_HOST"] in PARTS
    assert environment["SIGNALBOX_SMTP_HOST"] == "mailpit"
