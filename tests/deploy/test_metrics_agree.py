"""Rules, dashboards and runbooks speak of series that the services show, and the lint that says so sees what is wrong."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.prometheus import lint
from deploy.prometheus.lint import Query, Rule

PAGE = """# {name}

What it means.

**Severity**: page. What it costs.

## Look

## Do

## Over
"""

GOOD: dict[str, Any] = {
    "alert": "SignalboxSample",
    "expr": "max by (stage, task) (signalbox_task_halted) > 0",
    "labels": {"severity": "page", "service": "all"},
    "annotations": {
        "summary": "{{ $labels.stage }} stands",
        "description": "Task {{ $labels.task }}.",
        "runbook_url": "docs/runbooks/SignalboxSample.md",
    },
}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder with the page of the sample alert."""
    (tmp_path / "SignalboxSample.md").write_text(
        PAGE.format(name="SignalboxSample"), encoding="utf-8"
    )
    return tmp_path


def judged(pages: Path, *rules: Mapping[str, Any], queries: tuple[str, ...] = ()) -> str:
    return "\n".join(
        lint.lint(
            [Rule("sample", rule) for rule in rules],
            [Query("board", text) for text in queries],
            pages,
        )
    )


def changed(**fields: Any) -> dict[str, Any]:
    return {**GOOD, **fields}


def noted(**notes: str) -> dict[str, Any]:
    return changed(annotations={**GOOD["annotations"], **notes})


def test_rules_dashboards_and_runbooks_agree_with_what_the_services_show() -> None:
    assert lint.lint() == []


def test_a_sound_alert_is_told_nothing(pages: Path) -> None:
    assert judged(pages, GOOD) == ""


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (changed(expr="max by (stage, task) (signalbox_task_haltd) > 0"), "nothing declares or records signalbox_task_haltd"),
        (changed(expr='max by (stage, task) (signalbox_task_halted{queue="x"}) > 0'), "signalbox_task_halted has no label queue"),
        (changed(expr="max by (stage, task, topic) (signalbox_task_halted) > 0"), "max names topic"),
        (changed(expr="max by (stage, task) (signalbox_task_halted)"), "compares nothing"),
        (changed(expr="max by (stage) (signalbox_task_halted) > 0"), "its description shows task, which the expression has dropped"),
        (noted(summary="{{ $labels.queue }} stands"), "its summary shows queue, which the expression has dropped"),
        (noted(summary=""), "it has no summary"),
        (noted(runbook_url="docs/runbooks/Another.md"), "its runbook_url is not docs/runbooks/SignalboxSample.md"),
        (changed(labels={"severity": "urgent"}), "its severity is neither page nor ticket"),
        (
            {**noted(summary="gone", description="gone"), "expr": "absent(signalbox_ready) == 1"},
            "absent without `for` fires at every restart",
        ),
        (
            changed(expr="max by (stage, task) (signalbox_task_halted) > on (queue) signalbox_sla_backlog_oldest_seconds"),
            "on of > names queue",
        ),
        (changed(expr="max by (stage, task (signalbox_task_halted) > 0"), "sample:"),
    ],
)  # fmt: skip
def test_a_faulty_alert_is_told_what_is_wrong(
    pages: Path, rule: Mapping[str, Any], said: str
) -> None:
    assert said in judged(pages, rule)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ('signalbox_policy_reloads_total{result="refuzed"}', "result of signalbox_policy_reloads_total is never 'refuzed'"),
        ('signalbox_policy_reloads_total{result=~"accepted|ignored"}', "result of signalbox_policy_reloads_total is never 'ignored'"),
        ('sum(signalbox_task_batch_seconds_bucket{le="7.0"})', "le of signalbox_task_batch_seconds_bucket is never '7.0'"),
        ("signalbox_task_batch_seconds", "nothing declares or records signalbox_task_batch_seconds"),
        ("histogram_quantile(0.9, sum by (stage) (rate(signalbox_task_batch_seconds_bucket[5m])))", "histogram_quantile names le"),
        ("go_goroutines", "nothing declares or records go_goroutines"),
        ('label_replace(signalbox_ready, "to", "$1", "stage", "(.+)")', "label_replace names stage"),
    ],
)  # fmt: skip
def test_a_query_of_a_dashboard_is_told_what_is_wrong(pages: Path, query: str, said: str) -> None:
    assert said in judged(pages, GOOD, queries=(query,))


@pytest.mark.parametrize(
    "query",
    [
        'signalbox_policy_reloads_total{result!~"refused"}',
        'sum(signalbox_task_batch_seconds_bucket{le="2.5"})',
        'sum by (queue) (signalbox_sla_backlog_oldest_seconds{queue=~".*"}) or vector(0)',
        "sum by (job, instance) (signalbox_ready) * on (job) group_left () count by (job) (up)",
        "topk by (stage) (3, signalbox_task_lag_records)",
    ],
)
def test_a_sound_query_is_told_nothing(pages: Path, query: str) -> None:
    assert judged(pages, GOOD, queries=(query,)) == ""


def test_a_recorded_series_has_the_labels_that_its_rule_leaves(pages: Path) -> None:
    recorded = {"record": "signalbox:sample", "expr": "max by (stage) (signalbox_task_halted)"}
    alert = noted(description="Task {{ $labels.stage }}.") | {"expr": "signalbox:sample > 0"}
    assert judged(pages, alert, recorded) == ""
    wrong = GOOD | {"expr": "signalbox:sample > 0"}
    assert "shows task, which the expression has dropped" in judged(pages, wrong, recorded)


def test_a_rule_that_reads_itself_is_told_so(pages: Path) -> None:
    recorded = {"record": "signalbox:sample", "expr": "signalbox:sample + 1"}
    assert "it reads itself" in judged(pages, GOOD, recorded)


def test_a_page_that_no_alert_has_and_an_alert_without_page_are_told(pages: Path) -> None:
    (pages / "SignalboxForgotten.md").write_text("# SignalboxForgotten\n", encoding="utf-8")
    told = judged(pages, GOOD, GOOD | {"alert": "SignalboxNew"})
    assert "SignalboxForgotten.md: no alert is called so" in told
    assert "SignalboxNew has no page" in told
    assert "SignalboxForgotten.md: it lacks ## Over" in told


def test_what_grafana_fills_in_is_filled_in() -> None:
    sent = lint.as_grafana_sends('sum(rate(x{queue=~"$queue"}[$__rate_interval]))')
    assert sent == 'sum(rate(x{queue=~".*"}[5m]))'


def test_prose_in_a_runbook_is_read_like_its_queries(tmp_path: Path) -> None:
    (tmp_path / "Page.md").write_text(
        "See `signalbox_task_lost_total{stage,reason}` and `signalbox_task_batch_seconds`:\n\n"
        "   ```promql\n   up == 0\n   ```\n",
        encoding="utf-8",
    )
    assert [query.text.strip() for query in lint.runbook_queries(tmp_path)] == [
        "up == 0",
        'signalbox_task_lost_total{stage=~".*",reason=~".*"}',
        "signalbox_task_batch_seconds_count",
    ]


def test_the_rules_that_are_read_are_all_of_those_that_stand_there() -> None:
    n_rules = sum(
        len(group["rules"])
        for path in lint.RULES.glob("*.yaml")
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    )
    assert len(lint.rules()) == n_rules > 150
