"""Random small worlds told to the engine and to the oracle, and what each of them says.

Instants collide on purpose: most events come at the same one as the event before, or when something falls due.
"""

import random
from datetime import date, timedelta
from typing import Any

from hours.calendar import Calendar
from schemas import roster, routing
from services.router.core.assignment import (
    assign,
    offer,
)
from services.router.core.assignment.domain import Domain, Switches
from services.router.core.assignment.terms import Drain, Guard, Lending, Overload, Terms, Weights
from tests.unit.router.oracle import Oracle
from tests.unit.router.stories import at, restored

START = at("09:00")
STRATEGIES = ["longest_idle", "least_loaded", "best_skilled", "thrift", "weighted"]
QUEUES = ("alpha", "beta", "gamma")
SKILLS = ("x", "y", "z")
LANGUAGES = ("en", "tr")
CHANNELS = ("mail", "chat")
COSTS = (0, 10, 20, 60)
CUSTOMERS = ("k1", "k2", "k3")
OPEN = ((0, 60_000), (90_000, 150_000), (180_000, 600_000))
"""When the calendar `duty` is open, in milliseconds from the start."""
DUTY = Calendar(
    "UTC",
    ((),) * 7,
    dates=(
        (
            date(2026, 11, 24),
            tuple((9 * 3600 + begin // 1000, 9 * 3600 + end // 1000) for begin, end in OPEN),
        ),
    ),
)
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
                risk = dice.choice([None, None, 10_000, 30_000])
                on_at = None if risk and dice.random() < 0.5 else off_at + dice.randint(1, 2)
                guards[queue] = (on_at, off_at, risk, (risk or 0) + dice.choice([0, 10_000]))
    overload = {}
    for queue in QUEUES:
        if dice.random() < 0.3:
            at = dice.randint(0, 2)
            overload[queue] = (at, dice.randint(0, at))
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
        "auto": dice.choice([(), (), (), (), ("gamma",)]),
        "parallel": dice.choice([{}, {"alpha": 2}, {"alpha": 3, "beta": 2}]),
        "interrupted_by": dice.choice([{}, {}, {"mail": ("chat",)}]),
        "overload": overload,
        "heartbeat": dice.choice([None, 20_000]),
        "return_assigned": dice.choice([None, 10_000]),
        "calendars": {"duty": OPEN},
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
        guards={
            queue: Guard(on_at, off_at, None if risk is None else risk / 1000, clear / 1000)
            for queue, (on_at, off_at, risk, clear) in told["guards"].items()
        },
        drain=None if told["drain"] is None else Drain(told["drain"][0], told["drain"][1] / 1000),
        wrap_up={channel: ms / 1000 for channel, ms in told["wrap_up"].items()},
        auto_accept=tuple(told["auto"]),
        parallel=told["parallel"],
        interrupted_by=told["interrupted_by"],
        overload={queue: Overload(*how) for queue, how in told["overload"].items()},
        heartbeat=seconds(told["heartbeat"]),
        return_assigned=seconds(told["return_assigned"]),
        calendars={"duty": DUTY},
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
            "calendar": dice.choice([None] * 12 + ["duty", "duty", "unheard of"]),
            "shifts": dice.choice(
                [()] * 12 + [((20_000, 70_000),), ((0, 40_000), (30_000, 95_000))]
            ),
            "auto": dice.random() < 0.1,
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
            "customer": dice.choice([None, None, *CUSTOMERS]),
            "patience": dice.choice([0, 30_000, 30_000]),
            "half_life": dice.choice([0, 20_000]),
            "transfer": dice.choice([""] * 6 + ["direct", "forced"]),
        }
        if event["preferred"] is None and dice.random() < 0.9:
            event["transfer"] = ""
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
            ["ask", "again", "withdraw", "answer", "presence", "set", "remove", "beat", "tick"],
            [32, 8, 12, 28, 14, 6, 1, 6, 4],
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
                who, token = dice.choice([(work["agent"], work["token"]), *work["others"]])
                who = who or agent
                if dice.random() < 0.15:
                    token = (work["name"], dice.randint(1, 2))
                if dice.random() < 0.1:
                    who = agent
                what = dice.choice(["accept", "accept" if work["others"] else "decline", "decline"])
                return {"what": what, "ticket": work["ticket"], "agent": who, "token": token}
            case "presence":
                presence = dice.choice(["available", "available", "away", "offline"])
                return {"what": "presence", "agent": agent, "presence": presence}
            case "set":
                return self.set(agent)
            case "remove":
                return {"what": "remove", "agent": agent}
            case "beat":
                return {"what": "beat", "agent": agent}
            case _:
                return {"what": "tick"}


def instant(ms: int | None) -> Any:
    return None if ms is None else START + timedelta(milliseconds=ms)


def milliseconds(at: Any) -> int:
    since: timedelta = at - START
    return round(since.total_seconds() * 1000)


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
                calendar=told["calendar"],
                shifts=tuple(
                    roster.Shift(starts_at=instant(begin), ends_at=instant(end))
                    for begin, end in told["shifts"]
                ),
                auto_accept=told["auto"],
            )
        case "presence":
            return roster.PresenceSet(
                domain="main", agent_id=told["agent"], presence=told["presence"]
            )
        case "remove":
            return roster.AgentRemoved(domain="main", agent_id=told["agent"])
        case "beat":
            return roster.AgentHeartbeat(domain="main", agent_id=told["agent"])
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
        customer_id=told["customer"],
        known_patience_seconds=told["patience"] / 1000,
        known_half_life_seconds=told["half_life"] / 1000,
        transfer=told["transfer"],
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
                    (record.known_agent, record.known_from, record.known_agent_rules),
                ),
            )
        case routing.TicketQueued(record=record):
            assert record is not None
            excluded = tuple((e.agent_id, e.rules) for e in record.excluded)
            known = (record.known_agent, record.known_from, record.known_agent_rules)
            return ("queued", event.ticket_id, event.is_matchable, excluded, known)
        case routing.TicketAssigned():
            return ("assigned", event.ticket_id, event.agent_id, event.how, event.overfull)
        case routing.OfferWithdrawn():
            return ("withdrawn", event.ticket_id, event.agent_id, event.reason, event.declines)
        case routing.TransferRefused():
            assert event.reason == event.rules[0]
            return ("transfer_refused", event.ticket_id, event.agent_id, event.rules)
        case routing.QueueOverloaded():
            return ("overloaded", event.ticket_id, event.length)
        case routing.TicketRequeued():
            return ("requeued", event.ticket_id, event.agent_id, event.reason, event.declines)
        case routing.WorkReleased():
            return ("released", event.ticket_id, event.agent_id, event.reason)
        case routing.RequirementRelaxed():
            return ("relaxed", event.ticket_id, event.relaxed)
        case routing.AssignmentExhausted():
            return ("exhausted", event.ticket_id)
        case routing.OfferAnswerRefused():
            won_at = None if event.winner_at is None else milliseconds(event.winner_at)
            return ("refused", event.ticket_id, event.reason, event.winner_id, won_at)
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
        if restarts:
            domain = restored(domain)
            oracle.restarts()
        expected, expected_ignored = oracle.hears(told, world.now)
        oracle.remember_hope()
        said = assign.decide(domain, event_from(told), instant(world.now), terms)
        got = [plain(event) for event in said.events]
        if got != expected or said.ignored != expected_ignored:
            raise Differs(
                f"seed {seed}, event {n} at {world.now}: {told}\n"
                f"engine {said.ignored}: {got}\noracle {expected_ignored}: {expected}"
            )
        if domain.switches != Switches(
            oracle.spilling, oracle.guarding, oracle.crowded, oracle.at_risk, oracle.overloaded
        ):
            raise Differs(f"seed {seed}, event {n}: switches {domain.switches}")
        n_offers += sum(line[0] == "offered" for line in expected)
    return n_offers
