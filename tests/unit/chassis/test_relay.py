"""The relay: the first row to a partition goes alone, only the acknowledged prefix leaves, nothing is skipped."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import chassis.relay
from chassis.failpoints import Failpoints
from chassis.kafka_access import KafkaAccess
from chassis.ledger import OutboxRow
from chassis.relay import Relay


def row(oid: int, partition: int = 0, topic: str = "messages") -> OutboxRow:
    return OutboxRow(oid, topic, partition, oid, b"k", b"[]", f"{oid}".encode())


class Table:
    """The outbox of one task, as far as the relay asks for it."""

    def __init__(self) -> None:
        self.rows: list[OutboxRow] = []
        self.deleted: list[int] = []

    async def load_page(self, after: int, limit: int) -> list[OutboxRow]:
        return [one for one in self.rows if one.oid > after][:limit]

    async def delete_acked(self, oid: int) -> None:
        self.deleted.append(oid)


class Producer:
    """Acknowledges at once, unless told to refuse."""

    made: list["Producer"]

    def __init__(self, refuse: Callable[[bytes], bool]) -> None:
        self.sent: list[bytes] = []
        self.flights: list[list[bytes]] = []
        self._refuse = refuse
        self._open: list[tuple[bytes, asyncio.Future[None]]] = []
        self.is_stopped = False

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        self.is_stopped = True

    async def send(self, topic: str, value: bytes, **rest: Any) -> Awaitable[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent.append(value)
        if not self._open:
            asyncio.get_running_loop().call_soon(self._answer)
        self._open.append((value, future))
        return future

    def _answer(self) -> None:
        flight, self._open = self._open, []
        self.flights.append([value for value, _ in flight])
        for value, future in flight:
            if future.done():
                continue
            if self._refuse(value):
                future.set_exception(OSError("refused"))
            else:
                future.set_result(None)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def producers(monkeypatch: pytest.MonkeyPatch) -> list[Producer]:
    """The producers made so far, each of which acknowledges everything."""
    made: list[Producer] = []

    def make(kafka: KafkaAccess, client_id: str) -> Producer:
        made.append(Producer(lambda value: value in refused))
        return made[-1]

    refused: set[bytes] = set()
    monkeypatch.setattr(chassis.relay, "make_producer", make)
    return made


def make_relay(table: Table) -> Relay:
    return Relay(
        stage="sla",
        task=0,
        kafka=KafkaAccess("broker:9092"),
        topic_name=lambda name: name,
        load_page=table.load_page,
        delete_acked=table.delete_acked,
        failpoints=Failpoints(),
    )


def queued(relay: Relay) -> list[int]:
    return [one.oid for one, _ in relay._queue]


async def drained(relay: Relay) -> None:
    async with asyncio.timeout(5):
        while not relay.is_drained:
            await asyncio.sleep(0)


def next_rows(rows: list[OutboxRow], warm: set[tuple[str, int]]) -> list[int]:
    relay = make_relay(Table())
    relay._queue.extend((one, 0.0) for one in rows)
    relay._warm = warm
    return [one.oid for one in relay._next_rows()]


def test_on_a_new_producer_the_first_row_goes_alone() -> None:
    assert next_rows([row(1), row(2), row(3)], set()) == [1]


def test_rows_to_a_partition_that_has_had_an_ack_go_together() -> None:
    assert next_rows([row(1), row(2), row(3)], {("messages", 0)}) == [1, 2, 3]


def test_a_cold_row_behind_warm_ones_waits_for_them_and_then_goes_alone() -> None:
    rows = [row(1), row(2), row(3, 1), row(4)]
    assert next_rows(rows, {("messages", 0)}) == [1, 2]
    assert next_rows(rows[2:], {("messages", 0)}) == [3]
    assert next_rows(rows[2:], {("messages", 0), ("messages", 1)}) == [3, 4]


def test_the_same_number_of_another_topic_is_another_partition() -> None:
    assert next_rows([row(1, 0, "commands")], {("messages", 0)}) == [1]


def test_a_flight_has_a_limit() -> None:
    rows = [row(n) for n in range(1, 2_000)]
    assert len(next_rows(rows, {("messages", 0)})) == chassis.relay.BATCH_ROWS


async def ack(kind: str) -> asyncio.Future[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    match kind:
        case "acked":
            future.set_result(None)
        case "refused":
            future.set_exception(OSError("refused"))
        case "cancelled":
            future.cancel()
        case _:
            pass
    return future


@pytest.mark.parametrize(
    ("kinds", "left"),
    [
        (["acked", "acked", "acked"], []),
        (["acked", "refused", "acked"], [2, 3]),
        (["refused", "acked", "acked"], [1, 2, 3]),
        (["acked", "acked", "open"], [3]),
        (["acked", "cancelled", "acked"], [2, 3]),
        (["acked"], [2, 3]),
        ([], [1, 2, 3]),
    ],
)
async def test_only_the_acknowledged_prefix_leaves_the_queue(
    kinds: list[str], left: list[int], table: Table
) -> None:
    relay = make_relay(table)
    rows = [row(1), row(2), row(3)]
    relay._queue.extend((one, 0.0) for one in rows)
    relay._drop_acked_prefix(rows, [await ack(kind) for kind in kinds])
    assert queued(relay) == left
    assert relay.acked_oid == 3 - len(left)


async def test_rows_are_published_in_order_the_first_one_alone(
    table: Table, producers: list[Producer]
) -> None:
    relay = make_relay(table)
    relay.start([row(n) for n in range(1, 6)], is_page_full=False)
    await drained(relay)
    relay.append([row(6), row(7)])
    await drained(relay)
    await relay.stop()
    (producer,) = producers
    assert producer.flights == [[b"1"], [b"2", b"3", b"4", b"5"], [b"6", b"7"]]
    assert producer.is_stopped


async def test_after_a_refusal_a_new_producer_goes_on_from_the_first_row_not_acknowledged(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Producer] = []

    def make(kafka: KafkaAccess, client_id: str) -> Producer:
        is_first = not made
        made.append(Producer(lambda value: is_first and value == b"3"))
        return made[-1]

    monkeypatch.setattr(chassis.relay, "make_producer", make)
    relay = make_relay(table)
    relay.start([row(n) for n in range(1, 6)], is_page_full=False)
    await drained(relay)
    await relay.stop()
    assert made[0].flights == [[b"1"], [b"2", b"3", b"4", b"5"]]
    assert made[1].flights == [[b"3"], [b"4", b"5"]], "again alone first; 4 and 5 are duplicates"
    assert made[0].is_stopped
    assert relay.acked_oid == 5


async def test_a_long_queue_stays_in_the_table_and_is_read_back_in_order(
    table: Table, producers: list[Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("QUEUE_ROWS_MAX", 5), ("QUEUE_ROWS_RESUME", 2), ("PAGE_ROWS", 4)):
        monkeypatch.setattr(chassis.relay, name, value)
    relay = make_relay(table)
    for start in range(1, 31, 6):
        rows = [row(n) for n in range(start, start + 6)]
        table.rows += rows
        relay.append(rows)
    assert queued(relay) == list(range(1, 7))
    relay.start((), is_page_full=False)
    async with asyncio.timeout(5):
        while not relay.is_drained:
            await relay.page()
            await asyncio.sleep(0)
    await relay.stop()
    assert producers[0].sent == [f"{n}".encode() for n in range(1, 31)]


async def test_a_full_page_at_the_start_means_that_more_may_follow(
    table: Table, producers: list[Producer]
) -> None:
    table.rows = [row(n) for n in range(1, 5)]
    relay = make_relay(table)
    relay.start(table.rows[:2], is_page_full=True)
    relay.append([row(5)])  # Committed meanwhile: it is in the table as well.
    table.rows.append(row(5))
    await until_empty(relay)
    assert not relay.is_drained
    await relay.page()
    await drained(relay)
    await relay.stop()
    assert producers[0].sent == [b"1", b"2", b"3", b"4", b"5"]


async def until_empty(relay: Relay) -> None:
    async with asyncio.timeout(5):
        while relay.depth:
            await asyncio.sleep(0)


async def test_an_idle_relay_deletes_what_is_acknowledged_once(
    table: Table, producers: list[Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.relay, "IDLE_DELETE_SECONDS", 0.005)
    relay = make_relay(table)
    relay.start([row(1), row(2)], is_page_full=False)
    async with asyncio.timeout(5):
        while not table.deleted:
            await asyncio.sleep(0.001)
    relay.append([row(3)])
    await drained(relay)
    relay.ack_noted(3)  # A commit was quicker.
    await relay.stop()
    assert table.deleted == [2]


async def test_stopping_gives_what_is_queued_its_time_and_never_hangs(
    table: Table, producers: list[Producer]
) -> None:
    relay = make_relay(table)
    relay.start([row(n) for n in range(1, 4)], is_page_full=False)
    await relay.stop(drain_seconds=5)
    assert relay.is_drained


async def test_a_stop_that_comes_together_with_a_wake_up_is_not_lost(
    table: Table, producers: list[Producer]
) -> None:
    for _ in range(20):
        relay = make_relay(table)
        relay.start((), is_page_full=False)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        relay._wake.set()
        await asyncio.wait_for(relay.stop(), 5)


async def test_a_page_that_ended_at_its_bytes_is_not_taken_for_the_last_one(
    table: Table, producers: list[Producer]
) -> None:
    table.rows = [row(n) for n in range(1, 6)]

    async def one_row(after: int, limit: int) -> list[OutboxRow]:
        return [one for one in table.rows if one.oid > after][:1]

    table.load_page = one_row  # type: ignore[method-assign]
    relay = make_relay(table)
    relay.start(table.rows[:1], is_page_full=True)
    await relay.page()
    await drained(relay)
    await relay.stop()
    assert producers[0].sent == [b"1", b"2", b"3", b"4", b"5"]


class Stubborn:
    """A producer whose `stop` never ends, as one whose broker is away."""

    def __init__(self) -> None:
        self.sender_task = asyncio.create_task(asyncio.sleep(3_600))
        self._sender = self
        self.client = self
        self.is_closed = False
        self.is_asked = asyncio.Event()

    async def stop(self) -> None:
        self.is_asked.set()
        await asyncio.sleep(3_600)

    async def close(self) -> None:
        self.is_closed = True


async def test_a_producer_is_put_down_even_where_the_one_who_does_it_is_cancelled() -> None:
    stubborn = Stubborn()
    killing = asyncio.create_task(chassis.relay.kill_producer(stubborn))  # type: ignore[arg-type]
    await stubborn.is_asked.wait()
    killing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await killing
    assert stubborn.is_closed
    with pytest.raises(asyncio.CancelledError):
        await stubborn.sender_task


async def test_a_queue_is_bounded_by_its_bytes_as_by_its_rows(
    table: Table, producers: list[Producer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chassis.relay, "QUEUE_BYTES_MAX", 1_000)
    monkeypatch.setattr(chassis.relay, "QUEUE_BYTES_RESUME", 300)
    relay = make_relay(table)
    table.rows = [
        OutboxRow(n, "messages", 0, n, b"k", b"[]", f"{n:03}".encode() * 99) for n in range(1, 11)
    ]
    for one in table.rows[:7]:
        relay.append([one])
    assert queued(relay) == [1, 2, 3, 4, 5, 6]  # The seventh would be more than twice too much.
    assert relay.bytes_waiting == 6 * 300
    assert relay.is_long
    assert not relay.is_short
    for one in table.rows[7:]:
        relay.append([one])
    relay.start([], is_page_full=False)
    async with asyncio.timeout(5):
        while not relay.is_drained:
            await relay.page()
            await asyncio.sleep(0)
    await relay.stop()
    assert producers[0].sent == [one.value for one in table.rows]
    assert relay.bytes_waiting == 0
    assert relay.is_short
