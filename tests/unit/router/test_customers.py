"""What becomes of a case when its customer is merged, parted, likened to another, or forgotten."""

from msgspec import structs

from schemas import commands
from schemas import tickets as wire
from schemas.customers import (
    CustomerErased,
    CustomerLinkSuggested,
    CustomerMerged,
    CustomerUnmerged,
)
from schemas.messages import MessageReceived
from services.router.core.tickets.rows import ErasedRow
from tests.unit.router.stories import CONVERSATION, Case, at, message

_WHO = {"conversation_id": CONVERSATION, "by": "signalbox", "at": at("09:05")}
CONTEXT = {
    "conversations": 1,
    "interactions": [
        {
            "conversation_id": "c9",
            "channel": "whatsapp",
            "at": "2026-11-20T08:00:00Z",
            "words": "Where is it?",
        }
    ],
    "is_proved": True,
}


def merged(into: str = "k0", gone: str = "k1", *members: str) -> CustomerMerged:
    return CustomerMerged.model_validate(
        {
            **_WHO,
            "merge_id": "m",
            "customer_id": into,
            "merged_id": gone,
            "members": [gone, *members],
            "score": 1,
        }
    )


def unmerged(back: str = "k1", left: str = "k0", *members: str) -> CustomerUnmerged:
    return CustomerUnmerged.model_validate(
        {
            **_WHO,
            "merge_id": "m",
            "customer_id": back,
            "left_id": left,
            "members": [back, *members],
        }
    )


def erased(*members: str) -> CustomerErased:
    return CustomerErased.model_validate(
        {**_WHO, "customer_id": members[0], "members": members, "message_ids": ["m1"]}
    )


def known(message_id: str = "m1", **changes: object) -> MessageReceived:
    return message(message_id).model_copy(update=changes)


def opened() -> Case:
    return Case().hears(known(), "09:00")


def test_a_case_tells_what_was_known_of_the_customer_when_it_was_opened() -> None:
    told = MessageReceived.model_validate({**message().model_dump(), "context": CONTEXT})
    case = Case().hears(told, "09:00")
    assert case.one(wire.TicketOpened).context == told.context


def test_a_merge_gives_the_case_its_customers_new_id_and_changes_nothing_else() -> None:
    case = opened()
    before = case.ticket
    case.hears(merged(), "09:05")
    told = case.one(wire.TicketCustomerChanged)
    assert (told.before, told.customer_id, told.reason) == ("k1", "k0", "merged")
    assert case.types() == [wire.TicketCustomerChanged.TYPE]
    after = case.ticket
    assert (after.contact.customer_id, after.contact.address) == ("k0", before.contact.address)
    assert (after.standing, after.opened_at, after.entered_at, after.sla_policy) == (
        before.standing,
        before.opened_at,
        before.entered_at,
        before.sla_policy,
    )
    assert case.hears(merged(), "09:06").last.ignored == "other_customer"


def test_undoing_restores_the_case_to_the_letter_but_its_version() -> None:
    case = opened()
    before = case.ticket.contact
    case.hears(merged(), "09:05").hears(unmerged(), "09:06")
    assert case.ticket.contact.customer_id == before.customer_id
    assert case.ticket.contact.address == before.address
    assert case.one(wire.TicketCustomerChanged).reason == "unmerged"


def test_undoing_gives_back_only_what_came_from_the_one_who_leaves() -> None:
    """The case's customer led elsewhere before: parting somebody else does not touch it."""
    case = Case().hears(known(customer_id="k0", origin_customer_id="k2"), "09:00")
    assert case.hears(unmerged("k1", "k0"), "09:05").last.ignored == "other_customer"
    case.hears(unmerged("k1", "k0", "k2"), "09:06")
    assert case.ticket.contact.customer_id == "k1"
    assert case.ticket.contact.own_id == "k2"


def test_a_merge_of_somebody_else_in_the_conversation_is_nothing() -> None:
    assert opened().hears(merged("k0", "k7"), "09:05").last.ignored == "other_customer"
    assert Case().hears(merged(), "09:05").last.ignored == "no_conversation"


def test_a_likeness_is_a_note_for_the_agent_and_merges_nothing() -> None:
    told = CustomerLinkSuggested.model_validate(
        {
            **_WHO,
            "customer_id": "k1",
            "other_id": "k9",
            "score": 0.6,
            "evidence": [{"kind": "claimed_mail", "weight": 0.6, "detail": "a…@x was typed"}],
        }
    )
    case = opened().hears(told, "09:05")
    note = case.one(wire.TicketNoteAdded)
    assert "k9" in note.text
    assert "a…@x was typed" in note.text
    assert case.ticket.contact.customer_id == "k1"


def test_a_case_whose_customer_is_forgotten_goes_on_without_name_and_address() -> None:
    case = opened().held_by("ada")
    before = case.ticket
    case.hears(erased("k0", "k1"), "09:05")
    contact = case.ticket.contact
    assert (contact.name, contact.address, contact.address_kind) == ("", "", "none")
    assert case.ticket.subject == ""
    assert (case.ticket.standing, case.ticket.ticket_id) == (before.standing, before.ticket_id)
    assert case.one(wire.ConversationErased).conversation_id == CONVERSATION
    assert case.last.messages == (ErasedRow(CONVERSATION, ("k0", "k1"), ("m1",)),)


def test_forgetting_a_colleague_leaves_the_cases_own_customer() -> None:
    case = opened().hears(erased("k7"), "09:05")
    assert case.ticket.contact.address == "ada@example.com"
    assert case.ticket.subject


def test_an_erasure_takes_what_a_colleague_was_asked_and_what_waits_to_be_carried() -> None:
    case = Case().hears(message(), "09:00").held_by("ada")
    case.commands(commands.DelegateTicket, "09:01", to_agent_id="bo", task="call Ada at home")
    case.held_by("bo", "09:02").commands(
        commands.MergeTicket,
        "09:03",
        agent="bo",
        into_conversation_id="c2",
        into_ticket_id="t2",
    )
    case.hears(message("m2"), "09:04")
    merge = case.ticket.merging
    assert merge is not None
    assert len(merge.messages) == 1
    event = CustomerErased(
        conversation_id="c1", by="ada", at=at("09:05"), customer_id="k1", members=("k1",)
    )
    case.hears(event, "09:05")
    assert case.ticket.merging == structs.replace(merge, messages=())
    assert case.ticket.delegation is not None
    assert case.ticket.delegation.task == ""
