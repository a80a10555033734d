"""Mail by SMTP and LMTP: listeners that say 250 only when the mail is durable.

Facts from RFC 5321 (replies), RFC 2033 (LMTP: LHLO, one answer for each recipient), RFC 6531 (SMTPUTF8), RFC 1870 (SIZE)
and aiosmtpd's documentation. A recipient must belong to an account of `channels.yaml` (550 5.1.1 otherwise), addresses
must be UTF-8 (553 otherwise); a database that is away is 451, and the sender's server tries again. A mail to recipients of
several accounts is one input for each. A mail with a line feed or a carriage return that stands alone is refused
(550 5.6.11): what one server takes for the end of a mail and another does not is how mail is smuggled in (CVE-2023-51764
and its kin), and no server that keeps to the rules sends one.
"""

import asyncio
import contextlib
import errno
import ssl
from pathlib import Path
from typing import Any, Final

from aiosmtpd.lmtp import LMTP
from aiosmtpd.smtp import SMTP, Envelope, Session

from chassis import logs
from chassis.clock import Clock
from chassis.errors import ConfigurationError, InvalidEvent, Unavailable
from schemas.inbound import InboundReceived
from services.ingest import metrics
from services.ingest.adapters import email, intake
from services.ingest.adapters.intake import FrontDoor, PolicySource
from services.ingest.settings import IngestSettings

LINE_BYTES_MAX: Final = 256 * 1024
"""Longest line taken. RFC 5321 says 1,000, and mail of today's programs does not keep to it."""

SESSION_SECONDS: Final = 120.0
RECIPIENTS_MAX: Final = 100

log = logs.get("ingest.smtp")


class MailHandler:
    """Decides about recipients and stores mails; aiosmtpd calls its `handle_…` methods."""

    def __init__(
        self, spool: FrontDoor, policies: PolicySource, clock: Clock, workspace: str
    ) -> None:
        self._spool = spool
        self._policies = policies
        self._clock = clock
        self._workspace = workspace

    async def handle_MAIL(  # noqa: N802 - the name is aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a sender whose address can be written down."""
        del server, session
        if not _is_text(address):
            metrics.SMTP_REFUSED.labels("bad_address").inc()
            return "553 5.1.7 The sender's address is not UTF-8"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802 - the name is aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient of ours."""
        del server, session
        if not _is_text(address):
            metrics.SMTP_REFUSED.labels("bad_address").inc()
            return "553 5.1.3 The recipient's address is not UTF-8"
        channels = self._policies.current
        if channels.account_of(address) is None:
            metrics.SMTP_REFUSED.labels("unknown_recipient").inc()
            return "550 5.1.1 No such mailbox here"
        if len(envelope.rcpt_tos) >= RECIPIENTS_MAX:
            return "452 4.5.3 Too many recipients"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(  # noqa: N802 - the name is aiosmtpd's
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Store a mail, then say 250."""
        del server, session
        raw = envelope.content if isinstance(envelope.content, bytes) else b""
        if _has_bare_line_end(raw):
            metrics.SMTP_REFUSED.labels("bare_line_end").inc()
            return "550 5.6.11 It has a line end that is no CRLF"
        accounts: dict[str, list[str]] = {}
        channels = self._policies.current
        for recipient in envelope.rcpt_tos:
            account = channels.account_of(recipient)
            if account is not None:
                accounts.setdefault(account, []).append(recipient)
        if not accounts:
            return "550 5.1.1 No such mailbox here any more"
        # aiosmtpd shows the null sender as it was written.
        envelope_from = "" if envelope.mail_from in (None, "<>") else str(envelope.mail_from)
        sender = email.sender_address(raw, envelope_from)
        try:
            await asyncio.gather(
                *(
                    self._store(raw, account, recipients, sender, envelope_from)
                    for account, recipients in sorted(accounts.items())
                )
            )
        except InvalidEvent:
            metrics.SMTP_REFUSED.labels("unstorable").inc()
            return "554 5.6.0 It holds something that cannot be stored"
        except Unavailable:
            metrics.UNAVAILABLE.labels("smtp").inc()
            return "451 4.3.0 Cannot store it now; please try again"
        return "250 2.0.0 Stored"

    async def _store(
        self, raw: bytes, account: str, recipients: list[str], sender: str, envelope_from: str
    ) -> None:
        received = InboundReceived(
            input_id=intake.new_id(),
            channel="email",
            account=account,
            method="SMTP",
            received_at=self._clock.now(),
            envelope_from=envelope_from,
            envelope_to=tuple(recipients),
        )
        await self._spool.put(intake.inbound_item(received, raw, sender, self._workspace))
        metrics.ACCEPTED.labels("smtp").inc()

    async def handle_exception(self, error: Exception) -> str:
        """Answer for a mistake of ours: the sender's server tries again, and nothing is lost."""
        metrics.SMTP_REFUSED.labels("failed").inc()
        log.error("smtp_failed", error=type(error).__name__, exc_info=error)
        return "451 4.3.0 Something failed here; please try again"


def _has_bare_line_end(raw: bytes) -> bool:
    whole = raw.count(b"\r\n")
    return raw.count(b"\n") != whole or raw.count(b"\r") != whole


def _is_text(address: str) -> bool:
    """Whether an address was UTF-8 (RFC 6531); aiosmtpd turns bytes that were not into lone surrogates."""
    try:
        address.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Counted(SMTP):
    """A session that counts: more than so many at a time are told to come later."""

    line_length_limit = LINE_BYTES_MAX
    open_now = 0

    def __init__(self, *args: Any, connections_max: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections_max = connections_max
        self._is_counted = False

    def connection_made(self, transport: Any) -> None:
        if not self._is_counted:
            if _Counted.open_now >= self._connections_max:
                metrics.SMTP_REFUSED.labels("too_many_connections").inc()
                transport.write(b"421 4.3.2 Too many connections; please try again\r\n")
                transport.close()
                return
            self._is_counted = True
            _Counted.open_now += 1
            metrics.SMTP_CONNECTIONS.set(_Counted.open_now)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_counted:
            self._is_counted = False
            _Counted.open_now -= 1
            metrics.SMTP_CONNECTIONS.set(_Counted.open_now)
            super().connection_lost(error)


class _LmtpSession(LMTP, _Counted):
    """LMTP's only difference that matters: after the mail, each recipient gets an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recipients: int | None = None

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - the name is aiosmtpd's
        """Take a mail."""
        try:
            await super().smtp_DATA(arg)
        finally:
            self._recipients = None

    async def push(self, status: Any) -> None:
        """Say something; what is said of a mail is said once for each recipient."""
        if self._recipients is not None:
            for _ in range(self._recipients):
                await super().push(status)
        else:
            await super().push(status)
            if str(status).startswith("354") and self.envelope is not None:
                self._recipients = len(self.envelope.rcpt_tos)


def _tls(certificate: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"SIGNALBOX_SMTP_CERTIFICATE: {certificate} is no PEM file with chain and key ({error.strerror or error})"
        ) from None
    return context


async def listen(
    spool: FrontDoor,
    policies: PolicySource,
    clock: Clock,
    settings: IngestSettings,
    *,
    lmtp: bool = False,
) -> asyncio.Server:
    """Return a listening SMTP server, or an LMTP server; the caller closes it.

    Raises:
        ConfigurationError: the port is in use or not allowed, or the certificate cannot be read.
    """
    handler = MailHandler(spool, policies, clock, settings.workspace)
    context = _tls(settings.smtp_certificate)
    loop = asyncio.get_running_loop()

    kind = _LmtpSession if lmtp else _Counted
    port = settings.lmtp_listen_port if lmtp else settings.smtp_listen_port
    name = "SIGNALBOX_LMTP_LISTEN_PORT" if lmtp else "SIGNALBOX_SMTP_LISTEN_PORT"

    def session() -> _Counted:
        return kind(
            handler,
            data_size_limit=settings.smtp_bytes_max,
            enable_SMTPUTF8=True,
            decode_data=False,
            hostname=settings.smtp_hostname,
            ident="LMTP" if lmtp else "ESMTP",
            tls_context=context,
            timeout=SESSION_SECONDS,
            loop=loop,
            connections_max=settings.smtp_connections_max,
        )

    try:
        server = await loop.create_server(session, settings.gateway_host, port)
    except OSError as error:
        what = (
            "is in use"
            if error.errno == errno.EADDRINUSE
            else f"cannot be bound ({error.strerror})"
        )
        raise ConfigurationError(
            f"port {port} on {settings.gateway_host} {what}; set {name} to another"
        ) from None
    port = server.sockets[0].getsockname()[1]
    log.info("lmtp_listening" if lmtp else "smtp_listening", host=settings.gateway_host, port=port)
    return server


async def close(server: asyncio.Server, seconds: float = 3.0) -> None:
    """Stop taking connections, and give sessions under way a moment."""
    server.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.wait_closed(), seconds)
