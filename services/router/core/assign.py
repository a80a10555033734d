"""What happens to a routing domain: work that comes and goes, agents who change, offers and their answers, time.

`decide` first does everything that fell due before the event, each thing in its order, then the event. After each of
them it matches what may have become possible: work that newly waits, agents who newly have room. Everybody else had
nothing to take before and has nothing now, so after every step no waiting work has an agent who could take it. Where
the rules of offers are not those of the turn before (or that turn is not remembered), everybody is looked at once.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec import Struct

from schemas import roster
from schemas import routing as wire
from schemas.payload import Payload
from services.router.core import explain, matching, offer
from services.router.core.capacity import Agent
from services.router.core.domain import Domain, Due, Work, WorkKey
from services.router.core.policy import OffersModel
from services.router.core.requirement import from_wire, relaxed_at

DUE = "due"
"""The timer of the next thing that falls due in a domain."""


class DueNow(Struct, frozen=True):
    """Something may be due."""


class Decision(NamedTuple):
    """What is told; the domain was changed in place. `ignored` says why an input means nothing here."""

    events: tuple[wire.RoutingEvent, ...] = ()
    ignored: str | None = None


Event = roster.AnyRosterEvent | wire.WorkRequested | wire.WorkWithdrawn | DueNow


DUE_SLICE = 20
"""Ends of offers and relaxations handled in one decision."""


def decide(domain: Domain, event: Event, now: datetime, rules: OffersModel) -> Decision:
    """Apply one event to a domain, in place."""
    turn = _Turn(domain, now, rules)
    turn.do_what_is_due()
    turn.take_up_rules()
    ignored: str | None = None
    match event:
        case wire.WorkRequested():
            ignored = turn.request(event)
        case wire.WorkWithdrawn():
            ignored = turn.withdraw(event)
        case roster.AgentSet():
            ignored = turn.set_agent(event)
        case roster.AgentRemoved():
            ignored = turn.remove_agent(event)
        case roster.PresenceSet():
            ignored = turn.set_presence(event)
        case roster.OfferAccepted() | roster.OfferDeclined():
            ignored = turn.answer(event)
        case DueNow():
            ignored = None if turn.events else "nothing_due"
    return Decision(tuple(turn.events), ignored)


class _Turn:
    """One decision: the domain, the instant, what is told, and what may have become possible so far."""

    def __init__(self, domain: Domain, now: datetime, rules: OffersModel) -> None:
        self.domain = domain
        self.now = now
        self.rules = rules
        self.events: list[wire.RoutingEvent] = []
        self._open_works: set[str] = set()
        self._open_agents: set[str] = set()

    # -------------------------------------------------------------------------------------------- due

    def do_what_is_due(self) -> None:
        """End the offers and relax the requirements whose time is over, in order, matching after each.

        At most `DUE_SLICE` of them: where thousands are due at one instant, the timer that is set again at once does the
        next slice, and the loop has turned between.
        """
        for _ in range(DUE_SLICE):
            due = self.domain.pop_due(self.now)
            if due is None:
                return
            self._do(due)
            self._settle()

    def take_up_rules(self) -> None:
        """Match all over again where the rules have changed: what was declined too often may not be any more."""
        if self.domain.settled_by == self.rules:
            return
        self.domain.settled_by = self.rules
        self._open_agents.update(self.domain.agents)
        self._settle()

    def _do(self, due: Due) -> None:
        work = self.domain.works[due.work_id]
        if due.kind == "offer":
            self._miss(work)
        else:
            self._tell_relaxed(work, self.domain.relax(work, self.now))
            self._open_works.add(work.work_id)

    def _miss(self, work: Work) -> None:
        agent = self._holder(work)
        agent.misses += 1
        limit = self.rules.away_after_misses
        if limit is not None and agent.misses >= limit:
            agent.presence = "away"
        self._requeue(work, "offer_expired", is_decline=True)
        if not agent.is_available:
            self._return_offers(agent, "agent_away")

    # ------------------------------------------------------------------------------------------- work

    def request(self, event: wire.WorkRequested) -> str | None:
        """A ticket needs a person, or the one that it asked for is needed more urgently."""
        work = self.domain.live_work(event.ticket_id)
        if work is not None and work.work_id == event.work_id:
            return self._reprioritise(work, event.priority)
        if event.work_id in self.domain.works:
            return "work_ended"
        if work is not None:
            self._end(work, "replaced")
        asked = from_wire(event.requirement)
        effective, relaxed = relaxed_at(asked, event.relax_from or event.entered_at, self.now)
        work = Work(
            work_id=event.work_id,
            ticket_id=event.ticket_id,
            conversation_id=event.conversation_id,
            queue=event.queue,
            priority=event.priority,
            cost=event.cost,
            requirement=asked,
            effective=effective,
            entered_at=event.entered_at,
            relax_from=event.relax_from,
            preferred_agent_id=event.preferred_agent_id,
            excluded=event.excluded_agent_ids,
            rule=event.rule,
            policy_version=event.policy_version,
            relaxed=relaxed,
        )
        self.domain.add(work)
        self._open_works.add(work.work_id)
        self._settle()
        if work.status == "waiting":
            self._tell_queued(work)
        return None

    def _reprioritise(self, work: Work, priority: int) -> str | None:
        if work.priority == priority:
            return "work_repeated"
        # Nobody could take it at its old place, so nobody can at the new one: there is nothing to match.
        self.domain.reprioritise(work, priority)
        return None

    def withdraw(self, event: wire.WorkWithdrawn) -> str | None:
        """A ticket needs nobody any more."""
        work = self.domain.works.get(event.work_id)
        if work is None:
            return "work_unknown"
        if work.status == "ended":
            return "work_ended"
        self._end(work, event.reason)
        self._settle()
        return None

    def _end(self, work: Work, reason: str) -> None:
        agent_id = work.agent_id
        self.domain.end(work, self.now)
        if agent_id is not None:
            self._open_agents.add(agent_id)
        self._tell(wire.WorkReleased, work, agent_id=agent_id, reason=reason, at=self.now)

    # ----------------------------------------------------------------------------------------- roster

    def set_agent(self, event: roster.AgentSet) -> str | None:
        """An agent is new, or can do other things than before."""
        agent = self.domain.agents.get(event.agent_id)
        if agent is None:
            agent = Agent(event.agent_id)
        elif agent.is_as(event):
            return "agent_unchanged"
        agent.become(event)
        self.domain.set_agent(agent)
        self._open_agents.add(agent.agent_id)
        self._settle()
        self._look_for_limbo()
        return None

    def remove_agent(self, event: roster.AgentRemoved) -> str | None:
        """An agent has left; all that they held waits again."""
        agent = self.domain.agents.get(event.agent_id)
        if agent is None:
            return "agent_unknown"
        agent.presence = "offline"
        for work in self.domain.held_by(agent.agent_id):
            self._requeue(work, "agent_removed")
        self._open_agents.discard(agent.agent_id)
        self.domain.remove_agent(agent.agent_id)
        self._settle()
        self._look_for_limbo()
        return None

    def set_presence(self, event: roster.PresenceSet) -> str | None:
        """An agent comes or goes. What they have accepted stays theirs; what they were only offered does not."""
        agent = self.domain.agents.get(event.agent_id)
        if agent is None:
            return "agent_unknown"
        if agent.presence == event.presence:
            return "presence_unchanged"
        agent.presence = event.presence
        agent.misses = 0
        self.domain.touch_agent(agent.agent_id)
        if agent.is_available:
            self._open_agents.add(agent.agent_id)
        else:
            self._return_offers(agent, "agent_away")
        self._settle()
        return None

    def _return_offers(self, agent: Agent, reason: wire.RequeueReason) -> None:
        for work in self.domain.held_by(agent.agent_id):
            if work.status == "offered":
                self._requeue(work, reason)

    # ----------------------------------------------------------------------------------------- offers

    def answer(self, event: roster.OfferAccepted | roster.OfferDeclined) -> str | None:
        """An agent takes an offer, or turns it down."""
        work = self.domain.live_work(event.ticket_id) or self.domain.ended_work(event.ticket_id)
        if work is None:
            return "ticket_unknown"
        verdict = offer.judge(work, event)
        if verdict.repeats:
            return "answer_repeated"
        if verdict.refusal is not None:
            self._tell_refused(work, event, verdict.refusal)
        elif isinstance(event, roster.OfferAccepted):
            self._accept(work)
        else:
            work.last_declined = event.reservation_id
            self._holder(work).misses = 0
            self._requeue(work, "offer_declined", is_decline=True)
            self._settle()
        return None

    def _accept(self, work: Work) -> None:
        agent = self._holder(work)
        self.domain.assign(work, agent)
        self._tell(
            wire.TicketAssigned,
            work,
            reservation_id=work.reservation_id,
            agent_id=agent.agent_id,
            queue=work.queue,
            assigned_at=self.now,
        )

    def _offer(self, work: Work) -> None:
        choice = matching.best_agents(self.domain, work, self.rules.max_declines)
        assert choice is not None, f"nobody is fit for {work.work_id}"
        record = explain.record(self.domain, work, choice, self.rules.max_declines)
        agent = self.domain.agents[choice.candidates[0]]
        self.domain.reserve(
            work,
            agent,
            offer.reservation_id(work.work_id, work.attempts + 1),
            self.now,
            self.now + timedelta(seconds=self.rules.seconds),
        )
        self._tell(
            wire.OfferMade,
            work,
            domain=self.domain.name,
            reservation_id=work.reservation_id,
            agent_id=agent.agent_id,
            queue=work.queue,
            offered_at=self.now,
            expires_at=work.expires_at,
            waited_seconds=max(0.0, (self.now - work.entered_at).total_seconds()),
            cost=work.cost,
            record=record,
        )

    def _requeue(self, work: Work, reason: wire.RequeueReason, *, is_decline: bool = False) -> None:
        agent = self._holder(work)
        if is_decline:
            refused = work.declines.get(agent.agent_id, 0) + 1
            work.declines = {**work.declines, agent.agent_id: refused}
        relaxed = self.domain.give_back(work, self.now)
        self._tell(
            wire.TicketRequeued,
            work,
            queue=work.queue,
            agent_id=agent.agent_id,
            reason=reason,
            at=self.now,
            declines=work.declines.get(agent.agent_id, 0),
        )
        self._tell_relaxed(work, relaxed)
        self._open_works.add(work.work_id)
        self._open_agents.add(agent.agent_id)
        self._look_for_exhaustion(work)

    def _holder(self, work: Work) -> Agent:
        assert work.agent_id is not None, f"{work.work_id} is {work.status} to nobody"
        return self.domain.agents[work.agent_id]

    # --------------------------------------------------------------------------------------- matching

    def _settle(self) -> None:
        """Match until nothing more is possible: always the first of all work that somebody can take now.

        A match only ever takes capacity away, so whoever finds nothing once need not look again.
        """
        while (key := self._first_match()) is not None:
            self._open_works.discard(key.work_id)
            self._offer(self.domain.works[key.work_id])

    def _first_match(self) -> WorkKey | None:
        best: WorkKey | None = None
        for work_id in sorted(self._open_works):
            work = self.domain.works[work_id]
            if work.status == "waiting" and self._is_takeable(work):
                best = work.key if best is None else min(best, work.key)
            else:
                self._open_works.discard(work_id)
        for agent_id in sorted(self._open_agents):
            agent = self.domain.agents[agent_id]
            key = matching.best_work(self.domain, agent, self.rules.max_declines)
            if key is None:
                self._open_agents.discard(agent_id)
            else:
                best = key if best is None else min(best, key)
        return best

    def _is_takeable(self, work: Work) -> bool:
        return any(
            matching.is_fit_now(self.domain.agents[agent_id], work, self.rules.max_declines)
            for agent_id in self.domain.bucket(work).eligible
        )

    # ------------------------------------------------------------------------------------------ limbo

    def _look_for_limbo(self) -> None:
        """After a change of the roster: name the work that nobody can ever take any more (or that
        somebody can again), and the work that all who are left have declined.
        """
        for key in self.domain.turned_buckets():
            self._tell_queued(self.domain.works[key.work_id])
        for work_id in sorted(self.domain.declined):
            self._look_for_exhaustion(self.domain.works[work_id])

    def _look_for_exhaustion(self, work: Work) -> None:
        pool = matching.could_ever(self.domain, work)
        limit = self.rules.max_declines
        is_over = bool(pool) and all(work.declines.get(agent_id, 0) >= limit for agent_id in pool)
        if is_over and not work.is_exhausted:
            work.is_exhausted = True
            self.domain.touch_work(work.work_id)
            self._tell(wire.AssignmentExhausted, work, queue=work.queue, at=self.now)

    # ------------------------------------------------------------------------------------------- tell

    def _tell(self, kind: type[wire.RoutingEvent], work: Work, **fields: object) -> None:
        told: Payload = kind.model_validate(
            {
                "ticket_id": work.ticket_id,
                "conversation_id": work.conversation_id,
                "work_id": work.work_id,
                **fields,
            }
        )
        assert isinstance(told, wire.RoutingEvent)
        self.events.append(told)

    def _tell_queued(self, work: Work) -> None:
        is_matchable = bool(matching.could_ever(self.domain, work))
        if work.is_told_unmatchable == is_matchable:
            work.is_told_unmatchable = not is_matchable
            self.domain.touch_work(work.work_id)
        record = explain.record(self.domain, work, None, self.rules.max_declines)
        self._tell(
            wire.TicketQueued,
            work,
            queue=work.queue,
            at=self.now,
            is_matchable=is_matchable,
            record=record,
        )

    def _tell_relaxed(self, work: Work, relaxed: tuple[str, ...]) -> None:
        if relaxed:
            self._tell(
                wire.RequirementRelaxed, work, queue=work.queue, relaxed=relaxed, at=self.now
            )

    def _tell_refused(
        self, work: Work, event: roster.OfferAccepted | roster.OfferDeclined, reason: offer.Refusal
    ) -> None:
        winner = work.agent_id if work.status == "assigned" else None
        self._tell(
            wire.OfferAnswerRefused,
            work,
            agent_id=event.agent_id,
            reservation_id=event.reservation_id,
            reason=reason,
            at=self.now,
            winner_id=winner,
        )
