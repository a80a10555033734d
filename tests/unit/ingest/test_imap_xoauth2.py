"""Logging in to a mailbox with an access token: the published bytes, a server's refusal, and where tokens come from."""

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from imapclient import IMAPClient
from imapclient.exceptions import LoginError
from pydantic import ValidationError

from services.ingest.adapters import imap
from services.ingest.adapters.imap import ImapPoller
from services.ingest.adapters.secrets import Secrets
from services.ingest.core.policy import ImapSource

OAUTH = {"client_id": "c", "client_secret": "env:XO_SECRET", "refresh_token": "env:XO_REFRESH"}


@pytest.mark.parametrize(
    ("user", "token", "encoded"),
    [
        (
            "someuser@example.com",
            "ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg",
            "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB5YTI5LnZGOWRmdDRxbVRjMk52YjNSbGNrQmhk"
            "SFJoZG1semRHRXVZMjl0Q2cBAQ==",
        ),
        (
            "support@example.com",
            "ya29.OMNITICK",
            "dXNlcj1zdXBwb3J0QGV4YW1wbGUuY29tAWF1dGg9QmVhcmVyIHlhMjkuT01OSVRJQ0sBAQ==",
        ),
    ],
)
def test_the_first_answer_is_the_published_one(user: str, token: str, encoded: str) -> None:
    assert base64.b64encode(imap.xoauth2(user, token).encode()).decode() == encoded


@contextmanager
def server(token: str) -> Iterator[tuple[int, list[bytes]]]:
    """Run an IMAP server that knows XOAUTH2 and no more; yield its port and what it was told."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb", buffering=0) as wire:
            wire.write(b"* OK ready\r\n")
            while line := wire.readline():
                tag, _, rest = line.strip().partition(b" ")
                command = rest.split(b" ")[0].upper()
                if command == b"CAPABILITY":
                    wire.write(b"* CAPABILITY IMAP4REV1 AUTH=XOAUTH2\r\n" + tag + b" OK done\r\n")
                elif command == b"AUTHENTICATE":
                    _authenticate(wire, tag, heard, token)
                elif command == b"LOGOUT":
                    wire.write(b"* BYE\r\n" + tag + b" OK done\r\n")
                    return
                else:
                    wire.write(tag + b" BAD what\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.close()
        thread.join(5)


def _authenticate(wire: Any, tag: bytes, heard: list[bytes], token: str) -> None:
    wire.write(b"+ \r\n")
    said = wire.readline().strip()
    heard.append(said)
    if base64.b64decode(said).decode() == f"user=u@example.com\x01auth=Bearer {token}\x01\x01":
        wire.write(tag + b" OK in\r\n")
        return
    challenge = json.dumps({"status": "400", "schemes": "Bearer"}).encode()
    wire.write(b"+ " + base64.b64encode(challenge) + b"\r\n")
    heard.append(wire.readline().strip())
    wire.write(tag + b" NO [AUTHENTICATIONFAILED] Invalid credentials\r\n")


def test_a_right_token_logs_in() -> None:
    with server("good") as (port, heard):
        client = IMAPClient("127.0.0.1", port=port, ssl=False, timeout=5)
        imap.login_xoauth2(client, "u@example.com", "good")
        client.logout()
    assert len(heard) == 1


def test_a_refusal_is_closed_with_an_empty_answer_and_told() -> None:
    with server("good") as (port, heard):
        client = IMAPClient("127.0.0.1", port=port, ssl=False, timeout=5)
        with pytest.raises(LoginError) as refused:
            imap.login_xoauth2(client, "u@example.com", "bad")
        client.shutdown()
    assert heard[1] == b""
    assert "bad" not in str(refused.value)


def poller(answer: Callable[[httpx.Request], httpx.Response], **changes: Any) -> ImapPoller:
    source = ImapSource(**({"host": "h", "user": "u", "auth": "xoauth2", "oauth": OAUTH} | changes))
    return ImapPoller(
        "support",
        source,
        spool=None,  # type: ignore[arg-type]
        pool=None,  # type: ignore[arg-type]
        clock=None,  # type: ignore[arg-type]
        secrets=Secrets(),
        workspace="main",
        poll_seconds=1.0,
        new_client=lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer)),
    )


async def test_an_access_token_is_asked_for_once_with_the_refresh_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XO_SECRET", "s3cret")
    monkeypatch.setenv("XO_REFRESH", "r3fresh")
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((str(request.url), request.content.decode()))
        return httpx.Response(200, json={"access_token": f"a{len(asked)}", "expires_in": 3599})

    one = poller(answer)
    assert await one._login_secret() == "a1"
    assert await one._login_secret() == "a1"
    url, form = asked[0]
    assert url == "https://oauth2.googleapis.com/token"
    assert form == "grant_type=refresh_token&refresh_token=r3fresh&client_id=c&client_secret=s3cret"
    one._forget_token()
    assert await one._login_secret() == "a2"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, LoginError), (401, LoginError), (503, ConnectionError), (429, ConnectionError)],
)
async def test_no_token_is_a_login_that_fails_or_one_to_try_again(
    status: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XO_SECRET", "s3cret")
    monkeypatch.setenv("XO_REFRESH", "r3fresh")
    one = poller(lambda _: httpx.Response(status, json={"error": "invalid_grant"}))
    with pytest.raises(kind) as problem:
        await one._login_secret()
    assert "r3fresh" not in str(problem.value)


async def test_missing_secrets_are_a_login_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XO_SECRET", raising=False)
    monkeypatch.setenv("XO_REFRESH", "r3fresh")
    with pytest.raises(LoginError):
        await poller(lambda _: httpx.Response(500))._login_secret()
    monkeypatch.delenv("XO_REFRESH")
    with pytest.raises(LoginError):
        await poller(lambda _: httpx.Response(500))._login_secret()


@pytest.mark.parametrize(
    ("changes", "named"),
    [({}, "password"), ({"auth": "xoauth2"}, "oauth"), ({"auth": "kerberos"}, "auth")],
)
def test_a_mailbox_that_nobody_could_log_in_to_is_refused(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        ImapSource.model_validate({"host": "h", "user": "u", **changes})


def test_the_secrets_a_login_needs_are_told_for_the_doctor() -> None:
    by_password = ImapSource(host="h", user="u", password="env:P")
    assert by_password.references == ("env:P",)
    by_token = ImapSource.model_validate(
        {"host": "h", "user": "u", "auth": "xoauth2", "oauth": OAUTH}
    )
    assert by_token.references == ("env:XO_SECRET", "env:XO_REFRESH")
