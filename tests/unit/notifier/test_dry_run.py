"""A dry run: all is decided, put into words and recorded, nothing leaves, and nobody can take it for sent."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec import structs

from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Effect, EffectDone
from services.notifier.core.delivery import Delivered, Rehearsed, SendSettled
from services.notifier.core.policy import NotifyFile, Policy, PolicyMistake, build
from services.notifier.core.post import Trouble
from services.notifier.core.state import Settled, Waiting
from services.notifier.handlers import (
    _PROVIDERS,
    POLICY,
    NotifierStage,
    _effect,
    read_templates,
)
from services.notifier.settings import NotifierSettings
from services.notifier.store import Loaded, status_of
from tests.unit.notifier.conftest import Story, at

ROOT = Path(__file__).parents[3]
Begin = Callable[[], Story]


def written(**changes: Any) -> Policy:
    """The example's policy with other values at its top."""
    raw = yaml.safe_load((ROOT / "policy" / "notify.yaml").read_text(encoding="utf-8"))
    del raw["articles"]
    file = NotifyFile.model_validate(raw | changes)
    return build(file, read_templates(ROOT / "policy" / "templates"), "v", _PROVIDERS)


def rehearsed(story: Story, clock: str) -> Story:
    return story.when(SendSettled(story.sends[-1], Rehearsed()), clock)


def test_what_is_rehearsed_is_asked_for_and_ends_as_rehearsed(begin: Begin) -> None:
    story = begin().opened()
    assert story.said == [("received", "requested")]
    rehearsed(story, "08:01").then(("received", "suppressed", "dry_run"))
    (one,) = story.last.events
    assert status_of(one) == "dry_run"
    (kept,) = (n for n in story.state.notices.values() if isinstance(n, Settled))
    assert (kept.status, kept.message_id) == ("dry_run", "")


def test_what_may_have_left_before_the_dry_run_stays_unknown(begin: Begin) -> None:
    story = begin().opened()
    story.refused("08:01")
    ((name, waiting),) = story.state.notices.items()
    assert isinstance(waiting, Waiting)
    doubted = structs.replace(waiting, doubted_at=waiting.message.date)
    story.state = structs.replace(story.state, notices={name: doubted})
    story.ticked("08:05")
    rehearsed(story, "08:06").then(("received", "unknown"))


def test_the_whole_file_or_one_account_can_be_rehearsed() -> None:
    account = {
        "provider": "zendesk",
        **_PROVIDERS["zendesk"][0].EXAMPLE,
    }
    one = written(accounts={"desk": account | {"delivery": "dry_run"}, "other": account})
    assert one.rehearses("zendesk", "desk")
    assert not one.rehearses("zendesk", "other")
    assert not one.rehearses("smtp", "support")
    assert one.rehearsals() == ("desk",)
    everything = written(delivery="dry_run", accounts={"desk": account | {"delivery": "live"}})
    assert everything.rehearses("zendesk", "desk")
    assert everything.rehearses("smtp", "support")
    assert everything.rehearsals() == ("all",)
    assert written().rehearsals() == ()


def test_a_sender_can_be_rehearsed_alone() -> None:
    raw = yaml.safe_load((ROOT / "policy" / "notify.yaml").read_text(encoding="utf-8"))
    del raw["articles"]
    senders = {"support": raw["senders"]["support"] | {"delivery": "dry_run"}}
    policy = written(senders=senders)
    assert policy.rehearses("smtp", "support")
    assert policy.rehearsals() == ("support@lantern-oak.example",)


def test_a_word_that_is_neither_is_refused_with_its_path() -> None:
    account = {"provider": "zendesk", **_PROVIDERS["zendesk"][0].EXAMPLE, "delivery": "maybe"}
    with pytest.raises(PolicyMistake, match=r"accounts\.desk\.delivery: 'maybe': live or dry_run"):
        written(accounts={"desk": account})


class _NeverAsked:
    """A way out that nothing may take."""

    def is_repeatable(self, provider: str) -> bool:
        del provider
        return True

    async def send(self, provider: str, account: str, message: Any) -> Any:
        raise AssertionError("a dry run has sent something")

    async def find(self, provider: str, account: str, message: Any) -> Any:
        raise AssertionError("nothing is looked up that was never sent")


class _Open(_NeverAsked):
    async def send(self, provider: str, account: str, message: Any) -> Any:
        return Delivered("250 ok")


@pytest.mark.parametrize(("is_dry_run", "status"), [(True, "dry_run"), (False, "sent")])
def test_the_policy_in_force_as_it_would_leave_decides(
    tmp_path: Path, begin: Begin, is_dry_run: bool, status: str
) -> None:
    """It is asked as the message would leave: what was asked for before the dry run began stays here too."""
    holder = PolicyHolder(ROOT / "policy", POLICY)
    settings = load_settings(
        NotifierSettings, kafka="k:9092", database_url="postgresql://x", token_secret="s" * 32
    )
    stage = NotifierStage(holder, settings, _NeverAsked() if is_dry_run else _Open())
    story = begin().opened()
    effect: Effect = _effect("b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01", story.sends[-1])
    holder.current = replace(holder.current, is_dry_run=is_dry_run)
    result = asyncio.run(stage.perform(effect))
    outcome = stage.decide(
        Loaded(story.state, story.known), EffectDone(effect, result), story.sends[-1].message.date
    )
    (ended,) = outcome.events
    assert status_of(ended) == status  # type: ignore[arg-type]


def promised(begin: Begin, *, is_dry_run: bool) -> Story:
    """A customer who was told 12:00 at 08:00, if only in a dry run."""
    story = begin()
    story.policy = replace(story.policy, promise_wait=timedelta(seconds=5), is_dry_run=is_dry_run)
    story.opened()
    wording = {"kind": "by", "day": "today", "time": "15:00", "timezone": "Europe/Istanbul"}
    story.promised("08:00:01", by=at("12:00"), seconds=14_400.0, wording=wording)
    assert story.said == [("received", "requested")]
    return story


def test_what_was_promised_in_a_dry_run_only_is_not_referred_to_once_notices_leave(
    begin: Begin,
) -> None:
    story = rehearsed(promised(begin, is_dry_run=True), "08:00:02")
    story.policy = replace(story.policy, is_dry_run=False)
    story.followed_up("11:30").then()
    story.followed_up("12:01").then()
    story.breached("13:00").then(("delayed", "requested"))
    assert "15:00" not in story.mail.text


def test_in_the_dry_run_itself_what_follows_is_rehearsed_too(begin: Begin) -> None:
    story = rehearsed(promised(begin, is_dry_run=True), "08:00:02")
    story.followed_up("11:30").then(("still_on_it", "requested"))


def test_a_promise_that_never_arrived_is_not_referred_to(begin: Begin) -> None:
    story = promised(begin, is_dry_run=False)
    story.refused("08:01", "550 no", trouble=Trouble.MESSAGE).then(("received", "failed"))
    story.followed_up("11:30").then()
