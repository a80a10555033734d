"""What a notice says of the past is so: what had been said arrived, calls were at those times, and why it takes longer is known."""

from collections.abc import Callable
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from schemas.sla import WaitPromised
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.policy import ApprovedTemplate
from services.notifier.core.post import Traits
from services.notifier.core.quiet import QuietHours
from services.notifier.core.state import Case, Conversation
from tests.unit.notifier.conftest import TICKET, Story, at

NOT_KEPT = "We have not kept that"


def promising(story: Story) -> Story:
    """The opening names nine o'clock."""
    return story.opened("08:00").promised(
        "08:00:02",
        by=at("09:00"),
        seconds=3600,
        wording=WaitPromised.EXAMPLE["wording"],
        kept_share=0.9,
        samples=200,
    )


def case_of(state: Conversation) -> Case:
    return state.cases[TICKET]


def test_a_time_in_a_notice_that_still_waits_was_told_nobody(patient: Story) -> None:
    story = promising(patient).refused("08:00:03")
    assert story.followed_up("08:30").said == []
    assert story.followed_up("09:00:06").said == []
    story.breached("09:10").then(("received", "suppressed", "superseded"), ("delayed", "requested"))
    assert NOT_KEPT not in story.mail.text


def test_a_time_in_a_notice_that_was_dropped_was_told_nobody(patient: Story) -> None:
    story = promising(patient).refused("08:00:03")
    story.escalated("08:10").delivered("08:10:01")
    assert story.followed_up("09:00:06").said == []
    assert NOT_KEPT not in story.breached("09:10").mail.text


def test_a_time_that_arrived_and_was_not_kept_is_apologised_for(patient: Story) -> None:
    story = promising(patient).delivered("08:00:03").followed_up("09:00:06")
    story.then(("delayed", "requested"))
    assert NOT_KEPT in story.mail.text


def test_a_call_that_was_owed_and_never_announced_was_no_promise(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01").breached("09:00", "callback")
    story.then(("delayed", "requested"))
    assert NOT_KEPT not in story.mail.text


@pytest.mark.parametrize("is_sent", [True, False])
def test_a_call_that_was_announced_is_apologised_for(story: Story, is_sent: bool) -> None:
    story.opened("08:00").delivered("08:00:01").agreed("08:10", what="callback", by=at("09:00"))
    story = story.delivered("08:10:01") if is_sent else story.refused("08:10:01")
    assert (NOT_KEPT in story.breached("09:00", "callback").mail.text) is is_sent


def test_who_was_rung_up_unawares_did_not_wait_for_it(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01").called("10:00", "no_answer")
    assert "We called you, and did not get to talk." in story.mail.text
    assert "13:00" not in story.mail.text


def test_a_call_without_a_beginning_is_by_a_time(story: Story) -> None:
    story.opened("08:00").delivered("08:00:01").agreed(
        "09:00", what="callback", not_before=None, by=at("11:00")
    )
    assert "We will call you today by 14:00." in story.mail.text


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", "today after 20:00, tomorrow by 09:30 at the latest"),
        ("tr", "bugün saat 20:00’den sonra, en geç yarın saat 09:30’a kadar"),
        ("ru", "сегодня после 20:00, самое позднее завтра до 09:30"),
    ],
)
def test_a_call_over_midnight_names_both_days(story: Story, language: str, said: str) -> None:
    story.opened("08:00", contact={"language": language}).delivered("08:00:01")
    until = at("06:30") + timedelta(days=1)
    story.agreed("09:00", what="callback", not_before=at("17:00"), by=until)
    assert said in story.mail.text


@pytest.mark.parametrize(("rule", "why"), [(None, "research"), ("on_overload.service", "")])
def test_only_a_person_who_escalates_knows_that_a_question_needs_a_closer_look(
    story: Story, rule: str | None, why: str
) -> None:
    story.opened("08:00").delivered("08:00:01").escalated("08:10", by_rule=rule)
    assert case_of(story.state).why == why
    assert "in depth" not in story.mail.text


@pytest.mark.parametrize("length", [1_024, 1_025, 4_000])
def test_an_answer_that_an_approved_template_cannot_hold_is_not_sent_cut(
    story_with: Callable[..., Story], length: int
) -> None:
    """It fails, so a person sees it and can write shorter or by another way."""
    template = ApprovedTemplate("we_have_an_answer", "en", ("answer",))
    window: dict[str, Any] = {"window": timedelta(hours=1), "has_templates": True}
    story = story_with(
        accounts=MappingProxyType({"shop": Account("whatsapp", AccountSettings())}),
        traits=MappingProxyType(
            {"shop": Traits(frozenset({"whatsapp"}), "text", "address", **window)}
        ),
        approved=MappingProxyType({"shop": {"answered": {"en": template}}}),
        quiet=QuietHours(),
        fall_back=(),
    )
    contact = {
        "address": "+905551112233",
        "address_kind": "phone",
        "channel": "whatsapp",
        "account": "shop",
        "is_verified": True,
    }
    story.opened("08:00", contact=contact, occurred_at=at("08:00")).delivered("08:00:01")
    text = ("Your lamp " * 500)[: length - 1] + "."
    story.answered("12:00", text=text)
    if length > 1_024:
        story.then(("answered", "failed"))
        assert "1024" in story.last.events[0].reason  # type: ignore[union-attr]
    else:
        story.then(("answered", "requested"))
        assert story.mail.template.values == (text,)
