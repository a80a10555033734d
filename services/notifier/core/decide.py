"""The decisions of the notifier: what each event means for what the customer is told.

A notice is requested once (its id derives from its cause), handed to the provider, and ends sent, failed, unknown or
suppressed. One that the provider may have taken is never sent again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import structs

from schemas import tickets
from schemas.notifications import (
    AnyNoticeEvent,
    NoticeFailed,
    NoticeRequested,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
    Occasion,
)
from schemas.sla import WaitPromised
from schemas.tickets import (
    ConversationErased,
    TicketAnswered,
    TicketClosed,
    TicketEscalated,
    TicketMessageAdded,
    TicketOpened,
    TicketReopened,
    TicketSolved,
)
from services.notifier.core.audience import language_of, mail_address, sender_of
from services.notifier.core.delivery import (
    PROVIDER,
    Delivered,
    Failed,
    SendNotice,
    SendSettled,
    Unknown,
    compose,
    extend,
    retry_at,
    thread_id,
)
from services.notifier.core.policy import Policy
from services.notifier.core.promise import EARLY_MAX, promise_of, said
from services.notifier.core.reason import (
    OCCASION_EVENTS,
    SUPERSEDES,
    Cause,
    Suppression,
    cause_of,
    suppression,
)
from services.notifier.core.render import Facts, RenderError, Words, format_instant
from services.notifier.core.state import (
    Case,
    Contact,
    Conversation,
    Held,
    Mail,
    Notice,
    Promise,
    Sending,
    Settled,
    Waiting,
)
from services.notifier.core.text import clean_line, clean_text, greeting_name, reply_subject
from services.notifier.core.throttle import Recent

REASON_LENGTH_MAX = 300


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on besides state and event. `secret` signs the reply tokens."""

    policy: Policy
    secret: bytes
    workspace: str
    now: datetime
    recent: Recent


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time of the earliest retry has come."""


@dataclass(frozen=True, slots=True)
class PromiseDue:
    """What can be promised was waited for long enough."""


Event = (
    TicketOpened
    | TicketMessageAdded
    | TicketReopened
    | TicketAnswered
    | TicketEscalated
    | TicketSolved
    | TicketClosed
    | ConversationErased
    | WaitPromised
    | SendSettled
    | RetryDue
    | PromiseDue
)


class Decision(NamedTuple):
    """The conversation afterwards, the facts to publish, the mails to hand over; or why the event means nothing."""

    state: Conversation
    events: tuple[AnyNoticeEvent, ...] = ()
    sends: tuple[SendNotice, ...] = ()
    ignored: str | None = None


def decide(conversation_id: str, state: Conversation, event: Event, context: Context) -> Decision:
    """Apply one event to a conversation. Same input, same output, to the byte."""
    match event:
        case TicketOpened() | TicketAnswered() | TicketEscalated() | TicketSolved() if (
            cause_of(event).notice_id in state.notices
        ):
            return Decision(state, ignored="already_told")
        case TicketOpened():
            return _acknowledge(conversation_id, _with_opening(state, event), event, context)
        case (
            TicketMessageAdded(is_automatic=True) | TicketMessageAdded(kind="bounce" | "auto_reply")
        ):
            return Decision(state, ignored="automatic_message")
        case TicketMessageAdded():
            return Decision(_with_message(state, event))
        case TicketReopened():
            return _supersede(
                conversation_id,
                structs.replace(state, automatic_since_human=0),
                event.ticket_id,
                "reopened",
                context,
            )
        case TicketAnswered():
            human = structs.replace(state, automatic_since_human=0)
            return _tell(conversation_id, human, event, context)
        case TicketSolved(with_answer=True):
            # The answer was the last word; what is stale by now it has superseded.
            return Decision(state, ignored="told_by_the_answer")
        case TicketEscalated() if _is_told_with_opening(state, event):
            return Decision(state, ignored="told_with_the_opening")
        case TicketEscalated() | TicketSolved():
            return _tell(conversation_id, state, event, context)
        case TicketClosed():
            return Decision(_without_closed(state, event.ticket_id))
        case ConversationErased():
            return _without_person(conversation_id, state, context)
        case _:
            return _go_on(conversation_id, state, event, context)


def _go_on(
    conversation_id: str,
    state: Conversation,
    event: WaitPromised | SendSettled | RetryDue | PromiseDue,
    context: Context,
) -> Decision:
    """Apply what concerns notices that are under way or held back."""
    match event:
        case WaitPromised():
            return _promised(conversation_id, state, event, context)
        case SendSettled():
            return _settle(conversation_id, state, event, context)
        case RetryDue():
            return _retry(state, context)
        case PromiseDue():
            return _unpromised(conversation_id, state, context)


def next_due(state: Conversation) -> datetime | None:
    """Return when `decide` next wants a `RetryDue`."""
    waiting = [notice.retry_at for notice in state.notices.values() if isinstance(notice, Waiting)]
    return min(waiting, default=None)


def promise_due(state: Conversation) -> datetime | None:
    """Return when `decide` next wants a `PromiseDue`."""
    held = [notice.until for notice in state.notices.values() if isinstance(notice, Held)]
    return min(held, default=None)


# ------------------------------------------------------------------------------------- what is known


def _contact(contact: tickets.Contact) -> Contact:
    return Contact(
        name=clean_line(contact.name),
        address=clean_line(contact.address, limit=320),
        address_kind=contact.address_kind,
        channel=clean_line(contact.channel),
        account=clean_line(contact.account),
        language=clean_line(contact.language or "", limit=35) or None,
        is_verified=contact.is_verified,
    )


def _with_opening(state: Conversation, event: TicketOpened) -> Conversation:
    """The router opens tickets for people only, so a person has written.

    A follow-up that is doubted, or that comes from an unproved address where a proved one is known, changes neither
    where answers go nor which subject they carry.
    """
    old, new = state.contact, _contact(event.contact)
    is_believed = old is None or (event.suspicion is None and _may_replace(old, new))
    answered = thread_id(new.channel, event.vendor_message_id)
    case = Case(clean_line(event.reference, limit=40), event.occurred_at, event.at)
    return structs.replace(
        state,
        contact=new if is_believed else old,
        subject=clean_line(event.subject) if is_believed else state.subject,
        in_reply_to=answered or state.in_reply_to,
        references=extend(state.references, answered),
        automatic_since_human=0,
        cases={**state.cases, event.ticket_id: case},
    )


def _is_told_with_opening(state: Conversation, event: TicketEscalated) -> bool:
    """Whether the ticket went up as it was opened, by its words, and the customer was told of the opening.

    To them it is one thing that happened, so it is one mail. A later escalation is told as the first.
    """
    case = state.cases.get(event.ticket_id)
    if case is None or case.opened_at != event.at:
        return False
    return _has_been_told(state, event.ticket_id, "received")


def _has_been_told(state: Conversation, ticket_id: str, occasion: Occasion) -> bool:
    """Whether a notice of that kind went out for the ticket, is on its way, or may have gone out."""
    return any(
        (one.ticket_id, one.occasion) == (ticket_id, occasion)
        and not (isinstance(one, Settled) and one.status in ("suppressed", "failed"))
        for one in state.notices.values()
    )


def _may_replace(old: Contact | None, new: Contact) -> bool:
    """A proved address is never replaced by one that is not: answers must not follow whoever claims a new one."""
    return old is None or not old.is_verified or new.is_verified


def _with_message(state: Conversation, event: TicketMessageAdded) -> Conversation:
    old = state.contact
    new = _contact(event.contact) if event.contact is not None else None
    contact = new if new is not None and _may_replace(old, new) else old
    writer = new or contact
    answered = thread_id(writer.channel, event.vendor_message_id) if writer else None
    return structs.replace(
        state,
        contact=contact,
        in_reply_to=answered or state.in_reply_to,
        references=extend(state.references, answered),
        automatic_since_human=0,
    )


def _without_closed(state: Conversation, ticket_id: str) -> Conversation:
    """Forget a closed ticket but for notices that are still under way."""
    notices = {
        notice_id: notice
        for notice_id, notice in state.notices.items()
        if notice.ticket_id != ticket_id or not isinstance(notice, Settled)
    }
    cases = {key: case for key, case in state.cases.items() if key != ticket_id}
    promises = {key: one for key, one in state.promises.items() if key != ticket_id}
    return structs.replace(state, notices=notices, cases=cases, promises=promises)


def _without_person(conversation_id: str, state: Conversation, context: Context) -> Decision:
    """Forget whom we told, and drop what waits for another attempt; what is under way has no further one."""
    notices: dict[str, Notice] = dict(state.notices)
    events: list[AnyNoticeEvent] = []
    for notice_id, notice in sorted(state.notices.items()):
        match notice:
            case Held() | Waiting():
                about = _facts_of(conversation_id, notice_id, notice, context.now)
                events.append(NoticeSuppressed(**about, reason=Suppression.CUSTOMER_ERASED.value))
                notices[notice_id] = Settled(notice.ticket_id, notice.occasion, "suppressed")
            case Sending():
                notices[notice_id] = structs.replace(notice, is_superseded=True)
            case Settled():
                pass
    after = Conversation(
        automatic_since_human=state.automatic_since_human, cases=state.cases, notices=notices
    )
    return Decision(after, tuple(events))


def _with_notice(state: Conversation, notice_id: str, notice: Notice) -> Conversation:
    return structs.replace(state, notices={**state.notices, notice_id: notice})


# ------------------------------------------------------------------------------------ telling someone


def _acknowledge(
    conversation_id: str, state: Conversation, event: TicketOpened, context: Context
) -> Decision:
    """Say that the case has arrived: at once if it is known what can be promised, else as soon as it is, in a while at most."""
    promise = state.promises.get(event.ticket_id)
    if promise is not None or not context.policy.promise_wait:
        early = {key: one for key, one in state.promises.items() if key != event.ticket_id}
        fresh = structs.replace(state, promises=early)
        return _tell(conversation_id, fresh, event, context, promise)
    cause = cause_of(event)
    refused = _refusal(state, cause, context)
    if refused is not None:
        return _suppressed(conversation_id, state, cause, refused, context)
    until = context.now + context.policy.promise_wait
    held = Held(cause.ticket_id, cause.occasion, cause.cause_id, until)
    return Decision(_with_notice(state, cause.notice_id, held))


def _promised(
    conversation_id: str, state: Conversation, event: WaitPromised, context: Context
) -> Decision:
    """Take in what can be promised. One that comes after the notice is told nobody; a second mail for it would be worse."""
    held = [one for one in _held(state) if one.ticket_id == event.ticket_id]
    if held:
        return _release(conversation_id, state, held, context, promise_of(event))
    if event.ticket_id in state.cases:
        return Decision(state, ignored="promise_late")
    # Two topics keep no order between them: the ticket itself has not been heard of yet.
    early = {**state.promises, event.ticket_id: promise_of(event)}
    kept = dict(sorted(early.items(), key=lambda item: (item[1].at, item[0]))[-EARLY_MAX:])
    return Decision(structs.replace(state, promises=kept))


def _unpromised(conversation_id: str, state: Conversation, context: Context) -> Decision:
    """Nobody has said what can be promised: the notices go without."""
    due = [one for one in _held(state) if one.until <= context.now]
    return _release(conversation_id, state, due, context, None)


def _held(state: Conversation) -> list[Held]:
    found = [notice for notice in state.notices.values() if isinstance(notice, Held)]
    return sorted(found, key=lambda one: (one.until, one.ticket_id, one.cause_id))


def _release(
    conversation_id: str,
    state: Conversation,
    held: list[Held],
    context: Context,
    promise: Promise | None,
) -> Decision:
    """Write what was held back, unless the rules stand against it by now."""
    events: list[AnyNoticeEvent] = []
    sends: list[SendNotice] = []
    for one in held:
        cause = Cause(one.ticket_id, one.occasion, one.cause_id)
        notices = {key: kept for key, kept in state.notices.items() if key != cause.notice_id}
        bare = structs.replace(state, notices=notices)
        told = _say(conversation_id, bare, None, cause, context, promise)
        state = told.state
        events += told.events
        sends += told.sends
    return Decision(state, tuple(events), tuple(sends))


def _tell(
    conversation_id: str,
    state: Conversation,
    event: OCCASION_EVENTS,
    context: Context,
    promise: Promise | None = None,
) -> Decision:
    """Tell the customer, or say why not. What this makes stale is dropped first, even where nothing is told."""
    cause = cause_of(event)
    fresh, dropped, _, _ = _supersede(
        conversation_id, state, cause.ticket_id, cause.occasion, context
    )
    answer = event if isinstance(event, TicketAnswered) else None
    told = _say(conversation_id, fresh, answer, cause, context, promise)
    return told._replace(events=(*dropped, *told.events))


def _say(
    conversation_id: str,
    state: Conversation,
    answer: TicketAnswered | None,
    cause: Cause,
    context: Context,
    promise: Promise | None,
) -> Decision:
    refused = _refusal(state, cause, context)
    if refused is not None:
        return _suppressed(conversation_id, state, cause, refused, context)
    return _request(conversation_id, state, answer, cause, context, promise)


def _refusal(state: Conversation, cause: Cause, context: Context) -> Suppression | None:
    refused = suppression(context.policy, context.workspace, state, cause, context.recent)
    if cause.occasion == "received" and _has_been_told(state, cause.ticket_id, "escalated"):
        return refused or Suppression.SUPERSEDED
    return refused


def _suppressed(
    conversation_id: str, state: Conversation, cause: Cause, reason: Suppression, context: Context
) -> Decision:
    about = _about(conversation_id, cause, context.now)
    settled = Settled(cause.ticket_id, cause.occasion, "suppressed")
    told = NoticeSuppressed(**about, reason=reason.value)
    return Decision(_with_notice(state, cause.notice_id, settled), (told,))


def _request(
    conversation_id: str,
    state: Conversation,
    answer: TicketAnswered | None,
    cause: Cause,
    context: Context,
    promise: Promise | None,
) -> Decision:
    contact, address = state.contact, mail_address(state.contact)
    assert contact is not None, "suppression() has seen to the contact"
    assert address is not None, "suppression() has seen to the address"
    asked = answer.language if answer is not None else None
    language = language_of(context.policy, asked, contact.language)
    try:
        words = _words(state, contact, answer, cause, language, context, promise)
    except RenderError as error:
        return _failed_to_render(conversation_id, state, cause, error, context)
    mail = compose(
        secret=context.secret,
        workspace=context.workspace,
        conversation_id=conversation_id,
        notice_id=cause.notice_id,
        occasion=cause.occasion,
        sender=sender_of(context.policy, contact.account),
        to_address=address,
        language=language,
        words=words,
        in_reply_to=state.in_reply_to,
        references=state.references,
        now=context.now,
    )
    told = NoticeRequested(
        **_about(conversation_id, cause, context.now),
        channel="email",
        recipient=address,
        language=language,
        subject=mail.subject,
        is_verified=contact.is_verified,
    )
    sending = Sending(cause.ticket_id, cause.occasion, attempt=1)
    after = structs.replace(
        _with_notice(state, cause.notice_id, sending),
        # A thread that no mail of the customer's began is carried by our own ids.
        in_reply_to=state.in_reply_to or mail.message_id,
        references=extend(state.references, mail.message_id),
        automatic_since_human=state.automatic_since_human + int(cause.is_automatic),
    )
    return Decision(after, (told,), (SendNotice(cause.notice_id, 1, PROVIDER, mail),))


def _words(
    state: Conversation,
    contact: Contact,
    answer: TicketAnswered | None,
    cause: Cause,
    language: str,
    context: Context,
    promise: Promise | None,
) -> Words:
    policy = context.policy
    spoken = policy.languages[language]
    case = state.cases.get(cause.ticket_id)
    times = said(promise, context.now, spoken.locale, policy.zone)
    # Whoever wrote in another's name, by a form or with a forged From, gets none of their own words carried there by
    # a machine. An agent who answers has read what they answer.
    may_quote = answer is not None or contact.is_verified
    facts = Facts(
        language=language,
        name=greeting_name(contact.name) if may_quote else "",
        brand=sender_of(policy, contact.account).from_name,
        signature=spoken.signature,
        reference=case.reference if case else "",
        subject=reply_subject(state.subject) if may_quote else "",
        received_at=format_instant(
            case.received_at if case else context.now, spoken.locale, policy.zone
        ),
        agent_name=clean_line(answer.agent_name, limit=80) if answer else "",
        answer=clean_text(answer.text) if answer else "",
        promise=times.promise,
        opens=times.opens,
        slots=times.slots,
        zone=times.zone,
    )
    return policy.templates.render(cause.occasion, facts)


def _failed_to_render(
    conversation_id: str, state: Conversation, cause: Cause, error: RenderError, context: Context
) -> Decision:
    """Nothing was sent, nothing will be: said as a failure, so that a person sees it."""
    told = NoticeFailed(
        **_about(conversation_id, cause, context.now),
        provider=PROVIDER,
        reason=f"cannot be rendered: {error}"[:REASON_LENGTH_MAX],
        attempts=0,
    )
    settled = Settled(cause.ticket_id, cause.occasion, "failed")
    return Decision(_with_notice(state, cause.notice_id, settled), (told,))


def _about(conversation_id: str, cause: Cause, now: datetime) -> dict[str, Any]:
    return _facts_of(
        conversation_id, cause.notice_id, Settled(cause.ticket_id, cause.occasion, ""), now
    )


def _facts_of(
    conversation_id: str, notice_id: str, notice: Notice, now: datetime
) -> dict[str, Any]:
    """What every notice event says."""
    return {
        "notice_id": notice_id,
        "ticket_id": notice.ticket_id,
        "conversation_id": conversation_id,
        "occasion": notice.occasion,
        "at": now,
    }


# ------------------------------------------------------------------------------------ what is stale


def _supersede(
    conversation_id: str, state: Conversation, ticket_id: str, by: str, context: Context
) -> Decision:
    """Drop what waits for another attempt, and let what is under way have no further one."""
    notices: dict[str, Notice] = dict(state.notices)
    events: list[AnyNoticeEvent] = []
    for notice_id, notice in _stale(state.notices, ticket_id, SUPERSEDES[by]):
        match notice:
            case Held() | Waiting():
                about = _facts_of(conversation_id, notice_id, notice, context.now)
                events.append(NoticeSuppressed(**about, reason=Suppression.SUPERSEDED.value))
                notices[notice_id] = Settled(ticket_id, notice.occasion, "suppressed")
            case Sending():
                notices[notice_id] = structs.replace(notice, is_superseded=True)
            case Settled():
                pass  # What is said is said.
    return Decision(structs.replace(state, notices=notices), tuple(events))


def _stale(
    notices: Mapping[str, Notice], ticket_id: str, occasions: frozenset[str]
) -> list[tuple[str, Notice]]:
    return [
        (notice_id, notice)
        for notice_id, notice in sorted(notices.items())  # jsonb keeps no order of its own.
        if notice.ticket_id == ticket_id and notice.occasion in occasions
    ]


# ------------------------------------------------------------------------------- after each attempt


def _settle(
    conversation_id: str, state: Conversation, settled: SendSettled, context: Context
) -> Decision:
    """Say what came of an attempt, or arrange the next. An answer that nobody waits for changes nothing."""
    send, result = settled.send, settled.result
    notice = state.notices.get(send.notice_id)
    if not isinstance(notice, Sending) or notice.attempt != send.attempt:
        return Decision(state, ignored="not_awaited")
    about = _facts_of(conversation_id, send.notice_id, notice, context.now)
    tried: dict[str, Any] = {"provider": send.provider, "attempts": send.attempt}
    match result:
        case Delivered():
            sent = NoticeSent(**about, **tried, provider_message_id=send.mail.message_id)
            return _over(state, send.notice_id, notice, "sent", sent)
        case Unknown():
            reason = clean_line(result.reason, REASON_LENGTH_MAX)
            return _over(
                state,
                send.notice_id,
                notice,
                "unknown",
                NoticeUnknown(**about, **tried, reason=reason),
            )
        case Failed(is_recoverable=True) if notice.is_superseded:
            stale = NoticeSuppressed(**about, reason=Suppression.SUPERSEDED.value)
            return _over(state, send.notice_id, notice, "suppressed", stale)
        case Failed():
            due = retry_at(context.policy, send, result, context.now)
            if due is not None:
                return Decision(_with_waiting(state, send.notice_id, notice, due, send.mail))
            reason = clean_line(result.reason, REASON_LENGTH_MAX)
            return _over(
                state,
                send.notice_id,
                notice,
                "failed",
                NoticeFailed(**about, **tried, reason=reason),
            )


def _with_waiting(
    state: Conversation, notice_id: str, notice: Sending, due: datetime, mail: Mail
) -> Conversation:
    waiting = Waiting(notice.ticket_id, notice.occasion, notice.attempt, due, mail)
    return _with_notice(state, notice_id, waiting)


def _over(
    state: Conversation, notice_id: str, notice: Sending, status: str, told: AnyNoticeEvent
) -> Decision:
    """Note the end. What ends after its ticket has closed needs no further memory, but keeping it is harmless."""
    return Decision(
        _with_notice(state, notice_id, Settled(notice.ticket_id, notice.occasion, status)), (told,)
    )


def _retry(state: Conversation, context: Context) -> Decision:
    """Try again what is due, oldest mail first; each is the same to the byte."""
    due = sorted(
        (notice.mail.date, notice_id, notice)
        for notice_id, notice in state.notices.items()
        if isinstance(notice, Waiting) and notice.retry_at <= context.now
    )
    notices: dict[str, Notice] = dict(state.notices)
    sends: list[SendNotice] = []
    for _, notice_id, notice in due:
        attempt = notice.attempt + 1
        notices[notice_id] = Sending(notice.ticket_id, notice.occasion, attempt)
        sends.append(SendNotice(notice_id, attempt, PROVIDER, notice.mail))
    return Decision(structs.replace(state, notices=notices), sends=tuple(sends))
