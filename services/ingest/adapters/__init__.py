"""The channels, and the one way to read a delivery of any of them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from typing import Final

from chassis import logs
from services.ingest.adapters import message_api, signing
from services.ingest.adapters.channel import (
    FETCHED,
    Channel,
    Delivery,
    Parsed,
    ParseError,
    Request,
    Verdict,
)

__all__ = [
    "CHANNELS",
    "FAILED",
    "GONE",
    "UNREAD",
    "Channel",
    "Delivery",
    "ParseError",
    "Parsed",
    "Request",
    "Verdict",
    "parse",
    "verify",
    "wants_read_back",
]

MODULES: Final = (
    "email",
    "gmail",
    "zendesk",
    "helpscout",
    "gorgias",
    "edesk",
    "hubspot",
    "freshdesk",
    "zoho",
    "intercom",
    "crm",
    "messenger",
    "facebook_page",
    "instagram",
    "whatsapp",
    "x",
    "hootsuite",
    "sprout",
    "apple_messages",
    "olark",
    "chatra",
    "tidio",
    "livechat",
    "telegram",
    "slack",
    "shopify",
    "twilio_sms",
    "twilio_voice",
    "aircall",
    "voip",
    "google_voice",
    "youmail",
    "google_reviews",
    "trustpilot",
    "yelp",
    "app_store",
    "discourse",
    "form",
    "event",
    "message_api",
    "webchat",
    "csv_rows",
)
"""Every channel's module; each ends with one `CHANNEL`."""

UNREAD: Final = "unread-part"
"""What a part of a delivery is marked with that could not be read while the rest could: it is parked."""

GONE: Final = "gone"
FAILED: Final = "failed"
"""What a delivery is marked with that should have been read back, and was not there any more, or could not be read in a
week. It counts as it came, unproved, where it says enough by itself."""


def _found() -> dict[str, Channel]:
    channels: dict[str, Channel] = {}
    for module in MODULES:
        channel: Channel = import_module(f"{__name__}.{module}").CHANNEL
        channels[channel.name] = channel
    return channels


CHANNELS: Final[dict[str, Channel]] = _found()

log = logs.get("ingest.adapters")


def parse(delivery: Delivery) -> Parsed:
    """Read a delivery with its channel's adapter.

    Names that no adapter has are generic channels, whose messages come by `POST /v1/messages`.

    Raises:
        ParseError: it cannot be read, and why; a mistake of ours in reading it included, so that it costs one message
            and not the mailbox.
    """
    channel = CHANNELS.get(delivery.channel, message_api.CHANNEL)
    try:
        if delivery.fetched == UNREAD:
            raise ParseError("unreadable_part", f"{channel.name}: an update among others")
        if delivery.fetched in (GONE, FAILED):
            return _unread(channel, delivery)
        return channel.parse(delivery)
    except ParseError:
        raise
    except Exception as error:
        log.exception("adapter_failed", channel=delivery.channel, input_id=delivery.input_id)
        raise ParseError("adapter_failed", f"{channel.name}: {type(error).__name__}") from error


def verify(
    channel: Channel, request: Request, secrets: Mapping[str, str], now: datetime
) -> Verdict:
    """Return whether a request is let in. A mistake of ours in looking at it refuses it: nothing comes in unproved."""
    if channel.verify is None:
        return signing.refused("wrong_method", 405)
    try:
        return channel.verify(request, secrets, now)
    except Exception:
        log.exception("verify_failed", channel=channel.name)
        return signing.refused("malformed", 400)


def _unread(channel: Channel, delivery: Delivery) -> Parsed:
    headers = {name: value for name, value in delivery.headers.items() if name != FETCHED}
    parsed = channel.parse(replace(delivery, headers=headers, verified=False))
    if parsed.messages:
        return parsed
    if delivery.fetched == GONE:
        return Parsed(ignored=GONE)
    raise ParseError(
        "not_read_back", f"{channel.name}: its content could not be read through the vendor's API"
    )


def wants_read_back(channel: Channel, delivery: Delivery, parsed: Parsed) -> bool:
    """Whether a delivery's content is to be read through the vendor's API: it only hints, or proves nothing itself."""
    if channel.read_back is None or delivery.fetched is not None:
        return False
    if not channel.reads_back(delivery.settings):
        return False
    return parsed.ignored == "hint" or (bool(parsed.messages) and not parsed.verified)
