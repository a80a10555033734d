"""Reply tokens: an answer to our mail finds its conversation, and nobody else's does."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import reply_token

SECRET = b"0123456789abcdef0123456789abcdef"
CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
TODAY = date(2026, 11, 24)
ADA = "ada@example.com"
TOKEN = reply_token.make(SECRET, "default", CONVERSATION, ADA, NOW)


def read(text: str) -> reply_token.ReplyToken:
    token = reply_token.read(text)
    assert token is not None
    return token


def test_a_token_names_its_conversation_and_day_and_is_believed_for_its_address() -> None:
    token = read(TOKEN)
    assert token.conversation_id == CONVERSATION
    assert token.made_on == TODAY
    assert token.is_for(SECRET, "default", ADA, TODAY)


@given(
    st.uuids(), st.emails(), st.dates(date(2020, 1, 1), date(2199, 1, 1)), st.binary(min_size=32)
)
def test_every_token_made_is_read_back_and_believed(
    conversation: object, address: str, day: date, secret: bytes
) -> None:
    now = datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
    text = reply_token.make(secret, "default", str(conversation), address, now)
    assert len(text) == 45
    assert text.isalnum()
    assert text == text.lower()
    token = read(text)
    assert token.conversation_id == str(conversation)
    assert token.is_for(secret, "default", address, day)


@pytest.mark.parametrize(
    ("secret", "workspace", "address"),
    [
        (SECRET, "default", "eve@example.com"),
        (SECRET, "another", ADA),
        (b"fedcba9876543210fedcba9876543210", "default", ADA),
    ],
)
def test_a_token_is_not_believed_for_another_address_workspace_or_secret(
    secret: bytes, workspace: str, address: str
) -> None:
    assert not read(TOKEN).is_for(secret, workspace, address, TODAY)


def test_the_case_of_an_address_and_of_the_token_does_not_matter() -> None:
    assert read(TOKEN.upper()).is_for(SECRET, "default", " Ada@Example.COM ", TODAY)


@pytest.mark.parametrize(
    ("today", "is_believed"),
    [
        (date(2027, 11, 24), True),
        (date(2027, 11, 25), False),
        (date(2026, 11, 23), True),
        (date(2026, 11, 22), False),
    ],
)
def test_a_token_lives_365_days_and_may_come_from_a_clock_one_day_ahead(
    today: date, is_believed: bool
) -> None:
    assert read(TOKEN).is_for(SECRET, "default", ADA, today) is is_believed


@pytest.mark.parametrize("place", range(45))
def test_a_token_changed_at_any_place_is_not_believed(place: int) -> None:
    other = "b" if TOKEN[place] == "a" else "a"
    token = reply_token.read(TOKEN[:place] + other + TOKEN[place + 1 :])
    assert token is None or not token.is_for(SECRET, "default", ADA, TODAY)


@pytest.mark.parametrize(
    "text", ["", "a", TOKEN[:-1], TOKEN + "a", "0" * 45, "ä" * 45, "=" * 45, " " * 45, "1" * 45]
)
def test_what_is_no_token_is_read_as_none(text: str) -> None:
    assert reply_token.read(text) is None


def test_our_message_id_carries_the_token_and_names_the_notice() -> None:
    made = reply_token.message_id(TOKEN, "8f14e45f-ceea-5e7a-9c3b-0d1f6f0a7c11", "shop.example")
    assert made == f"<sb.{TOKEN}.8f14e45fceea5e7a9c3b0d1f6f0a7c11@shop.example>"
    assert reply_token.find_in_message_id(made) == read(TOKEN)
    assert reply_token.find_in_message_id(f"  {made} ") == read(TOKEN)


@pytest.mark.parametrize(
    "value",
    ["", "<>", "<CAF1@mail.example.com>", f"<sb.{TOKEN}@shop.example>", "<sb.x.y@shop.example>",
     f"<SB.{TOKEN}.1.2@shop.example>"],
)  # fmt: skip
def test_another_systems_message_id_carries_none(value: str) -> None:
    assert reply_token.find_in_message_id(value) is None


def test_our_reply_address_carries_the_token() -> None:
    made = reply_token.reply_address("support@shop.example", TOKEN)
    assert made == f"support+sb.{TOKEN}@shop.example"
    assert reply_token.find_in_address(made) == read(TOKEN)


@pytest.mark.parametrize(
    "address",
    ["", "support@shop.example", "support+sb.@shop.example", "support+news@shop.example",
     f"support+{TOKEN}@shop.example", f"sb.{TOKEN}@shop.example"],
)  # fmt: skip
def test_another_address_carries_none(address: str) -> None:
    assert reply_token.find_in_address(address) is None
