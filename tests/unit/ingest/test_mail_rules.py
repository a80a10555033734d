"""Mails of machines: recognised only with proof, read as what they tell of, left as mails where they tell of nothing."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from schemas.messages import MessageContent
from services.ingest.adapters import email, google_voice, mail_rules, youmail
from services.ingest.adapters.channel import Delivery, Parsed
from services.ingest.core.policy import FormMails, MailRules, PhoneMails

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
VOICE = "Google Voice <voice-noreply@google.com>"


def parsed(
    sender: str,
    subject: str,
    body: str,
    *,
    proved: str | None = "",
    channel: str = "email",
    rules: MailRules | None = None,
    header: str = "",
) -> Parsed:
    """Read a mail; `proved` is the domain that DMARC passed for (empty: the sender's own), None for none."""
    domain = sender.rpartition("@")[2].rstrip(">") if proved == "" else proved
    results = (
        f"Authentication-Results: mx.lantern-oak.example; dmarc=pass header.from={domain}\r\n"
        if domain
        else ""
    )
    raw = (
        f"{results}From: {sender}\r\nTo: support@lantern-oak.example\r\nSubject: {subject}\r\n"
        f"Message-ID: <1@machine.example>\r\n{header}Content-Type: text/plain; charset=utf-8\r\n\r\n"
    ) + body.replace("\n", "\r\n")
    kinds = (email.CHANNEL, google_voice.CHANNEL, youmail.CHANNEL)
    return next(one for one in kinds if one.name == channel).parse(
        Delivery(
            channel,
            "support",
            raw.encode(),
            NOW,
            trusted_servers=frozenset({"mx.lantern-oak.example"}),
            settings=mail_rules.Settings(rules=rules or MailRules()),
        )
    )


def one(found: Parsed) -> MessageContent:
    (content,) = found.messages
    return content


# ---------------------------------------------------------------------------------- telephone notices


def test_a_voicemail_notice_that_google_proved_is_a_voicemail_of_its_caller() -> None:
    content = one(
        parsed(VOICE, "New voicemail from (917) 555-0100 at 3:18 PM", "Please call me.\n")
    )
    assert content.kind == "voicemail"
    assert (content.sender.kind, content.sender.address) == ("phone", "+19175550100")
    assert content.call is not None
    assert content.call.transcript == "Please call me."
    assert not content.is_automatic


@pytest.mark.parametrize("proved", [None, "example.com", "txt.voice.google.com"])
def test_without_googles_proof_it_stays_a_mail(proved: str | None) -> None:
    content = one(parsed(VOICE, "New voicemail from (917) 555-0100", "Hi", proved=proved))
    assert content.kind != "voicemail"
    assert content.sender.address == "voice-noreply@google.com"


def test_a_name_that_looks_like_google_is_nothing() -> None:
    sender = "voice-noreply@google.com <voice-noreply@google.com.evil.example>"
    content = one(parsed(sender, "New voicemail from (917) 555-0100", "Hi"))
    assert content.kind != "voicemail"


def test_what_a_caller_says_they_are_is_never_verified() -> None:
    assert not parsed(VOICE, "Missed call from (917) 555-0100", "x").verified
    assert parsed("Ada <ada@example.com>", "Hello", "Hi").verified


def test_a_text_comes_from_the_other_number_and_can_be_answered_by_mail() -> None:
    relay = "19175550199.12125550142.Ab-C_d@txt.voice.google.com"
    body = "Where is it?\n\nTo respond to this text message, reply to this email.\nGoogle LLC\n"
    content = one(parsed(f"<{relay}>", "New text message from Ada (212) 555-0142", body))
    assert content.kind == "message"
    assert content.sender.address == "+12125550142"
    assert content.text == "Where is it?"
    assert content.fields["reply_to"] == relay.lower() or content.fields["reply_to"] == relay


def test_what_a_notice_service_says_of_itself_stays_a_mail() -> None:
    content = one(parsed(VOICE, "Your voicemail greeting has changed", "It was you."))
    assert content.sender.address == "voice-noreply@google.com"


def test_another_wording_is_a_matter_of_configuration() -> None:
    rules = MailRules(
        youmail=PhoneMails(
            senders=("alerts@voice.example",),
            subjects={"sesli mesaj": "voicemail"},
            cut_at=("Bu e-posta",),
            country_code="90",
        )
    )
    content = one(
        parsed(
            "YouMail <alerts@voice.example>",
            "Yeni sesli mesaj from 0555 123 45 67",
            "Merhaba, lambam kirik geldi.\nBu e-posta otomatiktir.\n",
            rules=rules,
        )
    )
    assert content.kind == "voicemail"
    assert content.sender.address == "+905551234567"
    assert content.text == "Merhaba, lambam kirik geldi."


# --------------------------------------------------------------------------------------------- forms

FORM = (
    "You have a new form response.\n\nName: Ada Lovelace\nEmail: ada@example.com\nPhone: +1 555 010 7788\n"
    "Order number: 1001\nColour: green\nMessage: My lamp is broken.\nEmail: boss@bank.example\n\nWhat now?\n"
    "--\nPOWR, 1 Example Street\n"
)
POWR = "POWR <no-reply@powr.io>"


def test_a_form_mail_is_a_form_of_its_visitor() -> None:
    found = parsed(POWR, "Form Submission Received", FORM)
    content = one(found)
    assert content.kind == "form"
    assert (content.sender.name, content.sender.address) == ("Ada Lovelace", "ada@example.com")
    assert content.text_new == "My lamp is broken.\nEmail: boss@bank.example\n\nWhat now?"
    assert content.fields["order"] == "1001"
    assert content.fields["Colour"] == "green"
    assert not content.is_automatic


def test_a_visitor_proves_nothing_by_the_form_products_proof() -> None:
    assert not parsed(POWR, "Form Submission Received", FORM).verified


def test_what_a_visitor_writes_cannot_pass_for_another_field() -> None:
    body = "Message: hello\nName: Mallory\nEmail: victim@example.com\nEmail: ada@example.com\n"
    first = one(parsed(POWR, "Form", "Email: ada@example.com\n" + body))
    assert first.sender.address == "ada@example.com"


@pytest.mark.parametrize("proved", [None, "example.com"])
def test_a_form_mail_without_proof_stays_a_mail(proved: str | None) -> None:
    content = one(parsed(POWR, "Form Submission Received", FORM, proved=proved))
    assert content.sender.address == "no-reply@powr.io"


def test_the_reply_address_stands_in_for_a_missing_field() -> None:
    content = one(
        parsed(POWR, "Form", "Message: hello there\n", header="Reply-To: Ada <ada@example.com>\r\n")
    )
    assert content.sender.address == "ada@example.com"


def test_a_form_that_names_nobody_stays_a_mail() -> None:
    assert one(parsed(POWR, "Form", "Message: hello\n")).sender.address == "no-reply@powr.io"
    assert one(parsed(POWR, "Weekly report", "12 responses.\n")).kind != "form"


def test_labels_are_mapped_as_configured() -> None:
    rules = MailRules(
        forms=(
            FormMails(
                senders=("forms.example",),
                subject="contact",
                fields={"Ваш вопрос": "message", "Куда ответить": "email", "Token": "ignore"},
            ),
        )
    )
    body = "Куда ответить: ada@example.com\nToken: s3cret\nВаш вопрос:\nГде мой заказ?\n"
    content = one(parsed("F <bot@forms.example>", "Contact form", body, rules=rules))
    assert content.sender.address == "ada@example.com"
    assert content.text == "Где мой заказ?"
    assert content.language == "ru"
    assert "s3cret" not in content.model_dump_json()
    other = one(parsed("F <bot@forms.example>", "Newsletter", body, rules=rules))
    assert other.kind != "form"


def test_bounces_and_our_own_loops_are_no_forms_business() -> None:
    content = one(
        parsed(POWR, "Undelivered Mail", FORM, header="X-Failed-Recipients: ada@example.com\r\n")
    )
    assert content.kind == "bounce"


@pytest.mark.parametrize(
    "body",
    [
        "a" * 200_000,
        "a:" * 100_000,
        ("Name: x\n" * 20_000),
        ("x" * 59 + ":\n") * 3_000,
        " " * 100_000 + ":",
        "Email: " + "a" * 100_000 + "@",
        "(" * 50_000 + "1 " * 50_000,
    ],
)
@pytest.mark.parametrize("sender", [POWR, VOICE])
def test_hostile_bodies_take_no_time(sender: str, body: str) -> None:
    subject = "New voicemail from " + "1 (" * 300
    began = time.perf_counter()
    parsed(sender, subject, body)
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"forms": [{"senders": []}]},
        {"forms": [{"senders": ["powr.io"], "fields": {"Name": "nickname"}}]},
        {"youmail": {"subjects": {"x": "fax"}}},
        {"youmail": {"country_code": "+1"}},
        {"skype": {}},
    ],
)
def test_a_rule_that_cannot_work_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MailRules.model_validate(wrong)
