"""After each attempt: what is sent, what is tried again, by another way or not at all, what is looked up, what is reported.

A notice that a provider may have taken is never blindly sent again: one that drops repeats by key is asked to take it again
while it surely remembers the key, one that can be asked is asked, and else nobody knows, which a person is told.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import structs

from schemas.messages import DeliveryWord, MessageDeliveryReported
from schemas.notifications import (
    AnyNoticeEvent,
    NoticeDeliveryReported,
    NoticeFailed,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
)
from services.notifier.core.audience import is_about_the_mail
from services.notifier.core.delivery import (
    KEY_LIFE,
    LOOK_DELAYS,
    Absent,
    Delivered,
    Failed,
    Rehearsed,
    SendNotice,
    SendSettled,
    Unknown,
    Unsent,
    retry_at,
    wished,
)
from services.notifier.core.known import dead_name
from services.notifier.core.plan import Go, plan
from services.notifier.core.post import Post, Trouble
from services.notifier.core.reason import FRESH, Cause, Suppression
from services.notifier.core.state import (
    Conversation,
    Doubted,
    Matter,
    Message,
    Notice,
    Report,
    Sending,
    Settled,
    Waiting,
)
from services.notifier.core.text import clean_line
from services.notifier.core.told import (
    REASON_LENGTH_MAX,
    Context,
    Dead,
    Decision,
    about,
    deferral,
    given_back,
    own_name,
    then,
    traits_of,
    with_notice,
    without_notice,
)
from services.notifier.core.words import Intent, is_over, say

ACCOUNT_TROUBLE = "account_trouble"

LOOKS_AFTER = (
    timedelta(seconds=5),
    timedelta(minutes=1),
    timedelta(minutes=15),
    timedelta(minutes=90),
    timedelta(hours=6),
)
"""How long after a report came that names no conversation its message is looked for again. An answer to a sending takes seconds, one
that had to be looked up (`LOOK_DELAYS`) over an hour; what is not ours by then never was."""

EARLY_MAX = 20
"""Reports that a conversation keeps until the answers to their sendings come."""

LATEST_MESSAGE_IDS = 200
"""Characters of a message's id that are kept; ids of vendors are far shorter."""


def settle(
    conversation_id: str, state: Conversation, settled: SendSettled, context: Context
) -> Decision:
    """Say what came of an attempt or a lookup, or arrange the next. An answer that nobody waits for changes nothing."""
    send = settled.send
    notice = state.notices.get(send.notice_id)
    match notice:
        case Sending(attempt=attempt) if attempt == send.attempt and not send.is_lookup:
            decision = _after_attempt(conversation_id, state, notice, settled, context)
        case Doubted(look=look, look_at=None) if look == send.attempt and send.is_lookup:
            decision = _after_look(conversation_id, state, notice, settled, context)
        case _:
            return Decision(state, ignored="not_awaited")
    return _with_early(conversation_id, decision, send.notice_id, context)


def good_until(notice: Sending) -> datetime | None:
    """Return until when it may be handed over as it is: its words are true, it is of use, its key is surely remembered.

    What an agent wrote goes out as they wrote it.
    """
    ends = [] if notice.doubted_at is None else [notice.doubted_at + KEY_LIFE]
    if notice.occasion != "answered":
        if notice.stale_at is not None:
            ends.append(notice.stale_at)
        if notice.matter is not None and notice.matter.expires_at is not None:
            ends.append(notice.matter.expires_at)
        if notice.matter is not None and notice.occasion in FRESH:
            ends.append(notice.matter.at + FRESH[notice.occasion])
    return min(ends, default=None)


def retry(conversation_id: str, state: Conversation, context: Context) -> Decision:
    """Try again what is due, and look up what is in doubt; oldest message first, each the same to the byte.

    Words that are no longer true are made anew, which may also mean that there is nothing to be said any more.
    """
    due = sorted(
        (notice.message.date, notice_id)
        for notice_id, notice in state.notices.items()
        if (at := _due_at(notice)) is not None
        and at <= context.now
        and isinstance(notice, Waiting | Doubted)
    )
    decision = Decision(state)
    for _, notice_id in due:
        notice = decision.state.notices[notice_id]
        assert isinstance(notice, Waiting | Doubted), "it was so a moment ago"
        one = _again(conversation_id, decision.state, notice_id, notice, context)
        decision = then(decision, one)
    return decision


def next_due(state: Conversation) -> datetime | None:
    """Return when the earliest retry or lookup is due."""
    due = [at for one in state.notices.values() if (at := _due_at(one)) is not None]
    return min(due, default=None)


def _due_at(notice: Notice) -> datetime | None:
    match notice:
        case Waiting():
            return notice.retry_at
        case Doubted():
            return notice.look_at
        case _:
            return None


# ------------------------------------------------------------------------------------ after an attempt


def _after_attempt(
    conversation_id: str,
    state: Conversation,
    notice: Sending,
    settled: SendSettled,
    context: Context,
) -> Decision:
    send, result = settled.send, settled.result
    match result:
        case Delivered(message_id=message_id):
            return _sent(conversation_id, state, notice, send, message_id, context)
        case Unknown(reason=reason):
            return _doubted(conversation_id, state, notice, send, reason, context)
        case Failed(is_recoverable=True) if notice.is_superseded:
            return _stale(conversation_id, state, notice, send, context)
        case Failed(trouble=Trouble.ACCOUNT):
            return _account_trouble(conversation_id, state, notice, send, result, context)
        case Failed():
            return _refused(conversation_id, state, notice, send, result, context)
        case Rehearsed():
            return _rehearsed(conversation_id, state, notice, send, context)
        case Unsent():
            return _unsent(conversation_id, state, notice, send, context)
        case Absent():
            raise TypeError("only a lookup can find nothing")


def _unsent(
    conversation_id: str, state: Conversation, notice: Sending, send: SendNotice, context: Context
) -> Decision:
    """Its turn came too late: end it where it is superseded, ask what became of an earlier attempt, else make it anew."""
    if notice.is_superseded:
        return _stale(conversation_id, state, notice, send, context)
    if notice.doubted_at is not None:
        reason = "an earlier attempt was never answered"
        return _doubted_for_good(conversation_id, state, notice, send, reason, context)
    excused = notice.excused + 1
    kept = _with_waiting(state, send, notice, context.now, excused=excused, doubted_at=None)
    waiting = kept.notices[send.notice_id]
    assert isinstance(waiting, Waiting), "it was just put there"
    return _anew(conversation_id, kept, send.notice_id, waiting, context)


def _rehearsed(
    conversation_id: str, state: Conversation, notice: Sending, send: SendNotice, context: Context
) -> Decision:
    """All was done but handing it over. An earlier attempt, from before the dry run, may have been taken."""
    doubt = "an earlier attempt was never answered, and a dry run has begun"
    why = Suppression.DRY_RUN
    return _kept_back(conversation_id, state, notice, send, why, doubt, context)


def _sent(
    conversation_id: str,
    state: Conversation,
    notice: Sending | Doubted,
    send: SendNotice,
    message_id: str,
    context: Context,
) -> Decision:
    name = _name_of(send.message, message_id)
    told = NoticeSent(
        **_about(conversation_id, send, notice, context),
        provider=send.provider,
        provider_message_id=name,
        attempts=notice.attempt,
        account=send.account,
    )
    return _over(state, send, notice, "sent", told, name)


def _name_of(message: Message, message_id: str) -> str:
    """Return what the message is called in reports: our own Message-ID for mail, else the vendor's id (or our key)."""
    ours = own_name(message)
    name = clean_line(message_id, LATEST_MESSAGE_IDS) if isinstance(message, Post) else ours
    return name or ours


def _doubted(
    conversation_id: str,
    state: Conversation,
    notice: Sending,
    send: SendNotice,
    reason: str,
    context: Context,
) -> Decision:
    """Nobody knows whether it was taken: have it taken again under its key, look it up, or say so."""
    traits = traits_of(send.provider, send.account, context)
    is_keyed = traits is not None and traits.is_keyed
    # Whoever was erased meanwhile is in no lookup: it would have to keep the words.
    is_kept = notice.matter is not None
    can_find = traits is not None and traits.can_find and is_kept
    reason = clean_line(reason, REASON_LENGTH_MAX)
    if is_keyed and not notice.is_superseded:
        again = Failed(reason, is_recoverable=True, trouble=Trouble.PROVIDER)
        due = retry_at(context.policy, send.notice_id, _counted(notice), again, context.now)
        since = notice.doubted_at or context.now
        if due is not None and due - since <= KEY_LIFE:
            return Decision(_with_waiting(state, send, notice, due, doubted_at=since))
    if can_find:
        doubt = Doubted(
            notice.ticket_id,
            notice.occasion,
            notice.attempt,
            1,
            context.now + LOOK_DELAYS[0],
            send.message,
            send.provider,
            send.account,
            reason,
            notice.cause_id,
            notice.matter,
            notice.excused,
            notice.stale_at,
            notice.is_superseded,
            notice.tried,
            notice.recipient,
        )
        return Decision(with_notice(state, send.notice_id, doubt))
    return _unknown(conversation_id, state, notice, send, reason, context)


def _account_trouble(
    conversation_id: str,
    state: Conversation,
    notice: Sending,
    send: SendNotice,
    failed: Failed,
    context: Context,
) -> Decision:
    """Somebody has to renew something: it waits, without using up its attempts, and is told once."""
    timing = context.policy.timing
    since = notice.matter.at if notice.matter is not None else send.message.date
    due = context.now + max(timing.account_retry, wished(failed))
    if due - since > timing.account_patience:
        if notice.doubted_at is not None:
            # An earlier attempt may have been taken, whatever the account's trouble is now.
            return _doubted_for_good(conversation_id, state, notice, send, failed.reason, context)
        return _failed(conversation_id, state, notice, send, failed, context)
    excused = notice.excused + 1
    after = _with_waiting(state, send, notice, due, excused=excused, doubted_at=notice.doubted_at)
    waiting = after.notices[send.notice_id]
    assert isinstance(waiting, Waiting), "it was just put there"
    after = with_notice(after, send.notice_id, structs.replace(waiting, is_troubled=True))
    if notice.is_troubled:
        return Decision(after)
    told = deferral(
        conversation_id, send.notice_id, waiting, due, ACCOUNT_TROUBLE, context.now, send.account
    )
    return Decision(after, (told,))


def _refused(
    conversation_id: str,
    state: Conversation,
    notice: Sending,
    send: SendNotice,
    failed: Failed,
    context: Context,
) -> Decision:
    """It was not taken: later again by the same way, else once by another, else it has failed."""
    due = retry_at(context.policy, send.notice_id, _counted(notice), failed, context.now)
    if due is not None and not (
        notice.doubted_at is not None and due - notice.doubted_at > KEY_LIFE
    ):
        after = _with_waiting(state, send, notice, due, doubted_at=notice.doubted_at)
        return Decision(after)
    if notice.doubted_at is not None:
        # An earlier attempt may have been taken, whatever became of the later ones.
        return _doubted_for_good(conversation_id, state, notice, send, failed.reason, context)
    if notice.is_superseded:
        return _stale(conversation_id, state, notice, send, context)
    other = _by_another_way(conversation_id, state, notice, send, context)
    ended = other or _failed(conversation_id, state, notice, send, failed, context)
    if failed.trouble is not Trouble.ADDRESS or not notice.recipient:
        return ended
    reason = clean_line(failed.reason, REASON_LENGTH_MAX)
    name = dead_name(send.provider, notice.recipient)
    return ended._replace(dead=(_dead(name, reason, context, is_for_good=True),))


def _dead(recipient: str, reason: str, context: Context, *, is_for_good: bool) -> Dead:
    policy = context.policy
    wait = policy.hard_bounce_for if is_for_good else policy.soft_bounce_for
    return Dead(recipient, reason, context.now, None if wait is None else context.now + wait)


def _doubted_for_good(
    conversation_id: str,
    state: Conversation,
    notice: Sending,
    send: SendNotice,
    reason: str,
    context: Context,
) -> Decision:
    """Its key is no longer relied on: look it up, or say that nobody knows."""
    past = structs.replace(notice, doubted_at=context.now - 2 * KEY_LIFE)
    return _doubted(conversation_id, state, past, send, reason, context)


def _by_another_way(
    conversation_id: str, state: Conversation, notice: Sending, send: SendNotice, context: Context
) -> Decision | None:
    """Tell it by the next way that the policy has, once; None where there is none, or this was the second."""
    if notice.tried or notice.matter is None:
        return None
    cause = _cause_of(
        notice.ticket_id,
        notice,
        (f"{send.provider}/{send.account}",),
    )
    if is_over(cause.occasion, notice.matter, context.now):
        return None
    way = plan(context.policy, context.known, state, cause, context.now)
    if not isinstance(way, Go) or way.route.way in cause.tried:
        return None
    intent = Intent(
        cause,
        notice.matter,
        state.promises.get(notice.ticket_id),
        notice.attempt,
        notice.attempt,  # The other way has its own attempts.
        is_requested=True,
    )
    bare = without_notice(state, send.notice_id)
    return say(conversation_id, bare, intent, context)


def _failed(
    conversation_id: str,
    state: Conversation,
    notice: Sending | Waiting | Doubted,
    send: SendNotice,
    failed: Failed,
    context: Context,
) -> Decision:
    told = NoticeFailed(
        **_about(conversation_id, send, notice, context),
        provider=send.provider,
        reason=clean_line(failed.reason, REASON_LENGTH_MAX),
        attempts=notice.attempt,
        trouble=failed.trouble.value,
        account=send.account,
    )
    return _over(state, send, notice, "failed", told)


def _stale(
    conversation_id: str,
    state: Conversation,
    notice: Sending | Doubted,
    send: SendNotice,
    context: Context,
) -> Decision:
    doubt, why = "an earlier attempt was never answered", Suppression.SUPERSEDED
    return _kept_back(conversation_id, state, notice, send, why, doubt, context)


def _kept_back(
    conversation_id: str,
    state: Conversation,
    notice: Sending | Doubted,
    send: SendNotice,
    why: Suppression,
    doubt: str,
    context: Context,
) -> Decision:
    """It was not handed over, for `why`; where an earlier attempt may have been taken, `doubt` says so instead."""
    if isinstance(notice, Sending) and notice.doubted_at is not None:
        return _doubted_for_good(conversation_id, state, notice, send, doubt, context)
    told = NoticeSuppressed(**_about(conversation_id, send, notice, context), reason=why.value)
    status = "dry_run" if why is Suppression.DRY_RUN else "suppressed"
    return _over(state, send, notice, status, told)


def _unknown(
    conversation_id: str,
    state: Conversation,
    notice: Sending | Waiting | Doubted,
    send: SendNotice,
    reason: str,
    context: Context,
) -> Decision:
    told = NoticeUnknown(
        **_about(conversation_id, send, notice, context),
        provider=send.provider,
        reason=clean_line(reason, REASON_LENGTH_MAX),
        attempts=notice.attempt,
        account=send.account,
    )
    return _over(state, send, notice, "unknown", told, _name_of(send.message, ""))


def _counted(notice: Sending) -> int:
    """How many attempts count: those that an account's trouble ended, or another way, do not."""
    return notice.attempt - notice.excused


def _about(
    conversation_id: str,
    send: SendNotice,
    notice: Sending | Waiting | Doubted,
    context: Context,
) -> dict[str, Any]:
    return about(conversation_id, send.notice_id, notice.ticket_id, notice.occasion, context.now)


def _with_waiting(
    state: Conversation,
    send: SendNotice,
    notice: Sending,
    due: datetime,
    *,
    doubted_at: datetime | None,
    excused: int | None = None,
) -> Conversation:
    waiting = Waiting(
        notice.ticket_id,
        notice.occasion,
        notice.attempt,
        due,
        send.message,
        send.provider,
        send.account,
        notice.cause_id,
        notice.matter,
        notice.excused if excused is None else excused,
        notice.stale_at,
        doubted_at,
        notice.tried,
        notice.recipient,
        notice.is_troubled,
    )
    return with_notice(state, send.notice_id, waiting)


def _over(
    state: Conversation,
    send: SendNotice,
    notice: Sending | Waiting | Doubted,
    status: str,
    told: AnyNoticeEvent,
    message_id: str = "",
) -> Decision:
    """Note the end, and what reports about it will call it."""
    settled = Settled(
        notice.ticket_id,
        notice.occasion,
        status,
        message_id,
        send.provider,
        send.account,
        recipient=notice.recipient,
        attempt=notice.attempt,
        cause_id=notice.cause_id,
        matter=_kept(notice.matter, status),
        message=send.message if status == "unknown" else None,
        stale_at=notice.stale_at if status == "unknown" else None,
        ended_at=told.at,
    )
    if status in ("failed", "suppressed"):
        state = given_back(state, send.notice_id)
    return Decision(with_notice(state, send.notice_id, settled), (told,))


def _kept(matter: Matter | None, status: str) -> Matter | None:
    """Return what is kept of a matter: all of it where it did not arrive, and no long words of what was sent."""
    if matter is None or status in ("failed", "unknown"):
        return matter
    is_short = not (matter.text or matter.question or matter.items)
    return matter if status == "sent" and is_short else None


# ---------------------------------------------------------------------------------- trying again, looking up


def _again(
    conversation_id: str,
    state: Conversation,
    notice_id: str,
    notice: Waiting | Doubted,
    context: Context,
) -> Decision:
    if isinstance(notice, Doubted):
        asked = SendNotice(
            notice_id,
            notice.look,
            notice.provider,
            notice.message,
            notice.account,
            is_lookup=True,
            asked_at=context.now,
            about_attempt=notice.attempt,
        )
        under_way = structs.replace(notice, look_at=None)
        return Decision(with_notice(state, notice_id, under_way), sends=(asked,))
    if _is_stale(notice, context.now):
        return _anew(conversation_id, state, notice_id, notice, context)
    attempt = notice.attempt + 1
    sending = Sending(
        notice.ticket_id,
        notice.occasion,
        attempt,
        cause_id=notice.cause_id,
        matter=notice.matter,
        excused=notice.excused,
        stale_at=notice.stale_at,
        doubted_at=notice.doubted_at,
        tried=notice.tried,
        recipient=notice.recipient,
        is_troubled=notice.is_troubled,
    )
    send = SendNotice(
        notice_id,
        attempt,
        notice.provider,
        notice.message,
        notice.account,
        asked_at=context.now,
    )
    return Decision(with_notice(state, notice_id, sending), sends=(send,))


def _is_stale(notice: Waiting, now: datetime) -> bool:
    """Whether its words are no longer true, or it is too late for them. What an agent wrote goes out as they wrote it.

    Nor does anything go out again whose key the provider may have forgotten since an attempt that was never answered.
    """
    if notice.doubted_at is not None and now - notice.doubted_at > KEY_LIFE:
        return True
    if notice.occasion == "answered":
        return False
    is_untrue = notice.stale_at is not None and notice.stale_at <= now
    return is_untrue or (notice.matter is not None and is_over(notice.occasion, notice.matter, now))


def _anew(
    conversation_id: str, state: Conversation, notice_id: str, notice: Waiting, context: Context
) -> Decision:
    """Make its words anew, where it was surely not taken; else other words under its key would be another message."""
    if notice.doubted_at is not None or notice.matter is None:
        send = SendNotice(
            notice_id, notice.attempt, notice.provider, notice.message, notice.account
        )
        if notice.doubted_at is None:
            facts = _about(conversation_id, send, notice, context)
            told = NoticeSuppressed(**facts, reason=Suppression.EXPIRED.value)
            return _over(state, send, notice, "suppressed", told)
        past = Sending(
            notice.ticket_id,
            notice.occasion,
            notice.attempt,
            cause_id=notice.cause_id,
            matter=notice.matter,
            excused=notice.excused,
            stale_at=notice.stale_at,
            doubted_at=notice.doubted_at,
            tried=notice.tried,
            recipient=notice.recipient,
        )
        reason = "an attempt was never answered"
        return _doubted_for_good(conversation_id, state, past, send, reason, context)
    cause = _cause_of(notice.ticket_id, notice, notice.tried)
    intent = Intent(
        cause,
        notice.matter,
        state.promises.get(notice.ticket_id),
        notice.attempt,
        notice.excused,
        is_requested=True,
    )
    return say(conversation_id, without_notice(state, notice_id), intent, context)


def _cause_of(ticket_id: str, notice: Sending | Waiting | Doubted, tried: tuple[str, ...]) -> Cause:
    return Cause(ticket_id, notice.occasion, notice.cause_id, tried, is_counted=True)


def _after_look(
    conversation_id: str,
    state: Conversation,
    notice: Doubted,
    settled: SendSettled,
    context: Context,
) -> Decision:
    """Found: it is sent. Surely absent: it is tried again, unless it is stale. Cannot be told: asked again, then unknown."""
    send, result = settled.send, settled.result
    match result:
        case Delivered(message_id=message_id):
            return _sent(conversation_id, state, notice, send, message_id, context)
        case Absent() if notice.is_superseded:
            return _stale(conversation_id, state, notice, send, context)
        case Absent():
            return _absent(conversation_id, state, notice, send, context)
        case Failed() | Unknown():
            if notice.look < len(LOOK_DELAYS):
                due = context.now + _look_delay(notice.look, result)
                later = structs.replace(notice, look=notice.look + 1, look_at=due)
                return Decision(with_notice(state, send.notice_id, later))
            reason = f"{notice.reason}; it could not be looked up: {result.reason}"
            return _unknown(conversation_id, state, notice, send, reason, context)
        case Rehearsed() | Unsent():
            raise TypeError("lookups are never rehearsed or left: they ask about what was sent")


def _look_delay(look: int, result: Failed | Unknown) -> timedelta:
    asked = wished(result) if isinstance(result, Failed) else timedelta(0)
    return max(LOOK_DELAYS[look], asked)


def _absent(
    conversation_id: str, state: Conversation, notice: Doubted, send: SendNotice, context: Context
) -> Decision:
    counted = notice.attempt - notice.excused
    again = Failed(notice.reason, is_recoverable=True, trouble=Trouble.PROVIDER)
    due = retry_at(context.policy, send.notice_id, counted, again, context.now)
    if due is None:
        return _failed(conversation_id, state, notice, send, again, context)
    waiting = Waiting(
        notice.ticket_id,
        notice.occasion,
        notice.attempt,
        due,
        notice.message,
        notice.provider,
        notice.account,
        notice.cause_id,
        notice.matter,
        notice.excused,
        notice.stale_at,
        None,
        notice.tried,
        notice.recipient,
    )
    return Decision(with_notice(state, send.notice_id, waiting))


# ------------------------------------------------------------------------------------------------ reports


def reported(
    conversation_id: str, state: Conversation, event: MessageDeliveryReported, context: Context
) -> Decision:
    """Take in what a vendor or a mail server says of a notice's way. What was heard before, or is of less, changes nothing.

    A report may come before the answer to the sending: it is kept while one is under way.
    """
    detail = clean_line(event.detail, REASON_LENGTH_MAX)
    report = Report(event.what, detail, event.is_permanent)
    notice_id = _named(state, event.vendor_message_id)
    if notice_id is not None:
        return _told_of(conversation_id, state, notice_id, report, context)
    if not is_under_way(state):
        return Decision(state, ignored="not_ours")
    return _kept_early(state, event.vendor_message_id, report)


def _kept_early(state: Conversation, message_id: str, report: Report) -> Decision:
    name = clean_line(_bare(message_id), LATEST_MESSAGE_IDS)
    known = state.early.get(name)
    if not name or (known is not None and _WORTH[report.what] <= _WORTH[known.what]):
        return Decision(state, ignored="known_already" if name else "not_ours")
    others = [(key, one) for key, one in state.early.items() if key != name]
    early = dict([*others, (name, report)][-EARLY_MAX:])
    return Decision(structs.replace(state, early=early), ignored="early")


def unplaced(state: Conversation, event: MessageDeliveryReported, context: Context) -> Decision:
    """Keep a report that names no conversation, and whose message is not known: its sending may not have been recorded yet."""
    detail = clean_line(event.detail, REASON_LENGTH_MAX)
    report = Report(event.what, detail, event.is_permanent)
    decision = _kept_early(state, event.vendor_message_id, report)
    if not decision.state.early:
        return decision
    heard_at = state.heard_at or context.now
    return decision._replace(state=structs.replace(decision.state, heard_at=heard_at))


def look_due(state: Conversation, now: datetime) -> datetime | None:
    """Return when the message of reports that name no conversation is looked for again; None where it never is."""
    if state.heard_at is None:
        return None
    return next((at for wait in LOOKS_AFTER if (at := state.heard_at + wait) > now), None)


def placed(
    conversation_id: str,
    notice: Conversation,
    kept: Conversation,
    event: MessageDeliveryReported | None,
    context: Context,
) -> Decision:
    """Take in what was heard of a notice that is known by now: what was kept before, and then what has come just now.

    `notice` is a conversation of that notice alone, `kept` what `unplaced` has kept.
    """
    decision = Decision(notice, ignored="known_already")
    (notice_id,) = notice.notices
    for report in kept.early.values():
        one = _told_of(conversation_id, decision.state, notice_id, report, context)
        decision = then(decision, one)
    if event is not None:
        decision = then(decision, reported(conversation_id, decision.state, event, context))
    return decision


def _with_early(
    conversation_id: str, decision: Decision, notice_id: str, context: Context
) -> Decision:
    """Take in what was reported of a message before it had its name here."""
    state = decision.state
    notice = state.notices.get(notice_id)
    if not isinstance(notice, Settled) or not notice.message_id:
        return decision
    report = state.early.get(clean_line(_bare(notice.message_id), LATEST_MESSAGE_IDS))
    if report is None:
        return decision
    early = {key: one for key, one in state.early.items() if one is not report}
    bare = structs.replace(state, early=early)
    return then(decision, _told_of(conversation_id, bare, notice_id, report, context))


def is_under_way(state: Conversation) -> bool:
    """Whether the provider may have a notice whose name is not known yet."""
    return any(isinstance(one, Sending | Waiting | Doubted) for one in state.notices.values())


def _told_of(
    conversation_id: str, state: Conversation, notice_id: str, report: Report, context: Context
) -> Decision:
    notice = state.notices[notice_id]
    assert isinstance(notice, Settled), "only these have names"
    if _WORTH[report.what] <= _WORTH[notice.delivery]:
        return Decision(state, ignored="known_already")
    told = NoticeDeliveryReported.model_validate(
        {
            **about(conversation_id, notice_id, notice.ticket_id, notice.occasion, context.now),
            "what": report.what,
            "detail": report.detail,
            "is_permanent": report.is_permanent,
            "provider": notice.provider,
            "account": notice.account,
        }
    )
    heard = structs.replace(notice, delivery=report.what)
    decision = Decision(with_notice(state, notice_id, heard), (told,))
    if report.what != "bounced" or not notice.recipient:
        return decision
    reason = report.detail or "bounced"
    name = dead_name(notice.provider, notice.recipient)
    is_for_good = report.is_permanent and not is_about_the_mail(report.detail)
    return decision._replace(dead=(_dead(name, reason, context, is_for_good=is_for_good),))


def with_deliveries(state: Conversation, heard: Mapping[str, DeliveryWord]) -> Conversation:
    """Return the conversation with what is known elsewhere of its notices' way, by their ids."""
    changed: dict[str, Notice] = {
        notice_id: structs.replace(one, delivery=heard[notice_id])
        for notice_id, one in state.notices.items()
        if notice_id in heard
        and isinstance(one, Settled)
        and _WORTH[heard[notice_id]] > _WORTH[one.delivery]
    }
    if not changed:
        return state
    return structs.replace(state, notices={**state.notices, **changed})


_WORTH = {"": 0, "delivered": 1, "bounced": 2, "read": 3}
"""What a report adds to: a bounce may follow a delivery (to a server that could not pass it on), nothing follows a reading."""


def _named(state: Conversation, name: str) -> str | None:
    """Return the notice that a report is about, by the message's id."""
    wanted = _bare(name)
    for notice_id, one in sorted(state.notices.items()):
        if isinstance(one, Settled) and one.message_id and _bare(one.message_id) == wanted:
            return notice_id
    return None


def _bare(message_id: str) -> str:
    return message_id.strip().removeprefix("<").removesuffix(">")
