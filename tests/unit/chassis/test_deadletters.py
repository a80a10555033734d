"""Parked records keep what was there, byte for byte, and can always be stored and told of."""

import base64
from typing import Any

import pytest

from chassis.deadletters import (
    ERROR_LENGTH_MAX,
    KEPT_BYTES_MAX,
    STATE_KEY_LENGTH_MAX,
    ParkedRecord,
    Reason,
    pack_headers,
    pack_own_headers,
    park,
    unpack_headers,
    unpack_own_headers,
)
from chassis.testing import at
from schemas.envelope import Envelope
from schemas.topics import VALUE_BYTES_MAX


def parked(**fields: Any) -> ParkedRecord:
    given: dict[str, Any] = {
        "stage": "router.tickets",
        "task": 3,
        "topic": "messages",
        "partition": 3,
        "offset": 41,
        "key": b"k",
        "headers": (),
        "value": b"v",
        "reason": Reason.INVALID_PAYLOAD,
        "error": "ticket_id: is missing",
        "state_key": "k",
        "now": at("09:00"),
    }
    return park(**(given | fields))


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("ce_id", b"1"), ("ce_id", b"2")),
        (("null", None), ("empty", b"")),
        (("latin", b"\xe9\xff\x00"), ("русский", "да".encode())),
    ],
)
def test_headers_survive_whatever_their_bytes(
    headers: tuple[tuple[str, bytes | None], ...],
) -> None:
    assert unpack_headers(pack_headers(headers)) == headers


def test_a_header_name_that_is_no_text_is_kept_readable() -> None:
    assert unpack_headers(pack_headers([(b"\xff", b"x")])) == (("b'\\xff'", b"x"),)


def test_no_headers_at_all_are_no_headers() -> None:
    assert unpack_headers(pack_headers(None)) == ()


def test_our_own_headers_go_to_the_outbox_and_back() -> None:
    envelope = Envelope(
        "ticket.opened.v1", "signalbox/router/1", "id", at("09:00"), subject="Ж", sequence=7
    )
    packed = pack_own_headers(envelope.to_text_headers())
    assert tuple(unpack_own_headers(packed)) == envelope.to_headers()


def test_the_id_names_the_place_in_the_log_so_parking_twice_is_once() -> None:
    assert parked().id == parked(reason=Reason.UNKNOWN_TYPE, now=at("10:00")).id
    assert parked().id != parked(offset=42).id
    assert parked().id != parked(stage="sla").id


def test_a_long_value_is_cut_and_says_so() -> None:
    assert not parked(value=b"x" * KEPT_BYTES_MAX).is_cut
    record = parked(value=b"x" * (KEPT_BYTES_MAX + 1))
    assert record.is_cut
    assert record.value == b"x" * KEPT_BYTES_MAX
    assert parked(value=None).value is None


def test_text_that_postgresql_could_not_hold_is_made_storable() -> None:
    record = parked(error="type: a\x00b" + "x" * 999, state_key="k\x00" + "y" * 5_000)
    assert "\x00" not in record.error
    assert len(record.error) == ERROR_LENGTH_MAX
    assert record.state_key is not None
    assert "\x00" not in record.state_key
    assert len(record.state_key) == STATE_KEY_LENGTH_MAX
    assert parked(state_key=None).state_key is None


def test_the_event_that_tells_of_it_always_fits_into_a_record() -> None:
    event = parked(key=b"\x00" * 1_000_000, value=b"\xff" * 1_000_000, error="é" * 1_000).to_event()
    assert len(event.to_json()) <= VALUE_BYTES_MAX
    assert base64.b64decode(event.value_base64) == b"\xff" * KEPT_BYTES_MAX
    assert event.is_cut


def test_a_null_key_and_value_are_told_as_empty() -> None:
    event = parked(key=None, value=None).to_event()
    assert (event.key_base64, event.value_base64, event.is_cut) == ("", "", False)
