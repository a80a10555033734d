"""The stage of assignment as the loop sees it: what a heartbeat costs, and that the policy's calendars reach it."""

from pathlib import Path
from typing import Any

import pytest

from chassis.policy import PolicyHolder
from schemas import roster, routing
from services.router.handlers import POLICY, AssignmentStage
from tests.unit.router.stories import at
from tests.unit.router.test_handlers import received

EXAMPLES = Path(__file__).parents[3] / "policy"


@pytest.fixture(scope="module")
def stage() -> AssignmentStage:
    return AssignmentStage(PolicyHolder(EXAMPLES, POLICY))


def _ada(**more: Any) -> roster.AgentSet:
    return roster.AgentSet(domain="main", agent_id="ada", queues=("service",), capacity=100, **more)


def _told(stage: AssignmentStage, *said: tuple[Any, str]) -> list[Any]:
    domain, outcomes = None, []
    for event, now in said:
        outcome = stage.decide(domain, received(stage, event, now), at(now))
        domain = outcome.state
        outcomes.append(outcome)
        if domain is not None and outcome.is_changed:
            domain.clear_marks()
    return outcomes


def test_a_heartbeat_tells_nothing_writes_nothing_and_seldom_sets_a_timer(
    stage: AssignmentStage,
) -> None:
    there = roster.PresenceSet(domain="main", agent_id="ada", presence="available")
    beat = roster.AgentHeartbeat(domain="main", agent_id="ada")
    *_, first, second, third = _told(
        stage,
        (_ada(), "09:00:00"),
        (there, "09:00:00"),
        (beat, "09:00:00"),
        (beat, "09:00:01"),
        (beat, "09:00:07"),
    )
    assert first.is_changed
    assert first.timers == {"due": at("09:00:30")}
    assert (second.is_changed, second.events, second.rows) == (False, (), ())
    assert second.timers == {"due": at("09:00:37.500")}
    assert (third.is_changed, third.timers) == (False, {})


def test_the_calendars_of_the_policy_are_the_times_of_duty(stage: AssignmentStage) -> None:
    there = roster.PresenceSet(domain="main", agent_id="ada", presence="available")
    asked = routing.WorkRequested.model_validate(
        routing.WorkRequested.EXAMPLE | {"requirement": {}, "entered_at": at("03:00")}
    )
    # The shop in Istanbul opens at nine there, which is six o'clock here.
    *_, set_, waits = _told(
        stage, (_ada(calendar="shop"), "03:00"), (there, "03:00"), (asked, "03:00")
    )
    assert waits.state is not None
    assert waits.state.next_due() == at("06:00")
    queued = waits.events[0]
    assert isinstance(queued, routing.TicketQueued)
    assert queued.record is not None
    assert queued.record.excluded[0].rules == ("off_shift",)
    assert set_.is_changed


def test_roster_events_of_a_domain_that_nobody_knows_are_ignored(stage: AssignmentStage) -> None:
    beat = roster.AgentHeartbeat(domain="attic", agent_id="ada")
    (outcome,) = _told(stage, (beat, "09:00"))
    assert (outcome.ignored, outcome.is_changed) == ("domain_unknown", False)
