"""Threads of vendors, chats without one, edits and removals, and what our own side wrote at the channel."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.inbound import InboundReceived
from schemas.messages import MessageContent, MessageReceived, MessageRevised, Sender
from services.ingest.core import decide as core
from services.ingest.core.state import Order, OrderRow, Parsed, ReadBackRow, SeenRow
from tests.unit.ingest.test_decide import NOW, RULES, World, outcome


def said(name: str = "m1", sender: str | Sender = "u-1", **changes: Any) -> MessageContent:
    made = MessageContent(
        channel="telegram",
        account="bot",
        vendor_message_id=name,
        sender=sender
        if isinstance(sender, Sender)
        else Sender(name="Ada", address=sender, kind="vendor_id"),
        text=f"text of {name}",
        text_new=f"text of {name}",
        occurred_at=NOW,
    )
    return made.model_copy(update=changes)


@pytest.fixture
def world() -> World:
    return World()


def place(world: World, content: MessageContent) -> str:
    (event,) = world.receive(content).events
    return event.conversation_id


def test_a_chat_without_threads_is_one_conversation_for_each_person_and_account(
    world: World,
) -> None:
    first = place(world, said("m1"))
    assert place(world, said("m2")) == first
    assert place(world, said("m3", sender="u-2")) != first
    assert place(world, said("m4", account="other")) != first


def test_a_public_thread_is_a_conversation_for_each_who_writes_in_it(world: World) -> None:
    """A stranger below a customer's post asks for themselves, and keeps their own place in it."""
    post: dict[str, Any] = {"thread": "post-1", "visibility": "public", "kind": "comment"}
    ada = place(world, said("m1", **post))
    bob = place(world, said("m2", sender="u-2", **post))
    assert ada != bob
    assert place(world, said("m3", **post)) == ada
    assert place(world, said("m4", sender="u-2", **post)) == bob


def test_a_private_thread_is_shared_by_all_whom_the_vendor_put_into_it(world: World) -> None:
    """A helpdesk's ticket stays one case when the customer's colleague writes in it."""
    first = place(world, said("m1", thread="ticket-7"))
    assert place(world, said("m2", sender="u-2", thread="ticket-7")) == first
    assert place(world, said("m3", thread="ticket-8")) != first


def test_mail_addresses_are_no_chat(world: World) -> None:
    sender = Sender(address="ada@example.com")
    assert place(world, said("m1", sender=sender)) != place(world, said("m2", sender=sender))


def test_what_our_side_wrote_joins_its_conversation_and_is_nobodys_message_elsewhere(
    world: World,
) -> None:
    first = world.receive(said("m1", thread="t-1"))
    page = Sender(name="Lantern & Oak", address="page-1", kind="vendor_id")
    reply = world.receive(said("m2", sender=page, direction="outbound", thread="t-1"))
    (event,) = reply.events
    assert isinstance(event, MessageReceived)
    assert event.conversation_id == first.events[0].conversation_id
    assert event.customer_id == first.events[0].customer_id
    assert not any(address == "page-1" for _, address in world.directory.addresses)
    lonely = world.receive(said("m3", sender=page, direction="outbound", thread="t-9"))
    assert (lonely.events, lonely.ignored) == ((), "outbound_unmatched")


def test_what_our_side_wrote_in_a_chat_is_found_by_whom_it_was_written_to(world: World) -> None:
    first = place(world, said("m1"))
    page = Sender(name="Lantern & Oak", address="page-1", kind="vendor_id")
    written = said("m2", sender=page, direction="outbound", recipients=("u-1",))
    assert place(world, written) == first


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_change_of_a_message_names_it_and_is_told_once(world: World, change: str) -> None:
    (first,) = world.receive(said("m1")).events
    decision = world.receive(said("m1", change=change, text="otherwise"))
    (event,) = decision.events
    assert isinstance(event, MessageRevised)
    assert (event.message_id, event.conversation_id, event.customer_id) == (
        first.message_id,
        first.conversation_id,
        first.customer_id,
    )
    assert outcome(decision).outcome == "message"
    assert world.receive(said("m1", change=change, text="otherwise")).ignored == "duplicate"


def test_each_edit_is_told(world: World) -> None:
    world.receive(said("m1"))
    for text in ("once", "twice", "thrice"):
        assert len(world.receive(said("m1", change="edited", text=text)).events) == 1


def test_an_edit_that_comes_before_its_message_is_the_message(world: World) -> None:
    """Channels promise no order: the later words stand, and the earlier ones are a duplicate."""
    (event,) = world.receive(said("m1", change="edited", text="later")).events
    assert isinstance(event, MessageReceived)
    assert event.content.text == "later"
    assert world.receive(said("m1", text="earlier")).ignored == "duplicate"
    assert world.receive(said("m1", change="edited", text="later")).ignored == "duplicate"


def test_the_removal_of_a_message_we_never_saw_keeps_it_out_when_it_comes(world: World) -> None:
    first = world.receive(said("m1", change="deleted"))
    again = world.receive(said("m1", change="deleted"))
    assert (first.ignored, again.ignored) == ("deleted_unseen", "deleted_unseen")
    taken = [row for one in (first, again) for row in one.rows if isinstance(row, SeenRow)]
    assert len(taken) == 1, "two rows of one name would be a conflict for ever"
    assert world.receive(said("m1")).ignored == "duplicate"
    assert len(world.receive(said("m2")).events) == 1


def received() -> InboundReceived:
    return InboundReceived(input_id="in-1", channel="gmail", account="g", received_at=NOW)


def test_a_hint_becomes_a_row_to_read_back_with_the_outcome_that_says_so(world: World) -> None:
    decision = core.decide(world.directory, received(), Parsed(ignored=core.READ_BACK), NOW, RULES)
    (row,) = [one for one in decision.rows if isinstance(one, ReadBackRow)]
    assert InboundReceived.model_validate_json(row.delivery) == received()
    assert (outcome(decision).outcome, outcome(decision).reason) == ("ignored", "read_back")


def test_an_order_is_kept_and_is_no_message(world: World) -> None:
    placed = datetime(2026, 11, 20, tzinfo=UTC)
    order = Order(
        "o-1", "1001", (("email", "ada@example.com"),), "paid", placed, placed + timedelta(1)
    )
    parsed = Parsed(ignored="order", orders=(order,))
    decision = core.decide(world.directory, received(), parsed, NOW, RULES)
    assert OrderRow("gmail", "g", order) in decision.rows
    assert decision.events == ()


def test_a_removal_that_names_nobody_is_the_only_writers_where_the_channel_proved_it(
    world: World,
) -> None:
    (first,) = world.receive(said("m1")).events
    gone = said("m1", sender=Sender(address="", kind="none"), change="deleted", text="")
    assert world.receive(gone).ignored == "deleted_unseen"
    (event,) = world.receive(gone, verified=True).events
    assert isinstance(event, MessageRevised)
    assert event.message_id == first.message_id
