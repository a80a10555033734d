"""The notifier's rows on a real PostgreSQL: one intent a cause, ends that stay, counts that the caps stand on."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Change, Input, Outcome, Received, Tick
from schemas.envelope import Envelope
from schemas.messages import MessageDeliveryReported
from schemas.notifications import (
    AnyNoticeEvent,
    NoticeDeferred,
    NoticeDeliveryReported,
    NoticeFailed,
    NoticeRequested,
    NoticeSent,
    NoticeSuppressed,
    NoticeUnknown,
)
from schemas.tickets import TicketOpened
from services.notifier.core.articles import NO_ARTICLES
from services.notifier.core.audience import recipient_key
from services.notifier.core.delivery import Delivered
from services.notifier.core.known import UNVERIFIED, Known, Told
from services.notifier.core.state import Conversation, Mail, Message, Settled, Waiting
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.settings import NotifierSettings
from services.notifier.store import Loaded, NoticeStore, PutOff

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
    with pytest.raises(asyncpg.CheckViolationError, match="notice_status_check"):
        await store.save_rows(connection, [(0, _requested("n0"))])


def _deferred(notice_id: str, until: datetime, **changes: Any) -> NoticeDeferred:
    facts = {**ABOUT, "until": until, "reason": "quiet_hours", **changes}
    return NoticeDeferred(notice_id=notice_id, **facts)


async def test_a_notice_that_is_put_off_has_a_row_and_is_asked_for_once(
    connection: asyncpg.Connection,
) -> None:
    store = NoticeStore("default")
    later = NOW + timedelta(hours=9)
    await store.save_rows(connection, [(0, _deferred("n0", later)), (0, _deferred("n1", later))])
    until = "SELECT deferred_until FROM notice WHERE notice_id = $1"
    assert await _status(connection, "n0") == ("deferred", "quiet_hours", 0)
    assert await connection.fetchval(until, "n0") == later
    await store.save_rows(
        connection,
        [(0, _requested("n0", provider="zendesk", account="shop", occasion="solved"))],
    )
    assert await _status(connection, "n0") == ("requested", None, 0)
    assert await connection.fetchval(until, "n0") is None
    await store.save_rows(
        connection, [(0, _deferred("n0", later, reason="account_trouble", account="shop"))]
    )
    assert await _status(connection, "n0") == ("requested", "account_trouble", 0)
    await store.save_rows(
        connection, [(0, NoticeSuppressed(notice_id="n1", **ABOUT, reason="expired"))]
    )
    assert await _status(connection, "n1") == ("suppressed", "expired", 0)
    with pytest.raises(asyncpg.CheckViolationError):
        await store.save_rows(connection, [(0, _requested("n0"))])


async def test_an_accounts_next_try_moves_and_is_over_once_it_is_handed_over(
    connection: asyncpg.Connection,
) -> None:
    store = NoticeStore("default")
    until = "SELECT deferred_until FROM notice WHERE notice_id = $1"
    first, second = NOW + timedelta(minutes=15), NOW + timedelta(minutes=30)
    told = _deferred("n0", first, reason="account_trouble", account="shop")
    await store.save_rows(connection, [(0, _requested("n0")), (0, told), (0, PutOff("n0", first))])
    assert await connection.fetchval(until, "n0") == first
    await store.save_rows(connection, [(0, PutOff("n0", None)), (0, PutOff("n0", second))])
    assert await connection.fetchval(until, "n0") == second
    await store.save_rows(connection, [(0, PutOff("n0", None))])
    assert await connection.fetchval(until, "n0") is None
    ended = NoticeFailed(notice_id="n0", **ABOUT, provider="smtp", attempts=3, reason="535")
    await store.save_rows(connection, [(0, PutOff("n0", second)), (0, ended)])
    assert await connection.fetchval(until, "n0") is None


async def test_all_of_it_in_one_batch_comes_to_the_same(connection: asyncpg.Connection) -> None:
    store = NoticeStore("default")
    sent = NoticeSent(
        notice_id="n0", **ABOUT, provider="smtp", attempts=1, provider_message_id="<m>"
    )
    reported = NoticeDeliveryReported(notice_id="n0", **ABOUT, what="read")
    rows: list[AnyNoticeEvent] = [_deferred("n0", NOW), _requested("n0"), sent, reported]
    await store.save_rows(connection, [(0, row) for row in rows])
    row = await connection.fetchrow("SELECT status, message_id, delivery FROM notice")
    assert tuple(row or ()) == ("sent", "<m>", "read")


async def test_a_report_without_a_conversation_finds_its_notice_by_the_messages_id(
    connection: asyncpg.Connection,
) -> None:
    store = NoticeStore("default")
    sent = NoticeSent(
        notice_id="n0", **ABOUT, provider="twilio_sms", attempts=1, provider_message_id="SM42"
    )
    await store.save_rows(connection, [(0, _requested("n0", recipient="+4420")), (0, sent)])
    found = await store.reported(connection, ["SM42", "other"])
    ((name, (conversation_id, alone)),) = found.items()
    assert (name, conversation_id) == ("SM42", ABOUT["conversation_id"])
    (notice,) = alone.notices.values()
    assert isinstance(notice, Settled)
    assert notice.recipient == recipient_key("default", "+4420")
    assert await store.reported(connection, []) == {}


def _stage() -> NotifierStage:
    settings = load_settings(
        NotifierSettings, kafka="k:9092", database_url="postgresql://x", token_secret="s" * 32
    )
    holder = PolicyHolder(ROOT / "policy", POLICY)
    holder.current = replace(holder.current, articles=NO_ARTICLES)
    return NotifierStage(holder, settings, _Sending())


async def test_a_report_that_overtakes_its_sending_reaches_the_ticket_once_that_is_recorded(
    connection: asyncpg.Connection,
) -> None:
    stage, key = _stage(), "SM42"
    facts = {
        **MessageDeliveryReported.EXAMPLE,
        "vendor_message_id": key,
        "conversation_id": None,
        "what": "bounced",
    }
    event = MessageDeliveryReported.model_validate(facts)
    envelope = Envelope(
        id="e1",
        source="signalbox/ingest/0",
        type=event.TYPE,
        time=NOW,
        subject=key,
        partitionkey=key,
    )

    async def go(what: Input, now: datetime) -> Outcome[Loaded]:
        states = await stage.load(connection, 3, [what], [what.key])
        outcome = stage.decide(states[what.key], what, now)
        changes = [Change(3, what.key, outcome.state)] if outcome.is_changed else []
        await stage.store.save(connection, changes, [(3, row) for row in outcome.rows])
        return outcome

    early = await go(Received(envelope, event, key, "messages", "e1"), NOW)
    due = early.timers["report"]
    assert due is not None
    assert list(early.events) == []
    still = await go(Tick(key, "report", due), due)
    assert list(still.events) == []

    sent = NoticeSent(
        notice_id="n0", **ABOUT, provider="twilio_sms", attempts=1, provider_message_id=key
    )
    rows: list[AnyNoticeEvent] = [_requested("n0", recipient="+4420"), sent]
    conversation_id = ABOUT["conversation_id"]
    settled = Settled("t1", "received", "sent", key, "twilio_sms", "sms", ended_at=NOW)
    loaded = Loaded(Conversation(notices={"n0": settled}), Known("default"))
    change = Change(0, conversation_id, loaded)
    await stage.store.save(connection, [change], [(0, row) for row in rows])

    due = still.timers["report"]
    assert due is not None
    (told,) = (await go(Tick(key, "report", due), due)).events
    assert isinstance(told, NoticeDeliveryReported)
    assert (told.conversation_id, told.ticket_id, told.what) == (conversation_id, "t1", "bounced")
    assert await connection.fetchval("SELECT delivery FROM notice") == "bounced"
    assert await connection.fetchval("SELECT count(*) FROM state WHERE key = $1", key) == 0

    # The conversation itself, another task's, knows by what it is read with.
    again = await stage.load(connection, 0, [], [conversation_id])
    notice = again[conversation_id].conversation.notices["n0"]
    assert isinstance(notice, Settled)
    assert notice.delivery == "bounced"


async def test_what_waited_before_there_were_other_ways_than_mail_is_understood(
    database: str,
) -> None:
    connected = await asyncpg.connect(database)
    try:
        for script in sorted((ROOT / "chassis/sql").glob("*.sql")):
            await connected.execute(script.read_text())
        scripts = sorted((ROOT / "services/notifier/sql").glob("*.sql"))
        old = [one for one in scripts if one.name < "0003"]
        for script in old:
            await connected.execute(script.read_text())
        mail: dict[str, Any] = {
            "from_name": "L", "from_address": "a@b.example", "to_address": "c@d.example", "envelope_from": "",
            "reply_to": "", "subject": "s", "text": "t", "html": "", "language": "en",
            "date": "2026-11-24T08:00:00Z", "message_id": "<m@b.example>", "in_reply_to": None, "references": [],
            "headers": [],
        }  # fmt: skip
        waiting = {"type": "Waiting", "ticket_id": "t1", "occasion": "received", "attempt": 1,
                   "retry_at": "2026-11-24T08:01:00Z", "mail": mail}  # fmt: skip
        sent = {"type": "Settled", "ticket_id": "t1", "occasion": "solved", "status": "sent"}
        document = json.dumps({"notices": {"n1": waiting, "n2": sent}}, separators=(",", ":"))
        await connected.execute(
            "INSERT INTO state (stage, task, key, value) VALUES ('notifier', 0, 'c1', $1)", document
        )
        for script in scripts[len(old) :]:
            await connected.execute(script.read_text())
        loaded = await NoticeStore("default").load(connected, 0, ["c1"])
        notice = loaded["c1"].notices["n1"]
        assert isinstance(notice, Waiting)
        assert isinstance(notice.message, Mail)
        assert (notice.message.subject, notice.provider) == ("s", "smtp")
        assert isinstance(loaded["c1"].notices["n2"], Settled)
    finally:
        await connected.close()


class _Sending:
    async def send(self, provider: str, account: str, message: Message) -> Delivered:
        raise AssertionError(f"nothing is sent here, by {provider}/{account}: {message}")

    async def find(self, provider: str, account: str, message: Message) -> Delivered:
        raise AssertionError(f"nothing is looked up here, at {provider}/{account}: {message}")

    def is_repeatable(self, provider: str) -> bool:
        return provider == ""


async def test_a_conversation_is_loaded_as_it_was_saved_with_what_others_were_told(
    connection: asyncpg.Connection,
) -> None:
    stage = _stage()
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
    assert again[item.key].known.told == {
        recipient_key("default", "ada@example.com"): [Told(due, "service")],
        UNVERIFIED: [Told(due, "service")],
    }
    repeated = stage.decide(again[item.key], item, NOW)
    assert repeated.ignored == "already_told"
    assert not repeated.is_changed
