"""How much one sender may ask: buckets that empty, fill again, and do not grow in number without end."""

import pytest

from services.ingest.core.pace import Pace, network_of


def test_a_full_bucket_is_taken_at_once_and_filled_steadily() -> None:
    pace = Pace(60)
    assert [pace.take("ada", 0.0) for _ in range(60)] == [0.0] * 60
    assert pace.take("ada", 0.0) == pytest.approx(1.0)
    assert pace.take("eve", 0.0) == 0.0
    assert pace.wait("ada", 0.75) == pytest.approx(0.25)
    assert pace.take("ada", 1.0) == 0.0
    assert pace.take("ada", 1.0) > 0


def test_a_bucket_is_never_more_than_full() -> None:
    pace = Pace(2)
    pace.take("ada", 0.0)
    assert [pace.take("ada", 3600.0) for _ in range(3)] == [0.0, 0.0, pytest.approx(30.0)]


def test_a_clock_that_is_set_back_refills_nothing_and_takes_nothing() -> None:
    pace = Pace(1)
    pace.take("ada", 100.0)
    assert pace.take("ada", 40.0) == pytest.approx(60.0)


def test_waiting_takes_nothing() -> None:
    pace = Pace(1)
    assert [pace.wait("ada", 0.0) for _ in range(5)] == [0.0] * 5
    assert pace.take("ada", 0.0) == 0.0


def test_the_sender_heard_of_longest_ago_is_forgotten_first() -> None:
    pace = Pace(2, senders_max=3)
    for sender in ("a", "b", "c", "a", "d"):
        pace.take(sender, 0.0)
    assert len(pace) == 3
    assert pace.wait("a", 0.0) > 0
    assert pace.take("b", 0.0) == 0.0
    assert len(pace) == 3


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_sender(address: str, counted_as: str) -> None:
    assert network_of(address) == counted_as
