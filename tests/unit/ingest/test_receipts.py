"""What became of messages of ours: vendors' receipts, bounced mail and read receipts as reports in their conversation."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest

from schemas import reply_token
from schemas.inbound import InboundReceived
from schemas.messages import (
    Bounce,
    DeliveryWord,
    MessageContent,
    MessageDeliveryReported,
    MessageReceived,
    Sender,
)
from services.ingest.adapters import email, twilio_sms, whatsapp
from services.ingest.adapters.channel import Delivery
from services.ingest.core import decide as core
from services.ingest.core.decide import Decision, Rules, decide
from services.ingest.core.state import Directory, OutcomeRow, Parsed, Receipt

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECRET = b"k" * 32
RULES = Rules(workspace="default", secret=SECRET)
ADA = Sender(address="+905321234567", kind="phone")


class World:
    """A directory, and what is decided on it one after the other."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.count = 0

    def decide(self, parsed: Parsed, channel: str = "twilio_sms", **changes: Any) -> Decision:
        self.count += 1
        received = InboundReceived(
            input_id=changes.get("input_id", f"in-{self.count}"),
            channel=channel,
            account="sms",
            received_at=NOW,
        )
        return decide(self.directory, received, parsed, NOW, RULES)

    def write(self, sender: Sender = ADA, channel: str = "twilio_sms", **changes: Any) -> str:
        content = MessageContent(
            channel=channel,
            account="sms",
            vendor_message_id=f"SM-{self.count}",
            sender=sender,
            text="Where is it?",
            text_new="Where is it?",
            occurred_at=NOW,
        ).model_copy(update=changes)
        event = self.decide(Parsed(messages=(content,), verified=True), channel).events[0]
        assert isinstance(event, MessageReceived)
        return event.conversation_id


def receipt(what: DeliveryWord = "delivered", **changes: Any) -> Receipt:
    made = Receipt("twilio_sms", "sms", "SM-ours", what, ADA, NOW)
    return replace(made, **changes)


def told(decision: Decision) -> list[MessageDeliveryReported]:
    return [one for one in decision.events if isinstance(one, MessageDeliveryReported)]


def test_a_receipt_is_told_in_the_conversation_of_its_recipients_chat() -> None:
    world = World()
    conversation_id = world.write()
    decision = world.decide(Parsed(ignored="receipt", receipts=(receipt(),)))
    (report,) = told(decision)
    assert (report.conversation_id, report.what, report.vendor_message_id) == (
        conversation_id,
        "delivered",
        "SM-ours",
    )
    assert (decision.ignored, report.input_id) == ("receipt", "in-2")
    (row,) = [row for row in decision.rows if isinstance(row, OutcomeRow)]
    assert (row.outcome, row.reason) == ("ignored", "receipt")


def test_a_receipt_of_somebody_nobody_heard_of_is_told_without_a_conversation() -> None:
    (report,) = told(World().decide(Parsed(ignored="receipt", receipts=(receipt(),))))
    assert report.conversation_id is None


def test_a_receipt_of_another_account_does_not_find_this_ones_chat() -> None:
    world = World()
    world.write()
    (report,) = told(world.decide(Parsed(receipts=(receipt(account="other"),))))
    assert report.conversation_id is None


def test_a_receipt_with_a_thread_finds_the_conversation_of_that_thread() -> None:
    world = World()
    by_sms = world.write()
    by_whatsapp = world.write(thread="whatsapp:+905321234567")
    assert by_sms != by_whatsapp
    found = told(world.decide(Parsed(receipts=(receipt(thread="whatsapp:+905321234567"),))))
    assert [one.conversation_id for one in found] == [by_whatsapp]


def test_receipts_beside_a_message_are_told_with_it() -> None:
    world = World()
    world.write()
    content = MessageContent(
        channel="twilio_sms",
        account="sms",
        vendor_message_id="SM-new",
        sender=ADA,
        text="Thanks",
        text_new="Thanks",
        occurred_at=NOW,
    )
    decision = world.decide(Parsed(messages=(content,), receipts=(receipt("read"),)))
    kinds = {type(one) for one in decision.events}
    assert {MessageReceived, MessageDeliveryReported} <= kinds
    assert decision.ignored is None


def test_a_receipt_that_is_delivered_again_under_the_same_input_is_told_once() -> None:
    world = World()
    parsed = Parsed(ignored="receipt", receipts=(receipt(),))
    assert told(world.decide(parsed, input_id="in-x"))
    again = world.decide(parsed, input_id="in-x")
    assert (again.events, again.ignored) == ((), core.REPEATED)


def test_what_a_receipt_asks_for_is_read_beforehand() -> None:
    received = InboundReceived(
        input_id="in-1", channel="twilio_sms", account="sms", received_at=NOW
    )
    asked = core.questions([(received, Parsed(receipts=(receipt(),)))])
    assert "twilio_sms/sms/chat:+905321234567" in asked.references


# ------------------------------------------------------------------------------------------- mail


def ours_to(conversation_id: str, address: str = "ada@example.com") -> str:
    token = reply_token.make(SECRET, "default", conversation_id, address, NOW)
    return reply_token.message_id(token, "0197c3a0-5d1e-7c11-9a53-3f2b8c6d7e01", "shop.example")


def reported(original: str, recipient: str, status: str, action: str = "failed") -> MessageContent:
    return MessageContent(
        channel="email",
        account="support",
        vendor_message_id="<dsn@mx>",
        kind="bounce",
        sender=Sender(address="mailer-daemon@mx.example"),
        in_reply_to=original,
        text="could not be delivered",
        occurred_at=NOW,
        is_automatic=True,
        automatic_reason="bounce",
        bounce=Bounce(recipient=recipient, status=status),
        fields={"bounce_action": action},
    )


@pytest.fixture
def case() -> tuple[World, str]:
    world = World()
    ada = Sender(address="ada@example.com")
    return world, world.write(ada, "email", vendor_message_id="<1@example.com>")


@pytest.mark.parametrize(
    ("status", "is_permanent"),
    [
        ("5.1.1", True),
        ("5.1.10", True),
        ("5.2.1", True),
        ("5.4.4", True),
        ("5.2.2", False),
        ("5.7.1", False),
        ("5.0.0", False),
        ("5.1", False),
    ],
)
def test_a_bounce_of_our_mail_is_told_with_its_code_and_whether_the_address_is_the_reason(
    case: tuple[World, str], status: str, *, is_permanent: bool
) -> None:
    world, conversation_id = case
    ours = ours_to(conversation_id)
    content = reported(ours, "ada@example.com", status)
    decision = world.decide(Parsed(messages=(content,)), "email")
    (report,) = told(decision)
    assert (report.what, report.detail, report.is_permanent) == ("bounced", status, is_permanent)
    assert (report.vendor_message_id, report.conversation_id) == (ours, conversation_id)
    assert any(isinstance(one, MessageReceived) for one in decision.events), "as before"


def test_mail_that_is_only_late_has_not_bounced(case: tuple[World, str]) -> None:
    world, conversation_id = case
    content = reported(ours_to(conversation_id), "ada@example.com", "4.4.1", "delayed")
    assert told(world.decide(Parsed(messages=(content,)), "email")) == []


def test_a_bounce_for_an_address_that_our_mail_did_not_go_to_is_not_believed(
    case: tuple[World, str],
) -> None:
    world, conversation_id = case
    content = reported(ours_to(conversation_id), "eve@example.com", "5.1.1")
    assert told(world.decide(Parsed(messages=(content,)), "email")) == []


def test_a_bounce_of_another_conversations_mail_is_not_believed_for_a_token_in_the_address(
    case: tuple[World, str],
) -> None:
    world, conversation_id = case
    eve = Sender(address="eve@example.com")
    other = world.write(eve, "email", vendor_message_id="<2@example.com>")
    token = reply_token.make(SECRET, "default", other, "eve@example.com", NOW)
    content = reported(ours_to(conversation_id), "eve@example.com", "5.1.1")
    parsed = Parsed(
        messages=(content,),
        addressed_to=(reply_token.reply_address("support@shop.example", token),),
    )
    assert told(world.decide(parsed, "email")) == []


def test_a_bounce_that_names_no_mail_of_ours_says_nothing(case: tuple[World, str]) -> None:
    world, _ = case
    content = reported("<else@where>", "ada@example.com", "5.1.1")
    assert told(world.decide(Parsed(messages=(content,)), "email")) == []


def test_a_real_delivery_report_about_our_mail_is_read_and_told(case: tuple[World, str]) -> None:
    world, conversation_id = case
    ours = ours_to(conversation_id)
    raw = (
        "From: MAILER-DAEMON@mx.example\r\nTo: support@shop.example\r\nSubject: Undelivered\r\n"
        "Message-ID: <d1@mx.example>\r\nDate: Tue, 24 Nov 2026 12:00:05 +0000\r\n"
        "MIME-Version: 1.0\r\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nno such user\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n"
        "Final-Recipient: rfc822; ada@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n"
        f"--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: {ours}\r\n\r\n--b--\r\n"
    )
    parsed = email.parse(Delivery("email", "support", raw.encode(), NOW))
    (report,) = told(world.decide(parsed, "email"))
    assert (report.vendor_message_id, report.what, report.detail) == (ours, "bounced", "5.1.1")
    assert report.is_permanent


def test_a_read_receipt_of_our_mail_from_its_reader_is_told(case: tuple[World, str]) -> None:
    world, conversation_id = case
    ours = ours_to(conversation_id)
    raw = (
        "From: ada@example.com\r\nTo: support@shop.example\r\nSubject: Read: your lamp\r\n"
        "Message-ID: <r1@example.com>\r\nDate: Tue, 24 Nov 2026 12:00:05 +0000\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=disposition-notification;\r\n"
        ' boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nread\r\n'
        "--b\r\nContent-Type: message/disposition-notification\r\n\r\n"
        f"Original-Message-ID: {ours}\r\n"
        "Disposition: manual-action/MDN-sent-manually; displayed\r\n\r\n--b--\r\n"
    )
    parsed = email.parse(Delivery("email", "support", raw.encode(), NOW))
    (report,) = told(world.decide(parsed, "email"))
    assert (report.vendor_message_id, report.what) == (ours, "read")


# --------------------------------------------------------------------------------------- the vendors


def whatsapp_status(status: str, **more: Any) -> Parsed:
    one = {"id": "wamid.ours", "status": status, "timestamp": "1795521600"}
    value = {"statuses": [{**one, "recipient_id": "905321234567", **more}]}
    entry = {"id": "33", "changes": [{"field": "messages", "value": value}]}
    body = {"object": "whatsapp_business_account", "entry": [entry]}
    delivery = Delivery("whatsapp", "sms", json.dumps(body).encode(), NOW, verified=True)
    return whatsapp.parse(delivery)


@pytest.mark.parametrize(
    ("status", "more", "what", "detail", "is_permanent"),
    [
        ("delivered", {}, "delivered", "", False),
        ("read", {}, "read", "", False),
        ("failed", {"errors": [{"code": 131026}]}, "bounced", "131026", True),
        ("failed", {"errors": [{"code": 131047}]}, "bounced", "131047", False),
        ("failed", {}, "bounced", "", False),
    ],
)
def test_whatsapps_statuses_tell_what_became_of_our_message(
    status: str, more: dict[str, Any], what: str, detail: str, *, is_permanent: bool
) -> None:
    world = World()
    conversation_id = world.write(channel="whatsapp")
    parsed = whatsapp_status(status, **more)
    assert parsed.messages == ()
    (report,) = told(world.decide(parsed, "whatsapp"))
    assert (report.what, report.detail, report.is_permanent) == (what, detail, is_permanent)
    assert (report.vendor_message_id, report.conversation_id) == ("wamid.ours", conversation_id)
    assert report.occurred_at == NOW


def test_a_message_that_whatsapp_only_sent_on_is_no_news() -> None:
    parsed = whatsapp_status("sent")
    assert (parsed.receipts, parsed.ignored) == ((), "status")


def test_a_status_without_an_id_is_parked_and_the_others_are_told() -> None:
    good = {"id": "wamid.a", "status": "read", "recipient_id": "905321234567"}
    bad = {"status": "read", "recipient_id": "905321234567"}
    value = {"statuses": [bad, good]}
    entry = {"id": "33", "changes": [{"field": "messages", "value": value}]}
    body = {"object": "whatsapp_business_account", "entry": [entry]}
    delivery = Delivery("whatsapp", "sms", json.dumps(body).encode(), NOW, verified=True)
    parsed = whatsapp.parse(delivery)
    assert [one.vendor_message_id for one in parsed.receipts] == ["wamid.a"]
    assert len(parsed.unread) == 1


def test_twilios_callback_leads_to_the_conversation_it_is_about() -> None:
    world = World()
    conversation_id = world.write()
    form = {"MessageSid": "SM7", "MessageStatus": "delivered", "From": "+1555", "To": ADA.address}
    delivery = Delivery("twilio_sms", "sms", urlencode(form).encode(), NOW, verified=True)
    (report,) = told(world.decide(twilio_sms.parse(delivery)))
    assert (report.vendor_message_id, report.conversation_id) == ("SM7", conversation_id)
