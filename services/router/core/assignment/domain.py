"""A routing domain: its agents, the work they wait for, hold or are offered, and the indices that find a match fast.

This is the one state that decisions change in place (a domain may hold hundreds of thousands of tickets). The records, `Agent`,
`Work` and `Switches`, are what is stored; everything else is derived from them, so that a domain made of stored records
decides as the one that stored them.

Waiting work lies in **buckets** that ask the same of an agent and cost the same. Who could take it is known per bucket, so
only its head matters, but for those who declined. The buckets' heads stand in one order, and an agent's buckets are a set:
the first of the order within the set is the ticket for them.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Literal, NamedTuple, TypeAlias

from hours.calendar import Calendar
from services.router.core.assignment.bits import Bits, Line, Ranking, members, without
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.index import Ask, Kind, People
from services.router.core.assignment.records import (
    PRESUMED_TARGET,
    PROMOTED_TO,
    Known,
    Lease,
    RosterChange,
    Status,
    Switches,
    Work,
    WorkKey,
)
from services.router.core.assignment.requirement import (
    Requirement,
    SkillNeed,
    next_step_at,
    relaxed_at,
    required_for_ever,
    shortest_patience,
    steps_done,
)
from services.router.core.assignment.shifts import has_hours, next_turn, on_duty
from services.router.core.assignment.targets import Targets
from services.router.core.assignment.terms import Terms
from services.router.core.assignment.times import instant, micros

__all__ = [
    "ENDED_KEPT",
    "KNOWN_KEPT",
    "KNOWN_MAX",
    "PRESUMED_TARGET",
    "PROMOTED_TO",
    "Bucket",
    "Domain",
    "Due",
    "Known",
    "Lease",
    "Opening",
    "RosterChange",
    "Status",
    "Switches",
    "Work",
    "WorkKey",
]

ENDED_KEPT = timedelta(minutes=15)
"""How long ended work is remembered, so that a late answer to an offer is refused with the reason."""

KNOWN_KEPT = timedelta(days=30)
"""How long it is remembered who last took a customer's ticket."""

KNOWN_MAX = 100_000
"""Of how many customers that is remembered; the ones longest ago are forgotten first."""

SILENCE_PARTS = 4
"""Silence is noticed at the next of so many points of its period, so that a heartbeat seldom moves the next thing due."""

BUCKETS_SPARE = 256
"""How many empty buckets are kept before they are dropped together."""

Opening: TypeAlias = tuple[WorkKey, int, str, int, int]
"""The first work that something may make possible; what: 0 a work, 1 a bucket, 2 an agent; its id or number; when looked."""


class Bucket:
    """Waiting work that asks the same, in order."""

    __slots__ = (
        "ask",
        "ever_queues",
        "hard",
        "held_for",
        "is_hopeless",
        "keys",
        "kind",
        "number",
        "places",
        "queue",
        "queues",
    )

    def __init__(self, number: int, queue: str, ask: Ask, hard: Ask, kind: Kind) -> None:
        self.number = number
        self.queue = queue
        self.ask = ask
        self.hard = hard
        """What never falls away of it."""
        self.kind = kind
        self.queues = tuple(dict.fromkeys((queue, *ask.asked.queues)))
        self.ever_queues = tuple(dict.fromkeys((queue, *hard.asked.queues)))
        self.held_for: str | None = None
        self.keys = Line()
        self.is_hopeless = False
        """Whether nobody could ever take it, as of the last look."""
        self.places: tuple[Bits, list[int]] = (-1, [])
        """The last set that was listed for a record, and its list."""


class Due(NamedTuple):
    """Something that falls due. `name` is the work's id or, of the kinds that people have, the agent's; `token` is the
    reservation that expires, and empty for the rest.
    """

    at: datetime
    kind: Literal["offer", "return", "shift", "silence", "waiting", "wrap_up"]
    name: str
    token: str


class _Slots:
    """The buckets that an agent is able to serve, and those whose queues are theirs; good up to a bucket's birth."""

    __slots__ = ("able", "epoch", "home", "n_born")

    def __init__(self, epoch: int, n_born: int, able: Bits, home: Bits) -> None:
        self.epoch = epoch
        self.n_born = n_born
        self.able = able
        self.home = home


_BIRTHS_FOLLOWED = 200
"""An agent's slots are worked out anew where more buckets than this were born since."""


class Domain:
    """The state of one routing domain. Change it through its methods, which keep records, indices and marks together."""

    def __init__(
        self,
        name: str,
        agents: Iterable[Agent] = (),
        works: Iterable[Work] = (),
        switches: Switches | None = None,
        known: Iterable[Known] = (),
    ) -> None:
        self.name = name
        self.agents: dict[str, Agent] = {}
        self.works: dict[str, Work] = {}
        self.switches = (
            switches if switches is not None else Switches(set(), set(), set(), set(), set())
        )
        self.known = {
            entry.customer_id: entry
            for entry in sorted(known, key=lambda entry: (entry.at, entry.customer_id))
        }
        """customer → who took their ticket last, the longest ago first."""
        self.live: dict[str, str] = {}
        """ticket → its work that is not ended."""
        self.ended: dict[str, str] = {}
        """ticket → its work that ended last, while it is remembered."""
        self.held: dict[str, set[str]] = {}
        """agent → work offered to them or assigned to them."""
        self.holds: dict[str, set[str]] = {}
        """agent → waiting work that only they are asked for."""
        self.declined: set[str] = set()
        """Waiting work that somebody declined."""
        self.untold: set[str] = set()
        """Waiting work of which it was not told yet that it waits."""
        self.drain: str | None = None
        """The work that an agent is kept free for."""
        self.may_keep = True
        """Whether somebody may be there to be kept free who was not when it was last looked for one."""
        self.ripe = Line()
        """Waiting work that someone may be kept free for, in order."""
        self.people = People()
        self.buckets: list[Bucket] = []
        self.heads = Ranking()
        self.n_matchable: dict[str, int] = {}
        """queue → how many wait that somebody could ever take."""
        self.recounted: set[str] = set()
        """Queues whose count may have passed a threshold."""
        self.changed_agents: set[str] = set()
        """Agents of whose records anything may differ from what was stored."""
        self.changed_loads: set[str] = set()
        """Agents who carry something else than was stored, or were offered or missed something since."""
        self.changed_works: set[str] = set()
        self.gone_agents: set[str] = set()
        self.gone_works: set[str] = set()
        self.changed_known: set[str] = set()
        self.gone_known: set[str] = set()
        self.roster_changes: list[RosterChange] = []
        """What changed in the roster and was not stored yet, in its order."""
        self.is_switched = False
        self.terms: Terms | None = None
        """The terms under which all of it was matched last; None where it was just read."""
        self.is_settled = False
        """Whether nobody could take anything after the last decision; a mass event may leave more for the next."""
        self.stamp = 0
        """Counts whatever may have made an opening untrue."""
        self.openings: list[Opening] | None = None
        """What an unfinished mass event has left to look at, first things first; None: everything."""
        self.unsettled_at: datetime | None = None
        self._where: dict[str, tuple[Bucket, WorkKey]] = {}
        self._bucket_of: dict[tuple[object, ...], Bucket] = {}
        self._ask_of: dict[Requirement, Ask] = {}
        self._shared: dict[Requirement, Requirement] = {}
        self._held_buckets: Bits = 0
        self._empty: set[int] = set()
        self._of_queue: dict[str, Bits] = {}
        """queue → buckets for which its agents are asked."""
        self._own_of_queue: dict[str, Bits] = {}
        """queue → buckets of its own work."""
        self._of_ever_queue: dict[str, Bits] = {}
        self._of_hard: dict[int, Bits] = {}
        self._hopeless: Bits = 0
        self._turned: set[str] = set()
        """Work whose bucket turned, wherever it has gone since."""
        self._n_waiting: dict[str, int] = {}
        self._thinned: Bits = 0
        self._slots: dict[int, _Slots] = {}
        self._born: list[Bucket] = []
        self._epoch = 0
        self._switched = 0
        self._homes: dict[tuple[str, ...], tuple[int, Bits]] = {}
        self._of_ask: dict[int, Bits] = {}
        self._lent: dict[tuple[str, ...], tuple[int, int, int, Bits]] = {}
        self._borrowers: dict[str, tuple[str, ...]] = {}
        self._aging: dict[int, timedelta] = {}
        """priority → how long work of it waits before it is promoted."""
        self._due: list[Due] = []
        self._is_expecting = False
        """Whether what falls due was gathered from the records, which a domain that was just read puts off."""
        self._next_at: dict[str, datetime] = {}
        """waiting work → when something falls due for it."""
        self._ended_order: deque[str] = deque()
        self._silent_at: dict[str, datetime] = {}
        """agent → when they will have been silent for too long, if they stay silent."""
        self._silence_due: dict[str, datetime] = {}
        """agent → for when that is among what falls due; what they say moves the one above alone."""
        self.targets = Targets()
        """The targets of what somebody could take, in the queues that lend nobody while one is near."""
        self._restore(agents, works)

    def _restore(self, agents: Iterable[Agent], works: Iterable[Work]) -> None:
        teams: dict[tuple[str, ...], tuple[str, ...]] = {}
        for agent in sorted(map(_in_team(teams), agents), key=lambda agent: agent.agent_id):
            self.agents[agent.agent_id] = agent
        self.works = {work.work_id: work for work in works}
        unplaced = [agent.agent_id for agent in self.agents.values() if agent.place < 0]
        self.people.agents = []
        waiting: list[Work] = []
        ended: list[Work] = []
        for work in self.works.values():
            if work.status == "ended":
                ended.append(work)
                continue
            self.live[work.ticket_id] = work.work_id
            if work.status == "waiting":
                waiting.append(work)
            else:
                assert work.agent_id is not None, f"{work.work_id} is {work.status} to nobody"
                for lease in work.leases:
                    self.held.setdefault(lease.agent_id, set()).add(work.work_id)
        self.people.load(self.agents.values())
        self.changed_agents.update(unplaced)
        for work in sorted(ended, key=_ended_key):
            self._ended_order.append(work.work_id)
            self.ended[work.ticket_id] = work.work_id
            if work.wrap_until is not None:
                self._hold_for_wrap_up(work, 1)
        for agent_id, held in self.held.items():
            for work_id in held:
                self._count_channel(self.agents[agent_id], self.works[work_id], 1)
        for agent in self.agents.values():
            if agent.limits or agent.place in self.people.wrapped:
                self.people.refresh(agent)
        self._restore_waiting(waiting)

    def _restore_waiting(self, waiting: list[Work]) -> None:
        keys_of: dict[int, list[WorkKey]] = {}
        for work in waiting:
            bucket = self._find_bucket(work)
            self._empty.discard(bucket.number)  # Or it would be dropped before it is filled.
            key = work.key
            keys_of.setdefault(bucket.number, []).append(key)
            self._where[work.work_id] = (bucket, key)
            self._note_waiting(work)
            if work.kept_free is not None:
                self.drain = work.work_id
        self.ripe = Line(work.key for work in waiting if work.is_ripe)
        entries: list[tuple[WorkKey, int]] = []
        for number, keys in keys_of.items():
            bucket = self.bucket_at(number)
            bucket.keys = Line(keys)
            entries.append((bucket.keys.first or keys[0], number))
            self._count(bucket, len(keys))
        self.heads = Ranking(entries)
        if self.drain is not None:
            keeper = self.agents[self.works[self.drain].kept_free or ""]
            self.people.draining = keeper.place
            self.people.refresh(keeper)

    def _note_waiting(self, work: Work) -> None:
        if work.declines:
            self.declined.add(work.work_id)
        if work.is_untold:
            self.untold.add(work.work_id)
        if work.hold_until is not None and work.preferred_agent_id is not None:
            self.holds.setdefault(work.preferred_agent_id, set()).add(work.work_id)

    def take_up(self, terms: Terms, now: datetime) -> None:
        """From now on, `terms` hold. All that depends on them is worked out anew."""
        before = self.terms
        self.terms = terms
        borrowers: dict[str, list[str]] = {}
        for queue, lending in terms.lending.items():
            for lender in lending.lenders:
                borrowers.setdefault(lender, []).append(queue)
        self._borrowers = {lender: tuple(queues) for lender, queues in borrowers.items()}
        self._aging = {
            priority: timedelta(seconds=seconds) for priority, seconds in terms.aging.items()
        }
        self._switched += 1
        self._drop_switches(terms)
        if before is None or before.interrupted_by != terms.interrupted_by:
            self._weigh_all(terms)
        if before is None or before.heartbeat != terms.heartbeat:
            self._hear_all(now)
        if before is None or before.lending != terms.lending:
            for bucket in self.buckets:
                if self._look_at_hope(bucket) and before is not None:
                    self._turned.update(key.work_id for key in bucket.keys)
        self._watch_targets(before)
        if before is None or _times(before) != _times(terms):
            self._expect_all()
        self.recounted.update(self.n_matchable)
        self.may_keep = True
        if before is not None:
            self._thinned = (1 << len(self.buckets)) - 1

    def _drop_switches(self, terms: Terms) -> None:
        """Forget the switches of queues that have none any more."""
        switches = self.switches
        by_length = {queue for queue, guard in terms.guards.items() if guard.on_at is not None}
        by_risk = {queue for queue, guard in terms.guards.items() if guard.risk is not None}
        for names, kept in (
            (switches.spilling, terms.lending.keys()),
            (switches.crowded, by_length),
            (switches.at_risk, by_risk),
            (switches.overloaded, terms.overload.keys()),
        ):
            if not names <= kept:
                names &= kept
                self.is_switched = True
        switches.guarding.clear()
        switches.guarding.update(switches.crowded, switches.at_risk)

    def _weigh_all(self, terms: Terms) -> None:
        """Other channels may come on top of some now, so what everyone carries is another sum."""
        if not (terms.interrupted_by or self.people.interrupted_by):
            return
        self.people.interrupted_by = terms.interrupted_by
        self.people.costs.clear()
        for agent_id, held in self.held.items():
            for work_id in held:
                self._count_cost(self.agents[agent_id], self.works[work_id], 1)
        for agent in self.agents.values():
            load, most = self.people.burden(agent.place)
            if load != agent.load or most > agent.ceiling:
                agent.carry(load, most, by_force=True)
                self.touch_agent(agent.agent_id)
            self.people.refresh(agent)

    # ------------------------------------------------------------------------------------------ marks

    def is_changed(self) -> bool:
        """Whether any record differs from what was stored."""
        return self.is_switched or any(self._marks())

    def clear_marks(self) -> None:
        """All records are stored."""
        self.is_switched = False
        self.roster_changes.clear()
        for marks in self._marks():
            marks.clear()

    def _marks(self) -> tuple[set[str], ...]:
        return (
            self.changed_agents,
            self.changed_loads,
            self.changed_works,
            self.gone_agents,
            self.gone_works,
            self.changed_known,
            self.gone_known,
        )

    def touch_agent(self, agent_id: str) -> None:
        """Mark an agent's record as changed."""
        self.changed_agents.add(agent_id)
        self.gone_agents.discard(agent_id)

    def touch_load(self, agent: Agent) -> None:
        """Mark as changed what an agent carries, when they were last offered something and what they missed: no more."""
        self.changed_loads.add(agent.agent_id)

    def touch_work(self, work_id: str) -> None:
        """Mark a work's record as changed."""
        self.changed_works.add(work_id)
        self.gone_works.discard(work_id)

    # ------------------------------------------------------------------------------------------ agents

    def set_agent(self, agent: Agent) -> None:
        """Take over an agent, new or changed in what they can do."""
        is_new = agent.place < 0
        old_queues = () if is_new else self.people.queues_of(agent.place)
        was_never = {
            kind
            for kind in self.people.kinds.values()
            if not is_new and _has(kind.never, agent.place)
        }
        self.agents[agent.agent_id] = agent
        asks = self.people.set(agent)
        self._log(agent)
        if self.people.interrupted_by:
            load, most = self.people.burden(agent.place)
            agent.carry(load, most, by_force=True)
        self.may_keep = True
        self.touch_agent(agent.agent_id)
        self._slots.pop(agent.place, None)
        touched = self._buckets_of_change(asks, {*old_queues} ^ {*agent.queues})
        for kind in self.people.kinds.values():
            if _has(kind.never, agent.place) != (kind in was_never):
                touched |= kind.buckets
        # Somebody new takes hope from no bucket, and exhausts no ticket.
        self._look_at_hopes(touched & self._hopeless if is_new else touched)
        self._thinned |= 0 if is_new else touched

    def _log(self, agent: Agent) -> None:
        version = self.people.version
        self.roster_changes.append(
            RosterChange(
                version,
                agent.agent_id,
                agent.place,
                agent.queues,
                agent.skills,
                agent.languages,
            )
        )

    def log_roster(self) -> None:
        """Note everyone as changed, where what they could do was never stored by version."""
        for agent in self.agents.values():
            self._log(agent)
            self.touch_agent(agent.agent_id)

    def show_agent(self, agent: Agent) -> None:
        """Take over an agent's presence, or whether they are on duty."""
        self.may_keep = True
        self.people.refresh(agent)
        self.touch_agent(agent.agent_id)
        if agent.presence != "available":
            self._silent_at.pop(agent.agent_id, None)

    def look_at_shift(self, agent: Agent, now: datetime) -> bool:
        """Hold the clock against an agent's times of duty; return whether they went on or off duty."""
        calendars = self.terms.calendars if self.terms is not None else {}
        before = agent.on_shift
        turns_at = next_turn(agent, now, calendars)
        agent.on_shift = on_duty(agent, now, calendars)
        if turns_at != agent.turns_at:
            agent.turns_at = turns_at
            self.touch_agent(agent.agent_id)
        if turns_at is not None:
            heappush(self._due, Due(turns_at, "shift", agent.agent_id, ""))
        if agent.on_shift != before:
            self.show_agent(agent)
        return agent.on_shift != before

    def off_their_hours(self) -> list[Agent]:
        """Return the agents, by id, of whom the calendars say something else than when their next turn was worked out."""
        calendars = self.terms.calendars if self.terms is not None else {}
        found: list[Agent] = []
        # Whole teams have the same hours, which are looked up once.
        known: dict[tuple[object, ...], bool] = {}
        for agent in self.agents.values():
            if has_hours(agent) or agent.turns_at is not None:
                hours = (agent.calendar, agent.shifts, agent.on_shift, agent.turns_at)
                if hours not in known:
                    known[hours] = _is_as_worked_out(agent, calendars)
                if not known[hours]:
                    found.append(agent)
        return sorted(found, key=lambda agent: agent.agent_id)

    def hear(self, agent: Agent, now: datetime) -> None:
        """An agent's program said something, so their silence begins anew; of those who send no heartbeats nothing is."""
        period = self.terms.heartbeat if self.terms is not None else None
        if period is None or not agent.beats or agent.presence != "available":
            return
        part = max(1, int(period * 1_000_000 / SILENCE_PARTS))
        until = -(-(micros(now) + int(period * 1_000_000)) // part) * part
        at = instant(until)
        self._silent_at[agent.agent_id] = at
        due = self._silence_due.get(agent.agent_id)
        if due is None or at < due:
            self._silence_due[agent.agent_id] = at
            heappush(self._due, Due(at, "silence", agent.agent_id, ""))

    def _hear_all(self, now: datetime) -> None:
        # What was said before a restart is in the log and not read yet: everybody has a whole period to be heard.
        self._silent_at.clear()
        self._silence_due.clear()
        for agent in self.agents.values():
            self.hear(agent, now)

    def expect_return(self, agent: Agent) -> None:
        """What an agent who vanished has accepted waits again after a while."""
        at = self._return_at(agent)
        if at is not None:
            heappush(self._due, Due(at, "return", agent.agent_id, ""))

    def _return_at(self, agent: Agent) -> datetime | None:
        seconds = self.terms.return_assigned if self.terms is not None else None
        if seconds is None or agent.vanished_at is None or not self.held.get(agent.agent_id):
            return None
        return agent.vanished_at + timedelta(seconds=seconds)

    def remove_agent(self, agent_id: str) -> None:
        """Forget an agent who holds nothing any more."""
        assert not self.held.get(agent_id), f"{agent_id} still holds work"
        agent = self.agents.pop(agent_id)
        self.held.pop(agent_id, None)
        self._silent_at.pop(agent_id, None)
        self._silence_due.pop(agent_id, None)
        asks = self.people.remove(agent)
        self.roster_changes.append(RosterChange(self.people.version, agent_id, -1))
        self._slots.pop(agent.place, None)
        touched = self._buckets_of_change(asks, agent.queues)
        self._look_at_hopes(touched)
        self._thinned |= touched
        agent.place = -1
        self.changed_agents.discard(agent_id)
        self.changed_loads.discard(agent_id)
        self.gone_agents.add(agent_id)

    def held_by(self, agent_id: str) -> list[Work]:
        """Return the work that an agent is offered or holds, in order."""
        return sorted(
            (self.works[work_id] for work_id in self.held.get(agent_id, ())),
            key=lambda work: work.key,
        )

    def keep_free(self, work: Work, agent: Agent) -> None:
        """From now on an agent takes nothing but this work."""
        assert self.drain is None, f"{self.drain} keeps somebody free already"
        self.drain, work.kept_free = work.work_id, agent.agent_id
        self.touch_work(work.work_id)
        self.people.draining = agent.place
        self.people.refresh(agent)

    def stop_draining(self) -> Agent | None:
        """Nobody is kept free any more; return who was, if they are still there."""
        if self.drain is None:
            return None
        work = self.works[self.drain]
        agent = self.agents.get(work.kept_free or "")
        self.drain, work.kept_free = None, None
        self.people.draining = None
        self.may_keep = True
        self.touch_work(work.work_id)
        if agent is not None:
            self.people.refresh(agent)
        return agent

    # ------------------------------------------------------------------------------------------ hope

    def lenders(self, queue: str) -> tuple[str, ...]:
        """Return the queues that may lend agents to a queue."""
        lending = self.terms.lending.get(queue) if self.terms is not None else None
        return lending.lenders if lending is not None else ()

    def ever(self, bucket: Bucket) -> Bits:
        """Return the places that could take work of a bucket if they were there and free, after all relaxation."""
        serving = self.people.serving
        asked = 0
        for queue in bucket.ever_queues:
            asked |= serving.get(queue, 0)
        for queue in self.lenders(bucket.queue):
            asked |= serving.get(queue, 0)
        return without(bucket.hard.able & asked, bucket.kind.never)

    def _look_at_hope(self, bucket: Bucket) -> bool:
        is_hopeless = not self.ever(bucket)
        if is_hopeless == bucket.is_hopeless:
            return False
        bucket.is_hopeless = is_hopeless
        if bucket.queue in self.targets:
            for key in bucket.keys:
                self._watch_target(self.works[key.work_id], bucket)
        self._hopeless ^= 1 << bucket.number
        n = -len(bucket.keys) if is_hopeless else len(bucket.keys)
        self.n_matchable[bucket.queue] = self.n_matchable.get(bucket.queue, 0) + n
        self.recounted.add(bucket.queue)
        return True

    def _buckets_of_change(self, asks: Bits, queues: Iterable[str]) -> Bits:
        touched = 0
        for number in members(asks):
            touched |= self._of_hard.get(number, 0)
        for queue in queues:
            touched |= self._of_ever_queue.get(queue, 0)
            for borrower in self._borrowers.get(queue, ()):
                touched |= self._own_of_queue.get(borrower, 0)
        return touched

    def _look_at_hopes(self, buckets: Bits) -> None:
        for number in members(buckets):
            bucket = self.bucket_at(number)
            if self._look_at_hope(bucket):
                self._turned.update(key.work_id for key in bucket.keys)

    def thinned_works(self) -> list[Work]:
        """Return the declined work that may have lost somebody who could take it, by id. Each time it is returned once."""
        thinned, self._thinned = self._thinned, 0
        if not thinned:
            return []
        return [
            self.works[work_id]
            for work_id in sorted(self.declined)
            if _has(thinned, self._where[work_id][0].number)
        ]

    def turned_works(self) -> list[WorkKey]:
        """Return the waiting work, in order, that somebody could ever take and nobody can any more, or the reverse.

        Each turn is returned once. Call it after a change of the roster.
        """
        turned = sorted(self._where[name][1] for name in self._turned if name in self._where)
        self._turned.clear()
        return turned

    # ------------------------------------------------------------------------------------------ work

    def live_work(self, ticket_id: str) -> Work | None:
        """Return a ticket's work that is not ended."""
        work_id = self.live.get(ticket_id)
        return self.works[work_id] if work_id is not None else None

    def ended_work(self, ticket_id: str) -> Work | None:
        """Return a ticket's work that ended last, while it is remembered."""
        work_id = self.ended.get(ticket_id)
        return self.works[work_id] if work_id is not None else None

    def bucket(self, work: Work) -> Bucket:
        """Return the bucket of waiting work."""
        return self._where[work.work_id][0]

    def bucket_at(self, number: int) -> Bucket:
        """Return the bucket of a number."""
        return self.buckets[number]

    def add(self, work: Work, now: datetime) -> None:
        """Let new work wait."""
        assert work.ticket_id not in self.live, f"{work.ticket_id} has live work"
        self.works[work.work_id] = work
        self.live[work.ticket_id] = work.work_id
        self.touch_work(work.work_id)
        if work.hold_until is not None and not self.hold_stands(work, now):
            work.hold_until = None
        self._enqueue(work)

    def move(self, work: Work) -> None:
        """Put waiting work where it belongs now."""
        self._dequeue(work)
        self._enqueue(work)
        self.touch_work(work.work_id)

    def reprioritise(self, work: Work, priority: int, due_at: datetime | None) -> None:
        """Change the place of work, which keeps its age."""
        work.priority, work.due_at = priority, due_at
        if work.status == "waiting":
            self.move(work)
        self.touch_work(work.work_id)

    def relax(self, work: Work, now: datetime) -> tuple[str, ...]:
        """Let fall away from waiting work what its patience ended for; return the names. It keeps its place."""
        fresh, is_changed = self._relaxed(work, now)
        if is_changed:
            self.move(work)
        return fresh

    def _relaxed(self, work: Work, now: datetime) -> tuple[tuple[str, ...], bool]:
        asked, since = work.requirement, work.patient_from
        if asked.steps:
            work.step = max(work.step, steps_done(asked, since, work.due_at, now))
        effective, names = relaxed_at(asked, since, now, work.step)
        fresh = tuple(name for name in names if name not in work.relaxed)
        is_changed = effective != work.effective
        work.effective, work.relaxed = effective, names
        return fresh, is_changed

    def ask_anew(self, work: Work, asked: Requirement, version: str, now: datetime) -> None:
        """Let work ask something else, as a policy of `version` says. What waits keeps its place, and tells again that it does."""
        work.requirement, work.policy_version = asked, version
        work.step, work.relaxed = 0, ()
        self.touch_work(work.work_id)
        if work.status != "waiting":
            return
        work.is_exhausted = work.is_told_unmatchable = False
        work.is_untold = True
        self._relaxed(work, now)
        self.move(work)

    def hold_stands(self, work: Work, now: datetime) -> bool:
        """Whether work may go on waiting for its preferred agent alone: there, able, not asked in vain before."""
        agent = self.agents.get(work.preferred_agent_id or "")
        if agent is None or work.hold_until is None or work.hold_until <= now:
            return False
        if not agent.is_available or agent.agent_id in work.excluded:
            return False
        if work.declines.get(agent.agent_id, 0):
            return False
        ask = self._ask(work.effective)
        kind = self.people.kind(work.cost, work.channel)
        return (
            any(queue in agent.queues for queue in (work.queue, *ask.asked.queues))
            and _has(ask.able, agent.place)
            and not _has(kind.never, agent.place)
        )

    def end_hold(self, work: Work) -> None:
        """Everybody is asked for waiting work that was held for one."""
        self._dequeue(work)
        work.hold_until = None
        self._enqueue(work)
        self.touch_work(work.work_id)

    def is_due_for(self, work: Work, now: datetime) -> tuple[bool, bool]:
        """Return whether waiting work is to be promoted, and whether it is ripe for keeping somebody free, by `now`."""
        promoted, ripe = self._promotion_at(work), self._ripe_at(work)
        return promoted is not None and promoted <= now, ripe is not None and ripe <= now

    def promote(self, work: Work) -> None:
        """Waiting work has waited too long for its priority."""
        work.promoted_at = self._promotion_at(work)
        self.move(work)

    def ripen(self, work: Work) -> None:
        """Somebody may be kept free for waiting work from now on."""
        work.is_ripe = self.may_keep = True
        self.ripe.add(self._where[work.work_id][1])
        self.touch_work(work.work_id)

    def reserve(
        self,
        work: Work,
        agent: Agent,
        reservation_id: str,
        now: datetime,
        expires_at: datetime,
        *,
        by_force: bool = False,
    ) -> None:
        """Offer waiting work to an agent, whose capacity it takes from now on; by force even where it has none."""
        self._dequeue(work)
        work.status, work.agent_id = "offered", agent.agent_id
        work.reservation_id, work.expires_at = reservation_id, expires_at
        work.attempts += 1
        work.is_told_unmatchable = work.is_untold = False
        heappush(self._due, Due(expires_at, "offer", work.work_id, reservation_id))
        self.touch_work(work.work_id)
        self._hand(work, agent, now, by_force=by_force)

    def reserve_also(self, work: Work, agent: Agent, reservation_id: str, now: datetime) -> None:
        """Offer offered work to one more agent; whoever takes it first has it."""
        assert work.status == "offered", f"{work.work_id} is {work.status}"
        work.others = (*work.others, Lease(agent.agent_id, reservation_id))
        work.attempts += 1
        self._hand(work, agent, now)

    def _hand(self, work: Work, agent: Agent, now: datetime, *, by_force: bool = False) -> None:
        people = self.people
        assert by_force or work.cost <= people.room(agent, work.channel), (
            f"{agent.agent_id} has no room for {work.work_id}"
        )
        agent.last_assigned_at = now
        self.held.setdefault(agent.agent_id, set()).add(work.work_id)
        self._count_channel(agent, work, 1)
        if people.interrupted_by:
            self._count_cost(agent, work, 1)
            agent.carry(*people.burden(agent.place), by_force=by_force)
        elif by_force:
            agent.carry(agent.load + work.cost, agent.load + work.cost, by_force=True)
        else:
            agent.take(work.cost)
        self.touch_load(agent)
        people.took(agent)
        people.refresh(agent)

    def assign(self, work: Work, agent: Agent, now: datetime) -> None:
        """The agent took what they were offered; whoever was asked as well has their capacity back."""
        if work.others:
            for lease in work.leases:
                if lease.agent_id == agent.agent_id:
                    work.agent_id, work.reservation_id = lease.agent_id, lease.reservation_id
                else:
                    self._let_go(work, self.agents[lease.agent_id])
            work.others = ()
        work.status, work.expires_at = "assigned", None
        work.assigned_at = now
        agent.misses = 0
        self.touch_work(work.work_id)
        self.touch_load(agent)

    def withdraw_lease(self, work: Work, agent: Agent) -> None:
        """One of several agents who are asked is asked no more; the others' offers stand."""
        left = [lease for lease in work.leases if lease.agent_id != agent.agent_id]
        assert left, f"{work.work_id} is offered to nobody else"
        self._let_go(work, agent)
        if work.agent_id == agent.agent_id:
            first = left[0]
            work.agent_id, work.reservation_id = first.agent_id, first.reservation_id
            assert work.expires_at is not None, f"the offer of {work.work_id} never ends"
            heappush(self._due, Due(work.expires_at, "offer", work.work_id, first.reservation_id))
        work.others = tuple(left[1:])
        self.touch_work(work.work_id)

    def remember(self, work: Work, now: datetime) -> None:
        """Whoever has the work now took this customer's ticket last."""
        if work.customer_id is None or work.agent_id is None:
            return
        self.known.pop(work.customer_id, None)
        self.known[work.customer_id] = Known(work.customer_id, work.agent_id, now)
        self.changed_known.add(work.customer_id)
        self.gone_known.discard(work.customer_id)
        while True:
            oldest = next(iter(self.known.values()))
            if len(self.known) <= KNOWN_MAX and oldest.at + KNOWN_KEPT > now:
                return
            del self.known[oldest.customer_id]
            self.changed_known.discard(oldest.customer_id)
            self.gone_known.add(oldest.customer_id)

    def known_agent(self, customer_id: str, now: datetime) -> Known | None:
        """Return who took a customer's ticket last, while that is remembered."""
        found = self.known.get(customer_id)
        return found if found is not None and found.at + KNOWN_KEPT > now else None

    def give_back(self, work: Work, now: datetime, *, is_missed: bool) -> tuple[str, ...]:
        """Let offered or assigned work wait again, at its old place; return what fell away meanwhile."""
        assert not work.others, f"{work.work_id} is offered to others"
        self._let_go(work, self._holder(work))
        work.status, work.agent_id = "waiting", None
        work.reservation_id = work.expires_at = work.assigned_at = None
        work.is_overfull = False
        asked = work.requirement
        if is_missed and asked.moves_on_miss:
            done = max(work.step, steps_done(asked, work.patient_from, work.due_at, now))
            work.step = min(done + 1, len(asked.steps))
        fresh, _ = self._relaxed(work, now)
        if work.hold_until is not None and not self.hold_stands(work, now):
            work.hold_until = None
        self.touch_work(work.work_id)
        self._enqueue(work)
        return fresh

    def end(self, work: Work, now: datetime) -> None:
        """Nobody is needed for this work any more. It is remembered for a while."""
        if work.status == "waiting":
            self._dequeue(work)
        else:
            was_assigned = work.status == "assigned"
            for lease in work.leases:
                self._let_go(work, self.agents[lease.agent_id])
            self._begin_wrap_up(work, now, was_assigned=was_assigned)
        work.status, work.expires_at, work.ended_at = "ended", None, now
        work.is_untold = False
        work.others = ()
        del self.live[work.ticket_id]
        self.ended[work.ticket_id] = work.work_id
        self._ended_order.append(work.work_id)
        self.touch_work(work.work_id)
        self._forget_ended(now)

    def _begin_wrap_up(self, work: Work, now: datetime, *, was_assigned: bool) -> None:
        seconds = self.terms.wrap_up.get(work.channel, 0.0) if self.terms is not None else 0.0
        if was_assigned and seconds > 0:
            work.wrap_until = now + timedelta(seconds=min(seconds, ENDED_KEPT.total_seconds()))
            self._hold_for_wrap_up(work, 1)
            self.people.refresh(self.agents[work.agent_id or ""])
            heappush(self._due, Due(work.wrap_until, "wrap_up", work.work_id, ""))

    def _hold_for_wrap_up(self, work: Work, sign: int) -> None:
        agent = self.agents.get(work.agent_id or "")
        if agent is None:
            return
        wrapped = self.people.wrapped.get(agent.place, 0) + sign * work.cost
        if wrapped > 0:
            self.people.wrapped[agent.place] = wrapped
        else:
            self.people.wrapped.pop(agent.place, None)

    def end_wrap_up(self, work: Work) -> Agent | None:
        """The time after ended work is over; return whose it was, if they are still there."""
        self._hold_for_wrap_up(work, -1)
        work.wrap_until = None
        self.touch_work(work.work_id)
        agent = self.agents.get(work.agent_id or "")
        if agent is not None:
            self.people.refresh(agent)
        return agent

    def wraps_of(self, agent_id: str) -> list[Work]:
        """Return the ended work after which an agent still wraps up. Looks at all ended work."""
        return [
            work
            for work_id in self._ended_order
            if (work := self.works[work_id]).wrap_until is not None and work.agent_id == agent_id
        ]

    def waiting(self) -> Iterator[Work]:
        """Yield all waiting work, bucket by bucket. For checks and sums, not for decisions."""
        for bucket in self.buckets:
            for key in bucket.keys:
                yield self.works[key.work_id]

    def n_waiting(self) -> dict[str, int]:
        """Return how many tickets wait, by queue."""
        return dict(self._n_waiting)

    def n_unmatchable(self) -> dict[str, int]:
        """Return how many of the tickets that wait nobody of the roster could ever take, by queue."""
        return {queue: n - self.n_matchable.get(queue, 0) for queue, n in self._n_waiting.items()}

    def _holder(self, work: Work) -> Agent:
        assert work.agent_id is not None, f"{work.work_id} is {work.status} to nobody"
        return self.agents[work.agent_id]

    def _let_go(self, work: Work, agent: Agent) -> None:
        self.held[agent.agent_id].discard(work.work_id)
        self._count_channel(agent, work, -1)
        if self.people.interrupted_by:
            self._count_cost(agent, work, -1)
            agent.carry(*self.people.burden(agent.place))
        else:
            agent.release(work.cost)
        self.people.refresh(agent)
        self.touch_load(agent)

    def _count_channel(self, agent: Agent, work: Work, sign: int) -> None:
        counts = self.people.in_channel.setdefault(agent.place, {})
        counts[work.channel] = counts.get(work.channel, 0) + sign

    def _count_cost(self, agent: Agent, work: Work, sign: int) -> None:
        costs = self.people.costs.setdefault(agent.place, {})
        costs[work.channel] = costs.get(work.channel, 0) + sign * work.cost

    def _forget_ended(self, now: datetime) -> None:
        while self._ended_order:
            work = self.works[self._ended_order[0]]
            if work.ended_at is not None and work.ended_at + ENDED_KEPT > now:
                return
            if work.wrap_until is not None:
                return
            self._ended_order.popleft()
            del self.works[work.work_id]
            if self.ended.get(work.ticket_id) == work.work_id:
                del self.ended[work.ticket_id]
            self.changed_works.discard(work.work_id)
            self.gone_works.add(work.work_id)

    # ----------------------------------------------------------------------------------------- buckets

    def _enqueue(self, work: Work) -> None:
        key = work.key
        bucket = self._find_bucket(work)
        bucket.keys.add(key)
        self._where[work.work_id] = (bucket, key)
        self._show_head(bucket)
        self._count(bucket, 1)
        if self.targets:
            self._watch_target(work, bucket)
        self._note_waiting(work)
        if work.is_ripe:
            self.ripe.add(key)
            self.may_keep = True
        self.expect(work)

    def _dequeue(self, work: Work) -> None:
        bucket, key = self._where.pop(work.work_id)
        self._next_at.pop(work.work_id, None)
        bucket.keys.remove(key)
        self._show_head(bucket)
        self._count(bucket, -1)
        if self.targets:
            self.targets.drop(bucket.queue, work.work_id)
        if work.is_ripe:
            self.ripe.remove(key)
        self.declined.discard(work.work_id)
        self.untold.discard(work.work_id)
        if bucket.held_for is not None:
            self.holds[bucket.held_for].discard(work.work_id)

    def _count(self, bucket: Bucket, n: int) -> None:
        queue = bucket.queue
        self._n_waiting[queue] = self._n_waiting.get(queue, 0) + n
        if not bucket.is_hopeless:
            self.n_matchable[queue] = self.n_matchable.get(queue, 0) + n
            self.recounted.add(queue)

    def _show_head(self, bucket: Bucket) -> None:
        head = bucket.keys.first
        if head is None:
            self.heads.drop(bucket.number)
            self._empty.add(bucket.number)
        else:
            self.heads.put(bucket.number, head)
            self._empty.discard(bucket.number)

    def _ask(self, asked: Requirement) -> Ask:
        found = self._ask_of.get(asked)
        if found is None:
            found = self._ask_of[asked] = self.people.ask(_asked_now(asked))
        return found

    def _find_bucket(self, work: Work) -> Bucket:
        held_for = work.preferred_agent_id if work.hold_until is not None else None
        # Thousands ask the same: they share one requirement, which knows its hash.
        work.requirement = self._shared.setdefault(work.requirement, work.requirement)
        work.effective = self._shared.setdefault(work.effective, work.effective)
        asks = (work.queue, work.effective, work.requirement, work.cost, work.channel, held_for)
        bucket = self._bucket_of.get(asks)
        if bucket is None:
            bucket = self._bucket_of[asks] = self._same_bucket(work, held_for)
        return bucket

    def _same_bucket(self, work: Work, held_for: str | None) -> Bucket:
        # Patience apart, the same may be asked in many words.
        if len(self._empty) > BUCKETS_SPARE and len(self._empty) * 2 > len(self.buckets):
            self._drop_empty_buckets()
        ask = self._ask(work.effective)
        hard = self._ask(required_for_ever(work.requirement))
        kind = self.people.kind(work.cost, work.channel)
        same = (work.queue, ask.number, hard.number, work.cost, work.channel, held_for)
        bucket = self._bucket_of.get(same)
        if bucket is None:
            bucket = self._bucket_of[same] = self._new_bucket(work.queue, ask, hard, kind, held_for)
        return bucket

    def _new_bucket(
        self, queue: str, ask: Ask, hard: Ask, kind: Kind, held_for: str | None
    ) -> Bucket:
        bucket = Bucket(len(self.buckets), queue, ask, hard, kind)
        bucket.held_for = held_for
        bucket.is_hopeless = not self.ever(bucket)
        self._empty.add(bucket.number)
        self._take_in(bucket)
        return bucket

    def _take_in(self, bucket: Bucket) -> None:
        bit = 1 << bucket.number
        self.buckets.append(bucket)
        self._add_bit(self._own_of_queue, (bucket.queue,), bit)
        self._add_bit(self._of_ever_queue, bucket.ever_queues, bit)
        self._of_hard[bucket.hard.number] = self._of_hard.get(bucket.hard.number, 0) | bit
        bucket.kind.buckets |= bit
        if bucket.is_hopeless:
            self._hopeless |= bit
        if bucket.held_for is not None:
            # Only one agent ever looks there, so it stands in nobody's slots and is no birth for the others.
            self._held_buckets |= bit
            return
        self._born.append(bucket)
        self._add_bit(self._of_queue, bucket.queues, bit)
        self._of_ask[bucket.ask.number] = self._of_ask.get(bucket.ask.number, 0) | bit

    @staticmethod
    def _add_bit(bits_of: dict[str, Bits], names: Iterable[str], bit: Bits) -> None:
        for name in names:
            bits_of[name] = bits_of.get(name, 0) | bit

    def _drop_empty_buckets(self) -> None:
        kept = [bucket for bucket in self.buckets if bucket.number not in self._empty]
        self.people.forget_asks(ask.asked for bucket in kept for ask in (bucket.ask, bucket.hard))
        for kind in self.people.kinds.values():
            kind.buckets = 0
        for numbered in (
            self._of_queue, self._own_of_queue, self._of_ever_queue, self._of_hard, self._of_ask,
            self._bucket_of, self._ask_of, self._shared, self._slots, self._lent, self._homes,
        ):  # fmt: skip
            numbered.clear()
        self.buckets, self._born, self._empty = [], [], set()
        self._held_buckets = self._hopeless = self._thinned = 0
        self._epoch += 1
        self.openings = None
        for number, bucket in enumerate(kept):
            bucket.number = number
            self._take_in(bucket)
            same = (
                bucket.queue, bucket.ask.number, bucket.hard.number,
                bucket.kind.cost, bucket.kind.channel, bucket.held_for,
            )  # fmt: skip
            self._bucket_of[same] = bucket
        self.heads = Ranking((bucket.keys.first or (), bucket.number) for bucket in kept)

    # ------------------------------------------------------------------------------------------ slots

    def slots(self, agent: Agent) -> Bits:
        """Return the buckets whose work an agent could take now if they had room for it."""
        known = self._slots.get(agent.place)
        if (
            known is None
            or known.epoch != self._epoch
            or len(self._born) - known.n_born > _BIRTHS_FOLLOWED
        ):
            known = self._slots[agent.place] = self._find_slots(agent)
        elif known.n_born < len(self._born):
            self._follow_births(agent, known)
        home = known.home | self._lent_to(agent.queues)
        return known.able & home | self._own_held(agent)

    def _find_slots(self, agent: Agent) -> _Slots:
        able = 0
        for number in members(self.people.met(agent)):
            able |= self._of_ask.get(number, 0)
        return _Slots(self._epoch, len(self._born), able, self._home(agent.queues))

    def _home(self, queues: tuple[str, ...]) -> Bits:
        """Return the buckets for which the agents of some queues are asked."""
        known = self._homes.get(queues)
        if known is None or known[0] != len(self._born):
            home = known[1] if known is not None else 0
            if known is None or len(self._born) - known[0] > _BIRTHS_FOLLOWED:
                for queue in queues:
                    home |= self._of_queue.get(queue, 0)
            else:
                for bucket in self._born[known[0] :]:
                    if any(queue in queues for queue in bucket.queues):
                        home |= 1 << bucket.number
            known = self._homes[queues] = (len(self._born), home)
        return known[1]

    def _own_held(self, agent: Agent) -> Bits:
        found = 0
        for work_id in self.holds.get(agent.agent_id, ()):
            bucket = self._where[work_id][0]
            if _has(bucket.ask.able & self.serving(bucket), agent.place):
                found |= 1 << bucket.number
        return found

    def _follow_births(self, agent: Agent, known: _Slots) -> None:
        for bucket in self._born[known.n_born :]:
            if _has(bucket.ask.able, agent.place):
                known.able |= 1 << bucket.number
        known.home = self._home(agent.queues)
        known.n_born = len(self._born)

    def _lent_to(self, queues: tuple[str, ...]) -> Bits:
        if not self.switches.spilling:
            return 0
        known = self._lent.get(queues)
        now = (self._epoch, len(self._born), self._switched)
        if known is not None and known[:3] == now:
            return known[3]
        lent = 0
        for lender in queues:
            if lender not in self.switches.guarding:
                for queue in self._borrowers.get(lender, ()):
                    if queue in self.switches.spilling:
                        lent |= self._own_of_queue.get(queue, 0)
        lent = without(lent, self._held_buckets)
        self._lent[queues] = (*now, lent)
        return lent

    def serving(self, bucket: Bucket) -> Bits:
        """Return the places of those whose queues are asked for a bucket."""
        serving = self.people.serving
        found = serving.get(bucket.queue, 0)
        for queue in bucket.queues[1:]:
            found |= serving.get(queue, 0)
        return found

    def lending(self, bucket: Bucket) -> Bits:
        """Return the places of those who are lent to a bucket's queue now."""
        if bucket.queue not in self.switches.spilling or bucket.held_for is not None:
            return 0
        found = 0
        for lender in self.lenders(bucket.queue):
            if lender not in self.switches.guarding:
                found |= self.people.serving.get(lender, 0)
        return found

    def own_buckets(self, queue: str) -> list[int]:
        """Return the buckets of a queue's own work that have some."""
        found = self._own_of_queue.get(queue, 0)
        return [number for number in members(found) if number not in self._empty]

    def switch(
        self,
        queue: str,
        *,
        spilling: bool | None = None,
        crowded: bool | None = None,
        at_risk: bool | None = None,
        overloaded: bool | None = None,
    ) -> None:
        """Open or close what a queue borrows or lends, or say that it is too long or not any more."""
        switches = self.switches
        for names, is_on in (
            (switches.spilling, spilling),
            (switches.crowded, crowded),
            (switches.at_risk, at_risk),
            (switches.overloaded, overloaded),
        ):
            if is_on is not None:
                (names.add if is_on else names.discard)(queue)
        is_guarding = queue in switches.crowded or queue in switches.at_risk
        (switches.guarding.add if is_guarding else switches.guarding.discard)(queue)
        self._switched += 1
        self.is_switched = True

    # -------------------------------------------------------------------------------------------- risk

    def _watch_targets(self, before: Terms | None) -> None:
        assert self.terms is not None, "there are no terms yet"
        near = _near(self.terms)
        if before is not None and near == _near(before):
            return
        self.targets.watch(near)
        for bucket in self.buckets:
            if bucket.queue in near:
                for key in bucket.keys:
                    self._watch_target(self.works[key.work_id], bucket)

    def _watch_target(self, work: Work, bucket: Bucket) -> None:
        if bucket.is_hopeless:
            self.targets.drop(bucket.queue, work.work_id)
        else:
            self.targets.add(bucket.queue, work.work_id, work.due_at)

    def see_risks(self, now: datetime) -> bool:
        """Note the queues whose targets have come near by `now` as ones to be looked at; return whether there is any."""
        found = self.targets.come_near(now, self.switches.at_risk)
        self.recounted.update(found)
        return bool(found)

    # --------------------------------------------------------------------------------------------- due

    def _promotion_at(self, work: Work) -> datetime | None:
        if self.terms is None or work.promoted_at is not None:
            return None
        wait = self._aging.get(work.priority)
        return None if wait is None else work.entered_at + wait

    def _ripe_at(self, work: Work) -> datetime | None:
        drain = self.terms.drain if self.terms is not None else None
        if drain is None or work.is_ripe or work.cost < drain.cost:
            return None
        return work.patient_from + timedelta(seconds=drain.after)

    def next_relaxation(self, work: Work) -> datetime | None:
        """Return when less will be asked for waiting work."""
        asked, since = work.requirement, work.patient_from
        at = next_step_at(asked, work.step, since, work.due_at) if asked.steps else None
        patience = shortest_patience(work.effective)
        return at if patience is None else _earlier(at, since + timedelta(seconds=patience))

    def _next_of(self, work: Work) -> datetime | None:
        at = _earlier(work.hold_until, self.next_relaxation(work))
        return _earlier(_earlier(at, self._promotion_at(work)), self._ripe_at(work))

    def expect(self, work: Work) -> None:
        """Wait for what falls due next for waiting work."""
        at = self._next_of(work)
        if at is None:
            self._next_at.pop(work.work_id, None)
        elif self._next_at.get(work.work_id) != at:
            self._next_at[work.work_id] = at
            heappush(self._due, Due(at, "waiting", work.work_id, ""))

    def _expect_all(self) -> None:
        found: list[Due] = []
        self._is_expecting = True
        self._next_at.clear()
        for work in self.works.values():
            if work.status == "waiting":
                at = self._next_of(work)
                if at is not None:
                    self._next_at[work.work_id] = at
                    found.append(Due(at, "waiting", work.work_id, ""))
            elif work.status == "offered":
                assert work.expires_at is not None, f"the offer of {work.work_id} never ends"
                found.append(Due(work.expires_at, "offer", work.work_id, work.reservation_id or ""))
            elif work.wrap_until is not None:
                found.append(Due(work.wrap_until, "wrap_up", work.work_id, ""))
        for agent in self.agents.values():
            if agent.turns_at is not None:
                found.append(Due(agent.turns_at, "shift", agent.agent_id, ""))
            returns_at = self._return_at(agent)
            if returns_at is not None:
                found.append(Due(returns_at, "return", agent.agent_id, ""))
        self._silence_due = dict(self._silent_at)
        found += [Due(at, "silence", name, "") for name, at in self._silence_due.items()]
        heapify(found)
        self._due = found

    def _is_alive(self, due: Due) -> bool:
        if due.kind in {"shift", "return", "silence"}:
            return self._is_alive_of(due, self.agents.get(due.name))
        work = self.works.get(due.name)
        if work is None:
            return False
        match due.kind:
            case "offer":
                return work.status == "offered" and work.reservation_id == due.token
            case "waiting":
                return work.status == "waiting" and self._next_at.get(due.name) == due.at
            case _:
                return work.wrap_until == due.at

    def _is_alive_of(self, due: Due, agent: Agent | None) -> bool:
        if agent is None:
            return False
        match due.kind:
            case "shift":
                return agent.turns_at == due.at
            case "return":
                return self._return_at(agent) == due.at
            case _:
                return self._silent_at.get(due.name) == due.at

    def _drop_dead(self) -> None:
        """Take the first thing due out, which is none any more; whoever was heard meanwhile is expected anew."""
        due = heappop(self._due)
        if due.kind == "silence" and self._silence_due.get(due.name) == due.at:
            at = self._silent_at.get(due.name)
            if at is None:
                del self._silence_due[due.name]
            else:
                self._silence_due[due.name] = at
                heappush(self._due, Due(at, "silence", due.name, ""))

    def next_due(self) -> datetime | None:
        """Return when something is to be done next: at once where a mass event left something to do."""
        if self.unsettled_at is not None:
            return self.unsettled_at
        due_at = self._next_due()
        risk_at = self.targets.next_at(self.switches.at_risk) if self.targets else None
        if due_at is None or risk_at is None:
            return due_at or risk_at
        return min(due_at, risk_at)

    def _next_due(self) -> datetime | None:
        if not self._is_expecting:
            self._expect_all()
        while self._due and not self._is_alive(self._due[0]):
            self._drop_dead()
        return self._due[0].at if self._due else None

    def pop_due(self, now: datetime) -> Due | None:
        """Take the earliest thing that is due by `now`; at one instant by the names of the kinds, then by id."""
        due_at = self._next_due()
        if due_at is None or due_at > now:
            return None
        due = heappop(self._due)
        if due.kind == "silence":
            self._silence_due.pop(due.name, None)
        elif due.kind == "waiting":
            self._next_at.pop(due.name, None)
        if len(self._due) > 4 * (len(self.works) + len(self.agents)) + 1000:
            # What changed leaves its entries behind; they are dropped before they fill the memory.
            self._due = [
                entry for entry in self._due if entry.kind == "silence" or self._is_alive(entry)
            ]
            heapify(self._due)
        return due


def _in_team(teams: dict[tuple[str, ...], tuple[str, ...]]) -> Callable[[Agent], Agent]:
    """Let agents who serve the same queues share the names of these."""

    def take(agent: Agent) -> Agent:
        agent.queues = teams.setdefault(agent.queues, agent.queues)
        return agent

    return take


def _is_as_worked_out(agent: Agent, calendars: Mapping[str, Calendar]) -> bool:
    if agent.turns_at is None:
        return False
    before = agent.turns_at - timedelta(microseconds=1)
    return (
        on_duty(agent, before, calendars) == agent.on_shift
        and next_turn(agent, before, calendars) == agent.turns_at
    )


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    if one is None or other is None:
        return one or other
    return min(one, other)


def _near(terms: Terms) -> dict[str, float]:
    """Return, for each queue that lends nobody while a target is near, how many seconds before it one is."""
    return {queue: guard.risk for queue, guard in terms.guards.items() if guard.risk is not None}


def _times(terms: Terms) -> tuple[object, ...]:
    """Return what decides when things fall due."""
    return terms.aging, terms.drain, terms.return_assigned, terms.heartbeat


def _has(bits: Bits, member: int) -> bool:
    return bool(bits >> member & 1)


def _asked_now(asked: Requirement) -> Requirement:
    """Return what is asked without the patience: two that ask the same are equal."""
    return Requirement(
        asked.language,
        asked.language_level if asked.language is not None else 1,
        None,
        tuple(SkillNeed(need.skill, need.level) for need in asked.skills),
        asked.forbidden,
        asked.queues,
    )


def _ended_key(work: Work) -> tuple[datetime, str]:
    return (work.ended_at or work.entered_at, work.work_id)
