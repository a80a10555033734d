"""Derived ids: the same facts give the same names."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids

CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"


def test_the_ids_of_stored_things_never_change() -> None:
    """A changed root or rule would rename everything that was ever stored."""
    assert ids.derive("message", "default") == "8426c5ba-880e-5d7b-8131-0cfea2b801ac"


FACTS = st.lists(st.text("ab\x1e\x1f", max_size=4), min_size=1, max_size=4)


@given(FACTS, FACTS)
def test_two_lists_of_facts_share_an_id_only_if_they_are_the_same(
    left: list[str], right: list[str]
) -> None:
    assert (ids.derive(*left) == ids.derive(*right)) == (left == right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("a", "b"), ("ab",)),
        (("a\x1f", "b"), ("a", "\x1fb")),
        (("a\x1fb",), ("a", "b")),
        (("a\x1e", "b"), ("a\x1e\x1fb",)),
        (("a\x1e\x1e", "b"), ("a\x1e", "\x1eb")),
        (("",), ("", "")),
    ],
)
def test_a_separator_within_a_fact_does_not_make_it_another_list(
    left: tuple[str, ...], right: tuple[str, ...]
) -> None:
    assert ids.derive(*left) != ids.derive(*right)


def test_each_kind_of_thing_has_names_of_its_own() -> None:
    named = {
        ids.message_id("default", "email", "support", "<1@example.com>"),
        ids.message_id("default", "form", "support", "<1@example.com>"),
        ids.message_id("other", "email", "support", "<1@example.com>"),
        ids.conversation_id("<1@example.com>"),
        ids.customer_id("default", "email", "ada@example.com"),
        ids.ticket_id(CONVERSATION, 1),
        ids.ticket_id(CONVERSATION, 2),
        ids.event_id("sla", "cause", 0, "sla.met.v1"),
        ids.event_id("sla", "cause", 1, "sla.met.v1"),
        ids.event_id("router.tickets", "cause", 0, "sla.met.v1"),
    }
    assert len(named) == 10
    assert all(UUID(name).version == 5 for name in named)


def test_a_ticket_reference_is_short_and_can_be_read_aloud() -> None:
    references = {ids.ticket_reference(ids.ticket_id(CONVERSATION, n)) for n in range(1, 501)}
    assert len(references) == 500
    assert all(re.fullmatch(r"SB-[A-Z2-7]{7}", reference) for reference in references)


def test_a_ticket_keeps_its_reference() -> None:
    ticket = ids.ticket_id(CONVERSATION, 1)
    assert ids.ticket_reference(ticket) == ids.ticket_reference(ticket.upper())
