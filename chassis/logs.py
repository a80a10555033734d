"""Logs: structlog, one line an event, JSON in production. Secrets, addresses and bodies have no way in.

Every line is a named event with fields (`log.info("task_acquired", stage=…, task=…)`). The processor chain ends in a
renderer that escapes control characters, so no input can forge a line. Keys that could carry what people wrote, or
secrets, are replaced, however they got there.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog

FORBIDDEN = frozenset(
    {
        "body",
        "text",
        "html",
        "payload",
        "value",
        "password",
        "secret",
        "token",
        "authorization",
        "dsn",
        "cookie",
        "api_key",
        "headers",
        "database_url",
    }
)
"""Field names whose values never reach a log."""

TRACE_LINES_MAX = 200


def _redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in event:
        if name.lower() in FORBIDDEN:
            event[name] = "[redacted]"
    return event


def _escape(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Make control characters of the message visible; libraries put what they have read into it."""
    event["event"] = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in str(event["event"])
    )
    return event


def _trace(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn an exception into where it came from and what kind it is, down its causes: its message may quote people."""
    found = event.pop("exc_info", None)
    if not found:
        return event
    error = found if isinstance(found, BaseException) else sys.exc_info()[1]
    if isinstance(found, tuple):
        error = found[1]
    lines: list[str] = []
    while error is not None and len(lines) < TRACE_LINES_MAX:
        lines += [type(error).__name__, *traceback.format_tb(error.__traceback__)]
        error = error.__cause__ or error.__context__
    event["exception"] = "\n".join(line.rstrip() for line in lines)
    return event


def configure(service: str, fmt: str = "json", level: str = "info") -> None:
    """Set up logging for the process; call it once, first thing."""
    threshold = getattr(logging, level.upper())
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if fmt == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _redact,
        *([] if fmt == "json" else [_escape]),  # JSON escapes by itself.
    ]
    structlog.configure(
        processors=[*shared, _trace, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    name_service(service)
    # Libraries log through the standard library: warnings and worse, in the same shape.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _trace,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.WARNING))


def name_service(service: str) -> None:
    """Say which service speaks, once that is known."""
    structlog.contextvars.bind_contextvars(service=service)


def get(name: str) -> Any:
    """Return a logger bound to the part of the product that speaks."""
    return structlog.get_logger(part=name)
