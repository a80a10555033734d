"""The way to a person, and each desk's budget: clocks that assignment and the queues move."""
# ruff: noqa: N802 — R14 is the id of a promise, and written as elsewhere.

from collections import Counter
from datetime import timedelta
from itertools import combinations
from typing import Any

import pytest

from schemas.payload import Payload
from schemas.routing import (
    OfferMade,
    OfferWithdrawn,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    WorkReleased,
)
from schemas.sla import (
    BreachRetracted,
    SlaEvent,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetRetargeted,
    TargetStarted,
)
from schemas.tickets import (
    TicketClosed,
    TicketEscalated,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketReturned,
    TicketSolved,
    TicketStatusChanged,
)
from services.sla.core.book import Ignored, Remark
from services.sla.core.early import EARLY_MAX, KEPT_FOR
from services.sla.core.policy import Policy
from tests.unit.sla.clockwork import Story, at, make_policy, told

WAYS: dict[str, Any] = {
    "calendar": "24/7",
    "warn_at": None,
    "time_to_offer": {"seconds": 60},
    "time_to_accept": {"seconds": 20},
}
TIERS = {"front_line": ["service"], "technical": ["technical", "lab"]}
BUDGETS: dict[str, Any] = {
    "calendar": "office",
    "warn_at": None,
    "resolution": {"within": "8h", "pauses": ["pending"]},
    "tiers": {"front_line": "2h", "technical": {"share": 0.5}},
}


def ways(**more: Any) -> Policy:
    return make_policy({"standard": WAYS | more})


def budgets(**more: Any) -> Policy:
    return make_policy({"standard": BUDGETS | more}, more={"tiers": TIERS})


def opened(policy: Policy, when: str = "09:00:00", **fields: Any) -> Story:
    return Story(policy).then(told(TicketOpened, at(when), **fields))


def queued(when: str, work: str = "w1", **fields: Any) -> TicketQueued:
    return told(TicketQueued, at(when), work_id=work, record=None, **fields)


def offered(when: str, agent: str = "ada", work: str = "w1", waited: float = 0) -> OfferMade:
    return told(
        OfferMade, at(when), agent_id=agent, work_id=work, waited_seconds=waited, record=None
    )


def assigned(when: str, agent: str = "ada", work: str = "w1") -> TicketAssigned:
    return told(TicketAssigned, at(when), agent_id=agent, work_id=work)


def requeued(when: str, reason: str = "offer_expired", work: str = "w1") -> TicketRequeued:
    return told(TicketRequeued, at(when), reason=reason, work_id=work)


def withdrawn(when: str, agent: str, reason: str, work: str = "w1") -> OfferWithdrawn:
    return told(OfferWithdrawn, at(when), agent_id=agent, reason=reason, work_id=work)


def moved(when: str, status: str, before: str = "assigned", **fields: Any) -> TicketStatusChanged:
    return told(TicketStatusChanged, at(when), before=before, status=status, **fields)


def life(story: Story) -> list[tuple[str, str]]:
    """What was told of each clock in this step: its kind, and the last word of the event's type."""
    return [(one.target, one.TYPE.split(".")[1]) for one in story.told if isinstance(one, SlaEvent)]


def the(story: Story, kind: type[Any]) -> Any:
    found = [one for one in story.told if isinstance(one, kind)]
    assert len(found) == 1
    return found[0]


# ---------------------------------------------------------------------------------- time to offer, accept


def test_a_ticket_waits_is_offered_and_taken() -> None:
    story = opened(ways()).then(queued("09:00:01"))
    started = the(story, TargetStarted)
    assert (started.target, started.due_at) == ("time_to_offer", at("09:01:01"))
    story.then(offered("09:00:41"))
    assert life(story) == [
        ("time_to_offer", "met"),
        ("time_to_accept", "started"),
    ]
    assert the(story, TargetMet).elapsed_seconds == 40.0
    assert the(story, TargetStarted).due_at == at("09:01:01")
    story.then(assigned("09:00:50"))
    assert life(story) == [("time_to_accept", "met")]
    assert the(story, TargetMet).elapsed_seconds == 9.0
    assert story.next_due is None


def test_an_offer_that_expires_ends_its_clock_and_the_ticket_waits_again() -> None:
    story = opened(ways()).then(queued("09:00:01"), offered("09:00:10"), requeued("09:00:25"))
    assert life(story) == [("time_to_accept", "cancelled"), ("time_to_offer", "started")]
    assert the(story, TargetCancelled).reason == "offer_expired"
    assert the(story, TargetStarted).due_at == at("09:01:25")


def test_nobody_accepting_in_time_is_a_breach_at_its_instant() -> None:
    story = opened(ways()).then(offered("09:00:10")).tick(at("09:00:30.002"))
    assert the(story, TargetBreached).breached_at == at("09:00:30")
    story.then(assigned("09:00:34"))
    assert the(story, TargetMet).was_breached is True


def test_somebody_free_at_once_is_an_offer_in_time_from_when_the_ticket_began_to_wait() -> None:
    story = opened(ways()).then(offered("09:00:05", waited=3.5))
    assert life(story) == [
        ("time_to_offer", "started"),
        ("time_to_offer", "met"),
        ("time_to_accept", "started"),
    ]
    assert the(story, TargetMet).elapsed_seconds == 3.5


def test_of_several_offers_at_once_the_oldest_has_the_clock_and_the_last_ends_it() -> None:
    story = opened(ways()).then(offered("09:00:01", "ada"), offered("09:00:04", "bo"))
    assert life(story) == []
    assert story.target("time_to_accept").due_at == at("09:00:21")
    story.then(withdrawn("09:00:08", "ada", "offer_declined"))
    assert life(story) == []
    story.then(withdrawn("09:00:09", "bo", "offer_declined"))
    assert (life(story), the(story, TargetCancelled).reason) == (
        [("time_to_accept", "cancelled")],
        "offer_declined",
    )


@pytest.mark.parametrize("is_first", [True, False])
def test_taken_by_one_of_several_is_taken_whichever_is_told_first(is_first: bool) -> None:
    taken = assigned("09:00:09", "ada")
    over = withdrawn("09:00:09", "bo", "taken_by_other")
    story = opened(ways()).then(offered("09:00:01", "ada"), offered("09:00:04", "bo"))
    story.then(*((taken, over) if is_first else (over, taken)))
    assert story.target("time_to_accept").status == "met"


def test_where_nobody_is_asked_the_assignment_is_the_offer() -> None:
    story = opened(ways()).then(queued("09:00:01"), assigned("09:00:31"))
    assert life(story) == [("time_to_offer", "met")]


@pytest.mark.parametrize("status", ["pending", "on_hold", "snoozed"])
def test_a_ticket_for_which_nobody_is_sought_has_no_such_clock(status: str) -> None:
    story = opened(ways()).then(queued("09:00:01"), moved("09:00:10", status))
    assert (life(story), the(story, TargetCancelled).reason) == (
        [("time_to_offer", "cancelled")],
        status,
    )
    story.then(moved("09:10:00", "queued", before=status), queued("09:10:00", "w2"))
    assert the(story, TargetStarted).due_at == at("09:11:00")


def test_solving_ends_the_way_and_reopening_begins_another() -> None:
    story = opened(ways()).then(queued("09:00:01"), told(TicketSolved, at("09:00:20")))
    assert ("time_to_offer", "cancelled") in life(story)
    story.then(told(TicketReopened, at("10:00")), queued("10:00:01", "w2"))
    assert the(story, TargetStarted).due_at == at("10:01:01")


def test_another_request_for_work_ends_the_clock_of_the_one_before() -> None:
    story = opened(ways()).then(queued("09:00:01"), queued("09:00:31", "w2"))
    assert life(story) == [("time_to_offer", "cancelled"), ("time_to_offer", "started")]
    assert the(story, TargetCancelled).reason == "moved"
    story.then(offered("09:00:40", work="w1"))
    assert life(story) == []


def test_what_is_told_of_a_released_agent_moves_no_clock() -> None:
    story = opened(ways()).then(told(WorkReleased, at("09:05:00")))
    assert life(story) == []


def test_an_offer_heard_after_its_assignment_starts_nothing() -> None:
    story = opened(ways()).heard(assigned("09:00:20"), at("09:00:20"))
    story.heard(offered("09:00:10"), at("09:00:21"))
    assert life(story) == []
    assert story.next_due is None


def test_a_breach_of_an_offer_is_taken_back_by_an_assignment_in_time_that_is_heard_late() -> None:
    story = opened(ways()).then(offered("09:00:10")).tick(at("09:00:30"))
    story.heard(assigned("09:00:29"), at("09:00:45"))
    assert [type(one) for one in story.told if isinstance(one, SlaEvent)] == [
        BreachRetracted,
        TargetMet,
    ]


# ------------------------------------------------------------------------------------------ early facts


def test_what_assignment_tells_before_the_ticket_is_heard_of_is_kept_and_applied_in_order() -> None:
    story = Story(ways())
    story.heard(queued("09:00:01"), at("09:00:02"))
    story.heard(offered("09:00:11"), at("09:00:12"))
    story.heard(assigned("09:00:15"), at("09:00:16"))
    assert story.all == []
    story.heard(told(TicketOpened, at("09:00:00")), at("09:00:20"))
    assert life(story) == [
        ("time_to_offer", "started"),
        ("time_to_offer", "met"),
        ("time_to_accept", "started"),
        ("time_to_accept", "met"),
    ]
    assert [one.elapsed_seconds for one in story.told if isinstance(one, TargetMet)] == [10.0, 4.0]
    assert story.state is not None
    assert story.state.early == ()


def test_what_nobody_comes_for_is_forgotten_after_ten_minutes_and_said_to_be() -> None:
    story = Story(ways()).heard(queued("09:00:01"), at("09:00:02"))
    assert story.next_due == at("09:00:02") + KEPT_FOR
    story.tick(at("09:10:02"))
    assert story.state is None
    assert story.last.remarks == (Remark.EARLY_FORGOTTEN,)


def test_what_follows_nothing_is_about_a_ticket_of_the_past_and_ignored() -> None:
    story = Story(ways()).heard(assigned("09:00:01"), at("09:00:02"))
    assert (story.last.ignored, story.state) == (Ignored.TICKET_UNKNOWN, None)
    story = opened(ways()).then(told(TicketClosed, at("10:00")))
    story.heard(requeued("09:59:59"), at("10:00:01"))
    assert story.last.ignored == Ignored.TICKET_UNKNOWN


def test_early_facts_are_few_and_one_too_many_is_said_to_be_lost() -> None:
    story = Story(ways())
    for second in range(EARLY_MAX):
        story.heard(queued(f"09:00:{second:02}", f"w{second}"), at("09:01:00"))
    story.heard(queued("09:00:59", "one more"), at("09:01:00"))
    assert story.last.ignored == Ignored.TOO_MANY_EARLY
    assert story.last.remarks == (Remark.EARLY_LOST,)


def test_an_early_fact_told_twice_is_kept_once() -> None:
    story = Story(ways())
    for _ in range(2):
        story.heard(queued("09:00:01"), at("09:00:02"))
    assert story.last.ignored == Ignored.NOTHING_RUNS


def test_a_solved_ticket_that_assignment_is_seeking_somebody_for_waits_to_be_reopened() -> None:
    story = opened(ways()).then(told(TicketSolved, at("09:10:00")))
    story.heard(queued("09:20:02", "w2"), at("09:20:02"))
    assert life(story) == []
    story.heard(told(TicketReopened, at("09:20:00")), at("09:20:03"))
    assert ("time_to_offer", "started") in life(story)
    story = opened(ways()).then(told(TicketSolved, at("09:10:00")))
    story.heard(queued("09:09:59", "w2"), at("09:10:02"))
    assert life(story) == [("time_to_offer", "started"), ("time_to_offer", "cancelled")]
    assert the(story, TargetCancelled).at == at("09:10:00")


@pytest.mark.parametrize(
    ("taken_at", "broken"), [("09:00:31", set()), ("09:00:31.001", {"time_to_accept"})]
)
def test_R14_the_verdict_is_the_same_however_the_two_topics_interleave(
    taken_at: str, broken: set[str]
) -> None:
    """Within a topic the order is kept; between the two any is possible."""
    tickets: list[Payload] = [told(TicketOpened, at("09:00:00")), moved("09:30:00", "pending")]
    routing: list[Payload] = [queued("09:00:01"), offered("09:00:11"), assigned(taken_at)]
    for places in combinations(range(5), 2):
        story = Story(ways())
        mine, theirs = iter(tickets), iter(routing)
        for place in range(5):
            story.heard(next(mine) if place in places else next(theirs), at("09:30:00"))
        standing = Counter(one.target for one in story.all if isinstance(one, TargetBreached))
        standing -= Counter(one.target for one in story.all if isinstance(one, BreachRetracted))
        assert set(standing) == broken, places
        assert story.next_due is None, places


# ------------------------------------------------------------------------------------------------ tiers


def escalated(when: str) -> TicketEscalated:
    return told(TicketEscalated, at(when), from_queue="service", to_queue="technical")


def returned(when: str) -> TicketReturned:
    return told(
        TicketReturned, at(when), from_queue="technical", to_queue="service", what="escalation"
    )


def test_each_tier_has_its_budget_and_leaving_meets_it() -> None:
    story = opened(budgets())
    started = [one for one in story.told if isinstance(one, TargetStarted)]
    assert [(one.target, one.tier, one.seconds) for one in started] == [
        ("resolution", "", 28800.0),
        ("tier", "front_line", 7200.0),
    ]
    story.then(escalated("10:30:00"))
    assert life(story) == [("tier", "met"), ("tier", "started")]
    assert the(story, TargetMet).elapsed_seconds == 5400.0
    assert (the(story, TargetStarted).tier, the(story, TargetStarted).seconds) == (
        "technical",
        14400.0,
    )


def test_coming_back_goes_on_with_what_was_left_of_the_budget() -> None:
    story = opened(budgets()).then(escalated("10:30:00"), returned("11:00:00"))
    assert (the(story, TargetStarted).tier, the(story, TargetStarted).seconds) == (
        "front_line",
        1800.0,
    )
    assert the(story.tick(at("11:30:00")), TargetBreached).tier == "front_line"


def test_a_budget_that_was_broken_is_broken_once() -> None:
    story = opened(budgets()).tick(at("11:00:00"))
    assert the(story, TargetBreached).target == "tier"
    story.then(escalated("12:00:00"), returned("12:30:00"))
    assert life(story) == [("tier", "met")]
    assert the(story, TargetMet).tier == "technical"


def test_another_queue_of_the_same_tier_changes_nothing() -> None:
    story = opened(budgets(), queue="technical")
    story.then(moved("10:00:00", "queued", queue="lab"))
    assert life(story) == []
    assert story.target("tier").allowed == timedelta(hours=4)


def test_a_queue_without_a_tier_has_no_budget() -> None:
    story = opened(budgets(), queue="elsewhere")
    assert [one.target for one in story.told if isinstance(one, SlaEvent)] == ["resolution"]


def test_a_tiers_clock_stands_where_the_resolution_does() -> None:
    story = opened(budgets()).then(
        moved("10:00:00", "pending"), moved("12:00:00", "queued", before="pending")
    )
    assert story.target("tier").due_at == at("13:00:00")


def test_solving_meets_the_budget_and_reopening_goes_on_with_it() -> None:
    story = opened(budgets()).then(told(TicketSolved, at("10:30:00")))
    assert ("tier", "met") in life(story)
    story.then(told(TicketReopened, at("13:00:00")))
    started = [one for one in story.told if isinstance(one, TargetStarted)]
    assert {one.target: one.seconds for one in started} == {"resolution": 23400.0, "tier": 1800.0}


def test_a_reopened_ticket_whose_policy_restarts_has_all_its_budgets_again() -> None:
    story = opened(budgets(reopen="restart")).then(told(TicketSolved, at("10:30:00")))
    story.then(told(TicketReopened, at("13:00:00")))
    started = [one for one in story.told if isinstance(one, TargetStarted)]
    assert {one.target: one.seconds for one in started} == {"resolution": 28800.0, "tier": 7200.0}


def test_spam_spends_what_it_had_spent() -> None:
    story = opened(budgets()).then(moved("10:00:00", "spam"))
    assert ("tier", "cancelled") in life(story)
    story.then(moved("11:00:00", "queued", before="spam"))
    started = the(story, TargetStarted)
    assert (started.tier, started.seconds) == ("front_line", 3600.0)


def test_a_priority_with_another_budget_keeps_what_was_spent() -> None:
    policy = budgets(priorities={1: {"tiers": {"front_line": "90m"}}})
    story = opened(policy).then(escalated("10:00:00"), returned("10:30:00"))
    story.then(told(TicketPrioritised, at("10:40:00"), before=3, priority=1))
    moved_to = next(
        one for one in story.told if isinstance(one, TargetRetargeted) and one.target == "tier"
    )
    assert (moved_to.seconds, moved_to.due_at) == (1800.0, at("11:00:00"))
