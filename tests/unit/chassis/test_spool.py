"""The spool's groups: bounded by bytes as well as by items."""

from datetime import UTC, datetime

from chassis.ledger import PAGE_BYTES
from chassis.spool import SpoolItem, group_size
from schemas.envelope import Envelope
from schemas.topics import INBOUND

ENVELOPE = Envelope(
    type="test",
    source="test",
    id="1",
    time=datetime(2026, 3, 2, 9, tzinfo=UTC),
    partitionkey="k",
    correlationid="k",
)
BODY = b"x" * (PAGE_BYTES // 2)


def item(body: bytes | None = None) -> SpoolItem:
    return SpoolItem(INBOUND, "k", ENVELOPE, b"{}", blob=None if body is None else ("ref", body))


def test_small_items_share_a_transaction() -> None:
    assert group_size([item()] * 500) == 500


def test_large_bodies_are_spread_over_transactions() -> None:
    assert group_size([item(BODY[:-100])] * 5) == 2


def test_one_item_larger_than_the_budget_goes_alone() -> None:
    assert group_size([item(BODY * 3), item()]) == 1
