"""Mail by IMAP: nothing is passed over before it is durable, and a mailbox that starts over is met again."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from chassis.errors import Unavailable
from chassis.spool import PutResult, SpoolItem
from schemas.inbound import InboundReceived
from services.ingest.adapters import imap
from services.ingest.adapters.imap import Cursor, ImapPoller, LeaseLost
from services.ingest.adapters.secrets import Secrets
from services.ingest.core.policy import ImapSource

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def mail(n: int) -> bytes:
    return b"From: ada@example.com\r\nMessage-ID: <%d@example.com>\r\n\r\nhello" % n


class Mailbox:
    """What an IMAP client answers about one folder."""

    def __init__(self, uids: list[int], validity: int = 7) -> None:
        self.mails = {uid: mail(uid) for uid in uids}
        self.validity = validity
        self.sizes: dict[int, int] = {}
        self.searches: list[Any] = []

    def select_folder(self, folder: str, readonly: bool) -> dict[bytes, Any]:
        assert readonly
        return {b"UIDVALIDITY": self.validity}

    def search(self, criteria: list[Any]) -> list[int]:
        self.searches.append(criteria)
        uids = sorted(self.mails)
        if criteria[0] == "UID":
            first = int(criteria[1].partition(":")[0])
            # As RFC 3501 has it, `n:*` names the last mail in any case.
            return [uid for uid in uids if uid >= first] or uids[-1:]
        return uids

    def fetch(self, uids: list[int], what: list[str]) -> dict[int, Any]:
        if what == ["RFC822.SIZE"]:
            return {
                uid: {b"RFC822.SIZE": self.sizes.get(uid, len(self.mails[uid]))}
                for uid in uids
                if uid in self.mails
            }
        assert what == ["BODY.PEEK[]"]
        return {uid: {b"BODY[]": self.mails[uid]} for uid in uids if uid in self.mails}


class Table:
    """The cursor's row."""

    def __init__(self) -> None:
        self.moves: list[tuple[int, int]] = []
        self.is_mine = True

    async def execute(self, sql: str, *arguments: Any) -> str:
        if sql == imap.MOVE_CURSOR and self.is_mine:
            self.moves.append((arguments[3], arguments[4]))
            return "UPDATE 1"
        return "UPDATE 0"

    async def fetchrow(self, sql: str, *arguments: Any) -> dict[str, Any] | None:
        return {"uidvalidity": 0, "last_uid": 0, "at": NOW} if self.is_mine else None


class MemorySpool:
    def __init__(self) -> None:
        self.items: list[SpoolItem] = []
        self.fails_at: int | None = None

    async def put(self, item: SpoolItem) -> PutResult:
        if len(self.items) == self.fails_at:
            raise Unavailable("the database")
        self.items.append(item)
        return PutResult(stored=True)


class Fixed:
    def now(self) -> datetime:
        return NOW


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def spool() -> MemorySpool:
    return MemorySpool()


def poller(spool: MemorySpool, table: Table, **changes: Any) -> ImapPoller:
    source = ImapSource(
        **(
            {
                "host": "127.0.0.1",
                "port": 1,
                "security": "none",
                "user": "u",
                "password": "env:SIGNALBOX_NO_SUCH",
            }
            | changes
        )
    )
    return ImapPoller(
        "support",
        source,
        spool=spool,
        pool=table,
        clock=Fixed(),
        secrets=Secrets(),
        workspace="default",
        poll_seconds=1,  # type: ignore[arg-type]
    )


def uids_of(spool: MemorySpool) -> list[int]:
    events = [InboundReceived.model_validate_json(item.value) for item in spool.items]
    return [int(event.url.rpartition("/")[2]) for event in events]


async def test_new_mails_are_stored_in_order_and_then_passed(
    spool: MemorySpool, table: Table
) -> None:
    assert await poller(spool, table).look(Mailbox(list(range(1, 46))), Cursor(7, 2, NOW)) == 43  # type: ignore[arg-type]
    assert uids_of(spool) == list(range(3, 46))
    assert table.moves == [(7, 22), (7, 42), (7, 45)]


async def test_nothing_new_is_nothing_done(spool: MemorySpool, table: Table) -> None:
    assert await poller(spool, table).look(Mailbox([1, 2]), Cursor(7, 2, NOW)) == 0  # type: ignore[arg-type]
    assert (spool.items, table.moves) == ([], [])


async def test_the_cursor_stays_where_the_database_went_away(
    spool: MemorySpool, table: Table
) -> None:
    spool.fails_at = 25
    with pytest.raises(Unavailable):
        await poller(spool, table).look(Mailbox(list(range(1, 41))), Cursor(7, 0, NOW))  # type: ignore[arg-type]
    assert table.moves == [(7, 20)]


async def test_the_same_mail_read_again_is_the_same_input(spool: MemorySpool, table: Table) -> None:
    for _ in range(2):
        await poller(spool, table).look(Mailbox([1]), Cursor(7, 0, NOW))  # type: ignore[arg-type]
    first, again = spool.items
    assert (first.envelope.id, first.idempotency) == (again.envelope.id, again.idempotency)
    assert first.idempotency is not None
    assert first.key == "email/support/ada@example.com"


async def test_a_first_look_takes_what_the_account_says(spool: MemorySpool, table: Table) -> None:
    await poller(spool, table).look(Mailbox([1, 2, 9]), Cursor(0, 0, NOW))  # type: ignore[arg-type]
    assert (spool.items, table.moves) == ([], [(7, 9)])
    await poller(spool, table, start="all").look(Mailbox([1, 2, 9]), Cursor(0, 0, NOW))  # type: ignore[arg-type]
    assert uids_of(spool) == [1, 2, 9]


async def test_a_mailbox_that_starts_over_is_read_from_two_days_before(
    spool: MemorySpool, table: Table
) -> None:
    box = Mailbox([1, 2], validity=8)
    await poller(spool, table).look(box, Cursor(7, 500, NOW))  # type: ignore[arg-type]
    assert box.searches == [["SINCE", datetime(2026, 11, 22, tzinfo=UTC).date()]]
    assert (uids_of(spool), table.moves) == ([1, 2], [(8, 2)])


async def test_a_mail_that_is_too_large_or_gone_is_passed_over(
    spool: MemorySpool, table: Table
) -> None:
    box = Mailbox([1, 2, 3])
    box.sizes[2] = 60 * 1024 * 1024
    del box.mails[3]
    box.mails[4] = mail(4)
    await poller(spool, table).look(box, Cursor(7, 0, NOW))  # type: ignore[arg-type]
    assert (uids_of(spool), table.moves) == ([1, 4], [(7, 4)])


async def test_whoever_lost_the_lease_moves_nothing(spool: MemorySpool, table: Table) -> None:
    table.is_mine = False
    with pytest.raises(LeaseLost):
        await poller(spool, table).look(Mailbox([1]), Cursor(7, 0, NOW))  # type: ignore[arg-type]


@pytest.mark.parametrize("password", ["env:SIGNALBOX_NO_SUCH", "env:SIGNALBOX_TEST_IMAP"])
async def test_errors_are_waited_out_and_never_end_the_poller(
    spool: MemorySpool, table: Table, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("SIGNALBOX_TEST_IMAP", "x")
    monkeypatch.setattr(imap, "PAUSE_SECONDS", (0.01, 0.02))
    tries = 0
    enough = asyncio.Event()
    take = ImapPoller._take_lease

    async def counted(self: ImapPoller) -> Cursor:
        nonlocal tries
        tries += 1
        if tries >= 3:
            enough.set()
        return await take(self)

    monkeypatch.setattr(ImapPoller, "_take_lease", counted)
    stopping = asyncio.Event()
    running = asyncio.create_task(poller(spool, table, password=password).run(stopping))
    await asyncio.wait_for(enough.wait(), 10)
    assert not running.done()
    stopping.set()
    await asyncio.wait_for(running, 10)
