"""Vendors' webhooks at the gateway: proof first, durable before 2xx, each vendor's own answer, and nothing told to strangers."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis import policy
from schemas.inbound import InboundReceived
from schemas.messages import Sender
from schemas.registry import REGISTRY
from services.ingest import adapters, api, webhooks
from services.ingest.adapters import signing
from services.ingest.adapters.accounts import PublishedKeys
from services.ingest.adapters.channel import (
    Answer,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Request,
    SecretReference,
    Verdict,
    delivery_of,
)
from services.ingest.adapters.reading import Struct, content, json_as
from services.ingest.core.pace import Pace
from services.ingest.handlers import POLICY
from tests.contract.test_gateway_api import Fixed, MemorySpool, assert_problem

SECRET = b"a-signing-secret"
CANARY = "canary-in-the-address"
CHANNELS = """
channels:
  signed: {channel: lantern, secret: 'env:SIGNED', name: Lantern}
  unset: {channel: lantern, secret: 'env:NOWHERE'}
  shown: {channel: beacon, secret: 'env:SHOWN'}
  keyed: {channel: keyed}
"""


class LanternSettings(ChannelSettings):
    """A vendor of these tests. `name` is what it calls us, `verify_token` what its challenge shows."""

    name: str = ""
    verify_token: SecretReference | None = None


class Message(Struct):
    """A message of the vendor's."""

    id: str
    sender: str
    text: str


class Body(Struct):
    """What the vendor posts."""

    messages: list[Message]
    token: str = ""


def parse(delivery: Delivery) -> Parsed:
    body = json_as(delivery.body, Body)
    if body.token:
        raise ParseError("invalid_field", "token: should have been taken out", "token")
    return Parsed(
        tuple(
            content(delivery, one.id, Sender(address=one.sender, kind="vendor_id"), one.text)
            for one in body.messages
        ),
        verified=delivery.verified,
    )


def verify(request: Request, secrets: Any, now: Any) -> Verdict:
    del now
    if request.method == "GET":
        return signing.handshake(Answer(200, {}, request.query.get("challenge", "")))
    if "explode" in request.headers:
        raise RuntimeError("a mistake of ours")
    return signing.by_body_hmac(
        request, secrets, "x-lantern-signature", name=request.headers.get("x-id")
    )


def verify_keyed(request: Request, secrets: Any, now: Any) -> Verdict:
    del now
    known = json.loads(secrets["jwks"])["keys"]
    given = request.headers.get("x-key", "")
    return signing.proved() if given in known else signing.refused("unknown_key")


def scrub(body: bytes) -> bytes:
    whole = json.loads(body)
    whole.pop("token", None)
    return json.dumps(whole).encode()


LANTERN = Channel(
    name="lantern",
    parse=parse,
    settings=LanternSettings,
    verify=verify,
    scrub=scrub,
    headers_kept=frozenset({"x-lantern-event"}),
    unavailable=Answer(409),
    capability=Capability(proof="HMAC"),
)
BEACON = Channel(
    name="beacon",
    parse=parse,
    verify=lambda request, secrets, _: signing.by_token(request, secrets),
    capability=Capability(proof="token"),
)
KEYED = Channel(
    name="keyed", parse=parse, verify=verify_keyed, keys_url=lambda _: "https://vendor.example/keys"
)


class Known:
    """Secrets by reference."""

    def get(self, reference: str) -> bytes | None:
        return {"env:SIGNED": SECRET, "env:SHOWN": CANARY.encode()}.get(reference)


@pytest.fixture
def spool() -> MemorySpool:
    return MemorySpool()


@pytest.fixture
def served() -> list[list[str]]:
    """The keys that the vendor publishes, look by look; the last stands."""
    return [["k1"], ["k1", "k2"]]


@pytest.fixture
async def http(
    spool: MemorySpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, served: list[list[str]]
) -> AsyncIterator[httpx.AsyncClient]:
    for channel in (LANTERN, BEACON, KEYED):
        monkeypatch.setitem(adapters.CHANNELS, channel.name, channel)
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    holder = policy.PolicyHolder(tmp_path, POLICY)

    def vendor(request: httpx.Request) -> httpx.Response:
        del request
        return httpx.Response(200, json={"keys": served[0] if len(served) == 1 else served.pop(0)})

    app = api.create_app(api.Deps(spool, holder, Fixed(), Known()))
    webhooks.mount(
        app,
        webhooks.Webhooks(
            spool=spool,
            policies=holder,
            clock=Fixed(),
            secrets=Known(),
            keys=PublishedKeys(
                lambda: httpx.AsyncClient(transport=httpx.MockTransport(vendor)), again_seconds=0.0
            ),
            workspace="default",
            body_bytes_max=4_096,
            body_seconds=0.5,
            public_url="https://in.example.com",
            per_account=Pace(1_000),
            per_address=Pace(1_000),
        ),
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://inside:8080") as client:
        yield client


BODY = {"messages": [{"id": "m-1", "sender": "u-1", "text": "Where is my lamp?"}]}


def signed(body: Any = None, **headers: str) -> dict[str, Any]:
    raw = json.dumps(BODY if body is None else body).encode()
    return {
        "content": raw,
        "headers": {
            "content-type": "application/json",
            "x-lantern-signature": signing.hex_hmac(SECRET, raw),
            **headers,
        },
    }


SIGNED = "/v1/channels/lantern/signed"


async def test_a_signed_delivery_is_stored_with_its_bytes_and_answered_as_the_vendor_wants(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    response = await http.post(SIGNED, **signed(**{"x-lantern-event": "message"}))
    assert (response.status_code, response.text) == (200, "")
    event = spool.event
    assert (event.channel, event.account, event.verified) == ("lantern", "signed", True)
    assert json.loads(base64.b64decode(event.body_base64)) == BODY
    assert event.headers["x-lantern-event"] == "message"
    assert spool.only.key == "lantern/signed/u-1"


async def test_what_is_refused_stores_nothing_and_tells_nothing(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    good = signed()
    for path, sent, status in (
        ("/v1/channels/lantern/nobody", good, 404),
        ("/v1/channels/unknown/signed", good, 404),
        ("/v1/channels/beacon/signed", good, 404),
        (SIGNED, good | {"content": good["content"] + b" "}, 401),
        (SIGNED, good | {"headers": {"content-type": "application/json"}}, 401),
        (SIGNED, good | {"headers": good["headers"] | {"x-lantern-signature": "é".encode()}}, 401),
        ("/v1/channels/lantern/unset", good, 401),
        (SIGNED, good | {"headers": good["headers"] | {"explode": "1"}}, 400),
        (SIGNED, good | {"content": b"x" * 5_000}, 413),
        (SIGNED, good | {"headers": good["headers"] | {"content-type": "text/xml"}}, 415),
    ):
        response = await http.post(path, **sent)
        assert response.status_code == status, (path, response.text)
    assert spool.items == []
    nobody = await http.post("/v1/channels/lantern/nobody", **good)
    unknown = await http.post("/v1/channels/unknown/signed", **good)
    assert nobody.json() == unknown.json()


async def test_what_cannot_be_read_is_422_and_names_the_field(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    response = await http.post(SIGNED, **signed({"messages": [{"id": "m", "text": CANARY}]}))
    problem = assert_problem(response, 422)
    assert "messages" in problem["field"]
    assert CANARY not in response.text
    assert spool.items == []


async def test_a_challenge_is_answered_and_nothing_is_stored(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    response = await http.get(SIGNED, params={"challenge": "42"})
    assert (response.status_code, response.text, spool.items) == (200, "42", [])


async def test_a_token_in_the_address_or_the_body_goes_no_further_than_the_proof(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    body = BODY | {"token": CANARY}
    assert (await http.post(f"/v1/channels/beacon/shown/{CANARY}", json=BODY)).status_code == 200
    assert (await http.post("/v1/channels/beacon/shown/wrong", json=BODY)).status_code == 401
    assert (await http.post(SIGNED, **signed(body))).status_code == 200
    shown, scrubbed = spool.items
    for item in (shown, scrubbed):
        assert CANARY.encode() not in item.value
        assert CANARY not in base64.b64decode(json.loads(item.value)["body_base64"]).decode()
    assert json.loads(shown.value)["verified"] is False


async def test_a_delivery_that_its_vendor_names_is_stored_once(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    for _ in range(3):
        assert (await http.post(SIGNED, **signed(**{"x-id": "d-1"}))).status_code == 200
    assert len(spool.items) == 1
    await http.post(SIGNED, **signed(BODY | {"more": 1}, **{"x-id": "d-1"}))
    assert len(spool.items) == 2, "another body under the same name is another input"


async def test_a_database_that_is_away_is_told_in_the_vendors_own_code(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    spool.is_away = True
    assert (await http.post(SIGNED, **signed())).status_code == 409
    away = await http.post(f"/v1/channels/beacon/shown/{CANARY}", json=BODY)
    assert (away.status_code, away.headers["retry-after"]) == (503, "5")


async def test_a_header_of_ours_from_outside_is_not_believed(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    await http.post(SIGNED, **signed(**{"x-signalbox-fetched": "message"}))
    assert "x-signalbox-fetched" not in spool.event.headers


async def test_a_key_published_since_the_last_look_is_looked_up_once_more(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    keyed = "/v1/channels/keyed/keyed"
    for key, status in (("k1", 200), ("k2", 200), ("k3", 401)):
        response = await http.post(keyed, json=BODY, headers={"x-key": key})
        assert response.status_code == status, key
    assert len(spool.items) == 2


def test_a_setting_that_the_channel_does_not_take_is_refused_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(adapters.CHANNELS, "lantern", LANTERN)
    for text, path in (
        ("channels: {a: {channel: lantern, nmae: x}}", "channels.a.nmae"),
        ("channels: {a: {channel: nowhere}}", "channels.a.channel"),
        ("channels: {a: {channel: lantern, secret: plain}}", "channels.a.secret"),
    ):
        (tmp_path / "channels.yaml").write_text(text, encoding="utf-8")
        with pytest.raises(Exception, match=path):
            policy.PolicyHolder(tmp_path, POLICY)


async def test_an_update_that_cannot_be_read_among_others_is_an_input_of_its_own_to_be_parked(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    good, bad = b'{"id": "m-1"}', b'{"id": 7, "text": []}'

    def parse_part(delivery: Delivery) -> Parsed:
        sender = Sender(address="u-1", kind="vendor_id")
        return Parsed((content(delivery, "m-1", sender, "Hello"),), unread=(("why", bad),))

    adapters.CHANNELS["lantern"] = replace(LANTERN, parse=parse_part, scrub=lambda body: body)
    assert (await http.post(SIGNED, **signed(json.loads(good)))).status_code == 200
    whole, part = spool.items
    event = REGISTRY[part.envelope.type].model_validate_json(part.value)
    assert isinstance(event, InboundReceived)
    assert base64.b64decode(event.body_base64) == bad
    assert part.envelope.correlationid == whole.envelope.id
    with pytest.raises(ParseError, match="unreadable_part"):
        adapters.parse(delivery_of(event))
