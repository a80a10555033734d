"""SMTP: RFC 5321 (the exchange), RFC 5322 (the mail), RFC 2045–2047 (its parts and words), RFC 8314 (TLS), RFC 3461 (DSN).

Owns the one function that turns a `Mail` into bytes, and the exchange with the mail server. What matters in it is the
moment when the content goes out: before that, a lost connection means that nothing was sent and trying again is safe;
after it and before the answer, nobody can know, and the answer is `Unknown`.

A server that offers DSN is asked to report failures and nothing else, with the mail's headers and not its content, and under the
mail's own id: the report comes back to the envelope's sender, whose token names the conversation.
"""

import asyncio
import base64
import hashlib
import quopri
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.header import Header
from email.utils import format_datetime

from aiosmtplib import (
    SMTP,
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPException,
    SMTPHeloError,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPSenderRefused,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from chassis.clock import monotonic
from services.notifier.core.delivery import Attempted, Delivered, Failed, Unknown
from services.notifier.core.post import Trouble
from services.notifier.core.state import Mail
from services.notifier.settings import TlsMode

LINE_OCTETS_MAX = 998
"""RFC 5322 2.1.1: a line without its CRLF."""

FOLD_AT = 76
MAILS_A_CONNECTION = 100
"""Many servers close a connection after as many; we do so first, between two mails."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no header may hold, encoded or not: C0, C1, the Unicode line ends, lone surrogates."""

START_INPUT = 354
COMPLETED = 250
UNAVAILABLE = 421
AUTHENTICATION = frozenset({530, 534, 535, 538})
"""RFC 4954, 6: what is wrong is how we log in."""
NO_SUCH_MAILBOX = frozenset({550, 551, 553})
"""RFC 5321, 4.2.3: to a recipient, unless an enhanced code says otherwise."""
ENVID_MAX = 100
"""RFC 3461, 4.4: characters of an envelope's id."""

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})\b")
"""RFC 3463: class, subject, detail."""
_NOT_XTEXT = re.compile(rb"[^!-*,-<>-~]")
"""RFC 3461, 4: what an xtext writes as `+` and two hexadecimal digits."""


class UnsafeHeader(ValueError):
    """A header's value has what no header may have: a control character, or a line that cannot be folded."""


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """Where the mail server is and how long each step may take, in seconds."""

    host: str
    port: int
    tls: TlsMode = "starttls"
    user: str = ""
    password: str = ""
    helo: str = ""
    connections: int = 4
    connect_seconds: float = 15.0
    command_seconds: float = 60.0
    accept_seconds: float = 600.0
    idle_seconds: float = 15.0
    tls_context: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"SmtpOptions({self.host}:{self.port}, tls={self.tls})"


# -------------------------------------------------------------------------------------------- the mail


def render(mail: Mail) -> bytes:
    """Return the mail as bytes: ASCII, CRLF line ends only, `multipart/alternative` of text and HTML.

    The same mail gives the same bytes. The standard library's generators are not used for the headers: they refold
    long Message-IDs into encoded words, and have let line breaks through (CVE-2024-6923).

    Raises:
        UnsafeHeader: a value would break out of its header. Nothing is ever repaired here.
    """
    boundary = "=_sb_" + hashlib.sha256(mail.message_id.encode()).hexdigest()[:32]
    headers = [
        ("Date", format_datetime(mail.date)),
        ("From", f"{_phrase(mail.from_name)} <{mail.from_address}>"),
        ("To", mail.to_address),
        ("Reply-To", mail.reply_to),
        ("Subject", _words(mail.subject)),
        ("Message-ID", mail.message_id),
        *([("In-Reply-To", mail.in_reply_to)] if mail.in_reply_to else []),
        *([("References", " ".join(mail.references))] if mail.references else []),
        *mail.headers,
        ("Content-Language", mail.language),
        ("MIME-Version", "1.0"),
        ("Content-Type", f'multipart/alternative; boundary="{boundary}"'),
    ]
    lines = [_header(name, value) for name, value in headers]
    lines.append("")
    for subtype, content in (("plain", mail.text), ("html", mail.html)):
        lines += [f"--{boundary}", *_part(subtype, content)]
    lines += [f"--{boundary}--", ""]
    return "\r\n".join(lines).encode("ascii")


def _header(name: str, value: str) -> str:
    """Return `name: value`, folded at spaces where it is long."""
    if not (value.isascii() and value.isprintable()):
        raise UnsafeHeader(f"{name}: only printable ASCII may stand in a header")
    lines: list[str] = []
    line, has_word = f"{name}:", False
    for word in value.split():
        if has_word and len(line) + 1 + len(word) > FOLD_AT:
            lines.append(line)
            line = ""
        line, has_word = f"{line} {word}", True
    lines.append(line)
    if any(len(line) > LINE_OCTETS_MAX for line in lines):
        raise UnsafeHeader(f"{name}: a word longer than {LINE_OCTETS_MAX} octets cannot be folded")
    return "\r\n".join(lines)


def _words(value: str) -> str:
    """Return `value` as is where it is plain, else as encoded words (RFC 2047) with spaces between."""
    if value.isascii() and value.isprintable() and "=?" not in value:
        return value
    if _CONTROL.search(value):
        raise UnsafeHeader("a control character may not stand in a header")
    encoded = Header(value, "utf-8", maxlinelen=FOLD_AT - 2).encode(linesep="\n")
    return " ".join(encoded.split())


def _phrase(value: str) -> str:
    """Return a display name: quoted where it is plain, encoded words where it is not."""
    if value.isascii() and value.isprintable() and "=?" not in value:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return _words(value)


def _part(subtype: str, content: str) -> list[str]:
    """Return a part's lines in whichever transfer encoding is shorter; both keep lines short and ASCII."""
    raw = "\r\n".join(content.split("\n")).encode()
    plain = quopri.encodestring(raw.replace(b"\r\n", b"\n")).decode("ascii").split("\n")
    packed = base64.encodebytes(raw).decode("ascii").split()
    is_packed = sum(map(len, packed)) < sum(map(len, plain))
    return [
        f"Content-Type: text/{subtype}; charset=utf-8",
        f"Content-Transfer-Encoding: {'base64' if is_packed else 'quoted-printable'}",
        "",
        *(packed if is_packed else plain),
    ]


# ---------------------------------------------------------------------------------------- the exchange


class _Connection:
    """A connection of the pool: how many mails it has carried, and since when it has been idle."""

    def __init__(self, client: SMTP) -> None:
        self.client = client
        self.mails = 0
        self.idle_since = 0.0

    @property
    def is_new(self) -> bool:
        """Whether it has carried nothing yet: a reused one may have been closed by the server meanwhile."""
        return self.mails == 0


class SmtpProvider:
    """Hands mails to one mail server over a few connections that are kept and used again."""

    def __init__(self, options: SmtpOptions) -> None:
        self._options = options
        self._idle: list[_Connection] = []
        self._slots = asyncio.Semaphore(options.connections)
        self._waiting = 0
        """Mails that wait for a slot."""
        self._is_closed = False

    @property
    def host(self) -> str:
        """The mail server's name."""
        return self._options.host

    async def send(self, mail: Mail) -> Attempted:
        """Hand over one mail. Every way it can end is an answer.

        A cancelled call leaves the outcome unknown to the caller; its connection is closed.
        """
        try:
            content = render(mail)
        except UnsafeHeader as error:
            return Failed(f"the mail cannot be built: {error}", is_recoverable=False)
        if not await self._has_slot():
            return _recoverable("this process stops, and others were before this mail")
        try:
            result = await self._send_once(mail, content)
            if (
                result is None
            ):  # The server had closed an idle connection, before it was told anything.
                result = await self._send_once(mail, content)
        finally:
            self._slots.release()
        return result or _recoverable("the mail server closed the connection")

    async def _has_slot(self) -> bool:
        """Wait for a slot and take it. False where the process stops before: a mail that waits until it is killed is called
        unknown, though it never went out.
        """
        if not self._slots.locked():
            return await self._slots.acquire()
        if self._is_closed:
            return False
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        # What `close` has released is not given back.
        return not self._is_closed

    async def close(self) -> None:
        """Say goodbye on idle connections, and keep none from now on; mails that wait for one are not sent any more."""
        self._is_closed = True
        for _ in range(self._waiting):
            self._slots.release()
        await self._forget_idle()

    async def _send_once(self, mail: Mail, content: bytes) -> Attempted | None:
        """Try on one connection; None where a reused one turned out to be dead before the content went out."""
        was_new = True
        try:
            async with self._connection() as connection:
                was_new = connection.is_new
                return await self._exchange(connection, mail, content)
        except SMTPServerDisconnected:
            return _recoverable("the mail server closed the connection") if was_new else None
        except SMTPTimeoutError:
            return _recoverable("the mail server did not answer in time")
        except SMTPAuthenticationError as error:
            return _troubled(f"the mail server refused our login: {error.code}")
        except (SMTPSenderRefused, SMTPRecipientRefused) as error:
            return _refused(error)
        except SMTPResponseException as error:
            # A refusal of the connection, of EHLO or of STARTTLS says nothing about this mail.
            return _recoverable(f"the mail server refused the connection: {error.code}")
        except SMTPConnectError:
            return _recoverable("the mail server cannot be reached")
        except SMTPException as error:
            # The library's own sentences: no STARTTLS, no AUTH, no method in common.
            return _troubled(f"the mail server does not offer what is set: {error.message}")
        except TimeoutError:
            return _recoverable("the mail server did not answer in time")
        except ssl.SSLError as error:
            return _recoverable(f"TLS with the mail server failed: {error.reason or 'unknown'}")
        except OSError as error:
            return _recoverable(f"the mail server cannot be reached: {type(error).__name__}")

    async def _exchange(self, connection: _Connection, mail: Mail, content: bytes) -> Attempted:
        """One mail transaction. Raises only while the content has not gone out."""
        client, seconds = connection.client, self._options.command_seconds
        of_mail, of_recipient = _report_wishes(client, mail)
        sender = f"<{mail.envelope_from}>".encode("ascii")
        answer = await client.execute_command(b"MAIL", b"FROM:" + sender, *of_mail, timeout=seconds)
        if answer.code != COMPLETED:
            raise SMTPSenderRefused(answer.code, answer.message, "")
        recipient = f"<{mail.to_address}>".encode("ascii")
        answer = await client.execute_command(
            b"RCPT", b"TO:" + recipient, *of_recipient, timeout=seconds
        )
        if answer.code not in {COMPLETED, 251}:
            raise SMTPRecipientRefused(answer.code, answer.message, "")
        answer = await client.execute_command(b"DATA", timeout=seconds)
        if answer.code != START_INPUT:
            return _refused(SMTPResponseException(answer.code, answer.message))
        connection.mails += 1
        return await self._hand_over(client, mail, content)

    async def _hand_over(self, client: SMTP, mail: Mail, content: bytes) -> Attempted:
        """Send the content and wait for the one answer that counts."""
        protocol = client.protocol
        if protocol is None:
            raise SMTPServerDisconnected("Connection lost")
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        try:
            protocol.write(stuffed + b".\r\n")
            answer = await protocol.read_response(timeout=self._options.accept_seconds)
        except SMTPTimeoutError:
            client.close()
            return Unknown("no answer after the mail was handed over")
        except (SMTPException, OSError):
            client.close()
            return Unknown("connection lost after the mail was handed over")
        if answer.code == COMPLETED:
            return Delivered(answer.message, mail.message_id)
        if not 400 <= answer.code < 600:
            client.close()
            return Unknown(f"the mail server's answer makes no sense: {answer.code}")
        return _refused(SMTPResponseException(answer.code, answer.message))

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        """Lend a connection; it goes back to the pool only when the transaction came to a clean end."""
        connection = await self._take()
        try:
            yield connection
        except SMTPResponseException:
            await self._give_back(connection)
            raise
        except BaseException:
            connection.client.close()
            raise
        await self._give_back(connection)

    async def _take(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            is_fresh = monotonic() - connection.idle_since < self._options.idle_seconds
            if connection.client.is_connected and is_fresh:
                return connection
            await self._quit(connection)
        return await self._connect()

    async def _give_back(self, connection: _Connection) -> None:
        """Keep the connection for the next mail, with its envelope cleared."""
        client = connection.client
        if self._is_closed or connection.mails >= MAILS_A_CONNECTION:
            await self._quit(connection)
            return
        try:
            if client.is_connected:
                await client.rset(timeout=self._options.command_seconds)
        except (SMTPException, OSError, TimeoutError):
            client.close()
        if client.is_connected:
            # Marked as used even where nothing was accepted: from here on the server may close it.
            connection.mails = max(connection.mails, 1)
            connection.idle_since = monotonic()
            self._idle.append(connection)

    async def _connect(self) -> _Connection:
        options = self._options
        client = SMTP(
            hostname=options.host,
            port=options.port,
            username=options.user or None,
            password=options.password or None,
            local_hostname=options.helo or None,
            timeout=options.connect_seconds,
            use_tls=options.tls == "tls",
            start_tls=options.tls == "starttls",
            tls_context=options.tls_context,
        )
        try:
            # Each step has its time limit; this bounds their sum.
            async with asyncio.timeout(options.connect_seconds):
                await client.connect()
                if client.is_ehlo_or_helo_needed:
                    await _greet(client)
        except BaseException:
            client.close()
            raise
        return _Connection(client)

    async def _forget_idle(self) -> None:
        while self._idle:
            await self._quit(self._idle.pop())

    async def _quit(self, connection: _Connection) -> None:
        client = connection.client
        try:
            if client.is_connected:
                await client.quit(timeout=min(2.0, self._options.command_seconds))
        except (SMTPException, OSError, TimeoutError):
            pass  # It was going to be closed anyway.
        finally:
            client.close()


async def _greet(client: SMTP) -> None:
    try:
        await client.ehlo()
    except SMTPHeloError:
        await client.helo()


def _report_wishes(client: SMTP, mail: Mail) -> tuple[list[bytes], list[bytes]]:
    """Return what to say with MAIL and with RCPT so that a failure is reported, where the server can and somebody would hear."""
    if not mail.envelope_from or not client.supports_extension("dsn"):
        return [], []
    name = _xtext(mail.message_id.strip("<>"))
    of_mail = [b"RET=HDRS", *([b"ENVID=" + name] if len(name) <= ENVID_MAX else [])]
    return of_mail, [b"NOTIFY=FAILURE", b"ORCPT=rfc822;" + _xtext(mail.to_address)]


def _xtext(value: str) -> bytes:
    return _NOT_XTEXT.sub(lambda one: b"+%02X" % one.group()[0], value.encode("ascii"))


def _recoverable(reason: str) -> Failed:
    return Failed(reason, is_recoverable=True, trouble=Trouble.PROVIDER)


def _troubled(reason: str) -> Failed:
    return Failed(reason, is_recoverable=True, trouble=Trouble.ACCOUNT)


def _refused(error: SMTPResponseException) -> Failed:
    """A refusal of this mail: 4xx says "not now" (RFC 5321 4.2.1), 5xx says "never"."""
    reason = f"{error.code} {error.message}"
    if error.code in AUTHENTICATION:
        return _troubled(reason)
    if 400 <= error.code < 500:
        wait = timedelta(minutes=1) if error.code == UNAVAILABLE else None
        return Failed(reason, True, wait, Trouble.PROVIDER)
    is_address = isinstance(error, SMTPRecipientRefused) and _is_of_address(error)
    return Failed(reason, False, None, Trouble.ADDRESS if is_address else Trouble.MESSAGE)


def _is_of_address(error: SMTPRecipientRefused) -> bool:
    """Whether a recipient is refused because there is no such mailbox, and not for what we are or sent."""
    enhanced = _ENHANCED.match(error.message)
    if enhanced is None:
        return error.code in NO_SUCH_MAILBOX
    return enhanced[2] == "1" or (enhanced[2], enhanced[3]) == ("2", "1")


__all__ = ["SmtpOptions", "SmtpProvider", "UnsafeHeader", "render"]
