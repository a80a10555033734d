"""A routing domain: its agents, the work they wait for, hold or are offered, and the indices that find a match fast.

This is the one state that decisions change in place (a domain may hold thousands of tickets). The records, `Agent` and
`Work`, are what is stored; everything else is derived from them, so that a domain made of stored records decides as
the one that stored them.

Waiting work lies in **buckets** of one queue, one requirement (after relaxation) and one cost. All work of a bucket asks
the same, so who could take it is known per bucket, and only its head matters, but for those who declined.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Literal, NamedTuple

from msgspec import Struct

from services.router.core.capacity import Agent
from services.router.core.policy import OffersModel
from services.router.core.requirement import (
    Requirement,
    deadlines,
    relaxed_at,
    required_for_ever,
    shortfalls,
)

ENDED_KEPT = timedelta(minutes=15)
"""How long ended work is remembered, so that a late answer to an offer is refused with the reason."""

BUCKETS_SPARE = 256
"""How many empty buckets are kept before they are dropped together."""

Status = Literal["waiting", "offered", "assigned", "ended"]


class Work(Struct):
    """A ticket's request for a person. `effective` is what it still asks after relaxation.

    `agent_id` is the assignee while offered or assigned, and who had it last once ended. `declines` counts refused and
    missed offers by agent. Age is counted from `entered_at`, patience from `relax_from` (None: from `entered_at`); a
    requeue keeps both.
    """

    work_id: str
    ticket_id: str
    conversation_id: str
    queue: str
    priority: int
    cost: int
    requirement: Requirement
    effective: Requirement
    entered_at: datetime
    relax_from: datetime | None = None
    preferred_agent_id: str | None = None
    excluded: tuple[str, ...] = ()
    rule: str = ""
    policy_version: str = ""
    status: Status = "waiting"
    relaxed: tuple[str, ...] = ()
    agent_id: str | None = None
    reservation_id: str | None = None
    expires_at: datetime | None = None
    attempts: int = 0
    declines: dict[str, int] = {}
    last_declined: str | None = None
    is_exhausted: bool = False
    is_told_unmatchable: bool = False
    ended_at: datetime | None = None

    @property
    def key(self) -> "WorkKey":
        """Sorts work: urgent first, then old first, then by id."""
        return WorkKey(self.priority, self.entered_at, self.work_id)

    @property
    def patient_from(self) -> datetime:
        """From when the patience of the requirement counts."""
        return self.relax_from or self.entered_at

    def is_barred(self, agent_id: str, max_declines: int) -> bool:
        """Whether this work is closed to an agent whoever they are: excluded, or refused too often."""
        return agent_id in self.excluded or self.declines.get(agent_id, 0) >= max_declines


class WorkKey(NamedTuple):
    """Place in the one order of all waiting work."""

    priority: int
    entered_at: datetime
    work_id: str


class BucketKey(NamedTuple):
    """What all work of a bucket has in common."""

    queue: str
    asked: Requirement
    cost: int


class Bucket:
    """Waiting work that asks the same, in order, and who could take it: now, and ever (after all relaxation)."""

    __slots__ = ("eligible", "ever", "is_hopeless", "keys", "static_rules")

    def __init__(self) -> None:
        self.keys: list[WorkKey] = []
        self.eligible: list[str] = []
        self.ever: list[str] = []
        self.is_hopeless = False
        """Whether nobody could ever take it, as of the last look."""
        self.static_rules: dict[str, tuple[str, ...]] = {}


class Due(NamedTuple):
    """Something that falls due. `token` is the reservation that expires; empty for a relaxation."""

    at: datetime
    kind: Literal["offer", "relaxation"]
    work_id: str
    token: str


def static_rules(agent: Agent, key: BucketKey) -> tuple[str, ...]:
    """Return the rules against an agent that neither time nor other tickets change: `queue`, `language`, `skill:…`."""
    found = shortfalls(key.asked, agent.languages, agent.skills)
    return found if key.queue in agent.queues else ("queue", *found)


def _could_ever(agent: Agent, key: BucketKey, hard: Requirement) -> bool:
    return agent.capacity >= key.cost and not static_rules(agent, key._replace(asked=hard))


class Domain:
    """The state of one routing domain. Change it through its methods, which keep records, indices and marks together."""

    def __init__(self, name: str, agents: Iterable[Agent] = (), works: Iterable[Work] = ()) -> None:
        self.name = name
        self.agents: dict[str, Agent] = {}
        self.works: dict[str, Work] = {}
        self.live: dict[str, str] = {}
        """ticket → its work that is not ended."""
        self.ended: dict[str, str] = {}
        """ticket → its work that ended last, while it is remembered."""
        self.held: dict[str, set[str]] = {}
        """agent → work offered to them or assigned to them."""
        self.declined: set[str] = set()
        """Waiting work that somebody declined."""
        self.buckets: dict[BucketKey, Bucket] = {}
        self.slots: dict[str, list[BucketKey]] = {}
        """agent → buckets whose work they could take now."""
        self.roster: list[str] = []
        """Ids of all agents, sorted."""
        self.changed_agents: set[str] = set()
        self.changed_works: set[str] = set()
        self.gone_agents: set[str] = set()
        self.gone_works: set[str] = set()
        self.settled_by: OffersModel | None = None
        """The rules of offers under which all of it was matched last; None where it was just read."""
        self._due: list[Due] = []
        self._ended_order: deque[str] = deque()
        for agent in sorted(agents, key=lambda agent: agent.agent_id):
            self.agents[agent.agent_id] = agent
            self.roster.append(agent.agent_id)
            self.slots[agent.agent_id] = []
        self._restore(works)

    def _restore(self, works: Iterable[Work]) -> None:
        ended: list[Work] = []
        for work in works:
            self.works[work.work_id] = work
            if work.status == "ended":
                ended.append(work)
                continue
            self.live[work.ticket_id] = work.work_id
            if work.status == "waiting":
                self._enqueue(work)
            else:
                assert work.agent_id is not None, f"{work.work_id} is {work.status} to nobody"
                self.held.setdefault(work.agent_id, set()).add(work.work_id)
                self._expect_expiry(work)
        for work in sorted(ended, key=_ended_key):
            self._ended_order.append(work.work_id)
            self.ended[work.ticket_id] = work.work_id

    # ------------------------------------------------------------------------------------------ marks

    def is_changed(self) -> bool:
        """Whether any record differs from what was stored."""
        return bool(
            self.changed_agents or self.changed_works or self.gone_agents or self.gone_works
        )

    def clear_marks(self) -> None:
        """All records are stored."""
        for marks in (self.changed_agents, self.changed_works, self.gone_agents, self.gone_works):
            marks.clear()

    def touch_agent(self, agent_id: str) -> None:
        """Mark an agent's record as changed."""
        self.changed_agents.add(agent_id)
        self.gone_agents.discard(agent_id)

    def touch_work(self, work_id: str) -> None:
        """Mark a work's record as changed."""
        self.changed_works.add(work_id)
        self.gone_works.discard(work_id)

    # ------------------------------------------------------------------------------------------ agents

    def set_agent(self, agent: Agent) -> None:
        """Take over an agent, new or changed in what they can do."""
        if agent.agent_id not in self.agents:
            self.agents[agent.agent_id] = agent
            insort(self.roster, agent.agent_id)
        self.touch_agent(agent.agent_id)
        slots: list[BucketKey] = []
        for key, bucket in self.buckets.items():
            bucket.static_rules.pop(agent.agent_id, None)
            is_eligible = not static_rules(agent, key)
            _set_member(bucket.eligible, agent.agent_id, is_eligible)
            is_ever = _could_ever(agent, key, required_for_ever(key.asked))
            _set_member(bucket.ever, agent.agent_id, is_ever)
            if is_eligible:
                slots.append(key)
        self.slots[agent.agent_id] = slots

    def remove_agent(self, agent_id: str) -> None:
        """Forget an agent who holds nothing any more."""
        assert not self.held.get(agent_id), f"{agent_id} still holds work"
        del self.agents[agent_id]
        del self.slots[agent_id]
        self.held.pop(agent_id, None)
        _set_member(self.roster, agent_id, is_in=False)
        for bucket in self.buckets.values():
            bucket.static_rules.pop(agent_id, None)
            _set_member(bucket.eligible, agent_id, is_in=False)
            _set_member(bucket.ever, agent_id, is_in=False)
        self.changed_agents.discard(agent_id)
        self.gone_agents.add(agent_id)

    def held_by(self, agent_id: str) -> list[Work]:
        """Return the work that an agent is offered or holds, in order."""
        return sorted(
            (self.works[work_id] for work_id in self.held.get(agent_id, ())),
            key=lambda work: work.key,
        )

    # ------------------------------------------------------------------------------------------ work

    def live_work(self, ticket_id: str) -> Work | None:
        """Return a ticket's work that is not ended."""
        work_id = self.live.get(ticket_id)
        return self.works[work_id] if work_id is not None else None

    def ended_work(self, ticket_id: str) -> Work | None:
        """Return a ticket's work that ended last, while it is remembered."""
        work_id = self.ended.get(ticket_id)
        return self.works[work_id] if work_id is not None else None

    def bucket_key(self, work: Work) -> BucketKey:
        """Return where the work lies while it waits."""
        return BucketKey(work.queue, work.effective, work.cost)

    def bucket(self, work: Work) -> Bucket:
        """Return the bucket of waiting work."""
        return self.buckets[self.bucket_key(work)]

    def add(self, work: Work) -> None:
        """Let new work wait."""
        assert work.ticket_id not in self.live, f"{work.ticket_id} has live work"
        self.works[work.work_id] = work
        self.live[work.ticket_id] = work.work_id
        self.touch_work(work.work_id)
        self._enqueue(work)

    def reprioritise(self, work: Work, priority: int) -> None:
        """Change the place of work, which keeps its age."""
        is_waiting = work.status == "waiting"
        if is_waiting:
            self._dequeue(work)
        work.priority = priority
        self.touch_work(work.work_id)
        if is_waiting:
            self._enqueue(work)

    def relax(self, work: Work, now: datetime) -> tuple[str, ...]:
        """Let fall away from waiting work what its patience ended for; return the names. It keeps its place."""
        effective, names = relaxed_at(work.requirement, work.patient_from, now)
        fresh = tuple(name for name in names if name not in work.relaxed)
        if fresh:
            self._dequeue(work)
            work.effective, work.relaxed = effective, names
            self.touch_work(work.work_id)
            self._enqueue(work)
        return fresh

    def reserve(
        self, work: Work, agent: Agent, reservation_id: str, now: datetime, expires_at: datetime
    ) -> None:
        """Offer waiting work to an agent, whose capacity it takes from now on."""
        self._dequeue(work)
        agent.take(work.cost)
        agent.last_assigned_at = now
        work.status, work.agent_id = "offered", agent.agent_id
        work.reservation_id, work.expires_at = reservation_id, expires_at
        work.attempts += 1
        work.is_told_unmatchable = False
        self.held.setdefault(agent.agent_id, set()).add(work.work_id)
        self._expect_expiry(work)
        self.touch_work(work.work_id)
        self.touch_agent(agent.agent_id)

    def assign(self, work: Work, agent: Agent) -> None:
        """The agent took what they were offered."""
        work.status, work.expires_at = "assigned", None
        agent.misses = 0
        self.touch_work(work.work_id)
        self.touch_agent(agent.agent_id)

    def give_back(self, work: Work, now: datetime) -> tuple[str, ...]:
        """Let offered or assigned work wait again, at its old place; return what fell away meanwhile."""
        self._let_go(work)
        work.status, work.agent_id = "waiting", None
        work.reservation_id = work.expires_at = None
        effective, names = relaxed_at(work.requirement, work.patient_from, now)
        fresh = tuple(name for name in names if name not in work.relaxed)
        work.effective, work.relaxed = effective, names
        self.touch_work(work.work_id)
        self._enqueue(work)
        return fresh

    def end(self, work: Work, now: datetime) -> None:
        """Nobody is needed for this work any more. It is remembered for a while."""
        if work.status == "waiting":
            self._dequeue(work)
        else:
            self._let_go(work)
        work.status, work.expires_at, work.ended_at = "ended", None, now
        del self.live[work.ticket_id]
        self.ended[work.ticket_id] = work.work_id
        self._ended_order.append(work.work_id)
        self.touch_work(work.work_id)
        self._forget_ended(now)

    def waiting(self) -> Iterator[Work]:
        """Yield all waiting work, bucket by bucket. For checks and sums, not for decisions."""
        for bucket in self.buckets.values():
            for key in bucket.keys:
                yield self.works[key.work_id]

    def n_waiting(self) -> dict[str, int]:
        """Return how many tickets wait, by queue."""
        found: dict[str, int] = {}
        for key, bucket in self.buckets.items():
            found[key.queue] = found.get(key.queue, 0) + len(bucket.keys)
        return found

    def _let_go(self, work: Work) -> None:
        assert work.agent_id is not None, f"{work.work_id} is {work.status} to nobody"
        self.agents[work.agent_id].release(work.cost)
        self.held[work.agent_id].discard(work.work_id)
        self.touch_agent(work.agent_id)

    def _forget_ended(self, now: datetime) -> None:
        while self._ended_order:
            work = self.works[self._ended_order[0]]
            if work.ended_at is not None and work.ended_at + ENDED_KEPT > now:
                return
            self._ended_order.popleft()
            del self.works[work.work_id]
            if self.ended.get(work.ticket_id) == work.work_id:
                del self.ended[work.ticket_id]
            self.changed_works.discard(work.work_id)
            self.gone_works.add(work.work_id)

    # ----------------------------------------------------------------------------------------- buckets

    def _enqueue(self, work: Work) -> None:
        key = self.bucket_key(work)
        bucket = self.buckets.get(key)
        if bucket is None:
            bucket = self._new_bucket(key)
        insort(bucket.keys, work.key)
        if work.declines:
            self.declined.add(work.work_id)
        for at in deadlines(work.effective, work.patient_from):
            heappush(self._due, Due(at, "relaxation", work.work_id, ""))

    def _dequeue(self, work: Work) -> None:
        keys = self.bucket(work).keys
        index = bisect_left(keys, work.key)
        assert keys[index : index + 1] == [work.key], f"{work.work_id} is not in its bucket"
        del keys[index]
        self.declined.discard(work.work_id)

    def _new_bucket(self, key: BucketKey) -> Bucket:
        n_empty = sum(not bucket.keys for bucket in self.buckets.values())
        if n_empty > BUCKETS_SPARE and n_empty * 2 > len(self.buckets):
            self._drop_empty_buckets()
        bucket = self.buckets[key] = Bucket()
        hard = required_for_ever(key.asked)
        for agent_id in self.roster:
            agent = self.agents[agent_id]
            if not static_rules(agent, key):
                bucket.eligible.append(agent_id)
                self.slots[agent_id].append(key)
            if _could_ever(agent, key, hard):
                bucket.ever.append(agent_id)
        bucket.is_hopeless = not bucket.ever
        return bucket

    def turned_buckets(self) -> list[WorkKey]:
        """Return the waiting work, in order, that somebody could ever take and nobody can any more, or the reverse.

        Each turn is returned once. Call it after a change of the roster.
        """
        turned: list[WorkKey] = []
        for bucket in self.buckets.values():
            if bucket.is_hopeless == bool(bucket.ever):
                bucket.is_hopeless = not bucket.ever
                turned.extend(bucket.keys)
        return sorted(turned)

    def _drop_empty_buckets(self) -> None:
        self.buckets = {key: bucket for key, bucket in self.buckets.items() if bucket.keys}
        self.slots = {
            agent_id: [key for key in slots if key in self.buckets]
            for agent_id, slots in self.slots.items()
        }

    # --------------------------------------------------------------------------------------------- due

    def _expect_expiry(self, work: Work) -> None:
        if work.status == "offered":
            assert work.expires_at is not None, f"the offer of {work.work_id} never ends"
            heappush(
                self._due, Due(work.expires_at, "offer", work.work_id, work.reservation_id or "")
            )

    def _is_alive(self, due: Due) -> bool:
        work = self.works.get(due.work_id)
        if work is None:
            return False
        if due.kind == "offer":
            return work.status == "offered" and work.reservation_id == due.token
        return work.status == "waiting"

    def next_due(self) -> datetime | None:
        """Return when the next offer ends or the next requirement relaxes."""
        while self._due and not self._is_alive(self._due[0]):
            heappop(self._due)
        return self._due[0].at if self._due else None

    def pop_due(self, now: datetime) -> Due | None:
        """Take the earliest thing that is due by `now`; at one instant offers before relaxations, then by id."""
        due_at = self.next_due()
        if due_at is None or due_at > now:
            return None
        due = heappop(self._due)
        if len(self._due) > 4 * len(self.works) + 1000:
            # Ended offers leave their entries behind; they are dropped before they fill the memory.
            self._due = [entry for entry in self._due if self._is_alive(entry)]
            heapify(self._due)
        return due


def _ended_key(work: Work) -> tuple[datetime, str]:
    return (work.ended_at or work.entered_at, work.work_id)


def _set_member(ids: list[str], agent_id: str, is_in: bool) -> None:
    index = bisect_left(ids, agent_id)
    is_there = index < len(ids) and ids[index] == agent_id
    if is_in and not is_there:
        ids.insert(index, agent_id)
    elif is_there and not is_in:
        del ids[index]
