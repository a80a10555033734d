"""The clock: the one place that asks what time it is, always with its offset."""

from datetime import UTC, timedelta

from chassis.clock import Clock, SystemClock, monotonic
from chassis.testing import FakeClock


def test_the_systems_clock_speaks_utc() -> None:
    now = SystemClock().now()
    assert now.tzinfo is UTC
    assert now.utcoffset() == timedelta(0)


def test_waiting_is_measured_on_a_clock_that_never_goes_back() -> None:
    assert monotonic() <= monotonic()


def test_a_fake_clock_is_a_clock() -> None:
    clock: Clock = FakeClock()
    assert clock.now().utcoffset() == timedelta(0)
