"""What `route explain` answers, and that the explanations of a large domain are sound, minimal and complete."""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from msgspec import structs

from schemas import routing
from services.router.core.assignment import (
    assign,
    explain,
    matching,
)
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.domain import Domain, Switches, Work
from services.router.core.assignment.explain import expand, static_reasons
from services.router.core.assignment.requirement import from_wire
from services.router.core.assignment.terms import Drain, Guard, Lending
from services.router.core.policy.policy import Policy
from services.router.core.what_if import SHOWN_MAX, Answer, Unanswerable, answer, answer_line
from tests.unit.router.duel import QUEUES, World, event_from, instant, terms_from
from tests.unit.router.oracle import Oracle
from tests.unit.router.stories import POLICY, at, read_policy, restored

NINE = at("09:00")
ADA = {
    "agent_id": "ada", "queues": ["service"], "skills": {"orders": 6}, "languages": {"en": 9}, "capacity": 100,
}  # fmt: skip
BO = ADA | {"agent_id": "bo", "skills": {"orders": 2}}


def ask(policy: Policy = POLICY, /, **question: Any) -> Answer:
    return answer({"now": "2026-11-24T09:00:00Z"} | question, policy, NINE)


def direct(**ticket: Any) -> dict[str, Any]:
    return {"queue": "service", "requirement": {"language": "en"}} | ticket


def rules_of(found: Answer) -> dict[str, tuple[str, ...]]:
    return {one.agent_id: one.rules for one in found.excluded}


# ------------------------------------------------------------------------------------------- a message


def test_a_message_falls_under_its_rule_and_is_offered_to_whoever_is_fit() -> None:
    found = ask(ticket={"text": "The API answers 500", "language": "en"})
    assert (found.record.rule, found.request.queue, found.sla_policy) == (
        "API", "technical", "urgent",
    )  # fmt: skip
    assert found.held == ("words: api",)
    assert found.passed == ()
    assert (found.outcome, found.chosen) == ("offered", "nils")
    assert rules_of(found) == {"ada": ("queue", "skill:api")}
    assert found.agents_from == "agents.yaml, all available and idle"


def test_each_rule_before_is_named_with_what_did_not_hold() -> None:
    found = ask(ticket={"text": "Where is it?", "language": "en"})
    (passed,) = found.passed
    assert passed.rule == "API"
    assert [one._asdict() for one in passed.unmet] == [
        {"condition": "words", "wants": "api", "found": "not in the message"}
    ]
    assert found.record.rule == "everything else"
    assert found.held == ()


def test_all_conditions_that_failed_are_named_and_none_that_held() -> None:
    policy = read_policy(
        """
default_language: en
languages: [en, tr]
domains: {main: {}}
queues: {service: {desk: service}, technical: {desk: technical}}
costs: {default: 10}
offers: {seconds: 30}
rules:
  - name: loud
    when: {channel: [chat, form], language: [tr], verified: true, contains: [help]}
    then: {queue: service}
  - name: rest
    then: {queue: service}
escalation: {to_queue: technical}
reopen: {window_hours: 72}
""",
        None,
    )
    (passed,) = ask(policy, ticket={"text": "Help", "language": "en"}).passed
    assert {one.condition: (one.wants, one.found) for one in passed.unmet} == {
        "channel": ("chat, form", "email"),
        "language": ("tr", "en"),
        "verified": ("yes", "no"),
    }


def test_where_no_agents_are_named_nowhere_the_ticket_waits_for_somebody_to_come() -> None:
    found = ask(read_policy(agents_yaml=None), ticket={"text": "Hello", "language": "en"})
    assert (found.outcome, found.is_matchable, found.excluded) == ("queued", False, ())


# ------------------------------------------------------------------------------------------ the moment


@pytest.mark.parametrize(
    ("now", "rules"),
    [
        ({"load": 90}, ()),
        ({"load": 91}, ("capacity",)),
        ({"presence": "away"}, ("absent",)),
        ({"presence": "lunch"}, ("absent",)),
        ({"queues": ["technical"]}, ("queue",)),
        ({"languages": {"tr": 9}}, ("language",)),
        ({"capacity": 10, "in_channels": {"chat": 1}}, ("capacity",)),
        ({"in_channels": {"chat": 4}}, ()),
        ({"in_channels": {"chat": 5}}, ("capacity",)),
        ({"channel_limits": {"chat": 2}, "in_channels": {"chat": 1}, "load": 0}, ()),
        ({"channel_limits": {"chat": 2}, "in_channels": {"chat": 2}, "load": 0}, ("channel",)),
        ({"channel_limits": {"email": 2}}, ("channel",)),
        ({"domain": "elsewhere"}, ("domain",)),
    ],
)
def test_what_stands_against_an_agent_at_the_moment(now: Any, rules: tuple[str, ...]) -> None:
    found = ask(ticket=direct(channel="chat", cost=10), agents=[ADA | now])
    assert rules_of(found).get("ada", ()) == rules
    assert found.chosen == (None if rules else "ada")


def test_who_is_not_said_to_carry_anything_carries_nothing() -> None:
    found = ask(ticket=direct(), agents=[{k: v for k, v in ADA.items() if k != "capacity"}])
    assert rules_of(found) == {"ada": ("capacity",)}
    assert not found.is_matchable


def test_lists_of_skills_mean_the_lowest_level() -> None:
    asked = {"language": "en", "skills": {"orders": 2}}
    found = ask(ticket=direct(requirement=asked), agents=[ADA | {"skills": ["orders"]}])
    assert rules_of(found) == {"ada": ("level:orders",)}


@pytest.mark.parametrize(("n", "rules"), [(2, ()), (3, ("declined",))])
def test_who_declined_as_often_as_is_allowed_is_not_asked_again(
    n: int, rules: tuple[str, ...]
) -> None:
    found = ask(ticket=direct(declines={"ada": n}), agents=[ADA])
    assert rules_of(found).get("ada", ()) == rules
    assert found.is_exhausted is False  # Nobody has declined at this moment.


def test_an_excluded_agent_and_one_who_was_idle_longer() -> None:
    seen = BO | {"last_assigned_at": "2026-11-24T08:00:00Z"}
    found = ask(ticket=direct(), agents=[seen, ADA])
    assert found.record.candidates == ("ada", "bo")
    assert found.record.chosen_by == "longest_idle"
    found = ask(ticket=direct(excluded_agent_ids=["ada"]), agents=[seen, ADA])
    assert (found.chosen, rules_of(found)) == ("bo", {"ada": ("excluded",)})


def test_a_ticket_held_for_somebody_waits_for_them_alone_and_only_so_long() -> None:
    ticket = direct(preferred_agent_id="ada", hold_seconds=60)
    people = [ADA | {"load": 100}, BO]
    found = ask(ticket=ticket, agents=people)
    assert (found.outcome, found.record.held_for) == ("queued", "ada")
    assert rules_of(found) == {"ada": ("capacity",), "bo": ("held",)}
    assert found.next_offer == (at("09:01:00"), "bo")
    late = ask(ticket=ticket | {"entered_at": "2026-11-24T08:59:00Z"}, agents=people)
    assert (late.chosen, late.record.held_for) == ("bo", None)


def test_a_preferred_agent_who_has_left_is_said_to_be_unknown() -> None:
    found = ask(ticket=direct(preferred_agent_id="zoe"), agents=[ADA])
    assert rules_of(found) == {"zoe": ("unknown",)}
    assert found.chosen == "ada"


def test_two_who_could_have_it_beyond_the_best_five_are_named_too() -> None:
    found = ask(ticket=direct(), agents=[ADA | {"agent_id": f"a{n}"} for n in range(7)])
    assert found.record.candidates == ("a0", "a1", "a2", "a3", "a4")
    assert found.also_fit == ("a5", "a6")


# ------------------------------------------------------------------------------------------ what comes

STEPS = {
    "language": "en",
    "skills": {"orders": 9},
    "steps": [
        {"after_seconds": 60, "levels": {"orders": 5}},
        {"after_seconds": 120, "drop": ["orders"]},
        {"after_seconds": 180, "queues": ["technical"]},
    ],
}
NILS = ADA | {"agent_id": "nils", "queues": ["technical"], "skills": {}}


def test_each_relaxation_to_come_says_when_what_and_whom_it_lets_in() -> None:
    found = ask(ticket=direct(requirement=STEPS), agents=[ADA, BO, NILS])
    assert found.relaxations == (
        (at("09:01:00"), ("level:orders:5",), ("ada",)),
        (at("09:02:00"), ("orders",), ("bo",)),
        (at("09:03:00"), ("queue:technical",), ("nils",)),
    )
    assert found.next_offer == (at("09:01:00"), "ada")
    assert found.record.next_step_at == at("09:01:00")


def test_a_relaxation_lets_in_whoever_it_lets_in_though_they_are_busy_or_away() -> None:
    people = [ADA | {"load": 100}, BO | {"presence": "offline"}, NILS]
    found = ask(ticket=direct(requirement=STEPS), agents=people)
    assert [one.admits for one in found.relaxations] == [("ada",), ("bo",), ("nils",)]
    assert found.next_offer == (at("09:03:00"), "nils")


@pytest.mark.parametrize(
    ("entered", "relaxed"),
    [("08:59:00.001", ()), ("08:59:00", ("level:orders:5",)), ("08:58:00", ("orders",))],
)
def test_what_has_fallen_away_already_follows_from_the_entry(
    entered: str, relaxed: tuple[str, ...]
) -> None:
    ticket = direct(requirement=STEPS, entered_at=f"2026-11-24T{entered}Z")
    assert ask(ticket=ticket, agents=[NILS]).record.relaxed == relaxed


def test_a_share_of_the_time_to_the_target_counts_where_a_target_is_given() -> None:
    half = {"skills": {"x": 1}, "steps": [{"share_of_time_left": 0.5, "drop": ["x"]}]}
    found = ask(
        ticket=direct(requirement=half, due_at="2026-11-24T10:00:00Z"),
        agents=[ADA],
    )
    assert found.relaxations == ((at("09:30:00"), ("x",), ("ada",)),)


def test_work_that_nobody_can_ever_take_is_said_to_be_so() -> None:
    found = ask(ticket=direct(requirement={"skills": {"french": 1}}), agents=[ADA])
    assert not found.is_matchable
    assert (found.relaxations, found.next_offer) == ((), None)


# --------------------------------------------------------------------------------- helping out, draining


def lent(**more: Any) -> Policy:
    terms = structs.replace(
        POLICY.terms, lending={"service": Lending(3, 1, ("technical",))}, **more
    )
    return replace(POLICY, terms=terms)


@pytest.mark.parametrize(("n", "rules"), [(1, ("spill_closed",)), (2, ())])
def test_tickets_that_wait_open_the_threshold_with_this_one(n: int, rules: tuple[str, ...]) -> None:
    # Somebody serves the queue, so its tickets count; they are away.
    people = [ADA | {"presence": "away"}, NILS]
    found = ask(lent(), ticket=direct(), agents=people, waiting={"service": n})
    assert rules_of(found).get("nils", ()) == rules
    assert found.chosen == (None if rules else "nils")
    assert found.record.via == ("home" if rules else "spill")


def test_a_lender_who_has_work_itself_lends_nobody() -> None:
    policy = lent(guards={"technical": Guard(4, 0)})
    found = ask(
        policy, ticket=direct(), agents=[ADA | {"presence": "away"}, NILS],
        waiting={"service": 9, "technical": 4}, guarding=["technical"],
    )  # fmt: skip
    assert rules_of(found)["nils"] == ("lender_guard",)


def test_borrowing_that_is_open_already_counts() -> None:
    people = [ADA | {"presence": "away"}, NILS]
    found = ask(
        lent(), ticket=direct(), agents=people, waiting={"service": 2}, spilling=["service"]
    )
    assert (found.chosen, found.record.spill) == ("nils", "open")


def test_a_big_ticket_that_waited_long_has_somebody_kept_free() -> None:
    policy = replace(POLICY, terms=structs.replace(POLICY.terms, drain=Drain(100, 60)))
    ticket = direct(cost=100, entered_at="2026-11-24T08:55:00Z")
    found = ask(policy, ticket=ticket, agents=[ADA | {"load": 20}, BO | {"load": 40}])
    assert rules_of(found) == {"ada": ("capacity",), "bo": ("capacity",)}
    assert found.outcome == "queued"


# ------------------------------------------------------------------------------------------ bad questions


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({}, "ticket: None: must be an object"),
        ({"ticket": []}, "ticket: []: must be an object"),
        ({"ticket": {"chanel": "email"}}, "ticket.chanel: 'chanel': is no field here; did you mean channel?"),
        ({"ticket": {"zzz": 1}}, "is no field here; known: account, "),
        ({"ticket": direct(queue="sales")}, "ticket.queue: 'sales': is no queue of the policy; known: labs, service,"),
        ({"ticket": {"requirement": {}}}, "ticket.queue: None: is required"),
        ({"ticket": direct(priority=5)}, "ticket.priority: 5: input should be less than or equal to 4"),
        ({"ticket": direct(requirement={"skills": [{"skil": "x"}]})}, "ticket.requirement.skills.0.skill: None: is required"),
        ({"ticket": direct(requirement={"skils": {}})}, "ticket.requirement.skils: 'skils': is no field here"),
        ({"ticket": direct(requirement={"steps": [{"after": 3}]})}, "ticket.requirement.steps.0.after: 'after': is no field here"),
        ({"ticket": direct(entered_at="yesterday")}, "ticket.entered_at: 'yesterday': input should be a valid datetime"),
        ({"ticket": direct(entered_at="2026-11-24T09:00:00")}, "ticket.entered_at: '2026-11-24T09:00:00': input should have timezone info"),
        ({"ticket": direct(), "now": "soon"}, "now: 'soon': input should be a valid datetime"),
        ({"ticket": direct(), "waiting": {"sales": 1}}, "waiting: 'sales': is no queue of the policy"),
        ({"ticket": direct(), "waiting": {"service": 10_001}}, "waiting.service: 10001: input should be less than or equal to 10000"),
        ({"ticket": direct(), "agents": {}}, "agents: {}: must be a list of agents"),
        ({"ticket": direct(), "agents": [1]}, "agents.0: 1: must be an object"),
        ({"ticket": direct(), "agents": [{"queues": []}]}, "agents.0.agent_id: None: is required"),
        ({"ticket": direct(), "agents": [ADA, ADA]}, "agents.1.agent_id: 'ada': is there twice"),
        ({"ticket": direct(), "agents": [ADA | {"skills": {"orders": 11}}]}, "agents.0.skills.orders: 11: input should be less than or equal to 10"),
        ({"ticket": direct(), "agents": [ADA | {"skill": {}}]}, "agents.0.skill: 'skill': is no field here; did you mean skills?"),
        ({"ticket": direct(), "agents": [ADA | {"in_channels": {"chat": -1}}]}, "agents.0.in_channels.chat: -1: input should be greater"),
    ],
)  # fmt: skip
def test_a_question_that_cannot_be_answered_names_field_value_and_cure(
    question: Any, said: str
) -> None:
    line = answer_line({"id": "q"} | question, POLICY, NINE)
    assert line.keys() == {"id", "error"}
    assert line["id"] == "q"
    assert said in line["error"]


def test_a_customers_words_are_never_repeated_and_long_values_are_cut() -> None:
    with pytest.raises(Unanswerable) as caught:
        ask(ticket={"text": ["my password is hunter2"]})
    assert "hunter2" not in str(caught.value)
    assert "ticket.text" in str(caught.value)
    with pytest.raises(Unanswerable) as caught:
        ask(ticket=direct(queue="x" * 10_000))
    assert len(str(caught.value)) < SHOWN_MAX + 200


@pytest.mark.parametrize("line", [None, 7, "x", [], [1]])
def test_what_is_no_object_is_answered_without_an_id(line: Any) -> None:
    assert answer_line(line, POLICY, NINE) == {
        "id": None,
        "error": f"line: {line!r}: must be a JSON object",
    }


def test_the_same_question_has_the_same_answer() -> None:
    line = {"id": 1, "ticket": direct(requirement=STEPS), "agents": [ADA, BO, NILS]}
    assert answer_line(line, POLICY, NINE) == answer_line(line, POLICY, NINE)


# --------------------------------------------------------------------- it says what the service would do


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_is_what_a_domain_in_that_state_decides(seed: int) -> None:
    """A domain that lived, described as a question, gives the record that the domain itself gives."""
    world = World(seed)
    terms = structs.replace(
        terms_from(world.terms),
        lending={},
        guards={},
        drain=None,
        wrap_up={},
        max_declines=9,
        interrupted_by={},
        heartbeat=None,
        parallel={},
    )
    oracle, domain = Oracle(world.terms), Domain("main")
    policy = replace(_policy_of_queues(), terms=terms)
    for n in range(25):
        for told in world.first_events() if n == 0 else [world.next(oracle.works)]:
            oracle.hears(told, world.now)
            oracle.remember_hope()
            assign.decide(domain, event_from(told), instant(world.now), terms)
    told = world.ask(world.tickets[0]) | {"ticket": "new", "work": "new/1", "since": world.now}
    told |= {"entered": world.now, "due": None, "transfer": "", "customer": None}
    request = event_from(told)
    assert isinstance(request, routing.WorkRequested)
    people = [_as_entry(domain, agent) for agent in domain.agents.values()]
    found = answer(
        {"ticket": _as_ticket(request), "agents": people, "now": instant(world.now)}, policy, NINE
    )
    alone = Domain("main", _copies(domain), _held_works(domain))
    said = assign.decide(alone, request, instant(world.now), terms).events
    (record,) = [
        event.record
        for event in said
        if isinstance(event, routing.OfferMade | routing.TicketQueued) and event.work_id == "new/1"
    ]
    assert record is not None
    assert found.record.candidates == record.candidates
    assert (found.record.chosen_by, found.record.scores) == (record.chosen_by, record.scores)
    assert rules_of(found) == {one.agent_id: one.rules for one in record.excluded}


def _policy_of_queues() -> Policy:
    queues = ", ".join(f"{queue}: {{desk: technical}}" for queue in QUEUES)
    return read_policy(
        f"""
default_language: en
languages: [en, tr]
domains: {{main: {{}}}}
queues: {{{queues}}}
costs: {{default: 10}}
offers: {{seconds: 30}}
rules: [{{name: rest, then: {{queue: alpha}}}}]
escalation: {{to_queue: alpha}}
reopen: {{window_hours: 72}}
""",
        None,
    )


def _as_entry(domain: Domain, agent: Agent) -> dict[str, Any]:
    held: dict[str, int] = {}
    for work in domain.held_by(agent.agent_id):
        held[work.channel] = held.get(work.channel, 0) + 1
    return {
        "agent_id": agent.agent_id, "queues": list(agent.queues), "skills": agent.skills,
        "languages": agent.languages, "capacity": agent.capacity, "channel_limits": agent.limits,
        "presence": agent.presence, "load": agent.load, "last_assigned_at": agent.last_assigned_at,
        "in_channels": held, "calendar": agent.calendar and agent.calendar.replace(" ", "-"),
        "shifts": [{"starts_at": shift.starts_at, "ends_at": shift.ends_at} for shift in agent.shifts],
    }  # fmt: skip


def _as_ticket(request: routing.WorkRequested) -> dict[str, Any]:
    names = (
        "queue", "requirement", "priority", "cost", "channel", "entered_at", "relax_from", "due_at",
        "preferred_agent_id", "hold_seconds", "excluded_agent_ids",
    )  # fmt: skip
    return {name: value for name, value in request.model_dump().items() if name in names}


def _copies(domain: Domain) -> list[Agent]:
    return [structs.replace(agent, place=-1) for agent in domain.agents.values()]


def _held_works(domain: Domain) -> list[Work]:
    held = [work for work in domain.works.values() if work.status in {"offered", "assigned"}]
    # Offers are left standing, so that nothing of theirs falls due while the ticket comes.
    return [
        structs.replace(work, expires_at=instant(10**9))
        if work.status == "offered"
        else structs.replace(work)
        for work in held
    ]


def test_a_large_domain_is_spelled_out_like_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(5)
    people = [
        {
            "agent_id": f"a{n:03}", "queues": dice.choice([["service"], ["technical"], ["service", "labs"]]),
            "skills": dice.choice([{}, {"orders": 3}, {"orders": 8}]), "languages": dice.choice([{"en": 9}, {"tr": 9}]),
            "capacity": 100, "load": dice.choice([0, 100]), "presence": dice.choice(["available", "away"]),
        }
        for n in range(120)
    ]  # fmt: skip
    for skills in ({"orders": 5}, {"orders": 10}):
        question = {
            "ticket": direct(
                requirement={"language": "en", "skills": skills}, declines={"a001": 3}
            ),
            "agents": people,
        }
        large = ask(**question)
        with monkeypatch.context() as patched:
            patched.setattr(explain, "AGENTS_MAX", 1_000)
            small = ask(**question)
        assert large.record.codes_of
        assert not small.record.codes_of
        assert rules_of(large) == rules_of(small)
        assert (large.record.candidates, large.also_fit) == (
            small.record.candidates, small.also_fit,
        )  # fmt: skip
        told = {*rules_of(large), *large.record.candidates, *large.also_fit}
        assert told == {person["agent_id"] for person in people}


# --------------------------------------------------------------------------- R19 in a domain with codes

STATIC = ("queue", "language", "skill:", "level:", "forbidden:")


@pytest.mark.parametrize("seed", range(40))
def test_r19_the_codes_of_every_record_told_say_what_the_oracle_says_of_everybody(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offers as well as waits: who is not among the best has all rules against them, and who has none was fit."""
    monkeypatch.setattr(explain, "AGENTS_MAX", 0)
    monkeypatch.setattr(explain, "LISTED_MAX", 2 if seed % 2 else 256)
    world = World(seed, n_agents=9)
    oracle, domain = Oracle(world.terms), Domain("main")
    terms = terms_from(world.terms)
    n_records = 0
    for n in range(40):
        for told in world.first_events() if n == 0 else [world.next(oracle.works)]:
            expected, _ = oracle.hears(told, world.now)
            oracle.remember_hope()
            said = assign.decide(domain, event_from(told), instant(world.now), terms).events
            for event, line in zip(said, expected, strict=True):
                record = getattr(event, "record", None)
                # What fell due before the roster changed was told of the roster before.
                if record is not None and record.roster_version == domain.people.version:
                    of_oracle = line[3][5] if line[0] == "offered" else line[3]
                    _check_codes(domain, record, dict(of_oracle))
                    n_records += 1
    assert n_records > 3


def _check_codes(
    domain: Domain, record: routing.DecisionRecord, expected: dict[str, tuple[str, ...]]
) -> None:
    static = static_reasons(domain, record.queue, from_wire(record.requirement))
    found = expand(record, static)
    assert found.keys() == expected.keys() & domain.agents.keys()
    for agent_id, rules in found.items():
        # Of whom the roster keeps away, only that is told.
        kept = static.reasons[agent_id]
        of_oracle = tuple(
            rule for rule in expected[agent_id] if not kept or rule.startswith(STATIC)
        )
        assert rules == of_oracle


def _lift(
    agent: Agent, work: Work, works: dict[str, Work], switches: Switches, domain: Domain, rule: str
) -> None:
    """Change the records as little as it takes for a rule to stand no more against an agent."""
    kind, _, name = rule.partition(":")
    match kind:
        case "absent":
            agent.presence = "available"
        case "off_shift":
            agent.calendar, agent.shifts, agent.on_shift, agent.turns_at = None, (), True, None
        case "queue":
            agent.queues = (*agent.queues, work.queue)
        case "spill_closed":
            switches.spilling.add(work.queue)
        case "lender_guard":
            for names in (switches.guarding, switches.crowded, switches.at_risk):
                names -= set(agent.queues)
        case "language":
            agent.languages = {**agent.languages, str(work.effective.language): 10}
        case "skill" | "level":
            agent.skills = {**agent.skills, name: 10}
        case "forbidden":
            agent.skills = {skill: n for skill, n in agent.skills.items() if skill != name}
        case "capacity":
            agent.capacity = agent.ceiling = 10**6
        case "wrap_up":
            for other in works.values():
                if other.agent_id == agent.agent_id:
                    other.wrap_until = None
        case "channel":
            taken = domain.people.in_channel.get(agent.place, {}).get(work.channel, 0)
            agent.limits = {**agent.limits, work.channel: taken + 1}
        case "draining":
            for other in works.values():
                other.kept_free = None
        case "declined":
            work.declines = {who: n for who, n in work.declines.items() if who != agent.agent_id}
        case "excluded":
            work.excluded = tuple(who for who in work.excluded if who != agent.agent_id)
        case "held":
            work.hold_until = None
        case _:
            raise AssertionError(f"nobody knows how to lift {rule}")


def _is_fit(
    domain: Domain, terms: Any, now: Any, work_id: str, agent_id: str, lifted: tuple[str, ...]
) -> bool:
    """Whether the engine would let an agent take waiting work once some rules are lifted."""
    copy = restored(domain)
    agent, work = copy.agents[agent_id], copy.works[work_id]
    for rule in lifted:
        _lift(agent, work, copy.works, copy.switches, domain, rule)
    changed = restored(copy)
    changed.take_up(terms, now)
    bucket, bit = changed.bucket(changed.works[work_id]), 1 << changed.agents[agent_id].place
    found = matching.takers(changed, changed.works[work_id], bucket, terms.max_declines)
    if found.places & bit:
        return True
    # Whoever is lent is not among the takers where the queue's own are there; that is an order, not a rule.
    is_hidden = found.via == "home" and found.places and changed.lending(bucket) & bit
    barred = matching.barred(changed, changed.works[work_id], terms.max_declines)
    return bool(is_hidden and bucket.kind.free & bucket.ask.able & bit and not barred & bit)


def _some_waiting(dice: random.Random, domain: Domain) -> Iterator[Work]:
    waiting = sorted(domain.waiting(), key=lambda work: work.work_id)
    yield from dice.sample(waiting, min(2, len(waiting)))


@pytest.mark.parametrize("seed", range(25))
def test_r19_lifting_all_rules_against_an_agent_makes_them_fit_and_no_fewer_do(seed: int) -> None:
    world = World(seed, n_agents=6)
    dice = random.Random(seed)
    oracle, domain = Oracle(world.terms), Domain("main")
    terms = terms_from(world.terms)
    for n in range(30):
        for told in world.first_events() if n == 0 else [world.next(oracle.works)]:
            oracle.hears(told, world.now)
            oracle.remember_hope()
            assign.decide(domain, event_from(told), instant(world.now), terms)
        if n % 5:
            continue
        now = instant(world.now)
        for work in _some_waiting(dice, domain):
            spelled = explain.spelled_out(domain, work, terms.max_declines)
            assert spelled.keys() == domain.agents.keys(), "nobody waits beside somebody fit"
            for agent_id, rules in spelled.items():
                case = (domain, terms, now, work.work_id, agent_id)
                assert _is_fit(*case, rules), (work.work_id, agent_id, rules)
                for rule in rules:
                    fewer = tuple(other for other in rules if other != rule)
                    assert not _is_fit(*case, fewer), (work.work_id, agent_id, rules, rule)


def test_relaxations_come_in_order_of_time() -> None:
    found = ask(ticket=direct(requirement=STEPS), agents=[])
    assert all(a.at < b.at for a, b in pairwise(found.relaxations))
    assert found.relaxations[-1].at - NINE == timedelta(seconds=180)
