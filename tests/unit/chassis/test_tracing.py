"""Traces: a context that came in goes on, and where spans are sent each names its parent."""

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.tracing import Tracing, new_root, parse, render

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_traceparent_is_read_and_written_back_the_same() -> None:
    context = parse(PARENT)
    assert context is not None
    assert context.is_remote
    assert render(context) == PARENT


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "nonsense",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01",
        "00-zzf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_a_malformed_traceparent_is_none_at_all(text: str | None) -> None:
    assert parse(text) is None


def test_a_new_root_is_valid_and_its_own() -> None:
    assert parse(new_root()) is not None
    assert new_root() != new_root()


def test_without_an_exporter_the_context_of_the_cause_is_passed_on() -> None:
    tracing = Tracing("sla")
    assert not tracing.is_on
    with tracing.handling("sla Received", PARENT, "k1") as carried:
        assert carried == PARENT
    with tracing.handling("sla Tick", None, "k1") as carried:
        assert carried is None
    tracing.close()


def test_a_span_carries_on_its_parents_trace_and_what_it_emits_carries_the_span() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing("sla", exporter=exporter)
    with tracing.handling("sla Received", PARENT, "k1") as carried:
        pass
    with tracing.handling("sla Tick", "nonsense", "k2"):
        pass
    tracing.close()
    first, second = exporter.get_finished_spans()
    parent = parse(PARENT)
    assert parent is not None
    assert first.name == "sla Received"
    assert first.context.trace_id == parent.trace_id
    assert first.parent is not None
    assert first.parent.span_id == parent.span_id
    assert carried == render(first.context)
    assert carried != PARENT
    assert first.attributes == {"signalbox.key": "k1"}
    assert first.resource.attributes["service.name"] == "signalbox-sla"
    assert second.parent is None


def test_a_decision_that_raises_ends_its_span_all_the_same() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing("sla", exporter=exporter)
    with pytest.raises(RuntimeError), tracing.handling("sla Received", None, "k1"):
        raise RuntimeError("no")
    tracing.close()
    assert len(exporter.get_finished_spans()) == 1
