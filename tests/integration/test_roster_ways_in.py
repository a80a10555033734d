"""The roster's ways in, from the outside to the router's own tables: SCIM, a table by the command line, on real servers."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from chassis import policy
from chassis.clock import SystemClock
from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.settings import Settings
from chassis.spool import Numberer, Spool
from chassis.task import Worker
from chassis.web import serve
from cli.main import app
from cli.parts import SERVICES, sql_folder
from schemas.roster import AgentRemoved, AgentSet
from services.ingest import api, scim
from services.ingest.core.scim import AGENT, USER
from services.ingest.core.scim_patch import PATCH
from services.ingest.handlers import POLICY as INGEST_POLICY
from services.ingest.scim_store import ScimStore
from services.router.handlers import POLICY as ROUTER_POLICY
from services.router.handlers import AssignmentStage
from tests.integration.kit import PARTITIONS, MakeTopic, make_settings, read_topic, until

REPOSITORY = Path(__file__).parents[2]
CHANNELS = """
api_keys:
  - {name: directory, secret: 'env:SCIM', scopes: [scim]}
  - {name: console, secret: 'env:CONSOLE', scopes: [agents, roster]}
scim: {main: {capacity: 100, level: 6}}
"""


class Known:
    """Secrets by reference."""

    def get(self, reference: str) -> bytes | None:
        return {"env:SCIM": b"scim-key", "env:CONSOLE": b"console-key"}.get(reference)


@dataclass
class Signalbox:
    """A gateway that is served, its numberer, and the router's assignment."""

    url: str
    http: httpx.AsyncClient
    router: Any
    settings: Settings

    async def roster(self) -> dict[str, Any]:
        """What the router knows, by agent."""
        rows = await self.router.fetch("SELECT * FROM assignment_agent ORDER BY agent_id")
        return {row["agent_id"]: row for row in rows}


@contextlib.asynccontextmanager
async def at_work(*parts: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def signalbox(
    bootstrap: str, database: str, topic_prefix: str, make_topic: MakeTopic, tmp_path: Path
) -> AsyncIterator[Signalbox]:
    for name in ("roster", "routing-work", "routing", "dead-letters"):
        await make_topic(name, partitions=PARTITIONS)
    for service in SERVICES:
        await migrate(database, service, [sql_folder(service)])
    folder = tmp_path / "policy"
    shutil.copytree(REPOSITORY / "policy", folder)
    (folder / "channels.yaml").write_text(CHANNELS, encoding="utf-8")
    settings = make_settings(bootstrap, database, topic_prefix)
    ingest = await open_pool(database, "ingest", 6, "test")
    router = await open_pool(database, "router", 4, "test")
    spool, clock = Spool(ingest, settings), SystemClock()
    policies = policy.PolicyHolder(folder, INGEST_POLICY)
    paths = api.create_app(api.Deps(spool, policies, clock, Known()))
    deps = scim.Deps(ScimStore(ingest, spool, settings.workspace), policies, clock)
    scim.mount(paths, deps)
    stage = AssignmentStage(policy.PolicyHolder(folder, ROUTER_POLICY))
    worker = Worker(stage, settings, router, clock)
    stopping, bound = asyncio.Event(), asyncio.get_running_loop().create_future()
    serving = serve(paths, "127.0.0.1", 0, stopping, on_bound=bound.set_result)
    numberer = Numberer(ingest, settings, clock, spool)
    try:
        async with at_work(spool.run(), numberer.run(), serving):
            await worker.start()
            url = f"http://127.0.0.1:{await bound}"
            async with httpx.AsyncClient(
                base_url=f"{url}/scim/v2/main", headers={"Authorization": "Bearer scim-key"}
            ) as http:
                yield Signalbox(url, http, router, settings)
            await worker.stop()
    finally:
        await ingest.close()
        await router.close()


async def test_who_is_provisioned_is_in_the_routers_roster_and_who_is_not_is_out(
    signalbox: Signalbox,
) -> None:
    made = await signalbox.http.post(
        "/Users",
        json={
            "schemas": [USER],
            "userName": "ada@lantern-oak.example",
            "displayName": "Ada",
            AGENT: {"agentId": "ada", "languages": [{"value": "en", "level": 9}]},
        },
    )
    assert made.status_code == 201, made.text
    user_id = made.json()["id"]
    group = await signalbox.http.post(
        "/Groups", json={"displayName": "queue:service", "members": [{"value": user_id}]}
    )
    assert group.status_code == 201

    async def is_there() -> bool:
        row = (await signalbox.roster()).get("ada")
        return row is not None and '"queues": ["service"]' in row["profile"]

    await until("the router has the agent with their queue", is_there)
    row = (await signalbox.roster())["ada"]
    assert (row["name"], row["capacity"]) == ("Ada", 100)
    off = {
        "schemas": [PATCH],
        "Operations": [{"op": "Replace", "path": "active", "value": "False"}],
    }
    assert (await signalbox.http.patch(f"/Users/{user_id}", json=off)).status_code == 200

    async def is_gone() -> bool:
        return "ada" not in await signalbox.roster()

    await until("the router lets the agent go", is_gone)
    published = [event for _, event, _ in await read_topic(signalbox.settings, "roster")]
    begun = AgentSet(domain="main", agent_id="ada", name="Ada", languages={"en": 9}, capacity=100)
    assert published == [
        begun,
        begun.model_copy(update={"queues": ("service",)}),
        AgentRemoved(domain="main", agent_id="ada"),
    ]


async def test_a_table_is_imported_once_exported_and_imported_without_a_change(
    signalbox: Signalbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("SIGNALBOX_KAFKA", signalbox.settings.kafka),
        ("SIGNALBOX_DATABASE_URL", signalbox.settings.dsn),
        ("SIGNALBOX_POLICY", str(tmp_path / "policy")),
        ("SIGNALBOX_API_KEY_CONSOLE", "console-key"),
        ("COLUMNS", "200"),
    ):
        monkeypatch.setenv(name, value)
    assert "SIGNALBOX_TOPIC_PREFIX" not in os.environ

    async def run(*words: str) -> str:
        done = await asyncio.to_thread(CliRunner().invoke, app, ["roster", *words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    table = tmp_path / "agents.csv"
    table.write_text(
        "agent_id,name,queues,skills,languages,capacity,channel_limits\n"
        "ada,Ada,service,orders:6,en:9 tr:5,100,\n"
        "ay\u015fe,x,service,,,1,\n",
        encoding="utf-8",
    )
    done = await asyncio.to_thread(
        CliRunner().invoke, app, ["roster", "import", str(table), "--yes"]
    )
    assert done.exit_code != 0
    assert await signalbox.roster() == {}
    table.write_text(
        "agent_id,name,queues,skills,languages,capacity,channel_limits,shifts,auto_accept\n"
        "ada,Ada,service,orders:6,en:9 tr:5,100,,,\n"
        "mert,Mert Y\u0131lmaz,service technical,orders:7,tr:10,80,chat:3,"
        "2026-11-24T09:00+03:00/2026-11-24T17:00+03:00,true\n",
        encoding="utf-8",
    )
    where = ("--gateway", signalbox.url, "--yes")
    said = await run("import", str(table), *where)
    assert "2 added, 0 changed, 0 removed, 0 unchanged." in said
    assert "the router has them" in said
    assert set(await signalbox.roster()) == {"ada", "mert"}
    again = await run("import", str(table), *where)
    assert "0 added, 0 changed, 0 removed, 2 unchanged." in again
    for form in ("csv", "yaml"):
        out = tmp_path / f"out.{form}"
        out.write_text(await run("export", f"--{form}"), encoding="utf-8")
        said = await run("import", str(out), "--remove-missing", *where)
        assert "0 added, 0 changed, 0 removed, 2 unchanged." in said
    table.write_text("agent_id,capacity\nmert,60\n", encoding="utf-8")
    said = await run("import", str(table), "--remove-missing", *where)
    assert "0 added, 1 changed, 1 removed, 0 unchanged." in said
    roster = await signalbox.roster()
    assert [(name, row["capacity"]) for name, row in roster.items()] == [("mert", 60)]
    assert '"chat": 3' in roster["mert"]["profile"]
    published = [event for _, event, _ in await read_topic(signalbox.settings, "roster")]
    assert len(published) == 4
