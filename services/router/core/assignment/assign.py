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

from msgspec import Struct, structs

from schemas import roster
from schemas import routing as wire
from schemas.payload import trusted
from services.router.core.assignment import (
    explain,
    matching,
    offer,
    transfer,
)
from services.router.core.assignment.bits import members, without
from services.router.core.assignment.capacity import NEVER, Agent
from services.router.core.assignment.domain import Domain, Due, Lease, Opening, Work, WorkKey
from services.router.core.assignment.matching import Choice
from services.router.core.assignment.requirement import from_wire, relaxed_at, steps_done
from services.router.core.assignment.terms import Guard, Terms

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
        case roster.AgentHeartbeat():
            ignored = turn.hear(event)
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
            domain.take_up(self.terms, self.now)
            self._ask_as_now()
            domain.is_settled, domain.openings = False, None
            for agent in domain.off_their_hours():
                self._turn_shift(agent)
            self._review_holds_and_drain()
            self._look_for_limbo()
        if not domain.is_settled or domain.see_risks(self.now):
            self._settle()

    def _ask_as_now(self) -> None:
        """Where the policy says so, let work ask what its rule asks now; what left the rule's queue asks what it did."""
        if not self.terms.asks:
            return
        for work in list(self.domain.works.values()):
            ask = self.terms.asks.get(work.rule)
            if ask is None or ask.queue != work.queue or work.status == "ended":
                continue
            asked = ask.requirement
            if asked.language is not None and work.requirement.language is not None:
                asked = structs.replace(asked, language=work.requirement.language)
            if asked != work.requirement:
                self.domain.ask_anew(work, asked, self.terms.version, self.now)

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
        domain = self.domain
        match due.kind:
            case "offer":
                self._miss(domain.works[due.name])
            case "wrap_up":
                self._open(domain.end_wrap_up(domain.works[due.name]))
            case "waiting":
                return self._wait_on(domain.works[due.name])
            case "shift":
                self._turn_shift(domain.agents[due.name])
            case "silence":
                self._vanish(domain.agents[due.name], due.at)
            case "return":
                for work in domain.held_by(due.name):
                    self._requeue(work, "agent_vanished")
        return True

    def _turn_shift(self, agent: Agent) -> None:
        """Hold the clock against someone's times of duty. As they end, offers return and what was accepted stays."""
        if not self.domain.look_at_shift(agent, self.now):
            return
        if agent.is_available:
            self._open_agents.add(agent.agent_id)
        else:
            self._return_offers(agent, "shift_ended")
            self._review_agent(agent.agent_id)

    def _vanish(self, agent: Agent, since: datetime) -> None:
        """Somebody's program has fallen silent: they are away until it is heard again.

        Where that is seen a whole period late, it was not they who were silent but this domain that did not listen.
        """
        period = self.terms.heartbeat
        if period is None or self.now - since >= timedelta(seconds=period):
            self.domain.hear(agent, self.now)
            return
        agent.presence, agent.vanished_at, agent.beats = "away", self.now, False
        self.domain.show_agent(agent)
        self._return_offers(agent, "agent_vanished")
        self._review_agent(agent.agent_id)
        self.domain.expect_return(agent)

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
        """Nobody who was asked has answered in time."""
        for lease in work.leases:
            agent = self.domain.agents[lease.agent_id]
            agent.misses += 1
            limit = self.terms.away_after_misses
            is_away = limit is not None and agent.misses >= limit
            if is_away:
                agent.presence = "away"
                self.domain.show_agent(agent)
            self._take_back(work, agent, "offer_expired", is_decline=True)
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
        preferred, hold, known_from = self._preferred(event)
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
            preferred_agent_id=preferred,
            excluded=event.excluded_agent_ids,
            rule=event.rule,
            policy_version=event.policy_version,
            relaxed=relaxed,
            channel=event.channel,
            due_at=event.due_at,
            hold_until=since + timedelta(seconds=hold) if hold else None,
            step=step,
            is_untold=True,
            customer_id=event.customer_id,
            known_from=known_from,
        )
        self.domain.add(work, self.now)
        if not (event.transfer and self._transfer(work, is_forced=event.transfer == "forced")):
            self._open_works.add(work.work_id)
        self._settle()
        return None

    def _preferred(self, event: wire.WorkRequested) -> tuple[str | None, float | None, str]:
        """Return who is asked first, for how many seconds alone, and who says so: the request, or memory."""
        if event.preferred_agent_id is not None:
            return event.preferred_agent_id, event.hold_seconds, "request"
        if event.customer_id is None or not event.known_patience_seconds:
            return None, None, ""
        known = self.domain.known_agent(event.customer_id, self.now)
        if known is None:
            return None, None, ""
        age = max(0.0, (self.now - known.at).total_seconds())
        patience = event.known_patience_seconds
        return known.agent_id, faded(patience, age, event.known_half_life_seconds), "customer"

    def _transfer(self, work: Work, *, is_forced: bool) -> bool:
        """Give work to whom it was transferred; return whether it is theirs, which is told if not."""
        agent_id = work.preferred_agent_id or transfer.NOBODY
        rules = explain.rules_against(self.domain, work, agent_id, self.terms.max_declines)
        against = transfer.judge(rules, is_forced=is_forced)
        if against:
            self._tell(
                wire.TransferRefused,
                work,
                queue=work.queue,
                agent_id=agent_id,
                reason=against[0],
                rules=against,
                at=self.now,
            )
            return False
        is_overfull = any(rule in transfer.ROOM for rule in rules)
        record = explain.record(
            self.domain, work, Choice((agent_id,), "transfer"), self.terms.max_declines
        )
        agent = self.domain.agents[agent_id]
        work.is_overfull = is_overfull
        self._reserve(work, agent, record, by_force=is_overfull)
        self._assign(work, agent, "forced" if is_forced else "direct")
        return True

    def _reprioritise(self, work: Work, event: wire.WorkRequested) -> str | None:
        due_at = event.due_at if event.due_at is not None else work.due_at
        if (work.priority, work.due_at) == (event.priority, due_at):
            return "work_repeated"
        # Nobody could take it at its old place, so nobody can at the new one: there is nothing to match.
        self.domain.reprioritise(work, event.priority, due_at)
        if work.queue in self.terms.guards:
            self._settle()  # Its queue may lend now, or not any more.
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
        agent_id, others = work.agent_id, work.others
        self._stop_draining_for(work)
        self.domain.end(work, self.now)
        if agent_id is not None:
            self._open_agents.add(agent_id)
        for lease in others:
            self._open_agents.add(lease.agent_id)
            self._tell_withdrawn(work, lease, "work_ended")
        self._tell(wire.WorkReleased, work, agent_id=agent_id, reason=reason, at=self.now)

    # ----------------------------------------------------------------------------------------- roster

    def set_agent(self, event: roster.AgentSet) -> str | None:
        """An agent is new, or can do other things than before."""
        agent = self.domain.agents.get(event.agent_id)
        if agent is None:
            agent = Agent(event.agent_id)
        elif agent.is_as(event):
            return "agent_unchanged"
        agent.keep_hours(event)
        is_new = agent.place < 0
        if not is_new:
            self._turn_shift(agent)
        agent.become(event)
        self.domain.set_agent(agent)
        if is_new:
            self._turn_shift(agent)
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
            self._take_back(work, agent, "agent_removed")
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
        if agent.presence == event.presence and agent.vanished_at is None:
            self.domain.hear(agent, self.now)
            return "presence_unchanged"
        agent.presence, agent.vanished_at = event.presence, None
        if event.presence == "offline":
            agent.beats = False
        agent.misses = 0
        self.domain.show_agent(agent)
        self.domain.hear(agent, self.now)
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
                self._take_back(work, agent, reason)

    def hear(self, event: roster.AgentHeartbeat) -> str | None:
        """An agent's program says that it is there. It changes next to nothing, and so costs next to nothing."""
        agent = self.domain.agents.get(event.agent_id)
        if agent is None:
            return "agent_unknown"
        if self.terms.heartbeat is None:
            return "heartbeats_unused"
        if agent.presence == "offline":
            return "agent_offline"
        if not agent.beats:
            agent.beats = True
            self.domain.touch_agent(agent.agent_id)
        self._heard(agent)
        return None

    def _heard(self, agent: Agent) -> None:
        """Somebody gave a sign of life: whoever had vanished is back, as they were before."""
        if agent.vanished_at is not None:
            agent.presence, agent.vanished_at, agent.misses = "available", None, 0
            self.domain.show_agent(agent)
            self._open_agents.add(agent.agent_id)
            self._settle()
        self.domain.hear(agent, self.now)

    # ----------------------------------------------------------------------------------------- offers

    def answer(self, event: roster.OfferAccepted | roster.OfferDeclined) -> str | None:
        """An agent takes an offer, or turns it down."""
        work = self.domain.live_work(event.ticket_id) or self.domain.ended_work(event.ticket_id)
        if work is None:
            return "ticket_unknown"
        agent = self.domain.agents.get(event.agent_id)
        if agent is not None and self.terms.heartbeat is not None:
            self._heard(agent)
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
            is_shared = bool(work.others)
            self._assign(work, self.domain.agents[event.agent_id], "accepted")
            if is_shared:
                self._settle()
        else:
            work.last_declined = event.reservation_id
            agent = self.domain.agents[event.agent_id]
            agent.misses = 0
            self._take_back(work, agent, "offer_declined", is_decline=True)
            self._settle()
        return None

    def _assign(self, work: Work, agent: Agent, how: wire.AssignedHow) -> None:
        """The work is an agent's from now on; whoever was asked as well is told that it is not theirs."""
        leases = work.leases if work.others else ()
        losers = [lease for lease in leases if lease.agent_id != agent.agent_id]
        self.domain.assign(work, agent, self.now)
        self.domain.remember(work, self.now)
        self._tell(
            wire.TicketAssigned,
            work,
            reservation_id=work.reservation_id,
            agent_id=agent.agent_id,
            queue=work.queue,
            assigned_at=self.now,
            how=how,
            overfull=work.is_overfull,
        )
        for lease in losers:
            self._open_agents.add(lease.agent_id)
            self._tell_withdrawn(work, lease, "taken_by_other")

    def _offer(self, work: Work) -> None:
        choice = matching.best_agents(self.domain, work, self.terms)
        assert choice is not None, f"nobody is fit for {work.work_id}"
        record = explain.record(self.domain, work, choice, self.terms.max_declines)
        first, *others = self._asked(work, choice)
        self._reserve(work, first, record)
        for agent in others:
            name = offer.reservation_id(work.work_id, work.attempts + 1)
            self.domain.reserve_also(work, agent, name, self.now)
            self._tell_offer(work, Lease(agent.agent_id, name), record)
        if first.auto_accept or work.queue in self.terms.auto_accept:
            self._assign(work, first, "auto")

    def _asked(self, work: Work, choice: Choice) -> list[Agent]:
        """Return whom to ask at once. Whoever is known to the customer, and whoever takes what comes, is asked alone."""
        agents = [self.domain.agents[name] for name in choice.candidates]
        n = self.terms.parallel.get(work.queue, 1)
        if (
            n == 1
            or choice.chosen_by == "preferred"
            or agents[0].auto_accept
            or work.queue in self.terms.auto_accept
        ):
            return agents[:1]
        return [agents[0], *(agent for agent in agents[1:n] if not agent.auto_accept)]

    def _reserve(
        self, work: Work, agent: Agent, record: wire.DecisionRecord, *, by_force: bool = False
    ) -> None:
        name = offer.reservation_id(work.work_id, work.attempts + 1)
        self._stop_draining_for(work)
        self.domain.reserve(
            work,
            agent,
            name,
            self.now,
            self.now + timedelta(seconds=self.terms.offer_seconds),
            by_force=by_force,
        )
        self._tell_offer(work, Lease(agent.agent_id, name), record)

    def _tell_offer(self, work: Work, lease: Lease, record: wire.DecisionRecord) -> None:
        self._tell(
            wire.OfferMade,
            work,
            domain=self.domain.name,
            reservation_id=lease.reservation_id,
            agent_id=lease.agent_id,
            queue=work.queue,
            offered_at=self.now,
            expires_at=work.expires_at,
            waited_seconds=max(0.0, (self.now - work.entered_at).total_seconds()),
            cost=work.cost,
            record=record,
        )

    def _take_back(
        self, work: Work, agent: Agent, reason: wire.RequeueReason, *, is_decline: bool = False
    ) -> None:
        """An agent does not have the work any more; where nobody else is asked, it waits again."""
        if not work.others:
            self._requeue(work, reason, is_decline=is_decline)
            return
        lease = next(lease for lease in work.leases if lease.agent_id == agent.agent_id)
        if is_decline:
            self._count_decline(work, agent)
        self.domain.withdraw_lease(work, agent)
        self._open_agents.add(agent.agent_id)
        self._tell_withdrawn(work, lease, reason)

    def _count_decline(self, work: Work, agent: Agent) -> None:
        refused = work.declines.get(agent.agent_id, 0) + 1
        work.declines = {**work.declines, agent.agent_id: refused}

    def _requeue(self, work: Work, reason: wire.RequeueReason, *, is_decline: bool = False) -> None:
        agent = self._holder(work)
        if is_decline:
            self._count_decline(work, agent)
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
                was_guarding = queue in domain.switches.guarding
                self._turn_guard(queue, guard, n)
                if was_guarding and queue not in domain.switches.guarding:
                    self._open_agents.update(
                        domain.people.at(place).agent_id
                        for place in members(domain.people.serving.get(queue, 0))
                    )
                    is_more = True
            if queue in domain.switches.overloaded and n < terms.overload[queue].clear_below:
                domain.switch(queue, overloaded=False)
        domain.recounted.clear()
        return is_more

    def _turn_guard(self, queue: str, guard: Guard, n: int) -> None:
        """Hold a queue's length, and the nearest of its targets, against its guard."""
        domain = self.domain
        if guard.on_at is not None:
            is_on = queue in domain.switches.crowded
            if is_on and n <= guard.off_at:
                domain.switch(queue, crowded=False)
            elif not is_on and n >= guard.on_at:
                domain.switch(queue, crowded=True)
        if guard.risk is not None:
            target = domain.targets.nearest(queue)
            left = (target - self.now).total_seconds() if target is not None else None
            is_on = queue in domain.switches.at_risk
            if is_on and (left is None or left > guard.clear):
                domain.switch(queue, at_risk=False)
                domain.targets.expect(queue)
            elif not is_on and left is not None and left <= guard.risk:
                domain.switch(queue, at_risk=True)

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

    def _review_agent(self, agent_id: str, at: datetime | None = None) -> None:
        """After a change of an agent: end the holds for them, and their being kept free, where these no longer stand.

        `at` is the instant that holds are held against, if not this one.
        """
        domain = self.domain
        for work_id in sorted(domain.holds.get(agent_id, ())):
            work = domain.works[work_id]
            if not domain.hold_stands(work, at if at is not None else self.now):
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
        # Holds that are over fall due, and what else falls due with them is then done with them.
        for agent_id in sorted(self.domain.holds):
            self._review_agent(agent_id, NEVER)
        self._review_drain()

    # ------------------------------------------------------------------------------------------ limbo

    def _look_for_limbo(self) -> None:
        """After a change of the roster: name the work that nobody can ever take any more (or that
        somebody can again), and the work that all who are left have declined.
        """
        for key in self.domain.turned_works():
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
        fields["ticket_id"] = work.ticket_id
        fields["conversation_id"] = work.conversation_id
        fields["work_id"] = work.work_id
        self.events.append(trusted(kind, fields))

    def _tell_untold(self) -> None:
        if not self.domain.untold:
            return
        new = sorted(map(self.domain.works.__getitem__, self.domain.untold), key=_key_of)
        self.domain.untold.clear()
        for work in new:
            work.is_untold = False
            self.domain.touch_work(work.work_id)
            self._tell_queued(work)
        if self.terms.overload:
            self._tell_overloads(new)

    def _tell_overloads(self, new: list[Work]) -> None:
        """Tell each ticket that came to a queue which is too long; those that waited there before are left alone.

        The first is the one that makes it too long. While it stays so the ones after it are told too, but not the one that
        brings it back to the same length: a length that goes up and down by one says it once.
        """
        domain = self.domain
        counted = [
            work
            for work in new
            if work.queue in self.terms.overload and not domain.bucket(work).is_hopeless
        ]
        lengths = {work.queue: domain.n_matchable[work.queue] for work in counted}
        for work in counted:
            lengths[work.queue] -= 1
        for work in counted:
            lengths[work.queue] += 1
            length, at = lengths[work.queue], self.terms.overload[work.queue].at
            is_first = work.queue not in domain.switches.overloaded and length > at
            if is_first:
                domain.switch(work.queue, overloaded=True)
            if is_first or length > at + 1:
                self._tell(
                    wire.QueueOverloaded,
                    work,
                    queue=work.queue,
                    length=length,
                    threshold=at,
                    at=self.now,
                )

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
        is_won = work.status == "assigned"
        self._tell(
            wire.OfferAnswerRefused,
            work,
            agent_id=event.agent_id,
            reservation_id=event.reservation_id,
            reason=reason,
            at=self.now,
            winner_id=work.agent_id if is_won else None,
            winner_at=work.assigned_at if is_won else None,
        )

    def _tell_withdrawn(self, work: Work, lease: Lease, reason: wire.WithdrawReason) -> None:
        self._tell(
            wire.OfferWithdrawn,
            work,
            queue=work.queue,
            agent_id=lease.agent_id,
            reservation_id=lease.reservation_id,
            reason=reason,
            at=self.now,
            declines=work.declines.get(lease.agent_id, 0),
        )


def faded(patience: float, age: float, half_life: float) -> float:
    """Return for how many seconds someone is waited for who had the customer `age` seconds ago, to the millisecond.

    Half as long for each `half_life` seconds since then (0: it does not fade), and never less than one second.
    """
    left = patience * 1000 * (0.5 ** (age / half_life) if half_life else 1.0)
    return max(1000, round(left)) / 1000


def _key_of(work: Work) -> WorkKey:
    return work.key
