"""What becomes of a notice on its way: by which way, tried again, looked up, reported, and what nobody can know."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from schemas.messages import MessageDeliveryReported, MessageReceived
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.delivery import Delivered, Failed, SendSettled, Unknown, Unsent
from services.notifier.core.known import Wish
from services.notifier.core.policy import Digest
from services.notifier.core.post import Post, Traits, Trouble
from services.notifier.core.quiet import QuietHours
from services.notifier.core.settle import good_until
from services.notifier.core.state import Mail, Sending
from tests.unit.notifier.conftest import CONVERSATION, Story, at


@pytest.fixture
def shop(story_with: Callable[..., Story]) -> Callable[..., Story]:
    """`shop(is_keyed=True)`: customers write by the account `shop` of a desk with these traits; mail is the way after it."""

    def begin(**traits: Any) -> Story:
        desk = Traits(frozenset({"desk"}), "html", "thread", **traits)
        return story_with(
            accounts=MappingProxyType({"shop": Account("desk", AccountSettings())}),
            traits=MappingProxyType({"shop": desk}),
            quiet=QuietHours(),
        )

    return begin


def opened(story: Story, clock: str = "08:00", **changes: Any) -> Story:
    return story.opened(
        clock,
        contact={"channel": "desk", "account": "shop", "is_verified": True},
        vendor_thread="t-7",
        vendor_message_id="m-1",
        **changes,
    )


def test_the_customer_is_answered_where_they_wrote(shop: Callable[..., Story]) -> None:
    story = opened(shop()).then(("received", "requested"))
    (send,) = story.sends
    assert (send.provider, send.account) == ("desk", "shop")
    post = send.message
    assert isinstance(post, Post)
    assert (post.key, post.thread, post.answers) == (send.notice_id, "t-7", "m-1")
    assert post.is_automatic
    assert post.text
    said = story.last.events[0]
    assert (said.provider, said.account, said.channel) == ("desk", "shop", "desk")  # type: ignore[union-attr]
    story.delivered("08:00:01", "v-9").then(("received", "sent"))
    assert story.last.events[0].provider_message_id == "v-9"  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------- nobody knows


def test_where_the_provider_cannot_be_asked_an_interrupted_send_is_unknown(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop()).lost("08:00:05").then(("received", "unknown"))
    assert story.due is None


def test_where_it_can_be_asked_it_is_and_what_it_has_is_sent(shop: Callable[..., Story]) -> None:
    story = opened(shop(can_find=True)).lost("08:00:05").then()
    assert story.due == at("08:01:05")
    story.ticked("08:01:05")
    (look,) = story.last.sends
    assert (look.is_lookup, look.attempt, look.message) == (True, 1, story.sends[0].message)
    story.looked_up("08:01:06", Delivered(message_id="v-9")).then(("received", "sent"))
    assert len(story.sends) == 2


def test_a_mail_that_an_account_may_have_sent_is_looked_up_as_any_message_is(
    story_with: Callable[..., Story],
) -> None:
    gmail = Traits(frozenset({"gmail"}), "mail", "address", can_find=True)
    story = story_with(
        accounts=MappingProxyType({"box": Account("gmail", AccountSettings())}),
        traits=MappingProxyType({"box": gmail}),
        quiet=QuietHours(),
    )
    contact = {"channel": "gmail", "account": "box", "is_verified": True}
    story.opened("08:00", contact=contact).lost("08:00:05").then()
    assert isinstance(story.sends[0].message, Mail)
    story.when_at_due()
    look = story.sends[-1]
    assert (look.is_lookup, look.provider, look.account) == (True, "gmail", "box")
    story.looked_up_now(Delivered(message_id="m-9")).then(("received", "sent"))


@pytest.mark.parametrize("trait", ["is_keyed", "can_find"])
def test_our_own_mail_server_is_trusted_with_nothing_that_the_customers_vendor_can(
    shop: Callable[..., Story], trait: str
) -> None:
    """Mail goes in the name of the account that the customer wrote to, and by our server all the same."""
    story = opened(shop(**{trait: True})).refused("08:00:05", "550 no", trouble=Trouble.WINDOW)
    assert (story.sends[-1].provider, story.sends[-1].account) == ("smtp", "shop")
    story.lost("08:00:06").then(("received", "unknown"))
    assert story.due is None


def test_what_it_surely_has_not_is_sent_again_under_the_same_key(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop(can_find=True)).lost("08:00:05").ticked("08:01:05").looked_up("08:01:06")
    story.then()
    assert story.due is not None
    story.when_at_due()
    assert (story.sends[-1].attempt, story.sends[-1].is_lookup) == (2, False)
    assert story.sends[-1].message == story.sends[0].message


@pytest.mark.parametrize("result", [Unknown("no answer"), Failed("503", True)])
def test_what_cannot_be_told_is_asked_thrice_and_then_shown_to_a_person(
    shop: Callable[..., Story], result: Any
) -> None:
    story = opened(shop(can_find=True)).lost("08:00:05", "timed out")
    for _ in range(2):
        story.when_at_due()
        assert story.sends[-1].is_lookup
        story.looked_up_now(result).then()
    story.when_at_due()
    story.looked_up_now(result).then(("received", "unknown"))
    assert "timed out" in story.last.events[0].reason  # type: ignore[union-attr]
    assert story.due is None
    assert sum(not send.is_lookup for send in story.sends) == 1


def test_what_is_superseded_while_it_is_looked_up_is_not_sent_again(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop(can_find=True)).lost("08:00:05").ticked("08:01:05")
    look = story.sends[-1]
    story.answered("08:01:05").then(("answered", "requested"))
    story.sends.append(look)
    story.looked_up("08:01:06").then(("received", "suppressed", "superseded"))


def test_a_provider_that_drops_repeats_gets_the_same_again(shop: Callable[..., Story]) -> None:
    story = opened(shop(is_keyed=True)).lost("08:00:05").then()
    story.when_at_due()
    assert (story.sends[-1].attempt, story.sends[-1].message) == (2, story.sends[0].message)
    story.delivered("08:05").then(("received", "sent"))


def test_no_key_is_relied_on_for_longer_than_an_hour(shop: Callable[..., Story]) -> None:
    story = opened(shop(is_keyed=True)).answered("08:00:01")
    for _ in range(9):
        story.when_at(story.settled(Unknown("lost")), story.now)
        if story.due is None:
            break
        story.when_at_due()
    assert story.said == [("answered", "unknown")]
    assert story.now < at("09:00:10")


def test_an_account_that_waits_does_not_repeat_under_a_key_that_may_be_forgotten(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop(is_keyed=True)).answered("08:00:01").lost("08:00:05")
    story.when_at_due()
    for _ in range(9):
        story.when_at(story.settled(Failed("401", True, None, Trouble.ACCOUNT)), story.now)
        sends = len(story.sends)
        story.when_at_due()
        if len(story.sends) == sends:
            break
    assert story.said == [("answered", "unknown")]


# --------------------------------------------------------------------------------------- other trouble


def test_n4_the_second_way_is_gone_exactly_once(shop: Callable[..., Story]) -> None:
    story = opened(shop()).answered("08:10", text="It has left.")
    story.refused("08:10:01", "blocked", trouble=Trouble.ADDRESS).then()
    (mail,) = story.last.sends
    assert (mail.provider, mail.attempt) == ("smtp", 2)
    assert mail.notice_id == story.sends[1].notice_id
    assert "It has left." in mail.message.text
    assert [one.reason for one in story.last.dead] == ["blocked"]
    story.refused("08:10:02", "550 no such user", trouble=Trouble.ADDRESS)
    story.then(("answered", "failed"))
    assert story.last.events[0].trouble == "address"  # type: ignore[union-attr]
    assert len(story.sends) == 3


def test_n4_a_providers_wish_is_obeyed_and_the_second_way_has_attempts_of_its_own(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop())
    story.refused("08:00:01", "429 slower", wait=timedelta(minutes=20)).then()
    assert story.due == at("08:20:01")
    story.answered("08:05").refused("08:05:01", "too long", trouble=Trouble.MESSAGE)
    assert story.sends[-1].provider == "smtp"
    story.refused("08:05:02", "451 later").then()
    assert story.due is not None


def test_what_a_person_has_to_mend_waits_and_is_told_once(shop: Callable[..., Story]) -> None:
    story = opened(shop()).answered("08:10")
    story.refused("08:10:01", "401", trouble=Trouble.ACCOUNT)
    story.then(("answered", "deferred", "account_trouble"))
    assert story.last.events[0].account == "shop"  # type: ignore[union-attr]
    for _ in range(12):  # More often than a notice is tried.
        story.when_at_due()
        story.when_at(story.settled(Failed("401", True, None, Trouble.ACCOUNT)), story.now)
        story.then()
    story.when_at_due()
    story.when_at(story.settled(Delivered()), story.now).then(("answered", "sent"))


def test_nothing_waits_for_an_account_for_ever(shop: Callable[..., Story]) -> None:
    story = opened(shop()).answered("08:10")
    story.refused("08:10:01", "401", trouble=Trouble.ACCOUNT)
    begun = story.now
    while story.due is not None:
        story.when_at_due()
        story.when_at(story.settled(Failed("401", True, None, Trouble.ACCOUNT)), story.now)
    assert story.said == [("answered", "failed")]
    assert story.now - begun <= story.policy.timing.account_patience


def test_words_that_are_no_longer_true_are_made_anew(
    shop: Callable[..., Story],
) -> None:
    story = shop()
    story.policy = replace(story.policy, promise_wait=timedelta(seconds=5))
    within = {"kind": "within", "minutes": 20, "day": "today", "time": "11:20"}
    opened(story).promised("08:00:01", by="2026-11-24T08:20:00Z", seconds=1200.0, wording=within)
    assert "within 20 minutes" in story.mail.text
    story.refused("08:00:05", wait=timedelta(minutes=15)).then()
    story.ticked("08:15:05").then()
    assert "within 20 minutes" not in story.mail.text
    assert story.sends[-1].notice_id == story.sends[0].notice_id
    story.delivered("08:15:06").then(("received", "sent"))
    assert story.last.events[0].attempts == 2  # type: ignore[union-attr]


# -------------------------------------------------------------------------------------------- put off


@pytest.fixture
def quiet(story_with: Callable[..., Story]) -> Story:
    """A story under a policy in which mail wakes people, too. Quiet is until 08:00 in Istanbul, which is 05:00 here."""
    return story_with(quiet=replace(story_with().policy.quiet, silent=frozenset()))


def test_what_is_put_off_is_said_in_the_words_of_then(quiet: Story) -> None:
    story = quiet
    story.opened("02:00", occurred_at=at("02:00"))
    story.then(("received", "requested"))  # Whoever has just written is awake.
    story.delivered("02:00:01")
    story.breached("03:30").then(("delayed", "deferred", "quiet_hours"))
    until = story.deferred_until
    assert until is not None
    assert at("05:00") <= until
    story.when_at(story.deferred(), until).then(("delayed", "requested"))
    assert story.deferred_until is None


def test_what_is_put_off_dies_when_it_is_stale(quiet: Story) -> None:
    story = quiet.opened("02:00", occurred_at=at("02:00")).delivered("02:00:01")
    story.breached("03:30").then(("delayed", "deferred", "quiet_hours"))
    story.called("03:40", "reached").then(("delayed", "suppressed", "superseded"))
    assert story.deferred_until is None


def test_what_is_urgent_is_said_at_night(quiet: Story) -> None:
    story = quiet.opened("02:00")
    story.told_to("03:30", "outage_known", is_urgent=True, title="Login", about="login-1")
    story.then(("outage_known", "requested"))


def test_several_that_wait_for_the_digest_are_told_together(
    story_with: Callable[..., Story],
) -> None:
    digest = Digest(frozenset({"recovery", "check_in"}), minute=14 * 60)
    story = story_with(digest=digest, quiet=QuietHours(), occasions_off=frozenset())
    story.opened("08:00").delivered("08:00:01")
    story.told_to("08:10", "recovery", text="We have looked into it.")
    story.then(("recovery", "deferred", "digest"))
    story.told_to("08:11", "check_in", text="All well?").then(("check_in", "deferred", "digest"))
    assert story.deferred_until == at("11:00"), "at 14:00 on the customer's clock"
    story.resumed("11:00")
    assert sorted(story.said) == [
        ("check_in", "suppressed", "digested"),
        ("digest", "requested"),
        ("recovery", "suppressed", "digested"),
    ]
    assert len(story.last.sends) == 1


# --------------------------------------------------------------------------------------------- reports


def report(what: str, message_id: str, **changes: Any) -> MessageDeliveryReported:
    facts = {
        **MessageDeliveryReported.EXAMPLE,
        "vendor_message_id": message_id,
        "what": what,
        "conversation_id": CONVERSATION,
        **changes,
    }
    return MessageDeliveryReported.model_validate(facts)


def test_what_vendors_report_is_told_once_and_in_order(shop: Callable[..., Story]) -> None:
    story = opened(shop()).answered("08:10").delivered("08:10:01", "v-9")
    story.when(report("delivered", "v-9"), "08:10:02").then(("answered", "deliveryreported"))
    story.when(report("delivered", "v-9"), "08:10:03").then()
    story.when(report("read", "v-9"), "08:11").then(("answered", "deliveryreported"))
    story.when(report("delivered", "v-9"), "08:12").then()
    assert story.last.ignored == "known_already"
    story.when(report("read", "other"), "08:13").then()
    assert story.last.ignored == "early", "the acknowledgement is still under way"


def test_a_bounced_mail_counts_by_its_report_alone_for_anybody_can_write_a_bounce(
    story: Story,
) -> None:
    story.opened("08:00").answered("08:10").delivered("08:10:01")
    content = {
        **MessageReceived.EXAMPLE["content"],
        "kind": "bounce",
        "in_reply_to": story.mail.message_id,
        "references": [story.mail.message_id],
        "bounce": {"recipient": "ada@example.com", "status": "5.1.1"},
    }
    only_late = {**content, "fields": {"bounce_action": "delayed"}}
    for facts in ({"content": only_late}, {"content": content, "suspicion": "forged"}):
        event = MessageReceived.model_validate({**MessageReceived.EXAMPLE, **facts})
        story.when(event, "08:11").then()
        assert story.last.ignored == "told_by_its_report"
        assert story.last.dead == ()
    story.when(report("bounced", story.mail.message_id, detail="5.1.1", is_permanent=True), "08:12")
    story.then(("answered", "deliveryreported"))
    told = story.last.events[0]
    assert (told.what, told.is_permanent) == ("bounced", True)  # type: ignore[union-attr]
    ((recipient, reason, _, until),) = story.last.dead
    assert (recipient, reason) == (story.known.key("ada@example.com"), "5.1.1")
    assert until is None


def test_a_report_that_comes_before_the_answer_to_the_sending_is_not_lost(story: Story) -> None:
    story.opened("08:00")
    ours = story.mail.message_id
    story.when(report("delivered", ours), "08:00").then()
    story.when(report("bounced", ours, detail="5.1.1", is_permanent=True), "08:00").then()
    assert story.last.ignored == "early"
    story.when(report("delivered", ours), "08:00").then()
    assert story.last.ignored == "known_already"
    story.delivered("08:00:01").then(("received", "sent"), ("received", "deliveryreported"))
    assert story.last.events[1].what == "bounced"  # type: ignore[union-attr]
    assert [one.reason for one in story.last.dead] == ["5.1.1"]
    assert not story.state.early


def test_a_vendors_early_report_waits_for_the_id_that_the_vendor_gives(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop())
    story.when(report("read", "v-8"), "08:00").when(report("read", "v-9"), "08:00")
    story.delivered("08:00:01", "v-9").then(("received", "sent"), ("received", "deliveryreported"))
    assert not story.state.early, "nothing is under way that the other could be about"


def test_early_reports_are_bounded_and_none_is_kept_where_nothing_is_under_way(
    story: Story,
) -> None:
    story.opened("08:00")
    for number in range(30):
        story.when(report("read", f"x-{number}"), "08:00")
    assert list(story.state.early) == [f"x-{number}" for number in range(10, 30)]
    story.delivered("08:01").when(report("read", "x-1"), "08:02").then()
    assert (story.last.ignored, story.state.early) == ("not_ours", {})


# ------------------------------------------------------------------------ an account's trouble, late turns


def test_an_accounts_trouble_is_told_also_of_what_was_sent_another_way_before(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop())
    story.refused("08:00:01", "550 gone")
    assert len(story.sends) == 2, "by mail, then"
    story.refused("08:00:02", "535 login", trouble=Trouble.ACCOUNT)
    story.then(("received", "deferred", "account_trouble"))
    story.when_at_due().refused("08:16", "535 login", trouble=Trouble.ACCOUNT).then()


def test_an_accounts_trouble_without_end_leaves_in_doubt_what_may_have_been_taken(
    shop: Callable[..., Story],
) -> None:
    story = opened(shop(is_keyed=True)).lost("08:00:01")
    story.when_at_due()
    story.day_offset = timedelta(days=4)
    story.refused("08:01", "401 token", trouble=Trouble.ACCOUNT).then(("received", "unknown"))


def test_what_is_superseded_before_its_turn_is_not_sent(story: Story) -> None:
    story.opened("08:00").answered("08:01")
    story.when(SendSettled(story.sends[0], Unsent()), "08:02")
    story.then(("received", "suppressed", "superseded"))


def test_what_is_untrue_when_its_turn_comes_is_made_anew_and_uses_up_no_attempt(
    story: Story,
) -> None:
    story.opened("08:00")
    first = story.sends[-1]
    story.when(SendSettled(first, Unsent()), "09:00").then()
    (again,) = story.last.sends
    assert (again.notice_id, again.attempt) == (first.notice_id, 2)
    notice = story.state.notices[first.notice_id]
    assert isinstance(notice, Sending)
    assert (notice.attempt, notice.excused) == (2, 1)


def test_what_is_too_old_when_its_turn_comes_is_dropped(story: Story) -> None:
    story.opened("08:00")
    story.day_offset = timedelta(days=2)
    story.when(SendSettled(story.sends[-1], Unsent()), "08:00")
    story.then(("received", "suppressed", "expired"))


def test_no_old_key_is_relied_on_when_the_turn_comes_late(shop: Callable[..., Story]) -> None:
    story = opened(shop(is_keyed=True)).lost("08:00:01")
    story.when_at_due()
    (again,) = story.last.sends
    notice = story.state.notices[again.notice_id]
    assert isinstance(notice, Sending)
    assert good_until(notice) == at("09:00:01")
    story.when(SendSettled(again, Unsent()), "09:30").then(("received", "unknown"))


# ---------------------------------------------------------------------------------------------- wishes


def test_a_word_ends_notices_and_drops_what_was_to_come(story_with: Callable[..., Story]) -> None:
    story = story_with(
        accounts=MappingProxyType({"sms": Account("twilio_sms", AccountSettings())}),
        traits=MappingProxyType({"sms": Traits(frozenset({"twilio_sms"}), "text", "address")}),
        quiet=QuietHours(),
    )
    contact = {"channel": "twilio_sms", "account": "sms", "address": "+442079460000",
               "address_kind": "phone"}  # fmt: skip
    story.opened("08:00", contact=contact).refused("08:00:05")
    content = {
        **MessageReceived.EXAMPLE["content"],
        "channel": "twilio_sms",
        "account": "sms",
        "sender": {"address": "+442079460000", "kind": "phone"},
        "text": "STOP",
        "text_new": "STOP",
    }
    facts = {**MessageReceived.EXAMPLE, "content": content}
    story.when(MessageReceived.model_validate(facts), "08:01")
    story.then(("received", "suppressed", "opted_out"))
    wished = {(one.recipient, one.category, one.is_out) for one in story.last.wished}
    assert wished == {
        ("+442079460000", category, True) for category in ("service", "outage", "follow_up")
    }
    for one in story.last.wished:
        key = story.known.key(one.recipient)
        story.known.wishes[key] = {
            **story.known.wishes.get(key, {}),
            one.category: Wish(one.is_out, one.at),
        }
    story.solved("08:02", with_answer=False).then(("solved", "suppressed", "opted_out"))
