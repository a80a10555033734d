"""The gateway and the real router together: of two agents one has the ticket, and whoever comes too late is told by whom.

Everything goes its way: HTTP, spool, Kafka, both stages of the router, the view, and back to whoever waits.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import httpx
import pytest

from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.settings import Settings
from chassis.spool import Numberer, Spool
from chassis.stage import Stage
from chassis.task import Worker
from schemas import ids
from schemas.envelope import Envelope
from schemas.messages import MessageReceived
from services.ingest import api, ticket_view
from services.ingest.adapters.secrets import Secrets
from services.ingest.handlers import POLICY as CHANNELS_POLICY
from services.ingest.ticket_view_stage import Lookout, TicketViewStage
from services.router import handlers as router
from services.router.handlers import AssignmentStage, TicketsStage
from tests.integration.kit import PARTITIONS, MakeTopic, driving, make_settings, until

REPOSITORY = Path(__file__).parents[2]
TOPICS = (
    "inbound",
    "messages",
    "commands",
    "roster",
    "routing-work",
    "routing",
    "tickets",
    "sla",
    "notifications",
    "dead-letters",
)
CHANNELS = "api_keys: [{name: console, secret: 'env:AGENTS', scopes: [agents, roster]}]\n"
AGENTS = {"Authorization": "Bearer agents-key"}
WAIT = {"Prefer": "wait=10"}
SERVES = {
    "queues": ["service"],
    "skills": dict.fromkeys(("orders", "payments", "delivery", "accounts"), 9),
    "languages": {"en": 9},
    "capacity": 100,
}


@dataclass
class Desk:
    """Two agents' way in, and the database behind it to look into."""

    http: httpx.AsyncClient
    pool: asyncpg.Pool
    routers: asyncpg.Pool
    settings: Settings
    conversation_id: str = "c-1"

    @property
    def ticket_id(self) -> str:
        return ids.ticket_id(self.conversation_id, 1)

    @property
    def path(self) -> str:
        return f"/v1/conversations/{self.conversation_id}/tickets/{self.ticket_id}"

    async def post(self, path: str, agent: str, wait: bool = True, **body: Any) -> httpx.Response:
        return await self.http.post(
            path,
            json={"agent_id": agent, **body} if agent else body,
            headers={**AGENTS, **(WAIT if wait else {})},
        )

    async def is_there(self, agent: str, presence: str = "available") -> None:
        if presence == "available":
            answer = await self.http.put(f"/v1/agents/{agent}", json=SERVES, headers=AGENTS)
            assert answer.status_code == 202, answer.text
        answer = await self.post(f"/v1/agents/{agent}/presence", "", presence=presence)
        assert answer.status_code == 202, answer.text

    async def writes(self, driver: Any) -> None:
        """A customer writes; a case opens."""
        content = {**MessageReceived.EXAMPLE["content"], "text": "Where is my lamp?"}
        event = MessageReceived.model_validate(
            {
                **MessageReceived.EXAMPLE,
                "conversation_id": self.conversation_id,
                "content": {**content, "subject": "My lamp", "language": "en"},
            }
        )
        part = partition_of(self.conversation_id, PARTITIONS)
        envelope = Envelope(
            type=event.TYPE,
            source=f"signalbox/ingest.normaliser/{part}",
            id="m-1",
            time=datetime.now(UTC),
            partitionkey=self.conversation_id,
            sequence=1,
        )
        await driver.event("messages", envelope, event)

    async def offer_to(self, agent: str) -> str:
        """Return the offer that this agent has, as soon as it is in view."""
        found: list[str] = []

        async def is_made() -> bool:
            row = await self.pool.fetchval(
                "SELECT reservation_id FROM ticket_offer WHERE agent_id = $1 AND ended_at IS NULL",
                agent,
            )
            found[:] = [row] if row else []
            return bool(found) and (await self.stands())["status"] == "offered"

        await until(f"{agent} is asked", is_made)
        return found[0]

    async def accepts(self, reservation_id: str, agent: str, wait: bool = True) -> httpx.Response:
        path = f"/v1/offers/{reservation_id}/accept"
        return await self.post(path, agent, wait, ticket_id=self.ticket_id)

    async def stands(self) -> dict[str, Any]:
        answer = await self.http.get(self.path, headers=AGENTS)
        body: dict[str, Any] = answer.json()
        return body

    async def is_current(self) -> bool:
        rows = await self.pool.fetchval("SELECT count(*) FROM ticket_view_task")
        return bool(rows == PARTITIONS)


@contextlib.asynccontextmanager
async def at_work(
    stage: Stage[Any], settings: Settings, pool: asyncpg.Pool
) -> AsyncIterator[Worker[Any]]:
    worker = Worker(stage, settings, pool, SystemClock())
    try:
        await worker.start()
        await until(
            f"{stage.name} has its tasks",
            lambda: (
                len(worker.tasks) == PARTITIONS and all(one.epoch for one in worker.tasks.values())
            ),
        )
        yield worker
    finally:
        await worker.stop()


@contextlib.asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def folder_of(tmp_path: Path) -> Path:
    """The repository's policy, with offers that outlast a slow machine, to two agents at once; and one key."""
    folder = tmp_path / "policy"
    shutil.copytree(REPOSITORY / "policy", folder)
    routing = (folder / "routing.yaml").read_text(encoding="utf-8")
    assert "\n  seconds: 30\n" in routing
    (folder / "routing.yaml").write_text(
        routing.replace("\n  seconds: 30\n", "\n  seconds: 600\n  parallel: {service: 2}\n"),
        encoding="utf-8",
    )
    (folder / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    return folder


@pytest.fixture
async def desk(
    database: str,
    bootstrap: str,
    topic_prefix: str,
    make_topic: MakeTopic,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Desk]:
    monkeypatch.setenv("AGENTS", "agents-key")
    for name in TOPICS:
        await make_topic(name, partitions=PARTITIONS)
    for service, module in (("ingest", api), ("router", router)):
        await migrate(database, service, [Path(str(module.__file__)).with_name("sql")])
    settings = make_settings(bootstrap, database, topic_prefix)
    folder, clock, stopping = folder_of(tmp_path), SystemClock(), asyncio.Event()
    ours = await open_pool(database, "ingest", 8, "test ingest")
    routers = await open_pool(database, "router", 6, "test router")
    policies = PolicyHolder(folder, router.POLICY)
    spool, waiters = Spool(ours, settings), ticket_view.Waiters(database, 50)
    app = api.create_app(
        api.Deps(
            spool=spool,
            policies=PolicyHolder(folder, CHANNELS_POLICY),
            clock=clock,
            secrets=Secrets(),
            tickets=ticket_view.TicketView(ticket_view.Deps(ours, waiters, clock, PARTITIONS)),
        )
    )
    transport = httpx.ASGITransport(app)
    try:
        async with contextlib.AsyncExitStack() as stack:
            enter = stack.enter_async_context
            http = await enter(
                httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30)
            )
            await enter(at_work(TicketsStage(policies), settings, routers))
            await enter(at_work(AssignmentStage(policies), settings, routers))
            worker = await enter(at_work(TicketViewStage(), settings, ours))
            runtime: Any = SimpleNamespace(
                stopping=stopping,
                pool=ours,
                clock=clock,
                health=SimpleNamespace(workers=(worker,)),
            )
            numberer = Numberer(ours, settings, clock, spool)
            await enter(
                running(spool.run(), numberer.run(), waiters.run(stopping), Lookout()(runtime))
            )
            made = Desk(http, ours, routers, settings)
            await until("the view is up to date", made.is_current)
            yield made
    finally:
        stopping.set()
        await ours.close()
        await routers.close()


async def test_of_two_agents_one_has_the_ticket_and_the_other_is_told_who_and_since_when(
    desk: Desk,
) -> None:
    """R7: exactly one outcome, and the loser is told which; by the view, and by the router where the view knows nothing."""
    await desk.is_there("ada")
    async with driving(desk.settings) as driver:
        await desk.writes(driver)
    to_ada = await desk.offer_to("ada")
    await desk.is_there("ada", "away")
    await desk.is_there("bo")
    to_bo = await desk.offer_to("bo")
    taken = await desk.accepts(to_bo, "bo")
    assert taken.status_code == 200, taken.text
    ticket = taken.json()["ticket"]
    assert (taken.json()["outcome"], ticket["status"], ticket["assignee"]) == (
        "done",
        "assigned",
        "bo",
    )
    late = await desk.accepts(to_ada, "ada", wait=False)
    assert late.status_code == 409, late.text
    body = late.json()
    assert (body["reason"], body["winner_id"]) == ("reservation_expired", "bo")
    taken_at = datetime.fromisoformat(body["winner_at"])
    assert taken_at <= datetime.fromisoformat(ticket["since"]) < taken_at + timedelta(seconds=20)
    assert (body["ticket"]["status"], body["ticket"]["assignee"]) == ("assigned", "bo")
    await desk.pool.execute("DELETE FROM ticket_offer")
    by_router = await desk.accepts(to_ada, "ada")
    assert by_router.status_code == 409, by_router.text
    told = by_router.json()
    assert (told["reason"], told["winner_id"], told["winner_at"]) == (
        "reservation_expired",
        "bo",
        body["winner_at"],
    )
    again = await desk.accepts(to_bo, "bo", wait=False)
    assert again.status_code == 202
    assert (await desk.stands())["assignee"] == "bo"


async def test_of_two_agents_who_accept_at_the_same_moment_exactly_one_has_the_ticket(
    desk: Desk,
) -> None:
    """R7: both wait; one hears that it is theirs, the other who was first and when."""
    await desk.is_there("ada")
    await desk.is_there("bo")
    await until("both are known", lambda: are_known(desk))
    async with driving(desk.settings) as driver:
        await desk.writes(driver)
    offers = {agent: await desk.offer_to(agent) for agent in ("ada", "bo")}
    assert len(set(offers.values())) == 2
    answers = await asyncio.gather(
        *(desk.accepts(reservation, agent) for agent, reservation in offers.items())
    )
    by_status = {
        answer.status_code: (agent, answer.json())
        for agent, answer in zip(offers, answers, strict=True)
    }
    assert set(by_status) == {200, 409}, [answer.text for answer in answers]
    (winner, won), (_, lost) = by_status[200], by_status[409]
    assert won["ticket"]["assignee"] == winner
    assert (lost["winner_id"], lost["ticket"]["assignee"]) == (winner, winner)
    assert datetime.fromisoformat(lost["winner_at"]) <= datetime.fromisoformat(lost["at"])


async def test_what_is_done_is_told_to_who_waits_and_what_comes_too_late_is_refused_with_where_it_stands(
    desk: Desk,
) -> None:
    await desk.is_there("bo")
    async with driving(desk.settings) as driver:
        await desk.writes(driver)
    to_bo = await desk.offer_to("bo")
    early = await desk.post(f"{desk.path}/reply", "bo", text="It left today.")
    assert (early.status_code, early.json()["reason"]) == (409, "not_assignee")
    assert early.json()["ticket"]["status"] == "offered"
    assert (await desk.accepts(to_bo, "bo")).status_code == 200
    version = (await desk.stands())["version"]
    answered = await desk.post(f"{desk.path}/reply", "bo", text="It left today.")
    assert answered.status_code == 200, answered.text
    assert answered.json()["ticket"]["version"] > version
    outdated = await desk.http.post(
        f"{desk.path}/note",
        json={"agent_id": "bo", "text": "Called."},
        headers={**AGENTS, "If-Match": f'"{version}"'},
    )
    assert outdated.status_code == 412
    assert outdated.json()["ticket"]["assignee"] == "bo"
    solved = await desk.post(f"{desk.path}/solve", "bo", cause="late_by_shipper")
    assert solved.status_code == 200, solved.text
    assert solved.json()["ticket"]["status"] == "solved"
    await until("nothing is under way", lambda: is_settled(desk))
    late = await desk.post(f"{desk.path}/reply", "bo", False, text="One more thing.")
    assert late.status_code == 409, late.text
    assert (late.json()["reason"], late.json()["ticket"]["status"]) == ("already_solved", "solved")
    before = late.json()["ticket"]
    await desk.pool.execute("DELETE FROM ticket_view")
    by_router = await desk.post(f"{desk.path}/reply", "bo", text="One more thing.")
    assert by_router.status_code == 409, by_router.text
    assert (by_router.json()["reason"], by_router.json()["state"]) == ("already_solved", "solved")
    assert before["since"] == solved.json()["ticket"]["since"]
    noted = await desk.post(f"{desk.path}/note", "bo", text="For whoever comes next.")
    assert (noted.status_code, noted.json()["outcome"]) == (200, "done")


async def are_known(desk: Desk) -> bool:
    found: int = await desk.routers.fetchval(
        "SELECT count(*) FROM assignment_agent WHERE presence = 'available'"
    )
    return found == 2


async def is_settled(desk: Desk) -> bool:
    found: int = await desk.pool.fetchval(
        "SELECT count(*) FROM ticket_request WHERE outcome IS NULL"
    )
    return found == 0
