"""A low answer to a survey has the case looked at by a person, once, with a draft before them and nothing sent."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from schemas import commands, ids, routing
from schemas import tickets as wire
from schemas.feedback import FeedbackGiven, feedback_id, survey_id
from services.router.core.policy.policy_model import PolicyMistake
from services.router.core.tickets import decide
from services.router.core.tickets.state import Queued
from tests.unit.router.stories import CONVERSATION, ROUTING_YAML, Case, at, message, read_policy

WITH_LEADS = ROUTING_YAML.replace(
    "  labs: {desk: technical}", "  labs: {desk: technical}\n  leads: {desk: service}"
)
POLICY = read_policy(WITH_LEADS + "feedback: {queue: leads, priority: 1}\n")


def given_feedback(ticket_id: str, score: int = 1, **fields: Any) -> FeedbackGiven:
    kind = fields.get("kind", "csat")
    survey = survey_id(ticket_id, kind)
    revision = fields.get("revision", 1)
    return FeedbackGiven.model_validate(
        {
            "feedback_id": feedback_id(survey, revision),
            "survey_id": survey,
            "conversation_id": CONVERSATION,
            "ticket_id": ticket_id,
            "kind": kind,
            "score": score,
            "asked_at": at("09:30"),
            "occurred_at": at("10:00"),
            **fields,
        }
    )


def solved(policy: Any = POLICY) -> Case:
    case = Case(policy).hears(message(), "09:00").held_by("ada")
    return case.commands(commands.SolveTicket, "09:20")


def hears(case: Case, event: FeedbackGiven, now: str = "10:00") -> decide.Decision:
    instant: datetime = at(now)
    decision = decide.decide(case.state, event, instant, case.policy, instant)
    case.state, case.told = decision.state, decision.events
    return decision


def kinds(decision: decide.Decision) -> list[str]:
    return [event.TYPE for event in decision.events]


def note_of(decision: decide.Decision) -> str:
    (note,) = (event for event in decision.events if isinstance(event, wire.TicketNoteAdded))
    return note.text


def test_a_low_answer_puts_a_solved_case_into_the_leads_queue_with_a_draft() -> None:
    case = solved()
    decision = hears(case, given_feedback(case.ticket.ticket_id, 2))
    assert kinds(decision) == [
        "ticket.prioritised.v1",
        "ticket.reopened.v1",
        "work.requested.v1",
        "ticket.note_added.v1",
    ]
    reopened = decision.events[1]
    assert isinstance(reopened, wire.TicketReopened)
    assert (reopened.queue, reopened.by, reopened.reopen_count) == ("leads", "feedback", 0)
    asked = decision.events[2]
    assert isinstance(asked, routing.WorkRequested)
    assert (asked.queue, asked.priority) == ("leads", 1)
    assert isinstance(case.ticket.standing, Queued)
    assert case.ticket.standing.work_id == asked.work_id
    note = note_of(decision)
    assert "Nothing is sent by itself" in note
    assert "I have read your case again" in note


def test_the_score_stands_in_the_note_only_if_the_customer_agreed() -> None:
    case = solved()
    secret = given_feedback(case.ticket.ticket_id, 1, comment="Rude on the phone.")
    note = note_of(hears(case, secret))
    assert "Rude" not in note
    assert "1 of 5" not in note
    case = solved()
    shared = given_feedback(case.ticket.ticket_id, 1, comment="Rude on the phone.", may_share=True)
    note = note_of(hears(case, shared))
    assert "gave 1 of 5 (satisfaction)" in note
    assert "Rude on the phone." in note


@pytest.mark.parametrize(
    ("kind", "score", "is_low"),
    [
        ("csat", 2, True),
        ("csat", 3, False),
        ("ces", 3, True),
        ("ces", 4, False),
        ("nps", 6, True),
        ("nps", 7, False),
        ("nps", 0, True),
    ],
)
def test_every_detractor_is_a_task_and_nobody_else(kind: str, score: int, is_low: bool) -> None:
    case = solved()
    decision = hears(case, given_feedback(case.ticket.ticket_id, score, kind=kind))
    assert (decision.ignored is None) is is_low
    if not is_low:
        assert decision.ignored == "not_low"
        assert decision.events == ()


def test_one_survey_makes_one_task_however_often_it_is_heard_or_changed() -> None:
    case = solved()
    first = given_feedback(case.ticket.ticket_id, 1)
    hears(case, first)
    assert hears(case, first).ignored == "feedback_repeated"
    changed = given_feedback(
        case.ticket.ticket_id, 5, revision=2, corrects=first.feedback_id, may_share=True
    )
    decision = hears(case, changed, "10:05")
    assert kinds(decision) == ["ticket.note_added.v1"]
    assert "has changed their answer" in note_of(decision)
    assert "5 of 5" in note_of(decision)


def test_an_earlier_word_that_arrives_after_the_last_makes_no_task() -> None:
    """Two clicks at once: the second, happy one is heard first."""
    case = solved()
    last = given_feedback(case.ticket.ticket_id, 5, revision=2)
    assert hears(case, last).ignored == "not_low"
    decision = hears(case, given_feedback(case.ticket.ticket_id, 1))
    assert (decision.ignored, decision.events) == ("feedback_superseded", ())


def test_a_mind_that_changes_to_the_worse_makes_the_task() -> None:
    case = solved()
    assert hears(case, given_feedback(case.ticket.ticket_id, 4)).ignored == "not_low"
    decision = hears(case, given_feedback(case.ticket.ticket_id, 1, revision=2), "10:05")
    assert "ticket.reopened.v1" in kinds(decision)


def test_a_case_that_is_open_becomes_more_urgent_and_stays_where_it_is() -> None:
    case = Case(POLICY).hears(message(), "09:00").held_by("ada")
    decision = hears(case, given_feedback(case.ticket.ticket_id, 1))
    assert "ticket.prioritised.v1" in kinds(decision)
    assert "ticket.reopened.v1" not in kinds(decision)
    assert case.ticket.assignee_id == "ada"
    assert case.ticket.queue == "service"


def test_a_late_low_answer_about_a_closed_case_opens_one_that_follows_it() -> None:
    case = solved()
    ticket_id = case.ticket.ticket_id
    closed_at = at("09:20") + timedelta(hours=73)
    closing = decide.decide(case.state, decide.CloseDue(), closed_at, POLICY, closed_at)
    case.state = closing.state
    decision = hears(case, given_feedback(ticket_id, 1), "2026-12-20T10:00")
    opened = decision.events[0]
    assert isinstance(opened, wire.TicketOpened)
    assert (opened.by, opened.queue, opened.priority) == ("feedback", "leads", 1)
    assert (opened.follows, opened.number) == (ticket_id, 2)
    assert case.ticket.ticket_id == ids.ticket_id(CONVERSATION, 2) == opened.ticket_id
    assert f"about {ids.ticket_reference(ticket_id)}, which is closed" in note_of(decision)
    versions = [e.version for e in decision.events if isinstance(e, wire.TicketEvent)]
    assert versions == list(range(1, len(versions) + 1))


def test_several_low_answers_within_days_make_one_task_and_one_draft() -> None:
    """Two questions about one case, and one about an earlier case: a person looks once, and reads of all of them."""
    case = solved()
    ticket_id = case.ticket.ticket_id
    assert "A draft for a personal answer" in note_of(hears(case, given_feedback(ticket_id, 1)))
    second = hears(case, given_feedback(ticket_id, 2, kind="nps"), "11:00")
    assert kinds(second) == ["ticket.note_added.v1"]
    assert "no second one" in note_of(second)
    assert "A draft" not in note_of(second)

    # Somebody has looked and solved it: what was asked before that is behind it.
    case.held_by("ada", "11:30").commands(commands.SolveTicket, "12:00")
    third = hears(case, given_feedback(ticket_id, 1, kind="ces"), "12:30")
    assert kinds(third) == ["ticket.note_added.v1"]


def test_who_is_asked_after_somebody_looked_and_is_unhappy_still_is_looked_at_anew() -> None:
    case = solved()
    ticket_id = case.ticket.ticket_id
    hears(case, given_feedback(ticket_id, 1))
    case.held_by("ada", "11:30").commands(commands.SolveTicket, "12:00")
    again = given_feedback(ticket_id, 1, kind="nps", asked_at=at("12:10"))
    decision = hears(case, again, "12:30")
    assert "ticket.reopened.v1" in kinds(decision)
    assert "A draft for a personal answer" in note_of(decision)


@pytest.mark.parametrize(("days", "is_task"), [(6, False), (8, True)])
def test_a_low_answer_about_another_closed_case_opens_no_second_one_within_days(
    days: int, is_task: bool
) -> None:
    case = solved()
    ticket_id = case.ticket.ticket_id
    hears(case, given_feedback(ticket_id, 1))
    case.held_by("ada", "11:30").commands(commands.SolveTicket, "12:00")
    closed_at = at("12:00") + timedelta(hours=73)
    closing = decide.decide(case.state, decide.CloseDue(), closed_at, POLICY, closed_at)
    case.state = closing.state
    now = at("10:00") + timedelta(days=days)
    event = given_feedback(ticket_id, 1, kind="nps")
    decision = decide.decide(case.state, event, now, POLICY, now)
    assert bool(decision.events) is is_task
    assert decision.ignored == (None if is_task else "looked_at_already")


def test_an_answer_that_is_corrected_upwards_withdraws_the_draft_unless_another_is_low() -> None:
    case = solved()
    ticket_id = case.ticket.ticket_id
    hears(case, given_feedback(ticket_id, 1))
    hears(case, given_feedback(ticket_id, 2, kind="nps"), "10:01")
    better = hears(case, given_feedback(ticket_id, 5, revision=2), "10:02")
    assert "the draft stands" in note_of(better)
    assert "asks for no personal look" in note_of(better), "nor is it said to ask for one"
    best = hears(case, given_feedback(ticket_id, 10, kind="nps", revision=2), "10:03")
    assert "draft of a personal answer is withdrawn" in note_of(best)
    assert case.state is not None
    assert case.state.recovery is None


def test_who_left_no_address_is_looked_at_and_no_draft_is_made_for_nobody() -> None:
    sender = {"address": "", "kind": "none", "name": "A guest"}
    case = Case(POLICY).hears(message(sender=sender), "09:00").held_by("ada")
    case.commands(commands.SolveTicket, "09:20")
    decision = hears(case, given_feedback(case.ticket.ticket_id, 1))
    assert "ticket.reopened.v1" in kinds(decision)
    note = note_of(decision)
    assert "No address of theirs is known" in note
    assert "I have read your case again" not in note


def test_without_the_rule_or_of_an_unknown_case_nothing_comes_of_it() -> None:
    case = solved(read_policy())
    assert hears(case, given_feedback(case.ticket.ticket_id, 1)).ignored == "no_rule"
    assert hears(case, given_feedback("a ticket of nobody", 1)).ignored == "ticket_unknown"
    nobody = decide.decide(None, given_feedback("t", 1), at("10:00"), POLICY, at("10:00"))
    assert (nobody.state, nobody.ignored) == (None, "ticket_unknown")


def test_the_draft_is_in_the_customers_language_and_greets_nobody_by_what_they_typed() -> None:
    case = Case(POLICY).hears(message(language="tr"), "09:00").held_by("ada")
    assert case.ticket.contact.name
    note = note_of(hears(case, given_feedback(case.ticket.ticket_id, 1)))
    assert "özür dilerim" in note
    assert "Merhaba,\n" in note
    assert case.ticket.contact.name not in note


@pytest.mark.parametrize(
    ("feedback", "path"),
    [
        ("{queue: nowhere}", "feedback.queue"),
        ("{queue: technical}", "feedback.queue"),
        ("{queue: leads, low: {csat: 5}}", "feedback.low.csat"),
        ("{queue: leads, low: {ces: 0}}", "feedback.low.ces"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_with_its_path(feedback: str, path: str) -> None:
    with pytest.raises(PolicyMistake) as caught:
        read_policy(WITH_LEADS + f"feedback: {feedback}\n")
    assert caught.value.path == path
