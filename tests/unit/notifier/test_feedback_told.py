"""What a survey and its low answer say to the customer, and what the case that a low answer opens does not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from schemas.feedback import FeedbackGiven, feedback_id
from schemas.notifications import NoticeRequested
from schemas.tickets import TicketPrioritised, TicketReopened
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.consent import Word, word_in
from services.notifier.core.links import Links
from services.notifier.core.policy import Digest, SurveyPolicy
from services.notifier.core.post import Traits
from services.notifier.core.quiet import QuietHours
from tests.unit.notifier.conftest import CONVERSATION, FOLLOW_UP, SECRET, TICKET, Story, at


def asked(story_with: Callable[..., Story], share: float = 1.0) -> Story:
    base = story_with()
    timing = replace(base.policy.timing, survey_after=timedelta(hours=3), check_in_after=None)
    story = story_with(
        timing=timing,
        survey=SurveyPolicy("nps", share),
        occasions_off=frozenset(),
        automatic_between_human=9,
        digest=Digest(),
    )
    story.opened("08:00").delivered("08:00:01")
    return story.answered("09:00").solved("09:00", with_answer=True)


def reopening(**changes: Any) -> TicketReopened:
    return TicketReopened.model_validate({**TicketReopened.EXAMPLE, **changes})


def test_a_survey_says_what_it_asks_and_with_which_chance_it_was_drawn(
    story_with: Callable[..., Story],
) -> None:
    story = asked(story_with, share=0.9999).followed_up("12:00").then(("survey", "requested"))
    (told,) = story.last.events
    assert isinstance(told, NoticeRequested)
    assert (told.survey_kind, told.survey_probability) == ("nps", 0.9999)
    assert story.mail.text.count("https://in.lantern-oak.example/v1/feedback/") == 11


def test_who_is_not_drawn_is_not_asked_and_nothing_is_said_of_it(
    story_with: Callable[..., Story],
) -> None:
    assert asked(story_with, share=0.0).followed_up("12:00").said == []


def test_another_notice_says_nothing_of_surveys(story_with: Callable[..., Story]) -> None:
    story = story_with().opened("08:00")
    (told,) = (one for one in story.last.events if isinstance(one, NoticeRequested))
    assert (told.survey_kind, told.survey_probability) == (None, None)


def test_that_a_person_looks_at_it_is_said_once_the_case_is_before_one(
    story_with: Callable[..., Story],
) -> None:
    """They did not write, so nothing says that we have heard them; and a score alone brings nobody to look."""
    story = asked(story_with)
    story.rated("09:10", 1).then()
    assert story.planned_at is None, "nobody is asked cheerfully after that"
    story.when(reopening(by="feedback"), "09:11").then(("recovery", "requested"))
    assert story.planned_at is None


def test_an_open_case_that_a_low_answer_makes_more_urgent_is_looked_at_anew(
    story_with: Callable[..., Story],
) -> None:
    facts = {**TicketPrioritised.EXAMPLE, "by_rule": "feedback", "agent_id": None, "version": 7}
    story = story_with().opened("08:00").delivered("08:00:01")
    story.when(TicketPrioritised.model_validate({**facts, "by_rule": "age"}), "08:30").then()
    story.when(TicketPrioritised.model_validate(facts), "09:00").then(("recovery", "requested"))
    assert "A person from our team reads your case again" in story.mail.text
    assert "leads" not in story.mail.text


def test_an_answer_that_is_corrected_stops_what_the_first_one_would_have_said(
    story_with: Callable[..., Story],
) -> None:
    facts = {**FeedbackGiven.EXAMPLE, "survey_id": "s-1", "score": 5, "revision": 2}
    corrected = FeedbackGiven.model_validate(facts)
    first = reopening(by="feedback", message_id=feedback_id("s-1", 1))
    story = asked(story_with).rated("09:10", 1)
    story.when(first, "09:11").refused("09:11:02")
    story.when(corrected, "09:12").then(("recovery", "suppressed", "superseded"))
    assert story.due is None
    # Nor is it said where the router is heard of last.
    late = asked(story_with).rated("09:10", 1).when(corrected, "09:11")
    late.when(first, "09:12").then()


def test_nobody_is_asked_where_no_address_of_ours_is_known(
    story_with: Callable[..., Story],
) -> None:
    story = asked(story_with)
    story.links = Links(SECRET, "default", "")
    assert story.followed_up("12:00").said == []
    assert len(story.sends) == 2, "the opening and the answer"


def test_a_second_case_of_a_day_brings_no_second_question(story_with: Callable[..., Story]) -> None:
    story = asked(story_with).followed_up("12:00").delivered("12:00:01")
    story.when(story.opening(ticket_id=FOLLOW_UP, number=2, message_id="m-77"), "12:30")
    story.answered("13:00", ticket_id=FOLLOW_UP, command_id="c-9")
    story.solved("13:00", with_answer=True, ticket_id=FOLLOW_UP, command_id="c-10")
    story.followed_up("16:00").then(("survey", "suppressed", "asked_lately"))


def test_a_short_survey_has_one_link_and_says_how_to_have_no_more(
    story_with: Callable[..., Story],
) -> None:
    base = asked(story_with)
    policy = replace(
        base.policy,
        accounts=MappingProxyType({"line": Account("twilio_sms", AccountSettings())}),
        traits=MappingProxyType(
            {"line": Traits(frozenset({"twilio_sms"}), "text", "address", is_keyed=False)}
        ),
        quiet=QuietHours(),
        consent_needed=frozenset(),
    )
    for language, stop in (("en", "“stop”"), ("tr", "“dur”"), ("ru", "«стоп»")):
        story = Story(policy)
        contact = {
            "address": "+905551112233",
            "address_kind": "phone",
            "channel": "twilio_sms",
            "account": "line",
            "language": language,
            "is_verified": True,
        }
        story.opened("08:00", contact=contact).delivered("08:00:01")
        assert stop not in story.mail.text, "notices of one's own case say nothing of it"
        story.answered("09:00").solved("09:00", with_answer=True)
        story.followed_up("12:00").then(("survey", "requested"))
        assert story.mail.text.count("https://") == 1
        assert stop in story.mail.text
        assert word_in(stop, "twilio_sms") is Word.STOP
        assert len(story.mail.text) < 500


def test_a_case_that_a_low_answer_opens_keeps_the_subject_and_when_they_wrote_last(
    story_with: Callable[..., Story],
) -> None:
    """Pressing a button is no message: no vendor's window is open for it, and nobody is taken for awake by their own words."""
    story = asked(story_with)
    before = story.state
    opening = story.opening(
        ticket_id=FOLLOW_UP, number=2, follows=TICKET, by="feedback", subject="",
        vendor_message_id="", vendor_thread="", occurred_at=at("09:29"),
    )  # fmt: skip
    story.when(opening, "09:30").then(("recovery", "requested"))
    for field in ("subject", "wrote_at", "thread", "answers", "in_reply_to"):
        assert getattr(story.state, field) == getattr(before, field), field
    assert story.state.subject
    assert story.state.cases[FOLLOW_UP].received_at == at("09:29")


def test_a_case_that_a_low_answer_opens_is_not_acknowledged(
    story_with: Callable[..., Story],
) -> None:
    story = asked(story_with)
    opening = story.opening(ticket_id=FOLLOW_UP, number=2, follows=TICKET, by="feedback")
    assert opening.conversation_id == CONVERSATION
    story.when(opening, "09:30").then(("recovery", "requested"))
    # Its answer goes out as any other.
    story.answered("10:00", ticket_id=FOLLOW_UP, command_id="c-9").then(("answered", "requested"))
