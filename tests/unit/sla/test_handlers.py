"""The stage: what the loop gives the core, and what it gets back."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.policy import PolicyHolder
from chassis.stage import Effect, EffectDone, EffectResult, Outcome, Received, Tick
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.sla import SlaEvent, TargetBreached, TargetMet
from schemas.tickets import TicketAnswered, TicketOpened
from schemas.topics import ROUTING, TICKETS
from services.sla import metrics
from services.sla.core.state import Conversation
from services.sla.handlers import POLICY, TIMER, SlaStage
from services.sla.store import TargetRow, _waves

REPOSITORY = Path(__file__).parents[3]
NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")  # Noon in Istanbul, a Tuesday.


@pytest.fixture(scope="module")
def stage() -> SlaStage:
    return SlaStage(PolicyHolder(REPOSITORY / "policy", POLICY))


def received(kind: type[Payload], when: datetime, **fields: Any) -> Received:
    data = kind.EXAMPLE | {"at": when, "occurred_at": when} | fields
    event = kind.model_validate(data)
    envelope = Envelope(type=kind.TYPE, source="signalbox/router.tickets/0", id="e1", time=when)
    return Received(envelope, event, str(data["conversation_id"]), "tickets", "e1")


def opened(stage: SlaStage) -> Outcome[Conversation]:
    return stage.decide(None, received(TicketOpened, NINE, sla_policy="urgent"), NINE)


def test_it_reads_tickets_and_routing_and_understands_what_moves_clocks(stage: SlaStage) -> None:
    assert stage.topics == (TICKETS, ROUTING)
    assert all(name.startswith(("ticket.", "routing.")) for name in stage.understands)
    assert TicketOpened.TYPE in stage.understands


def test_an_opened_ticket_sets_the_timer_to_the_first_look_at_its_risk(stage: SlaStage) -> None:
    outcome = opened(stage)
    assert outcome.timers == {TIMER: NINE + timedelta(minutes=3, seconds=45)}
    assert [row.target.kind for row in outcome.rows if isinstance(row, TargetRow)] == [
        "first_response",
        "resolution",
    ]
    told = [event for event in outcome.events if isinstance(event, SlaEvent)]
    assert [row for row in outcome.rows if isinstance(row, SlaEvent)] == told
    assert {stage.partition_key(event) for event in outcome.events} == {
        TicketOpened.EXAMPLE["conversation_id"]
    }


def test_a_timer_tells_the_breach_and_is_set_to_what_comes_next(stage: SlaStage) -> None:
    state = opened(stage).state
    due_at = NINE + timedelta(minutes=15)
    outcome = stage.decide(state, Tick("c1", TIMER, due_at), due_at)
    assert [type(event) for event in outcome.events] == [TargetBreached]
    assert outcome.timers == {TIMER: NINE + timedelta(hours=3)}


def test_a_timer_with_nothing_due_is_set_again(stage: SlaStage) -> None:
    state = opened(stage).state
    outcome = stage.decide(state, Tick("c1", TIMER, NINE), NINE)
    assert (outcome.is_changed, outcome.ignored) == (False, "nothing_due")
    assert outcome.timers == {TIMER: NINE + timedelta(minutes=3, seconds=45)}
    assert stage.decide(None, Tick("c1", TIMER, NINE), NINE).timers == {TIMER: None}


def test_an_event_that_means_nothing_leaves_state_and_timers_alone(stage: SlaStage) -> None:
    outcome = stage.decide(None, received(TicketAnswered, NINE), NINE)
    assert (outcome.state, outcome.is_changed, outcome.timers) == (None, False, {})
    assert outcome.ignored == "ticket_unknown"


def test_an_instant_that_no_clock_can_count_from_parks_the_record(stage: SlaStage) -> None:
    absurd = datetime.fromisoformat("1776-07-04T12:00:00+00:00")
    outcome = stage.decide(None, received(TicketOpened, NINE, occurred_at=absurd), NINE)
    assert outcome.park is not None
    assert outcome.park[0] == "invalid_payload"
    assert "1900" in outcome.park[1]


def test_an_effect_that_nobody_asked_for_is_a_bug(stage: SlaStage) -> None:
    done = EffectDone(Effect("e", "c1", {}), EffectResult("done"))
    with pytest.raises(TypeError, match="no effects"):
        stage.decide(None, done, NINE)


def test_an_instant_in_the_future_is_counted_as_a_remark(stage: SlaStage) -> None:
    before = metrics.REMARKS.labels("future_instant")._value.get()
    stage.decide(None, received(TicketOpened, NINE, occurred_at=NINE + timedelta(days=9)), NINE)
    assert metrics.REMARKS.labels("future_instant")._value.get() == before + 1


def test_each_event_is_counted_and_a_late_one_as_late(stage: SlaStage) -> None:
    state = opened(stage).state
    answered_at = NINE + timedelta(minutes=15, milliseconds=40)
    outcome = stage.decide(state, received(TicketAnswered, answered_at), answered_at)
    told = [type(event) for event in outcome.events if isinstance(event, SlaEvent)]
    assert told == [TargetBreached, TargetMet]
    counters = [
        metrics.TARGETS.labels("first_response", metrics.labels().queue("service"), name)
        for name in ("breached", "met_late")
    ]
    before = [counter._value.get() for counter in counters]
    seconds = metrics.DETECTION_SECONDS.labels("first_response")._sum.get()
    for event in outcome.events:
        if isinstance(event, TargetBreached | TargetMet):
            metrics.count(event)
    assert [counter._value.get() for counter in counters] == [value + 1 for value in before]
    assert metrics.DETECTION_SECONDS.labels("first_response")._sum.get() == pytest.approx(
        seconds + 0.04
    )


def test_breaches_of_one_batch_are_written_in_waves(stage: SlaStage) -> None:
    """A target broken, taken back and broken again cannot be written in one statement each."""
    state = opened(stage).state
    due_at = NINE + timedelta(minutes=15)
    ticked = stage.decide(state, Tick("c1", TIMER, due_at), due_at)
    answer = received(TicketAnswered, NINE, at=due_at)
    back = stage.decide(ticked.state, answer, due_at)
    breach, retraction = ticked.events[0], back.events[0]
    waves = _waves([retraction, breach, retraction, breach])  # type: ignore[list-item]
    assert waves == [([], [retraction]), ([breach], [retraction]), ([breach], [])]
