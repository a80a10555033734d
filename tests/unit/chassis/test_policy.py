"""Policy files: a mistake names its file, its path, its value and what is allowed; a bad reload changes nothing."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

import chassis.policy
from chassis import metrics
from chassis.errors import PolicyError
from chassis.policy import PolicyFiles, PolicyHolder, folder_version, load, parse, read_yaml


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Queue(Strict):
    skills: list[str] = []
    seconds_max: int = Field(default=30, ge=1, le=600)


class Rule(Strict):
    to: str
    when: str = "always"


class Routing(Strict):
    queues: dict[str, Queue] = {}
    rules: list[Rule] = []
    fallback: Queue | None = None


def build(parsed: Mapping[str, Any], folder: Path, version: str) -> tuple[Routing, str]:
    routing: Routing = parsed["routing.yaml"]
    for number, rule in enumerate(routing.rules):
        if rule.to not in routing.queues:
            known = ", ".join(sorted(routing.queues))
            raise PolicyError("routing.yaml", f"rules.{number}.to", rule.to, f"one of {known}")
    return routing, version


FILES = PolicyFiles(
    files={"routing.yaml": Routing, "extra.yaml": Routing},
    build=build,
    optional=frozenset({"extra.yaml"}),
)
GOOD = "queues: {billing: {skills: [refunds]}}\nrules: [{to: billing}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "routing.yaml").write_text(GOOD)
    return tmp_path


def write(folder: Path, text: str) -> None:
    (folder / "routing.yaml").write_text(text)


def refused(folder: Path, text: str) -> PolicyError:
    write(folder, text)
    with pytest.raises(PolicyError) as caught:
        load(folder, FILES)
    return caught.value


def test_a_good_policy_is_read_with_its_version(folder: Path) -> None:
    routing, version = load(folder, FILES)
    assert routing.queues["billing"].skills == ["refunds"]
    assert version == folder_version(folder)
    assert len(version) == 12


def test_a_key_that_stands_twice_is_refused_with_its_line(folder: Path) -> None:
    error = refused(folder, "queues:\n  billing: {}\n  technical: {}\n  billing: {}\n")
    assert error.path == "line 4, column 3"
    assert error.value == "'billing' stands twice"
    assert "routing.yaml" in str(error)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("queues: {billing: [}\n", "line 1, column 20"),
        ("queues:\n  billing:\n\tskills: []\n", "line 3, column 1"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1, column 4"),
    ],
)
def test_what_is_no_plain_yaml_is_refused_with_its_line(
    folder: Path, text: str, where: str
) -> None:
    error = refused(folder, text)
    assert error.path == where
    assert error.allowed == "must be YAML"


def test_a_file_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "routing.yaml").write_bytes(b"\xff\xff\xff")
    with pytest.raises(PolicyError, match=r"routing\.yaml: .*must be YAML"):
        load(folder, FILES)


def test_yaml_nested_out_of_all_reason_is_refused(folder: Path) -> None:
    assert refused(folder, "[" * 50_000).allowed == "must be YAML"


@pytest.mark.parametrize(
    ("text", "path", "known"),
    [
        ("quues: {}\n", "quues", "fallback, queues, rules"),
        ("queues: {billing: {skils: []}}\n", "queues.billing.skils", "seconds_max, skills"),
        ("rules: [{to: billing}, {too: x, to: billing}]\n", "rules.1.too", "to, when"),
        ("fallback: {skils: []}\n", "fallback.skils", "seconds_max, skills"),
    ],
)
def test_an_unknown_key_is_answered_with_the_known_ones(
    folder: Path, text: str, path: str, known: str
) -> None:
    error = refused(folder, text)
    assert error.path == path
    assert error.allowed == f"unknown key; known here: {known}"


@pytest.mark.parametrize(
    ("text", "path", "value", "allowed"),
    [
        ("rules: [{when: always}]\n", "rules.0.to", None, "is required"),
        (
            "queues: {b: {seconds_max: 601}}\n",
            "queues.b.seconds_max",
            601,
            "less than or equal to 600",
        ),
        ("queues: {b: {seconds_max: soon}}\n", "queues.b.seconds_max", "soon", "valid integer"),
        (
            "rules: [{to: biling}]\nqueues: {billing: {}}\n",
            "rules.0.to",
            "biling",
            "one of billing",
        ),
        ("- 1\n", "(whole file)", [1], "valid dictionary"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_is_allowed(
    folder: Path, text: str, path: str, value: object, allowed: str
) -> None:
    error = refused(folder, text)
    assert (error.file, error.path, error.value) == ("routing.yaml", path, value)
    assert allowed in error.allowed


def test_a_long_value_is_cut_in_the_sentence() -> None:
    assert len(str(PolicyError("a.yaml", "x", "y" * 500, "less"))) < 160


def test_a_missing_file_or_folder_is_said_in_a_sentence(folder: Path) -> None:
    (folder / "routing.yaml").unlink()
    with pytest.raises(PolicyError, match="does not exist; see `policy/`"):
        load(folder, FILES)
    with pytest.raises(PolicyError, match="set SIGNALBOX_POLICY"):
        load(folder / "nowhere", FILES)


def test_an_empty_file_means_the_defaults(folder: Path) -> None:
    write(folder, "")
    assert load(folder, FILES)[0] == Routing()


def test_a_file_without_end_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chassis.policy, "FILE_BYTES_MAX", 10)
    with pytest.raises(PolicyError, match="at most 10 bytes"):
        read_yaml(folder / "routing.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("false", False),
        ("12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("09:00", "09:00"),
        ("2026-12-24", "2026-12-24"),
        ("0", 0),
        ("0123", "0123"),
        ("1:30.5", "1:30.5"),
        (".nan", ".nan"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("~", None),
    ],
)
def test_words_and_times_stay_what_they_look_like(folder: Path, text: str, value: object) -> None:
    (folder / "word.yaml").write_text(f"key: {text}\n")
    assert read_yaml(folder / "word.yaml") == {"key": value}


def test_the_first_mistake_of_a_model_names_no_more_than_that() -> None:
    with pytest.raises(PolicyError) as caught:
        parse("routing.yaml", {"queues": {"b": {"seconds_max": 0}}, "rules": 3}, Routing)
    assert caught.value.path == "queues.b.seconds_max"


# -- versions and reload -----------------------------------------------------------------------------------------------


def reloads(result: str) -> float:
    value = metrics.REGISTRY.get_sample_value("signalbox_policy_reloads_total", {"result": result})
    assert value is not None
    return value


def test_the_version_follows_names_and_bytes_and_nothing_else(folder: Path) -> None:
    before = folder_version(folder)
    os.utime(folder / "routing.yaml", (0, 0))
    assert folder_version(folder) == before
    (folder / "templates").mkdir()
    (folder / "templates" / "a.j2").write_text("hello")
    with_template = folder_version(folder)
    assert with_template != before
    (folder / "templates" / "a.j2").rename(folder / "templates" / "b.j2")
    assert folder_version(folder) not in {before, with_template}


def test_a_folder_that_is_a_link_is_part_of_the_version_and_one_that_leads_back_is_not(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A mounted ConfigMap shows its folders as links into a hidden one, which is swapped when something changes."""
    data = tmp_path_factory.mktemp("data")
    (data / "received.j2").write_text("hello")
    (folder / "templates").symlink_to(data)
    before = folder_version(folder)
    (data / "received.j2").write_text("good day")
    assert folder_version(folder) != before
    after = folder_version(folder)
    (folder / "round").symlink_to(folder)
    assert folder_version(folder) == after


def test_the_hidden_folders_of_a_configmap_are_not_counted(folder: Path) -> None:
    before = folder_version(folder)
    (folder / "..2026_11_24").mkdir()
    (folder / "..2026_11_24" / "routing.yaml").write_text("other")
    assert folder_version(folder) == before


def test_a_changed_policy_is_taken_over_as_a_whole(folder: Path) -> None:
    holder = PolicyHolder(folder, FILES)
    before, accepted = holder.current, reloads("accepted")
    assert not holder.reload(), "nothing has changed"
    write(folder, GOOD.replace("refunds", "invoices"))
    assert holder.reload()
    assert holder.current[0].queues["billing"].skills == ["invoices"]
    assert before[0].queues["billing"].skills == ["refunds"], "who has the old one keeps it"
    assert reloads("accepted") == accepted + 1
    info = {"version": holder.current[1]}
    assert metrics.REGISTRY.get_sample_value("signalbox_policy_info", info) == 1


def test_a_bad_reload_keeps_the_last_good_policy_and_is_counted_once(folder: Path) -> None:
    holder = PolicyHolder(folder, FILES)
    good, refused_before = holder.current, reloads("refused")
    write(folder, "queues: {billing: {skils: []}}\n")
    assert not holder.reload()
    assert not holder.reload()
    assert holder.current is good
    assert reloads("refused") == refused_before + 1
    write(folder, GOOD + "# mended\n")
    assert holder.reload()
    assert holder.current[1] == folder_version(folder)


def test_a_mistake_nobody_foresaw_keeps_the_last_good_policy_too(folder: Path) -> None:
    def blow_up(parsed: Mapping[str, Any], folder: Path, version: str) -> tuple[Routing, str]:
        if parsed["routing.yaml"].fallback is not None:
            raise KeyError("never thought of that")
        return build(parsed, folder, version)

    holder = PolicyHolder(folder, PolicyFiles(files={"routing.yaml": Routing}, build=blow_up))
    good, refused_before = holder.current, reloads("refused")
    write(folder, GOOD + "fallback: {}\n")
    assert not holder.reload()
    assert holder.current is good
    assert reloads("refused") == refused_before + 1


def test_a_folder_that_vanishes_for_a_moment_changes_nothing(folder: Path) -> None:
    holder = PolicyHolder(folder, FILES)
    good = holder.current
    folder.rename(folder.with_name("moved"))
    assert not holder.reload()
    assert holder.current is good
    folder.with_name("moved").rename(folder)
    holder.reload()
    assert holder.current == good


async def test_the_watch_sees_a_change_by_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.policy, "POLL_SECONDS", 0.005)
    holder = PolicyHolder(folder, FILES)
    watching = asyncio.create_task(holder.watch())
    write(folder, GOOD.replace("refunds", "invoices"))
    async with asyncio.timeout(5):
        while holder.current[0].queues["billing"].skills != ["invoices"]:
            await asyncio.sleep(0.005)
    watching.cancel()


def test_a_bad_policy_is_refused_at_the_start(folder: Path) -> None:
    write(folder, "rules: 1\n")
    with pytest.raises(PolicyError):
        PolicyHolder(folder, FILES)
