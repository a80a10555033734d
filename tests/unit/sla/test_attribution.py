"""Where the time of a ticket went: T21, for stories that were thought out and for any others."""
# ruff: noqa: N802 — T21 is the id of a promise, and written as elsewhere.

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hours.calendar import Calendar
from schemas.payload import Payload
from schemas.routing import (
    OfferMade,
    OfferWithdrawn,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    WorkReleased,
)
from schemas.sla import TimeAttributed
from schemas.tickets import (
    TicketAnswered,
    TicketClosed,
    TicketOpened,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
)
from services.sla.core.attribution import in_milliseconds
from services.sla.core.policy import Policy
from services.sla.core.timeline import Clock, Share, Spent, Timeline, spent
from tests.unit.sla.clockwork import OFFICE, Story, at, make_policy, told

STANDARD: dict[str, Any] = {
    "calendar": "office",
    "warn_at": None,
    "first_response": {"within": "4h"},
    "resolution": {"within": "8h", "pauses": ["pending"]},
}


def policy_of(timezone: str = "UTC", **more: Any) -> Policy:
    return make_policy({"standard": STANDARD | more}, office=OFFICE | {"timezone": timezone})


POLICY = policy_of()


def tell(events: Sequence[Payload], policy: Policy = POLICY) -> list[TimeAttributed]:
    """What is told of where the time went, in order."""
    story = Story(policy).then(*events)
    return [one for one in story.all if isinstance(one, TimeAttributed)]


def seconds(found: TimeAttributed) -> tuple[float, ...]:
    """Queue, offer, work, pause, closed."""
    parts = (found.queue_ms, found.offer_ms, found.work_ms, found.pause_ms, found.closed_ms)
    assert sum(parts) == found.elapsed_ms
    return tuple(part / 1000 for part in parts)


def test_T21_a_first_response_is_waited_for_offered_and_worked_on() -> None:
    (found,) = tell(
        [
            told(TicketOpened, at("09:00:00")),
            told(TicketQueued, at("09:00:01")),
            told(OfferMade, at("09:05:00")),
            told(TicketAssigned, at("09:05:30")),
            told(TicketAnswered, at("09:20:00.250")),
        ]
    )
    assert (found.target, found.outcome, found.was_breached) == ("first_response", "met", False)
    assert seconds(found) == (300, 30, 870.25, 0, 0)
    assert [part.queue for part in found.by_queue] == ["service"]
    assert found.calendar == "office"


def test_T21_a_night_is_closed_time_and_a_wait_for_the_customer_a_pause() -> None:
    found = tell(
        [
            told(TicketOpened, at("16:00:00")),
            told(TicketAssigned, at("16:00:00")),
            told(TicketAnswered, at("16:10:00")),
            told(TicketStatusChanged, at("16:30:00"), before="assigned", status="pending"),
            told(WorkReleased, at("16:30:00")),
            told(TicketQueued, at("2026-11-25T09:30:00+00:00")),
            told(
                TicketStatusChanged,
                at("2026-11-25T09:30:00+00:00"),
                before="pending",
                status="queued",
            ),
            told(TicketAssigned, at("2026-11-25T09:45:00+00:00")),
            told(TicketSolved, at("2026-11-25T10:00:00+00:00")),
        ]
    )
    assert [one.target for one in found] == ["first_response", "resolution"]
    assert seconds(found[1]) == (900, 0, 1800 + 900, 1800 + 1800, 16 * 3600)


def test_T21_time_is_split_by_queue() -> None:
    *_, found = tell(
        [
            told(TicketOpened, at("09:00:00"), queue="service"),
            told(TicketAssigned, at("09:10:00"), queue="service", work_id="w1"),
            told(WorkReleased, at("09:30:00"), work_id="w1"),
            told(TicketQueued, at("09:30:00"), queue="technical", work_id="w2"),
            told(TicketAssigned, at("09:50:00"), queue="technical", work_id="w2"),
            told(TicketSolved, at("10:00:00")),
        ]
    )
    assert [(one.queue, one.queue_ms, one.offer_ms, one.work_ms) for one in found.by_queue] == [
        ("service", 600_000, 0, 1_200_000),
        ("technical", 1_200_000, 0, 600_000),
    ]


def test_a_ticket_that_was_reopened_is_told_as_a_whole() -> None:
    found = tell(
        [
            told(TicketOpened, at("09:00:00")),
            told(TicketAssigned, at("09:10:00")),
            told(TicketSolved, at("09:20:00")),
            told(WorkReleased, at("09:20:00")),
            told(TicketReopened, at("10:00:00")),
            told(TicketAssigned, at("10:05:00"), work_id="w2"),
            told(TicketSolved, at("10:10:00")),
        ]
    )
    assert [one.target for one in found] == [
        "first_response",
        "resolution",
        "resolution",
        "ticket",
    ]
    whole = found[-1]
    assert (whole.target_id, whole.outcome) == ("t1", "solved")
    assert whole.elapsed_ms == 70 * 60_000
    assert seconds(whole) == (600 + 300, 0, 600 + 300, 2400, 0)


def test_a_solved_ticket_without_a_promise_is_told_as_a_whole_around_the_clock() -> None:
    policy = policy_of(resolution=None)
    (first, whole) = tell(
        [told(TicketOpened, at("07:00:00")), told(TicketSolved, at("09:00:00"))], policy
    )
    assert (first.target, first.outcome) == ("first_response", "met")
    assert seconds(whole) == (0, 0, 0, 0, 7200)
    assert whole.target == "ticket"


def test_an_answer_that_is_heard_of_late_puts_the_attribution_right() -> None:
    found = tell(
        [
            told(TicketOpened, at("09:00:00")),
            told(TicketAnswered, at("14:00:00")),
            told(TicketAnswered, at("12:00:00"), at=at("14:05:00")),
        ]
    )
    assert [(one.elapsed_ms // 3_600_000, one.was_breached) for one in found] == [
        (5, True),
        (3, False),
    ]
    assert found[0].target_id == found[1].target_id


def test_closing_tells_the_time_of_what_was_still_owed() -> None:
    found = tell([told(TicketOpened, at("09:00:00")), told(TicketClosed, at("10:00:00"))])
    assert [(one.target, one.outcome) for one in found] == [
        ("first_response", "cancelled"),
        ("resolution", "cancelled"),
    ]


@pytest.mark.parametrize(
    ("micros", "expected"),
    [((333, 333, 334), [0, 0, 1]), ((1_500, 1_500, 0), [2, 1, 0]), ((999, 0, 0), [0, 0, 0])],
)
def test_fractions_of_a_millisecond_go_to_the_largest_remainders(
    micros: tuple[int, ...], expected: list[int]
) -> None:
    of_queue, of_offer, paused = micros
    found = in_milliseconds(
        Spent((Share("queue", "q", of_queue), Share("offer", "q", of_offer)), paused, 0)
    )
    assert [found["queue_ms"], found["offer_ms"], found["pause_ms"]] == expected
    assert found["elapsed_ms"] == sum(micros) // 1000


MICROS = st.integers(min_value=0, max_value=5 * 86_400_000_000)
KINDS = st.sampled_from(
    ["queued", "offered", "assigned", "requeued", "withdrawn", "released", "pending", "open"]
)
STEPS = st.lists(
    st.tuples(KINDS, MICROS, st.sampled_from(["w1", "w2"]), st.sampled_from(["a", "b", "c"])),
    max_size=120,
)


def _step(kind: str, when: datetime, work: str, queue: str) -> Payload:
    common: dict[str, Any] = {"work_id": work, "queue": queue}
    match kind:
        case "queued":
            return told(TicketQueued, when, **common)
        case "offered":
            return told(OfferMade, when, **common, reservation_id=f"{work}{queue}")
        case "assigned":
            return told(TicketAssigned, when, **common)
        case "requeued":
            return told(TicketRequeued, when, **common)
        case "withdrawn":
            return told(OfferWithdrawn, when, **common, reservation_id=f"{work}{queue}")
        case "released":
            return told(WorkReleased, when, work_id=work)
        case "pending":
            return told(TicketStatusChanged, when, before="assigned", status="pending")
        case _:
            return told(TicketStatusChanged, when, before="pending", status="queued")


@settings(max_examples=80, deadline=None)
@given(
    steps=STEPS,
    end=MICROS,
    zone=st.sampled_from(["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"]),
    in_order=st.booleans(),
)
def test_T21_the_shares_add_up_to_the_millisecond_whatever_happens(
    steps: list[tuple[str, int, str, str]], end: int, zone: str, in_order: bool
) -> None:
    begin = datetime(2026, 11, 20, 7, 0, 0, 123_457, tzinfo=UTC)
    if in_order:
        steps = sorted(steps, key=lambda one: one[1])
    events: list[Payload] = [told(TicketOpened, begin)]
    events += [
        _step(kind, begin + timedelta(microseconds=micros), work, queue)
        for kind, micros, work, queue in steps
    ]
    events.append(told(TicketSolved, begin + timedelta(microseconds=end)))
    found = tell(events, policy_of(zone))
    assert {one.target for one in found} >= {"first_response", "resolution"}
    for one in found:
        passed = (one.ended_at - one.started_at) // timedelta(milliseconds=1)
        assert one.elapsed_ms == passed
        assert sum(seconds(one)) * 1000 == pytest.approx(passed)
        split = [
            sum(getattr(part, name) for part in one.by_queue)
            for name in ("queue_ms", "offer_ms", "work_ms")
        ]
        assert split == [one.queue_ms, one.offer_ms, one.work_ms]
        assert len(one.by_queue) <= 8


def test_time_beyond_every_calendar_is_closed_time() -> None:
    since = datetime(1901, 1, 1, tzinfo=UTC)
    found = spent(Timeline(), Clock("t", since, Calendar.always(), ()), at("09:00:00"))
    assert found.total == found.closed == (at("09:00:00") - since) // timedelta(microseconds=1)
