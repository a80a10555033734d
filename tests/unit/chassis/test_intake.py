"""A poll is one transaction, or slices with the locks let go between them where timers fall due meanwhile."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from chassis.intake import SLICE_RECORDS_FIRST, Intake
from chassis.ledger import TimerRow, Write
from chassis.pacing import Pace
from tests.faults.pipeline import Tally
from tests.unit.chassis.test_cutting import NOW, Loop, Table, given, names

DUE = TimerRow("k9", "t", 1, NOW)


class Turning(Table):
    """A table whose commit takes a turn of the event loop, as a real one does, and begins what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def commit(self, writes: Sequence[Write[Tally]]) -> set[int]:
        self.sizes.append(sum(len(write.overlay.rows) for write in writes))
        await asyncio.sleep(0)
        return await super().commit(writes)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setattr("tests.unit.chassis.test_cutting.Table", Turning)
    return Loop()


def intake_of(loop: Loop) -> Intake[Tally]:
    loop.task()
    return Intake(loop.clock, loop.assignment, loop.cutting)


def sizes(loop: Loop) -> list[int]:
    assert isinstance(loop.table, Turning)
    return loop.table.sizes


async def test_a_poll_is_one_transaction_where_no_timer_falls_due_meanwhile(loop: Loop) -> None:
    intake = intake_of(loop)
    loop.set_timers(TimerRow("k9", "t", 1, NOW + timedelta(minutes=1)))
    await intake.take([given(offset) for offset in range(500)])
    assert sizes(loop) == [500]


async def test_a_poll_is_settled_in_slices_and_in_order_while_a_timer_is_due(loop: Loop) -> None:
    intake = intake_of(loop)
    loop.set_timers(DUE)
    await intake.take([given(offset) for offset in range(500)])
    assert loop.table.rows == names(*range(500))
    assert len(sizes(loop)) > 1
    assert sizes(loop)[0] == SLICE_RECORDS_FIRST
    assert loop.task().position.offsets == {"inbound": 500}
    assert loop.sought == []


async def test_who_waits_for_a_task_has_its_turn_between_two_slices(loop: Loop) -> None:
    intake = intake_of(loop)
    loop.set_timers(DUE)
    seen: list[int] = []

    async def wait() -> None:
        async with loop.task().lock:
            seen.append(len(loop.table.rows))

    poll = asyncio.create_task(intake.take([given(offset) for offset in range(500)]))
    await asyncio.sleep(0)
    await asyncio.gather(poll, asyncio.create_task(wait()))
    assert seen == [SLICE_RECORDS_FIRST]
    assert len(loop.table.rows) == 500


async def test_behind_a_hole_no_later_slice_takes_anything_until_the_log_was_asked_again(
    loop: Loop,
) -> None:
    intake = intake_of(loop)
    loop.set_timers(DUE)
    await intake.take([given(offset) for offset in (*range(20), *range(30, 400))])
    assert loop.table.rows == names(*range(20))
    assert loop.sought == [20]
    await intake.take([given(offset) for offset in range(20, 400)])
    assert loop.table.rows == names(*range(400))


async def test_what_is_left_of_a_task_that_is_lost_is_not_settled(loop: Loop) -> None:
    intake = intake_of(loop)
    loop.set_timers(DUE)
    loop.table.refuse = lambda write: OSError("away") if loop.table.commits else None
    await intake.take([given(offset) for offset in range(500)])
    assert loop.lost == ["database"]
    assert loop.table.rows == names(*range(SLICE_RECORDS_FIRST))


async def test_a_slice_has_a_part_of_each_task(loop: Loop) -> None:
    intake = intake_of(loop)
    loop.task(1)
    loop.set_timers(DUE)
    other = [given(offset, n=1_000 + offset, key="other") for offset in range(100)]
    for record in other:
        object.__setattr__(record, "partition", 1)
    await intake.take([*(given(offset) for offset in range(100)), *other])
    half = SLICE_RECORDS_FIRST // 2
    assert loop.table.rows[:SLICE_RECORDS_FIRST] == names(*range(half), *range(1_000, 1_000 + half))
    assert len(loop.table.rows) == 200


def test_a_slice_grows_to_what_fits_and_at_most_to_twice_the_last() -> None:
    pace = Pace(0.03, 16, 5_000, first=50)
    assert pace.items == 50
    pace.took(50, 0.005)
    assert pace.items == 100
    pace.took(100, 0.02)
    assert pace.items == 150


def test_a_slice_that_took_too_long_makes_the_next_one_smaller_but_not_tiny() -> None:
    pace = Pace(0.03, 16, 5_000, first=50)
    pace.took(50, 0.06)
    assert pace.items == 25
    pace.took(25, 0.5)
    assert pace.items == 16


def test_a_handful_of_items_says_nothing_of_what_an_item_costs() -> None:
    pace = Pace(0.03, 16, 5_000, first=50)
    pace.took(2, 0.02)
    assert pace.items == 50


def test_who_is_given_more_time_takes_more() -> None:
    pace = Pace(0.03, 16, 5_000, first=50)
    pace.took(50, 0.05)
    pace.seconds = 0.08
    assert pace.items == 80
