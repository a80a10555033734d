"""Whom an announcement goes to: each person once, in the right one of their conversations, and nobody a second time."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec import structs

from schemas.notifications import NoticeRequested
from services.ingest.api import _place_of
from services.notifier.core.announce import (
    ANY,
    NO_RECORD,
    Announced,
    Announcement,
    Choice,
    Filters,
    Place,
    Record,
    Why,
    choose,
    person_of,
    place_in,
    place_on_its_way,
    place_without,
    recipient_of,
    why_concerned,
)
from services.notifier.core.policy import OutageAudience
from services.notifier.core.state import Case, Contact, Conversation
from services.notifier.core.tone import written
from tests.unit.notifier.conftest import CONVERSATION, Story

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
OPEN = OutageAudience("open")
RECENT = OutageAudience("recent")
KNOWN = Announcement("default", "outage_known", "cards-1")
ADA = Contact("Ada", "ada@example.com", "email", "email", "support", "en", True)
CASE = Case("SB-1", NOW - timedelta(hours=3), queue="service", tags=("vip",), cause="charged_twice")


def place(
    conversation_id: str,
    address: str = "ada@example.com",
    why: Why | None = Why.OPEN,
    *,
    is_verified: bool = True,
    hours_ago: float = 1,
) -> Place:
    contact = structs.replace(ADA, address=address, is_verified=is_verified)
    state = Conversation(contact=contact, wrote_at=NOW - timedelta(hours=hours_ago))
    found = place_in("default", conversation_id, state, why)
    assert found is not None
    return found


def chosen(choice: Choice) -> list[str]:
    return [one.conversation_id for one in choice.places]


def pick(*places: Place, record: Record = NO_RECORD, named: frozenset[str] = frozenset()) -> Choice:
    return choose(KNOWN, places, record, {}, named)


# ----------------------------------------------------------------------------------------------- once


def test_a_person_with_several_conversations_is_told_in_the_latest_that_is_proved() -> None:
    found = pick(
        place("c1", hours_ago=5),
        place("c2", "Ada@Example.com", hours_ago=2),
        place("c3", hours_ago=1, is_verified=False),
        place("c4", "bo@example.com"),
    )
    assert chosen(found) == ["c2", "c4"]
    assert found.already == 0


def test_several_addresses_of_one_customer_are_one_person() -> None:
    mail, work = place("c1", hours_ago=2), place("c2", "ada@work.example", hours_ago=1)
    same = {mail.person: "customer:u1", work.person: "customer:u1"}
    assert chosen(choose(KNOWN, [mail, work], NO_RECORD, same)) == ["c2"]


def test_a_vendors_id_means_somebody_at_that_account_only() -> None:
    one = Contact("", "77", "vendor_id", "telegram", "shop", None, False)
    other = structs.replace(one, account="outlet")
    assert person_of(one, "c1") != person_of(other, "c1")
    nobody = structs.replace(one, address_kind="none", address="")
    assert person_of(nobody, "c1") != person_of(nobody, "c2")


@pytest.mark.parametrize("status", ["sent", "suppressed", "failed", "deferred"])
def test_whoever_was_told_or_was_not_to_be_is_not_asked_about_again(status: str) -> None:
    """Not even where they have written in another conversation since."""
    record = Record({KNOWN.notice_id("c1", ""): status})
    before = structs.replace(Conversation(contact=ADA), wrote_at=NOW - timedelta(days=1))
    old = place_in("default", "c1", before, None)
    assert old is not None
    found = pick(old, place("c2"), record=record)
    assert (chosen(found), found.already) == ([], 1)


def test_whoever_was_handed_over_is_not_handed_over_again() -> None:
    record = Record(handed={recipient_of("default", "email:ada@example.com"): "c1"})
    found = pick(place("c2"), place("c3", "bo@example.com"), record=record)
    assert (chosen(found), found.already) == (["c3"], 1)


@pytest.mark.parametrize("occasion", ["outage_known", "outage_over", "security"])
def test_the_notice_of_a_command_is_the_one_that_is_looked_for(
    story: Story, occasion: Announced
) -> None:
    announcement = Announcement("default", occasion, "cards-1")
    one = place_without("default", ADA)
    facts = {
        "command_id": announcement.command_id(one.recipient),
        "about": "cards-1",
        "title": "Cards",
        "text": "Cards are refused.",
        "contact": {**structs.asdict(ADA), "customer_id": "c"},
    }
    story.told_to("09:00", occasion, **facts)
    (requested,) = story.last.events
    assert isinstance(requested, NoticeRequested)
    assert requested.notice_id == announcement.notice_id(CONVERSATION, one.recipient)


def test_somebody_without_a_conversation_gets_the_one_that_the_gateway_would_give_them() -> None:
    given = structs.replace(ADA, address=" Ada@Example.com")
    one = place_without("default", given)
    assert one.conversation_id == _place_of({"contact": {"address": given.address}}, "default")
    assert (one.why, one.contact) == (Why.NAMED, given)


# ---------------------------------------------------------------------------------------------- named


def test_a_person_of_a_file_is_told_where_they_have_proved_who_they_are() -> None:
    new = place_without("default", ADA)
    named = frozenset({new.person})
    silent = place("c1", why=None, hours_ago=400)
    assert chosen(pick(silent, new, named=named)) == ["c1"]
    claimed = place("c1", why=None, is_verified=False)
    assert chosen(pick(claimed, new, named=named)) == [new.conversation_id]
    also_concerned = place("c1", is_verified=False)
    assert chosen(pick(also_concerned, new, named=named)) == [new.conversation_id]
    assert chosen(pick(silent)) == []


# ---------------------------------------------------------------------------------------------- over


def test_that_it_is_over_is_told_where_it_was_told_that_it_is_known() -> None:
    told = place("c1", why=Why.TOLD, hours_ago=9, is_verified=False)
    assert chosen(pick(told, place("c2"))) == ["c1"]


@pytest.mark.parametrize(
    ("status", "has_heard"),
    [("sent", True), ("unknown", True), ("requested", True), ("deferred", True), ("dry_run", True),
     ("suppressed", False), ("failed", False), ("bounced", False)],
)  # fmt: skip
def test_whoever_heard_that_it_is_known_or_is_about_to_was_told(
    status: str, has_heard: bool
) -> None:
    recipient = recipient_of("default", "email:ada@example.com")
    record = Record({KNOWN.notice_id("c1", ""): status}, {recipient: "c1"})
    assert record.was_told(KNOWN.notice_id("c1", ""), "c1", recipient) is has_heard


def test_what_was_handed_over_and_is_not_decided_yet_is_on_its_way_there_and_nowhere_else() -> None:
    record = Record(handed={"r1": "c1"})
    assert record.was_told("n1", "c1", "r1")
    assert not record.was_told("n2", "c2", "r1")
    assert chosen(pick(place_on_its_way("r1", "c1"))) == ["c1"]


def test_a_language_that_is_known_of_somebody_elsewhere_is_theirs() -> None:
    there = place_without("default", structs.replace(ADA, language="tr"))
    (one,) = pick(place_on_its_way(there.recipient, there.conversation_id), there).places
    assert (one.why, one.language) == (Why.TOLD, "tr")


# ------------------------------------------------------------------------------------------ concerned


@pytest.mark.parametrize(
    ("filters", "is_concerned"),
    [
        (ANY, True),
        (Filters(tags=frozenset({"vip", "other"})), True),
        (Filters(tags=frozenset({"charged_twice"})), True),
        (Filters(tags=frozenset({"other"})), False),
        (Filters(queues=frozenset({"service"})), True),
        (Filters(queues=frozenset({"billing"})), False),
        (Filters(causes=frozenset({"charged_twice"})), True),
        (Filters(causes=frozenset({"vip"})), False),
        (Filters(channels=frozenset({"email"})), True),
        (Filters(channels=frozenset({"webchat"})), False),
        (Filters(tags=frozenset({"vip"}), queues=frozenset({"billing"})), False),
    ],
)
@pytest.mark.parametrize("audience", [OPEN, RECENT])
def test_filters_have_all_to_fit(
    audience: OutageAudience, filters: Filters, is_concerned: bool
) -> None:
    state = Conversation(contact=ADA, cases={"t1": CASE}, wrote_at=NOW - timedelta(hours=3))
    found = why_concerned(audience, state, NOW, filters)
    assert found == (Why.OPEN if is_concerned else None)


def test_of_those_who_were_not_told_only_who_came_since_hears_that_it_is_over() -> None:
    state = Conversation(contact=ADA, cases={"t1": CASE}, wrote_at=NOW)
    assert why_concerned(OPEN, state, NOW, ANY, since=CASE.received_at) is Why.OPEN
    later = CASE.received_at + timedelta(seconds=1)
    assert why_concerned(OPEN, state, NOW, ANY, since=later) is None
    assert why_concerned(RECENT, state, NOW, ANY, since=later) is None


def test_why_somebody_is_told_is_their_open_case_before_all_else() -> None:
    solved = structs.replace(CASE, standing="solved")
    state = Conversation(contact=ADA, cases={"t1": solved}, wrote_at=NOW - timedelta(days=1))
    assert why_concerned(RECENT, state, NOW, ANY) is Why.RECENT
    assert why_concerned(OPEN, state, NOW, ANY) is None
    assert why_concerned(RECENT, structs.replace(state, contact=None), NOW, ANY) is None


def test_names_in_tables_and_at_the_door_have_no_address_in_them() -> None:
    one = place("c1")
    assert "ada" not in (one.recipient + KNOWN.key + KNOWN.command_id(one.recipient))
    other = Announcement("default", "outage_known", "cards-2")
    assert KNOWN.command_id(one.recipient) != other.command_id(one.recipient)


# ---------------------------------------------------------------------------------------------- words


def test_what_a_person_writes_is_read_with_the_manners_of_its_language() -> None:
    (found,) = written("We are on it.\nIt works instantly.", "en", "text (en)")
    assert (found.file, found.line, found.rule, found.level) == ("text (en)", 2, "hasty", "error")
    assert written("Cards are refused at the moment. Your order is kept.", "en", "x") == ()
    assert written("Ваш тикет закрыт.", "ru", "x")[0].rule == "jargon"
    assert written("instantly", "fi", "x") == ()
