"""The stage under other hours: the name of what it decides by, and what a revisit does."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.policy import PolicyHolder
from chassis.stage import Outcome, Received, Revisit
from schemas.envelope import Envelope
from schemas.sla import TargetRetargeted
from schemas.tickets import TicketOpened
from services.sla.core.state import Conversation
from services.sla.handlers import POLICY, TIMER, SlaStage
from services.sla.recount_orders import Orders
from services.sla.store import TargetRow

NINE = datetime.fromisoformat("2026-11-24T09:00:00+00:00")
SLA = """
default: standard
policies:
  standard: {calendar: shop, warn_at: null, resolution: {within: 4h}}
"""
CALENDARS = """
calendars:
  shop: {timezone: UTC, hours: {tue: [["08:00", "18:00"]], wed: [["08:00", "18:00"]]}}
"""
CLOSED = CALENDARS.replace("hours:", 'closures: [["2026-11-24T10:00", "2026-11-24T11:00"]], hours:')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sla.yaml").write_text(SLA, encoding="utf-8")
    (tmp_path / "calendars.yaml").write_text(CALENDARS, encoding="utf-8")
    return tmp_path


def opened(stage: SlaStage) -> Outcome[Conversation]:
    data: dict[str, Any] = TicketOpened.EXAMPLE | {"at": NINE, "occurred_at": NINE}
    event = TicketOpened.model_validate(data)
    envelope = Envelope(TicketOpened.TYPE, "signalbox/router.tickets/0", "e1", NINE)
    return stage.decide(None, Received(envelope, event, "c1", "tickets", "e1"), NINE)


def test_there_is_no_revision_before_the_orders_have_been_read(folder: Path) -> None:
    stage = SlaStage(PolicyHolder(folder, POLICY))
    assert stage.revision() is None
    stage.take_orders(Orders())
    assert (stage.revision() or "").endswith(".0")


def test_the_revision_is_that_of_the_content_and_of_the_last_order(folder: Path) -> None:
    policies = PolicyHolder(folder, POLICY)
    stage = SlaStage(policies)
    stage.take_orders(Orders())
    first = stage.revision()
    (folder / "sla.yaml").write_text(SLA + "# a remark\n", encoding="utf-8")
    assert policies.reload()
    assert stage.revision() == first
    (folder / "calendars.yaml").write_text(CLOSED, encoding="utf-8")
    assert policies.reload()
    second = stage.revision()
    assert second != first
    stage.take_orders(Orders(latest=3))
    assert stage.revision() == (second or "").replace(".0.0", ".3.0")


def test_an_order_that_judges_breaches_counts_though_a_later_one_was_committed_before_it(
    folder: Path,
) -> None:
    stage = SlaStage(PolicyHolder(folder, POLICY))
    stage.take_orders(Orders(latest=6))
    before = stage.revision()
    stage.take_orders(Orders(6, 5, NINE))
    assert stage.revision() != before


def test_a_revisit_moves_the_deadline_the_timer_and_the_row(folder: Path) -> None:
    policies = PolicyHolder(folder, POLICY)
    stage = SlaStage(policies)
    stage.take_orders(Orders())
    state = opened(stage).state
    (folder / "calendars.yaml").write_text(CLOSED, encoding="utf-8")
    assert policies.reload()
    outcome = stage.decide(state, Revisit("c1", stage.revision() or "", 1), NINE)
    assert [type(event) for event in outcome.events] == [TargetRetargeted]
    assert outcome.timers == {TIMER: NINE + timedelta(hours=5)}
    rows = [row for row in outcome.rows if isinstance(row, TargetRow)]
    assert [row.target.due_at for row in rows] == [NINE + timedelta(hours=5)]
    again = stage.decide(outcome.state, Revisit("c1", stage.revision() or "", 1), NINE)
    assert (again.is_changed, again.events, again.ignored) == (False, (), "nothing_moved")
    assert again.timers == {}


def test_a_calendar_that_opens_too_seldom_by_now_leaves_the_deadline_as_it_was(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = PolicyHolder(folder, POLICY)
    stage = SlaStage(policies)
    state = opened(stage).state
    # Open for a second a week: enough for the files' own check, and never for a clock of four hours.
    hours = 'hours: {tue: [["08:00", "08:00:01"]]}'
    seldom = f"calendars:\n  shop: {{timezone: UTC, {hours}}}\n"
    (folder / "calendars.yaml").write_text(seldom, encoding="utf-8")
    short = SLA.replace("4h", "1s")
    (folder / "sla.yaml").write_text(short, encoding="utf-8")
    assert policies.reload()
    outcome = stage.decide(state, Revisit("c1", "r", 1), NINE)
    assert (outcome.is_changed, outcome.ignored, outcome.state) == (False, "not_recounted", state)
    assert "deadline_not_recounted" in capsys.readouterr().out
