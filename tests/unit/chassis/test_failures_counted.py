"""An input that fails is tried a few times and parked, whatever else fails beside it in its batch."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from pydantic import SecretStr

from chassis.admission import Admission
from chassis.batch import Batch, Task
from chassis.clock import SystemClock
from chassis.decision import ATTEMPTS_MAX, REFUSALS_MAX, Deciding, Suspect
from chassis.emission import Emission
from chassis.ledger import Overlay
from chassis.settings import Settings
from chassis.tracing import Tracing
from schemas.envelope import Envelope
from tests.faults.pipeline import Given, StageA

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
SETTINGS = Settings(kafka="127.0.0.1:1", database_url=SecretStr("postgresql://x/x"), partitions=1)


class Loop:
    """Admission and decision of one task, with a commit that always succeeds."""

    def __init__(self) -> None:
        stage = StageA()
        emission: Emission[Any] = Emission(stage, SETTINGS, Tracing("test"))
        self.admission: Admission[Any] = Admission(
            stage, SETTINGS, SystemClock(), emission, lambda *_: None
        )
        self.deciding: Deciding[Any] = Deciding(stage, self.admission, emission)

    def batch(self, *inputs: Given) -> Batch[Any]:
        """A batch as a poll brings it, on the task's first records."""
        task: Task[Any] = Task(0, 1, (TopicPartition("inbound", 0),))
        batch: Batch[Any] = Batch(task, Overlay(task.position.copy()))
        records = [_record(offset, given) for offset, given in enumerate(inputs)]
        self.admission.admit(batch, records)
        return batch


def _record(offset: int, given: Given) -> Any:
    envelope = Envelope(Given.TYPE, "driver", str(given.n), NOW, partitionkey=given.key)
    return SimpleNamespace(
        topic="inbound",
        partition=0,
        offset=offset,
        key=given.key.encode(),
        headers=envelope.to_headers(),
        value=given.to_json(),
    )


def _given(n: int, blow_up: int = 0) -> Given:
    return Given(key="k1", n=n, blow_up=blow_up)


@pytest.mark.parametrize("failing", [1, 2, 5])
def test_failing_inputs_of_one_batch_do_not_set_back_each_others_count(failing: int) -> None:
    loop = Loop()
    inputs = [_given(n, blow_up=int(n <= failing)) for n in range(1, 8)]
    failures = 0
    while True:
        batch = loop.batch(*inputs)
        try:
            loop.deciding.decide(batch, {}, NOW)
        except Suspect:
            failures += 1
            assert failures <= failing * ATTEMPTS_MAX
        else:
            break
    loop.deciding.settled(batch)
    assert failures == failing * ATTEMPTS_MAX
    assert batch.overlay.position.n_parked == failing
    assert batch.overlay.position.n_applied == len(inputs) - failing


def test_an_input_that_alone_cannot_be_stored_is_parked_after_a_few_tries() -> None:
    loop = Loop()
    for _ in range(REFUSALS_MAX):
        batch = loop.batch(_given(1))
        loop.deciding.decide(batch, {}, NOW)
        assert batch.overlay.position.n_applied == 1
        assert loop.deciding.worth_loading(batch)
        loop.deciding.refused(batch)
    batch = loop.batch(_given(1))
    assert not loop.deciding.worth_loading(batch)
    loop.deciding.decide(batch, {}, NOW)
    assert batch.overlay.position.n_parked == 1
    assert "could not be stored" in batch.overlay.parked[0].error


def test_what_is_stored_in_the_end_starts_from_zero() -> None:
    loop = Loop()
    batch = loop.batch(_given(1))
    for _ in range(REFUSALS_MAX):
        loop.deciding.refused(batch)
    loop.deciding.settled(batch)
    assert loop.deciding.worth_loading(batch)
