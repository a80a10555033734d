"""N3 and N4 as a customer lives them: nothing by night that can wait, one fall-back, one digest a day."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest

from schemas.notifications import NoticeDeferred
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.known import Wish
from services.notifier.core.policy import Digest
from services.notifier.core.post import Traits, Trouble
from services.notifier.core.quiet import QuietHours, Window

NIGHT = QuietHours((Window(frozenset(range(7)), 21 * 60, 32 * 60),), occasions=frozenset())
"""From 21:00 to 08:00; 18:00 to 05:00 UTC in Istanbul."""

ACCOUNTS: dict[str, Any] = {
    "accounts": MappingProxyType(
        {
            "shop-whatsapp": Account("whatsapp", AccountSettings()),
            "shop-sms": Account("twilio_sms", AccountSettings()),
        }
    ),
    "traits": MappingProxyType(
        {
            "shop-whatsapp": Traits(
                frozenset({"whatsapp"}), "text", "address", window=timedelta(hours=24)
            ),
            "shop-sms": Traits(frozenset({"twilio_sms"}), "text", "address"),
        }
    ),
    "fall_back": ("shop-sms",),
}
BY_WHATSAPP = {
    "channel": "whatsapp",
    "account": "shop-whatsapp",
    "address": "+905321234567",
    "address_kind": "phone",
    "is_verified": True,
}


def tomorrow(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-11-25T{clock}").replace(tzinfo=UTC)


def test_what_comes_up_by_night_is_told_in_the_morning(story_with: Callable[..., Any]) -> None:
    story = story_with(quiet=NIGHT).opened("08:00").delivered("08:00:01")
    story.solved("21:00", with_answer=False).then(("solved", "deferred", "quiet_hours"))
    assert story.deferred_until == tomorrow("05:00")
    story.day_offset = timedelta(days=1)
    story.resumed("05:00").then(("solved", "requested"))
    assert story.deferred_until is None


def test_what_is_stale_by_the_morning_is_never_told(story_with: Callable[..., Any]) -> None:
    story = story_with(quiet=NIGHT).opened("08:00").delivered("08:00:01")
    story.solved("21:00", with_answer=False).reopened("22:00")
    assert ("solved", "suppressed", "superseded") in story.said
    story.day_offset = timedelta(days=1)
    story.resumed("05:00")
    assert not any(occasion == "solved" for occasion, *_ in story.said)


def test_an_urgent_case_breaks_through_the_night(story_with: Callable[..., Any]) -> None:
    quiet = replace(NIGHT, priorities=frozenset({1}))
    story = story_with(quiet=quiet).opened("08:00", priority=1).delivered("08:00:01")
    story.solved("21:00", with_answer=False).then(("solved", "requested"))


def test_whoever_writes_by_night_is_answered_by_night(story_with: Callable[..., Any]) -> None:
    quiet = replace(NIGHT, awake=timedelta(minutes=30))
    story = story_with(quiet=quiet)
    story.opened("21:00", occurred_at=datetime(2026, 11, 24, 20, 59, tzinfo=UTC))
    story.then(("received", "requested"))


def test_an_agents_answer_waits_for_the_morning_only_if_the_policy_says_so(
    story_with: Callable[..., Any],
) -> None:
    free = story_with(quiet=replace(NIGHT, occasions=frozenset({"answered"}))).opened("08:00")
    free.answered("21:00")
    assert free.said[-1] == ("answered", "requested")
    held = story_with(quiet=NIGHT).opened("08:00").delivered("08:00:01").answered("21:00")
    assert held.said[-1] == ("answered", "deferred", "quiet_hours")
    held.day_offset = timedelta(days=1)
    held.resumed("05:00").then(("answered", "requested"))


def test_what_a_vendor_refuses_for_good_goes_by_the_fall_back_once(
    story_with: Callable[..., Any],
) -> None:
    wrote_at = datetime(2026, 11, 24, 8, tzinfo=UTC)
    story = story_with(**ACCOUNTS).opened("08:00", contact=BY_WHATSAPP, occurred_at=wrote_at)
    assert (story.sends[-1].provider, story.mail.to) == ("whatsapp", "+905321234567")
    story.refused("08:00:05", "131026 not on WhatsApp", trouble=Trouble.ADDRESS)
    assert len(story.sends) == 2
    assert (story.sends[-1].provider, story.sends[-1].account) == ("twilio_sms", "shop-sms")
    assert story.sends[-1].notice_id == story.sends[0].notice_id
    story.refused("08:00:09", "30003 unreachable", trouble=Trouble.ADDRESS)
    assert story.said[-1][:2] == ("received", "failed")
    assert len(story.sends) == 2
    assert story.due is None


def test_a_vendor_that_asks_for_patience_gets_it_and_no_fall_back(
    story_with: Callable[..., Any],
) -> None:
    wrote_at = datetime(2026, 11, 24, 8, tzinfo=UTC)
    story = story_with(**ACCOUNTS).opened("08:00", contact=BY_WHATSAPP, occurred_at=wrote_at)
    story.refused("08:00:05", "429 slow down", timedelta(minutes=30))
    assert len(story.sends) == 1
    assert story.due is not None
    assert story.due >= datetime(2026, 11, 24, 8, 30, 5, tzinfo=UTC)


@pytest.mark.parametrize("is_out", [False, True])
def test_small_news_of_a_day_are_told_together_but_for_what_somebody_wants_no_more_of(
    story_with: Callable[..., Any], is_out: bool
) -> None:
    digest = Digest(frozenset({"check_in", "next_issue", "outage_over"}), 11 * 60)
    story = story_with(digest=digest, occasions_off=frozenset(), automatic_between_human=9).opened(
        "07:00", contact={"is_verified": True}
    )
    story.delivered("07:00:01")
    outage = {"about": "cards", "title": "Payments by card", "text": "Cards work again."}
    story.told_to("08:30", "outage_over", **outage)
    assert isinstance(story.last.events[-1], NoticeDeferred)
    assert story.last.events[-1].reason == "digest"
    story.told_to("08:40", "check_in", text="Is the lamp bright enough?")
    assert story.deferred_until == tomorrow("08:00")
    if is_out:
        key = story.known.key("ada@example.com")
        story.known.wishes[key] = {"follow_up": Wish(True, tomorrow("00:00"))}
    sent = len(story.sends)
    story.day_offset = timedelta(days=1)
    story.resumed("08:00")
    assert len(story.sends) == sent + 1
    told = {said[0]: said[1:] for said in story.said}
    if is_out:
        assert told["check_in"] == ("suppressed", "opted_out")
    else:
        assert told["check_in"] == ("suppressed", "digested")
        assert told["digest"] == ("requested",)
    assert story.deferred_until is None
