"""When customers are not told, and that the reason is said."""

from collections.abc import Callable
from typing import Any

import pytest

from services.notifier.core.audience import is_machine, mail_address
from services.notifier.core.state import Contact


@pytest.mark.parametrize("occasion", ["received", "escalated", "solved"])
def test_an_occasion_that_is_off_is_suppressed(
    story_with: Callable[..., Any], occasion: str
) -> None:
    story = story_with(occasions_off=frozenset({occasion})).opened("08:00")
    if occasion == "escalated":
        story.escalated("08:10")
    if occasion == "solved":
        story.solved("08:10", with_answer=False)
    assert story.said[-1] == (occasion, "suppressed", "occasion_off")


def test_a_channel_that_mail_cannot_answer_is_said(story: Any) -> None:
    story.opened("08:00", contact={"channel": "sms", "address_kind": "phone", "address": "+4420"})
    story.then(("received", "suppressed", "channel_unsupported"))
    story.answered("08:10").then(("answered", "suppressed", "channel_unsupported"))
    assert story.sends == []


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "ada@",
        "@example.com",
        "ada@exa mple.com",
        "alice@example.org)bob@evil.example",
        "Ada <ada@example.com>",
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com, eve@example.com",
        "a..b@example.com",
        ".a@example.com",
        "ada@-example.com",
        "ада@example.com",
        "a" * 65 + "@example.com",
        "a@" + "b" * 64 + ".example",
    ],
)
def test_what_is_no_plain_address_is_never_mailed(story: Any, address: str) -> None:
    story.opened("08:00", contact={"address": address})
    story.then(("received", "suppressed", "no_address"))
    story.answered("08:10").then(("answered", "suppressed", "no_address"))


def test_an_international_domain_is_mailed_in_ascii(story: Any) -> None:
    story.opened("08:00", contact={"address": "Ada@МАГАЗИН.example"})
    assert story.mail.to_address == "Ada@xn--80aairftm.example"


def test_a_ticket_we_know_no_contact_of_is_said(story: Any) -> None:
    story.answered("08:00").then(("answered", "suppressed", "no_address"))


@pytest.mark.parametrize(
    "address",
    ["no-reply@shop.example", "NoReply+7@shop.example", "mailer-daemon@mx.example",
     "postmaster@mx.example", "bounces@list.example", "x-bounces@list.example",
     "do-not-reply@shop.example", "orders.noreply@shop.example"],
)  # fmt: skip
def test_a_machine_gets_no_automatic_answer(story: Any, address: str) -> None:
    story.opened("08:00", contact={"address": address})
    story.then(("received", "suppressed", "automatic_message"))
    story.answered("08:10").then(("answered", "requested"))


@pytest.mark.parametrize(
    "address", ["reply@shop.example", "nora.reply@x.example", "ada@noreply.example"]
)
def test_a_person_with_a_like_address_is_no_machine(address: str) -> None:
    assert not is_machine(address)


@pytest.mark.parametrize(
    "address", ["support@lantern-oak.example", "Support+sb.abc@Lantern-Oak.example"]
)
def test_we_never_write_to_ourselves(story: Any, address: str) -> None:
    story.opened("08:00", contact={"address": address})
    story.then(("received", "suppressed", "own_address"))
    story.answered("08:10").then(("answered", "suppressed", "own_address"))


def test_no_more_than_three_automatic_notices_between_two_human_messages(story: Any) -> None:
    story.opened("08:00").escalated("08:01").solved("08:02", with_answer=False)
    assert story.said[-1] == ("solved", "requested")
    story.solved("08:03", with_answer=False, command_id="again")
    assert story.said[-1] == ("solved", "suppressed", "too_many_automatic")


@pytest.mark.parametrize("who", ["customer", "reopening", "agent"])
def test_a_human_message_lets_the_count_begin_anew(
    story_with: Callable[..., Any], who: str
) -> None:
    story = story_with(automatic_between_human=1, occasions_off=frozenset({"reopened"}))
    story.opened("08:00").delivered("08:00:01")
    story.escalated("08:01").then(("escalated", "suppressed", "too_many_automatic"))
    if who == "customer":
        story.wrote("08:02")
    if who == "reopening":
        story.reopened("08:02")
    if who == "agent":
        story.answered("08:02")
    story.solved("08:03", with_answer=False).then(("solved", "requested"))


def test_an_automatic_message_does_not_let_the_count_begin_anew(
    story_with: Callable[..., Any],
) -> None:
    story = story_with(automatic_between_human=1).opened("08:00").delivered("08:00:01")
    story.wrote("08:02", is_automatic=True)
    story.escalated("08:03").then(("escalated", "suppressed", "too_many_automatic"))


def _flood(story: Any, clock: str, number: int) -> Any:
    return story.opened(clock, ticket_id=f"t-{number}", message_id=f"m-{number}")


def test_an_unproved_address_gets_four_automatic_notices_an_hour(story: Any) -> None:
    for number in range(4):
        _flood(story, "08:00", number).then(("received", "requested"))
    _flood(story, "08:59:59", 4).then(("received", "suppressed", "unverified_limit"))
    _flood(story, "09:00", 5).then(("received", "requested"))


def test_unproved_addresses_together_get_so_many_automatic_notices_an_hour(
    story_with: Callable[..., Any],
) -> None:
    story = story_with(unverified_total_per_hour=5)

    def write(clock: str, number: int, *, is_verified: bool = False) -> Any:
        return story.opened(
            clock,
            ticket_id=f"t-{number}",
            message_id=f"m-{number}",
            contact={"address": f"c{number}@example.com", "is_verified": is_verified},
        )

    for number in range(5):
        write("08:00", number).then(("received", "requested"))
    write("08:59:59", 5).then(("received", "suppressed", "unverified_total"))
    story.answered("08:59:59").then(("answered", "requested"))
    # A proved one of its own conversation is not held by what strangers use up.
    story.state = type(story.state)()
    write("08:59:59", 6, is_verified=True).then(("received", "requested"))
    story.state = type(story.state)()
    write("09:00", 7).then(("received", "requested"))


def test_a_proved_address_gets_more(story_with: Callable[..., Any]) -> None:
    story = story_with(verified_recipient_per_hour=5)
    for number in range(5):
        story.opened(
            "08:00",
            ticket_id=f"t-{number}",
            message_id=f"m-{number}",
            contact={"is_verified": True},
        ).then(("received", "requested"))
    story.opened("08:01", ticket_id="t-9", message_id="m-9", contact={"is_verified": True})
    story.then(("received", "suppressed", "recipient_limit"))


def test_caps_never_hold_an_agents_answer(story_with: Callable[..., Any]) -> None:
    story = story_with(
        unverified_recipient_per_hour=0, automatic_between_human=0, verified_recipient_per_hour=0
    )
    story.opened("08:00").then(("received", "suppressed", "too_many_automatic"))
    for number in range(30):
        story.answered("08:01", command_id=f"c-{number}").then(("answered", "requested"))


def test_a_suppressed_notice_stays_suppressed(story: Any) -> None:
    story.opened("08:00", contact={"address": "no-reply@shop.example"})
    story.opened("08:01").then()
    assert story.sends == []


def test_an_answer_drops_the_acknowledgement_that_has_not_gone_out(story: Any) -> None:
    story.opened("08:00").refused("08:00:05").then()
    story.answered("08:00:30").then(
        ("received", "suppressed", "superseded"), ("answered", "requested")
    )
    assert story.due is None


def test_an_acknowledgement_under_way_gets_no_second_attempt_after_the_answer(story: Any) -> None:
    story.opened("08:00")
    acknowledgement = story.sends[-1]
    story.answered("08:00:30").then(("answered", "requested"))
    story.sends.append(acknowledgement)
    story.refused("08:00:40").then(("received", "suppressed", "superseded"))


def test_a_reopened_case_is_not_called_solved(story: Any) -> None:
    story.opened("08:00").delivered("08:00:01").solved("08:30", with_answer=False)
    story.refused("08:30:05").reopened("08:30:10")
    story.then(("solved", "suppressed", "superseded"), ("reopened", "requested"))


def test_an_answer_is_never_superseded(story: Any) -> None:
    story.opened("08:00").delivered("08:00:01").answered("08:10").refused("08:10:05")
    story.solved("08:11", with_answer=False).then(("solved", "requested"))
    assert story.due is not None


@pytest.mark.parametrize("kind", ["phone", "vendor_id", "none"])
def test_only_mail_addresses_are_mailed(kind: str) -> None:
    contact = Contact("", "ada@example.com", kind, "email", "support", None, False)
    assert mail_address(contact) is None
    assert mail_address(None) is None
