"""The SMTP provider against a real SMTP server that misbehaves on demand.

What counts is told apart by the server's own log: a mail that was refused may be tried again, a mail that was handed
over without an answer may not.
"""

import asyncio
import email
import email.policy
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from msgspec import structs

from services.notifier.adapters.smtp import SmtpOptions, SmtpProvider
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Trouble
from services.notifier.core.state import Mail

MAIL = Mail(
    from_name="Lantern & Oak",
    from_address="support@lantern-oak.example",
    to_address="ada@example.com",
    envelope_from="support+sb.token@lantern-oak.example",
    reply_to="support+sb.token@lantern-oak.example",
    subject="Re: Lambam hâlâ gelmedi",
    text="Hello Ada,\n.\n..\nFrom here\n",
    html="<p>Hello Ada,</p>\n",
    language="en",
    date=datetime.fromisoformat("2026-11-24T08:00:00+00:00"),
    message_id="<sb.token.notice@lantern-oak.example>",
    in_reply_to=None,
    references=(),
    headers=(("Auto-Submitted", "auto-replied"),),
)

OK = "250 2.0.0 queued as 4X"
ABORT = "abort"
SILENCE = "silence"


class MailServer:
    """Keeps what arrives and answers by script: `script[command]` is a list of answers, used up in order.

    `ABORT` cuts the connection in place of an answer, `SILENCE` holds the answer back until `go_on` is set.
    """

    def __init__(self) -> None:
        self.script: dict[str, list[str]] = {}
        self.mails: list[Envelope] = []
        self.connections = 0
        self.content_seen = asyncio.Event()
        self.go_on = asyncio.Event()
        self.port = 0
        self.transports: list[Any] = []

    async def _answer(self, command: str, server: SMTP, default: str) -> str:
        answers = self.script.get(command, [])
        answer = answers.pop(0) if answers else default
        if answer == SILENCE:
            await self.go_on.wait()
            return default
        if answer == ABORT:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return answer

    async def handle_MAIL(  # noqa: N802 - aiosmtpd names its hooks by their commands
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._answer("MAIL", server, "250 OK")
        if answer.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return answer

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = await self._answer("RCPT", server, "250 OK")
        if answer.startswith("2"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.content_seen.set()
        self.mails.append(envelope)
        return await self._answer("DATA", server, OK)


class CountingSMTP(SMTP):
    """Counts connections, and refuses the greeting where the script says so."""

    def __init__(self, mail_server: MailServer, **options: Any) -> None:
        super().__init__(mail_server, hostname="mx.example", enable_SMTPUTF8=False, **options)
        self._mail_server = mail_server

    def connection_made(self, transport: Any) -> None:
        self._mail_server.connections += 1
        self._mail_server.transports.append(transport)
        super().connection_made(transport)


@pytest.fixture(autouse=True)
def _quiet_server() -> None:
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)


Serve = Callable[..., Awaitable[MailServer]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """`await serve()` starts a mail server on a free port of this host."""
    running: list[tuple[asyncio.Server, MailServer]] = []

    async def start(**options: Any) -> MailServer:
        mail_server = MailServer()
        listener = await asyncio.get_running_loop().create_server(
            lambda: CountingSMTP(mail_server, **options), "127.0.0.1", 0
        )
        mail_server.port = listener.sockets[0].getsockname()[1]
        running.append((listener, mail_server))
        return mail_server

    yield start
    for listener, mail_server in running:
        mail_server.go_on.set()
        listener.close()
        for transport in mail_server.transports:
            transport.abort()
        await listener.wait_closed()


Connect = Callable[..., SmtpProvider]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`connect(server)` gives a provider that is closed at the end."""
    made: list[SmtpProvider] = []

    def make(server: MailServer, **changes: Any) -> SmtpProvider:
        options: dict[str, Any] = {
            "tls": "none",
            "connect_seconds": 5.0,
            "command_seconds": 5.0,
            "accept_seconds": 5.0,
            **changes,
        }
        provider = SmtpProvider(SmtpOptions("127.0.0.1", server.port, **options))
        made.append(provider)
        return provider

    yield make
    for provider in made:
        await provider.close()


def _is_recoverable(result: Attempted) -> bool:
    assert isinstance(result, Failed), result
    return result.is_recoverable


async def test_a_mail_arrives_as_it_was_meant(serve: Serve, connect: Connect) -> None:
    server = await serve()
    result = await connect(server).send(MAIL)
    assert result == Delivered("2.0.0 queued as 4X", MAIL.message_id)
    (envelope,) = server.mails
    assert envelope.mail_from == MAIL.envelope_from
    assert envelope.rcpt_tos == [MAIL.to_address]
    assert isinstance(envelope.content, bytes)
    parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert parsed["Subject"] == MAIL.subject
    assert parsed["Message-ID"] == MAIL.message_id
    text, html = parsed.iter_parts()
    assert text.get_content().replace("\r\n", "\n") == MAIL.text
    assert html.get_content().replace("\r\n", "\n") == MAIL.html


async def test_an_empty_envelope_sender_is_sent_as_one(serve: Serve, connect: Connect) -> None:
    server = await serve()
    result = await connect(server).send(structs.replace(MAIL, envelope_from=""))
    assert isinstance(result, Delivered)
    assert server.mails[0].mail_from in {"", "<>"}


async def test_a_greylisted_mail_is_accepted_the_second_time(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    server.script["RCPT"] = ["451 4.7.1 greylisted, try again later"]
    provider = connect(server)
    first = await provider.send(MAIL)
    assert first == Failed(
        "451 4.7.1 greylisted, try again later", is_recoverable=True, trouble=Trouble.PROVIDER
    )
    assert server.mails == []
    assert isinstance(await provider.send(MAIL), Delivered)
    assert len(server.mails) == 1
    assert server.connections == 1


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
@pytest.mark.parametrize(
    ("answer", "is_recoverable"),
    [("450 4.2.1 busy", True), ("452 4.3.1 full", True), ("550 5.1.1 no such user", False), ("554 5.7.1 spam", False)],
)  # fmt: skip
async def test_4xx_is_not_now_and_5xx_is_never(
    serve: Serve, connect: Connect, command: str, answer: str, is_recoverable: bool
) -> None:
    server = await serve()
    server.script[command] = [answer]
    provider = connect(server)
    result = await provider.send(MAIL)
    assert isinstance(result, Failed)
    assert (result.reason, result.is_recoverable) == (answer, is_recoverable)
    assert isinstance(await provider.send(MAIL), Delivered)  # The connection is fit for the next.


async def test_a_server_that_closes_asks_for_a_pause(serve: Serve, connect: Connect) -> None:
    server = await serve()
    server.script["MAIL"] = ["421 4.3.2 closing"]
    result = await connect(server).send(MAIL)
    assert result == Failed("421 4.3.2 closing", True, timedelta(minutes=1), Trouble.PROVIDER)


async def test_a_connection_lost_after_the_content_is_unknown(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    server.script["DATA"] = [ABORT]
    provider = connect(server)
    assert await provider.send(MAIL) == Unknown("connection lost after the mail was handed over")
    assert len(server.mails) == 1  # The server has it all the same: sending again would double it.


@pytest.mark.parametrize("command", ["MAIL", "RCPT"])
async def test_a_connection_lost_before_the_content_may_be_tried_again(
    serve: Serve, connect: Connect, command: str
) -> None:
    server = await serve()
    server.script[command] = [ABORT]
    assert _is_recoverable(await connect(server).send(MAIL))
    assert server.mails == []


async def test_a_server_that_hangs_after_the_content_leaves_it_unknown(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    server.script["DATA"] = [SILENCE]
    result = await connect(server, accept_seconds=0.2).send(MAIL)
    assert result == Unknown("no answer after the mail was handed over")
    assert len(server.mails) == 1


async def test_a_server_that_hangs_before_the_content_may_be_tried_again(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    server.script["RCPT"] = [SILENCE]
    result = await connect(server, command_seconds=0.2).send(MAIL)
    assert result == Failed(
        "the mail server did not answer in time", is_recoverable=True, trouble=Trouble.PROVIDER
    )
    assert server.mails == []


async def test_a_slow_answer_is_waited_for(serve: Serve, connect: Connect) -> None:
    server = await serve()
    server.script["DATA"] = [SILENCE]
    sending = asyncio.create_task(connect(server).send(MAIL))
    await server.content_seen.wait()
    assert not sending.done()
    server.go_on.set()
    assert isinstance(await sending, Delivered)


async def test_a_hanging_mail_does_not_hold_up_the_others(serve: Serve, connect: Connect) -> None:
    server = await serve()
    server.script["DATA"] = [SILENCE]
    provider = connect(server, connections=2)
    hanging = asyncio.create_task(provider.send(MAIL))
    await server.content_seen.wait()
    for _ in range(3):
        assert isinstance(await provider.send(MAIL), Delivered)
    assert not hanging.done()
    server.go_on.set()
    assert isinstance(await hanging, Delivered)


async def test_no_more_connections_than_allowed_and_each_used_again(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    provider = connect(server, connections=3)
    results = await asyncio.gather(*(provider.send(MAIL) for _ in range(30)))
    assert all(isinstance(result, Delivered) for result in results)
    assert len(server.mails) == 30
    assert server.connections <= 3


async def test_an_idle_connection_that_the_server_closed_costs_no_attempt(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    provider = connect(server)
    await provider.send(MAIL)
    server.script["MAIL"] = [ABORT]  # It closes as the next mail begins.
    assert isinstance(await provider.send(MAIL), Delivered)
    assert len(server.mails) == 2
    assert server.connections == 2


async def test_a_connection_idle_for_too_long_is_not_used(serve: Serve, connect: Connect) -> None:
    server = await serve()
    provider = connect(server, idle_seconds=0.0)
    await provider.send(MAIL)
    await provider.send(MAIL)
    assert server.connections == 2


async def test_a_server_that_is_away_may_be_tried_again(connect: Connect) -> None:
    nobody = MailServer()
    listener = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    nobody.port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    assert _is_recoverable(await connect(nobody).send(MAIL))


async def test_a_server_that_never_greets_may_be_tried_again(connect: Connect) -> None:
    mute = MailServer()
    listener = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    mute.port = listener.sockets[0].getsockname()[1]
    try:
        assert _is_recoverable(await connect(mute, connect_seconds=0.2).send(MAIL))
    finally:
        listener.close()


@pytest.mark.parametrize(
    "greeting", [b"554 5.3.2 not now\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff\xff\r\n"]
)
async def test_a_port_that_speaks_otherwise_may_be_tried_again(
    connect: Connect, greeting: bytes
) -> None:
    class Greets(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.write(greeting)
            transport.close()

    other = MailServer()
    listener = await asyncio.get_running_loop().create_server(Greets, "127.0.0.1", 0)
    other.port = listener.sockets[0].getsockname()[1]
    try:
        assert _is_recoverable(await connect(other).send(MAIL))
    finally:
        listener.close()


async def test_nothing_is_sent_in_clear_where_starttls_is_set(
    serve: Serve, connect: Connect
) -> None:
    server = await serve()
    result = await connect(server, tls="starttls").send(MAIL)
    assert _is_recoverable(result)
    assert server.mails == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_a_login_that_fails_says_nothing_about_the_mail_and_shows_no_password(
    serve: Serve, connect: Connect
) -> None:
    server = await serve(
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_require_tls=False,
        auth_required=True,
    )
    result = await connect(server, user="signalbox", password="hunter2").send(MAIL)
    assert result == Failed(
        "the mail server refused our login: 535", is_recoverable=True, trouble=Trouble.ACCOUNT
    )
    assert server.mails == []
    assert "hunter2" not in repr(result)
    assert "hunter2" not in repr(SmtpOptions("h", 25, password="hunter2"))


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
async def test_a_login_that_succeeds_sends(serve: Serve, connect: Connect) -> None:
    server = await serve(
        authenticator=lambda *_: AuthResult(success=True),
        auth_require_tls=False,
        auth_required=True,
    )
    result = await connect(server, user="signalbox", password="hunter2").send(MAIL)
    assert isinstance(result, Delivered)


async def test_a_mail_that_cannot_be_built_is_never_sent(serve: Serve, connect: Connect) -> None:
    server = await serve()
    result = await connect(server).send(structs.replace(MAIL, subject="a\r\nBcc: eve@example.com"))
    assert not _is_recoverable(result)
    assert "eve" not in repr(result)
    assert server.connections == 0


async def test_a_cancelled_send_leaves_no_connection_behind(serve: Serve, connect: Connect) -> None:
    server = await serve()
    server.script["DATA"] = [SILENCE]
    provider = connect(server, connections=1)
    sending = asyncio.create_task(provider.send(MAIL))
    await server.content_seen.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert isinstance(await provider.send(MAIL), Delivered)
    assert server.connections == 2


@pytest.mark.parametrize(
    ("command", "answer", "trouble"),
    [
        ("RCPT", "550 5.1.1 no such user", Trouble.ADDRESS),
        ("RCPT", "550 5.2.1 mailbox disabled", Trouble.ADDRESS),
        ("RCPT", "550 no such user", Trouble.ADDRESS),
        ("RCPT", "553 5.1.3 bad address syntax", Trouble.ADDRESS),
        ("RCPT", "550 5.7.1 blocked by policy", Trouble.MESSAGE),
        ("RCPT", "552 5.2.2 mailbox full", Trouble.MESSAGE),
        ("RCPT", "554 5.7.1 relay denied", Trouble.MESSAGE),
        ("DATA", "554 5.7.1 spam", Trouble.MESSAGE),
        ("DATA", "550 5.1.1 too late for that", Trouble.MESSAGE),
        ("MAIL", "530 5.7.0 authentication required", Trouble.ACCOUNT),
    ],
)
async def test_a_refusal_says_whose_trouble_it_is(
    serve: Serve, connect: Connect, command: str, answer: str, trouble: Trouble
) -> None:
    """Only what is surely wrong with the address itself leads to an address that is left alone."""
    server = await serve()
    server.script[command] = [answer]
    result = await connect(server).send(MAIL)
    assert isinstance(result, Failed)
    assert (result.trouble, result.is_recoverable) == (trouble, trouble is Trouble.ACCOUNT)


async def test_a_mail_that_waits_for_a_connection_when_the_process_stops_was_surely_not_sent(
    serve: Serve, connect: Connect
) -> None:
    """Whoever waits is not told from whoever is under way when the process ends: it would be unknown for good."""
    server = await serve()
    server.script["DATA"] = [SILENCE]
    provider = connect(server, connections=1)
    under_way = asyncio.create_task(provider.send(MAIL))
    await server.content_seen.wait()
    waiting = [asyncio.create_task(provider.send(MAIL)) for _ in range(3)]
    await asyncio.sleep(0)
    await provider.close()
    for one in waiting:
        assert _is_recoverable(await asyncio.wait_for(one, 5))
    assert _is_recoverable(await provider.send(MAIL)), "nor is one that comes later"
    server.go_on.set()
    assert isinstance(await under_way, Delivered)
    assert len(server.mails) == 1
    assert isinstance(await provider.send(MAIL), Delivered), "where there is room it goes"


class Reporter:
    """A mail server in a few lines that offers what `extensions` says, and keeps the commands."""

    def __init__(self, *extensions: str) -> None:
        self.extensions = extensions
        self.commands: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mx.example\r\n")
        in_content = False
        while raw := await reader.readline():
            line = raw.decode().rstrip("\r\n")
            if in_content:
                in_content = line != "."
                if not in_content:
                    writer.write(b"250 2.0.0 queued\r\n")
                continue
            self.commands.append(line)
            verb = line.partition(" ")[0]
            in_content = verb == "DATA"
            offered = ["250-mx.example", *(f"250-{one}" for one in self.extensions)]
            said = {"EHLO": [*offered, "250 HELP"], "DATA": ["354 go on"], "QUIT": ["221 bye"]}
            writer.write("".join(f"{one}\r\n" for one in said.get(verb, ["250 OK"])).encode())
            if verb == "QUIT":
                break
        writer.close()


Report = Callable[..., Awaitable[Reporter]]


@pytest.fixture
async def report() -> AsyncIterator[Report]:
    listeners: list[asyncio.Server] = []

    async def start(*extensions: str) -> Reporter:
        made = Reporter(*extensions)
        listener = await asyncio.start_server(made.serve, "127.0.0.1", 0)
        made.port = listener.sockets[0].getsockname()[1]
        listeners.append(listener)
        return made

    yield start
    for listener in listeners:
        listener.close()


SHORT = structs.replace(MAIL, text="Hello.\n", html="<p>Hello.</p>\n")


async def test_a_server_that_can_is_asked_to_report_failures_under_the_mails_id(
    report: Report, connect: Connect
) -> None:
    server = await report("DSN", "SIZE 1000000")
    to = structs.replace(SHORT, to_address="ada+lamps=1@example.com")
    assert isinstance(await connect(server).send(to), Delivered)
    assert (
        f"MAIL FROM:<{MAIL.envelope_from}> RET=HDRS ENVID=sb.token.notice@lantern-oak.example"
        in server.commands
    )
    assert (
        "RCPT TO:<ada+lamps=1@example.com> NOTIFY=FAILURE ORCPT=rfc822;ada+2Blamps+3D1@example.com"
        in server.commands
    )


@pytest.mark.parametrize(
    ("extensions", "envelope_from"), [((), MAIL.envelope_from), (("DSN",), "")]
)
async def test_no_report_is_asked_for_where_nobody_could_send_it_or_hear_it(
    report: Report, connect: Connect, extensions: tuple[str, ...], envelope_from: str
) -> None:
    server = await report(*extensions)
    mail = structs.replace(SHORT, envelope_from=envelope_from)
    assert isinstance(await connect(server).send(mail), Delivered)
    assert f"MAIL FROM:<{envelope_from}>" in server.commands
    assert f"RCPT TO:<{MAIL.to_address}>" in server.commands
