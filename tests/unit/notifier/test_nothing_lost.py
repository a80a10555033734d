"""What ends, waits or is told with something else: nothing is lost by it, counted for it or kept because of it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from schemas.feedback import ContactOptedOut
from schemas.messages import MessageDeliveryReported, MessageReceived
from schemas.notifications import NoticeDeferred, NoticeDeliveryReported, NoticeUnknown
from schemas.tickets import ConversationErased, TicketReopened
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.decide import FollowUpDue
from services.notifier.core.delivery import Absent, SendSettled, Unknown, Unsent
from services.notifier.core.policy import CategoryCap, Digest
from services.notifier.core.post import Traits
from services.notifier.core.quiet import QuietHours, Window
from services.notifier.core.reason import Cause
from services.notifier.core.state import Deferred, Doubted, Settled
from services.notifier.core.told import Context, failed
from services.notifier.handlers import _effect, _withdrawn
from tests.unit.notifier.conftest import CONVERSATION, SECRET, TICKET, Story, at
from tests.unit.notifier.test_resend import only, resend

StoryWith = Callable[..., Story]
OUTAGE = {"about": "cards", "title": "Payments by card", "text": "Cards work again."}


def reopened(story: Story, clock: str) -> Story:
    event = {**TicketReopened.EXAMPLE, "at": at(clock)}
    return story.when(TicketReopened.model_validate(event), clock)


# ---------------------------------------------------------------------------------- two for one thing


def test_a_reopening_that_escalates_is_told_as_one(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.solved("09:00", with_answer=True)
    reopened(story, "10:00").then(("reopened", "requested"))

    story.escalated("10:00").then()
    assert story.last.ignored == "told_with_the_opening"


def test_a_reopening_that_waits_for_its_promise_and_escalates_is_told_as_one(
    patient: Story,
) -> None:
    patient.opened("08:00").waited("08:00:05").delivered("08:00:06")
    patient.solved("09:00", with_answer=True)
    reopened(patient, "10:00").then()
    patient.escalated("10:00").then()

    patient.waited("10:00:05").then(("reopened", "requested"))


def test_a_reopening_that_nobody_hears_of_hides_no_escalation(story_with: StoryWith) -> None:
    story = story_with(occasions_off=frozenset({"reopened"})).opened("08:00").delivered("08:00:01")
    story.solved("09:00", with_answer=True)
    reopened(story, "10:00").then(("reopened", "suppressed", "occasion_off"))

    story.escalated("10:00").then(("escalated", "requested"))


def test_a_later_escalation_takes_the_place_of_a_reopening_that_has_not_gone_out(
    story: Story,
) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.solved("09:00", with_answer=True)
    reopened(story, "10:00").refused("10:00:01")

    story.escalated("10:00:02").then(
        ("reopened", "suppressed", "superseded"), ("escalated", "requested")
    )


# ------------------------------------------------------------------------------------------- digests


def gathering(story_with: StoryWith, **changes: Any) -> Story:
    """A story with two pieces of news that wait for the digest, at 08:00 of the next day."""
    digest = Digest(frozenset({"check_in", "outage_over"}), 11 * 60)
    policy = {"digest": digest, "occasions_off": frozenset(), "automatic_between_human": 9}
    story = story_with(**{**policy, **changes}).opened("07:00", contact={"is_verified": True})
    story.delivered("07:00:01")
    story.told_to("08:30", "outage_over", **OUTAGE)
    story.told_to("08:40", "check_in", text="Is the lamp bright enough?")
    story.day_offset = timedelta(days=1)
    return story


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"occasions_off": frozenset({"digest"})}, ("requested",)),
        (
            {"category_caps": MappingProxyType({"service": CategoryCap(1, timedelta(days=30))})},
            ("requested",),
        ),
    ],
)
def test_where_no_digest_may_go_its_news_are_told_by_themselves(
    story_with: StoryWith, changes: dict[str, Any], said: tuple[str, ...]
) -> None:
    story = gathering(story_with, **changes).resumed("08:00")

    assert sorted(story.said) == [("check_in", *said), ("outage_over", *said)]


def test_news_wait_together_where_their_digest_has_to_wait(story_with: StoryWith) -> None:
    story = gathering(story_with)
    mornings = Window(frozenset(range(7)), 0, 12 * 60)
    story.policy = replace(story.policy, quiet=QuietHours(windows=(mornings,)))
    story.resumed("08:00")

    assert {type(one) for one in story.last.events} == {NoticeDeferred}
    waiting = [one for one in story.state.notices.values() if isinstance(one, Deferred)]
    assert {one.occasion for one in waiting} == {"check_in", "outage_over"}
    assert len({one.until for one in waiting}) == 1
    assert waiting[0].until > story.now


def digested(story_with: StoryWith, *occasions: str) -> Story:
    """A digest with these pieces of news of the story's ticket and one of an outage, which the server has put off."""
    story = gathering(
        story_with,
        digest=Digest(frozenset({"check_in", "outage_over", "next_issue", "still_on_it"}), 660),
    )
    for occasion in occasions:
        story.day_offset = timedelta(0)
        story.told_to("08:50", occasion, ticket_id=TICKET, text=f"News of {occasion}.")
    story.day_offset = timedelta(days=1)
    return story.resumed("08:00")


def test_what_an_answer_makes_stale_leaves_the_digest_that_waits_for_its_next_attempt(
    story_with: StoryWith,
) -> None:
    story = digested(story_with, "next_issue").refused("08:00:01")
    assert ("digest", "requested") not in story.answered("08:00:02").said
    story.delivered("08:00:03")
    before = len(story.sends)
    story.when_at_due()
    assert len(story.sends) == before + 1
    assert "Your case is settled" not in story.mail.text
    assert "works again" in story.mail.text
    assert "Is everything well" in story.mail.text, "what is about another case stays"


def test_a_digest_of_which_nothing_is_left_is_not_sent(story_with: StoryWith) -> None:
    base = gathering(story_with, digest=Digest(frozenset({"check_in", "next_issue"}), 660))
    story = Story(base.policy).opened("07:00", contact={"is_verified": True}).delivered("07:00:01")
    story.told_to("08:30", "check_in", ticket_id=TICKET, text="Is the lamp bright enough?")
    story.told_to("08:31", "next_issue", ticket_id=TICKET, text="How to clean a lamp.")
    story.day_offset = timedelta(days=1)
    story.resumed("08:00").refused("08:00:01")
    assert only(story, "digest")

    story.answered("08:00:02").then(
        ("digest", "suppressed", "superseded"), ("answered", "requested")
    )
    assert story.due is None


def test_a_digest_that_was_not_begun_yet_is_withdrawn_and_goes_without_what_is_stale(
    story_with: StoryWith,
) -> None:
    story = digested(story_with, "next_issue")
    sent, before = story.sends[-1], story.state
    assert "Your case is settled" in story.mail.text
    story.answered("08:00:01")
    assert _withdrawn(before, story.state) == (sent.notice_id,)

    story.when(SendSettled(sent, Unsent()), "08:00:02")
    assert "Your case is settled" not in story.mail.text
    assert "works again" in story.mail.text


def test_who_wants_no_more_of_a_kind_finds_none_of_it_in_the_digest(story_with: StoryWith) -> None:
    story = digested(story_with).refused("08:00:01")
    wish = {**ContactOptedOut.EXAMPLE, "category": "outage"}
    story.when(ContactOptedOut.model_validate(wish), "08:00:02")
    story.when_at_due()
    assert "works again" not in story.mail.text
    assert "Is everything well" in story.mail.text


# --------------------------------------------------------------------------------- what is not counted


@pytest.mark.parametrize("reason", ["550 no such user", "451 later"])
def test_a_notice_that_never_left_counts_for_no_cap(story_with: StoryWith, reason: str) -> None:
    story = story_with(automatic_between_human=1).opened("08:00").refused("08:00:01", reason)
    assert story.state.automatic_since_human == int(reason.startswith("4"))

    story.breached("11:00")
    stale = [("received", "suppressed", "superseded")] if reason.startswith("4") else []
    story.then(*stale, ("delayed", "requested"))


def test_what_was_counted_before_a_person_wrote_is_not_taken_back_after(story: Story) -> None:
    story.opened("08:00").refused("08:00:01")
    story.wrote("08:01")
    story.escalated("08:02")
    assert story.state.automatic_since_human == 1
    story.wrote("08:03")
    assert story.state.automatic_since_human == 0
    story.refused("08:03:01", "550 no")

    assert story.state.automatic_since_human == 0


# ------------------------------------------------------------------------------------- nobody knows


def desk(story: Story, *, can_find: bool) -> Story:
    """The story's customer writes at a vendor that drops repeats by key."""
    traits = Traits(frozenset({"desk"}), "html", "thread", is_keyed=True, can_find=can_find)
    story.policy = replace(
        story.policy,
        accounts=MappingProxyType({"shop": Account("desk", AccountSettings())}),
        traits=MappingProxyType({"shop": traits}),
    )
    contact = {"channel": "desk", "account": "shop", "is_verified": True}
    return story.opened("08:00", contact=contact, vendor_thread="t", vendor_message_id="m")


def test_a_doubted_notice_that_something_newer_makes_stale_is_looked_up(story: Story) -> None:
    desk(story, can_find=True).lost("08:00:01")
    story.answered("08:00:02").then(("answered", "requested"))
    notice = story.state.notices[only(story, "received")]
    assert isinstance(notice, Doubted)
    assert notice.is_superseded

    story.when_at_due()
    assert story.sends[-1].is_lookup
    story.looked_up_now(Absent()).then(("received", "suppressed", "superseded"))


def test_a_doubted_notice_in_its_last_attempt_is_looked_up_where_it_is_stale(story: Story) -> None:
    desk(story, can_find=True).lost("08:00:01").when_at_due()
    sent = story.sends[-1]
    story.answered("08:02")
    story.sends.append(sent)
    story.refused("08:02:01").then()

    assert isinstance(story.state.notices[sent.notice_id], Doubted)


def test_reports_find_a_notice_of_which_nobody_could_be_asked(story: Story) -> None:
    desk(story, can_find=False).lost("08:00:01")
    key = story.mail.key
    story.answered("08:00:02").then(("received", "unknown"), ("answered", "requested"))

    report = {
        **MessageDeliveryReported.EXAMPLE,
        "conversation_id": CONVERSATION,
        "vendor_message_id": key,
        "what": "delivered",
    }
    story.when(MessageDeliveryReported.model_validate(report), "08:05")
    (told,) = story.last.events
    assert isinstance(told, NoticeDeliveryReported)
    notice = story.state.notices[only(story, "received")]
    assert isinstance(notice, Settled)
    assert notice.message is not None


def test_an_erased_customers_doubted_notice_is_not_said_to_be_unsent(story: Story) -> None:
    desk(story, can_find=True).lost("08:00:01")
    erased = ConversationErased.model_validate(ConversationErased.EXAMPLE)
    story.when(erased, "08:00:02")

    assert [type(one) for one in story.last.events] == [NoticeUnknown]


def test_lookups_after_a_resend_have_names_of_their_own(story: Story) -> None:
    desk(story, can_find=True)
    story.policy = replace(
        story.policy,
        traits=MappingProxyType({"shop": replace(story.policy.traits["shop"], is_keyed=False)}),
    )
    story.lost("08:00:01").when_at_due()
    first = _effect(CONVERSATION, story.sends[-1])
    for _ in range(2):
        story.looked_up_now(Unknown("no answer")).when_at_due()
    story.looked_up_now(Unknown("no answer")).then(("received", "unknown"))
    resend(story, "10:00").lost("10:00:01").when_at_due()
    second = _effect(CONVERSATION, story.sends[-1])

    assert first.attempt == second.attempt == 1
    assert first.id != second.id


# ------------------------------------------------------------------------------------ what is not kept


def message(message_id: str) -> MessageReceived:
    example = MessageReceived.EXAMPLE
    content = {**example["content"], "text": "Where is it?", "text_new": "Where is it?"}
    return MessageReceived.model_validate({**example, "message_id": message_id, "content": content})


def test_a_question_is_not_kept_where_its_ticket_is_known(reader: Story) -> None:
    reader.opened("08:00", message_id="m-1").when(message("m-1"), "08:00:01")

    assert reader.state.asking == {}


def test_a_follow_ups_question_is_not_kept(reader: Story) -> None:
    reader.opened("08:00", message_id="m-1").when(message("m-2"), "08:10")
    assert list(reader.state.asking) == ["m-2"]
    reader.wrote("08:10:01", message_id="m-2")

    assert reader.state.asking == {}


def test_a_question_that_opens_no_ticket_is_forgotten_in_its_time(reader: Story) -> None:
    reader.when(message("m-3"), "08:00")
    assert reader.held_until == at("08:10")
    reader.waited("08:10")

    assert reader.state.asking == {}
    assert reader.held_until is None


def test_notices_of_no_case_are_forgotten_after_a_month(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.told_to("08:30", "outage_over", **OUTAGE).delivered("08:30:01")
    story.told_to("08:31", "outage_over", **OUTAGE)
    assert story.last.ignored == "already_told"

    story.when_at(FollowUpDue(), at("08:00") + timedelta(days=30))
    assert only(story, "outage_over")
    story.when_at(FollowUpDue(), at("09:00") + timedelta(days=30))
    assert {one.occasion for one in story.state.notices.values()} == {"received"}


def test_a_notice_whose_words_fail_keeps_count_of_its_attempts(story: Story) -> None:
    context = Context(story.policy, SECRET, "default", at("08:00"), story.known)
    cause = Cause(TICKET, "received", "m")
    told = failed(CONVERSATION, story.state, cause, "smtp", "no words", context, attempt=3)

    assert told.state.notices[cause.notice_id] == Settled(
        TICKET, "received", "failed", attempt=3, cause_id="m", ended_at=at("08:00")
    )
