"""Topics → decisions: glue between the loop and the core, and the policy's way in.

Owns the stage `sla` and what it reads: the life of tickets, and of `routing` what moves a clock. The
rest of either topic is not in `understands`, so the loop counts it as ignored without reading it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chassis import logs
from chassis.deadletters import Reason
from chassis.errors import PolicyError
from chassis.policy import PolicyFiles
from chassis.stage import Connection, Input, Outcome, Received, Revisit, Stage, Tick
from hours.calendar import CalendarError
from hours.file import CALENDARS_FILE, CalendarsFile
from schemas.payload import Payload
from schemas.routing import (
    OfferMade,
    OfferWithdrawn,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    WorkReleased,
)
from schemas.sla import SlaEvent, TargetBreached
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketCalled,
    TicketClosed,
    TicketCustomerDescribed,
    TicketEscalated,
    TicketMerged,
    TicketMessageAdded,
    TicketNoteAdded,
    TicketOpened,
    TicketPrioritised,
    TicketPromised,
    TicketReopened,
    TicketReturned,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from schemas.topics import ROUTING, TICKETS
from services.sla import metrics
from services.sla.calendar_feeds import FedPolicies, Policies
from services.sla.core import alerts, pages, promised
from services.sla.core.book import Decision
from services.sla.core.book import Tick as Due
from services.sla.core.cases import CaseChange, change_of
from services.sla.core.decide import decide, next_due
from services.sla.core.pages import PAGES_FILE, PagesFile, PagesMistake
from services.sla.core.policy import (
    SLA_FILE,
    Policy,
    PolicyMistake,
    SlaFile,
    build,
)
from services.sla.core.promised import WaitOpened
from services.sla.core.recount import Recount, calendar_digests, rules_digest
from services.sla.core.recount import revision as revision_of
from services.sla.core.state import Conversation
from services.sla.core.waits import NOTHING_KNOWN, Estimates
from services.sla.recount_orders import Orders
from services.sla.recount_scope import Parts, Scope
from services.sla.store import SlaStore, TargetRow

TIMER: Final = "due"
"""The one timer of a conversation: its earliest warning or deadline."""

log = logs.get("sla")


def _build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    try:
        return replace(build(parsed, folder, version), pages=pages.build(parsed))
    except (PolicyMistake, PagesMistake) as mistake:
        raise PolicyError(mistake.file, mistake.path, mistake.value, mistake.allowed) from mistake


POLICY: Final = PolicyFiles(
    files={SLA_FILE: SlaFile, CALENDARS_FILE: CalendarsFile, PAGES_FILE: PagesFile},
    build=_build,
    optional=frozenset({PAGES_FILE}),
)
"""The files this service reads, and how they become its policy."""


class SlaStage(Stage[Conversation]):
    """Reads the life of tickets and tells of their clocks; the state's key is the conversation."""

    name = "sla"
    topics = (TICKETS, ROUTING)
    understands = (
        frozenset(
            {
                TicketOpened.TYPE,
                TicketMessageAdded.TYPE,
                TicketReopened.TYPE,
                TicketAnswered.TYPE,
                TicketAnsweredElsewhere.TYPE,
                TicketNoteAdded.TYPE,
                TicketStatusChanged.TYPE,
                TicketEscalated.TYPE,
                TicketSolved.TYPE,
                TicketClosed.TYPE,
                TicketTagged.TYPE,
                TicketMerged.TYPE,
                TicketUnmerged.TYPE,
                TicketAbsorbed.TYPE,
                TicketSplitOff.TYPE,
                TicketPrioritised.TYPE,
                TicketReturned.TYPE,
                TicketPromised.TYPE,
                TicketCalled.TYPE,
                TicketCustomerDescribed.TYPE,
                TicketQueued.TYPE,
                TicketRequeued.TYPE,
                OfferMade.TYPE,
                TicketAssigned.TYPE,
                OfferWithdrawn.TYPE,
                WorkReleased.TYPE,
            }
        )
        | alerts.UNDERSTOOD
    )

    def __init__(self, policies: Policies) -> None:
        self.store = SlaStore()
        self._policies = policies
        self._orders: Orders | None = None
        self._named: tuple[Policy, Orders, str] | None = None
        self._scope = Scope(self.name)
        self._estimates: Callable[[], Estimates] = lambda: NOTHING_KNOWN

    def take_estimates(self, current: Callable[[], Estimates]) -> None:
        """Promise by the estimates that `current` gives, those in force at each decision."""
        self._estimates = current

    def take_orders(self, orders: Orders) -> None:
        """Recount by these orders from now on."""
        self._orders = orders

    def revision(self) -> str | None:
        """The name of what open deadlines depend on: calendars, the policies that hold running clocks to them, the last orders.

        None until orders and feeds have been read once: a process that has just started must not count everything anew.
        """
        policies = self._policies
        is_fed = not isinstance(policies, FedPolicies) or policies.revision() is not None
        if self._orders is None or not is_fed:
            return None
        policy, orders = policies.current, self._orders
        named = self._named
        if named is None or named[0] is not policy or named[1] != orders:
            # Orders may be committed out of order: one that judges breaches counts though a later one is known.
            order = f"{orders.latest}.{orders.judging}"
            revision = f"{revision_of(policy)}.{order}"
            self._named = named = policy, orders, revision
            parts = Parts(calendar_digests(policy), f"{rules_digest(policy)}.{order}")
            self._scope.in_force(revision, parts)
        return named[2]

    async def revisit_keys(
        self, connection: Connection, task: int, after: str, limit: int
    ) -> Sequence[str]:
        """The conversations that a change can concern: after one of calendars, those with an open clock by such a one."""
        return await self._scope.keys(connection, task, after, limit)

    def decide(
        self, state: Conversation | None, item: Input, now: datetime
    ) -> Outcome[Conversation]:
        """Ask the core, and put its answer in the loop's words."""
        policy, estimates = self._policies.current, self._estimates()
        if self._named is not None and self._named[0] is not policy:
            self.revision()  # What is decided by is known from the first decision on, also if it is gone by the next.
        match item:
            case Received():
                try:
                    decision = decide(state, item.event, now, policy)
                except CalendarError as error:
                    # An instant that no clock can count from: nobody can handle it later either.
                    return Outcome(park=(Reason.INVALID_PAYLOAD, str(error)))
            case Tick():
                decision = decide(state, Due(), now, policy, estimates)
            case Revisit():
                try:
                    decision = decide(state, self._recount(), now, policy)
                except CalendarError as error:
                    # The calendar opens too seldom by now: the deadline stays what it was, and somebody should know.
                    log.error(  # noqa: TRY400 - a sentence is enough
                        "deadline_not_recounted", conversation_id=item.key, problem=str(error)
                    )
                    return Outcome(state=state, is_changed=False, ignored="not_recounted")
            case _:
                raise TypeError(f"sla asks for no effects and got {type(item).__name__}")
        self._remark(item.key, decision)
        heard = item.event if isinstance(item, Received) else None
        told = [event for event in decision.events if isinstance(event, SlaEvent)]
        if isinstance(item, Revisit) and told:
            # Nobody is called for a promise that was kept late, as it turns out, and asks for nothing more.
            settled = {one.target.target_id for one in decision.changed if not one.target.is_open}
            told = [
                event
                for event in told
                if not (isinstance(event, TargetBreached) and event.target_id in settled)
            ]
        calls = alerts.changes(policy.pages, heard, told, decision.state or state, now)
        if decision.ignored is not None:
            return self._ignored(item, state, decision, calls)
        begun = None if heard is None else promised.opened(heard, decision, policy, estimates, now)
        promise = begun.told if isinstance(begun, WaitOpened) else begun
        waits = [begun] if isinstance(begun, WaitOpened) else []
        stands = promised.standing(decision.changed)
        rows = [TargetRow(c.ticket_id, item.key, c.target, c.facts) for c in decision.changed]
        cases = case_changes(item, decision.events)
        return Outcome(
            state=decision.state,
            events=decision.events if promise is None else (*decision.events, promise),
            timers={TIMER: next_due(decision.state)},
            rows=[*rows, *decision.events, *cases, *calls, *waits, *stands],
        )

    def _recount(self) -> Recount:
        orders = self._orders or Orders()
        return Recount(orders.judging > 0, orders.judging, orders.judging_at)

    @staticmethod
    def _ignored(
        item: Input,
        state: Conversation | None,
        decision: Decision,
        calls: Sequence[alerts.Change],
    ) -> Outcome[Conversation]:
        """No clock changed. A timer that fired is gone, so one that fired early is set again."""
        assert decision.ignored is not None
        timers = {TIMER: next_due(state)} if isinstance(item, Tick) else {}
        return Outcome(
            state=state,
            is_changed=False,
            timers=timers,
            rows=(*case_changes(item, ()), *calls),
            ignored=None if calls else decision.ignored.value,
        )

    @staticmethod
    def _remark(conversation_id: str, decision: Decision) -> None:
        for remark in decision.remarks:
            metrics.REMARKS.labels(remark.value).inc()
            log.warning(remark.value, conversation_id=conversation_id)


def case_changes(item: Input, told: Sequence[Payload]) -> list[CaseChange]:
    """What an input changes of its ticket's row for reports, and what was told on it; clocks or none."""
    heard: tuple[Payload, ...] = (item.event,) if isinstance(item, Received) else ()
    return [change for event in (*heard, *told) if (change := change_of(event)) is not None]
