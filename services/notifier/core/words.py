"""From a cause to a message: asked of the plan, put into words as of now, and handed over.

Owns which facts a template gets, in which of its ways an opening is told, and how long words stay true.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import structs

from schemas.feedback import SCALES, SurveyKind
from schemas.notifications import NoticeRequested, Occasion
from services.notifier.core.audience import language_of, sender_of
from services.notifier.core.consent import (
    CHAT_CHANNELS,
    OPTIONAL,
    PHONE_CHANNELS,
    unsubscribe_headers,
)
from services.notifier.core.delivery import SendNotice, compose, compose_post, extend
from services.notifier.core.facts import (
    ArticleFacts,
    DigestItem,
    Facts,
    Moment,
    OutageFacts,
    SlotFacts,
    SurveyFacts,
    Wait,
)
from services.notifier.core.names import salutation
from services.notifier.core.plan import MAIL, Go, Later, Plan, Refused, Route, plan
from services.notifier.core.policy import LanguagePolicy
from services.notifier.core.post import VendorTemplate
from services.notifier.core.promise import moment_of, said, zone_said
from services.notifier.core.reason import FRESH, OPENING, TELEPHONE, Cause, Suppression
from services.notifier.core.render import RenderError, Words, format_instant
from services.notifier.core.state import (
    Case,
    Contact,
    Conversation,
    Deferred,
    Matter,
    Message,
    Planned,
    Promise,
    Sending,
    Settled,
    Word,
)
from services.notifier.core.text import clean_line, clean_text, greeting_name, reply_subject
from services.notifier.core.told import (
    Context,
    Decision,
    about_cause,
    counted,
    deferral,
    failed,
    has_been_told,
    may_have_arrived,
    suppressed,
    with_case,
    with_notice,
)

ANSWER_GRACE: Final = timedelta(seconds=5)
"""So long after its instant a promise is taken for broken: an answer that was given in time may still be on its way."""

PLACE_MAX: Final = 1_024
"""Characters that a place of an approved template may hold: WhatsApp takes bodies of 1,024."""

DIGEST_ITEM_MAX: Final = 500
"""Characters of one item of a digest."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What is to be told: the cause, what it is about, and what can be promised with it.

    `attempt` counts the attempts made so far, by ways that have failed. `is_requested`: it was recorded before, and its words
    are made anew. `is_gathered`: it has waited for the hour of the digest.
    """

    cause: Cause
    matter: Matter
    promise: Promise | None = None
    attempt: int = 0
    excused: int = 0
    is_requested: bool = False
    is_gathered: bool = False


def say(conversation_id: str, state: Conversation, intent: Intent, context: Context) -> Decision:
    """Tell the customer, put it off, or say why not."""
    intent = replace(intent, cause=_in_its_way(state, intent, context))
    if intent.matter.is_urgent:
        intent = replace(intent, cause=replace(intent.cause, urgency="high"))
    cause = intent.cause
    if is_over(intent.cause.occasion, intent.matter, context.now):
        return suppressed(conversation_id, state, cause, Suppression.EXPIRED, context)
    way = plan(
        context.policy,
        context.known,
        state,
        cause,
        context.now,
        is_gathered=intent.is_gathered,
    )
    if isinstance(way, Refused):
        return suppressed(conversation_id, state, cause, way.reason, context)
    if cause.occasion in OPENING and has_been_told(state, cause.ticket_id, "escalated"):
        # To the customer it is one thing that happened, and they have heard of it.
        return suppressed(conversation_id, state, cause, Suppression.SUPERSEDED, context)
    match way:
        case Later(until=until, reason=reason):
            return _defer(conversation_id, state, intent, until, reason, context)
        case Go(route=route):
            return _request(conversation_id, state, intent, route, context)


def glance(state: Conversation, cause: Cause, context: Context) -> Suppression | None:
    """Return what stands against a notice already, before its words can be made."""
    way = plan(context.policy, context.known, state, cause, context.now)
    if isinstance(way, Refused):
        return way.reason
    if cause.occasion in OPENING and has_been_told(state, cause.ticket_id, "escalated"):
        return Suppression.SUPERSEDED
    return None


def glance_words(
    conversation_id: str, state: Conversation, intent: Intent, context: Context
) -> str:
    """Return the short words of a notice, for a digest.

    Raises:
        RenderError: it has none.
    """
    contact = state.contact
    if contact is None:
        raise RenderError("there is nobody to write to")
    language = language_of(context.policy, intent.matter.language, contact.language)
    route = Route(MAIL, "", "", "mail", "")
    words, _, _ = _words(conversation_id, state, contact, intent, route, language, context)
    return clean_line(words.short or words.subject, DIGEST_ITEM_MAX)


@dataclass(frozen=True, slots=True)
class Shown:
    """What would be said now: which notice, by which way or why not, in which language, and its words in all forms.

    `message` is what the provider would get; None where nothing would go now. `asked` is the occasion that was asked for: an
    opening is told in the one of its ways that fits.
    """

    cause: Cause
    way: Plan
    language: str
    words: Words
    message: Message | None
    asked: Occasion


def show(conversation_id: str, state: Conversation, intent: Intent, context: Context) -> Shown:
    """Return what would be said now, whether it would go or not. Nothing comes of it.

    Raises:
        RenderError: its words cannot be made, or there is nobody to write to.
    """
    contact = state.contact
    if contact is None:
        raise RenderError("there is nobody to write to")
    asked = intent.cause.occasion
    intent = replace(intent, cause=_in_its_way(state, intent, context))
    way: Plan = Refused(Suppression.EXPIRED)
    if not is_over(intent.cause.occasion, intent.matter, context.now):
        way = plan(context.policy, context.known, state, intent.cause, context.now)
    language = language_of(context.policy, intent.matter.language, contact.language)
    route = way.route if isinstance(way, Go) else Route(MAIL, "", "", "mail", "")
    words, _, _ = _words(conversation_id, state, contact, intent, route, language, context)
    message = None
    if isinstance(way, Go):
        message = _message(conversation_id, state, contact, intent, route, language, words, context)
    return Shown(intent.cause, way, language, words, message, asked)


def is_over(occasion: Occasion, matter: Matter, now: datetime) -> bool:
    """Whether it is too late to say it: it would be of no use, or no longer true.

    That we are at it is said before the promise breaks, never after it; that a call is booked, before its time is over.
    """
    fresh = FRESH.get(occasion)
    ends = [] if fresh is None else [matter.at + fresh]
    if matter.expires_at is not None:
        ends.append(matter.expires_at)
    if occasion == "still_on_it" and matter.promised_by is not None:
        ends.append(matter.promised_by)
    if occasion == "callback_booked" and matter.call_until is not None:
        ends.append(matter.call_until)
    return any(end <= now for end in ends)


def _in_its_way(state: Conversation, intent: Intent, context: Context) -> Cause:
    """Return the cause with the occasion that fits what is known of an opening by now."""
    cause, contact, promise = intent.cause, state.contact, intent.promise
    if cause.occasion not in OPENING or contact is None:
        return cause
    wanted: Occasion = "received"
    if contact.channel in TELEPHONE:
        wanted = "voicemail"
    elif promise is not None and promise.opens_at is not None and promise.opens_at > context.now:
        wanted = "after_hours"
    if wanted in context.policy.occasions_off or not context.policy.templates.has(wanted):
        wanted = "received"
    return replace(cause, occasion=wanted)


def _defer(
    conversation_id: str,
    state: Conversation,
    intent: Intent,
    until: datetime,
    reason: str,
    context: Context,
) -> Decision:
    cause = intent.cause
    later = Deferred(
        cause.ticket_id,
        cause.occasion,
        cause.cause_id,
        until,
        reason,
        intent.matter,
        cause.tried,
        intent.attempt,
        intent.excused,
        intent.is_requested,
    )
    told = deferral(conversation_id, cause.notice_id, later, until, reason, context.now)
    kept = with_notice(state, cause.notice_id, later)
    if intent.promise is not None:  # For when its words are made.
        kept = structs.replace(kept, promises={**kept.promises, cause.ticket_id: intent.promise})
    return Decision(kept, (told,))


# ------------------------------------------------------------------------------------------ the words


def _request(
    conversation_id: str, state: Conversation, intent: Intent, route: Route, context: Context
) -> Decision:
    cause, contact = intent.cause, state.contact
    assert contact is not None, "the plan has seen to the contact"
    language = language_of(context.policy, intent.matter.language, contact.language)
    try:
        words, stale_at, word = _words(
            conversation_id, state, contact, intent, route, language, context
        )
        message = _message(conversation_id, state, contact, intent, route, language, words, context)
    except RenderError as error:
        reason = f"cannot be rendered: {error}"
        return failed(
            conversation_id,
            state,
            cause,
            route.provider,
            reason,
            context,
            intent.matter,
            intent.attempt,
        )
    attempt = intent.attempt + 1
    sending = Sending(
        cause.ticket_id,
        cause.occasion,
        attempt,
        cause_id=cause.cause_id,
        matter=intent.matter,
        excused=intent.excused,
        stale_at=stale_at,
        tried=cause.tried,
        recipient=context.known.key(route.recipient),
    )
    after = with_notice(state, cause.notice_id, sending)
    if route.form == "mail":
        ours = getattr(message, "message_id", "")
        # A thread that no mail of the customer's began is carried by our own ids.
        after = structs.replace(
            after,
            in_reply_to=after.in_reply_to or ours,
            references=extend(after.references, ours),
        )
    if not intent.is_requested:
        after = counted(after, cause.notice_id) if cause.is_automatic else after
    if word is not None:
        after = promise_told(after, cause.ticket_id, word, context)
    told = NoticeRequested(
        **about_cause(conversation_id, cause, context.now),
        channel="email" if route.provider == MAIL else contact.channel,
        recipient=route.recipient,
        language=language,
        subject=words.subject,
        is_verified=contact.is_verified,
        provider=route.provider,
        account=route.account,
        category=cause.category,
        survey_kind=_kind_of(intent.matter),
        survey_probability=intent.matter.survey_probability,
    )
    send = SendNotice(
        cause.notice_id, attempt, route.provider, message, route.account, asked_at=context.now
    )
    return Decision(after, () if intent.is_requested else (told,), (send,))


def _words(
    conversation_id: str,
    state: Conversation,
    contact: Contact,
    intent: Intent,
    route: Route,
    language: str,
    context: Context,
) -> tuple[Words, datetime | None, Word | None]:
    """Return the words, from when on they are no longer true, and what they promise."""
    policy, cause, matter, now = context.policy, intent.cause, intent.matter, context.now
    spoken = policy.languages[language]
    case = state.cases.get(cause.ticket_id)
    times = said(intent.promise, now, spoken.locale, policy.zone)
    is_answer = cause.occasion == "answered"
    # Whoever wrote in another's name, by a form or with a forged From, gets none of their own words carried there by
    # a machine. An agent who answers has read what they answer.
    may_quote = is_answer or contact.is_verified

    def moment(at: datetime | None) -> Moment | None:
        return None if at is None else moment_of(at, now, spoken.locale, policy.zone)

    call_from, call_until = moment(matter.call_from), moment(matter.call_until)
    named = [at for at in _named(matter) if at is not None]
    facts = Facts(
        language=language,
        name=greeting_name(contact.name) if may_quote else "",
        brand=sender_of(policy, contact.account).from_name,
        signature=spoken.signature,
        reference=case.reference if case else "",
        subject=reply_subject(state.subject) if may_quote else "",
        received_at=format_instant(case.received_at if case else now, spoken.locale, policy.zone),
        agent_name=clean_line(matter.agent_name, limit=80),
        answer=clean_text(matter.text) if is_answer else "",
        promise=times.promise or _still_held(cause.occasion, matter, now, spoken, policy.zone),
        opens=times.opens,
        slots=times.slots,
        zone=times.zone or zone_said(named, spoken.locale, policy.zone),
        topic=topic_of(context, case),
        question=clean_text(matter.question),
        reason=why_of(case) if cause.occasion == "delayed" else "",
        promised=moment(matter.promised_by),
        callback=SlotFacts(call_from, call_until) if call_until else None,
        articles=_articles(matter, case, cause.occasion, language, context),
        outage=OutageFacts(
            clean_line(matter.outage_title),
            clean_text(matter.text),
            moment(matter.outage_since),
            moment(matter.outage_until),
        )
        if matter.outage_title
        else None,
        note="" if is_answer or matter.outage_title else clean_text(matter.text),
        digest=tuple(DigestItem(*item) for item in matter.items),
        survey=_survey(conversation_id, cause, matter, language, context),
        unsubscribe_url=_way_out(conversation_id, cause, route, language, context),
        can_stop=cause.category in OPTIONAL and route.provider in PHONE_CHANNELS | CHAT_CHANNELS,
    )
    words = policy.templates.render(cause.occasion, facts)
    stale = [at for at in (times.stale_at, *_ends(cause.occasion, matter)) if at is not None]
    promise = intent.promise
    word = None
    if times.promise is not None and promise is not None and promise.by is not None:
        word = Word(promise.by, now, cause.notice_id)
    return words, min(stale, default=None), word


def _kind_of(matter: Matter) -> SurveyKind | None:
    """Return what a survey asks; None where it is none."""
    return next((one for one in SCALES if one == matter.survey_kind), None)


def _still_held(
    occasion: Occasion, matter: Matter, now: datetime, spoken: LanguagePolicy, zone: ZoneInfo
) -> Wait | None:
    """Return what was promised, where that we are at it says it again before it breaks."""
    if occasion != "still_on_it" or matter.promised_by is None:
        return None
    return Wait(until=moment_of(matter.promised_by, now, spoken.locale, zone, is_end=True))


def _survey(
    conversation_id: str, cause: Cause, matter: Matter, language: str, context: Context
) -> SurveyFacts | None:
    kind = _kind_of(matter)
    if kind is None:
        return None
    return context.links.survey(conversation_id, cause.ticket_id, kind, language, context.now)


def _way_out(
    conversation_id: str, cause: Cause, route: Route, language: str, context: Context
) -> str:
    """Return the link out of notices of this kind, where one can do without them."""
    if cause.category not in OPTIONAL:
        return ""
    return context.links.unsubscribe(
        conversation_id, context.known.key(route.recipient), cause.category, language, context.now
    )


def _named(matter: Matter) -> tuple[datetime | None, ...]:
    """The instants of a matter that its notice may name."""
    return (
        matter.promised_by,
        matter.call_from,
        matter.call_until,
        matter.outage_since,
        matter.outage_until,
    )


def _ends(occasion: Occasion, matter: Matter) -> tuple[datetime | None, ...]:
    """When what the matter says of the future is over."""
    if occasion == "still_on_it":
        return (matter.promised_by, matter.expires_at)
    if occasion == "callback_booked":
        return (matter.call_from or matter.call_until, matter.expires_at)
    return (matter.outage_until, matter.expires_at)


def topic_of(context: Context, case: Case | None) -> str:
    """Return what the case is about, as far as its cause or a tag says it in the policy's terms."""
    if case is None:
        return ""
    topics = context.policy.timing.topics
    return next((topics[name] for name in (case.cause, *case.tags) if name in topics), "")


def why_of(case: Case | None) -> str:
    """Return why it takes longer, only where events have shown it."""
    if case is None:
        return ""
    return "waiting_on_others" if case.standing == "resting" else case.why


def _articles(
    matter: Matter, case: Case | None, occasion: Occasion, language: str, context: Context
) -> tuple[ArticleFacts, ...]:
    found = tuple(ArticleFacts(one.title, one.url, one.summary) for one in matter.articles)
    issue = context.policy.timing.next_issues.get(case.cause) if case else None
    if occasion != "next_issue" or issue is None or found:
        return found
    article = issue.articles.get(language) or issue.articles.get(context.policy.default_language)
    return () if article is None else (ArticleFacts(*article),)


def _message(
    conversation_id: str,
    state: Conversation,
    contact: Contact,
    intent: Intent,
    route: Route,
    language: str,
    words: Words,
    context: Context,
) -> Message:
    cause = intent.cause
    if route.form == "mail":
        return compose(
            secret=context.secret,
            workspace=context.workspace,
            conversation_id=conversation_id,
            notice_id=cause.notice_id,
            occasion=cause.occasion,
            sender=sender_of(context.policy, route.account or contact.account),
            to_address=route.to,
            language=language,
            words=words,
            in_reply_to=state.in_reply_to,
            references=state.references,
            now=context.now,
            way_out=_headers(_way_out(conversation_id, cause, route, language, context), cause),
        )
    return compose_post(
        notice_id=cause.notice_id,
        occasion=cause.occasion,
        route_provider=route.provider,
        route_account=route.account,
        to=route.to,
        thread=state.thread,
        answers=state.answers,
        language=language,
        words=words,
        html=route.form == "html",
        public=route.is_public,
        template=_approved(state, intent, route, language, words, context),
        now=context.now,
    )


def _headers(url: str, cause: Cause) -> tuple[tuple[str, str], ...]:
    """Return the headers for one click out; none where the gateway has no https address (a laptop)."""
    return unsubscribe_headers(cause.category, url) if url.startswith("https://") else ()


def _approved(
    state: Conversation,
    intent: Intent,
    route: Route,
    language: str,
    words: Words,
    context: Context,
) -> VendorTemplate | None:
    """Return the vendor's approved message with its places filled, where it goes instead of our words."""
    if route.template is None:
        return None
    contact, case = state.contact, state.cases.get(intent.cause.ticket_id)
    spoken = context.policy.languages[language]
    may_quote = contact is not None and (contact.is_verified or not intent.cause.is_automatic)
    name = greeting_name(contact.name) if contact is not None and may_quote else ""
    account = contact.account if contact is not None else ""
    values: dict[str, str] = {
        "name": name,
        "salutation": salutation(name, language),
        "brand": sender_of(context.policy, account).from_name,
        "signature": spoken.signature,
        "reference": case.reference if case else "",
        "subject": words.subject,
        "received_at": format_instant(
            case.received_at if case else context.now, spoken.locale, context.policy.zone
        ),
        "agent_name": clean_line(intent.matter.agent_name, limit=80),
        "answer": _whole(intent.matter.text) if not intent.cause.is_automatic else "",
        "question": _whole(intent.matter.question),
        "note": _whole(intent.matter.text) if intent.cause.is_automatic else "",
    }
    template = route.template
    for place in template.values:
        if len(values[place]) > PLACE_MAX:
            raise RenderError(
                f"{place}: more than {PLACE_MAX} characters; the approved template {template.name} holds no more"
            )
    filled = tuple(values[place] or "–" for place in template.values)
    return VendorTemplate(template.name, template.language, filled)


def _whole(text: str) -> str:
    """Return a text as one line. One that is too long stays too long: half an answer is none."""
    return clean_line(text, limit=PLACE_MAX + 2)


# --------------------------------------------------------------------------------------- what was said


def heard(state: Conversation, case: Case | None, context: Context) -> Word | None:
    """Return what the customer was told about the time; None where they cannot have heard it.

    That is so where the notice that said it has not left (or not arrived), or was only rehearsed and by now notices leave.
    """
    word = None if case is None else case.word
    told = None if word is None else state.notices.get(word.said_in)
    if told is None:
        return word
    if not isinstance(told, Settled) or told.status != "dry_run":
        return word if may_have_arrived(told) else None
    account = "" if state.contact is None else state.contact.account
    known = context.policy.accounts.get(account)
    provider = MAIL if known is None else known.provider
    return word if context.policy.rehearses(provider, account) else None


def promise_told(state: Conversation, ticket_id: str, word: Word, context: Context) -> Conversation:
    """Remember what the customer was told of the time, and plan what follows: a sign before it breaks, a word after."""
    if ticket_id not in state.cases:
        return state
    state = with_case(state, ticket_id, word=word, spoken_at=word.at)
    state = without_plans(state, ticket_id)
    early = word.by - context.policy.timing.still_on_it_before
    if early - word.at >= (word.by - word.at) / 2:
        cause = Cause(ticket_id, "still_on_it", f"before {word.by.isoformat()}")
        matter = Matter(early, promised_by=word.by)
        state = planned(state, cause, early, matter)
    due = word.by + ANSWER_GRACE
    late = Cause(ticket_id, "delayed", silence_of(state, ticket_id))
    return planned(state, late, due, Matter(due, promised_by=word.by))


def silence_of(state: Conversation, ticket_id: str) -> str:
    """Name the silence that has lasted since something was said about the wait last: it is apologised for once."""
    case = state.cases.get(ticket_id)
    since = None if case is None else case.spoken_at or case.opened_at
    return "silence" if since is None else f"silence since {since.isoformat()}"


def without_plans(state: Conversation, ticket_id: str) -> Conversation:
    """Forget what was planned for a promise that another one has taken the place of."""
    kept = {
        key: one
        for key, one in state.notices.items()
        if not (
            isinstance(one, Planned)
            and one.ticket_id == ticket_id
            and one.occasion in ("still_on_it", "delayed")
        )
    }
    return structs.replace(state, notices=kept)


def planned(state: Conversation, cause: Cause, due_at: datetime, matter: Matter) -> Conversation:
    """Return the conversation with a notice that is to come about at `due_at`; one that has come about stays as it is."""
    if cause.notice_id in state.notices:
        return state
    ahead = Planned(cause.ticket_id, cause.occasion, cause.cause_id, due_at, matter)
    return with_notice(state, cause.notice_id, ahead)
