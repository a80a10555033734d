"""Admission: each record is old, next or proof of a loss; what is next is decoded, or parked with its cause."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from chassis import deadletters, logs, metrics
from chassis.batch import Batch, Notes, Reread
from chassis.bus import Record, UndecodableRecord
from chassis.clock import Clock
from chassis.deadletters import NO_TOPICS, ParkedRecord, Reason, unpack_headers
from chassis.emission import Emission
from chassis.errors import InvalidEvent
from chassis.settings import Settings
from chassis.stage import Received, Stage
from schemas.envelope import OWN_SOURCE_PREFIX, Envelope, EnvelopeError, read_record
from schemas.registry import REGISTRY, Payload
from schemas.topics import BY_NAME

S = TypeVar("S")
ATTRIBUTE_LENGTH_MAX = 1_000
"""Characters of an envelope's attribute or of a key: they go into headers and index entries, which have their limits."""

log = logs.get("admission")


class Admission(Generic[S]):
    """Lets records of one stage's topics in. `seek` puts a task's topic back to an offset."""

    def __init__(
        self,
        stage: Stage[S],
        settings: Settings,
        clock: Clock,
        emission: Emission[S],
        seek: Callable[[int, str, int], None],
    ) -> None:
        self.stage = stage
        self._settings = settings
        self._clock = clock
        self._emission = emission
        self._seek = seek

    def _plain(self, topic: str) -> str:
        return topic.removeprefix(self._settings.topic_prefix)

    def admit(self, batch: Batch[S], records: Sequence[Record], notes: Notes | None = None) -> None:
        """Count each record: old, next, or a gap; and decode what is next.

        `notes` is what admitting these very records has shown before, and is added to: nothing is decoded twice, and a
        gap that is being looked for is not taken for one that was looked for in vain.
        """
        position = batch.overlay.position
        notes = Notes() if notes is None else notes
        skipped = notes.skipped
        for record in records:
            topic = self._plain(record.topic)
            expected = position.offsets.get(topic, 0)
            if topic in skipped and record.offset >= skipped[topic]:
                hole = notes.holes.get(topic)
                if hole == (topic, expected, record.offset):
                    batch.hole = hole  # The batch that was to have it looked at came to nothing.
                continue
            if record.offset < expected:
                continue
            if record.offset > expected and not self._accepts_hole(
                batch, topic, expected, record.offset
            ):
                skipped[topic] = record.offset
                if batch.hole is not None and batch.hole[0] == topic:
                    notes.holes[topic] = batch.hole
                if batch.halt is not None:
                    break
                continue
            if not self._admit_safely(batch, topic, record, notes):
                break
            position.offsets[topic] = record.offset + 1

    def _admit_safely(self, batch: Batch[S], topic: str, record: Record, notes: Notes) -> bool:
        """Take one record in; whatever surprises us in it sets it aside, since met again it would surprise us again."""
        if (topic, record.offset) in notes.bare:
            self._park_bare(batch, topic, record)
            return True
        try:
            return self._admit_one(batch, topic, record, notes)
        except Exception as error:
            log.exception("record_surprise", stage=self.stage.name, error=type(error).__name__)
            detail = f"it could not be read: {type(error).__name__}"
            self.park_record(batch, topic, record, Reason.UNREADABLE_RECORD, detail, None)
            return True

    def _accepts_hole(self, batch: Batch[S], topic: str, expected: int, got: int) -> bool:
        """Offsets are missing: look again once; the second time they are really not there.

        On numbered streams the sequence then decides whether anything was lost. On an open topic the hole is taken for
        transaction markers only after the worker has seen that the log still begins before it.
        """
        task = batch.task
        if task.looked_again.get(topic) != expected:
            task.looked_again[topic] = expected
            metrics.RESEEKS.labels(self.stage.name).inc()
            self._seek(task.number, topic, expected)
            return False
        log.warning(
            "offsets_missing",
            stage=self.stage.name,
            task=task.number,
            topic=topic,
            expected=expected,
            got=got,
        )
        if not BY_NAME[topic].is_open or task.known_holes.get(topic) == expected:
            return True
        batch.hole = (topic, expected, got)
        return False

    def _admit_one(self, batch: Batch[S], topic: str, record: Record, notes: Notes) -> bool:
        """Take one record in; False where the task must stop before it."""
        position = batch.overlay.position
        if isinstance(record, UndecodableRecord):
            self.park_record(batch, topic, record, Reason.UNREADABLE_RECORD, record.error, None)
            return True
        opened = notes.opened.get((topic, record.offset))
        if opened is None:
            opened = notes.opened[topic, record.offset] = _open(record)
        if isinstance(opened, EnvelopeError):
            self.park_record(batch, topic, record, Reason.INVALID_ENVELOPE, str(opened), None)
            return True
        envelope, data = opened
        if (problem := _unstorable(envelope.source)) is not None:
            detail = f"source: {problem}"
            self.park_record(batch, topic, record, Reason.INVALID_ENVELOPE, detail, envelope)
            return True
        if envelope.source.startswith(OWN_SOURCE_PREFIX):
            if (problem := _not_the_writer(envelope.source, topic, record.partition)) is not None:
                self.park_record(batch, topic, record, Reason.INVALID_ENVELOPE, problem, envelope)
                return True
            if envelope.sequence is None:
                self.park_record(
                    batch, topic, record, Reason.NO_SEQUENCE, "sequence: is missing", envelope
                )
                return True
            stream = f"{envelope.source} {topic}"
            last = position.applied.get(stream)
            if last is None:
                if self._follows_a_restore(batch, topic, envelope):
                    return False
                last = 0 if batch.task.log_start.get(topic, 0) == 0 else envelope.sequence - 1
            if envelope.sequence <= last:
                position.n_duplicate += 1
                return True
            if envelope.sequence != last + 1:
                batch.halt = {
                    "topic": topic,
                    "source": envelope.source,
                    "last": last,
                    "got": envelope.sequence,
                    "offset": record.offset,
                    "reason": "sequence_gap",
                }
                return False
            position.applied[stream] = envelope.sequence
            if batch.task.superseded and envelope.id in batch.task.superseded:
                position.n_duplicate += (
                    1  # Told before the restore; its source does not know that any more.
                )
                return True
        elif not BY_NAME[topic].is_open:
            self.park_record(
                batch, topic, record, Reason.NO_SEQUENCE, "source: is none of ours", envelope
            )
            return True
        self._decode(batch, topic, record, envelope, data, notes)
        return True

    def _follows_a_restore(self, batch: Batch[S], topic: str, envelope: Envelope) -> bool:
        """Whether a source begins anew after a restore and may tell again what it has forgotten telling.

        Then the batch stops before this record until the ids of what was forgotten have been read back.
        """
        base, _, incarnation = envelope.source.partition("#")
        if not incarnation or envelope.sequence != 1:
            return False
        known, _, sequence = (envelope.continues or "1:0").partition(":")
        forgotten: dict[str, int] = {}
        for stream, last in batch.overlay.position.applied.items():
            old = _incarnation_of(stream, base)
            if old is None or old == incarnation or stream.rpartition(" ")[2] != topic:
                continue
            told = int(sequence) if int(old or 1) == int(known) else 0
            if int(old or 1) >= int(known) and last > told:
                forgotten[stream.rpartition(" ")[0]] = told
        if not forgotten:
            return False
        batch.reread = Reread(topic, f"{envelope.source} {topic}", forgotten)
        return True

    def _decode(
        self,
        batch: Batch[S],
        topic: str,
        record: Record,
        envelope: Envelope,
        data: bytes,
        notes: Notes,
    ) -> None:
        if (detail := _wrong_attribute(envelope)) is not None:
            self.park_record(batch, topic, record, Reason.INVALID_ENVELOPE, detail, envelope)
            return
        if not self.stage.understands_type(topic, envelope.type):
            if envelope.type in REGISTRY:
                batch.overlay.position.n_ignored += 1
            else:
                self.park_record(
                    batch,
                    topic,
                    record,
                    Reason.UNKNOWN_TYPE,
                    f"type: {envelope.type[:100]}",
                    envelope,
                )
            return
        decoded = notes.decoded.get((topic, record.offset))
        if decoded is None:
            try:
                decoded = self._read(envelope, data)
            except InvalidEvent as error:
                decoded = error
            notes.decoded[topic, record.offset] = decoded
        if isinstance(decoded, InvalidEvent):
            self.park_record(batch, topic, record, decoded.reason, decoded.detail, envelope)
            return
        event, key = decoded
        cause = envelope.id if envelope.sequence is not None else f"{envelope.source}/{envelope.id}"
        item = Received(envelope=envelope, event=event, key=key, topic=topic, cause=cause)
        batch.inputs.append((item, record))

    def _read(self, envelope: Envelope, data: bytes) -> tuple[Payload, str]:
        event = self.stage.decode(envelope, data)
        key = self.stage.key(envelope, event)
        if (problem := _unstorable(key)) is not None:
            raise InvalidEvent(Reason.INVALID_PAYLOAD, f"key: {problem}")
        return event, key

    def park_record(
        self,
        batch: Batch[S],
        topic: str,
        record: Record,
        reason: str,
        error: str,
        envelope: Envelope | None,
        state_key: str | None = None,
    ) -> None:
        key = state_key or (envelope.partitionkey if envelope is not None else None)
        if not key and record.key is not None:
            key = record.key.decode("utf-8", errors="replace").replace("\x00", "\ufffd")
        parked = deadletters.park(
            stage=self.stage.name,
            task=batch.task.number,
            topic=topic,
            partition=record.partition,
            offset=record.offset,
            key=record.key,
            headers=record.headers,
            value=record.value,
            reason=reason,
            error=error,
            state_key=key or None,
            now=self._clock.now(),
        )
        self._emission.park(batch, parked)
        batch.overlay.position.n_parked += 1

    def _park_bare(self, batch: Batch[S], topic: str, record: Record) -> None:
        """Set a record aside of which the database takes nothing: where it lies has to do."""
        position = batch.overlay.position
        opened = _open(record)
        if not isinstance(opened, EnvelopeError):
            source, sequence = opened[0].source, opened[0].sequence
            stream = f"{source} {topic}"
            if (
                source.startswith(OWN_SOURCE_PREFIX)
                and sequence is not None
                and _not_the_writer(source, topic, record.partition) is None
                and sequence == position.applied.get(stream, sequence - 1) + 1
            ):
                position.applied[stream] = sequence
        bare = UndecodableRecord(topic, record.partition, record.offset, "")
        detail = "the database takes neither it nor its bytes; they lie at this offset"
        self.park_record(batch, topic, bare, Reason.UNREADABLE_RECORD, detail, None)

    def readmit(self, batch: Batch[S], parked: ParkedRecord) -> None:
        """Let a parked record in again, by the same ways as the first time; what surprises us in it parks it again."""
        try:
            if parked.topic in NO_TOPICS:
                raise InvalidEvent(
                    Reason.HANDLER_FAILED,
                    f"a {parked.topic} is no record and cannot be replayed; once its cause is mended, have the key decided "
                    "again and discard this",
                )
            if parked.is_cut:
                raise InvalidEvent(
                    Reason.TOO_LARGE, "only its beginning was kept; let its sender publish it again"
                )
            envelope, data = read_record(unpack_headers(parked.headers), parked.value)
            if (wrong := _wrong_attribute(envelope)) is not None:
                raise InvalidEvent(Reason.INVALID_ENVELOPE, wrong)
            if not self.stage.understands_type(parked.topic, envelope.type):
                raise InvalidEvent(Reason.UNKNOWN_TYPE, f"type: {envelope.type[:100]}")
            event, key = self._read(envelope, data)
        except Exception as error:
            reason: str = Reason.UNREADABLE_RECORD
            detail = f"it could not be read: {type(error).__name__}"
            if isinstance(error, InvalidEvent):
                reason, detail = error.reason, error.detail
            elif isinstance(error, EnvelopeError):
                reason, detail = Reason.INVALID_ENVELOPE, str(error)
            else:
                log.exception(
                    "replay_surprise",
                    stage=self.stage.name,
                    dead_letter=parked.id,
                    error=type(error).__name__,
                )
            again = deadletters.park_again(parked, reason, detail, self._clock.now())
            self._emission.park(batch, again)
            return
        cause = envelope.id if envelope.sequence is not None else f"{envelope.source}/{envelope.id}"
        batch.resolves[len(batch.inputs)] = parked.id
        batch.inputs.append((Received(envelope, event, key, parked.topic, cause), parked))


def _open(record: Record) -> tuple[Envelope, bytes] | EnvelopeError:
    try:
        return read_record(record.headers, record.value)
    except EnvelopeError as error:
        return error


def _not_the_writer(source: str, topic: str, partition: int) -> str | None:
    """On a topic that foreign systems write to, only its own writer of that partition is believed to be ours."""
    known = BY_NAME[topic]
    own = f"{OWN_SOURCE_PREFIX}{known.writer}/{partition}"
    if not known.is_open or source.partition("#")[0] == own:
        return None
    return f"source: is not {own}"


def _incarnation_of(stream: str, base: str) -> str | None:
    """Return the incarnation ("" for the first) of a stream of the source `base`; None for another source's."""
    source = stream.rpartition(" ")[0]
    name, _, incarnation = source.partition("#")
    return incarnation if name == base else None


def _wrong_attribute(envelope: Envelope) -> str | None:
    """Return what is wrong with an attribute, by its name, that would keep the batch from being stored or published."""
    for name, text in (
        ("type", envelope.type),
        ("source", envelope.source),
        ("id", envelope.id),
        ("workspace", envelope.workspace),
        ("partitionkey", envelope.partitionkey),
        ("correlationid", envelope.correlationid),
        ("traceparent", envelope.traceparent),
    ):
        if text is not None and (problem := _unstorable(text)) is not None:
            return f"{name}: {problem}"
    return None


def _unstorable(text: str) -> str | None:
    if len(text) > ATTRIBUTE_LENGTH_MAX:
        return f"is longer than {ATTRIBUTE_LENGTH_MAX} characters"
    return "contains U+0000" if "\x00" in text else None
