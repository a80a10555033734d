"""Duplicates, people and threads: what joins, what does not, and what is said about it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas import ids, reply_token
from schemas.inbound import InboundReceived
from schemas.messages import Bounce, MessageContent, Sender
from services.ingest.core import conversation
from services.ingest.core import decide as core
from services.ingest.core.decide import Decision, Rules, decide
from services.ingest.core.state import (
    AddressRow,
    Directory,
    Known,
    OutcomeRow,
    Parsed,
    ParticipantRow,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECRET = b"k" * 32
RULES = Rules(workspace="default", secret=SECRET)


class World:
    """A directory, and deliveries decided one after the other."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.count = 0

    def receive(
        self,
        content: MessageContent,
        *,
        input_id: str | None = None,
        verified: bool = False,
        addressed_to: tuple[str, ...] = (),
        now: datetime = NOW,
        rules: Rules = RULES,
    ) -> Decision:
        self.count += 1
        received = InboundReceived(
            input_id=input_id or f"in-{self.count}",
            channel=content.channel,
            account=content.account,
            received_at=now,
        )
        parsed = Parsed(messages=(content,), verified=verified, addressed_to=addressed_to)
        return decide(self.directory, received, parsed, now, rules)


def written(
    sender: str = "ada@example.com", name: str = "<1@example.com>", **changes: Any
) -> MessageContent:
    made = MessageContent(
        channel="email",
        account="support",
        vendor_message_id=name,
        sender=Sender(name="Ada", address=sender),
        subject="My lamp",
        text=f"text of {name}",
        text_new=f"text of {name}",
        occurred_at=NOW,
    )
    return made.model_copy(update=changes)


def outcome(decision: Decision) -> OutcomeRow:
    (row,) = [row for row in decision.rows if isinstance(row, OutcomeRow)]
    return row


def token_for(conversation_id: str, address: str, now: datetime = NOW) -> str:
    return reply_token.make(SECRET, "default", conversation_id, address, now)


@pytest.fixture
def world() -> World:
    return World()


# -------------------------------------------------------------------------------------- duplicates


def test_a_message_opens_a_conversation_with_derived_ids(world: World) -> None:
    (event,) = world.receive(written()).events
    assert event.conversation_id == ids.conversation_id(event.message_id)
    assert event.customer_id == ids.customer_id("default", "email", "ada@example.com")
    assert (event.input_id, event.suspicion, event.verified) == ("in-1", None, False)


def test_the_same_message_again_is_a_duplicate_of_the_first(world: World) -> None:
    first = world.receive(written())
    again = world.receive(written())
    assert (again.events, again.ignored) == ((), "duplicate")
    assert (outcome(again).outcome, outcome(again).message_id) == (
        "duplicate",
        first.events[0].message_id,
    )


def test_the_same_input_redelivered_changes_nothing_at_all(world: World) -> None:
    world.receive(written(), input_id="in-x")
    assert world.receive(written(), input_id="in-x") == Decision((), (), core.REPEATED)


def test_the_same_mail_in_two_accounts_is_two_messages(world: World) -> None:
    world.receive(written())
    assert world.receive(written(account="sales")).events


def test_a_message_id_used_by_somebody_else_or_for_other_words_silences_nobody(
    world: World,
) -> None:
    world.receive(written())
    assert world.receive(written(sender="eve@example.com")).events
    assert world.receive(written(text="quite another mail")).events


def test_a_generic_channels_id_names_a_message_whatever_it_says(world: World) -> None:
    world.receive(written(channel="kiosk", name="17"))
    assert world.receive(written(channel="kiosk", name="17", text="edited")).ignored == "duplicate"


def test_every_input_ends_in_one_outcome_row(world: World) -> None:
    decisions = [
        world.receive(written()),
        world.receive(written()),
        world.receive(written(name="<2@x>", is_automatic=True, automatic_reason="list")),
        decide(
            world.directory,
            InboundReceived(input_id="s", channel="email", account="support", received_at=NOW),
            Parsed(ignored="spam"),
            NOW,
            RULES,
        ),
    ]
    assert [(outcome(d).outcome, outcome(d).reason) for d in decisions] == [
        ("message", None),
        ("duplicate", None),
        ("ignored", "automatic_unmatched"),
        ("ignored", "spam"),
    ]


def test_of_several_messages_in_one_delivery_the_new_ones_are_told(world: World) -> None:
    world.receive(written(name="<a@x>"))
    received = InboundReceived(input_id="many", channel="email", account="support", received_at=NOW)
    parsed = Parsed(messages=(written(name="<a@x>"), written(name="<b@x>"), written(name="<b@x>")))
    decision = decide(world.directory, received, parsed, NOW, RULES)
    assert [event.content.vendor_message_id for event in decision.events] == ["<b@x>"]
    assert outcome(decision).outcome == "message"


# ------------------------------------------------------------------------------------------ people


def test_one_address_is_one_customer_across_channels_and_spellings(world: World) -> None:
    first = world.receive(written())
    other = world.receive(
        written(sender=" ADA@Example.com", channel="form", account="contact", name="f")
    )
    assert first.events[0].customer_id == other.events[0].customer_id
    assert not any(isinstance(row, AddressRow) for row in other.rows)


def test_one_person_with_two_addresses_stays_two_customers(world: World) -> None:
    one = world.receive(written())
    two = world.receive(written(sender="ada@work.example", name="<2@x>"))
    assert one.events[0].customer_id != two.events[0].customer_id


def test_a_linked_address_leads_to_its_customer(world: World) -> None:
    world.directory.addresses["email", "ada@work.example"] = Known("customer-1", True)
    assert world.receive(written(sender="ada@work.example")).events[0].customer_id == "customer-1"


def test_an_address_becomes_verified_once_and_stays_so(world: World) -> None:
    world.receive(written())
    (row,) = [
        r
        for r in world.receive(written(name="<2@x>"), verified=True).rows
        if isinstance(r, AddressRow)
    ]
    assert row.is_verified
    later = world.receive(written(name="<3@x>"), verified=True).rows
    assert not [r for r in later if isinstance(r, AddressRow)]


def test_senders_without_an_address_are_strangers_to_each_other(world: World) -> None:
    nobody = Sender(address="", kind="none")
    one = world.receive(written().model_copy(update={"sender": nobody}))
    two = world.receive(written(name="<2@x>").model_copy(update={"sender": nobody}))
    assert one.events[0].customer_id != two.events[0].customer_id
    assert not [row for row in one.rows if isinstance(row, ParticipantRow)]


# ----------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize(
    "changes",
    [
        {"in_reply_to": "<1@example.com>"},
        {"references": ("<1@example.com>",)},
        {"references": ("<1@example.com>", "<outlook-of-a-colleague@corp.example>")},
        {"in_reply_to": "<unknown@x>", "references": ("<1@example.com>",)},
    ],
)
def test_a_participants_reply_joins_by_any_reference(world: World, changes: dict[str, Any]) -> None:
    first = world.receive(written())
    (event,) = world.receive(written(name="<2@x>", **changes)).events
    assert (event.conversation_id, event.suspicion) == (first.events[0].conversation_id, None)


def test_a_reply_to_a_reply_joins_too(world: World) -> None:
    first = world.receive(written())
    world.receive(written(name="<2@x>", in_reply_to="<1@example.com>"))
    (event,) = world.receive(written(name="<3@x>", in_reply_to="<2@x>")).events
    assert event.conversation_id == first.events[0].conversation_id


def test_a_stranger_who_names_a_message_id_opens_a_new_conversation(world: World) -> None:
    first = world.receive(written())
    (event,) = world.receive(
        written(sender="eve@example.com", name="<2@x>", in_reply_to="<1@example.com>")
    ).events
    assert event.conversation_id != first.events[0].conversation_id
    assert event.suspicion == conversation.FOREIGN_REFERENCE


def test_a_stranger_who_quotes_a_tickets_number_opens_a_new_conversation(world: World) -> None:
    (event,) = world.receive(written(subject="Re: [SB-4K7TQ2M] My lamp")).events
    assert event.suspicion == conversation.QUOTED_TICKET


@pytest.mark.parametrize("by", ["in_reply_to", "references", "addressed_to", "recipients"])
def test_our_token_brings_its_recipient_back(world: World, by: str) -> None:
    first = world.receive(written())
    target = first.events[0].conversation_id
    token = token_for(target, "ada@example.com")
    ours = reply_token.message_id(token, "n-1", "lantern-oak.example")
    address = reply_token.reply_address("support@lantern-oak.example", token)
    changes: dict[str, Any] = {
        "in_reply_to": {"in_reply_to": ours},
        "references": {"references": (ours, "<x@y>")},
        "recipients": {"recipients": (address,)},
    }.get(by, {})
    addressed_to = (address,) if by == "addressed_to" else ()
    (event,) = world.receive(written(name="<2@x>", **changes), addressed_to=addressed_to).events
    assert (event.conversation_id, event.suspicion) == (target, None)


def test_a_token_of_a_participant_used_by_another_joins_with_suspicion(world: World) -> None:
    first = world.receive(written())
    target = first.events[0].conversation_id
    ours = reply_token.message_id(token_for(target, "ada@example.com"), "n", "lantern-oak.example")
    decision = world.receive(written(sender="bob@example.com", name="<2@x>", in_reply_to=ours))
    (event,) = decision.events
    assert (event.conversation_id, event.suspicion) == (target, conversation.OTHER_RECIPIENT)
    assert event.customer_id != first.events[0].customer_id
    assert not [row for row in decision.rows if isinstance(row, ParticipantRow)]


def test_somebody_we_wrote_to_becomes_a_participant_by_answering(world: World) -> None:
    first = world.receive(written())
    target = first.events[0].conversation_id
    ours = reply_token.message_id(token_for(target, "bob@example.com"), "n", "lantern-oak.example")
    decision = world.receive(written(sender="bob@example.com", name="<2@x>", in_reply_to=ours))
    (row,) = [row for row in decision.rows if isinstance(row, ParticipantRow)]
    assert (row.conversation_id, row.address) == (target, "bob@example.com")


@pytest.mark.parametrize(
    ("token", "rules"),
    [
        (
            reply_token.make(
                b"x" * 32, "default", "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01", "ada@example.com", NOW
            ),
            RULES,
        ),
        (
            reply_token.make(
                SECRET, "other", "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01", "ada@example.com", NOW
            ),
            RULES,
        ),
        (
            reply_token.make(
                SECRET,
                "default",
                "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01",
                "ada@example.com",
                NOW - timedelta(days=366),
            ),
            RULES,
        ),
        (
            reply_token.make(
                SECRET, "default", "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01", "ada@example.com", NOW
            ),
            replace(RULES, secret=b""),
        ),
    ],
    ids=["forged", "of another workspace", "too old", "no key"],
)
def test_a_token_that_is_not_valid_joins_nothing(world: World, token: str, rules: Rules) -> None:
    ours = reply_token.message_id(token, "n", "lantern-oak.example")
    (event,) = world.receive(written(in_reply_to=ours), rules=rules).events
    assert event.conversation_id == ids.conversation_id(event.message_id)
    assert event.suspicion == conversation.FORGED_TOKEN


def test_a_vendors_id_counts_in_its_own_account_only(world: World) -> None:
    first = world.receive(written(channel="kiosk", account="a", name="17"))
    same = world.receive(written(channel="kiosk", account="a", name="18", in_reply_to="17"))
    other = world.receive(written(channel="kiosk", account="b", name="19", in_reply_to="17"))
    assert same.events[0].conversation_id == first.events[0].conversation_id
    assert other.events[0].conversation_id != first.events[0].conversation_id


# ---------------------------------------------------------------------------- reports and machines


def bounce(recipient: str, original: str, name: str = "<dsn@mx>") -> MessageContent:
    return written(
        sender="mailer-daemon@mx.example",
        name=name,
        kind="bounce",
        is_automatic=True,
        automatic_reason="bounce",
        bounce=Bounce(recipient=recipient, status="5.1.1"),
        in_reply_to=original,
    )


def test_a_bounce_finds_the_conversation_of_our_mail_and_its_customer(world: World) -> None:
    first = world.receive(written()).events[0]
    ours = reply_token.message_id(
        token_for(first.conversation_id, "ada@example.com"), "n", "shop.example"
    )
    decision = world.receive(bounce("ada@example.com", ours))
    (event,) = decision.events
    assert (event.conversation_id, event.customer_id) == (first.conversation_id, first.customer_id)
    assert not [row for row in decision.rows if isinstance(row, (ParticipantRow, AddressRow))]


def test_a_bounce_of_a_mail_that_is_not_ours_is_ignored(world: World) -> None:
    assert world.receive(bounce("eve@example.com", "<else@where>")).ignored == "bounce_unmatched"


def test_automatic_mail_joins_but_never_opens(world: World) -> None:
    first = world.receive(written()).events[0]
    automatic = {"kind": "auto_reply", "is_automatic": True, "automatic_reason": "auto_submitted"}
    joined = world.receive(written(name="<2@x>", in_reply_to="<1@example.com>", **automatic))
    assert joined.events[0].conversation_id == first.conversation_id
    assert world.receive(written(name="<3@x>", **automatic)).ignored == "automatic_unmatched"


@pytest.mark.parametrize("reason", sorted(core.WEAK_REASONS))
def test_what_only_looks_automatic_is_not_dropped(world: World, reason: str) -> None:
    (event,) = world.receive(written(is_automatic=True, automatic_reason=reason)).events
    assert event.content.is_automatic


def test_the_eleventh_automatic_mail_in_a_window_is_a_loop(world: World) -> None:
    world.receive(written())
    automatic = {
        "in_reply_to": "<1@example.com>",
        "is_automatic": True,
        "automatic_reason": "auto_submitted",
    }
    at = [NOW + timedelta(minutes=n) for n in range(10)]
    for n, moment in enumerate(at):
        assert world.receive(written(name=f"<a{n}@x>", **automatic), now=moment).events
    assert world.receive(written(name="<b@x>", **automatic), now=at[-1]).ignored == "loop"
    # At the first one's age of exactly the window, it no longer counts.
    edge = NOW + RULES.automatic_window
    assert (
        world.receive(written(name="<c@x>", **automatic), now=edge - timedelta(seconds=1)).ignored
        == "loop"
    )
    assert world.receive(written(name="<d@x>", **automatic), now=edge).events


def test_a_persons_mail_is_never_a_loop(world: World) -> None:
    world.receive(written())
    for n in range(30):
        assert world.receive(written(name=f"<a{n}@x>", in_reply_to="<1@example.com>")).events


def test_questions_ask_for_all_that_deciding_looks_at(world: World) -> None:
    token = token_for("b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01", "ada@example.com")
    address = reply_token.reply_address("support@lantern-oak.example", token)
    content = written(in_reply_to="<p@x>", references=("<q@x>",))
    received = InboundReceived(input_id="i", channel="email", account="support", received_at=NOW)
    asked = core.questions(
        [(received, Parsed(messages=(content,), addressed_to=(address,))), (received, None)]
    )
    assert asked.input_ids == {"i"}
    assert asked.references == {"<p@x>", "<q@x>"}
    assert asked.conversations == {"b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"}
    assert asked.addresses == {("email", "ada@example.com")}
    assert len(asked.seen) == 1


def test_the_same_inputs_in_the_same_order_give_the_same_bytes() -> None:
    def run() -> list[bytes]:
        world = World()
        contents = [written(), written(), written(name="<2@x>", in_reply_to="<1@example.com>")]
        return [event.to_json() for one in contents for event in world.receive(one).events]

    assert run() == run()
