"""FastStream made safe: batches, raw records, our own rebalance listener, nothing acknowledged but by the ledger.

FastStream carries the subscription, the life cycle and the AsyncAPI page. What its consuming defaults would lose is
taken over here, once: the parser and codec pass raw records through (null and non-UTF-8 header values survive, an
injected `reply_to` goes nowhere), the acknowledgement is manual and never used, and `SafeConsumer` turns what the client
cannot even decode into records that say so.
"""

import asyncio
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import ConsumerStoppedError, KafkaError
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage, KafkaMessage

from chassis import logs
from chassis.clock import monotonic

WAIT_SECONDS = 1.0
"""How long one poll waits for records; it returns at once when there are some."""

CAREFUL_RECORDS = 100
"""Records read one at a time from each partition after a poll failed."""

CAREFUL_WAIT_MS = 200

log = logs.get("bus")


@dataclass(frozen=True, slots=True)
class UndecodableRecord:
    """A record that the client library cannot decode; all that is known is where it lies and why."""

    topic: str
    partition: int
    offset: int
    error: str
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


Record: TypeAlias = ConsumerRecord | UndecodableRecord


class Guard(Protocol):
    """Knows which offsets come next, so that a poll that failed can be taken back."""

    def expected_offsets(self) -> Mapping[TopicPartition, int]:
        """Return the next offset of each partition that is being read for now."""
        ...


class SafeConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer whose `getmany` never loses what it has drained.

    A record with a header *key* that is not UTF-8 makes the client raise from inside the poll, for ever, and partitions
    drained earlier in that call have moved on already. On any error every partition is put back to its own offset; then
    records are read one at a time until the one that cannot be decoded stands alone.
    """

    def __init__(self, *topics: str, guard: Guard, **options: Any) -> None:
        super().__init__(*topics, **options)
        self._guard = guard
        self._is_careful = False
        self.last_poll = monotonic()
        """When the last poll came back: the loop turns as long as this moves."""

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        """Return records as they come, waiting up to `WAIT_SECONDS`; undecodable ones as `UndecodableRecord`."""
        del timeout_ms
        try:
            if self._is_careful:
                self._is_careful = False
                return await self._read_carefully()
            records: dict[TopicPartition, list[Record]] = await super().getmany(
                *partitions, timeout_ms=int(WAIT_SECONDS * 1000), max_records=max_records
            )
            return records
        except (ConsumerStoppedError, asyncio.CancelledError):
            raise
        except KafkaError as error:
            self._rewind()
            log.warning("poll_failed", error=type(error).__name__)
            await asyncio.sleep(0.5)
            return {}
        except Exception as error:  # noqa: BLE001 - whatever the client cannot decode: take it back, look closer
            self._rewind()
            self._is_careful = True
            log.warning("poll_undecodable", error=type(error).__name__)
            return {}
        finally:
            self.last_poll = monotonic()

    def _rewind(self) -> None:
        for partition, offset in self._guard.expected_offsets().items():
            if partition in self.assignment():
                self.seek(partition, offset)

    async def _read_carefully(self) -> dict[TopicPartition, list[Record]]:
        paused = self.paused()
        wanted = {
            partition: offset
            for partition, offset in self._guard.expected_offsets().items()
            if partition in self.assignment() and partition not in paused
        }
        # Side by side, so that those without news wait together; all of them end before a failure is passed on, since
        # each moves its own position.
        found = await asyncio.gather(
            *(self._read_one_by_one(partition, offset) for partition, offset in wanted.items()),
            return_exceptions=True,
        )
        records: dict[TopicPartition, list[Record]] = {}
        for partition, rows in zip(wanted, found, strict=True):
            if isinstance(rows, BaseException):
                raise rows
            if rows:
                records[partition] = rows
        return records

    async def _read_one_by_one(self, partition: TopicPartition, offset: int) -> list[Record]:
        records: list[Record] = []
        while len(records) < CAREFUL_RECORDS:
            try:
                got = await super().getmany(partition, timeout_ms=CAREFUL_WAIT_MS, max_records=1)
            except (ConsumerStoppedError, asyncio.CancelledError, KafkaError):
                raise
            except Exception as error:  # noqa: BLE001 - this one record is what cannot be decoded
                records.append(
                    UndecodableRecord(
                        partition.topic,
                        partition.partition,
                        offset,
                        f"the client cannot decode it: {type(error).__name__}",
                    )
                )
                offset += 1
                self.seek(partition, offset)
                self._is_careful = True  # More may follow.
                continue
            batch = got.get(partition, [])
            if not batch:
                return records
            records.extend(batch)
            offset = batch[-1].offset + 1
        self._is_careful = True
        return records


class _RawCodec:
    """Passes raw records to the handler; validation is per record and ours."""

    async def decode(self, msg: Any) -> Any:
        return msg.raw_message

    async def decode_batch(self, msg: Any) -> list[Any]:
        return list(msg.raw_message)

    async def encode(self, msg: Any, serializer: Any = None) -> tuple[bytes, str | None]:
        raise NotImplementedError("nothing is published through FastStream")

    async def encode_batch(
        self, msgs: Any, serializer: Any = None
    ) -> list[tuple[bytes, str | None]]:
        raise NotImplementedError("nothing is published through FastStream")


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, bus: "Bus") -> None:
        self._bus = bus

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._bus.reader.on_revoked(set(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        # Heartbeats start only after this returns, and records may be handed out before it does: pause, and no await.
        partitions = set(assigned)
        if self._bus.consumer is not None and partitions:
            self._bus.consumer.pause(*partitions)
        self._bus.reader.on_assigned(partitions)


class Reader(Guard, Protocol):
    """What the bus delivers to."""

    def on_assigned(self, partitions: set[TopicPartition]) -> None:
        """Partitions are ours, and paused. Must not wait."""
        ...

    async def on_revoked(self, partitions: set[TopicPartition]) -> None:
        """Partitions are about to be somebody else's. The whole group waits."""
        ...

    async def on_records(self, records: Sequence[Record]) -> None:
        """Records of one poll. Must not raise."""
        ...


def group_id(prefix: str, stage: str, topics: Iterable[str]) -> str:
    """Return the group of a stage: its name and a digest of its topics.

    All members of a group must subscribe to the same topics, or the range assignor splits partition n over two
    processes; a release that changes the list therefore makes a new group.
    """
    digest = hashlib.sha256("\n".join(sorted(topics)).encode()).hexdigest()[:8]
    return f"{prefix}{stage}-{digest}"


class Bus:
    """One stage's subscription to its topics."""

    def __init__(
        self,
        *,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        reader: Reader,
        session_seconds: float,
        max_records: int,
        client_id: str,
    ) -> None:
        self.reader = reader
        self.group = group
        self._broker = KafkaBroker(
            bootstrap,
            client_id=client_id,
            consumer_only=True,
            allow_auto_create_topics=False,
            logger=None,
            apply_types=False,
            graceful_timeout=5.0,
            request_timeout_ms=10_000,
            codec=_RawCodec(),
        )
        session_ms = int(session_seconds * 1000)
        self._subscriber = self._broker.subscriber(
            *topics,
            batch=True,
            group_id=group,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            parser=self._parse,
            codec=_RawCodec(),
            listener=_Listener(self),
            auto_offset_reset="earliest",
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(session_ms // 6, 300),
            rebalance_timeout_ms=int(session_ms * 4 / 3),
            fetch_max_wait_ms=100,
            batch_timeout_ms=5,
            max_records=max_records,
            max_poll_interval_ms=300_000,
        )
        self._subscriber(self._handle)

    @property
    def consumer(self) -> SafeConsumer | None:
        """The live consumer, once there is one."""
        consumer = self._subscriber.consumer
        return consumer if isinstance(consumer, SafeConsumer) else None

    async def start(self) -> None:
        """Join the group.

        Raises:
            KafkaError, OSError, TimeoutError: the broker does not answer; nothing is left running.
        """
        try:
            await self._broker.connect()
            config = self._broker.config.broker_config
            config.builder = partial(SafeConsumer, guard=self.reader, **config.builder.keywords)  # type: ignore[attr-defined]
            await self._broker.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave the group at once."""
        try:
            await asyncio.wait_for(self._broker.stop(), 5.0)
        except (KafkaError, TimeoutError, OSError) as error:
            log.warning("bus_stop_failed", error=type(error).__name__)

    async def _parse(self, message: Any) -> KafkaMessage:
        return KafkaAckableMessage(
            raw_message=message, body=b"", headers={}, consumer=self._subscriber.consumer
        )

    async def _handle(self, *records: Any) -> None:
        # FastStream spreads a decoded batch over the arguments of a handler without type injection.
        await self.reader.on_records(records)


logging.getLogger("aiokafka").setLevel(
    logging.ERROR
)  # Its warnings repeat what our own series and lines say.
