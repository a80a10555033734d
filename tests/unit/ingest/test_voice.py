"""Calls: one end, one voicemail, one transcript, in whatever order a vendor tells of them."""

import itertools
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.inbound import InboundReceived
from schemas.messages import MessageReceived, MessageRevised
from services.ingest.adapters import aircall, calls, signing, twilio, twilio_sms, twilio_voice, voip
from services.ingest.adapters.channel import Channel, Delivery, ParseError, Request
from services.ingest.core.decide import Rules, decide
from services.ingest.core.state import Directory

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
RULES = Rules("main", b"")
CALL = {"CallSid": "CA1", "From": "+15550107788", "To": "+15550100200", "Direction": "inbound"}
RECORDING = {"RecordingSid": "RE1", "RecordingUrl": "https://api.twilio.com/r/Recordings/RE1"}
ENDED = {**CALL, "CallStatus": "completed", "CallDuration": "48"}
RECORDED = {**CALL, "CallStatus": "in-progress", **RECORDING, "RecordingDuration": "37"}
TRANSCRIBED = {**CALL, **RECORDING, "TranscriptionStatus": "completed", "TranscriptionText": "My lamp is broken."}  # fmt: skip


def delivered(
    channel: Channel, body: dict[str, Any] | bytes, number: int = 0, **more: Any
) -> Delivery:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    if channel.name.startswith("twilio") and isinstance(body, dict):
        raw = urlencode(body).encode()
    return Delivery(channel.name, "main", raw, NOW, input_id=f"input-{number}", **more)


def told(channel: Channel, bodies: list[dict[str, Any]]) -> list[MessageReceived | MessageRevised]:
    """Return the events that these deliveries come to, decided one after another."""
    directory = Directory()
    events: list[MessageReceived | MessageRevised] = []
    for number, body in enumerate(bodies):
        delivery = delivered(channel, body, number)
        received = InboundReceived(
            input_id=delivery.input_id,
            channel=channel.name,
            account="main",
            method="POST",
            url="",
            received_at=NOW,
        )
        events += decide(directory, received, channel.parse(delivery), NOW, RULES).events
    return events


# ---------------------------------------------------------------------------------------------- Twilio


@pytest.mark.parametrize("order", list(itertools.permutations([ENDED, RECORDED, TRANSCRIBED])))
def test_a_call_with_a_voicemail_is_two_messages_in_one_conversation(
    order: tuple[dict[str, str], ...],
) -> None:
    events = told(twilio_voice.CHANNEL, [*order, *order])
    new = [event for event in events if isinstance(event, MessageReceived)]
    assert sorted(event.content.vendor_message_id for event in new) == ["CA1", "RE1"]
    assert len({event.conversation_id for event in events}) == 1
    assert len({event.customer_id for event in events}) == 1
    assert any(event.content.text == "My lamp is broken." for event in events)


def test_a_later_transcript_edits_its_voicemail() -> None:
    first, second = told(twilio_voice.CHANNEL, [RECORDED, TRANSCRIBED])
    assert isinstance(second, MessageRevised)
    assert second.message_id == first.message_id
    assert second.content.change == "edited"
    assert second.content.call is not None
    assert second.content.call.transcript == "My lamp is broken."


@pytest.mark.parametrize("is_first", [True, False])
def test_dial_says_whether_a_person_answered_whenever_it_comes(is_first: bool) -> None:
    dialled = {**CALL, "CallStatus": "in-progress", "DialCallStatus": "no-answer"}
    events = told(twilio_voice.CHANNEL, [dialled, ENDED] if is_first else [ENDED, dialled])
    assert {event.content.vendor_message_id for event in events} == {"CA1"}
    assert events[-1].content.call is not None
    assert events[-1].content.call.outcome == "missed"
    assert len(events) == (1 if is_first else 2)


def test_where_our_own_greeting_answers_completed_says_nothing_about_a_person() -> None:
    delivery = delivered(twilio_voice.CHANNEL, ENDED, settings=twilio_voice.Settings(greeting="Hi"))
    (content,) = twilio_voice.parse(delivery).messages
    assert content.call is not None
    assert content.call.outcome == "unknown"


def test_a_wish_to_be_called_back_is_a_message_of_its_own() -> None:
    pressed = {**CALL, "CallStatus": "in-progress", "Digits": "1"}
    events = told(twilio_voice.CHANNEL, [pressed, ENDED])
    assert [event.content.kind for event in events] == ["callback", "call"]


def test_the_key_for_it_can_be_another_or_none() -> None:
    pressed = {**CALL, "CallStatus": "in-progress", "Digits": "9"}
    for digit, ignored in (("9", None), ("1", "status"), ("", "status")):
        settings_ = twilio_voice.Settings(callback_digit=digit)
        parsed = twilio_voice.parse(delivered(twilio_voice.CHANNEL, pressed, settings=settings_))
        assert parsed.ignored == ignored


def test_twilio_text_from_one_of_our_own_numbers_is_an_echo() -> None:
    body = {"MessageSid": "SM1", "From": "+15550100200", "To": "+15550107788", "Body": "hello"}
    own = twilio_sms.Settings(own_ids=("+15550100200",))
    assert twilio_sms.parse(delivered(twilio_sms.CHANNEL, body, settings=own)).ignored == "echo"


FIELD = st.text(st.characters(codec="utf-8"), max_size=20)
ADDRESS = "https://hooks.example.test/v1/channels/twilio_voice/main"


@settings(max_examples=80, deadline=None)
@given(fields=st.dictionaries(FIELD.filter(bool), FIELD, max_size=6), data=st.data())
def test_a_signed_form_is_let_in_and_a_changed_one_is_not(
    fields: dict[str, str], data: st.DataObject
) -> None:
    said = ADDRESS + "".join(name + fields[name] for name in sorted(fields))
    signature = signing.base64_hmac(b"key", said.encode(), "sha1")
    body = urlencode(fields).encode()
    headers = {"x-twilio-signature": signature}
    secrets = {"secret": "key"}
    assert twilio.verify(Request("POST", ADDRESS, headers, body), secrets).verified
    other = data.draw(st.dictionaries(FIELD.filter(bool), FIELD, max_size=6))
    joined = "".join(name + other[name] for name in sorted(other))
    if joined != said.removeprefix(ADDRESS):
        changed = Request("POST", ADDRESS, headers, urlencode(other).encode())
        assert not twilio.verify(changed, secrets).accepted


@settings(max_examples=60, deadline=None)
@given(
    greeting=st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"),
        min_size=1,
    ),
    language=st.sampled_from(["en-US", "tr-TR", "ru-RU"]),
)
def test_what_the_greeting_says_stays_inside_its_tag(greeting: str, language: str) -> None:
    body = urlencode({**CALL, "CallStatus": "ringing"}).encode()
    said = ADDRESS + "".join(
        name + value for name, value in sorted({**CALL, "CallStatus": "ringing"}.items())
    )
    headers = {"x-twilio-signature": signing.base64_hmac(b"key", said.encode(), "sha1")}
    secrets = {
        "secret": "key", "greeting": greeting, "voice_language": language, "callback_said": "",
    }  # fmt: skip
    verdict = twilio_voice.verify(Request("POST", ADDRESS, headers, body), secrets, NOW)
    tree = ElementTree.fromstring(verdict.respond.body)
    assert [one.tag for one in tree] == ["Gather", "Record", "Hangup"]
    (spoken,) = tree[0]
    assert (spoken.text or "").split() == greeting.split()


# --------------------------------------------------------------------------------------------- Aircall


def air(event: str, **data: Any) -> dict[str, Any]:
    known = {
        "id": 77001, "direction": "inbound", "status": "done", "raw_digits": "+1 555-010-7788",
        "started_at": 1795510000, "ended_at": 1795510048, "answered_at": None,
    }  # fmt: skip
    return {"event": event, "timestamp": 1795510050, "token": "t0ken", "data": {**known, **data}}


def test_a_missed_aircall_call_and_its_voicemail_are_two_messages() -> None:
    vm = {"voicemail": "https://assets.example.test/vm/1.mp3"}
    for order in itertools.permutations(
        [air("call.ended", **vm), air("call.voicemail_left", **vm)]
    ):
        events = told(aircall.CHANNEL, [*order, *order])
        assert sorted(event.content.vendor_message_id for event in events) == [
            "77001",
            "77001:voicemail",
        ]
        assert len({event.conversation_id for event in events}) == 1


def test_answered_calls_can_be_left_out() -> None:
    body = air("call.ended", answered_at=1795510010)
    only_missed = aircall.Settings(calls="missed")
    assert aircall.parse(delivered(aircall.CHANNEL, body, settings=only_missed)).ignored == "status"
    assert aircall.parse(delivered(aircall.CHANNEL, body)).messages
    missed = delivered(aircall.CHANNEL, air("call.ended"), settings=only_missed)
    assert aircall.parse(missed).messages


def test_the_token_goes_no_further_than_the_proof() -> None:
    body = (
        b'{"token":"t0ken-1","event":"call.ended","token":"t0ken-2","data":{"id":9007199254740993}}'
    )
    kept = aircall.scrub(body)
    assert b"t0ken" not in kept
    assert json.loads(kept) == {"event": "call.ended", "data": {"id": 9007199254740993}}
    assert aircall.scrub(b"t0ken, and no JSON") == b"{}"
    assert aircall.scrub(b'["t0ken"]') == b"{}"


@pytest.mark.parametrize(
    "body", [b"null", b"[]", b'{"token":null}', b'{"token":{"a":1}}', b'{"token":["x"]}', b"\xff"]
)
def test_a_token_of_another_shape_is_a_wrong_one(body: bytes) -> None:
    request = Request("POST", "https://in.example/", {}, body)
    verdict = aircall.verify(request, {"secret": "x"}, NOW)
    assert not verdict.accepted
    assert verdict.respond.status == 401


# ------------------------------------------------------------------------------------------------ VoIP


def test_a_transcript_of_a_pbx_edits_the_voicemail_it_belongs_to() -> None:
    left = {"call_id": "c1", "from": "+15550107788", "disposition": "voicemail"}
    later = {**left, "event": "transcript", "transcript": "Call me back."}
    first, second = told(voip.CHANNEL, [left, later, later])
    assert isinstance(second, MessageRevised)
    assert second.message_id == first.message_id


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"disposition": "sideways"}, "disposition"),
        ({"event": "sneeze"}, "event"),
        ({"direction": "up"}, "direction"),
        ({"duration_s": -1}, "duration_s"),
        ({"duration_s": 604801}, "duration_s"),
        ({"recording_url": "file:///etc/passwd"}, "recording_url"),
        ({"event": "transcript"}, "transcript"),
        ({"call_id": ""}, "call_id"),
        ({"call_id": "x" * 201}, "call_id"),
    ],
)
def test_what_a_pbx_gets_wrong_is_named(change: dict[str, Any], field: str) -> None:
    body = {"call_id": "c1", "from": "+15550107788", "disposition": "missed", **change}
    with pytest.raises(ParseError) as refused:
        voip.parse(delivered(voip.CHANNEL, body))
    assert refused.value.field == field


@pytest.mark.parametrize("value", [0, 604800])
def test_a_duration_may_be_from_nothing_to_a_week(value: int) -> None:
    body = {"call_id": "c1", "disposition": "answered", "duration_s": value}
    (content,) = voip.parse(delivered(voip.CHANNEL, body)).messages
    assert content.call is not None
    assert content.call.duration_seconds == value


def test_national_numbers_are_completed_by_the_country() -> None:
    body = {"call_id": "c1", "from": "0555 123 45 67", "disposition": "missed"}
    turkish = voip.Settings(country_code="90")
    (content,) = voip.parse(delivered(voip.CHANNEL, body, settings=turkish)).messages
    assert content.sender.address == "+905551234567"


# --------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("given_", "country", "number"),
    [
        ("+15550107788", "", "+15550107788"),
        ("+1 (555) 010-7788", "", "+15550107788"),
        ("0015550107788", "", "+15550107788"),
        ("15550107788", "", "+15550107788"),
        ("(555) 010-7788", "1", "+15550107788"),
        ("+1 555 010 7788", "90", "+15550107788"),
        ("12345", "", "+12345"),
        ("12", "", None),
        ("+1234567890123456", "", None),
        ("sip:ada@example.com", "", None),
        ("+1555<script>", "", None),
        ("", "", None),
        (None, "", None),
        ("٠١٢٣٤٥٦", "", None),
    ],
)
def test_numbers_are_read_in_every_usual_style(
    given_: str | None, country: str, number: str | None
) -> None:
    assert calls.phone(given_, country) == number


@pytest.mark.parametrize("hidden", ["", "anonymous", "Restricted", "+266696687", "unknown"])
def test_who_hides_their_number_has_no_address(hidden: str) -> None:
    assert calls.caller(hidden).kind == "none"
