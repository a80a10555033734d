"""Keys and access tokens at the real gateway: made by the command line and by a real issuer, used, taken back, audited."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from chassis import auth, auth_tokens
from chassis.errors import Unavailable
from chassis.migrate import migrate
from chassis.web import Receive, Scope, Send, respond, serve
from tests.integration.kit import PARTITIONS, MakeTopic, until

ROOT = Path(__file__).parents[2]
OLD_KEY = "canary-of-a-key-of-channels-yaml"
CHANNELS = """
forms: {contact: {}}
messages: {kiosk: {channel: kiosk}}
api_keys: [{name: systems, secret: 'env:TEST_API_KEY', scopes: [messages]}]
"""
TICKET = "/v1/conversations/c-1/tickets/t-1"


@dataclass
class Issuer:
    """An OpenID provider with one key, on a port of this machine."""

    url: str = ""
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        self.asked += 1
        if scope["path"] == "/.well-known/openid-configuration":
            told: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        else:
            public = json.loads(ECAlgorithm.to_jwk(self.key.public_key()))
            told = {"keys": [public | {"kid": "k1", "use": "sig", "alg": "ES256"}]}
        await respond(send, 200, json.dumps(told).encode())

    def token(self, **claims: Any) -> str:
        at = int(time.time())
        made = {"iss": self.url, "aud": "signalbox", "exp": at + 300, "iat": at, **claims}
        return jwt.encode(made, self.key, algorithm="ES256", headers={"kid": "k1"})


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    bound: list[int] = []
    running = asyncio.create_task(
        serve(made, "127.0.0.1", 0, made.stopping, on_bound=bound.append, drain_seconds=1)
    )
    await until("the issuer listens", lambda: bound)
    made.url = f"http://127.0.0.1:{bound[0]}"
    yield made
    made.stopping.set()
    await running


@dataclass
class Running:
    """The gateway, its log, and commands on the same database."""

    http: httpx.AsyncClient
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    async def post(self, path: str, shown: str, body: dict[str, Any]) -> httpx.Response:
        return await self.http.post(path, json=body, headers={"Authorization": f"Bearer {shown}"})

    async def message(self, shown: str) -> int:
        body = {
            "channel": "kiosk",
            "account": "kiosk",
            "id": os.urandom(4).hex(),
            "sender": {"address": "a@example.com"},
            "text": "hello",
        }
        return (await self.post("/v1/messages", shown, body)).status_code

    async def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "cli.main", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def lines(self, event: str) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text(encoding="utf-8").splitlines():
            if f'"{event}"' in line:
                yield json.loads(line)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


@pytest.fixture
async def gateway(
    bootstrap: str,
    database: str,
    topic_prefix: str,
    make_topic: MakeTopic,
    tmp_path: Path,
    issuer: Issuer,
) -> AsyncIterator[Running]:
    for name in ("inbound", "messages", "commands", "roster", "dead-letters"):
        await make_topic(name, partitions=PARTITIONS)
    await migrate(database, "ingest", [ROOT / "services" / "ingest" / "sql"])
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    environment = os.environ | {
        "SIGNALBOX_KAFKA": bootstrap,
        "SIGNALBOX_DATABASE_URL": database,
        "SIGNALBOX_PARTITIONS": str(PARTITIONS),
        "SIGNALBOX_TOPIC_PREFIX": topic_prefix,
        "SIGNALBOX_POLICY": str(tmp_path),
        "SIGNALBOX_TOKEN_SECRET": "t" * 40,
        "SIGNALBOX_GATEWAY_PORT": "0",
        "SIGNALBOX_SMTP_ENABLED": "false",
        "SIGNALBOX_ATTACHMENTS_URL": "off",
        "SIGNALBOX_LOG_LEVEL": "warning",  # The audit is written whatever the level is.
        "SIGNALBOX_OIDC_ISSUER": issuer.url,
        "SIGNALBOX_OIDC_AUDIENCE": "signalbox",
        "SIGNALBOX_OIDC_INNER_HOSTS": "127.0.0.1",
        "TEST_API_KEY": OLD_KEY,
    }
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.ingest", "serve", "--stage", "gateway"],
            cwd=ROOT,
            # The port is told at the level of info; a free one is taken for the test instead.
            env=environment | {"SIGNALBOX_GATEWAY_PORT": str(port := free_port())},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
        )
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", timeout=20, trust_env=False
    ) as client:
        running = Running(client, process, log, environment)

        async def is_open() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            try:
                return (await client.get("/v1/openapi.json")).status_code == 200
            except httpx.TransportError:
                return False

        try:
            await until("the gateway answers", is_open, seconds=60)
            yield running
        finally:
            running.end()


def free_port() -> int:
    from chassis.local.processes import free_port as found

    return found()


async def test_a_key_opens_what_it_is_for_until_it_is_taken_back(
    gateway: Running, database: str
) -> None:
    made = await gateway.command("keys", "add", "kiosk", "--scope", "ingest", "--by", "grace")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert key.startswith("sbk_")
    assert key not in made.stderr

    async def is_known() -> bool:
        return await gateway.message(key) == 202

    await until("the gateway knows the key", is_known)
    refused = await gateway.post("/v1/notices", key, {})
    assert refused.status_code == 403
    assert refused.json()["field"] == "Authorization"
    assert await gateway.message(OLD_KEY) == 202  # Keys of channels.yaml go on.

    (listed,) = [
        json.loads(line)
        for line in (await gateway.command("keys", "list", "--json")).stdout.splitlines()
    ]
    assert (listed["name"], listed["scopes"], listed["created_by"]) == (
        "kiosk",
        ["ingest"],
        "grace",
    )
    taken = await gateway.command("keys", "revoke", "kiosk", "--by", "grace")
    assert taken.returncode == 0, taken.stderr

    async def is_refused() -> bool:
        return await gateway.message(key) == 401

    await until("the key opens nothing", is_refused)
    again = await gateway.command("keys", "revoke", listed["key_id"])
    assert again.returncode == 1
    assert "in force" in again.stderr

    gateway.end()
    connection = await asyncpg.connect(database, server_settings={"search_path": "ingest"})
    row = await connection.fetchrow("SELECT * FROM api_key")
    await connection.close()
    assert row["last_used_at"] is not None
    assert row["revoked_by"] == "grace"
    secret = key.rpartition("_")[2]
    shown = gateway.log.read_text(encoding="utf-8") + repr(row)
    assert secret not in shown
    assert bytes.fromhex(secret) != bytes(row["digest"])
    counted = [line for line in gateway.lines("access_counted") if line["by"] == "key"]
    assert counted[0]["subject"] == f"kiosk/{row['key_id']}"
    assert counted[0]["right"] == "messages"
    told = {(line["status"], line["reason"]) for line in gateway.lines("access_refused")}
    assert {(403, "forbidden"), (401, "unauthorized")} <= told


async def test_a_person_with_the_scope_agent_speaks_as_themselves_and_a_lead_for_others(
    gateway: Running, issuer: Issuer
) -> None:
    ada = issuer.token(sub="ada", scope="openid agent")
    note = {"text": "looked into it"}
    assert (
        await gateway.post(f"{TICKET}/note", ada, note | {"agent_id": "ada"})
    ).status_code == 202
    assert (await gateway.post(f"{TICKET}/note", ada, note)).status_code == 202
    other = await gateway.post(f"{TICKET}/note", ada, note | {"agent_id": "bob"})
    assert (other.status_code, other.json()["field"]) == (403, "agent_id")
    presence = {"presence": "available"}
    assert (await gateway.post("/v1/agents/bob/presence", ada, presence)).status_code == 403
    assert (await gateway.post("/v1/agents/ada/presence", ada, presence)).status_code == 202
    assert (await gateway.post("/v1/notices", ada, {})).status_code == 403
    lead = issuer.token(sub="lea", scope="lead")
    assert (await gateway.post("/v1/agents/bob/presence", lead, presence)).status_code == 202
    strange = issuer.token(sub="ada", scope="agent", aud="another-shop")
    assert (await gateway.post(f"{TICKET}/note", strange, note)).status_code == 401

    # The issuer goes: its keys are kept, so its people go on.
    issuer.stopping.set()
    later = issuer.token(sub="ada", scope="agent", jti="later")
    assert (await gateway.post(f"{TICKET}/note", later, note)).status_code == 202

    gateway.end()
    used = list(gateway.lines("access_used"))
    assert {(line["subject"], line["right"], line["status"]) for line in used} == {
        ("ada", "agents", 202),
        ("lea", "agents", 202),
    }
    assert used[0]["route"] == "/v1/conversations/{conversation_id}/tickets/{ticket_id}/{action}"
    assert used[0]["path"] == f"{TICKET}/note"
    objects = [line for line in gateway.lines("access_refused") if line["reason"] == "object"]
    assert {(line["subject"], line["status"]) for line in objects} == {("ada", 403)}
    said = gateway.log.read_text(encoding="utf-8")
    for shown in (ada, lead, strange, later):
        assert shown.rpartition(".")[2] not in said


async def test_a_key_that_ends_is_refused_from_its_instant_on_and_one_for_an_agent_is_theirs(
    gateway: Running,
) -> None:
    until_soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 8))
    made = await gateway.command(
        "keys", "add", "brief", "--scope", "ingest", "--expires", until_soon
    )
    bound = await gateway.command("keys", "add", "desk", "--scope", "agent", "--agent", "ada")
    desk = bound.stdout.strip()

    async def is_known() -> bool:
        presence = {"presence": "available"}
        return (await gateway.post("/v1/agents/ada/presence", desk, presence)).status_code == 202

    await until("the gateway knows the key", is_known)
    refused = await gateway.post("/v1/agents/bob/presence", desk, {"presence": "available"})
    assert refused.status_code == 403

    async def has_ended() -> bool:
        return await gateway.message(made.stdout.strip()) == 401

    await until("the brief key has ended", has_ended)


async def test_an_issuer_whose_address_leads_inside_is_asked_only_where_it_is_named(
    issuer: Issuer,
) -> None:
    """Else whoever may write its name, or answers for it, could send the gateway to what only it can reach."""
    ours = auth.Issuer(issuer.url, "signalbox")
    guarded = auth_tokens.IssuerKeys(ours)
    with pytest.raises(Unavailable):
        await guarded.get("k1")
    await guarded.close()
    assert issuer.asked == 0
    named = auth_tokens.IssuerKeys(ours, ["127.0.0.1"])
    assert (await named.get("k1")).key_id == "k1"
    await named.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("add", "kiosk", "--scope", "root"), "There is no scope 'root'"),
        (("add", "Kiosk", "--scope", "ingest"), "cannot name a key"),
        (("add", "kiosk", "--scope", "ingest", "--expires", "soon"), "instant"),
        (("add", "kiosk", "--scope", "ingest", "--expires", "2020-01-01T00:00:00Z"), "lie ahead"),
        (("add", "idp", "--scope", "scim", "--scope", "ingest", "--domain", "main"), "scim alone"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_made(
    words: tuple[str, ...], says: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "keys", *words, "--by", "grace"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr
