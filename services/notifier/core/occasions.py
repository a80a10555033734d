"""Which event is an occasion to tell the customer something, and which notices come about by themselves when their time comes.

Owns what is remembered of a case for it: whose turn it is, what the customer was told about the time, who spoke last.
"""

from datetime import datetime, timedelta

from msgspec import structs

from schemas import tickets
from schemas.commands import NotifyCustomer
from schemas.feedback import FeedbackGiven, feedback_id
from schemas.ids import derive
from schemas.notifications import AnyNoticeEvent, NoticeSuppressed
from schemas.sla import BreachRetracted, TargetBreached, WaitPromised
from schemas.tickets import (
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketCalled,
    TicketEscalated,
    TicketMessageAdded,
    TicketOpened,
    TicketPrioritised,
    TicketPromised,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
)
from services.notifier.core.articles import ArticlesFound, Search
from services.notifier.core.delivery import extend, thread_id
from services.notifier.core.promise import EARLY_MAX, promise_of
from services.notifier.core.reason import Cause, Suppression, cause_of
from services.notifier.core.render import RenderError
from services.notifier.core.searching import WAIT, search_for, with_articles
from services.notifier.core.state import (
    Article,
    Case,
    Contact,
    Conversation,
    Deferred,
    Held,
    Line,
    Matter,
    Notice,
    Planned,
    Promise,
    Settled,
    Word,
)
from services.notifier.core.survey import Chosen, choose
from services.notifier.core.text import clean_line
from services.notifier.core.told import (
    Context,
    Decision,
    about_cause,
    deferral,
    drop,
    has_been_told,
    has_reached,
    supersede,
    suppressed,
    then,
    with_case,
    with_notice,
    without_lines,
    without_notice,
)
from services.notifier.core.words import (
    Intent,
    glance,
    glance_words,
    heard,
    planned,
    promise_told,
    say,
    silence_of,
    without_plans,
)

OWED = frozenset(
    {"first_response", "next_response", "later_response", "periodic_update", "callback"}
)
"""Targets whose breach the customer feels; the others are between ourselves."""

DEMAND_FACTOR = 1.2
"""From a queue's correction of this on, events show that more people write than usually."""

DIGEST = "digest"
DIGEST_MAX = 20


# ------------------------------------------------------------------------------------- what is known


def contact_of(contact: tickets.Contact) -> Contact:
    """Return what is kept of a contact."""
    return Contact(
        name=clean_line(contact.name),
        address=clean_line(contact.address, limit=320),
        address_kind=contact.address_kind,
        channel=clean_line(contact.channel),
        account=clean_line(contact.account),
        language=clean_line(contact.language or "", limit=35) or None,
        is_verified=contact.is_verified,
    )


def with_opening(state: Conversation, event: TicketOpened) -> Conversation:
    """The router opens tickets for people only, so a person has written, or has answered a survey (`by` feedback).

    Who answered a survey has written nothing: the subject stays, and so does when they wrote last, by which vendors' windows go and
    who is taken to be awake.

    A follow-up that is doubted, or that comes from an unproved address where a proved one is known, changes neither
    where answers go nor which subject they carry.
    """
    old, new = state.contact, contact_of(event.contact)
    is_believed = old is None or (event.suspicion is None and _may_replace(old, new))
    has_written = event.by != "feedback"
    answered = thread_id(new.channel, event.vendor_message_id)
    case = Case(
        clean_line(event.reference, limit=40),
        event.occurred_at,
        event.at,
        tags=event.tags,
        priority=event.priority,
        queue=event.queue,
    )
    fresh = structs.replace(
        state,
        contact=new if is_believed else old,
        subject=clean_line(event.subject) if is_believed and has_written else state.subject,
        in_reply_to=answered or state.in_reply_to,
        references=extend(state.references, answered),
        automatic_since_human=0,
        cases={**state.cases, event.ticket_id: case},
    )
    if not is_believed or not has_written:
        return fresh
    return structs.replace(
        fresh,
        thread=clean_line(event.vendor_thread) or state.thread,
        answers=clean_line(event.vendor_message_id) or state.answers,
        wrote_at=_later(state.wrote_at, event.occurred_at),
    )


def _later(one: datetime | None, other: datetime) -> datetime:
    return other if one is None else max(one, other)


def _may_replace(old: Contact | None, new: Contact) -> bool:
    """A proved address is never replaced by one that is not: answers must not follow whoever claims a new one."""
    return old is None or not old.is_verified or new.is_verified


def _with_message(state: Conversation, event: TicketMessageAdded) -> Conversation:
    old = state.contact
    new = contact_of(event.contact) if event.contact is not None else None
    is_believed = new is None or _may_replace(old, new)
    contact = new if new is not None and is_believed else old
    writer = new or contact
    answered = thread_id(writer.channel, event.vendor_message_id) if writer else None
    fresh = structs.replace(
        state,
        contact=contact,
        in_reply_to=answered or state.in_reply_to,
        references=extend(state.references, answered),
        automatic_since_human=0,
    )
    if not is_believed:
        return fresh
    return structs.replace(
        fresh,
        answers=clean_line(event.vendor_message_id) or state.answers,
        wrote_at=_later(state.wrote_at, event.occurred_at),
    )


# ------------------------------------------------------------------------------- the customer has written


def opened(
    conversation_id: str, state: Conversation, event: TicketOpened, context: Context
) -> Decision:
    """Say that the case has arrived, as soon as it is known what can be promised, in a while at most."""
    cause = cause_of(event)
    if event.by == "feedback":
        # Nobody wrote: a low answer had the case opened.
        opened = with_opening(state, event)
        return _recover(conversation_id, opened, event.ticket_id, event.message_id, context)
    if event.message_id == state.helped:
        # It was the word HELP, and the answer to that says how a person is reached.
        fresh = with_opening(state, event)
        return suppressed(conversation_id, fresh, cause, Suppression.SUPERSEDED, context)
    state, search = search_for(
        with_opening(state, event), event, cause.notice_id, cause.occasion, context
    )
    return _with_promise(conversation_id, state, cause, Matter(context.now), context, search)


def reopened(
    conversation_id: str, state: Conversation, event: TicketReopened, context: Context
) -> Decision:
    """Say that we are on it again; that it was solved is no longer true."""
    state = structs.replace(state, automatic_since_human=0)
    state = with_case(
        state,
        event.ticket_id,
        standing="open",
        is_awaiting_customer=False,
        spoken_at=event.occurred_at,
        word=None,
    )
    fresh = supersede(conversation_id, state, event.ticket_id, "reopened", context)
    if event.by == "feedback":
        told = _recover(conversation_id, fresh.state, event.ticket_id, event.message_id, context)
        return then(fresh, told)
    told = _with_promise(
        conversation_id, fresh.state, cause_of(event), Matter(context.now), context
    )
    if not isinstance(told.state.notices.get(cause_of(event).notice_id), Settled):
        marked = with_case(told.state, event.ticket_id, reopened_at=event.at)
        told = told._replace(state=marked)
    return then(fresh, told)


def wrote(
    conversation_id: str, state: Conversation, event: TicketMessageAdded, context: Context
) -> Decision:
    """A customer wrote in a case. It is no occasion, but what would have gone on past it is stale."""
    fresh = with_case(_with_message(state, event), event.ticket_id, is_awaiting_customer=False)
    return supersede(conversation_id, fresh, event.ticket_id, "wrote", context)


def _with_promise(
    conversation_id: str,
    state: Conversation,
    cause: Cause,
    matter: Matter,
    context: Context,
    search: Search | None = None,
) -> Decision:
    """Tell it with what can be promised: at once if that is known, else when it is, or after the policy's wait.

    Articles that may help are waited for in the same way.
    """
    promise = state.promises.get(cause.ticket_id)
    if promise is not None and promise.by is not None and promise.by <= context.now:
        promise = None
    if search is None and (promise is not None or not context.policy.promise_wait):
        early = {key: one for key, one in state.promises.items() if key != cause.ticket_id}
        fresh = structs.replace(state, promises=early)
        stale = supersede(conversation_id, fresh, cause.ticket_id, cause.occasion, context)
        return then(
            stale, say(conversation_id, stale.state, Intent(cause, matter, promise), context)
        )
    refused = glance(state, cause, context)
    if refused is not None:
        return suppressed(conversation_id, state, cause, refused, context)
    wait = context.policy.promise_wait if search is None else max(context.policy.promise_wait, WAIT)
    held = Held(
        cause.ticket_id,
        cause.occasion,
        cause.cause_id,
        context.now + wait,
        matter,
        is_searching=search is not None,
    )
    searches = () if search is None else (search,)
    return Decision(with_notice(state, cause.notice_id, held), searches=searches)


def promised(
    conversation_id: str, state: Conversation, event: WaitPromised, context: Context
) -> Decision:
    """Take in what can be promised. One that comes after the notice is told nobody by itself; a second mail for it would be
    worse. It is kept for what is said next.
    """
    held = [one for one in _held(state) if one.ticket_id == event.ticket_id]
    promise = promise_of(event)
    if event.factor >= DEMAND_FACTOR and event.ahead:
        case = state.cases.get(event.ticket_id)
        if case is not None and not case.why:
            state = with_case(state, event.ticket_id, why="demand")
    complete = [one for one in held if not one.is_searching]
    if complete and len(complete) == len(held):
        return _release(conversation_id, state, held, context, promise)
    # Two topics keep no order between them: the ticket itself may not have been heard of yet.
    is_early = event.ticket_id not in state.cases or bool(held)
    if not is_early and promise.by is None:
        return Decision(state, ignored="promise_late")
    early = {**state.promises, event.ticket_id: promise}
    kept = dict(sorted(early.items(), key=lambda item: (item[1].at, item[0]))[-EARLY_MAX:])
    return Decision(
        structs.replace(state, promises=kept), ignored=None if is_early else "promise_late"
    )


def unpromised(conversation_id: str, state: Conversation, context: Context) -> Decision:
    """Nobody has said what can be promised: the notices go without."""
    due = [one for one in _held(state) if one.until <= context.now]
    return _released(conversation_id, state, due, context)


def found(
    conversation_id: str, state: Conversation, event: ArticlesFound, context: Context
) -> Decision:
    """Take in articles that may help, and write the notice unless it still waits for what can be promised."""
    held = state.notices.get(event.notice_id)
    if not isinstance(held, Held) or not held.is_searching:
        return Decision(state, ignored="articles_late")
    state = with_articles(state, event, held)
    is_promised = held.ticket_id in state.promises
    if not is_promised and context.policy.promise_wait and held.until > context.now:
        return Decision(state)
    complete = state.notices[event.notice_id]
    assert isinstance(complete, Held), "it is the same, with its articles"
    return _released(conversation_id, state, [complete], context)


def _released(
    conversation_id: str, state: Conversation, held: list[Held], context: Context
) -> Decision:
    """Write what was held back, with what can be promised where that has come meanwhile."""
    decision = Decision(state)
    for one in held:
        kept = decision.state.promises
        promise = kept.get(one.ticket_id)
        rest = {key: each for key, each in kept.items() if key != one.ticket_id}
        fresh = structs.replace(decision.state, promises=rest)
        decision = then(decision, _release(conversation_id, fresh, [one], context, promise))
    return decision


def promise_due(state: Conversation) -> datetime | None:
    """Return when what can be promised was waited for long enough."""
    return min((one.until for one in _held(state)), default=None)


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
    decision = Decision(state)
    for one in held:
        cause = Cause(one.ticket_id, one.occasion, one.cause_id)
        bare = without_notice(decision.state, cause.notice_id)
        matter = one.matter or Matter(context.now)
        told = say(conversation_id, bare, Intent(cause, matter, promise), context)
        decision = then(decision, told)
    return decision


# ------------------------------------------------------------------------------------- we have spoken


def answered(
    conversation_id: str, state: Conversation, event: TicketAnswered, context: Context
) -> Decision:
    """Send what an agent wrote; a promise in it is kept an eye on."""
    state = _spoken(state, event.ticket_id, context.now, answered_by=event.command_id)
    matter = Matter(
        context.now,
        text=event.text,
        language=event.language,
        agent_name=event.agent_name,
    )
    fresh = supersede(conversation_id, state, event.ticket_id, "answered", context)
    told = say(conversation_id, fresh.state, Intent(cause_of(event), matter), context)
    if event.next_update_by is not None and event.next_update_by > context.now:
        word = Word(event.next_update_by, context.now, cause_of(event).notice_id)
        told = told._replace(state=promise_told(told.state, event.ticket_id, word, context))
    return then(fresh, told)


def answered_elsewhere(
    conversation_id: str, state: Conversation, event: TicketAnsweredElsewhere, context: Context
) -> Decision:
    """Somebody of ours has spoken by the channel's own means; machines have nothing to add."""
    state = _spoken(state, event.ticket_id, context.now)
    return supersede(conversation_id, state, event.ticket_id, "answered_elsewhere", context)


def _spoken(
    state: Conversation, ticket_id: str, now: datetime, *, answered_by: str = ""
) -> Conversation:
    state = structs.replace(state, automatic_since_human=0)
    if ticket_id not in state.cases:
        return state
    return with_case(
        state,
        ticket_id,
        word=None,
        spoken_at=now,
        is_awaiting_customer=True,
        answered_by=answered_by or state.cases[ticket_id].answered_by,
    )


def escalated(
    conversation_id: str, state: Conversation, event: TicketEscalated, context: Context
) -> Decision:
    """Connect them to someone who can, said once. As the case opened, or was opened again, it is told with that.

    A later escalation is told as the first. That somebody looks deeper is why it takes longer, if it does: so says an agent who
    escalates, and no clock or rule does.
    """
    case = state.cases.get(event.ticket_id)
    is_at_opening = case is not None and case.opened_at == event.at
    if event.by_rule is None:
        state = with_case(state, event.ticket_id, why="research")
    if is_at_opening and has_been_told(state, event.ticket_id, "received"):
        return Decision(state, ignored="told_with_the_opening")
    if case is not None and case.reopened_at == event.at:
        return Decision(state, ignored="told_with_the_opening")
    return tell(conversation_id, state, cause_of(event), Matter(context.now), context)


def solved(
    conversation_id: str, state: Conversation, event: TicketSolved, context: Context
) -> Decision:
    """Say that it is done, unless an answer has; and plan what follows a solution."""
    cause = event.cause or ""
    state = with_case(
        state, event.ticket_id, standing="solved", word=None, spoken_at=context.now, cause=cause
    )
    if event.with_answer:
        # The answer was the last word.
        stale = supersede(conversation_id, state, event.ticket_id, "solved", context)
        after = _with_follow_ups(stale.state, event, context)
        ignored = None if stale.events else "told_by_the_answer"
        return stale._replace(state=after, ignored=ignored)
    told = tell(conversation_id, state, cause_of(event), Matter(context.now), context)
    return told._replace(state=_with_follow_ups(told.state, event, context))


def _with_follow_ups(state: Conversation, event: TicketSolved, context: Context) -> Conversation:
    """Plan the article for what usually comes next, the look after them, and the question how it went."""
    timing, now = context.policy.timing, context.now
    issue = timing.next_issues.get(event.cause or "")
    wanted: list[tuple[Cause, timedelta]] = []
    if issue is not None:
        cause = Cause(event.ticket_id, "next_issue", event.command_id)
        wanted.append((cause, issue.after))
    if timing.check_in_after is not None:
        cause = Cause(event.ticket_id, "check_in", event.command_id)
        wanted.append((cause, timing.check_in_after))
    if timing.survey_after is not None:
        cause = Cause(event.ticket_id, "survey", event.ticket_id)
        wanted.append((cause, timing.survey_after))
    for cause, after in wanted:
        if cause.occasion not in context.policy.occasions_off:
            state = planned(state, cause, now + after, Matter(now + after))
    return state


def status_changed(
    conversation_id: str, state: Conversation, event: TicketStatusChanged, context: Context
) -> Decision:
    """Follow whose turn it is. A case that waits for its customer, without an answer, asks them for what it needs."""
    ticket_id = event.ticket_id
    if event.status == "spam":
        state = with_case(state, ticket_id, standing="over", word=None)
        return supersede(conversation_id, state, ticket_id, "spam", context)
    if event.status == "pending":
        if event.reason == "answered" or _is_answered_by(state, event):
            return Decision(state, ignored="told_by_the_answer")
        state = with_case(state, ticket_id, is_awaiting_customer=True)
        return _need(conversation_id, state, event, context)
    if event.status == "on_hold":
        if event.waiting_on.strip().lower() == "customer":
            state = with_case(state, ticket_id, is_awaiting_customer=True)
            return _need(conversation_id, state, event, context)
        waiting_on = clean_line(event.waiting_on)
        return Decision(with_case(state, ticket_id, standing="resting", waiting_on=waiting_on))
    if event.status in ("queued", "offered", "assigned", "snoozed"):
        return Decision(with_case(state, ticket_id, standing="open", waiting_on=""))
    return Decision(state, ignored="no_occasion")


def _is_answered_by(state: Conversation, event: TicketStatusChanged) -> bool:
    case = state.cases.get(event.ticket_id)
    return case is not None and bool(event.command_id) and case.answered_by == event.command_id


def _need(
    conversation_id: str, state: Conversation, event: TicketStatusChanged, context: Context
) -> Decision:
    if not event.detail.strip():
        return Decision(state, ignored="nothing_asked")
    cause = cause_of(event)
    if cause.notice_id in state.notices:
        return Decision(state, ignored="already_told")
    matter = Matter(context.now, question=event.detail)
    state = without_plans(with_case(state, event.ticket_id, word=None), event.ticket_id)
    return tell(conversation_id, state, cause, matter, context)


def call_promised(
    conversation_id: str, state: Conversation, event: TicketPromised, context: Context
) -> Decision:
    """An update that was promised is kept an eye on; that a call is booked is said."""
    if event.what == "update":
        if event.by <= context.now:
            return Decision(state, ignored="promise_late")
        state = with_case(state, event.ticket_id, spoken_at=context.now)
        word = Word(event.by, context.now)
        return Decision(promise_told(state, event.ticket_id, word, context))
    cause = cause_of(event)
    if cause.notice_id in state.notices:
        return Decision(state, ignored="already_told")
    matter = Matter(context.now, call_from=event.not_before, call_until=event.by)
    return tell(conversation_id, state, cause, matter, context)


def called(
    conversation_id: str, state: Conversation, event: TicketCalled, context: Context
) -> Decision:
    """Whoever was reached has heard it from a person; whoever was not, hears that we tried."""
    if event.outcome == "reached":
        state = _spoken(state, event.ticket_id, context.now)
        return supersede(conversation_id, state, event.ticket_id, "called", context)
    cause = cause_of(event)
    if cause.notice_id in state.notices:
        return Decision(state, ignored="already_told")
    # When we called they can see on their telephone; and whether they had waited for it, only a person knows.
    return tell(conversation_id, state, cause, Matter(context.now), context)


# ----------------------------------------------------------------------------------------- it takes longer


def breached(
    conversation_id: str, state: Conversation, event: TargetBreached, context: Context
) -> Decision:
    """Say that it takes longer, once a silence. What the customer was told counts: while that holds, nothing is late to them."""
    case = state.cases.get(event.ticket_id)
    if event.target not in OWED:
        return Decision(state, ignored="between_ourselves")
    if case is None or case.standing in ("solved", "over"):
        return Decision(state, ignored="no_occasion")
    if case.is_awaiting_customer and event.target not in ("periodic_update", "callback"):
        return Decision(state, ignored="no_occasion")
    word = heard(state, case, context)
    if word is not None and word.by > event.breached_at:
        return Decision(state, ignored="promise_still_open")
    by = word.by if word is not None else None
    if event.target == "callback":
        # That we owe a call is between ourselves until a time was said.
        is_booked = has_reached(state, event.ticket_id, "callback_booked")
        by = event.breached_at if is_booked else None
    return _late(conversation_id, state, event.ticket_id, by, context)


def retracted(
    conversation_id: str, state: Conversation, event: BreachRetracted, context: Context
) -> Decision:
    """The answer had been there in time: that it takes longer is not said, unless it has been."""
    return supersede(conversation_id, state, event.ticket_id, "in_time", context)


def _late(
    conversation_id: str,
    state: Conversation,
    ticket_id: str,
    by: datetime | None,
    context: Context,
) -> Decision:
    cause = Cause(ticket_id, "delayed", silence_of(state, ticket_id))
    known = state.notices.get(cause.notice_id)
    if known is not None and not isinstance(known, Planned):
        return Decision(state, ignored="already_told")
    state = without_plans(state, ticket_id)
    state = with_case(state, ticket_id, word=None)
    promise = state.promises.get(ticket_id)
    if promise is not None and (promise.by is None or promise.by <= context.now):
        promise = None
    rest = {key: one for key, one in state.promises.items() if key != ticket_id}
    state = structs.replace(state, promises=rest)
    matter = Matter(context.now, promised_by=by)
    return tell(conversation_id, state, cause, matter, context, promise)


# ------------------------------------------------------------------------------------ asked for, or felt


def asked(
    conversation_id: str, state: Conversation, event: NotifyCustomer, context: Context
) -> Decision:
    """Tell what somebody asked us to tell: an outage to whom it concerns, a security notice, and the like."""
    if state.contact is None and event.contact is not None:
        state = structs.replace(state, contact=contact_of(event.contact))
    is_of_outage = event.occasion in ("outage_known", "outage_over")
    ticket_id = (None if is_of_outage else event.ticket_id) or conversation_id
    name = event.about if is_of_outage and event.about else event.command_id
    cause = Cause(ticket_id, event.occasion, name)
    if cause.notice_id in state.notices:
        return Decision(state, ignored="already_told")
    matter = Matter(
        context.now,
        text=event.text,
        language=event.language,
        question=event.text if event.occasion == "need_info" else "",
        call_from=event.call_from,
        call_until=event.call_until,
        outage_title=event.title if is_of_outage else "",
        outage_since=event.since,
        outage_until=event.until,
        articles=tuple(Article(one.title, one.url, one.summary) for one in event.articles),
        expires_at=event.expires_at,
        is_urgent=event.is_urgent,
    )
    return tell(conversation_id, state, cause, matter, context)


def felt(
    conversation_id: str, state: Conversation, event: FeedbackGiven, context: Context
) -> Decision:
    """Somebody was unhappy: nothing is sent after that cheerfully. A mind that has changed takes back what is not said yet.

    That a person looks at it is said once the router has put it before one, never because of a score alone.
    """
    if event.level == "low":
        fresh = supersede(conversation_id, state, event.ticket_id, "recovery", context)
        return fresh._replace(ignored=None if fresh.state != state else "no_occasion")
    names = {feedback_id(event.survey_id, one) for one in range(1, event.revision)}
    if not names:
        return Decision(state, ignored="no_occasion")
    stale = [
        notice_id
        for notice_id, one in sorted(state.notices.items())
        if one.occasion == "recovery"
        and not isinstance(one, Settled)
        and (one.ticket_id == event.ticket_id or one.cause_id in names)
    ]
    dropped = drop(conversation_id, state, stale, Suppression.SUPERSEDED, context)
    fewer = without_lines(
        conversation_id,
        dropped.state,
        lambda line: line.occasion == "recovery" and line.ticket_id == event.ticket_id,
        Suppression.SUPERSEDED,
        context,
    )
    dropped = then(dropped, fewer)
    if event.ticket_id not in state.cases:
        return dropped
    # The two topics keep no order between them: what the router does of the earlier answer may be heard of later.
    over = {
        Cause(event.ticket_id, "recovery", name).notice_id: Settled(
            event.ticket_id, "recovery", "suppressed"
        )
        for name in sorted(names)
    }
    kept = structs.replace(dropped.state, notices={**over, **dropped.state.notices})
    return dropped._replace(state=kept)


def raised(
    conversation_id: str, state: Conversation, event: TicketPrioritised, context: Context
) -> Decision:
    """Take in how urgent a case is. Where a low answer has made it so, whoever has it looks at it anew: the customer hears that."""
    state = with_case(state, event.ticket_id, priority=event.priority)
    case = state.cases.get(event.ticket_id)
    if event.by_rule != "feedback" or case is None or case.standing not in ("open", "resting"):
        return Decision(state)
    return _recover(conversation_id, state, event.ticket_id, f"raised {event.version}", context)


def _recover(
    conversation_id: str, state: Conversation, ticket_id: str, name: str, context: Context
) -> Decision:
    """Say that a person looks at the case of somebody who was unhappy."""
    cause = Cause(ticket_id, "recovery", name)
    if cause.notice_id in state.notices:
        return Decision(state, ignored="already_told")
    return tell(conversation_id, state, cause, Matter(context.now), context)


def tell(
    conversation_id: str,
    state: Conversation,
    cause: Cause,
    matter: Matter,
    context: Context,
    promise: Promise | None = None,
) -> Decision:
    """Tell the customer, or say why not. What this makes stale is dropped first, even where nothing is told."""
    fresh = supersede(conversation_id, state, cause.ticket_id, cause.occasion, context)
    told = say(conversation_id, fresh.state, Intent(cause, matter, promise), context)
    return then(fresh, told)


# --------------------------------------------------------------------------------------- their time has come


def follow_up_due(state: Conversation) -> datetime | None:
    """Return when the earliest planned notice is due."""
    due = [one.due_at for one in state.notices.values() if isinstance(one, Planned)]
    return min(due, default=None)


def follow_up(conversation_id: str, state: Conversation, context: Context) -> Decision:
    """Tell what was planned for now, as far as there is still a reason to."""
    due = sorted(
        (one.due_at, notice_id)
        for notice_id, one in state.notices.items()
        if isinstance(one, Planned) and one.due_at <= context.now
    )
    decision = Decision(state)
    for _, notice_id in due:
        one = decision.state.notices.get(notice_id)
        if isinstance(one, Planned):  # One of them may have ended another.
            bare = without_notice(decision.state, notice_id)
            decision = then(decision, _come_about(conversation_id, bare, one, context))
    return decision


def _come_about(
    conversation_id: str, state: Conversation, one: Planned, context: Context
) -> Decision:
    case = state.cases.get(one.ticket_id)
    cause = Cause(one.ticket_id, one.occasion, one.cause_id)
    word = heard(state, case, context)
    match one.occasion:
        case "delayed":
            by = one.matter.promised_by
            if word is None or word.by != by:
                return Decision(state)
            return _late(conversation_id, state, one.ticket_id, by, context)
        case "still_on_it":
            is_for_us = case is not None and case.standing in ("open", "resting")
            if not is_for_us or word is None or word.by != one.matter.promised_by:
                return Decision(state)
            if word.by <= context.now:  # We were away: it would be said after the promise broke.
                return Decision(state)
        case "survey":
            if not context.links.base_url:  # Nobody could answer it.
                return Decision(state)
            chosen = _chosen(state, one.ticket_id, context)
            if case is None or case.standing != "solved" or chosen is None:
                return Decision(state)
            matter = structs.replace(
                one.matter, survey_kind=chosen.kind, survey_probability=chosen.probability
            )
            return tell(conversation_id, state, cause, matter, context)
        case _:
            if case is None or case.standing != "solved":
                return Decision(state)
    return tell(conversation_id, state, cause, one.matter, context)


def _chosen(state: Conversation, ticket_id: str, context: Context) -> Chosen | None:
    """Return what the ticket's customer is asked; None, where they are not drawn."""
    channel = state.contact.channel if state.contact is not None else ""
    return choose(context.policy.survey, ticket_id, channel)


def deferred_due(state: Conversation) -> datetime | None:
    """Return when the earliest notice that was put off is due."""
    due = [one.until for one in state.notices.values() if isinstance(one, Deferred)]
    return min(due, default=None)


def resume(conversation_id: str, state: Conversation, context: Context) -> Decision:
    """Tell what was put off until now: asked anew, with the words of now. What a digest gathers is told together."""
    due = sorted(
        (one.until, one.matter.at, notice_id)
        for notice_id, one in state.notices.items()
        if isinstance(one, Deferred) and one.until <= context.now
    )
    names = [notice_id for _, _, notice_id in due]
    gathered = [name for name in names if _is_gathered(state, name)]
    decision = Decision(state)
    if len(gathered) > 1:
        decision = _digest(conversation_id, state, gathered[:DIGEST_MAX], context)
    for notice_id in names:
        one = decision.state.notices.get(notice_id)
        # One of them may have ended another, or put it off with itself.
        if isinstance(one, Deferred) and one.until <= context.now:
            decision = then(
                decision, _resume_one(conversation_id, decision.state, notice_id, one, context)
            )
    return decision


def _is_gathered(state: Conversation, notice_id: str) -> bool:
    one = state.notices[notice_id]
    return (
        isinstance(one, Deferred)
        and one.reason == DIGEST
        and one.occasion != "digest"
        and not one.is_requested
    )


def _resume_one(
    conversation_id: str, state: Conversation, notice_id: str, one: Deferred, context: Context
) -> Decision:
    cause = Cause(one.ticket_id, one.occasion, one.cause_id, one.tried, is_counted=one.is_requested)
    promise = state.promises.get(one.ticket_id)
    rest = {key: kept for key, kept in state.promises.items() if key != one.ticket_id}
    bare = structs.replace(without_notice(state, notice_id), promises=rest)
    intent = Intent(
        cause,
        one.matter,
        promise,
        one.attempt,
        one.excused,
        is_requested=one.is_requested,
        is_gathered=one.reason == DIGEST,
    )
    return say(conversation_id, bare, intent, context)


def _digest(
    conversation_id: str, state: Conversation, names: list[str], context: Context
) -> Decision:
    """Tell several together: each ends as told in the digest, which is a notice of its own.

    That is so only where the digest goes. Where it has to wait they wait for its hour, and where it does not go they are told by
    themselves, or hear why not.
    """
    items: list[tuple[str, str]] = []
    lines: list[Line] = []
    gathered: dict[str, Deferred] = {}
    for name in names:
        one = state.notices[name]
        assert isinstance(one, Deferred), "only these are gathered"
        cause = Cause(one.ticket_id, one.occasion, one.cause_id)
        if glance(state, cause, context) is not None:
            continue  # It is asked about by itself, and ends with its reason.
        case = state.cases.get(one.ticket_id)
        try:
            text = glance_words(conversation_id, state, Intent(cause, one.matter), context)
        except RenderError:
            continue  # It is told by itself, and says then what is wrong.
        items.append((case.reference if case is not None else "", text))
        lines.append(Line(one.ticket_id, one.occasion, name))
        gathered[name] = one
    if not items:
        return Decision(state)
    first = state.notices[names[0]]
    cause = Cause(first.ticket_id, "digest", derive("digest", *sorted(names)))
    matter = Matter(context.now, items=tuple(items), lines=tuple(lines))
    told = say(conversation_id, state, Intent(cause, matter, is_gathered=True), context)
    events: list[AnyNoticeEvent] = []
    match told.state.notices.get(cause.notice_id):
        case Deferred(until=until, reason=reason):
            waiting: dict[str, Notice] = {}
            for name, one in gathered.items():
                later = structs.replace(one, until=until)
                waiting[name] = later
                events.append(deferral(conversation_id, name, later, until, reason, context.now))
            put_off = structs.replace(state, notices={**state.notices, **waiting})
            return Decision(put_off, tuple(events))
        case Settled():
            return Decision(state)  # Nobody misses it: each of them says what becomes of it.
        case _:
            over: dict[str, Notice] = {}
            for name, one in gathered.items():
                its = Cause(one.ticket_id, one.occasion, one.cause_id)
                facts = about_cause(conversation_id, its, context.now)
                events.append(NoticeSuppressed(**facts, reason=Suppression.DIGESTED.value))
                over[name] = Settled(
                    one.ticket_id, one.occasion, "suppressed", ended_at=context.now
                )
            after = structs.replace(told.state, notices={**told.state.notices, **over})
            return told._replace(state=after, events=(*events, *told.events))
