"""What holds for every sequence of events in a routing domain, whatever the sequence."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import roster, routing
from services.router.core.assignment import assign
from services.router.core.assignment.domain import Domain
from services.router.core.policy.policy_model import OffersModel
from tests.unit.router.stories import at, check_domain, could_take, restored, terms_of

AGENTS = ("ada", "bo", "cy", "di")
TICKETS = tuple(f"t{n}" for n in range(6))
QUEUES = ("service", "technical")
RULES = OffersModel(seconds=30, max_declines=2, away_after_misses=2)
TERMS = terms_of(RULES)
START = at("09:00")

_levels = st.integers(1, 3)
_patience = st.none() | st.sampled_from([20.0, 45.0])
_requirements = st.fixed_dictionaries(
    {
        "language": st.none() | st.sampled_from(["en", "tr"]),
        "language_level": _levels,
        "language_relax_after_seconds": _patience,
        "skills": st.lists(
            st.fixed_dictionaries(
                {
                    "skill": st.sampled_from(["x", "y"]),
                    "level": _levels,
                    "relax_after_seconds": _patience,
                }
            ),
            max_size=2,
            unique_by=lambda need: str(need["skill"]),
        ),
    }
)
_actions = st.one_of(
    st.tuples(
        st.just("ask"),
        st.sampled_from(TICKETS),
        st.fixed_dictionaries(
            {
                "queue": st.sampled_from(QUEUES),
                "priority": st.integers(1, 3),
                "cost": st.sampled_from([0, 10, 20, 60]),
                "requirement": _requirements,
                "preferred_agent_id": st.none() | st.sampled_from(AGENTS),
                "excluded_agent_ids": st.lists(st.sampled_from(AGENTS), max_size=1),
            }
        ),
    ),
    st.tuples(st.just("again"), st.sampled_from(TICKETS), st.integers(1, 3)),
    st.tuples(st.just("withdraw"), st.sampled_from(TICKETS), st.none()),
    st.tuples(
        st.sampled_from(["accept", "decline", "accept", "steal"]),
        st.sampled_from(TICKETS),
        st.none(),
    ),
    st.tuples(
        st.just("set"),
        st.sampled_from(AGENTS),
        st.fixed_dictionaries(
            {
                "queues": st.lists(st.sampled_from(QUEUES), unique=True, max_size=2),
                "skills": st.dictionaries(st.sampled_from(["x", "y"]), _levels, max_size=2),
                "languages": st.dictionaries(st.sampled_from(["en", "tr"]), _levels, max_size=2),
                "capacity": st.sampled_from([0, 10, 30, 60, 100]),
            }
        ),
    ),
    st.tuples(
        st.just("presence"),
        st.sampled_from(AGENTS),
        st.sampled_from(["available", "available", "away", "offline"]),
    ),
    st.tuples(st.just("remove"), st.sampled_from(AGENTS), st.none()),
    st.tuples(st.just("tick"), st.none(), st.none()),
)
_stories = st.lists(st.tuples(_actions, st.sampled_from([0, 0, 1, 7, 30])), max_size=40)


class World:
    """Turns drawn actions into events, and applies them."""

    def __init__(self) -> None:
        self.domain = Domain("main")
        self.now = START
        self.asked: dict[str, int] = {}
        self.fields: dict[str, Any] = {}
        self.told: list[routing.RoutingEvent] = []
        # A roster to begin with, so that short stories have somebody in them.
        for agent_id in AGENTS[:2]:
            self.apply(
                (
                    "set",
                    agent_id,
                    {
                        "queues": ["service"],
                        "skills": {"x": 2},
                        "languages": {"en": 3},
                        "capacity": 30,
                    },
                ),
                0,
            )
            self.apply(("presence", agent_id, "available"), 0)

    def apply(self, action: Any, wait: int) -> assign.Decision:
        self.now += timedelta(seconds=wait)
        decision = assign.decide(self.domain, self.event(*action), self.now, TERMS)
        self.told.extend(decision.events)
        return decision

    def event(self, what: str, who: Any, more: Any) -> assign.Event:
        match what:
            case "ask" | "again":
                if what == "ask":
                    self.asked[who] = self.asked.get(who, 0) + 1
                    self.fields[who] = more | {"entered_at": self.now}
                elif who not in self.fields:
                    return assign.DueNow()
                else:
                    self.fields[who] |= {"priority": more}
                return self.request(who)
            case "withdraw":
                return routing.WorkWithdrawn(
                    domain="main",
                    work_id=f"{who}/{self.asked.get(who, 0)}",
                    ticket_id=who,
                    conversation_id=f"c-{who}",
                    reason="solved",
                )
            case "accept" | "decline" | "steal":
                work = self.domain.live_work(who)
                kind = roster.OfferDeclined if what == "decline" else roster.OfferAccepted
                return kind(
                    domain="main",
                    agent_id="di"
                    if what == "steal"
                    else (work.agent_id if work else None) or "ada",
                    ticket_id=who,
                    reservation_id=(work.reservation_id if work else None) or "none",
                )
            case "set":
                return roster.AgentSet(domain="main", agent_id=who, **more)
            case "presence":
                return roster.PresenceSet(domain="main", agent_id=who, presence=more)
            case "remove":
                return roster.AgentRemoved(domain="main", agent_id=who)
            case _:
                return assign.DueNow()

    def request(self, who: str) -> routing.WorkRequested:
        return routing.WorkRequested.model_validate(
            self.fields[who]
            | {
                "domain": "main",
                "work_id": f"{who}/{self.asked[who]}",
                "ticket_id": who,
                "conversation_id": f"c-{who}",
            }
        )


def told_as_json(events: Any) -> list[bytes]:
    return [event.to_json() for event in events]


@settings(max_examples=300)
@given(_stories)
def test_r13_capacity_is_kept_and_nobody_fit_is_idle_after_every_event(stories: Any) -> None:
    world = World()
    for action, wait in stories:
        world.apply(action, wait)
        check_domain(world.domain, RULES)


@settings(max_examples=150)
@given(_stories)
def test_r14_a_domain_read_from_its_records_decides_as_the_one_that_wrote_them(
    stories: Any,
) -> None:
    kept, stored = World(), World()
    for action, wait in stories:
        left = kept.apply(action, wait)
        stored.domain = restored(stored.domain)
        right = stored.apply(action, wait)
        assert told_as_json(left.events) == told_as_json(right.events)
        assert left.ignored == right.ignored
    assert kept.domain.agents == stored.domain.agents
    assert kept.domain.works == stored.domain.works


@settings(max_examples=150)
@given(_stories)
def test_r6_every_ticket_has_one_holder_at_a_time_as_told(stories: Any) -> None:
    world = World()
    for action, wait in stories:
        world.apply(action, wait)
    holder: dict[str, str | None] = {}
    for event in world.told:
        match event:
            case routing.OfferMade():
                assert holder.get(event.ticket_id) is None
                holder[event.ticket_id] = event.agent_id
            case routing.TicketAssigned():
                assert holder[event.ticket_id] == event.agent_id
            case routing.TicketRequeued():
                assert holder[event.ticket_id] == event.agent_id
                holder[event.ticket_id] = None
            case routing.WorkReleased():
                assert holder.get(event.ticket_id) == event.agent_id
                holder[event.ticket_id] = None
            case _:
                pass
    for ticket_id, agent_id in holder.items():
        work = world.domain.live_work(ticket_id)
        assert (work.agent_id if work is not None else None) == agent_id


@settings(max_examples=150)
@given(_stories)
def test_nothing_due_is_left_and_no_timer_is_missing(stories: Any) -> None:
    world = World()
    for action, wait in stories:
        world.apply(action, wait)
        due_at = world.domain.next_due()
        offers = [w.expires_at for w in world.domain.works.values() if w.status == "offered"]
        assert due_at is None or due_at > world.now or due_at == _earliest(offers)
        for expires_at in offers:
            assert expires_at is not None
            assert due_at is not None
            assert world.now < expires_at
            assert due_at <= expires_at


def _earliest(instants: list[datetime | None]) -> datetime | None:
    return min((instant for instant in instants if instant is not None), default=None)


@settings(max_examples=150)
@given(_stories)
def test_r19_every_record_is_complete_and_lifting_its_rules_would_make_the_agent_fit(
    stories: Any,
) -> None:
    world = World()
    for action, wait in stories:
        decision = world.apply(action, wait)
        queued = [e for e in decision.events if isinstance(e, routing.TicketQueued)]
        for event in queued[-1:]:
            work = world.domain.live_work(event.ticket_id)
            if work is None or work.status != "waiting" or decision.events[-1] is not event:
                continue
            assert event.record is not None
            listed = {e.agent_id: e.rules for e in event.record.excluded}
            for agent_id, agent in world.domain.agents.items():
                assert not could_take(agent, work, RULES)
                assert listed[agent_id] == expected_rules(agent, work)


def expected_rules(agent: Any, work: Any) -> tuple[str, ...]:
    """Each rule, tested alone."""
    asked = work.effective
    lacking = [
        f"level:{n.skill}" if n.skill in agent.skills else f"skill:{n.skill}"
        for n in asked.skills
        if agent.skills.get(n.skill, 0) < n.level
    ]
    speaks = (
        asked.language is None or agent.languages.get(asked.language, 0) >= asked.language_level
    )
    rules = [
        ("absent", agent.presence != "available"),
        ("queue", work.queue not in agent.queues),
        ("language", not speaks),
        *((name, True) for name in lacking),
        ("capacity", agent.load + work.cost > agent.capacity),
        ("declined", work.declines.get(agent.agent_id, 0) >= RULES.max_declines),
        ("excluded", agent.agent_id in work.excluded),
    ]
    return tuple(name for name, stands in rules if stands)
