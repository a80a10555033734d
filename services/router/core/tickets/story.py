"""One ticket within one decision: how it changes step by step, what is told of it, and how it asks for a person."""

from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import structs

from schemas import ids
from schemas import tickets as wire
from schemas.payload import Payload
from schemas.routing import WorkRequested, WorkWithdrawn
from services.router.core.assignment import requirement as requirements
from services.router.core.assignment.requirement import Requirement
from services.router.core.policy.policy import Policy
from services.router.core.policy.rules import Rule
from services.router.core.tickets.known_agent import KnownAgent
from services.router.core.tickets.state import Queued, Resting, Standing, Ticket

SIGNALBOX = "signalbox"
"""Who writes a note that no person wrote."""


class Story:
    """One ticket within one decision: it changes step by step, and what is told is numbered on the way."""

    def __init__(self, conversation_id: str, ticket: Ticket, now: datetime) -> None:
        self.conversation_id = conversation_id
        self.ticket = ticket
        self.now = now
        self.events: list[Payload] = []
        self.command_id: str | None = None
        """The command that is being obeyed, if one is."""

    def change(self, **fields: Any) -> None:
        """Replace fields of the ticket. Whoever becomes its last agent has to do with it now.

        What it rested within its present wait is added up as it stands up; a wait that begins anew has not rested yet.
        """
        if fields.get("last_agent_id", self.ticket.last_agent_id) != self.ticket.last_agent_id:
            fields.setdefault("last_agent_at", self.now)
        standing = fields.get("standing")
        if standing is not None and standing.status != self.ticket.standing.status:
            fields.setdefault("moved_at", self.now)
            fields.setdefault("rested", self.ticket.rested + self._rest())
        if fields.get("entered_at", self.ticket.entered_at) != self.ticket.entered_at:
            fields["rested"] = timedelta()
        self.ticket = structs.replace(self.ticket, **fields)

    def _rest(self) -> timedelta:
        """Return how long the ticket has rested now, as far as that lies within its present wait."""
        ticket = self.ticket
        if not isinstance(ticket.standing, Resting) or ticket.moved_at is None:
            return timedelta()
        return max(self.now - max(ticket.moved_at, ticket.entered_at), timedelta())

    def tell(self, kind: type[wire.TicketEvent], /, **fields: Any) -> None:
        """Tell a fact about the ticket, under its next version."""
        self.change(version=self.ticket.version + 1, updated_at=self.now)
        self.events.append(
            kind(
                ticket_id=self.ticket.ticket_id,
                conversation_id=self.conversation_id,
                version=self.ticket.version,
                at=self.now,
                **fields,
            )
        )

    def move(
        self, standing: Standing, reason: str, agent_id: str | None = None, **more: Any
    ) -> None:
        """Move the ticket on and say so; `more` are further fields of the event."""
        before = self.ticket.standing.status
        self.change(standing=standing)
        self.tell(
            wire.TicketStatusChanged,
            before=before,
            status=standing.status,
            reason=reason,
            agent_id=agent_id,
            queue=self.ticket.queue,
            command_id=self.command_id,
            **more,
        )

    def request_work(
        self,
        reason: str,
        policy: Policy,
        *,
        relax_from: datetime | None = None,
        preferred: str | None = None,
        preferred_at: datetime | None = None,
        excluded: tuple[str, ...] = (),
        transfer: Literal["", "direct", "forced"] = "",
    ) -> None:
        """Ask for a person: the ticket stands queued under a new work id, in the domain that its queue has now.

        `relax_from` is when the patience of what it asks begins (None: when it entered). The longer ago the preferred
        agent had to do with the customer, at `preferred_at` or as the ticket knows, the less they are waited for. `transfer`
        gives it to them without an offer. An owner that was forced is asked first unless somebody else is named.
        """
        if preferred is None and self.ticket.desk == "technical":
            preferred = self.ticket.forced_owner_id
        work_id = next_work_id(self.ticket)
        queue = policy.queue(self.ticket.queue)
        self.change(
            works=self.ticket.works + 1,
            standing=Queued(work_id),
            domain=self.ticket.domain if queue is None else queue.domain,
            relax_from=relax_from,
            excluded=excluded,
        )
        if policy.routing.assignment.on_policy_change == "reevaluate":
            self._ask_as_now(policy)
        if preferred_at is None and preferred == self.ticket.last_agent_id:
            preferred_at = self.ticket.last_agent_at
        known = policy.known_agent_of(self.ticket.rule)
        self._ask(work_id, reason, preferred, excluded, known, preferred_at, transfer)

    def _ask_as_now(self, policy: Policy) -> None:
        """Ask what the ticket's rule asks by the present policy, where both still are in the rule's queue."""
        ticket = self.ticket
        rule = policy.by_name.get(ticket.rule)
        if rule is None or rule.queue != ticket.queue or ticket.policy_version == policy.version:
            return
        spoken = ticket.requirement.language or ticket.contact.language
        own = own_requirement(rule, spoken, policy)
        self.change(policy_version=policy.version, **asked_in(ticket.queue, own, rule.name, policy))

    def repeat_work(self, work_id: str, reason: str) -> None:
        """Tell assignment of a new priority or deadline of the request that stands: its place changes, and nothing else."""
        self._ask(work_id, reason, None, ())

    def _ask(
        self,
        work_id: str,
        reason: str,
        preferred: str | None,
        excluded: tuple[str, ...],
        known: KnownAgent | None = None,
        preferred_at: datetime | None = None,
        transfer: Literal["", "direct", "forced"] = "",
    ) -> None:
        self.change(asked_due_at=self.ticket.due_at)
        ticket = self.ticket
        hold = None if known is None or preferred is None else known.hold(preferred_at, self.now)
        self.events.append(
            WorkRequested(
                domain=ticket.domain,
                work_id=work_id,
                ticket_id=ticket.ticket_id,
                conversation_id=self.conversation_id,
                queue=ticket.queue,
                priority=ticket.priority,
                cost=ticket.cost,
                requirement=requirements.to_wire(ticket.requirement),
                entered_at=ticket.entered_at,
                relax_from=ticket.relax_from,
                preferred_agent_id=preferred,
                excluded_agent_ids=excluded,
                channel=ticket.contact.channel,
                hold_seconds=hold,
                due_at=ticket.due_at,
                transfer=transfer,
                customer_id=ticket.contact.customer_id,
                known_patience_seconds=0 if known is None else known.patience.total_seconds(),
                known_half_life_seconds=0 if known is None else known.half_life.total_seconds(),
                reason=reason,
                rule=ticket.rule,
                policy_version=ticket.policy_version,
            )
        )

    def withdraw_work(self, reason: str) -> None:
        """Tell assignment that nobody is needed any more, if somebody was."""
        work_id = self.ticket.work_id
        if work_id is not None:
            self.events.append(
                WorkWithdrawn(
                    domain=self.ticket.domain,
                    work_id=work_id,
                    ticket_id=self.ticket.ticket_id,
                    conversation_id=self.conversation_id,
                    reason=reason,
                )
            )


def next_work_id(ticket: Ticket) -> str:
    """Name the ticket's next request for a person."""
    return ids.derive("work", ticket.ticket_id, str(ticket.works + 1))


def own_requirement(rule: Rule, language: str | None, policy: Policy) -> Requirement:
    """Return what a rule itself asks for a customer of a language."""
    spoken = policy.language(language) if rule.is_language_asked else None
    return structs.replace(rule.requirement, language=spoken)


def asked_in(queue: str, own: Requirement, rule: str, policy: Policy) -> dict[str, Any]:
    """Return the fields of a ticket that say what it asks in a queue: all of it, and its own part where that is less."""
    asked = policy.asked_in(queue, own, rule)
    return {"requirement": asked, "asked": None if asked == own else own}
