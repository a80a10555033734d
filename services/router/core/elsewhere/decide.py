"""Who is told elsewhere that a ticket is offered, assigned, waiting again, escalated or solved, and what to do when a place
cannot be told.

Helpdesks and boards follow `tickets`, whose events are in the ticket's own order. Messages about offers follow `routing`,
which alone knows reservations. Each item of a place is driven towards what was said last: one call at a time, a newer
saying takes the place of an older one, and what may have been made is looked for before it is made.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec import structs

from schemas import ids
from schemas.elsewhere import (
    AnyElsewhereEvent,
    AssignmentElsewhereDone,
    AssignmentElsewhereFailed,
)
from schemas.elsewhere import Saying as What
from schemas.routing import OfferMade, OfferWithdrawn, TicketAssigned, TicketRequeued, WorkReleased
from schemas.tickets import (
    ConversationErased,
    TicketClosed,
    TicketEscalated,
    TicketMerged,
    TicketOpened,
    TicketPrioritised,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
    TicketUnmerged,
)
from services.router.core.elsewhere.calls import Call, Cannot, call_for
from services.router.core.elsewhere.policy import Board, Desk, Messenger, Place, Places, Shown
from services.router.core.elsewhere.state import (
    Calling,
    Conversation,
    Heard,
    Item,
    Reason,
    Resting,
    Saying,
    Ticket,
    Waiting,
)

EARLY_MAX: Final = 20
"""News of one unknown ticket that are kept; the newest. A ticket's opening follows within moments, or never."""

RETRY_AFTER_MAX: Final = timedelta(hours=6)
"""A vendor that asks for a longer wait is asked again after this one."""

SLOTS_MAX: Final = 50
"""Messages about one ticket that are remembered; beyond, those about the oldest offers are changed no more."""


@dataclass(frozen=True, slots=True)
class Done:
    """The place shows it. `handle` names what was made there; `is_changed` is false where nothing had to be written."""

    handle: str = ""
    is_changed: bool = True


@dataclass(frozen=True, slots=True)
class NotDone:
    """The place certainly was not changed. `retry_after` is the vendor's own wish; `detail` its status or error code.

    With `is_begun` false nothing was even asked, because the place had no room or is left alone: that is no failure of
    the call, and the next is not put off for longer than one first delay or the wish.
    """

    reason: Reason
    is_recoverable: bool
    retry_after: timedelta | None = None
    detail: str = ""
    is_begun: bool = True


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been done: the answer never came, or made no sense. `retry_after` is the vendor's own wish."""

    reason: Reason
    detail: str = ""
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Make `place` show this. `name` stays the same over the attempts of one saying."""

    item_id: str
    place: str
    vendor: str
    serial: int
    attempt: int
    call: Call

    @property
    def name(self) -> str:
        """The call's idempotency key."""
        return f"{self.item_id}/{self.serial}"


@dataclass(frozen=True, slots=True)
class CallSettled:
    """A call has ended; back in `decide` like any other input."""

    item_id: str
    serial: int
    attempt: int
    result: Done | NotDone | Unknown


@dataclass(frozen=True, slots=True)
class RetryDue:
    """The time of the earliest retry has come."""


Event = (
    TicketOpened
    | TicketStatusChanged
    | TicketEscalated
    | TicketSolved
    | TicketMerged
    | TicketUnmerged
    | TicketPrioritised
    | TicketReopened
    | TicketClosed
    | ConversationErased
    | OfferMade
    | OfferWithdrawn
    | TicketAssigned
    | TicketRequeued
    | WorkReleased
    | CallSettled
    | RetryDue
)


class Decision(NamedTuple):
    """The conversation afterwards, the facts to publish, the calls to make; or why the event means nothing here.

    `superseded` are the vendors of calls that a newer saying took the place of, `let_go` the closed tickets of which
    nothing is remembered any more, `ended` their items as they stood last.
    """

    state: Conversation
    events: tuple[AnyElsewhereEvent, ...] = ()
    asks: tuple[Ask, ...] = ()
    superseded: tuple[str, ...] = ()
    ignored: str | None = None
    let_go: tuple[str, ...] = ()
    ended: tuple[tuple[str, Item], ...] = ()


def decide(
    conversation_id: str, state: Conversation, event: Event, now: datetime, policy: Places
) -> Decision:
    """Apply one event to a conversation. Same input, same output, to the byte."""
    work = _Work(conversation_id, state, now, policy)
    match event:
        case TicketOpened() if event.ticket_id in state.tickets:
            return Decision(state, ignored="already_known")
        case TicketOpened() if not policy.places:
            return Decision(state, ignored="no_place")
        case TicketOpened():
            work.open(event)
        case CallSettled():
            work.settle(event)
        case RetryDue():
            work.retry()
        case ConversationErased():
            work.forget_words()
        case TicketClosed():
            work.close(event.ticket_id)
        case OfferMade() | OfferWithdrawn() | TicketAssigned() | TicketRequeued() | WorkReleased():
            work.hear(event.ticket_id, _heard(event))
        case _ if event.ticket_id not in state.tickets:
            return Decision(state, ignored="ticket_unknown")
        case _:
            _follow(work, event)
    return work.decision()


def _follow(work: "_Work", event: Event) -> None:
    """Show how a known ticket stands now."""
    match event:
        case TicketEscalated():
            work.move(event.ticket_id, event.to_queue)
            work.show(event.ticket_id, "escalated", event.at)
        case TicketSolved():
            work.show(event.ticket_id, "solved", event.at, agent_id=event.agent_id, kinds=(Board,))
        case TicketReopened():
            work.move(event.ticket_id, event.queue)
            work.show(event.ticket_id, "waiting", event.at, why="reopened", kinds=(Board,))
        case TicketStatusChanged(status="assigned", agent_id=str(agent_id)):
            work.move(event.ticket_id, event.queue)
            work.show(event.ticket_id, "assigned", event.at, agent_id=agent_id)
        case TicketStatusChanged(
            status="pending" | "on_hold" | "snoozed", reason="reassigned", agent_id=agent_id
        ):
            # It goes on resting, and is somebody else's from now on, or of another queue.
            work.move(event.ticket_id, event.queue)
            if agent_id is not None:
                work.show(event.ticket_id, "assigned", event.at, agent_id=agent_id)
            else:
                work.show(event.ticket_id, "waiting", event.at, why="reassigned", kinds=(Desk,))
        case TicketStatusChanged(status="queued", reason="escalated"):
            work.ignored = "told_by_the_escalation"
        case TicketStatusChanged(status="queued", before="assigned"):
            work.move(event.ticket_id, event.queue)
            work.show(event.ticket_id, "waiting", event.at, why=event.reason)
        case TicketStatusChanged(
            status="queued", before="pending" | "on_hold" | "snoozed" | "spam"
        ):
            # The helpdesk goes on showing who had it last, for they are asked first.
            work.move(event.ticket_id, event.queue)
            work.show(event.ticket_id, "waiting", event.at, why=event.reason, kinds=(Board,))
        case TicketStatusChanged(status="spam"):
            work.show(event.ticket_id, "solved", event.at, why="spam", kinds=(Board,))
        case TicketMerged():
            work.show(event.ticket_id, "solved", event.at, why="merged", kinds=(Board,))
        case TicketUnmerged():
            work.move(event.ticket_id, event.queue)
            work.show(event.ticket_id, "waiting", event.at, why="unmerged", kinds=(Board,))
        case TicketPrioritised():
            work.weigh(event.ticket_id, event.priority)
        case _:
            work.ignored = "no_news"


def next_due(state: Conversation) -> datetime | None:
    """Return when `decide` next wants a `RetryDue`."""
    waiting = [
        item.standing.retry_at
        for item in state.items.values()
        if isinstance(item.standing, Waiting)
    ]
    return min(waiting, default=None)


def item_name(conversation_id: str, place: str, ticket_id: str, slot: str = "") -> str:
    """Name the item of a place: one a ticket, or one an offer where `slot` is its reservation."""
    return ids.derive("elsewhere", conversation_id, place, ticket_id, slot)


def _heard(
    event: OfferMade | OfferWithdrawn | TicketAssigned | TicketRequeued | WorkReleased,
) -> Heard:
    match event:
        case OfferMade():
            return Heard(
                "offered",
                event.agent_id,
                event.offered_at,
                queue=event.queue,
                slot=event.reservation_id,
                until=event.expires_at,
            )
        case TicketAssigned():
            return Heard(
                "assigned",
                event.agent_id,
                event.assigned_at,
                queue=event.queue,
                slot=event.reservation_id,
            )
        case OfferWithdrawn():
            return Heard(
                "waiting",
                event.agent_id,
                event.at,
                queue=event.queue,
                slot=event.reservation_id,
                why=event.reason,
            )
        case TicketRequeued():
            return Heard("waiting", event.agent_id, event.at, queue=event.queue, why=event.reason)
        case WorkReleased():
            what: What = "solved" if event.reason == "solved" else "waiting"
            return Heard(what, event.agent_id or "", event.at, why=event.reason)


def _has_group(place: Place, queue: str) -> bool:
    """Whether there is something to show of a ticket that nobody has yet: a card, or a helpdesk's group."""
    return not isinstance(place.settings, Desk) or queue in place.settings.groups


def _same(one: Saying, other: Saying) -> bool:
    """Whether two sayings say the same."""
    return structs.replace(one, serial=0, at=other.at) == structs.replace(other, serial=0)


@dataclass(slots=True)
class _Work:
    """One decision in the making."""

    conversation_id: str
    before: Conversation
    now: datetime
    policy: Places
    tickets: dict[str, Ticket] = field(init=False)
    items: dict[str, Item] = field(init=False)
    early: dict[str, tuple[Heard, ...]] = field(init=False)
    events: list[AnyElsewhereEvent] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    ignored: str | None = None
    let_go: list[str] = field(default_factory=list)
    ended: list[tuple[str, Item]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tickets = dict(self.before.tickets)
        self.items = dict(self.before.items)
        self.early = dict(self.before.early)

    def decision(self) -> Decision:
        """Return what came of it, without what nobody needs any more."""
        for ticket_id, ticket in list(self.tickets.items()):
            theirs = [key for key, item in self.items.items() if item.ticket_id == ticket_id]
            if ticket.is_closed and all(
                isinstance(self.items[key].standing, Resting) for key in theirs
            ):
                del self.tickets[ticket_id]
                self.let_go.append(ticket_id)
                self.ended += [(key, self.items.pop(key)) for key in theirs]
        after = Conversation(self.tickets, self.items, self.early)
        is_idle = after == self.before and not self.events and not self.asks
        return Decision(
            self.before if is_idle else after,
            tuple(self.events),
            tuple(self.asks),
            tuple(self.superseded),
            (self.ignored or "no_news") if is_idle else None,
            tuple(self.let_go),
            tuple(self.ended),
        )

    # ----------------------------------------------------------------------------- what is known

    def open(self, event: TicketOpened) -> None:
        """Remember a ticket; boards have a card for it from now on. Then what was heard too early."""
        self.tickets[event.ticket_id] = Ticket(
            reference=event.reference,
            channel=event.contact.channel,
            account=event.contact.account,
            thread=event.vendor_thread,
            queue=event.queue,
            priority=event.priority,
            subject=event.subject if self.policy.shows_subjects else "",
        )
        self.show(event.ticket_id, "waiting", event.at, kinds=(Board,))
        for heard in self.early.pop(event.ticket_id, ()):
            self.hear(event.ticket_id, heard)

    def move(self, ticket_id: str, queue: str) -> None:
        """Note which queue a ticket is in."""
        self.tickets[ticket_id] = structs.replace(self.tickets[ticket_id], queue=queue)

    def weigh(self, ticket_id: str, priority: int) -> None:
        """Note how urgent a ticket is; what is said of it from now on says so."""
        self.tickets[ticket_id] = structs.replace(self.tickets[ticket_id], priority=priority)

    def close(self, ticket_id: str) -> None:
        """Let a ticket go as soon as nothing is under way for it."""
        self.early.pop(ticket_id, None)
        ticket = self.tickets.get(ticket_id)
        if ticket is None:
            self.ignored = "ticket_unknown"
            return
        self.tickets[ticket_id] = structs.replace(ticket, is_closed=True)

    def forget_words(self) -> None:
        """Keep nothing that the customer wrote."""
        self.tickets = {
            key: structs.replace(ticket, subject="") for key, ticket in self.tickets.items()
        }

    # ----------------------------------------------------------------------------- what is said

    def _places(self, ticket: Ticket, kinds: tuple[type[Any], ...]) -> Iterator[tuple[str, Place]]:
        """The places of these kinds that show a ticket, in the order of their names."""
        for name, place in sorted(self.policy.places.items()):
            match place.settings:
                case Desk() as desk if isinstance(desk, kinds):
                    if (ticket.channel, ticket.account) == (place.vendor, desk.account):
                        yield name, place
                case Shown() as shown if isinstance(shown, kinds):
                    if ticket.account in (shown.accounts or (ticket.account,)) and (
                        ticket.queue in (shown.queues or (ticket.queue,))
                    ):
                        yield name, place

    def show(
        self,
        ticket_id: str,
        what: What,
        at: datetime,
        *,
        agent_id: str = "",
        why: str = "",
        kinds: tuple[type[Any], ...] = (Desk, Board),
    ) -> None:
        """Let helpdesks and boards show how a ticket stands."""
        ticket = self.tickets[ticket_id]
        self.ignored = "no_place"
        for name, place in self._places(ticket, kinds):
            key = item_name(self.conversation_id, name, ticket_id)
            is_first = key not in self.items
            if is_first and what != "assigned" and not _has_group(place, ticket.queue):
                self.ignored = "nobody_was_shown"
                continue
            saying = Saying(what, ticket.queue, at, 1, agent_id, None, why)
            self._say(key, name, place, ticket_id, "", saying)

    def hear(self, ticket_id: str, heard: Heard) -> None:
        """Let messengers tell of an offer and of what became of it."""
        if not self.policy.has_messengers:
            self.ignored = "no_place"
            return
        ticket = self.tickets.get(ticket_id)
        if ticket is None:
            known = (*self.early.get(ticket_id, ()), heard)
            self.early[ticket_id] = known[-EARLY_MAX:]
            return
        self.ignored = "no_place"
        for name, place in self._places(ticket, (Messenger,)):
            assert isinstance(place.settings, Messenger)
            slot = heard.slot or self._slot_of(name, ticket_id, heard.agent_id)
            key = item_name(self.conversation_id, name, ticket_id, slot)
            if key not in self.items and not (slot and heard.what in place.settings.tell):
                self.ignored = "nobody_was_told"
                continue
            if heard.what == "offered" and heard.until is not None and heard.until <= self.now:
                self.ignored = "offer_over"
                continue
            queue = heard.queue or ticket.queue
            saying = Saying(heard.what, queue, heard.at, 1, heard.agent_id, heard.until, heard.why)
            self._say(key, name, place, ticket_id, slot, saying)
            self._forget_old_slots(name, ticket_id)

    def _slot_of(self, place: str, ticket_id: str, agent_id: str) -> str:
        """The reservation that the latest message to an agent about a ticket is about; empty where there is none."""
        found = [
            (item.wanted.at, item.slot)
            for item in self.items.values()
            if (item.place, item.ticket_id, item.wanted.agent_id) == (place, ticket_id, agent_id)
            and item.wanted.what in ("offered", "assigned")
        ]
        return max(found, default=(self.now, ""))[1]

    def _forget_old_slots(self, place: str, ticket_id: str) -> None:
        theirs = sorted(
            (item.wanted.at, key)
            for key, item in self.items.items()
            if (item.place, item.ticket_id) == (place, ticket_id)
            and isinstance(item.standing, Resting)
        )
        for _, key in theirs[:-SLOTS_MAX]:
            del self.items[key]

    def _say(
        self, key: str, name: str, place: Place, ticket_id: str, slot: str, saying: Saying
    ) -> None:
        """Want something said from now on; begin with it where nothing is under way."""
        if self.now - saying.at > self.policy.news:
            self.ignored = "too_old"
            return
        item = self.items.get(key)
        if item is None:
            item = Item(name, place.vendor, ticket_id, slot, saying, self.now)
            call = call_for(self.policy, place.settings, key, item, self.tickets[ticket_id])
            if call is None:
                self.ignored = "nothing_to_show"
                return
        elif _same(item.wanted, saying):
            self.ignored = "already_told"
            return
        else:
            if isinstance(item.standing, Calling | Waiting):
                self.superseded.append(item.vendor)
            saying = structs.replace(saying, serial=item.wanted.serial + 1)
            item = structs.replace(item, wanted=saying, since=self.now)
        self.items[key] = item
        match item.standing:
            case Calling() | Waiting(reason=Reason.THROTTLED):
                pass  # The call under way ends first; who asked us to wait is waited for.
            case _:
                self._call(key, item, attempt=1)

    # ----------------------------------------------------------------------------- calls

    def _call(self, key: str, item: Item, attempt: int) -> None:
        """Ask for the call that says what is wanted, or end with the reason why there is none."""
        place = self.policy.of(item.place)
        ticket = self.tickets.get(item.ticket_id)
        call: Call | Cannot | None = Cannot(Reason.PLACE_GONE)
        instead_of = ""
        if place is not None and place.vendor == item.vendor and ticket is not None:
            if not item.handle and item.made_from is None:
                item = structs.replace(item, made_from=self.now)
            call = call_for(self.policy, place.settings, key, item, ticket)
        if isinstance(call, Cannot) and call.instead is not None:
            # What is wanted cannot be shown, and what is shown would be wrong.
            instead_of = call.reason.value
            call = call.instead
        match call:
            case None:
                self.items[key] = structs.replace(item, standing=Resting())
            case Cannot(reason=reason):
                self._give_up(key, item, item.wanted, attempt - 1, reason, "")
            case _:
                standing = Calling(item.wanted, attempt, instead_of)
                self.items[key] = structs.replace(item, standing=standing)
                self.asks.append(
                    Ask(key, item.place, item.vendor, item.wanted.serial, attempt, call)
                )

    def _give_up(
        self, key: str, item: Item, saying: Saying, attempts: int, reason: Reason, detail: str
    ) -> None:
        self.items[key] = structs.replace(item, standing=Resting(reason.value))
        said = self._about(item, saying, attempts)
        self.events.append(
            AssignmentElsewhereFailed(**said, reason=reason.value, detail=detail[:100])
        )

    def _about(self, item: Item, saying: Saying, attempts: int) -> dict[str, Any]:
        return {
            "ticket_id": item.ticket_id,
            "conversation_id": self.conversation_id,
            "place": item.place,
            "vendor": item.vendor,
            "says": saying.what,
            "agent_id": saying.agent_id,
            "attempts": attempts,
            "at": self.now,
        }

    def settle(self, settled: CallSettled) -> None:
        """Note what came of a call, and go on with what is wanted now."""
        item = self.items.get(settled.item_id)
        standing = item.standing if item is not None else None
        if (
            item is None
            or not isinstance(standing, Calling)
            or (standing.saying.serial, standing.attempt) != (settled.serial, settled.attempt)
        ):
            self.ignored = "not_awaited"
            return
        said, attempt = standing.saying, standing.attempt
        is_newest = said.serial == item.wanted.serial
        match settled.result:
            case Done(handle=handle, is_changed=is_changed):
                item = structs.replace(item, handle=handle or item.handle, is_doubtful=False)
                if standing.instead_of:
                    item = structs.replace(item, shown=None)
                    reason = Reason(standing.instead_of)
                    self._give_up(settled.item_id, item, said, attempt, reason, "")
                else:
                    item = structs.replace(item, shown=said)
                    self.events.append(
                        AssignmentElsewhereDone(
                            **self._about(item, said, attempt), is_changed=is_changed
                        )
                    )
                    self.items[settled.item_id] = structs.replace(item, standing=Resting())
                if not is_newest:
                    self._call(settled.item_id, item, attempt=1)
            case NotDone(reason=Reason.SUPERSEDED):
                self._call(settled.item_id, item, attempt=attempt + 1 if is_newest else 1)
            case Unknown(reason=reason, detail=detail, retry_after=wish):
                item = structs.replace(item, is_doubtful=not item.handle)
                failed = NotDone(reason, is_recoverable=True, retry_after=wish, detail=detail)
                self._not_done(settled.item_id, item, standing, failed)
            case NotDone() as failed:
                self._not_done(settled.item_id, item, standing, failed)

    def _not_done(self, key: str, item: Item, called: Calling, failed: NotDone) -> None:
        is_newest = called.saying.serial == item.wanted.serial
        # Whoever asked us to wait, or has no room, is waited for whatever is said.
        must_wait = failed.reason is Reason.THROTTLED or not failed.is_begun
        if not is_newest and not must_wait:
            self._call(key, item, attempt=1)
            return
        attempt = called.attempt if is_newest else 0
        due = self._retry_at(key, max(attempt, 1), failed)
        if is_newest and (due is None or due - item.since > self.policy.give_up_after):
            self._give_up(key, item, called.saying, called.attempt, failed.reason, failed.detail)
            return
        assert due is not None, "a throttled call may be tried again"
        self.items[key] = structs.replace(item, standing=Waiting(attempt, due, failed.reason.value))

    def _retry_at(self, key: str, attempt: int, failed: NotDone) -> datetime | None:
        """When to try again: the schedule's delay or the wish, stretched by a share that item and attempt fix.

        The wish is stretched, too: those whom a place sent away together do not all come back together.
        """
        if not failed.is_recoverable:
            return None
        delays = self.policy.delays
        digest = hashlib.sha256(f"{key}/{attempt}".encode()).digest()
        share = int.from_bytes(digest[:4], "big") / 2**32
        delay = delays[min(attempt, len(delays)) - 1] if failed.is_begun else delays[0]
        wished = min(failed.retry_after or timedelta(0), RETRY_AFTER_MAX)
        return self.now + max(delay, wished) * (1 + self.policy.jitter * share)

    def retry(self) -> None:
        """Try again what is due, in the order of the items' names."""
        self.ignored = "nothing_due"
        for key, item in sorted(self.items.items()):
            if isinstance(item.standing, Waiting) and item.standing.retry_at <= self.now:
                self._call(key, item, attempt=item.standing.attempt + 1)
