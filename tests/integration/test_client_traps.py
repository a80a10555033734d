"""What the client library does that would lose, repeat or stop, and that our code around it does not.

Each trap is shown twice: with the bare client, so that an upgrade which mends it is noticed here, and with the chassis.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, MessageSizeTooLargeError

from chassis.bus import Bus, Record, SafeConsumer, UndecodableRecord
from chassis.deadletters import pack_own_headers
from chassis.failpoints import Failpoints
from chassis.kafka_access import KafkaAccess
from chassis.ledger import OutboxRow
from chassis.relay import Relay
from chassis.task import Worker
from tests.faults.pipeline import StageB
from tests.faults.wire import publish_raw
from tests.integration.kit import looking, make_settings, make_topics, running, until

MakeTopic = Callable[..., Awaitable[str]]
BAD_KEY = b"\xff\xfe\xfd"
RECORDS = 40


@asynccontextmanager
async def _producing(bootstrap: str, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


@asynccontextmanager
async def _consuming(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]
) -> AsyncIterator[None]:
    await consumer.start()
    try:
        consumer.assign(list(partitions))
        for partition in partitions:
            consumer.seek(partition, 0)
        yield
    finally:
        await consumer.stop()


async def _fill(bootstrap: str, topic: str, bad: TopicPartition) -> None:
    """Two partitions of good records; in the middle of one of them a header key that is not UTF-8."""
    async with _producing(bootstrap) as producer:
        for n in range(RECORDS):
            if n == RECORDS // 2:
                publish_raw(
                    bootstrap,
                    topic,
                    bad.partition,
                    key=b"k",
                    value=b"bad",
                    headers=[(BAD_KEY, b"x")],
                    timestamp_ms=0,
                )
            for number in (0, 1):
                await producer.send_and_wait(topic, b"%d" % n, partition=number)


class _Positions:
    """A guard that counts what it was given, as a task's lease does."""

    def __init__(self, partitions: Sequence[TopicPartition]) -> None:
        self.next = dict.fromkeys(partitions, 0)

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        return dict(self.next)

    def on_out_of_range(self, partitions: set[TopicPartition]) -> None:
        raise AssertionError(f"{partitions}: the log was cut")


async def test_a_header_key_that_is_not_utf8_makes_the_bare_client_raise_and_forget_what_it_drained(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = await make_topic("letters", partitions=2)
    good, bad = partitions = [TopicPartition(topic, number) for number in (0, 1)]
    await _fill(bootstrap, topic, bad)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    async with _consuming(consumer, partitions):
        fetched = consumer._fetcher._records
        await until("both partitions are fetched", lambda: len(fetched) == 2)
        fetched.move_to_end(bad)
        with pytest.raises(UnicodeDecodeError):
            await consumer.getmany(timeout_ms=300)
        # The good partition was drained in the call that raised: its position has moved, its records are gone.
        assert await consumer.position(good) == RECORDS
        for _ in range(3):
            with pytest.raises(UnicodeDecodeError):
                await consumer.getmany(timeout_ms=3_000)


async def test_a_header_key_that_is_not_utf8_is_one_undecodable_record_and_nothing_is_lost(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = await make_topic("letters", partitions=2)
    partitions = [TopicPartition(topic, number) for number in (0, 1)]
    await _fill(bootstrap, topic, partitions[1])
    guard = _Positions(partitions)
    consumer = SafeConsumer(bootstrap_servers=bootstrap, guard=guard, enable_auto_commit=False)
    found: dict[TopicPartition, list[Record]] = {partition: [] for partition in partitions}

    async def read_all() -> None:
        while guard.next != {partitions[0]: RECORDS, partitions[1]: RECORDS + 1}:
            for partition, records in (await consumer.getmany()).items():
                assert records[0].offset == guard.next[partition]
                found[partition] += records
                guard.next[partition] = records[-1].offset + 1

    async with _consuming(consumer, partitions):
        await asyncio.wait_for(read_all(), 20)
    for partition in partitions:
        assert [record.offset for record in found[partition]] == list(range(guard.next[partition]))
    odd = [record for record in found[partitions[1]] if isinstance(record, UndecodableRecord)]
    assert [record.offset for record in odd] == [RECORDS // 2]
    assert "UnicodeDecodeError" in odd[0].error


class _Watching:
    """Takes what the bus delivers and does nothing with it."""

    def __init__(self) -> None:
        self.assigned: set[TopicPartition] = set()
        self.records: list[Record] = []

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        return {}

    def on_out_of_range(self, partitions: set[TopicPartition]) -> None:
        raise AssertionError(partitions)

    def on_assigned(self, partitions: set[TopicPartition]) -> None:
        self.assigned = partitions

    async def on_revoked(self, partitions: set[TopicPartition]) -> None:
        self.assigned = set()

    async def on_records(self, records: Sequence[Record]) -> None:
        self.records += records


async def test_no_record_is_handed_out_before_somebody_has_resumed_its_partition(
    bootstrap: str, make_topic: MakeTopic, topic_prefix: str
) -> None:
    topic = await make_topic("letters", partitions=2)
    async with _producing(bootstrap) as producer:
        for number in (0, 1):
            await producer.send_and_wait(topic, b"waiting", partition=number)
    watching = _Watching()
    bus = Bus(
        kafka=KafkaAccess(bootstrap),
        group=f"{topic_prefix}watch",
        topics=[topic],
        reader=watching,
        session_seconds=6.0,
        max_records=500,
        client_id="watch",
    )
    await bus.start()
    try:
        await until("it has partitions", lambda: len(watching.assigned) == 2)
        consumer = bus.consumer
        assert consumer is not None
        assert consumer.paused() == watching.assigned
        polled = consumer.last_poll
        await until("it has polled again and again", lambda: consumer.last_poll > polled + 2.0)
        assert watching.records == []
        for partition in watching.assigned:
            consumer.seek(partition, 0)
        consumer.resume(*watching.assigned)
        await until("the records have come", lambda: len(watching.records) == 2)
    finally:
        await bus.stop()


async def test_nothing_is_committed_while_the_group_is_being_joined(
    bootstrap: str, make_topic: MakeTopic, topic_prefix: str
) -> None:
    """Such a commit is answered after the join, and the client would take the answer for the end of its membership."""
    topic = await make_topic("letters", partitions=2)
    watching = _Watching()
    bus = Bus(
        kafka=KafkaAccess(bootstrap),
        group=f"{topic_prefix}watch",
        topics=[topic],
        reader=watching,
        session_seconds=6.0,
        max_records=500,
        client_id="watch",
    )
    await bus.start()
    try:
        await until("it has partitions", lambda: len(watching.assigned) == 2)
        consumer = bus.consumer
        assert consumer is not None
        offsets = dict.fromkeys(watching.assigned, 0)
        await consumer.commit(offsets)
        coordinator = consumer._coordinator
        member, generation = coordinator.member_id, coordinator.generation
        coordinator.request_rejoin()
        for _ in range(3):
            with pytest.raises(CommitFailedError):
                await consumer.commit(offsets)
        await until("it has joined anew", lambda: coordinator.generation > generation)
        await until("it has partitions", lambda: len(watching.assigned) == 2)
        await consumer.commit(offsets)
        assert (coordinator.member_id, coordinator.generation) == (member, generation + 1)
    finally:
        await bus.stop()


def test_the_assignment_callback_cannot_wait() -> None:
    """The client sends heartbeats only after it: what is slow there costs the membership without a sign."""
    assert not inspect.iscoroutinefunction(Worker.on_assigned)


async def test_a_task_without_all_its_topics_stays_paused(
    bootstrap: str, database: str, make_topic: MakeTopic, topic_prefix: str
) -> None:
    """A member of the group with another list of topics makes the range assignor split partition n over two."""
    await make_topics(make_topic)
    settings = make_settings(bootstrap, database, topic_prefix)
    async with looking(database, "pipeline_b"), running(StageB(), settings) as worker:
        stranger = AIOKafkaConsumer(
            settings.topic("messages"),
            bootstrap_servers=bootstrap,
            group_id=worker.bus.group,
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=6_000,
            heartbeat_interval_ms=500,
            enable_auto_commit=False,
        )
        await stranger.start()
        try:
            await until("a task lacks a topic", lambda: len(worker.incomplete) == 1)
            ((number, topics),) = worker.incomplete.items()
            assert topics == [settings.topic("commands")]
            await until(
                "the other task is owned",
                lambda: (
                    [task.number for task in worker.tasks.values() if task.epoch] == [1 - number]
                ),
            )
            consumer = worker.consumer
            assert consumer is not None
            half = TopicPartition(settings.topic("commands"), number)
            assert half in consumer.assignment()
            assert half in consumer.paused()
            assert number not in worker.tasks
        finally:
            await stranger.stop()
        await until(
            "both tasks are whole again",
            lambda: (
                worker.incomplete == {}
                and len(worker.tasks) == 2
                and all(task.epoch for task in worker.tasks.values())
            ),
        )
        assert not consumer.paused()


async def _set_size_max(bootstrap: str, topic: str, size: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": str(size)})]
        )
    finally:
        await admin.close()


async def _values(bootstrap: str, topic: str) -> list[bytes]:
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    async with _consuming(consumer, [partition]):
        end = (await consumer.end_offsets([partition]))[partition]
        found: list[bytes] = []
        while len(found) < end:
            for records in (await consumer.getmany(timeout_ms=300)).values():
                found += [record.value[:1] for record in records]
    return found


async def test_a_new_producer_whose_first_record_is_refused_leaves_a_hole(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = await make_topic("letters", config={"max.message.bytes": "1000"})
    async with _producing(bootstrap, enable_idempotence=True, linger_ms=0) as producer:
        refused = await producer.send(topic, b"1" + b"x" * 2_000, partition=0)
        second = await producer.send(topic, b"2", partition=0)
        with pytest.raises(MessageSizeTooLargeError):
            await refused
        try:
            await second
        except MessageSizeTooLargeError:
            # Both shared a batch; the next one comes alone.
            await producer.send_and_wait(topic, b"2", partition=0)
    assert await _values(bootstrap, topic) == [b"2"]


async def test_the_relay_waits_for_the_first_record_and_leaves_no_hole(
    bootstrap: str, make_topic: MakeTopic
) -> None:
    topic = await make_topic("letters", config={"max.message.bytes": "1000"})
    headers = pack_own_headers([("ce_type", "test")])
    rows = [
        OutboxRow(1, topic, 0, 1, b"k", headers, b"1" + b"x" * 2_000),
        OutboxRow(2, topic, 0, 2, b"k", headers, b"2"),
        OutboxRow(3, topic, 0, 3, b"k", headers, b"3"),
    ]

    async def no_rows(after: int, limit: int) -> list[OutboxRow]:
        return []

    async def forget(oid: int) -> None:
        return

    tries = 0

    class Counting(Failpoints):
        def hit(self, name: str) -> None:
            nonlocal tries
            tries += name == "before_relay"

    relay = Relay(
        stage="traps",
        task=0,
        kafka=KafkaAccess(bootstrap),
        topic_name=lambda name: name,
        load_page=no_rows,
        delete_acked=forget,
        failpoints=Counting(),
    )
    relay.start(rows, is_page_full=False)
    try:
        await until("it has tried several times, each with a new producer", lambda: tries >= 3)
        assert relay.depth == 3
        assert await _values(bootstrap, topic) == []
        await _set_size_max(bootstrap, topic, 1_048_588)
        await until("all is published", lambda: relay.is_drained)
    finally:
        await relay.stop(1.0)
    assert await _values(bootstrap, topic) == [b"1", b"2", b"3"]
    assert relay.acked_oid == 3
