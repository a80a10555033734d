"""Sending a notice again because a person says so: which can be, how it goes, and what everybody else hears instead."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from schemas.commands import ResendNotice
from schemas.messages import MessageDeliveryReported
from schemas.notifications import NoticeRequested, NoticeResendDecided, NoticeUnknown
from services.notifier.core.known import Undeliverable
from services.notifier.core.post import Trouble
from services.notifier.core.state import Sending, Settled
from tests.unit.notifier.conftest import CONVERSATION, TICKET, Story, at

Begin = Callable[[], Story]


def only(story: Story, occasion: str) -> str:
    """The id of the story's one notice of an occasion."""
    (name,) = (key for key, one in story.state.notices.items() if one.occasion == occasion)
    return name


def resend(story: Story, clock: str, occasion: str = "received", **changes: Any) -> Story:
    facts = {
        "command_id": f"r-{clock}",
        "conversation_id": CONVERSATION,
        "ticket_id": TICKET,
        "agent_id": "mina",
        "notice_id": changes.pop("notice_id", None) or only(story, occasion),
        "occasion": occasion,
        **changes,
    }
    return story.when(ResendNotice.model_validate(facts), clock)


def decided(story: Story) -> NoticeResendDecided:
    said = story.last.events[0]
    assert isinstance(said, NoticeResendDecided)
    assert (said.agent_id, said.conversation_id) == ("mina", CONVERSATION)
    return said


def refusal(story: Story) -> str:
    said = decided(story)
    assert said.outcome == "refused"
    assert not story.last.sends
    return said.reason


def bounced(story: Story, clock: str) -> Story:
    """A server reports that the mail sent last came back for good."""
    report = {
        **MessageDeliveryReported.EXAMPLE,
        "conversation_id": CONVERSATION,
        "vendor_message_id": story.mail.message_id,
        "what": "bounced",
        "detail": "5.1.1",
        "is_permanent": True,
    }
    return story.when(MessageDeliveryReported.model_validate(report), clock)


@pytest.fixture
def story(begin: Begin) -> Story:
    return begin()


def test_a_notice_in_doubt_goes_again_to_the_byte_and_stays_in_doubt_until_it_is_taken(
    story: Story,
) -> None:
    story.opened().lost("08:01")
    first = story.sends[-1]
    resend(story, "09:00")
    said = decided(story)
    assert (said.outcome, said.is_anew, said.occasion) == ("resent", False, "received")
    again = story.sends[-1]
    assert again.message == first.message
    assert (again.notice_id, again.attempt, again.account) == (
        first.notice_id,
        2,
        first.account,
    )
    story.delivered("09:01").then(("received", "sent"))
    assert isinstance(story.state.notices[again.notice_id], Settled)


def test_one_that_is_lost_again_is_unknown_again_and_never_failed(story: Story) -> None:
    story.opened().lost("08:01")
    resend(story, "09:00")
    story.refused("09:01", "550 no such user")
    assert isinstance(story.last.events[0], NoticeUnknown)


def test_not_now_is_tried_again_for_as_long_as_a_key_is_relied_on(story: Story) -> None:
    story.opened().lost("08:01")
    resend(story, "09:00")
    story.refused("09:01", "451 busy")
    assert story.due is not None
    story.ticked("09:04").delivered("09:05").then(("received", "sent"))


def test_one_that_failed_has_its_words_made_anew_and_is_asked_for_anew(story: Story) -> None:
    story.opened().refused("08:01", "550 we do not like you", trouble=Trouble.MESSAGE)
    assert story.said == [("received", "failed")]
    first = story.sends[-1]
    resend(story, "09:30")
    assert decided(story).is_anew
    assert isinstance(story.last.events[1], NoticeRequested)
    again = story.sends[-1]
    assert again.notice_id == first.notice_id
    assert again.attempt == 2
    assert again.message != first.message
    story.delivered("09:31").then(("received", "sent"))


def test_it_has_all_its_attempts_again(story: Story) -> None:
    story.opened()
    for _ in range(story.policy.attempts_max - 1):
        story.refused("08:01", "451 busy").when_at_due()
    story.refused("20:00", "451 busy").then(("received", "failed"))
    resend(story, "21:00")
    story.refused("21:01", "451 busy")
    assert story.due is not None


def test_an_answer_that_failed_keeps_its_words(story: Story) -> None:
    story.opened().delivered("08:01").answered("08:30", text="Your lamp left on Monday.")
    story.refused("08:31", "550 no", trouble=Trouble.MESSAGE)
    resend(story, "10:00", "answered")
    assert "Your lamp left on Monday." in story.mail.text


def test_an_answer_that_bounced_is_sent_again_with_the_words_that_the_command_has(
    story: Story,
) -> None:
    story.opened().delivered("08:01").answered("08:30", text="Your lamp left on Monday.")
    bounced(story.delivered("08:31"), "08:40")
    resend(story, "10:00", "answered")
    assert "not kept" in refusal(story)
    resend(story, "10:01", "answered", text="Your lamp left on Monday.", agent_name="Mina")
    assert decided(story).is_anew
    assert "Your lamp left on Monday." in story.mail.text


def test_a_bounced_acknowledgement_goes_again_once_its_address_is_believed(story: Story) -> None:
    story.opened().delivered("08:01")
    bounced(story, "08:05")
    key = story.known.key("ada@example.com")
    story.known.undeliverable[key] = Undeliverable("5.1.1", at("08:05"), None)
    resend(story, "09:00")
    assert "nothing reaches the address" in refusal(story)
    del story.known.undeliverable[key]
    resend(story, "09:01")
    assert decided(story).outcome == "resent"


def test_caps_and_the_night_do_not_hold_what_a_person_wants_sent(
    begin: Begin, story: Story
) -> None:
    policy = replace(story.policy, automatic_between_human=1, unverified_recipient_per_hour=1)
    story = Story(policy)
    story.opened().refused("08:01", "550 no", trouble=Trouble.MESSAGE)
    resend(story, "23:30")
    assert decided(story).outcome == "resent"
    assert story.last.sends


@pytest.mark.parametrize(
    ("play", "said"),
    [
        (lambda s: s.opened(), "still under way"),
        (lambda s: s.opened().delivered("08:01"), "it was sent"),
        (lambda s: s.opened().refused("08:01"), "still under way"),
        (
            lambda s: s.opened().lost("08:01").answered("08:30"),
            "somebody of ours has answered since",
        ),
        (
            lambda s: s.opened().lost("08:01").solved("08:30", with_answer=False),
            "the case was solved since",
        ),
        (lambda s: s.opened().lost("08:01").merged("08:30"), "goes on in another"),
        (
            lambda s: s.opened().lost("08:01").escalated("08:30").delivered("08:31"),
            "has had the notice “escalated” since",
        ),
    ],
    ids=["under way", "sent", "waits", "answered", "solved", "merged", "escalated"],
)
def test_what_cannot_be_sent_again_is_refused_in_words(
    story: Story, play: Callable[[Story], Story], said: str
) -> None:
    play(story)
    before = story.state
    resend(story, "09:00")
    assert said in refusal(story)
    assert story.state == before


def test_an_unknown_notice_is_refused_in_words(story: Story) -> None:
    story.opened()
    resend(story, "09:00", notice_id="5f0c2a51-0f4e-57d4-8a3b-6f7f2b8a9c10")
    assert "nothing is known of it any more" in refusal(story)


def test_words_that_are_no_longer_true_do_not_go_again(story: Story) -> None:
    story.opened().lost("08:01")
    story.day_offset = timedelta(days=2)
    resend(story, "09:00")
    assert "no longer true" in refusal(story)


def test_a_solution_that_failed_can_be_told_although_an_answer_went_before(story: Story) -> None:
    story.opened().delivered("08:01").answered("08:30").delivered("08:31")
    story.solved("09:00", with_answer=False).refused("09:01", "550 no", trouble=Trouble.MESSAGE)
    resend(story, "09:30", "solved")
    assert decided(story).outcome == "resent"


def test_an_erased_customer_leaves_no_words_to_send_again(story: Story) -> None:
    from schemas.tickets import ConversationErased

    story.opened().lost("08:01")
    erased = {**ConversationErased.EXAMPLE, "conversation_id": CONVERSATION}
    story.when(ConversationErased.model_validate(erased), "08:30")
    (kept,) = story.state.notices.values()
    assert isinstance(kept, Settled)
    assert (kept.message, kept.matter) == (None, None)
    resend(story, "09:00")
    assert "not kept any more" in refusal(story)


def test_nothing_is_sent_again_in_a_dry_run(story: Story) -> None:
    story.opened().lost("08:01")
    story.policy = replace(story.policy, is_dry_run=True)
    resend(story, "09:00")
    assert "dry_run" in refusal(story)
    assert not any(isinstance(one, Sending) for one in story.state.notices.values())
