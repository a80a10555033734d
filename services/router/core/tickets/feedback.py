"""What a low answer to a survey does to a case: somebody looks at it again, with a draft of a personal answer before them.

Owns the rule and the words of the note. The draft is a note like any other: nobody sends it but a person, by their own command.
What was answered stands in the note only if the customer agreed to that.
"""

from datetime import datetime
from typing import Final

from schemas import ids
from schemas import tickets as wire
from schemas.feedback import SCALES, FeedbackGiven, SurveyKind, feedback_id
from services.router.core.policy.policy import Policy
from services.router.core.tickets import escalation, lifecycle
from services.router.core.tickets.state import Merged, Past, Queued, Solved, Spam, Ticket
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
    rule = policy.routing.feedback
    if rule is None:
        return "no_rule"
    if not is_changed and event.score > rule.low.get(event.kind, SCALES[event.kind].low_max):
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


def look_again(story: Story, event: FeedbackGiven, policy: Policy, *, is_changed: bool) -> None:
    """Have the case looked at: a solved one waits again, in the policy's queue; one that is open becomes more urgent."""
    if is_changed:
        _note(story, event, "The customer has changed their answer since.", is_draft_needed=False)
        return
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


def _note(story: Story, event: FeedbackGiven, more: str, *, is_draft_needed: bool) -> None:
    parts = [f"{_said(event)} {more}".strip()]
    if is_draft_needed:
        parts.append(
            "A draft for a personal answer. Nothing is sent by itself: read the case, fill it in, and send it as your own."
        )
        parts.append(_draft(story.ticket, event.language))
    lifecycle.note(
        story, ids.derive("note", "feedback", event.feedback_id), SIGNALBOX, "\n\n".join(parts)
    )


def _said(event: FeedbackGiven) -> str:
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
