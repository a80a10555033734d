"""Given/when/then for the notifier's decisions, on the policy that the demo runs."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chassis.policy import load
from schemas.notifications import NoticeRequested, NoticeSuppressed
from schemas.sla import WaitPromised
from schemas.tickets import (
    Contact,
    TicketAnswered,
    TicketClosed,
    TicketEscalated,
    TicketMessageAdded,
    TicketOpened,
    TicketReopened,
    TicketSolved,
)
from services.notifier.core.audience import recipient_key
from services.notifier.core.decide import (
    Context,
    Decision,
    PromiseDue,
    RetryDue,
    decide,
    next_due,
    promise_due,
)
from services.notifier.core.delivery import Delivered, Failed, SendNotice, SendSettled, Unknown
from services.notifier.core.policy import Policy
from services.notifier.core.state import Conversation
from services.notifier.core.throttle import UNVERIFIED, Recent
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
        self.told: dict[str, list[datetime]] = {}
        self.sends: list[SendNotice] = []
        self.last = Decision(self.state)
        self.version = 0

    def when(self, event: Any, clock: str) -> "Story":
        now = at(clock) + self.day_offset
        context = Context(self.policy, SECRET, "default", now, Recent(now, self.told))
        self.last = decide(CONVERSATION, self.state, event, context)
        assert decide(CONVERSATION, self.state, event, context) == self.last
        stored = msgspec.json.encode(self.last.state)
        self.state = msgspec.json.decode(stored, type=Conversation)
        assert self.state == self.last.state
        for said in self.last.events:
            if isinstance(said, NoticeRequested) and said.occasion != "answered":
                self.told.setdefault(recipient_key("default", said.recipient), []).append(now)
                if not said.is_verified:
                    self.told.setdefault(UNVERIFIED, []).append(now)
        self.sends += self.last.sends
        return self

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
        """The mail handed over last."""
        return self.sends[-1].mail

    @property
    def due(self) -> datetime | None:
        return next_due(self.state)

    @property
    def held_until(self) -> datetime | None:
        return promise_due(self.state)

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

    def delivered(self, clock: str) -> "Story":
        return self.when(SendSettled(self.sends[-1], Delivered("250 queued as 4X")), clock)

    def refused(
        self, clock: str, reason: str = "451 try later", wait: timedelta | None = None
    ) -> "Story":
        failed = Failed(reason, is_recoverable=reason.startswith("4"), retry_after=wait)
        return self.when(SendSettled(self.sends[-1], failed), clock)

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


def _reason(said: Any) -> tuple[str, ...]:
    return (said.reason,) if isinstance(said, NoticeSuppressed) else ()


@pytest.fixture(scope="session")
def policy() -> Policy:
    """The example policy, but that no notice waits for what can be promised: `patient` is it with the wait."""
    return replace(load(Path(__file__).parents[3] / "policy", POLICY), promise_wait=timedelta(0))


@pytest.fixture
def patient(policy: Policy) -> Story:
    """A story under the policy as operators get it: `received` waits for what can be promised."""
    return Story(replace(policy, promise_wait=timedelta(seconds=5)))


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
