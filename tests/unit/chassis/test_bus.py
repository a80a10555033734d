"""The consumer that never loses what it drained: which errors it survives, and when it says that it does not."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

import chassis.bus
from chassis.bus import BROKEN_SECONDS, Bus, SafeConsumer, UndecodableRecord
from chassis.kafka_access import KafkaAccess

OWNED, OTHER = (TopicPartition("tickets", number) for number in (0, 1))


class Guard:
    def __init__(self) -> None:
        self.cut: set[TopicPartition] = set()

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        return {OWNED: 7}

    def on_out_of_range(self, partitions: set[TopicPartition]) -> None:
        self.cut |= partitions

    def on_assigned(self, partitions: set[TopicPartition]) -> None:
        raise AssertionError

    async def on_revoked(self, partitions: set[TopicPartition]) -> None:
        raise AssertionError

    async def on_records(self, records: Any) -> None:
        raise AssertionError


class Client:
    """What the client below says to each poll, and what it was told to seek."""

    def __init__(self) -> None:
        self.answer: BaseException | dict[TopicPartition, list[Any]] = {}
        self.sought: dict[TopicPartition, int] = {}
        self.now = 100.0


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    one = Client()

    async def getmany(self: Any, *partitions: Any, **rest: Any) -> Any:
        if isinstance(one.answer, BaseException):
            raise one.answer
        return one.answer

    async def no_pause(seconds: float) -> None:
        del seconds

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", getmany)
    monkeypatch.setattr(AIOKafkaConsumer, "assignment", lambda self: {OWNED, OTHER})
    monkeypatch.setattr(
        AIOKafkaConsumer, "seek", lambda self, p, offset: one.sought.update({p: offset})
    )
    monkeypatch.setattr(chassis.bus, "monotonic", lambda: one.now)
    monkeypatch.setattr(asyncio, "sleep", no_pause)
    return one


@pytest.fixture
def guard() -> Guard:
    return Guard()


@pytest.fixture
async def consumer(client: Client, guard: Guard) -> AsyncIterator[SafeConsumer]:
    one = SafeConsumer(bootstrap_servers="broker:9092", guard=guard)
    yield one
    one._closed = True


async def test_a_poll_that_fails_does_not_count_as_a_turn_and_a_quiet_one_does(
    consumer: SafeConsumer, client: Client
) -> None:
    client.now, client.answer = 105.0, KafkaError()
    assert await consumer.getmany() == {}
    assert consumer.last_poll == 100.0
    client.now = 107.0
    assert consumer.failing_seconds == 2.0
    client.answer = {}
    await consumer.getmany()
    assert (consumer.last_poll, consumer.failing_seconds) == (107.0, 0.0)


async def test_a_client_whose_own_task_has_ended_fails_every_poll_and_blames_no_record(
    consumer: SafeConsumer, client: Client
) -> None:
    ended = asyncio.get_running_loop().create_future()
    ended.set_exception(TypeError("a mistake in the client"))
    consumer._coordinator = SimpleNamespace(_coordination_task=ended)
    client.answer = TypeError("what the client makes of it")
    assert await consumer.getmany() == {}
    client.now += 1.0
    assert await consumer.getmany() == {}
    assert consumer.failing_seconds == 1.0
    assert not consumer._is_careful
    ended.exception()


async def test_an_offset_that_the_log_has_lost_is_told_to_the_guard_and_nothing_is_skipped(
    consumer: SafeConsumer, client: Client, guard: Guard
) -> None:
    client.answer = OffsetOutOfRangeError({OWNED: 7})
    assert await consumer.getmany() == {}
    assert guard.cut == {OWNED}
    assert client.sought == {OWNED: 7}


async def test_a_partition_nobody_owns_yet_only_gets_a_position(
    consumer: SafeConsumer, client: Client, guard: Guard
) -> None:
    client.answer = NoOffsetForPartitionError(OTHER)
    assert await consumer.getmany() == {}
    assert guard.cut == set()
    assert client.sought == {OWNED: 7, OTHER: 0}


class Log:
    """A partition's records, of which some cannot be decoded; the client reads it from where it was told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, length: int, bad: set[int]) -> None:
        self.position, self.length, self.bad = 7, length, bad
        self.failures = 0
        self.asked: list[TopicPartition] = []

        async def getmany(
            _: Any, *partitions: TopicPartition, max_records: int | None = None, **rest: Any
        ) -> Any:
            self.asked += partitions
            if partitions not in ((), (OWNED,)):
                return {}
            end = min(self.length, self.position + (max_records or 500))
            rows = list(range(self.position, end))
            if self.bad & set(rows):
                self.failures += 1
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "no")
            self.position = end
            return {OWNED: [SimpleNamespace(offset=n) for n in rows]} if rows else {}

        def seek(_: Any, partition: TopicPartition, offset: int) -> None:
            if partition == OWNED:
                self.position = offset

        monkeypatch.setattr(AIOKafkaConsumer, "getmany", getmany)
        monkeypatch.setattr(AIOKafkaConsumer, "seek", seek)
        monkeypatch.setattr(AIOKafkaConsumer, "paused", lambda _: set())
        monkeypatch.setattr(
            AIOKafkaConsumer, "highwater", lambda _, p: self.length if p == OWNED else 3
        )


class Moving(Guard):
    """Two partitions are owned; of one the log has no more."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = 7

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        return {OWNED: self.offset, OTHER: 3}


async def test_undecodable_records_stand_alone_and_are_remembered_when_they_are_met_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, log = Moving(), Log(monkeypatch, 20, {9, 12})
    consumer = SafeConsumer(bootstrap_servers="broker:9092", guard=guard)
    try:
        assert await consumer.getmany(max_records=500) == {}
        first = await consumer.getmany(max_records=500)
        assert [record.offset for record in first[OWNED]] == list(range(7, 20))
        assert [
            record.offset for record in first[OWNED] if isinstance(record, UndecodableRecord)
        ] == [9, 12]
        assert log.failures == 3
        assert OTHER not in log.asked, "nobody waits for a partition that has no news"
        log.position = guard.offset = 8  # The task was lost, and begins again before them.
        again = await consumer.getmany(max_records=500)
        assert [record.offset for record in again[OWNED]] == list(range(8, 20))
        assert log.failures == 3
        guard.offset = 20
        log.length = 30
        await consumer.getmany(max_records=500)
        assert consumer._undecodable == {}
    finally:
        consumer._closed = True


async def test_a_record_that_cannot_be_decoded_and_is_not_ours_for_now_costs_the_others_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, log = Moving(), Log(monkeypatch, 20, {9})
    consumer = SafeConsumer(bootstrap_servers="broker:9092", guard=guard)
    try:
        await consumer.getmany()
        await consumer.getmany()
        monkeypatch.setattr(guard, "expected_offsets", lambda: {OTHER: 3})
        log.position = 20
        consumer._is_careful = False
        assert await consumer.getmany() == {}
        assert consumer._undecodable[OWNED].keys() == {9}
        monkeypatch.setattr(AIOKafkaConsumer, "assignment", lambda self: {OTHER})
        await consumer.getmany()
        assert consumer._undecodable == {}
    finally:
        consumer._closed = True


def make_bus(guard: Guard) -> Bus:
    return Bus(
        kafka=KafkaAccess("127.0.0.1:1"),
        group="g",
        topics=["tickets"],
        reader=guard,
        session_seconds=6.0,
        max_records=500,
        client_id="test",
    )


async def test_a_bus_is_broken_after_ten_seconds_of_failed_polls(
    consumer: SafeConsumer, client: Client, guard: Guard
) -> None:
    bus = make_bus(guard)
    assert not bus.is_broken
    bus._subscriber = SimpleNamespace(consumer=consumer)
    client.answer = KafkaError()
    await consumer.getmany()
    client.now += BROKEN_SECONDS
    assert not bus.is_broken
    client.now += 1.0
    assert bus.is_broken


async def test_a_start_that_failed_can_be_tried_again(guard: Guard) -> None:
    bus = make_bus(guard)
    for _ in range(2):
        with pytest.raises((KafkaError, OSError)):
            await bus.start()
    assert bus.consumer is None


async def test_stopping_passes_over_whatever_the_client_says(
    guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = make_bus(guard)

    async def stop() -> None:
        raise ExceptionGroup("several", [RuntimeError("one")])

    monkeypatch.setattr(bus._broker, "stop", stop)
    await bus.stop()
