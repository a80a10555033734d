"""What a person promised, or the policy in their name: to write again, and to call.

- `periodic_update` starts with an agent's public answer while the case is open: we write again within what the policy says,
  or by the instant that the agent named, which no policy moves and no pause puts off. Each answer meets it and starts the next.
- `callback` runs to the end of the time that a call was promised for. A call with an outcome that counts meets it, or an answer
  on a voice channel, neither before the time that was agreed.

A later promise takes the place of an earlier one, on the same clock; where that one is broken already its breach stands, the
clock ends (`promise_changed`), and the new promise has a clock of its own.
"""

from datetime import UTC, datetime
from typing import Final, Literal

from msgspec.structs import replace

from hours.calendar import CalendarError
from schemas.sla import TargetKind
from schemas.tickets import TicketCalled, TicketPromised
from services.sla.core import targets
from services.sla.core.book import Book, Ignored, Turn, each, put, started, then
from services.sla.core.policy import TargetRule
from services.sla.core.state import PROMISES, WALL, Target, Terms, Ticket
from services.sla.core.targets import Step

_KIND_OF: Final[dict[Literal["update", "callback"], TargetKind]] = {
    "update": "periodic_update",
    "callback": "callback",
}


def answered(book: Book, at: datetime, channel: str, next_update_by: datetime | None) -> Turn:
    """An agent wrote, or spoke: what was promised is kept, and the next promise begins."""
    turn = kept_by_answer(book, at, channel)
    book = book._replace(ticket=turn.ticket)
    latest = book.ticket.latest("periodic_update")
    is_overtaken = latest is not None and latest.watch.started_at > at
    if book.ticket.is_aside or is_overtaken or book.ticket.open_target("periodic_update"):
        return turn
    by = None if next_update_by is None else in_utc(next_update_by)
    if by is not None and by > at:
        return then(turn, _started(book, "periodic_update", at, by))
    return then(turn, started(book, "periodic_update", at))


def kept_by_answer(book: Book, at: datetime, channel: str) -> Turn:
    """An answer keeps the promise to write; that to call only where it is a voice's."""
    is_call = channel in book.rule.callback.voice_channels
    kinds = PROMISES if is_call else PROMISES[:1]
    return each(book.ticket, lambda target: _kept(book, target, at), kinds)


def promised(book: Book, event: TicketPromised, at: datetime) -> Turn:
    """A person named an instant, outside an answer."""
    by = in_utc(event.by)
    not_before = None if event.not_before is None else in_utc(event.not_before)
    if book.ticket.is_aside:
        return Turn(book.ticket, ignored=Ignored.TICKET_SOLVED)
    if by <= at:
        return Turn(book.ticket, ignored=Ignored.PROMISE_PAST)
    return promised_by(book, _KIND_OF[event.what], at, by, not_before, "promise_changed")


def promised_by(
    book: Book,
    kind: TargetKind,
    at: datetime,
    by: datetime,
    not_before: datetime | None,
    reason: str,
) -> Turn:
    """Hold the clock of `kind` to `by`, which lies after `at`, or start one."""
    target = book.ticket.open_target(kind)
    if target is None:
        return _started(book, kind, at, by, not_before)
    if target.watch.started_at > at:
        # A promise that was given later is known already.
        return Turn(book.ticket, ignored=Ignored.CLOCKS_RUN_ON)
    book = book._replace(ticket=_without_lent(book.ticket, target.target_id))
    passed_at = targets.next_breach(target)
    if target.breach is not None or (passed_at is not None and passed_at < at):
        step = targets.cancel(book.subject, target, at, book.now, reason)
        turn = Turn(put(book.ticket, step.target), step.events)
        return then(turn, _started(book._replace(ticket=turn.ticket), kind, at, by, not_before))
    step = _moved(book, target, at, by, not_before, reason)
    return Turn(put(book.ticket, step.target), step.events)


def called(book: Book, event: TicketCalled, at: datetime) -> Turn:
    """The customer was called, or it was tried."""
    if event.outcome not in book.rule.callback.counts:
        return Turn(book.ticket, ignored=Ignored.CALL_DOES_NOT_COUNT)
    target = book.ticket.open_target("callback")
    if target is not None and target.not_before is not None and at < target.not_before:
        return Turn(book.ticket, ignored=Ignored.CALL_TOO_EARLY)
    return each(book.ticket, lambda one: _kept(book, one, at), ("callback",))


def _kept(book: Book, target: Target, at: datetime) -> Step:
    if at < target.watch.started_at or (target.not_before is not None and at < target.not_before):
        return Step(target)
    if target.is_open and target.kind == "periodic_update" and at == target.watch.started_at:
        return Step(target)  # The answer that gave the promise does not keep it.
    calendar = book.policy.calendar(target.calendar)
    if not target.is_open:
        return targets.reconsider(book.subject, target, at, book.now, calendar)
    return targets.meet(book.subject, target, at, book.now, calendar)


def _started(
    book: Book,
    kind: TargetKind,
    at: datetime,
    by: datetime,
    not_before: datetime | None = None,
) -> Turn:
    rule = TargetRule(kind, by - at, WALL, _warn_share(book, kind), ())
    return started(book, kind, at, rule=rule, is_promise=True, not_before=not_before)


def _moved(
    book: Book,
    target: Target,
    at: datetime,
    by: datetime,
    not_before: datetime | None,
    reason: str,
) -> Step:
    """The same clock, held to another instant: nothing stops it any more."""
    watch = target.watch
    for cause, _ in watch.holds:
        watch = watch.resume(cause, at)
    calendar = book.policy.calendar(WALL)
    share = _warn_share(book, target.kind)
    spent = watch.elapsed(calendar, at)
    terms = Terms(
        started_at=watch.started_at,
        allowed=watch.elapsed(calendar, by),
        warn_after=None if share is None else spent + (by - at) * share,
    )
    changed = replace(
        target,
        watch=watch,
        calendar=WALL,
        pauses_on=(),
        own=None,
        is_promise=True,
        not_before=not_before,
    )
    return targets.retarget(
        book.subject,
        target,
        changed,
        terms,
        at=at,
        now=book.now,
        reason=reason,
        calendar=calendar,
    )


def _warn_share(book: Book, kind: TargetKind) -> float | None:
    rule = book.rule
    if kind == "callback":
        return rule.callback.warn_share
    by_rule = book.target_rule(kind)
    return rule.warn_share if by_rule is None else by_rule.warn_share


def _without_lent(ticket: Ticket, target_id: str) -> Ticket:
    """What an absorbed case was promised is replaced as well: its customer was told anew."""
    sources = tuple(
        replace(
            one,
            lent={name: terms for name, terms in one.lent.items() if name != target_id},
            begun=tuple(name for name in one.begun if name != target_id),
        )
        for one in ticket.sources
    )
    return replace(ticket, sources=sources) if sources != ticket.sources else ticket


def in_utc(at: datetime) -> datetime:
    """An instant that somebody promised, in UTC.

    Raises:
        CalendarError: it lies at the very end of what can be said, where UTC has no name for it.
    """
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise CalendarError("by", at, "an instant from 1900 to 2500") from error
