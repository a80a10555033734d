"""The gateway keeps to its own OpenAPI, whatever is sent: seeded requests made from the description, right and wrong ones.

In this process, on a spool in memory. Web chat and the view of tickets stand on a database that is always away here, so what
they would look up there ends at 503. `SIGNALBOX_OPENAPI_EXAMPLES` asks for more than the few of each operation; `make openapi` does.
"""

import contextlib
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance

from chassis import policy
from services.ingest import api, feedback, openapi, ticket_view, webchat, webhooks
from services.ingest.adapters.accounts import PublishedKeys
from services.ingest.core.pace import Pace
from services.ingest.handlers import POLICY
from services.ingest.paths import Paths
from tests.contract.test_gateway_api import NOW, MemorySpool

EXAMPLES = int(os.environ.get("SIGNALBOX_OPENAPI_EXAMPLES", "8"))
KEY = "a-key-for-everything"
CHANNELS = """
forms: {contact: {}}
messages: {sales: {channel: kiosk}}
events: {shop: {secrets: ['env:SHOP']}}
channels:
  page: {channel: messenger, secret: 'env:SHOP'}
  shown: {channel: tidio, secret: 'env:SHOP'}
  site: {channel: webchat, demo: true}
api_keys: [{name: all, secret: 'env:KEY', scopes: [agents, roster, messages, events, notices]}]
"""
load_all_checks()
BEYOND = [positive_data_acceptance]
"""Checks that are not made: what an address or a language is goes beyond what a schema can say."""

FROM_DATABASE = ("/v1/widget/", "/typing.", "/visitor.", "/{ticket_id}.")
"""Parts of the paths, with a full stop at their end, that look something up there."""


class Known:
    """Secrets by reference."""

    def get(self, reference: str) -> bytes | None:
        return {"env:KEY": KEY.encode(), "env:SHOP": b"c2VjcmV0LXNlY3JldA=="}.get(reference)


class Passing:
    """A clock by which seconds pass with every look, so that no pace is ever used up."""

    def __init__(self) -> None:
        self._looks = 0

    def now(self) -> datetime:
        self._looks += 1
        return NOW + timedelta(seconds=3 * self._looks)


class Away:
    """A pool whose database does not answer."""

    @contextlib.asynccontextmanager
    async def acquire(self, **_: Any) -> AsyncIterator[Any]:
        raise OSError("away")
        yield


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    folder = tmp_path_factory.mktemp("policy")
    (folder / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    given: dict[str, Any] = {
        "spool": MemorySpool(),
        "policies": policy.PolicyHolder(Path(folder), POLICY),
        "clock": Passing(),
        "secrets": Known(),
    }
    view = ticket_view.Deps(Away(), ticket_view.Waiters("", 1), given["clock"], 4)  # type: ignore[arg-type]
    app = api.create_app(api.Deps(**given, tickets=ticket_view.TicketView(view)))
    openapi.mount(app)
    chat = webchat.Deps(**given, pool=Away(), hub=webchat.Hub(""), secret=b"s" * 40)  # type: ignore[arg-type]
    webchat.mount(app, webchat.Webchat(chat))
    customers = feedback.Feedback(given["spool"], Away(), given["clock"], b"s" * 40)  # type: ignore[arg-type]
    feedback.mount(app, customers)
    webhooks.mount(
        app,
        webhooks.Webhooks(
            **given,
            keys=PublishedKeys(),
            workspace="default",
            body_bytes_max=64 * 1024,
            body_seconds=5.0,
            per_account=Pace(10**9),
            per_address=Pace(10**9),
        ),
    )
    return app


@pytest.fixture(scope="module")
def described(gateway: Paths) -> Any:
    """The description, for what is right; and for what is wrong one that knows no keys, since the key shown is right."""
    keyless = openapi.document()
    for methods in keyless["paths"].values():
        for operation in methods.values():
            operation.pop("security", None)
    without = schemathesis.openapi.from_dict(keyless)
    without.app = gateway
    return {
        GenerationMode.POSITIVE: schemathesis.openapi.from_asgi(openapi.PATH, gateway),
        GenerationMode.NEGATIVE: without,
    }


OPERATIONS = sorted(
    (path, method.upper())
    for path, methods in openapi.document()["paths"].items()
    for method in methods
)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda text: str(text).strip("/"))
def test_the_gateway_does_what_its_description_says(
    described: Any, path: str, method: str, mode: GenerationMode
) -> None:
    operation = described[mode][path][method]
    excluded = [not_a_server_error] if any(part in f"{path}." for part in FROM_DATABASE) else []

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def keeps_to_it(case: schemathesis.Case) -> None:
        case.call_and_validate(
            headers={"Authorization": f"Bearer {KEY}"}, excluded_checks=[*excluded, *BEYOND]
        )

    try:
        keeps_to_it()
    except Unsatisfiable:
        # An operation that takes anything can be sent nothing wrong.
        assert mode is GenerationMode.NEGATIVE


def test_every_path_and_method_that_is_answered_is_described(gateway: Paths) -> None:
    described = {
        (path, method.upper())
        for path, methods in openapi.document()["paths"].items()
        for method in methods
    }
    answered = {(path, method) for path, methods in gateway.added.items() for method in methods}
    assert described == answered - {(openapi.PATH, "GET")}
