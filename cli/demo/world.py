"""What can be seen of the day from outside: the topics, read by a plain consumer, and what they add up to.

Nothing here is the truth that the summary is made of (that is in the databases); it drives the board, the simulated
agents and the feed, as any other system could drive its own.
"""

import asyncio
import base64
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from chassis.settings import Settings
from cli.demo.samples import Sample, digest
from schemas import deadletters, inbound, messages, notifications, roster, routing, sla, tickets
from schemas.envelope import Envelope, EnvelopeError, read_record
from schemas.payload import Payload
from schemas.registry import REGISTRY
from schemas.topics import (
    DEAD_LETTERS,
    INBOUND,
    MESSAGES,
    NOTIFICATIONS,
    ROSTER,
    ROUTING,
    SLA,
    TICKETS,
)

WATCHED: Final = (INBOUND, MESSAGES, TICKETS, ROUTING, SLA, NOTIFICATIONS, ROSTER, DEAD_LETTERS)
FEED_LINES: Final = 200

Hearer = Callable[[Payload], None]


@dataclass(slots=True)
class Ticket:
    """A ticket as its events tell it."""

    ticket_id: str
    conversation_id: str
    reference: str
    subject: str
    customer: str
    language: str | None
    desk: str
    first_desk: str
    queue: str
    priority: int
    opened_at: datetime
    status: str = "queued"
    agent_id: str | None = None
    message_ids: list[str] = field(default_factory=list)
    offers: int = 0
    answers: int = 0
    is_escalated: bool = False
    waits_since: datetime | None = None


@dataclass(slots=True)
class Clock:
    """One target of one ticket."""

    ticket_id: str
    target: str
    due_at: datetime
    status: str = "running"


@dataclass(slots=True)
class Agent:
    """An agent as the roster and the offers tell them."""

    agent_id: str
    name: str
    queues: tuple[str, ...]
    capacity: int
    presence: str = "offline"
    offered: set[str] = field(default_factory=set)
    holds: set[str] = field(default_factory=set)
    answered: int = 0


class World:
    """The day so far. `hear` takes one event; hearers are told of each event once."""

    def __init__(self) -> None:
        self.tickets: dict[str, Ticket] = {}
        self.clocks: dict[str, Clock] = {}
        self.agents: dict[str, Agent] = {}
        self.notices: dict[str, tuple[str, str]] = {}
        self.answer_mails: dict[str, str] = {}
        self.inputs: dict[str, str] = {}
        self.inputs_by_digest: dict[str, list[str]] = {}
        self.input_of_message: dict[str, str] = {}
        self.samples_by_digest: dict[str, list[Sample]] = {}
        self.counts: Counter[str] = Counter()
        self.repeats = 0
        self.parked = 0
        self.news: deque[Payload] = deque(maxlen=FEED_LINES)
        self.hearers: list[Hearer] = []
        self._seen: set[str] = set()
        self._ticket_of_message: dict[str, str] = {}
        self._messages_of_input: dict[str, list[str]] = {}

    # ------------------------------------------------------------------------------------ asking

    def ticket_of(self, sample: Sample) -> Ticket | None:
        """Return the ticket that a sample's message is part of, if it is known by now."""
        for name, samples in self.samples_by_digest.items():
            if all(one.number != sample.number for one in samples):
                continue
            for input_id in self.inputs_by_digest.get(name, ()):
                for message_id in self._messages_of_input.get(input_id, ()):
                    if message_id in self._ticket_of_message:
                        return self.tickets[self._ticket_of_message[message_id]]
        return None

    def sample_of_message(self, message_id: str) -> Sample | None:
        """Return the sample that a message was; None for one that somebody else sent."""
        name = self.inputs.get(self.input_of_message.get(message_id, ""), "")
        found = self.samples_by_digest.get(name, [])
        return found[0] if found else None

    # ----------------------------------------------------------------------------------- hearing

    def hear(self, envelope: Envelope, event: Payload) -> None:
        """Take one event; one that was heard before is counted as a repeat, and changes nothing."""
        if envelope.id in self._seen:
            self.repeats += 1
            return
        self._seen.add(envelope.id)
        self.counts[event.TYPE] += 1
        self._apply(event)
        if not isinstance(event, inbound.InboundReceived):
            self.news.append(event)
        for hearer in self.hearers:
            hearer(event)

    def _apply(self, event: Payload) -> None:
        match event:
            case inbound.InboundReceived():
                self._input(event)
            case messages.MessageReceived():
                self.input_of_message[event.message_id] = event.input_id
                self._messages_of_input.setdefault(event.input_id, []).append(event.message_id)
            case deadletters.DeadLetterParked():
                self.parked += 1
            case tickets.TicketOpened():
                self._open(event)
            case tickets.TicketEvent():
                self._ticket(event)
            case routing.RoutingEvent():
                self._routing(event)
            case sla.SlaEvent():
                self._clock(event)
            case notifications.NoticeEvent():
                self._notice(event)
            case roster.AgentSet():
                agent = self.agents.setdefault(
                    event.agent_id, Agent(event.agent_id, event.name, event.queues, event.capacity)
                )
                agent.name, agent.queues, agent.capacity = event.name, event.queues, event.capacity
            case roster.PresenceSet() if event.agent_id in self.agents:
                self.agents[event.agent_id].presence = event.presence

    def _input(self, event: inbound.InboundReceived) -> None:
        name = event.body_ref or digest(base64.b64decode(event.body_base64))
        self.inputs[event.input_id] = name
        self.inputs_by_digest.setdefault(name, []).append(event.input_id)

    def _open(self, event: tickets.TicketOpened) -> None:
        self.tickets[event.ticket_id] = Ticket(
            ticket_id=event.ticket_id,
            conversation_id=event.conversation_id,
            reference=event.reference,
            subject=event.subject,
            customer=event.contact.name or event.contact.address,
            language=event.contact.language,
            desk=event.desk,
            first_desk=event.desk,
            queue=event.queue,
            priority=event.priority,
            opened_at=event.at,
            waits_since=event.at,
            message_ids=[event.message_id],
        )
        self._ticket_of_message[event.message_id] = event.ticket_id

    def _ticket(self, event: tickets.TicketEvent) -> None:
        ticket = self.tickets.get(event.ticket_id)
        if ticket is None:
            return
        match event:
            case tickets.TicketMessageAdded():
                if event.message_id not in ticket.message_ids:
                    ticket.message_ids.append(event.message_id)
                self._ticket_of_message[event.message_id] = event.ticket_id
            case tickets.TicketReopened():
                ticket.status, ticket.agent_id, ticket.waits_since = "queued", None, event.at
            case tickets.TicketAnswered():
                ticket.answers += 1
                if event.agent_id in self.agents:
                    self.agents[event.agent_id].answered += 1
            case tickets.TicketEscalated():
                ticket.is_escalated, ticket.desk, ticket.queue = True, "technical", event.to_queue
            case tickets.TicketSolved():
                ticket.status, ticket.waits_since = "solved", None
            case tickets.TicketClosed():
                ticket.status = "closed"
            case tickets.TicketStatusChanged():
                ticket.status, ticket.queue = event.status, event.queue
                ticket.agent_id = event.agent_id
                ticket.waits_since = event.at if event.status == "queued" else None

    def _routing(self, event: routing.RoutingEvent) -> None:
        match event:
            case routing.OfferMade():
                if event.ticket_id in self.tickets:
                    self.tickets[event.ticket_id].offers += 1
                if event.agent_id in self.agents:
                    self.agents[event.agent_id].offered.add(event.ticket_id)
            case routing.TicketAssigned() if event.agent_id in self.agents:
                self.agents[event.agent_id].offered.discard(event.ticket_id)
                self.agents[event.agent_id].holds.add(event.ticket_id)
            case routing.TicketRequeued() | routing.WorkReleased():
                for agent in self.agents.values():
                    agent.offered.discard(event.ticket_id)
                    agent.holds.discard(event.ticket_id)

    def _clock(self, event: sla.SlaEvent) -> None:
        match event:
            case sla.TargetStarted() | sla.TargetResumed():
                self.clocks[event.target_id] = Clock(event.ticket_id, event.target, event.due_at)
            case sla.TargetRetargeted() if event.due_at is not None:
                self.clocks[event.target_id] = Clock(event.ticket_id, event.target, event.due_at)
            case _ if event.target_id in self.clocks:
                states = {
                    sla.TargetPaused.TYPE: "paused",
                    sla.TargetAtRisk.TYPE: "at risk",
                    sla.TargetBreached.TYPE: "breached",
                    sla.TargetMet.TYPE: "met",
                    sla.TargetCancelled.TYPE: "cancelled",
                }
                clock = self.clocks[event.target_id]
                clock.status = states.get(event.TYPE, clock.status)

    def _notice(self, event: notifications.NoticeEvent) -> None:
        if isinstance(event, notifications.NoticeResendDecided):
            return  # What becomes of it is told by events of its own.
        status = event.TYPE.split(".")[1]
        self.notices[event.notice_id] = (event.occasion, status)
        if isinstance(event, notifications.NoticeSent) and event.occasion == "answered":
            self.answer_mails[event.ticket_id] = event.provider_message_id


async def watch(world: World, settings: Settings) -> None:
    """Read the topics from their beginning into `world`, until cancelled; a broker that is away is waited for."""
    while True:
        consumer = AIOKafkaConsumer(
            **settings.kafka_access.options(), enable_auto_commit=False, max_poll_records=500
        )
        try:
            await consumer.start()
            partitions = [
                TopicPartition(settings.topic(topic.name), number)
                for topic in WATCHED
                for number in range(settings.partitions)
            ]
            consumer.assign(partitions)
            await consumer.seek_to_beginning()
            while True:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    for record in records:
                        hear_record(world, record.headers, record.value)
        except (KafkaError, OSError, TimeoutError):
            await asyncio.sleep(0.5)
        finally:
            await consumer.stop()


def hear_record(world: World, headers: object, value: bytes | None) -> None:
    """Take one record of a topic; what cannot be read is somebody else's matter."""
    try:
        envelope, data = read_record(headers, value)  # type: ignore[arg-type]
        kind = REGISTRY.get(envelope.type)
        if kind is not None:
            world.hear(envelope, kind.model_validate_json(data))
    except (EnvelopeError, ValidationError):
        return
