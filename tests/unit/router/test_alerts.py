"""A series that an alert of the router counts stands from the start, so that the first event is an increase."""

from pathlib import Path

import services.router.metrics  # noqa: F401 - its import declares the series
from chassis.metrics import REGISTRY
from chassis.policy import load
from services.router.handlers import POLICY

ROOT = Path(__file__).parents[3]


def test_a_level_of_the_policy_is_counted_from_nought_so_that_its_first_page_is_an_increase() -> (
    None
):
    load(ROOT / "policy", POLICY)
    labels = {"on_call": "security"}
    assert REGISTRY.get_sample_value("signalbox_router_pages_total", labels) is not None
