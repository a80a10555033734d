"""What people want done with a ticket: done, or refused with a named reason and nothing changed."""

from typing import Any

import pytest

from schemas import commands, routing
from schemas import tickets as wire
from services.router.core.tickets.orders import TAGS_MAX
from services.router.core.tickets.state import SEEN_MAX
from tests.unit.router.stories import Case, at, message

FACTS = {"tried": "two browsers", "impact": "cannot order"}


def held() -> Case:
    return Case().hears(message(), "09:00").held_by("ada")


def solved() -> Case:
    return held().commands(commands.SolveTicket, "09:10")


def refused(case: Case) -> tuple[str, str]:
    event = case.one(wire.CommandRefused)
    assert len(case.told) == 1
    return event.reason, event.state


def test_a_reply_waits_for_the_customer_and_frees_the_agent() -> None:
    case = held().commands(commands.ReplyToCustomer, "09:05", text="It left our house.")
    answer = case.one(wire.TicketAnswered)
    assert (answer.agent_name, answer.language, answer.is_first) == ("Ada", "en", True)
    assert answer.occurred_at == at("09:05")
    assert case.one(routing.WorkWithdrawn).reason == "pending"
    moved = case.one(wire.TicketStatusChanged)
    assert (moved.before, moved.status, moved.reason) == ("assigned", "pending", "answered")


def test_whoever_answered_last_may_write_again_while_the_customer_is_waited_for() -> None:
    case = held().commands(commands.ReplyToCustomer, "09:05", text="One.")
    case.commands(commands.ReplyToCustomer, "09:06", text="Two.")
    assert case.types() == ["ticket.answered.v1"]
    assert not case.one(wire.TicketAnswered).is_first


def test_a_reply_that_solves_says_that_it_was_an_answer_too() -> None:
    case = held().commands(commands.ReplyToCustomer, "09:05", text="Done.", solves=True)
    assert case.types() == ["ticket.answered.v1", "work.withdrawn.v1", "ticket.solved.v1"]
    assert case.one(wire.TicketSolved).with_answer
    assert case.status == "solved"


def test_a_solved_ticket_keeps_its_cause() -> None:
    case = held().commands(commands.SolveTicket, "09:10", cause="late_by_shipper")
    event = case.one(wire.TicketSolved)
    assert (event.cause, event.with_answer, event.agent_id) == ("late_by_shipper", False, "ada")
    assert case.one(routing.WorkWithdrawn).reason == "solved"


@pytest.mark.parametrize(
    "kind", [commands.ReplyToCustomer, commands.SolveTicket, commands.EscalateTicket]
)
def test_only_the_assignee_acts_on_a_held_ticket(kind: type[commands.Command]) -> None:
    case = held().commands(kind, "09:05", agent="eve", text="x", reason="x", facts=FACTS)
    assert refused(case) == ("not_assignee", "assigned")
    assert case.ticket.version == 3


def test_nobody_replies_to_a_ticket_that_waits() -> None:
    case = Case().hears(message(), "09:00").commands(commands.ReplyToCustomer, "09:01", text="x")
    assert refused(case) == ("not_assignee", "queued")


def test_anyone_may_solve_a_ticket_that_nobody_holds() -> None:
    case = Case().hears(message(), "09:00").commands(commands.SolveTicket, "09:01")
    assert case.status == "solved"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (commands.ReplyToCustomer, {"text": "x"}),
        (commands.SolveTicket, {}),
        (commands.EscalateTicket, {"reason": "x", "facts": FACTS}),
        (commands.ReassignTicket, {"queue": "technical"}),
    ],
)
def test_a_solved_ticket_takes_only_notes_and_tags(
    kind: type[commands.Command], fields: dict[str, Any]
) -> None:
    assert refused(solved().commands(kind, "09:11", **fields)) == ("already_solved", "solved")


def test_a_note_may_be_written_by_anyone_also_after_the_solution() -> None:
    for case in (held(), solved()):
        case.commands(commands.AddNote, "09:20", agent="eve", text="Called the carrier.")
        assert case.types() == ["ticket.note_added.v1"]


def test_commands_for_tickets_that_are_gone_or_never_were_are_refused() -> None:
    assert refused(Case().commands(commands.AddNote, "09:00", text="x")) == (
        "ticket_unknown",
        "unknown",
    )
    case = solved()
    first = case.ticket.ticket_id
    case.hears(message("m2"), "2026-12-01T09:00:00")
    case.commands(commands.AddNote, "2026-12-01T09:01:00", text="x", ticket_id=first)
    assert refused(case) == ("closed", "closed")


def test_a_conversation_that_was_invented_by_a_command_leaves_nothing_behind() -> None:
    case = Case().commands(commands.AddNote, "09:00", text="x")
    assert case.one(wire.CommandRefused).reason == "ticket_unknown"
    assert case.state is None


def test_a_ticket_has_a_hundred_tags_and_no_more() -> None:
    case = held().commands(commands.TagTicket, "09:05", add=[f"t{n}" for n in range(TAGS_MAX)])
    assert len(case.ticket.tags) == 100
    case.commands(commands.TagTicket, "09:06", add=["one_more"])
    assert refused(case)[0] == "tags_too_many: at most 100"
    case.commands(commands.TagTicket, "09:07", add=["one_more"], remove=["t0"])
    assert len(case.one(wire.TicketTagged).tags) == 100


def test_a_command_sent_twice_is_done_once() -> None:
    case = held().commands(commands.AddNote, "09:05", text="x", command_id="same")
    case.commands(commands.AddNote, "09:06", text="x", command_id="same")
    assert (case.told, case.last.ignored) == ((), "command_repeated")


def test_so_many_ids_of_commands_are_remembered_and_no_more() -> None:
    case = held()
    for n in range(SEEN_MAX + 1):
        case.commands(commands.AddNote, "09:05", text="x", command_id=f"n{n}")
    case.commands(commands.AddNote, "09:06", text="x", command_id="n1")
    assert case.last.ignored == "command_repeated"
    case.commands(commands.AddNote, "09:06", text="x", command_id="n0")
    assert case.types() == ["ticket.note_added.v1"]


def test_tags_are_sets_and_a_change_that_changes_nothing_is_no_news() -> None:
    case = held().commands(commands.TagTicket, "09:05", add=["late", "angry"], remove=["angry"])
    assert case.one(wire.TicketTagged).tags == ("late",)
    case.commands(commands.TagTicket, "09:06", add=["late"])
    assert (case.told, case.last.ignored) == ((), "changes_nothing")


def test_reassigning_to_a_queue_asks_for_someone_there_and_keeps_the_age() -> None:
    case = Case().hears(message(subject="API"), "09:00").held_by("nils")
    case.commands(commands.ReassignTicket, "09:30", agent="boss", queue="labs")
    assert case.types() == ["work.withdrawn.v1", "ticket.status_changed.v1", "work.requested.v1"]
    work = case.one(routing.WorkRequested)
    assert (work.queue, work.entered_at, work.excluded_agent_ids) == ("labs", at("09:00"), ())
    assert case.ticket.desk == "technical"


def test_reassigning_to_a_colleague_does_not_come_back_to_the_giver() -> None:
    case = held().commands(commands.ReassignTicket, "09:30", to_agent_id="bo")
    work = case.one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.excluded_agent_ids) == ("bo", ("ada",))


def test_reassigning_a_pending_ticket_only_changes_who_will_get_it() -> None:
    case = held().commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    case.commands(commands.ReassignTicket, "09:06", to_agent_id="bo")
    assert case.types() == ["ticket.status_changed.v1"]
    assert case.hears(message("m2"), "09:30").one(routing.WorkRequested).preferred_agent_id == "bo"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "nothing_asked"),
        ({"queue": "billing"}, "queue_unknown: billing"),
        ({"queue": "service"}, "already_there"),
        ({"to_agent_id": "ada"}, "already_there"),
    ],
)
def test_a_reassignment_that_goes_nowhere_is_refused(fields: dict[str, str], reason: str) -> None:
    assert refused(held().commands(commands.ReassignTicket, "09:05", **fields))[0] == reason


def test_another_queue_is_asked_with_fresh_patience_and_a_colleague_is_not() -> None:
    case = Case().hears(message(subject="API"), "09:00").held_by("nils")
    case.commands(commands.ReassignTicket, "09:30", to_agent_id="bo")
    assert case.one(routing.WorkRequested).relax_from is None
    case.commands(commands.ReassignTicket, "09:40", queue="labs")
    assert case.one(routing.WorkRequested).relax_from == at("09:40")
    case.commands(commands.ReassignTicket, "09:50", to_agent_id="nils")
    assert case.one(routing.WorkRequested).relax_from == at("09:40")


def test_an_agent_whom_nobody_knows_is_passed_on_as_a_preference() -> None:
    case = held().commands(commands.ReassignTicket, "09:30", to_agent_id="nobody-at-all")
    assert case.one(routing.WorkRequested).preferred_agent_id == "nobody-at-all"
