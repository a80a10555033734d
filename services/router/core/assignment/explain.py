"""The record of a decision: what was asked, who was fit, and for everyone else the complete set of rules against them.

In a small domain each agent is spelled out. In a large one a record holds a byte for each agent whom only the moment keeps
from the ticket; whom skills, language or queue keep from it follows from the roster, which changes seldom, and is worked out
once for a version of it (`static_reasons`) and not for each decision. `expand` puts the two together.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import NamedTuple

from schemas.payload import trusted
from schemas.routing import DecisionRecord, Excluded
from services.router.core.assignment.bits import Bits, few
from services.router.core.assignment.capacity import Agent
from services.router.core.assignment.domain import Bucket, Domain, Work
from services.router.core.assignment.index import (
    ABSENT,
    CAPACITY,
    CHANNEL,
    DECLINED,
    DRAINING,
    EXCLUDED,
    OFF_SHIFT,
    WRAP_UP,
)
from services.router.core.assignment.matching import Choice
from services.router.core.assignment.requirement import Requirement, shortfalls, to_wire

AGENTS_MAX = 50
"""In a larger domain agents are not spelled out but written as codes."""

LISTED_MAX = 256
"""Up to so many agents a record has a byte each; where more could take a ticket, a byte for each place of the domain."""

NOBODY = 255
"""The code of a place where nobody is."""

_CODES = (
    (CAPACITY, "capacity"),
    (WRAP_UP, "wrap_up"),
    (CHANNEL, "channel"),
    (DRAINING, "draining"),
    (DECLINED, "declined"),
    (EXCLUDED, "excluded"),
)


def record(domain: Domain, work: Work, choice: Choice | None, max_declines: int) -> DecisionRecord:
    """Explain a choice among agents for waiting work, or that there was none. Call it before the choice takes effect."""
    bucket = domain.bucket(work)
    fields: dict[str, object] = {
        "rule": work.rule,
        "policy_version": work.policy_version,
        "queue": work.queue,
        "requirement": to_wire(work.effective),
        "relaxed": work.relaxed,
        "step": work.step,
        "next_step_at": domain.next_relaxation(work),
        "promoted_at": work.promoted_at,
        "held_for": bucket.held_for,
    }
    if choice is not None:
        fields["candidates"] = choice.candidates
        fields["chosen_by"] = choice.chosen_by
        fields["scores"] = choice.scores
        fields["via"] = choice.via
    lenders = domain.lenders(work.queue)
    if lenders:
        fields["spill"] = "open" if work.queue in domain.switches.spilling else "closed"
        fields["guarded"] = tuple(q for q in lenders if q in domain.switches.guarding)
    if len(domain.agents) <= AGENTS_MAX:
        listed: list[str] = sorted(domain.agents)
    else:
        listed = []
        fields["roster_version"] = domain.people.version
        fields["lenders"] = lenders
        fields["codes_of"], fields["codes"] = _codes(domain, work, bucket, max_declines)
    if work.preferred_agent_id is not None and work.preferred_agent_id not in listed:
        listed.append(work.preferred_agent_id)
    chosen = choice.candidates if choice is not None else ()
    is_home = choice is not None and choice.via == "home"
    rules_of_all = {
        agent_id: rules
        for agent_id in listed
        if agent_id not in chosen
        and (rules := _rules(domain, work, bucket, agent_id, max_declines, is_home=is_home))
    }
    fields["excluded"] = tuple(
        trusted(Excluded, {"agent_id": agent_id, "rules": rules})
        for agent_id, rules in rules_of_all.items()
    )
    if work.preferred_agent_id is not None:
        fields["known_agent"] = work.preferred_agent_id
        fields["known_from"] = work.known_from
        if bucket.held_for is None:
            fields["known_agent_rules"] = rules_of_all.get(work.preferred_agent_id, ())
    return trusted(DecisionRecord, fields)


def rules_against(domain: Domain, work: Work, agent_id: str, max_declines: int) -> tuple[str, ...]:
    """Return every rule that stands between an agent and waiting work; none: they could take it now."""
    return _rules(domain, work, domain.bucket(work), agent_id, max_declines, is_home=False)


def _codes(domain: Domain, work: Work, bucket: Bucket, max_declines: int) -> tuple[str, str]:
    places = able(domain, bucket)
    if places != bucket.places[0]:
        bucket.places = (places, few(places, LISTED_MAX) or [])
    listed = bucket.places[1]
    state = bucket.kind.state
    if work.has_bars or work.kept_free is not None:
        state = state.copy()
        if work.kept_free is not None:
            state[domain.agents[work.kept_free].place] &= ~DRAINING
        for agent_id in (*work.declines, *work.excluded):
            agent = domain.agents.get(agent_id)
            if agent is not None:
                state[agent.place] |= _bar(work, agent_id, max_declines)
    if places and not listed:
        return "all", b64encode(state).decode()
    return "able", b64encode(bytes(map(state.__getitem__, listed))).decode()


def _bar(work: Work, agent_id: str, max_declines: int) -> int:
    declined = DECLINED if work.declines.get(agent_id, 0) >= max_declines else 0
    return declined | (EXCLUDED if agent_id in work.excluded else 0)


def able(domain: Domain, bucket: Bucket) -> Bits:
    """Return the places of those whom only the moment may keep from a bucket's work, lenders among them."""
    asked = domain.serving(bucket)
    for queue in domain.lenders(bucket.queue):
        asked |= domain.people.serving.get(queue, 0)
    return bucket.ask.able & asked


def _rules(
    domain: Domain,
    work: Work,
    bucket: Bucket,
    agent_id: str,
    max_declines: int,
    *,
    is_home: bool,
) -> tuple[str, ...]:
    agent = domain.agents.get(agent_id)
    if agent is None:
        return ("unknown",)  # The preferred agent has left the roster.
    code = bucket.kind.state[agent.place] | _bar(work, agent_id, max_declines)
    if work.kept_free == agent_id:
        code &= ~DRAINING
    relation: tuple[str, ...] = ()
    if not domain.serving(bucket) >> agent.place & 1:
        relation = _relation(agent, domain.lenders(work.queue), domain.switches.guarding)
    if "spill" in relation:
        is_closed = work.queue not in domain.switches.spilling
        relation = (("spill_closed",) if is_closed else ()) + relation[1:]
        if is_home and not relation:
            relation = ("home_first",)
    static = shortfalls(work.effective, agent.languages, agent.skills)
    return rules_of(code, relation, static, bucket.held_for not in {None, agent_id})


def spelled_out(
    domain: Domain, work: Work, max_declines: int, *, via: str | None = None
) -> dict[str, tuple[str, ...]]:
    """Return everyone whom rules keep from waiting work, with all of them, however large the domain is.

    `via` is "home" where agents of the queue itself were chosen, since then those who are lent to it were not asked.
    """
    bucket, is_home = domain.bucket(work), via == "home"
    found = {
        agent_id: _rules(domain, work, bucket, agent_id, max_declines, is_home=is_home)
        for agent_id in domain.agents
    }
    return {agent_id: rules for agent_id, rules in found.items() if rules}


def rules_of(
    code: int, relation: tuple[str, ...], static: tuple[str, ...], is_held: bool
) -> tuple[str, ...]:
    """Return every rule that stands between an agent and the work; lifting all of them, and no fewer, makes them fit."""
    found = ["absent"] if code & ABSENT else []
    if code & OFF_SHIFT:
        found.append("off_shift")
    found += relation
    found += static
    found += [name for bit, name in _CODES if code & bit]
    if is_held:
        found.append("held")
    return tuple(found)


def _relation(agent: Agent, lenders: tuple[str, ...], guarding: set[str]) -> tuple[str, ...]:
    """Return what stands between a ticket and an agent of none of the queues that it asks."""
    lending = [queue for queue in lenders if queue in agent.queues]
    if not lending:
        return ("queue",)
    is_guarded = all(queue in guarding for queue in lending)
    return ("spill", "lender_guard") if is_guarded else ("spill",)


class StaticReasons(NamedTuple):
    """What a version of the roster says about everyone for one queue and requirement.

    `reasons` maps an agent to the rules that only a change of the roster lifts, none for those whom only the moment keeps
    away. `places` are all agents by place, None where nobody is; `lenders_of` the lending queues that an agent serves who
    is not of the queue itself.
    """

    roster_version: str
    places: tuple[str | None, ...]
    reasons: Mapping[str, tuple[str, ...]]
    lenders_of: Mapping[str, tuple[str, ...]]


def static_reasons(domain: Domain, queue: str, asked: Requirement) -> StaticReasons:
    """Work out what the present roster says about everyone for a queue and a requirement after relaxation."""
    places = tuple(agent.agent_id if agent is not None else None for agent in domain.people.agents)
    return reasons_of(
        domain.agents, places, domain.people.version, queue, asked, domain.lenders(queue)
    )


def reasons_of(
    agents: Mapping[str, Agent],
    places: tuple[str | None, ...],
    version: str,
    queue: str,
    asked: Requirement,
    lenders: tuple[str, ...],
) -> StaticReasons:
    """Work out what a roster, of whatever time, says about everyone for a queue and a requirement after relaxation."""
    reasons: dict[str, tuple[str, ...]] = {}
    lenders_of: dict[str, tuple[str, ...]] = {}
    for agent_id in sorted(agents):
        agent = agents[agent_id]
        static = shortfalls(asked, agent.languages, agent.skills)
        if not any(q in agent.queues for q in (queue, *asked.queues)):
            lending = tuple(q for q in lenders if q in agent.queues)
            if lending:
                lenders_of[agent_id] = lending
            else:
                static = ("queue", *static)
        reasons[agent_id] = static
    return StaticReasons(version, places, reasons, lenders_of)


def expand(told: DecisionRecord, static: StaticReasons) -> dict[str, tuple[str, ...]]:
    """Return everyone whom rules kept from the ticket, with all of them, out of a record with codes.

    For those whom the roster itself keeps away only its rules are given: whether they were there and free is not recorded.

    Raises:
        ValueError: the reasons are of another version of the roster than the record.
    """
    if told.roster_version != static.roster_version:
        raise ValueError(
            f"the record is of roster {told.roster_version}, the reasons of {static.roster_version}"
        )
    codes = b64decode(told.codes)
    found: dict[str, tuple[str, ...]] = {}
    able_ids = (i for i in static.places if i is not None and not static.reasons[i])
    by_agent = dict(
        zip(
            static.places if told.codes_of == "all" else able_ids,
            codes,
            strict=told.codes_of != "all",
        )
    )
    for agent_id, rules in static.reasons.items():
        if agent_id in told.candidates:
            continue  # A transfer gives a ticket to whom it names, whatever they lack.
        if rules:
            found[agent_id] = rules
            continue
        lending = static.lenders_of.get(agent_id)
        relation: tuple[str, ...] = ()
        if lending is not None:
            relation = ("spill_closed",) if told.spill == "closed" else ()
            if all(queue in told.guarded for queue in lending):
                relation = (*relation, "lender_guard")
            if not relation and told.candidates and told.via == "home":
                relation = ("home_first",)
        is_held = told.held_for is not None and told.held_for != agent_id
        stands = rules_of(by_agent[agent_id], relation, (), is_held)
        if stands:
            found[agent_id] = stands
    return found
