"""What is told is made without checks that were made before, and written as JSON once: neither may show."""

from typing import Any

import pytest

from schemas.sla import SlaEvent, TargetBreached, TargetStarted
from services.sla import metrics


@pytest.mark.parametrize("kind", list(metrics.OUTCOMES))
def test_an_event_is_equal_to_its_like_whether_or_not_it_has_been_written(
    kind: type[SlaEvent],
) -> None:
    one, other = (kind.model_validate(kind.EXAMPLE) for _ in range(2))
    first = one.to_json()
    assert one == other
    assert one.to_json() is first
    assert other.to_json() == first
    assert kind.model_validate_json(first) == one


def test_a_changed_copy_is_written_as_what_it_is() -> None:
    started = TargetStarted.model_validate(TargetStarted.EXAMPLE)
    started.to_json()
    changed = started.model_copy(update={"queue": "technical"})
    assert b'"queue":"technical"' in changed.to_json()
    assert b'"queue":"service"' in started.to_json()


def test_events_that_are_counted_alike_are_counted_by_their_number() -> None:
    def value(outcome: str) -> float:
        labelled: Any = metrics.TARGETS.labels("first_response", queue, outcome)
        return float(labelled._value.get())

    breached = TargetBreached.model_validate(TargetBreached.EXAMPLE)
    started = TargetStarted.model_validate(TargetStarted.EXAMPLE)
    queue = metrics.labels().queue(breached.queue)
    before = value("breached"), value("started")
    metrics.count_all([breached, started, breached, breached])
    assert (value("breached"), value("started")) == (before[0] + 3, before[1] + 1)
