"""Every route says what it needs, and holds to it before a byte of the body is read."""

import ast
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.responses import Response

from chassis import health
from chassis.audit import Audit
from chassis.auth import Permission, anybody, needs
from chassis.auth_keys import KeyRing, StoredKey, new_key
from chassis.policy import PolicyHolder
from schemas.scopes import RIGHTS, SCOPES, Right, opened, opened_by
from services.ingest import api, feedback, openapi, scim, ticket_view, webchat, webhooks
from services.ingest.adapters.accounts import PublishedKeys
from services.ingest.core.pace import Pace
from services.ingest.handlers import POLICY
from services.ingest.paths import Paths

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
CHANNELS = """
scim: {main: {}}
api_keys: [{name: old, secret: 'env:OLD', scopes: [agents]}]
"""
KEYS = {right: new_key() for right in RIGHTS}
"""One key a right: its id, the key, its digest."""


class Clock:
    def now(self) -> datetime:
        return NOW


class Known:
    def get(self, reference: str) -> bytes | None:
        return b"the-old-key" if reference == "env:OLD" else None


class Lines(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, **fields: Any) -> None:
        self.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self if name == event]


@pytest.fixture
def said() -> Lines:
    return Lines()


@pytest.fixture
def app(tmp_path: Path, said: Lines) -> Paths:
    """The gateway with all its parts, as `services.ingest.app` puts it together; what they stand on is not there."""
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    ring = KeyRing()
    ring.load(
        StoredKey(key_id, f"key-{right}", digest, (right,))
        for right, (key_id, _, digest) in KEYS.items()
    )
    nothing: Any = None
    given: dict[str, Any] = {
        "spool": nothing,
        "policies": PolicyHolder(tmp_path, POLICY),
        "clock": Clock(),
        "secrets": Known(),
    }
    view = ticket_view.Deps(nothing, ticket_view.Waiters("", 1), Clock(), 4)
    made = api.create_app(
        api.Deps(
            **given,
            tickets=ticket_view.TicketView(view),
            keys=ring,
            audit=Audit("shop", said),
        )
    )
    openapi.mount(made)
    chat = webchat.Deps(**given, pool=nothing, hub=webchat.Hub(""), secret=b"s" * 40)
    webchat.mount(made, webchat.Webchat(chat))
    scim.mount(made, scim.Deps(store=nothing, policies=given["policies"], clock=Clock()))
    feedback.mount(made, feedback.Feedback(nothing, nothing, Clock(), b"s" * 40))
    webhooks.mount(
        made,
        webhooks.Webhooks(
            **given,
            keys=PublishedKeys(),
            workspace="shop",
            body_bytes_max=10_000,
            body_seconds=1.0,
            per_account=Pace(10),
            per_address=Pace(10),
        ),
    )
    return made


class Answer(NamedTuple):
    """What was answered, and whether the body was asked for: it never comes, its sender has hung up."""

    status: int
    problem: dict[str, Any]
    was_read: bool


async def ask(
    app: Paths, method: str, path: str, key: str = "", client: str = "192.0.2.1"
) -> Answer:
    headers = [(b"content-type", b"application/json")]
    if key:
        headers.append((b"authorization", f"Bearer {key}".encode()))
    sent: list[Any] = []
    reads = 0

    async def receive() -> Any:
        nonlocal reads
        reads += 1
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": headers,
        "client": (client, 1),
    }
    await app(scope, receive, send)
    return Answer(sent[0]["status"], json.loads(sent[1].get("body") or b"{}"), reads > 0)


def guarded(app: Paths) -> list[tuple[str, str, Right]]:
    return [
        (method, path, permission.right)
        for (method, path), permission in app.permissions.items()
        if permission.right is not None
    ]


def concrete(path: str) -> str:
    return path.replace("{domain}", "main").replace("{", "").replace("}", "")


def test_every_route_declares_what_it_needs(app: Paths) -> None:
    answered = {(method, path) for path, methods in app.added.items() for method in methods}
    assert answered == {key for key in app.permissions if key[0] != "WEBSOCKET"}
    for permission in app.permissions.values():
        assert permission.right in RIGHTS or permission.why.startswith(("anybody: ", "proved: "))
    assert {right for _, _, right in guarded(app)} == set(RIGHTS)


def test_a_route_without_a_declaration_cannot_be_added(app: Paths) -> None:
    async def handler(_: Any) -> Response:
        return Response()

    with pytest.raises(TypeError, match="permission"):
        app.add("/v1/forgotten", ("GET",), handler)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="WebSocket cannot show a key"):
        app.add_socket("/v1/widget/x/y", handler, needs("agents"))  # type: ignore[arg-type]


def test_nobody_else_in_the_product_serves_http() -> None:
    """A new port would escape the test above: it stands here, with its own declaration, or it fails."""
    serving = set()
    for folder in ("chassis", "services", "cli"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            if "chassis.web" not in text and "uvicorn" not in text:
                continue
            tree = ast.parse(text)
            names = {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom) and node.module == "chassis.web"
                for alias in node.names
            }
            modules = {
                alias.name.partition(".")[0]
                for node in ast.walk(tree)
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            if "serve" in names or "uvicorn" in modules:
                serving.add(str(file.relative_to(ROOT)))
    assert serving == {"chassis/web.py", "chassis/lifecycle.py", "services/ingest/app.py"}
    assert set(health.PATHS) == {"/health/live", "/health/ready", "/metrics"}
    assert all(one.right is None and one.why for one in health.PATHS.values())


async def test_without_a_key_every_guarded_route_is_401_and_no_body_is_read(app: Paths) -> None:
    for n, (method, path, _) in enumerate(guarded(app)):
        answer = await ask(app, method, concrete(path), client=f"192.0.2.{n}")
        assert (answer.status, answer.was_read) == (401, False), (method, path)
        assert "Authorization" in answer.problem["detail"]


async def test_with_another_right_every_guarded_route_is_403_and_no_body_is_read(
    app: Paths,
) -> None:
    for method, path, right in guarded(app):
        for other in RIGHTS:
            if other == right:
                continue
            answer = await ask(app, method, concrete(path), KEYS[other][1])
            assert (answer.status, answer.was_read) == (403, False), (method, path, other)


async def test_with_the_right_the_handler_is_reached(app: Paths) -> None:
    """Which then wants the body, where there is one; in no case is it the door that turns away."""
    for method, path, right in guarded(app):
        if method == "GET" or path.startswith("/scim/") or path.endswith(("/typing", "/visitor")):
            continue  # They look into a database first.
        answer = await ask(app, method, concrete(path), KEYS[right][1])
        assert answer.was_read or answer.status == 404, (method, path)


async def test_keys_of_the_channels_file_go_on_opening_what_they_did(app: Paths) -> None:
    assert (await ask(app, "POST", "/v1/offers/r/accept", "the-old-key")).was_read
    assert (await ask(app, "POST", "/v1/notices", "the-old-key")).status == 403


def test_the_description_says_which_scopes_open_what(app: Paths) -> None:
    described = openapi.document()
    schemes = described["components"]["securitySchemes"]
    assert {"key", "token", "signature"} <= schemes.keys()
    for (method, path), permission in app.permissions.items():
        if path.startswith("/scim/") or method == "WEBSOCKET" or path not in described["paths"]:
            continue
        told = described["paths"][path].get(method.lower(), {}).get("security", [])
        named = {scheme: scopes for one in told for scheme, scopes in one.items()}
        if permission.right is None:
            assert not named.keys() & {"key", "token"}, (method, path)
        else:
            wanted = list(opened_by(permission.right))
            assert named["key"] == named["token"] == wanted, (method, path)


def test_scopes_open_rights_and_unknown_words_open_nothing() -> None:
    assert opened(["ingest"]) == {"messages", "events"}
    assert opened(["agent"]) == {"agents"}
    assert opened(["lead"]) == {"agents", "roster", "notices"}
    assert opened(["admin"]) == set(RIGHTS)
    assert opened(["root", "Admin", ""]) == frozenset()
    assert all(opened([scope]) for scope in SCOPES)
    assert all("admin" in opened_by(right) for right in RIGHTS)


# ------------------------------------------------------------------------------------------------- the audit


async def test_the_audit_says_who_used_which_right_for_what(app: Paths, said: Lines) -> None:
    key_id, key, _ = KEYS["roster"]
    await ask(app, "PUT", "/v1/agents/ada", key)
    (line,) = said.of("access_used")
    assert line == {
        "workspace": "shop",
        "by": "key",
        "subject": f"key-roster/{key_id}",
        "right": "roster",
        "method": "PUT",
        "route": "/v1/agents/{agent_id}",
        "path": "/v1/agents/ada",
        "status": 400,  # The body never comes.
    }


async def test_who_is_turned_away_is_audited_with_the_reason_and_without_what_they_showed(
    app: Paths, said: Lines
) -> None:
    await ask(app, "PUT", "/v1/agents/ada", "canary-of-a-wrong-key")
    await ask(app, "PUT", "/v1/agents/ada", KEYS["agents"][1])
    unknown, lacking = said.of("access_refused")
    assert (unknown["by"], unknown["status"], unknown["reason"]) == ("unknown", 401, "unauthorized")
    assert (lacking["by"], lacking["status"], lacking["reason"]) == ("key", 403, "forbidden")
    assert lacking["subject"].startswith("key-agents/")
    assert "canary" not in repr(said)
    assert KEYS["agents"][1] not in repr(said)


def asked(right: Right = "messages") -> Any:
    from chassis.audit import Asked

    return Asked("POST", "/v1/messages", "/v1/messages", "192.0.2.1", right)


def test_what_systems_post_is_counted_and_told_of_once_a_minute(said: Lines) -> None:
    seconds = [0.0]
    audit = Audit("shop", said, lambda: seconds[0])
    caller = StoredKey("a" * 12, "kiosk", b"", ("ingest",)).caller()
    for _ in range(1_000):
        audit.used(caller, asked(), 202)
    assert said == []
    seconds[0] = 60.0
    audit.used(caller, asked(), 202)
    (line,) = said.of("access_counted")
    assert (line["subject"], line["count"], line["status"]) == ("kiosk/aaaaaaaaaaaa", 1_000, 202)
    audit.flush()
    assert [one["count"] for one in said.of("access_counted")] == [1_000, 1]


def test_a_flood_of_refusals_is_told_of_by_its_number(said: Lines) -> None:
    seconds = [0.0]
    audit = Audit("shop", said, lambda: seconds[0])
    for _ in range(1_000):
        audit.refused(asked(), 401, "unauthorized")
    assert len(said.of("access_refused")) == 300
    seconds[0] = 60.0
    audit.refused(asked(), 401, "unauthorized")
    assert said.of("access_refused_more") == [{"workspace": "shop", "count": 700}]
    assert len(said.of("access_refused")) == 301


def test_no_log_level_silences_the_audit(
    configure_logs: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("ingest", "json", "error")
    caller = StoredKey("a" * 12, "helpdesk", b"", ("agents",)).caller()
    Audit("shop").used(caller, asked("agents"), 202)
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told["event"] == "access_used"
    assert told["part"] == "audit"
    assert told["subject"] == "helpdesk/aaaaaaaaaaaa"


def test_a_permission_that_is_open_says_why() -> None:
    assert anybody("a page").why == "anybody: a page"
    assert needs("agents") == Permission("agents")
