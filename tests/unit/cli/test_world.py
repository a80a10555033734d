"""What the demo sees of the topics: each event once, each ticket where it stands, each message's sample."""

import base64
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from cli.demo.samples import Sample, digest
from cli.demo.world import World
from schemas import inbound, messages, notifications, roster, routing, sla, tickets
from schemas.envelope import Envelope
from schemas.payload import Payload

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
ENVELOPE = Envelope(type="x", source="signalbox/test/0", id="0", time=NOW)


def made(kind: type[Payload], **fields: Any) -> Payload:
    return kind.model_validate({**kind.EXAMPLE, **fields})


def world_after(*events: Payload) -> World:
    world = World()
    for number, event in enumerate(events):
        world.hear(replace(ENVELOPE, id=str(number)), event)
    return world


def test_an_event_that_comes_again_changes_nothing_and_is_counted() -> None:
    world = world_after(made(tickets.TicketOpened))
    heard: list[Payload] = []
    world.hearers.append(heard.append)
    world.hear(replace(ENVELOPE, id="0"), made(tickets.TicketOpened))
    assert world.repeats == 1
    assert heard == []
    assert world.counts[tickets.TicketOpened.TYPE] == 1


def test_a_ticket_leads_back_to_the_sample_that_opened_it() -> None:
    body = b"From: ada@example.com\r\n\r\nhello\r\n"
    sample = Sample("001", "mail/001-a.eml", "", "en", "ticket")
    world = World()
    world.samples_by_digest[digest(body)] = [sample]
    assert world.ticket_of(sample) is None
    accepted = made(
        inbound.InboundReceived, input_id="i1", body_base64=base64.b64encode(body).decode()
    )
    message = made(messages.MessageReceived, input_id="i1", message_id="m1")
    opened = made(tickets.TicketOpened, message_id="m1", ticket_id="t1")
    for number, event in enumerate((accepted, message, opened)):
        world.hear(replace(ENVELOPE, id=str(number)), event)
    ticket = world.ticket_of(sample)
    assert ticket is not None
    assert ticket.ticket_id == "t1"
    assert world.sample_of_message("m1") == sample
    assert world.sample_of_message("m2") is None


def test_an_agent_is_busy_from_the_offer_until_they_are_free_of_it() -> None:
    agent = roster.AgentSet.EXAMPLE["agent_id"]
    events = [
        made(roster.AgentSet),
        made(tickets.TicketOpened),
        made(routing.OfferMade, agent_id=agent),
    ]
    assert world_after(*events).agents[agent].offered
    events.append(made(routing.TicketAssigned, agent_id=agent))
    assert world_after(*events).agents[agent].holds
    events.append(made(routing.WorkReleased, agent_id=agent))
    assert not world_after(*events).agents[agent].holds


def test_a_clock_shows_its_last_state() -> None:
    world = world_after(made(sla.TargetStarted), made(sla.TargetAtRisk), made(sla.TargetMet))
    assert [clock.status for clock in world.clocks.values()] == ["met"]


def test_an_answer_that_was_sent_is_known_by_its_message_id() -> None:
    world = world_after(made(notifications.NoticeSent, occasion="answered", ticket_id="t1"))
    assert world.answer_mails == {"t1": notifications.NoticeSent.EXAMPLE["provider_message_id"]}
    assert set(world.notices.values()) == {("answered", "sent")}
