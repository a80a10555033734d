"""After each attempt: sent, tried again, failed or unknown, and never twice what may have arrived."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.notifier.core.delivery import Failed, retry_at
from services.notifier.core.state import Settled, Waiting


def test_not_now_is_tried_again_when_its_time_has_come_and_not_before(story: Any) -> None:
    story.opened("08:00").refused("08:00:05").then()
    due = story.due
    assert due is not None
    first = story.sends[-1]
    early = (due - timedelta(seconds=1)).strftime("%H:%M:%S")
    story.ticked(early)
    assert story.last.sends == ()
    late = (due + timedelta(seconds=1)).strftime("%H:%M:%S")
    story.ticked(late)
    (again,) = story.last.sends
    assert again.notice_id == first.notice_id
    assert again.attempt == 2
    assert again.message == first.message
    assert story.due is None
    story.delivered("08:05").then(("received", "sent"))
    assert story.last.events[0].attempts == 2


def test_the_last_attempt_that_fails_is_a_failure(story_with: Callable[..., Any]) -> None:
    story = story_with(retry_delays=(timedelta(seconds=60),), retry_jitter=0.0).opened("08:00")
    story.refused("08:00").ticked("08:01")
    assert story.sends[-1].attempt == 2
    story.refused("08:01", "451 still not").then(("received", "failed"))
    assert story.last.events[0].reason == "451 still not"
    assert story.last.events[0].attempts == 2
    assert story.due is None


def test_a_refusal_for_good_is_not_tried_again(story: Any) -> None:
    story.opened("08:00").refused("08:00:05", "550 no such user").then(("received", "failed"))
    assert story.due is None


@pytest.mark.parametrize(
    "reason", ["interrupted", "connection lost after the mail was handed over"]
)
def test_what_nobody_knows_is_kept_apart_and_never_sent_again(story: Any, reason: str) -> None:
    story.opened("08:00").lost("08:00:05", reason).then(("received", "unknown"))
    assert story.last.events[0].reason == reason
    assert story.due is None
    story.ticked("23:59").opened("23:59").then()
    assert len(story.sends) == 1


def test_a_result_that_comes_twice_changes_nothing(story: Any) -> None:
    story.opened("08:00").delivered("08:00:01").refused("08:00:02").then()
    assert story.last.ignored == "not_awaited"


def test_a_late_result_of_an_earlier_attempt_changes_nothing(story: Any) -> None:
    story.opened("08:00").refused("08:00:05").ticked("09:00")
    story.sends.append(story.sends[0])
    story.delivered("09:00:01").then()
    assert story.last.ignored == "not_awaited"


def test_a_provider_that_asks_for_longer_gets_it(story: Any) -> None:
    story.opened("08:00").refused("08:00", wait=timedelta(minutes=30))
    assert story.due == datetime.fromisoformat("2026-11-24T08:30:00+00:00")


def test_the_reason_of_a_failure_is_one_clean_line(story: Any) -> None:
    story.opened("08:00").refused("08:01", "550 no\r\nsuch\x00 user " + "x" * 500)
    reason = story.last.events[0].reason
    assert reason.startswith("550 no such user")
    assert len(reason) <= 300


@settings(max_examples=100, deadline=None)
@given(notice_id=st.uuids().map(str), attempt=st.integers(1, 8))
def test_each_delay_is_stretched_by_at_most_the_jitter(
    policy: Any, notice_id: str, attempt: int
) -> None:
    now = datetime.fromisoformat("2026-11-24T08:00:00+00:00")
    due = retry_at(policy, notice_id, attempt, Failed("451", is_recoverable=True), now)
    if attempt >= policy.attempts_max:
        assert due is None
    else:
        delay = policy.retry_delays[attempt - 1]
        assert due is not None
        assert now + delay <= due <= now + delay * 1.2


STEPS = ["delivered", "refused", "refused_for_good", "lost", "ticked", "answered", "escalated",
         "solved", "reopened", "wrote", "closed"]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_whatever_happens_each_attempt_is_made_once_and_each_notice_ends_once(
    begin: Any, steps: list[str]
) -> None:
    story = begin().opened("08:00")
    ends: list[str] = []
    for number, step in enumerate(steps):
        clock = f"{9 + number // 2:02}:{30 * (number % 2):02}"
        match step:
            case "delivered" | "refused" | "lost" | "reopened" | "wrote" | "closed" | "ticked":
                getattr(story, step)(clock)
            case "refused_for_good":
                story.refused(clock, "550 no")
            case "solved":
                story.solved(clock, with_answer=False, command_id=f"c{number}")
            case "answered" | "escalated":
                getattr(story, step)(clock, command_id=f"c{number}")
        ends += [
            said.notice_id for said in story.last.events if type(said).__name__ != "NoticeRequested"
        ]
    attempts = [(send.notice_id, send.attempt) for send in story.sends]
    assert len(attempts) == len(set(attempts))
    assert len(ends) == len(set(ends))
    for notice in story.state.notices.values():
        assert not (isinstance(notice, Waiting) and story.due is None)
        assert not (isinstance(notice, Settled) and notice.status == "")
