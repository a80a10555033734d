"""A mail that a server takes and whose bounce comes later: by a real SMTP server, Kafka and PostgreSQL, through three services.

The normaliser, the router and the notifier run their own loops. What the customer and their mail server write comes in as the
gateway spools it; all else they tell each other.
"""

import asyncio
import email
import email.policy
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml
from aiosmtpd.smtp import Envelope as Taken
from pydantic import SecretStr

from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from schemas import commands
from schemas import tickets as wire
from schemas.envelope import Envelope
from schemas.inbound import InboundReceived
from services.ingest.adapters import intake
from services.ingest.handlers import POLICY as CHANNELS
from services.ingest.handlers import NormaliserStage
from services.ingest.settings import IngestSettings
from services.notifier.adapters.sending import Sending
from services.notifier.adapters.smtp import SmtpProvider
from services.notifier.app import smtp_options
from services.notifier.handlers import POLICY as NOTIFY
from services.notifier.handlers import NotifierStage
from services.notifier.settings import NotifierSettings
from services.router.handlers import POLICY as ROUTING
from services.router.handlers import TicketsStage
from tests.contract.test_smtp_provider import CountingSMTP, MailServer
from tests.integration.kit import (
    PARTITIONS,
    Driver,
    MakeTopic,
    driving,
    make_settings,
    running,
    until,
)

ROOT = Path(__file__).resolve().parents[2]
TOPICS = (
    "inbound", "messages", "commands", "routing", "sla", "notifications", "tickets", "routing-work", "dead-letters",
)  # fmt: skip
ADA = "ada@example.com"
OURS = "support@lantern-oak.example"


class Post:
    """The customer's side: their mails, and what their server says of ours."""

    def __init__(self, driver: Driver, tables: asyncpg.Connection, server: MailServer) -> None:
        self._driver, self.tables, self.server = driver, tables, server
        self._told: Counter[tuple[str, int]] = Counter()

    async def comes(self, raw: str) -> None:
        """A mail comes to the account `support`; the gateway has spooled it."""
        item = intake.inbound_item(
            InboundReceived(
                input_id=intake.new_id(),
                channel="email",
                account="support",
                received_at=SystemClock().now(),
            ),
            raw.replace("\n", "\r\n").encode(),
            ADA,
            "default",
        )
        await self._tells(item.topic.name, item.envelope, item.key, item.value)

    async def solves(self, ticket: Any) -> None:
        """An agent solves the ticket, by the gateway."""
        command = commands.SolveTicket(
            command_id="k-1",
            conversation_id=ticket["conversation_id"],
            ticket_id=ticket["ticket_id"],
            agent_id="ada",
        )
        key, now = command.conversation_id, SystemClock().now()
        envelope = Envelope(type=command.TYPE, source="", id="k-1", time=now, partitionkey=key)
        await self._tells(command.TOPIC, envelope, key, command.to_json())

    async def _tells(self, topic: str, envelope: Envelope, key: str, value: bytes) -> None:
        """Publish what the gateway has spooled, numbered as its relay does."""
        partition = partition_of(key, PARTITIONS)
        self._told[topic, partition] += 1
        numbered = replace(
            envelope,
            source=f"signalbox/ingest.gateway/{partition}",
            sequence=self._told[topic, partition],
        )
        await self._driver.raw(
            topic, value, key=key.encode(), headers=numbered.to_headers(), partition=partition
        )

    async def notice(self, occasion: str) -> Any:
        return await self.tables.fetchrow(
            "SELECT * FROM notifier.notice WHERE occasion = $1", occasion
        )

    async def notes(self) -> list[str]:
        rows = await self.tables.fetch(
            "SELECT data::jsonb ->> 'text' AS text FROM router.ticket_event WHERE type = $1",
            wire.TicketNoteAdded.TYPE,
        )
        return [row["text"] for row in rows]


def written() -> str:
    """What the customer writes."""
    now = format_datetime(SystemClock().now())
    return (
        f"From: Ada <{ADA}>\nTo: {OURS}\nSubject: My lamp\nMessage-ID: <1@example.com>\n"
        f"Date: {now}\n\nWhere is my lamp?\n"
    )


def bounce_of(taken: Taken) -> str:
    """What their mail server says of a mail of ours that it took at first (RFC 3464), to the address that the mail came from."""
    raw = taken.content
    assert isinstance(raw, bytes)
    ours = email.message_from_bytes(raw, policy=email.policy.default)
    now = format_datetime(SystemClock().now())
    return (
        f"From: MAILER-DAEMON@mx.example\nTo: {taken.mail_from}\nSubject: Undelivered Mail Returned to Sender\n"
        f"Message-ID: <d1@mx.example>\nDate: {now}\nAuto-Submitted: auto-replied\nMIME-Version: 1.0\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n\n'
        "--b\nContent-Type: text/plain\n\nThere is nobody of that name here.\n"
        "--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.example\n\n"
        f"Final-Recipient: rfc822; {ADA}\nAction: failed\nStatus: 5.1.1\n\n"
        f"--b\nContent-Type: text/rfc822-headers\n\nMessage-ID: {ours['message-id']}\n\n--b--\n"
    )


@pytest.fixture
async def post(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> AsyncIterator[Post]:
    for name in TOPICS:
        await make_topic(name, partitions=PARTITIONS)
    for service in ("ingest", "router", "notifier"):
        await migrate(database, service, [ROOT / "services" / service / "sql"])
    folder = tmp_path / "policy"
    shutil.copytree(ROOT / "policy", folder)
    notify = yaml.safe_load((folder / "notify.yaml").read_text(encoding="utf-8"))
    notify |= {"articles": {"source": "none"}, "promise_wait_seconds": 0}
    (folder / "notify.yaml").write_text(yaml.safe_dump(notify, allow_unicode=True))
    server = MailServer()
    listener = await asyncio.get_running_loop().create_server(
        lambda: CountingSMTP(server), "127.0.0.1", 0
    )
    given = {
        **make_settings(bootstrap, database, topic_prefix).model_dump(),
        "token_secret": SecretStr("s" * 32),
    }
    ingest = IngestSettings.model_validate(given)
    notifier = NotifierSettings.model_validate(
        given
        | {
            "smtp_host": "127.0.0.1",
            "smtp_port": listener.sockets[0].getsockname()[1],
            "smtp_tls": "none",
        }
    )
    sending = Sending(SmtpProvider(smtp_options(notifier)), dict, httpx.AsyncClient)
    channels, routing = PolicyHolder(folder, CHANNELS), PolicyHolder(folder, ROUTING)
    tables = await asyncpg.connect(database)
    async with AsyncExitStack() as stack:
        driver = await stack.enter_async_context(driving(ingest))
        for stage, settings, schema in (
            (NormaliserStage(channels, ingest), ingest, "ingest"),
            (TicketsStage(routing), ingest, "router"),
            (NotifierStage(PolicyHolder(folder, NOTIFY), notifier, sending), notifier, "notifier"),
        ):
            await stack.enter_async_context(running(stage, settings, schema=schema))
        yield Post(driver, tables, server)
    await sending.close()
    await tables.close()
    listener.close()
    for transport in server.transports:
        transport.abort()
    await listener.wait_closed()


async def test_f24_a_mail_that_was_taken_and_bounced_is_told_to_the_agent_and_ends_mail_there(
    post: Post,
) -> None:
    await post.comes(written())

    async def is_sent() -> bool:
        found = await post.notice("received")
        return found is not None and found["status"] == "sent"

    await until("the acknowledgement is sent", is_sent, 60)
    (taken,) = post.server.mails
    assert taken.rcpt_tos == [ADA]
    assert (await post.notice("received"))["delivery"] != "bounced"

    await post.comes(bounce_of(taken))

    async def has_note() -> bool:
        return bool(await post.notes())

    await until("the ticket says so", has_note, 60)
    (note,) = await post.notes()
    assert "came back and did not reach the customer: 5.1.1" in note
    found = await post.notice("received")
    assert (found["status"], found["delivery"]) == ("sent", "bounced")
    (dead,) = await post.tables.fetch("SELECT * FROM notifier.undeliverable")
    assert "5.1.1" in dead["reason"]
    (ticket,) = await post.tables.fetch("SELECT * FROM router.ticket")

    await post.solves(ticket)

    async def is_held_back() -> bool:
        return await post.notice("solved") is not None

    await until("the next notice is decided", is_held_back, 60)
    solved = await post.notice("solved")
    assert (solved["status"], solved["reason"]) == ("suppressed", "undeliverable")
    assert len(post.server.mails) == 1, "nothing more goes there"
    assert await post.tables.fetchval("SELECT count(*) FROM router.ticket") == 1, "a bounce is none"
