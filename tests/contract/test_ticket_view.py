"""The gateway knows where a ticket stands: what cannot fit is told so at once, and who waits hears what became of it.

On a real PostgreSQL, with the topics' events given to the stage as its loop does. That the gateway's refusals are the router's
is held against the router's own decisions.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import TopicPartition
from starlette.requests import Request

from chassis import policy
from chassis.batch import TaskState, partition_of
from chassis.clock import now_seconds
from chassis.ledger import open_pool
from chassis.local import Platform
from chassis.migrate import migrate
from chassis.stage import Change, Received
from schemas import routing, tickets
from schemas.envelope import Envelope
from services.ingest import api, metrics, openapi, ticket_view
from services.ingest.handlers import POLICY
from services.ingest.paths import Paths
from services.ingest.ticket_view_stage import Lookout, TicketViewStage
from services.ingest.ticket_view_store import CURRENT_SECONDS, VIEW, forget, mark_current
from tests.contract.test_gateway_api import (
    AGENTS,
    CHANNELS,
    SYSTEMS,
    Known,
    MemorySpool,
    assert_problem,
)

SQL = Path(api.__file__).with_name("sql")
PARTITIONS = 4
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
TICKET = "/v1/conversations/c-1/tickets/t-1"
TASK = partition_of("c-1", PARTITIONS)


class Fixed:
    """A clock that stands still."""

    def now(self) -> datetime:
        return NOW


def at(seconds: float) -> datetime:
    """That many seconds before noon."""
    return NOW - timedelta(seconds=seconds)


TABLES = "ticket_view, ticket_offer, ticket_request, ticket_view_task, state, idempotency"


class Pool:
    """The pool, which a test may have be away. `looks` counts what was looked at with its connections."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self.is_away = False
        self.looks = 0

    @contextlib.asynccontextmanager
    async def acquire(self, **options: Any) -> AsyncIterator[Any]:
        if self.is_away:
            raise OSError("away")
        try:
            async with self._pool.acquire(**options) as connection:
                yield connection
        finally:
            self.looks += 1


@dataclass
class View:
    """The gateway and the stage behind it, in one test's hands."""

    pool: asyncpg.Pool
    spool: MemorySpool
    waiters: ticket_view.Waiters
    http: httpx.AsyncClient
    door: Pool
    stage: TicketViewStage = field(default_factory=TicketViewStage)
    version: int = 0

    async def told(self, *events: Any, cause: str = "") -> None:
        """Let the stage decide events of one cause, and write what it decided, in one transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            for event in events:
                key = event.conversation_id
                states = await self.stage.store.load(connection, 0, [key])
                outcome = self.stage.decide(states.get(key), received(event, cause), NOW)
                changes = [Change(0, key, outcome.state)] if outcome.is_changed else []
                await self.stage.store.save(connection, changes, [(0, row) for row in outcome.rows])

    async def current(self) -> None:
        """The view holds all that was published, however slowly the test goes on."""
        async with self.pool.acquire() as connection:
            await mark_current(connection, dict.fromkeys(range(PARTITIONS), -600.0))

    async def stands(self, *moves: tuple[str, str | None]) -> None:
        """The ticket was opened, and moved on through these statuses with these agents; all of it is in view."""
        self.version = 1
        await self.told(told(tickets.TicketOpened, version=1, at=at(600)))
        for status, agent_id in moves:
            await self.told(self.moved(status, agent_id))
        await self.current()

    def moved(
        self, status: str, agent_id: str | None = None, seconds: float = 60, command_id: str = "c-0"
    ) -> Any:
        self.version += 1
        more: dict[str, Any] = {"version": self.version, "at": at(seconds)}
        if status == "solved":
            return told(
                tickets.TicketSolved, **more, agent_id=agent_id or "ada", command_id=command_id
            )
        return told(
            tickets.TicketStatusChanged,
            **more,
            before="queued",
            status=status,
            agent_id=agent_id,
            queue="service",
        )

    async def asks(
        self, action: str, body: dict[str, Any] | None = None, agent: str = "ada", **headers: str
    ) -> httpx.Response:
        known = {"reply": {"text": "It left today."}, "note": {"text": "Called."}}.get(action, {})
        return await self.http.post(
            f"{TICKET}/{action}",
            json={"agent_id": agent, **(body if body is not None else known)},
            headers={**AGENTS, **{name.replace("_", "-"): v for name, v in headers.items()}},
        )

    async def answers(
        self, answer: str, agent: str = "ada", reservation: str = "r-1", **headers: str
    ) -> httpx.Response:
        return await self.http.post(
            f"/v1/offers/{reservation}/{answer}",
            json={"agent_id": agent, "ticket_id": "t-1"},
            headers={**AGENTS, **{name.replace("_", "-"): v for name, v in headers.items()}},
        )

    async def listening(self) -> None:
        """Come back when a command that was just sent has been looked at, and is held back until more is in view."""
        before = self.door.looks
        async with asyncio.timeout(10):
            while self.door.looks == before or not self.waiters._woken.get(VIEW):
                await asyncio.sleep(0.005)

    async def waiting(self) -> None:
        """Come back when somebody waits for an outcome."""
        async with asyncio.timeout(10):
            while not self.waiters._count:
                await asyncio.sleep(0.005)


def told(kind: Any, **fields: Any) -> Any:
    """An event about the ticket, its example but for what is said here."""
    known = {**kind.EXAMPLE, "conversation_id": "c-1", "ticket_id": "t-1"}
    return kind.model_validate({**known, **fields})


def received(event: Any, cause: str) -> Received:
    envelope = Envelope(
        type=event.TYPE,
        source="signalbox/router.tickets/0",
        id="e-1",
        time=NOW,
        partitionkey=event.conversation_id,
        causationid=cause,
    )
    return Received(envelope, event, event.conversation_id, event.TOPIC, "e-1")


def offered(agent: str, reservation: str, seconds: float = 30, work: str = "w-1") -> Any:
    return told(
        routing.OfferMade,
        work_id=work,
        agent_id=agent,
        reservation_id=reservation,
        offered_at=at(seconds),
        expires_at=at(seconds - 30),
    )


def requeued(agent: str, reason: str, seconds: float = 10, work: str = "w-1") -> Any:
    return told(routing.TicketRequeued, work_id=work, agent_id=agent, reason=reason, at=at(seconds))


def assigned(agent: str, reservation: str, seconds: float = 5, work: str = "w-1") -> Any:
    return told(
        routing.TicketAssigned,
        work_id=work,
        agent_id=agent,
        reservation_id=reservation,
        assigned_at=at(seconds),
    )


def value(counter: Any, *labels: str) -> float:
    return float(counter.labels(*labels)._value.get())


@pytest.fixture(scope="module")
def migrated(platform: Platform) -> Iterator[str]:
    """One database for all tests here; each begins with empty tables."""
    name = f"test_{secrets.token_hex(6)}"
    url = platform.postgres.create_database(name)
    asyncio.run(migrate(url, "ingest", [SQL]))
    yield url
    platform.postgres.drop_database(name)


@pytest.fixture
async def view(migrated: str, tmp_path: Path) -> AsyncIterator[View]:
    (tmp_path / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    pool = await open_pool(migrated, "ingest", 4, "test")
    await pool.execute(f"TRUNCATE {TABLES}")
    door: Any = Pool(pool)
    waiters = ticket_view.Waiters(migrated, 3)
    clock, spool, stopping = Fixed(), MemorySpool(), asyncio.Event()
    deps = api.Deps(
        spool=spool,
        policies=policy.PolicyHolder(tmp_path, POLICY),
        clock=clock,
        secrets=Known(),
        tickets=ticket_view.TicketView(ticket_view.Deps(door, waiters, clock, PARTITIONS)),
    )
    app: Paths = api.create_app(deps)
    openapi.mount(app)
    listening = asyncio.create_task(waiters.run(stopping))
    transport = httpx.ASGITransport(app)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            yield View(pool, spool, waiters, client, door)
    finally:
        stopping.set()
        await listening
        await pool.close()


# ------------------------------------------------------------------------------------------- where it stands


async def test_a_ticket_is_told_as_it_stands_with_its_version_as_etag(view: View) -> None:
    await view.stands(("offered", "bo"), ("assigned", "ada"))
    answer = await view.http.get(TICKET, headers=AGENTS)
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"3"'
    assert answer.json() == {
        "ticket_id": "t-1",
        "conversation_id": "c-1",
        "status": "assigned",
        "version": 3,
        "assignee": "ada",
        "queue": "service",
        "priority": 3,
        "since": at(60).isoformat(),
        "merged_into": None,
        "promises": [],
    }
    again = await view.http.get(TICKET, headers={**AGENTS, "If-None-Match": '"2", "3"'})
    assert (again.status_code, again.content) == (304, b"")


async def test_what_does_not_move_a_ticket_leaves_since_when_it_stands_there(view: View) -> None:
    await view.stands(("assigned", "ada"))
    noted = told(tickets.TicketNoteAdded, version=3, at=at(30))
    urgent = told(tickets.TicketPrioritised, version=4, at=at(20), priority=1)
    again = told(
        tickets.TicketStatusChanged,
        version=5,
        at=at(10),
        before="assigned",
        status="assigned",
        agent_id="ada",
        queue="service",
    )
    await view.told(noted, urgent)
    await view.told(again)
    body = (await view.http.get(TICKET, headers=AGENTS)).json()
    assert (body["version"], body["priority"], body["since"]) == (5, 1, at(60).isoformat())


async def promises(view: View) -> list[tuple[str, str, str | None]]:
    """What the gateway says is promised: what, by when, and not before when."""
    body = (await view.http.get(TICKET, headers=AGENTS)).json()
    return [(one["what"], one["by"], one["not_before"]) for one in body["promises"]]


async def test_a_ticket_shows_what_is_promised_until_it_is_kept(view: View) -> None:
    await view.stands(("assigned", "ada"))
    callback = {"what": "callback", "by": at(-7200), "not_before": at(-3600)}
    shown = ("callback", at(-7200).isoformat(), at(-3600).isoformat())
    await view.told(told(tickets.TicketPromised, version=3, **callback))
    await view.told(told(tickets.TicketAnswered, version=4, next_update_by=at(-600)))
    update = ("update", at(-600).isoformat(), None)
    assert await promises(view) == [update, shown]
    await view.told(told(tickets.TicketCalled, version=5, outcome="no_answer"))
    assert await promises(view) == [update, shown], "nobody was reached"
    await view.told(
        told(tickets.TicketPromised, version=6, what="update", by=at(-900), not_before=None)
    )
    assert await promises(view) == [("update", at(-900).isoformat(), None), shown], "the later one"
    reached = {"outcome": "reached", "occurred_at": at(-3600)}
    await view.told(told(tickets.TicketCalled, version=7, **reached))
    await view.told(told(tickets.TicketAnswered, version=8))
    assert await promises(view) == []


async def test_a_call_before_the_time_that_was_chosen_ends_no_promise(view: View) -> None:
    """The customer was reached an hour early, and still expects the call: its clock runs on as well."""
    await view.stands(("assigned", "ada"))
    callback = {"what": "callback", "by": at(-7200), "not_before": at(-3600)}
    await view.told(told(tickets.TicketPromised, version=3, **callback))
    early = {"outcome": "reached", "occurred_at": at(-3599)}
    await view.told(told(tickets.TicketCalled, version=4, **early))
    assert await promises(view) == [("callback", at(-7200).isoformat(), at(-3600).isoformat())]
    await view.told(told(tickets.TicketCalled, version=5, **(early | {"occurred_at": at(-3600)})))
    assert await promises(view) == []


async def test_spam_hides_what_is_promised_and_a_restored_ticket_owes_it_again(view: View) -> None:
    await view.stands(("assigned", "ada"))
    await view.told(
        told(tickets.TicketPromised, version=3, what="update", by=at(-600), not_before=None)
    )
    spam = told(tickets.TicketStatusChanged, version=4, before="assigned", status="spam")
    await view.told(spam)
    assert await promises(view) == []
    back = told(tickets.TicketStatusChanged, version=5, before="spam", status="queued")
    await view.told(back)
    assert await promises(view) == [("update", at(-600).isoformat(), None)]
    await view.told(told(tickets.TicketStatusChanged, version=6, status="spam", before="queued"))
    await view.told(told(tickets.TicketClosed, version=7))
    assert await view.pool.fetchval("SELECT count(*) FROM state") == 0


@pytest.mark.parametrize("end", ["solved", "closed"])
async def test_an_end_of_the_case_ends_its_promises(view: View, end: str) -> None:
    await view.stands(("assigned", "ada"))
    await view.told(told(tickets.TicketPromised, version=3))
    ends = {
        "solved": told(tickets.TicketSolved, version=4),
        "closed": told(tickets.TicketClosed, version=4),
    }
    await view.told(ends[end])
    assert await promises(view) == []
    assert await view.pool.fetchval("SELECT count(*) FROM state") == 0


async def test_t22_the_earliest_promise_of_a_merge_is_shown_and_a_split_shows_the_own_again(
    view: View,
) -> None:
    await view.stands(("assigned", "ada"))
    own = {"what": "callback", "by": at(-7200), "not_before": None}
    await view.told(told(tickets.TicketPromised, version=3, **own))
    lent = {"callback": at(-3600), "first_response": at(-60)}
    await view.told(
        told(tickets.TicketAbsorbed, version=4, from_ticket_id="t-9", dues=lent),
    )
    assert await promises(view) == [("callback", at(-3600).isoformat(), None)]
    await view.told(told(tickets.TicketSplitOff, version=5, from_ticket_id="t-9"))
    assert await promises(view) == [("callback", at(-7200).isoformat(), None)]


async def test_a_merged_ticket_shows_no_promise_and_has_its_own_again_when_it_is_unmerged(
    view: View,
) -> None:
    await view.stands(("assigned", "ada"))
    await view.told(
        told(tickets.TicketPromised, version=3, what="update", by=at(-600), not_before=None)
    )
    await view.told(told(tickets.TicketMerged, version=4))
    assert await promises(view) == []
    await view.told(told(tickets.TicketUnmerged, version=5))
    assert await promises(view) == [("update", at(-600).isoformat(), None)]


async def test_many_events_of_one_batch_leave_the_ticket_where_the_last_one_does(
    view: View,
) -> None:
    moves = [
        told(tickets.TicketOpened, version=1, at=at(600)),
        view.moved("queued"),
        view.moved("offered", "ada"),
        view.moved("assigned", "ada", seconds=50),
    ]
    for version, move in enumerate(moves, start=1):
        moves[version - 1] = move.model_copy(update={"version": version})
    rows = []
    for event in moves:
        rows += [(0, row) for row in view.stage.decide(None, received(event, ""), NOW).rows]
    async with view.pool.acquire() as connection, connection.transaction():
        await view.stage.store.save(connection, [], rows)
    body = (await view.http.get(TICKET, headers=AGENTS)).json()
    assert (body["status"], body["assignee"], body["version"]) == ("assigned", "ada", 4)
    assert body["since"] == at(50).isoformat()


async def test_an_event_that_comes_again_takes_nothing_back(view: View) -> None:
    await view.stands(("assigned", "ada"), ("solved", "ada"))
    await view.told(told(tickets.TicketOpened, version=1, at=at(600)))
    assert (await view.http.get(TICKET, headers=AGENTS)).json()["status"] == "solved"


async def test_a_merged_ticket_says_where_it_goes_on_until_it_stands_on_its_own_again(
    view: View,
) -> None:
    await view.stands(("assigned", "ada"))
    into = {"into_conversation_id": "c-2", "into_ticket_id": "t-2"}
    await view.told(told(tickets.TicketMerged, version=3, at=at(9), **into))
    body = (await view.http.get(TICKET, headers=AGENTS)).json()
    assert (body["status"], body["assignee"]) == ("merged", None)
    assert body["merged_into"] == {"conversation_id": "c-2", "ticket_id": "t-2"}
    await view.told(told(tickets.TicketUnmerged, version=4, at=at(8)))
    body = (await view.http.get(TICKET, headers=AGENTS)).json()
    assert (body["status"], body["merged_into"]) == ("queued", None)


@pytest.mark.parametrize("path", [TICKET, "/v1/conversations/c-2/tickets/t-1"])
async def test_a_ticket_that_is_not_of_that_conversation_is_not_found(
    view: View, path: str
) -> None:
    if "c-2" in path:
        await view.stands()
    assert_problem(await view.http.get(path, headers=AGENTS), 404, "ticket_id")


async def test_a_ticket_is_shown_to_agents_only(view: View) -> None:
    await view.stands()
    assert_problem(await view.http.get(TICKET), 401)
    systems: Any = SYSTEMS
    assert_problem(await view.http.get(TICKET, headers=systems), 403)


# ------------------------------------------------------------------------------ commands that come too late


async def test_a_command_for_a_solved_ticket_is_told_where_it_stands_and_is_not_stored(
    view: View,
) -> None:
    await view.stands(("assigned", "ada"), ("solved", "ada"))
    before = value(metrics.TICKET_CONFLICTS, "already_solved")
    answer = await view.asks("reply")
    body = assert_problem(answer, 409)
    assert body["type"] == "urn:signalbox:problem:moved_on"
    assert (body["reason"], body["state"]) == ("already_solved", "solved")
    assert body["ticket"] == (await view.http.get(TICKET, headers=AGENTS)).json()
    assert answer.headers["etag"] == '"3"'
    assert "It left today" not in answer.text
    assert view.spool.items == []
    assert value(metrics.TICKET_CONFLICTS, "already_solved") == before + 1


@pytest.mark.parametrize(
    ("moves", "action", "body", "agent", "reason"),
    [
        ((("assigned", "bo"),), "reply", None, "ada", "not_assignee"),
        ((("assigned", "bo"),), "solve", None, "ada", "not_assignee"),
        ((("pending", "bo"),), "escalate", {"reason": "why"}, "ada", "not_assignee"),
        ((("assigned", "bo"),), "reassign", {"queue": "service"}, "ada", "already_there"),
        ((("assigned", "bo"),), "reassign", {"to_agent_id": "bo"}, "ada", "already_there"),
        ((("solved", "bo"),), "solve", None, "bo", "already_solved"),
        ((("solved", "bo"),), "reassign", {"queue": "technical"}, "bo", "already_solved"),
        ((("spam", "bo"),), "reply", None, "bo", "is_spam"),
        ((("on_hold", "bo"),), "snooze", {"until": "2026-11-25T08:00:00Z"}, "ada", "not_assignee"),
        ((("assigned", "bo"),), "resume", None, "bo", "not_resting"),
        ((("assigned", "bo"),), "restore", None, "bo", "not_spam"),
    ],
)
async def test_what_cannot_fit_is_refused_by_the_routers_name_for_it(
    view: View, moves: Sequence[Any], action: str, body: Any, agent: str, reason: str
) -> None:
    await view.stands(*moves)
    answer = assert_problem(await view.asks(action, body, agent), 409)
    assert answer["reason"] == reason
    assert view.spool.items == []


async def test_who_delegated_a_ticket_may_still_act_on_it(view: View) -> None:
    await view.stands(("assigned", "ada"))
    delegated = told(tickets.TicketDelegated, version=3, at=at(9), owner_id="ada", to_agent_id="bo")
    view.version = 3
    await view.told(delegated, view.moved("assigned", "bo"))
    assert (await view.asks("solve", agent="cem")).status_code == 409
    assert (await view.asks("solve", agent="ada")).status_code == 202


async def test_a_closed_ticket_takes_no_command_at_all(view: View) -> None:
    await view.stands(("solved", "ada"))
    await view.told(told(tickets.TicketClosed, version=3, at=at(5)))
    for action in ("reply", "note", "solve"):
        assert assert_problem(await view.asks(action), 409)["reason"] == "closed"


@pytest.mark.parametrize(
    ("moves", "action", "body", "agent"),
    [
        ((("assigned", "ada"),), "reply", None, "ada"),
        ((("pending", "ada"),), "reply", None, "ada"),
        ((), "solve", None, "ada"),
        ((), "reply", None, "ada"),  # They may have accepted it a moment ago.
        ((("solved", "ada"),), "note", None, "bo"),
        ((("solved", "ada"),), "tag", {"add": ["late"]}, "bo"),
        ((("assigned", "bo"),), "reassign", {"to_agent_id": "ada"}, "ada"),
        ((("assigned", "bo"),), "reassign", {"queue": "technical"}, "ada"),
        ((("snoozed", "bo"),), "resume", None, "ada"),
        ((("spam", "bo"),), "restore", None, "ada"),
    ],
)
async def test_what_may_fit_goes_on_to_the_router(
    view: View, moves: Sequence[Any], action: str, body: Any, agent: str
) -> None:
    await view.stands(*moves)
    answer = await view.asks(action, body, agent)
    assert answer.status_code == 202
    assert view.spool.event.command_id == answer.json()["id"]


async def test_a_ticket_that_never_came_into_view_is_left_to_the_router(view: View) -> None:
    await view.current()
    before = value(metrics.TICKET_UNJUDGED, "unknown")
    assert (await view.asks("reply")).status_code == 202
    assert value(metrics.TICKET_UNJUDGED, "unknown") == before + 1


async def test_a_view_that_is_behind_refuses_nothing(view: View) -> None:
    await view.stands(("solved", "ada"))
    await view.pool.execute(
        "UPDATE ticket_view_task SET current_at = clock_timestamp() - interval '4 seconds' WHERE task = $1",
        TASK,
    )
    before = value(metrics.TICKET_UNJUDGED, "behind")
    assert (await view.asks("reply")).status_code == 202
    assert value(metrics.TICKET_UNJUDGED, "behind") == before + 1
    await view.current()
    await view.pool.execute("DELETE FROM ticket_request")
    assert (await view.asks("reply")).status_code == 409


async def test_while_a_request_of_the_ticket_is_under_way_the_next_one_is_left_to_the_router(
    view: View,
) -> None:
    """What the first one comes to may be just what the second one needs."""
    await view.stands(("assigned", "bo"))
    first = (await view.asks("reassign", {"to_agent_id": "ada"})).json()["id"]
    before = value(metrics.TICKET_UNJUDGED, "in_flight")
    assert (await view.asks("reply")).status_code == 202
    assert value(metrics.TICKET_UNJUDGED, "in_flight") == before + 1
    for item in view.spool.items:
        await view.told(view.moved("assigned", "bo"), cause=item.answer)
    assert first == view.spool.items[0].answer
    assert (await view.asks("reply")).status_code == 409


async def test_what_was_published_when_a_command_came_is_in_view_before_it_is_refused(
    view: View,
) -> None:
    """Whoever reads the topics may act at once on what the view has not read yet."""
    await view.stands(("solved", "ada"))
    await view.pool.execute("UPDATE ticket_view_task SET current_at = clock_timestamp()")
    asking = asyncio.create_task(view.asks("solve"))
    await view.listening()
    await view.told(told(tickets.TicketReopened, version=3, at=at(1)))
    await view.current()
    assert (await asking).status_code == 202
    await view.pool.execute("DELETE FROM ticket_request")
    view.version = 3
    await view.told(view.moved("solved", "ada"))
    await view.pool.execute("UPDATE ticket_view_task SET current_at = clock_timestamp()")
    asking = asyncio.create_task(view.asks("solve"))
    await view.listening()
    await view.current()
    assert (await asking).status_code == 409


async def test_a_command_is_left_to_the_router_where_the_view_does_not_catch_up(view: View) -> None:
    await view.stands(("solved", "ada"))
    await view.pool.execute("UPDATE ticket_view_task SET current_at = clock_timestamp()")
    before = value(metrics.TICKET_UNJUDGED, "behind")
    assert (await view.asks("solve")).status_code == 202
    assert value(metrics.TICKET_UNJUDGED, "behind") == before + 1


async def test_a_request_that_the_router_has_not_come_to_leaves_the_ticket_open_however_old_it_is(
    view: View,
) -> None:
    """A router that is down for a minute, or a week, still does first what it was asked first."""
    await view.stands(("spam", "ada"))
    restored = await view.asks("restore")
    assert restored.status_code == 202
    await view.pool.execute("UPDATE ticket_request SET asked_at = asked_at - interval '31 seconds'")
    before = value(metrics.TICKET_UNJUDGED, "behind")
    assert (await view.asks("solve")).status_code == 202
    assert value(metrics.TICKET_UNJUDGED, "behind") == before + 1
    await view.pool.execute("UPDATE ticket_request SET asked_at = asked_at - interval '7 days'")
    async with view.pool.acquire() as connection:
        await forget(connection, await connection.fetchval("SELECT clock_timestamp()"))
    assert (await view.asks("solve")).status_code == 202
    assert value(metrics.TICKET_UNJUDGED, "behind") == before + 2


async def test_a_command_that_changed_nothing_is_passed_once_a_much_later_one_is_known(
    view: View,
) -> None:
    """The router tells nothing of it, but takes commands in their order; a merge alone waits for an answer in between."""
    await view.stands(("solved", "ada"))
    await view.asks("tag", {"add": ["late"]})
    later = await view.asks("note")
    noted = told(tickets.TicketNoteAdded, version=3, at=at(1), command_id=later.json()["id"])
    await view.told(noted)
    old = "UPDATE ticket_request SET asked_at = asked_at - interval '{}' WHERE outcome IS NULL"
    await view.pool.execute(old.format("59 seconds"))
    assert (await view.asks("note")).status_code == 202  # Which is under way itself from now on.
    assert (await view.asks("reply")).status_code == 202
    await view.pool.execute("DELETE FROM ticket_request WHERE outcome IS NULL AND action <> 'tag'")
    assert (await view.asks("reply", idempotency_key="k-1")).status_code == 202
    await view.pool.execute("DELETE FROM ticket_request WHERE outcome IS NULL AND action <> 'tag'")
    await view.pool.execute(old.format("2 seconds"))
    assert (await view.asks("reply")).status_code == 409
    await view.pool.execute("UPDATE ticket_request SET action = 'merge' WHERE action = 'tag'")
    assert (await view.asks("reply")).status_code == 202


async def test_an_accept_counts_as_under_way_until_its_offer_is_known_as_taken(view: View) -> None:
    """One that is sent twice gets no word from the router; what it asks is done all the same."""
    await view.stands(("assigned", "bo"))
    await view.told(offered("bo", "r-1", seconds=90))
    assert (await view.answers("accept", "bo")).status_code == 202
    assert (await view.asks("solve", agent="cem")).status_code == 202
    await view.pool.execute("DELETE FROM ticket_request WHERE action = 'solve'")
    await view.told(assigned("bo", "r-1", seconds=80))
    assert (await view.asks("solve", agent="cem")).status_code == 409


async def test_who_has_accepted_may_act_though_the_ticket_has_not_moved_to_them_in_view(
    view: View,
) -> None:
    """Ada is gone, bo has accepted: assignment told of it, and the ticket's own news of it is on its way."""
    await view.stands(("assigned", "ada"))
    await view.told(
        offered("ada", "r-1", seconds=3700),
        assigned("ada", "r-1", seconds=3600),
    )
    assert (await view.asks("solve", agent="bo")).status_code == 409
    await view.told(requeued("ada", "agent_vanished"), offered("bo", "r-2", seconds=9))
    taken = await view.answers("accept", "bo", "r-2")
    await view.told(assigned("bo", "r-2"), cause=taken.json()["id"])
    before = value(metrics.TICKET_UNJUDGED, "behind")
    assert (await view.asks("solve", agent="bo")).status_code == 202
    assert value(metrics.TICKET_UNJUDGED, "behind") == before + 1
    await view.pool.execute("DELETE FROM ticket_request")
    await view.told(view.moved("assigned", "bo"))
    assert (await view.asks("solve", agent="ada")).status_code == 409
    assert (await view.asks("solve", agent="bo")).status_code == 202


async def test_a_ticket_that_its_assignee_has_lost_is_anybodys(view: View) -> None:
    """As soon as assignment tells so, and whether it is offered to somebody else already or not."""
    await view.stands(("assigned", "ada"))
    await view.told(assigned("ada", "r-1"), requeued("ada", "agent_vanished"))
    assert (await view.asks("solve", agent="cem")).status_code == 202
    await view.pool.execute("DELETE FROM ticket_request")
    await view.told(offered("bo", "r-2", seconds=9))
    assert (await view.asks("solve", agent="cem")).status_code == 202


async def test_a_ticket_that_was_answered_elsewhere_before_anybody_had_it_is_nobodys(
    view: View,
) -> None:
    await view.stands(("pending", "elsewhere"))
    assert (await view.http.get(TICKET, headers=AGENTS)).json()["assignee"] is None
    for action in ("solve", "reply"):
        assert (await view.asks(action)).status_code == 202


async def test_a_delegated_ticket_that_waits_is_left_to_the_router(view: View) -> None:
    """Only its owner may answer it, and whether it still is delegated is not in view."""
    await view.stands(("assigned", "ada"))
    delegated = told(tickets.TicketDelegated, version=3, at=at(9), owner_id="ada", to_agent_id="bo")
    view.version = 3
    await view.told(delegated, view.moved("queued"))
    assert (await view.asks("reply", agent="ada")).status_code == 202


async def test_a_database_that_is_away_judges_nothing(view: View) -> None:
    await view.stands(("solved", "ada"))
    view.door.is_away = True
    assert (
        await view.asks("reply")
    ).status_code == 202  # Whether it can be stored, the spool says.
    assert (await view.asks("reply", prefer="wait=5")).status_code == 202
    problem = assert_problem(await view.http.get(TICKET, headers=AGENTS), 503)
    assert problem["type"] == "urn:signalbox:problem:unavailable"


# ------------------------------------------------------------------------------------------------ If-Match


async def test_a_command_for_an_older_version_is_refused(view: View) -> None:
    await view.stands(("assigned", "ada"))
    answer = await view.asks("note", if_match='"1"')
    body = assert_problem(answer, 412, "If-Match")
    assert (body["reason"], body["ticket"]["version"]) == ("version_changed", 2)
    assert answer.headers["etag"] == '"2"'
    assert view.spool.items == []


@pytest.mark.parametrize("tag", ['"2"', '"1", "2"', "*", '"3"'])
async def test_a_command_for_the_present_version_or_one_not_seen_yet_passes(
    view: View, tag: str
) -> None:
    await view.stands(("assigned", "ada"))
    assert (await view.asks("note", if_match=tag)).status_code == 202


async def test_a_weak_tag_matches_nothing(view: View) -> None:
    """RFC 9110, 13.1.1: If-Match compares strongly."""
    await view.stands(("assigned", "ada"))
    assert_problem(await view.asks("note", if_match='W/"2"'), 412)


@pytest.mark.parametrize("tag", ["2", '"2', "two", ""])
async def test_what_is_no_entity_tag_is_named(view: View, tag: str) -> None:
    assert_problem(await view.asks("note", if_match=tag), 422, "If-Match")


async def test_of_a_ticket_of_another_conversation_nothing_is_told(view: View) -> None:
    """Whether such a command is refused is the router's to say."""
    await view.stands(("solved", "ada"))
    for headers in ({}, {"If-Match": '"1"'}, {"Prefer": "wait=1"}):
        answer = await view.http.post(
            "/v1/conversations/c-2/tickets/t-1/solve",
            json={"agent_id": "ada"},
            headers={**AGENTS, **headers},
        )
        assert answer.status_code == 202
        assert set(answer.json()) == {"id"}
    asking = asyncio.create_task(
        view.http.post(
            "/v1/conversations/c-2/tickets/t-1/solve",
            json={"agent_id": "ada"},
            headers={**AGENTS, "Prefer": "wait=10"},
        )
    )
    await view.waiting()
    refused = told(
        tickets.CommandRefused,
        conversation_id="c-2",
        command_id=view.spool.items[-1].answer,
        reason="ticket_unknown",
        state="unknown",
    )
    await view.told(refused)
    body = assert_problem(await asking, 409)
    assert (body["reason"], body["ticket"]) == ("ticket_unknown", None)


# ----------------------------------------------------------------------------------------- Prefer: wait


async def test_who_waits_is_told_that_it_was_done_and_where_the_ticket_stands_then(
    view: View,
) -> None:
    await view.stands(("assigned", "ada"))
    asking = asyncio.create_task(view.asks("solve", prefer="respond-async, wait=10"))
    await view.waiting()
    await view.told(view.moved("solved", "ada", command_id=view.spool.only.answer))
    answer = await asking
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=10"
    body = answer.json()
    assert (body["id"], body["outcome"]) == (view.spool.only.answer, "done")
    assert (body["ticket"]["status"], body["ticket"]["version"]) == ("solved", 3)


async def test_the_version_that_is_told_is_the_one_that_all_of_the_command_leads_to(
    view: View,
) -> None:
    """An answer that solves is told by two events; with the first one's version the next `If-Match` would fail."""
    await view.stands(("assigned", "ada"))
    body = {"text": "It left today.", "solves": True}
    asking = asyncio.create_task(view.asks("reply", body, prefer="wait=10"))
    await view.waiting()
    command_id = view.spool.only.answer
    await view.told(
        told(tickets.TicketAnswered, version=3, at=at(1), command_id=command_id), cause=command_id
    )
    view.version = 3
    await view.told(view.moved("solved", "ada", command_id=command_id), cause=command_id)
    ticket = (await asking).json()["ticket"]
    assert (ticket["status"], ticket["version"]) == ("solved", 4)
    assert (await view.asks("note", if_match=f'"{ticket["version"]}"')).status_code == 202


async def test_who_waits_is_told_the_routers_refusal(view: View) -> None:
    await view.stands()
    asking = asyncio.create_task(view.asks("escalate", {"reason": "needs logs"}, prefer="wait=10"))
    await view.waiting()
    refused = told(
        tickets.CommandRefused,
        command_id=view.spool.only.answer,
        reason="facts_missing: tried, impact",
        state="queued",
        at=at(1),
    )
    await view.told(refused)
    body = assert_problem(await asking, 409)
    assert body["reason"] == "facts_missing: tried, impact"
    assert (body["id"], body["state"]) == (view.spool.only.answer, "queued")
    assert body["ticket"]["status"] == "queued"


async def test_who_waits_for_a_merge_hears_of_it_once_the_other_ticket_has_agreed(
    view: View,
) -> None:
    """The merge is caused by the other conversation's answer, and says itself which command it is the outcome of."""
    await view.stands(("assigned", "ada"))
    into = {"into_conversation_id": "c-2", "into_ticket_id": "t-2"}
    asking = asyncio.create_task(view.asks("merge", into, prefer="wait=10"))
    await view.waiting()
    command_id = view.spool.only.answer
    merged = told(tickets.TicketMerged, version=3, at=at(1), merge_id=command_id, **into)
    await view.told(merged, cause="the answer of c-2")
    body = (await asking).json()
    assert (body["outcome"], body["ticket"]["status"]) == ("done", "merged")


async def test_who_waits_in_vain_is_answered_as_who_does_not_wait(view: View) -> None:
    await view.stands()
    before = value(metrics.TICKET_WAITS, "time_over")
    answer = await view.asks("note", prefer="wait=1")
    assert (answer.status_code, answer.json()) == (202, {"id": view.spool.only.answer})
    assert answer.headers["preference-applied"] == "wait=1"
    assert value(metrics.TICKET_WAITS, "time_over") == before + 1


@pytest.mark.parametrize("wish", ["wait=0", "wait=soon", "return=minimal", "wait", "wait=-1"])
async def test_a_preference_that_cannot_be_read_is_none(view: View, wish: str) -> None:
    """RFC 7240: what is not understood is ignored."""
    answer = await view.asks("note", prefer=wish)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_nobody_waits_longer_than_ten_seconds() -> None:
    request = Request({"type": "http", "headers": [(b"prefer", b"wait=3600; foo=1")]})
    assert ticket_view.wait_of(request) == 10.0


async def test_more_than_may_wait_are_answered_at_once(view: View) -> None:
    await view.stands()
    waiting = [asyncio.create_task(view.asks("note", prefer="wait=10")) for _ in range(3)]
    async with asyncio.timeout(10):
        while view.waiters._count < 3:
            await asyncio.sleep(0.005)
    answer = await view.asks("note", prefer="wait=10")
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers
    for item in view.spool.items:
        await view.told(view.moved("assigned", "bo"), cause=item.answer)
    assert {one.status_code for one in await asyncio.gather(*waiting)} == {200}
    assert view.waiters._count == 0


async def test_a_gateway_that_stops_lets_everybody_go_with_what_is_sure(view: View) -> None:
    await view.stands()
    asking = asyncio.create_task(view.asks("note", prefer="wait=10"))
    await view.waiting()
    view.waiters.is_closed = True
    view.waiters.wake_all()
    assert (await asyncio.wait_for(asking, 5)).status_code == 202


# ------------------------------------------------------------------------------------- offers and their ends


async def test_a_late_accept_is_told_who_has_the_ticket_and_since_when(view: View) -> None:
    await view.stands(("offered", "ada"))
    await view.told(
        offered("ada", "r-1"),
        requeued("ada", "offer_expired"),
        offered("bo", "r-2", seconds=10),
        assigned("bo", "r-2", seconds=5),
    )
    answer = await view.answers("accept")
    body = assert_problem(answer, 409)
    assert body["reason"] == "reservation_expired"
    assert (body["winner_id"], body["winner_at"]) == ("bo", at(5).isoformat())
    assert body["expires_at"] == at(0).isoformat()
    assert body["ticket"]["status"] == "offered"
    assert view.spool.items == []


@pytest.mark.parametrize(
    ("answer", "agent", "reservation", "reason"),
    [
        ("accept", "ada", "r-1", "reservation_expired"),
        ("decline", "ada", "r-1", "reservation_expired"),
        ("accept", "cem", "r-2", "reservation_expired"),
        ("decline", "bo", "r-2", "reservation_expired"),
        ("accept", "cem", "r-3", "not_yours"),
    ],
)
async def test_an_answer_to_an_offer_that_ended_or_was_anothers_is_refused(
    view: View, answer: str, agent: str, reservation: str, reason: str
) -> None:
    """However far behind the view is: an offer that has ended never begins again."""
    await view.told(
        offered("ada", "r-1"),
        requeued("ada", "agent_away"),
        offered("bo", "r-2", seconds=10),
        assigned("bo", "r-2"),
        offered("dee", "r-3", work="w-2"),
    )
    body = assert_problem(await view.answers(answer, agent, reservation), 409)
    assert body["reason"] == reason


@pytest.mark.parametrize(
    ("answer", "agent", "reservation"),
    [
        ("accept", "ada", "r-1"),
        ("decline", "ada", "r-1"),
        ("accept", "bo", "r-2"),
        ("decline", "cem", "r-3"),
        ("accept", "ada", "r-9"),
    ],
)
async def test_an_answer_that_may_stand_or_repeats_one_goes_on_to_the_router(
    view: View, answer: str, agent: str, reservation: str
) -> None:
    await view.told(
        offered("ada", "r-1"),
        offered("bo", "r-2", work="w-2"),
        assigned("bo", "r-2", work="w-2"),
        offered("cem", "r-3", work="w-3"),
        requeued("cem", "offer_declined", work="w-3"),
    )
    assert (await view.answers(answer, agent, reservation)).status_code == 202
    assert view.spool.event.reservation_id == reservation


async def test_of_several_who_were_asked_the_first_has_it_and_the_others_are_told(
    view: View,
) -> None:
    await view.told(offered("ada", "r-1"), offered("bo", "r-2"), assigned("bo", "r-2"))
    withdrawn = told(
        routing.OfferWithdrawn,
        work_id="w-1",
        agent_id="ada",
        reservation_id="r-1",
        reason="taken_by_other",
        at=at(5),
    )
    await view.told(withdrawn)
    body = assert_problem(await view.answers("accept"), 409)
    assert (body["winner_id"], body["winner_at"]) == ("bo", at(5).isoformat())


async def test_a_winner_who_gave_it_back_has_it_no_more(view: View) -> None:
    await view.told(
        offered("ada", "r-1"),
        requeued("ada", "offer_expired"),
        offered("bo", "r-2"),
        assigned("bo", "r-2"),
        requeued("bo", "agent_removed"),
    )
    body = assert_problem(await view.answers("accept"), 409)
    assert (body["winner_id"], body["winner_at"]) == (None, None)


async def test_who_waits_for_an_accept_hears_it_with_the_ticket_as_theirs(view: View) -> None:
    """Assignment tells of it before the ticket has moved; the answer waits for both."""
    await view.stands(("offered", "ada"))
    await view.told(offered("ada", "r-1", seconds=1))
    asking = asyncio.create_task(view.answers("accept", prefer="wait=10"))
    await view.waiting()
    await view.told(assigned("ada", "r-1", seconds=0), cause=view.spool.only.answer)
    await view.told(view.moved("assigned", "ada"), cause="e-1")
    answer = await asking
    assert answer.status_code == 200
    assert answer.json()["ticket"]["assignee"] == "ada"


async def test_who_waits_for_an_accept_is_not_shown_the_ticket_as_its_last_holders(
    view: View,
) -> None:
    await view.stands(("assigned", "ada"))
    await view.told(
        assigned("ada", "r-1", seconds=60),
        requeued("ada", "agent_vanished"),
        offered("bo", "r-2", seconds=9),
    )
    asking = asyncio.create_task(view.answers("accept", "bo", "r-2", prefer="wait=10"))
    await view.waiting()
    await view.told(assigned("bo", "r-2", seconds=0), cause=view.spool.only.answer)
    await view.told(view.moved("assigned", "bo"), cause="e-1")
    ticket = (await asking).json()["ticket"]
    assert (ticket["assignee"], ticket["version"]) == ("bo", 3)


async def test_a_late_answer_to_an_offer_of_another_ticket_is_not_shown_the_one_it_names(
    view: View,
) -> None:
    await view.stands(("offered", "ada"))
    offer = offered("ada", "r-1").model_copy(update={"ticket_id": "t-9"})
    await view.told(offer, requeued("ada", "offer_expired"))
    answer = await view.answers("accept")
    assert assert_problem(answer, 409)["ticket"] is None
    assert "etag" not in answer.headers


async def test_who_waits_and_comes_too_late_by_a_moment_hears_who_was_first(view: View) -> None:
    await view.stands(("offered", "ada"))
    await view.told(offered("ada", "r-1", seconds=1))
    asking = asyncio.create_task(view.answers("accept", prefer="wait=10"))
    await view.waiting()
    cause = view.spool.only.answer
    refused = told(
        routing.OfferAnswerRefused,
        work_id="w-1",
        agent_id="ada",
        reservation_id="r-1",
        reason="reservation_expired",
        at=at(0),
        winner_id="bo",
        winner_at=at(0.001),
    )
    # What the late answer found expired is told first, and does not count as its outcome.
    await view.told(requeued("ada", "offer_expired"), assigned("bo", "r-2"), refused, cause=cause)
    body = assert_problem(await asking, 409)
    assert (body["winner_id"], body["winner_at"]) == ("bo", at(0.001).isoformat())


async def test_who_waits_for_a_decline_hears_that_it_was_taken(view: View) -> None:
    await view.stands(("offered", "ada"))
    await view.told(offered("ada", "r-1", seconds=1))
    asking = asyncio.create_task(view.answers("decline", prefer="wait=10"))
    await view.waiting()
    await view.told(requeued("ada", "offer_declined"), cause=view.spool.only.answer)
    assert (await asking).json()["outcome"] == "done"


# ------------------------------------------------------------------------------------------------- repeats


async def test_what_was_refused_under_a_key_is_refused_again_as_long_as_it_does_not_fit(
    view: View,
) -> None:
    await view.stands(("solved", "ada"))
    first = assert_problem(await view.asks("reply", idempotency_key="k-1"), 409)
    await view.told(told(tickets.TicketNoteAdded, version=3, at=at(1)))
    answer = await view.asks("reply", idempotency_key="k-1")
    second = assert_problem(answer, 409)
    assert answer.headers["idempotent-replayed"] == "true"
    assert [second[name] for name in ("id", "reason", "state", "at")] == [
        first[name] for name in ("id", "reason", "state", "at")
    ]
    assert second["ticket"]["version"] == 3
    assert view.spool.items == []
    await view.told(told(tickets.TicketClosed, version=4, at=at(1)))
    for is_replayed in (False, True):
        answer = await view.asks("reply", idempotency_key="k-1")
        assert assert_problem(answer, 409)["reason"] == "closed"
        assert ("idempotent-replayed" in answer.headers) is is_replayed


async def test_what_was_refused_under_a_key_passes_once_it_fits(view: View) -> None:
    """Nothing was stored, so nothing stands against it; from then on it is never refused again."""
    await view.stands(("solved", "ada"))
    first = assert_problem(await view.asks("reply", idempotency_key="k-1"), 409)
    await view.told(told(tickets.TicketReopened, version=3, at=at(1)))
    answer = await view.asks("reply", idempotency_key="k-1")
    assert (answer.status_code, answer.json()["id"]) == (202, first["id"])
    assert len(view.spool.items) == 1
    view.version = 3
    await view.told(view.moved("solved", "bo"))
    assert (await view.asks("reply", idempotency_key="k-1")).status_code == 202


async def test_what_was_refused_under_a_key_passes_once_the_view_is_not_sure_of_it(
    view: View,
) -> None:
    await view.stands(("solved", "ada"))
    assert (await view.asks("reply", idempotency_key="k-1")).status_code == 409
    await view.pool.execute("DELETE FROM ticket_view_task")
    asking = asyncio.create_task(view.asks("reply", idempotency_key="k-1", prefer="wait=10"))
    await view.waiting()
    answered = told(tickets.TicketAnswered, version=3, at=at(0), command_id=view.spool.only.answer)
    await view.told(answered)
    assert ((await asking).status_code, (await asking).json()["outcome"]) == (200, "done")


async def test_who_asks_again_much_later_and_waits_hears_what_becomes_of_it(view: View) -> None:
    await view.stands(("assigned", "ada"))
    first = await view.asks("solve", idempotency_key="k-1")
    await view.pool.execute("UPDATE ticket_request SET asked_at = asked_at - interval '1 hour'")
    asking = asyncio.create_task(view.asks("solve", idempotency_key="k-1", prefer="wait=10"))
    await view.waiting()
    began = asyncio.get_running_loop().time()
    await view.told(view.moved("solved", "ada", command_id=first.json()["id"]))
    assert (await asking).json()["outcome"] == "done"
    assert asyncio.get_running_loop().time() - began < 8, "nobody was told of the outcome"


async def test_what_was_accepted_under_a_key_stays_so_when_it_would_not_fit_any_more(
    view: View,
) -> None:
    await view.stands(("assigned", "ada"))
    first = await view.asks("solve", idempotency_key="k-1")
    await view.told(view.moved("solved", "ada", command_id=first.json()["id"]))
    again = await view.asks("solve", idempotency_key="k-1", if_match='"2"')
    assert (again.status_code, again.json()) == (202, first.json())
    waited = await view.asks("solve", idempotency_key="k-1", prefer="wait=5")
    assert (waited.status_code, waited.json()["outcome"]) == (200, "done")
    assert waited.headers["idempotent-replayed"] == "true"
    assert len(view.spool.items) == 1


async def test_a_key_that_was_refused_is_not_another_requests_either(view: View) -> None:
    await view.stands(("solved", "ada"))
    await view.asks("reply", idempotency_key="k-1")
    answer = await view.asks("reply", {"text": "Other words."}, idempotency_key="k-1")
    assert_problem(answer, 422, "Idempotency-Key")


async def test_a_key_older_than_the_view_remembers_is_still_known(view: View) -> None:
    await view.stands(("assigned", "ada"))
    first = await view.asks("solve", idempotency_key="k-1")
    await view.pool.execute(
        "INSERT INTO idempotency (key, digest, answer) SELECT name, digest, request_id FROM ticket_request"
    )
    await view.pool.execute("DELETE FROM ticket_request")
    await view.told(view.moved("solved", "ada"))
    again = await view.asks("solve", idempotency_key="k-1", prefer="wait=1")
    assert (again.status_code, again.json()) == (202, first.json())


async def test_the_same_request_sent_many_times_at_once_is_one(view: View) -> None:
    await view.stands(("solved", "ada"))
    answers = await asyncio.gather(*(view.asks("reply", idempotency_key="k-1") for _ in range(8)))
    assert {answer.status_code for answer in answers} == {409}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await view.pool.fetchval("SELECT count(*) FROM ticket_request") == 1


# ------------------------------------------------------------------------------------- whether it is up to date


class Reading:
    """A stage at work on two tasks, and what its client last heard of the topics' ends."""

    def __init__(self) -> None:
        self.tasks = {number: self._task(number) for number in (0, 1)}
        self.assignment = SimpleNamespace(plain=lambda topic: topic.removeprefix("x."))
        self.consumer: Any = self
        self.ends: dict[TopicPartition, int | None] = {}
        self.silent_seconds: dict[TopicPartition, float] = {}
        for task in self.tasks.values():
            for partition in task.partitions:
                self.ends[partition], self.silent_seconds[partition] = 5, 0.2

    def _task(self, number: int) -> Any:
        partitions = (TopicPartition("x.tickets", number), TopicPartition("x.routing", number))
        position = SimpleNamespace(offsets={"tickets": 5, "routing": 5})
        return SimpleNamespace(state=TaskState.OWNED, partitions=partitions, position=position)

    def assignment_of(self) -> set[TopicPartition]:
        return set(self.ends)

    def highwater(self, partition: TopicPartition) -> int | None:
        return self.ends[partition]

    def last_poll_timestamp(self, partition: TopicPartition) -> int | None:
        if self.ends[partition] is None:
            return None
        return int((now_seconds() - self.silent_seconds[partition]) * 1000)


def reading() -> Any:
    """The client's own `assignment()` beside the worker's `assignment`."""
    made = Reading()
    made.consumer = SimpleNamespace(
        assignment=made.assignment_of,
        highwater=made.highwater,
        last_poll_timestamp=made.last_poll_timestamp,
    )
    return made


@pytest.mark.parametrize(
    "trouble", ["silent", "behind", "not_known_yet", "halted", "not_assigned", "no_client"]
)
async def test_a_task_is_up_to_date_while_the_broker_says_that_all_of_it_was_read(
    view: View, trouble: str
) -> None:
    """Whatever is the matter with one of them, the other is judged by itself; a broker that is away says nothing."""
    lookout, at_work = Lookout(), reading()
    assert set(await lookout.look(at_work, view.pool)) == {0, 1}
    routing_1, expected = TopicPartition("x.routing", 1), {0}
    await view.pool.execute("DELETE FROM ticket_view_task")
    match trouble:
        case "silent":
            at_work.silent_seconds[routing_1] = CURRENT_SECONDS + 0.5
        case "behind":
            at_work.ends[routing_1] = 6
        case "not_known_yet":
            at_work.ends[routing_1] = None
        case "halted":
            at_work.tasks[1].state = TaskState.HALTED
        case "not_assigned":
            del at_work.ends[routing_1]
        case _:
            at_work.consumer, expected = None, set()
    assert set(await lookout.look(at_work, view.pool)) == expected
    marked = await view.pool.fetch("SELECT task FROM ticket_view_task")
    assert {row["task"] for row in marked} == expected


async def test_a_task_counts_as_up_to_date_as_of_when_the_broker_said_so(view: View) -> None:
    lookout, at_work = Lookout(), reading()
    at_work.silent_seconds[TopicPartition("x.tickets", 1)] = 2.0
    await lookout.look(at_work, view.pool)
    apart = await view.pool.fetchval(
        "SELECT extract(epoch FROM max(current_at) - min(current_at))::float8 FROM ticket_view_task"
    )
    assert apart == pytest.approx(1.8, abs=0.05)


# ----------------------------------------------------------------------------------------------- forgetting


async def test_requests_and_ended_offers_are_forgotten_after_a_day_and_tickets_after_a_month(
    view: View,
) -> None:
    await view.stands(("solved", "ada"))
    await view.told(
        told(tickets.TicketClosed, version=3, at=at(0)),
        offered("ada", "r-1"),
        requeued("ada", "offer_expired"),
        offered("bo", "r-2"),
        assigned("bo", "r-2"),
    )
    await view.asks("note", idempotency_key="k-1")
    asked = await view.asks("note", idempotency_key="k-2")
    await view.told(told(tickets.TicketClosed, version=4, at=at(0)), cause=asked.json()["id"])
    await view.pool.execute("UPDATE ticket_request SET asked_at = $1", NOW)

    async def left(now: datetime) -> list[int]:
        async with view.pool.acquire() as connection:
            await forget(connection, now)
            return [
                await connection.fetchval(f"SELECT count(*) FROM {table}")
                for table in ("ticket_request", "ticket_offer", "ticket_view")
            ]

    assert await left(at(11) + timedelta(hours=24)) == [2, 2, 1]
    assert await left(NOW + timedelta(hours=24)) == [2, 1, 1]
    # What nobody knows the outcome of stays: the router may not have come to it yet.
    assert await left(NOW + timedelta(hours=24, seconds=1)) == [1, 1, 1]
    assert await left(NOW + timedelta(days=29)) == [1, 1, 1]
    assert await left(NOW + timedelta(days=31)) == [0, 0, 0]


async def test_much_is_forgotten_in_pieces(view: View) -> None:
    """So that no statement runs into the pool's time limit, however much a day has left behind."""
    await view.pool.execute(
        "INSERT INTO ticket_offer (reservation_id, agent_id, ticket_id, work_id, offered_at)"
        " SELECT 'r-' || n, 'ada', 't-1', 'w-1', $1 FROM generate_series(1, 25) AS n",
        at(0),
    )
    deleted: list[str] = []

    class Counting:
        def __init__(self, connection: Any) -> None:
            self._connection = connection

        async def execute(self, *args: Any) -> str:
            status = str(await self._connection.execute(*args))
            deleted.append(status)
            return status

    async with view.pool.acquire() as connection:
        counting: Any = Counting(connection)
        await forget(counting, NOW + timedelta(days=2), rows=10)
    assert deleted == ["DELETE 0", "DELETE 10", "DELETE 10", "DELETE 5", "DELETE 0"]
    assert await view.pool.fetchval("SELECT count(*) FROM ticket_offer") == 0
