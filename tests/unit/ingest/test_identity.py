"""Who is who: keys, proofs, evidence, merges and their undoing, context, erasure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.customers import (
    CustomerErased,
    CustomerLinkSuggested,
    CustomerMerged,
    CustomerUnmerged,
    Evidence,
)
from schemas.inbound import InboundReceived
from schemas.messages import MessageContent, MessageReceived, Sender
from services.ingest.core import customers, identity, linking
from services.ingest.core.decide import Decision, Rules, decide, questions
from services.ingest.core.state import (
    Directory,
    IdentityCommand,
    LinkRow,
    MergeRow,
    Order,
    OrderSeen,
    OutcomeRow,
    Parsed,
    ParseError,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
RULES = Rules(workspace="default", secret=b"k" * 32, phone_region="TR")
PHONE = "+905321234567"


class World:
    """A directory, and what is said and decided, one after the other, a minute apart."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.count = 0

    def says(self, content: MessageContent, *, verified: bool = True) -> Decision:
        return self._decide(content.channel, Parsed(messages=(content,), verified=verified))

    def decides(self, do: Any, *ids: str, merge_id: str = "") -> Decision:
        one, other = (*ids, "", "")[:2]
        command = IdentityCommand(do, "ada", one, other, merge_id)
        return self._decide("identity", Parsed(command=command))

    def _decide(self, channel: str, parsed: Parsed) -> Decision:
        self.count += 1
        now = NOW + timedelta(minutes=self.count)
        received = InboundReceived(
            input_id=f"in-{self.count}", channel=channel, account="a", received_at=now
        )
        return decide(self.directory, received, parsed, now, RULES)

    def resolution(self) -> dict[str, str]:
        return {one: identity.root_of(self.directory, one) for one in self.directory.customers}


@pytest.fixture
def world() -> World:
    return World()


_numbers = iter(range(1, 1_000_000))


def said(channel: str, address: str, kind: Any = "vendor_id", **changes: Any) -> MessageContent:
    number = next(_numbers)
    made = MessageContent(
        channel=channel,
        account="a",
        vendor_message_id=f"m-{number}",
        sender=Sender(name=changes.pop("name", "Ada Lovelace"), address=address, kind=kind),
        text=f"words number {number}",
        text_new=f"words number {number}",
        occurred_at=NOW + timedelta(seconds=number),
    )
    return made.model_copy(update=changes)


def mail(address: str = "ada@example.com", **changes: Any) -> MessageContent:
    return said("email", address, "email", **changes)


def whatsapp(number: str = PHONE, **changes: Any) -> MessageContent:
    return said("whatsapp", number, "phone", **changes)


def telegram(user: str = "4711", phone: str | None = None, **changes: Any) -> MessageContent:
    fields = {"phone": phone} if phone is not None else {}
    return said("telegram", user, fields=fields, **changes)


def customer_of(decision: Decision) -> str:
    return message_of(decision).customer_id


def message_of(decision: Decision) -> MessageReceived:
    (event,) = [one for one in decision.events if isinstance(one, MessageReceived)]
    return event


def events_of(decision: Decision, kind: Any) -> list[Any]:
    return [one for one in decision.events if isinstance(one, kind)]


def reason(decision: Decision) -> str | None:
    (row,) = [row for row in decision.rows if isinstance(row, OutcomeRow)]
    return row.reason


# ------------------------------------------------------------------------------------ keys, proofs


@pytest.mark.parametrize(
    ("written", "region", "kept"),
    [
        ("+90 532 123 45 67", "", PHONE),
        ("0532 123 45 67", "TR", PHONE),
        ("00905321234567", "TR", PHONE),
        ("0532 123 45 67", "", "0532 123 45 67"),
        ("12", "TR", "12"),
        ("anonymous", "TR", "anonymous"),
        ("+1" * 100, "TR", "+1" * 100),
    ],
)
def test_a_phone_number_is_kept_as_e164_where_it_is_one(
    written: str, region: str, kept: str
) -> None:
    assert identity.normalise_address("phone", written, region) == kept


def test_a_vendors_id_is_somebody_in_that_account_only(world: World) -> None:
    first = customer_of(world.says(telegram("4711")))
    assert customer_of(world.says(said("messenger", "4711"))) != first
    assert customer_of(world.says(telegram("4711", account="b"))) != first
    assert customer_of(world.says(telegram("4711"))) == first


def test_one_number_in_two_spellings_is_one_customer_across_channels(world: World) -> None:
    first = customer_of(world.says(whatsapp()))
    assert customer_of(world.says(said("twilio_sms", "0532 123 45 67", "phone"))) == first


@pytest.mark.parametrize(
    ("content", "verified", "proof"),
    [
        (mail(), True, "dmarc"),
        (mail(), False, "none"),
        (said("webchat", "ada@example.com", "email"), True, "identity_token"),
        (whatsapp(), True, "signed_channel"),
        (said("twilio_sms", PHONE, "phone"), True, "vendor"),
        (said("zendesk", "ada@example.com", "email"), True, "vendor"),
        (whatsapp(direction="outbound"), True, "none"),
    ],
)
def test_a_channel_proves_what_it_can(content: MessageContent, verified: bool, proof: str) -> None:
    assert identity.proof_of(content, verified=verified) == proof


def test_a_proof_becomes_stronger_and_never_weaker(world: World) -> None:
    key = ("email", "ada@example.com")
    for channel, verified, proof in [
        ("email", False, "none"),
        ("zendesk", True, "vendor"),
        ("email", True, "dmarc"),
        ("zendesk", True, "dmarc"),
    ]:
        world.says(said(channel, "ada@example.com", "email"), verified=verified)
        assert world.directory.addresses[key].proof == proof


def test_an_order_proves_a_little_of_the_address_it_was_placed_with(world: World) -> None:
    world.says(mail(), verified=False)
    order = Order("1", "1001", (("email", "Ada@Example.com"),), "paid", NOW, NOW)
    world._decide("shopify", Parsed(ignored="order", orders=(order,), verified=True))
    assert world.directory.addresses["email", "ada@example.com"].proof == "order"


# ---------------------------------------------------------------------------------------- evidence

PIECES = st.lists(
    st.builds(
        linking.evidence,
        st.sampled_from(sorted(linking.WEIGHTS)),
        st.sampled_from(["a", "b"]),
        is_proved=st.booleans(),
    ),
    max_size=8,
)


@given(PIECES, st.randoms(use_true_random=False))
def test_the_order_in_which_evidence_comes_does_not_matter(
    pieces: list[Evidence], dice: Any
) -> None:
    other = list(pieces)
    dice.shuffle(other)
    assert linking.combine(pieces) == linking.combine(other)
    assert linking.judge(pieces) == linking.judge(other)


@given(PIECES, PIECES)
def test_more_evidence_never_lowers_the_score(pieces: list[Evidence], more: list[Evidence]) -> None:
    assert linking.score([*pieces, *more]) >= linking.score(pieces)
    assert linking.combine([*linking.combine(pieces), *more]) == linking.combine([*pieces, *more])


@given(PIECES)
def test_nobody_is_merged_without_proof_of_both_sides(pieces: list[Evidence]) -> None:
    unproved = [piece.model_copy(update={"is_proved": False}) for piece in pieces]
    assert linking.judge(unproved).verdict != "merge"


@given(PIECES, st.booleans(), st.integers(2, 50))
def test_nobody_is_merged_or_suggested_against_a_standing_no(
    pieces: list[Evidence], shared: bool, members: int
) -> None:
    judged = linking.judge(pieces, is_refused=True, is_shared=shared, members=members)
    assert judged.verdict == "note"


def test_the_same_name_alone_is_nothing_and_with_a_shared_claim_a_question() -> None:
    name = linking.evidence("same_name", "")
    assert linking.judge([name]).verdict == "note"
    assert linking.judge([name, linking.evidence("same_claim", "")]).verdict == "suggest"


@pytest.mark.parametrize(
    ("address", "names", "shared"),
    [
        ("info@example.com", (), True),
        ("sales+x@example.com", (), True),
        ("ada@example.com", ("ada", "a. lovelace"), False),
        ("ada@example.com", ("ada", "bob", "eve"), True),
    ],
)
def test_an_offices_address_and_one_of_many_names_are_shared(
    address: str, names: tuple[str, ...], shared: bool
) -> None:
    assert linking.is_shared(("email", address), names) is shared


def test_what_explains_a_link_shows_no_whole_address() -> None:
    for key in (("email", "ada@example.com"), ("phone", PHONE), ("vendor_id", "telegram/a/471100")):
        assert key[1] not in linking.masked(key)


# ------------------------------------------------------------------------------- merging, suggesting


def merged(world: World) -> tuple[str, str, Decision]:
    first = customer_of(world.says(whatsapp()))
    before = customer_of(world.says(telegram()))
    return first, before, world.says(telegram(phone="0532 123 45 67"))


def test_a_number_that_two_signed_channels_vouch_for_makes_two_customers_one(world: World) -> None:
    first, before, decision = merged(world)
    assert before != first
    event = message_of(decision)
    assert (event.customer_id, event.origin_customer_id) == (first, before)
    told = events_of(decision, CustomerMerged)
    assert {(e.customer_id, e.merged_id, e.members) for e in told} == {(first, before, (before,))}
    # Both of the other's messages stand in one chat, which is the one conversation to tell.
    assert [e.conversation_id for e in told] == [event.conversation_id]
    assert told[0].evidence[0].kind == "attested_phone"
    assert told[0].by == "signalbox"
    assert customer_of(world.says(telegram())) == first


def test_it_does_not_matter_which_side_comes_first(world: World) -> None:
    """The number is attested before anybody writes from it: it is the attested customer's from then on."""
    first = customer_of(world.says(telegram(phone=PHONE)))
    assert customer_of(world.says(whatsapp())) == first


def test_what_only_one_side_proved_is_asked_and_not_merged(world: World) -> None:
    world.says(said("voip", PHONE, "phone"), verified=True)
    decision = world.says(telegram(phone=PHONE))
    assert events_of(decision, CustomerMerged) == []
    (told,) = events_of(decision, CustomerLinkSuggested)
    assert told.objection == "not_proved"


def test_a_side_that_is_proved_later_merges_then(world: World) -> None:
    """A caller's number proves nothing; the same number on WhatsApp does."""
    world.says(said("voip", PHONE, "phone"))
    world.says(telegram(phone=PHONE))
    decision = world.says(whatsapp())
    assert len({e.merge_id for e in events_of(decision, CustomerMerged)}) == 1
    assert len(set(world.resolution().values())) == 1


def test_a_mail_address_that_somebody_typed_is_a_question_asked_once(world: World) -> None:
    owner = customer_of(world.says(mail()))
    chat = said("chatra", "c-1", fields={"email": "Ada@Example.com"}, name="Visitor")
    decision = world.says(chat, verified=False)
    (told,) = events_of(decision, CustomerLinkSuggested)
    assert (told.other_id, told.score) == (owner, 0.6)
    assert message_of(decision).customer_id != owner
    again = said("chatra", "c-1", fields={"email": "ada@example.com"}, name="Visitor")
    assert events_of(world.says(again, verified=False), CustomerLinkSuggested) == []


def test_a_typed_address_that_nobody_had_is_not_captured(world: World) -> None:
    chat = customer_of(
        world.says(said("chatra", "c-1", fields={"email": "ada@example.com"}), verified=False)
    )
    decision = world.says(mail())
    assert customer_of(decision) != chat
    assert len(events_of(decision, CustomerLinkSuggested)) == 1


def test_a_familys_number_is_asked_about_however_well_proved(world: World) -> None:
    for name in ("Ada Lovelace", "Bob Lovelace", "Eve Lovelace"):
        world.says(whatsapp(name=name))
    (told,) = events_of(world.says(telegram(phone=PHONE)), CustomerLinkSuggested)
    assert told.objection == "shared_address"


def test_an_orders_number_under_the_same_name_is_a_question(world: World) -> None:
    world.says(mail())
    world.directory.orders.append(
        OrderSeen("#1001", "paid", "10", "EUR", NOW, (("email", "ada@example.com"),))
    )
    decision = world.says(said("edesk", "e-1", fields={"order": "1001"}))
    (told,) = events_of(decision, CustomerLinkSuggested)
    assert told.evidence[0].kind == "order_and_name"
    other = world.says(said("edesk", "e-2", fields={"order": "1001"}, name="Somebody Else"))
    assert events_of(other, CustomerLinkSuggested) == []


def test_a_merge_sets_off_no_other(world: World) -> None:
    """The merged customers' other likenesses stay what they were: questions."""
    chat = customer_of(
        world.says(said("chatra", "c-1", fields={"phone": PHONE}, name="V"), verified=False)
    )
    _, before, decision = merged(world)
    assert {e.merged_id for e in events_of(decision, CustomerMerged)} == {before}
    assert identity.root_of(world.directory, chat) == chat


# ----------------------------------------------------------------------------- what people decide


def test_a_merge_that_is_undone_restores_both_and_stays_undone(world: World) -> None:
    first, before, decision = merged(world)
    merge_id = events_of(decision, CustomerMerged)[0].merge_id
    undone = world.decides("undo", merge_id=merge_id)
    assert reason(undone) == "customers_unmerged"
    (told,) = events_of(undone, CustomerUnmerged)
    assert (told.customer_id, told.left_id, told.members) == (before, first, (before,))
    assert world.resolution() == {first: first, before: before}
    after = world.says(telegram(phone=PHONE))
    assert customer_of(after) == before
    assert events_of(after, (CustomerMerged, CustomerLinkSuggested)) == []
    assert reason(world.decides("undo", merge_id=merge_id)) == "refused_already_undone"
    assert reason(world.decides("undo", merge_id="other")) == "refused_unknown_merge"


def test_what_comes_after_a_merge_stays_with_whoever_wrote_it(world: World) -> None:
    first, before, decision = merged(world)
    late = world.says(said("telegram", "4711", thread="another"))
    assert customer_of(late) == first
    undone = world.decides("undo", merge_id=events_of(decision, CustomerMerged)[0].merge_id)
    assert message_of(late).conversation_id in {e.conversation_id for e in undone.events}
    assert customer_of(world.says(telegram())) == before
    assert customer_of(world.says(whatsapp())) == first


def test_a_persons_no_stands_until_a_person_lifts_it(world: World) -> None:
    first = customer_of(world.says(whatsapp()))
    second = customer_of(world.says(telegram()))
    assert reason(world.decides("unlink", first, second)) == "customers_parted"
    assert events_of(world.says(telegram(phone=PHONE)), CustomerMerged) == []
    assert reason(world.decides("merge", first, second)) == "refused_not_the_same"
    assert reason(world.decides("link", first, second)) == "customers_linked"
    assert reason(world.decides("merge", first, second)) == "customers_merged"
    assert identity.root_of(world.directory, second) == first
    assert reason(world.decides("unlink", first, second)) == "refused_already_one"
    assert reason(world.decides("merge", first, "nobody")) == "refused_unknown_customer"


def test_a_no_holds_for_all_who_are_one_with_either(world: World) -> None:
    first = customer_of(world.says(whatsapp()))
    second = customer_of(world.says(telegram()))
    friend = customer_of(world.says(mail()))
    world.decides("merge", second, friend)
    world.decides("unlink", first, friend)
    assert reason(world.decides("merge", first, second)) == "refused_not_the_same"


STEPS = st.lists(
    st.tuples(st.sampled_from(["merge", "undo"]), st.integers(0, 5), st.integers(0, 5)),
    max_size=12,
)


@given(STEPS, st.integers(0, 5), st.integers(0, 5))
def test_merge_then_undo_restores_who_leads_to_whom_exactly(
    steps: list[tuple[str, int, int]], one: int, other: int
) -> None:
    world = World()
    people = [customer_of(world.says(telegram(str(n)))) for n in range(6)]
    for do, left, right in steps:
        if do == "merge":
            world.decides("merge", people[left], people[right])
        else:
            merges = [key for key, merge in world.directory.merges.items() if merge.is_live]
            if merges:
                world.decides("undo", merge_id=sorted(merges)[left % len(merges)])
    before = world.resolution()
    for first in before.values():
        assert world.directory.customers[first].merged_into is None
    decision = world.decides("merge", people[one], people[other])
    rows = [row for row in decision.rows if isinstance(row, MergeRow)]
    for row in rows:
        assert world.resolution() != before
        world.decides("undo", merge_id=row.merge_id)
    assert world.resolution() == before


def test_a_later_merge_outlives_the_undoing_of_an_earlier_one(world: World) -> None:
    a, b, c = (customer_of(world.says(telegram(str(n)))) for n in range(3))
    world.decides("merge", b, a)
    (early,) = world.directory.merges
    world.decides("merge", c, b)
    assert set(world.resolution().values()) == {c}
    world.decides("undo", merge_id=early)
    assert world.resolution() == {a: a, b: c, c: c}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'{"do":"steal","by":"ada"}', b'{"do":"merge","by":" "}', b'{"do":"merge","by":"a","x":1}'],
)  # fmt: skip
def test_what_is_no_command_is_refused_with_its_field(body: bytes) -> None:
    with pytest.raises(ParseError):
        customers.read_command(body)


def test_a_command_is_read_as_it_was_written() -> None:
    command = IdentityCommand("merge", "ada", "c-1", "c-2")
    assert customers.read_command(customers.encode_command(command)) == command


# ----------------------------------------------------------------------------- context, erasure


def test_what_a_customer_said_elsewhere_travels_with_the_message(world: World) -> None:
    world.says(whatsapp(language="tr", subject="", text_new="Lambam nerede? " * 30))
    world.directory.orders.append(OrderSeen("1001", "paid", "10", "EUR", NOW, (("phone", PHONE),)))
    context = message_of(world.says(telegram(phone=PHONE))).context
    assert context is not None
    assert [(one.channel, one.words[:14], len(one.words)) for one in context.interactions] == [
        ("whatsapp", "Lambam nerede?", 120)
    ]
    assert (context.conversations, context.language) == (1, "tr")
    assert context.address_kinds == ("phone", "vendor_id")
    assert [order.number for order in context.orders] == ["1001"]
    assert context.is_proved


def test_a_context_is_small_and_has_nothing_of_its_own_conversation(world: World) -> None:
    for number in range(12):
        world.says(mail(subject="ü" * 900, thread=f"t-{number}"))
    context = message_of(world.says(mail(), verified=False)).context
    assert context is not None
    assert len(context.model_dump_json().encode()) <= 4_000
    assert len(context.interactions) == 5
    assert context.conversations == 12
    assert not context.is_proved
    first = message_of(world.says(telegram("new")))
    assert first.context is None
    assert message_of(world.says(telegram("new"))).context is None


def test_an_erased_customer_is_forgotten_and_begins_anew(world: World) -> None:
    first, before, decision = merged(world)
    chat = message_of(decision).conversation_id
    erased = world.decides("erase", before)
    assert reason(erased) == "customer_erased"
    told = events_of(erased, CustomerErased)
    assert {e.members for e in told} == {(first, before)}
    assert sum(len(e.message_ids) for e in told) == 3
    assert chat in {e.conversation_id for e in told}
    assert world.directory.addresses == {}
    assert reason(world.decides("erase", "nobody")) == "refused_unknown_customer"
    again = message_of(world.says(telegram()))
    assert (again.customer_id, again.context) == (before, None)
    assert again.conversation_id != chat


def test_a_batch_asks_for_all_that_it_will_need() -> None:
    received = InboundReceived(input_id="i", channel="telegram", account="a", received_at=NOW)
    content = telegram(phone="0532 123 45 67")
    asked = questions([(received, Parsed(messages=(content,)))], "TR")
    assert asked.addresses == {("vendor_id", "telegram/a/4711"), ("phone", PHONE)}
    assert (asked.claimed, asked.claimers) == (
        {("phone", PHONE)},
        {("vendor_id", "telegram/a/4711")},
    )
    erase = Parsed(command=IdentityCommand("erase", "ada", "c-1"))
    asked = questions([(received, erase)])
    assert (asked.customers, asked.erased) == ({"c-1"}, {"c-1"})


def test_every_link_decision_names_the_versions_it_rests_on(world: World) -> None:
    _, _, decision = merged(world)
    links = [row for row in decision.rows if isinstance(row, LinkRow)]
    bases = {row.customer_id for row in decision.rows if hasattr(row, "version")}
    assert {one for row in links for one in (row.low_id, row.high_id)} <= bases
