"""The relay: publishes a task's outbox in order, and never skips.

One idempotent producer a task, so that its errors, its death and its order are its own. On a new producer the first row
to each partition goes alone: a broker accepts any first sequence of a producer it has not seen, so rows sent behind a
refused first one would be appended and make a hole. Only the acknowledged *prefix* leaves the queue. On any error a new
producer goes on from the first row not acknowledged; what the old one still manages to publish are duplicates, which
readers count and drop.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer

from chassis import logs, metrics
from chassis.clock import monotonic
from chassis.deadletters import unpack_own_headers
from chassis.failpoints import Failpoints
from chassis.kafka_access import KafkaAccess
from chassis.ledger import OutboxRow

BATCH_ROWS = 500
QUEUE_ROWS_MAX = 4_000
"""Rows in memory above which the task's input is paused."""
QUEUE_ROWS_RESUME = 1_000
QUEUE_BYTES_MAX = 32 * 1024 * 1024
"""The same in bytes of keys, headers and values: four thousand events of the largest size would be gigabytes."""
QUEUE_BYTES_RESUME = 8 * 1024 * 1024
PAGE_ROWS = 2_000
SEND_SECONDS = 8.0
STOP_SECONDS = 1.0
IDLE_DELETE_SECONDS = 0.5

log = logs.get("relay")


def make_producer(kafka: KafkaAccess, client_id: str) -> AIOKafkaProducer:
    """Make a producer with the settings that the protocol needs; not started yet."""
    return AIOKafkaProducer(
        **kafka.options(),
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=262_144,
        max_request_size=1_000_000,
        request_timeout_ms=5_000,
        retry_backoff_ms=50,
    )


async def kill_producer(producer: AIOKafkaProducer) -> None:
    """End a producer whatever it is doing: its `stop()` would flush for ever while the broker is away."""
    has_stopped = False
    try:
        # It is being thrown away: what fails now fails unseen by design.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(STOP_SECONDS):
                await producer.stop()
            has_stopped = True
    finally:  # Also where we are cancelled: else its sender would go on publishing with nobody to end it.
        if not has_stopped:
            sender = getattr(producer, "_sender", None)
            task = getattr(sender, "sender_task", None)
            if task is not None and not task.done():
                task.cancel()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(STOP_SECONDS):
                    await producer.client.close()


class Relay:
    """Publishes the outbox of one task, in one epoch. Dies with it."""

    def __init__(
        self,
        *,
        stage: str,
        task: int,
        kafka: KafkaAccess,
        topic_name: Callable[[str], str],
        load_page: Callable[[int, int], Awaitable[list[OutboxRow]]],
        delete_acked: Callable[[int], Awaitable[None]],
        failpoints: Failpoints,
    ) -> None:
        self._stage = stage
        self._task = task
        self._kafka = kafka
        self._topic_name = topic_name
        self._load_page = load_page
        self._delete_acked = delete_acked
        self._failpoints = failpoints
        self._queue: deque[tuple[OutboxRow, float]] = deque()
        self.bytes_waiting = 0
        """Bytes of the rows that wait in memory."""
        self._wake = asyncio.Event()
        self._paging_after: int | None = None
        self._producer: AIOKafkaProducer | None = None
        self._warm: set[tuple[str, int]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._deleted_oid = 0
        self.acked_oid = 0
        """The last row acknowledged; the next commit deletes up to it."""

    def start(self, head: Sequence[OutboxRow], is_page_full: bool) -> None:
        """Begin with the rows that a previous owner left; `is_page_full` where the table may hold more behind them.

        A page is bounded by bytes too, so any page with rows in it may have more behind it.
        """
        self._enqueue(head)
        if is_page_full and head:
            self._paging_after = head[-1].oid
        self._runner = asyncio.create_task(self._run(), name=f"relay {self._stage}/{self._task}")

    @property
    def depth(self) -> int:
        """Rows waiting in memory."""
        return len(self._queue)

    @property
    def is_long(self) -> bool:
        """Whether so much waits, in memory or in the table behind it, that no more should be made for now."""
        return (
            self.depth > QUEUE_ROWS_MAX
            or self.bytes_waiting > QUEUE_BYTES_MAX
            or (self._paging_after is not None and not self._queue)
        )

    @property
    def is_short(self) -> bool:
        """Whether there is room again."""
        return self.depth < QUEUE_ROWS_RESUME and self.bytes_waiting < QUEUE_BYTES_RESUME

    @property
    def is_drained(self) -> bool:
        """Whether everything committed so far is acknowledged."""
        return not self._queue and self._paging_after is None

    def age(self) -> float:
        """Seconds that the oldest row has waited in memory."""
        return monotonic() - self._queue[0][1] if self._queue else 0.0

    def append(self, rows: Sequence[OutboxRow]) -> None:
        """Queue rows just committed. Above the limit they stay in the table and are read back in pages."""
        if not rows or self._paging_after is not None:
            return  # The pager will meet them in the table, in order.
        if self._queue and (
            len(self._queue) + len(rows) > 2 * QUEUE_ROWS_MAX
            or self.bytes_waiting + sum(map(_size, rows)) > 2 * QUEUE_BYTES_MAX
        ):
            self._paging_after = self._queue[-1][0].oid
            return
        self._enqueue(rows)
        self._wake.set()

    def _enqueue(self, rows: Sequence[OutboxRow]) -> None:
        now = monotonic()
        self._queue.extend((row, now) for row in rows)
        self.bytes_waiting += sum(map(_size, rows))

    async def page(self) -> None:
        """Read on from the table while the queue has room; called under the task's lock, so nobody commits meanwhile.

        Only an empty page says that the table holds no more: a page ends at its bytes as well as at its rows.
        """
        while (
            self._paging_after is not None
            and len(self._queue) <= QUEUE_ROWS_RESUME
            and self.bytes_waiting <= QUEUE_BYTES_RESUME
        ):
            rows = await self._load_page(self._paging_after, PAGE_ROWS)
            self._enqueue(rows)
            self._paging_after = rows[-1].oid if rows else None
            self._wake.set()

    def ack_noted(self, oid: int) -> None:
        """Say that a commit has deleted the rows up to `oid`."""
        self._deleted_oid = max(self._deleted_oid, oid)

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """End, after giving the rows in memory `drain_seconds` to be acknowledged."""
        deadline = monotonic() + drain_seconds
        while (  # noqa: ASYNC110 - bounded, at the end of a life; the queue has one waiter already
            self._queue
            and monotonic() < deadline
            and self._runner is not None
            and not self._runner.done()
        ):
            await asyncio.sleep(0.01)
        if self._runner is not None:
            self._runner.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._runner
        if self._producer is not None:
            await kill_producer(self._producer)
            self._producer = None

    async def _run(self) -> None:
        backoff = 0.05
        while True:
            try:
                if not self._queue:
                    await self._idle()
                    continue
                await self._publish_head()
                backoff = 0.05
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever failed, the answer is a new producer from queue[0]
                metrics.RELAY_ERRORS.labels(self._stage).inc()
                log.warning(
                    "relay_retry",
                    stage=self._stage,
                    task=self._task,
                    error=type(error).__name__,
                    queued=len(self._queue),
                    wait_seconds=backoff,
                )
                if self._producer is not None:
                    await kill_producer(self._producer)
                    # Not before: cancelled in the middle, `stop` must still find it.
                    self._producer = None
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, 1.0)

    async def _idle(self) -> None:
        self._wake.clear()
        try:
            # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with the wake-up.
            async with asyncio.timeout(IDLE_DELETE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            if self.acked_oid > self._deleted_oid:
                oid = self.acked_oid
                try:
                    await self._delete_acked(oid)
                except Exception as error:  # noqa: BLE001 - a lost delete is a duplicate later; the next one covers it
                    log.info(
                        "outbox_delete_failed",
                        stage=self._stage,
                        task=self._task,
                        error=type(error).__name__,
                    )
                else:
                    self._deleted_oid = max(self._deleted_oid, oid)

    async def _publish_head(self) -> None:
        producer = await self._ensure_producer()
        rows = self._next_rows()
        self._failpoints.hit("before_relay")
        futures: list[asyncio.Future[Any]] = []
        try:
            async with asyncio.timeout(SEND_SECONDS):
                for row in rows:
                    futures.append(
                        await producer.send(
                            self._topic_name(row.topic),
                            row.value,
                            key=row.key,
                            partition=row.partition,
                            headers=unpack_own_headers(row.headers),
                        )
                    )
                    if len(futures) == 1 and len(rows) > 1:
                        self._failpoints.hit("mid_relay")
                await asyncio.gather(*futures)
        finally:
            self._drop_acked_prefix(rows, futures)
        self._failpoints.hit("after_ack")

    async def _ensure_producer(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = make_producer(self._kafka, f"{self._stage}/{self._task}")
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await producer.start()
            except BaseException:
                await kill_producer(producer)
                raise
            self._producer = producer
            self._warm = set()
        return self._producer

    def _next_rows(self) -> list[OutboxRow]:
        """Return the head of the queue up to the first row whose partition has had no ack on this producer; if that is
        the head itself, only it.
        """
        rows: list[OutboxRow] = []
        for row, _ in self._queue:
            if (row.topic, row.partition) not in self._warm:
                return rows or [row]
            rows.append(row)
            if len(rows) == BATCH_ROWS:
                break
        return rows

    def _drop_acked_prefix(self, rows: list[OutboxRow], futures: list[asyncio.Future[Any]]) -> None:
        acked = 0
        for future in futures:
            if not future.done() or future.cancelled() or future.exception() is not None:
                break
            acked += 1
        for future in futures[acked:]:
            if future.done() and not future.cancelled():
                future.exception()  # Seen, so that the loop does not complain of it.
        for row in rows[:acked]:
            self._queue.popleft()
            self.bytes_waiting -= _size(row)
            self._warm.add((row.topic, row.partition))
            self.acked_oid = row.oid
        metrics.RELAYED.labels(self._stage).inc(acked)


def _size(row: OutboxRow) -> int:
    return len(row.key) + len(row.headers) + len(row.value)
