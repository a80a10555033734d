"""What every decision of the notifier is made of: what it depends on, what it returns, and the facts that it publishes."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from msgspec import structs

from schemas.notifications import (
    AnyNoticeEvent,
    Category,
    NoticeDeferred,
    NoticeFailed,
    NoticeSuppressed,
    NoticeUnknown,
    Occasion,
)
from services.notifier.core.articles import Search
from services.notifier.core.delivery import LOOK_DELAYS, SendNotice
from services.notifier.core.known import Known
from services.notifier.core.links import Links
from services.notifier.core.policy import Policy
from services.notifier.core.post import Post, Traits
from services.notifier.core.reason import (
    OPENING,
    SUPERSEDES,
    Cause,
    Suppression,
    category_of,
)
from services.notifier.core.state import (
    Case,
    Conversation,
    Deferred,
    Doubted,
    Held,
    Line,
    Matter,
    Message,
    Notice,
    Planned,
    Sending,
    Settled,
    Waiting,
)

REASON_LENGTH_MAX = 300

COUNTED_MAX: Final = 20
"""Names kept of the automatic notices since a person last wrote; policies allow a few."""

NO_LINKS: Final = Links(b"", "", "")
"""Where the gateway's address is not known, there are no links to it."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision depends on besides state and event. `secret` signs the reply tokens.

    `known` is what the tables know of recipients, `links` makes the addresses of surveys and of the ways out.
    """

    policy: Policy
    secret: bytes
    workspace: str
    now: datetime
    known: Known
    links: Links = NO_LINKS


class Dead(NamedTuple):
    """Nothing reaches a recipient (by its name in the tables), until `until` (None: for good)."""

    recipient: str
    reason: str
    at: datetime
    until: datetime | None


class Wished(NamedTuple):
    """A recipient wants no more of a category, or wants it (again). `is_name`: `recipient` is its name in the tables."""

    recipient: str
    category: Category
    is_out: bool
    at: datetime
    source: Literal["link", "word", "agent"]
    is_name: bool = False


class Decision(NamedTuple):
    """The conversation afterwards, the facts to publish, what to hand over; or why the event means nothing.

    `dead` and `wished` are what was learned of recipients, for the tables, `searches` the articles to look for.
    """

    state: Conversation
    events: tuple[AnyNoticeEvent, ...] = ()
    sends: tuple[SendNotice, ...] = ()
    ignored: str | None = None
    dead: tuple[Dead, ...] = ()
    wished: tuple[Wished, ...] = ()
    searches: tuple[Search, ...] = ()


def then(first: Decision, second: Decision) -> Decision:
    """Return two decisions as one, the second made on the state that the first left."""
    return Decision(
        second.state,
        first.events + second.events,
        first.sends + second.sends,
        second.ignored if not first.events and not first.sends else None,
        first.dead + second.dead,
        first.wished + second.wished,
        first.searches + second.searches,
    )


def with_notice(state: Conversation, notice_id: str, notice: Notice) -> Conversation:
    """Return the conversation with a notice as it is now."""
    return structs.replace(state, notices={**state.notices, notice_id: notice})


def without_notice(state: Conversation, notice_id: str) -> Conversation:
    """Return the conversation without a notice."""
    kept = {key: one for key, one in state.notices.items() if key != notice_id}
    return structs.replace(state, notices=kept)


def with_case(state: Conversation, ticket_id: str, **changes: Any) -> Conversation:
    """Return the conversation with a case changed; one that was never heard of stays so."""
    case = state.cases.get(ticket_id)
    if case is None:
        return state
    changed: Case = structs.replace(case, **changes)
    return structs.replace(state, cases={**state.cases, ticket_id: changed})


def about(
    conversation_id: str, notice_id: str, ticket_id: str, occasion: Occasion, now: datetime
) -> dict[str, Any]:
    """Return what every notice event says."""
    return {
        "notice_id": notice_id,
        "ticket_id": ticket_id,
        "conversation_id": conversation_id,
        "occasion": occasion,
        "at": now,
    }


def about_cause(conversation_id: str, cause: Cause, now: datetime) -> dict[str, Any]:
    """Return what every event of a cause's notice says."""
    return about(conversation_id, cause.notice_id, cause.ticket_id, cause.occasion, now)


def suppressed(
    conversation_id: str, state: Conversation, cause: Cause, reason: Suppression, context: Context
) -> Decision:
    """End a notice untold, with its reason."""
    told = NoticeSuppressed(**about_cause(conversation_id, cause, context.now), reason=reason.value)
    settled = Settled(cause.ticket_id, cause.occasion, "suppressed", ended_at=context.now)
    after = with_notice(given_back(state, cause.notice_id), cause.notice_id, settled)
    return Decision(after, (told,))


def failed(
    conversation_id: str,
    state: Conversation,
    cause: Cause,
    provider: str,
    reason: str,
    context: Context,
    matter: Matter | None = None,
    attempt: int = 0,
) -> Decision:
    """End a notice whose words cannot be made, as a failure, so that a person sees it, and can have it sent once that is mended.

    `attempt` counts the attempts made before, by another way or with other words.
    """
    told = NoticeFailed(
        **about_cause(conversation_id, cause, context.now),
        provider=provider,
        reason=reason[:REASON_LENGTH_MAX],
        attempts=attempt,
    )
    settled = Settled(
        cause.ticket_id,
        cause.occasion,
        "failed",
        attempt=attempt,
        cause_id=cause.cause_id,
        matter=matter,
        ended_at=context.now,
    )
    after = with_notice(given_back(state, cause.notice_id), cause.notice_id, settled)
    return Decision(after, (told,))


def counted(state: Conversation, notice_id: str) -> Conversation:
    """Return the conversation with one automatic notice more since a person last wrote."""
    count = state.automatic_since_human + 1
    names = (*state.counted, notice_id)[-min(count, COUNTED_MAX) :]
    return structs.replace(state, automatic_since_human=count, counted=names)


def given_back(state: Conversation, notice_id: str) -> Conversation:
    """Return the conversation without counting a notice that has surely not left; one of before a person wrote counts no more."""
    count = state.automatic_since_human
    names = state.counted[-count:] if count else ()
    if notice_id not in names:
        return state
    position = names.index(notice_id)
    kept = names[:position] + names[position + 1 :]
    return structs.replace(state, automatic_since_human=count - 1, counted=kept)


def deferral(
    conversation_id: str,
    notice_id: str,
    notice: Deferred | Waiting,
    until: datetime,
    reason: str,
    now: datetime,
    account: str = "",
) -> NoticeDeferred:
    """Return the fact that somebody is told later."""
    return NoticeDeferred(
        **about(conversation_id, notice_id, notice.ticket_id, notice.occasion, now),
        until=until,
        reason=reason,
        category=category_of(notice.occasion),
        account=account,
    )


def has_been_told(state: Conversation, ticket_id: str, occasion: Occasion) -> bool:
    """Whether a notice of that kind went out for the ticket, is on its way, or may have gone out."""
    kinds = OPENING if occasion in OPENING else {occasion}
    return any(
        one.ticket_id == ticket_id
        and one.occasion in kinds
        and not isinstance(one, Planned)
        and not (isinstance(one, Settled) and one.status in ("suppressed", "failed"))
        for one in state.notices.values()
    )


def may_have_arrived(notice: Notice) -> bool:
    """Whether the customer may have read it: it went out, or is on its way now, or nobody knows."""
    match notice:
        case Settled():
            return notice.status in ("sent", "unknown") and notice.delivery != "bounced"
        case Waiting() | Doubted():
            return isinstance(notice, Doubted) or notice.doubted_at is not None
        case Sending():
            return True
        case _:
            return False


def has_reached(state: Conversation, ticket_id: str, occasion: Occasion) -> bool:
    """Whether a notice of that kind may have arrived for the ticket."""
    return any(
        one.ticket_id == ticket_id and one.occasion == occasion and may_have_arrived(one)
        for one in state.notices.values()
    )


def supersede(
    conversation_id: str, state: Conversation, ticket_id: str, by: str, context: Context
) -> Decision:
    """Drop what is stale now and has not gone out, and let what is under way have no further attempt.

    What is stale of a digest leaves it.
    """
    stale = SUPERSEDES[by]
    dropped = drop(
        conversation_id,
        state,
        [
            notice_id
            for notice_id, notice in sorted(
                state.notices.items()
            )  # JSON keeps no order of its own.
            if notice.ticket_id == ticket_id and notice.occasion in stale
        ],
        Suppression.SUPERSEDED,
        context,
    )
    lines = without_lines(
        conversation_id,
        dropped.state,
        lambda line: line.ticket_id == ticket_id and line.occasion in stale,
        Suppression.SUPERSEDED,
        context,
    )
    return then(dropped, lines)


def lines_of(notice: Notice) -> tuple[Line, ...]:
    """Return which notices a digest tells; none of what is no digest, or has ended."""
    if isinstance(notice, Planned | Settled) or notice.matter is None:
        return ()
    return notice.matter.lines


def without_lines(
    conversation_id: str,
    state: Conversation,
    is_stale: Callable[[Line], bool],
    reason: Suppression,
    context: Context,
) -> Decision:
    """Take what is stale out of the digests that have not gone out; one that has nothing left is dropped.

    The rest is put into words anew before the next attempt. What a provider may have taken already is not sent in other words.
    """
    notices: dict[str, Notice] = dict(state.notices)
    empty: list[str] = []
    for notice_id, notice in sorted(state.notices.items()):
        lines = lines_of(notice)
        if isinstance(notice, Planned | Settled) or not any(map(is_stale, lines)):
            continue
        matter = notice.matter
        assert matter is not None, "it has lines"
        kept = [place for place, line in enumerate(lines) if not is_stale(line)]
        if not kept:
            empty.append(notice_id)
            continue
        fewer = structs.replace(
            matter,
            items=tuple(matter.items[place] for place in kept),
            lines=tuple(lines[place] for place in kept),
        )
        if isinstance(notice, Held | Deferred):  # Their words are not made yet.
            notices[notice_id] = structs.replace(notice, matter=fewer)
        else:
            notices[notice_id] = structs.replace(notice, matter=fewer, stale_at=context.now)
    return drop(conversation_id, structs.replace(state, notices=notices), empty, reason, context)


def drop(
    conversation_id: str,
    state: Conversation,
    notice_ids: list[str],
    reason: Suppression,
    context: Context,
) -> Decision:
    """End these notices as far as they have not gone out. One that was only planned was no news, and its end is none."""
    notices: dict[str, Notice] = dict(state.notices)
    events: list[AnyNoticeEvent] = []
    for notice_id in notice_ids:
        notice = notices[notice_id]
        match notice:
            case Planned():
                del notices[notice_id]
            case Waiting(doubted_at=doubted_at) if doubted_at is not None:
                # Nobody knows whether it was taken: it is asked where one can ask, and is not tried again.
                traits = traits_of(notice.provider, notice.account, context)
                if traits is not None and traits.can_find and notice.matter is not None:
                    notices[notice_id] = _asked_about(notice, context)
                else:
                    events.append(_unknown(conversation_id, notice_id, notice, context))
                    notices[notice_id] = _never_known(notice, context)
            case Held() | Waiting() | Deferred():
                facts = about(
                    conversation_id, notice_id, notice.ticket_id, notice.occasion, context.now
                )
                events.append(NoticeSuppressed(**facts, reason=reason.value))
                state = given_back(state, notice_id)
                notices[notice_id] = Settled(
                    notice.ticket_id, notice.occasion, "suppressed", ended_at=context.now
                )
            case Sending() | Doubted():
                notices[notice_id] = structs.replace(notice, is_superseded=True)
            case Settled():
                pass  # What is said is said.
    return Decision(structs.replace(state, notices=notices), tuple(events))


def _unknown(
    conversation_id: str, notice_id: str, notice: Waiting, context: Context
) -> AnyNoticeEvent:
    return NoticeUnknown(
        **about(conversation_id, notice_id, notice.ticket_id, notice.occasion, context.now),
        provider=notice.provider,
        account=notice.account,
        reason=_STALE,
        attempts=notice.attempt,
    )


_STALE: Final = "an attempt was never answered, and it is not repeated: it is stale by now"


def _asked_about(notice: Waiting, context: Context) -> Doubted:
    return Doubted(
        notice.ticket_id,
        notice.occasion,
        notice.attempt,
        1,
        context.now + LOOK_DELAYS[0],
        notice.message,
        notice.provider,
        notice.account,
        _STALE,
        notice.cause_id,
        notice.matter,
        notice.excused,
        notice.stale_at,
        True,
        notice.tried,
        notice.recipient,
    )


def _never_known(notice: Waiting, context: Context) -> Settled:
    """Its message and its names are kept: reports may still tell of it, and a person may have it sent again."""
    return Settled(
        notice.ticket_id,
        notice.occasion,
        "unknown",
        own_name(notice.message),
        notice.provider,
        notice.account,
        recipient=notice.recipient,
        attempt=notice.attempt,
        cause_id=notice.cause_id,
        matter=notice.matter,
        message=notice.message,
        stale_at=notice.stale_at,
        ended_at=context.now,
    )


def own_name(message: Message) -> str:
    """Return what we call a message: its Message-ID for mail, else our key."""
    return message.key if isinstance(message, Post) else message.message_id


def traits_of(provider: str, name: str, context: Context) -> Traits | None:
    """Return what an account's provider can do; None for our own mail server, which may carry a vendor's account's name."""
    account = context.policy.accounts.get(name)
    if account is None or account.provider != provider:
        return None
    return context.policy.traits[name]
