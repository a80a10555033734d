"""A routing domain: who is offered what, what answers come to, and what falls due."""

from datetime import timedelta
from typing import Any

import pytest

from schemas import roster, routing
from services.router.core.assignment.domain import ENDED_KEPT
from services.router.core.assignment.explain import expand, static_reasons
from services.router.core.policy.policy_model import OffersModel
from tests.unit.router.stories import Desk, at

FRENCH = {"language": "en", "skills": [{"skill": "french", "level": 4}]}
SLOW = OffersModel(seconds=86_400, max_declines=3)
"""Offers that stand all day, where the test is about something else."""

PATIENT = {
    "language": "en",
    "language_relax_after_seconds": 20,
    "skills": [{"skill": "orders", "level": 3, "relax_after_seconds": 10}],
}


def test_r1_levels_decide_who_is_fit_and_idleness_who_is_chosen() -> None:
    desk = Desk(SLOW)
    for agent_id, level in (("a3", 3), ("a4", 4), ("a5", 5)):
        desk.agent(agent_id, skills={"french": level})
    desk.asks("t1", "09:00", requirement=FRENCH)
    assert desk.offered_to() == [("t1", "a4")]
    record = desk.one(routing.OfferMade).record
    assert record is not None
    assert record.candidates == ("a4", "a5")
    assert record.chosen_by == "longest_idle"
    assert [(e.agent_id, e.rules) for e in record.excluded] == [("a3", ("level:french",))]
    desk.asks("t2", "09:01", requirement=FRENCH)
    assert desk.offered_to() == [("t2", "a5")]


def test_r2_relaxation_counts_from_entry_and_goes_on_while_an_offer_stands() -> None:
    desk = Desk(OffersModel(seconds=5, max_declines=3, away_after_misses=None))
    desk.agent("ada", skills={"orders": 3}, presence="offline")
    desk.agent("bo", languages={"tr": 9}, presence="available")
    desk.asks("t", "09:00:00", requirement=PATIENT)
    desk.presence("ada", "available", "09:00:06")
    assert desk.offered_to() == [("t", "ada")]
    # The offer ends at 11 s; the skill fell away at 10 s meanwhile.
    desk.presence("ada", "away", "09:00:10.500")
    assert desk.one(routing.RequirementRelaxed).relaxed == ("orders",)
    assert desk.domain.next_due() == at("09:00:20")
    desk.tick("09:00:19.999")
    assert desk.told == ()
    desk.tick("09:00:20")
    assert desk.types() == ["relaxed", "offered"]
    offer = desk.one(routing.OfferMade)
    assert (offer.agent_id, offer.waited_seconds) == ("bo", 20)
    assert offer.record is not None
    assert offer.record.relaxed == ("orders", "language")
    assert offer.record.requirement.language is None


def test_r2_work_that_comes_back_with_its_old_age_does_not_begin_to_wait_anew() -> None:
    desk = Desk().agent("bo")
    desk.asks("t", "09:00:15", requirement=PATIENT, entered_at=at("09:00:00"))
    assert desk.offered_to() == [("t", "bo")]


def test_r3_work_that_nobody_can_ever_take_says_so_at_once() -> None:
    desk = Desk().agent("ada", skills={"french": 3})
    desk.asks("t", "09:00", requirement=FRENCH)
    queued = desk.one(routing.TicketQueued)
    assert not queued.is_matchable
    assert queued.record is not None
    assert queued.record.excluded[0].rules == ("level:french",)


def test_r3_a_skill_that_will_fall_away_does_not_make_work_unmatchable() -> None:
    desk = Desk().agent("ada").asks("t", "09:00", requirement=PATIENT)
    assert desk.one(routing.TicketQueued).is_matchable


def test_r3_losing_the_last_who_could_is_told_and_so_is_finding_one() -> None:
    desk = Desk().agent("ada", skills={"french": 5}, presence="offline")
    desk.asks("t", "09:00", requirement=FRENCH)
    assert desk.one(routing.TicketQueued).is_matchable
    desk.agent("ada", "09:01", skills={"french": 1}, presence=None)
    assert not desk.one(routing.TicketQueued).is_matchable
    desk.restart().agent("eve", "09:02", presence=None)
    assert desk.told == ()
    desk.agent("ada", "09:03", skills={"french": 4}, presence=None)
    assert desk.one(routing.TicketQueued).is_matchable


def test_r4_the_last_agent_gets_it_back_if_free_and_is_not_waited_for_if_not() -> None:
    desk = Desk(SLOW).agent("ada").agent("bo")
    desk.asks("t1", "09:00", preferred_agent_id="bo")
    offer = desk.one(routing.OfferMade)
    assert offer.record is not None
    assert (offer.agent_id, offer.record.chosen_by) == ("bo", "preferred")
    desk.presence("bo", "offline", "09:01")
    desk.asks("t2", "09:02", preferred_agent_id="bo")
    assert desk.offered_to() == [("t2", "ada")]


def test_r4_a_last_agent_who_left_or_is_elsewhere_is_explained() -> None:
    desk = Desk().agent("ada").agent("bo", queues=("technical",))
    desk.asks("t1", "09:00", preferred_agent_id="bo").asks("t2", "09:00", preferred_agent_id="gone")
    records = [e.record for e in desk.everything if isinstance(e, routing.OfferMade)]
    rules = [{e.agent_id: e.rules for e in record.excluded} for record in records if record]
    assert rules == [{"bo": ("queue",)}, {"bo": ("queue",), "gone": ("unknown",)}]


def test_r5_the_only_one_is_asked_up_to_the_cap_and_then_somebody_must_look() -> None:
    desk = Desk().agent("ada").asks("t", "09:00")
    desk.declines("t", "09:00:01")
    assert desk.types() == ["requeued", "offered"]
    desk.tick("09:00:31")  # The second offer is missed: that counts alike.
    assert desk.types() == ["requeued", "offered"]
    desk.declines("t", "09:00:40")
    assert desk.types() == ["requeued", "exhausted"]
    assert desk.one(routing.TicketRequeued).declines == 3
    desk.asks("u", "09:03")
    assert desk.offered_to() == [("u", "ada")]  # Excluded for that ticket only.


def test_r5_an_exhausted_ticket_goes_to_whoever_joins_and_is_told_once() -> None:
    desk = Desk(OffersModel(seconds=600, max_declines=1)).agent("ada").agent("bo")
    desk.asks("t", "09:00").declines("t", "09:01").declines("t", "09:02")
    assert desk.types() == ["requeued", "exhausted"]
    desk.agent("cy", "09:03")
    assert desk.offered_to() == [("t", "cy")]
    desk.declines("t", "09:04")
    assert desk.types() == ["requeued"]


def test_r5_removing_the_last_who_has_not_declined_exhausts_the_ticket() -> None:
    desk = Desk(OffersModel(seconds=600, max_declines=1)).agent("ada").agent("bo", presence="away")
    desk.asks("t", "09:00").declines("t", "09:01")
    assert desk.types() == ["requeued"]
    desk.hears(roster.AgentRemoved(domain="main", agent_id="bo"), "09:02")
    assert desk.types() == ["exhausted"]


def test_a_declined_ticket_goes_to_someone_who_has_not_declined_it_first() -> None:
    desk = Desk().agent("ada").agent("bo").asks("t", "09:00")
    desk.declines("t", "09:01")
    offer = desk.one(routing.OfferMade)
    assert offer.agent_id == "bo"
    desk.asks("u", "09:01:01").declines("t", "09:01:02")
    record = desk.one(routing.OfferMade).record
    assert record is not None
    assert record.chosen_by in ("fewest_declines", "longest_idle")


@pytest.mark.parametrize(
    ("now", "expected"),
    [("09:00:29.999", ["assigned"]), ("09:00:30", ["requeued", "offered", "answer_refused"])],
)
def test_r7_an_accept_just_before_the_end_wins_and_at_the_end_loses(
    now: str, expected: list[str]
) -> None:
    desk = Desk().agent("ada").asks("t", "09:00:00")
    assert desk.accepts("t", now).types() == expected


def test_r7_the_loser_is_told_who_won() -> None:
    desk = Desk().agent("ada").agent("bo").asks("t", "09:00")
    first = desk.one(routing.OfferMade)
    desk.tick("09:00:30").accepts("t", "09:00:31")
    late: dict[str, Any] = {"agent": first.agent_id, "reservation": first.reservation_id}
    refusal = desk.accepts("t", "09:00:32", **late).one(routing.OfferAnswerRefused)
    assert (refusal.reason, refusal.winner_id) == ("reservation_expired", "bo")


def test_an_accept_told_twice_is_no_news() -> None:
    desk = Desk().agent("ada").asks("t", "09:00").accepts("t", "09:00:10").accepts("t", "09:00:20")
    assert (desk.told, desk.ignored) == ((), "answer_repeated")


def test_a_decline_told_twice_counts_once() -> None:
    desk = Desk().agent("ada").agent("bo").asks("t", "09:00")
    offer = desk.one(routing.OfferMade)
    again: dict[str, Any] = {"agent": offer.agent_id, "reservation": offer.reservation_id}
    desk.declines("t", "09:00:01", **again).declines("t", "09:00:02", **again)
    assert (desk.told, desk.ignored) == ((), "answer_repeated")


def test_answers_that_are_not_theirs_to_give_are_refused_with_the_reason() -> None:
    desk = Desk().agent("ada").agent("bo").asks("t", "09:00")
    assert (
        desk.accepts("t", "09:00:01", agent="bo").one(routing.OfferAnswerRefused).reason
        == "not_yours"
    )
    made_up = desk.accepts("t", "09:00:02", reservation="r-none").one(routing.OfferAnswerRefused)
    assert made_up.reason == "reservation_unknown"
    assert desk.accepts("nope", "09:00:03").ignored == "ticket_unknown"


def test_an_answer_for_withdrawn_work_is_refused_while_it_is_remembered() -> None:
    desk = Desk().agent("ada").asks("t", "09:00")
    offer = desk.one(routing.OfferMade)
    late: dict[str, Any] = {"agent": "ada", "reservation": offer.reservation_id}
    desk.withdraws("t", "09:00:10").restart()
    refusal = desk.accepts("t", "09:00:11", **late).one(routing.OfferAnswerRefused)
    assert (refusal.reason, refusal.winner_id) == ("ticket_unknown", None)
    later = at("09:00:10") + ENDED_KEPT
    desk.asks("u", "09:15:09").withdraws("u", "09:15:10")
    assert "w-t" not in desk.domain.works
    assert desk.domain.gone_works == {"w-t"}
    assert later == at("09:15:10")


def test_r8_freed_capacity_goes_to_the_oldest_eligible_ticket_and_not_to_the_next_arrival() -> None:
    desk = Desk(SLOW).agent("ada", capacity=10).asks("t1", "09:00").accepts("t1", "09:00:01")
    desk.asks("t2", "09:01").asks("t3", "09:02").asks("x", "08:59", queue="technical")
    desk.withdraws("t1", "09:03")
    assert desk.offered_to() == [("t2", "ada")]


@pytest.mark.parametrize("raised_by", ["solve", "shift", "capacity", "skill"])
def test_r8_whatever_frees_someone_finds_the_oldest(raised_by: str) -> None:
    desk = Desk(SLOW).agent("ada", capacity=10, skills={"french": 1}).asks("busy", "09:00")
    need = FRENCH if raised_by == "skill" else {"language": "en"}
    desk.asks("old", "09:01", requirement=need).asks("new", "09:02", requirement=need)
    if raised_by == "solve":
        desk.withdraws("busy", "09:03:00")
    elif raised_by == "shift":
        desk.agent("bo", "09:03:00", skills={"french": 4}, capacity=10)
    elif raised_by == "capacity":
        desk.agent("ada", "09:03:00", capacity=20, skills={"french": 1}, presence=None)
    else:
        desk.agent("ada", "09:03:00", capacity=20, skills={"french": 4}, presence=None)
    assert [ticket for ticket, _ in desk.offered_to()] == ["old"]


def test_r10_weights_share_one_budget() -> None:
    desk = Desk(SLOW).agent("ada", capacity=100)
    for n in range(5):
        desk.asks(f"chat{n}", f"09:00:0{n}", cost=20)
    desk.asks("call", "09:01", cost=100)
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert record.excluded[0].rules == ("capacity",)
    assert desk.domain.agents["ada"].load == 100


def test_r12_unmatchable_urgent_work_in_front_does_not_delay_what_can_be_taken() -> None:
    desk = Desk().agent("ada", presence="away")
    for n in range(50):
        desk.asks(f"u{n}", "09:00", priority=1, requirement=FRENCH)
    desk.asks("low", "09:01", priority=4).presence("ada", "available", "09:02")
    assert desk.offered_to() == [("low", "ada")]


def test_urgent_work_goes_first_then_the_oldest_then_by_id() -> None:
    desk = Desk().agent("ada", capacity=0, presence="available")
    desk.asks("late", "09:02").asks("b", "09:01").asks("a", "09:01").asks(
        "urgent", "09:03", priority=1
    )
    desk.agent("ada", "09:04", capacity=100, presence=None)
    assert [ticket for ticket, _ in desk.offered_to()] == ["urgent", "a", "b", "late"]


def test_a_raised_priority_moves_waiting_work_and_leaves_an_offer_alone() -> None:
    desk = Desk().agent("ada", capacity=0).asks("a", "09:00").asks("b", "09:01")
    desk.asks("b", "09:01", priority=1)
    assert desk.told == ()
    desk.agent("ada", "09:02", capacity=10, presence=None)
    assert desk.offered_to() == [("b", "ada")]
    desk.asks("b", "09:01", priority=2)
    assert (desk.told, desk.domain.works["w-b"].status) == ((), "offered")
    assert desk.asks("b", "09:01", priority=2).ignored == "work_repeated"


def test_r15_equals_are_told_apart_by_idleness_and_then_by_id() -> None:
    desk = Desk().agent("bo").agent("ada").agent("cy")
    order = [desk.asks(f"t{n}", f"09:00:0{n}").offered_to()[0][1] for n in range(4)]
    assert order == ["ada", "bo", "cy", "ada"]


@pytest.mark.parametrize("presence", ["away", "offline"])
def test_r16_whoever_is_not_available_is_offered_nothing(presence: str) -> None:
    desk = Desk().agent("ada", presence=presence).asks("t", "09:00")
    queued = desk.one(routing.TicketQueued)
    assert queued.is_matchable
    assert queued.record is not None
    assert queued.record.excluded[0].rules == ("absent",)


def test_r16_a_new_agent_is_offline_until_they_say_otherwise() -> None:
    assert Desk().agent("ada", presence=None).asks("t", "09:00").offered_to() == []


def test_r17_an_agent_without_capacity_takes_nothing() -> None:
    desk = Desk().agent("ada", capacity=0).asks("t", "09:00")
    assert not desk.one(routing.TicketQueued).is_matchable


def test_the_record_names_every_rule_that_stands_against_someone() -> None:
    desk = Desk().agent(
        "ada", queues=("technical",), languages={"tr": 9}, capacity=5, presence="away"
    )
    desk.asks("t", "09:00", requirement=FRENCH, excluded_agent_ids=["ada"])
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert record.excluded[0].rules == (
        "absent",
        "queue",
        "language",
        "skill:french",
        "capacity",
        "excluded",
    )


def test_an_offer_says_until_when_and_for_how_long_the_ticket_waited() -> None:
    desk = (
        Desk()
        .agent("ada", presence="away")
        .asks("t", "09:00")
        .presence("ada", "available", "09:01")
    )
    offer = desk.one(routing.OfferMade)
    assert (offer.offered_at, offer.expires_at) == (at("09:01"), at("09:01:30"))
    assert (offer.waited_seconds, offer.cost, offer.domain) == (60, 10, "main")
    assert desk.domain.next_due() == at("09:01:30")


def test_nothing_expires_before_its_time() -> None:
    desk = Desk().agent("ada").asks("t", "09:00").tick("09:00:29.999")
    assert (desk.told, desk.ignored) == ((), "nothing_due")


def test_whoever_misses_offers_in_a_row_is_set_away_and_their_other_offers_return() -> None:
    desk = Desk().agent("ada")
    desk.asks("a", "09:00:00").asks("b", "09:00:00").asks("c", "09:00:10")
    desk.tick("09:00:30")
    assert desk.domain.agents["ada"].presence == "away"
    reasons = {
        e.ticket_id: e.reason for e in desk.everything if isinstance(e, routing.TicketRequeued)
    }
    assert reasons["b"] == "offer_expired"
    assert reasons["c"] == "agent_away"
    desk.presence("ada", "available", "09:05")
    assert len(desk.offered_to()) == 3


def test_an_answer_ends_the_row_of_misses() -> None:
    desk = Desk().agent("ada").asks("a", "09:00").tick("09:00:30").accepts("a", "09:00:31")
    desk.asks("b", "09:01").tick("09:01:30")
    assert desk.domain.agents["ada"].presence == "available"


def test_going_away_returns_offers_and_keeps_what_was_accepted() -> None:
    desk = (
        Desk().agent("ada").asks("mine", "09:00").accepts("mine", "09:00:01").asks("t", "09:00:02")
    )
    desk.presence("ada", "away", "09:00:10")
    requeued = desk.one(routing.TicketRequeued)
    assert (requeued.ticket_id, requeued.reason, requeued.declines) == ("t", "agent_away", 0)
    assert desk.domain.works["w-mine"].status == "assigned"


def test_leaving_returns_everything_at_its_old_place() -> None:
    desk = (
        Desk().agent("ada").asks("mine", "09:00").accepts("mine", "09:00:01").asks("t", "09:00:02")
    )
    desk.agent("bo", "09:00:03", capacity=10).asks("x", "09:00:04").asks("y", "09:00:05")
    desk.hears(roster.AgentRemoved(domain="main", agent_id="ada"), "09:00:10")
    returned = [e.ticket_id for e in desk.told if isinstance(e, routing.TicketRequeued)]
    assert "mine" in returned
    assert desk.domain.works["w-mine"].entered_at == at("09:00")
    assert desk.domain.gone_agents == {"ada"}


def test_a_lowered_capacity_keeps_what_is_held_and_takes_nothing_new() -> None:
    desk = Desk(SLOW).agent("ada", capacity=30)
    for n in range(3):
        desk.asks(f"t{n}", "09:00")
    desk.agent("ada", "09:01", capacity=10, presence=None)
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.capacity, agent.ceiling) == (30, 10, 30)
    desk.withdraws("t0", "09:01:01")
    assert (agent.load, agent.ceiling) == (20, 20)
    desk.withdraws("t1", "09:01:02").withdraws("t2", "09:01:03")
    assert (agent.load, agent.ceiling) == (0, 10)


def test_what_changes_nothing_is_ignored_by_name() -> None:
    desk = Desk().agent("ada")
    assert desk.agent("ada", presence=None).ignored == "agent_unchanged"
    assert desk.presence("ada", "available", "09:00").ignored == "presence_unchanged"
    assert desk.presence("eve", "available", "09:00").ignored == "agent_unknown"
    gone = roster.AgentRemoved(domain="main", agent_id="eve")
    assert desk.hears(gone, "09:00").ignored == "agent_unknown"
    assert desk.withdraws("t", "09:00").ignored == "work_unknown"
    desk.asks("t", "09:00").withdraws("t", "09:01")
    assert desk.withdraws("t", "09:02").ignored == "work_ended"
    assert desk.asks("t", "09:03").ignored == "work_ended"


def test_a_second_request_of_a_ticket_takes_the_place_of_the_first() -> None:
    desk = Desk(SLOW).agent("ada").asks("t", "09:00").asks("t", "09:01", work_id="w-t2")
    assert desk.types() == ["released", "offered"]
    assert desk.domain.live["t"] == "w-t2"


def test_withdrawn_work_frees_its_agent_and_says_who() -> None:
    desk = Desk().agent("ada").asks("t", "09:00").accepts("t", "09:00:01").withdraws("t", "09:30")
    released = desk.one(routing.WorkReleased)
    assert (released.agent_id, released.reason) == ("ada", "solved")
    assert desk.domain.agents["ada"].load == 0


def test_in_a_large_domain_those_who_could_are_codes_and_the_roster_says_the_rest() -> None:
    desk = Desk()
    for n in range(60):
        desk.agent(f"a{n:02}", queues=("technical" if n % 2 else "service",), presence="away")
    desk.agent("a00", "08:01", capacity=5, presence=None)
    desk.asks("t", "09:00", excluded_agent_ids=["a02"])
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert (record.excluded, record.codes_of) == ((), "able")
    static = static_reasons(desk.domain, "service", desk.domain.works["w-t"].effective)
    rules = expand(record, static)
    assert rules["a00"] == ("absent", "capacity")
    assert rules["a02"] == ("absent", "excluded")
    assert rules["a04"] == ("absent",)
    assert rules["a01"] == ("queue",)
    assert len(rules) == 60


def test_a_late_tick_does_everything_that_was_due_in_its_order() -> None:
    desk = Desk(OffersModel(seconds=30, max_declines=9, away_after_misses=None)).agent("ada")
    soon = {"language": "en", "skills": [{"skill": "french", "level": 4, "relax_after_seconds": 2}]}
    desk.asks("a", "09:00:00").asks("b", "09:00:05").asks("c", "09:00:06", requirement=soon)
    desk.tick("09:10")
    first = [
        (e.TYPE.split(".")[1], e.ticket_id) for e in desk.told if e.TYPE.split(".")[1] != "offered"
    ]
    assert first == [("relaxed", "c"), ("requeued", "a"), ("requeued", "b")]
    assert desk.domain.next_due() == at("09:10") + timedelta(seconds=30)


def test_patience_counts_from_where_the_request_says_and_age_from_entry() -> None:
    desk = Desk().agent("bo", capacity=0)
    desk.asks("new", "09:59:00", requirement={"language": "en"})
    desk.asks(
        "old", "10:00:00", requirement=PATIENT, entered_at=at("09:00"), relax_from=at("10:00")
    )
    assert desk.domain.works["w-old"].relaxed == ()
    assert desk.domain.next_due() == at("10:00:10")
    desk.restart().tick("10:00:10")
    assert desk.one(routing.RequirementRelaxed).relaxed == ("orders",)
    desk.agent("bo", "10:00:11", presence=None)
    assert desk.offered_to() == [("old", "bo"), ("new", "bo")]


def test_work_that_comes_back_keeps_the_patience_it_came_with() -> None:
    desk = Desk().agent("ada", skills={"orders": 3})
    desk.asks("t", "10:00:00", requirement=PATIENT, entered_at=at("09:00"), relax_from=at("10:00"))
    desk.presence("ada", "away", "10:00:09")
    assert desk.types() == ["requeued"]
    assert desk.domain.next_due() == at("10:00:10")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_raised_cap_of_declines_opens_what_waits_at_the_next_event(is_restarted: bool) -> None:
    desk = Desk(OffersModel(seconds=600, max_declines=1)).agent("ada")
    desk.asks("t", "09:00").declines("t", "09:01")
    assert desk.types() == ["requeued", "exhausted"]
    if is_restarted:
        desk.restart()
    desk.rules = OffersModel(seconds=600, max_declines=2)
    desk.asks("x", "09:02", queue="technical")
    assert desk.offered_to() == [("t", "ada")]
