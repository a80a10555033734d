"""The alerts that come with the product: they name series that exist, say how urgent they are, and lead to a page."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

import services.router.metrics  # noqa: F401 - its import declares the series
from chassis.metrics import DECLARED, REGISTRY
from chassis.policy import load
from services.router.handlers import POLICY

ROOT: Final = Path(__file__).parents[3]
FILES: Final = (ROOT / "deploy" / "prometheus" / "rules" / "router.yaml",)
RULES: Final[list[dict[str, Any]]] = [
    rule
    for file in FILES
    for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
    for rule in group["rules"]
]


def test_a_file_of_alerts_is_groups_of_rules_with_names_that_occur_once() -> None:
    for file in FILES:
        read = yaml.safe_load(file.read_text("utf-8"))
        assert set(read) == {"groups"}
        assert all(set(group) == {"name", "rules"} for group in read["groups"])
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    assert {"SignalboxTicketPaged", "SignalboxTicketOwnerForced"} <= set(names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_what_it_looks_at_and_where_to_read_on(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Signalbox[A-Za-z]+", rule["alert"])
    series = set(re.findall(r"signalbox_[a-z_]+", rule["expr"]))
    assert series, "an alert looks at a series"
    assert series <= DECLARED.keys()
    assert rule["expr"].count("(") == rule["expr"].count(")")
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook"}
    page = ROOT / rule["annotations"]["runbook"]
    assert page.name == f"{rule['alert']}.md"
    assert page.read_text("utf-8").startswith(f"# {rule['alert']}\n")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alerts_labels_are_those_of_its_series(rule: dict[str, Any]) -> None:
    grouped = re.findall(r"by \(([a-z_, ]+)\)", rule["expr"])
    asked = {name.strip() for group in grouped for name in group.split(",")}
    shown = set(re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"])))
    (series,) = set(re.findall(r"signalbox_[a-z_]+", rule["expr"]))
    assert asked <= DECLARED[series].labels.keys()
    assert shown <= asked


def test_a_level_of_the_policy_is_counted_from_nought_so_that_its_first_page_is_an_increase() -> (
    None
):
    load(ROOT / "policy", POLICY)
    labels = {"on_call": "security"}
    assert REGISTRY.get_sample_value("signalbox_router_pages_total", labels) is not None
