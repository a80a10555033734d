"""Web chat on a real gateway and a real PostgreSQL: nothing said is lost or doubled, and every replica tells the answer."""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from msgspec import structs

from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.settings import Settings
from chassis.task import Worker
from services.ingest.webchat_stage import WebchatStage
from services.notifier.adapters import webchat as webchat_provider
from services.notifier.adapters.api import AccountApi
from services.notifier.core.delivery import Delivered, Failed
from services.notifier.core.post import Post, Trouble
from tests.integration.kit import PARTITIONS, MakeTopic, driving, make_settings, until
from tests.integration.webchat_kit import (
    IDENTITY_SECRET,
    Gateway,
    answered,
    gateway,
    opened,
    received,
    taken,
)

SITE = "https://shop.example"
CHANNELS = """
channels:
  shop: {channel: webchat, origins: ['https://shop.example'], secret: 'env:SHOP_IDENTITY', demo: true}
  other: {channel: webchat, origins: ['https://shop.example']}
  shut: {channel: webchat, offline: true}
api_keys:
  - {name: console, secret: 'env:AGENTS', scopes: [agents]}
  - {name: systems, secret: 'env:SYSTEMS', scopes: [messages]}
  - {name: notifier, secret: 'env:NOTIFIER', scopes: [notices]}
"""
FIRST = {"id": "first-message", "text": "Where is my lamp?"}
AGENTS = {"Authorization": "Bearer agents-key"}
NOTIFIER = {"Authorization": "Bearer notifier-key"}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_IDENTITY", IDENTITY_SECRET)
    monkeypatch.setenv("AGENTS", "agents-key")
    monkeypatch.setenv("SYSTEMS", "systems-key")
    monkeypatch.setenv("NOTIFIER", "notifier-key")


@pytest.fixture
async def door(database: str, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with gateway(database, tmp_path, CHANNELS) as made:
        yield made


class Visitor:
    """A visitor's end: one session, by HTTP."""

    def __init__(self, door: Gateway, account: str = "shop") -> None:
        self.door = door
        self.account = account
        self.token = ""
        self.session = ""

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Origin": SITE, **options.pop("headers", {})}
        if self.token and path != "sessions":
            headers.setdefault("Authorization", f"Bearer {self.token}")
        async with httpx.AsyncClient(base_url=self.door.url, timeout=40) as client:
            return await client.request(
                method, f"/v1/widget/{self.account}/{path}", headers=headers, **options
            )

    async def begin(self, **said: Any) -> dict[str, Any]:
        answer = await self.ask("POST", "sessions", json={"token": self.token, **said})
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        self.token, self.session = told["token"], told["session"]
        return told

    async def say(self, **said: Any) -> httpx.Response:
        return await self.ask("POST", "messages", json={**FIRST, **said})

    async def news(self, after: int = 0, seen: int = 0, wait: int = 0) -> dict[str, Any]:
        answer = await self.ask("GET", f"messages?after={after}&seen={seen}&wait={wait}")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    @contextlib.asynccontextmanager
    async def socket(self, **hello: Any) -> AsyncIterator[Any]:
        url = f"ws://127.0.0.1:{self.door.port}/v1/widget/{self.account}/socket"
        async with websockets.connect(url, origin=hello.pop("origin", SITE)) as made:
            await made.send(json.dumps({"type": "hello", "token": self.token, **hello}))
            yield made


async def frame(socket: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 10))
    return told


def identity(email: str, **claims: Any) -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    header = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    body = part(json.dumps({"email": email, **claims}).encode())
    said = f"{header}.{body}"
    mac = hmac.new(IDENTITY_SECRET.encode(), said.encode(), hashlib.sha256).digest()
    return f"{said}.{part(mac)}"


def expiry(door: Gateway) -> int:
    return int(door.clock.now().timestamp()) + 600


async def test_what_a_visitor_says_is_durable_and_in_their_history(door: Gateway) -> None:
    visitor = Visitor(door)
    assert (await visitor.begin())["messages"] == []
    answer = await visitor.say(page="https://shop.example/lamps")
    assert answer.status_code == 202
    assert answer.json()["n"] == 1
    ((channel, verified, message),) = await door.messages()
    assert (channel, verified) == ("webchat", False)
    assert (message.account, message.text) == ("shop", "Where is my lamp?")
    assert (message.sender.kind, message.sender.address) == ("vendor_id", visitor.session)
    assert message.thread == visitor.session
    assert message.url == "https://shop.example/lamps"
    again = Visitor(door)
    again.token = visitor.token
    (shown,) = (await again.begin())["messages"]
    assert (shown["mine"], shown["text"], shown["id"]) == (True, FIRST["text"], FIRST["id"])
    assert again.session == visitor.session


async def test_the_same_message_again_is_the_same_message(door: Gateway) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    answers = [await visitor.say() for _ in range(3)]
    assert {answer.json()["n"] for answer in answers} == {1}
    assert len(await door.spooled()) == 1
    clash = await visitor.say(text="Something else")
    assert (clash.status_code, clash.json()["field"]) == (422, "id")


async def test_a_message_that_was_spooled_and_not_shown_is_shown_when_it_comes_again(
    door: Gateway,
) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    await door.pool.execute("DELETE FROM webchat_session")
    assert (await visitor.say()).status_code == 202
    assert len(await door.spooled()) == 1
    assert len((await visitor.news())["messages"]) == 1


async def test_an_answer_reaches_socket_and_poll_and_is_told_once(door: Gateway) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    waiting = asyncio.create_task(visitor.news(after=1, wait=20))
    async with visitor.socket(after=1) as socket:
        assert (await frame(socket))["messages"] == []
        told = (
            opened(visitor.session, FIRST["id"], "conv-1"),
            answered("conv-1", "It left today."),
        )
        await door.told(*told)
        await door.told(*told)
        news = await frame(socket)
        while not news["messages"]:
            news = await frame(socket)
    (message,) = news["messages"]
    assert (message["text"], message["author"], message["mine"]) == (
        "It left today.",
        "Deniz",
        False,
    )
    polled = await waiting
    while not polled["messages"]:
        polled = await visitor.news(after=1, seen=polled["seen"], wait=20)
    assert polled["messages"] == [message]
    assert polled["seen"] == 1
    assert len((await visitor.news())["messages"]) == 2


async def test_an_answer_reaches_the_listeners_of_every_replica(
    door: Gateway, database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    async with gateway(database, folder, CHANNELS, is_fresh=False) as second:
        visitor = Visitor(door)
        await visitor.begin()
        await visitor.say()
        elsewhere = Visitor(second)
        elsewhere.token = visitor.token
        async with elsewhere.socket(after=1) as socket:
            await frame(socket)
            await door.told(
                opened(visitor.session, FIRST["id"], "conv-1"), answered("conv-1", "Hello")
            )
            news = await frame(socket)
            while not news["messages"]:
                news = await frame(socket)
            assert news["messages"][0]["text"] == "Hello"


async def test_a_restart_forgets_nothing(database: str, tmp_path: Path) -> None:
    async with gateway(database, tmp_path, CHANNELS) as door:
        visitor = Visitor(door)
        await visitor.begin()
        await visitor.say()
        waiting = asyncio.create_task(visitor.news(after=1, wait=20))
        await until("the poll waits", lambda: door.chat._deps.hub.count == 1)
    assert (await waiting)["messages"] == []
    async with gateway(database, tmp_path, CHANNELS, is_fresh=False) as door:
        visitor.door = door
        assert len((await visitor.begin())["messages"]) == 1


async def test_messages_by_socket_are_acknowledged_and_refusals_name_the_message(
    door: Gateway,
) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    async with visitor.socket() as socket:
        await frame(socket)
        await socket.send(json.dumps({"type": "send", **FIRST}))
        kinds = {}
        while "ack" not in kinds:
            told = await frame(socket)
            kinds[told["type"]] = told
        assert (kinds["ack"]["id"], kinds["ack"]["n"]) == (FIRST["id"], 1)
        await socket.send(json.dumps({"type": "send", "id": "empty-message", "text": "  "}))
        while "refused" not in kinds:
            told = await frame(socket)
            kinds[told["type"]] = told
        assert (kinds["refused"]["id"], kinds["refused"]["status"]) == ("empty-message", 422)
    assert len(await door.spooled()) == 1


async def test_marks_and_typing_go_both_ways(door: Gateway) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    await door.told(opened(visitor.session, FIRST["id"], "conv-1"), taken("conv-1"))
    assert (await visitor.news(after=1))["seen"] == 1
    await door.told(answered("conv-1", "It left today."))
    async with httpx.AsyncClient(base_url=door.url) as agent:
        where = "/v1/conversations/conv-1"
        assert (await agent.get(f"{where}/visitor")).status_code == 401
        assert (
            await agent.get(f"{where}/visitor", headers={"Authorization": "Bearer systems-key"})
        ).status_code == 403
        assert (
            await agent.get("/v1/conversations/none/visitor", headers=AGENTS)
        ).status_code == 404
        before = (await agent.get(f"{where}/visitor", headers=AGENTS)).json()
        assert (before["unread"], before["typing"], before["present"]) == (1, False, True)
        assert (await visitor.ask("POST", "typing", json={})).status_code == 204
        number = (await visitor.news())["messages"][-1]["n"]
        assert (await visitor.ask("POST", "read", json={"n": number})).status_code == 204
        after = (await agent.get(f"{where}/visitor", headers=AGENTS)).json()
        assert (after["unread"], after["typing"]) == (0, True)
        async with visitor.socket(after=number) as socket:
            await frame(socket)
            assert (await agent.post(f"{where}/typing", headers=AGENTS)).status_code == 202
            assert (await frame(socket))["type"] == "typing"


async def test_only_listed_sites_and_the_gateways_own_page_may_use_a_chat(door: Gateway) -> None:
    visitor = Visitor(door)
    foreign = {"Origin": "https://elsewhere.example"}
    refused = await visitor.ask("POST", "sessions", json={}, headers=foreign)
    assert refused.status_code == 403
    assert "access-control-allow-origin" not in refused.headers
    allowed = await visitor.ask("POST", "sessions", json={})
    assert allowed.headers["access-control-allow-origin"] == SITE
    assert allowed.headers["vary"] == "Origin"
    own = await visitor.ask("POST", "sessions", json={}, headers={"Origin": door.url})
    assert own.status_code == 200
    preflight = await visitor.ask("OPTIONS", "messages")
    assert preflight.headers["access-control-allow-headers"] == "Authorization, Content-Type"
    await visitor.begin()
    with pytest.raises(websockets.InvalidStatus, match="403"):
        async with visitor.socket(origin="https://elsewhere.example"):
            pass


async def test_a_token_opens_its_own_account_until_it_expires(door: Gateway) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    other = Visitor(door, "other")
    other.token = visitor.token
    assert (await other.say()).status_code == 401
    forged = Visitor(door)
    forged.token = visitor.token[:-2] + "AA"
    assert (await forged.say()).status_code == 401
    async with forged.socket() as socket:
        assert (await frame(socket))["status"] == 401
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401
    door.clock.passed = timedelta(days=31)
    stale = await visitor.say()
    assert (stale.status_code, stale.json()["type"]) == (401, "urn:signalbox:problem:stale")
    before = visitor.session
    await visitor.begin()
    assert visitor.session != before


async def test_an_identity_token_of_the_sites_server_proves_the_address(door: Gateway) -> None:
    visitor = Visitor(door)
    token = identity("Ada@Example.com", exp=expiry(door), name="Ada")
    assert (await visitor.begin(identity=token))["identified"] is True
    await visitor.say()
    ((_, verified, message),) = await door.messages()
    assert verified is True
    assert (message.sender.kind, message.sender.address, message.sender.name) == (
        "email",
        "ada@example.com",
        "Ada",
    )
    mine = visitor.session
    await visitor.begin(identity=token)
    assert visitor.session == mine
    # Logged out, or somebody else at the same machine: another session, with nothing of the first in it.
    assert (await visitor.begin())["messages"] == []
    assert visitor.session != mine


@pytest.mark.parametrize(
    "made",
    [
        lambda door: identity("ada@example.com", exp=expiry(door))[:-3] + "AAA",
        lambda door: identity("ada@example.com", exp=expiry(door) - 900),
        lambda door: identity("ada@example.com"),
        lambda door: identity("ada@example.com", exp=expiry(door) + 10**6),
        lambda door: identity("ada@example.com", exp=expiry(door), aud="other"),
        lambda _: "eyJhbGciOiJub25lIn0.eyJlbWFpbCI6ImFkYUBleGFtcGxlLmNvbSJ9.",
        lambda _: "not.a.token",
    ],
)
async def test_an_identity_that_is_not_proved_is_refused(door: Gateway, made: Any) -> None:
    answer = await Visitor(door).ask("POST", "sessions", json={"identity": made(door)})
    assert (answer.status_code, answer.json()["field"]) == (401, "identity")


@pytest.mark.parametrize(
    ("said", "status", "field"),
    [
        ({"text": ""}, 422, "text"),
        ({"text": "a" * 4_001}, 422, "text"),
        ({"text": 7}, 422, "text"),
        ({"id": "short"}, 422, "id"),
        ({"surplus": 1}, 422, None),
        ({"text": "a" * 40_000}, 413, "body"),
    ],
)
async def test_what_the_widget_does_wrong_is_named(
    door: Gateway, said: dict[str, Any], status: int, field: str | None
) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    answer = await visitor.say(**said)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert field is None or answer.json()["field"] == field
    assert await door.spooled() == []


async def test_who_says_too_much_is_told_to_wait(door: Gateway) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    answers = [await visitor.say(id=f"message-{n:04}") for n in range(32)]
    assert [one.status_code for one in answers[:30]] == [202] * 30
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1


async def test_the_offline_form_becomes_a_form_that_is_answered_by_mail(door: Gateway) -> None:
    visitor = Visitor(door)
    form = {"id": "form-0001", "email": "ada@example.com", "message": "Call me", "name": "Ada"}
    for _ in range(2):
        assert (await visitor.ask("POST", "form", json=form)).status_code == 202
    ((channel, verified, message),) = await door.messages()
    assert (channel, verified, message.kind) == ("form", False, "form")
    assert message.sender.address == "ada@example.com"
    bad = await visitor.ask("POST", "form", json={**form, "id": "form-0002", "email": "ada"})
    assert (bad.status_code, bad.json()["field"]) == (422, "email")


async def test_the_widget_is_cacheable_and_says_what_its_account_says(door: Gateway) -> None:
    async with httpx.AsyncClient(base_url=door.url) as client:
        answer = await client.get("/v1/widget/shop.js")
        assert answer.headers["content-type"].startswith("text/javascript")
        assert "max-age=300" in answer.headers["cache-control"]
        assert answer.headers["content-security-policy"] == "default-src 'none'"
        assert '"account": "shop"' in answer.text
        assert len(answer.content) < 30_000
        tag = {"If-None-Match": answer.headers["etag"]}
        assert (await client.get("/v1/widget/shop.js", headers=tag)).status_code == 304
        assert (await client.get("/v1/widget/nobody.js")).status_code == 404
        assert (await client.get("/v1/widget/shop/demo")).status_code == 200
        assert (await client.get("/v1/widget/other/demo")).status_code == 404


async def test_a_database_that_is_away_is_said_and_nothing_is_acknowledged(door: Gateway) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await door.pool.execute("ALTER TABLE spool RENAME TO spool_away")
    answer = await visitor.say()
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    await door.pool.execute("ALTER TABLE spool_away RENAME TO spool")
    assert (await visitor.say()).status_code == 202


@contextlib.asynccontextmanager
async def at_work(stage: WebchatStage, settings: Settings) -> AsyncIterator[None]:
    """The stage in the loop, on ingest's own schema."""
    pool = await open_pool(settings.dsn, "ingest", 4, "test stage")
    worker = Worker(stage, settings, pool, SystemClock())
    try:
        await worker.start()
        await until(
            "all tasks are owned",
            lambda: (
                len(worker.tasks) == PARTITIONS and all(one.epoch for one in worker.tasks.values())
            ),
        )
        yield
    finally:
        await worker.stop()
        await pool.close()


async def test_answers_on_the_topic_are_shown_once_over_a_restart_of_who_reads_them(
    door: Gateway, database: str, bootstrap: str, topic_prefix: str, make_topic: MakeTopic
) -> None:
    for name in ("tickets", "dead-letters"):
        await make_topic(name, partitions=PARTITIONS)
    settings = make_settings(bootstrap, database, topic_prefix)
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    by_mail = {"customer_id": "c-2", "address": "a@b.example", "channel": "email", "account": "s"}

    async def shows(count: int) -> bool:
        return len((await visitor.news())["messages"]) == count

    async with driving(settings) as driver:
        counts: dict[int, int] = {}

        async def publish(event: Any, name: str) -> None:
            part = partition_of(event.conversation_id, PARTITIONS)
            counts[part] = counts.get(part, 0) + 1
            envelope = replace(
                received(event).envelope,
                source=f"signalbox/router.tickets/{part}",
                id=name,
                sequence=counts[part],
            )
            await driver.event("tickets", envelope, event)

        await publish(opened(visitor.session, FIRST["id"], "conv-1"), "e-1")
        await publish(opened("f" * 32, "x", "conv-2", contact=by_mail), "e-2")
        async with at_work(WebchatStage("default"), settings):
            await publish(answered("conv-1", "It left today."), "e-3")
            await publish(answered("conv-2", "By mail."), "e-4")
            await until("the answer is shown", lambda: shows(2))
        async with at_work(WebchatStage("default"), settings):
            await publish(answered("conv-1", "And another.", "c-2"), "e-5")
            await until("the second answer is shown", lambda: shows(3))
    texts = [one["text"] for one in (await visitor.news())["messages"]]
    assert texts == [FIRST["text"], "It left today.", "And another."]


# ------------------------------------------------------------------------------------------------- notices


def notice_for(visitor: Visitor, **changes: Any) -> Post:
    """A notice as the notifier sends it to a visitor's chat."""
    post = Post(
        key="0197c3a0-5d1e-7c11-9a53-3f2b8c6d7e01",
        provider="webchat",
        account="shop",
        occasion="still_on_it",
        to=visitor.session,
        thread=visitor.session,
        answers="",
        subject="",
        text="We are still on it, and write again by noon.",
        html="",
        language="en",
        date=datetime(2026, 11, 24, 8, 0, tzinfo=UTC),
        is_automatic=True,
    )
    return structs.replace(post, **changes)


def notifier_of(door: Gateway, key: str = "notifier-key") -> AccountApi:
    """The notifier's own client of the gateway."""
    settings = webchat_provider.Settings(url=door.url, key="env:KEY")
    client = httpx.AsyncClient(follow_redirects=False)
    return AccountApi(settings, client, lambda _: key, seconds=10.0)


async def test_a_notice_stands_in_the_visitors_chat_once_however_often_it_is_sent(
    door: Gateway,
) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    waiting = asyncio.create_task(visitor.news(after=1, wait=20))
    api = notifier_of(door)
    post = notice_for(visitor)
    for _ in range(3):
        assert isinstance(await api.send(webchat_provider.PROVIDER, post), Delivered)
    (shown,) = (await waiting)["messages"]
    assert (shown["mine"], shown["id"], shown["text"]) == (False, post.key, post.text)
    assert len((await visitor.news())["messages"]) == 2
    assert len(await door.messages()) == 1, "what we told is no message of a customer"


async def test_a_notice_under_a_used_id_with_other_words_is_refused(door: Gateway) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    api = notifier_of(door)
    await api.send(webchat_provider.PROVIDER, notice_for(visitor))
    other = await api.send(webchat_provider.PROVIDER, notice_for(visitor, text="Other words."))
    assert isinstance(other, Failed)
    assert (other.trouble, other.is_recoverable) == (Trouble.MESSAGE, False)


async def test_an_agents_answer_is_shown_once_although_the_notifier_tells_it_too(
    door: Gateway,
) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    await door.told(
        opened(visitor.session, FIRST["id"], "c-1"), answered("c-1", "It is on its way.")
    )
    post = notice_for(visitor, occasion="answered", text="It is on its way.", is_automatic=False)
    assert isinstance(await notifier_of(door).send(webchat_provider.PROVIDER, post), Delivered)
    texts = [one["text"] for one in (await visitor.news())["messages"]]
    assert texts == [FIRST["text"], "It is on its way."]


async def test_a_session_that_nobody_has_or_another_chats_visitor_is_no_address(
    door: Gateway,
) -> None:
    elsewhere = Visitor(door, "other")
    await elsewhere.begin()
    await elsewhere.say()
    silent = Visitor(door)
    await silent.begin()
    for visitor in (elsewhere, silent):
        outcome = await notifier_of(door).send(webchat_provider.PROVIDER, notice_for(visitor))
        assert isinstance(outcome, Failed)
        assert (outcome.trouble, outcome.is_recoverable) == (Trouble.ADDRESS, False)


@pytest.mark.parametrize("key", ["agents-key", "systems-key", "nobodys-key"])
async def test_a_key_without_the_scope_tells_visitors_nothing(door: Gateway, key: str) -> None:
    visitor = Visitor(door)
    await visitor.begin()
    await visitor.say()
    outcome = await notifier_of(door, key).send(webchat_provider.PROVIDER, notice_for(visitor))
    assert isinstance(outcome, Failed)
    assert (outcome.trouble, outcome.is_recoverable) == (Trouble.ACCOUNT, True)
    assert len((await visitor.news())["messages"]) == 1


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"id": "short"}, "id"),
        ({"session": "nobody"}, "session"),
        ({"text": "  "}, "text"),
        ({"text": "a" * 20_001}, "text"),
        ({"more": "1"}, "body"),
    ],
)
async def test_a_notice_that_is_not_right_is_refused_by_the_field(
    door: Gateway, said: dict[str, str], field: str
) -> None:
    right = {"id": "notice-00001", "session": "0" * 32, "text": "Hello", "occasion": "received"}
    async with httpx.AsyncClient(base_url=door.url) as client:
        answer = await client.post(
            "/v1/widget/shop/notices", json={**right, **said}, headers=NOTIFIER
        )
    assert answer.status_code == 422
    assert answer.json()["field"] == field
