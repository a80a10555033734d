"""Topics → decisions: glue between the loop and the cores of the two stages, and the policy's way in."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chassis.errors import PolicyError
from chassis.policy import PolicyFiles, PolicyHolder
from chassis.stage import Input, Outcome, Received, Stage, Tick
from hours.file import CALENDARS_FILE, CalendarsFile
from schemas import (
    commands,
    customers,
    feedback,
    merging,
    messages,
    notifications,
    roster,
    routing,
    sla,
    tickets,
)
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.topics import COMMANDS, MESSAGES, NOTIFICATIONS, ROSTER, ROUTING, ROUTING_WORK, SLA
from services.router import metrics
from services.router.adapters import KINDS
from services.router.core.assignment import assign
from services.router.core.assignment.domain import Domain
from services.router.core.elsewhere import policy as elsewhere_policy
from services.router.core.elsewhere.policy import (
    CHANNELS_FILE,
    ELSEWHERE_FILE,
    ChannelNamesModel,
    ElsewhereModel,
)
from services.router.core.policy.policy import Policy, build
from services.router.core.policy.policy_model import (
    AGENTS_FILE,
    ROUTING_FILE,
    SLA_FILE,
    AgentsModel,
    PolicyMistake,
    RoutingModel,
    SlaNamesModel,
)
from services.router.core.tickets import decide
from services.router.core.tickets.causes import CAUSES_FILE, CausesModel
from services.router.core.tickets.state import Conversation
from services.router.queue_lengths import Lengths, watched_of
from services.router.store import DomainStore, RoutingRow, TicketRow, TicketStore


def _build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    try:
        policy = build(parsed, folder, version)
        policy = replace(policy, elsewhere=elsewhere_policy.build(parsed, KINDS))
    except PolicyMistake as mistake:
        raise PolicyError(mistake.file, mistake.path, mistake.value, mistake.allowed) from mistake
    metrics.show_on_call(policy.routing.escalation.on_call)
    return policy


POLICY: Final = PolicyFiles(
    files={
        ROUTING_FILE: RoutingModel,
        AGENTS_FILE: AgentsModel,
        SLA_FILE: SlaNamesModel,
        CALENDARS_FILE: CalendarsFile,
        CAUSES_FILE: CausesModel,
        CHANNELS_FILE: ChannelNamesModel,
        ELSEWHERE_FILE: ElsewhereModel,
    },
    build=_build,
    optional=frozenset(
        {AGENTS_FILE, SLA_FILE, CALENDARS_FILE, CAUSES_FILE, CHANNELS_FILE, ELSEWHERE_FILE}
    ),
)
"""The files this service reads, and how they become its policy."""


def without_nul(data: bytes) -> bytes:
    """Return JSON with every NUL in its strings replaced by U+FFFD: PostgreSQL can store none.

    What is no JSON is returned as it is, for the decoder to refuse.
    """
    if b"\\u0000" not in data:
        return data
    try:
        return json.dumps(_scrubbed(json.loads(data)), ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return data


def _scrubbed(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\x00", "\ufffd")
        case list():
            return [_scrubbed(item) for item in value]
        case dict():
            return {_scrubbed(name): _scrubbed(item) for name, item in value.items()}
        case _:
            return value


class TicketsStage(Stage[Conversation]):
    """The life of tickets; the state's key is the conversation."""

    name = "router.tickets"
    topics = (MESSAGES, COMMANDS, ROUTING, SLA, NOTIFICATIONS)
    understands = frozenset(
        {
            messages.MessageReceived.TYPE,
            messages.MessageRevised.TYPE,
            customers.CustomerMerged.TYPE,
            customers.CustomerUnmerged.TYPE,
            customers.CustomerLinkSuggested.TYPE,
            customers.CustomerDescribed.TYPE,
            customers.CustomerErased.TYPE,
            commands.ReplyToCustomer.TYPE,
            commands.AddNote.TYPE,
            commands.SolveTicket.TYPE,
            commands.EscalateTicket.TYPE,
            commands.ReassignTicket.TYPE,
            commands.TagTicket.TYPE,
            commands.HoldTicket.TYPE,
            commands.SnoozeTicket.TYPE,
            commands.ResumeTicket.TYPE,
            commands.DelegateTicket.TYPE,
            commands.ReturnTicket.TYPE,
            commands.MarkTicketAsSpam.TYPE,
            commands.RestoreTicket.TYPE,
            commands.MergeTicket.TYPE,
            commands.UnmergeTicket.TYPE,
            commands.PromiseCustomer.TYPE,
            commands.CallMade.TYPE,
            commands.PrioritiseTicket.TYPE,
            merging.MergeAsked.TYPE,
            merging.MergeAnswered.TYPE,
            merging.MessageCarried.TYPE,
            merging.MessageReturned.TYPE,
            merging.RevisionCarried.TYPE,
            merging.NoteCarried.TYPE,
            merging.MergeChanged.TYPE,
            merging.ErasureCarried.TYPE,
            merging.MergeUndone.TYPE,
            merging.MergeEnded.TYPE,
            routing.TicketQueued.TYPE,
            routing.OfferMade.TYPE,
            routing.TicketAssigned.TYPE,
            routing.TicketRequeued.TYPE,
            routing.AssignmentExhausted.TYPE,
            routing.TransferRefused.TYPE,
            routing.QueueOverloaded.TYPE,
            sla.TargetStarted.TYPE,
            sla.TargetPaused.TYPE,
            sla.TargetResumed.TYPE,
            sla.TargetRetargeted.TYPE,
            sla.TargetMet.TYPE,
            sla.TargetCancelled.TYPE,
            sla.TargetAtRisk.TYPE,
            sla.TargetBreached.TYPE,
            notifications.NoticeFailed.TYPE,
            notifications.NoticeUnknown.TYPE,
            notifications.NoticeSuppressed.TYPE,
            notifications.NoticeDeferred.TYPE,
            notifications.NoticeDeliveryReported.TYPE,
            feedback.FeedbackGiven.TYPE,
        }
    )

    def __init__(self, policies: PolicyHolder[Policy], lengths: Lengths | None = None) -> None:
        self.store = TicketStore()
        self._policies = policies
        self._lengths = lengths

    def decode(self, envelope: Envelope, data: bytes) -> Payload:
        """Read the data of an event, without NULs."""
        return super().decode(envelope, without_nul(data))

    def partition_key(self, event: Payload) -> str:
        """Return the routing domain for requests to assignment, the conversation for everything else."""
        match event:
            case routing.WorkRequested(domain=domain) | routing.WorkWithdrawn(domain=domain):
                return domain
            case _:
                return super().partition_key(event)

    def _policy(self) -> Policy:
        """Return the policy in force, with the queue lengths that its rules ask about."""
        policy = self._policies.current
        if self._lengths is None or not policy.watched:
            return policy
        return replace(policy, lengths=self._lengths.current)

    def decide(
        self, state: Conversation | None, item: Input, now: datetime
    ) -> Outcome[Conversation]:
        """Ask the core, and put its answer in the loop's words."""
        policy = self._policy()
        match item:
            case Received(event=event, envelope=envelope):
                decision = decide.decide(state, _ticket_input(event), now, policy, envelope.time)
            case Tick(name=name):
                decision = decide.decide(state, decide.TIMERS[name], now, policy, now)
            case _:
                raise TypeError(f"router.tickets asks for no effects and got {type(item).__name__}")
        return Outcome(
            state=decision.state,
            is_changed=decision.state is not state,
            events=decision.events,
            timers=self._timers(state, decision.state, item),
            rows=_rows(item.key, state, decision),
            ignored=decision.ignored,
        )

    @staticmethod
    def _timers(
        before: Conversation | None, after: Conversation | None, item: Input
    ) -> dict[str, datetime | None]:
        due = decide.timers(after)
        was = decide.timers(before)
        if isinstance(item, Tick):
            # A timer that fired is gone, so one that fired early is set again.
            was.pop(item.name, None)
        return {name: due.get(name) for name in decide.TIMERS if due.get(name) != was.get(name)}


def _ticket_input(event: Payload) -> decide.Event:
    match event:
        case (
            messages.MessageReceived()
            | messages.MessageRevised()
            | customers.CustomerEvent()
            | commands.ReplyToCustomer()
            | commands.AddNote()
            | commands.SolveTicket()
            | commands.EscalateTicket()
            | commands.ReassignTicket()
            | commands.TagTicket()
            | commands.HoldTicket()
            | commands.SnoozeTicket()
            | commands.ResumeTicket()
            | commands.DelegateTicket()
            | commands.ReturnTicket()
            | commands.MarkTicketAsSpam()
            | commands.RestoreTicket()
            | commands.MergeTicket()
            | commands.UnmergeTicket()
            | commands.PromiseCustomer()
            | commands.CallMade()
            | commands.PrioritiseTicket()
            | merging.MergeEvent()
            | routing.RoutingEvent()
            | sla.SlaEvent()
            | notifications.NoticeFailed()
            | notifications.NoticeUnknown()
            | notifications.NoticeSuppressed()
            | notifications.NoticeDeferred()
            | notifications.NoticeDeliveryReported()
            | feedback.FeedbackGiven()
        ):
            return event
        case _:
            raise TypeError(f"router.tickets does not understand {event.TYPE}")


def _rows(
    conversation_id: str, before: Conversation | None, decision: decide.Decision
) -> tuple[Any, ...]:
    rows: list[Any] = [*decision.messages]
    rows.extend(
        event
        for event in decision.events
        if isinstance(event, tickets.TicketEvent | tickets.CommandRefused)
    )
    rows.extend(TicketRow(conversation_id, ticket, "closed") for ticket in decision.closed)
    ticket = decision.state.ticket if decision.state is not None else None
    was = before.ticket if before is not None else None
    # Whatever a row shows changes with an event; deadlines and timers, say, are the state's alone.
    if ticket is not None and (
        was is None or (ticket.ticket_id, ticket.version) != (was.ticket_id, was.version)
    ):
        rows.append(TicketRow(conversation_id, ticket, ticket.standing.status))
    return tuple(rows)


class AssignmentStage(Stage[Domain]):
    """Agents and the offers made to them; the state's key is the routing domain, which is loaded whole.

    Decisions change the domain in place; after a batch that was not committed it is read anew.
    """

    name = "router.assignment"
    topics = (ROSTER, ROUTING_WORK)
    understands = frozenset(
        {
            roster.AgentSet.TYPE,
            roster.AgentRemoved.TYPE,
            roster.PresenceSet.TYPE,
            roster.AgentHeartbeat.TYPE,
            roster.OfferAccepted.TYPE,
            roster.OfferDeclined.TYPE,
            routing.WorkRequested.TYPE,
            routing.WorkWithdrawn.TYPE,
        }
    )
    loads_all = True

    def __init__(self, policies: PolicyHolder[Policy]) -> None:
        self.store = DomainStore(watched_of(policies))
        self._policies = policies

    def decode(self, envelope: Envelope, data: bytes) -> Payload:
        """Read the data of an event, without NULs."""
        return super().decode(envelope, without_nul(data))

    def key(self, envelope: Envelope, event: Payload) -> str:
        """Return the routing domain."""
        del envelope
        match event:
            case routing.WorkRequested(domain=domain) | routing.WorkWithdrawn(domain=domain):
                return domain
            case _:
                return _roster_input(event).domain

    def decide(self, state: Domain | None, item: Input, now: datetime) -> Outcome[Domain]:
        """Ask the core, which changes the domain in place."""
        policy = self._policies.current
        event: assign.Event
        match item:
            case Received(event=routing.WorkRequested() | routing.WorkWithdrawn() as asked):
                event = asked
            case Received(event=said):
                event = _roster_input(said)
                if state is None and item.key not in policy.routing.domains:
                    # Work names domains of the policy; a roster may name anything.
                    return Outcome(is_changed=False, ignored="domain_unknown")
            case Tick():
                event = assign.DueNow()
            case _:
                raise TypeError(
                    f"router.assignment asks for no effects and got {type(item).__name__}"
                )
        domain = state if state is not None else Domain(item.key)
        before = None if isinstance(item, Tick) else domain.next_due()
        decision = assign.decide(domain, event, now, policy.terms)
        due_at = domain.next_due()
        return Outcome(
            state=domain,
            is_changed=domain.is_changed(),
            events=decision.events,
            timers={} if due_at == before else {assign.DUE: due_at},
            rows=tuple(RoutingRow(event, now) for event in decision.events),
            ignored=decision.ignored,
        )


def _roster_input(event: Payload) -> roster.AnyRosterEvent:
    match event:
        case (
            roster.AgentSet()
            | roster.AgentRemoved()
            | roster.PresenceSet()
            | roster.AgentHeartbeat()
            | roster.OfferAccepted()
            | roster.OfferDeclined()
        ):
            return event
        case _:
            raise TypeError(f"router.assignment does not understand {event.TYPE}")
