"""Where everybody reads, where a message gets one answer, and where a person may still write when machines may not."""

from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.post import Post, Traits
from services.notifier.core.quiet import QuietHours
from tests.unit.notifier.conftest import Story


class Permissive(AccountSettings):
    """An account that lets machines use up the one answer, and has the longer window."""

    automatic: bool = True
    human_agent: bool = True


@pytest.fixture
def place(story_with: Callable[..., Story]) -> Callable[..., Story]:
    """`place(per_message=1)`: customers write by an account of a place with these traits, and there is no other way to them."""

    def begin(settings: AccountSettings | None = None, **traits: Any) -> Story:
        return story_with(
            accounts=MappingProxyType({"shop": Account("place", settings or AccountSettings())}),
            traits=MappingProxyType(
                {"shop": Traits(frozenset({"place"}), "text", "address", **traits)}
            ),
            fall_back=(),
            quiet=QuietHours(),
        )

    return begin


def opened(story: Story, thread: str, **changes: Any) -> Story:
    contact = {"channel": "place", "account": "shop", "is_verified": True}
    contact |= {"address": "u-1", "address_kind": "vendor_id"}
    return story.opened("08:00", contact=contact, vendor_thread=thread, **changes)


def test_a_comment_is_answered_in_words_for_everybody_and_a_direct_message_in_its_own(
    place: Callable[..., Story],
) -> None:
    comment = opened(place(public_thread="[0-9]+"), "17").answered("09:00").mail
    direct = opened(place(public_thread="[0-9]+"), "dm-17").answered("09:00").mail

    assert isinstance(comment, Post)
    assert comment.subject == ""
    assert "Ada" not in comment.text
    assert direct.subject != ""


def test_what_has_no_words_for_everybody_is_not_said_in_a_comment(
    place: Callable[..., Story],
) -> None:
    story = opened(place(public_thread="[0-9]+"), "17").escalated("09:00")

    story.then(("escalated", "suppressed", "not_in_public"))


def test_a_place_without_public_threads_has_none_whatever_the_thread_is_called() -> None:
    assert not Traits(frozenset({"x"}), "text", "thread").is_public_at("")
    assert not Traits(frozenset({"x"}), "text", "thread").is_public_at("17")
    assert not Traits(frozenset({"x"}), "text", "thread", public_thread=".+").is_public_at("")


def test_the_one_answer_of_a_review_is_left_to_a_person(place: Callable[..., Story]) -> None:
    story = opened(place(is_public=True, per_message=1), "r-1")

    story.then(("received", "suppressed", "only_answer"))
    story.answered("09:00").then(("answered", "requested"))


def test_who_lets_machines_use_it_up_has_said_so(place: Callable[..., Story]) -> None:
    story = opened(place(Permissive(), is_public=True, per_message=1), "r-1")

    story.then(("received", "requested"))


WINDOWS = {"window": timedelta(hours=24), "answer_window": timedelta(days=7)}


def test_a_person_may_write_longer_where_the_vendor_allows_that(
    place: Callable[..., Story],
) -> None:
    story = opened(place(Permissive(), **WINDOWS), "")
    story.day_offset = timedelta(days=2)
    story.escalated("08:30").then(("escalated", "suppressed", "window_closed"))
    story.answered("09:00").then(("answered", "requested"))


def test_without_the_vendors_leave_the_window_is_everybodys(place: Callable[..., Story]) -> None:
    story = opened(place(**WINDOWS), "")
    story.day_offset = timedelta(days=2)
    story.answered("09:00").then(("answered", "suppressed", "window_closed"))
