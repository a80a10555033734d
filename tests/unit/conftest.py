"""What unit tests of several services share."""

import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from chassis import logs


@pytest.fixture
def configure_logs() -> Iterator[Callable[..., None]]:
    """`logs.configure` for one test: no logger keeps the stream of a test that is over, and all is as it was."""
    root = logging.getLogger()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()

    def configure(*how: str) -> None:
        logs.configure(*how)
        structlog.configure(cache_logger_on_first_use=False)

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
