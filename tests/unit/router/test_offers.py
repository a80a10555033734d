"""Offers to several at once, work that is nobody's to refuse, transfers, and the customer's known agent."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import routing
from services.router.core.assignment.assign import faded
from services.router.core.assignment.domain import KNOWN_KEPT, KNOWN_MAX, Domain, Known, Work
from services.router.core.assignment.requirement import Requirement
from services.router.core.policy.policy_model import OffersModel
from tests.unit.router.stories import Desk, at, one

SLOW = OffersModel(seconds=3600, max_declines=3)
RULES = OffersModel(seconds=30, max_declines=3, away_after_misses=None)


def record_of(event: routing.OfferMade | routing.TicketQueued) -> routing.DecisionRecord:
    assert event.record is not None
    return event.record


# ---------------------------------------------------------------------------------- several at once


def _three(rules: OffersModel = RULES, **more: Any) -> Desk:
    desk = Desk(rules, parallel={"service": 2}, **more)
    return desk.agent("ada", capacity=10).agent("bo", capacity=10).agent("cy", capacity=10)


def test_a_ticket_is_offered_to_as_many_as_the_queue_asks_and_takes_all_their_capacity() -> None:
    desk = _three().asks("t", "09:00")
    assert desk.offered_to() == [("t", "ada"), ("t", "bo")]
    assert len({e.reservation_id for e in desk.told if isinstance(e, routing.OfferMade)}) == 2
    assert [desk.domain.agents[name].load for name in ("ada", "bo", "cy")] == [10, 10, 0]
    assert desk.asks("u", "09:00:01").offered_to() == [("u", "cy")]


def test_the_first_to_accept_has_it_and_the_others_have_their_capacity_back_at_once() -> None:
    desk = _three().asks("t", "09:00").asks("u", "09:00").asks("v", "09:00:01")
    assert desk.types() == ["queued"]
    desk.accepts("t", "09:00:02", agent="bo")
    assert desk.types() == ["assigned", "offer_withdrawn", "offered"]
    withdrawn = desk.one(routing.OfferWithdrawn)
    assert (withdrawn.agent_id, withdrawn.reason) == ("ada", "taken_by_other")
    assert desk.offered_to() == [("v", "ada")]
    assert desk.domain.works["w-t"].others == ()


def test_r7_whoever_accepts_second_is_told_who_won_and_when() -> None:
    desk = _three().asks("t", "09:00")
    late = desk.domain.works["w-t"].others[0]
    desk.accepts("t", "09:00:02", agent="ada").restart()
    desk.accepts("t", "09:00:03", agent="bo", reservation=late.reservation_id)
    refused = desk.one(routing.OfferAnswerRefused)
    assert (refused.reason, refused.winner_id, refused.winner_at) == (
        "reservation_expired",
        "ada",
        at("09:00:02"),
    )


def test_one_of_several_declines_and_the_ticket_goes_on_being_offered_to_the_rest() -> None:
    desk = _three().asks("t", "09:00").declines("t", "09:00:01", agent="ada")
    assert desk.types() == ["offer_withdrawn"]
    assert desk.one(routing.OfferWithdrawn).declines == 1
    work = desk.domain.works["w-t"]
    assert (work.status, work.agent_id, work.declines) == ("offered", "bo", {"ada": 1})
    desk.restart().accepts("t", "09:00:29", agent="bo")
    assert desk.one(routing.TicketAssigned).agent_id == "bo"


def test_all_of_several_miss_it_and_each_miss_counts() -> None:
    desk = _three().asks("t", "09:00:00").tick("09:00:29.999")
    assert desk.told == ()
    desk.tick("09:00:30")
    assert desk.types() == ["offer_withdrawn", "requeued", "offered", "offered"]
    assert desk.domain.works["w-t"].declines == {"ada": 1, "bo": 1}
    assert desk.offered_to() == [("t", "cy"), ("t", "ada")]


def test_a_promoted_offer_still_ends_when_the_first_would_have() -> None:
    desk = _three().asks("t", "09:00").declines("t", "09:00:10", agent="ada").restart()
    assert desk.domain.next_due() == at("09:00:30")
    assert desk.tick("09:00:30").types()[0] == "requeued"


def test_one_of_several_goes_away_and_withdrawing_the_ticket_frees_all() -> None:
    desk = _three().asks("t", "09:00").presence("ada", "away", "09:00:01")
    assert desk.one(routing.OfferWithdrawn).reason == "agent_away"
    desk.presence("ada", "available", "09:00:02").withdraws("t", "09:00:03")
    assert [agent.load for agent in desk.domain.agents.values()] == [0, 0, 0]
    desk.asks("u", "09:01").withdraws("u", "09:01:01")
    assert desk.types() == ["offer_withdrawn", "released"]
    assert desk.one(routing.OfferWithdrawn).reason == "work_ended"


def test_the_known_agent_is_asked_alone() -> None:
    desk = _three().asks("t", "09:00", preferred_agent_id="cy")
    assert desk.offered_to() == [("t", "cy")]


# -------------------------------------------------------------------------------------- auto-accept


@pytest.mark.parametrize("how", ["agent", "queue"])
def test_where_nobody_is_asked_offer_and_assignment_are_one_decision(how: str) -> None:
    desk = Desk(RULES, auto_accept=("service",) if how == "queue" else ())
    desk.agent("ada", auto_accept=how == "agent").asks("t", "09:00")
    assert desk.types() == ["offered", "assigned"]
    assert desk.one(routing.TicketAssigned).how == "auto"
    desk.tick("09:30")
    assert desk.domain.works["w-t"].status == "assigned"


def test_whoever_takes_what_comes_is_never_one_of_several() -> None:
    desk = Desk(RULES, parallel={"service": 3})
    desk.agent("ada").agent("bo", auto_accept=True).agent("cy").asks("t", "09:00")
    assert desk.offered_to() == [("t", "ada"), ("t", "cy")]
    assert desk.asks("u", "09:00:01").types() == ["offered", "assigned"]
    assert desk.offered_to() == [("u", "bo")]


# ----------------------------------------------------------------------------------- R5, all declined


@pytest.mark.parametrize("how", ["decline", "miss"])
def test_r5_the_sole_qualified_agent_is_asked_up_to_the_cap_and_then_somebody_is_told(
    how: str,
) -> None:
    desk = Desk(RULES).agent("ada").asks("t", "09:00:00")
    for n in range(3):
        assert desk.offered_to() == [("t", "ada")]
        if how == "decline":
            desk.declines("t", f"09:00:1{n}")
        else:
            desk.tick(f"09:0{n}:40")
    assert desk.offered_to() == []
    assert desk.types() == ["requeued", "exhausted"]
    assert desk.one(routing.TicketRequeued).declines == 3
    assert desk.asks("u", "09:05").offered_to() == [("u", "ada")]


def test_r5_declines_and_misses_count_alike_and_for_that_ticket_alone() -> None:
    desk = Desk(RULES).agent("ada").asks("t", "09:00:00")
    desk.declines("t", "09:00:01").tick("09:00:31").declines("t", "09:00:32")
    assert desk.domain.works["w-t"].declines == {"ada": 3}
    assert desk.types() == ["requeued", "exhausted"]


# ---------------------------------------------------------------------------------------- transfers


def test_a_direct_transfer_is_theirs_at_once_whatever_queue_and_skill_say() -> None:
    desk = Desk(SLOW).agent("nils", queues=("technical",), languages={"tr": 9})
    desk.asks("t", "09:00", preferred_agent_id="nils", transfer="direct")
    assert desk.types() == ["offered", "assigned"]
    assigned = desk.one(routing.TicketAssigned)
    assert (assigned.agent_id, assigned.how, assigned.overfull) == ("nils", "direct", False)
    assert record_of(desk.one(routing.OfferMade)).chosen_by == "transfer"


@pytest.mark.parametrize(
    ("how", "rules"),
    [
        ("full", ("capacity",)),
        ("away", ("absent",)),
        ("excluded", ("excluded",)),
        ("nobody", ("unknown",)),
        ("away and full", ("absent", "capacity")),
    ],
)
def test_a_direct_transfer_that_does_not_fit_says_so_and_waits_as_any_other(
    how: str, rules: tuple[str, ...]
) -> None:
    desk = Desk(SLOW).agent("ada", capacity=10).agent("bo")
    if "full" in how:
        desk.asks("x", "08:30", preferred_agent_id="ada").accepts("x", "08:31")
    if "away" in how:
        desk.presence("ada", "away", "08:32")
    excluded = ["ada"] if how == "excluded" else []
    name = "eve" if how == "nobody" else "ada"
    desk.asks("t", "09:00", preferred_agent_id=name, transfer="direct", excluded_agent_ids=excluded)
    refused = desk.one(routing.TransferRefused)
    assert (refused.agent_id, refused.reason, refused.rules) == (name, rules[0], rules)
    assert desk.offered_to() == [("t", "ada" if how == "nobody" else "bo")]


def test_a_transfer_to_nobody_in_particular_is_refused() -> None:
    desk = Desk(SLOW).agent("ada").asks("t", "09:00", transfer="forced")
    assert desk.one(routing.TransferRefused).reason == "unknown"


def test_r9_only_force_overfills_and_it_says_so() -> None:
    desk = Desk(SLOW).agent("ada", capacity=10).asks("x", "08:30").accepts("x", "08:31")
    desk.asks("t", "09:00", preferred_agent_id="ada", transfer="forced")
    assigned = desk.one(routing.TicketAssigned)
    assert (assigned.how, assigned.overfull) == ("forced", True)
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.capacity, agent.ceiling) == (20, 10, 20)
    assert desk.restart().asks("u", "09:01").types() == ["queued"]
    desk.withdraws("t", "09:02")
    agent = desk.domain.agents["ada"]
    assert (agent.load, agent.ceiling) == (10, 10)
    assert desk.types() == ["released"]


def test_force_gives_nothing_to_whoever_is_not_there() -> None:
    desk = Desk(SLOW).agent("ada", presence="away", capacity=0)
    desk.asks("t", "09:00", preferred_agent_id="ada", transfer="forced")
    refused = desk.one(routing.TransferRefused)
    assert refused.rules == ("absent",)
    assert desk.domain.works["w-t"].status == "waiting"


def test_force_where_there_is_room_is_not_overfull() -> None:
    desk = Desk(SLOW).agent("ada").asks("t", "09:00", preferred_agent_id="ada", transfer="forced")
    assigned = desk.one(routing.TicketAssigned)
    assert (assigned.how, assigned.overfull) == ("forced", False)


# ------------------------------------------------------------------------------------ the known agent

KNOWN: dict[str, Any] = {"customer_id": "k1", "known_patience_seconds": 120.0}


def _known(desk: Desk) -> Desk:
    """Ada took a ticket of the customer at nine, by mail, and is free again."""
    desk.asks("first", "09:00", customer_id="k1", channel="email", preferred_agent_id="ada")
    return desk.accepts("first", "09:00").withdraws("first", "09:01")


def test_whoever_took_the_customers_last_ticket_is_known_on_every_channel() -> None:
    desk = _known(Desk(SLOW).agent("ada", capacity=10).agent("bo")).restart()
    desk.asks("t", "09:10", channel="chat", **KNOWN)
    assert desk.offered_to() == [("t", "ada")]
    record = record_of(desk.one(routing.OfferMade))
    assert (record.chosen_by, record.known_agent, record.known_from) == (
        "preferred",
        "ada",
        "customer",
    )


@pytest.mark.parametrize(
    ("asked", "until"), [("09:00", "09:02:00"), ("10:00", "10:01:00"), ("15:00", "15:00:01.875")]
)
def test_the_patience_for_the_known_agent_fades_with_the_time_since(asked: str, until: str) -> None:
    desk = _known(Desk(SLOW).agent("ada", capacity=10).agent("bo"))
    desk.asks("busy", "09:01", preferred_agent_id="ada").accepts("busy", "09:01")
    if asked == "09:00":
        desk = Desk(SLOW).agent("ada", capacity=10).agent("bo")
        desk.asks("first", "09:00", customer_id="k1").accepts("first", "09:00")
    desk.asks("t", asked, **KNOWN, known_half_life_seconds=3600.0)
    assert record_of(desk.one(routing.TicketQueued)).held_for == "ada"
    assert desk.domain.works["w-t"].hold_until == at(until)


def test_patience_never_falls_below_a_second_and_does_not_fade_without_a_half_life() -> None:
    assert faded(120, 0, 3600) == 120
    assert faded(120, 3600, 3600) == 60
    assert faded(120, 10**9, 3600) == 1
    assert faded(120, 10**9, 0) == 120


@given(st.floats(1, 86_400), st.floats(0, 10**7), st.floats(0, 10**7), st.floats(1, 10**6))
def test_the_longer_ago_the_less_patience(patience: float, a: float, b: float, half: float) -> None:
    assert faded(patience, max(a, b), half) <= faded(patience, min(a, b), half)
    assert 1 <= faded(patience, a, half) <= max(1, patience + 0.001)


def test_r4_a_known_agent_who_is_offline_is_skipped_at_once_and_the_record_says_so() -> None:
    desk = _known(Desk(SLOW).agent("ada").agent("bo")).presence("ada", "offline", "09:05")
    desk.asks("t", "09:10", **KNOWN)
    assert desk.offered_to() == [("t", "bo")]
    record = record_of(desk.one(routing.OfferMade))
    assert (record.known_agent, record.known_agent_rules) == ("ada", ("absent",))


def test_r4_a_known_agent_outside_the_queue_is_a_named_reason() -> None:
    desk = _known(Desk(SLOW).agent("ada").agent("bo", queues=("technical",)))
    desk.asks("t", "09:10", queue="technical", **KNOWN)
    record = record_of(desk.one(routing.OfferMade))
    assert (record.known_agent, record.known_agent_rules) == ("ada", ("queue",))


def test_r4_a_known_agent_who_has_left_is_a_named_reason() -> None:
    desk = Desk(SLOW).agent("bo").asks("t", "09:00", preferred_agent_id="eve")
    record = record_of(desk.one(routing.OfferMade))
    assert (record.known_agent, record.known_from) == ("eve", "request")
    assert record.known_agent_rules == ("unknown",)


def test_whom_the_request_names_goes_before_whom_the_customer_knows() -> None:
    desk = _known(Desk(SLOW).agent("ada").agent("bo"))
    desk.asks("t", "09:10", preferred_agent_id="bo", **KNOWN)
    assert desk.offered_to() == [("t", "bo")]


def test_without_patience_nobody_is_known() -> None:
    desk = _known(Desk(SLOW).agent("bo").agent("ada")).asks("t", "09:10", customer_id="k1")
    assert desk.domain.works["w-t"].preferred_agent_id is None


def test_who_knows_whom_is_forgotten_after_thirty_days_and_beyond_a_bound() -> None:
    desk = _known(Desk(SLOW).agent("ada"))
    desk.asks("t", "2026-12-24T08:59:59", **KNOWN)
    assert desk.domain.works["w-t"].preferred_agent_id == "ada"
    desk.asks("u", "2026-12-24T09:00:00", **KNOWN)
    assert desk.domain.works["w-u"].preferred_agent_id is None
    assert desk.domain.known["k1"].at + KNOWN_KEPT == at("2026-12-24T09:00:00")

    many = (Known(f"k{n:06}", "ada", at("09:00")) for n in range(KNOWN_MAX))
    domain = Domain("main", known=many)
    work = Work("w", "t", "c", "q", 3, 0, Requirement(), Requirement(), at("09:00"))
    work.customer_id, work.agent_id = "new", "ada"
    domain.remember(work, at("09:00:01"))
    assert len(domain.known) == KNOWN_MAX
    assert (domain.changed_known, domain.gone_known) == ({"new"}, {"k000000"})


# ----------------------------------------------------------------------------------- one holder, always


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("asdftuv"), max_size=25), st.integers(2, 4))
def test_r6_whatever_several_say_to_one_ticket_one_at_most_has_it(words: str, n: int) -> None:
    desk = Desk(RULES, parallel={"service": n})
    for name in ("ada", "bo", "cy", "di"):
        desk.agent(name, capacity=10)
    desk.asks("t", "09:00")
    names = {"a": "ada", "s": "bo", "d": "cy", "f": "di"}
    open_leases: dict[str, str] = {}
    for now, word in enumerate(words, 1):
        instant = f"09:{now:02}:00" if word == "t" else f"09:{now:02}:05"
        if word in names:
            desk.accepts("t", instant, agent=names[word])
        elif word == "u":
            desk.declines("t", instant)
        elif word == "v":
            desk.presence("ada", "away", instant).presence("ada", "available", instant)
        else:
            desk.tick(instant)
    for event in desk.everything:
        match event:
            case routing.OfferMade():
                assert event.agent_id not in open_leases
                open_leases[event.agent_id] = event.reservation_id
            case routing.TicketAssigned():
                assert open_leases[event.agent_id] == event.reservation_id
                assert one([event], routing.TicketAssigned).how == "accepted"
            case routing.OfferWithdrawn() | routing.TicketRequeued():
                del open_leases[event.agent_id]
            case _:
                pass
    work = desk.domain.works["w-t"]
    assert set(open_leases) == {lease.agent_id for lease in work.leases}
