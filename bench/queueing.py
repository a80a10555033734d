"""What is known of queues without an engine: exact formulas, and reference models of a few lines, with confidence intervals.

The models are written apart from the router and import nothing of it; the evidence holds the engine against them.
"""

import math
import random
from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from statistics import fmean, stdev
from typing import Literal, NamedTuple

_T_19 = 2.093
"""Two-sided 95 % of Student's t with 19 degrees of freedom: 20 batches."""

N_BATCHES = 20


class Estimate(NamedTuple):
    """A mean of a run, and half the width of its 95 % confidence interval."""

    mean: float
    half: float

    def holds(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return abs(value - self.mean) <= self.half


def batch_means(values: Sequence[float]) -> Estimate:
    """Return the mean of a run's values and its confidence, from 20 batches of the run.

    Neighbouring values depend on each other; the means of long batches hardly do.
    """
    size = len(values) // N_BATCHES
    return _estimate([fmean(values[n * size : (n + 1) * size]) for n in range(N_BATCHES)])


def _estimate(means: Sequence[float]) -> Estimate:
    return Estimate(fmean(means), _T_19 * stdev(means) / math.sqrt(N_BATCHES))


def ratio(upper: Sequence[float], lower: Sequence[float]) -> Estimate:
    """Return the ratio of two means over the same arrivals, and its confidence, by leaving out each of 20 batches in turn."""
    size = min(len(upper), len(lower)) // N_BATCHES
    tops = [sum(upper[n * size : (n + 1) * size]) for n in range(N_BATCHES)]
    bottoms = [sum(lower[n * size : (n + 1) * size]) for n in range(N_BATCHES)]
    whole = sum(tops) / sum(bottoms)
    pseudo = [
        N_BATCHES * whole - (N_BATCHES - 1) * (sum(tops) - top) / (sum(bottoms) - bottom)
        for top, bottom in zip(tops, bottoms, strict=True)
    ]
    return Estimate(whole, _T_19 * stdev(pseudo) / math.sqrt(N_BATCHES))


def erlang_c(n_agents: int, erlangs: float) -> float:
    """Return the probability that a caller waits, with Poisson arrivals and exponential handling times."""
    blocked = 1.0
    for n in range(1, n_agents + 1):
        blocked = erlangs * blocked / (n + erlangs * blocked)
    return blocked / (1 - (erlangs / n_agents) * (1 - blocked))


def mean_wait(n_agents: int, erlangs: float, handling: float) -> float:
    """Return the mean wait of all callers, in the unit of `handling`."""
    return erlang_c(n_agents, erlangs) * handling / (n_agents - erlangs)


def service_level(n_agents: int, erlangs: float, handling: float, within: float) -> float:
    """Return the share of callers who wait no longer than `within`."""
    late = math.exp(-(n_agents - erlangs) * within / handling)
    return 1 - erlang_c(n_agents, erlangs) * late


class Bounded(NamedTuple):
    """What a queue with few places does: the mean wait of those who are served, and the share turned away."""

    wait: float
    turned_away: float


def with_places(n_agents: int, places: int, erlangs: float, handling: float) -> Bounded:
    """Return what so many agents do where only so many may wait."""
    weights = [1.0]
    for n in range(1, n_agents + places + 1):
        weights.append(weights[-1] * erlangs / min(n, n_agents))
    total = sum(weights)
    waiting = sum((n - n_agents) * weights[n] for n in range(n_agents, len(weights))) / total
    turned_away = weights[-1] / total
    served = erlangs / handling * (1 - turned_away)
    return Bounded(waiting / served, turned_away)


def long_run(seed: int, n_agents: int, erlangs: float, handling: float, n: int) -> Estimate:
    """Return the mean wait of many callers by the textbook's recursion: first come, first served, equal agents.

    A tenth more come before those who count.
    """
    draw = random.Random(seed).expovariate
    free = [0.0] * n_agents
    heapify(free)
    at, rate, done = 0.0, erlangs / handling, 1 / handling
    means: list[float] = []
    size = n // N_BATCHES
    for count in (n // 10, *(size for _ in range(N_BATCHES))):
        total = 0.0
        for _ in range(count):
            at += draw(rate)
            begins = max(at, free[0])
            heapreplace(free, begins + draw(done))
            total += begins - at
        means.append(total / max(count, 1))
    return _estimate(means[1:])


SkillRule = Literal["first skill", "longest idle", "most choice left"]


def by_skill(
    arrivals: Sequence[tuple[int, int, int]],
    skills: Sequence[Sequence[int]],
    rule: SkillRule = "first skill",
) -> list[tuple[int, int]]:
    """Let (instant, type, work) come to agents whose skills are given, the first of each first; return for each arrival the
    agent and the instant.

    `first skill`: an arrival goes to an idle agent whose first skill it is, else to an idle one who has it, each time to the
    one who got something the longest ago; a freed agent takes the oldest that they can. `longest idle`: first skills are no
    matter. `most choice left`: to whoever's skills most idle agents have, and a freed agent takes of the longest queue.
    """
    run = _Skilled(arrivals, skills, rule)
    for number, (at, kind, _) in enumerate(arrivals):
        run.end_until(at)
        run.arrive(number, kind, at)
    run.end_until(None)
    return run.found


class _Skilled:
    """One run of `by_skill`."""

    def __init__(
        self,
        arrivals: Sequence[tuple[int, int, int]],
        skills: Sequence[Sequence[int]],
        rule: SkillRule,
    ) -> None:
        n_kinds = 1 + max(kind for _, kind, _ in arrivals)
        self.arrivals, self.skills, self.rule = arrivals, skills, rule
        self.waiting: list[deque[int]] = [deque() for _ in range(n_kinds)]
        self.last = [-1] * len(skills)
        self.idle = set(range(len(skills)))
        self.n_idle = [sum(kind in has for has in skills) for kind in range(n_kinds)]
        self.ends: list[tuple[int, int, int]] = []
        self.found = [(-1, -1)] * len(arrivals)

    def end_until(self, at: int | None) -> None:
        """Let everybody finish who does by an instant (None: everybody)."""
        while self.ends and (at is None or self.ends[0][0] <= at):
            now, _, agent = heappop(self.ends)
            kind = self._next_kind(agent)
            if kind is not None:
                self._give(self.waiting[kind].popleft(), agent, now)
            else:
                self.idle.add(agent)
                self._count_idle(agent, 1)

    def arrive(self, number: int, kind: int, now: int) -> None:
        """Somebody comes."""
        able = [agent for agent in self.idle if kind in self.skills[agent]]
        if not able:
            self.waiting[kind].append(number)
            return
        best = min((self._rank(agent, kind), agent) for agent in able)[1]
        self.idle.remove(best)
        self._count_idle(best, -1)
        self._give(number, best, now)

    def _give(self, number: int, agent: int, now: int) -> None:
        self.last[agent] = now
        self.found[number] = (agent, now)
        heappush(self.ends, (now + self.arrivals[number][2], number, agent))

    def _rank(self, agent: int, kind: int) -> tuple[float, ...]:
        match self.rule:
            case "first skill":
                return (self.skills[agent][0] != kind, self.last[agent], agent)
            case "longest idle":
                return (self.last[agent], agent)
            case "most choice left":
                missed = sum(4.0 ** -self.n_idle[one] for one in self.skills[agent])
                return (missed, self.last[agent], agent)

    def _next_kind(self, agent: int) -> int | None:
        kinds = [kind for kind in self.skills[agent] if self.waiting[kind]]
        if self.rule == "most choice left":
            return max(kinds, key=lambda kind: len(self.waiting[kind]), default=None)
        return min(kinds, key=lambda kind: self.waiting[kind][0], default=None)

    def _count_idle(self, agent: int, by: int) -> None:
        for kind in self.skills[agent]:
            self.n_idle[kind] += by


class NDesign(NamedTuple):
    """Two classes, two servers: one serves class 1 only, at rate 1, two serves class 1 at 0.5 or class 2 at 1.

    The arrivals are 1.3 and 0.4 times `load`. Class 1 is the higher one.
    """

    load: float

    @property
    def rates(self) -> tuple[float, float]:
        """The arrivals of both classes in a unit of time."""
        return 1.3 * self.load, 0.4 * self.load


class NQueues(NamedTuple):
    """The mean number in each class, in service or waiting; the most there were of class 2, and how many at the end."""

    one: float
    two: float
    two_max: int
    two_end: int


def preemptive_n(design: NDesign, threshold: int, until: float, seed: int) -> NQueues:
    """Run the N-design as a Markov chain in which server two changes over at once, in the middle of a service.

    It serves class 1 while at least `threshold` of it wait for server one, and class 2 else.
    """
    dice = random.Random(seed)
    ones = twos = most = 0
    sum_ones = sum_twos = now = 0.0
    arrive_one, arrive_two = design.rates
    while now < until:
        is_helping = ones >= 2 and ones - 1 >= threshold
        done_one = (1.0 if ones else 0.0) + (0.5 if is_helping else 0.0)
        done_two = 1.0 if twos and not is_helping else 0.0
        total = arrive_one + arrive_two + done_one + done_two
        step = dice.expovariate(total)
        sum_ones += ones * step
        sum_twos += twos * step
        now += step
        chance = dice.random() * total
        if chance < arrive_one:
            ones += 1
        elif chance < arrive_one + arrive_two:
            twos += 1
            most = max(most, twos)
        elif chance < arrive_one + arrive_two + done_one:
            ones -= 1
        else:
            twos -= 1
    return NQueues(sum_ones / now, sum_twos / now, most, twos)


def patient_n(
    arrivals: Sequence[tuple[int, int, int]], threshold: int
) -> list[tuple[int, int, int]]:
    """Run the N-design in which a server finishes what it began; return (number, server, instant) as they are served.

    `arrivals` are (instant, class, work) in order of time. Server two takes class 1, at half the speed, when it is free and
    at least `threshold` of class 1 wait; class 2 else.
    """
    waiting: dict[int, list[int]] = {1: [], 2: []}
    heads = {1: 0, 2: 0}
    busy_until = {1: 0, 2: 0}
    found: list[tuple[int, int, int]] = []

    def n_waiting(kind: int) -> int:
        return len(waiting[kind]) - heads[kind]

    def serve(server: int, kind: int, now: int) -> None:
        number = waiting[kind][heads[kind]]
        heads[kind] += 1
        work = arrivals[number][2]
        busy_until[server] = now + (2 * work if server == 2 and kind == 1 else work)
        found.append((number, server, now))

    def match(now: int) -> None:
        if busy_until[1] <= now and n_waiting(1):
            serve(1, 1, now)
        if busy_until[2] <= now:
            if n_waiting(1) >= threshold:
                serve(2, 1, now)
            elif n_waiting(2):
                serve(2, 2, now)

    n = 0
    now = 0
    while True:
        ends = [at for at in busy_until.values() if at > now]
        is_left = n < len(arrivals)
        if not is_left and not ends:
            return found
        coming = arrivals[n][0] if is_left else None
        end = min(ends, default=None)
        if coming is None or (end is not None and end <= coming):
            assert end is not None
            now = end
        else:
            now = coming
            waiting[arrivals[n][1]].append(n)
            n += 1
        match(now)
