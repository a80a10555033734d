"""A gateway with a web chat, at work in this process on a real PostgreSQL, and an agent who answers by ticket events."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg

from chassis import policy
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.spool import Spool
from chassis.stage import Change, Received
from chassis.web import serve
from schemas.envelope import Envelope
from schemas.inbound import InboundReceived
from schemas.tickets import TicketAnswered, TicketOpened, TicketStatusChanged
from services.ingest import adapters, api, webchat
from services.ingest.adapters.channel import delivery_of
from services.ingest.adapters.secrets import Secrets
from services.ingest.adapters.webchat import message_name
from services.ingest.handlers import POLICY
from services.ingest.webchat_stage import WebchatStage
from tests.integration.kit import make_settings, until

SQL = Path(webchat.__file__).with_name("sql")
SECRET = b"a secret of at least thirty-two characters"
AGENT_KEY = "agents-key"
IDENTITY_SECRET = "a secret that only the shop's own server has"


@dataclass
class Policies:
    """The accounts in force, which a test may replace."""

    folder: Path
    current: Any = None

    def write(self, text: str) -> None:
        (self.folder / "channels.yaml").write_text(text, encoding="utf-8")
        self.current = policy.load(self.folder, POLICY)


class SetClock:
    """The machine's clock, put on by what a test says."""

    def __init__(self) -> None:
        self.passed = timedelta(0)

    def now(self) -> datetime:
        return SystemClock().now() + self.passed


def opened(session: str, client_id: str, conversation: str, **changes: Any) -> TicketOpened:
    """A ticket as the router opens it for a visitor's message."""
    said = {
        **TicketOpened.EXAMPLE,
        "conversation_id": conversation,
        "ticket_id": f"t-{conversation}",
        "vendor_message_id": message_name(session, client_id),
        "contact": {
            "customer_id": "c-1",
            "address": session,
            "address_kind": "vendor_id",
            "channel": "webchat",
            "account": "shop",
        },
        **changes,
    }
    return TicketOpened.model_validate(said)


def answered(conversation: str, text: str, command_id: str = "c-1") -> TicketAnswered:
    """An agent's answer as the router tells it."""
    return TicketAnswered.model_validate(
        {
            **TicketAnswered.EXAMPLE,
            "conversation_id": conversation,
            "ticket_id": f"t-{conversation}",
            "command_id": command_id,
            "agent_name": "Deniz",
            "text": text,
            "at": datetime.now(UTC),
        }
    )


def taken(conversation: str) -> TicketStatusChanged:
    """An agent took the case."""
    return TicketStatusChanged.model_validate(
        {
            **TicketStatusChanged.EXAMPLE,
            "conversation_id": conversation,
            "ticket_id": f"t-{conversation}",
            "at": datetime.now(UTC),
        }
    )


def received(event: Any) -> Received:
    """An event as the loop hands it to the stage."""
    envelope = Envelope(
        type=event.TYPE,
        source="signalbox/router.tickets/0",
        id="e-1",
        time=datetime.now(UTC),
        partitionkey=event.conversation_id,
    )
    return Received(envelope, event, event.conversation_id, "tickets", "e-1")


@dataclass
class Gateway:
    """What a test does to the gateway from the inside."""

    port: int
    pool: asyncpg.Pool
    policies: Policies
    clock: SetClock
    chat: webchat.Webchat
    stage: WebchatStage = field(default_factory=lambda: WebchatStage("default"))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def told(self, *events: Any) -> None:
        """Let the stage decide events and write what it decided, each batch in one transaction, as the loop does."""
        for event in events:
            async with self.pool.acquire() as connection, connection.transaction():
                key = event.conversation_id
                states = await self.stage.store.load(connection, 0, [key])
                outcome = self.stage.decide(states.get(key), received(event), datetime.now(UTC))
                changes = [Change(0, key, outcome.state)] if outcome.is_changed else []
                await self.stage.store.save(connection, changes, [(0, row) for row in outcome.rows])

    async def spooled(self) -> list[InboundReceived]:
        """What was accepted, oldest first."""
        rows = await self.pool.fetch("SELECT value FROM spool ORDER BY id")
        return [InboundReceived.model_validate_json(row["value"]) for row in rows]

    async def messages(self) -> list[Any]:
        """What the accepted deliveries say, read by their adapters."""
        found = []
        for one in await self.spooled():
            parsed = adapters.parse(delivery_of(one))
            found += [(one.channel, parsed.verified, message) for message in parsed.messages]
        return found


@contextlib.asynccontextmanager
async def gateway(
    database: str,
    folder: Path,
    channels: str,
    *,
    port: int = 0,
    is_fresh: bool = True,
) -> AsyncIterator[Gateway]:
    """A gateway on `database`, until the block ends."""
    if is_fresh:
        await migrate(database, "ingest", [SQL])
    policies = Policies(folder)
    policies.write(channels)
    settings = make_settings("127.0.0.1:1", database, "")
    pool = await open_pool(database, "ingest", 6, "test gateway")
    clock, stopping, bound = SetClock(), asyncio.Event(), asyncio.Event()
    spool = Spool(pool, settings)
    ports: list[int] = []
    chat = webchat.Webchat(
        webchat.Deps(
            spool=spool,
            policies=policies,
            clock=clock,
            secrets=Secrets(),
            pool=pool,
            hub=webchat.Hub(database),
            secret=SECRET,
        )
    )
    app = api.create_app(api.Deps(spool=spool, policies=policies, clock=clock, secrets=Secrets()))
    webchat.mount(app, chat)

    def on_bound(number: int) -> None:
        ports.append(number)
        bound.set()

    spooling = asyncio.create_task(spool.run())
    parts = [
        asyncio.create_task(chat.run(stopping)),
        asyncio.create_task(
            serve(app, "127.0.0.1", port, stopping, on_bound=on_bound, drain_seconds=2.0)
        ),
    ]
    try:
        await asyncio.wait_for(bound.wait(), 10)
        yield Gateway(ports[0], pool, policies, clock, chat)
    finally:
        stopping.set()
        await asyncio.gather(*parts)
        spooling.cancel()
        await asyncio.gather(spooling, return_exceptions=True)
        await pool.close()


__all__ = ["AGENT_KEY", "Gateway", "answered", "gateway", "opened", "taken", "until"]
