"""The channels, and the one way to read a delivery of any of them."""

from chassis import logs
from services.ingest.adapters import email, event, form, message_api
from services.ingest.adapters.channel import Channel, Delivery, Parsed, ParseError

__all__ = ["CHANNELS", "Channel", "Delivery", "ParseError", "Parsed", "parse"]

CHANNELS: dict[str, Channel] = {
    channel.name: channel
    for channel in (email.CHANNEL, form.CHANNEL, event.CHANNEL, message_api.CHANNEL)
}

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
        return channel.parse(delivery)
    except ParseError:
        raise
    except Exception as error:
        log.exception("adapter_failed", channel=delivery.channel, input_id=delivery.input_id)
        raise ParseError("adapter_failed", f"{channel.name}: {type(error).__name__}") from error
