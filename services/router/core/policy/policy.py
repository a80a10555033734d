"""The policy made of `routing.yaml` and `agents.yaml`, ready to decide by.

`assemble` refuses what names something that does not exist; `check` looks for what exists and cannot work; `build`,
which the service uses, refuses the errors among those too. Warnings never keep a service from starting.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from msgspec import structs

from hours.calendar import Calendar, CalendarError
from hours.file import CALENDARS_FILE, CalendarsFile
from hours.file import read as read_calendars
from services.router.core.assignment.requirement import Requirement, SkillNeed
from services.router.core.assignment.terms import (
    Drain,
    Guard,
    Lending,
    Overload,
    RuleAsk,
    Terms,
    Weights,
)
from services.router.core.elsewhere.policy import NOWHERE, Places
from services.router.core.policy.condition import queues_asked
from services.router.core.policy.policy_check import check, check_names
from services.router.core.policy.policy_model import (
    AGENTS_FILE,
    ROUTING_FILE,
    SLA_FILE,
    AgentModel,
    AgentsModel,
    AssignmentModel,
    OffersModel,
    PolicyMistake,
    PresenceModel,
    QueueModel,
    RoutingModel,
    SlaNamesModel,
)
from services.router.core.policy.preset import Preset, under
from services.router.core.policy.rule_compiler import compile_rules, known_agent, needs, preset
from services.router.core.policy.rules import Rule
from services.router.core.tickets.causes import CAUSES_FILE, Causes, CausesModel
from services.router.core.tickets.causes import build as build_causes
from services.router.core.tickets.known_agent import KnownAgent


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy in force. `version` is what every decision records."""

    version: str
    routing: RoutingModel
    rules: tuple[Rule, ...]
    agents: Mapping[str, AgentModel] | None = None
    escalation_skills: tuple[SkillNeed, ...] | None = None
    reopen_window: timedelta = field(default=timedelta())
    terms: Terms = field(default_factory=lambda: Terms(offer_seconds=30))
    """What assignment goes by."""
    by_name: Mapping[str, Rule] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    """What queues ask beside a ticket's rule."""
    known_agent: KnownAgent | None = None
    calendars: Mapping[str, Calendar] = field(default_factory=dict)
    watched: frozenset[str] = frozenset()
    """The queues whose lengths rules ask for."""
    lengths: Mapping[str, int] = field(default_factory=dict)
    """How many tickets wait in the watched queues, as of the latest look; no part of the version."""
    elsewhere: Places = NOWHERE
    """Who else is told."""
    causes: Causes | None = None
    """The tags that say why; without `causes.yaml` any goes."""

    @property
    def offers(self) -> OffersModel:
        """How offers are made."""
        return self.routing.offers

    def queue(self, name: str) -> QueueModel | None:
        """Return a queue's desk and domain, or None where there is no such queue."""
        return self.routing.queues.get(name)

    def cost(self, channel: str) -> int:
        """Return how much of a capacity a ticket of this channel takes."""
        costs = self.routing.costs
        return costs.get(channel, costs["default"])

    def asked_in(self, queue: str, own: Requirement, rule_name: str) -> Requirement:
        """Return what a ticket asks in a queue: what its rule asks, over what the queue does."""
        rule = self.by_name.get(rule_name)
        return under(
            self.presets.get(queue),
            own,
            queue,
            is_language_required=rule is not None and rule.is_language_required,
        )

    def known_agent_of(self, rule_name: str) -> KnownAgent | None:
        """Return how long a ticket of that rule waits for whoever knows its customer; None: not at all."""
        rule = self.by_name.get(rule_name)
        own = rule.known_agent if rule is not None else None
        return own if own is not None else self.known_agent

    def language(self, detected: str | None) -> str:
        """Return the language to answer in: the detected one if it is served, else the default."""
        return detected if detected in self.routing.languages else self.routing.default_language

    def agent_name(self, agent_id: str) -> str:
        """Return the name to sign with, empty where the roster's file has none."""
        known = (self.agents or {}).get(agent_id)
        return known.name if known is not None else ""


def build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    """Make the policy of the parsed files.

    Raises:
        PolicyMistake: something is named that does not exist, or cannot work.
    """
    policy = assemble(parsed, version, folder)
    for finding in check(policy):
        if finding.level == "error":
            value = finding.path.rpartition(".")[2]
            raise PolicyMistake(finding.file, finding.path, value, finding.message)
    return policy


def assemble(parsed: Mapping[str, Any], version: str, folder: Path | None = None) -> Policy:
    """Make a policy whose names all resolve, be it useful or not; `folder` holds the calendars' own files.

    Raises:
        PolicyMistake: something is named that does not exist.
    """
    routing: RoutingModel = parsed[ROUTING_FILE]
    roster: AgentsModel | None = parsed.get(AGENTS_FILE)
    sla: SlaNamesModel | None = parsed.get(SLA_FILE)
    file: CalendarsFile | None = parsed.get(CALENDARS_FILE)
    causes: CausesModel | None = parsed.get(CAUSES_FILE)
    calendars = {} if file is None else _calendars(file, folder)
    check_names(routing, roster, sla, None if file is None else calendars)
    skills = routing.escalation.skills
    rules = compile_rules(routing, calendars)
    presets = {name: preset(queue.preset, routing) for name, queue in routing.queues.items()}
    policy = Policy(
        version=version,
        routing=routing,
        rules=rules,
        agents=roster.agents if roster is not None else None,
        escalation_skills=None if skills is None else needs(skills, routing),
        reopen_window=timedelta(hours=routing.reopen.window_hours),
        terms=terms(routing.offers, routing.assignment, routing.presence, calendars),
        by_name={rule.name: rule for rule in rules},
        presets={name: given for name, given in presets.items() if given is not None},
        known_agent=known_agent(routing.known_agent),
        calendars=calendars,
        watched=frozenset(queue for rule in rules for queue in queues_asked(rule.when)),
        causes=None if causes is None else build_causes(causes),
    )
    if routing.assignment.on_policy_change == "pin":
        return policy
    return replace(policy, terms=structs.replace(policy.terms, asks=_asks(policy), version=version))


def _asks(policy: Policy) -> dict[str, RuleAsk]:
    """Return what the tickets of each rule ask in its queue."""
    return {
        rule.name: RuleAsk(
            rule.queue,
            policy.asked_in(rule.queue, _with_language(rule, policy), rule.name),
        )
        for rule in policy.rules
    }


def _with_language(rule: Rule, policy: Policy) -> Requirement:
    spoken = policy.routing.default_language if rule.is_language_asked else None
    return structs.replace(rule.requirement, language=spoken)


def _calendars(file: CalendarsFile, folder: Path | None) -> Mapping[str, Calendar]:
    try:
        return read_calendars(file, folder)
    except CalendarError as error:
        raise PolicyMistake(CALENDARS_FILE, error.path, error.value, error.allowed) from error


def terms(
    offers: OffersModel,
    assignment: AssignmentModel,
    presence: PresenceModel | None = None,
    calendars: Mapping[str, Calendar] | None = None,
) -> Terms:
    """Return what assignment goes by."""
    presence = presence if presence is not None else PresenceModel()
    drain = assignment.drain
    weights = assignment.weights
    return Terms(
        offer_seconds=offers.seconds,
        max_declines=offers.max_declines,
        away_after_misses=offers.away_after_misses,
        strategy=assignment.strategy,
        strategies=dict(assignment.strategies),
        weights=Weights(weights.load, weights.levels, weights.scarcity),
        aging=dict(assignment.aging_seconds),
        lending={
            queue: Lending(model.open_at, model.close_at, model.lenders)
            for queue, model in assignment.lending.items()
        },
        guards={
            queue: Guard(
                model.on_at,
                model.off_at,
                model.risk_seconds,
                model.clear_seconds or model.risk_seconds or 0.0,
            )
            for queue, model in assignment.guards.items()
        },
        drain=None if drain is None else Drain(drain.cost, drain.after_seconds),
        wrap_up=dict(assignment.wrap_up_seconds),
        auto_accept=offers.auto_accept,
        parallel=dict(offers.parallel),
        interrupted_by={
            channel: model.interrupted_by for channel, model in assignment.interruptible.items()
        },
        overload={
            queue: Overload(model.at, model.clear_below)
            for queue, model in assignment.overload.items()
        },
        heartbeat=presence.heartbeat_seconds,
        return_assigned=presence.return_assigned_after_seconds,
        calendars=calendars if calendars is not None else {},
    )
