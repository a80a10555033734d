"""The router attacked where it matters: one agent, one place free, and everything that could give it away twice."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import routing, tickets
from tests.faults.conftest import keep
from tests.faults.harness import FAILPOINT_SECONDS, Member, Servers
from tests.faults.routers import Routers
from tests.integration.kit import until

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@asynccontextmanager
async def routers(servers: Servers, seed: str, name: str, **given: Any) -> AsyncIterator[Routers]:
    """Two routers at work, under a name of their own."""
    stand = Routers(
        servers, name, random.Random(f"{seed}/{name}"), servers.directory / "runs" / name, **given
    )
    stand.directory.mkdir(parents=True)
    try:
        async with stand.running():
            yield stand
    finally:
        keep(stand.directory, name)


def held_over_time(events: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, set[str]]]:
    """Yield what the agent was offered or held after each event, in the order in which events were committed."""
    held: set[str] = set()
    for type_, data in events:
        if type_ == routing.OfferMade.TYPE:
            held.add(data["work_id"])
        elif type_ in (routing.TicketRequeued.TYPE, routing.WorkReleased.TYPE):
            held.discard(data["work_id"])
        yield type_, set(held)


async def test_r6_one_place_is_never_given_away_twice_whoever_is_killed(
    servers: Servers, seed: str
) -> None:
    n_customers, n_kills, n_solved = 1_000, 5, 40
    async with routers(servers, seed, "r6") as stand:
        await stand.one_agent_comes()
        for n in range(n_customers):
            await stand.write(n)
        await stand.flush()
        working = asyncio.create_task(stand.work())
        await stand.hear(routing.TicketAssigned, 2)
        for n in range(n_kills):
            # In turn whoever decides for the domain, and whoever it is by lot.
            victim = await stand.owner_of_the_domain()
            if n % 2:
                victim = stand.rng.choice(list(stand.members.values()))
            before = len(stand.events(routing.TicketAssigned))
            await asyncio.sleep(stand.rng.uniform(0.0, 0.4))  # The instant of the attack, by lot.
            victim.send(signal.SIGKILL)
            await stand.ended(victim)
            assert victim.exit_code == -signal.SIGKILL
            stand.start(victim.slot)
            await stand.hear(routing.TicketAssigned, before + 2, 90)
            await stand.staffed()
        await stand.hear(routing.TicketAssigned, n_solved, 120)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        events = await stand.routing_events()
        tickets = await stand.rows("SELECT ticket_id, conversation_id FROM ticket")

    assert len(tickets) == len({row["conversation_id"] for row in tickets}) == n_customers
    most = max(len(held) for _, held in held_over_time(events))
    assert most == 1, f"seed {seed}: the agent held {most} at once"
    taken = Counter(data["ticket_id"] for kind, data in events if kind == "routing.assigned.v1")
    assert max(taken.values()) == 1, f"seed {seed}: a ticket was assigned twice"
    told = {event.reservation_id for event in stand.events(routing.TicketAssigned)}
    stored = {d["reservation_id"] for kind, d in events if kind == "routing.assigned.v1"}
    assert told <= stored, f"seed {seed}: something was told that was never committed"


async def test_r6_a_zombie_that_was_about_to_commit_an_accept_changes_nothing(
    servers: Servers, seed: str
) -> None:
    """The owner stops within the transaction that takes the accept; another owner decides it; the first one wakes."""
    async with routers(servers, seed, "r6zombie", offer_seconds=60.0) as stand:
        await stand.one_agent_comes()
        await stand.write(1)
        (offer,) = await stand.hear(routing.OfferMade, 1)
        # Both leave, and the first to come back is armed: everything is its own, and its next commit is the accept's.
        for one in list(stand.members.values()):
            one.send(signal.SIGTERM)
            await stand.ended(one)
        zombie = stand.start("one", "before_commit=stop:1")
        await _stops(stand, zombie, offer)
        assert "routing.assigned.v1" not in dict(await stand.routing_events())
        heir = stand.start("two")
        (taken,) = await stand.hear(routing.TicketAssigned, 1, 60)
        assert taken.reservation_id == offer.reservation_id
        zombie.send(signal.SIGCONT)
        await until(
            "the zombie notices that it lost its tasks",
            lambda: zombie.events("task_lost") or zombie.exit_code is not None,
            60,
        )
        await stand.staffed()
        await stand.accept(offer)  # Once more, as a client would that got no answer.
        await stand.write(2)
        await stand.flush()
        await until("the second customer waits", lambda: _waits(stand, 2), 60)
        events = await stand.routing_events()
        assert heir.exit_code is None
    kinds = Counter(kind for kind, _ in events)
    assert kinds["routing.assigned.v1"] == 1
    assert max(len(held) for _, held in held_over_time(events)) == 1


async def _stops(stand: Routers, zombie: Member, offer: routing.OfferMade) -> None:
    """Let the agent accept, again and again, until the zombie has stopped within a transaction."""

    async def is_stopped() -> bool:
        if zombie.is_frozen:
            return True
        await stand.accept(offer)
        await stand.flush()
        return False

    await until("the router stops within a transaction", is_stopped, FAILPOINT_SECONDS)


async def _waits(stand: Routers, n: int) -> bool:
    rows = await stand.rows(
        f"SELECT 1 FROM ticket WHERE conversation_id = 'conversation-{n:04}' AND status = 'queued'"
    )
    return bool(rows)


async def test_r7_an_accept_about_the_end_of_its_offer_has_one_outcome_and_the_loser_is_told(
    servers: Servers, seed: str
) -> None:
    """Thirty offers, accepted from 40 ms before to 40 ms after they run out."""
    async with routers(servers, seed, "r7", offer_seconds=3.0) as stand:
        await stand.one_agent_comes(capacity=300)
        for n in range(30):
            await stand.write(n)
        offers = await stand.hear(routing.OfferMade, 30)
        firsts = {offer.ticket_id: offer for offer in reversed(offers)}
        answers = []
        for n, offer in enumerate(firsts.values()):
            at = offer.expires_at + timedelta(milliseconds=-40 + 80 * n / 29)
            answers.append(asyncio.create_task(_accept_at(stand, offer, at)))
        await asyncio.gather(*answers)
        await stand.flush()
        reservations = {offer.reservation_id for offer in firsts.values()}

        def outcomes() -> dict[str, list[str]]:
            found: dict[str, list[str]] = {one: [] for one in reservations}
            for told in stand.heard:
                name = getattr(told.event, "reservation_id", None)
                if name in found and not isinstance(told.event, routing.OfferMade):
                    found[name].append(told.event.TYPE)
            return found

        await until("every answer has an outcome", lambda: all(outcomes().values()), 30)
        expired = {
            event.ticket_id
            for event in stand.events(routing.TicketRequeued)
            if event.reason == "offer_expired"
        }
        n_taken = 0
        for offer in firsts.values():
            (outcome,) = outcomes()[offer.reservation_id]
            if outcome == routing.TicketAssigned.TYPE:
                n_taken += 1
                first_end = next(
                    (
                        e
                        for e in stand.events(routing.TicketRequeued)
                        if e.ticket_id == offer.ticket_id
                    ),
                    None,
                )
                assert first_end is None, f"seed {seed}: {offer.ticket_id} was taken and ran out"
            else:
                assert outcome == routing.OfferAnswerRefused.TYPE
                assert offer.ticket_id in expired, f"seed {seed}: refused though it had not run out"
        refused = {event.reason for event in stand.events(routing.OfferAnswerRefused)}
        assert refused <= {"reservation_expired"}
        assert n_taken + len(stand.events(routing.OfferAnswerRefused)) == 30


async def _accept_at(stand: Routers, offer: routing.OfferMade, at: datetime) -> None:
    await asyncio.sleep(
        max(0.0, (at - datetime.now(UTC)).total_seconds())
    )  # Instant of the attack.
    await stand.accept(offer)


async def test_e4_an_escalation_that_fell_due_while_no_router_lived_fires_once_and_says_how_late(
    servers: Servers, seed: str
) -> None:
    """Five seconds stand for the promise's five minutes, which a unit test with a clock of its own covers."""
    patience, late = 8.0, 5.0
    escalation = f", after: {{hours: {patience / 3600}, escalate: true}}"
    async with routers(servers, seed, "e4", escalation=escalation) as stand:
        await stand.write(1)
        (opened,) = await stand.hear(tickets.TicketOpened, 1)
        for one in list(stand.members.values()):
            one.send(signal.SIGKILL)
            await stand.ended(one)
        assert not stand.events(tickets.TicketEscalated)
        due_at = opened.at + timedelta(seconds=patience)
        await until(
            "it is long overdue", lambda: datetime.now(UTC) > due_at + timedelta(seconds=late)
        )
        for slot in ("one", "two"):
            stand.start(slot)
        (escalated,) = await stand.hear(tickets.TicketEscalated, 1)
        await stand.staffed()
        await stand.write(2)
        await stand.hear(tickets.TicketOpened, 2)
        assert escalated.late_seconds >= late
        assert abs((escalated.at - due_at).total_seconds() - escalated.late_seconds) < 0.5
        assert escalated.from_queue == "service"
        assert escalated.to_queue == "technical"
        of_the_first = [
            event
            for event in stand.events(tickets.TicketEscalated)
            if event.ticket_id == opened.ticket_id
        ]
        assert len(of_the_first) == 1
        rows = await stand.rows(
            "SELECT count(*) AS n FROM ticket_event WHERE type = 'ticket.escalated.v1'"
        )
        assert rows[0]["n"] == 1
