"""`signalbox bench router`: the assignment core on one processor, with the record of every decision.

A domain is made of a seed, written as the rows that the database would hold, and read back: that is the load. Then agents
finish tickets, new ones come, some are declined, some wait too long. A **decision** is an event after which somebody was
offered a ticket or a ticket went to wait; its cost is the processor's time of the whole call, record, bookkeeping and events
included, encoding and storing them not. What else the machine does does not count.
"""

import gc
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import psutil

from bench.report import Report, machine, percentile
from schemas import roster, routing
from services.router.core.assignment import assign
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.domain import Domain, Work
from services.router.core.assignment.requirement import (
    Requirement,
    SkillNeed,
    Step,
    from_wire,
    to_wire,
)
from services.router.core.assignment.stored import Profile, StoredReader
from services.router.core.assignment.terms import Drain, Guard, Lending, Strategy, Terms
from services.router.store import agent_of

NOON: Final = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
N_SKILLS: Final = 200
LANGUAGES: Final = ("en", "tr", "ru", "de", "fr", "es", "it", "pl")
CHANNELS: Final = {"email": 10, "form": 10, "chat": 20, "voice": 100}
STRATEGIES: Final[tuple[Strategy, ...]] = (
    "longest_idle", "least_loaded", "best_skilled", "thrift", "weighted",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RouterOptions:
    """The size of the domain and of the run. With `teams` agents belong to one of 50, else each may serve every queue."""

    agents: int = 10_000
    waiting: int = 200_000
    queues: int = 1_000
    requirements: int = 1_500
    decisions: int = 20_000
    teams: bool = False
    curve: bool = True
    seed: int = 20_261_124
    noon: datetime = NOON
    """When the run begins."""

    durable_decisions: int = 12_000
    durable_rate: int = 500
    """Inputs of the durable run: as fast as the router takes them, and a second at a fixed rate."""


@dataclass(slots=True)
class World:
    """What a seed makes: the terms, and the domain as rows."""

    options: RouterOptions
    dice: random.Random
    terms: Terms
    agents: list[dict[str, object]] = field(default_factory=list)
    works: list[bytes] = field(default_factory=list)
    of_queue: list[list[tuple[str, routing.Requirement]]] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    n_asked: int = 0

    def request(self, now: datetime) -> routing.WorkRequested:
        """Return a new ticket's request, of a queue that is asked for often or seldom."""
        dice = self.dice
        self.n_asked += 1
        queue = dice.choices(range(self.options.queues), cum_weights=self.weights)[0]
        channel, asked = dice.choice(self.of_queue[queue])
        return routing.WorkRequested(
            domain="main",
            work_id=f"work-{self.n_asked:08}",
            ticket_id=f"ticket-{self.n_asked:08}",
            conversation_id=f"conversation-{self.n_asked:08}",
            queue=f"q{queue}",
            priority=dice.choices((1, 2, 3, 4), (5, 15, 60, 20))[0],
            cost=CHANNELS[channel],
            channel=channel,
            requirement=asked,
            entered_at=now,
            due_at=now + timedelta(hours=dice.choice((1, 4, 8, 24)))
            if dice.random() < 0.7
            else None,
            preferred_agent_id=f"agent-{dice.randrange(self.options.agents):05}"
            if dice.random() < 0.2
            else None,
            hold_seconds=dice.choice((None, 60.0)),
            policy_version="bench",
            rule="bench",
        )


def _requirement(dice: random.Random) -> Requirement:
    skills = dice.sample(range(N_SKILLS), dice.choices((1, 2, 3), (5, 3, 1))[0])
    needs = tuple(
        SkillNeed(f"s{skill}", dice.randint(1, 8), None) for skill in sorted(skills, key=str)
    )
    # A requirement's steps come late here, so that the run decides when they come.
    steps = (
        (
            Step(after=7200.0, levels=tuple((need.skill, 1) for need in needs)),
            Step(after=14_400.0, drop=(needs[-1].skill,)),
        )
        if dice.random() < 0.7
        else ()
    )
    return Requirement(
        dice.choice(LANGUAGES) if dice.random() < 0.8 else None,
        dice.randint(1, 5),
        None,
        needs,
        (f"s{(skills[0] + 1) % N_SKILLS}",) if dice.random() < 0.1 else (),
        steps=steps,
    )


def _terms(options: RouterOptions, dice: random.Random) -> Terms:
    names = [f"q{n}" for n in range(options.queues)]
    lending: dict[str, Lending] = {}
    guards: dict[str, Guard] = {}
    if options.teams:
        for name in names:
            lenders = tuple(other for other in dice.sample(names, 3) if other != name)
            lending[name] = Lending(20, 10, lenders)
            guards[name] = Guard(400, 200)
    return Terms(
        offer_seconds=30,
        max_declines=2,
        strategies={name: dice.choice(STRATEGIES) for name in names},
        aging={2: 4 * 3600.0, 3: 24 * 3600.0, 4: 72 * 3600.0},
        lending=lending,
        guards=guards,
        drain=Drain(100, 600),
        wrap_up={"voice": 30.0},
    )


def make_world(options: RouterOptions) -> World:
    """Make the domain of a seed, as rows."""
    dice = random.Random(options.seed)
    world = World(options, dice, _terms(options, dice))
    total = 0.0
    for n in range(options.queues):
        total += 1 / (n + 1) ** 0.7
        world.weights.append(total)
    asked = [to_wire(_requirement(dice)) for _ in range(options.requirements)]
    for _ in range(options.queues):
        channels = dice.choices(tuple(CHANNELS), (50, 15, 30, 5), k=3)
        world.of_queue.append([(dice.choice(channels), dice.choice(asked)) for _ in range(7)])
    names = tuple(f"q{n}" for n in range(options.queues))
    homes: list[list[str]] = [[] for _ in range(50)]
    for name in names:
        for team in (
            range(50) if dice.random() < 0.05 else dice.sample(range(50), dice.randint(1, 3))
        ):
            homes[team].append(name)
    teams = [tuple(home) for home in homes]
    for n in range(options.agents):
        agent = Agent(
            f"agent-{n:05}",
            queues=teams[n % 50] if options.teams else names,
            skills={
                f"s{skill}": dice.randint(1, 10)
                for skill in dice.sample(range(N_SKILLS), dice.randint(5, 25))
            },
            languages={
                language: dice.randint(3, 10)
                for language in dice.sample(LANGUAGES, dice.randint(1, 3))
            },
            capacity=(capacity := dice.choice((20, 20, 40, 100))),
            ceiling=capacity,
            limits={"voice": 1, "chat": 3, "email": 8, "form": 8} if dice.random() < 0.5 else {},
            presence="available" if dice.random() < 0.9 else "away",
            place=n,
        )
        world.agents.append(_row(agent))
    for _ in range(options.waiting):
        asked_at = options.noon - timedelta(seconds=dice.uniform(0, 6000))
        event = world.request(asked_at)
        requirement = from_wire(event.requirement)
        world.works.append(
            msgspec.json.encode(
                Work(
                    work_id=event.work_id,
                    ticket_id=event.ticket_id,
                    conversation_id=event.conversation_id,
                    queue=event.queue,
                    priority=event.priority,
                    cost=event.cost,
                    channel=event.channel,
                    requirement=requirement,
                    effective=requirement,
                    entered_at=asked_at,
                    due_at=event.due_at,
                    preferred_agent_id=event.preferred_agent_id,
                )
            )
        )
    return world


def _row(agent: Agent) -> dict[str, object]:
    columns = (
        "agent_id", "name", "presence", "capacity", "load", "ceiling", "last_assigned_at", "misses",
    )  # fmt: skip
    profile = Profile(agent.queues, agent.skills, agent.languages, agent.limits, agent.place)
    return {
        **{column: getattr(agent, column) for column in columns},
        "profile": msgspec.json.encode(profile).decode(),
        "duty": "{}",
    }


def load(world: World) -> Domain:
    """Read the rows as the router's store does and make the domain of them, ready to decide."""
    reader = StoredReader()
    agents = [agent_of(row, reader) for row in world.agents]
    return Domain("main", agents, map(reader.work, world.works))


class _Clock:
    """The processor's time of each kind of call."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}

    def decide(
        self, what: str, domain: Domain, event: assign.Event, now: datetime, terms: Terms
    ) -> assign.Decision:
        """Decide, and note what it cost under `what`."""
        began = time.thread_time()
        decision = assign.decide(domain, event, now, terms)
        self.spent.setdefault(what, []).append(time.thread_time() - began)
        return decision

    def all(self, names: Iterable[str]) -> list[float]:
        """Return what the calls of some kinds cost."""
        return [seconds for name in names for seconds in self.spent.get(name, ())]


class Run:
    """Agents finish tickets, and everything that follows."""

    def __init__(self, world: World, domain: Domain) -> None:
        self.world = world
        self.domain = domain
        self.dice = random.Random(world.options.seed + 1)
        self.clock = _Clock()
        self.now = world.options.noon
        self.held: list[str] = []
        self.n_offers = 0
        self.offers: list[routing.OfferMade] = []
        """Offers that nobody has answered yet."""

    def tell(self, what: str, event: assign.Event) -> None:
        """Tell the domain something, and answer the offers that it makes, once all of them are made."""
        self._decide(what, event)
        while self.offers and self.domain.is_settled:
            told = self.offers.pop()
            self.n_offers += 1
            names = {
                "domain": "main",
                "agent_id": told.agent_id,
                "ticket_id": told.ticket_id,
                "reservation_id": told.reservation_id,
            }
            if self.dice.random() < 0.05:
                self._decide("decline", roster.OfferDeclined(**names))
            else:
                self._decide("accept", roster.OfferAccepted(**names))
                self.held.append(told.work_id)

    def _decide(self, what: str, event: assign.Event) -> None:
        self.now += timedelta(milliseconds=1)
        decision = self.clock.decide(what, self.domain, event, self.now, self.world.terms)
        self.offers.extend(e for e in decision.events if isinstance(e, routing.OfferMade))
        self.domain.clear_marks()

    def fill(self) -> None:
        """Give the idle agents work until nobody can take any more, slice by slice."""
        self.tell("slice", assign.DueNow())
        while not self.domain.is_settled:
            self.tell("slice", assign.DueNow())

    def finish(self) -> None:
        """An agent finishes a ticket."""
        at = self.dice.randrange(len(self.held))
        self.held[at], self.held[-1] = self.held[-1], self.held[at]
        work = self.domain.works.get(self.held.pop())
        if work is None or work.status != "assigned":
            return
        self.tell(
            "freed",
            routing.WorkWithdrawn(
                domain="main",
                work_id=work.work_id,
                ticket_id=work.ticket_id,
                conversation_id=work.conversation_id,
                reason="solved",
            ),
        )

    def go(self, n: int) -> None:
        """Let `n` tickets be finished or come."""
        for _ in range(n):
            if self.dice.random() < 0.55 and self.held:
                self.finish()
            else:
                self.tell("arrival", self.world.request(self.now))

    def change_skills(self, n: int) -> None:
        """Let `n` agents learn something."""
        for _ in range(n):
            agent = self.domain.agents[f"agent-{self.dice.randrange(self.world.options.agents):05}"]
            skills = dict(agent.skills)
            skills[f"s{self.dice.randrange(N_SKILLS)}"] = self.dice.randint(1, 10)
            self.tell(
                "skills",
                roster.AgentSet(
                    domain="main",
                    agent_id=agent.agent_id,
                    queues=agent.queues,
                    skills=skills,
                    languages=agent.languages,
                    capacity=agent.capacity,
                    channel_limits=agent.limits,
                ),
            )

    def relax(self) -> None:
        """Let everything that waited since before noon relax at one instant, slice by slice."""
        self.now = self.world.options.noon + timedelta(seconds=7200)
        for _ in range(300):
            due_at = self.domain.next_due()
            if due_at is None or due_at > self.now:
                return
            self.tell("relaxations", assign.DueNow())


def _figures(run: Run) -> dict[str, float]:
    decisions = run.clock.all(("freed", "arrival", "decline"))
    figures = {
        "decisions_per_second": len(decisions) / sum(decisions),
        "decision_p50_ms": percentile(decisions, 0.5) * 1000,
        "decision_p99_ms": percentile(decisions, 0.99) * 1000,
        "decision_p999_ms": percentile(decisions, 0.999) * 1000,
    }
    for name in ("freed", "arrival", "decline", "accept", "skills", "slice", "relaxations"):
        spent = run.clock.spent.get(name)
        if spent:
            figures[f"{name}_p50_ms"] = percentile(spent, 0.5) * 1000
            figures[f"{name}_p99_ms"] = percentile(spent, 0.99) * 1000
    return figures


def _measure(options: RouterOptions, *, is_whole: bool) -> tuple[dict[str, float], Run]:
    world = make_world(options)
    process = psutil.Process()
    gc.collect()
    before = process.memory_info().rss
    began = time.thread_time()
    began_wall = time.perf_counter()
    gc.disable()  # As at start: nothing that is read then becomes garbage.
    domain = load(world)
    run = Run(world, domain)
    run.tell("slice", assign.DueNow())
    gc.enable()
    loaded, loaded_wall = time.thread_time() - began, time.perf_counter() - began_wall
    memory = process.memory_info().rss - before
    gc.collect()
    gc.freeze()
    run.fill()
    run.go(options.decisions)
    if is_whole:
        run.change_skills(300)
        run.relax()
    figures = _figures(run)
    figures |= {
        "agents": len(domain.agents),
        "waiting": sum(domain.n_waiting().values()),
        "queues": options.queues,
        "buckets": len(domain.heads),
        "requirements": options.requirements,
        "offers": run.n_offers,
        "memory_mb": memory / 1e6,
        "load_seconds": loaded,
        "load_seconds_wall": loaded_wall,
    }
    if is_whole:
        figures["slice_max_ms"] = max(run.clock.all(("slice", "relaxations"))[1:]) * 1000
    gc.unfreeze()
    return figures, run


CURVE: Final = (
    (100, 2_000, 150),
    (1_000, 2_000, 150),
    (1_000, 20_000, 150),
    (1_000, 20_000, 1_500),
    (10_000, 20_000, 1_500),
    (10_000, 200_000, 150),
)
"""Agents, waiting tickets, requirements: the sizes that are measured beside the whole one."""


def run(options: RouterOptions, say: Callable[[str], None]) -> Report:
    """Measure and report."""
    report = Report(
        "router",
        settings={
            **machine(),
            "seed": options.seed,
            "topology": "teams" if options.teams else "open",
            "time": "processor",
        },
    )
    say(f"{options.agents} agents, {options.waiting} waiting")
    report.figures, _ = _measure(options, is_whole=True)
    for agents, waiting, requirements in CURVE if options.curve else ():
        say(f"curve: {agents} agents, {waiting} waiting, {requirements} requirements")
        small = RouterOptions(
            agents=agents,
            waiting=waiting,
            queues=min(options.queues, agents),
            requirements=requirements,
            decisions=min(4_000, options.decisions),
            teams=options.teams,
            seed=options.seed,
        )
        figures, _ = _measure(small, is_whole=False)
        name = f"curve_{agents}_{waiting}_{requirements}"
        report.figures[f"{name}_p50_ms"] = figures["decision_p50_ms"]
        report.figures[f"{name}_p99_ms"] = figures["decision_p99_ms"]
    return report
