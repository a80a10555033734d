"""HELP by text message: answered with who we are, how to stop and how to reach a person, once a conversation and day."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from schemas.messages import MessageReceived
from schemas.notifications import NoticeRequested
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.consent import Word, word_in
from services.notifier.core.delivery import SendSettled, Unsent
from services.notifier.core.known import Wish
from services.notifier.core.post import Post, Traits
from services.notifier.core.quiet import QuietHours, Window
from services.notifier.handlers import _withdrawn
from tests.unit.notifier.conftest import CONVERSATION, Story, at

NUMBER = "+905551112233"
ON_PHONE: dict[str, Any] = {
    "address": NUMBER,
    "address_kind": "phone",
    "channel": "twilio_sms",
    "account": "line",
    "is_verified": True,
}


@pytest.fixture
def phone(story_with: Callable[..., Story]) -> Story:
    """A shop that answers text messages."""
    return story_with(
        accounts=MappingProxyType({"line": Account("twilio_sms", AccountSettings())}),
        traits=MappingProxyType(
            {"line": Traits(frozenset({"twilio_sms"}), "text", "address", is_keyed=False)}
        ),
    )


def texted(story: Story, text: str, clock: str, message_id: str = "m-1", **changes: Any) -> Story:
    example = MessageReceived.EXAMPLE
    content = {
        **example["content"],
        "channel": "twilio_sms",
        "account": "line",
        "sender": {"address": NUMBER, "kind": "phone", "name": ""},
        "text": text,
        "text_new": text,
        "language": None,
        "occurred_at": at(clock) + story.day_offset,
        **changes,
    }
    facts = {
        **example,
        "message_id": message_id,
        "conversation_id": CONVERSATION,
        "verified": True,
        "content": content,
    }
    return story.when(MessageReceived.model_validate(facts), clock)


@pytest.mark.parametrize(
    ("word", "language", "stop", "person"),
    [
        ("HELP", "en", "“stop”", "reach a person"),
        ("info", "en", "“stop”", "reach a person"),
        ("YARDIM", "tr", "“dur”", "Bir kişiye ulaşmak"),
        ("Bilgi", "tr", "“dur”", "Bir kişiye ulaşmak"),
        ("Помощь", "ru", "«стоп»", "связаться с человеком"),
        ("инфо!", "ru", "«стоп»", "связаться с человеком"),
    ],
)
def test_help_is_answered_in_the_language_of_its_word(
    phone: Story, word: str, language: str, stop: str, person: str
) -> None:
    texted(phone, word, "08:00").then(("help", "requested"))
    (told,) = phone.last.events
    assert isinstance(told, NoticeRequested)
    assert (told.language, told.recipient, told.category) == (language, NUMBER, "service")
    sent = phone.mail
    assert isinstance(sent, Post)
    assert "Lantern & Oak" in sent.text
    assert stop in sent.text
    assert word_in(stop, "twilio_sms") is Word.STOP
    assert person in sent.text


def test_help_is_answered_once_a_conversation_and_day(phone: Story) -> None:
    texted(phone, "HELP", "08:00").delivered("08:00:01")
    texted(phone, "help", "15:00", "m-2").then()
    assert phone.last.ignored == "already_told"
    phone.day_offset = timedelta(days=1)
    texted(phone, "help", "08:00", "m-3").then(("help", "requested"))


def test_what_helps_is_said_at_night_after_stop_and_after_other_notices(phone: Story) -> None:
    """Whoever writes the word waits for its answer."""
    always = Window(frozenset(range(7)), 0, 24 * 60)
    phone.policy = replace(
        phone.policy, quiet=QuietHours(windows=(always,)), automatic_between_human=0
    )
    phone.known.wishes[phone.known.key(NUMBER)] = {"service": Wish(True, at("07:00"), "word")}
    texted(phone, "HELP", "08:00").then(("help", "requested"))


def test_the_message_that_was_answered_so_is_not_acknowledged_too(phone: Story) -> None:
    texted(phone, "HELP", "08:00", "m-9")
    phone.opened("08:00:01", contact=ON_PHONE, message_id="m-9")
    phone.then(("received", "suppressed", "superseded"))
    phone.opened("08:10", contact=ON_PHONE, message_id="m-10", ticket_id="t-2", number=2)
    phone.then(("received", "requested"))


def test_an_acknowledgement_that_has_not_gone_out_gives_way_to_the_answer(phone: Story) -> None:
    phone.opened("08:00", contact=ON_PHONE, message_id="m-9")
    sent, before = phone.sends[-1], phone.state
    texted(phone, "HELP", "08:00:01", "m-9").then(("help", "requested"))
    assert _withdrawn(before, phone.state) == (sent.notice_id,)
    phone.when(SendSettled(sent, Unsent()), "08:00:02").then(
        ("received", "suppressed", "superseded")
    )


def test_help_in_a_chat_or_in_a_sentence_is_a_question_like_any_other(phone: Story) -> None:
    texted(phone, "HELP", "08:00", channel="whatsapp").then()
    assert phone.last.ignored == "told_by_its_ticket"
    texted(phone, "I need help with my lamp", "08:01").then()
    assert phone.last.ignored == "told_by_its_ticket"


def test_where_the_carrier_answers_help_itself_it_can_be_turned_off(phone: Story) -> None:
    phone.policy = replace(phone.policy, occasions_off=frozenset({"help"}))
    texted(phone, "HELP", "08:00", "m-9").then(("help", "suppressed", "occasion_off"))
    phone.opened("08:00:01", contact=ON_PHONE, message_id="m-9").then(("received", "requested"))
