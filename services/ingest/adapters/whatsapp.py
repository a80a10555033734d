"""WhatsApp by Meta's Cloud API: Meta's callback for the object `whatsapp_business_account`.

Facts: WhatsApp Business Platform, webhook reference (`messages`, `smb_message_echoes`, and the pages of each type, of
edits and of removals). Documented: ids, shapes, seconds as text, statuses, business-scoped user ids, echoes of what
people type in the WhatsApp Business app on a shared number, edits and removals on such numbers, and the 24 hours.
Believed and unconfirmed: that `group_id` names the group of a message, and that an echo names a person without a number
by `to_user_id`.

What is proved is the origin: Meta signed the body (see `meta`), and WhatsApp has proved the number. A person is a
number; where somebody with a username keeps it to themselves, `from` is missing and the business-scoped user id
(`US.13579`) stands in. Where both are there, the id is among the fields. A medium has an id and sometimes an address;
either needs our access token and lasts a few minutes.

Statuses of our own messages come by the same callback: delivered, read and failed ones tell what became of them, the rest
is left out (`status`). Callbacks may have 3 MB.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from pydantic import Field

from schemas.messages import Attachment, DeliveryWord, Sender
from services.ingest.adapters import json_body, meta
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    Delivery,
    Parsed,
    ParseError,
    Receipt,
    settings_of,
)
from services.ingest.adapters.reading import Struct, attachment, content, identifier, instant

OBJECT: Final = "whatsapp_business_account"
MEDIA: Final = ("image", "video", "audio", "voice", "document", "sticker")
HEAD: Final = ("from", "from_user_id", "to", "to_user_id", "id", "group_id", "timestamp", "type")
"""What every message has, whatever it says."""
ANSWERS_MAX: Final = 30
"""Answers of a form (a "flow") that become fields."""
CONTACTS_MAX: Final = 20
PRODUCTS_MAX: Final = 100

TOLD: Final[dict[str, DeliveryWord]] = {
    "delivered": "delivered",
    "read": "read",
    "failed": "bounced",
}
UNREACHABLE: Final = frozenset({"131026"})
"""Error codes whose reason is the recipient: nobody at WhatsApp, or somebody who takes no such messages."""

_PHONE: Final = re.compile(r"\+?(\d{5,20})")
_NOT_DIGITS: Final = re.compile(r"[^\d+]")


# ------------------------------------------------------------------------------- what a callback holds


class Metadata(Struct, frozen=True):
    """Our own number, by its id and as people dial it."""

    phone_number_id: meta.Id | None = None
    display_phone_number: meta.Id | None = None


class Profile(Struct, frozen=True):
    """What a person calls themselves."""

    name: str | None = None
    username: str | None = None


class Contact(Struct, frozen=True):
    """A person in the callback. `user_id` is the business-scoped id."""

    profile: Profile | None = None
    wa_id: meta.Id | None = None
    user_id: str | None = None


class Product(Struct, frozen=True):
    """A product of our catalogue."""

    catalog_id: meta.Id | None = None
    product_retailer_id: meta.Id | None = None


class Context(Struct, frozen=True):
    """What a message answers to, or where it was forwarded from."""

    id: str | None = None
    forwarded: bool = False
    frequently_forwarded: bool = False
    referred_product: Product | None = None


class Text(Struct, frozen=True):
    """A text."""

    body: str | None = None


class Medium(Struct, frozen=True):
    """A file: its id at Meta, and sometimes the address it can be had at."""

    id: meta.Id | None = None
    mime_type: str | None = None
    caption: str | None = None
    filename: str | None = None
    url: str | None = None


class Location(Struct, frozen=True):
    """A place."""

    latitude: float | None = None
    longitude: float | None = None
    name: str | None = None
    address: str | None = None


class CardName(Struct, frozen=True):
    """A name on a card."""

    formatted_name: str | None = None
    first_name: str | None = None


class CardPhone(Struct, frozen=True):
    """A number on a card."""

    phone: meta.Id | None = None


class CardEmail(Struct, frozen=True):
    """A mail address on a card."""

    email: str | None = None


class Card(Struct, frozen=True):
    """A contact that somebody sends."""

    name: CardName | None = None
    phones: list[CardPhone] | None = None
    emails: list[CardEmail] | None = None


class Button(Struct, frozen=True):
    """A pressed button of a template."""

    text: str | None = None
    payload: str | None = None


class Choice(Struct, frozen=True):
    """A chosen button or line of a list."""

    id: str | None = None
    title: str | None = None
    description: str | None = None


class Flow(Struct, frozen=True):
    """A filled-in form. `response_json` is JSON in a text."""

    name: str | None = None
    body: str | None = None
    response_json: str | None = None


class Interactive(Struct, frozen=True):
    """An answer to a message with buttons, a list or a form."""

    type: str = ""
    button_reply: Choice | None = None
    list_reply: Choice | None = None
    nfm_reply: Flow | None = None


class Item(Struct, frozen=True):
    """A line of an order."""

    product_retailer_id: meta.Id | None = None
    quantity: float | None = None
    item_price: float | None = None
    currency: str | None = None


class Ordered(Struct, frozen=True):
    """An order out of our catalogue, as the person sends it."""

    catalog_id: meta.Id | None = None
    text: str | None = None
    product_items: list[Item] | None = None


class Unsupported(Struct, frozen=True):
    """What the Cloud API cannot hand over."""

    type: str | None = None


class Fault(Struct, frozen=True):
    """Why something could not be handed over."""

    code: meta.Id | None = None


class Status(Struct, frozen=True):
    """What became of a message of ours. `errors` stand in a failed one."""

    id: str | None = None
    status: str = ""
    timestamp: meta.Id | None = None
    recipient_id: meta.Id | None = None
    recipient_user_id: str | None = None
    errors: list[Fault] | None = None


class Referral(Struct, frozen=True):
    """The advertisement that led a person here."""

    source_url: str | None = None
    source_id: meta.Id | None = None
    headline: str | None = None


class Edit(Struct, frozen=True):
    """A message's new content."""

    original_message_id: str | None = None
    message: "Message | None" = None


class Revoke(Struct, frozen=True):
    """A removed message's id."""

    original_message_id: str | None = None


class Message(Struct, frozen=True, rename={"from_": "from"}):
    """A message, of ours (in an echo) or of a person. `timestamp` is in seconds. What it says stands under its type."""

    from_: meta.Id | None = None
    from_user_id: str | None = None
    to: meta.Id | None = None
    to_user_id: str | None = None
    id: str | None = None
    group_id: meta.Id | None = None
    timestamp: meta.Id | None = None
    type: str = ""
    context: Context | None = None
    referral: Referral | None = None
    errors: list[Fault] | None = None
    text: Text | None = None
    image: Medium | None = None
    video: Medium | None = None
    audio: Medium | None = None
    voice: Medium | None = None
    document: Medium | None = None
    sticker: Medium | None = None
    location: Location | None = None
    contacts: list[Card] | None = None
    interactive: Interactive | None = None
    button: Button | None = None
    order: Ordered | None = None
    unsupported: Unsupported | None = None
    edit: Edit | None = None
    revoke: Revoke | None = None


class Value(Struct, frozen=True):
    """What one change holds; contacts and messages are each read by themselves."""

    metadata: Metadata | None = None
    contacts: list[Any] | None = None
    messages: list[Any] | None = None
    message_echoes: list[Any] | None = None
    statuses: list[Any] | None = None
    errors: list[Any] | None = None


class Settings(meta.MetaSettings):
    """A WhatsApp number."""

    phone_number_id: str | None = Field(
        default=None,
        pattern=r"^\d{1,40}$",
        description="The number's id at Meta. What is for another number is left out.",
    )


verify = meta.verify


# ------------------------------------------------------------------------------------------- reading


def parse(delivery: Delivery) -> Parsed:
    """Read a callback: each message is one, and each that somebody of ours typed in the WhatsApp Business app.

    Raises:
        ParseError: the body is no callback, or its only message lacks its id.
    """
    settings = settings_of(delivery, Settings)

    def read(entry: meta.Entry) -> Iterator[meta.Outcome]:
        yield from meta.each_of(
            entry.changes,
            meta.Change,
            "changes",
            lambda change: _changed(delivery, settings, entry, change),
        )

    return meta.concluded(delivery, meta.each(delivery, OBJECT, None, read))


def _changed(
    delivery: Delivery, settings: Settings, entry: meta.Entry, change: meta.Change
) -> Iterator[meta.Outcome]:
    if change.field == "history":
        yield "history"
        return
    if change.field not in ("messages", "smb_message_echoes"):
        yield "unknown_event"
        return
    value = meta.shaped(change.value, Value, "value")
    ours = value.metadata or Metadata()
    if settings.phone_number_id not in (None, str(ours.phone_number_id)):
        yield "other_account"
        return
    people = _people(value.contacts or [])
    yield from meta.each_of(
        value.messages,
        Any,
        "messages",
        lambda given: [_received(delivery, settings, entry, ours, people, _message(given))],
    )
    yield from meta.each_of(
        value.message_echoes,
        Any,
        "message_echoes",
        lambda given: [_sent(delivery, entry, ours, _message(given))],
    )
    yield from meta.each_of(
        value.statuses, Status, "statuses", lambda one: [_became(delivery, entry, one)]
    )
    if value.errors:
        yield "error"


def _became(delivery: Delivery, entry: meta.Entry, status: Status) -> meta.Outcome:
    """Return what a status says became of a message of ours; that it was taken or sent on is no news."""
    what = TOLD.get(status.status)
    customer = _party(status.recipient_id, status.recipient_user_id, "")
    if what is None or customer.kind == "none" or not delivery.verified:
        return "status"
    codes = [str(one.code) for one in status.errors or () if one.code is not None]
    code = codes[0] if codes and what == "bounced" and codes[0].isdigit() else ""
    return Receipt(
        channel=delivery.channel,
        account=delivery.account,
        vendor_message_id=identifier(status.id, "statuses.id"),
        what=what,
        recipient=customer,
        occurred_at=instant(status.timestamp or entry.time, delivery.received_at),
        detail=code,
        is_permanent=code in UNREACHABLE,
    )


def _received(
    delivery: Delivery,
    settings: Settings,
    entry: meta.Entry,
    ours: Metadata,
    people: dict[str, Contact],
    message: Message,
) -> meta.Outcome:
    person = _person(people, message)
    profile = person.profile or Profile()
    user_id = message.from_user_id or person.user_id
    sender = _party(message.from_, user_id, profile.name or profile.username or "")
    own = (_phone(ours.display_phone_number), *settings.own_ids)
    if sender.address and (sender.address in own or str(message.from_) in own):
        return "echo"
    us = _phone(ours.display_phone_number)
    return _told(
        delivery,
        message,
        sender,
        occurred_at=message.timestamp or entry.time,
        recipients=(us,) if us else (),
        fields=meta.told(
            user_id=user_id if sender.kind == "phone" else None, username=profile.username
        ),
    )


def _sent(delivery: Delivery, entry: meta.Entry, ours: Metadata, message: Message) -> meta.Outcome:
    customer = _party(message.to, message.to_user_id, "")
    if customer.kind == "none":
        raise ParseError("invalid_field", "message_echoes.to: is missing", "message_echoes.to")
    number = _phone(message.from_) or _phone(ours.display_phone_number)
    # Both sides of a chat are named in the same way, so that it is found again by the customer's address.
    sender = (
        Sender(address=number, kind="phone")
        if number and customer.kind == "phone"
        else Sender(
            address=identifier(ours.phone_number_id, "metadata.phone_number_id"), kind="vendor_id"
        )
    )
    return _told(
        delivery,
        message,
        sender,
        occurred_at=message.timestamp or entry.time,
        direction="outbound",
        recipients=(customer.address,),
        fields={},
    )


def _message(given: object) -> Message:
    """Return a message; one whose content has a shape we do not know without that content, so that it is seen.

    Raises:
        ParseError: not even who wrote, and which message it is, can be read.
    """
    try:
        return meta.shaped(given, Message, "messages")
    except ParseError:
        if not isinstance(given, dict):
            raise
        return meta.shaped(
            {name: given[name] for name in HEAD if name in given}, Message, "messages"
        )


def _people(contacts: list[Any]) -> dict[str, Contact]:
    """Return the people a callback names, by number and by user id; under no name, the one who is there alone."""
    found = []
    for contact in contacts:
        try:
            found.append(meta.shaped(contact, Contact, "contacts"))
        except ParseError:
            continue  # A name is worth less than the message.
    by_name = {str(name): one for one in found for name in (one.wa_id, one.user_id) if name}
    # A number and a WhatsApp id may differ in a digit (Brazil, Mexico); a single contact is the writer all the same.
    return by_name | {"": found[0]} if len(found) == 1 else by_name


def _person(people: dict[str, Contact], message: Message) -> Contact:
    for name in (message.from_, message.from_user_id, ""):
        if name is not None and str(name) in people:
            return people[str(name)]
    return Contact()


def _phone(value: meta.Id | None) -> str | None:
    """Return a number in E.164 with its plus, out of digits or of a number as people write it."""
    found = _PHONE.fullmatch(_NOT_DIGITS.sub("", str(value))) if value is not None else None
    return f"+{found.group(1)}" if found else None


def _party(number: meta.Id | None, user_id: str | None, name: str) -> Sender:
    given = str(number) if number is not None else ""
    if _PHONE.fullmatch(given):
        return Sender(name=name, address=f"+{given.lstrip('+')}", kind="phone")
    if user_id or given:
        return Sender(
            name=name, address=identifier(user_id or given, "messages.from"), kind="vendor_id"
        )
    return Sender(name=name, address="", kind="none")


# -------------------------------------------------------------------------------- what a message says


@dataclass(slots=True)
class Said:
    """What a message says, whatever its type."""

    text: str = ""
    files: tuple[Attachment, ...] = ()
    fields: dict[str, str] = field(default_factory=dict)


def _told(
    delivery: Delivery,
    message: Message,
    sender: Sender,
    *,
    fields: Mapping[str, str],
    **common: Any,
) -> meta.Outcome:
    if message.type == "reaction":
        return "reaction"
    if message.type == "system":
        return "system"
    name, change, shown = message.id, "new", message
    if message.type == "revoke":
        name = message.revoke.original_message_id if message.revoke is not None else None
        change = "deleted"
    elif message.type == "edit":
        edit = message.edit or Edit()
        name, change = edit.original_message_id, "edited"
        shown = edit.message or Message()
    said = Said() if change == "deleted" else _said(shown)
    context = shown.context or Context()
    referral = message.referral or Referral()
    product = context.referred_product or Product()
    return content(
        delivery,
        identifier(name, "messages.id"),
        sender,
        said.text,
        text_new=said.text,
        attachments=said.files,
        change=change,
        thread=identifier(message.group_id, "messages.group_id") if message.group_id else None,
        in_reply_to=identifier(context.id, "messages.context.id") if context.id else None,
        fields={
            **fields,
            **said.fields,
            **meta.told(
                forwarded="true" if context.forwarded or context.frequently_forwarded else None,
                product_id=product.product_retailer_id,
                catalog_id=product.catalog_id,
                ad_id=referral.source_id,
                ad_url=referral.source_url,
                ad_headline=referral.headline,
            ),
        },
        **common,
    )


def _said(message: Message) -> Said:
    if message.type == "text" and message.text is not None:
        return Said(message.text.body or "")
    if message.type in MEDIA:
        medium: Medium | None = getattr(message, message.type)
        if medium is not None:
            return _medium(message.type, medium)
    if message.type == "location" and message.location is not None:
        spot = message.location
        return Said(meta.place(spot.latitude, spot.longitude, spot.name, spot.address))
    if message.type == "contacts" and message.contacts is not None:
        return Said("\n".join(_card(card) for card in message.contacts[:CONTACTS_MAX]))
    if message.type == "button" and message.button is not None:
        return Said(message.button.text or "", fields=meta.told(payload=message.button.payload))
    if message.type == "interactive" and message.interactive is not None:
        answer = _answer(message.interactive)
        if answer is not None:
            return answer
    if message.type == "order" and message.order is not None:
        return _order(message.order)
    # Something was said that we are not told, or do not know yet: a person must see that, and ask.
    kind = message.unsupported.type if message.unsupported is not None else None
    code = message.errors[0].code if message.errors else None
    return Said(fields=meta.told(unsupported=kind or message.type or "unknown", error_code=code))


def _medium(kind: str, medium: Medium) -> Said:
    return Said(
        medium.caption or "",
        (
            attachment(
                medium.filename or kind,
                (medium.mime_type or "").partition(";")[0].strip(),
                url=medium.url,
            ),
        ),
        meta.told(media_id=medium.id),
    )


def _card(card: Card) -> str:
    name = card.name or CardName()
    parts = [name.formatted_name or name.first_name or ""]
    parts += [str(phone.phone) for phone in card.phones or () if phone.phone is not None]
    parts += [mail.email for mail in card.emails or () if mail.email]
    return ", ".join(part for part in parts if part)


def _answer(interactive: Interactive) -> Said | None:
    chosen = interactive.button_reply or interactive.list_reply
    if chosen is not None:
        lines = [part for part in (chosen.title, chosen.description) if part]
        return Said("\n".join(lines), fields=meta.told(payload=chosen.id))
    flow = interactive.nfm_reply
    if flow is None:
        return None
    answers = _answers(flow.response_json or "")
    lines = [flow.body or "", *(f"{name}: {value}" for name, value in answers.items())]
    return Said("\n".join(line for line in lines if line), fields=meta.told(form=flow.name))


def _answers(text: str) -> dict[str, str]:
    """Return a form's answers, where they are plain values; the token that joins them to our form is left out."""
    body = text.encode("utf-8", "replace")
    try:
        json_body.check(body)
        found = msgspec.json.decode(body, type=dict[str, Any])
    except (ParseError, msgspec.DecodeError, RecursionError):
        return {}
    plain = {
        name: str(value)
        for name, value in found.items()
        if isinstance(value, (str, int, float)) and name != "flow_token"
    }
    return dict(list(plain.items())[:ANSWERS_MAX])


def _order(order: Ordered) -> Said:
    lines = [order.text] if order.text else []
    for item in (order.product_items or [])[:PRODUCTS_MAX]:
        count = item.quantity if item.quantity is not None else 1
        line = f"{count:g} × {item.product_retailer_id}"
        if item.item_price is not None:
            line += f" ({item.item_price:g} {item.currency or ''}".rstrip() + ")"
        lines.append(line)
    return Said("\n".join(lines), fields=meta.told(catalog_id=order.catalog_id))


CHANNEL = Channel(
    name="whatsapp",
    parse=parse,
    settings=Settings,
    verify=verify,
    capability=Capability(
        reply_window_seconds=meta.REPLY_WINDOW_SECONDS,
        supports_attachments=True,
        proof=meta.PROOF,
    ),
)
