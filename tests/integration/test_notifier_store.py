"""The notifier's rows on a real PostgreSQL: one intent a cause, ends that stay, counts that the caps stand on."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Change, Input, Outcome, Received, Tick
from schemas.envelope import Envelope
from schemas.notifications import (
    NoticeFailed,
    NoticeRequested,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
)
from schemas.tickets import TicketOpened
from services.notifier.core.audience import recipient_key
from services.notifier.core.delivery import Delivered
from services.notifier.core.throttle import UNVERIFIED
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.settings import NotifierSettings
from services.notifier.store import Loaded, NoticeStore

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
ABOUT: dict[str, Any] = {
    "ticket_id": "t1",
    "conversation_id": "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
    "occasion": "received",
    "at": NOW,
}


def _requested(notice_id: str, **changes: Any) -> NoticeRequested:
    facts = {
        **ABOUT,
        "channel": "email",
        "recipient": "Ada@example.com",
        "language": "en",
        "subject": "Re: x",
        **changes,
    }
    return NoticeRequested(notice_id=notice_id, **facts)


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connected = await asyncpg.connect(database)
    await connected.execute((ROOT / "chassis/sql/0001_ledger.sql").read_text())
    for script in sorted((ROOT / "services/notifier/sql").glob("*.sql")):
        await connected.execute(script.read_text())
    yield connected
    await connected.close()


async def _status(connection: asyncpg.Connection, notice_id: str) -> tuple[Any, ...]:
    row = await connection.fetchrow(
        "SELECT status, reason, attempts FROM notice WHERE notice_id = $1", notice_id
    )
    assert row is not None
    return tuple(row)


async def test_notices_end_once_and_one_cause_makes_no_second(
    connection: asyncpg.Connection,
) -> None:
    store = NoticeStore("default")
    tried: dict[str, Any] = {"provider": "smtp", "attempts": 2}
    await store.save_rows(connection, [(0, _requested(f"n{number}")) for number in range(5)])
    await store.save_rows(
        connection,
        [
            (0, NoticeSent(notice_id="n0", **ABOUT, **tried, provider_message_id="<m>")),
            (0, NoticeFailed(notice_id="n1", **ABOUT, **tried, reason="550 no")),
            (1, NoticeUnknown(notice_id="n2", **ABOUT, **tried, reason="interrupted")),
            (1, NoticeSuppressed(notice_id="n3", **ABOUT, reason="superseded")),
            (1, NoticeSuppressed(notice_id="n9", **ABOUT, reason="no_address")),
        ],
    )
    assert await _status(connection, "n0") == ("sent", None, 2)
    assert await _status(connection, "n1") == ("failed", "550 no", 2)
    assert await _status(connection, "n2") == ("unknown", "interrupted", 2)
    assert await _status(connection, "n3") == ("suppressed", "superseded", 0)
    assert await _status(connection, "n4") == ("requested", None, 0)
    assert await _status(connection, "n9") == ("suppressed", "no_address", 0)
    await store.save_rows(
        connection, [(0, NoticeSent(notice_id="n2", **ABOUT, **tried, provider_message_id="<m>"))]
    )
    assert (await _status(connection, "n2"))[0] == "unknown"
    with pytest.raises(asyncpg.UniqueViolationError):
        await store.save_rows(connection, [(0, _requested("n0"))])


async def test_automatic_notices_to_a_recipient_are_counted_and_answers_are_not(
    connection: asyncpg.Connection,
) -> None:
    store = NoticeStore("default")
    rows = [
        _requested("a", at=NOW),
        _requested("b", at=NOW.replace(minute=1), recipient="ada@example.com"),
        _requested("c", at=NOW.replace(minute=2)),
        _requested("d", occasion="answered"),
        _requested("e", recipient="eve@example.com"),
    ]
    await store.save_rows(connection, [(0, row) for row in rows])
    ada = recipient_key("default", "ada@example.com")
    recents = await store.recents(connection, [ada, "nobody"], limit=2)
    assert recents == {ada: [NOW.replace(minute=1), NOW.replace(minute=2)], "nobody": []}
    assert await store.recents(connection, [], limit=2) == {}


async def test_automatic_notices_to_unproved_addresses_are_counted_together(
    connection: asyncpg.Connection,
) -> None:
    store = NoticeStore("default")
    rows = [
        _requested("a", at=NOW),
        _requested("b", at=NOW.replace(minute=1), recipient="eve@example.com"),
        _requested("c", at=NOW.replace(minute=2), is_verified=True),
        _requested("d", at=NOW.replace(minute=3), occasion="answered"),
    ]
    await store.save_rows(connection, [(0, row) for row in rows])
    assert await store.recent_unverified(connection, 10) == [NOW, NOW.replace(minute=1)]
    assert await store.recent_unverified(connection, 1) == [NOW.replace(minute=1)]
    assert await store.recent_unverified(connection, 0) == []


class _Provider:
    async def send(self, mail: Any) -> Delivered:
        return Delivered()


async def test_a_conversation_is_loaded_as_it_was_saved_with_what_others_were_told(
    connection: asyncpg.Connection,
) -> None:
    settings = load_settings(
        NotifierSettings, kafka="k:9092", database_url="postgresql://x", token_secret="s" * 32
    )
    stage = NotifierStage(PolicyHolder(ROOT / "policy", POLICY), settings, _Provider())
    event = TicketOpened.model_validate(TicketOpened.EXAMPLE)
    envelope = Envelope(
        id="e1",
        source="signalbox/router.tickets/0",
        type=event.TYPE,
        time=NOW,
        subject=event.ticket_id,
        partitionkey=event.conversation_id,
    )
    item = Received(envelope, event, event.conversation_id, "tickets", "e1")

    async def go(what: Input, now: datetime) -> Outcome[Loaded]:
        states = await stage.load(connection, 0, [what], [item.key])
        outcome = stage.decide(states[item.key], what, now)
        assert isinstance(outcome.state, Loaded)
        changes = [Change(0, item.key, outcome.state)]
        await stage.store.save(connection, changes, [(0, row) for row in outcome.rows])
        return outcome

    held = await go(item, NOW)
    due = held.timers["promise"]
    assert due == NOW + timedelta(seconds=5)
    outcome = await go(Tick(item.key, "promise", due), due)
    assert isinstance(outcome.state, Loaded)
    assert len(outcome.effects) == 1
    again = await stage.load(connection, 0, [item], [item.key])
    assert again[item.key].conversation == outcome.state.conversation
    assert again[item.key].recents == {
        recipient_key("default", "ada@example.com"): [due],
        UNVERIFIED: [due],
    }
    repeated = stage.decide(again[item.key], item, NOW)
    assert repeated.ignored == "already_told"
    assert not repeated.is_changed
