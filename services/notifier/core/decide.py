"""The decisions of the notifier: what each event means for what the customer is told.

A notice is requested once (its id derives from its cause), handed to the provider, and ends sent, failed, unknown or
suppressed. One that the provider may have taken is never blindly sent again. `occasions.py` says what an event is an occasion
for, `words.py` makes the message, `settle.py` follows its way; here is who is asked.
"""

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from schemas.commands import NotifyCustomer, ResendNotice
from schemas.feedback import ContactOptedIn, ContactOptedOut, FeedbackGiven
from schemas.messages import MessageDeliveryReported, MessageReceived
from schemas.notifications import AnyNoticeEvent, NoticeSuppressed, NoticeUnknown
from schemas.sla import BreachRetracted, TargetBreached, WaitPromised
from schemas.tickets import (
    ConversationErased,
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketCalled,
    TicketClosed,
    TicketEscalated,
    TicketMerged,
    TicketMessageAdded,
    TicketOpened,
    TicketPrioritised,
    TicketPromised,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from services.notifier.core import occasions, resend, settle, wishes
from services.notifier.core.articles import ArticlesFound
from services.notifier.core.delivery import SendSettled
from services.notifier.core.reason import Suppression, cause_of
from services.notifier.core.searching import forgotten_at, heard, without_questions
from services.notifier.core.state import (
    Conversation,
    Deferred,
    Doubted,
    Held,
    Notice,
    Planned,
    Sending,
    Settled,
    Waiting,
)
from services.notifier.core.told import Context, Decision, about, supersede, with_case


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time of the earliest retry, or of a lookup, has come."""


@dataclass(frozen=True, slots=True)
class PromiseDue:
    """What can be promised was waited for long enough, or the ticket of a message that asks something."""


@dataclass(frozen=True, slots=True)
class DeferredDue:
    """The time of the earliest notice that was put off has come."""


@dataclass(frozen=True, slots=True)
class FollowUpDue:
    """The time of the earliest planned notice has come."""


TicketEvent = (
    TicketOpened
    | TicketMessageAdded
    | TicketReopened
    | TicketAnswered
    | TicketAnsweredElsewhere
    | TicketEscalated
    | TicketSolved
    | TicketStatusChanged
    | TicketPromised
    | TicketCalled
    | TicketTagged
    | TicketPrioritised
    | TicketMerged
    | TicketUnmerged
    | TicketClosed
    | ConversationErased
)
OtherEvent = (
    WaitPromised
    | TargetBreached
    | BreachRetracted
    | NotifyCustomer
    | ResendNotice
    | FeedbackGiven
    | ContactOptedOut
    | ContactOptedIn
    | MessageReceived
    | MessageDeliveryReported
)
OwnEvent = SendSettled | ArticlesFound | RetryDue | PromiseDue | DeferredDue | FollowUpDue
Event = TicketEvent | OtherEvent | OwnEvent

next_due = settle.next_due
deferred_due = occasions.deferred_due
follow_up_due = occasions.follow_up_due


def promise_due(state: Conversation) -> datetime | None:
    """Return when what can be promised was waited for long enough, or what a message asked is forgotten."""
    due = [at for at in (occasions.promise_due(state), forgotten_at(state)) if at is not None]
    return min(due, default=None)


def decide(conversation_id: str, state: Conversation, event: Event, context: Context) -> Decision:
    """Apply one event to a conversation. Same input, same output, to the byte."""
    match event:
        case (
            SendSettled()
            | ArticlesFound()
            | RetryDue()
            | PromiseDue()
            | DeferredDue()
            | FollowUpDue()
        ):
            decision = _go_on(conversation_id, state, event, context)
        case (
            WaitPromised()
            | TargetBreached()
            | BreachRetracted()
            | NotifyCustomer()
            | ResendNotice()
            | FeedbackGiven()
            | ContactOptedOut()
            | ContactOptedIn()
            | MessageReceived()
            | MessageDeliveryReported()
        ):
            decision = _heard(conversation_id, state, event, context)
        case _:
            decision = _of_ticket(conversation_id, state, event, context)
    return decision._replace(state=_tidy(decision.state, event, context.now))


def _of_ticket(
    conversation_id: str, state: Conversation, event: TicketEvent, context: Context
) -> Decision:
    match event:
        case (
            TicketOpened()
            | TicketAnswered()
            | TicketEscalated()
            | TicketSolved()
            | TicketReopened()
        ) if cause_of(event).notice_id in state.notices:
            return Decision(state, ignored="already_told")
        case TicketOpened():
            return occasions.opened(conversation_id, state, event, context)
        case (
            TicketMessageAdded(is_automatic=True) | TicketMessageAdded(kind="bounce" | "auto_reply")
        ):
            return Decision(state, ignored="automatic_message")
        case TicketMessageAdded():
            return occasions.wrote(conversation_id, state, event, context)
        case TicketReopened():
            return occasions.reopened(conversation_id, state, event, context)
        case TicketAnswered():
            return occasions.answered(conversation_id, state, event, context)
        case TicketAnsweredElsewhere():
            return occasions.answered_elsewhere(conversation_id, state, event, context)
        case TicketEscalated():
            return occasions.escalated(conversation_id, state, event, context)
        case TicketSolved():
            return occasions.solved(conversation_id, state, event, context)
        case TicketStatusChanged():
            return occasions.status_changed(conversation_id, state, event, context)
        case TicketPromised():
            return occasions.call_promised(conversation_id, state, event, context)
        case TicketCalled():
            return occasions.called(conversation_id, state, event, context)
        case _:
            return _noted(conversation_id, state, event, context)


def _noted(
    conversation_id: str,
    state: Conversation,
    event: TicketTagged
    | TicketPrioritised
    | TicketMerged
    | TicketUnmerged
    | TicketClosed
    | ConversationErased,
    context: Context,
) -> Decision:
    """Take in what is no occasion, and changes what later ones say or whether there are any."""
    match event:
        case TicketTagged(ticket_id=ticket_id, tags=tags):
            return Decision(with_case(state, ticket_id, tags=tags))
        case TicketPrioritised():
            return occasions.raised(conversation_id, state, event, context)
        case TicketMerged(ticket_id=ticket_id):
            # What is said from now on is said in the other case.
            gone = with_case(state, ticket_id, standing="over", word=None)
            return supersede(conversation_id, gone, ticket_id, "merged", context)
        case TicketUnmerged(ticket_id=ticket_id):
            return Decision(with_case(state, ticket_id, standing="open"))
        case TicketClosed(ticket_id=ticket_id):
            return Decision(with_case(state, ticket_id, is_closed=True))
        case ConversationErased():
            return _without_person(conversation_id, state, context)


def _heard(
    conversation_id: str, state: Conversation, event: OtherEvent, context: Context
) -> Decision:
    match event:
        case WaitPromised():
            return occasions.promised(conversation_id, state, event, context)
        case TargetBreached():
            return occasions.breached(conversation_id, state, event, context)
        case BreachRetracted():
            return occasions.retracted(conversation_id, state, event, context)
        case NotifyCustomer():
            return occasions.asked(conversation_id, state, event, context)
        case ResendNotice():
            return resend.resend(conversation_id, state, event, context)
        case FeedbackGiven():
            return occasions.felt(conversation_id, state, event, context)
        case ContactOptedOut() | ContactOptedIn():
            return wishes.wished(conversation_id, state, event, context)
        case MessageReceived() if event.content.kind != "bounce":
            asking = heard(state, event, context)
            return wishes.written(conversation_id, asking, event, context)
        case MessageReceived():
            # Anybody can write one, and one may say that a mail is only late: what is believed comes as a report.
            return Decision(state, ignored="told_by_its_report")
        case MessageDeliveryReported():
            return settle.reported(conversation_id, state, event, context)


def _go_on(
    conversation_id: str, state: Conversation, event: OwnEvent, context: Context
) -> Decision:
    """Apply what concerns notices that are under way, held back or planned."""
    match event:
        case SendSettled():
            return settle.settle(conversation_id, state, event, context)
        case ArticlesFound():
            return occasions.found(conversation_id, state, event, context)
        case RetryDue():
            return settle.retry(conversation_id, state, context)
        case PromiseDue():
            return occasions.unpromised(conversation_id, state, context)
        case DeferredDue():
            return occasions.resume(conversation_id, state, context)
        case FollowUpDue():
            return occasions.follow_up(conversation_id, state, context)


# ------------------------------------------------------------------------------------------ forgetting


CASELESS_KEPT: Final = timedelta(days=30)
"""How long a notice that is of no case (an outage's, say) is remembered after its end, so that a repeat changes nothing."""


def _tidy(state: Conversation, event: Event, now: datetime) -> Conversation:
    """Forget closed tickets, but for those of which a notice is still to come or under way; old notices of no case; and what a
    message asked that has gone to an open case.
    """
    added = event.message_id if isinstance(event, TicketMessageAdded) else None
    state = without_questions(state, now, added)
    if state.early and not settle.is_under_way(state):
        state = structs.replace(state, early={})  # Nothing is awaited that they could be about.
    closed = {ticket_id for ticket_id, case in state.cases.items() if case.is_closed}
    if closed:
        closed -= {one.ticket_id for one in state.notices.values() if not isinstance(one, Settled)}
    gone = {key for key, one in state.notices.items() if _is_gone(state, one, closed, now)}
    if not closed and not gone:
        return state
    return structs.replace(
        state,
        notices={key: one for key, one in state.notices.items() if key not in gone},
        cases={key: one for key, one in state.cases.items() if key not in closed},
        promises={key: one for key, one in state.promises.items() if key not in closed},
    )


def _is_gone(state: Conversation, one: Notice, closed: Set[str], now: datetime) -> bool:
    if one.ticket_id in closed:
        return True
    if one.ticket_id in state.cases or not isinstance(one, Settled):
        return False
    return one.ended_at is not None and one.ended_at + CASELESS_KEPT <= now


def _without_person(conversation_id: str, state: Conversation, context: Context) -> Decision:
    """Forget whom we told, and drop what has not gone out; what is under way has no further attempt."""
    notices: dict[str, Notice] = {}
    events: list[AnyNoticeEvent] = []
    for notice_id, notice in sorted(state.notices.items()):
        match notice:
            case Planned():
                pass
            case Held() | Waiting(doubted_at=None) | Deferred():
                facts = about(
                    conversation_id, notice_id, notice.ticket_id, notice.occasion, context.now
                )
                events.append(NoticeSuppressed(**facts, reason=Suppression.CUSTOMER_ERASED.value))
                notices[notice_id] = Settled(
                    notice.ticket_id, notice.occasion, "suppressed", ended_at=context.now
                )
            case Waiting() | Doubted():
                # It may have gone out: nobody asks any more, for that would need the words.
                facts = about(
                    conversation_id, notice_id, notice.ticket_id, notice.occasion, context.now
                )
                events.append(
                    NoticeUnknown(
                        **facts,
                        provider=notice.provider,
                        account=notice.account,
                        reason=Suppression.CUSTOMER_ERASED.value,
                        attempts=notice.attempt,
                    )
                )
                notices[notice_id] = Settled(
                    notice.ticket_id, notice.occasion, "unknown", ended_at=context.now
                )
            case Sending():
                notices[notice_id] = structs.replace(notice, is_superseded=True, matter=None)
            case Settled():
                notices[notice_id] = structs.replace(notice, matter=None, message=None)
    after = Conversation(
        automatic_since_human=state.automatic_since_human, cases=state.cases, notices=notices
    )
    return Decision(after, tuple(events))
