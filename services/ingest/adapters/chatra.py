"""Chatra (now of Brevo): what visitors and agents write in a chat, by webhook.

Sources: third-party integrations; Brevo's pages document sibling webhooks of the same shape. Event names, and the key of
a message's text (`message` in two integrations, `text` in another; both are read), are believed and not confirmed.

Nothing is signed: the account's secret stands in the address, and `verified` stays false. A fragment repeats nothing, a
transcript holds the whole chat; lines have no ids, so each is named by its chat, its time and a digest of its text, and a
transcript's lines are the fragments' again. The writer goes by Chatra's client id throughout: a mail address, which may
become known in the middle of a chat, is told in `fields` and proves nothing. Nothing was tried against a live account.
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from schemas.messages import MessageContent, Sender
from services.ingest.adapters import addresses, reading, signing
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    Request,
    Verdict,
)

LINES_MAX: Final = 1_000
"""Lines of one delivery that are read."""
EVENTS: Final = frozenset(
    {"chatStarted", "chatFragment", "chatTranscript"}
    | {"conversationStarted", "conversationFragment", "conversationTranscript"}
)


class Client(reading.Struct, frozen=True, rename="camel"):
    """The customer; `id` lasts, `chatId` names the chat."""

    id: str | None = None
    chat_id: str | None = None
    displayed_name: str | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None


class Agent(reading.Struct, frozen=True, rename="camel"):
    """Somebody of ours."""

    id: str | None = None
    name: str | None = None
    email: str | None = None


class Line(reading.Struct, frozen=True, rename="camel"):
    """What one side wrote."""

    type: str | None = None
    message: str | None = None
    text: str | None = None
    agent_id: str | None = None
    created_at: str | int | float | None = None


class Event(reading.Struct, frozen=True, rename="camel"):
    """A webhook's body."""

    event_name: str
    client: Client | None = None
    agents: tuple[Agent, ...] | None = None
    messages: tuple[Line, ...] | None = None


class Settings(ChannelSettings):
    """An account: `secret` is the token in the address that is registered; `own_ids` are the agents we push as."""


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether the account's token was shown; Chatra signs nothing."""
    del now
    return signing.only(request, "POST") or signing.by_token(request, secrets)


def _line_id(chat: str, line: Line, text: str) -> str:
    digest = hashlib.sha256(f"{line.type}\x1f{text}".encode("utf-8", "replace")).hexdigest()
    return f"{chat}/{line.created_at if line.created_at is not None else ''}/{digest[:12]}"[:200]


def _fields(client: Client) -> dict[str, str]:
    email = (client.email or "").strip()
    return {
        "email": email if addresses.is_address(email) else "",
        "phone": client.phone or "",
    }


def _writer(event: Event, line: Line) -> str:
    """Return the id of the agent who wrote a line: the only one there where the line does not say."""
    known = [agent.id for agent in event.agents or () if agent.id]
    return line.agent_id or (known[0] if len(known) == 1 else "")


def _outbound(
    delivery: Delivery, event: Event, client_id: str, chat: str, line: Line, text: str
) -> MessageContent:
    writer = _writer(event, line)
    agent = next((one for one in event.agents or () if one.id and one.id == writer), None)
    return reading.content(
        delivery,
        _line_id(chat, line, text),
        Sender(
            name=(agent.name if agent else None) or "",
            address=writer or "chatra",
            kind="vendor_id",
        ),
        text,
        text_new=text,
        occurred_at=line.created_at,
        thread=chat,
        direction="outbound",
        recipients=(client_id,),
    )


def parse(delivery: Delivery) -> Parsed:
    """Read an event's lines: the client's inbound, the agents' outbound, our own pushes left out.

    Raises:
        ParseError: it is no event, or has lines and does not say whose.
    """
    event = reading.json_as(delivery.body, Event)
    if event.event_name not in EVENTS:
        return Parsed(ignored="unknown_event", verified=delivery.verified)
    if not event.messages:
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    client = event.client or Client()
    client_id = reading.identifier(client.id, "client.id")
    chat = reading.identifier(client.chat_id or client.id, "client.chat_id")
    sender = Sender(
        name=client.displayed_name or client.name or "", address=client_id, kind="vendor_id"
    )
    messages: list[MessageContent] = []
    is_echo = False
    for line in event.messages[:LINES_MAX]:
        text = reading.text_of(line.message) or reading.text_of(line.text)
        if not text or line.type not in ("client", "agent"):
            continue
        if line.type == "client":
            made = reading.content(
                delivery,
                _line_id(chat, line, text),
                sender,
                text,
                text_new=text,
                occurred_at=line.created_at,
                thread=chat,
                fields=_fields(client),
            )
            messages.append(made)
        elif _writer(event, line) in delivery.settings.own_ids:
            is_echo = True
        else:
            messages.append(_outbound(delivery, event, client_id, chat, line, text))
    if not messages:
        return Parsed(ignored="echo" if is_echo else "not_a_message", verified=delivery.verified)
    return Parsed(tuple(messages), verified=delivery.verified)


CHANNEL = Channel(
    name="chatra",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(can_reply=True, proof="shared token in the address"),
)
