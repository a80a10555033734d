"""What the production matcher does on a simulated floor, study by study: numbers only, each from a seed.

A study takes its size as arguments, so that the report and the tests run the same code. All times it returns are seconds,
but for the N-design, whose unit is the mean service of its servers.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from bench import queueing
from bench.floor import (
    SECOND,
    Call,
    Floor,
    Served,
    agent,
    exponential,
    kiefer_wolfowitz,
    poisson,
)
from bench.queueing import Bounded, Estimate, NDesign, NQueues
from bench.report import percentile
from schemas import roster, routing
from services.router.core.assignment.terms import Drain, Guard, Lending, Strategy, Terms

SEED: Final = 20_261_124
WARM_UP: Final = 0.1
"""The first part of a run, in which an empty floor fills, is not counted."""

LONG: Final = 30 * 86_400.0
"""An offer's length, where offers are no matter: all are taken at once."""


def _settled(values: Sequence[float]) -> Sequence[float]:
    return values[round(len(values) * WARM_UP) :]


def _by_arrival(served: Sequence[Served]) -> list[Served]:
    return sorted(served, key=lambda done: done.call.at)


# --------------------------------------------------------------------------------------------- Erlang


@dataclass(frozen=True, slots=True)
class Erlang:
    """One queue of equal agents. `differing` counts callers whose instant of service is not the reference's."""

    erlangs: float
    n_agents: int
    handling: float
    within: float
    n: int
    wait: Estimate
    waiting: Estimate
    in_time: Estimate
    differing: int
    long_n: int
    long_wait: Estimate

    @property
    def exact_wait(self) -> float:
        """The mean wait by Erlang's formula."""
        return queueing.mean_wait(self.n_agents, self.erlangs, self.handling)

    @property
    def exact_waiting(self) -> float:
        """The share that waits at all, by Erlang's formula."""
        return queueing.erlang_c(self.n_agents, self.erlangs)

    @property
    def exact_in_time(self) -> float:
        """The share served within `within`, by Erlang's formula."""
        return queueing.service_level(self.n_agents, self.erlangs, self.handling, self.within)


def erlang(
    erlangs: float, n_agents: int, handling: float, n: int, long_n: int, within: float = 20.0
) -> Erlang:
    """Let `n` callers come to equal agents; `long_n` more to the reference alone."""
    dice = random.Random(SEED)
    calls = [Call(at, exponential(dice, handling)) for at in poisson(dice, erlangs / handling, n)]
    floor = Floor([agent(f"a{k:03}") for k in range(n_agents)], Terms(offer_seconds=LONG))
    served = _by_arrival(floor.run(calls))
    expected = kiefer_wolfowitz(calls, n_agents)
    differing = sum(done.at != at for done, at in zip(served, expected, strict=True))
    waits = _settled([done.wait / SECOND for done in served])
    long = queueing.long_run(SEED + 1, n_agents, erlangs, handling, long_n)
    return Erlang(
        erlangs, n_agents, handling, within, n,
        queueing.batch_means(waits),
        queueing.batch_means([float(wait > 0) for wait in waits]),
        queueing.batch_means([float(wait <= within) for wait in waits]),
        differing, long_n, long,
    )  # fmt: skip


# -------------------------------------------------------------------------------------- Wallace–Whitt

TYPES: Final = 6
EACH: Final = 15
WW_ERLANGS: Final = 14
WW_HANDLING: Final = 600.0


@dataclass(frozen=True, slots=True)
class Skills:
    """Agents with so many skills of six. `to_all` is the ratio of its mean wait to that of agents with all skills.

    `differing` counts tickets that another agent got, or at another instant, than the reference's (None: the reference does
    not know places).
    """

    n_skills: int
    n: int
    wait: Estimate
    to_all: Estimate
    turned_away: Estimate
    differing: int | None


def spread_skills(n_skills: int) -> list[tuple[int, ...]]:
    """Return the skills of 15 agents for each of six types, the others spread over the other types."""
    return [
        (kind, *((kind + 1 + (k + m) % (TYPES - 1)) % TYPES for m in range(n_skills - 1)))
        for kind in range(TYPES)
        for k in range(EACH)
    ]


def skilled(n_skills: int) -> list[roster.AgentSet]:
    """Return the agents who have these skills: the first at level 10, the others at 5."""
    return [
        agent(f"a{n:02}", ("calls",), {f"t{first}": 10} | {f"t{other}": 5 for other in others})
        for n, (first, *others) in enumerate(spread_skills(n_skills))
    ]


def wallace_whitt(n: int, places: int | None = None) -> dict[int, Skills]:
    """Let the same `n` callers of six types come to agents with 1, 2, 3 and all 6 skills."""
    dice = random.Random(SEED)
    asks = [
        routing.Requirement(skills=(routing.SkillNeed(skill=f"t{kind}"),)) for kind in range(TYPES)
    ]
    came = poisson(dice, TYPES * WW_ERLANGS / WW_HANDLING, n)
    arrivals = [(at, dice.randrange(TYPES), exponential(dice, WW_HANDLING)) for at in came]
    calls = [Call(at, work, "calls", requirement=asks[kind]) for at, kind, work in arrivals]
    terms = Terms(offer_seconds=LONG, strategy="best_skilled")
    waits: dict[int, Sequence[float]] = {}
    away: dict[int, Sequence[float]] = {}
    differing: dict[int, int | None] = {}
    for n_skills in (6, 3, 2, 1):
        served = _by_arrival(Floor(skilled(n_skills), terms, places).run(calls))
        away[n_skills] = _settled([float(done.is_turned_away) for done in served])
        waits[n_skills] = _settled(
            [done.wait / SECOND for done in served if not done.is_turned_away]
        )
        differing[n_skills] = None
        if places is None:
            expected = queueing.by_skill(arrivals, spread_skills(n_skills))
            differing[n_skills] = sum(
                (done.agent_id, done.at) != (f"a{who:02}", at)
                for done, (who, at) in zip(served, expected, strict=True)
            )
    return {
        n_skills: Skills(
            n_skills, n,
            queueing.batch_means(waits[n_skills]),
            queueing.ratio(waits[n_skills], waits[6]),
            queueing.batch_means(away[n_skills]),
            differing[n_skills],
        )
        for n_skills in sorted(waits)
    }  # fmt: skip


def wallace_whitt_long(n: int) -> dict[int, tuple[Estimate, Estimate]]:
    """Return the mean waits, and their ratios to that of all skills, of the reference alone over many more tickets."""
    waits = {n_skills: _model_waits(n_skills, n) for n_skills in (1, 2, 3, 6)}
    return {
        n_skills: (queueing.batch_means(found), queueing.ratio(found, waits[6]))
        for n_skills, found in waits.items()
    }


def wallace_whitt_rules(n: int) -> dict[str, Estimate]:
    """Return how two skills compare with six in the reference, under each of its rules."""
    every = _model_waits(6, n)
    rules: tuple[queueing.SkillRule, ...] = ("first skill", "longest idle", "most choice left")
    return {rule: queueing.ratio(_model_waits(2, n, rule), every) for rule in rules}


def _model_waits(
    n_skills: int, n: int, rule: queueing.SkillRule = "first skill"
) -> Sequence[float]:
    dice = random.Random(SEED + 1)
    came = poisson(dice, TYPES * WW_ERLANGS / WW_HANDLING, n)
    arrivals = [(at, dice.randrange(TYPES), exponential(dice, WW_HANDLING)) for at in came]
    found = queueing.by_skill(arrivals, spread_skills(n_skills), rule)
    return _settled(
        [(at - came) / SECOND for (_, at), (came, _, _) in zip(found, arrivals, strict=True)]
    )


def wallace_whitt_exact() -> tuple[float, float]:
    """Return the exact mean waits of silos and of agents with all skills."""
    silo = queueing.mean_wait(EACH, WW_ERLANGS, WW_HANDLING)
    return silo, queueing.mean_wait(TYPES * EACH, TYPES * WW_ERLANGS, WW_HANDLING)


def wallace_whitt_exact_with_places(places: int) -> Bounded:
    """Return what agents with all skills do exactly where so many may wait."""
    return queueing.with_places(TYPES * EACH, places, TYPES * WW_ERLANGS, WW_HANDLING)


# --------------------------------------------------------------------------------------- the N-design

UNIT: Final = 60 * SECOND
"""One unit of the N-design's time, which makes its offers and ages ordinary."""

N_LOAD: Final = 0.95


@dataclass(frozen=True, slots=True)
class Spill:
    """How the N-design went under one policy. Queues are numbers waiting, sampled; class 1 is the higher class.

    `differing` counts tickets that another server got, or at another instant, than the reference's (None: the reference does
    not know this policy).
    """

    name: str
    until: float
    one: float
    two: float
    two_max: int
    two_end: int
    differing: int | None
    lengths: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class SpillPolicy:
    """A policy of the N-design. `greedy`: the second server serves both queues, the higher class first."""

    name: str
    greedy: bool = False
    lending: Lending | None = None
    guard: Guard | None = None

    @property
    def threshold(self) -> int | None:
        """From how many on the reference helps; None where it has no such policy."""
        if self.greedy:
            return 1
        if self.lending is None or self.guard is not None:
            return None
        plain = self.lending.open_at - 1 == self.lending.close_at
        return self.lending.open_at if plain else None


GREEDY: Final = SpillPolicy("greedy", greedy=True)
SPILLS: Final = (
    SpillPolicy("from 5", lending=Lending(5, 4, ("two",))),
    SpillPolicy("from 10", lending=Lending(10, 9, ("two",))),
    SpillPolicy("from 20", lending=Lending(20, 19, ("two",))),
    SpillPolicy("from 10 to 5", lending=Lending(10, 5, ("two",))),
    SpillPolicy("from 5, lender guarded", lending=Lending(5, 4, ("two",)), guard=Guard(20, 10)),
)


def n_design(policy: SpillPolicy, until: float, load: float = N_LOAD) -> Spill:
    """Let both classes come for so many units of time."""
    calls = _n_calls(until, load)
    is_one = routing.Requirement(skills=(routing.SkillNeed(skill="first"),))
    calls = [
        Call(c.at, c.work, c.queue, c.priority, requirement=is_one) if c.queue == "one" else c
        for c in calls
    ]
    serves = ("two", "one") if policy.greedy else ("two",)
    terms = Terms(
        offer_seconds=LONG,
        strategy="best_skilled",  # An idle server one is preferred for class 1.
        lending={} if policy.lending is None else {"one": policy.lending},
        guards={} if policy.guard is None else {"two": policy.guard},
    )

    def handling(agent_id: str, call: Call) -> int:
        return 2 * call.work if agent_id == "s2" and call.queue == "one" else call.work

    floor = Floor(
        [agent("s1", ("one",), {"first": 10}), agent("s2", serves, {"first": 5})],
        terms,
        handling=handling,
        watch=5 * UNIT,
    )
    served = floor.run(calls)
    stretch = round(until * UNIT)
    seen = [(at / UNIT, n) for at, n in floor.lengths if at <= stretch]
    late = [n for at, n in seen if at >= until * WARM_UP]
    return Spill(
        policy.name,
        until,
        fmean(n.get("one", 0) for n in late),
        fmean(n.get("two", 0) for n in late),
        max(n.get("two", 0) for _, n in seen),
        seen[-1][1].get("two", 0),
        _differing(policy, calls, served),
        tuple((at, n.get("two", 0)) for at, n in seen[:: max(1, len(seen) // 400)]),
    )


def _n_calls(until: float, load: float) -> list[Call]:
    found: list[Call] = []
    for kind, rate in enumerate(NDesign(load).rates):
        dice = random.Random(SEED + kind)
        n = round(rate * until)
        queue = ("one", "two")[kind]
        unit = UNIT / SECOND
        found += [
            Call(at, exponential(dice, unit), queue, priority=kind + 1)
            for at in poisson(dice, rate / unit, n)
        ]
    return sorted(found, key=lambda call: call.at)


def _differing(policy: SpillPolicy, calls: Sequence[Call], served: Sequence[Served]) -> int | None:
    if policy.threshold is None:
        return None
    arrivals = [(call.at, 1 if call.queue == "one" else 2, call.work) for call in calls]
    expected = {
        id(calls[number]): (f"s{server}", at)
        for number, server, at in queueing.patient_n(arrivals, policy.threshold)
    }
    return sum(expected[id(done.call)] != (done.agent_id, done.at) for done in served)


def n_design_as_markov(threshold: int, until: float, load: float = N_LOAD) -> NQueues:
    """Return what the preemptive chain of the literature does."""
    return queueing.preemptive_n(NDesign(load), threshold, until, SEED)


# ------------------------------------------------------------------------------------- voice and chat

VOICE_HANDLING: Final = 300.0
CHAT_HANDLING: Final = 600.0
DRAIN_AGENTS: Final = 10


@dataclass(frozen=True, slots=True)
class Draining:
    """Waits by channel under one policy, in seconds: mean, 95th percentile, longest. `unserved` waited at the end."""

    name: str
    load: float
    n: int
    voice: tuple[float, float, float]
    chat: tuple[float, float, float]
    unserved: int


DRAINS: Final[Mapping[str, Drain | None]] = {
    "nobody is kept free": None,
    "one agent, after 60 s": Drain(100, 60),
    "one agent, after 300 s": Drain(100, 300),
}


def draining(name: str, load: float, until: float) -> Draining:
    """Let calls that take a whole agent come among chats that take a fifth, half of the load each."""
    dice = random.Random(SEED)
    capacity = DRAIN_AGENTS * 100
    voice_rate = load / 2 * capacity / (VOICE_HANDLING * 100)
    chat_rate = load / 2 * capacity / (CHAT_HANDLING * 20)
    calls = [
        Call(at, exponential(dice, VOICE_HANDLING), cost=100, channel="voice")
        for at in poisson(dice, voice_rate, round(voice_rate * until))
    ]
    calls += [
        Call(at, exponential(dice, CHAT_HANDLING), cost=20, channel="chat")
        for at in poisson(dice, chat_rate, round(chat_rate * until))
    ]
    terms = Terms(offer_seconds=LONG, drain=DRAINS[name], strategy="least_loaded")
    served = _by_arrival(Floor([agent(f"a{k}") for k in range(DRAIN_AGENTS)], terms).run(calls))
    waits = {
        channel: _settled([d.wait / SECOND for d in served if d.call.channel == channel])
        for channel in ("voice", "chat")
    }
    return Draining(
        name,
        load,
        len(calls),
        _waits_of(waits["voice"]),
        _waits_of(waits["chat"]),
        len(calls) - len(served),
    )


def _waits_of(waits: Sequence[float]) -> tuple[float, float, float]:
    return fmean(waits), percentile(waits, 0.95), max(waits)


# ----------------------------------------------------------------------------------------------- aging

AGING_AGENTS: Final = 10
AGING_WORK: Final = 300
AGING_AFTER: Final = 1800
FLOOD: Final = 6 * 3600


@dataclass(frozen=True, slots=True)
class LowTicket:
    """A ticket of low priority: when it came, how long it waited, and how long it may at most (seconds)."""

    came: float
    wait: float
    bound: float


@dataclass(frozen=True, slots=True)
class Aging:
    """A flood of urgent tickets beside a few of low priority, with promotion or without."""

    is_aging: bool
    low: tuple[LowTicket, ...]
    urgent_wait: float

    @property
    def above_bound(self) -> int:
        """How many waited longer than they may."""
        return sum(ticket.wait > ticket.bound for ticket in self.low)


def aging(*, is_aging: bool, until: float = 10 * 3600.0) -> Aging:
    """Let urgent tickets come at 105 % of what the floor can do for six hours, then at 60 %, and low ones at 3 % beside.

    Each takes five minutes, so that the bound can be worked out: the age of promotion, then the whole backlog of that instant
    at the floor's speed.
    """
    dice = random.Random(SEED)
    speed = AGING_AGENTS / AGING_WORK
    calls: list[Call] = []
    for begin, end, share in ((0.0, FLOOD, 1.05), (FLOOD, until, 0.6)):
        n = round((end - begin) * speed * share)
        calls += [
            Call(at + round(begin * SECOND), AGING_WORK * SECOND, priority=1, target=900 * SECOND)
            for at in poisson(dice, speed * share, n)
        ]
    calls += [
        Call(at, AGING_WORK * SECOND, priority=3, target=86_400 * SECOND)
        for at in poisson(dice, speed * 0.03, round(until * speed * 0.03))
    ]
    terms = Terms(offer_seconds=LONG, aging={3: float(AGING_AFTER)} if is_aging else {})
    served = Floor([agent(f"a{k}") for k in range(AGING_AGENTS)], terms).run(calls)
    low = []
    for done in _by_arrival(served):
        if done.call.priority == 3:
            promoted = done.call.at + AGING_AFTER * SECOND
            ahead = sum(other.call.at <= promoted < other.at for other in served)
            rounds = -(-ahead // AGING_AGENTS)
            bound = AGING_AFTER + (rounds + 1) * AGING_WORK
            low.append(LowTicket(done.call.at / SECOND, done.wait / SECOND, bound))
    urgent = [done.wait / SECOND for done in served if done.call.priority == 1]
    return Aging(is_aging, tuple(low), fmean(urgent))


# ------------------------------------------------------------------------------------------ relaxation

EXPERTS: Final = 4
GENERALISTS: Final = 8
RELAX_HANDLING: Final = 300.0
RELAX_AFTER: Final = (0.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, None)


@dataclass(frozen=True, slots=True)
class Relaxed:
    """Tickets that ask for an expert and take anybody after `after` seconds (None: never)."""

    after: float | None
    n: int
    wait: float
    p90: float
    by_expert: float
    other_wait: float


def relaxation(after: float | None, n: int) -> Relaxed:
    """Let tickets come of which one in three asks for one of four experts among twelve agents."""
    dice = random.Random(SEED)
    need = routing.SkillNeed(skill="api", level=8)
    steps = () if after is None else (routing.RelaxStep(after_seconds=after, levels={"api": 3}),)
    hard = routing.Requirement(skills=(need,), steps=steps)
    easy = routing.Requirement(skills=(routing.SkillNeed(skill="api", level=3),))
    rate = 0.8 * (EXPERTS + GENERALISTS) / RELAX_HANDLING
    calls = [
        Call(
            at,
            exponential(dice, RELAX_HANDLING),
            requirement=hard if dice.random() < 1 / 3 else easy,
        )
        for at in poisson(dice, rate, n)
    ]
    agents = [agent(f"x{k}", skills={"api": 9, "deep": 9}) for k in range(EXPERTS)]
    agents += [agent(f"g{k}", skills={"api": 4}) for k in range(GENERALISTS)]
    # Thrift sends what anybody can do to those without the rare skill.
    terms = Terms(offer_seconds=LONG, strategy="thrift")
    served = _settled_served(Floor(agents, terms).run(calls))
    asked = [done for done in served if done.call.requirement is hard]
    waits = [done.wait / SECOND for done in asked]
    return Relaxed(
        after,
        n,
        fmean(waits),
        percentile(waits, 0.9),
        sum(done.agent_id.startswith("x") for done in asked) / len(asked),
        fmean(done.wait / SECOND for done in served if done.call.requirement is easy),
    )


def _settled_served(served: Sequence[Served]) -> Sequence[Served]:
    ordered = _by_arrival(served)
    return ordered[round(len(ordered) * WARM_UP) :]


# ---------------------------------------------------------------------------------------------- choice

CHOICES: Final[tuple[Strategy, ...]] = (
    "longest_idle", "least_loaded", "best_skilled", "thrift", "weighted",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Choice:
    """How one strategy chose. `level` is the mean level, in the skill asked, of whoever got a ticket; `spread` the most that
    one agent did, over the mean.
    """

    strategy: Strategy
    n: int
    level: float
    common_wait: float
    rare_wait: float
    spread: float


def choosing(strategy: Strategy, n: int) -> Choice:
    """Let tickets come of which one in five asks for a skill that three of twelve agents have beside the common one."""
    dice = random.Random(SEED)
    common = routing.Requirement(skills=(routing.SkillNeed(skill="orders", level=2),))
    rare = routing.Requirement(skills=(routing.SkillNeed(skill="api", level=2),))
    calls = [
        Call(
            at,
            exponential(dice, 300.0),
            cost=50,
            requirement=rare if dice.random() < 0.2 else common,
        )
        for at in poisson(dice, 0.8 * 24 / 300, n)
    ]
    agents = [agent(f"g{k}", skills={"orders": 2 + k}) for k in range(9)]
    agents += [agent(f"x{k}", skills={"orders": 6, "api": 3 + 3 * k}) for k in range(3)]
    served = _settled_served(Floor(agents, Terms(offer_seconds=LONG, strategy=strategy)).run(calls))
    level_of = {who.agent_id: who.skills for who in agents}
    done_by: dict[str, int] = {}
    for done in served:
        done_by[done.agent_id] = done_by.get(done.agent_id, 0) + 1
    return Choice(
        strategy,
        n,
        fmean(level_of[d.agent_id][d.call.requirement.skills[0].skill] for d in served),
        fmean(d.wait / SECOND for d in served if d.call.requirement is common),
        fmean(d.wait / SECOND for d in served if d.call.requirement is rare),
        max(done_by.values()) / (len(served) / len(agents)),
    )


# -------------------------------------------------------------------------------------------- all of it


@dataclass(slots=True)
class Evidence:
    """All studies of a report."""

    erlang: list[Erlang]
    skills: dict[int, Skills]
    skills_with_places: dict[int, Skills]
    skills_long: dict[int, tuple[Estimate, Estimate]]
    skills_rules: dict[str, Estimate]
    spills: list[Spill]
    markov: dict[int, NQueues]
    drains: list[Draining]
    agings: list[Aging]
    relaxations: list[Relaxed]
    choices: list[Choice]


PLACES: Final = 30

Job = tuple[str, Callable[..., object], tuple[object, ...]]


def jobs(scale: float = 1.0) -> Iterator[Job]:
    """Yield the report's runs, the long ones first: which part of the evidence each is of, and what to call with what."""

    def some(n: int) -> int:
        return max(2_000, round(n * scale))

    yield "skills", wallace_whitt, (some(120_000),)
    yield "spills", n_design, (GREEDY, 200_000 * scale)
    yield "spills", n_design, (SPILLS[1], 200_000 * scale)
    yield "erlang", erlang, (100.0, 110, 240.0, some(250_000), some(20_000_000))
    yield "skills_with_places", wallace_whitt, (some(60_000), PLACES)
    yield "skills_long", wallace_whitt_long, (some(1_000_000),)
    yield "skills_rules", wallace_whitt_rules, (some(400_000),)
    yield "erlang", erlang, (10.0, 12, 300.0, some(100_000), some(5_000_000))
    for policy in (SPILLS[0], *SPILLS[2:]):
        yield "spills", n_design, (policy, 30_000 * scale)
    for threshold in (1, 5, 10, 20):
        yield "markov", n_design_as_markov, (threshold, 200_000 * scale)
    for load in (0.75, 0.92):
        for name in DRAINS:
            yield "drains", draining, (name, load, 400_000 * scale)
    for after in RELAX_AFTER:
        yield "relaxations", relaxation, (after, some(12_000))
    for strategy in CHOICES:
        yield "choices", choosing, (strategy, some(15_000))
    yield "agings", _with_aging, (True,)
    yield "agings", _with_aging, (False,)


def _with_aging(is_aging: bool) -> Aging:
    return aging(is_aging=is_aging)


def gather(results: Sequence[tuple[Job, object]]) -> Evidence:
    """Put the results of all jobs in their places, in the order of `jobs`."""
    found = Evidence([], {}, {}, {}, {}, [], {}, [], [], [], [])
    for (part, _, arguments), result in results:
        match result:
            case Erlang():
                found.erlang.append(result)
            case Spill():
                found.spills.append(result)
            case NQueues():
                threshold = arguments[0]
                assert isinstance(threshold, int)
                found.markov[threshold] = result
            case Draining():
                found.drains.append(result)
            case Aging():
                found.agings.append(result)
            case Relaxed():
                found.relaxations.append(result)
            case Choice():
                found.choices.append(result)
            case dict():
                getattr(found, part).update(result)
            case _:
                raise TypeError(f"{part} gave {type(result).__name__}")
    return found
