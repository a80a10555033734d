"""Topics → decisions: glue between the loop and the core, and the policy's way in.

Owns the stage `sla` and what it reads. Whatever `routing` says, no clock cares yet: its events are
not in `understands`, so the loop counts them as ignored without reading them. The topic is read
all the same, since a changed topic list is a new topology.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chassis import logs
from chassis.deadletters import Reason
from chassis.errors import PolicyError
from chassis.policy import PolicyFiles, PolicyHolder
from chassis.stage import Input, Outcome, Received, Stage, Tick
from hours.calendar import CalendarError
from hours.file import CALENDARS_FILE, CalendarsFile
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketClosed,
    TicketEscalated,
    TicketMerged,
    TicketMessageAdded,
    TicketNoteAdded,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from schemas.topics import ROUTING, TICKETS
from services.sla import metrics
from services.sla.core import decide as core
from services.sla.core.policy import (
    SLA_FILE,
    Policy,
    PolicyMistake,
    SlaFile,
    build,
)
from services.sla.core.state import Conversation
from services.sla.store import SlaStore, TargetRow

TIMER: Final = "due"
"""The one timer of a conversation: its earliest warning or deadline."""

log = logs.get("sla")


def _build(parsed: Mapping[str, Any], folder: Path, version: str) -> Policy:
    try:
        return build(parsed, folder, version)
    except PolicyMistake as mistake:
        raise PolicyError(mistake.file, mistake.path, mistake.value, mistake.allowed) from mistake


POLICY: Final = PolicyFiles(files={SLA_FILE: SlaFile, CALENDARS_FILE: CalendarsFile}, build=_build)
"""The files this service reads, and how they become its policy."""


class SlaStage(Stage[Conversation]):
    """Reads the life of tickets and tells of their clocks; the state's key is the conversation."""

    name = "sla"
    topics = (TICKETS, ROUTING)
    understands = frozenset(
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
        }
    )

    def __init__(self, policies: PolicyHolder[Policy]) -> None:
        self.store = SlaStore()
        self._policies = policies

    def decide(
        self, state: Conversation | None, item: Input, now: datetime
    ) -> Outcome[Conversation]:
        """Ask the core, and put its answer in the loop's words."""
        policy = self._policies.current
        match item:
            case Received():
                try:
                    decision = core.decide(state, item.event, now, policy)
                except CalendarError as error:
                    # An instant that no clock can count from: nobody can handle it later either.
                    return Outcome(park=(Reason.INVALID_PAYLOAD, str(error)))
            case Tick():
                decision = core.decide(state, core.Tick(), now, policy)
            case _:
                raise TypeError(f"sla asks for no effects and got {type(item).__name__}")
        self._remark(item.key, decision)
        if decision.ignored is not None:
            return self._ignored(item, state, decision)
        rows = [TargetRow(c.ticket_id, item.key, c.target) for c in decision.changed]
        return Outcome(
            state=decision.state,
            events=decision.events,
            timers={TIMER: core.next_due(decision.state)},
            rows=(*rows, *decision.events),
        )

    @staticmethod
    def _ignored(
        item: Input, state: Conversation | None, decision: core.Decision
    ) -> Outcome[Conversation]:
        """Nothing changed. A timer that fired is gone, so one that fired early is set again."""
        assert decision.ignored is not None
        timers = {TIMER: core.next_due(state)} if isinstance(item, Tick) else {}
        return Outcome(state=state, is_changed=False, timers=timers, ignored=decision.ignored.value)

    @staticmethod
    def _remark(conversation_id: str, decision: core.Decision) -> None:
        for remark in decision.remarks:
            metrics.REMARKS.labels(remark.value).inc()
            log.warning(remark.value, conversation_id=conversation_id)
