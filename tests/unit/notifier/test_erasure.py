"""A customer is forgotten: nobody is told anything any more, and nothing is kept of whom we told."""

from typing import Any

from schemas.tickets import ConversationErased

ERASED = ConversationErased.model_validate(ConversationErased.EXAMPLE)


def test_what_waits_for_another_attempt_is_dropped_and_says_why(story: Any) -> None:
    story.opened("08:00").refused("08:00:05").when(ERASED, "08:01")
    story.then(("received", "suppressed", "customer_erased"))
    assert story.due is None
    assert story.state.contact is None
    assert (story.state.subject, story.state.references, story.state.in_reply_to) == ("", (), None)


def test_what_is_under_way_has_no_further_attempt(story: Any) -> None:
    story.opened("08:00").when(ERASED, "08:00:02").then()
    story.refused("08:00:05")
    assert story.due is None


def test_nobody_can_be_answered_afterwards(story: Any) -> None:
    story.opened("08:00").delivered("08:00:05").when(ERASED, "08:01").answered("08:02")
    assert [said[1] for said in story.said] == ["suppressed"]
