"""Shopify: orders and customers for the contact ratio and for people to see; no messages.

Sources: Shopify's pages on webhooks (topics, mandatory privacy topics, registration) and on the OAuth query's HMAC, and
integrations for headers, retries and the body's shape.

Verified: `X-Shopify-Hmac-SHA256`, base64 of HMAC-SHA256 over the raw body, keyed with the app's client secret (or the
shop's own one for webhooks made in the admin); the old secret counts as well while it rotates (`previous_secret`). The other
headers are not signed: the topic decides how a proved body is read, and where `shop` is set the shop's domain must be that
one. A GET is the app's own address being opened from the admin: its query is signed otherwise (hex, over the sorted
pairs without `hmac`), and is answered without anything being stored.

Shopify Inbox has no API that reads a shop's chats: they come as mail, see the channel's page. Privacy requests are
acknowledged and left to people. Believed and not confirmed: that a wrong HMAC must be answered 401; the webhook id as the
name that a retry repeats. Nothing was tried against a live shop.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from services.ingest.adapters import addresses, reading, signing
from services.ingest.adapters.channel import (
    Answer,
    Capability,
    Channel,
    ChannelSettings,
    Delivery,
    Order,
    Parsed,
    ParseError,
    Request,
    Verdict,
)
from services.ingest.core.normalise import clean_value

SIGNATURE: Final = "x-shopify-hmac-sha256"
TOPIC: Final = "x-shopify-topic"
SHOP: Final = "x-shopify-shop-domain"
WEBHOOK_ID: Final = "x-shopify-webhook-id"
TRIGGERED_AT: Final = "x-shopify-triggered-at"
PRIVACY_TOPICS: Final = frozenset({"customers/data_request", "customers/redact", "shop/redact"})
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_REFUNDED: Final = frozenset({"refunded", "partially_refunded", "voided"})


class Customer(reading.Struct, frozen=True):
    """Who ordered."""

    email: str | None = None
    phone: str | None = None


class ShopOrder(reading.Struct, frozen=True):
    """An order, in the shape of the REST resource whichever API registered the webhook."""

    id: int | str | None = None
    name: str | None = None
    order_number: int | str | None = None
    email: str | None = None
    contact_email: str | None = None
    phone: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    cancelled_at: str | None = None
    currency: str | None = None
    total_price: str | None = None
    financial_status: str | None = None
    fulfillment_status: str | None = None
    test: bool | None = None
    customer: Customer | None = None


class Settings(ChannelSettings):
    """A shop: `secret` is the app's client secret, or the one the admin shows for webhooks made there."""

    shop: str | None = None
    """The shop's domain, as `acme.myshopify.com`; where it is set, deliveries of other shops are refused."""


def query_signature(query: Mapping[str, str], secret: bytes) -> str:
    """Return the HMAC of a query that Shopify opens an app's address with: hex, over the sorted pairs without `hmac`."""
    pairs = "&".join(f"{name}={value}" for name, value in sorted(query.items()) if name != "hmac")
    return signing.hex_hmac(secret, pairs.encode("utf-8", "surrogatepass"))


def _opened(request: Request, secrets: Mapping[str, str]) -> Verdict:
    keys = signing.secrets_of(secrets)
    if not keys:
        return signing.refused("no_secret")
    query = request.query
    given = query.get("hmac", "")
    if not given:
        return signing.refused("missing_signature")
    if not signing.signed_by_any(given, keys, lambda key: query_signature(query, key)):
        return signing.refused("bad_signature")
    text = "This address takes webhooks; there is nothing to see."
    return signing.handshake(Answer(200, {"Content-Type": "text/plain; charset=utf-8"}, text))


def _name(request: Request) -> str | None:
    webhook, shop = (request.headers.get(name, "").strip() for name in (WEBHOOK_ID, SHOP))
    name = f"{shop}/{webhook}"
    is_name = webhook and name.isascii() and name.isprintable()
    return name if is_name and len(name) <= reading.ID_LENGTH_MAX else None


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Return whether the body's HMAC is right, and whether it is of the shop that is meant."""
    del now
    refused = signing.only(request, "POST", "GET")
    if refused is not None:
        return refused
    if request.method.upper() == "GET":
        return _opened(request, secrets)
    verdict = signing.by_body_hmac(
        request, secrets, SIGNATURE, encoding="base64", name=_name(request)
    )
    shop = secrets.get("shop", "").strip().lower()
    if verdict.accepted and shop and request.headers.get(SHOP, "").strip().lower() != shop:
        return signing.refused("bad_token", 403)
    return verdict


def _addresses(order: ShopOrder) -> tuple[tuple[str, str], ...]:
    """Return the customer's addresses that are ones beyond doubt: mail, and phone numbers with their country."""
    customer = order.customer or Customer()
    emails = (
        (email or "").strip().lower()
        for email in (order.email, order.contact_email, customer.email)
    )
    phones = (
        "".join(letter for letter in (phone or "")[:40] if letter not in " ()-.\u00a0")
        for phone in (order.phone, customer.phone)
    )
    found = [("email", email) for email in emails if addresses.is_address(email)]
    found += [("phone", phone) for phone in phones if _E164.fullmatch(phone)]
    return tuple(dict.fromkeys(found))


def _status(order: ShopOrder, topic: str) -> str:
    """Return the one word that says most about an order."""
    if topic == "orders/delete":
        return "deleted"
    if order.cancelled_at or topic == "orders/cancelled":
        return "cancelled"
    if order.financial_status in _REFUNDED:
        return order.financial_status or ""
    return clean_value(order.fulfillment_status or order.financial_status or "open", 50)


def _order(delivery: Delivery, topic: str) -> Parsed:
    order = reading.json_as(delivery.body, ShopOrder)
    if order.test:
        return Parsed(ignored="test_order", verified=delivery.verified)
    vendor_id = reading.identifier(order.id, "id")
    triggered = reading.instant(delivery.headers.get(TRIGGERED_AT), delivery.received_at)
    updated_at = reading.instant(order.updated_at, triggered)
    number = order.name or (str(order.order_number) if order.order_number is not None else "")
    made = Order(
        vendor_order_id=vendor_id,
        number=clean_value(number, 100) or vendor_id,
        addresses=_addresses(order),
        status=_status(order, topic),
        placed_at=min(reading.instant(order.created_at, updated_at), updated_at),
        updated_at=updated_at,
        total=clean_value(order.total_price or "", 40),
        currency=clean_value(order.currency or "", 10),
    )
    return Parsed(ignored="order", orders=(made,), verified=delivery.verified)


def parse(delivery: Delivery) -> Parsed:
    """Read a webhook by its topic. Nothing here is a message; orders are told in `orders`.

    A delivery without a topic (from a file) is an order where it looks like one.

    Raises:
        ParseError: it is no JSON object, or an order without an id.
    """
    topic = delivery.headers.get(TOPIC, "").strip().lower()
    document = reading.json_of(delivery.body)
    if not isinstance(document, dict):
        raise ParseError("invalid_field", "body: must be an object", "body")
    if topic in PRIVACY_TOPICS:
        return Parsed(ignored="privacy_request", verified=delivery.verified)
    looks_like_one = "id" in document and ("line_items" in document or "total_price" in document)
    if topic.startswith("orders/") or (not topic and looks_like_one):
        return _order(delivery, topic)
    if topic.startswith("customers/"):
        return Parsed(ignored="customer", verified=delivery.verified)
    if topic == "app/uninstalled":
        return Parsed(ignored="app_uninstalled", verified=delivery.verified)
    known = topic.startswith(("refunds/", "fulfillments/", "checkouts/", "carts/", "products/"))
    return Parsed(ignored="not_a_message" if known else "unknown_event", verified=delivery.verified)


CHANNEL = Channel(
    name="shopify",
    parse=parse,
    settings=Settings,
    verify=verify,
    headers_kept=frozenset({
        TOPIC, SHOP, WEBHOOK_ID, TRIGGERED_AT, "x-shopify-api-version", "x-shopify-event-id",
    }),
    capability=Capability(can_reply=False, proof="HMAC-SHA256 over the body"),
)  # fmt: skip
