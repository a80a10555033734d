"""`signalbox notify …` on a real PostgreSQL: what was told and why, and a notice that a person has sent again."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from chassis.ledger import open_pool
from chassis.migrate import migrate
from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Change, EffectDone, EffectResult, Input, Outcome, Received
from cli.main import app
from schemas.commands import ResendNotice
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.tickets import TicketAnswered, TicketEscalated, TicketOpened
from services.notifier import backlog
from services.notifier.core.articles import NO_ARTICLES
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.metrics import OVERDUE, UNRESOLVED
from services.notifier.settings import NotifierSettings
from services.notifier.store import Loaded

ROOT = Path(__file__).resolve().parents[2]
CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
TICKET = "3c59dc04-8e88-5024-9be8-079a5c74d079"
ANSWER = "Your lamp left our house this morning."
DONE = EffectResult("done", "250 queued")
LOST = EffectResult("unknown", "interrupted")
REFUSED = EffectResult("failed", "550 no such user ada@example.com", trouble="message")


def now() -> datetime:
    return datetime.now(UTC)


class _Unused:
    """The way out of a stage whose effects the test plays."""

    def is_repeatable(self, provider: str) -> bool:
        del provider
        return False

    async def send(self, provider: str, account: str, message: Any) -> Any:
        raise AssertionError("the test says itself what comes of a send")

    async def find(self, provider: str, account: str, message: Any) -> Any:
        raise AssertionError("the test says itself what comes of a lookup")


class World:
    """The services' tables, and a notifier of one task that works input by input."""

    def __init__(self, pools: dict[str, asyncpg.Pool], database: str) -> None:
        self.pools, self.database = pools, database
        settings = load_settings(
            NotifierSettings, kafka="k:9092", database_url=database, token_secret="s" * 32
        )
        holder = PolicyHolder(ROOT / "policy", POLICY)
        holder.current = replace(holder.current, promise_wait=timedelta(0), articles=NO_ARTICLES)
        self.holder = holder
        self.stage = NotifierStage(holder, settings, _Unused())
        self.sent: list[Any] = []

    async def play(self, item: Input, at: datetime) -> Outcome[Loaded]:
        """Load, decide and write one input, as the loop does."""
        key = item.key
        async with self.pools["notifier"].acquire() as connection:
            states = await self.stage.load(connection, 0, [item], [key])
            outcome = self.stage.decide(states[key], item, at)
            async with connection.transaction():
                changes = [Change(0, key, outcome.state)] if outcome.is_changed else []
                await self.stage.store.save(connection, changes, [(0, row) for row in outcome.rows])
        self.sent += outcome.effects
        return outcome

    async def hears(self, event: Payload, at: datetime) -> Outcome[Loaded]:
        envelope = Envelope(
            id=f"e-{at.isoformat()}",
            source="signalbox/test",
            type=event.TYPE,
            time=at,
            workspace="default",
            partitionkey=CONVERSATION,
            correlationid="c",
        )
        return await self.play(
            Received(envelope, event, CONVERSATION, event.TOPIC, envelope.id), at
        )

    async def ends(self, result: EffectResult, at: datetime) -> Outcome[Loaded]:
        return await self.play(EffectDone(self.sent[-1], result), at)

    async def opened(self, at: datetime) -> None:
        contact = {
            **TicketOpened.EXAMPLE["contact"],
            "address": "ada@example.com",
            "address_kind": "email",
            "channel": "email",
            "account": "support",
            "language": "en",
        }
        facts = {
            **TicketOpened.EXAMPLE,
            **_where(at),
            "contact": contact,
            "reference": "SB-4K7TQ2M",
        }
        await self.hears(TicketOpened.model_validate(facts), at)
        await self.pools["router"].execute(
            "INSERT INTO ticket (ticket_id, conversation_id, reference, number, status, queue, desk, priority, subject,"
            " customer_id, opened_at, updated_at, version)"
            " VALUES ($1, $2, 'SB-4K7TQ2M', 1, 'queued', 'service', 'service', 3, 'Lamp', 'c-1', $3, $3, 1)",
            TICKET,
            CONVERSATION,
            at,
        )

    async def answered(self, at: datetime) -> None:
        facts = {**TicketAnswered.EXAMPLE, **_where(at), "text": ANSWER, "command_id": "k-1"}
        event = TicketAnswered.model_validate(facts)
        await self.hears(event, at)
        await self.pools["router"].execute(
            "INSERT INTO ticket_event (ticket_id, conversation_id, version, type, at, data) VALUES ($1, $2, 2, $3, $4, $5)",
            TICKET,
            CONVERSATION,
            event.TYPE,
            at,
            event.to_json().decode(),
        )

    async def row(self, occasion: str) -> Any:
        return await self.pools["notifier"].fetchrow(
            "SELECT * FROM notice WHERE occasion = $1", occasion
        )

    async def take_command(self) -> ResendNotice:
        """Wait for what the command line has handed to the spool."""
        while True:
            stored = await self.pools["ingest"].fetchrow(
                "DELETE FROM spool WHERE topic = 'commands' RETURNING value, key"
            )
            if stored is not None:
                assert stored["key"] == CONVERSATION.encode()
                return ResendNotice.model_validate_json(stored["value"])
            await asyncio.sleep(0.02)


def _where(at: datetime) -> dict[str, Any]:
    return {
        "ticket_id": TICKET,
        "conversation_id": CONVERSATION,
        "at": at,
        "occurred_at": at,
    }


@pytest.fixture
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("SIGNALBOX_KAFKA", "k:9092")
    monkeypatch.setenv("SIGNALBOX_DATABASE_URL", database)
    monkeypatch.setenv("SIGNALBOX_TOKEN_SECRET", "s" * 32)
    pools = {}
    for service in ("ingest", "router", "notifier"):
        await migrate(database, service, [ROOT / "services" / service / "sql"])
        pools[service] = await open_pool(database, service, 3, "test")
    yield World(pools, database)
    for pool in pools.values():
        await pool.close()


async def signalbox(*words: str, given: str = "") -> Result:
    """Run the command as a person does; it has a loop of its own, so it runs in a thread of its own."""
    arguments: Sequence[str] = ("notify", *words)
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), given)


async def told(*words: str) -> dict[str, Any]:
    result = await signalbox("why", *words, "--json")
    assert result.exception is None, result.exception
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# ------------------------------------------------------------------------------------------------- why


async def test_a_notice_in_doubt_is_told_with_what_a_person_can_do(world: World) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(LOST, at + timedelta(minutes=1))
    found = await told("SB-4K7TQ2M")
    (one,) = found["notices"]
    assert (one["occasion"], one["status"], one["provider"], one["account"]) == (
        "received",
        "unknown",
        "smtp",
        "support",
    )
    assert one["because"] == "the ticket was opened"
    assert "signalbox notify resend" in one["person"]
    assert found["reference"] == "SB-4K7TQ2M"


async def test_neither_words_nor_addresses_are_shown_unless_asked_for(world: World) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.answered(at + timedelta(minutes=5))
    await world.ends(REFUSED, at + timedelta(minutes=6))
    for words in (["why", TICKET], ["why", TICKET, "--json"], ["list"]):
        result = await signalbox(*words)
        assert result.exception is None, result.exception
        assert "ada@example.com" not in result.stdout
        assert "lamp" not in result.stdout
        assert "550 no such user" in " ".join(result.stdout.split())
    found = await told(TICKET, "--show-recipient")
    assert {one["recipient"] for one in found["notices"] if one["recipient"]} == {"ada@example.com"}


async def test_a_superseded_notice_names_what_made_it_stale(world: World) -> None:
    world.holder.current = replace(world.holder.current, promise_wait=timedelta(seconds=5))
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.answered(at + timedelta(seconds=2))
    found = await told(TICKET)
    received = next(one for one in found["notices"] if one["occasion"] == "received")
    assert received["status"] == "suppressed"
    assert received["why"] == "something newer made it stale"
    assert received["superseded_by"].startswith("the notice “answered” of ")


async def test_a_rule_is_told_with_the_line_that_decides_it(world: World) -> None:
    world.holder.current = replace(world.holder.current, occasions_off=frozenset({"escalated"}))
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(DONE, at + timedelta(seconds=1))
    facts = {**TicketEscalated.EXAMPLE, **_where(at + timedelta(minutes=1))}
    await world.hears(TicketEscalated.model_validate(facts), at + timedelta(minutes=1))
    found = await told(TICKET)
    one = next(one for one in found["notices"] if one["occasion"] == "escalated")
    assert one["why"] == "notices of this kind are turned off, or nobody has written them"
    lines = (ROOT / "policy" / "notify.yaml").read_text(encoding="utf-8").splitlines()
    (number,) = (n for n, line in enumerate(lines, 1) if line.startswith("  escalated:"))
    assert one["policy"] == f"notify.yaml:{number} occasions.escalated: true"


async def test_what_is_still_to_come_is_told(world: World) -> None:
    at = now() - timedelta(minutes=5)
    await world.opened(at)
    await world.ends(EffectResult("failed", "451 busy", True, trouble="provider"), at)
    (line,) = (await told(TICKET))["coming"]
    assert line["what"] == "attempt 2, after “not now” from smtp"
    table = await signalbox("why", TICKET)
    assert "still to come" in table.stdout


async def test_a_ticket_that_does_not_exist_is_said(world: World) -> None:
    result = await signalbox("why", "SB-NOTHING")
    assert str(result.exception) == "There is no ticket and no notice SB-NOTHING."


# -------------------------------------------------------------------------------------------- resend


async def resent(
    world: World, occasion: str, at: Callable[[], datetime] = now
) -> tuple[Result, ResendNotice]:
    """Run `resend --yes`, with a notifier at the other end of the spool."""
    row = await world.row(occasion)
    running = asyncio.create_task(
        signalbox("resend", row["notice_id"][:13], "--yes", "--by", "mina")
    )
    async with asyncio.timeout(20):
        command = await world.take_command()
        await world.hears(command, at())
        result = await running
    return result, command


async def test_a_notice_in_doubt_is_sent_again_once_and_everybody_can_see_who_wanted_it(
    world: World,
) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(LOST, at + timedelta(minutes=1))
    first = world.sent[-1]
    result, _ = await resent(world, "received")
    assert result.exit_code == 0, result.exception
    assert "the customer may get it twice" in result.stdout
    assert "It is on its way again" in result.stdout
    again = world.sent[-1]
    assert (again.id, again.attempt, again.payload["message"]) == (
        first.id,
        2,
        first.payload["message"],
    )
    assert (await world.row("received"))["status"] == "requested"
    await world.ends(DONE, now())
    row = await world.row("received")
    assert (row["status"], row["reason"], row["attempts"]) == ("sent", None, 2)
    (one,) = (await told(TICKET))["notices"]
    assert [(asked["agent_id"], asked["outcome"]) for asked in one["resends"]] == [
        ("mina", "resent")
    ]
    refused = await signalbox("resend", row["notice_id"], "--yes")
    assert str(refused.exception) == "It was sent, and nothing says that it was lost."


async def test_an_answer_that_bounced_goes_again_with_the_agents_words(world: World) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.answered(at + timedelta(minutes=5))
    await world.ends(DONE, at + timedelta(minutes=6))
    await world.pools["notifier"].execute(
        "UPDATE notice SET delivery = 'bounced' WHERE occasion = 'answered'"
    )
    state = await world.pools["notifier"].fetchval("SELECT value::text FROM state")
    changed = json.loads(state)
    for one in changed["notices"].values():
        if one["occasion"] == "answered":
            one["delivery"] = "bounced"
    await world.pools["notifier"].execute("UPDATE state SET value = $1", json.dumps(changed))
    result, command = await resent(world, "answered")
    assert result.exit_code == 0, result.exception
    assert command.text == ANSWER
    assert ANSWER in world.sent[-1].payload["message"]["text"]
    row = await world.row("answered")
    assert (row["status"], row["delivery"], row["recipient_hash"] is not None) == (
        "requested",
        None,
        True,
    )


async def test_what_the_notifier_refuses_is_said_with_its_reason(world: World) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(LOST, at + timedelta(minutes=1))
    await world.answered(at + timedelta(minutes=5))
    result, _ = await resent(world, "received")
    assert str(result.exception).startswith(
        "It is not sent again: it is stale: somebody of ours has answered since"
    )
    assert (await world.row("received"))["status"] == "unknown"


async def test_nothing_is_asked_where_somebody_says_no(world: World) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(LOST, at + timedelta(minutes=1))
    row = await world.row("received")
    result = await signalbox("resend", row["notice_id"], given="n\n")
    assert result.exit_code == 1
    assert "Send it again?" in result.stdout
    assert await world.pools["ingest"].fetchval("SELECT count(*) FROM spool") == 0


async def test_a_rehearsed_notice_is_no_sent_one(world: World) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(EffectResult("done", trouble="rehearsed"), at + timedelta(seconds=1))
    row = await world.row("received")
    assert (row["status"], row["reason"], row["message_id"]) == ("dry_run", "dry_run", None)
    (one,) = (await told(TICKET))["notices"]
    assert one["why"] == "it was rehearsed: nothing leaves in a dry run"
    refused = await signalbox("resend", row["notice_id"], "--yes")
    assert str(refused.exception).startswith("It was rehearsed in a dry run")
    listed = await signalbox("list", "--status", "dry_run")
    assert "SB-4K7TQ2M" in listed.stdout


# ------------------------------------------------------------------------- preview, dead addresses, gauges


async def test_a_preview_of_a_real_ticket_writes_nothing(world: World) -> None:
    await world.opened(now() - timedelta(minutes=5))
    before = await world.pools["notifier"].fetchval("SELECT value::text FROM state")
    result = await signalbox("preview", TICKET, "--occasion", "solved", "--language", "tr")
    assert result.exit_code == 0, result.exception
    assert "solved, in tr" in result.stdout
    assert "goes now by smtp, account support" in result.stdout
    assert "ada@example.com" not in result.stdout
    assert before == await world.pools["notifier"].fetchval("SELECT value::text FROM state")
    assert await world.pools["notifier"].fetchval("SELECT count(*) FROM notice") == 1


async def test_a_dead_address_is_listed_by_its_name_and_can_be_tried_again(world: World) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(EffectResult("failed", "550 5.1.1 <ada@example.com>", trouble="address"), at)
    listed = await signalbox("suppressed", "list")
    assert "for good" in listed.stdout
    assert "ada@example.com" not in listed.stdout
    preview = await signalbox("preview", TICKET, "--occasion", "solved")
    assert "does not go: nothing reaches the address" in preview.stdout
    cleared = await signalbox("suppressed", "clear", "ada@example.com", "--yes")
    assert cleared.exit_code == 0, cleared.exception
    preview = await signalbox("preview", TICKET, "--occasion", "solved")
    assert "goes now by smtp" in preview.stdout
    again = await signalbox("suppressed", "clear", "ada@example.com", "--yes")
    assert "No address of that name is held back" in str(again.exception)


async def test_the_gauges_show_what_waits_for_a_person_and_what_is_over_its_time(
    world: World,
) -> None:
    at = now() - timedelta(hours=1)
    await world.opened(at)
    await world.ends(LOST, at + timedelta(minutes=1))
    await world.pools["notifier"].execute(
        "INSERT INTO notice (notice_id, ticket_id, conversation_id, occasion, status, reason, deferred_until)"
        " VALUES ('n-late', 't', 'c', 'solved', 'deferred', 'quiet_hours', clock_timestamp() - interval '20 minutes'),"
        " ('n-early', 't', 'c', 'survey', 'deferred', 'quiet_hours', clock_timestamp() + interval '9 hours')"
    )
    async with world.pools["notifier"].acquire() as connection:
        await backlog.show(connection)
    assert UNRESOLVED.labels("unknown")._value.get() == 1
    assert UNRESOLVED.labels("failed")._value.get() == 0
    assert OVERDUE._value.get() == 1
