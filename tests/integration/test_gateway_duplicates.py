"""What a sender sends again, out of order and over many connections at once, comes to one message each.

A real process of ingest, gateway and normaliser, behind HTTP, on a real Kafka and PostgreSQL.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest

from chassis.migrate import migrate
from schemas.messages import MessageReceived
from tests.integration.kit import PARTITIONS, MakeTopic, make_settings, read_topic, until

ROOT = Path(__file__).parents[2]
SEED = 17
MESSAGES = 40
COPIES_MAX = 5
CONNECTIONS = 8
KEY = "a-key-of-the-integration-tests"
CHANNELS = """
forms: {contact: {}}
messages: {kiosk: {channel: kiosk}}
api_keys:
  - {name: systems, secret: 'env:TEST_API_KEY', scopes: [messages]}
"""


class Request(NamedTuple):
    """A request to the gateway. One without an idempotency key is a repeat by its message's id only."""

    path: str
    body: dict[str, Any]
    key: str | None

    @property
    def says(self) -> str:
        """What the message's text is: no two say the same."""
        return str(self.body["message" if "message" in self.body else "text"])


class Ingest(NamedTuple):
    """The running service: its gateway, and its tables."""

    http: httpx.AsyncClient
    database: asyncpg.Connection

    async def send(self, request: Request) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"} if request.path == "/v1/messages" else {}
        if request.key is not None:
            headers["Idempotency-Key"] = request.key
        return await self.http.post(request.path, json=request.body, headers=headers)

    async def outcomes(self) -> dict[str, str]:
        """What became of each input, by its id; what is parked stands there under the park's own id."""
        rows = await self.database.fetch(
            "SELECT input_id AS id, outcome FROM outcome UNION ALL SELECT id, 'parked' FROM parked"
        )
        return {row["id"]: row["outcome"] for row in rows}


@pytest.fixture
async def ingest(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> AsyncIterator[Ingest]:
    for name in ("inbound", "messages", "commands", "roster", "dead-letters"):
        await make_topic(name, partitions=PARTITIONS)
    await migrate(database, "ingest", [ROOT / "services" / "ingest" / "sql"])
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    said = tmp_path / "log"
    environment = os.environ | {
        "SIGNALBOX_KAFKA": bootstrap,
        "SIGNALBOX_DATABASE_URL": database,
        "SIGNALBOX_PARTITIONS": str(PARTITIONS),
        "SIGNALBOX_TOPIC_PREFIX": topic_prefix,
        "SIGNALBOX_POLICY": str(tmp_path),
        "SIGNALBOX_TOKEN_SECRET": "t" * 40,
        "SIGNALBOX_GATEWAY_PORT": "0",
        "SIGNALBOX_HTTP_PORT": "0",
        "SIGNALBOX_SMTP_ENABLED": "false",
        "SIGNALBOX_LOG_FORMAT": "json",
        "TEST_API_KEY": KEY,
    }
    with said.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.ingest", "serve"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )

    def port() -> int | None:
        assert process.poll() is None, said.read_text(encoding="utf-8")
        for line in said.read_text(encoding="utf-8").splitlines():
            if '"gateway_listening"' in line:
                return int(json.loads(line)["port"])
        return None

    try:
        await until("the gateway listens", port, seconds=60)
        connection = await asyncpg.connect(database, server_settings={"search_path": "ingest"})
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port()}",
            limits=httpx.Limits(max_connections=CONNECTIONS),
            timeout=20.0,
            trust_env=False,
        ) as client:
            yield Ingest(client, connection)
        await connection.close()
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def request(n: int, says: str) -> Request:
    """The `n`-th request: a form under a key, a system's message under a key, or one known by its own id alone."""
    address = f"customer-{n % 7}@example.com"
    if n % 2 == 0:
        return Request("/v1/forms/contact", {"email": address, "message": says}, f"form-{n}")
    body = {"channel": "kiosk", "account": "kiosk", "id": f"case-{n}", "text": says}
    return Request(
        "/v1/messages",
        {**body, "sender": {"address": address}},
        f"message-{n}" if n % 4 == 1 else None,
    )


async def test_repeats_shuffled_over_eight_connections_come_to_one_message_each(
    ingest: Ingest,
    bootstrap: str,
    database: str,
    topic_prefix: str,
) -> None:
    rng = random.Random(SEED)
    requests = [request(n, f"Message number {n} is about a lamp") for n in range(MESSAGES)]
    copies = [rng.randint(1, COPIES_MAX) for _ in requests]
    sendings = [n for n in range(MESSAGES) for _ in range(copies[n])]
    rng.shuffle(sendings)
    answers: dict[int, list[httpx.Response]] = defaultdict(list)
    waiting = iter(sendings)

    async def connection() -> None:
        for n in waiting:
            answers[n].append(await ingest.send(requests[n]))

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    accepted: set[str] = set()
    for n, given in answers.items():
        assert [answer.status_code for answer in given] == [202] * copies[n], f"request {n}"
        ids = {answer.json()["id"] for answer in given}
        replayed = sum(answer.headers.get("idempotent-replayed") == "true" for answer in given)
        if requests[n].key is None:
            assert (len(ids), replayed) == (copies[n], 0), f"request {n}"
        else:
            assert (len(ids), replayed) == (1, copies[n] - 1), f"request {n}"
        accepted |= ids

    async def is_decided() -> bool:
        return accepted <= (await ingest.outcomes()).keys()

    await until("every accepted input has an outcome", is_decided, seconds=60)
    before = await ingest.outcomes()

    # The same key with another body is refused, and nothing has changed.
    keyed = [n for n in range(MESSAGES) if requests[n].key is not None]
    for n in keyed:
        refused = await ingest.send(request(n, "Something else under the same key"))
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["field"] == "Idempotency-Key"
    # Inputs of one correspondent are decided in order: a later one decided proves that nothing came before it.
    last = [
        Request(one.path, one.body | {field: f"The last of {n}"}, f"last-{n}")
        for n, one in enumerate(requests[:14])
        for field in ["message" if "message" in one.body else "text"]
    ]
    last = [
        one if one.path != "/v1/messages" else one._replace(body=one.body | {"id": f"last-{n}"})
        for n, one in enumerate(last)
    ]
    lasting = {(await ingest.send(one)).json()["id"] for one in last}

    async def is_over() -> bool:
        return lasting <= (await ingest.outcomes()).keys()

    await until("the last inputs have an outcome", is_over)
    after = await ingest.outcomes()
    assert {cause: told for cause, told in after.items() if cause not in lasting} == before
    assert before.keys() == accepted, "an outcome of an input that nobody accepted"

    told = Counter(before.values())
    assert len(accepted) == sum(told[one] for one in ("message", "duplicate", "ignored", "parked"))
    unkeyed = [n for n in range(MESSAGES) if requests[n].key is None]
    assert told == {"message": MESSAGES, "duplicate": sum(copies[n] - 1 for n in unkeyed)}
    for n, given in answers.items():
        of_this = Counter(before[one] for one in {answer.json()["id"] for answer in given})
        assert of_this["message"] == 1, f"request {n}: {of_this}"

    settings = make_settings(bootstrap, database, topic_prefix)

    async def said() -> Counter[str]:
        return Counter(
            event.content.text
            for _, event, _ in await read_topic(settings, "messages")
            if isinstance(event, MessageReceived)
        )

    expected = Counter(one.says for one in (*requests, *last))

    async def is_published() -> bool:
        return (await said()).keys() >= expected.keys()

    await until("every message is published", is_published)
    assert await said() == expected
