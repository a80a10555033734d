"""Where a ticket stands by what was told of it, and what certainly does not fit there.

The router alone decides what becomes of a command or of an answer to an offer. Here stands only what is sure beforehand, in
the router's own words; `None` leaves it to the router. What is said of a ticket holds for the moment it was told, so whoever
asks must know that the view is not behind; that an offer has ended is true for good.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from msgspec import Struct, structs

from schemas import commands, routing, tickets
from schemas.payload import Payload

HELD: Final = frozenset({"assigned", "pending", "on_hold", "snoozed"})
"""Statuses in which the ticket is somebody's: they alone reply, solve, escalate and put away."""

ACCEPT: Final = "accept"
DECLINE: Final = "decline"

ELSEWHERE: Final = "elsewhere"
"""Who has a ticket that our side answered at the channel itself before anybody of the roster had it: nobody."""

RESTING: Final = frozenset({"pending", "on_hold", "snoozed"})
"""Statuses in which the ticket waits for somebody or something else."""

HELD_FOR_SURE: Final = timedelta(seconds=5)
"""How long a ticket must have been somebody's before nobody else is believed to have it: whoever has just accepted it, or got
it by another way, acts at once, before it is told here."""

UPDATE: Final = "update"
CALLBACK: Final = "callback"
"""What an agent promises: that the customer hears again, and that they are called."""

PROMISED_AS: Final[dict[str, str]] = {"periodic_update": UPDATE, "callback": CALLBACK}
"""The clocks of promises, and what they are clocks of: by these names a merge lends its deadlines."""

LIVE_MAX: Final = 50
"""Offers of one conversation that are remembered as standing; the oldest are forgotten first."""

WORK_ENDED: Final = "work_ended"
RELEASED: Final = "released"
"""How an offer ends that nobody has taken when the ticket needs nobody any more, and how one that somebody has."""


class Standing(NamedTuple):
    """Where a ticket stands. `since` is when it came there; `assignee_id` whose it is, if anybody's.

    `into_conversation_id` and `into_ticket_id` are where a merged one goes on, `delegated_by` is
    who delegated it last, if anybody ever did. `update_by` and `callback_by` are what agents promised its customer and have not
    kept yet; of two promises of a kind, the earlier.
    """

    ticket_id: str
    conversation_id: str
    status: str
    version: int
    assignee_id: str | None
    queue: str | None
    priority: int | None
    since: datetime
    into_conversation_id: str | None = None
    into_ticket_id: str | None = None
    delegated_by: str | None = None
    update_by: datetime | None = None
    callback_by: datetime | None = None
    callback_not_before: datetime | None = None


class Moved(NamedTuple):
    """What one event says of its ticket. None says nothing, but an `assignee_id` of None counts where there is a `status`."""

    ticket_id: str
    conversation_id: str
    version: int
    at: datetime
    status: str | None = None
    assignee_id: str | None = None
    queue: str | None = None
    priority: int | None = None
    into_conversation_id: str | None = None
    into_ticket_id: str | None = None
    delegated_by: str | None = None


class Settled(NamedTuple):
    """What became of a request: `reason` is why it was refused, None where it was done.

    The request is known by `request_id`; one cause may have several consequences, so `agent_id` and `action` say whose
    request is meant where that is not sure (None: any).
    """

    request_id: str
    ticket_id: str
    at: datetime
    reason: str | None = None
    state: str | None = None
    agent_id: str | None = None
    action: str | None = None
    winner_id: str | None = None
    winner_at: datetime | None = None


class Offered(NamedTuple):
    """An offer as it was made; `expires_at` is None where nobody was asked (the ticket was given)."""

    reservation_id: str
    agent_id: str
    ticket_id: str
    work_id: str
    offered_at: datetime
    expires_at: datetime | None


class Taken(NamedTuple):
    """An offer was accepted."""

    reservation_id: str
    agent_id: str
    at: datetime


class Over(NamedTuple):
    """An offer came to its end, or what was taken was given back."""

    reservation_id: str
    agent_id: str
    reason: str
    at: datetime


class Promised(NamedTuple):
    """What a ticket's customer is promised from now on; None: nothing of the kind."""

    ticket_id: str
    update_by: datetime | None = None
    callback_by: datetime | None = None
    callback_not_before: datetime | None = None


Told = Moved | Settled | Offered | Taken | Over | Promised


class Live(Struct, frozen=True):
    """An offer that stands or was taken."""

    reservation_id: str
    agent_id: str
    work_id: str
    is_taken: bool = False


class Promise(Struct, frozen=True):
    """A promise that is open on `ticket_id`; it was given on `source`, the same ticket or one that was merged into it.

    `is_asleep`: the ticket lies with the spam, and the promise is shown again once it is restored.
    """

    ticket_id: str
    source: str
    what: str
    by: datetime
    not_before: datetime | None = None
    is_asleep: bool = False


class Offers(Struct, frozen=True):
    """What stands open in a conversation: its offers that have not ended, oldest first, and what agents have promised."""

    live: tuple[Live, ...] = ()
    promises: tuple[Promise, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing stands open."""
        return not self.live and not self.promises


class Answerable(NamedTuple):
    """An offer as an answer to it finds it; `winner_id` has its ticket, if anybody, since `winner_at`."""

    reservation_id: str
    agent_id: str
    ticket_id: str
    expires_at: datetime | None
    taken_at: datetime | None
    ended_at: datetime | None
    end_reason: str | None
    winner_id: str | None
    winner_at: datetime | None


class Trace(NamedTuple):
    """What is known of one offer of a ticket: whom it was made to, whether they took it, and whether that has ended."""

    agent_id: str
    is_taken: bool
    has_ended: bool


# ------------------------------------------------------------------------------------------ what was told


def read(state: Offers, event: Payload, cause: str) -> tuple[Offers, tuple[Told, ...]]:
    """Return the offers from now on, and what the event says. `cause` is the id of the input that led to it."""
    match event:
        case tickets.CommandRefused():
            refused = Settled(
                event.command_id, event.ticket_id, event.at, event.reason, event.state
            )
            return state, (refused,)
        case tickets.TicketEvent():
            done = Settled(_request_of(event) or cause, event.ticket_id, event.at)
            after = structs.replace(state, promises=_promises_after(state.promises, event))
            if after.promises == state.promises:
                return state, (moved(event), done)
            return after, (moved(event), done, _promised(after.promises, event.ticket_id))
        case routing.RoutingEvent():
            return _read_routing(state, event, cause)
        case _:
            return state, ()


def _promises_after(
    promises: tuple[Promise, ...], event: tickets.TicketEvent
) -> tuple[Promise, ...]:
    """Return the open promises once an event is told. A merged ticket keeps its own, for when the merge is undone."""
    ticket_id = event.ticket_id

    def without(what: str) -> tuple[Promise, ...]:
        return tuple(one for one in promises if (one.ticket_id, one.what) != (ticket_id, what))

    match event:
        case tickets.TicketPromised():
            made = Promise(ticket_id, ticket_id, event.what, event.by, event.not_before)
            return (*without(event.what), made)
        case tickets.TicketAnswered(next_update_by=None) | tickets.TicketAnsweredElsewhere():
            return without(UPDATE)
        case tickets.TicketAnswered(next_update_by=by) if by is not None:
            return (*without(UPDATE), Promise(ticket_id, ticket_id, UPDATE, by))
        case tickets.TicketCalled(outcome="reached", occurred_at=at):
            # A call before the time that the customer chose keeps nothing: they expect another one.
            return tuple(
                one
                for one in promises
                if (one.ticket_id, one.what) != (ticket_id, CALLBACK)
                or (one.not_before is not None and at < one.not_before)
            )
        case tickets.TicketAbsorbed(dues=dues) if dues is not None:
            lent = (
                Promise(ticket_id, event.from_ticket_id, PROMISED_AS[kind], by)
                for kind, by in dues.items()
                if kind in PROMISED_AS
            )
            return (*promises, *lent)
        case tickets.TicketSplitOff():
            gone = (ticket_id, event.from_ticket_id)
            return tuple(one for one in promises if (one.ticket_id, one.source) != gone)
        case tickets.TicketSolved() | tickets.TicketClosed():
            return tuple(one for one in promises if one.ticket_id != ticket_id)
        case tickets.TicketStatusChanged(status="spam"):
            return tuple(
                structs.replace(one, is_asleep=True) if one.ticket_id == ticket_id else one
                for one in promises
            )
        case tickets.TicketStatusChanged(before="spam"):
            return tuple(
                structs.replace(one, is_asleep=False) if one.ticket_id == ticket_id else one
                for one in promises
            )
        case _:
            return promises


def _promised(promises: Iterable[Promise], ticket_id: str) -> Promised:
    """Return what a ticket's customer is promised: of each kind the earliest."""
    first: dict[str, Promise] = {}
    for one in promises:
        known = first.get(one.what)
        if (
            one.ticket_id == ticket_id
            and not one.is_asleep
            and (known is None or one.by < known.by)
        ):
            first[one.what] = one
    update, callback = first.get(UPDATE), first.get(CALLBACK)
    return Promised(
        ticket_id,
        None if update is None else update.by,
        None if callback is None else callback.by,
        None if callback is None else callback.not_before,
    )


def _request_of(event: tickets.TicketEvent) -> str | None:
    """Return the command that an event is the outcome of, where it says so itself; else its cause tells."""
    if isinstance(event, tickets.TicketMerged):
        # The other ticket was asked in between, so the cause is its answer.
        return event.merge_id
    found: str | None = getattr(event, "command_id", None)
    return found


def moved(event: tickets.TicketEvent) -> Moved:
    """Return where a ticket's event leaves it."""
    plain = Moved(event.ticket_id, event.conversation_id, event.version, event.at)
    match event:
        case tickets.TicketOpened():
            return plain._replace(status="queued", queue=event.queue, priority=event.priority)
        case tickets.TicketReopened():
            return plain._replace(status="queued", queue=event.queue)
        case tickets.TicketStatusChanged():
            return plain._replace(
                status=event.status,
                assignee_id=_holder(event),
                queue=event.queue,
            )
        case tickets.TicketEscalated() | tickets.TicketReturned():
            return plain._replace(queue=event.to_queue)
        case tickets.TicketPrioritised() | tickets.TicketAbsorbed() | tickets.TicketSplitOff():
            return plain._replace(priority=event.priority)
        case tickets.TicketDelegated():
            return plain._replace(delegated_by=event.owner_id)
        case tickets.TicketMerged():
            return plain._replace(
                status="merged",
                into_conversation_id=event.into_conversation_id,
                into_ticket_id=event.into_ticket_id,
            )
        case tickets.TicketUnmerged():
            return plain._replace(status="queued", queue=event.queue)
        case tickets.TicketSolved():
            return plain._replace(status="solved")
        case tickets.TicketClosed():
            return plain._replace(status="closed")
        case _:
            return plain


def _holder(event: tickets.TicketStatusChanged) -> str | None:
    is_held = event.status in HELD and event.agent_id != ELSEWHERE
    return event.agent_id if is_held else None


def folded(changes: list[Moved]) -> Moved:
    """Return what several events of one ticket say together, given in their order."""
    now, *others = changes
    for one in others:
        has_moved = one.status is not None and (one.status, one.assignee_id) != (
            now.status,
            now.assignee_id,
        )
        now = now._replace(
            version=one.version,
            at=one.at if has_moved or now.status is None else now.at,
            status=one.status if has_moved else now.status,
            assignee_id=one.assignee_id if has_moved else now.assignee_id,
            queue=one.queue if one.queue is not None else now.queue,
            priority=one.priority if one.priority is not None else now.priority,
            into_conversation_id=(one if has_moved else now).into_conversation_id,
            into_ticket_id=(one if has_moved else now).into_ticket_id,
            delegated_by=one.delegated_by or now.delegated_by,
        )
    return now


def _read_routing(
    state: Offers, event: routing.RoutingEvent, cause: str
) -> tuple[Offers, tuple[Told, ...]]:
    match event:
        case routing.OfferMade():
            return _made(state, event)
        case routing.TicketAssigned():
            return _taken(state, event, cause)
        case routing.OfferWithdrawn():
            gone = [one for one in state.live if _is(one, event.reservation_id, event.agent_id)]
            left, ended = _end(state, gone, event.reason, event.at)
            return left, (*ended, *_declined(event, cause))
        case routing.TicketRequeued():
            gone = [
                one
                for one in state.live
                if (one.work_id, one.agent_id) == (event.work_id, event.agent_id)
            ]
            left, ended = _end(state, gone, event.reason, event.at)
            return left, (*ended, *_declined(event, cause))
        case routing.WorkReleased():
            gone = [
                one
                for one in state.live
                if one.work_id == event.work_id and event.agent_id in (None, one.agent_id)
            ]
            return _end(state, gone, None, event.at)
        case routing.OfferAnswerRefused():
            refused = Settled(
                cause,
                event.ticket_id,
                event.at,
                event.reason,
                agent_id=event.agent_id,
                winner_id=event.winner_id,
                winner_at=event.winner_at,
            )
            return state, (refused,)
        case _:
            return state, ()


def _is(one: Live, reservation_id: str, agent_id: str) -> bool:
    return (one.reservation_id, one.agent_id) == (reservation_id, agent_id)


def _made(state: Offers, event: routing.OfferMade) -> tuple[Offers, tuple[Told, ...]]:
    others = [one for one in state.live if not _is(one, event.reservation_id, event.agent_id)]
    made = Live(event.reservation_id, event.agent_id, event.work_id)
    offered = Offered(
        event.reservation_id,
        event.agent_id,
        event.ticket_id,
        event.work_id,
        event.offered_at,
        event.expires_at,
    )
    return structs.replace(state, live=(*others, made)[-LIVE_MAX:]), (offered,)


def _taken(
    state: Offers, event: routing.TicketAssigned, cause: str
) -> tuple[Offers, tuple[Told, ...]]:
    who = (event.reservation_id, event.agent_id)
    # The first to accept has it; whoever else was asked for the same is asked no more.
    losers = [one for one in state.live if one.work_id == event.work_id and not _is(one, *who)]
    left, ended = _end(state, losers, "taken_by_other", event.assigned_at)
    others = [one for one in left.live if not _is(one, *who)]
    held = Live(event.reservation_id, event.agent_id, event.work_id, is_taken=True)
    offered = Offered(*who, event.ticket_id, event.work_id, event.assigned_at, None)
    done = Settled(
        cause, event.ticket_id, event.assigned_at, agent_id=event.agent_id, action=ACCEPT
    )
    told: tuple[Told, ...] = (offered, Taken(*who, event.assigned_at), *ended, done)
    return structs.replace(state, live=(*others, held)[-LIVE_MAX:]), told


def _end(
    state: Offers, gone: list[Live], reason: str | None, at: datetime
) -> tuple[Offers, tuple[Over, ...]]:
    """End offers for a reason; for None because the ticket needs nobody any more."""
    ended = tuple(
        Over(
            one.reservation_id,
            one.agent_id,
            reason or (RELEASED if one.is_taken else WORK_ENDED),
            at,
        )
        for one in gone
    )
    return structs.replace(state, live=tuple(one for one in state.live if one not in gone)), ended


def _declined(
    event: routing.TicketRequeued | routing.OfferWithdrawn, cause: str
) -> tuple[Settled, ...]:
    if event.reason != "offer_declined":
        return ()
    return (Settled(cause, event.ticket_id, event.at, agent_id=event.agent_id, action=DECLINE),)


# ----------------------------------------------------------------------------------- what does not fit


def is_torn(standing: Standing, traces: Iterable[Trace]) -> bool:
    """Whether the offers tell that the ticket has moved on from where it stands here, or may have.

    Assignment tells of a change of hands before the ticket itself does. So somebody else may have taken it already, whoever
    had it may have lost it, or it may be offered again.
    """
    traces = tuple(traces)
    holders = {one.agent_id for one in traces if one.is_taken and not one.has_ended}
    if holders:
        return holders != {standing.assignee_id}
    if standing.status != "assigned":
        return False
    return any(not one.has_ended or one.agent_id == standing.assignee_id for one in traces)


def refusal(standing: Standing, command: commands.Command, now: datetime) -> str | None:
    """Return why the router will refuse a command if the ticket still stands so; None where that is not sure."""
    objection = _objection(standing.status, command)
    if objection is not None:
        return objection
    is_somebodys = standing.assignee_id is not None and now - standing.since >= HELD_FOR_SURE
    match command:
        case _ if is_somebodys and not _may_act(standing, command):
            return "not_assignee"
        case commands.ReassignTicket() if _changes_nothing(standing, command):
            return "already_there"
        case commands.ResumeTicket() if standing.status not in RESTING:
            return "not_resting"
        case _:
            return None


def _objection(status: str, command: commands.Command) -> str | None:
    """Return why a status rules a command out, whoever gives it."""
    match command, status:
        case _, "closed":
            return "closed"
        case commands.UnmergeTicket(), "merged":
            return None
        case _, "merged":
            return "merged"
        case (commands.AddNote() | commands.TagTicket(), _) | (commands.RestoreTicket(), "spam"):
            return None
        case _, "spam":
            return "is_spam"
        case commands.RestoreTicket(), _:
            return "not_spam"
        case commands.UnmergeTicket(), _:
            return "not_merged"
        case commands.CallMade(), "solved":
            return None
        case _, "solved":
            return "already_solved"
        case _:
            return None


def _may_act(standing: Standing, command: commands.Command) -> bool:
    """Whether whoever commands may do so. Who delegated the ticket may too, and whether it still is, is not in view.

    What nobody has is not judged here: some of it is anybody's, and some its delegator's alone.
    """
    holder, delegator = standing.assignee_id, standing.delegated_by
    match command:
        case commands.SnoozeTicket() | commands.DelegateTicket():
            return holder == command.agent_id
        case (
            commands.ReplyToCustomer()
            | commands.SolveTicket()
            | commands.EscalateTicket()
            | commands.HoldTicket()
            | commands.ReturnTicket()
            | commands.MarkTicketAsSpam()
            | commands.MergeTicket()
            | commands.PromiseCustomer()
        ):
            return command.agent_id in (holder, delegator)
        case _:
            return True


def _changes_nothing(standing: Standing, command: commands.ReassignTicket) -> bool:
    if command.to_agent_id is None and (command.queue is None or command.transfer != "ask"):
        return False  # There it lacks something, which the router names.
    return command.queue in (None, standing.queue) and command.to_agent_id in (
        None,
        standing.assignee_id,
    )


def answer_refusal(offer: Answerable, agent_id: str, action: str) -> str | None:
    """Return why the router refuses an answer to an offer, None where it may not.

    An offer that is past its time and was not told to have ended is left to the router, whose clock counts.
    """
    if offer.ended_at is None and offer.taken_at is None:
        return None if offer.agent_id == agent_id else "not_yours"
    if action == DECLINE:
        is_repeat = offer.end_reason == "offer_declined"
    else:
        is_repeat = offer.agent_id == agent_id and offer.ended_at is None
    return None if is_repeat else "reservation_expired"
