"""One record cannot stop a task, whatever somebody writes into it; and nobody outside is believed to be one of us."""

from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition

from chassis.admission import Admission
from chassis.batch import Batch, Task
from chassis.clock import SystemClock
from chassis.emission import Emission
from chassis.ledger import Overlay
from chassis.settings import Settings
from chassis.tracing import Tracing
from tests.faults.pipeline import Given, StageA

SETTINGS = Settings(kafka="x:1", database_url="postgresql://x", partitions=4)  # type: ignore[arg-type]


def record(offset: int, **attributes: str) -> ConsumerRecord[Any, Any]:
    """Return a record of `inbound` as the client hands it over."""
    headers = {
        "ce_specversion": "1.0",
        "ce_type": Given.TYPE,
        "ce_source": "driver",
        "ce_id": str(offset),
        "ce_time": "2026-11-24T09:00:00Z",
        **{f"ce_{name}": value for name, value in attributes.items()},
    }
    value = Given(key="k1", n=offset).to_json()
    packed = tuple((name, text.encode()) for name, text in headers.items())
    return ConsumerRecord("inbound", 0, offset, 0, 0, b"k1", value, None, 2, len(value), packed)


def admit(*records: ConsumerRecord[Any, Any]) -> Batch[Any]:
    """Admit records to a fresh task."""
    stage = StageA()
    emission: Emission[Any] = Emission(stage, SETTINGS, Tracing("test"))
    admission: Admission[Any] = Admission(stage, SETTINGS, SystemClock(), emission, lambda *_: None)
    task: Task[Any] = Task(0, 1, (TopicPartition("inbound", 0),))
    batch: Batch[Any] = Batch(task, Overlay(task.position.copy()))
    admission.admit(batch, records)
    return batch


def reasons(batch: Batch[Any]) -> Sequence[str]:
    """Return why records were parked, in order."""
    return [parked.reason for parked in batch.overlay.parked]


@pytest.mark.parametrize(
    "attributes",
    [
        {"time": "0001-01-01T00:00:00+01:00"},
        {"time": "9999-12-31T23:59:59-01:00"},
        {"source": "signalbox/evil#abc", "sequence": "1"},
        {"source": "signalbox/ingest.gateway/0#1e5", "sequence": "1"},
        {"source": "signalbox/ingest.gateway/0#2", "sequence": "1", "continues": "x:y"},
        {"sequence": "9" * 30},
    ],
)
def test_an_odd_record_is_parked_and_its_neighbours_go_on(attributes: dict[str, str]) -> None:
    batch = admit(record(0), record(1, **attributes), record(2))
    assert reasons(batch) == ["invalid_envelope"]
    assert [item.event.n for item, _ in batch.inputs] == [0, 2]  # type: ignore[union-attr]
    assert batch.overlay.position.offsets == {"inbound": 3}


def test_a_stranger_who_says_to_be_the_gateway_of_another_partition_is_parked() -> None:
    batch = admit(record(0, source="signalbox/ingest.gateway/3", sequence="1"))
    assert reasons(batch) == ["invalid_envelope"]
    assert batch.overlay.position.applied == {}


def test_whatever_surprises_the_reader_is_parked_and_not_met_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def surprise(*_: object) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(Admission, "_admit_one", surprise)
    batch = admit(record(0))
    assert reasons(batch) == ["unreadable_record"]
    assert batch.overlay.position.offsets == {"inbound": 1}


def test_a_hole_on_an_open_topic_is_looked_at_before_it_is_believed() -> None:
    first = admit(record(0), record(5))
    assert first.hole is None  # Looked for again at once: a poll may have lost them.
    first.task.position = first.overlay.position
    again: Batch[Any] = Batch(first.task, Overlay(first.task.position.copy()))
    stage = StageA()
    emission: Emission[Any] = Emission(stage, SETTINGS, Tracing("test"))
    admission: Admission[Any] = Admission(stage, SETTINGS, SystemClock(), emission, lambda *_: None)
    admission.admit(again, [record(5)])
    assert again.hole == ("inbound", 1, 5)
    first.task.known_holes["inbound"] = (
        1  # The worker has seen that the log still begins before it.
    )
    known: Batch[Any] = Batch(first.task, Overlay(first.task.position.copy()))
    admission.admit(known, [record(5)])
    assert known.overlay.position.offsets == {"inbound": 6}
