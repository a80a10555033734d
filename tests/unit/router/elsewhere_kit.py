"""What the tests of telling others share: a policy with a helpdesk, two chat tools and a board, and a ticket's events."""

from datetime import datetime, timedelta
from typing import Any

from chassis.testing.instants import at
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
from services.router.core.elsewhere.decide import (
    Ask,
    CallSettled,
    Decision,
    Done,
    Event,
    NotDone,
    RetryDue,
    Unknown,
    decide,
)
from services.router.core.elsewhere.policy import (
    Board,
    Desk,
    Lists,
    Messenger,
    Place,
    Places,
)
from services.router.core.elsewhere.state import Conversation

CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
TICKET = "3c59dc04-8e88-5024-9be8-079a5c74d079"

DESK = Desk(account="desk", agents={"ada": "256", "grace": "257"}, groups={"technical": "31"})
TEAM = Messenger(agents={"ada": "U0ADA", "grace": "U0GRACE"})
BOARD = Board(
    agents={"ada": "adalovelace", "grace": "gracehopper"},
    lists=Lists(waiting="l-waiting", assigned="l-assigned", solved="l-solved"),
    show_subject=True,
)


def places(**given: Any) -> Places:
    """Places by name; a settings object each, its vendor by its kind."""
    kinds = {Desk: "zendesk", Messenger: "slack", Board: "trello"}
    made = {name: Place(kinds[type(one)], one) for name, one in given.items()}
    return Places(
        places=made, delays=(timedelta(seconds=2), timedelta(seconds=10)), jitter=0.0,
        give_up_after=timedelta(minutes=3),
    )  # fmt: skip


ALL = places(desk=DESK, team=TEAM, board=BOARD)


class Story:
    """One conversation, told event by event; the last decision, and all asks and events so far."""

    def __init__(self, policy: Places = ALL, state: Conversation | None = None) -> None:
        self.policy = policy
        self.state = state or Conversation()
        self.asks: list[Ask] = []
        self.told: list[Any] = []
        self.decision = Decision(self.state)

    def when(self, event: Event, now: datetime) -> "Story":
        """Let an event happen."""
        self.decision = decide(CONVERSATION, self.state, event, now, self.policy)
        self.state = self.decision.state
        self.asks += self.decision.asks
        self.told += self.decision.events
        return self

    def settle(
        self, result: Done | NotDone | Unknown, now: datetime, ask: Ask | None = None
    ) -> "Story":
        """Let a call (the latest unless said otherwise) end."""
        which = ask or self.asks[-1]
        return self.when(CallSettled(which.item_id, which.serial, which.attempt, result), now)

    def tick(self, now: datetime) -> "Story":
        """Let the timer fire."""
        return self.when(RetryDue(), now)

    def calls(self) -> list[Any]:
        """What the last decision asked for."""
        return [ask.call for ask in self.decision.asks]


def opened(when: str = "09:00", **changes: Any) -> TicketOpened:
    contact = {
        "customer_id": "c-1", "address": "ada@example.com", "channel": "zendesk", "account": "desk",
    }  # fmt: skip
    return TicketOpened.model_validate(
        {
            **TicketOpened.EXAMPLE, "ticket_id": TICKET, "conversation_id": CONVERSATION, "at": at(when),
            "contact": contact, "vendor_thread": "5158", "reference": "SB-4K7TQ2M", **changes,
        }
    )  # fmt: skip


def _ticket(when: str, **changes: Any) -> dict[str, Any]:
    return {
        "ticket_id": TICKET, "conversation_id": CONVERSATION, "version": 2, "at": at(when), **changes,
    }  # fmt: skip


def assigned(agent: str = "ada", when: str = "09:01", **changes: Any) -> TicketStatusChanged:
    return TicketStatusChanged.model_validate(
        _ticket(when)
        | {"before": "offered", "status": "assigned", "reason": "accepted", "queue": "service"}
        | {"agent_id": agent, **changes}
    )


def queued(before: str = "assigned", when: str = "09:02", **changes: Any) -> TicketStatusChanged:
    return TicketStatusChanged.model_validate(
        _ticket(when)
        | {
            "before": before,
            "status": "queued",
            "reason": "agent_away",
            "queue": "service",
            **changes,
        }
    )


def escalated(when: str = "09:03") -> TicketEscalated:
    return TicketEscalated.model_validate(
        {**TicketEscalated.EXAMPLE, **_ticket(when), "to_queue": "technical"}
    )


def solved(when: str = "09:10", agent: str = "ada") -> TicketSolved:
    return TicketSolved.model_validate({**TicketSolved.EXAMPLE, **_ticket(when), "agent_id": agent})


def reopened(when: str = "09:20") -> TicketReopened:
    return TicketReopened.model_validate({**TicketReopened.EXAMPLE, **_ticket(when)})


def closed(when: str = "09:30") -> TicketClosed:
    return TicketClosed.model_validate(_ticket(when))


def merged(when: str = "09:10") -> TicketMerged:
    return TicketMerged.model_validate({**TicketMerged.EXAMPLE, **_ticket(when)})


def unmerged(when: str = "09:20") -> TicketUnmerged:
    return TicketUnmerged.model_validate({**TicketUnmerged.EXAMPLE, **_ticket(when)})


def prioritised(priority: int, when: str = "09:05") -> TicketPrioritised:
    said = {**TicketPrioritised.EXAMPLE, **_ticket(when), "priority": priority}
    return TicketPrioritised.model_validate(said)


def erased() -> ConversationErased:
    return ConversationErased.model_validate(
        {"conversation_id": CONVERSATION, "by": "ada", "at": at("09:40")}
    )


def _work(**fields: Any) -> dict[str, Any]:
    return {"ticket_id": TICKET, "conversation_id": CONVERSATION, "work_id": "w1", **fields}


def offered(agent: str = "ada", slot: str = "r1", when: str = "09:00:30") -> OfferMade:
    offer = {
        **OfferMade.EXAMPLE, **_work(reservation_id=slot, agent_id=agent), "offered_at": at(when),
        "expires_at": at(when) + timedelta(seconds=30),
    }  # fmt: skip
    return OfferMade.model_validate(offer)


def taken(agent: str = "ada", slot: str = "r1", when: str = "09:00:40") -> TicketAssigned:
    return TicketAssigned.model_validate(
        _work(reservation_id=slot, agent_id=agent, queue="service", assigned_at=at(when))
    )


def requeued(
    agent: str = "ada", reason: str = "offer_expired", when: str = "09:01"
) -> TicketRequeued:
    return TicketRequeued.model_validate(
        _work(agent_id=agent, queue="service", reason=reason, at=at(when))
    )


def withdrawn(agent: str, slot: str, when: str = "09:00:41") -> OfferWithdrawn:
    return OfferWithdrawn.model_validate(
        _work(
            agent_id=agent,
            reservation_id=slot,
            queue="service",
            reason="taken_by_other",
            at=at(when),
        )
    )


def released(agent: str = "ada", reason: str = "escalated", when: str = "09:03") -> WorkReleased:
    return WorkReleased.model_validate(_work(agent_id=agent, reason=reason, at=at(when)))
