"""Who gets what, worked out by looking at everybody and everything each time: dicts, tuples, loops, and no memory of its own.

Written apart from the engine and importing nothing of it, so that what both say is right or both were misunderstood in the
same way. Instants are whole milliseconds. `Oracle.hears` takes an event as a dict and returns what is told as tuples.
"""

from typing import Any

KEPT = 15 * 60_000
DAY = 86_400_000
NEVER = 10**15
HOURS = ("calendar", "shifts")

Told = tuple[Any, ...]


class Oracle:
    def __init__(self, terms: dict[str, Any]) -> None:
        self.terms = terms
        self.agents: dict[str, dict[str, Any]] = {}
        self.works: dict[str, dict[str, Any]] = {}
        self.ended: list[str] = []
        self.spilling: set[str] = set()
        self.guarding: set[str] = set()
        self.crowded: set[str] = set()
        self.at_risk: set[str] = set()
        self.overloaded: set[str] = set()
        self.known: dict[str, tuple[str, int]] = {}
        self.is_fresh = False
        self.kept: tuple[str, str] | None = None
        """(work, agent): the agent is kept free for the work."""
        self.hopeless: dict[str, bool] = {}
        self.told: list[Told] = []
        self.now = 0

    # ----------------------------------------------------------------------------------------- events

    def hears(self, event: dict[str, Any], now: int) -> tuple[list[Told], str | None]:
        self.now, self.told = now, []
        if self.is_fresh:
            for agent_id in self.agents:
                self.hear(agent_id)
        self.is_fresh = False
        self.settle()
        self.do_due()
        ignored = getattr(self, "on_" + event["what"])(event)
        if event["what"] == "tick":
            ignored = None if self.told else "nothing_due"
        return self.told, ignored

    def restarts(self) -> None:
        """All but the records is forgotten: everybody has a whole period to be heard again."""
        self.is_fresh = True

    def on_tick(self, event: dict[str, Any]) -> str | None:
        return None

    def do_due(self) -> None:
        while True:
            due = []
            for name, work in self.works.items():
                if work["status"] == "offered":
                    due.append((work["expires"], "offer", name))
                if work["status"] == "waiting":
                    due.append((self.next_of(work), "waiting", name))
                if work["wrap_until"] is not None:
                    due.append((work["wrap_until"], "wrap_up", name))
            for agent_id, agent in self.agents.items():
                if agent["turns_at"] is not None:
                    due.append((agent["turns_at"], "shift", agent_id))
                if agent["silent_at"] is not None:
                    due.append((agent["silent_at"], "silence", agent_id))
                after, vanished = self.terms["return_assigned"], agent["vanished"]
                holds_any = self.holding(agent_id, ("offered", "assigned"))
                if vanished is not None and after is not None and holds_any:
                    due.append((vanished + after, "return", agent_id))
            due.sort()
            if not due or due[0][0] > self.now:
                return
            _, kind, name = due[0]
            if kind == "offer":
                self.missed(self.works[name])
            elif kind == "wrap_up":
                self.works[name]["wrap_until"] = None
            elif kind == "waiting":
                self.waited(self.works[name])
            elif kind == "shift":
                self.turn(name)
            elif kind == "silence" and self.now - due[0][0] >= self.terms["heartbeat"]:
                self.hear(name)
            elif kind == "silence":
                agent = self.agents[name]
                agent["presence"], agent["vanished"], agent["beats"] = "away", self.now, False
                agent["silent_at"] = None
                self.return_offers(name, "agent_vanished")
                self.review(name)
            else:
                for work in self.holding(name, ("assigned",)):
                    self.requeue(work, name, "agent_vanished")
            self.settle()

    def turn(self, agent_id: str) -> None:
        agent = self.agents[agent_id]
        before = agent["on_shift"]
        agent["on_shift"], agent["turns_at"] = self.duty(agent)
        if before and not agent["on_shift"]:
            self.return_offers(agent_id, "shift_ended")
            self.review(agent_id)

    def duty(self, agent: dict[str, Any]) -> tuple[bool, int | None]:
        """Whether they are on duty now, and when that changes: looked for at every beginning and end there is."""
        windows = list(agent["shifts"])
        if agent["calendar"] is None and not windows:
            return True, None
        windows += self.terms["calendars"].get(agent["calendar"], [])

        def is_on(at: int) -> bool:
            return any(begin <= at < end for begin, end in windows)

        for at in sorted({at for window in windows for at in window}):
            if at > self.now and is_on(at) != is_on(self.now):
                return is_on(self.now), at
        return is_on(self.now), None

    def is_there(self, agent_id: str) -> bool:
        agent = self.agents[agent_id]
        return bool(agent["presence"] == "available" and agent["on_shift"])

    def hear(self, agent_id: str) -> None:
        agent, period = self.agents[agent_id], self.terms["heartbeat"]
        if period is None or not agent["beats"] or agent["presence"] != "available":
            return
        part = period // 4
        at = self.now + period
        while at % part:
            at += 1
        agent["silent_at"] = at

    def heard(self, agent_id: str) -> None:
        agent = self.agents[agent_id]
        if agent["vanished"] is not None:
            agent["presence"], agent["vanished"], agent["misses"] = "available", None, 0
            self.settle()
        self.hear(agent_id)

    def on_beat(self, event: dict[str, Any]) -> str | None:
        agent = self.agents.get(event["agent"])
        if agent is None:
            return "agent_unknown"
        if self.terms["heartbeat"] is None:
            return "heartbeats_unused"
        if agent["presence"] == "offline":
            return "agent_offline"
        agent["beats"] = True
        self.heard(event["agent"])
        return None

    def missed(self, work: dict[str, Any]) -> None:
        for agent_id, _ in leases(work):
            agent = self.agents[agent_id]
            agent["misses"] += 1
            limit = self.terms["away_after_misses"]
            if limit is not None and agent["misses"] >= limit:
                agent["presence"], agent["silent_at"] = "away", None
            self.requeue(work, agent_id, "offer_expired", counts=True)
            if not self.is_there(agent_id):
                self.return_offers(agent_id)
                self.review(agent_id)

    def waited(self, work: dict[str, Any]) -> None:
        self.relax(work)
        if work["hold_until"] is not None and work["hold_until"] <= self.now:
            work["hold_until"] = None
        aging = self.terms["aging"].get(work["priority"])
        if work["promoted"] is None and aging is not None and work["entered"] + aging <= self.now:
            work["promoted"] = work["entered"] + aging
        drain = self.terms["drain"]
        if drain is not None and work["cost"] >= drain[0] and work["since"] + drain[1] <= self.now:
            work["ripe"] = True

    def next_of(self, work: dict[str, Any]) -> int:
        found = [NEVER]
        if work["hold_until"] is not None:
            found.append(work["hold_until"])
        for n, at in enumerate(step_times(work)):
            if n == work["step"] and at is not None:
                found.append(at)
        gone = set(work["relaxed"])
        for skill, _, after in work["skills"]:
            if after is not None and skill not in gone:
                found.append(work["since"] + after)
        language, _, after = work["language"]
        if language is not None and after is not None and "language" not in gone:
            found.append(work["since"] + after)
        aging = self.terms["aging"].get(work["priority"])
        if work["promoted"] is None and aging is not None:
            found.append(work["entered"] + aging)
        drain = self.terms["drain"]
        if drain is not None and not work["ripe"] and work["cost"] >= drain[0]:
            found.append(work["since"] + drain[1])
        return min(found)

    def on_ask(self, event: dict[str, Any]) -> str | None:
        live = self.live(event["ticket"])
        if live is not None and live["name"] == event["work"]:
            due = event["due"] if event["due"] is not None else live["due"]
            if (live["priority"], live["due"]) == (event["priority"], due):
                return "work_repeated"
            live["priority"], live["due"] = event["priority"], due
            if live["queue"] in self.terms["guards"]:
                self.settle()
            return None
        if event["work"] in self.works:
            return "work_ended"
        if live is not None:
            self.end(live, "replaced")
        work = {
            **event,
            "name": event["work"],
            "status": "waiting",
            "agent": None,
            "attempts": 0,
            "token": None,
            "declined_token": None,
            "declines": {},
            "relaxed": (),
            "step": 0,
            "promoted": None,
            "ripe": False,
            "wrap_until": None,
            "expires": None,
            "is_exhausted": False,
            "untold": True,
            "hold_until": None,
            "others": [],
            "known_from": "" if event["preferred"] is None else "request",
            "assigned_at": None,
            "overfull": False,
        }
        if event["preferred"] is None and event["customer"] is not None and event["patience"]:
            known = self.known.get(event["customer"])
            if known is not None:
                half, age = event["half_life"], self.now - known[1]
                left = event["patience"] * (0.5 ** (age / half) if half else 1)
                work["preferred"], work["hold"] = known[0], max(1000, round(left))
                work["known_from"] = "customer"
        self.works[work["name"]] = work
        work["step"] = sum(1 for at in step_times(work) if at is not None and at <= self.now)
        work["relaxed"] = relaxed(work, self.now)
        if work["hold"] and work["preferred"] is not None:
            work["hold_until"] = work["since"] + work["hold"]
            if not self.hold_stands(work):
                work["hold_until"] = None
        if event["transfer"]:
            self.transfer(work, event["transfer"])
        self.settle()
        return None

    def transfer(self, work: dict[str, Any], how: str) -> None:
        agent_id = work["preferred"] or "nobody"
        rules = self.rules(work, agent_id)
        stands = [
            rule
            for rule in rules
            if rule in ("unknown", "absent", "off_shift", "declined", "excluded")
            or (how == "direct" and rule in ("capacity", "wrap_up", "channel", "draining"))
        ]
        if stands:
            self.told.append(("transfer_refused", work["ticket"], agent_id, tuple(stands)))
            return
        work["overfull"] = any(rule in ("capacity", "wrap_up", "channel") for rule in rules)
        record = (
            (agent_id,),
            "transfer",
            "home",
            (),
            work["relaxed"],
            self.excluded(work, [agent_id], home_first=True),
            self.known_of(work, [agent_id], home_first=True),
        )
        self.reserve(work, agent_id, record)
        self.assign(work, agent_id, how)

    def on_withdraw(self, event: dict[str, Any]) -> str | None:
        work = self.works.get(event["work"])
        if work is None:
            return "work_unknown"
        if work["status"] == "ended":
            return "work_ended"
        self.end(work, "solved")
        self.settle()
        return None

    def end(self, work: dict[str, Any], reason: str) -> None:
        if self.kept is not None and self.kept[0] == work["name"]:
            self.kept = None
        agent_id, others = work["agent"], work["others"]
        wrap = self.terms["wrap_up"].get(work["channel"], 0)
        if work["status"] == "assigned" and wrap:
            work["wrap_until"] = self.now + wrap
        work["status"], work["ended_at"], work["untold"] = "ended", self.now, False
        work["others"] = []
        self.ended.append(work["name"])
        while self.ended:
            oldest = self.works[self.ended[0]]
            if oldest["ended_at"] + KEPT > self.now or oldest["wrap_until"] is not None:
                break
            del self.works[self.ended.pop(0)]
        for other, _ in others:
            self.tell_withdrawn(work, other, "work_ended")
        self.told.append(("released", work["ticket"], agent_id, reason))

    def on_set(self, event: dict[str, Any]) -> str | None:
        told = {
            k: event[k]
            for k in (
                "queues", "skills", "languages", "capacity", "limits", "calendar", "shifts", "auto",
            )
        }  # fmt: skip
        agent = self.agents.get(event["agent"])
        if agent is not None and all(agent[k] == told[k] for k in told):
            return "agent_unchanged"
        if agent is None:
            agent = {"presence": "offline", "last": -1, "misses": 0, "on_shift": True}
            agent |= {"turns_at": None, "silent_at": None, "vanished": None, "beats": False}
            self.agents[event["agent"]] = agent
        agent.update(told | {k: agent.get(k, told[k]) for k in told if k not in HOURS})
        self.turn(event["agent"])
        agent.update(told)
        self.review(event["agent"])
        self.settle()
        self.limbo()
        return None

    def on_remove(self, event: dict[str, Any]) -> str | None:
        agent = self.agents.get(event["agent"])
        if agent is None:
            return "agent_unknown"
        agent["presence"] = "offline"
        self.review(event["agent"])
        for work in self.holding(event["agent"], ("offered", "assigned")):
            self.requeue(work, event["agent"], "agent_removed")
        for work in self.works.values():
            if work["agent"] == event["agent"]:
                work["wrap_until"] = None
        del self.agents[event["agent"]]
        self.settle()
        self.limbo()
        return None

    def on_presence(self, event: dict[str, Any]) -> str | None:
        agent = self.agents.get(event["agent"])
        if agent is None:
            return "agent_unknown"
        if agent["presence"] == event["presence"] and agent["vanished"] is None:
            self.hear(event["agent"])
            return "presence_unchanged"
        agent["presence"], agent["misses"] = event["presence"], 0
        agent["vanished"] = agent["silent_at"] = None
        if event["presence"] == "offline":
            agent["beats"] = False
        self.hear(event["agent"])
        if agent["presence"] != "available":
            self.return_offers(event["agent"])
            self.review(event["agent"])
        self.settle()
        return None

    def on_accept(self, event: dict[str, Any]) -> str | None:
        return self.answer(event, accepts=True)

    def on_decline(self, event: dict[str, Any]) -> str | None:
        return self.answer(event, accepts=False)

    def answer(self, event: dict[str, Any], accepts: bool) -> str | None:
        work = self.live(event["ticket"])
        if work is None:
            names = [n for n in self.ended if self.works[n]["ticket"] == event["ticket"]]
            work = self.works[names[-1]] if names else None
        if work is None:
            return "ticket_unknown"
        if event["agent"] in self.agents:
            self.heard(event["agent"])
        asked = {work["token"]: work["agent"]}
        asked |= {token: agent_id for agent_id, token in work["others"]}
        is_current = event["token"] in asked
        is_theirs = is_current and event["agent"] == asked[event["token"]]
        if work["status"] == "offered" and is_current:
            if not is_theirs:
                self.told.append(("refused", work["ticket"], "not_yours", None, None))
            elif accepts:
                self.assign(work, event["agent"], "accepted")
                self.settle()
            else:
                work["declined_token"] = event["token"]
                self.agents[event["agent"]]["misses"] = 0
                self.requeue(work, event["agent"], "offer_declined", counts=True)
                self.settle()
            return None
        if accepts and work["status"] == "assigned" and is_current and is_theirs:
            return "answer_repeated"
        if not accepts and event["token"] is not None and work["declined_token"] == event["token"]:
            return "answer_repeated"
        is_won = work["status"] == "assigned"
        winner = (work["agent"], work["assigned_at"]) if is_won else (None, None)
        if work["status"] == "ended":
            reason = "ticket_unknown"
        elif event["token"] in [(work["name"], n + 1) for n in range(work["attempts"])]:
            reason = "reservation_expired"
        else:
            reason = "reservation_unknown"
        self.told.append(("refused", work["ticket"], reason, *winner))
        return None

    def assign(self, work: dict[str, Any], agent_id: str, how: str) -> None:
        losers = [other for other, _ in leases(work) if other != agent_id]
        work["token"] = next(token for other, token in leases(work) if other == agent_id)
        work["status"], work["expires"], work["agent"] = "assigned", None, agent_id
        work["others"], work["assigned_at"] = [], self.now
        self.agents[agent_id]["misses"] = 0
        if work["customer"] is not None:
            self.known[work["customer"]] = (agent_id, self.now)
        self.told.append(("assigned", work["ticket"], agent_id, how, work["overfull"]))
        for other in losers:
            self.tell_withdrawn(work, other, "taken_by_other")

    def tell_withdrawn(self, work: dict[str, Any], agent_id: str, reason: str) -> None:
        n = work["declines"].get(agent_id, 0)
        self.told.append(("withdrawn", work["ticket"], agent_id, reason, n))

    # ------------------------------------------------------------------------------------------ state

    def live(self, ticket: str) -> dict[str, Any] | None:
        found = [w for w in self.works.values() if w["ticket"] == ticket and w["status"] != "ended"]
        assert len(found) <= 1
        return found[0] if found else None

    def waiting(self) -> list[dict[str, Any]]:
        return sorted((w for w in self.works.values() if w["status"] == "waiting"), key=place)

    def holding(self, agent_id: str, statuses: tuple[str, ...]) -> list[dict[str, Any]]:
        return sorted(
            (
                w
                for w in self.works.values()
                if w["status"] in statuses and agent_id in dict(leases(w))
            ),
            key=place,
        )

    def load(self, agent_id: str) -> int:
        """What they carry that nothing else of theirs interrupts."""
        held = self.holding(agent_id, ("offered", "assigned"))
        channels = {w["channel"] for w in held}
        return sum(
            w["cost"]
            for w in held
            if not channels & set(self.terms["interrupted_by"].get(w["channel"], ()))
        )

    def load_for(self, agent_id: str, channel: str) -> int:
        """What they carry that a ticket of a channel does not interrupt."""
        return sum(
            w["cost"]
            for w in self.holding(agent_id, ("offered", "assigned"))
            if channel not in self.terms["interrupted_by"].get(w["channel"], ())
        )

    def wrapped(self, agent_id: str) -> int:
        return sum(
            w["cost"]
            for w in self.works.values()
            if w["agent"] == agent_id and w["wrap_until"] is not None
        )

    def requeue(
        self, work: dict[str, Any], agent_id: str, reason: str, counts: bool = False
    ) -> None:
        """An agent has the work no more; where nobody else is asked, it waits again."""
        if counts:
            work["declines"][agent_id] = work["declines"].get(agent_id, 0) + 1
        left = [lease for lease in leases(work) if lease[0] != agent_id]
        if left:
            (work["agent"], work["token"]), *work["others"] = left
            self.tell_withdrawn(work, agent_id, reason)
            return
        work["assigned_at"], work["overfull"] = None, False
        work["status"], work["agent"], work["token"], work["expires"] = "waiting", None, None, None
        if counts and work["moves_on_miss"]:
            passed = sum(1 for at in step_times(work) if at is not None and at <= self.now)
            work["step"] = min(max(work["step"], passed) + 1, len(work["steps"]))
        before = work["relaxed"]
        passed = sum(1 for at in step_times(work) if at is not None and at <= self.now)
        work["step"] = max(work["step"], passed)
        work["relaxed"] = relaxed(work, self.now)
        if work["hold_until"] is not None and not self.hold_stands(work):
            work["hold_until"] = None
        n = work["declines"].get(agent_id, 0)
        self.told.append(("requeued", work["ticket"], agent_id, reason, n))
        self.tell_relaxed(work, before)
        self.look_for_exhaustion(work)

    def relax(self, work: dict[str, Any]) -> None:
        before = work["relaxed"]
        passed = sum(1 for at in step_times(work) if at is not None and at <= self.now)
        work["step"] = max(work["step"], passed)
        work["relaxed"] = relaxed(work, self.now)
        self.tell_relaxed(work, before)

    def tell_relaxed(self, work: dict[str, Any], before: tuple[str, ...]) -> None:
        fresh = tuple(name for name in work["relaxed"] if name not in before)
        if fresh:
            self.told.append(("relaxed", work["ticket"], fresh))

    def return_offers(self, agent_id: str, reason: str = "agent_away") -> None:
        for work in self.holding(agent_id, ("offered",)):
            self.requeue(work, agent_id, reason)

    def review(self, agent_id: str) -> None:
        for work in self.works.values():
            is_held = work["status"] == "waiting" and work["hold_until"] is not None
            if is_held and work["preferred"] == agent_id and not self.hold_stands(work):
                work["hold_until"] = None
        if self.kept is not None:
            name, keeper = self.kept
            if keeper not in self.agents or not self.may_be_kept(self.works[name], keeper):
                self.kept = None

    def hold_stands(self, work: dict[str, Any]) -> bool:
        agent_id = work["preferred"]
        agent = self.agents.get(agent_id)
        return (
            agent is not None
            and work["hold_until"] > self.now
            and self.is_there(agent_id)
            and agent_id not in work["excluded"]
            and not work["declines"].get(agent_id, 0)
            and any(queue in agent["queues"] for queue in queues(work))
            and not lacks(work, agent)
            and agent["capacity"] >= work["cost"]
            and most(agent, work["channel"]) > 0
        )

    # --------------------------------------------------------------------------------------- matching

    def rules(self, work: dict[str, Any], agent_id: str, home_first: bool = False) -> list[str]:
        """Every rule that stands between an agent and waiting work."""
        agent = self.agents.get(agent_id)
        if agent is None:
            return ["unknown"]
        found = []
        if agent["presence"] != "available":
            found.append("absent")
        if not agent["on_shift"]:
            found.append("off_shift")
        if not any(queue in agent["queues"] for queue in queues(work)):
            lending = self.terms["lending"].get(work["queue"])
            lenders = [q for q in (lending[2] if lending else ()) if q in agent["queues"]]
            if not lenders:
                found.append("queue")
            else:
                relation = []
                if work["queue"] not in self.spilling:
                    relation.append("spill_closed")
                if all(q in self.guarding for q in lenders):
                    relation.append("lender_guard")
                if not relation and home_first:
                    relation.append("home_first")
                found += relation
        found += lacks(work, agent)
        load = self.load_for(agent_id, work["channel"])
        if load + work["cost"] > agent["capacity"]:
            found.append("capacity")
        elif load + self.wrapped(agent_id) + work["cost"] > agent["capacity"]:
            found.append("wrap_up")
        taken = [
            w
            for w in self.holding(agent_id, ("offered", "assigned"))
            if w["channel"] == work["channel"]
        ]
        if len(taken) >= most(agent, work["channel"]):
            found.append("channel")
        if self.kept is not None and self.kept[1] == agent_id and self.kept[0] != work["name"]:
            found.append("draining")
        if work["declines"].get(agent_id, 0) >= self.terms["max_declines"]:
            found.append("declined")
        if agent_id in work["excluded"]:
            found.append("excluded")
        if work["hold_until"] is not None and work["preferred"] != agent_id:
            found.append("held")
        return found

    def fit(self, work: dict[str, Any]) -> tuple[list[str], str]:
        found = [agent_id for agent_id in self.agents if not self.rules(work, agent_id)]
        home = [
            agent_id
            for agent_id in found
            if any(queue in self.agents[agent_id]["queues"] for queue in queues(work))
        ]
        return (home, "home") if home else (found, "spill")

    def score(self, work: dict[str, Any], agent_id: str, strategy: str) -> int:
        agent = self.agents[agent_id]
        used = self.load(agent_id) + self.wrapped(agent_id)
        load = used * 1000 // agent["capacity"] if agent["capacity"] else 0
        lacking = 0
        for skill, _ in needs(work):
            lacking += 15 - agent["skills"].get(skill, 0)
        language, _ = spoken(work)
        if language is not None:
            lacking += 15 - agent["languages"].get(language, 0)
        scarce = 0
        for skill in agent["skills"]:
            holders = [a for a in self.agents.values() if skill in a["skills"]]
            scarce += max(0, 16 - len(f"{len(holders):b}"))
        weights = self.terms["weights"]
        scores: dict[str, int] = {
            "longest_idle": 0,
            "least_loaded": load,
            "best_skilled": lacking,
            "thrift": scarce,
            "weighted": weights[0] * load + weights[1] * lacking + weights[2] * scarce,
        }
        return scores[strategy]

    def settle(self) -> None:
        while True:
            while self.match_first():
                pass
            if not self.turn_switches():
                break
        self.keep_someone_free()
        new = [work for work in self.waiting() if work["untold"]]
        for work in new:
            work["untold"] = False
            self.tell_queued(work)
        self.tell_overloads(new)

    def tell_overloads(self, new: list[dict[str, Any]]) -> None:
        new = [work for work in new if self.ever(work, but_excluded=False)]
        for n, work in enumerate(new):
            queue = work["queue"]
            if queue not in self.terms["overload"]:
                continue
            threshold, _ = self.terms["overload"][queue]
            after = sum(later["queue"] == queue for later in new[n + 1 :])
            length = self.n_matchable(queue) - after
            if length <= threshold:
                continue
            if queue not in self.overloaded or length > threshold + 1:
                self.told.append(("overloaded", work["ticket"], length))
            self.overloaded.add(queue)

    def n_matchable(self, queue: str) -> int:
        return sum(
            work["queue"] == queue and bool(self.ever(work, but_excluded=False))
            for work in self.waiting()
        )

    def match_first(self) -> bool:
        for work in self.waiting():
            found, via = self.fit(work)
            if found:
                self.offer(work, found, via)
                return True
        return False

    def offer(self, work: dict[str, Any], found: list[str], via: str) -> None:
        strategy = self.terms["strategies"].get(work["queue"], self.terms["strategy"])

        def rank(agent_id: str) -> tuple[Any, ...]:
            return (
                agent_id != work["preferred"],
                0 if agent_id == work["preferred"] else work["declines"].get(agent_id, 0),
                self.score(work, agent_id, strategy),
                self.agents[agent_id]["last"],
                agent_id,
            )

        best = sorted(found, key=rank)[:5]
        if best[0] == work["preferred"]:
            chosen_by = "preferred"
        elif len(best) == 1:
            chosen_by = "only_candidate"
        elif work["declines"].get(best[0], 0) < work["declines"].get(best[1], 0):
            chosen_by = "fewest_declines"
        else:
            chosen_by = strategy
        scores = tuple(self.score(work, a, strategy) for a in best)
        record = (
            tuple(best),
            chosen_by,
            via,
            () if strategy == "longest_idle" else scores,
            work["relaxed"],
            self.excluded(work, best, via == "home"),
            self.known_of(work, best, via == "home"),
        )
        self.reserve(work, best[0], record)
        is_auto = self.agents[best[0]]["auto"] or work["queue"] in self.terms["auto"]
        if is_auto:
            self.assign(work, best[0], "auto")
        elif chosen_by != "preferred":
            for agent_id in best[1 : self.terms["parallel"].get(work["queue"], 1)]:
                if not self.agents[agent_id]["auto"]:
                    self.reserve(work, agent_id, record)

    def reserve(self, work: dict[str, Any], agent_id: str, record: Any) -> None:
        if self.kept is not None and self.kept[0] == work["name"]:
            self.kept = None
        work["attempts"] += 1
        token = (work["name"], work["attempts"])
        if work["status"] == "offered":
            work["others"].append((agent_id, token))
        else:
            work["status"], work["agent"], work["token"] = "offered", agent_id, token
        work["expires"] = self.now + self.terms["offer"]
        work["untold"] = False
        self.agents[agent_id]["last"] = self.now
        self.told.append(("offered", work["ticket"], agent_id, record))

    def known_of(
        self, work: dict[str, Any], chosen: list[str], home_first: bool
    ) -> tuple[Any, ...]:
        """Who is known, who says so, and every rule for which they are not waited for."""
        agent_id = work["preferred"]
        if agent_id is None:
            return (None, "", ())
        rules = self.rules(work, agent_id, home_first)
        is_waited_for = work["hold_until"] is not None or agent_id in chosen
        return (agent_id, work["known_from"], () if is_waited_for else tuple(rules))

    def excluded(
        self, work: dict[str, Any], chosen: list[str], home_first: bool
    ) -> tuple[tuple[str, tuple[str, ...]], ...]:
        listed = sorted(self.agents)
        if work["preferred"] is not None and work["preferred"] not in listed:
            listed.append(work["preferred"])
        found = []
        for agent_id in listed:
            rules = self.rules(work, agent_id, home_first)
            if agent_id not in chosen and rules:
                found.append((agent_id, tuple(rules)))
        return tuple(found)

    # ----------------------------------------------------------------------------- thresholds, draining

    def ever(self, work: dict[str, Any], *, but_excluded: bool) -> list[str]:
        """Who could take the work if they were there and free, after everything that can fall away has."""
        dropped = {skill for step in work["steps"] for skill in step["drop"]}
        lowered: dict[str, int] = {}
        for step in work["steps"]:
            lowered.update(step["levels"])
        asked = []
        for skill, level, after in work["skills"]:
            if after is None and skill not in dropped:
                asked.append((skill, min(level, lowered.get(skill, level))))
        language, level, after = work["language"]
        if after is not None or any(step["language"] for step in work["steps"]):
            language = None
        where = [work["queue"], *(q for step in work["steps"] for q in step["queues"])]
        lending = self.terms["lending"].get(work["queue"])
        where += lending[2] if lending else ()
        return [
            agent_id
            for agent_id, agent in self.agents.items()
            if any(queue in agent["queues"] for queue in where)
            and all(agent["skills"].get(s, 0) >= n for s, n in asked)
            and (language is None or agent["languages"].get(language, 0) >= level)
            and not any(s in agent["skills"] for s in work["forbidden"])
            and agent["capacity"] >= work["cost"]
            and most(agent, work["channel"]) > 0
            and not (but_excluded and agent_id in work["excluded"])
        ]

    def turn_switches(self) -> bool:
        is_more = False
        counts: dict[str, int] = {}
        for work in self.waiting():
            if self.ever(work, but_excluded=False):
                counts[work["queue"]] = counts.get(work["queue"], 0) + 1
        for queue, (open_at, close_at, _) in self.terms["lending"].items():
            n = counts.get(queue, 0)
            if queue in self.spilling and n <= close_at:
                self.spilling.discard(queue)
            elif queue not in self.spilling and n >= open_at:
                self.spilling.add(queue)
                is_more = True
        for queue, (on_at, off_at, risk, clear) in self.terms["guards"].items():
            n = counts.get(queue, 0)
            if on_at is not None:
                if queue in self.crowded and n <= off_at:
                    self.crowded.discard(queue)
                elif queue not in self.crowded and n >= on_at:
                    self.crowded.add(queue)
            if risk is not None:
                left = [
                    work["due"] - self.now
                    for work in self.waiting()
                    if work["queue"] == queue
                    and work["due"] is not None
                    and self.ever(work, but_excluded=False)
                ]
                if queue in self.at_risk and all(ms > clear for ms in left):
                    self.at_risk.discard(queue)
                elif queue not in self.at_risk and any(ms <= risk for ms in left):
                    self.at_risk.add(queue)
            is_on = queue in self.crowded or queue in self.at_risk
            is_more |= queue in self.guarding and not is_on
            (self.guarding.add if is_on else self.guarding.discard)(queue)
        for queue, (_, clear_below) in self.terms["overload"].items():
            if counts.get(queue, 0) < clear_below:
                self.overloaded.discard(queue)
        return is_more

    def may_be_kept(self, work: dict[str, Any], agent_id: str) -> bool:
        agent = self.agents[agent_id]
        return (
            self.is_there(agent_id)
            and any(queue in agent["queues"] for queue in queues(work))
            and not lacks(work, agent)
            and agent["capacity"] >= work["cost"]
            and most(agent, work["channel"]) > 0
            and work["declines"].get(agent_id, 0) < self.terms["max_declines"]
            and agent_id not in work["excluded"]
        )

    def keep_someone_free(self) -> None:
        if self.terms["drain"] is None or self.kept is not None:
            return
        for work in self.waiting():
            if not work["ripe"] or work["hold_until"] is not None:
                continue
            found = [agent_id for agent_id in self.agents if self.may_be_kept(work, agent_id)]
            if found:
                first = min(
                    found,
                    key=lambda a: (
                        self.score(work, a, "least_loaded"),
                        self.agents[a]["last"],
                        a,
                    ),
                )
                self.kept = (work["name"], first)
                return

    # ------------------------------------------------------------------------------------------ limbo

    def limbo(self) -> None:
        for work in self.waiting():
            is_hopeless = not self.ever(work, but_excluded=False)
            if is_hopeless != self.hopeless[work["name"]]:
                self.tell_queued(work)
        for name in sorted(self.works):
            if self.works[name]["status"] == "waiting" and self.works[name]["declines"]:
                self.look_for_exhaustion(self.works[name])

    def look_for_exhaustion(self, work: dict[str, Any]) -> None:
        pool = self.ever(work, but_excluded=True)
        limit = self.terms["max_declines"]
        is_over = bool(pool) and all(work["declines"].get(a, 0) >= limit for a in pool)
        if is_over and not work["is_exhausted"]:
            work["is_exhausted"] = True
            self.told.append(("exhausted", work["ticket"]))

    def tell_queued(self, work: dict[str, Any]) -> None:
        is_matchable = bool(self.ever(work, but_excluded=True))
        self.told.append(
            (
                "queued",
                work["ticket"],
                is_matchable,
                self.excluded(work, [], home_first=False),
                self.known_of(work, [], home_first=False),
            )
        )

    def remember_hope(self) -> None:
        """Call it after every event: whether each piece of work was hopeless then."""
        self.hopeless = {
            name: not self.ever(work, but_excluded=False)
            for name, work in self.works.items()
            if work["status"] != "ended"
        }


def place(work: dict[str, Any]) -> tuple[Any, ...]:
    if work["promoted"] is not None:
        return (1, work["promoted"], work["entered"], work["name"])
    due = work["due"] if work["due"] is not None else work["entered"] + DAY
    return (work["priority"], due, work["entered"], work["name"])


def leases(work: dict[str, Any]) -> list[tuple[str, Any]]:
    """Who is offered the work, or has it."""
    if work["status"] not in ("offered", "assigned"):
        return []
    return [(work["agent"], work["token"]), *work["others"]]


def step_times(work: dict[str, Any]) -> list[int | None]:
    times: list[int | None] = []
    latest = work["since"]
    for step in work["steps"]:
        if step["share"] is not None and work["due"] is not None:
            at = work["since"] + max(0, work["due"] - work["since"]) * step["share"]
        elif step["after"] is not None:
            at = work["since"] + step["after"]
        else:
            return times + [None] * (len(work["steps"]) - len(times))
        latest = max(latest, at)
        times.append(latest)
    return times


def relaxed(work: dict[str, Any], now: int) -> tuple[str, ...]:
    taken = work["steps"][: work["step"]]
    gone, lower, more = [], [], []
    lowered: dict[str, int] = {}
    for step in taken:
        lowered.update(step["levels"])
        more += [f"queue:{queue}" for queue in step["queues"]]
    for skill, level, after in work["skills"]:
        is_over = after is not None and work["since"] + after <= now
        if is_over or any(skill in step["drop"] for step in taken):
            gone.append(skill)
        elif lowered.get(skill, level) < level:
            lower.append(f"level:{skill}:{lowered[skill]}")
    language, _, after = work["language"]
    is_over = after is not None and work["since"] + after <= now
    if language is not None and (is_over or any(step["language"] for step in taken)):
        gone.append("language")
    return (*gone, *lower, *dict.fromkeys(more))


def needs(work: dict[str, Any]) -> list[tuple[str, int]]:
    """Skills and levels that are still asked."""
    lowered = {}
    for name in work["relaxed"]:
        if name.startswith("level:"):
            _, skill, level = name.split(":")
            lowered[skill] = int(level)
    return [
        (skill, lowered.get(skill, level))
        for skill, level, _ in work["skills"]
        if skill not in work["relaxed"]
    ]


def spoken(work: dict[str, Any]) -> tuple[str | None, int]:
    language, level, _ = work["language"]
    return (None, 0) if "language" in work["relaxed"] else (language, level)


def queues(work: dict[str, Any]) -> list[str]:
    more = [name[6:] for name in work["relaxed"] if name.startswith("queue:")]
    return [work["queue"], *more]


def lacks(work: dict[str, Any], agent: dict[str, Any]) -> list[str]:
    found = []
    language, level = spoken(work)
    if language is not None and agent["languages"].get(language, 0) < level:
        found.append("language")
    for skill, asked in needs(work):
        if skill not in agent["skills"]:
            found.append(f"skill:{skill}")
        elif agent["skills"][skill] < asked:
            found.append(f"level:{skill}")
    found += [f"forbidden:{skill}" for skill in work["forbidden"] if skill in agent["skills"]]
    return found


def most(agent: dict[str, Any], channel: str) -> int:
    return agent["limits"].get(channel, 0) if agent["limits"] else NEVER
