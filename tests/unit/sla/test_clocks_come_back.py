"""Clocks that begin late, end and come back: they stand where they would have stood, and no time counts twice or not at all."""
# ruff: noqa: N802 — T14 and T20 are ids of promises, and written as elsewhere.

from datetime import timedelta
from typing import Any

import pytest

from hours.calendar import CalendarError
from schemas.routing import OfferMade, TicketQueued
from schemas.sla import SlaEvent, TargetCancelled, TargetMet, TimeAttributed
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketCustomerDescribed,
    TicketEscalated,
    TicketMerged,
    TicketMessageAdded,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketReturned,
    TicketSolved,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from services.sla.core.book import Remark
from services.sla.core.policy import Policy
from services.sla.core.recount import Recount
from tests.unit.sla.clockwork import DAYS, OFFICE, Story, at, make_policy, told

STANDARD: dict[str, Any] = {
    "calendar": "24/7",
    "first_response": {"within": "1h"},
    "next_response": {"within": "2h"},
    "periodic_update": {"within": "4h"},
    "resolution": {"within": "8h", "pauses": ["pending", "third_party"]},
    "tiers": {"front": "3h"},
}
POLICY = make_policy(
    {
        "standard": STANDARD,
        "less": {"calendar": "24/7", "first_response": {"within": "1h"}},
        "gold": {
            "calendar": "24/7",
            "first_response": {"within": "10m"},
            "next_response": {"within": "20m"},
            "resolution": {"within": "1h"},
        },
    },
    more={
        "tiers": {"front": ["service"]},
        "rules": [
            {"when": {"priority": 4}, "policy": "less"},
            {"when": {"customer_tier": "gold"}, "policy": "gold"},
            {"when": {"tag": "less"}, "policy": "less"},
        ],
    },
)


def opened(when: str = "09:00:00", priority: int = 3, policy: Policy = POLICY) -> Story:
    return Story(policy).then(told(TicketOpened, at(when), priority=priority))


def status(when: str, after: str, before: str = "assigned", **fields: Any) -> TicketStatusChanged:
    return told(TicketStatusChanged, at(when), before=before, status=after, **fields)


def urgent(when: str, priority: int) -> TicketPrioritised:
    return told(TicketPrioritised, at(when), priority=priority)


# ------------------------------------------------------------------------------ pauses meanwhile


def test_a_clock_that_comes_back_is_not_held_by_what_is_over() -> None:
    story = opened().then(
        status("10:00:00", "pending"),
        urgent("10:10:00", 4),
        status("10:20:00", "queued", "pending"),
        urgent("10:30:00", 3),
    )
    target = story.target("resolution")
    assert (target.status, target.due_at) == ("running", at("17:20:00"))
    story.tick(at("17:20:00"))
    assert story.target("resolution").status == "breached"


def test_a_clock_that_comes_back_has_stood_while_it_was_promised_no_more() -> None:
    story = opened().then(
        urgent("10:00:00", 4),
        status("10:10:00", "pending"),
        status("16:10:00", "queued", "pending"),
        urgent("16:20:00", 3),
    )
    assert story.target("resolution").due_at == at("23:00:00")


def test_a_clock_that_comes_back_stands_since_the_ticket_does() -> None:
    story = opened().then(
        urgent("10:00:00", 4), status("10:10:00", "pending"), urgent("11:00:00", 3)
    )
    target = story.target("resolution")
    assert (target.status, target.watch.paused_at) == ("paused", at("10:10:00"))
    story.then(status("12:10:00", "queued", "pending"))
    assert story.target("resolution").due_at == at("19:00:00")


def test_another_cause_than_the_one_it_left_with_counts_from_its_own_instant() -> None:
    story = opened().then(
        status("10:00:00", "pending"),
        urgent("10:10:00", 4),
        status("10:30:00", "queued", "pending"),
        status("11:00:00", "on_hold", "queued", waiting_on="carrier"),
        urgent("12:00:00", 3),
    )
    watch = story.target("resolution").watch
    assert watch.spans == ((at("10:00:00"), at("10:30:00")),)
    assert watch.holds == (("third_party", at("11:00:00")),)


def test_a_clock_that_begins_late_leaves_out_the_pauses_before_that() -> None:
    story = opened("01:00:00", 4).then(
        status("02:00:00", "pending"),
        status("12:00:00", "queued", "pending"),
        urgent("12:10:00", 3),
    )
    assert story.target("resolution").due_at == at("19:00:00")


def test_a_clock_that_begins_late_stands_from_when_the_ticket_did_and_not_from_its_start() -> None:
    story = opened("01:00:00", 4).then(status("12:00:00", "pending"), urgent("12:10:00", 3))
    assert story.target("resolution").watch.paused_at == at("12:00:00")
    story.tick(at("12:10:00"))
    broken = story.target("resolution")
    assert (broken.status, broken.due_at) == ("breached", at("09:00:00"))


# ------------------------------------------------------------------------------- while set aside


@pytest.mark.parametrize("way", ["spam", "merged"])
def test_what_a_ticket_became_while_it_was_set_aside_counts_when_it_is_back(way: str) -> None:
    there: dict[str, Any] = {
        "spam": status("09:01:00", "spam", "queued"),
        "merged": told(TicketMerged, at("09:01:00")),
    }
    back: dict[str, Any] = {
        "spam": status("09:03:00", "queued", "spam"),
        "merged": told(
            TicketUnmerged, at("09:03:00"), opened_at=at("09:00:00"), waiting_since=None
        ),
    }
    described = told(TicketCustomerDescribed, at("09:02:00"), tier="gold", contract=None)
    story = opened().then(there[way], described, urgent("09:02:30", 1), back[way])
    target = story.target("first_response")
    assert (target.policy, target.priority, target.due_at) == ("gold", 1, at("09:10:00"))
    story = opened().then(there[way], told(TicketTagged, at("09:02:00"), tags=["less"]), back[way])
    assert story.target("first_response").policy == "less"
    assert story.target("resolution").status == "cancelled"


@pytest.mark.parametrize("way", ["spam", "merged"])
def test_another_priority_while_it_was_set_aside_counts_when_it_is_back(way: str) -> None:
    by_priority = make_policy(
        {
            "standard": {
                "calendar": "24/7",
                "first_response": {"within": "1h"},
                "priorities": {1: {"first_response": {"within": "5m"}}},
            }
        }
    )
    there = told(TicketMerged, at("09:01:00")) if way == "merged" else status("09:01:00", "spam")
    back = (
        told(TicketUnmerged, at("09:03:00"), opened_at=at("09:00:00"), waiting_since=None)
        if way == "merged"
        else status("09:03:00", "queued", "spam")
    )
    story = opened(policy=by_priority).then(there, urgent("09:02:00", 1), back)
    target = story.target("first_response")
    assert (target.priority, target.due_at) == (1, at("09:05:00"))


def test_a_message_to_a_ticket_that_is_spam_waits_until_it_is_back() -> None:
    story = opened().then(
        told(TicketAnswered, at("09:10:00")),
        status("09:20:00", "spam"),
        told(TicketMessageAdded, at("09:30:00"), status="spam", from_conversation_id=None),
    )
    assert story.state is not None
    assert not any(one.is_open for one in story.state.tickets[0].targets)
    story.then(status("09:40:00", "queued", "spam"))
    target = story.target("next_response")
    assert (target.status, target.watch.started_at) == ("running", at("09:30:00"))


# --------------------------------------------------------------------------------- budgets, terms


def test_a_tier_goes_on_with_what_was_left_of_its_budget_once_it_is_promised_again() -> None:
    story = opened().then(urgent("11:00:00", 4), urgent("11:01:00", 3))
    target = story.target("tier")
    assert (target.status, target.allowed) == ("running", timedelta(hours=1))
    story.then(
        told(TicketEscalated, at("11:02:00"), from_queue="service", to_queue="technical"),
        told(TicketReturned, at("11:03:00"), from_queue="technical", to_queue="service"),
    )
    assert story.target("tier").allowed == timedelta(minutes=59)


def retargeting(version: str, *kinds: str) -> Policy:
    known = {name: STANDARD[name] for name in ("calendar", "first_response", *kinds)}
    more = {"tiers": {"front": ["service"]}}
    return make_policy({"standard": known | {"policy_change": "retarget"}}, version, more)


def test_a_mistake_in_a_policy_is_undone_by_the_next_one() -> None:
    whole = ("resolution", "tiers")
    story = opened(policy=retargeting("v1", *whole))
    story.recount(at("10:00:00"), policy=retargeting("v2"))
    assert {story.target(kind).status for kind in ("resolution", "tier")} == {"cancelled"}
    story.recount(at("10:10:00"), policy=retargeting("v3", *whole))
    resolution = story.target("resolution")
    assert (resolution.status, resolution.due_at) == ("running", at("17:00:00"))
    tier = story.target("tier")
    assert (tier.status, tier.allowed) == ("running", timedelta(hours=2))
    story.recount(at("10:20:00"))
    assert story.told == ()


def test_a_message_older_than_the_solution_reopens_and_counts_no_time_twice() -> None:
    story = opened().then(
        told(TicketAnswered, at("10:30:00")),
        told(TicketSolved, at("11:00:00"), with_answer=False),
    )
    reopened = told(TicketReopened, at("11:05:00"), occurred_at=at("10:00:00"))
    story.heard(reopened, at("11:05:00"))
    resolution = story.target("resolution")
    assert (resolution.watch.started_at, resolution.due_at) == (at("11:00:00"), at("17:00:00"))
    assert story.target("tier").watch.started_at == at("11:00:00")
    assert story.target("next_response").watch.started_at == at("10:00:00")


def test_an_answer_that_solves_does_not_keep_the_promise_that_it_gave() -> None:
    story = opened().then(
        told(TicketAnswered, at("09:10:00")),
        told(TicketSolved, at("09:10:00"), with_answer=True),
    )
    assert not [e for e in story.all if isinstance(e, TargetMet) and e.target == "periodic_update"]
    (ended,) = (e for e in story.all if isinstance(e, TargetCancelled))
    assert (ended.target, ended.reason) == ("periodic_update", "solved")


# ---------------------------------------------------------------------------------- out of order


def test_T14_the_clock_counts_from_the_oldest_message_that_an_answer_leaves_waiting() -> None:
    story = opened().then(told(TicketAnswered, at("09:05:00")))
    for when in ("10:00:00", "10:20:00", "10:30:00"):
        story.then(told(TicketMessageAdded, at(when), from_conversation_id=None))
    late = told(TicketAnswered, at("10:40:00"), occurred_at=at("10:15:00"))
    story.heard(late, at("10:40:00"))
    target = story.target("next_response")
    assert (target.status, target.watch.started_at) == ("running", at("10:20:00"))


def test_a_message_heard_of_after_a_later_answer_counts_as_answered() -> None:
    story = opened().then(told(TicketAnswered, at("10:00:00")))
    crossed = told(
        TicketMessageAdded,
        at("12:30:00"),
        occurred_at=at("09:59:00"),
        from_conversation_id=None,
    )
    story.heard(crossed, at("12:30:00"))
    assert story.told == ()
    # An earlier answer that is heard of later changes nothing about that, and hides no later message.
    story.heard(told(TicketAnswered, at("12:31:00"), occurred_at=at("09:30:00")), at("12:31:00"))
    story.heard(crossed.model_copy(update={"occurred_at": at("09:58:00")}), at("12:32:00"))
    assert story.told == ()
    later = crossed.model_copy(update={"occurred_at": at("10:00:00.000001")})
    story.heard(later, at("12:33:00"))
    assert story.target("next_response").watch.started_at == at("10:00:00.000001")


def test_an_answer_in_time_that_is_heard_of_after_the_case_was_solved_tells_its_time_again() -> (
    None
):
    story = opened().then(told(TicketSolved, at("10:30:00"), with_answer=False))
    story.heard(told(TicketAnswered, at("10:31:00"), occurred_at=at("09:30:00")), at("10:31:00"))
    (again,) = (one for one in story.told if isinstance(one, TimeAttributed))
    assert (again.target, again.outcome, again.was_breached) == (
        "first_response",
        "cancelled",
        False,
    )


# ----------------------------------------------------------------------------- impossible instants


def test_a_clock_of_the_router_that_is_far_ahead_moves_nothing_into_the_future() -> None:
    ahead = told(TicketAnswered, at("12:00:00"))
    story = opened().heard(ahead, at("09:00:10"))
    (met,) = (one for one in story.told if isinstance(one, TargetMet))
    assert (met.met_at, met.is_clamped) == (at("09:00:10"), True)
    assert story.last.remarks == (Remark.FUTURE_INSTANT,)
    # Equal clocks are a moment apart, and that is no future.
    near = told(TicketAnswered, at("09:00:10.9"))
    (met,) = (
        one for one in opened().heard(near, at("09:00:10")).told if isinstance(one, TargetMet)
    )
    assert (met.met_at, met.is_clamped) == (at("09:00:10.9"), False)


def test_a_clock_of_assignment_that_is_ahead_moves_nothing_into_the_future() -> None:
    policy = make_policy(
        {"standard": STANDARD | {"time_to_offer": {"within": "10m"}}},
        more={"tiers": {"front": ["service"]}},
    )
    ahead = told(TicketQueued, at("2026-12-24T09:00:00+00:00"), work_id="w1", record=None)
    story = opened(policy=policy).heard(ahead, at("09:00:05"))
    assert story.target("time_to_offer").watch.started_at == at("09:00:05")
    assert {one.is_clamped for one in story.told if isinstance(one, SlaEvent)} == {True}
    assert story.last.remarks == (Remark.FUTURE_INSTANT,)
    assert story.state is not None
    assert [mark.at for mark in story.state.tickets[0].timeline.marks] == [at("09:00:05")]


@pytest.mark.parametrize("waited", [-5.0, 1e9, 1e15])
def test_a_wait_that_nothing_can_have_counted_is_bounded(waited: float) -> None:
    policy = make_policy(
        {"standard": STANDARD | {"time_to_offer": {"within": "10m"}}},
        more={"tiers": {"front": ["service"]}},
    )
    made = told(
        OfferMade, at("09:00:05"), work_id="w1", agent_id="ada", waited_seconds=waited, record=None
    )
    met = opened(policy=policy).then(made).target("time_to_offer")
    assert (met.status, met.elapsed) == ("met", timedelta(seconds=0 if waited < 0 else 5))


def test_a_deadline_of_another_case_that_utc_has_no_name_for_is_refused() -> None:
    dues = {"callback": "9999-12-31T23:59:59-05:00"}
    with pytest.raises(CalendarError, match="an instant from 1900 to 2500"):
        opened().then(told(TicketAbsorbed, at("09:10:00"), dues=dues))


# ------------------------------------------------------------------------------------- other hours


def by_hours(calendar: dict[str, Any], version: str, goes_by: str = "team") -> Policy:
    standard = {
        "calendar": goes_by,
        "first_response": {"within": "4h"},
        "resolution": {"within": "8h"},
    }
    looks = {"at_risk": {"probability": 0.5, "looks": [0.25, 0.5, 0.65]}}
    return make_policy({"standard": standard}, version, looks, team=calendar)


def test_a_calendar_that_opens_no_more_ends_the_looks_and_nothing_else() -> None:
    once: dict[str, Any] = {
        "timezone": "UTC",
        "hours": {},
        "dates": {"2026-11-25": [["09:00", "10:00"]]},
    }
    story = opened(policy=by_hours(OFFICE, "v1"))
    assert story.next_due == at("10:00:00")
    due_at = story.target("first_response").due_at
    story.policy = by_hours(once, "v2", "office")
    story.tick(at("10:00:00"))
    target = story.target("first_response")
    assert (target.status, target.due_at, target.look_at) == ("running", due_at, None)


def test_T20_the_earliest_promise_of_merged_cases_is_the_earliest_by_the_new_hours() -> None:
    """The other case waited all Monday: by the longer hours of that day it leaves less time than ours."""
    story = opened(policy=by_hours(OFFICE, "v1"))
    other = told(
        TicketAbsorbed,
        at("10:00:00"),
        other_opened_at=at("2026-11-23T09:00:00+00:00"),
        waiting_since=None,
        dues={"resolution": at("2026-11-25T09:30:00+00:00")},
        priority=3,
    )
    story.then(other)
    assert story.target("resolution").due_at == at("17:00:00")
    longer = {
        "timezone": "UTC",
        "hours": {day: [["09:00", "17:00"]] for day in DAYS},
        "dates": {"2026-11-23": [["09:00", "21:00"]]},
    }
    story.recount(at("10:30:00"), Recount(), by_hours(longer, "v2"))
    assert story.target("resolution").due_at == at("13:30:00")
