"""Who gets what: the best waiting work for an agent, the best agent for waiting work.

One order for work (priority, target, age, id) and one for agents: those of the queue before those who are lent to it, then
the preferred agent, then whoever declined this ticket less often, then by the queue's strategy, then whoever has been idle
longest, then by id. Nothing depends on the order of names in a map or of places in a set.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

from services.router.core.assignment import bits
from services.router.core.assignment.bits import Bits
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.domain import Bucket, Domain, Work, WorkKey
from services.router.core.assignment.index import DRAINING
from services.router.core.assignment.requirement import Requirement
from services.router.core.assignment.terms import Strategy, Terms

CANDIDATES_MAX = 5
"""How many candidates a decision records, best first."""

FEW = 16
"""Up to so many candidates are compared one by one; more are told apart by sets. Both give the same."""

_TOP = 15
"""A level is compared by what it lacks to this, which four bits hold."""

Via = Literal["home", "spill"]


class Takers(NamedTuple):
    """The places that can take a ticket now, and whether they are its queue's own or lent."""

    places: Bits
    via: Via


class Choice(NamedTuple):
    """The agents fit for a ticket now, best first (at most `CANDIDATES_MAX`), and what decided for the first."""

    candidates: tuple[str, ...]
    chosen_by: str
    via: Via = "home"
    scores: tuple[int, ...] = ()


def takers(domain: Domain, work: Work, bucket: Bucket, max_declines: int) -> Takers:
    """Return who can take waiting work of a bucket at this moment."""
    kind = bucket.kind
    free = kind.free
    if work.kept_free is not None:
        keeper = domain.agents[work.kept_free]
        if kind.state[keeper.place] == DRAINING:
            free |= 1 << keeper.place
    free &= bucket.ask.able
    if not free:
        return Takers(0, "home")
    home = free & domain.serving(bucket)
    if bucket.held_for is not None:
        home &= 1 << domain.agents[bucket.held_for].place
    home = _unbarred(domain, work, home, max_declines)
    if home:
        return Takers(home, "home")
    lent = domain.lending(bucket)
    return Takers(_unbarred(domain, work, free & lent, max_declines), "spill" if lent else "home")


def _unbarred(domain: Domain, work: Work, places: Bits, max_declines: int) -> Bits:
    if places and work.has_bars:
        places = bits.without(places, barred(domain, work, max_declines))
    return places


def barred(domain: Domain, work: Work, max_declines: int) -> Bits:
    """Return the places to which work is closed, whoever they are."""
    found = 0
    for agent_id in (*work.excluded, *work.declines):
        agent = domain.agents.get(agent_id)
        if agent is not None and work.is_barred(agent_id, max_declines):
            found |= 1 << agent.place
    return found


def best_work(domain: Domain, agent: Agent, max_declines: int) -> WorkKey | None:
    """Return the first of all waiting work that the agent can take now.

    Heads that the agent declined or is excluded from are passed over; nobody else's work waits behind them.
    """
    people, place = domain.people, agent.place
    if place == people.draining:
        return _own_big_work(domain, agent, max_declines)
    fits = 0
    for kind in people.kinds.values():
        if not kind.state[place]:
            fits |= kind.buckets
    if not fits:
        return None
    best: WorkKey | None = None
    works, agent_id = domain.works, agent.agent_id
    for key, number in domain.heads.walk(domain.slots(agent) & fits):
        if best is not None and key > best:
            break
        work = works[key[3]]
        if not (work.has_bars and work.is_barred(agent_id, max_declines)):
            return work.key
        behind = _first_open(domain, domain.bucket_at(number), agent_id, max_declines)
        if behind is not None and (best is None or behind < best):
            best = behind
    return best


def _own_big_work(domain: Domain, agent: Agent, max_declines: int) -> WorkKey | None:
    if domain.drain is None:
        return None
    work = domain.works[domain.drain]
    places = takers(domain, work, domain.bucket(work), max_declines).places
    return work.key if places >> agent.place & 1 else None


def _first_open(domain: Domain, bucket: Bucket, agent_id: str, max_declines: int) -> WorkKey | None:
    return next(
        (
            key
            for key in bucket.keys
            if not domain.works[key.work_id].is_barred(agent_id, max_declines)
        ),
        None,
    )


def first_takeable(domain: Domain, bucket: Bucket, max_declines: int) -> WorkKey | None:
    """Return the first work of a bucket that anybody can take now."""
    for key in bucket.keys:
        work = domain.works[key.work_id]
        if takers(domain, work, bucket, max_declines).places:
            return work.key
        if not work.has_bars and work.kept_free is None:
            break  # Who cannot take this one can take none behind it, but the one they are kept free for.
    if domain.drain is not None:
        work = domain.works[domain.drain]
        if domain.bucket(work) is bucket and takers(domain, work, bucket, max_declines).places:
            return work.key
    return None


def best_agents(domain: Domain, work: Work, terms: Terms) -> Choice | None:
    """Return who is fit for waiting work now, best first, or None where nobody is."""
    found = takers(domain, work, domain.bucket(work), terms.max_declines)
    if not found.places:
        return None
    scoring = _Scoring(domain, work.effective, terms.strategy_of(work.queue), terms)
    best: list[Agent] = []
    for group in _groups(domain, work, found.places):
        best.extend(scoring.ranked(group, CANDIDATES_MAX - len(best)))
        if len(best) == CANDIDATES_MAX:
            break
    return Choice(
        tuple(agent.agent_id for agent in best),
        _chosen_by(work, best, scoring.strategy),
        found.via,
        () if scoring.strategy == "longest_idle" else tuple(map(scoring.score, best)),
    )


def _groups(domain: Domain, work: Work, places: Bits) -> Iterator[Bits]:
    """Yield the preferred agent, then the others by how often they declined."""
    preferred = domain.agents.get(work.preferred_agent_id or "")
    if preferred is not None and places >> preferred.place & 1:
        yield 1 << preferred.place
        places ^= 1 << preferred.place
    by_declines: dict[int, Bits] = {}
    for agent_id, n in work.declines.items():
        agent = domain.agents.get(agent_id)
        if agent is not None and places >> agent.place & 1:
            by_declines[n] = by_declines.get(n, 0) | 1 << agent.place
            places ^= 1 << agent.place
    if places:
        yield places
    for n in sorted(by_declines):
        yield by_declines[n]


def _chosen_by(work: Work, best: list[Agent], strategy: Strategy) -> str:
    first = best[0].agent_id
    if first == work.preferred_agent_id:
        return "preferred"
    if len(best) == 1:
        return "only_candidate"
    if work.declines.get(first, 0) < work.declines.get(best[1].agent_id, 0):
        return "fewest_declines"
    return strategy


class _Scoring:
    """How the strategy of a queue tells candidates apart for one requirement: the smallest score is the best."""

    def __init__(
        self, domain: Domain, asked: Requirement, strategy: Strategy, terms: Terms
    ) -> None:
        self.strategy = strategy
        self._people = domain.people
        self._asked = asked
        self._weights = terms.weights

    def ranked(self, places: Bits, n: int) -> list[Agent]:
        """Return the best `n` of some places, best first."""
        people = self._people
        agents: list[Agent] = []
        while places and len(agents) < n:
            found = bits.few(places, FEW)
            if found is not None:
                agents += self._sorted(found)[: n - len(agents)]
                break
            best = self._best_of(places)
            found = bits.few(best, FEW)
            if found is not None:
                agents += self._sorted(found)[: n - len(agents)]
            else:
                for entry in people.idle.walk(best):
                    agents.append(people.at(entry.member))
                    if len(agents) == n:
                        break
            places = bits.without(places, best)
        return agents

    def _sorted(self, places: list[int]) -> list[Agent]:
        agents = [self._people.at(place) for place in places]
        if len(agents) > 1:
            idle = self._people.idle
            if self.strategy == "longest_idle":
                agents.sort(key=lambda agent: idle.get(agent.place) or ())
            else:
                agents.sort(key=lambda agent: (self.score(agent), idle.get(agent.place) or ()))
        return agents

    def score(self, agent: Agent) -> int:
        """Return an agent's score."""
        place = agent.place
        match self.strategy:
            case "longest_idle":
                return 0
            case "least_loaded":
                return self._people.loads.numbers[place]
            case "best_skilled":
                return self._lacking(agent)
            case "thrift":
                return self._people.scarcity.numbers[place]
            case "weighted":
                return (
                    self._weights.load * self._people.loads.numbers[place]
                    + self._weights.levels * self._lacking(agent)
                    + self._weights.scarcity * self._people.scarcity.numbers[place]
                )

    def _lacking(self, agent: Agent) -> int:
        asked = self._asked
        lacking = sum(_TOP - agent.skills.get(need.skill, 0) for need in asked.skills)
        if asked.language is not None:
            lacking += _TOP - agent.languages.get(asked.language, 0)
        return lacking

    def _best_of(self, places: Bits) -> Bits:
        match self.strategy:
            case "longest_idle":
                return places
            case "least_loaded":
                return bits.least(places, self._people.loads.planes)
            case "best_skilled":
                return bits.least(places, self._lacking_planes(places))
            case "thrift":
                return bits.least(places, self._people.scarcity.planes)
            case "weighted":
                total = bits.times(self._people.loads.planes, self._weights.load)
                lacking = bits.times(self._lacking_planes(places), self._weights.levels)
                rare = bits.times(self._people.scarcity.planes, self._weights.scarcity)
                return bits.least(places, bits.add(bits.add(total, lacking), rare))

    def _lacking_planes(self, places: Bits) -> list[Bits]:
        asked, total = self._asked, list[Bits]()
        rows = [self._people.skills.at_least.get(need.skill) for need in asked.skills]
        if asked.language is not None:
            rows.append(self._people.languages.at_least.get(asked.language))
        for row in rows:
            levels = bits.from_thermometer(row) if row is not None else []
            levels += [0] * (4 - len(levels))
            total = bits.add(total, [bits.without(places, plane) for plane in levels])
        return total


def could_ever(domain: Domain, work: Work) -> Bits:
    """Return who could take waiting work if they were there, free and asked long enough, declines apart."""
    found = domain.ever(domain.bucket(work))
    for agent_id in work.excluded:
        agent = domain.agents.get(agent_id)
        if agent is not None:
            found = bits.without(found, 1 << agent.place)
    return found


def may_be_kept(domain: Domain, work: Work, agent: Agent, max_declines: int) -> bool:
    """Whether an agent may be kept free for waiting work: of its queues, able, there, and not asked in vain before."""
    return bool(_keepers(domain, work, domain.bucket(work), max_declines) >> agent.place & 1)


def emptiest(domain: Domain, work: Work, bucket: Bucket, max_declines: int) -> Agent | None:
    """Return whom to keep free for waiting work: the least loaded who may be, then the longest idle."""
    people = domain.people
    keepers = _keepers(domain, work, bucket, max_declines)
    if not keepers:
        return None
    first = people.idle.first(bits.least(keepers, people.loads.planes))
    return people.at(first.member) if first is not None else None


def _keepers(domain: Domain, work: Work, bucket: Bucket, max_declines: int) -> Bits:
    able = bucket.ask.able & domain.people.available & domain.serving(bucket)
    return _unbarred(domain, work, bits.without(able, bucket.kind.never), max_declines)
