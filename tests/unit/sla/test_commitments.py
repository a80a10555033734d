"""What a person promised: to write again, and to call. N5, and what counts as keeping it."""
# ruff: noqa: N802 — N5 is the id of a promise, and written as elsewhere.

from datetime import datetime, timedelta
from typing import Any

import pytest

from schemas.sla import (
    BreachRetracted,
    SlaEvent,
    TargetAtRisk,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetRetargeted,
    TargetStarted,
)
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketCalled,
    TicketClosed,
    TicketMerged,
    TicketMessageAdded,
    TicketNoteAdded,
    TicketOpened,
    TicketPromised,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
    TicketUnmerged,
)
from services.sla.core.book import Ignored
from services.sla.core.policy import Policy
from tests.unit.sla.clockwork import Story, at, make_policy, told

STANDARD: dict[str, Any] = {
    "calendar": "office",
    "warn_at": 0.5,
    "periodic_update": {"within": "4h", "pauses": ["pending"]},
}


def policy_of(**more: Any) -> Policy:
    return make_policy({"standard": STANDARD | more})


def opened(policy: Policy | None = None, **fields: Any) -> Story:
    return Story(policy or policy_of()).then(told(TicketOpened, at("09:00"), **fields))


def answered(when: str, by: datetime | None = None) -> TicketAnswered:
    return told(TicketAnswered, at(when), next_update_by=by)


def promised(when: str, what: str, by: datetime, not_before: datetime | None = None) -> Any:
    return told(TicketPromised, at(when), what=what, by=by, not_before=not_before)


def called(when: str, outcome: str = "reached") -> TicketCalled:
    return told(TicketCalled, at(when), outcome=outcome)


def clock_events(story: Story) -> list[type[SlaEvent]]:
    return [type(one) for one in story.told if isinstance(one, SlaEvent)]


def the(story: Story, kind: type[Any]) -> Any:
    found = [one for one in story.told if isinstance(one, kind)]
    assert len(found) == 1
    return found[0]


# ------------------------------------------------------------------------------------ periodic update


def test_an_answer_begins_the_time_to_the_next_update_and_the_next_answer_meets_it() -> None:
    story = opened()
    assert clock_events(story) == []
    story.then(answered("09:30"))
    started = the(story, TargetStarted)
    assert (started.target, started.due_at) == ("periodic_update", at("13:30"))
    story.then(answered("11:00"))
    assert clock_events(story) == [TargetMet, TargetStarted]
    assert the(story, TargetMet).elapsed_seconds == 5400.0
    assert the(story, TargetStarted).due_at == at("15:00")


def test_an_update_counts_by_its_calendar_and_its_pauses() -> None:
    story = opened().then(answered("15:00"))
    assert the(story, TargetStarted).due_at == at("2026-11-25T11:00:00+00:00")
    held = told(TicketStatusChanged, at("16:00"), before="assigned", status="pending")
    back = told(TicketStatusChanged, at("16:30"), before="pending", status="queued")
    story.then(held, back)
    assert story.target("periodic_update").due_at == at("2026-11-25T11:30:00+00:00")


def test_N5_a_promise_to_write_by_three_is_a_timer_and_missing_it_is_a_breach() -> None:
    story = opened().then(answered("10:00", by=at("15:00")))
    started = the(story, TargetStarted)
    assert (started.due_at, started.warn_at, started.seconds) == (at("15:00"), at("12:30"), 18000)
    story.tick(at("12:30"))
    assert clock_events(story) == [TargetAtRisk]
    assert story.next_due == at("15:00")
    story.tick(at("15:00:00.5"))
    breached = the(story, TargetBreached)
    assert (breached.breached_at, breached.detected_at) == (at("15:00"), at("15:00:00.5"))
    story.then(answered("15:10"))
    assert the(story, TargetMet).was_breached is True


def test_N5_the_promise_is_kept_at_its_instant_and_broken_a_millisecond_later() -> None:
    story = opened().then(answered("10:00", by=at("15:00")), answered("15:00"))
    assert the(story, TargetMet).was_breached is False
    story = opened().then(answered("10:00", by=at("15:00")), answered("15:00:00.001"))
    assert clock_events(story)[:2] == [TargetBreached, TargetMet]


def test_N5_a_promise_holds_at_night_and_through_a_pause_whatever_the_policy_says() -> None:
    by = at("2026-11-25T03:00:00+00:00")
    story = opened(policy_of(periodic_update=None)).then(
        answered("10:00", by=by),
        told(TicketStatusChanged, at("11:00"), before="assigned", status="pending"),
    )
    assert story.target("periodic_update").due_at == by
    assert story.tick(by).told[0].breached_at == by  # type: ignore[attr-defined]


def test_N5_an_answer_in_time_that_is_heard_late_takes_the_breach_back() -> None:
    story = opened().then(answered("10:00", by=at("15:00"))).tick(at("15:00"))
    story.heard(answered("14:59"), at("15:07"))
    assert clock_events(story) == [BreachRetracted, TargetMet, TargetStarted]


def test_what_is_no_answer_of_ours_is_no_update() -> None:
    story = opened().then(answered("10:00"))
    for event in (
        told(TicketNoteAdded, at("10:30")),
        told(TicketMessageAdded, at("10:31"), is_automatic=True, kind="auto_reply"),
        told(TicketMessageAdded, at("10:32")),
    ):
        story.then(event)
        assert TargetMet not in clock_events(story)
    story.then(told(TicketAnsweredElsewhere, at("10:40")))
    assert clock_events(story) == [TargetMet, TargetStarted]


def test_a_later_promise_takes_the_place_of_an_earlier_one_on_the_same_clock() -> None:
    story = opened().then(answered("10:00", by=at("15:00")))
    first = story.target("periodic_update").target_id
    story.then(promised("11:00", "update", at("17:30")))
    moved = the(story, TargetRetargeted)
    assert (moved.target_id, moved.reason) == (first, "promise_changed")
    assert (moved.before_due_at, moved.due_at) == (at("15:00"), at("17:30"))
    assert (moved.before_seconds, moved.seconds) == (18000.0, 27000.0)
    assert moved.started_at == at("10:00")
    story.tick(at("15:00"))
    assert TargetBreached not in clock_events(story)
    assert the(story.tick(at("17:30")), TargetBreached).breached_at == at("17:30")


def test_a_promise_moves_a_clock_of_the_policy_that_stood_to_its_instant() -> None:
    held = told(TicketStatusChanged, at("11:00"), before="assigned", status="pending")
    story = opened().then(answered("10:00"), held, promised("12:00", "update", at("14:00")))
    assert the(story, TargetRetargeted).due_at == at("14:00")
    assert story.target("periodic_update").status == "running"
    back = told(TicketStatusChanged, at("12:30"), before="pending", status="queued")
    assert story.then(back).target("periodic_update").due_at == at("14:00")


def test_after_a_broken_promise_another_one_has_a_clock_of_its_own() -> None:
    story = opened().then(answered("10:00", by=at("11:00"))).tick(at("11:00"))
    first = story.target("periodic_update").target_id
    story.then(promised("11:30", "update", at("12:00")))
    assert clock_events(story) == [TargetCancelled, TargetStarted]
    assert the(story, TargetCancelled).reason == "promise_changed"
    assert story.target("periodic_update").target_id != first
    assert the(story.tick(at("12:00")), TargetBreached).breached_at == at("12:00")


def test_a_broken_promise_nobody_noticed_is_told_before_the_next() -> None:
    story = opened().then(answered("10:00", by=at("11:00")))
    story.then(promised("11:30", "update", at("12:00")))
    assert clock_events(story) == [TargetBreached, TargetCancelled, TargetStarted]


def test_a_promise_for_the_past_is_none() -> None:
    story = opened().then(promised("11:00", "update", at("11:00")))
    assert story.last.ignored == Ignored.PROMISE_PAST
    story.then(answered("11:00", by=at("10:59")))
    assert the(story, TargetStarted).due_at == at("15:00")


def test_solving_ends_what_was_promised() -> None:
    story = opened().then(
        answered("10:00", by=at("15:00")), promised("10:01", "callback", at("16:00"))
    )
    story.then(told(TicketSolved, at("11:00"), with_answer=False))
    ended = [one for one in story.told if isinstance(one, TargetCancelled)]
    assert {(one.target, one.reason) for one in ended} == {
        ("periodic_update", "solved"),
        ("callback", "solved"),
    }
    assert story.then(answered("11:30", by=at("17:00"))).target("periodic_update").is_open is False


def test_solving_with_an_answer_keeps_the_promise_to_write() -> None:
    story = opened().then(answered("10:00"), told(TicketSolved, at("11:00"), with_answer=True))
    assert clock_events(story) == [TargetMet]


# ---------------------------------------------------------------------------------------- callbacks


def test_a_promised_call_is_due_at_the_end_of_its_time_and_reaching_the_customer_keeps_it() -> None:
    story = opened().then(promised("10:00", "callback", at("14:00"), not_before=at("13:00")))
    started = the(story, TargetStarted)
    assert (started.target, started.due_at) == ("callback", at("14:00"))
    story.then(called("13:20"))
    met = the(story, TargetMet)
    assert (met.met_at, met.was_breached) == (at("13:20"), False)


def test_a_call_before_the_agreed_time_does_not_count() -> None:
    story = opened().then(promised("10:00", "callback", at("14:00"), not_before=at("13:00")))
    story.then(called("12:59:59"))
    assert story.last.ignored == Ignored.CALL_TOO_EARLY
    assert clock_events(story.then(called("13:00"))) == [TargetMet]


@pytest.mark.parametrize(
    ("counts", "outcome", "is_kept"),
    [
        (None, "reached", True),
        (None, "voicemail", False),
        (None, "no_answer", False),
        (["reached", "voicemail"], "voicemail", True),
        (["reached", "voicemail"], "no_answer", False),
    ],
)
def test_only_a_call_with_an_outcome_that_counts_keeps_the_promise(
    counts: list[str] | None, outcome: str, is_kept: bool
) -> None:
    more = {} if counts is None else {"callback": {"counts": counts}}
    story = opened(policy_of(**more)).then(promised("10:00", "callback", at("14:00")))
    story.then(called("13:00", outcome))
    assert (clock_events(story) == [TargetMet]) is is_kept
    if not is_kept:
        assert story.last.ignored == Ignored.CALL_DOES_NOT_COUNT


def test_a_call_that_was_never_made_is_a_breach_and_one_heard_late_takes_it_back() -> None:
    story = opened().then(promised("10:00", "callback", at("14:00"))).tick(at("14:00"))
    assert clock_events(story) == [TargetBreached]
    story.heard(called("13:59"), at("14:06"))
    assert clock_events(story) == [BreachRetracted, TargetMet]


def test_an_answer_keeps_the_promise_of_a_call_only_where_it_is_spoken() -> None:
    story = opened().then(promised("10:00", "callback", at("14:00")), answered("11:00"))
    assert story.target("callback").is_open
    contact = TicketOpened.EXAMPLE["contact"] | {"channel": "voip"}
    story = opened(contact=contact).then(
        promised("10:00", "callback", at("14:00")), answered("11:00")
    )
    assert story.target("callback").status == "met"


def test_a_call_changes_nothing_that_waits_for_an_answer() -> None:
    story = opened(policy_of(first_response={"within": "4h"})).then(called("10:00"))
    assert story.last.ignored == Ignored.NOTHING_RUNS


# ------------------------------------------------------------------------- merged cases, and the end


def absorbed(when: str, due_at: str | None, **more: Any) -> TicketAbsorbed:
    dues = {} if due_at is None else {"callback": at(due_at)}
    return told(TicketAbsorbed, at(when), priority=3, dues=dues, **more)


def test_T22_a_promised_call_of_a_merged_case_is_owed_here_and_no_more_once_it_is_split_off() -> (
    None
):
    story = opened().then(absorbed("10:00", "14:00"))
    assert (the(story, TargetStarted).target, the(story, TargetStarted).due_at) == (
        "callback",
        at("14:00"),
    )
    story.then(told(TicketSplitOff, at("11:00")))
    assert the(story, TargetCancelled).reason == "split_off"
    assert story.next_due is None


def test_T22_of_two_promised_calls_the_earlier_survives_and_a_split_gives_the_own_one_back() -> (
    None
):
    story = opened().then(promised("09:30", "callback", at("16:00")), absorbed("10:00", "14:00"))
    assert (the(story, TargetRetargeted).reason, the(story, TargetRetargeted).due_at) == (
        "absorbed",
        at("14:00"),
    )
    story.then(told(TicketSplitOff, at("11:00")))
    assert the(story, TargetRetargeted).due_at == at("16:00")


def test_T22_a_later_promise_replaces_those_of_both_cases() -> None:
    story = opened().then(
        absorbed("10:00", "14:00"),
        promised("10:30", "callback", at("15:00")),
        told(TicketSplitOff, at("11:00")),
    )
    assert story.target("callback").due_at == at("15:00")
    assert story.target("callback").is_open


def test_T22_a_merged_ticket_owes_no_call_and_unmerged_it_does_again() -> None:
    story = opened().then(promised("09:30", "callback", at("16:00")))
    story.then(told(TicketMerged, at("10:00")))
    assert the(story, TargetCancelled).reason == "merged"
    story.then(told(TicketUnmerged, at("11:00"), waiting_since=None, opened_at=at("09:00")))
    assert story.target("callback").due_at == at("16:00")
    assert story.target("callback").is_open


def test_closing_ends_a_promise() -> None:
    story = opened().then(
        promised("09:30", "callback", at("16:00")), told(TicketClosed, at("10:00"))
    )
    assert [one.reason for one in story.told if isinstance(one, TargetCancelled)] == ["closed"]
    assert story.state is None


def test_an_instant_in_the_future_is_clamped_and_the_event_says_so() -> None:
    event = told(TicketAnswered, at("10:00"), occurred_at=at("12:00"))
    story = opened(policy_of(first_response={"within": "4h"})).heard(event, at("10:00:01"))
    met = the(story, TargetMet)
    assert (met.met_at, met.is_clamped) == (at("10:00:01"), True)
    story.then(answered("11:00"))
    assert {one.is_clamped for one in story.told if isinstance(one, SlaEvent)} == {False}


def test_later_replies_go_by_a_target_of_their_own() -> None:
    policy = policy_of(
        periodic_update=None,
        first_response={"within": "1h"},
        next_response={"within": "2h"},
        later_response={"within": "3h"},
    )
    story = opened(policy).then(answered("09:10"))
    kinds = []
    for minute in (20, 30, 40):
        story.then(told(TicketMessageAdded, at(f"09:{minute}")))
        started = the(story, TargetStarted)
        kinds.append((started.target, started.due_at - at(f"09:{minute}")))
        story.then(answered(f"09:{minute + 5}"))
        assert the(story, TargetMet).target == started.target
    assert kinds == [
        ("next_response", timedelta(hours=2)),
        ("later_response", timedelta(hours=3)),
        ("later_response", timedelta(hours=3)),
    ]
