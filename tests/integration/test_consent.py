"""Consent that a customer gave to an agent: from the command line to the notice that goes, on a real PostgreSQL."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from chassis.policy import PolicyHolder
from chassis.stage import Received
from cli.main import app
from schemas.envelope import Envelope
from schemas.feedback import ContactOptedIn, ContactOptedOut, WishEvent
from schemas.registry import REGISTRY
from services.notifier.handlers import POLICY
from tests.integration.test_customers import Ingest
from tests.integration.test_notify_commands import ROOT, World, now, world
from tests.unit.ingest.test_identity import customer_of, mail, telegram

__all__ = ["world"]

ADA = "ada@example.com"


@dataclass
class Desk:
    """A customer who has written, an agent's command line, and a notifier whose policy asks for consent to follow-ups."""

    world: World
    ingest: Ingest
    customer_id: str

    async def signalbox(self, *words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, list(words))

    async def consent(self, *words: str) -> Result:
        return await self.signalbox("customer", "consent", *words)

    async def take(self) -> list[WishEvent]:
        """Take what the command line handed to the spool, as the notifier does."""
        rows = await self.world.pools["ingest"].fetch(
            "DELETE FROM spool WHERE topic = 'commands' RETURNING value, key, envelope"
        )
        taken = []
        for row in rows:
            kind = json.loads(row["envelope"])["type"]
            event = REGISTRY[kind].model_validate_json(row["value"])
            assert isinstance(event, WishEvent)
            key = bytes(row["key"]).decode()
            assert key == event.conversation_id
            envelope = Envelope(
                id=event.wish_id, source="signalbox/test", type=kind, time=now(), partitionkey=key
            )
            await self.world.play(Received(envelope, event, key, event.TOPIC, envelope.id), now())
            taken.append(event)
        return taken

    async def would(self, occasion: str) -> str:
        result = await self.signalbox("notify", "preview", "SB-4K7TQ2M", "--occasion", occasion)
        assert result.exception is None, result.exception
        return " ".join(result.stdout.split())


@pytest.fixture
async def desk(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Desk:
    folder = tmp_path / "policy"
    shutil.copytree(ROOT / "policy", folder)
    written = yaml.safe_load((folder / "notify.yaml").read_text())
    written["consent"] = {"needed": ["follow_up"]}
    written["occasions"]["check_in"] = True
    (folder / "notify.yaml").write_text(yaml.safe_dump(written))
    monkeypatch.setenv("SIGNALBOX_POLICY", str(folder))
    world.holder.current = PolicyHolder(folder, POLICY).current
    ingest = Ingest(world.pools["ingest"])
    customer = customer_of(await ingest.says(mail(ADA)))
    await world.opened(now() - timedelta(minutes=5))
    return Desk(world, ingest, customer)


async def test_a_customer_who_told_an_agent_gets_what_needs_consent_until_they_take_it_back(
    desk: Desk,
) -> None:
    assert "consent.needed" in await desk.would("check_in")
    said = await desk.consent(ADA, "follow_up")
    assert said.exit_code == 0, said.exception
    assert f"{ADA}: notices of the kind follow_up" in said.stdout
    (event,) = await desk.take()
    assert isinstance(event, ContactOptedIn)
    assert (event.category, event.source) == ("follow_up", "agent")
    assert "goes later" in await desk.would("check_in"), "with the digest of the day"
    back = await desk.consent(
        desk.customer_id, "follow_up", "--withdraw", "--address", "ADA@example.com"
    )
    assert back.exit_code == 0, back.exception
    (event,) = await desk.take()
    assert isinstance(event, ContactOptedOut)
    assert "does not go" in await desk.would("check_in")
    (row,) = await desk.world.pools["notifier"].fetch("SELECT * FROM opt_out")
    assert (row["category"], row["is_out"], row["source"]) == ("follow_up", True, "agent")
    assert ADA not in str(dict(row))


async def test_a_wish_at_an_address_that_is_not_theirs_is_refused_and_names_those_that_are(
    desk: Desk,
) -> None:
    refused = await desk.consent(ADA, "follow_up", "--address", "eve@example.com")
    assert f"They have not written from eve@example.com; they have from {ADA}." in str(
        refused.exception
    )
    unknown = await desk.consent("eve@example.com", "follow_up")
    assert "There is no customer eve@example.com." in str(unknown.exception)
    security = await desk.consent(ADA, "security")
    assert security.exit_code != 0
    assert await desk.take() == []


async def test_a_wish_counts_in_the_chat_as_well_that_the_customer_writes_from(desk: Desk) -> None:
    other = customer_of(await desk.ingest.says(telegram()))
    said = await desk.consent(other, "outage", "--withdraw")
    assert said.exit_code == 0, said.exception
    assert "telegram" in said.stdout
    (event,) = await desk.take()
    assert isinstance(event, ContactOptedOut)
