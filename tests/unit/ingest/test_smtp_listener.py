"""Mail by SMTP, over a real socket: 250 only when durable, 451 when it cannot be, 550 for strangers."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiosmtplib
import pytest

from chassis import policy
from chassis.errors import ConfigurationError, Unavailable
from chassis.spool import PutResult, SpoolItem
from schemas.inbound import InboundReceived
from services.ingest.adapters import smtp_in
from services.ingest.handlers import POLICY
from services.ingest.settings import IngestSettings

CHANNELS = """
mail:
  support: {addresses: [support@lantern-oak.example]}
  sales: {addresses: [sales@lantern-oak.example]}
"""
MAIL = b"From: Ada <ADA@example.com>\r\nSubject: Lamp\r\n\r\nWhere is it?\r\n"


class Fixed:
    def now(self) -> datetime:
        return datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class MemorySpool:
    def __init__(self) -> None:
        self.items: list[SpoolItem] = []
        self.is_away = False

    async def put(self, item: SpoolItem) -> PutResult:
        if self.is_away:
            raise Unavailable("the database")
        self.items.append(item)
        return PutResult(stored=True)

    @property
    def events(self) -> list[InboundReceived]:
        return [InboundReceived.model_validate_json(item.value) for item in self.items]


def settings(**changes: object) -> IngestSettings:
    base = {
        "kafka": "k:1",
        "database_url": "postgresql://x",
        "smtp_listen_port": 0,
        "smtp_bytes_max": 300_000,
    }
    return IngestSettings(**(base | changes))  # type: ignore[arg-type]


@pytest.fixture
def spool() -> MemorySpool:
    return MemorySpool()


@pytest.fixture
def policies(tmp_path: Path) -> policy.PolicyHolder:  # type: ignore[type-arg]
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    return policy.PolicyHolder(tmp_path, POLICY)


@pytest.fixture
async def port(spool: MemorySpool, policies) -> AsyncIterator[int]:  # type: ignore[no-untyped-def]
    server = await smtp_in.listen(spool, policies, Fixed(), settings())
    yield server.sockets[0].getsockname()[1]
    await smtp_in.close(server)


async def send(
    port: int, *recipients: str, sender: str = "ada@example.com", raw: bytes = MAIL
) -> None:
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, use_tls=False, start_tls=False)
    async with client:
        await client.sendmail(sender, list(recipients), raw)


async def test_a_mail_is_stored_with_its_bytes_and_its_envelope(
    port: int, spool: MemorySpool
) -> None:
    await send(port, "support@lantern-oak.example", "Support+sb.x@Lantern-Oak.example")
    (event,) = spool.events
    assert base64.b64decode(event.body_base64) == MAIL
    assert (event.channel, event.account, event.method) == ("email", "support", "SMTP")
    assert event.envelope_from == "ada@example.com"
    assert event.envelope_to == ("support@lantern-oak.example", "Support+sb.x@Lantern-Oak.example")
    assert spool.items[0].key == "email/support/ada@example.com"


async def test_a_mail_to_two_accounts_is_one_input_for_each(port: int, spool: MemorySpool) -> None:
    await send(port, "support@lantern-oak.example", "sales@lantern-oak.example")
    assert {event.account for event in spool.events} == {"support", "sales"}
    assert len({event.input_id for event in spool.events}) == 2


async def test_a_stranger_to_us_is_550(port: int, spool: MemorySpool) -> None:
    with pytest.raises(aiosmtplib.SMTPRecipientsRefused) as refused:
        await send(port, "ceo@lantern-oak.example")
    assert refused.value.recipients[0].code == 550
    assert spool.items == []


async def test_an_address_that_is_no_utf_8_is_553_and_not_try_again(
    port: int, spool: MemorySpool
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    told = [await reader.readline()]
    for line in (
        b"HELO x",
        b"MAIL FROM:<\xff@example.com>",
        b"MAIL FROM:<ada@example.com>",
        b"RCPT TO:<support+\xff@lantern-oak.example>",
        b"RCPT TO:<support@lantern-oak.example>",
    ):
        writer.write(line + b"\r\n")
        told.append(await reader.readline())
    writer.close()
    assert [line[:9] for line in told[2:]] == [
        b"553 5.1.7",
        b"250 2.1.0",
        b"553 5.1.3",
        b"250 2.1.5",
    ]
    assert spool.items == []


async def test_a_database_that_is_away_is_451_and_the_mail_comes_again(
    port: int, spool: MemorySpool
) -> None:
    spool.is_away = True
    with pytest.raises(aiosmtplib.SMTPDataError) as refused:
        await send(port, "support@lantern-oak.example")
    assert refused.value.code == 451
    spool.is_away = False
    await send(port, "support@lantern-oak.example")
    assert len(spool.items) == 1


async def test_a_mail_above_the_limit_is_552(port: int, spool: MemorySpool) -> None:
    with pytest.raises(aiosmtplib.SMTPResponseException) as refused:
        await send(
            port,
            "support@lantern-oak.example",
            raw=MAIL + b"x" * 70 + b"\r\n" + (b"y" * 70 + b"\r\n") * 5_000,
        )
    assert refused.value.code == 552
    assert spool.items == []


async def test_a_large_mail_goes_beside_its_event(port: int, spool: MemorySpool) -> None:
    raw = MAIL + (b"y" * 70 + b"\r\n") * 3_500
    await send(port, "support@lantern-oak.example", raw=raw)
    (event,) = spool.events
    assert event.body_base64 == ""
    assert spool.items[0].blob is not None
    assert spool.items[0].blob == (event.body_ref, raw)


async def talk(port: int, *lines: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for line in lines:
        writer.write(line)
    await writer.drain()
    said = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return said


@pytest.mark.parametrize(
    "inside", [b"hi\n.\n", b"hi\r.\r", b"hi\n.\r\n", b"hi\r\n.\n", b"hi\r\n.\r"]
)
async def test_a_mail_with_bare_line_ends_is_refused_whole_and_nothing_in_it_is_a_command(
    port: int, spool: MemorySpool, inside: bytes
) -> None:
    """SMTP smuggling: what looks like the end of a mail to a lax server."""
    said = await talk(
        port,
        b"EHLO x\r\nMAIL FROM:<ada@example.com>\r\nRCPT TO:<support@lantern-oak.example>\r\nDATA\r\n",
        b"From: ada@example.com\r\n\r\n"
        + inside
        + b"MAIL FROM:<evil@example.com>\r\nend\r\n.\r\nQUIT\r\n",
    )
    assert said.count(b"550 5.6.11") == 1
    assert said.count(b"250 2.1.0 OK") == 1
    assert spool.items == []


@pytest.fixture
async def lmtp_port(spool: MemorySpool, policies) -> AsyncIterator[int]:  # type: ignore[no-untyped-def]
    server = await smtp_in.listen(spool, policies, Fixed(), settings(), lmtp=True)
    yield server.sockets[0].getsockname()[1]
    await smtp_in.close(server)


LMTP = (
    b"LHLO x\r\nMAIL FROM:<ada@example.com>\r\nRCPT TO:<support@lantern-oak.example>\r\n"
    b"RCPT TO:<sales@lantern-oak.example>\r\nRCPT TO:<ceo@lantern-oak.example>\r\nDATA\r\n"
    + MAIL
    + b".\r\nQUIT\r\n"
)


async def test_lmtp_answers_for_each_recipient_it_took(lmtp_port: int, spool: MemorySpool) -> None:
    said = await talk(lmtp_port, LMTP)
    assert said.startswith(b"220 ")
    assert b"LMTP" in said.split(b"\r\n")[0]
    assert (said.count(b"550 5.1.1"), said.count(b"250 2.0.0 Stored")) == (1, 2)
    assert {event.account for event in spool.events} == {"support", "sales"}


async def test_lmtp_answers_for_each_recipient_when_the_mail_cannot_be_stored(
    lmtp_port: int, spool: MemorySpool
) -> None:
    spool.is_away = True
    assert (await talk(lmtp_port, LMTP)).count(b"451 4.3.0") == 2


async def test_lmtp_knows_no_ehlo(lmtp_port: int) -> None:
    assert b"500 " in await talk(lmtp_port, b"EHLO x\r\nQUIT\r\n")


async def test_addresses_beyond_ascii_and_the_null_sender_are_taken(
    port: int, spool: MemorySpool
) -> None:
    said = await talk(
        port,
        b"EHLO x\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<support@lantern-oak.example>\r\nDATA\r\n",
        "From: şule@köşe.example\r\n\r\nhi\r\n.\r\nQUIT\r\n".encode(),
    )
    assert b"SMTPUTF8" in said
    assert (spool.events[0].envelope_from, spool.items[0].key) == (
        "",
        "email/support/şule@köşe.example",
    )


async def test_bytes_that_are_no_mail_are_taken_too_for_the_normaliser_to_park(
    port: int, spool: MemorySpool
) -> None:
    junk = bytes(range(1, 256)) * 8
    await send(port, "support@lantern-oak.example", raw=junk)
    assert spool.items[0].key == "email/support/ada@example.com"


async def test_a_port_in_use_is_said_in_a_sentence(port: int, spool: MemorySpool, policies) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        ConfigurationError,
        match=f"port {port} on 127.0.0.1 is in use; set SIGNALBOX_SMTP_LISTEN_PORT",
    ):
        await smtp_in.listen(spool, policies, Fixed(), settings(smtp_listen_port=port))


async def test_a_certificate_that_cannot_be_read_is_said_in_a_sentence(
    spool: MemorySpool, policies, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError, match="SIGNALBOX_SMTP_CERTIFICATE"):
        await smtp_in.listen(
            spool, policies, Fixed(), settings(smtp_certificate=tmp_path / "none.pem")
        )


async def test_more_connections_than_allowed_are_told_421(spool: MemorySpool, policies) -> None:  # type: ignore[no-untyped-def]
    server = await smtp_in.listen(spool, policies, Fixed(), settings(smtp_connections_max=1))
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert (await reader.readline()).startswith(b"220")
    assert (await talk(port)).startswith(b"421")
    writer.write(b"QUIT\r\n")
    await reader.read()
    writer.close()
    assert (await talk(port, b"QUIT\r\n")).startswith(b"220")
    await smtp_in.close(server)
