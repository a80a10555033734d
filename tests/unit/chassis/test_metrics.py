"""Metrics: each series is declared once, with a help text, and counts from 0 before the first failure."""

import pytest
from prometheus_client import CollectorRegistry

from chassis import metrics


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry of the test's own, so that no page of the documentation names its series."""
    one = CollectorRegistry()
    monkeypatch.setattr(metrics, "REGISTRY", one)
    monkeypatch.setattr(metrics, "DECLARED", {})
    return one


def test_a_series_declared_twice_is_refused(registry: CollectorRegistry) -> None:
    metrics.counter("signalbox_shop_orders_total", "Orders.")
    with pytest.raises(ValueError, match="signalbox_shop_orders_total is declared twice"):
        metrics.gauge("signalbox_shop_orders_total", "Orders.")


def test_every_combination_of_closed_labels_is_there_from_the_start(
    registry: CollectorRegistry,
) -> None:
    metrics.counter(
        "signalbox_shop_orders_total", "Orders.", {"kind": ("new", "late"), "way": ("a", "b")}
    )
    text = metrics.exposition().decode()
    for kind in ("new", "late"):
        for way in ("a", "b"):
            assert f'signalbox_shop_orders_total{{kind="{kind}",way="{way}"}} 0.0' in text


def test_labels_that_only_the_task_knows_are_not_made_up(registry: CollectorRegistry) -> None:
    metrics.gauge("signalbox_shop_lag", "Lag.", {"stage": (), "kind": ("a",)})
    assert "signalbox_shop_lag{" not in metrics.exposition().decode()


def test_a_declaration_says_what_the_documentation_needs(registry: CollectorRegistry) -> None:
    metrics.histogram("signalbox_shop_seconds", "How long it takes.", {"kind": ("a",)})
    declared = metrics.DECLARED["signalbox_shop_seconds"]
    assert declared == metrics.Declaration(
        "signalbox_shop_seconds", "histogram", "How long it takes.", {"kind": ("a",)}
    )


def test_the_names_of_the_chassis_follow_the_house_rule() -> None:
    for declared in metrics.DECLARED.values():
        assert declared.name.startswith("signalbox_")
        assert declared.name.endswith("_total") == (declared.kind == "counter"), declared.name
        assert declared.help.endswith("."), declared.name
        assert "key" not in declared.labels
        assert not any(label.endswith("_id") for label in declared.labels)
