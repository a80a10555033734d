"""The words that end notices, and the headers by which a mail client does."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.core.consent import (
    CHAT_CHANNELS,
    OPTIONAL,
    WORD_LENGTH_MAX,
    Word,
    categories_of,
    unsubscribe_headers,
    word_in,
)
from services.notifier.core.links import without_way_out
from services.notifier.core.policy import Policy


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("STOP", Word.STOP),
        (" stop. ", Word.STOP),
        ("Stop all", Word.STOP),
        ("UNSUBSCRIBE!", Word.STOP),
        ("cancel", Word.STOP),
        ("End", Word.STOP),
        ("quit", Word.STOP),
        ("«STOP»", Word.STOP),
        ("DUR", Word.STOP),
        ("RET", Word.STOP),
        ("İPTAL", Word.STOP),
        ("IPTAL", Word.STOP),
        ("iptal", Word.STOP),
        ("ÇIK", Word.STOP),
        ("çık", Word.STOP),
        ("cik", Word.STOP),
        ("ABONELİKTEN ÇIK", Word.STOP),
        ("Стоп", Word.STOP),
        ("ОТПИСАТЬСЯ", Word.STOP),
        ("отмена", Word.STOP),
        ("START", Word.START),
        ("unstop", Word.START),
        ("yes", Word.START),
        ("BAŞLA", Word.START),
        ("Старт", Word.START),
        ("HELP", Word.HELP),
        ("info", Word.HELP),
        ("YARDIM", Word.HELP),
        ("yardım", Word.HELP),
        ("Помощь", Word.HELP),
    ],
)
def test_a_word_by_text_message_is_understood_however_it_is_typed(text: str, meaning: Word) -> None:
    assert word_in(text, "twilio_sms") is meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "...",
        "Please stop the order",
        "stop it",
        "don't stop",
        "I need help",
        "yes please",
        "start\nstop",
        "Дурак",
        "retour",
        "STOP" + " " * WORD_LENGTH_MAX,
    ],
)
def test_a_word_within_a_sentence_is_none(text: str) -> None:
    assert word_in(text, "twilio_sms") is None


@pytest.mark.parametrize("channel", sorted(CHAT_CHANNELS))
def test_in_a_chat_stop_is_a_word_and_cancel_is_about_an_order(channel: str) -> None:
    assert word_in("stop", channel) is Word.STOP
    assert word_in("RET", channel) is Word.STOP
    for text in ("cancel", "iptal", "отмена", "yes", "end", "info"):
        assert word_in(text, channel) is None


@pytest.mark.parametrize("channel", ["email", "form", "zendesk", "trustpilot"])
def test_by_mail_and_in_helpdesks_no_word_is_taken_for_one(channel: str) -> None:
    assert word_in("STOP", channel) is None


def test_stop_by_text_message_ends_notices_of_ones_own_cases_too() -> None:
    assert categories_of(Word.STOP, "twilio_sms") == {"service", "outage", "follow_up"}
    assert categories_of(Word.START, "twilio_sms") == {"service", "outage", "follow_up"}
    assert categories_of(Word.STOP, "whatsapp") == {"outage", "follow_up"}
    assert categories_of(Word.HELP, "twilio_sms") == frozenset()


@given(st.text(max_size=60), st.sampled_from(["twilio_sms", "whatsapp", "email"]))
def test_any_text_is_read_without_an_error(text: str, channel: str) -> None:
    assert word_in(text, channel) in (None, *Word)


LINK = "https://support.lantern-oak.example/v1/unsubscribe/abc.def"


@pytest.mark.parametrize("category", sorted(OPTIONAL))
def test_what_one_can_have_no_more_of_says_how_by_one_click(category: str) -> None:
    assert unsubscribe_headers(category, LINK) == (  # type: ignore[arg-type]
        ("List-Unsubscribe", f"<{LINK}>"),
        ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
    )


def test_notices_of_ones_own_case_and_of_security_have_no_such_headers() -> None:
    assert unsubscribe_headers("service", LINK) == ()
    assert unsubscribe_headers("security", LINK) == ()


@pytest.mark.parametrize(
    "url",
    [
        "http://support.example/u/abc",
        "mailto:stop@support.example",
        "https://support.example/u/abc>\r\nBcc: eve@example.com",
        "https://support.example/u/a b",
        "https://support.example/" + "a" * 1000,
        "https://support.example/ü",
        "",
    ],
)
def test_a_link_that_is_no_plain_https_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="RFC 8058"):
        unsubscribe_headers("follow_up", url)


@pytest.mark.parametrize("base", ["", "http://localhost:8080"])
def test_mails_of_a_kind_that_nobody_can_end_by_one_click_are_found(
    policy: Policy, base: str
) -> None:
    lacking = without_way_out(policy, base)
    assert {"outage_known", "outage_over", "next_issue", "recovery"} <= set(lacking)
    assert not {"survey", "check_in", "security", "received"} & set(lacking), "not sent, or no such"
    quiet = replace(policy, occasions_off=policy.occasions_off | set(lacking))
    assert without_way_out(quiet, base) == ()


def test_with_an_https_address_every_such_mail_has_its_way_out(policy: Policy) -> None:
    assert without_way_out(policy, "https://in.example.com") == ()
