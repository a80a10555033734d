"""Zendesk, Help Scout, Gorgias and eDesk: whose words a delivery holds, and which of them are no customer's."""

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.ingest.adapters import edesk, gorgias, helpscout, zendesk
from services.ingest.adapters.channel import (
    FETCHED,
    Channel,
    ChannelSettings,
    Delivery,
    Parsed,
    ParseError,
    Request,
)

NOW = datetime(2026, 11, 20, 9, 15, 10, tzinfo=UTC)
URL = "https://in.example.com/v1/channels/desk/main"


def parse(
    channel: Channel,
    body: Any,
    settings: ChannelSettings | None = None,
    *,
    fetched: str | None = None,
    verified: bool = True,
    **headers: str,
) -> Parsed:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if fetched is not None:
        named[FETCHED] = fetched
    return channel.parse(
        Delivery(
            channel.name, "main", json.dumps(body).encode(), NOW,
            headers=named, verified=verified, settings=settings or channel.settings(),
        )
    )  # fmt: skip


# ----------------------------------------------------------------------------------------- Zendesk


def zendesk_event(kind: str = "ticket.comment_added", **comment: Any) -> dict[str, Any]:
    known = {
        "id": "7", "body": "Still waiting", "is_public": True,
        "author": {"id": "84473", "is_staff": False, "name": "Ada"},
    }  # fmt: skip
    return {
        "id": "event-1",
        "type": f"zen:event-type:{kind}",
        "time": "2026-11-20T09:15:00.123456789Z",
        "detail": {
            "id": "5158",
            "subject": "Parcel",
            "requester_id": "84473",
            "submitter_id": "84473",
            "description": "Where is it?",
            "created_at": "2026-11-20T09:00:00Z",
        },
        "event": {"comment": known | comment},
    }


def zendesk_request(body: bytes, secret: str, at: str) -> Request:
    made = hmac.new(secret.encode(), at.encode() + body, hashlib.sha256).digest()
    return Request(
        "POST", URL,
        {zendesk.SIGNATURE: base64.b64encode(made).decode(), zendesk.TIMESTAMP: at}, body,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"id": "event-1", "type": "zen:event-type:ticket.comment_added"}, "event-1"),
        ({"ticket_id": 5158, "updated_at": "2026-11-20T09:15:00Z"}, "5158@2026-11-20T09:15:00Z"),
        ({"ticket_id": 5158}, None),
        ({"ticket_id": "{{ticket.id}}", "updated_at": "2026-11-20T09:15:00Z"}, None),
        ({"id": "x" * 300}, None),
        (["no object"], None),
    ],
)
def test_a_zendesk_delivery_goes_by_what_its_signature_covers(body: Any, name: str | None) -> None:
    request = zendesk_request(json.dumps(body).encode(), "s3cret", "2026-11-20T09:15:00Z")
    verdict = zendesk.verify(request, {"secret": "s3cret"}, NOW)
    assert (verdict.verified, verdict.name) == (True, name)


@pytest.mark.parametrize(
    ("seconds", "accepted"), [(300, True), (301, False), (-300, True), (-301, False)]
)
def test_a_zendesk_signature_is_good_for_five_minutes_either_way(
    seconds: int, accepted: bool
) -> None:
    request = zendesk_request(b"{}", "s3cret", "2026-11-20T09:15:00Z")
    now = datetime(2026, 11, 20, 9, 15, tzinfo=UTC) + timedelta(seconds=seconds)
    assert zendesk.verify(request, {"secret": "s3cret"}, now).accepted is accepted


def test_zendesk_is_answered_409_when_nothing_can_be_stored() -> None:
    assert zendesk.CHANNEL.unavailable.status == 409


def test_what_we_wrote_ourselves_at_zendesk_is_an_echo() -> None:
    settings = zendesk.Settings(own_ids=("777",))
    event = zendesk_event(author={"id": 777, "is_staff": True})
    assert parse(zendesk.CHANNEL, event, settings).ignored == "echo"


def test_a_new_tickets_description_becomes_a_message_only_where_so_configured() -> None:
    event = zendesk_event("ticket.created")
    assert parse(zendesk.CHANNEL, event).ignored == "hint"
    (found,) = parse(zendesk.CHANNEL, event, zendesk.Settings(first_comment="created")).messages
    assert (found.vendor_message_id, found.text, found.direction) == (
        "ticket:5158", "Where is it?", "inbound",
    )  # fmt: skip
    by_staff = event | {"detail": event["detail"] | {"submitter_id": "90001"}}
    (found,) = parse(zendesk.CHANNEL, by_staff, zendesk.Settings(first_comment="created")).messages
    assert (found.direction, found.recipients) == ("outbound", ("84473",))


def test_zendesk_api_credentials_are_whole_or_none() -> None:
    assert not zendesk.Settings(subdomain="shop", api_token="env:T").can_read
    assert not zendesk.Settings(email="a@b.example", api_token="env:T").can_read
    assert zendesk.Settings(subdomain="shop", email="a@b.example", api_token="env:T").can_read
    assert zendesk.Settings(subdomain="shop", client_id="c", client_secret="env:S").can_read
    assert zendesk.Settings(subdomain="shop").base == "https://shop.zendesk.com"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": None}, "comment.id"),
        ({"author": None}, "comment.author_id"),
        ({"author": {"id": "x" * 300}}, "comment.author_id"),
    ],
)
def test_a_zendesk_comment_without_its_ids_is_refused_by_the_fields_name(
    change: dict[str, Any], field: str
) -> None:
    with pytest.raises(ParseError) as error:
        parse(zendesk.CHANNEL, zendesk_event(**change))
    assert error.value.field == field


# -------------------------------------------------------------------------------------- Help Scout


def thread(**more: Any) -> dict[str, Any]:
    return {
        "id": 9001, "type": "customer", "state": "published", "body": "<p>Hello</p>",
        "customer": {"id": 238604, "first": "Ada", "email": "ada@example.com"},
        "createdBy": {"id": 238604, "type": "customer"}, "createdAt": "2026-11-20T09:15:00Z",
    } | more  # fmt: skip


def conversation(*threads: dict[str, Any]) -> dict[str, Any]:
    return {"id": 501, "subject": "Parcel", "_embedded": {"threads": list(threads)}}


def helpscout_parse(body: Any, settings: ChannelSettings | None = None) -> Parsed:
    return parse(
        helpscout.CHANNEL, body, settings, x_helpscout_event="convo.customer.reply.created"
    )


def test_a_help_scout_delivery_goes_by_event_conversation_and_body() -> None:
    body = b'{"id":501,"status":"active"}'
    made = base64.b64encode(hmac.new(b"s3cret", body, hashlib.sha1).digest()).decode()
    headers = {helpscout.SIGNATURE: made, helpscout.EVENT: "convo.created"}
    verdict = helpscout.verify(Request("POST", URL, headers, body), {"secret": "s3cret"}, NOW)
    digest = hashlib.sha256(body).hexdigest()[:32]
    assert verdict.name == f"convo.created:501:{digest}"
    odd = headers | {helpscout.EVENT: "convo\x00created" * 100}
    verdict = helpscout.verify(Request("POST", URL, odd, body), {"secret": "s3cret"}, NOW)
    assert verdict.name == f":501:{digest}"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("secrets", [{}, {"secret": "s3cret"}])
def test_help_scout_is_never_answered_410(method: str, secrets: dict[str, str]) -> None:
    for headers in ({}, {helpscout.SIGNATURE: "x"}):
        verdict = helpscout.verify(Request(method, URL, headers, b""), secrets, NOW)
        assert verdict.respond.status in (401, 405)
    assert helpscout.CHANNEL.unavailable.status == 503


@pytest.mark.parametrize(
    ("hours", "ids"), [(24, ["1", "9001"]), (23, ["9001"])], ids=["at the edge", "behind it"]
)
def test_help_scout_threads_older_than_the_look_back_are_no_news(
    hours: int, ids: list[str]
) -> None:
    old = thread(id=1, createdAt="2026-11-19T09:15:00Z")
    parsed = helpscout_parse(conversation(thread(), old), helpscout.Settings(look_back_hours=hours))
    assert [one.vendor_message_id for one in parsed.messages] == ids


def test_what_we_wrote_ourselves_at_help_scout_is_an_echo() -> None:
    settings = helpscout.Settings(own_ids=("256",))
    reply = thread(type="message", createdBy={"id": 256, "type": "user"})
    assert helpscout_parse(conversation(reply), settings).ignored == "echo"
    logged = thread(createdBy={"id": 256, "type": "user"})
    assert helpscout_parse(conversation(logged), settings).messages, "a customer's, filed by us"


@pytest.mark.parametrize("kind", ["note", "lineitem", "forwardparent", "sung", None])
def test_only_letters_and_chats_of_help_scout_become_messages(kind: str | None) -> None:
    parsed = helpscout_parse(conversation(thread(type=kind)))
    assert (parsed.messages, parsed.ignored) == (
        (), "internal_note" if kind == "note" else "not_a_message",
    )  # fmt: skip


# ----------------------------------------------------------------------------------------- Gorgias


def gorgias_message(**more: Any) -> dict[str, Any]:
    return {
        "id": 501, "ticket_id": 4242, "public": True, "channel": "email", "from_agent": False,
        "sender": {"id": 8, "name": "Ada", "email": "ada@example.com"}, "body_text": "Hello",
        "created_datetime": "2026-11-20T09:15:00.384938",
    } | more  # fmt: skip


def gorgias_read(message: dict[str, Any], settings: ChannelSettings | None = None) -> Parsed:
    return parse(
        gorgias.CHANNEL, {"ticket": {"id": 4242}, "message": message}, settings, fetched="message"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"from_agent": True, "sender": {"id": 93}}, "echo"),
        ({"from_agent": True, "sender": {"id": 1, "email": "bot@shop.example"}}, "echo"),
        ({"from_agent": True, "external_id": "signalbox:t1:m1"}, "echo"),
        ({"from_agent": True, "failed_datetime": "2026-11-20T09:15:00"}, "not_a_message"),
        ({"public": False}, "internal_note"),
        ({"channel": "internal-note"}, "internal_note"),
    ],
)
def test_what_is_no_customers_message_at_gorgias_is_left_out(
    change: dict[str, Any], reason: str
) -> None:
    settings = gorgias.Settings(own_ids=("93", "bot@shop.example"))
    assert gorgias_read(gorgias_message(**change), settings).ignored == reason


def test_a_customer_cannot_pose_as_our_own_echo_at_gorgias() -> None:
    """An `external_id` or a sender's id that looks like ours hides nothing that a customer wrote."""
    settings = gorgias.Settings(own_ids=("8",))
    assert gorgias_read(gorgias_message(external_id="signalbox:x"), settings).messages


@pytest.mark.parametrize(
    ("channel", "kind", "visibility"),
    [
        ("email", "message", "private"),
        ("facebook-messenger", "message", "private"),
        ("instagram-direct-message", "message", "private"),
        ("instagram-ad-comment", "comment", "public"),
        ("facebook-recommendations", "review", "public"),
        ("yotpo-review", "review", "public"),
        ("phone", "call", "private"),
        ("sung", "message", "private"),
    ],
)
def test_what_anybody_may_read_is_public(channel: str, kind: str, visibility: str) -> None:
    (found,) = gorgias_read(gorgias_message(channel=channel)).messages
    assert (found.kind, found.visibility) == (kind, visibility)


def test_times_of_gorgias_are_utc() -> None:
    (found,) = gorgias_read(gorgias_message()).messages
    assert found.occurred_at == datetime(2026, 11, 20, 9, 15, 0, 384938, tzinfo=UTC)


def test_a_call_of_gorgias_proves_nothing_whatever_it_holds() -> None:
    body = {"trigger": "ticket-created", "ticket": {"id": 4242, "messages": [gorgias_message()]}}
    parsed = parse(gorgias.CHANNEL, body, verified=False)
    assert (len(parsed.messages), parsed.verified) == (1, False)
    assert gorgias_read(gorgias_message()).verified


# ------------------------------------------------------------------------------------------- eDesk


def edesk_message(**more: Any) -> dict[str, Any]:
    return {
        "id": 789002, "ticket_id": 456001, "type": "Message", "direction": "Incoming", "body": "Hello",
        "created_at": "2026-11-20 09:15:00", "from_consumer_id": 77, "from_user": None,
    } | more  # fmt: skip


def edesk_read(message: dict[str, Any], settings: ChannelSettings | None = None) -> Parsed:
    return parse(edesk.CHANNEL, {"message": message}, settings, fetched="message")


def test_an_edesk_id_is_unique_within_its_type_only() -> None:
    names = {
        edesk_read(edesk_message(type=kind)).messages[0].vendor_message_id
        for kind in ("Message", "ExternalMessage")
    }
    assert names == {"Message:789002", "ExternalMessage:789002"}


@pytest.mark.parametrize("user", [12, "12", {"id": 12}])
def test_what_we_wrote_ourselves_at_edesk_is_an_echo(user: Any) -> None:
    message = edesk_message(direction="Outgoing", from_user=user)
    assert edesk_read(message, edesk.Settings(own_ids=("12",))).ignored == "echo"
    assert edesk_read(message).messages[0].direction == "outbound"


@pytest.mark.parametrize("user", [None, True, "", {}, [1]])
def test_an_outgoing_edesk_message_of_nobody_is_a_machines(user: Any) -> None:
    assert (
        edesk_read(edesk_message(direction="Outgoing", from_user=user)).ignored == "not_a_message"
    )


def test_the_address_in_an_edesk_call_is_a_claim_and_no_sender() -> None:
    body = {"message": edesk_message(), "email": "ceo@example.com", "name": "Ada"}
    (found,) = parse(edesk.CHANNEL, body, fetched="message").messages
    assert (found.sender.kind, found.sender.address) == ("vendor_id", "77")
    assert found.fields["email"] == "ceo@example.com"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("2 < 3 and 5 > 4", "2 < 3 and 5 > 4"),
        ("<p>Hello</p><p>Ada</p>", "Hello\n\nAda"),
        ("Hello<br>Ada", "Hello\nAda"),
        ("Hello <b>you</b>", "Hello you"),
        (None, ""),
    ],
)
def test_an_edesk_body_is_read_as_html_only_where_it_is_html(body: str | None, text: str) -> None:
    assert edesk_read(edesk_message(body=body)).messages[0].text == text
