"""`signalbox notify announce` on a real PostgreSQL: each person is told once, over crashes, and those who were told hear the end."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from typer.testing import CliRunner, Result

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Change, Received
from cli.main import app
from schemas.commands import NotifyCustomer
from schemas.envelope import Envelope
from schemas.ids import derive
from services.notifier.core.articles import NO_ARTICLES
from services.notifier.core.state import Case, Contact, Conversation
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.settings import NotifierSettings

ROOT = Path(__file__).resolve().parents[2]
KNOWN = ("known", "--about", "cards-1", "--title", "Cards", "--text", "Cards are refused.")
OVER = ("over", "--about", "cards-1", "--title", "Cards")
CASE = Case("SB-4K7TQ2M", datetime.now(UTC) - timedelta(hours=2), queue="service")


def conversation(
    address: str, *, case: Case = CASE, hours_ago: float = 2, **changes: Any
) -> Conversation:
    facts = {
        "name": "",
        "address": address,
        "address_kind": "email",
        "channel": "email",
        "account": "support",
        "language": "en",
        "is_verified": True,
        **changes,
    }
    wrote_at = datetime.now(UTC) - timedelta(hours=hours_ago)
    return Conversation(contact=Contact(**facts), cases={"t1": case}, wrote_at=wrote_at)


class _Unused:
    """The way out of a stage whose sends nobody performs here."""

    def is_repeatable(self, provider: str) -> bool:
        del provider
        return False

    async def send(self, provider: str, account: str, message: Any) -> Any:
        raise AssertionError("nothing is sent here")

    async def find(self, provider: str, account: str, message: Any) -> Any:
        raise AssertionError("nothing is looked up here")


class World:
    """The services' tables, the command line, and a notifier that takes its commands from the spool."""

    def __init__(self, pools: dict[str, asyncpg.Pool], database: str) -> None:
        self.pools = pools
        self.names: dict[str, str] = {}
        settings = load_settings(
            NotifierSettings, kafka="k:9092", database_url=database, token_secret="s" * 32
        )
        holder = PolicyHolder(ROOT / "policy", POLICY)
        holder.current = replace(holder.current, articles=NO_ARTICLES)
        self.stage = NotifierStage(holder, settings, _Unused())

    async def has(self, states: dict[str, Conversation]) -> None:
        """Conversations by short names, which `name` gives back."""
        self.names |= {derive("conversation", name): name for name in states}
        await self.pools["notifier"].executemany(
            "INSERT INTO state (stage, task, key, value) VALUES ('notifier', 0, $1, $2)"
            " ON CONFLICT (stage, task, key) DO UPDATE SET value = excluded.value",
            [
                (derive("conversation", name), msgspec.json.encode(state).decode())
                for name, state in states.items()
            ],
        )

    def name(self, command: NotifyCustomer) -> str:
        """The short name of the conversation that a command is about; its id where it was made for somebody."""
        return self.names.get(command.conversation_id, command.conversation_id)

    async def commands(self) -> list[NotifyCustomer]:
        rows = await self.pools["ingest"].fetch("SELECT topic, key, value FROM spool ORDER BY id")
        found = [NotifyCustomer.model_validate_json(row["value"]) for row in rows]
        assert {row["topic"] for row in rows} <= {"commands"}
        assert [row["key"].decode() for row in rows] == [one.conversation_id for one in found]
        return found

    async def told(self) -> list[str]:
        """Let the notifier take what waits in the spool; return the conversations that it was about, in order."""
        found = await self.commands()
        await self.pools["ingest"].execute("DELETE FROM spool")
        for command in found:
            await self._play(command)
        return sorted(self.name(one) for one in found)

    async def _play(self, command: NotifyCustomer) -> None:
        key, now = command.conversation_id, datetime.now(UTC)
        envelope = Envelope(
            id=command.command_id,
            source="signalbox/test",
            type=command.TYPE,
            time=now,
            workspace="default",
            partitionkey=key,
            correlationid=key,
        )
        item = Received(envelope, command, key, command.TOPIC, envelope.id)
        async with self.pools["notifier"].acquire() as connection:
            states = await self.stage.load(connection, 0, [item], [key])
            outcome = self.stage.decide(states[key], item, now)
            async with connection.transaction():
                changes = [Change(0, key, outcome.state)] if outcome.is_changed else []
                await self.stage.store.save(connection, changes, [(0, row) for row in outcome.rows])

    async def statuses(self, occasion: str) -> Counter[str]:
        rows = await self.pools["notifier"].fetch(
            "SELECT status FROM notice WHERE occasion = $1", occasion
        )
        return Counter(row["status"] for row in rows)


@pytest.fixture
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("SIGNALBOX_KAFKA", "k:9092")
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", database)
    monkeypatch.setenv("SIGNALBOX_TOKEN_SECRET", "s" * 32)
    monkeypatch.setenv("SIGNALBOX_POLICY", str(ROOT / "policy"))
    pools = {}
    for service in ("ingest", "router", "notifier"):
        await migrate(database, service, [ROOT / "services" / service / "sql"])
        pools[service] = await open_pool(database, service, 3, "test")
    yield World(pools, database)
    for pool in pools.values():
        await pool.close()


async def announce(*words: str, given: str = "") -> Result:
    """Run the command as a person does; it has a loop of its own, so it runs in a thread of its own."""
    arguments: Sequence[str] = ("notify", "announce", *words, "--by", "mina")
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), given)


async def announced(*words: str) -> str:
    result = await announce(*words, "--yes")
    assert result.exit_code == 0, result.exception
    return result.stdout


# ------------------------------------------------------------------------------------- once, over a crash


def two_thousand() -> dict[str, Conversation]:
    """1,500 people; every third has another conversation, a later one, where nobody has proved the address."""
    states = {
        f"c{number:04}": conversation(
            f"p{number}@example.com", language=("en", "tr", "ru")[number % 3]
        )
        for number in range(1500)
    }
    again = {
        f"a{number:04}": conversation(f"P{number * 3}@example.com", hours_ago=1, is_verified=False)
        for number in range(500)
    }
    return states | again


async def killed_in_the_middle(*words: str) -> None:
    """Run the command in a process of its own, and kill it once it has handed over some of its commands."""
    code = "from cli.main import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", code, "notify", "announce", *words, "--yes", "--by", "mina",
        stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            if line.startswith(b"500 of "):
                process.send_signal(signal.SIGKILL)
                break
        else:
            raise AssertionError("it never came so far")
        assert await process.wait() == -signal.SIGKILL


async def test_a_crash_in_the_middle_tells_nobody_twice_and_leaves_nobody_out(
    world: World,
) -> None:
    await world.has(two_thousand())
    await killed_in_the_middle(*KNOWN)
    before = len(await world.commands())
    assert 500 <= before < 1500
    shown = await announced(*KNOWN)
    assert f"{1500 - before:,} people to tell, {before:,} people told before" in shown
    commands = await world.commands()
    assert sorted(world.name(one) for one in commands) == [f"c{n:04}" for n in range(1500)]
    assert len({one.command_id for one in commands}) == 1500
    shown = await announced(*KNOWN)
    assert "0 people to tell, 1,500 people told before" in shown
    assert "There is nobody to tell." in shown
    assert len(await world.commands()) == 1500


async def test_who_writes_again_after_being_told_is_the_same_person(world: World) -> None:
    await world.has({"c1": conversation("ada@example.com", hours_ago=3)})
    await announced(*KNOWN)
    await world.has({"c2": conversation("ADA@example.com", hours_ago=0)})
    assert "0 people to tell, 1 person told before" in await announced(*KNOWN)
    assert await world.told() == ["c1"]
    # The gateway forgets after some days what was handed to it; the notices remember.
    await world.pools["ingest"].execute("DELETE FROM idempotency")
    assert "0 people to tell, 1 person told before" in await announced(*KNOWN)
    assert await world.commands() == []


async def test_addresses_of_one_customer_are_one_person(world: World) -> None:
    await world.has(
        {
            "c1": conversation("ada@example.com", hours_ago=3),
            "c2": conversation("ada@work.example", hours_ago=1),
            "c3": conversation("bo@example.com"),
        }
    )
    async with world.pools["ingest"].acquire() as connection:
        await connection.executemany(
            "INSERT INTO customer (workspace, customer_id, name, at, merged_into)"
            " VALUES ('default', $1, '', clock_timestamp(), $2)",
            [("u1", None), ("u2", "u1"), ("u3", None)],
        )
        await connection.executemany(
            "INSERT INTO customer_address (workspace, kind, address, customer_id, is_verified, at, proof, proved_at)"
            " VALUES ('default', 'email', $1, $2, true, clock_timestamp(), 'dmarc', clock_timestamp())",
            [("ada@example.com", "u1"), ("ada@work.example", "u2"), ("bo@example.com", "u3")],
        )
    await announced(*KNOWN)
    assert await world.told() == ["c2", "c3"]


# --------------------------------------------------------------------------------------- known, then over


async def test_over_is_told_to_whoever_was_told_known_and_to_whom_it_concerns_since(
    world: World,
) -> None:
    solved = msgspec.structs.replace(CASE, standing="solved")
    machine = conversation("noreply@example.com")
    await world.has(
        {
            "c1": conversation("ada@example.com"),
            "c2": conversation("bo@example.com", case=solved),
            "c3": machine,
        }
    )
    await announced(*KNOWN)
    assert await world.told() == ["c1", "c3"]
    assert await world.statuses("outage_known") == {"requested": 1, "suppressed": 1}
    # Ada's case is solved meanwhile, Cy comes with the same trouble, and Bo is not concerned still.
    row = await world.pools["notifier"].fetchval(
        "SELECT value::text FROM state WHERE key = $1", derive("conversation", "c1")
    )
    ada = msgspec.json.decode(row, type=Conversation)
    late = msgspec.structs.replace(CASE, received_at=datetime.now(UTC))
    await world.has(
        {
            "c1": msgspec.structs.replace(ada, cases={"t1": solved}),
            "c4": conversation("cy@example.com", case=late, hours_ago=0),
        }
    )
    shown = await announced(*OVER)
    assert "because: has an open case 1, was told that it is known 1" in shown
    assert await world.told() == ["c1", "c4"]
    assert await world.statuses("outage_over") == {"requested": 2}
    assert "0 people to tell, 2 people told before" in await announced(*OVER)
    refused = await announce(*KNOWN, "--yes")
    assert "It was told already that cards-1 is over" in str(refused.exception)


async def test_over_reaches_those_whose_known_is_still_on_its_way(
    world: World, tmp_path: Path
) -> None:
    people = tmp_path / "people.csv"
    people.write_text("email,name,language\nDi@example.com,Di,tr\n", encoding="utf-8")
    await world.has({"c1": conversation("ada@example.com")})
    words = ("--text-tr", "Kartlar şu an geçmiyor.", "--title-tr", "Kartlar")
    await announced(*KNOWN, *words, "--csv", str(people))
    known = await world.commands()
    await announced(*OVER)
    over = (await world.commands())[len(known) :]
    assert {one.conversation_id for one in over} == {one.conversation_id for one in known}
    assert len(over) == 2


async def test_over_without_known_is_refused_and_names_what_was_told_of(world: World) -> None:
    await world.has({"c1": conversation("ada@example.com")})
    await announced(*KNOWN)
    await world.told()
    refused = await announce("over", "--about", "card-1", "--title", "Cards", "--yes")
    assert "Nobody was told that card-1 is known" in str(refused.exception)
    assert "Told of were: cards-1." in str(refused.exception)
    assert await world.commands() == []


# -------------------------------------------------------------------------- who did not complain, and limits


async def test_people_of_a_file_are_told_in_the_conversation_they_have_or_in_one_of_their_own(
    world: World, tmp_path: Path
) -> None:
    people = tmp_path / "people.csv"
    people.write_text(
        "address,name,language\nada@example.com,Ada,en\nbo@example.com,Bo,tr\ncy@example.com,Cy,\nCY@example.com,Cy,\n",
        encoding="utf-8",
    )
    solved = msgspec.structs.replace(CASE, standing="solved")
    claimed = conversation("bo@example.com", channel="webchat", account="web", is_verified=False)
    await world.has({"c1": conversation("ada@example.com", case=solved), "c2": claimed})
    words = ("--text-tr", "Kartlar şu an geçmiyor.", "--title-tr", "Kartlar")
    shown = await announced(*KNOWN, *words, "--csv", str(people), "--audience", "named")
    assert "by channel: email 3" in shown
    assert "by language: en 2, tr 1" in shown
    commands = {
        one.contact.address if one.contact else world.name(one): one
        for one in await world.commands()
    }
    # Whoever claims Bo's address in a chat does not hear what Bo is told.
    assert set(commands) == {"c1", "bo@example.com", "cy@example.com"}
    assert commands["bo@example.com"].text == "Kartlar şu an geçmiyor."
    await world.told()
    assert (await world.statuses("outage_known")).total() == 3
    assert await world.statuses("outage_known") == {"requested": 3}


async def test_more_people_than_the_policy_allows_are_refused_with_what_to_do(
    world: World, tmp_path: Path
) -> None:
    folder = tmp_path / "smaller"
    folder.mkdir()
    for one in (ROOT / "policy").iterdir():
        if one.name != "notify.yaml":
            (folder / one.name).symlink_to(one)
    text = (ROOT / "policy" / "notify.yaml").read_text(encoding="utf-8")
    (folder / "notify.yaml").write_text(
        text.replace("recipients_max: 20000", "recipients_max: 2"), encoding="utf-8"
    )
    await world.has({f"c{n}": conversation(f"p{n}@example.com") for n in range(3)})
    refused = await announce(*KNOWN, "--yes", "--policy", str(folder))
    assert "3 people are concerned, and notify.yaml allows 2" in str(refused.exception)
    assert await world.commands() == []


async def test_nobody_is_told_in_a_dry_run_or_where_somebody_says_no(world: World) -> None:
    await world.has(
        {
            "c1": conversation(
                "ada@example.com", case=msgspec.structs.replace(CASE, tags=("pay",))
            ),
            "c2": conversation("bo@example.com"),
        }
    )
    dry = await announce(*KNOWN, "--tag", "pay", "--dry-run")
    assert "1 person to tell" in dry.stdout
    no = await announce(*KNOWN, given="n\n")
    assert no.exit_code == 1
    assert "Tell 2 people?" in no.stdout
    assert "ada@example.com" not in dry.stdout + no.stdout
    assert await world.commands() == []


async def test_a_security_notice_is_told_once_and_to_those_only_who_are_named(
    world: World, tmp_path: Path
) -> None:
    people = tmp_path / "people.csv"
    people.write_text("email\nada@example.com\n", encoding="utf-8")
    await world.has({f"c{n}": conversation(f"{n}@example.com") for n in ("ada", "bo")})
    words = ("security", "--about", "leak-1", "--text", "Somebody may have read your orders.")
    refused = await announce(*words, "--yes")
    assert str(refused.exception).startswith("Nobody is named")
    await announced(*words, "--csv", str(people))
    assert await world.told() == ["cada"]
    await world.pools["ingest"].execute("DELETE FROM idempotency")
    assert "0 people to tell, 1 person told before" in await announced(*words, "--csv", str(people))
