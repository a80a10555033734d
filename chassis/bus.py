"""FastStream made safe: batches, raw records, our own rebalance listener, nothing acknowledged but by the ledger.

FastStream carries the subscription, the life cycle and the AsyncAPI page. What its consuming defaults would lose is
taken over here, once: the parser and codec pass raw records through (null and non-UTF-8 header values survive, an
injected `reply_to` goes nowhere), the acknowledgement is manual and never used, and `SafeConsumer` turns what the client
cannot even decode into records that say so.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from faststream import AckPolicy
from faststream.kafka import KafkaBroker
from faststream.kafka.message import KafkaAckableMessage, KafkaMessage
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from chassis import logs
from chassis.clock import monotonic
from chassis.kafka_access import KafkaAccess

WAIT_SECONDS = 1.0
"""How long one poll waits for records; it returns at once when there are some."""

CAREFUL_RECORDS = 100
"""Records read one at a time from each partition after a poll failed."""

CAREFUL_WAIT_MS = 200
"""How long a careful read waits for a record that should be there."""

BROKEN_SECONDS = 10.0
"""A client whose polls have failed for this long does not come back by itself: a new one has to join."""

STOP_SECONDS = 5.0

KAFKA_SECONDS = 3.0
"""How long Kafka may take to answer a question of ours."""

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

    def on_out_of_range(self, partitions: set[TopicPartition]) -> None:
        """The log does not hold the next offset of these: it was cut, or made anew. Must not wait."""
        ...


class ClientDead(KafkaError):  # type: ignore[misc]
    """A task of the client has ended, so that nothing will ever be read with it."""


class SafeConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """A consumer whose `getmany` never loses what it has drained.

    A record with a header *key* that is not UTF-8 makes the client raise from inside the poll, for ever, and partitions
    drained earlier in that call have moved on already. On any error every partition is put back to its own offset; then
    records are read one at a time until the one that cannot be decoded stands alone. Where it lies is remembered until
    it is behind us: met again, it costs no failed poll.

    Where the log no longer holds an offset, nothing is skipped: the guard is told (`auto_offset_reset` is `none`).
    """

    def __init__(self, *topics: str, guard: Guard, **options: Any) -> None:
        super().__init__(*topics, **options)
        self._guard = guard
        self._is_careful = False
        self._undecodable: dict[TopicPartition, dict[int, UndecodableRecord]] = {}
        """Records that cannot be decoded and are not behind us yet, by offset."""
        self._failing_since: float | None = None
        self._commit_turn = asyncio.Lock()
        self.last_poll = monotonic()
        """When a poll last came back without an error: the loop turns as long as this moves."""

    @property
    def failing_seconds(self) -> float:
        """For how long every poll has failed."""
        return 0.0 if self._failing_since is None else monotonic() - self._failing_since

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> dict[TopicPartition, list[Record]]:
        """Return records as they come, waiting up to `WAIT_SECONDS`; undecodable ones as `UndecodableRecord`."""
        del timeout_ms
        try:
            self._check_alive()
            if self._is_careful or self._meets_undecodable():
                self._is_careful = False
                records = await self._read_carefully()
            else:
                records = await super().getmany(
                    *partitions, timeout_ms=int(WAIT_SECONDS * 1000), max_records=max_records
                )
        except (ConsumerStoppedError, asyncio.CancelledError):
            raise
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            self._rewind()  # A careful poll may have moved others.
            self._note_turn()
            await self._leave_to_guard(error)
            return {}
        except KafkaError as error:
            self._rewind()
            self._note_failure()
            log.warning("poll_failed", error=type(error).__name__)
            await asyncio.sleep(0.5)
            return {}
        except Exception as error:  # noqa: BLE001 - whatever the client cannot decode: take it back, look closer
            self._rewind()
            self._note_failure()
            self._is_careful = True
            log.warning("poll_undecodable", error=type(error).__name__)
            return {}
        self._note_turn()
        return records

    async def commit(
        self, offsets: Mapping[TopicPartition, int | tuple[int, str]] | None = None
    ) -> None:
        """Commit offsets as a member in good standing, one commit at a time.

        While the group is being joined nothing is sent. The broker would answer after the join, to a member of the
        generation before, and the client takes any such answer for the end of the membership that it has just got: it
        joins again. A commit with each assignment would keep that up for ever.

        Raises:
            CommitFailedError: we are out, or on our way in; an assignment will follow.
        """
        async with self._commit_turn:
            coordinator, subscription = self._coordinator, self._subscription.subscription
            if (
                subscription is None
                or coordinator.generation < 0
                or coordinator.need_rejoin(subscription)
            ):
                raise CommitFailedError("the group is being joined")
            await super().commit(offsets)

    def _note_turn(self) -> None:
        self._failing_since, self.last_poll = None, monotonic()

    def _note_failure(self) -> None:
        if self._failing_since is None:
            self._failing_since = monotonic()

    def _check_alive(self) -> None:
        """Say what the client itself would say never, or as if it were a record that cannot be decoded."""
        if self._closed:
            return  # `getmany` says so itself.
        for owner, name in (
            (self._coordinator, "_coordination_task"),
            (self._fetcher, "_fetch_task"),
        ):
            task = getattr(owner, name, None)
            if task is not None and task.done():
                raise ClientDead(f"{name.strip('_')} has ended")

    async def _leave_to_guard(self, error: KafkaError) -> None:
        found = error.args[0] if error.args else ()
        partitions = {found} if isinstance(found, TopicPartition) else set(found)
        assigned = self.assignment()
        owned = self._guard.expected_offsets()
        for partition in (partitions & assigned) - owned.keys():
            # Only a position, so that the client does not look for one: see `_Listener`.
            self.seek(partition, 0)
        cut = partitions & assigned & owned.keys()
        if cut and isinstance(error, OffsetOutOfRangeError):
            log.error(
                "offset_out_of_range", partitions=sorted(f"{p.topic}/{p.partition}" for p in cut)
            )
            self._guard.on_out_of_range(cut)
        await asyncio.sleep(0.05)

    def _rewind(self) -> None:
        for partition, offset in self._guard.expected_offsets().items():
            if partition in self.assignment():
                self.seek(partition, offset)

    def _meets_undecodable(self) -> bool:
        """Whether a record that is known not to be decodable lies ahead; what lies behind is forgotten."""
        if not self._undecodable:
            return False
        assigned, paused = self.assignment(), self.paused()
        expected = self._guard.expected_offsets()
        ahead: dict[TopicPartition, dict[int, UndecodableRecord]] = {}
        for partition, known in self._undecodable.items():
            left = {n: one for n, one in known.items() if n >= expected.get(partition, 0)}
            if left and partition in assigned:
                ahead[partition] = left
        self._undecodable = ahead
        return any(partition in expected and partition not in paused for partition in ahead)

    async def _read_carefully(self) -> dict[TopicPartition, list[Record]]:
        paused = self.paused()
        wanted = {
            partition: offset
            for partition, offset in self._guard.expected_offsets().items()
            if partition in self.assignment() and partition not in paused
        }
        # Side by side, so that those who wait for the broker wait together; all of them end before a failure is passed
        # on, since each moves its own position.
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
        """Read up to the end of the log as the last fetch knew it: nobody waits for what is not written yet."""
        records: list[Record] = []
        known = self._undecodable.get(partition, {})
        while len(records) < CAREFUL_RECORDS:
            if partition not in self.assignment():
                return records  # Whoever gets it now reads them again.
            high = self.highwater(partition)
            if offset in known:
                records.append(known[offset])
                offset += 1
                self.seek(partition, offset)
                continue
            if high is not None and offset >= high:
                return records
            try:
                got = await super().getmany(partition, timeout_ms=CAREFUL_WAIT_MS, max_records=1)
            except (ConsumerStoppedError, asyncio.CancelledError, KafkaError):
                raise
            except Exception as error:  # noqa: BLE001 - this one record is what cannot be decoded
                self._check_alive()  # Unless the client has died: that is no record's fault.
                known = self._undecodable.setdefault(partition, {})
                known[offset] = UndecodableRecord(
                    partition.topic,
                    partition.partition,
                    offset,
                    f"the client cannot decode it: {type(error).__name__}",
                )
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
            for partition in partitions:
                # Any position will do while it is paused, and acquiring seeks to the lease's. Without one the client
                # would look for it, and fail where there is none.
                self._bus.consumer.seek(partition, 0)
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


def _security(kafka: KafkaAccess) -> BaseSecurity | None:
    """Return how the brokers are reached as FastStream wants it told."""
    if kafka.protocol == "PLAINTEXT":
        return None
    context = kafka.tls()
    if not kafka.has_login:
        return BaseSecurity(ssl_context=context)
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    made: BaseSecurity = kinds[kafka.mechanism](
        kafka.username, kafka.password, ssl_context=context, use_ssl=kafka.is_encrypted
    )
    return made


class Bus:
    """One stage's subscription to its topics."""

    def __init__(
        self,
        *,
        kafka: KafkaAccess,
        group: str,
        topics: Sequence[str],
        reader: Reader,
        session_seconds: float,
        max_records: int,
        client_id: str,
    ) -> None:
        self.reader = reader
        self.group = group
        self._kafka = kafka
        self._client_id = client_id
        self._topics = tuple(topics)
        self._session_ms = int(session_seconds * 1000)
        self._max_records = max_records
        self._broker, self._subscriber = self._build()

    def _build(self) -> tuple[KafkaBroker, Any]:
        """Make the subscription anew: a broker object that has failed keeps what it had."""
        broker = KafkaBroker(
            self._kafka.bootstrap,
            security=_security(self._kafka),
            client_id=self._client_id,
            consumer_only=True,
            allow_auto_create_topics=False,
            logger=None,
            apply_types=False,
            graceful_timeout=5.0,
            request_timeout_ms=10_000,
            codec=_RawCodec(),
        )
        subscriber = broker.subscriber(
            *self._topics,
            batch=True,
            group_id=self.group,
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            parser=self._parse,
            codec=_RawCodec(),
            listener=_Listener(self),
            auto_offset_reset="none",
            isolation_level="read_committed",
            partition_assignment_strategy=(RangePartitionAssignor,),
            session_timeout_ms=self._session_ms,
            heartbeat_interval_ms=max(self._session_ms // 6, 300),
            rebalance_timeout_ms=int(self._session_ms * 4 / 3),
            fetch_max_wait_ms=100,
            batch_timeout_ms=5,
            max_records=self._max_records,
            max_poll_interval_ms=300_000,
        )
        subscriber(self._handle)
        return broker, subscriber

    @property
    def consumer(self) -> SafeConsumer | None:
        """The live consumer, once there is one."""
        consumer = self._subscriber.consumer
        return consumer if isinstance(consumer, SafeConsumer) else None

    @property
    def is_broken(self) -> bool:
        """Whether the client has failed for so long that only a new one helps: stop, and start again."""
        consumer = self.consumer
        return consumer is not None and consumer.failing_seconds > BROKEN_SECONDS

    async def start(self) -> None:
        """Join the group, with a new client each time.

        Raises:
            KafkaError, OSError, TimeoutError: the broker does not answer; nothing is left running.
        """
        self._broker, self._subscriber = self._build()
        try:
            await self._broker.connect()
            config = self._broker.config.broker_config
            config.builder = partial(SafeConsumer, guard=self.reader, **config.builder.keywords)  # type: ignore[attr-defined]
            await self._broker.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Leave the group at once. A client that cannot even be stopped loses its connections."""
        consumer = self.consumer
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._broker.stop()
        except Exception as error:  # noqa: BLE001 - it is given up in any case, and others have still to stop
            log.warning("bus_stop_failed", error=type(error).__name__)
            if consumer is not None:
                self._subscriber.consumer = None
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(1.0):
                        await consumer._client.close()  # noqa: SLF001 - it has no door for this

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
