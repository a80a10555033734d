"""The pages made from code, and what they rest on: every series and every setting, declared once, for people."""

import re
from collections import defaultdict

import pytest

from chassis import metrics
from chassis.settings import Settings
from cli import docs

PAGES = docs.pages()


def rows(page: str) -> list[list[str]]:
    lines = (line for line in page.splitlines() if line.startswith("| `"))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_declared_series_is_on_the_page_with_its_meaning() -> None:
    shown = {name.strip("`"): meaning for name, _, _, meaning in rows(PAGES[docs.METRICS])}
    assert set(shown) == set(metrics.DECLARED)
    assert all(len(meaning) > 10 for meaning in shown.values())


def test_every_series_is_named_for_its_unit_and_says_who_speaks() -> None:
    for declared in metrics.DECLARED.values():
        assert re.fullmatch(r"signalbox_[a-z][a-z_]*[a-z]", declared.name)
        assert (declared.kind == "counter") == declared.name.endswith("_total")
        if declared.kind == "histogram":
            assert re.search(r"_(seconds|records|bytes|rows)$", declared.name)


def test_no_series_is_labelled_by_an_id_or_an_address() -> None:
    for declared in metrics.DECLARED.values():
        assert not [
            label for label in declared.labels if re.search(r"(^|_)(id|key|address)$", label)
        ]


def test_every_setting_is_on_the_page_with_its_meaning() -> None:
    shown = {row[0].strip("`"): row[-1] for row in rows(PAGES[docs.SETTINGS])}
    for name in Settings.model_fields:
        assert len(shown[f"SIGNALBOX_{name.upper()}"]) > 5


def test_one_variable_means_one_thing_in_all_services() -> None:
    """All services may run with one environment, as in the demo."""
    meanings: dict[str, set[str]] = defaultdict(set)
    section = ""
    for line in PAGES[docs.SETTINGS].splitlines():
        section = line if line.startswith("## ") else section
        if line.startswith("| `SIGNALBOX_") and "on one machine" not in section:
            variable = line.split("`")[1]
            if variable.removeprefix("SIGNALBOX_").lower() not in Settings.model_fields:
                meanings[variable].add(section)
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


@pytest.mark.parametrize("page", [docs.METRICS, docs.SETTINGS])
def test_a_stale_page_is_named_with_the_cure(page: object, tmp_path: object) -> None:
    assert any(
        problem.startswith(f"{page} is not what the code says now: run `make docs`")
        for problem in docs.stale(tmp_path)  # type: ignore[arg-type]
    )
