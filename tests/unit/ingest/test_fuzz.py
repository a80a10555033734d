"""Whatever comes in, parsers answer with a message or a named refusal, and never with a stray error."""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import fuzz
from services.ingest import adapters
from services.ingest.adapters import addresses, charsets, email, message_api, mime
from services.ingest.adapters.channel import Channel, Delivery, Parsed, ParseError
from services.ingest.core import language
from services.ingest.core.normalise import clean_text, clean_value, html_to_text, new_text

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
MODERATE = settings(
    max_examples=150, deadline=2_000, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)

PIECES = st.sampled_from([
    b"From: ", b"To: ", b"Subject: ", b"Date: ", b"Message-ID: ", b"References: ", b"Content-Type: ", b"Received: ",
    b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable", b"Return-Path: <>",
    b"Content-Disposition: attachment; filename*0*=", b"multipart/mixed; boundary=b", b"multipart/report", b"text/html",
    b"text/plain; charset=", b"message/rfc822", b"message/delivery-status", b"utf-8", b"koi8-r", b"--b", b"--b--",
    b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"\t", b"=?utf-8?q?", b"=?koi8-r?b?", b"?=", b"<", b">", b"@", b'"', b"(", b")",
    b",", b";", b":", b"=", b"%", b"\x00", b"\xff", b"a", b"> ", b"On ", b" wrote:", b"-- \n", b"Status: 5.1.1", b"<p>", b"</div>",
    b"<blockquote>", b"&#x110000;", b"&amp;", b"\xe2\x80\xa8", b"\x1b$B", b"Tue, 24 Nov 2026 08:00:00 +9999",
])  # fmt: skip
MAILISH = st.lists(PIECES | st.binary(max_size=8), max_size=60).map(b"".join)


def read(channel: str, body: bytes, content_type: str = "application/json") -> Parsed | None:
    """Parse without the shield that `adapters.parse` puts around mistakes of ours."""
    adapter: Channel = adapters.CHANNELS.get(channel, message_api.CHANNEL)
    headers = {
        "content-type": content_type,
        "ce-specversion": "1.0",
        "ce-type": "message.submitted.v1",
        "ce-source": "s",
        "ce-id": "i",
    }
    try:
        return adapter.parse(Delivery(channel, "acc", body, NOW, headers=headers, input_id="in-1"))
    except ParseError:
        return None


@MODERATE
@given(MAILISH)
def test_any_mail_is_read_or_refused(raw: bytes) -> None:
    parsed = read("email", raw) if raw else None
    for message in parsed.messages if parsed else ():
        encoded = message.model_dump_json()
        assert "\\u0000" not in encoded
        assert not set(message.subject) & set("\r\n\x00\u2028\u2029\x85")
        assert 1 <= len(message.vendor_message_id) <= 200
        assert message.sender.address == "" or addresses.is_address(message.sender.address)
    email.sender_address(raw)


@MODERATE
@given(MAILISH)
def test_any_body_under_a_good_header_is_a_message(body: bytes) -> None:
    header = b"From: ada@example.com\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    read("email", header + b"--b\r\n" + body)


@MODERATE
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode),
    st.sampled_from(["application/json", "application/x-www-form-urlencoded"]),
)
def test_any_form_is_read_or_refused(body: bytes, content_type: str) -> None:
    read("form", body, content_type)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["sender", "address", "text", "id", "account", "channel", "kind", "email", "message", "data", "occurred_at"]),
        inner, max_size=6,
    ),
    max_leaves=12,
)  # fmt: skip


@MODERATE
@given(JSON)
def test_any_json_is_read_or_refused_by_every_adapter(value: object) -> None:
    import json

    body = json.dumps(value).encode()
    for channel in ("form", "event", "generic"):
        read(channel, body)
    read("event", body, "application/cloudevents+json")


@MODERATE
@given(st.text(max_size=300))
def test_any_text_can_be_cleaned_and_read(text: str) -> None:
    assert not set(clean_value(text)) & set("\r\n\x00\x1b\u2028")
    assert "\x00" not in clean_text(text)
    new_text(text)
    html_to_text(text)
    language.detect(text)
    mime.decode_words(text)
    mime.parameters_of(text)
    addresses.read(text)


@MODERATE
@given(
    st.binary(max_size=200),
    st.text(max_size=20) | st.sampled_from(["utf-16", "iso-2022-jp", "cp1251", "hz", "utf-7"]),
)
def test_any_bytes_become_text_under_any_charset(data: bytes, declared: str) -> None:
    assert isinstance(charsets.decode(data, declared), str)


@pytest.mark.parametrize("size", [1_000, 10_000, 100_000])
def test_reading_takes_time_in_proportion(size: int) -> None:
    for piece in (b"> a\n", b"a: b\r\n", b"--b\r\n", b'"', b"=?a?q?", b"<a@b>, "):
        read("email", b"From: a@b.example\r\nX: y\r\n\r\n" + piece * (size // len(piece)))


@pytest.mark.parametrize("name", sorted(fuzz.TARGETS))
def test_a_changed_input_is_answered_or_refused_by_name(name: str) -> None:
    """The first inputs of `python -m bench.fuzz`, which goes on for a hundred thousand of each."""
    said: list[str] = []
    outcome = fuzz.run(fuzz.TARGETS[name], 250, say=said.append)
    assert said == []
    assert outcome.inputs == 250
    assert outcome.is_good


def test_the_fuzzer_repeats_its_inputs_and_knows_a_find_from_a_refusal() -> None:
    def parse(data: bytes) -> None:
        if b"b" not in data:
            raise ParseError("no_b", "has no b")
        if len(data) > 4:
            raise IndexError

    target = fuzz.Target("toy", parse, (b"abc",), (b"b",))
    inputs = [fuzz.made_input(target, number) for number in range(50)]
    assert inputs == [fuzz.made_input(target, number) for number in range(50)]
    said: list[str] = []
    outcome = fuzz.run(target, 50, say=said.append)
    assert outcome.answered > 0
    assert outcome.refused == sum(b"b" not in data for data in inputs)
    assert outcome.finds == sum(b"b" in data and len(data) > 4 for data in inputs) > 0
    assert not outcome.is_good
    assert "IndexError" in said[0]
