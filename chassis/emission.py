"""Emission: an outcome's events get their place, their number and their headers, before anything is committed."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Generic, TypeVar

from chassis import deadletters, logs, metrics
from chassis.batch import Batch, partition_of
from chassis.deadletters import ParkedRecord, Reason, pack_own_headers
from chassis.ledger import OutboxRow, TimerRow
from chassis.settings import Settings
from chassis.stage import Input, Received, Stage
from chassis.tracing import Tracing
from schemas import ids
from schemas.envelope import Envelope
from schemas.payload import Payload
from schemas.topics import DEAD_LETTERS, VALUE_BYTES_MAX

S = TypeVar("S")
log = logs.get("emission")


class Emission(Generic[S]):
    """Numbers what one stage emits. Everything goes into the batch's overlay."""

    def __init__(self, stage: Stage[S], settings: Settings, tracing: Tracing) -> None:
        self.stage = stage
        self._settings = settings
        self._tracing = tracing

    def park(self, batch: Batch[S], parked: ParkedRecord) -> None:
        batch.overlay.parked.append(parked)
        if parked.state_key is not None:
            behind = len(batch.inputs) if batch.deciding is None else batch.deciding + 1
            batch.parked_keys.setdefault(parked.state_key, (behind, parked.id))
        self.emit(
            batch,
            parked.to_event(),
            partition_key=parked.state_key or parked.topic,
            cause=f"parked/{parked.id}",
            index=0,
            causation=parked.id,
            correlation=parked.state_key or "",
            traceparent=None,
            after_parked=None,
            now=parked.parked_at,
        )

    def tell_parked(self, batch: Batch[S]) -> None:
        """Count and name what a batch has set aside, and what followed such a record, once that is stored."""
        if batch.n_after_parked:
            metrics.AFTER_PARKED.labels(self.stage.name).inc(batch.n_after_parked)
        for parked in batch.overlay.parked:
            metrics.PARKED.labels(self.stage.name, parked.reason).inc()
            log.warning(
                "record_parked",
                stage=self.stage.name,
                task=batch.task.number,
                topic=parked.topic,
                partition=parked.partition,
                offset=parked.offset,
                reason=parked.reason,
                detail=parked.error,
                dead_letter=parked.id,
            )

    def emit_all(
        self, batch: Batch[S], item: Input, events: Sequence[Payload], now: datetime
    ) -> None:
        if isinstance(item, Received):
            parent, causation = item.envelope.traceparent, item.envelope.id
            correlation = item.envelope.correlationid or item.key
        else:
            parent, causation, correlation = None, item.cause, item.key
        after_parked = _parked_before(batch, item.key)
        if after_parked is not None:
            batch.n_after_parked += 1
        with (
            self._tracing.handling(f"{self.stage.name} {type(item).__name__}", parent, item.key)
            if self._tracing.is_on
            else nullcontext(parent)
        ) as traceparent:
            for index, event in enumerate(events):
                is_told = "conversation_id" in type(event).model_fields
                self.emit(
                    batch,
                    event,
                    partition_key=self.stage.partition_key(event),
                    cause=item.cause,
                    index=index,
                    causation=causation,
                    correlation=str(event.conversation_id) if is_told else correlation,  # type: ignore[attr-defined]
                    traceparent=traceparent,
                    after_parked=after_parked,
                    now=now,
                )

    def emit(
        self,
        batch: Batch[S],
        event: Payload,
        *,
        partition_key: str,
        cause: str,
        index: int,
        causation: str,
        correlation: str,
        traceparent: str | None,
        after_parked: str | None,
        now: datetime,
    ) -> None:
        """Number an event and put it into the outbox; what could never be sent is set aside here, before the commit."""
        position = batch.overlay.position
        value = event.to_json()
        source = f"{self.stage.source}/{batch.task.number}"
        if position.incarnation > 1:
            source = f"{source}#{position.incarnation}"
        event_id = ids.event_id(self.stage.name, cause, index, event.TYPE)
        partition = partition_of(partition_key, self._settings.partitions)
        if len(value) > VALUE_BYTES_MAX:
            assert DEAD_LETTERS.name != event.TOPIC, "dead letters are cut to fit"
            parked = deadletters.park(
                stage=self.stage.name,
                task=batch.task.number,
                topic=event.TOPIC,
                partition=partition,
                offset=position.next_oid,
                key=partition_key.encode(),
                headers=(("ce_type", event.TYPE.encode()), ("ce_id", event_id.encode())),
                value=value,
                reason=Reason.TOO_LARGE,
                error=f"{event.TYPE} of {len(value)} bytes cannot be published; at most {VALUE_BYTES_MAX}",
                state_key=partition_key,
                now=now,
            )
            self.park(batch, parked)
            return
        slot = f"{event.TOPIC}/{partition}"
        sequence = position.emitted.get(slot, 0) + 1
        position.emitted[slot] = sequence
        envelope = Envelope(
            type=event.TYPE,
            source=source,
            id=event_id,
            time=now,
            subject=correlation or None,
            workspace=self._settings.workspace,
            partitionkey=partition_key,
            correlationid=correlation,
            causationid=causation,
            traceparent=traceparent,
            sequence=sequence,
            afterparked=after_parked,
            continues=position.continues_from(slot, sequence),
        )
        batch.overlay.outbox.append(
            OutboxRow(
                position.next_oid,
                event.TOPIC,
                partition,
                sequence,
                partition_key.encode(),
                pack_own_headers(envelope.to_text_headers()),
                value,
            )
        )
        position.next_oid += 1

    def set_timer(self, batch: Batch[S], key: str, name: str, due_at: datetime | None) -> None:
        overlay = batch.overlay
        reference = (key, name)
        if due_at is None:
            overlay.timers[reference] = None
            return
        if reference not in overlay.fired and reference not in overlay.timers:
            known = batch.task.timers.get(key, name)
            if known is not None and known.due_at == due_at:
                return
        overlay.timers[reference] = TimerRow(key, name, overlay.position.next_timer, due_at)
        overlay.position.next_timer += 1


def _parked_before(batch: Batch[S], key: str) -> str | None:
    """Return the dead letter that a record of `key` before the input now decided was parked as, if there is one."""
    replayed = None if batch.deciding is None else batch.resolves.get(batch.deciding)
    known: Sequence[str] = batch.task.parked_keys.get(key, ())
    if replayed in known:
        # What was parked behind it is no earlier record.
        return known[0] if known[0] != replayed else None
    if known:
        return known[0]
    behind, parked_id = batch.parked_keys.get(key, (0, None))
    return parked_id if batch.deciding is None or batch.deciding >= behind else None
