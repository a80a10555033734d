"""Random small worlds told to the engine and to the oracle, and what each of them says.

Instants collide on purpose: most events come at the same one as the event before, or when something falls due.
"""

import random
from datetime import timedelta
from typing import Any

from schemas import roster, routing
from services.router.core import assign, offer
from services.router.core.domain import Domain
from services.router.core.terms import Drain, Guard, Lending, Terms, Weights
from tests.unit.router.oracle import Oracle
from tests.unit.router.stories import at, restored

START = at("09:00")
STRATEGIES = ["longest_idle", "least_loaded", "best_skilled", "thrift", "weighted"]
QUEUES = ("alpha", "beta", "gamma")
SKILLS = ("x", "y", "z")
LANGUAGES = ("en", "tr")
CHANNELS = ("mail", "chat")
COSTS = (0, 10, 20, 60)
SHAPE = (
    "queue", "cost", "channel", "skills", "language", "forbidden", "steps", "moves_on_miss",
)  # fmt: skip


def make_terms(dice: random.Random) -> dict[str, Any]:
    lending: dict[str, Any] = {}
    guards: dict[str, Any] = {}
    if dice.random() < 0.7:
        for queue in dice.sample(QUEUES, dice.randint(1, 2)):
            close_at = dice.randint(0, 1)
            lenders = tuple(q for q in QUEUES if q != queue and dice.random() < 0.8) or (
                next(q for q in QUEUES if q != queue),
            )
            lending[queue] = (close_at + dice.randint(1, 3), close_at, lenders)
        for queue in QUEUES:
            if dice.random() < 0.5:
                off_at = dice.randint(0, 1)
                guards[queue] = (off_at + dice.randint(1, 2), off_at)
    return {
        "offer": 30_000,
        "max_declines": dice.choice([1, 1, 2]),
        "away_after_misses": dice.choice([None, 2]),
        "strategy": dice.choice(STRATEGIES),
        "strategies": {"beta": dice.choice(STRATEGIES)},
        "weights": (dice.randint(0, 3), dice.randint(0, 3), dice.randint(0, 3)),
        "aging": dice.choice([{}, {3: 40_000}, {2: 30_000, 3: 60_000}]),
        "lending": lending,
        "guards": guards,
        "drain": dice.choice([None, (60, 20_000), (20, 0)]),
        "wrap_up": dice.choice([{}, {"chat": 20_000}]),
    }


def terms_from(told: dict[str, Any]) -> Terms:
    return Terms(
        offer_seconds=told["offer"] / 1000,
        max_declines=told["max_declines"],
        away_after_misses=told["away_after_misses"],
        strategy=told["strategy"],
        strategies=told["strategies"],
        weights=Weights(*told["weights"]),
        aging={priority: ms / 1000 for priority, ms in told["aging"].items()},
        lending={queue: Lending(*how) for queue, how in told["lending"].items()},
        guards={queue: Guard(*how) for queue, how in told["guards"].items()},
        drain=None if told["drain"] is None else Drain(told["drain"][0], told["drain"][1] / 1000),
        wrap_up={channel: ms / 1000 for channel, ms in told["wrap_up"].items()},
    )


class World:
    """A world of a seed: its terms and its events, one after the other."""

    def __init__(self, seed: int, n_agents: int | None = None) -> None:
        self.dice = dice = random.Random(seed)
        self.terms = make_terms(dice)
        self.agents = [f"a{n}" for n in dice.sample(range(90), n_agents or dice.randint(1, 9))]
        self.tickets = [f"t{n}" for n in dice.sample(range(90), dice.randint(3, 12))]
        self.n_asked = dict.fromkeys(self.tickets, 0)
        self.asked: dict[str, dict[str, Any]] = {}
        self.now = 0
        self.shapes: list[dict[str, Any]] = []
        self.patience = [None, None, 10_000, 20_000]

    def wait(self) -> int:
        self.now += self.dice.choice([0, 0, 0, 0, 1000, 5000, 10_000, 10_000, 20_000, 30_000])
        return self.now

    def first_events(self) -> list[dict[str, Any]]:
        """The roster to begin with; most of it there."""
        events: list[dict[str, Any]] = []
        for agent in self.agents:
            events.append(self.set(agent))
            if self.dice.random() < 0.8:
                events.append({"what": "presence", "agent": agent, "presence": "available"})
        return events

    def levels(self, names: tuple[str, ...], odds: float) -> dict[str, int]:
        return {name: self.dice.choice([2, 4, 5, 9]) for name in names if self.dice.random() < odds}

    def set(self, agent: str) -> dict[str, Any]:
        dice = self.dice
        return {
            "what": "set",
            "agent": agent,
            "queues": tuple(q for q in QUEUES if dice.random() < 0.5),
            "skills": self.levels(SKILLS, 0.6),
            "languages": self.levels(LANGUAGES, 0.8),
            "capacity": dice.choice([0, 20, 60, 60, 100]),
            "limits": dice.choice([{}, {}, {}, {"mail": 1, "chat": 2}, {"chat": 1}]),
        }

    def step(self) -> dict[str, Any]:
        dice = self.dice
        step: dict[str, Any] = {
            "after": dice.choice([10_000, 20_000, 30_000]),
            "share": dice.choice([None, None, 0.5]),
            "levels": {},
            "drop": (),
            "language": dice.random() < 0.2,
            "queues": (),
        }
        match dice.randint(0, 2):
            case 0:
                step["levels"] = {dice.choice(SKILLS): dice.choice([1, 2])}
            case 1:
                step["drop"] = (dice.choice(SKILLS),)
            case _:
                step["queues"] = (dice.choice(QUEUES),)
        if step["share"] is None and dice.random() < 0.1:
            step["after"] = None
        return step

    def ask(self, ticket: str) -> dict[str, Any]:
        dice = self.dice
        self.n_asked[ticket] += 1
        # Often the same, so that priority and target tie and only ids are left to decide.
        entered = dice.choice([self.now, self.now, self.now, self.now - 10_000, -60_000, -60_000])
        queue = dice.choice(QUEUES)
        steps = [self.step() for _ in range(dice.choice([0, 0, 1, 2]))]
        for step in steps:
            step["queues"] = tuple(q for q in step["queues"] if q != queue)
        event: dict[str, Any] = {
            "what": "ask",
            "ticket": ticket,
            "work": f"{ticket}/{self.n_asked[ticket]}",
            "queue": queue,
            "priority": dice.choice([1, 2, 3, 3]),
            "cost": dice.choice(COSTS),
            "channel": dice.choice(CHANNELS),
            "entered": entered,
            "since": dice.choice([entered, entered, self.now]),
            "due": dice.choice([None, None, entered + 40_000, self.now + 20_000]),
            "skills": tuple(
                (skill, dice.choice([1, 4, 5]), dice.choice(self.patience))
                for skill in SKILLS
                if dice.random() < 0.35
            ),
            "language": dice.choice(
                [(None, 1, None), ("en", 2, dice.choice(self.patience)), ("tr", 4, None)]
            ),
            "forbidden": dice.choice([(), (), (), (dice.choice(SKILLS),)]),
            "steps": steps,
            "moves_on_miss": dice.random() < 0.4,
            "preferred": dice.choice([None, None, dice.choice(self.agents), "nobody"]),
            "hold": dice.choice([0, 10_000, 40_000]),
            "excluded": dice.choice([(), (), (), (dice.choice(self.agents),)]),
        }
        wanted = {skill for skill, *_ in event["skills"]}
        event["forbidden"] = tuple(s for s in event["forbidden"] if s not in wanted)
        if self.shapes and dice.random() < 0.6:
            # Work that asks the same lies behind one another.
            event.update(dice.choice(self.shapes))
        self.shapes.append({name: event[name] for name in SHAPE})
        self.asked[ticket] = event
        return event

    def next(self, works: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The next event, given the oracle's works, so that answers are mostly to offers that stand."""
        dice = self.dice
        self.wait()
        ticket, agent = dice.choice(self.tickets), dice.choice(self.agents)
        live = [w for w in works.values() if w["status"] != "ended"]
        match dice.choices(
            ["ask", "again", "withdraw", "answer", "presence", "set", "remove", "tick"],
            [30, 8, 12, 26, 14, 7, 1, 6],
        )[0]:
            case "ask":
                return self.ask(ticket)
            case "again" if ticket in self.asked:
                again = dict(self.asked[ticket])
                again["priority"] = dice.choice([1, 2, 3])
                again["due"] = dice.choice([again["due"], again["due"], self.now + 10_000])
                self.asked[ticket] = again
                return again
            case "withdraw":
                name = dice.choice(live)["name"] if live else "none/1"
                return {"what": "withdraw", "ticket": name.split("/")[0], "work": name}
            case "answer" if live:
                offered = [w for w in live if w["status"] == "offered"] or live
                work = dice.choice(offered)
                token, who = work["token"], work["agent"] or agent
                if dice.random() < 0.15:
                    token = (work["name"], dice.randint(1, 2))
                if dice.random() < 0.1:
                    who = agent
                what = dice.choice(["accept", "decline", "decline"])
                return {"what": what, "ticket": work["ticket"], "agent": who, "token": token}
            case "presence":
                presence = dice.choice(["available", "available", "away", "offline"])
                return {"what": "presence", "agent": agent, "presence": presence}
            case "set":
                return self.set(agent)
            case "remove":
                return {"what": "remove", "agent": agent}
            case _:
                return {"what": "tick"}


def instant(ms: int | None) -> Any:
    return None if ms is None else START + timedelta(milliseconds=ms)


def seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


def event_from(told: dict[str, Any]) -> assign.Event:
    match told["what"]:
        case "ask":
            return _request(told)
        case "withdraw":
            return routing.WorkWithdrawn(
                domain="main",
                work_id=told["work"],
                ticket_id=told["ticket"],
                conversation_id="c",
                reason="solved",
            )
        case "accept" | "decline":
            kind = roster.OfferAccepted if told["what"] == "accept" else roster.OfferDeclined
            token = told["token"]
            return kind(
                domain="main",
                agent_id=told["agent"],
                ticket_id=told["ticket"],
                reservation_id=offer.reservation_id(*token) if token else "none",
            )
        case "set":
            return roster.AgentSet(
                domain="main",
                agent_id=told["agent"],
                queues=told["queues"],
                skills=told["skills"],
                languages=told["languages"],
                capacity=told["capacity"],
                channel_limits=told["limits"],
            )
        case "presence":
            return roster.PresenceSet(
                domain="main", agent_id=told["agent"], presence=told["presence"]
            )
        case "remove":
            return roster.AgentRemoved(domain="main", agent_id=told["agent"])
        case _:
            return assign.DueNow()


def _request(told: dict[str, Any]) -> routing.WorkRequested:
    language, level, after = told["language"]
    return routing.WorkRequested(
        domain="main",
        work_id=told["work"],
        ticket_id=told["ticket"],
        conversation_id="c",
        queue=told["queue"],
        priority=told["priority"],
        cost=told["cost"],
        channel=told["channel"],
        entered_at=instant(told["entered"]),
        relax_from=instant(told["since"]),
        due_at=instant(told["due"]),
        preferred_agent_id=told["preferred"],
        hold_seconds=seconds(told["hold"]),
        excluded_agent_ids=told["excluded"],
        requirement=routing.Requirement(
            language=language,
            language_level=level,
            language_relax_after_seconds=seconds(after),
            skills=tuple(
                routing.SkillNeed(skill=skill, level=level, relax_after_seconds=seconds(after))
                for skill, level, after in told["skills"]
            ),
            forbidden=told["forbidden"],
            steps=tuple(
                routing.RelaxStep(
                    after_seconds=seconds(step["after"]),
                    share_of_time_left=step["share"],
                    levels=step["levels"],
                    drop=step["drop"],
                    language=step["language"],
                    queues=step["queues"],
                )
                for step in told["steps"]
            ),
            moves_on_miss=told["moves_on_miss"],
        ),
    )


def plain(event: routing.RoutingEvent) -> tuple[Any, ...]:
    """An event of the engine in the oracle's words."""
    match event:
        case routing.OfferMade(record=record):
            assert record is not None
            return (
                "offered",
                event.ticket_id,
                event.agent_id,
                (
                    record.candidates,
                    record.chosen_by,
                    record.via,
                    record.scores,
                    record.relaxed,
                    tuple((e.agent_id, e.rules) for e in record.excluded),
                ),
            )
        case routing.TicketQueued(record=record):
            assert record is not None
            excluded = tuple((e.agent_id, e.rules) for e in record.excluded)
            return ("queued", event.ticket_id, event.is_matchable, excluded)
        case routing.TicketAssigned():
            return ("assigned", event.ticket_id, event.agent_id)
        case routing.TicketRequeued():
            return ("requeued", event.ticket_id, event.agent_id, event.reason, event.declines)
        case routing.WorkReleased():
            return ("released", event.ticket_id, event.agent_id, event.reason)
        case routing.RequirementRelaxed():
            return ("relaxed", event.ticket_id, event.relaxed)
        case routing.AssignmentExhausted():
            return ("exhausted", event.ticket_id)
        case routing.OfferAnswerRefused():
            return ("refused", event.ticket_id, event.reason, event.winner_id)
        case _:
            raise TypeError(event.TYPE)


class Differs(AssertionError):
    """The engine says something else than the oracle."""


def duel(seed: int, n_events: int, *, restarts: bool = False, n_agents: int | None = None) -> int:
    """Tell a world to both; return how many offers were made.

    Raises:
        Differs: they do not say the same.
    """
    world = World(seed, n_agents)
    oracle, domain = Oracle(world.terms), Domain("main")
    terms = terms_from(world.terms)
    n_offers = 0
    first = world.first_events()
    for n in range(len(first) + n_events):
        told = first[n] if n < len(first) else world.next(oracle.works)
        expected, expected_ignored = oracle.hears(told, world.now)
        oracle.remember_hope()
        if restarts:
            domain = restored(domain)
        said = assign.decide(domain, event_from(told), instant(world.now), terms)
        got = [plain(event) for event in said.events]
        if got != expected or said.ignored != expected_ignored:
            raise Differs(
                f"seed {seed}, event {n} at {world.now}: {told}\n"
                f"engine {said.ignored}: {got}\noracle {expected_ignored}: {expected}"
            )
        if (domain.switches.spilling, domain.switches.guarding) != (
            oracle.spilling,
            oracle.guarding,
        ):
            raise Differs(f"seed {seed}, event {n}: switches {domain.switches}")
        n_offers += sum(line[0] == "offered" for line in expected)
    return n_offers
