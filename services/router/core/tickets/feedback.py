"""What a low answer to a survey does to a case: somebody looks at it again, with a draft of a personal answer before them.

Owns the rule and the words of the note. The draft is a note like any other: nobody sends it but a person, by their own command.
What was answered stands in the note only if the customer agreed to that.
"""

from datetime import datetime, timedelta
from typing import Final

from msgspec import structs

from schemas import ids
from schemas import tickets as wire
from schemas.feedback import SCALES, FeedbackGiven, SurveyKind, feedback_id
from services.router.core.policy.policy import Policy
from services.router.core.tickets import escalation, lifecycle
from services.router.core.tickets.state import Merged, Past, Queued, Recovery, Solved, Spam, Ticket
from services.router.core.tickets.story import (
    SIGNALBOX,
    Story,
    asked_in,
    next_work_id,
    own_requirement,
)

BY: Final = "feedback"

REVISIONS_LOOKED_FOR: Final = 20
"""How far a survey's revisions are looked for; the gateway takes fewer."""

ONE_WITHIN: Final = timedelta(days=7)
"""Low answers of one conversation within so long are one unhappiness: one task, and one draft."""

_KINDS: Final[dict[SurveyKind, str]] = {
    "csat": "satisfaction",
    "ces": "ease",
    "nps": "recommendation",
}
_DRAFTS: Final[dict[str, str]] = {
    "en": (
        "{greeting}\n\n"
        "Thank you for telling us how it went. It did not go the way you should expect of us, and I am sorry for that.\n\n"
        "I have read your case again. [What happened, in a sentence.] [What I do about it now, and until when.]\n\n"
        "If I have missed something, an answer to this message reaches me."
    ),
    "tr": (
        "{greeting}\n\n"
        "Nasıl geçtiğini bize yazdığınız için teşekkür ederim. Bizden beklediğiniz gibi olmadı; bunun için özür dilerim.\n\n"
        "Talebinizi yeniden okudum. [Ne olduğu, bir cümleyle.] [Şimdi ne yapacağım, ne zamana kadar.]\n\n"
        "Atladığım bir şey varsa bu mesaja yazacağınız yanıt bana ulaşır."
    ),
    "ru": (
        "{greeting}\n\n"
        "Спасибо, что рассказали, как всё прошло. Вышло не так, как вы вправе ожидать от нас, и мне очень жаль.\n\n"
        "Я ещё раз изучаю ваше обращение. [Что произошло, одной фразой.] [Что делаю сейчас и до какого срока.]\n\n"
        "Если я что-то не учту, ответ на это сообщение придёт ко мне."
    ),
}
_GREETINGS: Final[dict[str, str]] = {"en": "Hello,", "tr": "Merhaba,", "ru": "Здравствуйте!"}
"""Without a name: it stands as the customer typed it ("info", "LOVELACE, ADA"), and who finishes the draft knows better."""


def heard(feedback_id: str) -> str:
    """Name an answer that was heard."""
    return f"feedback/{feedback_id}"


def is_superseded(seen: tuple[str, ...], event: FeedbackGiven) -> bool:
    """Whether a later word of the same survey was heard first: two clicks at once may arrive in either order."""
    later = range(event.revision + 1, REVISIONS_LOOKED_FOR + 1)
    return any(heard(feedback_id(event.survey_id, one)) in seen for one in later)


def acted(event: FeedbackGiven) -> str:
    """Name what a survey has brought about, so that a changed mind does not bring it about again."""
    return f"feedback_acted/{event.survey_id}"


def has_acted(seen: tuple[str, ...], event: FeedbackGiven) -> bool:
    """Whether an earlier answer to the same survey has had the case looked at."""
    return acted(event) in seen


def objection(
    ticket: Ticket | None,
    past: Past | None,
    event: FeedbackGiven,
    policy: Policy,
    *,
    is_changed: bool,
) -> str | None:
    """Return why the answer brings nothing about, or None. After one that did, a changed mind is always told."""
    if policy.routing.feedback is None:
        return "no_rule"
    if not is_changed and not is_low(event, policy):
        return "not_low"
    match ticket:
        case Ticket(standing=Merged()):
            return "merged"
        case Ticket(standing=Spam()):
            return "is_spam"
        case None if past is None or past.contact is None:
            return "nobody_to_answer"
        case None if is_changed:
            return "no_open_ticket"
        case _:
            return None


def is_low(event: FeedbackGiven, policy: Policy) -> bool:
    """Whether the policy has somebody look at such an answer."""
    rule = policy.routing.feedback
    low_max = SCALES[event.kind].low_max if rule is None else rule.low.get(event.kind)
    return event.score <= (SCALES[event.kind].low_max if low_max is None else low_max)


def is_looked_at(
    recovery: Recovery | None, ticket: Ticket | None, event: FeedbackGiven, now: datetime
) -> bool:
    """Whether a person is at it already because of another answer, or has been since this one's question was asked.

    Whoever was asked after that, and is unhappy still, has the case looked at anew.
    """
    if recovery is None or now - recovery.since >= ONE_WITHIN:
        return False
    is_open = (
        ticket is not None
        and ticket.ticket_id == recovery.ticket_id
        and not isinstance(ticket.standing, Solved)
    )
    return is_open or event.asked_at <= recovery.since


def after(
    recovery: Recovery | None,
    event: FeedbackGiven,
    ticket_id: str,
    now: datetime,
    *,
    is_low: bool,
    is_same: bool,
) -> Recovery | None:
    """Return what low answers are behind now. `is_same`: what was begun for an earlier one goes for this one too."""
    others = () if recovery is None else tuple(s for s in recovery.surveys if s != event.survey_id)
    if not is_low:
        return (
            structs.replace(recovery, surveys=others) if recovery is not None and others else None
        )
    if recovery is not None and is_same:
        return structs.replace(recovery, surveys=(*others, event.survey_id))
    return Recovery(now, ticket_id, (event.survey_id,))


def tell_change(
    story: Story, event: FeedbackGiven, recovery: Recovery | None, policy: Policy
) -> None:
    """Note that somebody has changed their answer; where none is low any more, the draft is withdrawn."""
    changed = "The customer has changed their answer since."
    if is_low(event, policy):
        more = f"{changed} A personal answer is called for as before."
    elif recovery is not None and set(recovery.surveys) - {event.survey_id}:
        more = f"{changed} Another answer of theirs is low still, so the draft stands."
    else:
        more = f"{changed} The draft of a personal answer is withdrawn: if it has not been sent, do not send it."
    _note(story, event, more, is_low=is_low(event, policy), is_draft_needed=False)


def tell_another(story: Story, event: FeedbackGiven, recovery: Recovery) -> None:
    """Note a low answer beside another one: whoever looks at that one reads it, and nothing is asked for twice."""
    where = ids.ticket_reference(recovery.ticket_id)
    more = f"A personal answer was asked for before ({where}), so this asks for no second one."
    _note(story, event, f"{_about(story.ticket, event)} {more}".strip(), is_draft_needed=False)


def look_again(story: Story, event: FeedbackGiven, policy: Policy) -> None:
    """Have the case looked at: a solved one waits again, in the policy's queue; one that is open becomes more urgent."""
    rule = policy.routing.feedback
    assert rule is not None, "objection() has seen to it"
    if isinstance(story.ticket.standing, Solved):
        _reopen(story, event, rule.queue, rule.priority, policy)
    elif rule.priority < story.ticket.priority:
        escalation.set_priority(story, rule.priority, "low_feedback", by_rule=BY)
    _note(story, event, _about(story.ticket, event), is_draft_needed=True)


def follow_up(
    conversation_id: str,
    number: int,
    past: Past,
    event: FeedbackGiven,
    now: datetime,
    policy: Policy,
) -> Story:
    """Open a case for a low answer about one that is closed. It is asked for as the policy's last rule asks, which fits all."""
    feedback, rule, contact = policy.routing.feedback, policy.rules[-1], past.contact
    assert feedback is not None, "objection() has seen to the rule"
    assert contact is not None, "objection() has seen to the contact"
    queue = policy.routing.queues[feedback.queue]
    ticket_id = ids.ticket_id(conversation_id, number)
    cost = rule.cost_on(contact.channel)
    own = own_requirement(rule, contact.language, policy)
    ticket = Ticket(
        ticket_id=ticket_id,
        number=number,
        reference=ids.ticket_reference(ticket_id),
        version=0,
        standing=Queued(ids.derive("work", ticket_id, "1")),
        queue=feedback.queue,
        desk=queue.desk,
        domain=queue.domain,
        priority=feedback.priority,
        sla_policy=rule.sla_policy,
        rule=rule.name,
        policy_version=policy.version,
        cost=policy.cost(contact.channel) if cost is None else cost,
        contact=contact,
        subject="",
        opened_at=now,
        entered_at=now,
        updated_at=now,
        moved_at=now,
        last_agent_id=past.last_agent_id,
        last_agent_at=past.last_agent_at,
        **asked_in(feedback.queue, own, rule.name, policy),
    )
    story = Story(conversation_id, ticket, now)
    story.tell(
        wire.TicketOpened,
        number=number,
        reference=ticket.reference,
        message_id=event.feedback_id,
        contact=contact.to_wire(),
        desk=ticket.desk,
        queue=ticket.queue,
        priority=ticket.priority,
        sla_policy=ticket.sla_policy,
        rule=ticket.rule,
        policy_version=ticket.policy_version,
        occurred_at=event.occurred_at,
        follows=past.ticket_id,
        by=BY,
    )
    story.request_work("low_feedback", policy)
    reference = ids.ticket_reference(past.ticket_id)
    _note(story, event, f"It is about {reference}, which is closed.", is_draft_needed=True)
    return story


def _reopen(story: Story, event: FeedbackGiven, queue: str, priority: int, policy: Policy) -> None:
    if priority < story.ticket.priority:
        # Before it waits again, while there is no request whose place would have to change.
        escalation.set_priority(story, priority, "low_feedback", by_rule=BY)
    lifecycle.move_to_queue(story, queue, policy)
    story.change(entered_at=story.now, standing=Queued(next_work_id(story.ticket)))
    story.tell(
        wire.TicketReopened,
        message_id=event.feedback_id,
        queue=story.ticket.queue,
        reopen_count=story.ticket.reopen_count,
        occurred_at=event.occurred_at,
        by=BY,
    )
    story.request_work("low_feedback", policy, relax_from=story.now)


def _about(ticket: Ticket, event: FeedbackGiven) -> str:
    """Return which case the answer is about, where it is another than the one that the note stands in."""
    if ticket.ticket_id == event.ticket_id:
        return ""
    return f"It is about {ids.ticket_reference(event.ticket_id)}, an earlier case of this conversation."


def _note(
    story: Story, event: FeedbackGiven, more: str, *, is_draft_needed: bool, is_low: bool = True
) -> None:
    parts = [f"{_said(event, is_low=is_low)} {more}".strip()]
    contact = story.ticket.contact
    if is_draft_needed and (contact.address_kind == "none" or not contact.address):
        parts.append("No address of theirs is known, so there is no draft: see what can be mended.")
    elif is_draft_needed:
        parts.append(
            "A draft for a personal answer. Nothing is sent by itself: read the case, fill it in, and send it as your own."
        )
        parts.append(_draft(story.ticket, event.language))
    lifecycle.note(
        story, ids.derive("note", "feedback", event.feedback_id), SIGNALBOX, "\n\n".join(parts)
    )


def _said(event: FeedbackGiven, *, is_low: bool) -> str:
    if not event.may_share and not is_low:
        return (
            "The customer was asked how it went, and what they answer now asks for no personal look. They did not agree that"
            " whoever works on the case sees the answer, so it is not shown here."
        )
    if not event.may_share:
        return (
            "The customer was asked how it went, and what they answered asks for a personal look. They did not agree that"
            " whoever works on the case sees the answer, so it is not shown here."
        )
    most = SCALES[event.kind].most
    said = f"The customer was asked how it went and gave {event.score} of {most} ({_KINDS[event.kind]})."
    return f"{said} They wrote:\n\n{event.comment}\n\n" if event.comment else said


def _draft(ticket: Ticket, answered_in: str | None) -> str:
    language = ticket.contact.language or answered_in or ""
    language = language.replace("_", "-").partition("-")[0].lower()
    spoken = language if language in _DRAFTS else "en"
    return _DRAFTS[spoken].format(greeting=_GREETINGS[spoken])
