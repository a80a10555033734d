"""The waiting of the acknowledgement, in the loop's own hands: two topics, timers, effects, repeats."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from chassis.policy import PolicyHolder
from chassis.settings import load_settings
from chassis.stage import Effect, EffectResult, Input
from chassis.testing import World
from schemas.notifications import NoticeRequested, NoticeSent
from schemas.sla import WaitPromised
from schemas.tickets import TicketOpened
from schemas.topics import NOTIFICATIONS, SLA
from services.notifier.core.articles import NO_ARTICLES
from services.notifier.core.known import Known
from services.notifier.core.state import Conversation
from services.notifier.handlers import POLICY, NotifierStage
from services.notifier.metrics import PROMISES
from services.notifier.settings import NotifierSettings
from services.notifier.store import Loaded

START = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


class Post:
    """Takes every mail, and remembers when."""

    def __init__(self) -> None:
        self.mails: list[tuple[datetime, str]] = []
        self.world: World | None = None

    def __call__(self, effect: Effect) -> EffectResult:
        assert self.world is not None
        self.mails.append((self.world.clock.now(), effect.payload["message"]["text"]))
        return EffectResult("done", "250 ok")


def load(
    memory: Any, task: int, inputs: Sequence[Input], missing: Sequence[str]
) -> Mapping[str, Loaded]:
    """The conversations that are stored; nobody has been told anything else lately."""
    del inputs
    states: dict[str, Loaded] = memory.states[task]
    return {key: states.get(key, Loaded(Conversation(), Known("default"))) for key in missing}


def begin() -> tuple[World, Post]:
    given = {"kafka": "k:9092", "database_url": "postgresql://x", "token_secret": "x" * 32}
    holder = PolicyHolder(Path(__file__).parents[3] / "policy", POLICY)
    holder.current = replace(
        holder.current, promise_wait=timedelta(seconds=5), articles=NO_ARTICLES
    )
    provider: Any = None
    stage = NotifierStage(holder, load_settings(NotifierSettings, **given), provider)
    post = Post()
    world = World([stage], start=START, loaders={stage.name: load}, perform={stage.name: post})
    post.world = world
    return world, post


def opened() -> TicketOpened:
    return TicketOpened.model_validate(TicketOpened.EXAMPLE)


def promised() -> WaitPromised:
    return WaitPromised.model_validate(WaitPromised.EXAMPLE)


def test_a_promise_lets_the_acknowledgement_go_and_the_timer_finds_nothing_left() -> None:
    world, post = begin()
    world.accept(opened(), key=opened().conversation_id)
    world.advance(by=timedelta(seconds=1))
    assert post.mails == []
    world.accept(promised(), key=promised().conversation_id)
    world.advance(by=timedelta(minutes=1))
    ((sent_at, text),) = post.mails
    assert sent_at == START + timedelta(seconds=1)
    assert "We expect to answer you within 45 minutes." in text
    assert world.next_due() == START + timedelta(minutes=45, seconds=5), "when it breaks"


def test_without_a_promise_it_goes_after_five_seconds_to_the_millisecond() -> None:
    world, post = begin()
    world.accept(opened(), key=opened().conversation_id)
    world.advance(by=timedelta(seconds=4.999))
    assert post.mails == []
    world.advance(by=timedelta(minutes=1))
    ((sent_at, text),) = post.mails
    assert sent_at == START + timedelta(seconds=5)
    assert "We expect" not in text


def test_what_acknowledgements_say_about_time_is_counted() -> None:
    def counted() -> list[float]:
        outcomes = ("told", "nothing_known", "not_in_time", "late")
        return [PROMISES.labels(one)._value.get() for one in outcomes]

    before = counted()
    for is_told in (True, False):
        world, _ = begin()
        world.accept(opened(), key=opened().conversation_id)
        world.run_until_idle()
        if is_told:
            world.accept(promised(), key=promised().conversation_id)
        world.advance(by=timedelta(seconds=5))
        world.accept(promised(), key=promised().conversation_id)
        world.run_until_idle()
    assert [after - was for after, was in zip(counted(), before, strict=True)] == [1, 0, 1, 2]


def test_topics_keep_no_order_between_them_and_repeats_are_no_second_mail() -> None:
    world, post = begin()
    world.accept(promised(), key=promised().conversation_id)
    world.advance(by=timedelta(seconds=1))
    world.accept(opened(), key=opened().conversation_id)
    world.advance(by=timedelta(seconds=1))
    assert len(post.mails) == 1
    (record,) = world.log(SLA)
    world.repeat(record)
    world.accept(promised(), key=promised().conversation_id)
    world.accept(opened(), key=opened().conversation_id)
    world.advance(by=timedelta(minutes=1))
    assert len(post.mails) == 1
    assert len(world.events(NOTIFICATIONS, NoticeRequested)) == 1
    assert len(world.events(NOTIFICATIONS, NoticeSent)) == 1
