"""What the router would do with a ticket, and why: the pure part of `signalbox route explain`.

There is no second engine here. A message goes through `lifecycle.open_ticket`, a request for a person through `assign.decide`
in a domain made of the agents of the question, and the answer is the decision's own record, with what is known besides: the
rules that were passed over, everybody who was fit, and when less would be asked and of whom then.

What cannot be answered raises `Unanswerable`, which names the field, the value and what would do. The text of a message is
never repeated in it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, NamedTuple

from msgspec import structs
from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from schemas import messages, routing
from schemas.customers import CustomerContext
from schemas.roster import AgentSet
from services.router.core.assignment import (
    assign,
    explain,
    shifts,
)
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.domain import Domain, Switches, Work
from services.router.core.assignment.explain import static_reasons
from services.router.core.assignment.requirement import Requirement
from services.router.core.assignment.terms import Terms
from services.router.core.policy.facts import of_message
from services.router.core.policy.policy import Policy
from services.router.core.policy.policy_model import AgentModel, AgentsModel
from services.router.core.policy.rule_trace import Passed, trace
from services.router.core.roster_file import agent_events
from services.router.core.tickets import lifecycle

WAITING_MAX: Final = 10_000
"""How many tickets of a queue may be said to wait."""

STEPS_MAX: Final = 200
"""How many things due are followed into the future, for what would be relaxed and who would get the ticket."""

HORIZON: Final = timedelta(days=30)

SHOWN_MAX: Final = 80
"""How much of a wrong value is repeated."""

_PRIVATE: Final = frozenset({"subject", "text", "context", "fields"})
"""Fields whose values are a customer's, and are not repeated."""


class Unanswerable(ValueError):
    """A question cannot be answered: which field, which value, what would do."""

    def __init__(self, field: str, value: object, cure: str) -> None:
        name = field.rpartition(".")[2]
        is_private = name in _PRIVATE or any(part in _PRIVATE for part in field.split("."))
        super().__init__(f"{field}: {cure}" if is_private else f"{field}: {_short(value)}: {cure}")


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[: SHOWN_MAX - 1]}…"


# --------------------------------------------------------------------------------------------- question


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _needs(value: object) -> object:
    """Let skills be written as a mapping too: name → level, or name → {level, relax_after_seconds}."""
    if not isinstance(value, Mapping):
        return value
    return [
        {"skill": name, **(asked if isinstance(asked, Mapping) else {"level": asked})}
        for name, asked in value.items()
    ]


class _SkillNeed(routing.SkillNeed):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _RelaxStep(routing.RelaxStep):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Asked(routing.Requirement):
    """A requirement as events carry it, in which nothing may be misspelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    skills: Annotated[tuple[_SkillNeed, ...], BeforeValidator(_needs)] = ()
    steps: tuple[_RelaxStep, ...] = ()


class _Placing(_Model):
    """What is known of a ticket's wait, however it was decided what it asks."""

    entered_at: AwareDatetime | None = None
    relax_from: AwareDatetime | None = None
    due_at: AwareDatetime | None = None
    preferred_agent_id: str | None = None
    hold_seconds: float | None = Field(default=None, ge=0)
    excluded_agent_ids: tuple[str, ...] = ()
    declines: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class MessageTicket(_Placing):
    """A message, for the rules to decide on. Without `language` nobody could tell which it is."""

    channel: str = Field(default="email", min_length=1, max_length=200)
    account: str = Field(default="support", min_length=1, max_length=200)
    language: str | None = None
    subject: str = ""
    text: str = ""
    kind: messages.MessageKind = "message"
    is_verified: bool = False
    is_automatic: bool = False
    visibility: messages.Visibility = "private"
    address_kind: Literal["email", "phone", "vendor_id", "none"] = "email"
    rating: float | None = Field(default=None, ge=0, le=5)
    fields: dict[str, str] = Field(default_factory=dict)
    context: CustomerContext | None = None
    conversation_id: str = Field(default="conversation", min_length=1, max_length=200)


class DirectTicket(_Placing):
    """A ticket whose queue and requirement are given, as an event `work.requested` has them."""

    queue: str
    requirement: _Asked = _Asked()
    priority: int = Field(default=3, ge=1, le=4)
    cost: int | None = Field(default=None, ge=0, le=100_000)
    channel: str = ""


class AgentNow(_Model):
    """What a question says of an agent beside what `agents.yaml` would: how they are at this moment."""

    agent_id: str = Field(min_length=1, max_length=200)
    presence: str = "available"
    load: int | None = Field(default=None, ge=0)
    last_assigned_at: AwareDatetime | None = None
    in_channels: dict[str, Annotated[int, Field(ge=0, le=1000)]] = Field(default_factory=dict)


class Moment(_Model):
    """What a question says of the domain: tickets that wait by queue, and which queues borrow and lend nobody."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    now: AwareDatetime
    waiting: dict[str, Annotated[int, Field(ge=0, le=WAITING_MAX)]] = Field(default_factory=dict)
    spilling: tuple[str, ...] = ()
    guarding: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_no_value(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Person:
    """An agent of the question: their record, how many tickets they hold by channel, and their domain."""

    agent: Agent
    in_channels: Mapping[str, int]
    domain: str


# ----------------------------------------------------------------------------------------------- answer


class Relaxation(NamedTuple):
    """When less is asked, what falls away then, and who could take it then who could not before."""

    at: datetime
    relaxed: tuple[str, ...]
    admits: tuple[str, ...]


class NextOffer(NamedTuple):
    """Who would be offered the ticket, and when, if nothing happened but time."""

    at: datetime
    agent_id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What would happen to a ticket.

    `offered_to` is who is offered it at once, the best first (nobody: it waits), and with `is_taken` it is theirs without
    being asked; `excluded` is everyone who is not fit with the complete set of rules against
    them, `also_fit` those fit beyond the best few of the record. `held` are the conditions of the rule that held, `passed`
    the rules before it with what did not. `sla_policy` is None where no rule was asked.
    """

    request: routing.WorkRequested
    record: routing.DecisionRecord
    offered_to: tuple[str, ...]
    is_taken: bool
    is_matchable: bool
    is_exhausted: bool
    excluded: tuple[routing.Excluded, ...]
    also_fit: tuple[str, ...]
    sla_policy: str | None
    held: tuple[str, ...]
    passed: tuple[Passed, ...]
    relaxations: tuple[Relaxation, ...]
    next_offer: NextOffer | None
    agents_from: str

    @property
    def chosen(self) -> str | None:
        """Who is offered the ticket first; None where it waits."""
        return self.offered_to[0] if self.offered_to else None

    @property
    def outcome(self) -> Literal["queued", "offered", "assigned"]:
        """What becomes of the ticket now."""
        if not self.offered_to:
            return "queued"
        return "assigned" if self.is_taken else "offered"

    def to_line(self, line_id: object) -> dict[str, Any]:
        """Return the answer as a line of the batch: the decision record, and what stands beside it."""
        record = self.record.model_dump(
            mode="json", exclude={"excluded", "roster_version", "codes", "codes_of"}
        )
        return {
            "id": line_id,
            "outcome": self.outcome,
            "agent_id": self.chosen,
            "offered_to": list(self.offered_to),
            **record,
            "also_fit": list(self.also_fit),
            "excluded": [one.model_dump(mode="json") for one in self.excluded],
            "is_matchable": self.is_matchable,
            "is_exhausted": self.is_exhausted,
            "priority": self.request.priority,
            "cost": self.request.cost,
            "sla_policy": self.sla_policy,
            "held": list(self.held),
            "passed_over": [
                {"rule": one.rule, "unmet": [unmet._asdict() for unmet in one.unmet]}
                for one in self.passed
            ],
            "relaxations": [
                {
                    "at": _text(one.at),
                    "relaxed": list(one.relaxed),
                    "admits": list(one.admits),
                }
                for one in self.relaxations
            ],
            "next_offer": None
            if self.next_offer is None
            else {"at": _text(self.next_offer.at), "agent_id": self.next_offer.agent_id},
            "agents_from": self.agents_from,
        }


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def answer_line(line: object, policy: Policy, now: datetime) -> dict[str, Any]:
    """Answer one line of the batch; what cannot be answered becomes `{"id", "error"}`. `now` is where a line has none."""
    if not isinstance(line, Mapping):
        return {"id": None, "error": str(Unanswerable("line", line, "must be a JSON object"))}
    try:
        return answer(line, policy, now).to_line(line.get("id"))
    except Unanswerable as mistake:
        return {"id": line.get("id"), "error": str(mistake)}


def answer(question: Mapping[str, Any], policy: Policy, now: datetime) -> Answer:
    """Answer `{"ticket", "agents"?, "now"?, "waiting"?, "spilling"?, "guarding"?}`.

    Raises:
        Unanswerable: a field is missing, misspelled or of the wrong kind, or names a queue that the policy does not have.
    """
    moment = _read(Moment, "", {"now": now} | _given(question))
    for field, queues in (
        ("waiting", moment.waiting),
        ("spilling", moment.spilling),
        ("guarding", moment.guarding),
    ):
        for queue in queues:
            _known_queue(field, queue, policy)
    ticket = _ticket(question.get("ticket"))
    passed: tuple[Passed, ...] = ()
    held: tuple[str, ...] = ()
    sla_policy: str | None = None
    if isinstance(ticket, DirectTicket):
        request = _direct_request(ticket, policy, moment)
    else:
        decided = _decided_by_rules(ticket, policy, moment)
        request, sla_policy, held, passed = decided
    people, agents_from = _people(question.get("agents"), policy, request)
    at = max(moment.now, request.entered_at)
    outcome = _Trial(policy, request, ticket, moment, people, at).run()
    return Answer(
        request=request,
        record=outcome.record,
        offered_to=outcome.offered_to,
        is_taken=outcome.is_taken,
        is_matchable=outcome.is_matchable,
        is_exhausted=outcome.is_exhausted,
        excluded=outcome.excluded,
        also_fit=outcome.also_fit,
        sla_policy=sla_policy,
        held=held,
        passed=passed,
        relaxations=outcome.relaxations,
        next_offer=outcome.next_offer,
        agents_from=agents_from,
    )


def _given(question: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in question.items() if value is not None}


def _read(model: type[Any], where: str, given: Mapping[str, Any], also: Iterable[str] = ()) -> Any:
    """Read a part of the question; `also` are fields that would be right there too, for who misspelled one."""
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise _unanswerable(error, where, (*model.model_fields, *also)) from None


def _unanswerable(error: ValidationError, where: str, known: Sequence[str]) -> Unanswerable:
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in (where, *first["loc"]) if part != "")
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        names = sorted({*known}) if len(first["loc"]) == 1 else []
        near = get_close_matches(name, names, 1)
        cure = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}"
        return Unanswerable(path, name, f"is no field here{cure if names else ''}")
    if first["type"] == "missing":
        return Unanswerable(path, None, "is required")
    value = first.get("input")
    said = first["msg"].removeprefix("Value error, ")
    return Unanswerable(path, value, said[:1].lower() + said[1:])


def _ticket(given: object) -> MessageTicket | DirectTicket:
    if not isinstance(given, Mapping):
        raise Unanswerable(
            "ticket",
            given,
            'must be an object: a message such as {"channel": "email", "language": "en", "text": "…"}, or'
            ' {"queue": "service", "requirement": {…}}',
        )
    is_direct = "queue" in given or "requirement" in given
    model: type[DirectTicket | MessageTicket] = DirectTicket if is_direct else MessageTicket
    also = {*DirectTicket.model_fields, *MessageTicket.model_fields}
    found: DirectTicket | MessageTicket = _read(model, "ticket", given, also)
    return found


def _known_queue(field: str, queue: str, policy: Policy) -> None:
    if policy.queue(queue) is None:
        known = ", ".join(sorted(policy.routing.queues))
        raise Unanswerable(field, queue, f"is no queue of the policy; known: {known}")


# --------------------------------------------------------------------------------------------- request


def _direct_request(ticket: DirectTicket, policy: Policy, moment: Moment) -> routing.WorkRequested:
    _known_queue("ticket.queue", ticket.queue, policy)
    queue = policy.routing.queues[ticket.queue]
    return routing.WorkRequested(
        domain=queue.domain,
        work_id="work",
        ticket_id="ticket",
        conversation_id="conversation",
        queue=ticket.queue,
        priority=ticket.priority,
        cost=policy.cost(ticket.channel) if ticket.cost is None else ticket.cost,
        requirement=routing.Requirement.model_validate(ticket.requirement.model_dump()),
        channel=ticket.channel,
        policy_version=policy.version,
        **_placing(ticket, moment.now),
    )


def _placing(ticket: MessageTicket | DirectTicket, entered_at: datetime) -> dict[str, Any]:
    return {
        "entered_at": ticket.entered_at or entered_at,
        "relax_from": ticket.relax_from,
        "due_at": ticket.due_at,
        "preferred_agent_id": ticket.preferred_agent_id,
        "hold_seconds": ticket.hold_seconds,
        "excluded_agent_ids": ticket.excluded_agent_ids,
    }


class _Decided(NamedTuple):
    request: routing.WorkRequested
    sla_policy: str
    held: tuple[str, ...]
    passed: tuple[Passed, ...]


def _decided_by_rules(ticket: MessageTicket, policy: Policy, moment: Moment) -> _Decided:
    message = _message(ticket, moment.now)
    if moment.waiting:
        policy = replace(policy, lengths=moment.waiting)
    story = lifecycle.open_ticket(message, 1, None, moment.now, policy)
    asked = [event for event in story.events if isinstance(event, routing.WorkRequested)]
    assert len(asked) == 1, "opening a ticket asks for a person once"
    given = {
        name: value
        for name, value in _placing(ticket, moment.now).items()
        if value not in (None, ())
    }
    request = asked[0].model_copy(update=given)
    found = trace(
        policy.rules,
        of_message(
            message,
            lifecycle.what_is_new(message),
            previous_tickets=0,
            reopens=0,
            now=moment.now,
            lengths=policy.lengths,
        ),
    )
    assert found.rule == story.ticket.rule, f"{found.rule} is not {story.ticket.rule}"
    return _Decided(request, story.ticket.sla_policy, found.held, found.passed)


def _message(ticket: MessageTicket, now: datetime) -> messages.MessageReceived:
    review = None
    if ticket.rating is not None:
        review = messages.Review(rating=ticket.rating, rating_max=5)
    return messages.MessageReceived(
        message_id="message",
        conversation_id=ticket.conversation_id,
        customer_id="customer",
        input_id="input",
        verified=ticket.is_verified,
        context=ticket.context,
        content=messages.MessageContent(
            channel=ticket.channel,
            account=ticket.account,
            vendor_message_id="message",
            kind=ticket.kind,
            visibility=ticket.visibility,
            sender=messages.Sender(address="", kind=ticket.address_kind),
            subject=ticket.subject,
            text=ticket.text,
            text_new=ticket.text,
            language=ticket.language,
            occurred_at=now,
            is_automatic=ticket.is_automatic,
            review=review,
            fields=ticket.fields,
        ),
    )


# ---------------------------------------------------------------------------------------------- people


def _people(
    given: object, policy: Policy, request: routing.WorkRequested
) -> tuple[list[_Person], str]:
    if given is None:
        roster = AgentsModel(agents=dict(policy.agents or {}))
        events = agent_events(roster)
        return [
            _Person(_agent(event, AgentNow(agent_id=event.agent_id)), {}, event.domain)
            for event in events
        ], "agents.yaml, all available and idle"
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise Unanswerable("agents", given, "must be a list of agents, as agents.yaml has them")
    people: dict[str, _Person] = {}
    for n, entry in enumerate(given):
        person = _person(f"agents.{n}", entry, policy, request)
        if person.agent.agent_id in people:
            raise Unanswerable(f"agents.{n}.agent_id", person.agent.agent_id, "is there twice")
        people[person.agent.agent_id] = person
    return list(people.values()), "the question"


def _person(where: str, entry: object, policy: Policy, request: routing.WorkRequested) -> _Person:
    if not isinstance(entry, Mapping):
        raise Unanswerable(where, entry, 'must be an object such as {"agent_id": "ada", …}')
    now = {name: value for name, value in entry.items() if name in AgentNow.model_fields}
    rest = {name: value for name, value in entry.items() if name not in AgentNow.model_fields}
    for levels in ("skills", "languages"):
        if isinstance(rest.get(levels), list):
            rest[levels] = dict.fromkeys(rest[levels], 1)
    rest.setdefault("domain", request.domain)
    rest.setdefault("capacity", 0)  # Who is not said to carry anything carries nothing.
    known = _read(AgentNow, where, now, AgentModel.model_fields)
    model = _read(AgentModel, where, rest, AgentNow.model_fields)
    try:
        (event,) = agent_events(AgentsModel(agents={known.agent_id: model}))
    except ValidationError as error:
        raise _unanswerable(error, where, ()) from None
    if known.load is None and known.in_channels:
        load = sum(policy.cost(channel) * n for channel, n in known.in_channels.items())
        known = known.model_copy(update={"load": load})
    return _Person(_agent(event, known), known.in_channels, event.domain)


def _agent(event: AgentSet, now: AgentNow) -> Agent:
    agent = Agent(now.agent_id)
    agent.become(event)
    # An allow-list: whatever is not `available` takes nothing.
    agent.presence = now.presence  # type: ignore[assignment]
    agent.load = now.load or 0
    agent.ceiling = max(agent.capacity, agent.load)
    agent.last_assigned_at = now.last_assigned_at
    return agent


# ----------------------------------------------------------------------------------------------- trial


class _Outcome(NamedTuple):
    record: routing.DecisionRecord
    offered_to: tuple[str, ...]
    is_taken: bool
    is_matchable: bool
    is_exhausted: bool
    excluded: tuple[routing.Excluded, ...]
    also_fit: tuple[str, ...]
    relaxations: tuple[Relaxation, ...]
    next_offer: NextOffer | None


class _Trial:
    """One ticket among the agents of a question, put to the engine."""

    def __init__(
        self,
        policy: Policy,
        request: routing.WorkRequested,
        ticket: MessageTicket | DirectTicket,
        moment: Moment,
        people: list[_Person],
        now: datetime,
    ) -> None:
        self.policy = policy
        self.terms = policy.terms
        self.request = request
        self.moment = moment
        self.people = [person for person in people if person.domain == request.domain]
        self.elsewhere = [
            person.agent.agent_id for person in people if person.domain != request.domain
        ]
        self.now = now
        for person in self.people:
            person.agent.on_shift = shifts.on_duty(person.agent, now, self.terms.calendars)
            person.agent.turns_at = shifts.next_turn(person.agent, now, self.terms.calendars)
        self.work = self._waiting(ticket)

    def _waiting(self, ticket: MessageTicket | DirectTicket) -> Work:
        """Return the ticket's record as it would stand in an empty domain, with what it went through already."""
        domain = Domain(self.request.domain)
        assign.decide(domain, self.request, self.now, self.terms)
        _let_time_pass(domain, self.now, self.terms)
        work = domain.works[self.request.work_id]
        since = work.patient_from
        if self.request.hold_seconds and work.preferred_agent_id is not None:
            work.hold_until = since + timedelta(seconds=self.request.hold_seconds)
        work.declines = {name: n for name, n in sorted(ticket.declines.items()) if n}
        work.is_untold = True
        work.is_told_unmatchable = False
        return work

    def _domain(self, work: Work, *, anybody: bool = True) -> Domain:
        agents = [structs.replace(person.agent) for person in self.people]
        if not anybody:
            for agent in agents:
                agent.presence = "offline"
        works = [structs.replace(work), *self._held(), *self._others()]
        guarding = set(self.moment.guarding)
        switches = Switches(set(self.moment.spilling), guarding, crowded=set(guarding))
        return Domain(self.request.domain, agents, works, switches)

    def _held(self) -> Iterator[Work]:
        """What the agents carry: a piece of work for each ticket that they are said to hold, and one for the rest."""
        for person in self.people:
            left = person.agent.load
            held = [
                (channel, self.policy.cost(channel))
                for channel, n in sorted(person.in_channels.items())
                for _ in range(n)
            ]
            for n, (channel, cost) in enumerate([*held, ("", left)]):
                if n < len(held) or left:
                    name = f"held/{person.agent.agent_id}/{n}"
                    yield self._filler(
                        name,
                        self.request.queue,
                        cost=min(cost, left),
                        channel=channel,
                        agent_id=person.agent.agent_id,
                    )
                left -= min(cost, left)

    def _others(self) -> Iterator[Work]:
        """Tickets that wait beside this one and make their queues long. No agent may take any of them."""
        everybody = tuple(person.agent.agent_id for person in self.people)
        for queue, n in sorted(self.moment.waiting.items()):
            for k in range(n):
                yield self._filler(f"waits/{queue}/{k}", queue, excluded=everybody)

    def _filler(
        self,
        name: str,
        queue: str,
        *,
        cost: int = 0,
        channel: str = "",
        agent_id: str | None = None,
        excluded: tuple[str, ...] = (),
    ) -> Work:
        return Work(
            work_id=name,
            ticket_id=name,
            conversation_id=name,
            queue=queue,
            priority=4,
            cost=cost,
            requirement=Requirement(),
            effective=Requirement(),
            entered_at=self.now,
            excluded=excluded,
            status="waiting" if agent_id is None else "assigned",
            agent_id=agent_id,
            channel=channel,
        )

    def run(self) -> _Outcome:
        domain = self._domain(self.work)
        told = self._decide(domain, self.now)
        offers = [event for event in told if isinstance(event, routing.OfferMade)]
        queued = [event for event in told if isinstance(event, routing.TicketQueued)]
        record = (offers[0] if offers else queued[-1]).record
        assert record is not None, "a decision without its record"
        is_exhausted = any(isinstance(event, routing.AssignmentExhausted) for event in told)
        excluded = self._excluded(domain, record)
        known = {*record.candidates, *(one.agent_id for one in excluded)}
        return _Outcome(
            record=record,
            offered_to=tuple(offer.agent_id for offer in offers),
            is_taken=any(isinstance(event, routing.TicketAssigned) for event in told),
            is_matchable=queued[-1].is_matchable if queued else True,
            is_exhausted=is_exhausted,
            excluded=excluded,
            also_fit=tuple(sorted(domain.agents.keys() - known)),
            relaxations=tuple(self._relaxations()),
            next_offer=None if offers else self._next_offer(domain),
        )

    def _decide(self, domain: Domain, now: datetime) -> list[routing.RoutingEvent]:
        """Wake the domain until it is settled; return what it told of the ticket."""
        told: list[routing.RoutingEvent] = []
        for _ in range(STEPS_MAX):
            told += assign.decide(domain, assign.DueNow(), now, self.terms).events
            due_at = domain.next_due()
            if due_at is None or due_at > now:
                break
        return [event for event in told if event.work_id == self.request.work_id]

    def _excluded(
        self, domain: Domain, record: routing.DecisionRecord
    ) -> tuple[routing.Excluded, ...]:
        """Spell out everybody: a large domain's record holds codes instead."""
        found = record.excluded
        if record.codes_of:
            gone = tuple(one for one in found if one.agent_id not in domain.agents)
            rules = self._spelled_out(domain, record)
            listed = tuple(
                routing.Excluded(agent_id=agent_id, rules=rules[agent_id])
                for agent_id in sorted(rules)
                if agent_id not in record.candidates
            )
            found = (*listed, *gone)
        elsewhere = (
            routing.Excluded(agent_id=agent_id, rules=("domain",))
            for agent_id in sorted(self.elsewhere)
        )
        return (*found, *elsewhere)

    def _spelled_out(
        self, domain: Domain, record: routing.DecisionRecord
    ) -> dict[str, tuple[str, ...]]:
        work = domain.works[self.request.work_id]
        if work.status != "waiting":
            # The record is of the moment before the offer, so that moment is made again.
            before = structs.replace(self.work, hold_until=work.hold_until)
            switches = domain.switches
            domain = self._domain(before)
            domain.switches = switches
            domain.take_up(self.terms, self.now)
            work = domain.works[work.work_id]
        via = record.via if record.candidates else None
        return explain.spelled_out(domain, work, self.terms.max_declines, via=via)

    def _relaxations(self) -> Iterator[Relaxation]:
        """Follow the ticket into the future among people of whom nobody is there."""
        domain = self._domain(self.work, anybody=False)
        self._decide(domain, self.now)
        work = domain.works[self.request.work_id]
        could = self._could(domain, work)
        for at in _instants(domain, self.now):
            before = work.relaxed
            self._decide(domain, at)
            fresh = tuple(name for name in work.relaxed if name not in before)
            if fresh:
                can = self._could(domain, work)
                yield Relaxation(at, fresh, tuple(sorted(can - could)))
                could = can

    @staticmethod
    def _could(domain: Domain, work: Work) -> set[str]:
        static = static_reasons(domain, work.queue, work.effective)
        return {agent_id for agent_id, rules in static.reasons.items() if not rules}

    def _next_offer(self, domain: Domain) -> NextOffer | None:
        for at in _instants(domain, self.now):
            for event in self._decide(domain, at):
                if isinstance(event, routing.OfferMade):
                    return NextOffer(at, event.agent_id)
        return None


def _instants(domain: Domain, now: datetime) -> Iterator[datetime]:
    """Yield when something falls due, one after the other, as far as is looked."""
    for _ in range(STEPS_MAX):
        at = domain.next_due()
        if at is None or at > now + HORIZON:
            return
        yield max(at, now)


def _let_time_pass(domain: Domain, now: datetime, terms: Terms) -> None:
    """Do all that is due by an instant, slice by slice."""
    for _ in range(STEPS_MAX):
        due_at = domain.next_due()
        if due_at is None or due_at > now:
            return
        assign.decide(domain, assign.DueNow(), now, terms)
