"""What happens to a routing domain: work that comes and goes, agents who change, offers and their answers, time.

`decide` first does everything that fell due before the event, each thing in its order, then the event. After each of
them it matches what may have become possible: work that newly waits, agents who newly have room. Everybody else had
nothing to take before and has nothing now, so after every step no waiting work has an agent who could take it. Where
the terms are not those of the turn before (or that turn is not remembered), everybody is looked at once.

A mass event is cut into slices: after `MATCHES_MAX` offers or `DUE_SLICE` things due a decision ends, the domain asks to be
woken at once, and the next one goes on. The order of offers is the same as if it had been done in one go.
"""

from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import NamedTuple

from msgspec import Struct

from schemas import roster
from schemas import routing as wire
from schemas.payload import Payload
from services.router.core import explain, matching, offer
from services.router.core.bits import members, without
from services.router.core.capacity import Agent
from services.router.core.domain import Domain, Due, Opening, Work, WorkKey
from services.router.core.requirement import from_wire, relaxed_at, steps_done
from services.router.core.terms import Terms

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
"""Things due that are handled in one decision, such as ends of offers and relaxations that say something."""

SILENT = 0.2
"""What a thing due that says nothing counts, such as a promotion."""

MATCHES_MAX = 25
"""Offers made in one decision."""

LOOKS_MAX = 1_500
"""Buckets, agents and works looked at in one decision for what may be possible."""

SWEEP_ABOVE = 24
"""Where more agents than this may have something to take, the buckets are gone through instead of the agents."""


def decide(domain: Domain, event: Event, now: datetime, terms: Terms) -> Decision:
    """Apply one event to a domain, in place."""
    turn = _Turn(domain, now, terms)
    turn.go_on()
    turn.do_what_is_due()
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

    def __init__(self, domain: Domain, now: datetime, terms: Terms) -> None:
        self.domain = domain
        self.now = now
        self.terms = terms
        self.events: list[wire.RoutingEvent] = []
        self._open_works: set[str] = set()
        self._open_agents: set[str] = set()
        self._open_buckets: set[int] = set()
        self._matches_left = MATCHES_MAX
        self._looks_left = LOOKS_MAX
        domain.stamp += 1

    # -------------------------------------------------------------------------------------------- due

    def go_on(self) -> None:
        """Match all over again where the terms have changed, and go on with what the last decision left.

        What was declined too often may not be any more, and a domain that was just read does not know what it left.
        """
        domain = self.domain
        if domain.terms is not self.terms and domain.terms != self.terms:
            domain.take_up(self.terms)
            domain.is_settled, domain.openings = False, None
            self._review_holds_and_drain()
            self._look_for_limbo()
        if not domain.is_settled:
            self._settle()

    def do_what_is_due(self) -> None:
        """End the offers and relax the requirements whose time is over, in order, matching after each.

        At most `DUE_SLICE` of them: where thousands are due at one instant, the timer that is set again at once does the
        next slice, and the loop has turned between. Promotions say nothing and count less.
        """
        n = 0.0
        while n < DUE_SLICE and self.domain.is_settled:
            due = self.domain.pop_due(self.now)
            if due is None:
                return
            n += 1 if self._do(due) else SILENT
            self._settle()

    def _do(self, due: Due) -> bool:
        """Do what is due; return whether it was more than a new place in the order."""
        work = self.domain.works[due.work_id]
        match due.kind:
            case "offer":
                self._miss(work)
                return True
            case "wrap_up":
                self._open(self.domain.end_wrap_up(work))
                return True
            case "waiting":
                return self._wait_on(work)

    def _wait_on(self, work: Work) -> bool:
        domain = self.domain
        before = (work.step, work.effective, work.hold_until)
        self._tell_relaxed(work, domain.relax(work, self.now))
        if work.hold_until is not None and work.hold_until <= self.now:
            domain.end_hold(work)
        is_promoted, is_ripe = domain.is_due_for(work, self.now)
        if is_promoted:
            domain.promote(work)
        if is_ripe:
            domain.ripen(work)
        if before == (work.step, work.effective, work.hold_until):
            domain.expect(work)
            return False
        domain.touch_work(work.work_id)
        domain.expect(work)
        self._open_works.add(work.work_id)
        return True

    def _miss(self, work: Work) -> None:
        agent = self._holder(work)
        agent.misses += 1
        limit = self.terms.away_after_misses
        is_away = limit is not None and agent.misses >= limit
        if is_away:
            agent.presence = "away"
            self.domain.show_agent(agent)
        self._requeue(work, "offer_expired", is_decline=True)
        if is_away or not agent.is_available:
            self._return_offers(agent, "agent_away")
            self._review_agent(agent.agent_id)

    # ------------------------------------------------------------------------------------------- work

    def request(self, event: wire.WorkRequested) -> str | None:
        """A ticket needs a person, or the one that it asked for is needed more urgently."""
        work = self.domain.live_work(event.ticket_id)
        if work is not None and work.work_id == event.work_id:
            return self._reprioritise(work, event)
        if event.work_id in self.domain.works:
            return "work_ended"
        if work is not None:
            self._end(work, "replaced")
        asked = from_wire(event.requirement)
        since = event.relax_from or event.entered_at
        step = steps_done(asked, since, event.due_at, self.now)
        effective, relaxed = relaxed_at(asked, since, self.now, step)
        hold = event.hold_seconds if event.preferred_agent_id is not None else None
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
            channel=event.channel,
            due_at=event.due_at,
            hold_until=since + timedelta(seconds=hold) if hold else None,
            step=step,
            is_untold=True,
        )
        self.domain.add(work, self.now)
        self._open_works.add(work.work_id)
        self._settle()
        return None

    def _reprioritise(self, work: Work, event: wire.WorkRequested) -> str | None:
        due_at = event.due_at if event.due_at is not None else work.due_at
        if (work.priority, work.due_at) == (event.priority, due_at):
            return "work_repeated"
        # Nobody could take it at its old place, so nobody can at the new one: there is nothing to match.
        self.domain.reprioritise(work, event.priority, due_at)
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
        self._stop_draining_for(work)
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
        self._review_agent(agent.agent_id)
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
        self.domain.show_agent(agent)
        self._review_agent(agent.agent_id)
        for work in self.domain.held_by(agent.agent_id):
            self._requeue(work, "agent_removed")
        for work in self.domain.wraps_of(agent.agent_id):
            self.domain.end_wrap_up(work)
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
        self.domain.show_agent(agent)
        if agent.is_available:
            self._open_agents.add(agent.agent_id)
        else:
            self._return_offers(agent, "agent_away")
            self._review_agent(agent.agent_id)
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
        if work.status == "offered" and work.expires_at is not None and work.expires_at <= self.now:
            # It ran out, and a mass of things due kept it from being told so far.
            self._miss(work)
            self._settle()
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
        choice = matching.best_agents(self.domain, work, self.terms)
        assert choice is not None, f"nobody is fit for {work.work_id}"
        record = explain.record(self.domain, work, choice, self.terms.max_declines)
        agent = self.domain.agents[choice.candidates[0]]
        self._stop_draining_for(work)
        self.domain.reserve(
            work,
            agent,
            offer.reservation_id(work.work_id, work.attempts + 1),
            self.now,
            self.now + timedelta(seconds=self.terms.offer_seconds),
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
        relaxed = self.domain.give_back(work, self.now, is_missed=is_decline)
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

        A match only ever takes capacity away, so whoever finds nothing once need not look again. What has to wait is
        counted afterwards, so that a ticket that is taken at once opens no threshold; a threshold that is passed may
        make more possible.
        """
        domain = self.domain
        while True:
            is_done = self._match()
            domain.is_settled = is_done
            domain.unsettled_at = None if is_done else self.now
            if not is_done:
                return
            if not self._turn_switches():
                break
        self._keep_someone_free()
        self._tell_untold()

    def _match(self) -> bool:
        """Match what may have become possible, the first of all work first; return whether all of it was done.

        Each source, a work, a bucket or an agent, stands in a heap with the first work that it may make possible. A work
        found there is looked at again before it is offered, since others may have been offered meanwhile.
        """
        domain = self.domain
        heap = self._openings()
        while True:
            for agent_id in self._open_agents:
                self._push(heap, 2, agent_id, 0)
            self._open_agents.clear()
            if not heap:
                break
            if not self._matches_left or not self._looks_left:
                domain.openings = heap
                return False
            self._looks_left -= 1
            key, source, name, number, stamp = heappop(heap)
            # Nothing was offered since it was looked at, so it is still true.
            first = key if stamp == domain.stamp else self._best_of(source, name, number)
            if first == key:
                self._matches_left -= 1
                domain.stamp += 1
                self._offer(domain.works[key.work_id])
                if source:
                    self._push(heap, source, name, number)
            elif first is not None:
                heappush(heap, (first, source, name, number, domain.stamp))
        domain.openings = None
        return True

    def _openings(self) -> list[Opening]:
        domain = self.domain
        n_open = len(self._open_agents) + len(self._open_buckets)
        heap = domain.openings
        if (heap is None and not domain.is_settled) or n_open > SWEEP_ABOVE:
            # All of them would see the same head first and all but one in vain, so every bucket is looked at once. The heads
            # are in order, which makes a heap of them.
            self._open_agents.clear()
            heap = [(WorkKey._make(entry.key), 1, "", entry.member, -1) for entry in domain.heads]
        else:
            heap = heap if heap is not None else []
            for work_id in self._open_works:
                self._push(heap, 0, work_id, 0)
            for number in self._open_buckets:
                self._push(heap, 1, "", number)
        self._open_works.clear()
        self._open_buckets.clear()
        return heap

    def _push(self, heap: list[Opening], source: int, name: str, number: int) -> None:
        key = self._best_of(source, name, number)
        if key is not None:
            heappush(heap, (key, source, name, number, self.domain.stamp))

    def _best_of(self, source: int, name: str, number: int) -> WorkKey | None:
        """Return the first work that a changed work, bucket or agent makes possible now."""
        domain, max_declines = self.domain, self.terms.max_declines
        match source:
            case 0:
                work = domain.works.get(name)
                if work is None or work.status != "waiting":
                    return None
                found = matching.takers(domain, work, domain.bucket(work), max_declines)
                return work.key if found.places else None
            case 1:
                return matching.first_takeable(domain, domain.bucket_at(number), max_declines)
            case _:
                agent = domain.agents.get(name)
                if agent is None:
                    return None
                return matching.best_work(domain, agent, max_declines)

    # ------------------------------------------------------------------------------ spilling, draining

    def _turn_switches(self) -> bool:
        """Hold the queues' lengths against their thresholds; return whether that may make anything possible."""
        domain, terms = self.domain, self.terms
        is_more = False
        for queue in sorted(domain.recounted):
            n = domain.n_matchable.get(queue, 0)
            lending, guard = terms.lending.get(queue), terms.guards.get(queue)
            if lending is not None:
                is_on = queue in domain.switches.spilling
                if is_on and n <= lending.close_at:
                    domain.switch(queue, spilling=False)
                elif not is_on and n >= lending.open_at:
                    domain.switch(queue, spilling=True)
                    self._open_buckets.update(domain.own_buckets(queue))
                    is_more = True
            if guard is not None:
                is_on = queue in domain.switches.guarding
                if is_on and n <= guard.off_at:
                    domain.switch(queue, guarding=False)
                    self._open_agents.update(
                        domain.people.at(place).agent_id
                        for place in members(domain.people.serving.get(queue, 0))
                    )
                    is_more = True
                elif not is_on and n >= guard.on_at:
                    domain.switch(queue, guarding=True)
        domain.recounted.clear()
        return is_more

    def _keep_someone_free(self) -> None:
        """Where a big ticket has waited long and nobody is kept free, keep the least loaded of those who could take it."""
        domain = self.domain
        if self.terms.drain is None or domain.drain is not None or not domain.may_keep:
            return
        domain.may_keep = False
        vain: set[int] = set()
        for key in domain.ripe:
            work = domain.works[key.work_id]
            bucket = domain.bucket(work)
            if bucket.number in vain or bucket.held_for is not None:
                continue
            agent = matching.emptiest(domain, work, bucket, self.terms.max_declines)
            if agent is not None:
                domain.keep_free(work, agent)
                return
            if not work.has_bars:
                vain.add(bucket.number)

    def _stop_draining_for(self, work: Work) -> None:
        if self.domain.drain == work.work_id:
            self._open(self.domain.stop_draining())

    def _open(self, agent: Agent | None) -> None:
        if agent is not None:
            self._open_agents.add(agent.agent_id)

    def _review_agent(self, agent_id: str) -> None:
        """After a change of an agent: end the holds for them, and their being kept free, where these no longer stand."""
        domain = self.domain
        for work_id in sorted(domain.holds.get(agent_id, ())):
            work = domain.works[work_id]
            if not domain.hold_stands(work, self.now):
                domain.end_hold(work)
                self._open_works.add(work_id)
        self._review_drain()

    def _review_drain(self) -> None:
        domain = self.domain
        if domain.drain is None:
            return
        work = domain.works[domain.drain]
        keeper = domain.agents.get(work.kept_free or "")
        if (
            keeper is None
            or self.terms.drain is None
            or not matching.may_be_kept(domain, work, keeper, self.terms.max_declines)
        ):
            self._open(domain.stop_draining())

    def _review_holds_and_drain(self) -> None:
        for agent_id in sorted(self.domain.holds):
            self._review_agent(agent_id)
        self._review_drain()

    # ------------------------------------------------------------------------------------------ limbo

    def _look_for_limbo(self) -> None:
        """After a change of the roster: name the work that nobody can ever take any more (or that
        somebody can again), and the work that all who are left have declined.
        """
        for key in self.domain.turned_buckets():
            self._tell_queued(self.domain.works[key.work_id])
        for work in self.domain.thinned_works():
            self._look_for_exhaustion(work)

    def _look_for_exhaustion(self, work: Work) -> None:
        if work.is_exhausted:
            return
        pool = matching.could_ever(self.domain, work)
        limit = self.terms.max_declines
        if pool and not without(pool, matching.barred(self.domain, work, limit)):
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

    def _tell_untold(self) -> None:
        if not self.domain.untold:
            return
        for work in sorted(map(self.domain.works.__getitem__, self.domain.untold), key=_key_of):
            work.is_untold = False
            self.domain.touch_work(work.work_id)
            self._tell_queued(work)
        self.domain.untold.clear()

    def _tell_queued(self, work: Work) -> None:
        is_matchable = bool(matching.could_ever(self.domain, work))
        if work.is_told_unmatchable == is_matchable:
            work.is_told_unmatchable = not is_matchable
            self.domain.touch_work(work.work_id)
        record = explain.record(self.domain, work, None, self.terms.max_declines)
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


def _key_of(work: Work) -> WorkKey:
    return work.key
