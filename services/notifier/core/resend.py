"""Sending a notice again because a person says so: one that failed, that bounced, or of which nobody knows whether it arrived.

What failed or bounced has its words made anew and asks the plan for its way, without the caps and quiet hours that hold machines.
What may have arrived goes again as it was, to the byte and under its key: a vendor that drops repeats drops it, and whoever asked
answers for the rest. Everything else is refused, with the reason in words.
"""

from dataclasses import dataclass
from datetime import datetime

from schemas.commands import ResendNotice
from schemas.notifications import NoticeResendDecided
from services.notifier.core.delivery import SendNotice
from services.notifier.core.explain import why_suppressed
from services.notifier.core.plan import Go, Refused, plan
from services.notifier.core.reason import SUPERSEDES, Cause
from services.notifier.core.state import (
    Case,
    Conversation,
    Deferred,
    Matter,
    Notice,
    Planned,
    Sending,
    Settled,
)
from services.notifier.core.told import (
    REASON_LENGTH_MAX,
    Context,
    Decision,
    about,
    then,
    with_notice,
    without_notice,
)
from services.notifier.core.words import Intent, is_over, say


@dataclass(frozen=True, slots=True)
class _No:
    """It is not sent again, and why."""

    reason: str


def resend(
    conversation_id: str, state: Conversation, event: ResendNotice, context: Context
) -> Decision:
    """Send it again, once, or say why not."""
    notice = state.notices.get(event.notice_id)
    sent = _settled(state, notice)
    if isinstance(sent, _No):
        return _refused(conversation_id, state, event, sent.reason, context)
    if sent.status == "unknown":
        return _same(conversation_id, state, event, sent, context)
    return _anew(conversation_id, state, event, sent, context)


# ------------------------------------------------------------------------------------------ what can be


def _settled(state: Conversation, notice: Notice | None) -> Settled | _No:
    """Return the notice, where it is one that can be sent again."""
    match notice:
        case None:
            return _No(
                "nothing is known of it any more: its ticket is closed, or it is another conversation's"
            )
        case Planned() | Deferred():
            return _No("it has not been sent yet, and is told by itself when its time comes")
        case Settled(status="unknown" | "failed"):
            pass
        case Settled(status="sent", delivery="bounced"):
            pass
        case Settled(status="sent", delivery=delivery):
            return _No(
                f"it was sent{f' and {delivery}' if delivery else ''}, and nothing says that it was lost"
            )
        case Settled(status="dry_run"):
            return _No("it was rehearsed in a dry run; what was rehearsed is not sent later")
        case Settled():
            return _No("it was held back by a rule; `signalbox notify why` says by which")
        case _:
            return _No("it is still under way")
    stale = _stale(state, notice)
    return notice if stale is None else _No(stale)


def _stale(state: Conversation, notice: Settled) -> str | None:
    """Return why an automatic notice would be out of place by now. An answer never is: a person wrote it."""
    if notice.occasion == "answered" or notice.matter is None:
        return None
    came_about = notice.matter.at
    happened = _happened(state.cases.get(notice.ticket_id), came_about)
    if happened and notice.occasion in SUPERSEDES[happened]:
        return f"it is stale: {_HAPPENED[happened]}"
    for one in state.notices.values():
        is_newer = one.ticket_id == notice.ticket_id and _went_out_after(one, came_about)
        if is_newer and notice.occasion in SUPERSEDES[one.occasion]:
            return f"it is stale: the customer has had the notice “{one.occasion}” since, or is about to"
    return None


_HAPPENED = {
    "merged": "its ticket goes on in another one, or was set aside",
    "answered": "somebody of ours has answered since",
    "solved": "the case was solved since",
}


def _happened(case: Case | None, after: datetime) -> str:
    """Return what has happened to a case that makes notices stale which came about before."""
    if case is None:
        return ""
    if case.standing == "over":
        return "merged"
    if case.spoken_at is None or case.spoken_at <= after:
        return ""
    if case.standing == "solved":
        return "solved"
    return "answered" if case.is_awaiting_customer else ""


def _went_out_after(one: Notice, instant: datetime) -> bool:
    """Whether a notice that came about later has gone out, or is about to."""
    match one:
        case Planned() | Settled(status="suppressed" | "failed" | "dry_run"):
            return False
        case Settled(delivery="bounced"):
            return False
        case _:
            return one.matter is not None and one.matter.at > instant


# ------------------------------------------------------------------------------------------- sending it


def _same(
    conversation_id: str,
    state: Conversation,
    event: ResendNotice,
    notice: Settled,
    context: Context,
) -> Decision:
    """Hand over the same message again. It stays in doubt until the provider has taken it."""
    message, now = notice.message, context.now
    if message is None:
        return _refused(conversation_id, state, event, "its words are not kept any more", context)
    is_automatic = notice.occasion != "answered"
    is_untrue = notice.stale_at is not None and notice.stale_at <= now
    is_late = notice.matter is not None and is_over(notice.occasion, notice.matter, now)
    if is_automatic and (is_untrue or is_late):
        said = "what it says is no longer true; write to the customer yourself"
        return _refused(conversation_id, state, event, said, context)
    if context.policy.rehearses(notice.provider, notice.account):
        return _refused(conversation_id, state, event, _NOTHING_LEAVES, context)
    cause = _cause(notice)
    way = plan(context.policy, context.known, state, cause, now, is_gathered=True)
    if isinstance(way, Refused):
        return _refused(conversation_id, state, event, _words(way, cause), context)
    if isinstance(way, Go) and way.route.way != f"{notice.provider}/{notice.account}":
        said = f"the way that it went ({notice.provider}) is no longer open; write to the customer yourself"
        return _refused(conversation_id, state, event, said, context)
    attempt = notice.attempt + 1
    sending = Sending(
        notice.ticket_id,
        notice.occasion,
        attempt,
        cause_id=notice.cause_id,
        matter=notice.matter,
        excused=notice.attempt,
        stale_at=notice.stale_at,
        doubted_at=now,
        recipient=notice.recipient,
    )
    send = SendNotice(
        event.notice_id, attempt, notice.provider, message, notice.account, asked_at=now
    )
    told = _decided(conversation_id, event, notice, context, is_anew=False)
    return Decision(with_notice(state, event.notice_id, sending), (told,), (send,))


def _anew(
    conversation_id: str,
    state: Conversation,
    event: ResendNotice,
    notice: Settled,
    context: Context,
) -> Decision:
    """Make its words anew and ask for its way, as if it had come about now."""
    cause = _cause(notice)
    matter = notice.matter or _answer(event, notice, context)
    if matter is None or cause.notice_id != event.notice_id:
        said = "its words were not kept; write to the customer yourself"
        return _refused(conversation_id, state, event, said, context)
    if is_over(notice.occasion, matter, context.now):
        said = "it came about too long ago, or what it says is over; write to the customer yourself"
        return _refused(conversation_id, state, event, said, context)
    way = plan(context.policy, context.known, state, cause, context.now, is_gathered=True)
    if isinstance(way, Refused):
        return _refused(conversation_id, state, event, _words(way, cause), context)
    if isinstance(way, Go) and context.policy.rehearses(way.route.provider, way.route.account):
        return _refused(conversation_id, state, event, _NOTHING_LEAVES, context)
    promise = state.promises.get(notice.ticket_id)
    if promise is not None and promise.by is not None and promise.by <= context.now:
        promise = None
    intent = Intent(cause, matter, promise, notice.attempt, notice.attempt, is_gathered=True)
    bare = without_notice(state, event.notice_id)
    told = _decided(conversation_id, event, notice, context, is_anew=True)
    return then(Decision(bare, (told,)), say(conversation_id, bare, intent, context))


_NOTHING_LEAVES = "nothing leaves at the moment: `delivery: dry_run` in notify.yaml"


def _cause(notice: Settled) -> Cause:
    """A person wants it sent: it does not wait for the morning, and no cap for machines holds it."""
    return Cause(
        notice.ticket_id, notice.occasion, notice.cause_id, urgency="high", is_counted=True
    )


def _answer(event: ResendNotice, notice: Settled, context: Context) -> Matter | None:
    """Return an agent's answer as the command has it; None where it has none."""
    if notice.occasion != "answered" or not event.text.strip():
        return None
    return Matter(
        context.now, text=event.text, language=event.language, agent_name=event.agent_name
    )


def _words(refused: Refused, cause: Cause) -> str:
    why = why_suppressed(refused.reason.value, cause.occasion)
    where = f" ({why.path} in notify.yaml)" if why.path else ""
    return f"the rules stand against it: {why.words}{where}"


def _decided(
    conversation_id: str,
    event: ResendNotice,
    notice: Settled,
    context: Context,
    *,
    is_anew: bool,
) -> NoticeResendDecided:
    return NoticeResendDecided(
        **about(conversation_id, event.notice_id, notice.ticket_id, notice.occasion, context.now),
        command_id=event.command_id,
        agent_id=event.agent_id,
        outcome="resent",
        is_anew=is_anew,
    )


def _refused(
    conversation_id: str,
    state: Conversation,
    event: ResendNotice,
    reason: str,
    context: Context,
) -> Decision:
    told = NoticeResendDecided(
        **about(conversation_id, event.notice_id, event.ticket_id, event.occasion, context.now),
        command_id=event.command_id,
        agent_id=event.agent_id,
        outcome="refused",
        reason=reason[:REASON_LENGTH_MAX],
    )
    return Decision(state, (told,))
