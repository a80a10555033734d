"""A dry run is said loudly: in the log as it begins and ends, at readiness, and as a series."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from services.notifier.backlog import Backlog
from services.notifier.core.policy import Policy
from services.notifier.metrics import DRY_RUN


@pytest.fixture
def told(policy: Policy) -> tuple[Backlog, list[Policy]]:
    """A backlog, and the policy that it sees: the last of the list."""
    policies = [policy]
    return Backlog(lambda: policies[-1]), policies


def test_a_dry_run_is_told_once_as_it_begins_and_once_as_it_ends(
    told: tuple[Backlog, list[Policy]],
) -> None:
    backlog, policies = told
    with capture_logs() as logs:
        backlog.tell()
        policies.append(replace(policies[0], is_dry_run=True))
        backlog.tell()
        backlog.tell()
        assert DRY_RUN._value.get() == 1
        policies.append(policies[0])
        backlog.tell()
        backlog.tell()
    assert [one["event"] for one in logs] == ["dry_run", "dry_run_over"]
    assert logs[0]["rehearsed"] == ["all"]
    assert DRY_RUN._value.get() == 0


def test_readiness_says_what_does_not_leave_and_stays_ready(
    told: tuple[Backlog, list[Policy]],
) -> None:
    backlog, policies = told
    assert backlog.note() is None
    policies.append(replace(policies[0], rehearsed_accounts=frozenset({"shop", "desk"})))
    assert backlog.note() == "DRY RUN, nothing leaves: desk, shop"
