"""The stages as the loop sees them: keys, partitions, timers, rows, and bytes that PostgreSQL cannot store."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chassis.policy import PolicyHolder
from chassis.stage import Outcome, Received, Tick
from schemas import commands, notifications, roster, routing
from schemas import tickets as wire
from schemas.envelope import Envelope
from schemas.payload import Payload
from services.router.core.assignment.domain import Domain
from services.router.core.tickets.rows import MessageRow
from services.router.core.tickets.state import Conversation
from services.router.handlers import POLICY, AssignmentStage, TicketsStage, without_nul
from services.router.store import RoutingRow, TicketRow
from tests.unit.router.stories import at, message

EXAMPLES = Path(__file__).parents[3] / "policy"


@pytest.fixture(scope="module")
def policies() -> Any:
    return PolicyHolder(EXAMPLES, POLICY)


def envelope(event: Payload, now: datetime) -> Envelope:
    return Envelope(type=event.TYPE, source="test", id="e1", time=now, partitionkey="elsewhere")


def received(stage: Any, event: Payload, now: str) -> Received:
    sent = envelope(event, at(now))
    decoded = stage.decode(sent, event.to_json())
    assert event.TYPE in stage.understands
    assert event.TOPIC in {topic.name for topic in stage.topics}
    return Received(sent, decoded, stage.key(sent, decoded), event.TOPIC, "e1")


def opened(stage: TicketsStage) -> Outcome[Conversation]:
    return stage.decide(None, received(stage, message(), "09:00"), at("09:00"))


def test_requests_for_a_person_go_to_the_domain_and_the_rest_to_the_conversation(
    policies: Any,
) -> None:
    stage = TicketsStage(policies)
    keys = [(type(event), stage.partition_key(event)) for event in opened(stage).events]
    assert keys == [(wire.TicketOpened, "c1"), (routing.WorkRequested, "main")]


def test_an_opened_ticket_leaves_a_row_of_each_kind(policies: Any) -> None:
    rows = opened(TicketsStage(policies)).rows
    assert [type(row) for row in rows] == [MessageRow, wire.TicketOpened, TicketRow]


def test_a_follow_up_leaves_the_closed_tickets_row_too(policies: Any) -> None:
    stage = TicketsStage(policies)
    state = opened(stage).state
    assert state is not None
    assert state.ticket is not None
    solve = commands.SolveTicket(
        command_id="k", conversation_id="c1", ticket_id=state.ticket.ticket_id, agent_id="ada"
    )
    solved = stage.decide(state, received(stage, solve, "09:10"), at("09:10"))
    assert solved.timers == {"close": at("09:10") + timedelta(hours=72), "rise": None}
    late = at("2026-11-27T09:10:00")
    again = received(stage, message("m2"), "2026-11-27T09:10:00")
    outcome = stage.decide(solved.state, again, late)
    assert [
        (row.ticket.number, row.status) for row in outcome.rows if isinstance(row, TicketRow)
    ] == [(1, "closed"), (2, "queued")]
    assert outcome.timers == {"close": None, "rise": late + timedelta(hours=24)}


def test_a_timer_that_fires_early_is_set_again(policies: Any) -> None:
    stage = TicketsStage(policies)
    state = opened(stage).state
    early = stage.decide(state, Tick("c1", "close", at("09:30")), at("09:30"))
    assert (early.ignored, early.timers, early.is_changed) == ("nothing_due", {}, False)


def test_what_is_ignored_saves_no_state(policies: Any) -> None:
    stage = TicketsStage(policies)
    event = routing.TicketQueued.model_validate(routing.TicketQueued.EXAMPLE)
    outcome = stage.decide(None, received(stage, event, "09:00"), at("09:00"))
    assert (outcome.is_changed, outcome.ignored, outcome.rows) == (False, "no_open_ticket", ())


def test_a_refused_command_is_remembered_and_counted(policies: Any) -> None:
    stage = TicketsStage(policies)
    note = commands.AddNote.model_validate(commands.AddNote.EXAMPLE)
    outcome = stage.decide(opened(stage).state, received(stage, note, "09:00"), at("09:00"))
    assert outcome.is_changed
    assert wire.CommandRefused in [type(row) for row in outcome.rows]


def test_a_command_for_a_conversation_that_is_not_there_is_counted_and_stores_none(
    policies: Any,
) -> None:
    stage = TicketsStage(policies)
    note = commands.AddNote.model_validate(commands.AddNote.EXAMPLE)
    outcome = stage.decide(None, received(stage, note, "09:00"), at("09:00"))
    assert (outcome.state, outcome.is_changed) == (None, False)
    assert [type(row) for row in outcome.rows] == [wire.CommandRefused]


def test_assignment_is_keyed_by_domain(policies: Any) -> None:
    stage = AssignmentStage(policies)
    work = routing.WorkRequested.model_validate(routing.WorkRequested.EXAMPLE)
    assert received(stage, work, "09:00").key == "main"
    ada = roster.AgentSet.model_validate(roster.AgentSet.EXAMPLE)
    assert received(stage, ada, "09:00").key == "main"


def test_a_notice_of_which_nobody_knows_reaches_the_ticket(policies: Any) -> None:
    stage = TicketsStage(policies)
    state = opened(stage).state
    assert state is not None
    assert state.ticket is not None
    lost = notifications.NoticeUnknown.model_validate(
        notifications.NoticeUnknown.EXAMPLE
        | {"ticket_id": state.ticket.ticket_id, "conversation_id": "c1"}
    )
    outcome = stage.decide(state, received(stage, lost, "09:05"), at("09:05"))
    assert [type(event) for event in outcome.events] == [wire.TicketNoteAdded]


def test_a_roster_of_a_domain_that_the_policy_lacks_is_ignored_by_name(policies: Any) -> None:
    stage = AssignmentStage(policies)
    ada = roster.AgentSet.model_validate(roster.AgentSet.EXAMPLE | {"domain": "typo"})
    outcome = stage.decide(None, received(stage, ada, "09:00"), at("09:00"))
    assert (outcome.ignored, outcome.is_changed) == ("domain_unknown", False)


def test_a_domain_has_one_timer_and_sets_it_only_when_it_moves(policies: Any) -> None:
    stage = AssignmentStage(policies)

    def does(state: Domain | None, event: Payload, now: str) -> Outcome[Domain]:
        return stage.decide(state, received(stage, event, now), at(now))

    ada = roster.AgentSet.model_validate(roster.AgentSet.EXAMPLE)
    here = roster.PresenceSet.model_validate(roster.PresenceSet.EXAMPLE)
    work = routing.WorkRequested.model_validate(
        routing.WorkRequested.EXAMPLE | {"entered_at": at("09:00")}
    )
    domain = does(None, ada, "08:00").state
    assert domain is not None
    assert does(domain, here, "08:00").timers == {}
    offered = does(domain, work, "09:00")
    assert offered.timers == {"due": at("09:00:30")}
    assert [row.event.TYPE for row in offered.rows if isinstance(row, RoutingRow)] == [
        "routing.offered.v1"
    ]
    assert does(domain, here, "09:00:01").timers == {}
    fired = stage.decide(domain, Tick("main", "due", at("09:00:30")), at("09:00:30"))
    assert fired.timers == {"due": at("09:01:00")}


def test_nul_in_a_string_is_replaced_and_what_only_looks_like_it_is_not() -> None:
    assert without_nul(b'{"text":"a\\u0000b"}') == '{"text": "a\ufffdb"}'.encode()
    escaped = b'{"text":"the \\\\u0000 escape"}'
    assert without_nul(escaped) == b'{"text": "the \\\\u0000 escape"}'
    assert without_nul(b'{"text":"\\u0000') == b'{"text":"\\u0000'
