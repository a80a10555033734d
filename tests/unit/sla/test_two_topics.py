"""Tickets and assignment tell of themselves on two topics: whichever of them is ahead, the verdicts are the same (R14)."""
# ruff: noqa: N802 — R14 is the id of a promise, and written as elsewhere.

from collections import Counter
from datetime import datetime

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.payload import Payload
from schemas.routing import (
    OfferMade,
    OfferWithdrawn,
    TicketAssigned,
    TicketQueued,
    TicketRequeued,
    WorkReleased,
)
from schemas.sla import BreachRetracted, TargetBreached
from schemas.tickets import TicketAnswered, TicketMessageAdded, TicketOpened, TicketStatusChanged
from tests.unit.sla.clockwork import Story, at, make_policy, told

POLICY = make_policy(
    {
        "standard": {
            "calendar": "24/7",
            "first_response": {"within": "4h"},
            "next_response": {"within": "4h"},
            "time_to_offer": {"within": "10m"},
            "time_to_accept": {"seconds": 60},
        }
    }
)


def _tickets() -> list[Payload]:
    """Answered three times; twice the customer writes again, and somebody is sought anew."""
    return [
        told(TicketOpened, at("09:00:00"), priority=3),
        told(TicketAnswered, at("09:10:00")),
        told(TicketStatusChanged, at("09:10:00"), before="assigned", status="pending"),
        told(TicketMessageAdded, at("10:00:00"), from_conversation_id=None),
        told(TicketStatusChanged, at("10:00:00"), before="pending", status="queued"),
        told(TicketAnswered, at("10:40:00")),
        told(TicketStatusChanged, at("10:40:00"), before="assigned", status="pending"),
        told(TicketMessageAdded, at("11:00:00"), from_conversation_id=None),
        told(TicketStatusChanged, at("11:00:00"), before="pending", status="queued"),
        told(TicketAnswered, at("11:20:00")),
        told(TicketStatusChanged, at("11:20:00"), before="assigned", status="pending"),
    ]


def _routing() -> list[Payload]:
    """Of the second stay the offer came to nothing and the next took 29 minutes; in the third somebody took 90 s to accept."""
    w1, w2, w3 = ({"work_id": name, "record": None} for name in ("w1", "w2", "w3"))
    return [
        told(TicketQueued, at("09:00:00.5"), **w1),
        told(OfferMade, at("09:00:02"), agent_id="ada", **w1),
        told(TicketAssigned, at("09:00:03"), agent_id="ada", work_id="w1"),
        told(WorkReleased, at("09:10:00.5"), work_id="w1"),
        told(TicketQueued, at("10:00:00.5"), **w2),
        told(OfferMade, at("10:00:01"), agent_id="ada", **w2),
        told(TicketRequeued, at("10:00:31"), agent_id="ada", work_id="w2"),
        told(OfferMade, at("10:30:00"), agent_id="bo", **w2),
        told(TicketAssigned, at("10:30:05"), agent_id="bo", work_id="w2"),
        told(WorkReleased, at("10:40:00.5"), work_id="w2"),
        told(OfferMade, at("11:00:01"), agent_id="ada", waited_seconds=1.0, **w3),
        told(OfferWithdrawn, at("11:00:20"), agent_id="ada", reason="offer_declined", work_id="w3"),
        told(OfferMade, at("11:05:00"), agent_id="bo", **w3),
        told(TicketAssigned, at("11:06:30"), agent_id="bo", work_id="w3"),
    ]


def _standing(story: Story) -> Counter[tuple[str, datetime]]:
    """The breaches that were told and not taken back, of the way to a person."""
    found: Counter[tuple[str, datetime]] = Counter()
    for event in story.all:
        if isinstance(event, TargetBreached | BreachRetracted):
            found[event.target, event.breached_at] += 1 if isinstance(event, TargetBreached) else -1
    return +found


def _told_in(order: list[bool]) -> Story:
    """The story, all of it heard late: the next event is of assignment where `order` says so, and then what is left."""
    tickets, routing = _tickets(), _routing()
    story, now = Story(POLICY), at("11:21:00")
    for is_routing in order:
        topic = routing if is_routing else tickets
        if topic:
            story.heard(topic.pop(0), now)
    for event in (*tickets, *routing):
        story.heard(event, now)
    while story.next_due is not None and story.next_due <= now:
        story.tick(now)
    return story


VERDICTS = Counter({("time_to_offer", at("10:10:31")): 1, ("time_to_accept", at("11:06:00")): 1})


@settings(max_examples=120, deadline=None)
@given(order=st.lists(st.booleans(), max_size=25))
@example(order=[True] * 14)
@example(order=[False] * 11)
@example(order=[False] * 3 + [True] * 14)
def test_R14_whichever_topic_is_ahead_the_breaches_are_the_same(order: list[bool]) -> None:
    assert _standing(_told_in(order)) == VERDICTS


def test_R14_an_offer_that_came_to_nothing_ahead_of_the_message_has_no_clock_left() -> None:
    tickets, routing = _tickets(), _routing()
    stories = []
    for is_ahead in (False, True):
        story = Story(POLICY).then(tickets[0], *routing[:3], *tickets[1:3], routing[3])
        first, second = tickets[3:5], routing[4:7]
        for event in (*second, *first) if is_ahead else (*first, *second):
            story.heard(event, at("10:00:40"))
        story.tick(at("10:01:05"))
        stories.append(story)
    told_apart = [
        [(one.kind, one.status) for one in s.state.tickets[0].targets] for s in stories if s.state
    ]
    assert told_apart[0] == told_apart[1]
    assert stories[1].target("time_to_accept").status == "cancelled"
    assert stories[1].target("time_to_offer").status == "running"
    assert stories[1].state is not None
    assert not stories[1].state.early
