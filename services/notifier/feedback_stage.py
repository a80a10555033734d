"""Surveys and answers → rows: who was asked, how their case had gone, and what they said.

Reads `tickets` (how a case went), `notifications` (who was asked, whether it arrived) and `commands` (what was answered). It keeps
a few words of each conversation until nobody can be asked about it any more, and writes the tables that reports are made of.
"""

from datetime import datetime, timedelta
from typing import ClassVar, Final
from uuid import UUID

from msgspec import structs

from chassis.errors import InvalidEvent
from chassis.stage import Input, Outcome, Received, Stage, Tick
from schemas import notifications, tickets
from schemas.envelope import Envelope
from schemas.feedback import FeedbackGiven, survey_id
from schemas.payload import Payload
from schemas.topics import COMMANDS, NOTIFICATIONS, TICKETS, Topic
from services.notifier.feedback_store import (
    STAGE,
    AskedRow,
    Asking,
    Cases,
    FeedbackStore,
    SettledRow,
)

FORGET: Final = "forget"
REMEMBERED: Final = timedelta(days=60)
"""How long after its last event a conversation is known: longer than a survey may be put off."""

TICKETS_MAX: Final = 5
"""Tickets of one conversation that are known; surveys ask about the latest."""

UNDERSTOOD: Final[tuple[type[Payload], ...]] = (
    tickets.TicketOpened,
    tickets.TicketStatusChanged,
    tickets.TicketEscalated,
    tickets.TicketReturned,
    tickets.TicketAnswered,
    tickets.TicketAnsweredElsewhere,
    tickets.TicketReopened,
    tickets.TicketSolved,
    tickets.ConversationErased,
    notifications.NoticeRequested,
    notifications.NoticeSent,
    notifications.NoticeFailed,
    notifications.NoticeUnknown,
    notifications.NoticeSuppressed,
    notifications.NoticeDeliveryReported,
    FeedbackGiven,
)
_STATUS: Final = {
    notifications.NoticeSent.TYPE: "sent",
    notifications.NoticeFailed.TYPE: "failed",
    notifications.NoticeUnknown.TYPE: "unknown",
    notifications.NoticeSuppressed.TYPE: "suppressed",
    notifications.NoticeDeliveryReported.TYPE: "failed",
}
"""What a survey's notice is after an event. Of the reports only a bounce comes here: whoever did not get it was not asked."""


class FeedbackStage(Stage[Cases]):
    """One task of what is known of surveys; the state's key is the conversation."""

    name: ClassVar[str] = STAGE
    topics: ClassVar[tuple[Topic, ...]] = (TICKETS, NOTIFICATIONS, COMMANDS)
    understands: ClassVar[frozenset[str]] = frozenset(kind.TYPE for kind in UNDERSTOOD)

    def __init__(self) -> None:
        self.store: FeedbackStore = FeedbackStore()

    def decode(self, envelope: Envelope, data: bytes) -> Payload:
        """Read an event; an answer that does not fit its own survey is refused."""
        event = super().decode(envelope, data)
        if isinstance(event, FeedbackGiven):
            _check(event)
        return event

    def decide(self, state: Cases | None, item: Input, now: datetime) -> Outcome[Cases]:
        """Apply one event."""
        if isinstance(item, Tick):
            return Outcome(state=None)
        assert isinstance(item, Received), "what is known of surveys asks for no effects"
        known = state or Cases()
        match item.event:
            case FeedbackGiven() as given:
                return Outcome(state=state, is_changed=False, rows=(given,))
            case tickets.ConversationErased() as erased:
                return Outcome(state=None, rows=(erased,), timers={FORGET: None})
            case notifications.NoticeDeliveryReported(what="delivered" | "read"):
                return Outcome(state=state, is_changed=False, ignored="arrived_as_thought")
            case notifications.NoticeEvent(occasion="survey") as notice:
                return Outcome(state=state, is_changed=False, rows=(_row(known, notice),))
            case notifications.NoticeEvent():
                return Outcome(state=state, is_changed=False, ignored="no_survey")
            case tickets.TicketEvent() as event:
                return _of_ticket(known, event, now)
            case other:
                raise TypeError(f"{STAGE} does not understand {other.TYPE}")


def _check(event: FeedbackGiven) -> None:
    if event.survey_id != survey_id(event.ticket_id, event.kind):
        raise InvalidEvent("invalid_payload", "survey_id: is not that of the ticket and the kind")
    try:
        UUID(event.ticket_id)
    except ValueError:
        raise InvalidEvent("invalid_payload", "ticket_id: is no UUID") from None


def _row(known: Cases, notice: notifications.NoticeEvent) -> AskedRow | SettledRow:
    if not isinstance(notice, notifications.NoticeRequested):
        return SettledRow(notice.notice_id, _STATUS[notice.TYPE])
    kind = notice.survey_kind or "csat"
    return AskedRow(
        survey_id(notice.ticket_id, kind),
        notice.notice_id,
        notice.ticket_id,
        notice.conversation_id,
        kind,
        known.tickets.get(notice.ticket_id),
        notice.language,
        notice.channel,
        notice.survey_probability,
        notice.at,
    )


def _of_ticket(known: Cases, event: tickets.TicketEvent, now: datetime) -> Outcome[Cases]:
    before = known.tickets.get(event.ticket_id)
    after = _opened(event) if isinstance(event, tickets.TicketOpened) else _went_on(before, event)
    if after is None:
        return Outcome(state=known, is_changed=False, ignored="ticket_unknown")
    if after == before:
        return Outcome(state=known, is_changed=False, ignored="changes_nothing")
    others = {key: one for key, one in known.tickets.items() if key != event.ticket_id}
    kept = dict([*others.items(), (event.ticket_id, after)][-TICKETS_MAX:])
    return Outcome(state=Cases(kept), timers={FORGET: now + REMEMBERED})


def _opened(event: tickets.TicketOpened) -> Asking:
    contact = event.contact
    return Asking(contact.channel, contact.language or "", event.queue)


def _went_on(asking: Asking | None, event: tickets.TicketEvent) -> Asking | None:
    """Return what is known of a ticket after an event of its life; None where it is not known at all."""
    if asking is None:
        return None
    match event:
        case tickets.TicketStatusChanged(queue=queue):
            return structs.replace(asking, queue=queue)
        case tickets.TicketEscalated(to_queue=queue) | tickets.TicketReturned(to_queue=queue):
            return structs.replace(asking, queue=queue)
        case tickets.TicketAnswered() | tickets.TicketAnsweredElsewhere():
            return structs.replace(asking, answers=asking.answers + 1)
        case tickets.TicketReopened(by="message"):
            return structs.replace(asking, is_reopened=True)
        case tickets.TicketSolved(cause=cause):
            return structs.replace(asking, cause=cause)
        case _:
            return asking
