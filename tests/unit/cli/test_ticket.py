"""What `signalbox ticket show` says of where a ticket stands, beyond its status."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cli.ticket import standing_lines

UNTIL = datetime(2026, 11, 26, 8, 0, tzinfo=UTC)
PLAIN: dict[str, Any] = {
    "status": "queued",
    "until_at": None,
    "owner_id": None,
    "merged_into": None,
    "cause": None,
}


def test_a_ticket_that_is_as_its_status_says_has_nothing_to_add() -> None:
    assert standing_lines(PLAIN) == []


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"status": "on_hold", "until_at": UNTIL},
            "it waits for a third party until 2026-11-26 08:00:00Z, or until somebody takes it up",
        ),
        (
            {"status": "snoozed", "until_at": UNTIL},
            "it is put away until 2026-11-26 08:00:00Z, or until somebody takes it up",
        ),
        ({"owner_id": "ada"}, "ada stays responsible while a colleague does a part of it"),
        ({"status": "merged", "merged_into": "t2"}, "goes on in ticket t2: see there"),
        ({"status": "solved", "cause": "lost_parcel"}, "cause lost_parcel"),
    ],
)
def test_what_else_there_is_to_know_is_said_in_plain_words(row: dict[str, Any], said: str) -> None:
    assert standing_lines(PLAIN | row) == [said]
