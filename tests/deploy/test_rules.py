"""Prometheus' rules: generated ones are fresh, every alert is shown to fire and not to, and promtool agrees where it is installed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from deploy.prometheus import lint, slo

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "deploy" / "prometheus" / "tests"
ALERTS = [rule for rule in lint.rules() if rule.alert is not None]
NEEDED = {
    "a gap in a sequence": "SignalboxTaskHalted",
    "a fenced task": "SignalboxTaskFenced",
    "a stuck position": "SignalboxTaskStuck",
    "dead letters": "SignalboxDeadLetters",
    "the outbox's age": "SignalboxOutboxOld",
    "a refused policy": "SignalboxPolicyRefused",
    "a provider that fails": "SignalboxProviderOpen",
    "promises that are not true": "SignalboxSlaPromisesOff",
    "work for nobody": "SignalboxUnmatchable",
    "a stage that reads nothing": "SignalboxConsumerStalled",
    "a service that is not there": "SignalboxServiceMissing",
}


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed; on Debian it comes with the package prometheus")
    return found


def cases(path: Path) -> list[dict[str, Any]]:
    return [
        case
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", ())
    ]


def test_the_rules_of_the_objectives_are_what_their_declarations_say() -> None:
    assert slo.RULES.read_text(encoding="utf-8") == slo.rules(), (
        "run: python -m deploy.prometheus.slo"
    )


@pytest.mark.parametrize("stem", sorted(path.stem for path in lint.RULES.glob("*.yaml")))
def test_every_alert_is_shown_to_fire_and_not_to(stem: str) -> None:
    shown = {
        (case["alertname"], bool(case["exp_alerts"]))
        for path in (TESTS / f"{stem}.yaml", TESTS / f"{stem}_days.yaml")
        if path.exists()
        for case in cases(path)
    }
    named = {rule.alert for rule in ALERTS if rule.where.startswith(f"rules/{stem}.yaml")}
    assert shown >= {(name, fires) for name in named for fires in (True, False)}
    assert {name for name, _ in shown} <= named


@pytest.mark.parametrize("objective", slo.OBJECTIVES, ids=lambda one: one.name)
def test_every_speed_at_which_an_allowance_goes_is_shown_to_fire(objective: slo.Objective) -> None:
    shown = {
        (alert["exp_labels"]["window"], alert["exp_labels"]["severity"])
        for case in cases(TESTS / "slo.yaml")
        if case["alertname"] == objective.alert
        for alert in case["exp_alerts"]
    }
    assert shown == {("1h", "page"), ("6h", "page"), ("1d", "ticket"), ("3d", "ticket")}


@pytest.mark.parametrize("what", NEEDED)
def test_somebody_is_told_of(what: str) -> None:
    assert NEEDED[what] in {rule.alert for rule in ALERTS}


def test_an_objective_that_can_burn_fourteen_times_can_page() -> None:
    """A share above 1 never comes: an objective below 93 % could not page by the fastest of the four."""
    fastest = max(burn.factor for burn in slo.BURNS)
    assert all(fastest * (1 - one.share) < 1 for one in slo.OBJECTIVES)


def test_the_page_on_objectives_has_each_with_its_share_and_its_runbook() -> None:
    page = (ROOT / "docs" / "slo.md").read_text(encoding="utf-8")
    for one in slo.OBJECTIVES:
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{one.name}` |"))
        assert f"| {one.share * 100:g} % |" in row
        assert f"(runbooks/{one.alert}.md)" in row


def test_promtool_accepts_the_rules(promtool: str) -> None:
    ended = subprocess.run(
        [promtool, "check", "rules", *map(str, sorted(lint.RULES.glob("*.yaml")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("path", sorted(TESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_alerts_fire_when_they_should_and_only_then(promtool: str, path: Path) -> None:
    ended = subprocess.run(
        [promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def commands() -> list[tuple[str, list[str]]]:
    """What the runbooks tell people to type, page by page: the words behind `signalbox`."""
    found = []
    for path in sorted(lint.RUNBOOKS.glob("*.md")):
        text = path.read_text(encoding="utf-8").replace("\n", " ")
        found += [
            (path.stem, said.split()) for said in re.findall(r"`signalbox ([a-z][^`]*)`", text)
        ]
    return found


@pytest.mark.parametrize(("page", "words"), commands(), ids=lambda value: str(value))
def test_every_command_of_a_runbook_exists(page: str, words: list[str]) -> None:
    from cli.main import app

    command = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, typer.core.TyperGroup) and rest:
        name = rest.pop(0)
        assert name in command.commands, f"{page}: signalbox {' '.join(words)}"
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
    assert asked <= options, f"{page}: signalbox {' '.join(words)}"
