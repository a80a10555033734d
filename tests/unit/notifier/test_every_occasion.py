"""Every occasion to tell a customer something: what brings it about, when, and what ends it untold."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from schemas.tickets import TicketReopened
from services.notifier.core.policy import Digest
from services.notifier.core.reason import SUPERSEDES, category_of
from services.notifier.core.timing import NextIssue
from tests.unit.notifier.conftest import TICKET, Story, at

WITHIN = {"kind": "within", "minutes": 240, "day": "today", "time": "15:00"}
FOUR_HOURS = {"by": "2026-11-24T12:00:00Z", "seconds": 14400.0, "wording": WITHIN}
"""A promise at 08:00: answered by 12:00."""


@pytest.fixture
def promising(story_with: Callable[..., Story]) -> Story:
    """A case that was acknowledged at 08:00 with "within 4 hours"."""
    story = story_with(promise_wait=timedelta(seconds=5), quiet=_no_quiet(story_with))
    story.opened("08:00").promised("08:00", **FOUR_HOURS).then(("received", "requested"))
    return story.delivered("08:00:01")


def _no_quiet(story_with: Callable[..., Story]) -> Any:
    return replace(story_with().policy.quiet, windows=())


def _timing(story_with: Callable[..., Story], **changes: Any) -> Any:
    return replace(story_with().policy.timing, **changes)


# -------------------------------------------------------------------------------------------- arriving


def test_after_hours_the_customer_hears_when_we_open(
    story_with: Callable[..., Story],
) -> None:
    story = story_with(promise_wait=timedelta(seconds=5)).opened("08:00")
    story.promised("08:00:01", is_after_hours=True, opens_at="2026-11-24T09:00:00Z")
    story.then(("after_hours", "requested"))
    assert "12:00" in story.mail.text, "in the zone of the policy"


def test_once_we_are_open_the_same_case_is_acknowledged_as_any(
    story_with: Callable[..., Story],
) -> None:
    story = story_with(promise_wait=timedelta(seconds=5)).opened("09:00")
    story.promised("09:00:01", is_after_hours=True, opens_at="2026-11-24T09:00:00Z")
    story.then(("received", "requested"))


def test_a_call_that_nobody_took_is_one_that_we_owe(story_with: Callable[..., Story]) -> None:
    story = story_with(channels=frozenset({"twilio_voice"}))
    story.opened("08:00", contact={"channel": "twilio_voice"}).then(("voicemail", "requested"))


@pytest.mark.parametrize("occasion", ["after_hours", "voicemail"])
def test_an_opening_is_one_notice_however_it_is_worded(
    story_with: Callable[..., Story], occasion: str
) -> None:
    story = story_with(promise_wait=timedelta(seconds=5), channels=frozenset({"voip", "email"}))
    story.opened("08:00", contact={"channel": "voip" if occasion == "voicemail" else "email"})
    story.promised("08:00:01", is_after_hours=True, opens_at="2026-11-24T09:00:00Z")
    story.then((occasion, "requested"))
    story.opened("08:01").then()
    assert story.last.ignored == "already_told"


# --------------------------------------------------------------------------------- before a promise breaks


def test_n5_before_a_promise_breaks_the_customer_hears_that_we_are_at_it(promising: Story) -> None:
    assert promising.planned_at == at("11:30")
    promising.followed_up("11:29:59").then()
    promising.followed_up("11:30").then(("still_on_it", "requested"))
    assert "15:00" in promising.mail.text, (
        "what had been said is said again, in the zone of the policy"
    )


def test_n5_after_it_broke_they_hear_that_it_takes_longer_and_nothing_else(
    promising: Story,
) -> None:
    promising.followed_up("12:00:05").then(("delayed", "requested"))
    promising.followed_up("12:30").then()
    assert promising.planned_at is None


def test_n5_an_update_that_a_person_promised_has_both(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.agreed("09:00", what="update", by="2026-11-24T12:00:00Z").then()
    assert story.planned_at == at("11:30")
    story.followed_up("11:30").then(("still_on_it", "requested"))
    story.delivered("11:30:01").breached("12:00", "periodic_update")
    story.then(("delayed", "requested"))


def test_what_an_answer_promises_is_kept_an_eye_on(story: Story) -> None:
    story.opened("08:00").answered("09:00", next_update_by="2026-11-24T12:00:00Z")
    assert story.planned_at == at("11:30")
    story.followed_up("12:00:05").then(("delayed", "requested"))


@pytest.mark.parametrize("who", ["answered", "answered_elsewhere", "called", "solved", "merged"])
def test_that_we_are_at_it_dies_when_a_person_has_spoken(promising: Story, who: str) -> None:
    if who == "called":
        promising.called("10:00", "reached")
    elif who == "solved":
        promising.solved("10:00", with_answer=True)
    else:
        getattr(promising, who)("10:00")
    promising.followed_up("11:30").then()
    assert not any(
        one.occasion in ("still_on_it", "delayed") for one in promising.state.notices.values()
    )


def test_n2_solved_overtakes_still_looking(promising: Story) -> None:
    promising.followed_up("11:30").then(("still_on_it", "requested"))
    promising.refused("11:30:05").then()
    promising.solved("11:31", with_answer=False)
    promising.then(("still_on_it", "suppressed", "superseded"), ("solved", "requested"))
    assert promising.due is None


def test_that_we_are_at_it_never_goes_out_after_the_promise_broke(promising: Story) -> None:
    promising.followed_up("11:30").refused("11:30:05", wait=timedelta(hours=1)).then()
    promising.ticked("12:31").then(("still_on_it", "suppressed", "expired"))


def test_a_short_promise_is_not_spoken_into(story_with: Callable[..., Story]) -> None:
    story = story_with(promise_wait=timedelta(seconds=5))
    within = {"kind": "within", "minutes": 45, "day": "today", "time": "11:45"}
    story.opened("08:00").promised(
        "08:00", by="2026-11-24T08:45:00Z", seconds=2700.0, wording=within
    )
    assert story.planned_at == at("08:45:05"), "its end alone"


# ------------------------------------------------------------------------------------- it takes longer


def test_a_breach_is_told_where_nothing_had_been_promised(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01").breached("12:00").then(("delayed", "requested"))
    story.delivered("12:00:01").breached("13:00", "next_response").then()
    assert story.last.ignored == "already_told", "once a silence"


def test_while_what_the_customer_was_told_holds_nothing_is_late_to_them(promising: Story) -> None:
    promising.breached("10:00").then()
    assert promising.last.ignored == "promise_still_open"


@pytest.mark.parametrize("target", ["time_to_offer", "time_to_accept", "tier", "resolution"])
def test_what_is_late_between_ourselves_is_not_told(story: Story, target: str) -> None:
    story.opened("08:00").breached("12:00", target).then()
    assert story.last.ignored == "between_ourselves"


def test_why_it_takes_longer_is_said_where_events_have_shown_it(
    story_with: Callable[..., Story],
) -> None:
    story = story_with(promise_wait=timedelta(seconds=5), automatic_between_human=9)
    story.opened("08:00").promised("08:00:01", factor=1.5, ahead=12)
    assert story.state.cases[TICKET].why == "demand"
    story.escalated("09:00")
    assert story.state.cases[TICKET].why == "research"
    story.moved("09:10", "on_hold", waiting_on="carrier", detail="they look for it")
    assert story.state.cases[TICKET].standing == "resting"


def test_a_new_promise_goes_with_the_news_that_it_takes_longer(promising: Story) -> None:
    later = {**WITHIN, "kind": "by", "minutes": None}
    promising.promised("11:59", by="2026-11-24T16:00:00Z", seconds=14400.0, wording=later)
    promising.followed_up("12:00:05").then(("delayed", "requested"))
    assert "19:00" in promising.mail.text
    assert promising.planned_at == at("15:30")


def test_a_second_silence_is_another(story: Story) -> None:
    story.opened("08:00").breached("12:00").then(("delayed", "requested"))
    story.answered("12:10").wrote("13:00").breached("17:00", "next_response")
    story.then(("delayed", "requested"))


def test_nobody_who_was_answered_hears_that_it_takes_longer(story: Story) -> None:
    story.opened("08:00").answered("09:00").breached("12:00", "next_response").then()
    assert story.last.ignored == "no_occasion"


# -------------------------------------------------------------------------------------- we need something


def test_a_case_that_waits_for_its_customer_asks_them(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.moved("09:00", "on_hold", waiting_on="customer", detail="Which order is it?")
    story.then(("need_info", "requested"))
    assert "Which order is it?" in story.mail.text


def test_what_an_answer_has_asked_is_not_asked_again(story: Story) -> None:
    story.opened("08:00").answered("09:00").moved("09:00", "pending", reason="answered").then()
    assert story.last.ignored == "told_by_the_answer"


def test_a_case_that_waits_for_somebody_else_asks_nobody(story: Story) -> None:
    story.opened("08:00").moved("09:00", "on_hold", waiting_on="carrier", detail="looks").then()


def test_a_question_drops_that_we_are_at_it(promising: Story) -> None:
    promising.moved("09:00", "on_hold", waiting_on="customer", detail="Which order is it?")
    assert promising.planned_at is None


# ---------------------------------------------------------------------------------------------- calls


def test_a_booked_call_is_confirmed_with_its_time(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.agreed(
        "08:30",
        what="callback",
        not_before="2026-11-24T14:00:00Z",
        by="2026-11-24T15:00:00Z",
    ).then(("callback_booked", "requested"))
    assert "17:00" in story.mail.text


def test_a_later_call_takes_the_place_of_one_that_was_not_confirmed_yet(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.agreed("08:30", by="2026-11-24T15:00:00Z", not_before="2026-11-24T14:00:00Z")
    story.refused("08:30:05").agreed(
        "08:31", by="2026-11-24T17:00:00Z", not_before="2026-11-24T16:00:00Z"
    )
    story.then(("callback_booked", "suppressed", "superseded"), ("callback_booked", "requested"))


@pytest.mark.parametrize("outcome", ["no_answer", "voicemail"])
def test_whoever_was_not_reached_hears_that_we_called(story: Story, outcome: str) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.called("10:00", outcome).then(("callback_missed", "requested"))
    story.refused("10:00:05").called("10:10", "reached")
    story.then(("callback_missed", "suppressed", "superseded"))


# ------------------------------------------------------------------------------------------- afterwards


def _following(story_with: Callable[..., Story], **changes: Any) -> Story:
    issues = MappingProxyType(
        {
            "late_by_shipper": NextIssue(
                timedelta(hours=1),
                {"en": ("Where is my parcel?", "https://help.lantern-oak.example/1", "Follow it.")},
            )
        }
    )
    timing = _timing(
        story_with,
        next_issues=issues,
        check_in_after=timedelta(hours=2),
        survey_after=timedelta(hours=3),
    )
    story = story_with(
        timing=timing,
        occasions_off=frozenset(),
        automatic_between_human=9,
        digest=Digest(),
        **changes,
    )
    return story.opened("08:00").delivered("08:00:01")


def test_after_a_solution_come_the_article_the_look_after_them_and_the_question(
    story_with: Callable[..., Story],
) -> None:
    story = _following(story_with).answered("09:00").solved("09:00", with_answer=True)
    story.followed_up("10:00").then(("next_issue", "requested"))
    assert "https://help.lantern-oak.example/1" in story.mail.text
    story.followed_up("11:00").then(("check_in", "requested"))
    story.followed_up("12:00").then(("survey", "requested"))
    assert "https://in.lantern-oak.example/v1/feedback/" in story.mail.text
    assert dict(story.mail.headers)["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert story.planned_at is None


def test_follow_ups_outlive_the_ticket_and_then_it_is_forgotten(
    story_with: Callable[..., Story],
) -> None:
    story = _following(story_with).solved("09:00", with_answer=True).closed("09:30")
    for clock in ("10:00", "11:00", "12:00"):
        story.followed_up(clock).delivered(f"{clock}:01")
    assert [send.message.subject != "" for send in story.sends] == [True] * 4
    assert story.state.cases == {}


def test_a_reopened_case_is_acknowledged_and_nothing_follows_its_solution(
    story_with: Callable[..., Story],
) -> None:
    story = _following(story_with).solved("09:00", with_answer=True)
    story.reopened("09:30").then(("reopened", "requested"))
    assert story.planned_at is None


def test_whoever_was_unhappy_hears_from_a_person_and_is_not_asked_cheerfully(
    story_with: Callable[..., Story],
) -> None:
    story = _following(story_with).solved("09:00", with_answer=True)
    story.rated("09:10", 1).then()
    assert story.planned_at is None
    again = TicketReopened.model_validate(
        {**TicketReopened.EXAMPLE, "by": "feedback", "message_id": "f-1"}
    )
    story.when(again, "09:10").then(("recovery", "requested"))
    story.when(again, "09:11").then()
    assert story.last.ignored == "already_told"


def test_whoever_was_happy_is_left_alone(story_with: Callable[..., Story]) -> None:
    story = _following(story_with).rated("09:10", 5).then()
    assert story.last.ignored == "no_occasion"


# ------------------------------------------------------------------------------------------ on request

OUTAGE = {
    "about": "cards-1",
    "title": "Payments by card",
    "text": "Cards are refused.",
    "since": "2026-11-24T07:40:00Z",
}


def test_an_outage_is_told_once_and_that_it_is_over_once(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.told_to("08:10", "outage_known", **OUTAGE).then(("outage_known", "requested"))
    assert "Cards are refused." in story.mail.text
    story.delivered("08:10:01").told_to("08:20", "outage_known", **OUTAGE).then()
    assert story.last.ignored == "already_told"
    story.told_to("09:00", "outage_over", **OUTAGE).then(("outage_over", "requested"))


def test_that_an_outage_is_over_drops_that_it_is_known(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.told_to("08:10", "outage_known", **OUTAGE).refused("08:10:05")
    story.told_to("08:11", "outage_over", **OUTAGE)
    story.then(("outage_known", "suppressed", "superseded"), ("outage_over", "requested"))


def test_somebody_who_never_wrote_is_told_too(story: Story) -> None:
    contact = {
        "customer_id": "c9",
        "address": "bo@example.com",
        "channel": "email",
        "account": "support",
        "language": "en",
    }
    story.told_to("08:10", "outage_known", contact=contact, **OUTAGE)
    story.then(("outage_known", "requested"))
    assert story.mail.to_address == "bo@example.com"
    assert story.last.events[0].ticket_id == story.last.events[0].conversation_id


def test_the_same_request_is_done_once(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01")
    story.told_to("08:10", "security", text="Your password was changed.")
    story.then(("security", "requested"))
    story.told_to("08:11", "security", text="Your password was changed.", command_id="n-08:10")
    assert story.last.ignored == "already_told"


def test_a_request_that_has_expired_is_not_told(story: Story) -> None:
    story.opened("08:00")
    story.told_to("09:00", "outage_known", expires_at="2026-11-24T08:59:00Z", **OUTAGE)
    story.then(("outage_known", "suppressed", "expired"))


# ------------------------------------------------------------------------------------ what ends what

WAITING = ("received", "escalated", "need_info", "still_on_it", "delayed", "solved", "reopened")


@pytest.mark.parametrize("stale", WAITING)
def test_an_answer_drops_every_automatic_notice_of_its_case_that_has_not_gone_out(
    story_with: Callable[..., Story], stale: str
) -> None:
    assert stale in SUPERSEDES["answered"]
    story = story_with(automatic_between_human=9)
    story.opened("08:00")
    match stale:
        case "escalated":
            story.delivered("08:00:01").escalated("08:10")
        case "need_info":
            story.delivered("08:00:01")
            story.moved("08:10", "on_hold", waiting_on="customer", detail="Which order?")
        case "still_on_it":
            story.delivered("08:00:01").agreed("08:01", what="update", by="2026-11-24T10:00:00Z")
            story.followed_up("09:30")
        case "delayed":
            story.delivered("08:00:01").breached("09:30")
        case "solved":
            story.delivered("08:00:01").solved("09:30", with_answer=False)
        case "reopened":
            story.delivered("08:00:01").solved("09:00", with_answer=True).reopened("09:30")
    assert story.said[-1][0] == stale
    story.refused("09:31").answered("09:31:30")
    story.then((stale, "suppressed", "superseded"), ("answered", "requested"))


def test_what_an_agent_wrote_and_security_are_stale_through_nothing() -> None:
    for stale in SUPERSEDES.values():
        assert not stale & {"answered", "security"}


def test_every_kind_of_notice_has_a_category() -> None:
    assert category_of("received") == "service"
    assert category_of("security") == "security"
    assert category_of("check_in") == "follow_up"
    assert category_of("outage_over") == "outage"
