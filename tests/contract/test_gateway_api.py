"""The gateway's HTTP contract: what is accepted is stored first, and each refusal says what is wrong and where."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from chassis import policy
from chassis.errors import Unavailable
from chassis.spool import PutResult, SpoolItem
from schemas.inbound import InboundReceived
from schemas.registry import REGISTRY
from services.ingest import api
from services.ingest.adapters import event as foreign
from services.ingest.adapters import standard_webhooks
from services.ingest.adapters.channel import delivery_of
from services.ingest.core.policy import Channels, ChannelsFile
from services.ingest.core.state import Parsed, ParseError
from services.ingest.handlers import POLICY, read_delivery

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
STAMP = int(NOW.timestamp())
WHSEC = "whsec_" + base64.b64encode(b"a secret of the shop's own").decode()
SECRETS = {
    "env:AGENTS": b"agents-key",
    "env:ROSTER": b"roster-key",
    "env:NOTICES": b"notices-key",
    "env:SYSTEMS": "schlüssel".encode(),
    "env:SHOP": WHSEC.encode(),
    "env:OLD": WHSEC.encode()[:-8] + b"AAAA",
}
CHANNELS = """
mail: {support: {addresses: [support@lantern-oak.example]}}
forms:
  contact: {}
  site: {origins: ['https://lantern-oak.example'], secrets: ['env:SHOP']}
messages: {sales: {channel: kiosk}}
events: {shop: {secrets: ['env:OLD', 'env:SHOP']}}
api_keys:
  - {name: gone, secret: 'env:GONE', scopes: [agents]}
  - {name: console, secret: 'env:AGENTS', scopes: [agents]}
  - {name: admin, secret: 'env:ROSTER', scopes: [roster]}
  - {name: status, secret: 'env:NOTICES', scopes: [notices]}
  - {name: systems, secret: 'env:SYSTEMS', scopes: [messages, events]}
"""
EMPTY = Channels("v1", ChannelsFile())
FORM = {"email": "ada@example.com", "message": "Where is my lamp?"}
MESSAGE = {
    "channel": "kiosk",
    "account": "sales",
    "id": "17",
    "sender": {"address": "ada@example.com"},
    "text": "Hello",
}
TICKET = "/v1/conversations/c-1/tickets/t-1"
AGENTS = {"Authorization": "Bearer agents-key"}
ROSTER = {"Authorization": "Bearer roster-key"}
NOTICES = {"Authorization": "Bearer notices-key"}
SYSTEMS = {"Authorization": b"Bearer " + SECRETS["env:SYSTEMS"]}


@dataclass
class MemorySpool:
    """The spool's promises in memory: durable when `put` returns, one answer for a name and its body."""

    items: list[SpoolItem] = field(default_factory=list)
    answers: dict[str, tuple[str, str]] = field(default_factory=dict)
    is_away: bool = False

    async def put(self, item: SpoolItem) -> PutResult:
        await asyncio.sleep(0)
        if self.is_away:
            raise Unavailable("the database", retry_after=2.5)
        if item.idempotency is not None:
            name, digest = item.idempotency
            known = self.answers.setdefault(name, (digest, item.answer))
            if known[0] != digest:
                return PutResult(stored=False, conflicting=True)
            if known[1] != item.answer or any(
                one.idempotency == item.idempotency for one in self.items
            ):
                return PutResult(stored=False, repeated=True, answer=known[1])
        self.items.append(item)
        return PutResult(stored=True, answer=item.answer)

    @property
    def only(self) -> SpoolItem:
        (item,) = self.items
        return item

    @property
    def event(self) -> Any:
        return REGISTRY[self.only.envelope.type].model_validate_json(self.only.value)


class Fixed:
    """A clock that stands still until it is put on."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        return NOW + self.passed


class Known:
    """Secrets by reference."""

    def get(self, reference: str) -> bytes | None:
        return SECRETS.get(reference)


@pytest.fixture
def spool() -> MemorySpool:
    return MemorySpool()


@pytest.fixture
def clock() -> Fixed:
    return Fixed()


@pytest.fixture
async def http(
    spool: MemorySpool, clock: Fixed, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    holder = policy.PolicyHolder(tmp_path, POLICY)
    deps = api.Deps(
        spool=spool,
        policies=holder,
        clock=clock,
        secrets=Known(),
        body_bytes_max=4_096,
        body_seconds=0.2,
    )
    transport = httpx.ASGITransport(api.create_app(deps), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.example") as client:
        yield client


def assert_problem(
    response: httpx.Response, status: int, field: str | None = None
) -> dict[str, Any]:
    body: dict[str, Any] = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= set(body)
    assert body["status"] == status
    if field is not None:
        assert body["field"] == field, body
    return body


# ------------------------------------------------------------------------------------------- forms


async def test_a_form_is_stored_with_its_bytes_before_it_is_answered(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    response = await http.post("/v1/forms/contact", json=FORM)
    assert response.status_code == 202
    event, envelope = spool.event, spool.only.envelope
    assert isinstance(event, InboundReceived)
    assert response.json() == {"id": event.input_id}
    assert json.loads(delivery_of(event).body) == FORM
    assert (event.channel, event.account, event.verified, event.received_at) == (
        "form",
        "contact",
        False,
        NOW,
    )
    assert (envelope.source, envelope.id, envelope.partitionkey) == (
        "signalbox/ingest.gateway",
        event.input_id,
        "form/contact/ada@example.com",
    )
    assert spool.only.key == envelope.partitionkey
    assert "authorization" not in event.headers


async def test_a_browsers_form_is_taken_too(http: httpx.AsyncClient, spool: MemorySpool) -> None:
    response = await http.post("/v1/forms/contact", data={**FORM, "button": "send"})
    assert response.status_code == 202
    assert spool.event.headers["content-type"] == "application/x-www-form-urlencoded"


async def test_two_forms_without_a_key_are_two_inputs(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    answers = [(await http.post("/v1/forms/contact", json=FORM)).json()["id"] for _ in range(2)]
    assert len(set(answers)) == len(spool.items) == 2


@pytest.mark.parametrize(
    ("path", "kwargs", "status", "named"),
    [
        ("/v1/forms/nothing", {"json": FORM}, 404, "key"),
        (
            "/v1/forms/contact",
            {"content": b"x", "headers": {"Content-Type": "text/plain"}},
            415,
            "Content-Type",
        ),
        ("/v1/forms/contact", {"content": b"x"}, 415, "Content-Type"),
        (
            "/v1/forms/contact",
            {"content": b"{", "headers": {"Content-Type": "application/json"}},
            422,
            "body",
        ),
        ("/v1/forms/contact", {"json": {**FORM, "email": "nobody"}}, 422, "email"),
        ("/v1/forms/contact", {"json": {**FORM, "message": ""}}, 422, "message"),
        ("/v1/forms/contact", {"json": {"email": "a@b.example"}}, 422, "message"),
        ("/v1/forms/contact", {"json": {**FORM, "priority": 1}}, 422, "priority"),
        ("/v1/forms/contact", {"json": {**FORM, "message": "x" * 5_000}}, 413, "body"),
        (
            "/v1/forms/contact",
            {"content": b'{"a":' * 700, "headers": {"Content-Type": "application/json"}},
            422,
            "body",
        ),
        (
            "/v1/forms/contact",
            {"content": b"9" * 4_000, "headers": {"Content-Type": "application/json"}},
            422,
            "body",
        ),
        (
            "/v1/forms/contact",
            {"json": FORM, "headers": {"Idempotency-Key": ""}},
            422,
            "Idempotency-Key",
        ),
        (
            "/v1/forms/contact",
            {"json": FORM, "headers": {"Idempotency-Key": "x" * 201}},
            422,
            "Idempotency-Key",
        ),
        (
            "/v1/forms/contact",
            {"json": FORM, "headers": {"Idempotency-Key": "ключ".encode()}},
            422,
            "Idempotency-Key",
        ),
        (
            "/v1/forms/site",
            {"json": FORM, "headers": {"Origin": "https://evil.example"}},
            403,
            "Origin",
        ),
        ("/v1/nowhere", {"json": FORM}, 404, None),
    ],
)
async def test_a_refusal_is_a_problem_that_names_the_field_and_stores_nothing(
    http: httpx.AsyncClient,
    spool: MemorySpool,
    path: str,
    kwargs: dict[str, Any],
    status: int,
    named: str | None,
) -> None:
    assert_problem(await http.post(path, **kwargs), status, named)
    assert spool.items == []


async def test_a_body_without_a_length_is_refused_where_it_passes_the_limit(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 1_000

    headers = {"Content-Type": "application/json"}
    assert_problem(
        await http.post("/v1/forms/contact", content=endless(), headers=headers), 413, "body"
    )
    assert spool.items == []


async def test_a_body_at_the_limit_is_taken(http: httpx.AsyncClient) -> None:
    empty = len(json.dumps({**FORM, "message": ""}).encode())
    for size, status in ((4_096, 202), (4_097, 413)):
        body = json.dumps({**FORM, "message": "x" * (size - empty)}).encode()
        assert len(body) == size
        response = await http.post(
            "/v1/forms/contact", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == status


async def test_a_sender_that_never_finishes_is_told_408(spool: MemorySpool, tmp_path: Path) -> None:
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    deps = api.Deps(
        spool, policy.PolicyHolder(tmp_path, POLICY), Fixed(), Known(), body_seconds=0.05
    )
    app = api.create_app(deps)
    sent: list[Any] = []
    never = asyncio.Event()

    async def receive() -> Any:
        await never.wait()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/forms/contact", "raw_path": b"", "query_string": b"",
        "headers": [(b"content-type", b"application/json")], "http_version": "1.1", "scheme": "http",
        "server": ("x", 1), "client": ("y", 2), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["status"] == 408


async def test_a_site_that_may_send_the_form_is_told_so(http: httpx.AsyncClient) -> None:
    origin = {"Origin": "https://lantern-oak.example"}
    asked = await http.options("/v1/forms/site", headers=origin)
    assert asked.headers["access-control-allow-origin"] == origin["Origin"]
    sent = await http.post("/v1/forms/site", json=FORM, headers=origin)
    assert (sent.status_code, sent.headers["access-control-allow-origin"]) == (
        202,
        origin["Origin"],
    )
    assert (
        "access-control-allow-origin"
        not in (
            await http.options("/v1/forms/site", headers={"Origin": "https://evil.example"})
        ).headers
    )


async def test_a_form_without_a_list_of_sites_may_be_read_from_any(http: httpx.AsyncClient) -> None:
    origin = {"Origin": "https://somewhere.example"}
    asked = await http.options("/v1/forms/contact", headers=origin)
    assert asked.headers["access-control-allow-origin"] == "*"
    assert asked.headers["access-control-allow-methods"] == "POST"
    sent = await http.post("/v1/forms/contact", json=FORM, headers=origin)
    assert sent.headers["access-control-allow-origin"] == "*"


async def test_every_answer_to_a_form_can_be_read_by_the_page_that_sent_it(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    origin = {"Origin": "https://lantern-oak.example"}
    for path, allowed in (("/v1/forms/site", origin["Origin"]), ("/v1/forms/contact", "*")):
        answers = [
            await http.post(path, json={**FORM, "email": "nobody"}, headers=origin),
            await http.post(path, content=b"x", headers=origin),
            await http.post(path, json={**FORM, "message": "x" * 5_000}, headers=origin),
            await http.get(path, headers=origin),
        ]
        spool.is_away = True
        answers.append(await http.post(path, json=FORM, headers=origin))
        spool.is_away = False
        assert [answer.status_code for answer in answers] == [422, 415, 413, 405, 503]
        assert {answer.headers["access-control-allow-origin"] for answer in answers} == {allowed}
    evil = await http.post("/v1/forms/site", json=FORM, headers={"Origin": "https://evil.example"})
    assert evil.status_code == 403
    assert "access-control-allow-origin" not in evil.headers
    other = await http.post("/v1/messages", json=MESSAGE, headers=SYSTEMS | origin)
    assert "access-control-allow-origin" not in other.headers


# ------------------------------------------------------------------------------------- how often


async def test_a_form_is_taken_120_times_a_minute_from_one_address(
    http: httpx.AsyncClient, spool: MemorySpool, clock: Fixed
) -> None:
    for _ in range(120):
        assert (await http.post("/v1/forms/contact", json=FORM)).status_code == 202
    refused = await http.post(
        "/v1/forms/contact", json=FORM, headers={"Origin": "https://x.example"}
    )
    assert_problem(refused, 429)
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["access-control-allow-origin"] == "*"
    assert len(spool.items) == 120
    # Another form, and another key's message, are counted by themselves.
    assert (await http.post("/v1/forms/site", json=FORM)).status_code == 202
    assert (await http.post("/v1/messages", json=MESSAGE, headers=SYSTEMS)).status_code == 202
    clock.passed = timedelta(seconds=0.5)
    assert (await http.post("/v1/forms/contact", json=FORM)).status_code == 202
    assert_problem(await http.post("/v1/forms/contact", json=FORM), 429)


async def test_posts_that_the_forms_own_server_signed_are_not_held(http: httpx.AsyncClient) -> None:
    body = json.dumps(FORM).encode()
    for number in range(130):
        headers = signed(body, webhook_id=f"w{number}") | {"Content-Type": "application/json"}
        assert (await http.post("/v1/forms/site", content=body, headers=headers)).status_code == 202


async def test_an_address_that_fails_sixty_times_a_minute_is_told_to_wait(
    http: httpx.AsyncClient, spool: MemorySpool, clock: Fixed
) -> None:
    for number in range(59):
        wrong = {"Authorization": f"Bearer guess-{number}"}
        assert_problem(await http.post("/v1/messages", json=MESSAGE, headers=wrong), 401)
    body = json.dumps(FORM).encode()
    forged = signed(body, SECRETS["env:OLD"]) | {"Content-Type": "application/json"}
    assert_problem(await http.post("/v1/forms/site", content=body, headers=forged), 401)
    for headers in ({"Authorization": "Bearer guess"}, SYSTEMS):
        refused = await http.post("/v1/messages", json=MESSAGE, headers=headers)
        assert_problem(refused, 429)
        assert refused.headers["retry-after"] == "1"
    assert spool.items == []
    assert (await http.post("/v1/forms/contact", json=FORM)).status_code == 202
    clock.passed = timedelta(seconds=1)
    assert (await http.post("/v1/messages", json=MESSAGE, headers=SYSTEMS)).status_code == 202


# ------------------------------------------------------------------------------------- idempotency


async def test_the_same_key_and_body_get_the_first_answer_and_are_stored_once(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    headers = {"Idempotency-Key": "7f9c"}
    first = await http.post("/v1/forms/contact", json=FORM, headers=headers)
    again = await http.post("/v1/forms/contact", json=FORM, headers=headers)
    assert first.json() == again.json()
    assert (again.status_code, again.headers["idempotent-replayed"]) == (202, "true")
    assert "idempotent-replayed" not in first.headers
    assert len(spool.items) == 1


async def test_eight_at_once_under_one_key_are_one(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    posts = [
        http.post("/v1/forms/contact", json=FORM, headers={"Idempotency-Key": "k"})
        for _ in range(8)
    ]
    answers = await asyncio.gather(*posts)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == len(spool.items) == 1


async def test_the_same_key_with_another_body_is_refused_and_changes_nothing(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    headers = {"Idempotency-Key": "7f9c"}
    await http.post("/v1/forms/contact", json=FORM, headers=headers)
    other = await http.post("/v1/forms/contact", json={**FORM, "message": "Other"}, headers=headers)
    assert_problem(other, 422, "Idempotency-Key")
    assert len(spool.items) == 1


async def test_a_key_counts_within_its_form_only(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    for form in ("contact", "site"):
        assert (
            await http.post(f"/v1/forms/{form}", json=FORM, headers={"Idempotency-Key": "k"})
        ).status_code == 202
    assert len(spool.items) == 2


async def test_a_database_that_is_away_is_503_with_a_time_to_come_back(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    spool.is_away = True
    response = await http.post("/v1/forms/contact", json=FORM)
    assert_problem(response, 503)
    assert response.headers["retry-after"] == "3"


# -------------------------------------------------------------------------------------------- keys


ROUTES = [
    ("POST", "/v1/messages", SYSTEMS),
    ("POST", "/v1/events", SYSTEMS),
    ("GET", TICKET, AGENTS),
    *(
        ("POST", f"{TICKET}/{action}", AGENTS)
        for action in ("reply", "note", "solve", "escalate", "reassign", "tag")
    ),
    ("POST", "/v1/agents/ada/presence", AGENTS),
    ("POST", "/v1/agents/ada/heartbeat", AGENTS),
    ("POST", "/v1/notices", NOTICES),
    ("PUT", "/v1/agents/ada", ROSTER),
    ("DELETE", "/v1/agents/ada", ROSTER),
    ("POST", "/v1/offers/r-1/accept", AGENTS),
    ("POST", "/v1/offers/r-1/decline", AGENTS),
]


@pytest.mark.parametrize(("method", "path", "right"), ROUTES)
async def test_every_route_but_forms_asks_for_a_key_with_its_scope(
    http: httpx.AsyncClient, spool: MemorySpool, method: str, path: str, right: dict[str, Any]
) -> None:
    wrong: list[Any] = [
        {}, {"Authorization": "Bearer nope"}, {"Authorization": "Bearer "}, {"Authorization": "Basic agents-key"},
        {"Authorization": b"Bearer \xff\xfe\xe2"}, {"Authorization": "Bearer agents-keyx"}, {"Authorization": b"Bearer \x00"},
    ]  # fmt: skip
    for headers in wrong:
        response = await http.request(method, path, json={}, headers=headers)
        assert_problem(response, 401, "Authorization")
        assert response.headers["www-authenticate"] == "Bearer"
    for other in (AGENTS, ROSTER, NOTICES, SYSTEMS):
        if other is not right:
            response = await http.request(method, path, json={}, headers=other)
            assert_problem(response, 403, "Authorization")
    assert spool.items == []


def test_every_route_is_known_to_the_test_of_keys(spool: MemorySpool, tmp_path: Path) -> None:
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    app = api.create_app(api.Deps(spool, policy.PolicyHolder(tmp_path, POLICY), Fixed(), Known()))
    declared = {
        (method, path)
        for path, methods in app.added.items()
        for method in methods
        if method != "OPTIONS"
    } - {("POST", "/v1/forms/{key}")}
    assert declared == {
        ("POST", "/v1/messages"),
        ("POST", "/v1/events"),
        ("GET", "/v1/conversations/{conversation_id}/tickets/{ticket_id}"),
        ("POST", "/v1/conversations/{conversation_id}/tickets/{ticket_id}/{action}"),
        ("POST", "/v1/notices"),
        ("POST", "/v1/agents/{agent_id}/presence"),
        ("POST", "/v1/agents/{agent_id}/heartbeat"),
        ("PUT", "/v1/agents/{agent_id}"),
        ("DELETE", "/v1/agents/{agent_id}"),
        ("POST", "/v1/offers/{reservation_id}/{answer}"),
    }


# ------------------------------------------------------------------------------- messages and events


async def test_a_generic_message_is_keyed_by_its_sender_and_verified_by_its_key(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    response = await http.post("/v1/messages", json=MESSAGE, headers=SYSTEMS)
    assert response.status_code == 202
    assert (spool.event.channel, spool.event.account, spool.event.verified) == (
        "kiosk",
        "sales",
        True,
    )
    assert spool.only.key == "kiosk/sales/ada@example.com"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"account": "none"}, "account"),
        ({"channel": "email"}, "account"),
        ({"sender": {"address": "x"}}, "sender.kind"),
        ({"text": ""}, "text"),
    ],
)
async def test_a_wrong_generic_message_is_refused(
    http: httpx.AsyncClient, spool: MemorySpool, changes: dict[str, Any], named: str
) -> None:
    assert_problem(
        await http.post("/v1/messages", json=MESSAGE | changes, headers=SYSTEMS), 422, named
    )
    assert spool.items == []


CE = {
    "Content-Type": "application/json", "ce-specversion": "1.0", "ce-type": "message.submitted.v1",
    "ce-source": "/shop", "ce-id": "e-1",
}  # fmt: skip
DATA = {"sender": {"address": "ada@example.com"}, "text": "Where is my order?"}


async def test_an_event_is_taken_in_both_modes(http: httpx.AsyncClient, spool: MemorySpool) -> None:
    binary = await http.post("/v1/events", content=json.dumps(DATA), headers=CE | SYSTEMS)
    whole = {name[3:]: value for name, value in CE.items() if name.startswith("ce-")} | {
        "data": DATA
    }
    structured = await http.post(
        "/v1/events",
        content=json.dumps(whole),
        headers={"Content-Type": "application/cloudevents+json"} | SYSTEMS,
    )
    assert (binary.status_code, structured.status_code) == (202, 202)
    assert {item.key for item in spool.items} == {"event/systems/ada@example.com"}


@pytest.mark.parametrize(
    ("sent", "means"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("Euro%20%e2%82%ac", "Euro €"),
        ("T%C3%BCr%20100%25%20%22offen%22", 'Tür 100% "offen"'),
        (r'"a \"b\" %25"', 'a "b" %'),
        ("%2525", "%25"),
    ],
)
def test_an_attribute_in_a_header_is_decoded_once(sent: str, means: str) -> None:
    assert foreign.header_value("ce-subject", sent) == means


@pytest.mark.parametrize("sent", ["%C0%A0", "%ff", "\udcff"])
async def test_an_attribute_that_is_not_utf_8_is_refused(sent: str) -> None:
    with pytest.raises(ParseError, match="is not UTF-8"):
        foreign.header_value("ce-subject", sent)


def batch(*events: dict[str, Any]) -> str:
    shared = {name[3:]: value for name, value in CE.items() if name.startswith("ce-")}
    return json.dumps([shared | {"data": DATA} | event for event in events])


BATCH = {"Content-Type": "application/cloudevents-batch+json"} | SYSTEMS


async def test_a_batch_of_events_is_many_inputs_answered_as_a_whole(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    response = await http.post(
        "/v1/events", content=batch({"id": "e-1"}, {"id": "e-2"}), headers=BATCH
    )
    assert response.status_code == 202
    assert response.json() == {"ids": [item.answer for item in spool.items]}
    read = [
        read_delivery(REGISTRY[item.envelope.type].model_validate_json(item.value), None, EMPTY)
        for item in spool.items
    ]
    ids = [one.messages[0].vendor_message_id for one in read if isinstance(one, Parsed)]
    assert len(set(ids)) == 2


async def test_a_batch_with_one_wrong_event_stores_none_and_names_it(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    response = await http.post(
        "/v1/events", content=batch({"id": "e-1"}, {"data": {"text": "x"}}), headers=BATCH
    )
    assert assert_problem(response, 422)["field"].startswith("1.")
    assert spool.items == []


async def test_a_batch_sent_again_under_its_key_is_stored_once(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    headers = BATCH | {"Idempotency-Key": "b-1"}
    body = batch({"id": "e-1"}, {"id": "e-2"})
    first = await http.post("/v1/events", content=body, headers=headers)
    again = await http.post("/v1/events", content=body, headers=headers)
    assert (first.json(), len(spool.items)) == (again.json(), 2)


async def test_a_sender_of_events_that_can_set_no_header_shows_its_key_in_the_address(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    key = {"access_token": SECRETS["env:SYSTEMS"].decode()}
    response = await http.post("/v1/events", content=json.dumps(DATA), headers=CE, params=key)
    assert response.status_code == 202
    assert b"schl" not in spool.only.value
    refused = await http.post("/v1/messages", json=MESSAGE, params=key)
    assert refused.status_code == 401


async def test_a_sender_of_events_is_granted_its_origin_and_told_its_rate(
    http: httpx.AsyncClient,
) -> None:
    asked = {"WebHook-Request-Origin": "events.example.com", "WebHook-Request-Rate": "120"}
    granted = await http.options("/v1/events", headers=asked)
    assert granted.status_code == 200
    assert granted.headers["webhook-allowed-origin"] == "events.example.com"
    assert granted.headers["webhook-allowed-rate"] == "6000"
    assert granted.headers["allow"] == "POST"
    assert_problem(await http.options("/v1/events"), 403, "WebHook-Request-Origin")


async def test_an_event_of_another_type_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(
        "/v1/events", content=json.dumps(DATA), headers=CE | {"ce-type": "other"} | SYSTEMS
    )
    assert_problem(response, 422, "type")


def signed(
    body: bytes, secret: bytes = WHSEC.encode(), stamp: int = STAMP, webhook_id: str = "msg_1"
) -> dict[str, Any]:
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": standard_webhooks.sign(secret, webhook_id, stamp, body),
    }


def test_a_signature_matches_the_specifications_arithmetic() -> None:
    secret = b"whsec_b21uaXRpY2stZ2VuZXJpYy1mb3JtLXNlY3JldA=="
    body = b'{"type":"ticket.submitted","data":{"email":"ada@example.com","message":"hi"}}'
    signature = standard_webhooks.sign(secret, "msg_01JD0000000000000000000000", 1763630100, body)
    assert signature == "v1,qCBXdJWPR5f0SlI2sccQOZOfvHsVHJn5P9xdyXEOUvU="


async def test_a_signed_event_needs_no_key_and_its_id_is_its_name(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    body = json.dumps(DATA).encode()
    first = await http.post("/v1/events", content=body, headers=CE | signed(body))
    again = await http.post("/v1/events", content=body, headers=CE | signed(body, stamp=STAMP + 60))
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert spool.event.account == "shop"


@pytest.mark.parametrize("offset", [-300, 300])
async def test_a_signature_five_minutes_away_is_still_good(
    http: httpx.AsyncClient, offset: int
) -> None:
    body = json.dumps(DATA).encode()
    assert (
        await http.post("/v1/events", content=body, headers=CE | signed(body, stamp=STAMP + offset))
    ).status_code == 202


async def test_of_several_signatures_one_has_to_be_right(http: httpx.AsyncClient) -> None:
    body = json.dumps(DATA).encode()
    headers = signed(body)
    headers["webhook-signature"] = "v1,AAAA v2,BBBB " + headers["webhook-signature"]
    assert (await http.post("/v1/events", content=body, headers=CE | headers)).status_code == 202


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"webhook-signature": "v1,AAAA"}, "webhook-signature"),
        ({"webhook-signature": ""}, "webhook-signature"),
        ({"webhook-signature": b"v1,\xff\xfe"}, "webhook-signature"),
        ({"webhook-id": "msg_2"}, "webhook-signature"),
        ({"webhook-id": ""}, "webhook-id"),
        ({"webhook-id": b"\xff"}, "webhook-id"),
        ({"webhook-timestamp": "soon"}, "webhook-timestamp"),
        ({"webhook-timestamp": "9" * 30}, "webhook-timestamp"),
        ({"webhook-timestamp": str(STAMP + 1)}, "webhook-signature"),
    ],
)
async def test_a_wrong_signature_is_401_whatever_it_is_made_of(
    http: httpx.AsyncClient, spool: MemorySpool, changes: dict[str, Any], named: str
) -> None:
    body = json.dumps(DATA).encode()
    response = await http.post("/v1/events", content=body, headers=CE | signed(body) | changes)
    assert_problem(response, 401, named)
    assert spool.items == []


@pytest.mark.parametrize("offset", [-301, 301])
async def test_a_right_signature_that_is_too_old_or_too_new_is_401(
    http: httpx.AsyncClient, offset: int
) -> None:
    body = json.dumps(DATA).encode()
    response = await http.post(
        "/v1/events", content=body, headers=CE | signed(body, stamp=STAMP + offset)
    )
    assert_problem(response, 401, "webhook-timestamp")


async def test_a_changed_or_written_again_body_is_401(http: httpx.AsyncClient) -> None:
    body = json.dumps(DATA).encode()
    for other in (body + b" ", json.dumps(DATA, indent=1).encode()):
        assert_problem(await http.post("/v1/events", content=other, headers=CE | signed(body)), 401)


async def test_a_form_that_its_server_signs_is_verified(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    body = json.dumps(FORM).encode()
    headers = {"Content-Type": "application/json"} | signed(body)
    assert (await http.post("/v1/forms/site", content=body, headers=headers)).status_code == 202
    assert spool.event.verified is True
    assert_problem(await http.post("/v1/forms/contact", content=body, headers=headers), 401)


# ---------------------------------------------------------------------------------- agents' commands


@pytest.mark.parametrize(
    ("action", "body", "event_type"),
    [
        ("reply", {"agent_id": "ada", "text": "On its way."}, "command.reply.v1"),
        ("note", {"agent_id": "ada", "text": "Called them."}, "command.note.v1"),
        ("solve", {"agent_id": "ada"}, "command.solve.v1"),
        (
            "escalate",
            {"agent_id": "ada", "reason": "needs logs", "facts": {"tried": "x"}},
            "command.escalate.v1",
        ),
        ("reassign", {"agent_id": "ada", "queue": "technical"}, "command.reassign.v1"),
        ("tag", {"agent_id": "ada", "add": ["late_by_shipper"]}, "command.tag.v1"),
        (
            "hold",
            {"agent_id": "ada", "reason": "they look for it", "waiting_on": "carrier"},
            "command.hold.v1",
        ),
        ("snooze", {"agent_id": "ada", "until": "2026-11-25T08:00:00Z"}, "command.snooze.v1"),
        (
            "reply",
            {"agent_id": "ada", "text": "Soon.", "next_update_by": "2026-11-25T15:00:00+03:00"},
            "command.reply.v1",
        ),
        (
            "promise",
            {
                "agent_id": "ada",
                "what": "callback",
                "by": "2026-11-25T10:00:00Z",
                "not_before": "2026-11-25T09:00:00Z",
            },
            "command.promise.v1",
        ),
        (
            "called",
            {"agent_id": "ada", "outcome": "voicemail", "occurred_at": "2026-11-25T09:20:00Z"},
            "command.called.v1",
        ),
        ("resume", {"agent_id": "ada"}, "command.resume.v1"),
        (
            "delegate",
            {"agent_id": "ada", "to_agent_id": "bo", "task": "the refund"},
            "command.delegate.v1",
        ),
        ("return", {"agent_id": "ada", "reason": "a wrong key"}, "command.return.v1"),
        ("spam", {"agent_id": "ada", "reason": "sells rank"}, "command.spam.v1"),
        ("restore", {"agent_id": "ada"}, "command.restore.v1"),
        (
            "merge",
            {"agent_id": "ada", "into_conversation_id": "c-2", "into_ticket_id": "t-2"},
            "command.merge.v1",
        ),
        ("unmerge", {"agent_id": "ada"}, "command.unmerge.v1"),
        (
            "prioritise",
            {"agent_id": "ada", "priority": 1, "reason": "a wedding"},
            "command.prioritise.v1",
        ),
    ],
)
async def test_a_command_goes_to_its_conversation(
    http: httpx.AsyncClient, spool: MemorySpool, action: str, body: dict[str, Any], event_type: str
) -> None:
    response = await http.post(f"{TICKET}/{action}", json=body, headers=AGENTS)
    event = spool.event
    assert response.json() == {"id": event.command_id}
    assert (spool.only.topic.name, spool.only.key, event.TYPE) == ("commands", "c-1", event_type)
    assert (event.conversation_id, event.ticket_id, event.agent_id) == ("c-1", "t-1", "ada")
    assert spool.only.envelope.id == event.command_id


@pytest.mark.parametrize(
    ("path", "body", "status", "named"),
    [
        (f"{TICKET}/close", {"agent_id": "ada"}, 404, "action"),
        (f"{TICKET}/reply", {"agent_id": "ada"}, 422, "text"),
        (f"{TICKET}/reply", {"text": "x"}, 422, "agent_id"),
        (f"{TICKET}/reply", {"agent_id": "ada", "text": ""}, 422, "text"),
        (f"{TICKET}/reply", {"agent_id": "ada", "text": "a\x00b"}, 422, "text"),
        (
            f"{TICKET}/reply",
            {"agent_id": "ada", "text": "x", "ticket_id": "other"},
            422,
            "ticket_id",
        ),
        (f"{TICKET}/reply", {"agent_id": "ada", "text": "x", "solves": "perhaps"}, 422, "solves"),
        (
            f"{TICKET}/escalate",
            {"agent_id": "ada", "reason": "x", "facts": {"a\x00": "b"}},
            422,
            "facts",
        ),
        (
            f"{TICKET}/escalate",
            {"agent_id": "ada", "reason": "x", "facts": {"a": 1}},
            422,
            "facts.a",
        ),
        (f"{TICKET}/reassign", {"agent_id": "ada"}, 422, "queue"),
        (f"{TICKET}/tag", {"agent_id": "ada", "add": ["Not A Tag"]}, 422, "add.0"),
        (f"{TICKET}/tag", {"agent_id": "ada", "add": []}, 422, "add"),
        (f"{TICKET}/hold", {"agent_id": "ada", "reason": "x"}, 422, "waiting_on"),
        (f"{TICKET}/snooze", {"agent_id": "ada", "until": "tomorrow"}, 422, "until"),
        (
            f"{TICKET}/promise",
            {"agent_id": "ada", "what": "gift", "by": "2026-11-25T10:00:00Z"},
            422,
            "what",
        ),
        (f"{TICKET}/promise", {"agent_id": "ada", "what": "update"}, 422, "by"),
        (f"{TICKET}/called", {"agent_id": "ada", "outcome": "reached"}, 422, "occurred_at"),
        (
            f"{TICKET}/reply",
            {"agent_id": "ada", "text": "Soon.", "next_update_by": "at three"},
            422,
            "next_update_by",
        ),
        (f"{TICKET}/snooze", {"agent_id": "ada", "until": "2026-11-25T08:00:00"}, 422, "until"),
        (
            f"{TICKET}/merge",
            {"agent_id": "ada", "into_ticket_id": "t"},
            422,
            "into_conversation_id",
        ),
        (
            f"{TICKET}/prioritise",
            {"agent_id": "ada", "priority": 5, "reason": "x"},
            422,
            "priority",
        ),
        (
            f"{TICKET}/reassign",
            {"agent_id": "ada", "to_agent_id": "b", "transfer": "x"},
            422,
            "transfer",
        ),
        ("/v1/conversations/c%20x/tickets/t-1/solve", {"agent_id": "ada"}, 422, "conversation_id"),
        ("/v1/conversations/c-1/tickets/%00/solve", {"agent_id": "ada"}, 422, "ticket_id"),
        (
            f"/v1/conversations/{'c' * 201}/tickets/t-1/solve",
            {"agent_id": "ada"},
            422,
            "conversation_id",
        ),
        ("/v1/agents/ada/presence", {"presence": "asleep"}, 422, "presence"),
        ("/v1/offers/r-1/perhaps", {"agent_id": "ada", "ticket_id": "t"}, 404, "answer"),
        ("/v1/offers/r-1/accept", {"agent_id": "ada"}, 422, "ticket_id"),
    ],
)
async def test_a_wrong_command_is_refused_by_its_field(
    http: httpx.AsyncClient,
    spool: MemorySpool,
    path: str,
    body: dict[str, Any],
    status: int,
    named: str,
) -> None:
    assert_problem(await http.post(path, json=body, headers=AGENTS), status, named)
    assert spool.items == []


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b"\xff", b'{"text":"\\ud800","agent_id":"a"}', b'{"a":' * 600]
)
async def test_a_command_that_is_no_json_object_is_422(
    http: httpx.AsyncClient, body: bytes
) -> None:
    headers = AGENTS | {"Content-Type": "application/json"}
    assert_problem(await http.post(f"{TICKET}/reply", content=body, headers=headers), 422)


async def test_a_command_under_one_key_is_one_command(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    headers = AGENTS | {"Idempotency-Key": "c-77"}
    body = {"agent_id": "ada", "text": "On its way."}
    first = await http.post(f"{TICKET}/reply", json=body, headers=headers)
    again = await http.post(f"{TICKET}/reply", json=body, headers=headers)
    assert first.json() == again.json()
    assert len(spool.items) == 1
    elsewhere = await http.post(
        "/v1/conversations/c-1/tickets/t-2/reply", json=body, headers=headers
    )
    assert elsewhere.json() != first.json()


OUTAGE = {"agent_id": "status", "occasion": "outage_known", "about": "cards-1", "title": "Cards"}
BO = {"customer_id": "c9", "address": "Bo@example.com", "channel": "email", "account": "support"}


async def test_something_to_tell_a_customer_goes_to_their_conversation(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    place = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
    body = OUTAGE | {"conversation_id": place}
    response = await http.post("/v1/notices", json=body, headers=NOTICES)
    event = spool.event
    assert response.json() == {"id": event.command_id}
    assert (spool.only.topic.name, spool.only.key) == ("commands", place)
    assert (event.TYPE, event.about) == ("command.notify.v1", "cards-1")


async def test_all_that_somebody_without_a_conversation_is_told_stands_together(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    for body in (OUTAGE | {"contact": BO}, OUTAGE | {"contact": BO, "occasion": "outage_over"}):
        assert (await http.post("/v1/notices", json=body, headers=NOTICES)).status_code == 202
    first, second = (item.key for item in spool.items)
    assert first == second
    assert UUID(first)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "conversation_id"),
        ({"conversation_id": "c-1"}, "conversation_id"),
        ({"contact": BO, "occasion": "answered"}, "occasion"),
        ({"contact": BO, "since": "yesterday"}, "since"),
        ({"contact": BO, "command_id": "mine"}, "command_id"),
        ({"contact": BO, "articles": [{"title": "A", "url": "javascript:x"}]}, "articles"),
    ],
)
async def test_a_wrong_notice_is_refused_by_its_field(
    http: httpx.AsyncClient, spool: MemorySpool, changes: dict[str, Any], named: str
) -> None:
    response = await http.post("/v1/notices", json=OUTAGE | changes, headers=NOTICES)
    assert response.status_code == 422
    assert response.json()["field"].startswith(named)
    assert spool.items == []


async def test_the_roster_is_changed_in_its_domain(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    agent = {
        "name": "Ada",
        "queues": ["service"],
        "skills": {"orders": 6},
        "languages": {"en": 9},
        "capacity": 100,
    }
    offer = {"agent_id": "ada", "ticket_id": "t-1"}
    answers = [
        await http.put("/v1/agents/ada", json=agent, headers=ROSTER),
        await http.post("/v1/agents/ada/presence", json={"presence": "available"}, headers=AGENTS),
        await http.post("/v1/agents/ada/heartbeat", json={}, headers=AGENTS),
        await http.post("/v1/offers/r-1/accept", json=offer, headers=AGENTS),
        await http.post(
            "/v1/offers/r-2/decline",
            json={**offer, "reason": "not mine", "domain": "vip"},
            headers=AGENTS,
        ),
        await http.delete("/v1/agents/ada?domain=vip", headers=ROSTER),
    ]
    assert [answer.status_code for answer in answers] == [202] * 6
    assert [item.envelope.type for item in spool.items] == [
        "agent.set.v1", "agent.presence_set.v1", "agent.heartbeat.v1", "offer.accept.v1", "offer.decline.v1",
        "agent.removed.v1",
    ]  # fmt: skip
    assert [item.key for item in spool.items] == ["main", "main", "main", "main", "vip", "vip"]
    assert {item.topic.name for item in spool.items} == {"roster"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"skills": {"orders": 0}}, "skills.orders"),
        ({"skills": {"orders": 11}}, "skills.orders"),
        ({"languages": {"en": -1}}, "languages.en"),
        ({"languages": {"en": 10**12}}, "languages.en"),
        ({"skills": {"": 5}}, "skills"),
        ({"skills": {"x" * 65: 5}}, "skills"),
        ({"name": "x" * 201}, "name"),
    ],
)
async def test_an_agent_beyond_the_scale_is_refused(
    http: httpx.AsyncClient, spool: MemorySpool, changes: dict[str, Any], field: str
) -> None:
    response = await http.put("/v1/agents/ada", json={"capacity": 100} | changes, headers=ROSTER)
    assert assert_problem(response, 422)["field"].startswith(field)
    assert spool.items == []


async def test_a_wrong_method_is_a_problem_too(http: httpx.AsyncClient) -> None:
    assert_problem(await http.get("/v1/messages"), 405)


async def test_a_trace_goes_along_where_it_is_one(
    http: httpx.AsyncClient, spool: MemorySpool
) -> None:
    good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await http.post("/v1/forms/contact", json=FORM, headers={"traceparent": good})
    await http.post("/v1/forms/contact", json=FORM, headers={"traceparent": "junk"})
    assert [item.envelope.traceparent for item in spool.items] == [good, None]
