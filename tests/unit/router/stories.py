"""Small worlds to tell the router's stories in: a conversation, a routing domain, and a clock that reads as it is written."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
import yaml
from msgspec import structs

from chassis.policy import parse
from schemas import commands, messages, roster, routing, sla
from schemas.payload import Payload
from services.router.core.assignment import assign
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.domain import Domain, Known, Switches, Work
from services.router.core.assignment.terms import Terms
from services.router.core.policy.policy import Policy, build, terms
from services.router.core.policy.policy_model import (
    AGENTS_FILE,
    ROUTING_FILE,
    AgentsModel,
    AssignmentModel,
    OffersModel,
    RoutingModel,
)
from services.router.core.tickets import decide
from services.router.core.tickets.state import Conversation, Ticket

P = TypeVar("P", bound=Payload)
FOLDER = Path("policy")
CONVERSATION = "c1"

ROUTING_YAML = """
default_language: en
languages: [en, tr, ru]
domains: {main: {}}
queues:
  service: {desk: service}
  technical: {desk: technical}
  labs: {desk: technical}
skills: [orders, api]
costs: {default: 10, chat: 20}
offers: {seconds: 30, max_declines: 3, away_after_misses: 2}
relaxation: {skill_seconds: {orders: 60}}
rules:
  - name: API
    when: {words: [api]}
    then: {queue: technical, priority: 2, sla_policy: urgent, skills: {api: {level: 4, required: true}}}
  - name: everything else
    then: {queue: service, skills: {orders: {level: 2}}}
escalation:
  to_queue: technical
  required_facts: [tried, impact]
  raise_priority_to: 2
  on_risk: {first_response: {raise_priority_to: 2}}
  on_breach: {first_response: {raise_priority_to: 1}, resolution: {escalate: true}}
  on_exhausted: true
reopen: {window_hours: 72}
"""

AGENTS_YAML = """
agents:
  ada: {name: Ada, queues: [service], skills: {orders: 6}, languages: {en: 9, tr: 5, ru: 5}, capacity: 100}
  nils: {queues: [technical, labs], skills: {api: 9}, languages: {en: 9, tr: 5, ru: 5}, capacity: 100}
"""


def at(text: str) -> datetime:
    """`at("09:00")` is that time on Tuesday, 24 November 2026, in UTC; a date may stand before it."""
    return datetime.fromisoformat((text if "T" in text else f"2026-11-24T{text}") + "+00:00")


def read_policy(routing_yaml: str = ROUTING_YAML, agents_yaml: str | None = AGENTS_YAML) -> Policy:
    return build(parsed(routing_yaml, agents_yaml), FOLDER, "v1")


def parsed(
    routing_yaml: str = ROUTING_YAML, agents_yaml: str | None = AGENTS_YAML
) -> dict[str, Any]:
    files: dict[str, Any] = {
        ROUTING_FILE: parse(ROUTING_FILE, yaml.safe_load(routing_yaml), RoutingModel)
    }
    if agents_yaml is not None:
        files[AGENTS_FILE] = parse(AGENTS_FILE, yaml.safe_load(agents_yaml), AgentsModel)
    return files


POLICY = read_policy()


def message(
    message_id: str = "m1",
    *,
    conversation_id: str = CONVERSATION,
    suspicion: str | None = None,
    verified: bool = False,
    **content: Any,
) -> messages.MessageReceived:
    written = messages.MessageReceived.EXAMPLE["content"] | {"vendor_message_id": f"<{message_id}>"}
    return messages.MessageReceived.model_validate(
        {
            "message_id": message_id,
            "conversation_id": conversation_id,
            "customer_id": "k1",
            "input_id": f"in-{message_id}",
            "content": written | content,
            "suspicion": suspicion,
            "verified": verified,
        }
    )


class Case:
    """A conversation that is told events one after the other; `told` is what the last one made it tell."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.state: Conversation | None = None
        self.told: tuple[Payload, ...] = ()
        self.everything: list[Payload] = []
        self.last = decide.Decision(None)
        self._commands = 0

    def hears(self, event: decide.Event, now: str) -> Self:
        if self.state is not None:
            copy = msgspec.json.decode(msgspec.json.encode(self.state), type=Conversation)
            assert copy == self.state
        again = decide.decide(self.state, event, at(now), self.policy, at(now))
        self.last = decide.decide(self.state, event, at(now), self.policy, at(now))
        assert self.last == again
        self.state, self.told = self.last.state, self.last.events
        self.everything.extend(self.told)
        return self

    def commands(
        self, kind: type[commands.Command], now: str, agent: str = "ada", **fields: Any
    ) -> Self:
        self._commands += 1
        known = {
            "command_id": f"k{self._commands}",
            "conversation_id": CONVERSATION,
            "ticket_id": self.ticket.ticket_id if self.state and self.state.ticket else "t?",
            "agent_id": agent,
        }
        event: Any = kind.model_validate(known | fields)
        return self.hears(event, now)

    def routed(self, kind: type[routing.RoutingEvent], now: str, **fields: Any) -> Self:
        known = kind.EXAMPLE | {
            "ticket_id": self.ticket.ticket_id,
            "conversation_id": CONVERSATION,
            "work_id": self.ticket.work_id or "none",
        }
        return self.hears(kind.model_validate(known | fields), now)

    def clocked(self, kind: type[sla.SlaEvent], now: str, target: str) -> Self:
        known = kind.EXAMPLE | {
            "ticket_id": self.ticket.ticket_id,
            "conversation_id": CONVERSATION,
            "target": target,
        }
        event: Any = kind.model_validate(known)
        return self.hears(event, now)

    def held_by(self, agent: str, now: str = "09:01") -> Self:
        self.routed(routing.OfferMade, now, agent_id=agent, reservation_id="r1")
        return self.routed(routing.TicketAssigned, now, agent_id=agent, reservation_id="r1")

    @property
    def ticket(self) -> Ticket:
        assert self.state is not None
        assert self.state.ticket is not None
        return self.state.ticket

    @property
    def status(self) -> str:
        return self.ticket.standing.status

    def one(self, kind: type[P]) -> P:
        """The only event of that kind among those told last."""
        return one(self.told, kind)

    def types(self) -> list[str]:
        return [event.TYPE for event in self.told]


def one(events: Any, kind: type[P]) -> P:
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, f"{kind.TYPE}: {len(found)} of them"
    return found[0]


RULES = OffersModel(seconds=30, max_declines=3, away_after_misses=2)


class Desk:
    """A routing domain that is told events one after the other, and checked after each."""

    def __init__(self, rules: OffersModel = RULES, **more: Any) -> None:
        self.rules = rules
        self.more = more
        self.domain = Domain("main")
        self.told: tuple[routing.RoutingEvent, ...] = ()
        self.everything: list[routing.RoutingEvent] = []
        self.ignored: str | None = None

    def hears(self, event: assign.Event, now: datetime | str) -> Self:
        instant = at(now) if isinstance(now, str) else now
        decision = assign.decide(self.domain, event, instant, self.terms)
        self.told, self.ignored = decision
        self.everything.extend(self.told)
        check_domain(self.domain, self.rules)
        return self

    @property
    def terms(self) -> Terms:
        return terms_of(self.rules, **self.more)

    def tick(self, now: str) -> Self:
        return self.hears(assign.DueNow(), now)

    def agent(
        self,
        agent_id: str,
        now: str = "08:00",
        *,
        presence: str | None = "available",
        queues: tuple[str, ...] = ("service",),
        skills: dict[str, int] | None = None,
        languages: dict[str, int] | None = None,
        capacity: int = 100,
        limits: dict[str, int] | None = None,
        **more: Any,
    ) -> Self:
        self.hears(
            roster.AgentSet(
                domain="main",
                agent_id=agent_id,
                queues=queues,
                skills=skills or {},
                languages={"en": 9} if languages is None else languages,
                capacity=capacity,
                channel_limits=limits or {},
                **more,
            ),
            now,
        )
        return self if presence is None else self.presence(agent_id, presence, now)

    def presence(self, agent_id: str, presence: Any, now: str) -> Self:
        return self.hears(
            roster.PresenceSet(domain="main", agent_id=agent_id, presence=presence), now
        )

    def beats(self, agent_id: str, now: str) -> Self:
        return self.hears(roster.AgentHeartbeat(domain="main", agent_id=agent_id), now)

    def asks(self, name: str, now: str, **fields: Any) -> Self:
        """A ticket `name` asks for a person; its work is `w-name`."""
        requirement = fields.pop("requirement", {"language": "en"})
        known = {
            "domain": "main",
            "work_id": f"w-{name}",
            "ticket_id": name,
            "conversation_id": f"c-{name}",
            "queue": "service",
            "priority": 3,
            "cost": 10,
            "requirement": requirement,
            "entered_at": at(now),
        }
        return self.hears(routing.WorkRequested.model_validate(known | fields), now)

    def withdraws(self, name: str, now: str, reason: str = "solved") -> Self:
        return self.hears(
            routing.WorkWithdrawn(
                domain="main",
                work_id=f"w-{name}",
                ticket_id=name,
                conversation_id=f"c-{name}",
                reason=reason,
            ),
            now,
        )

    def answers(
        self,
        kind: type[roster.OfferAccepted] | type[roster.OfferDeclined],
        name: str,
        now: str,
        agent: str | None = None,
        reservation: str | None = None,
    ) -> Self:
        work = self.domain.live_work(name)
        leases = {lease.agent_id: lease.reservation_id for lease in work.leases} if work else {}
        agent = agent or (work.agent_id if work else None) or "nobody"
        mine = leases.get(agent) or (work.reservation_id if work else None)
        reservation = reservation or mine or "none"
        return self.hears(
            kind(domain="main", agent_id=agent, ticket_id=name, reservation_id=reservation), now
        )

    def accepts(self, name: str, now: str, **who: Any) -> Self:
        return self.answers(roster.OfferAccepted, name, now, **who)

    def declines(self, name: str, now: str, **who: Any) -> Self:
        return self.answers(roster.OfferDeclined, name, now, **who)

    def one(self, kind: type[P]) -> P:
        return one(self.told, kind)

    def types(self) -> list[str]:
        return [event.TYPE.removeprefix("routing.").removesuffix(".v1") for event in self.told]

    def offered_to(self) -> list[tuple[str, str]]:
        """(ticket, agent) of the offers made by the last event."""
        return [(e.ticket_id, e.agent_id) for e in self.told if isinstance(e, routing.OfferMade)]

    def restart(self) -> Self:
        """Forget all but what is stored."""
        self.domain = restored(self.domain)
        return self


def terms_of(rules: OffersModel, **more: Any) -> Terms:
    """The terms of a story: its rules of offers and whatever else it is about. Nothing ages unless it says so."""
    return structs.replace(terms(rules, AssignmentModel(aging_seconds={})), **more)


def restored(domain: Domain) -> Domain:
    agents = msgspec.json.decode(
        msgspec.json.encode(list(domain.agents.values())), type=list[Agent]
    )
    works = msgspec.json.decode(msgspec.json.encode(list(domain.works.values())), type=list[Work])
    switches = msgspec.json.decode(msgspec.json.encode(domain.switches), type=Switches)
    known = msgspec.json.decode(msgspec.json.encode(list(domain.known.values())), type=list[Known])
    return Domain(domain.name, agents, works, switches, known)


def check_domain(domain: Domain, rules: OffersModel) -> None:
    """What must hold after every event, worked out from the records alone."""
    held: dict[str, list[Work]] = {agent_id: [] for agent_id in domain.agents}
    interrupted_by = domain.people.interrupted_by
    live: set[str] = set()
    waiting: list[Work] = []
    for work in domain.works.values():
        if work.status == "ended":
            continue
        assert work.ticket_id not in live, f"{work.ticket_id} has two live works"
        live.add(work.ticket_id)
        if work.status == "waiting":
            waiting.append(work)
        else:
            assert work.agent_id is not None
            assert work.status == "offered" or not work.others
            asked = [lease.agent_id for lease in work.leases]
            assert len(asked) == len(set(asked)), f"{work.work_id} is offered twice to one"
            for agent_id in asked:
                held[agent_id].append(work)
    for agent in domain.agents.values():
        mine = held[agent.agent_id]
        channels = {work.channel for work in mine}
        assert agent.load == sum(
            work.cost for work in mine if not channels & {*interrupted_by.get(work.channel, ())}
        )
        assert agent.load <= agent.ceiling
        assert agent.load <= agent.capacity or agent.ceiling > agent.capacity
    for work in waiting:
        for agent in domain.agents.values():
            assert not (could_take(agent, work, rules) and is_free(domain, agent, work)), (
                f"{agent.agent_id} idle, {work.work_id} waits"
            )
    assert sorted(work.key for work in waiting) == sorted(
        key for bucket in domain.buckets for key in bucket.keys
    )


def could_take(agent: Agent, work: Work, rules: OffersModel) -> bool:
    """Eligibility, written out apart from the engine."""
    asked = work.effective
    return (
        agent.presence == "available"
        and agent.on_shift
        and any(queue in agent.queues for queue in (work.queue, *asked.queues))
        and agent.load + work.cost <= agent.capacity
        and (
            asked.language is None or agent.languages.get(asked.language, 0) >= asked.language_level
        )
        and all(agent.skills.get(need.skill, 0) >= need.level for need in asked.skills)
        and not any(skill in agent.skills for skill in asked.forbidden)
        and agent.agent_id not in work.excluded
        and work.declines.get(agent.agent_id, 0) < rules.max_declines
    )


def is_free(domain: Domain, agent: Agent, work: Work) -> bool:
    """What the policy may declare to keep someone from work that they could take: holds, limits, wrap-up, big tickets."""
    mine = [
        other
        for other in domain.works.values()
        if agent.agent_id in (other.agent_id, *(lease.agent_id for lease in other.others))
    ]
    wrapped = sum(other.cost for other in mine if other.wrap_until is not None)
    taken = sum(
        other.channel == work.channel and other.status in {"offered", "assigned"} for other in mine
    )
    kept_for = {w.work_id for w in domain.works.values() if w.kept_free == agent.agent_id}
    return (
        (work.hold_until is None or work.preferred_agent_id == agent.agent_id)
        and agent.load + wrapped + work.cost <= agent.capacity
        and (not agent.limits or taken < agent.limits.get(work.channel, 0))
        and kept_for <= {work.work_id}
    )


def seconds(n: float) -> timedelta:
    return timedelta(seconds=n)
