"""Two routers as processes, one person who works, and a thousand customers: the stand for the router's own attacks.

The customers' messages and the person's answers are written to the topics as the services before the router would, numbered
without gaps. What the routers decided is read where it cannot lie: `routing_event`, whose rows are numbered in the order
in which they were committed by the one task that decides for the domain.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from aiokafka import AIOKafkaConsumer

from chassis.batch import partition_of
from schemas import commands, roster, routing
from schemas.envelope import read_record
from schemas.messages import MessageContent, MessageReceived, Sender
from schemas.payload import REGISTRY, Payload
from schemas.topics import ROUTING, TICKETS
from tests.faults.harness import PARTITIONS, Member
from tests.faults.nursery import ROUTER
from tests.faults.stand import Stand
from tests.integration.kit import until

AGENT: Final = "ada"
DOMAIN: Final = "main"

POLICY: Final = """
default_language: en
languages: [en]
domains: {{main: {{}}}}
queues: {{service: {{desk: service}}, technical: {{desk: technical}}}}
costs: {{default: 10}}
offers: {{seconds: {seconds}, max_declines: 100, away_after_misses: null}}
rules: [{{name: everything, then: {{queue: service, language: {{asked: false}}}}}}]
escalation: {{to_queue: technical{escalation}}}
reopen: {{window_hours: 72}}
"""


@dataclass
class Told:
    """An event that a router published."""

    event: Payload
    at: datetime


@dataclass
class Routers(Stand):
    """Two slots with a router each, a broker and a database between them, and what the world tells and hears."""

    SERVICE = ROUTER
    SOURCE = "signalbox/test.world/0"

    offer_seconds: float = 2.0
    escalation: str = ""
    heard: list[Told] = field(default_factory=list)
    members: dict[str, Member] = field(default_factory=dict)
    _listeners: list[Callable[[Payload], None]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Routers"]:
        """Both routers at work, and someone who listens to what they say."""
        self.policy.mkdir(parents=True)
        text = POLICY.format(seconds=self.offer_seconds, escalation=self.escalation)
        (self.policy / "routing.yaml").write_text(text, encoding="utf-8")
        async with self._prepared():
            self._consumer = AIOKafkaConsumer(
                self.prefix + ROUTING.name,
                self.prefix + TICKETS.name,
                bootstrap_servers=self.servers.kafka.bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
            )
            await self._consumer.start()
            listening = asyncio.create_task(self._listen())
            try:
                for slot in ("one", "two"):
                    self.start(slot)
                await self.staffed()
                yield self
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                await self._consumer.stop()
                for member in self.members.values():
                    member.send(signal.SIGCONT)
                    member.send(signal.SIGKILL)
                for member in self.members.values():
                    await self.ended(member)

    # -- processes -------------------------------------------------------------------------------------------

    def start(self, slot: str, failpoints: str = "") -> Member:
        """Start a router in a slot, whose last one is gone."""
        member = self._born(slot, failpoints)
        self.members[slot] = member
        return member

    async def ended(self, member: Member) -> None:
        """Wait until a router's process is gone."""
        await self._gone(member)

    async def staffed(self) -> None:
        """Wait until every task of both stages belongs to a router that lives."""
        await until("every task belongs to a living router", self._owned_by_the_living, 90)

    async def _owned_by_the_living(self) -> bool:
        living = {str(one.pid) for one in self.members.values() if one.exit_code is None}
        rows = await self.rows(
            "SELECT owner FROM lease WHERE stage IN ('router.tickets', 'router.assignment')"
        )
        owners = [row["owner"].rpartition(":")[2] for row in rows]
        return len(owners) == 2 * PARTITIONS and set(owners) <= living

    async def owner_of_the_domain(self) -> Member:
        """Return the router that decides who gets what."""
        task = partition_of(DOMAIN, PARTITIONS)
        rows = await self.rows(
            f"SELECT owner FROM lease WHERE stage = 'router.assignment' AND task = {task}"
        )
        pid = rows[0]["owner"].rpartition(":")[2]
        return next(one for one in self.members.values() if str(one.pid) == pid)

    async def routing_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Return everything that assignment told, in the order in which it was committed."""
        rows = await self.rows("SELECT type, data FROM routing_event ORDER BY id")
        return [(row["type"], json.loads(row["data"])) for row in rows]

    # -- the world -------------------------------------------------------------------------------------------

    async def tell(self, event: Payload, key: str) -> None:
        """Publish an event as the service would whose it is, with the next number of its partition."""
        await self._tell(event, key)

    async def write(self, n: int) -> str:
        """Customer `n` writes; return the conversation."""
        conversation_id = f"conversation-{n:04}"
        await self.tell(
            MessageReceived(
                message_id=f"message-{n}",
                conversation_id=conversation_id,
                customer_id=f"customer-{n}",
                input_id=f"input-{n}",
                content=MessageContent(
                    channel="form",
                    account="contact",
                    vendor_message_id=f"vendor-{n}",
                    sender=Sender(address=f"customer-{n}@example.com"),
                    text="Where is my lamp?",
                    text_new="Where is my lamp?",
                    language="en",
                    occurred_at=datetime.now(UTC),
                ),
            ),
            conversation_id,
        )
        return conversation_id

    async def one_agent_comes(self, capacity: int = 10) -> None:
        """Somebody who can hold `capacity // 10` tickets is there from now on."""
        await self.tell(
            roster.AgentSet(
                domain=DOMAIN, agent_id=AGENT, name="Ada", queues=("service",), capacity=capacity
            ),
            DOMAIN,
        )
        await self.tell(
            roster.PresenceSet(domain=DOMAIN, agent_id=AGENT, presence="available"), DOMAIN
        )

    async def accept(self, offer: routing.OfferMade) -> None:
        """The agent takes an offer."""
        await self.tell(
            roster.OfferAccepted(
                domain=DOMAIN,
                agent_id=offer.agent_id,
                ticket_id=offer.ticket_id,
                reservation_id=offer.reservation_id,
            ),
            DOMAIN,
        )

    async def solve(self, taken: routing.TicketAssigned) -> None:
        """The agent is done with a ticket."""
        await self.tell(
            commands.SolveTicket(
                command_id=f"solve-{taken.ticket_id}",
                conversation_id=taken.conversation_id,
                ticket_id=taken.ticket_id,
                agent_id=taken.agent_id,
            ),
            taken.conversation_id,
        )

    async def work(self) -> None:
        """Accept every offer and solve every ticket, for ever."""
        news: asyncio.Queue[Payload] = asyncio.Queue()
        self._listeners.append(news.put_nowait)
        for told in self.heard:
            news.put_nowait(told.event)
        while True:
            match await news.get():
                case routing.OfferMade() as offer:
                    await self.accept(offer)
                case routing.TicketAssigned() as taken:
                    await self.solve(taken)

    def events(self, kind: type[Payload]) -> list[Any]:
        """Return what was heard of a kind, each event once."""
        return [told.event for told in self.heard if isinstance(told.event, kind)]

    async def hear(self, kind: type[Payload], n: int, seconds: float = 60.0) -> list[Any]:
        """Wait until `n` events of a kind were heard, and return them."""
        what = f"{n} of {kind.TYPE}"
        await until(what, lambda: len(self.events(kind)) >= n, seconds)
        return self.events(kind)

    async def _listen(self) -> None:
        seen: set[tuple[str, str]] = set()
        async for record in self._consumer:
            envelope, data = read_record(record.headers, record.value)
            if (envelope.source, envelope.id) in seen:
                continue
            seen.add((envelope.source, envelope.id))
            event = REGISTRY[envelope.type].model_validate_json(data)
            self.heard.append(Told(event, envelope.time))
            for listener in self._listeners:
                listener(event)

    async def flush(self) -> None:
        """Wait until the broker has everything that was told."""
        await self._producer.flush()
