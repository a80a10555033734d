"""What never happens, whatever comes in whichever order: told twice, told when stale, promised when it is over."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.notifications import NoticeFailed, NoticeSent, NoticeUnknown
from schemas.tickets import TicketReopened
from services.notifier.core.accounts import Account, AccountSettings
from services.notifier.core.decide import DeferredDue, FollowUpDue, PromiseDue, RetryDue
from services.notifier.core.delivery import Absent, Delivered, Failed, SendSettled, Unknown
from services.notifier.core.post import Traits, Trouble
from services.notifier.core.reason import SUPERSEDES
from services.notifier.core.state import Deferred, Planned, Settled, Waiting
from services.notifier.core.timing import NextIssue
from tests.unit.notifier.conftest import FOLLOW_UP, TICKET, Story, at

WITHIN = {"kind": "within", "minutes": 120, "day": "today", "time": "13:00"}
TIMERS = {
    "retry": RetryDue(),
    "promise": PromiseDue(),
    "deferred": DeferredDue(),
    "follow_up": FollowUpDue(),
}
RESULTS = (
    Delivered(message_id="v"),
    Failed("451 later", True, trouble=Trouble.PROVIDER),
    Failed("429", True, timedelta(minutes=40), Trouble.PROVIDER),
    Failed("401", True, trouble=Trouble.ACCOUNT),
    Failed("blocked", False, trouble=Trouble.ADDRESS),
    Unknown("lost"),
)
STEPS = (
    "opened", "followed", "wrote", "reopened", "answered", "promising", "elsewhere", "escalated", "solved",
    "solved_with_answer", "asks", "resting", "back", "agreed", "booked", "missed", "reached", "breached", "promised", "outage",
    "over", "unhappy", "merged", "spam", "tick", "away", "settle",
)  # fmt: skip


class World:
    """A story whose timers are fired when they are due, and which watches all that is sent."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.now = at("06:00")
        self.sent: dict[str, list[Any]] = {}
        self.open: list[Any] = []
        self.stale: set[str] = set()
        self.number = 0
        self.ends: dict[str, int] = {}

    def clock(self) -> str:
        return self.now.strftime("%H:%M:%S")

    def apply(self, event: Any, by: str = "") -> None:
        """Let an event happen; `by` is what it makes stale notices of."""
        doomed = {
            notice_id
            for notice_id, one in self.story.state.notices.items()
            if one.ticket_id == TICKET
            and one.occasion in SUPERSEDES.get(by, ())
            and not isinstance(one, Settled | Planned)
        }
        ahead = self.ahead(by)
        self.story.when_at(event, self.now)
        self.stale |= doomed
        left = self.ahead(by) & ahead
        assert not left, "what was planned before it is still to come"
        for said in self.story.last.events:
            if isinstance(said, NoticeSent | NoticeFailed | NoticeUnknown):
                self.ends[said.notice_id] = self.ends.get(said.notice_id, 0) + 1
        for send in self.story.last.sends:
            self.watch(send)

    def ahead(self, by: str) -> set[tuple[str, str]]:
        """What is planned of that which an event makes stale, with when it is due."""
        return {
            (notice_id, one.due_at.isoformat())
            for notice_id, one in self.story.state.notices.items()
            if isinstance(one, Planned)
            and one.ticket_id == TICKET
            and one.occasion in SUPERSEDES.get(by, ())
        }

    def watch(self, send: Any) -> None:
        self.open.append(send)
        if send.is_lookup:
            return
        assert send.notice_id not in self.stale or self.is_human(send), (
            "sent after it was superseded"
        )
        earlier = self.sent.setdefault(send.notice_id, [])
        assert all(one.attempt < send.attempt for one in earlier), "an attempt is made once"
        earlier.append(send)
        self.check_promise(send)

    def is_human(self, send: Any) -> bool:
        notice = self.story.state.notices[send.notice_id]
        return notice.occasion == "answered"

    def check_promise(self, send: Any) -> None:
        """That we are at it is never said after the promise that it is about."""
        notice: Any = self.story.state.notices[send.notice_id]
        if notice.occasion == "still_on_it":
            assert notice.matter.promised_by > self.now
        if notice.stale_at is not None and notice.occasion != "answered":
            assert notice.stale_at > self.now, "words that are no longer true"

    def settle(self, choice: int) -> None:
        if not self.open:
            return
        send = self.open.pop(choice % len(self.open))
        results: tuple[Any, ...] = (*RESULTS, Absent()) if send.is_lookup else RESULTS
        self.apply(SendSettled(send, results[choice % len(results)]))

    def pass_time(self, minutes: int) -> None:
        """Let so many minutes go by, and fire every timer that falls due, in order, as the loop does."""
        until = self.now + timedelta(minutes=minutes)
        for _ in range(50):
            story = self.story
            due = {
                "retry": story.due,
                "promise": story.held_until,
                "deferred": story.deferred_until,
                "follow_up": story.planned_at,
            }
            ahead = sorted((when, name) for name, when in due.items() if when is not None)
            if not ahead or ahead[0][0] > until:
                break
            self.now = max(self.now, ahead[0][0])
            self.apply(TIMERS[ahead[0][1]])
        self.now = until


def step(world: World, what: str, choice: int) -> None:
    """One thing that happens."""
    world.number += 1
    story, clock, number = world.story, world.clock(), world.number
    story.kept = []
    by = ""
    match what:
        case "opened":
            story.opened(clock, contact=_contact(choice), vendor_thread="t", vendor_message_id="m")
        case "followed":
            story.opened(
                clock, ticket_id=FOLLOW_UP, message_id=f"m{number}", contact=_contact(choice)
            )
        case "wrote":
            by = "wrote"
            story.wrote(clock)
        case "reopened":
            by = "reopened"
            facts = {**TicketReopened.EXAMPLE, "message_id": f"m{number}"}
            story.when(TicketReopened.model_validate(facts), clock)
        case "answered" | "promising":
            by = "answered"
            later = (world.now + timedelta(hours=3)).isoformat() if what == "promising" else None
            story.answered(clock, command_id=f"c{number}", next_update_by=later)
        case "elsewhere":
            by = "answered_elsewhere"
            story.answered_elsewhere(clock)
        case "escalated":
            story.escalated(clock, command_id=f"c{number}")
        case "solved" | "solved_with_answer":
            by = "solved"
            story.solved(clock, with_answer=what != "solved", command_id=f"c{number}")
        case "asks":
            by = "need_info"
            story.moved(
                clock, "on_hold", waiting_on="customer", detail="Which?", command_id=f"c{number}"
            )
        case "resting":
            story.moved(clock, "on_hold", waiting_on="carrier", command_id=f"c{number}")
        case "back":
            story.moved(clock, "queued", command_id=f"c{number}")
        case "agreed":
            by_time = (world.now + timedelta(hours=2)).isoformat()
            story.agreed(clock, what="update", by=by_time, command_id=f"c{number}")
        case "booked":
            by = "callback_booked"
            times = [(world.now + timedelta(hours=hours)).isoformat() for hours in (1, 2)]
            story.agreed(clock, not_before=times[0], by=times[1], command_id=f"c{number}")
        case "missed":
            by = "callback_missed"
            story.called(clock, "no_answer")
        case "reached":
            by = "called"
            story.called(clock, "reached")
        case "breached":
            story.breached(clock, ("first_response", "periodic_update", "callback")[choice % 3])
        case "promised":
            by_time = (world.now + timedelta(hours=2)).isoformat()
            story.promised(clock, by=by_time, seconds=7200.0, wording=WITHIN)
        case "outage" | "over":
            occasion = "outage_known" if what == "outage" else "outage_over"
            story.told_to(clock, occasion, about="a", title="Cards", command_id=f"c{number}")
        case "unhappy":
            by = "recovery"
            story.rated(clock, 1)
        case "merged":
            by = "merged"
            story.merged(clock)
        case "spam":
            by = "spam"
            story.moved(clock, "spam", command_id=f"c{number}")
    kept, story.kept = story.kept, None
    for event in kept:
        world.apply(event, by)


def _contact(choice: int) -> dict[str, Any]:
    if choice % 2:
        return {"is_verified": True}
    return {"channel": "desk", "account": "shop", "is_verified": True}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    is_keyed=st.booleans(),
    can_find=st.booleans(),
    steps=st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 41), st.integers(0, 200)), max_size=20
    ),
)
@example(is_keyed=False, can_find=False, steps=[("agreed", 1, 0), ("away", 0, 130), ("tick", 0, 9)])
def test_nothing_is_told_twice_nor_when_it_is_stale_nor_promised_when_it_is_over(
    begin: Callable[[], Story], is_keyed: bool, can_find: bool, steps: list[tuple[str, int, int]]
) -> None:
    story = begin()
    desk = Traits(frozenset({"desk"}), "html", "thread", is_keyed=is_keyed, can_find=can_find)
    issue = NextIssue(timedelta(hours=2), {"en": ("A", "https://help.lantern-oak.example/1", "")})
    story.policy = replace(
        story.policy,
        accounts=MappingProxyType({"shop": Account("desk", AccountSettings())}),
        traits=MappingProxyType({"shop": desk}),
        promise_wait=timedelta(seconds=5),
        occasions_off=frozenset(),
        automatic_between_human=5,
        quiet=replace(story.policy.quiet, silent=frozenset()),
        timing=replace(
            story.policy.timing,
            next_issues={"late_by_shipper": issue},
            check_in_after=timedelta(hours=3),
            survey_after=timedelta(hours=4),
        ),
    )
    world = World(story)
    for what, choice, minutes in [("opened", steps[0][1] if steps else 0, 0), *steps]:
        if what == "settle":
            world.settle(choice)
        elif what == "tick":
            world.pass_time(minutes)
        elif what == "away":
            world.now += timedelta(minutes=minutes)
        else:
            step(world, what, choice)
        world.pass_time(1)
    assert all(count == 1 for count in world.ends.values()), "each notice ends once"
    for notice_id, one in story.state.notices.items():
        if isinstance(one, Waiting | Deferred):
            assert notice_id not in world.stale or one.occasion == "answered"
