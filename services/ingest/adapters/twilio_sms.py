"""Text messages by Twilio (SMS, MMS, and WhatsApp numbers that Twilio carries).

Sources: Twilio's pages on the messaging webhook and on status callbacks; field names as integrations know them. Verified:
see `twilio`. One form is one message; `MessageSid` is its id. Status callbacks of what we sent (`MessageStatus` other than
`received`) are receipts: delivered, read and undelivered (or failed) ones tell what became of it, with Twilio's `ErrorCode`,
the steps between them say nothing. The answer is empty TwiML: an answer to the customer goes by the API, once somebody wrote one.

Believed and not confirmed: that the idempotency header repeats on a retry (we go by `MessageSid`, which is signed), and
the prefixes of other senders (`whatsapp:+…`, `messenger:…`); such a prefix with the number is the thread, so that an answer
goes back by the same network. Nothing was tried against a live account.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from schemas.messages import Attachment, DeliveryWord, Sender
from services.ingest.adapters import calls, reading, twilio
from services.ingest.adapters.channel import (
    Capability,
    Channel,
    Delivery,
    Parsed,
    ParseError,
    Receipt,
    Request,
    Verdict,
    settings_of,
)

MEDIA_MAX: Final = 30
"""Media of one message that are looked at; Twilio allows ten."""
RECEIVED: Final = frozenset({"", "received", "receiving"})
NETWORKS: Final = frozenset({"whatsapp", "rcs"})
TOLD: Final[dict[str, DeliveryWord]] = {
    "delivered": "delivered",
    "read": "read",
    "undelivered": "bounced",
    "failed": "bounced",
}
"""The last words on a message. `sent` says only that a network took it."""
UNREACHABLE: Final = frozenset({"21211", "21610", "21614", "21635", "30005", "30006", "63024"})
"""Error codes whose reason is the number: no such one, opted out, none that takes messages. A phone that is switched off
(30003) and a blocked text (30007) are none of these."""


class Settings(twilio.Settings):
    """A Twilio number or messaging service. `secret` is the account's auth token; `own_ids` are our own numbers in E.164.

    `public_url` is scheme and host that Twilio calls, where that is not the gateway's own. `account_sid` and `api_url` are
    not needed here.
    """


def verify(request: Request, secrets: Mapping[str, str], now: datetime) -> Verdict:
    """Prove the signature over address and fields; no time is signed. The message's id names the delivery."""
    del now
    verdict = twilio.verify(request, secrets)
    if not verdict.accepted:
        return verdict
    try:
        fields = twilio.fields_of(request.body)
        status = fields.get("MessageStatus", "")
        name = twilio.required(fields, "MessageSid", "SmsSid", "SmsMessageSid")
        return replace(verdict, name=f"{name}:{status}" if status else name)
    except ParseError:
        return verdict


def parse(delivery: Delivery) -> Parsed:
    """Read a message's form.

    Raises:
        ParseError: the body is not UTF-8, or the message's id or its sender is missing; `field` names it.
    """
    fields = twilio.fields_of(delivery.body)
    if not fields:
        return Parsed(ignored="not_a_message", verified=delivery.verified)
    sid = twilio.required(fields, "MessageSid", "SmsSid", "SmsMessageSid")
    status = fields.get("MessageStatus") or fields.get("SmsStatus", "")
    if status.lower() not in RECEIVED:
        receipts = _receipt(delivery, fields, sid, status.lower())
        return Parsed(ignored="receipt", verified=delivery.verified, receipts=receipts)
    sender, by = _party(fields.get("From", ""), fields.get("ProfileName", ""))
    if not fields.get("From"):
        raise ParseError("invalid_field", "From: is missing", "From")
    own = settings_of(delivery, Settings).own_ids
    if sender.address in own or fields["From"] in own:
        return Parsed(ignored="echo", verified=delivery.verified)
    text = fields.get("Body", "")
    files = _media(fields)
    if not text.strip() and not files:
        return Parsed(ignored="empty", verified=delivery.verified)
    recipient, _ = _party(fields.get("To", ""), "")
    known = {"country": fields.get("FromCountry", ""), "city": fields.get("FromCity", ""), "by": by}
    content = reading.content(
        delivery,
        sid,
        sender,
        text,
        text_new=text,
        attachments=files,
        fields=known,
        thread=f"{by}:{sender.address}" if by in NETWORKS and sender.address else None,
        recipients=(recipient.address,) if recipient.address else (),
    )
    return Parsed(messages=(content,), verified=delivery.verified)


def _receipt(
    delivery: Delivery, fields: Mapping[str, str], sid: str, status: str
) -> tuple[Receipt, ...]:
    """Return what became of a message of ours. A callback has no time of its own: it is told when it came."""
    what = TOLD.get(status)
    customer, by = _party(fields.get("To", ""), "")
    if what is None or not delivery.verified or not customer.address:
        return ()
    code = fields.get("ErrorCode", "") if what == "bounced" else ""
    return (
        Receipt(
            channel=delivery.channel,
            account=delivery.account,
            vendor_message_id=sid,
            what=what,
            recipient=customer,
            occurred_at=delivery.received_at,
            thread=f"{by}:{customer.address}" if by in NETWORKS else None,
            detail=code if code.isascii() and code.isdigit() and len(code) < 8 else "",
            is_permanent=code in UNREACHABLE,
        ),
    )


def _party(address: str, name: str) -> tuple[Sender, str]:
    """Return who stands at an address, and by which other network where Twilio names one before a colon."""
    network, colon, rest = address.partition(":")
    if colon and network in NETWORKS:
        return calls.caller(rest, name), network
    return calls.caller(address, name), network if colon else ""


def _media(fields: Mapping[str, str]) -> tuple[Attachment, ...]:
    told = fields.get("NumMedia", "0")
    count = int(told) if told.isascii() and told.isdigit() and len(told) < 4 else 0
    found = []
    for index in range(min(count, MEDIA_MAX)):
        url = fields.get(f"MediaUrl{index}", "")
        if url:
            kind = fields.get(f"MediaContentType{index}", "")
            found.append(reading.attachment("", kind, 0, url))
    return tuple(found)


CHANNEL = Channel(
    name="twilio_sms",
    parse=parse,
    settings=Settings,
    verify=verify,
    media_types=twilio.MEDIA_TYPES,
    capability=Capability(
        can_reply=True,
        supports_attachments=True,
        proof="HMAC-SHA1 over the address and all fields (X-Twilio-Signature)",
    ),
)
