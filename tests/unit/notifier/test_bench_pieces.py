"""The pieces of `signalbox bench notifier`: its vendors, its limits, its policy, and that its books go red."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import httpx
import msgspec
from aiokafka import AIOKafkaProducer
from pydantic import SecretStr

from bench import vendor_limit
from bench.notifier_world import (
    KEYED,
    MAIL,
    UNKEYED,
    Case,
    Listener,
    Told,
    Vendor,
    World,
    books,
)
from bench.notifier_world import write_policy as bench_policy
from bench.vendor_sink import BUSY_AFTER, Account, Vendors
from chassis.policy import PolicyHolder
from chassis.settings import Settings
from schemas.envelope import read_record
from schemas.notifications import NoticeRequested, NoticeSent, NoticeSuppressed
from schemas.tickets import TicketAnswered, TicketOpened
from services.notifier.handlers import POLICY

AT = datetime(2026, 11, 24, 8, tzinfo=UTC)


@asynccontextmanager
async def vendors(seconds: float = 0.0) -> AsyncIterator[tuple[Vendors, httpx.AsyncClient, int]]:
    """The vendors on sockets: a client for HTTP, and the mail server's port."""
    made = Vendors(seconds)
    http = await asyncio.start_server(made.serve_http, "127.0.0.1", 0)
    smtp = await asyncio.start_server(made.serve_smtp, "127.0.0.1", 0)
    port = http.sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield made, client, smtp.sockets[0].getsockname()[1]
    http.close()
    smtp.close()


def notice(to: str) -> dict[str, object]:
    return {"type": "notice.answered", "data": {"to": to}}


async def test_a_vendor_takes_a_key_once_and_what_has_none_every_time() -> None:
    async with vendors() as (_, client, _):
        for _ in range(2):
            await client.post("/keyed", json=notice("ada"), headers={"webhook-id": "n-1"})
        chat = {"chat_id": 7, "text": "."}
        answers = [await client.post("/chat/bot1:x/sendMessage", json=chat) for _ in range(2)]
        counts = await Vendor(client).counts()

    assert answers[0].json() == {"ok": True, "result": {"message_id": 1}}
    assert (counts["keyed"]["arrived"], counts["keyed"]["twice"]) == (1, 0)
    assert counts["keyed"]["repeats"] == 1
    assert (counts["chat"]["arrived"], counts["chat"]["twice"]) == (1, 1)


async def test_a_vendor_that_hangs_has_the_message_and_answers_when_it_is_let_go() -> None:
    async with vendors() as (made, client, _):
        vendor = Vendor(client)
        await vendor.behave("one", "hang")
        hanging = asyncio.create_task(
            client.post("/one", json=notice("ada"), headers={"webhook-id": "n-1"})
        )
        while not made.accounts["one"].arrived:
            await asyncio.sleep(0)
        assert list(await vendor.arrivals("one")) == ["ada"]
        assert not hanging.done()
        await vendor.behave("one", "fine")
        assert (await hanging).status_code == 200


async def test_a_busy_vendor_says_how_long_to_wait_and_counts_who_does_not() -> None:
    async with vendors() as (made, client, _):
        await Vendor(client).behave("one", "busy")
        refused = await client.post("/one", json=notice("ada"), headers={"webhook-id": "n-1"})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        account = made.accounts["one"]
        account.busy_since -= 2.0
        await client.post("/one", json=notice("ada"), headers={"webhook-id": "n-1"})
        assert (account.refused, account.early, account.arrived) == (2, 1, {})
        account.busy_since -= 4.0
        taken = [account.is_refused() for _ in range(BUSY_AFTER + 1)]
        assert taken == [False] * BUSY_AFTER + [True]


async def test_the_limits_are_what_bare_connections_get_taken() -> None:
    async with vendors(0.002) as (made, client, smtp_port):
        port = client.base_url.port
        assert port is not None
        assert await vendor_limit.posts(port, "limit", 2, 0.2) > 0
        assert await vendor_limit.mails(smtp_port, 2, 0.2) > 0
        assert len(made.accounts["limit"].arrived) > 1
        assert len(made.accounts[MAIL].arrived) > 1
        assert made.account("instant").seconds == 0


def test_the_benchs_policy_is_one_that_the_notifier_takes(tmp_path: Path) -> None:
    policy = PolicyHolder(bench_policy(tmp_path, 4711), POLICY).current

    assert set(policy.accounts) == {*KEYED, UNKEYED}
    assert "answered" not in policy.occasions_off
    assert {"received", "solved"} <= set(policy.occasions_off)


class _Topic:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.records: list[tuple[str, bytes, list[tuple[str, bytes]], int]] = []

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes,
        headers: list[tuple[str, bytes]],
        partition: int,
    ) -> None:
        """Take a record."""
        del key
        self.records.append((topic, value, headers, partition))

    async def flush(self) -> None:
        """Do nothing."""


def settings() -> Settings:
    return Settings(kafka="127.0.0.1:9092", database_url=SecretStr("postgresql://x"), partitions=4)


async def test_the_benchs_tickets_are_as_the_router_tells_them_without_gaps() -> None:
    topic = _Topic()
    world = World(settings(), cast(AIOKafkaProducer, topic))
    for account in (*KEYED, UNKEYED, MAIL):
        for case in await world.open(account, 3):
            await world.answer(case)

    sequences: dict[int, list[int]] = {}
    kinds = []
    for _, value, headers, partition in topic.records:
        envelope, data = read_record(headers, value)
        kind = {one.TYPE: one for one in (TicketOpened, TicketAnswered)}[envelope.type]
        event = kind.model_validate(msgspec.json.decode(data))
        kinds.append(type(event))
        assert envelope.sequence is not None
        sequences.setdefault(partition, []).append(envelope.sequence)
    assert kinds.count(TicketAnswered) == kinds.count(TicketOpened) == len(world.cases)
    assert all(found == list(range(1, len(found) + 1)) for found in sequences.values())
    assert len({case.recipient for case in world.cases}) == len(world.cases)


def heard(
    listener: Listener, case: Case, kind: str, identity: str, occasion: str = "answered"
) -> None:
    headers = {"ce_id": identity.encode(), "ce_type": kind.encode()}
    listener.hear(headers, Told(case.conversation_id, occasion, AT))


def test_the_books_find_what_is_lost_doubled_or_told_wrong() -> None:
    cases = [Case("keyed", f"conversation-{n}", f"r{n}") for n in range(4)]
    listener = Listener(settings())
    for n, case in enumerate(cases):
        heard(listener, case, NoticeSuppressed.TYPE, f"o{n}", "received")
        heard(listener, case, NoticeRequested.TYPE, f"a{n}")
        for _ in range(2):  # The topic tells it again: that counts once.
            heard(listener, case, NoticeSent.TYPE, f"b{n}")
    account = Account(0.0)
    for n, case in enumerate(cases):
        account.take(case.recipient, f"n-{n}")
    account.take("r0", "n-0")

    def result() -> dict[str, float]:
        arrivals = {name: times[0] for name, times in account.arrived.items()}
        return books(cases, listener.ended, {"keyed": arrivals}, {"keyed": account.counts()})

    good = {
        "answers": 4, "sent": 4, "lost": 0, "twice": 0, "told_wrong": 0, "unknown": 0,
        "repeats_dropped_by_key": 1,
    }  # fmt: skip
    assert result() == good
    account.take("r1", "another key")
    assert result() == good | {"twice": 1}
    del account.arrived["r1"]
    assert result() == good | {"lost": 1, "told_wrong": 1}
    heard(listener, cases[2], NoticeSent.TYPE, "b2 again, as another event")
    assert result()["told_wrong"] == 2
