"""Whatever happens to a ticket, in whatever order it is heard of: what holds of its clocks.

No kind has two open clocks, nothing is broken before its deadline, what begins ends exactly once, and what is broken is told once.
"""

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
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
from schemas.sla import (
    BreachRetracted,
    SlaEvent,
    TargetBreached,
    TargetCancelled,
    TargetMet,
    TargetPaused,
    TargetResumed,
    TargetStarted,
)
from schemas.tickets import (
    TicketAbsorbed,
    TicketAnswered,
    TicketCalled,
    TicketClosed,
    TicketCustomerDescribed,
    TicketMerged,
    TicketMessageAdded,
    TicketOpened,
    TicketPrioritised,
    TicketPromised,
    TicketReopened,
    TicketSolved,
    TicketSplitOff,
    TicketStatusChanged,
    TicketTagged,
    TicketUnmerged,
)
from tests.unit.sla.clockwork import Story, at, make_policy, told

ALL: dict[str, Any] = {
    "calendar": "office",
    "warn_at": 0.8,
    "first_response": {"within": "1h"},
    "next_response": {"within": "2h"},
    "later_response": {"within": "3h", "pauses": ["third_party"]},
    "periodic_update": {"within": "4h", "pauses": ["pending"]},
    "time_to_offer": {"seconds": 90},
    "time_to_accept": {"seconds": 20},
    "resolution": {"within": "8h", "pauses": ["pending", "on_hold"]},
    "tiers": {"front": "3h", "back": {"share": 0.5}},
}
GOLD = ALL | {"calendar": "24/7", "first_response": {"within": "30m"}, "reopen": "restart"}
LESS = {"calendar": "24/7", "resolution": {"within": "4h"}}
POLICY = make_policy(
    {"standard": ALL, "gold": GOLD, "less": LESS},
    more={
        "tiers": {"front": ["service"], "back": ["technical"]},
        "rules": [
            {"when": {"customer_tier": "gold"}, "policy": "gold"},
            {"when": {"tag": "slow"}, "policy": "less"},
            {"when": {"priority": 1}, "policy": "gold"},
        ],
    },
)
START = at("08:30:00")


def _status(status: str, **fields: Any) -> tuple[type[Payload], dict[str, Any]]:
    return TicketStatusChanged, {"before": "assigned", "status": status} | fields


_ACTS: tuple[tuple[type[Payload], dict[str, Any]], ...] = (
    (TicketAnswered, {}),
    (TicketAnswered, {"next_update_by": timedelta(minutes=50)}),
    (TicketMessageAdded, {}),
    (TicketMessageAdded, {"is_automatic": True}),
    (TicketPromised, {"what": "update", "by": timedelta(hours=2), "not_before": None}),
    (TicketPromised, {"what": "callback", "by": timedelta(hours=1), "not_before": None}),
    (
        TicketPromised,
        {"what": "callback", "by": timedelta(hours=3), "not_before": timedelta(hours=2)},
    ),
    (TicketCalled, {"outcome": "reached"}),
    (TicketCalled, {"outcome": "no_answer"}),
    _status("pending"),
    _status("on_hold", waiting_on="carrier"),
    _status("on_hold", waiting_on="team"),
    _status("snoozed"),
    _status("queued", before="pending"),
    _status("queued", before="pending", queue="technical"),
    _status("spam"),
    _status("queued", before="spam"),
    (TicketSolved, {"with_answer": False}),
    (TicketSolved, {"with_answer": True}),
    (TicketReopened, {}),
    (TicketMerged, {}),
    (TicketUnmerged, {"opened_at": START, "waiting_since": None}),
    (
        TicketAbsorbed,
        {"dues": {"callback": timedelta(minutes=40), "resolution": timedelta(hours=1)}},
    ),
    (TicketAbsorbed, {"dues": {}}),
    (TicketSplitOff, {"priority": 3}),
    (TicketPrioritised, {"priority": 1}),
    (TicketPrioritised, {"priority": 3}),
    (TicketTagged, {"tags": ["slow"]}),
    (TicketTagged, {"tags": []}),
    (TicketCustomerDescribed, {"tier": "gold", "contract": None}),
    (TicketCustomerDescribed, {"tier": None, "contract": None}),
    (TicketQueued, {"work_id": "w1", "record": None}),
    (TicketQueued, {"work_id": "w2", "record": None}),
    (OfferMade, {"work_id": "w1", "agent_id": "ada", "record": None}),
    (OfferMade, {"work_id": "w1", "agent_id": "bo", "record": None}),
    (OfferMade, {"work_id": "w2", "agent_id": "ada", "record": None}),
    (TicketRequeued, {"work_id": "w1", "agent_id": "ada"}),
    (OfferWithdrawn, {"work_id": "w1", "agent_id": "bo", "reason": "offer_declined"}),
    (OfferWithdrawn, {"work_id": "w2", "agent_id": "ada", "reason": "work_ended"}),
    (TicketAssigned, {"work_id": "w1", "agent_id": "ada"}),
    (TicketAssigned, {"work_id": "w2", "agent_id": "ada"}),
    (WorkReleased, {"work_id": "w1"}),
)

_STEPS = st.lists(
    st.tuples(
        st.integers(0, len(_ACTS) - 1),
        st.integers(0, 5_000),  # Seconds after the step before.
        st.sampled_from((0, 0, 0, 1, 400, 4_000)),  # Seconds that it happened before it is heard.
        st.booleans(),  # Whether the timers fire when they are due.
    ),
    max_size=40,
)


def _event(act: int, happened: datetime) -> Payload:
    kind, fields = _ACTS[act]
    made = {name: _instants(value, happened) for name, value in fields.items()}
    return told(kind, happened, **made)


def _instants(value: object, happened: datetime) -> object:
    """A length in a field stands for the instant that lies so far after what happened."""
    if isinstance(value, dict):
        return {name: _instants(one, happened) for name, one in value.items()}
    return happened + value if isinstance(value, timedelta) else value


def live(steps: list[tuple[int, int, int, bool]]) -> tuple[Story, list[tuple[datetime, SlaEvent]]]:
    """A random life, and what was told of its clocks at which instant of ours."""
    story = Story(POLICY)
    heard: list[tuple[datetime, SlaEvent]] = []

    def noted(now: datetime) -> None:
        heard.extend((now, one) for one in story.told if isinstance(one, SlaEvent))

    now = START
    story.heard(told(TicketOpened, START), now)
    noted(now)
    for act, gap, lag, is_prompt in steps:
        before, now = now, now + timedelta(seconds=gap)
        while is_prompt and (due_at := story.next_due) is not None and due_at <= now:
            story.tick(max(due_at, before))
            noted(max(due_at, before))
        story.heard(_event(act, max(now - timedelta(seconds=lag), START)), now)
        noted(now)
        if story.state is None:
            break
    return story, heard


@settings(max_examples=250, deadline=None)
@given(_STEPS)
def test_no_kind_has_two_open_clocks_and_every_one_that_begins_ends_once(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    story, heard = live(steps)
    if story.state is not None:
        story.heard(
            told(TicketClosed, heard[-1][0] + timedelta(days=30)), heard[-1][0] + timedelta(days=30)
        )
        heard += [(heard[-1][0], one) for one in story.told if isinstance(one, SlaEvent)]
    open_of: dict[str, str] = {}
    standing: dict[str, str] = {}
    for _, event in heard:
        name = event.target_id
        match event:
            case TargetStarted():
                assert event.target not in open_of
                assert name not in standing
                open_of[event.target], standing[name] = name, "open"
            case TargetMet() | TargetCancelled():
                assert standing[name] in ("open", "held")
                standing[name] = "cancelled" if isinstance(event, TargetCancelled) else "met"
                del open_of[event.target]
            case TargetPaused():
                assert standing[name] == "open"
                standing[name] = "held"
            case TargetResumed():
                # A clock that ended with a merge, as spam or by a rule runs on if that is undone.
                if standing[name] == "cancelled":
                    assert event.target not in open_of
                    open_of[event.target] = name
                else:
                    assert standing[name] == "held"
                standing[name] = "open"
            case _:
                assert name in standing
    assert open_of == {}
    assert set(standing.values()) <= {"met", "cancelled"}


@settings(max_examples=250, deadline=None)
@given(_STEPS)
def test_no_breach_is_told_before_its_deadline_nor_twice(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    _, heard = live(steps)
    broken: Counter[str] = Counter()
    for now, event in heard:
        if isinstance(event, TargetBreached):
            assert event.breached_at <= now
            assert event.detected_at == now
            broken[event.target_id] += 1
        elif isinstance(event, BreachRetracted):
            broken[event.target_id] -= 1
        assert broken[event.target_id] in (0, 1)


@settings(max_examples=150, deadline=None)
@given(_STEPS)
def test_after_the_timers_have_fired_nothing_is_due_any_more(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    story, heard = live(steps)
    end = heard[-1][0] + timedelta(days=60)
    if story.state is None:
        return
    story.tick(end)
    assert story.next_due is None or story.next_due > end
    story.tick(end)
    assert story.told == ()


@settings(max_examples=150, deadline=None)
@given(_STEPS)
def test_a_clock_that_ends_in_time_has_no_breach_and_one_that_ends_late_has_one(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    story, heard = live(steps)
    broken: defaultdict[str, int] = defaultdict(int)
    for _, event in heard:
        if isinstance(event, TargetBreached):
            broken[event.target_id] += 1
        elif isinstance(event, BreachRetracted):
            broken[event.target_id] -= 1
    for target in () if story.state is None else story.state.tickets[0].targets:
        assert broken[target.target_id] == (0 if target.breach is None else 1)
        if target.status == "met" and target.due_at is not None and target.settled_at is not None:
            assert (target.breach is not None) == (target.settled_at > target.due_at)
