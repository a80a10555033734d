"""The rules of assignment that go beyond one offer: steps, holds, limits, order, helping out, and what explains them."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from schemas import routing
from services.router.core.assignment import (
    assign,
    explain,
)
from services.router.core.assignment.domain import Domain
from services.router.core.assignment.explain import expand, static_reasons
from services.router.core.assignment.terms import Drain, Guard, Lending, Terms
from services.router.core.policy.policy_model import OffersModel
from tests.unit.router.duel import World, duel, event_from, instant, plain, terms_from
from tests.unit.router.floor import Caller, poisson, waits
from tests.unit.router.oracle import Oracle
from tests.unit.router.stories import Desk, at, restored

SLOW = OffersModel(seconds=86_400, max_declines=3)
STEPS = {
    "language": "en",
    "skills": [{"skill": "french", "level": 8}],
    "steps": [
        {"after_seconds": 10, "levels": {"french": 5}},
        {"after_seconds": 20, "drop": ["french"]},
        {"after_seconds": 30, "queues": ["technical"]},
    ],
    "moves_on_miss": True,
}


def test_r2_an_offer_that_ran_out_takes_the_next_step_whose_deadline_stays_absolute() -> None:
    desk = Desk(OffersModel(seconds=5, max_declines=3, away_after_misses=None))
    desk.agent("ada", skills={"french": 8}).agent("bo", skills={"french": 5}, presence="away")
    desk.presence("ada", "away", "09:00:00").asks("t", "09:00:00", requirement=STEPS)
    desk.presence("ada", "available", "09:00:03")
    assert desk.offered_to() == [("t", "ada")]
    desk.presence("bo", "available", "09:00:04").tick("09:00:08")
    # Step 1 at 8 s instead of 10 s; the one after it still comes at 20 s.
    assert desk.one(routing.RequirementRelaxed).relaxed == ("level:french:5",)
    record = desk.one(routing.OfferMade).record
    assert record is not None
    assert (record.step, record.next_step_at) == (1, at("09:00:20"))
    assert record.candidates == ("bo", "ada")


def test_r2_a_step_asks_other_queues_too_and_the_ticket_keeps_its_place() -> None:
    desk = Desk(SLOW).agent("nils", queues=("technical",), capacity=10)
    desk.asks("old", "09:00:00", requirement=STEPS)
    desk.asks("new", "09:00:29", queue="technical", requirement={"language": "en"})
    assert desk.offered_to() == [("new", "nils")]
    desk.tick("09:00:30").withdraws("new", "09:00:31")
    assert desk.offered_to() == [("old", "nils")]


def test_steps_may_be_a_share_of_the_time_left_to_the_target() -> None:
    half = {"skills": [{"skill": "x"}], "steps": [{"share_of_time_left": 0.5, "drop": ["x"]}]}
    desk = Desk().agent("ada")
    desk.asks("t", "09:00:00", requirement=half, due_at=at("09:10:00"))
    assert desk.domain.next_due() == at("09:05:00")
    desk.tick("09:05:00")
    assert desk.types() == ["relaxed", "offered"]


def test_forbidden_skills_keep_someone_away_and_are_named() -> None:
    desk = Desk().agent("ada", skills={"trainee": 1})
    desk.asks("t", "09:00", requirement={"forbidden": ["trainee"]})
    queued = desk.one(routing.TicketQueued)
    assert not queued.is_matchable
    assert queued.record is not None
    assert queued.record.excluded[0].rules == ("forbidden:trainee",)


def test_r4_the_known_agent_is_waited_for_while_busy_and_only_so_long() -> None:
    desk = Desk(SLOW).agent("ada", capacity=10).agent("bo").asks("busy", "09:00")
    assert desk.offered_to() == [("busy", "ada")]
    desk.asks("t", "09:00:01", preferred_agent_id="ada", hold_seconds=60)
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert record.held_for == "ada"
    assert [(e.agent_id, e.rules) for e in record.excluded] == [
        ("ada", ("capacity",)),
        ("bo", ("held",)),
    ]
    desk.restart().tick("09:01:00.999")
    assert desk.told == ()
    desk.tick("09:01:01")
    assert desk.offered_to() == [("t", "bo")]


@pytest.mark.parametrize("how", ["away", "unable", "removed"])
def test_r4_a_hold_ends_at_once_when_the_known_agent_cannot(how: str) -> None:
    desk = Desk(SLOW).agent("ada", capacity=10).agent("bo").asks("busy", "09:00")
    desk.asks("t", "09:00:01", preferred_agent_id="ada", hold_seconds=600)
    desk.accepts("busy", "09:00:02")
    if how == "away":
        desk.presence("ada", "away", "09:01")
    elif how == "unable":
        desk.agent("ada", "09:01", languages={"tr": 9}, presence=None)
    else:
        desk.hears(event_from({"what": "remove", "agent": "ada"}), "09:01")
    assert ("t", "bo") in desk.offered_to()


def test_r4_a_known_agent_who_is_offline_is_not_waited_for() -> None:
    desk = Desk().agent("ada", presence="offline").agent("bo")
    desk.asks("t", "09:00", preferred_agent_id="ada", hold_seconds=600)
    assert desk.offered_to() == [("t", "bo")]


def test_r9_a_ticket_that_comes_back_to_life_respects_capacity() -> None:
    desk = Desk(SLOW).agent("ada", capacity=20).asks("a", "09:00").asks("b", "09:00")
    desk.accepts("a", "09:01").accepts("b", "09:01").withdraws("a", "09:02", "pending")
    desk.asks("c", "09:03").accepts("c", "09:03")
    desk.asks("a", "09:04", work_id="w-a2", preferred_agent_id="ada")
    assert desk.types() == ["queued"]
    assert desk.domain.agents["ada"].load == 20


def test_r10_limits_by_channel_hold_beside_the_budget_and_a_channel_not_named_is_none() -> None:
    desk = Desk(SLOW).agent("ada", limits={"chat": 1})
    desk.asks("a", "09:00", channel="chat").asks("b", "09:01", channel="chat")
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert record.excluded[0].rules == ("channel",)
    assert not desk.asks("call", "09:02", channel="voice").one(routing.TicketQueued).is_matchable


def test_r10_one_agent_at_a_time_is_kept_free_for_a_big_ticket() -> None:
    desk = Desk(SLOW, drain=Drain(100, 30)).agent("ada").agent("bo")
    for n, agent in enumerate(("ada", "bo")):
        desk.asks(f"chat{n}", "09:00:00", cost=20)
        assert desk.offered_to() == [(f"chat{n}", agent)]
        desk.accepts(f"chat{n}", "09:00:01")
    desk.asks("call", "09:00:02", cost=100).tick("09:00:31.999")
    desk.asks("chat2", "09:00:31.999", cost=20)
    assert desk.offered_to() == [("chat2", "ada")]
    desk.accepts("chat2", "09:00:31.999").tick("09:00:32")
    assert desk.domain.works["w-call"].kept_free == "bo"
    desk.restart().asks("chat3", "09:00:33", cost=20)
    assert desk.offered_to() == [("chat3", "ada")]
    record = desk.one(routing.OfferMade).record
    assert record is not None
    assert [(e.agent_id, e.rules) for e in record.excluded] == [("bo", ("draining",))]
    desk.withdraws("chat1", "09:01")
    assert desk.offered_to() == [("call", "bo")]


def test_wrap_up_takes_capacity_for_a_while_and_is_named() -> None:
    desk = Desk(SLOW, wrap_up={"voice": 30.0}).agent("ada")
    desk.asks("call", "09:00", cost=100, channel="voice").accepts("call", "09:00:01")
    desk.withdraws("call", "09:10:00").restart().asks("t", "09:10:10")
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert record.excluded[0].rules == ("wrap_up",)
    desk.tick("09:10:30")
    assert desk.offered_to() == [("t", "ada")]


def test_the_target_decides_within_a_priority() -> None:
    desk = Desk().agent("ada", capacity=0)
    desk.asks("old", "09:00", due_at=at("12:00")).asks("soon", "09:01", due_at=at("10:00"))
    desk.asks("none", "08:30")
    desk.agent("ada", "09:02", capacity=100, presence=None)
    assert [ticket for ticket, _ in desk.offered_to()] == ["soon", "old", "none"]


def _longest_wait(terms: Terms) -> float:
    dice = random.Random(3)
    urgent = poisson(dice, 1.2 / 10, 6_000, "service", priority=1)
    low = [Caller(1_000.0, "service", priority=3)]
    found = waits(urgent + low, {"ada": ("service",)}, lambda *_: 10.0, terms)
    return next(wait for caller, wait in found if caller.priority == 3)


def test_r11_nobody_starves_under_aging_and_strict_priority_fails_this() -> None:
    aging = _longest_wait(Terms(offer_seconds=30, aging={3: 600.0}))
    strict = _longest_wait(Terms(offer_seconds=30))
    # Promotion after 600 s, then before all whose target is later: at most the ticket in hand is in front.
    assert 600 <= aging <= 600 + 10
    assert strict > 3_000


def test_r12_ten_thousand_unmatchable_in_front_cost_nothing() -> None:
    terms = Terms(offer_seconds=30)
    domain = Domain("main")
    world = World(1, n_agents=1)
    agent = {**world.set("ada"), "queues": ("alpha",), "skills": {}, "capacity": 100, "limits": {}}
    assign.decide(domain, event_from(agent), instant(0), terms)
    ask = world.ask(world.tickets[0]) | {
        "queue": "alpha", "cost": 10, "hold": 0, "preferred": None, "excluded": (), "steps": [],
        "forbidden": (), "language": (None, 1, None),
    }  # fmt: skip
    for n in range(10_000):
        urgent = ask | {
            "ticket": f"u{n}", "work": f"u{n}/1", "priority": 1, "skills": (("x", 5, None),),
        }  # fmt: skip
        assign.decide(domain, event_from(urgent), instant(0), terms)
    low = ask | {"ticket": "low", "work": "low/1", "priority": 4, "skills": ()}
    assign.decide(domain, event_from(low), instant(1000), terms)
    there = event_from({"what": "presence", "agent": "ada", "presence": "available"})
    said = assign.decide(domain, there, instant(2000), terms)
    assert [plain(e)[:3] for e in said.events] == [("offered", "low", "ada")]


@pytest.mark.parametrize("strategy", ["longest_idle", "least_loaded", "best_skilled", "thrift"])
def test_r15_every_strategy_breaks_ties_by_idleness_and_then_by_id(strategy: Any) -> None:
    desk = Desk(SLOW, strategy=strategy).agent("bo").agent("ada").agent("cy")
    order = [desk.asks(f"t{n}", f"09:00:0{n}", cost=0).offered_to()[0][1] for n in range(4)]
    assert order == ["ada", "bo", "cy", "ada"]


def test_r1_the_strategy_chooses_and_is_recorded_with_its_scores() -> None:
    need = {"skills": [{"skill": "french", "level": 4}]}
    for strategy, first in (("best_skilled", "ada"), ("thrift", "bo"), ("weighted", "ada")):
        desk = Desk(SLOW, strategy=strategy)
        desk.agent("ada", skills={"french": 9, "api": 5}).agent("bo", skills={"french": 4})
        desk.asks("t", "09:00", requirement=need)
        record = desk.one(routing.OfferMade).record
        assert record is not None
        assert (record.candidates[0], record.chosen_by) == (first, strategy)
        assert record.scores == tuple(sorted(record.scores))


def test_r18_other_terms_are_taken_up_at_the_next_event_and_what_waits_is_looked_at_again() -> None:
    desk = Desk(SLOW).agent("nils", queues=("technical",)).asks("t", "09:00")
    assert desk.types() == ["queued"]
    desk.more = {"lending": {"service": Lending(1, 0, ("technical",))}}
    desk.tick("09:01")
    assert desk.types() == ["queued", "offered"]
    record = desk.one(routing.OfferMade).record
    assert record is not None
    assert (record.via, record.spill) == ("spill", "open")


def test_r23_a_lender_stops_when_it_has_work_itself_and_begins_again_with_hysteresis() -> None:
    more: dict[str, Any] = {
        "lending": {"service": Lending(2, 0, ("technical",))},
        "guards": {"technical": Guard(2, 0)},
    }
    desk = Desk(SLOW, **more).agent("nils", queues=("technical",), capacity=10)
    desk.asks("own", "09:00", queue="technical")
    desk.asks("a", "09:01").asks("b", "09:02")
    assert desk.domain.switches.spilling == {"service"}
    desk.asks("own2", "09:03", queue="technical").asks("own3", "09:04", queue="technical")
    assert desk.domain.switches.guarding == {"technical"}
    record = desk.one(routing.TicketQueued).record
    assert record is not None
    assert record.guarded == ()
    desk.restart().withdraws("own", "09:05")
    # Older, but borrowed: the guard stands until nothing of its own waits.
    assert desk.offered_to() == [("own2", "nils")]
    desk.withdraws("own2", "09:06")
    assert desk.offered_to() == [("own3", "nils")]
    assert desk.domain.switches.guarding == set()
    desk.withdraws("own3", "09:07")
    assert desk.offered_to() == [("a", "nils")]


def test_tickets_that_nobody_can_ever_take_open_no_threshold() -> None:
    desk = Desk(SLOW, lending={"service": Lending(2, 0, ("technical",))})
    desk.agent("nils", queues=("technical",))
    french = {"skills": [{"skill": "french"}]}
    desk.asks("x", "09:00", requirement=french).asks("y", "09:00", requirement=french)
    assert desk.domain.switches.spilling == set()


def _renamed(told: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    def new(value: Any) -> Any:
        match value:
            case str():
                return names.get(value, value)
            case list() | tuple():
                return type(value)(new(item) for item in value)
            case dict():
                return {new(key): new(item) for key, item in value.items()}
            case _:
                return value

    return {key: new(value) for key, value in told.items()}


@pytest.mark.parametrize("seed", range(60))
def test_r24_renaming_queues_changes_no_decision(seed: int) -> None:
    names = {"alpha": "zulu", "beta": "mike", "gamma": "echo"}
    world = World(seed)
    oracle = Oracle(world.terms)
    ours, theirs = Domain("main"), Domain("main")
    terms, renamed = terms_from(world.terms), terms_from(_renamed(world.terms, names))
    for n in range(40):
        first = world.first_events() if n == 0 else [world.next(oracle.works)]
        for told in first:
            oracle.hears(told, world.now)
            oracle.remember_hope()
            left = assign.decide(ours, event_from(told), instant(world.now), terms)
            other = event_from(_renamed(told, names))
            right = assign.decide(theirs, other, instant(world.now), renamed)
            assert _who(left) == _who(right)


def _who(decision: assign.Decision) -> list[tuple[Any, ...]]:
    return [plain(event)[:3] for event in decision.events if event.TYPE != "routing.relaxed.v1"]


@pytest.mark.parametrize("seed", range(40))
def test_r14_slices_change_nothing_but_when(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def offers(is_sliced: bool) -> list[tuple[str, str]]:
        monkeypatch.setattr(assign, "MATCHES_MAX", 1 if is_sliced else 10**9)
        monkeypatch.setattr(assign, "LOOKS_MAX", 3 if is_sliced else 10**9)
        world = World(seed, n_agents=9)
        terms, domain = terms_from(world.terms | {"offer": 10**7}), Domain("main")
        for told in world.first_events():
            if told["what"] == "set":
                assign.decide(domain, event_from(told), instant(0), terms)
        for n in range(30):
            world.n_asked[f"t{n}"] = 0
            told = world.ask(f"t{n}") | {"entered": n, "since": 0, "hold": 0}
            assign.decide(domain, event_from(told), instant(0), terms)
        for agent in domain.agents.values():
            agent.presence = "available"
        domain = restored(domain)
        found: list[tuple[str, str]] = []
        for _ in range(2_000):
            said = assign.decide(domain, assign.DueNow(), instant(0), terms)
            found += [
                (e.ticket_id, e.agent_id) for e in said.events if isinstance(e, routing.OfferMade)
            ]
            if domain.is_settled:
                return found
            assert domain.next_due() == instant(0)
        raise AssertionError("never settled")

    assert offers(is_sliced=True) == offers(is_sliced=False)


@pytest.mark.parametrize("seed", range(30))
def test_r19_the_codes_of_a_record_say_what_the_spelled_out_rules_say(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "LISTED_MAX", 2 if seed % 2 else 256)
    world = World(seed, n_agents=9)
    oracle, domain = Oracle(world.terms), Domain("main")
    terms = terms_from(world.terms)
    for n in range(60):
        for told in world.first_events() if n == 0 else [world.next(oracle.works)]:
            oracle.hears(told, world.now)
            oracle.remember_hope()
            assign.decide(domain, event_from(told), instant(world.now), terms)
        for work in list(domain.waiting())[:3]:
            spelled = explain.record(domain, work, None, terms.max_declines)
            monkeypatch.setattr(explain, "AGENTS_MAX", 0)
            told_short = explain.record(domain, work, None, terms.max_declines)
            monkeypatch.setattr(explain, "AGENTS_MAX", 50)
            asked = domain.bucket(work).ask.asked
            static = static_reasons(domain, work.queue, asked)
            rules = expand(told_short, static)
            for excluded in spelled.excluded:
                if excluded.agent_id not in domain.agents:
                    continue
                if static.reasons[excluded.agent_id]:
                    # What the moment adds is not kept for those whom the roster keeps away.
                    assert set(rules[excluded.agent_id]) <= set(excluded.rules)
                else:
                    assert rules[excluded.agent_id] == excluded.rules


def test_r21_one_queue_waits_as_erlang_says() -> None:
    dice = random.Random(11)
    callers = poisson(dice, 10 / 300, 450_000, "service")
    agents = {f"a{n}": ("service",) for n in range(12)}
    found = waits(callers, agents, lambda *_: dice.expovariate(1 / 300), Terms(offer_seconds=30))
    settled = found[len(found) // 10 :]
    asa = sum(wait for _, wait in settled) / len(settled)
    p_wait = sum(wait > 0 for _, wait in settled) / len(settled)
    # 67.4 s and 0.4494 exactly; what is left is the noise of 13,500 callers.
    assert 55 <= asa <= 81
    assert 0.41 <= p_wait <= 0.49


class ModelAgainstEngine(RuleBasedStateMachine):
    """Events drawn one by one, told to the oracle and to the engine, which at times forgets all but its records."""

    @initialize(dice=st.randoms(use_true_random=False), seed=st.integers(0, 10**6))
    def begin(self, dice: random.Random, seed: int) -> None:
        self.world = World(seed)
        self.world.dice = dice
        self.oracle = Oracle(self.world.terms)
        self.domain = Domain("main")
        self.terms = terms_from(self.world.terms)
        for told in self.world.first_events():
            self.tell(told)

    def tell(self, told: dict[str, Any]) -> None:
        expected, ignored = self.oracle.hears(told, self.world.now)
        self.oracle.remember_hope()
        said = assign.decide(self.domain, event_from(told), instant(self.world.now), self.terms)
        assert [plain(event) for event in said.events] == expected
        assert said.ignored == ignored

    @rule()
    def hear(self) -> None:
        self.tell(self.world.next(self.oracle.works))

    @rule()
    def restart(self) -> None:
        self.domain = restored(self.domain)
        self.oracle.restarts()  # Whoever sends heartbeats has a whole period again to be heard.


ModelAgainstEngine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None
)
TestModelAgainstEngine = ModelAgainstEngine.TestCase


@settings(max_examples=100, deadline=None)
@given(st.integers(10**6, 10**9))
def test_r13_r14_any_world_is_the_oracles(seed: int) -> None:
    duel(seed, 40)
