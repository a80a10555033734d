"""Telling others on a real Kafka and a real PostgreSQL: a process that dies around a call doubles nothing and loses nothing."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from chassis.batch import partition_of
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.settings import Settings
from chassis.task import Worker
from chassis.web import serve
from schemas.elsewhere import AssignmentElsewhereDone, AssignmentElsewhereFailed
from schemas.envelope import Envelope
from services.router import elsewhere
from services.router.adapters import slack, trello, zendesk
from services.router.adapters.api import Secrets
from services.router.core.elsewhere.policy import Lists, Place, Places
from services.router.elsewhere import ElsewhereStage
from services.router.elsewhere_store import KEPT, sweep
from tests.fakes import desk
from tests.fakes import slack as slack_fake
from tests.fakes import trello as trello_fake
from tests.fakes import zendesk as zendesk_fake
from tests.integration.kit import (
    PARTITIONS,
    Driver,
    MakeTopic,
    crash,
    driving,
    make_settings,
    read_topic,
    until,
)
from tests.unit.router.elsewhere_kit import (
    CONVERSATION,
    TICKET,
    assigned,
    closed,
    escalated,
    opened,
    solved,
    taken,
)

SQL = Path(elsewhere.__file__).with_name("sql")
ROOT = Path(__file__).parents[2]
WAITING, ASSIGNED, SOLVED = (f"5f0aa1bb22cc33dd44ee550{n}" for n in (1, 2, 3))
ADA = "5f0aa1bb22cc33dd44ee6601"
SECRETS = {
    "SIGNALBOX_TEST_ZENDESK": "zd-client-secret",
    "SIGNALBOX_TEST_SLACK": "xoxb-bot-token",
    "SIGNALBOX_TEST_TRELLO_KEY": "trello-key",
    "SIGNALBOX_TEST_TRELLO_TOKEN": "trello-token",
}


@dataclass
class Vendors:
    """The three vendors, each with one place."""

    desk: zendesk_fake.Zendesk
    team: slack_fake.Slack
    board: trello_fake.Trello
    servers: dict[str, Any] = field(default_factory=dict)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve all three under one address: they share no path."""
        name = "desk"
        if scope.get("path", "").startswith("/1/"):
            name = "board"
        elif scope.get("path", "").startswith("/api/") and "/v2/" not in scope["path"]:
            name = "team"
        await self.servers[name](scope, receive, send)


@pytest.fixture
def vendors() -> Vendors:
    made = Vendors(
        zendesk_fake.Zendesk(scope="read write", agents=(256, 257), groups=(31,)),
        slack_fake.Slack(
            members={"U0ADA": "ada@lantern-oak.example"}, now=SystemClock().now().timestamp()
        ),
        trello_fake.Trello(lists=(WAITING, ASSIGNED, SOLVED), members={ADA: "adalovelace"}),
    )
    made.desk.tickets["5158"] = {
        "id": 5158, "assignee_id": None, "group_id": None, "tags": [], "status": "open",
        "updated_at": "2026-11-24T08:00:00Z",
    }  # fmt: skip
    made.servers = {
        "desk": made.desk.server(), "team": made.team.server(), "board": made.board.server(),
    }  # fmt: skip
    return made


def places(base: str, delays: float = 0.05) -> Places:
    """A place with each vendor."""
    made = {
        "desk": Place(
            "zendesk",
            zendesk.Settings(
                account="desk", url=base, client_id="signalbox",
                client_secret="env:SIGNALBOX_TEST_ZENDESK", agents={"ada": "256", "grace": "257"},
                groups={"technical": "31"},
            ),
        ),
        "team": Place(
            "slack",
            slack.Settings(
                url=f"{base}/api", token="env:SIGNALBOX_TEST_SLACK", agents={"ada": "U0ADA"}
            ),
        ),
        "board": Place(
            "trello",
            trello.Settings(
                url=base, key="env:SIGNALBOX_TEST_TRELLO_KEY", token="env:SIGNALBOX_TEST_TRELLO_TOKEN",
                board=trello_fake.BOARD, agents={"ada": "adalovelace"},
                lists=Lists(waiting=WAITING, assigned=ASSIGNED, solved=SOLVED),
            ),
        ),
    }  # fmt: skip
    return Places(
        places=made, news=timedelta(days=36_500), delays=(timedelta(seconds=delays),), jitter=0.0
    )


class Holder:
    """A policy with places and nothing else."""

    def __init__(self, elsewhere: Places) -> None:
        self.current = self
        self.elsewhere = elsewhere


@dataclass
class Teller:
    """Publishes what the router's other stages tell, numbered as they number it."""

    driver: Driver
    sequences: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    async def tell(self, *events: Any) -> None:
        for event in events:
            stage = "router.tickets" if event.TOPIC == "tickets" else "router.assignment"
            key = event.conversation_id
            partition = partition_of(key, PARTITIONS)
            self.sequences[f"{event.TOPIC}-{partition}"] += 1
            number = self.sequences[f"{event.TOPIC}-{partition}"]
            envelope = Envelope(
                type=event.TYPE, source=f"signalbox/{stage}/{partition}",
                id=f"{event.TOPIC}-{partition}-{number}", time=SystemClock().now(), partitionkey=key,
                sequence=number,
            )  # fmt: skip
            await self.driver.event(event.TOPIC, envelope, event)


@pytest.fixture
async def settings(
    bootstrap: str,
    database: str,
    topic_prefix: str,
    make_topic: MakeTopic,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for topic in ("tickets", "routing", "dead-letters"):
        await make_topic(topic, partitions=PARTITIONS)
    await migrate(database, "router", [SQL])
    return make_settings(bootstrap, database, topic_prefix)


@pytest.fixture
async def teller(settings: Settings) -> AsyncIterator[Teller]:
    async with driving(settings) as driver:
        yield Teller(driver)


@pytest.fixture
async def look(settings: Settings) -> AsyncIterator[Any]:
    """A connection of the test's own into the router's schema."""
    connection = await asyncpg.connect(settings.dsn, server_settings={"search_path": "router"})
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def running(
    settings: Settings, vendors: Vendors, told: Places | None = None
) -> AsyncIterator[Worker[Any]]:
    """The stage at work in this process, for which the fakes are the whole internet."""
    pool = await open_pool(settings.dsn, "router", 4, "test")
    stage = ElsewhereStage(
        cast("PolicyHolder[Any]", Holder(told or places(desk.BASE))),
        lambda: desk.client(vendors),
        seconds=120.0,
        secrets=Secrets(),
    )
    worker = Worker(stage, settings, pool, SystemClock())
    try:
        await worker.start()
        await until(
            "all tasks are owned",
            lambda: (
                len(worker.tasks) == settings.partitions
                and all(task.epoch for task in worker.tasks.values())
            ),
        )
        yield worker
    finally:
        await worker.stop()
        await pool.close()


async def settled(look: Any, says: str, count: int) -> None:
    """Wait until so many items of the ticket show this, and nothing is under way."""

    async def holds() -> bool:
        rows = await look.fetch("SELECT status, says FROM elsewhere_item")
        done = [row for row in rows if (row["status"], row["says"]) == ("shown", says)]
        return len(done) == count and await look.fetchval("SELECT count(*) = 0 FROM effect")

    await until(f"{count} places show {says}", holds)


async def test_a_ticket_is_shown_by_each_place_and_the_story_says_so(
    settings: Settings, vendors: Vendors, teller: Teller, look: Any
) -> None:
    async with running(settings, vendors):
        await teller.tell(opened())
        await settled(look, "waiting", 1)
        await teller.tell(taken(), assigned())
        await settled(look, "assigned", 3)
        await teller.tell(escalated())
        await settled(look, "escalated", 2)
        await teller.tell(closed())
        closed_at = "SELECT count(*) = 3 FROM elsewhere_item WHERE closed_at IS NOT NULL"
        await until("the rows say that the ticket is closed", lambda: look.fetchval(closed_at))
    pool, now = await open_pool(settings.dsn, "router", 1, "test"), SystemClock().now()
    assert await sweep(pool, now + KEPT - timedelta(hours=1)) == 0
    assert await sweep(pool, now + KEPT + timedelta(hours=1)) == 3
    assert await look.fetchval("SELECT count(*) FROM elsewhere_item") == 0
    await pool.close()
    ticket = vendors.desk.tickets["5158"]
    assert (ticket["assignee_id"], ticket["group_id"]) == (None, 31)
    (message,) = vendors.team.messages()
    assert "ada has it" in message["text"]
    (card,) = vendors.board.cards
    assert (card["idList"], card["idMembers"]) == (WAITING, [])
    told = [event for _, event, _ in await read_topic(settings, "routing")]
    shown = [
        (event.place, event.says) for event in told if isinstance(event, AssignmentElsewhereDone)
    ]
    assert sorted(shown) == [
        ("board", "assigned"), ("board", "escalated"), ("board", "waiting"),
        ("desk", "assigned"), ("desk", "escalated"), ("team", "assigned"),
    ]  # fmt: skip
    rows = await look.fetch("SELECT data FROM routing_event WHERE ticket_id = $1", TICKET)
    assert len(rows) == len(shown)
    assert {json.loads(row["data"])["place"] for row in rows} == {"desk", "team", "board"}


async def test_a_place_that_hangs_leaves_room_for_another(
    settings: Settings, vendors: Vendors, teller: Teller, look: Any
) -> None:
    """Two dozen assignments for a helpdesk that never answers, all of one task, and one offer's message after them."""
    told = places(desk.BASE)
    del cast("dict[str, Place]", told.places)["board"]
    partition = partition_of(CONVERSATION, PARTITIONS)
    others = [
        name
        for name in (f"conversation-{n}" for n in range(100))
        if partition_of(name, PARTITIONS) == partition
    ][:24]
    async with running(settings, vendors, told) as worker:
        vendors.desk.hangs_always = True
        for name in others:
            about = {"ticket_id": f"ticket-of-{name}", "conversation_id": name}
            await teller.tell(opened(**about), assigned(**about))
        await asyncio.wait_for(vendors.desk.hung.wait(), 20)
        await teller.tell(opened(), taken())
        await until("the message is there", lambda: vendors.team.messages())
        shown = "SELECT count(*) FROM elsewhere_item WHERE place = 'desk' AND status = 'shown'"
        assert await look.fetchval(shown) == 0
        await crash(worker)


async def test_an_outage_is_sat_out_and_a_refusal_is_told(
    settings: Settings, vendors: Vendors, teller: Teller, look: Any
) -> None:
    for _ in range(3):
        vendors.desk.refuse_write(503)
    vendors.board.token = "another"
    async with running(settings, vendors):
        await teller.tell(opened(), assigned())
        await settled(look, "assigned", 1)
        waiting = "SELECT reason FROM elsewhere_item WHERE place = 'board' AND status = 'retrying'"
        await until("the board is tried again", lambda: look.fetchval(waiting))
        assert await look.fetchval(waiting) == "unauthorized"
        del vendors.desk.tickets["5158"]
        await teller.tell(assigned("grace", "09:04"))
        failed = "SELECT reason FROM elsewhere_item WHERE place = 'desk' AND status = 'failed'"
        await until("the desk has failed", lambda: look.fetchval(failed))
    told = [event for _, event, _ in await read_topic(settings, "routing")]
    desks: list[Any] = [event for event in told if getattr(event, "place", "") == "desk"]
    assert [(type(event), event.attempts) for event in desks] == [
        (AssignmentElsewhereDone, 4),
        (AssignmentElsewhereFailed, 1),
    ]
    assert (desks[1].reason, desks[1].detail) == ("missing", "404")


@pytest.mark.parametrize("is_done", [True, False], ids=["after it was done", "before it was done"])
async def test_a_crash_during_a_call_doubles_nothing_and_loses_nothing(
    is_done: bool, settings: Settings, vendors: Vendors, teller: Teller, look: Any
) -> None:
    """Three tickets; when the process dies, one's message, another's card and the third's assignee are under way."""
    vendors.team.channels["D0ADA"] = []
    cases = []
    for number in range(3):
        ids = {"ticket_id": f"ticket-{number}", "conversation_id": f"conversation-{number}"}
        thread = f"616{number}"
        vendors.desk.tickets[thread] = vendors.desk.tickets["5158"] | {"id": int(thread)}
        taking = taken().model_copy(update=ids)
        cases.append((opened(**ids, vendor_thread=thread), taking, assigned(**ids), ids))
    told = places(desk.BASE)
    board = told.places["board"].settings
    assert isinstance(board, trello.Settings)
    # Without a list for those that wait, a card is made when somebody has the ticket.
    lists = board.lists.model_copy(update={"waiting": None})
    without = Place("trello", board.model_copy(update={"lists": lists}))
    told = replace(told, places={**told.places, "board": without})
    async with running(settings, vendors, told) as worker:
        # Where to post is known beforehand, so that it is the post that hangs.
        stage = cast("ElsewhereStage", worker.stage)
        api = await stage.api("team", stage.places.places["team"])
        api.learn("U0ADA", "D0ADA")
        for fake in (vendors.desk, vendors.team, vendors.board):
            fake.hang(is_done=is_done)
        first, second, third = cases
        await teller.tell(first[0], first[1])
        await asyncio.wait_for(vendors.team.hung.wait(), 20)
        await teller.tell(*second[:3])
        await asyncio.wait_for(vendors.board.hung.wait(), 20)
        await teller.tell(*third[:3])
        await asyncio.wait_for(vendors.desk.hung.wait(), 20)
        await teller.tell(first[2])
        await crash(worker)
    async with running(settings, vendors, told):
        await settled(look, "assigned", 9)
        for _, _, _, ids in cases:
            await teller.tell(solved().model_copy(update=ids))
        await settled(look, "solved", 3)
    assert [vendors.desk.tickets[f"616{n}"]["assignee_id"] for n in range(3)] == [256] * 3
    assert len(vendors.desk.wrote) == 3
    assert ["ada has it" in one["text"] for one in vendors.team.messages()] == [True] * 3
    assert [(one["idList"], one["idMembers"]) for one in vendors.board.cards] == [
        (SOLVED, [ADA])
    ] * 3


POLICY = """
news_hours: 720
# Longer than it takes to kill the next process: what a killed one left in doubt is tried again after all of them.
retry: {{delays_seconds: [4], jitter: 0}}
places:
  desk:
    vendor: zendesk
    account: desk
    url: {base}
    client_id: signalbox
    client_secret: env:SIGNALBOX_TEST_ZENDESK
    agents: {{ada: "256"}}
  team:
    vendor: slack
    url: {base}/api
    token: env:SIGNALBOX_TEST_SLACK
    agents: {{ada: U0ADA}}
  board:
    vendor: trello
    url: {base}
    key: env:SIGNALBOX_TEST_TRELLO_KEY
    token: env:SIGNALBOX_TEST_TRELLO_TOKEN
    board: {board}
    lists: {{assigned: {assigned}, solved: {solved}}}
    agents: {{ada: adalovelace}}
"""


def policy_folder(folder: Path, base: str) -> Path:
    """The example policy, with our places and the account that the tickets come from."""
    made = folder / "policy"
    shutil.copytree(ROOT / "policy", made)
    text = POLICY.format(base=base, board=trello_fake.BOARD, assigned=ASSIGNED, solved=SOLVED)
    (made / "elsewhere.yaml").write_text(text, "utf-8")
    channels = (made / "channels.yaml").read_text("utf-8")
    (made / "channels.yaml").write_text(
        channels.replace("channels: {}", "channels: {desk: {channel: zendesk}}"), "utf-8"
    )
    return made


@contextlib.asynccontextmanager
async def process(settings: Settings, folder: Path, failpoints: str) -> AsyncIterator[Any]:
    """The router's own process with this stage alone, ended as planned where it did not end by itself."""
    environment = {
        **os.environ, **SECRETS,
        "SIGNALBOX_KAFKA": settings.kafka, "SIGNALBOX_DATABASE_URL": settings.dsn,
        "SIGNALBOX_TOPIC_PREFIX": settings.topic_prefix, "SIGNALBOX_PARTITIONS": str(PARTITIONS),
        "SIGNALBOX_POLICY": str(folder), "SIGNALBOX_FAILPOINTS": failpoints,
        # The group waits so long for a process that was killed.
        "SIGNALBOX_SESSION_TIMEOUT_SECONDS": "3",
    }  # fmt: skip
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.router", "serve", "--stage", "elsewhere",
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield made
    finally:
        if made.returncode is None:
            made.terminate()
            await asyncio.wait_for(made.wait(), 30)


@pytest.mark.slow
async def test_a_process_killed_between_each_call_and_its_commit_doubles_nothing(
    settings: Settings, vendors: Vendors, teller: Teller, look: Any, tmp_path: Path
) -> None:
    """The first call to each place is made by a process that is killed when it has the answer and before it is recorded:
    the message, the card, and the helpdesk's assignee.
    """
    stopping, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(cast("Any", vendors), "127.0.0.1", 0, stopping, on_bound=bound.set_result)
    )
    folder = policy_folder(tmp_path, f"http://127.0.0.1:{await bound}")
    now = SystemClock().now()
    first = (
        opened().model_copy(update={"at": now}),
        taken().model_copy(update={"assigned_at": now}),
    )
    wrote = []
    for news in (first, (assigned().model_copy(update={"at": now}),), ()):
        await teller.tell(*news)
        async with process(settings, folder, "effect_done=kill") as made:
            assert await asyncio.wait_for(made.wait(), 60) == -9
        wrote.append(
            (len(vendors.team.messages()), len(vendors.board.cards), len(vendors.desk.wrote))
        )
    # Each has been told once, each by a process that did not live to say so.
    assert wrote == [(1, 0, 0), (1, 1, 0), (1, 1, 1)]
    async with process(settings, folder, ""):
        await settled(look, "assigned", 3)
    stopping.set()
    await serving
    assert vendors.desk.tickets["5158"]["assignee_id"] == 256
    assert len(vendors.desk.wrote) == 1
    (message,) = vendors.team.messages()
    assert "ada has it" in message["text"]
    (card,) = vendors.board.cards
    assert (card["idList"], card["idMembers"]) == (ASSIGNED, [ADA])
