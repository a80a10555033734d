"""Prometheus' rules, as files: what they read exists, every alert has a page, and those with cases are shown to fire and not to.

`promtool test rules deploy/prometheus/tests/*.yaml` runs the cases; here it is checked that there are some for each.
"""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis import metrics

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy" / "prometheus" / "rules").glob("*.yaml"))
SUFFIXES = ("_bucket", "_sum", "_count", "")


def rules(path: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts(path: Path) -> list[dict[str, Any]]:
    return [rule for rule in rules(path) if "alert" in rule]


@pytest.fixture(scope="module")
def declared() -> set[str]:
    for service in ("ingest", "router", "sla", "notifier"):
        importlib.import_module(f"services.{service}.metrics")
    return {name + suffix for name in metrics.DECLARED for suffix in SUFFIXES}


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_series_that_is_read_is_declared_or_recorded(path: Path, declared: set[str]) -> None:
    found = rules(path)
    recorded = {rule["record"] for rule in found if "record" in rule}
    for rule in found:
        read = set(re.findall(r"signalbox_[a-z_]+(?::[a-z0-9_]+)*", rule["expr"]))
        assert read <= declared | recorded, rule


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_says_who_is_to_look_and_where_it_is_written_down(path: Path) -> None:
    for rule in alerts(path):
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["runbook"] == f"docs/runbooks/{rule['alert']}.md"
        page = (ROOT / rule["annotations"]["runbook"]).read_text(encoding="utf-8")
        assert page.startswith(f"# {rule['alert']}\n")
        assert {"summary", "description"} <= rule["annotations"].keys()


@pytest.mark.parametrize("service", ["sla", "notifier"])
def test_every_alert_is_shown_to_fire_and_not_to(service: str) -> None:
    path = ROOT / "deploy" / "prometheus" / "tests" / f"{service}.yaml"
    cases = [
        case
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    shown = {(case["alertname"], bool(case["exp_alerts"])) for case in cases}
    (found,) = (path for path in RULES if path.stem == service)
    names = {rule["alert"] for rule in alerts(found)}
    assert shown == {(name, fires) for name in names for fires in (True, False)}


def test_a_series_in_a_runbook_exists(declared: set[str]) -> None:
    recorded = {rule["record"] for path in RULES for rule in rules(path) if "record" in rule}
    ours = {rule["alert"] for path in RULES if path.stem != "router" for rule in alerts(path)}
    for path in sorted((ROOT / "docs" / "runbooks" / f"{name}.md") for name in ours):
        read = set(re.findall(r"`(signalbox_[a-z0-9_:]+)", path.read_text(encoding="utf-8")))
        assert read <= declared | recorded, path
