"""`signalbox sla recount` and `sla diff`: the table, its figures, and what is refused."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import sla_recount
from cli.main import app
from cli.sla_recount import Group, grouped, table
from services.sla.core.recount import Move

REPOSITORY = Path(__file__).parents[3]
NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")


def move(queue: str, minutes: int | None, **fields: Any) -> Move:
    after = None if minutes is None else NINE + timedelta(minutes=minutes)
    return Move(queue, "resolution", NINE, after, **fields)


MOVES = [
    move("technical", 90),
    move("service", -30, is_past=True),
    move("service", 60),
    move("service", 24 * 60),
    move("service", None),
    move("service", 0, ends=True),
]


def test_moves_are_counted_by_queue_and_target_with_their_shifts() -> None:
    assert grouped(MOVES) == [
        Group("service", "resolution", 4, 1, 1, -1800.0, 3600.0, 86400.0),
        Group("technical", "resolution", 1, 0, 0, 5400.0, 5400.0, 5400.0),
    ]
    assert grouped([]) == []


def test_the_table_is_for_people() -> None:
    assert [line.split() for line in table(grouped(MOVES))] == [
        [
            "queue",
            "target",
            "moved",
            "earliest",
            "median",
            "largest",
            "past",
            "at",
            "once",
            "ended",
        ],
        ["service", "resolution", "4", "-0:30:00", "+1:00:00", "+1", "day,", "0:00:00", "1", "1"],
        ["technical", "resolution", "1", "+1:30:00", "+1:30:00", "+1:30:00", "0", "0"],
    ]
    assert table([]) == ["No open deadline would move."]
    without = Group("", "callback", 1, 0, 0, None, None, None)
    assert table([without])[1].split()[:5] == ["(no", "queue)", "callback", "1", "-"]


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A database with three open deadlines and one breach; the orders that it was given."""
    given: list[bool] = []

    async def counts(settings: Any) -> tuple[int, int]:
        await asyncio.sleep(0)
        return 3, 1

    async def give(settings: Any, includes_breaches: bool) -> int:
        await asyncio.sleep(0)
        given.append(includes_breaches)
        return 7

    monkeypatch.setattr(sla_recount, "_counts", counts)
    monkeypatch.setattr(sla_recount, "_give", give)
    monkeypatch.setattr("cli.environment.common", object)
    return given


def test_a_recount_is_asked_for_before_it_is_ordered(orders: list[bool]) -> None:
    refused = CliRunner().invoke(app, ["sla", "recount", "--breaches"], input="n\n")
    assert refused.exit_code != 0
    assert orders == []
    agreed = CliRunner().invoke(app, ["sla", "recount", "--breaches"], input="y\n")
    assert agreed.exit_code == 0
    assert "3 open deadlines are worked out anew, and 1 open breaches" in agreed.output
    assert orders == [True]


def test_a_recount_with_yes_says_what_it_ordered(orders: list[bool]) -> None:
    done = CliRunner().invoke(app, ["sla", "recount", "--yes"])
    assert done.exit_code == 0
    assert done.output.startswith("Order 7: 3 open deadlines are worked out anew.")
    assert orders == [False]
