"""Where a ticket stood: what is told in any order, in few marks, and what is left of it after folding."""

from datetime import datetime, timedelta
from itertools import permutations

import pytest

from hours.calendar import Calendar, parse_calendar
from schemas.payload import Payload
from schemas.routing import (
    OfferMade,
    OfferWithdrawn,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    WorkReleased,
)
from schemas.tickets import (
    TicketNoteAdded,
    TicketOpened,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
)
from services.sla.core.timeline import (
    MARKS_MAX,
    OTHER,
    QUEUES_MAX,
    Clock,
    Spent,
    Timeline,
    fold,
    holds,
    is_full,
    limited,
    note,
    proportional,
    spent,
)

OFFICE = parse_calendar(
    {"timezone": "UTC", "hours": {day: [["09:00", "17:00"]] for day in ("mon", "tue", "wed")}}
)
SECOND = 1_000_000


def at(text: str) -> datetime:
    """An instant of Tuesday, 24 November 2026, in UTC."""
    return datetime.fromisoformat(f"2026-11-24T{text}+00:00")


def told(kind: type[Payload], when: str, /, **fields: object) -> Payload:
    data = kind.EXAMPLE | fields
    for name in ("at", "offered_at", "assigned_at", "occurred_at"):
        if name in kind.model_fields:
            data[name] = at(when)
    return kind.model_validate(data)


def noted(*events: Payload) -> Timeline:
    timeline = Timeline()
    for event in events:
        timeline = note(timeline, event)
    return timeline


def clock(since: str, calendar: Calendar | None = None) -> Clock:
    return Clock("t1/first_response", at(since), calendar or Calendar.always(), ())


def shares(found: Spent) -> dict[tuple[str, str], int]:
    """Whole seconds by who had it and where."""
    return {(one.where, one.queue): one.micros // SECOND for one in found.shares}


WAY = (
    told(TicketQueued, "09:00:10"),
    told(OfferMade, "09:01:00"),
    told(TicketRequeued, "09:01:30", reason="offer_expired"),
    told(OfferMade, "09:02:00", reservation_id="r2"),
    told(TicketAssigned, "09:02:05", reservation_id="r2"),
)


def test_time_is_the_queues_the_offers_and_whose_hands_it_is_in() -> None:
    timeline = noted(told(TicketOpened, "09:00:00", queue="service"), *WAY)
    found = spent(timeline, clock("09:00:00"), at("09:10:00"))
    assert shares(found) == {
        ("queue", "service"): 60 + 30,
        ("offer", "service"): 30 + 5,
        ("work", "service"): 475,
    }
    assert (found.paused, found.closed) == (0, 0)


def test_the_order_in_which_facts_are_heard_of_makes_no_difference() -> None:
    expected = spent(noted(*WAY), clock("09:00:00"), at("09:10:00"))
    for order in permutations(WAY):
        assert spent(noted(*order), clock("09:00:00"), at("09:10:00")) == expected


def test_a_ticket_is_offered_as_long_as_any_of_its_offers_is_open() -> None:
    timeline = noted(
        told(OfferMade, "09:00:00", reservation_id="r1"),
        told(OfferMade, "09:00:10", reservation_id="r2"),
        told(OfferWithdrawn, "09:00:20", reservation_id="r1", reason="offer_declined"),
        told(OfferWithdrawn, "09:00:40", reservation_id="r2", reason="work_ended"),
    )
    assert shares(spent(timeline, clock("09:00:00"), at("09:01:00"))) == {
        ("offer", "service"): 40,
        ("queue", "service"): 20,
    }


def test_who_takes_it_ends_every_offer_and_a_release_gives_it_back() -> None:
    timeline = noted(
        told(OfferMade, "09:00:00", reservation_id="r1"),
        told(OfferMade, "09:00:00", reservation_id="r2"),
        told(TicketAssigned, "09:00:05", reservation_id="r1"),
        told(OfferWithdrawn, "09:00:05", reservation_id="r2", reason="taken_by_other"),
        told(WorkReleased, "09:00:30"),
    )
    assert shares(spent(timeline, clock("09:00:00"), at("09:00:40"))) == {
        ("offer", "service"): 5,
        ("work", "service"): 25,
        ("queue", "service"): 10,
    }


def test_the_release_of_an_old_request_ends_nothing_of_the_next_one() -> None:
    timeline = noted(
        told(TicketAssigned, "09:00:00", work_id="w1", queue="service"),
        told(TicketQueued, "09:01:00", work_id="w2", queue="technical"),
        told(WorkReleased, "09:01:01", work_id="w1"),
        told(TicketAssigned, "09:02:00", work_id="w2", queue="technical"),
    )
    assert shares(spent(timeline, clock("09:00:00"), at("09:03:00"))) == {
        ("work", "service"): 61,
        ("queue", "technical"): 59,
        ("work", "technical"): 60,
    }
    late = note(timeline, told(WorkReleased, "09:02:30", work_id="w1"))
    assert spent(late, clock("09:00:00"), at("09:03:00")) == spent(
        timeline, clock("09:00:00"), at("09:03:00")
    )


def test_closed_time_goes_before_a_pause_and_a_pause_before_whoever_had_it() -> None:
    timeline = noted(told(TicketAssigned, "16:00:00"))
    pauses = ((at("16:30:00"), at("18:00:00")),)
    found = spent(timeline, Clock("t", at("16:00:00"), OFFICE, pauses), at("19:00:00"))
    assert shares(found) == {("work", "service"): 1_800}
    assert (found.paused, found.closed) == (1_800 * SECOND, 7_200 * SECOND)


def test_a_whole_ticket_is_held_while_it_is_pending_snoozed_on_hold_or_solved() -> None:
    timeline = noted(
        told(TicketStatusChanged, "09:10:00", before="assigned", status="pending"),
        told(TicketStatusChanged, "09:20:00", before="pending", status="queued"),
        told(TicketSolved, "09:30:00"),
        told(TicketReopened, "09:40:00"),
        told(TicketStatusChanged, "09:50:00", before="queued", status="snoozed"),
    )
    assert holds(timeline, ("pending", "on_hold", "snoozed", "solved")) == (
        (at("09:10:00"), at("09:20:00")),
        (at("09:30:00"), at("09:40:00")),
        (at("09:50:00"), None),
    )
    assert holds(timeline, ("pending",)) == ((at("09:10:00"), at("09:20:00")),)


def test_what_moves_nothing_leaves_no_mark() -> None:
    timeline = noted(*WAY)
    assert note(timeline, told(TicketNoteAdded, "09:03:00")) is timeline
    moved = told(TicketStatusChanged, "09:03:00", before="offered", status="assigned")
    assert note(timeline, moved) is timeline


def cycles(count: int) -> Timeline:
    """A ticket that is offered and goes back to a queue of its own, `count` times, a minute each."""
    timeline = Timeline()
    for number in range(count):
        begin = at("09:00:00") + timedelta(minutes=number)
        offered = told(OfferMade, "09:00:00", reservation_id=f"r{number}", queue=f"q{number % 12}")
        requeued = told(TicketRequeued, "09:00:00", queue=f"q{number % 12}")
        timeline = note(timeline, offered.model_copy(update={"offered_at": begin}))
        later = begin + timedelta(seconds=20)
        timeline = note(timeline, requeued.model_copy(update={"at": later}))
        if is_full(timeline):
            timeline = fold(timeline, [clock("09:00:00")])
    return timeline


def test_marks_are_bounded_and_folding_keeps_the_sums() -> None:
    timeline = cycles(100)
    assert len(timeline.marks) <= MARKS_MAX
    found = spent(timeline, clock("09:00:00"), at("10:40:00"))
    assert found.total == 6_000 * SECOND
    offered = sum(one.micros for one in found.shares if one.where == "offer")
    assert offered == 2_000 * SECOND
    assert {one.queue for one in timeline.folded["t1/first_response"].spent.shares} >= {OTHER}


def test_a_clock_that_ends_within_what_was_folded_is_told_in_proportion_and_adds_up() -> None:
    timeline = cycles(100)
    for end in ("09:00:01", "09:10:00", "09:33:21.000007"):
        found = spent(timeline, clock("09:00:00"), at(end))
        assert found.total == (at(end) - at("09:00:00")) // timedelta(microseconds=1)


def test_a_clock_that_was_given_another_start_after_folding_still_adds_up() -> None:
    timeline = cycles(100)
    for since in ("08:00:00", "09:05:00.5", "10:30:00"):
        found = spent(timeline, clock(since), at("10:40:00"))
        assert found.total == (at("10:40:00") - at(since)) // timedelta(microseconds=1)


def test_what_is_heard_of_after_its_time_was_folded_counts_from_there_on() -> None:
    timeline = cycles(100)
    assert timeline.until is not None
    late = note(timeline, told(TicketAssigned, "09:00:30", queue="late"))
    assert late.marks[0].at == timeline.until or any(
        mark.at == timeline.until and mark.queue == "late" for mark in late.marks
    )
    assert spent(late, clock("09:00:00"), at("10:40:00")).total == 6_000 * SECOND


def test_no_time_is_no_time() -> None:
    assert spent(noted(*WAY), clock("09:00:00"), at("09:00:00")) == Spent()
    assert spent(noted(*WAY), clock("09:00:00"), at("08:00:00")) == Spent()


def test_at_most_eight_queues_are_told_apart() -> None:
    found = limited(spent(cycles(14), clock("09:00:00"), at("09:14:00")))
    assert len({one.queue for one in found.shares}) == QUEUES_MAX
    assert found.total == 840 * SECOND


@pytest.mark.parametrize(
    ("parts", "total", "expected"),
    [
        ((1, 1, 1), 10, [4, 3, 3]),
        ((0, 0), 5, [5, 0]),
        ((1_500, 1_500), 3, [2, 1]),
        ((999, 999, 2), 2, [1, 1, 0]),
        ((7,), 0, [0]),
    ],
)
def test_the_largest_remainders_are_rounded_up(
    parts: tuple[int, ...], total: int, expected: list[int]
) -> None:
    assert proportional(parts, total) == expected
