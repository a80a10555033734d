"""Given/when/then for the notifier's decisions, on the policy that the demo runs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chassis.policy import load
from schemas.commands import NotifyCustomer
from schemas.feedback import FeedbackGiven
from schemas.notifications import NoticeDeferred, NoticeRequested, NoticeSuppressed
from schemas.sla import TargetBreached, WaitPromised
from schemas.tickets import (
    Contact,
    TicketAnswered,
    TicketAnsweredElsewhere,
    TicketCalled,
    TicketClosed,
    TicketEscalated,
    TicketMerged,
    TicketMessageAdded,
    TicketOpened,
    TicketPromised,
    TicketReopened,
    TicketSolved,
    TicketStatusChanged,
)
from services.notifier.core.articles import NO_ARTICLES, ArticlesPolicy
from services.notifier.core.decide import (
    DeferredDue,
    FollowUpDue,
    PromiseDue,
    RetryDue,
    decide,
    deferred_due,
    follow_up_due,
    next_due,
    promise_due,
)
from services.notifier.core.delivery import (
    Absent,
    Delivered,
    Failed,
    SendNotice,
    SendSettled,
    Unknown,
)
from services.notifier.core.known import Known
from services.notifier.core.links import Links
from services.notifier.core.policy import Policy
from services.notifier.core.post import Trouble
from services.notifier.core.state import Conversation
from services.notifier.core.told import Context, Decision
from services.notifier.handlers import POLICY

CONVERSATION = "b1c9f1c2-55a0-5a0e-9d1e-7c6d6a0f7f01"
TICKET = "3c59dc04-8e88-5024-9be8-079a5c74d079"
FOLLOW_UP = "9d4f2a61-0c35-5a42-8a6a-3c8b5a0c1e22"
SECRET = b"0123456789abcdef0123456789abcdef"


def at(clock: str) -> datetime:
    """An instant of the day the tests play on."""
    return datetime.combine(date(2026, 11, 24), time.fromisoformat(clock), UTC)


class Story:
    """One conversation, told event by event. The state is stored and read back between all of them."""

    day_offset = timedelta(0)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.state = Conversation()
        self.known = Known("default")
        self.links = Links(SECRET, "default", "https://in.lantern-oak.example")
        self.sends: list[SendNotice] = []
        self.last = Decision(self.state)
        self.version = 0
        self.now = at("00:00")
        self.kept: list[Any] | None = None
        """Events are kept here instead of happening, where there is a list."""
        self.searched = ""

    def when(self, event: Any, clock: str) -> "Story":
        return self.when_at(event, at(clock) + self.day_offset)

    def when_at(self, event: Any, now: datetime) -> "Story":
        if self.kept is not None:
            self.kept.append(event)
            return self
        self.now = now
        context = Context(self.policy, SECRET, "default", now, self.known, self.links)
        self.last = decide(CONVERSATION, self.state, event, context)
        assert decide(CONVERSATION, self.state, event, context) == self.last
        stored = msgspec.json.encode(self.last.state)
        self.state = msgspec.json.decode(stored, type=Conversation)
        assert self.state == self.last.state
        for said in self.last.events:
            if isinstance(said, NoticeRequested):
                self.known.remember(
                    said.recipient, said.occasion, said.at, is_verified=said.is_verified
                )
        self.sends += self.last.sends
        return self

    def when_at_due(self) -> "Story":
        """The time of the earliest retry or lookup has come."""
        due = self.due
        assert due is not None, "nothing is tried again"
        return self.when_at(RetryDue(), due)

    def settled(self, result: Any) -> SendSettled:
        """What came of the message handed over last."""
        return SendSettled(self.sends[-1], result)

    def looked_up_now(self, result: Any) -> "Story":
        return self.when_at(self.settled(result), self.now)

    @staticmethod
    def deferred() -> DeferredDue:
        return DeferredDue()

    # -- what is said in each step

    @property
    def said(self) -> list[tuple[str, ...]]:
        """What the last step said: occasion and kind, with the reason where there is one."""
        return [
            (said.occasion, type(said).__name__.removeprefix("Notice").lower(), *_reason(said))
            for said in self.last.events
        ]

    def then(self, *expected: tuple[str, ...]) -> "Story":
        assert self.said == list(expected)
        return self

    @property
    def mail(self) -> Any:
        """The message handed over last."""
        return self.sends[-1].message

    @property
    def due(self) -> datetime | None:
        return next_due(self.state)

    @property
    def held_until(self) -> datetime | None:
        return promise_due(self.state)

    @property
    def deferred_until(self) -> datetime | None:
        return deferred_due(self.state)

    @property
    def planned_at(self) -> datetime | None:
        return follow_up_due(self.state)

    # -- events

    def opened(self, clock: str = "08:00", **changes: Any) -> "Story":
        return self.when(self.opening(**{"at": at(clock), **changes}), clock)

    def opening(self, **changes: Any) -> TicketOpened:
        contact = {
            "customer_id": "c1",
            "name": "Ada Lovelace",
            "address": "ada@example.com",
            "channel": "email",
            "account": "support",
            "language": "en",
            **changes.pop("contact", {}),
        }
        facts = {
            **TicketOpened.EXAMPLE,
            "vendor_message_id": "<CAF1@mail.example.com>",
            "contact": Contact(**contact),
            **changes,
        }
        return TicketOpened.model_validate(facts)

    def answered(self, clock: str, **changes: Any) -> "Story":
        facts = {**TicketAnswered.EXAMPLE, "agent_name": "Deniz", **changes}
        return self.when(TicketAnswered.model_validate(facts), clock)

    def escalated(self, clock: str, **changes: Any) -> "Story":
        return self.when(
            TicketEscalated.model_validate({**TicketEscalated.EXAMPLE, "at": at(clock), **changes}),
            clock,
        )

    def solved(self, clock: str, *, with_answer: bool, **changes: Any) -> "Story":
        facts = {**TicketSolved.EXAMPLE, "with_answer": with_answer, **changes}
        return self.when(TicketSolved.model_validate(facts), clock)

    def wrote(self, clock: str, **changes: Any) -> "Story":
        facts = {**TicketMessageAdded.EXAMPLE, **changes}
        return self.when(TicketMessageAdded.model_validate(facts), clock)

    def reopened(self, clock: str) -> "Story":
        return self.when(TicketReopened.model_validate(TicketReopened.EXAMPLE), clock)

    def closed(self, clock: str) -> "Story":
        return self.when(TicketClosed.model_validate(TicketClosed.EXAMPLE), clock)

    def answered_elsewhere(self, clock: str) -> "Story":
        event = TicketAnsweredElsewhere.model_validate(TicketAnsweredElsewhere.EXAMPLE)
        return self.when(event, clock)

    def moved(self, clock: str, status: str, **changes: Any) -> "Story":
        """The ticket's status changes, by a command of an agent's."""
        facts = {
            **TicketStatusChanged.EXAMPLE,
            "before": "assigned",
            "status": status,
            "reason": "agent",
            "command_id": f"s-{clock}",
            **changes,
        }
        return self.when(TicketStatusChanged.model_validate(facts), clock)

    def agreed(self, clock: str, **changes: Any) -> "Story":
        """An agent notes what the customer was promised."""
        facts = {**TicketPromised.EXAMPLE, "command_id": f"p-{clock}", **changes}
        return self.when(TicketPromised.model_validate(facts), clock)

    def called(self, clock: str, outcome: str) -> "Story":
        facts = {
            **TicketCalled.EXAMPLE,
            "command_id": f"k-{clock}",
            "outcome": outcome,
            "occurred_at": at(clock) + self.day_offset,
        }
        return self.when(TicketCalled.model_validate(facts), clock)

    def merged(self, clock: str) -> "Story":
        return self.when(TicketMerged.model_validate(TicketMerged.EXAMPLE), clock)

    def breached(self, clock: str, target: str = "first_response") -> "Story":
        facts = {
            **TargetBreached.EXAMPLE,
            "target": target,
            "breached_at": at(clock) + self.day_offset,
            "detected_at": at(clock) + self.day_offset,
        }
        return self.when(TargetBreached.model_validate(facts), clock)

    def told_to(self, clock: str, occasion: str, **changes: Any) -> "Story":
        """Somebody asks us to tell the customer something."""
        facts = {
            "command_id": f"n-{clock}",
            "conversation_id": CONVERSATION,
            "agent_id": "ada",
            "occasion": occasion,
            **changes,
        }
        return self.when(NotifyCustomer.model_validate(facts), clock)

    def rated(self, clock: str, score: int) -> "Story":
        facts = {**FeedbackGiven.EXAMPLE, "score": score}
        return self.when(FeedbackGiven.model_validate(facts), clock)

    def delivered(self, clock: str, message_id: str = "") -> "Story":
        result = Delivered("250 queued as 4X", message_id)
        return self.when(SendSettled(self.sends[-1], result), clock)

    def refused(
        self,
        clock: str,
        reason: str = "451 try later",
        wait: timedelta | None = None,
        trouble: Trouble = Trouble.PROVIDER,
    ) -> "Story":
        is_recoverable = reason.startswith("4") or trouble is Trouble.ACCOUNT
        failed = Failed(reason, is_recoverable, wait, trouble)
        return self.when(SendSettled(self.sends[-1], failed), clock)

    def looked_up(self, clock: str, result: Any = None) -> "Story":
        """The lookup's answer; by itself, that nothing was taken."""
        return self.when(SendSettled(self.sends[-1], result or Absent()), clock)

    def lost(self, clock: str, reason: str = "interrupted") -> "Story":
        return self.when(SendSettled(self.sends[-1], Unknown(reason)), clock)

    def ticked(self, clock: str) -> "Story":
        return self.when(RetryDue(), clock)

    def promised(self, clock: str, **changes: Any) -> "Story":
        """What can be promised is told; by itself nothing can."""
        nothing = {
            **WaitPromised.EXAMPLE,
            "at": at(clock) + self.day_offset,
            "by": None,
            "seconds": None,
            "wording": None,
            "kept_share": 0.0,
            "samples": 0,
        }
        return self.when(WaitPromised.model_validate(nothing | changes), clock)

    def waited(self, clock: str) -> "Story":
        return self.when(PromiseDue(), clock)

    def resumed(self, clock: str) -> "Story":
        """The time of what was put off."""
        return self.when(DeferredDue(), clock)

    def followed_up(self, clock: str) -> "Story":
        """The time of what was planned."""
        return self.when(FollowUpDue(), clock)


def _reason(said: Any) -> tuple[str, ...]:
    return (said.reason,) if isinstance(said, NoticeSuppressed | NoticeDeferred) else ()


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The example policy, but that no notice waits for what can be promised, or for articles: `patient` and `reader` do."""
    shipped = load(Path(__file__).parents[3] / "policy", POLICY)
    return replace(shipped, promise_wait=timedelta(0), articles=NO_ARTICLES)


@pytest.fixture
def patient(policy: Policy) -> Story:
    """A story under the policy as operators get it: `received` waits for what can be promised."""
    return Story(replace(policy, promise_wait=timedelta(seconds=5)))


@pytest.fixture
def reader(policy: Policy) -> Story:
    """A story under a policy by which `received` waits for what can be promised, and for articles in English."""
    articles = ArticlesPolicy(source="folder", floor={"en": 0.5})
    return Story(replace(policy, promise_wait=timedelta(seconds=5), articles=articles))


@pytest.fixture(scope="session")
def begin(policy: Policy) -> Callable[[], Story]:
    """`begin()` starts a story: for properties, which need many."""
    return lambda: Story(policy)


@pytest.fixture
def story(policy: Policy) -> Story:
    return Story(policy)


@pytest.fixture
def story_with(policy: Policy) -> Callable[..., Story]:
    """`story_with(automatic_between_human=1)`: a story under a changed policy."""
    return lambda **changes: Story(replace(policy, **changes))
