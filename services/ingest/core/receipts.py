"""What became of messages of ours: vendors' receipts and bounced mail as reports in the conversation they are about.

A receipt leads to the conversation of the chat it stands in, as a message from its recipient would. Bounced mail leads to
the conversation that our signed token names, and only where that is believed for the very address that it did not reach:
anybody can write a report.
"""

import re

from schemas import reply_token
from schemas.messages import MessageContent, MessageDeliveryReported
from services.ingest.core import conversation
from services.ingest.core.state import Directory, Parsed, Receipt

ID_LENGTH_MAX = 200

_ADDRESS_IS_WRONG = re.compile(r"5\.(?:1\.\d{1,3}|2\.1|4\.4)")
"""Codes of RFC 3463 whose reason is the address: none such, disabled, no host for it. A full mailbox and a mail that is
refused for its content (5.2.2, 5.7) are not, and neither is a bare 5.0.0."""


def content_of(receipt: Receipt) -> MessageContent:
    """Return a receipt as a message of ours to its recipient: what its conversation is looked up by."""
    return MessageContent(
        channel=receipt.channel,
        account=receipt.account,
        vendor_message_id=receipt.vendor_message_id,
        sender=receipt.recipient,
        thread=receipt.thread,
        occurred_at=receipt.occurred_at,
    )


def reports(
    directory: Directory, input_id: str, parsed: Parsed
) -> tuple[MessageDeliveryReported, ...]:
    """Return the reports of a delivery's receipts, each with its conversation where one is known."""
    return tuple(_report(directory, input_id, one) for one in parsed.receipts)


def _report(directory: Directory, input_id: str, receipt: Receipt) -> MessageDeliveryReported:
    keys = conversation.thread_keys(content_of(receipt))
    found = next((directory.threads[key] for key in keys if key in directory.threads), None)
    return MessageDeliveryReported(
        vendor_message_id=receipt.vendor_message_id,
        channel=receipt.channel,
        account=receipt.account,
        what=receipt.what,
        detail=receipt.detail,
        is_permanent=receipt.is_permanent,
        occurred_at=receipt.occurred_at,
        conversation_id=found,
        input_id=input_id,
    )


def of_mail(
    content: MessageContent, place: conversation.Place, input_id: str
) -> tuple[MessageDeliveryReported, ...]:
    """Return what a bounce or a read receipt says of a mail of ours; nothing where it is not believed, or says nothing.

    A mail that is only late has not bounced.
    """
    ours = content.in_reply_to or ""
    if place.conversation_id is None or place.suspicion is not None:
        return ()
    token = reply_token.find_in_message_id(ours) if len(ours) <= ID_LENGTH_MAX else None
    if token is None or token.conversation_id != place.conversation_id:
        return ()
    is_bounce = content.bounce is not None and content.fields.get("bounce_action") == "failed"
    if not is_bounce and content.fields.get("read_receipt") != "displayed":
        return ()
    status = (content.bounce.status if content.bounce is not None else None) or ""
    return (
        MessageDeliveryReported(
            vendor_message_id=ours,
            channel=content.channel,
            account=content.account,
            what="bounced" if is_bounce else "read",
            detail=status if is_bounce else "",
            is_permanent=is_bounce and _ADDRESS_IS_WRONG.fullmatch(status) is not None,
            occurred_at=content.occurred_at,
            conversation_id=place.conversation_id,
            input_id=input_id,
        ),
    )
