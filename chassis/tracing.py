"""Traces across hops: the W3C `traceparent` of an event is kept in the outbox and goes on with what it causes.

Where an OTLP endpoint is set, each handled event is a span (`<stage> <type>`) whose context its emitted events carry;
where none is, the context of the cause is passed on unchanged, so a trace that began elsewhere still holds together.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter


class Tracing:
    """Makes spans for handled events, or passes contexts on where nothing is exported."""

    def __init__(
        self, service: str, endpoint: str = "", exporter: "SpanExporter | None" = None
    ) -> None:
        self._provider: TracerProvider | None = None
        self._tracer: trace.Tracer | None = None
        if endpoint or exporter is not None:
            self._provider = _make_provider(service, endpoint, exporter)
            self._tracer = self._provider.get_tracer("signalbox")

    @property
    def is_on(self) -> bool:
        """Whether spans are made at all."""
        return self._tracer is not None

    @contextmanager
    def handling(self, name: str, parent: str | None, subject: str) -> Iterator[str | None]:
        """Run a decision inside a span; yields the `traceparent` that what it emits shall carry."""
        if self._tracer is None:
            yield parent
            return
        context = (
            trace.set_span_in_context(NonRecordingSpan(parsed))
            if (parsed := parse(parent))
            else None
        )
        with self._tracer.start_as_current_span(
            name,
            context=context,
            kind=SpanKind.CONSUMER,
            attributes={"signalbox.key": subject},
        ) as span:
            yield render(span.get_span_context())

    def close(self) -> None:
        """Send what is still buffered."""
        if self._provider is not None:
            self._provider.shutdown()


def new_root() -> str:
    """Return a `traceparent` that begins a trace: for an input whose sender gave none."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def parse(traceparent: str | None) -> SpanContext | None:
    """Read a W3C `traceparent` (version 00); None where there is none or it is malformed."""
    parts = (traceparent or "").split("-")
    if len(parts) != 4 or [len(part) for part in parts] != [2, 32, 16, 2]:
        return None
    try:
        trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
    except ValueError:
        return None
    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def render(context: SpanContext) -> str:
    """Return a span's context as a `traceparent`."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _make_provider(
    service: str, endpoint: str, exporter: "SpanExporter | None"
) -> "TracerProvider":
    # Imported here: the SDK and its exporter cost half a second that a service without traces need not pay.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": f"signalbox-{service}"}))
    chosen = exporter or OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(chosen))
    return provider
