"""Every channel passes this one suite: its recorded pairs, its vectors of proof, and whatever a stranger may send.

A pair is `tests/fixtures/ingest/<channel>/<case>.json` with `<case>.expected.json`; `verify.json` beside them lists
requests with what becomes of them.
"""

import base64
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.ingest import adapters, offline
from services.ingest.adapters.channel import Capability, Delivery, Parsed, ParseError, Request

FIXTURES = Path(__file__).parents[1] / "fixtures" / "ingest"
PAIRS = sorted(
    path
    for path in FIXTURES.glob("*/*.json")
    if path.name != "verify.json" and not path.name.endswith(".expected.json")
)
VECTORS = [
    pytest.param(path.parent.name, case, id=f"{path.parent.name}: {case['case']}")
    for path in sorted(FIXTURES.glob("*/verify.json"))
    for case in json.loads(path.read_text("utf-8"))
]
NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
PROVED = sorted(name for name, channel in adapters.CHANNELS.items() if channel.verify is not None)
CANARY = "canary-5f0c1a-secret"


def body_of(case: dict[str, Any]) -> bytes:
    """Return a case's body: as base64, as text, or as JSON to write compactly."""
    if "body_base64" in case:
        return base64.b64decode(case["body_base64"])
    body = case.get("body", "")
    if isinstance(body, str):
        return body.encode("utf-8", "surrogateescape")
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def without_nothing(value: Any) -> Any:
    """Return JSON without what is null, empty or the default, at any depth, so that pairs say only what counts."""
    if isinstance(value, dict):
        kept = {name: without_nothing(inner) for name, inner in value.items()}
        return {name: inner for name, inner in kept.items() if inner not in (None, "", [], {})}
    if isinstance(value, list):
        return [without_nothing(inner) for inner in value]
    return value


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_delivery_becomes_the_messages_beside_it(path: Path) -> None:
    asked = json.loads(path.read_text("utf-8"))
    expected = json.loads(path.with_name(f"{path.stem}.expected.json").read_text("utf-8"))
    asked.setdefault("received_at", NOW.isoformat())
    asked["body_base64"] = base64.b64encode(body_of(asked)).decode()
    asked.pop("body", None)
    answer = json.loads(_encoded(offline.normalize_line(asked, NOW)))
    assert "error" not in answer or "error" in expected, answer.get("error")
    got = {name: answer.get(name) for name in ("messages", "ignored", "error")}
    wanted = {name: expected.get(name) for name in ("messages", "ignored", "error")}
    for one in [*(got["messages"] or []), *(wanted["messages"] or [])]:
        for name, default in (("direction", "inbound"), ("change", "new"), ("is_automatic", False)):
            one.setdefault(name, default)
    assert without_nothing(got) == without_nothing(wanted)


def _encoded(answer: dict[str, Any]) -> bytes:
    import msgspec

    return msgspec.json.encode(answer)


@pytest.mark.parametrize(("channel", "case"), VECTORS)
def test_a_request_is_let_in_or_refused_as_its_vector_says(
    channel: str, case: dict[str, Any]
) -> None:
    request = Request(
        case.get("method", "POST"),
        case.get("url", ""),
        {name.lower(): value for name, value in case.get("headers", {}).items()},
        body_of(case),
    )
    now = datetime.fromisoformat(case.get("now", NOW.isoformat()))
    verdict = adapters.verify(adapters.CHANNELS[channel], request, case.get("secrets", {}), now)
    assert (verdict.accepted, verdict.reason) == (case["accepted"], case["reason"])
    assert verdict.respond.status == case["status"]
    if "respond_body" in case:
        assert verdict.respond.body == case["respond_body"]


@pytest.mark.parametrize("channel", PROVED)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wröng"},
        {"authorization": "Basic ☃"},
        {"x-hub-signature-256": "sha256=\xff\xfe", "x-hub-signature": "\xe9"},
        {"content-type": "application/json", "webhook-signature": "v1,\udcff"},
    ],
)
def test_nobody_gets_in_without_proof(channel: str, method: str, headers: dict[str, str]) -> None:
    """And what a stranger sends is the stranger's fault: 4xx, never 5xx, and never 410, which ends subscriptions."""
    request = Request(method, f"https://in.example/v1/channels/{channel}/main", headers, b'{"a":1}')
    verdict = adapters.verify(adapters.CHANNELS[channel], request, {"secret": CANARY}, NOW)
    assert not verdict.is_delivery or not verdict.accepted
    if not verdict.accepted:
        assert 400 <= verdict.respond.status < 500
        assert verdict.respond.status != 410
    assert CANARY not in repr(verdict)


@pytest.mark.parametrize("channel", PROVED)
def test_an_account_without_a_secret_is_shut(channel: str) -> None:
    request = Request("POST", f"https://in.example/v1/channels/{channel}/main/", {}, b"{}")
    verdict = adapters.verify(adapters.CHANNELS[channel], request, {}, NOW)
    assert not verdict.accepted


@pytest.mark.parametrize("channel", PROVED)
def test_a_channel_says_how_it_is_proved(channel: str) -> None:
    capability = adapters.CHANNELS[channel].capability
    assert isinstance(capability, Capability)
    assert capability.proof != "none"


@pytest.mark.parametrize("channel", sorted(adapters.CHANNELS))
def test_settings_may_all_be_absent_and_are_told(channel: str) -> None:
    """Offline, nothing is configured; and what may be configured says what it means."""
    kind = adapters.CHANNELS[channel].settings
    kind()
    told = " ".join(one.__doc__ or "" for one in kind.__mro__)
    for name, field in kind.model_fields.items():
        if name not in ("secret", "previous_secret", "own_ids"):
            assert field.description or name in told, f"{channel}: {name}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=5)
    ),
    max_leaves=20,
)


def read(channel: str, body: bytes, headers: dict[str, str] | None = None) -> Parsed | ParseError:
    """Read bytes with an adapter itself, so that a mistake in it is not taken for a refusal."""
    delivery = Delivery(
        channel=channel,
        account="main",
        body=body,
        received_at=NOW,
        headers=headers or {"content-type": "application/json"},
    )
    try:
        return adapters.CHANNELS[channel].parse(delivery)
    except ParseError as error:
        return error


@pytest.mark.parametrize("channel", sorted(adapters.CHANNELS))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=JSON)
def test_any_json_is_read_or_refused(channel: str, value: Any) -> None:
    assert isinstance(read(channel, json.dumps(value).encode()), (Parsed, ParseError))


@pytest.mark.parametrize("channel", sorted(adapters.CHANNELS))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(channel: str, body: bytes) -> None:
    assert isinstance(read(channel, body), (Parsed, ParseError))


def _mutations(value: Any) -> st.SearchStrategy[Any]:
    """Return a recorded body with one value somewhere replaced by another kind of thing."""
    paths: list[tuple[Any, ...]] = []

    def walk(node: Any, path: tuple[Any, ...]) -> None:
        paths.append(path)
        if isinstance(node, dict):
            for name, inner in node.items():
                walk(inner, (*path, name))
        elif isinstance(node, list):
            for index, inner in enumerate(node):
                walk(inner, (*path, index))

    walk(value, ())

    def put(node: Any, path: tuple[Any, ...], other: Any) -> Any:
        if not path:
            return other
        if isinstance(node, dict):
            return {k: put(v, path[1:], other) if k == path[0] else v for k, v in node.items()}
        return [put(v, path[1:], other) if i == path[0] else v for i, v in enumerate(node)]

    others = st.sampled_from(
        [None, True, -1, 10**30, 1.5, "", "\x00", "☃" * 300, [], {}, [[]], {"a": {}}]
    )
    return st.builds(lambda path, other: put(value, path, other), st.sampled_from(paths), others)


JSON_PAIRS = [
    path
    for path in PAIRS
    if isinstance(json.loads(path.read_text("utf-8")).get("body"), (dict, list))
]


@pytest.mark.parametrize("path", JSON_PAIRS, ids=lambda path: f"{path.parent.name}/{path.stem}")
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_recorded_delivery_with_a_wrong_value_is_read_or_refused(
    path: Path, data: st.DataObject
) -> None:
    asked = json.loads(path.read_text("utf-8"))
    changed = data.draw(_mutations(asked["body"]))
    headers = {name.lower(): value for name, value in asked.get("headers", {}).items()}
    made = read(asked["channel"], json.dumps(changed).encode(), headers)
    assert isinstance(made, (Parsed, ParseError))
    if isinstance(made, Parsed):
        for message in made.messages:
            encoded = message.__pydantic_serializer__.to_json(message)
            assert b"\\u0000" not in encoded


@pytest.mark.parametrize("channel", sorted(adapters.CHANNELS))
def test_no_words_of_a_customer_stand_in_an_error(
    channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for body in (
            json.dumps({"text": CANARY, "message": CANARY, "entry": CANARY}).encode(),
            json.dumps([CANARY]).encode(),
            CANARY.encode(),
        ):
            made = read(channel, body)
            if isinstance(made, ParseError):
                assert CANARY not in str(made)
    assert CANARY not in caplog.text


def test_each_channel_has_its_page() -> None:
    docs = Path(__file__).parents[2] / "docs" / "channels"
    own = {"message", "event", "form"}
    missing = [
        name for name in adapters.CHANNELS if name not in own and not (docs / f"{name}.md").exists()
    ]
    assert missing == []
