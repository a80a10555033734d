"""What the gateway refuses by its view, the router would refuse too, and under the same name.

The router's own decisions are walked at random; after each step, everything that an agent could ask next is asked of both.
"""

import copy
from datetime import timedelta
from typing import Any, Final, get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import commands, roster, routing, tickets
from schemas.merging import MergeAnswered
from schemas.payload import Payload
from services.ingest import api
from services.ingest.core import ticket_view
from services.ingest.core.ticket_view import (
    ACCEPT,
    DECLINE,
    Answerable,
    Moved,
    Offered,
    Offers,
    Over,
    Standing,
    Taken,
)
from services.router.core.assignment import assign
from services.router.core.tickets import decide
from services.router.core.tickets.state import Ticket
from tests.unit.router.stories import CONVERSATION, Case, Desk, at, message

AGENTS: Final = ("ada", "bo")
BODIES: Final[dict[type[commands.Command], tuple[dict[str, Any], ...]]] = {
    commands.SolveTicket: ({}, {"cause": None}),
    commands.EscalateTicket: (
        {"facts": {"tried": "new key", "impact": "all"}, "queue": None},
        {"facts": {}, "queue": "labs"},
    ),
    commands.ReassignTicket: (
        {"queue": "service"},
        {"queue": "technical"},
        {"queue": None, "to_agent_id": "bo"},
        {"queue": None, "to_agent_id": "ada"},
        {"queue": "service", "to_agent_id": "bo"},
    ),
}


def asked(kind: type[commands.Command], ticket_id: str, agent: str, name: str) -> list[Any]:
    """Commands of a kind about a ticket, their example but for what is said here."""
    where = {
        "conversation_id": CONVERSATION,
        "ticket_id": ticket_id,
        "agent_id": agent,
        "command_id": name,
    }
    return [
        kind.model_validate({**kind.EXAMPLE, **body, **where}) for body in BODIES.get(kind, ({},))
    ]


def merged(ticket: Ticket) -> MergeAnswered:
    """The other conversation's ticket takes this one in."""
    assert ticket.merging is not None
    known = MergeAnswered.EXAMPLE | {
        "conversation_id": CONVERSATION,
        "ticket_id": ticket.ticket_id,
        "merge_id": ticket.merging.merge_id,
    }
    return MergeAnswered.model_validate(known)


class Walk:
    """A conversation in the router, and the gateway's view of its tickets."""

    def __init__(self) -> None:
        self.case = Case()
        self.seen: dict[str, Moved] = {}
        self.minutes = 0
        self.refused: set[str] = set()
        self.statuses: set[str] = set()

    @property
    def now(self) -> str:
        return (at("2026-11-24T08:00") + timedelta(minutes=self.minutes)).isoformat()[:19]

    def hears(self, event: Any) -> None:
        self.minutes += 1
        self.case.hears(event, self.now)
        for told in self.case.told:
            if isinstance(told, tickets.TicketEvent):
                said = ticket_view.moved(told)
                known = self.seen.get(said.ticket_id)
                self.seen[said.ticket_id] = ticket_view.folded([known, said] if known else [said])

    def step(self, number: int) -> None:
        ticket = self.case.state.ticket if self.case.state else None
        kinds = list(api.COMMANDS.values())
        agent = AGENTS[number % 2]
        if ticket is not None and ticket.merging is not None and number % 2:
            self.hears(merged(ticket))
        elif number % 15 == 5:
            self.answered_elsewhere()
        elif number % 5 == 0 or ticket is None:
            self.hears(message(f"m{self.minutes}"))
        elif number % 5 == 1:
            kind = (routing.OfferMade, routing.TicketAssigned, routing.TicketRequeued)[number % 3]
            known = kind.EXAMPLE | {
                "ticket_id": ticket.ticket_id,
                "conversation_id": CONVERSATION,
                "work_id": ticket.work_id or "none",
                "agent_id": agent,
            }
            self.hears(kind.model_validate(known))
        elif number % 25 == 2:
            self.minutes += 80 * 60
            self.hears(decide.CloseDue())
        else:
            options = asked(kinds[number % len(kinds)], ticket.ticket_id, agent, f"k{self.minutes}")
            self.hears(options[number % len(options)])

    def answered_elsewhere(self) -> None:
        """Our side answers at the channel itself."""
        answer = message(f"o{self.minutes}", direction="outbound", occurred_at=f"{self.now}Z")
        self.hears(answer)

    def check(self) -> None:
        """Ask everything of everything."""
        for ticket_id, said in self.seen.items():
            standing = standing_of(said)
            self.statuses.add(standing.status)
            for kind in api.COMMANDS.values():
                for agent in AGENTS:
                    for command in asked(kind, ticket_id, agent, "probe"):
                        self._compare(standing, command)

    def _compare(self, standing: Standing, command: commands.Command) -> None:
        reason = ticket_view.refusal(standing, command, standing.since + ticket_view.HELD_FOR_SURE)
        if reason is None:
            return
        now = at(self.now)
        event: Any = command
        decision = decide.decide(self.case.state, event, now, self.case.policy, now)
        said = [one for one in decision.events if isinstance(one, tickets.CommandRefused)]
        # While a merge is asked for, the router says that first, and the gateway judges nothing: a command is under way.
        assert {one.reason for one in said} in ({reason}, {"merge_underway"}), (standing, command)
        assert said[0].state == standing.status
        self.refused.add(reason)


def standing_of(said: Moved) -> Standing:
    assert said.status is not None
    return Standing(
        said.ticket_id,
        said.conversation_id,
        said.status,
        said.version,
        said.assignee_id,
        said.queue,
        said.priority,
        said.at,
        said.into_conversation_id,
        said.into_ticket_id,
        said.delegated_by,
    )


@settings(max_examples=60)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_a_command_that_the_gateway_refuses_the_router_refuses_by_the_same_name(
    steps: list[int],
) -> None:
    walk = Walk()
    walk.hears(message("m0"))
    for number in steps:
        walk.step(number)
        walk.check()


def test_a_ticket_answered_elsewhere_is_nobodys_here_as_in_the_router() -> None:
    walk = Walk()
    walk.hears(message("m0"))
    walk.answered_elsewhere()
    (standing,) = map(standing_of, walk.seen.values())
    assert (standing.status, standing.assignee_id) == ("pending", None)
    assert walk.case.ticket.assignee_id is None
    walk.check()
    assert "not_assignee" not in walk.refused


def test_the_walk_meets_every_refusal_that_the_gateway_knows() -> None:
    """A walk on which nothing is refused would show nothing."""
    walk = Walk()
    walk.hears(message("m0"))
    ticket_id = walk.case.ticket.ticket_id

    def assign() -> None:
        known = {
            "ticket_id": ticket_id,
            "conversation_id": CONVERSATION,
            "work_id": walk.case.ticket.work_id,
            "agent_id": "ada",
        }
        for kind in (routing.OfferMade, routing.TicketAssigned):
            walk.hears(kind.model_validate(kind.EXAMPLE | known))

    def do(kind: type[commands.Command]) -> None:
        walk.hears(asked(kind, ticket_id, "ada", f"k-{kind.TYPE}-{walk.minutes}")[0])
        walk.check()

    walk.check()
    assign()
    walk.check()
    do(commands.DelegateTicket)
    for put_away in (commands.HoldTicket, commands.SnoozeTicket, commands.MarkTicketAsSpam):
        assign()
        do(put_away)
        do(
            commands.RestoreTicket
            if put_away is commands.MarkTicketAsSpam
            else commands.ResumeTicket
        )
    do(commands.MergeTicket)
    walk.hears(merged(walk.case.ticket))
    walk.check()
    do(commands.UnmergeTicket)
    assign()
    do(commands.SolveTicket)
    walk.minutes += 80 * 60
    walk.hears(decide.CloseDue())
    walk.check()
    statuses = set(get_args(tickets.TicketStatus))
    assert walk.statuses == statuses - {"offered", "pending"}
    assert walk.refused == {
        "already_solved",
        "already_there",
        "closed",
        "is_spam",
        "merged",
        "not_assignee",
        "not_merged",
        "not_resting",
        "not_spam",
    }


# -------------------------------------------------------------------------------------------------- offers


class Rows:
    """The view's offers in memory, as its tables hold them."""

    def __init__(self) -> None:
        self.state = Offers()
        self.offers: dict[tuple[str, str], Answerable] = {}
        self.work: dict[str, str] = {}

    def hear(self, event: Payload) -> None:
        self.state, told = ticket_view.read(self.state, event, "cause")
        for one in told:
            match one:
                case Offered():
                    self.work[one.reservation_id] = one.work_id
                    made = Answerable(
                        one.reservation_id,
                        one.agent_id,
                        one.ticket_id,
                        one.expires_at,
                        None,
                        None,
                        None,
                        None,
                        None,
                    )
                    self.offers.setdefault((one.reservation_id, one.agent_id), made)
                case Taken():
                    self._change(one.reservation_id, one.agent_id, taken_at=one.at)
                case Over():
                    self._change(
                        one.reservation_id, one.agent_id, ended_at=one.at, end_reason=one.reason
                    )
                case _:
                    pass

    def _change(self, reservation_id: str, agent_id: str, **fields: Any) -> None:
        key = (reservation_id, agent_id)
        self.offers[key] = self.offers[key]._replace(**fields)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_an_answer_that_the_gateway_refuses_the_router_does_not_let_stand(
    steps: list[int],
) -> None:
    """It is refused by the same name, unless its time is over meanwhile or the router has forgotten what it was for."""
    desk, rows, heard = Desk(), Rows(), 0
    desk.agent("ada").agent("bo")
    now = at("09:00")
    for number in steps:
        now += timedelta(seconds=number % 40)
        ticket = f"t{number % 3}"
        match number % 7:
            case 0:
                if desk.domain.live_work(ticket) is None:
                    desk.asks(ticket, now.isoformat()[:19])
            case 1:
                desk.presence(
                    AGENTS[number % 2], ("away", "available")[number % 3 % 2], now.isoformat()[:19]
                )
            case 2:
                desk.hears(assign.DueNow(), now)
            case 3 if desk.domain.live_work(ticket) is not None and number % 5 == 0:
                desk.withdraws(ticket, now.isoformat()[:19])
            case 4 | 5:
                desk.accepts(ticket, now.isoformat()[:19])
            case _:
                desk.declines(ticket, now.isoformat()[:19])
        for event in desk.everything[heard:]:
            rows.hear(event)
        heard = len(desk.everything)
        for offer in rows.offers.values():
            ticket_id = rows.work[offer.reservation_id].removeprefix("w-")
            for agent in AGENTS:
                for action, kind in (
                    (ACCEPT, roster.OfferAccepted),
                    (DECLINE, roster.OfferDeclined),
                ):
                    compare(desk, offer, ticket_id, agent, action, kind, now)


def compare(
    desk: Desk, offer: Answerable, ticket_id: str, agent: str, action: str, kind: Any, now: Any
) -> None:
    reason = ticket_view.answer_refusal(offer, agent, action)
    if reason is None:
        return
    event = kind(
        domain="main",
        agent_id=agent,
        ticket_id=ticket_id,
        reservation_id=offer.reservation_id,
    )
    decision = assign.decide(copy.deepcopy(desk.domain), event, now, desk.terms)
    said = [one for one in decision[0] if isinstance(one, routing.OfferAnswerRefused)]
    allowed = {reason, "reservation_expired", "reservation_unknown", "ticket_unknown"}
    assert [one.reason for one in said if one.agent_id == agent] or decision[1], (offer, event)
    assert {one.reason for one in said} <= allowed, (offer, event)
