"""What the stage tells of waits, and the looks at a clock's risk."""

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chassis.policy import PolicyHolder
from chassis.stage import Outcome, Received, Tick
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.sla import TargetAtRisk, TargetStarted, WaitPromised
from schemas.tickets import (
    TicketAnswered,
    TicketEscalated,
    TicketMessageAdded,
    TicketOpened,
    TicketReopened,
    TicketSolved,
)
from services.sla.core.promise_policy import PromisesModel, QueuePromises
from services.sla.core.promised import WaitOpened, WaitStands
from services.sla.core.state import Conversation
from services.sla.core.waits import Cell, Correction, Estimates, QueueState
from services.sla.handlers import POLICY, TIMER, SlaStage

REPOSITORY = Path(__file__).parents[3]
POLICIES = PolicyHolder(REPOSITORY / "policy", POLICY)
NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")  # Noon in Istanbul, a Tuesday.
MINUTE = timedelta(minutes=1)
USUAL = Cell(100, 11 * 60.0, tuple(n * 15.0 for n in range(1, 50)))
SLOW = Cell(100, 3_000.0, tuple(n * 66.0 for n in range(1, 50)))


def known(cell: Cell, queue: QueueState | None = None) -> Estimates:
    """The same of the queue `service` by each calendar of the policy."""
    names = POLICIES.current.calendars
    queues = {} if queue is None else {("service", name): queue for name in names}
    cells: dict[tuple[str, ...], Cell] = {("service", name): cell for name in names}
    return Estimates(version="e1", cells=cells, queues=queues)


def stage(estimates: Estimates, policies: Any = POLICIES) -> SlaStage:
    made = SlaStage(policies)
    made.take_estimates(lambda: estimates)
    return made


def received(kind: type[Payload], at: datetime, **fields: Any) -> Received:
    event = kind.model_validate(kind.EXAMPLE | {"at": at, "occurred_at": at} | fields)
    envelope = Envelope(type=kind.TYPE, source="signalbox/router.tickets/0", id="e1", time=at)
    return Received(envelope, event, str(kind.EXAMPLE["conversation_id"]), "tickets", "e1")


def opened(by: SlaStage, at: datetime = NINE, policy: str = "urgent") -> Outcome[Conversation]:
    return by.decide(None, received(TicketOpened, at, sla_policy=policy), at)


def promises(outcome: Outcome[Conversation]) -> list[WaitPromised]:
    return [event for event in outcome.events if isinstance(event, WaitPromised)]


def test_a_promise_is_told_once_a_ticket_and_after_its_clocks() -> None:
    by = stage(known(USUAL))
    outcome = opened(by)
    (told,) = promises(outcome)
    assert outcome.events[-1] is told
    assert (told.by, told.seconds, told.estimates_version) == (NINE + 15 * MINUTE, 900, "e1")
    more = by.decide(outcome.state, received(TicketMessageAdded, NINE + MINUTE), NINE + MINUTE)
    assert promises(more) == []
    again = by.decide(outcome.state, received(TicketOpened, NINE, sla_policy="urgent"), NINE)
    assert promises(again) == []


def test_after_hours_it_says_when_we_open_and_offers_calls() -> None:
    night = datetime.fromisoformat("2026-11-24T20:00:00+03:00")
    (told,) = promises(opened(stage(known(USUAL)), night, "standard"))
    assert told.is_after_hours
    assert told.opens_at == datetime.fromisoformat("2026-11-25T09:00:00+03:00")
    assert told.wording is not None
    assert (told.wording.kind, told.wording.day, told.wording.time) == ("by", "tomorrow", "10:00")
    assert [slot.starts_at for slot in told.callback_slots] == [
        datetime.fromisoformat(f"2026-11-25T{time}:00+03:00")
        for time in ("09:00", "09:30", "10:00")
    ]


def test_without_an_estimate_the_hours_are_told_all_the_same() -> None:
    night = datetime.fromisoformat("2026-11-24T20:00:00+03:00")
    (told,) = promises(opened(stage(Estimates()), night, "standard"))
    assert (told.by, told.seconds, told.wording, told.kept_share) == (None, None, None, 0)
    assert told.opens_at == datetime.fromisoformat("2026-11-25T09:00:00+03:00")


def test_rows_say_what_began_and_how_it_stands() -> None:
    by = stage(known(USUAL))
    outcome = opened(by)
    (begun,) = [row for row in outcome.rows if isinstance(row, WaitOpened)]
    place = begun.situation.place
    assert (place.calendar, begun.priority, place.hour) == ("always", 3, 33)
    answer = by.decide(
        outcome.state, received(TicketAnswered, NINE + 4 * MINUTE), NINE + 4 * MINUTE
    )
    stands = [row for row in answer.rows if isinstance(row, WaitStands)]
    assert stands == [WaitStands(begun.told.target_id, "service", 3, NINE + 4 * MINUTE, 4 * MINUTE)]


def test_what_is_heard_of_when_half_of_it_is_over_is_not_promised() -> None:
    """The router was away: a quarter of an hour, told after eight minutes, would be kept by nobody."""
    item = received(TicketOpened, NINE, sla_policy="urgent")
    for minutes, by in ((7, NINE + 15 * MINUTE), (8, None), (600, None)):
        outcome = stage(known(USUAL)).decide(None, item, NINE + minutes * MINUTE)
        (told,) = promises(outcome)
        (begun,) = [row for row in outcome.rows if isinstance(row, WaitOpened)]
        assert told.by == by
        assert (begun.made is not None) == (by is not None)
        assert begun.told.target_id


def test_a_quiet_queue_is_told_nothing_and_its_promises_are_measured() -> None:
    """Otherwise its correction would stand still, and nobody could see when it may be told again."""
    quiet = PromisesModel(queues={"service": QueuePromises(is_told=False)})
    policies = SimpleNamespace(current=replace(POLICIES.current, promises=quiet))
    outcome = stage(known(USUAL), policies).decide(
        None, received(TicketOpened, NINE, sla_policy="urgent"), NINE
    )
    (told,) = promises(outcome)
    (begun,) = [row for row in outcome.rows if isinstance(row, WaitOpened)]
    assert (told.by, told.seconds, told.wording, told.kept_share) == (None, None, None, 0)
    assert begun.made is not None
    assert (begun.made.by, begun.is_told) == (NINE + 15 * MINUTE, False)


def test_the_event_says_what_lengthened_the_promise() -> None:
    crowd = tuple((2, NINE - k * MINUTE) for k in range(3, 0, -1))
    found = known(USUAL, QueueState(waiting=crowd))
    found = replace(found, corrections={"service": Correction(1.25, 0.9, 50)})
    (told,) = promises(opened(stage(found)))
    assert (told.ahead, told.factor) == (3, 1.25)
    assert told.seconds == 60 * 60


def test_a_ticket_goes_by_the_waits_of_its_own_calendar() -> None:
    """What is answered within a quarter of an hour of opening hours may take a night around the clock."""
    quick = replace(known(USUAL), cells={("service", "shop"): USUAL})
    (told,) = promises(opened(stage(quick)))
    assert (told.by, told.basis) == (None, "none")


def test_each_reopening_is_promised_by_whatever_clock_it_starts() -> None:
    """With a later response in the policy the second reopening has that clock, and not the next response's."""
    policy = POLICIES.current
    rule = policy.policies["urgent"]
    later = {
        priority: {
            **kinds,
            "later_response": replace(kinds["next_response"], kind="later_response"),
        }
        for priority, kinds in rule.targets.items()
    }
    named = {**policy.policies, "urgent": replace(rule, targets=later)}
    by = stage(known(USUAL), SimpleNamespace(current=replace(policy, policies=named)))
    state, at = opened(by).state, NINE
    kinds = []
    for _ in range(3):
        solved = received(TicketSolved, at + 10 * MINUTE, with_answer=True)
        state = by.decide(state, solved, at + 10 * MINUTE).state
        at += 60 * MINUTE
        outcome = by.decide(state, received(TicketReopened, at), at)
        state = outcome.state
        (told,) = promises(outcome)
        started = [event for event in outcome.events if isinstance(event, TargetStarted)]
        kinds += [event.target for event in started if event.target_id == told.target_id]
        assert told.by == at + 15 * MINUTE
    assert kinds == ["next_response", "later_response", "later_response"]


def looks(estimates: Estimates) -> tuple[list[TargetAtRisk], list[timedelta]]:
    """What is told up to the deadline by ticks as they are asked for, and when those were."""
    by = stage(estimates)
    outcome = opened(by)
    told: list[TargetAtRisk] = []
    asked: list[timedelta] = []
    while (due := outcome.timers[TIMER]) is not None and due < NINE + 15 * MINUTE:
        asked.append(due - NINE)
        key = str(TicketOpened.EXAMPLE["conversation_id"])
        outcome = by.decide(outcome.state, Tick(key, TIMER, due), due)
        told += [event for event in outcome.events if isinstance(event, TargetAtRisk)]
    return told, asked


def test_a_clock_that_will_likely_be_late_is_at_risk_before_its_share_is_gone() -> None:
    """Three in four such tickets wait longer than the quarter of an hour that is promised."""
    told, asked = looks(known(SLOW))
    assert [(event.cause, event.at) for event in told] == [
        ("probability", NINE + 0.25 * 15 * MINUTE)
    ]
    assert told[0].probability == pytest.approx(0.78, abs=0.03)
    assert asked == [0.25 * 15 * MINUTE]


def test_one_that_will_likely_be_in_time_is_looked_at_and_warned_of_by_its_share() -> None:
    told, asked = looks(known(USUAL))
    assert [(event.cause, event.probability) for event in told] == [("share", None)]
    assert asked == [share * 15 * MINUTE for share in (0.25, 0.5)]


def test_a_crowded_queue_is_a_risk_whatever_the_past_was() -> None:
    crowd = tuple((2, NINE - k * MINUTE) for k in range(60, 0, -1))
    told, _ = looks(known(USUAL, QueueState(waiting=crowd, answers=30)))
    assert [event.cause for event in told] == ["probability"]


def test_with_nothing_known_only_the_share_warns() -> None:
    told, _ = looks(Estimates())
    assert [event.cause for event in told] == ["share"]


def test_a_ticket_that_has_moved_is_looked_at_in_the_queue_where_it_waits() -> None:
    """Sixty are ahead of it there, and nobody where it was opened."""
    crowd = tuple((2, NINE - k * MINUTE) for k in range(60, 0, -1))
    found = known(USUAL, QueueState(answers=30))
    states = {
        ("technical", name): QueueState(waiting=crowd, answers=30)
        for name in POLICIES.current.calendars
    }
    by = stage(replace(found, queues={**found.queues, **states}))
    moved = by.decide(
        opened(by).state,
        received(TicketEscalated, NINE + MINUTE, from_queue="service", to_queue="technical"),
        NINE + MINUTE,
    )
    stands = [row for row in moved.rows if isinstance(row, WaitStands)]
    assert [(row.queue, row.answered_at) for row in stands] == [("technical", None)]
    due = moved.timers[TIMER]
    assert due is not None
    key = str(TicketOpened.EXAMPLE["conversation_id"])
    looked = by.decide(moved.state, Tick(key, TIMER, due), due)
    assert [e.cause for e in looked.events if isinstance(e, TargetAtRisk)] == ["probability"]
