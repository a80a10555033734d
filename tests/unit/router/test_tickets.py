"""The life of a ticket, from the customer's side: messages, reopening, closing, automatic mail."""

from typing import Any

import pytest

from schemas import commands, routing
from schemas import tickets as wire
from schemas.messages import MessageRevised
from services.router.core.tickets.decide import CloseDue, timers
from services.router.core.tickets.rows import RevisedRow
from services.router.core.tickets.state import Solved
from tests.unit.router.stories import (
    CONVERSATION,
    ROUTING_YAML,
    Case,
    at,
    message,
    read_policy,
)


def opened(**content: Any) -> Case:
    return Case().hears(message(**content), "09:00")


def solved() -> Case:
    return opened().held_by("ada").commands(commands.SolveTicket, "09:10", cause="late_by_shipper")


def test_a_first_message_opens_a_ticket_and_asks_for_a_person() -> None:
    case = opened(subject="My lamp never arrived")
    ticket = case.one(wire.TicketOpened)
    assert (ticket.number, ticket.version, ticket.queue, ticket.desk) == (
        1,
        1,
        "service",
        "service",
    )
    assert (ticket.rule, ticket.policy_version, ticket.sla_policy) == (
        "everything else",
        "v1",
        "standard",
    )
    assert ticket.message_id == "m1"
    work = case.one(routing.WorkRequested)
    assert work.work_id == case.ticket.work_id
    assert (work.domain, work.queue, work.cost, work.entered_at) == (
        "main",
        "service",
        10,
        at("09:00"),
    )
    assert work.requirement.language == "en"
    assert [(n.skill, n.level, n.relax_after_seconds) for n in work.requirement.skills] == [
        ("orders", 2, 60)
    ]
    assert case.last.messages[0].outcome == "opened"


def test_the_first_rule_that_matches_decides_and_is_named() -> None:
    case = opened(subject="API returns 500")
    ticket = case.one(wire.TicketOpened)
    assert (ticket.queue, ticket.desk, ticket.priority, ticket.rule) == (
        "technical",
        "technical",
        2,
        "API",
    )
    need = case.one(routing.WorkRequested).requirement.skills[0]
    assert (need.skill, need.level, need.relax_after_seconds) == ("api", 4, None)


@pytest.mark.parametrize(("said", "asked"), [("tr", "tr"), ("de", "en"), (None, "en")])
def test_a_language_nobody_speaks_is_asked_for_in_the_default_one(said: str, asked: str) -> None:
    assert opened(language=said).one(routing.WorkRequested).requirement.language == asked


def test_the_channel_decides_how_much_of_a_capacity_a_ticket_takes() -> None:
    assert opened(channel="chat").one(routing.WorkRequested).cost == 20


def test_a_message_in_an_open_ticket_joins_it() -> None:
    case = opened().hears(message("m2"), "09:01")
    added = case.one(wire.TicketMessageAdded)
    assert (added.version, added.status, added.message_id) == (2, "queued", "m2")
    assert case.types() == ["ticket.message_added.v1"]
    assert case.last.messages[0].outcome == "added"


def test_a_reply_to_a_pending_ticket_queues_it_again_for_whoever_answered_last() -> None:
    case = opened().held_by("ada").commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    assert case.status == "pending"
    case.hears(message("m2"), "09:30")
    assert case.types() == [
        "ticket.message_added.v1",
        "ticket.status_changed.v1",
        "work.requested.v1",
    ]
    assert case.one(wire.TicketStatusChanged).reason == "customer_replied"
    work = case.one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.reason) == ("ada", "customer_replied")
    assert work.entered_at == at("09:30")
    assert case.ticket.work_id == work.work_id


def test_a_message_within_the_window_reopens_a_solved_ticket() -> None:
    case = solved().hears(message("m2"), "2026-11-27T09:09:59")
    added = case.one(wire.TicketMessageAdded)
    assert added.status == "solved"
    assert case.one(wire.TicketReopened).reopen_count == 1
    work = case.one(routing.WorkRequested)
    assert (work.preferred_agent_id, work.reason) == ("ada", "reopened")
    assert case.status == "queued"
    assert case.last.messages[0].outcome == "reopened"


def test_a_message_at_the_end_of_the_window_opens_a_follow_up() -> None:
    case = solved()
    first = case.ticket.ticket_id
    case.hears(message("m2"), "2026-11-27T09:10:00")
    assert case.types() == ["ticket.closed.v1", "ticket.opened.v1", "work.requested.v1"]
    follow_up = case.one(wire.TicketOpened)
    assert (follow_up.number, follow_up.follows, follow_up.version) == (2, first, 1)
    assert case.one(routing.WorkRequested).preferred_agent_id == "ada"
    assert case.last.messages[0].outcome == "followed_up"
    assert [ticket.ticket_id for ticket in case.last.closed] == [first]


def test_a_doubted_follow_up_is_answered_where_the_case_before_it_was() -> None:
    mallory = {"name": "Ada", "address": "mallory@example.net"}
    case = solved()
    before = case.ticket.contact
    case.hears(
        message("m2", suspicion="sender_not_in_conversation", sender=mallory), "2026-11-27T09:10:00"
    )
    assert case.one(wire.TicketOpened).contact == before.to_wire()
    assert case.ticket.contact == before


def test_a_follow_up_that_is_not_doubted_is_answered_where_it_came_from() -> None:
    case = solved()
    case.hears(message("m2", sender={"address": "ada@work.example"}), "2026-11-27T09:10:00")
    assert case.one(wire.TicketOpened).contact.address == "ada@work.example"


def test_a_solved_ticket_closes_when_the_window_ends_and_not_before() -> None:
    case = solved()
    assert timers(case.state).get("close") == at("2026-11-27T09:10:00")
    case.hears(CloseDue(), "2026-11-27T09:09:59")
    assert (case.told, case.last.ignored) == ((), "nothing_due")
    case.hears(CloseDue(), "2026-11-27T09:10:00")
    assert case.types() == ["ticket.closed.v1"]
    assert timers(case.state).get("close") is None
    case.hears(message("m2"), "2026-11-28T09:00:00")
    assert case.one(wire.TicketOpened).number == 2


def test_a_reopened_ticket_does_not_close() -> None:
    case = solved().hears(message("m2"), "10:00")
    assert timers(case.state).get("close") is None
    assert case.hears(CloseDue(), "2026-11-27T09:10:00").last.ignored == "nothing_due"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"kind": "auto_reply"}, "automatic"),
        ({"is_automatic": True}, "automatic"),
        ({"kind": "bounce", "is_automatic": True}, "bounce"),
        ({"direction": "outbound"}, "outbound"),
    ],
)
def test_an_automatic_message_opens_nothing_and_reopens_nothing(
    content: dict[str, Any], reason: str
) -> None:
    for case, now in ((Case(), "09:00"), (solved(), "09:30")):
        case.hears(message("m9", **content), now)
        assert case.one(wire.MessageNotTicketed).reason == reason
        assert case.last.messages[0].outcome == reason
        assert case.last.messages[0].ticket_id is None


def test_an_automatic_message_in_a_pending_ticket_is_kept_and_changes_nothing_else() -> None:
    case = opened().held_by("ada").commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    case.hears(message("m2", kind="auto_reply", is_automatic=True), "09:06")
    added = case.one(wire.TicketMessageAdded)
    assert (added.is_automatic, added.kind, added.contact) == (True, "auto_reply", None)
    assert case.status == "pending"


def test_a_doubted_message_does_not_change_where_answers_go() -> None:
    case = opened().hears(
        message("m2", suspicion="no signature", sender={"address": "eve@example.com"}), "09:01"
    )
    assert case.one(wire.TicketMessageAdded).contact is None
    assert case.ticket.contact.address == "ada@example.com"


def test_answers_go_to_the_address_written_from_last() -> None:
    case = opened().hears(
        message("m2", sender={"address": "ada@home.example"}, language=None), "09:01"
    )
    contact = case.one(wire.TicketMessageAdded).contact
    assert contact is not None
    assert (contact.address, contact.language) == ("ada@home.example", "en")


def test_a_message_told_twice_is_counted_once() -> None:
    case = opened().hears(message(), "09:01")
    assert (case.told, case.last.ignored, case.last.messages) == ((), "message_repeated", ())


def test_the_same_conversation_always_gets_the_same_ids() -> None:
    assert opened().ticket.ticket_id == opened().ticket.ticket_id
    assert opened().ticket.work_id == opened().ticket.work_id
    assert opened().ticket.reference.startswith("SB-")


def test_versions_count_without_gaps_over_a_whole_life() -> None:
    case = solved().hears(message("m2"), "10:00").hears(message("m3"), "10:01")
    versions = [e.version for e in case.everything if isinstance(e, wire.TicketEvent)]
    assert versions == list(range(1, len(versions) + 1))


def test_a_conversation_is_named_by_its_key() -> None:
    case = opened()
    assert case.state is not None
    assert case.state.conversation_id == CONVERSATION
    assert not isinstance(case.ticket.standing, Solved)


EAST = read_policy(
    ROUTING_YAML.replace("domains: {main: {}}", "domains: {main: {}, east: {}}").replace(
        "service: {desk: service}", "service: {desk: service, domain: east}"
    ),
    agents_yaml=None,
)
"""The policy after the front line has moved to another domain."""


def test_a_reply_asks_for_a_person_from_now_whatever_was_asked_before() -> None:
    case = opened().held_by("ada")
    case.commands(commands.ReassignTicket, "09:03", to_agent_id="bo").held_by("bo", "09:04")
    case.commands(commands.ReplyToCustomer, "09:05", agent="bo", text="Soon.")
    case.hears(message("m2"), "11:00")
    work = case.one(routing.WorkRequested)
    assert (work.entered_at, work.relax_from) == (at("11:00"), at("11:00"))


def test_a_requeued_ticket_goes_to_the_domain_its_queue_has_now() -> None:
    case = opened().held_by("ada").commands(commands.ReplyToCustomer, "09:05", text="Soon.")
    case.policy = EAST
    assert case.hears(message("m2"), "09:30").one(routing.WorkRequested).domain == "east"
    case.commands(commands.SolveTicket, "09:40")
    assert case.one(routing.WorkWithdrawn).domain == "east"


def test_a_reopened_ticket_goes_to_the_domain_its_queue_has_now() -> None:
    case = solved()
    case.policy = EAST
    assert case.hears(message("m2"), "09:30").one(routing.WorkRequested).domain == "east"


def test_work_is_withdrawn_where_it_was_requested() -> None:
    case = opened().held_by("ada")
    case.policy = EAST
    case.commands(commands.ReassignTicket, "09:05", to_agent_id="bo")
    assert case.one(routing.WorkWithdrawn).domain == "main"
    assert case.one(routing.WorkRequested).domain == "east"


def test_a_ticket_of_a_queue_that_is_gone_stays_in_its_domain() -> None:
    case = Case().hears(message(subject="API"), "09:00").held_by("nils")
    case.commands(commands.ReassignTicket, "09:02", queue="labs").held_by("nils", "09:03")
    case.commands(commands.ReplyToCustomer, "09:05", agent="nils", text="Soon.")
    case.policy = read_policy(ROUTING_YAML.replace("  labs: {desk: technical}\n", ""), None)
    assert case.hears(message("m2"), "09:30").one(routing.WorkRequested).domain == "main"


def test_an_answer_given_at_the_channel_stops_the_wait_and_nobody_is_offered_the_case() -> None:
    """The page's inbox answered: the customer waits no more, and the response clocks hear of it."""
    case = opened(channel="messenger").hears(
        message("m2", channel="messenger", direction="outbound", occurred_at=at("09:05")), "09:06"
    )
    assert case.one(wire.TicketAnsweredElsewhere).occurred_at == at("09:05")
    assert case.one(routing.WorkWithdrawn).reason == "pending"
    assert case.ticket.standing.status == "pending"


def test_a_late_report_of_an_older_answer_leaves_the_customers_new_question_waiting() -> None:
    case = opened().hears(message("m2", occurred_at=at("09:10")), "09:10")
    case.hears(message("m3", direction="outbound", occurred_at=at("09:05")), "09:11")
    assert case.one(wire.TicketAnsweredElsewhere).occurred_at == at("09:05")
    assert case.ticket.standing.status == "queued"


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_message_that_its_writer_changes_is_told_once_and_opens_nothing(change: str) -> None:
    case = opened()
    revised = MessageRevised(
        message_id="m1",
        conversation_id=CONVERSATION,
        customer_id="cust",
        input_id="i9",
        content=message("m1", text="now this", text_new="now this", change=change).content,
    )
    case.hears(revised, "09:01")
    assert case.one(wire.TicketMessageRevised).change == change
    assert case.last.messages == (RevisedRow("m1", "now this"),)
    case.hears(revised, "09:02")
    assert case.last.ignored == "message_repeated"
