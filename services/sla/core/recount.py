"""When hours or promises change: the clocks that run are worked out anew, and what has moved is told.

Owns what a change of calendars or of policy does to clocks that were started before it.

- **Calendars.** Each open clock that is not broken is due when its calendar, as it is now, says so. A deadline that passed before
  anybody looked was missed by the calendar it passed under.
- **Breaches** that stand are history, and so are promises that were kept. Only an order that includes them (`signalbox sla recount
  --breaches`) judges them anew, once for each ticket that was open when it was given.
- **Policies** are pinned: a clock keeps the rule it was started with. One with `policy_change: retarget` holds its open clocks to
  the rule as it is now, with the time spent kept; what it promises no more ends, and runs on if it promises that again.

A ticket that is closed is forgotten, and nothing about it changes. What is recounted twice is told once: the second time nothing
moves.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from schemas.sla import TargetKind
from services.sla.core import targets, tiers
from services.sla.core.attribution import with_time
from services.sla.core.book import (
    Book,
    Changed,
    Decision,
    Ignored,
    Turn,
    differences,
    each,
    then,
)
from services.sla.core.policy import Policy
from services.sla.core.state import Conversation, Target
from services.sla.core.targets import Step, Subject
from services.sla.core.terms import by_rule, held_to_earliest, promised_again


@dataclass(frozen=True, slots=True)
class Recount:
    """Hours or promises have changed: work the open deadlines out anew.

    With `includes_breaches` those are judged anew as well. Where that was ordered, `order` is the order's number (above 0), and
    `ordered_at` when it was given: it is carried out once a conversation, for the tickets that were open then.
    """

    includes_breaches: bool = False
    order: int = 0
    ordered_at: datetime | None = None


def recounted(
    state: Conversation | None, recount: Recount, now: datetime, policy: Policy
) -> Decision:
    """Work all clocks of a conversation out anew at `now`.

    Raises:
        CalendarError: a deadline beyond the calendar's horizon.
    """
    if state is None:
        return Decision(None, ignored=Ignored.NOTHING_MOVED)
    is_new = not recount.order or recount.order > state.recounted
    judges = recount.includes_breaches and is_new
    turns = [
        _recounted(Book(ticket, state.conversation_id, now, policy), recount, judges)
        for ticket in state.tickets
    ]
    changed: list[Changed] = [
        change
        for ticket, turn in zip(state.tickets, turns, strict=True)
        for change in differences(ticket, turn.ticket)
    ]
    recounted_by = recount.order if judges and recount.order else state.recounted
    if recounted_by == state.recounted and all(
        turn.ticket is ticket for turn, ticket in zip(turns, state.tickets, strict=True)
    ):
        return Decision(state, ignored=Ignored.NOTHING_MOVED)
    after = replace(
        state,
        tickets=tuple(turn.ticket for turn in turns),
        recounted=recounted_by,
    )
    if after == state:
        return Decision(state, ignored=Ignored.NOTHING_MOVED)
    events = tuple(event for turn in turns for event in turn.events)
    return Decision(after, events, tuple(changed))


class Move(NamedTuple):
    """An open clock that another policy would change: its deadline before and after (None: it stands).

    `ends`: it would be promised no more. `is_past`: its deadline would lie in the past at once.
    """

    queue: str
    target: TargetKind
    before: datetime | None
    after: datetime | None
    ends: bool = False
    is_past: bool = False


def moves(state: Conversation, now: datetime, policy: Policy) -> tuple[Move, ...]:
    """What `policy` would change at `now` about the clocks of a conversation that are open and not broken.

    Raises:
        CalendarError: a deadline beyond the calendar's horizon.
    """
    known = {target.target_id: target for one in state.tickets for target in one.targets}
    found = []
    for change in recounted(state, Recount(), now, policy).changed:
        after, before = change.target, known[change.target.target_id]
        due_at = targets.next_breach(before)
        is_late = (
            due_at is not None and due_at <= now
        )  # Whatever the policy, it is about to be told.
        if is_late or not before.is_open or before.breach is not None:
            continue
        if after.is_open and after.due_at == before.due_at:
            continue
        move = Move(
            change.facts.queue,
            after.kind,
            before.due_at,
            after.due_at,
            ends=not after.is_open,
            is_past=after.breach is not None,
        )
        found.append(move)
    return tuple(found)


def revision(policy: Policy) -> str:
    """The name of everything that recounting depends on: the calendars, and the policies that hold their open clocks to it.

    The same content has the same name in every process, whatever else changes in the policy folder.
    """
    return _digest((policy.calendars, *_rules(policy)))


def calendar_digests(policy: Policy) -> dict[str, str]:
    """The name of each calendar's content: another one means that the deadlines by that calendar may have moved."""
    return {name: _digest(calendar) for name, calendar in policy.calendars.items()}


def rules_digest(policy: Policy) -> str:
    """The name of everything that recounting depends on but the calendars."""
    return _digest(_rules(policy))


def _rules(policy: Policy) -> tuple[object, object]:
    held = {
        name: rule for name, rule in policy.policies.items() if rule.policy_change == "retarget"
    }
    return (policy.default, policy.rules, policy.tiers) if held else (), held


def _digest(value: object) -> str:
    return hashlib.sha256(_plain(value).encode()).hexdigest()[:12]


def _recounted(book: Book, recount: Recount, judges: bool) -> Turn:
    was_open = recount.ordered_at is None or book.ticket.opened_at <= recount.ordered_at
    if judges and was_open:
        turn = each(book.ticket, lambda target: _rejudged(book, target))
    else:
        subject = book.subject
        turn = each(book.ticket, lambda target: _retimed(book, subject, target))
    if any(source.lent for source in book.ticket.sources):
        # Which promise of the cases that were merged leaves the least time may be another by these hours.
        here = book._replace(ticket=turn.ticket)
        turn = then(turn, held_to_earliest(here, book.now, "calendar_changed"))
    if book.rule.policy_change == "retarget":
        turn = then(turn, _by_new_rules(book._replace(ticket=turn.ticket)))
    return with_time(book, turn)


def _retimed(book: Book, subject: Subject, target: Target) -> Step:
    if target.breach is not None or not target.is_open:
        return Step(target)
    due_at = targets.next_breach(target)
    if due_at is not None and due_at <= book.now:
        return targets.tell_due(subject, target, book.now)  # Its timer was late.
    return targets.retime(subject, target, book.now, book.policy.calendar(target.calendar))


def _rejudged(book: Book, target: Target) -> Step:
    calendar = book.policy.calendar(target.calendar)
    return targets.rejudge(book.subject, target, book.now, calendar)


def _by_new_rules(book: Book) -> Turn:
    """Hold the open clocks to the policy as it is now, where that says so."""
    if book.ticket.is_aside:
        return Turn(book.ticket)  # It owes nothing now.
    tier = book.ticket.open_target("tier")
    if tier is not None and tier.breach is None and book.rule_of(tier) is None:
        book = book._replace(ticket=tiers.with_spent(book, book.now))

    def apply(target: Target) -> Step:
        if not target.is_open:
            return promised_again(book, target, book.rule_of(target), book.now, "policy_changed")
        if target.is_promise or target.breach is not None:
            return Step(target)  # A person's word, or history.
        rule = book.rule_of(target)
        if rule is None:
            return targets.cancel(book.subject, target, book.now, book.now, "policy_changed")
        step = by_rule(book, target, rule, book.now, "policy_changed")
        moved = replace(step.target, policy_version=target.policy_version)
        return Step(target) if moved == target and not step.events else step

    turn = each(book.ticket, apply)
    had = book.policy.tiers.get(book.ticket.queue, "")
    if not any(one.tier == had for one in turn.ticket.targets if one.tier):
        return turn
    return then(turn, tiers.entered(book._replace(ticket=turn.ticket), book.now))


def _plain(value: object) -> str:
    """A text that is the same for the same content: no order of sets and mappings, no addresses."""
    if is_dataclass(value):
        parts = (
            f"{one.name}={_plain(getattr(value, one.name))}" for one in fields(value) if one.compare
        )
        return f"{type(value).__name__}({','.join(parts)})"
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{_plain(k)}:{_plain(v)}' for k, v in value.items()))}}}"
    if isinstance(value, (set, frozenset)):
        return f"{{{','.join(sorted(map(_plain, value)))}}}"
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(_plain, value))}]"
    return repr(value)
