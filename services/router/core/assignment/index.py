"""Who can do what and who is free, as sets: the part of a domain's memory that is derived from its agents.

Every agent has a place, a small number; every requirement that is asked has one too. For each skill and level there is the
set of places that have it, and the set of requirements that ask for more. So a new requirement finds its people, and a changed
agent the requirements that it changes for, without going through the others.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from heapq import heappop, heappush

from services.router.core.assignment.bits import Bits, Planes, Ranking, members, without
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.requirement import Requirement
from services.router.core.assignment.times import micros

LEVELS = 10

ABSENT, CAPACITY, WRAP_UP, CHANNEL, DRAINING, DECLINED, EXCLUDED = 1, 2, 4, 8, 16, 32, 64
OFF_SHIFT = 128
"""What stands between an agent and a ticket for the moment, as bits of a byte."""


class Levels:
    """For each name and level, the places that have it at that level or above."""

    __slots__ = ("at_least",)

    def __init__(self) -> None:
        self.at_least: dict[str, list[Bits]] = {}

    def change(self, place: int, old: Mapping[str, int], new: Mapping[str, int]) -> None:
        """A place has `new` levels instead of `old` ones."""
        bit = 1 << place
        for name in {*old, *new}:
            before, after = old.get(name, 0), new.get(name, 0)
            if before == after:
                continue
            rows = self.at_least.get(name)
            if rows is None:
                rows = self.at_least[name] = [0] * (LEVELS + 1)
            for level in range(min(before, after) + 1, max(before, after) + 1):
                rows[level] ^= bit

    def load(self, levels_of: Iterable[tuple[int, Mapping[str, int]]]) -> None:
        """Take in the levels of many places at once."""
        exact: dict[str, list[Bits]] = self.at_least
        for place, levels in levels_of:
            bit = 1 << place
            for name, level in levels.items():
                rows = exact.get(name)
                if rows is None:
                    rows = exact[name] = [0] * (LEVELS + 1)
                rows[level] |= bit
        for rows in exact.values():
            for level in range(LEVELS - 1, 0, -1):
                rows[level] |= rows[level + 1]

    def having(self, name: str, level: int = 1) -> Bits:
        """Return the places that have `name` at `level` or above."""
        rows = self.at_least.get(name)
        return rows[level] if rows is not None and level <= LEVELS else 0


class Needs:
    """Which of a numbered set of requirements somebody meets.

    For each requirement it is counted, in planes, how many needs it has and how many of them somebody's levels meet; those
    where both are the same are met. So only the skills that somebody has are looked at, not all that anybody asks for.
    """

    __slots__ = ("_every", "_forbids", "_languages", "_n_needs", "_skills")

    def __init__(self) -> None:
        # name → level → those that ask for more than the level
        self._skills: dict[str, list[Bits]] = {}
        self._languages: dict[str, list[Bits]] = {}
        self._forbids: dict[str, Bits] = {}
        self._n_needs: list[Bits] = []
        self._every: Bits = 0

    def add(self, number: int, asked: Requirement) -> None:
        """Take in a requirement under its number."""
        bit = 1 << number
        self._every |= bit
        for need in asked.skills:
            self._ask(self._skills, need.skill, need.level, bit)
        if asked.language is not None:
            self._ask(self._languages, asked.language, asked.language_level, bit)
        for name in asked.forbidden:
            self._forbids[name] = self._forbids.get(name, 0) | bit

    def _ask(self, rows_of: dict[str, list[Bits]], name: str, level: int, bit: Bits) -> None:
        rows = rows_of.get(name)
        if rows is None:
            rows = rows_of[name] = [0] * (LEVELS + 1)
        for below in range(min(level, LEVELS + 1)):
            rows[below] |= bit
        _count(self._n_needs, bit)

    def met(self, skills: Mapping[str, int], languages: Mapping[str, int]) -> Bits:
        """Return the requirements that somebody with these levels meets."""
        n_met: list[Bits] = []
        for rows_of, levels in ((self._skills, skills), (self._languages, languages)):
            for name, level in levels.items():
                rows = rows_of.get(name)
                if rows is not None:
                    _count(n_met, rows[0] ^ rows[level])
        unmet = 0
        for n, plane in enumerate(self._n_needs):
            unmet |= plane ^ n_met[n] if n < len(n_met) else plane
        for name, forbidding in self._forbids.items():
            if name in skills:
                unmet |= forbidding
        return without(self._every, unmet)


def _count(planes: list[Bits], bits: Bits) -> None:
    """Add one to the numbers, in planes, of some members."""
    n = 0
    while bits:
        if n == len(planes):
            planes.append(bits)
            return
        plane = planes[n]
        planes[n] = plane ^ bits
        bits &= plane
        n += 1


class Ask:
    """Something asked for, and the places that meet it."""

    __slots__ = ("able", "asked", "number")

    def __init__(self, number: int, asked: Requirement, able: Bits) -> None:
        self.number = number
        self.asked = asked
        self.able = able


class Kind:
    """Tickets of one cost and channel: who has room for one now, who could ever, and what stands against each place."""

    __slots__ = ("buckets", "channel", "cost", "free", "never", "state")

    def __init__(self, cost: int, channel: str) -> None:
        self.cost = cost
        self.channel = channel
        self.free: Bits = 0
        self.never: Bits = 0
        """Those who could not even with nothing else to do."""
        self.state = bytearray()
        """By place: 0 where there is room, else what stands against it. 255 where nobody is."""
        self.buckets: Bits = 0


class _Profile:
    """What an agent could do when the index last heard of them."""

    __slots__ = ("languages", "queues", "skills", "stamp")

    def __init__(self, agent: Agent, stamp: int) -> None:
        self.queues = agent.queues
        self.skills = agent.skills
        self.languages = agent.languages
        self.stamp = stamp


class People:
    """The agents of a domain as sets of their places."""

    def __init__(self) -> None:
        self.agents: list[Agent | None] = []
        self.here: Bits = 0
        self.available: Bits = 0
        self.serving: dict[str, Bits] = {}
        self.skills = Levels()
        self.languages = Levels()
        self.kinds: dict[tuple[int, str], Kind] = {}
        self.idle = Ranking()
        self.loads = Planes()
        """Thousandths of the capacity in use."""
        self.scarcity = Planes()
        self.draining: int | None = None
        """The place that is kept free for a big ticket."""
        self.wrapped: dict[int, int] = {}
        """place → capacity held for wrapping up."""
        self.in_channel: dict[int, dict[str, int]] = {}
        """place → channel → how many tickets of it are offered or held."""
        self.costs: dict[int, dict[str, int]] = {}
        """place → channel → what they cost; kept while some channels interrupt others."""
        self.interrupted_by: Mapping[str, Sequence[str]] = {}
        """channel → the channels whose tickets may come on top of its own."""
        self.asks: dict[Requirement, Ask] = {}
        self._needs = Needs()
        self._by_number: list[Ask] = []
        self._profiles: list[_Profile | None] = []
        self._spare: list[int] = []
        self._stamps = 0
        self._team_stamps: dict[tuple[str, ...], int] = {}
        self._weights: dict[str, int] = {}

    # ------------------------------------------------------------------------------------------- who

    @property
    def version(self) -> str:
        """Names what all agents can do: two rosters have the same version where they are the same."""
        return f"{self._stamps:016x}"

    def load(self, agents: Iterable[Agent]) -> None:
        """Take in the agents of a domain that was just read; those without a place get one, in the order given."""
        given = list(agents)
        taken = {agent.place for agent in given if agent.place >= 0}
        size = max(taken, default=-1) + 1
        self.agents = [None] * size
        self._profiles = [None] * size
        self._spare = sorted({*range(size)} - taken)
        for agent in given:
            if agent.place < 0:
                agent.place = self._new_place()
        self.idle = Ranking((_idle_key(agent), agent.place) for agent in given)
        self.skills.load((agent.place, agent.skills) for agent in given)
        self.languages.load((agent.place, agent.languages) for agent in given)
        teams: dict[tuple[str, ...], Bits] = {}
        for agent in given:
            place, bit = agent.place, 1 << agent.place
            self.here |= bit
            teams[agent.queues] = teams.get(agent.queues, 0) | bit
            self.agents[place] = agent
            profile = self._profiles[place] = _Profile(agent, self._stamp(agent))
            self._stamps ^= profile.stamp
        for queues, bits in teams.items():
            for queue in queues:
                self.serving[queue] = self.serving.get(queue, 0) | bits
        for skill in self.skills.at_least:
            self._weights[skill] = _rarity(self.skills, skill)
        for agent in given:
            self.scarcity.set(agent.place, self._scarcity_of(agent))
            self.refresh(agent)

    def _new_place(self) -> int:
        if self._spare:
            return heappop(self._spare)
        self.agents.append(None)
        self._profiles.append(None)
        for kind in self.kinds.values():
            kind.state.append(255)
        return len(self.agents) - 1

    def set(self, agent: Agent) -> Bits:
        """Take in an agent, new or changed in what they can do; return the requirements that this changes for."""
        is_new = agent.place < 0
        if is_new:
            agent.place = self._new_place()
        changed = self._learn(agent)
        if is_new:
            self.idle.put(agent.place, _idle_key(agent))
        self.refresh(agent)
        return changed

    def _learn(self, agent: Agent) -> Bits:
        place, bit = agent.place, 1 << agent.place
        old = self._profiles[place]
        was_met = 0
        skills: Mapping[str, int] = {}
        languages: Mapping[str, int] = {}
        queues: tuple[str, ...] = ()
        if old is not None:
            skills, languages, queues = old.skills, old.languages, old.queues
            self._stamps ^= old.stamp
            was_met = self._needs.met(skills, languages)
        profile = _Profile(agent, self._stamp(agent))
        self._profiles[place], self.agents[place] = profile, agent
        self._stamps ^= profile.stamp
        self.here |= bit
        self.skills.change(place, skills, agent.skills)
        self.languages.change(place, languages, agent.languages)
        self._weigh(skills, agent.skills)
        self.scarcity.set(place, self._scarcity_of(agent))
        if queues != agent.queues:
            for queue in {*queues} ^ {*agent.queues}:
                self.serving[queue] = self.serving.get(queue, 0) ^ bit
        changed = was_met ^ self._needs.met(agent.skills, agent.languages)
        self._flip(place, changed)
        for kind in self.kinds.values():
            limit = agent.limit(kind.channel)
            is_never = agent.capacity < kind.cost or limit == 0
            if bool(kind.never >> place & 1) != is_never:
                kind.never ^= bit
        return changed

    def _flip(self, place: int, changed: Bits) -> None:
        bit = 1 << place
        for number in members(changed):
            self._by_number[number].able ^= bit

    def remove(self, agent: Agent) -> Bits:
        """Forget an agent; return the requirements that this changes for."""
        place, bit = agent.place, 1 << agent.place
        profile = self._profiles[place]
        assert profile is not None, f"{agent.agent_id} has no profile"
        met = self._needs.met(profile.skills, profile.languages)
        self._flip(place, met)
        self._stamps ^= profile.stamp
        self.skills.change(place, profile.skills, {})
        self.languages.change(place, profile.languages, {})
        for queue in profile.queues:
            self.serving[queue] ^= bit
        for kind in self.kinds.values():
            kind.free = without(kind.free, bit)
            kind.never = without(kind.never, bit)
            kind.state[place] = 255
        self.here ^= bit
        self.available = without(self.available, bit)
        self.idle.drop(place)
        self.loads.set(place, 0)
        self.scarcity.set(place, 0)
        self._weigh(profile.skills, {})
        self.wrapped.pop(place, None)
        self.in_channel.pop(place, None)
        self.costs.pop(place, None)
        self._profiles[place] = self.agents[place] = None
        heappush(self._spare, place)
        return met

    def _stamp(self, agent: Agent) -> int:
        queues = self._team_stamps.get(agent.queues)
        if queues is None:
            queues = self._team_stamps[agent.queues] = _digest(sorted(agent.queues))
        return _digest(
            (
                agent.place,
                agent.agent_id,
                queues,
                sorted(agent.skills.items()),
                sorted(agent.languages.items()),
                agent.capacity,
                sorted(agent.limits.items()),
            )
        )

    def at(self, place: int) -> Agent:
        """Return the agent of a place."""
        agent = self.agents[place]
        assert agent is not None, f"nobody has place {place}"
        return agent

    def queues_of(self, place: int) -> tuple[str, ...]:
        """Return the queues that the agent of a place served when last told."""
        profile = self._profiles[place]
        return profile.queues if profile is not None else ()

    # -------------------------------------------------------------------------------------- scarcity

    def _weigh(self, old: Mapping[str, int], new: Mapping[str, int]) -> None:
        # How rare a skill is counts in powers of two, so that it seldom changes; when it does, for all who have it.
        for skill in sorted({*old} ^ {*new}):
            weight = _rarity(self.skills, skill)
            if weight != self._weights.get(skill, LEVELS):
                self._weights[skill] = weight
                for place in members(self.skills.having(skill)):
                    agent = self.agents[place]
                    if agent is not None:
                        self.scarcity.set(place, self._scarcity_of(agent))

    def _scarcity_of(self, agent: Agent) -> int:
        weights = self._weights
        return sum(weights.get(skill, LEVELS) for skill in agent.skills)

    # ------------------------------------------------------------------------------------------- now

    def room(self, agent: Agent, channel: str) -> int:
        """Return what an agent's capacity has left for tickets of a channel, whatever they wrap up."""
        if not self.interrupted_by:
            return agent.capacity - agent.load
        return agent.capacity - sum(
            cost
            for other, cost in self.costs.get(agent.place, {}).items()
            if channel not in self.interrupted_by.get(other, ())
        )

    def burden(self, place: int) -> tuple[int, int]:
        """Return what a place carries that nothing of its own interrupts, and the most that it may be as work ends."""
        costs, counts = self.costs.get(place, {}), self.in_channel.get(place, {})
        channels = [channel for channel, n in counts.items() if n]
        concerned = {*self.interrupted_by, *(c for by in self.interrupted_by.values() for c in by)}
        fixed = sum(costs[channel] for channel in channels if channel not in concerned)
        moving = [channel for channel in channels if channel in concerned]
        loads = [
            fixed + self._active([c for n, c in enumerate(moving) if left >> n & 1], costs)
            for left in range(1 << len(moving))
        ]
        return loads[-1], max(loads)

    def _active(self, channels: Sequence[str], costs: Mapping[str, int]) -> int:
        return sum(
            costs[channel]
            for channel in channels
            if not any(other in channels for other in self.interrupted_by.get(channel, ()))
        )

    def refresh(self, agent: Agent) -> None:
        """Take over whether an agent is there and what they carry."""
        place = agent.place
        bit = 1 << place
        base = 0 if agent.presence == "available" else ABSENT
        if not agent.on_shift:
            base |= OFF_SHIFT
        is_there = not base
        if bool(self.available >> place & 1) != is_there:
            self.available ^= bit
        if place == self.draining:
            base |= DRAINING
        room = agent.capacity - agent.load
        wrapped = self.wrapped.get(place, 0)
        left = room - wrapped
        is_by_channel = bool(self.interrupted_by)
        for kind in self.kinds.values():
            code = base
            if is_by_channel:
                room = self.room(agent, kind.channel)
                left = room - wrapped
            if kind.cost > left:
                code |= CAPACITY if kind.cost > room else WRAP_UP
            if agent.limits:
                taken = self.in_channel.get(place, {}).get(kind.channel, 0)
                if taken >= agent.limits.get(kind.channel, 0):
                    code |= CHANNEL
            before = kind.state[place]
            if code != before:
                kind.state[place] = code
                if not code or not before:
                    kind.free ^= bit
        self.loads.set(place, load_of(agent, wrapped))

    def kind(self, cost: int, channel: str) -> Kind:
        """Return the kind of a cost and channel."""
        kind = self.kinds.get((cost, channel))
        if kind is None:
            kind = self.kinds[cost, channel] = Kind(cost, channel)
            kind.state = bytearray(b"\xff" * len(self.agents))
            never = bytearray(b"0" * len(self.agents))
            for agent in self.agents:
                if agent is None:
                    continue
                if agent.capacity < cost or agent.limit(channel) == 0:
                    never[-1 - agent.place] = 49
            kind.never = int(never or b"0", 2)
            self._fill(kind)
        return kind

    def _fill(self, kind: Kind) -> None:
        free = bytearray(b"0" * len(self.agents))
        for agent in self.agents:
            if agent is None:
                continue
            place = agent.place
            code = 0 if agent.presence == "available" else ABSENT
            if not agent.on_shift:
                code |= OFF_SHIFT
            if place == self.draining:
                code |= DRAINING
            room = self.room(agent, kind.channel)
            if kind.cost > room - self.wrapped.get(place, 0):
                code |= CAPACITY if kind.cost > room else WRAP_UP
            if agent.limits:
                taken = self.in_channel.get(place, {}).get(kind.channel, 0)
                if taken >= agent.limits.get(kind.channel, 0):
                    code |= CHANNEL
            kind.state[place] = code
            if not code:
                free[-1 - place] = 49
        kind.free = int(free or b"0", 2)

    def took(self, agent: Agent) -> None:
        """An agent was offered something, so they are idle from now."""
        self.idle.put(agent.place, _idle_key(agent))

    # ------------------------------------------------------------------------------------------ asks

    def ask(self, asked: Requirement) -> Ask:
        """Return a requirement with those who meet it."""
        found = self.asks.get(asked)
        if found is None:
            number = len(self._by_number)
            found = self.asks[asked] = Ask(number, asked, self._able(asked))
            self._by_number.append(found)
            self._needs.add(number, asked)
        return found

    def met(self, agent: Agent) -> Bits:
        """Return the numbers of the requirements that an agent meets."""
        return self._needs.met(agent.skills, agent.languages)

    def _able(self, asked: Requirement) -> Bits:
        able = self.here
        if asked.language is not None:
            able &= self.languages.having(asked.language, asked.language_level)
        for need in asked.skills:
            able &= self.skills.having(need.skill, need.level)
        for name in asked.forbidden:
            able = without(able, self.skills.having(name))
        return able

    def forget_asks(self, kept: Iterable[Requirement]) -> None:
        """Forget all requirements but these."""
        asks = [self.asks[asked] for asked in dict.fromkeys(kept)]
        self.asks, self._by_number, self._needs = {}, asks, Needs()
        for number, ask in enumerate(asks):
            ask.number = number
            self.asks[ask.asked] = ask
            self._needs.add(number, ask.asked)


def load_of(agent: Agent, wrapped: int) -> int:
    """Return how many thousandths of an agent's capacity are in use."""
    return (agent.load + wrapped) * 1000 // agent.capacity if agent.capacity else 0


def _rarity(levels: Levels, skill: str) -> int:
    return max(0, LEVELS + 6 - levels.having(skill).bit_count().bit_length())


def _idle_key(agent: Agent) -> tuple[int, str]:
    return (micros(agent.last_assigned_at) if agent.last_assigned_at else 0, agent.agent_id)


def _digest(said: object) -> int:
    return int.from_bytes(blake2b(repr(said).encode(), digest_size=8).digest())
