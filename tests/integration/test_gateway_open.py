"""Always open: the gateway's HTTP on a real spool says 2xx while the broker is away, and 503 only without a database."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis import policy
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.local.postgres import LocalPostgres, start_postgres
from chassis.local.processes import free_port
from chassis.migrate import migrate
from chassis.spool import Numberer, Spool
from services.ingest import api, webhooks
from services.ingest.adapters.accounts import PublishedKeys
from services.ingest.adapters.signing import hex_hmac
from services.ingest.handlers import POLICY
from tests.integration.kit import PARTITIONS, MakeTopic, make_settings, read_topic, until

SECRET = b"an app secret of these tests"
CHANNELS = """
forms: {contact: {}}
channels: {page: {channel: messenger, secret: 'env:APP'}}
"""


class Known:
    """Secrets by reference."""

    def get(self, reference: str) -> bytes | None:
        return SECRET if reference == "env:APP" else None


@pytest.fixture
def postgres(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPostgres]:
    """A server of this test's own, which it may stop."""
    monkeypatch.delenv("SIGNALBOX_DATABASE_URL", raising=False)
    directory = Path(tempfile.mkdtemp(prefix="signalbox-open-"))
    directory.chmod(0o755)
    server = start_postgres(directory)
    yield server
    server.remove()
    shutil.rmtree(directory, ignore_errors=True)


@contextlib.asynccontextmanager
async def at_work(part: Spool | Numberer) -> AsyncIterator[None]:
    work = asyncio.create_task(part.run())
    try:
        yield
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work


async def send(http: httpx.AsyncClient, n: int) -> httpx.Response:
    """Post input `n` of one customer: a form, or a signed callback of one message."""
    if n % 2 == 0:
        body: Any = {"email": "ada@example.com", "message": f"Input {n}"}
        return await http.post(
            "/v1/forms/contact", json=body, headers={"Idempotency-Key": f"key-{n}"}
        )
    said = {
        "sender": {"id": "7"},
        "recipient": {"id": "8"},
        "timestamp": n,
        "message": {"mid": f"m{n}", "text": f"Input {n}"},
    }
    request = http.build_request(
        "POST",
        "/v1/channels/messenger/page",
        json={"object": "page", "entry": [{"id": "8", "time": n, "messaging": [said]}]},
    )
    request.headers["x-hub-signature-256"] = f"sha256={hex_hmac(SECRET, request.content)}"
    return await http.send(request)


async def test_without_a_broker_all_is_taken_and_drained_in_order_and_without_a_database_nothing(
    postgres: LocalPostgres,
    bootstrap: str,
    topic_prefix: str,
    make_topic: MakeTopic,
    tmp_path: Path,
) -> None:
    await make_topic("inbound", partitions=PARTITIONS)
    await make_topic("commands", partitions=PARTITIONS)
    dsn = postgres.create_database("open")
    await migrate(dsn, "ingest")
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    settings = make_settings(bootstrap, dsn, topic_prefix)
    without = make_settings(f"127.0.0.1:{free_port()}", dsn, topic_prefix)
    pool = await open_pool(dsn, "ingest", 6, "test")
    spool, policies, clock = (
        Spool(pool, settings),
        policy.PolicyHolder(tmp_path, POLICY),
        SystemClock(),
    )
    app = api.create_app(api.Deps(spool, policies, clock, Known()))
    webhooks.mount(
        app,
        webhooks.Webhooks(
            spool, policies, clock, Known(), PublishedKeys(), "default", 100_000, 5.0
        ),
    )
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with (
            at_work(spool),
            httpx.AsyncClient(transport=transport, base_url="http://gateway.example") as http,
        ):
            async with at_work(Numberer(pool, without, clock, spool)):
                answers = [await send(http, n) for n in range(40)]
                assert {answer.status_code for answer in answers} == {200, 202}
                again = await send(http, 0)
                assert again.headers["idempotent-replayed"] == "true"
                assert await pool.fetchval("SELECT count(*) FROM spool") == 40
            await asyncio.to_thread(postgres.stop_immediate)
            for n in (40, 41):
                away = await send(http, n)
                assert away.status_code == 503
                assert int(away.headers["retry-after"]) >= 1
            await asyncio.to_thread(postgres.start)

            async def accepts_again() -> bool:
                return (await send(http, 40)).status_code == 202

            await until("it accepts again", accepts_again)
            async with at_work(Numberer(pool, settings, clock, spool)):

                async def drained() -> bool:
                    owed = await pool.fetchval(
                        "SELECT (SELECT count(*) FROM spool) + (SELECT count(*) FROM outbox)"
                    )
                    return owed == 0

                await until("all is published", drained)
        published = await read_topic(settings, "inbound")
        forms = [event.input_id for _, event, _ in published if event.channel == "form"]
        assert forms == [answer.json()["id"] for answer in answers[::2]] + [forms[-1]]
        assert len([event for _, event, _ in published if event.channel == "messenger"]) == 20
    finally:
        await pool.close()
