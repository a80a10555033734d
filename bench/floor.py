"""A floor of agents in simulated time: tickets come, are offered, taken at once, worked on and solved.

Who gets what is decided by the production engine, event by event and with its own timers; only arrivals and handling times
are drawn. Instants are whole microseconds since the start, so that nothing is rounded twice.
"""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from schemas import roster, routing
from services.router.core.assignment import assign
from services.router.core.assignment.domain import Domain
from services.router.core.assignment.terms import Terms

SECOND: Final = 1_000_000
START: Final = datetime(2026, 11, 24, tzinfo=UTC)
ANYBODY: Final = routing.Requirement()


@dataclass(frozen=True, slots=True)
class Call:
    """A ticket that comes at an instant and keeps an agent for `work`; both are microseconds.

    `target` is how long after it comes its answer is due (None: not known).
    """

    at: int
    work: int
    queue: str = "service"
    priority: int = 3
    cost: int = 100
    requirement: routing.Requirement = ANYBODY
    channel: str = ""
    target: int | None = None


class Served(NamedTuple):
    """What became of a call: who got it, and when. `agent_id` is empty where it found no place to wait."""

    call: Call
    agent_id: str
    at: int
    relaxed: tuple[str, ...] = ()

    @property
    def wait(self) -> int:
        """How long it waited, in microseconds."""
        return self.at - self.call.at

    @property
    def is_turned_away(self) -> bool:
        """Whether all places to wait were taken."""
        return not self.agent_id


@dataclass(slots=True)
class Floor:
    """Agents under terms. `places` is how many may wait (None: any number); who finds them taken leaves at once.

    `handling` says for how many microseconds a call keeps an agent, where it is not the call that decides. Every `watch`
    microseconds the lengths of the queues are noted in `lengths`.
    """

    agents: Sequence[roster.AgentSet]
    terms: Terms
    places: int | None = None
    handling: Callable[[str, Call], int] | None = None
    watch: int | None = None
    lengths: list[tuple[int, dict[str, int]]] = field(default_factory=list)

    def run(self, calls: Iterable[Call]) -> list[Served]:
        """Let the calls come, in order of time; return what became of each that was served or turned away, in that order.

        The run ends when nothing happens any more; whoever then still waits is not among them.
        """
        return _Run(self, sorted(calls, key=lambda call: call.at)).go()


_ARRIVAL, _END = 0, 1


class _Run:
    """One run: the domain, and what is to come."""

    def __init__(self, floor: Floor, calls: list[Call]) -> None:
        self.floor = floor
        self.calls = calls
        self.domain = Domain("main")
        self.served: list[Served] = []
        self.offers: list[routing.OfferMade] = []
        # Arrivals stand in order already, so only the ends of work are in a heap.
        self.ends: list[tuple[int, int]] = []
        self.next_watch = 0 if floor.watch else None

    def go(self) -> list[Served]:
        for agent in self.floor.agents:
            self.tell(agent, 0)
            name = {"domain": "main", "agent_id": agent.agent_id}
            self.tell(roster.PresenceSet(**name, presence="available"), 0)
        n = 0
        while n < len(self.calls) or self.ends:
            at, what = self.next_of(n)
            self.do_due(at)
            if self.next_of(n) != (at, what):
                continue  # What fell due made somebody busy who ends sooner.
            self.note_lengths(at)
            if what == _END:
                _, done = heappop(self.ends)
                self.withdraw(done, at, "solved")
            else:
                self.arrive(n, at)
                n += 1
        return self.served

    def next_of(self, n: int) -> tuple[int, int]:
        arrival = (self.calls[n].at, _ARRIVAL) if n < len(self.calls) else None
        end = (self.ends[0][0], _END) if self.ends else None
        if arrival is None or end is None:
            found = end if arrival is None else arrival
            assert found is not None, "nothing is to come"
            return found
        # At one instant capacity is freed first.
        return end if end[0] <= arrival[0] else arrival

    def do_due(self, until: int) -> None:
        """Wake the domain whenever it asked for it before an instant, or at it."""
        while (due_at := self.domain.next_due()) is not None:
            due = (due_at - START) // timedelta(microseconds=1)
            if due > until or (self.ends and self.ends[0][0] < due):
                return
            self.tell(assign.DueNow(), due)

    def note_lengths(self, at: int) -> None:
        step = self.floor.watch
        while self.next_watch is not None and step is not None and self.next_watch <= at:
            self.floor.lengths.append((self.next_watch, self.domain.n_waiting()))
            self.next_watch += step

    def arrive(self, n: int, at: int) -> None:
        call = self.calls[n]
        self.tell(_request(n, call, at), at)
        places = self.floor.places
        if places is None or self.domain.live_work(str(n)) is None:
            return
        if sum(self.domain.n_waiting().values()) > places:
            self.withdraw(n, at, "no_place")
            self.served.append(Served(call, "", at))

    def withdraw(self, n: int, at: int, reason: str) -> None:
        self.tell(
            routing.WorkWithdrawn(
                domain="main",
                work_id=f"w{n}",
                ticket_id=str(n),
                conversation_id="c",
                reason=reason,
            ),
            at,
        )

    def tell(self, event: assign.Event, at: int) -> None:
        """Tell the domain something; every offer that it makes is taken at once."""
        instant = START + timedelta(microseconds=at)
        self.decide(event, instant)
        while self.offers:
            offer = self.offers.pop(0)
            self.decide(
                roster.OfferAccepted(
                    domain="main",
                    agent_id=offer.agent_id,
                    ticket_id=offer.ticket_id,
                    reservation_id=offer.reservation_id,
                ),
                instant,
            )
            n = int(offer.ticket_id)
            call = self.calls[n]
            relaxed = offer.record.relaxed if offer.record is not None else ()
            self.served.append(Served(call, offer.agent_id, at, relaxed))
            handling = self.floor.handling
            work = call.work if handling is None else handling(offer.agent_id, call)
            heappush(self.ends, (at + work, n))

    def decide(self, event: assign.Event, instant: datetime) -> None:
        said = assign.decide(self.domain, event, instant, self.floor.terms)
        self.offers += [told for told in said.events if isinstance(told, routing.OfferMade)]
        self.domain.clear_marks()


def _request(n: int, call: Call, at: int) -> routing.WorkRequested:
    entered_at = START + timedelta(microseconds=at)
    return routing.WorkRequested(
        domain="main",
        work_id=f"w{n}",
        ticket_id=str(n),
        conversation_id="c",
        queue=call.queue,
        priority=call.priority,
        cost=call.cost,
        requirement=call.requirement,
        entered_at=entered_at,
        channel=call.channel,
        due_at=None if call.target is None else entered_at + timedelta(microseconds=call.target),
    )


def agent(
    agent_id: str,
    queues: tuple[str, ...] = ("service",),
    skills: Mapping[str, int] | None = None,
    capacity: int = 100,
) -> roster.AgentSet:
    """Return somebody of the floor."""
    return roster.AgentSet(
        domain="main",
        agent_id=agent_id,
        queues=queues,
        skills=dict(skills or {}),
        languages={},
        capacity=capacity,
    )


def poisson(dice: random.Random, a_second: float, n: int) -> list[int]:
    """Return the instants of `n` arrivals that come independently, so many a second."""
    at, found = 0, []
    for _ in range(n):
        at += round(dice.expovariate(a_second) * SECOND)
        found.append(at)
    return found


def exponential(dice: random.Random, seconds: float) -> int:
    """Return a handling time with that mean, in microseconds."""
    return round(dice.expovariate(1 / seconds) * SECOND)


def kiefer_wolfowitz(calls: Sequence[Call], n_agents: int) -> list[int]:
    """Return when each of the calls is served by so many equal agents, first come, first served: the textbook's recursion.

    It knows nothing of the engine. The result is in the order of the calls, which must be in order of time.
    """
    free = [0] * n_agents
    heapify(free)
    found: list[int] = []
    for call in calls:
        at = max(call.at, free[0])
        heappop(free)
        heappush(free, at + call.work)
        found.append(at)
    return found
