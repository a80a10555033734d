"""Olark: chats that are over, and messages left while nobody was there, by webhook.

Sources: third-party integrations that publish the schema of a transcript; Olark's own old guides show a form field
`data=` with the JSON in it, so form and bare JSON are both read. Item kinds and the wire form are believed and not confirmed.

Nothing is signed, and no retry policy was found: the account's secret stands in the address, and `verified` stays false.
A chat is over when it reaches us and no API goes on with it, so an answer goes to the mail address that the visitor gave;
without one there is no way to answer, and `fields` says so. The address is what the visitor typed and proves nothing.

Each line is a message of its own in the conversation's thread, named by the conversation's id and the line's number, for
lines have no ids: a transcript that comes again, or grown, repeats those names. Nothing was tried against a live account.
"""

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
    ParseError,
    Request,
    Verdict,
)
from services.ingest.adapters.form import media_type

FORM: Final = "application/x-www-form-urlencoded"
FIELD: Final = "data"
LINES_MAX: Final = 1_000
"""Lines of one chat that are read; hours of talk have less."""

_FROM_VISITOR: Final = frozenset({"MessageToOperator", "OfflineMessage"})
_FROM_OPERATOR: Final = "MessageToVisitor"


class Item(reading.Struct, frozen=True, rename="camel"):
    """A line of a chat."""

    kind: str | None = None
    timestamp: str | None = None
    body: str | None = None
    nickname: str | None = None
    operator_id: str | None = None
    visitor_nickname: str | None = None


class Visitor(reading.Struct, frozen=True, rename="camel"):
    """The customer, as the chat's box and their browser told."""

    id: str | None = None
    full_name: str | None = None
    email_address: str | None = None
    phone_number: str | None = None
    conversation_begin_page: str | None = None


class Operator(reading.Struct, frozen=True, rename="camel"):
    """Somebody of ours."""

    id: str | None = None
    username: str | None = None
    nickname: str | None = None
    email_address: str | None = None


class Group(reading.Struct, frozen=True, rename="camel"):
    """The group that the chat was for."""

    name: str | None = None


class Conversation(reading.Struct, frozen=True, rename="camel"):
    """A transcript, or an offline message."""

    id: str | None = None
    kind: str | None = None
    tags: tuple[str, ...] | None = None
    groups: tuple[Group, ...] | None = None
    items: tuple[Item, ...] | None = None
    visitor: Visitor | None = None
    operators: dict[str, Operator] | None = None


class Settings(ChannelSettings):
    """An account: `secret` is the token in the address that is registered at Olark; `own_ids` are operators' ids of bots."""


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether the account's token was shown; Olark signs nothing."""
    del now
    return signing.only(request, "POST") or signing.by_token(request, secrets)


def _document(delivery: Delivery) -> bytes:
    """Return the JSON, out of the form's field where a form came."""
    is_form = media_type(delivery.headers.get("content-type")) == FORM
    if not is_form and delivery.body.lstrip()[:1] in (b"{", b"["):
        return delivery.body
    if not is_form and not delivery.body.startswith(b"data="):
        return delivery.body
    data = reading.form_of(delivery.body).get(FIELD)
    if data is None:
        raise ParseError("invalid_field", f"{FIELD}: is missing", FIELD)
    return data.encode("utf-8", "surrogatepass")


def _sender(visitor: Visitor, name: str) -> Sender:
    address = (visitor.email_address or "").strip()
    if addresses.is_address(address):
        return Sender(name=name, address=address, kind="email")
    if visitor.id:
        return Sender(
            name=name, address=reading.identifier(visitor.id, "visitor.id"), kind="vendor_id"
        )
    return Sender(name=name, address="", kind="none")


def _fields(chat: Conversation, visitor: Visitor, sender: Sender) -> dict[str, str]:
    groups = [group.name for group in chat.groups or () if group.name]
    return {
        "page": reading.link(visitor.conversation_begin_page) or "",
        "phone": visitor.phone_number or "",
        "groups": ", ".join(groups),
        "tags": ", ".join(chat.tags or ()),
        "no_answer_possible": "" if sender.kind == "email" else "the visitor left no mail address",
    }


def _message(
    delivery: Delivery, chat: Conversation, thread: str, number: int, item: Item
) -> MessageContent | None:
    text = reading.text_of(item.body)
    if not text:
        return None
    visitor = chat.visitor or Visitor()
    customer = _sender(visitor, visitor.full_name or "")
    vendor_id = f"{thread}/{number}"
    if item.kind in _FROM_VISITOR:
        if not customer.name:
            name = item.visitor_nickname or item.nickname or ""
            customer = customer.model_copy(update={"name": name})
        return reading.content(
            delivery,
            vendor_id,
            customer,
            text,
            text_new=text,
            occurred_at=item.timestamp,
            thread=thread,
            fields=_fields(chat, visitor, customer),
        )
    operator = (chat.operators or {}).get(item.operator_id or "") or Operator()
    address = (operator.email_address or "").strip()
    is_mail = addresses.is_address(address)
    return reading.content(
        delivery,
        vendor_id,
        Sender(
            name=operator.nickname or item.nickname or "",
            address=address if is_mail else item.operator_id or operator.username or "olark",
            kind="email" if is_mail else "vendor_id",
        ),
        text,
        text_new=text,
        occurred_at=item.timestamp,
        thread=thread,
        direction="outbound",
        recipients=(customer.address,) if customer.address else (),
    )


def parse(delivery: Delivery) -> Parsed:
    """Read a transcript or an offline message: one message a line, the operators' lines outbound.

    Raises:
        ParseError: it is no conversation, or has no id.
    """
    chat = reading.json_as(_document(delivery), Conversation)
    if not chat.items:
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    thread = reading.identifier(chat.id, "id")
    own = delivery.settings.own_ids
    messages: list[MessageContent] = []
    is_echo = False
    for number, item in enumerate(chat.items[:LINES_MAX], 1):
        if item.kind not in _FROM_VISITOR and item.kind != _FROM_OPERATOR:
            continue
        if item.kind == _FROM_OPERATOR and item.operator_id in own:
            is_echo = True
            continue
        message = _message(delivery, chat, thread, number, item)
        if message is not None:
            messages.append(message)
    if not messages:
        return Parsed(ignored="echo" if is_echo else "not_a_message", verified=delivery.verified)
    return Parsed(tuple(messages), verified=delivery.verified)


CHANNEL = Channel(
    name="olark",
    parse=parse,
    settings=Settings,
    verify=verify,
    headers_kept=frozenset({"content-type"}),
    media_types=frozenset({"application/json", FORM}),
    capability=Capability(can_reply=True, proof="shared token in the address"),
)
