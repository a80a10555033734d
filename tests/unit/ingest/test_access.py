"""Who is held off, whose requests are kept apart, and what the audit and the settings do about those who mean harm."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from starlette.responses import Response
from structlog.testing import capture_logs
from typer.testing import CliRunner

import chassis.audit
from chassis.audit import Asked, Audit
from chassis.auth import Issuer, anybody
from chassis.auth_keys import KeyRing, StoredKey, new_key
from chassis.auth_tokens import IssuerKeys, TokenVerifier
from chassis.policy import PolicyHolder
from chassis.spool import PutResult, SpoolItem
from cli.keys import app as keys_command
from services.ingest import api
from services.ingest.handlers import POLICY
from services.ingest.paths import Paths
from services.ingest.settings import IngestSettings

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
SECRETS = {"env:JWT": b"eyJhbGciOi.eyJzdWIi.c2ln", "env:SBK": b"sbk_of-our-own-making"}
CHANNELS = """
events: {shop: {secrets: ['env:SHOP']}}
api_keys:
  - {name: one, secret: 'env:JWT', scopes: [roster]}
  - {name: other, secret: 'env:SBK', scopes: [roster]}
"""
ISSUER = Issuer("https://login.example.com", "signalbox")
NOTE = {"text": "looked into it"}
NOTE_PATH = "/v1/conversations/c-1/tickets/t-1/note"
KEYS = {name: new_key() for name in ("ada", "bob", "ended")}


class Clock:
    def now(self) -> datetime:
        return NOW


class Known:
    def get(self, reference: str) -> bytes | None:
        return SECRETS.get(reference)


class Kept:
    """A spool that keeps the names of what it was given."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def put(self, item: SpoolItem) -> PutResult:
        assert item.idempotency is not None
        self.names.append(item.idempotency[0])
        return PutResult(stored=True, answer=item.answer)


class Gateway:
    def __init__(self, folder: Path) -> None:
        (folder / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
        ring = KeyRing()
        ring.load(
            StoredKey(
                key_id,
                "desk",
                digest,
                ("agents", "notices"),
                agent_id=name,
                expires_at=NOW - timedelta(days=1) if name == "ended" else None,
            )
            for name, (key_id, _, digest) in KEYS.items()
        )
        self.spool = Kept()
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.paths = api.create_app(
            api.Deps(
                spool=self.spool,
                policies=PolicyHolder(folder, POLICY),
                clock=Clock(),
                secrets=Known(),
                keys=ring,
                tokens=TokenVerifier(ISSUER, IssuerKeys(ISSUER), Clock()),
                audit=Audit("shop", lambda event, **fields: self.said.append((event, fields))),
            )
        )
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.paths), base_url="http://gateway"
        )

    async def post(self, path: str, shown: str, body: Any, **headers: str) -> httpx.Response:
        given = {"Authorization": f"Bearer {shown}", **headers}
        return await self.http.post(path, json=body, headers=given)


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


async def test_a_key_that_ended_holds_nobody_else_at_its_address_off(gateway: Gateway) -> None:
    for _ in range(70):
        assert (await gateway.post(NOTE_PATH, KEYS["ended"][1], NOTE)).status_code == 401
    named = {"Idempotency-Key": "n"}
    assert (await gateway.post(NOTE_PATH, KEYS["ada"][1], NOTE, **named)).status_code == 202


async def test_two_keys_of_one_name_for_two_agents_keep_their_commands_apart(
    gateway: Gateway,
) -> None:
    for agent in ("ada", "bob"):
        told = await gateway.post(NOTE_PATH, KEYS[agent][1], NOTE, **{"Idempotency-Key": "n"})
        assert told.status_code == 202
    assert len(set(gateway.spool.names)) == 2


async def test_an_agent_tells_customers_nothing_in_anothers_name(gateway: Gateway) -> None:
    notice = {
        "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
        "agent_id": "bob",
        "occasion": "outage_known",
        "about": "payments",
        "title": "Payments by card",
        "text": "Cards are refused.",
    }
    named = {"Idempotency-Key": "n"}
    refused = await gateway.post("/v1/notices", KEYS["ada"][1], notice, **named)
    assert (refused.status_code, refused.json()["field"]) == (403, "agent_id")
    assert (await gateway.post("/v1/notices", KEYS["bob"][1], notice, **named)).status_code == 202


SIGNED = {
    "webhook-id": "m-1",
    "webhook-timestamp": str(int(NOW.timestamp())),
    "webhook-signature": "v1,AAAA",
}


async def test_a_refused_signature_is_audited(gateway: Gateway) -> None:
    assert (await gateway.http.post("/v1/events", json={}, headers=SIGNED)).status_code == 401
    ((event, fields),) = gateway.said
    assert (event, fields["route"], fields["right"]) == ("access_refused", "/v1/events", "events")


async def test_who_signed_wrongly_too_often_is_told_so_before_a_body_is_read(
    gateway: Gateway,
) -> None:
    for _ in range(60):
        await gateway.http.post("/v1/events", json={}, headers=SIGNED)
    too_large = b"x" * 1_000_000
    headers = SIGNED | {"content-type": "application/json"}
    told = await gateway.http.post("/v1/events", content=too_large, headers=headers)
    assert told.status_code == 429


@pytest.mark.parametrize("secret", SECRETS.values())
async def test_a_key_of_the_channels_file_may_look_like_any_other(
    gateway: Gateway, secret: bytes
) -> None:
    told = await gateway.post("/v1/agents/ada/presence", secret.decode(), {})
    assert told.status_code == 403  # Known, and not for this.


async def test_a_mistake_of_ours_is_logged_without_the_path_that_was_asked_for(
    gateway: Gateway,
) -> None:
    async def fails(_: Any) -> Response:
        raise RuntimeError("a mistake")

    paths: Paths = gateway.paths
    paths.add("/v1/hooks/{secret}", ("POST",), fails, anybody("a test"))
    with capture_logs() as lines:
        assert (await gateway.http.post("/v1/hooks/canary")).status_code == 500
    (line,) = [one for one in lines if one["event"] == "request_failed"]
    assert line["route"] == "/v1/hooks/{secret}"
    assert "canary" not in json.dumps({name: str(value) for name, value in line.items()})


async def test_what_was_counted_is_told_of_though_nothing_more_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chassis.audit, "COUNT_SECONDS", 0.01)
    told = asyncio.Event()
    audit = Audit("shop", lambda *_, **__: told.set(), now=lambda: 0.0)
    caller = StoredKey("a" * 12, "kiosk", b"", ("ingest",)).caller()
    audit.used(caller, Asked("POST", "/v1/messages", "/v1/messages", "192.0.2.1", "messages"), 202)
    stopping = asyncio.Event()
    running = asyncio.create_task(audit.run(stopping))
    await asyncio.wait_for(told.wait(), 10)
    stopping.set()
    await running


@pytest.mark.parametrize(
    ("url", "is_fine"),
    [
        ("https://login.example.com/keys", True),
        ("http://127.0.0.1:9000/keys", True),
        ("http://keycloak.auth.svc/keys", True),
        ("http://login.example.com/keys", False),
    ],
)
def test_an_issuers_keys_are_asked_for_in_clear_only_inside(url: str, is_fine: bool) -> None:
    def settings() -> IngestSettings:
        return IngestSettings(
            kafka="k:1",
            database_url="postgresql://db/x",  # type: ignore[arg-type]
            oidc_keys_url=url,
            oidc_inner_hosts="keycloak.auth.svc",
        )

    if is_fine:
        assert settings().oidc_keys_url == url
    else:
        with pytest.raises(ValidationError, match="in clear"):
            settings()


def test_an_empty_agent_makes_no_key_that_speaks_as_anybody() -> None:
    words = ["add", "desk", "--scope", "agent", "--agent", "", "--by", "grace"]
    done = CliRunner().invoke(keys_command, words)
    assert done.exit_code != 0
    assert "--agent is empty" in f"{done.output}{done.exception}"
