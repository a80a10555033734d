"""When customers are told something, in which words, in which thread."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas import reply_token

CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
FOLLOW_UP = "9d4f2a61-0c35-5a42-8a6a-3c8b5a0c1e22"
SECRET = b"0123456789abcdef0123456789abcdef"


def test_a_new_case_is_acknowledged_in_the_customers_thread(story: Any) -> None:
    story.opened("08:00").then(("received", "requested"))
    mail = story.mail
    assert mail.to_address == "ada@example.com"
    assert mail.subject == "We have your message (SB-4K7TQ2M)"
    assert mail.in_reply_to == "<CAF1@mail.example.com>"
    assert mail.references == ("<CAF1@mail.example.com>",)
    assert mail.text.startswith("Hello,")
    assert "SB-4K7TQ2M" in mail.text
    assert "24 November 2026, 11:00" in mail.text
    story.delivered("08:00:01").then(("received", "sent"))


def test_the_mail_carries_a_token_that_brings_the_reply_back(story: Any) -> None:
    mail = story.opened("08:00").mail
    for token in (
        reply_token.find_in_message_id(mail.message_id),
        reply_token.find_in_address(mail.reply_to),
    ):
        assert token is not None
        assert token.conversation_id == CONVERSATION
        assert token.is_for(SECRET, "default", "ada@example.com", token.made_on)
        assert not token.is_for(SECRET, "default", "eve@example.com", token.made_on)
    assert len(mail.reply_to.partition("@")[0]) <= 64


def test_the_same_cause_tells_once(story: Any) -> None:
    first = story.opened("08:00").last.events[0].notice_id
    story.opened("08:05").then()
    assert story.last.ignored == "already_told"
    assert [send.notice_id for send in story.sends] == [first]


def test_a_further_message_in_an_open_case_is_not_acknowledged(story: Any) -> None:
    story.opened("08:00").wrote("08:10").then()
    assert story.last.sends == ()


def test_a_follow_up_is_acknowledged_too(story: Any) -> None:
    story.opened("08:00").closed("09:00")
    story.opened(
        "10:00", ticket_id=FOLLOW_UP, message_id="m2", vendor_message_id="<CAF9@mail.example.com>"
    ).then(("received", "requested"))
    assert story.mail.in_reply_to == "<CAF9@mail.example.com>"
    assert story.mail.references[0] == "<CAF1@mail.example.com>"
    assert story.mail.references[-1] == "<CAF9@mail.example.com>"


def test_an_agents_answer_is_personal_mail(story: Any) -> None:
    text = "Your lamp left this morning.\n\nBest,\nDeniz"
    story.opened("08:00").answered("08:12", text=text).then(("answered", "requested"))
    mail = story.mail
    assert mail.headers == ()
    assert mail.text.startswith(text)
    assert "<p>Best,<br>Deniz</p>" in mail.html
    assert mail.references[0] == "<CAF1@mail.example.com>"


@pytest.mark.parametrize(
    ("occasion", "kind"),
    [("received", "auto-replied"), ("escalated", "auto-generated"), ("solved", "auto-generated")],
)
def test_automatic_notices_say_that_they_are(story: Any, occasion: str, kind: str) -> None:
    story.opened("08:00")
    if occasion == "escalated":
        story.escalated("08:30")
    if occasion == "solved":
        story.solved("08:30", with_answer=False)
    assert story.last.events[-1].occasion == occasion
    assert dict(story.mail.headers) == {
        "Auto-Submitted": kind,
        "X-Auto-Response-Suppress": "All",
        "Precedence": "auto_reply",
    }


def test_an_escalation_is_told_once_a_ticket(story: Any) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.escalated("08:30").then(("escalated", "requested"))
    assert "connecting you with a colleague who can help" in story.mail.text
    story.escalated("08:40", command_id="another").then()


def test_a_case_that_goes_up_as_it_is_opened_is_one_mail_to_its_customer(story: Any) -> None:
    story.opened("08:00").then(("received", "requested"))
    story.escalated("08:00").then()
    assert story.last.ignored == "told_with_the_opening"
    story.delivered("08:00:01").escalated("08:00").then()
    assert len(story.sends) == 1


def test_it_is_one_mail_too_if_the_escalation_is_heard_of_first(story: Any) -> None:
    story.opened("07:00", ticket_id=FOLLOW_UP, message_id="m0").closed("07:30")
    story.escalated("08:00").then(("escalated", "requested"))
    story.opened("08:00").then(("received", "suppressed", "superseded"))
    assert len(story.sends) == 2


def test_an_escalation_at_opening_is_told_where_the_opening_is_not(
    story_with: Callable[..., Any],
) -> None:
    story = story_with(occasions_off=frozenset({"received"})).opened("08:00")
    story.escalated("08:00").then(("escalated", "requested"))


def test_a_case_that_goes_up_again_after_its_opening_is_told_then(story: Any) -> None:
    story.opened("08:00").escalated("08:00").delivered("08:00:01")
    story.escalated("08:30").then(("escalated", "requested"))


def test_solved_without_an_answer_is_told_and_with_one_is_not(story: Any) -> None:
    story.opened("08:00").answered("08:12").solved("08:12", with_answer=True).then()
    assert story.last.ignored == "told_by_the_answer"
    story.solved("09:00", with_answer=False).then(("solved", "requested"))


def test_two_answers_are_two_mails(story: Any) -> None:
    story.opened("08:00").answered("08:12").answered("08:20", command_id="c-2")
    assert [send.message.headers for send in story.sends[1:]] == [(), ()]
    assert story.sends[1].notice_id != story.sends[2].notice_id
    assert story.sends[1].message.message_id in story.sends[2].message.references


def test_an_answer_follows_the_customers_latest_mail(story: Any) -> None:
    story.opened("08:00").wrote("08:10").answered("08:12")
    assert story.mail.in_reply_to == "<CAF2@mail.example.com>"


def test_an_out_of_office_is_no_mail_to_answer(story: Any) -> None:
    story.opened("08:00").wrote("08:01", is_automatic=True, vendor_message_id="<ooo@example.com>")
    assert story.last.ignored == "automatic_message"
    story.answered("08:12")
    assert story.mail.in_reply_to == "<CAF1@mail.example.com>"
    assert "<ooo@example.com>" not in story.mail.references


def test_a_form_is_answered_by_mail_and_our_own_mails_make_the_thread(story: Any) -> None:
    contact = {"channel": "form", "account": "contact", "is_verified": False}
    story.opened("08:00", contact=contact, vendor_message_id="form-1")
    first = story.mail
    assert first.in_reply_to is None
    assert first.references == ()
    story.answered("08:12")
    assert story.mail.in_reply_to == first.message_id
    assert story.mail.references == (first.message_id,)


@pytest.mark.parametrize("channel", ["form", "email"])
def test_a_stranger_cannot_have_us_carry_their_words_to_an_address_nobody_proved(
    story: Any, channel: str
) -> None:
    contact = {"channel": channel, "account": "contact", "name": "Cheap Pills"}
    story.opened("08:00", contact=contact, subject="Cheap pills at spam.example")
    for notice in (story.mail, story.escalated("08:10").mail):
        for part in (notice.subject, notice.text, notice.html):
            assert "spam" not in part
            assert "pills" not in part.lower()
    assert story.sends[0].message.text.startswith("Hello,\n\nThank you")


def test_a_proved_address_is_greeted_by_name_under_its_own_subject(story: Any) -> None:
    story.opened("08:00", contact={"is_verified": True})
    assert story.mail.subject == "Re: My lamp never arrived"
    assert story.mail.text.startswith("Hello Ada,")


def test_an_agents_answer_quotes_the_subject_whoever_gets_it(story: Any) -> None:
    story.opened("08:00").answered("08:12")
    assert story.mail.subject == "Re: My lamp never arrived"


@pytest.mark.parametrize("contact", ["eve@example.com", "ada@example.com"])
def test_a_doubted_follow_up_changes_neither_where_answers_go_nor_their_subject(
    story: Any, contact: str
) -> None:
    story.opened("08:00", contact={"is_verified": True}).closed("09:00")
    story.opened(
        "10:00",
        ticket_id=FOLLOW_UP,
        message_id="m2",
        subject="Cheap pills at spam.example",
        suspicion="sender_not_in_conversation",
        contact={"address": contact, "is_verified": contact == "ada@example.com"},
    )
    assert story.mail.to_address == "ada@example.com"
    assert story.mail.subject == "Re: My lamp never arrived"


def test_a_follow_up_from_an_unproved_address_does_not_replace_a_proved_one(story: Any) -> None:
    eve = {"address": "eve@example.com"}
    story.opened("08:00", contact={"is_verified": True}).closed("09:00")
    story.opened("10:00", ticket_id=FOLLOW_UP, message_id="m2", contact=eve)
    assert story.mail.to_address == "ada@example.com"
    story.closed("11:00").opened(
        "12:00", ticket_id="t3", message_id="m3", contact={**eve, "is_verified": True}
    )
    assert story.mail.to_address == "eve@example.com"


@pytest.mark.parametrize(
    ("language", "greeting"),
    [
        ("en", "Hello Ada,"),
        ("tr", "Merhaba Ada,"),
        ("ru", "Здравствуйте, Ada!"),
        ("tr-TR", "Merhaba Ada,"),
        ("de", "Hello Ada,"),
        (None, "Hello Ada,"),
    ],
)
def test_the_customers_language_is_spoken_where_we_speak_it(
    story: Any, language: str | None, greeting: str
) -> None:
    story.opened("08:00", contact={"language": language, "is_verified": True})
    assert story.mail.text.startswith(greeting)
    assert story.mail.language == story.last.events[0].language


def test_an_answer_in_another_language_is_framed_in_it(story: Any) -> None:
    story.opened("08:00", contact={"language": "en"}).answered(
        "08:12", text="Merhaba", language="tr"
    )
    assert story.mail.language == "tr"
    assert "Lantern & Oak ekibi" in story.mail.text


def test_an_unproved_address_does_not_replace_a_proved_one(story: Any) -> None:
    story.opened("08:00", contact={"is_verified": True})
    other = {**story.opening().contact.model_dump(), "address": "eve@example.com"}
    story.wrote("08:05", contact=other).answered("08:12")
    assert story.mail.to_address == "ada@example.com"
    story.wrote("08:15", contact={**other, "is_verified": True}).answered("08:20", command_id="c2")
    assert story.mail.to_address == "eve@example.com"


def test_a_long_thread_keeps_its_beginning_and_its_end(story: Any) -> None:
    story.opened("08:00")
    for number in range(30):
        story.wrote("08:10", message_id=f"m{number}", vendor_message_id=f"<n{number}@example.com>")
    references = story.state.references
    assert len(references) == 12
    assert references[0] == "<CAF1@mail.example.com>"
    assert references[-1] == "<n29@example.com>"


def test_a_closed_ticket_is_forgotten_but_for_what_is_under_way(story: Any) -> None:
    story.opened("08:00").closed("09:00")
    assert len(story.state.notices) == 1
    story.delivered("09:01").then(("received", "sent"))
    story.closed("09:02")
    assert story.state.notices == {}
    assert story.state.cases == {}
