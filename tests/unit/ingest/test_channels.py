"""Forms, generic messages and events: what is read, and which field is named where it is refused."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.ingest import adapters
from services.ingest.adapters import json_body
from services.ingest.adapters.channel import Delivery, ParseError

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FORM: dict[str, Any] = {
    "name": "Ada",
    "email": "ada@example.com",
    "subject": "Lamp",
    "message": "Where is my lamp?",
}
MESSAGE: dict[str, Any] = {
    "channel": "kiosk", "account": "kiosk", "id": "17", "sender": {"address": "ada@example.com"}, "text": "Hello",
}  # fmt: skip


def parse(channel: str, body: bytes, **headers: str) -> Any:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return adapters.parse(Delivery(channel, "acc", body, NOW, headers=given, input_id="in-1"))


def refused(channel: str, body: bytes, **headers: str) -> tuple[str, str | None]:
    with pytest.raises(ParseError) as error:
        parse(channel, body, **headers)
    return error.value.problem, error.value.field


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


# ------------------------------------------------------------------------------------------- forms


def test_a_form_becomes_a_message_with_its_further_fields_below() -> None:
    body = as_json(FORM | {"order": "LO-1", "extra": {"page": "/lamps"}, "language": "en-GB"})
    (message,) = parse("form", body, content_type="application/json").messages
    assert message.text == "Where is my lamp?\n\norder: LO-1\npage: /lamps"
    assert (message.text_new, message.kind, message.language) == ("Where is my lamp?", "form", "en")
    assert (message.vendor_message_id, message.occurred_at) == ("in-1", NOW)


def test_a_browsers_form_may_hold_fields_we_do_not_know() -> None:
    body = b"email=ada%40example.com&message=K%C3%B6%C5%9Fe+k%C4%B1r%C4%B1k&submit=Send"
    (message,) = parse(
        "form", body, content_type="application/x-www-form-urlencoded; charset=utf-8"
    ).messages
    assert message.text == "Köşe kırık\n\nsubmit: Send"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"email": "no address"}, "email"),
        ({"email": "a@b.example, c@d.example"}, "email"),
        ({"email": None}, "email"),
        ({"message": "  \n "}, "message"),
        ({"message": "\x00"}, "message"),
        ({"message": "x" * 100_001}, "message"),
        ({"message": 5}, "message"),
        ({"subject": ["x"]}, "subject"),
        ({"language": "!!"}, "language"),
        ({"extra": {"a": {"b": 1}}}, "extra.a"),
        ({"status": "solved"}, "status"),
    ],
)
def test_a_wrong_field_of_a_form_is_named(changes: dict[str, Any], field: str) -> None:
    assert refused("form", as_json(FORM | changes), content_type="application/json")[1] == field


@pytest.mark.parametrize("missing", ["email", "message"])
def test_a_missing_field_of_a_form_is_named(missing: str) -> None:
    fields = {name: value for name, value in FORM.items() if name != missing}
    assert refused("form", as_json(fields), content_type="application/json")[1] == missing


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"{", b'"x"', b"\xff\xfe", b'{"email": NaN}', b'{"a":"\\ud800"}']
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ParseError):
        parse("form", body, content_type="application/json")


@pytest.mark.parametrize(
    "body", [b"email=%FF&message=x", b"&".join(b"a%d=1" % n for n in range(61)), b"\xff=1"]
)
def test_a_browsers_form_that_cannot_be_read_is_refused(body: bytes) -> None:
    assert refused("form", body, content_type="application/x-www-form-urlencoded")[1] == "body"


# ------------------------------------------------------------------------------------ depth and digits


def test_json_may_be_nested_32_deep_and_no_deeper() -> None:
    json_body.check(b"[" * 32 + b"]" * 32)
    with pytest.raises(ParseError, match="nested_too_deep"):
        json_body.check(b"[" * 33 + b"]" * 33)
    with pytest.raises(ParseError, match="nested_too_deep"):
        json_body.check(b'{"a":' * 100_000)


def test_numbers_may_have_40_digits_and_no_more() -> None:
    json_body.check(b'{"a": ' + b"9" * 40 + b"}")
    with pytest.raises(ParseError, match="number_too_long"):
        json_body.check(b'{"a": ' + b"9" * 10_000 + b"}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "' + b"[" * 100_000 + b'"}',
        b'{"a": "\\"' + b"[" * 99 + b'"}',
        b'"' + b"9" * 100,
        b'"\\',
        b'"\\"' * 50_000,
    ],
)
def test_brackets_and_digits_within_strings_do_not_count(body: bytes) -> None:
    json_body.check(body)


# -------------------------------------------------------------------------------- generic and events


def test_a_generic_message_is_read_with_its_own_time_and_thread() -> None:
    body = as_json(
        MESSAGE
        | {
            "occurred_at": "2026-11-24T10:00:00+03:00",
            "in_reply_to": "16",
            "text": "Teşekkür ederim",
        }
    )
    (message,) = parse("kiosk", body).messages
    assert message.occurred_at == datetime(2026, 11, 24, 7, 0, tzinfo=UTC)
    assert (message.vendor_message_id, message.in_reply_to, message.language) == ("17", "16", "tr")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sender": {"address": "no"}}, "sender.kind"),
        ({"sender": {}}, "sender.address"),
        ({"sender": {"address": "x", "kind": "fax"}}, "sender.kind"),
        ({"id": ""}, "id"),
        ({"id": "a\x00b"}, "id"),
        ({"text": ""}, "text"),
        ({"occurred_at": "2026-11-24T10:00:00"}, "occurred_at"),
        ({"channel": "CRM"}, "channel"),
        ({"verified": True}, "verified"),
    ],
)
def test_a_wrong_field_of_a_generic_message_is_named(changes: dict[str, Any], field: str) -> None:
    assert refused("kiosk", as_json(MESSAGE | changes))[1] == field


CE = {
    "ce_specversion": "1.0", "ce_type": "message.submitted.v1", "ce_source": "/shop", "ce_id": "e-1",
    "ce_time": "2026-11-24T10:00:00Z", "content_type": "application/json",
}  # fmt: skip
DATA = {"sender": {"address": "ada@example.com"}, "text": "Where is my order?"}


def test_an_event_in_binary_and_in_structured_mode_is_the_same_message() -> None:
    binary = parse("event", as_json(DATA), **CE)
    attributes = {name[3:]: value for name, value in CE.items() if name.startswith("ce_")}
    structured = parse(
        "event", as_json(attributes | {"data": DATA}), content_type="application/cloudevents+json"
    )
    assert binary == structured
    (message,) = binary.messages
    assert (message.vendor_message_id, message.account) == ("/shop#e-1", "acc")
    assert message.occurred_at == datetime(2026, 11, 24, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "data", "field"),
    [
        ({"ce_type": "order.placed"}, DATA, "type"),
        ({"ce_specversion": "0.3"}, DATA, "specversion"),
        ({"ce_id": ""}, DATA, "id"),
        ({"ce_source": "x" * 1_001}, DATA, "source"),
        ({"ce_time": "today"}, DATA, "time"),
        ({}, [1], "data"),
        ({}, {"text": "x"}, "data.sender"),
        ({}, DATA | {"channel": "email"}, "data.channel"),
        ({}, DATA | {"account": "No!"}, "data.account"),
    ],
)
def test_a_wrong_attribute_or_datum_of_an_event_is_named(
    headers: dict[str, str], data: Any, field: str
) -> None:
    assert refused("event", as_json(data), **(CE | headers))[1] == field


def test_a_mistake_in_an_adapter_costs_one_delivery_and_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(delivery: Delivery) -> Any:
        raise IndexError("x")

    monkeypatch.setitem(adapters.CHANNELS, "form", adapters.Channel("form", broken))
    assert refused("form", b"{}")[0] == "adapter_failed"
